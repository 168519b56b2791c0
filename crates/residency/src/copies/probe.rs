//! Values of people who belong to a jurisdiction, to look for as bytes. They are protected data themselves: they stay in memory, and
//! are in no message.

use std::collections::BTreeSet;
use std::io::Read;

use aho_corasick::{AhoCorasick, MatchKind};
use ringfence_face::sql::ident;
use ringfence_policy::{Catalogue, Kind, Table};

use crate::database::{Database, Error};
use crate::scope::Scope;

/// A shorter value would be found by chance.
pub(crate) const SHORTEST: usize = 8;
/// A shorter text may be somebody else's, too.
const SENTENCE: usize = 40;
/// A longer one may lie compressed in a database's files.
pub(crate) const LONGEST: usize = 200;
/// Bytes looked at in one step.
const STEP: usize = 1 << 20;

/// Whom to look for.
pub struct Probes {
    values: Vec<String>,
    automaton: AhoCorasick,
    /// Whose each pattern is: a value looks different in different places.
    of: Vec<usize>,
    /// Bytes of the longest pattern, less one.
    keep: usize,
}

/// How a value may stand somewhere: as text in UTF-8, as programs of Windows write it (UTF-16 in both orders), and, where it is a UUID, as
/// the 16 bytes that a database keeps.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let utf16 = || value.encode_utf16();
    let mut forms = vec![
        value.as_bytes().to_vec(),
        utf16().flat_map(u16::to_le_bytes).collect(),
        utf16().flat_map(u16::to_be_bytes).collect(),
    ];
    let is_uuid = value.len() == 36 && [8, 13, 18, 23].iter().all(|n| value.as_bytes()[*n] == b'-');
    if is_uuid && let Ok(bytes) = hex::decode(value.replace('-', "")) {
        forms.push(bytes);
    }
    forms
}

/// Columns by whose values a person is told from others, and how long a value has to be for that, the best first. What people write is
/// often what others write, too, unless it is long; a name is taken only where the people themselves are, and nothing else is there.
fn telling(table: &Table, are_people: bool) -> Vec<(&String, usize)> {
    let rank = |kind| match kind {
        Kind::Email => Some((0, SHORTEST)),
        Kind::Identifier => Some((1, SHORTEST)),
        Kind::Phone => Some((2, SHORTEST)),
        Kind::Text => Some((3, SENTENCE)),
        Kind::Name if are_people => Some((4, SHORTEST)),
        Kind::Name | Kind::Date | Kind::Number => None,
    };
    let ranked =
        table.columns.iter().filter_map(|(name, column)| Some((rank(column.protected()?.kind)?, name)));
    let mut ranked: Vec<((u32, usize), &String)> = ranked.collect();
    ranked.sort();
    ranked.into_iter().map(|((_, shortest), name)| (name, shortest)).collect()
}

/// All columns that may tell a person, for one who is looked for alone.
pub(crate) fn telling_columns(table: &Table) -> Vec<&String> {
    telling(table, true).into_iter().map(|(column, _)| column).collect()
}

/// Which of them were found.
#[derive(Debug, Default)]
pub struct Found(BTreeSet<usize>);

impl Found {
    /// How many.
    pub fn people(&self) -> u64 {
        self.0.len() as u64
    }

