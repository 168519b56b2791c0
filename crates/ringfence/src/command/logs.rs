//! `ringfence logs`: the signed manifest of all logs of an installation.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ringfence_ledger::now_ms;
use ringfence_verifier::manifest::{self, LogKey, Manifest, rfc3339};
use ringfence_verifier::{installation, keys};
use serde_json::json;

use super::ledger::read_quorum;
use super::{Failure, print_json, write_secret};

/// `ringfence logs`.
#[derive(Subcommand)]
pub(crate) enum LogsCommand {
    /// Begin a manifest, and make the key that signs it.
    Init {
        /// The installation's name: a domain that you hold, and a path, as in example.com/ringfence.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        place: SignedArgs,
    },
    /// Add a log's key, as for a new gateway or when a key is rotated.
    Add {
        /// The log's public key file, made by `ringfence keys`.
        vkey: PathBuf,
        #[command(flatten)]
        place: SignedArgs,
    },
    /// End the time of a key: what it signed until now goes on to verify.
    Retire {
        /// The key's file.
        vkey: PathBuf,
        #[command(flatten)]
        place: SignedArgs,
    },
    /// Print the manifest.
    Show {
        #[command(flatten)]
        place: ReadArgs,
    },
    /// Verify all logs together: none is missing, silent, unknown or changed.
    Verify {
        /// The logs' folders, or folders that hold such folders.
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
        /// Witnesses and their quorum (C2SP tlog-policy).
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
        #[command(flatten)]
        place: ReadArgs,
    },
}

/// Where the manifest is, to read it.
#[derive(Args)]
pub(crate) struct ReadArgs {
    /// The manifest.
    #[arg(long, default_value = "logs.manifest")]
    manifest: PathBuf,
    /// The public key that signs it.
    #[arg(long, value_name = "FILE", default_value = "keys/manifest.vkey")]
    vkey: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where the manifest is, to change it.
#[derive(Args)]
pub(crate) struct SignedArgs {
    /// The manifest.
    #[arg(long, default_value = "logs.manifest")]
    manifest: PathBuf,
    /// The folder of manifest.key and manifest.vkey. Keep it with the in-country security team, not on a gateway.
    #[arg(long, default_value = "keys")]
    keys: PathBuf,
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::setup(format!("cannot read {}: {e}", path.display())))
}

impl SignedArgs {
    fn change(&self, change: impl FnOnce(&mut Manifest) -> Result<(), Failure>) -> Result<(), Failure> {
        let (skey, vkey) = (read(&self.keys.join("manifest.key"))?, read(&self.keys.join("manifest.vkey"))?);
        let mut manifest = Manifest::open(read(&self.manifest)?.as_bytes(), &vkey)?;
        change(&mut manifest)?;
        manifest.version += 1;
        self.write(&manifest, &skey)
    }

    fn write(&self, manifest: &Manifest, skey: &str) -> Result<(), Failure> {
        let new = self.manifest.with_extension("new");
        std::fs::write(&new, manifest.sign(skey)?)?;
        std::fs::rename(&new, &self.manifest)?;
        println!("{} is at version {}: give it to every gateway.", self.manifest.display(), manifest.version);
        Ok(())
    }
}

/// The current key in a file.
fn current(file: &Path) -> Result<String, Failure> {
    let text = read(file)?;
    keys::verifiers(&text)?;
    let line = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#'));
    Ok(line.unwrap_or_default().to_owned())
}

/// `ringfence logs …`.
pub(crate) fn run(command: LogsCommand) -> Result<(), Failure> {
    let now = now_ms() / 1000;
    match command {
        LogsCommand::Init { name, place } => {
            std::fs::create_dir_all(&place.keys)?;
            let made = ringfence_ledger::generate_keys(&format!("{name}/manifest"));
            write_secret(&place.keys.join("manifest.key"), &made.signer)?;
            write_secret(&place.keys.join("manifest.vkey"), &made.verifier)?;
            place.write(&Manifest { name, version: 1, logs: Vec::new() }, &made.signer)
        }
        LogsCommand::Add { vkey, place } => {
            let vkey = current(&vkey)?;
            place.change(|manifest| {
                if manifest.logs.iter().any(|l| l.vkey == vkey) {
                    return Err(Failure::refused("this key is in the manifest already"));
                }
                manifest.logs.push(LogKey { vkey, from: now, until: None });
                Ok(())
            })
        }
        LogsCommand::Retire { vkey, place } => {
            let vkey = current(&vkey)?;
            place.change(|manifest| {
                let found = manifest.logs.iter_mut().find(|l| l.vkey == vkey && l.until.is_none());
                let log =
                    found.ok_or_else(|| Failure::refused("this key is not in the manifest, or retired"))?;
                log.until = Some(now);
                Ok(())
            })
        }
        LogsCommand::Show { place } => show(&place),
        LogsCommand::Verify { dirs, trust, place } => verify(&dirs, trust.as_deref(), &place, now),
    }
}

fn show(place: &ReadArgs) -> Result<(), Failure> {
    let manifest = Manifest::open(read(&place.manifest)?.as_bytes(), &read(&place.vkey)?)?;
    if place.json {
        print_json(&manifest);
        return Ok(());
    }
    println!("{} version {}", manifest.name, manifest.version);
    for log in &manifest.logs {
        let until = log.until.map_or_else(|| "now".to_owned(), rfc3339);
        println!("  {} until {until:<20}  {}", rfc3339(log.from), log.vkey);
    }
    Ok(())
}

fn verify(dirs: &[PathBuf], trust: Option<&Path>, place: &ReadArgs, now: u64) -> Result<(), Failure> {
    let note = read(&place.manifest)?;
    let manifest = Manifest::open(note.as_bytes(), &read(&place.vkey)?)?;
    let quorum = trust.map(read_quorum).transpose()?;
    let dirs: Vec<PathBuf> = dirs.iter().flat_map(|dir| installation::find_logs(dir)).collect();
    let digest = manifest::digest(note.as_bytes())?;
    let found = installation::verify(&manifest, &digest, &dirs, quorum.as_ref(), now);
    if place.json {
        print_json(&json!({ "verified": found.holds(), "installation": found }));
    } else {
        for log in &found.logs {
            let state = if log.report.problems.is_empty() { "verifies" } else { "IS WRONG" };
            println!("{} {state}: {} entries", log.origin, log.report.entries);
            for problem in log.report.problems.iter().take(20) {
                eprintln!("WRONG: {}: {problem}", log.origin);
            }
        }
        for problem in &found.problems {
            eprintln!("WRONG: {problem}");
        }
        if found.holds() {
            println!("All {} logs of {} are here and verify.", found.logs.len(), manifest.name);
        }
    }
    if found.holds() {
        Ok(())
    } else {
        Err(Failure::refused(if place.json { "" } else { "the logs do not verify" }))
    }
}
