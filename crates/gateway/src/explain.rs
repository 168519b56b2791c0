//! What a governed person is told beside an answer: which columns are masked or absent, why, and how to ask for them.

use std::sync::{Arc, PoisonError};

use ringfence_policy::{Standing, Visibility};
use ringfence_statement::analysis::Analysis;

use crate::refusal::Refusal;
use crate::session::Session;

impl Session {
    /// Why this person does not see everything.
    fn reason(&self) -> String {
        match self.policy.standing(&self.principal, &self.store) {
            Standing::InCountry => format!("your teams have no full access to {}", self.store.name),
            Standing::Outside(place) => {
                format!("you are in {place}, outside the jurisdiction {}", self.store.jurisdiction)
            }
            Standing::Unknown => "nobody attested where you are".to_owned(),
            Standing::Covered(why) => {
                format!("{}, so you are a covered person (28 CFR 202.211)", why.because)
            }
        }
    }

    fn how_to_ask(&self, columns: &[String]) -> String {
        let in_browser = self.ask_page(columns).map(|page| format!("{page} or ")).unwrap_or_default();
        format!(
            "{in_browser}ringfence request --as {} --store {} --columns {} --where \"…\" --purpose \"…\" --for 2h --max-rows 100",
            self.principal.name,
            self.store.name,
            columns.join(",")
        )
    }

    /// Where the same is asked in a browser: names of columns, of the first table, and nothing of the statement's values.
    fn ask_page(&self, columns: &[String]) -> Option<String> {
        let origin = self.shared.config.console.as_deref()?;
        let (table, _) = columns.first()?.split_once('.')?;
        let of_table = columns.iter().filter_map(|c| c.split_once('.')).filter(|(t, _)| *t == table);
        let names: Vec<&str> = of_table.map(|(_, column)| column).collect();
        let is_plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        let path = [self.store.name.as_str(), table];
        (path.iter().chain(&names).all(|name| is_plain(name)))
            .then(|| format!("{origin}/ask/{}/{table}/{}", self.store.name, names.join(",")))
    }

    /// What a statement's answer should come with: a notice about columns that are masked, once a session, and a hint for
    /// an error about columns that are absent.
    pub fn explain(&self, analysis: &Arc<Analysis>) {
        let Some(outcome) = &self.admission.outcome else { return };
        // It was said when the statement came last, and the hint is still the same.
        let before = self.flow().explained.replace(Arc::clone(analysis));
        if before.is_some_and(|before| Arc::ptr_eq(&before, analysis)) {
            return;
        }
        let verdict = &analysis.verdict;
        let Some((_, catalogue)) = self.policy.store(&self.store.name) else { return };
        let (mut masked, mut absent) = (Vec::new(), Vec::new());
        let mut closed = None;
        for table in &verdict.tables {
            let Some(classified) = catalogue.tables.get(table) else { continue };
            let Some(seen) = outcome.tables.get(table) else {
                closed = Some(table);
                continue;
            };
            for column in classified.columns.iter().filter(|(_, c)| c.protected().is_some()).map(|(n, _)| n) {
                let mentioned = verdict.columns.contains(column);
                match seen.get(column) {
                    Some(c) if !c.granted_by.is_empty() || c.base == Visibility::Clear => {}
                    Some(c) if c.base == Visibility::Masked && (mentioned || verdict.all_columns) => {
                        masked.push(format!("{table}.{column}"));
                    }
                    _ if mentioned || verdict.all_columns => absent.push(format!("{table}.{column}")),
                    _ => {}
                }
            }
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        masked.retain(|c| told.insert(c.clone()));
        drop(told);
        let mut flow = self.flow();
        if !masked.is_empty() {
            let verb = verb(masked.len());
            Refusal::new("00000", format!("{} {verb} masked for you: {}", masked.join(", "), self.reason()))
                .hint(format!("To see the values, ask: {}", self.how_to_ask(&masked)))
                .notice(&mut flow.notices);
        }
        flow.hint = match (absent.is_empty(), closed) {
            (false, _) => Some(format!(
                "{} {} not shown to you: {}. Ask: {}",
                absent.join(", "),
                verb(absent.len()),
                self.reason(),
                self.how_to_ask(&absent)
            )),
            (true, Some(table)) => {
                Some(format!("{table} is not shown to you, and no grant opens it: {}.", self.reason()))
            }
            (true, None) => None,
        };
    }
}

fn verb(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}
