//! The names in a text behind which a store can have code of its own: functions, operators, types and
//! relations. PostgreSQL finds them by name and type, so a text says only that it *may* mean one that
//! is not PostgreSQL's. Which of them a store has, its catalogue says.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use pg_query::protobuf::{Token, TransactionStmtKind};
use serde_json::Value;

use crate::{functions, scope, tree};

/// PostgreSQL's own functions that are written in SQL and cast what they are given: to text, whatever type it has. `||`
/// is two of them.
const CASTING: &[&str] = &["anytextcat", "quote_literal", "quote_nullable", "textanycat"];

/// The names in a text. The name of a function with the schema `pg_catalog` has that before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about a text")]
pub struct Symbols {
    /// Functions that are called.
    pub calls: BTreeSet<Box<str>>,
    /// Names behind a dot: `u.name` calls a function where there is no such column.
    pub fields: BTreeSet<Box<str>>,
    /// Operators.
    pub operators: BTreeSet<Box<str>>,
    /// Types.
    pub types: BTreeSet<Box<str>>,
    /// A value is cast to another type by a word in the text.
    pub casts: bool,
    /// A parameter is. It takes that type, where nothing says that it has another.
    pub casts_parameters: bool,
    /// Tables and views.
    pub relations: BTreeSet<Box<str>>,
    /// Those of them whose rows it may change, or which it changes themselves.
    pub written: BTreeSet<Box<str>>,
    /// It looks at all tables, for statistics or to make indexes again.
    pub maintains_all: bool,
    /// It may make, change or drop something: a store's event triggers run then.
    pub defines: bool,
}

impl Symbols {
    /// The names in a syntax tree.
    pub(crate) fn of(tree: &Value) -> Self {
        let mut symbols = Self::default();
        symbols.walk(tree);
        symbols.casts |= symbols.operators.contains("||")
            || CASTING.iter().any(|name| symbols.calls.contains(*name) || symbols.fields.contains(*name));
        symbols
    }

    /// Whether something is called, or may be.
    pub fn runs_functions(&self) -> bool {
        !self.calls.is_empty() || !self.fields.is_empty() || self.casts
    }

    /// Whether nothing in the text is read by its type or calls anything.
    pub fn reads_no_types(&self) -> bool {
        self.types.is_empty() && self.calls.is_empty() && self.fields.is_empty()
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let all = [&self.calls, &self.fields, &self.operators, &self.types, &self.relations, &self.written];
        all.iter().flat_map(|set| set.iter()).map(|name| name.len() + 48).sum()
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(fields) => {
                if let Some(relation) = fields.get("relname").and_then(Value::as_str) {
                    self.relations.insert(relation.into());
                }
                for (key, inner) in fields {
                    self.node(key, inner);
                    self.walk(inner);
                }
            }
            _ => {}
        }
    }

    fn node(&mut self, kind: &str, fields: &Value) {
        match kind {
            "FuncCall" | "funccall" => {
                put_call(&mut self.calls, &fields["funcname"]);
                let last = list(&fields["funcname"]).last().and_then(text);
                self.calls.extend(last.filter(|name| NEWER.contains(name)).map(Into::into));
            }
            "ColumnRef" => {
                let parts = list(&fields["fields"]);
                self.fields.extend(parts.iter().skip(1).filter_map(text).map(Into::into));
            }
            "AIndirection" => {
                self.fields.extend(list(&fields["indirection"]).iter().filter_map(text).map(Into::into));
            }
            "AExpr" => {
                put(&mut self.operators, &fields["name"]);
                // BETWEEN has its own word for a name.
                let mut names = list(&fields["name"]).iter().filter_map(text);
                if names.any(|name| name.contains(' ') || name == "BETWEEN") {
                    self.operators.extend(["=", "<=", ">=", "<", ">"].map(Into::into));
                }
            }
            "SubLink" => {
                put(&mut self.operators, &fields["oper_name"]);
                self.operators.insert("=".into()); // IN has no name
            }
            // These compare without naming an operator.
            "CaseExpr" | "JoinExpr" => drop(self.operators.insert("=".into())),
            "SortBy" => put(&mut self.operators, &fields["use_op"]),
            "TypeName" | "type_name" => put(&mut self.types, &fields["names"]),
            // The literal of a text is no value yet: its type reads it.
            "TypeCast" => {
                let arg = &fields["arg"]["node"];
                let literal = &arg["AConst"];
                if arg["ParamRef"].is_object() {
                    self.casts_parameters = true;
                } else {
                    self.casts |= !literal["val"]["Sval"].is_object() && literal["isnull"] != true;
                }
            }
            // PREPARE says which types its parameters have.
            "PrepareStmt" => self.casts |= !list(&fields["argtypes"]).is_empty(),
            "XmlSerialize" => self.casts = true,
            "into_clause" => self.defines |= fields.is_object(),
            // Words that are functions in a newer grammar than the store's may be names there.
            _ if kind.starts_with("Json") || kind == "MergeSupportFunc" => {
                self.casts = true;
                self.calls.extend(NEWER.iter().map(|name| (*name).into()));
            }
            "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" | "CopyStmt" => {
                self.written.extend(fields["relation"]["relname"].as_str().map(Into::into));
            }
            "VacuumStmt" => self.maintains_all |= list(&fields["rels"]).is_empty(),
            "TruncateStmt" => collect_relations(fields, &mut self.written),
            _ if kind.ends_with("Stmt") && !DEFINES_NOTHING.contains(&kind) => {
                self.defines = true;
                self.maintains_all |=
                    matches!(kind, "ReindexStmt" | "ClusterStmt") && !fields["relation"].is_object();
                collect_relations(fields, &mut self.written);
            }
            _ => {}
        }
    }
}

