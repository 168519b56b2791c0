//! How the store reads the bytes of a statement: the two session settings that change where a literal
//! ends (PostgreSQL manual, sections 4.1.2 and 24.3).
//!
//! A text without a backslash and without a byte above 127 reads the same under all of them.

use std::borrow::Cow;

use pg_query::ParserOptions;

/// `standard_conforming_strings` of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strings {
    /// `on`, the default: a backslash is an ordinary character in `'…'`.
    #[default]
    Standard,
    /// `off`: a backslash escapes the next character in `'…'`.
    Escaping,
    /// A statement that is under way may change the setting.
    Unsure,
}

/// `client_encoding` of the session, as far as this crate can decode it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `UTF8`.
    #[default]
    Utf8,
    /// `LATIN1` (ISO 8859-1): each byte is one character.
    Latin1,
    /// Another encoding, or one that a statement under way may change. Its non-ASCII texts are not
    /// read: in SJIS, BIG5, GBK and others the second byte of a character may be a backslash.
    Other,
}

/// The settings under which the store reads a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How backslashes in string literals are read.
    pub strings: Strings,
    /// How bytes become characters.
    pub encoding: Encoding,
}

impl Settings {
    /// The settings while a statement under way may change both.
    pub const UNSURE: Self = Self { strings: Strings::Unsure, encoding: Encoding::Other };

    /// The settings by the values that PostgreSQL reports in ParameterStatus.
    pub fn reported(standard_conforming_strings: &str, client_encoding: &str) -> Self {
        let strings = match standard_conforming_strings {
            "on" => Strings::Standard,
            "off" => Strings::Escaping,
            _ => Strings::Unsure,
        };
        let is = |name: &str| client_encoding.eq_ignore_ascii_case(name);
        let encoding = if is("UTF8") {
            Encoding::Utf8
        } else if is("LATIN1") {
            Encoding::Latin1
        } else {
            Encoding::Other
        };
        Self { strings, encoding }
    }

    /// The text that the store sees; `None` if this crate cannot tell.
    pub fn decode(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        match self.encoding {
            _ if bytes.is_ascii() => {}
            Encoding::Utf8 => {}
            Encoding::Latin1 => return Some(bytes.iter().map(|b| char::from(*b)).collect()),
            Encoding::Other => return None,
        }
        std::str::from_utf8(bytes).ok().map(Cow::Borrowed)
    }

    /// The parser's options for a text; `None` if the text reads differently under settings that
    /// are both possible.
    pub(crate) fn options(self, text: &str) -> Option<ParserOptions> {
        match self.strings {
            Strings::Standard => Some(ParserOptions::DEFAULT),
            _ if !text.contains('\\') => Some(ParserOptions::DEFAULT),
            Strings::Escaping => Some(ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS),
            Strings::Unsure => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_one_way_is_decoded() {
        let utf8 = Settings::default();
        assert_eq!(utf8.decode("é".as_bytes()).as_deref(), Some("é"));
        assert_eq!(utf8.decode(b"\xe9"), None);
        let latin1 = Settings::reported("on", "LATIN1");
        assert_eq!(latin1.decode(b"\xe9").as_deref(), Some("é"));
        let sjis = Settings::reported("off", "SJIS");
        assert_eq!(sjis.decode(b"\x83\x5c"), None);
        assert_eq!(sjis.decode(b"select 1").as_deref(), Some("select 1"));
        assert_eq!(sjis.strings, Strings::Escaping);
        assert!(Settings::UNSURE.options("select 'a'").is_some());
        assert!(Settings::UNSURE.options("select 'a\\'").is_none());
    }
}
