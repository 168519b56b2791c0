//! A session: from the proven name to the end. Asks policy, has the face compiled, takes a connection to the store as the
//! face's role, opens the session in the ledger, and runs the two sides until one of them is done.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringfence_face::{Filter, Login, Steward};
use ringfence_ledger::{Entry, Kind};
use ringfence_policy::{Access, Outcome, Policy, Principal, Standing, Store, Visibility};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};

use crate::backend::{Address, Backend, BackendError, Stream};
use crate::cancel::Target;
use crate::flow::{Awaited, Flow, InFlight};
use crate::frame::{Buffer, put, put_parameter, put_ready};
use crate::grants::{ActiveGrant, Cut, Dependent};
use crate::pool::Key;
use crate::quota::{Limited, Quota};
use crate::records::{ClosedRecord, OutcomeRecord, RefusedRecord, SessionRecord, outcome};
use crate::refusal::{Refusal, code};
use crate::server::Shared;
use crate::startup::Startup;
use crate::statement::Verdict;
use crate::{client_side, store_side};

/// How a session's statements are treated.
#[derive(Debug)]
pub enum Mode {
    /// Through a face: judged, logged one by one.
    Face(Outcome),
    /// The base tables: logged one by one, otherwise as they are.
    Full,
    /// The base tables: counted.
    Counted,
}

/// What both sides know.
pub struct Session {
    /// What all sessions share.
    pub shared: Arc<Shared>,
    /// The rules as of its beginning.
    pub policy: Arc<Policy>,
    /// Its name in the ledger.
    pub id: String,
    /// Who.
    pub principal: Principal,
    /// Where to.
    pub store: Store,
    /// How.
    pub mode: Mode,
    /// The limits of its grants.
    pub quota: Arc<Quota>,
    /// What is under way.
    pub flow: Arc<Mutex<Flow>>,
    /// Rung when a batch is answered, or when the store waits for COPY data.
    pub answered: Notify,
    told: Mutex<BTreeSet<String>>,
}

/// Why a session is over.
#[derive(Debug)]
pub enum End {
    /// The client said goodbye or went away.
    Client,
    /// The store closed the connection; whether the client has heard why.
    Store {
        /// The store's own FATAL error was passed on.
        told: bool,
    },
    /// Cut; whether the client's stream stands between two frames.
    Cut(Cut, bool),
    /// Refused for good in the middle: the client hears this, if its stream stands between two frames.
    Refused(Refusal, bool),
}

/// Start parameters that a governed person may set. `options`, `replication` and settings that change what statements mean
/// would beat those of the role and outlive DISCARD ALL.
const PARAMETERS: &[&str] =
    &["application_name", "client_encoding", "DateStyle", "TimeZone", "IntervalStyle", "extra_float_digits"];

impl Session {
    /// The state that both sides share.
    pub fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether statements are logged one by one.
    pub fn is_logged(&self) -> bool {
        !matches!(self.mode, Mode::Counted)
    }

    /// Whether a face is between the session and the data.
    pub fn is_face(&self) -> bool {
        matches!(self.mode, Mode::Face(_))
    }

    /// A statement is over: its outcome goes on record.
    pub fn conclude(&self, statement: &InFlight, cut: Option<&str>) {
        let InFlight { number, shape, rows, bytes, failed, .. } = statement;
        if let Some(shape) = shape {
            let (principal, store) = (&self.principal.name, &self.store);
            self.shared.counting.add(principal, &store.name, &store.jurisdiction, *shape, *rows);
        }
        let Some(n) = *number else { return };
        let ended = match (cut, failed) {
            (Some(reason), _) => format!("cut: {reason}"),
            (None, Some(sqlstate)) => format!("error {sqlstate}"),
            (None, None) => "ok".to_owned(),
        };
        let record = OutcomeRecord { session: &self.id, n, principal: &self.principal.name, ended: &ended };
        self.shared.ledger.record(outcome(&self.store.jurisdiction, &record, *rows, *bytes));
    }

