//! Pooling: who gets a connection when, what is carried along, what operators see, and what can change while it runs.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use support::wire::{Way, Wire};
use support::{Demo, Served};

#[test]
fn connections_are_shared_in_turn_and_nothing_else_is() {
    let demo = Demo::start("pools");
    connections_that_wait_make_room(&demo);
    let settings =
        "pool_mode = \"transaction\"\npool_size = 2\npool_wait = 2\nstore_wait = 10\nfull_access_role";
    let mut pooled = demo.serve_with("pools", "", |text| {
        text.replace("full_access_role", settings).replace("[gateway]\n", "[gateway]\nunix_dir = \".\"\n")
    });
    many_clients_share_few_connections(&pooled);
    nobody_shares_with_another_person(&pooled);
    a_queue_is_fair_and_has_a_deadline(&pooled);
    a_copy_gives_its_connection_back(&pooled);
    a_cancel_request_hits_no_other_client(&pooled);
    a_session_knows_its_own_notifications(&pooled);
    what_is_carried_along_is_never_a_statement(&demo, &pooled);
    a_connection_that_died_is_replaced(&demo, &pooled);
    a_client_waits_for_a_store_that_restarts(&demo, &pooled);
    operators_see_pools_and_others_do_not(&pooled);
    an_ended_grant_leaves_no_connection(&demo, &pooled);
    a_unix_socket_works_like_tcp(&demo, &pooled);
    a_new_certificate_is_shown_after_sighup(&demo, &pooled);
    pooled.kill();
    demo.verify().expect("after all of it the log verifies");
}

fn client(gateway: &Served, who: &str) -> Wire {
    Wire::connect(gateway.port, who, "us").expect("the gateway answers")
}

/// The first column of the first row, or the error's text.
fn ask(wire: &mut Wire, sql: &str) -> String {
    wire.send(&support::wire::frame(b'Q', &[sql.as_bytes(), b"\0"].concat())).expect("connected");
    answer(wire)
}

fn answer(wire: &mut Wire) -> String {
    let mut found = String::new();
    loop {
        match wire.next() {
            Ok((b'D', body)) if found.is_empty() => {
                let length = u32::from_be_bytes(body[2..6].try_into().unwrap()) as usize;
                found = String::from_utf8_lossy(&body[6..6 + length]).into_owned();
            }
            Ok((b'E', body)) => found = String::from_utf8_lossy(&body).replace('\0', " "),
            Ok((b'Z', _)) => return found,
            Ok(_) => {}
            Err(_) => return format!("{found} (closed)"),
        }
    }
}

/// Settings are carried to the next connection as literals; one session's setting must not change how another's is read.
fn what_is_carried_along_is_never_a_statement(demo: &Demo, gateway: &Served) {
    let mut holder = client(gateway, "feed-service");
    let mut other = client(gateway, "feed-service");
    let mut named = client(gateway, "feed-service");
    ask(&mut named, "set application_name = e'\\\\''; create table pwned();--'");
    ask(&mut holder, "begin"); // so that one connection is left for the two
    // It reads backslashes in plain strings from here on, until somebody carries another setting to it.
    ask(&mut other, "set standard_conforming_strings = off; set application_name = 'x'");
    let shown = ask(&mut named, "show application_name");
    ask(&mut holder, "commit");
    assert_eq!(shown, "\\'; create table pwned();--");
    let found = demo.superuser("us-trusted", "us", "select count(*) from pg_class where relname = 'pwned'");
    assert_eq!(found, "0");
}

fn a_session_knows_its_own_notifications(gateway: &Served) {
    let mut wire = client(gateway, "feed-service");
    ask(&mut wire, "listen bell");
    wire.send(&support::wire::frame(b'Q', b"notify bell, 'x'\0")).expect("connected");
    loop {
        let (tag, body) = wire.next().expect("a notification");
        if tag == b'A' {
            assert_eq!(body[..4], wire.key[..4], "the process is what the client was told at its login");
            break;
        }
    }
    wire.until_ready().expect("connected");
}

