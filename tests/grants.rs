//! Requests, approvals and grants from end to end: who may sign, what a grant opens, and what ends it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::wire::{Way, Wire};
use support::{Demo, text};

#[test]
fn grants_open_what_was_signed_for_until_they_end() {
    let demo = Demo::start("grants");
    who_may_sign(&demo);
    what_may_be_asked(&demo);
    a_hardware_key_signs_through_ssh_keygen(&demo);
    two_grants_open_their_own_rows_and_columns(&demo);
    a_covered_person_gets_what_was_signed_for(&demo);
    the_row_limit_cuts_in_the_middle_of_a_result(&demo);
    the_clock_cuts_in_the_middle_of_a_result(&demo);
    a_revocation_cuts_all_its_sessions_and_no_other(&demo);
    an_invented_approval_opens_nothing(&demo);
    an_approved_request_whose_gateway_died_is_put_in_force(&demo);
    one_grant_among_many_stays_in_force(&demo);
    let verified = demo.verify().expect("the log holds what happened");
    assert!(verified.contains("approvals are signed"), "{verified}");
}

fn ask(demo: &Demo, more: &[&str]) -> String {
    let mut arguments =
        vec!["request", "--as", "singapore-analyst", "--store", "us", "--purpose", "a test", "--json"];
    arguments.extend(more);
    let output = demo.ringfence(&arguments);
    text(&output)
}

fn id(answer: &str) -> String {
    answer
        .split("\"id\": \"")
        .nth(1)
        .and_then(|r| r.split('"').next())
        .unwrap_or_else(|| panic!("{answer}"))
        .to_owned()
}

fn approve(demo: &Demo, id: &str, who: &str, key: &str) -> String {
    let key = demo.dir.join("keys").join(key).display().to_string();
    text(&demo.ringfence(&["approve", id, "--as", who, "--key", &key]))
}

fn revoke(demo: &Demo, id: &str) {
    let output = demo.ringfence(&["revoke", id, "--as", "us-approver-3"]);
    assert!(output.status.success(), "{}", text(&output));
}

fn who_may_sign(demo: &Demo) {
    let asked = id(&ask(demo, &["--columns", "users.email", "--where", "id = 4711", "--for", "1h"]));
    assert!(
        approve(demo, &asked, "singapore-analyst", "us-approver-1")
            .contains("cannot approve their own request")
    );
    assert!(approve(demo, &asked, "us-engineer", "us-approver-1").contains("not yours to read"));
    assert!(approve(demo, &asked, "auditor", "us-approver-1").contains("not in the security team"));
    assert!(approve(demo, &asked, "us-approver-1", "us-approver-2").contains("not by their key"));
    for _ in 0..2 {
        assert!(
            approve(demo, &asked, "us-approver-1", "us-approver-1").contains("1 of 2 approvals"),
            "one person counts once"
        );
    }
    let denied = demo.ringfence(&["deny", &asked, "--as", "us-approver-2", "--reason", "no ticket"]);
    assert!(text(&denied).contains("is denied"), "{}", text(&denied));
    assert!(
        approve(demo, &asked, "us-approver-3", "us-approver-3")
            .contains("is denied, so it cannot be approved")
    );
}

fn what_may_be_asked(demo: &Demo) {
    for (arguments, why) in [
        (["--columns", "users.country", "--where", "id = 1"], "is public: no grant is needed"),
        (["--columns", "users.nope", "--where", "id = 1"], "not in the catalogue"),
        (["--columns", "users.email,payments.card_last4", "--where", "id = 1"], "columns of one table"),
        (["--columns", "messages.body", "--where", "id = 1"], "no approval can open"),
        (["--columns", "users.email", "--where", "pg_sleep(9) is null"], "no functions"),
        (["--columns", "users.email", "--where", "id = 'x'"], "invalid input syntax"),
        (["--columns", "users.email", "--where", "true) or (true"], "syntax error"),
    ] {
        let mut all = arguments.to_vec();
        all.extend(["--for", "1h"]);
        let answer = ask(demo, &all);
        assert!(answer.contains(why), "{arguments:?}: {answer}");
    }
    assert!(ask(demo, &["--columns", "users.email", "--for", "90days"]).contains("thirty days"));
}