    /// A statement was refused: that goes on record.
    pub fn refused(&self, reason: &str, statement: Option<&str>) {
        let record = RefusedRecord {
            session: Some(&self.id),
            principal: &self.principal.name,
            store: &self.store.name,
            reason,
            statement,
        };
        self.shared.ledger.record(Entry::new(Kind::Refused, &self.store.jurisdiction, &record));
    }

    /// Why this person does not see everything.
    fn reason(&self) -> String {
        match self.policy.standing(&self.principal, &self.store) {
            Standing::InCountry => format!("your teams have no full access to {}", self.store.name),
            Standing::Outside(place) => {
                format!("you are in {place}, outside the jurisdiction {}", self.store.jurisdiction)
            }
            Standing::Unknown => "nobody attested where you are".to_owned(),
            Standing::Covered(why) => {
                format!("{}, so you are a covered person (28 CFR 202.211)", why.because)
            }
        }
    }

    fn how_to_ask(&self, columns: &[String]) -> String {
        format!(
            "ringfence request --as {} --store {} --columns {} --where \"…\" --purpose \"…\" --for 2h --max-rows 100",
            self.principal.name,
            self.store.name,
            columns.join(",")
        )
    }

    /// What a statement's answer should come with: a notice about columns that are masked, once a session, and a hint for
    /// an error about columns that are absent.
    pub fn explain(&self, verdict: &Verdict) {
        let Mode::Face(outcome) = &self.mode else { return };
        let Some((_, catalogue)) = self.policy.store(&self.store.name) else { return };
        let (mut masked, mut absent) = (Vec::new(), Vec::new());
        let mut closed = None;
        for table in verdict.tables.iter().collect::<BTreeSet<_>>() {
            let Some(classified) = catalogue.tables.get(table) else { continue };
            let Some(seen) = outcome.tables.get(table) else {
                closed = Some(table);
                continue;
            };
            for column in classified.columns.iter().filter(|(_, c)| c.protected().is_some()).map(|(n, _)| n) {
                let mentioned = verdict.columns.contains(column);
                match seen.get(column) {
                    Some(c) if !c.granted_by.is_empty() || c.base == Visibility::Clear => {}
                    Some(c) if c.base == Visibility::Masked && (mentioned || verdict.star) => {
                        masked.push(format!("{table}.{column}"));
                    }
                    _ if mentioned || verdict.star => absent.push(format!("{table}.{column}")),
                    _ => {}
                }
            }
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        masked.retain(|c| told.insert(c.clone()));
        drop(told);
        let mut flow = self.flow();
        if !masked.is_empty() {
            let verb = verb(masked.len());
            Refusal::new("00000", format!("{} {verb} masked for you: {}", masked.join(", "), self.reason()))
                .hint(format!("To see the values, ask: {}", self.how_to_ask(&masked)))
                .notice(&mut flow.notices);
        }
        flow.hint = match (absent.is_empty(), closed) {
            (false, _) => Some(format!(
                "{} {} not shown to you: {}. Ask: {}",
                absent.join(", "),
                verb(absent.len()),
                self.reason(),
                self.how_to_ask(&absent)
            )),
            (true, Some(table)) => {
                Some(format!("{table} is not shown to you, and no grant opens it: {}.", self.reason()))
            }
            (true, None) => None,
        };
    }
}

fn verb(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// Everything between the decision and the first frame.
struct Opened {
    session: Session,
    backend: Backend,
    key: Key,
    address: Address,
    cut: watch::Receiver<Option<Cut>>,
    /// When the first of its grants ends, and which.
    deadline: Option<(tokio::time::Instant, String)>,
    _attached: crate::grants::Attached,
}

fn cannot_connect(e: &impl std::fmt::Display) -> Refusal {
    Refusal::new(code::CANNOT_CONNECT, e.to_string())
        .hint("The gateway is up, the store is not, or does not accept it; tell its operator.")
}

async fn open(
    shared: &Arc<Shared>,
    principal: Principal,
    startup: &Startup,
    address: &str,
) -> Result<Opened, Refusal> {
    let policy = shared.policy();
    let name = principal.name.clone();
    let found = policy.store(&startup.database).zip(shared.stores.get(&startup.database));
    let ((store, catalogue), behind) = found.ok_or_else(|| {
        let known: Vec<&str> = policy.stores().map(|(s, _)| s.name.as_str()).collect();
        Refusal::new(code::NO_SUCH_DATABASE, format!("there is no store \"{}\"", startup.database)).hint(
            format!("The database name is the jurisdiction or the store; known are: {}", known.join(", ")),
        )
    })?;
    let undecided = |e: ringfence_policy::Error| {
        Refusal::new(code::INVALID_AUTHORIZATION, "access cannot be decided, so it is refused")
            .detail(e.to_string())
    };
    let access = policy.access(&name, &store.name).map_err(undecided)?;
    let mut grants: Vec<Arc<ActiveGrant>> = Vec::new();
    let (login, mode) = match access {
        Access::Refused(why) => {
            return Err(Refusal::new(code::INVALID_AUTHORIZATION, format!("access to {} is refused: {why}", store.name))
                .hint("The in-country security team decides about access; policies are in the gateway's configuration."));
        }
        Access::Full => {
            let login = behind.steward.full(&name).await.map_err(|e| cannot_connect(&e))?;
            let counted = policy.is_counted(&name, &store.name).map_err(undecided)?;
            (login, if counted { Mode::Counted } else { Mode::Full })
        }
        Access::Face => {
            grants = shared.grants.of(&name, &store.name);
            let scopes: Vec<_> = grants.iter().map(|g| g.request.scope()).collect();
            let outcome = policy.outcome(&name, &store.name, &scopes).map_err(undecided)?;
            let filters: Result<Vec<Filter>, _> =
                grants.iter().map(|g| g.request.filter(catalogue)).collect();
            let filters = filters.map_err(|e| cannot_connect(&e))?;
            let login = behind.steward.compile(&name, &outcome, catalogue, &filters).await;
            (login.map_err(|e| cannot_connect(&e))?, Mode::Face(outcome))
        }
    };
    let parameters = start_parameters(&mode, startup)?;
    let ids: Vec<String> = grants.iter().map(|g| g.request.id.clone()).collect();
    let is_face = matches!(mode, Mode::Face(_));
    let who = Dependent { principal: name.clone(), store: store.name.clone(), is_face, grants: ids.clone() };
    let (attached, cut) = shared.grants.attach(who).map_err(|cut| cut.refusal())?;
    if shared.policy().digest() != policy.digest() {
        // The rules changed between the decision and the list of sessions that a change cuts.
        return Err(Cut::PolicyChanged.refusal());
    }
    let key = Key { store: store.name.clone(), role: login.role.clone(), parameters };
    let backend = connect(shared, &key, &behind.address, &behind.database, &login).await?;
    let id = hex::encode(rand_u64().to_be_bytes());
    let record = SessionRecord {
        session: id.clone(),
        principal: name,
        location: principal.place().to_owned(),
        employer: principal.employer.clone(),
        covered: policy.coverage(&principal).map(|c| c.because),
        store: store.name.clone(),
        face: login.face.clone(),
        role: login.role.clone(),
        process: backend.process,
        grants: ids,
        policy: policy.digest().to_owned(),
        address: address.to_owned(),
        application: startup.parameter("application_name").unwrap_or_default().to_owned(),
    };
    shared.ledger.record(Entry::new(Kind::SessionOpened, &store.jurisdiction, &record));
    let session = Session {
        shared: Arc::clone(shared),
        id,
        store: store.clone(),
        principal,
        mode,
        quota: Arc::new(quota(shared, &behind.steward, &login, &grants)),
        flow: Arc::new(Mutex::new(Flow::new())),
        answered: Notify::new(),
        told: Mutex::default(),
        policy: Arc::clone(&policy),
    };
    let deadline = grants.iter().map(|g| (g.deadline, g.request.id.clone())).min();
    Ok(Opened { session, backend, key, address: behind.address.clone(), cut, deadline, _attached: attached })
}

fn quota(shared: &Shared, steward: &Arc<Steward>, login: &Login, grants: &[Arc<ActiveGrant>]) -> Quota {
    let limited = grants
        .iter()
        .filter_map(|g| {
            let max = g.request.max_rows?;
            Some(Limited { id: g.request.id.clone(), table: g.request.table.clone(), max })
        })
        .collect();
    Quota::new(Arc::clone(&shared.control), Arc::clone(steward), login.face.clone(), limited)
}

fn rand_u64() -> u64 {
    use rand_core::RngCore as _;
    rand_core::OsRng.next_u64()
}

/// The start parameters for the store.
fn start_parameters(mode: &Mode, startup: &Startup) -> Result<Vec<(String, String)>, Refusal> {
    let refuse = |name: &str, why: &str| {
        Err(Refusal::new(code::FEATURE_NOT_SUPPORTED, format!("the start parameter \"{name}\" is refused"))
            .detail(why))
    };
    let mut parameters = startup.parameters.clone();
    if startup.parameter("replication").is_some_and(|v| !["false", "off", "no", "0"].contains(&v)) {
        return refuse(
            "replication",
            "A replication connection reads everything, past every face and every record.",
        );
    }
    parameters.retain(|(name, _)| name != "replication");
    if matches!(mode, Mode::Face(_)) {
        for (name, value) in &parameters {
            if !PARAMETERS.iter().any(|p| p.eq_ignore_ascii_case(name)) {
                return refuse(
                    name,
                    "Through a face, clients may not change how the store reads statements or keeps limits.",
                );
            }
            let utf8 = ["utf8", "utf-8", "unicode", "'utf-8'", "'utf8'"];
            if name.eq_ignore_ascii_case("client_encoding")
                && !utf8.contains(&value.to_ascii_lowercase().as_str())
            {
                return refuse(
                    name,
                    "The gateway and the store must read the same statement: use UTF8 (PGCLIENTENCODING=UTF8).",
                );
            }
        }
        // What the gateway's parser takes for granted.
        parameters.retain(|(name, _)| !name.eq_ignore_ascii_case("client_encoding"));
        parameters.push(("client_encoding".to_owned(), "UTF8".to_owned()));
        parameters.push(("standard_conforming_strings".to_owned(), "on".to_owned()));
    }
    parameters.sort();
    Ok(parameters)
}

/// A connection from the pool or a new one.
async fn connect(
    shared: &Shared,
    key: &Key,
    address: &Address,
    database: &str,
    login: &Login,
) -> Result<Backend, Refusal> {
    while let Some(mut backend) = shared.pool.take(key) {
        // It was reset when it was put there, and may have died since; an empty query tells.
        let alive = tokio::time::timeout(Duration::from_secs(2), backend.ping()).await;
        if matches!(alive, Ok(Ok(()))) {
            return Ok(backend);
        }
    }
    let mut connected = dial(address, database, login, key).await;
    for _ in 0..5 {
        let is_full = matches!(&connected, Err(refusal) if refusal.code == code::TOO_MANY_CONNECTIONS);
        // Connections of the same role that wait, for a client with other start parameters, make room.
        if !is_full || !shared.pool.evict(key) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await; // the store needs a moment to see them go
        connected = dial(address, database, login, key).await;
    }
    connected
}

async fn dial(address: &Address, database: &str, login: &Login, key: &Key) -> Result<Backend, Refusal> {
    let connecting = Backend::connect(address, database, login, &key.parameters);
    match tokio::time::timeout(Duration::from_secs(10), connecting).await {
        Ok(Ok(backend)) => Ok(backend),
        Ok(Err(BackendError::Refused { code: sqlstate, message })) => {
            let known = if sqlstate == "53300" { code::TOO_MANY_CONNECTIONS } else { code::CANNOT_CONNECT };
            Err(Refusal::new(known, format!("the store refused the connection: {message} ({sqlstate})")))
        }
        Ok(Err(e)) => Err(cannot_connect(&e)),
        Err(_) => Err(cannot_connect(&"the store did not answer within 10 s")),
    }
}

/// Runs a session on a client that has proven to be `principal`.
pub async fn run(
    shared: &Arc<Shared>,
    mut client: Box<dyn Stream>,
    mut buffer: Buffer,
    principal: Principal,
    startup: Startup,
    address: &str,
) -> std::io::Result<()> {
    let name = principal.name.clone();
    let Opened { session, backend, key, address, mut cut, deadline, _attached } =
        match open(shared, principal, &startup, address).await {
            Ok(opened) => opened,
            Err(refusal) => {
                shared.record_refused(&name, &startup.database, &refusal.message);
                client.write_all(&refusal.fatal()).await?;
                return client.shutdown().await;
            }
        };
    let target = Target::new(address, backend.process, backend.secret.clone(), Arc::clone(&session.flow));
    let cancel_key = shared.cancels.register(&target);
    let mut out = Vec::with_capacity(1024);
    greet(&mut out, &session, &backend, cancel_key);
    client.write_all(&out).await?;

    let Backend { stream, buffer: mut from_store, parameters, process, secret } = backend;
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut store_read, mut store_write) = tokio::io::split(stream);
    let end = {
        let client_side = client_side::run(&session, &mut client_read, &mut buffer, &mut store_write);
        let store_side = store_side::run(
            &session,
            &mut store_read,
            &mut from_store,
            &mut client_write,
            &mut cut,
            deadline,
        );
        tokio::select! {
            end = client_side => end,
            end = store_side => end,
        }
    };
    shared.cancels.forget(&cancel_key);
    let reason = tell(&session, &end, &mut client_write).await;
    drop(cut); // whoever revoked a grant waits for this
    let (is_idle, transaction) = {
        let flow = session.flow();
        (flow.unready == 0 && flow.awaited.is_empty(), flow.transaction)
    };
    if is_idle && from_store.data().is_empty() && !matches!(end, End::Store { .. }) {
        target.close().await;
        let stream = store_read.unsplit(store_write);
        let mut backend = Backend { stream, buffer: from_store, parameters, process, secret };
        let reset = backend.reset(transaction != b'I', !session.is_face());
        if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(5), reset).await {
            shared.pool.put(key, backend);
        }
    } else {
        // A statement is still running for nobody: stop it, then drop the connection.
        target.cancel().await;
        target.close().await;
    }
    conclude(&session, &reason);
    session.quota.give_back().await;
    let _ = tokio::time::timeout(Duration::from_secs(1), client_write.shutdown()).await;
    Ok(())
}

