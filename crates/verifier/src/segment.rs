//! Segments: `private/<first index>.seg`, the private records and, at once, the log's journal.
//!
//! A frame is `u32 length ‖ u16 leaf length ‖ leaf ‖ 32 bytes of salt ‖ record`, numbers big-endian; `length` counts what
//! follows it. There is no checksum: a whole frame proves itself, since its leaf commits to its record. A frame that does
//! not is a torn write when it is the last, and damage when it lies under the checkpoint. A record that was erased leaves its
//! leaf, zeros for a salt, and nothing. The open segment may end in zeros
//! that are written ahead, so that a sync need not wait for the file system to note that the file grew.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::record::{MAX_LEAF, Sealed};

/// The largest frame in bytes. A longer length is damage, not a frame.
pub const MAX_FRAME: usize = 4 << 20;
/// The length of a salt in bytes.
pub const SALT: usize = 32;
const HEADER: usize = 4 + 2;

/// Appends an entry in its stored form.
pub fn encode(leaf: &[u8], salt: &[u8; SALT], record: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let body = 2 + leaf.len() + SALT + record.len();
    let (Ok(leaf_len), Ok(length)) = (u16::try_from(leaf.len()), u32::try_from(body)) else {
        return Err(Error::TooLarge(body));
    };
    if body > MAX_FRAME {
        return Err(Error::TooLarge(body));
    }
    out.reserve(4 + body);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&leaf_len.to_be_bytes());
    out.extend_from_slice(leaf);
    out.extend_from_slice(salt);
    out.extend_from_slice(record);
    Ok(())
}

/// Reads one frame from the front of `bytes`: the entry and how many bytes it took; `None` if `bytes` does not begin with
/// a whole frame whose leaf commits to its record.
pub fn decode(bytes: &[u8]) -> Option<(Sealed, usize)> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let leaf_len = usize::from(u16::from_be_bytes(bytes.get(4..HEADER)?.try_into().ok()?));
    if length > MAX_FRAME || leaf_len > MAX_LEAF || length < 2 + leaf_len + SALT {
        return None;
    }
    let frame = bytes.get(..4 + length)?;
    let (leaf, rest) = frame[HEADER..].split_at(leaf_len);
    let (salt, record) = rest.split_at(SALT);
    let entry = Sealed { leaf: leaf.to_vec(), salt: salt.try_into().ok()?, record: record.to_vec() };
    (entry.is_erased() || entry.is_committed()).then_some((entry, 4 + length))
}

/// One file of entries.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Where it lies.
    pub path: PathBuf,
    /// The index of its first entry.
    pub first: u64,
}

/// The segments of a log in order.
pub fn list(root: &Path) -> Result<Vec<Segment>, Error> {
    let dir = root.join("private");
    let mut found = Vec::new();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(Error::io("cannot read", &dir)(e)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io("cannot read", &dir))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let first = name.strip_suffix(".seg").filter(|n| n.len() == 20).and_then(|n| n.parse().ok());
        match first {
            Some(first) => found.push(Segment { path, first }),
            None => {
                return Err(Error::corrupt(&path, "is not a segment; nothing else belongs in this folder"));
            }
        }
    }
    found.sort_by_key(|s| s.first);
    Ok(found)
}

/// What is in a segment.
pub struct Contents {
    /// Its whole entries.
    pub entries: Vec<Sealed>,
    /// Where the last whole entry ends, in bytes.
    pub whole: u64,
    /// The file's length in bytes, without the zeros at its end; more than `whole` means a torn or damaged end.
    pub length: u64,
}

/// Reads a whole segment.
pub fn read(segment: &Segment) -> Result<Contents, Error> {
    let bytes = fs::read(&segment.path).map_err(Error::io("cannot read", &segment.path))?;
    let (mut at, mut entries) = (0, Vec::new());
    while let Some((entry, taken)) = decode(&bytes[at..]) {
        entries.push(entry);
        at += taken;
    }
    let written = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    Ok(Contents { entries, whole: at as u64, length: written.max(at) as u64 })
}

/// Reads a segment's first entry; `None` if it has no whole one.
pub fn first(segment: &Segment) -> Result<Option<Sealed>, Error> {
    let mut bytes = Vec::new();
    let file = File::open(&segment.path).map_err(Error::io("cannot read", &segment.path))?;
    file.take(4 + MAX_FRAME as u64)
        .read_to_end(&mut bytes)
        .map_err(Error::io("cannot read", &segment.path))?;
    Ok(decode(&bytes).map(|(entry, _)| entry))
}

