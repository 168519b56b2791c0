//! `ringfence erase`: removes what is left of rows that have moved, after the in-country team has signed what is removed where.

use std::path::Path;

use clap::{Args, Subcommand};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use ringfence_residency::backup::keys::Kept;
use ringfence_residency::copies::probe::Probes;
use ringfence_residency::copies::{Copy, Holds, Kind, files as scan};
use ringfence_residency::erase::dump::{self, whose::Whose};
use ringfence_residency::erase::rows::{self, Step};
use ringfence_residency::erase::{self, Action, Plan, Registered, Remains, Surroundings, Target, files, wal};
use ringfence_residency::migrate::plan::{self as moves, Planned};
use ringfence_residency::migrate::{self, Move};
use ringfence_residency::scope::Scope;
use ringfence_residency::{Database, Error};
use serde_json::{Value, json};

use super::console::{Console, SignArgs, WhoArgs};
use super::erase_looking as looking;
use super::erase_person as person;
use super::{Failure, print_json};
use crate::moves::LoadedMove;
use crate::scans::{self, ClusterToAsk, Places};

/// People who are looked for after an erasure.
const PEOPLE: i64 = 20_000;

/// `ringfence erase …`
#[derive(Subcommand)]
pub(crate) enum EraseCommand {
    /// Show what would be erased where, and what would remain. Nothing is touched.
    Plan(PlanArgs),
    /// Ask for it: the in-country team signs exactly this plan.
    Request(RequestArgs),
    /// List erasures.
    List(ListArgs),
    /// Show one.
    Show(OneArgs),
    /// Sign one.
    Approve(ApproveArgs),
    /// Erase, look for what is left, and put the certificate on record. There is no way back.
    Run(RunArgs),
    /// Look again for what is left of an erasure.
    Verify(OneArgs),
}

/// Whose rows.
#[derive(Args)]
pub(crate) struct WhichArgs {
    /// The move, where the configuration has several.
    #[arg(long = "move", value_name = "NAME")]
    the_move: Option<String>,
    /// One person's own request instead, in every store: table and key, as users:4711.
    #[arg(long, value_name = "TABLE:KEY", conflicts_with = "the_move")]
    subject: Option<String>,
    /// For one person: write their tables anew, which locks each meanwhile. Without it, bytes stay in free room until others are written
    /// over them.
    #[arg(long, requires = "subject")]
    rewrite: bool,
    /// Write dumps in folders anew without these rows, instead of deleting them whole or, for one person, leaving them.
    #[arg(long)]
    rewrite_dumps: bool,
}

/// `plan`
#[derive(Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    who: WhoArgs,
}

/// `request`
#[derive(Args)]
pub(crate) struct RequestArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    who: WhoArgs,
    /// Why: what approvers judge by.
    #[arg(long)]
    purpose: String,
}

/// `list`
#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(super) who: WhoArgs,
}

/// `show`, `run`, `verify`
#[derive(Args)]
pub(crate) struct OneArgs {
    /// What was asked for: E-… or F-….
    pub(super) id: String,
    #[command(flatten)]
    pub(super) who: WhoArgs,
}

/// `run`
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(super) one: OneArgs,
    /// Lock each table while it is written anew. Without it pg_repack does that in use, where the cluster's host has it.
    #[arg(long)]
    pub(super) lock_tables: bool,
}

/// `approve`
#[derive(Args)]
pub(crate) struct ApproveArgs {
    /// What was asked for: E-… or F-….
    pub(super) id: String,
    #[command(flatten)]
    who: WhoArgs,
    #[command(flatten)]
    sign: SignArgs,
}

