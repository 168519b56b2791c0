//! In transaction pooling a statement that messages prepare has a name that the gateway chose, the same for
//! all sessions on a connection. That changes nothing for a client.

use super::{ENGINEER, Place, WORKLOAD, lock};
use crate::harness::client::{bind, end, execute, parse, query, run, send, sync};

fn runs(name: &str) -> [Vec<u8>; 3] {
    [bind("", name, &[]), execute("", 0), sync()]
}

fn value(answer: &crate::harness::client::Answer) -> String {
    let value = answer.rows.first().and_then(|row| row.first()?.clone()).unwrap_or_default();
    String::from_utf8_lossy(&value).into_owned()
}

/// The gateway's names are not a client's, whether its session keeps a connection or not.
#[test]
fn a_name_of_the_gateways_is_not_there_for_a_client() {
    let place = Place::turn();
    let mut first = place.connect(ENGINEER, true);
    let answer = send(&mut first, &[parse("mine", "select email from users order by id limit 3"), sync()]);
    assert_eq!(answer.sqlstate(), None);
    assert_eq!(send(&mut first, &runs("mine")).rows.len(), 3);
    end(first);
    for keeps in [false, true] {
        let mut second = place.connect(ENGINEER, true);
        if keeps {
            run(&mut second, "create temp table kept (i int)");
        }
        // Numbers are given in turn; other tests take some, too.
        for number in 1..400 {
            let name = format!("ringfence_{number}");
            let answer = send(&mut second, &runs(&name));
            assert_eq!(place.emails_in(&answer.bytes).len(), 0, "{name}, keeps {keeps}");
            assert!(answer.sqlstate().is_some(), "{name}, keeps {keeps}: {answer:?}");
        }
        end(second);
    }
}

/// A constant of a date is read when the text is: in the reader's time zone and order of day and month.
#[test]
fn dates_are_read_as_their_session_reads_them() {
    let place = Place::turn();
    let cases = [
        ("TimeZone", "UTC", "Asia/Tokyo", "select extract(epoch from timestamptz '2020-01-02 00:00')::int8"),
        ("DateStyle", "ISO, MDY", "ISO, DMY", "select extract(month from date '01/02/2020')::int"),
        ("IntervalStyle", "postgres", "sql_standard", "select extract(hour from interval '-1 2:00')::int"),
    ];
    for who in [ENGINEER, WORKLOAD] {
        for (setting, one, other, sql) in cases {
            let in_session = |is_pooled: bool, value_of_setting: &str| {
                let mut wire = place.connect(who, is_pooled);
                let set = format!("set {setting} = '{value_of_setting}'");
                assert_eq!(run(&mut wire, &set).sqlstate(), None);
                assert_eq!(send(&mut wire, &[parse("d", sql), sync()]).sqlstate(), None);
                let found = value(&send(&mut wire, &runs("d")));
                end(wire);
                found
            };
            for setting in [one, other, one] {
                assert_eq!(in_session(true, setting), in_session(false, setting), "{who}: {sql}, {setting}");
            }
            assert_ne!(in_session(false, one), in_session(false, other), "{sql} depends on {setting}");
        }
    }
}

/// A statement is prepared again on another connection as its session reads it now: another session that
/// reads it otherwise does not get that.
#[test]
fn a_statement_that_is_prepared_again_keeps_to_its_reader() {
    let place = Place::turn();
    let sql = "select extract(epoch from timestamptz '2021-01-02 00:00')::int8";
    let utc = "1609545600";
    for who in [ENGINEER, WORKLOAD] {
        let mut first = place.connect(who, true);
        run(&mut first, "set timezone = 'UTC'");
        send(&mut first, &[parse("q", sql), sync()]);
        run(&mut first, "set timezone = 'Asia/Shanghai'");
        // The connection has nothing prepared after it, so the statement is prepared again.
        run(&mut first, "execute nothing_has_this_name");
        send(&mut first, &runs("q"));
        let mut second = place.connect(who, true);
        run(&mut second, "set timezone = 'UTC'");
        send(&mut second, &[parse("x", sql), sync()]);
        assert_eq!(value(&send(&mut second, &runs("x"))), utc, "{who}");
        end(first);
        end(second);
    }
}

/// What a transaction alone sets does not stay in a statement that others get.
#[test]
fn a_setting_of_one_transaction_stays_in_it() {
    let place = Place::turn();
    let sql = "select count(*) from (values (null::int), (1)) v(x) where x = null";
    for who in [ENGINEER, WORKLOAD] {
        let mut first = place.connect(who, true);
        run(&mut first, "begin; set local transform_null_equals = on");
        send(&mut first, &[parse("s", sql), sync()]);
        send(&mut first, &runs("s"));
        run(&mut first, "commit");
        let mut second = place.connect(who, true);
        send(&mut second, &[parse("a", sql), sync()]);
        assert_eq!(value(&send(&mut second, &runs("a"))), "0", "{who}");
        end(first);
        end(second);
    }
}

/// A temporary table is its session's, however it was made.
#[test]
fn temporary_tables_are_nobody_elses() {
    let place = Place::turn();
    for make in [
        "explain analyze create temp table videos as select 1 as only_here",
        "explain analyze select 1 as only_here into temp videos",
        "select 1 as only_here into temp videos union select 2",
        "begin; set local search_path = pg_temp, public; create table videos (only_here int); commit",
    ] {
        for who in [ENGINEER, WORKLOAD] {
            let mut others: Vec<_> = (0..3).map(|_| place.connect(who, true)).collect();
            let mut first = place.connect(who, true);
            assert_eq!(run(&mut first, make).sqlstate(), None, "{make}");
            for other in &mut others {
                let answer = run(other, "select title from videos limit 1");
                assert_eq!(answer.sqlstate(), None, "{who}: {make}");
            }
            others.into_iter().chain([first]).for_each(end);
        }
    }
}

