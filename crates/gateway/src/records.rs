//! The private records of ledger entries. They stay in the jurisdiction; the public leaf only commits to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfence_verifier::enrolment::Enrolled;

use ringfence_ledger::{Counters, Entry, Kind};
use ringfence_meter::Group;
use ringfence_policy::{Device, EnrolmentBy, Proof};
use ringfence_verifier::manifest::Mention;
use serde::Serialize;

use crate::frame::Body;

/// The most bytes of parameters in a record.
const MAX_PARAMETERS: usize = 16 * 1024;

/// What a session is, said once, when it opens.
#[derive(Clone, Debug, Serialize)]
pub struct SessionRecord {
    /// The session's name in all its entries.
    pub session: String,
    /// Who.
    pub principal: String,
    /// From where.
    pub location: String,
    /// For whom they work.
    pub employer: Option<String>,
    /// Why they are a covered person, if they are.
    pub covered: Option<String>,
    /// The store.
    pub store: String,
    /// The face, or `full`.
    pub face: String,
    /// The role that the store sees.
    pub role: String,
    /// Whether its statements are counted, not recorded one by one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub counted: bool,
    /// The store's process, to match its server log; 0 where it changes between transactions.
    pub process: i32,
    /// The grants in force.
    pub grants: Vec<String>,
    /// The version of the rules.
    pub policy: String,
    /// How they proved who they are.
    pub login: Proof,
    /// What they came with, by a certificate of an authority for devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The client's address.
    pub address: String,
    /// What the client calls itself.
    pub application: String,
}

/// A statement that is about to run.
#[derive(Debug, Serialize)]
pub struct IntentRecord<'a> {
    /// The session.
    pub session: &'a str,
    /// The statement's number in it.
    pub n: u64,
    /// Who.
    pub principal: &'a str,
    /// The store.
    pub store: &'a str,
    /// The SQL; absent where an entry before has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<&'a str>,
    /// The entry that has the SQL, if entries after this one may name it; it can be this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextOf>,
    /// What the names in it stand for, where it is an EXECUTE or a FETCH.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stands_for: Vec<StandsFor<'a>>,
    /// The gateway could not read the text as the store does, is not sure what a name stands for, or has
    /// recorded the beginning of a text only: the statement may reach anything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not_understood: bool,
    /// SHA-256 of the texts by which the gateway asks whom it reaches, as its login, in hex.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<String>,
    /// It reads a view, or may run code of the store that is not PostgreSQL's own: it may reach more than its
    /// text names.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reaches_more: bool,
    /// The settings that the text is read under, where they are not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<ReadUnder>,
    /// Its parameters; binary ones in hex after `\x`.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub parameters: &'a [Box<str>],
}

/// Which entry has a text: that of statement `entry` of the same session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TextOf {
    /// The number of the statement in the session.
    pub entry: u64,
    /// SHA-256 of the text, in hex.
    pub digest: Arc<str>,
}

/// What a name stands for.
#[derive(Debug, Serialize)]
pub struct StandsFor<'a> {
    /// The prepared statement or cursor.
    pub name: &'a str,
    /// The text, if no entry before has it; then `of` names this entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<&'a str>,
    /// The entry that has the text.
    #[serde(flatten)]
    pub of: TextOf,
    /// The settings that the text was read under, where they are not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<ReadUnder>,
}

/// Settings that change where a literal ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadUnder {
    /// `on`, `off`, or `unsure`.
    pub standard_conforming_strings: &'static str,
    /// The encoding, or `other`.
    pub client_encoding: &'static str,
}

/// How a statement ended.
#[derive(Debug, Serialize)]
pub struct OutcomeRecord<'a> {
    /// The session.
    pub session: &'a str,
    /// The statement's number in it.
    pub n: u64,
    /// Who.
    pub principal: &'a str,
    /// `ok`, `error` with its SQLSTATE, or `cut` with the reason.
    pub ended: &'a str,
    /// Rows charged to each limited grant.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub charged: BTreeMap<&'a str, u64>,
    /// Whose data it showed again that day.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reached: Vec<Group>,
}

/// Something that was refused.
#[derive(Debug, Serialize)]
pub struct RefusedRecord<'a> {
    /// The session, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<&'a str>,
    /// Who.
    pub principal: &'a str,
    /// The store, or what was to be done.
    pub store: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The SQL, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<&'a str>,
    /// SHA-256 of the SQL in hex, where an entry of the session has it already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<&'a str>,
    /// Where a login came from that was refused: an address, or the network of a subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<&'a str>,
    /// How many times: logins that are refused for the same reason are summed up.
    #[serde(skip_serializing_if = "is_one")]
    pub times: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_one(times: &u64) -> bool {
    *times == 1
}