fn collect_relations(value: &Value, to: &mut BTreeSet<Box<str>>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_relations(item, to)),
        Value::Object(fields) => {
            to.extend(fields.get("relname").and_then(Value::as_str).map(Into::into));
            fields.values().for_each(|inner| collect_relations(inner, to));
        }
        _ => {}
    }
}

/// Statements that no event trigger knows of. What others hold is looked at by itself.
const DEFINES_NOTHING: &[&str] = &[
    "CallStmt",
    "CheckPointStmt",
    "ClosePortalStmt",
    "ConstraintsSetStmt",
    "DeallocateStmt",
    "DeclareCursorStmt",
    "DiscardStmt",
    "ExecuteStmt",
    "ExplainStmt",
    "FetchStmt",
    "ListenStmt",
    "LockStmt",
    "NotifyStmt",
    "PrepareStmt",
    "RawStmt",
    "SelectStmt",
    "TransactionStmt",
    "UnlistenStmt",
    "VariableSetStmt",
    "VariableShowStmt",
];

/// Functions that the grammar of PostgreSQL 16 to 18 has words for.
const NEWER: &[&str] = &[
    "json",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_object",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_table",
    "json_value",
    "merge_action",
    "system_user",
];

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> Option<&str> {
    value["node"]["String"]["sval"].as_str()
}

/// Adds the last part of a name.
fn put(to: &mut BTreeSet<Box<str>>, name: &Value) {
    to.extend(list(name).last().and_then(text).map(Into::into));
}

/// Adds the last part of a function's name. The grammar writes many with PostgreSQL's own schema.
fn put_call(to: &mut BTreeSet<Box<str>>, name: &Value) {
    let parts = list(name);
    let is_own = parts.len() > 1 && parts.first().and_then(text) == Some("pg_catalog");
    match parts.last().and_then(text) {
        Some(last) if is_own => drop(to.insert(in_catalogue(last))),
        last => to.extend(last.map(Into::into)),
    }
}

/// How a function is named here that was called with PostgreSQL's own schema.
pub fn in_catalogue(name: &str) -> Box<str> {
    format!("pg_catalog.{name}").into()
}

/// Whether a statement gives no row back, copies none, and calls nothing that could. (Its session may hold a lock
/// after it that keeps others from looking at a table.)
pub(crate) fn only_defines(tree: &Value) -> bool {
    let kind = tree.as_object().and_then(|node| node.keys().next());
    !kind.is_none_or(|kind| scope::moves_rows(kind)) && !calls_more(tree)
}

/// Whether a function is called that is not known to depend on its arguments only.
fn calls_more(value: &Value) -> bool {
    tree::any(value, &mut |kind, fields| {
        let is_call = matches!(kind, "FuncCall" | "funccall") && fields.is_object();
        is_call && functions::of_call(fields) != functions::Function::Scalar
    })
}

/// Whether a statement may make or change code that a store runs by itself later, as a trigger or a view.
pub(crate) fn defines_code(node: &NodeEnum, tree: &Value) -> bool {
    match node {
        NodeEnum::SelectStmt(_)
        | NodeEnum::InsertStmt(_)
        | NodeEnum::UpdateStmt(_)
        | NodeEnum::DeleteStmt(_)
        | NodeEnum::MergeStmt(_)
        | NodeEnum::CopyStmt(_)
        | NodeEnum::VariableSetStmt(_)
        | NodeEnum::VariableShowStmt(_)
        | NodeEnum::DeclareCursorStmt(_)
        | NodeEnum::FetchStmt(_)
        | NodeEnum::ClosePortalStmt(_)
        | NodeEnum::PrepareStmt(_)
        | NodeEnum::ExecuteStmt(_)
        | NodeEnum::DeallocateStmt(_)
        | NodeEnum::DiscardStmt(_)
        | NodeEnum::ExplainStmt(_)
        | NodeEnum::LockStmt(_)
        | NodeEnum::TruncateStmt(_)
        | NodeEnum::VacuumStmt(_)
        | NodeEnum::ListenStmt(_)
        | NodeEnum::NotifyStmt(_)
        | NodeEnum::UnlistenStmt(_)
        | NodeEnum::CommentStmt(_)
        | NodeEnum::CreateTableAsStmt(_)
        | NodeEnum::CheckPointStmt(_)
        | NodeEnum::RefreshMatViewStmt(_)
        | NodeEnum::CreateSeqStmt(_) => false,
        NodeEnum::TransactionStmt(end) => end.kind() == TransactionStmtKind::TransStmtCommitPrepared,
        // A default or a condition is code, unless it is a constant.
        NodeEnum::CreateStmt(_) | NodeEnum::IndexStmt(_) => has_expression(tree),
        _ => true,
    }
}