/// What a portal leaves in the connection stays its session's, whoever goes on with it.
#[test]
fn what_a_fetch_leaves_is_nobody_elses() {
    let place = Place::turn();
    let sql = "select set_config('search_path', 'nowhere', false)";
    for who in [ENGINEER, WORKLOAD] {
        let mut others: Vec<_> = (0..3).map(|_| place.connect(who, true)).collect();
        let mut first = place.connect(who, true);
        run(&mut first, "begin");
        send(&mut first, &[parse("", sql), bind("c", "", &[]), sync()]);
        assert_eq!(run(&mut first, "fetch all from c; commit").sqlstate(), None);
        for other in &mut others {
            assert_ne!(value(&run(other, "show search_path")), "nowhere", "{who}");
        }
        others.into_iter().chain([first]).for_each(end);
    }
}

/// A pipeline frees all names and prepares one again.
#[test]
fn what_a_pipeline_frees_and_prepares_again_is_there() {
    let place = Place::turn();
    for who in [ENGINEER, WORKLOAD] {
        let mut wire = place.connect(who, true);
        assert_eq!(send(&mut wire, &[parse("a", "select 41 + 1"), sync()]).sqlstate(), None);
        assert_eq!(value(&send(&mut wire, &runs("a"))), "42");
        let all = [parse("", "deallocate all"), bind("", "", &[]), execute("", 0)].concat();
        let again = [parse("a", "select 41 + 1"), runs("a").concat()].concat();
        let answer = send(&mut wire, &[all, again]);
        assert_eq!((answer.sqlstate(), value(&answer).as_str()), (None, "42"), "{who}: {answer:?}");
        // The same as a text of its own.
        assert_eq!(run(&mut wire, "deallocate all").sqlstate(), None);
        let answer = send(&mut wire, &[parse("a", "select 41 + 1"), runs("a").concat()]);
        assert_eq!((answer.sqlstate(), value(&answer).as_str()), (None, "42"), "{who}: {answer:?}");
        end(wire);
    }
}

/// A plan whose result has another type after a change of its table is made again, as it is for a client
/// that prepares it again.
#[test]
fn a_plan_that_a_change_made_useless_does_not_stay() {
    let place = Place::turn();
    let served = place.demo.serve_with("plans", "", |text| {
        text.replace("full_access_role", "pool_mode = \"transaction\"\npool_size = 1\nfull_access_role")
    });
    lock(&place.store).attempt("drop table if exists hid_plan");
    lock(&place.store).rows(
        "create table hid_plan (i int); insert into hid_plan values (7); grant select on hid_plan to public",
    );
    let sql = "select * from hid_plan";
    let connect = || crate::harness::support::wire::Wire::connect(served.port, ENGINEER, "us").unwrap();
    let mut first = connect();
    send(&mut first, &[parse("p", sql), sync()]);
    assert_eq!(value(&send(&mut first, &runs("p"))), "7");
    lock(&place.store).rows("alter table hid_plan add column t text");
    // As PostgreSQL says it, unless the connection is another one by now.
    let answer = send(&mut first, &runs("p"));
    assert!(matches!(answer.sqlstate(), Some("0A000") | None), "{answer:?}");
    let mut second = connect();
    for wire in [&mut first, &mut second] {
        let answer = send(wire, &[parse("q", sql), sync(), runs("q").concat()]);
        assert_eq!(answer.sqlstate(), None, "{answer:?}");
    }
    assert_eq!(value(&send(&mut second, &runs("q"))), "7");
    lock(&place.store).rows("drop table hid_plan");
    end(first);
    end(second);
}

/// A Query that fails before it makes a portal leaves the unnamed one.
#[test]
fn a_query_that_fails_leaves_the_unnamed_portal_unsure() {
    let place = Place::turn();
    let sql = "select email from users order by id limit 3";
    for is_pooled in [false, true] {
        for failing in ["selec 1", "select 1/0", "select * from nowhere"] {
            let from = crate::harness::ledger::size(&place.log(is_pooled));
            let mut wire = place.connect(ENGINEER, is_pooled);
            run(&mut wire, "begin");
            send(&mut wire, &[parse("", sql), bind("", "", &[]), query(failing)]);
            let answer = send(&mut wire, &[execute("", 0), sync()]);
            let seen = place.emails_in(&answer.bytes).len();
            end(wire);
            std::thread::sleep(std::time::Duration::from_millis(300));
            let kind = ringfence_verifier::record::Kind::Intent;
            let intents = crate::harness::ledger::records(&place.log(is_pooled), from, kind);
            let on_record = intents.iter().any(|i| super::names::texts(&intents, i).iter().any(|t| t == sql));
            assert!(seen == 0 || on_record, "{failing}, pooled {is_pooled}: {intents:?}");
        }
    }
}

/// A transaction that has failed ends by what another session has prepared.
#[test]
fn a_failed_transaction_ends_by_a_shared_statement() {
    let place = Place::turn();
    for who in [ENGINEER, WORKLOAD] {
        for end_of_it in ["rollback", "commit"] {
            let mut first = place.connect(who, true);
            send(&mut first, &[parse("r", end_of_it), sync()]);
            end(first);
            let mut second = place.connect(who, true);
            run(&mut second, "begin");
            assert_eq!(run(&mut second, "select 1/0").sqlstate(), Some("22012"));
            let answer = send(&mut second, &[parse("S_1", end_of_it), runs("S_1").concat()]);
            assert_eq!(answer.sqlstate(), None, "{who}: {answer:?}");
            assert_eq!(value(&run(&mut second, "select 7")), "7");
            end(second);
        }
    }
}
