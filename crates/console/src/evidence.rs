//! Evidence for somebody else, from a page: what `ringfence audit bundle` makes, packed into one file. Who takes it may read the private
//! records that it has, and that they took it is on record before it is made.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::StatusCode;
use ringfence_reports::bundle::{self, Source};
use ringfence_reports::index;
use ringfence_verifier::bundle::check;
use ringfence_verifier::question::Question;
use ringfence_verifier::quorum::Quorum;
use serde_json::json;

use crate::log::may_read;
use crate::member::Member;
use crate::pages::Told;
use crate::{Desk, readers};

/// The largest bundle that a page gives, in bytes.
const LARGEST: u64 = 256 << 20;

fn away(problem: &impl std::fmt::Display) -> Told {
    Told::new(StatusCode::SERVICE_UNAVAILABLE, format!("The evidence cannot be made: {problem}"))
}

/// A folder that is gone when nobody needs it any more: it has private records.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes the evidence: a tar file. One at a time: each reads much of the log.
pub(crate) async fn make(
    desk: &Arc<Desk>,
    person: &Member,
    question: Question,
    complete: bool,
) -> Result<Vec<u8>, Told> {
    let jurisdiction = question.jurisdiction.clone().unwrap_or_default();
    if !may_read(desk, person, &jurisdiction) {
        let why =
            "The records of this jurisdiction are for those who approve or audit its stores, in the country.";
        return Err(Told::new(StatusCode::FORBIDDEN, why));
    }
    // It goes on, and is held, though whoever asked should not wait for it.
    let one = Arc::clone(&desk.evidence).try_lock_owned().map_err(|_| {
        Told::new(StatusCode::CONFLICT, "Somebody else's evidence is being made: try again soon.")
    })?;
    let record = json!({ "by": person.principal.name, "entries": "as evidence", "question": question });
    readers::record(desk, &jurisdiction, &record).await?;
    let desk = Arc::clone(desk);
    let made = tokio::task::spawn_blocking(move || {
        let made = pack(&desk, &question, complete);
        drop(one);
        made
    })
    .await;
    made.unwrap_or_else(|_| Err(away(&"it failed half way")))
}

fn pack(desk: &Desk, question: &Question, complete: bool) -> Result<Vec<u8>, Told> {
    let log = desk.gateway.ledger.dir();
    let beside = |what: &str| {
        let name = log.file_name().unwrap_or_default().to_string_lossy();
        log.with_file_name(format!("{name}.{what}"))
    };
    let source = Source { index: beside("console-index"), vkeys: desk.gateway.ledger.vkey().to_owned() };
    index::update(&source.index, log, &source.vkeys, |_| {}).map_err(|e| away(&e))?;
    let scratch = Scratch(beside("console-evidence"));
    let _ = fs::remove_dir_all(&scratch.0); // of one that was killed
    fs::DirBuilder::new().mode(0o700).create(&scratch.0).map_err(|e| away(&e))?;
    let out = scratch.0.join("evidence");
    let sources = [source];
    let trust = desk.config.trust.clone().unwrap_or_else(|| bundle::keys_only(&sources));
    let quorum = Quorum::parse(&trust).map_err(|e| away(&e))?;
    let now = ringfence_ledger::now_ms();
    let written = bundle::write(&out, &sources, question, complete, &trust, now).map_err(|e| away(&e))?;
    // What does not convince us will convince nobody.
    if let Some(problem) = check(&out, Some(&quorum)).problems.first() {
        return Err(away(&format!("it does not verify: {problem}")));
    }
    if written.bytes > LARGEST {
        let much = "It is more than a page gives: ask for less, or use ringfence audit bundle on the gateway's machine.";
        return Err(Told::new(StatusCode::PAYLOAD_TOO_LARGE, much));
    }
    archive(&out).map_err(|e| away(&e))
}

/// The folder as a tar file, under its own name.
fn archive(folder: &Path) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.mode(tar::HeaderMode::Deterministic);
    tar.append_dir_all("evidence", folder)?;
    tar.into_inner()
}
