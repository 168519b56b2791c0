//! Requests from asked to ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ringfence_grants::{Approval, Request};
use serde::{Deserialize, Serialize};
use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Row};

use crate::{Control, Error};

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for approvers.
    Pending,
    /// In force.
    Granted,
    /// Turned down.
    Denied,
    /// Taken back.
    Revoked,
    /// Over.
    Expired,
}

impl State {
    fn parse(word: &str) -> Result<Self, Error> {
        Ok(match word {
            "pending" => Self::Pending,
            "granted" => Self::Granted,
            "denied" => Self::Denied,
            "revoked" => Self::Revoked,
            "expired" => Self::Expired,
            other => return Err(Error::Database(format!("a request has the state {other:?}"))),
        })
    }

    /// The word in the database and for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// A request as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The request, parsed from its canonical text.
    pub request: Arc<Request>,
    /// Its text, as it was signed.
    pub canonical: Arc<str>,
    /// Where it stands.
    pub state: State,
    /// When the last approval came, in milliseconds since 1970.
    pub granted: Option<u64>,
    /// Who ended it and why.
    pub ended: Option<(String, String)>,
    /// Rows charged to its limit, or leased.
    pub charged: u64,
    /// Its signatures.
    pub approvals: Vec<Approval>,
}

/// What shows whether a request that is pending or granted has changed: its text never does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// When the last approval came, in milliseconds since 1970.
    pub granted: Option<u64>,
    /// How many signatures it has.
    pub approvals: u64,
}

const COLUMNS: &str = "SELECT r.canonical, r.state, r.granted, r.ended_by, r.reason, r.rows_used,
    (SELECT coalesce(json_agg(json_build_object('approver', a.approver, 'signature', a.signature) ORDER BY a.at)::text, '[]')
     FROM approvals a WHERE a.request = r.id) FROM requests r";

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// How many texts are kept with what was read of them: more than people look at.
const MOST_READ: usize = 4096;

/// What was read of texts, which never change: a page shows many requests, and reading one costs more than showing it.
#[derive(Default)]
pub(crate) struct Readings(Mutex<HashMap<Arc<str>, Arc<Request>>>);

impl Readings {
    fn request(&self, canonical: &str) -> Result<(Arc<str>, Arc<Request>), Error> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((text, request)) = known().get_key_value(canonical) {
            return Ok((Arc::clone(text), Arc::clone(request)));
        }
        let request =
            Request::parse(canonical).map_err(|e| Error::Database(format!("a stored request {e}")))?;
        let (text, request): (Arc<str>, _) = (canonical.into(), Arc::new(request));
        let mut known = known();
        if known.len() >= MOST_READ {
            known.clear();
        }
        known.insert(Arc::clone(&text), Arc::clone(&request));
        Ok((text, request))
    }

    fn stored(&self, row: &Row) -> Result<Stored, Error> {
        let (canonical, request) = self.request(row.get(0))?;
        let approvals = serde_json::from_str(row.get(6))
            .map_err(|_| Error::Database("a stored approval is malformed".to_owned()))?;
        let by: Option<String> = row.get(3);
        Ok(Stored {
            canonical,
            request,
            state: State::parse(row.get(1))?,
            granted: row.get::<_, Option<i64>>(2).map(unsigned),
            ended: by.map(|by| (by, row.get::<_, Option<String>>(4).unwrap_or_default())),
            charged: unsigned(row.get(5)),
            approvals,
        })
    }
}

fn readable(stored: Result<Stored, Error>) -> Option<Stored> {
    stored.inspect_err(|problem| tracing::error!(%problem, "a stored request is left out")).ok()
}

async fn state_for_update(tx: &impl GenericClient, id: &str) -> Result<State, Error> {
    let row = tx.query_opt("SELECT state FROM requests WHERE id = $1 FOR UPDATE", &[&id]).await?;
    State::parse(row.ok_or_else(|| Error::NoSuchRequest(id.to_owned()))?.get(0))
}

impl Control {
    /// Stores a new request.
    pub async fn insert(&self, request: &Request) -> Result<(), Error> {
        let canonical = request.canonical();
        // What cannot be read back could be neither decided nor taken back.
        Request::parse(&canonical).map_err(|e| Error::Database(format!("the new request {e}")))?;
        let client = self.client().await?;
        client
            .execute(
                "INSERT INTO requests (id, canonical, requester, store, state, created) VALUES ($1, $2, $3, $4, 'pending', $5)",
                &[&request.id, &canonical, &request.requester, &request.store, &signed(request.created)],
            )
            .await?;
        self.recent.touch();
        Ok(())
    }

