//! Approvals: that each is signed by the key that the log itself registered for
//! that approver, over the request that the log itself holds, and that no grant lacks its signatures.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use ssh_key::public::KeyData;
use ssh_key::{PublicKey, SshSig};

use crate::enrolment::{self, Enrolled, SIGNED};
use crate::passkey;

/// The SSHSIG namespace: a signature for another purpose is no approval.
pub const NAMESPACE: &str = "ringfence-approval";

/// Verifies an approval over a request's canonical text: an SSH signature (SSHSIG, OpenSSH `PROTOCOL.sshsig`), or the assertion of a
/// passkey ([`passkey`]), by one of the approver's keys (OpenSSH lines). The error says what does not hold.
pub fn verify_signature(canonical: &str, signature: &str, public_keys: &str) -> Result<(), String> {
    let is_passkeys = signature.trim_start().starts_with('{');
    let ssh = if is_passkeys {
        None
    } else {
        Some(SshSig::from_pem(signature).map_err(|_| "it is not an SSH signature".to_owned())?)
    };
    let mut problem = "there is no key of theirs".to_owned();
    for line in public_keys.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let key = PublicKey::from_openssh(line).map_err(|e| format!("their public key: {e}"))?;
        let judged = match &ssh {
            Some(signature) => by_security_key(&key, signature).and_then(|()| {
                key.verify(NAMESPACE, canonical.as_bytes(), signature)
                    .map_err(|_| "it is not by their key over this request".to_owned())
            }),
            None => passkey::verify(canonical, signature, key.key_data()),
        };
        match judged {
            Ok(()) => return Ok(()),
            Err(e) => problem = e,
        }
    }
    Err(problem)
}

/// What an SSH signature by a security key needs besides (OpenSSH `PROTOCOL.u2f`): the key is one for SSH, and somebody was there. A
/// passkey's key is none: it signs by a browser, which shows what for.
fn by_security_key(key: &PublicKey, signature: &SshSig) -> Result<(), String> {
    let application = match key.key_data() {
        KeyData::SkEcdsaSha2NistP256(key) => key.application(),
        KeyData::SkEd25519(key) => key.application(),
        _ => return Ok(()),
    };
    if !application.starts_with("ssh:") {
        return Err("their key is a passkey's, which makes no SSH signatures".to_owned());
    }
    // The signature ends in a byte of flags and four of a counter.
    let blob = signature.signature().as_bytes();
    let flags = blob.len().checked_sub(5).and_then(|at| blob.get(at)).copied().unwrap_or(0);
    if flags & 1 == 0 {
        return Err("the security key has not made sure that somebody was there".to_owned());
    }
    Ok(())
}

/// What approvers sign, as far as the verifier must know it: the rest of the text is theirs to read.
struct Request {
    id: String,
    requester: String,
}

impl Request {
    /// Only the canonical text (RFC 8785) is a request: nothing else was signed.
    fn parse(canonical: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(canonical).map_err(|_| "is not JSON".to_owned())?;
        let again = serde_json_canonicalizer::to_string(&value).map_err(|e| e.to_string())?;
        if again != canonical {
            return Err("is not in canonical form (RFC 8785)".to_owned());
        }
        let text = |key: &str| value[key].as_str().map(str::to_owned).ok_or_else(|| format!("has no {key}"));
        Ok(Self { id: text("id")?, requester: text("requester")? })
    }
}

/// Follows the log and judges approvals and grants.
#[derive(Default)]
pub struct Approvals {
    keys: BTreeMap<String, String>,
    quorum: usize,
    requests: BTreeMap<String, String>,
    approved: BTreeMap<String, BTreeSet<String>>,
    /// How many signatures were verified.
    pub verified: u64,
    /// Whether the log has rules yet, and whether they ask that new keys be enrolled.
    has_rules: bool,
    must_enrol: bool,
    /// How many signatures of enrolments were verified.
    pub enrolled: u64,
}

