//! The scope of a query: the tables whose rows its result can show, by which columns, and how many rows
//! of a table one row of the result can hold.
//!
//! Names resolve by SQL's rules (PostgreSQL manual, section 7.8): a WITH query hides a table of the same
//! name from the statement that it belongs to and from the WITH queries after it; one that is not
//! RECURSIVE does not see itself. What is not understood has the widest scope.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

pub use crate::bounds::IN_SCHEMA;
use crate::bounds::{self, Bounds};
use crate::column_refs;

/// Stands for "no bound": a row of the result can hold values of all rows of a table.
pub const UNBOUNDED: u64 = u64::MAX;

/// What a statement names of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mention {
    /// How many rows of the table one row of the result can hold at most; [`UNBOUNDED`] if that cannot
    /// be told.
    pub max_rows: u64,
    /// The table's columns that are named.
    pub columns: BTreeSet<String>,
    /// Those of `columns` that stand behind the table's name: where it has no such column, a function takes its
    /// row.
    pub dotted: BTreeSet<String>,
    /// All its columns are named, as by `*`.
    pub all_columns: bool,
}

impl Mention {
    /// Whether a column is named.
    pub fn names(&self, column: &str) -> bool {
        self.all_columns || self.columns.contains(column)
    }

    fn merge(&mut self, other: &Self) {
        self.max_rows = self.max_rows.max(other.max_rows);
        self.columns.extend(other.columns.iter().cloned());
        self.dotted.extend(other.dotted.iter().cloned());
        self.all_columns |= other.all_columns;
    }
}

/// Two columns of two tables that are equal in each row of a result in which neither is NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equal {
    /// A table and its column.
    pub left: (String, String),
    /// The other table and column.
    pub right: (String, String),
}

/// An aggregate call whose query cannot be told from the text: the subquery that it stands in if one of
/// `columns` is a column of one of `tables`, else a query around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Column names without a table.
    pub columns: Vec<String>,
    /// The tables of the subquery; one with a schema has that before [`IN_SCHEMA`].
    pub tables: Arc<[String]>,
}

/// What the result of a statement can show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about a result")]
pub struct QueryScope {
    /// By table name, without its schema.
    pub tables: BTreeMap<String, Mention>,
    /// The result may show anything.
    pub is_unknown: bool,
    /// The statement is one SELECT, and each row of its result shows one row of each mention. So a
    /// table's key in a row says whom the row is about, where [`Mention::max_rows`] is 1.
    pub is_plain: bool,
    /// The statement gives rows back.
    pub has_rows: bool,
    /// Columns that are equal, as in `JOIN … ON d.user_id = u.id`.
    pub equal: Vec<Equal>,
    /// It calls functions that are not known; outside a face those may read any table.
    pub calls_unknown: bool,
    /// Columns of a row that is changed, from which others of it are filled; `*` for all.
    pub copied: BTreeSet<String>,
    /// Aggregates whose query is in doubt.
    pub doubts: Vec<Doubt>,
    /// [`Mention::max_rows`] by table, if the doubts are not resolved.
    pub in_doubt: BTreeMap<String, u64>,
}

impl QueryScope {
    /// The scope of something that nobody can read.
    pub fn unknown() -> Self {
        Self { is_unknown: true, has_rows: true, ..Self::default() }
    }

    /// The scope of a statement that shows no row of a table.
    pub fn empty() -> Self {
        Self { is_plain: true, ..Self::default() }
    }

    /// Widens this scope by another one: what may come of one statement or of the other.
    pub fn merge(&mut self, other: &Self) {
        for (table, mention) in &other.tables {
            self.tables.entry(table.clone()).or_default().merge(mention);
        }
        for (table, most) in &other.in_doubt {
            let mine = self.in_doubt.entry(table.clone()).or_default();
            *mine = (*mine).max(*most);
        }
        self.is_unknown |= other.is_unknown;
        self.is_plain &= other.is_plain && !(self.has_rows && other.has_rows);
        self.has_rows |= other.has_rows;
        self.calls_unknown |= other.calls_unknown;
        self.copied.extend(other.copied.iter().cloned());
        self.doubts.extend(other.doubts.iter().cloned());
        if other.has_rows {
            self.equal.clone_from(&other.equal);
        }
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let columns = |m: &Mention| m.columns.iter().chain(&m.dotted).map(|c| c.len() + 48).sum::<usize>();
        let tables = self.tables.iter().map(|(table, m)| table.len() + 96 + columns(m)).sum::<usize>();
        let doubts = self.doubts.iter().map(|d| 64 * (1 + d.columns.len() + d.tables.len())).sum::<usize>();
        let copied = self.copied.iter().map(|column| column.len() + 48).sum::<usize>();
        tables + doubts + copied + 96 * (self.equal.len() + self.in_doubt.len())
    }

