//! Somebody whom the registry knows, as the rules are now: what they may look at here. What they may do is decided by the gateway's
//! console, which every page and every path of the API asks.

use ringfence_gateway::console;
use ringfence_gateway::refusal::Refusal;
use ringfence_policy::Principal;
use serde_json::Value;

use crate::Desk;

/// A person of the registry.
pub struct Member {
    /// Who.
    pub principal: Principal,
    /// Whether they approve, audit or run a store.
    pub is_insider: bool,
    /// Whether they run the gateway: they see how it is, and nobody's data.
    pub is_operator: bool,
}

impl Member {
    /// The person of this name, who logged in at `since` (milliseconds since 1970); `None` if the registry has none, an error if the
    /// provider has signed them out since. Rules change while people are logged in, so this is asked each time.
    pub fn find(desk: &Desk, name: &str, since: u64) -> Result<Option<Self>, String> {
        desk.gateway.people.judge(name, Some(since)).map_err(|cut| cut.refusal().message)?;
        Ok(Self::known(desk, name))
    }

    fn known(desk: &Desk, name: &str) -> Option<Self> {
        let policy = desk.gateway.policy();
        let principal = policy.registry().principal(name).filter(|p| p.is_person())?;
        let teams = &principal.teams;
        let is_insider = policy.stores().any(|(store, _)| {
            [&store.full_access, &store.approvers, &store.auditors].iter().any(|of| !teams.is_disjoint(of))
        });
        let is_operator = is_insider || !teams.is_disjoint(&desk.config.operators);
        Some(Self { principal: principal.clone(), is_insider, is_operator })
    }

    /// Asks the gateway's console, as the command line does.
    pub async fn command(&self, desk: &Desk, command: &Value) -> Result<Value, Refusal> {
        console::answer(&desk.gateway, &self.principal, command).await
    }
}
