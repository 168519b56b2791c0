//! SQL attacks on faces: every statement of `attacks.sql`, as each restricted person, in three ways of the protocol, with
//! canaries in every protected value. No canary may be in any byte that comes back.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::Demo;
use support::wire::{Way, Wire};

const CORPUS: &str = include_str!("attacks.sql");
const WAYS: [Way; 3] = [Way::Simple, Way::ExtendedText, Way::ExtendedBinary];

struct Attack {
    name: &'static str,
    statements: Vec<&'static str>,
}

fn corpus() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for line in CORPUS.lines() {
        if let Some(name) = line.strip_prefix("--! ") {
            attacks.push(Attack { name, statements: Vec::new() });
        } else if !line.is_empty() && !line.starts_with("--") {
            attacks.last_mut().expect("a name first").statements.push(line);
        }
    }
    attacks
}

/// Puts a canary into every protected value of every row, but for the e-mail of user 4711, which the narrow grant shows.
const PLANT: &str = "
    UPDATE users SET email = 'CANARYe' || id || '@example.com', phone = 'CANARYp' || id, full_name = 'CANARYn' || id,
        birth_date = '1931-07-19', created_at = '2001-02-03 04:05:06.789+00';
    UPDATE users SET email = 'granted@example.com', created_at = '2020-01-01' WHERE id = 4711;
    UPDATE devices SET device_id = ('ca4a47ca-4a47-4a47-8a47-' || lpad((id % 1000000)::text, 12, '0'))::uuid,
        ip = '203.0.113.177', last_lat = 12.3456789, last_lon = 98.7654321;
    UPDATE messages SET body = 'CANARYm' || id;
    ALTER TABLE watch_history DROP CONSTRAINT watch_history_pkey;
    UPDATE watch_history SET user_id = 770077007700 + user_id, video_id = 770077007700 + video_id,
        watched_at = '2031-03-13 13:13:13.131313+00', seconds = 1913737391;
    UPDATE payments SET card_last4 = '7Q7Q', amount_cents = 660066006677, paid_at = '2031-03-13 13:13:13.131313+00';
    ANALYZE";

/// A canary in one of the forms that it could come back in.
struct Canary {
    what: String,
    bytes: Vec<u8>,
}

fn canaries(with_hidden_rows: bool) -> Vec<Canary> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    let mut text = |t: &str| found.push((format!("{t:?}"), t.as_bytes().to_vec()));
    // Plain, in other case, backwards, hex (two cases), base64 at its three alignments, UTF-16.
    for t in [
        "CANARY",
        "canary",
        "YRANAC",
        "43414e415259",
        "43414E415259",
        "Q0FOQVJZ",
        "NBTkFSW",
        "DQU5BUl",
        "1931-07-19",
        "19.07.1931",
        "07/19/1931",
        "ca4a47ca",
        "ca4a47ca4a474a47",
        "203.0.113.177",
        "12.3456789",
        "98.7654321",
        "12.345678",
        "7700770077",
        "660066006677",
        "1913737391",
        "7Q7Q",
        "7q7q",
        "2031-03-13",
        "13.03.2031",
        "13:13:13",
        "C\0A\0N\0A\0R\0Y",
    ] {
        text(t);
    }
    let mut binary = |what: &str, bytes: Vec<u8>| found.push((format!("{what} in binary"), bytes));
    binary("uuid", vec![0xca, 0x4a, 0x47, 0xca, 0x4a, 0x47, 0x4a, 0x47, 0x8a, 0x47]);
    binary("ip", vec![2, 32, 0, 4, 203, 0, 113, 177]);
    binary("latitude", 12.345_678_9_f64.to_be_bytes().into());
    binary("longitude", 98.765_432_1_f64.to_be_bytes().into());
    binary("amount", 660_066_006_677_i64.to_be_bytes().into());
    // Length 4 and days from 2000-01-01 to 1931-07-19; length 8 and microseconds to 2031-03-13 13:13:13.131313.
    binary("birth date", [4_i32.to_be_bytes(), (-25_003_i32).to_be_bytes()].concat());
    binary("time", [&8_i32.to_be_bytes()[..], &984_489_193_131_313_i64.to_be_bytes()].concat());
    let id = [&8_i32.to_be_bytes()[..], &770_077_007_700_i64.to_be_bytes()[..5]].concat();
    binary("watcher", id);
    binary("seconds", [4_i32.to_be_bytes(), 1_913_737_391_i32.to_be_bytes()].concat());
    if with_hidden_rows {
        // Public, but of rows that the grant does not open.
        found.push(("a hidden row".to_owned(), b"2001-02-03".to_vec()));
        found.push(("a hidden row in binary".to_owned(), 34_488_306_789_000_i64.to_be_bytes().into()));
    }
    found.into_iter().map(|(what, bytes)| Canary { what, bytes }).collect()
}

