//! Somebody whom the registry knows, as the rules are now: what they may look at here. What they may do is decided by the gateway's
//! console, which every page and every path of the API asks.

use axum::http::StatusCode;
use ringfence_gateway::console;
use ringfence_gateway::grants::Cut;
use ringfence_gateway::refusal::Refusal;
use ringfence_policy::Principal;
use serde_json::Value;

use crate::Desk;
use crate::identity::Shown;
use crate::pages::Told;

/// A person of the registry.
pub struct Member {
    /// Who.
    pub principal: Principal,
    /// When they logged in, in milliseconds since 1970.
    pub since: u64,
    /// Whether they approve, audit or run a store.
    pub is_insider: bool,
    /// Whether they run the gateway: they see how it is, and nobody's data.
    pub is_operator: bool,
}

fn unknown() -> Told {
    Told::new(StatusCode::FORBIDDEN, "You are not in the registry of this installation.")
}

impl Member {
    /// Whom a token of the provider shows: in the registry, who they were before, as the provider says, and not signed out since.
    pub(crate) async fn enter(desk: &Desk, shown: &Shown) -> Result<Self, Told> {
        let policy = desk.gateway.policy();
        let Some(person) = policy.registry().principal(&shown.name).filter(|p| p.is_person()) else {
            let why = "the identity provider knows them, and the registry does not";
            desk.gateway.record_refused(&shown.name, "console", why);
            return Err(unknown());
        };
        if let Err(what) = shown.said.confirms(&desk.config.provider.confirming, person) {
            let why = format!("the identity provider does not confirm {what}, as the registry has it");
            desk.gateway.record_refused(&shown.name, "console", &why);
            let told = "Your identity provider does not confirm";
            return Err(Told::new(
                StatusCode::FORBIDDEN,
                format!("{told} {what}, as the registry has it. Have whichever is wrong set right."),
            ));
        }
        // Without it a sign-out at the provider would not find them.
        desk.gateway.meet(&shown.name, &shown.audience, &shown.subject, shown.since).await?;
        Self::find(desk, &shown.name, shown.since)
    }

    /// The person of this name, who logged in at `since` (milliseconds since 1970), unless the provider has signed them out since. Rules
    /// change while people are logged in, so this is asked each time.
    pub(crate) fn find(desk: &Desk, name: &str, since: u64) -> Result<Self, Told> {
        desk.gateway.people.judge(name, Some(since)).map_err(|cut| {
            let status = match cut {
                Cut::Unjudged => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::UNAUTHORIZED,
            };
            Told::new(status, format!("{}.", cut.refusal().message))
        })?;
        let policy = desk.gateway.policy();
        let principal = policy.registry().principal(name).filter(|p| p.is_person()).ok_or_else(unknown)?;
        let teams = &principal.teams;
        let is_insider = policy.stores().any(|(store, _)| {
            [&store.full_access, &store.approvers, &store.auditors].iter().any(|of| !teams.is_disjoint(of))
        });
        let is_operator = is_insider || !teams.is_disjoint(&desk.config.operators);
        Ok(Self { principal: principal.clone(), since, is_insider, is_operator })
    }

    /// Asks the gateway's console, as the command line does. Who was signed out since the request began is asked once more: its body may
    /// have taken its time.
    pub async fn command(&self, desk: &Desk, command: &Value) -> Result<Value, Refusal> {
        let name = &self.principal.name;
        desk.gateway.people.judge(name, Some(self.since)).map_err(|cut| cut.refusal())?;
        console::answer(&desk.gateway, &self.principal, command).await
    }
}
