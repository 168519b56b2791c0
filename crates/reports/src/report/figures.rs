//! Figures, each with the entries of the ledger that it is made of, and the suppression of small ones.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::paper::{Bar, Cell};

/// How many entries are kept of a figure that nobody asked to trace.
const KEPT: usize = 20;

/// One figure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figure {
    /// The number.
    pub value: u64,
    /// How many entries it is made of.
    pub entries: u64,
    /// Some of them (all, where it is traced): which log, and the entry's index.
    pub of: Vec<(usize, u64)>,
}

/// All figures of a report by name, as in `statements.country.SG`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    by_name: BTreeMap<String, Figure>,
    #[serde(skip)]
    traced: Option<String>,
}

impl Figures {
    /// `traced` keeps all its entries.
    pub fn new(traced: Option<String>) -> Self {
        Self { by_name: BTreeMap::new(), traced }
    }

    /// Adds to a figure, because of an entry.
    pub fn add(&mut self, name: &str, more: u64, entry: (usize, u64)) {
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_owned(), Figure::default());
        }
        let Some(figure) = self.by_name.get_mut(name) else { return };
        figure.value = figure.value.saturating_add(more);
        figure.entries += 1;
        if figure.of.len() < KEPT || self.traced.as_deref() == Some(name) {
            figure.of.push(entry);
        }
    }

    /// A figure's number.
    pub fn value(&self, name: &str) -> u64 {
        self.by_name.get(name).map_or(0, |figure| figure.value)
    }

    /// A figure, if there is one.
    pub fn get(&self, name: &str) -> Option<&Figure> {
        self.by_name.get(name)
    }

    /// The figures whose names begin with `prefix.`, by what follows it.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, u64)> + 'a {
        self.by_name.iter().filter_map(move |(name, figure)| {
            Some((name.strip_prefix(prefix)?.strip_prefix('.')?, figure.value))
        })
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// A figure in print.
    pub fn cell(&self, name: &str) -> Cell {
        Cell { text: grouped(self.value(name)), figure: Some(name.to_owned()), is_number: true }
    }

    /// A chart of what is under `prefix`; numbers below `smallest` are not shown, and neither is another one where a single one
    /// could be worked out from the sum.
    pub fn bars(&self, prefix: &str, smallest: u64) -> Vec<Bar> {
        let found: Vec<(&str, u64)> = self.under(prefix).collect();
        let values: Vec<u64> = found.iter().map(|(_, value)| *value).collect();
        let shown = suppress(&values, smallest);
        let mut bars: Vec<Bar> = found
            .iter()
            .zip(shown)
            .map(|((label, _), shown)| Bar {
                label: (*label).to_owned(),
                length: shown.unwrap_or(0),
                cell: Cell {
                    text: shown.map_or_else(|| SUPPRESSED.to_owned(), grouped),
                    figure: shown.map(|_| format!("{prefix}.{label}")),
                    is_number: true,
                },
            })
            .collect();
        if !prefix.ends_with("month") {
            bars.sort_by(|a, b| b.length.cmp(&a.length).then(a.label.cmp(&b.label)));
        }
        bars
    }

    /// A single figure in a public report.
    pub fn public(&self, name: &str, smallest: u64) -> Cell {
        let value = self.value(name);
        if value > 0 && value < smallest {
            return Cell { text: format!("fewer than {smallest}"), figure: None, is_number: true };
        }
        self.cell(name)
    }
}

/// What stands in a small number's place.
pub const SUPPRESSED: &str = "not shown";

/// Which numbers of a breakdown may be shown: no small ones; and if that is one alone, the next smallest neither, since the sum
/// would give it away.
pub fn suppress(values: &[u64], smallest: u64) -> Vec<Option<u64>> {
    let is_small = |value: u64| value > 0 && value < smallest;
    let mut shown: Vec<Option<u64>> = values.iter().map(|v| (!is_small(*v)).then_some(*v)).collect();
    if values.iter().filter(|v| is_small(**v)).count() == 1 {
        let next = (0..values.len()).filter(|i| values[*i] >= smallest).min_by_key(|i| values[*i]);
        if let Some(next) = next {
            shown[next] = None;
        }
    }
    shown
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_number_is_not_shown_and_cannot_be_worked_out() {
        assert_eq!(suppress(&[100, 3, 50], 5), [Some(100), None, None]);
        assert_eq!(suppress(&[100, 3, 4, 0], 5), [Some(100), None, None, Some(0)]);
        assert_eq!(suppress(&[100, 5], 5), [Some(100), Some(5)]);
        assert_eq!(suppress(&[3], 5), [None]);
        assert_eq!(suppress(&[3], 0), [Some(3)]);
    }

    #[test]
    fn a_figure_knows_its_entries_and_all_of_them_when_it_is_traced() {
        let mut figures = Figures::new(Some("a.x".into()));
        for i in 0..100 {
            figures.add("a.x", 2, (0, i));
            figures.add("a.y", 1, (0, i));
        }
        assert_eq!((figures.value("a.x"), figures.get("a.x").unwrap().of.len()), (200, 100));
        assert_eq!((figures.get("a.y").unwrap().entries, figures.get("a.y").unwrap().of.len()), (100, KEPT));
        assert_eq!(figures.under("a").collect::<Vec<_>>(), [("x", 200), ("y", 100)]);
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
