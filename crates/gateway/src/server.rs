//! The gateway as a whole: what all sessions share, starting and stopping, and the housekeeping between sessions.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ringfence_control::{Control, State};
use ringfence_face::Steward;
use ringfence_grants::{Approval, Request};
use ringfence_ledger::{Counters, Entry, HEARTBEAT_MS, HeartbeatRecord, Kind, Ledger};
use ringfence_policy::{Access, Policy};
use ringfence_statement::analysis::Cache;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admission::Admissions;
use crate::allowance::Allowances;
use crate::backend::Address;
use crate::border::Border;
use crate::cancel::Cancels;
use crate::certificate::Tls;
use crate::config::Config;
use crate::counting::Counting;
use crate::enrolment::Before;
use crate::facts::Facts;
use crate::flow::Traffic;
use crate::grants::{Cut, LiveGrants};
use crate::handover::{self, Inherited, Older};
use crate::long_texts::LongTexts;
use crate::meter::Meter;
use crate::orders::Suspensions;
use crate::others::OfStore;
use crate::peers::Peer;
use crate::pin::SharedNames;
use crate::pool::{Pool, PoolSettings};
use crate::presence::People;
use crate::records::{GatewayRecord, PolicyRecord, RefusedRecord};
use crate::refusal::{Refusal, code, unrecorded};
use crate::route::{self, Routes};
use crate::strangers::{Origin, Strangers, UNKNOWN};
use crate::worker::Workers;
use crate::{border, console, listen, others, sockets};

/// How often grants are compared with the control database and the clock.
const REFRESH: Duration = Duration::from_secs(1);
/// How often counts are written and what is unused is dropped.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How often other gateways' logs are read for the meter.
const FOLLOW: Duration = Duration::from_secs(2);
/// The longest text of the rules that goes into the ledger whole, in bytes: an entry holds 4 MiB.
const MAX_RULES: usize = 2 << 20;
/// How long a face may be unused before it is dropped.
const FACE_IDLE: Duration = Duration::from_secs(600);

/// What all sessions share.
pub struct Shared {
    /// The settings.
    pub config: Config,
    policy: RwLock<Arc<Policy>>,
    /// Rung when rules were read again.
    rules_changed: watch::Sender<()>,
    tls: RwLock<Option<Arc<Tls>>>,
    /// The log.
    pub ledger: Ledger,
    /// Requests and grants.
    pub control: Arc<Control>,
    /// The stores, by name.
    pub stores: HashMap<String, Behind>,
    /// Names that lead to the store where rows are at home.
    pub routes: Routes,
    /// Connections that wait.
    pub pool: Arc<Pool>,
    /// Decisions about people at stores.
    pub admissions: Admissions,
    /// Names of prepared statements that sessions share.
    pub shared_names: SharedNames,
    /// Keys for cancel requests.
    pub cancels: Cancels,
    /// The process that this one took over from, while sessions of its may run.
    pub older: Older,
    /// Whether a successor has the listening sockets.
    pub is_handed_over: AtomicBool,
    /// Who is signed out, or deactivated.
    pub people: People,
    /// Grants in force.
    pub grants: Arc<LiveGrants>,
    /// Names of functions, by store and number.
    pub functions: Mutex<HashMap<(String, u32), String>>,
    /// What the texts of statements say.
    pub statements: Arc<Cache>,
    /// Where long texts are analysed.
    pub long_texts: LongTexts,
    /// How much of the ledger principals may fill.
    pub allowances: Allowances,
    /// Counts of workloads.
    pub counting: Counting,
    /// How many people each recipient has reached.
    pub meter: Meter,
    /// Whether data may cross the border now.
    pub border: Border,
    /// What regulators have suspended.
    pub suspensions: Suspensions,
    /// Connections that have not logged in.
    pub strangers: Arc<Strangers>,
    /// How many clients there are that have logged in.
    pub clients: AtomicUsize,
    /// How many connections each principal has.
    pub by_principal: Mutex<HashMap<String, usize>>,
}

/// How to reach a store.
pub struct Behind {
    /// Compiles its faces.
    pub steward: Arc<Steward>,
    /// Where it listens.
    pub address: Address,
    /// Its database.
    pub database: String,
    /// The limits of its pools.
    pub pool: PoolSettings,
    /// Which code of others it has.
    pub others: Arc<OfStore>,
    /// What went through.
    pub traffic: Mutex<Traffic>,
}

