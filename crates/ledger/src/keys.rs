//! The log's signing key, in the forms of [C2SP signed-note](https://c2sp.org/signed-note).

use signed_note::{StandardSigner, StandardVerifier};

use crate::Error;

/// A signer (`PRIVATE+KEY+…`) and its verifier key (`name+hash+key`).
pub struct Keys {
    /// The private half; never printed.
    pub signer: String,
    /// The public half, the "vkey" that everybody may have.
    pub verifier: String,
}

/// Makes a new Ed25519 key for the log `origin`.
pub fn generate_keys(origin: &str) -> Keys {
    let (signer, verifier) = signed_note::generate_key(&mut rand_core::OsRng, origin);
    Keys { signer, verifier }
}

/// The origin line of a log: the name in its keys.
pub fn origin(key: &str) -> Option<&str> {
    let mut parts = key.strip_prefix("PRIVATE+KEY+").unwrap_or(key).split('+');
    parts.next().filter(|name| !name.is_empty())
}

pub(crate) fn signer(skey: &str) -> Result<StandardSigner, Error> {
    StandardSigner::new(skey.trim()).map_err(|e| Error::Key(e.to_string()))
}

pub(crate) fn verifier(vkey: &str) -> Result<StandardVerifier, Error> {
    StandardVerifier::new(vkey.trim()).map_err(|e| Error::Key(e.to_string()))
}
