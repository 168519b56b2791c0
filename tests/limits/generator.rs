//! A generator of statements and ways of running them, with three totals: clear values at the client are
//! no more than the rows charged, people at the client no more than the people metered, and the texts that
//! the store ran are on record: as its own log has them, and each text that gave a row to a governed person
//! as often as it did.
//!
//! `RF_GENERATED_SESSIONS` says how many sessions (60), `RF_GENERATOR_SEED` where the generator begins,
//! `RF_GENERATOR_MODE` which kind of statement it prefers: `h1` (names), `h2` (keys of shapes), `h3` (WITH
//! names), `h4` (rows used several times), `h5` (errors), `h6` (messages that are replaced, on a disk that
//! stalls: `exit.rs` has them, so here it is an error), or all.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_verifier::record::Kind;
use serde_json::Value;
use sha2::Digest as _;

use super::{ANALYST, ENGINEER, Grant, Place, READERS, WORKLOAD, lock, words_in};
use crate::harness::client::{Answer, bind, call, close, describe, end, execute, parse, query, send, sync};
use crate::harness::ledger;
use crate::harness::support::text;

/// How many sessions are compared at a time.
const GROUP: u64 = 8;
/// How many sessions a grant has, at most: a reader for each group.
const MOST_AT_GRANT: u64 = 400;

/// Which group of its grant a session belongs to: the last session of a group has a multiple of [`GROUP`].
fn group_of(at_grant: u64) -> usize {
    usize::try_from((at_grant - 1) / GROUP).unwrap() % READERS
}

/// SplitMix64: small, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn is(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// A scalar expression over one row of `users u`.
fn scalar(random: &mut Random) -> String {
    let inner = *random.one(&["u.email", "lower(u.email)", "u.email || ''", "u.full_name", "u.email, u.id"]);
    inner.to_owned()
}

