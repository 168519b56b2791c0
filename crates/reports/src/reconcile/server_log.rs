//! PostgreSQL's own log: csvlog (manual, "Using CSV-Format Log Output") or jsonlog (since PostgreSQL 15), one record at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use ringfence_statement::shape::FUNCTION_CALL;
use ringfence_verifier::manifest::seconds;
use serde::Deserialize;

use crate::Error;

/// The fewest columns that a csvlog record has (PostgreSQL 13; 14 and later have three more).
const CSV_COLUMNS: usize = 23;
/// The longest record that is read, in bytes.
const MAX_RECORD: u64 = 64 << 20;

/// What a record says, as far as a comparison needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// The role; empty before it is known.
    pub role: String,
    /// The database.
    pub database: String,
    /// The client's address, `[local]` for a Unix socket.
    pub address: String,
    /// PostgreSQL's name for the session.
    pub session: String,
    /// Whether it is a replication connection, which may name no database.
    pub is_replication: bool,
    /// What it says.
    pub what: What,
}

/// What a client session's record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Somebody was let in.
    Connected,
    /// A statement ran.
    Statement {
        /// Its text.
        text: String,
        /// In which way.
        of: Via,
    },
    /// A function was called by its number, past the grammar (Function Call message).
    FastPath {
        /// What a record of it has in place of a text, up to the function's number.
        text: String,
    },
    /// The session is over.
    Disconnected,
    /// Something about the session that is of no interest here.
    Other,
    /// A record of a running statement in words that are not known, as in another language.
    Unknown,
}

/// In which way a statement came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// By a simple query.
    Simple,
    /// By an Execute message. The text has the names of statement and portal, which are the client's, and the statement.
    Execute(String),
    /// By a further Execute of a portal. The text is as before, if it is what it says: a client may name a statement "fetch
    /// from …" itself.
    Fetch(String),
}

/// Reads the records of a file.
pub struct ServerLog {
    path: PathBuf,
    format: Format,
    total: u64,
    position: u64,
    number: u64,
}

enum Format {
    Csv(Box<csv::Reader<Box<dyn BufRead>>>, csv::StringRecord),
    Json(Box<dyn BufRead>, String),
}

#[derive(Deserialize)]
struct JsonRecord {
    timestamp: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    dbname: String,
    #[serde(default)]
    remote_host: String,
    #[serde(default)]
    remote_port: Option<u32>,
    #[serde(default)]
    session_id: String,
    #[serde(default)]
    error_severity: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    backend_type: String,
}

impl ServerLog {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("cannot open", path))?;
        let total = file.metadata().map_err(Error::io("cannot read", path))?.len();
        Self::read(path, Box::new(BufReader::with_capacity(1 << 20, file)), total)
    }

    /// Reads what comes from `reader`, which is `total` bytes long; `path` is for error texts.
    pub fn read(path: &Path, mut reader: Box<dyn BufRead>, total: u64) -> Result<Self, Error> {
        let is_json = reader.fill_buf().map_err(Error::io("cannot read", path))?.first() == Some(&b'{');
        let format = if is_json {
            Format::Json(reader, String::new())
        } else {
            let mut csv = csv::ReaderBuilder::new();
            let csv = csv.has_headers(false).flexible(true).from_reader(reader);
            Format::Csv(Box::new(csv), csv::StringRecord::new())
        };
        Ok(Self { path: path.to_owned(), format, total, position: 0, number: 0 })
    }

    /// How many bytes were read, and how many there are.
    pub fn progress(&self) -> (u64, u64) {
        (self.position, self.total)
    }

    fn broken(&self, problem: &str) -> Error {
        Error::corrupt(&self.path, format!("record {}: {problem}", self.number))
    }

    /// The next record of a client's session; `None` at the end. A record that is cut, or of no known form, is an error:
    /// nothing must be taken for reconciled that was not read.
    pub fn next_line(&mut self) -> Result<Option<Line>, Error> {
        loop {
            let Some(raw) = self.raw()? else { return Ok(None) };
            // Before PostgreSQL 13 there is no such column; then only clients have a role.
            let is_replication = raw.backend_type == "walsender";
            let is_client = match raw.backend_type.as_str() {
                "" => !raw.role.is_empty(),
                "client backend" | "walsender" => true,
                _ => false,
            };
            if !is_client {
                continue;
            }
            let time = time(&raw.time).ok_or_else(|| {
                self.broken(&format!("the time \"{}\" is not in UTC: set log_timezone = 'UTC'", raw.time))
            })?;
            let what = classify(&raw.severity, &raw.message);
            let Raw { role, database, address, session, .. } = raw;
            return Ok(Some(Line { time, role, database, address, session, is_replication, what }));
        }
    }

    fn raw(&mut self) -> Result<Option<Raw>, Error> {
        self.number += 1;
        let read = match &mut self.format {
            Format::Csv(reader, record) => {
                let more = match reader.read_record(record) {
                    Ok(more) => more,
                    Err(e) => return Err(self.broken(&format!("is no csvlog record: {}", csv_problem(&e)))),
                };
                self.position = reader.position().byte();
                more.then(|| from_csv(record))
            }
            Format::Json(reader, line) => {
                line.clear();
                let mut limited = reader.take(MAX_RECORD);
                let count = match limited.read_line(line) {
                    Ok(count) => count,
                    Err(e) => return Err(self.broken(&format!("cannot be read: {}", e.kind()))),
                };
                self.position += count as u64;
                (count > 0).then(|| from_json(line))
            }
        };
        match read {
            None => Ok(None),
            Some(Some(raw)) => Ok(Some(raw)),
            Some(None) => Err(self.broken("was cut, or is in another form than csvlog or jsonlog")),
        }
    }
}

