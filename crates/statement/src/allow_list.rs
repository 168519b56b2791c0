//! What a governed person may send: an allow-list of statement kinds by PostgreSQL's own grammar
//! (libpg_query).
//!
//! This is the second wall. The first is the face's role, which may read its views and nothing else;
//! what this file lets through by mistake, the store still refuses. What the grammar does not
//! understand is refused here.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use pg_query::protobuf::{RawStmt, TransactionStmtKind, VariableSetKind, VariableSetStmt};
use serde_json::Value;

/// The longest statement of a governed person, in bytes.
pub const MAX_LENGTH: usize = 256 * 1024;
/// The longest `statement_timeout` that a governed person may set, in milliseconds.
pub const MAX_STATEMENT_TIMEOUT_MS: u64 = 60_000;

/// Why a statement is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAllowed {
    /// The grammar does not accept the text (SQLSTATE 42601); else a right is missing (42501).
    pub is_syntax: bool,
    /// What happened.
    pub message: String,
    /// Why.
    pub detail: Option<String>,
}

/// What the allow-list says of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it is refused, if it is.
    pub refused: Option<NotAllowed>,
    /// The names that stand in FROM, WITH queries included.
    pub tables: BTreeSet<String>,
    /// The columns that it names.
    pub columns: BTreeSet<String>,
    /// Whether it asks for all columns of something.
    pub all_columns: bool,
}

/// Kinds of node that may appear in a query. Everything else is refused, so what a newer grammar adds is, too.
const QUERY_NODES: &[&str] = &[
    "SelectStmt",
    "ResTarget",
    "ColumnRef",
    "AStar",
    "AConst",
    "AExpr",
    "BoolExpr",
    "FuncCall",
    "TypeCast",
    "TypeName",
    "String",
    "Integer",
    "Float",
    "Boolean",
    "BitString",
    "List",
    "RangeVar",
    "RangeSubselect",
    "RangeFunction",
    "RangeTableSample",
    "JoinExpr",
    "Alias",
    "SubLink",
    "CaseExpr",
    "CaseWhen",
    "CoalesceExpr",
    "MinMaxExpr",
    "NullTest",
    "BooleanTest",
    "RowExpr",
    "AArrayExpr",
    "AIndirection",
    "AIndices",
    "SortBy",
    "WindowDef",
    "GroupingSet",
    "GroupingFunc",
    "CommonTableExpr",
    "CollateClause",
    "ParamRef",
    "SqlvalueFunction",
    "NamedArgExpr",
    "ColumnDef",
];

/// Functions that run a query given as text, change the session, or reach beyond it. The store refuses most of them by
/// itself once it is prepared; names are compared without their schema.
const REFUSED_FUNCTIONS: &[&str] = &[
    "set_config",
    "setseed",
    "system_user",
    "ts_stat",
    "ts_rewrite",
    "pg_notify",
    "pg_cancel_backend",
    "pg_terminate_backend",
    "pg_read_file",
    "pg_read_binary_file",
    "pg_ls_dir",
    "pg_stat_file",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_switch_wal",
    "pg_export_snapshot",
    "pg_current_logfile",
    "currtid2",
    "nextval",
    "setval",
    "dblink",
    "crosstab",
];
const REFUSED_PREFIXES: &[&str] = &[
    "query_to_xml",
    "table_to_xml",
    "cursor_to_xml",
    "schema_to_xml",
    "database_to_xml",
    "lo_",
    "loread",
    "lowrite",
    "pg_advisory_",
    "pg_try_advisory_",
    "pg_ls_",
    "pg_logical_",
    "pg_replication_",
    "pg_create_",
    "pg_drop_",
    "pg_copy_",
    "pg_backup_",
    "pg_wal_",
    "pg_stat_get_",
    "pg_stat_reset",
    "pg_log_",
    "pg_promote",
    "dblink_",
    "pg_event_trigger",
];

