//! Who is there, and what crosses the border.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::body::{Body, Named};
use super::{Caller, Problem};
use crate::Desk;

type At = State<Arc<Desk>>;

/// Whoever calls.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    /// The name in the registry.
    name: String,
    /// Where the registry says that they are.
    location: Option<String>,
    /// For whom they work.
    employer: Option<String>,
    /// Their teams.
    teams: Vec<String>,
    /// Why they are a covered person (28 CFR 202.211), if so.
    covered: Option<String>,
}

/// Who the gateway takes the caller for.
#[utoipa::path(get, path = "/api/v1/me", tag = "people", responses((status = 200, body = Me), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn me(State(desk): At, Caller(member): Caller) -> Json<Me> {
    let who = &member.principal;
    Json(Me {
        name: who.name.clone(),
        location: who.location.clone(),
        employer: who.employer.clone(),
        teams: who.teams.iter().cloned().collect(),
        covered: desk.gateway.policy().coverage(who).map(|c| c.because),
    })
}

/// A session at a store.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Connected {
    /// Its name in the ledger.
    session: String,
    /// Whose.
    principal: String,
    /// From where.
    location: String,
    /// The store.
    store: String,
    /// `face` or `full`.
    access: String,
    /// Whether it crosses the border.
    crosses: bool,
    /// The grants that it depends on.
    grants: Vec<String>,
    /// The client's address.
    address: String,
    /// What the client calls itself.
    application: String,
    /// Since when, in seconds.
    seconds: u64,
    /// Statements that are over.
    statements: u64,
    /// Their rows.
    rows: u64,
    /// Bytes of protocol to the client.
    bytes: u64,
}

/// The sessions at the stores that the caller has to do with.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "people", responses((status = 200, body = Vec<Connected>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn sessions(State(desk): At, caller: Caller) -> Result<Json<Vec<Connected>>, Problem> {
    caller.ask_for(&desk, &json!({ "do": "sessions" })).await
}

/// Why a session is cut.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Because {
    /// In one line; whoever is cut reads it.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Cut {
    /// The session.
    session: String,
    /// Always true.
    cut: bool,
}

/// Cuts a session; approvers of its store can.
#[utoipa::path(post, path = "/api/v1/sessions/{session}/cut", tag = "people", params(("session" = String, Path)), request_body = Because, responses((status = 200, body = Cut), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn cut(
    State(desk): At,
    caller: Caller,
    Named(session): Named<String>,
    Body(because): Body<Because>,
) -> Result<Json<Cut>, Problem> {
    caller.ask_for(&desk, &json!({ "do": "cut", "session": session, "reason": because.reason })).await
}

/// What crossed the border one way in the last thirty days.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Crossing {
    /// Whose data.
    jurisdiction: String,
    /// The country that it was read from.
    from: String,
    /// Statements.
    statements: u64,
    /// Of them by covered persons (28 CFR 202.211).
    covered: u64,
    /// Rows that were let through.
    rows: u64,
    /// Bytes of protocol with them.
    bytes: u64,
    /// What was refused.
    refused: u64,
}

/// What crosses the border.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Border {
    /// Whether data may cross now.
    open: bool,
    /// If not, why.
    reason: Option<String>,
    /// What crossed in thirty days.
    days_30: Vec<Crossing>,
}

/// What crosses the border, from the log's public half.
#[utoipa::path(get, path = "/api/v1/border", tag = "people", responses((status = 200, body = Border), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn border(State(desk): At, _: Caller) -> Json<Border> {
    let now = desk.gateway.now();
    let reason = desk.gateway.border.is_open(&desk.gateway).err().map(|cut| cut.reason());
    let days_30 = desk.traffic.ways().into_iter().map(|(way, seen)| {
        let sum = seen.total(now, 30);
        Crossing {
            jurisdiction: way.jurisdiction,
            from: way.from,
            statements: sum.statements,
            covered: sum.covered,
            rows: sum.rows,
            bytes: sum.bytes,
            refused: sum.refused,
        }
    });
    Json(Border { open: reason.is_none(), reason, days_30: days_30.collect() })
}
