//! What the ledger keeps of the people that a statement reached: the private record of a `reached` entry.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_policy::Unit;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::subject::Id;

/// The most hashes in one record: an entry holds 4 MiB, and few of them make a long wait short.
pub const MAX_IDS: usize = 64 * 1024;

/// The private record of a `reached` entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached<'a> {
    /// The session.
    pub session: Cow<'a, str>,
    /// The statement's number in it.
    pub n: u64,
    /// Who.
    pub principal: Cow<'a, str>,
    /// For whom they work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub employer: Option<Cow<'a, str>>,
    /// The store.
    pub store: Cow<'a, str>,
    /// Whom.
    pub reached: Vec<Group>,
}

/// In which form data was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// As it is.
    Clear,
    /// Clear or masked: 28 CFR 202.206 counts both.
    Any,
}

/// People of one table, and what of them was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The table.
    pub table: String,
    /// Whether persons or their devices are counted.
    #[serde(default)]
    pub unit: Unit,
    /// The catalogue's categories that were seen in clear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clear: Vec<String>,
    /// Those that were seen masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<String>,
    /// Those who could be told apart, each once: [`crate::SubjectKey::id`], big-endian, in base64.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "put_ids",
        deserialize_with = "get_ids"
    )]
    pub ids: Vec<Id>,
    /// How many more there are at most, row by row.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rows: u64,
    /// The statement could use all of the table, so many people.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub all: u64,
    /// The set of rows that `all` counts: the store's table as one face shows it. What two faces show can be
    /// different people. Records of before 2026-11-30 do not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub set: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Group {
    /// How many people this is at most.
    pub fn at_most(&self) -> u64 {
        (self.ids.len() as u64).saturating_add(self.rows).saturating_add(self.all)
    }

    /// The categories with their forms.
    pub fn categories(&self) -> impl Iterator<Item = (&str, Form)> {
        let clear = self.clear.iter().map(|c| (c.as_str(), Form::Clear));
        clear.chain(self.masked.iter().map(|c| (c.as_str(), Form::Any)))
    }
}

#[allow(clippy::ptr_arg, reason = "serde's signature")]
fn put_ids<S: Serializer>(ids: &Vec<Id>, to: S) -> Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    to.serialize_str(&STANDARD.encode(bytes))
}

fn get_ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Id>, D::Error> {
    let text = Cow::<str>::deserialize(from)?;
    let bytes = STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
    let (ids, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(serde::de::Error::custom("hashes of subjects have eight bytes each"));
    }
    Ok(ids.iter().map(|id| Id::from_be_bytes(*id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_torn_one_is_not() {
        let group = Group {
            table: "users".into(),
            clear: vec!["contact".into()],
            ids: vec![1, u64::MAX],
            rows: 3,
            ..Group::default()
        };
        assert_eq!(group.at_most(), 5);
        let text = serde_json::to_string(&group).unwrap();
        assert_eq!(serde_json::from_str::<Group>(&text).unwrap(), group);
        assert!(serde_json::from_str::<Group>(&text.replace("AAAAAAAAAAH//////////w==", "AAAA")).is_err());
    }
}
