//! Writes a backup: all rows of one moment, those of the jurisdiction apart.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use age::stream::StreamWriter;
use age::x25519::{Identity, Recipient};
use flate2::Compression;
use flate2::write::GzEncoder;
use ringfence_face::Target;
use ringfence_face::sql::{ident, literal};

use super::keys::{self, Kept, Keys};
use super::{MANIFEST, Manifest, Part};
use crate::client;
use crate::copies::{Copy, Holds, Kind};
use crate::database::{Database, Error};
use crate::scope::Scope;

/// What is Ringfence's own in a database: made again by `ringfence install`.
const OURS: [&str; 3] = ["ringfence", "ringfence_move", "rf_*"];

/// What to back up, and where to.
pub struct Backup<'a> {
    /// The store.
    pub store: &'a str,
    /// Its superuser's connection.
    pub admin: &'a Target,
    /// Which rows are the jurisdiction's.
    pub scope: &'a Scope,
    /// Tables of the catalogue that are about nobody: schema and name.
    pub about_nobody: &'a [(String, String)],
    /// The new folder.
    pub folder: &'a Path,
    /// The country where it lies.
    pub location: &'a str,
    /// Where the keys go.
    pub keys: &'a Keys,
    /// Whom the keys are wrapped for.
    pub recipients: &'a [Recipient],
    /// The time, in milliseconds since 1970.
    pub now: u64,
}

/// What was written.
pub struct Written {
    /// What is said of it in its folder.
    pub manifest: Manifest,
    /// The jurisdiction's part, for the register.
    pub copy: Copy,
    /// Tables that the catalogue does not know: whoever's their rows are, they are with the jurisdiction's.
    pub unclassified: Vec<String>,
}

type Sealed = GzEncoder<StreamWriter<BufWriter<File>>>;

/// A part while it is written.
struct Open {
    file: String,
    rows: u64,
    out: Sealed,
}

impl Open {
    fn new(folder: &Path, file: &str, key: &Identity) -> Result<Self, Error> {
        let to = key.to_public();
        let open = || -> io::Result<Sealed> {
            let made = BufWriter::new(File::create_new(folder.join(file))?);
            let whom = std::iter::once(&to as &dyn age::Recipient);
            let sealed =
                age::Encryptor::with_recipients(whom).map_err(io::Error::other)?.wrap_output(made)?;
            Ok(GzEncoder::new(sealed, Compression::fast()))
        };
        let out = open().map_err(|e| Error::Failed(format!("{file}: {e}")))?;
        Ok(Self { file: file.to_owned(), rows: 0, out })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(|e| Error::Failed(format!("{} cannot be written: {e}", self.file)))
    }

    /// Ends the file; it is on the disk when this returns.
    fn finish(self, folder: &Path, key: &str) -> Result<(Part, String), Error> {
        let failed = |e: io::Error| Error::Failed(format!("{} cannot be written: {e}", self.file));
        let mut buffered = self.out.finish().and_then(StreamWriter::finish).map_err(failed)?;
        buffered.flush().map_err(failed)?;
        buffered.get_ref().sync_all().map_err(failed)?;
        let head = keys::head(&folder.join(&self.file))
            .ok_or_else(|| Error::Failed(format!("{} has no age header", self.file)))?;
        Ok((Part { file: self.file, key: key.to_owned(), rows: self.rows }, head))
    }
}

/// How rows are written here and read there.
const SETTINGS: &str = "SET client_encoding = 'UTF8'; SET standard_conforming_strings = on; SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres'; SET row_security = off; SET check_function_bodies = off; SET search_path = pg_catalog;\n\n";

/// Writes it. Where anything fails, the folder is removed again.
pub async fn write(of: &Backup<'_>, told: &mut (dyn FnMut(&str, u64) + Send)) -> Result<Written, Error> {
    // Beside its last name first: a folder of that name is whole.
    let part = of.folder.with_extension("part");
    let _ = fs::remove_dir_all(&part);
    fs::create_dir_all(&part).map_err(|e| Error::Failed(format!("{}: {e}", part.display())))?;
    let written = Box::pin(write_into(of, &part, told)).await;
    let written = written.and_then(|written| {
        fs::rename(&part, of.folder).map_err(|e| Error::Failed(format!("{}: {e}", of.folder.display())))?;
        Ok(written)
    });
    if written.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    written
}

