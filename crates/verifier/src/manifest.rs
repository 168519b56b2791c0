//! The manifest: which logs there are. Every gateway writes its own log, so whoever wants to know that nothing is missing
//! must know of all of them.
//!
//! It is a signed note (C2SP signed-note) by a key that the in-country security team holds:
//!
//! ```text
//! ringfence-manifest/v1
//! name example.com/ringfence
//! version 2
//! log example.com/ringfence/gw1+1234abcd+AbC… 2026-01-01T00:00:00Z -
//! log example.com/ringfence/gw2+5678abcd+AdE… 2026-02-01T00:00:00Z 2026-03-01T00:00:00Z
//! ```
//!
//! Each line is a key of a log and the time in which it may sign; `-` is "until further notice". A log whose key was rotated
//! has several lines. Every gateway writes version and digest of its manifest into its log when it starts, so a manifest
//! that is older than one that was in use, or another of the same version, shows.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use signed_note::{Note, Signer, VerifierList};

use crate::{Error, keys};

const HEADER: &str = "ringfence-manifest/v1";

/// A key of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogKey {
    /// The key.
    pub vkey: String,
    /// From when it may sign, in seconds since 1970.
    pub from: u64,
    /// Until when; `None` is until further notice.
    pub until: Option<u64>,
}

/// Which logs there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// The installation.
    pub name: String,
    /// Grows with each change.
    pub version: u64,
    /// The logs' keys.
    pub logs: Vec<LogKey>,
}

/// What a gateway's log says of the manifest that it started with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mention {
    /// Its version.
    pub version: u64,
    /// [`digest`] of the signed note.
    pub digest: String,
}

fn malformed(problem: impl Into<String>) -> Error {
    Error::Key(format!("the manifest: {}", problem.into()))
}

/// SHA-256 of the signed note's text, in hex.
pub fn digest(note: &[u8]) -> Result<String, Error> {
    let note = Note::from_bytes(note).map_err(|e| malformed(e.to_string()))?;
    Ok(hex::encode(Sha256::digest(note.text())))
}

impl Manifest {
    /// Verifies and reads a signed manifest.
    pub fn open(note: &[u8], vkey: &str) -> Result<Self, Error> {
        let verifiers = keys::verifiers(vkey)?;
        let note = Note::from_bytes(note).map_err(|e| malformed(e.to_string()))?;
        let known = verifiers.into_iter().map(|v| Box::new(v) as Box<dyn signed_note::Verifier>).collect();
        note.verify(&VerifierList::new(known)).map_err(|e| malformed(e.to_string()))?;
        let text = std::str::from_utf8(note.text()).map_err(|_| malformed("is not text"))?;
        Self::parse(text)
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(malformed(format!("does not begin with {HEADER}")));
        }
        let mut word = |key: &str| {
            let value = lines.next().and_then(|l| l.strip_prefix(key)).and_then(|l| l.strip_prefix(' '));
            value.map(str::to_owned).ok_or_else(|| malformed(format!("has no {key}")))
        };
        let name = word("name")?;
        let version = word("version")?.parse().map_err(|_| malformed("its version is no number"))?;
        let mut logs = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let ["log", vkey, from, until] = words[..] else {
                return Err(malformed(format!("there is a line that is no log: {line}")));
            };
            keys::verifiers(vkey)?;
            let time = |text: &str| seconds(text).ok_or_else(|| malformed(format!("{text} is no time")));
            let until = if until == "-" { None } else { Some(time(until)?) };
            logs.push(LogKey { vkey: vkey.to_owned(), from: time(from)?, until });
        }
        Ok(Self { name, version, logs })
    }

    /// Signs it.
    pub fn sign(&self, skey: &str) -> Result<Vec<u8>, Error> {
        let mut text = format!("{HEADER}\nname {}\nversion {}\n", self.name, self.version);
        for log in &self.logs {
            let until = log.until.map_or_else(|| "-".to_owned(), rfc3339);
            text.push_str(&["log", &log.vkey, &rfc3339(log.from), &until].join(" "));
            text.push('\n');
        }
        let signers = keys::signers(skey)?;
        let signers: Vec<&dyn Signer> = signers.iter().map(|s| s as &dyn Signer).collect();
        let mut note = Note::new(text.as_bytes(), &[]).map_err(|e| malformed(e.to_string()))?;
        note.add_sigs(&signers).map_err(|e| malformed(e.to_string()))?;
        Ok(note.to_bytes())
    }

    /// The keys by log.
    pub fn by_log(&self) -> BTreeMap<&str, Vec<&LogKey>> {
        let mut found: BTreeMap<&str, Vec<&LogKey>> = BTreeMap::new();
        for log in &self.logs {
            found.entry(keys::origin(&log.vkey).unwrap_or_default()).or_default().push(log);
        }
        found
    }

    /// Whether the key may sign at `now`, in seconds since 1970. `vkeys` may be several, of which the first counts.
    pub fn is_alive(&self, vkeys: &str, now: u64) -> bool {
        let current = vkeys.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
        self.logs
            .iter()
            .any(|l| l.vkey == current && l.from <= now && l.until.is_none_or(|until| now < until))
    }
}

/// Seconds since 1970 as `2026-11-24T17:00:00Z` (RFC 3339).
pub fn rfc3339(seconds: u64) -> String {
    // Beyond the year 9999 RFC 3339 has no form; no clock we trust says so.
    let at = UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
    humantime::format_rfc3339_seconds(at).to_string()
}

/// The same backwards; `2026-11-24` alone is its first second.
pub fn seconds(text: &str) -> Option<u64> {
    let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    let at = humantime::parse_rfc3339(&whole).ok()?;
    at.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_of(name: &str) -> (String, String) {
        use base64::Engine as _;
        let seed = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
        let vkey = signed_note::new_ed25519_verifier_key(name, &seed.verifying_key());
        let id = vkey.split('+').nth(1).unwrap().to_owned();
        let material = [&[1_u8][..], &seed.to_bytes()].concat();
        (
            format!("PRIVATE+KEY+{name}+{id}+{}", base64::engine::general_purpose::STANDARD.encode(material)),
            vkey,
        )
    }

    #[test]
    fn what_was_signed_is_read_and_nothing_else() {
        let (skey, vkey) = keys_of("example.com/manifest");
        let (_, log) = keys_of("example.com/gw1");
        let manifest = Manifest {
            name: "example.com".into(),
            version: 3,
            logs: vec![LogKey { vkey: log.clone(), from: 1_000_000_000, until: Some(2_000_000_000) }],
        };
        let note = manifest.sign(&skey).unwrap();
        assert_eq!(Manifest::open(&note, &vkey).unwrap(), manifest);
        assert!(manifest.is_alive(&log, 1_500_000_000) && !manifest.is_alive(&log, 2_000_000_000));
        assert!(!manifest.is_alive(&vkey, 1_500_000_000));
        let text = String::from_utf8(note).unwrap();
        Manifest::open(text.replace("version 3", "version 4").as_bytes(), &vkey).unwrap_err();
    }

    #[test]
    fn times_have_one_spelling() {
        for (text, at) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2026-11-24T17:29:26Z", 1_795_541_366),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!((seconds(text), rfc3339(at).as_str()), (Some(at), text));
        }
        assert_eq!(seconds("2021-09-01"), seconds("2021-09-01T00:00:00Z"));
        for bad in [
            "",
            "2021",
            "2021-02-31",
            "2021-13-01",
            "2021-00-10",
            "2021-01-01T24:00:00Z",
            "2021-01-01T00:60:00Z",
            "x-1-1",
            "2021-09-01T00:00:00",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
