//! The register of copies.

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::{Control, Error};

/// How a copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyState {
    /// It is there.
    Registered,
    /// It is there, and somebody has decided that it may be, until a time.
    Excepted,
    /// It is not there any more.
    Gone,
}

impl CopyState {
    fn word(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Excepted => "excepted",
            Self::Gone => "gone",
        }
    }

    fn parse(word: &str) -> Result<Self, Error> {
        Ok(match word {
            "registered" => Self::Registered,
            "excepted" => Self::Excepted,
            "gone" => Self::Gone,
            other => return Err(Error::Database(format!("a copy has the state {other:?}"))),
        })
    }
}

/// A copy as it is registered.
#[derive(Clone, Debug, Serialize)]
pub struct Registered {
    /// Its name.
    pub id: String,
    /// Whose data.
    pub jurisdiction: String,
    /// What it is, in JSON.
    pub description: String,
    /// How it stands.
    pub state: CopyState,
    /// When it was first and last seen, in milliseconds since 1970.
    pub first_seen: u64,
    /// See above.
    pub last_seen: u64,
    /// Why it may be there, or is gone.
    pub reason: Option<String>,
    /// Who decided that.
    pub decided_by: Option<String>,
    /// Until when it may be there, in milliseconds since 1970.
    pub until: Option<u64>,
}

fn registered(row: &Row) -> Result<Registered, Error> {
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(Registered {
        id: row.get(0),
        jurisdiction: row.get(1),
        description: row.get(2),
        state: CopyState::parse(row.get(3))?,
        first_seen: number(row.get(4)),
        last_seen: number(row.get(5)),
        reason: row.get(6),
        decided_by: row.get(7),
        until: row.get::<_, Option<i64>>(8).map(number),
    })
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Control {
    /// Puts a copy in the register, or notes that it was seen again. One that was gone is back.
    pub async fn register_copy(
        &self,
        id: &str,
        jurisdiction: &str,
        description: &str,
        now: u64,
    ) -> Result<(), Error> {
        let client = self.client().await?;
        client
            .execute(
                "INSERT INTO copies (id, jurisdiction, description, state, first_seen, last_seen) VALUES ($1, $2, $3, 'registered', $4, $4)
                 ON CONFLICT (id) DO UPDATE SET description = excluded.description, last_seen = excluded.last_seen,
                    state = CASE copies.state WHEN 'gone' THEN 'registered' ELSE copies.state END",
                &[&id, &jurisdiction, &description, &signed(now)],
            )
            .await?;
        Ok(())
    }

    /// All copies of a jurisdiction.
    pub async fn copies(&self, jurisdiction: &str) -> Result<Vec<Registered>, Error> {
        let client = self.client().await?;
        let rows = client
            .query(
                "SELECT id, jurisdiction, description, state, first_seen, last_seen, reason, decided_by, until FROM copies
                 WHERE jurisdiction = $1 ORDER BY first_seen, id",
                &[&jurisdiction],
            )
            .await?;
        rows.iter().map(registered).collect()
    }

    /// Finds one.
    pub async fn copy(&self, id: &str) -> Result<Registered, Error> {
        let client = self.client().await?;
        let row = client
            .query_opt(
                "SELECT id, jurisdiction, description, state, first_seen, last_seen, reason, decided_by, until FROM copies WHERE id = $1",
                &[&id],
            )
            .await?;
        registered(&row.ok_or_else(|| Error::NoSuchCopy(id.to_owned()))?)
    }

    /// Decides about a copy.
    pub async fn decide_copy(
        &self,
        id: &str,
        state: CopyState,
        by: &str,
        reason: &str,
        until: Option<u64>,
    ) -> Result<(), Error> {
        let client = self.client().await?;
        let changed = client
            .execute(
                "UPDATE copies SET state = $2, decided_by = $3, reason = $4, until = $5 WHERE id = $1",
                &[&id, &state.word(), &by, &reason, &until.map(signed)],
            )
            .await?;
        if changed == 0 { Err(Error::NoSuchCopy(id.to_owned())) } else { Ok(()) }
    }
}
