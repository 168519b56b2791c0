//! What a statement's text says, by PostgreSQL's own grammar (libpg_query): [`shape`] takes its constants away, [`touched`]
//! finds which columns it reaches, [`carried`] writes and knows the statements that carry settings between connections. Pure.

pub mod carried;
pub mod reach;
pub mod shape;
pub mod touched;
