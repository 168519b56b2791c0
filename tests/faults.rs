//! Bad input and bad days: a clear error, nothing lost, nothing let out.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::wire::{Way, Wire, frame};
use support::{Demo, PROGRAM, text};

#[test]
fn faults_are_told_and_let_nothing_out() {
    let mut demo = Demo::start("faults");
    malformed_frames_end_their_own_connection_only(&demo);
    unknown_users_look_like_wrong_passwords(&demo);
    start_parameters_that_reach_too_far_are_refused(&demo);
    one_session_leaves_nothing_to_the_next(&demo);
    a_cancel_key_hits_its_own_session_only(&demo);
    connections_are_limited_and_waiting_ones_make_room(&demo);
    a_wrong_configuration_is_told_whole(&demo);
    preflight_names_every_way_around(&demo);
    uninstall_puts_everything_back(&demo);
    a_full_disk_refuses_and_service_resumes(&demo);
    new_rules_are_read_on_sighup_and_cut_faces(&demo);
    a_store_behind_tls_is_verified(&demo);
    a_store_that_is_down_is_told(&demo);
    a_killed_demo_is_cleaned_up_by_the_next(&mut demo);
    demo.verify().expect("after all of it the log verifies");
}

fn raw(demo: &Demo, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", demo.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn malformed_frames_end_their_own_connection_only(demo: &Demo) {
    for bytes in [
        &b""[..],
        b"\0",
        b"\0\0\0\x04",
        b"\xff\xff\xff\xff\0\0\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0",
        b"\0\0\0\x08\0\x03\0\0",
        b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\0\0\0\0\0",
        b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x08\x04\xd2\x16\x2f",
    ] {
        let _ = raw(demo, bytes);
    }
    // After the login, as somebody governed and as somebody who is not.
    for who in ["beijing-engineer", "us-engineer"] {
        for bad in [
            frame(b'Q', b"select 1"),
            frame(b'Q', b"select 1\0select 2\0"),
            frame(b'P', b"\0"),
            frame(b'B', b"\0\0\0\x01"),
            frame(b'B', b"\0\0\xff\xff\0\0"),
            frame(b'E', b""),
            frame(b'C', b""),
            frame(b'y', b"x"),
            vec![b'Q', 0, 0, 0, 3],
            vec![b'Q', 0xff, 0xff, 0xff, 0xff],
            vec![0; 64],
        ] {
            let mut wire = Wire::connect(demo.port, who, "us").unwrap();
            let _ = wire.send(&bad);
            let _ = wire.send(&frame(b'S', b""));
            while wire.next().is_ok() {
                if wire.received.ends_with(b"Z\0\0\0\x05I") {
                    break;
                }
            }
        }
    }
    assert!(demo.psql("us-engineer", "us", "select 1").status.success());
}

fn unknown_users_look_like_wrong_passwords(demo: &Demo) {
    let attempt = |user: &str| {
        let output = Command::new("psql")
            .arg(demo.dsn(user, "us"))
            .args(["-X", "-c", "select 1"])
            .env("PGPASSWORD", "wrong")
            .output()
            .unwrap();
        text(&output).replace(user, "NAME")
    };
    let (known, unknown) = (attempt("us-engineer"), attempt("nobody-of-that-name"));
    assert!(known.contains("password authentication failed"), "{known}");
    assert_eq!(known, unknown);
    let shown = demo.ringfence(&["ledger", "show", "--grep", "does not fit"]);
    assert!(text(&shown).contains("us-engineer us: the password does not fit"), "{}", text(&shown));
    assert!(
        !text(&shown).contains("nobody-of-that-name"),
        "a mistyped password must not get into the log as a name"
    );
}

