//! What connections may cost before they have proven a name: places, guesses at passwords and at
//! cancel keys, and room in the ledger.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringfence_ledger::{Entry, Kind, Ledger};
use tokio::sync::oneshot;

use crate::peers::Peer;
use crate::records::RefusedRecord;
use crate::refusal::{Refusal, code};
use crate::throttle::{Attempt, Throttle};

/// The most connections that have not logged in, where fewer clients may be there.
const MOST_PLACES: usize = 512;
/// One address has one of so many parts of the places.
const PARTS: usize = 4;
/// How often who waits looks whether that is still needed.
const SLICE: Duration = Duration::from_millis(200);
/// So long a connection that has said something keeps its place.
const FRESH: Duration = Duration::from_secs(1);
/// So long after file descriptors have run short there are no more places than were in use then.
/// Each time that this ends, one more connection has a place, so it is not much shorter than the
/// time for a login.
const SHORT: Duration = Duration::from_secs(5);
/// The fewest places while file descriptors are short.
const FEWEST_PLACES: usize = 16;
/// How many kinds of refusals have records of their own in a minute. Of further kinds, records
/// leave out the address, and keep name, store and reason.
const MOST_KINDS: usize = 100;
/// A guess that would have to wait so long is refused: the client would give up before.
pub(crate) const MOST_PATIENT: Duration = Duration::from_secs(10);
/// What stands for a name that strangers made up.
pub(crate) const UNKNOWN: &str = "(unknown)";

/// Where a connection that has not logged in comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The Unix socket.
    Unix,
    /// A balancer that has not said yet whom it brings.
    Balancer(Peer),
    /// An address.
    Network(Peer),
}

impl Origin {
    fn peer(self) -> Option<Peer> {
        match self {
            Self::Unix => None,
            Self::Balancer(peer) | Self::Network(peer) => Some(peer),
        }
    }
}

/// See the module's text.
pub struct Strangers {
    places: Mutex<Places>,
    /// Guesses at one name from one address.
    by_pair: Throttle<(u64, Option<Peer>)>,
    /// Guesses at one name from anywhere.
    by_name: Throttle<u64>,
    /// Guesses from one address.
    by_peer: Throttle<Option<Peer>>,
    /// Cancel requests that hit nothing.
    cancels: Throttle<Option<Peer>>,
    /// Names that strangers say are kept as numbers only.
    hasher: RandomState,
    refused: Mutex<HashMap<Refused, u64>>,
    /// Connections that were closed because there was no room.
    closed: AtomicU64,
    /// Connections of balancers that came without a header.
    headless: AtomicU64,
}

impl Strangers {
    /// Beside `max_clients` that have logged in.
    pub fn new(max_clients: usize) -> Self {
        let ms = Duration::from_millis;
        let most = max_clients.max(MOST_PLACES);
        Self {
            places: Mutex::new(Places { most, short: None, next: 0, count: 0, of: HashMap::new() }),
            by_pair: Throttle::new(ms(1000), 5, 2 * MOST_PATIENT),
            by_name: Throttle::new(ms(20), 50, ms(1000)),
            by_peer: Throttle::new(ms(100), 50, ms(5000)),
            cancels: Throttle::new(ms(1000), 20, ms(1000)),
            hasher: RandomState::new(),
            refused: Mutex::default(),
            closed: AtomicU64::new(0),
            headless: AtomicU64::new(0),
        }
    }
}

/// A connection in its place.
struct Waiting {
    /// Dropped to end it.
    _ends: oneshot::Sender<()>,
    since: Instant,
    /// A whole message has come from it.
    has_spoken: bool,
}

/// Whether there is room for a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Free,
    /// Another connection was closed for it.
    Taken,
    None,
}

struct Places {
    most: usize,
    /// File descriptors have run short: until when there are how many places at most.
    short: Option<(Instant, usize)>,
    next: u64,
    count: usize,
    /// By where they come from, the oldest first.
    of: HashMap<Origin, BTreeMap<u64, Waiting>>,
}

