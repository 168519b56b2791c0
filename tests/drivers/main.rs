//! Clients work unchanged: psycopg, node-postgres, psql's `\d` and `\copy`, pg_dump.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Demo, text};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn run(mut command: Command) -> String {
    let output = command.env("PGPASSWORD", "demo").stdin(Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

#[test]
fn clients_work_unchanged() {
    let demo = Demo::start("drivers");
    psycopg(&demo);
    node(&demo);
    psql_describes(&demo);
    psql_copies_out_and_in(&demo);
    pg_dump(&demo);
}

fn psycopg(demo: &Demo) {
    let mut command = Command::new(root().join("target/drivers/python/bin/python"));
    command.arg(root().join("tests/drivers/psycopg_test.py")).arg(demo.port.to_string());
    assert!(run(command).contains("psycopg: all as expected"));
}

fn node(demo: &Demo) {
    let mut command = Command::new("node");
    command
        .arg(root().join("tests/drivers/pg_test.js"))
        .arg(demo.port.to_string())
        .env("NODE_PATH", root().join("target/drivers/node/node_modules"));
    assert!(run(command).contains("node-postgres: all as expected"));
}

/// psql's catalogue queries pass the allow-list, and show the face to whom it is a face.
fn psql_describes(demo: &Demo) {
    for (who, table, column) in [("singapore-analyst", "users", "email"), ("us-engineer", "users", "email")] {
        for describe in [
            "\\d",
            "\\dt+",
            "\\dv",
            "\\dn",
            "\\df",
            "\\du",
            "\\l",
            "\\dp",
            "\\dT",
            "\\di",
            "\\dconfig search_path",
        ] {
            let output = demo.psql(who, "us", describe);
            assert!(output.status.success(), "{who} {describe}: {}", text(&output));
        }
        let output = demo.psql(who, "us", &format!("\\d {table}"));
        assert!(text(&output).contains(column), "{who}: {}", text(&output));
    }
    let output = demo.psql("beijing-engineer", "us", "\\d users");
    assert!(!text(&output).contains("email") && text(&output).contains("country"), "{}", text(&output));
}

fn psql_copies_out_and_in(demo: &Demo) {
    let file = demo.dir.join("out.csv");
    let out = format!(
        "\\copy (select id, handle from (select user_id as id, handle from profiles order by 1 limit 500) s) to '{}' csv",
        file.display()
    );
    let output = demo.psql("us-engineer", "us", &out);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 500);
    let script = format!(
        "create temp table back (id bigint, handle text);\n\\copy back from '{}' csv\nselect 'back: ' || count(*) from back;\n",
        file.display()
    );
    let path = demo.dir.join("back.sql");
    std::fs::write(&path, script).unwrap();
    let mut command = Command::new("psql");
    command
        .arg(demo.dsn("us-engineer", "us"))
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-A", "-t", "-f"])
        .arg(&path);
    assert!(run(command).contains("back: 500"));
    // Through a face, too, but only out.
    let output = demo.psql(
        "singapore-analyst",
        "us",
        &format!("\\copy (select * from users limit 5) to '{}'", file.display()),
    );
    assert!(
        output.status.success() && std::fs::read_to_string(&file).unwrap().contains("@masked.invalid"),
        "{}",
        text(&output)
    );
}

/// A dump through the gateway is the dump past it, also while a grant has row-level security switched on.
fn pg_dump(demo: &Demo) {
    demo.grant("singapore-analyst", "users.email", "id = 4711", &[]);
    assert!(demo.psql("singapore-analyst", "us", "select 1 from users").status.success());
    let dump = |dsn: String, password: &str| {
        let mut command = Command::new("pg_dump");
        command
            .arg("--data-only")
            .arg("--schema=public")
            .arg("--no-sync")
            .arg("-d")
            .arg(dsn)
            .env("PGPASSWORD", password);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Each run has a random key in \restrict lines.
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let through = dump(demo.dsn("us-engineer", "us"), "demo");
    let past = dump(format!("host={} user=postgres dbname=us", demo.dir.join("us-trusted").display()), "");
    assert!(through.contains("COPY public.users") && through.len() > 100_000);
    assert!(through == past, "the dumps differ");
}
