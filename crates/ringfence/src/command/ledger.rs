//! `ringfence ledger` and `ringfence keys`: files and a public key, nothing else.

use std::collections::HashSet;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use rand_core::{OsRng, RngCore as _};
use ringfence_grants::request::rfc3339;
use ringfence_ledger::bucket;
use ringfence_ledger::erase::{self, What};
use ringfence_ledger::{Kind, Leaf};
use ringfence_verifier::installation::Judge;
use ringfence_verifier::manifest::seconds;
use ringfence_verifier::quorum::Quorum;
use ringfence_verifier::record::Sealed;
use ringfence_verifier::{proof, segment, verify};
use serde_json::{Value, json};

use super::{ConfigArgs, Failure, print_json};
use crate::config;

/// `ringfence ledger`.
#[derive(Subcommand)]
pub(crate) enum LedgerCommand {
    /// Print entries, with their private records where they are here.
    Show {
        #[command(flatten)]
        place: PlaceArgs,
        /// From which entry on; a negative number counts from the end.
        #[arg(long, default_value_t = -20, allow_hyphen_values = true)]
        from: i64,
        /// Only entries whose record mentions this, as in a name or a grant.
        #[arg(long)]
        grep: Option<String>,
    },
    /// Check every tile, commitment, signature and approval; name what is wrong. Needs only the files and a public key.
    Verify {
        #[command(flatten)]
        place: PlaceArgs,
        /// Check a proof made by `prove` or `disclose` instead of the log.
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
    },
    /// Print the proof that an entry is in the log (C2SP tlog-proof), without its private record.
    Prove {
        /// The entry.
        index: u64,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Print the same with the private record, for somebody who may see it.
    Disclose {
        /// The entry.
        index: u64,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Erase private records, where the law says so, while the gateway is stopped. The log goes on to verify, and says what was
    /// erased, why and by whom.
    Erase {
        /// An entry; may be given several times.
        #[arg(long = "entry", required_unless_present = "before")]
        entries: Vec<u64>,
        /// All that is older than this day; at least ten years (28 CFR 202.1101).
        #[arg(long, conflicts_with = "entries")]
        before: Option<String>,
        #[command(flatten)]
        why: WhyArgs,
    },
    /// Place a legal hold, while the gateway is stopped: nothing is erased until it is released.
    Hold {
        /// Release it.
        #[arg(long)]
        release: bool,
        #[command(flatten)]
        why: WhyArgs,
    },
    /// Bring the log from its copy in the object store to a folder, as far as that copy has it; then `verify --dir` checks it.
    Fetch {
        /// The folder, which must not be there yet.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Print the log's public key (C2SP signed-note form).
    Vkey {
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// Why something is done to the log, and by whom: it goes on record.
#[derive(Args)]
pub(crate) struct WhyArgs {
    /// Why, as in the name of an order.
    #[arg(long)]
    reason: String,
    /// By whom.
    #[arg(long)]
    by: String,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Which log.
#[derive(Args)]
pub(crate) struct PlaceArgs {
    /// The log's folder. Default: that of the configuration.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The public key, or a file with it. Default: that of the configuration.
    #[arg(long)]
    vkey: Option<String>,
    /// Whom to believe: a file with witnesses and their quorum (C2SP tlog-policy). Default: that of the configuration, unless
    /// --dir names another log.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

impl PlaceArgs {
    fn dir(&self) -> Result<PathBuf, Failure> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => Ok(config::places(&self.config.path())?.ledger_dir),
        }
    }

    fn vkey(&self) -> Result<String, Failure> {
        let file = match &self.vkey {
            Some(key) if key.contains('+') && !Path::new(key).exists() => return Ok(key.clone()),
            Some(file) => PathBuf::from(file),
            None => config::places(&self.config.path())?.vkey,
        };
        let text = std::fs::read_to_string(&file);
        let text =
            text.map_err(|e| Failure::setup(format!("cannot read the public key {}: {e}", file.display())))?;
        Ok(text.trim().to_owned())
    }

    fn quorum(&self) -> Result<Option<Quorum>, Failure> {
        let file = match (&self.trust, &self.dir) {
            (Some(file), _) => Some(file.clone()),
            (None, Some(_)) => None,
            (None, None) => config::places(&self.config.path())?.witnesses,
        };
        file.map(|file| read_quorum(&file)).transpose()
    }
}

/// Reads a trust policy.
pub(crate) fn read_quorum(file: &Path) -> Result<Quorum, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::setup(format!("cannot read the witnesses {}: {e}", file.display())))?;
    Quorum::parse(&text).map_err(|e| Failure::setup(format!("{}: {e}", file.display())))
}

/// `ringfence ledger …`.
pub(crate) fn run(command: LedgerCommand) -> Result<(), Failure> {
    match command {
        LedgerCommand::Show { place, from, grep } => show(&place, from, grep.as_deref()),
        LedgerCommand::Verify { place, proof: Some(file) } => verify_proof(&place, &file),
        LedgerCommand::Verify { place, proof: None } => verify_log(&place),
        LedgerCommand::Prove { index, place } => {
            print!("{}", proof::prove(&place.dir()?, &place.vkey()?, index, false)?);
            Ok(())
        }
        LedgerCommand::Disclose { index, place } => {
            print!("{}", proof::prove(&place.dir()?, &place.vkey()?, index, true)?);
            Ok(())
        }
        LedgerCommand::Erase { entries, before, why } => {
            let what = match before {
                Some(day) => {
                    let time =
                        seconds(&day).ok_or_else(|| Failure::setup(format!("--before {day} is no day")))?;
                    What::Before(time.saturating_mul(1000))
                }
                None => What::Entries(entries),
            };
            let settings = config::load(&why.config.path())?.ledger;
            let count = erase::erase(&settings, &what, &why.reason, &why.by)?;
            println!("{count} private records were erased; the log says why.");
            Ok(())
        }
        LedgerCommand::Hold { release, why } => {
            let settings = config::load(&why.config.path())?.ledger;
            let entry = erase::hold(&settings, !release, &why.reason, &why.by)?;
            println!("Entry {entry}: the legal hold {}.", if release { "is released" } else { "stands" });
            Ok(())
        }
        LedgerCommand::Fetch { out, config } => fetch(&out, &config),
        LedgerCommand::Vkey { place } => {
            println!("{}", place.vkey()?);
            Ok(())
        }
    }
}

fn show(place: &PlaceArgs, from: i64, grep: Option<&str>) -> Result<(), Failure> {
    let dir = place.dir()?;
    let mut entries = Vec::new();
    for one in segment::list(&dir)? {
        let contents = segment::read(&one)?;
        entries.extend((one.first..).zip(contents.entries));
    }
    let held = held_texts(&entries);
    let skip = match from {
        from if from >= 0 => usize::try_from(from).unwrap_or(usize::MAX),
        from => entries.len().saturating_sub(usize::try_from(from.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    let wanted = entries
        .into_iter()
        .filter(|(_, e)| grep.is_none_or(|g| String::from_utf8_lossy(&e.record).contains(g)));
    let wanted = wanted.filter(|(i, _)| grep.is_some() && from == -20 || *i >= skip as u64);
    let mut all = Vec::new();
    for (index, entry) in wanted {
        let Ok(leaf) = entry.parse_leaf() else { continue };
        let record: Value = serde_json::from_slice(&entry.record).unwrap_or_default();
        if place.json {
            all.push(json!({ "index": index, "leaf": leaf, "record": record }));
            continue;
        }
        println!(
            "{index:>6}  {}  {:<16} {:<3} {}",
            rfc3339(leaf.time),
            leaf.kind.word(),
            leaf.jurisdiction,
            gist(&leaf, &record, &held)
        );
    }
    if place.json {
        print_json(&all);
    }
    Ok(())
}

/// The texts that later entries may name, by session and digest.
type HeldTexts = HashSet<(String, String)>;

fn held_texts(entries: &[(u64, Sealed)]) -> HeldTexts {
    let mut held = HeldTexts::new();
    for (_, entry) in entries {
        let record: Value = serde_json::from_slice(&entry.record).unwrap_or_default();
        let Some(session) = record["session"].as_str() else { continue };
        let meant = record["stands_for"].as_array().into_iter().flatten();
        let texts = meant.map(|meant| (&meant["statement"], &meant["digest"]));
        for (sql, digest) in texts.chain([(&record["statement"], &record["text"]["digest"])]) {
            if let (true, Some(digest)) = (sql.is_string(), digest.as_str()) {
                held.insert((session.to_owned(), digest.to_owned()));
            }
        }
    }
    held
}

/// The text of a statement, or which entry has it; and what names in it stand for.
fn statement(record: &Value, held: &HeldTexts) -> String {
    let get = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let text = |of: &Value, sql: &Value| match sql.as_str() {
        Some(sql) => sql.replace('\n', " "),
        None if held.contains(&(get(&record["session"]), get(&of["digest"]))) => {
            format!("(the text of #{})", of["entry"])
        }
        None => format!(
            "(the text of #{}, which is not in this log any more; SHA-256 {})",
            of["entry"],
            get(&of["digest"])
        ),
    };
    let mut shown = text(&record["text"], &record["statement"]);
    for meant in record["stands_for"].as_array().into_iter().flatten() {
        let name = meant["name"].as_str().unwrap_or_default();
        shown.extend([" [", name, ": ", &text(meant, &meant["statement"]), "]"]);
    }
    if record["not_understood"] == true {
        shown.push_str(" [not understood: it may reach anything]");
    }
    shown
}

/// A record in one line.
fn gist(leaf: &Leaf, record: &Value, held: &HeldTexts) -> String {
    let get = |key: &str| record[key].as_str().unwrap_or_default().replace('\n', " ");
    let rows = leaf.counters.rows;
    match leaf.kind {
        Kind::Intent => format!("{} #{} {}", get("principal"), record["n"], statement(record, held)),
        Kind::Outcome => {
            let charged = record["charged"].as_object().into_iter().flatten();
            let charged: u64 = charged.filter_map(|(_, rows)| rows.as_u64()).sum();
            let charged = if charged > 0 { format!(", {charged} charged") } else { String::new() };
            format!("{} #{} {} ({rows} rows{charged})", get("principal"), record["n"], get("ended"))
        }
        Kind::Reached => {
            format!("{} #{} at most {} subjects", get("principal"), record["n"], leaf.counters.subjects)
        }
        Kind::SessionOpened => format!(
            "{} from {} at {} (face {})",
            get("principal"),
            get("location"),
            get("store"),
            get("face")
        ),
        Kind::SessionClosed => format!("{} {}", get("principal"), get("reason")),
        Kind::Refused => {
            let times = record["times"].as_u64().map(|times| format!(", {times} times")).unwrap_or_default();
            let from = record["address"].as_str().map(|from| format!(" (from {from})")).unwrap_or_default();
            format!("{} {}: {}{from}{times}", get("principal"), get("store"), get("reason"))
        }
        Kind::Counted => format!("{} {} statements, {rows} rows", get("principal"), leaf.counters.statements),
        Kind::Requested | Kind::ErasureRequested | Kind::FlowRequested => get("request"),
        Kind::Approved | Kind::ErasureApproved | Kind::FlowApproved => {
            format!("{} by {}", get("id"), get("approver"))
        }
        Kind::Flow => format!("{} {} {} by {}", get("flow"), get("id"), get("stage"), get("by")),
        Kind::Denied | Kind::Revoked => format!("{} by {}: {}", get("id"), get("by"), get("reason")),
        Kind::Granted | Kind::Expired => get("id"),
        Kind::GatewayStarted | Kind::GatewayStopped => format!("{} {}", get("version"), get("reason")),
        Kind::PolicyChanged => get("digest"),
        Kind::Heartbeat => {
            format!("{} sessions, {} entries so far", record["sessions"], leaf.counters.statements)
        }
        Kind::SideDoor => {
            format!("{} by {} at {} from {}", get("what"), get("role"), get("database"), get("address"))
        }
        Kind::Routed => format!("{} leads to {}", get("route"), get("store")),
        Kind::ErasureCertificate | Kind::EnrolmentRequested | Kind::EnrolmentSigned => {
            format!("{} by {}", get("id"), get("by"))
        }
        Kind::Copy => format!("{} {} by {} {}", get("id"), get("state"), get("by"), get("reason")),
        Kind::Move => format!("{} {} by {}", get("move"), get("stage"), get("by")),
        Kind::Presence => format!("{} {} by {}", get("principal"), get("state"), get("by")),
        Kind::Suspended | Kind::Resumed => {
            let order: Value =
                record["order"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            let get = |key: &str| order[key].as_str().unwrap_or_default();
            format!("{} by {}: {}", get("id"), get("by"), get("reason"))
        }
        Kind::BorderClosed => get("reason"),
        Kind::RecordsRead => format!("{} by {}", get("entries"), get("by")),
        Kind::BorderOpened => String::new(),
        Kind::Erased => format!("{} by {}: {}", record["entries"], get("by"), get("reason")),
        Kind::LegalHold if record["stands"] == true => format!("placed by {}: {}", get("by"), get("reason")),
        Kind::LegalHold => format!("released by {}: {}", get("by"), get("reason")),
    }
}

fn fetch(out: &Path, config: &ConfigArgs) -> Result<(), Failure> {
    let places = config::places(&config.path())?;
    let (bucket, (_, vkey)) = (places.bucket()?, places.logs()?.swap_remove(0));
    let bar = ProgressBar::new(0);
    let fetched = bucket::fetch(&bucket, &vkey, out, |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let entries = fetched.map_err(|e| Failure::setup(e.to_string()))?;
    println!(
        "{}: {entries} entries. Check them with: ringfence-verify {} --vkey FILE",
        out.display(),
        out.display()
    );
    Ok(())
}

fn verify_log(place: &PlaceArgs) -> Result<(), Failure> {
    let (dir, vkey) = (place.dir()?, place.vkey()?);
    let mut judge = Judge::default();
    let report = verify::verify_with(&dir, &vkey, place.quorum()?.as_ref(), &mut judge);
    let holds = report.problems.is_empty();
    if place.json {
        let approvals = judge.approvals.verified;
        print_json(&json!({ "verified": holds, "approvals": approvals, "report": report }));
    } else if holds {
        println!(
            "The log verifies: {} entries under a signed checkpoint, root {}.",
            report.entries, report.root
        );
        println!("Every tile is what the entries hash to.");
        if judge.without_record == report.erased {
            println!(
                "{} private records match their commitments; {} approvals are signed by the approvers' keys.",
                report.records, judge.approvals.verified
            );
            if judge.approvals.enrolled > 0 {
                println!("{} signatures of approvers let new keys in.", judge.approvals.enrolled);
            }
            if judge.orders.verified > 0 {
                println!(
                    "{} orders are signed by regulators' keys, and nothing crossed the border behind a suspension.",
                    judge.orders.verified
                );
            }
        } else {
            println!("The private records are not here, so commitments and approvals were not checked.");
        }
        if report.erased > 0 {
            println!("{} private records were erased, and the log says why.", report.erased);
        }
        match &report.witnessed {
            Some(witnessed) => {
                let who: Vec<String> = witnessed
                    .cosigned
                    .iter()
                    .map(|c| format!("{} at {}", c.witness, rfc3339(c.time.saturating_mul(1000))))
                    .collect();
                println!("Witnesses confirm the first {}: {}.", witnessed.size, who.join(", "));
            }
            None => {
                println!("No witnesses were asked about: only the log's own key vouches for its history.");
            }
        }
        for gap in &report.gaps {
            println!("NOTE: no entry from {} until {}.", rfc3339(gap.from), rfc3339(gap.until));
        }
        if report.crashes > 0 {
            println!(
                "NOTE: the gateway began anew {} times without having stopped in order.",
                report.crashes
            );
        }
        if report.waiting > 0 {
            println!("{} further entries are durable and wait for the next checkpoint.", report.waiting);
        }
    } else {
        for problem in report.problems.iter().take(20) {
            eprintln!("WRONG: {problem}");
        }
        if report.problems.len() > 20 {
            eprintln!("… and {} more", report.problems.len() - 20);
        }
    }
    if holds {
        Ok(())
    } else {
        Err(Failure::refused(if place.json { "" } else { "the log does not verify" }))
    }
}

fn verify_proof(place: &PlaceArgs, file: &Path) -> Result<(), Failure> {
    let bytes =
        std::fs::read(file).map_err(|e| Failure::setup(format!("cannot read {}: {e}", file.display())))?;
    let shown = proof::check(&bytes, &place.vkey()?, place.quorum()?.as_ref())
        .map_err(|e| Failure::refused(format!("the proof does not hold: {e}")))?;
    if place.json {
        print_json(&shown);
    } else {
        println!("The proof holds: entry {} of a log of {} entries.", shown.index, shown.size);
        for cosigned in &shown.cosigned {
            println!(
                "{} confirmed that log at {}.",
                cosigned.witness,
                rfc3339(cosigned.time.saturating_mul(1000))
            );
        }
        println!("{}  {}  {}", rfc3339(shown.leaf.time), shown.leaf.kind.word(), shown.leaf.jurisdiction);
        match &shown.record {
            Some(record) => println!(
                "Its private record, which matches the commitment:\n{}",
                serde_json::to_string_pretty(record).unwrap_or_default()
            ),
            None => println!("Its private record was not disclosed."),
        }
    }
    Ok(())
}

/// `ringfence keys`.
#[derive(Args)]
pub(crate) struct KeysArgs {
    /// The folder to write them to.
    #[arg(long, default_value = "keys")]
    dir: PathBuf,
    /// The log's name: a domain that you hold, and a path, as in example.com/ringfence/us.
    #[arg(long, required_unless_present_any = ["rotate", "retire"])]
    origin: Option<String>,
    /// Make a new key for the log: from the next start on, the old one signs beside it.
    #[arg(long, conflicts_with = "origin")]
    rotate: bool,
    /// Let the new key sign alone. What the old one signed goes on to verify.
    #[arg(long, conflicts_with_all = ["origin", "rotate"])]
    retire: bool,
}

/// Makes `ledger.key`, `ledger.vkey` and `gateway.secret`; never overwrites one.
pub(crate) fn keys(args: &KeysArgs) -> Result<(), Failure> {
    if args.rotate || args.retire {
        return rotate(&args.dir, args.retire);
    }
    make_keys(&args.dir, args.origin.as_deref().unwrap_or_default())?;
    println!(
        "{} has ledger.key and gateway.secret (keep them secret) and ledger.vkey (publish it).",
        args.dir.display()
    );
    Ok(())
}

/// Puts a new key before the old one, or takes the old one away from those that sign.
fn rotate(dir: &Path, retire: bool) -> Result<(), Failure> {
    let (signing, public) = (dir.join("ledger.key"), dir.join("ledger.vkey"));
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|e| Failure::setup(format!("cannot read {}: {e}", path.display())))
    };
    let (skeys, vkeys) = (read(&signing)?, read(&public)?);
    if retire {
        let current = skeys.lines().next().unwrap_or_default();
        replace_secret(&signing, current)?;
        println!(
            "From the next start on the new key signs alone. End the old one with `ringfence logs retire`."
        );
        return Ok(());
    }
    let origin = ringfence_verifier::keys::origin(&vkeys);
    let made =
        ringfence_ledger::generate_keys(origin.ok_or_else(|| Failure::setup("ledger.vkey has no name"))?);
    replace_secret(&signing, &format!("{}\n{}", made.signer, skeys.trim_end()))?;
    replace_secret(&public, &format!("{}\n{}", made.verifier, vkeys.trim_end()))?;
    println!(
        "Publish ledger.vkey, tell the witnesses, add the key with `ringfence logs add`, and restart the gateway."
    );
    Ok(())
}

fn replace_secret(path: &Path, text: &str) -> Result<(), Failure> {
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    write_secret(&new, text)?;
    Ok(std::fs::rename(&new, path)?)
}

/// See [`keys`].
pub(crate) fn make_keys(dir: &Path, origin: &str) -> Result<(), Failure> {
    if origin.is_empty() || origin.contains(|c: char| c.is_whitespace() || c == '+') {
        return Err(Failure::setup("the log's name must be without spaces and '+' (C2SP signed-note)"));
    }
    std::fs::create_dir_all(dir)?;
    let keys = ringfence_ledger::generate_keys(origin);
    let mut secret = [0; 32];
    OsRng.fill_bytes(&mut secret);
    write_secret(&dir.join("ledger.key"), &keys.signer)?;
    write_secret(&dir.join("ledger.vkey"), &keys.verifier)?;
    write_secret(&dir.join("gateway.secret"), &hex::encode(secret))
}

/// Writes a file that only its owner can read; fails if it is there.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|e| Failure::setup(format!("cannot create {}: {e}", path.display())))?;
    writeln!(file, "{text}")?;
    Ok(())
}
