//! The command line: what can be said, and who does it.

mod audit;
mod backup;
mod console;
mod copies;
mod enrol;
mod erase;
mod erase_looking;
mod erase_person;
mod flow;
mod ledger;
mod login;
mod logs;
mod meter;
mod migrate;
mod reconcile;
mod report;
mod store;
mod witness;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use ledger::{make_keys, write_secret};
pub(crate) use witness::make_witness_keys;

use crate::{demo, password, serve};

/// Keeps one country's user data inside that country, and proves it.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    /// More detail in the program's own log: -v, -vv. RUST_LOG overrides it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Start PostgreSQL clusters, load a short-video platform's data, and serve them: the five-minute tour.
    Demo(demo::DemoArgs),
    /// Serve the stores of a configuration.
    Serve(serve::ServeArgs),
    /// Ask for more than you see.
    Request(console::RequestArgs),
    /// List requests, or show one.
    Requests(console::ListArgs),
    /// Sign a request.
    Approve(console::ApproveArgs),
    /// Turn a request down.
    Deny(console::EndArgs),
    /// Log in with the identity that you have: a short-lived client certificate, and services for psql.
    Login(login::LoginArgs),
    /// Give less than was asked for: makes a narrower request of one, which is then approved like any other.
    Narrow(console::NarrowArgs),
    /// Show who is connected now at the stores of your teams, and what has gone through.
    Sessions(console::SessionsArgs),
    /// Cut a session; approvers of its store can.
    Cut(console::CutArgs),
    /// Have approvers sign that a key is somebody's, where the registry asks for it.
    Enrol(enrol::EnrolArgs),
    /// Forget what the identity provider calls somebody, who has a new account there; approvers can, for others.
    Unbind(console::UnbindArgs),
    /// Suspend all access from abroad to a jurisdiction's data, by a signed order; its regulators can.
    Suspend(console::OrderArgs),
    /// Lift a suspension, by a signed order; the jurisdiction's regulators can.
    Resume(console::OrderArgs),
    /// Take a grant back; its sessions are cut at once.
    Revoke(console::EndArgs),
    /// List the grants in force.
    Grants(console::ListArgs),
    /// Read, verify and prove the transparency log.
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Ask the ledger who reached what, and take the answer with its proofs to somebody else.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// How many people's data each recipient has reached in twelve months, beside the thresholds of the law.
    Meter(meter::MeterArgs),
    /// Write a report for the public, for regulators, or for the company itself.
    Report(report::ReportArgs),
    /// Keep the register of copies: every place where protected data also lies.
    #[command(subcommand)]
    Copies(copies::CopiesCommand),
    /// Erase what is left of rows that have moved: in the store that they left, and in its copies.
    #[command(subcommand)]
    Erase(erase::EraseCommand),
    /// Let public columns go on to a store outside, as the in-country team has signed, and check what goes.
    #[command(subcommand)]
    Flow(flow::FlowCommand),
    /// Make backups with a key each, so that they can be erased where nobody reaches them.
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Move a jurisdiction's rows to another store while they are in use.
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Compare a store's own log with the ledger: name what did not come through the gateway.
    Reconcile(reconcile::ReconcileArgs),
    /// Keep the signed list of all logs, and verify them together.
    #[command(subcommand)]
    Logs(logs::LogsCommand),
    /// Be a witness for transparency logs: check that they only grow, and cosign (C2SP tlog-witness).
    #[command(subcommand)]
    Witness(witness::WitnessCommand),
    /// Draft a catalogue from a live database.
    Init(store::InitArgs),
    /// Name every way around the views, every unclassified column, every policy that can never apply.
    Check(store::CheckArgs),
    /// Prepare a store, as its superuser. Shows what it would do; does it with --yes.
    Install(store::InstallArgs),
    /// Put a store back as it was. Shows what it would do; does it with --yes.
    Uninstall(store::UninstallArgs),
    /// Make a SCRAM-SHA-256 verifier for the registry from a password on standard input.
    Password,
    /// Make the keys that a configuration needs: the log's, and the gateway's secret.
    Keys(ledger::KeysArgs),
}