    /// Adds those of another look.
    pub fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl Probes {
    /// Looks for these values.
    pub fn new(values: Vec<String>) -> Result<Self, Error> {
        let (mut patterns, mut of) = (Vec::new(), Vec::new());
        for (n, value) in values.iter().enumerate() {
            let forms = forms(value);
            of.extend(std::iter::repeat_n(n, forms.len()));
            patterns.extend(forms);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&patterns)
            .map_err(|e| Error::Failed(format!("the values cannot be looked for: {e}")))?;
        let keep = patterns.iter().map(Vec::len).max().unwrap_or(1) - 1;
        Ok(Self { values, automaton, of, keep })
    }

    /// Takes values of some people of the jurisdiction, chosen by chance: those by which they are told from others.
    /// `beside` is a store that has other people's rows, too, and theirs still: what others have there as well is left out, and long
    /// texts are taken then.
    pub async fn sample(
        database: &Database,
        catalogue: &Catalogue,
        scope: &Scope,
        people: i64,
        beside: Option<&Database>,
    ) -> Result<Self, Error> {
        let mut values = BTreeSet::new();
        for table in &scope.tables {
            let Some(classified) = catalogue.tables.get(&table.name) else { continue };
            let known = database
                .row("look for a table", "SELECT to_regclass($1) IS NOT NULL", &[&table.quoted()])
                .await?;
            if !known.get::<_, bool>(0) {
                continue;
            }
            for (column, shortest) in telling(classified, !table.is_marked()) {
                let c = ident(column);
                if shortest == SENTENCE && beside.is_none() {
                    continue;
                }
                // A value that many share says nothing of anybody.
                let sql = format!(
                    "SELECT v FROM (SELECT t.{c}::text AS v, count(*) AS n FROM {t} t WHERE {member} AND length(t.{c}::text) BETWEEN {shortest} AND {LONGEST}
                     GROUP BY 1 HAVING count(*) = 1 ORDER BY md5(t.{c}::text) LIMIT $1) x",
                    t = table.quoted(),
                    member = table.member("t"),
                );
                let is_text = format!(
                    "SELECT pg_typeof(t.{c})::text IN ('text', 'character varying', 'character', 'uuid') FROM {} t LIMIT 1",
                    table.quoted()
                );
                let is_text = database.maybe("look at a column", &is_text, &[]).await?;
                if !is_text.is_some_and(|row| row.get(0)) {
                    continue;
                }
                let rows = database.rows("choose people to look for", &sql, &[&people]).await?;
                let mut chosen: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
                if let Some(beside) = beside {
                    let chosen_now: Vec<&String> = chosen.iter().collect();
                    let sql = format!(
                        "SELECT DISTINCT t.{c}::text FROM {} t WHERE t.{c}::text = ANY ($1) AND NOT {}",
                        table.quoted(),
                        table.member("t")
                    );
                    let others = beside.rows("see what others have, too", &sql, &[&chosen_now]).await?;
                    for row in &others {
                        chosen.remove(row.get::<_, &str>(0));
                    }
                }
                values.extend(chosen);
                if !table.is_marked() && !rows.is_empty() {
                    break; // one value of each person is enough where the people themselves are
                }
            }
            if i64::try_from(values.len()).is_ok_and(|n| n >= people) {
                break;
            }
        }
        if values.is_empty() {
            return Err(Error::Nobody(database.name.clone()));
        }
        Self::new(values.into_iter().collect())
    }

    /// Looks through all rows of a relation, or what else a query gives, as PostgreSQL sends them in binary: unpacked, in UTF-8, whatever
    /// the types are. `relation` is as SQL writes it in FROM.
    pub(crate) async fn in_relation(&self, database: &Database, relation: &str) -> Result<Found, Error> {
        let mut watch = Watch::new(self);
        let see = |watch: &mut Watch<'_>, bytes: &[u8]| {
            watch.see(bytes);
            Ok(())
        };
        let sql = |how: &str| format!("COPY (SELECT t.* FROM {relation} t) TO STDOUT{how}");
        let doing = "look for people";
        match database.copy_out(doing, &sql(" (FORMAT binary)"), &mut |bytes| see(&mut watch, bytes)).await {
            // A type that has no binary form (SQLSTATE 42883).
            Err(Error::Refused { sqlstate, .. }) if sqlstate == "42883" => {
                database.copy_out(doing, &sql(""), &mut |bytes| see(&mut watch, bytes)).await?;
            }
            done => done?,
        }
        Ok(watch.finish())
    }

    /// How many people are looked for.
    pub fn count(&self) -> u64 {
        self.values.len() as u64
    }

    fn find(&self, bytes: &[u8], found: &mut Found) {
        found.0.extend(self.automaton.find_iter(bytes).map(|m| self.of[m.pattern().as_usize()]));
    }

    /// Looks through bytes to their end. `told` hears how many were read.
    pub fn look(&self, mut bytes: impl Read, told: &mut dyn FnMut(u64)) -> std::io::Result<Found> {
        let keep = self.keep;
        let mut buffer = vec![0_u8; STEP + keep];
        let (mut start, mut found) = (0, Found::default());
        loop {
            let read = match bytes.read(&mut buffer[start..]) {
                Ok(0) => return Ok(found),
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            told(read as u64);
            let end = start + read;
            self.find(&buffer[..end], &mut found);
            // What begins at the end of this step may go on in the next.
            start = keep.min(end);
            buffer.copy_within(end - start..end, 0);
        }
    }
}

