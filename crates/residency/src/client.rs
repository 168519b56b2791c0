//! PostgreSQL's own client programs (pg_dump, psql), run against a side.

use std::process::Command;

use ringfence_face::Target;
use tokio_postgres::config::Host;

/// A program that connects to `side`. The password goes by the environment: arguments are seen by everybody on the machine.
pub(crate) fn program(name: &str, side: &Target) -> Command {
    let config = &side.config;
    let mut command = Command::new(name);
    let host = config.get_hosts().first().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    command.env_remove("PGSERVICE").env("PGHOST", host.unwrap_or_default());
    command.env("PGPORT", config.get_ports().first().copied().unwrap_or(5432).to_string());
    command.env("PGUSER", config.get_user().unwrap_or_default());
    command.env("PGDATABASE", config.get_dbname().unwrap_or_default());
    if let Some(password) = config.get_password() {
        command.env("PGPASSWORD", String::from_utf8_lossy(password).into_owned());
    }
    command.env("PGSSLMODE", if side.tls.is_some() { "require" } else { "prefer" });
    command
}
