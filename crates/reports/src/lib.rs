//! Answers from the ledger, for people who may see its private half: who reached whose data, when, why. What a stranger can
//! then check alone is in [`ringfence_verifier`].
//!
//! [`index`] reads logs into flat files ([`columns`]) that are a convenience and never the truth: they can be thrown away.
//! [`question`] asks them. [`bundle`] takes an answer with all its proofs to somebody else. [`reconcile`] puts
//! PostgreSQL's own log beside the ledger. [`report`] makes reports for the public and for regulators, [`paper`] puts them on paper.

pub mod bundle;
pub mod columns;
pub mod index;
pub mod paper;
pub mod question;
pub mod reconcile;
pub mod report;
mod texts;

/// Why an index cannot be made or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Records that an index was made of were erased since: it is made anew.
    #[error("records that the index was made of were erased")]
    Erased,
    /// A file of a log or of an index could not be read or written, or is not what it should be.
    #[error(transparent)]
    Log(#[from] ringfence_verifier::Error),
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let made = ringfence_verifier::Error::io(what, path);
        move |source| Self::Log(made(source))
    }

    pub(crate) fn corrupt(path: &std::path::Path, problem: impl Into<String>) -> Self {
        Self::Log(ringfence_verifier::Error::corrupt(path, problem))
    }
}