/// A query that reads e-mail addresses; `depth` bounds its nesting.
pub fn reading(random: &mut Random, mode: &str, depth: u32) -> String {
    let limit = random.below(6) + 1;
    let offset = random.below(30);
    let own = || format!("select email from users order by id offset {offset} limit {limit}");
    let kinds: &[&str] = match mode {
        "h2" => &["escape", "escape", "plain"],
        "h3" => &["hidden", "hidden", "plain"],
        "h4" => &["used"],
        "h5" => &["error", "error", "plain"],
        _ => &[
            "plain",
            "plain",
            "scalar",
            "used",
            "scalars",
            "series",
            "lateral",
            "aggregate",
            "outer",
            "array",
            "hidden",
            "union",
            "join",
            "error",
            "window",
            "exists",
            "values",
            "escape",
            "recursive",
            "empty",
            "dotted",
            "join name",
            "both sides",
        ],
    };
    match *random.one(kinds) {
        "scalar" => {
            format!("select {} from users u order by u.id offset {offset} limit {limit}", scalar(random))
        }
        "used" => {
            let times = random.below(if mode == "h4" { 30 } else { 5 }) + 1;
            let one = |n| format!("(select email from w offset {n} limit 1)");
            let all: Vec<String> = (0..times).map(one).collect();
            format!("with w as ({}) select {}", own(), all.join(", "))
        }
        "scalars" => {
            let one = |n: u64| format!("(select email from users order by id offset {n} limit 1)");
            let all: Vec<String> = (0..limit).map(|n| one(offset + n)).collect();
            format!("select concat_ws(' ', {})", all.join(", "))
        }
        "series" => format!(
            "select (select email from users order by id offset g limit 1) from generate_series(0, {limit}) g"
        ),
        "lateral" => format!(
            "select u.email, v.email from (select * from users order by id limit {limit}) u, \
             lateral (select email from users where id > u.id order by id limit 2) v"
        ),
        "aggregate" => {
            let agg =
                *random.one(&["string_agg(e, ',')", "array_agg(e)", "max(e)", "json_agg(e)", "count(e)"]);
            format!("select {agg} from ({}) s(e)", own())
        }
        "outer" => format!(
            "select (select string_agg(u.email, ',')) from (select * from users order by id limit {limit}) u"
        ),
        "array" => format!("select array({})", own()),
        "hidden" => match random.below(3) {
            0 => format!(
                "with users as (select * from users) select id, email from users order by id limit {limit}"
            ),
            1 => format!(
                "select u.email from users u, (with users as (select 1) select * from users) s order by u.id limit {limit}"
            ),
            _ => format!(
                "with a as (with users as (select * from users) select * from users) select email from a order by id limit {limit}"
            ),
        },
        "union" if depth > 0 => {
            let (a, b) = (own(), own());
            format!("({a}) union all ({b})")
        }
        "join" => format!(
            "select u.email, d.ip from users u join devices d on d.user_id = u.id order by u.id limit {limit}"
        ),
        "error" => match random.below(3) {
            0 => format!("select (select email from users order by id offset {offset} limit 1)::int"),
            1 => {
                let one = |n: u64| format!("(select email from users order by id offset {n} limit 1)");
                let all: Vec<String> = (0..limit).map(one).collect();
                format!("select concat_ws(' ', {})::int", all.join(", "))
            }
            _ => {
                "select (select replace(email, '.', '_') from users order by id limit 1)::regclass".to_owned()
            }
        },
        "window" => format!(
            "select email, lag(email) over (order by id) from ({}) s(email), generate_series(1, 1) id",
            own()
        ),
        "exists" => format!(
            "select email from users u where exists (select 1 from users v where v.id = u.id) order by id limit {limit}"
        ),
        "values" => format!(
            "select * from (values ((select email from users order by id limit 1)), ('x')) v(e) limit {limit}"
        ),
        "escape" => {
            let mark = *random.one(&["!", "@", "#"]);
            format!("select id, email from U&\"{mark}0075sers\" UESCAPE '{mark}' order by id limit {limit}")
        }
        "recursive" => format!(
            "with recursive r as (select email, 1 as n from users union all select email, n + 1 from r where n < 2) select email from r limit {limit}"
        ),
        "empty" => "select email from users where id < 0".to_owned(),
        "dotted" => match random.below(2) {
            0 => format!(
                "select (u.email).json_agg from (select * from users order by id limit {limit}) u, (select 1 as json_agg) s"
            ),
            _ => format!(
                "select s.string from (select u.email as string from users u order by id limit {limit}) s"
            ),
        },
        "join name" => match random.below(2) {
            0 => format!("select row_to_json(j) from (users u cross join (select 1) x) j limit {limit}"),
            _ => format!("select (j).email from (users cross join (select 1) x) j limit {limit}"),
        },
        "both sides" => {
            let set = *random.one(&["intersect", "except", "except all"]);
            format!(
                "(select email from users order by id limit {limit}) {set} (select email from users where id < 0)"
            )
        }
        _ if depth > 0 && random.is(3) => {
            format!("select * from ({}) s", reading(random, mode, depth - 1))
        }
        _ => format!("select id, email from users order by id offset {offset} limit {limit}"),
    }
}

