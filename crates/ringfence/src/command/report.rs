//! `ringfence report`: reports as HTML, PDF and JSON, from the ledger.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use ringfence_gateway::TlsRequired;
use ringfence_ledger::now_ms;
use ringfence_reports::paper::{Paper, html, pdf};
use ringfence_reports::report::cisa::Installed;
use ringfence_reports::report::facts::{Facts, Scope};
use ringfence_reports::report::{cisa, reduction, restricted, transparency};
use ringfence_verifier::manifest::seconds;
use serde_json::json;

use super::meter::LogsArgs;
use super::{Failure, print_json};
use crate::config;

/// Which report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// For the public: access from other countries, decisions, refusals, thresholds; no personal data.
    Transparency,
    /// What 28 CFR 202.1001, .1002, .1101, .1103 and .1104 ask to have on record; gaps are shown as gaps.
    RestrictedTransactions,
    /// CISA's security requirements, item by item.
    Cisa,
    /// Which access could have been served by less.
    Reduction,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Transparency => "transparency",
            Self::RestrictedTransactions => "restricted-transactions",
            Self::Cisa => "cisa",
            Self::Reduction => "reduction",
        }
    }
}

/// `ringfence report`.
#[derive(Args)]
pub(crate) struct ReportArgs {
    /// Which report.
    kind: Kind,
    /// Of this calendar year (UTC); the current one if nothing is said.
    #[arg(long, conflicts_with_all = ["from", "until"])]
    year: Option<u16>,
    /// From this day on, as in 2026-07-01.
    #[arg(long, requires = "until")]
    from: Option<String>,
    /// Before this day.
    #[arg(long, requires = "from")]
    until: Option<String>,
    /// A folder for the report as HTML, PDF and JSON, and for the entries behind its figures.
    #[arg(long, default_value = "reports")]
    out: PathBuf,
    /// In the transparency report, numbers below this are not shown.
    #[arg(long, default_value_t = 5)]
    smallest: u64,
    /// List all entries behind one figure, as in `statements.country.SG`, and write no report.
    #[arg(long, value_name = "FIGURE")]
    trace: Option<String>,
    #[command(flatten)]
    logs: LogsArgs,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl ReportArgs {
    /// The period in milliseconds since 1970.
    fn period(&self) -> Result<(u64, u64), Failure> {
        let at = |text: &str| {
            seconds(text).map(|s| s * 1000).ok_or_else(|| Failure::setup(format!("{text} is no day")))
        };
        if let (Some(from), Some(until)) = (&self.from, &self.until) {
            return Ok((at(from)?, at(until)?));
        }
        let this: String = ringfence_verifier::manifest::rfc3339(now_ms() / 1000).chars().take(4).collect();
        let year = self.year.or_else(|| this.parse().ok()).unwrap_or(1970);
        Ok((at(&format!("{year}-01-01"))?, at(&format!("{}-01-01", year + 1))?))
    }
}

/// `ringfence report`.
pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    let path = args.logs.config.path();
    let places = config::places(&path)?;
    let registry = places.registry()?;
    let (from, until) = args.period()?;
    let until = until.min(now_ms() + 1);
    if from >= until {
        return Err(Failure::setup("that time has not begun, or ends before it begins"));
    }
    let logs = args.logs.read(&places)?;
    let purposes: BTreeSet<String> = places.purposes.iter().cloned().collect();
    let scope = Scope { logs, from, until, purposes, traced: args.trace.clone() };
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {pos} entries read").expect("the template is tested");
    bar.set_style(style);
    let facts = Facts::read(&scope, &registry, |entries| bar.set_position(entries))
        .map_err(|e| Failure::setup(e.to_string()))?;
    bar.finish_and_clear();
    if let Some(name) = &args.trace {
        return trace(&facts, name, args.json);
    }
    let statements = places.statements()?;
    let paper = match args.kind {
        Kind::Transparency => {
            let jurisdictions: Vec<String> = registry.jurisdictions.keys().cloned().collect();
            transparency::write(&facts, &jurisdictions, args.smallest)
        }
        Kind::RestrictedTransactions => restricted::write(&facts, &registry, &statements, now_ms()),
        Kind::Reduction => reduction::write(&facts),
        Kind::Cisa => {
            let loaded = config::load(&path)?;
            cisa::write(&facts, &loaded.policy, &installed(&loaded), &statements, now_ms())
        }
    };
    let gaps = paper.gaps();
    if args.json {
        print_json(&json!({ "report": paper, "gaps": gaps }));
    } else {
        save(args, &paper, &facts)?;
    }
    if gaps > 0 {
        let what = if gaps == 1 { "item is a gap" } else { "items are gaps" };
        return Err(Failure::refused(if args.json { String::new() } else { format!("{gaps} {what}") }));
    }
    Ok(())
}

