//! One entry shown to a stranger: a [C2SP `tlog-proof`](https://c2sp.org/tlog-proof), which carries the checkpoint and the
//! inclusion proof, with the entry itself as its `extra` line.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use tlog_tiles::{Hash, TileHashReader, check_record, prove_record, record_hash};

use crate::checkpoint::{CHECKPOINT, Cosigned, Head, WITNESSED, open_head, open_witnessed};
use crate::quorum::Quorum;
use crate::record::{Leaf, Sealed};
use crate::tiles::FileTiles;
use crate::{Error, segment};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// The largest proof that is read, in bytes.
const MAX_PROOF: usize = 16 << 20;

/// What the `extra` line holds: the leaf and, where it is disclosed, the record with its salt.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extra {
    leaf: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<String>,
}

/// An entry that a proof shows.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Its place in the log.
    pub index: u64,
    /// The size of the log that vouches for it.
    pub size: u64,
    /// The witnesses who confirmed that log.
    pub cosigned: Vec<Cosigned>,
    /// The public half.
    pub leaf: Leaf,
    /// The private half, if it was disclosed; it matches the leaf's commitment.
    pub record: Option<serde_json::Value>,
}

/// Makes the proof of entry `index`; with `disclose`, the private record goes along.
pub fn prove(root: &Path, vkey: &str, index: u64, disclose: bool) -> Result<String, Error> {
    let (note, head) = covering(root, vkey, index)?;
    let tiles = FileTiles(root);
    let reader = TileHashReader::new(head.size, head.root, &tiles);
    let proof = prove_record(head.size, index, &reader).map_err(|e| Error::corrupt(root, e.to_string()))?;
    let entry = segment::find(root, index)?.ok_or_else(|| {
        Error::corrupt(&root.join("private"), format!("the record of entry {index} is not here"))
    })?;
    if disclose && entry.is_erased() {
        return Err(Error::corrupt(&root.join("private"), format!("the record of entry {index} was erased")));
    }
    let extra = extra(&entry, disclose)?;
    let mut text = format!("{HEADER}\nextra {}\nindex {index}\n", BASE64.encode(extra));
    for hash in proof {
        text.push_str(&BASE64.encode(hash.0));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&String::from_utf8_lossy(&note));
    Ok(text)
}

/// A checkpoint that covers `index`: the one with cosignatures, or the newest where that does not reach so far.
fn covering(root: &Path, vkey: &str, index: u64) -> Result<(Vec<u8>, Head), Error> {
    let mut newest = 0;
    for name in [WITNESSED, CHECKPOINT] {
        let path = root.join(name);
        let note = match std::fs::read(&path) {
            Ok(note) => note,
            Err(e) if name == WITNESSED && e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io("cannot read", &path)(e)),
        };
        let head = open_head(&note, vkey).map_err(|problem| Error::corrupt(&path, problem))?;
        if index < head.size {
            return Ok((note, head));
        }
        newest = head.size;
    }
    Err(Error::NoSuchEntry { index, size: newest })
}

fn extra(entry: &Sealed, disclose: bool) -> Result<Vec<u8>, Error> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let extra = Extra {
        leaf: text(&entry.leaf),
        salt: disclose.then(|| hex::encode(entry.salt)),
        record: disclose.then(|| text(&entry.record)),
    };
    serde_json::to_vec(&extra).map_err(|e| Error::Key(e.to_string()))
}

/// Checks a proof made by [`prove`], offline; with `quorum`, its checkpoint must have the cosignatures that this asks for. The
/// error says what does not hold.
pub fn check(proof: &[u8], vkey: &str, quorum: Option<&Quorum>) -> Result<Shown, String> {
    if proof.len() > MAX_PROOF {
        return Err("the proof is too long".to_owned());
    }
    let text = std::str::from_utf8(proof).map_err(|_| "the proof is not text".to_owned())?;
    let (head, note) = text.split_once("\n\n").ok_or("the proof has no checkpoint")?;
    let mut lines = head.lines();
    if lines.next() != Some(HEADER) {
        return Err(format!("the proof does not begin with {HEADER}"));
    }
    let extra = lines.next().and_then(|l| l.strip_prefix("extra ")).ok_or("the proof has no extra line")?;
    let extra = BASE64.decode(extra).map_err(|_| "the extra line is not base64")?;
    let extra: Extra = serde_json::from_slice(&extra).map_err(|_| "the extra line is not an entry")?;
    let index = lines.next().and_then(|l| l.strip_prefix("index ")).and_then(|n| n.parse().ok());
    let index: u64 = index.ok_or("the proof has no index")?;
    let hashes: Option<Vec<Hash>> =
        lines.map(|l| BASE64.decode(l).ok().and_then(|h| h.try_into().ok()).map(Hash)).collect();
    let hashes = hashes.ok_or("a hash of the proof is malformed")?;
    let wrong = |e: String| format!("the checkpoint: {e}");
    let (head, cosigned) = match quorum {
        Some(quorum) => {
            let witnessed = open_witnessed(note.as_bytes(), vkey, quorum).map_err(wrong)?;
            if !witnessed.has_quorum {
                return Err(
                    "the checkpoint does not have the cosignatures that the policy asks for".to_owned()
                );
            }
            (witnessed.head, witnessed.cosigned)
        }
        None => (open_head(note.as_bytes(), vkey).map_err(wrong)?, Vec::new()),
    };
    if index >= head.size {
        return Err("the entry lies beyond the checkpoint".to_owned());
    }
    check_record(&hashes, head.size, head.root, index, record_hash(extra.leaf.as_bytes()))
        .map_err(|_| "the entry is not in the tree that the checkpoint signs".to_owned())?;
    let leaf: Leaf =
        serde_json::from_str(&extra.leaf).map_err(|_| "the entry is not a leaf of this format")?;
    let record = match (extra.salt, extra.record) {
        (Some(salt), Some(record)) => {
            let salt =
                hex::decode(salt).ok().and_then(|s| s.try_into().ok()).ok_or("the salt is malformed")?;
            let sealed = Sealed { leaf: extra.leaf.into_bytes(), salt, record: record.into_bytes() };
            if !sealed.is_committed() {
                return Err("the record is not the one that the entry commits to".to_owned());
            }
            Some(serde_json::from_slice(&sealed.record).map_err(|_| "the record is not JSON")?)
        }
        (None, None) => None,
        _ => return Err("the proof has half a record".to_owned()),
    };
    Ok(Shown { index, size: head.size, cosigned, leaf, record })
}
