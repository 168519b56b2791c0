//! The log, for programs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::Named;
use super::{Caller, Problem};
use crate::Desk;
use crate::log;

type At = State<Arc<Desk>>;

/// The log's newest signed head.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Head {
    /// How many entries are under it.
    size: u64,
    /// The Merkle tree's root, in base64.
    root: String,
    /// The log's public keys (C2SP signed-note), one a line.
    vkey: String,
}

/// The newest head that the log has signed.
#[utoipa::path(get, path = "/api/v1/ledger", tag = "ledger", responses((status = 200, body = Head), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn head(State(desk): At, _: Caller) -> Result<Json<Head>, Problem> {
    let head = log::head(&desk).await?;
    Ok(Json(Head {
        size: head.size,
        root: head.root.to_string(),
        vkey: desk.gateway.ledger.vkey().to_owned(),
    }))
}

/// An entry, as far as the caller may see it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Entry {
    /// Its place in the log.
    index: u64,
    /// The public half.
    leaf: Value,
    /// The private record, for whoever approves or audits the jurisdiction that it is about.
    record: Option<Value>,
}

/// One entry.
#[utoipa::path(get, path = "/api/v1/ledger/{index}", tag = "ledger", params(("index" = u64, Path)), responses((status = 200, body = Entry), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn entry(
    State(desk): At,
    caller: Caller,
    Named(index): Named<u64>,
) -> Result<Json<Entry>, Problem> {
    let log::Line { index, leaf, record } = log::one(&desk, &caller.0, index).await?;
    Ok(Json(Entry { index, leaf: serde_json::to_value(&leaf).unwrap_or_default(), record }))
}

/// The proof that an entry is in the log (C2SP tlog-proof), without its private record.
#[utoipa::path(get, path = "/api/v1/ledger/{index}/proof", tag = "ledger", params(("index" = u64, Path)), responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn proof(
    State(desk): At,
    _: Caller,
    Named(index): Named<u64>,
) -> Result<impl IntoResponse, Problem> {
    let text = log::proof(&desk, index, false).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text))
}
