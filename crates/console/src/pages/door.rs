//! In and out.

use axum::extract::{Extension, Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use ringfence_gateway::peers::Peer;
use serde::Deserialize;

use super::{At, Person, Told};
use crate::identity::Problem;
use crate::member::Member;
use crate::session::{COOKIE_NAME, LOGIN_COOKIE, set};

#[derive(Deserialize)]
pub(crate) struct Next {
    #[serde(default)]
    next: String,
}

/// Only a path of ours: `//evil.example` and `/\evil.example` are other hosts to a browser.
fn own_path(next: &str) -> String {
    let is_own = next.starts_with('/')
        && !next.starts_with("//")
        && next.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.,".contains(&b));
    if is_own { next.to_owned() } else { "/".to_owned() }
}

fn told(problem: &Problem) -> Told {
    let status = match problem {
        Problem::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
        Problem::Forged(_) | Problem::Nameless(_) | Problem::Timeless => StatusCode::FORBIDDEN,
    };
    Told::new(status, format!("You are not logged in: {problem}."))
}

fn gone() -> Told {
    Told::new(StatusCode::SERVICE_UNAVAILABLE, "The login was broken off.")
}

/// Sends the browser to the provider.
pub(crate) async fn login(
    State(desk): At,
    peer: Option<Extension<Peer>>,
    Query(next): Query<Next>,
) -> Result<Response, Told> {
    desk.limits.stranger(peer.map(|p| p.0))?;
    let (provider, redirect) = (desk.config.provider.clone(), format!("{}/callback", desk.config.origin));
    let next = own_path(&next.next);
    let begun = tokio::task::spawn_blocking(move || provider.begin(&redirect, next)).await;
    let (url, begun) = begun.map_err(|_| gone())?.map_err(|e| told(&e))?;
    let token = desk.sessions.begin(&begun).ok_or_else(gone)?;
    Ok((AppendHeaders([(header::SET_COOKIE, set(LOGIN_COOKIE, &token, 600))]), Redirect::to(&url))
        .into_response())
}

#[derive(Deserialize)]
pub(crate) struct Answer {
    code: Option<String>,
    #[serde(default)]
    state: String,
}

/// The browser comes back.
pub(crate) async fn callback(
    State(desk): At,
    peer: Option<Extension<Peer>>,
    Query(answer): Query<Answer>,
    headers: HeaderMap,
) -> Result<Response, Told> {
    desk.limits.stranger(peer.map(|p| p.0))?;
    let begun = desk.sessions.take(&headers).ok_or_else(|| {
        Told::new(StatusCode::FORBIDDEN, "This login was not begun in this browser, or too long ago.")
    })?;
    let code =
        answer.code.ok_or_else(|| Told::new(StatusCode::FORBIDDEN, "The identity provider has refused."))?;
    let (provider, redirect) = (desk.config.provider.clone(), format!("{}/callback", desk.config.origin));
    let next = begun.next.clone();
    let shown =
        tokio::task::spawn_blocking(move || provider.finish(&redirect, begun, code, &answer.state)).await;
    let shown = shown.map_err(|_| gone())?.map_err(|e| told(&e))?;
    let member = Member::enter(&desk, &shown).await?;
    let token = desk.sessions.open(&member.principal.name, member.since);
    let cookies = AppendHeaders([
        (header::SET_COOKIE, set(COOKIE_NAME, &token, 10 * 3600)),
        (header::SET_COOKIE, set(LOGIN_COOKIE, "", 0)),
    ]);
    Ok((cookies, Redirect::to(&next)).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Token {
    token: String,
}

/// Ends the session.
pub(crate) async fn logout(
    State(desk): At,
    person: Person,
    headers: HeaderMap,
    Form(form): Form<Token>,
) -> Result<Response, Told> {
    person.must_be_ours(&desk, &headers, &form.token)?;
    desk.sessions.close(&headers);
    let cookies = AppendHeaders([(header::SET_COOKIE, set(COOKIE_NAME, "", 0))]);
    Ok((
        cookies,
        super::page(
            "Logged out",
            None,
            &maud::html! { h1 { "Logged out" } p { a href="/" { "Log in again" } } },
        ),
    )
        .into_response())
}

#[cfg(test)]
mod tests {
    use super::own_path;

    #[test]
    fn a_login_leads_nowhere_else() {
        for ours in ["/requests/R-23456789", "/ask/us/users/email,phone"] {
            assert_eq!(own_path(ours), ours);
        }
        for other in
            ["", "//evil.example", "https://evil.example", "/\\evil.example", "/%2fevil", "/a?b", "evil"]
        {
            assert_eq!(own_path(other), "/", "{other}");
        }
    }
}
