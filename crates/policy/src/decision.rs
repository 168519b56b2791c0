//! The decision: typed Cedar entities in, an outcome out.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, Schema, ValidationMode, Validator,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::catalogue::Catalogue;
use crate::device::{Device, context};
use crate::ownership::{Coverage, CoveredCompanies, coverage, covered_companies};
use crate::people::{Principal, PrincipalKind, Registry, Store};

/// The schema that policies are validated against.
pub const SCHEMA: &str = include_str!("../../../policies/ringfence.cedarschema");
/// The policies of an installation that has no others.
pub const DEFAULT_POLICIES: &str = include_str!("../../../policies/default.cedar");

/// How a principal stands to a store's jurisdiction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Inside the country.
    InCountry,
    /// Outside, at this place.
    Outside(String),
    /// Nobody knows where.
    Unknown,
    /// A covered person, wherever they are.
    Covered(Coverage),
}

/// Whether and how a principal may use a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Not at all; the text says why and what to do.
    Refused(String),
    /// The base tables as they are.
    Full,
    /// Through a face.
    Face,
}

/// What one sees of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visibility {
    /// The view does not have it.
    Absent,
    /// Through its mask.
    Masked,
    /// As it is.
    Clear,
}

/// What one sees of a column, by itself and by grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnOutcome {
    /// Without any grant.
    pub base: Visibility,
    /// The grants that show it in clear.
    pub granted_by: Vec<String>,
}

/// What one policy outcome lets one see of a store: what a face is compiled from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By table, then by column. Tables of which nothing is visible are not there.
    pub tables: BTreeMap<String, BTreeMap<String, ColumnOutcome>>,
}

/// The part of a grant that policy looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantScope {
    /// The grant's name.
    pub id: String,
    /// The table.
    pub table: String,
    /// Its columns that were signed for.
    pub columns: BTreeSet<String>,
}

/// Registry, catalogues and policies that fit together: one version of the rules.
pub struct Policy {
    schema: Schema,
    policies: PolicySet,
    entities: Entities,
    registry: Registry,
    covered: CoveredCompanies,
    stores: BTreeMap<String, (Store, Catalogue)>,
    digest: String,
    rules: String,
}

/// What Cedar says.
enum Verdict<'a> {
    Permitted,
    Refused {
        /// What to do, by the words of a policy that forbids it (`@advice("…")`).
        advice: Option<&'a str>,
    },
}

impl Verdict<'_> {
    fn is_permitted(&self) -> bool {
        matches!(self, Self::Permitted)
    }
}

fn uid(kind: &str, id: &str) -> Value {
    json!({ "type": format!("Ringfence::{kind}"), "id": id })
}

fn reference(kind: &str, id: &str) -> Value {
    json!({ "__entity": uid(kind, id) })
}

fn parse_uid(kind: &str, id: &str) -> Result<EntityUid, Error> {
    EntityUid::from_json(uid(kind, id)).map_err(|e| Error::Undecided(e.to_string()))
}

fn kind_of(principal: &Principal) -> &'static str {
    match principal.kind {
        PrincipalKind::Person => "Person",
        PrincipalKind::Workload => "Workload",
    }
}

fn table_id(store: &str, table: &str) -> String {
    format!("{store}/{table}")
}

fn column_id(store: &str, table: &str, column: &str) -> String {
    format!("{store}/{table}.{column}")
}

impl Policy {
    /// Validates everything together; all problems are in the error at once.
    pub fn new(registry: Registry, stores: Vec<(Store, Catalogue)>, policies: &str) -> Result<Self, Error> {
        let parse = |what: &str, e: String| Error::Parse { what: what.to_owned(), problem: e };
        let (schema, _) =
            Schema::from_cedarschema_str(SCHEMA).map_err(|e| parse("the schema", e.to_string()))?;
        let set: PolicySet = policies.parse().map_err(|e| parse("the policies", format!("{e:?}")))?;
        let validation = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        let mut problems: Vec<String> =
            validation.validation_errors().map(|e| format!("the policies: {e}")).collect();
        for (store, _) in &stores {
            if !registry.jurisdictions.contains_key(&store.jurisdiction) {
                problems
                    .push(format!("store {}: there is no jurisdiction {}", store.name, store.jurisdiction));
            }
        }
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let rules = rules(&registry, &stores, policies);
        let digest = hex::encode(Sha256::digest(&rules));
        let covered = covered_companies(&registry);
        let stores: BTreeMap<_, _> = stores.into_iter().map(|(s, c)| (s.name.clone(), (s, c))).collect();
        let entities = build_entities(&registry, &covered, &stores);
        let entities = Entities::from_json_value(entities, Some(&schema))
            .map_err(|e| parse("the registry as Cedar entities", format!("{e:?}")))?;
        Ok(Self { schema, policies: set, entities, registry, covered, stores, digest, rules })
    }

