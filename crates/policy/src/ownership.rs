//! Covered persons, 28 CFR 202.211(a): by ownership in aggregate, by law or place of business, by employment, by
//! residence, by designation. Never by nationality.

use std::collections::BTreeMap;

use crate::people::{Company, Principal, Registry};

/// The paragraph of 28 CFR 202.211(a) that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// (1): owned by countries of concern or organised or based in one.
    CountryOfConcern,
    /// (2): owned by covered persons.
    OwnedByCovered,
    /// (3): employee or contractor of a covered entity.
    Employment,
    /// (4): primarily resident in a country of concern.
    Residence,
    /// (5): designated by the Attorney General.
    Designated,
}

/// Why somebody is covered, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The paragraph.
    pub rule: Rule,
    /// A sentence that names the facts.
    pub because: String,
}

/// The covered companies and why.
pub type CoveredCompanies = BTreeMap<String, Coverage>;

/// Hundredths of a per cent, so that 25.1 + 24.9 is 50 exactly.
fn hundredths(percent: f64) -> i64 {
    #[allow(clippy::cast_possible_truncation, reason = "at most 100 per cent, checked by the registry")]
    let rounded = (percent * 100.0).round() as i64;
    rounded
}

/// Finds the covered companies: those that are so by themselves, then, to a fix-point, those that covered owners hold
/// enough of together. An owner that is covered counts with its whole share, however indirectly it is covered itself.
pub fn covered_companies(registry: &Registry) -> CoveredCompanies {
    let mut covered = CoveredCompanies::new();
    loop {
        let before = covered.len();
        for company in &registry.companies {
            if !covered.contains_key(&company.name)
                && let Some(coverage) = judge(registry, company, &covered)
            {
                covered.insert(company.name.clone(), coverage);
            }
        }
        if covered.len() == before {
            return covered;
        }
    }
}

fn judge(registry: &Registry, company: &Company, covered: &CoveredCompanies) -> Option<Coverage> {
    let name = &company.name;
    let concern = |country: &str| registry.countries_of_concern.contains(country);
    if company.designated {
        return Some(Coverage { rule: Rule::Designated, because: format!("{name} is designated") });
    }
    if concern(&company.law) {
        let because = format!("{name} is organised under the law of {}", company.law);
        return Some(Coverage { rule: Rule::CountryOfConcern, because });
    }
    if let Some(place) = company.principal_place.as_deref().filter(|p| concern(p)) {
        let because = format!("{name} has its principal place of business in {place}");
        return Some(Coverage { rule: Rule::CountryOfConcern, because });
    }
    let counted: Vec<_> = company
        .owners
        .iter()
        .filter(|s| s.government().is_some_and(concern) || covered.contains_key(&s.owner))
        .collect();
    let sum: i64 = counted.iter().map(|s| hundredths(s.percent)).sum();
    if counted.is_empty() || sum < hundredths(registry.ownership_threshold) {
        return None;
    }
    let by_government = counted.iter().all(|s| s.government().is_some());
    let rule = if by_government { Rule::CountryOfConcern } else { Rule::OwnedByCovered };
    let holders: Vec<String> = counted.iter().map(|s| format!("{} ({} %)", s.owner, s.percent)).collect();
    Some(Coverage { rule, because: format!("{name} is owned by {}", holders.join(" and ")) })
}

/// Whether a person or workload is covered, and by which paragraph.
pub fn coverage(registry: &Registry, companies: &CoveredCompanies, who: &Principal) -> Option<Coverage> {
    if who.designated {
        return Some(Coverage { rule: Rule::Designated, because: format!("{} is designated", who.name) });
    }
    if who.domestic {
        return None;
    }
    if let Some((employer, why)) = who.employer.as_ref().and_then(|e| Some((e, companies.get(e)?))) {
        let because = format!("{} works for {employer}: {}", who.name, why.because);
        return Some(Coverage { rule: Rule::Employment, because });
    }
    let home = who.residence.as_ref().or(who.location.as_ref());
    home.filter(|h| registry.countries_of_concern.contains(*h)).map(|home| Coverage {
        rule: Rule::Residence,
        because: format!("{} primarily resides in {home}", who.name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(text: &str) -> Registry {
        Registry::parse(text).unwrap()
    }

    #[test]
    fn half_in_aggregate_and_indirectly_is_covered_and_less_is_not() {
        let registry = registry(
            r#"
            companies = [
              { name = "parent", law = "KY", owners = [{ owner = "government:CN", percent = 25.1 }, { owner = "fund", percent = 24.9 }] },
              { name = "fund", law = "SG", principal_place = "HK" },
              { name = "sub", law = "SG", owners = [{ owner = "parent", percent = 50.0 }] },
              { name = "minor", law = "SG", owners = [{ owner = "parent", percent = 49.99 }, { owner = "sub2", percent = 50.01 }] },
              { name = "sub2", law = "US" },
            ]"#,
        );
        let covered = covered_companies(&registry);
        assert_eq!(covered.keys().collect::<Vec<_>>(), ["fund", "parent", "sub"]);
        assert_eq!(covered["fund"].rule, Rule::CountryOfConcern);
        assert_eq!(covered["sub"].rule, Rule::OwnedByCovered);
        assert!(covered["parent"].because.contains("government:CN (25.1 %) and fund (24.9 %)"));
    }

    #[test]
    fn a_ring_of_owners_ends_and_the_threshold_is_a_parameter() {
        let text = r#"
            companies = [
              { name = "a", law = "SG", owners = [{ owner = "b", percent = 60 }] },
              { name = "b", law = "SG", owners = [{ owner = "a", percent = 60 }, { owner = "government:RU", percent = 20 }] },
            ]"#;
        assert!(covered_companies(&registry(text)).is_empty());
        let padfa = registry(&format!("ownership_threshold = 20.0\n{text}"));
        assert_eq!(covered_companies(&padfa).len(), 2);
    }

    #[test]
    fn people_are_covered_by_work_or_home_and_never_when_domestic() {
        let registry = registry(
            r#"
            companies = [{ name = "cn-co", law = "CN" }, { name = "sg-co", law = "SG" }]
            people = [
              { name = "worker", location = "SG", employer = "cn-co" },
              { name = "resident", location = "SG", residence = "CN", employer = "sg-co" },
              { name = "analyst", location = "SG", employer = "sg-co" },
              { name = "american", location = "US", employer = "cn-co", domestic = true },
              { name = "listed", location = "US", domestic = true, designated = true },
            ]"#,
        );
        let companies = covered_companies(&registry);
        let rules: Vec<_> =
            registry.people.iter().map(|p| coverage(&registry, &companies, p).map(|c| c.rule)).collect();
        assert_eq!(
            rules,
            [Some(Rule::Employment), Some(Rule::Residence), None, None, Some(Rule::Designated)]
        );
    }
}
