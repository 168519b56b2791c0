//! One request on one screen: who, from where, why they are covered, what exactly they would see, and the decision.

use std::sync::{Arc, PoisonError};

use axum::extract::{Form, Json, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use ringfence_grants::Request;
use ringfence_policy::decision::Visibility;
use ringfence_policy::{Column, Device, Outcome, Policy};
use ringfence_verifier::passkey;
use serde::Deserialize;
use serde_json::{Value, json};

use super::inbox::waits_for;
use super::words::{length, number, seen_word};
use super::{At, Page, Person, Told, moment, page, text};
use crate::Desk;

/// What an approver's browser sends.
#[derive(Deserialize)]
pub(crate) struct Signed {
    pub(super) token: String,
    pub(super) assertion: passkey::Assertion,
}

/// `GET /requests/{id}`
pub(crate) async fn show(State(desk): At, person: Person, Path(id): Path<String>) -> Result<Page, Told> {
    let one = person.ask(&desk, &json!({ "do": "show", "id": id })).await?;
    let canonical = text(&one, "canonical");
    // What is shown is what is signed: it is read out of the text itself.
    let request = Request::parse(canonical)
        .map_err(|_| Told::new(StatusCode::SERVICE_UNAVAILABLE, "The request cannot be read."))?;
    let is_mine = one["requester"] == person.principal.name.as_str();
    let body = html! {
        p.soft { a href="/" { "Inbox" } " / " (request.id) }
        div.row {
            h1 { (request.requester) " asks for " (request.columns.iter().map(String::as_str).collect::<Vec<_>>().join(", ")) " of " (request.table) }
            span.state data-state=(text(&one, "state")) { (text(&one, "state")) }
        }
        dl.facts {
            dt { "Purpose" } dd { (request.purpose) }
            dt { "Who" } dd {
                (request.requester) ", in " (request.location)
                @if let Some(employer) = &request.employer { ", for " (employer) }
            }
            @if let Some(why) = &request.covered { dt { "Covered person" } dd.warn { (why) } }
            dt { "Store" } dd { (request.store) " (" (request.jurisdiction) ")" }
            dt { "Rows" } dd {
                @match &request.condition { Some(condition) => code { (condition) }, None => "all of the table" }
                @if let Some(most) = request.max_rows { ", at most " (most) }
            }
            dt { "For" } dd { (length(request.seconds)) " from the last approval" }
            @if let Some(narrows) = &request.narrows { dt { "Narrows" } dd { a href={ "/requests/" (narrows.id) } { (narrows.id) } ", by " (narrows.by) } }
            dt { "Asked" } dd { (moment(&ringfence_grants::request::rfc3339(request.created))) }
            dt { "Decide by" } dd { (moment(&ringfence_grants::request::rfc3339(request.decide_by))) }
            @if one["expires"].is_string() { dt { "In force until" } dd { (moment(text(&one, "expires"))) } }
            @if let (Some(most), Some(charged)) = (request.max_rows, one["charged"].as_u64()) {
                dt { "Charged" } dd { (charged) " of " (most) " rows" }
            }
            @if let Some(by) = one["ended_by"].as_str() { dt { "Ended by" } dd { (by) ": " (text(&one, "reason")) } }
            dt { "Approved by" } dd { (names(&one)) }
        }
        (face(&desk, &request))
        (meter(&desk, &request))
        (history(&desk, &person, &request).await)
        @if waits_for(&desk, &person, &one, &request.store) { (decide(&desk, &person, &request.id, "requests", canonical, Some(&request))) }
        @if text(&one, "state") == "granted" || (is_mine && text(&one, "state") == "pending") {
            section aria-labelledby="end" {
                h2 id="end" { "Take it back" }
                form method="post" action={ "/requests/" (request.id) "/revoke" } {
                    input type="hidden" name="token" value=(person.session.csrf);
                    label for="why" { "Reason" }
                    input id="why" name="reason" required maxlength="500" autocomplete="off";
                    button.danger { "Revoke, and cut its sessions" }
                }
            }
        }
        details { summary { "The exact text that is signed" } pre { (canonical) } }
    };
    Ok(page(&request.id, Some(&person), &body))
}

/// Who has signed, and how many it takes.
pub(super) fn names(one: &Value) -> String {
    let signed: Vec<&str> =
        one["approved_by"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let who = if signed.is_empty() { "nobody yet".to_owned() } else { signed.join(", ") };
    format!("{who} ({} of {})", signed.len(), one["approvals_needed"])
}

/// How many outcomes are kept.
const MOST_OUTCOMES: usize = 1024;

/// What the requester sees of the table with this grant. Policy is asked once for a request and a version of the rules.
fn outcome(desk: &Desk, policy: &Policy, request: &Request) -> Option<Arc<Outcome>> {
    let kept = || desk.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (request.id.clone(), policy.digest().to_owned());
    if let Some(found) = kept().get(&key) {
        return Some(Arc::clone(found));
    }
    let (who, store, table) = (&request.requester, &request.store, &request.table);
    let device = policy.registry().principal(who).and_then(Device::presumed);
    let seen = policy.outcome_of_table(who, store, table, device.as_ref(), &[request.scope()]);
    let found = Arc::new(seen.ok()?);
    let mut kept = kept();
    if kept.len() >= MOST_OUTCOMES {
        kept.clear();
    }
    kept.insert(key, Arc::clone(&found));
    Some(found)
}

/// What they see of the table now, and what they would see.
fn face(desk: &Desk, request: &Request) -> Markup {
    let policy = desk.gateway.policy();
    let (Some(now), Some((_, catalogue))) = (outcome(desk, &policy, request), policy.store(&request.store))
    else {
        return html! { p.warn { "What they would see cannot be decided under the rules as they are now." } };
    };
    let (Some(columns), Some(classified)) =
        (now.tables.get(&request.table), catalogue.tables.get(&request.table))
    else {
        return html! { p.warn { "They would see nothing of this table." } };
    };
    let word = seen_word;
    // What protected values are open is to be seen at a glance.
    let look =
        |seen, holds: &str| if seen == Visibility::Clear && !holds.is_empty() { "open" } else { word(seen) };
    html! {
        section aria-labelledby="face" {
            h2 id="face" { "What " (request.requester) " sees of " (request.table) }
            div.scroll tabindex="0" role="region" aria-label={ "Columns of " (request.table) } {
                table {
                    thead { tr { th scope="col" { "Column" } th scope="col" { "Holds" } th scope="col" { "Now" } th scope="col" { "With this grant" } } }
                    tbody {
                        @for (name, column) in columns {
                            @let then = if column.granted_by.is_empty() { column.base } else { Visibility::Clear };
                            @let holds = classified.columns.get(name).map_or("", |c| c.category());
                            tr {
                                th scope="row" { code { (name) } }
                                td { @if holds.is_empty() { "public" } @else { (holds) } }
                                td { span.seen data-seen=(look(column.base, holds)) { (word(column.base)) }
                                    @if let (Visibility::Masked, Some(how)) = (column.base, classified.columns.get(name).and_then(Column::protected)) {
                                        br; span.soft { "as in " (ringfence_face::mask::example(how)) } } }
                                td { span.seen data-seen=(look(then, holds)) { (word(then)) @if then != column.base { ", in the rows above" } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How many people's data the requester has reached in twelve months, and may have after this grant.
fn meter(desk: &Desk, request: &Request) -> Markup {
    let policy = desk.gateway.policy();
    let classified = policy.store(&request.store).and_then(|(_, c)| c.tables.get(&request.table));
    let categories: Vec<&str> =
        request.columns.iter().filter_map(|c| classified?.columns.get(c)).map(Column::category).collect();
    let employer = request.employer.as_deref();
    let is_theirs = |name: &str| name == request.requester || Some(name) == employer;
    let lines: Vec<_> = desk
        .gateway
        .meter
        .lines()
        .into_iter()
        .filter(|l| l.jurisdiction == request.jurisdiction && is_theirs(l.recipient.name()))
        .filter(|l| {
            l.category == "combined" || categories.is_empty() || is_about(&policy, &l.category, &categories)
        })
        .collect();
    let more = request
        .max_rows
        .map_or_else(|| "as many more as the rows are about".to_owned(), |n| format!("{} more", number(n)));
    html! {
        section aria-labelledby="meter" {
            h2 id="meter" { "How much " (request.requester) " has reached" }
            @if lines.is_empty() { p.soft { "Nobody of this category yet, in the last twelve months. With this grant at most " (more) "." } } @else {
                div.scroll tabindex="0" role="region" aria-label="The meter" { table {
                    thead { tr { th scope="col" { "Recipient" } th scope="col" { "Category" } th.n scope="col" { "In clear" } th.n scope="col" { "In any form, at most" } th.n scope="col" { "Threshold" } } }
                    tbody { @for line in &lines { tr {
                        th scope="row" { (line.recipient.name()) }
                        td { (line.category) }
                        td.n { (number(line.clear)) }
                        td.n { (number(line.at_most())) }
                        td.n { @match line.more_than { Some(most) => { (number(most)) @if line.is_exceeded() { span.warn { " exceeded" } } } None => "none" } }
                    } } }
                } }
                p.soft { "With this grant at most " (more) ", of whom those who were reached before count once." }
            }
        }
    }
}

/// Whether what is counted under a name counts one of these categories.
fn is_about(policy: &Policy, counted: &str, categories: &[&str]) -> bool {
    let thresholds = &policy.registry().thresholds;
    categories.contains(&counted)
        || thresholds
            .iter()
            .any(|t| t.name == counted && categories.iter().any(|c| t.categories.contains(*c)))
}

/// What was asked for before that is like this: by the same person, or of the same table.
async fn history(desk: &Desk, person: &Person, request: &Request) -> Markup {
    let like = person.ask(desk, &json!({ "do": "like", "id": request.id })).await.unwrap_or_default();
    let like = like.as_array().map(Vec::as_slice).unwrap_or_default();
    html! {
        @if !like.is_empty() {
            section aria-labelledby="history" {
                h2 id="history" { "Requests like this one" }
                ul.plain { @for one in like { li {
                    a href={ "/requests/" (text(one, "id")) } { (text(one, "id")) } " " span.state data-state=(text(one, "state")) { (text(one, "state")) }
                    " " (text(one, "requester")) ": " (text(one, "summary")) span.soft { " “" (text(one, "purpose")) "”" }
                } } }
            }
        }
    }
}

/// The decision: by passkey, or no.
pub(super) fn decide(
    desk: &Desk,
    person: &Person,
    id: &str,
    what: &str,
    canonical: &str,
    narrowable: Option<&Request>,
) -> Markup {
    html! {
        section.decide aria-labelledby="decide" {
            h2 id="decide" { "Your decision" }
            p { "Your passkey signs exactly what is above, and nothing else. Nobody can do it for you, and everybody can check it." }
            div {
                button type="button" data-approve={ "/" (what) "/" (id) "/approve" } data-challenge=(passkey::challenge(canonical))
                    data-relying-party=(desk.config.relying_party()) data-token=(person.session.csrf) { (if matches!(what, "orders" | "enrolments") { "Sign with passkey" } else { "Approve with passkey" }) }
                p.told role="status" {}
            }
            noscript { p.warn { "A passkey needs JavaScript. Without it, on the command line: " code { @match what { "orders" => "ringfence suspend, ringfence resume", "plans" => "ringfence erase approve, ringfence flow approve", "enrolments" => { "ringfence enrol sign " (id) }, _ => { "ringfence approve " (id) } } } } }
            @if let Some(request) = narrowable {
                (super::narrow::form(desk, person, request))
                form method="post" action={ "/requests/" (id) "/deny" } {
                    input type="hidden" name="token" value=(person.session.csrf);
                    label for="reason" { "Or turn it down, with a reason that whoever asked will read" }
                    input id="reason" name="reason" required maxlength="500" autocomplete="off";
                    button.quiet { "Deny" }
                }
            }
        }
    }
}

/// `POST /requests/{id}/approve`, by the page's script.
pub(crate) async fn approve(
    State(desk): At,
    person: Person,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(signed): Json<Signed>,
) -> Response {
    sign(&desk, &person, "approve", &id, &headers, signed).await
}

/// Gives an assertion to the gateway, which verifies it.
pub(super) async fn sign(
    desk: &Desk,
    person: &Person,
    how: &str,
    id: &str,
    headers: &HeaderMap,
    signed: Signed,
) -> Response {
    if let Err(told) = person.must_be_ours(desk, headers, &signed.token) {
        return told.plain();
    }
    if signed.assertion.origin().as_deref() != Some(desk.config.origin.as_str()) {
        let elsewhere = "The passkey was asked by another page than this console's. Nothing was approved.";
        return Told::new(StatusCode::FORBIDDEN, elsewhere).plain();
    }
    let assertion = serde_json::to_string(&signed.assertion).unwrap_or_default();
    match person.ask(desk, &json!({ "do": how, "id": id, "signature": assertion })).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(told) => told.plain(),
    }
}

/// A form with a reason.
#[derive(Deserialize)]
pub(crate) struct Because {
    token: String,
    reason: String,
}

async fn end(
    desk: &Desk,
    person: &Person,
    how: &str,
    id: &str,
    headers: &HeaderMap,
    form: Because,
) -> Result<Redirect, Told> {
    person.must_be_ours(desk, headers, &form.token)?;
    if form.reason.trim().is_empty() {
        return Err(Told::new(StatusCode::CONFLICT, "A reason is needed."));
    }
    person.ask(desk, &json!({ "do": how, "id": id, "reason": form.reason.trim() })).await?;
    Ok(Redirect::to(&format!("/requests/{id}")))
}

/// `POST /requests/{id}/deny`
pub(crate) async fn deny(
    State(desk): At,
    person: Person,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(form): Form<Because>,
) -> Result<Redirect, Told> {
    end(&desk, &person, "deny", &id, &headers, form).await
}

/// `POST /requests/{id}/revoke`
pub(crate) async fn revoke(
    State(desk): At,
    person: Person,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(form): Form<Because>,
) -> Result<Redirect, Told> {
    end(&desk, &person, "revoke", &id, &headers, form).await
}
