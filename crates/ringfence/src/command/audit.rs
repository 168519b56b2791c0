//! `ringfence audit`: questions to the ledger, and bundles that answer them to strangers.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use ringfence_grants::request::rfc3339;
use ringfence_ledger::now_ms;
use ringfence_meter::SubjectKey;
use ringfence_reports::bundle::{self, Source};
use ringfence_reports::index::{self, Progress};
use ringfence_reports::question::{self, Answer, Question};
use ringfence_verifier::bundle::check;
use ringfence_verifier::manifest::seconds;
use ringfence_verifier::quorum::Quorum;
use serde_json::json;

use super::{ConfigArgs, Failure, print_json};
use crate::config;

/// `ringfence audit`.
#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Who reached whose data, when, from where, and why.
    WhoAccessed {
        #[command(flatten)]
        question: QuestionArgs,
        /// Only statements across the border that showed this data subject, by the key that the catalogue names.
        #[arg(long, value_name = "KEY")]
        subject: Option<String>,
        /// What kind of subject that is, as in the catalogue.
        #[arg(long, default_value = "persons", requires = "subject")]
        subjects: String,
        /// Print every statement with its entries in the ledger: `ringfence ledger disclose ENTRY` proves one.
        #[arg(long)]
        each: bool,
        /// Print JSON.
        #[arg(long, conflicts_with = "csv")]
        json: bool,
        /// Print comma-separated values.
        #[arg(long)]
        csv: bool,
        #[command(flatten)]
        logs: LogsArgs,
    },
    /// Write the answer with all its proofs into a folder, for somebody who checks it with `ringfence-verify`.
    Bundle {
        #[command(flatten)]
        question: QuestionArgs,
        /// The folder, which must not be there yet.
        #[arg(long)]
        out: PathBuf,
        /// Add all public leaves of the time: they prove that nothing was kept back.
        #[arg(long)]
        complete: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        logs: LogsArgs,
    },
    /// Bring the index up to date. Questions do that by themselves.
    Index {
        /// Throw the index away and read everything anew.
        #[arg(long)]
        rebuild: bool,
        #[command(flatten)]
        logs: LogsArgs,
    },
}

/// What is asked. What is not said does not matter.
#[derive(Args)]
pub(crate) struct QuestionArgs {
    /// Whose law protects the data, as in us.
    #[arg(long)]
    jurisdiction: Option<String>,
    /// From which country, as in CN.
    #[arg(long)]
    from: Option<String>,
    /// For which company they work.
    #[arg(long)]
    employer: Option<String>,
    /// Only covered persons (28 CFR 202.211).
    #[arg(long)]
    covered: bool,
    /// Who.
    #[arg(long)]
    person: Option<String>,
    /// Which store.
    #[arg(long)]
    store: Option<String>,
    /// Which column, as in users.email: whoever may have reached it, as far as the statements' texts tell.
    #[arg(long)]
    column: Option<String>,
    /// A word in the purpose of the grant.
    #[arg(long)]
    purpose: Option<String>,
    /// From when on: 2021-09-01, or 2021-09-01T12:00:00Z.
    #[arg(long, value_parser = parse_since)]
    since: Option<u64>,
    /// Until when; a day alone is until its end.
    #[arg(long, value_parser = parse_until)]
    until: Option<u64>,
}

fn parse_since(text: &str) -> Result<u64, String> {
    seconds(text)
        .map(|s| s * 1000)
        .ok_or_else(|| "is neither a day (2021-09-01) nor a time (2021-09-01T12:00:00Z)".to_owned())
}

fn parse_until(text: &str) -> Result<u64, String> {
    let at = parse_since(text)?;
    Ok(if text.contains('T') { at } else { at + 24 * 3600 * 1000 })
}

impl QuestionArgs {
    fn question(&self) -> Question {
        Question {
            jurisdiction: self.jurisdiction.clone(),
            from: self.from.clone(),
            employer: self.employer.clone(),
            covered: self.covered,
            person: self.person.clone(),
            store: self.store.clone(),
            column: self.column.clone(),
            purpose: self.purpose.clone(),
            since: self.since,
            until: self.until,
        }
    }
}

