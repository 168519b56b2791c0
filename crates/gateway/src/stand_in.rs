//! What goes to the store in the place of a client's message, so that the store's own answer comes in its turn.

use crate::frame::{put, put_str};
use crate::relay::statement::SharedStatement;

/// What stands in a refused statement's place; the number comes after it.
pub const REFUSED: &str = "ringfence_refused_";

/// What goes to the store for a `DEALLOCATE` of a shared statement; the tag of its answer is replaced.
pub use ringfence_statement::carried::DEALLOCATE;

/// The answer to a `DEALLOCATE`.
pub fn deallocated() -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b'C', |out| put_str(out, "DEALLOCATE"));
    out
}

/// A Query.
pub fn query(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b'Q', |out| put_str(out, text));
    out
}

/// A Parse that the store refuses. It has a name: the unnamed statement ends when another one is parsed, whether
/// that succeeds or not.
pub fn parse(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b'P', |out| {
        put_str(out, "ringfence_refused");
        put_str(out, text);
        out.extend_from_slice(&[0, 0]);
    });
    out
}

/// What goes to the store in the place of a message that is none of COPY's, while the store waits for its data. It
/// gives the COPY up and is lost, as with PostgreSQL; by a CopyFail, so that it never runs as something else than
/// what it is.
pub fn out_of_turn(tag: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let reason = format!("unexpected message type 0x{tag:02X} during COPY from stdin");
    put(&mut out, b'f', |out| put_str(out, &reason));
    out
}

/// A Parse message under the shared name.
pub fn prepare(prepared: &SharedStatement) -> Vec<u8> {
    let mut out = Vec::with_capacity(prepared.definition.len() + 32);
    put(&mut out, b'P', |out| {
        put_str(out, &prepared.name());
        out.extend_from_slice(&prepared.definition);
    });
    out
}

/// A Flush: the store sends the answers that it has.
pub fn flush() -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b'H', |_| {});
    out
}

/// A Sync.
pub fn sync() -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b'S', |_| {});
    out
}

/// A Describe of a portal.
pub fn describe(portal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(portal.len() + 8);
    put(&mut out, b'D', |out| {
        out.push(b'P');
        out.extend_from_slice(portal);
        out.push(0);
    });
    out
}

/// A Close of a statement that is never there, for its answer: CloseComplete, in its turn.
pub fn close_nothing() -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b'C', |out| {
        out.push(b'S');
        put_str(out, "ringfence_nothing");
    });
    out
}
