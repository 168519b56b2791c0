//! Brings durable entries under tiles and a signed checkpoint.
//!
//! Order on disk: tiles first, then the checkpoint that needs them. A crash in between leaves tiles that the old
//! checkpoint does not name yet; the next start writes the same bytes again.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use signed_note::{Note, VerifierList};
use tlog_tiles::{Checkpoint, Hash};

use crate::tiles::{self, Shelf, Tree, WIDTH};
use crate::{Error, keys};

/// The name of the signed head.
pub const CHECKPOINT: &str = "checkpoint";

/// A checkpoint whose signature was verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// How many entries are under it.
    pub size: u64,
    /// The Merkle tree's root.
    pub root: Hash,
}

/// Reads and verifies the checkpoint under `root`; `None` if there is none yet.
pub fn read_head(root: &Path, vkey: &str) -> Result<Option<Head>, Error> {
    let path = root.join(CHECKPOINT);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("cannot read", &path)(e)),
    };
    open_head(&bytes, vkey).map(Some).map_err(|problem| Error::corrupt(&path, problem))
}

/// Verifies the bytes of a checkpoint.
pub fn open_head(bytes: &[u8], vkey: &str) -> Result<Head, String> {
    let verifier = keys::verifier(vkey).map_err(|e| e.to_string())?;
    let origin = keys::origin(vkey).unwrap_or_default().to_owned();
    let note = Note::from_bytes(bytes).map_err(|e| format!("is not a signed note: {e}"))?;
    let known = VerifierList::new(vec![Box::new(verifier)]);
    let (verified, _) = note.verify(&known).map_err(|e| format!("its signature does not verify: {e}"))?;
    if verified.is_empty() {
        return Err("no signature on it is by the log's key".to_owned());
    }
    let checkpoint = Checkpoint::from_bytes(note.text()).map_err(|e| e.to_string())?;
    if checkpoint.origin() != origin {
        return Err(format!("is of the log {:?}, not {origin:?}", checkpoint.origin()));
    }
    Ok(Head { size: checkpoint.size(), root: *checkpoint.hash() })
}

/// Signs the head of a tree.
fn sign(skey: &str, size: u64, root: Hash) -> Result<Vec<u8>, Error> {
    let signer = keys::signer(skey)?;
    let origin = keys::origin(skey).unwrap_or_default();
    let failed = |e: String| Error::Key(e);
    let text = Checkpoint::new(origin, size, root, "").map_err(|e| failed(e.to_string()))?.to_bytes();
    let mut note = Note::new(&text, &[]).map_err(|e| failed(e.to_string()))?;
    note.add_sigs(&[&signer]).map_err(|e| failed(e.to_string()))?;
    Ok(note.to_bytes())
}

/// Writes tiles and checkpoints.
pub struct Sequencer {
    root: PathBuf,
    skey: String,
    tree: Tree,
    /// Full tiles that are not written yet.
    full: Vec<tiles::TileFile>,
    /// The size that the last published checkpoint has.
    published: Option<u64>,
}

impl Sequencer {
    /// Goes on from the checkpoint under `root`, or starts an empty log.
    pub fn open(root: &Path, skey: &str, head: Option<&Head>) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(Error::io("cannot create", root))?;
        let tree = match head {
            Some(head) => {
                let tree = Tree::load(root, head.size)?;
                if tree.root() != head.root {
                    return Err(Error::corrupt(root, "its tiles do not hash to its checkpoint"));
                }
                tree
            }
            None => Tree::default(),
        };
        let published = head.map(|h| h.size);
        Ok(Self { root: root.to_owned(), skey: skey.to_owned(), tree, full: Vec::new(), published })
    }

    /// Takes the next entry's leaf.
    pub fn push(&mut self, leaf: &[u8]) -> Result<(), Error> {
        self.tree.push(leaf, &mut self.full)
    }

    /// Whether there is something that no checkpoint covers.
    pub fn is_behind(&self) -> bool {
        self.published != Some(self.tree.size())
    }

    /// Writes what changed and a new checkpoint. After an error it may be called again.
    pub fn publish(&mut self) -> Result<(), Error> {
        if !self.is_behind() {
            return Ok(());
        }
        let mut dirs = HashSet::new();
        for (name, bytes) in self.full.iter().chain(&self.tree.partial()) {
            tiles::write_whole(&self.root, name, bytes)?;
            dirs.insert(self.root.join(name).parent().map(Path::to_owned));
        }
        for dir in dirs.into_iter().flatten() {
            tiles::sync_dir(&dir.join("x"))?;
        }
        let note = sign(&self.skey, self.tree.size(), self.tree.root())?;
        tiles::write_whole(&self.root, CHECKPOINT, &note)?;
        tiles::sync_dir(&self.root.join(CHECKPOINT))?;
        self.published = Some(self.tree.size());
        for (name, _) in self.full.drain(..) {
            if let Some((shelf, n, WIDTH)) = tiles::parse_path(&name) {
                remove_partials(&self.root, shelf, n); // C2SP tlog-tiles: allowed once the full tile is there
            }
        }
        Ok(())
    }
}

/// Best effort: a partial tile that stays is right, only superfluous.
fn remove_partials(root: &Path, shelf: Shelf, n: u64) {
    if let Some(dir) = root.join(tiles::path(shelf, n, 1)).parent() {
        let _ = fs::remove_dir_all(dir);
    }
}
