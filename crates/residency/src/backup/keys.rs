//! The keys of backups: one for each part of each, wrapped for the jurisdiction's recipients.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

pub use age::secrecy::ExposeSecret;
use age::secrecy::SecretString;
pub use age::x25519::{Identity, Recipient};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::copies::{Copy, Holds, Kind};
use crate::database::Error;

/// How much of a file its age header may take. With one recipient it takes about 200 bytes.
const LONGEST: u64 = 4096;
/// What a register says of a file whose age header is known, and whose key is not.
pub const HEADER: &str = "age-header:";

/// The folder with the keys.
#[derive(Clone, Debug)]
pub struct Keys {
    folder: PathBuf,
}

/// What is kept of a key, and of the backup that it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Version of this format.
    pub v: u8,
    /// Its name: that of the copy in the register.
    pub id: String,
    /// Whose rows it opens; nothing for everybody else's.
    pub jurisdiction: Option<String>,
    /// Whose rows are not among everybody else's: of a jurisdiction, as people lived when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<String>,
    /// The store that was backed up.
    pub store: String,
    /// Where the backup was written.
    pub place: String,
    /// When, in milliseconds since 1970.
    pub made: u64,
    /// The public half: age1….
    pub recipient: String,
    /// SHA-256 of the headers of the files that it opens. A file is known by it wherever it is copied to.
    pub heads: Vec<String>,
    /// The secret half as an age file for the jurisdiction's recipients, in hex; nothing once it is destroyed.
    pub wrapped: Option<String>,
    /// The decision that it was destroyed under.
    pub destroyed: Option<String>,
}

fn failed(path: &Path, e: &impl std::fmt::Display) -> Error {
    Error::Failed(format!("{}: {e}", path.display()))
}

/// A recipient of age's: age1….
pub fn recipients(text: &str) -> Result<Vec<Recipient>, String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let all: Vec<Recipient> =
        lines.map(|line| Recipient::from_str(line).map_err(str::to_owned)).collect::<Result<_, _>>()?;
    if all.is_empty() { Err("it names no recipient (age1…)".to_owned()) } else { Ok(all) }
}

/// Identities of age's: AGE-SECRET-KEY-1….
pub fn identities(text: &str) -> Result<Vec<Identity>, String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    // Whatever the line is, it may be a secret: the message does not repeat it.
    let all: Vec<Identity> = lines
        .map(|line| Identity::from_str(line).map_err(|_| "a line of it is no AGE-SECRET-KEY-1…".to_owned()))
        .collect::<Result<_, _>>()?;
    if all.is_empty() { Err("it has no AGE-SECRET-KEY-1…".to_owned()) } else { Ok(all) }
}

/// A new identity, as a file for whoever holds it, and its recipient.
pub fn generate() -> (SecretString, String) {
    let identity = Identity::generate();
    (identity.to_string(), identity.to_public().to_string())
}

/// The digest of a file's age header, up to its MAC; nothing if it has none.
pub fn head(path: &Path) -> Option<String> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(LONGEST).read_to_end(&mut start).ok()?;
    head_of(&start)
}

/// The same of a file's beginning.
pub fn head_of(start: &[u8]) -> Option<String> {
    if !start.starts_with(b"age-encryption.org/v1\n") {
        return None;
    }
    let mac = start.windows(5).position(|w| w == b"\n--- ")? + 1;
    let end = mac + start[mac..].iter().position(|b| *b == b'\n')?;
    Some(hex::encode(Sha256::digest(&start[..end])))
}

