//! The demo's two witnesses, each a process of its own. In earnest they are run by people who do not trust each other.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringfence_ledger::Ledger;
use ringfence_ledger::witnessing::State;
use ringfence_verifier::cosignature::Algorithm;

use crate::command::{Failure, make_witness_keys};

/// Name, what it is called in the policy, and how it signs: both algorithms are shown.
const WITNESSES: [(&str, &str, Algorithm); 2] = [
    ("witness-1", "ringfence-demo.example/witness-1", Algorithm::MlDsa44),
    ("witness-2", "ringfence-demo.example/witness-2", Algorithm::Ed25519),
];

/// How long the first confirmation may take before the demo goes on without.
const FIRST: Duration = Duration::from_secs(5);

/// A witness that runs until this is dropped.
pub(super) struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the witnesses and writes `witnesses.policy`, which says where they are.
pub(super) fn start(dir: &Path) -> Result<Vec<Running>, Failure> {
    let keys = dir.join("keys");
    let mut running = Vec::new();
    let log = std::fs::read_to_string(keys.join("ledger.vkey"))?;
    let log = log.lines().next().unwrap_or_default();
    let mut policy = format!(
        "# Who confirms that the log only grows, and how many of them it takes (C2SP tlog-policy).\n\
         # `ringfence demo` writes this file at each start.\nlog {log}\n"
    );
    for (name, full, algorithm) in WITNESSES {
        if !keys.join(format!("{name}.key")).exists() {
            make_witness_keys(&keys, name, full, algorithm)?;
        }
        let (url, witness) = spawn(dir, name)?;
        running.push(witness);
        let vkey = std::fs::read_to_string(keys.join(format!("{name}.vkey")))?;
        let _ = writeln!(policy, "witness {name} {} {url}", vkey.trim());
    }
    let names: Vec<&str> = WITNESSES.iter().map(|(name, ..)| *name).collect();
    let _ = writeln!(policy, "group demo any {}\nquorum demo", names.join(" "));
    std::fs::write(dir.join("witnesses.policy"), policy)?;
    Ok(running)
}

fn spawn(dir: &Path, name: &str) -> Result<(String, Running), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["witness", "serve", "--until-stdin-ends", "--listen", "127.0.0.1:0", "--dir"])
        .arg(dir.join(name))
        .arg("--key")
        .arg(dir.join(format!("keys/{name}.key")))
        .arg("--log")
        .arg(dir.join("keys/ledger.vkey"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take();
    let running = Running { child };
    let line = stdout.and_then(|out| BufReader::new(out).lines().next()?.ok()).unwrap_or_default();
    let url = line.split_once("listens on ").map(|(_, url)| url.trim().to_owned());
    let url = url.ok_or_else(|| Failure::setup(format!("the demo's {name} does not start")))?;
    Ok((url, running))
}

/// Waits until the witnesses have confirmed the log for the first time: until then nothing crosses the border.
pub(super) async fn wait_confirmed(ledger: &Ledger) {
    let until = Instant::now() + FIRST;
    while !matches!(ledger.witnessed(), State::Confirmed(_)) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
