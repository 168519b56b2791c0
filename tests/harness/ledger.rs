//! The ledger's private records, as an auditor inside the country reads them.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringfence_verifier::record::{Kind, Leaf};
use ringfence_verifier::segment::{self, Records, Segment};
use serde_json::Value;

/// An entry with its index and its private record.
pub type Entry = (u64, Leaf, Value);

/// Reads a log while it grows, each entry once.
pub struct Tail {
    dir: PathBuf,
    /// The segment that is read, once there is one, and up to where.
    segment: Option<Segment>,
    offset: u64,
    next: u64,
}

impl Tail {
    /// Of what comes from now on.
    pub fn at_end(dir: &Path) -> Self {
        let mut tail = Self { dir: dir.to_owned(), segment: None, offset: 0, next: 0 };
        tail.read();
        tail
    }

    /// The entries that are new.
    pub fn read(&mut self) -> Vec<Entry> {
        let mut found = Vec::new();
        let segments = segment::list(&self.dir).unwrap();
        loop {
            self.read_segment(&mut found);
            let is_read = |s: &&Segment| self.segment.as_ref().is_none_or(|read| s.first > read.first);
            let Some(following) = segments.iter().find(is_read).filter(|s| s.first == self.next) else {
                return found;
            };
            self.segment = Some(following.clone());
            self.offset = 0;
        }
    }

    fn read_segment(&mut self, found: &mut Vec<Entry>) {
        let Some(segment) = &self.segment else { return };
        let mut file = std::fs::File::open(&segment.path).unwrap();
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let mut rest = bytes.as_slice();
        while let Some((entry, taken)) = segment::decode(rest) {
            let record = serde_json::from_slice(&entry.record).unwrap_or(Value::Null);
            found.push((self.next, entry.parse_leaf().unwrap(), record));
            self.next += 1;
            self.offset += taken as u64;
            rest = &rest[taken..];
        }
    }
}

/// All entries of a log from an index on.
pub fn entries(dir: &Path, from: u64) -> Vec<Entry> {
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
