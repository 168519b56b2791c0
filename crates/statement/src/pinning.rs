//! What a statement leaves in a connection that its session may rely on later. In transaction pooling
//! such a session keeps its connection.

use pg_query::NodeEnum;
use pg_query::protobuf::{RawStmt, VariableSetKind};
use serde_json::Value;

use crate::carried;

/// Functions that leave something in the session. Names are compared without their schema.
const STICKY_FUNCTIONS: &[&str] = &["set_config", "setseed", "pg_export_snapshot", "set_limit"];

/// Parameters by which a text is analysed, or its constants are folded into a plan that is kept, beside those that
/// the gateway carries along. What is prepared or planned while one is set, for a transaction only as well,
/// keeps what it was read as.
const READ_BY: &[&str] = &[
    "transform_null_equals",
    "array_nulls",
    "xmloption",
    "xmlbinary",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "timezone_abbreviations",
    "extra_float_digits",
    "bytea_output",
    "default_text_search_config",
    "backslash_quote",
];

/// Whether a text leaves something in the connection: settings that are not carried along, temporary
/// tables, LISTEN, prepared statements and held cursors made in SQL, advisory locks of the session.
pub(crate) fn is_sticky(statements: &[RawStmt], tree: &Value) -> bool {
    names_sticky(tree)
        || statements
            .iter()
            .any(|raw| raw.stmt.as_ref().and_then(|s| s.node.as_ref()).is_none_or(is_sticky_statement))
}

/// Whether a function or a schema that is named anywhere makes it sticky. `u.name` can call a function,
/// too, so all names count; constants do not.
fn names_sticky(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(names_sticky),
        Value::Object(fields) => fields.iter().any(|(key, inner)| match (key.as_str(), inner) {
            ("Sval", _) => false,
            (kind, statement) if changes_pg_settings(kind, statement) => true,
            // What is made for the session only, wherever it stands: EXPLAIN makes it, too.
            ("relpersistence", persistence) if persistence == "t" => true,
            ("sval" | "schemaname", Value::String(text)) => {
                is_sticky_name(&text.to_ascii_lowercase())
                    || text.get(..7).is_some_and(|front| front.eq_ignore_ascii_case("pg_temp"))
            }
            _ => names_sticky(inner),
        }),
        _ => false,
    }
}

/// Whether a node changes the view `pg_settings`: that sets parameters, as SET does.
pub(crate) fn changes_pg_settings(kind: &str, statement: &Value) -> bool {
    ["UpdateStmt", "InsertStmt", "MergeStmt"].contains(&kind)
        && statement["relation"]["relname"] == "pg_settings"
}

fn is_sticky_name(name: &str) -> bool {
    let is_lock = name.contains("advisory") && !name.contains("_xact_") && !name.contains("unlock");
    is_lock || STICKY_FUNCTIONS.contains(&name) || name.starts_with("dblink_connect")
}

/// Whether a SET makes temporary tables of what a text creates without saying so.
fn leads_to_temporary(set: &pg_query::protobuf::VariableSetStmt) -> bool {
    let is_temporary = |arg: &pg_query::protobuf::Node| match &arg.node {
        Some(NodeEnum::AConst(constant)) => match &constant.val {
            Some(pg_query::protobuf::a_const::Val::Sval(text)) => {
                text.sval.to_ascii_lowercase().contains("pg_temp")
            }
            _ => false,
        },
        _ => true,
    };
    set.name.eq_ignore_ascii_case("search_path") && set.args.iter().any(is_temporary)
}

/// `DECLARE … WITH HOLD` (`CURSOR_OPT_HOLD`, parsenodes.h).
const HOLD: i32 = 0x0020;

fn is_sticky_statement(statement: &NodeEnum) -> bool {
    match statement {
        NodeEnum::VariableSetStmt(set) => {
            let carried =
                carried::SETTINGS.iter().any(|s| s.eq_ignore_ascii_case(&set.name)) || set.name == "timezone";
            let transaction = set.kind() == VariableSetKind::VarSetMulti && set.name == "TRANSACTION";
            let is_read_by = READ_BY.iter().any(|name| name.eq_ignore_ascii_case(&set.name));
            !(set.is_local || carried || transaction) || is_read_by || leads_to_temporary(set)
        }
        NodeEnum::ListenStmt(_)
        | NodeEnum::PrepareStmt(_)
        | NodeEnum::LoadStmt(_)
        | NodeEnum::DoStmt(_)
        | NodeEnum::CallStmt(_) => true,
        NodeEnum::DeclareCursorStmt(declare) => declare.options & HOLD != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    fn sticky(text: &str) -> bool {
        crate::analysis::Analysis::of(text, crate::settings::Settings::default()).is_sticky
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
            "SELECT * FROM U&\"pg\\005ftemp\".t",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "SELECT pg_advisory_lock(1)",
            "SELECT * FROM t WHERE pg_catalog.pg_try_advisory_lock_shared(a)",
            "SELECT set_config('a.b', 'c', false)",
            "SET ROLE x",
            "DO $$ BEGIN END $$",
            "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1",
            "explain analyze create temp table videos as select 1 as only_here",
            "EXPLAIN ANALYZE SELECT 1 INTO TEMP t",
            "SET LOCAL search_path = pg_temp, public",
            "SET LOCAL search_path = 'PG_TEMP_3'",
            "SET LOCAL transform_null_equals = on",
            "SET LOCAL Array_Nulls = off",
            "SELECT dblink_connect_u('a', 'b')",
            "this is not SQL",
        ] {
            assert!(sticky(text), "{text}");
        }
    }

    #[test]
    fn what_ends_with_the_transaction_does_not() {
        for text in [
            "",
            "SELECT 1",
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "SET LOCAL search_path = x",
            "SET LOCAL app.tenant = 'x'",
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
            assert!(!sticky(text), "{text}");
        }
    }
}