impl Shared {
    /// The certificate as it is now.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rules as they are now.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Rings when rules were read again.
    pub fn rules_changed(&self) -> watch::Receiver<()> {
        self.rules_changed.subscribe()
    }

    /// Milliseconds since 1970; never before the newest entry of the ledger, so a clock that was set back opens nothing.
    pub fn now(&self) -> u64 {
        ringfence_ledger::now_ms().max(self.ledger.last_time())
    }

    /// Adds to what went through to a store.
    pub fn count(&self, store: &str, traffic: Traffic) {
        if let Some(behind) = self.stores.get(store) {
            behind.traffic.lock().unwrap_or_else(PoisonError::into_inner).add(traffic);
        }
    }

    /// Puts a refusal outside any statement on record.
    pub fn record_refused(&self, principal: &str, store: &str, reason: &str) {
        let policy = self.policy();
        let jurisdiction = policy.store(store).map_or("-", |(s, _)| s.jurisdiction.as_str());
        let (statement, address) = (None, None);
        let record = RefusedRecord {
            session: None,
            principal,
            store,
            reason,
            statement,
            digest: None,
            address,
            times: 1,
        };
        self.ledger.record(Entry::new(Kind::Refused, jurisdiction, &record));
    }

    /// The jurisdiction of a store, for a record.
    fn jurisdiction(&self, store: &str) -> String {
        self.policy().store(store).map_or("-", |(s, _)| s.jurisdiction.as_str()).to_owned()
    }

    /// Puts a refused login of somebody on record who has proven no name. What they say is no name of ours is not
    /// kept.
    pub fn record_stranger(&self, origin: Origin, principal: &str, store: &str, reason: &'static str) {
        let is_ours =
            self.stores.contains_key(store) || self.routes.contains_key(store) || store == console::NAME;
        let store = if is_ours { store } else { UNKNOWN };
        let what = (principal, store);
        self.strangers.refused(&self.ledger, origin, what, &self.jurisdiction(store), reason);
    }

    /// Where a connection comes from.
    pub fn origin(&self, address: SocketAddr) -> Origin {
        let (ip, peer) = (address.ip().to_canonical(), Peer::new(address.ip()));
        let is_balancer = self.config.proxies.iter().any(|network| network.contains(&ip));
        if is_balancer { Origin::Balancer(peer) } else { Origin::Network(peer) }
    }

    /// A new connection, if there are files left for it.
    pub(crate) fn with_room<T: AsRawFd>(&self, stream: T) -> Option<T> {
        // Of those that have not logged in one can give its file back.
        (sockets::leaves_room(&stream) || self.strangers.give_way()).then_some(stream)
    }

    /// Puts an entry in the ledger and waits until it is durable: nothing comes into force that is not on record.
    pub async fn on_record(&self, entry: Entry) -> Result<(), Refusal> {
        self.ledger.append(entry).durable().await.map(drop).map_err(|e| unrecorded(&e))
    }

    /// A request has all its signatures: on record first, then in force.
    pub async fn put_in_force(&self, request: &Request) -> Result<(), Refusal> {
        let now = self.now();
        let record = json!({ "id": request.id, "digest": request.digest(), "expires": request.expires(now) });
        self.on_record(Entry::new(Kind::Granted, &request.jurisdiction, &record)).await?;
        let broken = |e: ringfence_control::Error| Refusal::new(code::CANNOT_CONNECT, e.to_string());
        self.control.grant(&request.id, now).await.map_err(broken)?;
        self.grants.refresh(&self.policy(), now).await.map_err(broken)?;
        Ok(())
    }

    /// The same where another gateway took the signatures and died: what this one relies on is in its own log.
    async fn take_over(&self, request: &Request) -> Result<(), Refusal> {
        let broken = |e: ringfence_control::Error| Refusal::new(code::CANNOT_CONNECT, e.to_string());
        let stored = self.control.find(&request.id).await.map_err(broken)?;
        if stored.state != State::Pending {
            return Ok(());
        }
        let asked = json!({ "request": request.canonical() });
        self.on_record(Entry::new(Kind::Requested, &request.jurisdiction, &asked)).await?;
        for approval in &stored.approvals {
            let record = approval_record(request, approval);
            self.on_record(Entry::new(Kind::Approved, &request.jurisdiction, &record)).await?;
        }
        self.put_in_force(request).await
    }

