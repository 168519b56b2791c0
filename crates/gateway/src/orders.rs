//! A regulator's switch: a signed order suspends access across the border to a jurisdiction's data, at every gateway of the control
//! database within a second, and only a signed order that lifts that very one opens it again.
//!
//! The control database is no root of trust. Each order's signature is verified here; a suspension that is in force is not forgotten when
//! its row is gone; and what crosses behind one that a gateway has put on record, the log's verifier finds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ringfence_control::StoredOrder;
use ringfence_grants::request::rfc3339;
use ringfence_ledger::{Entry, Kind};
use ringfence_policy::{Policy, Principal};
use ringfence_verifier::approvals::verify_signature;
use ringfence_verifier::orders::{Order, OrderRecord, What};
use serde_json::{Value, json};

use crate::console::{self, control_error, refuse};
use crate::grants::Cut;
use crate::refusal::Refusal;
use crate::server::Shared;

/// A suspension in force.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Suspension {
    order: Order,
    /// What goes on record; nothing where the signature does not hold, which closes the border and proves nothing.
    record: Option<(String, String)>,
}

#[derive(Default)]
struct State {
    in_force: BTreeMap<String, Suspension>,
    /// Orders that are on record here.
    recorded: BTreeSet<String>,
    /// Texts and signatures that hold under the rules of a digest: they are verified once.
    held: HashSet<(String, String, String)>,
}

/// Which jurisdictions are closed by order.
#[derive(Default)]
pub struct Suspensions {
    any: AtomicBool,
    state: Mutex<State>,
    looking: tokio::sync::Mutex<()>,
}

impl Suspensions {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `Err` while data of this jurisdiction may not cross by order.
    pub fn judge(&self, jurisdiction: &str) -> Result<(), Cut> {
        // Most gateways never see one: no lock for each statement.
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let Some(found) = self.state().in_force.get(jurisdiction).cloned() else { return Ok(()) };
        let Order { id, by, reason, .. } = found.order;
        Err(Cut::Suspended { jurisdiction: jurisdiction.to_owned(), id, by, reason })
    }

    /// Reads the orders, puts them in force, and on record.
    pub async fn refresh(&self, shared: &Shared) -> Result<(), ringfence_control::Error> {
        let _one_at_a_time = self.looking.lock().await;
        let stored = shared.control.signed_orders().await?;
        // Behind one that is lifted another may stand already.
        for _ in 0..2 {
            let (suspended, lifted) = self.follow(&shared.policy(), &stored);
            self.any.store(!self.state().in_force.is_empty(), Ordering::Release);
            if !suspended.is_empty() {
                shared.border.look(shared);
            }
            for found in suspended {
                tracing::error!(jurisdiction = %found.order.jurisdiction, order = %found.order.id, by = %found.order.by, "cross-border access is suspended by order");
                if let Some((order, signature)) = found.record {
                    let record = OrderRecord { order, signature };
                    shared.ledger.record(Entry::new(Kind::Suspended, &found.order.jurisdiction, &record));
                }
            }
            if lifted.is_empty() {
                break;
            }
            for (order, record) in lifted {
                // On record before anything crosses: until then the suspension stands.
                let jurisdiction = order.jurisdiction.clone();
                if shared.on_record(Entry::new(Kind::Resumed, &jurisdiction, &record)).await.is_ok() {
                    tracing::warn!(%jurisdiction, order = %order.id, by = %order.by, "cross-border access is open again by order");
                    let mut state = self.state();
                    state.in_force.remove(&jurisdiction);
                    self.any.store(!state.in_force.is_empty(), Ordering::Release);
                }
            }
        }
        Ok(())
    }

    /// What follows from the orders as they are stored: suspensions that are new here, which are in force at once, and orders that lift
    /// one that was in force, for the caller to put on record first.
    fn follow(
        &self,
        policy: &Policy,
        stored: &[StoredOrder],
    ) -> (Vec<Suspension>, Vec<(Order, OrderRecord)>) {
        let mut state = self.state();
        let mut now: BTreeMap<String, Suspension> = BTreeMap::new();
        let mut lifting: BTreeMap<String, (Order, OrderRecord)> = BTreeMap::new();
        for one in stored {
            let Ok(order) = Order::parse(&one.canonical) else {
                tracing::error!(order = %one.id, "a stored order cannot be read, and is left out");
                continue;
            };
            let signature = one.signature.clone().unwrap_or_default();
            let key = (policy.digest().to_owned(), one.canonical.clone(), signature.clone());
            let holds =
                state.held.contains(&key) || verify(policy, &order, &one.canonical, &signature).is_ok();
            if holds {
                state.held.insert(key);
            }
            let jurisdiction = order.jurisdiction.clone();
            match &order.lifts {
                // Less access needs no proof: one whose regulator has left the registry since stays in force.
                None => {
                    let record = holds.then(|| (one.canonical.clone(), signature));
                    now.entry(jurisdiction).or_insert(Suspension { order, record });
                }
                Some(lifts) if holds => {
                    if now.get(&jurisdiction).is_some_and(|s| s.order.id == *lifts) {
                        now.remove(&jurisdiction);
                    }
                    if state.in_force.get(&jurisdiction).is_some_and(|s| s.order.id == *lifts) {
                        let record = OrderRecord { order: one.canonical.clone(), signature };
                        lifting.insert(jurisdiction, (order, record));
                    }
                }
                Some(_) => {}
            }
        }
        let mut suspended = Vec::new();
        for (jurisdiction, found) in now {
            // One that is in force stays until it is lifted, on record: then the next that stands takes its place.
            if !state.in_force.contains_key(&jurisdiction) {
                if state.recorded.insert(found.order.id.clone()) {
                    suspended.push(found.clone());
                }
                state.in_force.insert(jurisdiction, found);
            }
        }
        (suspended, lifting.into_values().collect())
    }

