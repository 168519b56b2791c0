//! What each column is, beside what is in the store now: what nobody classified first, since nobody outside sees it.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use maud::{Markup, html};
use ringfence_policy::{Catalogue, Column};

use super::words::holds;
use super::{At, Page, Person, Told, page};

/// `GET /catalogue`
pub(crate) async fn show(State(desk): At, person: Person) -> Page {
    let policy = desk.gateway.policy();
    let body = html! {
        h1 { "Catalogue" }
        p { "What the columns of each store hold. What is not listed is in no face: nobody abroad sees it, masked or not." }
        ul.cards { @for (store, catalogue) in policy.stores() {
            li { a.card href={ "/catalogue/" (store.name) } {
                span.row { strong { (store.name) } span.soft { "data of " (store.jurisdiction) ", in " (store.location) ", " (store.kind.word()) } }
                span.soft { (catalogue.tables.len()) " tables, " (count(catalogue, |c| c.protected().is_some())) " protected columns, " (count(catalogue, |c| c.protected().is_none())) " public" }
            } }
        } }
    };
    page("Catalogue", Some(&person), &body)
}

fn count(catalogue: &Catalogue, is_one: impl Fn(&Column) -> bool) -> usize {
    catalogue.tables.values().flat_map(|t| t.columns.values()).filter(|c| is_one(c)).count()
}

/// `GET /catalogue/{store}`
pub(crate) async fn store(State(desk): At, person: Person, Path(name): Path<String>) -> Result<Page, Told> {
    let policy = desk.gateway.policy();
    let no = || Told::new(StatusCode::NOT_FOUND, "There is no such store.");
    let (store, catalogue) = policy.store(&name).ok_or_else(no)?;
    let behind = desk.gateway.stores.get(&name).ok_or_else(no)?;
    // A store that does not answer is no reason to hide what is classified.
    let found = behind.steward.tables().await.ok();
    let unclassified = found.as_ref().map(|found| unclassified(found, catalogue)).unwrap_or_default();
    let gone = found.as_ref().map(|found| gone(found, catalogue)).unwrap_or_default();
    let body = html! {
        p.soft { a href="/catalogue" { "Catalogue" } " / " (name) }
        h1 { "Catalogue of " (name) }
        dl.facts {
            dt { "Data of" } dd { (store.jurisdiction) }
            dt { "Where" } dd { (store.location) ", " (store.kind.word()) }
            dt { "Full access" } dd { (list(&store.full_access)) }
            dt { "Approvers" } dd { (list(&store.approvers)) }
            dt { "Auditors" } dd { (list(&store.auditors)) }
        }
        section aria-labelledby="unclassified" {
            h2 id="unclassified" { "Unclassified" }
            @if found.is_none() { p.warn { "The store does not answer, so what it has besides cannot be told." } }
            @else if unclassified.is_empty() { p.empty { "Nothing: every column of the store is in the catalogue." } }
            @else {
                p.warn { "These columns are in the store and in no catalogue, so in no face. " code { "ringfence store init" } " drafts what they may be; classify them, then reload the rules." }
                ul { @for (table, columns) in &unclassified { li { code { (table) } ": " (columns.join(", ")) } } }
            }
            @if !gone.is_empty() {
                p.warn { "Classified, and not in the store any more:" }
                ul { @for (table, columns) in &gone { li { code { (table) } ": " (columns.join(", ")) } } }
            }
        }
        @for (name, table) in &catalogue.tables {
            section aria-labelledby={ "table-" (name) } {
                h2 id={ "table-" (name) } { (name) }
                p.soft {
                    @match &table.subject { Some(subject) => { "About the person in " code { (subject) } } None => "About nobody in particular" }
                    @if !table.parties.is_empty() { ", and those in " (table.parties.join(", ")) }
                    @if let Some(residence) = &table.residence { "; lives where " code { (residence) } " says" }
                }
                div.scroll tabindex="0" role="region" aria-label={ "Columns of " (name) } { table {
                    thead { tr { th scope="col" { "Column" } th scope="col" { "Holds" } th scope="col" { "Mask" } } }
                    tbody { @for (column, class) in &table.columns { tr {
                        th scope="row" { code { (column) } }
                        td { (class_of(class)) }
                        td { (class.protected().map_or("\u{2013}", |p| p.kind.word())) }
                    } } }
                } }
            }
        }
    };
    Ok(page(&format!("Catalogue of {name}"), Some(&person), &body))
}

fn class_of(column: &Column) -> Markup {
    html! { span.seen data-seen=(if column.protected().is_some() { "open" } else { "clear" }) { (holds(Some(column))) } }
}

fn list(teams: &std::collections::BTreeSet<String>) -> String {
    if teams.is_empty() { "nobody".to_owned() } else { teams.iter().cloned().collect::<Vec<_>>().join(", ") }
}

type Tables = BTreeMap<(String, String), Vec<String>>;

/// What the store has and nobody classified.
fn unclassified(found: &Tables, catalogue: &Catalogue) -> BTreeMap<String, Vec<String>> {
    let mut missing = BTreeMap::new();
    for ((schema, table), columns) in found {
        let known = catalogue.tables.get(table).filter(|t| t.schema == *schema);
        let new: Vec<String> =
            columns.iter().filter(|c| known.is_none_or(|t| !t.columns.contains_key(*c))).cloned().collect();
        if !new.is_empty() {
            let name = if schema == "public" { table.clone() } else { format!("{schema}.{table}") };
            missing.insert(name, new);
        }
    }
    missing
}

/// What is classified and the store does not have.
fn gone(found: &Tables, catalogue: &Catalogue) -> BTreeMap<String, Vec<String>> {
    let mut gone = BTreeMap::new();
    for (name, table) in &catalogue.tables {
        let has = found.get(&(table.schema.clone(), name.clone()));
        let old: Vec<String> =
            table.columns.keys().filter(|c| has.is_none_or(|has| !has.contains(c))).cloned().collect();
        if !old.is_empty() {
            gone.insert(name.clone(), old);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn drift_shows_both_ways() {
        let catalogue =
            Catalogue::parse("[tables.users.columns]\nid = \"public\"\nold = \"public\"\n").unwrap();
        let at = |schema: &str, table: &str| (schema.to_owned(), table.to_owned());
        let found = Tables::from([
            (at("public", "users"), vec!["id".to_owned(), "email".to_owned()]),
            (at("audit", "users"), vec!["id".to_owned()]),
        ]);
        let missing = unclassified(&found, &catalogue);
        assert_eq!(missing["users"], ["email"]);
        assert_eq!(
            missing["audit.users"],
            ["id"],
            "another schema's table of the same name is not classified"
        );
        assert_eq!(gone(&found, &catalogue)["users"], ["old"]);
        assert_eq!(gone(&Tables::new(), &catalogue)["users"], ["id", "old"]);
    }
}
