//! The pages, and how a request finds its one.

pub mod ask;
pub mod border;
pub mod catalogue;
pub mod copies;
pub mod door;
pub mod drafts;
pub mod enrolments;
pub mod evidence;
pub mod health;
pub mod inbox;
pub mod ledger;
pub mod narrow;
pub mod orders;
pub mod passkey;
pub mod people;
pub mod plan;
pub mod public;
pub mod request;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::{DOCTYPE, Markup, html};
use ringfence_gateway::refusal::Refusal;
use serde_json::Value;

use crate::Desk;
use crate::backchannel;
use crate::member::Member;
use crate::session::Session;

/// The largest form, in bytes.
pub(crate) const MAX_FORM: usize = 64 * 1024;

/// All paths.
pub(crate) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/", get(inbox::show))
        .route("/requests/{id}", get(request::show))
        .route("/requests/{id}/approve", post(request::approve))
        .route("/requests/{id}/narrow", post(narrow::send))
        .route("/requests/{id}/deny", post(request::deny))
        .route("/requests/{id}/revoke", post(request::revoke))
        .route("/plans/{id}", get(plan::show))
        .route("/plans/{id}/approve", post(plan::approve))
        .route("/passkey", get(passkey::show).post(passkey::line))
        .route("/enrolments", post(enrolments::ask))
        .route("/enrolments/{id}", get(enrolments::show))
        .route("/enrolments/{id}/approve", post(enrolments::vouch))
        .route("/ask", get(ask::choose))
        .route("/ask/{store}/{table}", get(ask::show).post(ask::send))
        .route("/ask/{store}/{table}/{columns}", get(ask::show_for))
        .route("/border", get(border::show))
        .route("/border/cut", post(border::cut))
        .route("/border/{jurisdiction}/{country}", get(border::way))
        .route("/border/{jurisdiction}/order", post(orders::propose))
        .route("/orders/{id}", get(orders::show))
        .route("/orders/{id}/approve", post(orders::give))
        .route("/catalogue", get(catalogue::show))
        .route("/catalogue/{store}", get(catalogue::store))
        .route("/catalogue/{store}/lines", post(drafts::take))
        .route("/people", get(people::show))
        .route("/people/{name}", get(people::one))
        .route("/copies", get(copies::show))
        .route("/ledger", get(ledger::newest))
        .route("/ledger/until/{entry}", get(ledger::until))
        .route("/ledger/evidence", post(evidence::take))
        .route("/ledger/{entry}", get(ledger::show))
        .route("/ledger/{entry}/proof", get(ledger::prove))
        .route("/ledger/{entry}/disclosed", get(ledger::disclose))
        .route("/health", get(health::show))
        .route("/events", get(crate::live::events))
        .route("/transparency", get(public::show))
        .route("/reports/{name}", get(public::report))
        .route("/log/{*path}", get(public::log))
        .route("/verify", get(public::verify))
        .route("/login", get(door::login))
        .route("/callback", get(door::callback))
        .route("/logout", post(door::logout))
        .route(
            "/console.css",
            get(|| file("text/css; charset=utf-8", include_str!("../../static/console.css"))),
        )
        .route(
            "/console.js",
            get(|| file("text/javascript; charset=utf-8", include_str!("../../static/console.js"))),
        )
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .route("/backchannel-logout", post(backchannel::logout))
        .route("/scim/v2/Users", get(backchannel::users))
        .route(
            "/scim/v2/Users/{id}",
            get(backchannel::one)
                .put(backchannel::change)
                .patch(backchannel::change)
                .delete(backchannel::delete),
        )
        .merge(crate::api::router())
        .fallback(|| async { Told::new(StatusCode::NOT_FOUND, "There is no such page.") })
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&desk), crate::traced::traced))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&desk), crate::limits::guard))
        .layer(axum::middleware::from_fn(crate::headers::add))
        .with_state(desk)
}

#[allow(clippy::unused_async, reason = "a handler")]
async fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=300")], text)
}

/// Somebody who is logged in, and is in the registry.
pub(crate) struct Person {
    member: Member,
    pub(crate) session: Session,
}

impl std::ops::Deref for Person {
    type Target = Member;

    fn deref(&self) -> &Member {
        &self.member
    }
}

