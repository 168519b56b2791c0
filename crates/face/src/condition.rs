//! A grant's condition without its constants. Every role of a database can read the text of a policy and of
//! a view, and a constant of a condition is somebody's data. So a face has its constants in a table that
//! only its owner reads, like the mask key, and its policies and views select them from there. Pure.
//!
//! The table has a row for each constant and a column for each of their types: a constant is read once,
//! under the steward's settings, and no `TimeZone` or `DateStyle` of a reader changes what it means.

use serde::Serialize;

use crate::sql::ident;

/// A part of a condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Piece {
    /// SQL without any constant but NULL, true and false.
    Sql(String),
    /// A constant: the text that its type's input function reads.
    Constant {
        /// The text.
        value: String,
        /// The type that the grammar gives it; a string has none, and takes its type from what it is
        /// compared with.
        number: Option<Number>,
    },
}

/// What type a number is without a cast (PostgreSQL manual, section 4.1.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Number {
    /// It fits `int4`.
    Int4,
    /// It fits `int8`.
    Int8,
    /// Any other.
    Numeric,
}

impl Number {
    fn name(self) -> &'static str {
        match self {
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Numeric => "numeric",
        }
    }
}

/// The constants of a face, each once.
#[derive(Debug, Default)]
pub struct Constants {
    /// Their types, as SQL has them: one column each.
    types: Vec<String>,
    /// The type of each, by its place in `types`, and its text: one row each.
    values: Vec<(usize, String)>,
}

impl Constants {
    /// The row and the column of a constant.
    fn place(&mut self, of: &str, value: &str) -> (usize, usize) {
        let column = self.types.iter().position(|known| known == of).unwrap_or_else(|| {
            self.types.push(of.to_owned());
            self.types.len() - 1
        });
        let is_it = |(of, known): &(usize, String)| *of == column && known == value;
        let row = self.values.iter().position(is_it).unwrap_or_else(|| {
            self.values.push((column, value.to_owned()));
            self.values.len() - 1
        });
        (row, column)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Makes the table of the face `digest`, for its owner.
    pub fn create(&self, digest: &str, owner: &str) -> Vec<String> {
        let table = table(digest);
        let mut columns = vec!["n int PRIMARY KEY".to_owned()];
        columns.extend(self.types.iter().enumerate().map(|(t, of)| format!("t{t} {of}")));
        vec![
            // A gateway of an older version leaves it when it drops a face.
            format!("DROP TABLE IF EXISTS {table}"),
            format!("CREATE TABLE {table} ({})", columns.join(", ")),
            format!("GRANT SELECT ON {table} TO {owner}"),
        ]
    }

    /// A statement for each constant, and its parameter: the text that the type's input function
    /// reads.
    pub fn insert(&self, digest: &str) -> Vec<(String, &str)> {
        let table = table(digest);
        let mut statements = Vec::new();
        for (n, (t, value)) in self.values.iter().enumerate() {
            let of = &self.types[*t];
            let sql = format!("INSERT INTO {table} (n, t{t}) VALUES ({n}, $1::{of})");
            statements.push((sql, value.as_str()));
        }
        statements
    }
}

/// The table with the constants of a face.
pub fn table(digest: &str) -> String {
    format!("ringfence.{}", ident(&format!("constants_{digest}")))
}

/// A condition's strings as parameters, from which the store tells the types that they take.
pub fn probe(condition: &[Piece]) -> String {
    let mut strings = 0;
    render(condition, |_, number| {
        if let Some(number) = number {
            return format!("NULL::{}", number.name());
        }
        strings += 1;
        format!("${strings}")
    })
}

/// The SQL of a condition of the face `digest`, whose strings have the types `of_strings`.
pub fn bind(condition: &[Piece], of_strings: &[String], digest: &str, constants: &mut Constants) -> String {
    let table = table(digest);
    let mut of_strings = of_strings.iter();
    render(condition, |value, number| {
        let of: &str = match number {
            Some(number) => number.name(),
            None => of_strings.next().map_or("text", String::as_str),
        };
        let (row, column) = constants.place(of, value);
        // The cast makes it an expression: `IN ((SELECT …))` would be a subquery, past every index.
        format!("(SELECT k.t{column} FROM {table} k WHERE k.n = {row})::{of}")
    })
}

fn render(condition: &[Piece], mut constant: impl FnMut(&str, Option<Number>) -> String) -> String {
    let mut sql = String::new();
    for piece in condition {
        match piece {
            Piece::Sql(text) => sql.push_str(text),
            Piece::Constant { value, number } => sql.push_str(&constant(value, *number)),
        }
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_compiled_without_its_constants() {
        let constant = |value: &str, number| Piece::Constant { value: value.to_owned(), number };
        let condition = [
            Piece::Sql("country = ".to_owned()),
            constant("it's", None),
            Piece::Sql(" AND id = ".to_owned()),
            constant("4711", Some(Number::Int4)),
        ];
        assert_eq!(probe(&condition), "country = $1 AND id = NULL::int4");
        let mut constants = Constants::default();
        constants.place("date", "2026-01-01");
        constants.place("int4", "4711");
        assert_eq!(
            bind(&condition, &["bpchar".to_owned()], "0f", &mut constants),
            "country = (SELECT k.t2 FROM ringfence.\"constants_0f\" k WHERE k.n = 2)::bpchar \
             AND id = (SELECT k.t1 FROM ringfence.\"constants_0f\" k WHERE k.n = 1)::int4"
        );
        assert_eq!(
            constants.create("0f", "o")[1],
            "CREATE TABLE ringfence.\"constants_0f\" (n int PRIMARY KEY, t0 date, t1 int4, t2 bpchar)"
        );
        assert_eq!(
            constants.insert("0f")[2],
            ("INSERT INTO ringfence.\"constants_0f\" (n, t2) VALUES (2, $1::bpchar)".to_owned(), "it's")
        );
    }
}
