//! What `ringfence login` needs: where to log in, and a certificate for who did.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::Body;
use super::{Caller, Problem};
use crate::Desk;
use crate::issue;

type At = State<Arc<Desk>>;

/// Where to log in, and where the gateway is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// The identity provider.
    pub issuer: String,
    /// What it calls the command line.
    pub client_id: String,
    /// The gateway's host, as clients reach it.
    pub host: String,
    /// And its port.
    pub port: u16,
    /// The certificates to trust there (PEM), where they are not the system's.
    pub root: Option<String>,
    /// The names of stores, each a service for psql.
    pub stores: Vec<String>,
}

/// Where to log in. Anybody may know.
#[utoipa::path(get, path = "/api/v1/login", tag = "login", security(()), responses((status = 200, body = Place), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn place(State(desk): At) -> Result<Json<Place>, Problem> {
    let config = &desk.config;
    let none = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            "This gateway gives no certificates: its configuration has no [console.login].",
        )
    };
    let (login, client_id) =
        config.login.as_ref().zip(config.provider.cli_client_id.clone()).ok_or_else(none)?;
    let mut stores: Vec<String> =
        desk.gateway.policy().stores().map(|(store, _)| store.name.clone()).collect();
    stores.extend(desk.gateway.routes.keys().cloned());
    stores.sort();
    Ok(Json(Place {
        issuer: config.provider.issuer.clone(),
        client_id,
        host: login.host.clone(),
        port: login.port,
        root: login.root.clone(),
        stores,
    }))
}

/// A request for a certificate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// PKCS #10 in PEM. Only its key counts.
    request: String,
}

/// A certificate.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Given {
    /// The name in it.
    name: String,
    /// It, and the authority's (PEM).
    certificate: String,
    /// When it ends (RFC 3339).
    expires: String,
}

/// A client certificate for the caller, good at the gateway until it expires or the provider signs them out.
#[utoipa::path(post, path = "/api/v1/certificates", tag = "login", request_body = Wanted, responses((status = 201, body = Given), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn certificate(
    State(desk): At,
    Caller(member): Caller,
    Body(wanted): Body<Wanted>,
) -> Result<(StatusCode, Json<Given>), Problem> {
    let login = desk.config.login.as_ref();
    let login =
        login.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "This gateway gives no certificates."))?;
    let name = member.principal.name;
    let people = &desk.gateway.people;
    // A certificate says whole seconds. One of the second in which somebody was signed out would not count: wait for the next.
    let now = loop {
        // Their login must still count: it is older than a sign-out that came while the request did.
        let judged = people.judge(&name, Some(member.since));
        judged.map_err(|cut| Problem::new(StatusCode::FORBIDDEN, format!("{}.", cut.refusal().message)))?;
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() * 1000;
        if people.judge(&name, Some(second)).is_ok() {
            break now;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    let issued = login.authority.issue(&name, &wanted.request, now).map_err(|problem| match problem {
        issue::Problem::Request => Problem::new(StatusCode::BAD_REQUEST, format!("{problem}.")),
        issue::Problem::Authority(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The certificate cannot be signed.")
        }
    })?;
    let expires = ringfence_grants::request::rfc3339(issued.expires * 1000);
    Ok((StatusCode::CREATED, Json(Given { name, certificate: issued.chain, expires })))
}
