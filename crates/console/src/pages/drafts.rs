//! What nobody classified, with what it may be, for a human to decide: the outcome is lines for the catalogue. They count when whoever keeps
//! the rules has put them there, as any other rule does; nothing is in force by a click here.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use ringfence_face::draft;
use ringfence_face::drift::{Drift, Proposal, Unclassified};
use ringfence_policy::catalogue::Protected;
use ringfence_policy::{Catalogue, Class, Column, Kind, Policy};

use super::{At, Page, Person, Told, page};

/// A choice in a form that leaves a column unclassified.
const LEAVE: &str = "";
/// A choice in a form that makes a column public. No category is called so.
const PUBLIC: &str = "public";

/// The categories that may be chosen: those of the thresholds, of what is proposed, and of what is classified already.
fn categories(policy: &Policy, drift: &Drift) -> BTreeSet<String> {
    let limits = policy.registry().thresholds.iter().flat_map(|t| t.categories.iter().cloned());
    let known = policy.stores().flat_map(|(_, c)| c.tables.values()).flat_map(|t| t.columns.values());
    let proposed = drift.unclassified.iter().flat_map(|t| &t.columns).filter_map(|p| p.guess.as_ref());
    let used = known.chain(proposed).map(|column| column.category().to_owned());
    limits.chain(used).filter(|c| !c.is_empty() && c != PUBLIC).collect()
}

/// What a field of the form is called.
fn field(what: &str, table: &Unclassified, column: &Proposal) -> String {
    // Names may have anything in them; a dot in one is not the dot between two.
    let plain = |name: &str| name.replace('%', "%25").replace('.', "%2E");
    format!("{what}:{}.{}.{}", plain(&table.schema), plain(&table.table), plain(&column.column))
}

/// The form, by table.
pub(super) fn form(person: &Person, policy: &Policy, store: &str, drift: &Drift) -> Markup {
    let categories = categories(policy, drift);
    html! {
        p.warn { "These columns are in the store and in no catalogue, so in no face. What is protected by its name and type is chosen already; no value was looked at (" code { "ringfence init" } " looks at some). What is public, everybody may see: that is for you to choose." }
        @for table in &drift.unclassified {
            h3 { @if table.schema != "public" { (table.schema) "." } (table.table) }
            @if table.is_shadowed {
                p { "There is a table of this name in another schema, and the catalogue has no room for two: " (names(table)) "." }
            } @else {
                form method="post" action={ "/catalogue/" (store) "/lines" } {
                    input type="hidden" name="token" value=(person.session.csrf);
                    div.scroll tabindex="0" role="region" aria-label={ "Unclassified columns of " (table.table) } { table {
                        thead { tr { th scope="col" { "Column" } th scope="col" { "Holds" } th scope="col" { "Mask" } } }
                        tbody { @for column in &table.columns { (row(table, column, &categories)) } }
                    } }
                    button { "Write the lines for the catalogue" }
                }
            }
        }
    }
}

fn names(table: &Unclassified) -> String {
    table.columns.iter().map(|c| c.column.as_str()).collect::<Vec<_>>().join(", ")
}

fn row(table: &Unclassified, column: &Proposal, categories: &BTreeSet<String>) -> Markup {
    // Nothing becomes public because nobody looked.
    let guessed = column.guess.as_ref().and_then(Column::protected);
    let guessed = guessed.filter(|how| column.kinds.contains(&how.kind));
    let holds = guessed.map_or(LEAVE, |how| how.category.as_str());
    // A constant shows the least.
    let kind =
        guessed.map(|how| how.kind).or_else(|| column.kinds.iter().copied().find(|kind| *kind == Kind::Text));
    let protected = categories.iter().filter(|_| !column.kinds.is_empty());
    html! { tr {
        th scope="row" { code { (column.column) } br; span.soft { (column.sql_type) } }
        td { select name=(field("holds", table, column)) aria-label={ "What " (column.column) " holds" } {
            option value=(LEAVE) selected[holds == LEAVE] { "leave unclassified" }
            option value=(PUBLIC) { "public" }
            @for category in protected { option value=(category) selected[holds == category] { (category) } }
        } }
        td { @if column.kinds.is_empty() { span.soft { "there is none for this type" } } @else {
            select name=(field("kind", table, column)) aria-label={ "The mask of " (column.column) } {
                @for one in &column.kinds { option selected[kind == Some(*one)] { (one.word()) } }
            }
        } }
    } }
}