/// Settings that a governed person may change; others could change what the grammar means, or lift a limit.
const SETTINGS: &[&str] = &[
    "client_min_messages",
    "datestyle",
    "intervalstyle",
    "timezone",
    "extra_float_digits",
    "bytea_output",
    "application_name",
    "lock_timeout",
    "transaction",
    "transaction_isolation",
    "xmloption",
    "geqo",
    "jit",
];

fn refused(what: &str, why: &str) -> Verdict {
    let message = format!("{what} not allowed through a face");
    let refused = NotAllowed { is_syntax: false, message, detail: Some(why.to_owned()) };
    Verdict { refused: Some(refused), ..Verdict::default() }
}

/// The verdict on a text that is longer than [`MAX_LENGTH`].
pub(crate) fn too_long() -> Verdict {
    refused("A statement this long is", "The gateway reads at most 256 KiB of SQL from governed persons.")
}

/// The verdict on a text that cannot be parsed.
pub(crate) fn not_parsed(error: &pg_query::Error) -> Verdict {
    match error {
        pg_query::Error::Parse(message) => {
            let refused = NotAllowed { is_syntax: true, message: message.clone(), detail: None };
            Verdict { refused: Some(refused), ..Verdict::default() }
        }
        _ => not_judged(),
    }
}

/// The verdict on a text that the gateway cannot read as the store does.
pub(crate) fn not_judged() -> Verdict {
    refused(
        "A statement that cannot be read is",
        "It is nested too deeply, or a setting under way may change how it is read; so it is not run.",
    )
}

/// Judges a text, which may hold several statements. `tree` is their serialised form.
pub(crate) fn judge(statements: &[RawStmt], tree: &Value) -> Verdict {
    let mut verdict = Verdict::default();
    for (n, raw) in statements.iter().enumerate() {
        let Some(node) = raw.stmt.as_ref().and_then(|s| s.node.as_ref()) else { continue };
        let value = &tree["stmts"][n]["stmt"]["node"];
        if let Err(refused) = statement(node, value, &mut verdict) {
            return *refused;
        }
    }
    verdict
}

type Judged = Result<(), Box<Verdict>>;

fn no(what: &str, why: &str) -> Judged {
    Err(Box::new(refused(what, why)))
}

fn statement(node: &NodeEnum, value: &Value, verdict: &mut Verdict) -> Judged {
    match node {
        NodeEnum::SelectStmt(_) => query(value, verdict),
        NodeEnum::CopyStmt(copy) => {
            let is_plain = !copy.is_from && !copy.is_program && copy.filename.is_empty();
            if copy.query.is_none() || !is_plain {
                return no(
                    "This COPY is",
                    "Only COPY (SELECT …) TO STDOUT is; a view's name or a file is not.",
                );
            }
            selects(&value["CopyStmt"]["query"]["node"], verdict)
        }
        NodeEnum::DeclareCursorStmt(_) => selects(&value["DeclareCursorStmt"]["query"]["node"], verdict),
        NodeEnum::PrepareStmt(_) => selects(&value["PrepareStmt"]["query"]["node"], verdict),
        NodeEnum::ExecuteStmt(_) => children(&value["ExecuteStmt"]["params"], verdict),
        NodeEnum::FetchStmt(_)
        | NodeEnum::ClosePortalStmt(_)
        | NodeEnum::DeallocateStmt(_)
        | NodeEnum::DiscardStmt(_)
        | NodeEnum::VariableShowStmt(_) => Ok(()),
        NodeEnum::TransactionStmt(transaction) => match transaction.kind() {
            TransactionStmtKind::TransStmtPrepare
            | TransactionStmtKind::TransStmtCommitPrepared
            | TransactionStmtKind::TransStmtRollbackPrepared
            | TransactionStmtKind::Undefined => no(
                "Two-phase commit is",
                "A prepared transaction outlives its session and can hold up the server.",
            ),
            _ => Ok(()),
        },
        NodeEnum::VariableSetStmt(set) => setting(set),
        NodeEnum::ExplainStmt(_) => {
            no("EXPLAIN is", "Plans show row filters and counts of rows that the face hides.")
        }
        other => no(&format!("{} is", kind_name(other)), "Only reading is."),
    }
}

