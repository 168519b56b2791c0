//! Looks through a bucket of an object store, as [`super::files`] through a folder. How objects are had is for the caller.

use std::io::Read;

use super::probe::Probes;
use super::{Copy, inside};

/// A bucket.
pub trait Objects {
    /// All objects: names and lengths. The error says why not.
    fn list(&self) -> Result<Vec<(String, u64)>, String>;
    /// Reads one.
    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, String>;
    /// Deletes one.
    fn delete(&self, name: &str) -> Result<(), String>;
}

/// Where a bucket is.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// What all places in it begin with: `s3://host/bucket/`.
    pub place: String,
    /// The country where it lies.
    pub location: String,
    /// Who is responsible.
    pub owner: String,
}

/// Looks through it. What cannot be read is said in `unread`.
pub fn look(
    jurisdiction: &str,
    shelf: &Shelf,
    objects: &dyn Objects,
    probes: &Probes,
    unread: &mut Vec<String>,
    told: &mut dyn FnMut(u64),
) -> Vec<Copy> {
    let mut copies = Vec::new();
    let all = match objects.list() {
        Ok(all) => all,
        Err(e) => {
            unread.push(format!("{}: {e}", shelf.place));
            return copies;
        }
    };
    for (name, bytes) in all {
        let place = format!("{}{name}", shelf.place);
        let last = name.rsplit('/').next().unwrap_or(&name);
        let found = match objects.open(&name) {
            Ok(opened) => inside::stream(opened, last, probes, told),
            Err(e) => {
                unread.push(format!("{place}: {e}"));
                continue;
            }
        };
        let Some(found) = found else { continue };
        let mut copy =
            Copy::new(jurisdiction, found.kind, &shelf.location, &place, found.holds).note(found.note);
        copy.owner.clone_from(&shelf.owner);
        (copy.bytes, copy.key) = (Some(bytes), found.key);
        copies.push(copy);
    }
    copies
}
