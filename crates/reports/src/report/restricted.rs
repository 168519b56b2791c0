//! The report on restricted transactions: what 28 CFR 202.1001, .1002, .1101, .1103 and .1104 ask a company to have on record, with
//! what there is. What is missing is shown as a gap. It names people and companies: for the company, its auditor and the regulator.

use std::collections::BTreeSet;

use ringfence_meter::tally::Recipient;
use ringfence_policy::Registry;
use ringfence_policy::ownership::{coverage, covered_companies};

use super::facts::Facts;
use super::figures::grouped;
use super::statements::{Statements, YEARLY};
use super::{date, period};
use crate::paper::{Block, Cell, Paper, Status};

/// 28 CFR 202.1101: records are kept for ten years at least.
const KEPT_YEARS: u64 = 10;
/// 28 CFR 202.1104: a rejected transaction is reported within 14 days.
const REPORT_WITHIN_MS: u64 = 14 * 86_400_000;

/// Makes it, as of `now_ms`.
pub fn write(facts: &Facts, registry: &Registry, statements: &Statements, now_ms: u64) -> Paper {
    // What must be as of the end of a year that is over, or as of today.
    let now_ms = now_ms.min(facts.until);
    let mut blocks = vec![Block::heading("28 CFR 202.1001: due diligence and data compliance program")];
    let item = |section: &str, asks: &str, status, found: String| Block::Item {
        section: section.to_owned(),
        asks: asks.to_owned(),
        status,
        found,
    };
    let statements_run = facts.figures.value("statements");
    blocks.push(item(
        "202.1001(b)(1)(i)",
        "the types and volumes of data, logged in an auditable manner",
        Status::Evidenced,
        format!(
            "{} statements across the border, {} rows; volumes by recipient and category are below.",
            grouped(statements_run),
            grouped(facts.figures.value("rows"))
        ),
    ));
    let readers: BTreeSet<&str> = facts
        .meter
        .iter()
        .filter_map(|l| match &l.recipient {
            Recipient::Person(name) => Some(name.as_str()),
            Recipient::Employer(_) => None,
        })
        .chain(facts.unasked.keys().map(String::as_str))
        .chain(facts.requests.values().map(|a| a.text("requester")))
        .collect();
    let unknown: Vec<&str> = readers
        .iter()
        .copied()
        .filter(|name| registry.principal(name).is_none_or(|p| p.location.is_none()))
        .collect();
    blocks.push(if unknown.is_empty() {
        item(
            "202.1001(b)(1)(ii)",
            "the identity of the parties: ownership of entities, primary residence of individuals",
            Status::Evidenced,
            format!(
                "{} recipients and {} companies with owners are in the registry, below. Citizenship is not kept: 202.211 does not turn on it.",
                readers.len(),
                registry.companies.len()
            ),
        )
    } else {
        item(
            "202.1001(b)(1)(ii)",
            "the identity of the parties: ownership of entities, primary residence of individuals",
            Status::Gap,
            format!("Where they are, nobody has attested: {}.", unknown.join(", ")),
        )
    });
    let without: Vec<&str> = facts
        .requests
        .iter()
        .filter(|(_, a)| a.text("purpose").trim().is_empty())
        .map(|(id, _)| id.as_str())
        .collect();
    blocks.push(item(
        "202.1001(b)(1)(iii)",
        "the end use of the data and the method of transfer",
        if without.is_empty() { Status::Evidenced } else { Status::Gap },
        format!(
            "Each of {} requests has its purpose, signed with it. The method is PostgreSQL's protocol through the gateway, over TLS where \
             the configuration requires it; no other way is open to a face's role.",
            facts.requests.len()
        ),
    ));
    blocks.push(statements.item(
        "202.1001(b)(2)",
        "procedures to verify the identity of vendors",
        YEARLY,
        now_ms,
        &format!("{} companies are in the registry.", registry.companies.len()),
    ));
    blocks.push(statements.item(
        "202.1001(b)(3)",
        "a written policy on the data compliance program, certified each year by an officer",
        YEARLY,
        now_ms,
        "",
    ));
    blocks.push(statements.item(
        "202.1001(b)(4)",
        "a written policy on the security requirements (202.248), certified each year by an officer",
        YEARLY,
        now_ms,
        "",
    ));
    blocks.push(Block::heading("28 CFR 202.1002: audit"));
    blocks.push(statements.item(
        "202.1002(b)",
        "an independent auditor, who is no covered person",
        YEARLY,
        now_ms,
        "",
    ));
    blocks.push(statements.item(
        "202.1002(f)",
        "the auditor's report, within 60 days of the end of the audit",
        YEARLY,
        now_ms,
        "`ringfence audit bundle --complete` is what the auditor verifies alone.",
    ));
    blocks.push(Block::heading("28 CFR 202.1101: records"));
    blocks.push(item(
        "202.1101(a)",
        "full and accurate records, kept for at least ten years",
        if facts.erased == 0 { Status::Enforced } else { Status::Evidenced },
        format!(
            "The log keeps its private records for {KEPT_YEARS} years and refuses to erase younger ones without a legal reason on record. The \
             oldest entry is of {}; {} records were erased.",
            facts.oldest.map_or_else(|| "no date".to_owned(), date),
            grouped(facts.erased)
        ),
    ));
    blocks.push(statements.item(
        "202.1101(b)",
        "an annual certification that the records are complete and accurate",
        YEARLY,
        now_ms,
        "`ringfence logs verify` proves that no entry was changed or taken out.",
    ));
    blocks.push(Block::text("Each grant in force, with its start and its end:"));
    blocks.push(transactions(facts));
    blocks.push(Block::heading("28 CFR 202.1103: annual report"));
    blocks.push(annual(registry, statements));
    blocks.push(Block::heading("28 CFR 202.1104: rejected transactions"));
    blocks.extend(rejected(facts, now_ms));
    blocks.push(Block::heading("Volumes in the preceding twelve months (28 CFR 202.205, 202.206)"));
    blocks.push(volumes(facts));
    blocks.push(Block::heading("Parties"));
    blocks.push(parties(registry, &readers));
    Paper {
        title: "Restricted transactions: what is on record".to_owned(),
        subtitle: format!("28 CFR Part 202, {}", period(facts.from, facts.until)),
        sources: facts.sources(),
        blocks,
    }
}

