//! Faces: a policy outcome, compiled into views and roles that the store itself enforces.
//!
//! In the order of the files: [`schema`] is what the store has, [`mask`] how a protected column is shown, [`condition`]
//! which rows a grant opens, [`spec`] the face that outcome and schema make, [`ddl`] its SQL, [`steward`] the connection that carries it out. Around them:
//! [`install`] prepares a store (and puts everything back), [`preflight`] names what would let a face around its views,
//! [`draft`] proposes a catalogue for a live database.
//!
//! A face is a schema `rf_<digest>` of views with the tables' own names, owned by a NOLOGIN role that may read just the
//! columns the views show, a row-level-security policy for that owner where a grant opens some rows only, and one login role per principal, which may read
//! just the views. Why so: ARCHITECTURE.md, "Why a face holds".

pub mod condition;
pub mod connection;
pub mod ddl;
pub mod draft;
pub mod drift;
pub mod install;
pub mod mask;
mod others;
pub mod preflight;
mod row_security;
pub mod schema;
pub mod spec;
mod spelled;
pub mod sql;
pub mod steward;

pub use condition::{Number, Piece};
pub use connection::Target;
pub use others::{Code, Others};
pub use spec::{FaceSpec, Filter};
pub use steward::{FULL, Found, Login, Named, Names, People, Relation, Relations, Steward, questions};

/// What can go wrong between an outcome and a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be reached.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// The store refused a statement. The text is PostgreSQL's message without row values.
    #[error("the store refused to {doing}: {problem}")]
    Refused {
        /// What was attempted.
        doing: &'static str,
        /// The message.
        problem: String,
    },
    /// The store cannot do it just now: no connection is free, or something is locked.
    #[error("the store cannot {doing} just now (SQLSTATE {sqlstate})")]
    Busy {
        /// What was attempted.
        doing: &'static str,
        /// Why.
        sqlstate: String,
    },
    /// A face cannot be made while others use its tables.
    #[error(
        "the rows of {0} cannot be chosen just now: transactions that use the table have not ended for some seconds"
    )]
    InUse(String),
    /// No mask of this kind exists for the column's type.
    #[error(
        "{table}.{column} has type {sql_type}, for which there is no {kind} mask; change its kind in the catalogue"
    )]
    NoMask {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        sql_type: String,
        /// The kind in the catalogue.
        kind: &'static str,
    },
    /// The catalogue speaks of something that the store does not have.
    #[error("the catalogue has {0}, which the store has not")]
    NotInStore(String),
    /// `ringfence install` has not been run on this database.
    #[error("this database is not prepared: run `ringfence install` on it as its superuser first")]
    NotInstalled,
}

/// An error with what is behind it: "error connecting to server: certificate has expired".
pub fn because(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// Too many connections, a lock that was not had in time, a deadlock, a statement that took too long, a store that
/// starts.
const BUSY: &[&str] = &["53300", "55P03", "40P01", "57014", "57P03"];

impl Error {
    /// Wraps a driver error; keeps the message and SQLSTATE, drops DETAIL, which may hold values.
    pub fn refused(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |e| match e.as_db_error() {
            Some(db) if BUSY.contains(&db.code().code()) => {
                Self::Busy { doing, sqlstate: db.code().code().to_owned() }
            }
            Some(db) => Self::Refused { doing, problem: format!("{} ({})", db.message(), db.code().code()) },
            None => Self::Unreachable(because(&e)),
        }
    }
}
