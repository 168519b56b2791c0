//! Where one message ends and the next begins: what the gateway takes for a message's body is one for the
//! store, too, whatever ends meanwhile.

use ringfence_verifier::record::Kind;

use super::names::texts;
use super::{ANALYST, ENGINEER, Place};
use crate::harness::client::{end, parse, query, run, send, sync};
use crate::harness::ledger;
use crate::harness::support::wire::{Wire, frame};

const HIDDEN: &str = "select string_agg(email, ',') from (select email from users order by id limit 30) s";

/// The head of a frame whose body has so many bytes.
fn head(tag: u8, body: usize) -> Vec<u8> {
    let mut head = vec![tag];
    head.extend(u32::try_from(body + 4).unwrap().to_be_bytes());
    head
}

/// A Bind of the unnamed statement with one binary parameter, and where that begins.
fn bind_binary(parameter: &[u8]) -> (Vec<u8>, usize) {
    let mut body = vec![0, 0, 0, 1, 0, 1, 0, 1];
    body.extend(u32::try_from(parameter.len()).unwrap().to_be_bytes());
    let at = head(b'B', 0).len() + body.len();
    body.extend(parameter);
    body.extend([0, 0]);
    (frame(b'B', &body), at)
}

/// COPY data that no COPY waits for, of which a part comes when a statement ends: a connection that was
/// given back then would read the rest as messages that nobody saw.
#[test]
fn a_frame_that_is_cut_hides_no_other() {
    let place = Place::turn();
    for is_pooled in [true, false] {
        for who in [ANALYST, ENGINEER] {
            let grant = (who == ANALYST).then(|| place.grant(40, 20));
            let from = ledger::size(&place.log(is_pooled));
            let mut wire = place.connect(who, is_pooled);
            // What the store would run, and the head of a frame that would take in the rest.
            let hidden = [query(HIDDEN), head(b'd', 64)].concat();
            let cover = parse("", "select $1::bytea is null");
            let (bind, at) = bind_binary(&hidden);
            let data = [head(b'd', 10 + cover.len() + at), vec![b'x'; 10]].concat();
            let answer = send(&mut wire, &[query("select 1"), data]);
            assert_eq!(answer.rows.len(), 1, "{answer:?}");
            let execute = crate::harness::client::execute("", 0);
            let answer = send(&mut wire, &[cover, bind, execute, sync()]);
            let seen = place.emails_in(&answer.bytes).len() as u64;
            drop(wire);
            // What the gateway takes for a Query is one: on record, and charged.
            std::thread::sleep(std::time::Duration::from_millis(300));
            let intents = ledger::records(&place.log(is_pooled), from, Kind::Intent);
            let mine: Vec<_> = intents.iter().filter(|i| i["principal"] == who).cloned().collect();
            let is_on_record = mine.iter().any(|intent| texts(&mine, intent).iter().any(|t| t == HIDDEN));
            assert!(seen == 0 || is_on_record, "{who}, pooled {is_pooled}: {seen} values, {mine:?}");
            if let Some(grant) = grant {
                let charged = grant.settled();
                assert!(seen <= charged, "pooled {is_pooled}: {seen} clear values, {charged} charged");
            }
            // Nobody else has half a frame before their own.
            for _ in 0..3 {
                let mut other = place.connect(who, is_pooled);
                assert_eq!(run(&mut other, "select 1").rows.len(), 1);
                end(other);
            }
        }
    }
}

/// The rest of a frame of a COPY that has failed comes while its client does nothing else: then its
/// connection is another's.
#[test]
fn a_connection_is_given_back_after_the_rest_of_a_frame() {
    let place = Place::turn();
    let served = place.demo.serve_with("frames", "", |text| {
        text.replace(
            "full_access_role",
            "pool_mode = \"transaction\"\npool_size = 1\npool_wait = 5\nfull_access_role",
        )
    });
    let connect = || Wire::connect(served.port, ENGINEER, "us").unwrap();
    let mut wire = connect();
    for n in 0..5 {
        wire.send(&query("copy follows from stdin")).unwrap();
        while wire.next().unwrap().0 != b'G' {}
        let cut = [frame(b'd', b"no number\n"), head(b'd', 100), vec![b'x'; 50]].concat();
        wire.send(&cut).unwrap();
        while wire.next().unwrap().0 != b'Z' {}
        wire.send(&[b'x'; 50]).unwrap();
        let mut other = connect();
        assert_eq!(run(&mut other, "select 1").rows.len(), 1, "{n}");
        end(other);
    }
    end(wire);
}

