//! What each column is, beside what is in the store now: what nobody classified first, since nobody outside sees it.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use maud::{Markup, html};
use ringfence_policy::{Catalogue, Column};

use super::drafts;
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
    let drift = behind.steward.drift(catalogue).await.ok();
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
            @match &drift {
                None => p.warn { "The store does not answer, so what it has besides cannot be told." },
                Some(drift) if drift.unclassified.is_empty() => p.empty { "Nothing: every column of the store is in the catalogue." },
                Some(drift) => (drafts::form(&person, &policy, &name, drift)),
            }
            @if let Some(gone) = drift.as_ref().map(|d| &d.gone).filter(|gone| !gone.is_empty()) {
                p.warn { "Classified, and not in the store any more:" }
                ul { @for (table, columns) in gone { li { code { (table) } ": " (columns.join(", ")) } } }
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
