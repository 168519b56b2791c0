//! Cosignatures of witnesses: [C2SP tlog-cosignature](https://c2sp.org/tlog-cosignature), both algorithms.
//!
//! A cosignature says that its witness saw, at a time that it names, that the log had grown to this checkpoint without
//! changing what was there before. Ed25519 signs the checkpoint's text; ML-DSA-44 (FIPS 204), which new witnesses should
//! use, signs origin, size and root.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey as EdSigningKey, Verifier as _, VerifyingKey as EdVerifyingKey};
use ml_dsa::{Keypair as _, MlDsa44, SigningKey as MlSigningKey, VerifyingKey as MlVerifyingKey};
use signed_note::Signature;
use tlog_tiles::Checkpoint;

use crate::Error;

/// How long a seed is, in bytes: that of both algorithms.
pub const SEED: usize = 32;

/// The algorithms of cosignatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `cosignature/v1`.
    Ed25519,
    /// `subtree/v1`, over the whole tree.
    MlDsa44,
}

impl Algorithm {
    /// The signature type in key IDs and vkeys.
    fn code(self) -> u8 {
        match self {
            Self::Ed25519 => 0x04,
            Self::MlDsa44 => 0x06,
        }
    }

    fn of(code: u8) -> Option<Self> {
        [Self::Ed25519, Self::MlDsa44].into_iter().find(|a| a.code() == code)
    }
}

#[derive(Clone)]
enum Public {
    Ed25519(Box<EdVerifyingKey>),
    MlDsa44(Box<MlVerifyingKey<MlDsa44>>),
}

/// A witness's public key.
#[derive(Clone)]
pub struct Cosigner {
    name: String,
    id: u32,
    /// Type and key, as a vkey has them.
    material: Vec<u8>,
    key: Public,
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosigner({})", self.name)
    }
}

fn malformed(problem: &str) -> Error {
    Error::Key(format!("a witness's key {problem}"))
}

impl Cosigner {
    fn new(name: &str, material: Vec<u8>) -> Result<Self, Error> {
        if !signed_note::is_key_name_valid(name) || name.len() > 255 {
            return Err(malformed("has no valid name (C2SP signed-note)"));
        }
        let (code, bytes) = material.split_first().ok_or_else(|| malformed("is empty"))?;
        let key = match Algorithm::of(*code) {
            Some(Algorithm::Ed25519) => {
                let bytes = bytes.try_into().map_err(|_| malformed("is not 32 bytes long"))?;
                let key =
                    EdVerifyingKey::from_bytes(bytes).map_err(|_| malformed("is no point of Ed25519"))?;
                Public::Ed25519(Box::new(key))
            }
            Some(Algorithm::MlDsa44) => {
                let bytes = bytes.try_into().map_err(|_| malformed("is not 1312 bytes long"))?;
                Public::MlDsa44(Box::new(MlVerifyingKey::decode(bytes)))
            }
            None => return Err(malformed("is of an unknown type (known: 0x04 Ed25519, 0x06 ML-DSA-44)")),
        };
        Ok(Self { name: name.to_owned(), id: signed_note::key_id(name, &material), material, key })
    }

    /// Reads a vkey: `name+id+base64(type ‖ key)`.
    pub fn parse(vkey: &str) -> Result<Self, Error> {
        let mut parts = vkey.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("is not a vkey (name+id+key)"));
        };
        let material = BASE64.decode(key).map_err(|_| malformed("is not base64"))?;
        let cosigner = Self::new(name, material)?;
        if id != format!("{:08x}", cosigner.id) {
            return Err(malformed("has an id that does not belong to it"));
        }
        Ok(cosigner)
    }

    /// The key as a vkey.
    pub fn vkey(&self) -> String {
        format!("{}+{:08x}+{}", self.name, self.id, BASE64.encode(&self.material))
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key with its type: two witnesses with the same are one.
    pub fn material(&self) -> &[u8] {
        &self.material
    }

    /// The time of a cosignature by this witness over a checkpoint's text, in seconds since 1970; `None` if the line is
    /// by another key; an error if it claims to be by this one and is not.
    pub fn check(&self, text: &[u8], line: &Signature) -> Option<Result<u64, String>> {
        if line.name() != self.name || line.id() != self.id {
            return None;
        }
        let wrong = || format!("the cosignature of {} does not verify", self.name);
        let Some((time, signature)) = line.signature().split_first_chunk::<8>() else {
            return Some(Err(wrong()));
        };
        let time = u64::from_be_bytes(*time);
        // Zero is for subtrees that say nothing of the log's size.
        let holds = time > 0 && i64::try_from(time).is_ok() && self.verify(text, time, signature);
        Some(if holds { Ok(time) } else { Err(wrong()) })
    }

    fn verify(&self, text: &[u8], time: u64, signature: &[u8]) -> bool {
        match &self.key {
            Public::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(&ed25519_message(text, time), &signature).is_ok()),
            Public::MlDsa44(key) => {
                let Ok(signature) = ml_dsa::Signature::<MlDsa44>::try_from(signature) else { return false };
                ml_dsa_message(&self.name, text, time)
                    .is_some_and(|message| key.verify_with_context(&message, &[], &signature))
            }
        }
    }
}

