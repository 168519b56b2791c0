//! Writes a dump anew, without the rows of people who are erased, with everybody else's.
//!
//! Whatever format it had, it is plain SQL then: pg_restore reads the others and has no way to write them. Nothing is replaced until the
//! new file is whole, on the disk, and has been looked through.

pub mod script;
pub mod whose;

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use self::script::Piece;
use self::whose::{Verdict, Whose};
use crate::copies::Kind;
use crate::copies::inside::{self, Form};
use crate::copies::probe::Probes;
use crate::copies::wrapping::Wrapping;
use crate::erase::files;

/// What was done with a dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rewritten {
    /// Where it is now.
    pub place: PathBuf,
    /// Rows that left.
    pub removed: u64,
    /// Rows that stay.
    pub kept: u64,
    /// How many people were looked for in it afterwards; nobody was found.
    pub looked_for: u64,
}

/// Where a dump goes that is written anew: plain scripts stay where they are, other formats become scripts.
fn becomes(place: &Path, form: Form) -> PathBuf {
    let name = place.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match form {
        Form::PlainDump | Form::Wrapped(Wrapping::Gzip) => place.to_owned(),
        Form::Wrapped(other) => {
            place.with_file_name(format!("{}.gz", name.strip_suffix(other.suffix()).unwrap_or(&name)))
        }
        _ => place.with_file_name(format!("{name}.sql.gz")),
    }
}

/// Whether a dump was written anew under this decision already, and where it is.
pub fn done(place: &Path, under: &str) -> Option<PathBuf> {
    let name = place.file_name()?.to_string_lossy().into_owned();
    let names = [name.clone(), format!("{name}.sql.gz")];
    let begins = |path: &Path| {
        let file = File::open(path).ok()?;
        let form = inside::form_of(path).ok()?;
        let mut head = vec![0; OURS.len() + under.len()];
        match form {
            Form::Wrapped(w) => w.unwrap(BufReader::new(file)).read_exact(&mut head).ok()?,
            _ => BufReader::new(file).read_exact(&mut head).ok()?,
        }
        (head == format!("{OURS}{under}").as_bytes()).then_some(())
    };
    names.iter().map(|name| place.with_file_name(name)).find(|path| path.is_file() && begins(path).is_some())
}

/// Writes it anew. `under` is the decision. What fails leaves the dump as it is.
pub fn rewrite(
    place: &Path,
    mut whose: Whose,
    probes: &Probes,
    under: &str,
    told: &mut dyn FnMut(u64),
) -> io::Result<Option<Rewritten>> {
    if !fs::exists(place)? {
        return Ok(None); // gone already is as good
    }
    let form = inside::form_of(place)?;
    let place_after = becomes(place, form);
    if place_after != place && place_after.exists() && done(place, under).as_deref() != Some(&place_after) {
        let message = format!("{} is there already", place_after.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    // Who lived there by the dump itself has to be known before the first row is judged.
    let mut judge = None;
    read(place, form, told, &mut |piece| {
        match piece {
            Piece::Copy(copy) => {
                judge = match whose.judge(copy).map_err(io::Error::other)? {
                    Verdict::Rows(judge) => Some(judge),
                    _ => None,
                }
            }
            Piece::Row(row) => judge.iter().for_each(|judge| whose.notice(judge, row)),
            Piece::Text(_) => {}
        }
        Ok(())
    })?;
    let draft = place_after.with_file_name(format!(".{under}.ringfence-draft"));
    let written = write(place, form, &draft, &whose, under, told)
        .and_then(|done| look(&draft, probes, told).map(|()| done))
        .and_then(|done| put(&draft, place, &place_after).map(|()| done));
    match written {
        Ok((removed, kept)) => {
            Ok(Some(Rewritten { place: place_after, removed, kept, looked_for: probes.count() }))
        }
        Err(e) => {
            let _ = fs::remove_file(&draft);
            Err(e)
        }
    }
}

/// How a script begins that was written here.
const OURS: &str = "-- Written anew by Ringfence under ";

fn read(
    place: &Path,
    form: Form,
    told: &mut dyn FnMut(u64),
    take: &mut dyn FnMut(Piece<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut plain = |bytes: &mut dyn Read, take: &mut dyn FnMut(Piece<'_>) -> io::Result<()>| {
        script::read(BufReader::with_capacity(1 << 16, Told(bytes, told)), take)
    };
    match form {
        Form::PlainDump => plain(&mut File::open(place)?, take),
        Form::Archive | Form::Tar { dump: true } => {
            let mut child = restore(place)?;
            let mut out = child.stdout.take().ok_or_else(|| io::Error::other("pg_restore has no pipes"))?;
            let read = plain(&mut out, take);
            drop(out);
            let status = child.wait()?;
            // Why it failed matters more than where the script ended then.
            if !status.success() {
                return Err(read
                    .err()
                    .unwrap_or_else(|| io::Error::other("pg_restore failed: the dump is damaged")));
            }
            read
        }
        Form::Wrapped(wrapping) => match inside::unwrapped(place, wrapping)? {
            (Form::PlainDump, mut bytes) => plain(&mut bytes, take),
            _ => Err(cannot()),
        },
        _ => Err(cannot()),
    }
}

fn cannot() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it is no dump, or in a wrapping in which none can be written anew",
    )
}

fn restore(place: &Path) -> io::Result<Child> {
    let mut command = Command::new("pg_restore");
    command.args(["-f", "-"]).arg(place).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn()
}

struct Told<'a>(&'a mut dyn Read, &'a mut dyn FnMut(u64));

impl Read for Told<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(out)?;
        (self.1)(n as u64);
        Ok(n)
    }
}

