//! `ringfence copies`: the register of every place where protected data also lies.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use ringfence_residency::Database;
use ringfence_residency::backup::keys;
use ringfence_residency::copies::databases::{self, Cluster};
use ringfence_residency::copies::files::{self, Folder};
use ringfence_residency::copies::objects;
use ringfence_residency::copies::probe::Probes;
use ringfence_residency::copies::{Copy, Holds, Kind};
use ringfence_residency::scope::Scope;
use serde_json::{Value, json};

use super::console::{Console, WhoArgs};
use super::{Failure, print_json};
use crate::scans::{self, Places};

/// `ringfence copies …`
#[derive(Subcommand)]
pub(crate) enum CopiesCommand {
    /// Look for copies: what clusters know of, and what lies in folders. Registers what it finds.
    Scan(ScanArgs),
    /// List the register. Exit code 1 if there are findings.
    List(ListArgs),
    /// Show one copy.
    Show(ShowArgs),
    /// Register a copy that a scan cannot find: a tape, a partner's server.
    Add(AddArgs),
    /// Decide, as the in-country security team, that a copy may be where it is for a time.
    Except(ExceptArgs),
    /// Say that a copy is not there any more.
    Gone(GoneArgs),
}

/// Whose data.
#[derive(Args)]
pub(crate) struct JurisdictionArgs {
    /// The jurisdiction, where the configuration's [copies] does not say it.
    #[arg(long)]
    jurisdiction: Option<String>,
}

/// `scan`
#[derive(Args)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    who: WhoArgs,
    #[command(flatten)]
    whose: JurisdictionArgs,
    /// A further folder and the country where it lies, as /mnt/backup=SG; may be given several times.
    #[arg(long = "folder", value_name = "PATH=COUNTRY")]
    folders: Vec<String>,
    /// How many people to look for. Each is looked for everywhere by one value.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    people: i64,
    /// Only print what is found; register nothing.
    #[arg(long)]
    dry_run: bool,
}

/// `list`
#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    who: WhoArgs,
    #[command(flatten)]
    whose: JurisdictionArgs,
    /// Only what lies outside the jurisdiction and is neither gone nor excepted.
    #[arg(long)]
    findings: bool,
}

/// `show`
#[derive(Args)]
pub(crate) struct ShowArgs {
    /// The copy.
    id: String,
    #[command(flatten)]
    who: WhoArgs,
    #[command(flatten)]
    whose: JurisdictionArgs,
}

/// `add`
#[derive(Args)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    who: WhoArgs,
    #[command(flatten)]
    whose: JurisdictionArgs,
    /// The country where it lies (ISO 3166-1 alpha-2).
    #[arg(long)]
    location: String,
    /// Where exactly.
    #[arg(long)]
    place: String,
    /// Who is responsible for it.
    #[arg(long)]
    owner: String,
    /// The key that it is encrypted with.
    #[arg(long)]
    key: Option<String>,
    /// What it is.
    #[arg(long, default_value = "")]
    note: String,
}

/// `except`
#[derive(Args)]
pub(crate) struct ExceptArgs {
    /// The copy.
    id: String,
    #[command(flatten)]
    who: WhoArgs,
    /// Why it may be there.
    #[arg(long)]
    reason: String,
    /// For how long: 30days, 6months.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    length: Duration,
}

/// `gone`
#[derive(Args)]
pub(crate) struct GoneArgs {
    /// The copy.
    id: String,
    #[command(flatten)]
    who: WhoArgs,
    /// How it went.
    #[arg(long)]
    reason: String,
}

pub(crate) async fn run(command: CopiesCommand) -> Result<(), Failure> {
    match command {
        CopiesCommand::Scan(args) => scan(&args).await,
        CopiesCommand::List(args) => list(&args).await,
        CopiesCommand::Show(args) => show(&args).await,
        CopiesCommand::Add(args) => add(&args).await,
        CopiesCommand::Except(args) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let until = u64::try_from((now + args.length).as_millis()).unwrap_or(u64::MAX);
            let command = json!({ "do": "except", "id": args.id, "reason": args.reason, "until": until });
            decided(&args.who, &command).await
        }
        CopiesCommand::Gone(args) => {
            decided(&args.who, &json!({ "do": "gone", "id": args.id, "reason": args.reason })).await
        }
    }
}

async fn decided(who: &WhoArgs, command: &Value) -> Result<(), Failure> {
    let answer = Console::connect(who, None).await?.ask(command).await?;
    if who.json {
        print_json(&answer);
    } else {
        print_copy(&answer);
    }
    Ok(())
}

