//! The verifier: needs the files and a public key, nothing else.
//!
//! It recomputes every tile from the entries, checks the signed root, every commitment and every frame, and that no file
//! lies in the log that it does not account for. What only a higher room can judge (the signature on an approval) is
//! handed to a [`Witness`].

use std::fs;
use std::path::Path;

use tlog_tiles::Hash;

use crate::checkpoint::{CHECKPOINT, Head, WITNESSED, Witnessed, read_head, read_witnessed};
use crate::quorum::Quorum;
use crate::record::{ErasedRecord, Kind, Leaf, Sealed};
use crate::segment::Records;
use crate::shelves::Shelves;
use crate::tally::{Gap, Tally};
use crate::tiles::{self, Shelf, Tree, WIDTH};

/// What the verifier found.
#[derive(Debug, Default, serde::Serialize)]
pub struct Report {
    /// Entries under the checkpoint.
    pub entries: u64,
    /// Entries that are durable and wait for a checkpoint.
    pub waiting: u64,
    /// Private records that were there and match their commitments.
    pub records: u64,
    /// Private records that were erased, with an entry that says so.
    pub erased: u64,
    /// The root hash, base64.
    pub root: String,
    /// What witnesses say, where they are asked about.
    pub witnessed: Option<Confirmation>,
    /// Times without an entry while the gateway was running: it was silent, or its clock jumped.
    pub gaps: Vec<Gap>,
    /// How many times the gateway began again without having stopped in order.
    pub crashes: u64,
    /// When the newest entry was made, in milliseconds since 1970.
    pub newest: u64,
    /// Everything that is wrong, in the order found. Empty means that the log verifies.
    pub problems: Vec<String>,
}

/// What witnesses say of a log.
#[derive(Debug, serde::Serialize)]
pub struct Confirmation {
    /// How many entries they have confirmed.
    pub size: u64,
    /// Which witness, and when.
    pub cosigned: Vec<crate::checkpoint::Cosigned>,
}

/// Sees every entry in order and says what is wrong with it beyond the log's own rules.
pub trait Witness {
    /// `record` is `None` where the private half is not there.
    fn entry(&mut self, index: u64, leaf: &Leaf, record: Option<&[u8]>) -> Result<(), String>;
}

/// Accepts every entry.
impl Witness for () {
    fn entry(&mut self, _: u64, _: &Leaf, _: Option<&[u8]>) -> Result<(), String> {
        Ok(())
    }
}

/// Verifies the log in `root`.
pub fn verify(root: &Path, vkey: &str) -> Report {
    verify_with(root, vkey, None, &mut ())
}

/// Verifies the log in `root`, with what the witnesses of `quorum` say of it, and shows each entry to `witness`.
pub fn verify_with(root: &Path, vkey: &str, quorum: Option<&Quorum>, witness: &mut impl Witness) -> Report {
    let mut report = Report::default();
    // Read before anything else: what witnesses confirmed is in all that is read later.
    let witnessed =
        quorum.map(|quorum| witnessed(root, vkey, quorum, &mut report.problems)).unwrap_or_default();
    let head = match read_head(root, vkey) {
        Ok(Some(head)) => head,
        Ok(None) => {
            report.problems.push(format!("{}: there is no checkpoint here", root.join(CHECKPOINT).display()));
            return report;
        }
        Err(e) => {
            report.problems.push(e.to_string());
            return report;
        }
    };
    report.entries = head.size;
    report.root = head.root.to_string();
    // The order makes a log that is being written verify: what comes later on disk is read later.
    let mut shelves = Shelves::list(root, head.size, &mut report.problems);
    let mut records = match Records::open(root) {
        Ok(records) => records,
        Err(e) => {
            report.problems.push(e.to_string());
            return report;
        }
    };
    let walked =
        Walk { root, head: &head, witnessed: witnessed.as_ref(), shelves: &mut shelves, report: &mut report }
            .walk(records.as_mut(), witness);
    if let Err(problem) = walked {
        report.problems.push(problem);
        return report;
    }
    if let Some(Witnessed { head, cosigned, .. }) = witnessed {
        report.witnessed = Some(Confirmation { size: head.size, cosigned });
    }
    shelves.conclude(records.is_some(), &mut report.problems);
    report
}

