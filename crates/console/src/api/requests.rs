//! Requests and what becomes of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::body::{Body, Named};
use super::{Caller, Problem};
use crate::Desk;

/// What somebody asks for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// The store.
    store: String,
    /// `table.column`, all of one table.
    #[schema(min_items = 1)]
    columns: Vec<String>,
    /// Which rows, as after WHERE; absent means all.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
    /// Why, in one line.
    #[schema(min_length = 1, max_length = 500)]
    purpose: String,
    /// How long, in seconds from the last approval.
    #[schema(minimum = 1, maximum = 2_592_000)]
    seconds: u64,
    /// How many rows may be read in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    max_rows: Option<u64>,
}

/// Less than was asked for. What is absent stays.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Less {
    /// The columns that stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
    /// A condition besides the one that was asked for.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
    /// How long, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seconds: Option<u64>,
    /// How many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_rows: Option<u64>,
}

/// A signature over a canonical text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signature {
    /// SSHSIG in PEM (namespace `ringfence-approval`), or a passkey's assertion as JSON.
    pub(super) signature: String,
}

/// Why something ends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Because {
    /// In one line; whoever asked reads it.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// A new request.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Asked {
    /// Its name.
    id: String,
    /// `pending`.
    state: String,
    /// What is asked for, in a line.
    summary: String,
    /// SHA-256 of the canonical text, in hex.
    digest: String,
    /// How many approvers must sign.
    approvals_needed: u64,
    /// Until when (RFC 3339).
    decide_by: String,
}

/// A request and where it stands.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Request {
    /// Its name.
    id: String,
    /// `pending`, `granted`, `denied`, `revoked` or `expired`.
    state: String,
    /// Who asked.
    requester: String,
    /// From where.
    location: String,
    /// For whom they work.
    employer: Option<String>,
    /// Why they are a covered person (28 CFR 202.211), if so.
    covered: Option<String>,
    /// The store.
    store: String,
    /// What is asked for, in a line.
    summary: String,
    /// Why.
    purpose: String,
    /// When (RFC 3339).
    created: String,
    /// Until when it can be approved (RFC 3339).
    decide_by: String,
    /// When the grant ends, once there is one (RFC 3339).
    expires: Option<String>,
    /// Rows charged to its limit, or leased by a statement under way. A row of a result can cost several.
    charged: u64,
    /// How many may be charged in all.
    max_rows: Option<u64>,
    /// Who has signed.
    approved_by: Vec<String>,
    /// How many must.
    approvals_needed: u64,
    /// Who ended it.
    ended_by: Option<String>,
    /// And why.
    reason: Option<String>,
    /// The request of which it is less.
    narrows: Option<String>,
    /// The exact text that is signed (RFC 8785).
    canonical: String,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Ended {
    /// Its name.
    id: String,
    /// What it is now.
    state: String,
    /// How many sessions depended on it and were cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sessions_cut: Option<u64>,
}

type At = State<Arc<Desk>>;

/// All requests that the caller may read: their own, and those of stores that they approve or audit. The newest 1,000.
#[utoipa::path(get, path = "/api/v1/requests", tag = "requests", responses((status = 200, body = Vec<Request>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(State(desk): At, caller: Caller) -> Result<Json<Vec<Request>>, Problem> {
    caller.ask_for(&desk, &json!({ "do": "requests" })).await
}

/// Asks.
#[utoipa::path(post, path = "/api/v1/requests", tag = "requests", request_body = Ask, responses((status = 201, body = Asked), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn ask(
    State(desk): At,
    caller: Caller,
    Body(ask): Body<Ask>,
) -> Result<(StatusCode, Json<Asked>), Problem> {
    Ok((StatusCode::CREATED, caller.ask_for(&desk, &json!({ "do": "request", "ask": ask })).await?))
}

/// One request.
#[utoipa::path(get, path = "/api/v1/requests/{id}", tag = "requests", params(("id" = String, Path)), responses((status = 200, body = Request), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(
    State(desk): At,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<Json<Request>, Problem> {
    caller.ask_for(&desk, &json!({ "do": "show", "id": id })).await
}

/// Approves: the caller's signature over the canonical text.
#[utoipa::path(post, path = "/api/v1/requests/{id}/approve", tag = "requests", params(("id" = String, Path)), request_body = Signature, responses((status = 200, body = Request), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn approve(
    State(desk): At,
    caller: Caller,
    Named(id): Named<String>,
    Body(signed): Body<Signature>,
) -> Result<Json<Request>, Problem> {
    caller.ask_for(&desk, &json!({ "do": "approve", "id": id, "signature": signed.signature })).await
}

async fn end(
    desk: &Desk,
    caller: &Caller,
    how: &str,
    id: &str,
    because: &Because,
) -> Result<Json<Ended>, Problem> {
    let reason = because.reason.trim();
    if reason.is_empty() || reason.len() > 500 || reason.chars().any(char::is_control) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "Say why, in one line of at most 500 bytes."));
    }
    caller.ask_for(desk, &json!({ "do": how, "id": id, "reason": reason })).await
}

/// Turns a request down.
#[utoipa::path(post, path = "/api/v1/requests/{id}/deny", tag = "requests", params(("id" = String, Path)), request_body = Because, responses((status = 200, body = Ended), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn deny(
    State(desk): At,
    caller: Caller,
    Named(id): Named<String>,
    Body(because): Body<Because>,
) -> Result<Json<Ended>, Problem> {
    end(&desk, &caller, "deny", &id, &because).await
}

/// Takes a grant back, and cuts its sessions.
#[utoipa::path(post, path = "/api/v1/requests/{id}/revoke", tag = "requests", params(("id" = String, Path)), request_body = Because, responses((status = 200, body = Ended), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn revoke(
    State(desk): At,
    caller: Caller,
    Named(id): Named<String>,
    Body(because): Body<Because>,
) -> Result<Json<Ended>, Problem> {
    end(&desk, &caller, "revoke", &id, &because).await
}

/// Makes a narrower request of one, in the requester's name, and turns the wider one down.
#[utoipa::path(post, path = "/api/v1/requests/{id}/narrow", tag = "requests", params(("id" = String, Path)), request_body = Less, responses((status = 201, body = Asked), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn narrow(
    State(desk): At,
    caller: Caller,
    Named(id): Named<String>,
    Body(less): Body<Less>,
) -> Result<(StatusCode, Json<Asked>), Problem> {
    let less: Value = json!(less);
    Ok((
        StatusCode::CREATED,
        caller.ask_for(&desk, &json!({ "do": "narrow", "id": id, "less": less })).await?,
    ))
}
