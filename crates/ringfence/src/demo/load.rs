//! Fills a store with the `clips` data by COPY.

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::clips::{Clips, INDEXES_SQL, SCHEMA_SQL, Table};
use super::cluster::Cluster;
use super::{connect, database};
use crate::command::Failure;

/// Owns the tables.
const OWNER_ROLE: &str = "clips_owner";
/// What the platform's programs run as.
pub(super) const APP_ROLE: &str = "clips_app";

/// How many rows there will be.
pub(super) fn rows(data: &Clips, country: Option<&str>) -> u64 {
    Table::ALL.iter().map(|t| data.rows_estimate(*t, country)).sum()
}

/// A bar on the terminal; nothing where there is none.
pub(super) fn progress(rows: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "loading the clips data {bar:40} {human_pos}/{human_len} rows {elapsed}",
    );
    let bar = ProgressBar::new(rows);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

/// Roles, database and tables.
pub(super) async fn create(cluster: &Cluster, name: &str) -> Result<(), Failure> {
    let client = connect(&cluster.superuser("postgres")).await?;
    let roles = format!("CREATE ROLE {OWNER_ROLE} NOLOGIN; CREATE ROLE {APP_ROLE} NOLOGIN");
    client.batch_execute(&roles).await.map_err(database("create the platform's roles"))?;
    let sql = format!("CREATE DATABASE {name} OWNER {OWNER_ROLE}");
    client.batch_execute(&sql).await.map_err(database("create a database"))?;
    let client = connect(&cluster.superuser(name)).await?;
    client
        .batch_execute(&format!("SET ROLE {OWNER_ROLE}; {SCHEMA_SQL}"))
        .await
        .map_err(database("create the tables"))
}

/// A database without tables, beside one with the platform's roles.
pub(super) async fn create_empty(cluster: &Cluster, name: &str) -> Result<(), Failure> {
    let client = connect(&cluster.superuser("postgres")).await?;
    let sql = format!("CREATE DATABASE {name} OWNER {OWNER_ROLE}");
    client.batch_execute(&sql).await.map_err(database("create a database"))
}

/// Loads all tables, then makes the indexes.
pub(super) async fn copy(
    config: tokio_postgres::Config,
    data: Clips,
    country: Option<&'static str>,
    bar: ProgressBar,
) -> Result<(), Failure> {
    use futures_util::SinkExt as _;
    let client = connect(&config).await?;
    client
        .batch_execute("SET synchronous_commit = off; SET maintenance_work_mem = '256MB'")
        .await
        .map_err(database("prepare for loading"))?;
    for table in Table::ALL {
        let sql = format!("COPY {} ({}) FROM STDIN", table.name(), table.columns());
        let sink = client.copy_in(&sql).await.map_err(database("begin a COPY"))?;
        let mut sink = std::pin::pin!(sink);
        let (chunks, mut made) = mpsc::channel::<(Vec<u8>, u64)>(8);
        let maker = tokio::task::spawn_blocking(move || {
            data.write(table, country, |chunk, rows| chunks.blocking_send((chunk, rows)))
        });
        while let Some((chunk, rows)) = made.recv().await {
            sink.send(bytes::Bytes::from(chunk)).await.map_err(database("load rows"))?;
            bar.inc(rows);
        }
        let _ = maker.await;
        sink.finish().await.map_err(database("end a COPY"))?;
    }
    let finish = format!(
        "SET ROLE {OWNER_ROLE}; {INDEXES_SQL};
         GRANT USAGE ON SCHEMA public TO {APP_ROLE};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {APP_ROLE};
         RESET ROLE; ANALYZE"
    );
    client.batch_execute(&finish).await.map_err(database("index the rows"))
}
