//! Looks into a file, whatever it is wrapped in, and says what it is.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::probe::{Found, Probes};
use super::wrapping::Wrapping;
use super::{Holds, Kind};
use crate::backup::keys;

/// Wrappings in wrappings that are unpacked.
const DEPTH: u32 = 3;
/// How much of the beginning of a file says what it is.
const HEAD: usize = 1024;

/// A file looked into.
pub struct Inside {
    /// What it is.
    pub kind: Kind,
    /// What is in it.
    pub holds: Holds,
    /// More of what it is.
    pub note: String,
    /// Which key it is encrypted with, where that can be told.
    pub key: Option<String>,
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// pg_dump's own formats, which pg_restore reads.
    Archive,
    PlainDump,
    /// Something compressed.
    Wrapped(Wrapping),
    /// A tar file; whether of pg_dump or of pg_basebackup.
    Tar {
        dump: bool,
    },
    Wal,
    Sealed(&'static str),
    Bytes,
}

/// What a file, or a folder with a dump in it, is.
pub(crate) fn form_of(path: &Path) -> std::io::Result<Form> {
    if path.is_dir() {
        return Ok(if path.join("toc.dat").exists() { Form::Archive } else { Form::Bytes });
    }
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(form(&head, &path.file_name().unwrap_or_default().to_string_lossy()))
}

/// What is in a compressed file, and what that is.
pub(crate) fn unwrapped(path: &Path, wrapping: Wrapping) -> std::io::Result<(Form, Box<dyn BufRead>)> {
    let mut bytes = wrapping.unwrap(BufReader::with_capacity(1 << 16, File::open(path)?));
    let mut head = Vec::with_capacity(HEAD);
    bytes.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    Ok((form(&head, ""), Box::new(std::io::Cursor::new(head).chain(bytes))))
}

fn form(head: &[u8], name: &str) -> Form {
    let is_tar = head.get(257..262) == Some(b"ustar");
    let member = |name: &[u8]| head.starts_with(name) && head.get(name.len()) == Some(&0);
    // A page of WAL begins with its magic, 0xD1 and a version, in the order of the machine.
    let is_wal = head.len() > 40 && (head[1] == 0xD1 || head[0] == 0xD1);
    let is_segment = name.len() >= 24 && name.bytes().take(24).all(|b| b.is_ascii_hexdigit());
    if let Some(wrapping) = Wrapping::of(head) {
        return Form::Wrapped(wrapping);
    }
    match head {
        [b'P', b'G', b'D', b'M', b'P', ..] => Form::Archive,
        _ if is_tar => Form::Tar { dump: member(b"toc.dat") },
        _ if is_wal && is_segment => Form::Wal,
        _ if head.starts_with(b"age-encryption.org/") || head.starts_with(b"-----BEGIN AGE") => {
            Form::Sealed("encrypted with age")
        }
        _ if head.starts_with(b"-----BEGIN PGP") => Form::Sealed("encrypted with OpenPGP"),
        _ if head.starts_with(b"Salted__") => Form::Sealed("encrypted with openssl"),
        [b'B', b'Z', b'h', ..] => Form::Sealed("compressed with bzip2"),
        [b'P', b'K', 3, 4, ..] => Form::Sealed("a zip archive"),
        [b'7', b'z', 0xbc, 0xaf, ..] => Form::Sealed("a 7z archive"),
        _ if head.windows(24).any(|w| w == b"PostgreSQL database dump") => Form::PlainDump,
        _ => Form::Bytes,
    }
}

/// Looks into a file; `None` if it is nothing that data of the jurisdiction was found in, and nothing that must be told of.
pub fn file(path: &Path, probes: &Probes, told: &mut dyn FnMut(u64)) -> Option<Inside> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let opened = match File::open(path) {
        Ok(opened) => opened,
        Err(e) => return Some(sealed(format!("it cannot be read: {e}"))),
    };
    match look(BufReader::with_capacity(1 << 16, opened), Some(path), &name, probes, told, DEPTH) {
        Ok(inside) => inside,
        Err(e) => Some(sealed(format!("it cannot be read to its end: {e}"))),
    }
}

fn sealed(why: String) -> Inside {
    Inside { kind: Kind::Sealed, holds: Holds::Unknown { why }, note: String::new(), key: None }
}

/// The same for what comes from elsewhere, as an object of a bucket.
pub fn stream(
    bytes: impl Read + Send,
    name: &str,
    probes: &Probes,
    told: &mut dyn FnMut(u64),
) -> Option<Inside> {
    match look(BufReader::with_capacity(1 << 16, bytes), None, name, probes, told, DEPTH) {
        Ok(inside) => inside,
        Err(e) => Some(sealed(format!("it cannot be read to its end: {e}"))),
    }
}

/// What was found in something that can be looked into.
pub fn holds(found: &Found, probes: &Probes) -> Holds {
    match found.people() {
        0 => Holds::Nobody { of: probes.count() },
        people => Holds::Found { people, of: probes.count() },
    }
}

