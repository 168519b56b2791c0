//! Backups that can be erased where nobody can reach them: on tape, in a bucket, at a partner's.
//!
//! A backup is a folder of files in the age format (age-encryption.org/v1): the schema, the rows of the jurisdiction, the rows of
//! everybody else, indexes. The jurisdiction's rows have a key of their own, made for this one backup. [`keys`] keeps it, wrapped for
//! the jurisdiction's recipients, in a folder in the jurisdiction, and nowhere else: whoever destroys it there erases these rows in
//! every copy of the backup (crypto-shredding, NIST SP 800-88 Rev. 2, cryptographic erase), and nobody else's. [`write`] makes a
//! backup, [`read`] gives it back.

pub mod keys;
pub mod read;
pub mod write;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::database::Error;

/// The file that says what a backup's files are.
pub const MANIFEST: &str = "backup.json";

/// What a backup is, without anything that is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub v: u8,
    /// The store.
    pub store: String,
    /// The jurisdiction whose rows are apart.
    pub jurisdiction: String,
    /// When it was made, in milliseconds since 1970.
    pub made: u64,
    /// The server's version.
    pub server: String,
    /// Its files, in the order in which they are given back.
    pub parts: Vec<Part>,
}

/// A file of a backup: SQL for psql, compressed with gzip, encrypted with age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The file's name in the folder.
    pub file: String,
    /// The key's name among [`keys`]: that of the copy in the register, for the jurisdiction's rows.
    pub key: String,
    /// Rows in it.
    pub rows: u64,
}

impl Manifest {
    /// Reads that of a folder.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path)
            .map_err(|e| Error::Failed(format!("{} is no backup: {}: {e}", folder.display(), MANIFEST)))?;
        let manifest: Self =
            serde_json::from_str(&text).map_err(|e| Error::Failed(format!("{}: {e}", path.display())))?;
        // Names come from outside: none leads out of the folder.
        let is_plain =
            |part: &Part| Path::new(&part.file).file_name().is_some_and(|name| name == part.file.as_str());
        if manifest.v != 1 || !manifest.parts.iter().all(is_plain) {
            return Err(Error::Failed(format!("{}: its form is not known here", path.display())));
        }
        Ok(manifest)
    }
}