/// Without the contents: they may be anybody's data.
fn csv_problem(e: &csv::Error) -> &'static str {
    match e.kind() {
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8",
        csv::ErrorKind::Io(_) => "it cannot be read",
        _ => "it was cut",
    }
}

struct Raw {
    time: String,
    role: String,
    database: String,
    address: String,
    session: String,
    severity: String,
    message: String,
    backend_type: String,
}

fn from_csv(record: &csv::StringRecord) -> Option<Raw> {
    if record.len() < CSV_COLUMNS {
        return None;
    }
    let column = |n: usize| record.get(n).map(str::to_owned).unwrap_or_default();
    Some(Raw {
        time: column(0),
        role: column(1),
        database: column(2),
        address: column(4),
        session: column(5),
        severity: column(11),
        message: column(13),
        backend_type: column(23),
    })
}

fn from_json(line: &str) -> Option<Raw> {
    let record: JsonRecord = serde_json::from_str(line).ok()?;
    let address = match record.remote_port {
        Some(port) => format!("{}:{port}", record.remote_host),
        None => record.remote_host,
    };
    Some(Raw {
        time: record.timestamp,
        role: record.user,
        database: record.dbname,
        address,
        session: record.session_id,
        severity: record.error_severity,
        message: record.message,
        backend_type: record.backend_type,
    })
}

/// `2026-11-24 17:29:52.476 UTC` in milliseconds since 1970.
fn time(text: &str) -> Option<u64> {
    let mut parts = text.split(' ');
    let (date, clock, zone) = (parts.next()?, parts.next()?, parts.next()?);
    if !["UTC", "GMT", "Etc/UTC"].contains(&zone) {
        return None;
    }
    let (clock, ms) = clock.split_once('.').unwrap_or((clock, "0"));
    let ms: u64 = format!("{ms:0<3}").get(..3)?.parse().ok()?;
    Some(seconds(&format!("{date}T{clock}Z"))? * 1000 + ms)
}

/// How records begin that no statement is hidden in.
const QUIET: &[&str] = &[
    "AUDIT: ",
    "bind ",
    "checkpoint ",
    "connection ",
    "could not ",
    "invalid ",
    "no match in usermap ",
    "parse ",
    "plan:",
    "process ",
    "provided user name ",
    "received ",
    "QUERY STATISTICS",
    "SSL ",
    "temporary file: ",
    "terminating ",
    "unexpected EOF",
    "using stale statistics",
];

