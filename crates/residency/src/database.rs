//! A connection to one side of a move, as its administrator.

use std::time::Duration;

use futures_util::StreamExt as _;
use ringfence_face::{Target, because};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A database cannot be reached, or went away.
    #[error("{database} cannot be reached: {problem}")]
    Unreachable {
        /// Which.
        database: String,
        /// Why.
        problem: String,
    },
    /// A statement was refused. The text is PostgreSQL's message, without DETAIL, which may hold values.
    #[error("{database} refused to {doing}: {problem}")]
    Refused {
        /// Which.
        database: String,
        /// What was attempted.
        doing: String,
        /// The message.
        problem: String,
        /// PostgreSQL's code for it.
        sqlstate: String,
    },
    /// It cannot be done like this; nothing was touched.
    #[error("{}", .0.join("\n"))]
    Blocked(Vec<String>),
    /// A database has nobody of the jurisdiction whose values could be looked for.
    #[error("{0} has nobody of the jurisdiction to look for, so nothing could be found anywhere")]
    Nobody(String),
    /// It was begun and could not be finished; what was done is undone, or can be resumed.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Whether it is a lock that was not to be had in time.
    pub fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Refused { sqlstate, .. } if sqlstate == "55P03" || sqlstate == "40P01")
    }
}

/// One side.
pub struct Database {
    /// What it is called in messages: the store's name.
    pub name: String,
    client: Client,
}

/// How long whoever is at work is waited for: the server's side of one that was killed finishes its statement first.
const CLAIM: Duration = Duration::from_secs(20);
/// How long a lock on a live table is waited for. Whoever waits for one blocks those who come after.
const LOCK: Duration = Duration::from_millis(500);
/// How often a lock is tried for.
const LOCK_TRIES: u32 = 40;

impl Database {
    /// Connects. What rows look like as text is the same on all sides from here on, and the server's log has statements without their
    /// values.
    pub async fn connect(name: &str, target: &Target) -> Result<Self, Error> {
        let unreachable = |e: &tokio_postgres::Error| Error::Unreachable {
            database: name.to_owned(),
            problem: e.as_db_error().map_or_else(|| because(e), |db| db.message().to_owned()),
        };
        let client = target.connect("a side of a move").await.map_err(|e| unreachable(&e))?;
        client
            .batch_execute(
                "SET search_path = pg_catalog; SET client_min_messages = warning; SET TimeZone = 'UTC';
                 SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1;
                 SET bytea_output = 'hex'; SET statement_timeout = 0; SET synchronous_commit = on; SET idle_in_transaction_session_timeout = 0;
                 SET row_security = off; SET log_parameter_max_length = 0; SET log_parameter_max_length_on_error = 0",
            )
            .await
            .map_err(|e| unreachable(&e))?;
        Ok(Self { name: name.to_owned(), client })
    }

    fn error(&self, doing: &str, e: &tokio_postgres::Error) -> Error {
        let database = self.name.clone();
        match e.as_db_error() {
            Some(db) => Error::Refused {
                database,
                doing: doing.to_owned(),
                problem: format!("{} ({})", db.message(), db.code().code()),
                sqlstate: db.code().code().to_owned(),
            },
            None => Error::Unreachable { database, problem: because(e) },
        }
    }

    /// Runs statements without parameters.
    pub async fn run(&self, doing: &str, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await.map_err(|e| self.error(doing, &e))
    }

    /// The same for what must not be in the server's log: a password, or numbers of people.
    pub async fn run_unlogged(&self, doing: &str, sql: &str) -> Result<(), Error> {
        self.run(doing, "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic'").await?;
        let done = self.run(doing, sql).await;
        self.run(
            doing,
            "RESET log_statement; RESET log_min_duration_statement; RESET log_min_error_statement",
        )
        .await?;
        done
    }

    /// Runs statements that lock live tables: waits for locks in short steps, so that nobody queues behind it for long.
    pub async fn run_locking(&self, doing: &str, sql: &str) -> Result<(), Error> {
        let sql = format!("BEGIN; SET LOCAL lock_timeout = {}; {sql}; COMMIT", LOCK.as_millis());
        let mut tries = 0;
        loop {
            match self.run(doing, &sql).await {
                Err(e) if e.is_lock_timeout() && tries < LOCK_TRIES => {
                    self.run("roll back", "ROLLBACK").await?;
                    tries += 1;
                    tokio::time::sleep(LOCK / 2).await;
                }
                Err(e) => {
                    let _ = self.run("roll back", "ROLLBACK").await;
                    return Err(e);
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Makes sure that nobody else is at work on something, for as long as this connection lives.
    pub async fn claim(&self, what: &str) -> Result<(), Error> {
        let until = tokio::time::Instant::now() + CLAIM;
        let sql = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))";
        let what = format!("ringfence: {what}");
        while !self.row("see whether anybody is at work", sql, &[&what]).await?.get::<_, bool>(0) {
            if tokio::time::Instant::now() > until {
                return Err(Error::Failed(format!(
                    "somebody else is at work on this at {}: wait for them, or end their session there (an advisory lock in pg_locks)",
                    self.name
                )));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Has statements on this connection give up after a time; zero means never.
    pub async fn give_up_after(&self, time: Duration) -> Result<(), Error> {
        self.run("set a time limit", &format!("SET statement_timeout = {}", time.as_millis())).await
    }

    /// Runs one statement; returns how many rows it changed.
    pub async fn execute(&self, doing: &str, sql: &str, with: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        self.client.execute(sql, with).await.map_err(|e| self.error(doing, &e))
    }

    /// Asks.
    pub async fn rows(
        &self,
        doing: &str,
        sql: &str,
        with: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.client.query(sql, with).await.map_err(|e| self.error(doing, &e))
    }

    /// Reads the output of a COPY … TO STDOUT in pieces, which end anywhere.
    pub async fn copy_out(
        &self,
        doing: &str,
        sql: &str,
        take: &mut (dyn FnMut(&[u8]) -> Result<(), Error> + Send),
    ) -> Result<(), Error> {
        let stream = self.client.copy_out(sql).await.map_err(|e| self.error(doing, &e))?;
        let mut stream = std::pin::pin!(stream);
        while let Some(piece) = stream.next().await {
            take(&piece.map_err(|e| self.error(doing, &e))?)?;
        }
        Ok(())
    }

    /// Asks for one row.
    pub async fn row(&self, doing: &str, sql: &str, with: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        self.client.query_one(sql, with).await.map_err(|e| self.error(doing, &e))
    }

    /// Asks for one row that may be missing.
    pub async fn maybe(
        &self,
        doing: &str,
        sql: &str,
        with: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Error> {
        self.client.query_opt(sql, with).await.map_err(|e| self.error(doing, &e))
    }
}
