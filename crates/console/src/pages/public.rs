//! What everybody may see without logging in: the log's signed head, its public half, who confirms it, the reports that were published,
//! and the verifier. There is no figure here that is not in a published report: numbers that change by one give somebody away.

use std::path::{Component, Path as FilePath, PathBuf};

use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::html;
use ringfence_verifier::checkpoint::{CHECKPOINT, WITNESSED};
use ringfence_verifier::tiles::parse_path;

use super::{At, Page, Told, page};
use crate::Desk;

/// `GET /transparency`
pub(crate) async fn show(State(desk): At) -> Page {
    let policy = desk.gateway.policy();
    let about: Vec<String> = policy.registry().jurisdictions.keys().cloned().collect();
    let published = desk.config.published.clone();
    let reports = tokio::task::spawn_blocking(move || published.map(|dir| reports(&dir)).unwrap_or_default());
    let reports = reports.await.unwrap_or_default();
    let witnesses = desk.gateway.ledger.witnesses();
    let body = html! {
        h1 { "Transparency" }
        p { "This gateway keeps user data of " (about.join(", ")) " in its country. Whoever reads it from elsewhere sees masked data unless the in-country security team has signed a grant, and each such read is an entry of a log that can only grow. You need not believe us: everything on this page can be checked without us." }
        (super::orders::standing(&desk))
        section aria-labelledby="reports" {
            h2 id="reports" { "Reports" }
            @if reports.is_empty() { p.empty { "None has been published yet." } }
            @else { ul.plain { @for name in &reports { li { a href={ "/reports/" (name) } { (name) } } } } }
        }
        section aria-labelledby="log" {
            h2 id="log" { "The log" }
            p { "Its public half names no person: kind, time, jurisdiction, country, counts, and a commitment to the rest. It is laid out as C2SP says (tlog-tiles): "
                a href="/log/checkpoint" { "checkpoint" } ", " a href="/log/witnessed" { "the checkpoint with its witnesses' cosignatures" } ", and tiles under " code { "/log/tile/" } "." }
            p { "Its key:" }
            pre { (desk.gateway.ledger.vkey().trim()) }
            @if !witnesses.is_empty() {
                p { "These witnesses confirm that it only grows:" }
                ul.plain { @for one in &witnesses { li { (one.name) " " span.soft { (one.url) } } } }
                p.soft { "Have their keys from themselves, not from us." }
            }
        }
        section aria-labelledby="verify" {
            h2 id="verify" { "Check it yourself" }
            @if desk.config.verifier_page.is_some() {
                p { a href="/verify" { "The verifier, in this browser" } ": it checks a proof, a bundle or a log that you choose, and has no way to send it anywhere. Better still, have it from somebody whom you trust." }
            }
            p { @if desk.config.verifier_page.is_some() { "Or with " } @else { "With " } code { "ringfence-verify" } ", a small program that needs the files and the keys, and nothing else." }
        }
    };
    page("Transparency", None, &body)
}

/// The published files: those that a browser shows, by name.
fn reports(dir: &FilePath) -> Vec<String> {
    let names = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| kind_of(name).is_some() && !name.starts_with('.')).collect();
    names.sort_unstable();
    names.reverse();
    names
}

fn kind_of(name: &str) -> Option<&'static str> {
    match FilePath::new(name).extension()?.to_str()? {
        "html" => Some("text/html; charset=utf-8"),
        "pdf" => Some("application/pdf"),
        "json" => Some("application/json"),
        _ => None,
    }
}

fn not_here() -> Told {
    Told::new(StatusCode::NOT_FOUND, "There is no such file.")
}

async fn file(path: PathBuf) -> Result<Vec<u8>, Told> {
    tokio::task::spawn_blocking(move || std::fs::read(path))
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(not_here)
}

/// `GET /reports/{name}`: a published report, in a sandbox: its style is its own, and it can do nothing.
pub(crate) async fn report(State(desk): At, Path(name): Path<String>) -> Result<Response, Told> {
    let dir = desk.config.published.clone().ok_or_else(not_here)?;
    let is_name = FilePath::new(&name).components().all(|c| matches!(c, Component::Normal(_)))
        && !name.starts_with('.')
        && !name.contains('/');
    let kind = kind_of(&name).filter(|_| is_name).ok_or_else(not_here)?;
    let bytes = file(dir.join(&name)).await?;
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox";
    Ok(([(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, policy)], bytes).into_response())
}

/// `GET /log/…`: the public half, byte for byte. The private half has no such path.
pub(crate) async fn log(State(desk): At, Path(path): Path<String>) -> Result<Response, Told> {
    let is_public = path == CHECKPOINT || path == WITNESSED || parse_path(&path).is_some();
    if !is_public {
        return Err(not_here());
    }
    let bytes = file(desk.gateway.ledger.dir().join(&path)).await?;
    let is_head = !path.starts_with("tile/");
    let kind = if is_head { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    let keep =
        if is_head || path.contains(".p/") { "no-store" } else { "public, max-age=31536000, immutable" };
    let for_all = (HeaderName::from_static("access-control-allow-origin"), HeaderValue::from_static("*"));
    let shared =
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin"));
    let mut answer = ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, keep)], bytes).into_response();
    answer.headers_mut().extend([for_all, shared]);
    Ok(answer)
}

/// `GET /verify`: the verifier's page, in a sandbox without our origin: it has no cookie and no way back here.
pub(crate) async fn verify(State(desk): At) -> Result<Response, Told> {
    let bytes = file(desk.config.verifier_page.clone().ok_or_else(not_here)?).await?;
    let policy = "sandbox allow-scripts allow-forms allow-downloads; frame-ancestors 'none'";
    Ok((
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)],
        bytes,
    )
        .into_response())
}

/// Whether a file can be read, for the start.
pub(crate) fn check(desk: &Desk) -> std::io::Result<()> {
    for path in [&desk.config.published, &desk.config.verifier_page].into_iter().flatten() {
        std::fs::metadata(path)?;
    }
    Ok(())
}