    /// SHA-256 over registry (without passwords), catalogues and policies, in hex: the version that decisions and the
    /// ledger name.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The text that [`Self::digest`] is of: registry (without passwords), catalogues and policies as JSON.
    pub fn rules(&self) -> &str {
        &self.rules
    }

    /// Who connects, for whom they work, where.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A store and its catalogue.
    pub fn store(&self, name: &str) -> Option<&(Store, Catalogue)> {
        self.stores.get(name)
    }

    /// All stores.
    pub fn stores(&self) -> impl Iterator<Item = &(Store, Catalogue)> {
        self.stores.values()
    }

    /// Why `principal` is a covered person, if so.
    pub fn coverage(&self, principal: &Principal) -> Option<Coverage> {
        coverage(&self.registry, &self.covered, principal)
    }

    /// Why a company is covered, if so.
    pub fn company_coverage(&self, company: &str) -> Option<&Coverage> {
        self.covered.get(company)
    }

    /// Policies that can never apply: Cedar proves it, or they name something that does not exist.
    pub fn never_apply(&self) -> Vec<String> {
        let validation = Validator::new(self.schema.clone()).validate(&self.policies, ValidationMode::Strict);
        let mut found: Vec<String> = validation
            .validation_warnings()
            .filter(|w| matches!(w, cedar_policy::ValidationWarning::ImpossiblePolicy(_)))
            .map(|w| format!("policy {} can never apply", self.name_of(w.policy_id())))
            .collect();
        for policy in self.policies.policies() {
            for literal in policy.entity_literals() {
                let is_action = literal.type_name().to_string().ends_with("Action");
                if !is_action && self.entities.get(&literal).is_none() {
                    let name = self.name_of(policy.id());
                    found.push(format!("policy {name} can never apply: there is no {literal}"));
                }
            }
        }
        found
    }

    fn name_of(&self, id: &cedar_policy::PolicyId) -> String {
        let named = self.policies.policy(id).and_then(|p| p.annotation("id")).filter(|n| !n.is_empty());
        named.map_or_else(|| id.to_string(), str::to_owned)
    }

    fn find(&self, principal: &str, store: &str) -> Result<(&Principal, &Store, &Catalogue), Error> {
        let (store, catalogue) =
            self.stores.get(store).ok_or_else(|| Error::Undecided(format!("there is no store {store}")))?;
        let principal = self.registry.principal(principal);
        let principal = principal.ok_or_else(|| Error::Undecided("there is no such principal".to_owned()))?;
        Ok((principal, store, catalogue))
    }

