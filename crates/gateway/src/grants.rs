//! Grants in force, and the sessions that depend on them.
//!
//! The control database says which requests are granted; what counts are the signatures, which are verified here, on
//! loading. A grant ends by its clock, by a revocation, by its row limit or because its signatures no longer suffice;
//! then its sessions are cut at once, and whoever ended it hears how many.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringfence_control::{Control, Sketch, State, Stored};
use ringfence_grants::Request;
use ringfence_policy::{Device, Policy};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::certificate::Shown;
use crate::facts::Facts;
use crate::refusal::{Refusal, code};

/// Why a session is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A grant that it depends on ended.
    GrantEnded {
        /// The grant.
        id: String,
        /// As in "was revoked by us-approver-1".
        how: String,
    },
    /// The rules changed.
    PolicyChanged,
    /// No witness has confirmed the ledger for longer than policy allows, or none has yet.
    Unwitnessed {
        /// How long.
        age: Option<Duration>,
    },
    /// A regulator has suspended access across the border.
    Suspended {
        /// To whose data.
        jurisdiction: String,
        /// The order.
        id: String,
        /// Who gave it.
        by: String,
        /// Why.
        reason: String,
    },
    /// The rows moved to another store, and this session's face is of the one before.
    Moved,
    /// The identity provider has signed the person out.
    SignedOut,
    /// The identity provider has deactivated the person.
    Deactivated,
    /// The certificate that they came with is not believed any more.
    Certificate,
    /// Whether the provider has signed the person out cannot be told: the control database has not answered for too long.
    Unjudged,
    /// Somebody cut this one session.
    ByHand {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The gateway stops; a session that is in the middle of something may finish first.
    Drain,
    /// The gateway stops now.
    Stop,
}

impl Cut {
    /// What the client is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::GrantEnded { id, how } => Refusal::new(code::ADMIN_SHUTDOWN, format!("Grant {id} {how}; this session depended on it and is cut"))
                .hint("Connect again to see what you see without it; ask anew with `ringfence request` if the need goes on."),
            Self::Unwitnessed { .. } => Refusal::new(code::CANNOT_CONNECT_NOW, format!("Cross-border access is closed: {}", self.reason()))
                .detail("Reads across the border are possible only while third parties confirm that the ledger of them is not rewritten.")
                .hint("Try again in a minute. The operator sees each witness with SHOW WITNESSES."),
            Self::Suspended { jurisdiction, id, by, reason } => Refusal::new(code::CANNOT_CONNECT_NOW, format!("Cross-border access to data of {jurisdiction} is suspended by {by}: {reason}"))
                .detail(format!("The order {id} is signed, and in the ledger. Access inside the country goes on."))
                .hint("Only a signed order that lifts it opens it again."),
            Self::SignedOut => Refusal::new(code::ADMIN_SHUTDOWN, "You are signed out at your identity provider, and with that here")
                .hint("Log in again: ringfence login"),
            Self::Unjudged => Refusal::new(code::CANNOT_CONNECT_NOW, "Whether your identity provider has signed you out cannot be told at the moment")
                .hint("The control database does not answer. What `ringfence login` gave counts again when it does."),
            Self::Certificate => Refusal::new(
                code::INVALID_AUTHORIZATION,
                "The certificate that you came with is not believed any more",
            )
            .hint("It was revoked, has ended, or its authority is not asked any more: connect with another one."),
            Self::Deactivated => Refusal::new(code::INVALID_AUTHORIZATION, "Your identity provider has deactivated you")
                .hint("Ask whoever keeps your organisation's accounts."),
            Self::ByHand { by, reason } => Refusal::new(code::ADMIN_SHUTDOWN, format!("This session was cut by {by}: {reason}"))
                .hint("Ask them before you connect again."),
            Self::Moved => Refusal::new(code::ADMIN_SHUTDOWN, "The rows moved to another store; connect again"),
            Self::PolicyChanged => Refusal::new(code::ADMIN_SHUTDOWN, "The rules for this store changed; connect again"),
            Self::Drain | Self::Stop => Refusal::new(code::ADMIN_SHUTDOWN, "The gateway is stopping; connect again"),
        }
    }

    /// A word for the ledger.
    pub fn reason(&self) -> String {
        match self {
            Self::GrantEnded { id, how } => format!("grant {id} {how}"),
            Self::Unwitnessed { age: Some(age) } => {
                format!("the witnesses confirmed the ledger {} s ago, which is too long", age.as_secs())
            }
            Self::Unwitnessed { age: None } => {
                "no quorum of witnesses has confirmed the ledger yet".to_owned()
            }
            Self::Suspended { jurisdiction, id, by, .. } => {
                format!("{by} suspended cross-border access to data of {jurisdiction} (order {id})")
            }
            Self::SignedOut => "the identity provider signed them out".to_owned(),
            Self::Certificate => "their certificate is not believed any more".to_owned(),
            Self::Deactivated => "the identity provider deactivated them".to_owned(),
            Self::Unjudged => "the control database does not say who is signed out".to_owned(),
            Self::ByHand { by, reason } => format!("{by} cut it: {reason}"),
            Self::Moved => "the rows moved to another store".to_owned(),
            Self::PolicyChanged => "the rules changed".to_owned(),
            Self::Drain | Self::Stop => "the gateway stopped".to_owned(),
        }
    }
}