/// What somebody chose for the columns of a table.
fn chosen(table: &Unclassified, fields: &[(String, String)]) -> Result<BTreeMap<String, Column>, String> {
    let of = |name: &str| fields.iter().find(|(n, _)| n == name).map_or(LEAVE, |(_, v)| v.as_str());
    let mut columns = BTreeMap::new();
    for column in &table.columns {
        let class = match of(&field("holds", table, column)) {
            LEAVE => continue,
            PUBLIC => Column::Word(Class::Public),
            category => {
                let kind = of(&field("kind", table, column));
                let kind: Option<Kind> = column.kinds.iter().copied().find(|k| k.word() == kind);
                let kind = kind.ok_or_else(|| {
                    format!("There is no such mask for {}, which is {}.", column.column, column.sql_type)
                })?;
                Column::Protected(Protected { category: category.to_owned(), kind, bucket: None })
            }
        };
        columns.insert(column.column.clone(), class);
    }
    Ok(columns)
}

/// `POST /catalogue/{store}/lines`: changes nothing, and says what to change.
pub(crate) async fn take(
    State(desk): At,
    person: Person,
    Path(store): Path<String>,
    headers: HeaderMap,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Page, Told> {
    let token = fields.iter().find(|(n, _)| n == "token").map_or("", |(_, v)| v.as_str());
    person.must_be_ours(&desk, &headers, token)?;
    let policy = desk.gateway.policy();
    let no = || Told::new(StatusCode::NOT_FOUND, "There is no such store.");
    let (_, catalogue) = policy.store(&store).ok_or_else(no)?;
    let behind = desk.gateway.stores.get(&store).ok_or_else(no)?;
    let silent = |_| Told::new(StatusCode::SERVICE_UNAVAILABLE, "The store does not answer.");
    let drift = behind.steward.drift(catalogue).await.map_err(silent)?;
    let categories = categories(&policy, &drift);
    let mut new = Catalogue::default();
    for table in drift.unclassified.iter().filter(|table| !table.is_shadowed) {
        let columns = chosen(table, &fields).map_err(|why| Told::new(StatusCode::BAD_REQUEST, why))?;
        let is_known = |c: &Column| c.protected().is_none_or(|how| categories.contains(&how.category));
        if !columns.values().all(is_known) {
            let problem = "The form names a category that there is not.";
            return Err(Told::new(StatusCode::BAD_REQUEST, problem));
        }
        if !columns.is_empty() {
            new.tables.insert(table.table.clone(), draft::table(&table.schema, &table.table, columns));
        }
    }
    let body = html! {
        p.soft { a href="/catalogue" { "Catalogue" } " / " a href={ "/catalogue/" (store) } { (store) } " / lines" }
        h1 { "Lines for the catalogue of " (store) }
        @if new.tables.is_empty() {
            p.empty { "None: every column was left unclassified." }
        } @else {
            p { "Nothing has changed yet. These lines count once whoever keeps the rules has put them into the catalogue's file, and the gateways have read it anew (" code { "SIGHUP" } "); that is in the ledger. Where a table is new, read what it says of the person that a row is about, too." }
            pre tabindex="0" { (catalogue.addition(&new)) }
        }
    };
    Ok(page("Lines for the catalogue", Some(&person), &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_must_fit_the_columns_type() {
        let column = |name: &str, kinds: &[Kind]| Proposal {
            column: name.to_owned(),
            sql_type: "bigint".to_owned(),
            guess: None,
            kinds: kinds.to_vec(),
        };
        let table = Unclassified {
            schema: "public".to_owned(),
            table: "users".to_owned(),
            is_shadowed: false,
            columns: vec![column("a", &[Kind::Number]), column("b", &[Kind::Number]), column("c", &[])],
        };
        let fields = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            all.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        let some = fields(&[
            ("holds:public.users.a", "health"),
            ("kind:public.users.a", "number"),
            ("holds:public.users.c", PUBLIC),
            ("holds:public.users.other", PUBLIC),
        ]);
        let found = chosen(&table, &some).expect("it fits");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(found["a"].category(), "health");
        let wrong = fields(&[("holds:public.users.a", "health"), ("kind:public.users.a", "email")]);
        assert!(chosen(&table, &wrong).is_err());
        assert!(chosen(&table, &fields(&[("holds:public.users.c", "health")])).is_err());
        assert!(chosen(&table, &[]).expect("nothing").is_empty());
    }
}
