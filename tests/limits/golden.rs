//! Logs and bundles that commit 496c2b5 wrote: they verify, and answer as they did then.

use std::path::{Path, PathBuf};

use ringfence_reports::index;
use ringfence_reports::question::{Question, ask};
use ringfence_reports::reconcile::{Reconciliation, Settings};
use ringfence_verifier::{bundle, verify};
use serde_json::Value;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/496c2b5")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden().join(name)).unwrap()).unwrap()
}

#[test]
fn an_old_log_verifies_and_answers_as_before() {
    let vkey = std::fs::read_to_string(golden().join("ledger.vkey")).unwrap();
    let report = verify::verify(&golden().join("ledger"), vkey.trim());
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(report.entries > 0);
    let dir = tempfile::tempdir().unwrap();
    index::update(dir.path(), &golden().join("ledger"), vkey.trim(), |_| {}).unwrap();
    for (name, column) in [("who.json", None), ("who-email.json", Some("users.email"))] {
        let question = Question { column: column.map(str::to_owned), ..Question::default() };
        let answer = ask(&[dir.path().to_owned()], &question, None, false).unwrap();
        let people = serde_json::to_value(&answer.people).unwrap();
        assert_eq!(people, json(name)["people"], "{name}");
    }
}

#[test]
fn an_old_bundle_convinces() {
    let verdict = bundle::check(&golden().join("bundle"), None);
    assert!(verdict.problems.is_empty(), "{verdict:?}");
    assert!(verdict.proven.iter().any(|p| p.contains("singapore-analyst")), "{verdict:?}");
}

#[test]
fn an_old_log_reconciles_as_before() {
    let settings = Settings {
        store: "us".to_owned(),
        database: "us".to_owned(),
        steward: "ringfence".to_owned(),
        allowed: Vec::new(),
        since: 0,
    };
    let mut findings = Vec::new();
    let mut reconciliation = Reconciliation::new(settings, &[golden().join("ledger")]).unwrap();
    reconciliation
        .read(&golden().join("postgresql.csv"), |finding| findings.push(finding), |_, _| {})
        .unwrap();
    let summary = reconciliation.finish(|finding| findings.push(finding)).unwrap();
    let before = json("reconcile.json");
    assert_eq!(serde_json::to_value(&summary).unwrap(), before["summary"], "{findings:?}");
    assert_eq!(serde_json::to_value(&findings).unwrap(), before["findings"]);
}
