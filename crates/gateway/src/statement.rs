//! What a governed person may send: an allow-list of statement kinds by PostgreSQL's own grammar (libpg_query).
//!
//! This is the second wall. The first is the face's role, which may read its views and nothing else; what this file lets
//! through by mistake, the store still refuses. What the grammar does not understand is refused here.
//! A text is judged once and remembered.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use pg_query::NodeEnum;
use pg_query::protobuf::{TransactionStmtKind, VariableSetKind, VariableSetStmt};
use ringfence_statement::{reach, shape};
use serde_json::Value;

use crate::refusal::{Refusal, code};

/// The longest statement of a governed person, in bytes.
pub const MAX_LENGTH: usize = 256 * 1024;
/// Verdicts that are remembered, and the longest text that is.
const REMEMBERED: usize = 4096;
const REMEMBERED_LENGTH: usize = 16 * 1024;

/// What was found about a statement text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it is refused, if it is.
    pub refused: Option<Refusal>,
    /// The tables it names, once for each mention.
    pub tables: Vec<String>,
    /// The columns it names.
    pub columns: BTreeSet<String>,
    /// Whether it asks for all columns of something.
    pub star: bool,
    /// Whether a row of its result can hold values of several rows.
    pub folds: bool,
    /// Whether it runs something that was defined before (a cursor, a prepared statement).
    pub opaque: bool,
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
    let refusal = Refusal::new(code::INSUFFICIENT_PRIVILEGE, format!("{what} not allowed through a face"))
        .detail(why)
        .hint("Governed access is for reading: SELECT, cursors, COPY (SELECT …) TO STDOUT, transactions.");
    Verdict { refused: Some(refusal), ..Verdict::default() }
}

/// Judges a text, which may hold several statements.
pub fn judge(text: &str) -> Verdict {
    if text.len() > MAX_LENGTH {
        return refused(
            "A statement this long is",
            "The gateway reads at most 256 KiB of SQL from governed persons.",
        );
    }
    let parsed = match pg_query::parse(text, pg_query::ParserOptions::default()) {
        Ok(parsed) => parsed.protobuf,
        Err(pg_query::Error::Parse(message)) => {
            let refusal = Refusal::new(code::SYNTAX_ERROR, message);
            return Verdict { refused: Some(refusal), ..Verdict::default() };
        }
        Err(_) => {
            return refused(
                "A statement nested this deeply is",
                "The gateway cannot judge it, so it is not run.",
            );
        }
    };
    let mut verdict = Verdict::default();
    for raw in parsed.stmts {
        let Some(node) = raw.stmt.and_then(|s| s.node) else { continue };
        if let Err(refused) = statement(&node, &mut verdict) {
            return *refused;
        }
    }
    verdict
}

type Judged = Result<(), Box<Verdict>>;

fn no(what: &str, why: &str) -> Judged {
    Err(Box::new(refused(what, why)))
}

