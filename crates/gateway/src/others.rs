//! What of a store runs code that is not PostgreSQL's own, as of a moment ago. Outside a face a statement may
//! run such code without a sign of it in its text: by an operator, a trigger, a function with the name of
//! one of PostgreSQL's.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringfence_face::{Code, Names, Others, Steward};
use ringfence_statement::analysis::Analysis;

use crate::session::Session;

/// How often a store is asked while it has a session outside a face.
pub const LOOK: Duration = Duration::from_secs(2);
/// What is older is asked for before a session begins, and before one uses it that is metered.
const OLD: Duration = Duration::from_secs(3);
/// What is older than this is of no use: the store may have any code.
const TOO_OLD: Duration = Duration::from_secs(60);
/// So long a look may take.
const LOOKING: Duration = Duration::from_secs(60);
/// So long a session in the country waits for that.
const WAIT: Duration = Duration::from_secs(1);

/// The time since when what is known must hold at least.
fn recently() -> Instant {
    Instant::now().checked_sub(OLD).unwrap_or_else(Instant::now)
}

/// What is known of a store.
#[derive(Debug)]
pub struct Known {
    state: String,
    others: Others,
    /// What names of relations stand for.
    pub names: Arc<Names>,
    /// It holds for what was committed before this.
    as_of: Instant,
}

impl Known {
    fn reach(&self, analysis: &Analysis) -> Reach {
        let Others { all, changing } = &self.others;
        let may_run =
            |code: &Code| code.may_run(&analysis.symbols) || analysis.runs_sql && code.has_functions();
        let runs = match (may_run(changing), may_run(all)) {
            (true, _) => Runs::Changes,
            (false, true) => Runs::Reads,
            (false, false) => Runs::Own,
        };
        Reach {
            runs,
            at_parse: all.may_run_at_parse(&analysis.symbols),
            has_types: all.has_types(),
            as_of: self.as_of,
        }
    }
}

/// What a session has last seen of what is known: all sessions would wait for one lock.
#[derive(Debug, Default)]
pub struct Seen {
    version: u64,
    known: Option<Arc<Known>>,
    /// The text that was asked for last. It is asked for when it is parsed, bound and run.
    last: Option<(Arc<Analysis>, Reach)>,
}

/// What the names in a text reach of the store's code.
#[derive(Clone, Copy, Debug)]
struct Reach {
    /// What code.
    runs: Runs,
    /// Some when the text is parsed.
    at_parse: bool,
    /// The store has types that run some when a value is read, whatever the text says.
    has_types: bool,
    /// See [`Known::as_of`].
    as_of: Instant,
}

/// What a statement may run of the store's code.
#[derive(Clone, Copy, Debug)]
pub struct May {
    /// What code it may run.
    pub runs: Runs,
    /// It runs code, as far as that is known, that may also make other code.
    pub defines_unseen: bool,
    /// A parameter of a type that is not PostgreSQL's own may run code when it is read.
    pub reads_types: bool,
}

/// What code of others a statement may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runs {
    /// None.
    #[default]
    Own,
    /// Code that may read any row.
    Reads,
    /// Code that may also change names and settings of its session.
    Changes,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct OfStore {
    known: Mutex<Option<Arc<Known>>>,
    /// Grows when `known` becomes another one.
    version: AtomicU64,
    /// How many sessions need it.
    sessions: AtomicUsize,
    /// When a session that we know of may have defined something last.
    defined_at: Mutex<Option<Instant>>,
    /// One asks at a time.
    asking: tokio::sync::Mutex<()>,
}

/// A session needs what is known of a store, until this is dropped.
#[derive(Debug)]
pub struct Needed(Arc<OfStore>);

