//! A regulator's switch: suspend access across the border, or lift that, by an order that a passkey signs.

use axum::extract::{Form, Json, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Redirect, Response};
use maud::{Markup, html};
use ringfence_verifier::orders::{Order, What};
use serde::Deserialize;
use serde_json::json;

use super::request::{Signed, decide, sign};
use super::{At, Page, Person, Told, moment, page, text};
use crate::Desk;

fn since(order: &Order) -> Markup {
    moment(&ringfence_grants::request::rfc3339(order.created))
}

/// What is suspended, for everybody: that it is, and since when.
pub(super) fn standing(desk: &Desk) -> Markup {
    let orders = desk.gateway.suspensions.in_force();
    html! {
        @for order in &orders {
            p.warn { span.state data-state="denied" { "suspended" } " By order of a regulator, no data of " (order.jurisdiction) " has crossed the border since " (since(order)) "." }
        }
    }
}

/// The switch, for regulators; who gave the order and why, for everybody who is logged in.
pub(super) fn switch(desk: &Desk, person: &Person) -> Markup {
    let policy = desk.gateway.policy();
    let orders = desk.gateway.suspensions.in_force();
    let standing = |jurisdiction: &str| orders.iter().find(|o| o.jurisdiction == jurisdiction);
    let theirs = policy.registry().jurisdictions.keys().filter(|j| policy.regulates(&person.principal, j));
    html! {
        @for order in &orders {
            p.warn { span.state data-state="denied" { "suspended" } " No data of " (order.jurisdiction) " crosses since " (since(order)) ": " (order.by) " has ordered it, “" (order.reason) "”. Access inside the country goes on." }
        }
        @for jurisdiction in theirs {
            @let is_suspended = standing(jurisdiction).is_some();
            details {
                summary { @if is_suspended { "Let data of " (jurisdiction) " cross again" } @else { "Suspend all access to data of " (jurisdiction) " from abroad" } }
                form method="post" action={ "/border/" (jurisdiction) "/order" } {
                    input type="hidden" name="token" value=(person.session.csrf);
                    input type="hidden" name="what" value=(if is_suspended { "resume" } else { "suspend" });
                    label for={ "order-" (jurisdiction) } { "Why, for those who are cut off and for the record" }
                    input id={ "order-" (jurisdiction) } name="reason" required maxlength="500" autocomplete="off";
                    button.danger[!is_suspended] { "Write the order, to be signed" }
                }
            }
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Wanted {
    token: String,
    what: What,
    reason: String,
}

/// `POST /border/{jurisdiction}/order`
pub(crate) async fn propose(
    State(desk): At,
    person: Person,
    Path(jurisdiction): Path<String>,
    headers: HeaderMap,
    Form(form): Form<Wanted>,
) -> Result<Redirect, Told> {
    person.must_be_ours(&desk, &headers, &form.token)?;
    let command =
        json!({ "do": "order", "jurisdiction": jurisdiction, "what": form.what, "reason": form.reason });
    let order = person.ask(&desk, &command).await?;
    Ok(Redirect::to(&format!("/orders/{}", text(&order, "id"))))
}

/// `GET /orders/{id}`
pub(crate) async fn show(State(desk): At, person: Person, Path(id): Path<String>) -> Result<Page, Told> {
    let one = person.ask(&desk, &json!({ "do": "ordered", "id": id })).await?;
    let canonical = text(&one, "canonical");
    // What is shown is what is signed.
    let order = Order::parse(canonical)
        .map_err(|_| Told::new(StatusCode::SERVICE_UNAVAILABLE, "The order cannot be read."))?;
    let is_signed = one["signed"] == true;
    let what = match order.what {
        What::Suspend => "Suspend all access from abroad to data of",
        What::Resume => "Let cross again data of",
    };
    let body = html! {
        p.soft { a href="/border" { "Border" } " / " (id) }
        div.row { h1 { (what) " " (order.jurisdiction) } span.state data-state=(if is_signed { "granted" } else { "pending" }) { (if is_signed { "signed" } else { "not signed" }) } }
        dl.facts {
            dt { "By" } dd { (order.by) }
            dt { "Why" } dd { (order.reason) }
            dt { "Made" } dd { (since(&order)) }
            @if let Some(lifts) = &order.lifts { dt { "Lifts" } dd { (lifts) } }
            @if order.what == What::Suspend { dt { "Then" } dd { "Sessions from abroad are cut at every gateway, and new ones refused, until an order lifts this one. Access inside the country goes on." } }
        }
        @if !is_signed && order.by == person.principal.name { (decide(&desk, &person, &id, "orders", canonical, None)) }
        details { summary { "The exact text that is signed" } pre { (canonical) } }
    };
    Ok(page(&id, Some(&person), &body))
}

/// `POST /orders/{id}/approve`, by the page's script.
pub(crate) async fn give(
    State(desk): At,
    person: Person,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(signed): Json<Signed>,
) -> Response {
    sign(&desk, &person, "give", &id, &headers, signed).await
}
