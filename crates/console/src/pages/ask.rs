//! Asking without SQL: which store, which table, which columns, which rows, why and for how long. The path says what was wanted, so that
//! the link that psql printed leads here; it has names of columns in it and never a value.

use std::collections::BTreeSet;

use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use maud::{Markup, html};
use ringfence_policy::decision::{GrantScope, Visibility};
use ringfence_policy::{Access, Catalogue, Device};
use serde_json::json;

use super::words::{holds, length, seen_word};
use super::{At, Page, Person, Told, page};
use crate::Desk;

/// How long a grant may be asked for, in seconds.
const LENGTHS: [u64; 8] = [900, 1800, 3600, 7200, 14_400, 28_800, 86_400, 604_800];
/// What a row may be compared by.
const OPERATORS: [(&str, &str); 6] = [
    ("=", "is"),
    ("<>", "is not"),
    ("<", "less than"),
    ("<=", "at most"),
    (">", "more than"),
    (">=", "at least"),
];
/// How many comparisons the form has.
const COMPARISONS: usize = 3;

/// A form whose fields may come more than once.
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// A field's value, trimmed.
    pub(crate) fn one(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.trim())
    }

    /// All values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.clone()).collect()
    }

    /// A number; `None` where there is nothing, an error where it is none.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Told> {
        match self.one(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Told::new(
                    StatusCode::CONFLICT,
                    format!("\u{201c}{name}\u{201d} is not a whole number. Nothing was changed."),
                )
            }),
        }
    }

    /// The comparisons as a condition, with what was typed in PostgreSQL's own spelling beside them.
    pub(crate) fn condition(&self) -> Result<Option<String>, Told> {
        let mut parts = Vec::new();
        for n in 0..COMPARISONS {
            let (column, operator) = (self.one(&format!("column{n}")), self.one(&format!("operator{n}")));
            let value = self.one(&format!("value{n}"));
            if column.is_empty() || value.is_empty() {
                continue;
            }
            if !OPERATORS.iter().any(|(known, _)| *known == operator) {
                return Err(Told::new(
                    StatusCode::CONFLICT,
                    "There is no such comparison. Nothing was changed.",
                ));
            }
            parts.push(format!(
                "\"{}\" {operator} '{}'",
                column.replace('"', "\"\""),
                value.replace('\'', "''")
            ));
        }
        let typed = self.one("where");
        if !typed.is_empty() {
            parts.push(if parts.is_empty() { typed.to_owned() } else { format!("({typed})") });
        }
        Ok((!parts.is_empty()).then(|| parts.join(" AND ")))
    }
}

/// The fields for rows: comparisons, and a condition for those who know how.
pub(crate) fn rows_fields(columns: &[&String], asked: Option<&str>) -> Markup {
    html! {
        fieldset {
            legend { "Which rows" }
            @if let Some(asked) = asked { p.soft { "Besides " code { (asked) } ", which stays:" } }
            @for n in 0..COMPARISONS {
                div.comparison {
                    select name={ "column" (n) } aria-label={ "Column of comparison " (n + 1) } {
                        option value="" { "any" }
                        @for column in columns { option { (column) } }
                    }
                    select name={ "operator" (n) } aria-label={ "Comparison " (n + 1) } {
                        @for (operator, word) in OPERATORS { option value=(operator) { (word) } }
                    }
                    input name={ "value" (n) } aria-label={ "Value of comparison " (n + 1) } maxlength="200" autocomplete="off";
                }
            }
            details {
                summary { "Or as a condition" }
                label for="where" { "As after WHERE: comparisons of columns with constants" }
                input id="where" name="where" maxlength="1000" autocomplete="off" placeholder="country = 'US' AND id IN (4711, 4712)";
            }
        }
    }
}

/// The fields for time and number.
pub(crate) fn limits_fields(most: u64, chosen: u64, rows: Option<u64>) -> Markup {
    html! {
        label for="seconds" { "For how long, from the last approval" }
        select id="seconds" name="seconds" {
            @for seconds in LENGTHS.into_iter().filter(|s| *s < most) { option value=(seconds) selected[seconds == chosen] { (length(seconds)) } }
            @if most <= 604_800 && !LENGTHS.contains(&most) || LENGTHS.contains(&most) { option value=(most) selected[most == chosen] { (length(most)) } }
        }
        label for="max_rows" { "At most how many rows in all" }
        input id="max_rows" name="max_rows" type="number" min="1" max=[rows] value=[rows] inputmode="numeric";
    }
}

/// The stores of which this person sees something through a face.
fn stores<'a>(policy: &'a ringfence_policy::Policy, person: &Person) -> Vec<(&'a str, &'a Catalogue)> {
    let device = Device::presumed(&person.principal);
    let access = |name: &str| policy.access(&person.principal.name, name, device.as_ref());
    let is_face = |name: &str| matches!(access(name), Ok(Access::Face));
    let all = policy.stores().filter(|(store, _)| is_face(&store.name));
    all.map(|(store, catalogue)| (store.name.as_str(), catalogue)).collect()
}

/// `GET /ask`: the tables of which a grant could open more.
pub(crate) async fn choose(State(desk): At, person: Person) -> Page {
    let policy = desk.gateway.policy();
    let stores = stores(&policy, &person);
    let body = html! {
        h1 { "Ask" }
        p { "You see masked data, or none, of what is protected. Whoever needs more for a while asks for it: the in-country security team of the store decides." }
        @if stores.is_empty() { p.empty { "There is no store of which you see a part only, so there is nothing to ask for." } }
        @for (name, catalogue) in stores {
            section aria-labelledby={ "store-" (name) } {
                h2 id={ "store-" (name) } { (name) }
                ul.cards {
                    @for (table, classified) in &catalogue.tables {
                        @let protected: Vec<&str> = classified.columns.iter().filter(|(_, c)| c.protected().is_some()).map(|(n, _)| n.as_str()).collect();
                        @if !protected.is_empty() {
                            li { a.card href={ "/ask/" (name) "/" (table) } { strong { (table) } span.soft { (protected.join(", ")) } } }
                        }
                    }
                }
            }
        }
    };
    page("Ask", Some(&person), &body)
}

