//! The tile files of a log, compared with what the entries hash to as these are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::checkpoint::{CHECKPOINT, WITNESSED};
use crate::tiles::{self, LOCK, Shelf, TEMPORARY, TileFile, WIDTH};

/// What lies on a shelf: names only.
pub(crate) struct Shelves {
    root: PathBuf,
    /// The size under the checkpoint.
    size: u64,
    /// For each tile the widths of its files; 256 is the full one. Emptied as tiles are compared.
    files: BTreeMap<(Shelf, u64), BTreeSet<usize>>,
}

impl Shelves {
    /// Looks what is there, and names files that do not belong.
    pub(crate) fn list(root: &Path, size: u64, problems: &mut Vec<String>) -> Self {
        let mut files: BTreeMap<_, BTreeSet<usize>> = BTreeMap::new();
        let mut dirs = vec![root.to_owned()];
        while let Some(dir) = dirs.pop() {
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(e) => {
                    problems.push(format!("{}: cannot be read: {e}", dir.display()));
                    continue;
                }
            };
            for entry in entries.flatten() {
                let path = entry.path();
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                let is_ours = [CHECKPOINT, WITNESSED, TEMPORARY, LOCK, "private", ".witnessed"]
                    .contains(&name.as_str());
                if is_ours {
                    continue;
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(path);
                    continue;
                }
                match tiles::parse_path(&name) {
                    Some((shelf, n, width)) => {
                        files.entry((shelf, n)).or_default().insert(width);
                    }
                    None => problems.push(format!("{name}: does not belong to a log")),
                }
            }
        }
        problems.sort();
        Self { root: root.to_owned(), size, files }
    }

    /// Compares the files of tiles that are known now, and forgets both. A full tile under the checkpoint must be there
    /// (`needed`); one beyond may be.
    pub(crate) fn settle(&mut self, known: &mut Vec<TileFile>, needed: bool, problems: &mut Vec<String>) {
        for (name, bytes) in known.drain(..) {
            let Some((shelf, n, has)) = tiles::parse_path(&name) else { continue };
            let widths = self.files.remove(&(shelf, n)).unwrap_or_default();
            if needed && !widths.contains(&has) {
                problems.push(format!("{name}: is missing"));
            } else if !needed {
                self.check_edge(shelf, n, &widths, problems);
            }
            for width in widths {
                let file = tiles::path(shelf, n, width);
                match fs::read(self.root.join(&file)) {
                    Ok(found) if prefix(shelf, &bytes, has, width).is_some_and(|right| right == found) => {}
                    Ok(_) if width > has => problems.push(format!("{file}: is ahead of the log's entries")),
                    Ok(_) => problems.push(format!("{file}: is not what the entries hash to")),
                    // A partial tile goes when the full one is there.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound && width < WIDTH => {}
                    Err(e) => problems.push(format!("{file}: cannot be read: {e}")),
                }
            }
        }
    }

    /// A tree of the checkpoint's size needs this tile as wide as it was then, or full.
    fn check_edge(&self, shelf: Shelf, n: u64, widths: &BTreeSet<usize>, problems: &mut Vec<String>) {
        let count = match shelf {
            Shelf::Entries => self.size,
            Shelf::Level(level) => self.size.checked_shr(8 * u32::from(level)).unwrap_or(0),
        };
        let needs = usize::try_from(count.saturating_sub(n * WIDTH as u64)).unwrap_or(WIDTH).min(WIDTH);
        if needs > 0 && !widths.contains(&needs) && !widths.contains(&WIDTH) {
            problems.push(format!("{}: is missing", tiles::path(shelf, n, needs)));
        }
    }

    /// What is left belongs to no entry. Without the records nobody can tell, and nothing vouches for it.
    pub(crate) fn conclude(&self, has_records: bool, problems: &mut Vec<String>) {
        for ((shelf, n), widths) in &self.files {
            for width in widths.iter().filter(|_| has_records) {
                problems.push(format!("{}: is ahead of the log's entries", tiles::path(*shelf, *n, *width)));
            }
        }
    }
}

/// The first `width` elements of a tile that has `has`.
fn prefix(shelf: Shelf, bytes: &[u8], has: usize, width: usize) -> Option<&[u8]> {
    if width > has {
        return None;
    }
    match shelf {
        Shelf::Level(_) => bytes.get(..width * tlog_tiles::HASH_SIZE),
        Shelf::Entries => {
            let length: usize = tiles::split_bundle(bytes)?.iter().take(width).map(|e| 2 + e.len()).sum();
            bytes.get(..length)
        }
    }
}
