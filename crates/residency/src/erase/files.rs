//! Removes files of copies: dumps, base backups, WAL archives, exports.

use std::fs;
use std::io;
use std::path::Path;

use crate::copies::Kind;
use crate::copies::files::is_of_dump;
use crate::copies::inside::{self, Form};

/// Deletes a copy whole. Of an archive of WAL only its segments, of a dump in directory format only its own files: what else lies in the
/// folder is something else. Gone already is as good. What a file system or a disk keeps of deleted files is not in our hands; the certificate says so.
pub fn delete(kind: Kind, place: &Path) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(place) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    if metadata.is_file() {
        fs::remove_file(place)?;
        return Ok(1);
    }
    if kind == Kind::WalArchive {
        let mut deleted = 0;
        for entry in fs::read_dir(place)? {
            let entry = entry?;
            if entry.file_type()?.is_file() && is_of_archive(&entry.path())? {
                fs::remove_file(entry.path())?;
                deleted += 1;
            }
        }
        return Ok(deleted);
    }
    if kind == Kind::Dump {
        for entry in fs::read_dir(place)? {
            let path = entry?.path();
            if is_of_dump(&path) {
                fs::remove_file(path)?;
            }
        }
        return match fs::remove_dir(place) {
            Err(e) if e.kind() != io::ErrorKind::DirectoryNotEmpty => Err(e),
            _ => Ok(1),
        };
    }
    fs::remove_dir_all(place)?;
    Ok(1)
}

/// Whether a file is of an archive of WAL: a segment by its name and its content, whatever it is wrapped in, or the note of a backup.
fn is_of_archive(path: &Path) -> io::Result<bool> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let (Some(number), Some(rest)) = (name.get(..24), name.get(24..)) else { return Ok(false) };
    if !number.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(false);
    }
    if rest.starts_with('.') && rest.ends_with(".backup") {
        return Ok(true);
    }
    Ok(match inside::form_of(path)? {
        Form::Wal => true,
        Form::Wrapped(wrapping) => inside::unwrapped(path, wrapping)?.0 == Form::Wal,
        _ => false,
    })
}

/// Whether a path is inside a folder, links followed. One that is gone is where its folder is.
pub fn is_inside(place: &Path, folder: &Path) -> bool {
    let (Some(parent), Ok(folder)) = (place.parent(), folder.canonicalize()) else { return false };
    parent.canonicalize().is_ok_and(|parent| parent.starts_with(folder))
}

/// Empties a server's log in place: whoever writes it goes on at its beginning. A link is not followed.
pub fn empty(place: &Path) -> io::Result<()> {
    if place.is_symlink() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a link"));
    }
    match fs::OpenOptions::new().write(true).open(place) {
        Ok(file) => file.set_len(0),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn an_archive_loses_its_segments_only() {
        let dir = std::env::temp_dir().join(format!("rf-erase-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut segment = vec![0x10, 0xD1];
        segment.resize(100, 0);
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        for name in ["000000010000000000000001", "000000010000000000000001.00000028.backup", "notes.txt", md5]
        {
            fs::write(dir.join(name), if name.ends_with('1') { &segment[..] } else { b"x" }).unwrap();
        }
        assert_eq!(delete(Kind::WalArchive, &dir).unwrap(), 2);
        assert!(dir.join("notes.txt").exists() && dir.join(md5).exists());
        for name in ["toc.dat", "3012.dat.gz", "blob_17.dat", "blobs.toc"] {
            fs::write(dir.join(name), "x").unwrap();
        }
        assert_eq!(delete(Kind::Dump, &dir).unwrap(), 1);
        assert!(
            dir.join("notes.txt").exists() && dir.join(md5).exists() && !dir.join("3012.dat.gz").exists()
        );
        assert_eq!(delete(Kind::BaseBackup, &dir).unwrap(), 1);
        assert_eq!(delete(Kind::Dump, &dir).unwrap(), 0);
    }
}
