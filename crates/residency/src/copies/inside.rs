//! Looks into a file, whatever it is wrapped in, and says what it is.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::probe::{Found, Probes, Watch};
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
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(wrapping.suffix()).unwrap_or(&name);
    Ok((form(&head, name), Box::new(std::io::Cursor::new(head).chain(bytes))))
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
        _ if head.starts_with(b"Salted__") || head.starts_with(b"U2FsdGVkX1") => {
            Form::Sealed("encrypted with openssl")
        }
        [b'B', b'Z', b'h', ..] => Form::Sealed("compressed with bzip2"),
        [b'P', b'K', 3, 4, ..] => Form::Sealed("a zip archive"),
        [b'7', b'z', 0xbc, 0xaf, ..] => Form::Sealed("a 7z archive"),
        [b'R', b'a', b'r', b'!', ..] => Form::Sealed("a rar archive"),
        [0x1f, 0x9d, ..] => Form::Sealed("compressed with compress"),
        [0x89, b'L', b'Z', b'O', ..] => Form::Sealed("compressed with lzop"),
        [0x5d, 0, 0, _, _, ..] => Form::Sealed("compressed with lzma"),
        [0xff, 6, 0, 0, b's', b'N', b'a', b'P', ..] => Form::Sealed("compressed with snappy"),
        [b'P', b'A', b'R', b'1', ..] => Form::Sealed("a Parquet file"),
        [b'O', b'R', b'C', ..] => Form::Sealed("an ORC file"),
        [b'O', b'b', b'j', 1, ..] => Form::Sealed("an Avro file"),
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
    judge(found.people(), None, probes)
}

/// What is in something with so many people, of which a part could not be looked into: nobody found there is not nobody in it.
pub(super) fn judge(people: u64, unknown: Option<String>, probes: &Probes) -> Holds {
    match (people, unknown) {
        (0, Some(why)) => Holds::Unknown { why },
        (0, None) => Holds::Nobody { of: probes.count() },
        (people, _) => Holds::Found { people, of: probes.count() },
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
        Form::Wrapped(_) | Form::Tar { dump: false } if depth == 0 => {
            Some(sealed("it is wrapped too often".to_owned()))
        }
        Form::Wrapped(wrapping) => {
            let inner = name.strip_suffix(wrapping.suffix()).unwrap_or(name);
            // What a format passes over may hold something, too: names, comments, frames to be skipped.
            let mut watch = Watch::new(probes);
            let watched = BufReader::new(Watched { bytes: whole, watch: &mut watch });
            // A trait object, since a type for each depth would have no end. Unpacked, its length says nothing of progress.
            let seen = look(wrapping.unwrap(watched), None, inner, probes, told, depth - 1);
            let beside = watch.finish();
            match seen {
                Ok(Some(inside)) if !inside.holds.is_nothing() => Some(inside),
                _ if beside.people() > 0 => {
                    Some(of(Kind::Export, "beside what is packed in it", holds(&beside, probes)))
                }
                seen => return seen,
            }
        }
        Form::Archive | Form::Tar { dump: true } => {
            let (holds, note) = match path {
                Some(path) => restored(path, probes, told)?,
                None => restored_from(whole, probes)?,
            };
            Some(of(Kind::Dump, &note, holds))
        }
        Form::PlainDump => Some(of(Kind::Dump, "plain SQL", holds(&probes.look(whole, told)?, probes))),
        Form::Tar { dump: false } => return members(whole, name, probes, told, depth - 1),
        Form::Wal => {
            let (mut note, mut head) = (String::new(), [0; 32]);
            let mut whole = whole;
            whole.read_exact(&mut head)?;
            // Its first page says whose WAL it is (XLogLongPageHeaderData): bit 1 of the flags, then the system's number.
            if head[2] & 2 != 0 {
                note = system(&head[24..32]);
            }
            let whole = std::io::Cursor::new(head).chain(whole);
            Some(of(Kind::WalArchive, &note, holds(&probes.look(whole, told)?, probes)))
        }
        Form::Bytes => {
            let mut opaque = Opaque::new(whole);
            let found = probes.look(&mut opaque, told)?;
            if found.people() > 0 {
                Some(of(Kind::Export, "", holds(&found, probes)))
            } else if opaque.is_opaque() {
                Some(sealed(
                    "it is compressed, encrypted, or an image, in a form that is not known here".to_owned(),
                ))
            } else {
                None
            }
        }
    })
}

