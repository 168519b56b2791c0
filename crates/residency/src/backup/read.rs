//! Gives a backup back, as SQL for psql.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use age::x25519::Identity;
use flate2::read::GzDecoder;

use super::Manifest;
use super::keys::Keys;
use crate::database::Error;

/// What was given back.
#[derive(Debug, Default, serde::Serialize)]
pub struct Restored {
    /// Files that were read to their end.
    pub parts: Vec<String>,
    /// Rows in them, as their backup says.
    pub rows: u64,
    /// Files that nobody can open any more, and under which decision that came.
    pub destroyed: Vec<(String, String)>,
}

/// Opens all parts, in their order, and writes what is in them to `out`. A part whose key is destroyed is left out and told; anything
/// else that does not open is an error.
pub fn restore(
    folder: &Path,
    manifest: &Manifest,
    keys: &Keys,
    with: &[Identity],
    out: &mut dyn Write,
    told: &mut dyn FnMut(u64),
) -> Result<Restored, Error> {
    let mut restored = Restored::default();
    for part in &manifest.parts {
        let kept = keys.find(&part.key)?;
        if let Some(under) = &kept.destroyed {
            restored.destroyed.push((part.file.clone(), under.clone()));
            continue;
        }
        let key = kept.open(with)?;
        let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("{} cannot be read: {e}", part.file));
        let file = File::open(folder.join(&part.file)).map_err(|e| failed(&e))?;
        let sealed = age::Decryptor::new_buffered(BufReader::new(file)).map_err(|e| failed(&e))?;
        let opened = sealed.decrypt(std::iter::once(&key as &dyn age::Identity)).map_err(|e| failed(&e))?;
        let mut unpacked = GzDecoder::new(opened);
        let mut room = vec![0; 1 << 16];
        loop {
            let n = unpacked.read(&mut room).map_err(|e| failed(&e))?;
            if n == 0 {
                break;
            }
            out.write_all(&room[..n]).map_err(|e| Error::Failed(format!("it cannot be given on: {e}")))?;
            told(n as u64);
        }
        // What is behind the compressed data is read, too: only its last piece proves that nothing was cut off.
        io::copy(&mut unpacked.into_inner(), &mut io::sink()).map_err(|e| failed(&e))?;
        restored.parts.push(part.file.clone());
        restored.rows += part.rows;
    }
    Ok(restored)
}