pub(crate) async fn run(command: EraseCommand) -> Result<(), Failure> {
    match command {
        EraseCommand::Plan(args) => {
            let made = make_plan(&args.which, &args.who).await?;
            if args.who.json {
                print_json(&made);
            } else {
                print_plan(&json!(made));
            }
            Ok(())
        }
        EraseCommand::Request(args) => request(&args).await,
        EraseCommand::List(args) => list(&args.who).await,
        EraseCommand::Show(args) => {
            let answer = ask(&args.who, &json!({ "do": "plan", "id": args.id })).await?;
            print_erasure(&answer, args.who.json);
            Ok(())
        }
        EraseCommand::Approve(args) => approve(&args, print_plan).await,
        EraseCommand::Run(args) => execute(&args.one, args.lock_tables).await,
        EraseCommand::Verify(args) => verify(&args).await,
    }
}

pub(super) async fn ask(who: &WhoArgs, command: &Value) -> Result<Value, Failure> {
    Console::connect(who, None).await?.ask(command).await
}

/// A move with both sides open, and where its copies may be.
struct Open {
    of: Move,
    from: Database,
    to: Database,
    tables: Vec<Planned>,
    places: Places,
    scope: Scope,
    loaded: LoadedMove,
}

async fn open(name: Option<&str>, who: &WhoArgs) -> Result<Open, Failure> {
    let path = who.config.path();
    let loaded = crate::moves::load(&path, name)?;
    let of = loaded.of.clone();
    let places = scans::load(&path, &of.jurisdiction)?;
    let scope = Scope::of(&loaded.catalogue, &of.jurisdiction, &loaded.countries)
        .map_err(|problems| Failure::setup(format!("the catalogue:\n  {}", problems.join("\n  "))))?;
    let (from, to) = of.connect().await?;
    let plan = moves::plan(&of, &scope, &from, &to, true).await?;
    Ok(Open { tables: plan.tables, of, from, to, places, scope, loaded })
}

async fn make_plan(which: &WhichArgs, who: &WhoArgs) -> Result<Plan, Failure> {
    if let Some(subject) = &which.subject {
        return person::plan(subject, which.rewrite, which.rewrite_dumps, who).await;
    }
    let open = open(which.the_move.as_deref(), who).await?;
    let of = &open.of;
    if !migrate::has_moved(of, &open.from, &open.to).await? {
        return Err(Failure::refused(format!("the rows have not left {}: change over first", of.from.store))
            .hint("`ringfence migrate status` shows how far the move is"));
    }
    let blockers = rows::blockers(&open.tables, &open.from).await?;
    if !blockers.is_empty() {
        return Err(Error::Blocked(blockers).into());
    }
    let registered = registered(who, &of.jurisdiction).await?;
    let others: Vec<String> =
        open.places.clusters.iter().map(|c| c.store.clone()).filter(|name| *name != of.from.store).collect();
    let keys = open.places.known_keys()?;
    let has_key = |key: &str| {
        let is_it = |kept: &Kept| kept.recipient == key && kept.destroyed.is_none();
        keys.iter().any(|kept| is_it(kept) && kept.jurisdiction.as_deref() == Some(&of.jurisdiction))
    };
    let system = "SELECT system_identifier FROM pg_control_system()";
    let system: i64 = open.to.row("ask which system it is", system, &[]).await?.get(0);
    let around = Surroundings {
        store: &of.from.store,
        database: of.from.admin.config.get_dbname().unwrap_or_default(),
        others: &others,
        standbys: open.places.standbys.iter().filter(|s| s.store == of.from.store).count(),
        countries: &open.places.countries,
        home_system: Some(system.cast_unsigned()),
        can_reach: &|place| open.places.can_reach(place),
        has_key: &has_key,
        rewrite_dumps: which.rewrite_dumps,
    };
    let (mut targets, mut remains) = erase::sort(&registered, &around);
    if let Some(cluster) = open.places.clusters.iter().find(|c| c.store == of.from.store) {
        let (logs, elsewhere) = looking::logs(cluster, &of.jurisdiction, &sample(&open, None).await?).await?;
        targets.extend(logs);
        remains.extend(elsewhere.into_iter().map(|why| log_remains(cluster, why)));
    }
    Ok(Plan {
        v: 1,
        what: "erase".to_owned(),
        of: of.name.clone(),
        jurisdiction: of.jurisdiction.clone(),
        store: of.from.store.clone(),
        home: of.to.store.clone(),
        rows: rows::count(&open.tables, &open.from).await?,
        targets,
        remains,
        subject: None,
        rewrite: false,
    })
}