/// `GET /ask/{store}/{table}`
pub(crate) async fn show(
    State(desk): At,
    person: Person,
    Path((store, table)): Path<(String, String)>,
) -> Result<Page, Told> {
    form(&desk, &person, &store, &table, &BTreeSet::new())
}

/// `GET /ask/{store}/{table}/{columns}`: where the link of a refused statement leads.
pub(crate) async fn show_for(
    State(desk): At,
    person: Person,
    Path((store, table, columns)): Path<(String, String, String)>,
) -> Result<Page, Told> {
    form(&desk, &person, &store, &table, &columns.split(',').map(str::to_owned).collect())
}

fn form(
    desk: &Desk,
    person: &Person,
    store: &str,
    table: &str,
    wanted: &BTreeSet<String>,
) -> Result<Page, Told> {
    let policy = desk.gateway.policy();
    let no = || Told::new(StatusCode::NOT_FOUND, "There is no such table that you could ask for.");
    let found = stores(&policy, person).into_iter().find(|(name, _)| *name == store).ok_or_else(no)?;
    let classified = found.1.tables.get(table).ok_or_else(no)?;
    let protected: BTreeSet<String> =
        classified.columns.iter().filter(|(_, c)| c.protected().is_some()).map(|(n, _)| n.clone()).collect();
    let scope = GrantScope { id: "-".to_owned(), table: table.to_owned(), columns: protected.clone() };
    let (who, device) = (&person.principal.name, Device::presumed(&person.principal));
    let outcome = policy.outcome_of_table(who, store, table, device.as_ref(), &[scope]);
    let outcome = outcome.map_err(|_| {
        Told::new(StatusCode::SERVICE_UNAVAILABLE, "What you see cannot be decided at the moment.")
    })?;
    let seen = outcome.tables.get(table);
    let of = |column: &str| seen.and_then(|t| t.get(column));
    let opens = |column: &str| of(column).is_some_and(|c| !c.granted_by.is_empty());
    let body = html! {
        p.soft { a href="/ask" { "Ask" } " / " (store) " / " (table) }
        h1 { "Ask for columns of " (table) }
        form.ask method="post" action={ "/ask/" (store) "/" (table) } {
            input type="hidden" name="token" value=(person.session.csrf);
            fieldset {
                legend { "Which columns you need in clear" }
                @for column in &protected {
                    @let now = of(column).map_or(Visibility::Absent, |c| c.base);
                    label.tick {
                        input type="checkbox" name="columns" value={ (table) "." (column) } disabled[!opens(column)] checked[opens(column) && wanted.contains(column)];
                        span { code { (column) } " " span.soft { (holds(classified.columns.get(column))) ", " (seen_word(now)) " for you"
                            @if !opens(column) { "; no grant opens it to you" } } }
                    }
                }
            }
            (rows_fields(&classified.columns.keys().collect::<Vec<_>>(), None))
            label for="purpose" { "Why: a ticket, a case, a reason that an approver can judge" }
            input id="purpose" name="purpose" required maxlength="500" autocomplete="off";
            (limits_fields(604_800, 7200, Some(100)))
            button { "Ask" }
        }
        p.soft { "On the command line: " code { "ringfence request --store " (store) " --columns " (table) ".…" } }
    };
    Ok(page(&format!("Ask for {table}"), Some(person), &body))
}

/// `POST /ask/{store}/{table}`
pub(crate) async fn send(
    State(desk): At,
    person: Person,
    Path((store, _)): Path<(String, String)>,
    headers: HeaderMap,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Redirect, Told> {
    let fields = Fields(fields);
    person.must_be_ours(&desk, &headers, fields.one("token"))?;
    let ask = json!({
        "store": store, "columns": fields.all("columns"), "where": fields.condition()?, "purpose": fields.one("purpose"),
        "seconds": fields.number("seconds")?.unwrap_or(7200), "max_rows": fields.number("max_rows")?,
    });
    let told = person.ask(&desk, &json!({ "do": "request", "ask": ask })).await?;
    Ok(Redirect::to(&format!("/requests/{}", told["id"].as_str().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    fn fields(all: &[(&str, &str)]) -> Fields {
        Fields(all.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn comparisons_are_spelled_so_that_a_value_stays_a_value() {
        let all = [
            ("column0", "id"),
            ("operator0", "="),
            ("value0", "4711' OR 'a' = 'a"),
            ("column1", "we\"ird"),
            ("operator1", ">="),
            ("value1", "7"),
            ("column2", "country"),
            ("operator2", "="),
            ("value2", ""),
        ];
        let text = fields(&all).condition().unwrap().unwrap();
        assert_eq!(text, "\"id\" = '4711'' OR ''a'' = ''a' AND \"we\"\"ird\" >= '7'");
        let both = [("column0", "id"), ("operator0", "="), ("value0", "1"), ("where", "a = 1 OR b = 2")];
        assert_eq!(fields(&both).condition().unwrap().unwrap(), "\"id\" = '1' AND (a = 1 OR b = 2)");
        let odd = [("column0", "id"), ("operator0", "= 1 OR id ="), ("value0", "1")];
        assert!(fields(&odd).condition().is_err());
        assert!(fields(&[("where", " ")]).condition().unwrap().is_none());
        assert!(fields(&[("max_rows", "ten")]).number("max_rows").is_err());
    }
}