fn has_expression(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_expression),
        Value::Object(fields) => fields.iter().any(|(key, inner)| {
            matches!(key.as_str(), "FuncCall" | "AExpr" | "TypeCast" | "inh_relations") && holds(inner)
                || has_expression(inner)
        }),
        _ => false,
    }
}

fn holds(value: &Value) -> bool {
    value.is_object() || value.as_array().is_some_and(|items| !items.is_empty())
}

/// Words in a function's source after which its session may not be as it was, wherever they stand: `execute`
/// runs any text, a cursor can stay open.
const ANYWHERE: &[&str] = &[
    "execute",
    "cursor",
    "refcursor",
    "set_config",
    "setseed",
    "pg_settings",
    "create",
    "explain",
    "pg_temp",
];
/// The same for the first word of a statement.
const FIRST: &[&str] = &[
    "prepare",
    "deallocate",
    "discard",
    "declare",
    "open",
    "close",
    "call",
    "do",
    "set",
    "reset",
    "load",
    "listen",
    "unlisten",
    "alter",
    "drop",
    "lock",
];
/// What stands between INTO and the name of a table that a query makes.
const TEMPORARY: &[&str] = &["temp", "temporary", "local", "global", "unlogged"];
/// What a statement of PL/pgSQL begins behind.
const BEFORE: &[&str] = &[";", "begin", "then", "else", "loop", ">>", "in", "query", "for", "atomic"];

