//! How an approver's key comes into the rules: signed by approvers who were there before. Without it whoever writes the registry could
//! put a key of their own in an approver's place, and approve in their name; the log would show it, and nothing would stop it.
//!
//! The first rules of a log are where trust begins. From the first that ask for it (`enrolment = "signed"` in the registry) on, each new
//! key needs as many signatures as a grant did under the rules before.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use ssh_key::PublicKey;
use ssh_key::public::KeyData;

use crate::approvals::verify_signature;

/// What the registry says to ask for it.
pub const SIGNED: &str = "signed";

/// What approvers sign, in canonical JSON (RFC 8785).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// Version of this format.
    pub v: u8,
    /// `enrol`, so that no other text that approvers sign can be taken for one.
    pub what: String,
    /// Whose key it is, by the registry's name.
    pub person: String,
    /// The key: one OpenSSH line.
    pub key: String,
    /// When it was written, in milliseconds since 1970.
    pub created: u64,
}

impl Enrolment {
    /// For a key of a person.
    pub fn new(person: &str, key: &str, created: u64) -> Result<Self, String> {
        let key = key.trim();
        key_of(key)?;
        Ok(Self { v: 1, what: "enrol".to_owned(), person: person.to_owned(), key: key.to_owned(), created })
    }

    /// The text that is signed.
    pub fn canonical(&self) -> Result<String, String> {
        serde_json_canonicalizer::to_string(self).map_err(|e| e.to_string())
    }

    /// Reads a canonical text back; anything else is refused.
    pub fn parse(text: &str) -> Result<Self, String> {
        let enrolment: Self =
            serde_json::from_str(text).map_err(|_| "is no enrolment of this format".to_owned())?;
        if enrolment.v != 1 || enrolment.what != "enrol" || enrolment.canonical()? != text {
            return Err("is no enrolment of this format".to_owned());
        }
        key_of(&enrolment.key)?;
        Ok(enrolment)
    }
}

/// An enrolment with its signatures, as it stands in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// The canonical text.
    pub text: String,
    /// By whom it is signed: SSHSIG, or a passkey's assertion.
    pub signatures: BTreeMap<String, String>,
}

impl Enrolled {
    /// The lines of the registry that say so. Basic strings of TOML are those of JSON.
    pub fn lines(&self) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let mut lines = format!("[[enrolments]]\ntext = {}\n[enrolments.signatures]\n", text(&self.text));
        for (name, signature) in &self.signatures {
            lines.push_str(&[&text(name), " = ", &text(signature), "\n"].concat());
        }
        lines
    }
}

/// The keys of approvers by name: OpenSSH lines.
pub type Keys = BTreeMap<String, String>;

/// Comments are nobody's key.
fn key_of(line: &str) -> Result<KeyData, String> {
    PublicKey::from_openssh(line).map(|key| key.key_data().clone()).map_err(|e| format!("a public key: {e}"))
}

fn keys_of(lines: &str) -> Result<Vec<KeyData>, String> {
    lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(key_of).collect()
}

/// Judges the keys of new rules by those before: each that is new is enrolled, with the signatures of `quorum` others. The error says
/// whose is not, and what is missing; otherwise how many signatures were verified.
pub fn judge(before: &Keys, after: &Keys, enrolled: &[Enrolled], quorum: usize) -> Result<u64, String> {
    let mut verified = 0;
    for (person, lines) in after {
        let known = before.get(person).map(|lines| keys_of(lines)).transpose()?.unwrap_or_default();
        for key in keys_of(lines)?.into_iter().filter(|key| !known.contains(key)) {
            let signed = enrolled
                .iter()
                .filter_map(|one| {
                    let enrolment = Enrolment::parse(&one.text).ok()?;
                    (enrolment.person == *person && key_of(&enrolment.key).ok()? == key)
                        .then(|| signers(before, person, one))
                })
                .max_by_key(BTreeSet::len)
                .unwrap_or_default();
            if signed.len() < quorum.max(1) {
                return Err(format!(
                    "a key of {person} is new, and {} approvers have signed its enrolment, not {}",
                    signed.len(),
                    quorum.max(1)
                ));
            }
            verified += signed.len() as u64;
        }
    }
    Ok(verified)
}

