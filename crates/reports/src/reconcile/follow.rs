//! Following a server's log while it is written: what did not come through a gateway is told within seconds.
//!
//! A record waits a moment before it is compared, so that the ledgers, whose checkpoints follow within a second, have what belongs
//! to it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Finding, Line, Reconciliation, ServerLog, Settings};
use crate::Error;

/// How long a record waits for the ledgers, in milliseconds.
const WAIT: u64 = 4000;
/// The most bytes that are read at once.
const CHUNK: u64 = 8 << 20;

/// See the module's text.
pub struct Follower {
    comparing: Reconciliation,
    /// A file, or a folder of files whose names are in the order of time.
    path: PathBuf,
    current: Option<(PathBuf, u64)>,
    /// What has been read of a record that is not whole.
    rest: Vec<u8>,
    waiting: VecDeque<Line>,
}

impl Follower {
    /// Begins at the end of what is there now. `logs` are the ledgers of all gateways of the store, with their public keys.
    pub fn new(settings: Settings, logs: &[(PathBuf, String)], path: &Path) -> Result<Self, Error> {
        let comparing = Reconciliation::following(settings, logs)?;
        let mut follower = Self {
            comparing,
            path: path.to_owned(),
            current: None,
            rest: Vec::new(),
            waiting: VecDeque::new(),
        };
        follower.current = match follower.files()?.pop() {
            Some(file) => {
                let end = std::fs::metadata(&file).map_err(Error::io("cannot read", &file))?.len();
                Some((file, end))
            }
            None => None,
        };
        Ok(follower)
    }

    /// The files of the log in order. Others in the folder, as the plain-text log, are not it.
    fn files(&self) -> Result<Vec<PathBuf>, Error> {
        if !self.path.is_dir() {
            return Ok(vec![self.path.clone()]);
        }
        let entries = std::fs::read_dir(&self.path).map_err(Error::io("cannot read", &self.path))?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io("cannot read", &self.path))?.path();
            if path.extension().is_some_and(|e| e == "csv" || e == "json") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Reads what was written since the last look, and compares what has waited long enough at `now_ms`. After an error it goes
    /// on with the next record at the next look.
    pub fn look(&mut self, now_ms: u64, mut tell: impl FnMut(Finding)) -> Result<(), Error> {
        loop {
            let read = self.read()?;
            if read == 0 && !self.next_file()? {
                break;
            }
        }
        self.comparing.refresh()?;
        while self.waiting.front().is_some_and(|line| line.time + WAIT <= now_ms) {
            if let Some(line) = self.waiting.pop_front() {
                self.comparing.line(&line, &mut tell)?;
            }
        }
        // What is counted each minute falls due without any further record.
        self.comparing.settle(now_ms.saturating_sub(WAIT), false, &mut tell);
        Ok(())
    }

    /// Goes on to a newer file, once the current one has been read; the server writes to the newest.
    fn next_file(&mut self) -> Result<bool, Error> {
        let files = self.files()?;
        let next = match &self.current {
            Some((current, _)) => files.into_iter().find(|file| file > current),
            None => files.into_iter().next(),
        };
        let Some(next) = next else { return Ok(false) };
        self.rest.clear();
        self.current = Some((next, 0));
        Ok(true)
    }

    /// Reads more of the current file; returns how many bytes.
    fn read(&mut self) -> Result<usize, Error> {
        let Some((path, at)) = &mut self.current else { return Ok(0) };
        let mut file = File::open(&path).map_err(Error::io("cannot open", path))?;
        let length = file.metadata().map_err(Error::io("cannot read", path))?.len();
        if length < *at {
            // log_truncate_on_rotation: it was begun anew. What was in it and not read is lost to us, not to `reconcile`.
            *at = 0;
            self.rest.clear();
        }
        file.seek(SeekFrom::Start(*at)).map_err(Error::io("cannot read", path))?;
        let before = self.rest.len();
        file.take(CHUNK).read_to_end(&mut self.rest).map_err(Error::io("cannot read", path))?;
        let count = self.rest.len() - before;
        *at += count as u64;
        let whole = whole_records(&self.rest);
        if whole > 0 {
            let bytes: Vec<u8> = self.rest.drain(..whole).collect();
            let total = bytes.len() as u64;
            let mut log = ServerLog::read(path, Box::new(Cursor::new(bytes)), total)?;
            while let Some(line) = log.next_line()? {
                self.waiting.push_back(line);
            }
        }
        Ok(count)
    }
}

/// How many bytes at the front are whole records: up to the last line break outside quotes (csvlog doubles a quote within one, which
/// leaves their number even), or, in jsonlog, the last line break.
fn whole_records(bytes: &[u8]) -> usize {
    if bytes.first() == Some(&b'{') {
        return bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    }
    let (mut is_quoted, mut whole) = (false, 0);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\n' if !is_quoted => whole = at + 1,
            _ => {}
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_at_a_line_break_outside_quotes() {
        assert_eq!(whole_records(b"a,\"b\nc\"\nd,\"e\n"), 8);
        assert_eq!(whole_records(b"a,\"b\"\"\n\"\n"), 9);
        assert_eq!(whole_records(b"{\"a\":1}\n{\"b\""), 8);
        assert_eq!(whole_records(b"a,b"), 0);
    }
}
