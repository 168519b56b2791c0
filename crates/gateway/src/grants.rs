//! Grants in force, and the sessions that depend on them.
//!
//! The control database says which requests are granted; what counts are the signatures, which are verified here, on
//! loading. A grant ends by its clock, by a revocation, by its row limit or because its signatures no longer suffice;
//! then its sessions are cut at once, and whoever ended it hears how many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringfence_control::{Control, State, Stored};
use ringfence_grants::Request;
use ringfence_policy::Policy;
use tokio::sync::watch;
use tokio::time::Instant;

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
            Self::PolicyChanged => Refusal::new(code::ADMIN_SHUTDOWN, "The rules for this store changed; connect again"),
            Self::Drain | Self::Stop => Refusal::new(code::ADMIN_SHUTDOWN, "The gateway is stopping; connect again"),
        }
    }

    /// A word for the ledger.
    pub fn reason(&self) -> String {
        match self {
            Self::GrantEnded { id, how } => format!("grant {id} {how}"),
            Self::PolicyChanged => "the rules changed".to_owned(),
            Self::Drain | Self::Stop => "the gateway stopped".to_owned(),
        }
    }
}

/// A grant whose signatures hold.
#[derive(Clone, Debug)]
pub struct ActiveGrant {
    /// What was signed.
    pub request: Request,
    /// When it ends, in milliseconds since 1970.
    pub expires: u64,
    /// The same on a clock that nobody sets.
    pub deadline: Instant,
}

/// A session that something may cut.
#[derive(Clone, Debug)]
pub struct Dependent {
    /// Whose it is.
    pub principal: String,
    /// Where to.
    pub store: String,
    /// Whether it goes through a face.
    pub is_face: bool,
    /// The grants that it depends on.
    pub grants: Vec<String>,
    /// The client's address.
    pub address: String,
    /// What the client calls itself.
    pub application: String,
}

struct Running {
    who: Dependent,
    cut: watch::Sender<Option<Cut>>,
}

#[derive(Default)]
struct Inner {
    active: HashMap<String, Arc<ActiveGrant>>,
    sessions: HashMap<u64, Running>,
    next: u64,
}

/// See the module's text.
pub struct LiveGrants {
    control: Arc<Control>,
    inner: Mutex<Inner>,
}

/// Takes its session off the list when it goes.
pub struct Attached {
    live: Arc<LiveGrants>,
    number: u64,
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
    pub over: Vec<Request>,
    /// They have all signatures and are not in force yet.
    pub approved: Vec<Request>,
    /// Grants that somebody else ended; their sessions are cut.
    pub gone: Vec<String>,
}

/// How long a revocation waits for its sessions to be gone before it says that they are cut.
const CUT_WAIT: Duration = Duration::from_millis(500);

/// Whether the signatures of a stored request suffice under `policy`; the error says what is wrong.
pub fn verify(policy: &Policy, stored: &Stored) -> Result<(), String> {
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
        Arc::new(Self { control, inner: Mutex::new(Inner::default()) })
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads what the control database says, verifies it, and cuts sessions whose grant is no longer there. Returns what
    /// somebody must now write down.
    pub async fn refresh(&self, policy: &Policy, now: u64) -> Result<Due, ringfence_control::Error> {
        let stored = self.control.list(&[State::Granted, State::Pending]).await?;
        let mut active = HashMap::new();
        let mut due = Due::default();
        for one in stored {
            let id = one.request.id.clone();
            if one.state == State::Pending {
                if now >= one.request.decide_by {
                    due.over.push(one.request);
                } else if verify(policy, &one).is_ok() {
                    due.approved.push(one.request); // all signatures are in, but whoever took the last one died
                }
                continue;
            }
            let expires = one.granted.map_or(0, |g| one.request.expires(g));
            let known = self.inner().active.get(&id).map(|g| g.deadline);
            let by_clock = Instant::now() + Duration::from_millis(expires.saturating_sub(now));
            let deadline = known.map_or(by_clock, |d| d.min(by_clock));
            if now >= expires || Instant::now() >= deadline {
                due.over.push(one.request);
            } else if let Err(problem) = verify(policy, &one) {
                tracing::error!(grant = %id, %problem, "a grant in the control database does not hold and is ignored");
            } else {
                active.insert(id, Arc::new(ActiveGrant { request: one.request, expires, deadline }));
            }
        }
        let mut inner = self.inner();
        let gone: Vec<String> = inner.active.keys().filter(|id| !active.contains_key(*id)).cloned().collect();
        inner.active = active;
        for id in gone {
            signal(&inner, &id, &Cut::GrantEnded { id: id.clone(), how: "ended".to_owned() });
            due.gone.push(id);
        }
        Ok(due)
    }

    /// The grants that `principal` has for `store` now.
    pub fn of(&self, principal: &str, store: &str) -> Vec<Arc<ActiveGrant>> {
        let inner = self.inner();
        let mut found: Vec<_> = inner
            .active
            .values()
            .filter(|g| {
                g.request.requester == principal && g.request.store == store && Instant::now() < g.deadline
            })
            .cloned()
            .collect();
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
        inner.sessions.insert(number, Running { who, cut });
        drop(inner);
        Ok((Attached { live: Arc::clone(self), number }, receiver))
    }

    /// Ends a grant and cuts its sessions; returns how many there were, once they are gone.
    pub async fn end(&self, id: &str, how: &str) -> usize {
        let cut = Cut::GrantEnded { id: id.to_owned(), how: how.to_owned() };
        let senders = {
            let mut inner = self.inner();
            inner.active.remove(id);
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
        for session in self.inner().sessions.values().filter(|s| chosen(&s.who)) {
            session.cut.send_replace(Some(cut.clone()));
        }
    }

    /// Who has a session now.
    pub fn list(&self) -> Vec<Dependent> {
        let inner = self.inner();
        let mut sessions: Vec<_> = inner.sessions.iter().collect();
        sessions.sort_by_key(|(number, _)| **number);
        sessions.into_iter().map(|(_, running)| running.who.clone()).collect()
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.inner().sessions.len()
    }
}

fn signal(inner: &Inner, id: &str, cut: &Cut) -> Vec<watch::Sender<Option<Cut>>> {
    let mut senders = Vec::new();
    for session in inner.sessions.values().filter(|s| s.who.grants.iter().any(|g| g == id)) {
        session.cut.send_replace(Some(cut.clone()));
        senders.push(session.cut.clone());
    }
    senders
}
