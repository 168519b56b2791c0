//! `[[flows]]` of `ringfence.toml`.

use std::path::Path;

use ringfence_policy::{Catalogue, Registry};
use ringfence_residency::flow::{End, Flow};
use serde::Deserialize;

use crate::command::Failure;
use crate::config::{Reader, parse, the_one};
use crate::moves::SideFile;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FlowFile {
    /// Its name: letters, digits, underscores.
    name: String,
    /// The store that has the rows, in their jurisdiction.
    from: String,
    /// What the other end is called.
    to: String,
    /// The country where that is.
    location: String,
    /// The contract that it serves, as approvers and auditors read it.
    contract: String,
    /// The tables whose public columns go.
    tables: Vec<String>,
    /// How to reach the one end.
    source: SideFile,
    /// And the other.
    target: SideFile,
}

/// A flow, and what it needs to know of the rules.
pub(crate) struct LoadedFlow {
    pub(crate) of: Flow,
    pub(crate) catalogue: Catalogue,
    /// The jurisdiction's countries.
    pub(crate) countries: Vec<String>,
}

/// Reads one flow: the one that is named, or the only one.
pub(crate) fn load(path: &Path, name: Option<&str>) -> Result<LoadedFlow, Failure> {
    let (mut file, dir) = parse(path)?;
    let found = the_one(std::mem::take(&mut file.flows), |one| &one.name, name, "flows", "flow")?;
    let mut reader = Reader { dir: &dir, problems: Vec::new() };
    let what = format!("flow {}", found.name);
    let store = file.stores.iter().find(|s| s.store.name == found.from);
    let source = found.source.read(&format!("{what}, source"), &mut reader);
    let target = found.target.read(&format!("{what}, target"), &mut reader);
    let registry = reader.text(&file.policy.registry);
    let registry = reader.keep("registry", Registry::parse(&registry));
    let catalogue = store.map(|s| reader.text(&s.catalogue));
    let catalogue = catalogue.and_then(|text| reader.keep("catalogue", Catalogue::parse(&text)));
    let jurisdiction = store.map(|s| s.store.jurisdiction.clone());
    if jurisdiction.is_none() {
        reader.problems.push(format!("{what}: there is no store {}", found.from));
    }
    if found.contract.trim().is_empty() {
        reader.problems.push(format!("{what}: it names no contract"));
    }
    let countries = registry.as_ref().and_then(|r| r.jurisdictions.get(jurisdiction.as_ref()?));
    match (source, target, catalogue, jurisdiction, countries) {
        (Some(source), Some(target), Some(catalogue), Some(jurisdiction), Some(countries))
            if reader.problems.is_empty() =>
        {
            let end = |name: &str, reached: crate::moves::Reached| End {
                name: name.to_owned(),
                admin: reached.admin,
                replication: reached.replication,
                role: reached.role,
            };
            let of = Flow {
                from: end(&found.from, source),
                to: end(&found.to, target),
                name: found.name,
                jurisdiction,
                contract: found.contract,
                location: found.location.to_ascii_uppercase(),
                tables: found.tables,
            };
            Ok(LoadedFlow { of, catalogue, countries: countries.countries.iter().cloned().collect() })
        }
        _ => Err(Failure::setup(format!(
            "{} has problems:\n  {}",
            path.display(),
            reader.problems.join("\n  ")
        ))),
    }
}
