//! What the rules say of a person now: whoever acts under them acts by these facts, not by those of the
//! login or of a signature.

use std::collections::BTreeSet;

use ringfence_grants::Request;
use ringfence_policy::{Policy, Principal};

/// What decisions about a person depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    location: String,
    residence: Option<String>,
    employer: Option<String>,
    teams: BTreeSet<String>,
    is_person: bool,
    is_domestic: bool,
    /// Why they are a covered person, if they are.
    covered: Option<String>,
}

impl Facts {
    /// Those of a principal.
    pub fn of(policy: &Policy, principal: &Principal) -> Self {
        Self {
            location: principal.place().to_owned(),
            residence: principal.residence.clone(),
            employer: principal.employer.clone(),
            teams: principal.teams.clone(),
            is_person: principal.is_person(),
            is_domestic: principal.domestic,
            covered: policy.coverage(principal).map(|coverage| coverage.because),
        }
    }

    /// Those of somebody whom the registry has now.
    pub fn today(policy: &Policy, name: &str) -> Option<Self> {
        policy.registry().principal(name).map(|principal| Self::of(policy, principal))
    }

    /// Whether what a request says of its requester is still so: location, employer and coverage are what
    /// approvers have signed.
    pub fn are_those_of(&self, request: &Request) -> bool {
        self.location == request.location
            && self.employer == request.employer
            && self.covered.is_some() == request.covered.is_some()
    }
}