/// A grant whose signatures hold.
#[derive(Debug)]
pub struct ActiveGrant {
    /// What was signed.
    pub request: Arc<Request>,
    /// When it ends, in milliseconds since 1970.
    pub expires: u64,
    /// The same on a clock that nobody sets.
    pub deadline: Instant,
    /// Rows that sessions of this process have leased and not charged.
    leased: AtomicU64,
    /// How many times rows are on their way back to the control database.
    returning: watch::Sender<usize>,
}

/// Leased rows on their way back. They are leased until this is dropped.
#[derive(Debug)]
pub struct Returning {
    /// Whose limit they are of.
    pub grant: Arc<ActiveGrant>,
    /// How many there are.
    pub rows: u64,
}

impl Drop for Returning {
    fn drop(&mut self) {
        self.grant.unlease(self.rows);
        self.grant.returning.send_modify(|count| *count -= 1);
    }
}

impl ActiveGrant {
    fn new(request: Arc<Request>, expires: u64, deadline: Instant) -> Self {
        Self { request, expires, deadline, leased: AtomicU64::new(0), returning: watch::Sender::new(0) }
    }

    /// A session gives leased rows back.
    pub fn gives_back(self: &Arc<Self>, rows: u64) -> Returning {
        self.returning.send_modify(|count| *count += 1);
        Returning { grant: Arc::clone(self), rows }
    }

    /// Whether rows are on their way back.
    pub fn is_returning(&self) -> bool {
        *self.returning.borrow() > 0
    }

    /// Waits until no rows are on their way back.
    pub async fn has_returned(&self) {
        // It fails only when the grant is gone.
        let _ = self.returning.subscribe().wait_for(|count| *count == 0).await;
    }

    /// A session has leased rows of its limit.
    pub fn lease(&self, rows: u64) {
        self.leased.fetch_add(rows, Ordering::AcqRel);
    }

    /// A session has charged leased rows, or given them back.
    pub fn unlease(&self, rows: u64) {
        self.leased.fetch_sub(rows, Ordering::AcqRel);
    }
}

/// A session that something may cut.
#[derive(Clone, Debug)]
pub struct Dependent {
    /// Its name in the ledger.
    pub session: String,
    /// Where the person is.
    pub location: String,
    /// What the rules said of the person when it was opened.
    pub facts: Facts,
    /// When they were given what they came in by, if a login gave it: milliseconds since 1970.
    pub given: Option<u64>,
    /// What they come with.
    pub device: Option<Device>,
    /// The certificates that they showed, where something follows from one.
    pub shown: Option<Shown>,
    /// Whether its statements are counted instead of recorded one by one.
    pub is_counted: bool,
    /// Whose it is.
    pub principal: String,
    /// Where to.
    pub store: String,
    /// Whether it goes through a face.
    pub is_face: bool,
    /// Whether the person is outside the country, or a covered person.
    pub is_cross_border: bool,
    /// The grants that it depends on.
    pub grants: Vec<String>,
    /// The client's address.
    pub address: String,
    /// What the client calls itself.
    pub application: String,
}

