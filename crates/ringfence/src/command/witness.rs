//! `ringfence witness`: the HTTP around [`ringfence_ledger::witness`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::{Args, Subcommand};
use rand_core::{OsRng, RngCore as _};
use ringfence_ledger::now_ms;
use ringfence_ledger::witness::{Answer, Event, MAX_REQUEST, Witness};
use ringfence_verifier::cosignature::{Algorithm, CosignerKey};

use super::{Failure, write_secret};
use crate::serve::{Asked, Signals, stdin_ended};

/// `ringfence witness`.
#[derive(Subcommand)]
pub(crate) enum WitnessCommand {
    /// Make a witness's key.
    Keys(WitnessKeysArgs),
    /// Answer logs over HTTP.
    Serve(WitnessArgs),
}

/// `ringfence witness keys`.
#[derive(Args)]
pub(crate) struct WitnessKeysArgs {
    /// The folder to write witness.key and witness.vkey to.
    #[arg(long, default_value = "keys")]
    dir: PathBuf,
    /// The witness's name: a domain that you hold, and a path, as in witness.example/1.
    #[arg(long)]
    name: String,
    /// Sign with Ed25519, for logs and verifiers that do not know ML-DSA-44 yet.
    #[arg(long)]
    ed25519: bool,
}

/// `ringfence witness serve`.
#[derive(Args)]
pub(crate) struct WitnessArgs {
    /// The folder that remembers what was cosigned. To lose it, or to set it back, is to be no witness any more.
    #[arg(long)]
    dir: PathBuf,
    /// The private key, made by `ringfence witness keys`.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A log to know: its public key, or a file with it. May be given several times.
    #[arg(long = "log", value_name = "VKEY", required = true)]
    logs: Vec<String>,
    /// Where to listen; port 0 takes a free one. Answers are signed, so plain HTTP is safe; put TLS in front for privacy.
    #[arg(long, default_value = "127.0.0.1:7380")]
    listen: SocketAddr,
    /// Stop when standard input ends: for programs that start a witness and may die.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

/// `ringfence witness …`.
pub(crate) async fn run(command: WitnessCommand) -> Result<(), Failure> {
    match command {
        WitnessCommand::Keys(args) => {
            let algorithm = if args.ed25519 { Algorithm::Ed25519 } else { Algorithm::MlDsa44 };
            make_witness_keys(&args.dir, "witness", &args.name, algorithm)?;
            println!(
                "{} has witness.key (keep it secret) and witness.vkey (publish it).",
                args.dir.display()
            );
            Ok(())
        }
        WitnessCommand::Serve(args) => serve(args).await,
    }
}

/// Makes `FILE.key` and `FILE.vkey` of the witness `name`; never overwrites one.
pub(crate) fn make_witness_keys(
    dir: &Path,
    file: &str,
    name: &str,
    algorithm: Algorithm,
) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)?;
    let mut seed = [0; 32];
    OsRng.fill_bytes(&mut seed);
    let key = CosignerKey::from_seed(name, algorithm, seed).map_err(|e| Failure::setup(e.to_string()))?;
    write_secret(&dir.join(format!("{file}.key")), &key.skey())?;
    write_secret(&dir.join(format!("{file}.vkey")), &key.public().vkey())
}

/// A key, or what is in the file of that name.
fn read_keys(logs: &[String]) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for log in logs {
        let text = if Path::new(log).exists() {
            std::fs::read_to_string(log).map_err(|e| Failure::setup(format!("cannot read {log}: {e}")))?
        } else {
            log.clone()
        };
        keys.extend(text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned));
    }
    Ok(keys)
}

async fn serve(args: WitnessArgs) -> Result<(), Failure> {
    let skey = std::fs::read_to_string(&args.key)
        .map_err(|e| Failure::setup(format!("cannot read {}: {e}", args.key.display())))?;
    let logs = read_keys(&args.logs)?;
    // One that has just been told to stop may still hold the folder.
    let until = Instant::now() + Duration::from_secs(3);
    let witness = loop {
        match Witness::open(&args.dir, &skey, &logs) {
            Ok(witness) => break Arc::new(witness),
            Err(e) if Instant::now() >= until => return Err(Failure::setup(e.to_string())),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let listener = tokio::net::TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|e| Failure::setup(format!("cannot listen on {}: {e}", args.listen)))?;
    let address = listener.local_addr()?;
    let vkey = witness.vkey();
    println!("ringfence witness {} listens on http://{address}", vkey.split('+').next().unwrap_or_default());
    let app = Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{origin}/checkpoint", get(checkpoint))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(witness);
    let mut signals = Signals::new()?;
    let stdin = stdin_ended(args.until_stdin_ends);
    let over = async move {
        let stop = async { while let Asked::Reload = signals.next().await {} };
        tokio::select! {
            () = stop => {}
            () = stdin => {}
        }
    };
    tokio::select! {
        served = axum::serve(listener, app).into_future() => served.map_err(Failure::from),
        () = over => Ok(()),
    }
}

fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, answer.content_type)], answer.body).into_response()
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Bytes) -> Response {
    // It waits for the disk.
    let decided = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body, now_ms() / 1000)).await;
    let Ok((answer, event)) = decided else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    match event {
        Event::Cosigned { origin, size } => tracing::info!(%origin, size, "cosigned"),
        Event::Refused(why) => tracing::info!(%why, "refused"),
        Event::Contradiction { origin, problem } => {
            tracing::error!(%origin, %problem, "the log contradicts what it showed before; the note is in evidence/");
        }
    }
    respond(answer)
}

async fn checkpoint(State(witness): State<Arc<Witness>>, UrlPath(origin): UrlPath<String>) -> Response {
    let found = tokio::task::spawn_blocking(move || witness.checkpoint(&origin)).await;
    found.map_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response(), respond)
}