fn transactions(facts: &Facts) -> Block {
    let rows = facts.requests.iter().filter_map(|(id, asked)| {
        let granted = asked.granted.filter(|g| *g < facts.until)?;
        let ends = granted + asked.request["seconds"].as_u64().unwrap_or(0) * 1000;
        let (how, end) = asked.ended.map_or(("", ends), |(how, at)| (how, at));
        if end < facts.from {
            return None;
        }
        let entries: Vec<String> =
            asked.entries.iter().map(|(log, index)| format!("{log}:{index}")).collect();
        let place = format!("{} ({})", asked.text("requester"), asked.text("location"));
        Some(vec![
            Cell::word(id),
            Cell::word(match asked.text("employer") {
                "" => place,
                employer => format!("{place}, {employer}"),
            }),
            Cell::word(asked.columns().join(", ")),
            Cell::word(asked.text("purpose")),
            Cell::word(format!("{} to {} {how}", date(granted), date(end)).trim_end().to_owned()),
            Cell::word(asked.approvers.join(", ")),
            Cell::word(entries.join(" ")),
        ])
    });
    Block::Table {
        heads: ["Grant", "Recipient", "Data", "End use", "From, to", "Approved by", "Entries (log:index)"]
            .map(str::to_owned)
            .into(),
        rows: rows.collect(),
    }
}

/// 202.1103: due on 1 March from those whom covered persons own by a quarter or more and who are in restricted cloud transactions.
fn annual(registry: &Registry, statements: &Statements) -> Block {
    let asks = "a report by 1 March, where covered persons own 25 % or more and cloud services are restricted transactions";
    let (status, found) = match statements.company.as_deref() {
        None => (
            Status::Gap,
            "Which company reports is not said (`company` in the file of statements).".to_owned(),
        ),
        Some(name) => match registry.companies.iter().find(|c| c.name == name) {
            None => (Status::Gap, format!("{name} is not in the registry, so nobody can tell who owns it.")),
            Some(company) => {
                let covered = covered_companies(registry);
                let owns = |owner: &str| covered.contains_key(owner) || owner.starts_with("government:");
                let share: f64 = company.owners.iter().filter(|o| owns(&o.owner)).map(|o| o.percent).sum();
                let share = share.max(0.0); // the sum of nothing is -0
                let whole = covered.contains_key(&company.name);
                if share >= 25.0 || whole {
                    (
                        Status::Gap,
                        format!(
                            "Covered persons own {share} % of {name} directly: a report is due by 1 March, if its cloud services are restricted transactions."
                        ),
                    )
                } else {
                    (
                        Status::Evidenced,
                        format!(
                            "Covered persons own {share} % of {name} directly: no report is due for that reason."
                        ),
                    )
                }
            }
        },
    };
    Block::Item { section: "202.1103".to_owned(), asks: asks.to_owned(), status, found }
}

