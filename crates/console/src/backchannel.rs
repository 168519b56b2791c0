//! The provider says that somebody is signed out (OpenID Connect Back-Channel Logout 1.0), or deactivated (SCIM 2.0, RFC 7644).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Form, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ringfence_gateway::peers::Peer;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::Desk;
use crate::identity::Problem;

type At = State<Arc<Desk>>;

#[derive(Deserialize)]
pub(crate) struct Logout {
    logout_token: String,
}

/// `POST /backchannel-logout`: 2.5. The answers are 2.8's.
pub(crate) async fn logout(
    State(desk): At,
    peer: Option<Extension<Peer>>,
    Form(form): Form<Logout>,
) -> Response {
    let provider = desk.config.provider.clone();
    let judged = tokio::task::spawn_blocking(move || provider.signed_out(&form.logout_token)).await;
    let refuse = |status: StatusCode, what: &str| {
        (
            status,
            [(header::CACHE_CONTROL, "no-store")],
            Json(json!({ "error": "invalid_request", "error_description": what })),
        )
            .into_response()
    };
    let subject = match judged {
        Ok(Ok(subject)) => subject,
        Ok(Err(Problem::Unreachable)) | Err(_) => {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "the provider's keys cannot be had");
        }
        Ok(Err(problem)) => {
            return match desk.limits.stranger(peer.map(|p| p.0)) {
                Ok(()) => refuse(StatusCode::BAD_REQUEST, &problem.to_string()),
                Err(told) => refuse(told.status(), "too much at once"),
            };
        }
    };
    if let Err(refusal) = desk.gateway.sign_out(&subject, "the identity provider").await {
        tracing::error!(problem = %refusal.message, "a sign-out is not in force at all gateways yet");
        return refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "the sign-out is not in force everywhere yet: try again",
        );
    }
    (StatusCode::OK, [(header::CACHE_CONTROL, "no-store")]).into_response()
}

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
const ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

fn scim(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/scim+json")], body.to_string()).into_response()
}

fn error(status: StatusCode, detail: &str) -> Response {
    scim(status, &json!({ "schemas": [ERROR], "status": status.as_u16().to_string(), "detail": detail }))
}

/// Whether the caller is the identity provider: by the token of the configuration, compared by digests.
fn is_provider(desk: &Desk, headers: &HeaderMap) -> bool {
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.strip_prefix("Bearer "));
    match (&desk.config.scim_token, shown) {
        (Some(token), Some(shown)) => {
            Sha256::digest(token.as_bytes()) == Sha256::digest(shown.trim().as_bytes())
        }
        _ => false,
    }
}

fn user(desk: &Desk, name: &str) -> Option<Value> {
    let policy = desk.gateway.policy();
    policy.registry().principal(name).filter(|p| p.is_person())?;
    let active = desk.gateway.people.judge(name, None).is_ok();
    Some(
        json!({ "schemas": [USER], "id": name, "userName": name, "active": active, "meta": { "resourceType": "User" } }),
    )
}

#[derive(Deserialize)]
pub(crate) struct Filter {
    filter: Option<String>,
}

/// `GET /scim/v2/Users`: one by `userName eq "…"`, which is what providers ask, or all.
pub(crate) async fn users(State(desk): At, headers: HeaderMap, Query(filter): Query<Filter>) -> Response {
    if !is_provider(&desk, &headers) {
        return error(StatusCode::UNAUTHORIZED, "this is for the identity provider");
    }
    let names: Vec<String> = match filter.filter.as_deref() {
        None => desk.gateway.policy().registry().people.iter().map(|p| p.name.clone()).collect(),
        Some(text) => {
            let name = text.trim().strip_prefix("userName eq \"").and_then(|rest| rest.strip_suffix('"'));
            match name {
                Some(name) => vec![name.to_owned()],
                None => return error(StatusCode::BAD_REQUEST, "only userName eq \"…\" is understood"),
            }
        }
    };
    let found: Vec<Value> = names.iter().filter_map(|name| user(&desk, name)).collect();
    scim(
        StatusCode::OK,
        &json!({ "schemas": [LIST], "totalResults": found.len(), "startIndex": 1, "itemsPerPage": found.len(), "Resources": found }),
    )
}

/// `GET /scim/v2/Users/{id}`
pub(crate) async fn one(State(desk): At, headers: HeaderMap, Path(name): Path<String>) -> Response {
    if !is_provider(&desk, &headers) {
        return error(StatusCode::UNAUTHORIZED, "this is for the identity provider");
    }
    user(&desk, &name).map_or_else(
        || error(StatusCode::NOT_FOUND, "the registry has nobody of this name"),
        |user| scim(StatusCode::OK, &user),
    )
}

