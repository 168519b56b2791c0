//! What a gateway says to a store of its own: to clean a connection, and as the steward that keeps faces.

use ringfence_statement::asked::{self, name};
use ringfence_statement::{carried, column_refs};

/// Whether a text is one with which a gateway prepares a connection for the next session. None reads or changes data.
pub(super) fn prepares_connection(text: &str) -> bool {
    matches!(text, "DISCARD ALL" | "ROLLBACK" | "RESET ROLE" | "") || carried::is_sets(text)
}

/// Whether a text is one with which a gateway counts, as a login, the rows of a table or whom they are about:
/// exactly as `face/steward.rs` writes it. It gives back numbers and nothing else.
pub(super) fn counts_rows(text: &str) -> bool {
    let inner = text.strip_prefix("SELECT count(*) FROM (").and_then(|t| t.strip_suffix(") AS r"));
    let of_table = |rest: &str| -> Option<()> {
        let rest = name(rest)?.1.strip_prefix('.')?;
        let limit = name(rest)?.1.strip_prefix(" LIMIT ")?;
        (!limit.is_empty() && limit.bytes().all(|b| b.is_ascii_digit())).then_some(())
    };
    let counts = |inner: &str| -> Option<()> {
        if let Some(rest) = inner.strip_prefix("SELECT 1 FROM ") {
            return of_table(rest);
        }
        let rest = inner.strip_prefix("SELECT DISTINCT ")?;
        let (key, after) = name(rest)?;
        let part = after.strip_prefix(" FROM (SELECT ")?.strip_prefix(key)?.strip_prefix(" FROM ")?;
        of_table(part.strip_suffix(") AS rows")?)
    };
    inner.and_then(counts).is_some() || asked::counts_people(text)
}

/// Whether a text stands for a `DEALLOCATE` that the gateway has on record.
pub(super) fn stands_for_deallocate(text: &str) -> bool {
    text == carried::DEALLOCATE
}

/// Whether the steward may say this without reading user data: definitions, its own tables and the catalogue, and looks
/// that give back a constant or a count.
pub(super) fn is_stewards(text: &str) -> bool {
    if asked::OF_CATALOGUE.contains(&text) {
        return true;
    }
    let reached = column_refs::tables(text);
    let Some(reached) = reached else { return false };
    let is_own = |schema: &str, table: &str| {
        ["ringfence", "pg_catalog", "information_schema"].contains(&schema)
            || (schema.is_empty() && table.starts_with("pg_"))
    };
    reached.iter().all(|(schema, table)| is_own(schema, table)) || column_refs::gives_no_values(text)
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
            "SELECT count(*) FROM (SELECT 1 FROM \"rf_1\".\"users\" LIMIT 10) AS r",
            "SELECT count(*) FROM (SELECT DISTINCT \"i\"\"d\" FROM (SELECT \"i\"\"d\" FROM \"a\".\"b\" LIMIT 5) AS rows) AS r",
        ] {
            assert!(counts_rows(text), "{text}");
        }
        for text in [
            "SELECT count(*) FROM (SELECT 1 FROM \"rf_1\".\"users\" WHERE email < 'm' LIMIT 10) AS r",
            "SELECT count(*) FROM (SELECT 1 FROM \"a\".\"b\" LIMIT 1) AS r; SELECT 1 FROM (SELECT 1) AS r",
            "SELECT count(*) FROM (SELECT f() FROM \"a\".\"b\" LIMIT 1) AS r",
            "SELECT count(*) FROM (SELECT DISTINCT \"a\" FROM (SELECT \"b\" FROM \"a\".\"b\" LIMIT 5) AS rows) AS r",
        ] {
            assert!(!counts_rows(text), "{text}");
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
