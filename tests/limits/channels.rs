//! What an answer says besides its rows: notices, tags, and what another statement of the same text shows.

use super::{ANALYST, ENGINEER, Place};
use crate::harness::client::{Answer, bind, close, end, execute, parse, query, run, send, sync};

/// The notices that are the store's.
fn notices(answer: &Answer) -> Vec<&String> {
    let texts = answer.notices.iter().filter_map(|notice| notice.get(&'M'));
    texts.filter(|text| !text.contains("masked for you")).collect()
}

#[test]
fn a_notice_does_not_tell_a_bit_of_a_value() {
    let place = Place::turn();
    let grant = place.grant(20, 10);
    // One of two notices comes for each bit of each address, and no row.
    let sql = "select 1 from (select email from users order by id limit 2) u, generate_series(1, 20) p, \
               generate_series(0, 7) b where case when (ascii(substr(u.email, p, 1)) >> b) & 1 = 1 \
               then to_tsvector(repeat('x', 3000 + b * 0)) is null \
               else to_tsquery('english', left('the', 3 + b * 0)) is null end";
    for is_pooled in [false, true] {
        let mut wire = place.connect(ANALYST, is_pooled);
        for messages in [
            vec![query(sql)],
            vec![parse("", sql), bind("", "", &[]), execute("", 0), sync()],
            vec![query(&format!("begin; declare c cursor for {sql}; fetch all from c; commit"))],
        ] {
            let answer = send(&mut wire, &messages);
            assert_eq!(answer.sqlstate(), None, "{answer:?}");
            assert_eq!(notices(&answer), Vec::<&String>::new());
        }
        // COMMIT runs the rest of a cursor WITH HOLD.
        run(&mut wire, "begin");
        run(&mut wire, &format!("declare h cursor with hold for {sql}"));
        let answer = run(&mut wire, "commit");
        assert_eq!((answer.sqlstate(), notices(&answer)), (None, Vec::new()));
        run(&mut wire, "close h");
        // One that no row stands behind passes.
        let answer = run(&mut wire, "commit");
        assert_eq!(notices(&answer), ["there is no transaction in progress"]);
        end(wire);
    }
    assert!(grant.settled() <= 10);
}

#[test]
fn a_move_costs_the_rows_that_it_passes_over() {
    let place = Place::turn();
    let grant = place.grant(20, 10);
    let mut wire = place.connect(ANALYST, false);
    let cursor =
        |rows: u32| format!("declare c cursor for select 1 from users where email > '' limit {rows}");
    let answer = run(&mut wire, &format!("begin; {}; move all c; commit", cursor(6)));
    assert_eq!(answer.sqlstate(), None, "{answer:?}");
    assert_eq!(grant.settled(), 6);
    // Four are left: the tag does not come that says five.
    run(&mut wire, "begin");
    run(&mut wire, &cursor(5));
    let answer = send(&mut wire, &[parse("", "move all c"), bind("", "", &[]), execute("", 0), sync()]);
    assert_eq!(answer.sqlstate(), Some("54000"), "{answer:?}");
    assert!(!answer.tags.contains('C') && answer.is_gone, "{answer:?}");
    assert!(grant.settled() <= 10);
}

#[test]
fn each_statement_of_a_text_costs_its_least() {
    let place = Place::turn();
    let grant = place.grant(20, 1000);
    let mut wire = place.connect(ANALYST, false);
    let nothing = "select 1 from users where email = 'x'";
    let answer = run(&mut wire, &[nothing; 5].join("; "));
    assert_eq!((answer.sqlstate(), grant.settled()), (None, 5));
    let two = "select 1 from users order by id limit 2";
    assert_eq!(run(&mut wire, &[nothing, two, nothing, nothing].join("; ")).rows.len(), 2);
    assert_eq!(grant.settled(), 10);
    // What a cursor cost when it was declared pays its first row.
    let cursor = format!("begin; declare c cursor for {two}; {nothing}; fetch all from c; commit");
    assert_eq!(run(&mut wire, &cursor).rows.len(), 2);
    assert_eq!(grant.settled(), 13);
}

#[test]
fn in_transaction_pooling_a_name_is_not_two_statements() {
    let place = Place::turn();
    let grant = place.grant(20, 100_000);
    let all = "select string_agg(email, ',') from users";
    let mut wire = place.connect(ANALYST, true);
    send(&mut wire, &[parse("x", "select 1"), sync()]);
    assert_eq!(run(&mut wire, "execute x").sqlstate(), Some("26000"));
    // What stands for a DEALLOCATE was chosen for another statement of this name.
    send(&mut wire, &[parse("s", "deallocate x"), close('S', "x"), sync()]);
    run(&mut wire, &format!("prepare x as {all}"));
    let answer = send(&mut wire, &[bind("", "s", &[]), execute("", 0), sync()]);
    assert_eq!(answer.sqlstate(), Some("55000"), "{answer:?}");
    send(&mut wire, &[parse("x", "select 1"), sync()]);
    let before = grant.settled();
    let answer = run(&mut wire, "execute x");
    let seen = place.emails_in(&answer.bytes).len() as u64;
    assert!(seen <= grant.settled() - before, "{seen} for {}: {answer:?}", grant.settled() - before);
    end(wire);
}

#[test]
fn discard_all_does_not_unpin_what_came_after_it() {
    let place = Place::turn();
    let mut wire = place.connect(ENGINEER, true);
    let prepare = "prepare pinned_x as select 1";
    let batch = [
        parse("", "discard all"),
        bind("", "", &[]),
        execute("", 0),
        parse("", prepare),
        bind("", "", &[]),
        execute("", 0),
        sync(),
    ];
    assert_eq!(send(&mut wire, &batch).sqlstate(), None);
    let mut others: Vec<_> = (0..3).map(|_| place.connect(ENGINEER, true)).collect();
    for other in &mut others {
        let count = "select count(*) from pg_prepared_statements where name = 'pinned_x'";
        assert_eq!(run(other, count).rows[0][0].as_deref(), Some(&b"0"[..]));
    }
    assert_eq!(run(&mut wire, "execute pinned_x").rows.len(), 1);
    // And it does unpin what came before.
    assert_eq!(run(&mut wire, "discard all").sqlstate(), None);
}
