//! How much one address and one person may ask for. The console shares a machine with the gateway, and a provider's patience: whoever asks
//! for more is told to wait, before anything is done for them.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::DefaultClock;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use ringfence_gateway::peers::Peer;
use tokio::time::timeout;

use crate::Desk;
use crate::api::Problem;
use crate::pages::{MAX_FORM, Told};

/// How long somebody may take to send a form.
const BODY: Duration = Duration::from_secs(10);
/// How long an answer may take to begin.
const ANSWER: Duration = Duration::from_secs(30);
/// How many pages of one person follow what happens at once.
const FOLLOWERS: u32 = 16;
/// The most connections from one address at once, of the 1,024 that there are.
const CONNECTIONS: u32 = 256;
/// After how many questions what is long quiet is forgotten.
const FORGET_AFTER: u32 = 1024;

/// So many a second, and so many at once.
struct Rate<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock>,
    asked: AtomicU32,
}

impl<K: Hash + Eq + Clone> Rate<K> {
    fn new(a_second: u32, at_once: u32) -> Self {
        let most = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(most(a_second)).allow_burst(most(at_once));
        Self { limiter: RateLimiter::keyed(quota), asked: AtomicU32::new(0) }
    }

    fn allows(&self, key: &K) -> bool {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_AFTER) {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(key).is_ok()
    }
}

/// Things that somebody has several of at once.
struct Held<K>(Mutex<HashMap<K, u32>>);

impl<K: Hash + Eq + Clone> Held<K> {
    fn take(self: &Arc<Self>, key: K, most: u32) -> Option<Holding<K>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(key.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Holding { key, of: Arc::clone(self) })
    }
}

/// One of them, until it is dropped.
pub(crate) struct Holding<K: Hash + Eq> {
    key: K,
    of: Arc<Held<K>>,
}

impl<K: Hash + Eq> Drop for Holding<K> {
    fn drop(&mut self) {
        let mut held = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.key);
            }
        }
    }
}

/// See the module's text.
pub struct Limits {
    /// Behind a proxy every address is the proxy's, and it is its task to tell them apart.
    by_address: bool,
    requests: Rate<Peer>,
    strangers: Rate<Peer>,
    changes: Rate<String>,
    connections: Arc<Held<Peer>>,
    followers: Arc<Held<String>>,
}

impl Limits {
    /// `by_address`: whether connections come from people, not from a proxy.
    pub fn new(by_address: bool) -> Self {
        Self {
            by_address,
            requests: Rate::new(500, 2000),
            strangers: Rate::new(10, 100),
            changes: Rate::new(20, 200),
            connections: Arc::new(Held(Mutex::default())),
            followers: Arc::new(Held(Mutex::default())),
        }
    }

    /// A place for a connection; `None` where this address has enough.
    pub(crate) fn connection(&self, peer: Peer) -> Option<Holding<Peer>> {
        self.connections.take(peer, if self.by_address { CONNECTIONS } else { u32::MAX })
    }

    /// Whether somebody who has not shown who they are may have something done: the provider asked, a token judged.
    pub(crate) fn stranger(&self, peer: Option<Peer>) -> Result<(), Told> {
        let is_allowed = peer.is_none_or(|peer| !self.by_address || self.strangers.allows(&peer));
        if is_allowed { Ok(()) } else { Err(too_many()) }
    }

    /// Whether a person may change something now.
    pub(crate) fn change(&self, person: &str) -> Result<(), Told> {
        if self.changes.allows(&person.to_owned()) { Ok(()) } else { Err(too_many()) }
    }

    /// A place for a page that follows what happens.
    pub(crate) fn follower(&self, person: &str) -> Result<Holding<String>, Told> {
        self.followers.take(person.to_owned(), FOLLOWERS).ok_or_else(too_many)
    }
}

fn too_many() -> Told {
    Told::new(
        StatusCode::TOO_MANY_REQUESTS,
        "That was too much at once. Nothing was done: try again in some seconds.",
    )
}

/// A page, or a problem where a program asks.
fn tell(is_api: bool, told: Told) -> Response {
    let is_wait = told.status() == StatusCode::TOO_MANY_REQUESTS;
    let mut response = if is_api { Problem::from(told).into_response() } else { told.into_response() };
    if is_wait {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
    }
    response
}

/// Around every handler: what an address may ask for, how long a form may take to come, and an answer to begin.
pub(crate) async fn guard(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let peer = request.extensions().get::<Peer>().copied();
    if desk.limits.by_address && peer.is_some_and(|peer| !desk.limits.requests.allows(&peer)) {
        return tell(is_api, too_many());
    }
    let (parts, body) = request.into_parts();
    let said = |status, what: &str| tell(is_api, Told::new(status, what));
    let body = match timeout(BODY, to_bytes(body, MAX_FORM)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return said(StatusCode::PAYLOAD_TOO_LARGE, "That is more than a form here has."),
        Err(_) => {
            return said(StatusCode::REQUEST_TIMEOUT, "The form took too long to come. Nothing was changed.");
        }
    };
    let answer = next.run(Request::from_parts(parts, Body::from(body)));
    timeout(ANSWER, answer).await.unwrap_or_else(|_| {
        said(
            StatusCode::SERVICE_UNAVAILABLE,
            "The answer takes too long: the gateway, or its control database, is busy or away.",
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn one_asks_too_much_and_another_does_not_wait_for_it() {
        let limits = Limits::new(true);
        let peer = |text: &str| Peer::new(text.parse().unwrap());
        let greedy = Some(peer("192.0.2.1"));
        let asked = (0..1000).filter(|_| limits.stranger(greedy).is_ok()).count();
        assert!((100..300).contains(&asked), "{asked}");
        assert!(limits.stranger(Some(peer("192.0.2.2"))).is_ok());
        assert!(
            limits.stranger(Some(peer("::ffff:192.0.2.1"))).is_err(),
            "the same address, written otherwise"
        );
        let changed = (0..1000).filter(|_| limits.change("ann").is_ok()).count();
        assert!((200..400).contains(&changed), "{changed}");
        assert!(limits.change("bob").is_ok());
        // Behind a proxy all come from one address.
        let behind = Limits::new(false);
        assert!((0..1000).all(|_| behind.stranger(greedy).is_ok()));
    }

    #[test]
    fn places_are_given_back() {
        let limits = Limits::new(true);
        let peer = Peer::new("192.0.2.1".parse().unwrap());
        let mut held: Vec<_> = (0..CONNECTIONS).map(|_| limits.connection(peer).unwrap()).collect();
        assert!(limits.connection(peer).is_none());
        held.pop();
        assert!(limits.connection(peer).is_some());
        drop(held);
        assert!(limits.connections.0.lock().unwrap().is_empty());
    }
}
