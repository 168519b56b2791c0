//! Walks a folder and finds what may be a copy. Links are not followed: what they lead to is another place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::WalkDir;

use super::probe::{Found, Probes};
use super::{Copy, Holds, Kind, inside};

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
    let mut archives: BTreeMap<PathBuf, (Found, u64, u64, u64)> = BTreeMap::new();
    let mut walk = WalkDir::new(&folder.path).sort_by_file_name().into_iter();
    let copy = |kind, path: &Path, holds| {
        let mut copy = Copy::new(jurisdiction, kind, &folder.location, &path.display().to_string(), holds);
        copy.owner.clone_from(&folder.owner);
        copy
    };
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
            let whole = if path.join("PG_VERSION").exists() && path.join("base").is_dir() {
                Some(cluster(path, probes, &mut looked, told, &copy))
            } else if path.join("toc.dat").exists() {
                Some(directory_dump(path, probes, &mut looked, told, &copy))
            } else {
                None
            };
            if let Some(mut found) = whole {
                found.made = made;
                looked.copies.push(found);
                walk.skip_current_dir();
            }
            continue;
        }
        if !entry.file_type().is_file() {
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
            if let Holds::Found { people, .. } = found.holds {
                archive.1 = archive.1.max(people);
            }
            archive.2 += bytes;
            archive.3 = archive.3.max(made.unwrap_or(0));
            continue;
        }
        let key = found.key;
        let mut found = copy(found.kind, path, found.holds).note(found.note);
        (found.bytes, found.made, found.key) = (Some(bytes), made, key);
        looked.copies.push(found);
    }
    for (path, (_, people, bytes, made)) in archives {
        let holds = match people {
            0 => Holds::Nobody { of: probes.count() },
            people => Holds::Found { people, of: probes.count() },
        };
        let mut archive = copy(Kind::WalArchive, &path, holds);
        (archive.bytes, archive.made) = (Some(bytes), Some(made));
        looked.copies.push(archive);
    }
    looked
}

fn millis(metadata: &fs::Metadata) -> Option<u64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// A cluster's files, one by one as bytes.
fn cluster(
    path: &Path,
    probes: &Probes,
    looked: &mut Looked,
    told: &mut dyn FnMut(u64),
    copy: &dyn Fn(Kind, &Path, Holds) -> Copy,
) -> Copy {
    let (mut found, mut bytes, mut unread) = (Found::default(), 0, 0_u64);
    let mut parts = BTreeSet::new();
    for entry in WalkDir::new(path).follow_links(false) {
        let Ok(entry) = entry else {
            unread += 1;
            continue;
        };
        if !entry.file_type().is_file() {
            continue;
        }
        let read = fs::File::open(entry.path()).and_then(|file| {
            probes.look(file, &mut |n| {
                bytes += n;
                told(n);
            })
        });
        match read {
            Ok(more) => {
                let inner = entry.path().strip_prefix(path).ok().and_then(|p| p.components().next());
                if let Some(part) = inner.filter(|_| more.people() > 0) {
                    parts.insert(part.as_os_str().to_string_lossy().into_owned());
                }
                found.add(more);
            }
            Err(_) => unread += 1,
        }
        looked.files += 1;
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
    let holds = match (found.people(), unread) {
        (0, 1..) => Holds::Unknown { why: format!("{unread} of its files cannot be read") },
        _ => inside::holds(&found, probes),
    };
    let mut made = copy(Kind::BaseBackup, path, holds).note(format!("{how}, PostgreSQL {}", version.trim()));
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
