//! A new passkey: the browser makes it, and this says the line that the registry needs. Whoever keeps the registry adds it, which is
//! on record as a change of the rules; nobody enrols themselves.

use axum::extract::{Json, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maud::html;
use serde::Deserialize;
use ssh_key::public::{KeyData, SkEcdsaSha2NistP256};
use ssh_key::{HashAlg, PublicKey};

use super::{At, Page, Person, Told, page};

/// SubjectPublicKeyInfo (RFC 5480) of an uncompressed point of P-256, up to the point.
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// `GET /passkey`
pub(crate) async fn show(State(desk): At, person: Person) -> Page {
    let policy = desk.gateway.policy();
    let is_signed = policy.registry().enrolment.is_some() && policy.is_approver(&person.principal);
    let keys: Vec<&str> = person
        .principal
        .key
        .as_deref()
        .unwrap_or_default()
        .lines()
        .filter(|l| !l.trim().is_empty())
        .collect();
    let body = html! {
        h1 { "Your passkey" }
        p { "An approval is signed by a key that only you have: a passkey of your phone, your computer or a security key, or an SSH key on the command line." }
        @if keys.is_empty() { p.warn { "The registry has no key of yours yet, so you cannot approve." } }
        @else { p { "The registry knows " (keys.len()) " of yours:" } ul { @for key in &keys { li { code { (short(key)) } } } } }
        section aria-labelledby="new" {
            h2 id="new" { "A new one" }
            p { "Your device makes it now, and the line that shows is its public half. " @if is_signed {
                "Other approvers sign that it is yours; whoever keeps the registry adds it then, and the ledger says all of it."
            } @else {
                "Give it to whoever keeps the registry: they add it to your " code { "key" } ", and the ledger says that they did."
            } }
            button type="button" data-enrol="/passkey" data-name=(person.principal.name) data-relying-party=(desk.config.relying_party())
                data-token=(person.session.csrf) { "Make a passkey" }
            p.told role="status" {}
            @if is_signed { (super::enrolments::form(&person)) }
            @else {
                label for="line" { "The line for the registry" }
                textarea id="line" rows="4" readonly {}
            }
        }
    };
    page("Passkey", Some(&person), &body)
}

/// A key by its kind and its fingerprint, as `ssh-keygen -l` shows it.
pub(super) fn short(line: &str) -> String {
    match PublicKey::from_openssh(line.trim()) {
        Ok(key) => format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256)),
        Err(_) => "a line that is no key".to_owned(),
    }
}

/// What the browser's new credential has.
#[derive(Deserialize)]
pub(crate) struct Made {
    token: String,
    /// SubjectPublicKeyInfo, in base64url.
    spki: String,
}

/// `POST /passkey`: the line. It changes nothing here.
pub(crate) async fn line(
    State(desk): At,
    person: Person,
    headers: HeaderMap,
    Json(made): Json<Made>,
) -> Response {
    if let Err(told) = person.must_be_ours(&desk, &headers, &made.token) {
        return told.plain();
    }
    let wrong = || {
        Told::new(StatusCode::CONFLICT, "This authenticator makes another kind of key than ES256 (P-256).")
            .plain()
    };
    let Ok(spki) = URL_SAFE_NO_PAD.decode(&made.spki) else { return wrong() };
    let Some(point) = spki.strip_prefix(&SPKI_P256).and_then(|p| <&[u8; 65]>::try_from(p).ok()) else {
        return wrong();
    };
    let Ok(point) = ssh_key::sec1::point::EncodedPoint::from_bytes(point) else { return wrong() };
    let data = KeyData::SkEcdsaSha2NistP256(SkEcdsaSha2NistP256::new(point, desk.config.relying_party()));
    match PublicKey::new(data, person.principal.name.clone()).to_openssh() {
        Ok(line) => line.into_response(),
        Err(_) => wrong(),
    }
}
