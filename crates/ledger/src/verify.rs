//! The verifier: needs the files and a public key, nothing else.
//!
//! It recomputes every tile from the entries, checks the signed root, every commitment and every frame, and that no file
//! lies in the log that it does not account for. What only a higher room can judge (the signature on an approval) is
//! handed to a [`Witness`].

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::record::{Leaf, Sealed};
use crate::segment;
use crate::sequencer::{CHECKPOINT, read_head};
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
    /// Everything that is wrong, in the order found. Empty means that the log verifies.
    pub problems: Vec<String>,
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
    verify_with(root, vkey, &mut ())
}

/// Verifies the log in `root` and shows each entry to `witness`.
pub fn verify_with(root: &Path, vkey: &str, witness: &mut impl Witness) -> Report {
    let mut report = Report::default();
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

    let leaves = match read_leaves(root, head.size) {
        Ok(leaves) => leaves,
        Err(problem) => {
            report.problems.push(problem);
            return report;
        }
    };
    let mut tree = Tree::default();
    let mut expected: Vec<TileFile> = Vec::new();
    for leaf in &leaves {
        if let Err(e) = tree.push(leaf, &mut expected) {
            report.problems.push(e.to_string());
            return report;
        }
    }
    if tree.root() != head.root {
        report.problems.push("the entries do not hash to the root that the checkpoint signs".to_owned());
    }
    expected.extend(tree.partial());
    check_tiles(root, &expected, &mut report);
    check_records(root, &leaves, witness, &mut report);
    report
}

/// The entries under the checkpoint from the bundles.
fn read_leaves(root: &Path, size: u64) -> Result<Vec<Vec<u8>>, String> {
    let mut leaves = Vec::new();
    let full = size / WIDTH as u64;
    let rest = usize::try_from(size % WIDTH as u64).expect("less than 256");
    for n in 0..full + u64::from(rest > 0) {
        let width = if n < full { WIDTH } else { rest };
        let exact = root.join(tiles::path(Shelf::Entries, n, width));
        let path = if exact.exists() { exact } else { root.join(tiles::path(Shelf::Entries, n, WIDTH)) };
        let bytes = fs::read(&path).map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
        let entries = tiles::split_bundle(&bytes).filter(|e| e.len() >= width);
        let entries = entries.ok_or_else(|| format!("{}: is not a bundle of {width} entries", path.display()))?;
        leaves.extend(entries.into_iter().take(width).map(<[u8]>::to_vec));
    }
    Ok(leaves)
}