/// The number of a system, as PostgreSQL writes it.
pub(super) fn system(bytes: &[u8]) -> String {
    bytes.try_into().map_or_else(|_| String::new(), |bytes| format!("system {}", u64::from_ne_bytes(bytes)))
}

/// Has what is read seen.
struct Watched<'a, 'b, R> {
    bytes: R,
    watch: &'a mut Watch<'b>,
}

impl<R: Read> Read for Watched<'_, '_, R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.bytes.read(out)?;
        self.watch.see(&out[..n]);
        Ok(n)
    }
}

/// Looks into each file of a tar archive.
fn members(
    whole: impl Read,
    name: &str,
    probes: &Probes,
    told: &mut dyn FnMut(u64),
    depth: u32,
) -> std::io::Result<Option<Inside>> {
    let is_backup = name.starts_with("base") || name.starts_with("pg_wal");
    let (mut people, mut unknown, mut seen) = (0, None, 0_u64);
    let mut archive = tar::Archive::new(whole);
    // What somebody has appended behind an end is read, too.
    archive.set_ignore_zeros(true);
    for member in archive.entries()? {
        let member = match member {
            Ok(member) => member,
            Err(e) => {
                unknown = unknown.or(Some(format!("it cannot be read to its end: {e}")));
                break;
            }
        };
        let kind = member.header().entry_type();
        if !(kind.is_file() || kind.is_gnu_sparse() || kind.is_contiguous()) {
            continue;
        }
        seen += 1;
        people = people.max(probes.look(&*member.path_bytes(), told)?.people());
        let path = member.path()?.display().to_string();
        let last = path.rsplit('/').next().unwrap_or(&path).to_owned();
        let boxed: Box<dyn BufRead + '_> = Box::new(BufReader::new(member));
        let seen = look(boxed, None, &last, probes, told, depth)
            .unwrap_or_else(|e| Some(sealed(format!("it cannot be read to its end: {e}"))));
        match seen.map(|inside| inside.holds) {
            Some(Holds::Found { people: found, .. }) => people = people.max(found),
            Some(Holds::Unknown { why }) => unknown = unknown.or(Some(format!("{path} in it: {why}"))),
            _ => {}
        }
    }
    people = people.max(probes.look(&mut archive.into_inner(), told)?.people());
    let holds = judge(people, unknown, probes);
    let kind = match &holds {
        _ if is_backup => Kind::BaseBackup,
        Holds::Unknown { .. } => Kind::Sealed,
        Holds::Nobody { .. } if seen > 0 => return Ok(None),
        _ => Kind::Export,
    };
    Ok(Some(Inside { kind, holds, note: "tar".to_owned(), key: None }))
}

/// Watches whether bytes look like nothing that could be read: compressed or encrypted, by the entropy of their blocks.
struct Opaque<R> {
    bytes: R,
    counts: [u32; 256],
    n: u32,
    is_noise: bool,
    blocks: u64,
    /// Whether all of it is letters, digits and the signs of base64, in lines as long as encoders make them.
    is_base64: bool,
    most: f64,
    lines: u64,
    total: u64,
}

/// A block whose entropy counts.
const BLOCK: u32 = 1 << 16;

impl<R: Read> Opaque<R> {
    fn new(bytes: R) -> Self {
        Self {
            bytes,
            counts: [0; 256],
            n: 0,
            is_noise: false,
            blocks: 0,
            is_base64: true,
            most: 0.0,
            lines: 1,
            total: 0,
        }
    }

    /// Bits for each byte of the block.
    fn entropy(&self) -> f64 {
        let n = f64::from(self.n.max(1));
        let of = |count: &u32| {
            let p = f64::from(*count) / n;
            -p * p.log2()
        };
        self.counts.iter().filter(|count| **count > 0).map(of).sum()
    }

