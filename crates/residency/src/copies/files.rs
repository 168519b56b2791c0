//! Walks a folder and finds what may be a copy. Links that lead out of it are not followed, and told: what they lead to is another place. A
//! cluster's are, since its tablespaces and its WAL may be behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::WalkDir;

use super::inside::{self, Form};
use super::probe::{Found, Probes};
use super::{Copy, Holds, Kind};

/// A folder to look through.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Where.
    pub path: PathBuf,
    /// The country where it lies.
    pub location: String,
    /// Who is responsible.
    pub owner: String,
}

/// What a folder had.
#[derive(Debug, Default)]
pub struct Looked {
    /// Copies.
    pub copies: Vec<Copy>,
    /// What could not be read at all.
    pub unread: Vec<String>,
    /// Files and bytes looked at.
    pub files: u64,
    /// Bytes looked at, unpacked.
    pub bytes: u64,
}

/// How many bytes there are, for progress.
pub fn size(path: &Path) -> u64 {
    WalkDir::new(path)
        .into_iter()
        .flatten()
        .filter_map(|e| e.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|m| m.len())
        .sum()
}

/// Looks through a folder.
pub fn look(jurisdiction: &str, folder: &Folder, probes: &Probes, told: &mut dyn FnMut(u64)) -> Looked {
    let mut looked = Looked::default();
    // Segments of one archive are one copy.
    let mut archives: BTreeMap<PathBuf, Archive> = BTreeMap::new();
    let mut walk = WalkDir::new(&folder.path).sort_by_file_name().into_iter();
    let copy = |kind, path: &Path, holds| {
        let mut copy = Copy::new(jurisdiction, kind, &folder.location, &path.display().to_string(), holds);
        copy.owner.clone_from(&folder.owner);
        copy
    };
    let mut dumps: BTreeSet<PathBuf> = BTreeSet::new();
    while let Some(entry) = walk.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                looked.unread.push(e.to_string());
                continue;
            }
        };
        let path = entry.path();
        let made = entry.metadata().ok().and_then(|m| millis(&m));
        if entry.file_type().is_dir() {
            if path.join("PG_VERSION").exists() && path.join("base").is_dir() {
                let mut found = cluster(path, probes, &mut looked, told, &copy);
                found.made = made;
                looked.copies.push(found);
                walk.skip_current_dir();
            } else if path.join("toc.dat").exists() {
                let mut found = directory_dump(path, probes, &mut looked, told, &copy);
                found.made = made;
                looked.copies.push(found);
                // What else lies there is looked at file by file.
                dumps.insert(path.to_owned());
            }
            continue;
        }
        if entry.file_type().is_symlink() {
            let to = path.canonicalize();
            if !to.as_ref().is_ok_and(|to| to.starts_with(&folder.path)) {
                let to = to.map_or_else(|_| "nowhere".to_owned(), |to| to.display().to_string());
                looked.unread.push(format!("{}: a link to {to}, which was not followed", path.display()));
            }
            continue;
        }
        if entry.file_type().is_block_device() {
            looked.unread.push(format!("{}: a device, which was not looked into", path.display()));
        }
        if !entry.file_type().is_file()
            || path.parent().is_some_and(|p| dumps.contains(p) && is_of_dump(path))
        {
            continue;
        }
        looked.files += 1;
        let bytes = entry.metadata().map_or(0, |m| m.len());
        let mut read = 0;
        let found = inside::file(path, probes, &mut |n| {
            read += n;
            told(n);
        });
        looked.bytes += read;
        let Some(found) = found else { continue };
        if let (Kind::WalArchive, Some(parent)) = (found.kind, path.parent()) {
            let archive = archives.entry(parent.to_owned()).or_default();
            match found.holds {
                Holds::Found { people, .. } => archive.people = archive.people.max(people),
                Holds::Unknown { why } => archive.unknown = Some(why),
                _ => {}
            }
            archive.bytes += bytes;
            archive.made = archive.made.max(made.unwrap_or(0));
            archive.systems.insert(found.note);
            continue;
        }
        let key = found.key;
        let mut found = copy(found.kind, path, found.holds).note(found.note);
        (found.bytes, found.made, found.key) = (Some(bytes), made, key);
        looked.copies.push(found);
    }
    for (path, archive) in archives {
        let holds = inside::judge(archive.people, archive.unknown, probes);
        let note = Vec::from_iter(archive.systems).join(" ");
        let mut copy = copy(Kind::WalArchive, &path, holds).note(note.trim());
        (copy.bytes, copy.made) = (Some(archive.bytes), Some(archive.made));
        looked.copies.push(copy);
    }
    looked
}

/// Segments of WAL in one folder.
#[derive(Default)]
struct Archive {
    people: u64,
    unknown: Option<String>,
    bytes: u64,
    made: u64,
    systems: BTreeSet<String>,
}

