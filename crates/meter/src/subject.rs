//! A data subject without its key: HMAC-SHA-256, truncated to 64 bits. Equal subjects have equal hashes, in all tables, sessions
//! and gateways of an installation; without the secret, a guess at a key cannot be tested against the ledger.
//!
//! 64 bits: among 100,000 subjects (the highest threshold of 28 CFR 202.205) two collide with a probability of 3·10⁻¹⁰.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The hash of a subject's key.
pub type Id = u64;

/// Makes hashes.
#[derive(Clone)]
pub struct SubjectKey(Hmac<Sha256>);

impl std::fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SubjectKey")
    }
}

impl SubjectKey {
    /// From the installation's secret. All its gateways have the same one.
    pub fn new(secret: &[u8]) -> Self {
        let mut mac = Self::mac(secret);
        mac.update(b"ringfence/subject/v1\n");
        Self(Self::mac(&mac.finalize().into_bytes()))
    }

    fn mac(key: &[u8]) -> Hmac<Sha256> {
        Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
    }

    /// For keys of one kind. Equal values of different kinds are different subjects.
    #[must_use]
    pub fn of_kind(&self, kind: &str) -> Self {
        let mut mac = self.0.clone();
        mac.update(kind.as_bytes());
        mac.update(b"\n");
        Self(mac)
    }

    /// For the values of a column: `kind` of subject, and whether a mask's token stands for the key.
    #[must_use]
    pub fn of_column(&self, kind: &str, is_token: bool) -> Self {
        self.of_kind(&format!("{kind}/{}", if is_token { "token" } else { "clear" }))
    }

    /// The hash of a subject, from the text of its key.
    pub fn id(&self, key: &[u8]) -> Id {
        let mut mac = self.0.clone();
        mac.update(key);
        let bytes = mac.finalize().into_bytes();
        let (first, _) = bytes.split_first_chunk().expect("SHA-256 has 32 bytes");
        Id::from_be_bytes(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_subjects_are_one_and_kinds_and_secrets_are_kept_apart() {
        let key = SubjectKey::new(b"secret").of_kind("persons");
        assert_eq!(key.id(b"4711"), key.clone().id(b"4711"));
        assert_ne!(key.id(b"4711"), key.id(b"4712"));
        assert_ne!(key.id(b"4711"), SubjectKey::new(b"secret").of_kind("devices").id(b"4711"));
        assert_ne!(key.id(b"4711"), SubjectKey::new(b"other").of_kind("persons").id(b"4711"));
    }
}
