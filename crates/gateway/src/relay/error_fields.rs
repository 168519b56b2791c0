//! Which texts of the store may reach a client whose access is governed or metered.
//!
//! An error, a notice, a notification or a reported parameter can carry values of rows, past every
//! limit that counts rows. So such a message passes whole only if
//! - it comes at Parse or Bind, or has a position in the client's text and quotes that text: no row was
//!   read for it; or
//! - it is one of PostgreSQL's own sentences ([`SENTENCES`]) around names and constants that stand in
//!   the client's own text, whole.
//!
//! Any other message keeps its severity, its SQLSTATE and the names of schema, table, column, type and
//! constraint that are known to the client. The rest is replaced. Pure.

use ringfence_statement::words::Words;

use crate::frame::{fields, put, put_str};
use crate::refusal::field;

/// Sentences of PostgreSQL (15 to 18) that executing a statement can end with. `{}` is a name or a
/// constant of the client's own text, `{type}` the name of a type.
const SENTENCES: &[&str] = &[
    "bigint out of range",
    "canceling statement due to conflict with recovery",
    "canceling statement due to lock timeout",
    "canceling statement due to statement timeout",
    "canceling statement due to user request",
    "cannot execute {} in a read-only transaction",
    "could not serialize access due to concurrent update",
    "could not serialize access due to read/write dependencies among transactions",
    "current transaction is aborted, commands ignored until end of transaction block",
    "cursor \"{}\" already exists",
    "cursor \"{}\" does not exist",
    "cursor can only scan forward",
    "date/time field value out of range: \"{}\"",
    "deadlock detected",
    "division by zero",
    "integer out of range",
    "interval out of range",
    "invalid input syntax for type {type}: \"{}\"",
    "invalid input value for enum {}: \"{}\"",
    "invalid value for parameter \"{}\": \"{}\"",
    "more than one row returned by a subquery used as an expression",
    "negative substring length not allowed",
    "numeric field overflow",
    "out of memory",
    "out of shared memory",
    "parameter \"{}\" cannot be changed now",
    "parameter \"{}\" cannot be changed without restarting the server",
    "permission denied for function {}",
    "permission denied for schema {}",
    "permission denied for sequence {}",
    "permission denied for table {}",
    "permission denied for view {}",
    "permission denied to set parameter \"{}\"",
    "portal \"{}\" cannot be run",
    "portal \"{}\" does not exist",
    "prepared statement \"{}\" already exists",
    "prepared statement \"{}\" does not exist",
    "relation \"{}\" does not exist",
    "savepoint \"{}\" does not exist",
    "schema \"{}\" does not exist",
    "smallint out of range",
    "terminating connection due to administrator command",
    "terminating connection due to conflict with recovery",
    "terminating connection due to idle-in-transaction timeout",
    "terminating connection due to idle-session timeout",
    "terminating connection due to transaction timeout",
    "terminating connection because of crash of another server process",
    "there is already a transaction in progress",
    "there is no transaction in progress",
    "type \"{}\" does not exist",
    "unrecognized configuration parameter \"{}\"",
    "value \"{}\" is out of range for type {type}",
    "value out of range: overflow",
    "value out of range: underflow",
    "SAVEPOINT can only be used in transaction blocks",
    "ROLLBACK TO SAVEPOINT can only be used in transaction blocks",
    "RELEASE SAVEPOINT can only be used in transaction blocks",
    "DECLARE CURSOR can only be used in transaction blocks",
    "SET LOCAL can only be used in transaction blocks",
    "SET TRANSACTION can only be used in transaction blocks",
    "SET TRANSACTION ISOLATION LEVEL must be called before any query",
    "unnamed prepared statement does not exist",
    "the database system is shutting down",
];

