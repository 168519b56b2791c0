//! Row limits of grants. Rows are leased from the control database before they are let through, so that
//! all sessions and gateways together keep the limit, and a crash can only use up too much of it.
//!
//! The unit is the *charged row* (README, "Row limits"): the charge is an upper bound of the distinct rows
//! of the granted table on which an answer can depend in clear. A row of the result costs as many rows as
//! it can hold values of (`QueryScope::max_rows`). Where that has no bound, the statement costs all
//! rows that the face shows of the table now, before it runs; they are counted again before the first byte
//! of the answer passes, since the store may have taken its time to begin, and the larger number is
//! charged. (Rows that come and go again between the two counts are not seen.) Each statement that reads
//! the table costs at least 1, also if it gives no row or fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringfence_control::Control;
use ringfence_face::{Login, Steward};
use ringfence_statement::scope::UNBOUNDED;

use crate::grants::{ActiveGrant, LiveGrants, Returning};
use crate::pool::Pool;
use crate::refusal::{Refusal, code};
use crate::relay::resolve::Run;

/// Rows leased at a time.
const CHUNK: u64 = 64;
/// How often a lease is asked for while leased rows are on their way back.
const TRIES: usize = 5;

/// What a statement costs of one grant.
#[derive(Clone, Debug)]
pub struct Charge {
    /// Which limited grant.
    pub grant: usize,
    /// Rows for each row of the result.
    pub per_row: u64,
    /// Rows that were charged so far.
    pub charged: u64,
    /// Queries in the text that have no bound, and how many rows they were charged.
    whole: (u64, u64),
    /// Statements of the text whose least was charged before they gave a row, by a bit for each: their
    /// first row is paid by it. Beyond 64 statements there is no such bit.
    paid: u64,
    /// Cursors that were declared and have given no row: the first one is paid, too.
    declared: u64,
}

impl Charge {
    /// Whether it counts rows that have no bound.
    pub fn has_unbounded(&self) -> bool {
        self.whole.0 > 0
    }

    /// Takes what is paid of a row that statement `part` gives.
    fn take_paid(&mut self, part: usize) -> u64 {
        let bit = bit(part);
        if self.per_row == 0 {
            0
        } else if self.paid & bit != 0 {
            self.paid &= !bit;
            1
        } else {
            let one = self.declared.min(1);
            self.declared -= one;
            one
        }
    }

    /// Statement `part` has ended with a tag.
    pub fn ended(&mut self, part: usize, tag: &[u8]) {
        if self.paid & bit(part) != 0 && tag == b"DECLARE CURSOR\0" {
            self.paid &= !bit(part);
            self.declared += 1;
        }
    }
}

fn bit(part: usize) -> u64 {
    u32::try_from(part).ok().and_then(|part| 1_u64.checked_shl(part)).unwrap_or(0)
}

/// Which state of the rows a statement sees, next to when it is sent: what has no bound is counted then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Much the same.
    Now,
    /// A later one: something runs before it that may take its time.
    Later,
    /// An earlier one: that of its transaction, or of when it was bound.
    Earlier,
}

impl Moment {
    /// Why a statement that combines many rows of `table` is refused, if so.
    pub fn refusal(self, table: &str) -> Option<Refusal> {
        let why = match self {
            Self::Now => return None,
            Self::Later => "It would run after others that may take their time, and may find more rows then.",
            Self::Earlier => "It would see rows as they were before, and there may have been more of them.",
        };
        let message =
            format!("this statement combines many rows of {table}, which are counted before it runs");
        Some(Refusal::new(code::FEATURE_NOT_SUPPORTED, message).detail(why).hint(
            "Send it by itself, with Bind and Execute together, outside a transaction that is or may be \
             REPEATABLE READ or SERIALIZABLE. DISCARD ALL puts the session's level back.",
        ))
    }
}

/// What a statement costs.
pub type Charges = Vec<Charge>;

/// A grant with a limit.
#[derive(Clone, Debug)]
pub struct Limited {
    /// The grant.
    pub grant: Arc<ActiveGrant>,
    /// How many rows in all.
    pub max: u64,
}

impl Limited {
    fn id(&self) -> &str {
        &self.grant.request.id
    }

    fn table(&self) -> &str {
        &self.grant.request.table
    }
}

