//! `ringfence migrate`: moves a jurisdiction's rows to another store while they are in use.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use ringfence_policy::catalogue::Belongs;
use ringfence_residency::migrate::cutover::{self, Gateways, Step};
use ringfence_residency::migrate::plan::{self, Plan};
use ringfence_residency::migrate::status::{self, Stage, Status};
use ringfence_residency::migrate::{self, Move, carry, target, verify};
use ringfence_residency::scope::{How, Scope};
use ringfence_residency::{Database, Error};
use serde_json::{Value, json};

use super::console::{Console, WhoArgs};
use super::{ConfigArgs, Failure, print_json};
use crate::moves;

/// `ringfence migrate …`
#[derive(Subcommand)]
pub(crate) enum MigrateCommand {
    /// Show what would move, and what stands in the way. Nothing is touched.
    Plan(LookArgs),
    /// Begin, or go on after a crash: mark the rows, copy them, follow their changes.
    Start(ActArgs),
    /// How far it is: rows, bytes, rate, lag, time left.
    Status(StatusArgs),
    /// Compare both sides while they are in use.
    Verify(LookArgs),
    /// Change over: clients wait for a moment, then go on at the target.
    Cutover(ActArgs),
    /// Go back to where the rows were, with all that was written since.
    Back(ActArgs),
    /// Give it up: remove everything that it laid, and the target's copies.
    Abort(ActArgs),
}

/// Which move.
#[derive(Args)]
pub(crate) struct MoveArgs {
    /// The move, where the configuration has several.
    #[arg(long = "move", value_name = "NAME")]
    the_move: Option<String>,
}

/// `plan`, `verify`
#[derive(Args)]
pub(crate) struct LookArgs {
    #[command(flatten)]
    which: MoveArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// `status`
#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    look: LookArgs,
    /// Look again each second until nothing is left to copy.
    #[arg(long)]
    watch: bool,
}

/// `start`, `cutover`, `back`, `abort`: each is on record with who did it.
#[derive(Args)]
pub(crate) struct ActArgs {
    #[command(flatten)]
    which: MoveArgs,
    #[command(flatten)]
    who: WhoArgs,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        match &e {
            Error::Blocked(problems) => Self::refused(format!(
                "it cannot be done like this; nothing was touched:\n  {}",
                problems.join("\n  ")
            )),
            Error::Failed(_) => Self::refused(e.to_string()),
            _ => Self::setup(e.to_string()),
        }
    }
}

/// A move with both sides open.
struct Open {
    of: Move,
    from: Database,
    to: Database,
    plan: Plan,
    gateways: Vec<SocketAddr>,
}

async fn open(which: &MoveArgs, config: &ConfigArgs) -> Result<Open, Failure> {
    let loaded = moves::load(&config.path(), which.the_move.as_deref())?;
    let scope = Scope::of(&loaded.catalogue, &loaded.of.jurisdiction, &loaded.countries)
        .map_err(|problems| Failure::setup(format!("the catalogue:\n  {}", problems.join("\n  "))))?;
    let of = loaded.of;
    let (from, to) = of.connect().await?;
    let is_under_way = migrate::is_begun(&of, &from).await?;
    let plan = plan::plan(&of, &scope, &from, &to, is_under_way).await?;
    Ok(Open { of, from, to, plan, gateways: loaded.gateways })
}

impl Open {
    /// Fails if something stands in the way.
    fn unblocked(&self) -> Result<(), Failure> {
        if self.plan.blockers.is_empty() {
            Ok(())
        } else {
            Err(Error::Blocked(self.plan.blockers.clone()).into())
        }
    }
}

pub(crate) async fn run(command: MigrateCommand) -> Result<(), Failure> {
    match command {
        MigrateCommand::Plan(args) => show_plan(&args).await,
        MigrateCommand::Start(args) => start(&args).await,
        MigrateCommand::Status(args) => show_status(&args).await,
        MigrateCommand::Verify(args) => compare(&args).await,
        MigrateCommand::Cutover(args) => change_over(&args).await,
        MigrateCommand::Back(args) => back(&args).await,
        MigrateCommand::Abort(args) => abort(&args).await,
    }
}

