//! A superuser's own connection to a cluster of the demo, past any gateway.

use std::path::Path;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A connection, with the runtime that it needs.
pub struct Database {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Database {
    pub fn connect(socket: &Path, name: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = format!("host={} user=postgres dbname={name}", socket.display());
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        });
        Self { runtime, client }
    }

    /// The rows of a statement, in text.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        Self::read(self.runtime.block_on(self.client.simple_query(sql)).unwrap())
    }

    /// The same; `None` if the statement fails.
    pub fn attempt(&self, sql: &str) -> Option<Vec<Vec<String>>> {
        self.runtime.block_on(self.client.simple_query(sql)).ok().map(Self::read)
    }

    fn read(messages: Vec<SimpleQueryMessage>) -> Vec<Vec<String>> {
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| (0..row.len()).map(|n| row.get(n).unwrap_or_default().to_owned()).collect()).collect()
    }

    /// The one value of a statement.
    pub fn value(&self, sql: &str) -> String {
        self.rows(sql).into_iter().flatten().next().unwrap_or_default()
    }
}
