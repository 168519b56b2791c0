//! Records that were erased on record, and records that are only gone.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

use std::fs;
use std::time::Duration;

use ringfence_ledger::erase::{RETENTION_MS, Refused, What, erase, hold};
use ringfence_ledger::{Entry, Kind, Ledger, Settings, generate_keys, now_ms};
use ringfence_verifier::segment::{self, SALT};
use ringfence_verifier::verify::verify;
use ringfence_verifier::{proof, record};
use serde_json::json;

const SECRET: &str = "nobody may know this";

#[test]
fn erased_on_record_is_told_from_missing() {
    let dir = tempfile::tempdir().unwrap();
    let keys = generate_keys("test.example/log");
    let settings = Settings {
        dir: dir.path().to_owned(),
        skey: keys.signer,
        vkey: keys.verifier.clone(),
        publish_every: Duration::from_millis(5),
        witnesses: None,
        bucket: None,
    };
    let ledger = Ledger::open(&settings).unwrap();
    ledger.record(Entry::new(Kind::PolicyChanged, "-", &json!({})));
    for n in 0..600 {
        ledger.record(Entry::new(
            Kind::Intent,
            "us",
            &json!({ "n": n, "statement": if n == 300 { SECRET } else { "x" } }),
        ));
    }
    assert!(erase(&settings, &What::Entries(vec![301]), "r", "b").is_err(), "the gateway runs");
    drop(ledger);
    let entries = |wanted: &[u64]| What::Entries(wanted.to_vec());
    let refused = erase(&settings, &entries(&[0]), "r", "b").unwrap_err();
    assert!(refused.to_string().contains("cannot be verified without it"), "{refused}");
    assert!(matches!(erase(&settings, &entries(&[9999]), "r", "b"), Err(Refused::NotErasable { .. })));
    assert!(matches!(erase(&settings, &What::Before(now_ms()), "r", "b"), Err(Refused::TooYoung)));
    assert_eq!(erase(&settings, &What::Before(now_ms() - RETENTION_MS - 1000), "age", "b").unwrap(), 0);

    hold(&settings, true, "case 17", "counsel").unwrap();
    let held = erase(&settings, &entries(&[301]), "r", "b").unwrap_err();
    assert!(held.to_string().contains("case 17"), "{held}");
    hold(&settings, false, "case 17 is over", "counsel").unwrap();

    assert_eq!(erase(&settings, &entries(&[301, 5, 6, 7]), "order 12", "counsel").unwrap(), 4);
    let report = verify(dir.path(), &keys.verifier);
    assert_eq!((report.problems, report.erased), (Vec::new(), 4));
    for segment in fs::read_dir(dir.path().join("private")).unwrap() {
        let bytes = fs::read(segment.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(SECRET));
    }
    // The entry itself is there, and provable; its record is not.
    let shown = proof::prove(dir.path(), &keys.verifier, 301, false).unwrap();
    proof::check(shown.as_bytes(), &keys.verifier, None).unwrap();
    assert!(
        proof::prove(dir.path(), &keys.verifier, 301, true).unwrap_err().to_string().contains("was erased")
    );
    // The log goes on.
    let ledger = Ledger::open(&settings).unwrap();
    ledger.append(Entry::new(Kind::Intent, "us", &json!({ "n": 1 }))).wait().unwrap();
    drop(ledger);
    assert!(verify(dir.path(), &keys.verifier).problems.is_empty());

    // Somebody else takes a record away in the same form, and says nothing.
    let segment = segment::list(dir.path()).unwrap().pop().unwrap();
    let mut bytes = Vec::new();
    for (index, entry) in segment::read(&segment).unwrap().entries.into_iter().enumerate() {
        let gone = index == 10;
        let (salt, record) = if gone { ([0; SALT], Vec::new()) } else { (entry.salt, entry.record) };
        segment::encode(&entry.leaf, &salt, &record, &mut bytes).unwrap();
    }
    fs::write(&segment.path, bytes).unwrap();
    let report = verify(dir.path(), &keys.verifier);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(
        report.problems[0].contains("entries 10 to 10 are gone, and no entry says"),
        "{:?}",
        report.problems
    );
    assert_ne!(record::commitment(&[0; 32], b""), [0; 32]);
}