/// What counts the rows that a face shows: the face's own login.
pub struct Counter {
    /// The store's name.
    pub store: String,
    /// What connects to it.
    pub steward: Arc<Steward>,
    /// What makes room there.
    pub pool: Arc<Pool>,
    /// Who counts.
    pub login: Login,
}

impl Counter {
    async fn rows_shown(&self, table: &str, limit: u64) -> Result<u64, ringfence_face::Error> {
        let count = || self.steward.rows_shown(&self.login, table, limit);
        self.pool.with_room(&self.store, count).await
    }
}

/// The limits that a session is under.
pub struct Quota {
    control: Arc<Control>,
    counter: Counter,
    active: Arc<LiveGrants>,
    grants: Vec<Limited>,
    /// Rows leased and not charged, by grant.
    leased: Mutex<Vec<u64>>,
}

impl Quota {
    /// The limits of a session whose rows `counter` counts.
    pub fn new(
        control: Arc<Control>,
        counter: Counter,
        active: Arc<LiveGrants>,
        grants: Vec<Limited>,
    ) -> Self {
        let leased = Mutex::new(vec![0; grants.len()]);
        Self { control, counter, active, grants, leased }
    }

    /// Whether there is no limit at all.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Charges what `runs` cost before they run, and says what their rows cost. `has_column` says whether
    /// the session's face has a column in a table.
    pub async fn admit(
        &self,
        runs: &[Run],
        has_column: &(dyn Fn(&str, &str) -> bool + Sync),
        moment: &(dyn Fn(usize) -> Moment + Sync),
    ) -> Result<Charges, Refusal> {
        let mut charges = Charges::new();
        for (grant, limited) in self.grants.iter().enumerate() {
            // What goes on with a query that has begun was charged its least then.
            let (mut per_row, mut is_read, mut whole) = (0, false, 0_u64);
            // How many queries begin that read the table, and in which statements of the text.
            let (mut begin, mut paid) = (0_u64, 0);
            for run in runs {
                let most = run.scope.max_rows(limited.table(), has_column);
                if most > 0 && !run.goes_on {
                    begin += 1;
                    paid |= bit(run.part);
                }
                match most {
                    0 => {}
                    UNBOUNDED => {
                        is_read = true;
                        whole += u64::from(!run.goes_on);
                        let moment = if run.goes_on { Moment::Now } else { moment(run.part) };
                        if let Some(refusal) = moment.refusal(limited.table()) {
                            self.take_back(&charges);
                            return Err(refusal);
                        }
                    }
                    most => {
                        is_read = true;
                        per_row = per_row.max(most);
                    }
                }
            }
            if !is_read {
                continue;
            }
            let all = match whole {
                0 => 0,
                whole => match Box::pin(self.shown_patiently(limited)).await {
                    Ok(shown) => shown.saturating_mul(whole),
                    Err(refusal) => {
                        self.take_back(&charges);
                        return Err(refusal);
                    }
                },
            };
            let before = all.max(begin);
            if let Err(left) = self.take(grant, before).await {
                self.take_back(&charges);
                return Err(if all >= begin {
                    refused(limited, all, left)
                } else {
                    too_many(limited, begin, left)
                });
            }
            let paid = if all == 0 { paid } else { 0 };
            charges.push(Charge {
                grant,
                per_row,
                charged: before,
                whole: (whole, before),
                paid,
                declared: 0,
            });
        }
        Ok(charges)
    }

    /// Counts again what has no bound, once the store sees the rows as they will be shown.
    pub async fn count_again(&self, charge: &mut Charge) -> Result<(), Refusal> {
        let (whole, counted) = charge.whole;
        if whole == 0 {
            return Ok(());
        }
        let limited = &self.grants[charge.grant];
        let all = self.shown_patiently(limited).await?.saturating_mul(whole);
        let more = all.saturating_sub(counted);
        if more > 0 {
            self.take(charge.grant, more).await.map_err(|left| refused(limited, all, left + counted))?;
            charge.charged += more;
            charge.whole.1 = all;
        }
        Ok(())
    }

    /// A statement does not run after all: what it cost is there again.
    pub fn take_back(&self, charges: &[Charge]) {
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        for charge in charges {
            leased[charge.grant] += charge.charged;
            self.grants[charge.grant].grant.lease(charge.charged);
        }
    }

