//! The verifier: needs the files and a public key, nothing else.
//!
//! It recomputes every tile from the entries, checks the signed root, every commitment and every frame, and that no file
//! lies in the log that it does not account for. What only a higher room can judge (the signature on an approval) is
//! handed to a [`Witness`].

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::checkpoint::{CHECKPOINT, WITNESSED, Witnessed, read_head, read_witnessed};
use crate::quorum::Quorum;
use crate::record::{Leaf, Sealed};
use crate::segment;
use crate::tally::{Gap, Tally};
use crate::tiles::{self, Shelf, TileFile, Tree, WIDTH};

/// What the verifier found.
#[derive(Debug, Default, serde::Serialize)]
pub struct Report {
    /// Entries under the checkpoint.
    pub entries: u64,
    /// Entries that are durable and wait for a checkpoint.
    pub waiting: u64,
    /// Private records that were there and match their commitments.
    pub records: u64,
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
    let files = read_tiles(root, &mut report.problems);
    let journal = match read_journal(root, &mut report.problems) {
        Ok(journal) => journal,
        Err(e) => {
            report.problems.push(e.to_string());
            return report;
        }
    };
    let leaves = match leaves_of(&files, head.size) {
        Ok(leaves) => leaves,
        Err(problem) => {
            report.problems.push(problem);
            return report;
        }
    };
    let mut tree = Tree::default();
    let mut expected: Vec<TileFile> = Vec::new();
    let mut root_at_head = None;
    let mut root_at_witnessed = None;
    let waiting = journal.iter().flat_map(|j| j.leaves_from(head.size));
    for leaf in leaves.iter().map(Vec::as_slice).chain(waiting) {
        if tree.size() == head.size {
            root_at_head = Some(tree.root());
        }
        if witnessed.as_ref().is_some_and(|w| w.head.size == tree.size()) {
            root_at_witnessed = Some(tree.root());
        }
        if let Err(e) = tree.push(leaf, &mut expected) {
            report.problems.push(e.to_string());
            return report;
        }
    }
    if root_at_head.unwrap_or_else(|| tree.root()) != head.root {
        report.problems.push("the entries do not hash to the root that the checkpoint signs".to_owned());
    }
    if let Some(witnessed) = witnessed {
        let Witnessed { head, cosigned, .. } = witnessed;
        match root_at_witnessed.or_else(|| (head.size == tree.size()).then(|| tree.root())) {
            Some(root) if root == head.root => {}
            Some(_) => report
                .problems
                .push(format!("{WITNESSED}: witnesses have confirmed another history than this one")),
            None => report.problems.push(format!(
                "{WITNESSED}: witnesses have confirmed {} entries, and here are {}: the log was cut",
                head.size,
                tree.size()
            )),
        }
        report.witnessed = Some(Confirmation { size: head.size, cosigned });
    }
    expected.extend(tree.partial());
    check_tiles(&files, &expected, head.size, journal.is_some(), &mut report);
    check_records(&leaves, journal.as_ref(), witness, &mut report);
    report
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

/// Everything under `tile/`, by name.
type Files = BTreeMap<String, Vec<u8>>;

fn read_tiles(root: &Path, problems: &mut Vec<String>) -> Files {
    let mut files = Files::new();
    for path in files_under(root, problems) {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        let is_ours = name == CHECKPOINT || name == WITNESSED || name == tiles::TEMPORARY;
        if is_ours || name.starts_with("private/") || name.starts_with(".witnessed/") {
            continue;
        }
        match fs::read(&path) {
            Ok(bytes) => drop(files.insert(name, bytes)),
            // A partial tile goes when the full one is there.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => problems.push(format!("{name}: cannot be read: {e}")),
        }
    }
    files
}

/// The entries under the checkpoint from the bundles.
fn leaves_of(files: &Files, size: u64) -> Result<Vec<Vec<u8>>, String> {
    let mut leaves = Vec::new();
    let full = size / WIDTH as u64;
    let rest = usize::try_from(size % WIDTH as u64).expect("less than 256");
    for n in 0..full + u64::from(rest > 0) {
        let width = if n < full { WIDTH } else { rest };
        let exact = tiles::path(Shelf::Entries, n, width);
        let bytes = files.get(&exact).or_else(|| files.get(&tiles::path(Shelf::Entries, n, WIDTH)));
        let bytes = bytes.ok_or_else(|| format!("{exact}: is missing"))?;
        let entries = tiles::split_bundle(bytes).filter(|e| e.len() >= width);
        let entries = entries.ok_or_else(|| format!("{exact}: is not a bundle of {width} entries"))?;
        leaves.extend(entries.into_iter().take(width).map(<[u8]>::to_vec));
    }
    Ok(leaves)
}

/// Compares every tile with what it must be, and looks for tiles that are missing or do not belong.
fn check_tiles(files: &Files, expected: &[TileFile], size: u64, has_journal: bool, report: &mut Report) {
    let mut known: HashMap<(Shelf, u64), (usize, &[u8])> = HashMap::new();
    for (name, bytes) in expected {
        if let Some((shelf, n, width)) = tiles::parse_path(name) {
            known.insert((shelf, n), (width, bytes));
        }
    }
    for (name, bytes) in files {
        let Some((shelf, n, width)) = tiles::parse_path(name) else {
            report.problems.push(format!("{name}: does not belong to a log"));
            continue;
        };
        match known.get(&(shelf, n)).and_then(|(has, all)| prefix(shelf, all, *has, width)) {
            Some(right) if right == *bytes => {}
            Some(_) => report.problems.push(format!("{name}: is not what the entries hash to")),
            // Ahead of the checkpoint and of the journal. Without the journal nobody can tell, and nothing vouches for it.
            None if has_journal => report.problems.push(format!("{name}: is ahead of the log's entries")),
            None => {}
        }
    }
    // What a tree of the checkpoint's size needs: each level has a 256th of the one below.
    let shelves = std::iter::once((Shelf::Entries, size))
        .chain((0..8).map(|l| (Shelf::Level(l), size >> (8 * u32::from(l)))));
    for (shelf, count) in shelves.filter(|(_, count)| *count > 0) {
        let rest = usize::try_from(count % WIDTH as u64).expect("less than 256");
        for n in 0..count.div_ceil(WIDTH as u64) {
            let width = if (n + 1) * WIDTH as u64 <= count { WIDTH } else { rest };
            let exact = tiles::path(shelf, n, width);
            if !files.contains_key(&exact) && !files.contains_key(&tiles::path(shelf, n, WIDTH)) {
                report.problems.push(format!("{exact}: is missing"));
            }
        }
    }
}

/// The first `width` elements of a tile that has `has`.
fn prefix(shelf: Shelf, bytes: &[u8], has: usize, width: usize) -> Option<Vec<u8>> {
    if width > has {
        return None;
    }
    match shelf {
        Shelf::Level(_) => Some(bytes[..width * tlog_tiles::HASH_SIZE].to_vec()),
        Shelf::Entries => {
            let length: usize = tiles::split_bundle(bytes)?.iter().take(width).map(|e| 2 + e.len()).sum();
            Some(bytes[..length].to_vec())
        }
    }
}

fn files_under(root: &Path, problems: &mut Vec<String>) -> Vec<PathBuf> {
    let (mut files, mut dirs) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        match fs::read_dir(&dir) {
            Ok(entries) => {
                for path in entries.flatten().map(|e| e.path()) {
                    if path.is_dir() { dirs.push(path) } else { files.push(path) }
                }
            }
            Err(e) => problems.push(format!("{}: cannot be read: {e}", dir.display())),
        }
    }
    files.sort();
    files
}

