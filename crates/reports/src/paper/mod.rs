//! A report on paper: a few kinds of block, written as one self-contained HTML page ([`html`]) or as PDF ([`pdf`]). Both say the
//! same, since both are made of the same blocks.

pub mod html;
mod metrics;
pub mod pdf;

use serde::Serialize;

/// A report.
#[derive(Clone, Debug, Serialize)]
pub struct Paper {
    /// What it is.
    pub title: String,
    /// Of what, and of which time.
    pub subtitle: String,
    /// Where its figures come from, line by line.
    pub sources: Vec<String>,
    /// The rest.
    pub blocks: Vec<Block>,
}

/// How an item of a checklist stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The software does not let it be otherwise.
    Enforced,
    /// The ledger shows it.
    Evidenced,
    /// Somebody has said so, on record.
    Stated,
    /// It is missing.
    Gap,
    /// It is for others to show.
    OutOfScope,
}

impl Status {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Evidenced => "evidenced",
            Self::Stated => "stated",
            Self::Gap => "GAP",
            Self::OutOfScope => "out of scope",
        }
    }
}

/// A text, and the figure that it is, if it is one: `ringfence report … --trace FIGURE` lists the entries behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// What is printed.
    pub text: String,
    /// The figure's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figure: Option<String>,
    /// A number stands at the right.
    #[serde(skip)]
    pub is_number: bool,
}

impl Cell {
    /// A word.
    pub fn word(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// A bar of a chart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// What it is of.
    pub label: String,
    /// How long; 0 where the number is suppressed.
    pub length: u64,
    /// The number as it is printed.
    pub cell: Cell,
}

/// A part of a report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "block")]
pub enum Block {
    /// A heading.
    Heading {
        /// Its text.
        text: String,
    },
    /// A paragraph.
    Text {
        /// Its text.
        text: String,
    },
    /// A table.
    Table {
        /// The heads of its columns.
        heads: Vec<String>,
        /// Its rows.
        rows: Vec<Vec<Cell>>,
    },
    /// A chart of bars, each with its number.
    Bars {
        /// What is measured.
        caption: String,
        /// The bars.
        bars: Vec<Bar>,
    },
    /// An item of a checklist.
    Item {
        /// The law's section or the document's number.
        section: String,
        /// What it asks for.
        asks: String,
        /// How it stands.
        status: Status,
        /// What there is.
        found: String,
    },
}

impl Block {
    /// A heading.
    pub fn heading(text: impl Into<String>) -> Self {
        Self::Heading { text: text.into() }
    }

    /// A paragraph.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

impl Paper {
    /// How many items of a checklist are missing.
    pub fn gaps(&self) -> usize {
        let is_gap = |b: &&Block| matches!(b, Block::Item { status: Status::Gap, .. });
        self.blocks.iter().filter(is_gap).count()
    }
}
