//! Flat files of numbers: one value after the other, little-endian. Reading a range of one is one read.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::Error;

/// A column that grows at its end.
pub(crate) struct Column {
    path: PathBuf,
    file: File,
    width: usize,
    pending: Vec<u8>,
    rows: u64,
}

/// How much is written at a time, in bytes.
const CHUNK: usize = 1 << 20;

impl Column {
    /// Opens a column of values of `width` bytes, cut to `rows`.
    pub(crate) fn open(path: PathBuf, width: usize, rows: u64) -> Result<Self, Error> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(Error::io("cannot open", &path))?;
        file.set_len(rows * width as u64).map_err(Error::io("cannot cut", &path))?;
        Ok(Self { path, file, width, pending: Vec::with_capacity(CHUNK + 8), rows })
    }

    pub(crate) fn push(&mut self, value: u64) -> Result<(), Error> {
        self.pending.extend_from_slice(&value.to_le_bytes()[..self.width]);
        if self.pending.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let at = self.rows * self.width as u64;
        self.file.write_all_at(&self.pending, at).map_err(Error::io("cannot write", &self.path))?;
        self.rows += (self.pending.len() / self.width) as u64;
        self.pending.clear();
        Ok(())
    }
}

/// Reads rows `from..until` of a column.
pub(crate) fn read(path: &Path, width: usize, from: u64, until: u64) -> Result<Vec<u64>, Error> {
    let file = File::open(path).map_err(Error::io("cannot open", path))?;
    let count = usize::try_from(until.saturating_sub(from)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; count.saturating_mul(width)];
    file.read_exact_at(&mut bytes, from * width as u64).map_err(Error::io("cannot read", path))?;
    Ok(bytes
        .chunks_exact(width)
        .map(|chunk| {
            let mut value = [0; 8];
            value[..width].copy_from_slice(chunk);
            u64::from_le_bytes(value)
        })
        .collect())
}

/// The first row of a sorted column whose value is at least `value`.
pub(crate) fn first_at_least(path: &Path, rows: u64, value: u64) -> Result<u64, Error> {
    let file = File::open(path).map_err(Error::io("cannot open", path))?;
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, middle * 8).map_err(Error::io("cannot read", path))?;
        if u64::from_le_bytes(bytes) < value { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

/// Writes a file so that it is whole or absent.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new);
    let mut file = file.map_err(Error::io("cannot create", &new))?;
    file.write_all(bytes).map_err(Error::io("cannot write", &new))?;
    std::fs::rename(&new, path).map_err(Error::io("cannot replace", path))
}
