//! What the rules say of a person now. Sessions, grants and console commands depend on these facts, and
//! not on the facts of the login or of a signature.

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

    /// The facts of the principal `name`, if the registry has one.
    pub fn today(policy: &Policy, name: &str) -> Option<Self> {
        policy.registry().principal(name).map(|principal| Self::of(policy, principal))
    }

    /// Whether the rules still say of a requester what the request says: location, employer and coverage
    /// are what approvers have signed.
    pub fn are_as_signed(policy: &Policy, request: &Request) -> bool {
        Self::today(policy, &request.requester).is_some_and(|today| {
            today.location == request.location
                && today.employer == request.employer
                && today.covered.is_some() == request.covered.is_some()
        })
    }
}