#[derive(Deserialize)]
struct PolicyRecord {
    approver_keys: BTreeMap<String, String>,
    approvals: usize,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    rules: Option<String>,
    #[serde(default)]
    enrolment: Option<String>,
    #[serde(default)]
    enrolments: Vec<Enrolled>,
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

#[derive(Deserialize)]
struct FlowRecord {
    id: String,
    stage: String,
    #[serde(default)]
    plan: String,
}

/// What was done by a plan that approvers have signed.
#[derive(Deserialize)]
struct PlanRecord {
    id: String,
    plan: String,
}

fn read<'a, T: Deserialize<'a>>(record: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(record)
        .map_err(|_| "its record lacks what this kind of entry must have".to_owned())
}

impl Approvals {
    /// The policy, and with it the approvers' keys, as of here.
    pub fn policy(&mut self, record: &[u8]) -> Result<(), String> {
        let record: PolicyRecord = read(record)?;
        if record.rules.is_some_and(|rules| hex::encode(Sha256::digest(rules)) != record.digest) {
            return Err("its rules are not those that its digest is of".to_owned());
        }
        let asks = record.enrolment.as_deref() == Some(SIGNED);
        if self.must_enrol && !asks {
            return Err("its rules no longer ask that approvers' keys be enrolled by signature".to_owned());
        }
        if asks && self.has_rules {
            // A key that nobody has enrolled is nobody's here: what it signs later does not count either.
            let quorum = self.quorum;
            self.enrolled += enrolment::judge(&self.keys, &record.approver_keys, &record.enrolments, quorum)?;
        }
        (self.has_rules, self.must_enrol) = (true, asks);
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
        let request = Request::parse(canonical)?;
        if request.requester == record.approver {
            return Err("the requester approved their own request".to_owned());
        }
        verify_signature(canonical, &record.signature, key)
            .map_err(|problem| format!("the approval by {}: {problem}", record.approver))?;
        self.verified += 1;
        self.approved.entry(record.id).or_default().insert(record.approver);
        Ok(())
    }

    /// A grant.
    pub fn granted(&mut self, record: &[u8]) -> Result<(), String> {
        let record: GrantRecord = read(record)?;
        self.has_approvals("grant", &record.id)
    }

    /// An erasure's certificate.
    pub fn erased(&mut self, record: &[u8]) -> Result<(), String> {
        let record: PlanRecord = read(record)?;
        self.has_approvals("erasure", &record.id)?;
        self.is_of_plan("erase", &record.id, &record.plan)
    }

    /// A stage of a flow. To end one needs nobody's approval.
    pub fn flowed(&mut self, record: &[u8]) -> Result<(), String> {
        let record: FlowRecord = read(record)?;
        match record.stage.as_str() {
            "cut" | "closed" => Ok(()),
            _ => {
                self.has_approvals("flow", &record.id)?;
                self.is_of_plan("flow", &record.id, &record.plan)
            }
        }
    }

    /// Whether it says of itself that it is of the very text that was signed, and that text is a plan of this kind.
    fn is_of_plan(&self, what: &str, id: &str, digest: &str) -> Result<(), String> {
        let canonical = self.requests.get(id).map_or("", String::as_str);
        if hex::encode(Sha256::digest(canonical)) != digest {
            return Err(format!("it is not of the plan {id} that was signed"));
        }
        let plan: Value = serde_json::from_str(canonical).unwrap_or_default();
        if plan["what"] != what {
            return Err(format!("{id} was signed for something else"));
        }
        Ok(())
    }