/// One pass over the entries, with only the right edge of the tree, one tile and one segment in memory.
struct Walk<'a> {
    root: &'a Path,
    head: &'a Head,
    witnessed: Option<&'a Witnessed>,
    shelves: &'a mut Shelves,
    report: &'a mut Report,
}

impl Walk<'_> {
    fn walk(mut self, mut records: Option<&mut Records>, witness: &mut impl Witness) -> Result<(), String> {
        let (mut tree, mut tally, mut time, mut full) = (Tree::default(), Tally::default(), 0, Vec::new());
        let mut erasures = Erasures::default();
        let (mut missing_from, mut root_at_witnessed) = (None, None);
        for bundle in 0..self.head.size.div_ceil(WIDTH as u64) {
            let (bytes, width) = self.bundle(bundle)?;
            let entries = tiles::split_bundle(&bytes).filter(|e| e.len() >= width);
            let entries = entries.ok_or_else(|| {
                format!("{}: is not a bundle of {width} entries", tiles::path(Shelf::Entries, bundle, width))
            })?;
            for leaf in entries.into_iter().take(width) {
                let index = tree.size();
                self.note_root(&tree, &mut root_at_witnessed);
                let record = records.as_mut().and_then(|r| r.next(&mut self.report.problems));
                if records.is_some() && record.is_none() && missing_from.is_none() {
                    missing_from = Some(index);
                }
                tree.push(leaf, &mut full).map_err(|e| e.to_string())?;
                erasures.note(index, record.as_ref());
                if let Err(problem) = self.entry(index, leaf, record.as_ref(), &mut tally, &mut time, witness)
                {
                    self.report.problems.push(format!("entry {index}: {problem}"));
                }
            }
            self.shelves.settle(&mut full, true, &mut self.report.problems);
        }
        if tree.root() != self.head.root {
            self.report
                .problems
                .push("the entries do not hash to the root that the checkpoint signs".to_owned());
        }
        if let Some(index) = missing_from {
            self.report.problems.push(format!("private/: the records from entry {index} on are missing"));
        }
        // What is durable and waits for a checkpoint: its tiles may be there already.
        while let Some(record) = records.as_mut().and_then(|r| r.next(&mut self.report.problems)) {
            self.note_root(&tree, &mut root_at_witnessed);
            erasures.note(tree.size(), Some(&record));
            tree.push(&record.leaf, &mut full).map_err(|e| e.to_string())?;
            self.shelves.settle(&mut full, false, &mut self.report.problems);
            self.report.waiting += 1;
        }
        self.note_root(&tree, &mut root_at_witnessed);
        let mut partial = tree.partial();
        self.shelves.settle(&mut partial, false, &mut self.report.problems);
        self.check_witnessed(&tree, root_at_witnessed);
        self.report.erased = erasures.conclude(&mut self.report.problems);
        self.report.newest = time;
        self.report.gaps = tally.gaps;
        self.report.crashes = tally.crashes;
        Ok(())
    }

    fn note_root(&self, tree: &Tree, at_witnessed: &mut Option<Hash>) {
        if self.witnessed.is_some_and(|w| w.head.size == tree.size()) {
            *at_witnessed = Some(tree.root());
        }
    }

    fn bundle(&self, n: u64) -> Result<(Vec<u8>, usize), String> {
        let left = self.head.size - n * WIDTH as u64;
        let width = usize::try_from(left).map_or(WIDTH, |left| left.min(WIDTH));
        let exact = tiles::path(Shelf::Entries, n, width);
        let full = tiles::path(Shelf::Entries, n, WIDTH);
        for name in [&exact, &full] {
            match fs::read(self.root.join(name)) {
                Ok(bytes) => return Ok((bytes, width)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(format!("{name}: cannot be read: {e}")),
            }
        }
        Err(format!("{exact}: is missing"))
    }

    /// What is wrong with one entry.
    fn entry(
        &mut self,
        index: u64,
        leaf: &[u8],
        record: Option<&Sealed>,
        tally: &mut Tally,
        time: &mut u64,
        witness: &mut impl Witness,
    ) -> Result<(), String> {
        if record.is_some_and(|r| r.leaf != leaf) {
            return Err("the journal's leaf is not the one in the tree".to_owned());
        }
        let parsed: Leaf = serde_json::from_slice(leaf).map_err(|_| "is not a leaf of this format")?;
        let before = std::mem::replace(time, parsed.time);
        let record = record.and_then(Sealed::record);
        self.report.records += u64::from(record.is_some());
        let tallied = tally.entry(&parsed, record);
        witness.entry(index, &parsed, record)?;
        tallied?;
        if parsed.time < before { Err("is older than the one before it".to_owned()) } else { Ok(()) }
    }

    fn check_witnessed(&mut self, tree: &Tree, at_witnessed: Option<Hash>) {
        let Some(Witnessed { head, .. }) = self.witnessed else { return };
        let problem = match at_witnessed {
            Some(root) if root == head.root => return,
            Some(_) => format!("{WITNESSED}: witnesses have confirmed another history than this one"),
            None => format!(
                "{WITNESSED}: witnesses have confirmed {} entries, and here are {}: the log was cut",
                head.size,
                tree.size()
            ),
        };
        self.report.problems.push(problem);
    }
}

