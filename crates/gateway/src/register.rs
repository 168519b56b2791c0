//! The register of copies, at the console: who may read and write it, and what goes on record.

use ringfence_control::{CopyState, Registered};
use ringfence_grants::request::rfc3339;
use ringfence_ledger::{Entry, Kind};
use ringfence_policy::{Policy, Principal, Store};
use serde_json::{Value, json};

use crate::refusal::{Refusal, code};
use crate::server::Shared;

/// The most copies in one command.
const MOST: usize = 200;

fn broken(e: &ringfence_control::Error) -> Refusal {
    match e {
        ringfence_control::Error::NoSuchCopy(_) => {
            Refusal::new("22023", e.to_string()).hint("`ringfence copies list` shows what there is.")
        }
        _ => Refusal::new(code::CANNOT_CONNECT, e.to_string()),
    }
}

/// The stores of a jurisdiction that this person has to do with: full access, approver or auditor.
fn theirs<'a>(policy: &'a Policy, person: &Principal, jurisdiction: &str) -> Vec<&'a Store> {
    let has = |store: &Store| {
        [&store.full_access, &store.approvers, &store.auditors]
            .iter()
            .any(|teams| !person.teams.is_disjoint(teams))
    };
    policy.stores().map(|(store, _)| store).filter(|s| s.jurisdiction == jurisdiction && has(s)).collect()
}

fn refuse(person: &Principal, jurisdiction: &str, what: &str) -> Refusal {
    let text = format!("{} may not {what} the register of copies of {jurisdiction}", person.name);
    Refusal::new(code::INSUFFICIENT_PRIVILEGE, text)
}

/// All copies of a jurisdiction, for whoever has to do with one of its stores.
pub async fn list(shared: &Shared, person: &Principal, jurisdiction: &str) -> Result<Value, Refusal> {
    if theirs(&shared.policy(), person, jurisdiction).is_empty() {
        return Err(refuse(person, jurisdiction, "read"));
    }
    let copies = shared.control.copies(jurisdiction).await.map_err(|e| broken(&e))?;
    Ok(copies.iter().map(|copy| tell(shared, copy)).collect())
}

fn tell(shared: &Shared, copy: &Registered) -> Value {
    let now = shared.now();
    let policy = shared.policy();
    let countries = policy.registry().jurisdictions.get(&copy.jurisdiction);
    let mut told: Value = serde_json::from_str(&copy.description).unwrap_or_default();
    let location = told["location"].as_str().unwrap_or("?").to_owned();
    let is_outside = countries.is_none_or(|j| !j.countries.contains(&location));
    let holds_nobody = told["holds"] == "nobody" || told["holds"] == "destroyed";
    let is_excepted = copy.state == CopyState::Excepted && copy.until.is_none_or(|until| now < until);
    let is_finding = is_outside && !holds_nobody && !is_excepted && copy.state != CopyState::Gone;
    if let Some(fields) = told.as_object_mut() {
        fields.insert("state".to_owned(), json!(copy.state));
        fields.insert("finding".to_owned(), json!(is_finding));
        fields.insert("excepted".to_owned(), json!(is_excepted));
        fields.insert("first_seen".to_owned(), json!(rfc3339(copy.first_seen)));
        fields.insert("last_seen".to_owned(), json!(rfc3339(copy.last_seen)));
        if let (Some(by), Some(reason)) = (&copy.decided_by, &copy.reason) {
            fields.insert("decided_by".to_owned(), json!(by));
            fields.insert("reason".to_owned(), json!(reason));
        }
        if let Some(until) = copy.until {
            fields.insert("until".to_owned(), json!(rfc3339(until)));
        }
    }
    told
}

