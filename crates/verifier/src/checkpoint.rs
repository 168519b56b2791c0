//! A log's signed head ([C2SP tlog-checkpoint](https://c2sp.org/tlog-checkpoint)), with or without witnesses' cosignatures.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;
use signed_note::{Note, Signature, Verifier as _, VerifierList};
use tlog_tiles::{Checkpoint, Hash};

use crate::quorum::Quorum;
use crate::{Error, keys};

/// The file with the newest head that the log has signed.
pub const CHECKPOINT: &str = "checkpoint";
/// The file with the newest head that enough witnesses have cosigned, with their cosignatures.
pub const WITNESSED: &str = "witnessed";

/// A checkpoint whose signature was verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// How many entries are under it.
    pub size: u64,
    /// The Merkle tree's root.
    pub root: Hash,
}

/// A cosignature that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cosigned {
    /// The witness, by the name in its key.
    pub witness: String,
    /// When it saw the log like this, in seconds since 1970, by its own clock.
    pub time: u64,
}

/// A checkpoint with what witnesses say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Witnessed {
    /// The head.
    pub head: Head,
    /// Whose cosignatures verify.
    pub cosigned: Vec<Cosigned>,
    /// Whether they are enough.
    pub has_quorum: bool,
}

/// Reads and verifies the checkpoint under `root`; `None` if there is none yet.
pub fn read_head(root: &Path, vkeys: &str) -> Result<Option<Head>, Error> {
    let path = root.join(CHECKPOINT);
    let Some(bytes) = read(&path)? else { return Ok(None) };
    open_head(&bytes, vkeys).map(Some).map_err(|problem| Error::corrupt(&path, problem))
}

/// Reads and verifies the witnessed checkpoint under `root`; `None` if there is none.
pub fn read_witnessed(root: &Path, vkeys: &str, quorum: &Quorum) -> Result<Option<Witnessed>, Error> {
    let path = root.join(WITNESSED);
    let Some(bytes) = read(&path)? else { return Ok(None) };
    open_witnessed(&bytes, vkeys, quorum).map(Some).map_err(|problem| Error::corrupt(&path, problem))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot read", path)(e)),
    }
}

/// Verifies the bytes of a checkpoint.
pub fn open_head(bytes: &[u8], vkeys: &str) -> Result<Head, String> {
    open(bytes, vkeys).map(|opened| opened.head)
}

/// Verifies the bytes of a checkpoint and the cosignatures of the witnesses that `quorum` knows. A cosignature that claims
/// to be by one of them and is not makes the whole note malformed (C2SP signed-note).
pub fn open_witnessed(bytes: &[u8], vkeys: &str, quorum: &Quorum) -> Result<Witnessed, String> {
    let Opened { head, text, others, .. } = open(bytes, vkeys)?;
    let (mut cosigned, mut places) = (Vec::new(), BTreeSet::new());
    for line in &others {
        for (place, witness) in quorum.witnesses.iter().enumerate() {
            match witness.key.check(&text, line) {
                Some(Ok(time)) if places.insert(place) => {
                    cosigned.push(Cosigned { witness: witness.key.name().to_owned(), time });
                }
                Some(Ok(_)) => return Err(format!("{} has cosigned twice", witness.key.name())),
                Some(Err(problem)) => return Err(problem),
                None => {}
            }
        }
    }
    Ok(Witnessed { head, cosigned, has_quorum: quorum.is_met(&places) })
}

/// A note that a log has signed.
pub struct Opened {
    /// What it signed.
    pub head: Head,
    /// The same as text.
    pub text: Vec<u8>,
    /// The log's own signatures, verified.
    pub by_log: Vec<Signature>,
    /// The others, not verified.
    pub others: Vec<Signature>,
}

/// The log that a note says it is of, before anything is verified.
pub fn origin_of(note: &[u8]) -> Result<String, String> {
    let note = Note::from_bytes(note).map_err(|e| format!("is not a signed note: {e}"))?;
    let line = note.text().split(|b| *b == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned()) // a note is UTF-8
}

/// Verifies that the log with these keys has signed `note`.
pub fn open(note: &[u8], vkeys: &str) -> Result<Opened, String> {
    let verifiers = keys::verifiers(vkeys).map_err(|e| e.to_string())?;
    let origin = verifiers[0].name().to_owned();
    let note = Note::from_bytes(note).map_err(|e| format!("is not a signed note: {e}"))?;
    let known = verifiers.into_iter().map(|v| Box::new(v) as Box<dyn signed_note::Verifier>);
    let known = VerifierList::new(known.collect());
    let (by_log, others) = note.verify(&known).map_err(|e| format!("its signature does not verify: {e}"))?;
    let checkpoint = Checkpoint::from_bytes(note.text()).map_err(|e| e.to_string())?;
    if checkpoint.origin() != origin {
        return Err(format!("is of the log {:?}, not {origin:?}", checkpoint.origin()));
    }
    let head = Head { size: checkpoint.size(), root: *checkpoint.hash() };
    Ok(Opened { head, text: note.text().to_vec(), by_log, others })
}