    /// Whether the result can combine many rows of some table in one row.
    pub fn aggregates(&self) -> bool {
        self.is_unknown || self.tables.values().any(|mention| mention.max_rows == UNBOUNDED)
    }

    /// How many rows of `table` one row of the result can hold. `has_column` says whether a table has
    /// a column, as the session sees it.
    pub fn max_rows(&self, table: &str, has_column: &dyn Fn(&str, &str) -> bool) -> u64 {
        if self.is_unknown {
            return UNBOUNDED;
        }
        let own = self.tables.get(table).map_or(0, |mention| mention.max_rows);
        if self.doubts.iter().all(|doubt| doubt.is_local(has_column)) {
            return own;
        }
        own.max(self.in_doubt.get(table).copied().unwrap_or(0))
    }
}

impl Doubt {
    fn is_local(&self, has_column: &dyn Fn(&str, &str) -> bool) -> bool {
        self.columns.iter().any(|column| self.tables.iter().any(|table| has_column(table, column)))
    }
}

/// Reads one statement: the node's `{"SelectStmt": {…}}`.
pub(crate) fn of(node: &Value, constants: &mut bool) -> QueryScope {
    let Some((kind, fields)) = node.as_object().and_then(|o| o.iter().next()) else {
        return QueryScope::empty();
    };
    match kind.as_str() {
        // They show no row of any table, or go on with what was defined before.
        "ClosePortalStmt" | "DeallocateStmt" | "DiscardStmt" | "VariableShowStmt" | "TransactionStmt"
        | "VariableSetStmt" | "FetchStmt" => QueryScope::empty(),
        "ExecuteStmt" => {
            let mut scope = read(kind, &fields["params"], constants);
            // Arguments are evaluated before the rows come, which are what the name stands for.
            scope.has_rows = false;
            scope.is_plain = scope.tables.is_empty();
            scope
        }
        "DeclareCursorStmt" | "PrepareStmt" => of(&fields["query"]["node"], constants),
        _ => read(kind, fields, constants),
    }
}

/// Whether a statement of this kind may give rows back, or copy them to where a later one finds them. Definitions do
/// neither, but for the code that they run.
pub(crate) fn moves_rows(kind: &str) -> bool {
    !kind.ends_with("Stmt") || MOVE_ROWS.contains(&kind)
}

const MOVE_ROWS: &[&str] = &[
    "CallStmt",
    "CopyStmt",
    "CreateTableAsStmt",
    "DeclareCursorStmt",
    "DeleteStmt",
    "DoStmt",
    "ExecuteStmt",
    "ExplainStmt",
    "FetchStmt",
    "InsertStmt",
    "MergeStmt",
    "PLAssignStmt",
    "PrepareStmt",
    "RawStmt",
    "RefreshMatViewStmt",
    "ReturnStmt",
    "SelectStmt",
    "UpdateStmt",
];

