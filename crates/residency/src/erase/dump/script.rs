//! Reads SQL as pg_dump writes it (plain format, or pg_restore's output): definitions, and rows in COPY blocks.
//!
//! What pg_dump writes otherwise (rows as INSERT, large objects, several databases in one script) is refused, since nobody could say
//! whose rows it has. Function bodies and other quoted text may look like any of these; so quotes are followed
//! (PostgreSQL's manual, 4.1.2 "Constants").

use std::io::{self, BufRead, Read as _};

/// The longest line: a field of PostgreSQL has at most 1 GB.
const LONGEST: u64 = 1 << 30;
/// How pg_dump ends a script.
const END: &[u8] = b"-- PostgreSQL database dump complete";

/// A piece of a script, with its line's end.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Anything but rows, as it stands there.
    Text(&'a [u8]),
    /// The beginning of a table's rows.
    Copy(&'a Copy),
    /// One row: fields in COPY's text format, by tabs.
    Row(&'a [u8]),
}

/// The head of a COPY block.
#[derive(Debug, PartialEq, Eq)]
pub struct Copy {
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// Its columns, in the order of the fields.
    pub columns: Vec<String>,
    /// The line itself.
    pub line: Vec<u8>,
}

/// Where in SQL a line begins.
#[derive(Debug, PartialEq, Eq)]
enum Within {
    /// Between statements.
    Nothing,
    Statement,
    Quoted {
        by: u8,
        escapes: bool,
    },
    Dollars(Vec<u8>),
    Comment(u32),
}

/// Reads a script to its end. An error says in what way it is not a whole script of pg_dump's with rows by COPY.
pub fn read(mut script: impl BufRead, take: &mut dyn FnMut(Piece<'_>) -> io::Result<()>) -> io::Result<()> {
    let (mut line, mut within, mut is_whole) = (Vec::new(), Within::Nothing, false);
    while next(&mut script, &mut line)? {
        if within == Within::Nothing {
            if line.starts_with(b"COPY ") {
                let Some(copy) = copy(&line) else {
                    return Err(refused("a COPY that pg_dump does not write"));
                };
                take(Piece::Copy(&copy))?;
                rows(&mut script, &mut line, take)?;
                continue;
            }
            may_stand(&line)?;
            is_whole |= line.trim_ascii_end() == END;
        }
        within = follow(within, &line);
        take(Piece::Text(&line))?;
    }
    match (is_whole, within) {
        (true, Within::Nothing) => Ok(()),
        _ => Err(refused("it is cut, or not by pg_dump: its end is missing")),
    }
}

/// The rows of a block, to its end.
fn rows(
    script: &mut impl BufRead,
    line: &mut Vec<u8>,
    take: &mut dyn FnMut(Piece<'_>) -> io::Result<()>,
) -> io::Result<()> {
    while next(script, line)? {
        if line == b"\\.\n" {
            return take(Piece::Text(line));
        }
        take(Piece::Row(line))?;
    }
    Err(refused("it is cut in the middle of rows"))
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn next(script: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    script.by_ref().take(LONGEST).read_until(b'\n', line)?;
    match line.last() {
        None => Ok(false),
        Some(b'\n') => Ok(true),
        Some(_) if line.len() as u64 == LONGEST => Err(refused("it has a line of more than 1 GB")),
        Some(_) => Ok(true),
    }
}

/// Fails for a statement's first line where the statement has rows in another way than by COPY, or changes how the rest is read.
fn may_stand(line: &[u8]) -> io::Result<()> {
    let starts = |with: &[u8]| line.len() >= with.len() && line[..with.len()].eq_ignore_ascii_case(with);
    if starts(b"INSERT ") {
        return Err(refused("it has its rows as INSERT statements"));
    }
    if starts(b"SELECT pg_catalog.lo") || starts(b"SELECT lo") {
        return Err(refused("it has large objects"));
    }
    if starts(b"SET client_encoding = ") && !line.windows(4).any(|w| w == b"UTF8") {
        return Err(refused("it is in another encoding than UTF-8, so keys in it cannot be compared"));
    }
    if starts(b"SET standard_conforming_strings = off") {
        return Err(refused("its strings have backslashes in them"));
    }
    match line.strip_prefix(b"\\") {
        // pg_dump of August 2025 and later: nothing but what was between them runs as psql's own commands.
        Some(rest) if rest.starts_with(b"restrict ") || rest.starts_with(b"unrestrict ") => Ok(()),
        Some(rest) if rest.starts_with(b"connect ") => Err(refused("it has several databases")),
        Some(_) => Err(refused("it has commands for psql")),
        None => Ok(()),
    }
}

/// Where the next line begins.
fn follow(mut within: Within, line: &[u8]) -> Within {
    let mut at = 0;
    while at < line.len() {
        let (this, next) = (line[at], line.get(at + 1).copied());
        let mut step = 1;
        within = match within {
            Within::Nothing | Within::Statement => match (this, next) {
                (b'-', Some(b'-')) => return within,
                (b'/', Some(b'*')) => {
                    step = 2;
                    Within::Comment(1)
                }
                (b'\'' | b'"', _) => {
                    let escapes = this == b'\'' && at > 0 && matches!(line[at - 1], b'E' | b'e');
                    let escapes = escapes && (at < 2 || !is_word(line[at - 2]));
                    Within::Quoted { by: this, escapes }
                }
                (b'$', _) if at == 0 || !is_word(line[at - 1]) => match tag(&line[at..]) {
                    Some(tag) => {
                        step = tag.len();
                        Within::Dollars(tag.to_vec())
                    }
                    None => Within::Statement,
                },
                (b';', _) => Within::Nothing,
                _ if this.is_ascii_whitespace() => within,
                // A command of psql's is a line.
                (b'\\', _) if within == Within::Nothing => return within,
                _ => Within::Statement,
            },
            Within::Quoted { by, escapes } => {
                // A doubled quote ends one and begins the next.
                if escapes && this == b'\\' {
                    step = 2;
                }
                if this == by { Within::Statement } else { Within::Quoted { by, escapes } }
            }
            Within::Dollars(tag) => {
                if line[at..].starts_with(&tag) {
                    step = tag.len();
                    Within::Statement
                } else {
                    Within::Dollars(tag)
                }
            }
            Within::Comment(depth) => match (this, next) {
                (b'*', Some(b'/')) => {
                    step = 2;
                    if depth == 1 { Within::Statement } else { Within::Comment(depth - 1) }
                }
                (b'/', Some(b'*')) => {
                    step = 2;
                    Within::Comment(depth + 1)
                }
                _ => Within::Comment(depth),
            },
        };
        at += step;
    }
    within
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// `$…$` at the beginning.
fn tag(text: &[u8]) -> Option<&[u8]> {
    let end = text[1..].iter().position(|b| *b == b'$' || !is_word(*b))?;
    let is_tag = text[1 + end] == b'$' && !text[1].is_ascii_digit();
    is_tag.then(|| &text[..end + 2])
}

/// `COPY schema.table (a, b) FROM stdin;`
fn copy(line: &[u8]) -> Option<Copy> {
    let text = std::str::from_utf8(line).ok()?.trim_end().strip_prefix("COPY ")?;
    let (schema, text) = name(text)?;
    let (table, text) = name(text.strip_prefix('.')?)?;
    let mut text = text.trim_start();
    let mut columns = Vec::new();
    if let Some(mut list) = text.strip_prefix('(') {
        loop {
            let (column, rest) = name(list.trim_start())?;
            columns.push(column);
            match rest.strip_prefix(',') {
                Some(rest) => list = rest,
                None => break text = rest.strip_prefix(')')?.trim_start(),
            }
        }
    }
    (text == "FROM stdin;").then(|| Copy { schema, table, columns, line: line.to_vec() })
}

/// A name as SQL writes it, and what follows.
fn name(text: &str) -> Option<(String, &str)> {
    if let Some(mut rest) = text.strip_prefix('"') {
        let mut name = String::new();
        loop {
            let end = rest.find('"')?;
            name.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(more) => {
                    name.push('"');
                    rest = more;
                }
                None => return Some((name, rest)),
            }
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    const END: &str = "-- PostgreSQL database dump complete\n";

    fn read_all(script: &str) -> io::Result<Vec<String>> {
        let mut all = Vec::new();
        let mut again = Vec::new();
        read(script.as_bytes(), &mut |piece| {
            match piece {
                Piece::Text(text) => again.extend_from_slice(text),
                Piece::Copy(copy) => {
                    all.push(format!("{}.{}({})", copy.schema, copy.table, copy.columns.join(",")));
                    again.extend_from_slice(&copy.line);
                }
                Piece::Row(row) => {
                    all.push(String::from_utf8_lossy(row).trim_end().to_owned());
                    again.extend_from_slice(row);
                }
            }
            Ok(())
        })?;
        assert_eq!(String::from_utf8_lossy(&again), script, "what is read is what is given on");
        Ok(all)
    }

    #[test]
    fn rows_are_told_from_definitions() {
        let script = "\\restrict x\nSET a = 1;\nCREATE FUNCTION f() AS $_$\nINSERT INTO x;\nCOPY a.b FROM stdin;\n\\connect z\n$_$;\n\
            COMMENT ON TABLE t IS 'it''s\nCOPY a.c FROM stdin;\n';\n/* \nINSERT INTO y; /* */ \n*/ SELECT 1;\n\
            CREATE FUNCTION g() AS E'\\'\nINSERT INTO x;';\nCREATE VIEW v AS SELECT a$b$c FROM x;\n\
            COPY public.users (id, \"E \"\"mail\") FROM stdin;\n1\ta\n\\N\t\\\\.\n\\.\n\nCOPY public.empty  FROM stdin;\n\\.\n\n";
        let read = read_all(&format!("{script}{END}\n\\unrestrict x\n")).unwrap();
        assert_eq!(read, ["public.users(id,E \"mail)", "1\ta", "\\N\t\\\\.", "public.empty()"]);
    }

    #[test]
    fn what_nobody_could_sort_is_refused() {
        let refused = |script: &str, wanted: &str| {
            let error = read_all(script).unwrap_err().to_string();
            assert!(error.contains(wanted), "{script}: {error}");
        };
        refused(&format!("INSERT INTO public.users VALUES (1);\n{END}"), "INSERT");
        refused(&format!("SELECT pg_catalog.lo_create('1');\n{END}"), "large objects");
        refused(&format!("\\connect other\n{END}"), "several databases");
        refused(&format!("SET client_encoding = 'LATIN1';\n{END}"), "another encoding");
        refused(&format!("\\! rm x\n{END}"), "commands for psql");
        refused(&format!("COPY public.users FROM '/x';\n{END}"), "does not write");
        refused("COPY public.users (id) FROM stdin;\n1\n", "in the middle of rows");
        refused("CREATE TABLE x ();\n", "its end is missing");
        refused(&format!("COMMENT ON TABLE t IS 'x\n{END}"), "its end is missing");
    }
}