/// The grammar's name of a statement, as in `InsertStmt` → `INSERT`.
fn kind_name(node: &NodeEnum) -> String {
    let debug = format!("{node:?}");
    let name = debug.split(['(', ' ']).next().unwrap_or("This statement");
    let name = name.trim_end_matches("Stmt");
    let mut words = String::new();
    for (i, c) in name.char_indices() {
        if i > 0 && c.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(c.to_ascii_uppercase());
    }
    words
}

fn selects(value: &Value, verdict: &mut Verdict) -> Judged {
    if value["SelectStmt"].is_object() {
        query(value, verdict)
    } else {
        no("This is", "A cursor, a prepared statement or a COPY must be of a SELECT.")
    }
}

fn setting(set: &VariableSetStmt) -> Judged {
    let name = set.name.to_ascii_lowercase();
    let why = "It could change what statements mean, or lift a limit.";
    let text = set.args.first().and_then(constant);
    match (set.kind(), name.as_str()) {
        (VariableSetKind::VarResetAll, _)
        | (
            VariableSetKind::VarSetDefault | VariableSetKind::VarReset,
            "client_encoding" | "statement_timeout",
        )
        | (VariableSetKind::VarSetMulti, "transaction") => Ok(()),
        (VariableSetKind::VarSetValue, "client_encoding")
            if text
                .as_deref()
                .is_some_and(|t| ["utf8", "utf-8", "unicode"].contains(&t.to_ascii_lowercase().as_str())) =>
        {
            Ok(())
        }
        (VariableSetKind::VarSetValue, "client_encoding") => no(
            "A client_encoding other than UTF8 is",
            "The gateway and the store must read the same statement.",
        ),
        (VariableSetKind::VarSetValue, "standard_conforming_strings") if text.as_deref() == Some("on") => {
            Ok(())
        }
        (VariableSetKind::VarSetValue, "statement_timeout") => {
            let limit = MAX_STATEMENT_TIMEOUT_MS;
            match text.as_deref().and_then(milliseconds) {
                Some(ms) if (1..=limit).contains(&ms) => Ok(()),
                _ => no("This statement_timeout is", &format!("Give 1 to {limit}, in milliseconds.")),
            }
        }
        (
            VariableSetKind::VarSetValue | VariableSetKind::VarSetDefault | VariableSetKind::VarReset,
            known,
        ) if SETTINGS.contains(&known) => Ok(()),
        _ => no(&format!("Setting {name} is"), why),
    }
}

/// A time as PostgreSQL's settings take it: a number of milliseconds, or with a unit.
fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn constant(node: &pg_query::Node) -> Option<String> {
    use pg_query::protobuf::a_const::Val;
    match node.node.as_ref()? {
        NodeEnum::AConst(c) => match c.val.as_ref()? {
            Val::Sval(s) => Some(s.sval.clone()),
            Val::Ival(i) => Some(i.ival.to_string()),
            Val::Boolval(b) => Some(if b.boolval { "on" } else { "off" }.to_owned()),
            _ => None,
        },
        NodeEnum::String(s) => Some(s.sval.clone()),
        _ => None,
    }
}

/// Looks at every node of a query. The tree is walked in its serialised form, which has all of it: a walker over types
/// would have to be told of each field, and would be silent about one that it was not told of.
fn query(value: &Value, verdict: &mut Verdict) -> Judged {
    let Value::Object(tree) = value else { return no("This is", "It cannot be judged.") };
    tree.iter().try_for_each(|(kind, fields)| visit(kind, fields, verdict))
}

/// Whether a SELECT makes a table. In a UNION the clause stands in the first of the parts, which are no nodes of
/// their own.
fn selects_into(select: &Value) -> bool {
    !select.is_null()
        && (!select["into_clause"].is_null()
            || selects_into(&select["larg"])
            || selects_into(&select["rarg"]))
}

