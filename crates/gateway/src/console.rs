//! The store name `ringfence`: where people ask, approve, deny and revoke. The command line speaks to it as `psql` would, with
//! the same password; so does `psql` itself (`requests`, `grants`, `status`, `help`).
//!
//! A command is a word or a JSON object with `do`; the answer is one row with one JSON value.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ringfence_control::{CopyState, State};
use ringfence_grants::{Ask, Less};
use ringfence_ledger::{Entry, Kind};
use ringfence_policy::{Policy, Principal, Store};
use ringfence_verifier::orders::What;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::backend::Stream;
use crate::facts::Facts;
use crate::frame::{Body, Buffer, HEADER, put, put_parameter, put_ready, put_str};
use crate::grants::Cut;
use crate::refusal::{Refusal, code};
use crate::route::{self, Hold, Progress, Route};
use crate::server::Shared;
use crate::{orders, plans, presence, register, sessions, show, vouch};

/// The database name that leads here.
pub const NAME: &str = "ringfence";
/// The longest command, in bytes.
const MAX_COMMAND: usize = 64 * 1024;
/// The longest that running transactions are waited for, in milliseconds.
const LONGEST_HOLD: u64 = 10_000;

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Command {
    Help,
    Status,
    Requests,
    Grants,
    Request { ask: Ask },
    Show { id: String },
    Like { id: String },
    Approve { id: String, signature: String },
    Deny { id: String, reason: String },
    Narrow { id: String, less: Less },
    Sessions,
    Cut { session: String, reason: String },
    Unbind { name: String, reason: String },
    Suspended,
    Order { jurisdiction: String, what: What, reason: String },
    Ordered { id: String },
    Give { id: String, signature: String },
    Enrol { key: String },
    Enrolments,
    Enrolment { id: String },
    Vouch { id: String, signature: String },
    Revoke { id: String, reason: String },
    Hold { route: String, within_ms: u64 },
    Release { route: String },
    Moved { route: String, record: Value },
    Progress { route: String, progress: Progress },
    Copies { jurisdiction: String },
    Register { jurisdiction: String, found: Vec<Value> },
    Except { id: String, reason: String, until: Option<u64> },
    Gone { id: String, reason: String },
    Opened { id: String, reason: String },
    Plans { what: String },
    Plan { id: String },
    Propose { plan: Value, purpose: String },
    Sign { id: String, signature: String },
    Begin { id: String },
    Certify { id: String, certificate: Value },
    Flowed { id: String, stage: String, found: Value },
}

/// What a connection to the console holds; when it goes, everything is let go.
type Holds = HashMap<String, Hold>;

pub(crate) fn refuse(text: impl Into<String>) -> Refusal {
    Refusal::new(code::INSUFFICIENT_PRIVILEGE, text)
}

pub(crate) fn broken(e: &impl std::fmt::Display) -> Refusal {
    Refusal::new(code::CANNOT_CONNECT, e.to_string())
}

/// The longest reason, in bytes.
const MAX_REASON: usize = 500;

/// A reason that somebody gives, without the space around it.
pub(crate) fn reason(text: &str) -> Result<&str, Refusal> {
    if text.trim().is_empty() || text.len() > MAX_REASON || text.chars().any(char::is_control) {
        return Err(Refusal::new("22023", format!("say why, in one line of at most {MAX_REASON} bytes")));
    }
    Ok(text.trim())
}

/// A name for what waits for signatures: a letter, and forty random bits in hex.
pub(crate) fn new_name(letter: char) -> String {
    use rand_core::RngCore as _;
    let mut bytes = [0; 5];
    rand_core::OsRng.fill_bytes(&mut bytes);
    format!("{letter}-{}", hex::encode(bytes))
}

pub(crate) fn control_error(e: &ringfence_control::Error) -> Refusal {
    match e {
        ringfence_control::Error::Database(_) => broken(e),
        _ => Refusal::new("22023", e.to_string()).hint("`ringfence requests` shows what there is."),
    }
}