fn start_parameters_that_reach_too_far_are_refused(demo: &Demo) {
    for (name, value) in [
        ("options", "-c search_path=public"),
        ("replication", "database"),
        ("search_path", "public"),
        ("client_encoding", "SJIS"),
        ("standard_conforming_strings", "off"),
        ("role", "clips_app"),
        ("session_authorization", "postgres"),
    ] {
        let refused = Wire::connect_with(demo.port, "singapore-analyst", "us", &[(name, value)]);
        assert!(
            refused.as_ref().err().is_some_and(|e| e.contains("is refused")),
            "{name}: {:?}",
            refused.err()
        );
    }
    assert!(Wire::connect_with(demo.port, "us-engineer", "us", &[("replication", "true")]).is_err());
    Wire::connect_with(demo.port, "us-engineer", "us", &[("options", "-c geqo=off"), ("_pq_.new", "1")])
        .unwrap();
}

fn one_session_leaves_nothing_to_the_next(demo: &Demo) {
    for who in ["singapore-analyst", "us-engineer"] {
        let mut first = Wire::connect(demo.port, who, "us").unwrap();
        for sql in [
            "set timezone = 'Asia/Tokyo'",
            "prepare p as select 1",
            "begin",
            "declare c cursor for select 1",
            "select 1/0",
        ] {
            first.run(sql, Way::Simple).unwrap();
        }
        first.send(&frame(b'X', b"")).unwrap();
        drop(first);
        std::thread::sleep(Duration::from_millis(100));
        let mut next = Wire::connect(demo.port, who, "us").unwrap();
        let sql = "select current_setting('timezone'), (select count(*) from pg_prepared_statements), (select count(*) from pg_cursors), current_user";
        next.run(sql, Way::Simple).unwrap();
        let answer = String::from_utf8_lossy(&next.received).into_owned();
        assert!(answer.contains("UTC") && !answer.contains("Tokyo"), "{who}: {answer}");
        let is_full = who == "us-engineer";
        assert_eq!(answer.contains("clips_app"), is_full, "{who} runs as the role it should: {answer}");
    }
}

