//! Removes files of copies: dumps, base backups, WAL archives, exports.

use std::fs;
use std::io;
use std::path::Path;

use crate::copies::Kind;

/// Deletes a copy whole. For an archive of WAL only its segments: what else lies in the folder is something else. Gone already is as
/// good. What a file system or a disk keeps of deleted files is not in our hands; the certificate says so.
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
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_segment = name.len() >= 24 && name.bytes().take(24).all(|b| b.is_ascii_hexdigit());
            if is_segment && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
                deleted += 1;
            }
        }
        return Ok(deleted);
    }
    fs::remove_dir_all(place)?;
    Ok(1)
}

/// Whether a path is inside a folder, links followed. One that is gone is where its folder is.
pub fn is_inside(place: &Path, folder: &Path) -> bool {
    let (Some(parent), Ok(folder)) = (place.parent(), folder.canonicalize()) else { return false };
    parent.canonicalize().is_ok_and(|parent| parent.starts_with(folder))
}

/// Empties a server's log in place: whoever writes it goes on at its beginning.
pub fn empty(place: &Path) -> io::Result<()> {
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
        for name in ["000000010000000000000001", "000000010000000000000001.00000028.backup", "notes.txt"] {
            fs::write(dir.join(name), "x").unwrap();
        }
        assert_eq!(delete(Kind::WalArchive, &dir).unwrap(), 2);
        assert!(dir.join("notes.txt").exists());
        assert_eq!(delete(Kind::BaseBackup, &dir).unwrap(), 1);
        assert_eq!(delete(Kind::Dump, &dir).unwrap(), 0);
    }
}
