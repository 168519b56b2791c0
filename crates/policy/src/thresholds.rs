//! How much of which data is too much: thresholds as data, and what happens at a share of one.
//!
//! The built-in list is that of 28 CFR 202.205. Whoever falls under another law adds to it in `registry.toml`; so it is part of
//! the rules, and each change of it is on record.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The thresholds of 28 CFR 202.205.
const BUILT_IN: &str = include_str!("../../../policies/28-cfr-202.205.toml");

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Data subjects, by the table's `subject`.
    #[default]
    Person,
    /// Their devices, by the table's `device`.
    Device,
}

/// A number of people (or devices) whose data one recipient may reach in twelve months before a law asks for more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Its name in the meter.
    pub name: String,
    /// Thresholds of one law combine with each other.
    pub law: String,
    /// Where it stands.
    pub section: String,
    /// Reached by more than so many.
    pub more_than: u64,
    /// Of what.
    #[serde(default)]
    pub unit: Unit,
    /// Whether data of several such categories together takes the lowest of their thresholds (28 CFR 202.205(g)).
    #[serde(default)]
    pub combines: bool,
    /// The catalogue's categories that count.
    pub categories: BTreeSet<String>,
}

/// What happens at a share of a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// The person is told, and the operator.
    Warn,
    /// Further people only under a grant that was asked for after the share was reached.
    Approve,
    /// No further people.
    Refuse,
}

/// Whom a limit is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipients {
    /// Everybody whose access crosses the border.
    #[default]
    All,
    /// Covered persons (28 CFR 202.211) and those who work for covered companies.
    Covered,
}

/// A limit at a share of every threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The share: 0.8 is 80 %, 1.0 the threshold itself.
    pub at: f64,
    /// What happens there.
    pub then: Measure,
    /// For whom.
    #[serde(default)]
    pub recipients: Recipients,
}

impl Limit {
    /// How many may be reached before it takes effect.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a number of people; checked to be positive, and exact to 2^52"
    )]
    pub fn allows(&self, more_than: u64) -> u64 {
        (self.at * more_than as f64).floor() as u64
    }
}

#[derive(Deserialize)]
struct File {
    thresholds: Vec<Threshold>,
}

/// The thresholds of 28 CFR 202.205.
pub fn built_in() -> Vec<Threshold> {
    toml::from_str::<File>(BUILT_IN).map(|file| file.thresholds).expect("the file is tested")
}

/// A warning at 80 %, and nothing more: what a company does about it is for its policy to say.
pub fn usual_limits() -> Vec<Limit> {
    vec![Limit { at: 0.8, then: Measure::Warn, recipients: Recipients::All }]
}

/// What is wrong with them.
pub(crate) fn problems(thresholds: &[Threshold], limits: &[Limit]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for threshold in thresholds {
        if !names.insert(&threshold.name) {
            problems.push(format!("the registry: there are two thresholds {}", threshold.name));
        }
        if threshold.categories.is_empty() {
            problems.push(format!("the registry: the threshold {} counts no category", threshold.name));
        }
    }
    for limit in limits.iter().filter(|l| !(l.at.is_finite() && l.at > 0.0)) {
        problems.push(format!("the registry: a limit at {} is no positive share of a threshold", limit.at));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_list_is_that_of_the_rule() {
        let numbers: Vec<(String, u64, Unit)> =
            built_in().into_iter().map(|t| (t.name, t.more_than, t.unit)).collect();
        let expected = [
            ("human-genomic", 100, Unit::Person),
            ("other-human-omic", 1_000, Unit::Person),
            ("biometric-identifiers", 1_000, Unit::Person),
            ("precise-geolocation", 1_000, Unit::Device),
            ("personal-health", 10_000, Unit::Person),
            ("personal-financial", 10_000, Unit::Person),
            ("covered-personal-identifiers", 100_000, Unit::Person),
        ];
        assert_eq!(numbers, expected.map(|(name, n, unit)| (name.to_owned(), n, unit)));
        assert!(built_in().iter().all(|t| t.combines), "202.205(g)");
        assert_eq!(problems(&built_in(), &usual_limits()), Vec::<String>::new());
        let bad = Limit { at: f64::NAN, then: Measure::Refuse, recipients: Recipients::All };
        assert_eq!(problems(&[built_in(), built_in()].concat(), &[bad]).len(), 8);
    }
}
