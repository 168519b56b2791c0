//! Whether data may cross the border: only while witnesses confirm the log, as recently as policy asks. A log that nobody
//! outside has seen could be rewritten, and then nobody could say who read what.
//!
//! When the last confirmation is too old, cross-border sessions are cut and new ones refused; access inside the country goes
//! on. Both are told in the program's log and in the ledger. By order of a regulator it closes for one jurisdiction
//! ([`crate::orders`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringfence_ledger::witnessing::State;
use ringfence_ledger::{Entry, Kind};
use serde_json::json;

use crate::grants::Cut;
use crate::server::Shared;

/// How often to look.
pub const LOOK: Duration = Duration::from_millis(250);
/// How long the first confirmation after a start may take before that is told.
const FIRST: Duration = Duration::from_secs(10);

/// See the module's text.
pub struct Border {
    /// What the last look told.
    was_closed: AtomicBool,
    began: Instant,
}

impl Default for Border {
    fn default() -> Self {
        Self { was_closed: AtomicBool::new(false), began: Instant::now() }
    }
}

impl Border {
    /// `Err` while no data of `jurisdiction` may cross: nothing may, or a regulator has suspended it.
    pub fn is_open_to(&self, shared: &Shared, jurisdiction: &str) -> Result<(), Cut> {
        shared.suspensions.judge(jurisdiction)?;
        self.is_open(shared)
    }

    /// `Err` while nothing may cross. Decided by the clock, not by the last look.
    pub fn is_open(&self, shared: &Shared) -> Result<(), Cut> {
        match shared.ledger.witnessed() {
            State::Overdue(age) => Err(Cut::Unwitnessed { age }),
            State::NotAsked | State::Confirmed(_) => Ok(()),
        }
    }

    /// Cuts cross-border sessions when the last confirmation has become too old, and tells of each change.
    pub fn look(&self, shared: &Shared) {
        for order in shared.suspensions.in_force() {
            if let Err(cut) = shared.suspensions.judge(&order.jurisdiction) {
                let policy = shared.policy();
                let is_theirs = |store: &str| {
                    policy.store(store).is_none_or(|(s, _)| s.jurisdiction == order.jurisdiction)
                };
                shared.grants.cut_where(&cut, |session| session.is_cross_border && is_theirs(&session.store));
            }
        }
        let found = self.is_open(shared);
        let is_first = matches!(found, Err(Cut::Unwitnessed { age: None })) && self.began.elapsed() < FIRST;
        if is_first {
            return; // closed, with nobody to cut and nothing to tell yet
        }
        let was_closed = self.was_closed.swap(found.is_err(), Ordering::AcqRel);
        match (&found, was_closed) {
            (Err(cut), false) => {
                tracing::error!(reason = %cut.reason(), "cross-border access is closed; access inside the country goes on");
                let record = json!({ "reason": cut.reason() });
                shared.ledger.record(Entry::new(Kind::BorderClosed, "-", &record));
            }
            (Ok(()), true) => {
                tracing::warn!("witnesses confirm the ledger again: cross-border access is open");
                shared.ledger.record(Entry::new(Kind::BorderOpened, "-", &json!({})));
            }
            _ => {}
        }
        if let Err(cut) = &found {
            shared.grants.cut_where(cut, |session| session.is_cross_border);
        }
    }
}
