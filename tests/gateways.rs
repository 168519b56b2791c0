//! Several gateways on one control database, the database brought back from a dump, and one that an older version made.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Demo, Served, text};

const ANALYST: &str = "singapore-analyst";

fn email(port: u16) -> String {
    let output = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={port} user={ANALYST} dbname=us"))
        .args(["-X", "-A", "-t", "-c", "select email from users where id = 2"])
        .env("PGPASSWORD", "demo")
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// How long until it is so; the clock is told, not asserted, but for a bound that no slow machine reaches.
fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// A grant is asked for and approved at one gateway and counts at the other; so does its end, for sessions that run there.
fn what_one_gateway_decides_counts_at_the_other(demo: &Demo, other: &Served) {
    assert!(email(other.port).ends_with("@masked.invalid"));
    let id = demo.grant(ANALYST, "users.email", "id < 100", &["--for", "1h"]);
    let took =
        until("the grant does not count at the other gateway", || !email(other.port).contains("masked"));
    eprintln!("a grant counted at the other gateway after {took:?}");
    let mut session = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={} user={ANALYST} dbname=us", other.port))
        .args(["-X", "-c", "select email from users where id = 2", "-c", "select pg_sleep(100)"])
        .env("PGPASSWORD", "demo")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let revoked = demo.ringfence(&["revoke", &id, "--as", "us-approver-1", "--reason", "done"]);
    assert!(revoked.status.success(), "{}", text(&revoked));
    let began = Instant::now();
    let mut cut = String::new();
    session.stderr.take().unwrap().read_to_string(&mut cut).unwrap();
    session.wait().unwrap();
    eprintln!("its session at the other gateway was cut after {:?}", began.elapsed());
    assert!(cut.contains(&id), "{cut}");
    assert!(email(other.port).ends_with("@masked.invalid"));
}

#[test]
fn gateways_share_what_was_decided_and_survive_their_database() {
    let demo = Demo::start("control");
    let other = demo.serve("other", "");
    what_one_gateway_decides_counts_at_the_other(&demo, &other);

    // Dumped, lost, brought back while both gateways run: what was in force is, what was ended stays ended.
    let lasting = demo.grant(ANALYST, "users.email", "id < 100", &["--for", "1h"]);
    until("the grant does not count at the other gateway", || !email(other.port).contains("masked"));
    let connection = format!("host={} user=postgres dbname=control", demo.dir.join("control").display());
    let dump = Command::new("pg_dump").arg("--schema=ringfence").arg(&connection).output().unwrap();
    assert!(dump.status.success(), "{}", text(&dump));
    demo.superuser("control", "control", "drop schema ringfence cascade");
    // Without its database a gateway decides nothing anew; what is in force goes on.
    assert!(
        !email(other.port).contains("masked"),
        "grants in force go on while the control database is away"
    );
    let asked = demo.ringfence(&["requests", "--as", ANALYST]);
    assert!(!asked.status.success() || !text(&asked).contains(&lasting), "{}", text(&asked));
    // Whoever connects anew makes an empty schema; a restore replaces it.
    let mut restore = Command::new("psql")
        .arg(&connection)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let script =
        format!("drop schema if exists ringfence cascade;\n{}", String::from_utf8(dump.stdout).unwrap());
    restore.stdin.as_mut().unwrap().write_all(script.as_bytes()).unwrap();
    drop(restore.stdin.take());
    assert!(restore.wait().unwrap().success());
    until("the gateway does not find its database again", || {
        text(&demo.ringfence(&["grants", "--as", "us-approver-1"])).contains(&lasting)
    });
    assert!(!email(other.port).contains("masked") && !email(demo.port).contains("masked"));

    // A newer version comes while the others run: what it adds to the database is there once, and nobody is disturbed.
    demo.superuser(
        "control",
        "control",
        "drop table ringfence.enrolment_signatures, ringfence.enrolments; delete from ringfence.migrations where step = 7",
    );
    let third = demo.serve("third", "");
    assert_eq!(
        demo.superuser("control", "control", "select count(*) from ringfence.migrations where step = 6"),
        "1"
    );
    for port in [demo.port, other.port, third.port] {
        assert!(!email(port).contains("masked"), "the grant counts at every gateway");
    }
    let ended = demo.ringfence(&["revoke", &lasting, "--as", "us-approver-1", "--reason", "done"]);
    assert!(ended.status.success(), "{}", text(&ended));
    until("the end does not count at the third", || email(third.port).ends_with("@masked.invalid"));
    what_one_gateway_decides_counts_at_the_other(&demo, &third);
    an_order_counts_everywhere_and_no_deletion_lifts_it(&demo, &third);
    approvers_let_approvers_in(&demo);
    numbers_name_nobody(&demo);
}

/// Where the registry asks for it, whoever writes it puts nobody's key in an approver's place: approvers who are there sign.
fn approvers_let_approvers_in(demo: &Demo) {
    let mut gateway = demo.serve("enrolling", "");
    let registry = demo.dir.join("registry-enrolling.toml");
    let before = std::fs::read_to_string(&registry).unwrap();
    let reload = |text: &str| {
        std::fs::write(&registry, text).unwrap();
        let pid = gateway.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    let ringfence = |arguments: &[&str]| demo.ringfence_with("enrolling", arguments);
    let key = demo.dir.join("a-new-key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    let line = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let with_key = |text: &str, person: &str| {
        let at = text.find(&format!("name = \"{person}\"")).unwrap();
        let at = at + text[at..].find("key = \"").unwrap() + "key = \"".len();
        format!("{}{}\\n{}", &text[..at], line.trim(), &text[at..])
    };
    let asked = ringfence(&[
        "request",
        "--json",
        "--as",
        ANALYST,
        "--store",
        "us",
        "--columns",
        "users.email",
        "--purpose",
        "x",
        "--for",
        "1h",
    ]);
    let asked: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
    let id = asked["id"].as_str().unwrap();
    let key = key.display().to_string();
    let approve = || text(&ringfence(&["approve", id, "--as", "us-approver-3", "--key", &key]));
    let asking = format!("enrolment = \"signed\"\n{before}");
    reload(&asking);
    // The operator adds a key of theirs, for somebody who approves.
    reload(&with_key(&asking, "us-approver-3"));
    std::thread::sleep(Duration::from_secs(2));
    assert!(approve().contains("not by their key"), "{}", approve());
    // Two who are there sign; one is not enough, and nobody signs for themselves.
    let file = demo.dir.join("enrolment.json").display().to_string();
    let written = ringfence(&[
        "enrol",
        "write",
        "us-approver-3",
        "--public-key",
        &format!("{key}.pub"),
        "--out",
        &file,
    ]);
    assert!(written.status.success(), "{}", text(&written));
    let sign = |who: &str| {
        let key = demo.dir.join("keys").join(who).display().to_string();
        ringfence(&["enrol", "sign", &file, "--as", who, "--key", &key])
    };
    assert!(text(&sign("us-approver-3")).contains("nobody enrols themselves"));
    let enrolled = || {
        let shown = text(&ringfence(&["enrol", "show", &file]));
        format!("{}\n{shown}", with_key(&asking, "us-approver-3"))
    };
    assert!(sign("us-approver-1").status.success());
    reload(&enrolled());
    std::thread::sleep(Duration::from_secs(2));
    assert!(approve().contains("not by their key"), "one signature is not enough: {}", approve());
    assert!(sign("us-approver-2").status.success());
    reload(&enrolled());
    until("the enrolled key does not count", || approve().contains("Signed."));
    // Nor by a start, nor by asking no longer.
    let good = enrolled();
    gateway.kill();
    let start = |text_of_registry: &str| {
        std::fs::write(&registry, text_of_registry).unwrap();
        let started =
            ringfence(&["serve", "--config", &demo.dir.join("enrolling.toml").display().to_string()]);
        assert!(!started.status.success());
        text(&started)
    };
    let said = start(&with_key(&good, "us-approver-1"));
    assert!(said.contains("a key of us-approver-1 is new"), "{said}");
    let said = start(&good.replacen("enrolment = \"signed\"\n", "", 1));
    assert!(said.contains("be enrolled by signature"), "{said}");
    let verified = ringfence(&["ledger", "verify"]);
    assert!(
        verified.status.success() && text(&verified).contains("2 signatures of approvers let new keys in"),
        "{}",
        text(&verified)
    );
}

/// A regulator suspends at one gateway what crosses at all; whoever has the control database does not undo it by removing it there.
fn an_order_counts_everywhere_and_no_deletion_lifts_it(demo: &Demo, other: &Served) {
    let key = demo.dir.join("keys/us-regulator").display().to_string();
    let order = |how: &str| {
        let done =
            demo.ringfence(&[how, "us", "--as", "us-regulator", "--key", &key, "--reason", "an inquiry"]);
        assert!(done.status.success(), "{}", text(&done));
    };
    order("suspend");
    let took = until("the suspension does not count at the other gateway", || email(other.port).is_empty());
    eprintln!("a suspension counted at the other gateway after {took:?}");
    assert!(email(demo.port).is_empty());
    demo.superuser("control", "control", "delete from ringfence.orders");
    std::thread::sleep(Duration::from_secs(3));
    assert!(email(demo.port).is_empty() && email(other.port).is_empty(), "it stands though its row is gone");
    order("resume");
    until("the end of the suspension does not count", || !email(other.port).is_empty());
    assert!(!email(demo.port).is_empty());
    order("suspend");
    // Who starts anew finds it in force.
    let fourth = demo.serve("fourth", "");
    assert!(email(fourth.port).is_empty());
    order("resume");
    until("the end of the suspension does not count", || !email(fourth.port).is_empty());
}

fn scrape(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// What Prometheus reads: it counts, it names no person, and it has everything that the dashboard and the alerts ask for.
fn numbers_name_nobody(demo: &Demo) {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = free();
    let measured = demo.serve_with("measured", "", |config| {
        let config = config.replace("[ledger]\n", "[ledger]\nwitnesses = \"witnesses.policy\"\n");
        format!("{config}\n[metrics]\nlisten = \"127.0.0.1:{at}\"\n")
    });
    let mut running = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={} user=us-engineer dbname=us", measured.port))
        .args(["-X", "-c", "select 'a-canary-of-a-statement', pg_sleep(100)"])
        .env("PGPASSWORD", "demo")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the session is not counted", || {
        scrape(at).contains("ringfence_sessions{crosses_border=\"false\"} 1")
    });
    let counted = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={} user=us-engineer dbname=us", measured.port))
        .args(["-X", "-c", "select 1"])
        .env("PGPASSWORD", "demo")
        .output()
        .unwrap();
    assert!(counted.status.success(), "{}", text(&counted));
    let said = scrape(at);
    // Its log is not one that the demo's witnesses know.
    assert!(
        said.contains("ringfence_border_open 0") && said.contains("ringfence_witnessed_age_seconds inf"),
        "{said}"
    );
    assert!(said.contains("application/openmetrics-text") && said.contains("# EOF"), "{said}");
    for name in [ANALYST, "us-approver-1", "us-engineer", "clips-singapore", "canary", "127.0.0.1", "psql"] {
        assert!(!said.contains(name), "{name}: {said}");
    }
    let counted =
        said.lines().find_map(|line| line.strip_prefix("ringfence_statements_total{store=\"us\"} ")).unwrap();
    assert!(counted.trim().parse::<f64>().unwrap() >= 1.0, "{said}");
    for file in ["deploy/grafana-dashboard.json", "deploy/prometheus-alerts.yml"] {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let asked = std::fs::read_to_string(root.join(file)).unwrap();
        let names = asked
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|w| w.starts_with("ringfence_"));
        for name in names {
            assert!(said.contains(name), "{file} asks for {name}: {said}");
        }
    }
    running.kill().unwrap();
    running.wait().unwrap();
}
