//! Makes a bundle's answer again, from proven entries alone.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::proofs::Entry;
use crate::approvals::Approvals;
use crate::question::{Question, Reach, Who};
use crate::record::Kind;

/// Makes the answer again, from proven entries alone.
pub(super) struct Answering<'a> {
    question: &'a Question,
    sessions: BTreeMap<String, Who>,
    purposes: BTreeMap<String, String>,
    granted: BTreeSet<String>,
    pub(super) verified: u64,
    /// Digests of the rules that are shown in full.
    pub(super) rules: BTreeSet<String>,
    running: BTreeMap<(String, u64), (Who, Reach)>,
    /// Statements of this log that have ended, at least with a part of their rows.
    ended: BTreeMap<(String, u64), Who>,
    /// Digests of the texts of this log's statements, by session and number.
    texts: BTreeMap<(String, u64), BTreeSet<String>>,
    /// Statements whose text is in an entry that is not shown.
    pub(super) without_text: u64,
    /// Statements without an end.
    pub(super) without_end: u64,
    people: BTreeMap<Who, Reach>,
}

impl<'a> Answering<'a> {
    pub(super) fn new(question: &'a Question) -> Self {
        Self {
            question,
            sessions: BTreeMap::new(),
            purposes: BTreeMap::new(),
            granted: BTreeSet::new(),
            verified: 0,
            rules: BTreeSet::new(),
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            texts: BTreeMap::new(),
            without_text: 0,
            without_end: 0,
            people: BTreeMap::new(),
        }
    }

    pub(super) fn conclude(self) -> BTreeMap<Who, Reach> {
        self.people
    }

    pub(super) fn end_log(&mut self) {
        for (who, reach) in std::mem::take(&mut self.running).into_values() {
            self.without_end += 1;
            self.add(who, &reach);
        }
        self.ended.clear();
        self.texts.clear();
        self.sessions.clear();
    }

    fn add(&mut self, who: Who, more: &Reach) {
        let reach = self.people.entry(who).or_insert_with(|| Reach { first: u64::MAX, ..Reach::default() });
        reach.statements += more.statements;
        reach.rows += more.rows;
        reach.bytes += more.bytes;
        reach.charge(&more.charged);
        reach.first = reach.first.min(more.first);
        reach.last = reach.last.max(more.last);
    }

    /// The grants of a log. One gateway's grants are in force at all of them.
    pub(super) fn grants(&mut self, entries: &BTreeMap<u64, Entry>) -> Result<(), String> {
        let mut approvals = Approvals::default();
        for (index, entry) in entries {
            let text = |key: &str| entry.record[key].as_str().unwrap_or_default();
            let followed = match entry.leaf.kind {
                Kind::PolicyChanged => approvals.policy(&entry.bytes),
                Kind::Requested => approvals.requested(&entry.bytes),
                Kind::Approved => approvals.approved(&entry.bytes),
                Kind::Granted => approvals.granted(&entry.bytes),
                _ => Ok(()),
            };
            followed.map_err(|problem| format!("entry {index}: {problem}"))?;
            if entry.leaf.kind == Kind::PolicyChanged && entry.record["rules"].is_string() {
                self.rules.insert(text("digest").to_owned());
            }
            if entry.leaf.kind == Kind::Granted {
                self.granted.insert(text("id").to_owned());
            }
            if entry.leaf.kind == Kind::Requested {
                let request: serde_json::Value = serde_json::from_str(text("request")).unwrap_or_default();
                let word = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
                let known = self.purposes.insert(word("id"), word("purpose"));
                if known.is_some_and(|known| known != word("purpose")) {
                    return Err(format!(
                        "entry {index}: the request {} is in another log in other words",
                        word("id")
                    ));
                }
            }
        }
        self.verified += approvals.verified;
        Ok(())
    }

    /// The sessions and statements of a log.
    pub(super) fn statements(&mut self, entries: &BTreeMap<u64, Entry>) -> Result<(), String> {
        for (index, entry) in entries.iter().filter(|(_, entry)| entry.leaf.kind == Kind::Intent) {
            self.texts_of(entry).map_err(|problem| format!("entry {index}: {problem}"))?;
        }
        for (index, entry) in entries {
            self.entry(entry).map_err(|problem| format!("entry {index}: {problem}"))?;
        }
        Ok(())
    }

    /// Notes the texts that an intent has. A text must be what its digest says.
    fn texts_of(&mut self, entry: &Entry) -> Result<(), String> {
        let record = &entry.record;
        let session = record["session"].as_str().unwrap_or_default().to_owned();
        let n = record["n"].as_u64().ok_or("has no number")?;
        let meant = record["stands_for"].as_array().map(Vec::as_slice).unwrap_or_default();
        let told = std::iter::once((&record["statement"], &record["text"]["digest"]))
            .chain(meant.iter().map(|meant| (&meant["statement"], &meant["digest"])));
        let mut digests = BTreeSet::new();
        for (text, digest) in told {
            let (Some(text), Some(digest)) = (text.as_str(), digest.as_str()) else { continue };
            if hex::encode(Sha256::digest(text.as_bytes())) != digest {
                return Err("has a text that is not what its digest says".to_owned());
            }
            digests.insert(digest.to_owned());
        }
        self.texts.insert((session, n), digests);
        Ok(())
    }

