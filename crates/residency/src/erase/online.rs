//! Writes a table anew: with PostgreSQL's VACUUM FULL, which locks it meanwhile, or with pg_repack, which does not, where the cluster's
//! host has it. pg_repack copies the live rows and their changes into a new file and changes the two over in a moment.

use std::process::Stdio;

use ringfence_face::Target;
use ringfence_face::sql::literal;

use crate::client;
use crate::database::{Database, Error};

/// How long pg_repack waits for the moment in which nobody uses the table, in seconds. Then it gives up: it ends nobody's session.
const WAIT: &str = "--wait-timeout=60";

/// How an extension is known again that was made for an erasure.
const OURS: &str = "made by ringfence for an erasure";

/// Waits for a pg_repack that is still at work: a killed program's child goes on by itself.
async fn drop_extension(at: &Database) -> Result<(), Error> {
    at.run_locking("remove the extension pg_repack", "DROP EXTENSION IF EXISTS pg_repack CASCADE").await
}

/// How tables are written anew.
pub enum Writer<'a> {
    /// Each is locked meanwhile.
    Locking,
    /// In use, by pg_repack, as this superuser.
    Online {
        /// Its connection.
        admin: &'a Target,
        /// Whether the extension was made for this, and goes after it.
        is_ours: bool,
    },
}

impl<'a> Writer<'a> {
    /// pg_repack, where this host has the program and the server the extension, unless `lock` says that tables are to be locked.
    pub async fn choose(at: &Database, admin: &'a Target, lock: bool) -> Result<Self, Error> {
        let has_program = || {
            client::program("pg_repack", admin).arg("--version").output().is_ok_and(|o| o.status.success())
        };
        let sql = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_repack'),
                          EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_repack'),
                          (SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'pg_repack')";
        let row = at.row("look for pg_repack", sql, &[]).await?;
        let (is_available, is_there, comment): (bool, bool, Option<String>) =
            (row.get(0), row.get(1), row.get(2));
        let is_left = is_there && comment.as_deref() == Some(OURS);
        if is_left {
            // Of an erasure that was cut off: with it go the copies and triggers that it was at work with.
            drop_extension(at).await?;
        }
        if lock || !is_available || !has_program() {
            return Ok(Self::Locking);
        }
        let is_ours = is_left || !is_there;
        if is_ours {
            let sql = format!(
                "BEGIN; CREATE EXTENSION pg_repack SCHEMA public; COMMENT ON EXTENSION pg_repack IS {}; COMMIT",
                literal(OURS)
            );
            at.run("make the extension pg_repack", &sql).await?;
        }
        Ok(Self::Online { admin, is_ours })
    }

    /// What it does, for whoever watches.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Locking => "it is locked meanwhile",
            Self::Online { .. } => "it is in use meanwhile",
        }
    }

    /// Writes one table with its indexes and TOAST anew, and its statistics. Returns whether it was in use meanwhile.
    pub async fn write(&self, at: &Database, table: &str) -> Result<bool, Error> {
        let Self::Online { admin, .. } = self else {
            at.run("write a table anew", &format!("VACUUM (FULL, ANALYZE) {table}")).await?;
            return Ok(false);
        };
        let node = format!("SELECT pg_relation_filenode({}::regclass)", literal(table));
        let before: Option<u32> = at.row("look at its file", &node, &[]).await?.get(0);
        let mut command = client::program("pg_repack", admin);
        command.args(["--no-order", "--no-kill-backend", "--no-password", WAIT, "--table", table]);
        let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await;
        let failed = |problem: &str| {
            Error::Failed(format!(
                "pg_repack has not written {table} anew: {problem}. Run it again, or with --lock-tables"
            ))
        };
        let output = output.map_err(std::io::Error::other).flatten().map_err(|e| failed(&e.to_string()))?;
        let after: Option<u32> = at.row("look at its file", &node, &[]).await?.get(0);
        // It passes over a table that it cannot have, and says so by a warning alone.
        if !output.status.success() || before == after {
            let told = String::from_utf8_lossy(&output.stderr);
            let line = told.lines().find(|l| l.starts_with("ERROR") || l.starts_with("WARNING"));
            return Err(failed(line.unwrap_or("it does not say why")));
        }
        at.run("make statistics anew", &format!("ANALYZE {table}")).await?;
        Ok(true)
    }

    /// What was made for it goes.
    pub async fn finish(&self, at: &Database) -> Result<(), Error> {
        match self {
            Self::Online { is_ours: true, .. } => drop_extension(at).await,
            _ => Ok(()),
        }
    }
}
