//! Regulators' orders: proposed, signed.

use crate::{Control, Error};

/// An order as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOrder {
    /// Its name.
    pub id: String,
    /// What is signed.
    pub canonical: String,
    /// By whom it is, once it is signed.
    pub signature: Option<String>,
}

fn stored(row: &tokio_postgres::Row) -> StoredOrder {
    StoredOrder { id: row.get(0), canonical: row.get(1), signature: row.get(2) }
}

impl Control {
    /// Stores one that waits for its signature. Those that have waited for a day are forgotten.
    pub async fn insert_order(&self, id: &str, canonical: &str, now: u64) -> Result<(), Error> {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let client = self.client().await?;
        let old = "DELETE FROM orders WHERE signature IS NULL AND created < $1";
        client.execute(old, &[&(now - 24 * 3600 * 1000)]).await?;
        let sql = "INSERT INTO orders (id, canonical, created) VALUES ($1, $2, $3)";
        client.execute(sql, &[&id, &canonical, &now]).await?;
        Ok(())
    }

    /// Finds one.
    pub async fn order(&self, id: &str) -> Result<StoredOrder, Error> {
        let client = self.client().await?;
        let row =
            client.query_opt("SELECT id, canonical, signature FROM orders WHERE id = $1", &[&id]).await?;
        Ok(stored(&row.ok_or_else(|| Error::NoSuchOrder(id.to_owned()))?))
    }

    /// It is signed, and in force behind all that were before it.
    pub async fn sign_order(&self, id: &str, signature: &str) -> Result<(), Error> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        // One at a time: the order of places is the order in which they can be seen.
        tx.execute("LOCK TABLE orders IN EXCLUSIVE MODE", &[]).await?;
        let sql = "UPDATE orders SET signature = $2, place = nextval('orders_place') WHERE id = $1 AND signature IS NULL";
        if tx.execute(sql, &[&id, &signature]).await? != 1 {
            return Err(Error::NoSuchOrder(id.to_owned()));
        }
        tx.commit().await?;
        Ok(())
    }

    /// All that are signed, in the order in which they were.
    pub async fn signed_orders(&self) -> Result<Vec<StoredOrder>, Error> {
        let client = self.client().await?;
        let sql = "SELECT id, canonical, signature FROM orders WHERE signature IS NOT NULL ORDER BY place";
        Ok(client.query(sql, &[]).await?.iter().map(stored).collect())
    }
}
