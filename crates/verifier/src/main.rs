//! `ringfence-verify`: checks what somebody hands over (a bundle, a log, a proof, all logs of an installation) from the files
//! alone. Exit code 0: it holds; 1: it does not; 2: it cannot be checked like this.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use ringfence_verifier::bundle;
use ringfence_verifier::checkpoint::{CHECKPOINT, origin_of};
use ringfence_verifier::installation::{self, Judge, find_logs};
use ringfence_verifier::manifest::{self, Manifest, rfc3339};
use ringfence_verifier::quorum::Quorum;
use ringfence_verifier::verify::verify_with;
use ringfence_verifier::{keys, proof};

const USAGE: &str = "\
Checks what somebody hands over, from the files alone.

Usage: ringfence-verify [OPTIONS] PATH…

  PATH is a bundle (a folder with bundle.json), a log (a folder with a checkpoint), or a proof (a .tlog-proof file).
  With --manifest, the paths are the logs of an installation, which are checked together.

Options:
  --trust FILE           whom to believe: logs, witnesses and their quorum (C2SP tlog-policy)
  --vkey KEY             a log's public key, or a file with its keys, where --trust does not name the log
  --manifest FILE        the signed list of all logs
  --manifest-vkey FILE   the public key that signs it
  --json                 print JSON
  -h, --help, -V, --version

Exit code: 0 it holds, 1 it does not, 2 it cannot be checked like this.";

#[derive(Default)]
struct Arguments {
    paths: Vec<PathBuf>,
    trust: Option<PathBuf>,
    vkey: Option<String>,
    manifest: Option<PathBuf>,
    manifest_vkey: Option<PathBuf>,
    json: bool,
}

enum Asked {
    Check(Arguments),
    Tell(String),
}

fn parse() -> Result<Asked, String> {
    use lexopt::prelude::*;
    let mut arguments = Arguments::default();
    let mut parser = lexopt::Parser::from_env();
    let told = |e: lexopt::Error| e.to_string();
    while let Some(argument) = parser.next().map_err(told)? {
        match argument {
            Long("trust") => arguments.trust = Some(parser.value().map_err(told)?.into()),
            Long("vkey") => arguments.vkey = Some(parser.value().map_err(told)?.string().map_err(told)?),
            Long("manifest") => arguments.manifest = Some(parser.value().map_err(told)?.into()),
            Long("manifest-vkey") => arguments.manifest_vkey = Some(parser.value().map_err(told)?.into()),
            Long("json") => arguments.json = true,
            Short('h') | Long("help") => return Ok(Asked::Tell(USAGE.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Asked::Tell(format!("ringfence-verify {}", env!("CARGO_PKG_VERSION"))));
            }
            Value(path) => arguments.paths.push(path.into()),
            other => return Err(other.unexpected().to_string()),
        }
    }
    if arguments.paths.is_empty() {
        return Err("nothing to check was named".to_owned());
    }
    Ok(Asked::Check(arguments))
}

fn main() -> ExitCode {
    let checked = match parse() {
        Ok(Asked::Tell(text)) => {
            say(text);
            return ExitCode::SUCCESS;
        }
        Ok(Asked::Check(arguments)) => check(&arguments),
        Err(problem) => Err(format!("{problem}\n\n{USAGE}")),
    };
    match checked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("ringfence-verify: {problem}");
            ExitCode::from(2)
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// One line of the answer. Whoever reads may stop listening: that changes nothing about what holds.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn print_json(value: &impl serde::Serialize) {
    say(serde_json::to_string_pretty(value).unwrap_or_default());
}

fn check(arguments: &Arguments) -> Result<bool, String> {
    let trust = match &arguments.trust {
        Some(file) => Some(Quorum::parse(&read(file)?).map_err(|e| format!("{}: {e}", file.display()))?),
        None => None,
    };
    if let Some(file) = &arguments.manifest {
        return check_installation(arguments, file, trust.as_ref());
    }
    let mut holds = true;
    for path in &arguments.paths {
        holds &= if path.join(bundle::INDEX).exists() {
            check_bundle(path, trust.as_ref(), arguments.json)
        } else if path.join(CHECKPOINT).exists() {
            check_log(path, &vkeys(arguments, path, trust.as_ref())?, trust.as_ref(), arguments.json)
        } else if path.is_file() {
            check_proof(path, arguments, trust.as_ref())?
        } else {
            return Err(format!("{} is neither a bundle, nor a log, nor a proof", path.display()));
        };
    }
    Ok(holds)
}

/// The keys of the log in `dir`: named on the command line, or in the trust policy.
fn vkeys(arguments: &Arguments, dir: &Path, trust: Option<&Quorum>) -> Result<String, String> {
    let note = std::fs::read(dir.join(CHECKPOINT)).map_err(|e| e.to_string())?;
    named_keys(arguments, &origin_of(&note).unwrap_or_default(), trust)
}

