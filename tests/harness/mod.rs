//! What the tests share: a demo with real PostgreSQL, a client that speaks the protocol by hand, and the
//! ledger as it lies on the disk.

pub mod client;
pub mod database;
pub mod ledger;
#[path = "../support/mod.rs"]
pub mod support;
