//! Transaction pooling: what statements leave in a connection that the session needs later, so that it must keep the
//! connection; and the shared names of prepared statements.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use pg_query::NodeEnum;
use pg_query::protobuf::VariableSetKind;
use ringfence_statement::{carried, shape};

/// The most shapes that are remembered.
const REMEMBERED: usize = 20_000;
/// The most statements that have a shared name at one time.
const SHARED: usize = 50_000;

/// Functions that leave something in the session. Names are compared without their schema.
const STICKY_FUNCTIONS: &[&str] = &["set_config", "setseed", "pg_export_snapshot", "dblink_connect"];

/// Whether a statement leaves something in the connection that the session may rely on later: settings that are not carried
/// along, temporary tables, LISTEN, prepared statements and held cursors made in SQL, advisory locks of the session.
/// What is not understood does, too.
pub fn is_sticky(text: &str) -> bool {
    let Ok(parsed) = pg_query::parse(text, pg_query::ParserOptions::default()) else { return true };
    if text.to_ascii_lowercase().contains("pg_temp") {
        return true;
    }
    let sticky_function = parsed.functions().iter().any(|name| {
        let name = name.rsplit('.').next().unwrap_or(name);
        let advisory = name.contains("advisory") && !name.contains("_xact_") && !name.contains("unlock");
        advisory || STICKY_FUNCTIONS.contains(&name)
    });
    sticky_function
        || parsed
            .protobuf
            .stmts
            .iter()
            .any(|raw| raw.stmt.as_ref().and_then(|s| s.node.as_ref()).is_none_or(is_sticky_statement))
}

fn is_temporary(relation: Option<&pg_query::protobuf::RangeVar>) -> bool {
    relation.is_some_and(|r| r.relpersistence == "t")
}

/// `DECLARE … WITH HOLD` (`CURSOR_OPT_HOLD`, parsenodes.h).
const HOLD: i32 = 0x0020;

fn is_sticky_statement(statement: &NodeEnum) -> bool {
    match statement {
        NodeEnum::VariableSetStmt(set) => {
            let carried =
                carried::SETTINGS.iter().any(|s| s.eq_ignore_ascii_case(&set.name)) || set.name == "timezone";
            let transaction = set.kind() == VariableSetKind::VarSetMulti && set.name == "TRANSACTION";
            !(set.is_local || carried || transaction)
        }
        NodeEnum::ListenStmt(_)
        | NodeEnum::PrepareStmt(_)
        | NodeEnum::LoadStmt(_)
        | NodeEnum::DoStmt(_)
        | NodeEnum::CallStmt(_) => true,
        NodeEnum::DeclareCursorStmt(declare) => declare.options & HOLD != 0,
        NodeEnum::CreateStmt(create) => is_temporary(create.relation.as_ref()),
        NodeEnum::CreateSeqStmt(create) => is_temporary(create.sequence.as_ref()),
        NodeEnum::ViewStmt(create) => is_temporary(create.view.as_ref()),
        NodeEnum::CreateTableAsStmt(create) => {
            is_temporary(create.into.as_ref().and_then(|into| into.rel.as_ref()))
        }
        NodeEnum::SelectStmt(select) => {
            is_temporary(select.into_clause.as_ref().and_then(|into| into.rel.as_ref()))
        }
        _ => false,
    }
}

/// The name in a text that is one `DEALLOCATE name` and nothing else.
pub fn deallocated(text: &str) -> Option<String> {
    let word = |text: &str, word: &str| {
        let (front, rest) = (text.get(..word.len())?, text.get(word.len()..)?);
        let ends = rest.starts_with(|c: char| c.is_ascii_whitespace() || c == '"');
        (front.eq_ignore_ascii_case(word) && ends).then(|| rest.trim_start().to_owned())
    };
    let rest = word(text.trim(), "deallocate")?;
    let rest = word(&rest, "prepare").unwrap_or(rest);
    let name = rest.trim_end_matches(|c: char| c == ';' || c.is_ascii_whitespace());
    if let Some(quoted) = name.strip_prefix('"') {
        let inner = quoted.strip_suffix('"')?;
        let name = inner.replace("\"\"", "\0");
        return (!name.contains('"') && !name.is_empty()).then(|| name.replace('\0', "\""));
    }
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$');
    let is_name = plain && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (is_name && !name.eq_ignore_ascii_case("all")).then(|| name.to_ascii_lowercase())
}