fn cancel(demo: &Demo, key: &[u8]) {
    let mut packet = vec![0, 0, 0, 16];
    packet.extend(80_877_102_i32.to_be_bytes());
    packet.extend(key);
    let mut stream = TcpStream::connect(("127.0.0.1", demo.port)).unwrap();
    stream.write_all(&packet).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

fn a_cancel_key_hits_its_own_session_only(demo: &Demo) {
    // A session that is over; the next one of the same person takes over its connection to the store.
    let mut over = Wire::connect(demo.port, "us-engineer", "us").unwrap();
    over.run("select 1", Way::Simple).unwrap();
    let stale = over.key.clone();
    over.send(&frame(b'X', b"")).unwrap();
    drop(over);
    std::thread::sleep(Duration::from_millis(200));
    let mut busy = Wire::connect(demo.port, "us-engineer", "us").unwrap();
    let mut guessed = busy.key.clone();
    guessed[7] ^= 1;
    busy.send(&frame(b'Q', b"select pg_sleep(1), 'undisturbed'\0")).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    cancel(demo, &stale);
    cancel(demo, &guessed);
    busy.until_ready().unwrap();
    assert!(String::from_utf8_lossy(&busy.received).contains("undisturbed"));
    // Its own key hits it, and an idle session's key hits nothing.
    let key = busy.key.clone();
    cancel(demo, &key);
    busy.send(&frame(b'Q', b"select pg_sleep(30)\0")).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    cancel(demo, &key);
    busy.until_ready().unwrap();
    assert!(String::from_utf8_lossy(&busy.received).contains("canceling statement due to user request"));
    assert!(started.elapsed() < Duration::from_secs(5));
}

fn connections_are_limited_and_waiting_ones_make_room(demo: &Demo) {
    let open = |name: &str, count: usize| -> Vec<Result<Wire, String>> {
        let more = [("application_name", name)];
        (0..count).map(|_| Wire::connect_with(demo.port, "beijing-engineer", "us", &more)).collect()
    };
    // Each application leaves connections that wait; together they would use up what the role may have.
    for name in ["one", "two", "three"] {
        let opened = open(name, 6);
        assert!(
            opened.iter().all(Result::is_ok),
            "{name}: {:?}",
            opened.iter().find_map(|o| o.as_ref().err())
        );
        for wire in opened.into_iter().flatten() {
            let mut wire = wire;
            wire.send(&frame(b'X', b"")).unwrap();
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    // And two, with which the gateway counts as this login.
    let all = open("many", 13);
    assert_eq!(all.iter().filter(|o| o.is_ok()).count(), 12);
    let refused = all[12].as_ref().err().unwrap();
    assert!(refused.contains("53300"), "{refused}");
    assert!(demo.psql("singapore-analyst", "us", "select 1").status.success(), "others are not concerned");
}

fn a_wrong_configuration_is_told_whole(demo: &Demo) {
    let file = demo.dir.join("wrong.toml");
    let good = std::fs::read_to_string(demo.dir.join("ringfence.toml")).unwrap();
    let wrong = good
        .replace("keys/gateway.secret", "keys/none")
        .replace("catalogue = \"catalogue.toml\"", "catalogue = \"nowhere.toml\"")
        .replace("jurisdiction = \"us\"", "jurisdiction = \"mars\"");
    std::fs::write(&file, wrong).unwrap();
    let output = demo.ringfence(&["serve", "--config", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output);
    for problem in ["keys/none", "nowhere.toml", "fewer than 32 bytes"] {
        assert!(told.contains(problem), "{problem}: {told}");
    }
    std::fs::write(&file, good.replace("[gateway]", "[gateway]\nlistn = 1")).unwrap();
    let told = text(&demo.ringfence(&["serve", "--config", &file.display().to_string()]));
    assert!(told.contains("unknown field `listn`"), "{told}");
    std::fs::write(&file, good.replace("full_access_role", "ful_access_role")).unwrap();
    let told = text(&demo.ringfence(&["serve", "--config", &file.display().to_string()]));
    assert!(told.contains("[[stores]] has no key ful_access_role"), "{told}");
    // A log that another gateway writes, and a busy port.
    std::fs::write(&file, &good).unwrap();
    let told = text(&demo.ringfence(&["serve", "--config", &file.display().to_string()]));
    assert!(told.contains("another process writes this log"), "{told}");
    std::fs::write(&file, good.replace("dir = \"ledger\"", "dir = \"ledger-busy\"")).unwrap();
    let told = text(&demo.ringfence(&["serve", "--config", &file.display().to_string()]));
    assert!(told.contains("cannot listen on"), "{told}");
    let short = Command::new(PROGRAM)
        .arg("password")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut short = short.unwrap();
    short.stdin.take().unwrap().write_all(b"only14letters!\n").unwrap();
    let output = short.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("15"), "{}", text(&output));
}

fn preflight_names_every_way_around(demo: &Demo) {
    let clean = demo.ringfence(&["check"]);
    assert!(clean.status.success(), "{}", text(&clean));
    let plant = "
        ALTER TABLE users ADD COLUMN nickname text;
        CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'select count(*) from public.messages';
        GRANT EXECUTE ON FUNCTION peek() TO PUBLIC;
        GRANT SELECT ON devices TO PUBLIC;
        GRANT USAGE ON SCHEMA public TO PUBLIC;
        GRANT TEMPORARY ON DATABASE us TO PUBLIC;
        GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO PUBLIC;
        CREATE INDEX partial ON users (id) WHERE email = 'someone@example.com';
        COMMENT ON COLUMN users.email IS 'like someone@example.com'";
    demo.superuser("us-trusted", "us", plant);
    let found = demo.ringfence(&["check", "--store", "us"]);
    assert_eq!(found.status.code(), Some(1));
    let told = text(&found);
    for (severity, what) in [
        ("error", "public.users.nickname is unclassified"),
        ("error", "peek() runs with its owner's rights"),
        ("error", "public.devices is granted to PUBLIC"),
        ("error", "schema public PUBLIC has USAGE"),
        ("error", "database us PUBLIC has TEMPORARY"),
        ("error", "set_config(text,text,boolean) can be executed by PUBLIC"),
        ("warning", "users.partial has a partial"),
        ("warning", "users.email has a comment"),
    ] {
        let line =
            told.lines().find(|l| l.contains(what)).unwrap_or_else(|| panic!("{what} is not in:\n{told}"));
        assert!(line.starts_with(severity), "{line}");
    }
    // What nobody classified is in no face.
    let seen = demo.psql("singapore-analyst", "us", "select nickname from users");
    assert!(text(&seen).contains("does not exist"), "{}", text(&seen));
    let undo = "
        ALTER TABLE users DROP COLUMN nickname; DROP FUNCTION peek(); REVOKE ALL ON devices FROM PUBLIC;
        REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE TEMPORARY ON DATABASE us FROM PUBLIC;
        REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC;
        DROP INDEX partial; COMMENT ON COLUMN users.email IS NULL";
    demo.superuser("us-trusted", "us", undo);
    assert!(demo.ringfence(&["check"]).status.success());
    // A catalogue that names a column which is not there.
    let catalogue = demo.dir.join("catalogue.toml");
    let good = std::fs::read_to_string(&catalogue).unwrap();
    std::fs::write(
        &catalogue,
        good.replace("country = \"public\"", "country = \"public\"\nplanet = \"public\""),
    )
    .unwrap();
    let told = text(&demo.ringfence(&["check", "--store", "us"]));
    std::fs::write(&catalogue, good).unwrap();
    assert!(told.contains("users.planet is in the catalogue but not in the store"), "{told}");
    // A draft from the live database knows what is what.
    let url = format!("host={} user=postgres dbname=us", demo.dir.join("us-trusted").display());
    let draft = text(&demo.ringfence(&["init", "--store", &url]));
    for line in ["kind = \"email\"", "kind = \"phone\"", "category = \"direct-messages\"", "#   videos.title"]
    {
        assert!(draft.contains(line), "{line}: {draft}");
    }
}

/// All that PUBLIC and others may do, in one text.
const RIGHTS: &str = "
    select string_agg(line, E'\\n' order by line) from (
      select 'f ' || p.oid::regprocedure || ' ' || g.grantee::regrole || ' ' || g.privilege_type as line
        from pg_proc p cross join lateral aclexplode(coalesce(proacl, acldefault('f', proowner))) g
      union all select 'd ' || datname || ' ' || g.grantee::regrole || ' ' || g.privilege_type
        from pg_database cross join lateral aclexplode(coalesce(datacl, acldefault('d', datdba))) g
      union all select 'n ' || nspname || ' ' || g.grantee::regrole || ' ' || g.privilege_type
        from pg_namespace cross join lateral aclexplode(coalesce(nspacl, acldefault('n', nspowner))) g
      union all select 'l ' || lanname || ' ' || g.grantee::regrole || ' ' || g.privilege_type
        from pg_language cross join lateral aclexplode(coalesce(lanacl, acldefault('l', lanowner))) g
      union all select 'r ' || c.oid::regclass || ' ' || g.grantee::regrole || ' ' || g.privilege_type || c.relrowsecurity
        from pg_class c cross join lateral aclexplode(relacl) g where relnamespace = 'public'::regnamespace
      union all select 'role ' || rolname || rolbypassrls from pg_roles
      union all select 'default ' || defaclrole::regrole || defaclacl::text from pg_default_acl
      union all select 'member ' || roleid::regrole || ' ' || member::regrole from pg_auth_members
    ) rights";

fn uninstall_puts_everything_back(demo: &Demo) {
    let ask = |database: &str, sql: &str| demo.superuser("control", database, sql);
    ask("postgres", "create role app_owner nologin");
    ask("postgres", "create role app nologin");
    ask("postgres", "create database app owner app_owner");
    ask(
        "app",
        "set role app_owner; create table public.people (id int, email text); insert into public.people values (1, 'a@example.com');
         grant select on public.people to app; grant select (id) on public.people to public;
         create function public.f() returns int language sql as 'select 1'",
    );
    let before = ask("app", RIGHTS);
    let url = format!("host={} user=postgres dbname=app", demo.dir.join("control").display());
    let shown = demo.ringfence(&["install", "--store", &url, "--full-access-role", "app"]);
    assert!(text(&shown).contains("none made"), "{}", text(&shown));
    assert_eq!(ask("app", RIGHTS), before, "showing changes nothing");
    let done = demo.ringfence(&["install", "--store", &url, "--full-access-role", "app", "--yes"]);
    assert!(done.status.success(), "{}", text(&done));
    assert_ne!(ask("app", RIGHTS), before);
    let key = ask("app", "select encode(inner_pad, 'hex') from ringfence.mask_key");
    let log = std::fs::read_to_string(demo.dir.join("control/log/postgresql.csv")).unwrap();
    assert!(!log.contains(&key), "the mask key is in the server's log");
    let undone = demo.ringfence(&["uninstall", "--store", &url, "--yes"]);
    assert!(undone.status.success(), "{}", text(&undone));
    let after = ask("app", RIGHTS);
    let differs: Vec<_> = after
        .lines()
        .filter(|l| !before.contains(l))
        .chain(before.lines().filter(|l| !after.contains(l)))
        .collect();
    assert!(differs.is_empty(), "{differs:?}");
    ask("postgres", "drop database app");
}

fn a_full_disk_refuses_and_service_resumes(demo: &Demo) {
    // A file-size limit stands for a full disk: writing fails in the same place, and can be made to work again.
    let served = demo.serve("full", "trap '' XFSZ; ulimit -S -f 100;");
    let mut analyst = Wire::connect(served.port, "singapore-analyst", "us").unwrap();
    let mut feed = Wire::connect(served.port, "feed-service", "us").unwrap();
    let filler = format!("select '{}' is null", "x".repeat(20_000));
    let mut refused = false;
    for _ in 0..40 {
        if analyst.run(&filler, Way::Simple).is_err() {
            // The statement that hit the wall: its answer was withheld and its session ended.
            assert!(String::from_utf8_lossy(&analyst.received).contains("the ledger cannot be written"));
            analyst = Wire::connect(served.port, "singapore-analyst", "us").unwrap();
        }
        let from = analyst.received.len();
        if analyst.run("select email from users limit 1", Way::ExtendedText).is_ok() {
            let answer = String::from_utf8_lossy(&analyst.received[from..]).into_owned();
            refused = answer.contains("refused because the ledger cannot be written");
            assert!(!refused || !answer.contains("masked.invalid"), "a row came with the refusal");
        }
        if refused {
            break;
        }
    }
    assert!(refused, "the disk was never full");
    let from = feed.received.len();
    feed.run("select count(*) from profiles", Way::Simple).expect("in-country workloads go on");
    assert!(feed.received[from..].contains(&b'D'));
    let lifted =
        Command::new("prlimit").arg(format!("--pid={}", served.child.id())).arg("--fsize=unlimited").status();
    assert!(lifted.is_ok_and(|s| s.success()), "prlimit works");
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let from = analyst.received.len();
        analyst.run("select email from users limit 1", Way::Simple).unwrap();
        if String::from_utf8_lossy(&analyst.received[from..]).contains("masked.invalid") {
            break;
        }
        assert!(Instant::now() < until, "service does not resume");
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_millis(600));
    let config = demo.dir.join("full.toml").display().to_string();
    let verified = demo.ringfence(&["ledger", "verify", "--config", &config]);
    assert!(verified.status.success(), "{}", text(&verified));
}

fn new_rules_are_read_on_sighup_and_cut_faces(demo: &Demo) {
    let served = demo.serve("rules", "");
    let mut analyst = Wire::connect(served.port, "singapore-analyst", "us").unwrap();
    analyst.run("select email from users limit 1", Way::Simple).unwrap();
    let registry = demo.dir.join("registry-rules.toml");
    let good = std::fs::read_to_string(&registry).unwrap();
    let hangup = || {
        let status = Command::new("kill").arg("-HUP").arg(served.child.id().to_string()).status();
        assert!(status.is_ok_and(|s| s.success()));
        std::thread::sleep(Duration::from_millis(300));
    };
    // Rules that do not fit leave the old ones in force.
    std::fs::write(&registry, "people = 7").unwrap();
    hangup();
    analyst.run("select email from users limit 1", Way::Simple).expect("the old rules hold");
    // What approvers have signed was about the analyst as they were.
    let grant = demo.grant("singapore-analyst", "users.email", "id = 4711", &[]);
    std::thread::sleep(Duration::from_millis(1200));
    let reads_clear = || {
        let mut wire = Wire::connect(served.port, "singapore-analyst", "us").unwrap();
        wire.run("select email from users where id = 4711", Way::Simple).unwrap();
        let received = String::from_utf8_lossy(&wire.received).into_owned();
        received.contains('@') && !received.contains("masked.invalid")
    };
    assert!(reads_clear());
    let mut analyst = Wire::connect(served.port, "singapore-analyst", "us").unwrap();
    analyst.run("select email from users limit 1", Way::Simple).unwrap();
    // The analyst's company is bought: a covered person from now on, and cut.
    std::fs::write(&registry, good.replace("percent = 20.0", "percent = 50.0")).unwrap();
    hangup();
    let said = analyst.next().map(|(_, body)| String::from_utf8_lossy(&body).into_owned());
    assert!(said.as_ref().is_ok_and(|s| s.contains("rules for this store changed")), "{said:?}");
    let mut analyst = Wire::connect(served.port, "singapore-analyst", "us").unwrap();
    analyst.run("select email from users limit 1", Way::Simple).unwrap();
    let answer = String::from_utf8_lossy(&analyst.received).into_owned();
    assert!(answer.contains("covered person") && answer.contains("clips-holding"), "{answer}");
    assert!(!reads_clear(), "the grant was signed for somebody who is not covered");
    demo.ringfence(&["revoke", &grant, "--as", "us-approver-3"]);
    // An engineer leaves the team: their session ends, others' with full access go on.
    let mut engineer = Wire::connect(served.port, "us-engineer", "us").unwrap();
    let mut feed = Wire::connect(served.port, "feed-service", "us").unwrap();
    let engineer_lines = "employer = \"clips-us\"\nteams = [\"us-data\"]";
    std::fs::write(&registry, good.replacen(engineer_lines, "employer = \"clips-us\"", 1)).unwrap();
    hangup();
    let said = engineer.next().map(|(_, body)| String::from_utf8_lossy(&body).into_owned());
    assert!(said.as_ref().is_ok_and(|s| s.contains("rules for this store changed")), "{said:?}");
    feed.run("select 1", Way::Simple).expect("the workload goes on");
    // Full access stays, and something else is said of the person: judged again, at stores and at the
    // console. Who has left gives no more commands.
    std::fs::write(&registry, &good).unwrap();
    hangup();
    let mut engineer = Wire::connect(served.port, "us-engineer", "us").unwrap();
    let console = |who: &str| {
        let mut wire = Wire::connect(served.port, who, "ringfence").unwrap();
        wire.run("requests", Way::Simple).unwrap();
        wire
    };
    let (mut of_engineer, mut of_approver) = (console("us-engineer"), console("us-approver-3"));
    let moved = good.replacen(engineer_lines, "employer = \"clips-holding\"\nteams = [\"us-data\"]", 1);
    assert_ne!(moved, good);
    std::fs::write(&registry, &moved).unwrap();
    hangup();
    for wire in [&mut engineer, &mut of_engineer] {
        let said = wire.next().map(|(_, body)| String::from_utf8_lossy(&body).into_owned());
        assert!(said.as_ref().is_ok_and(|s| s.contains("rules for this store changed")), "{said:?}");
    }
    of_approver.run("requests", Way::Simple).expect("nothing has changed for them");
    feed.run("select 1", Way::Simple).expect("nor for the workload");
    std::fs::write(&registry, moved.replace("name = \"us-approver-3\"", "name = \"us-approver-9\"")).unwrap();
    hangup();
    let said = of_approver.next().map(|(_, body)| String::from_utf8_lossy(&body).into_owned());
    assert!(said.as_ref().is_ok_and(|s| s.contains("rules for this store changed")), "{said:?}");
}

fn a_store_behind_tls_is_verified(demo: &Demo) {
    let front = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/support/tls_front.py");
    let mut front = Command::new("python3")
        .arg(front)
        .arg(demo.dir.join("us-trusted/.s.PGSQL.5432"))
        .arg(demo.dir.join("keys/tls.crt"))
        .arg(demo.dir.join("keys/tls.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(front.stdout.take().unwrap()), &mut port)
        .unwrap();
    let plain =
        format!("url = \"host='{}' user=ringfence dbname=us\"", demo.dir.join("us-trusted").display());
    let through = format!(
        "url = \"host=127.0.0.1 port={} user=ringfence dbname=us\"\ntls_root = \"keys/tls.crt\"",
        port.trim()
    );
    let config = std::fs::read_to_string(demo.dir.join("ringfence.toml")).unwrap();
    assert!(config.contains(&plain));
    let served = demo.serve_with("tls", "", |text| text.replace(&plain, &through));
    for (who, shows) in [("singapore-analyst", "@masked.invalid"), ("us-engineer", "@")] {
        let mut wire = Wire::connect(served.port, who, "us").unwrap();
        wire.run("select email from users limit 3", Way::ExtendedBinary).unwrap();
        assert!(String::from_utf8_lossy(&wire.received).contains(shows));
    }
    drop(served);
    // A certificate that nobody vouches for: nothing is sent to that server.
    let other = "keys/other.crt";
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ed25519",
            "-nodes",
            "-subj",
            "/CN=127.0.0.1",
            "-keyout",
            "/dev/null",
            "-out",
        ])
        .arg(demo.dir.join(other))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let wrong = through.replace("keys/tls.crt", other);
    let served = demo.serve_with("tls", "", |text| text.replace(&plain, &wrong));
    let refused = Wire::connect(served.port, "singapore-analyst", "us").err().unwrap_or_default();
    assert!(refused.contains("cannot be reached") && refused.contains("certificate"), "{refused}");
    drop(served);
    drop(front.stdin.take());
    front.wait().unwrap();
    // On another machine, TLS is not a choice.
    let file = demo.dir.join("far.toml");
    std::fs::write(&file, config.replace(&plain, "url = \"host=db.example.com user=ringfence dbname=us\""))
        .unwrap();
    let told = text(&demo.ringfence(&["serve", "--config", &file.display().to_string()]));
    assert!(told.contains("tls_root must name the certificates"), "{told}");
}

fn a_store_that_is_down_is_told(demo: &Demo) {
    let pid = std::fs::read_to_string(demo.dir.join("sg-legacy/postmaster.pid")).unwrap();
    let pid = pid.lines().next().unwrap().to_owned();
    let mut open = Wire::connect(demo.port, "us-engineer", "legacy").unwrap();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let until = Instant::now() + Duration::from_secs(20);
    while demo.dir.join("sg-legacy/postmaster.pid").exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = open.next().map(|(_, body)| String::from_utf8_lossy(&body).into_owned());
    assert!(said.as_ref().is_ok_and(|s| s.contains("FATAL") || s.contains("terminating")), "{said:?}");
    let output = demo.psql("us-engineer", "legacy", "select 1");
    assert!(text(&output).contains("the store cannot be reached"), "{}", text(&output));
    assert!(demo.psql("us-engineer", "us", "select 1").status.success(), "other stores go on");
}

fn a_killed_demo_is_cleaned_up_by_the_next(demo: &mut Demo) {
    demo.kill();
    demo.restart();
    let output = demo.psql("us-engineer", "legacy", "select count(*) > 0 from users");
    assert!(output.status.success(), "{}", text(&output));
    for n in 0..3 {
        let sql = format!("select handle from profiles where user_id < 100 and user_id <> {n} limit 5");
        assert!(demo.psql("feed-service", "us", &sql).status.success());
    }
    demo.stop();
    // The workload is on record by shape, without its constants, and not statement by statement.
    let shown = demo.ringfence(&["ledger", "show", "--json", "--grep", "user_id <> ?"]);
    let shown = text(&shown);
    assert!(
        shown.contains("\"counted\"")
            && shown.contains("\"statements\": 3")
            && shown.contains("\"rows\": 15"),
        "{shown}"
    );
    assert!(!shown.contains("user_id <> 1"), "{shown}");
    let dir = &demo.dir;
    let left = Command::new("pgrep").arg("-f").arg(dir.display().to_string()).output().unwrap();
    assert!(left.stdout.is_empty(), "processes are left: {}", text(&left));
}
