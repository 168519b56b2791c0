//! Nothing without a bound.

mod facts;
mod owner;
mod row_security;
mod strangers;
