//! Erasures from asked to certified.

use std::sync::Arc;

use ringfence_grants::Approval;

use crate::{Control, Error};

/// An erasure as it is stored.
#[derive(Clone, Debug)]
pub struct StoredErasure {
    /// Its name.
    pub id: String,
    /// What approvers sign.
    pub canonical: String,
    /// Who asked.
    pub requester: String,
    /// `pending`, `approved` or `done`.
    pub state: String,
    /// Its signatures.
    pub approvals: Vec<Approval>,
    /// What was done, in JSON, once it is done.
    pub certificate: Option<String>,
}

impl Control {
    /// Stores what somebody asks for.
    pub async fn insert_erasure(
        &self,
        id: &str,
        canonical: &str,
        requester: &str,
        now: i64,
    ) -> Result<(), Error> {
        let client = self.client().await?;
        client
            .execute(
                "INSERT INTO erasures (id, canonical, requester, state, created) VALUES ($1, $2, $3, 'pending', $4)",
                &[&id, &canonical, &requester, &now],
            )
            .await?;
        self.recent_plans.touch();
        Ok(())
    }

    /// Finds one.
    pub async fn erasure(&self, id: &str) -> Result<StoredErasure, Error> {
        let client = self.client().await?;
        let sql = "SELECT canonical, requester, state, certificate FROM erasures WHERE id = $1";
        let row = client.query_opt(sql, &[&id]).await?.ok_or_else(|| Error::NoSuchErasure(id.to_owned()))?;
        let sql = "SELECT approver, signature FROM erasure_approvals WHERE erasure = $1 ORDER BY at";
        let approvals = client.query(sql, &[&id]).await?;
        Ok(StoredErasure {
            id: id.to_owned(),
            canonical: row.get(0),
            requester: row.get(1),
            state: row.get(2),
            certificate: row.get(3),
            approvals: approvals
                .iter()
                .map(|a| Approval { approver: a.get(0), signature: a.get(1) })
                .collect(),
        })
    }

    /// The newest two hundred, the newest first: to look at, as they were within the last second.
    pub async fn erasures(&self) -> Result<Arc<Vec<StoredErasure>>, Error> {
        if let Some(found) = self.recent_plans.get("") {
            return Ok(found);
        }
        let client = self.client().await?;
        let number = self.recent_plans.number();
        let sql = "SELECT e.id, e.canonical, e.requester, e.state, e.certificate,
                (SELECT coalesce(json_agg(json_build_object('approver', a.approver, 'signature', a.signature) ORDER BY a.at)::text, '[]')
                 FROM erasure_approvals a WHERE a.erasure = e.id)
             FROM erasures e ORDER BY e.created DESC LIMIT 200";
        let stored = |row: &tokio_postgres::Row| {
            Ok(StoredErasure {
                id: row.get(0),
                canonical: row.get(1),
                requester: row.get(2),
                state: row.get(3),
                certificate: row.get(4),
                approvals: serde_json::from_str(row.get(5))
                    .map_err(|_| Error::Database("a stored approval is malformed".to_owned()))?,
            })
        };
        let found: Result<_, Error> = client.query(sql, &[]).await?.iter().map(stored).collect();
        Ok(self.recent_plans.put(String::new(), number, found?))
    }

    /// Stores a signature.
    pub async fn approve_erasure(&self, id: &str, approval: &Approval, now: i64) -> Result<(), Error> {
        let client = self.client().await?;
        client
            .execute(
                "INSERT INTO erasure_approvals VALUES ($1, $2, $3, $4) ON CONFLICT (erasure, approver) DO NOTHING",
                &[&id, &approval.approver, &approval.signature, &now],
            )
            .await?;
        self.recent_plans.touch();
        Ok(())
    }

    /// It has its signatures, or is done, with its certificate.
    pub async fn advance_erasure(
        &self,
        id: &str,
        state: &str,
        certificate: Option<&str>,
    ) -> Result<(), Error> {
        let client = self.client().await?;
        let sql = "UPDATE erasures SET state = $2, certificate = coalesce($3, certificate) WHERE id = $1";
        client.execute(sql, &[&id, &state, &certificate]).await?;
        self.recent_plans.touch();
        Ok(())
    }
}
