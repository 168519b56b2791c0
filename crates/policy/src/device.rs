//! Devices: what somebody comes with, and whose it is, as far as a certificate says.

use serde::Serialize;
use serde_json::{Value, json};

use crate::people::{Principal, Registry};

/// A device, as its certificate names it. Who reads it off has verified the certificate by an authority for devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Device {
    /// Its own name: a serial number, say.
    pub id: String,
    /// Whose it is, in the certificate's words.
    pub owner: String,
}

impl Device {
    /// The company of the registry whose device it is. `None` where the certificate names no company that the registry knows: to
    /// policy that is no device at all.
    pub fn company<'a>(&self, registry: &'a Registry) -> Option<&'a str> {
        let is_its = |c: &&crate::people::Company| c.name == self.owner || c.devices.contains(&self.owner);
        registry.companies.iter().find(is_its).map(|company| company.name.as_str())
    }

    /// The device that a page presumes where nobody has come yet: one of the person's employer.
    pub fn presumed(principal: &Principal) -> Option<Self> {
        let owner = principal.employer.clone()?;
        Some(Self { id: "presumed".to_owned(), owner })
    }
}

/// What policies know of a request besides who and what: `context.device`, where there is one, and `context.grant`.
pub(crate) fn context(registry: &Registry, device: Option<&Device>, grant: Option<&str>) -> Value {
    let mut context = json!({});
    if let Some((device, company)) = device.and_then(|device| Some((device, device.company(registry)?))) {
        let company = json!({ "__entity": { "type": "Ringfence::Company", "id": company } });
        context["device"] = json!({ "id": device.id, "owner": company });
    }
    if let Some(grant) = grant {
        context["grant"] = json!({ "__entity": { "type": "Ringfence::Grant", "id": grant } });
    }
    context
}