/// Names of types as PostgreSQL writes them (`format_type`).
const TYPES: &[&str] = &[
    "bigint",
    "bit",
    "boolean",
    "bytea",
    "character",
    "character varying",
    "cidr",
    "date",
    "double precision",
    "inet",
    "integer",
    "interval",
    "json",
    "jsonb",
    "macaddr",
    "money",
    "numeric",
    "oid",
    "real",
    "smallint",
    "text",
    "time",
    "time with time zone",
    "time without time zone",
    "timestamp",
    "timestamp with time zone",
    "timestamp without time zone",
    "uuid",
    "xml",
];

/// What SQLSTATEs mean (PostgreSQL manual, Appendix A), those that reading meets most.
const MEANINGS: &[(&str, &str)] = &[
    ("0A000", "feature not supported"),
    ("21000", "cardinality violation"),
    ("22001", "string data right truncation"),
    ("22003", "numeric value out of range"),
    ("22007", "invalid datetime format"),
    ("22008", "datetime field overflow"),
    ("2200G", "most specific type mismatch"),
    ("22011", "substring error"),
    ("22012", "division by zero"),
    ("22021", "character not in repertoire"),
    ("22023", "invalid parameter value"),
    ("22025", "invalid escape sequence"),
    ("22030", "duplicate JSON object key value"),
    ("22032", "invalid JSON text"),
    ("2201B", "invalid regular expression"),
    ("2202E", "array subscript error"),
    ("22P02", "invalid text representation"),
    ("22P03", "invalid binary representation"),
    ("23505", "unique violation"),
    ("23514", "check violation"),
    ("3F000", "invalid schema name"),
    ("42501", "insufficient privilege"),
    ("42601", "syntax error"),
    ("42602", "invalid name"),
    ("42704", "undefined object"),
    ("42846", "cannot coerce"),
    ("42883", "undefined function"),
    ("42P01", "undefined table"),
    ("53400", "configuration limit exceeded"),
    ("54000", "program limit exceeded"),
    ("54001", "statement too complex"),
];

/// What a client may read of a message with fields.
#[derive(Debug, PartialEq, Eq)]
pub enum Judged {
    /// All of it.
    Whole,
    /// One of PostgreSQL's sentences with a constant of the client's own text in it: so the client
    /// learns that a value equals it. This message takes its place: without what the sentence does not
    /// cover.
    Sentence(Vec<u8>),
    /// This message takes its place.
    Reduced(Vec<u8>),
}

/// Judges an ErrorResponse or a NoticeResponse (`tag`). `is_before_rows` says that it answers a Parse or
/// a Bind; `texts` are those that the client runs, `words` the names and constants that it knows.
pub fn judge(tag: u8, body: &[u8], is_before_rows: bool, texts: &[&str], words: &Words) -> Judged {
    // Where a function ran SQL of its own, the position and the text are of that.
    let is_internal = field(body, b'q').is_some() || field(body, b'p').is_some();
    let message = field(body, b'M').and_then(|m| std::str::from_utf8(m).ok()).unwrap_or_default();
    // Input functions of types parse values, too (`'…'::regtype`): their errors have a context.
    let is_of_text = field(body, b'P').is_some() && field(body, b'W').is_none();
    // Code of others that runs while a text is parsed or planned says what it likes. A parameter that cannot be
    // read has a context of its own.
    let is_of_client = field(body, b'C') != Some(b"P0001") && field(body, b'W').is_none_or(is_of_parameter);
    let is_whole = is_before_rows && is_of_client || is_of_text && quotes_only(message, texts, words);
    if !is_internal && is_whole {
        return Judged::Whole;
    }
    let is_sentence = !is_internal && SENTENCES.iter().any(|sentence| fits(sentence, message, words));
    let code = field(body, b'C').and_then(|c| std::str::from_utf8(c).ok()).unwrap_or("XX000");
    let mut out = Vec::with_capacity(body.len().min(512));
    put(&mut out, tag, |out| {
        for (name, text) in fields(body) {
            let is_kept = match name {
                b'S' | b'V' | b'C' => true,
                b's' | b't' | b'c' | b'd' | b'n' => {
                    std::str::from_utf8(text).is_ok_and(|text| words.contains(text) || TYPES.contains(&text))
                }
                b'M' => is_sentence,
                _ => false,
            };
            if is_kept {
                out.push(name);
                out.extend_from_slice(text);
                out.push(0);
            }
        }
        if !is_sentence {
            let meaning = MEANINGS.iter().find(|(known, _)| *known == code).map(|(_, meaning)| meaning);
            out.push(b'M');
            put_str(
                out,
                &match meaning {
                    Some(meaning) => format!("{meaning} (the store's own text is withheld)"),
                    None => format!("SQLSTATE {code} (the store's own text is withheld)"),
                },
            );
            out.push(b'D');
            put_str(
                out,
                "The text quotes what is not in your statement; it may show data that you do not see.",
            );
            out.push(b'H');
            put_str(
                out,
                "Look at casts, functions and subqueries of the statement one by one; a Parse message \
                 (PREPARE) checks names and types without reading a row.",
            );
        }
        out.push(0);
    });
    if is_sentence { Judged::Sentence(out) } else { Judged::Reduced(out) }
}