/// Wraps a key.
pub fn wrap(key: &Identity, recipients: &[Recipient]) -> Result<String, Error> {
    let broken = |e: &dyn std::fmt::Display| Error::Failed(format!("the key cannot be wrapped: {e}"));
    let whom = recipients.iter().map(|r| r as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(whom).map_err(|e| broken(&e))?;
    let mut wrapped = Vec::new();
    let mut writer = encryptor.wrap_output(&mut wrapped).map_err(|e| broken(&e))?;
    writer.write_all(key.to_string().expose_secret().as_bytes()).map_err(|e| broken(&e))?;
    writer.finish().map_err(|e| broken(&e))?;
    Ok(hex::encode(wrapped))
}

impl Kept {
    /// Opens the key with the jurisdiction's identities.
    pub fn open(&self, with: &[Identity]) -> Result<Identity, Error> {
        let refuse = |problem: String| Error::Failed(format!("the key {} {problem}", self.id));
        if let Some(under) = &self.destroyed {
            return Err(refuse(format!("was destroyed under {under}: what it opened is erased")));
        }
        let wrapped = self.wrapped.as_deref().and_then(|text| hex::decode(text).ok());
        let wrapped = wrapped.ok_or_else(|| refuse("is not in its file".to_owned()))?;
        let decryptor =
            age::Decryptor::new_buffered(&wrapped[..]).map_err(|e| refuse(format!("is damaged: {e}")))?;
        let mut secret = String::new();
        decryptor
            .decrypt(with.iter().map(|i| i as &dyn age::Identity))
            .map_err(|e| refuse(format!("cannot be opened with these identities: {e}")))?
            .read_to_string(&mut secret)
            .map_err(|e| refuse(format!("is damaged: {e}")))?;
        Identity::from_str(&secret).map_err(|e| refuse(format!("is damaged: {e}")))
    }
}

impl Keys {
    /// The keys in a folder, which is made where there is none.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// All keys, those that are destroyed, too.
    pub fn all(&self) -> Result<Vec<Kept>, Error> {
        let mut all = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(all),
            Err(e) => return Err(failed(&self.folder, &e)),
        };
        for entry in entries {
            let path = entry.map_err(|e| failed(&self.folder, &e))?.path();
            if path.extension().is_some_and(|e| e == "json") {
                let text = fs::read_to_string(&path).map_err(|e| failed(&path, &e))?;
                all.push(serde_json::from_str(&text).map_err(|e| failed(&path, &e))?);
            }
        }
        all.sort_by(|a: &Kept, b: &Kept| (a.made, &a.id).cmp(&(b.made, &b.id)));
        Ok(all)
    }

    /// One key.
    pub fn find(&self, id: &str) -> Result<Kept, Error> {
        let known = self.all()?;
        known
            .into_iter()
            .find(|kept| kept.id == id)
            .ok_or_else(|| Error::Failed(format!("{} has no key {id}", self.folder.display())))
    }

    /// Keeps a key, on the disk when this returns.
    pub fn keep(&self, kept: &Kept) -> Result<(), Error> {
        let mut maker = fs::DirBuilder::new();
        maker.recursive(true).mode(0o700).create(&self.folder).map_err(|e| failed(&self.folder, &e))?;
        let path = self.path(&kept.id);
        let text = serde_json::to_vec_pretty(kept).map_err(|e| failed(&path, &e))?;
        let new = self.folder.join(format!(".{}.new", kept.id));
        let write = || {
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|e| failed(&path, &e))
    }

    /// Destroys a key: its bytes are written over, then its file is written anew without it. What a disk keeps of blocks that it has
    /// written elsewhere is still wrapped for the jurisdiction's recipients. Destroyed already is as good.
    pub fn destroy(&self, recipient: &str, under: &str) -> Result<(), Error> {
        let known = self.all()?;
        let Some(mut kept) = known.into_iter().find(|kept| kept.recipient == recipient) else {
            return Err(Error::Failed(format!("{} has no key {recipient}", self.folder.display())));
        };
        if kept.destroyed.is_some() {
            return Ok(());
        }
        let path = self.path(&kept.id);
        let over = || {
            let length = fs::metadata(&path)?.len();
            let mut file = OpenOptions::new().write(true).open(&path)?;
            // Still JSON, so that a crash here does not hide the other keys.
            let blank = serde_json::to_vec(&Kept {
                wrapped: None,
                destroyed: Some(under.to_owned()),
                ..kept.clone()
            })?;
            file.write_all(&blank)?;
            let rest = usize::try_from(length).unwrap_or(0).saturating_sub(blank.len());
            file.write_all(&vec![b' '; rest])?;
            file.sync_all()
        };
        over().map_err(|e| failed(&path, &e))?;
        kept.wrapped = None;
        kept.destroyed = Some(under.to_owned());
        self.keep(&kept)
    }
}