    /// Finds one request.
    pub async fn find(&self, id: &str) -> Result<Stored, Error> {
        let client = self.client().await?;
        let row = client.query_opt(&format!("{COLUMNS} WHERE r.id = $1"), &[&id]).await?;
        self.readings.stored(&row.ok_or_else(|| Error::NoSuchRequest(id.to_owned()))?)
    }

    /// The same to look at: as it was within the last second.
    pub async fn look(&self, id: &str) -> Result<Stored, Error> {
        let question = format!("one {id}");
        let found = if let Some(found) = self.recent.get(&question) {
            found
        } else {
            let number = self.recent.number();
            self.recent.put(question, number, vec![self.find(id).await?])
        };
        found.first().cloned().ok_or_else(|| Error::NoSuchRequest(id.to_owned()))
    }

    /// All requests that are pending or granted, however many: without texts and signatures, so that it can be asked for
    /// each second.
    pub async fn open(&self) -> Result<Vec<(Sketch, u64)>, Error> {
        let client = self.client().await?;
        let rows = client
            .query(
                "SELECT r.id, r.state, r.granted, count(a.request), r.rows_used
                 FROM requests r LEFT JOIN approvals a ON a.request = r.id
                 WHERE r.state IN ('pending', 'granted') GROUP BY r.id",
                &[],
            )
            .await?;
        let sketch = |row: &Row| {
            let sketch = Sketch {
                id: row.get(0),
                state: State::parse(row.get(1))?,
                granted: row.get::<_, Option<i64>>(2).map(unsigned),
                approvals: unsigned(row.get(3)),
            };
            Ok((sketch, unsigned(row.get(4))))
        };
        rows.iter().map(sketch).collect()
    }

    /// Those of `ids` that are there. One that is malformed does not keep the others from being read.
    pub async fn find_all(&self, ids: &[String]) -> Result<Vec<Result<Stored, Error>>, Error> {
        let client = self.client().await?;
        let sql = format!("{COLUMNS} WHERE r.id = ANY($1)");
        Ok(client.query(&sql, &[&ids]).await?.iter().map(|row| self.readings.stored(row)).collect())
    }

    /// Requests for somebody to read, in one of `states`: those at `stores`, and their own. What is open comes first, then the newest; at
    /// most 1,000, for people. One that is malformed does not keep the others from being read.
    pub async fn list(
        &self,
        states: &[State],
        stores: &[&str],
        requester: &str,
    ) -> Result<Arc<Vec<Stored>>, Error> {
        let words: Vec<&str> = states.iter().map(|s| s.word()).collect();
        let sql = format!(
            "{COLUMNS} WHERE r.state = ANY($1) AND (r.store = ANY($2) OR r.requester = $3)
             ORDER BY r.state IN ('pending', 'granted') DESC, r.created DESC LIMIT 1000"
        );
        let question = format!("{states:?} {stores:?} {requester:?}");
        self.recently(question, &sql, &[&words, &stores, &requester]).await
    }

