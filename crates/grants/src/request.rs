//! What is asked for, in the one form that approvers sign: canonical JSON (RFC 8785).

use std::collections::BTreeSet;
use std::time::Duration;

use ringfence_face::Filter;
use ringfence_policy::decision::GrantScope;
use ringfence_policy::{Catalogue, Principal, Store};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::filter::Condition;

/// How long approvers have to decide.
pub const DECIDE_WITHIN_MS: u64 = 72 * 3600 * 1000;
/// The most rows that a grant can be bounded to: what is exact in canonical JSON (RFC 8785, 3.2.2.3), 2^53 − 1.
const MAX_ROWS: u64 = (1 << 53) - 1;
/// The longest that a grant can last, in seconds.
pub const MAX_SECONDS: u64 = 30 * 24 * 3600;
/// The longest purpose, in bytes.
const MAX_PURPOSE: usize = 500;

/// What somebody asks for, as it arrives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The store.
    pub store: String,
    /// `table.column`, all of one table.
    pub columns: Vec<String>,
    /// Which rows; absent means all.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Why.
    pub purpose: String,
    /// How long, in seconds from the last approval.
    pub seconds: u64,
    /// How many rows may be read in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
}

/// What an approver would give instead of what was asked for: less, in at least one way, and more in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Less {
    /// The columns that stay, as `table.column`; absent means all that were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// A condition besides the one that was asked for.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// How long, in seconds; absent means as long as was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// How many rows may be read in all; absent means as many as were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
}

/// Which request another one narrows, and who did that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Narrowed {
    /// The request that was asked for.
    pub id: String,
    /// The approver who would give less.
    pub by: String,
}

/// A request that was found sound. What is not in it cannot be granted by signing it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Version of this format.
    pub v: u8,
    /// Its name.
    pub id: String,
    /// Who asks.
    pub requester: String,
    /// Where they are.
    pub location: String,
    /// For whom they work.
    pub employer: Option<String>,
    /// Why they are a covered person, if they are.
    pub covered: Option<String>,
    /// The store.
    pub store: String,
    /// Whose law protects the data.
    pub jurisdiction: String,
    /// The table.
    pub table: String,
    /// Its columns that would be in clear.
    pub columns: BTreeSet<String>,
    /// Which rows, in PostgreSQL's own spelling; `None` is all.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Why.
    pub purpose: String,
    /// How long the grant lasts, in seconds from the last approval.
    pub seconds: u64,
    /// How many rows may be read in all.
    pub max_rows: Option<u64>,
    /// Where it is less than somebody asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrows: Option<Narrowed>,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// After this it can no longer be approved, in milliseconds since 1970.
    pub decide_by: u64,
}

impl Request {
    /// Checks `ask` against the catalogue.
    pub fn new(
        ask: &Ask,
        id: String,
        requester: &Principal,
        covered: Option<String>,
        store: &Store,
        catalogue: &Catalogue,
        now: u64,
    ) -> Result<Self, Error> {
        let refuse = |text: String| Error::Request(text);
        let mut table = None;
        let mut columns = BTreeSet::new();
        for name in &ask.columns {
            let (t, c) = name
                .split_once('.')
                .ok_or_else(|| refuse(format!("{name:?} is not table.column, as in users.email")))?;
            if table.is_some_and(|have| have != t) {
                return Err(refuse(
                    "a request is for columns of one table; make one request for each table".into(),
                ));
            }
            table = Some(t);
            match catalogue.column(t, c) {
                None => return Err(refuse(format!("{name} is not in the catalogue of {}", store.name))),
                Some(class) if class.protected().is_none() => {
                    return Err(refuse(format!("{name} is public: no grant is needed to see it")));
                }
                Some(_) => drop(columns.insert(c.to_owned())),
            }
        }
        let table = table
            .ok_or_else(|| refuse("name the columns, as in --columns users.email,users.phone".into()))?;
        let purpose = ask.purpose.trim();
        if purpose.is_empty() || purpose.len() > MAX_PURPOSE || purpose.chars().any(char::is_control) {
            return Err(refuse(format!("say the purpose in one line of at most {MAX_PURPOSE} bytes")));
        }
        if !(1..=MAX_SECONDS).contains(&ask.seconds) {
            return Err(refuse("a grant lasts between one second and thirty days".into()));
        }
        if ask.max_rows.is_some_and(|rows| !(1..=MAX_ROWS).contains(&rows)) {
            return Err(refuse(format!("--max-rows must be between 1 and {MAX_ROWS}")));
        }
        let known: BTreeSet<&str> = catalogue.tables[table].columns.keys().map(String::as_str).collect();
        let condition = ask.condition.as_deref().map(|text| Condition::parse(text, &known)).transpose()?;
        Ok(Self {
            v: 1,
            id,
            requester: requester.name.clone(),
            location: requester.place().to_owned(),
            employer: requester.employer.clone(),
            covered,
            store: store.name.clone(),
            jurisdiction: store.jurisdiction.clone(),
            table: table.to_owned(),
            columns,
            condition: condition.map(|c| c.text),
            purpose: purpose.to_owned(),
            seconds: ask.seconds,
            max_rows: ask.max_rows,
            narrows: None,
            created: now,
            decide_by: now + DECIDE_WITHIN_MS,
        })
    }

