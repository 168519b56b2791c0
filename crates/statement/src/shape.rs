//! Texts that differ in constants and comments only.
//!
//! Two forms, both made from the tokens of PostgreSQL's own scanner:
//! - the *key* finds an earlier analysis. It has a placeholder for each constant and keeps the rest as
//!   it is, so two texts with one key have one syntax tree but for the values of constants.
//! - the *shape* names a statement in counts and reports. It also ignores white space, the case of
//!   keywords and the length of lists of constants.
//!
//! What the scanner does not cover without gaps, what is quoted with `U&`, and what names the type FLOAT, is
//! its own key.

use std::cell::RefCell;
use std::collections::BTreeSet;

use pg_query::protobuf::{ScanToken, Token};
use sha2::{Digest as _, Sha256};

/// The longest text that is scanned for a key, and the longest shape that is kept, in bytes.
pub const MAX_LENGTH: usize = 16 * 1024;
/// What the record of a function-call message has in place of a text begins with: the function's number
/// and, after a comma, its name follow.
pub const FUNCTION_CALL: &str = "-- a function-call message: function ";

/// What is said in place of a shape's id and text where a text is not understood.
pub const NOT_UNDERSTOOD: &str = "not understood";

thread_local! {
    static KEY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A statement without its constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The first 128 bits of SHA-256 of the whole shape.
    pub number: u128,
    /// PostgreSQL's grammar accepts the text.
    pub is_understood: bool,
    /// The shape's text, cut at [`MAX_LENGTH`].
    pub text: Box<str>,
}

impl Shape {
    /// The shape of what is not understood.
    pub fn not_understood() -> Self {
        Self { number: 0, is_understood: false, text: "".into() }
    }

    /// The shape of a function-call message, which has no text.
    pub fn function_call(function: &str) -> Self {
        let text = format!("function call: function {function}");
        Self { number: number(&text), is_understood: false, text: text.into() }
    }

    /// The shape's name in records: its number in hex, or [`NOT_UNDERSTOOD`].
    pub fn id(&self) -> String {
        if self.is_understood { format!("{:032x}", self.number) } else { NOT_UNDERSTOOD.to_owned() }
    }

    /// The shape of a text that PostgreSQL's grammar accepts.
    pub(crate) fn of(text: &str) -> Self {
        scan(text).map_or_else(Self::not_understood, |tokens| Self::of_tokens(text, &tokens))
    }

    fn of_tokens(text: &str, tokens: &[ScanToken]) -> Self {
        let mut shape = String::with_capacity(text.len().min(MAX_LENGTH));
        write_shape(text, tokens, &mut shape);
        let number = number(&shape);
        let end = (0..=shape.len().min(MAX_LENGTH)).rev().find(|&i| shape.is_char_boundary(i));
        shape.truncate(end.unwrap_or(0));
        Self { number, is_understood: true, text: shape.into() }
    }
}

/// Words after which a statement may leave something in its connection.
const STICKY: &[&str] = &[
    "advisory",
    "set_config",
    "setseed",
    "set_limit",
    "pg_export_snapshot",
    "pg_settings",
    "dblink",
    "pg_temp",
];

/// What the tokens of a text say that is one SELECT, INSERT, UPDATE or DELETE.
pub(crate) struct OneStatement {
    /// Its shape.
    pub shape: Shape,
    /// It may leave something in its connection.
    pub is_sticky: bool,
    /// Its words, each of which may be a name.
    pub words: BTreeSet<Box<str>>,
    /// Its operators.
    pub operators: BTreeSet<Box<str>>,
}