    /// Whether something in it could not be read.
    fn is_opaque(&self) -> bool {
        // A short text has few different bytes whatever it is: only what comes near the most that it could have is noise.
        // So does the end of a longer one.
        let short = self.n >= if self.blocks == 0 { 64 } else { 1024 } && {
            let most = f64::from(self.n.min(256)).log2();
            self.entropy() > most * if self.n < 1024 { 0.86 } else { 0.92 }
        };
        // Base64 has 6 bits for each byte, base16 4.
        let encoded = self.is_base64 && self.total >= 1024 && self.total / self.lines >= 60;
        self.is_noise || short || (encoded && self.most.max(self.entropy()) > 3.8)
    }
}

impl<R: Read> Read for Opaque<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.bytes.read(out)?;
        for byte in &out[..read] {
            self.counts[usize::from(*byte)] += 1;
            self.n += 1;
            self.lines += u64::from(*byte == b'\n');
            if self.n == BLOCK {
                self.most = self.most.max(self.entropy());
                self.is_noise |= self.most > 7.9;
                self.blocks += 1;
                (self.counts, self.n) = ([0; 256], 0);
            }
        }
        self.is_base64 &= out[..read].iter().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_' | b'\r' | b'\n')
        });
        self.total += read as u64;
        Ok(read)
    }
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
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
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

    fn look_into(bytes: &[u8]) -> Option<Holds> {
        let probes = Probes::new(vec!["ada@example.org".to_owned()]).unwrap();
        stream(bytes, "x", &probes, &mut |_| ()).map(|inside| inside.holds)
    }

    #[test]
    fn what_cannot_be_read_is_never_taken_for_empty() {
        // As cipher or unknown packer: noise of any length.
        let mut state = 1_u64;
        let mut noise = |n: usize| -> Vec<u8> {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            (0..n).map(|_| next()).collect()
        };
        for n in [100, 300, 2_000, 30_000, 200_000] {
            let noise = [b"\x8c\x0d", &noise(n)[..]].concat();
            assert!(matches!(look_into(&noise), Some(Holds::Unknown { .. })), "{n} bytes");
        }
        let hidden = [&b"-- a header\n".repeat(20_000)[..], &noise(200_000)].concat();
        assert!(matches!(look_into(&hidden), Some(Holds::Unknown { .. })));
        let base64 = "QWRhIExvdmVsYWNlCg+/".repeat(100);
        assert!(matches!(look_into(base64.as_bytes()), Some(Holds::Unknown { .. })));
        // Text, tables, pages are nothing that must be told of where nobody is in them.
        for text in [
            "id,email\n4,bob@example.org\n".repeat(3),
            "hello".to_owned(),
            "x".repeat(100_000),
            String::new(),
        ] {
            assert_eq!(look_into(text.as_bytes()), None, "{text:.20}");
        }
    }

    #[test]
    fn archives_in_archives_are_looked_into() {
        let gzip = |bytes: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut out, bytes).unwrap();
            out.finish().unwrap()
        };
        let tar = |bytes: &[u8]| {
            let mut out = tar::Builder::new(Vec::new());
            for (name, bytes) in [("readme", &b"nothing"[..]), ("a/x.sql.gz", bytes)] {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o600);
                header.set_cksum();
                out.append_data(&mut header, name, bytes).unwrap();
            }
            out.into_inner().unwrap()
        };
        let found = Some(Holds::Found { people: 1, of: 1 });
        assert_eq!(look_into(&tar(&gzip(b"to ada@example.org"))), found);
        assert_eq!(look_into(&gzip(&tar(&gzip(b"to ada@example.org")))), found);
        assert_eq!(look_into(&tar(&gzip(b"to bob@example.org"))), None);
        let skipped = [&[0x55, 0x2a, 0x4d, 0x18, 15, 0, 0, 0][..], b"ada@example.org"].concat();
        assert_eq!(look_into(&skipped), found, "in a frame that is passed over");
        let too_deep = gzip(&tar(&gzip(&tar(&gzip(b"to ada@example.org")))));
        assert!(matches!(look_into(&too_deep), Some(Holds::Unknown { .. })));
        let cut = tar(&gzip(b"to bob@example.org"));
        assert!(matches!(look_into(&cut[..700]), Some(Holds::Unknown { .. })));
        let two = [tar(b"to bob@example.org"), tar(&gzip(b"to ada@example.org"))].concat();
        assert_eq!(look_into(&two), found, "behind the end of the first");
    }
}
