//! Keys that wait for approvers to let them in, and the signatures that they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Control, Error};

/// How long one is kept, in milliseconds: whoever keeps the registry has taken it by then, or nobody will.
const KEPT: i64 = 30 * 24 * 3600 * 1000;

/// An enrolment as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEnrolment {
    /// Its name.
    pub id: String,
    /// What is signed.
    pub canonical: String,
    /// By whom it is: signatures by approver.
    pub signatures: BTreeMap<String, String>,
}

const READ: &str = "SELECT e.id, e.canonical, s.approver, s.signature FROM enrolments e
     LEFT JOIN enrolment_signatures s ON s.id = e.id";

/// One enrolment for the rows of each.
fn stored(rows: &[tokio_postgres::Row]) -> Vec<StoredEnrolment> {
    let mut all: Vec<StoredEnrolment> = Vec::new();
    for row in rows {
        let id: String = row.get(0);
        if all.last().is_none_or(|last| last.id != id) {
            all.push(StoredEnrolment { id, canonical: row.get(1), signatures: BTreeMap::new() });
        }
        if let (Some(last), Some(approver), Some(signature)) = (all.last_mut(), row.get(2), row.get(3)) {
            last.signatures.insert(approver, signature);
        }
    }
    all
}

impl Control {
    /// Stores one of `person`'s, instead of what they asked for before and nobody has signed.
    pub async fn insert_enrolment(
        &self,
        id: &str,
        person: &str,
        canonical: &str,
        now: u64,
    ) -> Result<(), Error> {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let old = "DELETE FROM enrolments e WHERE created < $1
             OR person = $2 AND NOT EXISTS (SELECT FROM enrolment_signatures s WHERE s.id = e.id)";
        tx.execute(old, &[&(now - KEPT), &person]).await?;
        let sql = "INSERT INTO enrolments (id, person, canonical, created) VALUES ($1, $2, $3, $4)";
        tx.execute(sql, &[&id, &person, &canonical, &now]).await?;
        tx.commit().await?;
        self.recent_enrolments.touch();
        Ok(())
    }

    /// Finds one.
    pub async fn enrolment(&self, id: &str) -> Result<StoredEnrolment, Error> {
        let client = self.client().await?;
        let rows = client.query(&format!("{READ} WHERE e.id = $1"), &[&id]).await?;
        stored(&rows).pop().ok_or_else(|| Error::NoSuchEnrolment(id.to_owned()))
    }

    /// All of them, the oldest first.
    pub async fn enrolments(&self) -> Result<Arc<Vec<StoredEnrolment>>, Error> {
        if let Some(found) = self.recent_enrolments.get("") {
            return Ok(found);
        }
        let client = self.client().await?;
        let number = self.recent_enrolments.number();
        let found = stored(&client.query(&format!("{READ} ORDER BY e.created, e.id"), &[]).await?);
        Ok(self.recent_enrolments.put(String::new(), number, found))
    }

    /// An approver has signed it; a second signature of theirs takes the first one's place.
    pub async fn sign_enrolment(&self, id: &str, approver: &str, signature: &str) -> Result<(), Error> {
        let client = self.client().await?;
        let sql = "INSERT INTO enrolment_signatures (id, approver, signature)
             SELECT id, $2, $3 FROM enrolments WHERE id = $1
             ON CONFLICT (id, approver) DO UPDATE SET signature = excluded.signature";
        match client.execute(sql, &[&id, &approver, &signature]).await? {
            1 => {
                self.recent_enrolments.touch();
                Ok(())
            }
            _ => Err(Error::NoSuchEnrolment(id.to_owned())),
        }
    }
}
