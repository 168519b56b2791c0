//! Who may see what: catalogue, people, ownership, and the decision.
//!
//! In the order of the files: [`catalogue`] says what each column is, [`people`] who connects and for whom they work,
//! [`ownership`] who is a covered person (28 CFR 202.211) and why, [`device`] what they come with, [`decision`] asks Cedar and returns an outcome;
//! [`thresholds`] how much of it is too much in twelve months.
//! Pure: no clock, no network, no disk. What nobody classified is in no outcome.

pub mod catalogue;
pub mod decision;
pub mod device;
pub mod ownership;
pub mod people;
pub mod thresholds;

pub use catalogue::{Catalogue, Class, Column, Kind, Table};
pub use decision::{Access, Outcome, Policy, Standing, Visibility};
pub use device::Device;
pub use ownership::{Coverage, Rule};
pub use people::{EnrolmentBy, Jurisdiction, Principal, PrincipalKind, Proof, Registry, Store, StoreKind};
pub use thresholds::{Limit, Measure, Recipients, Threshold, Unit};

/// What is wrong with the registry, the catalogue or the policies.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not what it should be; the text has line and column.
    #[error("{what}: {problem}")]
    Parse {
        /// Which part of the configuration.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Everything that does not fit together, all at once.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// Cedar could not decide. Whoever asks refuses.
    #[error("the policies cannot be evaluated: {0}")]
    Undecided(String),
}