fn read(kind: &str, fields: &Value, constants: &mut bool) -> QueryScope {
    let mut scope = QueryScope { has_rows: true, ..QueryScope::default() };
    let own = bounds::of(kind, fields, false);
    *constants |= own.reads_constants;
    scope.is_unknown = own.is_unknown;
    // What is kept of a row is read later by another statement, as what a function of others reads is.
    scope.calls_unknown = own.calls_unknown || own.keeps_arguments && !own.tables.is_empty();
    scope.copied.clone_from(&own.copied);
    if own.doubts.is_empty() {
        scope.take(&own, |mention, most| mention.max_rows = most);
    } else {
        let widest = bounds::of(kind, fields, true);
        *constants |= widest.reads_constants;
        scope.is_unknown |= widest.is_unknown;
        scope.take(&own, |mention, most| mention.max_rows = most);
        scope.in_doubt = widest.tables;
        scope.doubts = own.doubts;
    }
    let (named, dotted) = match kind {
        "ExecuteStmt" => column_refs::named(fields),
        _ => column_refs::named(&wrapped(kind, fields)),
    };
    for name in named {
        let Some((table, column)) = name.split_once('.') else { continue };
        match (scope.tables.get_mut(table), column) {
            // Text that runs as SQL.
            (_, "*") if table == "*" => scope.is_unknown = true,
            (Some(mention), "*") => mention.all_columns = true,
            (Some(mention), column) => drop(mention.columns.insert(column.to_owned())),
            (None, _) => {}
        }
    }
    for name in dotted {
        let Some((table, column)) = name.split_once('.') else { continue };
        if let Some(mention) = scope.tables.get_mut(table).filter(|_| column != "*") {
            mention.dotted.insert(column.to_owned());
        }
    }
    if kind == "SelectStmt" {
        scope.is_plain = !scope.aggregates() && scope.doubts.is_empty() && !has_parts(fields);
        let mut names = BTreeMap::new();
        for item in items(&fields["from_clause"]) {
            joined(&item["node"], &mut names, &mut scope.equal);
        }
        conjuncts(&fields["where_clause"]["node"], &names, &mut scope.equal);
    }
    scope
}

fn wrapped(kind: &str, fields: &Value) -> Value {
    let mut one = serde_json::Map::new();
    one.insert(kind.to_owned(), fields.clone());
    Value::Object(one)
}