    fn has_approvals(&self, what: &str, id: &str) -> Result<(), String> {
        let signed = self.approved.get(id).map_or(0, BTreeSet::len);
        if signed < self.quorum.max(1) {
            return Err(format!("the {what} {id} has {signed} approvals in the log, not {}", self.quorum));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An SSH signature by a security key, as OpenSSH makes it (`PROTOCOL.u2f`, `PROTOCOL.sshsig`): the line of the key, and the signature.
    fn by_security_key(application: &str, flags: u8, text: &str) -> (String, String) {
        use ed25519_dalek::Signer as _;
        use ssh_key::public::{Ed25519PublicKey, KeyData, SkEd25519};
        use ssh_key::{Algorithm, HashAlg, LineEnding, Signature};
        let secret = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let public = KeyData::SkEd25519(SkEd25519::new(
            Ed25519PublicKey(secret.verifying_key().to_bytes()),
            application,
        ));
        let asked = SshSig::signed_data(NAMESPACE, HashAlg::Sha512, text.as_bytes()).unwrap();
        let mut signed = Sha256::digest(application).to_vec();
        signed.extend([flags, 0, 0, 0, 9]);
        signed.extend(Sha256::digest(asked));
        let mut blob = secret.sign(&signed).to_bytes().to_vec();
        blob.extend([flags, 0, 0, 0, 9]);
        let signature = Signature::new(Algorithm::SkEd25519, blob).unwrap();
        let signature = SshSig::new(public.clone(), NAMESPACE, HashAlg::Sha512, signature).unwrap();
        (PublicKey::from(public).to_openssh().unwrap(), signature.to_pem(LineEnding::LF).unwrap())
    }

    #[test]
    fn a_security_key_signs_by_ssh_where_it_is_one_for_ssh_and_somebody_was_there() {
        let judged = |application: &str, flags: u8| {
            let (key, signature) = by_security_key(application, flags, "{}");
            verify_signature("{}", &signature, &key)
        };
        assert_eq!(judged("ssh:", 1), Ok(()));
        assert_eq!(judged("ssh:work", 5), Ok(()));
        assert!(judged("ssh:", 0).unwrap_err().contains("somebody was there"));
        // A passkey's key would sign for any page of its host, and shows nobody what for.
        assert!(judged("console.example", 5).unwrap_err().contains("passkey"));
        let (key, signature) = by_security_key("ssh:", 1, "{}");
        assert!(verify_signature("{ }", &signature, &key).is_err());
    }

    #[test]
    fn rules_that_ask_for_enrolment_go_on_asking_and_take_no_other_key() {
        let line = |seed: u8| {
            let secret = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
            let public = ssh_key::public::Ed25519PublicKey(secret.verifying_key().to_bytes());
            PublicKey::from(KeyData::Ed25519(public)).to_openssh().unwrap()
        };
        let rules = |keys: &[(&str, String)], asks: bool| {
            let keys: BTreeMap<&str, &String> = keys.iter().map(|(name, key)| (*name, key)).collect();
            let enrolment = if asks { r#","enrolment":"signed""# } else { "" };
            format!(
                r#"{{"approvals":1,"approver_keys":{}{enrolment}}}"#,
                serde_json::to_string(&keys).unwrap()
            )
        };
        let ann = [("ann", line(1))];
        let both = [("ann", line(1)), ("bob", line(2))];
        let mut approvals = Approvals::default();
        assert_eq!(approvals.policy(rules(&ann, true).as_bytes()), Ok(()), "where trust begins");
        assert_eq!(approvals.policy(rules(&ann, true).as_bytes()), Ok(()));
        let problem = approvals.policy(rules(&both, true).as_bytes()).unwrap_err();
        assert!(problem.contains("a key of bob is new") && !approvals.keys.contains_key("bob"), "{problem}");
        assert!(approvals.policy(rules(&ann, false).as_bytes()).unwrap_err().contains("no longer ask"));
        assert!(approvals.policy(rules(&both, true).as_bytes()).is_err(), "still");
        // Rules that never asked take what they are given, as before; asking and adding at once needs signatures.
        let mut never = Approvals::default();
        for keys in [&ann[..], &both[..], &ann[..]] {
            assert_eq!(never.policy(rules(keys, false).as_bytes()), Ok(()));
        }
        assert!(never.policy(rules(&both, true).as_bytes()).is_err());
    }

    #[test]
    fn what_needs_approvals_and_has_none_is_rejected() {
        let approvals = || Approvals { quorum: 2, ..Approvals::default() };
        let plan = r#"{"what":"flow"}"#;
        let digest = hex::encode(Sha256::digest(plan));
        let opened = format!(r#"{{"id":"F-1","stage":"opened","plan":"{digest}"}}"#);
        let problem = approvals().flowed(opened.as_bytes()).unwrap_err();
        assert!(problem.contains("the flow F-1 has 0 approvals"), "{problem}");
        assert!(approvals().flowed(br#"{"id":"F-1","stage":"checked"}"#).is_err());
        assert!(
            approvals().erased(br#"{"id":"E-1","plan":""}"#).is_err()
                && approvals().granted(br#"{"id":"R-1"}"#).is_err()
        );
        // To end a flow takes nobody's approval.
        for stage in ["cut", "closed"] {
            let record = format!(r#"{{"id":"F-1","stage":"{stage}"}}"#);
            assert_eq!(approvals().flowed(record.as_bytes()), Ok(()));
        }
        let mut one = approvals();
        one.approved.entry("F-1".to_owned()).or_default().insert("ann".to_owned());
        one.requests.insert("F-1".to_owned(), plan.to_owned());
        assert!(one.flowed(opened.as_bytes()).is_err());
        one.approved.entry("F-1".to_owned()).or_default().insert("bob".to_owned());
        assert_eq!(one.flowed(opened.as_bytes()), Ok(()));
        // Of another text than was signed, or of a text for something else.
        let other = opened.replace(&digest, &hex::encode(Sha256::digest("{}")));
        assert!(one.flowed(other.as_bytes()).unwrap_err().contains("not of the plan"));
        let erased = format!(r#"{{"id":"F-1","plan":"{digest}"}}"#);
        assert!(one.erased(erased.as_bytes()).unwrap_err().contains("for something else"));
    }
}
