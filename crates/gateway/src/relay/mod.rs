//! The parts of the relay between a client and a store that are decisions: what [`names`] stand for (kept
//! [`by_name`]) and what a [`statement`] runs by them ([`resolve`]), which texts of the store a client may read
//! ([`error_fields`]), which text is on record already ([`recorded_texts`]); and the one [`exit`] for bytes
//! to the client, with the [`cuts`] that shut it.

pub mod by_name;
pub mod cuts;
pub mod error_fields;
pub mod exit;
pub mod names;
pub mod recorded_texts;
pub mod resolve;
pub mod statement;
