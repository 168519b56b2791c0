//! Nothing without a bound.

mod strangers;