/// What has gone through a session so far.
#[derive(Debug, Default)]
pub struct Passed {
    statements: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Passed {
    /// A statement is over.
    pub fn statement(&self, rows: u64) {
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Bytes went to the client.
    pub fn sent(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Statements that are over.
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Their rows.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Bytes of protocol to the client, those of a statement that still runs too.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A session as it is now.
#[derive(Clone, Debug)]
pub struct Live {
    /// Whose it is.
    pub who: Dependent,
    /// When it began.
    pub since: Instant,
    /// What has gone through.
    pub passed: Arc<Passed>,
}

struct Running {
    live: Live,
    cut: watch::Sender<Option<Cut>>,
}

/// A request that is pending or granted, as it was when it was read and its signatures were verified.
struct Known {
    sketch: Sketch,
    request: Arc<Request>,
    /// Whether its signatures suffice.
    holds: bool,
    /// When it was read like this.
    since: Instant,
}

#[derive(Default)]
struct Inner {
    /// What the control database has, read and verified once.
    known: HashMap<String, Known>,
    /// The rules under which the signatures were verified.
    rules: String,
    active: HashMap<String, Arc<ActiveGrant>>,
    by_requester: HashMap<String, Vec<Arc<ActiveGrant>>>,
    /// Rows charged or leased under grants with a limit, as of the last look.
    used: HashMap<String, u64>,
    /// Ended here. A look at the control database that began before must not bring them back.
    ended: HashSet<String>,
    sessions: HashMap<u64, Running>,
    next: u64,
}

impl Inner {
    fn activate(&mut self, grant: Arc<ActiveGrant>) {
        self.deactivate(&grant.request.id);
        self.by_requester.entry(grant.request.requester.clone()).or_default().push(Arc::clone(&grant));
        self.active.insert(grant.request.id.clone(), grant);
    }

    /// Whether all rows of a grant's limit are charged. Rows that a session here has leased may come back.
    fn is_used_up(&self, grant: &ActiveGrant) -> bool {
        let Some(max) = grant.request.max_rows else { return false };
        let used = self.used.get(&grant.request.id).copied().unwrap_or(0);
        used.saturating_sub(grant.leased.load(Ordering::Acquire)) >= max
    }

    fn deactivate(&mut self, id: &str) -> bool {
        let Some(grant) = self.active.remove(id) else { return false };
        let requester = grant.request.requester.as_str();
        if let Some(theirs) = self.by_requester.get_mut(requester) {
            theirs.retain(|g| g.request.id != id);
            if theirs.is_empty() {
                self.by_requester.remove(requester);
            }
        }
        true
    }
}

/// See the module's text.
pub struct LiveGrants {
    control: Arc<Control>,
    /// One look at the control database at a time: an older one must not undo what a newer one found.
    looking: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    /// Grows each time that requests or grants have changed.
    changes: watch::Sender<Instant>,
}

/// Takes its session off the list when it goes.
pub struct Attached {
    live: Arc<LiveGrants>,
    number: u64,
    /// Where the session counts what goes through.
    pub passed: Arc<Passed>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.live.inner().sessions.remove(&self.number);
    }
}

/// What a look at the control database found to be done.
#[derive(Debug, Default)]
pub struct Due {
    /// Their time is over.
    pub over: Vec<Arc<Request>>,
    /// They have all signatures and are not in force yet.
    pub approved: Vec<Arc<Request>>,
    /// Grants that somebody else ended; their sessions are cut.
    pub gone: Vec<String>,
}

/// How long a revocation waits for its sessions to be gone before it says that they are cut.
const CUT_WAIT: Duration = Duration::from_millis(500);

/// How long whoever took the last signature may need to put the grant in force, before somebody else does.
const TAKE_OVER: Duration = Duration::from_secs(5);
/// How much a clock may run ahead before it counts as set.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// Whether the signatures of a stored request suffice under `policy`, and are about the requester as they
/// are now; the error says what is wrong.
pub fn verify(policy: &Policy, stored: &Stored) -> Result<(), String> {
    if !Facts::are_as_signed(policy, &stored.request) {
        let requester = &stored.request.requester;
        return Err(format!(
            "{requester}'s location, employer or coverage is not what was signed: they must ask again"
        ));
    }
    let mut good = std::collections::BTreeSet::new();
    for approval in &stored.approvals {
        let name = approval.approver.as_str();
        if name == stored.request.requester {
            return Err("the requester is among the approvers".to_owned());
        }
        policy.may_approve(name, &stored.request.store).map_err(|e| e.to_string())??;
        let key = policy.registry().principal(name).and_then(|p| p.key.as_deref());
        let key = key.ok_or_else(|| format!("{name} has no key"))?;
        approval.verify(&stored.request, key).map_err(|e| e.to_string())?;
        good.insert(name);
    }
    let needed = policy.registry().approvals;
    if good.len() < needed {
        return Err(format!("{} good signatures, {needed} needed", good.len()));
    }
    Ok(())
}

impl LiveGrants {
    /// No grants yet; [`Self::refresh`] loads them.
    pub fn new(control: Arc<Control>) -> Arc<Self> {
        let (changes, _) = watch::channel(Instant::now());
        Arc::new(Self { control, looking: tokio::sync::Mutex::default(), inner: Mutex::default(), changes })
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares with what the control database says: reads and verifies what is new there, and cuts sessions whose grant
    /// is no longer there. Returns what somebody must now write down.
    pub async fn refresh(&self, policy: &Policy, now: u64) -> Result<Due, ringfence_control::Error> {
        let _one_at_a_time = self.looking.lock().await;
        let (ended_before, rules) = {
            let inner = self.inner();
            (inner.ended.clone(), inner.rules == policy.digest())
        };
        let open = self.control.open().await?;
        let used: HashMap<String, u64> = open.iter().map(|(s, used)| (s.id.clone(), *used)).collect();
        let open: Vec<Sketch> = open.into_iter().map(|(sketch, _)| sketch).collect();
        let changed: Vec<String> = {
            let inner = self.inner();
            let is_known = |s: &&Sketch| rules && inner.known.get(&s.id).is_some_and(|k| k.sketch == **s);
            open.iter().filter(|s| !is_known(s)).map(|s| s.id.clone()).collect()
        };
        let read = if changed.is_empty() { Vec::new() } else { self.control.find_all(&changed).await? };
        let read = read_and_verified(policy, read);

        let mut inner = self.inner();
        policy.digest().clone_into(&mut inner.rules);
        inner.used = used;
        for id in &changed {
            inner.known.remove(id); // one that cannot be read any more is not known any more
        }
        let before = inner.known.len();
        inner.known.extend(read);
        let is_open: HashSet<&str> = open.iter().map(|s| s.id.as_str()).collect();
        inner.known.retain(|id, _| is_open.contains(id.as_str()));
        if !changed.is_empty() || inner.known.len() != before {
            self.control.touch();
            self.announce();
        }
        inner.ended.retain(|id| !ended_before.contains(id) || is_open.contains(id.as_str()));
        Ok(settle(&mut inner, now))
    }

    /// Ends the grants whose requester has other facts under new rules than approvers have signed. The next
    /// look at the control database verifies all signatures again.
    pub fn judge_facts(&self, policy: &Policy) {
        let mut inner = self.inner();
        let active = inner.active.values().map(|grant| &grant.request);
        let others = active.filter(|request| !Facts::are_as_signed(policy, request));
        let gone: Vec<String> = others.map(|request| request.id.clone()).collect();
        for id in gone {
            inner.deactivate(&id);
            if let Some(known) = inner.known.get_mut(&id) {
                known.holds = false;
            }
        }
    }

    /// Something that pages show has changed.
    pub(crate) fn announce(&self) {
        self.changes.send_replace(Instant::now());
    }

    /// When requests or grants, or something else that pages show, was last seen to have changed, here or at another gateway.
    pub fn changes(&self) -> watch::Receiver<Instant> {
        self.changes.subscribe()
    }

    /// The grants that `principal` has for `store` now. One whose rows are used up counts no more: another
    /// one for the same table is used instead.
    pub fn of(&self, principal: &str, store: &str) -> Vec<Arc<ActiveGrant>> {
        let inner = self.inner();
        let mut found = Self::in_force_for(&inner, principal, store);
        found.retain(|grant| !inner.is_used_up(grant));
        found
    }

    /// Those of them that are used up.
    pub fn used_up(&self, principal: &str, store: &str) -> Vec<Arc<ActiveGrant>> {
        let inner = self.inner();
        let mut found = Self::in_force_for(&inner, principal, store);
        found.retain(|grant| inner.is_used_up(grant));
        found
    }

    /// A session found no row left of a grant's limit of `max`.
    pub fn look_at_use(&self, id: &str, max: u64) {
        self.inner().used.insert(id.to_owned(), max);
    }

    fn in_force_for(inner: &Inner, principal: &str, store: &str) -> Vec<Arc<ActiveGrant>> {
        let theirs = inner.by_requester.get(principal).map_or(&[][..], Vec::as_slice);
        let is_now = |g: &&Arc<ActiveGrant>| g.request.store == store && Instant::now() < g.deadline;
        let mut found: Vec<_> = theirs.iter().filter(is_now).cloned().collect();
        found.sort_by(|a, b| a.request.id.cmp(&b.request.id));
        found
    }

    /// Puts a session on the list of those that can be cut. Fails if one of its grants ended meanwhile.
    pub fn attach(self: &Arc<Self>, who: Dependent) -> Result<(Attached, watch::Receiver<Option<Cut>>), Cut> {
        let mut inner = self.inner();
        if let Some(id) = who.grants.iter().find(|id| !inner.active.contains_key(*id)) {
            return Err(Cut::GrantEnded { id: id.clone(), how: "ended".to_owned() });
        }
        let (cut, receiver) = watch::channel(None);
        inner.next += 1;
        let number = inner.next;
        let passed = Arc::new(Passed::default());
        let live = Live { who, since: Instant::now(), passed: Arc::clone(&passed) };
        inner.sessions.insert(number, Running { live, cut });
        drop(inner);
        Ok((Attached { live: Arc::clone(self), number, passed }, receiver))
    }

    /// Ends a grant and cuts its sessions; returns how many there were, once they are gone.
    pub async fn end(&self, id: &str, how: &str) -> usize {
        let cut = Cut::GrantEnded { id: id.to_owned(), how: how.to_owned() };
        let senders = {
            let mut inner = self.inner();
            inner.deactivate(id);
            inner.ended.insert(id.to_owned());
            signal(&inner, id, &cut)
        };
        let count = senders.len();
        let gone = async {
            for sender in senders {
                sender.closed().await;
            }
        };
        let _ = tokio::time::timeout(CUT_WAIT, gone).await;
        count
    }

    /// Cuts the sessions for which `chosen` says yes.
    pub fn cut_where(&self, cut: &Cut, chosen: impl Fn(&Dependent) -> bool) {
        for session in self.inner().sessions.values().filter(|s| chosen(&s.live.who)) {
            session.cut.send_replace(Some(cut.clone()));
        }
    }

    /// Who has a session now.
    pub fn list(&self) -> Vec<Live> {
        let inner = self.inner();
        let mut sessions: Vec<_> = inner.sessions.iter().collect();
        sessions.sort_by_key(|(number, _)| **number);
        sessions.into_iter().map(|(_, running)| running.live.clone()).collect()
    }

    /// How many grants are in force.
    pub fn in_force(&self) -> usize {
        self.inner().active.len()
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.inner().sessions.len()
    }
}

fn signal(inner: &Inner, id: &str, cut: &Cut) -> Vec<watch::Sender<Option<Cut>>> {
    let mut senders = Vec::new();
    for session in inner.sessions.values().filter(|s| s.live.who.grants.iter().any(|g| g == id)) {
        session.cut.send_replace(Some(cut.clone()));
        senders.push(session.cut.clone());
    }
    senders
}

/// What was read, by name, with whether its signatures hold.
fn read_and_verified(
    policy: &Policy,
    read: Vec<Result<Stored, ringfence_control::Error>>,
) -> Vec<(String, Known)> {
    let mut found = Vec::with_capacity(read.len());
    for one in read {
        let stored = match one {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(%error, "a request in the control database cannot be read and is ignored");
                continue;
            }
        };
        let verified = verify(policy, &stored);
        let id = stored.request.id.clone();
        if let (State::Granted, Err(problem)) = (stored.state, &verified) {
            tracing::error!(grant = %id, %problem, "a grant in the control database does not hold and is ignored");
        }
        let sketch = Sketch {
            id: id.clone(),
            state: stored.state,
            granted: stored.granted,
            approvals: stored.approvals.len() as u64,
        };
        found.push((
            id,
            Known { sketch, request: stored.request, holds: verified.is_ok(), since: Instant::now() },
        ));
    }
    found
}

/// Puts in force what is known to hold, and ends what is over or gone.
fn settle(inner: &mut Inner, now: u64) -> Due {
    let mut due = Due::default();
    let (mut in_force, mut come) = (HashSet::new(), Vec::new());
    for (id, Known { sketch, request, holds, since }) in &inner.known {
        if sketch.state == State::Pending {
            if now >= request.decide_by {
                due.over.push(Arc::clone(request));
            } else if *holds && since.elapsed() > TAKE_OVER {
                due.approved.push(Arc::clone(request));
            }
            continue;
        }
        let expires = sketch.granted.map_or(0, |g| request.expires(g));
        let by_clock = Instant::now() + Duration::from_millis(expires.saturating_sub(now));
        let running = inner.active.get(id);
        let deadline = running.map_or(by_clock, |g| g.deadline.min(by_clock));
        if now >= expires || Instant::now() >= deadline {
            due.over.push(Arc::clone(request));
        } else if *holds && !inner.ended.contains(id) {
            in_force.insert(id.clone());
            // A clock that was set forward ends it sooner.
            if running.is_none_or(|g| g.deadline > deadline + CLOCK_SLACK) {
                come.push(Arc::new(ActiveGrant::new(Arc::clone(request), expires, deadline)));
            }
        }
    }
    for grant in come {
        inner.activate(grant);
    }
    // What is over is ended by whoever hears of it: with its own reason.
    let over: HashSet<&str> = due.over.iter().map(|r| r.id.as_str()).collect();
    let gone = inner.active.keys().filter(|id| !in_force.contains(*id) && !over.contains(id.as_str()));
    for id in gone.cloned().collect::<Vec<_>>() {
        inner.deactivate(&id);
        signal(inner, &id, &Cut::GrantEnded { id: id.clone(), how: "ended".to_owned() });
        due.gone.push(id);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> Arc<Request> {
        let text = format!(
            r#"{{"v":1,"id":"{id}","requester":"ann","location":"SG","employer":null,"covered":null,"store":"us",
                "jurisdiction":"us","table":"users","columns":["email"],"where":null,"purpose":"a test","seconds":60,
                "max_rows":null,"created":1,"decide_by":10}}"#
        );
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    fn granted(inner: &mut Inner, id: &str) {
        let sketch = Sketch { id: id.to_owned(), state: State::Granted, granted: Some(1), approvals: 2 };
        inner.known.insert(
            id.to_owned(),
            Known { sketch, request: request(id), holds: true, since: Instant::now() },
        );
    }

    #[test]
    fn what_was_ended_here_is_not_brought_back_by_a_look_that_began_before() {
        let mut inner = Inner::default();
        granted(&mut inner, "R-1");
        granted(&mut inner, "R-2");
        assert_eq!(settle(&mut inner, 2).gone, Vec::<String>::new());
        assert_eq!(inner.active.len(), 2);
        assert!(inner.deactivate("R-1"));
        inner.ended.insert("R-1".to_owned());
        settle(&mut inner, 3);
        assert_eq!(inner.active.keys().collect::<Vec<_>>(), ["R-2"]);
        assert_eq!(inner.by_requester["ann"].len(), 1);
    }

    #[test]
    fn what_no_longer_holds_is_gone_and_what_is_over_is_due() {
        let mut inner = Inner::default();
        granted(&mut inner, "R-1");
        granted(&mut inner, "R-2");
        settle(&mut inner, 2);
        inner.known.get_mut("R-1").unwrap().holds = false;
        assert_eq!(settle(&mut inner, 3).gone, ["R-1"]);
        let due = settle(&mut inner, 60_002);
        assert_eq!(due.over.iter().map(|r| r.id.as_str()).collect::<HashSet<_>>(), ["R-1", "R-2"].into());
    }
}