/// Compares every file under `tile/` with what it must be, and looks for files that are missing or do not belong.
fn check_tiles(root: &Path, expected: &[TileFile], report: &mut Report) {
    let mut whole: HashMap<(Shelf, u64), (usize, &[u8])> = HashMap::new();
    let mut required: HashSet<(Shelf, u64)> = HashSet::new();
    for (name, bytes) in expected {
        if let Some((shelf, n, width)) = tiles::parse_path(name) {
            whole.insert((shelf, n), (width, bytes));
            required.insert((shelf, n));
        }
    }
    for path in files_under(root, &mut report.problems) {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        if name == CHECKPOINT || name == tiles::TEMPORARY || name.starts_with("private/") {
            continue;
        }
        let Some((shelf, n, width)) = tiles::parse_path(&name) else {
            report.problems.push(format!("{name}: does not belong to a log"));
            continue;
        };
        let Ok(bytes) = fs::read(&path) else {
            report.problems.push(format!("{name}: cannot be read"));
            continue;
        };
        match whole.get(&(shelf, n)).and_then(|(has, bytes)| prefix(shelf, bytes, *has, width)) {
            Some(right) if right == bytes => {
                if whole.get(&(shelf, n)).is_some_and(|(has, _)| *has == width) {
                    required.remove(&(shelf, n));
                }
            }
            Some(_) => report.problems.push(format!("{name}: is not what the entries hash to")),
            // A tile that a crash left ahead of the checkpoint: its entries must be in the journal. The checkpoint does
            // not vouch for it, so only its shape is known; the next start of the gateway writes it anew.
            None => report.problems.push(format!("{name}: is ahead of the checkpoint")),
        }
    }
    let mut missing: Vec<_> = required.into_iter().collect();
    missing.sort();
    for (shelf, n) in missing {
        let width = whole[&(shelf, n)].0;
        report.problems.push(format!("{}: is missing", tiles::path(shelf, n, width)));
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

/// Reads the private records beside the leaves.
fn check_records(root: &Path, leaves: &[Vec<u8>], witness: &mut impl Witness, report: &mut Report) {
    let segments = match segment::list(root) {
        Ok(segments) => segments,
        Err(e) => return report.problems.push(e.to_string()),
    };
    let mut records: HashMap<u64, Sealed> = HashMap::new();
    let mut next = segments.first().map_or(0, |s| s.first);
    for segment in &segments {
        let name = segment.path.display();
        if segment.first != next {
            report.problems.push(format!("{name}: begins at entry {}, not {next}", segment.first));
        }
        match segment::read(segment) {
            Ok(contents) => {
                let count = contents.entries.len() as u64;
                if contents.whole != contents.length {
                    report.problems.push(format!(
                        "{name}: what follows entry {} is not a whole entry that its leaf commits to",
                        (segment.first + count).saturating_sub(1),
                    ));
                }
                next = segment.first + count;
                records.extend((segment.first..).zip(contents.entries));
            }
            Err(e) => report.problems.push(e.to_string()),
        }
    }
    let size = leaves.len() as u64;
    report.waiting = next.saturating_sub(size);
    if !segments.is_empty() && next < size {
        report.problems.push(format!("private/: the records from entry {next} on are missing"));
    }
    let mut time = 0;
    for (index, leaf) in (0..).zip(leaves) {
        let record = records.get(&index);
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
                if let Err(problem) = witness.entry(index, &parsed, record.map(|r| r.record.as_slice())) {
                    report.problems.push(format!("entry {index}: {problem}"));
                }
            }
            Err(_) => report.problems.push(format!("entry {index}: is not a leaf of this format")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Entry, Kind};
    use crate::{Ledger, Settings};
    use proptest::prelude::*;
    use std::time::Duration;

    fn log(dir: &Path, entries: u32) -> String {
        let keys = crate::generate_keys("test.example/log");
        let vkey = keys.verifier.clone();
        let settings =
            Settings { dir: dir.to_owned(), skey: keys.signer, vkey: keys.verifier, publish_every: Duration::from_secs(9) };
        let ledger = Ledger::open(&settings).unwrap();
        for n in 0..entries {
            let entry = Entry::new(Kind::Intent, "us", &serde_json::json!({ "statement": format!("SELECT {n}") }));
            drop(ledger.append(entry));
        }
        vkey
    }

    #[test]
    fn flipping_any_one_bit_of_any_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let vkey = log(dir.path(), 300);
        assert_eq!(verify(dir.path(), &vkey).problems, Vec::<String>::new());
        let files = files_under(dir.path(), &mut Vec::new());
        assert!(files.len() >= 6, "{files:?}");
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
        runner
            .run(&(0..files.len(), any::<prop::sample::Index>(), 0..8u8), |(file, at, bit)| {
                let original = fs::read(&files[file]).unwrap();
                let mut flipped = original.clone();
                flipped[at.index(original.len())] ^= 1 << bit;
                fs::write(&files[file], &flipped).unwrap();
                let problems = verify(dir.path(), &vkey).problems;
                fs::write(&files[file], &original).unwrap();
                prop_assert!(!problems.is_empty(), "bit {} of byte {} in {:?}", bit, at.index(original.len()), files[file]);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn every_byte_of_the_checkpoint_counts() {
        let dir = tempfile::tempdir().unwrap();
        let vkey = log(dir.path(), 3);
        let path = dir.path().join(CHECKPOINT);
        let original = fs::read(&path).unwrap();
        for at in 0..original.len() {
            for bit in 0..8 {
                let mut flipped = original.clone();
                flipped[at] ^= 1 << bit;
                fs::write(&path, &flipped).unwrap();
                assert!(!verify(dir.path(), &vkey).problems.is_empty(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_file_that_is_missing_or_foreign_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let vkey = log(dir.path(), 300);
        fs::write(dir.path().join("tile/notes.txt"), "x").unwrap();
        fs::remove_file(dir.path().join("tile/1/000.p/1")).unwrap();
        let problems = verify(dir.path(), &vkey).problems.join("\n");
        assert!(problems.contains("tile/notes.txt: does not belong"), "{problems}");
        assert!(problems.contains("tile/1/000.p/1: is missing"), "{problems}");
    }

    #[test]
    fn the_public_half_verifies_alone() {
        let dir = tempfile::tempdir().unwrap();
        let vkey = log(dir.path(), 10);
        fs::remove_dir_all(dir.path().join("private")).unwrap();
        let report = verify(dir.path(), &vkey);
        assert_eq!((report.entries, report.records, report.problems.len()), (10, 0, 0));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = segment::decode(&bytes);
            let _ = tiles::split_bundle(&bytes);
            let _ = tiles::parse_path(&String::from_utf8_lossy(&bytes));
            let _ = crate::sequencer::open_head(&bytes, "x+00000000+AA==");
            let _ = crate::proof::check(&bytes, "x+00000000+AA==");
        }
    }
}
