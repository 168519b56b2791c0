//! All logs of an installation, checked together against its manifest: none is missing, none is silent, none is unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::approvals::Approvals;
use crate::checkpoint::{CHECKPOINT, open, origin_of};
use crate::manifest::{LogKey, Manifest, Mention, rfc3339};
use crate::orders::Orders;
use crate::quorum::Quorum;
use crate::record::{Kind, Leaf};
use crate::tally::HEARTBEAT_MS;
use crate::verify::{Report, Witness, verify_with};

/// How long the newest entry of a log that lives may be ago, in seconds.
const SILENT: u64 = 3 * HEARTBEAT_MS / 1000;

/// Judges what a log's records say of approvals and manifests while the log is read.
#[derive(Default)]
pub struct Judge {
    /// Follows requests, approvals and grants.
    pub approvals: Approvals,
    /// Follows what regulators order.
    pub orders: Orders,
    /// The manifests that gateways started with.
    pub mentions: BTreeSet<Mention>,
    /// Entries whose private record was not there.
    pub without_record: u64,
    is_stopped: bool,
}

impl Witness for Judge {
    fn entry(&mut self, _: u64, leaf: &Leaf, record: Option<&[u8]>) -> Result<(), String> {
        self.is_stopped =
            leaf.kind == Kind::GatewayStopped || (self.is_stopped && leaf.kind != Kind::GatewayStarted);
        self.orders.entry(leaf, record)?;
        let Some(record) = record else {
            self.without_record += 1;
            return Ok(());
        };
        match leaf.kind {
            Kind::GatewayStarted => {
                #[derive(serde::Deserialize)]
                struct Started {
                    manifest: Option<Mention>,
                }
                let started: Started = serde_json::from_slice(record)
                    .map_err(|_| "its record lacks what this kind of entry must have".to_owned())?;
                self.mentions.extend(started.manifest);
                Ok(())
            }
            Kind::PolicyChanged => self.approvals.policy(record),
            Kind::Requested | Kind::ErasureRequested | Kind::FlowRequested => {
                self.approvals.requested(record)
            }
            Kind::Approved | Kind::ErasureApproved | Kind::FlowApproved => self.approvals.approved(record),
            Kind::Granted => self.approvals.granted(record),
            Kind::Flow => self.approvals.flowed(record),
            Kind::ErasureCertificate => self.approvals.erased(record),
            _ => Ok(()),
        }
    }
}

/// One log among others.
#[derive(Debug, Serialize)]
pub struct LogReport {
    /// The log.
    pub origin: String,
    /// Where it was found.
    pub dir: PathBuf,
    /// What the verifier found in it.
    pub report: Report,
}

/// What was found in all.
#[derive(Debug, Default, Serialize)]
pub struct Installation {
    /// Each log that was shown.
    pub logs: Vec<LogReport>,
    /// What is wrong with the logs together; what is wrong within one is in its report.
    pub problems: Vec<String>,
}

impl Installation {
    /// Whether everything holds.
    pub fn holds(&self) -> bool {
        self.problems.is_empty() && self.logs.iter().all(|l| l.report.problems.is_empty())
    }
}

/// Verifies the logs in `dirs`. `now` is in seconds since 1970: a log that lives must not have been silent until then.
pub fn verify(
    manifest: &Manifest,
    digest: &str,
    dirs: &[PathBuf],
    quorum: Option<&Quorum>,
    now: u64,
) -> Installation {
    let mut found = Installation::default();
    let by_log = manifest.by_log();
    let mut shown = BTreeMap::new();
    for dir in dirs {
        match std::fs::read(dir.join(CHECKPOINT)).map_err(|e| e.to_string()).and_then(|note| origin_of(&note))
        {
            Ok(origin) => {
                if let Some(other) = shown.insert(origin.clone(), dir.clone()) {
                    let problem =
                        format!("{origin}: is there twice, in {} and {}", other.display(), dir.display());
                    found.problems.push(problem);
                }
            }
            Err(problem) => found.problems.push(format!("{}: {problem}", dir.join(CHECKPOINT).display())),
        }
    }
    for origin in by_log.keys().filter(|origin| !shown.contains_key(**origin)) {
        found.problems.push(format!("{origin}: is in the manifest and not here"));
    }
    for (origin, dir) in shown {
        let Some(keys) = by_log.get(origin.as_str()) else {
            found.problems.push(format!("{origin}: is not in the manifest"));
            continue;
        };
        let vkeys: Vec<&str> = keys.iter().map(|k| k.vkey.as_str()).collect();
        let mut judge = Judge::default();
        let report = verify_with(&dir, &vkeys.join("\n"), quorum, &mut judge);
        let newest = report.newest / 1000;
        if !signed_in_time(&dir, &vkeys.join("\n"), keys, newest) {
            let problem = "no key whose time it was has signed its checkpoint";
            found.problems.push(format!("{origin}: {problem} (newest entry {})", rfc3339(newest)));
        }
        let lives_until = if keys.iter().any(|k| k.until.is_none()) {
            None
        } else {
            keys.iter().filter_map(|k| k.until).max()
        };
        let expected_until = lives_until.unwrap_or(now).min(now);
        if report.entries > 0 && !judge.is_stopped && newest + SILENT < expected_until {
            found
                .problems
                .push(format!("{origin}: is silent since {} and did not stop in order", rfc3339(newest)));
        }
        if lives_until.is_some_and(|until| newest > until) {
            found.problems.push(format!("{origin}: has entries after its last key ended"));
        }
        for mention in &judge.mentions {
            if mention.version > manifest.version {
                let problem = "its gateway started with a newer manifest than the one that is shown";
                found.problems.push(format!("{origin}: {problem} (version {})", mention.version));
            } else if mention.version == manifest.version && mention.digest != digest {
                found
                    .problems
                    .push(format!("{origin}: knows another manifest of version {}", mention.version));
            }
        }
        found.logs.push(LogReport { origin, dir, report });
    }
    found
}

/// Whether a key signed the newest checkpoint in whose time its newest entry lies. A key that was retired, perhaps because it
/// was stolen, vouches only for what is older.
fn signed_in_time(dir: &Path, vkeys: &str, keys: &[&LogKey], newest: u64) -> bool {
    let Ok(note) = std::fs::read(dir.join(CHECKPOINT)) else { return false };
    let Ok(opened) = open(&note, vkeys) else { return false };
    keys.iter().filter(|key| key.until.is_none_or(|until| newest <= until)).any(|key| {
        let id = key.vkey.split('+').nth(1).and_then(|id| u32::from_str_radix(id, 16).ok());
        opened.by_log.iter().any(|line| Some(line.id()) == id)
    })
}

/// The folders below `root` that hold a log.
pub fn find_logs(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if root.join(CHECKPOINT).exists() {
        found.push(root.to_owned());
    } else if let Ok(entries) = std::fs::read_dir(root) {
        found.extend(entries.flatten().map(|e| e.path()).filter(|p| p.join(CHECKPOINT).exists()));
    }
    found.sort();
    found
}
