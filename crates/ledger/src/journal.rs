//! The open end of the journal: `private/<first index>.seg`, see [`segment`] for its form.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ringfence_verifier::Error;
use ringfence_verifier::segment::{self, Segment};

/// A new file begins once one is this large.
const ROTATE_AT: u64 = 64 << 20;
/// How much of the file is written ahead with zeros at a time. A later sync overwrites what is there:
/// the file system need not note anything about the file, and writes the data alone.
const ROOM: usize = 512 << 10;
static ZEROS: [u8; ROOM] = [0; ROOM];

/// The open end of the journal.
pub(crate) struct Journal {
    root: PathBuf,
    file: File,
    path: PathBuf,
    /// Up to here all is whole and durable.
    offset: u64,
    /// Up to here the file has zeros.
    room: u64,
    /// How many entries the log has.
    next: u64,
    /// The index of the file's first entry.
    first: u64,
}

impl Journal {
    /// Opens the journal at its end and returns what lies beyond entry `from`, to be sequenced. Removes a torn last
    /// write; refuses if entries under the checkpoint (`from` of them) are missing or damaged.
    pub(crate) fn open(root: &Path, from: u64) -> Result<(Self, Vec<Vec<u8>>), Error> {
        let dir = root.join("private");
        fs::create_dir_all(&dir).map_err(Error::io("cannot create", &dir))?;
        let mut segments = segment::list(root)?;
        if segments.is_empty() {
            if from > 0 {
                return Err(Error::corrupt(
                    &dir,
                    format!("no segment, but the checkpoint has {from} entries"),
                ));
            }
            let path = path_of(root, 0);
            create(&path)?;
            segments.push(Segment { path, first: 0 });
        }
        let mut next = 0;
        let mut tail = Vec::new();
        let last = segments.len() - 1;
        let mut whole = 0;
        for (i, segment) in segments.iter().enumerate() {
            if segments.get(i + 1).is_some_and(|following| following.first <= from) {
                next = segments[i + 1].first;
                continue; // wholly under the checkpoint: `verify` reads it, opening need not
            }
            if i > 0 && segment.first != next {
                return Err(Error::corrupt(
                    &segment.path,
                    format!("begins at entry {}, not {next}", segment.first),
                ));
            }
            let contents = segment::read(segment)?;
            if contents.whole != contents.length && i != last {
                return Err(Error::corrupt(&segment.path, format!("damaged at byte {}", contents.whole)));
            }
            for (index, entry) in (segment.first..).zip(contents.entries) {
                next = index + 1;
                if index >= from {
                    tail.push(entry.leaf);
                }
            }
            whole = contents.whole;
        }
        let path = segments[last].path.clone();
        if next < from {
            return Err(Error::corrupt(
                &path,
                format!("has entries up to {next}, but the checkpoint has {from}"),
            ));
        }
        let file = OpenOptions::new().write(true).open(&path).map_err(Error::io("cannot open", &path))?;
        file.set_len(whole).map_err(Error::io("cannot truncate", &path))?;
        file.sync_all().map_err(Error::io("cannot sync", &path))?;
        let first = segments[last].first;
        Ok((Self { root: root.to_owned(), file, path, offset: whole, room: whole, next, first }, tail))
    }

    /// The index of the first entry of the open file.
    pub(crate) fn segment(&self) -> u64 {
        self.first
    }

    /// How many entries the log has.
    pub(crate) fn size(&self) -> u64 {
        self.next
    }

    /// Makes `count` encoded entries durable, all or none, with one write and one `fdatasync`; returns the index of the first.
    pub(crate) fn append(&mut self, encoded: &[u8], count: usize) -> Result<u64, Error> {
        if self.offset >= ROTATE_AT {
            self.rotate()?;
        }
        if let Err(e) = self.write(encoded) {
            // What is half there must not be mistaken for an entry; if even this fails, the next open removes it.
            self.give_room_back();
            return Err(Error::io("cannot write", &self.path)(e));
        }
        let first = self.next;
        self.offset += encoded.len() as u64;
        self.next += count as u64;
        Ok(first)
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let end = self.offset + bytes.len() as u64;
        self.file.write_all_at(bytes, self.offset)?;
        if end > self.room {
            let more = ROOM - usize::try_from(end % ROOM as u64).unwrap_or(0);
            // Where there is no room for zeros, there may be for the next entries.
            let has_more = self.file.write_all_at(&ZEROS[..more], end).is_ok();
            self.room = if has_more { end + more as u64 } else { end };
        }
        self.file.sync_data()
    }

    fn rotate(&mut self) -> Result<(), Error> {
        let path = path_of(&self.root, self.next);
        let file = create(&path)?;
        self.give_room_back();
        self.file = file;
        self.path = path;
        self.first = self.next;
        (self.offset, self.room) = (0, 0);
        Ok(())
    }

    /// Best effort: zeros at a segment's end are only superfluous.
    fn give_room_back(&mut self) {
        let _ = self.file.set_len(self.offset);
        self.room = self.offset;
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.give_room_back();
    }
}

fn path_of(root: &Path, first: u64) -> PathBuf {
    root.join("private").join(format!("{first:020}.seg"))
}

fn create(path: &Path) -> Result<File, Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("cannot create", path))?;
    crate::whole::sync_dir(path)?;
    Ok(file)
}
