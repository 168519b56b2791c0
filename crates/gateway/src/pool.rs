//! Connections to stores: how many there may be, who gets the next one, and those that wait.
//!
//! Connections of one key (store, role, start parameters) are alike. A role is one person's at one face, so no pooling
//! ever mixes people. Whoever comes when all are taken queues; the queue is fair (first come, first served, but for a few
//! milliseconds) and has a deadline.

use std::collections::BTreeMap;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::backend::{Backend, Parameters};
use crate::worker;

/// When a session gives its connection to the store back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolMode {
    /// When it ends.
    #[default]
    Session,
    /// After each transaction, unless it left something in the connection that the next one needs.
    Transaction,
}

impl PoolMode {
    /// As in the configuration and in `SHOW POOLS`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
        }
    }
}

/// The limits of a store's pools.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// When connections are given back.
    pub mode: PoolMode,
    /// The most connections under one key.
    pub size: usize,
    /// How long a client may queue for one.
    pub wait: Duration,
    /// How long one may be unused.
    pub idle: Duration,
    /// How long one may live; an older one is closed when it is given back.
    pub lifetime: Duration,
    /// How long to wait for a store that does not answer, before clients are told so.
    pub store_wait: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            mode: PoolMode::Session,
            size: 100,
            wait: Duration::from_secs(60),
            idle: Duration::from_secs(300),
            lifetime: Duration::from_secs(3600),
            store_wait: Duration::ZERO,
        }
    }
}

/// What must be the same for a connection to fit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The store.
    pub store: String,
    /// The role.
    pub role: String,
    /// The start parameters.
    pub parameters: Vec<(String, String)>,
    /// The grants that the role depends on.
    pub grants: Vec<String>,
}

struct Idle {
    backend: Backend,
    since: Instant,
}

struct Queued {
    hand: oneshot::Sender<Handed>,
    since: Instant,
    /// The worker that it waits on.
    home: usize,
}

/// How much later somebody may have come who gets a connection first, because it need not move to another worker.
const NEAR: Duration = Duration::from_millis(5);

/// How long a store needs to notice that a connection was closed.
pub const NOTICED: Duration = Duration::from_millis(25);

struct Handed {
    slot: Slot,
    backend: Option<Backend>,
}

#[derive(Default)]
struct Group {
    idle: Vec<Idle>,
    taken: usize,
    queue: VecDeque<Queued>,
}

impl Group {
    /// Whose turn it is: the first in the queue, or the first on the connection's own worker if it came at about that time.
    fn next(&mut self, home: Option<usize>) -> Option<Queued> {
        let until = self.queue.front()?.since + NEAR;
        let near = self.queue.iter().take_while(|q| q.since <= until).position(|q| Some(q.home) == home);
        self.queue.remove(near.unwrap_or(0))
    }
}

/// All pools of a store together.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorePools {
    /// Connections in use.
    pub taken: usize,
    /// Clients that wait for one.
    pub queued: usize,
    /// Connections that wait for a client.
    pub idle: usize,
    /// How long the first of those who wait has waited.
    pub longest: Duration,
}

/// What `SHOW POOLS` shows of a key.
#[derive(Clone, Debug)]
pub struct GroupState {
    /// The key.
    pub key: Arc<Key>,
    /// Connections in use.
    pub taken: usize,
    /// Connections that wait.
    pub idle: usize,
    /// Clients that queue.
    pub queued: usize,
    /// How long the first of them has.
    pub longest: Duration,
}

/// See the module's text.
#[derive(Default)]
pub struct Pool {
    groups: Mutex<HashMap<Arc<Key>, Group>>,
    /// What a store told after the last login under a key, so that a client can be greeted without a connection.
    greetings: Mutex<HashMap<Arc<Key>, Arc<Parameters>>>,
}

/// The right to one connection. Dropping it without giving a connection back lets the next client in the queue dial.
pub struct Slot {
    pool: Arc<Pool>,
    key: Option<Arc<Key>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let pool = Arc::clone(&self.pool);
            pool.pass_on(&key, None);
        }
    }
}

impl Slot {
    /// Gives the connection back for the next client.
    pub fn give_back(mut self, backend: Backend) {
        if let Some(key) = self.key.take() {
            let pool = Arc::clone(&self.pool);
            pool.pass_on(&key, Some(backend));
        }
    }
}

/// Nobody gave a connection back in time.
#[derive(Debug)]
pub struct Exhausted;

