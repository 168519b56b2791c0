//! `ringfence flow`: public columns that go on to a store outside, signed by the in-country team, and checked.

use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{HumanBytes, HumanCount};
use ringfence_residency::copies::probe::Probes;
use ringfence_residency::flow::check::{self, Checked};
use ringfence_residency::flow::{self, Carried, Flow, Plan};
use ringfence_residency::scope::Scope;
use ringfence_residency::{Database, Error};
use serde_json::{Value, json};

use super::console::WhoArgs;
use super::erase::{ApproveArgs, ListArgs, OneArgs, approve, ask, progress, signed, text};
use super::migrate::ERRORS;
use super::{Failure, print_json};
use crate::flows::{self, LoadedFlow};

/// People who are looked for at the other end.
const PEOPLE: i64 = 500;

/// `ringfence flow …`
#[derive(Subcommand)]
pub(crate) enum FlowCommand {
    /// Show which columns would go, which stay, and what stands in the way. Nothing is touched.
    Plan(WhichArgs),
    /// Ask for it: the in-country team signs exactly these columns.
    Request(WhichArgs),
    /// List the flows that were asked for.
    List(ListArgs),
    /// Sign one.
    Approve(ApproveArgs),
    /// Open it, once it is signed.
    Open(OneArgs),
    /// Read both ends, put the volume on record, and cut the flow if it carries anything else than what was signed.
    Check(CheckArgs),
    /// End it.
    Close(OneArgs),
}

/// `plan`, `request`
#[derive(Args)]
pub(crate) struct WhichArgs {
    /// The flow, where the configuration has several.
    #[arg(long = "flow", value_name = "NAME")]
    flow: Option<String>,
    #[command(flatten)]
    who: WhoArgs,
}

/// `check`
#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Check again and again, this long after each other, until it is stopped or the flow is cut: 1min, 1h.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    every: Option<Duration>,
}

pub(crate) async fn run(command: FlowCommand) -> Result<(), Failure> {
    match command {
        FlowCommand::Plan(args) => show_plan(&args).await,
        FlowCommand::Request(args) => request(&args).await,
        FlowCommand::List(args) => list(&args.who).await,
        FlowCommand::Approve(args) => approve(&args, print_text).await,
        FlowCommand::Open(args) => open(&args).await,
        FlowCommand::Check(args) => check(&args).await,
        FlowCommand::Close(args) => close(&args).await,
    }
}

fn document(loaded: &LoadedFlow, plan: &Plan) -> Value {
    let of = &loaded.of;
    json!({ "v": 1, "what": "flow", "flow": of.name, "jurisdiction": of.jurisdiction, "store": of.from.name,
        "home": of.from.name, "to": of.to.name, "location": of.location, "contract": of.contract, "tables": plan.tables })
}

/// A plan for people: what is signed, read out of the text itself.
fn print_text(plan: &Value) {
    println!(
        "Flow {}: public columns of {} go from {} to {} in {}.",
        text(plan, "flow"),
        text(plan, "jurisdiction"),
        text(plan, "home"),
        text(plan, "to"),
        text(plan, "location")
    );
    println!("Contract: {}", text(plan, "contract"));
    for table in plan["tables"].as_array().into_iter().flatten() {
        let columns = table["columns"].as_array().into_iter().flatten();
        let names: Vec<&str> = columns.filter_map(|c| c[0].as_str()).collect();
        println!("  {:<20} {}", text(table, "table"), names.join(", "));
    }
}

async fn show_plan(args: &WhichArgs) -> Result<(), Failure> {
    let loaded = flows::load(&args.who.config.path(), args.flow.as_deref())?;
    let (from, to) = loaded.of.connect().await?;
    let plan = flow::plan(&loaded.of, &loaded.catalogue, &from, &to).await?;
    if args.who.json {
        print_json(
            &json!({ "plan": document(&loaded, &plan), "stay": plan.stay, "blockers": plan.blockers }),
        );
    } else {
        print_text(&document(&loaded, &plan));
        for (table, columns) in plan.stay.iter().filter(|(_, columns)| !columns.is_empty()) {
            println!("STAY     {table}: {}", columns.join(", "));
        }
        for blocker in &plan.blockers {
            println!("BLOCKER  {blocker}");
        }
    }
    if plan.blockers.is_empty() { Ok(()) } else { Err(Failure::refused("")) }
}

