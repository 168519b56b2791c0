//! The Merkle tree as tiles of height 8 ([C2SP `tlog-tiles`](https://c2sp.org/tlog-tiles), RFC 6962 §2.1).
//!
//! [`Tree`] is pure: entries go in, files to write come out. It holds only the right edge, so its size grows with the
//! logarithm of the log's.

use std::fs;
use std::path::Path;

use tlog_tiles::{EMPTY_HASH, Hash, Tile, TileReader, node_hash, record_hash};

use crate::Error;

/// Entries of a full bundle and hashes of a full tile.
pub const WIDTH: usize = 256;
const HASH: usize = tlog_tiles::HASH_SIZE;

/// What a path under the log's root names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shelf {
    /// `tile/entries/…`
    Entries,
    /// `tile/<level>/…`
    Level(u8),
}

/// The path of tile number `n`, partial if `width` is less than 256.
pub fn path(shelf: Shelf, n: u64, width: usize) -> String {
    let mut name = format!("{:03}", n % 1000);
    let mut rest = n / 1000;
    while rest > 0 {
        name = format!("x{:03}/{name}", rest % 1000);
        rest /= 1000;
    }
    let shelf = match shelf {
        Shelf::Entries => "entries".to_owned(),
        Shelf::Level(level) => level.to_string(),
    };
    if width == WIDTH { format!("tile/{shelf}/{name}") } else { format!("tile/{shelf}/{name}.p/{width}") }
}

/// Reads back what [`path`] makes; `None` for any other path.
pub fn parse_path(text: &str) -> Option<(Shelf, u64, usize)> {
    let (shelf, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let shelf = if shelf == "entries" { Shelf::Entries } else { Shelf::Level(shelf.parse().ok()?) };
    let (number, width) = match rest.split_once(".p/") {
        Some((number, width)) => (number, width.parse().ok().filter(|w| (1..WIDTH).contains(w))?),
        None => (rest, WIDTH),
    };
    let mut n: u64 = 0;
    for part in number.split('/') {
        let digits = part.strip_prefix('x').unwrap_or(part);
        n = n.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    (path(shelf, n, width) == text).then_some((shelf, n, width)) // one spelling a tile
}

/// Appends an entry in a bundle's form: `u16` length, big-endian, and the bytes.
pub fn push_bundled(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), Error> {
    let length = u16::try_from(entry.len()).map_err(|_| Error::TooLarge(entry.len()))?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// Splits a bundle into its entries; `None` if it does not end where an entry ends.
pub fn split_bundle(mut bundle: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while !bundle.is_empty() {
        let length = usize::from(u16::from_be_bytes(bundle.get(..2)?.try_into().ok()?));
        entries.push(bundle.get(2..2 + length)?);
        bundle = &bundle[2 + length..];
    }
    Some(entries)
}

/// A file of the log: its path under the root, and its bytes.
pub type TileFile = (String, Vec<u8>);

/// The right edge of the tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    size: u64,
    bundle: Vec<u8>,
    /// For each level the hashes of its last, partial tile.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// How many entries the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds an entry; tiles that are full now go to `full`.
    pub fn push(&mut self, entry: &[u8], full: &mut Vec<TileFile>) -> Result<(), Error> {
        push_bundled(&mut self.bundle, entry)?;
        let n = self.size;
        self.size += 1;
        if self.size.is_multiple_of(WIDTH as u64) {
            full.push((path(Shelf::Entries, n / WIDTH as u64, WIDTH), std::mem::take(&mut self.bundle)));
        }
        let mut hash = record_hash(entry);
        let mut number = n / WIDTH as u64;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::with_capacity(WIDTH));
            }
            let tile = &mut self.levels[level];
            tile.push(hash);
            if tile.len() < WIDTH {
                break;
            }
            let bytes = concat(tile);
            tile.clear();
            hash = Tile::subtree_hash(&bytes);
            let level = u8::try_from(level).expect("a tree of u64 entries has at most 8 levels of tiles");
            full.push((path(Shelf::Level(level), number, WIDTH), bytes));
            number /= WIDTH as u64;
        }
        Ok(())
    }

    /// The partial tiles as they are now.
    pub fn partial(&self) -> Vec<TileFile> {
        let mut files = Vec::new();
        let mut count = self.size;
        let width = |count: u64| usize::try_from(count % WIDTH as u64).expect("less than 256");
        if width(count) > 0 {
            files.push((path(Shelf::Entries, count / WIDTH as u64, width(count)), self.bundle.clone()));
        }
        for (level, tile) in (0..).zip(&self.levels) {
            if !tile.is_empty() {
                files.push((path(Shelf::Level(level), count / WIDTH as u64, tile.len()), concat(tile)));
            }
            count /= WIDTH as u64;
        }
        files
    }

    /// The root hash (RFC 6962 §2.1): the perfect subtrees of the edge, joined from the right.
    pub fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        for tile in &self.levels {
            // The tile's hashes split into perfect subtrees, the largest first: 5 = 4 + 1.
            let mut end = tile.len();
            while end > 0 {
                let part = 1 << end.trailing_zeros();
                let left = perfect(&tile[end - part..end]);
                root = Some(root.map_or(left, |right| node_hash(left, right)));
                end -= part;
            }
        }
        root.unwrap_or(EMPTY_HASH)
    }

    /// Rebuilds the edge of a tree of `size` entries from the files under `root`.
    pub fn load(root: &Path, size: u64) -> Result<Self, Error> {
        let mut tree = Self { size, ..Self::default() };
        let mut count = size;
        for level in 0u8.. {
            if count == 0 {
                break;
            }
            let width = usize::try_from(count % WIDTH as u64).expect("less than 256");
            let mut hashes = Vec::with_capacity(WIDTH);
            if width > 0 {
                let bytes = read(root, Shelf::Level(level), count / WIDTH as u64, width, width * HASH)?;
                hashes
                    .extend(bytes.chunks_exact(HASH).map(|h| Hash(h.try_into().expect("chunks of a hash"))));
                if level == 0 {
                    tree.bundle = read(root, Shelf::Entries, count / WIDTH as u64, width, 0)?;
                }
            }
            tree.levels.push(hashes);
            count /= WIDTH as u64;
        }
        Ok(tree)
    }
}

