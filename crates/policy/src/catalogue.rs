//! The catalogue: the classification of each table and column of a store.
//!
//! ```toml
//! [tables.users]
//! subject = "id"
//! [tables.users.columns]
//! country = "public"
//! email = { protected = "contact", kind = "email" }
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::Error;

/// All that is classified of one store. What it does not list is unclassified, and so in no face.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// By table name.
    #[serde(default)]
    pub tables: BTreeMap<String, Table>,
}

/// One table (of schema `public` unless it says otherwise).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The schema it lies in.
    #[serde(default = "public", skip_serializing_if = "is_public")]
    pub schema: String,
    /// The column that says which data subject a row is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What kind of subjects they are. Equal keys of one kind are one person, in all tables and stores of a jurisdiction; give
    /// another word where keys are of another kind, such as `merchants`.
    #[serde(default = "persons", skip_serializing_if = "is_persons")]
    pub subjects: String,
    /// The column that says which device a row is about, where thresholds count devices (28 CFR 202.205(c)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The column with the country (ISO 3166-1 alpha-2) that the row's subject lives in: which jurisdiction the subject, and all
    /// rows about them, belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residence: Option<String>,
    /// Columns with further people that a row is about, such as a message's recipient.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parties: Vec<String>,
    /// Where a row belongs whose people live in different jurisdictions.
    #[serde(default, skip_serializing_if = "Belongs::is_usual")]
    pub belongs: Belongs,
    /// A category of the whole table, such as `direct-messages`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category: String,
    /// By column name.
    pub columns: BTreeMap<String, Column>,
}

/// Where a row belongs whose people live in different jurisdictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Belongs {
    /// Where its subject does.
    #[default]
    Subject,
    /// To each jurisdiction of one of its people.
    Any,
    /// To a jurisdiction only if all of its people do.
    All,
}

impl Belongs {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_usual(&self) -> bool {
        *self == Self::Subject
    }
}

fn persons() -> String {
    "persons".to_owned()
}

fn is_persons(subjects: &str) -> bool {
    subjects == "persons"
}

fn public() -> String {
    "public".to_owned()
}

fn is_public(schema: &str) -> bool {
    schema == "public"
}

/// One column: `"public"`, or protected with a category and the kind of its mask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// Named by one word: only `public` is understood.
    Word(Class),
    /// Protected.
    Protected(Protected),
}

/// How a column is protected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protected {
    /// The category: `contact`, `geolocation`, `financial`, …
    #[serde(rename = "protected")]
    pub category: String,
    /// Which mask fits.
    pub kind: Kind,
    /// For [`Kind::Number`]: the width of a bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<f64>,
}

/// Whether a column is for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Users published it themselves, or it is about nobody.
    Public,
}

/// What a protected column holds; decides its mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A keyed token at `masked.invalid`; still joins and compares.
    Email,
    /// A constant.
    Phone,
    /// A stable pseudonym.
    Name,
    /// The first day of its year.
    Date,
    /// A constant.
    Text,
    /// A keyed token of the same type; still joins.
    Identifier,
    /// The lower edge of its bucket.
    Number,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 7] =
        [Self::Email, Self::Phone, Self::Name, Self::Date, Self::Text, Self::Identifier, Self::Number];

    /// The word in the catalogue.
    pub fn word(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Name => "name",
            Self::Date => "date",
            Self::Text => "text",
            Self::Identifier => "identifier",
            Self::Number => "number",
        }
    }
}

impl Column {
    /// The word for Cedar.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Word(Class::Public) => "public",
            Self::Protected(_) => "protected",
        }
    }

    /// The category, if protected.
    pub fn category(&self) -> &str {
        match self {
            Self::Word(_) => "",
            Self::Protected(p) => &p.category,
        }
    }

    /// How it is protected, if it is.
    pub fn protected(&self) -> Option<&Protected> {
        match self {
            Self::Word(_) => None,
            Self::Protected(p) => Some(p),
        }
    }
}

/// A name as TOML writes it before an equals sign.
fn key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    // Basic strings of TOML are those of JSON; toml's own writer would take several lines for some.
    if is_bare { name.to_owned() } else { serde_json::Value::from(name).to_string() }
}