    /// As [`Self::shown`], and again where it cannot be counted just now.
    async fn shown_patiently(&self, limited: &Limited) -> Result<u64, Refusal> {
        let patience = Patience::begin();
        loop {
            let shown = self.shown(limited).await;
            if !patience.again(refused_with(&shown)).await {
                return shown;
            }
        }
    }

    /// How many rows of the granted table the face shows now, counted by the face's own login up to one
    /// more than the limit.
    async fn shown(&self, limited: &Limited) -> Result<u64, Refusal> {
        let shown = self.counter.rows_shown(limited.table(), limited.max.saturating_add(1)).await;
        shown.map_err(|error| {
            tracing::warn!(%error, grant = limited.id(), "cannot count what a grant shows");
            Refusal::new(code_of(&error), "the store did not count what this statement could use")
                .detail("The statement combines many rows, so it costs all rows that the grant shows.")
                .hint("Try again, or select plain rows.")
        })
    }

    /// Charges `count` rows of the result of statement `part`. MOVE passes over rows, and says how many.
    pub async fn rows(&self, charge: &mut Charge, part: usize, count: u64) -> Result<(), Refusal> {
        if count == 0 {
            return Ok(());
        }
        let rows = charge.per_row.saturating_mul(count) - charge.take_paid(part);
        self.take(charge.grant, rows).await.map_err(|left| self.used_up(charge.grant, left))?;
        charge.charged += rows;
        Ok(())
    }

    /// Charges an error, which can depend on as many rows as one row of the result. What is not left is
    /// not charged: the statement is over.
    pub async fn error(&self, charge: &mut Charge, part: usize) {
        let rows = charge.per_row - charge.take_paid(part);
        let taken = match self.take(charge.grant, rows).await {
            Ok(()) => rows,
            Err(left) => match self.take(charge.grant, left).await {
                Ok(()) => left,
                Err(_) => 0,
            },
        };
        charge.charged += taken;
    }

    fn used_up(&self, grant: usize, left: u64) -> Refusal {
        let limited = &self.grants[grant];
        let (id, max) = (limited.id(), limited.max);
        let message = match left {
            0 => format!("the row limit of grant {id} is used up ({max} rows)"),
            left => format!("the next row costs more rows than grant {id} has left ({left} of {max})"),
        };
        Refusal::new(code::LIMIT_EXCEEDED, message)
            .detail("The rest of the result was held back and the session is over.")
            .hint("Ask for a new grant with `ringfence request … --max-rows N`.")
    }

    /// Takes rows from grant `i`; the error says how many it has left.
    async fn take(&self, i: usize, rows: u64) -> Result<(), u64> {
        if self.take_leased(i, rows) {
            return Ok(());
        }
        let Limited { grant, max } = &self.grants[i];
        for _ in 0..TRIES {
            let has = self.leased.lock().unwrap_or_else(PoisonError::into_inner)[i];
            let want = rows.saturating_sub(has).max(CHUNK);
            // What is on its way back may arrive after the lease: requests to the control database
            // go over several connections.
            let comes_back = grant.is_returning();
            match Box::pin(lease(&self.control, grant, want, *max)).await {
                Ok(leased) => {
                    grant.lease(leased);
                    self.leased.lock().unwrap_or_else(PoisonError::into_inner)[i] += leased;
                }
                Err(error) => {
                    tracing::error!(%error, "a row limit cannot be kept, so no rows are let through");
                }
            }
            if self.take_leased(i, rows) {
                return Ok(());
            }
            if !comes_back || tokio::time::timeout(PATIENCE, grant.has_returned()).await.is_err() {
                break;
            }
        }
        let left = self.leased.lock().unwrap_or_else(PoisonError::into_inner)[i];
        if left == 0 {
            self.active.look_at_use(&grant.request.id, *max);
        }
        Err(left)
    }

    fn take_leased(&self, i: usize, rows: u64) -> bool {
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = leased[i] >= rows;
        if enough {
            leased[i] -= rows;
            self.grants[i].grant.unlease(rows);
        }
        enough
    }

    /// The grant behind a charge.
    pub fn id(&self, charge: &Charge) -> &str {
        self.grants[charge.grant].id()
    }

