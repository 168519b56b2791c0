//! A regulator's switch: orders that suspend access to a jurisdiction's data across the border, and lift that. Each is signed by somebody
//! whom the rules on record name for it; while a suspension stands in a log, no statement from abroad may stand behind it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::approvals::verify_signature;
use crate::record::{Kind, Leaf};

/// How much later a statement may stand in the log that was let in before the order came, in milliseconds: what is on its way when a
/// machine is busy.
const ON_ITS_WAY: u64 = 10_000;

/// What a regulator signs, in canonical JSON (RFC 8785).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Version of this format.
    pub v: u8,
    /// Its name.
    pub id: String,
    /// What is ordered.
    pub what: What,
    /// The suspension that a resumption lifts, and no other: an order that is shown again lifts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifts: Option<String>,
    /// Whose data.
    pub jurisdiction: String,
    /// Who orders it.
    pub by: String,
    /// Why; people who are cut off read it.
    pub reason: String,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
}

/// See [`Order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Nothing crosses from here on.
    Suspend,
    /// It may again.
    Resume,
}

impl Order {
    /// The text that is signed.
    pub fn canonical(&self) -> Result<String, String> {
        serde_json_canonicalizer::to_string(self).map_err(|e| e.to_string())
    }

    /// Reads a canonical text back; anything else is refused.
    pub fn parse(text: &str) -> Result<Self, String> {
        let order: Self = serde_json::from_str(text).map_err(|_| "is no order of this format".to_owned())?;
        if order.v != 1 || order.lifts.is_some() != (order.what == What::Resume) {
            return Err("is no order of this format".to_owned());
        }
        if order.canonical()? != text {
            return Err("is not in canonical form (RFC 8785)".to_owned());
        }
        Ok(order)
    }
}

/// The private record of a [`Kind::Suspended`] or [`Kind::Resumed`] entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrderRecord {
    /// The canonical text.
    pub order: String,
    /// By the regulator: SSHSIG, or a passkey's assertion.
    pub signature: String,
}

#[derive(Deserialize)]
struct PolicyRecord {
    #[serde(default)]
    regulators: BTreeMap<String, BTreeMap<String, String>>,
}

/// A suspension that stands.
#[derive(Clone, Debug)]
struct Standing {
    /// Its name, where the record is there.
    id: Option<String>,
    /// When it came into the log.
    time: u64,
}

/// Follows a log and judges orders, and what stands behind them.
#[derive(Default)]
pub struct Orders {
    /// Keys by jurisdiction and name.
    regulators: BTreeMap<String, BTreeMap<String, String>>,
    suspended: BTreeMap<String, Standing>,
    /// How many signatures were verified.
    pub verified: u64,
}

