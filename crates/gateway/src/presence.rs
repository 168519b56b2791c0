//! What the identity provider says of people while they are connected: signed out, or deactivated. Both take effect at once here, and
//! within a second at the other gateways of the same control database.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ringfence_control::Control;
use ringfence_ledger::{Entry, Kind};
use serde_json::json;

use crate::grants::Cut;
use crate::refusal::{Refusal, code};
use crate::server::Shared;

/// What was said of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    signed_out: u64,
    active: bool,
}

/// See the module's text.
#[derive(Default)]
pub struct People {
    /// One look at the control database at a time: an older one must not undo what a newer one found.
    looking: tokio::sync::Mutex<()>,
    said: Mutex<HashMap<String, Said>>,
}

impl People {
    /// Whether somebody may be here with what was given to them at `given`, in milliseconds since 1970; `None` is what a login did not
    /// give, such as a password, which a sign-out leaves alone.
    pub fn judge(&self, name: &str, given: Option<u64>) -> Result<(), Cut> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        let Some(said) = said else { return Ok(()) };
        if !said.active {
            return Err(Cut::Deactivated);
        }
        match given {
            Some(given) if given <= said.signed_out => Err(Cut::SignedOut),
            _ => Ok(()),
        }
    }

    /// Reads what was said; cuts the sessions of those who may not be here any more.
    pub async fn refresh(&self, shared: &Shared, control: &Control) -> Result<(), ringfence_control::Error> {
        let _one_at_a_time = self.looking.lock().await;
        let read = control.presences().await?;
        let now: HashMap<String, Said> =
            read.into_iter().map(|p| (p.name, Said { signed_out: p.signed_out, active: p.active })).collect();
        let changed: Vec<String> = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let changed =
                now.iter().filter(|(name, new)| said.get(*name) != Some(*new)).map(|(name, _)| name.clone());
            let changed = changed.collect();
            *said = now;
            changed
        };
        for name in changed {
            for cut in [Cut::Deactivated, Cut::SignedOut] {
                shared.grants.cut_where(&cut, |who| {
                    who.principal == name && self.judge(&name, who.given) == Err(cut.clone())
                });
            }
        }
        Ok(())
    }
}

fn broken(e: &ringfence_control::Error) -> Refusal {
    Refusal::new(code::CANNOT_CONNECT, e.to_string())
}

impl Shared {
    /// The provider has signed somebody out: what they were given by logging in counts no more. On record, then in force; a record that
    /// cannot be written does not keep access open.
    pub async fn sign_out(&self, name: &str, by: &str) -> Result<(), Refusal> {
        self.ledger.record(Entry::new(
            Kind::Presence,
            "-",
            &json!({ "principal": name, "state": "signed-out", "by": by }),
        ));
        self.control.sign_out(name, self.now()).await.map_err(|e| broken(&e))?;
        self.people.refresh(self, &self.control).await.map_err(|e| broken(&e))
    }

    /// The provider has deactivated somebody, or has them back.
    pub async fn set_active(&self, name: &str, active: bool, by: &str) -> Result<(), Refusal> {
        let state = if active { "active" } else { "deactivated" };
        let entry = Entry::new(Kind::Presence, "-", &json!({ "principal": name, "state": state, "by": by }));
        if active {
            self.on_record(entry).await?;
        } else {
            self.ledger.record(entry);
        }
        self.control.set_active(name, active).await.map_err(|e| broken(&e))?;
        self.people.refresh(self, &self.control).await.map_err(|e| broken(&e))
    }
}