impl Drop for Needed {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl OfStore {
    /// What is known.
    pub fn known(&self) -> Option<Arc<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A session has committed something that may have defined code.
    pub fn defined(&self) {
        *self.defined_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Keeps it up to date for a session.
    pub fn need(self: &Arc<Self>) -> Needed {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Needed(Arc::clone(self))
    }

    /// Asks the store, where what is known does not hold for all that was committed before `since`. `is_whole`
    /// reads all of it again, with what belongs to sessions alone.
    pub async fn look(
        &self,
        steward: &Steward,
        since: Instant,
        is_whole: bool,
    ) -> Result<(), ringfence_face::Error> {
        let _asking = self.asking.lock().await;
        let known = self.known();
        if known.as_ref().is_some_and(|known| known.as_of >= since) {
            return Ok(());
        }
        let as_of = Instant::now();
        let asked = steward.others(known.as_ref().filter(|_| !is_whole).map(|known| &*known.state));
        let late = |_| ringfence_face::Error::Unreachable("it does not say in time which code it has".into());
        let found = tokio::time::timeout(LOOKING, asked).await.map_err(late)??;
        let now = match (found, known) {
            (Some((state, others, names)), _) => Known { state, others, names: Arc::new(names), as_of },
            (None, Some(known)) => Known {
                state: known.state.clone(),
                others: known.others.clone(),
                names: Arc::clone(&known.names),
                as_of,
            },
            (None, None) => return Ok(()),
        };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(now));
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Asks for a session that begins. In the country it does not wait long for a store that does not answer, where
    /// something is known.
    pub async fn look_for_session(
        &self,
        steward: &Steward,
        is_metered: bool,
    ) -> Result<(), ringfence_face::Error> {
        let looking = self.look(steward, recently(), false);
        if is_metered || self.known().is_none() {
            return looking.await;
        }
        log_failure(WAIT, looking).await;
        Ok(())
    }

    /// The same as [`Self::look`], if a session needs it.
    pub async fn keep(&self, steward: &Steward) {
        if self.sessions.load(Ordering::Relaxed) > 0 {
            log_failure(LOOKING, self.look(steward, Instant::now(), false)).await;
        }
    }
}

/// Waits for a look, but not longer than `limit`; the program's log has what failed.
async fn log_failure(limit: Duration, looking: impl Future<Output = Result<(), ringfence_face::Error>>) {
    match tokio::time::timeout(limit, looking).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot read which code a store has of others"),
        Err(_) => tracing::warn!("a store does not say in time which code it has of others"),
    }
}

impl Session {
    /// What is known of the store's code and names; `None` for a face, which reaches neither.
    pub fn code(&self) -> Option<Arc<Known>> {
        self.seen().and_then(|seen| seen.known.clone())
    }

    fn seen(&self) -> Option<MutexGuard<'_, Seen>> {
        let (store, seen) = self.code.as_ref()?;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let version = store.version.load(Ordering::Acquire);
        if seen.version != version || seen.known.is_none() {
            *seen = Seen { version, known: store.known(), last: None };
        }
        Some(seen)
    }

    /// What a text reaches; `None` if nothing is known of the store's code.
    fn reach(&self, analysis: &Arc<Analysis>) -> Option<Reach> {
        let mut seen = self.seen()?;
        if let Some((last, reach)) = &seen.last
            && Arc::ptr_eq(last, analysis)
        {
            return Some(*reach);
        }
        let reach = seen.known.as_ref()?.reach(analysis);
        seen.last = Some((Arc::clone(analysis), reach));
        Some(reach)
    }

    /// Makes sure that what is known of the store's code is not old where the session is metered, and holds for
    /// what the session itself has committed. In the country nobody waits for it: a store whose steward has to
    /// wait must go on.
    pub async fn look_at_code(&self) -> Result<(), ringfence_face::Error> {
        if self.metering.is_none() || self.is_face() {
            return Ok(());
        }
        let Some(behind) = self.shared.stores.get(&self.store.name) else { return Ok(()) };
        let defined_at = *behind.others.defined_at.lock().unwrap_or_else(PoisonError::into_inner);
        let since = defined_at.map_or_else(recently, |at| at.max(recently()));
        if behind.others.known().is_some_and(|known| known.as_of >= since) {
            return Ok(());
        }
        Box::pin(behind.others.look(&behind.steward, since, false)).await
    }

    /// Whether what is known of the store holds for what the session itself has defined. What it has not committed
    /// nobody else sees.
    fn is_known(&self, as_of: Instant) -> bool {
        let flow = self.flow();
        !flow.defines && !flow.defines_unseen && flow.defined_at.is_none_or(|at| as_of >= at)
    }

    /// Whether a text may run code of others when it is parsed.
    pub fn may_run_at_parse(&self, analysis: &Arc<Analysis>) -> bool {
        if self.is_face() {
            return false;
        }
        self.reach(analysis).is_none_or(|reach| {
            let is_known = || self.is_known(reach.as_of) && reach.as_of.elapsed() <= TOO_OLD;
            reach.at_parse || !analysis.symbols.reads_no_types() && !is_known()
        })
    }

    /// What a statement may run of the store's code.
    pub fn may(&self, analysis: &Arc<Analysis>) -> May {
        let own = May { runs: Runs::Own, defines_unseen: false, reads_types: false };
        if self.is_face() {
            return own;
        }
        let Some(reach) = self.reach(analysis) else { return May { runs: Runs::Changes, ..own } };
        // What is defined within a text nobody else sees either.
        let defines_for_itself = analysis.defines_code && analysis.parts.len() > 1;
        let runs = if defines_for_itself || !self.is_known(reach.as_of) {
            Runs::Changes
        } else if reach.as_of.elapsed() > TOO_OLD {
            reach.runs.max(Runs::Reads)
        } else {
            reach.runs
        };
        May { runs, defines_unseen: reach.runs == Runs::Changes, reads_types: reach.has_types }
    }
}
