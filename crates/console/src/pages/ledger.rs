//! The log: its head, its witnesses, each entry with its proof. The public half is for everybody who is logged in; the private record
//! for those who approve or audit the jurisdiction that it is about.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::Value;

use super::words::{length, number};
use super::{At, Page, Person, Told, moment, page};
use crate::Desk;
use crate::log::{self, Line, lines};

/// How many entries a page has.
const PAGE: u64 = 50;

/// Entries as a table.
pub(super) fn table(found: &[Line]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="List of entries" {
            table {
                thead { tr { th.n scope="col" { "Entry" } th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "Data of" } th scope="col" { "From" } th scope="col" { "Record" } } }
                tbody { @for Line { index, leaf, record } in found { tr {
                    th.n scope="row" { a href={ "/ledger/" (index) } { (index) } }
                    td.when { (moment(&ringfence_grants::request::rfc3339(leaf.time))) }
                    td { (leaf.kind.word()) @if leaf.counters.rows > 0 { ", " (number(leaf.counters.rows)) " rows" } }
                    td { (leaf.jurisdiction) }
                    td { (leaf.from.as_deref().unwrap_or("\u{2013}")) @if leaf.covered { span.warn { " covered" } } }
                    td.gist { @match record { Some(record) => { (gist(record)) } None => span.soft { "sealed" } } }
                } } }
            }
        }
    }
}

