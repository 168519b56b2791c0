//! Settings that a gateway carries from one connection to another in transaction pooling, and the statements with which it does
//! that: written here, and known again here by whoever reads the store's own log.

/// The settings.
pub const SETTINGS: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
];

/// What a gateway sends in the place of a `DEALLOCATE` of a statement that other sessions have, too: it does
/// nothing, and fails where any statement does.
pub const DEALLOCATE: &str = "UNLISTEN ringfence_nothing";

/// Adds the statement that sets `name` to `value`.
pub fn write_set(out: &mut String, name: &str, value: &str) {
    out.push_str("SET ");
    out.push_str(name);
    out.push_str(" = ");
    out.push_str(&literal(value));
    out.push(';');
}

/// Whether a text is nothing but such statements.
pub fn is_sets(text: &str) -> bool {
    let is_set = |statement: &str| {
        let words: Vec<&str> = statement.splitn(4, ' ').collect();
        matches!(words[..], ["SET", name, "=", value] if SETTINGS.contains(&name) && is_literal(value))
    };
    text.strip_suffix(';').is_some_and(|all| split(all).into_iter().all(is_set))
}

/// A value as SQL, whatever `standard_conforming_strings` and `client_encoding` are at the moment: only ASCII goes (PostgreSQL
/// shows other characters of an application's name as `?` itself), and where there is a backslash, as an escape string.
fn literal(value: &str) -> String {
    let ascii: String =
        value.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect();
    let quoted = ascii.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// Whether this is a literal as [`literal`] writes it: one that ends where it seems to, whatever the settings.
fn is_literal(text: &str) -> bool {
    let inner = |prefix: &str| text.strip_prefix(prefix).and_then(|t| t.strip_suffix('\''));
    let is_plain = |text: &str| text.is_ascii() && !text.contains(['\'', '\\']);
    if let Some(inner) = inner("E'") {
        return is_plain(&inner.replace("\\\\", "").replace("''", ""));
    }
    inner("'").is_some_and(|inner| is_plain(&inner.replace("''", "")))
}

/// Splits at the semicolons between literals. A doubled quote leaves a literal and enters it again; a backslash, which only
/// escape strings have, takes the next byte with it.
fn split(all: &str) -> Vec<&str> {
    let (mut parts, mut from, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in all.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'\'' => is_quoted = !is_quoted,
            b';' if !is_quoted => {
                parts.push(&all[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&all[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_ends_its_literal_and_what_is_written_is_known_again() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\'; select 1;--"), "E'\\\\''; select 1;--'");
        assert_eq!(literal("あ\\"), "E'?\\\\'");
        let mut text = String::new();
        for value in ["psql", "it's", "\\'; select 1;--", "x';SET a = 'b", "あ", "\\", "'"] {
            write_set(&mut text, "application_name", value);
            write_set(&mut text, "TimeZone", "UTC");
        }
        assert!(is_sets(&text), "{text}");
        for other in [
            "",
            "SET search_path = 'x';",
            "SET TimeZone = 'a';select 'b';",
            "SET TimeZone = 'UTC';SELECT 1;",
            "SET TimeZone = 'a' || 'b';",
            "SET application_name = '\\''; select 1;--';",
            "SET application_name = 'あ';",
        ] {
            assert!(!is_sets(other), "{other}");
        }
    }
}
