//! Who reads private records of the log at the console is on record itself: readers are watched as those are whom they read about.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use ringfence_gateway::refusal::Refusal;
use ringfence_ledger::{Entry, Kind};
use serde_json::{Value, json};

use crate::Desk;
use crate::log::Line;
use crate::member::Member;
use crate::pages::Told;

/// Puts on record who reads which private records, before they are shown: once in ten minutes for each.
pub(crate) async fn on_record(desk: &Desk, person: &Member, found: &[Line]) -> Result<(), Told> {
    let who = &person.principal.name;
    let mut by_jurisdiction: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    // Who reads that somebody has read is not told again: it would never end.
    let is_told = |line: &&Line| line.record.is_some() && line.leaf.kind != Kind::RecordsRead;
    for line in found.iter().filter(is_told) {
        by_jurisdiction.entry(&line.leaf.jurisdiction).or_default().push(line.index);
    }
    for (jurisdiction, read) in by_jurisdiction {
        let new = desk.readers.new_to(who, read, Instant::now());
        if new.is_empty() {
            continue;
        }
        record(desk, jurisdiction, &json!({ "by": who, "entries": ranges(&new) })).await?;
        // Only now: whoever asks meanwhile is told a second time, and never not at all.
        desk.readers.told(who, new, Instant::now());
    }
    Ok(())
}

/// Puts a reading on record; what cannot be put there is not shown.
pub(crate) async fn record(desk: &Desk, jurisdiction: &str, record: &Value) -> Result<(), Told> {
    let entry = Entry::new(Kind::RecordsRead, jurisdiction, record);
    let unread = |refusal: Refusal| Told::new(StatusCode::SERVICE_UNAVAILABLE, refusal.message);
    desk.gateway.on_record(entry).await.map_err(unread)
}

/// How long a reading of an entry is not put on record again.
const READ_AGAIN: Duration = Duration::from_secs(600);

/// Who has read what within the last ten minutes, on record.
#[derive(Default)]
pub struct Readers(Mutex<HashMap<String, HashMap<u64, Instant>>>);

impl Readers {
    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<String, HashMap<u64, Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of the entries that this person has not read lately, in order.
    fn new_to(&self, who: &str, read: Vec<u64>, now: Instant) -> BTreeSet<u64> {
        let all = self.all();
        let seen = all.get(who);
        let is_new = |entry: &u64| {
            seen.and_then(|seen| seen.get(entry)).is_none_or(|at| now.duration_since(*at) >= READ_AGAIN)
        };
        read.into_iter().filter(is_new).collect()
    }

    /// That they have read them is on record.
    fn told(&self, who: &str, read: BTreeSet<u64>, now: Instant) {
        let mut all = self.all();
        all.retain(|_, seen| {
            seen.retain(|_, at| now.duration_since(*at) < READ_AGAIN);
            !seen.is_empty()
        });
        all.entry(who.to_owned()).or_default().extend(read.into_iter().map(|entry| (entry, now)));
    }
}

/// Numbers as people write them: `3, 7-9`.
fn ranges(numbers: &BTreeSet<u64>) -> String {
    let mut found: Vec<(u64, u64)> = Vec::new();
    for &n in numbers {
        match found.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => found.push((n, n)),
        }
    }
    let told = |(first, last): &(u64, u64)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    found.iter().map(told).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_told_once_in_ten_minutes_for_each_entry_and_reader() {
        let readers = Readers::default();
        let now = Instant::now();
        let told = |who: &str, read: &[u64], at| {
            let new = readers.new_to(who, read.to_vec(), at);
            readers.told(who, new.clone(), at);
            ranges(&new)
        };
        assert_eq!(told("ann", &[9, 8, 7, 3], now), "3, 7-9");
        assert_eq!(told("ann", &[9, 10], now), "10");
        assert_eq!(told("bob", &[9], now), "9");
        assert_eq!(told("ann", &[9], now + READ_AGAIN), "9");
        assert_eq!(told("ann", &[], now), "");
        // Not on record yet is not read yet.
        assert_eq!(ranges(&readers.new_to("cleo", vec![1], now)), "1");
        assert_eq!(ranges(&readers.new_to("cleo", vec![1], now)), "1");
    }
}
