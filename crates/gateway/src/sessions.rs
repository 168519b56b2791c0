//! Who is connected now, at the console: what has gone through each session, and the end of one by hand.

use ringfence_policy::Principal;
use serde_json::{Value, json};

use crate::console::{self, broken, refuse};
use crate::grants::Cut;
use crate::refusal::Refusal;
use crate::server::Shared;
use crate::show::may_see;

/// The sessions at the stores that this person has to do with.
pub fn list(shared: &Shared, person: &Principal) -> Value {
    let policy = shared.policy();
    let seen = |store: &str| policy.store(store).is_some_and(|(store, _)| may_see(person, store));
    let live = shared.grants.list();
    live.iter()
        .filter(|live| seen(&live.who.store))
        .map(|live| {
            let who = &live.who;
            json!({
                "session": who.session, "principal": who.principal, "location": who.location, "store": who.store,
                "access": if who.is_face { "face" } else { "full" }, "crosses": who.is_cross_border, "grants": who.grants,
                "device": who.device, "address": who.address, "application": who.application, "seconds": live.since.elapsed().as_secs(),
                "statements": live.passed.statements(), "rows": live.passed.rows(), "bytes": live.passed.bytes(),
            })
        })
        .collect()
}

/// Cuts a session. Whoever approves what a store shows may end what it shows; the session's end is on record with who and why.
pub fn cut(shared: &Shared, person: &Principal, session: &str, reason: &str) -> Result<Value, Refusal> {
    let gone = || {
        Refusal::new("22023", "there is no such session any more").hint("SHOW CLIENTS lists those that run.")
    };
    let found = shared.grants.list().into_iter().find(|live| live.who.session == session).ok_or_else(gone)?;
    let may = shared.policy().may_approve(&person.name, &found.who.store).map_err(|e| broken(&e))?;
    if let Err(why) = may {
        shared.record_refused(&person.name, &found.who.store, &format!("the end of a session: {why}"));
        return Err(refuse(why));
    }
    let reason = console::reason(reason)?.to_owned();
    let cut = Cut::ByHand { by: person.name.clone(), reason };
    shared.grants.cut_where(&cut, |who| who.session == session);
    Ok(json!({ "session": session, "cut": true }))
}
