//! A session: from the proven name to the end. Asks policy, has the face compiled, takes a connection to the store as the
//! face's role, opens the session in the ledger, and runs the two sides until one of them is done.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ringfence_face::{Login, Steward};
use ringfence_ledger::{Crossing, Entry, Kind, Ticket};
use ringfence_meter::Who;
use ringfence_policy::{Device, Policy, Principal, Proof, Standing, Store, Visibility};
use ringfence_statement::scope::IN_SCHEMA;
use ringfence_statement::settings::Settings;
use tokio::io::{AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, watch};

use crate::admission::Admission;
use crate::allowance::Allowance;
use crate::backend::{Parameters, Stream, take_stream, with_parameter};
use crate::cancel::Target;
use crate::certificate::Shown;
use crate::connection::{self, Connection, cannot_connect};
use crate::counting::Workload;
use crate::facts::Facts;
use crate::flow::{Awaited, Flow, InFlight};
use crate::frame::{Body, Buffer, put, put_parameter, put_ready};
use crate::grants::{ActiveGrant, Cut, Dependent, Passed};
use crate::metering::Metering;
use crate::others::{OfStore, Seen};
use crate::pool::{Key, PoolMode};
use crate::quota::{Counter, Limited, Quota};
use crate::records::{ClosedRecord, OutcomeRecord, RefusedRecord, SessionRecord, outcome};
use crate::refusal::{Refusal, code};
use crate::relay::cuts::{Deadline, expiry, next_cut};
use crate::relay::exit::{self, Source};
use crate::relay::recorded_texts::RecordedTexts;
use crate::relay::statement::Statement;
use crate::route::{NoPass, Pass, Route};
use crate::server::Shared;
use crate::startup::Startup;
use crate::traces::Over;
use crate::{client_side, store_side};

/// How a session's statements are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Through a face: judged, logged one by one.
    Face,
    /// The base tables: logged one by one, otherwise as they are.
    Full,
    /// The base tables: counted.
    Counted,
}

/// The parameters by which dates, times and intervals are read and written.
const TIMES: [&str; 3] = ["DateStyle", "TimeZone", "IntervalStyle"];

/// The values of [`TIMES`].
fn times_of(parameters: &Parameters) -> [&str; 3] {
    let is_it = |name: &str, known: &str| known.eq_ignore_ascii_case(name);
    TIMES.map(|name| {
        parameters.iter().find(|(known, _)| is_it(name, known)).map_or("", |(_, value)| value.as_str())
    })
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
    /// Where from, if across the border.
    pub crossing: Option<Crossing>,
    /// How.
    pub mode: Mode,
    /// What was decided about it.
    pub admission: Arc<Admission>,
    /// When it gives its connection to the store back.
    pub pool_mode: PoolMode,
    /// The name that led it to the store, where that is not the store's own.
    pub route: Option<Arc<Route>>,
    /// The limits of its grants.
    pub quota: Quota,
    /// What is under way.
    pub flow: Arc<Mutex<Flow>>,
    /// The store's parameters as the client knows them.
    pub parameters: Mutex<Arc<Parameters>>,
    /// Rung when a batch is answered, or when the store waits for COPY data.
    pub answered: Notify,
    /// Rung when the store has the whole of what was sent, and nothing is under way.
    pub whole: Notify,
    /// What counts its people, if its access crosses the border.
    pub metering: Option<Metering>,
    /// What has gone through.
    pub passed: Arc<Passed>,
    /// How the store reads texts now.
    pub settings: Mutex<Settings>,
    /// Values of reported parameters that the client was sent.
    pub shown: Mutex<HashSet<(String, String)>>,
    /// The store's parameters as they were when the session began.
    pub initial: Arc<Parameters>,
    /// Whose statements it counts, if they are counted.
    pub workload: Option<Arc<Workload>>,
    /// Which code of others its store has, if that matters to it.
    pub code: Option<(Arc<OfStore>, Mutex<Seen>)>,
    /// What its principal may put on record.
    pub allowance: Arc<Allowance>,
    /// Columns that it was told are masked.
    pub told: Mutex<BTreeSet<String>>,
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
    /// It is not over: the connection to the store is given back between two transactions.
    Released,
    /// Cut; whether the client's stream stands between two frames.
    Cut(Cut, bool),
    /// Refused for good in the middle: the client hears this, if its stream stands between two frames.
    Refused(Refusal, bool),
}