    /// Gives back what was leased and not charged. It is on its way from the call on.
    pub fn give_back(&self) -> impl Future<Output = ()> + use<> {
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = leased.iter_mut().zip(&self.grants).filter(|(rows, _)| **rows > 0);
        let back: Vec<_> =
            rows.map(|(rows, limited)| limited.grant.gives_back(std::mem::take(rows))).collect();
        drop(leased);
        let control = Arc::clone(&self.control);
        async move {
            for rows in back {
                give_back(&control, rows).await;
            }
        }
    }
}

/// Leases rows. If the session has ended before they come, they are given back.
async fn lease(
    control: &Arc<Control>,
    grant: &Arc<ActiveGrant>,
    want: u64,
    most: u64,
) -> Result<u64, ringfence_control::Error> {
    let (answer, leased) = tokio::sync::oneshot::channel();
    let (control, grant) = (Arc::clone(control), Arc::clone(grant));
    tokio::spawn(async move {
        let done = control.lease_rows(&grant.request.id, want, most).await;
        if let Err(Ok(rows)) = answer.send(done) {
            grant.lease(rows);
            give_back(&control, grant.gives_back(rows)).await;
        }
    });
    leased.await.unwrap_or(Ok(0))
}

async fn give_back(control: &Control, back: Returning) {
    let (id, rows) = (&back.grant.request.id, back.rows);
    if let Err(error) = control.return_rows(id, rows).await {
        tracing::warn!(%error, grant = %id, rows, "rows stay counted as charged");
    }
}

/// The SQLSTATE of a count that failed: whether it can succeed in a moment.
pub fn code_of(error: &ringfence_face::Error) -> &'static str {
    match error {
        ringfence_face::Error::Busy { .. } | ringfence_face::Error::Unreachable(_) => {
            code::CANNOT_CONNECT_NOW
        }
        _ => code::CANNOT_CONNECT,
    }
}

/// See [`Patience`], and how long is waited in between.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(300);

/// How long is counted again what could not be counted just now.
pub struct Patience(Instant);

impl Patience {
    /// It begins now.
    pub fn begin() -> Self {
        Self(Instant::now() + PATIENCE)
    }

    /// Whether to count again, after a pause: no connection was free, or something was locked.
    pub async fn again(&self, code: Option<&str>) -> bool {
        let is_momentary = code == Some(code::CANNOT_CONNECT_NOW) && Instant::now() < self.0;
        if is_momentary {
            tokio::time::sleep(PAUSE).await;
        }
        is_momentary
    }
}

/// The SQLSTATE of a refusal, if it is one.
pub fn refused_with<T>(done: &Result<T, Refusal>) -> Option<&'static str> {
    done.as_ref().err().map(|refusal| refusal.code)
}

/// The refusal of a text whose statements cost their least, and more than is left.
fn too_many(limited: &Limited, begin: u64, left: u64) -> Refusal {
    if left == 0 {
        return refused(limited, 0, 0);
    }
    let (id, table) = (limited.id(), limited.table());
    Refusal::new(
        code::LIMIT_EXCEEDED,
        format!("this text costs at least {begin} rows of {table}, and grant {id} has {left} left"),
    )
    .detail("Each statement of a text that reads the table costs at least 1 row.")
    .hint("Send fewer statements, or ask for a new grant with a higher --max-rows.")
}

fn refused(limited: &Limited, all: u64, left: u64) -> Refusal {
    let (id, table, max) = (limited.id(), limited.table(), limited.max);
    if all == 0 {
        return Refusal::new(
            code::LIMIT_EXCEEDED,
            format!("the row limit of grant {id} is used up ({max} rows)"),
        )
        .detail(format!("A statement that reads {table} under the grant costs at least 1 row."))
        .hint("Connect again to see what you see without it; ask for a new grant if the need goes on.");
    }
    let costs = if all > max { format!("more than {max}") } else { all.to_string() };
    Refusal::new(
        code::LIMIT_EXCEEDED,
        format!("this statement costs {costs} rows of {table}, and grant {id} has {left} left"),
    )
    .detail(format!(
        "One row of its result can combine many rows of {table}, so it costs all rows that the grant shows; the limit is {max}."
    ))
    .hint(format!(
        "Select plain rows with a narrower WHERE, or combine a bounded part: \
         … FROM (SELECT … FROM {table} WHERE … LIMIT {}) AS part; or ask for a grant with a higher --max-rows.",
        left.max(1)
    ))
}
