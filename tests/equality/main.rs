//! For whom nothing is governed, the gateway cannot be told from PostgreSQL: every case is one conversation, held once
//! with the store and once through the gateway, in session and in transaction pooling, and every byte of the answers is
//! compared. What differs by nature is made equal first: the process of a notification, numbers of objects that a case
//! creates. `RF_EQUALITY=word` runs the cases whose name has the word in it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

mod conversations;
mod statements;
mod types;

use support::Demo;
use support::wire::{Wire, frame};

/// What a client does.
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Reads to so many ReadyForQuery.
    Ready(usize),
    /// Reads to a message of this type.
    Until(u8),
    /// Reads to the end of the connection.
    End,
}

/// A conversation.
pub struct Case {
    name: String,
    steps: Vec<Step>,
    /// Where connections change between transactions, this cannot be the same; the reason.
    only_session: Option<&'static str>,
    /// Where statements are logged one by one, this cannot be the same; the reason.
    only_counted: Option<&'static str>,
}

impl Case {
    pub fn new(name: impl Into<String>, steps: Vec<Step>) -> Self {
        Self { name: name.into(), steps, only_session: None, only_counted: None }
    }

    #[must_use]
    pub fn only_session(mut self, why: &'static str) -> Self {
        self.only_session = Some(why);
        self
    }

    #[must_use]
    pub fn only_counted(mut self, why: &'static str) -> Self {
        self.only_counted = Some(why);
        self
    }
}

pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0"].concat();
    body.extend(u16::try_from(types.len()).unwrap().to_be_bytes());
    body.extend(types.iter().flat_map(|t| t.to_be_bytes()));
    frame(b'P', &body)
}

/// Parameters as text (or NULL); results all in `format`.
pub fn bind(portal: &str, name: &str, parameters: &[Option<&str>], format: u16) -> Vec<u8> {
    let mut body = [portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0"].concat();
    body.extend(u16::try_from(parameters.len()).unwrap().to_be_bytes());
    for parameter in parameters {
        match parameter {
            Some(text) => {
                body.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                body.extend(text.as_bytes());
            }
            None => body.extend((-1_i32).to_be_bytes()),
        }
    }
    body.extend(1_u16.to_be_bytes());
    body.extend(format.to_be_bytes());
    frame(b'B', &body)
}

pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    frame(b'D', &[&[kind], name.as_bytes(), b"\0"].concat())
}

pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    frame(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

pub fn close(kind: u8, name: &str) -> Vec<u8> {
    frame(b'C', &[&[kind], name.as_bytes(), b"\0"].concat())
}

pub fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

/// What came back, frame by frame, and whether the connection was closed.
fn hold(wire: &mut Wire, steps: &[Step]) -> (Vec<(u8, Vec<u8>)>, bool) {
    let mut answers = Vec::new();
    for step in steps {
        let done = match step {
            Step::Send(bytes) => wire.send(bytes),
            Step::Ready(count) => (0..*count).try_for_each(|_| read(wire, &mut answers, |tag| tag == b'Z')),
            Step::Until(tag) => read(wire, &mut answers, |t| t == *tag),
            Step::End => read(wire, &mut answers, |_| false),
        };
        if done.is_err() {
            return (answers, true);
        }
    }
    (answers, false)
}

fn read(
    wire: &mut Wire,
    answers: &mut Vec<(u8, Vec<u8>)>,
    is_last: impl Fn(u8) -> bool,
) -> Result<(), support::wire::Gone> {
    loop {
        let (tag, body) = wire.next()?;
        answers.push((tag, body));
        if is_last(tag) {
            return Ok(());
        }
    }
}

/// The first number of an object that no initdb makes.
const FIRST_NORMAL_OID: u32 = 16384;

/// Makes the number of an object that a case created like any other.
fn blank(body: &mut [u8], at: usize) {
    if u32::from_be_bytes(body[at..at + 4].try_into().unwrap()) >= FIRST_NORMAL_OID {
        body[at..at + 4].fill(0xff);
    }
}

/// Makes equal what differs by nature.
fn normalise(tag: u8, body: &mut Vec<u8>, pooled: bool) {
    match tag {
        b'A' => body[..4].fill(0), // the process that notified
        b't' => (2..body.len()).step_by(4).for_each(|at| blank(body, at)),
        b'T' => {
            let mut at = 2;
            while at < body.len() {
                at += body[at..].iter().position(|&b| b == 0).unwrap() + 1;
                for offset in [at, at + 6] {
                    blank(body, offset);
                }
                at += 18;
            }
        }
        // Where names are shared, errors about them are the gateway's own: without the place in PostgreSQL's source.
        b'E' if pooled => {
            let fields: Vec<&[u8]> = body.split(|&b| b == 0).collect();
            if fields.iter().any(|f| *f == b"C26000" || *f == b"C42P05") {
                let kept = fields.into_iter().filter(|f| !matches!(f.first(), Some(b'F' | b'L' | b'R')));
                *body = kept.collect::<Vec<_>>().join(&0);
            }
        }
        _ => {}
    }
}

fn told(answers: &[(u8, Vec<u8>)]) -> String {
    let line = |(tag, body): &(u8, Vec<u8>)| {
        let text = String::from_utf8_lossy(&body[..body.len().min(300)]).replace('\0', "·");
        format!("    {} {} bytes {text:?}\n", char::from(*tag), body.len())
    };
    answers.iter().take(40).map(line).collect()
}

const PREPARATION: &str = "
    create role equal login password 'demo' in role clips_app;
    alter role equal set role = 'clips_app';
    grant temporary on database us to clips_app;
    create schema eq authorization clips_app;
    set role clips_app;
    create table eq.t (id int primary key, name text not null, n numeric check (n > 0), at timestamptz);
    insert into eq.t select i, 'name ' || i, i * 1.5, timestamptz '2022-06-17 12:00 UTC' + i * interval '1 hour' from generate_series(1, 200) i;
    create table eq.child (id int primary key, t int references eq.t);
    create type eq.mood as enum ('sad', 'happy');
    create domain eq.positive as int check (value > 0);
    create type eq.pair as (a int, b text);
    create function eq.noisy(i int) returns int language plpgsql as $$ begin raise notice 'at %', i using detail = 'd', hint = 'h'; return i; end $$;
    create table eq.watched (id int, name text);
    create function eq.watch() returns trigger language plpgsql as $$ begin raise notice 'row %', new.id; return new; end $$;
    create trigger watch before insert on eq.watched for each row execute function eq.watch();
    create procedure eq.commits() language plpgsql as $$ begin insert into eq.watched values (0, 'in'); commit; delete from eq.watched; commit; end $$;
";

#[test]
fn the_gateway_cannot_be_told_from_postgresql() {
    let demo = Demo::start("equality");
    demo.superuser("us-trusted", "us", PREPARATION);
    let pooled = demo.serve_with("pooled", "", |text| {
        text.replace("full_access_role", "pool_mode = \"transaction\"\npool_size = 2\nfull_access_role")
    });
    let socket = demo.dir.join("us-trusted/.s.PGSQL.5432");
    let chosen = std::env::var("RF_EQUALITY").unwrap_or_default();
    let mut cases = statements::cases();
    cases.extend(types::cases());
    cases.extend(conversations::cases());
    cases.retain(|case| case.name.contains(&chosen));
    let mut different = Vec::new();
    let mut compared = 0;
    for case in &cases {
        let started = std::time::Instant::now();
        let mut direct = Wire::connect_socket(&socket, "equal", "us", "demo").expect("PostgreSQL answers");
        let (expected, expected_end) = hold(&mut direct, &case.steps);
        drop(direct);
        for (who, port) in
            [("feed-service", demo.port), ("us-engineer", demo.port), ("feed-service", pooled.port)]
        {
            let is_pooled = port == pooled.port;
            let is_logged = who == "us-engineer";
            if (is_pooled && case.only_session.is_some()) || (is_logged && case.only_counted.is_some()) {
                continue;
            }
            let mut through = Wire::connect(port, who, "us").expect("the gateway answers");
            let (mut seen, end) = hold(&mut through, &case.steps);
            let mut expected = expected.clone();
            for (tag, body) in expected.iter_mut().chain(&mut seen) {
                normalise(*tag, body, is_pooled);
            }
            compared += 1;
            if started.elapsed().as_secs() > 2 {
                println!("{} took {:?}", case.name, started.elapsed());
            }
            if seen != expected || end != expected_end {
                let mode = if is_pooled { "transaction" } else { "session" };
                let (a, b) = (told(&expected), told(&seen));
                different.push(format!(
                    "{} ({who}, {mode} pooling)\n  PostgreSQL:\n{a}  Ringfence:\n{b}",
                    case.name
                ));
            }
        }
    }
    assert!(compared > 0, "no case has {chosen:?} in its name");
    println!("{} conversations, compared {compared} times", cases.len());
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}