impl Orders {
    /// The next entry, with its private record where that is there. The error says what does not hold.
    pub fn entry(&mut self, leaf: &Leaf, record: Option<&[u8]>) -> Result<(), String> {
        match leaf.kind {
            Kind::PolicyChanged => {
                let Some(record) = record else { return Ok(()) };
                let record: PolicyRecord = serde_json::from_slice(record)
                    .map_err(|_| "its record lacks what this kind of entry must have".to_owned())?;
                self.regulators = record.regulators;
                Ok(())
            }
            Kind::Suspended => {
                let order = record.map(|record| self.order(leaf, record)).transpose();
                let id = order.as_ref().ok().and_then(|order| Some(order.as_ref()?.id.clone()));
                // Whether it is good or not, what stands behind it is said to be suspended.
                self.suspended.entry(leaf.jurisdiction.clone()).or_insert(Standing { id, time: leaf.time });
                match order? {
                    Some(order) if order.what != What::Suspend => {
                        Err("its order suspends nothing".to_owned())
                    }
                    _ => Ok(()),
                }
            }
            Kind::Resumed => {
                let order = record.map(|record| self.order(leaf, record)).transpose()?;
                let standing = self.suspended.get(&leaf.jurisdiction).and_then(|s| s.id.as_deref());
                if let Some(order) = &order {
                    let is_of_it = order.lifts.is_some() && order.lifts.as_deref() == standing;
                    if !is_of_it {
                        return Err(format!("the order {} lifts no suspension that stands", order.id));
                    }
                }
                self.suspended.remove(&leaf.jurisdiction);
                Ok(())
            }
            Kind::Intent if leaf.from.is_some() => match self.suspended.get(&leaf.jurisdiction) {
                Some(standing) if leaf.time > standing.time + ON_ITS_WAY => Err(format!(
                    "crossed the border while access to data of {} was suspended",
                    leaf.jurisdiction
                )),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn order(&mut self, leaf: &Leaf, record: &[u8]) -> Result<Order, String> {
        let record: OrderRecord = serde_json::from_slice(record)
            .map_err(|_| "its record lacks what this kind of entry must have".to_owned())?;
        let order = Order::parse(&record.order).map_err(|e| format!("the order {e}"))?;
        if order.jurisdiction != leaf.jurisdiction {
            return Err("its order is about another jurisdiction".to_owned());
        }
        let key = self.regulators.get(&order.jurisdiction).and_then(|theirs| theirs.get(&order.by));
        let key = key.ok_or_else(|| {
            format!("{} is no regulator of {} in the log's policy", order.by, order.jurisdiction)
        })?;
        verify_signature(&record.order, &record.signature, key)
            .map_err(|problem| format!("the order by {}: {problem}", order.by))?;
        self.verified += 1;
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use serde_json::json;
    use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, rand_core::OsRng};

    use super::*;
    use crate::approvals::NAMESPACE;
    use crate::record::Counters;

    fn leaf(kind: Kind, time: u64) -> Leaf {
        Leaf {
            v: 1,
            kind,
            time,
            jurisdiction: if kind == Kind::PolicyChanged { "-" } else { "us" }.to_owned(),
            counters: Counters::default(),
            from: (kind == Kind::Intent).then(|| "SG".to_owned()),
            covered: false,
            commitment: String::new(),
        }
    }

    fn order(id: &str, lifts: Option<&str>, jurisdiction: &str, by: &str) -> Order {
        Order {
            v: 1,
            id: id.to_owned(),
            what: if lifts.is_some() { What::Resume } else { What::Suspend },
            lifts: lifts.map(str::to_owned),
            jurisdiction: jurisdiction.to_owned(),
            by: by.to_owned(),
            reason: "r".to_owned(),
            created: 7,
        }
    }

    fn signed(key: &PrivateKey, order: &Order) -> Vec<u8> {
        let text = order.canonical().unwrap();
        let signature = key.sign(NAMESPACE, HashAlg::Sha512, text.as_bytes()).unwrap();
        let signature = signature.to_pem(LineEnding::LF).unwrap();
        serde_json::to_vec(&OrderRecord { order: text, signature }).unwrap()
    }

    fn key() -> PrivateKey {
        PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap()
    }

    #[test]
    fn nothing_crosses_behind_an_order_until_the_one_that_lifts_it() {
        let (doj, ann) = (key(), key());
        let public = |key: &PrivateKey| key.public_key().to_openssh().unwrap();
        let rules = json!({
            "digest": "d", "approvals": 2, "approver_keys": { "ann": public(&ann) },
            "regulators": { "us": { "doj": public(&doj) } },
        });
        let begun = || {
            let mut orders = Orders::default();
            orders.entry(&leaf(Kind::PolicyChanged, 0), Some(rules.to_string().as_bytes())).unwrap();
            orders
        };
        let mut orders = begun();
        orders.entry(&leaf(Kind::Intent, 1), None).unwrap();
        let suspend = signed(&doj, &order("S-1", None, "us", "doj"));
        orders.entry(&leaf(Kind::Suspended, 100), Some(&suspend)).unwrap();
        orders.entry(&leaf(Kind::Intent, 100 + ON_ITS_WAY), None).unwrap();
        let problem = orders.entry(&leaf(Kind::Intent, 101 + ON_ITS_WAY), None).unwrap_err();
        assert!(problem.contains("crossed the border while"), "{problem}");
        let mut inside = leaf(Kind::Intent, 200_000);
        inside.from = None;
        orders.entry(&inside, None).unwrap();
        // The same again, as a gateway says that starts anew, moves no time.
        orders.entry(&leaf(Kind::Suspended, 150_000), Some(&suspend)).unwrap();
        assert!(orders.entry(&leaf(Kind::Intent, 150_001), None).is_err());
        // What lifts another one lifts nothing, nor does one that somebody else signed, or signed for another country.
        for (what, record) in [
            ("another one", signed(&doj, &order("S-2", Some("S-0"), "us", "doj"))),
            ("another key", signed(&ann, &order("S-2", Some("S-1"), "us", "doj"))),
            ("no regulator", signed(&ann, &order("S-2", Some("S-1"), "us", "ann"))),
            ("another country", signed(&doj, &order("S-2", Some("S-1"), "eu", "doj"))),
            ("no resumption", signed(&doj, &order("S-2", None, "us", "doj"))),
        ] {
            assert!(orders.entry(&leaf(Kind::Resumed, 160_000), Some(&record)).is_err(), "{what}");
            assert!(orders.entry(&leaf(Kind::Intent, 160_001), None).is_err(), "{what}");
        }
        let lifted = signed(&doj, &order("S-2", Some("S-1"), "us", "doj"));
        orders.entry(&leaf(Kind::Resumed, 170_000), Some(&lifted)).unwrap();
        orders.entry(&leaf(Kind::Intent, 170_001), None).unwrap();
        // The public half alone shows what crossed, too.
        let mut public_half = begun();
        public_half.entry(&leaf(Kind::Suspended, 100), None).unwrap();
        assert!(public_half.entry(&leaf(Kind::Intent, 50_000), None).is_err());
        public_half.entry(&leaf(Kind::Resumed, 60_000), None).unwrap();
        public_half.entry(&leaf(Kind::Intent, 60_001), None).unwrap();
    }

    #[test]
    fn only_the_canonical_text_is_an_order() {
        let text = order("S-1", Some("S-0"), "us", "doj").canonical().unwrap();
        assert_eq!(Order::parse(&text).unwrap().lifts.as_deref(), Some("S-0"));
        for other in [
            text.replace(':', ": "),
            text.replace("\"v\":1", "\"v\":2"),
            text.replace("resume", "suspend"),
            text.replace("\"lifts\":\"S-0\",", ""),
            text.replace("\"id\"", "\"ID\""),
            text.replace('{', "{\"x\":1,"),
            String::new(),
        ] {
            assert!(Order::parse(&other).is_err(), "{other}");
        }
    }
}
