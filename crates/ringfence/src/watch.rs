//! The side door, watched: a thread for each store whose own log is followed. What it finds is in the program's log and in the ledger
//! within seconds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ringfence_ledger::{Entry, Kind, WeakLedger, now_ms};
use ringfence_reports::reconcile::Finding;
use ringfence_reports::reconcile::follow::Follower;

use crate::command::Failure;
use crate::config::SideDoor;

/// How often to look.
const LOOK: Duration = Duration::from_secs(1);
/// The most findings that are told one by one in a minute; of more, only how many.
const A_MINUTE: u64 = 60;
/// How often the same trouble with a log is told.
const AGAIN: Duration = Duration::from_secs(60);

/// Follows a store's own log until the ledger is closed.
pub(crate) fn follow(
    side_door: SideDoor,
    logs: &[(PathBuf, String)],
    ledger: WeakLedger,
) -> Result<(), Failure> {
    let SideDoor { log, jurisdiction, settings } = side_door;
    let store = settings.store.clone();
    let follower = Follower::new(settings, logs, &log);
    let mut follower = follower.map_err(|e| Failure::setup(format!("store {store}: server_log: {e}")))?;
    let watching = move || {
        let mut teller = Teller { ledger, jurisdiction, store, minute: Instant::now(), told: 0 };
        let mut trouble: Option<Instant> = None;
        loop {
            std::thread::sleep(LOOK);
            if teller.ledger.upgrade().is_none() {
                return;
            }
            teller.tick();
            if let Err(error) = follower.look(now_ms(), |finding| teller.tell(&finding))
                && trouble.is_none_or(|at| at.elapsed() > AGAIN)
            {
                trouble = Some(Instant::now());
                let store = &teller.store;
                tracing::error!(%store, %error, "the store's own log cannot be compared with the ledger");
            }
        }
    };
    std::thread::Builder::new()
        .name("side-door".to_owned())
        .spawn(watching)
        .map_err(|e| Failure::setup(format!("cannot start a thread: {e}")))?;
    Ok(())
}

struct Teller {
    ledger: WeakLedger,
    jurisdiction: String,
    store: String,
    minute: Instant,
    told: u64,
}

impl Teller {
    fn tick(&mut self) {
        if self.minute.elapsed() >= Duration::from_secs(60) {
            if let Some(more) = self.told.checked_sub(A_MINUTE).filter(|more| *more > 0) {
                tracing::error!(store = %self.store, more, "more came past the gateway in the last minute: `ringfence reconcile` names all");
            }
            (self.minute, self.told) = (Instant::now(), 0);
        }
    }

    fn tell(&mut self, finding: &Finding) {
        self.told += 1;
        if self.told > A_MINUTE {
            return;
        }
        tracing::error!(
            store = %self.store, role = %finding.role, address = %finding.address, session = %finding.session,
            "ALERT: {}", finding.what.text()
        );
        if let Some(ledger) = self.ledger.upgrade() {
            ledger.record(Entry::new(Kind::SideDoor, &self.jurisdiction, finding));
        }
    }
}