/// A part of a server's log that nothing here reaches.
pub(super) fn log_remains(cluster: &ClusterToAsk, why: String) -> Remains {
    Remains {
        id: "-".to_owned(),
        location: cluster.location.clone(),
        place: format!("{}: the server's log", cluster.store),
        why,
    }
}

/// The register of copies.
pub(super) async fn registered(who: &WhoArgs, jurisdiction: &str) -> Result<Vec<Registered>, Failure> {
    let register = ask(who, &json!({ "do": "copies", "jurisdiction": jurisdiction })).await?;
    let one = |entry: &Value| {
        let copy: Copy = serde_json::from_value(entry.clone()).map_err(|e| {
            Failure::refused(format!("{} in the register of copies cannot be read: {e}", text(entry, "id")))
        })?;
        Ok(Registered { copy, is_excepted: entry["excepted"] == true, is_gone: entry["state"] == "gone" })
    };
    register.as_array().into_iter().flatten().map(one).collect()
}

async fn request(args: &RequestArgs) -> Result<(), Failure> {
    let plan = make_plan(&args.which, &args.who).await?;
    let command = json!({ "do": "propose", "plan": plan, "purpose": args.purpose });
    let answer = ask(&args.who, &command).await?;
    print_erasure(&answer, args.who.json);
    if !args.who.json {
        println!(
            "Approvers sign it with: ringfence erase approve {} --as APPROVER --key FILE",
            text(&answer, "id")
        );
    }
    Ok(())
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

async fn list(who: &WhoArgs) -> Result<(), Failure> {
    let answer = ask(who, &json!({ "do": "plans", "what": "erase" })).await?;
    if who.json {
        print_json(&answer);
        return Ok(());
    }
    for one in answer.as_array().into_iter().flatten() {
        println!(
            "{}  {}  {} at {}: {}",
            text(one, "id"),
            text(one, "state"),
            text(&one["plan"], "jurisdiction"),
            text(&one["plan"], "store"),
            text(&one["plan"], "purpose")
        );
    }
    Ok(())
}

fn print_plan(plan: &Value) {
    let rows = plan["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let all: u64 = rows.iter().filter_map(|r| r[1].as_u64()).sum();
    if let Some(subject) = plan["subject"].as_object() {
        let of = |key: &str| subject[key].as_str().unwrap_or("-");
        println!("{} rows about {} {} are erased:", HumanCount(all), of("table"), of("key"));
        for row in rows {
            println!("  {:<30} {}", row[0].as_str().unwrap_or("-"), row[1]);
        }
        return print_places(plan);
    }
    println!(
        "{} rows of {} are erased from {}; {} has them.",
        HumanCount(all),
        text(plan, "jurisdiction"),
        text(plan, "store"),
        text(plan, "home")
    );
    print_places(plan);
}

fn print_places(plan: &Value) {
    for target in plan["targets"].as_array().into_iter().flatten() {
        println!(
            "ERASE    {} {} {} ({})",
            text(target, "id"),
            text(target, "location"),
            text(target, "place"),
            text(target, "action")
        );
    }
    for remains in plan["remains"].as_array().into_iter().flatten() {
        println!(
            "REMAINS  {} {} {}: {}",
            text(remains, "id"),
            text(remains, "location"),
            text(remains, "place"),
            text(remains, "why")
        );
    }
}

fn print_erasure(answer: &Value, json: bool) {
    if json {
        print_json(answer);
        return;
    }
    let plan = &answer["plan"];
    println!(
        "{}  {}  asked for by {}: {}",
        text(answer, "id"),
        text(answer, "state"),
        text(answer, "requester"),
        text(plan, "purpose")
    );
    let names: Vec<&str> =
        answer["approved_by"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    println!("approved by {} of {} needed: {}", names.len(), answer["approvals_needed"], names.join(", "));
    print_plan(plan);
    if answer["certificate"].is_object() {
        println!("{}", serde_json::to_string_pretty(&answer["certificate"]).unwrap_or_default());
    }
}

/// Shows a plan and signs it.
pub(super) async fn approve(args: &ApproveArgs, print_plan: fn(&Value)) -> Result<(), Failure> {
    let console = Console::connect(&args.who, None).await?;
    let shown = console.ask(&json!({ "do": "plan", "id": args.id })).await?;
    let canonical = text(&shown, "canonical");
    if args.sign.print {
        print!("{canonical}");
        return Ok(());
    }
    // What is shown is what is signed: it is read out of the text itself.
    let plan: Value =
        serde_json::from_str(canonical).map_err(|_| Failure::refused("the plan cannot be read"))?;
    if !args.who.json {
        print_plan(&plan);
    }
    let signature = args.sign.sign(canonical)?;
    let after = console.ask(&json!({ "do": "sign", "id": args.id, "signature": signature })).await?;
    if args.who.json {
        print_json(&after);
    } else {
        let have = after["approved_by"].as_array().map_or(0, Vec::len);
        println!("Signed. {} has {have} of {} approvals.", args.id, after["approvals_needed"]);
    }
    Ok(())
}

pub(super) fn progress() -> ProgressBar {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

async fn execute(args: &OneArgs, lock: bool) -> Result<(), Failure> {
    let console = Console::connect(&args.who, None).await?;
    let approved = console.ask(&json!({ "do": "begin", "id": args.id })).await?;
    let plan: Plan =
        serde_json::from_value(signed(&approved)?).map_err(|e| Failure::refused(format!("the plan: {e}")))?;
    if plan.subject.is_some() {
        return person::run(&args.id, &plan, lock, &console, &args.who).await;
    }
    let open = open(Some(&plan.of), &args.who).await?;
    if open.of.from.store != plan.store || open.of.to.store != plan.home {
        return Err(Failure::refused("the configuration's move is another one than the plan's"));
    }
    // From here on nobody brings them back.
    open.from.claim(&open.of.name).await?;
    if !migrate::has_moved(&open.of, &open.from, &open.to).await? {
        return Err(Failure::refused(format!("the rows are not at home at {}", plan.home)));
    }
    rows::is_safe(&open.tables, &open.from, &open.to).await?;
    // Chosen while the store still shows what other people have written, too; of the people who were there, as long as they are.
    let probes =
        Probes::sample(&open.from, &open.loaded.catalogue, &open.scope, PEOPLE, Some(&open.from)).await;
    // A run that was cut off has left few of them, or none.
    let probes = match probes {
        Ok(probes) if i64::try_from(probes.count()).is_ok_and(|n| n >= PEOPLE) => probes,
        few => {
            let at_home = sample(&open, Some(&open.from)).await?;
            few.ok().filter(|few| few.count() >= at_home.count()).unwrap_or(at_home)
        }
    };
    let bar = progress();
    let mut done = Vec::new();
    // Slots first: they would keep WAL with the rows in it.
    for target in plan.targets.iter().filter(|t| t.action == Action::DropSlot) {
        let name = target.place.rsplit("slot ").next().unwrap_or_default();
        let dropped = rows::drop_slot(&open.from, name).await;
        done.push(json!({ "target": target, "failed": dropped.err().map(|e| e.to_string()) }));
    }
    let erased = rows::erase(&open.of, &open.tables, &open.from, &open.to, lock, &mut |step| match step {
        Step::Begun(what) => bar.set_message(what.to_owned()),
        Step::Pages(..) => bar.tick(),
    })
    .await?;
    for standby in open.places.standbys.iter().filter(|s| s.store == plan.store) {
        bar.set_message(format!("removing old WAL at {}", standby.name));
        let at = Database::connect(&standby.name, &standby.admin).await?;
        wal::remove_at_standby(&open.from, &at).await?;
    }
    for target in &plan.targets {
        bar.set_message(target.place.clone());
        if target.action == Action::DropSlot {
            continue;
        }
        let (result, more) = match act(&open, target, &args.id, &probes).await {
            Ok(more) => (None, more),
            Err(problem) => (Some(problem), Value::Null),
        };
        done.push(json!({ "target": target, "failed": result, "rewritten": more }));
    }
    bar.finish_and_clear();
    let left = looking::look(&open.places, &plan, std::slice::from_ref(&plan.store), &probes).await?;
    let certificate = json!({ "rows": erased.rows, "planned": plan.rows, "rewritten": erased.rewritten, "rewritten_in_use": erased.online, "views": erased.refreshed,
        "wal_segments": erased.wal_segments, "copies": done, "remains": plan.remains, "verified": left.told });
    let failed = done.iter().any(|d| d["failed"].is_string());
    let certified =
        console.ask(&json!({ "do": "certify", "id": args.id, "certificate": certificate })).await?;
    let is_gone =
        |t: &&Target| matches!(t.action, Action::DeleteWhole | Action::DropSlot | Action::RewriteDump);
    for target in plan.targets.iter().filter(is_gone) {
        if !done.iter().any(|d| d["target"]["id"] == target.id.as_str() && d["failed"].is_string()) {
            let reason = format!("erased under {}", args.id);
            let gone = json!({ "do": "gone", "id": target.id, "reason": reason });
            console.ask(&gone).await?;
        }
    }
    for target in plan.targets.iter().filter(|t| t.action == Action::DestroyKey) {
        let under = Holds::Destroyed { under: args.id.clone() };
        let mut copy = Copy::new(&plan.jurisdiction, target.kind, &target.location, &target.place, under);
        copy.key.clone_from(&target.key);
        let found = json!({ "do": "register", "jurisdiction": plan.jurisdiction, "found": [copy] });
        console.ask(&found).await?;
    }
    if args.who.json {
        print_json(&certified);
    } else {
        looking::print(&left.told);
        println!("The certificate of {} is on record: ringfence erase show {}", args.id, args.id);
    }
    if failed || left.has_people() {
        return Err(Failure::refused("something is left: see above, and the certificate"));
    }
    Ok(())
}

/// Erases one copy; what is more to be told of it is returned. An error says why it is as it was.
async fn act(open: &Open, target: &Target, under: &str, probes: &Probes) -> Result<Value, String> {
    let place = Path::new(&target.place);
    let places = &open.places;
    let told = |e: std::io::Error| e.to_string();
    match target.action {
        Action::DeleteRows | Action::Refresh | Action::Follows | Action::DropSlot => {}
        Action::DeleteWhole | Action::RewriteDump if !places.can_reach(&target.place) => {
            return Err("it is in no folder or bucket of the configuration".to_owned());
        }
        Action::DeleteWhole if target.place.starts_with("s3://") => {
            delete_object(places, &target.place, target.bytes)?;
        }
        Action::DeleteWhole => {
            unchanged(target, place)?;
            files::delete(target.kind, place).map_err(told)?;
        }
        Action::RewriteDump => {
            if let Some(done) = rewritten_already(target, under)? {
                return Ok(done);
            }
            unchanged(target, place)?;
            let whose = Whose::moved(&open.scope, &open.loaded.catalogue, &open.to).await;
            let whose = whose.map_err(|e| e.to_string())?;
            return Ok(json!(dump::rewrite(place, whose, probes, under, &mut |_| ()).map_err(told)?));
        }
        Action::DestroyKey => destroy_key(places, target, under)?,
        Action::EmptyLog => {
            let cluster = places.clusters.iter().find(|c| c.store == open.of.from.store);
            empty_log(cluster, place).await?;
        }
    }
    Ok(Value::Null)
}

/// Whether a dump was written anew by a run that was cut off; what is left of the old one goes then.
pub(super) fn rewritten_already(target: &Target, under: &str) -> Result<Option<Value>, String> {
    let place = Path::new(&target.place);
    let Some(done) = dump::done(place, under) else { return Ok(None) };
    if done != place && place.exists() {
        // Of a folder some files may be gone already; another dump in its place would not be what was signed for.
        if place.is_file() {
            unchanged(target, place)?;
        }
        files::delete(target.kind, place).map_err(|e| e.to_string())?;
    }
    Ok(Some(json!({ "place": done })))
}

/// Empties a file of a server's log, if it is one.
pub(super) async fn empty_log(cluster: Option<&ClusterToAsk>, place: &Path) -> Result<(), String> {
    let cluster = cluster.ok_or("no [[copies.clusters]] is of its store")?;
    let logs = looking::Logs::of(cluster).await.map_err(|e| e.message)?;
    if !logs.has(place) {
        return Err("it is not in the server's log".to_owned());
    }
    files::empty(place).map_err(|e| e.to_string())
}

/// Fails if something else is at a copy's place by now than what approvers have signed for.
pub(super) fn unchanged(target: &Target, place: &Path) -> Result<(), String> {
    let Ok(metadata) = std::fs::symlink_metadata(place) else { return Ok(()) }; // gone already is as good
    let is_same_length = target.kind == Kind::BaseBackup && metadata.is_dir()
        || target.bytes.is_none_or(|bytes| scan::size(place) == bytes);
    let is_same_time = target.made.is_none_or(|made| scan::millis(&metadata) == Some(made));
    if is_same_length && is_same_time {
        return Ok(());
    }
    Err("it has changed since it was found: scan again, and ask again".to_owned())
}

/// Deletes an object of one of the configuration's buckets, if it is what was signed for.
fn delete_object(places: &Places, place: &str, bytes: Option<u64>) -> Result<(), String> {
    let found = places.buckets.iter().find_map(|b| Some((b, place.strip_prefix(&b.shelf.place)?)));
    let (bucket, name) = found.ok_or("it is in no bucket of the configuration")?;
    let there = bucket.objects.list()?.into_iter().find(|(known, _)| known == name);
    match there {
        None => Ok(()), // gone already is as good
        Some((_, length)) if bytes.is_some_and(|bytes| bytes != length) => {
            Err("it has changed since it was found: scan again, and ask again".to_owned())
        }
        Some(_) => bucket.objects.delete(name),
    }
}

/// Destroys the key of an encrypted backup; its copies stay, unreadable.
fn destroy_key(places: &Places, target: &Target, under: &str) -> Result<(), String> {
    let (Some(keys), Some(key)) = (&places.keys, &target.key) else {
        return Err("the configuration has no [backups] with keys".to_owned());
    };
    keys.destroy(key, under).map_err(|e| e.to_string())
}

/// The plan as it was signed, not as somebody retells it.
pub(super) fn signed(answer: &Value) -> Result<Value, Failure> {
    serde_json::from_str(text(answer, "canonical")).map_err(|_| Failure::refused("the plan cannot be read"))
}

async fn verify(args: &OneArgs) -> Result<(), Failure> {
    let answer = ask(&args.who, &json!({ "do": "plan", "id": args.id })).await?;
    let plan: Plan =
        serde_json::from_value(signed(&answer)?).map_err(|e| Failure::refused(format!("the plan: {e}")))?;
    if plan.subject.is_some() {
        return person::verify(&plan, &args.who).await;
    }
    let open = open(Some(&plan.of), &args.who).await?;
    let probes = sample(&open, None).await?;
    let left = looking::look(&open.places, &plan, std::slice::from_ref(&plan.store), &probes).await?;
    if args.who.json {
        print_json(&left.told);
    } else {
        looking::print(&left.told);
    }
    if left.has_people() { Err(Failure::refused("")) } else { Ok(()) }
}

/// People who have moved, by values of theirs.
async fn sample(open: &Open, beside: Option<&Database>) -> Result<Probes, Failure> {
    Ok(Probes::sample(&open.to, &open.loaded.catalogue, &open.scope, PEOPLE, beside).await?)
}