/// Which logs are asked.
#[derive(Args)]
pub(crate) struct LogsArgs {
    /// A log's folder; may be given several times. Default: that of the configuration.
    #[arg(long = "dir")]
    dirs: Vec<PathBuf>,
    /// A file with the logs' public keys. Default: that of the configuration.
    #[arg(long)]
    vkey: Option<PathBuf>,
    /// Where the index is. Default: beside each log.
    #[arg(long)]
    index: Option<PathBuf>,
    /// Whom the bundle names to be believed (C2SP tlog-policy). Default: that of the configuration.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

struct Logs {
    sources: Vec<Source>,
    dirs: Vec<PathBuf>,
    trust: Option<String>,
}

impl LogsArgs {
    fn logs(&self) -> Result<Logs, Failure> {
        let places = if self.dirs.is_empty() || self.vkey.is_none() {
            Some(config::places(&self.config.path())?)
        } else {
            None
        };
        let default = |pick: fn(&config::Places) -> PathBuf| places.as_ref().map(pick);
        let dirs = match default(|p| p.ledger_dir.clone()) {
            Some(dir) if self.dirs.is_empty() => vec![dir],
            _ => self.dirs.clone(),
        };
        let vkey = self.vkey.clone().or_else(|| default(|p| p.vkey.clone())).unwrap_or_default();
        let keys = read(&vkey)?;
        let mut sources = Vec::new();
        for dir in &dirs {
            let note = std::fs::read(dir.join("checkpoint"))
                .map_err(|e| Failure::setup(format!("{} is no log: {e}", dir.display())))?;
            let origin = ringfence_verifier::checkpoint::origin_of(&note).map_err(Failure::setup)?;
            let of_log =
                keys.lines().filter(|k| ringfence_verifier::keys::origin(k) == Some(origin.as_str()));
            let vkeys = of_log.collect::<Vec<_>>().join("\n");
            if vkeys.is_empty() {
                return Err(Failure::setup(format!("{} has no key of the log {origin}", vkey.display())));
            }
            if sources
                .iter()
                .any(|s: &Source| ringfence_verifier::keys::origin(&s.vkeys) == Some(origin.as_str()))
            {
                return Err(Failure::setup(format!("the log {origin} is named twice")));
            }
            let name = format!("{}.index", dir.file_name().unwrap_or_default().to_string_lossy());
            let index = match &self.index {
                Some(index) => index.join(origin.replace(|c: char| !c.is_ascii_alphanumeric(), "-")),
                None => dir.with_file_name(name),
            };
            sources.push(Source { index, vkeys });
        }
        let witnesses = places.and_then(|p| p.witnesses);
        let trust = self.trust.clone().or(witnesses).map(|file| read(&file)).transpose()?;
        Ok(Logs { sources, dirs, trust })
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::setup(format!("cannot read {}: {e}", path.display())))
}

/// Brings the indexes up to date.
fn update(logs: &Logs) -> Result<(), Failure> {
    for (source, dir) in logs.sources.iter().zip(&logs.dirs) {
        let bar = ProgressBar::hidden();
        if let Ok(style) =
            ProgressStyle::with_template("indexing {msg} {bar:30} {pos}/{len} entries, {per_sec}, {eta} left")
        {
            bar.set_style(style);
        }
        bar.set_message(dir.display().to_string());
        let mut is_shown = false;
        index::update(&source.index, dir, &source.vkeys, |Progress { entries, of }| {
            // Only what takes long is worth a bar.
            if !is_shown && of > 200_000 {
                bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
                is_shown = true;
            }
            bar.set_length(of);
            bar.set_position(entries);
        })?;
        bar.finish_and_clear();
    }
    Ok(())
}

/// The hash of a data subject, which the installation's secret makes.
fn subject_id(config: &ConfigArgs, kind: &str, key: &str) -> Result<[u64; 1], Failure> {
    let secret = config::places(&config.path())?.secret()?;
    Ok([SubjectKey::new(&secret).of_column(kind, false).id(key.as_bytes())])
}

/// `ringfence audit …`.
pub(crate) fn run(command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::WhoAccessed { question, subject, subjects, each, json, csv, logs } => {
            let whom = subject.map(|key| subject_id(&logs.config, &subjects, &key)).transpose()?;
            let logs = logs.logs()?;
            update(&logs)?;
            let indexes: Vec<PathBuf> = logs.sources.into_iter().map(|s| s.index).collect();
            let began = Instant::now();
            let answer =
                question::ask(&indexes, &question.question(), whom.as_ref().map(|id| &id[..]), each)?;
            let took = began.elapsed();
            match (json, csv) {
                (true, _) => print_json(&answer),
                (_, true) => print_csv(&answer),
                _ => print_text(&answer, took),
            }
            Ok(())
        }
        AuditCommand::Bundle { question, out, complete, json, logs } => {
            let logs = logs.logs()?;
            update(&logs)?;
            make_bundle(&out, &logs, &question.question(), complete, json)
        }
        AuditCommand::Index { rebuild, logs } => {
            let logs = logs.logs()?;
            for source in logs.sources.iter().filter(|_| rebuild) {
                if source.index.exists() {
                    std::fs::remove_dir_all(&source.index)?;
                }
            }
            update(&logs)
        }
    }
}

