//! `ringfence demo`: real PostgreSQL clusters, a short-video platform's data, a gateway, and a tour.
//!
//! Three clusters of its own in one folder: `us-trusted` (the U.S., a trusted host; the U.S. users' rows), `sg-legacy`
//! (Singapore; everybody's rows, as before a move) and `control`. They listen on sockets in that folder only.

mod clips;
mod cluster;
mod load;
mod people;
mod tour;
mod witnesses;

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use ringfence_face::install;
use ringfence_residency::backup::keys::{self, ExposeSecret as _};
use tokio_postgres::NoTls;

use crate::command::{Failure, make_keys, write_secret};
use crate::serve::{Asked, Signals};
use crate::{password, serve};
use cluster::{Cluster, Host};

/// Where the demo lies unless told otherwise.
pub(crate) const DEFAULT_DIR: &str = ".ringfence-demo";

/// `ringfence demo`.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// The folder for clusters, keys and the ledger; kept and used again.
    #[arg(long, default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// The port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 6432)]
    port: u16,
    /// Walk the whole tour by itself, tell what was expected and seen, and exit with 0 or 1.
    #[arg(long)]
    check: bool,
    /// How many users the platform has.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(4711..))]
    users: u32,
    /// Stop when standard input ends: for programs that start a demo and may die.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

/// One of the demo's stores.
struct Site {
    name: &'static str,
    database: &'static str,
    /// Only these users' rows.
    country: Option<&'static str>,
}

const SITES: [Site; 2] = [
    Site { name: "us-trusted", database: "us", country: Some("US") },
    Site { name: "sg-legacy", database: "legacy", country: None },
];
/// Where the tour's move goes: an empty database at the trusted host.
const HOME: &str = "home";
/// Where public columns of U.S. users may go on to.
const WORLD: &str = "world";
/// What the servers of a move log in to each other as.
const MOVE_ROLE: &str = "ringfence_move";
/// What the other end of a flow logs in as: it may read less.
const FLOW_ROLE: &str = "ringfence_flow";
const CONTROL: &str = "control";
const CONTROL_ROLE: &str = "ringfence_control";

/// `ringfence demo`.
pub(crate) async fn run(args: DemoArgs) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.dir)
        .map_err(|e| Failure::setup(format!("cannot create {}: {e}", args.dir.display())))?;
    let dir = args.dir.canonicalize()?;
    let lock = File::create(dir.join("demo.lock"))?;
    if lock.try_lock().is_err() {
        if args.check {
            return tour::walk(&dir).await;
        }
        return Err(Failure::setup(format!("a demo is running in {} already", dir.display()))
            .hint("use it, stop it, or choose another --dir"));
    }
    let mut signals = Signals::new()?;
    let host = Host::find(&dir)?;
    let mut clusters = Vec::new();
    let mut witnesses = Vec::new();
    let started = tokio::select! {
        started = start(&dir, &args, &host, &mut clusters, &mut witnesses) => started,
        _ = signals.next() => Err(Failure::refused("stopped before it was ready")),
    };
    let result = match started {
        Ok(gateway) => {
            let result = serve_until(&dir, &args, &gateway, &mut signals).await;
            gateway.stop("the demo was stopped").await;
            result
        }
        Err(e) => Err(e),
    };
    drop(witnesses);
    drop(clusters);
    drop(lock);
    result
}

async fn serve_until(
    dir: &Path,
    args: &DemoArgs,
    gateway: &ringfence_gateway::Gateway,
    signals: &mut Signals,
) -> Result<(), Failure> {
    if args.check {
        return tokio::select! {
            walked = tour::walk(dir) => walked,
            _ = signals.next() => Err(Failure::refused("stopped in the middle of the tour")),
        };
    }
    let port = gateway.addresses().first().map_or(args.port, std::net::SocketAddr::port);
    println!("ringfence demo is ready");
    print!("{}", people::invitation(dir, port));
    let stdin = serve::stdin_ended(args.until_stdin_ends);
    tokio::pin!(stdin);
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => break,
                Asked::Reload => serve::reload(gateway, &dir.join("ringfence.toml")),
            },
            () = &mut stdin => break,
        }
    }
    eprintln!("ringfence demo is stopping");
    Ok(())
}

/// Starts the clusters, fills them if they are new, and starts the gateway.
async fn start(
    dir: &Path,
    args: &DemoArgs,
    host: &Host,
    clusters: &mut Vec<Cluster>,
    witnesses: &mut Vec<witnesses::Running>,
) -> Result<ringfence_gateway::Gateway, Failure> {
    let names = SITES.iter().map(|s| s.name).chain([CONTROL]);
    let keep = dir.join("keys/gateway.secret").exists();
    let mut tasks = tokio::task::JoinSet::new();
    for name in names {
        let host = host.clone();
        tasks.spawn_blocking(move || Cluster::start(&host, name, keep));
    }
    while let Some(started) = tasks.join_next().await {
        clusters.push(started.map_err(|e| Failure::setup(e.to_string()))??);
    }
    for cluster in clusters.iter() {
        cluster.wait_ready().await?;
    }
    let fresh: Vec<&str> = clusters.iter().filter(|c| !c.is_filled()).map(|c| c.name).collect();
    if !fresh.is_empty() {
        people::write_files(dir, &password::short_verifier)?;
        if !dir.join("keys/ledger.key").exists() {
            make_keys(&dir.join("keys"), "ringfence-demo.example/us")?;
        }
        fill(dir, args, clusters, &fresh).await?;
    }
    *witnesses = witnesses::start(dir)?;
    people::write_config(dir, args.port, clusters.iter().map(|c| (c.name, c.socket_dir())))?;
    let gateway = serve::start(&dir.join("ringfence.toml"), None).await?;
    witnesses::wait_confirmed(gateway.ledger()).await;
    // With port 0 only the gateway knows; the command line reads it here.
    if let Some(address) = gateway.addresses().first() {
        people::write_config(dir, address.port(), clusters.iter().map(|c| (c.name, c.socket_dir())))?;
    }
    Ok(gateway)
}