/// What was found about texts.
#[derive(Default)]
pub struct Pins {
    known: Mutex<HashMap<Box<str>, bool>>,
}

impl Pins {
    /// [`is_sticky`], remembered by shape: no constant makes a statement sticky or not.
    pub fn is_sticky(&self, text: &str) -> bool {
        shape::with_key(text, |key| {
            if let Some(&known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
                return known;
            }
            let found = is_sticky(text);
            if key.len() <= shape::MAX_LENGTH {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(key.into(), found);
            }
            found
        })
    }
}

/// Numbers for prepared statements: the same for the same text and parameter types, whoever prepares it, so that a
/// connection prepares it once. A number is never given to another statement.
#[derive(Default)]
pub struct SharedNames {
    known: Mutex<HashMap<Box<[u8]>, u64>>,
    last: AtomicU64,
}

impl SharedNames {
    /// A number that nobody has.
    pub fn fresh(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The number of a Parse message's text and types.
    pub fn number(&self, definition: &[u8]) -> u64 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&number) = known.get(definition) {
            return number;
        }
        if known.len() >= SHARED {
            known.clear();
        }
        let number = self.fresh();
        known.insert(definition.into(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deallocate_of_one_name_is_one() {
        for (text, name) in [
            ("deallocate a", "a"),
            (" DEALLOCATE  Prepare \"_pg3_0\" ; ", "_pg3_0"),
            ("Deallocate\"A\"\"b\"", "A\"b"),
            ("DEALLOCATE Abc1;", "abc1"),
        ] {
            assert_eq!(deallocated(text).as_deref(), Some(name), "{text}");
        }
        for text in [
            "deallocate all",
            "deallocate",
            "deallocate a; deallocate b",
            "deallocate \"a\"; drop table \"b\"",
            "deallocatea",
            "deallocate 1a",
            "deallocate a -- x",
            "select 1",
            "déallocate a",
            "deallocate \"\"",
        ] {
            assert_eq!(deallocated(text), None, "{text}");
        }
    }

    #[test]
    fn what_lives_on_in_the_session_pins_it() {
        for text in [
            "LISTEN a",
            "SET search_path = x",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "RESET ALL",
            "RESET work_mem",
            "PREPARE a AS SELECT 1",
            "BEGIN; CREATE TEMP TABLE t (a int); COMMIT",
            "CREATE TEMP TABLE t AS SELECT 1",
            "SELECT 1 INTO TEMP t",
            "CREATE TEMP VIEW v AS SELECT 1",
            "CREATE TABLE pg_temp.t (a int)",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "SELECT pg_advisory_lock(1)",
            "SELECT * FROM t WHERE pg_catalog.pg_try_advisory_lock_shared(a)",
            "SELECT set_config('a.b', 'c', false)",
            "SET ROLE x",
            "DO $$ BEGIN END $$",
            "this is not SQL",
        ] {
            assert!(is_sticky(text), "{text}");
        }
    }

    #[test]
    fn what_ends_with_the_transaction_does_not() {
        for text in [
            "",
            "SELECT 1",
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "SET LOCAL search_path = x",
            "SET TRANSACTION READ ONLY",
            "SET application_name = 'x'",
            "SET TIME ZONE 'UTC'",
            "SET datestyle = 'ISO'",
            "DECLARE c CURSOR FOR SELECT 1",
            "SELECT pg_advisory_xact_lock(1)",
            "CREATE TABLE t (a int)",
            "INSERT INTO t VALUES (1) RETURNING a",
            "COPY t FROM STDIN",
            "DISCARD ALL",
            "NOTIFY a, 'b'",
        ] {
            assert!(!is_sticky(text), "{text}");
        }
    }

    #[test]
    fn the_same_statement_has_one_number() {
        let names = SharedNames::default();
        let one = names.number(b"SELECT 1\0\0\0");
        assert_ne!(one, names.number(b"SELECT 2\0\0\0"));
        assert_eq!(one, names.number(b"SELECT 1\0\0\0"));
    }
}
