//! Whose a row of a dump is: by the people in the dump itself, as it was then, and by those who are at home elsewhere now.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ringfence_policy::Catalogue;
use ringfence_policy::catalogue::Belongs;

use super::script::Copy;
use crate::database::{Database, Error};
use crate::erase::person::Subject;
use crate::scope::{How, Scope};
use ringfence_face::sql::ident;

/// Schema and name of a table.
type Name = (String, String);

/// Which rows leave a dump.
pub struct Whose {
    rules: BTreeMap<Name, Rule>,
    /// Tables that are about nobody.
    stay: BTreeSet<Name>,
    /// Those who leave, by the table of their kind: keys as COPY writes them.
    people: BTreeMap<Name, HashSet<Box<[u8]>>>,
}

enum Rule {
    /// People themselves.
    Residents { key: String, country: Option<(String, Vec<String>)> },
    /// Rows about them.
    About { columns: Vec<String>, belongs: Belongs, residents: Name },
}

/// What is done with the rows of one block.
pub enum Verdict {
    /// They stay.
    Stay,
    /// Nobody knows whose they are: they are left out.
    Unknown,
    /// It depends on fields, by their places.
    Rows(Judge),
}

/// Judges the rows of one block.
pub struct Judge {
    residents: Name,
    /// Places of the keys.
    keys: Vec<usize>,
    country: Option<(usize, Vec<String>)>,
    is_all: bool,
}

impl Whose {
    /// Everybody of a jurisdiction who has moved: those who are at `home` now, and whom a dump says to live there.
    pub async fn moved(scope: &Scope, catalogue: &Catalogue, home: &Database) -> Result<Self, Error> {
        let (mut rules, mut people) = (BTreeMap::new(), BTreeMap::new());
        for table in &scope.tables {
            let name = (table.schema.clone(), table.name.clone());
            let rule = match &table.how {
                How::Residence { key, column, countries } => {
                    let mut keys = HashSet::new();
                    let sql = format!(
                        "COPY (SELECT t.{} FROM {} t WHERE {}) TO STDOUT",
                        ident(key),
                        table.quoted(),
                        table.member("t")
                    );
                    let mut rest = Vec::new();
                    home.copy_out("read whose rows they are", &sql, &mut |bytes| {
                        rest.extend_from_slice(bytes);
                        let whole = rest.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
                        keys.extend(
                            rest[..whole].split(|b| *b == b'\n').filter(|k| !k.is_empty()).map(Box::from),
                        );
                        rest.drain(..whole);
                        Ok(())
                    })
                    .await?;
                    people.insert(name.clone(), keys);
                    Rule::Residents { key: key.clone(), country: Some((column.clone(), countries.clone())) }
                }
                How::Subjects { columns, belongs, residents, .. } => {
                    let columns = if *belongs == Belongs::Subject { &columns[..1] } else { columns };
                    Rule::About { columns: columns.to_vec(), belongs: *belongs, residents: residents.clone() }
                }
                How::Everything => continue,
            };
            rules.insert(name, rule);
        }
        Ok(Self { rules, stay: about_nobody(catalogue), people })
    }

    /// One person.
    pub fn person(catalogue: &Catalogue, of: &Subject) -> Self {
        let mut whose =
            Self { rules: BTreeMap::new(), stay: about_nobody(catalogue), people: BTreeMap::new() };
        let Some(people) = catalogue.tables.get(&of.table) else { return whose };
        let residents = (people.schema.clone(), of.table.clone());
        for (name, table) in &catalogue.tables {
            let at = (table.schema.clone(), name.clone());
            match &table.subject {
                Some(subject) if table.subjects == people.subjects => {
                    let columns = vec![subject.clone()];
                    let rule = if *name == of.table {
                        Rule::Residents { key: subject.clone(), country: None }
                    } else {
                        Rule::About { columns, belongs: Belongs::Subject, residents: residents.clone() }
                    };
                    whose.rules.insert(at, rule);
                }
                // About people of another kind.
                Some(_) => drop(whose.stay.insert(at)),
                None => {}
            }
        }
        whose.people.insert(residents, HashSet::from([escaped(&of.key)]));
        whose
    }

    /// What is to be done with the rows that follow. An error where a column is missing that says whose they are.
    pub fn judge(&self, copy: &Copy) -> Result<Verdict, String> {
        let name = (copy.schema.clone(), copy.table.clone());
        if self.stay.contains(&name) {
            return Ok(Verdict::Stay);
        }
        let Some(rule) = self.rules.get(&name) else { return Ok(Verdict::Unknown) };
        let place = |column: &String| {
            copy.columns.iter().position(|c| c == column).ok_or_else(|| {
                format!("{}.{} has no column {column} there, which says whose its rows are", name.0, name.1)
            })
        };
        let judge = match rule {
            Rule::Residents { key, country } => {
                let country =
                    country.as_ref().map(|(c, countries)| Ok::<_, String>((place(c)?, countries.clone())));
                Judge {
                    keys: vec![place(key)?],
                    country: country.transpose()?,
                    is_all: false,
                    residents: name.clone(),
                }
            }
            Rule::About { columns, belongs, residents } => Judge {
                keys: columns.iter().map(place).collect::<Result<_, _>>()?,
                country: None,
                is_all: *belongs == Belongs::All,
                residents: residents.clone(),
            },
        };
        Ok(Verdict::Rows(judge))
    }

