//! The meter: how many people's data each recipient (a person, and the company that they work for) has reached in the preceding
//! twelve months, by jurisdiction and category, in clear and in any form (28 CFR 202.205, 202.206).
//!
//! In the order of the files: [`subject`] makes a keyed hash of a data subject's key, [`record`] is what the ledger keeps of
//! them, [`window`] counts distinct ones over twelve months, [`tally`] keeps a window for each recipient and category and
//! compares them with thresholds and limits, [`replay`] makes a tally from a log.
//!
//! Promises: what is counted is never less than what was reached; up to a threshold the number of those who were told apart
//! by their key is exact; memory is bounded for each recipient and category. The ledger is the truth: a tally is made from it and
//! can be made again.

pub mod record;
pub mod replay;
pub mod subject;
pub mod tally;
pub mod window;

pub use record::{Form, Group, Reached};
pub use subject::SubjectKey;
pub use tally::{Exceeded, Tally, Who};
pub use window::{Day, day};