/// C2SP tlog-cosignature, "Ed25519 signed message".
fn ed25519_message(text: &[u8], time: u64) -> Vec<u8> {
    [format!("cosignature/v1\ntime {time}\n").as_bytes(), text].concat()
}

/// C2SP tlog-cosignature, "ML-DSA-44 signed message": TLS presentation language, RFC 8446 §3.
fn ml_dsa_message(name: &str, text: &[u8], time: u64) -> Option<Vec<u8>> {
    let checkpoint = Checkpoint::from_bytes(text).ok()?;
    let mut message = b"subtree/v1\n\0".to_vec();
    let string = |message: &mut Vec<u8>, text: &str| {
        message.push(u8::try_from(text.len()).ok().filter(|n| *n > 0)?);
        message.extend_from_slice(text.as_bytes());
        Some(())
    };
    string(&mut message, name)?;
    message.extend_from_slice(&time.to_be_bytes());
    string(&mut message, checkpoint.origin())?;
    message.extend_from_slice(&0_u64.to_be_bytes());
    message.extend_from_slice(&checkpoint.size().to_be_bytes());
    message.extend_from_slice(&checkpoint.hash().0);
    Some(message)
}

enum Private {
    Ed25519(Box<EdSigningKey>),
    MlDsa44(Box<MlSigningKey<MlDsa44>>),
}

/// A witness's private key.
pub struct CosignerKey {
    public: Cosigner,
    key: Private,
    seed: [u8; SEED],
}

impl CosignerKey {
    /// Makes the key of the witness `name` from 32 random bytes.
    pub fn from_seed(name: &str, algorithm: Algorithm, seed: [u8; SEED]) -> Result<Self, Error> {
        let (key, public) = match algorithm {
            Algorithm::Ed25519 => {
                let key = EdSigningKey::from_bytes(&seed);
                let public = key.verifying_key().to_bytes().to_vec();
                (Private::Ed25519(Box::new(key)), public)
            }
            Algorithm::MlDsa44 => {
                let key = MlSigningKey::<MlDsa44>::from_seed(&seed.into());
                let public = key.verifying_key().encode().to_vec();
                (Private::MlDsa44(Box::new(key)), public)
            }
        };
        let material = [vec![algorithm.code()], public].concat();
        Ok(Self { public: Cosigner::new(name, material)?, key, seed })
    }