/// A session's end.
#[derive(Debug, Serialize)]
pub struct ClosedRecord<'a> {
    /// The session.
    pub session: &'a str,
    /// Who.
    pub principal: &'a str,
    /// Why it ended.
    pub reason: &'a str,
}

/// Statements of a workload, of one minute.
#[derive(Debug, Serialize)]
pub struct CountedRecord<'a> {
    /// Who.
    pub principal: &'a str,
    /// The store.
    pub store: &'a str,
    /// By shape.
    pub shapes: Vec<ShapeCount>,
}

/// Statements of one shape.
#[derive(Debug, Serialize)]
pub struct ShapeCount {
    /// The shape's id ([`ringfence_statement::shape::Shape::id`]). Logs of before 2026-11-29 have
    /// libpg_query's fingerprint here, of 16 digits.
    pub fingerprint: String,
    /// The text without its constants.
    pub statement: String,
    /// What it runs by name, where it is an EXECUTE or a FETCH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stands_for: Option<StandsForShape>,
    /// How often it ran.
    pub statements: u64,
    /// Rows let through.
    pub rows: u64,
}

/// The shape that a name stands for.
#[derive(Debug, Serialize)]
pub struct StandsForShape {
    /// The shape's id.
    pub fingerprint: String,
    /// The text without its constants.
    pub statement: String,
}

/// The rules from here on.
#[derive(Debug, Serialize)]
pub struct PolicyRecord {
    /// Digest of registry, catalogues and policies.
    pub digest: String,
    /// How many approvals a request needs.
    pub approvals: usize,
    /// The approvers' public keys, with which the log's approvals verify.
    pub approver_keys: BTreeMap<String, String>,
    /// The public keys of those who may suspend access across the border, by jurisdiction and name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub regulators: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether new keys of approvers need the signatures of those who were there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<EnrolmentBy>,
    /// Those signatures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enrolments: Vec<Enrolled>,
    /// The text that the digest is of, unless it is too long: what an auditor judges an access by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
}

/// The gateway's start or stop.
#[derive(Debug, Serialize)]
pub struct GatewayRecord<'a> {
    /// Its version.
    pub version: &'a str,
    /// Why it stopped, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The manifest of logs that it started with, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<&'a Mention>,
}

/// Makes an outcome entry.
pub fn outcome(jurisdiction: &str, record: &OutcomeRecord<'_>, rows: u64, bytes: u64) -> Entry {
    Entry::new(Kind::Outcome, jurisdiction, record).counting(Counters { rows, bytes, ..Counters::default() })
}

/// The parameters of a Bind message, after its names, as a record keeps them.
pub fn parameters(mut body: Body<'_>) -> Option<Vec<Box<str>>> {
    let formats: Option<Vec<u16>> = (0..body.u16()?).map(|_| body.u16()).collect();
    let formats = formats?;
    let count = body.u16()?;
    let mut kept = Vec::new();
    let mut budget = MAX_PARAMETERS;
    for i in 0..usize::from(count) {
        let length = body.i32()?;
        if length < 0 {
            kept.push("NULL".into());
            continue;
        }
        let value = body.take(usize::try_from(length).ok()?)?;
        let is_binary = match formats[..] {
            [] => false,
            [one] => one != 0,
            ref each => each.get(i).is_some_and(|f| *f != 0),
        };
        let shown = &value[..value.len().min(budget)];
        budget -= shown.len();
        let mut text = match std::str::from_utf8(shown) {
            Ok(text) if !is_binary => text.to_owned(),
            _ => format!("\\x{}", hex::encode(shown)),
        };
        if shown.len() < value.len() {
            text.push('…');
        }
        kept.push(text.into());
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_kept_as_text_or_hex_and_bounded() {
        let mut body = vec![0, 2, 0, 0, 0, 1, 0, 3];
        body.extend(b"\0\0\0\x02ab\0\0\0\x01\xff\xff\xff\xff\xff");
        assert_eq!(
            parameters(Body(&body)).unwrap(),
            ["ab".into(), "\\xff".into(), "NULL".into()] as [Box<str>; 3]
        );
        assert_eq!(parameters(Body(&body[..body.len() - 1])), None);
        let long = [&b"\0\0\0\x01\0\x01\0\0"[..], &vec![b'x'; 65536]].concat();
        let kept = parameters(Body(&long)).unwrap();
        assert_eq!(kept[0].chars().count(), MAX_PARAMETERS + 1);
    }
}
