//! Requests, signatures, grants.
//!
//! In the order of the path: [`request`] is what is asked, in one canonical text; [`filter`] makes sure that its `--where`
//! is nothing but a safe row policy; [`approval`] signs that text with SSH keys, and verifies it as
//! strangers do from the ledger's files alone ([`ringfence_verifier::approvals`]). Pure.

pub mod approval;
pub mod filter;
pub mod request;

pub use approval::Approval;
pub use filter::Condition;
pub use request::{Ask, Less, Narrowed, Request};
pub use ringfence_verifier::approvals::NAMESPACE;

/// What is wrong with a request or an approval.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The request cannot be made as it stands.
    #[error("{0}")]
    Request(String),
    /// The condition is not a safe row policy.
    #[error("--where: {0}")]
    Condition(String),
    /// The signature is not by the approver's key over this request.
    #[error("the approval of {approver} does not hold: {problem}")]
    Approval {
        /// Who is said to have signed.
        approver: String,
        /// What does not hold.
        problem: String,
    },
    /// A key cannot be used.
    #[error("the key: {0}")]
    Key(String),
}

/// The one text of a document that approvers sign (RFC 8785).
pub fn canonical(document: &serde_json::Value) -> Result<String, Error> {
    serde_json_canonicalizer::to_string(document).map_err(|e| Error::Request(e.to_string()))
}

/// SHA-256 of a canonical text, in hex.
pub fn digest(canonical: &str) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(canonical))
}