impl FromRequestParts<Arc<Desk>> for Person {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Response> {
        // A page that follows what happens asks by itself: that keeps no session open.
        let is_by_itself = parts.uri.path() == "/events" || parts.headers.contains_key(FOLLOWS);
        let sessions = &desk.sessions;
        let found = if is_by_itself { sessions.peek(&parts.headers) } else { sessions.find(&parts.headers) };
        let Some(session) = found else {
            if parts.method == axum::http::Method::GET {
                let next = parts.uri.path();
                return Err(Redirect::to(&format!("/login?next={next}")).into_response());
            }
            return Err(Told::new(
                StatusCode::UNAUTHORIZED,
                "Your session is over. Nothing was changed: log in again.",
            )
            .into_response());
        };
        let (name, since) = session.who();
        let member = Member::find(desk, &name, since).map_err(|told| {
            if told.status() == StatusCode::UNAUTHORIZED {
                desk.sessions.close(&parts.headers);
            }
            told.into_response()
        })?;
        if parts.method != axum::http::Method::GET {
            desk.limits.change(&name).map_err(IntoResponse::into_response)?;
        }
        Ok(Self { member, session })
    }
}

/// What a page sends along that asks by itself.
const FOLLOWS: &str = "ringfence-follows";

impl Person {
    /// Asks the gateway's console, as the command line does.
    pub(crate) async fn ask(&self, desk: &Desk, command: &Value) -> Result<Value, Told> {
        self.command(desk, command).await.map_err(Told::from)
    }

    /// Refuses what does not come from a page of this session.
    pub(crate) fn must_be_ours(&self, desk: &Desk, headers: &HeaderMap, token: &str) -> Result<(), Told> {
        if self.session.is_ours(headers, token, &desk.config.origin) {
            return Ok(());
        }
        Err(Told::new(
            StatusCode::FORBIDDEN,
            "This did not come from a page of your session. Nothing was changed: open the page again.",
        ))
    }
}

/// What went wrong, as a page.
#[derive(Debug)]
pub(crate) struct Told {
    status: StatusCode,
    message: String,
    hint: Option<String>,
}

impl Told {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), hint: None }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// What happened, in a sentence.
    pub(crate) fn text(self) -> String {
        self.message
    }

    /// The text for a script.
    pub(crate) fn plain(self) -> Response {
        let hint = self.hint.map(|hint| format!(" {hint}")).unwrap_or_default();
        (self.status, format!("{}{hint}", self.message)).into_response()
    }
}

impl From<Refusal> for Told {
    fn from(refusal: Refusal) -> Self {
        let status = crate::status_of(&refusal);
        Self { status, message: refusal.message, hint: refusal.hint }
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let body = html! {
            h1 { (words::of_status(self.status)) }
            p { (self.message) }
            @if let Some(hint) = &self.hint { p.soft { (hint) } }
            p { a href="/" { "To the inbox" } }
        };
        (self.status, page("Ringfence", None, &body)).into_response()
    }
}

/// A page as it is sent.
pub(crate) type Page = Html<String>;

/// Where one can go.
const ROOMS: [Room; 8] = [
    ("/", "Inbox", |_| true),
    ("/ask", "Ask", |_| true),
    ("/border", "Border", |_| true),
    ("/ledger", "Ledger", |_| true),
    ("/catalogue", "Catalogue", |_| true),
    ("/people", "People", |person| person.is_insider),
    ("/copies", "Copies", |person| person.is_insider),
    ("/health", "Health", |person| person.is_operator),
];

/// A path, its word, and whom it is for.
type Room = (&'static str, &'static str, fn(&Person) -> bool);

/// A page with everything around it.
pub(crate) fn page(title: &str, person: Option<&Person>, body: &Markup) -> Page {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Ringfence" }
                link rel="stylesheet" href="/console.css";
                script src="/console.js" defer {}
            }
            body {
                a.skip href="#main" { "To the content" }
                header {
                    nav aria-label="Main" {
                        a.brand href="/" { "Ringfence" }
                        @if let Some(person) = person {
                            @for (path, word, is_for) in ROOMS { @if is_for(person) { a href=(path) { (word) } } }
                            form.out method="post" action="/logout" {
                                input type="hidden" name="token" value=(person.session.csrf);
                                a.who href="/passkey" { (person.principal.name) }
                                button.quiet { "Log out" }
                            }
                        }
                    }
                }
                @if person.is_some() { p.told id="live" role="status" {} }
                main id="main" { (body) }
                footer { a href="/transparency" { "Transparency" } ": what everybody may see of this gateway, and how to check it" }
            }
        }
    };
    Html(page.into_string())
}

pub(crate) use words::{moment, text};

/// The state for handlers.
pub(crate) type At = State<Arc<Desk>>;
