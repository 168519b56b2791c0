//! The ledger: an append-only transparency log of everything that happened.
//!
//! A log is a directory in the [C2SP `tlog-tiles`](https://c2sp.org/tlog-tiles) layout with a signed
//! [checkpoint](https://c2sp.org/tlog-checkpoint). Each entry has two halves:
//!
//! - the **leaf** is public and holds no personal data: kind, time, jurisdiction, counters and a salted
//!   commitment to the other half;
//! - the **record** is private and stays in the jurisdiction, in `private/`.
//!
//! The path of an entry, in the order of the files: [`record`] makes it, `inbox` gathers what arrives
//! at the same time, [`writer`] hands it on, [`segment`] makes a whole group durable with one `fdatasync`, [`sequencer`] brings it
//! under [`tiles`] and a signed checkpoint soon after. [`verify`] checks all of it from the files alone,
//! and [`proof`] shows one entry to a stranger.
//!
//! Promise: when a [`Ticket`] resolves to `Ok`, the entry survives the death of the process and of
//! the machine. What must never happen: a public leaf with personal data in it.

pub(crate) mod inbox;
pub mod keys;
pub mod proof;
pub mod record;
pub mod segment;
pub mod sequencer;
pub mod ticket;
pub mod tiles;
pub mod verify;
pub mod writer;

pub use keys::{Keys, generate_keys};
pub use record::{Counters, Entry, Kind, Leaf};
pub use ticket::{Ticket, Unavailable};
pub use writer::{Ledger, Settings};

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
    #[error("the ledger's key is not a C2SP signed-note key: {0}")]
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
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { what, path, source }
    }

    pub(crate) fn corrupt(path: &std::path::Path, problem: impl Into<String>) -> Self {
        Self::Corrupt { path: path.display().to_string(), problem: problem.into() }
    }
}
