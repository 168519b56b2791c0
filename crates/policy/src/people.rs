//! The registry: jurisdictions, stores, teams, people, workloads, companies.
//!
//! There is no field for nationality, on purpose: citizens of a country of concern who are U.S. persons are not covered
//! persons (28 CFR 202.211, Example 2).

use std::collections::{BTreeMap, BTreeSet};

use ringfence_verifier::enrolment::Enrolled;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::thresholds::{self, Limit, Threshold};

/// Whose law protects the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jurisdiction {
    /// ISO country codes that count as inside.
    pub countries: BTreeSet<String>,
    /// Teams whose people may suspend access across the border, by a signed order: those of a regulator.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub regulators: BTreeSet<String>,
}

/// What a store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In the jurisdiction, at the trusted host.
    Trusted,
    /// To be emptied.
    Legacy,
    /// Public data only.
    Global,
}

impl StoreKind {
    /// The word for Cedar and for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Legacy => "legacy",
            Self::Global => "global",
        }
    }
}

/// What policy knows of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// The database name that clients ask for.
    pub name: String,
    /// Whose law protects its data.
    pub jurisdiction: String,
    /// Where it is: an ISO country code.
    pub location: String,
    /// What it is for.
    pub kind: StoreKind,
    /// Teams whose in-country members reach the base tables.
    #[serde(default)]
    pub full_access: BTreeSet<String>,
    /// Teams whose members approve requests.
    #[serde(default)]
    pub approvers: BTreeSet<String>,
    /// Teams that verify and see no data.
    #[serde(default)]
    pub auditors: BTreeSet<String>,
}

/// Whether a principal is a human.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalKind {
    /// A human: every statement is in the ledger.
    #[default]
    Person,
    /// A program.
    Workload,
}

/// How a principal proves who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// A password or a client certificate.
    #[default]
    Either,
    /// A password only.
    Password,
    /// A client certificate only.
    Certificate,
    /// A client certificate and a password.
    Both,
}

impl Proof {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// A person or a workload that connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// The user name.
    pub name: String,
    /// A human or a program.
    #[serde(default)]
    pub kind: PrincipalKind,
    /// Where they are: an ISO country code. Absent means unknown, which is treated as the most restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Where they primarily live, if elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residence: Option<String>,
    /// A company of the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub employer: Option<String>,
    /// A person of the jurisdiction (28 CFR 202.256): never covered by employment or residence.
    #[serde(default)]
    pub domestic: bool,
    /// Designated by the Attorney General (28 CFR 202.701).
    #[serde(default)]
    pub designated: bool,
    /// The teams they are in.
    #[serde(default)]
    pub teams: BTreeSet<String>,
    /// SCRAM-SHA-256 verifier in PostgreSQL's form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// How they prove who they are. Certificates count where the gateway has `client_ca`.
    #[serde(default, skip_serializing_if = "Proof::is_usual")]
    pub login: Proof,
    /// An approver's public keys, OpenSSH lines: of SSH keys, and of passkeys (`sk-…` with the console's host as application).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A company and who owns it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Company {
    /// Its name in this registry.
    pub name: String,
    /// The country whose law it is organised under.
    pub law: String,
    /// Where its principal place of business is, if elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal_place: Option<String>,
    /// Designated by the Attorney General (28 CFR 202.701).
    #[serde(default)]
    pub designated: bool,
    /// Who owns it.
    #[serde(default)]
    pub owners: Vec<Share>,
    /// What the certificates of its devices call it, besides its name here.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub devices: BTreeSet<String>,
}

/// A share of a company.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// A company of the registry, or a government as `government:CN`.
    pub owner: String,
    /// Per cent, 0 to 100, at most two decimals.
    pub percent: f64,
}

/// Everything policy knows about the world outside the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// By name: `us`, `eu`, …
    #[serde(default)]
    pub jurisdictions: BTreeMap<String, Jurisdiction>,
    /// Countries of concern; 28 CFR 202.601 unless given.
    #[serde(default = "countries_of_concern")]
    pub countries_of_concern: BTreeSet<String>,
    /// At how many per cent of ownership by covered persons a company is covered. 28 CFR 202.211 says 50; PADFA
    /// (15 USC 9901) says 20.
    #[serde(default = "ownership_threshold")]
    pub ownership_threshold: f64,
    /// How many approvers must sign a request.
    #[serde(default = "approvals")]
    pub approvals: usize,
    /// Whether new keys of approvers need the signatures of those who were there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<EnrolmentBy>,
    /// Those signatures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enrolments: Vec<Enrolled>,
    /// Who connects.
    #[serde(default)]
    pub people: Vec<Principal>,
    /// Whom they work for.
    #[serde(default)]
    pub companies: Vec<Company>,
    /// How much of which data is too much; 28 CFR 202.205 unless given.
    #[serde(default = "thresholds::built_in")]
    pub thresholds: Vec<Threshold>,
    /// What happens at a share of a threshold; a warning at 80 % unless given.
    #[serde(default = "thresholds::usual_limits")]
    pub limits: Vec<Limit>,
}

