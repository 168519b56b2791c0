//! A statement of a client: its text, and what was found about it.

use std::sync::{Arc, OnceLock};

use ringfence_statement::analysis::Analysis;
use ringfence_statement::settings::Settings;
use ringfence_verifier::record::hex_of;
use sha2::{Digest as _, Sha256};

/// The longest statement text in a record, in bytes; the digest of a longer one would say less than its
/// beginning.
pub const MAX_RECORDED: usize = 256 * 1024;

/// A statement text and what was found about it.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The SQL, as records have it: at most [`MAX_RECORDED`] bytes.
    pub text: Box<str>,
    /// The SQL is longer: what is recorded is its beginning.
    pub is_cut: bool,
    /// What its text says.
    pub analysis: Arc<Analysis>,
    /// How the store reads the text.
    pub settings: Settings,
    /// How to prepare it again, where connections change between transactions.
    pub shared: Option<SharedStatement>,
    /// A parameter of it has a type that is not PostgreSQL's own.
    pub has_own_types: bool,
    /// It is a `DEALLOCATE` of a prepared statement that has a shared name in the store.
    pub deallocates_shared: bool,
    digest: OnceLock<([u8; 32], Arc<str>)>,
}

impl Statement {
    /// A statement with its analysis.
    pub fn of(text: &str, analysis: Arc<Analysis>, settings: Settings) -> Self {
        let end = (0..=text.len().min(MAX_RECORDED)).rev().find(|&at| text.is_char_boundary(at));
        let is_cut = end.is_none_or(|end| end < text.len());
        let text = text[..end.unwrap_or(0)].into();
        Self {
            text,
            is_cut,
            analysis,
            settings,
            shared: None,
            has_own_types: false,
            deallocates_shared: false,
            digest: OnceLock::new(),
        }
    }

    /// Whether other settings could read the text in another way.
    pub fn depends_on_settings(&self) -> bool {
        self.text.contains('\\') || !self.text.is_ascii()
    }

    /// SHA-256 of the text, and the same in hex.
    pub fn digest(&self) -> (&[u8; 32], &Arc<str>) {
        let (digest, hex) = self.digest.get_or_init(|| {
            let digest = Sha256::digest(self.text.as_bytes()).into();
            (digest, hex_of(&digest).into())
        });
        (digest, hex)
    }
}

/// What shared names begin with.
pub const SHARED: &str = "ringfence_";

/// A prepared statement that any connection can have.
#[derive(Clone, Debug)]
pub struct SharedStatement {
    /// Its number, which makes its name in the store ([`SHARED`]).
    pub number: u64,
    /// Whether the client named it. The unnamed one stays unnamed in the store.
    pub named: bool,
    /// Its number is no other statement's.
    pub is_own: bool,
    /// By which parameters dates in it are read ([`crate::session::Session::times`]).
    pub times: Arc<str>,
    /// Text and parameter types, as in the Parse message after the name.
    pub definition: Box<[u8]>,
}

impl SharedStatement {
    /// Its name in the store.
    pub fn name(&self) -> String {
        if self.named { format!("{SHARED}{}", self.number) } else { String::new() }
    }
}
