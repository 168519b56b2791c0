//! What a gateway says to a store of its own: to clean a connection, and as the steward that keeps faces.

use ringfence_statement::touched;

/// Settings that a gateway carries from one connection to another.
const CARRIED: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
];

/// Whether a text is one with which a gateway prepares a connection for the next session. None reads or changes data.
pub(super) fn prepares_connection(text: &str) -> bool {
    let is_set = |statement: &str| {
        let words: Vec<&str> = statement.splitn(4, ' ').collect();
        matches!(words[..], ["SET", name, "=", value] if CARRIED.contains(&name) && is_literal(value))
    };
    match text {
        "DISCARD ALL" | "ROLLBACK" | "RESET ROLE" | "" => true,
        _ => text.strip_suffix(';').is_some_and(|all| split_sets(all).into_iter().all(is_set)),
    }
}

/// Splits at `;SET `, which no literal that a gateway carries holds without its quotes doubled around it.
fn split_sets(all: &str) -> Vec<&str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    for (at, _) in all.match_indices("';SET ") {
        parts.push(&all[from..=at]);
        from = at + 2;
    }
    parts.push(&all[from..]);
    parts
}

/// Whether this is a literal as a gateway writes it: one that ends where it seems to, whatever the settings.
fn is_literal(text: &str) -> bool {
    let inner = |prefix: &str| text.strip_prefix(prefix).and_then(|t| t.strip_suffix('\''));
    let is_plain = |text: &str| text.is_ascii() && !text.contains(['\'', '\\']);
    if let Some(inner) = inner("E'") {
        return is_plain(&inner.replace("\\\\", "").replace("''", ""));
    }
    inner("'").is_some_and(|inner| is_plain(&inner.replace("''", "")))
}

/// Whether the steward may say this without reading user data: definitions, its own tables and the catalogue, and looks
/// that give back a constant or a count.
pub(super) fn is_stewards(text: &str) -> bool {
    let reached = touched::tables(text);
    let Some(reached) = reached else { return false };
    let is_own = |schema: &str, table: &str| {
        ["ringfence", "pg_catalog", "information_schema"].contains(&schema)
            || (schema.is_empty() && table.starts_with("pg_"))
    };
    reached.iter().all(|(schema, table)| is_own(schema, table)) || touched::gives_no_values(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_words_are_known_and_others_are_not() {
        for text in [
            "DISCARD ALL",
            "ROLLBACK",
            "SET TimeZone = 'UTC';",
            "SET application_name = 'it''s; x';SET DateStyle = 'ISO';",
        ] {
            assert!(prepares_connection(text), "{text}");
        }
        for text in [
            "DISCARD ALL; select 1",
            "SET search_path = 'x';",
            "SET TimeZone = 'a';select 'b';",
            "SET TimeZone = 'UTC';SELECT 1;",
            "SET TimeZone = 'a' || 'b';",
        ] {
            assert!(!prepares_connection(text), "{text}");
        }
        for text in [
            "CREATE VIEW rf_1.users AS SELECT id FROM public.users",
            "SELECT 1 FROM pg_namespace WHERE nspname = 'ringfence'",
            "INSERT INTO ringfence.faces (digest, spec) VALUES ($1, $2)",
            "SELECT 1 FROM public.users WHERE id = 3 LIMIT 0",
            "SELECT count(*) FROM (SELECT 1 FROM rf_1.users LIMIT 10) AS r",
            "GRANT SELECT ON TABLE public.users TO rf_1",
            "SET LOCAL lock_timeout = '10s'; SELECT pg_advisory_xact_lock(1)",
        ] {
            assert!(is_stewards(text), "{text}");
        }
        for text in [
            "SELECT email FROM users",
            "SELECT * FROM public.users",
            "COPY users TO STDOUT",
            "DELETE FROM users",
            "SELECT (SELECT email FROM users LIMIT 1)",
            "SELECT 1; SELECT email FROM users",
            "CREATE TABLE x AS SELECT * FROM users",
            "SELECT count(*), max(email) FROM users",
            "not sql",
            "DO $$ begin end $$",
            "CALL p()",
            "FETCH ALL FROM c",
            "SELECT query_to_xml('select * from users', true, true, '')",
            "SELECT pg_read_file('x')",
            "CREATE VIEW pg_x AS SELECT * FROM users; SELECT * FROM pg_x",
            "CREATE VIEW ringfence.v AS SELECT * FROM users",
            "SET log_statement = 'none'",
        ] {
            assert!(!is_stewards(text), "{text}");
        }
    }
}