fn a_hardware_key_signs_through_ssh_keygen(demo: &Demo) {
    let asked = id(&ask(demo, &["--columns", "users.email", "--where", "id = 4711", "--for", "1h"]));
    let printed = demo.ringfence(&["approve", &asked, "--as", "us-approver-1", "--print"]);
    let file = demo.dir.join("to-sign");
    std::fs::write(&file, &printed.stdout).unwrap();
    let signed = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", "ringfence-approval", "-f"])
        .arg(demo.dir.join("keys/us-approver-1"))
        .arg(&file)
        .output()
        .unwrap();
    assert!(signed.status.success(), "{}", text(&signed));
    let signature = demo.dir.join("to-sign.sig").display().to_string();
    let answer = demo.ringfence(&["approve", &asked, "--as", "us-approver-1", "--signature", &signature]);
    assert!(text(&answer).contains("1 of 2 approvals"), "{}", text(&answer));
    assert!(
        demo.ringfence(&["revoke", &asked, "--as", "singapore-analyst"]).status.success(),
        "one may withdraw"
    );
}

fn rows(demo: &Demo, who: &str, sql: &str) -> Vec<String> {
    let output = demo.psql(who, "us", sql);
    assert!(output.status.success(), "{sql}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn two_grants_open_their_own_rows_and_columns(demo: &Demo) {
    let clear = rows(
        demo,
        "us-engineer",
        "select id, email, phone from users where id in (select min(id) from users union select 4711) order by id",
    );
    let (first, second) = (clear[0].split('|').collect::<Vec<_>>(), clear[1].split('|').collect::<Vec<_>>());
    let condition = format!("id = {}", first[0]);
    let a = demo.grant("singapore-analyst", "users.email", &condition, &[]);
    let b = demo.grant("singapore-analyst", "users.phone", "id = 4711", &[]);
    let seen = rows(demo, "singapore-analyst", "select id, email, phone from users order by id");
    assert_eq!(seen.len(), 2, "{seen:?}");
    let (one, two) = (seen[0].split('|').collect::<Vec<_>>(), seen[1].split('|').collect::<Vec<_>>());
    assert_eq!((one[1], one[2]), (first[1], "(masked)"));
    assert!(two[1].ends_with("@masked.invalid"));
    assert_eq!(two[2], second[2]);
    // Other tables are as without a grant, and full access notices nothing of the row policies.
    assert!(
        rows(demo, "singapore-analyst", "select count(*) from payments where id > 0")[0]
            .parse::<u64>()
            .unwrap()
            > 100
    );
    assert!(rows(demo, "us-engineer", "select count(*) from users")[0].parse::<u64>().unwrap() > 1000);
    assert!(rows(demo, "feed-service", "select count(*) from users")[0].parse::<u64>().unwrap() > 1000);
    revoke(demo, &a);
    revoke(demo, &b);
    assert!(rows(demo, "singapore-analyst", "select count(*) from users")[0].parse::<u64>().unwrap() > 1000);
}

fn a_covered_person_gets_what_was_signed_for(demo: &Demo) {
    let grant = demo.grant("beijing-engineer", "users.email", "id = 4711", &[]);
    let seen = rows(demo, "beijing-engineer", "select * from users");
    assert_eq!(seen.len(), 1);
    assert_eq!(
        seen[0].split('|').count(),
        4,
        "id, country, created_at and the e-mail that was signed for: {seen:?}"
    );
    let clear = rows(demo, "us-engineer", "select email from users where id = 4711");
    assert!(seen[0].ends_with(&clear[0]));
    revoke(demo, &grant);
}

fn the_row_limit_cuts_in_the_middle_of_a_result(demo: &Demo) {
    let grant = demo.grant("singapore-analyst", "users.email", "", &["--max-rows", "150"]);
    let mut wire = Wire::connect(demo.port, "singapore-analyst", "us").unwrap();
    wire.run("select count(*) from profiles", Way::Simple).unwrap();
    let refused = wire.received.len();
    wire.run("select string_agg(email, ',') from users", Way::Simple).unwrap();
    let answer = String::from_utf8_lossy(&wire.received[refused..]).into_owned();
    assert!(answer.contains("this statement costs more than 150 rows of users"), "{answer}");
    let from = wire.received.len();
    wire.run("select id, email from users limit 100", Way::ExtendedText).unwrap();
    let over = wire.run("select id, email from users", Way::Simple);
    assert!(over.is_err(), "the session is over");
    let (mut count, mut rest) = (0, &wire.received[from..]);
    let mut last = String::new();
    while rest.len() > 5 {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        count += usize::from(rest[0] == b'D');
        if rest[0] == b'E' {
            last = String::from_utf8_lossy(&rest[..=length]).into_owned();
        }
        rest = &rest[length + 1..];
    }
    assert_eq!(count, 150, "100 in the first result, 50 in the second");
    assert!(last.contains("row limit") && last.contains(&grant), "{last}");
    // A grant that is used up counts no more.
    let again = demo.psql("singapore-analyst", "us", "select id, email from users limit 1");
    assert!(text(&again).contains("is used up") && text(&again).contains("masked"), "{}", text(&again));
    assert!(demo.psql("singapore-analyst", "us", "select handle from profiles limit 500").status.success());
    revoke(demo, &grant);
}

fn the_clock_cuts_in_the_middle_of_a_result(demo: &Demo) {
    let grant = demo.grant("singapore-analyst", "users.email", "id = 4711", &["--for", "3s"]);
    let started = Instant::now();
    let slow = "select u.id, g from users u, generate_series(1, 1000) g where pg_sleep(0.02) is not null";
    let output = demo.psql("singapore-analyst", "us", slow);
    assert!(text(&output).contains("has expired"), "{}", text(&output));
    assert!(text(&output).contains(&grant));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(rows(demo, "singapore-analyst", "select email from users where id = 4711")[0].contains("masked"));
}

fn a_revocation_cuts_all_its_sessions_and_no_other(demo: &Demo) {
    let grant = demo.grant("singapore-analyst", "users.email", "id = 4711", &[]);
    let mut bystander = Wire::connect(demo.port, "us-engineer", "us").unwrap();
    let mut idle = Wire::connect(demo.port, "singapore-analyst", "us").unwrap();
    let mut running: Vec<_> = (0..6)
        .map(|_| {
            // Fast rows: the client is in the middle of a stream when the cut comes.
            Command::new("psql")
                .arg(demo.dsn("singapore-analyst", "us"))
                .args([
                    "-X",
                    "-q",
                    "-A",
                    "-t",
                    "--set",
                    "FETCH_COUNT=1000",
                    "-c",
                    "select u.email, g from users u, generate_series(1, 200000000) g",
                ])
                .env("PGPASSWORD", "demo")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(1500));
    revoke(demo, &grant);
    let returned = Instant::now();
    for client in &mut running {
        let mut error = String::new();
        client.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        client.wait().unwrap();
        assert!(error.contains("was revoked by us-approver-3") || error.contains("closed"), "{error}");
    }
    println!("the last of 6 clients had its error {:?} after revoke returned", returned.elapsed());
    let cut = idle.next().map(|(tag, body)| (tag, String::from_utf8_lossy(&body).into_owned()));
    assert!(
        matches!(&cut, Ok((b'E', body)) if body.contains("revoked")),
        "an idle session is cut, too: {cut:?}"
    );
    bystander.run("select 1", Way::Simple).expect("who does not depend on the grant goes on");
}

/// The operator of the control database cannot grant anything: what counts are signatures.
fn an_invented_approval_opens_nothing(demo: &Demo) {
    let asked = id(&ask(demo, &["--columns", "users.email", "--where", "id = 4711", "--for", "1h"]));
    let forge = format!(
        "update ringfence.requests set state = 'granted', granted = (extract(epoch from now()) * 1000)::bigint where id = '{asked}';
         insert into ringfence.approvals select '{asked}', a, (select signature from ringfence.approvals limit 1), 1
         from unnest(array['us-approver-1', 'us-approver-2']) a"
    );
    demo.superuser("control", "control", &forge);
    std::thread::sleep(Duration::from_millis(2500));
    assert!(rows(demo, "singapore-analyst", "select email from users where id = 4711")[0].contains("masked"));
}

/// Whoever took the last signature died before the grant was in force: a gateway takes over, and has what it relies on in
/// its own log, which still verifies (the caller looks).
fn an_approved_request_whose_gateway_died_is_put_in_force(demo: &Demo) {
    let id = demo.grant("singapore-analyst", "users.email", "id = 4711", &[]);
    let state = |change: &str| {
        let more = if change.is_empty() {
            String::new()
        } else {
            format!("update ringfence.requests set {change} where id = '{id}'; ")
        };
        demo.superuser(
            "control",
            "control",
            &format!("{more}select state from ringfence.requests where id = '{id}'"),
        )
    };
    assert_eq!(state("state = 'pending', granted = null"), "pending");
    let until = Instant::now() + Duration::from_secs(20);
    while state("") != "granted" {
        assert!(Instant::now() < until, "nobody took over");
        std::thread::sleep(Duration::from_millis(200));
    }
    let shown = text(&demo.psql("singapore-analyst", "us", "select email from users where id = 4711"));
    assert!(shown.contains('@') && !shown.contains("masked"), "{shown}");
    revoke(demo, &id);
}

/// The control database holds more grants than a page of a listing, all signed, and one row that is no request.
fn one_grant_among_many_stays_in_force(demo: &Demo) {
    let ours = demo.grant("singapore-analyst", "users.email", "id = 4711", &[]);
    let read = || text(&demo.psql("singapore-analyst", "us", "select email from users where id = 4711"));
    let clear = read();
    assert!(clear.contains('@') && !clear.contains('*'), "{clear}");
    let control = |sql: &str| demo.superuser("control", "control", sql);
    let canonical = control(&format!("select canonical from ringfence.requests where id = '{ours}'"));
    let granted = control(&format!("select granted from ringfence.requests where id = '{ours}'"));
    let keys = ["us-approver-1", "us-approver-2"]
        .map(|name| (name, std::fs::read_to_string(demo.dir.join("keys").join(name)).unwrap()));
    let (mut requests, mut approvals) = (String::new(), String::new());
    for n in 0..1200 {
        let id = format!("R-MANY{n:04}");
        let who = if n == 1199 { "beijing-engineer".to_owned() } else { format!("somebody-{n}") };
        let mut text = canonical.replace(&ours, &id).replace("singapore-analyst", &who);
        if n == 1199 {
            // What is signed is about the requester as they are.
            let theirs = [
                ("\"covered\":null", "\"covered\":\"by its employer\""),
                ("\"employer\":\"clips-singapore\"", "\"employer\":\"clips-technology\""),
                ("\"location\":\"SG\"", "\"location\":\"CN\""),
            ];
            for (ours, theirs) in theirs {
                assert!(text.contains(ours), "{text}");
                text = text.replace(ours, theirs);
            }
        }
        let request = ringfence_grants::Request::parse(&text).unwrap();
        let created = request.created + 1 + n;
        let escaped = text.replace('\\', "\\\\");
        writeln!(requests, "{id}\t{escaped}\t{who}\tus\tgranted\t{created}\t{granted}").unwrap();
        for (name, key) in &keys {
            let signature = ringfence_grants::approval::sign(&request, key).unwrap().replace('\n', "\\n");
            writeln!(approvals, "{id}\t{name}\t{signature}\t{created}").unwrap();
        }
    }
    writeln!(requests, "R-NONSENSE\tno request\teve\tus\tgranted\t1\t{granted}").unwrap();
    let copy = |table: &str, rows: &str| {
        let file = demo.dir.join("rows");
        std::fs::write(&file, rows).unwrap();
        control(&format!("\\copy ringfence.{table} from '{}'", file.display()));
    };
    copy("requests (id, canonical, requester, store, state, created, granted)", &requests);
    copy("approvals", &approvals);
    // The gateway looks each second.
    let until = Instant::now() + Duration::from_secs(20);
    let newest = || text(&demo.psql("beijing-engineer", "us", "select email from users where id = 4711"));
    while newest() != clear {
        assert!(Instant::now() < until, "the newest grant is not in force: {}", newest());
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(read(), clear, "the oldest of 1,201 grants is still in force");
    revoke(demo, &ours);
    assert_ne!(read(), clear);
}