/// Where the configuration is.
#[derive(Args, Clone)]
pub(crate) struct ConfigArgs {
    /// The configuration. Default: ./ringfence.toml, else the demo's .ringfence-demo/ringfence.toml.
    #[arg(long, value_name = "FILE", env = "RINGFENCE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

impl ConfigArgs {
    /// The file to read.
    pub(crate) fn path(&self) -> PathBuf {
        let here = PathBuf::from("ringfence.toml");
        let demo = PathBuf::from(demo::DEFAULT_DIR).join("ringfence.toml");
        match &self.config {
            Some(path) => path.clone(),
            None if !here.exists() && demo.exists() => demo,
            None => here,
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What happened; empty if it was told already.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// The exit code.
    pub(crate) code: u8,
}

impl Failure {
    /// "No": a check failed or something was refused.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 1 }
    }

    /// The configuration or the surroundings are not right.
    pub(crate) fn setup(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 2 }
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::setup(e.to_string())
    }
}

impl From<ringfence_face::Error> for Failure {
    fn from(e: ringfence_face::Error) -> Self {
        Self::setup(e.to_string())
    }
}

impl From<ringfence_verifier::Error> for Failure {
    fn from(e: ringfence_verifier::Error) -> Self {
        Self::refused(e.to_string())
    }
}

impl From<ringfence_ledger::erase::Refused> for Failure {
    fn from(e: ringfence_ledger::erase::Refused) -> Self {
        Self::refused(e.to_string())
    }
}

impl From<ringfence_reports::Error> for Failure {
    fn from(e: ringfence_reports::Error) -> Self {
        Self::refused(e.to_string())
    }
}

pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    log_to_stderr(cli.verbose);
    match cli.command {
        Command::Demo(args) => demo::run(args).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Request(args) => console::request(args).await,
        Command::Requests(args) => console::list(args, false).await,
        Command::Grants(args) => console::list(args, true).await,
        Command::Approve(args) => console::approve(args).await,
        Command::Deny(args) => console::end(args, "deny").await,
        Command::Login(args) => tokio::task::spawn_blocking(move || login::run(&args))
            .await
            .map_err(|e| Failure::setup(e.to_string()))?,
        Command::Narrow(args) => console::narrow(args).await,
        Command::Sessions(args) => console::sessions(args).await,
        Command::Cut(args) => console::cut(args).await,
        Command::Suspend(args) => console::order(args, "suspend").await,
        Command::Resume(args) => console::order(args, "resume").await,
        Command::Enrol(args) => enrol::run(&args).await,
        Command::Unbind(args) => console::unbind(args).await,
        Command::Revoke(args) => console::end(args, "revoke").await,
        Command::Ledger(command) => ledger::run(command),
        Command::Audit(command) => audit::run(command),
        Command::Meter(args) => meter::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Copies(command) => copies::run(command).await,
        Command::Erase(command) => erase::run(command).await,
        Command::Flow(command) => flow::run(command).await,
        Command::Backup(command) => backup::run(command).await,
        Command::Migrate(command) => migrate::run(command).await,
        Command::Reconcile(args) => reconcile::run(args),
        Command::Logs(command) => logs::run(command),
        Command::Witness(command) => witness::run(command).await,
        Command::Init(args) => store::init(args).await,
        Command::Check(args) => store::check(args).await,
        Command::Install(args) => store::install(args).await,
        Command::Uninstall(args) => store::uninstall(args).await,
        Command::Password => password::run(),
        Command::Keys(args) => ledger::keys(&args),
    }
}

fn log_to_stderr(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let default = match verbose {
        0 => "warn,ringfence=info",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .try_init();
}

/// Prints a value as pretty JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) {
    println!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_fits_together() {
        super::Cli::command().debug_assert();
    }
}
