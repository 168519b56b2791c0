//! The verifier: checks what a gateway's transparency log says, from files alone: no network, no database, no trust in
//! whoever runs the gateway.
//!
//! A log is a directory in the [C2SP `tlog-tiles`](https://c2sp.org/tlog-tiles) layout with a signed
//! [checkpoint](https://c2sp.org/tlog-checkpoint). Each entry has two halves ([`record`]):
//!
//! - the **leaf** is public and holds no personal data: kind, time, jurisdiction, counters and a salted
//!   commitment to the other half;
//! - the **record** is private and stays in the jurisdiction, in `private/` ([`segment`]).
//!
//! From the bottom: [`keys`] and [`cosignature`] say who signed, [`quorum`] whom to believe, [`checkpoint`] what they signed,
//! [`tiles`] how entries hash to it. [`verify`] checks a whole log, [`proof`] a single entry.

pub mod approvals;
pub mod bundle;
pub mod checkpoint;
pub mod cosignature;
pub mod enrolment;
pub mod installation;
pub mod keys;
pub mod manifest;
pub mod orders;
pub mod passkey;
pub mod proof;
pub mod question;
pub mod quorum;
pub mod record;
pub mod segment;
pub(crate) mod shelves;
pub mod tally;
pub mod tiles;
pub mod verify;

pub use record::{Counters, Kind, Leaf};

/// What can go wrong with the files of a log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was being done, as in "cannot write".
        what: &'static str,
        /// Which file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is there but says something that cannot be true.
    #[error("{path}: {problem}")]
    Corrupt {
        /// Which file.
        path: String,
        /// What is wrong, without the contents.
        problem: String,
    },
    /// A key is not in signed-note form.
    #[error("this is not a C2SP signed-note key: {0}")]
    Key(String),
    /// An entry is larger than a bundle can hold (65,535 bytes; C2SP tlog-tiles).
    #[error("an entry of {0} bytes is larger than the log can hold")]
    TooLarge(usize),
    /// Asked for an entry that the log does not have.
    #[error("the log has {size} entries under its checkpoint; there is no entry {index}")]
    NoSuchEntry {
        /// The entry asked for.
        index: u64,
        /// How many there are.
        size: u64,
    },
}

impl Error {
    /// Makes [`Self::Io`] of what the system said.
    pub fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { what, path, source }
    }

    /// Makes [`Self::Corrupt`].
    pub fn corrupt(path: &std::path::Path, problem: impl Into<String>) -> Self {
        Self::Corrupt { path: path.display().to_string(), problem: problem.into() }
    }
}
