//! Files that are whole or absent, whatever happens in between.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use ringfence_verifier::Error;
use ringfence_verifier::tiles::TEMPORARY;

/// Writes a file so that it is whole or absent, whatever happens: a temporary file, `fsync`, rename.
pub(crate) fn write_whole(root: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let target = root.join(name);
    let dir = target.parent().unwrap_or(root);
    fs::create_dir_all(dir).map_err(Error::io("cannot create", dir))?;
    let temporary = root.join(TEMPORARY);
    let mut file = File::create(&temporary).map_err(Error::io("cannot create", &temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io("cannot write", &temporary))?;
    fs::rename(&temporary, &target).map_err(Error::io("cannot replace", &target))?;
    Ok(())
}

/// Makes a new name in the folder of `path` durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("cannot sync", dir))
}