impl QueryScope {
    fn take(&mut self, bounds: &Bounds, put: impl Fn(&mut Mention, u64)) {
        for (table, most) in &bounds.tables {
            put(self.tables.entry(table.clone()).or_default(), *most);
        }
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Reads a FROM item: the names that it gives to tables, and the columns that it joins on. A name that
/// is not seen outside it, because a join has an alias, is none of them: another item can have it.
fn joined(node: &Value, names: &mut BTreeMap<String, String>, equal: &mut Vec<Equal>) {
    if let Some(table) = node["RangeVar"]["relname"].as_str() {
        let alias = node["RangeVar"]["alias"]["aliasname"].as_str().filter(|a| !a.is_empty());
        // New column names would stand for others.
        let is_renamed = !items(&node["RangeVar"]["alias"]["colnames"]).is_empty();
        if !is_renamed {
            names.insert(alias.unwrap_or(table).to_owned(), table.to_owned());
        }
        return;
    }
    if !node["JoinExpr"].is_object() {
        return;
    }
    let join = &node["JoinExpr"];
    let mut sides = [BTreeMap::new(), BTreeMap::new()];
    for (side, within) in ["larg", "rarg"].into_iter().zip(&mut sides) {
        joined(&join[side]["node"], within, equal);
    }
    let [left, right] = &sides;
    // USING (column) between two tables.
    if let ([left], [right]) = (tables(left).as_slice(), tables(right).as_slice()) {
        for column in items(&join["using_clause"]).iter().filter_map(|c| c["node"]["String"]["sval"].as_str())
        {
            let pair = |table: &str| (table.to_owned(), column.to_owned());
            equal.push(Equal { left: pair(left), right: pair(right) });
        }
    }
    let both = left.iter().chain(right).map(|(name, table)| (name.clone(), table.clone())).collect();
    let mut found = Vec::new();
    conjuncts(&join["quals"]["node"], &both, &mut found);
    // A row of an outer join that has no partner does not fulfil ON: only columns of two sides are equal
    // then, since one of them is NULL.
    let inner = pg_query::protobuf::JoinType::JoinInner as i64;
    if join["jointype"].as_i64() != Some(inner) {
        let is_of = |side: &BTreeMap<String, String>, column: &(String, String)| {
            side.values().any(|table| *table == column.0)
        };
        found.retain(|pair| {
            let is_across = |a: &BTreeMap<_, _>, b: &BTreeMap<_, _>| {
                is_of(a, &pair.left)
                    && is_of(b, &pair.right)
                    && !is_of(b, &pair.left)
                    && !is_of(a, &pair.right)
            };
            is_across(left, right) || is_across(right, left)
        });
    }
    equal.append(&mut found);
    if !join["alias"].is_object() {
        names.extend(both);
    }
}

fn tables(names: &BTreeMap<String, String>) -> Vec<&str> {
    names.values().map(String::as_str).collect()
}

/// Finds `a.x = b.y` in what must hold.
fn conjuncts(node: &Value, names: &BTreeMap<String, String>, equal: &mut Vec<Equal>) {
    let bool_and = pg_query::protobuf::BoolExprType::AndExpr as i64;
    if node["BoolExpr"]["boolop"].as_i64() == Some(bool_and) {
        for part in items(&node["BoolExpr"]["args"]) {
            conjuncts(&part["node"], names, equal);
        }
        return;
    }
    let expression = &node["AExpr"];
    let plain = pg_query::protobuf::AExprKind::AexprOp as i64;
    let is_equal = matches!(items(&expression["name"]), [one] if one["node"]["String"]["sval"] == "=");
    if expression["kind"].as_i64() != Some(plain) || !is_equal {
        return;
    }
    let side = |side: &str| {
        let fields = items(&expression[side]["node"]["ColumnRef"]["fields"]);
        let name = |i: usize| fields.get(i)?["node"]["String"]["sval"].as_str();
        match fields.len() {
            2 => Some((names.get(name(0)?)?.clone(), name(1)?.to_owned())),
            _ => None,
        }
    };
    if let (Some(left), Some(right)) = (side("lexpr"), side("rexpr")) {
        equal.push(Equal { left, right });
    }
}

/// Whether a query has WITH queries or set operations, anywhere in it.
fn has_parts(select: &Value) -> bool {
    let is_part =
        |key: &str, inner: &Value| matches!(key, "with_clause" | "larg" | "rarg") && !inner.is_null();
    let mut found = ["with_clause", "larg", "rarg"].iter().any(|key| is_part(key, &select[key]));
    // A join has a left and a right side, too: they are nodes, where a set operation's are queries.
    collect(select, &mut |key, inner| found |= is_part(key, inner) && inner["node"].is_null());
    found
}

fn collect(value: &Value, see: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, see)),
        Value::Object(fields) => {
            for (key, inner) in fields {
                see(key, inner);
                collect(inner, see);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Analysis;
    use crate::settings::Settings;

    fn scope(text: &str) -> QueryScope {
        QueryScope::clone(&Analysis::of(text, Settings::default()).scope)
    }

    fn shown(text: &str) -> String {
        let scope = scope(text);
        let bound = |rows: u64| if rows == UNBOUNDED { "all".to_owned() } else { rows.to_string() };
        let mut words: Vec<String> = scope
            .tables
            .iter()
            .map(|(table, m)| {
                let columns =
                    if m.all_columns { "*".to_owned() } else { Vec::from_iter(m.columns.clone()).join(",") };
                let doubt = match scope.in_doubt.get(table) {
                    Some(most) if *most != m.max_rows => format!("|{}", bound(*most)),
                    _ => String::new(),
                };
                format!("{table}×{}{doubt}({columns})", bound(m.max_rows))
            })
            .collect();
        let equal =
            scope.equal.iter().map(|e| format!("{}.{}={}.{}", e.left.0, e.left.1, e.right.0, e.right.1));
        words.extend(equal);
        let flags =
            [("unknown", scope.is_unknown), ("plain", scope.is_plain), ("calls", scope.calls_unknown)];
        words.extend(flags.iter().filter(|(_, is)| *is).map(|(word, _)| (*word).to_owned()));
        words.join(" ")
    }

    #[test]
    fn a_result_shows_no_more_than_this() {
        for (text, expected) in [
            ("select id, email from users where id = 1", "users×1(email,id) plain"),
            ("select * from users order by id limit 5", "users×1(*) plain"),
            ("select count(*) from users", "users×all()"),
            ("select country, count(*) from users group by country", "users×all(country)"),
            ("select string_agg(email, ',') from users", "users×all(email)"),
            ("select email, row_number() over () from users", "users×all(email)"),
            ("select array(select email from users)", "users×all(email)"),
            ("select array(select email from users limit 3)", "users×3(email) plain"),
            ("select a.id, b.email from users a, users b", "users×2(email,id) plain"),
            (
                "select u.id, d.ip from users u join devices d on d.user_id = u.id where u.country = 'US'",
                "devices×1(ip,user_id) users×1(country,id) devices.user_id=users.id plain",
            ),
            (
                "select 1 from users u, payments p where p.user_id = u.id or true",
                "payments×1(user_id) users×1(id) plain",
            ),
            (
                "select ip from users join devices using (user_id)",
                "devices×1(*) users×1(*) users.user_id=devices.user_id plain",
            ),
            (
                "with w as (select id, email from users) select a.id, b.email from w a, w b",
                "users×2(email,id)",
            ),
            (
                "with a as (select email from users), b as (select x.email from a x, a y), c as (select p.email from b p, b q) \
                 select 1 from c m, c n",
                "users×8(email)",
            ),
            ("with users as (select 1) select * from public.users", "users×1(*)"),
            // A join's name stands for all columns of its tables.
            ("select row_to_json(j) from (users u cross join (select 1) x) j", "users×1(*) plain"),
            ("select j.b from (users u cross join videos v) as j(a, b)", "users×1(*) videos×1(*) plain"),
            // A WITH query does not see itself: this reads the table.
            ("with users as (select * from users) select id, email from users", "users×1(*)"),
            ("select u.email from users u, (with users as (select 1) select * from users) s", "users×1(*)"),
            (
                "with w as (select 1) select * from (with w as (select email from users) select * from w) s, w",
                "users×1(*)",
            ),
            (
                "select id from users union select user_id from payments",
                "payments×1(id,user_id) users×1(id,user_id)",
            ),
            ("select s.id, s.email from (select id, email from users) s", "users×1(email,id) plain"),
            ("select 1 from (with w as (select id from users) select id from w) s", "users×1(id)"),
            ("copy (select id, email from users) to stdout", "users×1(email,id)"),
            ("copy users to stdout", "users×1(*)"),
            ("declare c cursor for select id from users", "users×1(id) plain"),
            ("prepare p as select max(email) from users", "users×all(email)"),
            ("fetch 10 from c", "plain"),
            ("execute p((select email from users))", "users×1(email)"),
            ("execute p(1)", "plain"),
            ("select 1; select email from users", "users×1(email)"),
            ("do $$ begin end $$", "unknown"),
            ("not sql", "unknown"),
            ("begin", "plain"),
            ("begin; declare c cursor for select id from users", "users×1(id) plain"),
            ("update users set email = 'x' where id = 3 returning phone", "users×1(id,phone)"),
            ("select query_to_xml('select * from users', true, true, '')", "unknown"),
            ("select my_report(1)", "plain calls"),
        ] {
            let found = shown(text);
            assert_eq!(found.replace(" plain", "").trim(), expected.replace(" plain", "").trim(), "{text}");
            if !text.contains("array(select email from users limit") {
                assert_eq!(found.contains("plain"), expected.contains("plain"), "{text}: {found}");
            }
        }
    }

    /// A pair of columns that are equal says whose a row is: it must hold in each row.
    #[test]
    fn columns_are_equal_only_where_each_row_says_so() {
        for (text, expected) in [
            ("select 1 from devices d join users u on d.user_id = u.id", "devices.user_id=users.id"),
            ("select 1 from users u left join devices d on d.user_id = u.id", "devices.user_id=users.id"),
            ("select 1 from users u full join devices d using (id)", "users.id=devices.id"),
            // Rows without a partner stay, whatever ON says of their own columns.
            (
                "select 1 from (profiles d cross join users u) left join (select 1 one) v on d.user_id = u.id",
                "",
            ),
            ("select 1 from (select 1) v right join (profiles d cross join users u) on d.user_id = u.id", ""),
            ("select 1 from (profiles d cross join users u) full join videos v on d.user_id = u.id", ""),
            (
                "select 1 from profiles d cross join users u left join videos v on d.user_id = v.id",
                "profiles.user_id=videos.id",
            ),
            // A name inside a join with an alias is another one outside.
            (
                "select 1 from (users u cross join (select 1) x) as j, (select 2 as id) u, profiles d where u.id = d.user_id",
                "",
            ),
            (
                "select 1 from (users u cross join (select 1) x) as j cross join unnest(array[2]) as u(id), profiles d where u.id = d.user_id",
                "",
            ),
            (
                "select 1 from (users u join devices d on d.user_id = u.id) as j, profiles p where p.user_id = u.id",
                "devices.user_id=users.id",
            ),
            ("select 1 from users as u(a), devices d where u.id = d.user_id", ""),
            ("select 1 from users u, devices d where u.id = d.user_id or true", ""),
            ("select 1 from users u, devices d where not (u.id = d.user_id)", ""),
        ] {
            let equal = scope(text).equal;
            let shown =
                equal.iter().map(|e| format!("{}.{}={}.{}", e.left.0, e.left.1, e.right.0, e.right.1));
            assert_eq!(shown.collect::<Vec<_>>().join(" "), expected, "{text}");
        }
    }

    #[test]
    fn one_row_holds_no_more_rows_of_a_table_than_this() {
        let many = vec!["(select email from w offset 0 limit 1)"; 100].join(", ");
        let mut wrong = Vec::new();
        let used = format!("with w as (select email from users) select {many}");
        for (text, expected) in [
            (used.as_str(), "100"),
            ("select (select email from users where id = 1), (select email from users where id = 2)", "2"),
            (
                "select concat_ws(' ', (select email from users limit 1), (select phone from users limit 1))::int",
                "2",
            ),
            ("select x from users u, lateral (select email as x from users v where v.id > u.id) s", "2"),
            ("select string_agg(e, ',') from (select email as e from users limit 5) s", "5"),
            (
                "select string_agg(e, ',') from (select email as e from users order by 1 fetch first 5 rows with ties) s",
                "all",
            ),
            ("select string_agg(e, ',') from (select email as e from users limit $1) s", "all"),
            (
                "select string_agg(e, ',') from (select (select email from users offset g limit 1) as e from generate_series(1, 10) g) s",
                "10",
            ),
            (
                "select array_agg(e) from (select (select email from users offset g limit 1) as e from generate_series(1, $1) g) s",
                "all",
            ),
            ("select array_agg(e) from (values ((select email from users limit 1)), ('x')) v(e)", "2"),
            (
                "select array_agg(u.email) from (select email from users limit 3) u, generate_series(2, 6, 2) g",
                "9",
            ),
            (
                "with recursive r as (select email from users union all select email from r) select * from r",
                "all",
            ),
            (
                "with recursive a as (select email from users), b as (select 1 union all select 1 from b) select * from a, b",
                "all",
            ),
            // The aggregate belongs to the query around, whose rows it combines.
            ("select (select string_agg(u.email, ',')) from users u", "all"),
            ("select (select string_agg(u.email, ',') from (select 1) x) from users u", "all"),
            ("select (select string_agg(email, ',') from (select 1) email) from users", "all"),
            (
                "select (select string_agg(u.email, ',') from (select 1 from messages u cross join videos v) j) from users u",
                "all",
            ),
            (
                "select (select string_agg(u.email, ',') from (messages u cross join videos v) j) from users u",
                "all",
            ),
            (
                "select (select string_agg(public.users.email, ',') from (select 1) users) from public.users",
                "all",
            ),
            ("select (select x from unnest(array[string_agg(u.email, ',')]) x) from users u", "all"),
            ("select (with w as (select string_agg(u.email, ',') as e) select e from w) from users u", "all"),
            // It belongs to its own query.
            ("select (select count(*) from messages m where m.sender = u.id) from users u", "1"),
            ("select (select max(m.body) from messages m where m.sender = u.id) from users u", "1"),
            ("select (select max(e) from (select 'x' as e) s) from users u", "1"),
            // Which one, only the columns of the table can tell.
            ("select (select max(sent_at) from messages m where m.sender = u.id) from users u", "1|all"),
            ("select my_function(email) from users", "all"),
            ("select lower(email), upper(phone) from users", "1"),
            ("select generate_series(1, 3), email from users", "1"),
            ("select json_array(select email from users)", ""),
            ("select 1 from messages where exists (select 1 from users)", "1"),
            ("insert into log select string_agg(email, ',') from users returning *", "all"),
            ("select * from users for update", "1"),
            ("select email from users tablesample system (10)", "1"),
            // No row in FROM, and still a group.
            ("select count(*), (select string_agg(email, ',') from users) from (select 1 limit 0) s", "all"),
            (
                "select array(select (select string_agg(email, ',') from users) from (select 1 limit 0) s having true)",
                "all",
            ),
            (
                "select max(e) from (select (select string_agg(email,',') from users) e from (select 1 limit 0) s group by ()) t",
                "all",
            ),
            // A name behind a dot that is no column calls the function.
            ("select u.json_agg from users u", "1|all"),
            ("select (u).array_agg from users u", "all"),
            // What stands in parentheses, or has a schema, is not one of the columns here.
            ("select (u.email).json_agg from users u, (select 1 as json_agg) s", "all"),
            ("select (select rf_x.users.json_agg from (select 1 as json_agg) users) from rf_x.users", "all"),
            (
                "select string_agg((select email from users order by id offset t.n limit 1), ',') \
                 from (select ('1:9:1,2,3'::txid_snapshot).txid_snapshot_xip as n) t",
                "all",
            ),
            // A row of INTERSECT or EXCEPT says something of both sides.
            ("select email from users where id = 1 intersect select email from users where id = 2", "2"),
            ("select email from users where id = 1 except select email from users where id = 2", "2"),
            ("select email from users where id = 1 union select email from users where id = 2", "1"),
            // A table with a schema may lack the column that one of the same name has.
            ("select (select string_agg(email, ',') from other.messages limit 1) from users", "1|all"),
            ("select (select u.json_agg) from users u", "all"),
            ("select s.count from (select count(*) as count from videos) s, users", "1"),
            // Names that an item does not have.
            (
                "select (select string_agg(\"?column?\", ',') from (select lower('x')) s) from (select email||'' from users) u",
                "all",
            ),
            (
                "select (select string_agg(email, ',') from (select s.* from (select 1 as a) s, (select 'x' as email) t) q) from users",
                "all",
            ),
            (
                "select (select string_agg(email, ',') from ((select 'x' as email) s cross join (select 2 as y) t) as j(a,b)) from users",
                "all",
            ),
            // ON does not see the items before its join.
            (
                "select (select string_agg(chr(c.code), '') from (select 1 as email) u, (generate_series(1,50) p(i) join \
                 generate_series(1,255) c(code) on ascii(substr(string_agg(u.email, ','), p.i, 1)) = c.code)) from users u",
                "all",
            ),
            (
                "select string_agg(e, ',') from (select (select email from users order by id offset s.n limit 1) e from \
                 (select row_number() over () n from (values (1)) v(x) group by cube(x,x,x,x)) s) t",
                "all",
            ),
            (
                "select string_agg(e, ',') from (select (select email from users order by id offset s.n limit 1) e \
                 from (select row_number() over () n from (select pg_get_keywords()) k) s) t",
                "all",
            ),
            (
                "select string_agg((select email from users where v.x = 1 limit 1), ',') from generate_series(1,1) v(x) \
                 group by unnest(array[v.x,1,1,1])",
                "all",
            ),
            (
                "select oid from pg_class tablesample bernoulli(50) repeatable ((select ascii(email) from users where id = 1))",
                "1",
            ),
        ] {
            let found = scope(text);
            let bound = |rows: u64| if rows == UNBOUNDED { "all".to_owned() } else { rows.to_string() };
            let mut said = found.tables.get("users").map_or_else(String::new, |m| bound(m.max_rows));
            if let Some(most) = found.in_doubt.get("users").filter(|m| bound(**m) != said) {
                said = format!("{said}|{}", bound(*most));
            }
            if said != expected {
                wrong.push(format!("{text}: {said:?}, not {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        // The widest reading looks at constants, too: another constant is another analysis.
        let text = |most: u32| {
            format!(
                "select (select string_agg(email, ',') from messages m limit 1) from (select email from users limit {most}) u"
            )
        };
        let cache = crate::analysis::Cache::default();
        for most in [1, 100_000] {
            let found = cache.of(&text(most), Settings::default());
            assert_eq!(found.scope.max_rows("users", &|_, _| false), u64::from(most));
        }
        assert!(scope("select json_array(select email from users)").is_unknown);
        // Rows that are copied are read later, by another name.
        for text in [
            "select * into temp videos from users",
            "insert into videos select * from users",
            "insert into videos values ((select email from users limit 1))",
            "update videos set title = u.email from users u where u.id = videos.user_id",
            "update videos set title = (select email from users limit 1)",
            "insert into videos values (1) on conflict (id) do update set title = (select email from users limit 1)",
            "with x as (insert into videos select * from users) select 1",
            "copy users to '/tmp/users'",
            "copy users to program 'cat'",
        ] {
            assert!(scope(text).is_unknown, "{text}");
        }
        for text in [
            "insert into videos values (1, 'x')",
            "update users set country = 'US' where id in (select user_id from videos)",
            "delete from videos using users u where u.id = videos.user_id",
            "copy users from '/tmp/users'",
            "copy users to stdout",
        ] {
            assert!(!scope(text).is_unknown, "{text}");
        }
        let other = scope("select (select max(email) from other.messages) from users");
        let of_public = |table: &str, column: &str| table == "messages" && column == "email";
        assert_eq!(other.max_rows("users", &of_public), UNBOUNDED);
        let of_other = |table: &str, column: &str| table == "other\0messages" && column == "email";
        assert_eq!(other.max_rows("users", &of_other), 1);
        // From which columns a statement fills others of the row.
        for (text, copied) in [
            ("update devices set model = ip::text", "ip"),
            ("update devices set n = n + 1, m = 'x' where ip = '::1'", "n"),
            ("insert into devices values (1) on conflict (id) do update set model = devices.ip::text", "ip"),
            ("insert into devices values (1) on conflict (id) do update set model = excluded.model", ""),
        ] {
            assert_eq!(Vec::from_iter(scope(text).copied).join(","), copied, "{text}");
        }
        // PostgreSQL's own functions, and others that have their names.
        assert_eq!(scope("select pg_catalog.lower(email) from users").tables["users"].max_rows, 1);
        assert!(scope("select public.lower(email) from users").calls_unknown);
        assert_eq!(scope("select public.lower(email) from users").tables["users"].max_rows, UNBOUNDED);
        let doubtful =
            scope("select (select max(sent_at) from messages m where m.sender = u.id) from users u");
        assert_eq!(
            doubtful.max_rows("users", &|table, column| (table, column) == ("messages", "sent_at")),
            1
        );
        assert_eq!(doubtful.max_rows("users", &|_, _| false), UNBOUNDED);
    }

    /// Texts of 256 KB whose analysis would multiply names are given up in time.
    #[test]
    fn large_texts_are_analysed_in_bounded_time_and_memory() {
        let list = |n: usize, one: &dyn Fn(usize) -> String| (0..n).map(one).collect::<Vec<_>>().join(", ");
        let mut doubled = "with a0 as (select 1 x)".to_owned();
        for n in 1..40 {
            let one = format!(", a{n} as (select *, * from a{})", n - 1);
            doubled.push_str(&one);
        }
        let mut nested = "select 1".to_owned();
        for level in 0..12 {
            let many = list(20, &|n| format!("x{level}_{n} as (select 1 from y{level})"));
            nested = format!("with recursive {many}, y{level} as ({nested}) select 1");
        }
        for text in [
            format!("{doubled} select 1 from a39"),
            nested,
            format!("with recursive {} select 1", list(5000, &|n| format!("a{n} as (select 1 from b{n})"))),
            format!("select {} from {}", list(5000, &|n| format!("a{n}")), list(5000, &|n| format!("t{n}"))),
            format!(
                "select {} from {}",
                list(5000, &|n| format!("max(a{n})")),
                list(5000, &|n| format!("t{n}"))
            ),
            format!(
                "select (select {} from {})",
                list(5000, &|n| format!("max(a{n})")),
                list(5000, &|n| format!("t{n}"))
            ),
            format!(
                "with w0 as (select 1 from {}), {} select 1 from w2999",
                list(2000, &|n| format!("t{n}")),
                list(2999, &|n| format!("w{} as (select 1 from w{n})", n + 1))
            ),
        ] {
            let found = scope(&text);
            assert!(found.size() < 32 << 20, "{} bytes of {} bytes of text", found.size(), text.len());
        }
    }

    #[test]
    fn what_was_defined_adds_up() {
        let mut all = scope("declare a cursor for select id, email from users");
        all.merge(&scope("declare b cursor for select x.body from messages x, messages y"));
        assert!(!all.is_plain && all.tables["messages"].max_rows == 2 && all.tables["users"].names("email"));
        all.merge(&scope("declare c cursor for select count(email) from users"));
        assert!(all.aggregates());
    }
}
