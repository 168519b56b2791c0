//! kill -9 of a gateway at random moments: no row was released whose intent is not in the log, and the log verifies after
//! each. The gateway under test is `ringfence serve` beside a demo's, on the same stores, with a log of its own.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::wire::{Way, Wire};
use support::{Demo, text};

const ROUNDS: u64 = 50;

/// Whole DataRow frames in what a client received, each with the marker that its statement returned.
fn markers(received: &[u8]) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), received);
    while rest.len() >= 5 {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        if rest.len() <= length {
            // A row that was cut in the middle was released, too.
            if rest[0] == b'D' {
                found.extend(marker(rest));
            }
            break;
        }
        if rest[0] == b'D' {
            found.extend(marker(&rest[..=length]));
        }
        rest = &rest[length + 1..];
    }
    found
}

fn marker(bytes: &[u8]) -> Option<String> {
    let at = bytes.windows(6).position(|w| w == b"marker")?;
    let text: String = bytes[at..]
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || **b == b'-')
        .map(|b| char::from(*b))
        .collect();
    (text.matches('-').count() == 3 && text.ends_with('z')).then_some(text)
}

#[test]
fn no_row_leaves_unrecorded_whenever_the_gateway_is_killed() {
    let demo = Demo::start("crashes");
    let released = Arc::new(Mutex::new(HashSet::new()));
    let numbers = Arc::new(AtomicU64::new(0));
    let mut kills_in_the_middle = 0;
    for round in 0..ROUNDS {
        let mut served = demo.serve("crash", "");
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..6_u64)
            .map(|client| {
                let (released, numbers, over) =
                    (Arc::clone(&released), Arc::clone(&numbers), Arc::clone(&over));
                let (port, who) =
                    (served.port, if client % 2 == 0 { "singapore-analyst" } else { "us-engineer" });
                let way = [Way::Simple, Way::ExtendedText, Way::ExtendedBinary]
                    [usize::try_from(client % 3).unwrap()];
                std::thread::spawn(move || {
                    let Ok(mut wire) = Wire::connect(port, who, "us") else { return false };
                    while !over.load(Ordering::Relaxed) {
                        let n = numbers.fetch_add(1, Ordering::Relaxed);
                        let sql =
                            format!("SELECT 'marker-{round}-{client}-{n}z', handle FROM profiles LIMIT 3");
                        let from = wire.received.len();
                        let outcome = wire.run(&sql, way);
                        released.lock().unwrap().extend(markers(&wire.received[from..]));
                        if outcome.is_err() {
                            return true;
                        }
                    }
                    false
                })
            })
            .collect();
        // A different moment each round, from before the first statement to well into the stream.
        std::thread::sleep(Duration::from_micros((round * 7919) % 120_000));
        served.kill();
        over.store(true, Ordering::Relaxed);
        kills_in_the_middle += clients.into_iter().map(|c| c.join().unwrap()).filter(|m| *m).count();

        // The files as the crash left them, read by the next gateway's start; then everything is checked.
        let mut again = demo.serve("crash", "");
        std::thread::sleep(Duration::from_millis(300));
        let config = demo.dir.join("crash.toml").display().to_string();
        let verified = demo.ringfence(&["ledger", "verify", "--config", &config]);
        assert!(verified.status.success(), "round {round}: {}", text(&verified));
        again.kill();
        let shown = demo.ringfence(&["ledger", "show", "--config", &config, "--json", "--from", "0"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let recorded: HashSet<String> = shown
            .lines()
            .filter(|l| l.contains("\"statement\""))
            .filter_map(|l| marker(l.as_bytes()))
            .collect();
        let missing: Vec<String> = released.lock().unwrap().difference(&recorded).cloned().collect();
        assert!(missing.is_empty(), "round {round}: released without a record: {missing:?}");
    }
    let released = released.lock().unwrap().len();
    assert!(kills_in_the_middle > 50, "only {kills_in_the_middle} clients were hit in the middle");
    assert!(released > 500, "only {released} rows were released in all rounds");
}