fn leaks<'a>(received: &[u8], canaries: &'a [Canary]) -> Vec<&'a str> {
    let has = |bytes: &[u8]| received.windows(bytes.len()).any(|w| w == bytes);
    canaries.iter().filter(|c| has(&c.bytes)).map(|c| c.what.as_str()).collect()
}

/// Runs an attack over connections that `connect` makes; returns what leaked. A connection may end: that is an answer, too.
fn attack(
    who: &str,
    attack: &Attack,
    way: Way,
    canaries: &[Canary],
    connect: &dyn Fn() -> Wire,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = None;
    for sql in &attack.statements {
        let mut wire = open.take().unwrap_or_else(connect);
        let from = wire.received.len();
        let outcome = wire.run(sql, way);
        for what in leaks(&wire.received[from..], canaries) {
            found.push(format!("{who}, {way:?}, {}: {sql}\n    shows {what}", attack.name));
        }
        if outcome.is_ok() {
            open = Some(wire);
        }
    }
    found
}

fn run_all(demo: &Demo, who: &str, canaries: &[Canary]) -> Vec<String> {
    let mut found = Vec::new();
    for one in corpus() {
        for way in WAYS {
            let connect = || Wire::connect(demo.port, who, "us").expect("a restricted person can log in");
            found.extend(attack(who, &one, way, canaries, &connect));
        }
        // No denial of service that outlives the attacker's session.
        let started = Instant::now();
        let output = demo.psql("us-engineer", "us", "select count(*) from profiles where user_id < 100");
        assert!(output.status.success(), "after {}: {}", one.name, support::text(&output));
        assert!(started.elapsed() < Duration::from_secs(20), "after {}, others wait", one.name);
    }
    found
}

/// The first wall by itself: the same corpus straight at the store, as each face's role, without the gateway's allow-list.
fn the_store_alone_lets_nothing_out(demo: &Demo) -> Vec<String> {
    let ask = |sql: &str| demo.superuser("us-trusted", "us", sql);
    let logins = demo.face_logins("us-trusted");
    assert!(logins.len() >= 3, "{logins:?}");
    let socket = demo.dir.join("us-trusted/.s.PGSQL.5432");
    let mut found = Vec::new();
    for login in &logins {
        let verifier = ask(&format!("select rolpassword from pg_authid where rolname = '{login}'"));
        ask(&format!("alter role {login} password 'wall'"));
        let connect = || Wire::connect_socket(&socket, login, "us", "wall").expect("the role can log in");
        for mut one in corpus() {
            // What would lock this test out of the role's next connections.
            one.statements.retain(|s| !s.contains("PASSWORD") && !s.starts_with("ALTER ROLE"));
            for way in [Way::Simple, Way::ExtendedBinary] {
                found.extend(attack(login, &one, way, &canaries(false), &connect));
            }
        }
        found.extend(statistics_that_answer(demo, login, &connect));
        ask(&format!("alter role {login} password '{verifier}'"));
    }
    found
}

