//! Where entries begin in the segments of the private half: one offset in [`STRIDE`], so that a page of entries is read without its
//! segment. Frames carry no checksum and need none: what is given is an entry whose leaf commits to its record.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ringfence_verifier::record::Sealed;
use ringfence_verifier::segment::{self, Segment};

use crate::Error;

/// How many entries lie between two offsets that are kept.
const STRIDE: u64 = 64;
/// How much of a segment is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// See the module's text.
pub struct SparseIndex {
    dir: PathBuf,
    known: Mutex<BTreeMap<u64, Arc<Known>>>,
}

/// What is known of a segment.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Which file it was: an erasure puts another in its place.
    file: (u64, u64),
    /// Where the entries 0, `STRIDE`, 2 · `STRIDE` … of the segment begin, in bytes.
    offsets: Vec<u64>,
    /// How many entries were walked over, and where the last of them ends.
    entries: u64,
    end: u64,
}

impl SparseIndex {
    /// For the log under `dir`. Nothing is read yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), known: Mutex::default() }
    }

    /// The entries of these numbers, in the order of the numbers given; `None` for one that is not here. Each must lie under a
    /// checkpoint: what follows may still be rewritten.
    pub fn entries(&self, indices: &[u64]) -> Result<Vec<Option<Sealed>>, Error> {
        let segments = segment::list(&self.dir)?;
        let mut wanted: Vec<(u64, usize)> = indices.iter().copied().zip(0..).collect();
        wanted.sort_unstable();
        let mut found: Vec<Option<Sealed>> = vec![None; indices.len()];
        let mut wanted = wanted.as_slice();
        while let Some((first, _)) = wanted.first() {
            let at = segments.partition_point(|s| s.first <= *first);
            let next = segments.get(at).map_or(u64::MAX, |s| s.first);
            let (here, rest) = wanted.split_at(wanted.partition_point(|(index, _)| *index < next));
            if let Some(segment) = at.checked_sub(1).and_then(|i| segments.get(i)) {
                self.of_one(segment, here, &mut found)?;
            }
            wanted = rest;
        }
        Ok(found)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries of one segment, ascending. The lock is not held while a disk is read.
    fn of_one(
        &self,
        segment: &Segment,
        wanted: &[(u64, usize)],
        found: &mut [Option<Sealed>],
    ) -> Result<(), Error> {
        let cannot = || Error::io("cannot read", &segment.path);
        let file = File::open(&segment.path).map_err(cannot())?;
        let about = file.metadata().map_err(cannot())?;
        let id = (about.dev(), about.ino());
        let mut known =
            self.known().get(&segment.first).filter(|k| k.file == id).cloned().unwrap_or_default();
        let last = wanted.last().map_or(0, |(index, _)| index - segment.first);
        let mut frames = Frames { reader: BufReader::with_capacity(CHUNK, &file), at: 0 };
        if known.entries <= last {
            let more = Arc::make_mut(&mut known);
            more.file = id;
            frames.walk(more, last).map_err(cannot())?;
            let mut all = self.known();
            if all.get(&segment.first).is_none_or(|k| k.file != id || k.entries < known.entries) {
                all.insert(segment.first, Arc::clone(&known));
            }
        }
        let mut next = None; // the entry that begins where the reader is
        for (index, place) in wanted {
            let nth = index - segment.first;
            if nth >= known.entries {
                break;
            }
            let step = usize::try_from(nth / STRIDE).unwrap_or(usize::MAX);
            let Some(offset) = known.offsets.get(step) else { break };
            let mut i = match next {
                Some(i) if i <= nth && i >= nth / STRIDE * STRIDE => i,
                _ => {
                    frames.seek(*offset).map_err(cannot())?;
                    nth / STRIDE * STRIDE
                }
            };
            while i < nth && frames.skip().map_err(cannot())? {
                i += 1;
            }
            found[*place] = frames.read().map_err(cannot())?;
            next = found[*place].is_some().then_some(nth + 1);
            if next.is_none() {
                // Not what it was when it was walked over: the next look begins anew.
                self.known().remove(&segment.first);
            }
        }
        Ok(())
    }
}

/// A segment, frame by frame.
struct Frames<'a> {
    reader: BufReader<&'a File>,
    at: u64,
}

