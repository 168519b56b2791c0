//! Which rows of a store belong to a jurisdiction.
//!
//! The catalogue names, for one table of each kind of data subject, the column with the country that they live in (`residence`).
//! Every other row belongs where its subject belongs: a device to its user's jurisdiction. Where a row is about several people (a
//! message has a sender and a recipient), `parties` names the others and `belongs` says what holds when they differ.

use ringfence_face::sql::{ident, literal};
use ringfence_policy::Catalogue;
use ringfence_policy::catalogue::Belongs;
use serde::Serialize;

/// The column that a table gets for the time of a move, where no column of its own says whose its rows are: a publication's row
/// filter cannot look into another table.
pub const MARK: &str = "ringfence_moves";

/// The rows of a jurisdiction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// Which.
    pub jurisdiction: String,
    /// Tables with residents first, then the others by name.
    pub tables: Vec<Table>,
    /// Tables without a data subject: they are about nobody and stay.
    pub stay: Vec<String>,
}

/// One table's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// How its rows belong.
    pub how: How,
}

/// How rows belong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// By a column of their own with a country.
    Residence {
        /// The column with the subject's key.
        key: String,
        /// The column with the country.
        column: String,
        /// The jurisdiction's countries.
        countries: Vec<String>,
    },
    /// All of them: at the target of a move.
    Everything,
    /// By the people that they are about.
    Subjects {
        /// The columns with their keys.
        columns: Vec<String>,
        /// What holds when they belong to several.
        belongs: Belongs,
        /// Where the people are: schema and table.
        residents: (String, String),
        /// Their key and country there.
        residence: (String, String),
        /// The jurisdiction's countries.
        countries: Vec<String>,
    },
}

/// Which people belong, a bit for each number between the smallest and the largest key: small enough to be a constant in a row filter,
/// which cannot look into another table.
pub struct Bits {
    first: i64,
    bits: Vec<u8>,
}

impl Bits {
    /// The most bytes.
    pub const LIMIT: usize = 64 << 20;

    /// The bits of these keys; `None` if they are too far apart.
    pub fn new(keys: &[i64]) -> Option<Self> {
        let (first, last) =
            (keys.iter().min().copied().unwrap_or(0), keys.iter().max().copied().unwrap_or(0));
        let length = usize::try_from(last.checked_sub(first)?).ok()? / 8 + 1;
        if length > Self::LIMIT {
            return None;
        }
        let mut bits = vec![0; length];
        for key in keys {
            let n = usize::try_from(key - first).ok()?;
            bits[n / 8] |= 1 << (n % 8); // as PostgreSQL's get_bit counts them
        }
        Some(Self { first, bits })
    }

    /// Whether the person in `column` is among them.
    fn has(&self, column: &str) -> String {
        let last = self.first.saturating_add(i64::try_from(self.bits.len() * 8 - 1).unwrap_or(i64::MAX));
        format!(
            "CASE WHEN {column} BETWEEN {first} AND {last} THEN get_bit('\\x{bits}'::bytea, {column}::bigint - {first}::bigint) = 1 ELSE false END",
            first = self.first,
            bits = hex::encode(&self.bits),
        )
    }
}

fn list(countries: &[String]) -> String {
    countries.iter().map(|c| literal(c).trim_start().to_owned()).collect::<Vec<_>>().join(", ")
}

impl Table {
    /// Schema and name, quoted.
    pub fn quoted(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.name))
    }

    /// Schema and name for people.
    pub fn shown(&self) -> String {
        if self.schema == "public" { self.name.clone() } else { format!("{}.{}", self.schema, self.name) }
    }

    /// Whether a mark has to say whose its rows are.
    pub fn is_marked(&self) -> bool {
        matches!(self.how, How::Subjects { .. })
    }

    /// The row filter of a publication (PostgreSQL 15: columns of the table, built-in functions). A row whose mark says nothing was
    /// there before the move, and its people have stayed where they were: the bits say where.
    pub fn filter(&self, bits: Option<&Bits>) -> String {
        let How::Subjects { columns, belongs, .. } = &self.how else { return self.member_of("") };
        let mark = ident(MARK);
        let Some(bits) = bits else { return format!("{mark} IS TRUE") };
        let columns = if *belongs == Belongs::Subject { &columns[..1] } else { columns };
        let by = if *belongs == Belongs::All { " AND " } else { " OR " };
        let before: Vec<String> = columns.iter().map(|c| bits.has(&ident(c))).collect();
        format!("{mark} IS TRUE OR ({mark} IS NULL AND ({}))", before.join(by))
    }

    /// Whether a row belongs, by the people and not by the mark. `row` is how the row is called.
    pub fn member(&self, row: &str) -> String {
        self.member_of(&format!("{row}."))
    }

    fn member_of(&self, row: &str) -> String {
        match &self.how {
            How::Residence { column, countries, .. } => {
                format!("{row}{} IN ({})", ident(column), list(countries))
            }
            How::Everything => "true".to_owned(),
            How::Subjects { columns, belongs, residents, residence, countries } => {
                let one = |column: &String| {
                    format!(
                        "EXISTS (SELECT FROM {}.{} rf_s WHERE rf_s.{} = {row}{} AND rf_s.{} IN ({}))",
                        ident(&residents.0),
                        ident(&residents.1),
                        ident(&residence.0),
                        ident(column),
                        ident(&residence.1),
                        list(countries)
                    )
                };
                let columns = if *belongs == Belongs::Subject { &columns[..1] } else { columns };
                let by = if *belongs == Belongs::All { " AND " } else { " OR " };
                format!("({})", columns.iter().map(one).collect::<Vec<_>>().join(by))
            }
        }
    }
}

