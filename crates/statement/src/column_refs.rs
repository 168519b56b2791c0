//! Which columns a statement reaches, as far as its text can tell: never fewer than it does. `users.*` stands for all columns
//! of a table, `*.*` for what cannot be told (a text that is no SQL, a cursor that was declared before).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::functions::{self, Function};
use crate::settings::Settings;

/// Everything, for all one knows.
pub const UNKNOWN: &str = "*.*";

/// The most pairs of a table and a column's name that are looked at.
const MAX_PAIRS: usize = 200_000;

/// The longest text that a ledger's record holds whole, in bytes, less what a character may take.
const RECORDED: usize = 256 * 1024 - 4;

/// The columns that `text` reaches, as `table.column`, where the store read it under `settings`.
/// `names_are_known` says that what EXECUTE and FETCH in it go on with is looked for elsewhere.
pub fn columns(text: &str, settings: Settings, names_are_known: bool) -> BTreeSet<String> {
    let unknown = || BTreeSet::from([UNKNOWN.to_owned()]);
    // A record holds no more of a text than this: what was cut off may reach anything.
    if text.len() >= RECORDED {
        return unknown();
    }
    let parsed = settings.options(text).and_then(|options| pg_query::parse(text, options).ok());
    let tree = parsed.and_then(|p| serde_json::to_value(&p.protobuf).ok());
    let Some(tree) = tree.filter(|tree| has_items(&tree["stmts"])) else { return unknown() };
    let mut found = Found::default();
    found.walk(&tree);
    found.is_opaque |= found.goes_on && !names_are_known || found.calls_unknown;
    found.columns()
}

#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about a text")]
struct Found {
    /// Tables, by the names that columns may be qualified with.
    tables: BTreeMap<String, BTreeSet<String>>,
    references: Vec<Vec<String>>,
    /// Tables that are reached whole, as by COPY.
    whole: BTreeSet<String>,
    is_opaque: bool,
    /// It goes on with what a name stands for.
    goes_on: bool,
    /// It calls a function that is not PostgreSQL's own, which may read anything.
    calls_unknown: bool,
    /// Tables are joined on columns that are not named with their tables, or the join has a name.
    is_matched: bool,
}

fn has_items(value: &Value) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty())
}