/// See [`OneStatement`]; `None` if the text may be something else.
pub(crate) fn one_statement(text: &str) -> Option<OneStatement> {
    let tokens = scan(text)?;
    let mut rest = tokens
        .iter()
        .filter(|t| !matches!(t.token(), Token::SqlComment | Token::CComment))
        .skip_while(|t| t.token() == Token::Ascii40);
    let reads = [Token::Select, Token::With, Token::Insert, Token::Update, Token::DeleteP, Token::Values];
    let first = rest.next().filter(|first| reads.contains(&first.token()))?;
    let (mut is_sticky, mut is_over, mut words) = (false, false, BTreeSet::new());
    let mut operators: BTreeSet<Box<str>> = BTreeSet::new();
    for token in std::iter::once(first).chain(rest) {
        let kind = token.token();
        if is_over {
            return None; // a second statement
        }
        is_over = kind == Token::Ascii59;
        let raw = place(token.start).zip(place(token.end)).and_then(|(start, end)| text.get(start..end))?;
        let lower = || raw.to_ascii_lowercase();
        let quoted = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        if let Some(name) = quoted {
            words.insert(name.replace("\"\"", "\"").into());
        } else if raw.starts_with(|c: char| c.is_alphabetic() || c == '_' || !c.is_ascii()) {
            if !matches!(kind, Token::Sconst | Token::Bconst | Token::Xconst | Token::Usconst) {
                words.insert(lower().into());
            }
        } else if raw.starts_with(|c| "+-*/<>=~!@#%^&|`?".contains(c)) {
            operators.insert(raw.into());
        }
        is_sticky |= match kind {
            Token::Temp | Token::Temporary | Token::Uident => true,
            Token::Ident => STICKY.iter().any(|word| lower().contains(word)),
            _ => false,
        };
    }
    // These have words.
    operators.extend(["=", "<", ">", "<=", ">=", "~~", "!~~", "~~*", "!~~*", "~"].map(Into::into));
    let mut shape = Shape::of_tokens(text, &tokens);
    shape.is_understood = true;
    Some(OneStatement { shape, is_sticky, words, operators })
}

/// The id that counts have for a text that the gateway understood, under whatever settings. A reader
/// compares them with the store's own log by it.
pub fn id(text: &str) -> String {
    Shape::of(text).id()
}

/// A text with holes for its plain constants, made from the scanner's tokens. It recognises other texts of
/// the same key without a scan: all of them have the same tokens but for the values in the holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// What stands before each hole, and the hole.
    holes: Vec<(Box<str>, Hole)>,
    /// What stands behind the last hole.
    rest: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    /// One to nine digits: an integer constant of any PostgreSQL version.
    Digits,
    /// A quoted constant without a quote or a backslash in it.
    Quoted,
}

/// How many digits a hole takes.
const DIGITS: usize = 9;

impl Template {
    /// The template of a text; `None` if its key is its own, or if it is long.
    pub(crate) fn of(text: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let tokens = scan(text)?;
        let own = [Token::Uident, Token::Usconst, Token::Uescape, Token::FloatP];
        if tokens.iter().any(|token| own.contains(&token.token())) {
            return None;
        }
        let (mut holes, mut at) = (Vec::new(), 0);
        for token in &tokens {
            let (start, end) = (place(token.start)?, place(token.end)?);
            let raw = text.get(start..end)?;
            let hole = match token.token() {
                Token::Iconst if digits(raw) == Some(raw.len()) => Hole::Digits,
                Token::Sconst if quoted(raw) == Some(raw.len()) => Hole::Quoted,
                _ => continue,
            };
            holes.push((text.get(at..start)?.into(), hole));
            at = end;
        }
        Some(Self { holes, rest: text.get(at..)?.into() })
    }

    /// Whether a text is this one but for what is in the holes.
    pub(crate) fn fits(&self, text: &str) -> bool {
        let mut left = text;
        for (before, hole) in &self.holes {
            let Some(from) = left.strip_prefix(&**before) else { return false };
            let taken = match hole {
                Hole::Digits => digits(from),
                Hole::Quoted => quoted(from),
            };
            let Some(taken) = taken else { return false };
            left = &from[taken..];
        }
        *left == *self.rest
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        self.rest.len() + self.holes.iter().map(|(before, _)| before.len() + 32).sum::<usize>()
    }
}

/// How many bytes the digits take that a text begins with.
fn digits(text: &str) -> Option<usize> {
    let count = text.bytes().take_while(u8::is_ascii_digit).count();
    (1..=DIGITS).contains(&count).then_some(count)
}

/// How many bytes the quoted constant takes that a text begins with.
fn quoted(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let end = inner.bytes().position(|b| b == b'\'' || b == b'\\')?;
    (inner.as_bytes()[end] == b'\'').then_some(end + 2)
}