/// The private records in order.
struct Journal {
    first: u64,
    entries: Vec<Sealed>,
}

impl Journal {
    fn get(&self, index: u64) -> Option<&Sealed> {
        self.entries.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn leaves_from(&self, index: u64) -> impl Iterator<Item = &[u8]> {
        let skip = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip).map(|e| e.leaf.as_slice())
    }
}

/// Reads all segments; `None` where there are none, as in a copy of the public half.
fn read_journal(root: &Path, problems: &mut Vec<String>) -> Result<Option<Journal>, Error> {
    let segments = segment::list(root)?;
    let Some(first) = segments.first().map(|s| s.first) else { return Ok(None) };
    let mut journal = Journal { first, entries: Vec::new() };
    for (i, segment) in segments.iter().enumerate() {
        let name = segment.path.display();
        if segment.first != journal.end() {
            problems.push(format!("{name}: begins at entry {}, not {}", segment.first, journal.end()));
        }
        let mut contents = segment::read(segment)?;
        let is_last = i + 1 == segments.len();
        // A writer may be in the middle of its last frame; one that is dead stays there.
        for _ in 0..10 {
            if contents.whole == contents.length || !is_last {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
            let before = contents.length;
            contents = segment::read(segment)?;
            if contents.length == before {
                break;
            }
        }
        if contents.whole != contents.length {
            let last = (segment.first + contents.entries.len() as u64).saturating_sub(1);
            problems.push(format!(
                "{name}: what follows entry {last} is not a whole entry that its leaf commits to"
            ));
        }
        journal.entries.extend(contents.entries);
    }
    Ok(Some(journal))
}

/// Compares the journal with the tree, and shows each entry to the witness.
fn check_records(
    leaves: &[Vec<u8>],
    journal: Option<&Journal>,
    witness: &mut impl Witness,
    report: &mut Report,
) {
    let size = leaves.len() as u64;
    if let Some(journal) = journal {
        report.waiting = journal.end().saturating_sub(size);
        if journal.end() < size {
            report
                .problems
                .push(format!("private/: the records from entry {} on are missing", journal.end()));
        }
    }
    let mut time = 0;
    let mut tally = Tally::default();
    for (index, leaf) in (0..).zip(leaves) {
        let record = journal.and_then(|j| j.get(index));
        if record.is_some_and(|r| r.leaf != *leaf) {
            report.problems.push(format!("entry {index}: the journal's leaf is not the one in the tree"));
        }
        match serde_json::from_slice::<Leaf>(leaf) {
            Ok(parsed) => {
                report.records += u64::from(record.is_some());
                if parsed.time < time {
                    report.problems.push(format!("entry {index}: is older than the one before it"));
                }
                time = parsed.time;
                if let Err(problem) = tally.entry(&parsed, record.map(|r| r.record.as_slice())) {
                    report.problems.push(format!("entry {index}: {problem}"));
                }
                if let Err(problem) = witness.entry(index, &parsed, record.map(|r| r.record.as_slice())) {
                    report.problems.push(format!("entry {index}: {problem}"));
                }
            }
            Err(_) => report.problems.push(format!("entry {index}: is not a leaf of this format")),
        }
    }
    report.newest = time;
    report.gaps = tally.gaps;
    report.crashes = tally.crashes;
}
