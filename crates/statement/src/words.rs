//! The words that a client's own text has: what an error of the store may repeat to that client.

use std::collections::HashSet;

use pg_query::protobuf::Token;

use crate::settings::{Settings, Strings};
use crate::shape;

/// The longest text that is looked at, in bytes.
const MAX_LENGTH: usize = 64 * 1024;

/// Words, each whole and as PostgreSQL reads it.
pub type Words = HashSet<String>;

/// Adds the names and constants of a text, each whole and as PostgreSQL reads it. A text that cannot be
/// read adds nothing.
#[allow(clippy::implicit_hasher, reason = "the words are this crate's own set")]
pub fn collect(text: &str, settings: Settings, words: &mut Words) {
    let is_standard = settings.strings == Strings::Standard || !text.contains('\\');
    if text.len() > MAX_LENGTH || !is_standard || shape::is_white(text) {
        return;
    }
    let Ok(tokens) = pg_query::scan_tokens(text) else { return };
    for token in tokens {
        let place = |at: i32| usize::try_from(at).ok();
        let span = place(token.start).zip(place(token.end));
        let Some(raw) = span.and_then(|(start, end)| text.get(start..end)) else { continue };
        match token.token() {
            Token::Sconst => {
                // Escapes and several lines are rare: such a constant is no word.
                let inner = raw.strip_prefix('\'').and_then(|r| r.strip_suffix('\''));
                if let Some(inner) = inner.filter(|i| !i.contains('\n')) {
                    words.insert(inner.replace("''", "'"));
                }
            }
            Token::Ident if raw.starts_with('"') => {
                words.insert(raw.trim_matches('"').replace("\"\"", "\""));
            }
            Token::Ident | Token::Iconst | Token::Fconst => drop(words.insert(raw.to_lowercase())),
            _ if raw.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_') => {
                words.insert(raw.to_ascii_lowercase());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole() {
        let mut words = HashSet::new();
        let text = "select 'it''s' as \"A \"\"b\", Users.id::int from users where x = 17 -- secret";
        collect(text, Settings::default(), &mut words);
        for word in ["it's", "A \"b", "users", "id", "17", "int", "from"] {
            assert!(words.contains(word), "{word}: {words:?}");
        }
        assert!(!words.contains("secret") && !words.contains("s") && !words.contains("Users"));
    }
}
