//! `ringfence backup`: backups that can be erased where nobody reaches them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use ringfence_grants::request::rfc3339;
use ringfence_residency::backup::Manifest;
use ringfence_residency::backup::keys::{self, Identity, Keys};
use ringfence_residency::backup::read::{self, Restored};
use ringfence_residency::backup::write::{self, Backup};
use ringfence_residency::scope::Scope;
use serde_json::json;

use super::console::{Console, WhoArgs};
use super::{ConfigArgs, Failure, print_json};
use crate::scans::{self, Places};

/// `ringfence backup …`
#[derive(Subcommand)]
pub(crate) enum BackupCommand {
    /// Make the jurisdiction's own key, which the keys of backups are wrapped for. It belongs in the jurisdiction.
    Keygen(KeygenArgs),
    /// Back a store up, and register the copy.
    Run(RunArgs),
    /// List the backups whose keys are kept here.
    List(ListArgs),
    /// Read a backup to its end, and give nothing back: whether it could be restored.
    Check(CheckArgs),
    /// Give a backup back, to an empty database or as SQL. It is on record first.
    Restore(RestoreArgs),
}

/// `keygen`
#[derive(Args)]
pub(crate) struct KeygenArgs {
    /// The file for the secret half, which must not exist. The public half is printed.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// `run`
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// The store: one of [[copies.clusters]].
    #[arg(long)]
    store: String,
    /// The folder that the backup's own folder is made in.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// The country where it lies, where the folder is not in one of [copies].
    #[arg(long)]
    location: Option<String>,
}

/// `list`
#[derive(Args)]
pub(crate) struct ListArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// `check`
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The backup's folder.
    folder: PathBuf,
    /// The jurisdiction's secret key (AGE-SECRET-KEY-1…).
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// `restore`
#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// The backup's folder.
    folder: PathBuf,
    #[command(flatten)]
    who: WhoArgs,
    /// The jurisdiction's secret key (AGE-SECRET-KEY-1…).
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// Why: it is on record.
    #[arg(long)]
    reason: String,
    /// The database, as psql takes it: "host=… dbname=…".
    #[arg(long, value_name = "DSN", required_unless_present = "output")]
    into: Option<String>,
    /// Write SQL to this file instead.
    #[arg(long, value_name = "FILE", conflicts_with = "into")]
    output: Option<PathBuf>,
}

pub(crate) async fn run(command: BackupCommand) -> Result<(), Failure> {
    match command {
        BackupCommand::Keygen(args) => keygen(&args),
        BackupCommand::Run(args) => back_up(&args).await,
        BackupCommand::List(args) => list(&args),
        BackupCommand::Check(args) => check(&args),
        BackupCommand::Restore(args) => restore(&args).await,
    }
}

fn keygen(args: &KeygenArgs) -> Result<(), Failure> {
    use ringfence_residency::backup::keys::ExposeSecret as _;
    let (secret, public) = keys::generate();
    let cannot = |e: io::Error| Failure::setup(format!("{}: {e}", args.out.display()));
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.out).map_err(cannot)?;
    writeln!(file, "# public key: {public}\n{}", secret.expose_secret()).map_err(cannot)?;
    file.sync_all().map_err(cannot)?;
    println!("{public}");
    Ok(())
}