impl Places {
    /// Makes room for one more. Where there is none, it takes a place away from the addresses that
    /// have most.
    fn make_room(&mut self, origin: Origin) -> Room {
        let own = self.of.get(&origin).map_or(0, BTreeMap::len);
        let is_one = matches!(origin, Origin::Network(_));
        let gives = if is_one && own >= self.most / PARTS {
            self.of.get(&origin).and_then(|places| giving(std::iter::once((&origin, places))))
        } else if self.count >= self.limit() {
            self.giving()
        } else {
            return Room::Free;
        };
        if self.close(gives) { Room::Taken } else { Room::None }
    }

    fn limit(&self) -> usize {
        let short = self.short.filter(|(until, _)| Instant::now() < *until);
        short.map_or(self.most, |(_, most)| most.min(self.most))
    }

    /// Which connection gives way: one of the addresses that have most, or more than half as many;
    /// where all of those have just spoken, any.
    fn giving(&self) -> Option<(Origin, u64)> {
        let most = self.of.values().map(BTreeMap::len).max()?;
        giving(self.of.iter().filter(|(_, places)| places.len() > most / 2))
            .or_else(|| giving(self.of.iter()))
    }

    /// Closes the connection that gives way, if one does.
    fn close(&mut self, gives: Option<(Origin, u64)>) -> bool {
        gives.and_then(|(origin, number)| self.remove(origin, number)).is_some()
    }

    fn remove(&mut self, origin: Origin, number: u64) -> Option<Waiting> {
        let places = self.of.get_mut(&origin)?;
        let waiting = places.remove(&number);
        self.count -= usize::from(waiting.is_some());
        if places.is_empty() {
            self.of.remove(&origin);
        }
        waiting
    }

    fn insert(&mut self, origin: Origin, number: u64, waiting: Waiting) {
        self.count += 1;
        self.of.entry(origin).or_default().insert(number, waiting);
    }
}

/// Of some places the one that gives way: the oldest silent one, or else the oldest of those that
/// have had their time.
fn giving<'a>(of: impl Iterator<Item = (&'a Origin, &'a BTreeMap<u64, Waiting>)>) -> Option<(Origin, u64)> {
    let all = of.filter_map(|(origin, places)| {
        let silent = places.iter().find(|(_, waiting)| !waiting.has_spoken);
        let old = || places.iter().next().filter(|(_, waiting)| waiting.since.elapsed() >= FRESH);
        let (number, waiting) = silent.or_else(old)?;
        Some((waiting.has_spoken, *number, *origin))
    });
    all.min_by_key(|(has_spoken, number, _)| (*has_spoken, *number))
        .map(|(_, number, origin)| (origin, number))
}

/// The place of a connection that has not logged in.
pub struct Place {
    of: Arc<Strangers>,
    origin: Origin,
    number: u64,
}

impl Place {
    /// Where its connection comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// A whole message has come.
    pub fn has_spoken(&self) {
        let mut places = self.of.places.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = places.of.get_mut(&self.origin).and_then(|of| of.get_mut(&self.number));
        if let Some(waiting) = waiting {
            waiting.has_spoken = true;
        }
    }

    /// A balancer has said whom it brings. False if there is no room for them.
    #[must_use]
    pub fn is_from(&mut self, origin: Origin) -> bool {
        let mut places = self.of.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = places.remove(self.origin, self.number) else { return false };
        let has_room = self.of.has_room(&mut places, origin);
        if has_room {
            places.insert(origin, self.number, waiting);
            self.origin = origin;
        }
        has_room
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.of.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.remove(self.origin, self.number);
    }
}

/// A guess at a password that has begun. One that is dropped was not made.
pub struct Guess<'a> {
    of: &'a Strangers,
    is_over: bool,
    name: u64,
    peer: Option<Peer>,
    pair: Attempt,
    by_name: Attempt,
    by_peer: Attempt,
}

