//! The side door: PostgreSQL's own log beside the ledger.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support::{Demo, text};

struct Place {
    demo: Demo,
    log: PathBuf,
    since: String,
}

impl Place {
    fn reconcile(&self, more: &[&str]) -> (bool, Value) {
        let log = self.log.display().to_string();
        let arguments =
            [&["reconcile", "--store", "us", "--json", "--since", &self.since, "--server-log", &log], more]
                .concat();
        let output = self.demo.ringfence(&arguments);
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        (output.status.success(), json)
    }

    fn findings(&self, more: &[&str]) -> Vec<(String, String)> {
        let (clean, json) = self.reconcile(more);
        let word = |f: &Value, key: &str| f[key].as_str().unwrap_or_default().to_owned();
        let found: Vec<_> =
            json["findings"].as_array().unwrap().iter().map(|f| (word(f, "what"), word(f, "role"))).collect();
        assert_eq!(clean, found.is_empty(), "{json}");
        found
    }

    fn pgbench(&self, user: &str, mode: &str, transactions: u32) {
        let script = self.demo.dir.join("reads.sql");
        fs::write(&script, "\\set id random(1, 4000)\nSELECT id, country FROM users WHERE id = :id;\n")
            .unwrap();
        let output = Command::new("pgbench")
            .args(["-n", "-c", "4", "-j", "2", "-M", mode, "-t", &transactions.to_string(), "-f"])
            .arg(&script)
            .arg(self.demo.dsn(user, "us"))
            .env("PGPASSWORD", "demo")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
}

fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let output = Command::new("date").args(["-u", "-d", &format!("@{now}"), "+%FT%TZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn what_did_not_come_through_the_gateway_is_named() {
    let demo = Demo::start("reconcile");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let log = demo.dir.join("us-trusted/log/postgresql.csv");
    let since = now();
    // An honest day: governed people, full access, a counted workload, each protocol, a grant.
    demo.grant("singapore-analyst", "users.email", "id < 100", &["--max-rows", "5000"]);
    let place = Place { demo, log, since };
    for mode in ["simple", "extended", "prepared"] {
        for user in ["us-engineer", "singapore-analyst", "feed-service"] {
            place.pgbench(user, mode, 50);
        }
    }
    let several = "begin; declare c cursor for select id from users; fetch 3 from c; commit";
    for user in ["us-engineer", "singapore-analyst", "feed-service"] {
        assert!(place.demo.psql(user, "us", several).status.success());
        assert!(
            place.demo.psql(user, "us", "copy (select id from users limit 9) to stdout").status.success()
        );
        assert!(!place.demo.psql(user, "us", "select 1/0").status.success());
        assert!(!place.demo.psql(user, "us", "select nothing").status.success());
    }
    let mut place = place;
    place.demo.stop(); // counts are written
    assert_eq!(place.findings(&[]), []);
    let (_, json) = place.reconcile(&[]);
    assert!(json["summary"]["recorded"].as_u64().unwrap() >= 1200, "{json}");
    assert!(json["summary"]["counted"].as_u64().unwrap() >= 600, "{json}");
    assert_eq!(json["summary"]["not_yet"], 0, "{json}");

    // Side doors. The store's superuser, straight into the cluster.
    place.demo.restart();
    let workload = role_of(&place.demo, "feed-service");
    let analyst = role_of(&place.demo, "singapore-analyst");
    place.demo.superuser("us-trusted", "us", "select count(*) from users");
    place.demo.stop();
    let found = place.findings(&[]);
    assert!(found.contains(&("connection".into(), "postgres".into())), "{found:?}");
    assert!(found.contains(&("statement".into(), "postgres".into())), "{found:?}");
    assert_eq!(place.findings(&["--allow", "postgres"]), []);

    // With a role of the gateway's own: the log shows its name only where it logged in, so its lines are made to.
    place.demo.restart();
    place.demo.superuser("us-trusted", "us", "select id from users where id = 4242");
    let original = fs::read_to_string(&place.log).unwrap();
    let door = original.lines().filter(|l| l.contains("4242")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(door.len(), 1, "{door:?}");
    place.demo.stop();
    let by = |role: &str, statement: &str| {
        door[0].replacen("\"postgres\"", &format!("\"{role}\""), 1).replace("4242", statement)
    };
    for (line, what, role) in [
        (by(&analyst, "4242"), "statement", analyst.as_str()),
        (by(&workload, "4242"), "not-counted", &workload),
        (by("ringfence", "4242"), "steward", "ringfence"),
        (by(&analyst, "4242").replace("statement: select", "Anweisung: select"), "not-understood", &analyst),
    ] {
        fs::write(&place.log, format!("{original}{line}\n")).unwrap();
        let found = place.findings(&["--allow", "postgres"]);
        assert_eq!(found, [(what.to_owned(), role.to_owned())], "{line}");
    }
    // A log that was cut says nothing, and nothing is taken for reconciled.
    fs::write(&place.log, &original[..original.len() - 40]).unwrap();
    let log = place.log.display().to_string();
    let output =
        place.demo.ringfence(&["reconcile", "--store", "us", "--since", &place.since, "--server-log", &log]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("was cut"), "{}", text(&output));
    fs::write(&place.log, original).unwrap();
}

/// The store's role of somebody, from the ledger.
fn role_of(demo: &Demo, person: &str) -> String {
    let shown = demo.ringfence(&["ledger", "show", "--json", "--from", "0", "--grep", person]);
    let entries: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let opened = entries
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["leaf"]["kind"] == "session-opened" && e["record"]["store"] == "us");
    opened.unwrap()["record"]["role"].as_str().unwrap().to_owned()
}

/// The side doors that a gateway's ledger has, as (what, role).
fn side_doors(demo: &Demo) -> Vec<(String, String)> {
    let output = demo.ringfence_with("follow", &["ledger", "show", "--json", "--from", "0"]);
    let entries: Vec<Value> =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let word = |e: &Value, key: &str| e["record"][key].as_str().unwrap_or_default().to_owned();
    let doors = entries.iter().filter(|e| e["leaf"]["kind"] == "side-door");
    doors.map(|e| (word(e, "what"), word(e, "role"))).collect()
}

#[test]
fn a_gateway_that_follows_the_servers_log_tells_within_seconds() {
    let demo = Demo::start("follow");
    let served = demo.serve_with("follow", "", |text| {
        let catalogue = "catalogue = \"catalogue.toml\"\n";
        let followed = format!("{catalogue}server_log = \"us-trusted/log\"\n");
        text.replacen(catalogue, &followed, 1).replacen("[\"ringfence_move\"]", "[\"backup\"]", 1)
    });
    // Only through this gateway: the demo's own has a log that this one does not read.
    for user in ["us-engineer", "singapore-analyst", "feed-service"] {
        let mut wire = support::wire::Wire::connect(served.port, user, "us").unwrap();
        for way in [support::wire::Way::Simple, support::wire::Way::ExtendedText] {
            wire.run("select id, country from users where id = 7", way).unwrap();
        }
    }
    demo.superuser("us-trusted", "us", "create role backup login");
    std::thread::sleep(std::time::Duration::from_secs(8));
    let before = side_doors(&demo);
    assert!(before.iter().all(|(_, role)| role == "postgres"), "{before:?}");
    // The superuser, a stolen login of a face, and one who may.
    let began = std::time::Instant::now();
    demo.superuser("us-trusted", "us", "select email from users limit 1");
    let door = |found: &[(String, String)]| {
        found.iter().filter(|(w, r)| w == "statement" && r == "postgres").count()
    };
    while door(&side_doors(&demo)) <= door(&before) {
        assert!(began.elapsed().as_secs() < 15, "nobody hears of it");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let roles = demo.superuser(
        "us-trusted",
        "us",
        "select rolname from pg_roles where rolname like 'rf_full_%' limit 1",
    );
    demo.superuser(
        "us-trusted",
        "us",
        &format!("set session authorization {roles}; select phone from users limit 1"),
    );
    std::thread::sleep(std::time::Duration::from_secs(8));
    let after = side_doors(&demo);
    assert!(after.len() > before.len() + 1, "{after:?}");
    assert!(after.iter().all(|(_, role)| role != "backup"), "{after:?}");
}
