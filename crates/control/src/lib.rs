//! The control database: requests, approvals, grants and what was used of them. Queries and migrations, no decisions.
//!
//! It is no root of trust: a grant counts only with its approvers' signatures, which whoever reads it verifies again.

mod migrations;
mod requests;

use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::{Client, Config, NoTls};

pub use requests::{State, Stored};

/// What can go wrong with the control database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached or refused a statement. Without DETAIL, which may hold values.
    #[error("the control database: {0}")]
    Database(String),
    /// There is no request of this name.
    #[error("there is no request {0}")]
    NoSuchRequest(String),
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
            None => Self::Database(e.to_string()),
        }
    }
}

/// A connection to the control database that comes back by itself.
pub struct Control {
    config: Config,
    client: Mutex<Option<Client>>,
}

impl Control {
    /// A control database at `config`, connected when first needed.
    pub fn new(config: Config) -> Self {
        Self { config, client: Mutex::new(None) }
    }

    async fn client(&self) -> Result<MutexGuard<'_, Option<Client>>, Error> {
        let mut guard = self.client.lock().await;
        if guard.as_ref().is_none_or(Client::is_closed) {
            let (mut client, connection) = self.config.connect(NoTls).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::warn!(%error, "the connection to the control database ended");
                }
            });
            migrations::run(&mut client).await?;
            *guard = Some(client);
        }
        Ok(guard)
    }
}