fn print_text(answer: &Answer, took: std::time::Duration) {
    let statements: u64 = answer.logs.iter().map(|l| l.statements).sum();
    let entries: u64 = answer.logs.iter().map(|l| l.entries).sum();
    if answer.people.is_empty() {
        println!("Nobody.");
    }
    for (who, reach) in &answer.people {
        let employer = if who.employer.is_empty() { String::new() } else { format!(", {}", who.employer) };
        println!("{} ({}{employer}) at {}", who.person, who.location, who.store);
        println!(
            "    {} statements, {} rows, {}; from {} until {}",
            HumanCount(reach.statements),
            HumanCount(reach.rows),
            HumanBytes(reach.bytes),
            rfc3339(reach.first),
            rfc3339(reach.last)
        );
        if !who.covered.is_empty() {
            println!("    covered person: {}", who.covered);
        }
        for (grant, purpose) in who.grants.iter().zip(&who.purposes) {
            println!("    grant {grant}: {purpose}");
        }
        for (grant, rows) in &reach.charged {
            println!("    {} rows charged to grant {grant}", HumanCount(*rows));
        }
        let columns: Vec<&str> = reach.columns.iter().map(String::as_str).collect();
        println!("    reached {}", columns.join(" "));
    }
    for hit in &answer.hits {
        let who = answer.people.get(hit.by).map_or("", |(who, _)| who.person.as_str());
        let outcome = hit.outcome.map_or_else(|| "none".to_owned(), |o| o.to_string());
        println!(
            "{}  {who}  {} rows{}  {}  (entries {} and {outcome})",
            rfc3339(hit.began),
            hit.rows,
            if hit.charged.is_empty() {
                String::new()
            } else {
                format!(", {} charged", hit.charged.values().sum::<u64>())
            },
            hit.columns,
            hit.intent
        );
    }
    if answer.unknown > 0 {
        println!(
            "{} more statements may have shown them: whom those showed cannot be told (aggregates, COPY, results without the key).",
            HumanCount(answer.unknown)
        );
    }
    let erased: u64 = answer.logs.iter().map(|l| l.erased).sum();
    if erased > 0 {
        println!("{} entries are not in the answer: their records were erased.", HumanCount(erased));
    }
    eprintln!(
        "{} statements in {} entries were asked in {:.0} ms.",
        HumanCount(statements),
        HumanCount(entries),
        took.as_secs_f64() * 1000.0
    );
}

/// RFC 4180: a field with a comma, a quote or a line break is quoted.
fn csv_field(text: &str) -> String {
    // A spreadsheet must not take a name for a formula.
    let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn print_csv(answer: &Answer) {
    println!(
        "person,location,employer,covered,store,jurisdiction,grants,purposes,statements,rows,bytes,charged,first,last,columns"
    );
    for (who, reach) in &answer.people {
        let columns: Vec<&str> = reach.columns.iter().map(String::as_str).collect();
        let fields = [
            who.person.clone(),
            who.location.clone(),
            who.employer.clone(),
            who.covered.clone(),
            who.store.clone(),
            who.jurisdiction.clone(),
            who.grants.join(" "),
            who.purposes.join("; "),
            reach.statements.to_string(),
            reach.rows.to_string(),
            reach.bytes.to_string(),
            reach.charged.values().sum::<u64>().to_string(),
            rfc3339(reach.first),
            rfc3339(reach.last),
            columns.join(" "),
        ];
        println!("{}", fields.map(|f| csv_field(&f)).join(","));
    }
}

fn make_bundle(
    out: &Path,
    logs: &Logs,
    question: &Question,
    complete: bool,
    json: bool,
) -> Result<(), Failure> {
    let trust = logs.trust.clone().unwrap_or_else(|| bundle::keys_only(&logs.sources));
    let quorum = Quorum::parse(&trust).map_err(|e| Failure::setup(format!("the trust policy: {e}")))?;
    let written = bundle::write(out, &logs.sources, question, complete, &trust, now_ms())?;
    // What does not convince us will convince nobody.
    let verdict = check(out, Some(&quorum));
    if let Some(problem) = verdict.problems.first() {
        return Err(Failure::refused(format!("the bundle does not verify: {problem}")));
    }
    if json {
        print_json(&json!({ "written": written, "verdict": verdict }));
    } else {
        println!(
            "{}: {} statements, {} entries with their records, {} public leaves, {}.",
            out.display(),
            HumanCount(written.statements),
            HumanCount(written.entries),
            HumanCount(written.leaves),
            HumanBytes(written.bytes)
        );
        if written.newer > 0 {
            println!("{} newer statements are not in it: no witness has confirmed them yet.", written.newer);
        }
        println!("Check it with: ringfence-verify {} --trust FILE", out.display());
    }
    Ok(())
}
