//! Conversations of several messages: pipelines, portals, prepared statements, COPY, and what breaks the protocol.

use crate::Step::{End, Ready, Send, Until};
use crate::support::wire::frame;
use crate::{Case, bind, close, describe, execute, parse, query, sync};

fn one(name: &str, messages: &[Vec<u8>], ready: usize) -> Case {
    Case::new(name, vec![Send(messages.concat()), Ready(ready)])
}

/// Batches, each answered before the next is sent.
fn batches(name: &str, batches: &[&[Vec<u8>]]) -> Case {
    let steps = batches.iter().flat_map(|batch| [Send(batch.concat()), Ready(1)]).collect();
    Case::new(name, steps)
}

fn select(n: u32) -> Vec<u8> {
    let sql = format!("select {n}");
    [parse("", &sql, &[]), bind("", "", &[], 0), execute("", 0)].concat()
}

fn data(text: &str) -> Vec<u8> {
    frame(b'd', text.as_bytes())
}

fn copy_in(name: &str, sql: &str, then: &[Vec<u8>]) -> Case {
    let after = [query("select count(*) from eq.watched"), query("rollback; select 'after'")].concat();
    Case::new(
        name,
        vec![
            Send(query("begin")),
            Ready(1),
            Send(query(sql)),
            Until(b'G'),
            Send(then.concat()),
            Ready(1),
            Send(after),
            Ready(2),
        ],
    )
}

const IN: &str = "copy eq.watched from stdin";
/// What the gateway does not understand it cannot put on record, so it ends the session where statements are logged.
const UNRECORDED: &str = "a message that cannot be read cannot be put on record";
const BY_ID: &str = "select * from eq.t where id > $1 order by id";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = prepared();
    cases.extend(pipelines());
    cases.extend(copies());
    cases.extend(broken());
    cases
}

