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

use ringfence_face::Target;
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::Client;

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

/// A connection to the control database that comes back by itself.
pub struct Control {
    target: Target,
    client: Mutex<Option<Client>>,
    readings: requests::Readings,
    recent: recent::Recent<Vec<Stored>>,
    recent_plans: recent::Recent<Vec<StoredErasure>>,
    recent_enrolments: recent::Recent<Vec<StoredEnrolment>>,
}

impl Control {
    /// A control database at `target`, connected when first needed.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            client: Mutex::new(None),
            readings: requests::Readings::default(),
            recent: recent::Recent::default(),
            recent_plans: recent::Recent::default(),
            recent_enrolments: recent::Recent::default(),
        }
    }

    async fn client(&self) -> Result<MutexGuard<'_, Option<Client>>, Error> {
        let mut guard = self.client.lock().await;
        if guard.as_ref().is_none_or(Client::is_closed) {
            let mut client = self.target.connect("the control database").await?;
            migrations::run(&mut client).await?;
            *guard = Some(client);
        }
        Ok(guard)
    }

    /// Something was seen to have changed, as at another gateway: what was read before is not shown again.
    pub fn touch(&self) {
        self.recent.touch();
        self.recent_plans.touch();
        self.recent_enrolments.touch();
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Error> {
        let guard = self.client().await?;
        let client = guard.as_ref().expect("connected by client()");
        client.simple_query("").await?;
        Ok(())
    }

    /// Gives the connection up, if nobody waits for an answer on it: the next who asks connects anew.
    pub fn hang_up(&self) {
        if let Ok(mut client) = self.client.try_lock() {
            *client = None;
        }
    }
}