/// Batches of messages that run a text.
fn way(random: &mut Random, sql: &str, is_pooled: bool, mode: &str) -> Vec<Vec<Vec<u8>>> {
    let extended = || vec![parse("", sql), bind("", "", &[]), describe(""), execute("", 0), sync()];
    let declare = format!("declare c cursor for {sql}");
    let kind = if mode == "h1" { 3 + random.below(9) } else { random.below(16) };
    match kind {
        1 => vec![extended()],
        2 => vec![vec![query(&format!("copy ({sql}) to stdout"))]],
        3 if !is_pooled => {
            vec![vec![parse("x", sql), sync()], vec![query("execute x")], vec![close('S', "x"), sync()]]
        }
        4 => vec![
            vec![query(&format!("prepare y as {sql}"))],
            vec![query("execute y")],
            vec![query("deallocate y")],
        ],
        5 => vec![
            vec![query(&format!("prepare y as {sql}"))],
            vec![bind("", "y", &[]), execute("", 0), sync()],
            vec![query("deallocate all")],
        ],
        6 => vec![
            vec![query(&format!("begin; {declare}"))],
            vec![query("fetch 2 from c")],
            vec![query("fetch all from c")],
            vec![query("commit")],
        ],
        7 => vec![
            vec![query(&format!("begin; {declare}"))],
            vec![execute("c", 3), sync()],
            vec![query("rollback")],
        ],
        8 => vec![
            vec![query("begin")],
            vec![parse("", sql), bind("c", "", &[]), sync()],
            vec![query("fetch all from c; commit")],
        ],
        9 => vec![
            vec![parse("x", "select 1"), sync()],
            vec![query("deallocate x")],
            vec![query(&format!("prepare x as {sql}"))],
            vec![bind("", "x", &[]), execute("", 0), sync()],
            vec![query("discard all")],
        ],
        10 => vec![
            vec![query("begin")],
            vec![parse("", "select 1"), bind("c", "", &[]), sync()],
            vec![query(&format!("close c; {declare}"))],
            vec![execute("c", 0), sync()],
            vec![query("commit")],
        ],
        // PostgreSQL logs each Execute of a portal without rows as a new one, and runs it once.
        11 if !sql.contains("id < 0") => vec![vec![
            parse("", sql),
            bind("p", "", &[]),
            execute("p", 1),
            execute("p", 2),
            execute("p", 0),
            sync(),
        ]],
        // Several statements in one text.
        13 => {
            let nothing = "select 1 from users where email = 'x'";
            vec![vec![query(&format!("{nothing}; {sql}; {nothing}; {sql}"))]]
        }
        14 => vec![
            vec![query(&format!("begin; {declare}"))],
            vec![query("move 2 in c")],
            vec![query("fetch 2 from c; move all in c")],
            vec![query("commit")],
        ],
        15 => vec![vec![
            parse("", &format!("copy ({sql}) to stdout")),
            bind("", "", &[]),
            execute("", 0),
            sync(),
        ]],
        // A pipeline: an error skips the rest.
        12 => vec![vec![
            parse("a", "select 1 / 0"),
            bind("", "a", &[]),
            execute("", 0),
            parse("b", sql),
            bind("", "b", &[]),
            execute("", 0),
            sync(),
            parse("b", sql),
            bind("", "b", &[]),
            execute("", 0),
            sync(),
            close('S', "a"),
            close('S', "b"),
            sync(),
        ]],
        _ => vec![vec![query(sql)]],
    }
}

/// Sends a batch and reads to the last ReadyForQuery that it asks for.
fn run(wire: &mut crate::harness::support::wire::Wire, batch: &[Vec<u8>]) -> Answer {
    let mut answer = Answer::default();
    let mut part = Vec::new();
    for message in batch {
        part.push(message.clone());
        if matches!(message[0], b'S' | b'Q' | b'F') {
            let more = send(wire, &std::mem::take(&mut part));
            answer.bytes.extend(more.bytes);
            answer.errors.extend(more.errors);
            answer.rows.extend(more.rows);
            answer.is_gone |= more.is_gone;
            if answer.is_gone {
                break;
            }
        }
    }
    answer
}

struct Totals<'a> {
    place: &'a Place,
    /// People whose clear address the client has had under the grant in force.
    clear: BTreeSet<u64>,
    /// Clear addresses at the client, added up over sessions.
    seen: u64,
    /// All people that the client has had, in clear or by their token.
    people: BTreeSet<u64>,
    tokens: std::collections::BTreeMap<String, u64>,
}

impl Totals<'_> {
    /// The people in some bytes, in clear or by their token.
    fn people_in(&self, bytes: &[u8]) -> BTreeSet<u64> {
        let mut people = self.place.emails_in(bytes);
        people.extend(words_in(bytes, &self.tokens));
        people
    }

    fn add(&mut self, bytes: &[u8]) -> usize {
        let clear = self.place.emails_in(bytes);
        let count = clear.len();
        self.seen += count as u64;
        self.people.extend(&clear);
        self.clear.extend(clear);
        self.people.extend(words_in(bytes, &self.tokens));
        count
    }
}

/// The masked addresses of a face, and whose they are.
fn tokens(place: &Place) -> std::collections::BTreeMap<String, u64> {
    let store = lock(&place.store);
    let faces = store.rows("select nspname from pg_namespace where nspname like 'rf\\_%'");
    let mut found = std::collections::BTreeMap::new();
    for face in faces.iter().map(|row| &row[0]) {
        let sql = format!("select id, email from {face}.users order by id limit 400");
        // Who is covered sees no addresses at all.
        for row in store.attempt(&sql).into_iter().flatten() {
            if !place.emails.contains_key(&row[1]) {
                found.insert(row[1].clone(), row[0].parse().unwrap());
            }
        }
    }
    found
}