fn classify(severity: &str, message: &str) -> What {
    if severity != "LOG" {
        // Errors and notices of statements that were told, or that did not run.
        let is_known = ["ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "INFO"].contains(&severity)
            || severity.starts_with("DEBUG");
        return if is_known { What::Other } else { What::Unknown };
    }
    // log_duration and log_min_duration_statement put the time before.
    let message = match message.strip_prefix("duration: ") {
        Some(rest) => match rest.split_once(" ms  ") {
            Some((_, rest)) => rest,
            None => return What::Other,
        },
        None => message,
    };
    let after = |prefix: &str| message.strip_prefix(prefix);
    if let Some(text) = after("statement: ") {
        return What::Statement { text: text.to_owned(), of: Via::Simple };
    }
    if let Some(rest) = after("execute ") {
        // The names of statement and portal come before the first colon and space, unless a client has one in a name: then the
        // text is none that anybody recorded.
        let text = rest.split_once(": ").map_or("", |(_, text)| text).to_owned();
        let of = match rest.strip_prefix("fetch from ") {
            Some(portal) => Via::Fetch(portal.to_owned()),
            None => Via::Execute(rest.to_owned()),
        };
        return What::Statement { text, of };
    }
    if message.starts_with("connection authorized: ") {
        return What::Connected;
    }
    if message.starts_with("disconnection: ") {
        return What::Disconnected;
    }
    if let Some(rest) = message.strip_prefix("fastpath function call: ") {
        // `"name" (OID n)`; a name can have anything in it.
        let number =
            rest.rsplit_once("(OID ").and_then(|(_, rest)| rest.strip_suffix(')')?.parse::<u32>().ok());
        return number.map_or(What::Unknown, |n| What::FastPath { text: format!("{FUNCTION_CALL}{n}") });
    }
    let is_quiet = QUIET.iter().any(|quiet| message.starts_with(quiet));
    if is_quiet { What::Other } else { What::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str, of: Via) -> What {
        What::Statement { text: text.to_owned(), of }
    }

    #[test]
    fn messages_are_told_apart() {
        for (message, what) in [
            ("statement: select 1; select 2", statement("select 1; select 2", Via::Simple)),
            (
                "execute <unnamed>: select $1",
                statement("select $1", Via::Execute("<unnamed>: select $1".into())),
            ),
            (
                "execute P_0/c1: select ': '",
                statement("select ': '", Via::Execute("P_0/c1: select ': '".into())),
            ),
            (
                "execute fetch from <unnamed>/c: select 1",
                statement("select 1", Via::Fetch("<unnamed>/c: select 1".into())),
            ),
            ("duration: 0.1 ms  statement: select 1", statement("select 1", Via::Simple)),
            ("duration: 0.1 ms  bind <unnamed>: select 1", What::Other),
            ("duration: 0.1 ms", What::Other),
            (
                "fastpath function call: \"lo_open\" (OID 952)",
                What::FastPath { text: "-- a function-call message: function 952".to_owned() },
            ),
            ("fastpath function call: \"x\"", What::Unknown),
            ("Anweisung: select 1", What::Unknown),
        ] {
            assert_eq!(classify("LOG", message), what, "{message}");
        }
        assert_eq!(classify("FEHLER", "x"), What::Unknown);
        assert_eq!(classify("ERROR", "x"), What::Other);
        assert_eq!(time("2026-11-24 17:29:26.476 UTC"), Some(1_795_541_366_476));
        assert_eq!(time("2026-11-24 17:29:26.476 CET"), None);
    }

    #[test]
    fn records_span_lines_and_a_cut_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.csv");
        let whole = "2026-11-24 17:29:52.476 UTC,\"rf_a\",\"us\",1,\"[local]\",6b.1,1,\"SELECT\",2026-11-24 17:29:52 UTC,3/1,0,LOG,00000,\"statement: select\n  \"\"x\"\"\",,,,,,,,,\"\",\"client backend\",,0\n";
        std::fs::write(&path, whole).unwrap();
        let mut log = ServerLog::open(&path).unwrap();
        let line = log.next_line().unwrap().unwrap();
        assert_eq!((line.role.as_str(), &line.what), ("rf_a", &statement("select\n  \"x\"", Via::Simple)));
        assert_eq!(log.next_line().unwrap(), None);
        for cut in [30, 100, whole.len() - 30] {
            for bytes in [&whole[..cut], &whole[cut..]] {
                std::fs::write(&path, bytes).unwrap();
                let read = ServerLog::open(&path).unwrap().next_line();
                assert!(read.is_err(), "{bytes:?}: {read:?}");
            }
        }
        std::fs::write(&path, r#"{"timestamp":"2026-11-24 17:29:52.476 UTC","user":"rf_a","dbname":"us","remote_host":"127.0.0.1","remote_port":5,"session_id":"6b.1","ps":"SELECT","error_severity":"LOG","message":"statement: select 1","backend_type":"client backend"}"#).unwrap();
        let line = ServerLog::open(&path).unwrap().next_line().unwrap().unwrap();
        assert_eq!((line.address.as_str(), line.what), ("127.0.0.1:5", statement("select 1", Via::Simple)));
    }
}