fn prepared() -> Vec<Case> {
    let p = || parse("p", BY_ID, &[23]);
    vec![
        batches(
            "prepared named, used in later transactions",
            &[
                &[p(), describe(b'S', "p"), sync()],
                &[bind("", "p", &[Some("195")], 0), describe(b'P', ""), execute("", 0), sync()],
                &[bind("", "p", &[Some("198")], 1), describe(b'P', ""), execute("", 0), sync()],
                &[close(b'S', "p"), sync()],
                &[bind("", "p", &[Some("198")], 1), execute("", 0), sync()],
            ],
        ),
        batches(
            "prepared twice under one name",
            &[&[p(), sync()], &[p(), sync()], &[bind("", "p", &[Some("199")], 0), execute("", 0), sync()]],
        ),
        batches(
            "prepared twice in one batch",
            &[&[p(), p(), sync()], &[bind("", "p", &[Some("199")], 0), execute("", 0), sync()]],
        ),
        batches(
            "prepared under two names",
            &[
                &[p(), parse("q", BY_ID, &[23]), sync()],
                &[
                    bind("", "q", &[Some("199")], 0),
                    execute("", 0),
                    bind("", "p", &[Some("199")], 0),
                    execute("", 0),
                    sync(),
                ],
                &[close(b'S', "p"), bind("", "q", &[Some("199")], 0), execute("", 0), sync()],
            ],
        ),
        batches(
            "prepared, closed and prepared anew",
            &[
                &[p(), close(b'S', "p"), parse("p", "select 'other'", &[]), sync()],
                &[bind("", "p", &[], 0), execute("", 0), sync()],
            ],
        ),
        batches(
            "prepared in a batch that fails before",
            &[
                &[parse("", "selec", &[]), p(), sync()],
                &[bind("", "p", &[Some("1")], 0), execute("", 0), sync()],
            ],
        ),
        batches(
            "prepared in a batch that fails after",
            &[
                &[p(), parse("", "selec", &[]), sync()],
                &[bind("", "p", &[Some("199")], 0), execute("", 0), sync()],
            ],
        ),
        batches(
            "prepared in a transaction that is rolled back",
            &[
                &[query("begin")],
                &[p(), sync()],
                &[query("rollback")],
                &[bind("", "p", &[Some("199")], 0), execute("", 0), sync()],
            ],
        ),
        batches(
            "prepared, unnamed, used later",
            &[
                &[parse("", BY_ID, &[23]), sync()],
                &[bind("", "", &[Some("199")], 0), describe(b'P', ""), execute("", 0), sync()],
                &[describe(b'S', ""), sync()],
                &[bind("", "", &[Some("198")], 0), execute("", 0), sync()],
                &[query("select 1")],
                &[bind("", "", &[Some("198")], 0), execute("", 0), sync()],
            ],
        ),
        batches(
            "never prepared",
            &[
                &[bind("", "nothing", &[], 0), execute("", 0), sync()],
                &[describe(b'S', "nothing"), sync()],
                &[bind("", "", &[], 0), sync()],
                &[close(b'S', "nothing"), close(b'P', "nothing"), sync()],
                &[execute("nothing", 0), sync()],
                &[describe(b'P', "nothing"), sync()],
            ],
        ),
        batches(
            "prepared, then DEALLOCATE ALL",
            &[
                &[p(), sync()],
                &[query("deallocate all")],
                &[bind("", "p", &[Some("199")], 0), sync()],
                &[p(), bind("", "p", &[Some("199")], 0), execute("", 0), sync()],
            ],
        ),
        batches(
            "prepared, then DISCARD ALL",
            &[&[p(), sync()], &[query("discard all")], &[bind("", "p", &[Some("199")], 0), sync()]],
        ),
        batches(
            "prepared in SQL, bound by message",
            &[
                &[query("prepare s as select 'in SQL'")],
                &[bind("", "s", &[], 0), describe(b'P', ""), execute("", 0), sync()],
                &[query("execute s")],
            ],
        ),
        batches(
            "prepared by message, deallocated in SQL",
            &[&[p(), sync()], &[query("deallocate p")], &[bind("", "p", &[Some("199")], 0), sync()]],
        )
        .only_session("the error about a name that is gone lacks the place in PostgreSQL's source"),
        batches(
            "prepared by message, deallocated in SQL, prepared again",
            &[
                &[p(), sync()],
                &[query("DEALLOCATE PREPARE \"p\" ;")],
                &[p(), bind("", "p", &[Some("199")], 0), execute("", 0), sync()],
                &[
                    parse("", "deallocate p", &[]),
                    bind("", "", &[], 0),
                    describe(b'P', ""),
                    execute("", 0),
                    sync(),
                ],
                &[p(), bind("", "p", &[Some("199")], 0), execute("", 0), sync()],
            ],
        ),
        batches(
            "a failed transaction deallocates nothing",
            &[
                &[p(), sync()],
                &[query("begin; select 1/0")],
                &[query("deallocate p")],
                &[parse("", "deallocate p", &[]), bind("", "", &[], 0), execute("", 0), sync()],
                &[query("rollback")],
                &[bind("", "p", &[Some("199")], 0), execute("", 0), sync()],
            ],
        ),
        batches("prepared by message, executed in SQL", &[&[p(), sync()], &[query("execute p(199)")]])
            .only_session("SQL knows a shared statement by its shared name"),
        batches(
            "wrong parameters",
            &[
                &[p(), bind("", "p", &[], 0), sync()],
                &[bind("", "p", &[Some("x")], 0), sync()],
                &[bind("", "p", &[Some("199"), None], 0), sync()],
                &[bind("", "p", &[Some("199")], 7), execute("", 0), sync()],
            ],
        ),
        batches("several statements in a Parse", &[&[parse("", "select 1; select 2", &[]), sync()]]),
        batches(
            "settings carry over",
            &[
                &[query("set datestyle = 'German'")],
                &[query("select date '2022-06-17'")],
                &[query("begin")],
                &[query("select date '2022-06-17'")],
                &[query("commit")],
                &[query("set application_name = 'b'; show application_name")],
                &[query("reset datestyle")],
                &[query("select date '2022-06-17', current_setting('application_name')")],
            ],
        ),
        batches(
            "rights outlive DISCARD ALL",
            &[
                &[query("discard all")],
                &[query("select count(*) from eq.t")],
                &[query("begin")],
                &[query("insert into eq.child values (77, 1)")],
                &[query("rollback")],
            ],
        ),
        batches(
            "temporary tables stay",
            &[
                &[query("create temp table mine (a int)")],
                &[query("insert into mine values (1), (2)")],
                &[
                    parse("", "select a from mine order by a", &[]),
                    bind("", "", &[], 1),
                    describe(b'P', ""),
                    execute("", 0),
                    sync(),
                ],
                &[query("drop table mine")],
            ],
        ),
        batches(
            "advisory locks stay",
            &[
                &[query("select pg_advisory_lock(99)")],
                &[query(
                    "select count(*) from pg_locks where locktype = 'advisory' and objid = 99 and pid = pg_backend_pid()",
                )],
                &[query("select pg_advisory_unlock(99)")],
            ],
        ),
        batches(
            "notifications arrive",
            &[
                &[query("listen x")],
                &[query("notify x, 'one'")],
                &[query("begin; notify x, 'two'")],
                &[query("commit")],
                &[query("unlisten x")],
            ],
        ),
    ]
}

