//! Whom to believe: [C2SP tlog-policy](https://c2sp.org/tlog-policy), a file that names logs, witnesses, groups of them, and
//! the quorum whose cosignatures make a checkpoint valid.

use std::collections::{BTreeMap, BTreeSet};

use crate::cosignature::Cosigner;
use crate::keys;

/// The longest file that is read, in bytes.
const MAX_FILE: usize = 1 << 20;

/// What is wrong with a policy file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct QuorumError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// A log of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its public key.
    pub vkey: String,
    /// Where it is, if the file says so.
    pub url: Option<String>,
}

/// A witness of the policy.
#[derive(Clone, Debug)]
pub struct Witness {
    /// What the file calls it.
    pub name: String,
    /// Its key.
    pub key: Cosigner,
    /// Where to send checkpoints (the submission prefix), if the file says so.
    pub url: Option<String>,
}

/// What a name stands for. Members are named by their places in the list of rules, all before the group's own.
#[derive(Clone, Debug)]
enum Rule {
    Witness(usize),
    Group { at_least: usize, members: Vec<usize> },
}

/// A trust policy.
#[derive(Clone, Debug)]
pub struct Quorum {
    /// The logs that are believed.
    pub logs: Vec<Log>,
    /// The witnesses that are known.
    pub witnesses: Vec<Witness>,
    rules: Vec<Rule>,
    /// The rule that decides; `None` asks for nobody.
    decides: Option<usize>,
}

impl Quorum {
    /// Reads a policy file.
    pub fn parse(text: &str) -> Result<Self, QuorumError> {
        let fail = |line: usize, problem: String| QuorumError { line, problem };
        if text.len() > MAX_FILE {
            return Err(fail(1, "the file is longer than 1 MiB".to_owned()));
        }
        let mut reading = Reading::default();
        for (number, line) in (1..).zip(text.lines()) {
            let is_clean = |c: char| c == '\t' || !c.is_ascii_control();
            if !line.chars().all(is_clean) {
                return Err(fail(number, "there is a control character".to_owned()));
            }
            let words: Vec<&str> = line.split([' ', '\t']).filter(|w| !w.is_empty()).collect();
            if words.first().is_none_or(|w| w.starts_with('#')) {
                continue;
            }
            reading.line(&words).map_err(|problem| fail(number, problem))?;
        }
        let Reading { logs, witnesses, rules, is_decided, decides, .. } = reading;
        if !is_decided {
            return Err(fail(text.lines().count().max(1), "there is no quorum line".to_owned()));
        }
        Ok(Self { logs, witnesses, rules, decides })
    }

    /// Whether the witnesses at these places of [`Self::witnesses`] suffice.
    pub fn is_met(&self, cosigned: &BTreeSet<usize>) -> bool {
        let Some(decides) = self.decides else { return true };
        // In the order of definition, so members are known before their group.
        let mut met = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            met.push(match rule {
                Rule::Witness(witness) => cosigned.contains(witness),
                Rule::Group { at_least, members } => {
                    members.iter().filter(|m| met.get(**m) == Some(&true)).count() >= *at_least
                }
            });
        }
        met.get(decides) == Some(&true)
    }

    /// Whether nobody needs to cosign at all.
    pub fn is_none(&self) -> bool {
        self.decides.is_none()
    }

    /// The keys of the log `origin`, one a line.
    pub fn keys_of(&self, origin: &str) -> String {
        let of_log = self.logs.iter().filter(|l| keys::origin(&l.vkey) == Some(origin));
        of_log.map(|l| l.vkey.as_str()).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Default)]
struct Reading {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    rules: Vec<Rule>,
    names: BTreeMap<String, usize>,
    used: BTreeSet<String>,
    /// Whether there was a quorum line.
    is_decided: bool,
    decides: Option<usize>,
}

