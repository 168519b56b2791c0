//! Row limits of grants. Rows are leased from the control database before they are let through, so that all sessions and
//! gateways together keep the limit, and a crash can only use up too much of it.
//!
//! A row of a result costs one for each mention of the granted table. A statement that can fold several rows into one (an
//! aggregate, a window, ARRAY(SELECT …), a recursive WITH) costs all rows that the grant reaches, before it runs.

use std::sync::{Arc, Mutex, PoisonError};

use ringfence_control::Control;
use ringfence_face::Steward;

use crate::refusal::{Refusal, code};
use crate::statement::Verdict;

/// Rows leased at a time.
const CHUNK: u64 = 64;

/// What a row costs: (which limited grant, how many).
pub type Charge = Vec<(usize, u64)>;

/// A grant with a limit.
#[derive(Clone, Debug)]
pub struct Limited {
    /// The grant.
    pub id: String,
    /// Its table.
    pub table: String,
    /// How many rows in all.
    pub max: u64,
}

#[derive(Default)]
struct Held {
    /// Rows leased and not read, by grant.
    leased: Vec<u64>,
    /// The most mentions of a granted table in one statement so far: what a cursor's row may cost.
    mentions: u64,
}

/// The limits that a session is under.
pub struct Quota {
    control: Arc<Control>,
    steward: Arc<Steward>,
    face: String,
    grants: Vec<Limited>,
    held: Mutex<Held>,
}

impl Quota {
    /// The limits of a session at `face`.
    pub fn new(control: Arc<Control>, steward: Arc<Steward>, face: String, grants: Vec<Limited>) -> Self {
        let held = Held { leased: vec![0; grants.len()], mentions: 1 };
        Self { control, steward, face, grants, held: Mutex::new(held) }
    }

    /// Whether there is no limit at all.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// What a row of a statement costs.
    pub fn charge(&self, verdict: Option<&Verdict>) -> Charge {
        if self.grants.is_empty() {
            return Charge::new();
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(verdict) = verdict.filter(|v| !v.opaque) else {
            return (0..self.grants.len()).map(|i| (i, held.mentions)).collect();
        };
        let mut charge = Charge::new();
        for (i, grant) in self.grants.iter().enumerate() {
            let mentions = verdict.tables.iter().filter(|t| **t == grant.table).count() as u64;
            held.mentions = held.mentions.max(mentions);
            if mentions > 0 && !verdict.folds {
                charge.push((i, mentions));
            }
        }
        charge
    }

    /// Takes what a folding statement costs, before it runs.
    pub async fn fold(&self, verdict: &Verdict) -> Result<(), Refusal> {
        if !verdict.folds {
            return Ok(());
        }
        for (i, grant) in self.grants.iter().enumerate().filter(|(_, g)| verdict.tables.contains(&g.table)) {
            let reach = self.steward.reach(&self.face, &grant.table, grant.max + 1).await;
            let reach = reach.map_err(|e| Refusal::new(code::CANNOT_CONNECT, e.to_string()))?;
            if reach > grant.max || !self.take(i, reach).await {
                return Err(Refusal::new(
                    code::LIMIT_EXCEEDED,
                    format!("This statement could use more rows than grant {} has left", grant.id),
                )
                .detail(format!(
                    "It can fold many rows of {} into one, so it counts as all rows that the grant reaches; the limit is {}.",
                    grant.table, grant.max
                ))
                .hint("Select plain rows with a narrower WHERE, or ask for a grant with a higher --max-rows."));
            }
        }
        Ok(())
    }

    /// Takes `cost` rows from grant `i`; false if it is used up.
    pub async fn take(&self, i: usize, cost: u64) -> bool {
        if self.take_leased(i, cost) {
            return true;
        }
        let grant = &self.grants[i];
        let want = cost.max(CHUNK);
        match self.control.lease_rows(&grant.id, want, grant.max).await {
            Ok(leased) => {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                held.leased[i] += leased;
                drop(held);
                self.take_leased(i, cost)
            }
            Err(error) => {
                tracing::error!(%error, "a row limit cannot be kept, so no rows are let through");
                false
            }
        }
    }

    fn take_leased(&self, i: usize, cost: u64) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = held.leased[i] >= cost;
        if enough {
            held.leased[i] -= cost;
        }
        enough
    }

    /// The grant behind `i`.
    pub fn grant(&self, i: usize) -> &Limited {
        &self.grants[i]
    }

    /// Gives back what was leased and not read.
    pub async fn give_back(&self) {
        for (i, grant) in self.grants.iter().enumerate() {
            let rows = {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut held.leased[i])
            };
            if rows > 0
                && let Err(error) = self.control.return_rows(&grant.id, rows).await
            {
                tracing::warn!(%error, grant = %grant.id, rows, "rows stay counted as read");
            }
        }
    }
}
