//! The register of copies: every place where a jurisdiction's protected data also lies, or may.
//!
//! [`databases`] asks a cluster what it knows of (databases, replicas, slots, publications, foreign tables, archives), [`files`] walks
//! folders and tells dumps, base backups, WAL and exports by their content, [`objects`] goes through buckets, [`inside`] looks into what they find. Whether data of the
//! jurisdiction is in there is found by [`probe`]s: values of people who belong to it, looked for as bytes. What could not be looked
//! into is said, never taken for empty.

pub mod databases;
pub mod files;
pub mod inside;
pub mod objects;
pub mod probe;
pub mod wrapping;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A database of a cluster.
    Database,
    /// A materialised view: rows of tables, kept apart.
    MaterializedView,
    /// A table that lies in another server.
    ForeignTable,
    /// A standby that streams everything.
    Replica,
    /// A replication slot: keeps WAL until somebody has fetched it.
    Slot,
    /// Changes of tables, for subscribers.
    Publication,
    /// Tables that follow another server's.
    Subscription,
    /// Where a cluster puts its WAL.
    WalArchive,
    /// A cluster's files: a base backup, or a data directory.
    BaseBackup,
    /// A dump by pg_dump.
    Dump,
    /// Other files with people's values: CSV, JSON, logs.
    Export,
    /// A file that cannot be looked into: encrypted, or of an unknown form.
    Sealed,
    /// Named by somebody.
    Other,
}

impl Kind {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::MaterializedView => "materialized-view",
            Self::ForeignTable => "foreign-table",
            Self::Replica => "replica",
            Self::Slot => "slot",
            Self::Publication => "publication",
            Self::Subscription => "subscription",
            Self::WalArchive => "wal-archive",
            Self::BaseBackup => "base-backup",
            Self::Dump => "dump",
            Self::Export => "export",
            Self::Sealed => "sealed",
            Self::Other => "other",
        }
    }
}

/// Whether protected data of the jurisdiction is in a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "holds", rename_all = "kebab-case")]
pub enum Holds {
    /// Values of so many of the people who were looked for.
    Found {
        /// People found.
        people: u64,
        /// People looked for.
        of: u64,
    },
    /// It holds what the cluster that it belongs to holds.
    Everything,
    /// Nobody who was looked for is in it.
    Nobody {
        /// People looked for.
        of: u64,
    },
    /// It is encrypted, and its key is destroyed: nobody can read it.
    Destroyed {
        /// The decision that the key was destroyed under.
        under: String,
    },
    /// It could not be looked into.
    Unknown {
        /// Why.
        why: String,
    },
}

impl Holds {
    /// Whether there is nothing of the jurisdiction in it that anybody could read.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Nobody { .. } | Self::Destroyed { .. })
    }
}

/// A copy as a scan, or a person, describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Its name in the register: made of what it is and where, so a scan finds it again.
    pub id: String,
    /// Whose data.
    pub jurisdiction: String,
    /// What it is.
    pub kind: Kind,
    /// The country where it lies (ISO 3166-1), or `?`.
    pub location: String,
    /// Where exactly: a path, or store and object.
    pub place: String,
    /// Who is responsible for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// The key that it is encrypted with, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What is in it.
    #[serde(flatten)]
    pub holds: Holds,
    /// Bytes, where that means something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When it was made, or last written, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<u64>,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Copy {
    /// A copy with its name.
    pub fn new(jurisdiction: &str, kind: Kind, location: &str, place: &str, holds: Holds) -> Self {
        let digest = Sha256::digest(format!("{jurisdiction}\n{}\n{location}\n{place}", kind.word()));
        Self {
            id: format!("C-{}", hex::encode(&digest[..5])),
            jurisdiction: jurisdiction.to_owned(),
            kind,
            location: location.to_owned(),
            place: place.to_owned(),
            owner: String::new(),
            key: None,
            holds,
            bytes: None,
            made: None,
            note: String::new(),
        }
    }

    /// Adds what else is known.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Whether it is a finding, unless somebody has excepted it: it lies outside the jurisdiction, or nobody knows where, and holds
    /// protected data, or nobody knows whether.
    pub fn is_finding(&self, countries: &[String]) -> bool {
        !countries.contains(&self.location) && !self.holds.is_nothing()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_a_finding() {
        let us = ["US".to_owned()];
        let at = |location: &str, holds| Copy::new("us", Kind::Dump, location, "/x", holds).is_finding(&us);
        assert!(at("SG", Holds::Found { people: 1, of: 9 }) && at("SG", Holds::Everything));
        assert!(at("SG", Holds::Unknown { why: String::new() }) && at("?", Holds::Everything));
        assert!(!at("SG", Holds::Destroyed { under: String::new() }));
        assert!(!at("SG", Holds::Nobody { of: 9 }) && !at("US", Holds::Everything));
    }

    #[test]
    fn a_scan_finds_a_copy_again() {
        let copy = |place| Copy::new("us", Kind::Dump, "SG", place, Holds::Everything).id;
        assert_eq!(copy("/a"), copy("/a"));
        assert_ne!(copy("/a"), copy("/b"));
    }
}