fn number(shape: &str) -> u128 {
    Sha256::digest(shape).iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Calls `with` with the text's key.
pub fn with_key<T>(text: &str, with: impl FnOnce(&str) -> T) -> T {
    if text.len() > MAX_LENGTH || !has_constants(text) {
        return with(text);
    }
    KEY.with_borrow_mut(|key| {
        key.clear();
        let is_written = scan(text).is_some_and(|tokens| write_key(text, &tokens, key));
        if is_written { with(key) } else { with(text) }
    })
}

/// libpg_query's fingerprint, by which logs of before 2026-11-29 name shapes.
pub fn fingerprint(text: &str) -> String {
    let options = pg_query::FingerprintOptions::FULL_RELNAME;
    pg_query::fingerprint(text, pg_query::ParserOptions::default(), options)
        .map_or_else(|_| NOT_UNDERSTOOD.to_owned(), |f| f.hex)
}

/// Whether a text may have a constant or a comment. Each constant has a digit or a quote, or begins
/// with a dollar sign; each comment has one of two pairs of characters.
fn has_constants(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().any(|b| matches!(b, b'0'..=b'9' | b'\'' | b'$'))
        || bytes.windows(2).any(|pair| pair == b"--" || pair == b"/*")
}

/// The tokens of a text, if they cover everything but white space.
fn scan(text: &str) -> Option<Vec<ScanToken>> {
    if is_white(text) {
        return Some(Vec::new()); // pg_query makes a slice of a null pointer where there is no token
    }
    let tokens = pg_query::scan_tokens(text).ok()?;
    let mut at = 0;
    for token in &tokens {
        let gap = text.get(at..place(token.start)?)?;
        if !is_white(gap) || token.end <= token.start {
            return None;
        }
        at = place(token.end)?;
    }
    text.get(at..).is_some_and(is_white).then_some(tokens)
}

fn place(at: i32) -> Option<usize> {
    usize::try_from(at).ok()
}

pub(crate) fn is_white(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c))
}

/// A constant's placeholder, of the same kind.
fn placeholder(token: Token) -> Option<&'static str> {
    match token {
        Token::Sconst => Some("''"),
        Token::Iconst => Some("0"),
        Token::Fconst => Some("0.0"),
        Token::Bconst => Some("b''"),
        Token::Xconst => Some("x''"),
        _ => None,
    }
}

/// Writes the text with a placeholder for each constant and a space for each comment. False if the
/// text has something that can be read in two ways.
fn write_key(text: &str, tokens: &[ScanToken], key: &mut String) -> bool {
    let mut at = 0;
    for token in tokens {
        let (Some(start), Some(end)) = (place(token.start), place(token.end)) else { return false };
        let (Some(gap), Some(raw)) = (text.get(at..start), text.get(start..end)) else { return false };
        key.push_str(gap);
        match token.token() {
            // The grammar refuses some values of n in float(n).
            Token::Uident | Token::Usconst | Token::Uescape | Token::FloatP => return false,
            Token::SqlComment | Token::CComment => key.push(' '),
            kind => key.push_str(placeholder(kind).unwrap_or(raw)),
        }
        at = end;
    }
    key.push_str(text.get(at..).unwrap_or_default());
    true
}

/// Writes the tokens with one space between them. A list of constants has the length one.
fn write_shape(text: &str, tokens: &[ScanToken], shape: &mut String) {
    let mut written: Vec<usize> = Vec::new();
    let mut after_uescape = false;
    for token in tokens {
        let kind = token.token();
        if matches!(kind, Token::SqlComment | Token::CComment) {
            continue;
        }
        let raw = place(token.start).zip(place(token.end)).and_then(|(start, end)| text.get(start..end));
        let raw = raw.unwrap_or_default();
        let is_constant = placeholder(kind).is_some() || kind == Token::Usconst;
        if !shape.is_empty() {
            shape.push(' ');
        }
        written.push(shape.len());
        match kind {
            // The character behind UESCAPE is part of the name before it.
            _ if after_uescape => shape.push_str(raw),
            _ if is_constant => shape.push('?'),
            Token::Ident if raw.starts_with('"') => shape.push_str(raw),
            Token::Uident => shape.push_str(raw),
            _ => shape.extend(raw.chars().map(|c| c.to_ascii_lowercase())),
        }
        after_uescape = kind == Token::Uescape;
        collapse(shape, &mut written);
    }
}