/// Who of those before has signed it with a key from before. Nobody enrols themselves.
fn signers<'a>(before: &Keys, person: &str, one: &'a Enrolled) -> BTreeSet<&'a str> {
    let holds = |name: &str, signature: &str| {
        before.get(name).is_some_and(|keys| verify_signature(&one.text, signature, keys).is_ok())
    };
    let signed = one.signatures.iter().filter(|(name, signature)| *name != person && holds(name, signature));
    signed.map(|(name, _)| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, rand_core::OsRng};

    use super::*;
    use crate::approvals::NAMESPACE;

    fn key() -> PrivateKey {
        PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap()
    }

    fn line(key: &PrivateKey) -> String {
        key.public_key().to_openssh().unwrap()
    }

    fn sign(key: &PrivateKey, text: &str) -> String {
        key.sign(NAMESPACE, HashAlg::Sha512, text.as_bytes()).unwrap().to_pem(LineEnding::LF).unwrap()
    }

    #[test]
    fn a_new_key_needs_those_who_were_there_before() {
        let (ann, bob, cleo, new) = (key(), key(), key(), key());
        let before = Keys::from([
            ("ann".to_owned(), line(&ann)),
            ("bob".to_owned(), line(&bob)),
            ("cleo".to_owned(), line(&cleo)),
        ]);
        let with = |name: &str, lines: &str| {
            let mut after = before.clone();
            after.insert(name.to_owned(), lines.to_owned());
            after
        };
        let enrolled = |person: &str, key: &PrivateKey, by: &[(&str, &PrivateKey)]| {
            let text = Enrolment::new(person, &line(key), 7).unwrap().canonical().unwrap();
            let signatures = by.iter().map(|(name, key)| ((*name).to_owned(), sign(key, &text))).collect();
            Enrolled { text, signatures }
        };
        // Nothing new, something gone, or another comment: nobody need sign.
        assert_eq!(judge(&before, &before, &[], 2), Ok(0));
        let mut fewer = before.clone();
        fewer.remove("cleo");
        assert_eq!(judge(&before, &fewer, &[], 2), Ok(0));
        assert_eq!(judge(&before, &with("ann", &format!("{} laptop", line(&ann))), &[], 2), Ok(0));
        // Somebody new, or another key of somebody.
        let dora = with("dora", &line(&new));
        assert!(judge(&before, &dora, &[], 2).unwrap_err().contains("a key of dora is new, and 0 approvers"));
        assert_eq!(
            judge(&before, &dora, &[enrolled("dora", &new, &[("ann", &ann), ("bob", &bob)])], 2),
            Ok(2)
        );
        let swapped = with("cleo", &format!("{}\n{}", line(&cleo), line(&new)));
        let good = enrolled("cleo", &new, &[("ann", &ann), ("bob", &bob)]);
        assert_eq!(judge(&before, &swapped, std::slice::from_ref(&good), 2), Ok(2));
        for (what, enrolled) in [
            ("one signature", enrolled("cleo", &new, &[("ann", &ann)])),
            ("her own", enrolled("cleo", &new, &[("ann", &ann), ("cleo", &cleo)])),
            ("the new key's own", enrolled("cleo", &new, &[("ann", &ann), ("cleo", &new)])),
            ("another's key in a name", enrolled("cleo", &new, &[("ann", &ann), ("bob", &ann)])),
            ("for somebody else", enrolled("dora", &new, &[("ann", &ann), ("bob", &bob)])),
            ("of another key", enrolled("cleo", &key(), &[("ann", &ann), ("bob", &bob)])),
            ("somebody who was not there", enrolled("cleo", &new, &[("ann", &ann), ("dora", &new)])),
            (
                "another text",
                Enrolled { text: good.text.replace("\"created\":7", "\"created\":8"), ..good.clone() },
            ),
        ] {
            assert!(judge(&before, &swapped, &[enrolled], 2).is_err(), "{what}");
        }
        // Two halves make no whole: nobody has seen the other.
        let halves = [enrolled("cleo", &new, &[("ann", &ann)]), enrolled("cleo", &new, &[("bob", &bob)])];
        assert!(judge(&before, &swapped, &halves, 2).is_err());
    }
}
