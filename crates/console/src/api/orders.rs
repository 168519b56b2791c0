//! Regulators' orders, and keys that approvers let in: what is signed, for programs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ringfence_verifier::orders::What;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::body::{Body, Named};
use super::requests::Signature;
use super::{Caller, Problem};
use crate::Desk;

type At = State<Arc<Desk>>;

/// A suspension in force.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Suspension {
    /// Whose data does not cross the border.
    jurisdiction: String,
    /// The order.
    order: String,
    /// The regulator who gave it.
    by: String,
    /// Why.
    reason: String,
    /// Since when.
    since: String,
}

/// What regulators have suspended.
#[utoipa::path(get, path = "/api/v1/orders", tag = "orders", responses((status = 200, body = Vec<Suspension>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn in_force(State(desk): At, caller: Caller) -> Result<Json<Vec<Suspension>>, Problem> {
    caller.ask_for(&desk, &json!({ "do": "suspended" })).await
}

/// What is to happen.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wanted {
    /// No data of the jurisdiction crosses the border.
    Suspend,
    /// It may again.
    Resume,
}

/// An order to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    /// Whose data.
    jurisdiction: String,
    /// What is to happen.
    what: Wanted,
    /// In one line, for those who are cut off and for the record.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// An order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Order {
    /// Its name.
    id: String,
    /// `suspend` or `resume`.
    what: String,
    /// Whose data.
    jurisdiction: String,
    /// The regulator.
    by: String,
    /// Why.
    reason: String,
    /// The order that it lifts.
    lifts: Option<String>,
    /// When it was made.
    created: String,
    /// Whether it is signed, and so in force.
    signed: bool,
    /// The exact text that is signed (SSHSIG, namespace `ringfence-approval`).
    canonical: String,
}

/// Makes an order; a jurisdiction's regulators can. It is in force once it is signed.
#[utoipa::path(post, path = "/api/v1/orders", tag = "orders", request_body = Draft, responses((status = 201, body = Order), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn make(
    State(desk): At,
    caller: Caller,
    Body(draft): Body<Draft>,
) -> Result<(StatusCode, Json<Order>), Problem> {
    let what = match draft.what {
        Wanted::Suspend => What::Suspend,
        Wanted::Resume => What::Resume,
    };
    let command =
        json!({ "do": "order", "jurisdiction": draft.jurisdiction, "what": what, "reason": draft.reason });
    Ok((StatusCode::CREATED, caller.ask_for(&desk, &command).await?))
}

/// Signs an order: it is in force at once, at every gateway within a second.
#[utoipa::path(post, path = "/api/v1/orders/{id}/signature", tag = "orders", params(("id" = String, Path)), request_body = Signature, responses((status = 200, body = Order), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn give(
    State(desk): At,
    caller: Caller,
    Named(id): Named<String>,
    Body(signed): Body<Signature>,
) -> Result<Json<Order>, Problem> {
    caller.ask_for(&desk, &json!({ "do": "give", "id": id, "signature": signed.signature })).await
}

/// A key that approvers let in.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Enrolment {
    /// Its name.
    id: String,
    /// Whose key it is.
    person: String,
    /// The key: an OpenSSH line.
    key: String,
    /// When it was asked for.
    created: String,
    /// `pending`, `signed`, or `in force`.
    state: String,
    /// By whom it is signed.
    signed_by: Vec<String>,
    /// How many must sign.
    signatures_needed: u64,
    /// The exact text that is signed (SSHSIG, namespace `ringfence-approval`).
    canonical: String,
    /// The lines of the registry that say so.
    registry: String,
}

/// The keys that wait, or have waited within a month, for those who approve; nothing for others.
#[utoipa::path(get, path = "/api/v1/enrolments", tag = "orders", responses((status = 200, body = Vec<Enrolment>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn enrolments(State(desk): At, caller: Caller) -> Result<Json<Vec<Enrolment>>, Problem> {
    caller.ask_for(&desk, &json!({ "do": "enrolments" })).await
}

/// A public key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// An OpenSSH line.
    #[schema(min_length = 1, max_length = 8000)]
    key: String,
}

/// Asks for a key of the caller's to be let in; who approves can.
#[utoipa::path(post, path = "/api/v1/enrolments", tag = "orders", request_body = Key, responses((status = 201, body = Enrolment), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn enrol(
    State(desk): At,
    caller: Caller,
    Body(key): Body<Key>,
) -> Result<(StatusCode, Json<Enrolment>), Problem> {
    Ok((StatusCode::CREATED, caller.ask_for(&desk, &json!({ "do": "enrol", "key": key.key })).await?))
}

/// Signs the enrolment of somebody else's key.
#[utoipa::path(post, path = "/api/v1/enrolments/{id}/signature", tag = "orders", params(("id" = String, Path)), request_body = Signature, responses((status = 200, body = Enrolment), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn vouch(
    State(desk): At,
    caller: Caller,
    Named(id): Named<String>,
    Body(signed): Body<Signature>,
) -> Result<Json<Enrolment>, Problem> {
    caller.ask_for(&desk, &json!({ "do": "vouch", "id": id, "signature": signed.signature })).await
}
