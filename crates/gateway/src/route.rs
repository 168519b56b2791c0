//! Routes: names that clients ask for like a store's, which lead to the store where the rows are at home.
//!
//! While rows move, the route's clients are held between two transactions; then they go on at the other store. They see a pause.
//! Where the rows are at home is said by the store that they left (`ringfence_move.home`, written in the same transaction that fences
//! them off there), so a gateway need not be told, and whoever moves them may die at any moment.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringfence_ledger::{Entry, Kind};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;

use crate::config::RouteConfig;
use crate::refusal::{Refusal, code};
use crate::server::Shared;

/// The longest that a client is held.
const LONGEST: Duration = Duration::from_secs(60);
/// Between looks at a store that does not answer.
const RETRY: Duration = Duration::from_millis(100);
/// The most stores that rows have moved through.
const CHAIN: usize = 8;

/// All routes, by name.
pub type Routes = HashMap<String, Arc<Route>>;

/// A route.
pub struct Route {
    /// What clients ask for.
    pub name: String,
    /// Teams that may hold its clients.
    pub movers: BTreeSet<String>,
    /// Where it led first.
    configured: String,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// Where it leads, once that is known.
    store: Option<String>,
    /// How many hold its clients.
    holders: usize,
    /// How many sessions are in the middle of something.
    inside: usize,
    /// What whoever moves its rows said last.
    progress: Option<(Progress, Instant)>,
    /// When pages last heard of that.
    announced: Option<Instant>,
}

/// How far a move is, by whoever moves the rows: for people who look, and for nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The stage, in a word.
    pub stage: String,
    /// Rows that the target has.
    pub rows: Option<u64>,
    /// About how many there are in all.
    pub of: Option<u64>,
    /// Bytes of the target's tables.
    pub bytes: Option<u64>,
    /// Tables that are complete, and all.
    pub tables: Option<(u64, u64)>,
    /// Bytes of WAL that the target has not confirmed.
    pub lag: Option<u64>,
}

impl Progress {
    /// A stage that is on record.
    pub(crate) fn at(stage: &str) -> Self {
        Self { stage: stage.to_owned(), rows: None, of: None, bytes: None, tables: None, lag: None }
    }
}

/// How often open pages hear that a stage goes on.
const ANNOUNCE: Duration = Duration::from_secs(5);
/// The longest word for a stage, in characters.
const MAX_STAGE: usize = 40;

/// What `SHOW ROUTES` tells.
pub struct RouteState {
    /// Where it leads.
    pub store: Option<String>,
    /// Whether its clients are held.
    pub is_held: bool,
    /// How many sessions are in the middle of something.
    pub inside: usize,
    /// What whoever moves its rows said last, and how long ago.
    pub progress: Option<(Progress, Duration)>,
}

/// A session may use its connection to the store; held until it is between two transactions again.
pub struct Pass(Arc<Route>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.inner().inside -= 1;
        self.0.changed.notify_waiters();
    }
}

/// Why a session gets no pass.
pub enum NoPass {
    /// The rows are at home in another store now.
    Moved,
    /// It was held for too long.
    Held(Refusal),
}

/// The routes of a configuration. None leads anywhere before the first [`look`].
pub fn routes(configured: &[RouteConfig]) -> Routes {
    let route = |r: &RouteConfig| Route {
        name: r.name.clone(),
        movers: r.movers.clone(),
        configured: r.store.clone(),
        inner: Mutex::default(),
        changed: Notify::new(),
    };
    configured.iter().map(|r| (r.name.clone(), Arc::new(route(r)))).collect()
}

impl Route {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it leads.
    pub fn store(&self) -> Result<String, Refusal> {
        self.inner().store.clone().ok_or_else(|| {
            Refusal::new(code::CANNOT_CONNECT_NOW, format!("it is not known yet where {} leads", self.name))
                .hint(format!("The gateway asks the store {}; is it up?", self.configured))
        })
    }

    /// How it stands.
    pub fn state(&self) -> RouteState {
        let inner = self.inner();
        let progress = inner.progress.as_ref().map(|(progress, at)| (progress.clone(), at.elapsed()));
        RouteState { store: inner.store.clone(), is_held: inner.holders > 0, inside: inner.inside, progress }
    }

    /// Whoever moves its rows says how far it is. Returns whether pages that are open should hear of it: at a new stage, and now and then.
    pub(crate) fn tell(&self, mut progress: Progress) -> bool {
        progress.stage = progress.stage.chars().take(MAX_STAGE).collect();
        let mut inner = self.inner();
        let is_new = inner.progress.as_ref().is_none_or(|(before, _)| before.stage != progress.stage);
        let is_time = inner.announced.is_none_or(|at| at.elapsed() >= ANNOUNCE);
        if is_new || is_time {
            inner.announced = Some(Instant::now());
        }
        inner.progress = Some((progress, Instant::now()));
        is_new || is_time
    }

