//! The ledger: an append-only transparency log of everything that happened. What a log is, and how it is checked, is in
//! [`ringfence_verifier`]; this room writes it.
//!
//! The path of an entry, in the order of the files: [`entry`] makes it, `inbox` gathers what arrives
//! at the same time, [`writer`] hands it on, `journal` makes a whole group durable with one `fdatasync`, [`sequencer`] brings
//! it under tiles and a signed checkpoint soon after, and [`witnessing`] has witnesses cosign that. [`witness`] is the other
//! side: a witness for logs of others. [`sparse_index`] finds entries again.
//!
//! Promise: when a [`Ticket`] resolves to `Ok`, the entry survives the death of the process and of
//! the machine. What must never happen: a public leaf with personal data in it.

pub mod bucket;
pub mod entry;
pub mod erase;
pub(crate) mod http;
pub(crate) mod inbox;
pub(crate) mod journal;
pub mod objects;
pub mod sequencer;
pub mod sparse_index;
pub mod ticket;
pub(crate) mod whole;
pub mod witness;
pub mod witnessing;
pub mod writer;

pub use entry::{Crossing, Entry, now_ms};
pub use inbox::Counts;
pub use ringfence_verifier::tally::{HEARTBEAT_MS, HeartbeatRecord};
pub use ringfence_verifier::{Counters, Error, Kind, Leaf};
pub use sparse_index::SparseIndex;
pub use ticket::{Ticket, Unavailable};
pub use writer::{Keys, Ledger, Settings, WeakLedger, generate_keys};
