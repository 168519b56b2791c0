//! No byte of an answer leaves before its intent is durable, whatever kind of message it is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringfence_verifier::record::Kind;

use super::{ANALYST, ENGINEER, Place};
use crate::harness::client::{bind, call, describe, execute, parse, query, run, send, sync};
use crate::harness::ledger;
use crate::harness::support::wire::{Wire, frame};

/// A folder whose files stall or fail a gateway's syncs.
struct Disk {
    dir: PathBuf,
}

impl Disk {
    fn new(dir: &Path) -> (Self, String) {
        let disk = dir.join("disk");
        std::fs::create_dir_all(&disk).unwrap();
        let library = disk.join("sync.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/harness/sync.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(source)
            .arg("-ldl")
            .status();
        assert!(built.is_ok_and(|status| status.success()), "cc builds the library");
        let shell = format!("export RF_SYNC='{}' LD_PRELOAD='{}';", disk.display(), library.display());
        (Self { dir: disk }, shell)
    }

    fn set(&self, what: &str, is_there: bool) {
        let path = self.dir.join(what);
        if is_there {
            std::fs::write(path, "").unwrap();
        } else {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Statements of which only the Execute is sent while the disk stalls: their answer has nothing before it.
fn bound() -> Vec<(&'static str, String)> {
    let shadow =
        "with messages as (select 1) select (replace(email, '.', '_'))::regclass from users, messages";
    let quoting = "select (replace(email, '@', '\"ringfence_1\"'))::regclass from users";
    vec![
        ("bound rows", "select id, country from users order by id limit 3".to_owned()),
        ("bound error", "select 1 / (id - id) from users limit 1".to_owned()),
        ("bound error with a hint, that quotes a value", shadow.to_owned()),
        ("bound error that quotes a shared name", quoting.to_owned()),
    ]
}

/// An answer of each kind that begins with its intent: what is sent.
fn kinds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let extended = |sql: &str| vec![parse("", sql), bind("", "", &[]), describe(""), execute("", 0), sync()];
    let shadow =
        "with messages as (select 1) select (replace(email, '.', '_'))::regclass from users, messages";
    vec![
        ("rows", vec![query("select id, country from users order by id limit 3")]),
        ("rows, extended", extended("select id, country from users order by id limit 3")),
        ("no row", vec![query("select id from users where id < 0")]),
        ("copy", vec![query("copy (select id from users order by id limit 3) to stdout")]),
        ("error", vec![query("select 1 / (id - id) from users limit 1")]),
        ("error with a hint", vec![query("select nothing from users")]),
        ("error that quotes a value", extended(shadow)),
        ("error that quotes a value, simple", vec![query(shadow)]),
        ("no such table", vec![query("select 1 from nowhere")]),
        ("no right", vec![query("select rolpassword from pg_authid")]),
        ("notice", vec![query("commit")]),
        ("parameter", vec![query("set application_name = 'other'")]),
        ("nothing", vec![query("")]),
        ("cursor", vec![query("begin; declare c cursor for select id from users; fetch 2 from c; commit")]),
        (
            "portal suspended",
            vec![parse("", "select id from users"), bind("", "", &[]), execute("", 1), sync()],
        ),
        (
            "pieces of a portal",
            vec![
                parse("", "select id from users limit 5"),
                bind("", "", &[]),
                execute("", 2),
                execute("", 2),
                execute("", 2),
                sync(),
            ],
        ),
        (
            "an error behind rows",
            vec![query("select id from users order by id limit 2; select 1 / (id - id) from users limit 1")],
        ),
        (
            "prepared in SQL",
            vec![query("prepare x as select id from users limit 2; execute x; deallocate x")],
        ),
    ]
}

/// Answers that only full access has.
fn kinds_of_full_access() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let returning = "insert into follows values (-1, -2) on conflict (follower_id, followee_id) do update \
                     set followee_id = -2 returning follower_id";
    vec![
        ("returning", vec![query(returning)]),
        ("returning, extended", vec![parse("", returning), bind("", "", &[]), execute("", 0), sync()]),
        ("copy in", vec![query("copy follows from stdin"), frame(b'c', b"")]),
        ("function call", vec![call(1299)]), // now()
        ("notification", vec![query("listen chan; notify chan, 'a'")]),
        ("fatal", vec![query("select pg_terminate_backend(pg_backend_pid())")]),
    ]
}

#[test]
fn no_byte_leaves_before_its_intent_is_durable() {
    let place = Place::turn();
    let (disk, shell) = Disk::new(&place.demo.dir);
    for pool_mode in ["session", "transaction"] {
        let name = format!("disk-{pool_mode}");
        let served = place.demo.serve_with(&name, &shell, |text| {
            text.replace("full_access_role", &format!("pool_mode = \"{pool_mode}\"\nfull_access_role"))
        });
        let log = place.demo.dir.join(format!("ledger-{name}"));
        let connect = |who: &str| Wire::connect(served.port, who, "us").unwrap();
        for who in [ANALYST, ENGINEER] {
            let bound = bound().into_iter().map(|(what, sql)| {
                let before = vec![query("begin"), parse("s", &sql), bind("p", "s", &[]), sync()];
                (what, before, vec![execute("p", 0), sync()])
            });
            let more = if who == ENGINEER { kinds_of_full_access() } else { Vec::new() };
            let whole = kinds().into_iter().chain(more);
            let whole = whole.map(|(what, messages)| (what, vec![query("select 1")], messages));
            for (what, before, messages) in whole.chain(bound) {
                let prepare = |wire: &mut Wire| {
                    for part in before.split_inclusive(|message| matches!(message[0], b'Q' | b'S')) {
                        send(wire, part);
                    }
                };
                // A disk that stalls: the first byte comes after it goes on.
                let mut wire = connect(who);
                prepare(&mut wire);
                disk.set("stall", true);
                let goes_on = Arc::new(AtomicBool::new(false));
                let releasing = {
                    let (goes_on, path) = (Arc::clone(&goes_on), disk.dir.join("stall"));
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(150));
                        goes_on.store(true, Ordering::SeqCst);
                        std::fs::remove_file(path).unwrap();
                    })
                };
                wire.send(&messages.concat()).unwrap();
                let first = wire.next().map(|(tag, _)| char::from(tag));
                assert!(goes_on.load(Ordering::SeqCst), "{who}, {pool_mode}, {what}: {first:?} came early");
                releasing.join().unwrap();
                drop(wire);

                // A disk that is full: nothing of the store comes, and the session or the statement is
                // refused with the reason.
                let mut wire = connect(who);
                prepare(&mut wire);
                disk.set("full", true);
                let answer = send(&mut wire, &messages);
                disk.set("full", false);
                assert_eq!(answer.sqlstate(), Some("58030"), "{who}, {pool_mode}, {what}: {answer:?}");
                assert!(answer.rows.is_empty(), "{who}, {pool_mode}, {what}: {answer:?}");
                assert!(place.emails_in(&answer.bytes).is_empty(), "{who}, {pool_mode}, {what}");
                drop(wire);
                // Service resumes.
                let mut wire = connect(who);
                let until = std::time::Instant::now() + Duration::from_secs(20);
                while run(&mut wire, "select 1").sqlstate().is_some() {
                    assert!(std::time::Instant::now() < until, "service does not resume");
                    std::thread::sleep(Duration::from_millis(50));
                    wire = connect(who);
                }
            }
        }
        assert!(!ledger::records(&log, 0, Kind::Intent).is_empty());
    }
}
