//! A span for each answer, where traces are asked for: by the pattern of its path, which names nobody.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::Desk;

/// Around every handler.
pub(crate) async fn traced(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let Some(traces) = desk.gateway.config.traces.clone() else { return next.run(request).await };
    let at = SystemTime::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let parent =
        request.headers().get("traceparent").and_then(|value| value.to_str().ok().map(str::to_owned));
    let answer = next.run(request).await;
    let route = route.as_ref().map_or("(no such page)", MatchedPath::as_str);
    traces.page(method.as_str(), route, parent.as_deref(), at, answer.status().as_u16());
    answer
}