async fn write_into(
    of: &Backup<'_>,
    part: &Path,
    told: &mut (dyn FnMut(&str, u64) + Send),
) -> Result<Written, Error> {
    let database = Database::connect(of.store, of.admin).await?;
    let doing = "begin a backup";
    database.run(doing, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let row =
        database.row(doing, "SELECT pg_export_snapshot(), current_setting('server_version')", &[]).await?;
    let (snapshot, server): (String, String) = (row.get(0), row.get(1));
    let theirs = format!("{}.sql.age", of.scope.jurisdiction);
    let name = |file: &str| -> PathBuf { of.folder.join(file) };
    let copy = |file: &str| {
        let place = name(file).display().to_string();
        Copy::new(&of.scope.jurisdiction, Kind::Dump, of.location, &place, Holds::Everything)
    };
    let (their_copy, others_id) = (copy(&theirs), copy("others.sql.age").id);
    let (their_key, others_key) = (Identity::generate(), Identity::generate());

    told("schema", 0);
    let mut schema = Open::new(part, "schema.sql.age", &others_key)?;
    schema.put(definitions(of, "pre-data", &snapshot).await?.as_bytes())?;
    let (mut their, mut others) =
        (Open::new(part, &theirs, &their_key)?, Open::new(part, "others.sql.age", &others_key)?);
    their.put(SETTINGS.as_bytes())?;
    others.put(SETTINGS.as_bytes())?;
    let mut unclassified = Vec::new();
    for (schema, table) in tables(&database).await? {
        let shown = if schema == "public" { table.clone() } else { format!("{schema}.{table}") };
        let known = of.scope.tables.iter().find(|t| t.schema == schema && t.name == table);
        let member = match known {
            Some(known) => known.member("t"),
            None if of.about_nobody.iter().any(|(s, t)| (s, t) == (&schema, &table)) => "false".to_owned(),
            None => {
                unclassified.push(shown.clone());
                "true".to_owned()
            }
        };
        let columns = columns(&database, &schema, &table).await?;
        let t = format!("{}.{}", ident(&schema), ident(&table));
        for (part, which) in [(&mut their, "IS TRUE"), (&mut others, "IS NOT TRUE")] {
            part.put(format!("COPY {t} ({}) FROM stdin;\n", columns.join(", ")).as_bytes())?;
            let before = part.rows;
            let selected: Vec<String> = columns.iter().map(|c| format!("t.{c}")).collect();
            let selected = selected.join(", ");
            let sql = format!("COPY (SELECT {selected} FROM {t} t WHERE ({member}) {which}) TO STDOUT");
            database
                .copy_out("read the rows", &sql, &mut |bytes| {
                    part.rows += bytes.split(|b| *b == b'\n').count() as u64 - 1; // a row, a line
                    part.put(bytes)
                })
                .await?;
            part.put(b"\\.\n\n")?;
            told(&shown, part.rows - before);
        }
    }
    others.put(sequences(&database).await?.as_bytes())?;
    told("indexes", 0);
    let mut rest = Open::new(part, "rest.sql.age", &others_key)?;
    rest.put(definitions(of, "post-data", &snapshot).await?.as_bytes())?;
    database.run("end a backup", "COMMIT").await?;

    let (their, their_head) = their.finish(part, &their_copy.id)?;
    let mut parts = Vec::new();
    let mut heads = Vec::new();
    for open in [schema, others, rest] {
        let (part, head) = open.finish(part, &others_id)?;
        parts.push(part);
        heads.push(head);
    }
    parts.insert(1, their);
    let kept = |id: &str, whose: Option<&str>, file: &str, key: &Identity, heads| -> Result<Kept, Error> {
        Ok(Kept {
            v: 1,
            id: id.to_owned(),
            jurisdiction: whose.map(str::to_owned),
            without: whose.is_none().then(|| of.scope.jurisdiction.clone()),
            store: of.store.to_owned(),
            place: name(file).display().to_string(),
            made: of.now,
            recipient: key.to_public().to_string(),
            heads,
            wrapped: Some(keys::wrap(key, of.recipients)?),
            destroyed: None,
        })
    };
    // The keys are kept before there is anything that needs them.
    of.keys.keep(&kept(
        &their_copy.id,
        Some(&of.scope.jurisdiction),
        &theirs,
        &their_key,
        vec![their_head],
    )?)?;
    of.keys.keep(&kept(&others_id, None, "others.sql.age", &others_key, heads)?)?;
    let manifest = Manifest {
        v: 1,
        store: of.store.to_owned(),
        jurisdiction: of.scope.jurisdiction.clone(),
        made: of.now,
        server,
        parts,
    };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::Failed(e.to_string()))?;
    fs::write(part.join(MANIFEST), text).map_err(|e| Error::Failed(format!("{MANIFEST}: {e}")))?;
    let bytes = fs::metadata(part.join(&theirs)).map_or(0, |m| m.len());
    let mut copy = their_copy.note(format!("encrypted backup of {}", of.store));
    (copy.key, copy.bytes, copy.made) = (Some(their_key.to_public().to_string()), Some(bytes), Some(of.now));
    Ok(Written { manifest, copy, unclassified })
}

/// A section of the schema in SQL, by pg_dump.
async fn definitions(of: &Backup<'_>, section: &str, snapshot: &str) -> Result<String, Error> {
    let mut command = client::program("pg_dump", of.admin);
    command.args(["--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions"]);
    command.arg(format!("--section={section}")).arg(format!("--snapshot={snapshot}"));
    for schema in OURS {
        command.arg(format!("--exclude-schema={schema}"));
    }
    let failed = |problem: String| Error::Failed(format!("pg_dump cannot describe {}: {problem}", of.store));
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await;
    let output = output.map_err(io::Error::other).flatten().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    String::from_utf8(output.stdout).map_err(|e| failed(e.to_string()))
}

/// Tables that have rows of their own.
async fn tables(database: &Database) -> Result<Vec<(String, String)>, Error> {
    let rows = database
        .rows(
            "list the tables",
            "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'ringfence', 'ringfence_move')
               AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'rf\\_%'
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
             ORDER BY 1, 2",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn columns(database: &Database, schema: &str, table: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum";
    let rows = database.rows("read the columns", sql, &[&schema, &table]).await?;
    Ok(rows.iter().map(|row| ident(row.get(0))).collect())
}

/// Where sequences are.
async fn sequences(database: &Database) -> Result<String, Error> {
    let doing = "read the sequences";
    let sql = "SELECT format('%I.%I', schemaname, sequencename) FROM pg_sequences
               WHERE schemaname NOT IN ('ringfence', 'ringfence_move') AND schemaname NOT LIKE 'rf\\_%' ORDER BY 1";
    let mut text = String::new();
    for row in database.rows(doing, sql, &[]).await? {
        let name: String = row.get(0);
        let at = database.row(doing, &format!("SELECT last_value, is_called FROM {name}"), &[]).await?;
        let (value, called): (i64, bool) = (at.get(0), at.get(1));
        let _ = writeln!(text, "SELECT pg_catalog.setval({}, {value}, {called});", literal(&name));
    }
    Ok(text)
}