fn witnessed(root: &Path, vkey: &str, quorum: &Quorum, problems: &mut Vec<String>) -> Option<Witnessed> {
    if quorum.is_none() {
        return None;
    }
    match read_witnessed(root, vkey, quorum) {
        Ok(Some(found)) => {
            if !found.has_quorum {
                let who: Vec<&str> = found.cosigned.iter().map(|c| c.witness.as_str()).collect();
                problems.push(format!(
                    "{WITNESSED}: its cosignatures are not enough for the policy: {}",
                    who.join(", ")
                ));
            }
            Some(found)
        }
        Ok(None) => {
            problems
                .push(format!("{WITNESSED}: no checkpoint has the cosignatures that the policy asks for"));
            None
        }
        Err(e) => {
            problems.push(e.to_string());
            None
        }
    }
}

/// Records that are gone, and entries that say why.
#[derive(Default)]
struct Erasures {
    /// Runs of entries without a record: from, and until (exclusive).
    gone: Vec<(u64, u64)>,
    /// Those that the log says were erased.
    on_record: Vec<(u64, u64)>,
    /// Gone though nothing allows that.
    never: Vec<u64>,
}

impl Erasures {
    fn note(&mut self, index: u64, entry: Option<&Sealed>) {
        let Some(entry) = entry else { return };
        let kind = entry.parse_leaf().map(|leaf| leaf.kind);
        if entry.is_erased() {
            if !kind.is_ok_and(Kind::is_erasable) {
                self.never.push(index);
            }
            match self.gone.last_mut() {
                Some((_, until)) if *until == index => *until += 1,
                _ => self.gone.push((index, index + 1)),
            }
        } else if kind.is_ok_and(|kind| kind == Kind::Erased)
            && let Ok(record) = serde_json::from_slice::<ErasedRecord>(&entry.record)
        {
            // It can only be about what was there before it.
            self.on_record.extend(record.entries.into_iter().map(|(from, until)| (from, until.min(index))));
        }
    }

    /// How many were erased on record; the others are named.
    fn conclude(mut self, problems: &mut Vec<String>) -> u64 {
        self.on_record.sort_unstable();
        for index in self.never {
            problems
                .push(format!("entry {index}: its record is gone, and that of such an entry may never go"));
        }
        let mut erased = 0;
        for (from, until) in self.gone {
            let mut at = from;
            for (covered_from, covered_until) in &self.on_record {
                if *covered_from <= at && *covered_until > at {
                    erased += (*covered_until).min(until) - at;
                    at = (*covered_until).min(until);
                }
            }
            if at < until {
                problems.push(format!("private/: the records of entries {at} to {} are gone, and no entry says that they were erased", until - 1));
            }
        }
        erased
    }
}