impl Guess<'_> {
    /// Waits for so long, or until somebody has shown the right password for this name at this
    /// address.
    pub async fn wait(&self, wait: Duration) {
        let until = tokio::time::Instant::now() + wait;
        let is_of_pair = !self.pair.wait.is_zero();
        while tokio::time::Instant::now() < until {
            if is_of_pair && !self.of.by_pair.is_slow(&(self.name, self.peer)) {
                break;
            }
            let slice = tokio::time::Instant::now() + SLICE;
            tokio::time::sleep_until(slice.min(until)).await;
        }
    }

    /// The password was wrong: what the guess has paid is gone.
    pub fn was_wrong(mut self) {
        self.is_over = true;
    }

    /// It was right: whoever has it need not wait for the wrong ones of others at the same address.
    pub fn was_right(self) {
        self.of.by_pair.forgive(&(self.name, self.peer));
    }
}

impl Drop for Guess<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.of.by_pair.not_failed(&(self.name, self.peer), self.pair);
            self.of.by_name.not_failed(&self.name, self.by_name);
            self.of.by_peer.not_failed(&self.peer, self.by_peer);
        }
    }
}

/// A refusal that is like others.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Refused {
    peer: Option<Peer>,
    principal: String,
    store: String,
    reason: &'static str,
}

impl Strangers {
    /// A place for a connection, if there is room. What comes with the place says when it is lost:
    /// where there is no room, silence gives way.
    pub fn place(self: &Arc<Self>, origin: Origin) -> Option<(Place, oneshot::Receiver<()>)> {
        let (ends, ended) = oneshot::channel();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_room(&mut places, origin) {
            return None;
        }
        places.next += 1;
        let number = places.next;
        places.insert(origin, number, Waiting { _ends: ends, since: Instant::now(), has_spoken: false });
        Some((Place { of: Arc::clone(self), origin, number }, ended))
    }

    /// Makes room for one more, and counts the connection that is closed: an older one, or this one.
    fn has_room(&self, places: &mut Places, origin: Origin) -> bool {
        let room = places.make_room(origin);
        self.closed.fetch_add(u64::from(room != Room::Free), Ordering::Relaxed);
        room != Room::None
    }

    /// A balancer's connection came without a PROXY header.
    pub fn has_no_header(&self) {
        self.headless.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes a connection for one that came when too few file descriptors were left. False if none
    /// gives way.
    pub fn give_way(&self) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        // The new connection has a high descriptor already, and the one that is closed leaves a low
        // one to the next: without a limit every second connection would add one.
        let most = places.count.min(places.limit()).max(FEWEST_PLACES);
        places.short = Some((Instant::now() + SHORT, most));
        let gives = places.giving();
        self.closed.fetch_add(1, Ordering::Relaxed);
        places.close(gives)
    }

    /// How many connections have not logged in.
    pub fn count(&self) -> usize {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Begins a guess at a password and says how long it waits.
    pub fn guess(&self, user: &str, origin: Origin) -> (Guess<'_>, Duration) {
        let (name, peer) = (self.hasher.hash_one(user), origin.peer());
        let pair = self.by_pair.begin(&(name, peer));
        let by_name = self.by_name.begin(&name);
        let by_peer = self.by_peer.begin(&peer);
        let wait = pair.wait.max(by_name.wait).max(by_peer.wait);
        (Guess { of: self, is_over: false, name, peer, pair, by_name, by_peer }, wait)
    }

    /// Whether a cancel request is looked at: too many of one address that hit nothing are guesses.
    pub fn may_cancel(&self, origin: Origin) -> Option<Attempt> {
        let attempt = self.cancels.begin(&origin.peer());
        if attempt.wait.is_zero() {
            return Some(attempt);
        }
        self.cancels.not_failed(&origin.peer(), attempt);
        None
    }

    /// A cancel request that was looked at hit something.
    pub fn cancel_hit(&self, origin: Origin, attempt: Attempt) {
        self.cancels.not_failed(&origin.peer(), attempt);
    }

    /// Puts on record that a login was refused. The first of a kind in a minute is an entry of its
    /// own; those that are like it are summed up.
    pub fn refused(
        &self,
        ledger: &Ledger,
        origin: Origin,
        (principal, store): (&str, &str),
        jurisdiction: &str,
        reason: &'static str,
    ) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kind =
            Refused { peer: origin.peer(), principal: principal.to_owned(), store: store.to_owned(), reason };
        // Names of the registry and stores stay: noise does not hide at whose name somebody
        // guesses.
        if refused.len() >= MOST_KINDS && !refused.contains_key(&kind) {
            kind.peer = None;
        }
        if let Some(more) = refused.get_mut(&kind) {
            *more += 1;
        } else {
            record(ledger, jurisdiction, &kind, 1);
            refused.insert(kind, 0);
        }
    }

