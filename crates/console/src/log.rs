//! Reading the gateway's own log for people and programs. The public half is for everybody who is logged in; the private record for
//! those who approve or audit the jurisdiction that it is about.

use std::sync::Arc;

use axum::http::StatusCode;
use ringfence_verifier::checkpoint::{Head, read_head};
use ringfence_verifier::record::Leaf;
use ringfence_verifier::{Error, proof};
use serde_json::Value;

use crate::member::Member;
use crate::pages::Told;
use crate::traffic::bundle;
use crate::{Desk, readers};

/// An entry, as far as somebody may see it.
pub(crate) struct Line {
    pub(crate) index: u64,
    pub(crate) leaf: Leaf,
    pub(crate) record: Option<Value>,
}

fn broken(problem: &impl std::fmt::Display) -> Told {
    Told::new(StatusCode::SERVICE_UNAVAILABLE, format!("The log cannot be read: {problem}"))
}

/// Whether somebody may read the private records of a jurisdiction: who approves or audits one of its stores, in the country.
pub(crate) fn may_read(desk: &Desk, person: &Member, jurisdiction: &str) -> bool {
    let policy = desk.gateway.policy();
    // What is about no data (rules, starts, heartbeats) is for those who read anything.
    policy.stores().any(|(store, _)| {
        (store.jurisdiction == jurisdiction || jurisdiction == "-")
            && policy.reads_records(&person.principal, store)
    })
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Told> + Send + 'static,
) -> Result<T, Told> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(Told::new(StatusCode::SERVICE_UNAVAILABLE, "The log cannot be read at the moment."))
    })
}

/// The newest head that the log has signed.
pub(crate) async fn head(desk: &Desk) -> Result<Head, Told> {
    let (dir, vkey) = (desk.gateway.ledger.dir().to_owned(), desk.gateway.ledger.vkey().to_owned());
    let read = move || read_head(&dir, &vkey).map_err(|e| broken(&e));
    let head = off_the_runtime(read).await?;
    head.ok_or_else(|| Told::new(StatusCode::SERVICE_UNAVAILABLE, "The log has no checkpoint yet."))
}

/// The entries of these numbers, with the records that this person may read.
pub(crate) async fn lines(desk: &Desk, person: &Member, indices: Vec<u64>) -> Result<Vec<Line>, Told> {
    let size = head(desk).await?.size;
    let (dir, index_of) = (desk.gateway.ledger.dir().to_owned(), Arc::clone(&desk.entries));
    let policy = desk.gateway.policy();
    let readable: Vec<String> = policy
        .registry()
        .jurisdictions
        .keys()
        .map(String::as_str)
        .chain(["-"])
        .filter(|j| may_read(desk, person, j))
        .map(str::to_owned)
        .collect();
    let found = off_the_runtime(move || {
        let mut known: Option<(u64, Vec<Leaf>)> = None;
        let mut found = Vec::new();
        for index in indices.into_iter().filter(|index| *index < size) {
            let n = index / 256;
            if known.as_ref().is_none_or(|(have, _)| *have != n) {
                known = Some((n, bundle(&dir, n, size).map_err(|e| broken(&e))?));
            }
            let place = usize::try_from(index % 256).unwrap_or(0);
            let Some(leaf) = known.as_ref().and_then(|(_, leaves)| leaves.get(place)).cloned() else {
                continue;
            };
            found.push(Line { index, leaf, record: None });
        }
        let open = |line: &&mut Line| readable.contains(&line.leaf.jurisdiction);
        let wanted: Vec<u64> = found.iter_mut().filter(open).map(|line| line.index).collect();
        let sealed = index_of.entries(&wanted).map_err(|e| broken(&e))?;
        for (line, sealed) in found.iter_mut().filter(open).zip(sealed) {
            // The record of the leaf that the tree has, and of no other.
            let sealed =
                sealed.filter(|s| s.parse_leaf().is_ok_and(|l| l.commitment == line.leaf.commitment));
            line.record = sealed.and_then(|s| serde_json::from_slice(s.record()?).ok());
        }
        Ok(found)
    })
    .await?;
    readers::on_record(desk, person, &found).await?;
    Ok(found)
}

/// One entry.
pub(crate) async fn one(desk: &Desk, person: &Member, entry: u64) -> Result<Line, Told> {
    let found = lines(desk, person, vec![entry]).await?.pop();
    found.ok_or_else(|| {
        Told::new(StatusCode::NOT_FOUND, "The log has no such entry under its newest checkpoint.")
    })
}

/// The proof of an entry as a file (C2SP tlog-proof); with its private record, where somebody has judged that it may be shown.
pub(crate) async fn proof(desk: &Desk, entry: u64, disclosed: bool) -> Result<String, Told> {
    let (dir, vkey) = (desk.gateway.ledger.dir().to_owned(), desk.gateway.ledger.vkey().to_owned());
    off_the_runtime(move || {
        proof::prove(&dir, &vkey, entry, disclosed).map_err(|e| match e {
            Error::NoSuchEntry { .. } => no_such(),
            other => broken(&other),
        })
    })
    .await
}

fn no_such() -> Told {
    Told::new(StatusCode::NOT_FOUND, "The log has no such entry under its newest checkpoint.")
}