fn load(config: &ConfigArgs) -> Result<(String, Places, Keys), Failure> {
    let path = config.path();
    let jurisdiction = scans::jurisdiction(&path)?;
    let places = scans::load(&path, &jurisdiction)?;
    let keys = places.keys.clone().ok_or_else(|| {
        Failure::setup("the configuration has no [backups]")
            .hint("it names `keys`, a folder, and `recipients`, a file; `ringfence backup keygen` makes a recipient")
    })?;
    Ok((jurisdiction, places, keys))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn back_up(args: &RunArgs) -> Result<(), Failure> {
    let (jurisdiction, places, keys) = load(&args.who.config)?;
    let cluster = places.clusters.iter().find(|c| c.store == args.store);
    let cluster = cluster.ok_or_else(|| {
        let names: Vec<&str> = places.clusters.iter().map(|c| c.store.as_str()).collect();
        Failure::setup(format!(
            "no [[copies.clusters]] is of {}; known are: {}",
            args.store,
            names.join(", ")
        ))
    })?;
    let to = args.to.canonicalize().map_err(|e| Failure::setup(format!("{}: {e}", args.to.display())))?;
    let known = places.folders.iter().find(|f| to.starts_with(&f.path)).map(|f| f.location.clone());
    let location = args.location.as_ref().map(|l| l.to_ascii_uppercase()).or(known).ok_or_else(|| {
        Failure::setup(format!("in which country is {}?", to.display())).hint("name it with --location")
    })?;
    let scope = Scope::of(&cluster.catalogue, &jurisdiction, &places.countries)
        .map_err(|problems| Failure::setup(format!("the catalogue:\n  {}", problems.join("\n  "))))?;
    let about_nobody: Vec<(String, String)> = scope
        .stay
        .iter()
        .filter_map(|name| Some((cluster.catalogue.tables.get(name)?.schema.clone(), name.clone())))
        .collect();
    let console = Console::connect(&args.who, None).await?;
    let now = now();
    let name: String = rfc3339(now).chars().filter(char::is_ascii_alphanumeric).collect();
    let folder = to.join(format!("{}-{name}", args.store));
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {human_pos} rows {elapsed}") {
        bar.set_style(style);
    }
    let backup = Backup {
        store: &args.store,
        admin: &cluster.admin,
        scope: &scope,
        about_nobody: &about_nobody,
        folder: &folder,
        location: &location,
        keys: &keys,
        recipients: &places.recipients,
        now,
    };
    let told = &mut |what: &str, rows| {
        bar.set_message(what.to_owned());
        bar.inc(rows);
    };
    let written = write::write(&backup, told).await?;
    bar.finish_and_clear();
    let found = json!({ "do": "register", "jurisdiction": jurisdiction, "found": [written.copy] });
    console.ask(&found).await?;
    let rows: u64 = written.manifest.parts.iter().map(|p| p.rows).sum();
    if args.who.json {
        print_json(
            &json!({ "folder": folder, "copy": written.copy, "backup": written.manifest, "unclassified": written.unclassified }),
        );
    } else {
        let theirs: u64 =
            written.manifest.parts.iter().filter(|p| p.key == written.copy.id).map(|p| p.rows).sum();
        println!(
            "{}: {} rows, {} of {jurisdiction} with a key of their own.",
            folder.display(),
            HumanCount(rows),
            HumanCount(theirs)
        );
        println!("Registered as {}.", written.copy.id);
        for table in &written.unclassified {
            println!("NOTE     {table} is not in the catalogue: its rows are with those of {jurisdiction}");
        }
    }
    Ok(())
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let (_, _, keys) = load(&args.config)?;
    let all = keys.all()?;
    if args.json {
        let told = |k: &keys::Kept| json!({ "id": k.id, "jurisdiction": k.jurisdiction, "store": k.store, "place": k.place, "made": rfc3339(k.made), "key": k.recipient, "destroyed_under": k.destroyed });
        print_json(&all.iter().map(told).collect::<Vec<_>>());
        return Ok(());
    }
    for kept in &all {
        let whose = kept.jurisdiction.as_deref().unwrap_or("others");
        let state = kept
            .destroyed
            .as_ref()
            .map_or_else(String::new, |under| format!(" [key destroyed under {under}]"));
        println!("{}  {}  {} of {}: {}{state}", kept.id, rfc3339(kept.made), whose, kept.store, kept.place);
    }
    Ok(())
}

fn identities(file: &Path) -> Result<Vec<Identity>, Failure> {
    let cannot = |e: String| Failure::setup(format!("{}: {e}", file.display()));
    let text = fs::read_to_string(file).map_err(|e| cannot(e.to_string()))?;
    keys::identities(&text).map_err(cannot)
}

