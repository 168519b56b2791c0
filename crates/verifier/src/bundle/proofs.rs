//! What of a bundle is proven to be in its log: entries, and whole runs of leaves.

use std::collections::{BTreeMap, HashMap};

use tlog_tiles::{Hash, HashReader, check_record, node_hash, prove_record, record_hash, stored_hash_index};

use super::{ENTRIES, HASHES, LEAVES, Shown};
use crate::checkpoint::Head;
use crate::question::Question;
use crate::record::{Kind, Leaf, Sealed};
use crate::tiles::{WIDTH, split_bundle};

/// Hashes that nobody vouches for until a proof made of them holds.
pub(super) struct Untrusted(HashMap<u64, Hash>);

impl HashReader for Untrusted {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let hash = |index| self.0.get(index).copied().ok_or(tlog_tiles::Error::InvalidTile);
        indexes.iter().map(hash).collect()
    }
}

pub(super) fn hashes(bytes: &[u8]) -> Result<Untrusted, String> {
    if !bytes.len().is_multiple_of(40) {
        return Err(format!("{HASHES} was cut"));
    }
    let mut found = HashMap::with_capacity(bytes.len() / 40);
    for pair in bytes.chunks_exact(40) {
        let (index, hash) = pair.split_at(8);
        let index = u64::from_le_bytes(index.try_into().map_err(|_| "")?);
        found.insert(index, Hash(hash.try_into().map_err(|_| "")?));
    }
    Ok(Untrusted(found))
}

/// That a leaf with this hash is at `index` of the tree.
fn prove(head: &Head, index: u64, leaf: Hash, hashes: &Untrusted) -> Result<(), String> {
    if index >= head.size {
        return Err(format!("entry {index} lies beyond the checkpoint"));
    }
    let proof = prove_record(head.size, index, hashes)
        .map_err(|_| format!("entry {index}: its proof is not whole"))?;
    check_record(&proof, head.size, head.root, index, leaf)
        .map_err(|_| format!("entry {index}: is not in the tree that the checkpoint signs"))
}

/// A run of leaves, proven.
pub(super) struct Leaves {
    from: u64,
    texts: Vec<Vec<u8>>,
    parsed: Vec<Leaf>,
    size: u64,
}

impl Leaves {
    pub(super) fn prove(
        bytes: &[u8],
        from: u64,
        until: u64,
        head: &Head,
        hashes: &mut Untrusted,
    ) -> Result<Self, String> {
        let texts = split_bundle(bytes).ok_or_else(|| format!("{LEAVES} was cut"))?;
        let width = WIDTH as u64;
        let is_aligned = from.is_multiple_of(width) && (until.is_multiple_of(width) || until == head.size);
        if until < from || until > head.size || texts.len() as u64 != until - from || !is_aligned {
            return Err(format!("{LEAVES} are not those from {from} until {until}"));
        }
        // What is inside the tiles comes from the leaves themselves, so the proof of one leaf of a full tile binds all. Tiles
        // are each other's siblings: all are hashed before any is proven.
        let mut first_hashes = Vec::new();
        for (tile, leaves) in (from / width..).zip(texts.chunks(WIDTH)) {
            let first = tile * width;
            let (mut level, mut height) =
                (leaves.iter().map(|leaf| record_hash(leaf)).collect::<Vec<Hash>>(), 0);
            let bound = if leaves.len() == WIDTH { 1 } else { leaves.len() };
            first_hashes.extend((first..).zip(level.iter().copied()).take(bound));
            while !level.is_empty() {
                for (n, hash) in (first >> height..).zip(&level) {
                    hashes.0.insert(stored_hash_index(height, n), *hash);
                }
                level = level.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect();
                height += 1;
            }
        }
        for (index, hash) in first_hashes {
            prove(head, index, hash, hashes)?;
        }
        let parsed: Result<Vec<Leaf>, _> = texts.iter().map(|leaf| serde_json::from_slice(leaf)).collect();
        let parsed = parsed.map_err(|_| format!("{LEAVES}: there is one that is not of this format"))?;
        Ok(Self { from, texts: texts.into_iter().map(<[u8]>::to_vec).collect(), parsed, size: head.size })
    }

