//! Nothing without a bound.

mod allowance;
mod facts;
mod owner;
mod row_security;
mod strangers;