async fn request(args: &WhichArgs) -> Result<(), Failure> {
    let loaded = flows::load(&args.who.config.path(), args.flow.as_deref())?;
    let (from, to) = loaded.of.connect().await?;
    let plan = flow::plan(&loaded.of, &loaded.catalogue, &from, &to).await?;
    if !plan.blockers.is_empty() {
        return Err(Error::Blocked(plan.blockers).into());
    }
    let command = json!({ "do": "propose", "plan": document(&loaded, &plan), "purpose": loaded.of.contract });
    let answer = ask(&args.who, &command).await?;
    if args.who.json {
        print_json(&answer);
    } else {
        print_text(&answer["plan"]);
        let id = text(&answer, "id");
        println!(
            "{id} is asked for. Approvers sign it with: ringfence flow approve {id} --as APPROVER --key FILE"
        );
    }
    Ok(())
}

async fn list(who: &WhoArgs) -> Result<(), Failure> {
    let answer = ask(who, &json!({ "do": "plans", "what": "flow" })).await?;
    if who.json {
        print_json(&answer);
        return Ok(());
    }
    for one in answer.as_array().into_iter().flatten() {
        let plan = &one["plan"];
        println!(
            "{}  {}  {}: {} to {} in {}: {}",
            text(one, "id"),
            text(one, "state"),
            text(plan, "flow"),
            text(plan, "home"),
            text(plan, "to"),
            text(plan, "location"),
            text(plan, "contract")
        );
    }
    Ok(())
}

/// A flow as it was signed, and as the configuration has it now.
struct Signed {
    loaded: LoadedFlow,
    tables: Vec<Carried>,
    document: Value,
}

fn read(answer: &Value, who: &WhoArgs) -> Result<Signed, Failure> {
    let document = signed(answer)?;
    if document["what"] != "flow" {
        return Err(Failure::refused(format!("{} is no flow", text(answer, "id"))));
    }
    let loaded = flows::load(&who.config.path(), document["flow"].as_str())?;
    let of = &loaded.of;
    let same = [
        ("home", &of.from.name),
        ("to", &of.to.name),
        ("location", &of.location),
        ("contract", &of.contract),
    ];
    for (what, is) in same {
        if document[what] != is.as_str() {
            let problem = format!("{what} is {is} in the configuration, and {} was signed", document[what]);
            return Err(Failure::refused(problem));
        }
    }
    let tables = serde_json::from_value(document["tables"].clone())
        .map_err(|e| Failure::refused(format!("the signed tables cannot be read: {e}")))?;
    Ok(Signed { loaded, tables, document })
}

async fn on_record(who: &WhoArgs, id: &str, stage: &str, found: &Value) -> Result<(), Failure> {
    ask(who, &json!({ "do": "flowed", "id": id, "stage": stage, "found": found })).await.map(drop)
}

async fn open(args: &OneArgs) -> Result<(), Failure> {
    let answer = ask(&args.who, &json!({ "do": "begin", "id": args.id })).await?;
    let Signed { loaded, tables, document } = read(&answer, &args.who)?;
    let (from, to) = loaded.of.connect().await?;
    let plan = flow::plan(&loaded.of, &loaded.catalogue, &from, &to).await?;
    if !plan.blockers.is_empty() {
        return Err(Error::Blocked(plan.blockers).into());
    }
    if plan.tables != tables {
        return Err(Failure::refused("the tables or the catalogue have changed since this was signed")
            .hint("ask for it again with `ringfence flow request`"));
    }
    on_record(&args.who, &args.id, "opened", &json!({})).await?;
    flow::open(&loaded.of, &tables, &from, &to).await?;
    first_copy(&loaded.of, &to).await?;
    if args.who.json {
        print_json(&document);
    } else {
        print_text(&document);
        println!("It is open. `ringfence flow check {} --every 1min` keeps watch.", args.id);
    }
    Ok(())
}

