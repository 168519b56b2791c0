//! The ledger's private records, as an auditor inside the country reads them.

use std::path::Path;
use std::time::{Duration, Instant};

use ringfence_verifier::record::{Kind, Leaf};
use ringfence_verifier::segment::Records;
use serde_json::Value;

/// All entries of a log from an index on.
pub fn entries(dir: &Path, from: u64) -> Vec<(u64, Leaf, Value)> {
    let mut found = Vec::new();
    let Some(mut records) = Records::open_at(dir, from).unwrap() else { return found };
    let mut problems = Vec::new();
    loop {
        let index = records.index();
        let Some(entry) = records.next(&mut problems) else { break };
        if index >= from {
            let leaf = entry.parse_leaf().unwrap();
            found.push((index, leaf, serde_json::from_slice(&entry.record).unwrap_or(Value::Null)));
        }
    }
    found
}

/// How many entries a log has, but for those of the last moment.
pub fn size(dir: &Path) -> u64 {
    let vkey = std::fs::read_to_string(dir.with_file_name(match dir.file_name().and_then(|n| n.to_str()) {
        Some("ledger") | None => "keys/ledger.vkey".to_owned(),
        Some(name) => format!("{}/ledger.vkey", name.replace("ledger-", "keys-")),
    }));
    let published = ringfence_verifier::checkpoint::read_head(dir, vkey.unwrap().trim()).unwrap();
    let from = published.map_or(0, |head| head.size);
    entries(dir, from).last().map_or(from, |(index, ..)| index + 1)
}

/// The records of one kind of a log, from an index on.
pub fn records(dir: &Path, from: u64, kind: Kind) -> Vec<Value> {
    entries(dir, from).into_iter().filter(|(_, leaf, _)| leaf.kind == kind).map(|(.., r)| r).collect()
}

/// The same once there are at least so many: what nobody waits for comes a moment later.
pub fn wait_for(dir: &Path, from: u64, kind: Kind, count: usize) -> Vec<Value> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let found = records(dir, from, kind);
        if found.len() >= count || Instant::now() > until {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