impl JurisdictionArgs {
    fn name(&self, who: &WhoArgs) -> Result<String, Failure> {
        match &self.jurisdiction {
            Some(name) => Ok(name.clone()),
            None => scans::jurisdiction(&who.config.path()),
        }
    }
}

fn spinner(template: &str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn named(folders: &[String]) -> Result<Vec<Folder>, Failure> {
    let folder = |text: &String| {
        let (path, country) = text.rsplit_once('=').filter(|(_, c)| c.len() == 2).ok_or_else(|| {
            Failure::setup(format!("{text} does not name a folder and a country, as /mnt/backup=SG"))
        })?;
        let path = PathBuf::from(path).canonicalize().map_err(|e| Failure::setup(format!("{path}: {e}")))?;
        Ok(Folder { path, location: country.to_ascii_uppercase(), owner: String::new() })
    };
    folders.iter().map(folder).collect()
}

/// Somebody to look for, from the first cluster that has people of the jurisdiction.
async fn sample(
    places: &Places,
    jurisdiction: &str,
    countries: &[String],
    people: i64,
) -> Result<Probes, Failure> {
    let mut problem = Failure::setup("no [[copies.clusters]] is configured, so there is nobody to look for");
    for cluster in &places.clusters {
        let scope = Scope::of(&cluster.catalogue, jurisdiction, countries)
            .map_err(|problems| Failure::setup(problems.join("\n")))?;
        let database = Database::connect(&cluster.store, &cluster.admin).await?;
        match Probes::sample(&database, &cluster.catalogue, &scope, people, None).await {
            Ok(probes) => return Ok(probes),
            Err(e) => problem = e.into(),
        }
    }
    Err(problem)
}

async fn scan(args: &ScanArgs) -> Result<(), Failure> {
    let jurisdiction = args.whose.name(&args.who)?;
    let mut places = scans::load(&args.who.config.path(), &jurisdiction)?;
    places.folders.extend(named(&args.folders)?);
    let console = if args.dry_run { None } else { Some(Console::connect(&args.who, None).await?) };
    let probes = sample(&places, &jurisdiction, &places.countries, args.people).await?;
    let (mut copies, mut unread) = (Vec::new(), Vec::new());
    let bar = spinner("{spinner} {msg} {elapsed}");
    for cluster in &places.clusters {
        let asked = Cluster { store: &cluster.store, location: &cluster.location, admin: &cluster.admin };
        let told = &mut |what: &str| {
            bar.set_message(format!("{}: {what}", cluster.store));
            bar.tick();
        };
        match databases::look(&jurisdiction, &asked, &probes, told).await {
            Ok(found) => copies.extend(found),
            Err(e) => unread.push(e.to_string()),
        }
    }
    bar.finish_and_clear();
    let known_keys = places.known_keys()?;
    // PostgreSQL's own files of the clusters that were asked are no copies beside them.
    let (mut seen, mut read) = (0, 0);
    for folder in &places.folders {
        let length = files::size(&folder.path);
        let bar = ProgressBar::new(length);
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(folder.path.display().to_string());
        let mut looked = files::look(&jurisdiction, folder, &probes, &mut |n| bar.inc(n));
        keys::recognise(&mut looked.copies, &known_keys);
        bar.finish_and_clear();
        copies.extend(looked.copies);
        unread.extend(looked.unread);
        seen += looked.files;
        read += looked.bytes;
    }
    for bucket in &places.buckets {
        let bar = spinner("{spinner} {msg} {bytes} {elapsed}");
        bar.set_message(bucket.shelf.place.clone());
        let told = &mut |n| bar.inc(n);
        let mut found =
            objects::look(&jurisdiction, &bucket.shelf, &*bucket.objects, &probes, &mut unread, told);
        keys::recognise(&mut found, &known_keys);
        read += bar.position();
        bar.finish_and_clear();
        copies.extend(found);
    }
    let mut missing = Vec::new();
    if let Some(console) = &console {
        let known = console.ask(&json!({ "do": "copies", "jurisdiction": jurisdiction })).await?;
        missing = not_seen(&known, &copies, &places);
        for some in copies.chunks(50) {
            let command = json!({ "do": "register", "jurisdiction": jurisdiction, "found": some });
            console.ask(&command).await?;
        }
    }
    let findings = copies.iter().filter(|c| c.is_finding(&places.countries)).count();
    if args.who.json {
        print_json(&json!({ "jurisdiction": jurisdiction, "looked_for": probes.count(), "copies": copies,
            "findings": findings, "could_not_read": unread, "not_seen_any_more": missing, "files": seen, "bytes": read }));
    } else {
        for copy in &copies {
            print_copy(&json!(copy));
        }
        for problem in &unread {
            println!("NOT LOOKED INTO  {problem}");
        }
        for id in &missing {
            println!("NOT SEEN ANY MORE  {id}: say how it went with `ringfence copies gone {id}`");
        }
        println!(
            "Looked for {} people of {jurisdiction} in {} clusters, {} folders and {} buckets ({seen} files, {}): {} copies, {findings} outside.",
            probes.count(),
            places.clusters.len(),
            places.folders.len(),
            places.buckets.len(),
            HumanBytes(read),
            copies.len()
        );
        println!(
            "Not looked at: any other place. Name folders with --folder PATH=COUNTRY, others with `ringfence copies add`."
        );
    }
    match (findings, unread.len()) {
        (0, 0) => Ok(()),
        _ => Err(Failure::refused("")),
    }
}

/// Registered copies of the places that were looked at and that are not there now.
fn not_seen(known: &Value, found: &[Copy], places: &Places) -> Vec<String> {
    let is_of = |place: &str| {
        places.clusters.iter().any(|c| place.starts_with(&format!("{}: ", c.store)))
            || places.buckets.iter().any(|b| place.starts_with(&b.shelf.place))
            || places.folders.iter().any(|f| std::path::Path::new(place).starts_with(&f.path))
    };
    let known = known.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_missing = |copy: &&Value| {
        copy["state"] != "gone"
            && is_of(copy["place"].as_str().unwrap_or_default())
            && !found.iter().any(|f| copy["id"] == f.id.as_str())
    };
    known.iter().filter(is_missing).filter_map(|c| Some(c["id"].as_str()?.to_owned())).collect()
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let jurisdiction = args.whose.name(&args.who)?;
    let console = Console::connect(&args.who, None).await?;
    let answer = console.ask(&json!({ "do": "copies", "jurisdiction": jurisdiction })).await?;
    let all = answer.as_array().cloned().unwrap_or_default();
    let findings = all.iter().filter(|c| c["finding"] == true).count();
    let shown: Vec<&Value> = all.iter().filter(|c| !args.findings || c["finding"] == true).collect();
    if args.who.json {
        print_json(&shown);
    } else {
        for copy in &shown {
            print_copy(copy);
        }
        println!("{} copies, {findings} findings", all.len());
    }
    if findings == 0 { Ok(()) } else { Err(Failure::refused("")) }
}

async fn show(args: &ShowArgs) -> Result<(), Failure> {
    let jurisdiction = args.whose.name(&args.who)?;
    let console = Console::connect(&args.who, None).await?;
    let answer = console.ask(&json!({ "do": "copies", "jurisdiction": jurisdiction })).await?;
    let found = answer.as_array().and_then(|all| all.iter().find(|c| c["id"] == args.id.as_str()));
    print_json(found.ok_or_else(|| Failure::refused(format!("there is no copy {}", args.id)))?);
    Ok(())
}

async fn add(args: &AddArgs) -> Result<(), Failure> {
    let jurisdiction = args.whose.name(&args.who)?;
    let why = "named by a person, not looked into".to_owned();
    let location = args.location.to_ascii_uppercase();
    let mut copy = Copy::new(&jurisdiction, Kind::Other, &location, &args.place, Holds::Unknown { why });
    copy.owner.clone_from(&args.owner);
    copy.key.clone_from(&args.key);
    copy.note.clone_from(&args.note);
    let console = Console::connect(&args.who, None).await?;
    console.ask(&json!({ "do": "register", "jurisdiction": jurisdiction, "found": [copy] })).await?;
    if args.who.json {
        print_json(&copy);
    } else {
        print_copy(&json!(copy));
    }
    Ok(())
}

fn print_copy(copy: &Value) {
    let text = |key: &str| copy[key].as_str().unwrap_or_default().to_owned();
    let holds = match copy["holds"].as_str() {
        Some("found") => format!("{} of {} people found", copy["people"], copy["of"]),
        Some("everything") => "everything that its cluster holds".to_owned(),
        Some("destroyed") => format!("unreadable, its key was destroyed under {}", text("under")),
        Some("nobody") => "nobody found".to_owned(),
        _ => format!("not known: {}", text("why")),
    };
    let mark = if copy["finding"] == true { "FINDING  " } else { "" };
    let state = match copy["state"].as_str() {
        None | Some("registered") => String::new(),
        Some(state) => format!(" [{state}: {}]", text("reason")),
    };
    let note = match text("note") {
        note if note.is_empty() => note,
        note => format!(" ({note})"),
    };
    println!(
        "{mark}{} {} {} {}: {holds}{note}{state}",
        text("id"),
        text("location"),
        text("kind"),
        text("place")
    );
}
