//! Cancel requests. A client gets a key of the gateway's own making; a request that carries it hits the statement that the
//! same session runs at that moment, or nothing. While a cancel request is on its way to the store, the connection is not
//! given to anybody else.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rand_core::{OsRng, RngCore};

use crate::backend::Address;
use crate::flow::Flow;
use crate::startup::CancelKey;

/// A connection to a store, for cancel requests.
pub struct Running {
    /// Where the store listens.
    pub address: Address,
    /// The process.
    pub process: i32,
    /// Its secret.
    pub secret: Vec<u8>,
}

/// What a key stands for: a session and the connection that it has now, if any.
pub struct Target {
    flow: Arc<Mutex<Flow>>,
    /// Held while a request is on its way.
    running: tokio::sync::Mutex<Option<Arc<Running>>>,
}

impl Target {
    /// A session's target; without a connection it hits nothing.
    pub fn new(flow: Arc<Mutex<Flow>>) -> Arc<Self> {
        Arc::new(Self { flow, running: tokio::sync::Mutex::new(None) })
    }

    /// Cancels the statement under way, if there is one.
    pub async fn cancel(&self) {
        let running = self.running.lock().await;
        let busy = !self.flow.lock().unwrap_or_else(PoisonError::into_inner).awaited.is_empty();
        if let Some(Running { address, process, secret }) = running.as_deref()
            && busy
            && let Err(error) = address.cancel(*process, secret).await
        {
            tracing::warn!(%error, "a cancel request did not reach the store");
        }
    }

    /// The session has taken a connection.
    pub async fn attach(&self, running: Arc<Running>) {
        *self.running.lock().await = Some(running);
    }

    /// Waits for a request on its way and lets no further one through to the connection.
    pub async fn detach(&self) {
        *self.running.lock().await = None;
    }
}

/// All keys that are out.
#[derive(Default)]
pub struct Cancels {
    targets: Mutex<HashMap<CancelKey, Weak<Target>>>,
}

impl Cancels {
    /// Makes a key that is not taken. `process` is that of the store where the session keeps its connection, so that it is
    /// what `pg_backend_pid()` and notifications say; two stores may have the same.
    pub fn register(&self, target: &Arc<Target>, process: Option<i32>) -> CancelKey {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut secret = [0; 4];
            OsRng.fill_bytes(&mut secret);
            let process = process.unwrap_or_else(|| i32::try_from(OsRng.next_u32() >> 1).unwrap_or(1));
            let key = CancelKey { process, secret };
            if let Entry::Vacant(place) = targets.entry(key) {
                place.insert(Arc::downgrade(target));
                return key;
            }
        }
    }

    /// Forgets a key.
    pub fn forget(&self, key: &CancelKey) {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Finds what a key stands for.
    pub fn find(&self, key: &CancelKey) -> Option<Arc<Target>> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.get(key)?.upgrade()
    }
}