/// What a record is about, in a line: who, and the statement or the reason.
fn gist(record: &Value) -> Markup {
    // Whatever is asked for lies in the record as the text that is signed.
    let asked: Value =
        record["request"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let record = if asked.is_object() { &asked } else { record };
    let get = |key: &str| record[key].as_str().filter(|text| !text.is_empty());
    let who = get("principal").or_else(|| get("requester")).or_else(|| get("by")).or_else(|| get("approver"));
    let what =
        ["statement", "reason", "ended", "id", "stage", "version", "digest"].iter().find_map(|key| get(key));
    // A text is on record once in a session; later statements name the one that has it.
    let named = record["text"]["entry"].as_u64().filter(|_| get("statement").is_none());
    html! {
        @if let Some(who) = who { (who) " " }
        @if let Some(entry) = named {
            "the text of statement " (entry) " of its session, unless that was erased; SHA-256 "
            code { (record["text"]["digest"].as_str().unwrap_or_default()) } " "
        }
        @if let Some(what) = what { code { (what.chars().take(160).collect::<String>()) @if what.chars().count() > 160 { "…" } } }
    }
}

/// `GET /ledger`
pub(crate) async fn newest(desk: At, person: Person) -> Result<Page, Told> {
    list(desk, person, u64::MAX).await
}

/// `GET /ledger/until/{entry}`
pub(crate) async fn until(desk: At, person: Person, Path(entry): Path<u64>) -> Result<Page, Told> {
    list(desk, person, entry).await
}

async fn list(State(desk): At, person: Person, until: u64) -> Result<Page, Told> {
    let head = log::head(&desk).await?;
    let until = until.min(head.size);
    let first = until.saturating_sub(PAGE);
    let found = lines(&desk, &person, (first..until).rev().collect()).await?;
    let body = html! {
        h1 { "Ledger" }
        dl.facts {
            dt { "Entries" } dd { (number(head.size)) " under a signed checkpoint, " (number(desk.gateway.ledger.size().saturating_sub(head.size))) " more wait for the next" }
            dt { "Root" } dd { code { (head.root.to_string()) } }
            dt { "Key" } dd { code { (desk.gateway.ledger.vkey().lines().next().unwrap_or_default()) } }
        }
        (witnesses(&desk))
        (super::evidence::form(&desk, &person))
        section aria-labelledby="entries" {
            h2 id="entries" { "Entries" }
            (table(&found))
            p.row {
                @if first > 0 { a href={ "/ledger/until/" (first) } { "Older" } } @else { span {} }
                @if until < head.size { a href={ "/ledger/until/" ((until + PAGE).min(head.size)) } { "Newer" } }
            }
        }
    };
    Ok(page("Ledger", Some(&person), &body))
}

/// Who confirms the log, and how they are.
pub(super) fn witnesses(desk: &Desk) -> Markup {
    let all = desk.gateway.ledger.witnesses();
    html! {
        section aria-labelledby="witnesses" {
            h2 id="witnesses" { "Witnesses" }
            @if all.is_empty() { p.warn { "Nobody outside confirms this log: only its own key vouches for its history." } } @else {
                div.scroll tabindex="0" role="region" aria-label="Witnesses and when they confirmed" { table {
                    thead { tr { th scope="col" { "Witness" } th scope="col" { "Last confirmed" } th.n scope="col" { "Entries" } th scope="col" { "Trouble" } } }
                    tbody { @for one in &all { tr {
                        th scope="row" { (one.name) }
                        td { @match one.last { Some(at) => { (length(at.elapsed().as_secs())) " ago" } None => span.warn { "not since the start" } } }
                        td.n { (number(one.size)) }
                        td { @match &one.problem { Some(problem) => span.warn { (problem) } None => "none" } }
                    } } }
                } }
            }
        }
    }
}

/// `GET /ledger/{entry}`
pub(crate) async fn show(State(desk): At, person: Person, Path(entry): Path<u64>) -> Result<Page, Told> {
    let Line { leaf, record, .. } = log::one(&desk, &person, entry).await?;
    let body = html! {
        p.soft { a href="/ledger" { "Ledger" } " / " (entry) }
        h1 { "Entry " (entry) ": " (leaf.kind.word()) }
        dl.facts {
            dt { "When" } dd { (moment(&ringfence_grants::request::rfc3339(leaf.time))) }
            dt { "Data of" } dd { (leaf.jurisdiction) }
            @if let Some(from) = &leaf.from { dt { "Read from" } dd { (from) @if leaf.covered { ", by a covered person" } } }
            @if leaf.counters.rows > 0 { dt { "Rows" } dd { (number(leaf.counters.rows)) } }
            @for (grant, rows) in record.as_ref().and_then(|r| r["charged"].as_object()).into_iter().flatten() {
                dt { "Charged to " (grant) } dd { (number(rows.as_u64().unwrap_or_default())) " rows" }
            }
            dt { "Commitment" } dd { code { (leaf.commitment) } }
        }
        section aria-labelledby="record" {
            h2 id="record" { "Private record" }
            @match &record {
                Some(record) => pre { (serde_json::to_string_pretty(record).unwrap_or_default()) },
                None => p.soft { "It is sealed for you, or erased. The commitment above binds it: whoever may show it to you cannot change it." },
            }
        }
        section aria-labelledby="proof" {
            h2 id="proof" { "Proof that it is in the log" }
            p { "A file that anybody can check, without asking us: " a href={ "/ledger/" (entry) "/proof" } { "the proof" }
                @if record.is_some() { ", or " a href={ "/ledger/" (entry) "/disclosed" } { "the proof with the record" } " for somebody who may see it" } "." }
            p { "Check it " a href="/transparency" { "in a browser" } ", or with " code { "ringfence-verify FILE --vkey KEY" } "." }
        }
    };
    Ok(page(&format!("Entry {entry}"), Some(&person), &body))
}

/// `GET /ledger/{entry}/proof`: without the private record.
pub(crate) async fn prove(State(desk): At, _: Person, Path(entry): Path<u64>) -> Result<Response, Told> {
    proof_file(&desk, entry, false).await
}

/// `GET /ledger/{entry}/disclosed`: with it, for those who may read it.
pub(crate) async fn disclose(
    State(desk): At,
    person: Person,
    Path(entry): Path<u64>,
) -> Result<Response, Told> {
    if log::one(&desk, &person, entry).await?.record.is_none() {
        return Err(Told::new(StatusCode::FORBIDDEN, "This entry's record is sealed for you, or erased."));
    }
    proof_file(&desk, entry, true).await
}

async fn proof_file(desk: &Desk, entry: u64, disclosed: bool) -> Result<Response, Told> {
    let text = log::proof(desk, entry, disclosed).await?;
    let name = format!("attachment; filename=\"entry-{entry}.tlog-proof\"");
    Ok((
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CONTENT_DISPOSITION, name.as_str())],
        text,
    )
        .into_response())
}