    /// Waits while the route's clients are held; then a session at `store` may go on, if the route still leads there.
    pub async fn enter(self: &Arc<Self>, store: &str) -> Result<Pass, NoPass> {
        let until = tokio::time::Instant::now() + LONGEST;
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut inner = self.inner();
                if inner.holders == 0 && inner.store.as_deref() == Some(store) {
                    inner.inside += 1;
                    return Ok(Pass(Arc::clone(self)));
                }
                if inner.holders == 0 && inner.store.is_some() {
                    return Err(NoPass::Moved);
                }
            }
            if tokio::time::timeout_at(until, changed).await.is_err() {
                let held = format!(
                    "the rows behind {} are on their way for more than {} s",
                    self.name,
                    LONGEST.as_secs()
                );
                return Err(NoPass::Held(
                    Refusal::new(code::CANNOT_CONNECT_NOW, held)
                        .hint("Connect again; the statement was not run."),
                ));
            }
        }
    }

    /// Lets the transactions that run end within `within`, and no new ones begin until the hold is over. The error is how many did
    /// not end; then nobody is held.
    pub async fn hold(self: &Arc<Self>, shared: &Arc<Shared>, within: Duration) -> Result<Hold, usize> {
        let hold = Hold {
            route: Arc::clone(self),
            shared: Arc::clone(shared),
            since: Instant::now(),
            is_over: false,
        };
        self.inner().holders += 1;
        let until = tokio::time::Instant::now() + within;
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let inside = self.inner().inside;
            if inside == 0 {
                return Ok(hold);
            }
            if tokio::time::timeout_at(until, changed).await.is_err() {
                hold.release().await;
                return Err(inside);
            }
        }
    }

    fn let_go(&self) {
        self.inner().holders -= 1;
        self.changed.notify_waiters();
    }
}

/// While it is there, the route's clients wait. Whoever held them may be gone: then the gateway looks where the rows are, and lets go.
pub struct Hold {
    route: Arc<Route>,
    shared: Arc<Shared>,
    since: Instant,
    is_over: bool,
}

impl Hold {
    /// Looks where the rows are at home, and lets go. Returns how long it held.
    pub async fn release(mut self) -> Duration {
        self.is_over = true;
        until_known(&self.shared, &self.route).await;
        self.route.let_go();
        self.since.elapsed()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (route, shared) = (Arc::clone(&self.route), Arc::clone(&self.shared));
        tracing::warn!(route = %route.name, "whoever held the clients is gone; looking where the rows are at home");
        tokio::spawn(async move {
            until_known(&shared, &route).await;
            route.let_go();
        });
    }
}

async fn until_known(shared: &Shared, route: &Route) {
    while let Err(error) = look(shared, route).await {
        tracing::warn!(route = %route.name, %error, "its clients wait until a store says where the rows are at home");
        tokio::time::sleep(RETRY).await;
    }
}

/// Asks the stores where the rows are at home, from the first one on; what was decided last counts. A change goes on record.
pub async fn look(shared: &Shared, route: &Route) -> Result<(), ringfence_face::Error> {
    let (mut store, mut epoch) = (route.configured.clone(), 0);
    for _ in 0..CHAIN {
        let Some(behind) = shared.stores.get(&store) else { break };
        match behind.steward.home(&route.name).await? {
            Some((next, later)) if later > epoch && shared.stores.contains_key(&next) => {
                (store, epoch) = (next, later);
            }
            _ => break,
        }
    }
    let before = route.inner().store.replace(store.clone());
    if before.as_deref() != Some(store.as_str()) {
        tracing::info!(route = %route.name, %store, "leads there now");
        let policy = shared.policy();
        let jurisdiction = policy.store(&store).map_or("-", |(s, _)| s.jurisdiction.as_str());
        let record = json!({ "route": route.name, "store": store, "before": before, "epoch": epoch });
        shared.ledger.record(Entry::new(Kind::Routed, jurisdiction, &record));
        route.changed.notify_waiters();
    }
    Ok(())
}

/// The same for all routes that nobody holds; one that cannot be asked stays as it is.
pub async fn look_all(shared: &Shared) {
    for route in shared.routes.values() {
        if route.inner().holders > 0 {
            continue;
        }
        if let Err(error) = look(shared, route).await {
            tracing::warn!(route = %route.name, %error, "the route stays as it is until the store answers");
        }
    }
}
