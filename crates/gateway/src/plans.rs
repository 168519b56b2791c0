//! Plans that the in-country team signs, at the console: erasures and flows. Asked for, signed, begun, on record. What they do is not
//! done here: a gateway has no superuser's rights at a store, and no backup tapes.

use ringfence_control::StoredErasure;
use ringfence_grants::Approval;
use ringfence_grants::request::rfc3339;
use ringfence_ledger::{Entry, Kind};
use ringfence_policy::{Policy, Principal, Store};
use ringfence_verifier::approvals::verify_signature;
use serde_json::{Value, json};

use crate::console::new_name;
use crate::refusal::{Refusal, code};
use crate::server::Shared;

/// How long approvers have, in milliseconds.
const DECIDE_WITHIN: u64 = 30 * 24 * 3600 * 1000;

fn broken(e: &ringfence_control::Error) -> Refusal {
    match e {
        ringfence_control::Error::NoSuchErasure(_) => Refusal::new("22023", e.to_string())
            .hint("`ringfence erase list` and `ringfence flow list` show what there is."),
        _ => Refusal::new(code::CANNOT_CONNECT, e.to_string()),
    }
}

fn refuse(text: impl Into<String>) -> Refusal {
    Refusal::new(code::INSUFFICIENT_PRIVILEGE, text)
}

/// How plans of a kind are called and recorded.
struct Kinds {
    letter: char,
    requested: Kind,
    approved: Kind,
}

fn kinds(plan: &Value) -> Option<Kinds> {
    match plan["what"].as_str()? {
        "erase" => {
            Some(Kinds { letter: 'E', requested: Kind::ErasureRequested, approved: Kind::ErasureApproved })
        }
        "flow" => Some(Kinds { letter: 'F', requested: Kind::FlowRequested, approved: Kind::FlowApproved }),
        _ => None,
    }
}

/// The store whose approvers decide: the one that has the rows now, in the jurisdiction.
fn home<'a>(policy: &'a Policy, plan: &Value) -> Result<&'a Store, Refusal> {
    let name = plan["home"].as_str().unwrap_or_default();
    let found = policy.store(name).map(|(store, _)| store);
    let store = found.ok_or_else(|| Refusal::new("22023", format!("there is no store {name:?}")))?;
    if plan["jurisdiction"] != store.jurisdiction.as_str() {
        return Err(Refusal::new("22023", format!("{name} is of another jurisdiction")));
    }
    Ok(store)
}

/// Asks. The gateway adds who asks, under which name, when, and until when it can be approved; all of it is signed.
pub async fn request(
    shared: &Shared,
    person: &Principal,
    mut plan: Value,
    purpose: &str,
) -> Result<Value, Refusal> {
    let policy = shared.policy();
    let store = home(&policy, &plan)?;
    let from = plan["store"].as_str().and_then(|name| policy.store(name)).map(|(store, _)| store);
    let from = from.ok_or_else(|| Refusal::new("22023", "the plan names no store that is configured"))?;
    if person.teams.is_disjoint(&from.full_access) {
        return Err(refuse(format!(
            "{} has no full access to {}, and so may not ask for this",
            person.name, from.name
        )));
    }
    let kinds = kinds(&plan).filter(|_| plan["v"] == 1 && !purpose.trim().is_empty());
    let kinds = kinds
        .ok_or_else(|| Refusal::new("22023", "this is no plan of an erasure or a flow with a purpose"))?;
    let now = shared.now();
    let id = new_name(kinds.letter);
    if let Some(fields) = plan.as_object_mut() {
        fields.insert("id".to_owned(), json!(id));
        fields.insert("requester".to_owned(), json!(person.name));
        fields.insert("purpose".to_owned(), json!(purpose));
        fields.insert("created".to_owned(), json!(now));
        fields.insert("decide_by".to_owned(), json!(now + DECIDE_WITHIN));
    }
    let canonical = ringfence_grants::canonical(&plan).map_err(|e| Refusal::new("22023", e.to_string()))?;
    let record = json!({ "request": canonical });
    shared.on_record(Entry::new(kinds.requested, &store.jurisdiction, &record)).await?;
    let time = i64::try_from(now).unwrap_or(i64::MAX);
    shared.control.insert_erasure(&id, &canonical, &person.name, time).await.map_err(|e| broken(&e))?;
    let stored = shared.control.erasure(&id).await.map_err(|e| broken(&e))?;
    Ok(tell(&policy, &stored))
}