async fn fill(dir: &Path, args: &DemoArgs, clusters: &[Cluster], fresh: &[&str]) -> Result<(), Failure> {
    let data = clips::Clips::new(args.users);
    let sites: Vec<(&Site, &Cluster)> = SITES
        .iter()
        .filter_map(|s| Some((s, clusters.iter().find(|c| c.name == s.name && fresh.contains(&c.name))?)))
        .collect();
    let rows = sites.iter().map(|(site, _)| load::rows(&data, site.country)).sum();
    let bar = load::progress(rows);
    for (site, cluster) in &sites {
        load::create(cluster, site.database).await?;
    }
    let mut loads = Vec::new();
    for (site, cluster) in &sites {
        loads.push(load::copy(cluster.superuser(site.database), data, site.country, bar.clone()));
    }
    for loaded in futures_util::future::join_all(loads).await {
        loaded?;
    }
    bar.finish_and_clear();
    eprintln!("loaded {rows} rows");
    let (mover, flow) = (random(), random());
    if !sites.is_empty() {
        keep_secret(dir, "move.password", &mover)?;
        keep_secret(dir, "flow.password", &flow)?;
        let (identity, recipient) = keys::generate();
        keep_secret(dir, "backup.identity", identity.expose_secret())?;
        keep_secret(dir, "backup.recipients", &recipient)?;
    }
    for (site, cluster) in &sites {
        let password = random();
        prepare(cluster, site.database, &password).await?;
        keep_secret(dir, &format!("{}.steward", site.name), &password)?;
        let client = connect(&cluster.superuser("postgres")).await?;
        for (role, password) in [(MOVE_ROLE, &mover), (FLOW_ROLE, &flow)] {
            let verifier = password::short_verifier(password);
            let sql = format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{verifier}'");
            client.batch_execute(&sql).await.map_err(database("create a role for replication"))?;
        }
        if site.country.is_some() {
            load::create_empty(cluster, HOME).await?;
            prepare(cluster, HOME, &password).await?;
        } else {
            load::create_empty(cluster, WORLD).await?;
            let closed = format!("REVOKE ALL ON DATABASE {WORLD} FROM PUBLIC");
            client.batch_execute(&closed).await.map_err(database("close a database"))?;
        }
        for name in [site.database, HOME].iter().take(if site.country.is_some() { 2 } else { 1 }) {
            let sql = format!("GRANT CONNECT ON DATABASE {name} TO {MOVE_ROLE}");
            client.batch_execute(&sql).await.map_err(database("let the role for moves in"))?;
        }
        if site.country.is_some() {
            let sql = format!("GRANT CONNECT ON DATABASE {HOME} TO {FLOW_ROLE}");
            client.batch_execute(&sql).await.map_err(database("let the role for flows in"))?;
        }
        cluster.mark_filled()?;
    }
    if let Some(control) = clusters.iter().find(|c| c.name == CONTROL && fresh.contains(&c.name)) {
        let password = random();
        keep_secret(dir, "control.password", &password)?;
        let client = connect(&control.superuser("postgres")).await?;
        let verifier = password::short_verifier(&password);
        let sql = format!("CREATE ROLE {CONTROL_ROLE} LOGIN PASSWORD '{verifier}'");
        client.batch_execute(&sql).await.map_err(database("create the control role"))?;
        client
            .batch_execute(&format!("CREATE DATABASE control OWNER {CONTROL_ROLE}"))
            .await
            .map_err(database("create the control database"))?;
        control.mark_filled()?;
    }
    Ok(())
}

/// What an operator does once with `ringfence install --yes`.
async fn prepare(cluster: &Cluster, name: &str, password: &str) -> Result<(), Failure> {
    let mut client = connect(&cluster.superuser(name)).await?;
    let options = install::Options {
        steward_verifier: password::short_verifier(password),
        full_role: Some(load::APP_ROLE.to_owned()),
    };
    let plan = install::plan(&client, &options).await?;
    install::apply(&mut client, &plan).await?;
    Ok(())
}

fn keep_secret(dir: &Path, name: &str, secret: &str) -> Result<(), Failure> {
    let file = dir.join("keys").join(name);
    let _ = std::fs::remove_file(&file);
    write_secret(&file, secret)
}

fn random() -> String {
    use rand_core::RngCore as _;
    let mut bytes = [0; 24];
    rand_core::OsRng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}

async fn connect(config: &tokio_postgres::Config) -> Result<tokio_postgres::Client, Failure> {
    let (client, connection) = config.connect(NoTls).await.map_err(database("connect"))?;
    tokio::spawn(connection);
    Ok(client)
}

fn database(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Failure {
    move |e| {
        let problem = e.as_db_error().map_or_else(|| e.to_string(), |db| db.message().to_owned());
        Failure::setup(format!("the demo cannot {doing}: {problem}"))
    }
}
