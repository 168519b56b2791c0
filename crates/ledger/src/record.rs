//! What an entry is: a public leaf and the private record that it commits to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand_core::{OsRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::segment::SALT;

/// The largest leaf that a bundle of C2SP `tlog-tiles` can hold, in bytes.
pub const MAX_LEAF: usize = u16::MAX as usize;

/// What happened. The names are what `ringfence ledger show` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The gateway began to serve; the record has the digests of policy and catalogue.
    GatewayStarted,
    /// The gateway stopped in order.
    GatewayStopped,
    /// The policy, the catalogue or the people changed (with digest and the approvers' public keys).
    PolicyChanged,
    /// A principal was let in.
    SessionOpened,
    /// A session ended; the record says why.
    SessionClosed,
    /// A statement is about to run. Durable before its first row leaves.
    Intent,
    /// A statement ended: rows and bytes.
    Outcome,
    /// A connection, a statement or an approval was refused; the record says why.
    Refused,
    /// Statements of an in-country workload, by shape and minute.
    Counted,
    /// Somebody asked for more than their face shows.
    Requested,
    /// An approver signed a request; the record holds the signature.
    Approved,
    /// An approver turned a request down.
    Denied,
    /// A request has all its approvals.
    Granted,
    /// A grant was taken back.
    Revoked,
    /// A grant came to its end.
    Expired,
}

/// Numbers that are public: how much, never what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Rows that were let through.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rows: u64,
    /// Bytes of protocol that were let through with them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Statements, where an entry stands for several.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub statements: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The public half. Its JSON, with the fields in this order, is what the Merkle tree hashes
/// (RFC 6962 §2.1: leaf hash = SHA-256(0x00 ‖ leaf)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// Version of this format.
    pub v: u8,
    /// What happened.
    pub kind: Kind,
    /// Milliseconds since 1970 (UTC). Never goes back within a log.
    pub time: u64,
    /// Whose law protects the data that this is about; `-` where it is about no data.
    pub jurisdiction: String,
    /// How much.
    #[serde(default)]
    pub counters: Counters,
    /// [`commitment`] to the private record, in hex.
    pub commitment: String,
}

/// An entry that has not been given a place in the log yet.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What happened.
    pub kind: Kind,
    /// Whose law protects the data.
    pub jurisdiction: String,
    /// How much.
    pub counters: Counters,
    /// The private record: a JSON object.
    pub record: Vec<u8>,
}

impl Entry {
    /// An entry of `kind` whose private record is `record`.
    pub fn new(kind: Kind, jurisdiction: &str, record: &impl Serialize) -> Self {
        let record = json(record, 512);
        Self { kind, jurisdiction: jurisdiction.to_owned(), counters: Counters::default(), record }
    }

    /// The same with counters.
    #[must_use]
    pub fn counting(mut self, counters: Counters) -> Self {
        self.counters = counters;
        self
    }

    /// Makes the leaf, with a salt that is used for nothing else.
    pub(crate) fn seal(&self, time: u64, salt: &[u8; SALT]) -> Vec<u8> {
        let leaf = Leaf {
            v: 1,
            kind: self.kind,
            time,
            jurisdiction: self.jurisdiction.clone(),
            counters: self.counters,
            commitment: hex::encode(commitment(salt, &self.record)),
        };
        json(&leaf, 256)
    }
}

/// Only maps with non-string keys or failing Serialize impls make this fail, and neither leaves nor records have them.
/// `usual` is room for most, in bytes.
fn json(data: &impl Serialize, usual: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(usual);
    serde_json::to_writer(&mut bytes, data).expect("it is plain data");
    bytes
}

/// Salts for `count` entries, drawn at once: a system call for each would cost more than the hash it goes into.
pub(crate) fn salts(count: usize) -> Vec<[u8; SALT]> {
    let mut salts = vec![[0; SALT]; count];
    OsRng.fill_bytes(salts.as_flattened_mut());
    salts
}

/// An entry with its salt: what a segment stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The leaf's exact bytes.
    pub leaf: Vec<u8>,
    /// The salt of the commitment.
    pub salt: [u8; 32],
    /// The private record's exact bytes.
    pub record: Vec<u8>,
}

impl Sealed {
    /// Parses the leaf.
    pub fn parse_leaf(&self) -> Result<Leaf, serde_json::Error> {
        serde_json::from_slice(&self.leaf)
    }

    /// Whether the leaf commits to this salt and record.
    pub fn is_committed(&self) -> bool {
        self.parse_leaf()
            .is_ok_and(|leaf| leaf.commitment == hex::encode(commitment(&self.salt, &self.record)))
    }
}

/// SHA-256 over a domain label, a 32-byte random salt and the record. The salt keeps a guess at a record (a name, a
/// short statement) from being tested against the public leaf.
pub fn commitment(salt: &[u8; 32], record: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"ringfence/commitment/v1\n");
    hash.update(salt);
    hash.update(record);
    hash.finalize().into()
}

/// The system's clock in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