fn tell(policy: &Policy, stored: &StoredErasure) -> Value {
    let plan: Value = serde_json::from_str(&stored.canonical).unwrap_or_default();
    let approvers: Vec<&str> = stored.approvals.iter().map(|a| a.approver.as_str()).collect();
    let certificate: Option<Value> = stored.certificate.as_deref().and_then(|c| serde_json::from_str(c).ok());
    json!({
        "id": stored.id, "state": stored.state, "requester": stored.requester, "canonical": stored.canonical,
        "approved_by": approvers, "approvals_needed": policy.registry().approvals,
        "decide_by": plan["decide_by"].as_u64().map(rfc3339), "plan": plan, "certificate": certificate,
    })
}

async fn find(shared: &Shared, person: &Principal, id: &str) -> Result<(StoredErasure, Store), Refusal> {
    let stored = shared.control.erasure(id).await.map_err(|e| broken(&e))?;
    let store = may_read(&shared.policy(), person, &stored)?;
    Ok((stored, store))
}

/// Who may read it: whoever has to do with the store that has the rows, which is returned.
fn may_read(policy: &Policy, person: &Principal, stored: &StoredErasure) -> Result<Store, Refusal> {
    let plan: Value = serde_json::from_str(&stored.canonical).unwrap_or_default();
    let store = home(policy, &plan)?;
    let teams = [&store.full_access, &store.approvers, &store.auditors];
    if teams.iter().all(|t| person.teams.is_disjoint(t)) && stored.requester != person.name {
        return Err(refuse(format!("{} is not yours to read", stored.id)));
    }
    Ok(store.clone())
}

/// One erasure.
pub async fn show(shared: &Shared, person: &Principal, id: &str) -> Result<Value, Refusal> {
    let (stored, _) = find(shared, person, id).await?;
    Ok(tell(&shared.policy(), &stored))
}

/// All of a kind, or of every one (`all`), that this person may read.
pub async fn list(shared: &Shared, person: &Principal, what: &str) -> Result<Value, Refusal> {
    let policy = shared.policy();
    let mut all = Vec::new();
    for stored in shared.control.erasures().await.map_err(|e| broken(&e))?.iter() {
        if may_read(&policy, person, stored).is_ok() {
            let told = tell(&policy, stored);
            if what == "all" || told["plan"]["what"] == what {
                all.push(told);
            }
        }
    }
    Ok(Value::Array(all))
}

/// The approvers whose signatures hold under the rules as they are now.
fn good(policy: &Policy, stored: &StoredErasure, store: &Store) -> usize {
    let holds = |approval: &&Approval| {
        let name = approval.approver.as_str();
        let key = policy.registry().principal(name).and_then(|p| p.key.as_deref());
        name != stored.requester
            && matches!(policy.may_approve(name, &store.name), Ok(Ok(())))
            && key.is_some_and(|key| verify_signature(&stored.canonical, &approval.signature, key).is_ok())
    };
    let names: std::collections::BTreeSet<&str> =
        stored.approvals.iter().filter(holds).map(|a| a.approver.as_str()).collect();
    names.len()
}

/// Signs it.
pub async fn approve(
    shared: &Shared,
    person: &Principal,
    id: &str,
    signature: String,
) -> Result<Value, Refusal> {
    let (stored, store) = find(shared, person, id).await?;
    let policy = shared.policy();
    let verdict = if stored.requester == person.name {
        Err("the requester cannot approve their own request".to_owned())
    } else {
        policy
            .may_approve(&person.name, &store.name)
            .map_err(|e| Refusal::new(code::CANNOT_CONNECT, e.to_string()))?
    };
    if let Err(why) = verdict {
        shared.record_refused(&person.name, &store.name, &format!("approval of {id}: {why}"));
        return Err(refuse(why)
            .hint("This is decided by the in-country security team of the store that has the rows."));
    }
    let plan: Value = serde_json::from_str(&stored.canonical).unwrap_or_default();
    if stored.state != "pending" || plan["decide_by"].as_u64().is_none_or(|by| shared.now() >= by) {
        return Err(Refusal::new("22023", format!("{id} is {}, or its time is over", stored.state)));
    }
    let key =
        person.key.as_deref().ok_or_else(|| refuse(format!("{} has no key in the registry", person.name)))?;
    verify_signature(&stored.canonical, &signature, key)
        .map_err(|e| refuse(format!("the signature: {e}")))?;
    let approval = Approval { approver: person.name.clone(), signature };
    let record = json!({ "id": id, "approver": approval.approver, "signature": approval.signature });
    let kinds =
        kinds(&plan).ok_or_else(|| Refusal::new("22023", "the plan is of a kind that is not known here"))?;
    shared.on_record(Entry::new(kinds.approved, &store.jurisdiction, &record)).await?;
    let now = i64::try_from(shared.now()).unwrap_or(i64::MAX);
    shared.control.approve_erasure(id, &approval, now).await.map_err(|e| broken(&e))?;
    let stored = shared.control.erasure(id).await.map_err(|e| broken(&e))?;
    if good(&policy, &stored, &store) >= policy.registry().approvals {
        shared.control.advance_erasure(id, "approved", None).await.map_err(|e| broken(&e))?;
    }
    show(shared, person, id).await
}

