//! What a statement's text says, by PostgreSQL's own grammar (libpg_query): [`shape`] takes its constants away, [`touched`]
//! finds which columns it reaches. Pure.

pub mod shape;
pub mod touched;
