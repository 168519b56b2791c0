//! The register of copies by place, the routes of moves, and what was erased with its certificate.

use std::collections::BTreeMap;

use axum::extract::State;
use maud::{Markup, html};
use ringfence_gateway::route::Progress;
use serde_json::{Value, json};

use super::words::{bytes, length, number};
use super::{At, Page, Person, moment, page, text};

/// `GET /copies`
pub(crate) async fn show(State(desk): At, person: Person) -> Page {
    let policy = desk.gateway.policy();
    let (mut registers, mut hidden) = (Vec::new(), Vec::new());
    for (jurisdiction, about) in &policy.registry().jurisdictions {
        match person.ask(&desk, &json!({ "do": "copies", "jurisdiction": jurisdiction })).await {
            Ok(found) => registers.push((
                jurisdiction,
                &about.countries,
                found.as_array().cloned().unwrap_or_default(),
            )),
            Err(_) => hidden.push(jurisdiction.as_str()),
        }
    }
    let erasures = person.ask(&desk, &json!({ "do": "plans", "what": "erase" })).await;
    let erasures: Vec<Value> = erasures.ok().and_then(|e| e.as_array().cloned()).unwrap_or_default();
    let certified: Vec<&Value> = erasures.iter().filter(|e| e["certificate"].is_object()).collect();
    let body = html! {
        h1 { "Copies and moves" }
        @if !desk.gateway.routes.is_empty() {
            section aria-labelledby="routes" {
                h2 id="routes" { "Routes" }
                div.scroll tabindex="0" role="region" aria-label="Where routes lead" { table {
                    thead { tr { th scope="col" { "Route" } th scope="col" { "Leads\u{a0}to" } th scope="col" { "Clients" } th scope="col" { "Move" } } }
                    tbody { @for route in desk.gateway.routes.values() {
                        @let state = route.state();
                        tr { th scope="row" { (route.name) } td { (state.store.as_deref().unwrap_or("not known")) }
                            td { @if state.is_held { span.warn { "held for a move" } } @else { (state.inside) " at work" } }
                            td { @match &state.progress { Some((progress, ago)) => (moving(progress, ago.as_secs())), None => span.soft { "nothing" } } } }
                    } }
                } }
            }
        }
        @for (jurisdiction, countries, copies) in &registers {
            section aria-labelledby={ "copies-" (jurisdiction) } {
                h2 id={ "copies-" (jurisdiction) } { "Copies of data of " (jurisdiction) }
                @if copies.is_empty() { p.empty { "None is registered. " code { "ringfence copies scan" } " looks for them." } } @else { (by_place(countries, copies)) }
            }
        }
        @if !hidden.is_empty() { p.soft { "The registers of " (hidden.join(", ")) " are for those who have to do with their stores." } }
        @if !certified.is_empty() {
            section aria-labelledby="erased" { h2 id="erased" { "Erased, with certificate" }
                ul.plain { @for one in certified { li { a href={ "/plans/" (text(one, "id")) } { (text(one, "id")) } ": " (super::plan::title(&one["plan"])) } } }
            }
        }
    };
    page("Copies and moves", Some(&person), &body)
}

/// How far a move is, as whoever moves the rows said last.
fn moving(progress: &Progress, ago: u64) -> Markup {
    let Progress { stage, rows, of, bytes: size, tables, lag } = progress;
    html! {
        strong { (stage) } " "
        @if let (Some(rows), Some(of)) = (rows, of) { progress max=(of) value=(rows) aria-label={ "Rows of " (stage) } {} }
        @if let Some(rows) = rows { br; (number(*rows)) @if let Some(of) = of { " of about " (number(*of)) } " rows" }
        @if let Some(size) = size { ", " (bytes(*size)) }
        @if let Some((ready, all)) = tables { ", " (ready) " of " (all) " tables complete" }
        @if let Some(lag) = lag { ", " (bytes(*lag)) " behind" }
        span.soft { ", " (length(ago)) " ago" }
    }
}

/// Copies by country, those outside first: there a copy is a finding.
fn by_place(countries: &std::collections::BTreeSet<String>, copies: &[Value]) -> Markup {
    let mut places: BTreeMap<(bool, &str), Vec<&Value>> = BTreeMap::new();
    for copy in copies {
        let location = text(copy, "location");
        places.entry((countries.contains(location), location)).or_default().push(copy);
    }
    html! {
        div.places { @for ((is_inside, location), here) in &places {
            @let findings = here.iter().filter(|c| c["finding"] == true).count();
            section.place aria-label={ "Copies in " (location) } {
                div.row { strong { (location) } span.state data-state=(if findings > 0 { "denied" } else { "granted" }) {
                    @if findings > 0 { (findings) " open" } @else if *is_inside { "in the country" } @else { "nothing open" } } }
                ul.plain { @for copy in here { li {
                    div.row {
                        span { strong { (text(copy, "kind")) } " " (text(copy, "place")) }
                        @if copy["finding"] == true { span.state data-state="denied" { "finding" } }
                    }
                    (holds(copy))
                    @if copy["state"] != "registered" { br; span.soft { (text(copy, "state")) ": " (text(copy, "reason")) } }
                    br; span.soft { "of " (text(copy, "owner")) @if copy["last_seen"].is_string() { ", seen " (moment(text(copy, "last_seen"))) } }
                } } }
            }
        } }
    }
}

fn holds(copy: &Value) -> Markup {
    html! { @match copy["holds"].as_str() {
        Some("found") => { (copy["people"]) " of " (copy["of"]) " people that were looked for" },
        Some("everything") => "everything that its cluster holds",
        Some("destroyed") => { "unreadable: its key was destroyed under " (text(copy, "under")) },
        Some("nobody") => "nobody that was looked for",
        _ => span.warn { "not known: " (text(copy, "why")) },
    } }
}