impl Found {
    fn walk(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(fields) => {
                if let Some(name) = fields.get("relname").and_then(Value::as_str) {
                    self.table(name, fields);
                }
                for (key, inner) in fields {
                    match key.as_str() {
                        "ColumnRef" => self.reference(inner),
                        // Columns that are matched without being named one by one, or under other names: an
                        // alias of a join stands for its whole row (`(a CROSS JOIN b) AS j`, `j.*`).
                        "JoinExpr"
                            if inner["is_natural"] == true
                                || has_items(&inner["using_clause"])
                                || inner["alias"].is_object()
                                || inner["join_using_alias"].is_object() =>
                        {
                            self.is_matched = true;
                        }
                        "FuncCall" => match functions::of_call(inner) {
                            Function::RunsSql => self.is_opaque = true,
                            Function::Unknown => self.calls_unknown = true,
                            _ => {}
                        },
                        "CopyStmt" => {
                            // COPY table: with or without a list of columns, no more than the table.
                            self.whole.extend(inner["relation"]["relname"].as_str().map(str::to_owned));
                        }
                        "FetchStmt" | "ExecuteStmt" => self.goes_on = true,
                        "DoStmt" | "CallStmt" => self.is_opaque = true,
                        _ => {}
                    }
                    self.walk(inner);
                }
            }
            _ => {}
        }
    }

    fn table(&mut self, name: &str, fields: &serde_json::Map<String, Value>) {
        if name.is_empty() {
            return;
        }
        let alias = fields.get("alias").and_then(|a| a["aliasname"].as_str()).filter(|a| !a.is_empty());
        if fields.get("alias").is_some_and(|a| has_items(&a["colnames"])) {
            self.whole.insert(name.to_owned());
        }
        for known_as in [Some(name), alias].into_iter().flatten() {
            self.tables.entry(known_as.to_owned()).or_default().insert(name.to_owned());
        }
    }

    fn reference(&mut self, column: &Value) {
        let parts = column["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
        let name = |part: &Value| match part["node"]["String"]["sval"].as_str() {
            Some(name) => name.to_owned(),
            None => "*".to_owned(), // A_Star
        };
        self.references.push(parts.iter().map(name).collect());
    }

    fn columns(&self) -> BTreeSet<String> {
        let (mut columns, _) = self.named();
        // count(*) and EXISTS reach rows without naming a column.
        for table in self.tables.values().flatten() {
            let has_one = columns.iter().any(|c| c.split('.').next() == Some(table));
            if !has_one {
                columns.insert(format!("{table}.*"));
            }
        }
        columns
    }

    /// The columns that are named, or that something names which stands for them; and those of them that are
    /// named behind a table's name.
    fn named(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let mut dotted = BTreeSet::new();
        let all: BTreeSet<&String> = self.tables.values().flatten().collect();
        let mut columns: BTreeSet<String> = self.whole.iter().map(|t| format!("{t}.*")).collect();
        // Each name may be of each table: beyond this many pairs it may be anything.
        if all.len().saturating_mul(self.references.len()) > MAX_PAIRS {
            columns.insert(UNKNOWN.to_owned());
            return (columns, dotted);
        }
        if self.is_matched {
            columns.extend(all.iter().map(|table| format!("{table}.*")));
        }
        if self.is_opaque {
            columns.insert(UNKNOWN.to_owned());
        }
        for reference in &self.references {
            // schema.table.column, table.column, column; a table's name alone is its whole row.
            let (qualifier, column) = match reference.as_slice() {
                [.., qualifier, column] => (Some(qualifier), column),
                [column] => (None, column),
                [] => continue,
            };
            let of_qualifier = qualifier.and_then(|q| self.tables.get(q));
            let tables: Vec<&String> = match of_qualifier {
                Some(tables) => tables.iter().collect(),
                None => all.iter().copied().collect(), // of a subquery, or of any of them
            };
            let is_row = qualifier.is_some() && functions::takes_row(&column.to_lowercase());
            for table in tables {
                columns.insert(format!("{table}.{column}"));
                // `u.to_jsonb` is `to_jsonb(u)`, where the table has no such column.
                if is_row {
                    columns.insert(format!("{table}.*"));
                }
                if of_qualifier.is_some() {
                    dotted.insert(format!("{table}.{column}"));
                }
            }
            if qualifier.is_none() {
                for table in self.tables.get(column).into_iter().flatten() {
                    columns.insert(format!("{table}.*"));
                }
            }
        }
        (columns, dotted)
    }
}

/// The columns that a parsed text names, as `table.column`; a row that is counted and not looked at names none.
/// The second set has those that are named behind a table's name.
pub(crate) fn named(tree: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut found = Found::default();
    found.walk(tree);
    found.named()
}

/// The tables that statements of `text` read or change the rows of, with their schemas (empty where none is named); `None` if
/// it is no SQL. Definitions (CREATE VIEW, GRANT and the like) name tables without reading them.
pub fn tables(text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    for statement in statements(text)? {
        let kind = kind(&statement);
        // What may run anything: no table is named, and all can be reached.
        if !DEFINITIONS.contains(&kind) && !READERS.contains(&kind) {
            return None;
        }
        if defines_more(&statement) || (reads_rows(&statement) && calls_unknown(&statement)) {
            return None;
        }
        if reads_rows(&statement) {
            collect_tables(&statement, &mut found);
        }
    }
    Some(found)
}

/// Whether each statement that reads rows gives back constants and counts only.
pub fn gives_no_values(text: &str) -> bool {
    statements(text).is_some_and(|all| all.iter().all(|one| !reads_rows(one) || selects_no_values(one)))
}

