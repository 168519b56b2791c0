//! Keys of logs, in the forms of [C2SP signed-note](https://c2sp.org/signed-note).
//!
//! Wherever a public key is asked for, a text may hold several, one a line, all of one name: the first is the current one,
//! the others are retired. So a log's keys rotate, and what an older key signed still verifies.

use signed_note::{StandardSigner, StandardVerifier, Verifier as _};

use crate::Error;

/// The origin line of a log: the name in its keys.
pub fn origin(key: &str) -> Option<&str> {
    let mut parts = key.trim().strip_prefix("PRIVATE+KEY+").unwrap_or(key.trim()).split('+');
    parts.next().filter(|name| !name.is_empty())
}

/// The signers in `skeys`, one a line.
pub fn signers(skeys: &str) -> Result<Vec<StandardSigner>, Error> {
    lines(skeys)?.map(|key| StandardSigner::new(key).map_err(|e| Error::Key(e.to_string()))).collect()
}

/// The verifiers in `vkeys`, one a line, all of one name.
pub fn verifiers(vkeys: &str) -> Result<Vec<StandardVerifier>, Error> {
    let found: Result<Vec<_>, _> =
        lines(vkeys)?.map(|key| StandardVerifier::new(key).map_err(|e| Error::Key(e.to_string()))).collect();
    let found = found?;
    match found.iter().find(|key| key.name() != found[0].name()) {
        Some(other) => Err(Error::Key(format!("keys of two logs, {} and {}", found[0].name(), other.name()))),
        None => Ok(found),
    }
}

fn lines(text: &str) -> Result<impl Iterator<Item = &str>, Error> {
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).peekable();
    if lines.peek().is_none() {
        return Err(Error::Key("there is no key".to_owned()));
    }
    Ok(lines)
}