/// Statistics count what lies below a row policy: each view of them, and each function behind one, must
/// refuse a face.
fn statistics_that_answer(demo: &Demo, login: &str, connect: &dyn Fn() -> Wire) -> Vec<String> {
    let ask = |sql: &str| demo.superuser("us-trusted", "us", sql);
    let views =
        ask("select string_agg(relname, ' ') from pg_class where relnamespace = 'pg_catalog'::regnamespace
           and relkind = 'v' and relname ~ '^pg_stat(io)?_' and relname !~ '^pg_(stats|statistic)'");
    let views: Vec<&str> = views.split(' ').collect();
    assert!(views.len() > 30, "{views:?}");
    let mut wire = connect();
    let mut found = Vec::new();
    for view in views {
        let from = wire.received.len();
        wire.run(&format!("SELECT * FROM {view}"), Way::Simple).expect("the session goes on");
        let answer = String::from_utf8_lossy(&wire.received[from..]).into_owned();
        if !answer.contains("C42501") {
            found.push(format!("{login}: {view} is answered: {answer}"));
        }
    }
    let functions = ask(&format!(
        "select coalesce(string_agg(oid::regprocedure::text, ' '), '') from pg_proc
         where pronamespace = 'pg_catalog'::regnamespace and proname ~ '^pg_stat_get_'
           and has_function_privilege('{login}', oid, 'execute')"
    ));
    if !functions.is_empty() {
        found.push(format!("{login} may call {functions}"));
    }
    let counts = ask(&format!(
        "select 'track_counts=off' = any(setconfig) from pg_db_role_setting where setrole = '{login}'::regrole"
    ));
    if counts != "t" {
        found.push(format!("{login} has track_counts on"));
    }
    found
}

fn assert_canaries_are_found(demo: &Demo) {
    // The harness sees canaries where they are: as full access shows them, in each way and each table.
    for (table, least) in
        [("users", 2), ("devices", 3), ("messages", 1), ("watch_history", 3), ("payments", 3)]
    {
        for way in WAYS {
            let mut wire = Wire::connect(demo.port, "us-engineer", "us").unwrap();
            wire.run(&format!("SELECT * FROM {table} LIMIT 3"), way).unwrap();
            let canaries = canaries(false);
            let seen = leaks(&wire.received, &canaries);
            assert!(seen.len() >= least, "{table}, {way:?}: only {seen:?}");
        }
    }
}

fn assert_nothing_is_left(demo: &Demo) {
    let ask = |sql: &str| demo.superuser("us-trusted", "us", sql);
    let until = Instant::now() + Duration::from_secs(10);
    let running =
        "select count(*) from pg_stat_activity where usename like 'rf\\_%' and usename not like 'rf\\_full%'
                   and backend_xid is not null or (usename like 'rf\\_%' and state = 'active')";
    while ask(running) != "0" {
        assert!(
            Instant::now() < until,
            "statements of faces still run: {}",
            ask("select usename, state, query from pg_stat_activity")
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ask("select count(*) from pg_prepared_xacts"), "0");
    assert_eq!(ask("select count(*) from pg_locks where locktype = 'advisory'"), "0");
    assert_eq!(ask("select count(*) from pg_replication_slots"), "0");
    assert_eq!(ask("select count(*) from pg_largeobject_metadata"), "0");
    let strangers =
        "select string_agg(relname, ',') from pg_class c join pg_namespace n on n.oid = relnamespace
        where relname in ('stolen', 'v', 't', 'f') and relkind <> 'i'";
    assert_eq!(ask(strangers), "");
}

#[test]
fn no_canary_in_any_byte_and_the_suite_can_fail() {
    let demo = Demo::start("attacks");
    demo.superuser("us-trusted", "us", PLANT);
    let statements: usize = corpus().iter().map(|a| a.statements.len()).sum();
    assert!(statements >= 500, "{statements} statements");
    assert_canaries_are_found(&demo);

    let mut found = run_all(&demo, "singapore-analyst", &canaries(false));
    // A constant of a condition is somebody's data, too.
    let condition = "id = 4711 and (full_name <> 'CANARY of a condition' or birth_date = '1931-07-19')";
    demo.grant("singapore-analyst", "users.email", condition, &["--max-rows", "1000000"]);
    let narrow = demo.psql("singapore-analyst", "us", "select email from users");
    assert_eq!(
        String::from_utf8_lossy(&narrow.stdout).trim(),
        "granted@example.com",
        "{}",
        support::text(&narrow)
    );
    found.extend(run_all(&demo, "beijing-engineer", &canaries(false)));
    found.extend(run_all(&demo, "singapore-analyst", &canaries(true)));
    assert!(found.is_empty(), "{} leaks:\n{}", found.len(), found.join("\n"));
    assert_nothing_is_left(&demo);
    let found = the_store_alone_lets_nothing_out(&demo);
    assert!(found.is_empty(), "{} leaks without the gateway:\n{}", found.len(), found.join("\n"));
    demo.verify().expect("the log holds what happened");

    // And it can fail: with one right too many, the suite sees it.
    let roles = demo.superuser(
        "us-trusted",
        "us",
        "select string_agg(quote_ident(rolname), ',') from pg_roles where rolname ~ '^rf_[0-9a-f]+_[0-9a-f]+$' and rolcanlogin",
    );
    demo.superuser(
        "us-trusted",
        "us",
        &format!("GRANT USAGE ON SCHEMA public TO {roles}; GRANT SELECT ON public.messages TO {roles}"),
    );
    let found = run_all(&demo, "beijing-engineer", &canaries(false));
    assert!(
        found.iter().any(|f| f.contains("FROM public.messages")),
        "a weakened face was not noticed: {found:?}"
    );
}
