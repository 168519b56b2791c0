//! `request`, `requests`, `approve`, `deny`, `revoke`, `grants`: through the gateway, logged in as `psql` would.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use ringfence_face::Target;
use ringfence_grants::{Request, approval};
use ringfence_verifier::orders::{Order, What};
use serde_json::{Value, json};
use tokio_postgres::SimpleQueryMessage;

use super::{ConfigArgs, Failure, print_json};
use crate::config;
use crate::tls::{self, Identity};

/// Who asks, and how the answer is wanted.
#[derive(Args)]
pub(crate) struct WhoArgs {
    /// Your name. The password is read as psql reads it: PGPASSWORD, PGPASSFILE or ~/.pgpass, else a prompt;
    /// so is a client certificate: PGSSLCERT and PGSSLKEY, or ~/.postgresql.
    #[arg(long = "as", value_name = "NAME", env = "PGUSER")]
    pub(super) name: String,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// `ringfence request`.
#[derive(Args)]
pub(crate) struct RequestArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// The store.
    #[arg(long)]
    store: String,
    /// The columns, as in users.email,users.phone.
    #[arg(long, value_delimiter = ',', required = true)]
    columns: Vec<String>,
    /// Which rows, as in "country = 'US' and id = 4711". All rows if absent.
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Why: a ticket, a case, a reason that an approver can judge.
    #[arg(long)]
    purpose: String,
    /// How long from the last approval: 30m, 2h, 3days.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    length: std::time::Duration,
    /// How many rows may be read in all.
    #[arg(long)]
    max_rows: Option<u64>,
}

/// `ringfence requests`, `ringfence grants`.
#[derive(Args)]
pub(crate) struct ListArgs {
    /// One request.
    id: Option<String>,
    #[command(flatten)]
    who: WhoArgs,
}

/// `ringfence approve`.
#[derive(Args)]
pub(crate) struct ApproveArgs {
    /// The request.
    id: String,
    #[command(flatten)]
    who: WhoArgs,
    #[command(flatten)]
    sign: SignArgs,
}

/// How an approver signs.
#[derive(Args)]
pub(super) struct SignArgs {
    /// Your OpenSSH private key.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["signature", "print"])]
    key: Option<PathBuf>,
    /// A signature made elsewhere: `ssh-keygen -Y sign -n ringfence-approval` over what --print prints.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    signature: Option<PathBuf>,
    /// Print the exact text to sign, without a newline, and stop.
    #[arg(long)]
    pub(super) print: bool,
}

impl SignArgs {
    /// The signature over a canonical text.
    pub(super) fn sign(&self, canonical: &str) -> Result<String, Failure> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|e| Failure::setup(format!("cannot read {}: {e}", path.display())))
        };
        match (&self.signature, &self.key) {
            (Some(file), _) => read(file),
            (None, Some(file)) => {
                approval::sign_text(canonical, &read(file)?).map_err(|e| Failure::refused(e.to_string()))
            }
            (None, None) => Err(Failure::setup("give --key FILE or --signature FILE")),
        }
    }
}

/// `ringfence suspend`, `ringfence resume`.
pub(crate) async fn order(args: OrderArgs, what: &str) -> Result<(), Failure> {
    let command =
        json!({ "do": "order", "jurisdiction": args.jurisdiction, "what": what, "reason": args.reason });
    let made = ask(&args.who, &command).await?;
    let canonical = text(&made, "canonical");
    // Nothing is signed but what was asked for.
    let order = Order::parse(canonical).map_err(|e| Failure::refused(format!("the order {e}")))?;
    if order.jurisdiction != args.jurisdiction || serde_json::to_value(order.what).is_ok_and(|w| w != what) {
        return Err(Failure::refused("the gateway has made another order than was asked for"));
    }
    let key = std::fs::read_to_string(&args.key)
        .map_err(|e| Failure::setup(format!("cannot read {}: {e}", args.key.display())))?;
    let signature = approval::sign_text(canonical, &key).map_err(|e| Failure::refused(e.to_string()))?;
    let given = ask(&args.who, &json!({ "do": "give", "id": order.id, "signature": signature })).await?;
    if args.who.json {
        print_json(&given);
        return Ok(());
    }
    let now = match order.what {
        What::Suspend => format!("No data of {} crosses the border.", args.jurisdiction),
        What::Resume => format!("Data of {} may cross the border again.", args.jurisdiction),
    };
    println!("{now} Order {}.", order.id);
    Ok(())
}

