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

impl Control {
    /// Somebody has logged in: whom the provider calls `subject` is `name` here.
    pub async fn met(&self, name: &str, subject: &str) -> Result<(), Error> {
        let guard = self.client().await?;
        let client = guard.as_ref().expect("connected by client()");
        let sql =
            "INSERT INTO people (name, subject) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET subject = $2
                   WHERE people.subject IS DISTINCT FROM $2";
        client.execute(sql, &[&name, &subject]).await?;
        Ok(())
    }

    /// Whom the provider calls `subject`: normally one, and all of them where names were changed.
    pub async fn called(&self, subject: &str) -> Result<Vec<String>, Error> {
        let guard = self.client().await?;
        let client = guard.as_ref().expect("connected by client()");
        let rows =
            client.query("SELECT name FROM people WHERE subject = $1 ORDER BY name", &[&subject]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Nothing counts any more that somebody was given by logging in before `at`.
    pub async fn sign_out(&self, name: &str, at: u64) -> Result<(), Error> {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        let guard = self.client().await?;
        let client = guard.as_ref().expect("connected by client()");
        let sql = "INSERT INTO people (name, signed_out) VALUES ($1, $2)
                   ON CONFLICT (name) DO UPDATE SET signed_out = greatest(people.signed_out, $2)";
        client.execute(sql, &[&name, &at]).await?;
        Ok(())
    }

    /// Whether somebody may come at all.
    pub async fn set_active(&self, name: &str, active: bool) -> Result<(), Error> {
        let guard = self.client().await?;
        let client = guard.as_ref().expect("connected by client()");
        let sql =
            "INSERT INTO people (name, active) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET active = $2";
        client.execute(sql, &[&name, &active]).await?;
        Ok(())
    }

    /// Everybody of whom something was said.
    pub async fn presences(&self) -> Result<Vec<Presence>, Error> {
        let guard = self.client().await?;
        let client = guard.as_ref().expect("connected by client()");
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
