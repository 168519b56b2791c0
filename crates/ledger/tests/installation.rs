//! Several logs and a manifest, checked together.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfence_ledger::{Entry, Keys, Kind, Ledger, Settings, generate_keys, now_ms};
use ringfence_verifier::installation::verify;
use ringfence_verifier::manifest::{self, LogKey, Manifest, Mention};
use serde_json::json;

struct Place {
    dir: tempfile::TempDir,
    keys: Keys,
    manifest: Manifest,
}

impl Place {
    fn new() -> Self {
        let manifest = Manifest { name: "test.example".into(), version: 1, logs: Vec::new() };
        Self { dir: tempfile::tempdir().unwrap(), keys: generate_keys("test.example/manifest"), manifest }
    }

    fn add(&mut self, vkey: &str) {
        self.manifest.logs.push(LogKey { vkey: vkey.trim().to_owned(), from: 0, until: None });
        self.manifest.version += 1;
    }

    fn mention(&self) -> Mention {
        let note = self.manifest.sign(&self.keys.signer).unwrap();
        Mention { version: self.manifest.version, digest: manifest::digest(&note).unwrap() }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What is wrong, `after` seconds from now.
    fn problems(&self, logs: &[&str], after: u64) -> Vec<String> {
        let dirs: Vec<PathBuf> = logs.iter().map(|l| self.log(l)).collect();
        let found = verify(&self.manifest, &self.mention().digest, &dirs, None, now_ms() / 1000 + after);
        assert!(found.logs.iter().all(|l| l.report.problems.is_empty()), "{found:?}");
        found.problems
    }
}

fn run(dir: &Path, skey: &str, vkey: &str, mention: &Mention, stop: bool) {
    let settings = Settings {
        dir: dir.to_owned(),
        skey: skey.to_owned(),
        vkey: vkey.to_owned(),
        publish_every: Duration::from_millis(5),
        witnesses: None,
        bucket: None,
    };
    let ledger = Ledger::open(&settings).unwrap();
    let record = json!({ "version": "test", "manifest": mention });
    ledger.append(Entry::new(Kind::GatewayStarted, "-", &record)).wait().unwrap();
    if stop {
        ledger.append(Entry::new(Kind::GatewayStopped, "-", &json!({}))).wait().unwrap();
    }
}

#[test]
fn a_log_that_is_missing_silent_unknown_or_elsewhere_is_named() {
    let mut place = Place::new();
    let (one, two) = (generate_keys("test.example/1"), generate_keys("test.example/2"));
    place.add(&one.verifier);
    place.add(&two.verifier);
    let mention = place.mention();
    run(&place.log("one"), &one.signer, &one.verifier, &mention, false);
    run(&place.log("two"), &two.signer, &two.verifier, &mention, true);
    assert_eq!(place.problems(&["one", "two"], 0), Vec::<String>::new());
    assert!(place.problems(&["one"], 0)[0].contains("test.example/2: is in the manifest and not here"));
    let silent = place.problems(&["one", "two"], 1000);
    assert!(silent.len() == 1 && silent[0].contains("test.example/1: is silent since"), "{silent:?}");
    let stranger = generate_keys("test.example/3");
    run(&place.log("three"), &stranger.signer, &stranger.verifier, &mention, true);
    assert!(
        place.problems(&["one", "two", "three"], 0)[0].contains("test.example/3: is not in the manifest")
    );
    fs::rename(place.log("three"), place.log("x")).unwrap();
    run(&place.log("again"), &one.signer, &one.verifier, &mention, true);
    assert!(place.problems(&["one", "two", "again"], 0)[0].contains("test.example/1: is there twice"));

    // A manifest from which a log was taken, shown instead of the one that was in use.
    let newer = place.manifest.clone();
    place.manifest = Manifest { version: 2, logs: vec![newer.logs[0].clone()], ..newer.clone() };
    assert!(place.problems(&["one"], 0)[0].contains("a newer manifest than the one that is shown"));
    place.manifest.version = newer.version;
    assert!(place.problems(&["one"], 0)[0].contains("another manifest of version 3"));
}

#[test]
fn keys_rotate_and_what_was_signed_before_goes_on_to_verify() {
    let mut place = Place::new();
    let (old, new) = (generate_keys("test.example/1"), generate_keys("test.example/1"));
    place.add(&old.verifier);
    let first = place.mention();
    run(&place.log("one"), &old.signer, &old.verifier, &first, true);
    let proof = ringfence_verifier::proof::prove(&place.log("one"), &old.verifier, 0, true).unwrap();
    place.add(&new.verifier);
    let vkeys = format!("{}\n{}\n", new.verifier, old.verifier);
    run(&place.log("one"), &format!("{}\n{}", new.signer, old.signer), &vkeys, &place.mention(), true);
    assert_eq!(place.problems(&["one"], 0), Vec::<String>::new());
    // Whoever knows only the old key still can.
    assert_eq!(ringfence_verifier::verify::verify(&place.log("one"), &old.verifier).problems.len(), 0);
    place.manifest.logs[0].until = Some(now_ms() / 1000);
    place.manifest.version += 1;
    run(&place.log("one"), &new.signer, &vkeys, &place.mention(), true);
    assert_eq!(place.problems(&["one"], 0), Vec::<String>::new());
    assert_ne!(ringfence_verifier::verify::verify(&place.log("one"), &old.verifier).problems.len(), 0);
    ringfence_verifier::proof::check(proof.as_bytes(), &vkeys, None).unwrap();
    // Whoever has stolen the old key goes on with it: it vouches for nothing that is newer than its time.
    place.manifest.logs[0].until = Some(now_ms() / 1000 - 10);
    place.manifest.version += 1;
    run(&place.log("one"), &old.signer, &vkeys, &place.mention(), true);
    let problems = place.problems(&["one"], 0);
    assert!(problems.iter().any(|p| p.contains("no key whose time it was")), "{problems:?}");
}