    /// Once a minute: what was summed up goes on record.
    pub fn flush(&self, ledger: &Ledger, jurisdiction_of: impl Fn(&str) -> String) {
        let refused = std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner));
        for (kind, more) in refused.into_iter().filter(|(_, more)| *more > 0) {
            record(ledger, &jurisdiction_of(&kind.store), &kind, more);
        }
        let closed = self.closed.swap(0, Ordering::Relaxed);
        if closed > 0 {
            tracing::warn!(closed, "connections that had not logged in were closed: there were too many");
        }
        let headless = self.headless.swap(0, Ordering::Relaxed);
        if headless > 0 {
            let problem = "balancers of gateway.proxies sent no version 2 of the PROXY protocol";
            tracing::warn!(connections = headless, "{problem}: switch it on there");
        }
    }
}

fn record(ledger: &Ledger, jurisdiction: &str, kind: &Refused, times: u64) {
    let address = kind.peer.map(|peer| peer.to_string());
    let record = RefusedRecord {
        session: None,
        principal: &kind.principal,
        store: &kind.store,
        reason: kind.reason,
        statement: None,
        digest: None,
        address: address.as_deref(),
        times,
    };
    ledger.record(Entry::new(Kind::Refused, jurisdiction, &record));
}

/// What a client hears whose guess would have to wait too long.
pub fn too_many_guesses(wait: Duration) -> Refusal {
    let seconds = wait.as_secs().max(1);
    Refusal::new(code::LIMIT_EXCEEDED, "too many wrong passwords for this name came from this address")
        .hint(format!("Wait {seconds} seconds and connect again; other addresses do not wait."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    fn from(last: usize) -> Origin {
        Origin::Network(Peer::new(format!("192.0.2.{last}").parse().unwrap()))
    }

    type Held = Vec<(Place, oneshot::Receiver<()>)>;

    fn lost(of: &mut Held) -> usize {
        let is_lost = |(_, ended): &mut (_, oneshot::Receiver<()>)| {
            ended.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        };
        of.iter_mut().map(is_lost).filter(|lost| *lost).count()
    }

    #[test]
    fn silence_gives_way_where_there_is_most_of_it() {
        let strangers = Arc::new(Strangers::new(10));
        let mut greedy: Held = (0..=128).filter_map(|_| strangers.place(from(1))).collect();
        assert_eq!((greedy.len(), strangers.count(), lost(&mut greedy)), (129, 128, 1));
        // Many addresses: the one that has most gives.
        let mut many: Held =
            (2..250).flat_map(|n| [strangers.place(from(n)), strangers.place(from(n))]).flatten().collect();
        assert_eq!(strangers.count(), 512);
        assert_eq!((lost(&mut many), lost(&mut greedy)), (0, 1 + 128 + many.len() - 512));
        drop((many, greedy));
        assert_eq!(strangers.count(), 0);
        assert!(strangers.places.lock().unwrap().of.is_empty());
    }

    #[test]
    fn who_has_spoken_keeps_the_place_for_a_moment() {
        let strangers = Arc::new(Strangers::new(10));
        let mut honest: Held = (0..128).filter_map(|_| strangers.place(from(1))).collect();
        for (place, _) in &honest {
            place.has_spoken();
        }
        assert!(strangers.place(from(1)).is_none(), "one more waits until there is room");
        assert_eq!(lost(&mut honest), 0);
        std::thread::sleep(FRESH);
        assert!(strangers.place(from(1)).is_some());
        assert_eq!(lost(&mut honest), 1);
        // Of many addresses with one connection each the oldest gives way, whatever its address.
        drop(honest);
        let six = |n: u128| Origin::Network(Peer::new(std::net::Ipv6Addr::from(n << 64).into()));
        let mut all: Held = (0..513).filter_map(|n| strangers.place(six(n))).collect();
        assert_eq!(strangers.count(), 512);
        all.truncate(1);
        assert_eq!(lost(&mut all), 1);
    }

    #[test]
    fn silence_leaves_descriptors_free() {
        let strangers = Arc::new(Strangers::new(10));
        let mut open: Vec<(usize, (Place, oneshot::Receiver<()>))> = Vec::new();
        let mut highest = 0;
        for _ in 0..2000 {
            // The kernel gives the lowest number that is free.
            let number = (0..1000).find(|n| open.iter().all(|(used, _)| used != n)).unwrap();
            highest = highest.max(number);
            if number < 40 || strangers.give_way() {
                open.extend(strangers.place(from(number % 7)).map(|place| (number, place)));
            }
            let closed = oneshot::error::TryRecvError::Closed;
            open.retain_mut(|(_, (_, ended))| ended.try_recv() != Err(closed.clone()));
        }
        assert!((40..42).contains(&highest), "{highest}");
    }

    #[test]
    fn a_balancer_is_not_one_address() {
        let strangers = Arc::new(Strangers::new(10));
        let balancer = Origin::Balancer(Peer::new("10.0.0.1".parse().unwrap()));
        let mut places: Held = (0..138).filter_map(|_| strangers.place(balancer)).collect();
        assert_eq!(strangers.count(), 138);
        for (n, (place, _)) in places.iter_mut().enumerate() {
            assert!(place.is_from(from(n % 200)));
        }
        assert_eq!(strangers.count(), 138);
        assert_eq!(places[0].0.origin(), from(0));
    }

    #[test]
    fn guesses_are_slowed_and_others_are_not() {
        let strangers = Strangers::new(10);
        let guess = |user: &str, from| {
            let (guess, wait) = strangers.guess(user, from);
            guess.was_wrong();
            wait
        };
        assert!((0..5).all(|_| guess("ann", from(1)).is_zero()));
        let waits: Vec<u128> = (0..4).map(|_| guess("ann", from(1)).as_millis()).collect();
        assert!(waits[3] > 2000, "{waits:?}");
        for _ in 0..100 {
            // Begun, and given up.
            drop(strangers.guess("ann", from(1)));
        }
        let (guess, wait) = strangers.guess("ann", from(1));
        assert!(wait < Duration::from_secs(6), "{wait:?}");
        guess.was_right();
        assert!(strangers.guess("ann", from(1)).1.is_zero(), "it is forgiven");
        assert!(strangers.guess("ann", from(2)).1.is_zero(), "the same name from elsewhere");
        assert!(strangers.guess("bob", from(1)).1.is_zero(), "another name from there");
    }

    #[test]
    fn cancel_keys_cannot_be_guessed_on_and_on() {
        let strangers = Strangers::new(10);
        let tried = (0..1000).filter_map(|_| strangers.may_cancel(from(3)));
        let tried = tried.map(|attempt| strangers.cancel_hit(from(3), attempt)).count();
        assert_eq!(tried, 1000, "those that hit cost nothing");
        let tried = (0..1000).filter_map(|_| strangers.may_cancel(from(1))).count();
        assert!((20..30).contains(&tried), "{tried}");
        assert!(strangers.may_cancel(from(2)).is_some());
    }
}
