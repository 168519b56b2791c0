//! `init`, `check`, `install`, `uninstall`: a store before and after the gateway.

use std::path::PathBuf;

use clap::Args;
use ringfence_face::Target;
use ringfence_face::preflight::{self, Severity};
use ringfence_face::{draft, install};
use serde_json::json;
use tokio_postgres::Client;

use super::{ConfigArgs, Failure, print_json};
use crate::config;
use crate::tls;

/// Which database.
#[derive(Args)]
pub(crate) struct DatabaseArgs {
    /// The database, as in postgresql://user@host/database. The password may come from PGPASSWORD.
    #[arg(long, value_name = "URL")]
    store: String,
    /// PEM certificates to trust: required for a database on another machine.
    #[arg(long, value_name = "FILE")]
    tls_root: Option<PathBuf>,
}

/// `ringfence init`.
#[derive(Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `ringfence check`.
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Only this store.
    #[arg(long)]
    store: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// `ringfence install`.
#[derive(Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// The role whose rights principals with full access get; no superuser.
    #[arg(long, value_name = "ROLE")]
    full_access_role: Option<String>,
    /// Do it; without this, only show it.
    #[arg(long)]
    yes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `ringfence uninstall`.
#[derive(Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Do it; without this, only show it.
    #[arg(long)]
    yes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Connects; the password may come from PGPASSWORD.
async fn connect(target: &Target) -> Result<Client, Failure> {
    let mut target = target.clone();
    if target.config.get_password().is_none()
        && let Ok(password) = std::env::var("PGPASSWORD")
    {
        target.config.password(password);
    }
    target.connect("the store").await.map_err(|e| {
        let problem =
            e.as_db_error().map_or_else(|| ringfence_face::because(&e), |db| db.message().to_owned());
        Failure::setup(format!("cannot connect to the store: {problem}"))
    })
}

async fn connect_database(database: &DatabaseArgs) -> Result<Client, Failure> {
    let config = database.store.parse().map_err(|e| Failure::setup(format!("--store: {e}")))?;
    let tls = database
        .tls_root
        .as_deref()
        .map(|root| tls::client(root, None))
        .transpose()
        .map_err(Failure::setup)?;
    let target = Target { config, tls };
    if target.is_exposed() {
        return Err(Failure::setup("the database is on another machine")
            .hint("name the certificates to trust with --tls-root"));
    }
    connect(&target).await
}

/// `ringfence init`.
pub(crate) async fn init(args: InitArgs) -> Result<(), Failure> {
    let client = connect_database(&args.database).await?;
    let found = draft::draft(&client).await?;
    if args.json {
        print_json(&json!({ "catalogue": found.catalogue, "unclassified": found.unsure }));
        return Ok(());
    }
    println!("# A draft. Read every line before it counts: what is \"public\" here, everybody may see.");
    println!("{}", toml::to_string(&found.catalogue).map_err(|e| Failure::setup(e.to_string()))?);
    if !found.unsure.is_empty() {
        println!("# Unclassified, so in no face until you add them:");
        for column in found.unsure {
            println!("#   {column}");
        }
    }
    Ok(())
}

/// `ringfence check`.
pub(crate) async fn check(args: CheckArgs) -> Result<(), Failure> {
    let loaded = config::load(&args.config.path())?;
    let mut errors = 0;
    let mut all = Vec::new();
    for problem in loaded.policy.never_apply() {
        errors += 1;
        if !args.json {
            println!("error    {problem}");
        }
        all.push(json!({ "store": null, "severity": "error", "object": "policy", "problem": problem }));
    }
    for store in loaded.gateway.stores.iter().filter(|s| args.store.as_ref().is_none_or(|n| *n == s.name)) {
        let Some((_, catalogue)) = loaded.policy.store(&store.name) else { continue };
        let client = connect(&store.steward).await?;
        for finding in preflight::check(&client, catalogue).await? {
            let is_error = finding.severity == Severity::Error;
            errors += usize::from(is_error);
            if !args.json {
                let word = if is_error { "error  " } else { "warning" };
                println!("{word}  {}: {} {}", store.name, finding.object, finding.problem);
            }
            all.push(json!({ "store": store.name, "severity": finding.severity, "object": finding.object,
                "problem": finding.problem }));
        }
    }
    if args.json {
        print_json(&all);
    } else if all.is_empty() {
        println!("Nothing lets a face around its views; every column is classified; every policy can apply.");
    }
    if errors == 0 {
        Ok(())
    } else {
        Err(Failure::refused(if args.json { String::new() } else { format!("{errors} errors") }))
    }
}

/// `ringfence install`.
pub(crate) async fn install(args: InstallArgs) -> Result<(), Failure> {
    use rand_core::RngCore as _;
    let mut client = connect_database(&args.database).await?;
    let mut random = [0; 24];
    rand_core::OsRng.fill_bytes(&mut random);
    let password = hex::encode(random);
    let options = install::Options {
        steward_verifier: crate::password::short_verifier(&password),
        full_role: args.full_access_role,
    };
    let plan = install::plan(&client, &options).await?;
    let shown: Vec<String> = plan
        .iter()
        .map(|c| c.apply.replace(&options.steward_verifier, "…"))
        .filter(|s| !s.contains("INSERT INTO ringfence.mask_key"))
        .collect();
    if args.yes {
        install::apply(&mut client, &plan).await?;
    }
    if args.json {
        print_json(&json!({ "done": args.yes, "changes": shown, "steward": install::STEWARD,
            "password": args.yes.then_some(&password) }));
    } else if args.yes {
        println!("{} changes are made; `ringfence uninstall` takes them back.", plan.len());
        println!(
            "The steward's role is {}; its password, for the file that password_file names:\n{password}",
            install::STEWARD
        );
    } else {
        for statement in &shown {
            println!("{statement};");
        }
        println!("-- {} changes, none made. Add --yes to make them.", shown.len());
    }
    Ok(())
}

/// `ringfence uninstall`.
pub(crate) async fn uninstall(args: UninstallArgs) -> Result<(), Failure> {
    let mut client = connect_database(&args.database).await?;
    let plan = install::uninstall_plan(&client).await?;
    if args.yes {
        install::uninstall(&mut client, &plan).await?;
    }
    if args.json {
        print_json(&json!({ "done": args.yes, "statements": plan }));
        return Ok(());
    }
    if args.yes {
        println!("The store is as it was before: {} statements.", plan.len());
    } else {
        for statement in &plan {
            println!("{statement};");
        }
        println!("-- {} statements, none run. Add --yes to run them.", plan.len());
    }
    Ok(())
}