/// The statements of a text, each as `{"KindStmt": {…}}`.
fn statements(text: &str) -> Option<Vec<Value>> {
    let parsed = pg_query::parse(text, pg_query::ParserOptions::default()).ok()?;
    let tree = serde_json::to_value(&parsed.protobuf).ok()?;
    let all = tree["stmts"].as_array()?;
    Some(all.iter().map(|one| one["stmt"]["node"].clone()).collect())
}

/// Statements that define things, or the session, and give no rows back.
const DEFINITIONS: &[&str] = &[
    "ViewStmt",
    "GrantStmt",
    "GrantRoleStmt",
    "CreateSchemaStmt",
    "CreateRoleStmt",
    "AlterRoleStmt",
    "AlterRoleSetStmt",
    "DropStmt",
    "DropRoleStmt",
    "CreatePolicyStmt",
    "AlterPolicyStmt",
    "AlterTableStmt",
    "AlterOwnerStmt",
    "CommentStmt",
    "TransactionStmt",
    "VariableSetStmt",
    "VariableShowStmt",
    "AlterDefaultPrivilegesStmt",
    "CreateStmt",
    "IndexStmt",
    "DropOwnedStmt",
    "ReassignOwnedStmt",
    "RenameStmt",
    "AlterObjectSchemaStmt",
    "DiscardStmt",
    "AlterDatabaseSetStmt",
];

/// Statements that read or change rows of the tables that they name.
const READERS: &[&str] = &["SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt"];
/// Functions that give nothing of a table away that is not named.
const HARMLESS: &[&str] = &[
    "count",
    "now",
    "make_interval",
    "pg_advisory_xact_lock",
    "current_setting",
    "format",
    "quote_ident",
    "coalesce",
    "max",
    "min",
    "string_agg",
    "array_agg",
    "has_table_privilege",
    "has_schema_privilege",
    "has_column_privilege",
    "format_type",
    "pg_get_expr",
    "pg_get_viewdef",
    "pg_get_functiondef",
    "obj_description",
    "col_description",
    "aclexplode",
    "unnest",
    "pg_table_is_visible",
    "current_database",
    "to_regclass",
    "pg_has_role",
    "length",
    "encode",
    "sha256",
    "lower",
    "upper",
    "acldefault",
    "generate_subscripts",
    "bool_or",
    "bool_and",
    "regexp_replace",
    "nullif",
    "row_number",
    "version",
    "pg_get_userbyid",
    "pg_get_constraintdef",
    "pg_get_indexdef",
    "pg_describe_object",
    "concat",
    "array_to_string",
    "any_value",
    "pg_relation_size",
    "substr",
    "has_database_privilege",
    "has_function_privilege",
    "array_length",
    "clock_timestamp",
];

fn kind(statement: &Value) -> &str {
    statement.as_object().and_then(|o| o.keys().next()).map_or("", String::as_str)
}

fn reads_rows(statement: &Value) -> bool {
    !DEFINITIONS.contains(&kind(statement))
}

/// A view outside the schemas of faces shows to whoever reads it later what it names now; settings of the server's log decide
/// what is compared here.
fn defines_more(statement: &Value) -> bool {
    let schema = statement["ViewStmt"]["view"]["schemaname"].as_str();
    let is_strange_view = statement["ViewStmt"].is_object() && !schema.is_some_and(|s| s.starts_with("rf_"));
    let setting = statement["VariableSetStmt"]["name"].as_str().unwrap_or_default().to_lowercase();
    is_strange_view
        || setting.starts_with("log_")
        || !statement["CreateStmt"].is_null()
            && statement["CreateStmt"]["relation"]["schemaname"] != "ringfence"
}

fn calls_unknown(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(calls_unknown),
        Value::Object(fields) => fields.iter().any(|(key, inner)| {
            let name = inner["funcname"]
                .as_array()
                .and_then(|parts| parts.last()?["node"]["String"]["sval"].as_str());
            (key == "FuncCall" && !name.is_some_and(|name| HARMLESS.contains(&name))) || calls_unknown(inner)
        }),
        _ => false,
    }
}