    /// Of the newest requests that somebody may read (as in [`Self::list`]), those that are like one: by the same person, or of the same
    /// table.
    pub async fn like(
        &self,
        one: &Request,
        stores: &[&str],
        reader: &str,
    ) -> Result<Arc<Vec<Stored>>, Error> {
        /// How far back it is looked.
        const NEWEST: i64 = 300;
        let sql = format!(
            "{COLUMNS} WHERE r.id IN (
                SELECT n.id FROM (
                    SELECT id, canonical, requester, store FROM requests
                    WHERE store = ANY($1) OR requester = $2 ORDER BY created DESC LIMIT $3
                ) n
                WHERE n.id <> $4 AND (n.requester = $5 OR n.store = $6 AND n.canonical::json ->> 'table' = $7)
             ) ORDER BY r.created DESC LIMIT 5"
        );
        let question = format!("like {} {stores:?} {reader:?}", one.id);
        let values: [&(dyn ToSql + Sync); 7] =
            [&stores, &reader, &NEWEST, &one.id, &one.requester, &one.store, &one.table];
        self.recently(question, &sql, &values).await
    }

    /// What was read within the last second, or is now: for looking. What is malformed is left out.
    async fn recently(
        &self,
        question: String,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Arc<Vec<Stored>>, Error> {
        if let Some(found) = self.recent.get(&question) {
            return Ok(found);
        }
        let client = self.client().await?;
        // Somebody may have asked the same while we waited for a connection.
        if let Some(found) = self.recent.get(&question) {
            return Ok(found);
        }
        let number = self.recent.number();
        let rows = client.query(sql, values).await?;
        let found = rows.iter().map(|row| self.readings.stored(row)).filter_map(readable).collect();
        Ok(self.recent.put(question, number, found))
    }

    /// Requests that are open, and those that were made or ended after `since` (milliseconds since 1970); at most 10,000.
    pub async fn since(&self, since: u64) -> Result<Vec<Stored>, Error> {
        let client = self.client().await?;
        let sql = format!(
            "{COLUMNS} WHERE r.state IN ('pending', 'granted') OR r.created >= $1 OR r.ended >= $1
             ORDER BY r.created DESC LIMIT 10000"
        );
        Ok(client
            .query(&sql, &[&signed(since)])
            .await?
            .iter()
            .map(|row| self.readings.stored(row))
            .filter_map(readable)
            .collect())
    }

    /// How many requests of somebody wait for a decision.
    pub async fn waiting_of(&self, requester: &str) -> Result<u64, Error> {
        let client = self.client().await?;
        let sql = "SELECT count(*) FROM requests WHERE state = 'pending' AND requester = $1";
        Ok(unsigned(client.query_one(sql, &[&requester]).await?.get(0)))
    }

    /// Adds a signature, which the caller has verified; returns the request as it is then.
    pub async fn approve(&self, id: &str, approval: &Approval, now: u64) -> Result<Stored, Error> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let state = state_for_update(&*tx, id).await?;
        if state != State::Pending {
            return Err(Error::WrongState { id: id.to_owned(), state, wanted: "approved" });
        }
        tx.execute(
            "INSERT INTO approvals (request, approver, signature, at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            &[&id, &approval.approver, &approval.signature, &signed(now)],
        )
        .await?;
        let row = tx.query_one(&format!("{COLUMNS} WHERE r.id = $1"), &[&id]).await?;
        let after = self.readings.stored(&row)?;
        tx.commit().await?;
        self.recent.touch();
        Ok(after)
    }

    /// Puts a request in force; false if it is no longer pending.
    pub async fn grant(&self, id: &str, now: u64) -> Result<bool, Error> {
        let client = self.client().await?;
        let sql = "UPDATE requests SET state = 'granted', granted = $2 WHERE id = $1 AND state = 'pending'";
        let granted = client.execute(sql, &[&id, &signed(now)]).await? == 1;
        self.recent.touch();
        Ok(granted)
    }

    /// Ends a request: denied from pending, revoked or expired from granted.
    pub async fn end(&self, id: &str, to: State, by: &str, reason: &str, now: u64) -> Result<(), Error> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let state = state_for_update(&*tx, id).await?;
        let allowed = match to {
            State::Denied => state == State::Pending,
            State::Revoked => matches!(state, State::Granted | State::Pending),
            State::Expired => matches!(state, State::Granted | State::Pending),
            State::Pending | State::Granted => false,
        };
        if !allowed {
            return Err(Error::WrongState { id: id.to_owned(), state, wanted: to.word() });
        }
        tx.execute(
            "UPDATE requests SET state = $2, ended = $3, ended_by = $4, reason = $5 WHERE id = $1",
            &[&id, &to.word(), &signed(now), &by, &reason],
        )
        .await?;
        tx.commit().await?;
        self.recent.touch();
        Ok(())
    }

    /// Takes up to `want` rows from what a grant with a limit of `max` still has; 0 means that it is used up. What a crash
    /// leaves leased stays used: the limit can be missed downwards only.
    pub async fn lease_rows(&self, id: &str, want: u64, max: u64) -> Result<u64, Error> {
        let client = self.client().await?;
        let row = client
            .query_opt(
                "WITH before AS (SELECT id, rows_used FROM requests WHERE id = $1 AND state = 'granted' FOR UPDATE)
                 UPDATE requests r SET rows_used = least(b.rows_used + $2, greatest($3, b.rows_used))
                 FROM before b WHERE r.id = b.id RETURNING r.rows_used - b.rows_used",
                &[&id, &signed(want), &signed(max)],
            )
            .await?;
        Ok(row.map_or(0, |r| unsigned(r.get(0))))
    }

    /// Gives back rows that were leased and not read.
    pub async fn return_rows(&self, id: &str, rows: u64) -> Result<(), Error> {
        let client = self.client().await?;
        client
            .execute(
                "UPDATE requests SET rows_used = greatest(rows_used - $2, 0) WHERE id = $1",
                &[&id, &signed(rows)],
            )
            .await?;
        Ok(())
    }
}