fn named_keys(arguments: &Arguments, origin: &str, trust: Option<&Quorum>) -> Result<String, String> {
    let text = match &arguments.vkey {
        Some(key) if Path::new(key).exists() => read(Path::new(key))?,
        Some(key) => key.clone(),
        None => trust.map(|t| t.keys_of(origin)).unwrap_or_default(),
    };
    if text.is_empty() {
        return Err(format!(
            "no key of the log {origin:?} is known: name it with --vkey, or in the --trust policy"
        ));
    }
    keys::verifiers(&text).map_err(|e| e.to_string())?;
    Ok(text)
}

fn check_bundle(path: &Path, trust: Option<&Quorum>, json: bool) -> bool {
    let verdict = bundle::check(path, trust);
    let holds = verdict.problems.is_empty();
    if json {
        print_json(&verdict);
        return holds;
    }
    for line in &verdict.proven {
        say(format!("PROVEN   {line}"));
    }
    for line in &verdict.claimed {
        say(format!("CLAIMED  {line}"));
    }
    for line in &verdict.problems {
        say(format!("WRONG    {line}"));
    }
    if !holds {
        say(format!("{} proves nothing.", path.display()));
    }
    holds
}

fn check_log(path: &Path, vkeys: &str, trust: Option<&Quorum>, json: bool) -> bool {
    let mut judge = Judge::default();
    let report = verify_with(path, vkeys, trust, &mut judge);
    let holds = report.problems.is_empty();
    if json {
        print_json(
            &serde_json::json!({ "verified": holds, "approvals": judge.approvals.verified, "report": report }),
        );
        return holds;
    }
    for problem in &report.problems {
        say(format!("WRONG    {problem}"));
    }
    if holds {
        say(format!(
            "PROVEN   {} entries hash to the root {} that the log has signed",
            report.entries, report.root
        ));
        say(format!("PROVEN   {} private records are the ones that the entries commit to", report.records));
        say(format!("PROVEN   {} approvals are signed by the approvers' own keys", judge.approvals.verified));
        if judge.approvals.enrolled > 0 {
            say(format!("PROVEN   {} signatures of approvers let new keys in", judge.approvals.enrolled));
        }
        if judge.orders.verified > 0 {
            say(format!(
                "PROVEN   {} orders are signed by regulators' own keys, and nothing crossed the border behind a suspension",
                judge.orders.verified
            ));
        }
        if report.erased > 0 {
            say(format!("PROVEN   {} private records were erased, and the log says why", report.erased));
        }
        match &report.witnessed {
            Some(w) => {
                for cosigned in &w.cosigned {
                    let at = rfc3339(cosigned.time);
                    say(format!(
                        "PROVEN   {} saw the first {} entries like this at {at}",
                        cosigned.witness, w.size
                    ));
                }
            }
            None => {
                say("CLAIMED  that everybody is shown the same log: no witness is in the trust policy");
            }
        }
        for gap in &report.gaps {
            say(format!(
                "NOTE     no entry from {} until {}",
                rfc3339(gap.from / 1000),
                rfc3339(gap.until / 1000)
            ));
        }
    }
    holds
}

fn check_proof(path: &Path, arguments: &Arguments, trust: Option<&Quorum>) -> Result<bool, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let origin = text.split_once("\n\n").and_then(|(_, note)| note.lines().next()).unwrap_or_default();
    match proof::check(&bytes, &named_keys(arguments, origin, trust)?, trust) {
        Ok(shown) if arguments.json => print_json(&shown),
        Ok(shown) => {
            say(format!("PROVEN   entry {} is in a log of {} entries", shown.index, shown.size));
            for cosigned in &shown.cosigned {
                say(format!("PROVEN   {} saw that log at {}", cosigned.witness, rfc3339(cosigned.time)));
            }
            if let Some(record) = shown.record {
                say(serde_json::to_string_pretty(&record).unwrap_or_default());
            }
        }
        Err(problem) => {
            say(format!("WRONG    {problem}"));
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_installation(arguments: &Arguments, file: &Path, trust: Option<&Quorum>) -> Result<bool, String> {
    let vkey = arguments.manifest_vkey.as_ref().ok_or("--manifest needs --manifest-vkey")?;
    let note = read(file)?;
    let manifest = Manifest::open(note.as_bytes(), &read(vkey)?).map_err(|e| e.to_string())?;
    let digest = manifest::digest(note.as_bytes()).map_err(|e| e.to_string())?;
    let dirs: Vec<PathBuf> = arguments.paths.iter().flat_map(|dir| find_logs(dir)).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let found = installation::verify(&manifest, &digest, &dirs, trust, now);
    if arguments.json {
        print_json(&found);
        return Ok(found.holds());
    }
    for log in &found.logs {
        say(format!("PROVEN   {}: {} entries", log.origin, log.report.entries));
        for problem in &log.report.problems {
            say(format!("WRONG    {}: {problem}", log.origin));
        }
    }
    for problem in &found.problems {
        say(format!("WRONG    {problem}"));
    }
    Ok(found.holds())
}
