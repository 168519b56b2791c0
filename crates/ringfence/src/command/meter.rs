//! `ringfence meter`: how many people's data each recipient has reached in twelve months, counted anew from the ledger.

use std::path::PathBuf;

use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use ringfence_ledger::now_ms;
use ringfence_meter::tally::{Line, Recipient};
use ringfence_meter::{Tally, replay};
use ringfence_policy::{Registry, Unit};
use ringfence_verifier::checkpoint::read_head;
use ringfence_verifier::manifest::{rfc3339, seconds};
use serde_json::json;

use super::{ConfigArgs, Failure, print_json};
use crate::config;

/// `ringfence meter`.
#[derive(Args)]
pub(crate) struct MeterArgs {
    /// Only what this person, or this company, has reached.
    #[arg(long, value_name = "NAME")]
    recipient: Option<String>,
    /// Only of this jurisdiction.
    #[arg(long)]
    jurisdiction: Option<String>,
    /// The twelve months before this time (RFC 3339 or a date) instead of those before now.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    #[command(flatten)]
    logs: LogsArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which logs are counted.
#[derive(Args)]
pub(crate) struct LogsArgs {
    /// A log's folder and public key, as DIR:VKEY, instead of those of the configuration; may be given several times.
    #[arg(long = "log", value_name = "DIR:VKEY")]
    logs: Vec<String>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

impl LogsArgs {
    /// Their folders, with the texts of their public keys.
    pub(crate) fn read(&self, places: &config::Places) -> Result<Vec<(PathBuf, String)>, Failure> {
        if self.logs.is_empty() {
            return places.logs();
        }
        let read = |log: &String| {
            let (dir, vkey) = log.rsplit_once(':').ok_or_else(|| {
                Failure::setup(format!("{log} does not name a folder and a public key, as DIR:VKEY"))
            })?;
            let text = std::fs::read_to_string(vkey)
                .map_err(|e| Failure::setup(format!("cannot read {vkey}: {e}")))?;
            Ok((PathBuf::from(dir), text.trim().to_owned()))
        };
        self.logs.iter().map(read).collect()
    }
}

/// A meter, and what it was made of.
struct Counted {
    /// Its lines.
    lines: Vec<Line>,
    /// Entries read.
    entries: u64,
    /// Entries that could not be counted, because their records were erased.
    erased: u64,
}

/// Counts what `logs` (folders with the texts of their public keys) say, as of `at_ms`.
fn count(registry: &Registry, logs: &[(PathBuf, String)], at_ms: u64) -> Result<Counted, Failure> {
    let mut tally = Tally::exact(&registry.thresholds);
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {pos} entries read").expect("the template is tested");
    bar.set_style(style);
    let mut entries = 0;
    for (dir, vkey) in logs {
        let failed = |e: ringfence_verifier::Error| Failure::setup(e.to_string());
        let head = read_head(dir, vkey).map_err(failed)?;
        let head = head.ok_or_else(|| Failure::setup(format!("there is no log in {}", dir.display())))?;
        let each = |found: Option<(&ringfence_verifier::Leaf, ringfence_meter::Reached<'_>)>| {
            if found.as_ref().is_none_or(|(leaf, _)| leaf.time <= at_ms) {
                tally.replay(found);
            }
        };
        entries += replay::read(dir, 0, Some(head.size), at_ms, each, |at| bar.set_position(at.entries))
            .map_err(failed)?;
    }
    bar.finish_and_clear();
    Ok(Counted { lines: tally.lines(at_ms), entries, erased: tally.erased })
}

/// `ringfence meter`.
pub(crate) fn run(args: &MeterArgs) -> Result<(), Failure> {
    let places = config::places(&args.logs.config.path())?;
    let registry = places.registry()?;
    let logs = args.logs.read(&places)?;
    let at_ms = match &args.at {
        Some(text) => {
            let at = seconds(text).ok_or_else(|| Failure::setup(format!("{text} is no time")))?;
            at.saturating_mul(1000)
        }
        None => now_ms(),
    };
    let mut counted = count(&registry, &logs, at_ms)?;
    counted.lines.retain(|line| {
        args.recipient.as_ref().is_none_or(|wanted| wanted == line.recipient.name())
            && args.jurisdiction.as_ref().is_none_or(|wanted| *wanted == line.jurisdiction)
    });
    let exceeded = counted.lines.iter().filter(|line| line.is_exceeded()).count();
    if args.json {
        let lines: Vec<_> = counted.lines.iter().map(line_json).collect();
        print_json(&json!({
            "at": rfc3339(at_ms / 1000), "entries": counted.entries, "erased": counted.erased, "lines": lines,
            "exceeded": exceeded,
        }));
    } else {
        print_text(&counted, at_ms);
    }
    if exceeded > 0 {
        let what = if exceeded == 1 { "threshold is" } else { "thresholds are" };
        return Err(Failure::refused(if args.json {
            String::new()
        } else {
            format!("{exceeded} {what} exceeded")
        }));
    }
    Ok(())
}

fn line_json(line: &Line) -> serde_json::Value {
    let mut value = serde_json::to_value(line).unwrap_or_default();
    value["at_most"] = json!(line.at_most());
    value["exceeded"] = json!(line.is_exceeded());
    value
}

fn many(known: u64, unknown: u64) -> String {
    match unknown {
        0 => HumanCount(known).to_string(),
        _ => format!("{} + at most {}", HumanCount(known), HumanCount(unknown)),
    }
}

fn print_text(counted: &Counted, at_ms: u64) {
    println!("Reached across the border in the twelve months until {}:", rfc3339(at_ms / 1000));
    if counted.lines.is_empty() {
        println!("  nobody's protected data");
    }
    let mut last = None;
    for line in &counted.lines {
        if last != Some((&line.recipient, &line.jurisdiction)) {
            let (what, name) = match &line.recipient {
                Recipient::Person(name) => ("", name),
                Recipient::Employer(name) => (" (everybody who works for it)", name),
            };
            println!("{name}{what}, data of {}", line.jurisdiction);
            last = Some((&line.recipient, &line.jurisdiction));
        }
        let unit = if line.unit == Unit::Device { "devices" } else { "people" };
        println!(
            "    {:<32} {} {unit}, of these in clear {}",
            line.category,
            many(line.any, line.any_unknown),
            many(line.clear, line.clear_unknown)
        );
        if let (Some(most), Some(section)) = (line.more_than, &line.section) {
            let per_mille = line.at_most().saturating_mul(1000) / most.max(1);
            let mark = if line.is_exceeded() { "EXCEEDED: " } else { "" };
            println!(
                "    {:<32} {mark}{}.{} % of {} ({section})",
                "",
                per_mille / 10,
                per_mille % 10,
                HumanCount(most)
            );
        }
    }
    if counted.lines.iter().any(|line| line.any_unknown > 0) {
        println!(
            "\"at most\": results that do not say whom they are about, as of aggregates and COPY; nobody counts less."
        );
    }
    if counted.erased > 0 {
        println!("{} records were erased: whom they were about is not counted.", counted.erased);
    }
}
