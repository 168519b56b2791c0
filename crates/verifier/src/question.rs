//! What is asked of a ledger, and whom an answer names: the part of a bundle that people read.

use serde::{Deserialize, Serialize};

/// What is asked. What is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Whose law protects the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<String>,
    /// The country of whoever reached it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Their employer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub employer: Option<String>,
    /// Only covered persons (28 CFR 202.211).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub covered: bool,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// The store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// A column, as in `users.email`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// A word of a grant's purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// From when on, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Until when, exclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl Question {
    /// Whether only what is public of an access decides: then a bundle can prove that nothing was kept back.
    pub fn is_public(&self) -> bool {
        let private = [&self.employer, &self.person, &self.store, &self.column, &self.purpose];
        (self.from.is_some() || self.covered) && private.iter().all(|f| f.is_none())
    }
}

/// Somebody who reached something, in one capacity.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// The principal.
    pub person: String,
    /// From where.
    pub location: String,
    /// For whom they work.
    pub employer: String,
    /// Why they are a covered person, if they are.
    pub covered: String,
    /// The store.
    pub store: String,
    /// Whose law protects it.
    pub jurisdiction: String,
    /// The grants in force.
    pub grants: Vec<String>,
    /// What those were for.
    pub purposes: Vec<String>,
}

/// What they reached, in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// Statements.
    pub statements: u64,
    /// Rows that were let through.
    pub rows: u64,
    /// Bytes that were.
    pub bytes: u64,
    /// Rows charged to each grant with a row limit.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub charged: std::collections::BTreeMap<String, u64>,
    /// When the first statement began, in milliseconds since 1970.
    pub first: u64,
    /// When the last began.
    pub last: u64,
    /// The columns that they reached, as far as the statements' texts tell.
    pub columns: std::collections::BTreeSet<String>,
}

impl Reach {
    /// Adds rows charged to grants.
    pub fn charge(&mut self, charged: &std::collections::BTreeMap<String, u64>) {
        for (grant, rows) in charged {
            *self.charged.entry(grant.clone()).or_default() += rows;
        }
    }
}