const PID: &str = "select pg_backend_pid()";

/// A store that has as many connections as it takes: those that wait for people who are gone make room.
fn connections_that_wait_make_room(demo: &Demo) {
    let mut gateway = demo.serve_with("room", "", |text| {
        let text = text.replace("full_access_role", "pool_size = 200\nfull_access_role");
        text.replace("[gateway]\n", "[gateway]\nmax_connections_per_principal = 200\n")
    });
    let roles = || {
        let sql = "select count(distinct usename) from pg_stat_activity where datname = 'us' and usename like 'rf%'";
        demo.superuser("us-trusted", "us", sql)
    };
    let mut analyst = client(&gateway, "singapore-analyst");
    for who in ["us-engineer", "beijing-engineer"] {
        ask(&mut client(&gateway, who), "select 1");
    }
    assert_eq!(roles(), "3");
    let mut workload = Vec::new();
    let full = loop {
        match Wire::connect(gateway.port, "feed-service", "us") {
            Ok(wire) => workload.push(wire),
            Err(error) => break error,
        }
        assert!(workload.len() < 150, "the store takes 100");
    };
    assert!(full.contains("the store refused") && full.contains("53300"), "{full}");
    assert_eq!(roles(), "2", "the analyst and the workload");
    // So they do for a count, which takes a connection of its own.
    drop(workload.pop());
    std::thread::sleep(Duration::from_millis(300));
    let counted = ask(&mut analyst, "select 'of ' || count(email) from users");
    assert!(counted.starts_with("of "), "{counted}");
    gateway.kill();
}

