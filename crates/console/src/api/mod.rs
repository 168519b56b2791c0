//! The HTTP API, version 1: what the pages do, for programs. Its description (OpenAPI 3.1) is made from this code and lies at
//! `/api/v1/openapi.json`; errors are problem details (RFC 9457).
//!
//! A program shows an ID token of the provider as a bearer token (RFC 6750), made for this console or for `ringfence login`, as
//! Kubernetes takes them. A browser's session may read, too; what changes something takes a token, which no other site's page can send.

mod body;
mod ledger;
pub mod login;
mod orders;
mod people;
mod requests;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use ringfence_gateway::peers::Peer;
use ringfence_gateway::refusal::Refusal;
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Desk;
use crate::member::Member;

#[derive(OpenApi)]
#[openapi(
    info(title = "Ringfence", description = "Ask for protected data, decide, and look at what crosses the border."),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
struct Description;

/// How a program says who it is.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
        let scheme = scheme
            .description(Some("An ID token of the provider, for this console or for `ringfence login`"))
            .build();
        description
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

fn described() -> (Router<Arc<Desk>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(requests::list, requests::ask))
        .routes(routes!(requests::show))
        .routes(routes!(requests::approve))
        .routes(routes!(requests::deny))
        .routes(routes!(requests::revoke))
        .routes(routes!(requests::narrow))
        .routes(routes!(login::place))
        .routes(routes!(login::certificate))
        .routes(routes!(people::me))
        .routes(routes!(people::sessions))
        .routes(routes!(people::cut))
        .routes(routes!(people::border))
        .routes(routes!(orders::in_force, orders::make))
        .routes(routes!(orders::give))
        .routes(routes!(orders::enrolments, orders::enrol))
        .routes(routes!(orders::vouch))
        .routes(routes!(ledger::head))
        .routes(routes!(ledger::entry))
        .routes(routes!(ledger::proof))
        .split_for_parts()
}

/// The description, for whoever writes a client.
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().1
}

/// All paths.
pub(crate) fn router() -> Router<Arc<Desk>> {
    let (router, description) = described();
    let text: Arc<str> = description.to_json().unwrap_or_default().into();
    router
        .route(
            "/api/v1/openapi.json",
            axum::routing::get(move || {
                let text = text.to_string();
                async move { ([(header::CONTENT_TYPE, "application/json")], text) }
            }),
        )
        .route(
            "/api/{*path}",
            axum::routing::any(|| async { Problem::new(StatusCode::NOT_FOUND, "There is no such path.") }),
        )
}

/// What went wrong (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What the status means.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened.
    detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Problem").to_owned();
        Self { title, status: status.as_u16(), detail: detail.into(), hint: None }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self { hint: refusal.hint.clone(), ..Self::new(crate::status_of(&refusal), refusal.message) }
    }
}

impl From<crate::pages::Told> for Problem {
    fn from(told: crate::pages::Told) -> Self {
        Self::new(told.status(), told.text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let kind = axum::http::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Whoever calls, and has shown who they are.
pub(crate) struct Caller(pub(crate) Member);

impl FromRequestParts<Arc<Desk>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
            if parts.method != Method::GET {
                return Err(Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "What changes something takes a bearer token.",
                ));
            }
            let none = "Show an ID token of the provider as a bearer token.";
            let session = desk.sessions.find(&parts.headers);
            let (name, since) = session.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, none))?.who();
            return Ok(Self(Member::find(desk, &name, since)?));
        };
        let peer = parts.extensions.get::<Peer>().copied();
        let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).map(str::trim);
        let token = token
            .ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "The authorization is no bearer token."))?;
        let (provider, token) = (desk.config.provider.clone(), token.to_owned());
        let shown = tokio::task::spawn_blocking(move || provider.bearer(&token)).await;
        let shown = shown.map_err(|_| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The token cannot be judged at the moment.")
        })?;
        let member = match shown {
            Ok(shown) => Member::enter(desk, &shown).await?,
            Err(crate::identity::Problem::Unreachable) => {
                let problem = crate::identity::Problem::Unreachable;
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{problem}.")));
            }
            Err(problem) => {
                desk.limits.stranger(peer)?;
                return Err(Problem::new(StatusCode::UNAUTHORIZED, format!("{problem}.")));
            }
        };
        if parts.method != Method::GET {
            desk.limits.change(&member.principal.name)?;
        }
        Ok(Self(member))
    }
}

impl Caller {
    /// Asks the gateway's console.
    pub(crate) async fn ask(&self, desk: &Desk, command: &Value) -> Result<Value, Problem> {
        Ok(self.0.command(desk, command).await?)
    }

    /// The same, as what the description says of the answer.
    pub(crate) async fn ask_for<T: serde::de::DeserializeOwned>(
        &self,
        desk: &Desk,
        command: &Value,
    ) -> Result<Json<T>, Problem> {
        let answer = self.ask(desk, command).await?;
        serde_json::from_value(answer).map(Json).map_err(|e| {
            tracing::error!(problem = %e, "an answer is not what the API describes");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The answer is not what the description says.")
        })
    }
}