/// Whether a file is of a dump in directory format, by pg_dump's names for them: `toc.dat`, `3456.dat.gz`, `blobs.toc`, `blob_17.dat`.
pub fn is_of_dump(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name = [".gz", ".lz4", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let of_blob =
        |name: &str| name.strip_suffix(".dat").or_else(|| name.strip_suffix(".toc")).is_some_and(is_number);
    name == "toc.dat"
        || name == "blobs.toc"
        || name.strip_suffix(".dat").is_some_and(is_number)
        || ["blob_", "blobs_"].iter().any(|start| name.strip_prefix(start).is_some_and(of_blob))
}

/// When something was last written, in milliseconds since 1970.
pub fn millis(metadata: &fs::Metadata) -> Option<u64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

fn is_gone(e: &std::io::Error) -> bool {
    e.kind() == std::io::ErrorKind::NotFound
}

/// A cluster's files, one by one as bytes, wherever they lie.
fn cluster(
    path: &Path,
    probes: &Probes,
    looked: &mut Looked,
    told: &mut dyn FnMut(u64),
    copy: &dyn Fn(Kind, &Path, Holds) -> Copy,
) -> Copy {
    let (mut found, mut bytes, mut unread, mut wrapped) = (Found::default(), 0, Vec::new(), 0);
    let mut parts = BTreeSet::new();
    for entry in WalkDir::new(path).follow_links(true) {
        let entry = match entry {
            Ok(entry) => entry,
            // A file of a running cluster that is gone since its folder was read.
            Err(e) if e.io_error().is_some_and(is_gone) && !e.path().is_some_and(Path::is_symlink) => {
                continue;
            }
            Err(e) => {
                unread.push(e.to_string());
                continue;
            }
        };
        if !entry.file_type().is_file() {
            continue;
        }
        looked.files += 1;
        let mut told = |n| {
            bytes += n;
            told(n);
        };
        let read = fs::File::open(entry.path()).and_then(|file| probes.look(file, &mut told));
        let mut people = 0;
        match read {
            Ok(more) => {
                people = more.people();
                found.add(more);
            }
            Err(e) if is_gone(&e) => continue,
            Err(e) => unread.push(format!("{}: {e}", entry.path().display())),
        }
        let inner = entry.path().strip_prefix(path).unwrap_or(entry.path());
        let part = inner.components().next().map(|p| p.as_os_str().to_string_lossy().into_owned());
        let part = part.unwrap_or_default();
        // PostgreSQL's own files are as they are; others may be wrapped, as a log that is kept.
        if !["base", "global", "pg_wal", "pg_tblspc", "pg_xact", "pg_multixact"].contains(&part.as_str())
            && matches!(
                inside::form_of(entry.path()),
                Ok(Form::Wrapped(_) | Form::Archive | Form::Tar { .. } | Form::Sealed(_))
            )
        {
            match inside::file(entry.path(), probes, &mut told).map(|inside| inside.holds) {
                Some(Holds::Found { people: more, .. }) => people = people.max(more),
                Some(Holds::Unknown { why }) => unread.push(format!("{}: {why}", entry.path().display())),
                _ => {}
            }
            wrapped = wrapped.max(people);
        }
        if people > 0 {
            parts.insert(part);
        }
    }
    looked.bytes += bytes;
    let version = fs::read_to_string(path.join("PG_VERSION")).unwrap_or_default();
    let how = if path.join("backup_label").exists() || path.join("backup_manifest").exists() {
        "a base backup"
    } else if path.join("standby.signal").exists() {
        "a standby's data directory"
    } else if path.join("postmaster.pid").exists() {
        "the data directory of a running cluster"
    } else {
        "a data directory"
    };
    let unknown = match &unread[..] {
        [] => None,
        [only] => Some(only.clone()),
        [first, ..] => Some(format!("{} of its files: {first}", unread.len())),
    };
    let holds = inside::judge(found.people().max(wrapped), unknown, probes);
    let system = fs::read(path.join("global/pg_control"))
        .ok()
        .and_then(|control| Some(format!(", {}", inside::system(control.get(..8)?))))
        .unwrap_or_default();
    let mut made =
        copy(Kind::BaseBackup, path, holds).note(format!("{how}, PostgreSQL {}{system}", version.trim()));
    if !parts.is_empty() {
        made.note = format!("{}; people in {}", made.note, Vec::from_iter(parts).join(", "));
    }
    made.bytes = Some(bytes);
    made
}

fn directory_dump(
    path: &Path,
    probes: &Probes,
    looked: &mut Looked,
    told: &mut dyn FnMut(u64),
    copy: &dyn Fn(Kind, &Path, Holds) -> Copy,
) -> Copy {
    let mut read = 0;
    let restored = inside::restored(path, probes, &mut |n| {
        read += n;
        told(n);
    });
    looked.bytes += read;
    looked.files += 1;
    let (holds, note) = restored.unwrap_or_else(|e| (Holds::Unknown { why: e.to_string() }, String::new()));
    let mut made = copy(Kind::Dump, path, holds).note(format!("directory format; {note}"));
    made.bytes = Some(size(path));
    made
}
