//! The verifier's page in a real browser: it says what the program on the command line says, of what holds and of what was changed.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Demo, text};

/// `None` where this Rust has no target for it and cannot get one.
fn build(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = std::env::temp_dir().join(name);
    let built = Command::new(root.join("scripts/page.sh")).arg(&out).output().unwrap();
    if built.status.code() == Some(3) {
        eprintln!("NOT TESTED, the page: {}", text(&built));
        return None;
    }
    assert!(built.status.success(), "{}", text(&built));
    Some(out)
}

fn browse(page: &Path, trust: &Path, subjects: &[&Path]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("node")
        .arg(root.join("tests/drivers/page_test.js"))
        .args([page, trust])
        .args(subjects)
        .env("NODE_PATH", root.join("target/drivers/node/node_modules"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    output.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn lines<'a>(shown: &'a Value, kind: &str) -> Vec<&'a str> {
    shown[kind].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

#[test]
fn the_page_says_what_the_program_says() {
    let Some(page) = build(&format!("rf-page-{}.html", std::process::id())) else { return };
    let demo = Demo::start("page");
    for _ in 0..3 {
        demo.psql("singapore-analyst", "us", "select id, email from users where id < 50");
    }
    demo.psql("beijing-engineer", "us", "select id from users limit 3");
    std::thread::sleep(std::time::Duration::from_secs(3));
    let folder = demo.dir.join("answer");
    let written = demo.ringfence(&["audit", "bundle", "--complete", "--out", &folder.display().to_string()]);
    assert!(written.status.success(), "{}", text(&written));
    let trust = demo.dir.join("witnesses.policy");

    let forged = demo.dir.join("forged");
    assert!(Command::new("cp").arg("-r").args([&folder, &forged]).status().unwrap().success());
    let record = find_record(&forged);
    let changed = fs::read_to_string(&record).unwrap().replacen("singapore-analyst", "somebody-else", 1);
    fs::write(&record, changed).unwrap();
    let neither = demo.dir.join("keys");

    let shown = browse(&page, &trust, &[&folder, &forged, &neither]);
    let [holds, fails, cannot] = shown.as_slice() else { panic!("{shown:?}") };

    let untrusted = &browse(&page, Path::new("-"), &[&folder])[0];
    assert_eq!(
        (&untrusted["code"], &untrusted["verdict"]),
        (&Value::from(0), &Value::from("It hangs together"))
    );

    let told = Command::new(support::verifier())
        .args([&folder, Path::new("--trust"), &trust])
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    let by = |word: &str| -> Vec<&str> {
        said.lines().filter_map(|l| l.strip_prefix(word)).map(str::trim).collect()
    };
    assert!(!by("PROVEN").is_empty() && !by("CLAIMED").is_empty(), "{said}");
    assert_eq!(lines(holds, "proven"), by("PROVEN"));
    assert_eq!(lines(holds, "claimed"), by("CLAIMED"));
    assert_eq!((&holds["code"], &holds["verdict"]), (&Value::from(0), &Value::from("It holds")));

    assert_eq!((&fails["code"], &fails["verdict"]), (&Value::from(1), &Value::from("It does not hold")));
    assert!(!lines(fails, "wrong").is_empty());
    assert_eq!(cannot["code"], 2, "{cannot}");
    assert!(
        cannot["text"].as_str().unwrap().contains("neither a bundle, nor a log, nor a proof"),
        "{cannot}"
    );

    for shown in [holds, fails, cannot] {
        assert_eq!(shown["requests"], Value::from(Vec::<Value>::new()));
        assert_eq!(shown["escaped"], serde_json::json!([false, false]), "the page can reach something");
    }
    fs::remove_file(page).unwrap();
}

/// A private record of the answer that names the analyst.
fn find_record(bundle: &Path) -> PathBuf {
    let output = Command::new("grep").args(["-rl", "singapore-analyst"]).arg(bundle).output().unwrap();
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    PathBuf::from(found.lines().next().expect("the answer names the analyst"))
}