/// `ringfence unbind`.
pub(crate) async fn unbind(args: UnbindArgs) -> Result<(), Failure> {
    let answer =
        ask(&args.who, &json!({ "do": "unbind", "name": args.person, "reason": args.reason })).await?;
    if args.who.json {
        print_json(&answer);
    } else {
        println!("Whom the identity provider calls {} next is them.", args.person);
    }
    Ok(())
}

/// `ringfence deny`, `ringfence revoke`.
#[derive(Args)]
pub(crate) struct EndArgs {
    /// The request or grant.
    id: String,
    #[command(flatten)]
    who: WhoArgs,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
}

/// `ringfence narrow`.
#[derive(Args)]
pub(crate) struct NarrowArgs {
    /// The request.
    id: String,
    #[command(flatten)]
    who: WhoArgs,
    /// The columns that stay. All that were asked for if absent.
    #[arg(long, value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// A condition besides the one that was asked for.
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// How long from the last approval, at most as long as was asked for.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    length: Option<std::time::Duration>,
    /// How many rows may be read in all, at most as many as were asked for.
    #[arg(long)]
    max_rows: Option<u64>,
}

/// `ringfence sessions`.
#[derive(Args)]
pub(crate) struct SessionsArgs {
    #[command(flatten)]
    who: WhoArgs,
}

/// `ringfence cut`.
#[derive(Args)]
pub(crate) struct CutArgs {
    /// The session, by its name in `ringfence sessions` and in the ledger.
    session: String,
    #[command(flatten)]
    who: WhoArgs,
    /// Why; whoever is cut reads it.
    #[arg(long)]
    reason: String,
}

/// `ringfence suspend`, `ringfence resume`.
#[derive(Args)]
pub(crate) struct OrderArgs {
    /// Whose data, by the registry's name of the jurisdiction.
    jurisdiction: String,
    #[command(flatten)]
    who: WhoArgs,
    /// Why; whoever is cut off reads it.
    #[arg(long)]
    reason: String,
    /// Your OpenSSH private key, which signs the order.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// `ringfence unbind`.
#[derive(Args)]
pub(crate) struct UnbindArgs {
    /// The person, by the registry's name.
    person: String,
    #[command(flatten)]
    who: WhoArgs,
    /// Why; it goes on record.
    #[arg(long)]
    reason: String,
}

/// A gateway's console.
pub(super) struct Console(tokio_postgres::Client);

/// Logs in to the console and gives it one command.
pub(super) async fn ask(who: &WhoArgs, command: &Value) -> Result<Value, Failure> {
    Console::connect(who, None).await?.ask(command).await
}

impl Console {
    /// Logs in, to the configuration's own gateway or to another one.
    pub(super) async fn connect(who: &WhoArgs, address: Option<SocketAddr>) -> Result<Self, Failure> {
        let places = config::places(&who.config.path())?;
        let mut config = tokio_postgres::Config::new();
        let address = address.unwrap_or(places.listen);
        let ip = match address.ip() {
            ip if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
            ip => ip,
        };
        config
            .host(ip.to_string())
            .port(address.port())
            .user(&who.name)
            .dbname(ringfence_gateway::console::NAME)
            .application_name("ringfence");
        let identity = identity();
        if let Some(password) = password(&who.name, &places, identity.is_some())? {
            config.password(password);
        }
        let tls = places.root.as_deref().map(|root| tls::client(root, identity.as_ref()));
        let tls = tls.transpose().map_err(Failure::setup)?;
        let client = Target { config, tls }.connect("the gateway").await;
        Ok(Self(client.map_err(|e| failure(&e, "cannot reach the gateway"))?))
    }