/// Whether an error's context says that a parameter could not be read.
pub fn is_of_parameter(context: &[u8]) -> bool {
    context.starts_with(b"unnamed portal parameter ") || context.starts_with(b"portal \"")
}

/// The longest message that can be a sentence, in bytes: each of its ends is tried.
const MAX_SENTENCE: usize = 4096;

/// Whether all that a message quotes stands in the client's texts, or is a name that it knows.
fn quotes_only(message: &str, texts: &[&str], words: &Words) -> bool {
    let is_quoted = |quoted: &str| {
        let lower = quoted.to_ascii_lowercase();
        quoted.split('.').all(|part| words.contains(part))
            || texts.iter().any(|text| text.contains(quoted) || text.to_ascii_lowercase().contains(&lower))
    };
    message.split('"').skip(1).step_by(2).all(is_quoted)
}

/// Whether a message is this sentence around words that the client knows. All of it is then either
/// PostgreSQL's own text or known.
fn fits(sentence: &str, message: &str, words: &Words) -> bool {
    if message.len() > MAX_SENTENCE {
        return false;
    }
    let Some(at) = sentence.find('{') else { return sentence == message };
    let Some(rest) = message.strip_prefix(&sentence[..at]) else { return false };
    let end = at + sentence[at..].find('}').map_or(0, |end| end + 1);
    let (slot, after) = (&sentence[at..end], &sentence[end..]);
    let is_known = |word: &str| {
        words.contains(word) || slot == "{type}" && TYPES.contains(&word) || slot == "{}" && word.is_empty()
    };
    // The slot ends where the rest of the sentence begins; which place that is, all are tried.
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.into_iter().any(|end| is_known(&rest[..end]) && fits(after, &rest[end..], words))
}

/// Reported parameters (GUC_REPORT) whose values a client's text can choose freely.
const FREE_PARAMETERS: &[&str] = &["application_name", "timezone", "search_path", "session_authorization"];

