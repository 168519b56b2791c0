//! Bundles of a log with several tiles.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

use std::fs;
use std::time::Duration;

use ringfence_ledger::{Counters, Crossing, Entry, Kind, Ledger, Settings, generate_keys};
use ringfence_reports::bundle::{Source, write};
use ringfence_reports::index::update;
use ringfence_reports::question::{Question, ask};
use ringfence_verifier::bundle::{LEAVES, check};
use ringfence_verifier::quorum::Quorum;
use serde_json::json;

#[test]
fn whole_tiles_prove_that_nothing_was_kept_back() {
    let place = tempfile::tempdir().unwrap();
    let (dir, index) = (place.path().join("log"), place.path().join("index"));
    let keys = generate_keys("test.example/log");
    let settings = Settings {
        dir: dir.clone(),
        skey: keys.signer.clone(),
        vkey: keys.verifier.clone(),
        publish_every: Duration::from_secs(9),
        witnesses: None,
        bucket: None,
    };
    let open = || Ledger::open(&settings).unwrap();
    let ledger = open();
    ledger.record(Entry::new(Kind::GatewayStarted, "-", &json!({})));
    let countries = ["US", "SG", "CN"];
    for (n, country) in countries.iter().enumerate() {
        let crossing = (n > 0).then(|| Crossing { from: (*country).into(), covered: n == 2 });
        let session = json!({
            "session": country, "principal": format!("p-{country}"), "location": country, "employer": "e",
            "covered": if n == 2 { Some("why") } else { None }, "store": "us", "face": "f", "grants": [],
        });
        ledger.record(Entry::new(Kind::SessionOpened, "us", &session).crossing(crossing.as_ref()));
    }
    let statement = |n: u64, kind: Kind| {
        let which = usize::try_from(n % 3).unwrap();
        let crossing = (which > 0).then(|| Crossing { from: countries[which].into(), covered: which == 2 });
        let record = json!({ "session": countries[which], "n": n, "statement": "select email from users" });
        let counters = Counters { rows: if kind == Kind::Outcome { 2 } else { 0 }, ..Counters::default() };
        Entry::new(kind, "us", &record).crossing(crossing.as_ref()).counting(counters)
    };
    for n in 0..1000 {
        ledger.record(statement(n, Kind::Intent));
        if n % 100 != 2 {
            ledger.record(statement(n, Kind::Outcome));
        }
    }
    drop(ledger);
    let mut seen = 0;
    update(&index, &dir, &keys.verifier, |progress| seen = progress.entries).unwrap();
    let question = Question { from: Some("CN".into()), ..Question::default() };
    let answer = ask(std::slice::from_ref(&index), &question, None, true).unwrap();
    assert_eq!((answer.people[0].1.statements, answer.people[0].1.rows), (333, 2 * (333 - 4)));

    let trust = format!("log {}\nquorum none\n", keys.verifier);
    let quorum = Quorum::parse(&trust).unwrap();
    let sources = [Source { index: index.clone(), vkeys: keys.verifier.clone() }];
    let out = place.path().join("bundle");
    let written = write(&out, &sources, &question, true, &trust, 1).unwrap();
    assert!(written.leaves > 1500 && written.statements == 333, "{written:?}");
    let verdict = check(&out, Some(&quorum));
    assert_eq!(verdict.problems, Vec::<String>::new());
    assert!(
        verdict.proven.iter().any(|p| p.contains("nothing across the border that answers was kept back")),
        "{verdict:?}"
    );
    // Any leaf that is not the log's is noticed, whoever's it is.
    let leaves = fs::read(out.join("log-0").join(LEAVES)).unwrap();
    for at in [10, leaves.len() / 2, leaves.len() - 10] {
        let mut changed = leaves.clone();
        changed[at] ^= 1;
        fs::write(out.join("log-0").join(LEAVES), changed).unwrap();
        assert!(!check(&out, Some(&quorum)).problems.is_empty(), "byte {at}");
    }

    // Nobody can say yet what happens until tomorrow.
    let tomorrow = Question { until: Some(ringfence_ledger::now_ms() + 86_400_000), ..question.clone() };
    let early = place.path().join("early");
    write(&early, &sources, &tomorrow, true, &trust, 1).unwrap();
    let verdict = check(&early, Some(&quorum));
    assert_eq!(verdict.problems, Vec::<String>::new());
    assert!(!verdict.proven.iter().any(|p| p.contains("was kept back")), "{verdict:?}");
    assert!(verdict.claimed.iter().any(|c| c.contains("after the time was over")), "{verdict:?}");
    // The same log twice counts for nothing, and so does none.
    for logs in [json!([]), json!(["log-0", "log-1"])] {
        let forged = place.path().join("forged");
        let _ = fs::remove_dir_all(&forged);
        let copy = |from: &str, to: &str| {
            let done =
                std::process::Command::new("cp").arg("-r").arg(out.join(from)).arg(forged.join(to)).status();
            assert!(done.unwrap().success());
        };
        fs::create_dir(&forged).unwrap();
        copy("trust.policy", "trust.policy");
        let mut index: serde_json::Value =
            serde_json::from_slice(&fs::read(early.join("bundle.json")).unwrap()).unwrap();
        let part = index["logs"][0].clone();
        let parts = logs.as_array().unwrap().iter().map(|dir| {
            copy("log-0", dir.as_str().unwrap());
            let mut part = part.clone();
            part["dir"] = dir.clone();
            part
        });
        index["logs"] = parts.collect();
        fs::write(forged.join("bundle.json"), index.to_string()).unwrap();
        let verdict = check(&forged, Some(&quorum));
        assert!(verdict.problems[0].contains("names no log, or one of them twice"), "{verdict:?}");
    }

    // The index goes on where it stopped, also in the middle of statements.
    let ledger = open();
    for n in [2, 302] {
        ledger.record(statement(n, Kind::Outcome));
    }
    drop(ledger);
    update(&index, &dir, &keys.verifier, |_| {}).unwrap();
    let grown = ask(std::slice::from_ref(&index), &question, None, true).unwrap();
    assert_eq!((grown.people[0].1.statements, grown.people[0].1.rows), (333, 2 * (333 - 2)));
    // A portal that is fetched in pieces has an end for each: one statement, all rows.
    let ledger = open();
    ledger.record(statement(998, Kind::Outcome));
    drop(ledger);
    update(&index, &dir, &keys.verifier, |_| {}).unwrap();
    let pieces = ask(std::slice::from_ref(&index), &question, None, true).unwrap();
    assert_eq!((pieces.people[0].1.statements, pieces.people[0].1.rows), (333, 2 * (333 - 2) + 2));
    let grown = pieces;
    let pieces = place.path().join("pieces");
    write(&pieces, &sources, &question, true, &trust, 1).unwrap();
    assert_eq!(check(&pieces, Some(&quorum)).problems, Vec::<String>::new());
    let anew = place.path().join("anew");
    update(&anew, &dir, &keys.verifier, |_| {}).unwrap();
    assert_eq!(ask(&[anew], &question, None, true).unwrap().people, grown.people);
    // Of another log it is begun anew.
    let other = generate_keys("test.example/other");
    assert!(update(&index, &dir, &other.verifier, |_| {}).is_err());
}
