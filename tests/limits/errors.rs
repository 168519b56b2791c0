//! Values leave by rows only: an error says no more than the client knows.

use super::{ANALYST, ENGINEER, Place};
use crate::harness::client::{bind, describe, end, execute, parse, run, send, sync};

/// Expressions whose error would have a value in it.
const CARRIERS: &[&str] = &[
    "concat_ws(' ', (select email from users order by id limit 1), (select email from users order by id desc limit 1))::int",
    "(select email from users order by id limit 1)::int",
    "(select replace(email, '.', '_') from users order by id limit 1)::regclass",
    "(select replace(email, '.', '_') from users order by id limit 1)::regproc",
    "(select replace(email, '.', '_') from users order by id limit 1)::regtype",
    "(select email from users order by id limit 1)::regnamespace",
    "(select email from users order by id limit 1)::regrole",
    "(select email from users order by id limit 1)::regoper",
    "(select email from users order by id limit 1)::date",
    "(select email from users order by id limit 1)::inet",
    "(select email from users order by id limit 1)::uuid",
    "(select email from users order by id limit 1)::json",
    "(select email from users order by id limit 1)::jsonb",
    "(select email from users order by id limit 1)::xml",
    "(select '{' || email || ',\"' from users order by id limit 1)::text[]",
    "(select '\"x\" ' || email || ' \"x\"' from users order by id limit 1)::int",
    "(select email from users order by id limit 1)::bit(3)",
    "to_timestamp((select email from users order by id limit 1), 'YYYY')::text",
    "to_number((select email from users order by id limit 1), '999')::text",
    "to_tsquery((select email || ' & &' from users order by id limit 1))::text",
    "regexp_replace('a', (select '(' || email from users order by id limit 1), '')",
    "format((select '%' || email from users order by id limit 1), 'x')",
    "decode((select email from users order by id limit 1), 'hex')::text",
    "decode('00', (select email from users order by id limit 1))::text",
    "convert_from('x', (select email from users order by id limit 1))",
    "(now() at time zone (select email from users order by id limit 1))::text",
    "current_setting((select email from users order by id limit 1))",
    "date_trunc((select email from users order by id limit 1), now())::text",
    "make_date(2020, (select id::int + 4711 from users order by id limit 1), 3)::text",
    "chr((select id::int + 2000000 from users where email like '%@%' order by id limit 1))",
    "jsonb_path_query_first('{}', ((select email from users order by id limit 1) || ' ?')::jsonpath)::text",
    "encode('a', (select email from users order by id limit 1))",
    "xpath((select email from users order by id limit 1), '<a/>')::text",
    "string_to_array('a', 'b') @> (select '{' || email from users order by id limit 1)::text[]",
];

#[test]
fn an_error_shows_no_value() {
    let place = Place::turn();
    let grant = place.grant(200, 100_000);
    for is_pooled in [false, true] {
        for carrier in CARRIERS {
            let sql = format!("select {carrier}");
            let mut wire = place.connect(ANALYST, is_pooled);
            let before = grant.charged();
            for messages in [
                vec![crate::harness::client::query(&sql)],
                vec![parse("", &sql), bind("", "", &[]), execute("", 0), sync()],
                vec![
                    crate::harness::client::query(&format!("prepare x as {sql}")),
                    crate::harness::client::query("execute x"),
                ],
                vec![crate::harness::client::query(&format!("copy ({sql}) to stdout"))],
                vec![parse("", &sql), bind("", "", &[]), describe(""), execute("", 1), sync()],
                // FETCH runs what was declared or bound.
                vec![
                    crate::harness::client::query(&format!("begin; declare c cursor for {sql}")),
                    crate::harness::client::query("fetch all from c"),
                    crate::harness::client::query("rollback"),
                ],
                vec![
                    crate::harness::client::query("begin"),
                    [parse("", &sql), bind("p", "", &[]), sync()].concat(),
                    crate::harness::client::query("fetch 1 from p"),
                    crate::harness::client::query("rollback"),
                ],
                // Behind another answer of the same batch.
                vec![
                    parse("", "select 1"),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", &sql),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ],
            ] {
                let one_by_one = messages.iter().filter(|m| matches!(m[0], b'Q')).count() > 1;
                let answers = if one_by_one {
                    messages.iter().map(|m| send(&mut wire, std::slice::from_ref(m))).collect()
                } else {
                    vec![send(&mut wire, &messages)]
                };
                for answer in answers {
                    let seen = place.emails_in(&answer.bytes);
                    let text = String::from_utf8_lossy(&answer.bytes).into_owned();
                    let has_at = answer.errors.iter().any(|e| e.values().any(|v| v.contains('@')));
                    assert!(seen.is_empty() && !has_at || answer.errors.is_empty(), "{sql}: {text}");
                    if let Some(error) = answer.errors.first() {
                        assert!(error.contains_key(&'C') && error.contains_key(&'V'), "{sql}: {text}");
                        assert!(!text.contains("4712") && !text.contains("20000"), "{sql}: {text}");
                    }
                }
            }
            end(wire);
            std::thread::sleep(std::time::Duration::from_millis(30));
            assert!(grant.charged() > before, "{sql} reads and costs nothing");
        }
    }
}

#[test]
fn what_the_client_wrote_comes_back_whole() {
    let place = Place::turn();
    let mut wire = place.connect(ANALYST, false);
    for (sql, sqlstate, told) in [
        ("select nme from users", "42703", "column \"nme\" does not exist"),
        ("selec 1", "42601", "syntax error at or near \"selec\""),
        ("select 'abc'::int", "22P02", "invalid input syntax for type integer: \"abc\""),
        ("select 1 / 0", "22012", "division by zero"),
        ("select * from nowhere", "42P01", "relation \"nowhere\" does not exist"),
        ("select no_function(1)", "42883", "function no_function(integer) does not exist"),
        ("select upper(id) from users", "42883", "function upper(bigint) does not exist"),
        ("fetch 1 from nothing", "34000", "cursor \"nothing\" does not exist"),
        ("execute nothing", "26000", "prepared statement \"nothing\" does not exist"),
        ("select (case when id > 0 then 'abc' else 'x' end)::int from users", "22P02", "\"abc\""),
        ("select country::int from users", "22P02", "withheld"),
    ] {
        let answer = run(&mut wire, sql);
        assert_eq!(answer.sqlstate(), Some(sqlstate), "{sql}: {answer:?}");
        assert!(answer.error().contains(told), "{sql}: {}", answer.error());
    }
    let answer =
        send(&mut wire, &[parse("", "select $1::int"), bind("", "", &["zzz"]), execute("", 0), sync()]);
    assert!(answer.error().contains("\"zzz\""), "{}", answer.error());
    // Who is neither governed nor metered reads the store's own words.
    let mut wire = place.connect(ENGINEER, false);
    let answer = run(&mut wire, "select country::int from users limit 1");
    assert!(answer.error().contains("invalid input syntax for type integer: \"US\""), "{}", answer.error());
}
