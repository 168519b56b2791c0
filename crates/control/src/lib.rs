//! The control database: requests, approvals, grants and what was used of them. Queries and migrations, no decisions.
//!
//! It is no root of trust: a grant counts only with its approvers' signatures, which whoever reads it verifies again.

mod copies;
mod enrolments;
mod erasures;
mod migrations;
mod orders;
mod presence;
mod recent;
mod requests;

use deadpool_postgres::{Hook, HookError, Object, Pool, PoolError};
use ringfence_face::Target;

pub use copies::{CopyState, Registered};
pub use enrolments::StoredEnrolment;
pub use erasures::StoredErasure;
pub use orders::StoredOrder;
pub use presence::{Met, Presence};
pub use requests::{Sketch, State, Stored};

/// What can go wrong with the control database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached or refused a statement. Without DETAIL, which may hold values.
    #[error("the control database: {0}")]
    Database(String),
    /// There is no request of this name.
    #[error("there is no request {0}")]
    NoSuchRequest(String),
    /// There is no plan of this name.
    #[error("there is no plan {0}")]
    NoSuchErasure(String),
    /// There is no order of this name that could be signed.
    #[error("there is no order {0} that waits for a signature")]
    NoSuchOrder(String),
    /// No enrolment of this name waits.
    #[error("there is no enrolment {0}")]
    NoSuchEnrolment(String),
    /// There is no copy of this name.
    #[error("there is no copy {0}")]
    NoSuchCopy(String),
    /// The request is not in a state that allows this.
    #[error("the request {id} is {state}, so it cannot be {wanted}")]
    WrongState {
        /// Its name.
        id: String,
        /// What it is.
        state: State,
        /// What it was to become.
        wanted: &'static str,
    },
}

impl From<tokio_postgres::Error> for Error {
    fn from(e: tokio_postgres::Error) -> Self {
        match e.as_db_error() {
            Some(db) => Self::Database(format!("{} ({})", db.message(), db.code().code())),
            None => Self::Database(ringfence_face::because(&e)),
        }
    }
}

impl From<PoolError> for Error {
    fn from(e: PoolError) -> Self {
        match e {
            PoolError::Backend(e) | PoolError::PostCreateHook(HookError::Backend(e)) => e.into(),
            PoolError::PostCreateHook(HookError::Message(problem)) => Self::Database(problem.into_owned()),
            PoolError::Timeout(_) => Self::Database("no connection is free".to_owned()),
            other => Self::Database(other.to_string()),
        }
    }
}

/// The most connections of one gateway to the control database.
const CONNECTIONS: usize = 6;

/// Connections to the control database that come back by themselves.
pub struct Control {
    pool: Pool,
    readings: requests::Readings,
    recent: recent::Recent<Vec<Stored>>,
    recent_plans: recent::Recent<Vec<StoredErasure>>,
    recent_enrolments: recent::Recent<Vec<StoredEnrolment>>,
}

impl Control {
    /// A control database at `target`, connected when first needed.
    pub fn new(target: &Target) -> Self {
        let prepared = Hook::async_fn(|client, _| {
            Box::pin(async { migrations::run(client).await.map_err(|e| HookError::message(e.to_string())) })
        });
        Self {
            pool: target.pool(CONNECTIONS, prepared),
            readings: requests::Readings::default(),
            recent: recent::Recent::default(),
            recent_plans: recent::Recent::default(),
            recent_enrolments: recent::Recent::default(),
        }
    }

    async fn client(&self) -> Result<Object, Error> {
        Ok(self.pool.get().await?)
    }

    /// Something was seen to have changed, as at another gateway: what was read before is not shown again.
    pub fn touch(&self) {
        self.recent.touch();
        self.recent_plans.touch();
        self.recent_enrolments.touch();
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Error> {
        let client = self.client().await?;
        client.simple_query("").await?;
        Ok(())
    }

    /// Gives up the connections on which nobody waits for an answer: who asks next connects again.
    pub fn hang_up(&self) {
        self.pool.retain(|_, _| false);
    }
}