impl Frames<'_> {
    fn seek(&mut self, to: u64) -> std::io::Result<()> {
        let by = i64::try_from(to).unwrap_or(i64::MAX) - i64::try_from(self.at).unwrap_or(i64::MAX);
        self.reader.seek_relative(by)?;
        self.at = to;
        Ok(())
    }

    /// The length of the frame that begins here, without the length itself; the reader stands behind that.
    fn length(&mut self) -> std::io::Result<Option<u32>> {
        let mut header = [0; 4];
        match self.reader.read_exact(&mut header) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        self.at += 4;
        let length = u32::from_be_bytes(header);
        Ok((length != 0 && length as usize <= segment::MAX_FRAME).then_some(length))
    }

    /// Goes to the next frame; false where there is none.
    fn skip(&mut self) -> std::io::Result<bool> {
        let Some(length) = self.length()? else { return Ok(false) };
        self.seek(self.at + u64::from(length))?;
        Ok(true)
    }

    /// The entry that begins here, if its leaf commits to it.
    fn read(&mut self) -> std::io::Result<Option<Sealed>> {
        let Some(length) = self.length()? else { return Ok(None) };
        let mut frame = length.to_be_bytes().to_vec();
        let read = (&mut self.reader).take(u64::from(length)).read_to_end(&mut frame)?;
        self.at += read as u64;
        Ok(segment::decode(&frame).map(|(entry, _)| entry))
    }

    /// Goes on over the entries up to `last`, and no further: what follows may not be under a checkpoint.
    fn walk(&mut self, known: &mut Known, last: u64) -> std::io::Result<()> {
        self.seek(known.end)?;
        while known.entries <= last {
            let begins = self.at;
            if !self.skip()? {
                break;
            }
            if known.entries.is_multiple_of(STRIDE) {
                known.offsets.push(begins);
            }
            known.entries += 1;
            known.end = self.at;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use ringfence_verifier::record::Kind;

    use std::fs;

    use super::*;
    use crate::Entry;

    fn log_of(dir: &std::path::Path, segments: &[(u64, u64)]) {
        fs::create_dir_all(dir.join("private")).unwrap();
        for (first, until) in segments {
            let mut bytes = Vec::new();
            for n in *first..*until {
                let record =
                    serde_json::json!({ "n": n, "long": "x".repeat(usize::try_from(n % 300).unwrap()) });
                let (entry, salt) = (Entry::new(Kind::Intent, "us", &record), [7; segment::SALT]);
                segment::encode(&entry.seal(n, &salt), &salt, &entry.record, &mut bytes).unwrap();
            }
            bytes.extend_from_slice(&[0; 4096]);
            fs::write(dir.join("private").join(format!("{first:020}.seg")), bytes).unwrap();
        }
    }

    fn number(entry: &Sealed) -> u64 {
        let record: serde_json::Value = serde_json::from_slice(&entry.record).unwrap();
        record["n"].as_u64().unwrap()
    }

    #[test]
    fn entries_are_found_in_any_order_over_segments_that_grow() {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), &[(0, 500), (500, 700)]);
        let index = SparseIndex::new(dir.path());
        let all = [699, 0, 63, 64, 65, 499, 500, 501, 128, 127, 0, 640];
        let found = index.entries(&all).unwrap();
        let found: Vec<u64> = found.iter().map(|e| number(e.as_ref().unwrap())).collect();
        assert_eq!(found, all);
        assert!(index.entries(&[700]).unwrap()[0].is_none());
        log_of(dir.path(), &[(500, 900)]);
        let found = index.entries(&[899, 700, 1000]).unwrap();
        assert_eq!(found.iter().flatten().map(number).collect::<Vec<_>>(), [899, 700]);
        for n in 0..900 {
            assert_eq!(number(index.entries(&[n]).unwrap()[0].as_ref().unwrap()), n);
        }
    }

    #[test]
    fn a_file_in_anothers_place_and_damage_give_no_wrong_entry() {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), &[(0, 300)]);
        let index = SparseIndex::new(dir.path());
        assert!(index.entries(&[299]).unwrap()[0].is_some());
        // Another file, in which everything lies elsewhere.
        let path = dir.path().join("private").join(format!("{:020}.seg", 0));
        let contents = segment::read(&Segment { path: path.clone(), first: 0 }).unwrap();
        let mut bytes = Vec::new();
        for entry in &contents.entries {
            segment::encode(&entry.leaf, &[0; segment::SALT], &[], &mut bytes).unwrap();
        }
        fs::write(path.with_extension("new"), &bytes).unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        let found = index.entries(&[299]).unwrap();
        assert!(found[0].as_ref().is_some_and(Sealed::is_erased));
        // Damage in one entry is that entry's. (Of an erased one nothing proves itself here: its leaf is in the tree.)
        log_of(dir.path(), &[(0, 300)]);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 0xff;
        fs::write(&path, &bytes).unwrap();
        let found = index.entries(&(0..300).collect::<Vec<_>>()).unwrap();
        let gone = found.iter().filter(|e| e.is_none()).count();
        assert!((1..300).contains(&gone), "{gone}");
        for (n, entry) in found.iter().enumerate() {
            if let Some(entry) = entry {
                assert_eq!(entry.leaf, contents.entries[n].leaf);
            }
        }
    }
}
