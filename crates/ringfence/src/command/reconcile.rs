//! `ringfence reconcile`: the store's own log beside the ledger.

use std::path::PathBuf;

use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use ringfence_grants::request::rfc3339;
use ringfence_reports::reconcile::{Finding, Reconciliation, Settings};
use ringfence_verifier::manifest::seconds;
use serde_json::json;

use super::{ConfigArgs, Failure, print_json};
use crate::config;

/// The most findings that are kept for JSON.
const MAX_FINDINGS: usize = 100_000;

/// `ringfence reconcile`.
#[derive(Args)]
pub(crate) struct ReconcileArgs {
    /// The store, as the ledger calls it.
    #[arg(long)]
    store: String,
    /// PostgreSQL's log, csvlog or jsonlog, with log_connections = on, log_statement = 'all', log_timezone = 'UTC' and
    /// lc_messages = 'C'. Several files in the order of time.
    #[arg(long = "server-log", value_name = "FILE", required = true, num_args = 1..)]
    server_log: Vec<PathBuf>,
    /// A log's folder; all gateways of the store must be named. Default: that of the configuration.
    #[arg(long = "dir")]
    dirs: Vec<PathBuf>,
    /// The store's database. Default: the store's name.
    #[arg(long)]
    database: Option<String>,
    /// The role with which gateways keep faces.
    #[arg(long, default_value = "ringfence")]
    steward: String,
    /// A role that may connect past the gateway, as for replication; may be given several times.
    #[arg(long = "allow", value_name = "ROLE")]
    allowed: Vec<String>,
    /// Only from this time on: 2026-11-24, or 2026-11-24T12:00:00Z.
    #[arg(long)]
    since: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Compares, and fails on any finding.
pub(crate) fn run(args: ReconcileArgs) -> Result<(), Failure> {
    let dirs =
        if args.dirs.is_empty() { vec![config::places(&args.config.path())?.ledger_dir] } else { args.dirs };
    let since = match &args.since {
        Some(text) => {
            seconds(text).ok_or_else(|| Failure::setup(format!("--since {text} is no time")))? * 1000
        }
        None => 0,
    };
    let settings = Settings {
        database: args.database.unwrap_or_else(|| args.store.clone()),
        store: args.store,
        steward: args.steward,
        allowed: args.allowed,
        since,
    };
    let mut comparing = Reconciliation::new(settings, &dirs)?;
    let mut findings: Vec<Finding> = Vec::new();
    let mut tell = |finding: Finding| {
        if !args.json {
            let digest =
                finding.text_digest.as_ref().map(|d| format!(", text {}…", &d[..16])).unwrap_or_default();
            println!(
                "{}  {}: role {} at {} from {} (session {}{digest})",
                rfc3339(finding.time),
                finding.what.text(),
                finding.role,
                finding.database,
                finding.address,
                finding.session
            );
        } else if findings.len() < MAX_FINDINGS {
            findings.push(finding);
        }
    };
    for file in &args.server_log {
        let bar = ProgressBar::new(0);
        if let Ok(style) =
            ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left")
        {
            bar.set_style(style);
        }
        bar.set_message(file.display().to_string());
        comparing.read(file, &mut tell, |position, total| {
            bar.set_length(total);
            bar.set_position(position);
        })?;
        bar.finish_and_clear();
    }
    let summary = comparing.finish(&mut tell)?;
    let is_clean = summary.findings == 0;
    if args.json {
        print_json(&json!({ "reconciled": is_clean, "summary": summary, "findings": findings }));
    } else {
        println!(
            "{} until {}: {} sessions; {} statements are recorded, {} counted, {} are the gateways' own; {} sessions of \
             allowed roles.",
            rfc3339(summary.from),
            rfc3339(summary.until),
            HumanCount(summary.sessions),
            HumanCount(summary.recorded),
            HumanCount(summary.counted),
            HumanCount(summary.own),
            HumanCount(summary.allowed)
        );
        if summary.not_yet > 0 {
            println!(
                "{} statements of workloads are newer than the ledger's counts: reconcile again later.",
                summary.not_yet
            );
        }
        if summary.sessions == 0 {
            println!("The server's log has nothing about this database.");
        }
    }
    if is_clean {
        Ok(())
    } else {
        Err(Failure::refused(if args.json {
            String::new()
        } else {
            format!("{} findings", summary.findings)
        }))
    }
}
