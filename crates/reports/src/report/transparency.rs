//! The transparency report: for the public. No personal data, no name of a person or a company; small numbers are not shown.

use ringfence_meter::tally::Recipient;

use super::facts::Facts;
use super::figures::grouped;
use super::period;
use crate::paper::{Block, Cell, Paper};

/// Makes it. Numbers below `smallest` are not shown.
pub fn write(facts: &Facts, jurisdictions: &[String], smallest: u64) -> Paper {
    let figures = &facts.figures;
    let mut blocks = vec![
        Block::heading("Access from other countries"),
        Block::text(
            "Each statement that somebody outside the country, or a covered person (28 CFR 202.211), ran at the protected stores is in a \
             transparency log that independent witnesses have confirmed. These are its numbers.",
        ),
        Block::Table {
            heads: vec!["What".to_owned(), "How many".to_owned()],
            rows: [
                ("sessions", "Sessions"),
                ("statements", "Statements"),
                ("rows", "Rows that they returned"),
            ]
            .map(|(name, label)| vec![Cell::word(label), figures.public(name, smallest)])
            .into(),
        },
    ];
    for (by, caption) in [
        ("country", "Statements by country"),
        ("standing", "Statements by standing"),
        ("month", "Statements by month"),
        ("team", "Statements by team"),
        ("purpose", "Statements by purpose"),
        ("category", "Statements that showed data of a category, masked or not"),
    ] {
        let bars = figures.bars(&format!("statements.{by}"), smallest);
        if !bars.is_empty() {
            blocks.push(Block::Bars { caption: caption.to_owned(), bars });
        }
    }
    blocks.push(Block::heading("Requests for more, and who decided"));
    blocks.push(Block::text(
        "Whoever needs more than masked data asks for it: columns, rows, purpose, time. The in-country security team decides; each \
         approval is a signature over the exact request.",
    ));
    blocks.push(Block::Table {
        heads: vec!["What".to_owned(), "How many".to_owned()],
        rows: vec![
            vec![Cell::word("Requests"), figures.public("requests", smallest)],
            vec![Cell::word("Approvals signed"), figures.public("approvals", smallest)],
        ],
    });
    let outcomes = figures.bars("requests.outcome", smallest);
    if !outcomes.is_empty() {
        blocks.push(Block::Bars { caption: "Requests by outcome".to_owned(), bars: outcomes });
    }
    if let Some(text) = decisions(facts, smallest) {
        blocks.push(Block::text(text));
    }
    blocks.push(Block::heading("Refusals"));
    let refusals = figures.bars("refusals.of", smallest);
    if refusals.is_empty() {
        blocks.push(Block::text("Nothing was refused."));
    } else {
        blocks.push(Block::Bars { caption: "What was refused".to_owned(), bars: refusals });
    }
    blocks.push(Block::heading("Thresholds of the law"));
    blocks.extend(thresholds(facts, jurisdictions, smallest));
    blocks.push(Block::heading("The log itself"));
    blocks.push(Block::Table {
        heads: vec!["What".to_owned(), "How often".to_owned()],
        rows: [
            ("border.closed", "Access across the border closed, since witnesses did not confirm the log"),
            ("side-doors", "Connections or statements found in a store's own log that came past the gateway"),
            ("erasures", "Erasures of private records, on record with their reason"),
            ("erased-records", "Records in them"),
            ("legal-holds", "Legal holds placed or released"),
        ]
        .map(|(name, label)| vec![Cell::word(label), figures.cell(name)])
        .into(),
    });
    if smallest > 1 {
        blocks.push(Block::text(format!(
            "\"Not shown\" stands for a number from 1 to {}, and for one more where a single one could be worked out.",
            smallest - 1
        )));
    }
    Paper {
        title: "Transparency report".to_owned(),
        subtitle: format!(
            "Protected data of {}, {}",
            jurisdictions.join(", "),
            period(facts.from, facts.until)
        ),
        sources: facts.sources(),
        blocks,
    }
}

/// How long decisions took; not where they are so few that one of them could be told.
fn decisions(facts: &Facts, smallest: u64) -> Option<String> {
    let mut times = facts.decided_after.clone();
    if times.is_empty() || (times.len() as u64) < smallest {
        return None;
    }
    times.sort_unstable();
    let at = |part: usize| minutes(times[(times.len() - 1) * part / 100]);
    Some(format!(
        "Half of {} decisions took {} or less, nine in ten {} or less.",
        grouped(times.len() as u64),
        at(50),
        at(90)
    ))
}

fn minutes(ms: u64) -> String {
    match ms / 60_000 {
        0 => "a minute".to_owned(),
        minutes @ 1..120 => format!("{minutes} minutes"),
        minutes => format!("{} hours", minutes / 60),
    }
}

fn thresholds(facts: &Facts, jurisdictions: &[String], smallest: u64) -> Vec<Block> {
    let lines =
        facts.meter.iter().filter(|l| jurisdictions.contains(&l.jurisdiction) && l.more_than.is_some());
    let mut by_category: std::collections::BTreeMap<&str, (u64, u64, u64)> =
        std::collections::BTreeMap::new();
    for line in lines.filter(|l| matches!(l.recipient, Recipient::Employer(_))) {
        let of = by_category.entry(&line.category).or_default();
        of.0 += 1;
        of.1 += u64::from(line.more_than.is_some_and(|most| line.at_most() * 5 > most * 4));
        of.2 += u64::from(line.is_exceeded());
    }
    if by_category.is_empty() {
        return vec![Block::text("No company abroad reached data of a category that the law counts.")];
    }
    let number = |n: u64| {
        let is_small = n > 0 && n < smallest;
        let text = if is_small { format!("fewer than {smallest}") } else { grouped(n) };
        Cell { text, figure: None, is_number: true }
    };
    let row = |(category, (all, near, over)): (&&str, &(u64, u64, u64))| {
        vec![Cell::word(*category), number(*all), number(*near), number(*over)]
    };
    vec![
        Block::text(
            "How many companies abroad reached data of whom in the preceding twelve months, by the categories of 28 CFR 202.205; masked \
             data counts as well (202.206), and what cannot be told apart counts in full.",
        ),
        Block::Table {
            heads: ["Category", "Companies", "Above 80 % of the threshold", "Above it"]
                .map(str::to_owned)
                .into(),
            rows: by_category.iter().map(row).collect(),
        },
    ]
}
