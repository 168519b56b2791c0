//! The tests that need the real parts, in one binary: `cargo test -p ringfence --test suite`.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test that cannot go on fails")]

mod bounds;
mod harness;
mod limits;