fn look(
    mut bytes: impl BufRead,
    path: Option<&Path>,
    name: &str,
    probes: &Probes,
    told: &mut dyn FnMut(u64),
    depth: u32,
) -> std::io::Result<Option<Inside>> {
    let mut head = Vec::with_capacity(HEAD);
    bytes.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let form = form(&head, name);
    let key = keys::head_of(&head).map(|digest| format!("{}{digest}", keys::HEADER));
    let whole = std::io::Cursor::new(head).chain(bytes);
    let of = |kind, note: &str, holds| Inside { kind, holds, note: note.to_owned(), key: None };
    Ok(match form {
        Form::Sealed(how) => Some(Inside { key, ..sealed(how.to_owned()) }),
        Form::Wrapped(_) if depth == 0 => Some(sealed("it is wrapped too often".to_owned())),
        Form::Wrapped(wrapping) => {
            let inner = name.strip_suffix(wrapping.suffix()).unwrap_or(name);
            // A trait object, since a type for each depth would have no end. Unpacked, its length says nothing of progress.
            return look(wrapping.unwrap(whole), None, inner, probes, told, depth - 1);
        }
        Form::Archive | Form::Tar { dump: true } => {
            let (holds, note) = match path {
                Some(path) => restored(path, probes, told)?,
                None => restored_from(whole, probes)?,
            };
            Some(of(Kind::Dump, &note, holds))
        }
        Form::PlainDump => Some(of(Kind::Dump, "plain SQL", holds(&probes.look(whole, told)?, probes))),
        Form::Tar { dump: false } => {
            let found = probes.look(whole, told)?;
            let is_backup = name.starts_with("base") || name.starts_with("pg_wal");
            let kind = if is_backup { Kind::BaseBackup } else { Kind::Export };
            (is_backup || found.people() > 0).then(|| of(kind, "tar", holds(&found, probes)))
        }
        Form::Wal => Some(of(Kind::WalArchive, "", holds(&probes.look(whole, told)?, probes))),
        Form::Bytes => {
            let found = probes.look(whole, told)?;
            (found.people() > 0).then(|| of(Kind::Export, "", holds(&found, probes)))
        }
    })
}

/// A dump that pg_restore reads: custom, directory or tar format.
pub fn restored(path: &Path, probes: &Probes, told: &mut dyn FnMut(u64)) -> std::io::Result<(Holds, String)> {
    let mut command = Command::new("pg_restore");
    command.args(["-f", "-"]).arg(path).stdin(Stdio::null());
    pg_restore(command, probes, |child| probes.look(child.stdout.take().ok_or_else(no_pipes)?, told))
}

/// The same for a dump that is not in a file of its own: pg_restore reads it from a pipe.
fn restored_from(mut bytes: impl Read, probes: &Probes) -> std::io::Result<(Holds, String)> {
    let mut command = Command::new("pg_restore");
    command.args(["-f", "-"]).stdin(Stdio::piped());
    pg_restore(command, probes, |child| {
        let (Some(mut to), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(no_pipes());
        };
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| probes.look(out, &mut |_| ()));
            // It may hang up early, and says why: what matters is what it gave.
            let read = match std::io::copy(&mut bytes, &mut to) {
                Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e),
                _ => Ok(()),
            };
            drop(to);
            let found = looking.join().map_err(|_| std::io::Error::other("the look was broken off"))?;
            read.and(found)
        })
    })
}

fn no_pipes() -> std::io::Error {
    std::io::Error::other("pg_restore has no pipes")
}

/// Runs it, has `look` look at what it gives, and judges by that and by its end.
fn pg_restore(
    mut command: Command,
    probes: &Probes,
    look: impl FnOnce(&mut Child) -> std::io::Result<Found>,
) -> std::io::Result<(Holds, String)> {
    let unknown = |why: String| Ok((Holds::Unknown { why }, String::new()));
    let mut child = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(e) => return unknown(format!("pg_restore cannot be run: {e}")),
    };
    // Its complaints are few; they are read beside, so that no pipe fills.
    let complaints = child
        .stderr
        .take()
        .map(|err| std::thread::spawn(move || BufReader::new(err).lines().map_while(Result::ok).next()));
    let found = look(&mut child)?;
    let status = child.wait()?;
    let complaint = complaints.and_then(|thread| thread.join().ok().flatten());
    if !status.success() && found.people() == 0 {
        return unknown(complaint.unwrap_or_else(|| "pg_restore failed".to_owned()));
    }
    Ok((holds(&found, probes), "read with pg_restore".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_content() {
        assert_eq!(form(b"PGDMP\x01\x0e", "x"), Form::Archive);
        assert_eq!(form(b"--\n-- PostgreSQL database dump\n--\n", "x.txt"), Form::PlainDump);
        assert_eq!(form(b"age-encryption.org/v1\n", "x"), Form::Sealed("encrypted with age"));
        assert_eq!(form(b"id,email\n", "x.csv"), Form::Bytes);
        assert_eq!(form(b"", "empty"), Form::Bytes);
        let mut wal = vec![0x10, 0xD1];
        wal.resize(64, 0);
        assert_eq!(form(&wal, "000000010000000000000001"), Form::Wal);
        assert_eq!(form(&wal, "notes"), Form::Bytes);
    }
}