fn rejected(facts: &Facts, now_ms: u64) -> Vec<Block> {
    let asks =
        "a report within 14 days of each rejected prohibited transaction, those rejected by software as well";
    let open = facts.refused_covered.iter().filter(|(at, ..)| at + REPORT_WITHIN_MS >= now_ms).count();
    let found = format!(
        "{} refusals of covered persons, {open} of them within the last 14 days. Whether one was an offer of data brokerage is for people to say.",
        grouped(facts.refused_covered.len() as u64)
    );
    let mut blocks = vec![Block::Item {
        section: "202.1104".to_owned(),
        asks: asks.to_owned(),
        status: Status::Evidenced,
        found,
    }];
    if !facts.refused_covered.is_empty() {
        let rows = facts.refused_covered.iter().take(500).map(|(at, who, why, entry)| {
            vec![
                Cell::word(date(*at)),
                Cell::word(date(at + REPORT_WITHIN_MS)),
                Cell::word(who),
                Cell::word(why),
                Cell::word(format!("{}:{}", entry.0, entry.1)),
            ]
        });
        blocks.push(Block::Table {
            heads: ["Refused", "Report by", "Who", "Why", "Entry (log:index)"].map(str::to_owned).into(),
            rows: rows.collect(),
        });
        if facts.refused_covered.len() > 500 {
            blocks.push(Block::text("The first 500 are shown; `ringfence ledger show` has all."));
        }
    }
    blocks
}

fn volumes(facts: &Facts) -> Block {
    let many = |known: u64, unknown: u64| Cell {
        text: if unknown == 0 {
            grouped(known)
        } else {
            format!("{} + at most {}", grouped(known), grouped(unknown))
        },
        figure: None,
        is_number: true,
    };
    let rows = facts.meter.iter().map(|line| {
        vec![
            Cell::word(line.recipient.name()),
            Cell::word(&line.jurisdiction),
            Cell::word(&line.category),
            many(line.clear, line.clear_unknown),
            many(line.any, line.any_unknown),
            Cell::word(
                line.more_than.map_or_else(|| "none".to_owned(), |m| format!("more than {}", grouped(m))),
            ),
            Cell::word(if line.is_exceeded() { "exceeded" } else { "" }),
        ]
    });
    Block::Table {
        heads: ["Recipient", "Of", "Category", "In clear", "In any form", "Threshold", ""]
            .map(str::to_owned)
            .into(),
        rows: rows.collect(),
    }
}

fn parties(registry: &Registry, readers: &BTreeSet<&str>) -> Block {
    let covered = covered_companies(registry);
    let people = registry.people.iter().filter(|p| readers.contains(p.name.as_str())).map(|person| {
        vec![
            Cell::word(&person.name),
            Cell::word(person.place()),
            Cell::word(person.residence.as_deref().unwrap_or(person.place())),
            Cell::word(person.employer.as_deref().unwrap_or("")),
            Cell::word(coverage(registry, &covered, person).map_or_else(|| "no".to_owned(), |c| c.because)),
        ]
    });
    let companies = registry.companies.iter().map(|company| {
        let owners: Vec<String> =
            company.owners.iter().map(|o| format!("{} {} %", o.owner, o.percent)).collect();
        vec![
            Cell::word(&company.name),
            Cell::word(&company.law),
            Cell::word(company.principal_place.as_deref().unwrap_or(&company.law)),
            Cell::word(owners.join(", ")),
            Cell::word(covered.get(&company.name).map_or_else(|| "no".to_owned(), |c| c.because.clone())),
        ]
    });
    Block::Table {
        heads: [
            "Party",
            "Where",
            "Residence, or place of business",
            "Employer, or owners",
            "Covered (202.211)",
        ]
        .map(str::to_owned)
        .into(),
        rows: people.chain(companies).collect(),
    }
}