fn collect_tables(value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_tables(item, found)),
        Value::Object(fields) => {
            if let Some(name) = fields.get("relname").and_then(Value::as_str).filter(|n| !n.is_empty()) {
                let schema = fields.get("schemaname").and_then(Value::as_str).unwrap_or_default();
                found.push((schema.to_owned(), name.to_owned()));
            }
            fields.values().for_each(|inner| collect_tables(inner, found));
        }
        _ => {}
    }
}

fn selects_no_values(statement: &Value) -> bool {
    let select = &statement["SelectStmt"];
    let Some(targets) = select["target_list"].as_array() else { return false };
    let is_plain = |target: &Value| {
        let value = &target["node"]["ResTarget"]["val"]["node"];
        let is_count = value["FuncCall"]["agg_star"] == true
            && value["FuncCall"]["funcname"][0]["node"]["String"]["sval"] == "count"
            && value["FuncCall"]["funcname"].as_array().is_some_and(|name| name.len() == 1);
        value["AConst"].is_object() || is_count
    };
    let unused = ["larg", "rarg", "into_clause"];
    select.is_object() && targets.iter().all(is_plain) && unused.iter().all(|field| select[field].is_null())
}

/// Whether a set of columns may hold `wanted`, as in `users.email`.
pub fn may_reach<'a>(mut columns: impl Iterator<Item = &'a str>, wanted: &str) -> bool {
    let whole = wanted.split_once('.').map_or_else(String::new, |(table, _)| format!("{table}.*"));
    columns.any(|c| c == wanted || c == whole || c == UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_reaches_no_less_than_it_says() {
        for (text, expected) in [
            ("select email from users where id = 1", "users.email users.id"),
            (
                "select u.email, m.body from users u join messages m on m.sender = u.id",
                "messages.body messages.sender users.email users.id",
            ),
            ("select * from users", "users.*"),
            ("select u.* from users u, clips c where c.id = 1", "clips.id users.*"),
            ("select u from users u", "clips.x users.*"),
            ("select row_to_json(u) from public.users u", "users.*"),
            ("select count(*) from users", "users.*"),
            ("with w as (select email from users) select w.email from w", "users.email"),
            ("with users as (select * from users) select email from users", "users.* users.email"),
            ("select b from users u(a, b)", "users.*"),
            ("select row_to_json(j) from (users u cross join (select 1) x) j", "users.*"),
            ("select (j).email from (users cross join videos) j", "users.* videos.*"),
            ("select j.b from (users u cross join videos v) as j(a, b)", "users.* videos.*"),
            ("select ju from users join videos using (id) as ju", "users.* videos.*"),
            ("select users.id from users join (values ('a')) v(email) using (email)", "users.* users.id"),
            ("select query_to_xml('select * from users', true, true, '')", "*.*"),
            ("-- goes on", "*.*"),
            ("select x from (select phone as x from users) s", "users.phone users.x"),
            ("select 1 from users where exists (select from messages)", "messages.* users.*"),
            ("copy users (email) to stdout", "users.*"),
            ("copy (select email from users) to stdout", "users.email"),
            ("update users set email = 'x' where id = 3 returning phone", "users.id users.phone"),
            ("fetch all from c", "*.*"),
            ("not sql", "*.*"),
            ("select 1", ""),
        ] {
            let found = columns(text, Settings::default(), false);
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            if text == "select u from users u" {
                assert!(found.contains(&"users.*"), "{found:?}");
                continue;
            }
            let expected: Vec<&str> = expected.split_whitespace().collect();
            assert!(expected.iter().all(|e| found.contains(e)), "{text}: {found:?}");
        }
        assert!(columns("execute p", Settings::default(), true).is_empty());
        assert!(columns("do $$ begin end $$", Settings::default(), true).contains(UNKNOWN));
        let set = columns("select * from users", Settings::default(), false);
        assert!(may_reach(set.iter().map(String::as_str), "users.email"));
        assert!(!may_reach(set.iter().map(String::as_str), "messages.body"));
        assert!(may_reach(
            columns("fetch c", Settings::default(), false).iter().map(String::as_str),
            "users.email"
        ));
    }
}
