//! What the parts of a statement's path cost: `cargo bench -p ringfence-gateway`.
#![allow(missing_docs, reason = "a program, not a library")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use ringfence_gateway::counting::{Counting, Workload};
use ringfence_gateway::flow::Counted;
use ringfence_gateway::frame::{MAX_FRAME, head, put};
use ringfence_ledger::{Entry, Kind, Ledger, Settings};
use ringfence_policy::{Catalogue, Policy, Registry, Store};
use ringfence_statement::analysis::{Analysis, Cache};
use ringfence_statement::settings::Settings as ReadUnder;

fn main() {
    divan::main();
}

/// The fronts of the frames of a result, as they are looked at on the way to the client.
#[divan::bench(args = [64, 1024, 16 * 1024])]
fn frame_scanning(bencher: Bencher, row: usize) {
    let mut result = Vec::new();
    while result.len() < 1 << 20 {
        put(&mut result, b'D', |body| body.resize(body.len() + row, b'x'));
    }
    bencher.counter(BytesCount::new(result.len())).bench(|| {
        let (mut at, mut rows) = (0, 0_u64);
        while let Ok(Some(front)) = head(black_box(&result[at..]), MAX_FRAME) {
            at += front.total;
            rows += 1;
            if at >= result.len() {
                break;
            }
        }
        rows
    });
}

/// The statement that a name stands for.
fn text(name: &str) -> &'static str {
    if name == "short" { SHORT } else { LONG }
}

const SHORT: &str = "select id, country, email, phone, full_name from users where id = 4711;";
const LONG: &str = "select u.country, count(*) filter (where e.kind = 'view'), max(e.at) from users u join events e on e.user_id = u.id \
    where u.country in ('US', 'CA') and e.at > '2026-01-01' group by u.country having count(*) > 10 order by 2 desc limit 50";

/// By PostgreSQL's own grammar: what the first statement of a shape costs.
#[divan::bench(args = ["short", "long"])]
fn statement_analysed(bencher: Bencher, name: &str) {
    bencher.bench(|| Analysis::of(black_box(text(name)), ReadUnder::default()));
}

/// What every other one costs: the same text, and one with other constants.
#[divan::bench(args = ["short", "long"])]
fn statement_remembered(bencher: Bencher, name: &str) {
    let text = text(name);
    let cache = Cache::default();
    cache.of(text, ReadUnder::default());
    bencher.bench(|| cache.of(black_box(text), ReadUnder::default()));
}

#[divan::bench(args = ["short", "long"])]
fn statement_counted(bencher: Bencher, name: &str) {
    let analysis = Arc::new(Analysis::of(text(name), ReadUnder::default()));
    let counting = Counting::default();
    let counted = Counted { analysis, stands_for: None };
    let name = || "us".to_owned();
    let workload =
        Arc::new(Workload { principal: "feed-service".to_owned(), store: name(), jurisdiction: name() });
    bencher.bench(|| counting.began(black_box(&workload), black_box(&counted)));
}

fn policy(people: usize) -> Policy {
    let person =
        |n: usize| format!("[[people]]\nname = \"p{n}\"\nlocation = \"SG\"\nteams = [\"analysts\"]\n");
    let registry = "[jurisdictions.us]\ncountries = [\"US\"]\n".to_owned()
        + &(0..people).map(person).collect::<String>();
    let catalogue = "[tables.users]\nsubject = \"id\"\n[tables.users.columns]\nid = \"public\"\n\
        email = { protected = \"contact\", kind = \"email\" }\nphone = { protected = \"contact\", kind = \"phone\" }\n";
    let store = Store {
        name: "us".into(),
        jurisdiction: "us".into(),
        location: "US".into(),
        kind: ringfence_policy::StoreKind::Trusted,
        full_access: ["us-data".to_owned()].into(),
        approvers: ["us-security".to_owned()].into(),
        auditors: ["audit".to_owned()].into(),
    };
    let registry = Registry::parse(&registry).expect("a registry");
    let catalogue = Catalogue::parse(catalogue).expect("a catalogue");
    Policy::new(registry, vec![(store, catalogue)], ringfence_policy::decision::DEFAULT_POLICIES)
        .expect("a policy")
}

/// May they connect, and how: once for each person, store and set of grants.
#[divan::bench(args = [10, 10_000])]
fn decision_access(bencher: Bencher, people: usize) {
    let policy = policy(people);
    bencher.bench(|| policy.access(black_box("p7"), "us", None));
}

/// What they see of each column.
#[divan::bench(args = [10, 10_000])]
fn decision_columns(bencher: Bencher, people: usize) {
    let policy = policy(people);
    bencher.bench(|| policy.outcome(black_box("p7"), "us", None, &[]));
}

/// Entries made durable together: the disk's own sync is most of it.
#[divan::bench(args = [1, 16, 256], sample_count = 30)]
fn ledger_append(bencher: Bencher, together: usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let keys = ringfence_ledger::generate_keys("bench.example/log");
    let publish_every = Duration::from_secs(1);
    let settings = Settings {
        dir: dir.path().to_owned(),
        skey: keys.signer,
        vkey: keys.verifier,
        publish_every,
        witnesses: None,
        bucket: None,
    };
    let ledger = Ledger::open(&settings).expect("a log");
    let record =
        serde_json::json!({ "session": "0123456789abcdef", "n": 7, "principal": "ann", "statement": LONG });
    bencher.counter(ItemsCount::new(together)).bench_local(|| {
        let tickets: Vec<_> =
            (0..together).map(|_| ledger.append_batched(Entry::new(Kind::Intent, "us", &record))).collect();
        ledger.end_batch();
        for ticket in tickets {
            ticket.wait().expect("a disk");
        }
    });
}
