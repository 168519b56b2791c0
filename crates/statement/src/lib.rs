//! What a statement's text says, by PostgreSQL's own grammar (libpg_query). Pure.
//!
//! [`analysis`] is the way in: one parse of a text finds what the [`allow_list`] says of it, the
//! [`scope`] of its result (with [`bounds`] on the rows behind one row), what it does to the
//! session's [`names`], and whether it pins a connection ([`pinning`]). [`functions`] has what is
//! known of PostgreSQL's functions, [`symbols`] the names behind which a store can have code of its own.
//! [`shape`] takes constants away, [`settings`] says how the store reads the bytes, [`column_refs`] finds
//! the columns that a text names, [`carried`] writes and recognises the statements that carry settings between
//! connections.

pub mod allow_list;
pub mod analysis;
pub mod asked;
mod bounds;
pub mod carried;
pub mod column_refs;
pub mod functions;
pub mod names;
mod pinning;
pub mod scope;
pub mod settings;
pub mod shape;
pub mod symbols;
mod tree;
pub mod words;
