//! Requests at the console: asked for, approved, narrowed, denied, taken back.

use ringfence_control::{State, Stored};
use ringfence_grants::request::rfc3339;
use ringfence_grants::{Approval, Ask, Less, Request};
use ringfence_ledger::{Entry, Kind};
use ringfence_policy::Device;
use serde_json::{Value, json};

use crate::console::{Desk, broken, control_error, refuse};
use crate::grants::verify;
use crate::refusal::{Refusal, code};
use crate::server::approval_record;

/// How many requests of one person may wait: approvers see each of them.
const MOST_WAITING: u64 = 100;

impl Desk<'_> {
    /// Approvers and auditors of the store read all of its requests, where they may decide about it at all: a condition has somebody's
    /// data in it. Everybody reads their own.
    pub(crate) fn may_read(&self, stored: &Stored) -> Result<(), Refusal> {
        let me = self.principal;
        let store = self.policy.store(&stored.request.store).map(|(s, _)| s);
        if store.is_some_and(|s| self.policy.reads_records(me, s)) || stored.request.requester == me.name {
            return Ok(());
        }
        Err(refuse(format!("request {} is not yours to read", stored.request.id)))
    }

    pub(crate) async fn list(&self, states: &[State]) -> Result<Value, Refusal> {
        let me = self.principal;
        let stored = self.shared.control.list(states, &self.readable(), &me.name).await;
        let stored = stored.map_err(|e| control_error(&e))?;
        Ok(stored.iter().filter(|s| self.may_read(s).is_ok()).map(|s| self.tell(s)).collect())
    }

    /// What was asked for before that is like a request.
    pub(crate) async fn like(&self, id: &str) -> Result<Value, Refusal> {
        let one = self.shared.control.look(id).await.map_err(|e| control_error(&e))?;
        self.may_read(&one)?;
        let me = self.principal;
        let found = self.shared.control.like(&one.request, &self.readable(), &me.name).await;
        let found = found.map_err(|e| control_error(&e))?;
        Ok(found.iter().filter(|s| self.may_read(s).is_ok()).map(|s| self.tell(s)).collect())
    }

    /// The stores whose requests this person reads, whosever they are.
    fn readable(&self) -> Vec<&str> {
        let stores = self.policy.stores().filter(|(s, _)| self.policy.reads_records(self.principal, s));
        stores.map(|(store, _)| store.name.as_str()).collect()
    }

    pub(crate) fn tell(&self, stored: &Stored) -> Value {
        let r = stored.request.as_ref();
        let approvers: Vec<&str> = stored.approvals.iter().map(|a| a.approver.as_str()).collect();
        let expires = stored.granted.map(|g| rfc3339(r.expires(g)));
        json!({
            "id": r.id, "state": stored.state, "requester": r.requester, "location": r.location,
            "employer": r.employer, "covered": r.covered, "store": r.store, "summary": r.summary(),
            "purpose": r.purpose, "created": rfc3339(r.created), "decide_by": rfc3339(r.decide_by),
            "expires": expires, "charged": stored.charged, "max_rows": r.max_rows,
            "approved_by": approvers, "approvals_needed": self.policy.registry().approvals,
            "ended_by": stored.ended.as_ref().map(|e| &e.0), "reason": stored.ended.as_ref().map(|e| &e.1),
            "narrows": r.narrows.as_ref().map(|n| &n.id), "canonical": stored.canonical.as_ref(),
        })
    }

    pub(crate) async fn request(&self, ask: Ask) -> Result<Value, Refusal> {
        let found = self.policy.store(&ask.store);
        let (store, catalogue) = found.ok_or_else(|| {
            Refusal::new(code::NO_SUCH_DATABASE, format!("there is no store \"{}\"", ask.store))
        })?;
        let me = &self.principal.name;
        let waiting = self.shared.control.waiting_of(me).await.map_err(|e| control_error(&e))?;
        if waiting >= MOST_WAITING {
            return Err(Refusal::new(
                "22023",
                format!("{waiting} of your requests wait for a decision already"),
            )
            .hint("Take back what is not needed: ringfence revoke ID --reason …"));
        }
        let covered = self.policy.coverage(self.principal).map(|c| c.because);
        let now = self.shared.now();
        let bad = |e: &dyn std::fmt::Display| Refusal::new("22023", e.to_string());
        let request = Request::new(&ask, new_id(), self.principal, covered, store, catalogue, now)
            .map_err(|e| bad(&e))?;
        self.put_forward(&request).await
    }

    /// A request that can be granted goes on record, and waits.
    async fn put_forward(&self, request: &Request) -> Result<Value, Refusal> {
        let bad = |e: &dyn std::fmt::Display| Refusal::new("22023", e.to_string());
        let store = self.store(&request.store)?;
        let requester = self.policy.registry().principal(&request.requester);
        let device = requester.and_then(Device::presumed);
        let outcome =
            self.policy.outcome(&request.requester, &store.name, device.as_ref(), &[request.scope()]);
        let outcome = outcome.map_err(|e| bad(&e))?;
        let opens =
            outcome.tables.get(&request.table).is_some_and(|t| t.values().any(|c| !c.granted_by.is_empty()));
        if !opens {
            return Err(refuse(format!(
                "no approval can open {} to {}",
                request.summary(),
                request.requester
            ))
            .hint("Policy lets no grant reach these columns for them."));
        }
        let table =
            self.policy.store(&request.store).and_then(|(_, catalogue)| catalogue.tables.get(&request.table));
        let filter = self.policy.store(&request.store).map(|(_, catalogue)| request.filter(catalogue));
        let condition = filter.transpose().map_err(|e| bad(&e))?.and_then(|filter| filter.condition);
        if let (Some(condition), Some(table)) = (&condition, table) {
            let behind = self.shared.stores.get(&store.name);
            let steward = &behind.ok_or_else(|| broken(&"the store is not configured"))?.steward;
            steward.try_condition(&table.schema, &request.table, condition).await.map_err(|e| bad(&e))?;
        }
        self.on_record(Kind::Requested, store, &json!({ "request": request.canonical() })).await?;
        self.shared.control.insert(request).await.map_err(|e| control_error(&e))?;
        Ok(json!({
            "id": request.id, "state": "pending", "summary": request.summary(), "digest": request.digest(),
            "approvals_needed": self.policy.registry().approvals, "decide_by": rfc3339(request.decide_by),
        }))
    }

    /// An approver would give less: that is a request of its own, in the requester's name, which is signed as any other. What was
    /// asked for is turned down by it.
    pub(crate) async fn narrow(&self, id: &str, less: &Less) -> Result<Value, Refusal> {
        let stored = self.shared.control.find(id).await.map_err(|e| control_error(&e))?;
        self.may_sign(&stored.request)?;
        if stored.state != State::Pending {
            let problem = format!("the request {id} is {}, so it cannot be narrowed", stored.state);
            return Err(Refusal::new("22023", problem));
        }
        let (store, catalogue) = self.policy.store(&stored.request.store).ok_or_else(|| {
            Refusal::new(code::NO_SUCH_DATABASE, format!("there is no store \"{}\"", stored.request.store))
        })?;
        let me = &self.principal.name;
        let narrow = stored
            .request
            .narrowed(less, new_id(), me, catalogue, self.shared.now())
            .map_err(|e| Refusal::new("22023", e.to_string()))?;
        let told = self.put_forward(&narrow).await?;
        let reason = format!("narrowed to {}", narrow.id);
        self.shared
            .control
            .end(id, State::Denied, me, &reason, self.shared.now())
            .await
            .map_err(|e| control_error(&e))?;
        self.on_record(Kind::Denied, store, &json!({ "id": id, "by": me, "reason": reason })).await?;
        Ok(told)
    }

    /// Whether this person may sign; a refusal goes on record.
    fn may_sign(&self, request: &Request) -> Result<(), Refusal> {
        let me = &self.principal.name;
        let verdict = if *me == request.requester {
            Err("the requester cannot approve their own request".to_owned())
        } else {
            self.policy.may_approve(me, &request.store).map_err(|e| broken(&e))?
        };
        verdict.map_err(|why| {
            self.shared.record_refused(me, &request.store, &format!("approval of {}: {why}", request.id));
            refuse(why).hint("Requests are decided by the in-country security team of the store.")
        })
    }

    pub(crate) async fn approve(&self, id: &str, signature: String) -> Result<Value, Refusal> {
        let stored = self.shared.control.find(id).await.map_err(|e| control_error(&e))?;
        self.may_sign(&stored.request)?;
        if stored.state != State::Pending {
            let problem = format!("the request {id} is {}, so it cannot be approved", stored.state);
            return Err(Refusal::new("22023", problem));
        }
        if self.shared.now() >= stored.request.decide_by {
            return Err(Refusal::new(
                "22023",
                format!("the request {id} was to be decided by {}", rfc3339(stored.request.decide_by)),
            ));
        }
        let key = self.principal.key.as_deref();
        let key = key.ok_or_else(|| refuse(format!("{} has no key in the registry", self.principal.name)))?;
        let approval = Approval { approver: self.principal.name.clone(), signature };
        approval.verify(&stored.request, key).map_err(|e| refuse(e.to_string()))?;
        let store = self.store(&stored.request.store)?;
        let record = approval_record(&stored.request, &approval);
        self.on_record(Kind::Approved, store, &record).await?;
        let after = self
            .shared
            .control
            .approve(id, &approval, self.shared.now())
            .await
            .map_err(|e| control_error(&e))?;
        if verify(&self.policy, &after).is_ok() {
            self.shared.put_in_force(&after.request).await?;
        }
        let now = self.shared.control.find(id).await.map_err(|e| control_error(&e))?;
        Ok(self.tell(&now))
    }

    pub(crate) async fn deny(&self, id: &str, reason: &str) -> Result<Value, Refusal> {
        let stored = self.shared.control.find(id).await.map_err(|e| control_error(&e))?;
        self.may_sign(&stored.request)?;
        let me = &self.principal.name;
        self.shared
            .control
            .end(id, State::Denied, me, reason, self.shared.now())
            .await
            .map_err(|e| control_error(&e))?;
        let store = self.store(&stored.request.store)?;
        self.on_record(Kind::Denied, store, &json!({ "id": id, "by": me, "reason": reason })).await?;
        Ok(json!({ "id": id, "state": "denied" }))
    }

    /// Takes a grant back and cuts its sessions. The cut does not wait for the ledger: less access needs no record first.
    pub(crate) async fn revoke(&self, id: &str, reason: &str) -> Result<Value, Refusal> {
        let stored = self.shared.control.find(id).await.map_err(|e| control_error(&e))?;
        let me = &self.principal.name;
        if stored.request.requester != *me {
            self.may_sign(&stored.request)?;
        }
        self.shared
            .control
            .end(id, State::Revoked, me, reason, self.shared.now())
            .await
            .map_err(|e| control_error(&e))?;
        let cut = self.shared.end_grant(id, &format!("was revoked by {me}")).await;
        let store = self.store(&stored.request.store)?;
        let record = json!({ "id": id, "by": me, "reason": reason, "sessions_cut": cut });
        self.shared.ledger.record(Entry::new(Kind::Revoked, &store.jurisdiction, &record));
        Ok(json!({ "id": id, "state": "revoked", "sessions_cut": cut }))
    }
}

/// A name that people can type: R- and eight letters and digits without look-alikes.
fn new_id() -> String {
    use rand_core::RngCore as _;
    const LETTERS: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
    let mut random = [0; 8];
    rand_core::OsRng.fill_bytes(&mut random);
    let letters = random.iter().map(|b| char::from(LETTERS[usize::from(b & 31)]));
    std::iter::once('R').chain(std::iter::once('-')).chain(letters).collect()
}
