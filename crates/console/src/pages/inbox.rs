//! What waits for me, what I have asked for, what is in force.

use std::collections::HashMap;

use axum::extract::State;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::{At, Page, Person, Told, enrolments, moment, page, text};
use crate::Desk;

/// Whether a request or a plan waits for this person's decision.
pub(crate) fn waits_for(desk: &Desk, person: &Person, one: &Value, store: &str) -> bool {
    is_undecided_by(person, one) && may_decide(desk, person, store)
}

fn is_undecided_by(person: &Person, one: &Value) -> bool {
    let name = person.principal.name.as_str();
    let has_signed = one["approved_by"].as_array().is_some_and(|all| all.iter().any(|who| who == name));
    one["state"] == "pending" && one["requester"] != name && !has_signed
}

fn may_decide(desk: &Desk, person: &Person, store: &str) -> bool {
    matches!(desk.gateway.policy().may_approve(&person.principal.name, store), Ok(Ok(())))
}

/// `GET /`
pub(crate) async fn show(State(desk): At, person: Person) -> Result<Page, Told> {
    let requests = person.ask(&desk, &json!({ "do": "requests" })).await?;
    let mut requests: Vec<Value> = requests.as_array().cloned().unwrap_or_default();
    // The most urgent first: what must be decided soonest.
    requests.sort_by(|a, b| text(a, "decide_by").cmp(text(b, "decide_by")));
    // Policy is asked once a store, not once a request.
    let mut decides: HashMap<String, bool> = HashMap::new();
    let mut is_for_them = |one: &Value, store: &str| {
        is_undecided_by(&person, one)
            && *decides.entry(store.to_owned()).or_insert_with(|| may_decide(&desk, &person, store))
    };
    let (waiting, mut others): (Vec<Value>, Vec<Value>) =
        requests.into_iter().partition(|r| is_for_them(r, text(r, "store")));
    // Of what is decided, the newest.
    others.reverse();
    let (mine, others): (Vec<Value>, Vec<Value>) =
        others.into_iter().partition(|r| r["requester"] == person.principal.name.as_str());
    let (in_force, rest): (Vec<Value>, Vec<Value>) =
        others.into_iter().partition(|r| r["state"] == "granted");
    let plans = person.ask(&desk, &json!({ "do": "plans", "what": "all" })).await?;
    let plans = plans.as_array().cloned().unwrap_or_default();
    let (plans_waiting, plans): (Vec<Value>, Vec<Value>) =
        plans.into_iter().partition(|p| is_for_them(p, text(&p["plan"], "home")));
    let keys = person.ask(&desk, &json!({ "do": "enrolments" })).await?;
    let keys: Vec<Value> = keys.as_array().cloned().unwrap_or_default();
    let (keys_waiting, keys): (Vec<Value>, Vec<Value>) =
        keys.into_iter().partition(|one| enrolments::waits_for(&person, one));
    let body = html! {
        h1 { "Inbox" }
        section aria-labelledby="waiting" {
            h2 id="waiting" { "Waits for you" }
            @if waiting.is_empty() && plans_waiting.is_empty() && keys_waiting.is_empty() {
                p.empty { "Nothing. Whoever asks for something that you decide shows up here." }
            }
            ul.cards { @for one in &keys_waiting { (enrolments::card(one)) } @for one in &plans_waiting { (plan_card(one)) } @for one in waiting.iter().take(MOST) { (card(one)) } }
            (more(waiting.len()))
        }
        (list("Asked by you", &mine))
        (list("In force", &in_force))
        @if !plans.is_empty() {
            section { h2 { "Erasures and flows" } ul.cards { @for one in &plans { (plan_card(one)) } } }
        }
        @if !keys.is_empty() {
            section { h2 { "Keys of approvers" } ul.cards { @for one in &keys { (enrolments::card(one)) } } }
        }
        (list("Decided, or for others to decide", &rest))
    };
    Ok(page("Inbox", Some(&person), &body))
}

/// How many of a kind a page shows: it stays light, and nobody reads further.
const MOST: usize = 40;

fn more(count: usize) -> Markup {
    html! { @if count > MOST { p.soft { "And " (count - MOST) " more: " code { "ringfence requests" } " lists them all." } } }
}

fn list(title: &str, all: &[Value]) -> Markup {
    html! {
        @if !all.is_empty() {
            section { h2 { (title) } ul.cards { @for one in all.iter().take(MOST) { (card(one)) } } (more(all.len())) }
        }
    }
}

fn card(one: &Value) -> Markup {
    let signed = one["approved_by"].as_array().map_or(0, Vec::len);
    html! {
        li {
            a.card href={ "/requests/" (text(one, "id")) } {
                span.row {
                    strong { (text(one, "requester")) " in " (text(one, "location")) }
                    span.state data-state=(text(one, "state")) { (text(one, "state")) }
                }
                span { (text(one, "summary")) }
                span.soft { "“" (text(one, "purpose")) "”" }
                span.row.soft {
                    span { (signed) " of " (one["approvals_needed"]) " approvals" }
                    @if one["state"] == "pending" { span { "decide by " (moment(text(one, "decide_by"))) } }
                    @if one["state"] == "granted" && one["expires"].is_string() { span { "until " (moment(text(one, "expires"))) } }
                }
            }
        }
    }
}

fn plan_card(one: &Value) -> Markup {
    let signed = one["approved_by"].as_array().map_or(0, Vec::len);
    html! {
        li {
            a.card href={ "/plans/" (text(one, "id")) } {
                span.row {
                    strong { (super::plan::title(&one["plan"])) }
                    span.state data-state=(text(one, "state")) { (text(one, "state")) }
                }
                span.soft { "“" (text(&one["plan"], "purpose")) "”, asked for by " (text(one, "requester")) }
                span.row.soft {
                    span { (signed) " of " (one["approvals_needed"]) " approvals" }
                    @if one["state"] == "pending" && one["decide_by"].is_string() { span { "decide by " (moment(text(one, "decide_by"))) } }
                }
            }
        }
    }
}