fn visit(kind: &str, fields: &Value, verdict: &mut Verdict) -> Judged {
    if !QUERY_NODES.contains(&kind) {
        let what = match kind {
            "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => "Writing inside WITH is".to_owned(),
            _ => format!("{kind} is"),
        };
        return no(&what, "It is not among the parts of a query that the gateway knows to be harmless.");
    }
    match kind {
        "SelectStmt" => {
            if selects_into(fields) {
                return no("SELECT INTO is", "Only reading is.");
            }
            if fields["locking_clause"].as_array().is_some_and(|l| !l.is_empty()) {
                return no("SELECT … FOR UPDATE or SHARE is", "Only reading is; locks hold up others.");
            }
        }
        "RangeVar" => verdict.tables.extend(fields["relname"].as_str().map(str::to_owned)),
        "ColumnRef" => {
            let last = fields["fields"].as_array().and_then(|f| f.last()).map(|l| &l["node"]);
            match last.and_then(|l| l["String"]["sval"].as_str()) {
                Some(name) => {
                    // `u.name` calls a function of that name where there is no such column.
                    if fields["fields"].as_array().is_some_and(|f| f.len() > 1) {
                        not_refused(name)?;
                    }
                    verdict.columns.insert(name.to_owned());
                }
                None => verdict.all_columns = true,
            }
        }
        "FuncCall" => function(fields)?,
        "AIndirection" => {
            let names = fields["indirection"].as_array().into_iter().flatten();
            names.filter_map(|n| n["node"]["String"]["sval"].as_str()).try_for_each(not_refused)?;
        }
        _ => {}
    }
    children(fields, verdict)
}

fn children(value: &Value, verdict: &mut Verdict) -> Judged {
    match value {
        Value::Array(items) => items.iter().try_for_each(|v| children(v, verdict)),
        Value::Object(map) => map.iter().try_for_each(|(key, v)| match (key.as_str(), v) {
            // A field that happens to be called `node` holds the wrapper of one; the wrapper's `node` has its kind.
            ("node", Value::Object(node)) if !node.contains_key("node") => {
                node.iter().try_for_each(|(kind, fields)| visit(kind, fields, verdict))
            }
            _ => children(v, verdict),
        }),
        _ => Ok(()),
    }
}

fn not_refused(function: &str) -> Judged {
    let lower = function.to_ascii_lowercase();
    let is_refused =
        REFUSED_FUNCTIONS.contains(&lower.as_str()) || REFUSED_PREFIXES.iter().any(|p| lower.starts_with(p));
    if is_refused {
        return no(&format!("The function {lower} is"), "It reaches beyond the face's views.");
    }
    Ok(())
}

