//! Reports from a ledger that real clients filled: the numbers are what happened, each traces to its entries, nothing personal is
//! in what the public reads, and what is missing is a gap.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

#[path = "support/mod.rs"]
mod support;

use std::path::Path;

use serde_json::Value;
use support::{Demo, text};

fn report(demo: &Demo, kind: &str, more: &[&str]) -> (Value, bool) {
    let out = demo.dir.join("reports").display().to_string();
    let output = demo.ringfence(&[&["report", kind, "--out", &out], more].concat());
    let path = demo.dir.join(format!("reports/{kind}.json"));
    let bytes = std::fs::read(path).unwrap_or_else(|_| panic!("{}", text(&output)));
    (serde_json::from_slice(&bytes).unwrap(), output.status.success())
}

/// How an item of a checklist stands.
fn status(report: &Value, section: &str) -> String {
    let blocks = report["blocks"].as_array().unwrap();
    let item = blocks.iter().find(|b| b["section"] == section).unwrap_or_else(|| panic!("no {section}"));
    item["status"].as_str().unwrap().to_owned()
}

/// The number of a bar, by its caption and label.
fn bar(report: &Value, caption: &str, label: &str) -> Option<String> {
    let blocks = report["blocks"].as_array().unwrap();
    let chart = blocks.iter().find(|b| b["caption"].as_str().is_some_and(|c| c.starts_with(caption)))?;
    let bars = chart["bars"].as_array().unwrap();
    let bar = bars.iter().find(|b| b["label"] == label)?;
    Some(bar["cell"]["text"].as_str().unwrap().to_owned())
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

#[test]
fn reports_say_what_happened_and_nothing_more() {
    let demo = Demo::start("reports");
    let config = demo.dir.join("ringfence.toml");
    let with_reports =
        read(&config) + "\n[reports]\nstatements = \"compliance.toml\"\npurposes = [\"ticket\"]\n";
    std::fs::write(&config, with_reports).unwrap();
    std::fs::write(
        demo.dir.join("compliance.toml"),
        "company = \"clips-us\"\n[[statements]]\nitem = \"I.A.2\"\ntext = \"The chief security officer.\"\nby = \"the board\"\ndate = \"2026-11-01\"\n\
         [[statements]]\nitem = \"202.1001(b)(3)\"\ntext = \"Policy 7.\"\nby = \"the officer\"\ndate = \"2020-01-01\"\n",
    )
    .unwrap();
    for _ in 0..7 {
        demo.psql("singapore-analyst", "us", "select id, email from users where id < 50");
    }
    for _ in 0..6 {
        demo.psql("beijing-engineer", "us", "select id, country from users limit 3");
    }
    demo.psql("us-engineer", "us", "select email from users limit 3");
    demo.psql("singapore-analyst", "us", "update users set email = 'x'");
    demo.psql("beijing-engineer", "legacy", "select 1");
    let used = demo.grant("singapore-analyst", "users.email,users.phone", "id < 100", &[]);
    demo.grant("singapore-analyst", "payments.card_last4", "user_id < 100", &[]);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    demo.psql("singapore-analyst", "us", "select id, email from users where id < 60");
    std::thread::sleep(std::time::Duration::from_secs(2));

    let (public, holds) = report(&demo, "transparency", &[]);
    assert!(holds);
    // Nine with the refused one, which never ran and so is a refusal.
    assert_eq!(bar(&public, "Statements by country", "SG").as_deref(), Some("8"));
    assert_eq!(bar(&public, "Statements by country", "CN").as_deref(), Some("6"));
    assert_eq!(bar(&public, "Statements by standing", "covered persons").as_deref(), Some("6"));
    assert_eq!(bar(&public, "Statements by team", "growth").as_deref(), Some("8"));
    assert_eq!(bar(&public, "Statements that showed", "contact").as_deref(), Some("8"));
    // One statement is under a grant: small, so neither it nor what is left of the sum is shown.
    assert_eq!(
        bar(&public, "Statements by purpose", "under a grant, other purposes").as_deref(),
        Some("not shown")
    );
    let html = read(&demo.dir.join("reports/transparency.html"));
    let json = read(&demo.dir.join("reports/transparency.json"));
    let pdf = read(&demo.dir.join("reports/transparency.pdf"));
    for (what, page) in [("html", &html), ("json", &json), ("pdf", &pdf)] {
        for name in ["singapore-analyst", "beijing-engineer", "us-approver", "clips-", "a test", &used] {
            assert!(!page.contains(name), "{name} is in the public report as {what}");
        }
    }
    assert!(html.contains("Statements by country") && !html.contains("<script") && !html.contains("://"));
    assert!(
        pdf.starts_with("%PDF-1.")
            && pdf.contains("(Statements by country)")
            && pdf.trim_end().ends_with("%%EOF")
    );

    // A figure traces to its entries, and each of those proves itself.
    let traced = demo.ringfence(&["report", "transparency", "--trace", "statements.country.SG", "--json"]);
    let traced: Value = serde_json::from_slice(&traced.stdout).unwrap();
    let entries = traced["entries"].as_array().unwrap();
    assert_eq!((entries.len(), traced["value"].as_u64()), (8, Some(8)));
    for entry in entries {
        let shown = demo.ringfence(&["ledger", "disclose", &entry["entry"].to_string()]);
        assert!(shown.status.success() && text(&shown).contains("tlog-proof"), "{}", text(&shown));
    }
    let nobody = demo.ringfence(&["report", "transparency", "--trace", "statements.country.XX"]);
    assert_eq!(nobody.status.code(), Some(1));
    let later = demo.ringfence(&["report", "transparency", "--year", "2199"]);
    assert_eq!(later.status.code(), Some(2), "{}", text(&later));

    let (restricted, holds) = report(&demo, "restricted-transactions", &[]);
    assert!(!holds, "there are gaps");
    assert_eq!(status(&restricted, "202.1001(b)(1)(i)"), "evidenced");
    assert_eq!(status(&restricted, "202.1001(b)(3)"), "gap", "it was certified years ago");
    assert_eq!(status(&restricted, "202.1002(b)"), "gap");
    assert_eq!(status(&restricted, "202.1103"), "evidenced");
    let page = read(&demo.dir.join("reports/restricted-transactions.html"));
    assert!(
        page.contains(&used) && page.contains("beijing-engineer is ")
            || page.contains("access to legacy is refused"),
        "{page}"
    );

    let (cisa, holds) = report(&demo, "cisa", &[]);
    assert!(!holds);
    assert_eq!(status(&cisa, "I.A.2"), "stated");
    assert_eq!(status(&cisa, "I.A.7"), "gap");
    assert_eq!(status(&cisa, "I.B.3"), "enforced");
    assert_eq!(status(&cisa, "II.B"), "gap", "TLS is not required in the demo");

    let (reduction, holds) = report(&demo, "reduction", &[]);
    assert!(holds);
    assert_eq!(bar(&reduction, "Grants by what", "never used: do not renew").as_deref(), Some("1"));
    assert_eq!(bar(&reduction, "Grants by what", "fewer columns would have done").as_deref(), Some("1"));

    // Whose data: the analyst's statements are found by the subject, the engineer's of Beijing, who saw nothing of theirs, are not.
    let id = demo.superuser("us-trusted", "us", "select min(id) from users");
    let found = demo.ringfence(&["audit", "who-accessed", "--subject", &id, "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let people = found["people"].as_array().unwrap();
    let statements: u64 = people.iter().map(|p| p[1]["statements"].as_u64().unwrap()).sum();
    assert!(people.iter().all(|p| p[0]["person"] == "singapore-analyst"), "{found}");
    assert_eq!((statements, found["unknown"].as_u64()), (8, Some(0)));
    let nobody = demo.ringfence(&["audit", "who-accessed", "--subject", "4999999", "--json"]);
    let nobody: Value = serde_json::from_slice(&nobody.stdout).unwrap();
    assert_eq!(nobody["people"].as_array().unwrap().len(), 0);
}
