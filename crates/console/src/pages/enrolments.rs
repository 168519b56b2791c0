//! Keys that approvers let in: asked for by whose key it is, signed by others, taken up by whoever keeps the registry.

use axum::extract::{Form, Json, Path, State};
use axum::http::HeaderMap;
use axum::response::{Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::passkey::short;
use super::request::{Signed, decide, sign};
use super::{At, Page, Person, Told, moment, page, text};

/// Asks for a key: the line that the browser has just made, or one of an SSH key that somebody has.
pub(super) fn form(person: &Person) -> Markup {
    html! {
        form method="post" action="/enrolments" {
            input type="hidden" name="token" value=(person.session.csrf);
            label for="line" { "The public key: your new passkey’s, or that of an SSH key" }
            textarea id="line" name="key" rows="4" required maxlength="8000" {}
            button { "Ask approvers to let it in" }
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    token: String,
    key: String,
}

/// `POST /enrolments`
pub(crate) async fn ask(
    State(desk): At,
    person: Person,
    headers: HeaderMap,
    Form(form): Form<Asked>,
) -> Result<Redirect, Told> {
    person.must_be_ours(&desk, &headers, &form.token)?;
    let told = person.ask(&desk, &json!({ "do": "enrol", "key": form.key.trim() })).await?;
    Ok(Redirect::to(&format!("/enrolments/{}", text(&told, "id"))))
}

/// Whether it waits for this person.
pub(super) fn waits_for(person: &Person, one: &Value) -> bool {
    let name = person.principal.name.as_str();
    let has_signed = one["signed_by"].as_array().is_some_and(|all| all.iter().any(|who| who == name));
    one["state"] == "pending" && one["person"] != name && !has_signed
}

/// One in a line.
pub(super) fn card(one: &Value) -> Markup {
    let signed = one["signed_by"].as_array().map_or(0, Vec::len);
    html! { li { a.card href={ "/enrolments/" (text(one, "id")) } {
        span.row { strong { "A key of " (text(one, "person")) } span.state data-state=(colour(one)) { (text(one, "state")) } }
        span.soft { code { (short(text(one, "key"))) } }
        span.row.soft { span { (signed) " of " (one["signatures_needed"]) " signatures" } span { (moment(text(one, "created"))) } }
    } } }
}

fn colour(one: &Value) -> &'static str {
    if one["state"] == "pending" { "pending" } else { "granted" }
}

/// `GET /enrolments/{id}`
pub(crate) async fn show(State(desk): At, person: Person, Path(id): Path<String>) -> Result<Page, Told> {
    let one = person.ask(&desk, &json!({ "do": "enrolment", "id": id })).await?;
    let signed: Vec<&str> =
        one["signed_by"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let canonical = text(&one, "canonical");
    let body = html! {
        p.soft { a href="/" { "Inbox" } " / " (id) }
        div.row { h1 { "A key of " (text(&one, "person")) } span.state data-state=(colour(&one)) { (text(&one, "state")) } }
        p { "With it " (text(&one, "person")) " signs approvals. Ask them, in person or by a call, for the fingerprint of their key: what a page says is what somebody who has their session can say, too." }
        dl.facts {
            dt { "Key" } dd { code { (short(text(&one, "key"))) } }
            dt { "Asked for" } dd { (moment(text(&one, "created"))) }
            dt { "Signed by" } dd { @if signed.is_empty() { "nobody yet" } @else { (signed.join(", ")) } ", of " (one["signatures_needed"]) " that are needed" }
        }
        @if waits_for(&person, &one) { (decide(&desk, &person, &id, "enrolments", canonical, None)) }
        @if one["state"] == "signed" {
            section aria-labelledby="lines" {
                h2 id="lines" { "For the registry" }
                p { "Whoever keeps it adds the key to " code { "key" } " of " (text(&one, "person")) ", and these lines. A gateway refuses the key without them." }
                pre tabindex="0" { (text(&one, "key")) "\n\n" (text(&one, "registry")) }
            }
        }
        details { summary { "The exact text that is signed" } pre { (canonical) } }
    };
    Ok(page(&id, Some(&person), &body))
}

/// `POST /enrolments/{id}/approve`, by the page's script.
pub(crate) async fn vouch(
    State(desk): At,
    person: Person,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(signed): Json<Signed>,
) -> Response {
    sign(&desk, &person, "vouch", &id, &headers, signed).await
}