/// The words of a function's source in SQL or PL/pgSQL; `None` if it may change its session by itself, or
/// if that cannot be told.
pub fn harmless_words(source: &str) -> Option<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    if source.trim().is_empty() {
        return Some(words);
    }
    let tokens = pg_query::scan_tokens(source).ok()?;
    let mut before = String::from(";");
    let mut is_first_of_declarations = true;
    for token in tokens {
        match token.token() {
            Token::SqlComment | Token::CComment => continue,
            // Names and texts that are spelled otherwise.
            Token::Uident | Token::Usconst => return None,
            _ => {}
        }
        let (start, end) = (usize::try_from(token.start).ok()?, usize::try_from(token.end).ok()?);
        let raw = source.get(start..end)?;
        let unquoted = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let word =
            unquoted.map_or_else(|| raw.to_lowercase(), |name| name.replace("\"\"", "\"").to_lowercase());
        // DECLARE at the beginning of a function of PL/pgSQL has variables behind it.
        let is_declarations = word == "declare" && std::mem::take(&mut is_first_of_declarations);
        is_first_of_declarations &= word == "<<" || word == ">>";
        let is_change = ANYWHERE.contains(&word.as_str())
            || BEFORE.contains(&before.as_str()) && FIRST.contains(&word.as_str()) && !is_declarations
            || before == "into" && TEMPORARY.contains(&word.as_str())
            || word.contains("advisory")
            || functions::function(&word) == functions::Function::RunsSql;
        if is_change {
            return None;
        }
        if unquoted.is_some() || word.chars().all(|c| c.is_alphanumeric() || c == '_') {
            words.insert(word.clone());
        }
        before = word;
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Analysis;
    use crate::settings::Settings;

    #[test]
    fn names_that_may_mean_code_are_found() {
        for (sql, wanted) in [
            ("select lower(x), pg_catalog.upper(x)", "c:lower c:pg_catalog.upper"),
            ("select p::int, p::pg_catalog.text", "t:int4 t:text"),
            ("select u.leak, (u).leak2 from users u", "f:leak f:leak2 r:users"),
            ("select !@# 1, a ### b, a operator(pg_catalog.+) b", "o:!@# o:### o:+"),
            ("select x::rft, cast(y as app.money2)", "t:rft t:money2"),
            ("insert into t values (1) returning a", "r:t"),
            ("select a between 1 and 2", "o:= o:<= o:>= o:< o:> o:BETWEEN"),
            ("select case a when 1 then 2 end", "o:="),
            ("select a in (select 1)", "o:="),
            ("select 1 order by 1 using !<", "o:!<"),
            ("with t as (select f(1)) select * from t", "c:f r:t"),
            ("insert into a select * from b", "w:a r:b r:a"),
            ("with d as (delete from a returning *) update b set x = 1 from c", "w:a w:b r:c"),
            ("copy a from stdin", "w:a"),
            ("truncate a, b", "w:a w:b"),
            ("merge into a using b on true when matched then delete", "w:a r:b"),
            ("create index on a (b)", "w:a"),
            ("explain analyze insert into a values (1)", "w:a"),
        ] {
            let symbols = Analysis::of(sql, Settings::default()).symbols;
            let all: [(&str, &BTreeSet<Box<str>>); 6] = [
                ("w", &symbols.written),
                ("c", &symbols.calls),
                ("f", &symbols.fields),
                ("o", &symbols.operators),
                ("t", &symbols.types),
                ("r", &symbols.relations),
            ];
            for wanted in wanted.split(' ') {
                let (kind, name) = wanted.split_once(':').unwrap();
                let of_kind = all.iter().find(|(k, _)| *k == kind).unwrap().1;
                assert!(of_kind.contains(name), "{sql}: {wanted} in {symbols:?}");
            }
            assert!(!symbols.calls.contains("upper"), "{symbols:?}");
        }
    }

    #[test]
    fn a_cast_of_a_value_is_none_of_a_literal() {
        let casts = |sql: &str| Analysis::of(sql, Settings::default()).symbols.casts;
        for sql in ["select p::text from p", "select cast(1 as text)", "select (array[p])::_text from p"] {
            assert!(casts(sql), "{sql}");
        }
        assert!(casts("prepare p (int) as select $1::text"));
        for sql in ["select $1::text", "prepare p as select $1::text"] {
            assert!(!casts(sql), "{sql}");
        }
        for sql in ["select '1'::int", "select date '2020-01-01'", "select null::text", "select a from t"] {
            assert!(!casts(sql), "{sql}");
        }
    }

    #[test]
    fn what_is_only_read_is_not_written() {
        for sql in [
            "select * from a",
            "with x as (select * from a) insert into b select * from x",
            "copy a to stdout",
        ] {
            let symbols = Analysis::of(sql, Settings::default()).symbols;
            assert_eq!(symbols.written.contains("a"), sql.starts_with("copy"), "{sql}");
        }
    }

    #[test]
    fn what_event_triggers_know_of_is_found() {
        let defines = |sql: &str| Analysis::of(sql, Settings::default()).symbols.defines;
        for sql in [
            "create table t (i int)",
            "select 1 into t",
            "create table t as select 1",
            "explain analyze create table t as select 1",
            "drop table t",
            "comment on table t is 'x'",
            "refresh materialized view m",
            "select 1; alter table t add a int",
        ] {
            assert!(defines(sql), "{sql}");
        }
        for sql in ["select 1", "insert into t select 1", "begin", "set a.b = 1", "call p(1)", "vacuum t"] {
            assert!(!defines(sql), "{sql}");
        }
        assert!(Analysis::of("call p(1)", Settings::default()).symbols.calls.contains("p"));
    }

    #[test]
    fn sources_that_may_change_a_session_are_told_apart() {
        for harmless in [
            "begin new.at = now(); return new; end",
            "select email from users where id = $1",
            "update t set a = 1 where b = 2",
            "begin update t set a = 1; insert into l values ('execute'); return null; end",
            "begin insert into t values (1) on conflict (a) do update set open = 1, call = temp.load; end",
            "declare x int; begin return x; end",
            "begin -- execute\n return 1; end",
        ] {
            assert!(harmless_words(harmless).is_some(), "{harmless}");
        }
        for changing in [
            "begin execute 'x'; end",
            "begin EXECUTE format('x'); end",
            "begin set search_path = a; end",
            "begin -- x\n set search_path = a; end",
            "begin if true then set local a.b = 'c'; end if; end",
            "select set_config('a', 'b', false)",
            "declare c refcursor; begin return; end",
            "begin open $1 for select 1; end",
            "select pg_advisory_lock(1)",
            "prepare x as select 1",
            "begin create temp table x(); end",
            "begin 'broken",
            "begin perform U&\"set\\005fconfig\"('a', 'b', false); end",
            "select ts_stat('select 1')",
            "begin <<a>> prepare x as select 1; end",
            "select email as title into temp follows from users",
            "begin for r in explain analyze create temp table f as select 1 loop null; end loop; end",
            "begin return query call p(); end",
            "begin for r in call p() loop null; end loop; end",
            "begin atomic set a.b = 'c'; end",
            "begin insert into pg_temp.t values (1); end",
        ] {
            assert!(harmless_words(changing).is_none(), "{changing}");
        }
    }
}