    /// Ends a grant: its sessions are cut, its waiting connections closed. Returns how many sessions there were.
    pub async fn end_grant(&self, id: &str, how: &str) -> usize {
        let cut = self.grants.end(id, how).await;
        self.pool.evict_grant(id);
        self.admissions.forget_grant(id);
        cut
    }

    async fn refresh(&self) -> Result<(), ringfence_control::Error> {
        // What is wrong with the one does not keep the other from being read.
        let people = self.people.refresh(self, &self.control).await;
        let orders = self.suspensions.refresh(self).await;
        let now = self.now();
        let due = self.grants.refresh(&self.policy(), now).await?;
        for id in &due.gone {
            self.pool.evict_grant(id);
            self.admissions.forget_grant(id);
        }
        for request in due.approved {
            if let Err(refusal) = self.take_over(&request).await {
                tracing::warn!(grant = %request.id, problem = %refusal.message, "an approved request is not in force yet");
            }
        }
        for request in due.over {
            self.end_grant(&request.id, "has expired").await;
            match self.control.end(&request.id, State::Expired, "the clock", "its time is over", now).await {
                Ok(()) => {
                    let record = json!({ "id": request.id });
                    self.ledger.record(Entry::new(Kind::Expired, &request.jurisdiction, &record));
                }
                Err(ringfence_control::Error::WrongState { .. }) => {} // another gateway was faster
                Err(e) => return Err(e),
            }
        }
        people.and(orders)
    }

    /// Drops faces that nobody uses, and closes connections that waited too long.
    async fn prune(&self) {
        self.pool.sweep(|store| self.stores.get(store).map(|b| b.pool).unwrap_or_default());
        for (name, behind) in &self.stores {
            match behind.steward.prune(FACE_IDLE).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(store = %name, count, "dropped unused faces"),
                Err(error) => tracing::warn!(store = %name, %error, "unused faces are still there"),
            }
        }
    }
}