    /// Those in force: jurisdiction, order, since when (milliseconds since 1970).
    pub fn in_force(&self) -> Vec<Order> {
        self.state().in_force.values().map(|s| s.order.clone()).collect()
    }
}

/// Whether a regulator of the jurisdiction has signed it.
fn verify(policy: &Policy, order: &Order, canonical: &str, signature: &str) -> Result<(), String> {
    let person = policy.registry().principal(&order.by);
    let person = person.filter(|p| policy.regulates(p, &order.jurisdiction));
    let person = person.ok_or_else(|| format!("{} is no regulator of {}", order.by, order.jurisdiction))?;
    let key = person.key.as_deref().ok_or_else(|| format!("{} has no key in the registry", order.by))?;
    verify_signature(canonical, signature, key)
}

fn must_regulate(shared: &Shared, person: &Principal, jurisdiction: &str) -> Result<(), Refusal> {
    if shared.policy().regulates(person, jurisdiction) {
        return Ok(());
    }
    let why = format!("{} is no regulator of {jurisdiction}", person.name);
    shared.record_refused(&person.name, "console", &format!("an order about {jurisdiction}: {why}"));
    Err(refuse(why).hint("The registry names a jurisdiction's regulators."))
}

/// Makes an order, which is in force when whoever makes it has signed it.
pub async fn propose(
    shared: &Shared,
    person: &Principal,
    jurisdiction: &str,
    what: What,
    reason: &str,
) -> Result<Value, Refusal> {
    must_regulate(shared, person, jurisdiction)?;
    let bad = |text: String| Refusal::new("22023", text);
    let reason = console::reason(reason.trim())?;
    let standing = shared.suspensions.in_force().into_iter().find(|o| o.jurisdiction == jurisdiction);
    let lifts = match (what, standing) {
        (What::Suspend, None) => None,
        (What::Resume, Some(order)) => Some(order.id),
        (What::Suspend, Some(order)) => {
            return Err(bad(format!(
                "access to data of {jurisdiction} is suspended already, by {} ({})",
                order.by, order.id
            )));
        }
        (What::Resume, None) => {
            return Err(bad(format!("access to data of {jurisdiction} is not suspended")));
        }
    };
    let id = console::new_name('S');
    let order = Order {
        v: 1,
        id: id.clone(),
        what,
        lifts,
        jurisdiction: jurisdiction.to_owned(),
        by: person.name.clone(),
        reason: reason.to_owned(),
        created: shared.now(),
    };
    let canonical = order.canonical().map_err(bad)?;
    shared.control.insert_order(&id, &canonical, order.created).await.map_err(|e| control_error(&e))?;
    Ok(tell(&order, &canonical, false))
}

fn tell(order: &Order, canonical: &str, is_signed: bool) -> Value {
    json!({
        "id": order.id, "what": order.what, "jurisdiction": order.jurisdiction, "by": order.by, "reason": order.reason,
        "lifts": order.lifts, "created": rfc3339(order.created), "signed": is_signed, "canonical": canonical,
    })
}

/// One order, for those who may sign one.
pub async fn show(shared: &Shared, person: &Principal, id: &str) -> Result<Value, Refusal> {
    let (order, stored) = find(shared, id).await?;
    must_regulate(shared, person, &order.jurisdiction)?;
    Ok(tell(&order, &stored.canonical, stored.signature.is_some()))
}

async fn find(shared: &Shared, id: &str) -> Result<(Order, StoredOrder), Refusal> {
    let stored = shared.control.order(id).await.map_err(|e| control_error(&e))?;
    let order =
        Order::parse(&stored.canonical).map_err(|e| Refusal::new("22023", format!("the order {e}")))?;
    Ok((order, stored))
}

/// Whoever made it signs it: it is in force here at once.
pub async fn sign(shared: &Shared, person: &Principal, id: &str, signature: &str) -> Result<Value, Refusal> {
    let (order, stored) = find(shared, id).await?;
    must_regulate(shared, person, &order.jurisdiction)?;
    if order.by != person.name {
        return Err(refuse(format!("{id} is {}'s to sign", order.by)));
    }
    verify(&shared.policy(), &order, &stored.canonical, signature).map_err(refuse)?;
    shared.control.sign_order(id, signature).await.map_err(|e| control_error(&e))?;
    shared.suspensions.refresh(shared).await.map_err(|e| control_error(&e))?;
    Ok(tell(&order, &stored.canonical, true))
}

/// What is suspended now. Everybody may know.
pub fn list(shared: &Shared) -> Value {
    let told = |order: &Order| json!({ "jurisdiction": order.jurisdiction, "order": order.id, "by": order.by, "reason": order.reason, "since": rfc3339(order.created) });
    shared.suspensions.in_force().iter().map(told).collect()
}