    /// Remembers somebody who lives in the jurisdiction by the dump.
    pub fn notice(&mut self, judge: &Judge, row: &[u8]) {
        let Some((country, countries)) = &judge.country else { return };
        let (Some(key), Some(country)) = (field(row, judge.keys[0]), field(row, *country)) else { return };
        // A column of a fixed width has blanks at its end.
        let lives = countries.iter().any(|c| c.as_bytes() == country.trim_ascii_end());
        if lives && let Some(people) = self.people.get_mut(&judge.residents) {
            people.insert(key.into());
        }
    }

    /// Whether a row leaves.
    pub fn leaves(&self, judge: &Judge, row: &[u8]) -> bool {
        let Some(people) = self.people.get(&judge.residents) else { return true };
        let mut which = judge.keys.iter().map(|n| field(row, *n).is_none_or(|key| people.contains(key)));
        if judge.is_all { which.all(|is| is) } else { which.any(|is| is) }
    }
}

fn about_nobody(catalogue: &Catalogue) -> BTreeSet<Name> {
    let of = catalogue.tables.iter().filter(|(_, t)| t.subject.is_none());
    of.map(|(name, t)| (t.schema.clone(), name.clone())).collect()
}

/// A field of a row in COPY's text format. Tabs in a value are written as `\t`.
fn field(row: &[u8], n: usize) -> Option<&[u8]> {
    row.strip_suffix(b"\n").unwrap_or(row).split(|b| *b == b'\t').nth(n)
}

/// A key as COPY writes it (PostgreSQL's manual, COPY, "Text Format").
fn escaped(key: &str) -> Box<[u8]> {
    let mut out = Vec::with_capacity(key.len());
    for byte in key.bytes() {
        let letter = match byte {
            b'\\' => b'\\',
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            other => {
                out.push(other);
                continue;
            }
        };
        out.extend([b'\\', letter]);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    fn whose(belongs: Belongs) -> Whose {
        let users = ("public".to_owned(), "users".to_owned());
        let about =
            Rule::About { columns: vec!["a".to_owned(), "b".to_owned()], belongs, residents: users.clone() };
        let residents = Rule::Residents {
            key: "id".to_owned(),
            country: Some(("country".to_owned(), vec!["US".to_owned()])),
        };
        Whose {
            rules: BTreeMap::from([
                (users.clone(), residents),
                (("public".to_owned(), "sent".to_owned()), about),
            ]),
            stay: BTreeSet::new(),
            people: BTreeMap::from([(users, HashSet::from([escaped("7")]))]),
        }
    }

    fn head(table: &str, columns: &[&str]) -> Copy {
        let columns = columns.iter().map(|&c| c.to_owned()).collect();
        Copy { schema: "public".to_owned(), table: table.to_owned(), columns, line: Vec::new() }
    }

    fn rows(whose: &Whose, copy: &Copy) -> Judge {
        match whose.judge(copy).unwrap() {
            Verdict::Rows(judge) => judge,
            _ => panic!("no verdict"),
        }
    }

    #[test]
    fn rows_leave_by_whom_they_are_about() {
        for (belongs, wanted) in
            [(Belongs::Any, [true, true, false, true]), (Belongs::All, [false, true, false, false])]
        {
            let mut whose = whose(belongs);
            let users = rows(&whose, &head("users", &["country", "id"]));
            for row in ["US \t8\n", "DE\t9\n", "\\N\t10\n"] {
                whose.notice(&users, row.as_bytes());
            }
            assert!(whose.leaves(&users, b"US \t8\n") && whose.leaves(&users, b"DE\t7\n"));
            assert!(!whose.leaves(&users, b"DE\t9\n") && !whose.leaves(&users, b"\\N\t10\n"));
            let sent = rows(&whose, &head("sent", &["body", "a", "b"]));
            let told = ["x\t8\t9\n", "x\t8\t7\n", "x\t9\t10\n", "x\t\\N\t7\n"]
                .map(|r| whose.leaves(&sent, r.as_bytes()));
            assert_eq!(told, wanted);
        }
    }

    #[test]
    fn what_cannot_be_judged_does_not_stay() {
        let whose = whose(Belongs::Any);
        assert!(matches!(whose.judge(&head("unheard-of", &["a"])).unwrap(), Verdict::Unknown));
        assert!(whose.judge(&head("sent", &["a"])).is_err());
        let sent = rows(&whose, &head("sent", &["a", "b"]));
        assert!(whose.leaves(&sent, b"9\n"), "a row that has too few fields");
        assert_eq!(&*escaped("a\t\\"), b"a\\t\\\\");
    }
}
