//! CISA's security requirements for restricted transactions (90 FR 1528, 8 January 2025; 28 CFR 202.248), item by item: what the
//! software enforces, what the ledger shows, what somebody has said, what is missing, what is for others to show.

use ringfence_policy::{Catalogue, Column, Policy, Proof};

use super::facts::Facts;
use super::figures::grouped;
use super::statements::{MONTHLY, Statements, YEARLY};
use super::{date, period};
use crate::paper::{Block, Paper, Status};

/// What the configuration says.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    /// The program's version.
    pub version: String,
    /// Whether clients can use TLS, and whether they must.
    pub tls: (bool, bool),
    /// Stores that are reached without TLS, which only sockets of the same machine may be.
    pub local_stores: Vec<String>,
    /// How many witnesses there are.
    pub witnesses: usize,
    /// How old their confirmation may get, in seconds.
    pub witness_max_age: u64,
}

/// Makes it, as of `now_ms`.
pub fn write(
    facts: &Facts,
    policy: &Policy,
    installed: &Installed,
    statements: &Statements,
    now_ms: u64,
) -> Paper {
    let now_ms = now_ms.min(facts.until);
    let item = |section: &str, asks: &str, status, found: String| Block::Item {
        section: section.to_owned(),
        asks: asks.to_owned(),
        status,
        found,
    };
    let registry = policy.registry();
    let stores: Vec<String> =
        policy.stores().map(|(s, _)| format!("{} ({}, {})", s.name, s.kind.word(), s.location)).collect();
    let people = registry.people.len();
    let two_proofs = registry.people.iter().filter(|p| p.login == Proof::Both).count();
    let classes = policy.stores().map(|(_, catalogue)| classes(catalogue));
    let (protected, public) = classes.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    let covered = registry.people.iter().filter(|p| policy.coverage(p).is_some()).count();
    let logs: Vec<&str> = facts.logs.iter().map(|log| log.origin.as_str()).collect();
    let routes: Vec<String> = facts
        .figures
        .under("sessions.country")
        .map(|(country, n)| format!("{country}: {} sessions", grouped(n)))
        .collect();
    let blocks = vec![
        Block::text(
            "Ringfence is itself a covered system where it holds keys and makes masks. Numbers are those of the document of January 2025 as we \
             know it: compare them with your copy before you file this.",
        ),
        Block::heading("I.A: organisation and policies"),
        statements.item(
            "I.A.1",
            "an inventory of the assets of covered systems, refreshed each month",
            MONTHLY,
            now_ms,
            &format!("Behind this gateway: {}. Logs: {}.", stores.join(", "), logs.join(", ")),
        ),
        statements.item("I.A.2", "a person accountable for cybersecurity, and for governance, risk and compliance", YEARLY, now_ms, ""),
        statements.item(
            "I.A.3",
            "known exploited vulnerabilities of systems that face the internet are remediated within 45 days",
            MONTHLY,
            now_ms,
            &format!("This is Ringfence {}.", installed.version),
        ),
        statements.item("I.A.4", "vendor agreements are documented", YEARLY, now_ms, &format!("{} companies are in the registry.", registry.companies.len())),
        statements.item(
            "I.A.5",
            "an accurate topology of the network",
            YEARLY,
            now_ms,
            &if routes.is_empty() { "No session came from abroad.".to_owned() } else { format!("Seen from abroad: {}.", routes.join(", ")) },
        ),
        statements.item("I.A.6", "new hardware, firmware and software is approved before it is used", YEARLY, now_ms, ""),
        statements.item("I.A.7", "an incident response plan, reviewed each year", YEARLY, now_ms, ""),
        Block::heading("I.B: access"),
        if two_proofs == people && people > 0 {
            item("I.B.1", "multifactor authentication", Status::Enforced, format!("All {people} principals must show a certificate and a password."))
        } else {
            statements.item(
                "I.B.1",
                "multifactor authentication, or passwords of 15 characters or more where it is not feasible",
                YEARLY,
                now_ms,
                &format!("{two_proofs} of {people} principals must show a certificate and a password (`login = \"both\"`). Each approval is a signature by the approver's own key."),
            )
        },
        item(
            "I.B.2",
            "credentials are revoked at once when somebody leaves or changes roles",
            Status::Enforced,
            format!(
                "A change of registry or policy cuts the sessions that depended on it, in the middle of a result; rules changed {} times. Who takes people out of the registry, and when, is for the organisation to show.",
                grouped(facts.policies.iter().filter(|(at, _)| *at >= facts.from).count() as u64)
            ),
        ),
        item(
            "I.B.3",
            "logs of access, kept for 12 months or more, protected, with an alert when they fall silent",
            if installed.witnesses > 0 { Status::Enforced } else { Status::Evidenced },
            format!(
                "No record, no rows. Records are kept for ten years; {} heartbeats; {} witnesses, whose confirmation may be {} s old before access across the border closes. The oldest entry is of {}.",
                grouped(facts.figures.value("heartbeats")),
                installed.witnesses,
                installed.witness_max_age,
                facts.oldest.map_or_else(|| "no date".to_owned(), date)
            ),
        ),
        item(
            "I.B.4",
            "connections are denied by default",
            Status::Enforced,
            format!("Nothing is permitted that no policy permits; what is not understood is refused. {} refusals. The rules in force have the digest {}.", grouped(facts.figures.value("refusals")), policy.digest()),
        ),
        item(
            "I.B.5",
            "identities and credentials are issued and managed by the organisation",
            Status::Enforced,
            format!("{people} principals in one registry. Nobody holds a store's password: each has a login role of their own, made by the gateway."),
        ),
        Block::heading("I.C: data risk assessment"),
        statements.item(
            "I.C",
            "an assessment of whether the measures prevent access to data that is linkable, identifiable, unencrypted or decryptable, reviewed each year",
            YEARLY,
            now_ms,
            &format!("Input: {protected} protected and {public} public columns; who reached whom is in the meter (`ringfence meter`)."),
        ),
        Block::heading("II: data"),
        statements.item(
            "II.A",
            "minimisation and masking, with a written policy of retention and deletion that is reviewed each year",
            YEARLY,
            now_ms,
            &format!("Enforced by the stores themselves: {protected} protected columns are masked or absent abroad; columns that nobody classified are shown to nobody."),
        ),
        encryption(installed),
        item("II.C", "privacy-enhancing technologies", Status::OutOfScope, "The measures rest on II.A, II.B and II.D.".to_owned()),
        item(
            "II.D",
            "identity and access management denies covered persons access to covered data",
            Status::Enforced,
            format!(
                "{covered} of {people} principals are covered persons by the ownership graph, employment or residence. They see public columns only, unless the in-country team signed a grant; {} statements by covered persons are on record.",
                grouped(facts.figures.value("statements.standing.covered persons"))
            ),
        ),
    ];
    Paper {
        title: "CISA security requirements".to_owned(),
        subtitle: format!(
            "For restricted transactions (28 CFR 202.248), {}",
            period(facts.from, facts.until)
        ),
        sources: facts.sources(),
        blocks,
    }
}

fn encryption(installed: &Installed) -> Block {
    let local = if installed.local_stores.is_empty() {
        "all stores are reached over TLS with verified names".to_owned()
    } else {
        format!("{} are reached over sockets of the same machine", installed.local_stores.join(", "))
    };
    let (status, clients) = match installed.tls {
        (true, true) => (Status::Enforced, "Clients must use TLS 1.2 or later"),
        (true, false) => {
            (Status::Gap, "Clients may use TLS, and need not (`required = true` under [gateway.tls])")
        }
        _ => (Status::Gap, "Clients cannot use TLS"),
    };
    Block::Item {
        section: "II.B".to_owned(),
        asks: "encryption in transit and at rest, with keys that are not with the data nor in a country of concern".to_owned(),
        status,
        found: format!("{clients}; {local}. Encryption at rest, and where its keys are, is for the host to show."),
    }
}

/// Protected and public columns of a catalogue.
fn classes(catalogue: &Catalogue) -> (usize, usize) {
    let columns = catalogue.tables.values().flat_map(|table| table.columns.values());
    columns.fold((0, 0), |(protected, public), column| match column {
        Column::Protected(_) => (protected + 1, public),
        Column::Word(_) => (protected, public + 1),
    })
}
