//! A form that asks the log, and the answer with its proofs as a file for somebody else.

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use ringfence_verifier::manifest::seconds;
use ringfence_verifier::question::Question;
use serde::Deserialize;

use super::{At, Person, Told};
use crate::log::may_read;
use crate::{Desk, evidence};

/// The form, for those who may read records.
pub(super) fn form(desk: &Desk, person: &Person) -> Markup {
    let policy = desk.gateway.policy();
    let all = policy.registry().jurisdictions.keys();
    let readable: Vec<&String> = all.filter(|jurisdiction| may_read(desk, person, jurisdiction)).collect();
    html! { @if !readable.is_empty() {
        section aria-labelledby="evidence" {
            h2 id="evidence" { "Evidence for somebody else" }
            p { "Who reached what, with all proofs, as a file that they check with " code { "ringfence-verify" } ", asking nobody. It has the records of those statements: give it to whom may see them. That you took it is on record." }
            details { summary { "Ask" }
                form method="post" action="/ledger/evidence" {
                    input type="hidden" name="token" value=(person.session.csrf);
                    label for="jurisdiction" { "Data of" }
                    select id="jurisdiction" name="jurisdiction" { @for one in &readable { option { (one) } } }
                    label for="who" { "By whom (a name of the registry; anybody if empty)" }
                    input id="who" name="who" maxlength="63" autocomplete="off";
                    label for="from" { "From which country (two capitals; any if empty)" }
                    input id="from" name="from" pattern="[A-Z]{2}" autocomplete="off";
                    label for="since" { "From this day on (UTC)" }
                    input id="since" name="since" type="date";
                    label for="until" { "Before this day (UTC)" }
                    input id="until" name="until" type="date";
                    label { input type="checkbox" name="complete" value="yes"; " With all public entries of the time: they prove that nothing was kept back" }
                    button { "Make the file" }
                }
            }
        }
    } }
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    token: String,
    jurisdiction: String,
    #[serde(default)]
    who: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    since: String,
    #[serde(default)]
    until: String,
    complete: Option<String>,
}

/// The beginning of a day in UTC, in milliseconds since 1970; nothing where nothing was said.
fn day(text: &str) -> Result<Option<u64>, Told> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || Told::new(StatusCode::BAD_REQUEST, "That is no day, as in 2026-07-01.");
    seconds(text).map(|s| Some(s * 1000)).ok_or_else(wrong)
}

/// `POST /ledger/evidence`
pub(crate) async fn take(
    State(desk): At,
    person: Person,
    headers: HeaderMap,
    Form(form): Form<Asked>,
) -> Result<Response, Told> {
    person.must_be_ours(&desk, &headers, &form.token)?;
    let some = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let question = Question {
        jurisdiction: Some(form.jurisdiction.clone()),
        person: some(form.who),
        from: some(form.from),
        since: day(&form.since)?,
        until: day(&form.until)?,
        ..Question::default()
    };
    let file = evidence::make(&desk, &person, question, form.complete.is_some()).await?;
    let name = "attachment; filename=\"evidence.tar\"";
    Ok(([(header::CONTENT_TYPE, "application/x-tar"), (header::CONTENT_DISPOSITION, name)], file)
        .into_response())
}
