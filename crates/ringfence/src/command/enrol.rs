//! `ringfence enrol`: what approvers sign so that a key of somebody's comes into the rules. By files that go from hand to hand, or at the
//! gateway's console, where approvers with passkeys sign, too; the registry takes the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ringfence_grants::approval;
use ringfence_verifier::enrolment::{Enrolled, Enrolment};
use serde_json::{Value, json};
use ssh_key::{HashAlg, PublicKey};

use super::console::{WhoArgs, ask};
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
    /// Ask for a key of yours at the console, where others sign.
    Ask(AskArgs),
    /// List what waits at the console.
    List(WhoArgs),
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
struct AskArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// The public key: a file with one OpenSSH line.
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
}

#[derive(Args)]
struct SignArgs {
    /// The enrolment: a file, or the name of one that waits at the console (E-…).
    enrolment: String,
    #[command(flatten)]
    who: WhoArgs,
    /// Your OpenSSH private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The fingerprint that the key must have, as its owner has told you (`ssh-keygen -l`, or the page of their passkey).
    #[arg(long, value_name = "SHA256:…")]
    fingerprint: Option<String>,
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

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

/// Signs one in a file, or at the console.
async fn sign(args: &SignArgs) -> Result<(), Failure> {
    let name = args.who.name.as_str();
    let file = Path::new(&args.enrolment);
    let is_file = file.exists() || !args.enrolment.starts_with("E-");
    let (mut enrolled, enrolment) = if is_file {
        open(file)?
    } else {
        let one = ask(&args.who, &json!({ "do": "enrolment", "id": args.enrolment })).await?;
        let text = text(&one, "canonical").to_owned();
        let enrolment =
            Enrolment::parse(&text).map_err(|e| Failure::refused(format!("the enrolment {e}")))?;
        (Enrolled { text, signatures: BTreeMap::new() }, enrolment)
    };
    if enrolment.person == name {
        return Err(Failure::refused("nobody enrols themselves"));
    }
    let key = PublicKey::from_openssh(&enrolment.key).map_err(|e| Failure::refused(e.to_string()))?;
    let found = key.fingerprint(HashAlg::Sha256).to_string();
    match &args.fingerprint {
        Some(wanted) if *wanted == found => {}
        Some(_) => {
            return Err(Failure::refused(format!("it is of another key: {found}, of {}", enrolment.person)));
        }
        // A file came from hand to hand; what waits at the console is what its database says.
        None if is_file => {}
        None => {
            return Err(Failure::refused(format!("it is of the key {found}, of {}", enrolment.person))
                .hint("Ask them for the fingerprint of their key, and say it: --fingerprint SHA256:…"));
        }
    }
    let signature = approval::sign_text(&enrolled.text, &read(&args.key)?)
        .map_err(|e| Failure::refused(e.to_string()))?;
    if is_file {
        enrolled.signatures.insert(name.to_owned(), signature);
        write(file, &enrolled)?;
    } else {
        let given = json!({ "do": "vouch", "id": args.enrolment, "signature": signature });
        ask(&args.who, &given).await?;
    }
    if args.who.json {
        print_json(&json!({ "person": enrolment.person, "key": enrolment.key, "signed_by": name }));
    } else {
        println!("Signed: {} of {}, for {name}.", enrolment.key, enrolment.person);
    }
    Ok(())
}

/// `ringfence enrol`.
pub(crate) async fn run(args: &EnrolArgs) -> Result<(), Failure> {
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
        EnrolCommand::Ask(args) => {
            let command = json!({ "do": "enrol", "key": read(&args.public_key)?.trim() });
            let told = ask(&args.who, &command).await?;
            if args.who.json {
                print_json(&told);
            } else {
                let (id, needed) = (text(&told, "id"), &told["signatures_needed"]);
                println!(
                    "{id} waits for {needed} signatures of other approvers: in their inbox, or ringfence enrol sign {id}"
                );
            }
        }
        EnrolCommand::List(who) => {
            let all = ask(who, &json!({ "do": "enrolments" })).await?;
            if who.json {
                print_json(&all);
                return Ok(());
            }
            for one in all.as_array().into_iter().flatten() {
                let signed = one["signed_by"].as_array().map_or(0, Vec::len);
                let (id, state, person) = (text(one, "id"), text(one, "state"), text(one, "person"));
                println!(
                    "{id}  {state:<8}  {signed} of {}  {}  {person}",
                    one["signatures_needed"],
                    text(one, "key")
                );
            }
        }
        EnrolCommand::Sign(args) => sign(args).await?,
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
            print!("{}", enrolled.lines());
        }
    }
    Ok(())
}