/// Whether it may be done now, by whoever may ask for it; returns what was signed. The signatures are verified again, whatever the control
/// database says. What is done is done: what is at the same places later is something else.
pub async fn begin(shared: &Shared, person: &Principal, id: &str) -> Result<Value, Refusal> {
    let (stored, store) = find(shared, person, id).await?;
    let policy = shared.policy();
    let plan: Value = serde_json::from_str(&stored.canonical).unwrap_or_default();
    let from = plan["store"].as_str().and_then(|name| policy.store(name));
    if from.is_none_or(|(from, _)| person.teams.is_disjoint(&from.full_access)) {
        return Err(refuse(format!(
            "{} has no full access to {}, and so may not do this",
            person.name,
            plan["store"].as_str().unwrap_or("its store")
        )));
    }
    if stored.state == "done" {
        return Err(Refusal::new("22023", format!("{id} is done"))
            .hint("`ringfence erase verify` looks again; for what is there now ask anew."));
    }
    let (has, needed) = (good(&policy, &stored, &store), policy.registry().approvals);
    if has < needed {
        let why = format!("{id} has {has} of {needed} approvals");
        shared.record_refused(&person.name, &store.name, &why);
        return Err(refuse(why).hint("Approvers sign it first."));
    }
    Ok(tell(&policy, &stored))
}

/// Whether a certificate says that something could not be erased.
fn has_failed(certificate: &Value) -> bool {
    let some = |list: &Value, is: fn(&Value) -> bool| list.as_array().into_iter().flatten().any(is);
    some(&certificate["failed"], |_| true) || some(&certificate["copies"], |copy| copy["failed"].is_string())
}

/// Puts on record what was erased.
pub async fn certify(
    shared: &Shared,
    person: &Principal,
    id: &str,
    certificate: &Value,
) -> Result<Value, Refusal> {
    begin(shared, person, id).await?;
    let (stored, store) = find(shared, person, id).await?;
    if serde_json::from_str::<Value>(&stored.canonical).unwrap_or_default()["what"] != "erase" {
        return Err(Refusal::new("22023", format!("{id} is no erasure")));
    }
    let digest = ringfence_grants::digest(&stored.canonical);
    let record = json!({ "id": id, "by": person.name, "plan": digest, "certificate": certificate });
    shared.on_record(Entry::new(Kind::ErasureCertificate, &store.jurisdiction, &record)).await?;
    let text = certificate.to_string();
    // What could not be done is to be done yet, by the same signatures.
    let state = if has_failed(certificate) { "approved" } else { "done" };
    shared.control.advance_erasure(id, state, Some(&text)).await.map_err(|e| broken(&e))?;
    show(shared, person, id).await
}

/// Puts a stage of a flow on record: opened and checked only with all approvals, cut and closed in any case.
pub async fn flowed(
    shared: &Shared,
    person: &Principal,
    id: &str,
    stage: &str,
    more: &Value,
) -> Result<Value, Refusal> {
    let (stored, store) = match stage {
        "opened" | "checked" => {
            begin(shared, person, id).await?;
            find(shared, person, id).await?
        }
        "cut" | "closed" => find(shared, person, id).await?,
        _ => return Err(Refusal::new("22023", "a flow is opened, checked, cut or closed")),
    };
    let plan: Value = serde_json::from_str(&stored.canonical).unwrap_or_default();
    if plan["what"] != "flow" {
        return Err(Refusal::new("22023", format!("{id} is no flow")));
    }
    let record = json!({ "id": id, "flow": plan["flow"], "stage": stage, "by": person.name,
        "plan": ringfence_grants::digest(&stored.canonical), "found": more });
    let mut entry = Entry::new(Kind::Flow, &store.jurisdiction, &record);
    entry.counters.bytes = more["sent_bytes"].as_u64().unwrap_or(0);
    shared.on_record(entry).await?;
    Ok(json!({ "recorded": true }))
}
