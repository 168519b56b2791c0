//! Counts entries while a log is read, and compares them with what the gateway's heartbeats say that it promised to write: an
//! entry that was lost, or that somebody kept from being written, shows. So does a gateway that is silent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::{Kind, Leaf};

/// How often a gateway says that it is alive, in milliseconds, unless its heartbeats say otherwise.
pub const HEARTBEAT_MS: u64 = 30_000;
/// How many heartbeats may be missing before that is a gap.
const MISSED: u64 = 3;

/// The private record of a heartbeat.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeartbeatRecord {
    /// When the next one is due, in milliseconds.
    pub every_ms: u64,
    /// How many sessions there are.
    pub sessions: u64,
    /// What was promised to be written since the gateway began to serve, by kind, this one not included.
    pub promised: BTreeMap<Kind, u64>,
}

/// A time without an entry.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// From when, in milliseconds since 1970.
    pub from: u64,
    /// Until when.
    pub until: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: BTreeMap<Kind, u64>,
    is_running: bool,
    every: Option<u64>,
    last: u64,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) crashes: u64,
}

impl Tally {
    pub(crate) fn entry(&mut self, leaf: &Leaf, record: Option<&[u8]>) -> Result<(), String> {
        let allowed = self.every.unwrap_or(HEARTBEAT_MS) * MISSED;
        if self.is_running && self.every.is_some() && leaf.time.saturating_sub(self.last) > allowed {
            self.gaps.push(Gap { from: self.last, until: leaf.time });
        }
        self.last = leaf.time;
        let mut result = Ok(());
        match leaf.kind {
            Kind::GatewayStarted => {
                self.crashes += u64::from(self.is_running);
                (self.is_running, self.every) = (true, None);
                self.counts.clear();
            }
            Kind::GatewayStopped => self.is_running = false,
            Kind::Heartbeat => result = self.compare(leaf, record),
            _ => {}
        }
        *self.counts.entry(leaf.kind).or_default() += 1;
        result
    }

    fn compare(&mut self, leaf: &Leaf, record: Option<&[u8]>) -> Result<(), String> {
        self.every.get_or_insert(HEARTBEAT_MS);
        if let Some(record) = record {
            let record: HeartbeatRecord = serde_json::from_slice(record)
                .map_err(|_| "its record lacks what this kind of entry must have".to_owned())?;
            self.every = Some(record.every_ms.clamp(1, 24 * 3600 * 1000));
            for (kind, promised) in record.promised {
                let has = self.counts.get(&kind).copied().unwrap_or(0);
                if has != promised {
                    return Err(differs(has, promised, &format!(" of kind {}", kind.word())));
                }
            }
        }
        let has: u64 = self.counts.values().sum();
        if has == leaf.counters.statements { Ok(()) } else { Err(differs(has, leaf.counters.statements, "")) }
    }
}

fn differs(has: u64, promised: u64, kind: &str) -> String {
    if has < promised {
        format!(
            "{} entries{kind} that the gateway promised to write before this one are missing",
            promised - has
        )
    } else {
        format!("there are {} entries{kind} more than the gateway wrote", has - promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Counters;

    fn leaf(kind: Kind, time: u64, statements: u64) -> Leaf {
        let counters = Counters { statements, ..Counters::default() };
        Leaf {
            v: 1,
            kind,
            time,
            jurisdiction: "-".into(),
            counters,
            from: None,
            covered: false,
            commitment: String::new(),
        }
    }

    #[test]
    fn a_missing_entry_a_silent_gateway_and_a_crash_show() {
        let beat = |promised: u64| {
            let counts = BTreeMap::from([(Kind::GatewayStarted, 1), (Kind::Intent, promised)]);
            serde_json::to_vec(&HeartbeatRecord { every_ms: 1000, sessions: 1, promised: counts }).unwrap()
        };
        let mut tally = Tally::default();
        tally.entry(&leaf(Kind::GatewayStarted, 0, 0), None).unwrap();
        tally.entry(&leaf(Kind::Intent, 10, 0), None).unwrap();
        tally.entry(&leaf(Kind::Heartbeat, 20, 2), Some(&beat(1))).unwrap();
        let error = tally.entry(&leaf(Kind::Heartbeat, 30, 3), Some(&beat(3))).unwrap_err();
        assert!(error.starts_with("2 entries of kind intent"), "{error}");
        let error = tally.entry(&leaf(Kind::Heartbeat, 40, 9), None).unwrap_err();
        assert!(error.starts_with("5 entries that"), "{error}");
        assert_eq!((tally.gaps.len(), tally.crashes), (0, 0));
        tally.entry(&leaf(Kind::Intent, 5000, 0), None).unwrap();
        assert_eq!(tally.gaps, [Gap { from: 40, until: 5000 }]);
        tally.entry(&leaf(Kind::GatewayStarted, 90_000, 0), None).unwrap();
        assert_eq!(tally.crashes, 1);
    }
}
