//! Reports for the public, for regulators and for the company itself. Each is made of [`facts`] in one pass over the ledger; each
//! of its [`figures`] knows the entries that it comes from.

pub mod cisa;
pub mod facts;
pub mod figures;
pub mod reduction;
pub mod restricted;
pub mod statements;
pub mod transparency;

use ringfence_verifier::manifest::rfc3339;

/// A day for people: `2026-11-24`.
pub(crate) fn date(ms: u64) -> String {
    rfc3339(ms / 1000).chars().take(10).collect()
}

/// A period for people.
pub(crate) fn period(from: u64, until: u64) -> String {
    format!("{} to {}", date(from), date(until.saturating_sub(1)))
}