/// What a change says of `active`: a whole user, or operations of a PATCH in the forms that providers send (RFC 7644, 3.5.2): names of
/// attributes are of any case, and may have their schema in front. `Err` where it says something of it that is not understood.
fn active(body: &Value) -> Result<Option<bool>, ()> {
    let truth = |value: &Value| {
        value.as_bool().or_else(|| value.as_str()?.to_ascii_lowercase().parse().ok()).ok_or(())
    };
    let is_it = |name: &str| {
        let name = name.to_ascii_lowercase();
        name == "active" || name.strip_prefix(&USER.to_ascii_lowercase()) == Some(":active")
    };
    let of_user = |user: &Value| {
        let said = user.as_object().into_iter().flatten().filter(|(name, _)| is_it(name));
        said.map(|(_, value)| truth(value)).next_back().transpose()
    };
    let Some(operations) = body["Operations"].as_array() else { return of_user(body) };
    let mut said = None;
    for operation in operations {
        let op = operation["op"].as_str().unwrap_or_default().to_ascii_lowercase();
        let value = &operation["value"];
        let of_this = match operation["path"].as_str() {
            Some(path) if is_it(path) && op != "remove" => Some(truth(value)?),
            Some(path) if is_it(path) => return Err(()),
            Some(_) => None,
            None => of_user(value)?,
        };
        said = of_this.or(said);
    }
    Ok(said)
}

/// `PUT`, `PATCH /scim/v2/Users/{id}`: only whether somebody is active is the provider's to say; who they are is the registry's.
pub(crate) async fn change(
    State(desk): At,
    headers: HeaderMap,
    Path(name): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    if !is_provider(&desk, &headers) {
        return error(StatusCode::UNAUTHORIZED, "this is for the identity provider");
    }
    match active(&body) {
        Ok(active) => set(&desk, &name, active).await,
        Err(()) => error(StatusCode::BAD_REQUEST, "what is said of active is not understood"),
    }
}

/// `DELETE /scim/v2/Users/{id}`: they are gone at the provider, and so deactivated here.
pub(crate) async fn delete(State(desk): At, headers: HeaderMap, Path(name): Path<String>) -> Response {
    if !is_provider(&desk, &headers) {
        return error(StatusCode::UNAUTHORIZED, "this is for the identity provider");
    }
    let done = set(&desk, &name, Some(false)).await;
    if done.status() == StatusCode::OK { StatusCode::NO_CONTENT.into_response() } else { done }
}

async fn set(desk: &Desk, name: &str, active: Option<bool>) -> Response {
    let Some(now) = user(desk, name) else {
        return error(StatusCode::NOT_FOUND, "the registry has nobody of this name");
    };
    // Another gateway may have them back: that somebody is deactivated is said again.
    let Some(active) = active.filter(|active| !active || now["active"] == false) else {
        return scim(StatusCode::OK, &now);
    };
    if !active {
        desk.sessions.close_all(name);
    }
    match desk.gateway.set_active(name, active, "the identity provider").await {
        Ok(()) => scim(StatusCode::OK, &user(desk, name).unwrap_or_default()),
        Err(refusal) => error(StatusCode::SERVICE_UNAVAILABLE, &refusal.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_in_which_providers_say_it_is_understood() {
        let patch = |operation: Value| active(&json!({ "Operations": [operation] }));
        let urn = "urn:ietf:params:scim:schemas:core:2.0:User:active";
        assert_eq!(active(&json!({ "active": false })), Ok(Some(false)));
        assert_eq!(active(&json!({ "Active": "False" })), Ok(Some(false)));
        assert_eq!(patch(json!({ "op": "replace", "path": "active", "value": false })), Ok(Some(false)));
        assert_eq!(patch(json!({ "op": "replace", "path": urn, "value": false })), Ok(Some(false)));
        assert_eq!(patch(json!({ "op": "replace", "value": { urn: false } })), Ok(Some(false)));
        assert_eq!(patch(json!({ "op": "Replace", "path": "active", "value": "False" })), Ok(Some(false)));
        assert_eq!(patch(json!({ "op": "replace", "value": { "active": true } })), Ok(Some(true)));
        assert_eq!(patch(json!({ "op": "replace", "path": "displayName", "value": "x" })), Ok(None));
        assert_eq!(active(&json!({})), Ok(None));
        // What is said and not understood is not answered as if it were done.
        assert_eq!(patch(json!({ "op": "remove", "path": "active" })), Err(()));
        assert_eq!(patch(json!({ "op": "replace", "path": "active", "value": "no" })), Err(()));
        assert_eq!(active(&json!({ "active": null })), Err(()));
        let both = json!({ "Operations": [{ "op": "replace", "path": "active", "value": true }, { "op": "replace", "path": "active", "value": false }] });
        assert_eq!(active(&both), Ok(Some(false)), "the last one counts");
    }
}