impl Catalogue {
    /// Reads a catalogue and checks that it fits together.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let catalogue: Self = toml::from_str(text)
            .map_err(|e| Error::Parse { what: "the catalogue".to_owned(), problem: e.to_string() })?;
        let mut problems = Vec::new();
        for (name, table) in &catalogue.tables {
            let named =
                [("subject", &table.subject), ("device", &table.device), ("residence", &table.residence)];
            let named = named.iter().filter_map(|(what, key)| Some((*what, key.as_ref()?)));
            for (what, key) in named.chain(table.parties.iter().map(|key| ("party", key))) {
                if !table.columns.contains_key(key) {
                    problems
                        .push(format!("the catalogue: {name}: its {what} {key} is not among its columns"));
                }
            }
            if table.subject.is_none() && (table.residence.is_some() || !table.parties.is_empty()) {
                problems.push(format!("the catalogue: {name}: has a residence or parties, but no subject"));
            }
            for (column, classified) in &table.columns {
                let Some(p) = classified.protected() else { continue };
                if p.bucket.is_some_and(|b| !(b.is_finite() && b > 0.0)) {
                    problems
                        .push(format!("the catalogue: {name}.{column}: a bucket must be a positive number"));
                }
                if p.bucket.is_some() && p.kind != Kind::Number {
                    problems.push(format!("the catalogue: {name}.{column}: only a number has a bucket"));
                }
            }
        }
        if problems.is_empty() { Ok(catalogue) } else { Err(Error::Invalid(problems)) }
    }

    /// What a human adds to this catalogue's text so that it has `new` as well: the lines of each table that is there already, with
    /// where they go, and each further table whole.
    pub fn addition(&self, new: &Self) -> String {
        let mut text = String::new();
        let mut further = Self::default();
        for (name, table) in &new.tables {
            if !self.tables.contains_key(name) {
                further.tables.insert(name.clone(), table.clone());
                continue;
            }
            let _ = writeln!(text, "# under [tables.{}.columns]", key(name));
            for (column, class) in &table.columns {
                let _ = match class.protected() {
                    None => writeln!(text, "{} = \"public\"", key(column)),
                    Some(Protected { category, kind, bucket }) => {
                        let category = toml::Value::from(category.as_str());
                        let bucket = bucket.map(|b| format!(", bucket = {}", toml::Value::from(b)));
                        let (kind, bucket) = (kind.word(), bucket.unwrap_or_default());
                        writeln!(
                            text,
                            "{} = {{ protected = {category}, kind = \"{kind}\"{bucket} }}",
                            key(column)
                        )
                    }
                };
            }
            text.push('\n');
        }
        if !further.tables.is_empty() {
            text.push_str(&toml::to_string(&further).expect("words and numbers"));
        }
        text
    }

    /// The column `table.column`, if it is classified.
    pub fn column(&self, table: &str, column: &str) -> Option<&Column> {
        self.tables.get(table)?.columns.get(column)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn what_is_added_is_there_when_it_is_read_again() {
        let old = "[tables.users]\nsubject = \"id\"\n[tables.users.columns]\nid = \"public\"\n";
        let added = r#"
            [tables.users.columns]
            "we\"ird key" = "public"
            nickname = { protected = "contact", kind = "name" }
            height = { protected = "health", kind = "number", bucket = 5.0 }
            [tables.visits]
            subject = "user_id"
            [tables.visits.columns]
            user_id = "public"
            "#;
        let new = Catalogue::parse(added).unwrap();
        let text = Catalogue::parse(old).unwrap().addition(&new);
        assert!(text.starts_with("# under [tables.users.columns]\n"), "{text}");
        let whole = Catalogue::parse(&format!("{old}{text}")).unwrap();
        assert_eq!(whole.tables["visits"], new.tables["visits"]);
        let users = &whole.tables["users"];
        assert_eq!(users.subject.as_deref(), Some("id"));
        for (column, class) in &new.tables["users"].columns {
            assert_eq!(users.columns[column], *class, "{text}");
        }
    }
}