/// Reads one entry by index.
pub fn find(root: &Path, index: u64) -> Result<Option<Sealed>, Error> {
    let segments = list(root)?;
    let Some(segment) = segments.iter().rev().find(|s| s.first <= index) else { return Ok(None) };
    let mut bytes = Vec::new();
    File::open(&segment.path)
        .and_then(|mut f| f.read_to_end(&mut bytes))
        .map_err(Error::io("cannot read", &segment.path))?;
    let mut at = 0;
    for _ in segment.first..index {
        // What is passed over need not prove itself.
        let Some(taken) = frame_length(&bytes[at..]) else { return Ok(None) };
        at += taken;
    }
    Ok(decode(&bytes[at..]).map(|(entry, _)| entry))
}

/// The last entry that is wanted, also of those that wait for a checkpoint. Reads the segments from the newest on.
pub fn last(root: &Path, is_wanted: impl Fn(&Sealed) -> bool) -> Result<Option<Sealed>, Error> {
    for segment in list(root)?.iter().rev() {
        let found = read(segment)?.entries.into_iter().rev().find(&is_wanted);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// How many bytes the frame at the front of `bytes` takes; `None` if it is not whole.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let is_one = (2 + SALT..=MAX_FRAME).contains(&length) && 4 + length <= bytes.len();
    is_one.then_some(4 + length)
}

/// Reads entries by index, best in their order: one segment is kept in memory.
pub struct Finder {
    segments: Vec<Segment>,
    current: Option<(u64, Vec<Sealed>)>,
}

impl Finder {
    /// For the log under `root`.
    pub fn new(root: &Path) -> Result<Self, Error> {
        Ok(Self { segments: list(root)?, current: None })
    }

    /// The entry `index`; `None` if it is not here.
    pub fn get(&mut self, index: u64) -> Result<Option<&Sealed>, Error> {
        let Some(segment) = self.segments.iter().rev().find(|s| s.first <= index) else { return Ok(None) };
        if self.current.as_ref().is_none_or(|(first, _)| *first != segment.first) {
            self.current = Some((segment.first, read(segment)?.entries));
        }
        let place = usize::try_from(index - segment.first).unwrap_or(usize::MAX);
        Ok(self.current.as_ref().and_then(|(_, entries)| entries.get(place)))
    }
}

/// How often a writer may be found in the middle of its last frame before that frame counts as torn.
const PATIENCE: usize = 10;

/// All entries of a log in order, one segment in memory.
pub struct Records {
    segments: std::vec::IntoIter<Segment>,
    entries: std::vec::IntoIter<Sealed>,
    next: u64,
}

impl Records {
    /// The entries under `root`; `None` where there are no segments, as in a copy of the public half.
    pub fn open(root: &Path) -> Result<Option<Self>, Error> {
        let segments = list(root)?;
        let Some(first) = segments.first() else { return Ok(None) };
        let next = first.first;
        Ok(Some(Self { segments: segments.into_iter(), entries: Vec::new().into_iter(), next }))
    }

    /// The same without the segments that end before entry `from`; the first entry may still be an earlier one.
    pub fn open_at(root: &Path, from: u64) -> Result<Option<Self>, Error> {
        let mut segments = list(root)?;
        let before = segments.iter().rposition(|s| s.first <= from).unwrap_or(0);
        segments.drain(..before);
        let Some(first) = segments.first() else { return Ok(None) };
        let next = first.first;
        Ok(Some(Self { segments: segments.into_iter(), entries: Vec::new().into_iter(), next }))
    }

    /// The index of the entry that [`Self::next`] returns next.
    pub fn index(&self) -> u64 {
        self.next
    }

    /// The next entry. What is wrong with the files goes to `problems`.
    pub fn next(&mut self, problems: &mut Vec<String>) -> Option<Sealed> {
        loop {
            if let Some(entry) = self.entries.next() {
                self.next += 1;
                return Some(entry);
            }
            let segment = self.segments.next()?;
            let name = segment.path.display();
            if segment.first != self.next {
                problems.push(format!("{name}: begins at entry {}, not {}", segment.first, self.next));
                return None;
            }
            match self.read(&segment) {
                Ok(contents) => {
                    if contents.whole != contents.length {
                        let last = (segment.first + contents.entries.len() as u64).saturating_sub(1);
                        problems.push(format!(
                            "{name}: what follows entry {last} is not a whole entry that its leaf commits to"
                        ));
                    }
                    self.entries = contents.entries.into_iter();
                }
                Err(e) => {
                    problems.push(e.to_string());
                    return None;
                }
            }
        }
    }

    /// Reads a segment. A writer may be in the middle of its last frame; one that is dead stays there.
    fn read(&self, segment: &Segment) -> Result<Contents, Error> {
        let mut contents = read(segment)?;
        let is_last = self.segments.as_slice().is_empty();
        for _ in 0..PATIENCE {
            if contents.whole == contents.length || !is_last {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
            let before = contents.length;
            contents = read(segment)?;
            if contents.length == before {
                break;
            }
        }
        Ok(contents)
    }
}