async fn show_plan(args: &LookArgs) -> Result<(), Failure> {
    let open = open(&args.which, &args.config).await?;
    let plan = &open.plan;
    if args.json {
        print_json(
            &json!({ "move": open.of.name, "jurisdiction": open.of.jurisdiction, "from": open.of.from.store,
            "to": open.of.to.store, "route": open.of.route, "plan": plan }),
        );
    } else {
        println!(
            "Move {}: rows of {} go from {} to {}; workloads reach them by {}.\n",
            open.of.name, open.of.jurisdiction, open.of.from.store, open.of.to.store, open.of.route
        );
        for planned in &plan.tables {
            let how = match &planned.table.how {
                How::Residence { column, countries, .. } => {
                    format!("where {column} is {}", countries.join(" or "))
                }
                How::Subjects { columns, residents, belongs, .. } => match belongs {
                    Belongs::Subject => format!("where {} lives there ({})", columns[0], residents.1),
                    Belongs::Any => {
                        format!("where one of {} lives there ({})", columns.join(", "), residents.1)
                    }
                    Belongs::All => {
                        format!("where all of {} live there ({})", columns.join(", "), residents.1)
                    }
                },
                How::Everything => "all".to_owned(),
            };
            let rows = HumanCount(planned.shape.rows.unsigned_abs());
            let size = HumanBytes(planned.shape.bytes.unsigned_abs());
            let made = if planned.exists { "" } else { "; is brought over" };
            println!("  {:<20} of about {rows} rows ({size}): {how}{made}", planned.table.shown());
        }
        for table in &plan.stay {
            println!("  {table:<20} stays: about nobody");
        }
        for note in &plan.notes {
            println!("NOTE     {note}");
        }
        for blocker in &plan.blockers {
            println!("BLOCKER  {blocker}");
        }
    }
    if plan.blockers.is_empty() { Ok(()) } else { Err(Failure::refused("")) }
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

async fn record(console: &Console, of: &Move, stage: &str, more: Value) -> Result<(), Failure> {
    let mut record = json!({ "move": of.name, "stage": stage, "from": of.from.store, "to": of.to.store });
    if let (Some(record), Value::Object(more)) = (record.as_object_mut(), more) {
        record.extend(more);
    }
    console.ask(&json!({ "do": "moved", "route": of.route, "record": record })).await.map(drop)
}

async fn start(args: &ActArgs) -> Result<(), Failure> {
    let open = open(&args.which, &args.who.config).await?;
    open.unblocked()?;
    let console = Console::connect(&args.who, None).await?;
    let Open { of, from, to, plan, .. } = &open;
    from.claim(&of.name).await?;
    if migrate::has_moved(of, from, to).await? {
        return Err(Failure::refused(format!("the rows are at home at {} already", to.name)).hint(
            "`ringfence migrate back` brings them back, `ringfence erase plan` shows what is left of them",
        ));
    }
    let tables: Vec<Value> = plan.tables.iter().map(|t| json!(t.table.shown())).collect();
    record(&console, of, "started", json!({ "tables": tables })).await?;
    let marking = bar(0, "marking the rows {bar:40} {percent} % {elapsed}");
    let mut told = |n: i64, of: i64| {
        marking.set_length(of.unsigned_abs());
        marking.inc(n.unsigned_abs());
    };
    let marked = migrate::start(of, &plan.tables, from, to, &mut told).await?;
    marking.finish_and_clear();
    let copying = bar(0, "copying {spinner} {msg} {prefix} {elapsed}");
    let told = |name: &str| copying.set_prefix(format!("({name})"));
    tokio::try_join!(
        async { carry::rest(of, &plan.tables, from, to, &told).await.map_err(Failure::from) },
        follow_copy(&open, &copying, &console)
    )?;
    copying.finish_and_clear();
    target::hurry(of, to).await?;
    let now = status::status(of, &plan.tables, from, to).await?;
    record(&console, of, "copied", json!({ "rows": now.rows })).await?;
    if args.who.json {
        print_json(&json!({ "move": of.name, "marked": marked, "status": now }));
    } else {
        println!("{} follows {}: {} rows.", to.name, from.name, HumanCount(now.rows.unsigned_abs()));
        println!("Compare with `ringfence migrate verify`, change over with `ringfence migrate cutover`.");
    }
    Ok(())
}

/// How often PostgreSQL may fail to copy or apply before that is told: it tries again by itself, and a server that was away for a
/// moment is no reason to give up.
pub(super) const ERRORS: i64 = 3;

/// Shows how far the copy is, until it is over.
async fn follow_copy(open: &Open, bar: &ProgressBar, console: &Console) -> Result<(), Failure> {
    let Open { of, from, to, plan, .. } = open;
    let (mut before, mut told) = (None, None);
    let mut stuck = Vec::new();
    loop {
        let now = status::status(of, &plan.tables, from, to).await?;
        if now.stage != Stage::Copying {
            return Ok(());
        }
        let errors = now.errors.0 + now.errors.1;
        if errors - *before.get_or_insert(errors) >= ERRORS {
            bar.finish_and_clear();
            let problem = format!(
                "PostgreSQL cannot copy the rows and has tried {ERRORS} times; the server log of {} says why",
                to.name
            );
            return Err(Failure::refused(problem).hint(
                "it goes on trying by itself: mend what is wrong and run this again, or give it up with `ringfence migrate abort`",
            ));
        }
        let (rows, size) = (HumanCount(now.rows.unsigned_abs()), HumanBytes(now.bytes.unsigned_abs()));
        bar.set_message(format!("{rows} rows, {size}, {} of {} tables complete", now.tables.0, now.tables.1));
        if told.is_none_or(|at: Instant| at.elapsed() >= Duration::from_secs(1)) {
            told = Some(Instant::now());
            tell(console, open, &now).await;
            // Between two looks a copy may just have ended.
            let now_stuck = target::stuck(of, from, to).await?;
            if let Some(table) = now_stuck.iter().find(|table| stuck.contains(*table)) {
                bar.finish_and_clear();
                let problem = format!("the copy of {table} cannot end: its slot is gone from {}", from.name);
                return Err(Failure::refused(problem)
                    .hint("`ringfence migrate abort`, then start again: nothing has moved yet"));
            }
            stuck = now_stuck;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Has the console show how far it is. A gateway that is away is no reason to stop copying.
async fn tell(console: &Console, open: &Open, now: &Status) {
    let all: i64 = open.plan.tables.iter().map(|t| t.shape.rows).sum();
    let progress = json!({
        "stage": now.stage.word(), "rows": now.rows.max(0), "of": all.max(0), "bytes": now.bytes.max(0), "tables": now.tables,
        "lag": now.lag_bytes.map(|n| n.max(0)),
    });
    let command = json!({ "do": "progress", "route": open.of.route, "progress": progress });
    let told = tokio::time::timeout(Duration::from_secs(2), console.ask(&command)).await;
    if !matches!(told, Ok(Ok(_))) {
        tracing::debug!("the console was not told how far it is");
    }
}

async fn show_status(args: &StatusArgs) -> Result<(), Failure> {
    let open = open(&args.look.which, &args.look.config).await?;
    let all: i64 = open.plan.tables.iter().map(|t| t.shape.rows).sum();
    let mut before: Option<Status> = None;
    loop {
        let now = status::status(&open.of, &open.plan.tables, &open.from, &open.to).await?;
        if args.look.json {
            print_json(&json!({ "move": open.of.name, "status": now }));
        } else {
            print_status(&open, &now, before.as_ref(), all);
        }
        let is_over = !matches!(now.stage, Stage::Marking | Stage::Copying | Stage::Indexing);
        if !args.watch || is_over {
            return Ok(());
        }
        before = Some(now);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "for people"
)]
fn print_status(open: &Open, now: &Status, before: Option<&Status>, all: i64) {
    let mut line = format!(
        "{}: {}, {} rows, {} at {}",
        open.of.name,
        now.stage.word(),
        HumanCount(now.rows.unsigned_abs()),
        HumanBytes(now.bytes.unsigned_abs()),
        open.to.name
    );
    if now.stage == Stage::Copying {
        line = format!("{line}, {} of {} tables complete", now.tables.0, now.tables.1);
    }
    if let Some(before) = before.filter(|b| now.at > b.at) {
        let rate = (now.rows - before.rows) as f64 * 1000.0 / (now.at - before.at);
        line = format!("{line}, {rate:.0} rows a second");
        let left = (all - now.rows).max(0) as f64;
        if rate > 0.0 && now.stage == Stage::Copying {
            line =
                format!("{line}, {} left at most", HumanDuration(Duration::from_secs((left / rate) as u64)));
        }
    }
    if let Some(lag) = now.lag_bytes {
        line = format!("{line}, {} behind", HumanBytes(lag.unsigned_abs()));
    }
    if now.errors != (0, 0) {
        line = format!("{line}, {} errors (see the target's server log)", now.errors.0 + now.errors.1);
    }
    println!("{line}");
}

async fn compare(args: &LookArgs) -> Result<(), Failure> {
    let open = open(&args.which, &args.config).await?;
    let now = status::status(&open.of, &open.plan.tables, &open.from, &open.to).await?;
    if now.stage != Stage::Following {
        let word = now.stage.word();
        let problem =
            format!("the move is {word}: both sides are compared while the target follows the source");
        return Err(Failure::refused(problem));
    }
    let rows: i64 = open.plan.tables.iter().map(|t| t.shape.rows).sum();
    let comparing = bar(rows.unsigned_abs(), "comparing {msg} {human_pos} rows {elapsed}");
    let told = &mut |table: &str, rows: i64| {
        comparing.set_message(table.to_owned());
        comparing.inc(rows.unsigned_abs());
    };
    let verified = verify::verify(&open.of, &open.plan.tables, &open.from, &open.to, told).await?;
    comparing.finish_and_clear();
    if args.json {
        print_json(&verified);
    } else {
        for (name, table) in &verified.tables {
            let differences = table.missing + table.extra + table.different;
            let word = if differences == 0 { "EQUAL   " } else { "DIFFERS " };
            println!(
                "{word} {name}: {} rows in {} ranges; {} missing, {} too many, {} different",
                HumanCount(table.rows.unsigned_abs()),
                table.ranges,
                table.missing,
                table.extra,
                table.different
            );
        }
        println!("SHA-256 over all: {}", verified.root);
    }
    match verified.differences() {
        0 => Ok(()),
        n => Err(Failure::refused(format!("{n} rows differ"))),
    }
}

/// The gateways of a move, each with a connection to its console: when that goes, a gateway lets go by itself.
struct Consoles {
    route: String,
    all: Vec<Console>,
    /// Where they lead their clients since they let go.
    lead_to: Vec<String>,
}

impl Consoles {
    async fn connect(open: &Open, who: &WhoArgs) -> Result<Self, Failure> {
        let mut all = vec![Console::connect(who, None).await?];
        for address in &open.gateways {
            all.push(Console::connect(who, Some(*address)).await?);
        }
        Ok(Self { route: open.of.route.clone(), all, lead_to: Vec::new() })
    }

    /// Fails where a gateway leads its clients elsewhere than where the rows are: then they meet the fence.
    fn lead_to(&self, store: &str) -> Result<(), Failure> {
        match self.lead_to.iter().find(|led| *led != store) {
            None => Ok(()),
            Some(other) => Err(Failure::refused(format!(
                "the rows are at home at {store}, and a gateway leads clients of {} to {other}",
                self.route
            ))
            .hint(format!(
                "each gateway's configuration needs the store {store}, and all stores on the way there"
            ))),
        }
    }

    async fn ask(&self, command: &Value) -> Vec<Result<Value, Failure>> {
        futures_util::future::join_all(self.all.iter().map(|console| console.ask(command))).await
    }
}

impl Gateways for Consoles {
    async fn hold(&mut self, within: Duration) -> Result<(), String> {
        let command = json!({ "do": "hold", "route": self.route, "within_ms": within.as_millis() });
        let failed = self.ask(&command).await.into_iter().find_map(Result::err);
        match failed {
            None => Ok(()),
            Some(failure) => {
                let _ = self.release().await;
                Err(failure.message)
            }
        }
    }

    async fn release(&mut self) -> Result<Duration, String> {
        let mut longest = Duration::ZERO;
        self.lead_to.clear();
        for answer in self.ask(&json!({ "do": "release", "route": self.route })).await {
            let answer = answer.map_err(|f| f.message)?;
            self.lead_to.push(answer["store"].as_str().unwrap_or("?").to_owned());
            let held = answer["held_ms"].as_f64().unwrap_or_default();
            longest = longest.max(Duration::try_from_secs_f64(held / 1000.0).unwrap_or_default());
        }
        Ok(longest)
    }
}

async fn change_over(args: &ActArgs) -> Result<(), Failure> {
    let open = open(&args.which, &args.who.config).await?;
    open.unblocked()?;
    let Open { of, from, to, plan, .. } = &open;
    let mut gateways = Consoles::connect(&open, &args.who).await?;
    from.claim(&of.name).await?;
    if migrate::has_moved(of, from, to).await? {
        // Somebody died after the decision.
        if cutover::resume(of, &plan.tables, from, to, &mut gateways).await? {
            let console = Console::connect(&args.who, None).await?;
            record(&console, of, "changed-over", json!({ "resumed": true })).await?;
        }
        if args.who.json {
            print_json(&json!({ "store": of.to.store }));
        } else {
            println!("The rows are at home at {}.", of.to.store);
        }
        return gateways.lead_to(&of.to.store);
    }
    let rows: i64 = plan.tables.iter().map(|t| t.shape.rows).sum();
    let progress = bar(rows.unsigned_abs(), "{prefix} {msg} {human_pos} rows {elapsed}");
    let mut told = |step: Step<'_>| match step {
        Step::Begun(what) => progress.set_prefix(what),
        Step::Compared(table, rows) => {
            progress.set_message(table.to_owned());
            progress.inc(rows.unsigned_abs());
        }
    };
    let done = cutover::run(of, &plan.tables, from, to, &mut gateways, &mut told).await;
    progress.finish_and_clear();
    let console = Console::connect(&args.who, None).await?;
    let report = match done {
        Ok(report) => report,
        Err(e) => {
            // Where it was decided, or nobody can tell, the same command goes on from there and puts it on record.
            if let Ok(false) = migrate::has_moved(of, from, to).await {
                record(&console, of, "rolled-back", json!({})).await?;
            }
            return Err(e.into());
        }
    };
    record(
        &console,
        of,
        "changed-over",
        json!({ "compared": report.verified, "changed": report.changed, "held_ms": report.held_ms }),
    )
    .await?;
    if args.who.json {
        print_json(&report);
    } else {
        println!(
            "The rows are at home at {}; clients of {} waited {:.0} ms.",
            report.store, of.route, report.held_ms
        );
        println!("Back, with all that is written from now on: `ringfence migrate back`.");
    }
    gateways.lead_to(&of.to.store)
}

async fn back(args: &ActArgs) -> Result<(), Failure> {
    let open = open(&args.which, &args.who.config).await?;
    let Open { of, from, to, plan, .. } = &open;
    let mut gateways = Consoles::connect(&open, &args.who).await?;
    let held = cutover::back(of, &plan.tables, from, to, &mut gateways).await?;
    record(&Console::connect(&args.who, None).await?, of, "gone-back", json!({ "held_ms": held })).await?;
    if args.who.json {
        print_json(&json!({ "store": of.from.store, "held_ms": held }));
    } else {
        println!(
            "The rows are at home at {} again; clients of {} waited {held:.0} ms.",
            of.from.store, of.route
        );
    }
    gateways.lead_to(&of.from.store)
}

async fn abort(args: &ActArgs) -> Result<(), Failure> {
    let open = open(&args.which, &args.who.config).await?;
    let console = Console::connect(&args.who, None).await?;
    migrate::abort(&open.of, &open.plan.tables, &open.from, &open.to).await?;
    record(&console, &open.of, "given-up", json!({})).await?;
    if args.who.json {
        print_json(&json!({ "move": open.of.name, "stage": "given-up" }));
    } else {
        println!("{} is as before; {} has no rows of it.", open.from.name, open.to.name);
    }
    Ok(())
}
