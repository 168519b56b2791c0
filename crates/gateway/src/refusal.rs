//! Errors and notices that the gateway makes: what happened, why, and what to do.

use ringfence_statement::allow_list::NotAllowed;

use crate::frame::{fields, put, put_str};

/// SQLSTATEs (PostgreSQL manual, Appendix A).
pub mod code {
    /// Rights are missing.
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    /// The statement is not understood.
    pub const SYNTAX_ERROR: &str = "42601";
    /// The password or the name is wrong.
    pub const INVALID_PASSWORD: &str = "28P01";
    /// Not allowed to connect.
    pub const INVALID_AUTHORIZATION: &str = "28000";
    /// There is no such database.
    pub const NO_SUCH_DATABASE: &str = "3D000";
    /// The client broke the protocol.
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    /// The store cannot be reached.
    pub const CANNOT_CONNECT: &str = "08001";
    /// Not now; later perhaps.
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    /// The store's connection was lost.
    pub const CONNECTION_FAILURE: &str = "08006";
    /// Too many connections.
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    /// The ledger cannot be written.
    pub const IO_ERROR: &str = "58030";
    /// The gateway stops, or a grant ended.
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    /// There is a prepared statement of that name.
    pub const DUPLICATE_STATEMENT: &str = "42P05";
    /// There is none.
    pub const NO_SUCH_STATEMENT: &str = "26000";
    /// Nothing was free in time.
    pub const QUERY_WAIT: &str = "57P05";
    /// There is no cursor or portal of that name.
    pub const NO_SUCH_CURSOR: &str = "34000";
    /// What a name stands for is not certain.
    pub const NOT_IN_PREREQUISITE_STATE: &str = "55000";
    /// The name is the gateway's.
    pub const RESERVED_NAME: &str = "42939";
    /// Not offered.
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    /// A limit is used up.
    pub const LIMIT_EXCEEDED: &str = "54000";
}

/// An error in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The SQLSTATE.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// Why.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
}

impl Refusal {
    /// An error that says what happened.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, hint: None, position: None }
    }

    /// What the allow-list for governed persons says.
    pub fn not_allowed(refused: &NotAllowed) -> Self {
        if refused.is_syntax {
            return Self::new(code::SYNTAX_ERROR, refused.message.clone());
        }
        let refusal = Self::new(code::INSUFFICIENT_PRIVILEGE, refused.message.clone()).hint(
            "Governed access is for reading: SELECT, cursors, COPY (SELECT …) TO STDOUT, transactions.",
        );
        Self { detail: refused.detail.clone(), ..refusal }
    }

    /// Adds why.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn write(&self, out: &mut Vec<u8>, tag: u8, severity: &str) {
        put(out, tag, |out| {
            let mut field = |code: u8, text: &str| {
                out.push(code);
                put_str(out, text);
            };
            field(b'S', severity);
            field(b'V', severity);
            field(b'C', self.code);
            field(b'M', &self.message);
            for (code, text) in [(b'D', &self.detail), (b'H', &self.hint)] {
                if let Some(text) = text {
                    field(code, text);
                }
            }
            if let Some(position) = self.position {
                field(b'P', &position.to_string());
            }
            out.push(0);
        });
    }

    /// An ErrorResponse after which the session goes on.
    pub fn error(&self, out: &mut Vec<u8>) {
        self.write(out, b'E', "ERROR");
    }

    /// An ErrorResponse after which the connection is closed.
    pub fn fatal(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, b'E', "FATAL");
        out
    }

    /// A NoticeResponse.
    pub fn notice(&self, out: &mut Vec<u8>) {
        self.write(out, b'N', "NOTICE");
    }
}

/// What a client hears while the ledger cannot be written.
pub fn unrecorded(e: &ringfence_ledger::Unavailable) -> Refusal {
    Refusal::new(code::IO_ERROR, "the statement is refused because the ledger cannot be written")
        .detail(e.to_string())
        .hint("Nothing may run unrecorded. Service resumes by itself once the ledger can be written; tell its operator.")
}

/// The store's error with a hint that it did not have; `None` if it has one.
pub fn with_hint(body: &[u8], hint: &str) -> Option<Vec<u8>> {
    if fields(body).any(|(code, _)| code == b'H') {
        return None;
    }
    let mut out = Vec::with_capacity(body.len() + hint.len() + 8);
    put(&mut out, b'E', |out| {
        for (code, text) in fields(body) {
            out.push(code);
            out.extend_from_slice(text);
            out.push(0);
        }
        out.push(b'H');
        put_str(out, hint);
        out.push(0);
    });
    Some(out)
}

/// One field of an error.
pub fn field(body: &[u8], wanted: u8) -> Option<&[u8]> {
    fields(body).find(|(code, _)| *code == wanted).map(|(_, text)| text)
}