/// Rows that left, and rows that stay.
type Done = (u64, u64);

fn write(
    place: &Path,
    form: Form,
    draft: &Path,
    whose: &Whose,
    under: &str,
    told: &mut dyn FnMut(u64),
) -> io::Result<Done> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    if place.is_file() {
        file.set_permissions(fs::metadata(place)?.permissions())?;
    }
    let buffered = BufWriter::with_capacity(1 << 16, file);
    if form == Form::PlainDump {
        let (done, buffered) = filter(place, form, whose, under, buffered, told)?;
        buffered.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        return Ok(done);
    }
    let packed = GzEncoder::new(buffered, Compression::default());
    let (done, packed) = filter(place, form, whose, under, packed, told)?;
    packed.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(done)
}

fn filter<W: Write>(
    place: &Path,
    form: Form,
    whose: &Whose,
    under: &str,
    mut out: W,
    told: &mut dyn FnMut(u64),
) -> io::Result<(Done, W)> {
    let (mut removed, mut kept) = (0, 0);
    let mut unknown = None;
    let mut verdict = Verdict::Stay;
    writeln!(out, "{OURS}{under}")?;
    read(place, form, told, &mut |piece| {
        match piece {
            Piece::Text(text) => return out.write_all(text),
            Piece::Copy(copy) => {
                verdict = whose.judge(copy).map_err(io::Error::other)?;
                let is_unknown = matches!(verdict, Verdict::Unknown) && !is_own(&copy.schema);
                unknown = is_unknown.then(|| format!("{}.{}", copy.schema, copy.table));
                return out.write_all(&copy.line);
            }
            Piece::Row(row) => {
                if let Some(table) = &unknown {
                    let message = format!("{table} in it is not in the catalogue: whose are its rows?");
                    return Err(io::Error::other(message));
                }
                let leaves = match &verdict {
                    Verdict::Stay => false,
                    Verdict::Unknown => true,
                    Verdict::Rows(judge) => whose.leaves(judge, row),
                };
                if !leaves {
                    kept += 1;
                    return out.write_all(row);
                }
                removed += 1;
            }
        }
        Ok(())
    })?;
    Ok(((removed, kept), out))
}

/// Schemas of Ringfence itself: `ringfence install` makes them again.
fn is_own(schema: &str) -> bool {
    let is_face = |rest: &str| rest.bytes().all(|b| b.is_ascii_hexdigit());
    ["ringfence", "ringfence_move", "ringfence_flow"].contains(&schema)
        || schema.strip_prefix("rf_").is_some_and(is_face)
}

