//! What the identity provider says of people while they are connected: signed out, or deactivated. Both take effect at once here, also
//! while the control database is away, and within a second at the other gateways of the same control database.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringfence_control::{Control, Met};
use ringfence_ledger::{Entry, Kind};
use ringfence_policy::Principal;
use serde_json::{Value, json};

use crate::console::{self, broken, control_error, refuse};
use crate::grants::Cut;
use crate::refusal::Refusal;
use crate::server::Shared;

/// How long what a login gave is believed without a look at who was signed out since.
const BELIEVED: Duration = Duration::from_secs(30);
/// How long the control database may take over what must not wait for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was said of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    signed_out: u64,
    active: bool,
}

impl Said {
    const NOTHING: Self = Self { signed_out: 0, active: true };

    /// Both: what takes access away counts.
    fn and(self, other: Self) -> Self {
        Self { signed_out: self.signed_out.max(other.signed_out), active: self.active && other.active }
    }
}

#[derive(Default)]
struct State {
    /// As the control database has it.
    said: HashMap<String, Said>,
    /// What it does not have yet: of people by name, of subjects.
    unsaved: HashMap<String, Said>,
    unsaved_subjects: HashMap<String, u64>,
    /// Whom this gateway has met, by what the provider calls them: for a sign-out while the control database is away.
    met: HashMap<String, BTreeSet<String>>,
    /// When the control database was last read.
    looked: Option<Instant>,
}

/// See the module's text.
#[derive(Default)]
pub struct People {
    /// One look at the control database at a time: an older one must not undo what a newer one found.
    looking: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

impl People {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody may be here with what was given to them at `given`, in milliseconds since 1970; `None` is what a login did not
    /// give, such as a password, which a sign-out leaves alone.
    pub fn judge(&self, name: &str, given: Option<u64>) -> Result<(), Cut> {
        let state = self.state();
        let of = |all: &HashMap<String, Said>| all.get(name).copied().unwrap_or(Said::NOTHING);
        let said = of(&state.said).and(of(&state.unsaved));
        if !said.active {
            return Err(Cut::Deactivated);
        }
        match given {
            Some(given) if given <= said.signed_out => Err(Cut::SignedOut),
            Some(_) if state.looked.is_none_or(|at| at.elapsed() > BELIEVED) => Err(Cut::Unjudged),
            _ => Ok(()),
        }
    }

    /// Somebody is less present than before, from here on.
    fn note(&self, shared: &Shared, name: &str, less: Said) {
        {
            let mut state = self.state();
            let had = state.unsaved.get(name).copied().unwrap_or(Said::NOTHING);
            state.unsaved.insert(name.to_owned(), had.and(less));
        }
        self.cut(shared, name);
    }

    /// Cuts the sessions that somebody may not have any more.
    fn cut(&self, shared: &Shared, name: &str) {
        for cut in [Cut::Deactivated, Cut::SignedOut] {
            shared.grants.cut_where(&cut, |who| {
                who.principal == name && self.judge(name, who.given) == Err(cut.clone())
            });
        }
    }

    /// Writes what the control database does not have, reads what was said, and cuts the sessions of those who may not be here any more.
    pub async fn refresh(&self, shared: &Shared, control: &Control) -> Result<(), ringfence_control::Error> {
        let _one_at_a_time = self.looking.lock().await;
        let (names, subjects) = {
            let state = self.state();
            (state.unsaved.clone(), state.unsaved_subjects.clone())
        };
        for (subject, at) in &subjects {
            let found = control.sign_out_subject(subject, *at).await?;
            self.state().unsaved_subjects.retain(|s, when| s != subject || when != at);
            for name in found {
                control.sign_out(&name, *at).await?;
            }
        }
        for (name, less) in &names {
            if less.signed_out > 0 {
                control.sign_out(name, less.signed_out).await?;
            }
            if !less.active {
                control.set_active(name, false).await?;
            }
        }
        let read = control.presences().await?;
        let now: HashMap<String, Said> =
            read.into_iter().map(|p| (p.name, Said { signed_out: p.signed_out, active: p.active })).collect();
        let changed: Vec<String> = {
            let mut state = self.state();
            state.looked = Some(Instant::now());
            state.unsaved.retain(|name, less| names.get(name) != Some(less));
            let changed = now
                .iter()
                .filter(|(name, new)| state.said.get(*name) != Some(*new))
                .map(|(name, _)| name.clone());
            let changed = changed.collect();
            state.said = now;
            changed
        };
        for name in changed {
            self.cut(shared, &name);
        }
        Ok(())
    }
}

impl Shared {
    /// Reads and writes what was said of people, without waiting for a control database that does not answer: it is tried again each
    /// second, and meanwhile what is known here is in force here.
    async fn save_presence(&self) -> Result<(), Refusal> {
        let late =
            |_| broken(&"the control database does not answer: this gateway has it, the others not yet");
        let done = tokio::time::timeout(PATIENCE, self.people.refresh(self, &self.control)).await;
        done.map_err(late)?.map_err(|e| control_error(&e))
    }