/// Looks through bytes that come in pieces.
pub(super) struct Watch<'a> {
    probes: &'a Probes,
    /// What the next piece may go on with, and until that is worth a look, what has come.
    buffer: Vec<u8>,
    found: Found,
}

/// Pieces are a row each; a look has a price.
const ENOUGH: usize = 1 << 16;

impl<'a> Watch<'a> {
    /// Nothing has come yet.
    pub(super) fn new(probes: &'a Probes) -> Self {
        Self { probes, buffer: Vec::new(), found: Found::default() }
    }

    /// Who was in what has come.
    pub(super) fn finish(mut self) -> Found {
        self.look();
        self.found
    }

    /// A piece.
    pub(super) fn see(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= ENOUGH {
            self.look();
        }
    }

    fn look(&mut self) {
        self.probes.find(&self.buffer, &mut self.found);
        let done = self.buffer.len().saturating_sub(self.probes.keep);
        self.buffer.drain(..done);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    /// Gives its bytes in pieces of any size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = self.1.min(self.0.len()).min(out.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn a_value_is_found_however_it_is_written() {
        let uuid = "6f9619ff-8b86-d011-b42d-00c04fc964ff";
        let probes = Probes::new(vec!["ada@exämple.org".to_owned(), uuid.to_owned()]).unwrap();
        let wide: Vec<u16> = "ada@exämple.org".encode_utf16().collect();
        let raw = hex::decode(uuid.replace('-', "")).unwrap();
        for bytes in [
            "ada@exämple.org".as_bytes().to_vec(),
            wide.iter().flat_map(|c| c.to_le_bytes()).collect(),
            wide.iter().flat_map(|c| c.to_be_bytes()).collect(),
            raw,
        ] {
            let text = [b"xx", &bytes[..], b"yy"].concat();
            assert_eq!(probes.look(&text[..], &mut |_| ()).unwrap().people(), 1, "{bytes:x?}");
            let mut watch = Watch::new(&probes);
            for piece in text.chunks(3) {
                watch.see(piece);
                watch.look();
            }
            assert_eq!(watch.found.people(), 1, "{bytes:x?} in pieces");
        }
        assert_eq!(probes.count(), 2);
    }

    #[test]
    fn a_value_is_found_however_it_is_cut() {
        let probes = Probes::new(vec!["ada@example.org".to_owned(), "bob@example.org".to_owned()]).unwrap();
        let mut text = vec![b'x'; STEP - 7];
        text.extend_from_slice(b"ada@example.org");
        text.extend_from_slice(&[b'y'; 100]);
        for size in [1, 3, 14, STEP, 10 * STEP] {
            let found = probes.look(Pieces(&text, size), &mut |_| ()).unwrap();
            assert_eq!(found.people(), 1, "in pieces of {size}");
        }
        assert_eq!(probes.look(&b"nobody here"[..], &mut |_| ()).unwrap().people(), 0);
    }
}
