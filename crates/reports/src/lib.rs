//! Answers from the ledger, for people who may see its private half: who reached whose data, when, why. What a stranger can
//! then check alone is in [`ringfence_verifier`].
//!
//! [`index`] reads logs into flat files ([`columns`]) that are a convenience and never the truth: they can be thrown away.
//! [`question`] asks them. [`bundle`] takes an answer with all its proofs to somebody else. [`reconcile`] puts
//! PostgreSQL's own log beside the ledger.

pub mod bundle;
pub mod columns;
pub mod index;
pub mod question;
pub mod reconcile;

/// Why an index cannot be made or asked.
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
    /// An index or a log is not what it should be.
    #[error("{path}: {problem}")]
    Corrupt {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Records that an index was made of were erased since: it is made anew.
    #[error("records that the index was made of were erased")]
    Erased,
    /// A log's files.
    #[error(transparent)]
    Log(#[from] ringfence_verifier::Error),
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
