//! Connections that wait for the next client of the same role with the same start parameters.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::Backend;

/// How long a connection may wait.
const MAX_IDLE: Duration = Duration::from_secs(300);
/// How many may wait under one key.
const MAX_WAITING: usize = 8;

/// What must be the same for a connection to fit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The store.
    pub store: String,
    /// The role.
    pub role: String,
    /// The start parameters.
    pub parameters: Vec<(String, String)>,
}

struct Waiting {
    backend: Backend,
    since: Instant,
}

/// See the module's text.
#[derive(Default)]
pub struct Pool {
    waiting: Mutex<HashMap<Key, Vec<Waiting>>>,
}

impl Pool {
    /// Takes a connection that fits. It may have died meanwhile; whoever takes it must be ready to connect anew.
    pub fn take(&self, key: &Key) -> Option<Backend> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let list = waiting.get_mut(key)?;
        let fresh = loop {
            match list.pop() {
                Some(one) if one.since.elapsed() < MAX_IDLE => break Some(one.backend),
                Some(_) => {}
                None => break None,
            }
        };
        if list.is_empty() {
            waiting.remove(key);
        }
        fresh
    }

    /// Keeps a connection that was reset.
    pub fn put(&self, key: Key, backend: Backend) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let list = waiting.entry(key).or_default();
        if list.len() < MAX_WAITING {
            list.push(Waiting { backend, since: Instant::now() });
        }
    }

    /// Closes all waiting connections of a key's role; whether there were any.
    pub fn evict(&self, key: &Key) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waiting.len();
        waiting.retain(|other, _| other.store != key.store || other.role != key.role);
        waiting.len() < before
    }

    /// Closes connections that waited too long.
    pub fn sweep(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, list| {
            list.retain(|w| w.since.elapsed() < MAX_IDLE);
            !list.is_empty()
        });
    }
}