/// Reads a tile of `width`, from the partial file or from a fuller one that replaced it.
fn read(root: &Path, shelf: Shelf, n: u64, width: usize, length: usize) -> Result<Vec<u8>, Error> {
    let file = root.join(path(shelf, n, width));
    let mut bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let full = root.join(path(shelf, n, WIDTH));
            let bytes = fs::read(&full).map_err(Error::io("cannot read", &file))?;
            match (shelf, split_bundle(&bytes)) {
                (Shelf::Entries, Some(entries)) => {
                    let mut bundle = Vec::new();
                    for entry in entries.into_iter().take(width) {
                        push_bundled(&mut bundle, entry)?;
                    }
                    bundle
                }
                _ => bytes,
            }
        }
        Err(e) => return Err(Error::io("cannot read", &file)(e)),
    };
    if let Shelf::Level(_) = shelf {
        if bytes.len() < length {
            return Err(Error::corrupt(&file, format!("has {} bytes, not {length}", bytes.len())));
        }
        bytes.truncate(length);
    }
    Ok(bytes)
}

fn concat(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|h| h.0).collect()
}

fn perfect(hashes: &[Hash]) -> Hash {
    match hashes {
        [one] => *one,
        many => {
            let (left, right) = many.split_at(many.len() / 2);
            node_hash(perfect(left), perfect(right))
        }
    }
}

/// The name of the file that whoever writes the log holds locked.
pub const LOCK: &str = ".lock";
/// The name of a file that is being written; one that is found later is left from a crash and worth nothing.
pub const TEMPORARY: &str = ".writing";

/// Tiles read from the files of a log, for proofs.
pub struct FileTiles<'a>(pub &'a Path);

impl TileReader for FileTiles<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let mut out = Vec::with_capacity(tiles.len());
        for tile in tiles {
            let width = tile.width() as usize;
            let bytes = read(self.0, Shelf::Level(tile.level()), tile.level_index(), width, width * HASH);
            out.push(bytes.map_err(|_| tlog_tiles::Error::InvalidTile)?);
        }
        Ok(out)
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tlog_tiles::HashReader;

    /// The reference: every stored hash in memory, by the published algorithm.
    struct Memory(Vec<Hash>);
    impl HashReader for Memory {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
            Ok(indexes.iter().map(|&i| self.0[usize::try_from(i).unwrap()]).collect())
        }
    }

    #[test]
    fn the_root_is_that_of_the_published_algorithm_at_every_size() {
        let mut reference = Memory(Vec::new());
        let mut tree = Tree::default();
        let mut files = Vec::new();
        assert_eq!(tree.root(), EMPTY_HASH);
        for n in 0..1500u64 {
            let entry = format!("entry {n}");
            let hashes = tlog_tiles::stored_hashes(n, entry.as_bytes(), &reference).unwrap();
            reference.0.extend(hashes);
            tree.push(entry.as_bytes(), &mut files).unwrap();
            assert_eq!(tree.root(), tlog_tiles::tree_hash(n + 1, &reference).unwrap(), "at {}", n + 1);
        }
        let names: HashMap<_, _> = files.into_iter().collect();
        assert!(names.contains_key("tile/entries/004") && names.contains_key("tile/0/004"));
        assert_eq!(split_bundle(&names["tile/entries/001"]).unwrap()[0], b"entry 256");
    }

    #[test]
    fn an_edge_that_is_loaded_goes_on_as_the_one_that_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Tree::default();
        for n in 0..700u32 {
            let mut files = Vec::new();
            kept.push(&n.to_be_bytes(), &mut files).unwrap();
            files.extend(kept.partial());
            for (name, bytes) in files {
                let file = dir.path().join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, bytes).unwrap();
            }
            let loaded = Tree::load(dir.path(), kept.size()).unwrap();
            assert_eq!(loaded.root(), kept.root(), "at {n}");
            assert_eq!(loaded.bundle, kept.bundle);
        }
    }

    #[test]
    fn each_path_has_one_spelling() {
        for (n, width, text) in [
            (0, 256, "tile/0/000"),
            (1_234_067, 256, "tile/0/x001/x234/067"),
            (1_234_067, 8, "tile/0/x001/x234/067.p/8"),
        ] {
            assert_eq!(path(Shelf::Level(0), n, width), text);
            assert_eq!(parse_path(text), Some((Shelf::Level(0), n, width)));
        }
        for bad in [
            "tile/0/0",
            "tile/0/x000/000",
            "tile/00/000",
            "tile/0/000.p/256",
            "tile/0/000.p/0",
            "tile/0/+01",
            "x",
        ] {
            assert_eq!(parse_path(bad), None, "{bad}");
        }
    }
}
