//! Nothing without a bound.

mod facts;
mod row_security;
mod strangers;