/// `? , ?` at the end becomes `?`, and `( ? ) , ( ? )` becomes `( ? )`.
fn collapse(shape: &mut String, written: &mut Vec<usize>) {
    for pattern in [["?", ",", "?"].as_slice(), &["(", "?", ")", ",", "(", "?", ")"]] {
        let Some(first) = written.len().checked_sub(pattern.len()) else { continue };
        let word = |n: usize| {
            let end = written.get(n + 1).map_or(shape.len(), |next| next - 1);
            &shape[written[n]..end]
        };
        if pattern.iter().enumerate().all(|(n, expected)| word(first + n) == *expected) {
            let keep = first + pattern.len() / 2;
            shape.truncate(written[keep] - 1);
            written.truncate(keep);
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
    fn constants_and_comments_do_not_count_and_everything_else_does() {
        for (text, expected) in [
            ("select a from t where id = 17 and b = 'it''s'", "select a from t where id = 0 and b = ''"),
            ("select 1.5, -3, 7::int8, t1.c2, $1", "select 0.0, -0, 0::int8, t1.c2, $1"),
            ("select \"a 1\" from \"t\"\"2\"", "select \"a 1\" from \"t\"\"2\""),
            ("naïve1 2", "naïve1 0"),
            ("select $$ 17 $$, $a$ b $a$", "select '', ''"),
            ("select 17 -- 17", "select 0  "),
            ("select /* 17 */ 17", "select   0"),
            ("select E'a\\'b' , 17", "select '' , 0"),
            ("select B'101', X'1F'", "select b'', x''"),
            ("select 'a'\n 'b' 'c'", "select '' ''"),
        ] {
            assert_eq!(key(text), expected, "{text}");
        }
        assert_ne!(key("select a1"), key("select a2"));
        assert_ne!(key("select $1"), key("select $2"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_its_own_key() {
        for text in [
            "select 1 from U&\"!0075sers\" UESCAPE '!'",
            "select 1 from u&\"d\\0061ta\"",
            "select U&'d', 17",
            "select 'open 17",
            "select \"open 17",
            "select 1a",
        ] {
            assert_eq!(key(text), text);
        }
    }

    #[test]
    fn a_template_fits_what_differs_in_plain_constants() {
        let template = Template::of("select a from t where id = 17 and b = 'x' limit 3").unwrap();
        for text in [
            "select a from t where id = 4 and b = '' limit 100",
            "select a from t where id = 123456789 and b = 'a b' limit 0",
        ] {
            assert!(template.fits(text), "{text}");
            assert_eq!(key(text), key("select a from t where id = 17 and b = 'x' limit 3"));
        }
        for text in [
            "select a from t where id = 1234567890 and b = '' limit 1",
            "select a from t where id = 1 and b = 'a''b' limit 1",
            "select a from t where id = 1 and b = 'a\\' limit 1",
            "select a from t where id = -1 and b = 'a' limit 1",
            "select a from t where id = 1 and b = 'a' limit 1;",
            "select a from t where id = 0x1 and b = 'a' limit 1",
            "select a from t where id =  and b = 'a' limit 1",
            "select b from t where id = 1 and b = 'a' limit 1",
        ] {
            assert!(!template.fits(text), "{text}");
        }
        assert!(Template::of("select 1 from U&\"a\"").is_none());
    }

    #[test]
    fn a_shape_ignores_layout_and_lengths_of_lists() {
        let text = |sql: &str| Shape::of(sql).text.to_string();
        assert_eq!(text("SELECT a FROM T where id IN (1, 2,3)"), "select a from t where id in ( ? )");
        assert_eq!(text("insert into t values (1,'a'),(2, 'b') -- c"), "insert into t values ( ? )");
        assert_eq!(text("select \"A\", u&\"!0061\" uescape '!'"), "select \"A\" , u&\"!0061\" uescape '!'");
        assert_eq!(Shape::of("select 1 /* x */").number, Shape::of("select  2").number);
        assert_ne!(
            Shape::of("select u&\"@0061\" uescape '@'").number,
            Shape::of("select u&\"@0061\" uescape '!'").number
        );
        // libpg_query's fingerprint does not see what lies this deep; a shape does.
        let deep = |inner: &str| format!("select ({inner}){}", "||''".repeat(200));
        let (a, b) = (deep("select email from users"), deep("select title from videos"));
        assert_ne!(Shape::of(&a).number, Shape::of(&b).number);
        assert!(Shape::of(&format!("select 1 /* {} */", "x".repeat(20_000))).text.len() < 20);
    }
}