/// Answers commands until the client leaves.
pub async fn run(
    shared: &Arc<Shared>,
    mut client: Box<dyn Stream>,
    mut buffer: Buffer,
    principal: Principal,
    given: Option<u64>,
) -> std::io::Result<()> {
    let mut out = Vec::new();
    let mut holds = Holds::new();
    let parameters = [
        ("server_version", "15.0 (Ringfence console)"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
    ];
    for (name, value) in parameters {
        put_parameter(&mut out, name, value);
    }
    put(&mut out, b'K', |out| out.extend_from_slice(&[0; 8]));
    put_ready(&mut out, b'I');
    client.write_all(&out).await?;
    let mut skipping = false;
    let name = principal.name.clone();
    let facts = Facts::of(&shared.policy(), &principal);
    let mut rules_changed = shared.rules_changed();
    loop {
        let head = tokio::select! {
            biased;
            _ = rules_changed.changed() => None,
            head = buffer.frame(&mut client, MAX_COMMAND) => match head? {
                Some(head) => Some(head),
                None => break,
            },
        };
        // The person as the rules have them now, for each command and each time that they change.
        let policy = shared.policy();
        let today = policy.registry().principal(&name).filter(|p| Facts::of(&policy, p) == facts);
        let Some(principal) = today.cloned() else {
            client.write_all(&Cut::PolicyChanged.refusal().fatal()).await?;
            break;
        };
        let Some(head) = head else { continue };
        let body = buffer.data()[HEADER..head.total].to_vec();
        buffer.consume(head.total);
        out.clear();
        if let Err(cut) = shared.people.judge(&principal.name, given) {
            client.write_all(&cut.refusal().fatal()).await?;
            break;
        }
        match head.tag {
            b'Q' => {
                match Body(&body).string().map(str::trim) {
                    Some("" | ";") => put(&mut out, b'I', |_| {}),
                    Some(text) => match show::answer(shared, &principal, text) {
                        Some(Ok(table)) => table.write(&mut out),
                        Some(Err(refusal)) => refusal.error(&mut out),
                        None => match command(shared, &principal, text, &mut holds).await {
                            Ok(value) => row(&mut out, &value),
                            Err(refusal) => refusal.error(&mut out),
                        },
                    },
                    None => Refusal::new(code::SYNTAX_ERROR, "the command is not UTF-8").error(&mut out),
                }
                put_ready(&mut out, b'I');
            }
            b'X' => break,
            b'S' => {
                skipping = false;
                put_ready(&mut out, b'I');
            }
            _ if skipping => {}
            _ => {
                skipping = true;
                Refusal::new(code::FEATURE_NOT_SUPPORTED, "the console takes simple queries only")
                    .error(&mut out);
            }
        }
        client.write_all(&out).await?;
        client.flush().await?;
    }
    client.shutdown().await
}

/// One column `ringfence` of type json, one row.
fn row(out: &mut Vec<u8>, value: &Value) {
    put(out, b'T', |out| {
        out.extend_from_slice(&1_u16.to_be_bytes());
        put_str(out, "ringfence");
        out.extend_from_slice(&[0; 6]); // no table
        out.extend_from_slice(&114_u32.to_be_bytes()); // json
        out.extend_from_slice(&(-1_i16).to_be_bytes());
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        out.extend_from_slice(&0_u16.to_be_bytes());
    });
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    put(out, b'D', |out| {
        out.extend_from_slice(&1_u16.to_be_bytes());
        out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    });
    put(out, b'C', |out| put_str(out, "SELECT 1"));
}

/// One command for somebody who has logged in elsewhere, as the command line would give it. What a connection would hold is let go at
/// once.
pub async fn answer(shared: &Arc<Shared>, principal: &Principal, command: &Value) -> Result<Value, Refusal> {
    let text = command.to_string();
    self::command(shared, principal, &text, &mut Holds::new()).await
}

async fn command(
    shared: &Arc<Shared>,
    principal: &Principal,
    text: &str,
    holds: &mut Holds,
) -> Result<Value, Refusal> {
    let text = text.trim_end_matches(';').trim();
    let parsed = if text.starts_with('{') {
        serde_json::from_str(text)
    } else {
        serde_json::from_value(json!({ "do": text.to_ascii_lowercase() }))
    };
    let command = parsed.map_err(|_| {
        Refusal::new(code::SYNTAX_ERROR, "this is not a command of the Ringfence console")
            .hint("Commands in psql: requests, grants, status, show help, help. For the others use the ringfence command line.")
    })?;
    let desk = Desk { shared, policy: shared.policy(), principal };
    match command {
        Command::Help => Ok(json!({ "commands": ["requests", "grants", "status", "show help", "help"],
            "command line": ["ringfence request", "ringfence approve", "ringfence deny", "ringfence revoke"] })),
        Command::Status => Ok(desk.status()),
        Command::Requests => {
            desk.list(&[State::Pending, State::Granted, State::Denied, State::Revoked, State::Expired]).await
        }
        Command::Like { id } => desk.like(&id).await,
        Command::Grants => desk.list(&[State::Granted]).await,
        Command::Show { id } => {
            let stored = shared.control.look(&id).await.map_err(|e| control_error(&e))?;
            desk.may_read(&stored)?;
            Ok(desk.tell(&stored))
        }
        Command::Request { ask } => desk.request(ask).await,
        Command::Approve { id, signature } => desk.approve(&id, signature).await,
        Command::Deny { id, reason } => desk.deny(&id, &reason).await,
        Command::Narrow { id, less } => desk.narrow(&id, &less).await,
        Command::Sessions => Ok(sessions::list(shared, principal)),
        Command::Cut { session, reason } => sessions::cut(shared, principal, &session, &reason),
        Command::Unbind { name, reason } => presence::unbind(shared, principal, &name, &reason).await,
        Command::Suspended => Ok(orders::list(shared)),
        Command::Order { jurisdiction, what, reason } => {
            orders::propose(shared, principal, &jurisdiction, what, &reason).await
        }
        Command::Ordered { id } => orders::show(shared, principal, &id).await,
        Command::Give { id, signature } => orders::sign(shared, principal, &id, &signature).await,
        Command::Enrol { key } => vouch::ask(shared, principal, &key).await,
        Command::Enrolments => vouch::list(shared, principal).await,
        Command::Enrolment { id } => vouch::show(shared, principal, &id).await,
        Command::Vouch { id, signature } => vouch::sign(shared, principal, &id, &signature).await,
        Command::Revoke { id, reason } => desk.revoke(&id, &reason).await,
        Command::Hold { route, within_ms } => {
            let held =
                desk.route(&route)?.hold(shared, Duration::from_millis(within_ms.min(LONGEST_HOLD))).await;
            let hold = held.map_err(|inside| still_inside(&route, inside))?;
            holds.insert(route.clone(), hold);
            Ok(json!({ "route": route, "held": true }))
        }
        Command::Release { route } => {
            let found = desk.route(&route)?;
            let held = if let Some(hold) = holds.remove(&route) {
                hold.release().await
            } else {
                route::look(shared, found).await.map_err(|e| broken(&e))?;
                Duration::ZERO
            };
            Ok(json!({ "route": route, "store": found.store()?, "held_ms": held.as_secs_f64() * 1000.0 }))
        }
        Command::Moved { route, record } => desk.moved(&route, record).await,
        Command::Progress { route, progress } => {
            if desk.route(&route)?.tell(progress) {
                shared.grants.announce();
            }
            Ok(json!({ "route": route }))
        }
        Command::Copies { jurisdiction } => register::list(shared, principal, &jurisdiction).await,
        Command::Register { jurisdiction, found } => {
            register::register(shared, principal, &jurisdiction, &found).await
        }
        Command::Except { id, reason, until } => {
            register::decide(shared, principal, &id, CopyState::Excepted, &reason, until).await
        }
        Command::Opened { id, reason } => register::opened(shared, principal, &id, &reason).await,
        Command::Plans { what } => plans::list(shared, principal, &what).await,
        Command::Plan { id } => plans::show(shared, principal, &id).await,
        Command::Propose { plan, purpose } => plans::request(shared, principal, plan, &purpose).await,
        Command::Sign { id, signature } => plans::approve(shared, principal, &id, signature).await,
        Command::Begin { id } => plans::begin(shared, principal, &id).await,
        Command::Certify { id, certificate } => plans::certify(shared, principal, &id, &certificate).await,
        Command::Flowed { id, stage, found } => plans::flowed(shared, principal, &id, &stage, &found).await,
        Command::Gone { id, reason } => {
            register::decide(shared, principal, &id, CopyState::Gone, &reason, None).await
        }
    }
}

fn still_inside(route: &str, inside: usize) -> Refusal {
    Refusal::new("55006", format!("{inside} sessions of {route} are in the middle of something, and nobody is held"))
        .hint("A transaction that is open, or what a session keeps in its connection (temporary tables, LISTEN, session locks), cannot be moved. SHOW CLIENTS lists them; try again when they are done.")
}

/// One person at the console.
pub(crate) struct Desk<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) principal: &'a Principal,
}