    /// The same for less. It is still the requester's, and to be decided by the same time.
    pub fn narrowed(
        &self,
        less: &Less,
        id: String,
        by: &str,
        catalogue: &Catalogue,
        now: u64,
    ) -> Result<Self, Error> {
        let refuse = |text: String| Error::Request(text);
        let mut narrow = Self { id, created: now, ..self.clone() };
        narrow.narrows = Some(Narrowed { id: self.id.clone(), by: by.to_owned() });
        if let Some(columns) = &less.columns {
            let of = |name: &String| {
                name.split_once('.').filter(|(t, _)| *t == self.table).map(|(_, c)| c.to_owned())
            };
            let kept: Option<BTreeSet<String>> = columns.iter().map(of).collect();
            let kept = kept.filter(|kept| !kept.is_empty() && kept.is_subset(&self.columns));
            narrow.columns = kept.ok_or_else(|| {
                let asked: Vec<String> = self.columns.iter().map(|c| format!("{}.{c}", self.table)).collect();
                refuse(format!("name one or more of the columns that were asked for: {}", asked.join(", ")))
            })?;
        }
        let known: BTreeSet<&str> = catalogue
            .tables
            .get(&self.table)
            .into_iter()
            .flat_map(|t| t.columns.keys())
            .map(String::as_str)
            .collect();
        if let Some(more) = less.condition.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            // Each by itself first: two halves of a condition that only together make sense would be no AND.
            let more = Condition::parse(more, &known)?.text;
            let both = match &self.condition {
                Some(asked) => format!("({asked}) AND ({more})"),
                None => more,
            };
            narrow.condition = Some(Condition::parse(&both, &known)?.text);
        }
        if let Some(seconds) = less.seconds {
            if !(1..=self.seconds).contains(&seconds) {
                return Err(refuse("a narrower grant lasts at most as long as was asked for".to_owned()));
            }
            narrow.seconds = seconds;
        }
        if let Some(rows) = less.max_rows {
            if !(1..=MAX_ROWS).contains(&rows) || self.max_rows.is_some_and(|asked| rows > asked) {
                return Err(refuse(
                    "a narrower grant has at most as many rows as were asked for, and one or more".to_owned(),
                ));
            }
            narrow.max_rows = Some(rows);
        }
        let is_less = narrow.columns != self.columns
            || narrow.condition != self.condition
            || narrow.seconds < self.seconds
            || narrow.max_rows != self.max_rows;
        if !is_less {
            return Err(refuse("this is what was asked for: approve it, or take something away".to_owned()));
        }
        Ok(narrow)
    }

    /// The text that is signed (RFC 8785).
    pub fn canonical(&self) -> String {
        serde_json_canonicalizer::to_string(self)
            .expect("plain data with string keys and integers below 2^53")
    }

    /// Reads a canonical text back; anything else is refused.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let request: Self = serde_json::from_str(text)
            .map_err(|_| Error::Request("is not a request of this format".into()))?;
        if request.canonical() != text {
            return Err(Error::Request("is not in canonical form".into()));
        }
        Ok(request)
    }

    /// SHA-256 of the canonical text, in hex.
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.canonical()))
    }

    /// When a grant that began at `granted` ends, whatever a database says: signatures bound it.
    pub fn expires(&self, granted: u64) -> u64 {
        granted.min(self.decide_by) + self.seconds * 1000
    }

    /// The part that policy looks at.
    pub fn scope(&self) -> GrantScope {
        GrantScope { id: self.id.clone(), table: self.table.clone(), columns: self.columns.clone() }
    }

    /// The part that the face is compiled from. The condition is parsed once more: only what is safe reaches a store.
    pub fn filter(&self, catalogue: &Catalogue) -> Result<Filter, Error> {
        let known: BTreeSet<&str> = catalogue
            .tables
            .get(&self.table)
            .into_iter()
            .flat_map(|t| t.columns.keys())
            .map(String::as_str)
            .collect();
        let condition = self.condition.as_deref().map(|text| Condition::parse(text, &known)).transpose()?;
        let reads = condition.as_ref().map(|c| c.reads.clone()).unwrap_or_default();
        let condition = condition.map(|c| c.pieces);
        Ok(Filter { grant: self.id.clone(), table: self.table.clone(), condition, reads })
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|c| format!("{}.{c}", self.table)).collect();
        let rows = self.condition.as_deref().map_or(String::new(), |c| format!(" where {c}"));
        let limit = self.max_rows.map_or(String::new(), |n| format!(", at most {n} rows"));
        let length = humantime::format_duration(Duration::from_secs(self.seconds));
        format!("{} of {}{rows}, for {length}{limit}", columns.join(", "), self.store)
    }
}

/// A time in milliseconds since 1970 as people read it (RFC 3339, UTC).
pub fn rfc3339(ms: u64) -> String {
    ringfence_verifier::manifest::rfc3339(ms / 1000)
}
