//! `ringfence serve`: a gateway until somebody stops it. SIGTERM and SIGINT drain, SIGHUP reads the rules anew.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use ringfence_console::Console;
use ringfence_control::Control;
use ringfence_gateway::{Gateway, handover};
use ringfence_ledger::Ledger;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::command::{ConfigArgs, Failure};
use crate::{config, metrics, watch};

/// Starts a gateway from a configuration.
pub(crate) async fn start(path: &Path, take_over: Option<&Path>) -> Result<Gateway, Failure> {
    let mut loaded = config::load(path)?;
    let inherited = take_over.map(|from| {
        handover::ask(from)
            .map_err(|e| Failure::setup(format!("cannot take over from {}: {e}", from.display())))
    });
    let inherited = inherited.transpose()?;
    let ledger = Ledger::open(&loaded.ledger).map_err(|e| Failure::setup(e.to_string()))?;
    let traces = loaded.traces.take().map(crate::traces::Collector::open).transpose();
    loaded.gateway.traces = traces.map_err(|e| Failure::setup(format!("traces: {e}")))?;
    let own = (loaded.ledger.dir.clone(), loaded.ledger.vkey.clone());
    let others = loaded.gateway.other_logs.iter().map(|log| (log.dir.clone(), log.vkey.clone()));
    let logs: Vec<_> = std::iter::once(own).chain(others).collect();
    let gateway =
        Gateway::start(loaded.gateway, loaded.policy, ledger, Control::new(&loaded.control), inherited)
            .await
            .map_err(|e| Failure::setup(e.to_string()))?;
    for side_door in loaded.side_doors {
        watch::follow(side_door, &logs, gateway.ledger().downgrade())?;
    }
    if let Some(address) = loaded.metrics {
        let served = metrics::serve(address, &gateway.shared()).await;
        served.map_err(|e| Failure::setup(format!("metrics cannot be served at {address}: {e}")))?;
    }
    if let Some(config) = loaded.console {
        let origin = config.origin.clone();
        let console = Console::start(gateway.shared(), config)
            .map_err(|e| Failure::setup(format!("the console cannot listen: {e}")))?;
        tracing::info!(%origin, address = %console.address, "the console is open");
    }
    Ok(gateway)
}

/// The signals that matter.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// What somebody asked for by a signal.
pub(crate) enum Asked {
    Stop,
    Reload,
}

impl Signals {
    /// Takes the signals over.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

/// Resolves when standard input ends, if that is asked for: whoever started this program has died then.
pub(crate) async fn stdin_ended(is_asked_for: bool) {
    if !is_asked_for {
        return std::future::pending().await;
    }
    let (ended, stdin) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(ended);
    });
    let _ = stdin.await;
}

/// Reads rules and certificate anew; what is wrong with them leaves the old ones in force.
pub(crate) fn reload(gateway: &Gateway, path: &Path) {
    match config::load(path) {
        Ok(loaded) => {
            gateway.replace_certificate(loaded.gateway.tls);
            match gateway.replace_policy(loaded.policy) {
                Ok(()) => tracing::info!("rules and certificate were read anew"),
                Err(problem) => tracing::error!(%problem, "the new rules are not in force; the old ones are"),
            }
        }
        Err(e) => tracing::error!(problem = %e.message, "the new rules are not in force; the old ones are"),
    }
}

/// `ringfence serve`.
#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Take the listening sockets over from the gateway that waits at this socket (its `handover`), which then takes no more
    /// clients and ends when its last session has. Each needs a log of its own.
    #[arg(long, value_name = "SOCKET")]
    take_over: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// `ringfence serve`.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let path = args.config.path();
    let mut signals = Signals::new()?;
    let gateway = start(&path, args.take_over.as_deref()).await?;
    for address in gateway.addresses() {
        println!("ringfence listens on {address}");
    }
    let reason = loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Reload => reload(&gateway, &path),
                Asked::Stop => break "a signal asked for it",
            },
            () = gateway.succeeded() => {
                eprintln!("ringfence has a successor; running sessions go on until they end");
                break wait_for_sessions(&gateway, &mut signals, &path).await;
            }
        }
    };
    eprintln!("ringfence is stopping; running statements may finish");
    gateway.stop(reason).await;
    Ok(())
}

/// A successor takes the clients: what is left are the sessions that run.
async fn wait_for_sessions(gateway: &Gateway, signals: &mut Signals, path: &Path) -> &'static str {
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Reload => reload(gateway, path),
                Asked::Stop => return "a signal asked for it",
            },
            () = gateway.last_session_ended() => return "a successor took over",
        }
    }
}