/// Each Sync has its answer, also behind a COPY that fails with what came before it.
#[test]
fn a_sync_behind_a_copy_that_fails_has_its_answer() {
    let place = Place::turn();
    for is_pooled in [false, true] {
        for syncs in 1..4 {
            let mut wire = place.connect(ENGINEER, is_pooled);
            for _ in 0..5 {
                wire.send(&query("copy follows from stdin")).unwrap();
                while wire.next().unwrap().0 != b'G' {}
                let rest: Vec<Vec<u8>> = (0..syncs).map(|_| sync()).collect();
                wire.send(&[frame(b'd', b"no number\n"), rest.concat()].concat()).unwrap();
                let mut ready = 0;
                while ready < 1 + syncs {
                    ready += usize::from(wire.next().expect("an answer").0 == b'Z');
                }
                assert_eq!(run(&mut wire, "select 1").rows.len(), 1);
            }
            end(wire);
        }
    }
}

/// COPY data goes on for a while after the store has refused it.
#[test]
fn a_copy_that_fails_disturbs_nobody() {
    let place = Place::turn();
    let bad = frame(b'd', &[b"no number\n".as_slice(), &vec![b'x'; 60_000]].concat());
    let fails = |wire: &mut Wire| {
        wire.send(&query("copy follows from stdin")).unwrap();
        while wire.next().unwrap().0 != b'G' {}
        for _ in 0..20 {
            wire.send(&bad).unwrap();
        }
        wire.send(&frame(b'c', b"")).unwrap();
        while wire.next().unwrap().0 != b'Z' {}
    };
    for is_pooled in [true, false] {
        for who in [ENGINEER, super::WORKLOAD] {
            let mut wire = place.connect(who, is_pooled);
            for n in 0..4 {
                fails(&mut wire);
                let answer = run(&mut wire, &format!("select {n}"));
                assert_eq!(answer.rows, [[Some(n.to_string().into_bytes())]], "{who}, pooled {is_pooled}");
                let mut other = place.connect(who, is_pooled);
                assert_eq!(run(&mut other, "select 1").rows.len(), 1);
            }
            end(wire);
        }
    }
}

/// A COPY whose data is wrong fails before the store reads a Sync that came with its Execute: what is sent
/// after it is not answered twice, and no other client gets an answer that is not its own.
#[test]
fn a_sync_behind_a_copy_is_answered_once() {
    let place = Place::turn();
    let served = place.demo.serve_with("syncs", "", |text| {
        text.replace(
            "full_access_role",
            "pool_mode = \"transaction\"\npool_size = 2\npool_wait = 8\nfull_access_role",
        )
    });
    let slow = "copy follows from stdin where pg_sleep(0.3) is not null";
    for port in [served.port, place.demo.port] {
        for who in [ENGINEER, super::WORKLOAD] {
            for is_at_once in [true, false] {
                let mut wire = Wire::connect(port, who, "us").unwrap();
                let execute = crate::harness::client::execute("", 0);
                let bind = crate::harness::client::bind("", "", &[]);
                let start = [parse("", slow), bind, execute].concat();
                let data = [frame(b'd', b"1\t2\n"), frame(b'd', b"xx\n")].concat();
                if is_at_once {
                    wire.send(&[start, data, sync()].concat()).unwrap();
                } else {
                    wire.send(&[start, sync()].concat()).unwrap();
                    while wire.next().unwrap().0 != b'G' {}
                    wire.send(&data).unwrap();
                }
                let end_of_copy = frame(b'c', b"");
                if is_at_once {
                    // The next statement is there before the store says that the COPY has failed.
                    while wire.next().unwrap().0 != b'G' {}
                    let next = query("select pg_sleep(1.5), 'mine'");
                    wire.send(&[end_of_copy, next].concat()).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(700));
                    let mut other = Wire::connect(port, who, "us").unwrap();
                    for n in 0..3 {
                        let answer = run(&mut other, &format!("select 'victim {n}'"));
                        let expected = format!("victim {n}").into_bytes();
                        assert_eq!(answer.rows, [[Some(expected)]], "{who}, another's answers");
                    }
                    end(other);
                    drop(wire);
                    continue;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
                wire.send(&[end_of_copy, sync()].concat()).unwrap();
                // An error, and the end of the batch; maybe of two.
                while wire.next().unwrap().0 != b'E' {}
                wire.send(&query("select 'mine'")).unwrap();
                let mut tags = String::new();
                loop {
                    let (tag, body) = wire.next().unwrap();
                    tags.push(char::from(tag));
                    if tag == b'D' {
                        assert!(body.ends_with(b"mine"), "{who}: {tags}");
                        break;
                    }
                }
                let mut other = Wire::connect(port, who, "us").unwrap();
                for n in 0..3 {
                    let answer = run(&mut other, &format!("select 'victim {n}'"));
                    let expected = format!("victim {n}").into_bytes();
                    assert_eq!(answer.rows, [[Some(expected)]], "{who}, at once {is_at_once}");
                }
                end(other);
                drop(wire);
            }
        }
    }
}