    /// Somebody has shown a token for `audience`, of a login at `since`, that names them, and in which the provider calls them `subject`.
    /// Refused, and on record, where the provider called this person something else before: a name that was given anew is no proof.
    pub async fn meet(&self, name: &str, audience: &str, subject: &str, since: u64) -> Result<(), Refusal> {
        let late = |_| broken(&"the control database does not answer");
        let met = tokio::time::timeout(PATIENCE, self.control.met(name, audience, subject)).await;
        match met.map_err(late)?.map_err(|e| control_error(&e))? {
            Met::Somebody => {
                self.record_refused(
                    name,
                    "console",
                    "the provider calls somebody else by this name than before",
                );
                Err(refuse("your identity provider calls somebody else by this name than before")
                    .hint("If this is a new account of the same person: somebody of the security team runs `ringfence unbind`."))
            }
            Met::Them { signed_out } => {
                let unsaved = {
                    let mut state = self.people.state();
                    state.met.entry(subject.to_owned()).or_default().insert(name.to_owned());
                    state.unsaved_subjects.get(subject).copied().unwrap_or(0)
                };
                if since <= signed_out.max(unsaved) { Err(Cut::SignedOut.refusal()) } else { Ok(()) }
            }
        }
    }

    /// The provider has signed out whom it calls `subject`: what they were given by logging in counts no more. In force here at once, then
    /// on record and in the control database; nothing that cannot be written keeps access open.
    pub async fn sign_out(&self, subject: &str, by: &str) -> Result<(), Refusal> {
        let now = self.now();
        let known: Vec<String> = {
            let mut state = self.people.state();
            state.unsaved_subjects.insert(subject.to_owned(), now);
            state.met.get(subject).into_iter().flatten().cloned().collect()
        };
        for name in &known {
            self.people.note(self, name, Said { signed_out: now, active: true });
        }
        let late = |_| broken(&"the control database does not answer");
        let found = tokio::time::timeout(PATIENCE, self.control.sign_out_subject(subject, now)).await;
        let found = found.map_err(late).and_then(|found| found.map_err(|e| control_error(&e)));
        let mut names: BTreeSet<String> = known.into_iter().collect();
        names.extend(found.iter().flatten().cloned());
        for name in &names {
            self.people.note(self, name, Said { signed_out: now, active: true });
            let record = json!({ "principal": name, "state": "signed-out", "by": by });
            self.ledger.record(Entry::new(Kind::Presence, "-", &record));
        }
        found?;
        self.save_presence().await
    }

    /// The provider has deactivated somebody, or has them back.
    pub async fn set_active(&self, name: &str, active: bool, by: &str) -> Result<(), Refusal> {
        let state = if active { "active" } else { "deactivated" };
        let entry = Entry::new(Kind::Presence, "-", &json!({ "principal": name, "state": state, "by": by }));
        if active {
            self.on_record(entry).await?;
            self.control.set_active(name, true).await.map_err(|e| control_error(&e))?;
            if let Some(less) = self.people.state().unsaved.get_mut(name) {
                less.active = true;
            }
        } else {
            self.people.note(self, name, Said { active: false, ..Said::NOTHING });
            self.ledger.record(entry);
        }
        self.save_presence().await
    }
}

/// Forgets what the provider calls somebody, who has a new account there. Whoever approves does that, for others; it is on record.
pub async fn unbind(shared: &Shared, person: &Principal, name: &str, reason: &str) -> Result<Value, Refusal> {
    let policy = shared.policy();
    let approves = policy.approves_somewhere(person);
    if !approves || person.name == name {
        let why = if approves { "nobody does this for themselves" } else { "only who approves may do this" };
        shared.record_refused(&person.name, "console", &format!("the unbinding of {name}: {why}"));
        return Err(refuse(why));
    }
    let reason = console::reason(reason)?;
    if policy.registry().principal(name).is_none() {
        return Err(Refusal::new("22023", format!("the registry has no {name}")));
    }
    let record = json!({ "principal": name, "state": "unbound", "by": person.name, "reason": reason });
    shared.on_record(Entry::new(Kind::Presence, "-", &record)).await?;
    let forgotten = shared.control.unbind(name).await.map_err(|e| control_error(&e))?;
    Ok(json!({ "principal": name, "forgotten": forgotten }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn what_takes_access_away_counts_whoever_has_it_first() {
        let people = People::default();
        assert_eq!(people.judge("ann", None), Ok(()));
        assert_eq!(people.judge("ann", Some(5)), Err(Cut::Unjudged), "nobody has looked yet");
        people.state().looked = Some(Instant::now());
        assert_eq!(people.judge("ann", Some(5)), Ok(()));
        people.state().unsaved.insert("ann".to_owned(), Said { signed_out: 7, active: true });
        assert_eq!(people.judge("ann", Some(7)), Err(Cut::SignedOut));
        assert_eq!(people.judge("ann", Some(8)), Ok(()));
        assert_eq!(people.judge("ann", None), Ok(()), "a password is not the provider's");
        people.state().said.insert("ann".to_owned(), Said { signed_out: 9, active: false });
        assert_eq!(people.judge("ann", None), Err(Cut::Deactivated));
        people.state().said.insert("ann".to_owned(), Said { signed_out: 9, active: true });
        assert_eq!(people.judge("ann", Some(8)), Err(Cut::SignedOut));
        if let Some(old) = Instant::now().checked_sub(BELIEVED * 2) {
            people.state().looked = Some(old);
            assert_eq!(people.judge("ann", Some(10)), Err(Cut::Unjudged));
            assert_eq!(people.judge("ann", Some(8)), Err(Cut::SignedOut));
        }
    }
}
