//! An erasure or a flow that the in-country team decides.

use axum::extract::{Json, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use maud::html;
use serde_json::{Value, json};

use super::inbox::waits_for;
use super::request::{Signed, decide, names, sign};
use super::{At, Page, Person, Told, moment, page, text};

/// A plan in a line.
pub(super) fn title(plan: &Value) -> String {
    match (plan["what"].as_str(), plan["subject"].as_object()) {
        (Some("flow"), _) => format!(
            "Flow {}: public columns of {} to {} in {}",
            text(plan, "flow"),
            text(plan, "jurisdiction"),
            text(plan, "to"),
            text(plan, "location")
        ),
        (_, Some(_)) => {
            format!("Erase {} {} everywhere", text(&plan["subject"], "table"), text(&plan["subject"], "key"))
        }
        _ => format!("Erase what {} has left in {}", text(plan, "jurisdiction"), text(plan, "store")),
    }
}

/// `GET /plans/{id}`
pub(crate) async fn show(State(desk): At, person: Person, Path(id): Path<String>) -> Result<Page, Told> {
    let one = person.ask(&desk, &json!({ "do": "plan", "id": id })).await?;
    let canonical = text(&one, "canonical");
    let plan: Value = serde_json::from_str(canonical).unwrap_or_default();
    let list = |key: &str| plan[key].as_array().cloned().unwrap_or_default();
    let body = html! {
        p.soft { a href="/" { "Inbox" } " / " (id) }
        div.row { h1 { (title(&plan)) } span.state data-state=(text(&one, "state")) { (text(&one, "state")) } }
        dl.facts {
            dt { "Purpose" } dd { (text(&plan, "purpose")) }
            dt { "Asked for by" } dd { (text(&one, "requester")) }
            @if one["decide_by"].is_string() { dt { "Decide by" } dd { (moment(text(&one, "decide_by"))) } }
            dt { "Approved by" } dd { (names(&one)) }
        }
        @if !list("tables").is_empty() {
            section { h2 { "Columns that go" } div.scroll tabindex="0" role="region" aria-label="Tables and columns" { table { tbody {
                @for table in list("tables") {
                    tr { th scope="row" { code { (text(&table, "table")) } } td {
                        @for (n, column) in table["columns"].as_array().into_iter().flatten().enumerate() {
                            @if n > 0 { ", " } (column[0].as_str().unwrap_or("-"))
                        }
                    } }
                }
            } } } }
        }
        @if !list("rows").is_empty() {
            section { h2 { "Rows" } div.scroll tabindex="0" role="region" aria-label="Rows by table" { table { tbody {
                @for row in list("rows") { tr { th scope="row" { code { (row[0].as_str().unwrap_or("-")) } } td.n { (row[1]) } } }
            } } } }
        }
        @for (key, heading, why) in [("targets", "What is done where", "action"), ("remains", "What remains, and why", "why")] {
            @if !list(key).is_empty() {
                section { h2 { (heading) } div.scroll tabindex="0" role="region" aria-label={ "Places: " (key) } { table { tbody {
                    @for place in list(key) {
                        tr { td { (text(&place, "location")) } th scope="row" { (text(&place, "place")) } td { (text(&place, why)) } }
                    }
                } } } }
            }
        }
        @if waits_for(&desk, &person, &one, text(&plan, "home")) { (decide(&desk, &person, &id, "plans", canonical, None)) }
        details { summary { "The exact text that is signed" } pre { (canonical) } }
    };
    Ok(page(&id, Some(&person), &body))
}

/// `POST /plans/{id}/approve`, by the page's script.
pub(crate) async fn approve(
    State(desk): At,
    person: Person,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(signed): Json<Signed>,
) -> Response {
    sign(&desk, &person, "sign", &id, &headers, signed).await
}