/// The people that the meter has for the analyst.
fn metered(place: &Place, config: &str) -> u64 {
    let output = place.demo.ringfence_with(config, &["meter", "--json"]);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let lines = report["lines"].as_array().unwrap();
    let mine = lines.iter().filter(|line| {
        line["recipient"]["name"] == ANALYST && line["category"] == "covered-personal-identifiers"
    });
    mine.map(|line| line["any"].as_u64().unwrap() + line["any_unknown"].as_u64().unwrap()).max().unwrap_or(0)
}

/// The text of a finding, from the store's own log.
fn text_of(place: &Place, digest: &str) -> String {
    let log =
        std::fs::read_to_string(place.demo.dir.join("us-trusted/log/postgresql.csv")).unwrap_or_default();
    // A quote in a field is doubled.
    let log = log.replace("\"\"", "\u{1}");
    let quoted = log.split('"').map(|field| field.replace('\u{1}', "\""));
    let texts = quoted.flat_map(|field| {
        let text = field.split_once(": ").map(|(_, text)| text.to_owned());
        [Some(field), text].into_iter().flatten().collect::<Vec<_>>()
    });
    let is_it = |text: &String| hex::encode(sha2::Sha256::digest(text.as_bytes())) == digest;
    texts.into_iter().find(is_it).unwrap_or_else(|| "(not found)".to_owned())
}

