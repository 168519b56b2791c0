//! Where protected data lies, and how it moves to where it belongs.
//!
//! [`scope`] says which rows of a store belong to a jurisdiction. [`migrate`] moves them, while they are in use, to another store
//! by PostgreSQL's own logical replication. [`copies`] is the register of all other places where protected data lies. [`erase`] removes
//! what is left there, and [`backup`] makes copies that can be erased where nobody reaches them. What may leave the jurisdiction goes by a [`flow`].

pub mod backup;
mod client;
pub mod copies;
pub mod database;
pub mod erase;
pub mod flow;
pub mod migrate;
pub mod scope;

pub use database::{Database, Error};