fn installed(loaded: &config::Loaded) -> Installed {
    let gateway = &loaded.gateway;
    let witnesses = loaded.ledger.witnesses.as_ref();
    let local = gateway.stores.iter().filter(|s| s.steward.tls.is_none()).map(|s| s.name.clone());
    Installed {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tls: (gateway.tls.is_some(), requires_tls(gateway)),
        local_stores: local.collect(),
        witnesses: witnesses.map_or(0, |w| w.quorum.witnesses.len()),
        witness_max_age: witnesses.map_or(0, |w| w.max_age.as_secs()),
    }
}

/// Whether clients on other machines, as far as it listens to them, are refused without TLS.
fn requires_tls(gateway: &ringfence_gateway::Config) -> bool {
    let is_exposed =
        gateway.listen.iter().any(|address| !address.ip().is_loopback()) || !gateway.proxies.is_empty();
    match gateway.tls_required {
        TlsRequired::Always => true,
        TlsRequired::BeyondLoopback => is_exposed,
        TlsRequired::Never => false,
    }
}

fn trace(facts: &Facts, name: &str, is_json: bool) -> Result<(), Failure> {
    let Some(figure) = facts.figures.get(name) else {
        let known: Vec<&str> = facts.figures.names().collect();
        return Err(Failure::refused(format!("there is no figure {name}"))
            .hint(format!("there are: {}", known.join(", "))));
    };
    let of = |log: usize| facts.logs.get(log).map_or("", |l| l.origin.as_str());
    if is_json {
        let entries: Vec<_> =
            figure.of.iter().map(|(log, index)| json!({ "log": of(*log), "entry": index })).collect();
        print_json(&json!({ "figure": name, "value": figure.value, "entries": entries }));
    } else {
        println!("{name} is {}, from {} entries:", figure.value, figure.entries);
        for (log, index) in &figure.of {
            println!("{} {index}", of(*log));
        }
        println!("`ringfence ledger disclose ENTRY` shows one with its proof.");
    }
    Ok(())
}

fn save(args: &ReportArgs, paper: &Paper, facts: &Facts) -> Result<(), Failure> {
    let failed = |path: &std::path::Path, e: std::io::Error| {
        Failure::setup(format!("cannot write {}: {e}", path.display()))
    };
    std::fs::create_dir_all(&args.out).map_err(|e| failed(&args.out, e))?;
    let origins: Vec<&str> = facts.logs.iter().map(|log| log.origin.as_str()).collect();
    let figures = json!({ "logs": origins, "figures": facts.figures });
    let text = |value: serde_json::Result<Vec<u8>>| value.map_err(|e| Failure::setup(e.to_string()));
    let name = args.kind.name();
    for (suffix, bytes) in [
        ("html", html::write(paper).into_bytes()),
        ("pdf", pdf::write(paper)),
        ("json", text(serde_json::to_vec_pretty(paper))?),
        ("entries.json", text(serde_json::to_vec_pretty(&figures))?),
    ] {
        let path = args.out.join(format!("{name}.{suffix}"));
        std::fs::write(&path, bytes).map_err(|e| failed(&path, e))?;
        println!("{}", path.display());
    }
    if args.kind == Kind::Transparency {
        println!("The last file is not for the public: it says which entries each figure is made of.");
    }
    Ok(())
}