    fn permits(
        &self,
        principal: &EntityUid,
        action: &EntityUid,
        resource: EntityUid,
        context: Context,
        entities: &Entities,
    ) -> Result<Verdict<'_>, Error> {
        let request = Request::new(principal.clone(), action.clone(), resource, context, Some(&self.schema))
            .map_err(|e| Error::Undecided(e.to_string()))?;
        let response = Authorizer::new().is_authorized(&request, &self.policies, entities);
        // A policy that fails to evaluate would silently not forbid: refuse instead.
        if let Some(error) = response.diagnostics().errors().next() {
            return Err(Error::Undecided(error.to_string()));
        }
        let forbidding = || response.diagnostics().reason().filter_map(|id| self.policies.policy(id));
        Ok(match response.decision() {
            Decision::Allow => Verdict::Permitted,
            Decision::Deny => {
                Verdict::Refused { advice: forbidding().filter_map(|p| p.annotation("advice")).min() }
            }
        })
    }

    fn permits_store(
        &self,
        principal: &Principal,
        action: &str,
        store: &Store,
        context: Context,
    ) -> Result<Verdict<'_>, Error> {
        let who = parse_uid(kind_of(principal), &principal.name)?;
        let action = parse_uid("Action", action)?;
        let resource = parse_uid("Store", &store.name)?;
        self.permits(&who, &action, resource, context, &self.entities)
    }

    /// What policies know of a request for `action`, beside who and what.
    fn context(&self, action: &str, device: Option<&Device>, grant: Option<&str>) -> Result<Context, Error> {
        let action = parse_uid("Action", action)?;
        let context = context(&self.registry, device, grant);
        Context::from_json_value(context, Some((&self.schema, &action)))
            .map_err(|e| Error::Undecided(e.to_string()))
    }

    /// Whether and how `principal` may use `store`, coming with `device`.
    pub fn access(&self, principal: &str, store: &str, device: Option<&Device>) -> Result<Access, Error> {
        let (principal, store, _) = self.find(principal, store)?;
        let context = |action| self.context(action, device, None);
        if let Verdict::Refused { advice } =
            self.permits_store(principal, "connect", store, context("connect")?)?
        {
            return Ok(Access::Refused(self.why_no_connect(principal, store, advice)));
        }
        let full = self.permits_store(principal, "full_access", store, context("full_access")?)?;
        Ok(if full.is_permitted() { Access::Full } else { Access::Face })
    }

    fn why_no_connect(&self, principal: &Principal, store: &Store, advice: Option<&str>) -> String {
        let name = &principal.name;
        // Who wrote the policy says best what to do.
        if let Some(advice) = advice {
            return advice.to_owned();
        }
        if principal.teams.intersection(&store.auditors).next().is_some() {
            return format!("{name} is an auditor and verifies the ledger; auditors reach no user data");
        }
        match self.standing(principal, store) {
            Standing::InCountry => {
                format!("no policy lets {name} connect to {} ({})", store.name, store.kind.word())
            }
            Standing::Outside(place) => {
                format!("{name} is in {place}; {} is for its in-country operators only", store.name)
            }
            Standing::Unknown => {
                format!("nobody attested where {name} is; {} is for in-country operators", store.name)
            }
            Standing::Covered(why) => {
                format!("{}; {} is for its in-country operators only", why.because, store.name)
            }
        }
    }

    /// Whether statements are counted instead of logged one by one.
    pub fn is_counted(&self, principal: &str, store: &str, device: Option<&Device>) -> Result<bool, Error> {
        let (principal, store, _) = self.find(principal, store)?;
        let context = self.context("count_only", device, None)?;
        Ok(self.permits_store(principal, "count_only", store, context)?.is_permitted())
    }

    /// `Err` says why `principal` may not sign requests for `store`.
    pub fn may_approve(&self, principal: &str, store: &str) -> Result<Result<(), String>, Error> {
        let (principal, store, _) = self.find(principal, store)?;
        let name = &principal.name;
        let verdict = || self.permits_store(principal, "approve", store, Context::empty());
        if principal.is_person() && verdict()?.is_permitted() {
            return Ok(Ok(()));
        }
        Ok(Err(match self.standing(principal, store) {
            Standing::Covered(why) => {
                format!("{}: a covered person (28 CFR 202.211) cannot approve", why.because)
            }
            Standing::Outside(place) => {
                format!(
                    "{name} is in {place}, outside the jurisdiction {}: cannot approve",
                    store.jurisdiction
                )
            }
            Standing::Unknown => format!("nobody attested where {name} is: cannot approve"),
            Standing::InCountry => {
                format!("{name} is not in the security team of {}: cannot approve", store.name)
            }
        }))
    }

    /// Whether somebody may sign requests for any store.
    pub fn approves_somewhere(&self, principal: &Principal) -> bool {
        self.stores().any(|(store, _)| {
            self.may_approve(&principal.name, &store.name).is_ok_and(|verdict| verdict.is_ok())
        })
    }

    /// Whether somebody reads the private records about `store`, and requests of others: who approves or audits it, and only in the
    /// country. Statements and conditions have people's data in them, which stays there, and no covered person sees it.
    pub fn reads_records(&self, principal: &Principal, store: &Store) -> bool {
        let is_theirs = [&store.approvers, &store.auditors].iter().any(|of| !principal.teams.is_disjoint(of));
        is_theirs && self.standing(principal, store) == Standing::InCountry
    }

    /// Whether somebody is in a team that approves at some store, so that a key of theirs could sign; whether it may is decided each time.
    pub fn is_approver(&self, person: &Principal) -> bool {
        self.stores().any(|(store, _)| !store.approvers.is_disjoint(&person.teams))
    }

    /// The keys of those who approve at any store, by name.
    pub fn approver_keys(&self) -> BTreeMap<String, String> {
        let people = self.registry.people.iter().filter(|person| self.is_approver(person));
        people.filter_map(|p| Some((p.name.clone(), p.key.clone()?))).collect()
    }

    /// Whether somebody may suspend access across the border to a jurisdiction's data, and lift that.
    pub fn regulates(&self, principal: &Principal, jurisdiction: &str) -> bool {
        let found = self.registry.jurisdictions.get(jurisdiction);
        principal.is_person() && found.is_some_and(|j| !j.regulators.is_disjoint(&principal.teams))
    }

    /// How `principal` stands to the jurisdiction of `store`.
    pub fn standing(&self, principal: &Principal, store: &Store) -> Standing {
        if let Some(coverage) = self.coverage(principal) {
            return Standing::Covered(coverage);
        }
        let inside = self.registry.jurisdictions.get(&store.jurisdiction);
        match principal.location.as_deref() {
            None => Standing::Unknown,
            Some(place) if inside.is_some_and(|j| j.countries.contains(place)) => Standing::InCountry,
            Some(place) => Standing::Outside(place.to_owned()),
        }
    }

    /// What `principal`, coming with `device`, sees of `store`, by default and by `grants` (which the caller has verified).
    pub fn outcome(
        &self,
        principal: &str,
        store: &str,
        device: Option<&Device>,
        grants: &[GrantScope],
    ) -> Result<Outcome, Error> {
        self.outcome_where(principal, store, device, grants, |_| true)
    }

    /// The same of one table, for a page that shows no other.
    pub fn outcome_of_table(
        &self,
        principal: &str,
        store: &str,
        table: &str,
        device: Option<&Device>,
        grants: &[GrantScope],
    ) -> Result<Outcome, Error> {
        self.outcome_where(principal, store, device, grants, |name| name == table)
    }

    fn outcome_where(
        &self,
        principal: &str,
        store: &str,
        device: Option<&Device>,
        grants: &[GrantScope],
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Outcome, Error> {
        let (principal, store, catalogue) = self.find(principal, store)?;
        let who = parse_uid(kind_of(principal), &principal.name)?;
        let with_context =
            |action: &str| Ok((parse_uid("Action", action)?, self.context(action, device, None)?));
        let (clear, masked) = (with_context("see_clear")?, with_context("see_masked")?);
        let mut outcome = Outcome::default();
        for (table, classified) in catalogue.tables.iter().filter(|(name, _)| is_wanted(name)) {
            let mut columns = BTreeMap::new();
            for column in classified.columns.keys() {
                let resource = || parse_uid("Column", &column_id(&store.name, table, column));
                let sees = |(action, context): &(EntityUid, Context)| {
                    let verdict = self.permits(&who, action, resource()?, context.clone(), &self.entities);
                    verdict.map(|v| v.is_permitted())
                };
                let base = if sees(&clear)? {
                    Visibility::Clear
                } else if sees(&masked)? {
                    Visibility::Masked
                } else {
                    Visibility::Absent
                };
                columns.insert(column.clone(), ColumnOutcome { base, granted_by: Vec::new() });
            }
            outcome.tables.insert(table.clone(), columns);
        }
        for grant in grants {
            self.apply(grant, principal, &who, device, store, &mut outcome)?;
        }
        outcome.tables.retain(|_, columns| {
            columns.values().any(|c| c.base != Visibility::Absent || !c.granted_by.is_empty())
        });
        Ok(outcome)
    }

    fn apply(
        &self,
        grant: &GrantScope,
        principal: &Principal,
        who: &EntityUid,
        device: Option<&Device>,
        store: &Store,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let undecided = |e: String| Error::Undecided(e);
        let columns: Vec<Value> = grant
            .columns
            .iter()
            .map(|c| reference("Column", &column_id(&store.name, &grant.table, c)))
            .collect();
        let entity = json!([{
            "uid": uid("Grant", &grant.id),
            "attrs": {
                "holder": reference(kind_of(principal), &principal.name),
                "store": reference("Store", &store.name),
                "columns": columns,
            },
            "parents": [],
        }]);
        let entities = self.entities.clone();
        let entities = entities
            .add_entities_from_json_value(entity, Some(&self.schema))
            .map_err(|e| undecided(format!("{e:?}")))?;
        let clear = parse_uid("Action", "see_clear")?;
        let context = self.context("see_clear", device, Some(&grant.id))?;
        let Some(table) = outcome.tables.get_mut(&grant.table) else { return Ok(()) };
        for (column, seen) in table.iter_mut().filter(|(c, _)| grant.columns.contains(*c)) {
            let resource = parse_uid("Column", &column_id(&store.name, &grant.table, column))?;
            if self.permits(who, &clear, resource, context.clone(), &entities)?.is_permitted() {
                seen.granted_by.push(grant.id.clone());
            }
        }
        Ok(())
    }
}