/// Waits until what was there before has gone, too.
async fn first_copy(of: &Flow, to: &Database) -> Result<(), Failure> {
    let bar = progress();
    loop {
        let (ready, all, errors) = flow::copied(of, to).await?;
        if ready == all && all > 0 {
            bar.finish_and_clear();
            return Ok(());
        }
        if errors >= ERRORS {
            bar.finish_and_clear();
            let problem = format!(
                "PostgreSQL cannot copy the rows and has tried {errors} times; the server log of {} says why",
                to.name
            );
            return Err(
                Failure::refused(problem).hint("it goes on trying by itself; `ringfence flow close` ends it")
            );
        }
        bar.set_message(format!("copying what is there: {ready} of {all} tables"));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// How often in a row a check may be impossible until the flow is cut: what nobody can look at does not go on.
const BLIND: u32 = 3;

async fn check(args: &CheckArgs) -> Result<(), Failure> {
    let (mut blind, mut known) = (0, None);
    loop {
        let checked = match check_once(&args.one).await {
            Ok((checked, signed)) => {
                known = Some(signed);
                checked
            }
            Err(failure) if args.every.is_none() => return Err(failure),
            Err(failure) => {
                blind += 1;
                eprintln!("It cannot be checked ({blind} of {BLIND}): {}", failure.message);
                if blind >= BLIND {
                    return cut_blind(&args.one, known, &failure).await;
                }
                tokio::time::sleep(args.every.unwrap_or_default()).await;
                continue;
            }
        };
        blind = 0;
        print_checked(&checked, args.one.who.json);
        if !checked.problems.is_empty() {
            return Err(Failure::refused("the flow was cut: see above, and the ledger"));
        }
        let Some(every) = args.every else { return Ok(()) };
        tokio::time::sleep(every).await;
    }
}

/// Cuts a flow that cannot be checked, at its source; by what was known of it before, since the gateway may be what is away.
async fn cut_blind(args: &OneArgs, known: Option<Signed>, failure: &Failure) -> Result<(), Failure> {
    let signed = match known {
        Some(signed) => signed,
        None => read(&ask(&args.who, &json!({ "do": "plan", "id": args.id })).await?, &args.who)?,
    };
    let Signed { loaded, tables, .. } = signed;
    let from = Database::connect(&loaded.of.from.name, &loaded.of.from.admin).await?;
    let to = Database::connect(&loaded.of.to.name, &loaded.of.to.admin).await;
    let ended = flow::close(&loaded.of, &tables, &from, to).await;
    let why = json!({ "problems": [format!("it could not be checked: {}", failure.message)] });
    on_record(&args.who, &args.id, "cut", &why).await?;
    ended?;
    Err(Failure::refused(format!("the flow was cut, because it could not be checked: {}", failure.message)))
}

async fn check_once(args: &OneArgs) -> Result<(Checked, Signed), Failure> {
    let answer = ask(&args.who, &json!({ "do": "plan", "id": args.id })).await?;
    let signed = read(&answer, &args.who)?;
    let Signed { loaded, tables, .. } = &signed;
    let of = &loaded.of;
    let (from, to) = of.connect().await?;
    let scope = Scope::of(&loaded.catalogue, &of.jurisdiction, &loaded.countries)
        .map_err(|problems| Failure::setup(format!("the catalogue:\n  {}", problems.join("\n  "))))?;
    // A store without anybody of the jurisdiction has nobody to look for.
    let probes = match Probes::sample(&from, &loaded.catalogue, &scope, PEOPLE, None).await {
        Ok(probes) => Some(probes),
        Err(Error::Nobody(_)) => None,
        Err(e) => return Err(e.into()),
    };
    let checked = check::check(of, tables, &loaded.catalogue, probes.as_ref(), &from, &to).await?;
    if checked.problems.is_empty() {
        on_record(&args.who, &args.id, if checked.open { "checked" } else { "closed" }, &json!(checked))
            .await?;
    } else {
        flow::close(of, tables, &from, Ok(to)).await?;
        on_record(&args.who, &args.id, "cut", &json!(checked)).await?;
    }
    Ok((checked, signed))
}

fn print_checked(checked: &Checked, json: bool) {
    if json {
        print_json(checked);
        return;
    }
    for problem in &checked.problems {
        println!("CUT      {problem}");
    }
    for (table, rows) in &checked.rows {
        println!("  {table:<20} {} rows", HumanCount(rows.unsigned_abs()));
    }
    let state = if checked.open { "open" } else { "closed" };
    println!(
        "It is {state}: {} sent since the first copy, {} behind, {} errors.",
        HumanBytes(checked.sent_bytes.unsigned_abs()),
        HumanBytes(checked.lag_bytes.unwrap_or(0).unsigned_abs()),
        checked.errors,
    );
    match (checked.looked_for, checked.problems.is_empty()) {
        (0, _) => println!("NOTE     the source has nobody who could be looked for at the other end"),
        (n, true) => println!("Looked for protected values of {n} people at the other end: none is there."),
        (..) => {}
    }
}

async fn close(args: &OneArgs) -> Result<(), Failure> {
    let answer = ask(&args.who, &json!({ "do": "plan", "id": args.id })).await?;
    let Signed { loaded, tables, .. } = read(&answer, &args.who)?;
    let of = &loaded.of;
    let from = Database::connect(&of.from.name, &of.from.admin).await?;
    let to = Database::connect(&of.to.name, &of.to.admin).await;
    let ended = flow::close(of, &tables, &from, to).await;
    on_record(&args.who, &args.id, "closed", &json!({})).await?;
    ended?;
    if !args.who.json {
        println!("It is closed. What has gone stays at {}.", of.to.name);
    }
    Ok(())
}