fn many_clients_share_few_connections(gateway: &Served) {
    // Whatever one leaves behind, the next starts as after a login.
    let mut first = client(gateway, "feed-service");
    let fresh = ask(&mut first, "select current_user || current_setting('datestyle')");
    ask(&mut first, "set datestyle = 'German'");
    ask(&mut first, "discard all");
    for _ in 0..3 {
        let mut next = client(gateway, "feed-service");
        assert_eq!(ask(&mut next, "select current_user || current_setting('datestyle')"), fresh);
    }
    let mut clients: Vec<Wire> = (0..40).map(|_| client(gateway, "feed-service")).collect();
    let mut pids = BTreeSet::new();
    for _ in 0..3 {
        for wire in &mut clients {
            pids.insert(ask(wire, PID));
        }
    }
    assert!((1..=2).contains(&pids.len()), "{pids:?}");
    // All at once, each in a transaction of several statements.
    let port = gateway.port;
    let threads: Vec<_> = (0..20)
        .map(|n| {
            std::thread::spawn(move || {
                let mut wire = Wire::connect(port, "feed-service", "us").expect("the gateway answers");
                for round in 0..20 {
                    assert_eq!(ask(&mut wire, "begin"), "");
                    let pid = ask(&mut wire, PID);
                    assert_eq!(
                        ask(&mut wire, &format!("select {n} * 1000 + {round}")),
                        (n * 1000 + round).to_string()
                    );
                    assert_eq!(ask(&mut wire, PID), pid, "within a transaction the connection stays");
                    assert_eq!(ask(&mut wire, "commit"), "");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("every client is served");
    }
}

fn nobody_shares_with_another_person(gateway: &Served) {
    let people = ["feed-service", "us-engineer", "singapore-analyst", "beijing-engineer"];
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        for who in people {
            let mut wire = client(gateway, who);
            seen.insert((ask(&mut wire, "select session_user"), ask(&mut wire, PID), who));
        }
    }
    for (role, pid, who) in &seen {
        let other = seen.iter().find(|(r, p, w)| w != who && (r == role || p == pid));
        assert!(other.is_none(), "{who} shares with {other:?}");
    }
    // A face stays a face, whatever transaction it is.
    let mut wire = client(gateway, "singapore-analyst");
    for _ in 0..3 {
        let email = ask(&mut wire, "select email from users where id = 2");
        assert!(email.ends_with("@masked.invalid"), "{email}");
    }
}

fn a_queue_is_fair_and_has_a_deadline(gateway: &Served) {
    let mut holders: Vec<Wire> = (0..2).map(|_| client(gateway, "feed-service")).collect();
    for holder in &mut holders {
        ask(holder, "begin");
    }
    // A client is greeted without a connection.
    let mut late = client(gateway, "feed-service");
    let started = Instant::now();
    let refused = ask(&mut late, "select 1");
    assert!(refused.contains("57P05") && refused.contains("pool_wait"), "{refused}");
    assert!(started.elapsed() >= Duration::from_secs(2), "it waits first");
    // Three in a row, let in one by one in the order in which they came.
    let mut waiting: Vec<Wire> = (0..3).map(|_| client(gateway, "feed-service")).collect();
    for wire in &mut waiting {
        wire.send(&support::wire::frame(b'Q', b"select txid_current()\0")).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    ask(&mut holders[0], "commit");
    let order: Vec<u64> = waiting.iter_mut().map(|w| answer(w).parse().expect("a number")).collect();
    assert!(order.is_sorted(), "{order:?}");
    ask(&mut holders[1], "commit");
}

/// There are two connections: three clients that have copied and are idle hold none of them.
fn a_copy_gives_its_connection_back(gateway: &Served) {
    let mut idle: Vec<Wire> = (0..3).map(|_| client(gateway, "feed-service")).collect();
    for wire in &mut idle {
        wire.send(&support::wire::frame(b'Q', b"copy follows from stdin\0")).unwrap();
        while wire.next().expect("connected").0 != b'G' {}
        wire.send(&support::wire::frame(b'c', b"")).unwrap();
        while wire.next().expect("connected").0 != b'Z' {}
    }
    assert_eq!(ask(&mut client(gateway, "feed-service"), "select 7"), "7");
}

fn a_cancel_request_hits_no_other_client(gateway: &Served) {
    let mut first = client(gateway, "feed-service");
    ask(&mut first, "select 1");
    let stale = first.key.clone();
    let mut others: Vec<Wire> = (0..2).map(|_| client(gateway, "feed-service")).collect();
    for other in &mut others {
        other.send(&support::wire::frame(b'Q', b"select 'slept' from pg_sleep(1)\0")).unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..5 {
        cancel(gateway, &stale);
    }
    for other in &mut others {
        assert_eq!(answer(other), "slept", "a stale key hits nobody");
    }
    // And its own statement it does hit.
    first.send(&support::wire::frame(b'Q', b"select pg_sleep(20)\0")).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    cancel(gateway, &stale);
    assert!(answer(&mut first).contains("57014"));
}

fn cancel(gateway: &Served, key: &[u8]) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    let packet = [&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), key].concat();
    stream.write_all(&packet).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

fn a_connection_that_died_is_replaced(demo: &Demo, gateway: &Served) {
    let mut wire = client(gateway, "feed-service");
    let before = ask(&mut wire, PID);
    demo.superuser(
        "us-trusted",
        "us",
        "select pg_terminate_backend(pid) from pg_stat_activity where usename like 'rf\\_%'",
    );
    std::thread::sleep(Duration::from_millis(300));
    let after = ask(&mut wire, PID);
    assert!(after.parse::<u32>().is_ok() && after != before, "{before} {after}");
}

fn a_client_waits_for_a_store_that_restarts(demo: &Demo, gateway: &Served) {
    let mut wire = client(gateway, "feed-service");
    let mut prepared = |sql: &str| wire.run(sql, Way::ExtendedText).map(|()| wire.received.clone());
    prepared("select 1").unwrap();
    demo.restart_store("us-trusted");
    let answer = prepared("select 'after the restart'").expect("the session outlives the store");
    assert!(String::from_utf8_lossy(&answer).contains("after the restart"));
}

fn operators_see_pools_and_others_do_not(gateway: &Served) {
    let _one = client(gateway, "feed-service");
    let mut operator = Wire::connect(gateway.port, "us-approver-1", "ringfence").unwrap();
    for (command, expected) in [
        ("SHOW POOLS", "transaction"),
        ("show stats;", "us"),
        ("SHOW CLIENTS", "feed-service"),
        ("SHOW DATABASES", "us-trusted"),
        ("SHOW VERSION", "Ringfence"),
        ("SHOW HELP", "SHOW POOLS"),
        ("SHOW NOTHING", "there is no SHOW NOTHING"),
    ] {
        let start = operator.received.len();
        operator.run(command, Way::Simple).unwrap();
        let answer = String::from_utf8_lossy(&operator.received[start..]).into_owned();
        assert!(answer.contains(expected), "{command}: {answer}");
    }
    let mut outsider = Wire::connect(gateway.port, "beijing-engineer", "ringfence").unwrap();
    for command in ["SHOW POOLS", "SHOW CLIENTS", "SHOW STATS", "SHOW DATABASES"] {
        outsider.run(command, Way::Simple).unwrap();
    }
    let answer = String::from_utf8_lossy(&outsider.received).into_owned();
    assert!(!answer.contains("feed-service") && !answer.contains("us-trusted"), "{answer}");
}

fn an_ended_grant_leaves_no_connection(demo: &Demo, gateway: &Served) {
    let id = demo.grant("singapore-analyst", "users.email", "id < 3", &[]);
    let until = Instant::now() + Duration::from_secs(10);
    let mut role = String::new();
    while Instant::now() < until {
        let mut wire = client(gateway, "singapore-analyst");
        if !ask(&mut wire, "select email from users where id = 2").ends_with("@masked.invalid") {
            role = ask(&mut wire, "select session_user");
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!role.is_empty(), "the gateway hears of the grant");
    let count = || {
        let sql = format!("select count(*) from pg_stat_activity where usename = '{role}'");
        demo.superuser("us-trusted", "us", &sql)
    };
    assert_ne!(count(), "0", "its connection waits for the next");
    let revoked = demo.ringfence(&["revoke", &id, "--as", "us-approver-3", "--reason", "done"]);
    assert!(revoked.status.success());
    let until = Instant::now() + Duration::from_secs(10);
    while count() != "0" {
        assert!(Instant::now() < until, "a connection of the ended grant is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn a_unix_socket_works_like_tcp(demo: &Demo, gateway: &Served) {
    let socket = demo.dir.join(format!(".s.PGSQL.{}", gateway.port));
    let mut wire =
        Wire::connect_socket(&socket, "singapore-analyst", "us", "demo").expect("the socket answers");
    assert!(ask(&mut wire, "select email from users where id = 2").ends_with("@masked.invalid"));
    assert!(Wire::connect_socket(&socket, "singapore-analyst", "us", "wrong").is_err());
}

fn a_new_certificate_is_shown_after_sighup(demo: &Demo, gateway: &Served) {
    let keys = demo.dir.join("keys");
    let shown = || {
        let port = gateway.port;
        let script = format!(
            "openssl s_client -starttls postgres -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -noout -serial"
        );
        let output = Command::new("sh").arg("-c").arg(script).output().expect("openssl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let before = shown();
    assert!(before.starts_with("serial="), "{before}");
    let mut wire = client(gateway, "feed-service");
    ask(&mut wire, "select 1");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=localhost",
        ])
        .arg("-keyout")
        .arg(keys.join("tls.key"))
        .arg("-out")
        .arg(keys.join("tls.crt"))
        .output()
        .expect("openssl runs");
    assert!(made.status.success());
    let hung_up = Command::new("kill").args(["-HUP", &gateway.child.id().to_string()]).status().unwrap();
    assert!(hung_up.success());
    let until = Instant::now() + Duration::from_secs(10);
    while shown() == before {
        assert!(Instant::now() < until, "the old certificate is still shown");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ask(&mut wire, "select 'still here'"), "still here", "nobody is dropped");
}
