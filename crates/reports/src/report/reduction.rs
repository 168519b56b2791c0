//! The reduction report: which needs to read across the border could be served by less, from what was really read. For the company
//! and its security team; it names people.

use super::facts::{Asked, Facts};
use super::figures::grouped;
use super::{date, period};
use crate::paper::{Bar, Block, Cell, Paper};

/// What would have served a need as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Less {
    /// It was not used at all.
    Nothing,
    /// No granted column was named: masked data did.
    Masked,
    /// Only sums and counts were read.
    Aggregate,
    /// Some of the granted columns were not named.
    FewerColumns,
    /// It was needed as it was. An in-country team could have read it, if the need comes again.
    InCountry,
}

impl Less {
    fn of(asked: &Asked) -> Self {
        match asked {
            _ if asked.statements == 0 => Self::Nothing,
            _ if asked.used.is_empty() => Self::Masked,
            _ if asked.folding == asked.statements => Self::Aggregate,
            _ if asked.used.len() < asked.columns().len() => Self::FewerColumns,
            _ => Self::InCountry,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Nothing => "never used: do not renew",
            Self::Masked => "no granted column was read: masked data serves",
            Self::Aggregate => "only aggregates were read: an in-country report with a minimum group serves",
            Self::FewerColumns => "fewer columns would have done",
            Self::InCountry => "used as asked: an in-country team, if the need comes again",
        }
    }
}

/// Makes it.
pub fn write(facts: &Facts) -> Paper {
    let in_force: Vec<(&String, &Asked)> = facts
        .requests
        .iter()
        .filter(|(_, a)| a.granted.is_some_and(|g| g < facts.until) && is_within(facts, a))
        .collect();
    let mut blocks = vec![Block::heading("Grants, and what was read under them")];
    if in_force.is_empty() {
        blocks.push(Block::text("No grant was in force."));
    } else {
        let kinds = [Less::Nothing, Less::Masked, Less::Aggregate, Less::FewerColumns, Less::InCountry];
        let count = |less: Less| in_force.iter().filter(|(_, a)| Less::of(a) == less).count() as u64;
        let bar = |less: &Less| {
            let n = count(*less);
            Bar {
                label: less.advice().to_owned(),
                length: n,
                cell: Cell { text: grouped(n), figure: None, is_number: true },
            }
        };
        blocks.push(Block::Bars {
            caption: "Grants by what would have served".to_owned(),
            bars: kinds.iter().map(bar).collect(),
        });
        blocks.push(Block::Table {
            heads: ["Grant", "Who", "Columns", "Named", "Statements", "Rows", "Advice"]
                .map(str::to_owned)
                .into(),
            rows: in_force.iter().map(|(id, asked)| row(id, asked)).collect(),
        });
    }
    blocks.push(Block::heading("Reading without a grant"));
    if facts.unasked.is_empty() {
        blocks.push(Block::text("Nobody read across the border without one."));
    } else {
        let number = |n: u64| Cell { text: grouped(n), figure: None, is_number: true };
        let rows = facts.unasked.iter().map(|(who, u)| {
            let advice = if u.protected == 0 {
                "reads public data only: a global store would do"
            } else if u.folding == u.protected {
                "reads aggregates of masked data: an in-country report would do"
            } else {
                "masked data serves"
            };
            vec![
                Cell::word(who),
                Cell::word(&u.location),
                number(u.public),
                number(u.protected),
                number(u.folding),
                Cell::word(advice),
            ]
        });
        blocks.push(Block::Table {
            heads: ["Who", "From", "Public only", "Protected, masked", "Of these aggregates", "Advice"]
                .map(str::to_owned)
                .into(),
            rows: rows.collect(),
        });
    }
    blocks.push(Block::heading("Trend"));
    for (measure, caption) in
        [("statements.month", "Statements across the border"), ("rows.month", "Rows that they returned")]
    {
        let bars = facts.figures.bars(measure, 0);
        if let (Some(first), Some(last)) = (bars.first(), bars.last()) {
            let change = match (first.length, last.length) {
                _ if bars.len() < 2 => "one month so far".to_owned(),
                (0, _) => "from none".to_owned(),
                (a, b) if b <= a => {
                    format!("{} % less in {} than in {}", (a - b) * 100 / a, last.label, first.label)
                }
                (a, b) => format!("{} % more in {} than in {}", (b - a) * 100 / a, last.label, first.label),
            };
            blocks.push(Block::Bars { caption: format!("{caption}: {change}"), bars });
        }
    }
    Paper {
        title: "Reduction report".to_owned(),
        subtitle: format!(
            "Less access across the border, from what was read {}",
            period(facts.from, facts.until)
        ),
        sources: facts.sources(),
        blocks,
    }
}

/// Whether a grant was in force within the period.
fn is_within(facts: &Facts, asked: &Asked) -> bool {
    let seconds = asked.request["seconds"].as_u64().unwrap_or(0);
    let ends = asked.granted.unwrap_or(0).saturating_add(seconds.saturating_mul(1000));
    asked.ended.map_or(ends, |(_, at)| at.min(ends)) >= facts.from
}

fn row(id: &str, asked: &Asked) -> Vec<Cell> {
    let columns = asked.columns();
    let number = |n: u64| Cell { text: grouped(n), figure: None, is_number: true };
    vec![
        Cell::word(format!("{id}, {}", asked.granted.map_or_else(String::new, date))),
        Cell::word(asked.text("requester")),
        Cell::word(columns.join(", ")),
        Cell::word(asked.used.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
        number(asked.statements),
        number(asked.rows),
        Cell::word(Less::of(asked).advice()),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_not_read_need_not_be_granted() {
        let request = json!({ "table": "users", "columns": ["email", "phone"] });
        let asked = |statements, folding, used: &[&str]| Asked {
            request: request.clone(),
            statements,
            folding,
            used: used.iter().map(|c| (*c).to_owned()).collect(),
            ..Asked::default()
        };
        assert_eq!(Less::of(&asked(0, 0, &[])), Less::Nothing);
        assert_eq!(Less::of(&asked(3, 0, &[])), Less::Masked);
        assert_eq!(Less::of(&asked(3, 3, &["users.email"])), Less::Aggregate);
        assert_eq!(Less::of(&asked(3, 1, &["users.email"])), Less::FewerColumns);
        assert_eq!(Less::of(&asked(3, 1, &["users.email", "users.phone"])), Less::InCountry);
    }
}