/// The same look as afterwards at everything, before the old file goes: what a definition or somebody else's row still has of a person
/// keeps it from being taken for clean.
fn look(draft: &Path, probes: &Probes, told: &mut dyn FnMut(u64)) -> io::Result<()> {
    let file = File::open(draft)?;
    let found = match inside::form_of(draft)? {
        Form::Wrapped(_) => probes.look(flate2::read::MultiGzDecoder::new(BufReader::new(file)), told)?,
        _ => probes.look(file, told)?,
    };
    match found.people() {
        0 => Ok(()),
        n => Err(io::Error::other(format!(
            "without their rows it still has values of {n} people, in definitions or in rows of others"
        ))),
    }
}

/// Puts the new file in the old one's place.
fn put(draft: &Path, place: &Path, place_after: &Path) -> io::Result<()> {
    fs::rename(draft, place_after)?;
    if let Some(folder) = place_after.parent() {
        File::open(folder)?.sync_all()?;
    }
    if place_after == place {
        return Ok(());
    }
    files::delete(Kind::Dump, place).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;
    use crate::erase::person::Subject;
    use ringfence_policy::Catalogue;

    fn whose() -> Whose {
        let text = "[tables.users]\nsubject = \"id\"\ncolumns = { id = \"public\" }\n[tables.sent]\nsubject = \"of\"\ncolumns = { of = \"public\" }\n[tables.words]\ncolumns = { w = \"public\" }";
        let of = Subject { table: "users".to_owned(), key: "7".to_owned() };
        Whose::person(&Catalogue::parse(text).unwrap(), &of)
    }

    const BEFORE: &str = "--\n-- PostgreSQL database dump\n--\n\nCOPY public.sent (n, of) FROM stdin;\n1\t7\n2\t8\n\\.\n\n\
        COPY public.users (id, email) FROM stdin;\n7\tada@example.org\n8\tbob@example.org\n\\.\n\n\
        COPY public.words (w) FROM stdin;\n7\n\\.\n\nCOPY ringfence.mask_key (x) FROM stdin;\n7\n\\.\n\n-- PostgreSQL database dump complete\n";

    #[test]
    fn others_rows_stay_and_nothing_is_lost_by_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a.sql");
        fs::write(&place, BEFORE).unwrap();
        let probes = Probes::new(vec!["ada@example.org".to_owned()]).unwrap();
        let done = rewrite(&place, whose(), &probes, "E-1", &mut |_| ()).unwrap().unwrap();
        assert_eq!((done.removed, done.kept, done.looked_for), (3, 3, 1));
        let after = fs::read_to_string(&place).unwrap();
        assert!(
            after.starts_with(OURS)
                && after.contains("2\t8\n")
                && after.contains("bob@")
                && !after.contains("ada@")
        );
        assert_eq!(super::done(&place, "E-1"), Some(place.clone()));
        assert_eq!(super::done(&place, "E-2"), None);
        // What nobody could sort is not guessed.
        fs::write(&place, BEFORE.replace("COPY public.words", "COPY public.events_2024")).unwrap();
        let problem = rewrite(&place, whose(), &probes, "E-1", &mut |_| ()).unwrap_err().to_string();
        assert!(problem.contains("public.events_2024 in it is not in the catalogue"), "{problem}");
        // What it says elsewhere keeps it from being taken for clean.
        fs::write(&place, BEFORE.replace("2\t8", "ada@example.org\t8")).unwrap();
        let problem = rewrite(&place, whose(), &probes, "E-1", &mut |_| ()).unwrap_err().to_string();
        assert!(problem.contains("values of 1 people"), "{problem}");
        fs::write(
            &place,
            BEFORE.replace("COPY public.words (w) FROM stdin;\n7\n\\.\n", "INSERT INTO x VALUES (7);\n"),
        )
        .unwrap();
        assert!(rewrite(&place, whose(), &probes, "E-1", &mut |_| ()).is_err());
        assert!(fs::read_to_string(&place).unwrap().contains("ada@"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a draft is left");
        assert!(rewrite(&dir.path().join("gone"), whose(), &probes, "E-1", &mut |_| ()).unwrap().is_none());
    }
}
