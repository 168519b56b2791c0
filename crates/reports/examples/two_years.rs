//! Writes a ledger of two years, for measurements: who in China reached U.S. data between September 2021 and January 2022?
//!
//! `cargo run --release -p ringfence-reports --example two_years -- DIR [RECORDS]`
//!
//! 500 people (20 in China, covered; 80 in Singapore; 400 in the U.S.) with sessions of 25 statements each, from 1 September
//! 2020 on, evenly over two years. DIR gets the log, its keys, a witness's key, and `trust.policy`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a program for measurements stops at the first error")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use ringfence_ledger::{Counters, Crossing, Entry, Kind, generate_keys};
use ringfence_verifier::checkpoint::{CHECKPOINT, WITNESSED};
use ringfence_verifier::cosignature::{Algorithm, CosignerKey};
use ringfence_verifier::segment;
use ringfence_verifier::tiles::{TileFile, Tree};
use serde_json::json;
use signed_note::{Note, StandardSigner};

const BEGIN: u64 = 1_598_918_400_000; // 2020-09-01
const YEARS: u64 = 2 * 365 * 24 * 3600 * 1000;
const STATEMENTS: u64 = 25;
const SEGMENT: usize = 64 << 20;

struct Writer {
    dir: PathBuf,
    tree: Tree,
    full: Vec<TileFile>,
    segment: Vec<u8>,
    first: u64,
    folders: HashSet<PathBuf>,
}

impl Writer {
    fn push(&mut self, entry: &Entry, time: u64) {
        let salt = {
            let mut salt = [0; 32];
            salt[..8].copy_from_slice(&self.tree.size().to_be_bytes());
            salt
        };
        let leaf = entry.seal(time, &salt);
        self.tree.push(&leaf, &mut self.full).unwrap();
        segment::encode(&leaf, &salt, &entry.record, &mut self.segment).unwrap();
        if self.full.len() > 1000 {
            self.tiles();
        }
        if self.segment.len() > SEGMENT {
            self.flush();
        }
    }

    fn tiles(&mut self) {
        for (name, bytes) in std::mem::take(&mut self.full) {
            self.file(&name, &bytes);
        }
    }

    fn file(&mut self, name: &str, bytes: &[u8]) {
        let path = self.dir.join(name);
        let folder = path.parent().unwrap().to_owned();
        if self.folders.insert(folder.clone()) {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(path, bytes).unwrap();
    }

    fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.segment);
        self.file(&format!("private/{:020}.seg", self.first), &bytes);
        self.first = self.tree.size();
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().expect("a folder"));
    let records: u64 = arguments.next().map_or(10_000_000, |n| n.parse().unwrap());
    let keys = generate_keys("bench.example/two-years");
    let mut writer = Writer {
        dir: dir.join("ledger"),
        tree: Tree::default(),
        full: Vec::new(),
        segment: Vec::new(),
        first: 0,
        folders: HashSet::new(),
    };
    let sessions = records / (2 * STATEMENTS + 2);
    let (mut state, mut time) = (7_u64, BEGIN);
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let step = YEARS / (sessions * (STATEMENTS + 1));
    let columns = ["id, email", "id, phone, full_name", "id, country", "count(*)", "id, birth_date"];
    writer.push(&Entry::new(Kind::GatewayStarted, "-", &json!({ "version": "two-years" })), time);
    let rules = json!({ "digest": "d", "approvals": 2, "approver_keys": {} });
    writer.push(&Entry::new(Kind::PolicyChanged, "-", &rules), time);
    for n in 0..sessions {
        let person = random(500);
        let (from, employer, covered) = match person {
            0..20 => ("CN", "clips-technology", Some("clips-technology is organised in CN")),
            20..100 => ("SG", "clips-singapore", None),
            _ => ("US", "clips-us", None),
        };
        let crossing = (from != "US").then(|| Crossing { from: from.into(), covered: covered.is_some() });
        let principal = format!("{}-person-{person}", from.to_lowercase());
        let session = format!("{n:016x}");
        let opened = json!({
            "session": session, "principal": principal, "location": from, "employer": employer, "covered": covered,
            "store": "us", "face": "d3a66d06f665f73d", "role": format!("rf_{person}"), "process": 1, "grants": [],
            "policy": "d", "login": "password", "address": "10.0.0.1", "application": "psql",
        });
        let entry =
            |kind, record: &serde_json::Value| Entry::new(kind, "us", record).crossing(crossing.as_ref());
        writer.push(&entry(Kind::SessionOpened, &opened), time);
        for number in 0..STATEMENTS {
            let statement = format!(
                "select {} from users where id = {}",
                columns[usize::try_from(random(5)).unwrap()],
                random(9_999_999)
            );
            let intent = json!({ "session": session, "n": number, "principal": principal, "store": "us", "statement": statement });
            writer.push(&entry(Kind::Intent, &intent), time);
            let outcome = json!({ "session": session, "n": number, "principal": principal, "ended": "ok" });
            let counters = Counters { rows: random(10), bytes: 100 + random(900), ..Counters::default() };
            writer.push(&entry(Kind::Outcome, &outcome).counting(counters), time + random(step.max(2)));
            time += step;
        }
        let closed = json!({ "session": session, "principal": principal, "reason": "the client left" });
        writer.push(&entry(Kind::SessionClosed, &closed), time);
        time += step;
    }
    finish(writer, &dir, &keys);
}

fn finish(mut writer: Writer, dir: &Path, keys: &ringfence_ledger::Keys) {
    writer.tiles();
    writer.flush();
    for (name, bytes) in writer.tree.partial() {
        writer.file(&name, &bytes);
    }
    let text =
        tlog_tiles::Checkpoint::new("bench.example/two-years", writer.tree.size(), writer.tree.root(), "");
    let text = text.unwrap().to_bytes();
    let mut note = Note::new(&text, &[]).unwrap();
    note.add_sigs(&[&StandardSigner::new(&keys.signer).unwrap()]).unwrap();
    writer.file(CHECKPOINT, &note.to_bytes());
    let witness = CosignerKey::from_seed("bench.example/witness", Algorithm::MlDsa44, [1; 32]).unwrap();
    let cosigned = witness.cosign(&text, 1_795_541_366).unwrap().to_bytes();
    writer.file(WITNESSED, &[note.to_bytes(), cosigned].concat());
    fs::write(dir.join("ledger.vkey"), &keys.verifier).unwrap();
    let policy = format!("log {}\nwitness w {}\nquorum w\n", keys.verifier, witness.public().vkey());
    fs::write(dir.join("trust.policy"), policy).unwrap();
    println!("{} records", writer.tree.size());
}