impl Scope {
    /// What the catalogue says of the jurisdiction with these countries.
    pub fn of(catalogue: &Catalogue, jurisdiction: &str, countries: &[String]) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let (mut tables, mut stay) = (Vec::new(), Vec::new());
        if countries.is_empty() {
            problems.push(format!("the jurisdiction {jurisdiction} has no countries in the registry"));
        }
        for (name, table) in &catalogue.tables {
            let Some(subject) = &table.subject else {
                stay.push(name.clone());
                continue;
            };
            let how = if let Some(column) = &table.residence {
                How::Residence { key: subject.clone(), column: column.clone(), countries: countries.to_vec() }
            } else {
                let residents = catalogue
                    .tables
                    .iter()
                    .find(|(_, t)| t.subjects == table.subjects && t.residence.is_some());
                let Some((residents, (key, country), schema)) = residents.and_then(|(name, t)| {
                    Some((name, (t.subject.clone()?, t.residence.clone()?), t.schema.clone()))
                }) else {
                    problems.push(format!(
                        "{name}: nothing says where its {} live: name the column with their country as `residence` of a table in the catalogue",
                        table.subjects
                    ));
                    continue;
                };
                let columns = std::iter::once(subject).chain(&table.parties).cloned().collect();
                How::Subjects {
                    columns,
                    belongs: table.belongs,
                    residents: (schema, residents.clone()),
                    residence: (key, country),
                    countries: countries.to_vec(),
                }
            };
            tables.push(Table { schema: table.schema.clone(), name: name.clone(), how });
        }
        tables.sort_by_key(Table::is_marked);
        if problems.is_empty() {
            Ok(Self { jurisdiction: jurisdiction.to_owned(), tables, stay })
        } else {
            Err(problems)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    const CATALOGUE: &str = r#"
        [tables.users]
        subject = "id"
        residence = "country"
        columns = { id = "public", country = "public" }
        [tables.messages]
        subject = "sender_id"
        parties = ["recipient_id"]
        columns = { id = "public", sender_id = "public", recipient_id = "public" }
        [tables.languages]
        columns = { code = "public" }
    "#;

    fn scope(text: &str) -> Result<Scope, Vec<String>> {
        Scope::of(&Catalogue::parse(text).unwrap(), "us", &["US".to_owned(), "P'R".to_owned()])
    }

    #[test]
    fn rows_belong_where_their_people_live() {
        let scope = scope(CATALOGUE).unwrap();
        let names: Vec<&str> = scope.tables.iter().map(|t| t.name.as_str()).collect();
        assert_eq!((names, scope.stay), (vec!["users", "messages"], vec!["languages".to_owned()]));
        assert_eq!(scope.tables[0].filter(None), r#""country" IN ('US', 'P''R')"#);
        assert_eq!(scope.tables[1].filter(None), r#""ringfence_moves" IS TRUE"#);
        let bits = Bits::new(&[-3, 4, 13]).unwrap();
        let filter = scope.tables[1].filter(Some(&bits));
        assert!(
            filter.contains(r#"WHEN "sender_id" BETWEEN -3 AND 20 THEN get_bit('\x810001'::bytea"#),
            "{filter}"
        );
        assert!(Bits::new(&[0, i64::MAX]).is_none() && Bits::new(&[i64::MIN, 1]).is_none());
        let member = scope.tables[1].member("t");
        assert!(
            member.contains(r#"rf_s."id" = t."sender_id""#) && !member.contains("recipient_id"),
            "{member}"
        );
    }

    #[test]
    fn what_is_about_several_people_belongs_as_the_catalogue_says() {
        for (word, by) in [("any", " OR "), ("all", " AND ")] {
            let text = CATALOGUE.replace("parties =", &format!("belongs = \"{word}\"\nparties ="));
            let member = scope(&text).unwrap().tables[1].member("t");
            assert!(member.contains("recipient_id") && member.contains(by), "{member}");
        }
    }

    #[test]
    fn people_without_a_residence_cannot_be_placed() {
        let problems = scope(&CATALOGUE.replace("residence = \"country\"", "")).unwrap_err();
        assert!(problems.iter().any(|p| p.contains("messages")), "{problems:?}");
    }
}
