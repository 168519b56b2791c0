//! Takes private records out of a log, where the law says so. What stays is the leaf with its commitment, and an entry that
//! says what was erased, why and by whom: the verifier tells this from a record that is missing.
//!
//! Order on disk: the entry is durable before the first record goes. A crash in between leaves an entry about records that are
//! still there; to erase them again finishes it. Nobody writes the log meanwhile: this takes its lock.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use ringfence_verifier::Error;
use ringfence_verifier::record::{ErasedRecord, HoldRecord, Kind};
use ringfence_verifier::segment::{self, Records, SALT, Segment};

use crate::entry::{Entry, now_ms};
use crate::whole::sync_dir;
use crate::writer::{Ledger, Settings};

/// How long private records are kept, in milliseconds: ten years (28 CFR 202.1101).
pub const RETENTION_MS: u64 = 3653 * 24 * 3600 * 1000;

/// What to erase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// These entries, on the order of a court or a subject.
    Entries(Vec<u64>),
    /// All that may go and is older than this, in milliseconds since 1970.
    Before(u64),
}

/// Why nothing was erased.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A legal hold stands.
    #[error("a legal hold stands since entry {entry} ({reason}): nothing is erased until it is released")]
    Held {
        /// The entry that placed it.
        entry: u64,
        /// Why.
        reason: String,
    },
    /// Too young.
    #[error(
        "private records are kept for ten years (28 CFR 202.1101): only what is older than that goes by age"
    )]
    TooYoung,
    /// This entry cannot go.
    #[error("the record of entry {index} cannot be erased: {why}")]
    NotErasable {
        /// Which.
        index: u64,
        /// Why.
        why: String,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] Error),
    /// The entry about it cannot be written.
    #[error(transparent)]
    Unavailable(#[from] crate::Unavailable),
}

/// Erases, and returns how many records went. `settings` are those of the gateway, which must not run.
pub fn erase(settings: &Settings, what: &What, reason: &str, by: &str) -> Result<u64, Refused> {
    if let What::Before(time) = what
        && *time > now_ms().saturating_sub(RETENTION_MS)
    {
        return Err(Refused::TooYoung);
    }
    let ledger = Ledger::open(settings)?;
    let runs = choose(&settings.dir, what)?;
    let count = runs.iter().map(|(from, until)| until - from).sum();
    if count == 0 {
        return Ok(0);
    }
    let record = ErasedRecord { entries: runs.clone(), reason: reason.to_owned(), by: by.to_owned() };
    ledger.append(Entry::new(Kind::Erased, "-", &record)).wait()?;
    for segment in segment::list(&settings.dir)? {
        rewrite(&segment, &runs)?;
    }
    Ok(count)
}

/// Places or releases a legal hold.
pub fn hold(settings: &Settings, stands: bool, reason: &str, by: &str) -> Result<u64, Refused> {
    let ledger = Ledger::open(settings)?;
    let record = HoldRecord { stands, reason: reason.to_owned(), by: by.to_owned() };
    Ok(ledger.append(Entry::new(Kind::LegalHold, "-", &record)).wait()?)
}

/// The runs of entries to erase: from, and until (exclusive).
fn choose(dir: &Path, what: &What) -> Result<Vec<(u64, u64)>, Refused> {
    let Some(mut records) = Records::open(dir)? else { return Ok(Vec::new()) };
    let (mut runs, mut held, mut problems): (Vec<(u64, u64)>, _, _) = (Vec::new(), None, Vec::new());
    let mut wanted: Vec<u64> = if let What::Entries(wanted) = what { wanted.clone() } else { Vec::new() };
    wanted.sort_unstable();
    wanted.dedup();
    loop {
        let index = records.index();
        let Some(entry) = records.next(&mut problems) else { break };
        let leaf = entry.parse_leaf().map_err(|e| Error::corrupt(dir, format!("entry {index}: {e}")))?;
        if leaf.kind == Kind::LegalHold {
            let record: HoldRecord = serde_json::from_slice(&entry.record)
                .map_err(|_| Error::corrupt(dir, format!("entry {index}: is no legal hold")))?;
            held = record.stands.then_some((index, record.reason));
        }
        let may_go = leaf.kind.is_erasable();
        let goes = match what {
            What::Before(time) => may_go && leaf.time < *time && !entry.is_erased(),
            What::Entries(_) if wanted.binary_search(&index).is_ok() => {
                if !may_go {
                    let why = "the log cannot be verified without it";
                    return Err(Refused::NotErasable { index, why: why.to_owned() });
                }
                true
            }
            What::Entries(_) => false,
        };
        if goes {
            match runs.last_mut() {
                Some((_, until)) if *until == index => *until += 1,
                _ => runs.push((index, index + 1)),
            }
        }
    }
    if let Some(problem) = problems.pop() {
        return Err(Error::corrupt(dir, problem).into());
    }
    if let Some(index) = wanted.last().filter(|last| **last >= records.index()) {
        return Err(Refused::NotErasable { index: *index, why: "the log has no such entry".to_owned() });
    }
    match held {
        Some((entry, reason)) => Err(Refused::Held { entry, reason }),
        None => Ok(runs),
    }
}

/// Writes a segment anew without these records, whole or not at all. The old file's bytes are overwritten first: a file system
/// that keeps no copies of its own has them no more.
fn rewrite(segment: &Segment, runs: &[(u64, u64)]) -> Result<(), Error> {
    let contents = segment::read(segment)?;
    let is_chosen = |index: u64| runs.iter().any(|(from, until)| *from <= index && index < *until);
    let (mut bytes, mut is_changed) = (Vec::new(), false);
    for (index, entry) in (segment.first..).zip(&contents.entries) {
        if is_chosen(index) && !entry.is_erased() {
            is_changed = true;
            segment::encode(&entry.leaf, &[0; SALT], &[], &mut bytes)?;
        } else {
            segment::encode(&entry.leaf, &entry.salt, &entry.record, &mut bytes)?;
        }
    }
    if !is_changed {
        return Ok(());
    }
    let new = segment.path.with_extension(UNFINISHED);
    write(&new, &bytes)?;
    let old = fs::OpenOptions::new().write(true).open(&segment.path);
    let old = old.map_err(Error::io("cannot open", &segment.path))?;
    fs::rename(&new, &segment.path).map_err(Error::io("cannot replace", &segment.path))?;
    sync_dir(&segment.path)?;
    // The old file has no name any more, and its bytes are still there.
    let length = old.metadata().map_err(Error::io("cannot read", &segment.path))?.len();
    let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
    (&old)
        .write_all(&zeros)
        .and_then(|()| old.sync_all())
        .map_err(Error::io("cannot overwrite", &segment.path))
}

/// How the names of segments end that a crash left half written.
const UNFINISHED: &str = "erasing";

/// Removes what a crash in the middle of an erasure left.
pub(crate) fn clean_up(root: &Path) {
    for path in fs::read_dir(root.join("private")).into_iter().flatten().flatten().map(|e| e.path()) {
        if path.extension().is_some_and(|e| e == UNFINISHED) {
            let _ = fs::remove_file(path);
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let mut file = file.map_err(Error::io("cannot open", path))?;
    file.write_all(bytes).map_err(Error::io("cannot write", path))?;
    file.set_len(bytes.len() as u64).map_err(Error::io("cannot cut", path))?;
    file.sync_all().map_err(Error::io("cannot sync", path))
}
