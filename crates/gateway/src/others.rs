//! What of a store runs code that is not PostgreSQL's own, as of a moment ago. Outside a face a statement may
//! run such code without a sign of it in its text: by an operator, a trigger, a function with the name of
//! one of PostgreSQL's.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringfence_face::{Names, Others, Steward};
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
    /// Whether the store has types that run code of others when a value is read.
    pub fn has_types(&self) -> bool {
        self.others.all.has_types()
    }
}

/// What a session has last seen of what is known, with its version: all sessions would wait for one lock.
pub type Seen = Mutex<(u64, Option<Arc<Known>>)>;

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
        let (store, seen) = self.code.as_ref()?;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let version = store.version.load(Ordering::Acquire);
        if seen.0 != version || seen.1.is_none() {
            *seen = (version, store.known());
        }
        seen.1.clone()
    }

    /// Makes sure that what is known of the store's code is not old where the session is metered, and holds for
    /// what the session itself has committed. In the country nobody waits for it: a store whose steward has to
    /// wait must go on.
    pub async fn look_at_code(&self) -> Result<(), ringfence_face::Error> {
        if self.metering.is_none() || self.is_face() {
            return Ok(());
        }
        let Some(behind) = self.shared.stores.get(&self.store.name) else { return Ok(()) };
        let own = self.flow().defined_at;
        let since = own.map_or_else(recently, |own| own.max(recently()));
        if behind.others.known().is_some_and(|known| known.as_of >= since) {
            return Ok(());
        }
        Box::pin(behind.others.look(&behind.steward, since, false)).await
    }

    /// Whether what is known of the store holds for what the session itself has defined. What it has not committed
    /// nobody else sees.
    fn is_known(&self, known: &Known) -> bool {
        let flow = self.flow();
        !flow.defines && !flow.defines_unseen && flow.defined_at.is_none_or(|at| known.as_of >= at)
    }

    /// Whether a text may run code of others when it is parsed.
    pub fn may_run_at_parse(&self, analysis: &Analysis) -> bool {
        if self.is_face() {
            return false;
        }
        let symbols = &analysis.symbols;
        self.code().is_none_or(|known| {
            let is_known = self.is_known(&known) && known.as_of.elapsed() <= TOO_OLD;
            known.others.all.may_run_at_parse(symbols) || !is_known && !symbols.reads_no_types()
        })
    }

    /// Whether a statement runs code, as far as that is known, that may also make other code.
    pub fn may_define_unseen(&self, known: Option<&Known>, analysis: &Analysis) -> bool {
        let changing = known.map(|known| &known.others.changing);
        changing.is_some_and(|changing| {
            changing.may_run(&analysis.symbols) || analysis.runs_sql && changing.has_functions()
        })
    }

    /// What code of others a statement may run.
    pub fn runs(&self, known: Option<&Known>, analysis: &Analysis) -> Runs {
        if self.is_face() {
            return Runs::Own;
        }
        let Some(known) = known else { return Runs::Changes };
        // What is defined within a text nobody else sees either.
        if !self.is_known(known)
            || analysis.defines_code && analysis.parts.len() > 1
            || self.may_define_unseen(Some(known), analysis)
        {
            Runs::Changes
        } else if known.others.all.may_run(&analysis.symbols)
            || analysis.runs_sql && known.others.all.has_functions()
            || known.as_of.elapsed() > TOO_OLD
        {
            Runs::Reads
        } else {
            Runs::Own
        }
    }
}