/// How an approver's key comes into the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnrolmentBy {
    /// With as many approvers' signatures as a grant needs ([`ringfence_verifier::enrolment`]).
    Signed,
}

/// 28 CFR 202.601; Hong Kong and Macau count as China (DOJ guidance).
pub fn countries_of_concern() -> BTreeSet<String> {
    ["CN", "HK", "MO", "CU", "IR", "KP", "RU", "VE"].map(str::to_owned).into()
}

fn ownership_threshold() -> f64 {
    50.0
}

fn approvals() -> usize {
    2
}

impl Registry {
    /// Reads a registry and checks that it fits together.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let registry: Self = toml::from_str(text)
            .map_err(|e| Error::Parse { what: "the registry".to_owned(), problem: e.to_string() })?;
        registry.check()?;
        Ok(registry)
    }

    fn check(&self) -> Result<(), Error> {
        let mut problems = Vec::new();
        let companies: BTreeSet<&str> = self.companies.iter().map(|c| c.name.as_str()).collect();
        let mut seen = BTreeSet::new();
        for person in &self.people {
            let name = &person.name;
            if !is_name(name) {
                problems.push(format!(
                    "the registry: {name:?} is not a name of letters, digits, '-', '_' and '.'"
                ));
            }
            if !seen.insert(name) {
                problems.push(format!("the registry: {name} is there twice"));
            }
            if let Some(employer) = person.employer.as_deref().filter(|e| !companies.contains(e)) {
                problems.push(format!(
                    "the registry: {name} works for {employer}, which is not among the companies"
                ));
            }
            for code in person.location.iter().chain(&person.residence).filter(|c| !is_country(c)) {
                problems
                    .push(format!("the registry: {name}: {code:?} is not a country code of two capitals"));
            }
        }
        let mut owners: BTreeSet<&str> = BTreeSet::new();
        for owner in self.companies.iter().flat_map(|c| std::iter::once(&c.name).chain(&c.devices)) {
            if !owners.insert(owner) {
                problems.push(format!("the registry: {owner:?} on a certificate would name two companies"));
            }
        }
        for company in &self.companies {
            let name = &company.name;
            for code in
                std::iter::once(&company.law).chain(&company.principal_place).filter(|c| !is_country(c))
            {
                problems
                    .push(format!("the registry: {name}: {code:?} is not a country code of two capitals"));
            }
            let mut sum = 0.0;
            for share in &company.owners {
                sum += share.percent;
                if !(0.0..=100.0).contains(&share.percent) {
                    problems.push(format!("the registry: {name}: {} per cent is not a share", share.percent));
                }
                if !companies.contains(share.owner.as_str()) && share.government().is_none() {
                    problems.push(format!(
                        "the registry: {name} is owned by {}, which is not there",
                        share.owner
                    ));
                }
            }
            if sum > 100.005 {
                problems.push(format!("the registry: {name}: its owners hold {sum} per cent"));
            }
        }
        if !(0.0..=100.0).contains(&self.ownership_threshold) || self.ownership_threshold == 0.0 {
            problems.push("the registry: ownership_threshold must be above 0 and at most 100".to_owned());
        }
        problems.extend(thresholds::problems(&self.thresholds, &self.limits));
        if self.approvals == 0 {
            problems.push("the registry: approvals must be 1 or more".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
    }

    /// Finds who connects.
    pub fn principal(&self, name: &str) -> Option<&Principal> {
        self.people.iter().find(|p| p.name == name)
    }
}

impl Share {
    /// The country whose government holds the share.
    pub fn government(&self) -> Option<&str> {
        self.owner.strip_prefix("government:").filter(|c| is_country(c))
    }
}

impl Principal {
    /// The location for policy: a country code, or `unknown`.
    pub fn place(&self) -> &str {
        self.location.as_deref().unwrap_or("unknown")
    }

    /// Whether this is a human.
    pub fn is_person(&self) -> bool {
        self.kind == PrincipalKind::Person
    }
}

fn is_country(code: &str) -> bool {
    code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase())
}

fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}
