//! `ringfence serve`: a gateway until somebody stops it. SIGTERM and SIGINT drain, SIGHUP reads the rules anew.

use std::path::Path;

use ringfence_control::Control;
use ringfence_gateway::Gateway;
use ringfence_ledger::Ledger;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::command::Failure;
use crate::config;

/// Starts a gateway from a configuration.
pub(crate) async fn start(path: &Path) -> Result<Gateway, Failure> {
    let loaded = config::load(path)?;
    let ledger = Ledger::open(&loaded.ledger).map_err(|e| Failure::setup(e.to_string()))?;
    Gateway::start(loaded.gateway, loaded.policy, ledger, Control::new(loaded.control))
        .await
        .map_err(|e| Failure::setup(e.to_string()))
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

/// Reads rules and certificate anew; what is wrong with them leaves the old ones in force.
pub(crate) fn reload(gateway: &Gateway, path: &Path) {
    match config::load(path) {
        Ok(loaded) => {
            gateway.replace_certificate(loaded.gateway.tls);
            gateway.replace_policy(loaded.policy);
            tracing::info!("rules and certificate were read anew");
        }
        Err(e) => tracing::error!(problem = %e.message, "the new rules are not in force; the old ones are"),
    }
}

/// `ringfence serve`.
pub(crate) async fn run(path: &Path) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let gateway = start(path).await?;
    for address in gateway.addresses() {
        println!("ringfence listens on {address}");
    }
    while let Asked::Reload = signals.next().await {
        reload(&gateway, path);
    }
    eprintln!("ringfence is stopping; running statements may finish");
    gateway.stop("a signal asked for it").await;
    Ok(())
}
