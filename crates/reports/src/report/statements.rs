//! What software cannot know: somebody has said it, with a name and a date. A statement that is older than what it is about allows
//! is a gap again.

use serde::{Deserialize, Serialize};

use super::date;
use crate::paper::{Block, Status};

const DAY_MS: u64 = 86_400_000;
/// What must be renewed each year; a leap year has 366 days.
pub(crate) const YEARLY: Option<u64> = Some(366);
/// What must be renewed each month.
pub(crate) const MONTHLY: Option<u64> = Some(31);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The item that it is about, as the report prints it: `202.1001(b)(3)`, `I.A.2`.
    pub item: String,
    /// What is the case; a reference to a document, best with its digest.
    pub text: String,
    /// Who says so.
    pub by: String,
    /// When: a date.
    pub date: String,
}

/// All of them, as in `compliance.toml`, and who the company is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statements {
    /// The company that reports, by its name in the registry.
    #[serde(default)]
    pub company: Option<String>,
    /// What was said.
    #[serde(default)]
    pub statements: Vec<Statement>,
}

impl Statements {
    /// The newest statement about an item, with its time.
    fn about(&self, item: &str) -> Option<(&Statement, u64)> {
        let of_item = self.statements.iter().filter(|s| s.item == item);
        let dated = of_item.filter_map(|s| Some((s, ringfence_verifier::manifest::seconds(&s.date)? * 1000)));
        dated.max_by_key(|(_, at)| *at)
    }

    /// An item that rests on a statement; `days` is how old it may be at `now_ms`. `found` is what the ledger adds.
    pub fn item(&self, item: &str, asks: &str, days: Option<u64>, now_ms: u64, found: &str) -> Block {
        let (status, said) = match self.about(item) {
            Some((_, at)) if at > now_ms.saturating_add(DAY_MS) => {
                (Status::Gap, format!("What was said is dated in the future ({}).", date(at)))
            }
            Some((statement, at)) => {
                let is_old = days.is_some_and(|days| at + days * DAY_MS < now_ms);
                let said = format!("{} Said by {} on {}.", statement.text, statement.by, date(at));
                if is_old {
                    (
                        Status::Gap,
                        format!("{said} That is older than it may be ({} days).", days.unwrap_or(0)),
                    )
                } else {
                    (Status::Stated, said)
                }
            }
            None => (Status::Gap, "Nobody has said anything about this on record.".to_owned()),
        };
        let found = if found.is_empty() { said } else { format!("{said} {found}") };
        Block::Item { section: item.to_owned(), asks: asks.to_owned(), status, found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_a_gap_and_an_old_statement_is_one_again() {
        let statements = Statements {
            company: None,
            statements: vec![Statement {
                item: "I.A.2".into(),
                text: "Ann.".into(),
                by: "the board".into(),
                date: "2026-01-01".into(),
            }],
        };
        let status = |item: &str, now: &str| {
            let now = ringfence_verifier::manifest::seconds(now).unwrap() * 1000;
            match statements.item(item, "", YEARLY, now, "") {
                Block::Item { status, .. } => status,
                _ => unreachable!("an item"),
            }
        };
        assert_eq!(status("I.A.2", "2026-12-31"), Status::Stated);
        assert_eq!(status("I.A.2", "2027-01-03"), Status::Gap);
        assert_eq!(status("I.A.2", "2025-06-01"), Status::Gap, "dated in the future");
        assert_eq!(status("I.A.7", "2026-12-31"), Status::Gap);
    }
}
