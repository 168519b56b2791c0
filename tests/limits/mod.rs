//! No value past a limit, and no byte before its record.

mod abroad;
mod channels;
mod constants;
mod errors;
mod exit;
mod frames;
mod generator;
mod golden;
mod hidden;
mod moments;
mod names;
mod people;
mod properties;
mod records;
mod rows;
mod shared;
mod unseen;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::harness::database::Database;
use crate::harness::support::wire::Wire;
use crate::harness::support::{Demo, Served, text};

pub const ANALYST: &str = "singapore-analyst";
pub const ENGINEER: &str = "us-engineer";
pub const WORKLOAD: &str = "feed-service";
/// How many people [`Place::readers`] lets in at a time.
pub const READERS: usize = 64;

/// One demo for all of this file's tests, with a gateway in each pool mode. Tests that need a grant of the
/// analyst's take turns.
pub struct Place {
    pub demo: Demo,
    pooled: Served,
    /// The real e-mail addresses, and whose they are.
    pub emails: BTreeMap<String, u64>,
    pub ids: Vec<u64>,
    pub store: Mutex<Database>,
    pub control: Mutex<Database>,
}

pub struct Turn {
    pub place: &'static Place,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Turn {
    type Target = Place;
    fn deref(&self) -> &Place {
        self.place
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// Waits for the analyst's grants to be nobody else's.
    pub fn turn() -> Turn {
        static PLACE: OnceLock<Place> = OnceLock::new();
        static TURN: Mutex<()> = Mutex::new(());
        let turn = lock(&TURN);
        let place = PLACE.get_or_init(|| {
            let demo = Demo::start("limits");
            let pooled = demo.serve_with("pooled", "", |text| {
                text.replace("full_access_role", "pool_mode = \"transaction\"\nfull_access_role")
            });
            let store = Database::connect(&demo.dir.join("us-trusted"), "us");
            let rows = store.rows("select id, email from users order by id");
            let ids = rows.iter().map(|row| row[0].parse().unwrap()).collect();
            let emails = rows.into_iter().map(|row| (row[1].clone(), row[0].parse().unwrap())).collect();
            let control = Database::connect(&demo.dir.join("control"), "control");
            Place { demo, pooled, emails, ids, store: Mutex::new(store), control: Mutex::new(control) }
        });
        Turn { place, _turn: turn }
    }

    pub fn connect(&self, who: &str, is_pooled: bool) -> Wire {
        self.connect_with(who, is_pooled, &[])
    }

    pub fn connect_with(&self, who: &str, is_pooled: bool, more: &[(&str, &str)]) -> Wire {
        let port = if is_pooled { self.pooled.port } else { self.demo.port };
        Wire::connect_with(port, who, "us", more).unwrap_or_else(|e| panic!("{who}: {e}"))
    }

    /// The log of a gateway.
    pub fn log(&self, is_pooled: bool) -> std::path::PathBuf {
        self.demo.dir.join(if is_pooled { "ledger-pooled" } else { "ledger" })
    }

    /// The names of colleagues of the analyst's whom nothing has counted yet. The registry has them instead of
    /// those of the round before, and both gateways have read it.
    pub fn readers(&self, round: u64) -> Vec<String> {
        let names: Vec<String> = (0..READERS).map(|n| format!("reader-{round}-{n}")).collect();
        let read = |name: &str| std::fs::read_to_string(self.demo.dir.join(name)).unwrap();
        let registry = read("registry.toml");
        let of_readers = "\n# Readers.\n";
        let without = registry.split(of_readers).next().unwrap();
        let name = format!("name = \"{ANALYST}\"");
        let entries = without.split("[[people]]\n");
        let analyst = entries.map(str::trim_end).find(|person| person.starts_with(&name)).unwrap();
        let mut text = format!("{without}{of_readers}");
        for reader in &names {
            text.extend(["[[people]]\n", &analyst.replace(ANALYST, reader), "\n\n"]);
        }
        for registry in ["registry.toml", "registry-pooled.toml"] {
            std::fs::write(self.demo.dir.join(registry), &text).unwrap();
        }
        for process in [self.demo.process(), self.pooled.child.id()] {
            let sent = Command::new("kill").arg("-HUP").arg(process.to_string()).status();
            assert!(sent.is_ok_and(|sent| sent.success()));
        }
        for port in [self.demo.port, self.pooled.port] {
            let until = Instant::now() + Duration::from_secs(20);
            while Wire::connect(port, &names[READERS - 1], "us").is_err() {
                assert!(Instant::now() < until, "the registry was not read");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        names
    }

    /// A grant for the e-mail addresses of the first `rows` people.
    pub fn grant(&self, rows: usize, most: u64) -> Grant<'_> {
        let last = self.ids[rows - 1];
        let condition = format!("id <= {last}");
        let id = self.demo.grant(ANALYST, "users.email", &condition, &["--max-rows", &most.to_string()]);
        // The other gateway has it within a second.
        std::thread::sleep(Duration::from_millis(1200));
        Grant { place: self, id }
    }

    /// The people whose real addresses stand in some bytes.
    pub fn emails_in(&self, bytes: &[u8]) -> BTreeSet<u64> {
        words_in(bytes, &self.emails)
    }

    pub fn reconcile(&self, since: &str) -> serde_json::Value {
        let log = self.demo.dir.join("us-trusted/log/postgresql.csv").display().to_string();
        let other = self.demo.dir.join("ledger-pooled").display().to_string();
        let output = self.demo.ringfence(&[
            "reconcile",
            "--store",
            "us",
            "--json",
            "--since",
            since,
            "--allow",
            "postgres",
            "--server-log",
            &log,
            "--dir",
            &other,
            "--dir",
            &self.demo.dir.join("ledger").display().to_string(),
        ]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }
}

/// Which of these addresses stand in some bytes, whatever stands right beside them: the next message's tag
/// can be a letter.
pub fn words_in(bytes: &[u8], known: &BTreeMap<String, u64>) -> BTreeSet<u64> {
    const BESIDE: usize = 4;
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || b"@._+-".contains(b);
    let mut found = BTreeSet::new();
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'@') {
        let left = at - bytes[..at].iter().rev().take_while(|b| is_part(b)).count();
        let right = at + bytes[at..].iter().take_while(|b| is_part(b)).count();
        let places = (0..BESIDE).flat_map(|a| (0..BESIDE).map(move |b| (a, b)));
        found.extend(places.filter_map(|(a, b)| {
            let word = bytes.get(left + a..right.checked_sub(b)?)?;
            known.get(std::str::from_utf8(word).ok()?).copied()
        }));
    }
    found
}

/// A grant that is revoked at the end.
pub struct Grant<'a> {
    place: &'a Place,
    pub id: String,
}

impl Grant<'_> {
    /// Rows charged to it so far.
    pub fn charged(&self) -> u64 {
        let sql = format!("select rows_used from ringfence.requests where id = '{}'", self.id);
        lock(&self.place.control).value(&sql).parse().unwrap()
    }
}

impl Grant<'_> {
    /// The same once sessions have given back what they leased and did not charge.
    pub fn settled(&self) -> u64 {
        let (mut last, mut same) = (self.charged(), 0);
        while same < 12 {
            std::thread::sleep(Duration::from_millis(25));
            let now = self.charged();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        self.place.demo.ringfence(&["revoke", &self.id, "--as", "us-approver-3"]);
    }
}
