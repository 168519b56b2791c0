//! A tally from a log: what the ledger says was reached.

use std::path::Path;

use ringfence_verifier::Error;
use ringfence_verifier::record::{Kind, Leaf, Sealed};
use ringfence_verifier::segment::{self, Records};

use crate::record::Reached;
use crate::tally::Tally;
use crate::window::{DAYS, day};

/// How far a log has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries read.
    pub entries: u64,
}

/// The first entry of the last segment that begins before the window of `now_ms`: what is older cannot count.
fn beginning(log: &Path, now_ms: u64) -> Result<u64, Error> {
    let first_day = day(now_ms).saturating_sub(DAYS + 1);
    let segments = segment::list(log)?;
    let begins_before = |segment: &segment::Segment| -> Result<bool, Error> {
        let first = segment::first(segment)?.and_then(|entry| entry.parse_leaf().ok());
        Ok(first.is_some_and(|leaf| day(leaf.time) < first_day))
    };
    let (mut low, mut high) = (0, segments.len());
    while low < high {
        let middle = low.midpoint(high);
        if begins_before(&segments[middle])? { low = middle + 1 } else { high = middle }
    }
    Ok(segments.get(low.saturating_sub(1)).map_or(0, |s| s.first))
}

/// Gives what the entries of the log from `from` on say was reached to `each`, until `until` or else to its end; what is too old to
/// count at `now_ms` may be passed over. Returns how many entries it has read or passed over. `None` stands for an entry whose
/// record was erased. One that cannot be read is an error: what it said would be missing from the count.
pub fn read(
    log: &Path,
    from: u64,
    until: Option<u64>,
    now_ms: u64,
    mut each: impl FnMut(Option<(&Leaf, Reached<'_>)>),
    mut progress: impl FnMut(Progress),
) -> Result<u64, Error> {
    let from = from.max(beginning(log, now_ms)?);
    let Some(mut records) = Records::open_at(log, from)? else { return Ok(0) };
    let mut problems = Vec::new();
    loop {
        let index = records.index();
        if until.is_some_and(|until| index >= until) {
            return Ok(index);
        }
        let Some(entry) = records.next(&mut problems) else { break };
        if index >= from {
            look(log, index, &entry, &mut each)?;
        }
        if index > 0 && index.is_multiple_of(100_000) {
            progress(Progress { entries: index });
        }
    }
    match problems.pop() {
        Some(problem) => Err(Error::corrupt(log, problem)),
        None if until.is_some_and(|until| records.index() < until) => {
            Err(Error::corrupt(log, format!("the records from entry {} on are missing", records.index())))
        }
        None => Ok(records.index()),
    }
}

/// Counts it all.
pub fn count(
    tally: &mut Tally,
    log: &Path,
    until: Option<u64>,
    now_ms: u64,
    progress: impl FnMut(Progress),
) -> Result<u64, Error> {
    read(log, 0, until, now_ms, |found| tally.replay(found), progress)
}

fn look(
    log: &Path,
    index: u64,
    entry: &Sealed,
    each: &mut impl FnMut(Option<(&Leaf, Reached<'_>)>),
) -> Result<(), Error> {
    // Most entries are of other kinds, and their leaves need not be parsed to know it.
    if !entry.leaf.windows(MARK.len()).any(|part| part == MARK) {
        return Ok(());
    }
    let leaf = entry.parse_leaf().map_err(|e| Error::corrupt(log, format!("entry {index}: {e}")))?;
    if leaf.kind != Kind::Reached {
        return Ok(());
    }
    let Some(record) = entry.record() else {
        each(None);
        return Ok(());
    };
    let record: Reached<'_> = serde_json::from_slice(record)
        .map_err(|e| Error::corrupt(log, format!("entry {index}: its record cannot be read: {e}")))?;
    each(Some((&leaf, record)));
    Ok(())
}

/// How the kind looks in a leaf.
const MARK: &[u8] = b"\"reached\"";
