//! What policy says about a person at a store, and the login that follows from it; decided once and remembered for as long
//! as rules and grants stay as they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringfence_face::{Filter, Login, Relations, Steward};
use ringfence_policy::{Access, Device, Outcome, Policy, Standing, Store};

use crate::connection::cannot_connect;
use crate::grants::ActiveGrant;
use crate::refusal::{Refusal, code};
use crate::session::Mode;

/// How long a login is taken to be there without a look. Faces are dropped after ten minutes without use at the earliest.
const LOGIN_KNOWN: Duration = Duration::from_secs(60);
/// The most decisions that are remembered.
const REMEMBERED: usize = 10_000;

/// A decision.
#[derive(Debug)]
pub struct Admission {
    /// How statements are treated.
    pub mode: Mode,
    /// What a face shows.
    pub outcome: Option<Outcome>,
    principal: String,
    store: String,
    filters: Vec<Filter>,
    login: Mutex<Option<(Login, Instant)>>,
    /// Whether the access crosses the border, so that it is metered.
    is_cross_border: bool,
    /// What results come from, as of the last login, where that matters.
    relations: Mutex<Arc<Relations>>,
}

impl Admission {
    /// Whether a face is between the person and the data.
    pub fn is_face(&self) -> bool {
        self.mode == Mode::Face
    }

    /// Whether a grant is part of the decision.
    pub fn has_grants(&self) -> bool {
        !self.filters.is_empty()
    }

    /// The login to the store. Makes sure that it and its face exist, unless somebody just has.
    pub async fn login(&self, steward: &Steward, policy: &Policy) -> Result<Login, ringfence_face::Error> {
        let known = self.login.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((login, _)) = known.filter(|(_, at)| at.elapsed() < LOGIN_KNOWN) {
            return Ok(login);
        }
        let login = match (&self.outcome, policy.store(&self.store)) {
            (Some(outcome), Some((_, catalogue))) => {
                steward.compile(&self.principal, outcome, catalogue, &self.filters).await?
            }
            _ => steward.full(&self.principal).await?,
        };
        if self.is_cross_border {
            let relations = Arc::new(steward.relations(&login.face).await?);
            *self.relations.lock().unwrap_or_else(PoisonError::into_inner) = relations;
        }
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = Some((login.clone(), Instant::now()));
        Ok(login)
    }

    /// The tables that results come from.
    pub fn relations(&self) -> Arc<Relations> {
        Arc::clone(&self.relations.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The store does not know the login: it is made anew when it is needed next.
    pub fn forget_login(&self) {
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Everything that a decision depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    principal: String,
    store: String,
    device: Option<Device>,
    policy: String,
    grants: Vec<String>,
}

/// Decisions that were made.
#[derive(Default)]
pub struct Admissions {
    known: Mutex<HashMap<Question, Arc<Admission>>>,
}

impl Admissions {
    /// Forgets decisions that a grant was part of: it has ended.
    pub fn forget_grant(&self, id: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|question, _| !question.grants.iter().any(|g| g == id));
    }

    /// Forgets everything: the rules have changed.
    pub fn forget_all(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Decides, or remembers. Refusals are decided each time.
    pub fn admit(
        &self,
        policy: &Policy,
        principal: &str,
        store: &Store,
        device: Option<&Device>,
        grants: &[Arc<ActiveGrant>],
    ) -> Result<Arc<Admission>, Refusal> {
        let question = Question {
            principal: principal.to_owned(),
            store: store.name.clone(),
            device: device.cloned(),
            policy: policy.digest().to_owned(),
            grants: grants.iter().map(|g| g.request.id.clone()).collect(),
        };
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&question) {
            return Ok(Arc::clone(known));
        }
        let admission = Arc::new(decide(policy, principal, store, device, grants)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(question, Arc::clone(&admission));
        Ok(admission)
    }
}

fn decide(
    policy: &Policy,
    principal: &str,
    store: &Store,
    device: Option<&Device>,
    grants: &[Arc<ActiveGrant>],
) -> Result<Admission, Refusal> {
    let undecided = |e: ringfence_policy::Error| {
        Refusal::new(code::INVALID_AUTHORIZATION, "access cannot be decided, so it is refused")
            .detail(e.to_string())
    };
    let (mut outcome, mut filters) = (None, Vec::new());
    let standing = policy.registry().principal(principal).map(|who| policy.standing(who, store));
    let is_cross_border = standing != Some(Standing::InCountry);
    let mode = match policy.access(principal, &store.name, device).map_err(undecided)? {
        Access::Refused(why) => {
            return Err(Refusal::new(code::INVALID_AUTHORIZATION, format!("access to {} is refused: {why}", store.name))
                .hint("The in-country security team decides about access; policies are in the gateway's configuration."));
        }
        // Who reads across the border is on record one by one, whatever policy says of workloads.
        Access::Full
            if !is_cross_border
                && policy.is_counted(principal, &store.name, device).map_err(undecided)? =>
        {
            Mode::Counted
        }
        Access::Full => Mode::Full,
        Access::Face => {
            let scopes: Vec<_> = grants.iter().map(|g| g.request.scope()).collect();
            outcome = Some(policy.outcome(principal, &store.name, device, &scopes).map_err(undecided)?);
            let (_, catalogue) = policy.store(&store.name).ok_or_else(|| {
                Refusal::new(code::NO_SUCH_DATABASE, format!("there are no rules for {}", store.name))
            })?;
            let made: Result<Vec<Filter>, _> = grants.iter().map(|g| g.request.filter(catalogue)).collect();
            filters = made.map_err(|e| cannot_connect(&e))?;
            Mode::Face
        }
    };
    let (principal, store) = (principal.to_owned(), store.name.clone());
    Ok(Admission {
        mode,
        outcome,
        principal,
        store,
        filters,
        login: Mutex::new(None),
        is_cross_border,
        relations: Mutex::default(),
    })
}