    /// Reads `PRIVATE+KEY+name+id+base64(type ‖ seed)`.
    pub fn parse(skey: &str) -> Result<Self, Error> {
        let rest = skey.trim().strip_prefix("PRIVATE+KEY+").ok_or_else(|| malformed("is not private"))?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("is not PRIVATE+KEY+name+id+key"));
        };
        let material = BASE64.decode(key).map_err(|_| malformed("is not base64"))?;
        let (code, seed) = material.split_first().ok_or_else(|| malformed("is empty"))?;
        let algorithm = Algorithm::of(*code).ok_or_else(|| malformed("is of an unknown type"))?;
        let seed = seed.try_into().map_err(|_| malformed("has no seed of 32 bytes"))?;
        let made = Self::from_seed(name, algorithm, seed)?;
        if id != format!("{:08x}", made.public.id) {
            return Err(malformed("has an id that does not belong to it"));
        }
        Ok(made)
    }

    /// The private key as text. Never printed.
    pub fn skey(&self) -> String {
        let code = self.public.material[0];
        let material = [&[code], self.seed.as_slice()].concat();
        format!("PRIVATE+KEY+{}+{:08x}+{}", self.public.name, self.public.id, BASE64.encode(material))
    }

    /// The public half.
    pub fn public(&self) -> &Cosigner {
        &self.public
    }

    /// Cosigns a checkpoint's text at `time`, in seconds since 1970. Whoever calls this has verified that the log grew.
    pub fn cosign(&self, text: &[u8], time: u64) -> Result<Signature, Error> {
        let signature = match &self.key {
            Private::Ed25519(key) => key.sign(&ed25519_message(text, time)).to_bytes().to_vec(),
            Private::MlDsa44(key) => {
                let message = ml_dsa_message(&self.public.name, text, time)
                    .ok_or_else(|| malformed("cannot sign this checkpoint"))?;
                key.expanded_key()
                    .sign_deterministic(&message, &[])
                    .map_err(|_| malformed("cannot sign"))?
                    .encode()
                    .to_vec()
            }
        };
        let bytes = [time.to_be_bytes().as_slice(), &signature].concat();
        Signature::new(self.public.name.clone(), self.public.id, bytes).map_err(|e| Error::Key(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"example.com/log\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

    #[test]
    fn a_cosignature_is_for_one_text_one_time_and_one_witness() {
        for algorithm in [Algorithm::Ed25519, Algorithm::MlDsa44] {
            let key = CosignerKey::from_seed("w.example/1", algorithm, [7; SEED]).unwrap();
            let public = Cosigner::parse(&key.public().vkey()).unwrap();
            let line = key.cosign(TEXT, 1_700_000_000).unwrap();
            let line = Signature::from_bytes(line.to_bytes().trim_ascii_end()).unwrap();
            assert_eq!(public.check(TEXT, &line), Some(Ok(1_700_000_000)), "{algorithm:?}");
            let other = TEXT.iter().map(|b| if *b == b'7' { b'8' } else { *b }).collect::<Vec<_>>();
            assert!(public.check(&other, &line).unwrap().is_err());
            let mut later = line.signature().to_vec();
            later[7] ^= 1;
            let later = Signature::new("w.example/1".into(), line.id(), later).unwrap();
            assert!(public.check(TEXT, &later).unwrap().is_err());
            let stranger = CosignerKey::from_seed("w.example/1", algorithm, [8; SEED]).unwrap();
            assert_eq!(stranger.public().check(TEXT, &line), None);
            let again = CosignerKey::parse(&key.skey()).unwrap();
            assert_eq!(again.public().vkey(), key.public().vkey());
        }
    }

    /// The example of C2SP tlog-cosignature is checked where its key is known: the message's form, byte for byte.
    #[test]
    fn the_signed_messages_have_the_published_form() {
        let text = b"example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let expected = "cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n\
                        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        assert_eq!(ed25519_message(text, 1_679_315_147), expected.as_bytes());
        let message = ml_dsa_message("w", text, 5).unwrap();
        assert_eq!(&message[..12], b"subtree/v1\n\0");
        assert_eq!(&message[12..22], b"\x01w\0\0\0\0\0\0\0\x05");
        assert_eq!(message[22], 27);
        assert_eq!(&message[50..58], &0_u64.to_be_bytes());
        assert_eq!(&message[58..66], &20_852_163_u64.to_be_bytes());
        assert_eq!(message.len(), 66 + 32);
    }

    #[test]
    fn keys_that_are_not_right_are_refused() {
        let key = CosignerKey::from_seed("w.example/1", Algorithm::Ed25519, [7; SEED]).unwrap();
        let vkey = key.public().vkey();
        for bad in [
            "",
            "w.example/1",
            "w.example/1+00000000+BA==",
            &vkey.replace("w.example/1", "w.example/2"),
            &vkey[..vkey.len() - 4],
        ] {
            Cosigner::parse(bad).unwrap_err();
        }
        CosignerKey::parse(&vkey).map(drop).unwrap_err();
    }
}