    /// Gives it one command.
    pub(super) async fn ask(&self, command: &Value) -> Result<Value, Failure> {
        let answer = self.0.simple_query(&command.to_string()).await.map_err(|e| failure(&e, "no answer"));
        for message in answer? {
            if let SimpleQueryMessage::Row(row) = message {
                let text = row.get(0).unwrap_or("null");
                return serde_json::from_str(text)
                    .map_err(|e| Failure::setup(format!("the answer is not JSON: {e}")));
            }
        }
        Err(Failure::setup("the gateway gave no answer"))
    }
}

fn failure(e: &tokio_postgres::Error, what: &str) -> Failure {
    match e.as_db_error() {
        Some(db) => {
            let failure = Failure::refused(db.message());
            match db.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        None => Failure::setup(format!("{what}: {}", ringfence_face::because(e)))
            .hint("is it running? Start it with `ringfence demo` or `ringfence serve`"),
    }
}

/// As psql finds it.
/// The client certificate, where libpq finds it.
fn identity() -> Option<Identity> {
    let named = |variable: &str, usual: &str| {
        let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".postgresql").join(usual));
        std::env::var_os(variable).map(PathBuf::from).or_else(|| home().filter(|path| path.exists()))
    };
    Some(Identity {
        certificate: named("PGSSLCERT", "postgresql.crt")?,
        key: named("PGSSLKEY", "postgresql.key")?,
    })
}

/// `None` where there is none and a certificate may do.
fn password(user: &str, places: &config::Places, certified: bool) -> Result<Option<String>, Failure> {
    if let Ok(password) = std::env::var("PGPASSWORD") {
        return Ok(Some(password));
    }
    let home = std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".pgpass"));
    let file = std::env::var_os("PGPASSFILE").map(PathBuf::from).or(home);
    if let Some(found) = file.and_then(|f| from_passfile(&f, user, places)) {
        return Ok(Some(found));
    }
    if certified {
        return Ok(None);
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            Failure::setup(format!("no password for {user}")).hint("set PGPASSWORD, or write ~/.pgpass")
        );
    }
    Ok(Some(rpassword::prompt_password(format!("Password for {user}: "))?))
}

/// libpq's password file: `host:port:database:user:password`, `*` fits all, `\` escapes.
fn from_passfile(path: &Path, user: &str, places: &config::Places) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let host = places.listen.ip().to_string();
    let port = places.listen.port().to_string();
    text.lines().filter(|l| !l.starts_with('#')).find_map(|line| {
        let mut fields = vec![String::new()];
        let mut escaped = false;
        for c in line.chars() {
            match c {
                '\\' if !escaped => escaped = true,
                ':' if !escaped && fields.len() < 5 => fields.push(String::new()),
                c => {
                    escaped = false;
                    fields.last_mut()?.push(c);
                }
            }
        }
        let [h, p, d, u, password] = &fields[..] else { return None };
        let fits = |field: &str, value: &str| field == "*" || field == value;
        let host_fits = fits(h, &host) || (h == "localhost" && places.listen.ip().is_loopback());
        (host_fits && fits(p, &port) && fits(d, ringfence_gateway::console::NAME) && fits(u, user))
            .then(|| password.clone())
    })
}