impl Desk<'_> {
    fn status(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "policy": self.policy.digest(),
            "sessions": self.shared.grants.sessions(),
            "ledger": { "entries": self.shared.ledger.size(), "writable": self.shared.ledger.healthy().is_ok() },
        })
    }

    /// A route that this person may move.
    fn route(&self, name: &str) -> Result<&Arc<Route>, Refusal> {
        let found = self.shared.routes.get(name);
        let route = found
            .ok_or_else(|| Refusal::new(code::NO_SUCH_DATABASE, format!("there is no route \"{name}\"")))?;
        if self.principal.teams.is_disjoint(&route.movers) {
            let why = format!("{} may not move what {name} leads to", self.principal.name);
            self.shared.record_refused(&self.principal.name, name, &why);
            return Err(refuse(why).hint("The route's movers are named in the configuration."));
        }
        Ok(route)
    }

    /// Puts a stage of a move on record.
    async fn moved(&self, route: &str, mut record: Value) -> Result<Value, Refusal> {
        let found = self.route(route)?;
        let store = found.store()?;
        let stage = record["stage"].as_str().unwrap_or_default().to_owned();
        if let Some(fields) = record.as_object_mut() {
            fields.insert("by".to_owned(), json!(self.principal.name));
            fields.insert("route".to_owned(), json!(route));
        }
        self.on_record(Kind::Move, self.store(&store)?, &record).await?;
        if found.tell(Progress::at(&stage)) {
            self.shared.grants.announce();
        }
        Ok(json!({ "recorded": true }))
    }

    pub(crate) fn store(&self, name: &str) -> Result<&Store, Refusal> {
        let found = self.policy.store(name).map(|(s, _)| s);
        found.ok_or_else(|| Refusal::new(code::NO_SUCH_DATABASE, format!("there is no store \"{name}\"")))
    }

    pub(crate) async fn on_record(&self, kind: Kind, store: &Store, record: &Value) -> Result<(), Refusal> {
        self.shared.on_record(Entry::new(kind, &store.jurisdiction, record)).await
    }
}
