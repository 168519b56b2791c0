//! Public columns go on to a store outside, signed by the in-country team, guarded at the source and checked at both ends.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Demo, text};

const WHO: [&str; 2] = ["--as", "us-engineer"];

fn ok(demo: &Demo, arguments: &[&str]) -> String {
    let output = demo.ringfence(&[arguments, &WHO].concat());
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

fn fails(demo: &Demo, arguments: &[&str], with: &str) {
    let output = demo.ringfence(&[arguments, &WHO].concat());
    assert!(!output.status.success() && text(&output).contains(with), "{arguments:?}: {}", text(&output));
}

/// Runs SQL that the store must refuse.
fn refused(demo: &Demo, sql: &str) -> String {
    let socket = demo.dir.join("us-trusted").canonicalize().unwrap();
    let output = Command::new("psql")
        .arg(format!("host={} user=postgres dbname=home", socket.display()))
        .args(["-X", "-c", sql])
        .output()
        .unwrap();
    assert!(!output.status.success(), "{sql}: {}", text(&output));
    text(&output)
}

fn request(demo: &Demo) -> String {
    let asked: Value = serde_json::from_str(&ok(demo, &["flow", "request", "--json"])).unwrap();
    asked["id"].as_str().unwrap().to_owned()
}

fn approve(demo: &Demo, id: &str) {
    for who in ["us-approver-1", "us-approver-2"] {
        let key = demo.dir.join("keys").join(who).display().to_string();
        let output = demo.ringfence(&["flow", "approve", id, "--as", who, "--key", &key]);
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn only_what_was_signed_leaves() {
    let demo = Demo::start("flow");
    let home = |sql: &str| demo.superuser("us-trusted", "home", sql);
    let world = |sql: &str| demo.superuser("sg-legacy", "world", sql);
    fails(&demo, &["flow", "plan"], "users: is not in home");
    ok(&demo, &["migrate", "start"]);
    ok(&demo, &["migrate", "cutover"]);

    // A role that can read more than goes is not the flow's.
    home("grant select (email) on users to ringfence_flow");
    fails(&demo, &["flow", "plan"], "can read public.users.email at home");
    home("revoke select (email) on users from ringfence_flow");
    let plan = ok(&demo, &["flow", "plan"]);
    assert!(
        plan.contains("id, country, created_at") && plan.contains("STAY     users: email, phone"),
        "{plan}"
    );
    let id = request(&demo);
    fails(&demo, &["flow", "open", &id], "0 of 2 approvals");
    approve(&demo, &id);
    ok(&demo, &["flow", "open", &id]);
    let counts =
        "select (select count(*) from users), (select count(*) from videos), (select count(*) from follows)";
    assert_eq!(world(counts), home(counts));
    assert!(world("select count(*) from users").parse::<u32>().unwrap() > 1000);
    let columns = "select string_agg(attname, ',' order by attnum) from pg_attribute where attrelid = 'users'::regclass and attnum > 0";
    assert_eq!(world(columns), "id,country,created_at");

    // Changes follow; changes of what stays do not show.
    home(
        "update profiles set display_name = 'CANARY-public' where user_id = 4711; update users set email = 'CANARY-secret@example.org' where id = 4711",
    );
    let until = Instant::now() + Duration::from_secs(20);
    while world("select count(*) from profiles where display_name = 'CANARY-public'") != "1" {
        assert!(Instant::now() < until, "a change does not arrive");
        std::thread::sleep(Duration::from_millis(50));
    }
    let checked: Value = serde_json::from_str(&ok(&demo, &["flow", "check", &id, "--json"])).unwrap();
    assert_eq!(checked["problems"], Value::from(Vec::<Value>::new()));
    assert!(checked["looked_for"].as_u64().unwrap() > 100, "{checked}");

    // The source refuses what would let more out, each way that there is.
    for sql in [
        "alter publication ringfence_flow_world set table users",
        "alter publication ringfence_flow_world set table users (id, country, email)",
        "alter publication ringfence_flow_world add table payments",
        "alter table profiles rename column bio to biography",
        "create publication ringfence_flow_other for table users (id, email)",
    ] {
        assert!(refused(&demo, sql).contains("nobody has signed for"), "{sql}");
    }
    // Nor under a name that was signed for another column.
    let told = refused(
        &demo,
        "begin; alter table users drop column created_at cascade; alter table users rename column email to created_at;
         alter publication ringfence_flow_world add table users (id, country, created_at)",
    );
    assert!(told.contains("signed for another column"), "{told}");
    // Whoever has the other end has the role's password: what else it reads is seen.
    let password = std::fs::read_to_string(demo.dir.join("keys/flow.password")).unwrap();
    let socket = demo.dir.join("us-trusted").canonicalize().unwrap();
    let mut reader = Command::new("pg_recvlogical")
        .args([
            "-h",
            socket.to_str().unwrap(),
            "-U",
            "ringfence_flow",
            "-d",
            "home",
            "--no-loop",
            "--slot",
            "stolen",
            "--create-slot",
        ])
        .args(["-P", "test_decoding", "--start", "-f", "/dev/null"])
        .env("PGPASSWORD", password.trim())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while home("select count(*) from pg_replication_slots where slot_name = 'stolen' and active") != "1" {
        assert!(Instant::now() < until, "pg_recvlogical does not begin");
        std::thread::sleep(Duration::from_millis(50));
    }
    fails(&demo, &["flow", "check", &id], "somebody reads home beside the flow: stolen");
    assert!(!reader.wait().unwrap().success(), "who reads beside the flow goes on");
    home("select pg_drop_replication_slot('stolen')");
    let again = Command::new("psql")
        .args(["-X", "-h", socket.to_str().unwrap(), "-U", "ringfence_flow", "-d", "home", "-c", "select 1"])
        .env("PGPASSWORD", password.trim())
        .output()
        .unwrap();
    assert!(text(&again).contains("not permitted to log in"), "{}", text(&again));
    world("truncate users, profiles, videos, follows");
    ok(&demo, &["flow", "open", &id]);
    home(
        "create publication elsewhere for table payments; drop publication elsewhere; alter table users add column nickname text",
    );
    fails(&demo, &["migrate", "start"], "at home at home already");

    // Whoever takes the guard away and sends more: the other end has no place for it, and the next check cuts the flow.
    home(
        "alter event trigger ringfence_flow_guard disable; alter publication ringfence_flow_world set table users (id, country, created_at, email)",
    );
    home("update users set country = 'US' where id = 4711");
    fails(&demo, &["flow", "check", &id], "sends email");
    assert_eq!(home("select count(*) from pg_publication where pubname like 'ringfence_flow%'"), "0");
    assert_eq!(home("select count(*) from pg_replication_slots where slot_name like 'ringfence_flow%'"), "0");
    assert_eq!(
        world(
            "select count(*) from pg_subscription s join pg_database d on d.oid = s.subdbid where d.datname = 'world'"
        ),
        "0"
    );
    let dump = Command::new("pg_dump")
        .args([
            "-h",
            &demo.dir.join("sg-legacy").canonicalize().unwrap().display().to_string(),
            "-U",
            "postgres",
            "world",
        ])
        .output()
        .unwrap();
    let dump = text(&dump);
    assert!(dump.contains("CANARY-public") && !dump.contains("CANARY-secret") && !dump.contains('@'));

    fails(&demo, &["flow", "open", &id], "TRUNCATE");
    world("truncate users, profiles, videos, follows");
    // Where a protected value has come to the other end in spite of all, it is found.
    ok(&demo, &["flow", "open", &id]);
    ok(&demo, &["flow", "check", &id]);
    let secret =
        home("select email from users where id = (select min(id) from users where email like '%@%')");
    let every = home("select string_agg(quote_literal(email), ',') from users");
    assert!(!secret.is_empty());
    world(&format!(
        "set session_replication_role = replica; insert into profiles (user_id, bio) select -row_number() over (), e from unnest(array[{every}]) e"
    ));
    fails(&demo, &["flow", "check", &id], "protected values of 500 people in profiles");

    // Signed for once is not signed for what the catalogue says later.
    let catalogue = demo.dir.join("catalogue.toml");
    let text_before = std::fs::read_to_string(&catalogue).unwrap();
    world("truncate users, profiles, videos, follows");
    let later = text_before.replace("bio = \"public\"", "bio = { protected = \"contact\", kind = \"text\" }");
    assert_ne!(later, text_before);
    std::fs::write(&catalogue, later).unwrap();
    fails(&demo, &["flow", "open", &id], "has a column bio there, which does not go");
    std::fs::write(&catalogue, text_before).unwrap();
    ok(&demo, &["flow", "open", &id]);
    ok(&demo, &["flow", "close", &id]);

    std::thread::sleep(Duration::from_secs(2));
    let shown = text(&demo.ringfence(&["ledger", "show", "--grep", &id]));
    for stage in ["flow-requested", "by us-approver-2", "opened by", "checked by", "cut by", "closed by"] {
        assert!(shown.contains(stage), "{stage}: {shown}");
    }
    assert!(demo.verify().is_ok());
}