fn reading() -> ProgressBar {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bytes} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn tell(restored: &Restored, json: bool) {
    if json {
        print_json(restored);
        return;
    }
    for (file, under) in &restored.destroyed {
        println!("DESTROYED  {file}: its key was destroyed under {under}");
    }
    println!("{} files hold together, {} rows.", restored.parts.len(), HumanCount(restored.rows));
}

fn check(args: &CheckArgs) -> Result<(), Failure> {
    let (_, _, keys) = load(&args.config)?;
    let manifest = Manifest::read(&args.folder)?;
    let bar = reading();
    let with = identities(&args.identity)?;
    let restored =
        read::restore(&args.folder, &manifest, &keys, &with, &mut io::sink(), &mut |n| bar.inc(n))?;
    bar.finish_and_clear();
    tell(&restored, args.json);
    Ok(())
}

async fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let (jurisdiction, _, keys) = load(&args.who.config)?;
    let manifest = Manifest::read(&args.folder)?;
    let with = identities(&args.identity)?;
    let known = keys.all()?;
    let theirs = known.iter().find(|k| {
        k.jurisdiction.as_ref() == Some(&jurisdiction) && manifest.parts.iter().any(|part| part.key == k.id)
    });
    let theirs = theirs
        .ok_or_else(|| Failure::refused(format!("no key of {} is kept here", args.folder.display())))?;
    let console = Console::connect(&args.who, None).await?;
    console.ask(&json!({ "do": "opened", "id": theirs.id, "reason": args.reason })).await?;
    let bar = reading();
    let restored = match (&args.output, &args.into) {
        (Some(path), _) => {
            let cannot = |e: io::Error| Failure::setup(format!("{}: {e}", path.display()));
            let made =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
            let mut out = io::BufWriter::new(made);
            let restored =
                read::restore(&args.folder, &manifest, &keys, &with, &mut out, &mut |n| bar.inc(n))?;
            out.flush().map_err(cannot)?;
            restored
        }
        (None, Some(dsn)) => into(dsn, &args.folder, &manifest, &keys, &with, &bar)?,
        (None, None) => return Err(Failure::setup("where to? Give --into or --output")),
    };
    bar.finish_and_clear();
    tell(&restored, args.who.json);
    if args.output.is_none() && !args.who.json {
        println!("Prepare it with `ringfence install` before it is a store.");
    }
    Ok(())
}

/// Gives it to psql, which says what does not fit.
fn into(
    dsn: &str,
    folder: &Path,
    manifest: &Manifest,
    keys: &Keys,
    with: &[Identity],
    bar: &ProgressBar,
) -> Result<Restored, Failure> {
    let mut child = Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=0", "-o", "/dev/null", "-d", dsn])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Failure::setup(format!("psql cannot be run: {e}")))?;
    let complaints = child
        .stderr
        .take()
        .map(|err| std::thread::spawn(move || io::read_to_string(err).unwrap_or_default()));
    let given = match child.stdin.take() {
        Some(mut to) => read::restore(folder, manifest, keys, with, &mut to, &mut |n| bar.inc(n)),
        None => return Err(Failure::setup("psql takes no input")),
    };
    let status = child.wait().map_err(|e| Failure::setup(format!("psql: {e}")))?;
    let complaints = complaints.and_then(|thread| thread.join().ok()).unwrap_or_default();
    // DETAIL and CONTEXT have values of rows.
    let errors: Vec<&str> =
        complaints.lines().filter(|l| l.contains("ERROR:") || l.contains("FATAL:")).collect();
    if !status.success() || !errors.is_empty() {
        let shown = errors.iter().take(10).map(|l| format!("\n  {l}")).collect::<Vec<_>>().concat();
        let shown =
            if shown.is_empty() { complaints.lines().next().unwrap_or_default().to_owned() } else { shown };
        return Err(Failure::refused(format!("{} errors while it was given back:{shown}", errors.len())));
    }
    Ok(given?)
}
