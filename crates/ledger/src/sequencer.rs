//! Brings durable entries under tiles and a signed checkpoint.
//!
//! Order on disk: tiles first, then the checkpoint that needs them. A crash in between leaves tiles that the old
//! checkpoint does not name yet; the next start writes the same bytes again.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use ringfence_verifier::checkpoint::{CHECKPOINT, Head};
use ringfence_verifier::tiles::{self, Shelf, TileFile, Tree, WIDTH};
use ringfence_verifier::{Error, keys};
use signed_note::{Note, Signer};
use tlog_tiles::{Checkpoint, Hash};

use crate::whole::{sync_dir, write_whole};

/// Signs the head of a tree with all the keys in `skeys`.
pub(crate) fn sign(skeys: &str, size: u64, root: Hash) -> Result<Vec<u8>, Error> {
    let signers = keys::signers(skeys)?;
    let signers: Vec<&dyn Signer> = signers.iter().map(|s| s as &dyn Signer).collect();
    let failed = |e: String| Error::Key(e);
    let text =
        Checkpoint::new(signers[0].name(), size, root, "").map_err(|e| failed(e.to_string()))?.to_bytes();
    let mut note = Note::new(&text, &[]).map_err(|e| failed(e.to_string()))?;
    note.add_sigs(&signers).map_err(|e| failed(e.to_string()))?;
    Ok(note.to_bytes())
}

/// Writes tiles and checkpoints.
pub struct Sequencer {
    root: PathBuf,
    skey: String,
    tree: Tree,
    /// Full tiles that are not written yet.
    full: Vec<TileFile>,
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

    /// The newest checkpoint: what was just published, or else the one on disk.
    pub fn newest(&self, published: Option<(Head, Vec<u8>)>) -> Result<Option<(Head, Vec<u8>)>, Error> {
        if published.is_some() || self.published.is_none() {
            return Ok(published);
        }
        let path = self.root.join(CHECKPOINT);
        let note = fs::read(&path).map_err(Error::io("cannot read", &path))?;
        Ok(Some((Head { size: self.tree.size(), root: self.tree.root() }, note)))
    }

    /// Whether there is something that no checkpoint covers.
    pub fn is_behind(&self) -> bool {
        self.published != Some(self.tree.size())
    }

    /// Writes what changed and a new checkpoint, and returns it; `None` if nothing changed. After an error it may be called
    /// again.
    pub fn publish(&mut self) -> Result<Option<(Head, Vec<u8>)>, Error> {
        if !self.is_behind() {
            return Ok(None);
        }
        let mut dirs = HashSet::new();
        for (name, bytes) in self.full.iter().chain(&self.tree.partial()) {
            write_whole(&self.root, name, bytes)?;
            dirs.insert(self.root.join(name).parent().map(Path::to_owned));
        }
        for dir in dirs.into_iter().flatten() {
            sync_dir(&dir.join("x"))?;
        }
        let head = Head { size: self.tree.size(), root: self.tree.root() };
        let note = sign(&self.skey, head.size, head.root)?;
        write_whole(&self.root, CHECKPOINT, &note)?;
        sync_dir(&self.root.join(CHECKPOINT))?;
        self.published = Some(self.tree.size());
        for (name, _) in self.full.drain(..) {
            if let Some((shelf, n, WIDTH)) = tiles::parse_path(&name) {
                remove_partials(&self.root, shelf, n); // C2SP tlog-tiles: allowed once the full tile is there
            }
        }
        Ok(Some((head, note)))
    }
}

/// Best effort: a partial tile that stays is right, only superfluous.
fn remove_partials(root: &Path, shelf: Shelf, n: u64) {
    if let Some(dir) = root.join(tiles::path(shelf, n, 1)).parent() {
        let _ = fs::remove_dir_all(dir);
    }
}
