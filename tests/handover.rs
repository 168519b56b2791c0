//! A gateway is restarted under load, by handing its sockets over: nobody is refused, and nobody is cut.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::wire::{Way, Wire};
use support::{Demo, PROGRAM, Served, text};

/// A gateway that takes over from another: same addresses and stores, a log of its own.
fn successor(demo: &Demo, name: &str, from: &str) -> Child {
    let config = std::fs::read_to_string(demo.dir.join(format!("{from}.toml"))).unwrap();
    let config = config.replace(&format!("ledger-{from}"), &format!("ledger-{name}"));
    let config = config.replace(&format!("keys-{from}/ledger."), &format!("keys-{name}/ledger."));
    std::fs::write(demo.dir.join(format!("{name}.toml")), config).unwrap();
    let keys = demo.dir.join(format!("keys-{name}")).display().to_string();
    let made =
        demo.ringfence(&["keys", "--dir", &keys, "--origin", &format!("ringfence-demo.example/{name}")]);
    assert!(made.status.success(), "{}", text(&made));
    start(demo, name)
}

fn start(demo: &Demo, name: &str) -> Child {
    Command::new(PROGRAM)
        .args(["serve", "--config"])
        .arg(demo.dir.join(format!("{name}.toml")))
        .arg("--take-over")
        .arg(demo.dir.join("handover.sock"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(if std::env::var_os("RF_TEST_LOG").is_some() { Stdio::inherit() } else { Stdio::piped() })
        .spawn()
        .unwrap()
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Clients that come and go as fast as they can.
fn load(demo: &Demo, port: u16, unix: &Path) -> Vec<Child> {
    let script = demo.dir.join("one.sql");
    std::fs::write(&script, "SELECT 1;\n").unwrap();
    let hosts = ["127.0.0.1".to_owned(), unix.display().to_string()];
    let start = |host: &String| {
        Command::new("pgbench")
            .args([
                "-n",
                "-C",
                "-c",
                "4",
                "-T",
                "6",
                "-h",
                host,
                "-p",
                &port.to_string(),
                "-U",
                "feed-service",
                "-f",
            ])
            .arg(&script)
            .arg("us")
            .env("PGPASSWORD", "demo")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    hosts.iter().map(start).collect()
}

#[test]
fn a_restart_refuses_nobody_and_cuts_nobody() {
    let demo = Demo::start("handover");
    let sockets = demo.dir.join("sockets");
    std::fs::create_dir(&sockets).unwrap();
    let mut old = demo.serve_with("old", "", |text| {
        text.replace("[gateway]", "[gateway]\nhandover = \"handover.sock\"\nunix_dir = \"sockets\"")
    });
    let port = old.port;
    let mut kept = Wire::connect(port, "us-engineer", "us").unwrap();
    kept.run("create temp table mine as select 7 as n", Way::Simple).map_err(|_| ()).unwrap();
    let mut sleeper = Command::new("psql")
        .arg(demo.dsn("us-engineer", "us").replace(&demo.port.to_string(), &port.to_string()))
        .args(["-X", "-c", "select pg_sleep(600)"])
        .env("PGPASSWORD", "demo")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let clients = load(&demo, port, &sockets);
    std::thread::sleep(Duration::from_secs(1));

    // Who cannot take over leaves everything as it is: the same log, and a configuration that is wrong.
    for (name, broken, problem) in [
        ("same", ("nothing", "nothing"), "another process writes this log"),
        ("wrong", ("[ledger]", "[ledger]\nno_such_key = 1"), "no_such_key"),
    ] {
        let config = std::fs::read_to_string(demo.dir.join("old.toml")).unwrap();
        std::fs::write(demo.dir.join(format!("{name}.toml")), config.replace(broken.0, broken.1)).unwrap();
        let output = start(&demo, name).wait_with_output().unwrap();
        assert!(!output.status.success() && text(&output).contains(problem), "{name}: {}", text(&output));
    }
    assert!(old.child.try_wait().unwrap().is_none());

    let mut new = Served { child: successor(&demo, "new", "old"), port };
    wait("the new one serves", || {
        let log = demo.ringfence_with("new", &["ledger", "show", "--from", "0"]);
        text(&log).contains("feed-service")
    });
    for client in clients {
        let output = client.wait_with_output().unwrap();
        let said = text(&output);
        assert!(
            output.status.success() && !said.contains("error") && said.contains("failed transactions: 0 "),
            "{said}"
        );
    }
    // A session of the old one goes on, with what it has.
    kept.run("select n from mine", Way::Simple).map_err(|_| ()).expect("the session was not cut");
    assert!(old.child.try_wait().unwrap().is_none(), "the old one waits for it");
    // A cancel request comes to the new one and hits the old one's statement.
    assert!(Command::new("kill").args(["-INT", &sleeper.id().to_string()]).status().unwrap().success());
    let until = Instant::now() + Duration::from_secs(10);
    while sleeper.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "the statement is not cancelled");
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = text(&sleeper.wait_with_output().unwrap());
    assert!(said.contains("canceling statement due to user request"), "{said}");
    drop(kept);
    wait("the old one ends with its last session", || old.child.try_wait().unwrap().is_some());
    assert!(old.child.wait().unwrap().success());
    Wire::connect(port, "us-engineer", "us").unwrap();

    // And again, in the other direction.
    let third = Served { child: successor(&demo, "third", "new"), port };
    wait("the second ends at once", || new.child.try_wait().unwrap().is_some());
    Wire::connect(port, "us-engineer", "us").unwrap();
    drop(third);
    for name in ["old", "new", "third"] {
        let verified = demo.ringfence_with(name, &["ledger", "verify"]);
        assert!(verified.status.success(), "{}", text(&verified));
    }
}