/// The most names of functions that are remembered.
const MOST_FUNCTIONS: usize = 10_000;
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
        self.mode != Mode::Counted
    }

    /// Whether a face is between the session and the data.
    pub fn is_face(&self) -> bool {
        self.mode == Mode::Face
    }

    /// Whether what is not certain is refused: through a face, and across the border.
    pub fn is_governed(&self) -> bool {
        self.is_face() || self.metering.is_some()
    }

    /// Whether a statement may run on another connection than the one before.
    pub fn changes_connections(&self) -> bool {
        self.pool_mode == PoolMode::Transaction
    }

    /// Whether the connection can be given back now.
    pub fn may_release(&self) -> bool {
        let flow = self.flow();
        self.changes_connections() && flow.is_idle() && !flow.pinned
    }

    /// Keeps the connection from here on if a statement leaves something in it.
    pub fn note_pins(&self, is_sticky: bool) {
        if is_sticky && self.changes_connections() {
            self.flow().pin();
        }
    }

    /// How the store reads the text that comes next.
    pub fn settings(&self) -> Settings {
        // A face's session cannot change them: start parameters fix them, and SET is refused.
        if !self.is_face() && self.flow().settings_unsure {
            return Settings::UNSURE;
        }
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session sees a column in a table; a table with a schema must be of the one that is
    /// shown.
    pub fn has_column(&self, table: &str, column: &str) -> bool {
        let (schema, table) = table.split_once(IN_SCHEMA).map_or((None, table), |(s, t)| (Some(s), t));
        if let (Some(schema), Some(_)) = (schema, &self.admission.outcome)
            && !schema.starts_with("rf_")
        {
            return false;
        }
        if let Some(outcome) = &self.admission.outcome {
            let seen = outcome.tables.get(table).and_then(|columns| columns.get(column));
            return seen.is_some_and(|c| !c.granted_by.is_empty() || c.base != Visibility::Absent);
        }
        let catalogue = self.policy.store(&self.store.name).map(|(_, catalogue)| catalogue);
        let classified = catalogue.and_then(|catalogue| catalogue.tables.get(table));
        let classified = classified.filter(|table| schema.is_none_or(|schema| table.schema == schema));
        classified.is_some_and(|classified| classified.columns.contains_key(column))
    }

    /// The names of tables and columns that the catalogue has for the store.
    pub fn names_shown(&self) -> HashSet<String> {
        let catalogue = self.policy.store(&self.store.name).map(|(_, catalogue)| catalogue);
        let tables = catalogue.iter().flat_map(|catalogue| &catalogue.tables);
        let mut names = HashSet::new();
        for (table, classified) in tables {
            names.insert(table.clone());
            names.extend(classified.columns.keys().cloned());
        }
        names
    }

    /// The value of a reported parameter when the session began.
    pub fn began_with(&self, name: &str) -> Option<String> {
        self.initial.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    }

    /// A function of the store, by number and name, for a message that has its number only. Asked once.
    pub async fn function_name(&self, number: u32) -> String {
        let key = (self.store.name.clone(), number);
        let known = || self.shared.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known().get(&key) {
            return name.clone();
        }
        let found = match self.shared.stores.get(&self.store.name) {
            Some(behind) => behind.steward.function_name(number).await.ok().flatten(),
            None => None,
        };
        let name = found.map_or_else(|| number.to_string(), |n| format!("{number}, {n}"));
        if known().len() < MOST_FUNCTIONS {
            known().insert(key, name.clone());
        }
        name
    }

    /// The settings by which the store reads dates and times in a text: it keeps what it has read.
    pub fn times(&self) -> String {
        times_of(&self.parameters()).join("\n")
    }

    /// Whether dates are read as `times` says.
    pub fn has_times(&self, times: &str) -> bool {
        times_of(&self.parameters()).into_iter().eq(times.split('\n'))
    }

    /// The store's parameters as the client knows them.
    pub fn parameters(&self) -> Arc<Parameters> {
        Arc::clone(&self.parameters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The store reported a parameter.
    pub fn reported(&self, body: &[u8]) {
        let mut body = Body(body);
        if let (Some(name), Some(value)) = (body.string(), body.string()) {
            let mut parameters = self.parameters.lock().unwrap_or_else(PoisonError::into_inner);
            *parameters = with_parameter(&parameters, name, value);
            *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings_of(&parameters);
        }
    }

    /// A statement is over: its outcome goes on record.
    pub fn conclude(&self, mut statement: InFlight, cut: Option<&str>) {
        let tickets = self.record_new(&mut statement);
        if !tickets.is_empty() {
            self.flow().tickets.extend(tickets);
        }
        let InFlight { counted, rows, .. } = &statement;
        self.passed.statement(*rows);
        if let (Some(counted), Some(workload)) = (counted, &self.workload) {
            self.shared.counting.ended(workload, counted, *rows);
        }
        if let Some(begun) = statement.traced.take() {
            let InFlight { number, rows, failed, .. } = &statement;
            let over =
                Over { begun, number: *number, rows: *rows, failed: failed.clone(), is_cut: cut.is_some() };
            self.flow().spans.push(over);
        }
        let Some(n) = statement.number else { return };
        let reached = statement.watch.as_mut().map(|watch| self.rest(n, watch)).unwrap_or_default();
        let InFlight { rows, bytes, failed, .. } = &statement;
        let ended = match (cut, failed) {
            (Some(reason), _) => Cow::Owned(format!("cut: {reason}")),
            (None, Some(sqlstate)) => Cow::Owned(format!("error {sqlstate}")),
            (None, None) => Cow::Borrowed("ok"),
        };
        let principal = &self.principal.name;
        let mut charged = BTreeMap::new();
        for charge in &statement.charges {
            *charged.entry(self.quota.id(charge)).or_insert(0) += charge.charged;
        }
        let record = OutcomeRecord { session: &self.id, n, principal, ended: &ended, charged, reached };
        let entry = outcome(&self.store.jurisdiction, &record, *rows, *bytes);
        self.shared.ledger.record(entry.crossing(self.crossing.as_ref()));
    }

    /// Answers have passed, or never will: the spans of their statements end. `durable` is when the ledger had them.
    pub fn end_spans(&self, durable: Option<SystemTime>) {
        let Some(traces) = &self.shared.config.traces else { return };
        let spans = std::mem::take(&mut self.flow().spans);
        for over in spans {
            traces.end(over, &self.store.name, &self.id, durable);
        }
    }

    /// A statement was refused: that goes on record. How long the client must pause then, if it must.
    pub fn refused(&self, reason: &str, statement: Option<&Statement>) -> Option<Duration> {
        let segment = self.shared.ledger.segment();
        let is_there =
            statement.is_some_and(|statement| self.flow().recorded.tell_refused(statement, segment));
        let record = RefusedRecord {
            session: Some(&self.id),
            principal: &self.principal.name,
            store: &self.store.name,
            reason,
            statement: statement.filter(|_| !is_there).map(|statement| &*statement.text),
            digest: statement.filter(|_| is_there).map(|statement| &**statement.digest().1),
            address: None,
            times: 1,
        };
        let entry = Entry::new(Kind::Refused, &self.store.jurisdiction, &record);
        let pause = self.allowance.pay(entry.record.len());
        self.shared.ledger.record(entry.crossing(self.crossing.as_ref()));
        pause
    }
}

impl Source for Session {
    fn tickets(&self) -> usize {
        let mut flow = self.flow();
        if self.metering.is_some() {
            let tickets = flow.current().map(|current| self.record_new(current)).unwrap_or_default();
            flow.tickets.extend(tickets);
        }
        flow.tickets.len()
    }

    fn take_ticket(&self) -> Option<Ticket> {
        self.flow().tickets.pop_front()
    }

    fn take_notices(&self) -> Vec<u8> {
        let mut notices = std::mem::take(&mut self.flow().notices);
        if let Some(metering) = &self.metering {
            metering.warn(&mut notices);
        }
        notices
    }

    fn within_frame(&self, is_within: bool) {
        self.flow().answer_is_cut = is_within;
    }

    fn sent(&self, bytes: usize) {
        self.flow().traffic.sent += bytes as u64;
        self.passed.sent(bytes as u64);
    }

    fn passed(&self, durable: SystemTime) {
        if self.shared.config.traces.is_some() {
            self.end_spans(Some(durable));
        }
    }
}

/// Who comes, and what they want.
#[derive(Clone)]
pub struct Client {
    /// Who.
    pub principal: Principal,
    /// Which store, and with which parameters.
    pub startup: Startup,
    /// How they proved who they are.
    pub proof: Proof,
    /// When they were given the certificate that they proved it by, if a login gave it.
    pub given: Option<u64>,
    /// What they come with.
    pub device: Option<Device>,
    /// The certificates that they showed, where something follows from one.
    pub shown: Option<Shown>,
    /// From where.
    pub address: String,
}

fn settings_of(parameters: &Parameters) -> Settings {
    let value = |name: &str| {
        parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.as_str())
    };
    Settings::reported(value("standard_conforming_strings"), value("client_encoding"))
}

/// Everything between the decision and the first frame.
struct Opened {
    session: Session,
    connection: Option<Connection>,
    key: Arc<Key>,
    cut: watch::Receiver<Option<Cut>>,
    /// When the first of its grants ends, and which.
    deadline: Option<Deadline>,
    _attached: crate::grants::Attached,
    _needed: Option<crate::others::Needed>,
}

async fn open(shared: &Arc<Shared>, client: Client) -> Result<Opened, Refusal> {
    let Client { principal, startup, proof, given, device, shown, address } = client;
    let policy = shared.policy();
    let name = principal.name.clone();
    let allowance = shared.allowances.of(&name, shared.config.recorded_per_minute);
    let route = shared.routes.get(&startup.database).cloned();
    let wanted = route.as_ref().map_or_else(|| Ok(startup.database.clone()), |route| route.store())?;
    let found = policy.store(&wanted).zip(shared.stores.get(&wanted));
    let ((store, _), behind) = found.ok_or_else(|| {
        let routes = shared.routes.keys().map(String::as_str);
        let known: Vec<&str> = policy.stores().map(|(s, _)| s.name.as_str()).chain(routes).collect();
        Refusal::new(code::NO_SUCH_DATABASE, format!("there is no store \"{}\"", startup.database)).hint(
            format!("The database name is the jurisdiction or the store; known are: {}", known.join(", ")),
        )
    })?;
    let grants = shared.grants.of(&name, &store.name);
    let admission = shared.admissions.admit(&policy, &name, store, device.as_ref(), &grants)?;
    let grants = if admission.is_face() { grants } else { Vec::new() };
    let standing = policy.standing(&principal, store);
    let is_cross_border = standing != Standing::InCountry;
    let needed = (!admission.is_face()).then(|| behind.others.need());
    if needed.is_some() {
        let looked = behind.others.look_for_session(&behind.steward, is_cross_border).await;
        looked.map_err(|e| cannot_connect(&e))?;
    }
    let mut parameters = start_parameters(admission.is_face(), &startup)?;
    let keeps_snapshot = is_cross_border && !admission.is_face() && !reads_committed(&mut parameters);
    let ids: Vec<String> = grants.iter().map(|g| g.request.id.clone()).collect();
    let crossing = match standing {
        Standing::InCountry => None,
        standing => Some(Crossing {
            from: principal.place().into(),
            covered: matches!(standing, Standing::Covered(_)),
        }),
    };
    let id = hex::encode(rand_u64().to_be_bytes());
    let who = Dependent {
        session: id.clone(),
        location: principal.place().to_owned(),
        facts: Facts::of(&policy, &principal),
        given,
        device: device.clone(),
        shown,
        is_counted: admission.mode == Mode::Counted,
        principal: name.clone(),
        store: store.name.clone(),
        is_face: admission.is_face(),
        is_cross_border: crossing.is_some(),
        grants: ids.clone(),
        address: address.clone(),
        application: startup.application().to_owned(),
    };
    let (attached, cut) = shared.grants.attach(who).map_err(|cut| cut.refusal())?;
    // After it is in the list of sessions that a sign-out cuts.
    shared.people.judge(&name, given).map_err(|cut| cut.refusal())?;
    if crossing.is_some() {
        // After it is in the list of sessions that are cut when the border closes.
        shared.border.is_open_to(shared, &store.jurisdiction).map_err(|cut| cut.refusal())?;
    }
    // The rules changed between the login or the decision and the list of sessions that a change cuts.
    let is_as_proven = Facts::today(&policy, &name) == Some(Facts::of(&policy, &principal));
    if !is_as_proven || shared.policy().digest() != policy.digest() {
        return Err(Cut::PolicyChanged.refusal());
    }
    let login = admission.login(&behind.steward, &policy).await.map_err(|e| cannot_connect(&e))?;
    let key = Arc::new(Key {
        store: store.name.clone(),
        role: login.role.clone(),
        parameters,
        grants: ids.clone(),
    });
    // Whom a route leads may have to go on elsewhere, between two transactions.
    let pool_mode = if route.is_some() { PoolMode::Transaction } else { behind.pool.mode };
    let greeting = shared.pool.greeting(&key).filter(|_| pool_mode == PoolMode::Transaction);
    let (connection, parameters) = if let Some(greeting) = greeting {
        (None, greeting)
    } else {
        let mut connection = connection::take(shared, &policy, &admission, &key).await?;
        let initial = Arc::clone(&connection.backend.initial);
        connection.backend.adopt(&initial).await.map_err(|e| cannot_connect(&e))?;
        let parameters = Arc::clone(&connection.backend.parameters);
        (Some(connection), parameters)
    };
    if admission.is_face() || crossing.is_some() {
        must_be_utf8(&parameters)?;
    }
    let record = SessionRecord {
        session: id.clone(),
        principal: name,
        location: principal.place().to_owned(),
        employer: principal.employer.clone(),
        covered: policy.coverage(&principal).map(|c| c.because),
        store: store.name.clone(),
        face: login.face.clone(),
        role: login.role.clone(),
        counted: admission.mode == Mode::Counted,
        process: connection.as_ref().map_or(0, |c| c.backend.running.process),
        grants: ids,
        policy: policy.digest().to_owned(),
        login: proof,
        device,
        address,
        application: startup.application().to_owned(),
    };
    let entry = Entry::new(Kind::SessionOpened, &store.jurisdiction, &record);
    shared.ledger.record(entry.crossing(crossing.as_ref()));
    let metering = crossing.as_ref().map(|crossing| {
        let who = Who {
            person: &principal.name,
            employer: principal.employer.as_deref(),
            jurisdiction: &store.jurisdiction,
            is_covered: crossing.covered,
        };
        Metering::new(shared, who, grants.iter().map(|g| g.request.created).max())
    });
    let workload = (admission.mode == Mode::Counted).then(|| Workload {
        principal: principal.name.clone(),
        store: store.name.clone(),
        jurisdiction: store.jurisdiction.clone(),
    });
    let mut flow = Flow::new();
    flow.begins_with_snapshot = keeps_snapshot;
    flow.keeps_snapshot = keeps_snapshot;
    let session = Session {
        shared: Arc::clone(shared),
        id,
        metering,
        store: store.clone(),
        crossing,
        principal,
        mode: admission.mode,
        admission,
        pool_mode,
        route,
        quota: quota(shared, (&wanted, &behind.steward), &login, &grants),
        flow: Arc::new(Mutex::new(flow)),
        settings: Mutex::new(settings_of(&parameters)),
        shown: Mutex::default(),
        initial: Arc::clone(&parameters),
        workload: workload.map(Arc::new),
        parameters: Mutex::new(parameters),
        answered: Notify::new(),
        whole: Notify::new(),
        passed: Arc::clone(&attached.passed),
        allowance,
        told: Mutex::default(),
        code: needed.is_some().then(|| (Arc::clone(&behind.others), Mutex::default())),
        policy: Arc::clone(&policy),
    };
    for used_up in shared.grants.used_up(&session.principal.name, &session.store.name) {
        let (id, max) = (&used_up.request.id, used_up.request.max_rows.unwrap_or_default());
        Refusal::new("00000", format!("grant {id} is used up ({max} rows charged): it counts no more"))
            .hint("Ask for a new one if the need goes on: ringfence request …")
            .notice(&mut session.flow().notices);
    }
    let deadline = grants.iter().map(|g| (g.deadline, g.request.id.clone())).min();
    Ok(Opened { session, connection, key, cut, deadline, _attached: attached, _needed: needed })
}

/// Names are cut at 63 bytes, and folded, in the store's encoding: in another one than the gateway's two
/// names could be one.
fn must_be_utf8(parameters: &Parameters) -> Result<(), Refusal> {
    let of = parameters.iter().find(|(name, _)| name == "server_encoding").map(|(_, value)| value.as_str());
    if of == Some("UTF8") {
        return Ok(());
    }
    let shown = of.unwrap_or("not known");
    Err(Refusal::new(
        code::FEATURE_NOT_SUPPORTED,
        format!("the store's encoding is {shown}: limits hold in UTF8 only, so access is refused"),
    )
    .hint("Faces, and access across the border, need a database with the encoding UTF8."))
}

fn quota(
    shared: &Shared,
    (store, steward): (&str, &Arc<Steward>),
    login: &Login,
    grants: &[Arc<ActiveGrant>],
) -> Quota {
    let limited = grants
        .iter()
        .filter_map(|g| {
            let max = g.request.max_rows?;
            Some(Limited { grant: Arc::clone(g), max })
        })
        .collect();
    let (control, active) = (Arc::clone(&shared.control), Arc::clone(&shared.grants));
    let (steward, pool) = (Arc::clone(steward), Arc::clone(&shared.pool));
    let counter = Counter { store: store.to_owned(), steward, pool, login: login.clone() };
    Quota::new(control, counter, active, limited)
}

fn rand_u64() -> u64 {
    use rand_core::RngCore as _;
    rand_core::OsRng.next_u64()
}

/// The start parameters for the store.
fn start_parameters(is_face: bool, startup: &Startup) -> Result<Vec<(String, String)>, Refusal> {
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
    if is_face {
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

/// Makes a session begin its transactions as READ COMMITTED, whatever its role's settings say: people are counted
/// before and after a statement sees its rows. False if the client asks for another level.
fn reads_committed(parameters: &mut Vec<(String, String)>) -> bool {
    const ISOLATION: &str = "default_transaction_isolation";
    let asks = |(name, value): &(String, String)| {
        let name = name.to_ascii_lowercase();
        // What `options` says beside that is overridden below.
        let said = value.to_ascii_lowercase().replace('-', "_").replace('\\', "");
        name == ISOLATION
            || name == "transaction_isolation"
            || name == "options" && said.contains("isolation")
    };
    if parameters.iter().any(asks) {
        return false;
    }
    parameters.push((ISOLATION.to_owned(), "read committed".to_owned()));
    parameters.sort();
    true
}

/// Runs a session on a client that has proven to be `principal`.
pub async fn run(
    shared: &Arc<Shared>,
    mut client: Box<dyn Stream>,
    mut buffer: Buffer,
    who: Client,
) -> std::io::Result<()> {
    let (name, store, device) =
        (who.principal.name.clone(), who.startup.database.clone(), who.device.clone());
    let again = shared.routes.contains_key(&store).then(|| Box::new(who.clone()));
    // Boxed: what opening needs on its way is not kept for the session's life.
    let opened = Box::pin(open(shared, who)).await;
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(refusal) => {
            let reason = device.map_or_else(
                || refusal.message.clone(),
                |device| format!("{} (with device {} of {})", refusal.message, device.id, device.owner),
            );
            shared.record_refused(&name, &store, &reason);
            client.write_all(&refusal.fatal()).await?;
            return client.shutdown().await;
        }
    };
    drop((name, store));
    let connection = opened.connection.take();
    let target = Target::new(Arc::clone(&opened.session.flow));
    let kept = connection.as_ref().filter(|_| !opened.session.changes_connections());
    let cancel_key = shared.cancels.register(&target, kept.map(|c| c.backend.running.process));
    opened.session.flow().process.1 = cancel_key.process;
    let mut out = Vec::with_capacity(1024);
    greet(&mut out, &opened.session, cancel_key);
    client.write_all(&out).await?;
    drop(out);

    let (mut client_read, mut client_write) = tokio::io::split(client);
    let mut held = connection;
    if opened.session.changes_connections()
        && let Some(connection) = held.take()
    {
        connection.keep();
    }
    let end = loop {
        let mut pass = None;
        let mut connection = if let Some(connection) = held.take() {
            connection
        } else {
            let Opened { session, cut, deadline, .. } = &mut opened;
            let coming = statement_comes(session, &mut client_read, &mut buffer, cut, deadline.as_ref());
            if let Err(end) = coming.await {
                break end;
            }
            match enter(&mut opened).await {
                Ok(granted) => pass = granted,
                Err(Some(end)) => break end,
                // The rows are at home elsewhere now: the session goes on there.
                Err(None) => match Box::pin(follow(shared, opened, again.as_deref())).await {
                    Ok(at_home) => {
                        opened = at_home;
                        continue;
                    }
                    Err((before, end)) => {
                        opened = *before;
                        break end;
                    }
                },
            }
            let Opened { session, key, cut, .. } = &mut opened;
            match Box::pin(next_connection(session, key, cut)).await {
                Ok(connection) => connection,
                Err(end) => break end,
            }
        };
        let client = (&mut client_read, &mut buffer, &mut client_write);
        let Opened { session, cut, deadline, .. } = &mut opened;
        let end = leg(session, &target, &mut connection, client, cut, deadline.as_ref()).await;
        if matches!(end, End::Released) {
            target.detach().await;
            connection.give_back(session).await;
            session.flow().settings_are_reset();
            drop(pass);
            continue;
        }
        held = Some(connection);
        break end;
    };
    let Opened { session, cut, .. } = opened;
    shared.cancels.forget(&cancel_key);
    let reason = tell(&session, &end, &mut client_write).await;
    drop(cut); // whoever revoked a grant waits for this
    match held {
        Some(connection) => Box::pin(connection.end(&session, &target, &end)).await,
        None => target.detach().await,
    }
    // A client that has left took with it what it was sent.
    if let Err(refusal) = Box::pin(session.count_unseen()).await {
        tracing::warn!(session = %session.id, problem = %refusal.message, "people are not counted at a session's end");
    }
    conclude(&session, &reason);
    session.quota.give_back().await;
    let _ = tokio::time::timeout(Duration::from_secs(1), client_write.shutdown()).await;
    Ok(())
}

/// Waits while clients of the session's route are held. `Err(None)` if the route leads to another store now.
async fn enter(opened: &mut Opened) -> Result<Option<Pass>, Option<End>> {
    let Opened { session, cut, deadline, .. } = opened;
    let Some(route) = &session.route else { return Ok(None) };
    tokio::select! {
        biased;
        cut = next_cut(cut) => Err(Some(End::Cut(cut, true))),
        end = expiry(deadline.as_ref()) => Err(Some(End::Cut(end, true))),
        entered = route.enter(&session.store.name) => match entered {
            Ok(pass) => Ok(Some(pass)),
            Err(NoPass::Moved) => Err(None),
            Err(NoPass::Held(refusal)) => Err(Some(End::Refused(refusal, true))),
        },
    }
}

/// Opens a session at the store where the rows are at home now, for the client of one that has no connection. To the client it is the
/// same session: its prepared statements are still there. Whoever sees a face connects again, since the face is another one.
async fn follow(
    shared: &Arc<Shared>,
    before: Opened,
    who: Option<&Client>,
) -> Result<Opened, (Box<Opened>, End)> {
    let Some(who) = who.filter(|_| !before.session.is_face()) else {
        return Err((Box::new(before), End::Cut(Cut::Moved, true)));
    };
    let mut opened = match open(shared, who.clone()).await {
        Ok(opened) => opened,
        Err(refusal) => {
            shared.record_refused(&who.principal.name, &who.startup.database, &refusal.message);
            return Err((Box::new(before), End::Refused(refusal, true)));
        }
    };
    if let Some(connection) = opened.connection.take() {
        connection.keep();
    }
    if opened.session.is_face() {
        conclude(&opened.session, "the rows moved to another store");
        return Err((Box::new(before), End::Cut(Cut::Moved, true)));
    }
    conclude(&before.session, "the rows moved to another store");
    before.session.quota.give_back().await;
    opened.session.flow = Arc::clone(&before.session.flow);
    opened.session.flow().on_connection.clear();
    // The new session's entries name none of the old one's.
    opened.session.flow().recorded = RecordedTexts::default();
    // What the client has set since it connected goes with it.
    let parameters = before.session.parameters();
    *opened.session.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings_of(&parameters);
    *opened.session.parameters.lock().unwrap_or_else(PoisonError::into_inner) = parameters;
    Ok(opened)
}

/// A client's two directions, and what has arrived from it.
type Sides<'a> = (&'a mut ReadHalf<Box<dyn Stream>>, &'a mut Buffer, &'a mut WriteHalf<Box<dyn Stream>>);
/// Both sides at once, on one connection to the store, until the session or its hold on the connection is over.
async fn leg(
    session: &Session,
    target: &Target,
    connection: &mut Connection,
    (client_read, from_client, client_write): Sides<'_>,
    cut: &mut watch::Receiver<Option<Cut>>,
    deadline: Option<&Deadline>,
) -> End {
    let running = connection.running();
    session.flow().process.0 = running.process;
    target.attach(running).await;
    let backend = &mut connection.backend;
    let (mut store_read, mut store_write) = tokio::io::split(take_stream(&mut backend.stream));
    let end = {
        let client_side = client_side::run(session, client_read, from_client, &mut store_write);
        let from_store = &mut backend.buffer;
        let store_side = store_side::run(session, &mut store_read, from_store, client_write, cut, deadline);
        tokio::select! {
            end = client_side => end,
            end = store_side => end,
        }
    };
    backend.stream = store_read.unsplit(store_write);
    end
}

/// Waits, without a connection, until the client has sent something that a store must hear.
async fn statement_comes(
    session: &Session,
    client: &mut ReadHalf<Box<dyn Stream>>,
    buffer: &mut Buffer,
    cut: &mut watch::Receiver<Option<Cut>>,
    deadline: Option<&Deadline>,
) -> Result<(), End> {
    /// A longer frame may come in while the connection waits for it.
    const LONG: usize = 32 * 1024;
    loop {
        let head = crate::frame::head(buffer.data(), client_side::max_frame(session));
        match head
            .map_err(|e| client_side::failed(&std::io::Error::new(std::io::ErrorKind::InvalidData, e)))?
        {
            Some(head) if head.tag == b'X' => return Err(End::Client),
            Some(head) if matches!(head.tag, b'd' | b'c' | b'f') => {
                // COPY data that no COPY waits for: the store would ignore it.
                buffer.skip(head.total);
                continue;
            }
            Some(head) if buffer.data().len() >= head.total.min(LONG) => return Ok(()),
            _ => {}
        }
        tokio::select! {
            biased;
            cut = next_cut(cut) => return Err(End::Cut(cut, true)),
            end = expiry(deadline) => return Err(End::Cut(end, true)),
            read = buffer.fill(client) => match read {
                Ok(count @ 1..) => session.flow().traffic.received += count as u64,
                Ok(0) | Err(_) => return Err(End::Client),
            },
        }
    }
}

/// The next connection of a session that has given one back.
async fn next_connection(
    session: &Session,
    key: &Arc<Key>,
    cut: &mut watch::Receiver<Option<Cut>>,
) -> Result<Connection, End> {
    let taking = connection::take(&session.shared, &session.policy, &session.admission, key);
    let mut connection = tokio::select! {
        biased;
        cut = next_cut(cut) => return Err(End::Cut(cut, true)),
        taken = taking => taken.map_err(|refusal| End::Refused(refusal, true))?,
    };
    tokio::select! {
        biased;
        cut = next_cut(cut) => return Err(End::Cut(cut, true)),
        adopted = connection.adopt(session) => adopted.map_err(|refusal| End::Refused(refusal, true))?,
    }
    Ok(connection)
}

/// What the client hears before its first statement.
fn greet(out: &mut Vec<u8>, session: &Session, key: crate::startup::CancelKey) {
    for (name, value) in session.parameters().iter() {
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
        End::Client | End::Released => (None, false, "the client left".to_owned()),
        End::Store { told } => {
            let refusal = Refusal::new(code::CONNECTION_FAILURE, "the store closed the connection")
                .hint("The store may be restarting; connect again.");
            ((!told).then_some(refusal), true, "the store closed the connection".to_owned())
        }
        End::Cut(cut, between) => (Some(cut.refusal()), *between, cut.reason()),
        End::Refused(refusal, between) => (Some(refusal.clone()), *between, refusal.message.clone()),
    };
    if let Some(refusal) = refusal.filter(|_| between_frames && !session.flow().answer_is_cut) {
        exit::last_words(session, client, refusal).await;
    }
    reason
}

/// Puts what is left of a session on record.
fn conclude(session: &Session, reason: &str) {
    let left = std::mem::take(&mut session.flow().awaited);
    for awaited in left {
        if let Awaited::Statement(statement) = awaited {
            session.conclude(statement, Some(reason));
        }
    }
    session.end_spans(None);
    let traffic = std::mem::take(&mut session.flow().traffic);
    session.shared.count(&session.store.name, traffic);
    let record = ClosedRecord { session: &session.id, principal: &session.principal.name, reason };
    let entry = Entry::new(Kind::SessionClosed, &session.store.jurisdiction, &record);
    session.shared.ledger.record(entry.crossing(session.crossing.as_ref()));
}