impl Reading {
    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        match *words {
            ["log", vkey] => self.log(vkey, None),
            ["log", vkey, url] => self.log(vkey, Some(url)),
            ["witness", name, vkey] => self.witness(name, vkey, None),
            ["witness", name, vkey, url] => self.witness(name, vkey, Some(url)),
            ["group", name, at_least, ref members @ ..] => self.group(name, at_least, members),
            ["quorum", name] => self.quorum(name),
            [word, ..] => {
                Err(format!("\"{word}\" with {} words is nothing that a policy has", words.len() - 1))
            }
            [] => Ok(()),
        }
    }

    fn log(&mut self, vkey: &str, url: Option<&str>) -> Result<(), String> {
        keys::verifiers(vkey).map_err(|e| e.to_string())?;
        let material = |vkey: &str| vkey.rsplit('+').next().map(str::to_owned);
        if self.logs.iter().any(|l| material(&l.vkey) == material(vkey)) {
            return Err("this log's key is there twice".to_owned());
        }
        self.logs.push(Log { vkey: vkey.to_owned(), url: url.map(str::to_owned) });
        Ok(())
    }

    fn name(&mut self, name: &str, rule: Rule) -> Result<(), String> {
        if name == "none" || self.names.contains_key(name) {
            return Err(format!("the name {name} is taken"));
        }
        self.names.insert(name.to_owned(), self.rules.len());
        self.rules.push(rule);
        Ok(())
    }

    fn witness(&mut self, name: &str, vkey: &str, url: Option<&str>) -> Result<(), String> {
        let key = Cosigner::parse(vkey).map_err(|e| e.to_string())?;
        if self.witnesses.iter().any(|w| w.key.material()[1..] == key.material()[1..]) {
            return Err("this witness's key is there twice".to_owned());
        }
        self.name(name, Rule::Witness(self.witnesses.len()))?;
        self.witnesses.push(Witness { name: name.to_owned(), key, url: url.map(str::to_owned) });
        Ok(())
    }

    fn group(&mut self, name: &str, at_least: &str, members: &[&str]) -> Result<(), String> {
        let mut members_found = Vec::new();
        for member in members {
            let rule = self.names.get(*member).ok_or_else(|| format!("{member} is not defined above"))?;
            if !self.used.insert((*member).to_owned()) {
                return Err(format!("{member} is in a group already"));
            }
            members_found.push(*rule);
        }
        let at_least = match at_least {
            "any" => 1,
            "all" => members_found.len(),
            number => number.parse().map_err(|_| format!("{number} is neither all, any nor a number"))?,
        };
        if at_least < 1 || at_least > members_found.len() {
            return Err(format!("{at_least} of {} members cannot be had", members_found.len()));
        }
        self.name(name, Rule::Group { at_least, members: members_found })
    }

    fn quorum(&mut self, name: &str) -> Result<(), String> {
        if self.is_decided {
            return Err("there is a quorum line already".to_owned());
        }
        self.is_decided = true;
        if name != "none" {
            let place = self.names.get(name).copied();
            self.decides = Some(place.ok_or_else(|| format!("{name} is not defined above"))?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosignature::{Algorithm, CosignerKey};

    fn witness(n: u8) -> String {
        let name = format!("w.example/{n}");
        CosignerKey::from_seed(&name, Algorithm::Ed25519, [n; 32]).unwrap().public().vkey()
    }

    fn policy(rest: &str) -> Result<Quorum, QuorumError> {
        let mut text = String::from("# whom we believe\n\n");
        for n in 1..=6 {
            text = format!("{text}witness W{n}\t{} https://w{n}.example/\n", witness(n));
        }
        Quorum::parse(&format!("{text}{rest}"))
    }

    /// The example of C2SP tlog-policy: two of one group and one of another.
    #[test]
    fn groups_nest_as_in_the_specification() {
        let policy =
            policy("group X 2 W1 W2 W3\n group Y any W4 W5 W6\ngroup both all X Y\nquorum both\n").unwrap();
        let met = |cosigned: &[usize]| policy.is_met(&cosigned.iter().copied().collect());
        assert!(met(&[0, 2, 5]) && met(&[0, 1, 2, 3, 4, 5]));
        assert!(!met(&[0, 1]) && !met(&[0, 3, 4, 5]) && !met(&[]));
        assert!(!policy.is_none());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (rest, problem) in [
            ("", "no quorum"),
            ("quorum X", "not defined above"),
            ("group G 2 W1\nquorum G", "cannot be had"),
            ("group G 0 W1\nquorum G", "cannot be had"),
            ("group G all\nquorum G", "cannot be had"),
            ("group G any W1\ngroup H any W1\nquorum G", "in a group already"),
            ("group W1 any W2\nquorum W1", "is taken"),
            ("group none any W2\nquorum none", "is taken"),
            ("quorum W1\nquorum W2", "already"),
            ("witness Z W1\nquorum Z", "vkey"),
            ("quorun W1", "nothing that a policy has"),
            ("quorum W1\u{1}", "control character"),
        ] {
            let error = policy(rest).unwrap_err();
            assert!(error.problem.contains(problem), "{rest}: {error}");
        }
        let twice = format!("witness Z {}\nquorum Z", witness(1));
        assert!(policy(&twice).unwrap_err().problem.contains("twice"));
        assert!(policy("quorum none").unwrap().is_none());
    }
}