    /// Whether all texts that an intent names in other entries are shown.
    fn has_texts(&self, entry: &Entry) -> bool {
        let record = &entry.record;
        let session = record["session"].as_str().unwrap_or_default();
        let meant = record["stands_for"].as_array().map(Vec::as_slice).unwrap_or_default();
        let named = std::iter::once((&record["statement"], &record["text"]))
            .chain(meant.iter().map(|meant| (&meant["statement"], meant)));
        named.filter(|(text, of)| text.is_null() && of.is_object()).all(|(_, of)| {
            let n = of["entry"].as_u64().unwrap_or_default();
            let digest = of["digest"].as_str().unwrap_or_default();
            self.texts.get(&(session.to_owned(), n)).is_some_and(|has| has.contains(digest))
        })
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), String> {
        match entry.leaf.kind {
            _ if entry.for_text => match entry.leaf.kind {
                Kind::Intent => Ok(()),
                _ => Err("is shown for its text, and has none".to_owned()),
            },
            Kind::PolicyChanged | Kind::Requested | Kind::Approved | Kind::Granted => Ok(()),
            Kind::SessionOpened => self.session(entry),
            Kind::Intent => self.intent(entry),
            Kind::Outcome => {
                let session = entry.record["session"].as_str().unwrap_or_default().to_owned();
                let key = (session, entry.record["n"].as_u64().unwrap_or_default());
                if self.question.since.is_some_and(|since| entry.leaf.time < since) {
                    return Err("ended before the time that was asked about".to_owned());
                }
                let (rows, bytes) = (entry.leaf.counters.rows, entry.leaf.counters.bytes);
                let charged = entry.record["charged"].as_object().into_iter().flatten();
                let charged: BTreeMap<String, u64> =
                    charged.map(|(grant, rows)| (grant.clone(), rows.as_u64().unwrap_or_default())).collect();
                if let Some((who, reach)) = self.running.remove(&key) {
                    self.add(who.clone(), &Reach { rows, bytes, charged, ..reach });
                    self.ended.insert(key, who);
                    return Ok(());
                }
                // A portal that is fetched in pieces has an end for each.
                let who = self.ended.get(&key).ok_or("is the end of a statement that is not shown")?.clone();
                self.add(who, &Reach { rows, bytes, charged, first: u64::MAX, ..Reach::default() });
                Ok(())
            }
            _ => Err("is of a kind that answers no question".to_owned()),
        }
    }

    fn session(&mut self, entry: &Entry) -> Result<(), String> {
        let text = |key: &str| entry.record[key].as_str().unwrap_or_default().to_owned();
        let grants = entry.record["grants"].as_array().map(Vec::as_slice).unwrap_or_default();
        let grants: Vec<String> = grants.iter().filter_map(|g| g.as_str().map(str::to_owned)).collect();
        if let Some(grant) = grants.iter().find(|g| !self.granted.contains(*g)) {
            return Err(format!("depends on the grant {grant}, which is not shown"));
        }
        let who = Who {
            person: text("principal"),
            location: text("location"),
            employer: text("employer"),
            covered: text("covered"),
            store: text("store"),
            jurisdiction: entry.leaf.jurisdiction.clone(),
            purposes: grants.iter().filter_map(|g| self.purposes.get(g).cloned()).collect(),
            grants,
        };
        // What is public of an access must be what its record says.
        let (from, covered) = (entry.leaf.from.as_deref(), entry.leaf.covered);
        if from.is_some_and(|from| from != who.location)
            || covered != (from.is_some() && !who.covered.is_empty())
        {
            return Err("its leaf says another origin than its record".to_owned());
        }
        self.answers(&who)?;
        self.sessions.insert(text("session"), who);
        Ok(())
    }

    fn answers(&self, who: &Who) -> Result<(), String> {
        let asked = self.question;
        let same = |want: &Option<String>, is: &str| want.as_ref().is_none_or(|want| want == is);
        let purpose = asked.purpose.as_ref().map(|p| p.to_lowercase());
        let holds = same(&asked.jurisdiction, &who.jurisdiction)
            && same(&asked.from, &who.location)
            && same(&asked.employer, &who.employer)
            && same(&asked.person, &who.person)
            && same(&asked.store, &who.store)
            && (!asked.covered || !who.covered.is_empty())
            && purpose.is_none_or(|p| who.purposes.iter().any(|has| has.to_lowercase().contains(&p)));
        if holds { Ok(()) } else { Err(format!("{} does not answer the question", who.person)) }
    }

    fn intent(&mut self, entry: &Entry) -> Result<(), String> {
        let session = entry.record["session"].as_str().unwrap_or_default().to_owned();
        let n = entry.record["n"].as_u64().ok_or("has no number")?;
        let who = self.sessions.get(&session).ok_or("is of a session that is not shown")?;
        let time = entry.leaf.time;
        if self.question.until.is_some_and(|until| time >= until) {
            return Err("began after the time that was asked about".to_owned());
        }
        self.without_text += u64::from(!self.has_texts(entry));
        let reach = Reach { statements: 1, first: time, last: time, ..Reach::default() };
        let key = (session, n);
        if self.ended.contains_key(&key) || self.running.insert(key, (who.clone(), reach)).is_some() {
            return Err("is the beginning of a statement that has begun already".to_owned());
        }
        Ok(())
    }
}