fn statement(node: &NodeEnum, verdict: &mut Verdict) -> Judged {
    match node {
        NodeEnum::SelectStmt(_) => query(node, verdict),
        NodeEnum::CopyStmt(copy) => match copy.query.as_ref().and_then(|q| q.node.as_ref()) {
            Some(inner) if !copy.is_from && !copy.is_program && copy.filename.is_empty() => {
                query(inner, verdict)
            }
            _ => no("This COPY is", "Only COPY (SELECT …) TO STDOUT is; a view's name or a file is not."),
        },
        NodeEnum::DeclareCursorStmt(cursor) => inner(cursor.query.as_deref(), verdict),
        NodeEnum::PrepareStmt(prepare) => inner(prepare.query.as_deref(), verdict),
        NodeEnum::FetchStmt(_) | NodeEnum::ExecuteStmt(_) => {
            verdict.opaque = true;
            Ok(())
        }
        NodeEnum::ClosePortalStmt(_)
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

fn inner(node: Option<&pg_query::Node>, verdict: &mut Verdict) -> Judged {
    match node.and_then(|n| n.node.as_ref()) {
        Some(select @ NodeEnum::SelectStmt(_)) => query(select, verdict),
        _ => no("This is", "A cursor or a prepared statement must be a SELECT."),
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
            let limit = ringfence_face::ddl::Limits::default().statement_timeout_ms;
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
fn query(node: &NodeEnum, verdict: &mut Verdict) -> Judged {
    let tree =
        serde_json::to_value(node).map_err(|_| Box::new(refused("This is", "It cannot be judged.")))?;
    let Value::Object(tree) = tree else { return no("This is", "It cannot be judged.") };
    tree.iter().try_for_each(|(kind, fields)| visit(kind, fields, verdict))
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
            if !fields["into_clause"].is_null() {
                return no("SELECT INTO is", "Only reading is.");
            }
            if fields["locking_clause"].as_array().is_some_and(|l| !l.is_empty()) {
                return no("SELECT … FOR UPDATE or SHARE is", "Only reading is; locks hold up others.");
            }
            if fields["with_clause"]["recursive"].as_bool() == Some(true) {
                verdict.folds = true;
            }
        }
        "RangeVar" => verdict.tables.extend(fields["relname"].as_str().map(str::to_owned)),
        "ColumnRef" => {
            let last = fields["fields"].as_array().and_then(|f| f.last()).map(|l| &l["node"]);
            match last.and_then(|l| l["String"]["sval"].as_str()) {
                Some(name) => drop(verdict.columns.insert(name.to_owned())),
                None => verdict.star = true,
            }
        }
        "FuncCall" => function(fields, verdict)?,
        // ARRAY(SELECT …); the value is SubLinkType's in the grammar's interface file.
        "SubLink"
            if fields["sub_link_type"].as_i64()
                == Some(pg_query::protobuf::SubLinkType::ArraySublink as i64) =>
        {
            verdict.folds = true;
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

fn function(fields: &Value, verdict: &mut Verdict) -> Judged {
    let names: Vec<&str> = fields["funcname"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|n| n["node"]["String"]["sval"].as_str())
        .collect();
    let Some(name) = names.last() else { return no("This function is", "Its name is not understood.") };
    let lower = name.to_ascii_lowercase();
    let is_refused =
        REFUSED_FUNCTIONS.contains(&lower.as_str()) || REFUSED_PREFIXES.iter().any(|p| lower.starts_with(p));
    let foreign = names.len() > 1 && !["pg_catalog", "information_schema"].contains(&names[0]);
    if is_refused || foreign {
        return no(&format!("The function {lower} is"), "It reaches beyond the face's views.");
    }
    let windowed = !fields["over"].is_null();
    if windowed || !reach::is_scalar(&lower) {
        verdict.folds = true;
    }
    Ok(())
}

/// Verdicts by text.
#[derive(Default)]
pub struct Cache {
    known: Mutex<HashMap<Box<str>, Arc<Verdict>>>,
}

impl Cache {
    /// Judges `text`, or remembers how it was judged. Queries are remembered by shape: what is found about them depends on
    /// no constant. A setting's value counts, and an error's place; so those are remembered by text.
    pub fn judge(&self, text: &str) -> Arc<Verdict> {
        let word = text.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        if ["select", "with", "values", "table"].iter().any(|w| w.eq_ignore_ascii_case(word))
            && !text.trim_end().trim_end_matches(';').contains(';')
        {
            shape::with_key(text, |key| self.judge_as(text, key))
        } else {
            self.judge_as(text, text)
        }
    }

    fn judge_as(&self, text: &str, key: &str) -> Arc<Verdict> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Arc::clone(known);
        }
        let verdict = Arc::new(judge(text));
        if key.len() <= REMEMBERED_LENGTH && (verdict.refused.is_none() || key == text) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED {
                known.clear(); // rare, cheap, and no worse than starting
            }
            known.insert(key.into(), Arc::clone(&verdict));
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> bool {
        judge(text).refused.is_none()
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
            assert!(allowed(good), "{good}: {:?}", judge(good).refused);
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
            "CALL f()",
            "VACUUM",
            "ALTER ROLE me SET search_path = public",
            "PREPARE p AS INSERT INTO users VALUES (1)",
            "SELEC 1",
        ] {
            assert!(!allowed(bad), "{bad}");
        }
        let deep = format!("SELECT {}1{}", "(".repeat(2000), ")".repeat(2000));
        let _ = judge(&deep); // parentheses vanish in the tree; what matters is that nothing overflows
        assert!(!allowed(&format!("SELECT {}1", "-(1+".repeat(500))));
        assert!(!allowed(&format!("SELECT {}", vec!["1"; 3000].join("+"))));
    }

    #[test]
    fn a_verdict_says_what_the_statement_touches() {
        let verdict = judge("SELECT u.email, v.* FROM users u, videos v WHERE lower(u.email) = 'x'");
        assert_eq!(verdict.tables, ["users", "videos"]);
        assert!(verdict.columns.contains("email") && verdict.star && !verdict.folds && !verdict.opaque);
        for folding in [
            "SELECT string_agg(email, ',') FROM users",
            "SELECT ARRAY(SELECT email FROM users)",
            "SELECT lag(email) OVER () FROM users",
            "WITH RECURSIVE r AS (SELECT 1) SELECT * FROM r",
            "SELECT row_to_json(users) FROM users",
        ] {
            assert!(judge(folding).folds, "{folding}");
        }
        assert!(judge("FETCH ALL FROM c").opaque);
    }
}
