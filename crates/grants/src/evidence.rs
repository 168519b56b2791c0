//! What the ledger's verifier needs to know of approvals: that each is signed by the key that the log itself registered for
//! that approver, over the request that the log itself holds, and that no grant lacks its signatures.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::approval::Approval;
use crate::request::Request;

/// Follows the log and judges approvals and grants.
#[derive(Default)]
pub struct Approvals {
    keys: BTreeMap<String, String>,
    quorum: usize,
    requests: BTreeMap<String, String>,
    approved: BTreeMap<String, BTreeSet<String>>,
    /// How many signatures were verified.
    pub verified: u64,
}

#[derive(Deserialize)]
struct PolicyRecord {
    approver_keys: BTreeMap<String, String>,
    approvals: usize,
}

#[derive(Deserialize)]
struct RequestRecord {
    request: String,
}

#[derive(Deserialize)]
struct ApprovalRecord {
    id: String,
    approver: String,
    signature: String,
}

#[derive(Deserialize)]
struct GrantRecord {
    id: String,
}

fn read<'a, T: Deserialize<'a>>(record: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(record)
        .map_err(|_| "its record lacks what this kind of entry must have".to_owned())
}

impl Approvals {
    /// The policy, and with it the approvers' keys, as of here.
    pub fn policy(&mut self, record: &[u8]) -> Result<(), String> {
        let record: PolicyRecord = read(record)?;
        self.keys = record.approver_keys;
        self.quorum = record.approvals;
        Ok(())
    }

    /// A request. It may be there again, in the same words: a gateway that puts in force what another one, or it before a
    /// crash, took the signatures for has all it relies on in its log.
    pub fn requested(&mut self, record: &[u8]) -> Result<(), String> {
        let record: RequestRecord = read(record)?;
        let request = Request::parse(&record.request).map_err(|e| format!("the request {e}"))?;
        match self.requests.entry(request.id.clone()) {
            Entry::Occupied(known) if *known.get() != record.request => {
                Err(format!("the request {} is there twice, in different words", request.id))
            }
            Entry::Occupied(_) => Ok(()),
            Entry::Vacant(place) => {
                place.insert(record.request);
                Ok(())
            }
        }
    }

    /// An approval.
    pub fn approved(&mut self, record: &[u8]) -> Result<(), String> {
        let record: ApprovalRecord = read(record)?;
        let canonical =
            self.requests.get(&record.id).ok_or("it approves a request that the log does not have")?;
        let key = self
            .keys
            .get(&record.approver)
            .ok_or("it is by somebody who is no approver in the log's policy")?;
        let request = Request::parse(canonical).map_err(|e| e.to_string())?;
        if request.requester == record.approver {
            return Err("the requester approved their own request".to_owned());
        }
        let approval = Approval { approver: record.approver, signature: record.signature };
        approval.verify_text(canonical, key).map_err(|e| e.to_string())?;
        self.verified += 1;
        self.approved.entry(record.id).or_default().insert(approval.approver);
        Ok(())
    }

    /// A grant.
    pub fn granted(&mut self, record: &[u8]) -> Result<(), String> {
        let record: GrantRecord = read(record)?;
        let signed = self.approved.get(&record.id).map_or(0, BTreeSet::len);
        if signed < self.quorum.max(1) {
            return Err(format!(
                "the grant {} has {signed} approvals in the log, not {}",
                record.id, self.quorum
            ));
        }
        Ok(())
    }
}