/// What PostgreSQL skips after an error in a batch is skipped, a Query too; and a client that is gone gives
/// its connection back, whatever it left unanswered.
#[test]
fn clients_that_are_gone_keep_no_connection() {
    let place = Place::turn();
    let served = place.demo.serve_with("gone", "", |text| {
        text.replace(
            "full_access_role",
            "pool_mode = \"transaction\"\npool_size = 2\npool_wait = 8\nfull_access_role",
        )
    });
    let execute = || crate::harness::client::execute("", 0);
    let bind = || crate::harness::client::bind("", "", &[]);
    for port in [served.port, place.demo.port] {
        for who in [ENGINEER, ANALYST, super::WORKLOAD] {
            let connect = || Wire::connect(port, who, "us").unwrap_or_else(|e| panic!("{who}: {e}"));
            // The same answers as PostgreSQL's: nothing for the Query, and one end.
            let mut wire = connect();
            let answer = send(&mut wire, &[parse("", "selec 1"), execute(), query("select 1"), sync()]);
            assert_eq!((answer.tags.as_str(), answer.sqlstate()), ("EZ", Some("42601")), "{who}");
            let answer = send(&mut wire, &[parse("", "select 1"), bind(), execute(), query("select 2")]);
            assert_eq!(answer.tags, "12DCTDCZ", "{who}");
            let bad = "select 1 / (id - id) from users limit 1";
            let answer = send(&mut wire, &[parse("", bad), bind(), execute(), query("select 2"), sync()]);
            assert_eq!(answer.tags, "12EZ", "{who}");
            assert_eq!(run(&mut wire, "select 3").rows.len(), 1, "{who}");
            end(wire);
            let copy = "copy follows from stdin; copy follows from stdin";
            let leaving: Vec<Vec<u8>> = vec![
                [parse("", "selec 1"), execute(), query("select 1")].concat(),
                [parse("", "selec 1"), execute(), query("select 1"), sync()].concat(),
                [parse("", "select 1"), bind(), query("select 2")].concat(),
                [query(copy), frame(b'c', b""), sync()].concat(),
                [query("copy follows from stdin"), parse("", "select 1"), sync()].concat(),
                [parse("", "copy follows from stdin"), bind(), execute(), sync(), parse("", "x"), sync()]
                    .concat(),
            ];
            for bytes in &leaving {
                for _ in 0..3 {
                    let mut wire = connect();
                    wire.send(bytes).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(30));
                    drop(wire);
                }
                let mut wire = connect();
                let answer = run(&mut wire, "select 4");
                assert_eq!(answer.rows.len(), 1, "{who}: {answer:?} after {bytes:?}");
                end(wire);
            }
        }
    }
}