/// Tells sealed files that are parts of our backups, wherever they were copied to, and whether anybody can still open them.
pub fn recognise(copies: &mut [Copy], known: &[Kept]) {
    for copy in copies.iter_mut().filter(|c| c.kind == Kind::Sealed) {
        let Some(head) = copy.key.as_deref().and_then(|key| key.strip_prefix(HEADER)) else { continue };
        let Some(kept) = known.iter().find(|kept| kept.heads.iter().any(|h| h == head)) else { continue };
        let holds = match (&kept.jurisdiction, &kept.destroyed) {
            (_, Some(under)) => Holds::Destroyed { under: under.clone() },
            (Some(whose), None) if *whose == copy.jurisdiction => Holds::Everything,
            // It has one jurisdiction's people, and this is another.
            (Some(_), None) => Holds::Nobody { of: 0 },
            (None, None) if kept.without.as_deref() == Some(&copy.jurisdiction) => Holds::Nobody { of: 0 },
            (None, None) => Holds::Everything,
        };
        let note = match (&kept.jurisdiction, &kept.without) {
            (None, Some(whose)) => {
                format!("encrypted backup of {}, without who lived in {whose} when it was made", kept.store)
            }
            _ => format!("encrypted backup of {}", kept.store),
        };
        let found = Copy::new(&copy.jurisdiction, Kind::Dump, &copy.location, &copy.place, holds).note(note);
        *copy = Copy {
            owner: std::mem::take(&mut copy.owner),
            key: Some(kept.recipient.clone()),
            bytes: copy.bytes,
            made: copy.made,
            ..found
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    fn kept(key: &Identity, whom: &[Recipient]) -> Kept {
        Kept {
            v: 1,
            id: "C-1".to_owned(),
            jurisdiction: Some("us".to_owned()),
            without: None,
            store: "legacy".to_owned(),
            place: "/b/us.sql.age".to_owned(),
            made: 1,
            recipient: key.to_public().to_string(),
            heads: Vec::new(),
            wrapped: Some(wrap(key, whom).unwrap()),
            destroyed: None,
        }
    }

    #[test]
    fn a_destroyed_key_is_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::new(folder.path().join("keys"));
        let (key, holder) = (Identity::generate(), Identity::generate());
        let kept = kept(&key, &[holder.to_public()]);
        keys.keep(&kept).unwrap();
        let opened = keys.find("C-1").unwrap().open(std::slice::from_ref(&holder)).unwrap();
        assert_eq!(opened.to_public().to_string(), kept.recipient);
        let stranger = keys.find("C-1").unwrap().open(&[Identity::generate()]).map(|_| ()).unwrap_err();
        assert!(stranger.to_string().contains("cannot be opened"), "{stranger}");
        keys.destroy(&kept.recipient, "E-1").unwrap();
        keys.destroy(&kept.recipient, "E-2").unwrap();
        let gone = keys.find("C-1").unwrap();
        assert_eq!(gone.destroyed.as_deref(), Some("E-1"));
        let problem = gone.open(&[holder]).map(|_| ()).unwrap_err();
        assert!(problem.to_string().contains("destroyed under E-1"), "{problem}");
        let text = fs::read_to_string(folder.path().join("keys/C-1.json")).unwrap();
        assert!(!text.contains(kept.wrapped.as_deref().unwrap()));
    }

    #[test]
    fn no_secret_is_repeated_in_a_message() {
        let Err(problem) = identities("AGE-SECRET-KEY-1SOMETHING") else { panic!("it is no identity") };
        assert!(!problem.contains("SOMETHING"));
        assert!(recipients("# nobody\n").is_err() && recipients("age1x").is_err());
    }
}