    fn get(&self, index: u64) -> Option<&[u8]> {
        let place = usize::try_from(index.checked_sub(self.from)?).ok()?;
        self.texts.get(place).map(Vec::as_slice)
    }

    /// Until when they reach over the time of the question; `None` if they do not. The first leaf must lie before it, and the
    /// last one after it; or witnesses have seen, after it, that there were no more (`confirmed`).
    pub(super) fn covers(&self, question: &Question, confirmed: Option<u64>) -> Result<Option<u64>, String> {
        let mut time = 0;
        for leaf in &self.parsed {
            if leaf.time < time {
                return Err(format!("{LEAVES}: one is older than the one before it"));
            }
            time = leaf.time;
        }
        let is_last = self.from + self.parsed.len() as u64 == self.size;
        let begins =
            self.from == 0 || self.parsed.first().is_some_and(|l| question.since.is_some_and(|s| l.time < s));
        let ends = match question.until {
            Some(until) => {
                time >= until || (is_last && confirmed.is_some_and(|confirmed| confirmed >= until))
            }
            None => is_last,
        };
        Ok((begins && ends).then(|| question.until.unwrap_or(time)))
    }

    /// How many statements, and ends of statements, that look like an answer from outside are not shown.
    pub(super) fn undisclosed(&self, question: &Question, entries: &BTreeMap<u64, Entry>) -> (u64, u64) {
        let looks = |leaf: &Leaf| {
            leaf.from.is_some()
                && question.from.as_ref().is_none_or(|from| leaf.from.as_ref() == Some(from))
                && (!question.covered || leaf.covered)
                && question.jurisdiction.as_ref().is_none_or(|j| *j == leaf.jurisdiction)
                && question.since.is_none_or(|since| leaf.time >= since)
                && question.until.is_none_or(|until| leaf.time < until)
        };
        let hidden = (self.from..)
            .zip(&self.parsed)
            .filter(|(index, leaf)| looks(leaf) && entries.get(index).is_none_or(|entry| entry.for_text));
        let (mut statements, mut ends) = (0, 0);
        for (_, leaf) in hidden {
            statements += u64::from(leaf.kind == Kind::Intent);
            ends += u64::from(leaf.kind == Kind::Outcome);
        }
        (statements, ends)
    }
}

/// An entry that is proven to be in the log.
pub(super) struct Entry {
    pub(super) leaf: Leaf,
    pub(super) record: serde_json::Value,
    pub(super) bytes: Vec<u8>,
    /// It is shown for a text only: it does not count as shown.
    pub(super) for_text: bool,
}

pub(super) fn entries(
    bytes: &[u8],
    head: &Head,
    hashes: &Untrusted,
    leaves: Option<&Leaves>,
) -> Result<BTreeMap<u64, Entry>, String> {
    let mut found = BTreeMap::new();
    for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let shown: Shown =
            serde_json::from_slice(line).map_err(|e| format!("{ENTRIES}: a line is no entry: {e}"))?;
        let index = shown.index;
        match leaves.and_then(|l| l.get(index)) {
            Some(leaf) if leaf == shown.leaf.as_bytes() => {}
            Some(_) => return Err(format!("entry {index}: is not the leaf at this place")),
            None => prove(head, index, record_hash(shown.leaf.as_bytes()), hashes)?,
        }
        let salt = hex::decode(&shown.salt).ok().and_then(|s| s.try_into().ok());
        let salt = salt.ok_or_else(|| format!("entry {index}: its salt is malformed"))?;
        let sealed = Sealed { leaf: shown.leaf.into_bytes(), salt, record: shown.record.into_bytes() };
        if !sealed.is_committed() {
            return Err(format!("entry {index}: its record is not the one that the leaf commits to"));
        }
        let leaf = sealed.parse_leaf().map_err(|_| format!("entry {index}: is not a leaf of this format"))?;
        let record = serde_json::from_slice(&sealed.record)
            .map_err(|_| format!("entry {index}: its record is not JSON"))?;
        if found
            .insert(index, Entry { leaf, record, bytes: sealed.record, for_text: shown.for_text })
            .is_some()
        {
            return Err(format!("entry {index} is there twice"));
        }
    }
    Ok(found)
}