pub fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let output = Command::new("date").args(["-u", "-d", &format!("@{now}"), "+%FT%TZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A text whose meaning depends on settings: backslashes in literals, and letters that are not ASCII.
fn settled(random: &mut Random) -> String {
    let literal = *random.one(&[
        r"'\' , email from users limit 3 --'",
        r"'a\''b'",
        r"e'a\'b'",
        r"'\\'",
        "'caf\u{e9}'",
        "'\u{e9}\\\u{e9}'",
        r"U&'\00e9'",
        "'x'\n'y'",
        "$t$it's \\ $t$",
        "n'\u{fc}'",
    ]);
    let name = *random.one(&["id", "\"caf\u{e9}\"", "\"a\\b\""]);
    let column = if name == "id" { "id".to_owned() } else { format!("id as {name}") };
    format!("select {column}, {literal} from users order by 1 limit 2")
}

/// A session in the country: what it runs must be on record, whatever its settings.
fn inside(random: &mut Random, place: &Place, mode: &str) {
    let who = *random.one(&[ENGINEER, WORKLOAD]);
    let is_pooled = random.is(2);
    let encoding = *random.one(&["UTF8", "UTF8", "LATIN1", "SJIS"]);
    let mut wire = place.connect_with(who, is_pooled, &[("client_encoding", encoding)]);
    for _ in 0..=random.below(3) {
        if random.is(4) {
            let setting = *random.one(&["on", "off"]);
            run(&mut wire, &[query(&format!("set standard_conforming_strings = {setting}"))]);
        }
        // now(), by a function-call message.
        if random.is(8) {
            run(&mut wire, &[call(1299)]);
        }
        let is_settled = random.is(3);
        let sql = if is_settled { settled(random) } else { reading(random, mode, 1) };
        for batch in way(random, &sql, is_pooled, mode) {
            if run(&mut wire, &batch).is_gone {
                return;
            }
        }
    }
    end(wire);
}

/// What the logs of both gateways say of those who read.
struct Logs {
    tails: [ledger::Tail; 2],
    /// The entries since the last time.
    entries: [Vec<ledger::Entry>; 2],
    /// What was counted there for the analyst up to now.
    before: [Counted; 2],
}

/// Whom a gateway has counted for somebody, and whom they had.
#[derive(Clone, Default)]
struct Counted {
    ids: BTreeSet<String>,
    rows: u64,
    people: BTreeSet<u64>,
}

/// What somebody's sessions of one gateway did since the last time.
#[derive(Default)]
struct Did {
    /// Who.
    who: String,
    is_pooled: bool,
    /// Texts that gave rows or were given a name by SQL, each time.
    ran: Vec<String>,
    /// People whom the client had.
    people: BTreeSet<u64>,
    /// Clear addresses, added up over messages.
    clear: u64,
}

impl Logs {
    fn at_end(place: &Place) -> Self {
        let tails = [false, true].map(|is_pooled| ledger::Tail::at_end(&place.log(is_pooled)));
        Self { tails, entries: Default::default(), before: Default::default() }
    }

    /// Compares what was done with what the logs say. Entries that nobody waits for come a moment later.
    fn compare(&mut self, did: &[Did]) -> Vec<String> {
        let mut left = 300;
        loop {
            for (tail, entries) in self.tails.iter_mut().zip(&mut self.entries) {
                entries.extend(tail.read());
            }
            let (wrong, counted) = self.look(did);
            if wrong.is_empty() || left == 0 {
                self.before = counted;
                self.entries = Default::default();
                return wrong;
            }
            left -= 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn look(&self, did: &[Did]) -> (Vec<String>, [Counted; 2]) {
        let mut wrong = Vec::new();
        let mut counted = self.before.clone();
        for did in did {
            let at = usize::from(did.is_pooled);
            let mut of_reader = Counted::default();
            let known = if did.who == ANALYST { &mut counted[at] } else { &mut of_reader };
            wrong.extend(differences(did, &self.entries[at], known));
        }
        (wrong, counted)
    }
}

/// Where what somebody's sessions did is more than what the log's entries say of them.
fn differences(did: &Did, entries: &[ledger::Entry], counted: &mut Counted) -> Vec<String> {
    let mut wrong = Vec::new();
    let theirs = |kind: Kind| {
        let of_kind = entries.iter().filter(move |(_, leaf, _)| leaf.kind == kind);
        of_kind.map(|(.., record)| record).filter(|record| record["principal"] == *did.who)
    };
    let intents: Vec<Value> = theirs(Kind::Intent).cloned().collect();
    let recorded: Vec<Vec<String>> =
        intents.iter().map(|intent| super::names::texts(&intents, intent)).collect();
    for sql in &did.ran {
        let ran = did.ran.iter().filter(|other| *other == sql).count();
        let on_record = recorded.iter().filter(|texts| texts.iter().any(|t| t.contains(sql))).count();
        if on_record < ran {
            wrong.push(format!("{}: ran {ran} times, on record {on_record} times: {sql}", did.who));
        }
    }
    let mut charged = 0;
    for record in theirs(Kind::Outcome) {
        let of_grants = record["charged"].as_object().into_iter().flatten();
        charged += of_grants.map(|(_, rows)| rows.as_u64().unwrap()).sum::<u64>();
    }
    if did.clear > charged {
        wrong.push(format!("{}: {} clear values, {charged} charged: {:?}", did.who, did.clear, did.ran));
    }
    for record in theirs(Kind::Reached).chain(theirs(Kind::Outcome)) {
        for group in record["reached"].as_array().into_iter().flatten() {
            if group["table"] == "users" && group["unit"] != "device" {
                let ids = STANDARD.decode(group["ids"].as_str().unwrap_or_default()).unwrap();
                counted.ids.extend(ids.chunks(8).map(hex::encode));
                counted.rows += group["rows"].as_u64().unwrap_or(0) + group["all"].as_u64().unwrap_or(0);
            }
        }
    }
    counted.people.extend(&did.people);
    let reached = counted.ids.len() as u64 + counted.rows;
    if counted.people.len() as u64 > reached {
        let people = counted.people.len();
        wrong.push(format!("{}: {people} people at the client, {reached} reached: {:?}", did.who, did.ran));
    }
    wrong
}

#[test]
fn generated_sessions_stay_within_what_is_charged_metered_and_on_record() {
    let place = Place::turn();
    let of = |name: &str, otherwise: u64| std::env::var(name).map_or(otherwise, |v| v.parse().unwrap());
    let sessions = of("RF_GENERATED_SESSIONS", 60);
    let seed = of("RF_GENERATOR_SEED", 1);
    let mode = std::env::var("RF_GENERATOR_MODE").unwrap_or_default();
    assert_ne!(mode, "h6", "messages that are replaced are in exit.rs");
    // What other tests ran at gateways whose logs are not compared is before this second.
    std::thread::sleep(Duration::from_millis(1100));
    let since = now();
    let mut random = Random(seed);
    let mut totals = Totals {
        place: &place,
        clear: BTreeSet::new(),
        seen: 0,
        people: BTreeSet::new(),
        tokens: std::collections::BTreeMap::new(),
    };
    let mut grant: Option<Grant<'_>> = None;
    let (mut done, mut at_grant) = (0_u64, 0_u64);
    let (mut before, mut seen, mut texts) = (0_u64, 0_u64, Vec::new());
    let mut wrong = Vec::new();
    let mut logs = Logs::at_end(&place);
    let mut did: Vec<Did> = Vec::new();
    let (mut readers, mut round) = (Vec::new(), 0);
    while done < sessions {
        // Some sessions are under a grant, some see masks, some are inside the country.
        if grant.is_none() || texts.is_empty() && (at_grant >= MOST_AT_GRANT || before > 2500) {
            drop(grant.take());
            seen = 0;
            totals.clear.clear();
            readers = place.readers(round);
            round += 1;
            grant = Some(place.grant(40, 3000));
            (at_grant, before) = (0, 0);
            totals.tokens = tokens(&place);
        }
        let active = grant.as_ref().unwrap();
        done += 1;
        at_grant += 1;
        if random.is(4) && !at_grant.is_multiple_of(GROUP) {
            inside(&mut random, &place, &mode);
            continue;
        }
        let is_pooled = random.is(2);
        // Who has no grant, and reads nothing but in this group: all whom they see are new to them.
        let is_reader = random.is(3);
        let who = if is_reader { &*readers[group_of(at_grant)] } else { ANALYST };
        let mut wire = place.connect(who, is_pooled);
        let place_of = did.iter().position(|did| did.who == who && did.is_pooled == is_pooled);
        let place_of = place_of.unwrap_or_else(|| {
            did.push(Did { who: who.to_owned(), is_pooled, ..Did::default() });
            did.len() - 1
        });
        for _ in 0..=random.below(2) {
            let sql = reading(&mut random, &mode, 2);
            let batches = way(&mut random, &sql, is_pooled, &mode);
            texts.push(format!("{sql}  [{} batches]", batches.len()));
            for batch in batches {
                let answer = run(&mut wire, &batch);
                let did = &mut did[place_of];
                did.people.extend(totals.people_in(&answer.bytes));
                if is_reader {
                    did.clear += place.emails_in(&answer.bytes).len() as u64;
                } else {
                    let clear = totals.add(&answer.bytes) as u64;
                    seen += clear;
                    did.clear += clear;
                }
                // PREPARE and DECLARE give no row, and have the text.
                let sent = String::from_utf8_lossy(&batch.concat()).into_owned();
                let names_it = sent.starts_with('Q') && sent.contains(&sql) && !sent.contains("fetch ");
                if !answer.rows.is_empty() || names_it && answer.errors.is_empty() {
                    did.ran.push(sql.clone());
                }
                if answer.is_gone {
                    break;
                }
            }
        }
        end(wire);
        if at_grant.is_multiple_of(GROUP) || done == sessions {
            wrong.extend(logs.compare(&did));
            did.clear();
            // What sessions lease is more than what they charge.
            let used = active.charged();
            if seen > used {
                wrong.push(format!("by session {done}: {seen} clear values, {used} rows leased: {texts:#?}"));
            }
            before = used;
            texts.clear();
        }
        if wrong.len() > 5 {
            break;
        }
        if done.is_multiple_of(5000) {
            eprintln!("{done} sessions, {} wrong", wrong.len());
        }
    }
    drop(grant);
    // The checkpoint that the meter reads follows within a second.
    std::thread::sleep(Duration::from_secs(3));
    let people = totals.people.len() as u64;
    let by_meter = metered(&place, "ringfence") + metered(&place, "pooled");
    if people > by_meter {
        wrong.push(format!("{people} people at the client, {by_meter} metered"));
    }
    let report = place.reconcile(&since);
    for finding in report["findings"].as_array().unwrap() {
        let text = text_of(&place, finding["text_digest"].as_str().unwrap_or_default());
        wrong.push(format!("the store ran what is not on record: {finding}: {text}"));
    }
    assert!(wrong.is_empty(), "seed {seed}, mode {mode:?}: {wrong:#?}");
    assert!(totals.seen > 0, "the generator shows something");
}