fn rules(registry: &Registry, stores: &[(Store, Catalogue)], policies: &str) -> String {
    let mut public = registry.clone();
    for person in &mut public.people {
        person.password = None;
    }
    serde_json::to_string(&(public, stores, policies)).expect("plain data with string keys")
}

fn build_entities(
    registry: &Registry,
    covered: &CoveredCompanies,
    stores: &BTreeMap<String, (Store, Catalogue)>,
) -> Value {
    let mut out = Vec::new();
    let mut entity = |uid: Value, attrs: Value, parents: Vec<Value>| {
        out.push(json!({ "uid": uid, "attrs": attrs, "parents": parents }));
    };
    let mut teams: BTreeSet<&String> = registry.people.iter().flat_map(|p| &p.teams).collect();
    for (store, _) in stores.values() {
        teams.extend(store.full_access.iter().chain(&store.approvers).chain(&store.auditors));
    }
    for team in teams {
        entity(uid("Team", team), json!({}), vec![]);
    }
    for company in &registry.companies {
        let attrs = json!({ "law": company.law, "covered": covered.contains_key(&company.name) });
        entity(uid("Company", &company.name), attrs, vec![]);
    }
    for person in &registry.people {
        let is_covered = coverage(registry, covered, person).is_some();
        let mut attrs = json!({ "location": person.place(), "covered": is_covered });
        if let Some(employer) = &person.employer {
            attrs["employer"] = reference("Company", employer);
        }
        let parents = person.teams.iter().map(|t| uid("Team", t)).collect();
        entity(uid(kind_of(person), &person.name), attrs, parents);
    }
    for (name, (store, catalogue)) in stores {
        let refs = |teams: &BTreeSet<String>| teams.iter().map(|t| reference("Team", t)).collect::<Vec<_>>();
        let countries = registry.jurisdictions.get(&store.jurisdiction).map(|j| &j.countries);
        let attrs = json!({
            "jurisdiction": store.jurisdiction,
            "countries": countries,
            "kind": store.kind.word(),
            "full_access": refs(&store.full_access),
            "approvers": refs(&store.approvers),
            "auditors": refs(&store.auditors),
        });
        entity(uid("Store", name), attrs, vec![]);
        for (table, classified) in &catalogue.tables {
            let category = json!({ "category": classified.category });
            entity(uid("Table", &table_id(name, table)), category, vec![uid("Store", name)]);
            for (column, class) in &classified.columns {
                let attrs = json!({
                    "table": reference("Table", &table_id(name, table)),
                    "store": reference("Store", name),
                    "class": class.class(),
                    "category": class.category(),
                });
                let parent = uid("Table", &table_id(name, table));
                entity(uid("Column", &column_id(name, table, column)), attrs, vec![parent]);
            }
        }
    }
    Value::Array(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::StoreKind;

    const REGISTRY: &str = r#"
        jurisdictions = { us = { countries = ["US"] } }
        companies = [{ name = "clips-cn", law = "CN" }, { name = "clips-sg", law = "SG" }]
        people = [
          { name = "us-engineer", location = "US", domestic = true, teams = ["us-data"] },
          { name = "us-approver-1", location = "US", domestic = true, teams = ["us-security"] },
          { name = "singapore-analyst", location = "SG", employer = "clips-sg" },
          { name = "singapore-approver", location = "SG", employer = "clips-sg", teams = ["us-security"] },
          { name = "beijing-engineer", location = "CN", employer = "clips-cn", teams = ["us-security", "us-data"] },
          { name = "nomad", employer = "clips-sg" },
          { name = "auditor", location = "US", domestic = true, teams = ["audit"] },
          { name = "feed-service", kind = "workload", location = "US", domestic = true, teams = ["us-data"] },
        ]"#;
    const CATALOGUE: &str = r#"
        [tables.users.columns]
        id = "public"
        email = { protected = "contact", kind = "email" }
        [tables.messages]
        category = "direct-messages"
        [tables.messages.columns]
        id = "public"
        body = { protected = "communication", kind = "text" }
        [tables.profiles.columns]
        handle = "public""#;

    fn store(name: &str, kind: StoreKind) -> Store {
        let teams = |t: &str| BTreeSet::from([t.to_owned()]);
        Store {
            name: name.to_owned(),
            jurisdiction: "us".to_owned(),
            location: "US".to_owned(),
            kind,
            full_access: teams("us-data"),
            approvers: teams("us-security"),
            auditors: teams("audit"),
        }
    }

    fn policy() -> Policy {
        let catalogue = Catalogue::parse(CATALOGUE).unwrap();
        let stores = vec![
            (store("us", StoreKind::Trusted), catalogue.clone()),
            (store("legacy", StoreKind::Legacy), catalogue),
        ];
        Policy::new(Registry::parse(REGISTRY).unwrap(), stores, DEFAULT_POLICIES).unwrap()
    }

    fn email(outcome: &Outcome) -> Option<&ColumnOutcome> {
        outcome.tables.get("users")?.get("email")
    }

    #[test]
    fn the_default_policies_decide_as_the_readme_says() {
        let policy = policy();
        let access = |who: &str, store: &str| policy.access(who, store, None).unwrap();
        assert_eq!(access("us-engineer", "us"), Access::Full);
        assert_eq!(access("feed-service", "us"), Access::Full);
        assert_eq!(access("us-approver-1", "us"), Access::Face);
        assert_eq!(access("singapore-analyst", "us"), Access::Face);
        assert_eq!(access("beijing-engineer", "us"), Access::Face, "covered: never full, whatever the team");
        assert!(matches!(access("auditor", "us"), Access::Refused(why) if why.contains("auditor")));
        assert_eq!(access("us-engineer", "legacy"), Access::Full);
        assert!(matches!(access("singapore-analyst", "legacy"), Access::Refused(why) if why.contains("SG")));
        assert!(matches!(access("beijing-engineer", "legacy"), Access::Refused(_)));
        assert!(policy.is_counted("feed-service", "us", None).unwrap());
        assert!(!policy.is_counted("us-engineer", "us", None).unwrap());

        let sees = |who: &str| policy.outcome(who, "us", None, &[]).unwrap();
        assert_eq!(email(&sees("singapore-analyst")).unwrap().base, Visibility::Masked);
        for who in ["beijing-engineer", "nomad"] {
            assert_eq!(email(&sees(who)).unwrap().base, Visibility::Absent, "{who}");
            assert_eq!(sees(who).tables["profiles"]["handle"].base, Visibility::Clear, "{who}");
        }
        for who in ["singapore-analyst", "beijing-engineer", "nomad", "us-approver-1"] {
            assert!(!sees(who).tables.contains_key("messages"), "{who}");
        }
    }

    #[test]
    fn a_device_is_what_a_certificate_says_of_a_company_that_the_registry_knows() {
        let asking = r#"
            @id("ours") @advice("come with a machine of clips-sg")
            forbid (principal, action == Ringfence::Action::"connect", resource)
            when { principal has employer }
            unless { context has device && context.device.owner == Ringfence::Company::"clips-sg" };
            @id("sealed")
            forbid (principal, action == Ringfence::Action::"see_clear", resource)
            when { context has device && context.device.id == "SN-2" };"#;
        let registry =
            REGISTRY.replace(r#"law = "SG" }"#, r#"law = "SG", devices = ["Clips Singapore Pte. Ltd."] }"#);
        let stores = vec![(store("us", StoreKind::Trusted), Catalogue::parse(CATALOGUE).unwrap())];
        let policies = format!("{DEFAULT_POLICIES}{asking}");
        let policy = Policy::new(Registry::parse(&registry).unwrap(), stores, &policies).unwrap();
        let device = |owner: &str, id: &str| Device { owner: owner.to_owned(), id: id.to_owned() };
        let access = |who: &str, device: Option<&Device>| policy.access(who, "us", device).unwrap();
        let advice = Access::Refused("come with a machine of clips-sg".to_owned());
        assert_eq!(access("singapore-analyst", None), advice);
        assert_eq!(
            access("singapore-analyst", Some(&device("Acme", "SN-1"))),
            advice,
            "nobody's of the registry"
        );
        for owner in ["clips-sg", "Clips Singapore Pte. Ltd."] {
            assert_eq!(access("singapore-analyst", Some(&device(owner, "SN-1"))), Access::Face, "{owner}");
        }
        let presumed = Device::presumed(policy.registry().principal("singapore-analyst").unwrap());
        assert_eq!(access("singapore-analyst", presumed.as_ref()), Access::Face);
        // A covered company's machine is no place for full access; columns may depend on it, too.
        assert_eq!(access("us-engineer", None), Access::Full);
        assert_eq!(access("us-engineer", Some(&device("clips-cn", "SN-3"))), Access::Face);
        let grant = GrantScope { id: "g1".into(), table: "users".into(), columns: ["email".into()].into() };
        for (id, opened) in [("SN-1", true), ("SN-2", false)] {
            let device = device("clips-sg", id);
            let seen = policy.outcome("singapore-analyst", "us", Some(&device), std::slice::from_ref(&grant));
            assert_eq!(email(&seen.unwrap()).unwrap().granted_by == ["g1"], opened, "{id}");
        }
        let twice = registry.replace("Clips Singapore Pte. Ltd.", "clips-cn");
        assert!(Registry::parse(&twice).unwrap_err().to_string().contains("two companies"));
    }

    #[test]
    fn a_grant_opens_what_was_signed_for_and_never_messages() {
        let policy = policy();
        let columns = |c: &[&str]| c.iter().map(|c| (*c).to_owned()).collect();
        let emails = GrantScope { id: "g1".into(), table: "users".into(), columns: columns(&["email"]) };
        let bodies =
            GrantScope { id: "g2".into(), table: "messages".into(), columns: columns(&["id", "body"]) };
        for (who, opened) in [("singapore-analyst", true), ("beijing-engineer", true), ("nomad", false)] {
            let outcome = policy.outcome(who, "us", None, &[emails.clone(), bodies.clone()]).unwrap();
            assert_eq!(email(&outcome).unwrap().granted_by == ["g1"], opened, "{who}");
            assert!(!outcome.tables.contains_key("messages"), "{who}");
        }
    }

    #[test]
    fn only_the_in_country_security_team_approves_and_others_hear_why() {
        let policy = policy();
        let may = |who: &str| policy.may_approve(who, "us").unwrap();
        assert_eq!(may("us-approver-1"), Ok(()));
        for (who, why) in [
            ("us-engineer", "not in the security team"),
            ("singapore-approver", "outside the jurisdiction"),
            ("beijing-engineer", "28 CFR 202.211"),
            ("nomad", "nobody attested"),
        ] {
            assert!(may(who).unwrap_err().contains(why), "{who}: {:?}", may(who));
        }
    }

    #[test]
    fn policies_that_do_not_fit_the_schema_or_the_world_are_named() {
        let catalogue = || Catalogue::parse(CATALOGUE).unwrap();
        let with = |text: &str| {
            let stores = vec![(store("us", StoreKind::Trusted), catalogue())];
            Policy::new(Registry::parse(REGISTRY).unwrap(), stores, text)
        };
        assert!(
            with("permit(principal, action, resource) when { principal.nationality == \"CN\" };").is_err()
        );
        let typo = r#"@id("typo") permit(principal in Ringfence::Team::"us-dta", action, resource is Ringfence::Store);"#;
        assert!(with(typo).unwrap().never_apply()[0].contains("us-dta"));
        let impossible =
            r#"@id("dead") permit(principal, action, resource is Ringfence::Store) when { false };"#;
        assert_eq!(with(impossible).unwrap().never_apply(), ["policy dead can never apply"]);
        assert_eq!(policy().never_apply(), Vec::<String>::new());
    }
}
