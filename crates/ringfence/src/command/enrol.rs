//! `ringfence enrol`: what approvers sign so that a key of somebody's comes into the rules. Files only; the registry takes the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ringfence_grants::approval;
use ringfence_verifier::enrolment::{Enrolled, Enrolment};
use serde_json::json;

use super::{Failure, print_json};

/// `ringfence enrol`.
#[derive(Args)]
pub(crate) struct EnrolArgs {
    #[command(subcommand)]
    command: EnrolCommand,
}

#[derive(Subcommand)]
enum EnrolCommand {
    /// Write an enrolment for others to sign.
    Write(WriteArgs),
    /// Sign one, as an approver who is in the rules already.
    Sign(SignArgs),
    /// Show one, and what the registry takes.
    Show(ShowArgs),
}

#[derive(Args)]
struct WriteArgs {
    /// Whose key it is, by the registry's name.
    person: String,
    /// The public key: a file with one OpenSSH line, as `ssh-keygen` writes it and the console's passkey page says it.
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
    /// Where the enrolment goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct SignArgs {
    /// The enrolment.
    file: PathBuf,
    /// Your name in the registry.
    #[arg(long = "as", value_name = "NAME")]
    name: String,
    /// Your OpenSSH private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Args)]
struct ShowArgs {
    /// The enrolment.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::setup(format!("cannot read {}: {e}", path.display())))
}

fn open(path: &Path) -> Result<(Enrolled, Enrolment), Failure> {
    let not_one = |e: String| Failure::refused(format!("{} {e}", path.display()));
    let enrolled: Enrolled =
        serde_json::from_str(&read(path)?).map_err(|e| not_one(format!("is no enrolment: {e}")))?;
    let enrolment = Enrolment::parse(&enrolled.text).map_err(not_one)?;
    Ok((enrolled, enrolment))
}

fn write(path: &Path, enrolled: &Enrolled) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(enrolled).unwrap_or_default();
    std::fs::write(path, text + "\n")
        .map_err(|e| Failure::setup(format!("cannot write {}: {e}", path.display())))
}

/// `ringfence enrol`.
pub(crate) fn run(args: &EnrolArgs) -> Result<(), Failure> {
    match &args.command {
        EnrolCommand::Write(args) => {
            let made = Enrolment::new(&args.person, &read(&args.public_key)?, ringfence_ledger::now_ms());
            let text = made.and_then(|e| e.canonical()).map_err(Failure::refused)?;
            write(&args.out, &Enrolled { text, signatures: BTreeMap::new() })?;
            println!(
                "Written. Approvers who are in the rules sign it: ringfence enrol sign {} --as NAME --key FILE",
                args.out.display()
            );
        }
        EnrolCommand::Sign(args) => {
            let (mut enrolled, enrolment) = open(&args.file)?;
            if enrolment.person == args.name {
                return Err(Failure::refused("nobody enrols themselves"));
            }
            let signature = approval::sign_text(&enrolled.text, &read(&args.key)?)
                .map_err(|e| Failure::refused(e.to_string()))?;
            enrolled.signatures.insert(args.name.clone(), signature);
            write(&args.file, &enrolled)?;
            println!("Signed: {} of {}, for {}.", enrolment.key, enrolment.person, args.name);
        }
        EnrolCommand::Show(args) => {
            let (enrolled, enrolment) = open(&args.file)?;
            if args.json {
                print_json(
                    &json!({ "person": enrolment.person, "key": enrolment.key, "signed_by": enrolled.signatures.keys().collect::<Vec<_>>() }),
                );
                return Ok(());
            }
            let signed: Vec<&str> = enrolled.signatures.keys().map(String::as_str).collect();
            let signed = if signed.is_empty() { "nobody yet".to_owned() } else { signed.join(", ") };
            println!("# {} of {}, signed by {signed}. For the registry:", enrolment.key, enrolment.person);
            println!("[[enrolments]]\ntext = {}\n[enrolments.signatures]", toml_text(&enrolled.text));
            for (name, signature) in &enrolled.signatures {
                println!("{} = {}", toml_text(name), toml_text(signature));
            }
        }
    }
    Ok(())
}

/// A basic string of TOML: its escapes are JSON's.
fn toml_text(text: &str) -> String {
    json!(text).to_string()
}
