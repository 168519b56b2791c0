//! What an entry is: a public leaf and the private record that it commits to.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The largest leaf that a bundle of C2SP `tlog-tiles` can hold, in bytes.
pub const MAX_LEAF: usize = u16::MAX as usize;

/// What happened. The names are what `ringfence ledger show` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// People whose data a statement's rows show, as keyed hashes; on record before those rows leave, where one of them is new
    /// to the person who reads (28 CFR 202.205).
    Reached,
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
    /// The gateway is alive; the record counts what it promised to write since it began to serve.
    Heartbeat,
    /// A store's own log has a connection or a statement that did not come through a gateway.
    SideDoor,
    /// Cross-border access closed, as when no witness has confirmed the log for too long.
    BorderClosed,
    /// Cross-border access opened again.
    BorderOpened,
    /// A regulator has suspended access across the border; the record has the signed order.
    Suspended,
    /// A regulator has lifted that; the record has the signed order.
    Resumed,
    /// A route leads to another store: there its rows are at home now.
    Routed,
    /// Somebody asked that data be erased from a store and its copies; the record holds what approvers sign.
    ErasureRequested,
    /// An approver signed that; the record holds the signature.
    ErasureApproved,
    /// It has been erased: what, where, how, how that was verified, what remains and why. Only with all approvals.
    ErasureCertificate,
    /// Somebody asked for a flow: a stream of public columns out of the jurisdiction; the record holds what approvers sign.
    FlowRequested,
    /// An approver signed that; the record holds the signature.
    FlowApproved,
    /// A flow was opened, checked, cut or closed; the record has the volume. Opened only with all approvals.
    Flow,
    /// The identity provider has signed somebody out, or deactivated them, or has them back.
    Presence,
    /// Somebody who approves asked for a key of theirs to be let in; the record holds what other approvers sign.
    EnrolmentRequested,
    /// An approver signed that; the record holds the signature. The key is in force once the rules have it (`policy-changed`).
    EnrolmentSigned,
    /// Somebody read private records of the log at the console; the record says who, and which.
    RecordsRead,
    /// A copy of protected data was registered, excepted by somebody for a time, or is gone.
    Copy,
    /// A move of rows from one store to another came to a new stage; the record has what was compared.
    Move,
    /// Private records were erased, as the law may ask; the record says which, why and by whom. Their commitments stay.
    Erased,
    /// A legal hold was placed or released: while it stands, nothing is erased.
    LegalHold,
}

impl Kind {
    /// Whether its private record may be erased. Of the others the verifier needs every one: rules, approvals, counts, holds.
    pub fn is_erasable(self) -> bool {
        use Kind::{Counted, Intent, Outcome, Reached, Refused, SessionClosed, SessionOpened};
        matches!(self, SessionOpened | SessionClosed | Intent | Outcome | Reached | Refused | Counted)
    }

    /// The name in a leaf.
    pub fn word(self) -> String {
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
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
    /// People, or devices, that an entry says were reached; at most so many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub subjects: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !*flag
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
    /// For an access across the border: the country that it came from. Public, so that anybody can tell whether all
    /// accesses from a country were shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// For an access across the border: whether it was a covered person's (28 CFR 202.211).
    #[serde(default, skip_serializing_if = "is_false")]
    pub covered: bool,
    /// [`commitment`] to the private record, in hex.
    pub commitment: String,
}

/// A hash in hex. `hex::encode` goes letter by letter, which costs more than some hashes do.
pub fn hex_of(hash: &[u8; 32]) -> String {
    let mut letters = vec![0; 64];
    // It fails only where the lengths do not fit.
    hex::encode_to_slice(hash, &mut letters).unwrap_or_default();
    String::from_utf8(letters).unwrap_or_default()
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

    /// Whether the record is gone: its frame has neither record nor salt. Whether it may be is for [`crate::verify`] to say.
    pub fn is_erased(&self) -> bool {
        self.record.is_empty() && self.salt == [0; 32]
    }

    /// The private record, if it is there.
    pub fn record(&self) -> Option<&[u8]> {
        (!self.is_erased()).then_some(self.record.as_slice())
    }

    /// Whether the leaf commits to this salt and record.
    pub fn is_committed(&self) -> bool {
        self.parse_leaf()
            .is_ok_and(|leaf| leaf.commitment == hex::encode(commitment(&self.salt, &self.record)))
    }
}

/// The private record of an [`Kind::Erased`] entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedRecord {
    /// Which entries: from, and until (exclusive).
    pub entries: Vec<(u64, u64)>,
    /// Why.
    pub reason: String,
    /// By whom.
    pub by: String,
}

/// The private record of a [`Kind::LegalHold`] entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRecord {
    /// Whether it stands from here on.
    pub stands: bool,
    /// Why.
    pub reason: String,
    /// By whom.
    pub by: String,
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
