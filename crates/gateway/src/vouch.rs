//! Approvers vouch for a key: somebody who approves asks to have one let in, others sign that, and the registry takes the result
//! ([`crate::enrolment`] judges it then). Nothing is in force by what is done here, and all of it is on record.

use std::collections::BTreeMap;

use ringfence_control::StoredEnrolment;
use ringfence_grants::request::rfc3339;
use ringfence_ledger::{Entry, Kind};
use ringfence_policy::Principal;
use ringfence_verifier::approvals::verify_signature;
use ringfence_verifier::enrolment::{Enrolled, Enrolment};
use serde_json::{Value, json};

use crate::console::{self, control_error, refuse};
use crate::refusal::Refusal;
use crate::server::Shared;

fn wrong(text: impl Into<String>) -> Refusal {
    Refusal::new("22023", text)
}

fn must_approve(shared: &Shared, person: &Principal, what: &str) -> Result<(), Refusal> {
    if shared.policy().approves_somewhere(person) {
        return Ok(());
    }
    let why = format!(
        "{} approves nothing: whoever does is in a store's team for it, and in the country",
        person.name
    );
    shared.record_refused(&person.name, "console", &format!("{what}: {why}"));
    Err(refuse(why))
}

/// Somebody who may approve asks for a key of their own to be let in.
pub async fn ask(shared: &Shared, person: &Principal, key: &str) -> Result<Value, Refusal> {
    must_approve(shared, person, "the enrolment of a key")?;
    let now = shared.now();
    let enrolment = Enrolment::new(&person.name, key, now).map_err(wrong)?;
    let canonical = enrolment.canonical().map_err(wrong)?;
    let id = console::new_name('E');
    let record = json!({ "id": id, "by": person.name, "enrolment": canonical });
    shared.on_record(Entry::new(Kind::EnrolmentRequested, "-", &record)).await?;
    shared
        .control
        .insert_enrolment(&id, &person.name, &canonical, now)
        .await
        .map_err(|e| control_error(&e))?;
    let stored = StoredEnrolment { id, canonical, signatures: BTreeMap::new() };
    Ok(tell(shared, &enrolment, &stored))
}

fn tell(shared: &Shared, enrolment: &Enrolment, stored: &StoredEnrolment) -> Value {
    let policy = shared.policy();
    let keys = policy.approver_keys();
    let lines = keys.get(&enrolment.person).map(String::as_str).unwrap_or_default().lines();
    let is_in_force = lines.into_iter().any(|line| same_key(line, &enrolment.key));
    // Rows of a database prove nothing: what counts are signatures that hold under the rules as they are.
    let holds = |name: &String, signature: &String| {
        let keys = keys.get(name).filter(|_| *name != enrolment.person);
        keys.is_some_and(|keys| verify_signature(&stored.canonical, signature, keys).is_ok())
    };
    let signatures: BTreeMap<String, String> =
        stored.signatures.iter().filter(|(n, s)| holds(n, s)).map(|(n, s)| (n.clone(), s.clone())).collect();
    let signed_by: Vec<&String> = signatures.keys().collect();
    let needed = policy.registry().approvals;
    let state = match signed_by.len() {
        _ if is_in_force => "in force",
        n if n >= needed => "signed",
        _ => "pending",
    };
    let registry = Enrolled { text: stored.canonical.clone(), signatures: signatures.clone() }.lines();
    json!({
        "id": stored.id, "person": enrolment.person, "key": enrolment.key, "created": rfc3339(enrolment.created), "state": state,
        "signed_by": signed_by, "signatures_needed": needed, "canonical": stored.canonical,
        "registry": registry,
    })
}

/// Kind and key; the comment behind them is nobody's key.
fn same_key(one: &str, other: &str) -> bool {
    let key = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    key(one) == key(other)
}

/// What waits, or waited within a month: for those who approve.
pub async fn list(shared: &Shared, person: &Principal) -> Result<Value, Refusal> {
    let policy = shared.policy();
    // The inbox asks for everybody: whoever is in no such team is told so without asking Cedar.
    if !policy.is_approver(person) || !policy.approves_somewhere(person) {
        return Ok(json!([]));
    }
    let all = shared.control.enrolments().await.map_err(|e| control_error(&e))?;
    // One that cannot be read keeps no other from being seen.
    let read = all.iter().filter_map(|one| Some((Enrolment::parse(&one.canonical).ok()?, one)));
    Ok(read.map(|(enrolment, one)| tell(shared, &enrolment, one)).collect())
}

async fn find(shared: &Shared, id: &str) -> Result<(Enrolment, StoredEnrolment), Refusal> {
    let stored = shared.control.enrolment(id).await.map_err(|e| control_error(&e))?;
    let enrolment = Enrolment::parse(&stored.canonical).map_err(|e| wrong(format!("the enrolment {e}")))?;
    Ok((enrolment, stored))
}

/// One of them.
pub async fn show(shared: &Shared, person: &Principal, id: &str) -> Result<Value, Refusal> {
    must_approve(shared, person, "an enrolment")?;
    let (enrolment, stored) = find(shared, id).await?;
    Ok(tell(shared, &enrolment, &stored))
}

/// An approver whose key is in the rules signs it.
pub async fn sign(shared: &Shared, person: &Principal, id: &str, signature: &str) -> Result<Value, Refusal> {
    must_approve(shared, person, "a signature for a key")?;
    let (enrolment, stored) = find(shared, id).await?;
    let refused = |why: String| {
        shared.record_refused(&person.name, "console", &format!("the enrolment {id}: {why}"));
        refuse(why)
    };
    if enrolment.person == person.name {
        return Err(refused("nobody enrols themselves".to_owned()));
    }
    let keys = shared.policy().approver_keys();
    let keys = keys.get(&person.name);
    let keys = keys.ok_or_else(|| refused(format!("{} has no key in the registry", person.name)))?;
    verify_signature(&stored.canonical, signature, keys).map_err(refused)?;
    let record =
        json!({ "id": id, "by": person.name, "enrolment": stored.canonical, "signature": signature });
    shared.on_record(Entry::new(Kind::EnrolmentSigned, "-", &record)).await?;
    shared.control.sign_enrolment(id, &person.name, signature).await.map_err(|e| control_error(&e))?;
    show(shared, person, id).await
}
