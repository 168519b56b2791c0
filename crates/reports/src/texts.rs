//! The texts of statements, where an entry names the entry that has one: in a session a text is on record
//! once, and what an EXECUTE or a FETCH stands for is named beside it.

use std::collections::{BTreeSet, HashMap};

use ringfence_statement::column_refs;
use ringfence_statement::settings::Settings;
use ringfence_statement::shape::FUNCTION_CALL;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// The most texts of a session that are remembered: twice as many as a gateway names.
const REMEMBERED: usize = 8192;

/// The parts of an intent's record that are about texts. Records of before 2026-11-29 have `statement` only.
#[derive(Debug, Deserialize)]
pub(crate) struct Texts {
    pub(crate) statement: Option<String>,
    text: Option<TextOf>,
    #[serde(default)]
    stands_for: Vec<StandsFor>,
    #[serde(default)]
    not_understood: bool,
    #[serde(default)]
    reaches_more: bool,
    /// Digests of what the gateway asks as the same login.
    #[serde(default)]
    pub(crate) asks: Vec<String>,
    settings: Option<ReadUnder>,
}

#[derive(Debug, Deserialize)]
struct TextOf {
    digest: String,
}

#[derive(Debug, Deserialize)]
struct StandsFor {
    statement: Option<String>,
    #[serde(flatten)]
    of: TextOf,
    settings: Option<ReadUnder>,
}

#[derive(Debug, Deserialize)]
struct ReadUnder {
    standard_conforming_strings: String,
    client_encoding: String,
}

/// A text that an entry has or names.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// The entry has it, and the store read it under these settings.
    Here(&'a str, Settings),
    /// Another entry of the session has the text with this digest.
    There(&'a str),
}

impl Texts {
    /// The statement's own text and those of what it stands for, each with the digest by which later
    /// entries name it.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (Part<'_>, Option<&str>)> {
        let settings = |under: &Option<ReadUnder>| {
            under.as_ref().map_or_else(Settings::default, |under| {
                Settings::reported(&under.standard_conforming_strings, &under.client_encoding)
            })
        };
        let own = match (&self.statement, &self.text) {
            (Some(text), of) => {
                let digest = of.as_ref().map(|of| of.digest.as_str());
                Some((Part::Here(text, settings(&self.settings)), digest))
            }
            (None, Some(of)) => Some((Part::There(&of.digest), None)),
            (None, None) => None,
        };
        let meant = self.stands_for.iter().map(move |meant| match &meant.statement {
            // Under other settings no later entry names it.
            Some(text) => {
                let digest = meant.settings.is_none().then_some(meant.of.digest.as_str());
                (Part::Here(text.as_str(), settings(&meant.settings)), digest)
            }
            None => (Part::There(meant.of.digest.as_str()), None),
        });
        own.into_iter().chain(meant)
    }

    /// Whether the statement may reach anything, whatever its texts say.
    pub(crate) fn is_unknown(&self) -> bool {
        self.not_understood || self.reaches_more || self.statement.is_none() && self.text.is_none()
    }

    /// Whether its texts mean the same in every entry: read under the default settings, without names.
    pub(crate) fn is_plain(&self) -> bool {
        self.settings.is_none() && self.stands_for.is_empty()
    }

    /// Whether names in the texts are resolved, if there are any.
    pub(crate) fn has_meanings(&self) -> bool {
        !self.stands_for.is_empty()
    }

    /// Whether the gateway could not decode the statement's own text: the store's log has it in letters, and
    /// the record as far as bytes are ASCII.
    pub(crate) fn is_undecoded(&self) -> bool {
        // ASCII reads the same in all encodings.
        let is_foreign = self.statement.as_ref().is_none_or(|text| !text.is_ascii());
        is_foreign && self.settings.as_ref().is_some_and(|under| under.client_encoding == "other")
    }

    /// SHA-256 of the statement's own text, however it is told; of a function-call message, of what has the
    /// function's number only.
    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        match (&self.statement, &self.text) {
            (Some(text), _) if text.starts_with(FUNCTION_CALL) => {
                let numbered = text.split(',').next().unwrap_or_default();
                Some(Sha256::digest(numbered.as_bytes()).into())
            }
            (Some(text), _) => Some(Sha256::digest(text.as_bytes()).into()),
            (None, Some(of)) => hex::decode(&of.digest).ok()?.try_into().ok(),
            (None, None) => None,
        }
    }

    /// The columns that one of its texts reaches; what EXECUTE and FETCH go on with is left to what they
    /// stand for, where that is named.
    pub(crate) fn columns_of(&self, text: &str, settings: Settings) -> BTreeSet<String> {
        column_refs::columns(text, settings, !self.stands_for.is_empty())
    }
}

/// What is known of texts, by session and digest.
#[derive(Debug)]
pub(crate) struct Remembered<S, T> {
    sessions: HashMap<S, HashMap<String, (u64, T)>>,
    next: u64,
}

impl<S, T> Default for Remembered<S, T> {
    fn default() -> Self {
        Self { sessions: HashMap::new(), next: 0 }
    }
}

impl<S: std::hash::Hash + Eq + Clone, T: Clone> Remembered<S, T> {
    /// Remembers a text. The older half of a session's is forgotten when there are too many.
    pub(crate) fn insert(&mut self, session: S, digest: &str, what: T) {
        let texts = self.sessions.entry(session).or_default();
        self.next += 1;
        if texts.len() >= REMEMBERED {
            let mut places: Vec<u64> = texts.values().map(|(place, _)| *place).collect();
            places.sort_unstable();
            let middle = places[REMEMBERED / 2];
            texts.retain(|_, (place, _)| *place >= middle);
        }
        texts.insert(digest.to_owned(), (self.next, what));
    }

    /// What is known of a text.
    pub(crate) fn get(&self, session: &S, digest: &str) -> Option<T> {
        self.sessions.get(session)?.get(digest).map(|(_, what)| what.clone())
    }

    /// A session is over.
    pub(crate) fn forget(&mut self, session: &S) {
        self.sessions.remove(session);
    }

    /// All sessions are over.
    pub(crate) fn clear(&mut self) {
        self.sessions.clear();
    }

    /// Everything, to be kept.
    pub(crate) fn into_all(self) -> impl Iterator<Item = (S, String, T)> {
        self.sessions.into_iter().flat_map(|(session, texts)| {
            let mut texts: Vec<_> = texts.into_iter().collect();
            texts.sort_by_key(|(_, (place, _))| *place);
            texts.into_iter().map(move |(digest, (_, what))| (session.clone(), digest, what))
        })
    }
}