fn pipelines() -> Vec<Case> {
    let failing = [parse("", "select 1/0", &[]), bind("", "", &[], 0), execute("", 0)].concat();
    vec![
        one("pipeline of three", &[select(1), select(2), select(3), sync()], 1),
        one("pipeline with three syncs", &[select(1), sync(), select(2), sync(), select(3), sync()], 3),
        one(
            "pipeline with an error in the middle",
            &[select(1), failing.clone(), select(3), sync(), select(4), sync()],
            2,
        ),
        one(
            "pipeline with an error in each batch",
            &[failing.clone(), sync(), failing.clone(), sync(), select(1), sync()],
            3,
        ),
        one(
            "pipeline: syntax error first",
            &[parse("", "selec", &[]), select(1), sync(), select(2), sync()],
            2,
        ),
        one(
            "pipeline: a transaction with an error",
            &[query("begin"), failing.clone(), sync(), select(1), sync(), query("rollback")],
            4,
        ),
        one("pipeline: a Query among messages", &[select(1), query("select 2"), select(3), sync()], 2),
        one(
            "pipeline: three queries at once",
            &[query("select 1"), query("select 1/0"), query("select 3")],
            3,
        ),
        one(
            "pipeline: prepared, used and closed",
            &[
                parse("a", "select $1::int", &[]),
                bind("x", "a", &[Some("1")], 0),
                bind("y", "a", &[Some("2")], 1),
                execute("y", 0),
                execute("x", 0),
                close(b'P', "x"),
                close(b'S', "a"),
                sync(),
            ],
            1,
        ),
        one("pipeline: two hundred", &[(0..200).flat_map(select).collect(), sync()], 1),
        one("sync alone", &[sync(), sync()], 2),
        one("flush alone", &[frame(b'H', b""), sync()], 1),
        Case::new(
            "flush brings the answers",
            vec![
                Send([select(1), frame(b'H', b"")].concat()),
                Until(b'C'),
                Send([select(2), frame(b'H', b"")].concat()),
                Until(b'C'),
                Send(sync()),
                Ready(1),
            ],
        ),
        one(
            "portal in portions",
            &[
                query("begin"),
                parse("", BY_ID, &[23]),
                bind("c", "", &[Some("190")], 0),
                describe(b'P', "c"),
                execute("c", 3),
                sync(),
                execute("c", 3),
                execute("c", 3),
                sync(),
                execute("c", 0),
                execute("c", 0),
                sync(),
                query("commit"),
            ],
            5,
        ),
        one(
            "portal gone with its transaction",
            &[
                parse("", BY_ID, &[23]),
                bind("c", "", &[Some("190")], 0),
                execute("c", 2),
                sync(),
                execute("c", 2),
                sync(),
            ],
            2,
        ),
        one(
            "portal bound twice",
            &[
                parse("", BY_ID, &[23]),
                bind("c", "", &[Some("190")], 0),
                bind("c", "", &[Some("190")], 0),
                sync(),
            ],
            1,
        ),
        one(
            "portal of an insert in portions",
            &[
                query("begin"),
                parse("", "insert into eq.child select g, 1 from generate_series(1, 9) g returning id", &[]),
                bind("", "", &[], 0),
                execute("", 2),
                execute("", 2),
                sync(),
                query("rollback"),
            ],
            3,
        ),
        one(
            "a cursor made in SQL, fetched by message",
            &[
                query("begin; declare c cursor for select id from eq.t order by id"),
                describe(b'P', "c"),
                execute("c", 3),
                sync(),
                query("fetch 2 from c"),
                query("commit"),
            ],
            4,
        ),
        one(
            "an empty statement",
            &[
                parse("", "", &[]),
                describe(b'S', ""),
                bind("", "", &[], 0),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ],
            1,
        ),
        one(
            "a failed transaction answers nothing but its end",
            &[
                query("begin"),
                query("select 1/0"),
                query("select 1"),
                select(1),
                sync(),
                parse("a", "commit", &[]),
                bind("", "a", &[], 0),
                execute("", 0),
                sync(),
                query("select 2"),
            ],
            6,
        ),
        one(
            "a function call",
            &[
                frame(b'F', &[&1598_u32.to_be_bytes()[..], &[0, 0, 0, 0, 0, 1]].concat()),
                frame(
                    b'F',
                    &[
                        // int4pl(2, 3), in binary
                        &177_u32.to_be_bytes()[..],
                        &[0, 1, 0, 1, 0, 2, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 3, 0, 1],
                    ]
                    .concat(),
                ),
            ],
            2,
        )
        .only_random(),
        one(
            "a function call to nothing",
            &[frame(b'F', &[&9_999_999_u32.to_be_bytes()[..], &[0, 0, 0, 0, 0, 1]].concat())],
            1,
        ),
        one("a long statement", &[query(&format!("select {}1", "1 + ".repeat(2000)))], 1),
        one(
            "a long parameter",
            &[
                parse("", "select length($1), md5($1)", &[25]),
                bind("", "", &[Some(&"z".repeat(2_000_000))], 0),
                execute("", 0),
                sync(),
            ],
            1,
        ),
    ]
}

