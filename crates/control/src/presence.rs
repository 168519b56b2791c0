//! What the identity provider has said of people since they logged in: that they are signed out, or deactivated.

use crate::{Control, Error};

/// What is known of one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The name in the registry.
    pub name: String,
    /// What was given to them by logging in before this counts no more, in milliseconds since 1970.
    pub signed_out: u64,
    /// Whether they may come at all.
    pub active: bool,
}

/// What came of meeting somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// They are who they were, or new. What they were given by logging in before `signed_out` (milliseconds since 1970) counts no more.
    Them {
        /// See above; 0 if nobody signed them out.
        signed_out: u64,
    },
    /// The provider calls somebody else so, or somebody else by this name.
    Somebody,
}

/// How long a sign-out by subject is kept: no token lasts longer.
const KEPT_MS: i64 = 90 * 24 * 3600 * 1000;

impl Control {
    /// Somebody has shown a token for `audience` in which the provider calls them `subject`, and `name` here. The first such token binds
    /// the two: names are given anew, subjects are not (OpenID Connect Core 1.0, 5.7).
    pub async fn met(&self, name: &str, audience: &str, subject: &str) -> Result<Met, Error> {
        let client = self.client().await?;
        let sql = "SELECT name, subject FROM identities WHERE audience = $1 AND (subject = $2 OR name = $3)";
        let mut rows = client.query(sql, &[&audience, &subject, &name]).await?;
        if rows.is_empty() {
            let new =
                "INSERT INTO identities (audience, subject, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            client.execute(new, &[&audience, &subject, &name]).await?;
            rows = client.query(sql, &[&audience, &subject, &name]).await?;
        }
        let is_them =
            |row: &tokio_postgres::Row| row.get::<_, &str>(0) == name && row.get::<_, &str>(1) == subject;
        if rows.is_empty() || !rows.iter().all(is_them) {
            return Ok(Met::Somebody);
        }
        let sql = "SELECT at FROM subject_sign_outs WHERE subject = $1";
        let at = client.query_opt(sql, &[&subject]).await?.map_or(0, |row| row.get::<_, i64>(0));
        Ok(Met::Them { signed_out: u64::try_from(at).unwrap_or(0) })
    }

    /// Forgets what the provider calls somebody: the next token binds anew. Returns how many bindings there were.
    pub async fn unbind(&self, name: &str) -> Result<u64, Error> {
        let client = self.client().await?;
        Ok(client.execute("DELETE FROM identities WHERE name = $1", &[&name]).await?)
    }

    /// Nothing counts any more that was given to whom the provider calls `subject` by logging in before `at`; returns who that is, if
    /// they were met: normally one.
    pub async fn sign_out_subject(&self, subject: &str, at: u64) -> Result<Vec<String>, Error> {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        let client = self.client().await?;
        let sql = "INSERT INTO subject_sign_outs (subject, at) VALUES ($1, $2)
                   ON CONFLICT (subject) DO UPDATE SET at = greatest(subject_sign_outs.at, $2)";
        client.execute(sql, &[&subject, &at]).await?;
        client.execute("DELETE FROM subject_sign_outs WHERE at < $1", &[&(at - KEPT_MS)]).await?;
        let sql = "SELECT DISTINCT name FROM identities WHERE subject = $1 ORDER BY name";
        Ok(client.query(sql, &[&subject]).await?.iter().map(|row| row.get(0)).collect())
    }

    /// Nothing counts any more that somebody was given by logging in before `at`.
    pub async fn sign_out(&self, name: &str, at: u64) -> Result<(), Error> {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        let client = self.client().await?;
        let sql = "INSERT INTO people (name, signed_out) VALUES ($1, $2)
                   ON CONFLICT (name) DO UPDATE SET signed_out = greatest(people.signed_out, $2)";
        client.execute(sql, &[&name, &at]).await?;
        Ok(())
    }

    /// Whether somebody may come at all.
    pub async fn set_active(&self, name: &str, active: bool) -> Result<(), Error> {
        let client = self.client().await?;
        let sql =
            "INSERT INTO people (name, active) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET active = $2";
        client.execute(sql, &[&name, &active]).await?;
        Ok(())
    }

    /// Everybody of whom something was said.
    pub async fn presences(&self) -> Result<Vec<Presence>, Error> {
        let client = self.client().await?;
        let sql = "SELECT name, signed_out, active FROM people WHERE signed_out > 0 OR NOT active";
        let rows = client.query(sql, &[]).await?;
        let presence = |row: &tokio_postgres::Row| Presence {
            name: row.get(0),
            signed_out: u64::try_from(row.get::<_, i64>(1)).unwrap_or(0),
            active: row.get(2),
        };
        Ok(rows.iter().map(presence).collect())
    }
}
