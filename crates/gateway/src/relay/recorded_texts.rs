//! Which texts of a session are on record: a text is recorded once in a session and segment of the log,
//! and later statements name its entry. So an execution costs the log a few bytes, however long its text
//! is. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::records::TextOf;
use crate::relay::statement::Statement;

/// The most texts that are remembered.
const REMEMBERED: usize = 4096;
/// A text of a Query that is no longer than this is recorded each time: naming its entry costs as much.
const SHORT: usize = 128;

/// See the module's text.
#[derive(Debug, Default)]
pub struct RecordedTexts {
    /// The log's segment that they are in. Entries that are under way when a new one begins may name one
    /// of the segment before.
    segment: u64,
    /// The number of the statement whose entry has a text, by the text's digest.
    entries: HashMap<[u8; 32], u64>,
    /// Digests of texts that entries about refusals have.
    refused: HashSet<[u8; 32]>,
}

/// How an entry tells a text.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// It has the text.
    Here(TextOf),
    /// It names the entry that has the text.
    There(TextOf),
}

impl RecordedTexts {
    /// How statement `n` tells a text. `segment` is the log's segment now.
    pub fn tell(&mut self, statement: &Statement, n: u64, segment: u64) -> Told {
        self.in_segment(segment);
        let (digest, hex) = statement.digest();
        let of = |entry| TextOf { entry, digest: Arc::clone(hex) };
        if let Some(&entry) = self.entries.get(digest) {
            return Told::There(of(entry));
        }
        self.entries.insert(*digest, n);
        Told::Here(of(n))
    }

    /// Forgets what is in an older segment, and all if it is much.
    fn in_segment(&mut self, segment: u64) {
        if self.segment != segment || self.entries.len() + self.refused.len() >= REMEMBERED {
            self.entries.clear();
            self.refused.clear();
            self.segment = segment;
        }
    }

    /// Whether an entry about a refusal names a text only, as one before it has the text.
    pub fn tell_refused(&mut self, statement: &Statement, segment: u64) -> bool {
        if Self::is_short(statement) {
            return false;
        }
        self.in_segment(segment);
        let digest = statement.digest().0;
        self.entries.contains_key(digest) || !self.refused.insert(*digest)
    }

    /// How an entry names a text that it has and that no later one names.
    pub fn here(statement: &Statement, n: u64) -> TextOf {
        TextOf { entry: n, digest: Arc::clone(statement.digest().1) }
    }

    /// Whether a text of a Query is recorded as it is.
    pub fn is_short(statement: &Statement) -> bool {
        statement.text.len() <= SHORT
    }
}

#[cfg(test)]
mod tests {
    use ringfence_statement::analysis::Analysis;
    use ringfence_statement::settings::Settings;

    use super::*;

    #[test]
    fn a_text_is_told_once_in_a_segment() {
        let mut texts = RecordedTexts::default();
        let statement = |text: &str| {
            Statement::of(text, Arc::new(Analysis::of(text, Settings::default())), Settings::default())
        };
        let (one, two) = (statement("select 1"), statement("select 2"));
        assert!(matches!(texts.tell(&one, 1, 0), Told::Here(of) if of.entry == 1));
        assert!(matches!(texts.tell(&one, 2, 0), Told::There(of) if of.entry == 1));
        assert!(matches!(texts.tell(&two, 3, 0), Told::Here(_)));
        assert!(matches!(texts.tell(&one, 4, 7), Told::Here(of) if of.entry == 4));
        let long = statement(&format!("select '{}'", "x".repeat(SHORT)));
        let told = [7, 7, 8].map(|segment| texts.tell_refused(&long, segment));
        assert_eq!(told, [false, true, false]);
    }
}