impl Case {
    /// `random()` differs each time: only the second answer of such a case would be equal, so it is left out of the first.
    fn only_random(mut self) -> Self {
        if let Some(Send(bytes)) = self.steps.first_mut() {
            let first = 1 + u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
            bytes.drain(..first);
        }
        self.steps.truncate(1);
        self.steps.push(Ready(1));
        self
    }
}

fn copies() -> Vec<Case> {
    let done = || frame(b'c', b"");
    let fail = || frame(b'f', b"I do not want to\0");
    vec![
        copy_in("copy in", IN, &[data("1\ta\n"), data("2\tb\n3\t\\N\n"), done()]),
        copy_in("copy in, cut anywhere", IN, &[data("1"), data("\ta\n2\t"), data("b\n"), done()]),
        copy_in(
            "copy in, csv",
            "copy eq.watched from stdin (format csv, header)",
            &[data("id,name\n1,\"a,b\"\n"), done()],
        ),
        copy_in("copy in, nothing", IN, &[done()]),
        copy_in("copy in, given up", IN, &[data("1\ta\n"), fail()]),
        copy_in("copy in, bad data", IN, &[data("1\ta\nx\tb\n"), data("3\tc\n"), done()]),
        copy_in("copy in, too many columns", IN, &[data("1\ta\tb\n"), done()]),
        copy_in(
            "copy in, flush and sync between",
            IN,
            &[data("1\ta\n"), frame(b'H', b""), data("2\tb\n"), sync(), done()],
        ),
        copy_in(
            "copy in, several statements",
            "copy eq.watched from stdin; select 'then'",
            &[data("1\ta\n"), done()],
        ),
        copy_in("copy in, large", IN, &[data(&format!("1\t{}\n", "w".repeat(700_000))), done()]),
        copy_in(
            "copy in, binary garbage",
            "copy eq.watched from stdin (format binary)",
            &[data("not binary"), done()],
        ),
        Case::new(
            "copy in, extended",
            vec![
                Send(
                    [
                        parse("", "copy eq.watched from stdin", &[]),
                        bind("", "", &[], 0),
                        execute("", 0),
                        sync(),
                    ]
                    .concat(),
                ),
                Until(b'G'),
                Send([data("1\ta\n"), done(), sync()].concat()),
                Ready(1),
                Send(query("delete from eq.watched")),
                Ready(1),
            ],
        ),
        Case::new(
            "copy data when there is no copy",
            vec![Send([data("1\ta\n"), done(), fail(), query("select 1")].concat()), Ready(1)],
        ),
        batches(
            "copy out, extended",
            &[&[
                parse("", "copy (select id, name from eq.t where id < 4 order by id) to stdout", &[]),
                bind("", "", &[], 0),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ]],
        ),
    ]
}

fn broken() -> Vec<Case> {
    let end = |name: &str, bytes: Vec<u8>| Case::new(name, vec![Send(bytes), End]);
    let goes_on = |name: &str, bytes: Vec<u8>| {
        Case::new(name, vec![Send([bytes, sync(), query("select 1")].concat()), Ready(2)])
    };
    let mut cases = vec![
        end("goodbye", frame(b'X', b"")),
        end("goodbye in a transaction", [query("begin"), frame(b'X', b"")].concat()),
        Case::new(
            "a query without its end",
            vec![Send(frame(b'Q', b"select 1")), Ready(1), Send(query("select 2")), Ready(1)],
        ),
        Case::new(
            "a query with more after its end",
            vec![Send(frame(b'Q', b"select 1\0x\0")), Ready(1), Send(query("select 2")), Ready(1)],
        ),
        Case::new(
            "a query that is not UTF-8",
            vec![Send(frame(b'Q', b"select '\xff\xfe'\0")), Ready(1), Send(query("select 2")), Ready(1)],
        ),
        goes_on("a Parse cut short", frame(b'P', b"a\0select 1")),
        goes_on("a Parse with fewer types than it says", frame(b'P', b"a\0select 1\0\0\x05")),
        goes_on("a Parse that is not UTF-8", frame(b'P', b"\0select '\xff'\0\0\0")),
        goes_on("a Close of neither", frame(b'C', b"xa\0")),
        goes_on("a Describe of neither", frame(b'D', b"xa\0")),
        goes_on("an Execute cut short", frame(b'E', b"\0\0")),
        end("an unknown message", frame(b'y', b"x")),
        end("a password out of turn", frame(b'p', b"secret\0")),
    ];
    let unreadable =
        ["a query without", "a query with more", "a Parse cut", "an unknown message", "a password out"];
    for case in &mut cases {
        if unreadable.iter().any(|start| case.name.starts_with(start)) {
            case.only_counted = Some(UNRECORDED);
        }
    }
    cases
}
