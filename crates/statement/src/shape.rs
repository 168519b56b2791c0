//! Texts that differ in their constants only are alike: one key stands for all of them, so that what depends on a
//! statement's structure is found out once a shape, not once a text. Careful rather than clever: what could be read in two
//! ways (dollar quotes, backslashes, comments, prefixed strings) is its own key.

use std::cell::RefCell;

/// The longest text that is looked at.
pub const MAX_LENGTH: usize = 16 * 1024;

thread_local! {
    static KEY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Calls `with` with the text's key.
pub fn with_key<T>(text: &str, with: impl FnOnce(&str) -> T) -> T {
    KEY.with_borrow_mut(|key| {
        key.clear();
        if text.len() <= MAX_LENGTH && write_key(text, key).is_some() { with(key) } else { with(text) }
    })
}

/// libpg_query's fingerprint of a text, which its constants do not change.
pub fn fingerprint(text: &str) -> String {
    let (parser, options) = (pg_query::ParserOptions::default(), pg_query::FingerprintOptions::FULL_RELNAME);
    pg_query::fingerprint(text, parser, options).map_or_else(|_| "not understood".to_owned(), |f| f.hex)
}

/// Writes the text with `0` for each run of digits that no word goes on with and `''` for each plain string.
fn write_key(text: &str, key: &mut String) -> Option<()> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut in_word = false;
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        let end = match (byte, next) {
            (b'\\', _) | (b'-', Some(b'-')) | (b'/', Some(b'*')) => return None,
            (b'$', next) if !next.is_some_and(|n| n.is_ascii_digit()) => return None,
            (b'$', _) => {
                let end = digits(bytes, at + 1);
                key.push_str(&text[at..end]);
                in_word = true;
                end
            }
            (b'\'', _) if in_word => return None, // E'…', B'…', U&'…' and the like
            (b'\'', _) => {
                key.push_str("''");
                in_word = true;
                quoted(bytes, at, b'\'')?
            }
            (b'"', _) => {
                let end = quoted(bytes, at, b'"')?;
                key.push_str(&text[at..end]);
                in_word = true;
                end
            }
            (b'0'..=b'9', _) if !in_word => {
                key.push('0');
                in_word = true;
                digits(bytes, at)
            }
            _ => {
                let length = text[at..].chars().next()?.len_utf8();
                key.push_str(&text[at..at + length]);
                in_word = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'&' || !byte.is_ascii();
                at + length
            }
        };
        at = end;
    }
    Some(())
}

fn digits(bytes: &[u8], from: usize) -> usize {
    from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count()
}

/// The end of what begins with a quote; a doubled quote is part of it.
fn quoted(bytes: &[u8], from: usize, quote: u8) -> Option<usize> {
    let mut at = from + 1;
    loop {
        at += bytes.get(at..)?.iter().position(|&b| b == quote || b == b'\\')?;
        match (bytes[at], bytes.get(at + 1)) {
            (b'\\', _) => return None,
            (_, Some(&b)) if b == quote => at += 2,
            _ => return Some(at + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> String {
        with_key(text, str::to_owned)
    }

    #[test]
    fn constants_do_not_count_and_everything_else_does() {
        for (text, expected) in [
            ("select a from t where id = 17 and b = 'it''s'", "select a from t where id = 0 and b = ''"),
            ("select 1.5, -3, 7::int8, t1.c2, $1", "select 0.0, -0, 0::int8, t1.c2, $1"),
            ("select \"a 1\" from \"t\"\"2\"", "select \"a 1\" from \"t\"\"2\""),
            ("naïve1 2", "naïve1 0"),
        ] {
            assert_eq!(key(text), expected);
        }
        assert_ne!(key("select a1"), key("select a2"));
        assert_ne!(key("select $1"), key("select $2"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_its_own_key() {
        for text in [
            "select E'a\\'b' , 17",
            "select 'a\\', 17",
            "select $$ 17 $$",
            "select $a$ 17 $a$",
            "select 17 -- 17",
            "select /* 17 */ 17",
            "select B'101', 17",
            "select U&'d', 17",
            "select 'open 17",
            "select \"open 17",
        ] {
            assert_eq!(key(text), text);
        }
    }

    /// The safety of it: texts with one key are one statement to PostgreSQL's own grammar but for its constants.
    #[test]
    fn one_key_is_one_fingerprint() {
        let fingerprint = |text: &str| {
            let options = (pg_query::ParserOptions::default(), pg_query::FingerprintOptions::FULL_RELNAME);
            pg_query::fingerprint(text, options.0, options.1).map(|f| f.hex).ok()
        };
        let pieces = [
            "select", "a", "1", "23", "'x'", "'it''s'", "\"q 1\"", "from t", "where", "=", ",", "$1", ";",
            "e'", "--", "/*", "1a", "::int", "-", "_1", "''", "(", ")", "&",
        ];
        let mut known = std::collections::HashMap::new();
        let mut state = 1_u64;
        for _ in 0..60_000 {
            let mut text = "select".to_owned();
            for _ in 0..5 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let n = usize::try_from(state >> 33).unwrap();
                text.push_str(if n % 3 == 0 { "" } else { " " });
                text.push_str(pieces[n % pieces.len()]);
            }
            let found = fingerprint(&text);
            let first = known.entry(key(&text)).or_insert_with(|| (text.clone(), found.clone()));
            assert_eq!(first.1, found, "{:?} and {text:?}", first.0);
        }
    }
}
