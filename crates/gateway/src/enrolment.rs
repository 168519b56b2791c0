//! Whether new rules may come into force: approvers' keys that are new in them are enrolled, with the signatures of approvers who were there
//! before, where the registry asks for it ([`ringfence_verifier::enrolment`]). Refused here, and found by the verifier where a gateway
//! would not refuse.

use std::collections::BTreeMap;
use std::path::Path;

use ringfence_policy::{EnrolmentBy, Policy};
use ringfence_verifier::enrolment::judge;
use ringfence_verifier::record::{Kind, Sealed};
use ringfence_verifier::segment;
use serde::Deserialize;

/// What the rules before say of it, as a log has them.
#[derive(Deserialize)]
pub(crate) struct Before {
    approvals: usize,
    approver_keys: BTreeMap<String, String>,
    #[serde(default)]
    enrolment: Option<EnrolmentBy>,
}

impl Before {
    /// The rules in force.
    pub(crate) fn of(policy: &Policy) -> Self {
        let registry = policy.registry();
        Self {
            approvals: registry.approvals,
            approver_keys: policy.approver_keys(),
            enrolment: registry.enrolment,
        }
    }

    /// The last rules that a log has; none in a new log.
    pub(crate) fn of_log(dir: &Path) -> Result<Option<Self>, ringfence_verifier::Error> {
        let is_rules = |entry: &Sealed| entry.parse_leaf().is_ok_and(|leaf| leaf.kind == Kind::PolicyChanged);
        let Some(last) = segment::last(dir, is_rules)? else { return Ok(None) };
        // Rules are never erased, and what cannot be read is not passed over.
        let read = last.record().and_then(|record| serde_json::from_slice(record).ok());
        read.map(Some)
            .ok_or_else(|| ringfence_verifier::Error::corrupt(dir, "the last rules on record cannot be read"))
    }

    /// The error says what is wrong with `next`, and what to do.
    pub(crate) fn must_allow(&self, next: &Policy) -> Result<(), String> {
        let registry = next.registry();
        match (self.enrolment, registry.enrolment) {
            (None, None) => Ok(()),
            (Some(EnrolmentBy::Signed), None) => Err(
                "the rules on record ask that approvers' keys be enrolled by signature (enrolment = \"signed\"), and these do not"
                    .to_owned(),
            ),
            (_, Some(EnrolmentBy::Signed)) => {
                judge(&self.approver_keys, &next.approver_keys(), &registry.enrolments, self.approvals)
                    .map(drop)
                    .map_err(|problem| format!("{problem}: `ringfence enrol` makes what they sign"))
            }
        }
    }
}