/// Whether a ParameterStatus may pass: each part of a free value must stand in the client's own text.
pub fn parameter_passes(name: &str, value: &str, words: &Words) -> bool {
    let is_free = FREE_PARAMETERS.iter().any(|free| free.eq_ignore_ascii_case(name));
    let is_known = |word: &str| word.is_empty() || words.iter().any(|known| known.eq_ignore_ascii_case(word));
    !is_free || is_known(value) || value.split(", ").all(|part| is_known(part.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(all: &[(u8, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, text) in all {
            out.push(*name);
            put_str(&mut out, text);
        }
        out.push(0);
        out
    }

    fn words(all: &[&str]) -> Words {
        all.iter().map(|w| (*w).to_owned()).collect()
    }

    fn message(judged: &Judged) -> String {
        match judged {
            Judged::Whole => "whole".to_owned(),
            Judged::Sentence(out) | Judged::Reduced(out) => {
                String::from_utf8_lossy(field(&out[5..], b'M').unwrap()).into_owned()
            }
        }
    }

    fn error(text: &str) -> Vec<u8> {
        body(&[
            (b'S', "ERROR"),
            (b'V', "ERROR"),
            (b'C', "22P02"),
            (b'M', text),
            (b'W', "JSON data, line 1: \"a@b\""),
        ])
    }

    #[test]
    fn a_value_passes_only_where_the_client_wrote_it() {
        let known = words(&["x", "abc", "a", "b"]);
        let judged =
            judge(b'E', &error("invalid input syntax for type integer: \"abc\""), false, &[], &known);
        assert_eq!(message(&judged), "invalid input syntax for type integer: \"abc\"");
        assert!(matches!(&judged, Judged::Sentence(out) if !String::from_utf8_lossy(out).contains("a@b")));
        for text in [
            "invalid input syntax for type integer: \"derek@example.com\"",
            "invalid input syntax for type integer: \"a b\"",
            "invalid input syntax for type integer: \"x\" derek@example.com \"x\"",
            "invalid input syntax for type integer: \"x\"y",
            "relation \"derek@example_com\" does not exist",
            "operator does not exist: derek",
            "date field value out of range: 1931-07-19",
            "requested character too large for encoding: 4711",
            "derek",
            "",
        ] {
            let judged = judge(b'E', &error(text), false, &[], &known);
            let Judged::Reduced(out) = &judged else { panic!("{text}") };
            let out = String::from_utf8_lossy(out);
            assert!(!out.contains("derek") && !out.contains("1931") && !out.contains("4711"), "{out}");
            assert!(out.contains("C22P02\0") && out.contains("SERROR\0"), "{out}");
        }
    }

    #[test]
    fn what_comes_before_any_row_passes_whole() {
        let known = words(&[]);
        let at_parse = body(&[(b'C', "42703"), (b'M', "column \"nme\" does not exist"), (b'P', "8")]);
        assert_eq!(judge(b'E', &at_parse, false, &["select nme"], &known), Judged::Whole);
        // A type's input function has parsed a value.
        let of_value = body(&[
            (b'C', "42601"),
            (b'M', "syntax error at or near \"@\""),
            (b'W', "invalid type name \"derek@example.com\""),
            (b'P', "6"),
        ]);
        assert!(matches!(judge(b'E', &of_value, false, &["select '@'"], &known), Judged::Reduced(_)));
        let of_other = body(&[(b'C', "42601"), (b'M', "syntax error at or near \"derek\""), (b'P', "6")]);
        assert!(matches!(judge(b'E', &of_other, false, &["select 1"], &known), Judged::Reduced(_)));
        let at_bind = body(&[(b'C', "22P02"), (b'M', "invalid input syntax for type integer: \"z\"")]);
        assert_eq!(judge(b'E', &at_bind, true, &[], &known), Judged::Whole);
        let inner =
            body(&[(b'C', "42703"), (b'M', "column \"nme\" does not exist"), (b'p', "8"), (b'q', "x")]);
        assert!(matches!(judge(b'E', &inner, true, &[], &known), Judged::Reduced(_)));
    }

    #[test]
    fn names_pass_where_the_client_knows_them() {
        let text = body(&[
            (b'C', "23514"),
            (b'M', "x"),
            (b's', "public"),
            (b't', "users"),
            (b'c', "derek"),
            (b'd', "integer"),
        ]);
        let judged = judge(b'E', &text, false, &[], &words(&["users", "public"]));
        let Judged::Reduced(out) = judged else { panic!() };
        let out = String::from_utf8_lossy(&out).into_owned();
        assert!(out.contains("tusers\0") && out.contains("dinteger\0") && !out.contains("derek"), "{out}");
    }

    #[test]
    fn a_parameter_says_nothing_new() {
        let known = words(&["psql", "utc"]);
        assert!(parameter_passes("application_name", "psql", &known));
        assert!(parameter_passes("TimeZone", "UTC", &known));
        assert!(!parameter_passes("application_name", "derek@example.com", &known));
        assert!(parameter_passes("DateStyle", "ISO, MDY", &known));
    }
}