/// Registers what a scan found, or what somebody names. What is new is on record before it is registered.
pub async fn register(
    shared: &Shared,
    person: &Principal,
    jurisdiction: &str,
    found: &[Value],
) -> Result<Value, Refusal> {
    let policy = shared.policy();
    let may = theirs(&policy, person, jurisdiction)
        .iter()
        .any(|s| !person.teams.is_disjoint(&s.full_access) || !person.teams.is_disjoint(&s.approvers));
    if !may {
        return Err(refuse(person, jurisdiction, "write"));
    }
    if found.len() > MOST {
        return Err(Refusal::new("22023", format!("at most {MOST} copies at once")));
    }
    let known = shared.control.copies(jurisdiction).await.map_err(|e| broken(&e))?;
    let mut new = 0_u64;
    for copy in found {
        let (Some(id), true) = (copy["id"].as_str(), copy["jurisdiction"] == jurisdiction) else {
            return Err(Refusal::new("22023", "a copy has no name, or is of another jurisdiction"));
        };
        let before = known.iter().find(|k| k.id == id);
        let told = before.and_then(|k| serde_json::from_str::<Value>(&k.description).ok());
        // An exception is of one thing: another must not come by its name.
        if let Some(told) = &told
            && ["kind", "location", "place"].iter().any(|key| told[*key] != copy[*key])
        {
            return Err(Refusal::new("22023", format!("{id} is something else in the register")));
        }
        let is_new = before.is_none_or(|k| k.state == CopyState::Gone);
        new += u64::from(is_new);
        // That nothing is in it any more, or that nobody can read it, is a statement like that it is there.
        if is_new || told.is_none_or(|told| told["holds"] != copy["holds"] || told["key"] != copy["key"]) {
            let record = json!({ "id": id, "state": "registered", "by": person.name, "copy": copy });
            shared.on_record(Entry::new(Kind::Copy, jurisdiction, &record)).await?;
        }
        let now = shared.now();
        shared
            .control
            .register_copy(id, jurisdiction, &copy.to_string(), now)
            .await
            .map_err(|e| broken(&e))?;
    }
    Ok(json!({ "registered": found.len(), "new": new }))
}

/// Puts on record that somebody has opened a copy: before they do.
pub async fn opened(shared: &Shared, person: &Principal, id: &str, reason: &str) -> Result<Value, Refusal> {
    let copy = shared.control.copy(id).await.map_err(|e| broken(&e))?;
    let policy = shared.policy();
    let theirs = theirs(&policy, person, &copy.jurisdiction);
    if !theirs.iter().any(|store| !person.teams.is_disjoint(&store.full_access)) {
        return Err(refuse(person, &copy.jurisdiction, "open copies of"));
    }
    if reason.trim().is_empty() {
        return Err(Refusal::new("22023", "a reason is needed"));
    }
    let record = json!({ "id": id, "state": "opened", "by": person.name, "reason": reason });
    shared.on_record(Entry::new(Kind::Copy, &copy.jurisdiction, &record)).await?;
    Ok(json!({ "id": id, "recorded": true }))
}

/// Excepts a copy for a time, or says that it is gone. An exception is for the in-country security team.
pub async fn decide(
    shared: &Shared,
    person: &Principal,
    id: &str,
    state: CopyState,
    reason: &str,
    until: Option<u64>,
) -> Result<Value, Refusal> {
    let copy = shared.control.copy(id).await.map_err(|e| broken(&e))?;
    let policy = shared.policy();
    let theirs = theirs(&policy, person, &copy.jurisdiction);
    let Some(store) = theirs.first() else {
        return Err(refuse(person, &copy.jurisdiction, "write"));
    };
    if state == CopyState::Excepted {
        let verdict = policy.may_approve(&person.name, &store.name);
        let verdict = verdict.map_err(|e| Refusal::new(code::CANNOT_CONNECT, e.to_string()))?;
        if let Err(why) = verdict {
            shared.record_refused(&person.name, &store.name, &format!("exception of {id}: {why}"));
            return Err(Refusal::new(code::INSUFFICIENT_PRIVILEGE, why)
                .hint("Exceptions are decided by the in-country security team."));
        }
    }
    if reason.trim().is_empty() {
        return Err(Refusal::new("22023", "a reason is needed"));
    }
    let record =
        json!({ "id": id, "state": state, "by": person.name, "reason": reason, "until": until.map(rfc3339) });
    shared.on_record(Entry::new(Kind::Copy, &copy.jurisdiction, &record)).await?;
    shared.control.decide_copy(id, state, &person.name, reason, until).await.map_err(|e| broken(&e))?;
    let copy = shared.control.copy(id).await.map_err(|e| broken(&e))?;
    Ok(tell(shared, &copy))
}