/// An approval as the ledger keeps it.
pub fn approval_record(request: &Request, approval: &Approval) -> serde_json::Value {
    json!({ "id": request.id, "approver": approval.approver, "signature": approval.signature, "digest": request.digest() })
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be had.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The socket for a successor cannot be had, or the older process does not hand over.
    #[error("{0}: {1}")]
    Handover(PathBuf, std::io::Error),
    /// The Unix socket cannot be had.
    #[error("cannot listen on {0}: {1}")]
    ListenUnix(PathBuf, std::io::Error),
    /// A thread cannot be had.
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
    /// A store is configured without rules, or the other way round.
    #[error("{0}")]
    Store(String),
    /// The control database does not answer.
    #[error(transparent)]
    Control(#[from] ringfence_control::Error),
    /// What was reached before cannot be read.
    #[error("the meter cannot be read from the ledger: {0}")]
    Meter(#[from] ringfence_verifier::Error),
    /// A key of an approver is in the rules, and nobody has enrolled it.
    #[error("{0}")]
    Enrolment(String),
    /// The log cannot be written.
    #[error(transparent)]
    Ledger(#[from] ringfence_ledger::Unavailable),
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    /// Ends the housekeeping.
    stop: watch::Sender<bool>,
    /// Ends the listening, which is earlier where a successor takes over.
    close: watch::Sender<bool>,
    succeeded: watch::Receiver<bool>,
    _workers: Arc<Workers>,
}

impl Gateway {
    /// What all sessions share: for the console.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Starts listening.
    pub async fn start(
        config: Config,
        policy: Policy,
        ledger: Ledger,
        control: Control,
        inherited: Option<Inherited>,
    ) -> Result<Self, StartError> {
        let mut stores = HashMap::new();
        for store in &config.stores {
            let name = &store.name;
            if policy.store(name).is_none() {
                return Err(StartError::Store(format!("store {name} has no rules in the policy")));
            }
            let address = Address::of(&store.steward)
                .ok_or_else(|| StartError::Store(format!("store {name}: its url names no host")))?;
            let database = store.steward.config.get_dbname().unwrap_or(name).to_owned();
            let steward =
                Steward::new(store.steward.clone(), &config.secret, store.full_role.clone(), store.limits);
            let (pool, traffic, others) = (store.pool, Mutex::default(), Arc::<OfStore>::default());
            let behind = Behind { steward: Arc::new(steward), address, database, pool, others, traffic };
            stores.insert(name.clone(), behind);
        }
        for route in &config.routes {
            let (name, store) = (&route.name, &route.store);
            if !stores.contains_key(store) || stores.contains_key(name) || name == console::NAME {
                let problem =
                    format!("route {name} must have a name of its own and lead to a store, not to {store:?}");
                return Err(StartError::Store(problem));
            }
        }
        let routes = route::routes(&config.routes);
        let control = Arc::new(control);
        let grants = LiveGrants::new(Arc::clone(&control));
        let broken = |e| StartError::Handover(PathBuf::from("the older process"), e);
        let (mut listeners, mut unix, older) = match inherited.map(Inherited::into_parts) {
            Some(parts) => parts.map(|(tcp, unix, older)| (tcp, unix, Some(older))).map_err(broken)?,
            None => (Vec::new(), None, None),
        };
        let already = listen::addresses(&listeners);
        for address in config.listen.iter().filter(|a| !already.contains(a)) {
            listeners.push(TcpListener::bind(address).await.map_err(|e| StartError::Listen(*address, e))?);
        }
        if let Some(dir) = config.unix_dir.as_deref().filter(|_| unix.is_none()) {
            let port = listen::addresses(&listeners).first().map_or(5432, SocketAddr::port);
            let path = dir.join(format!(".s.PGSQL.{port}"));
            unix = Some(listen::bind_unix(&path).map_err(|e| StartError::ListenUnix(path, e))?);
        }
        let offer = handover::Offer::new(&listeners, unix.as_ref().map(|(l, path)| (l, path.as_path())));
        let strangers = Arc::new(Strangers::new(config.max_clients));
        sockets::check_limit(config.max_clients);
        let meter = Meter::open(policy.registry(), &config.secret, &config.log, &config.other_logs)?;
        let shared = Arc::new(Shared {
            meter,
            tls: RwLock::new(config.tls.clone()),
            config,
            policy: RwLock::new(Arc::new(policy)),
            rules_changed: watch::channel(()).0,
            ledger,
            control,
            stores,
            routes,
            pool: Arc::default(),
            admissions: Admissions::default(),
            shared_names: SharedNames::default(),
            cancels: Cancels::default(),
            strangers,
            older: Older::default(),
            is_handed_over: AtomicBool::new(false),
            people: People::default(),
            grants,
            functions: Mutex::default(),
            statements: Arc::default(),
            long_texts: LongTexts::default(),
            allowances: Allowances::default(),
            counting: Counting::default(),
            border: Border::default(),
            suspensions: Suspensions::default(),
            clients: AtomicUsize::new(0),
            by_principal: Mutex::default(),
        });
        if let Some(before) = Before::of_log(shared.ledger.dir())? {
            before.must_allow(&shared.policy()).map_err(StartError::Enrolment)?;
        }
        record_start(&shared).await?;
        shared.border.look(&shared);
        shared.refresh().await?;
        route::look_all(&shared).await;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if shared.config.workers == 0 { cores } else { shared.config.workers };
        let workers = Workers::start(count, {
            let ledger = shared.ledger.clone();
            move || ledger.end_batch()
        });
        let workers = Arc::new(workers.map_err(StartError::Worker)?);
        let (stop, stopping) = watch::channel(false);
        let (close, closing) = watch::channel(false);
        let addresses = listen::addresses(&listeners);
        if let Some((listener, path)) = unix {
            let (shared, workers) = (Arc::clone(&shared), Arc::clone(&workers));
            tokio::spawn(listen::accept_unix(shared, workers, listener, path, closing.clone()));
        }
        for listener in listeners {
            tokio::spawn(listen::accept(
                Arc::clone(&shared),
                Arc::clone(&workers),
                listener,
                closing.clone(),
            ));
        }
        tokio::spawn(watch_over(Arc::clone(&shared), stopping.clone()));
        if !shared.config.other_logs.is_empty() {
            tokio::spawn(follow(Arc::clone(&shared), stopping.clone()));
        }
        tokio::spawn(housekeeping(Arc::clone(&shared), stopping.clone()));
        for name in shared.stores.keys() {
            tokio::spawn(look_at_code(Arc::clone(&shared), name.clone(), stopping.clone()));
        }
        if !shared.routes.is_empty() {
            tokio::spawn(follow_routes(Arc::clone(&shared), stopping));
        }
        if let Some(older) = older {
            let ready = {
                let shared = Arc::clone(&shared);
                move || Inherited::ready(older, &shared.older)
            };
            let told = tokio::task::spawn_blocking(ready).await.map_err(std::io::Error::other);
            told.flatten().map_err(broken)?;
        }
        let (succeed, succeeded) = watch::channel(false);
        if let Some(path) = shared.config.handover.clone() {
            let failed = |e| StartError::Handover(path.clone(), e);
            let (listener, offer) = (handover::listen(&path).map_err(failed)?, offer.map_err(failed)?);
            let (for_them, close) = (Arc::clone(&shared), close.clone());
            tokio::spawn(handover::serve(listener, path, offer, Arc::clone(&shared), move || {
                for_them.is_handed_over.store(true, Ordering::Release);
                close.send_replace(true);
                succeed.send_replace(true);
            }));
        }
        Ok(Self { shared, addresses, stop, close, succeeded, _workers: workers })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The log.
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// Shows clients that connect from here on another certificate, and cuts those whose own is not believed any more, as one that was
    /// revoked. Whether TLS is offered at all does not change.
    pub fn replace_certificate(&self, tls: Option<Arc<Tls>>) {
        let Some(tls) = tls else { return };
        {
            let mut current = self.shared.tls.write().unwrap_or_else(PoisonError::into_inner);
            if current.is_none() {
                return;
            }
            *current = Some(Arc::clone(&tls));
        }
        self.shared.grants.cut_where(&Cut::Certificate, |session| {
            session.shown.as_ref().is_some_and(|shown| !tls.believes(shown))
        });
    }

    /// Puts new rules in force, unless they count by other thresholds: what was reached in twelve months would have to be read
    /// anew, which is for a start. Sessions through faces are cut, so that no one goes on under the old ones; so are those of
    /// people who have no full access any more, or whose facts have changed.
    pub fn replace_policy(&self, policy: Policy) -> Result<(), String> {
        Before::of(&self.shared.policy()).must_allow(&policy)?;
        if !self.shared.meter.replace_limits(policy.registry()) {
            return Err("other thresholds are in force from the next start on; a successor with --take-over cuts nobody".to_owned());
        }
        let changed = policy.digest() != self.shared.policy().digest();
        *self.shared.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        self.shared.ledger.record(policy_entry(&self.shared.policy()));
        self.shared.rules_changed.send_replace(());
        if changed {
            let policy = self.shared.policy();
            self.shared.grants.judge_facts(&policy);
            self.shared.admissions.forget_all();
            self.shared.grants.cut_where(&Cut::PolicyChanged, |session| {
                let (who, store, device) = (&session.principal, &session.store, session.device.as_ref());
                let is_as_before = || {
                    Facts::today(&policy, who).as_ref() == Some(&session.facts)
                        && matches!(policy.access(who, store, device), Ok(Access::Full))
                        && (!session.is_counted || policy.is_counted(who, store, device).unwrap_or(false))
                };
                session.is_face || !is_as_before()
            });
        }
        Ok(())
    }

    /// Waits until a successor has taken the listening sockets over. From then on this gateway takes no new clients; its
    /// sessions go on.
    pub async fn succeeded(&self) {
        let mut succeeded = self.succeeded.clone();
        if succeeded.wait_for(|done| *done).await.is_err() {
            std::future::pending::<()>().await; // nobody can succeed it
        }
    }

    /// Waits until the last session has ended by itself.
    pub async fn last_session_ended(&self) {
        while self.shared.clients.load(Ordering::Acquire) + self.shared.strangers.count() > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops: no new clients, idle sessions end, the others may finish until the drain time is over.
    pub async fn stop(self, reason: &str) {
        self.close.send_replace(true);
        self.shared.grants.cut_where(&Cut::Drain, |_| true);
        let until = Instant::now() + self.shared.config.drain;
        while self.shared.grants.sessions() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.shared.grants.cut_where(&Cut::Stop, |_| true);
        let until = Instant::now() + Duration::from_secs(2);
        while self.shared.grants.sessions() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop.send_replace(true);
        self.shared.counting.flush(&self.shared.ledger);
        self.shared.strangers.flush(&self.shared.ledger, |store| self.shared.jurisdiction(store));
        heartbeat(&self.shared);
        let record =
            GatewayRecord { version: env!("CARGO_PKG_VERSION"), reason: Some(reason), manifest: None };
        let _ = self.shared.ledger.append(Entry::new(Kind::GatewayStopped, "-", &record)).durable().await;
        if let Some(traces) = self.shared.config.traces.clone() {
            let _ = tokio::task::spawn_blocking(move || traces.close()).await;
        }
    }
}

fn policy_entry(policy: &Policy) -> Entry {
    let registry = policy.registry();
    let regulators = registry.jurisdictions.keys().filter_map(|jurisdiction| {
        let people = registry.people.iter().filter(|p| policy.regulates(p, jurisdiction));
        let keys: BTreeMap<String, String> =
            people.filter_map(|p| Some((p.name.clone(), p.key.clone()?))).collect();
        (!keys.is_empty()).then(|| (jurisdiction.clone(), keys))
    });
    let record = PolicyRecord {
        regulators: regulators.collect(),
        enrolment: registry.enrolment,
        enrolments: registry.enrolments.clone(),
        digest: policy.digest().to_owned(),
        approvals: registry.approvals,
        approver_keys: policy.approver_keys(),
        rules: Some(policy.rules()).filter(|text| text.len() <= MAX_RULES).map(str::to_owned),
    };
    Entry::new(Kind::PolicyChanged, "-", &record)
}

/// Says that the gateway is alive, and how many entries it has promised to write.
fn heartbeat(shared: &Shared) {
    let sessions = u64::try_from(shared.grants.sessions()).unwrap_or(u64::MAX);
    shared.ledger.heartbeat(|promised| {
        let statements = promised.values().sum();
        let record = HeartbeatRecord { every_ms: HEARTBEAT_MS, sessions, promised: promised.clone() };
        Entry::new(Kind::Heartbeat, "-", &record).counting(Counters { statements, ..Counters::default() })
    });
}

async fn record_start(shared: &Shared) -> Result<(), ringfence_ledger::Unavailable> {
    let record = GatewayRecord {
        version: env!("CARGO_PKG_VERSION"),
        reason: None,
        manifest: shared.config.manifest.as_ref(),
    };
    let started = shared.ledger.append(Entry::new(Kind::GatewayStarted, "-", &record));
    let rules = shared.ledger.append(policy_entry(&shared.policy()));
    for ticket in [started, rules] {
        ticket.durable().await?;
    }
    Ok(())
}

/// What must not wait for any database.
async fn watch_over(shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let mut heartbeats = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
    let mut border = tokio::time::interval(border::LOOK);
    loop {
        tokio::select! {
            _ = heartbeats.tick() => heartbeat(&shared),
            _ = border.tick() => shared.border.look(&shared),
            _ = stopping.changed() => return,
        }
    }
}

/// Reads what other gateways let be reached.
async fn follow(shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let mut looks = tokio::time::interval(FOLLOW);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = stopping.changed() => return,
        }
        let them = Arc::clone(&shared);
        let read = tokio::task::spawn_blocking(move || them.meter.follow()).await;
        if let Ok(Err(error)) = read {
            tracing::error!(%error, "another gateway's log cannot be read; its readers are counted as of before");
        }
    }
}

/// Sees where rows are at home, also where another gateway's clients were held for it.
async fn follow_routes(shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let mut looks = tokio::time::interval(REFRESH);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => route::look_all(&shared).await,
            _ = stopping.changed() => return,
        }
    }
}

/// How long the control database may take to say what is in force.
const PATIENCE: Duration = Duration::from_secs(10);

async fn housekeeping(shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let mut refresh = tokio::time::interval(REFRESH);
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    loop {
        tokio::select! {
            _ = refresh.tick() => {
                match tokio::time::timeout(PATIENCE, shared.refresh()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "grants in force stay as they are until the control database answers");
                    }
                    Err(_) => {
                        tracing::warn!("the control database does not answer: grants in force stay as they are until it does");
                        shared.control.hang_up();
                    }
                }
            }
            _ = housekeeping.tick() => {
                shared.counting.flush(&shared.ledger);
                shared.strangers.flush(&shared.ledger, |store| shared.jurisdiction(store));
                shared.prune().await;
            }
            _ = stopping.changed() => return,
        }
    }
}

/// Keeps up to date which code of others a store has.
async fn look_at_code(shared: Arc<Shared>, store: String, mut stopping: watch::Receiver<bool>) {
    let mut looks = tokio::time::interval(others::LOOK);
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            _ = looks.tick() => {}
        }
        if let Some(behind) = shared.stores.get(&store) {
            behind.others.keep(&behind.steward).await;
        }
    }
}