fn function(fields: &Value) -> Judged {
    let names: Vec<&str> = fields["funcname"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|n| n["node"]["String"]["sval"].as_str())
        .collect();
    let Some(name) = names.last() else { return no("This function is", "Its name is not understood.") };
    not_refused(name)?;
    let foreign = names.len() > 1 && !["pg_catalog", "information_schema"].contains(&names[0]);
    if foreign {
        let lower = name.to_ascii_lowercase();
        return no(&format!("The function {lower} is"), "It reaches beyond the face's views.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge_text(text: &str) -> Verdict {
        crate::analysis::Analysis::of(text, crate::settings::Settings::default()).verdict
    }

    fn allowed(text: &str) -> bool {
        judge_text(text).refused.is_none()
    }

    #[test]
    fn reading_is_allowed() {
        for good in [
            "",
            "SELECT 1",
            "select u.id, u.email from users u join devices d on d.user_id = u.id where u.id = $1 order by 1 limit 3",
            "WITH a AS (SELECT 1) SELECT * FROM a UNION SELECT 2",
            "VALUES (1), (2)",
            "TABLE users",
            "COPY (SELECT * FROM users) TO STDOUT WITH (FORMAT csv)",
            "BEGIN; SELECT 1; COMMIT",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "SAVEPOINT a; ROLLBACK TO a; RELEASE a",
            "DECLARE c CURSOR FOR SELECT 1",
            "FETCH 10 FROM c",
            "PREPARE p AS SELECT $1::int",
            "EXECUTE p(1)",
            "DEALLOCATE ALL",
            "DISCARD ALL",
            "SHOW search_path",
            "SET statement_timeout = 1000",
            "SET statement_timeout TO '1s'",
            "SET client_encoding TO 'UTF8'",
            "SET extra_float_digits = 3",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "RESET ALL",
            "SELECT count(*) FILTER (WHERE id > 1) OVER (PARTITION BY country) FROM users",
            "SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relname OPERATOR(pg_catalog.~) '^(u)$' COLLATE pg_catalog.default",
            "SELECT ARRAY(SELECT 1), (SELECT 2), CASE WHEN true THEN 1 END, row(1, 2), current_date",
        ] {
            assert!(allowed(good), "{good}: {:?}", judge_text(good).refused);
        }
    }

    #[test]
    fn what_is_not_reading_is_refused() {
        for bad in [
            "INSERT INTO users VALUES (1)",
            "WITH x AS (DELETE FROM users RETURNING *) SELECT * FROM x",
            "SELECT 1; DROP TABLE users",
            "SELECT * INTO TEMP t FROM users",
            "CREATE TEMP TABLE t AS SELECT 1",
            "SELECT * FROM users FOR UPDATE",
            "COPY users TO STDOUT",
            "COPY (SELECT 1) TO '/tmp/x'",
            "COPY (SELECT 1) TO PROGRAM 'cat'",
            "COPY users FROM STDIN",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "DO $$ BEGIN END $$",
            "PREPARE TRANSACTION 'x'",
            "LISTEN a",
            "NOTIFY a",
            "LOCK users",
            "SET search_path = public",
            "SET LOCAL search_path = public",
            "SET ROLE postgres",
            "RESET ROLE",
            "SET SESSION AUTHORIZATION DEFAULT",
            "SET statement_timeout = 0",
            "SET statement_timeout = '1h'",
            "SET client_encoding = 'SJIS'",
            "SET NAMES 'GBK'",
            "SET standard_conforming_strings = off",
            "SET row_security = off",
            "SELECT set_config('search_path', 'public', false)",
            "SELECT pg_catalog.query_to_xml('select 1', true, true, '')",
            "SELECT ringfence.hmac('a', 'b', 'sha256')",
            "SELECT pg_advisory_lock(1)",
            "SELECT * FROM dblink('x', 'y') AS t(a int)",
            "SELECT xmlparse(document '<a/>')",
            "SELECT u.ts_stat FROM users u",
            "SELECT ('select 1'::text).ts_stat",
            "SELECT setseed(0.5)",
            "CALL f()",
            "VACUUM",
            "ALTER ROLE me SET search_path = public",
            "PREPARE p AS INSERT INTO users VALUES (1)",
            "SELEC 1",
        ] {
            assert!(!allowed(bad), "{bad}");
        }
        let deep = format!("SELECT {}1{}", "(".repeat(2000), ")".repeat(2000));
        let _ = judge_text(&deep); // parentheses vanish in the tree; what matters is that nothing overflows
        assert!(!allowed(&format!("SELECT {}1", "-(1+".repeat(500))));
        assert!(!allowed(&format!("SELECT {}", vec!["1"; 3000].join("+"))));
    }

    #[test]
    fn a_verdict_says_what_the_statement_names() {
        let verdict = judge_text("SELECT u.email, v.* FROM users u, videos v WHERE lower(u.email) = 'x'");
        assert_eq!(Vec::from_iter(&verdict.tables), ["users", "videos"]);
        assert!(verdict.columns.contains("email") && verdict.all_columns);
    }
}
