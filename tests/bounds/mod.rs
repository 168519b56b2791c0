//! Nothing without a bound.

mod row_security;
mod strangers;