/// What the client hears before its first statement.
fn greet(out: &mut Vec<u8>, session: &Session, backend: &Backend, key: crate::startup::CancelKey) {
    for (name, value) in &backend.parameters {
        let value = if name == "session_authorization" { &session.principal.name } else { value };
        put_parameter(out, name, value);
    }
    put(out, b'K', |out| {
        out.extend_from_slice(&key.process.to_be_bytes());
        out.extend_from_slice(&key.secret);
    });
    put_ready(out, b'I');
}

/// Tells the client why it is over, where it does not know, and says it in one line for the ledger.
async fn tell(session: &Session, end: &End, client: &mut (impl AsyncWrite + Unpin)) -> String {
    let (refusal, between_frames, reason) = match end {
        End::Client => (None, false, "the client left".to_owned()),
        End::Store { told } => {
            let refusal = Refusal::new(code::CONNECTION_FAILURE, "the store closed the connection")
                .hint("The store may be restarting; connect again.");
            ((!told).then_some(refusal), true, "the store closed the connection".to_owned())
        }
        End::Cut(cut, between) => (Some(cut.refusal()), *between, cut.reason()),
        End::Refused(refusal, between) => (Some(refusal.clone()), *between, refusal.message.clone()),
    };
    if let Some(refusal) = refusal.filter(|_| between_frames) {
        let fatal = refusal.fatal();
        let saying = async {
            client.write_all(&fatal).await?;
            client.flush().await
        };
        if !matches!(tokio::time::timeout(Duration::from_millis(500), saying).await, Ok(Ok(()))) {
            tracing::debug!(session = %session.id, "the client did not take the reason of its end");
        }
    }
    reason
}

/// Puts what is left of a session on record.
fn conclude(session: &Session, reason: &str) {
    let left = std::mem::take(&mut session.flow().awaited);
    for awaited in left {
        if let Awaited::Statement(statement) = awaited {
            session.conclude(&statement, Some(reason));
        }
    }
    let record = ClosedRecord { session: &session.id, principal: &session.principal.name, reason };
    session.shared.ledger.record(Entry::new(Kind::SessionClosed, &session.store.jurisdiction, &record));
}