/// `ringfence request`.
pub(crate) async fn request(args: RequestArgs) -> Result<(), Failure> {
    let mut wanted = json!({
        "store": args.store, "columns": args.columns, "purpose": args.purpose,
        "seconds": args.length.as_secs(), "max_rows": args.max_rows,
    });
    if let Some(condition) = args.condition {
        wanted["where"] = condition.into();
    }
    let answer = ask(&args.who, &json!({ "do": "request", "ask": wanted })).await?;
    if args.who.json {
        print_json(&answer);
        return Ok(());
    }
    let id = text(&answer, "id");
    println!("{id} is pending: {}", text(&answer, "summary"));
    println!(
        "It needs {} approvals by {}. An approver signs it with:",
        answer["approvals_needed"],
        text(&answer, "decide_by")
    );
    println!("  ringfence approve {id} --as APPROVER --key FILE");
    Ok(())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

/// `ringfence requests`, `ringfence grants`.
pub(crate) async fn list(args: ListArgs, only_granted: bool) -> Result<(), Failure> {
    let answer = match &args.id {
        Some(id) => ask(&args.who, &json!({ "do": "show", "id": id })).await?,
        None => ask(&args.who, &json!({ "do": if only_granted { "grants" } else { "requests" } })).await?,
    };
    if args.who.json {
        print_json(&answer);
        return Ok(());
    }
    let all = match &answer {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    if all.is_empty() {
        println!("{}", if only_granted { "No grants are in force." } else { "No requests." });
    }
    for one in all {
        tell(one);
    }
    Ok(())
}

fn tell(one: &Value) {
    println!("{}  {}  {}", text(one, "id"), text(one, "state"), text(one, "summary"));
    let from = one["employer"].as_str().map_or_else(String::new, |e| format!(", works for {e}"));
    println!(
        "    for {} in {}{from}; purpose: {}",
        text(one, "requester"),
        text(one, "location"),
        text(one, "purpose")
    );
    if let Some(covered) = one["covered"].as_str() {
        println!("    covered person (28 CFR 202.211): {covered}");
    }
    let approvers: Vec<&str> =
        one["approved_by"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let limit = one["max_rows"].as_u64().map_or_else(String::new, |m| format!(" of {m}"));
    println!(
        "    approved by {} ({} needed); rows charged {}{limit}; expires {}",
        if approvers.is_empty() { "nobody".to_owned() } else { approvers.join(", ") },
        one["approvals_needed"],
        one["charged"],
        text(one, "expires"),
    );
    if let Some(by) = one["ended_by"].as_str() {
        println!("    ended by {by}: {}", text(one, "reason"));
    }
}

/// `ringfence approve`.
pub(crate) async fn approve(args: ApproveArgs) -> Result<(), Failure> {
    let shown = ask(&args.who, &json!({ "do": "show", "id": args.id })).await?;
    let canonical = shown["canonical"].as_str().unwrap_or_default();
    Request::parse(canonical).map_err(|e| Failure::refused(format!("the request {e}")))?;
    if args.sign.print {
        print!("{canonical}");
        return Ok(());
    }
    if !args.who.json {
        tell(&shown);
    }
    let signature = args.sign.sign(canonical)?;
    let after = ask(&args.who, &json!({ "do": "approve", "id": args.id, "signature": signature })).await?;
    if args.who.json {
        print_json(&after);
        return Ok(());
    }
    let have = after["approved_by"].as_array().map_or(0, Vec::len);
    match text(&after, "state") {
        "granted" => println!("Signed. {} is granted until {}.", args.id, text(&after, "expires")),
        _ => println!("Signed. {} has {have} of {} approvals.", args.id, after["approvals_needed"]),
    }
    Ok(())
}

/// `ringfence narrow`.
pub(crate) async fn narrow(args: NarrowArgs) -> Result<(), Failure> {
    let mut less = serde_json::Map::new();
    let given = [
        ("columns", args.columns.map(Value::from)),
        ("where", args.condition.map(Value::from)),
        ("seconds", args.length.map(|l| l.as_secs().into())),
        ("max_rows", args.max_rows.map(Value::from)),
    ];
    less.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let answer = ask(&args.who, &json!({ "do": "narrow", "id": args.id, "less": less })).await?;
    if args.who.json {
        print_json(&answer);
        return Ok(());
    }
    let id = text(&answer, "id");
    println!("{id} takes the place of {}: {}", args.id, text(&answer, "summary"));
    println!("Approve it with: ringfence approve {id} --as APPROVER --key FILE");
    Ok(())
}

/// `ringfence sessions`.
pub(crate) async fn sessions(args: SessionsArgs) -> Result<(), Failure> {
    let answer = ask(&args.who, &json!({ "do": "sessions" })).await?;
    if args.who.json {
        print_json(&answer);
        return Ok(());
    }
    let all = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    for one in all {
        println!(
            "{}  {} in {} at {} ({}){}: {} statements, {} rows, {} bytes in {} s",
            text(one, "session"),
            text(one, "principal"),
            text(one, "location"),
            text(one, "store"),
            text(one, "access"),
            if one["crosses"] == true { ", across the border" } else { "" },
            one["statements"],
            one["rows"],
            one["bytes"],
            one["seconds"]
        );
    }
    println!("{} sessions", all.len());
    Ok(())
}

/// `ringfence cut`.
pub(crate) async fn cut(args: CutArgs) -> Result<(), Failure> {
    let answer =
        ask(&args.who, &json!({ "do": "cut", "session": args.session, "reason": args.reason })).await?;
    if args.who.json {
        print_json(&answer);
    } else {
        println!("{} is cut.", args.session);
    }
    Ok(())
}

/// `ringfence deny`, `ringfence revoke`.
pub(crate) async fn end(args: EndArgs, how: &str) -> Result<(), Failure> {
    let answer = ask(&args.who, &json!({ "do": how, "id": args.id, "reason": args.reason })).await?;
    if args.who.json {
        print_json(&answer);
        return Ok(());
    }
    let cut =
        answer["sessions_cut"].as_u64().map_or_else(String::new, |n| format!("; {n} sessions were cut"));
    println!("{} is {}{cut}.", args.id, text(&answer, "state"));
    Ok(())
}