impl Pool {
    fn groups(&self) -> MutexGuard<'_, HashMap<Arc<Key>, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a store reported after a login under the key, within the last minute or so.
    pub fn greeting(&self, key: &Key) -> Option<Arc<Parameters>> {
        self.greetings.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Remembers what a store reported after a login.
    pub fn remember_greeting(&self, key: &Arc<Key>, parameters: &Arc<Parameters>) {
        let mut greetings = self.greetings.lock().unwrap_or_else(PoisonError::into_inner);
        greetings.insert(Arc::clone(key), Arc::clone(parameters));
    }

    /// The right to a connection, and one if one waited. It may have died meanwhile; whoever takes it looks.
    pub async fn take(
        self: &Arc<Self>,
        key: &Arc<Key>,
        settings: &PoolSettings,
    ) -> Result<(Slot, Option<Backend>), Exhausted> {
        let handed = {
            let mut groups = self.groups();
            let group = groups.entry(Arc::clone(key)).or_default();
            if group.queue.is_empty() {
                let here = worker::current();
                let at = group.idle.iter().rposition(|i| i.backend.home == here);
                if let Some(at) = at.or_else(|| group.idle.len().checked_sub(1)) {
                    group.taken += 1;
                    let idle = group.idle.swap_remove(at);
                    return Ok((self.slot(key), Some(idle.backend)));
                }
                if group.taken < settings.size {
                    group.taken += 1;
                    return Ok((self.slot(key), None));
                }
            }
            let (hand, handed) = oneshot::channel();
            group.queue.push_back(Queued { hand, since: Instant::now(), home: worker::current() });
            handed
        };
        match tokio::time::timeout(settings.wait, handed).await {
            Ok(Ok(Handed { slot, backend })) => Ok((slot, backend)),
            _ => Err(Exhausted),
        }
    }

    fn slot(self: &Arc<Self>, key: &Arc<Key>) -> Slot {
        Slot { pool: Arc::clone(self), key: Some(Arc::clone(key)) }
    }

    /// Hands a slot, with its connection or without, to the first in the queue who still waits.
    fn pass_on(self: &Arc<Self>, key: &Arc<Key>, mut backend: Option<Backend>) {
        let mut groups = self.groups();
        let Some(group) = groups.get_mut(key) else { return };
        while let Some(Queued { hand, .. }) = group.next(backend.as_ref().map(|b| b.home)) {
            if let Err(mut refused) = hand.send(Handed { slot: self.slot(key), backend: backend.take() }) {
                refused.slot.key = None; // it was never theirs
                backend = refused.backend;
            } else {
                return;
            }
        }
        group.taken -= 1;
        match backend {
            Some(backend) => group.idle.push(Idle { backend, since: Instant::now() }),
            None if group.idle.is_empty() && group.taken == 0 => drop(groups.remove(key)),
            None => {}
        }
    }

    fn evict_where(&self, chosen: impl Fn(&Key) -> bool) -> bool {
        let mut any = false;
        for (_, group) in self.groups().iter_mut().filter(|(key, _)| chosen(key)) {
            any |= !group.idle.is_empty();
            group.idle.clear();
        }
        any
    }

    /// Closes all waiting connections of a key's role; whether there were any.
    fn evict(&self, key: &Key) -> bool {
        self.evict_where(|other| other.store == key.store && other.role == key.role)
    }

    /// Closes the connection to a store that has waited longest, whatever its role; whether there was one.
    fn evict_oldest(&self, store: &str) -> bool {
        let mut groups = self.groups();
        let waiting = groups.iter().filter(|(key, _)| key.store == store);
        let of_group = |(key, group): (&Arc<Key>, &Group)| {
            group.idle.iter().map(|idle| idle.since).min().map(|since| (since, Arc::clone(key)))
        };
        let Some((since, key)) = waiting.filter_map(of_group).min_by_key(|(since, _)| *since) else {
            return false;
        };
        let Some(group) = groups.get_mut(&key) else { return false };
        let before = group.idle.len();
        group.idle.retain(|idle| idle.since != since);
        group.idle.len() < before
    }

    /// Closes a waiting connection, so that the store has room for one of the key's role: it may have as
    /// many as it takes in all, or as many of the role. Whether there was one.
    pub fn make_room(&self, key: &Key) -> bool {
        self.evict(key) || self.evict_oldest(&key.store)
    }

    /// Runs what takes a connection of its own to a store. Where it gets none, the connection that has
    /// waited longest makes room for it.
    pub async fn with_room<T, F>(
        &self,
        store: &str,
        attempt: impl Fn() -> F,
    ) -> Result<T, ringfence_face::Error>
    where
        F: Future<Output = Result<T, ringfence_face::Error>>,
    {
        use ringfence_face::Error;
        let has_no_room = |error: &Error| match error {
            Error::Unreachable(_) => true,
            Error::Busy { sqlstate, .. } => sqlstate == "53300",
            _ => false,
        };
        match attempt().await {
            Err(error) if has_no_room(&error) && self.evict_oldest(store) => {
                tokio::time::sleep(NOTICED).await;
                attempt().await
            }
            done => done,
        }
    }

    /// Closes the waiting connections of roles that nobody comes back to, because a grant of theirs is over.
    pub fn evict_grant(&self, id: &str) {
        self.evict_where(|key| key.grants.iter().any(|g| g == id));
    }

    /// Closes connections that waited too long, and forgets greetings, which a store's configuration may have changed.
    pub fn sweep(&self, settings: impl Fn(&str) -> PoolSettings) {
        self.greetings.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.groups().retain(|key, group| {
            let settings = settings(&key.store);
            group.idle.retain(|i| i.since.elapsed() < settings.idle && i.backend.age() < settings.lifetime);
            !(group.idle.is_empty() && group.taken == 0 && group.queue.is_empty())
        });
    }

    /// The same, store by store.
    pub fn by_store(&self) -> BTreeMap<String, StorePools> {
        let mut pools: BTreeMap<String, StorePools> = BTreeMap::new();
        for group in self.state() {
            let sums = pools.entry(group.key.store.clone()).or_default();
            sums.taken += group.taken;
            sums.queued += group.queued;
            sums.idle += group.idle;
            sums.longest = sums.longest.max(group.longest);
        }
        pools
    }

    /// What there is.
    pub fn state(&self) -> Vec<GroupState> {
        let groups = self.groups();
        let state = groups.iter().map(|(key, group)| GroupState {
            key: Arc::clone(key),
            taken: group.taken,
            idle: group.idle.len(),
            queued: group.queue.iter().filter(|q| !q.hand.is_closed()).count(),
            longest: group.queue.front().map(|q| q.since.elapsed()).unwrap_or_default(),
        });
        let mut state: Vec<GroupState> = state.collect();
        state.sort_by(|a, b| (&a.key.store, &a.key.role).cmp(&(&b.key.store, &b.key.role)));
        state
    }
}
