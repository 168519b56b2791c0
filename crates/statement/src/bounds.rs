//! How many rows of each table one row of a result can hold values of.
//!
//! Each query level is read from its FROM items up. A table in FROM adds one row, a subquery in FROM as
//! many as one of its rows holds, a scalar subquery in an expression likewise. An aggregate or a window
//! combines all rows of FROM: their number is bounded where FROM is (LIMIT, VALUES, `generate_series`
//! with constants), otherwise there is no bound. ARRAY(SELECT …) is an aggregate of its subquery.
//!
//! An aggregate belongs to the innermost query that one of its columns belongs to (PostgreSQL manual,
//! section 4.2.7), which can be a query around the one that it stands in. Where the text alone does not
//! tell, [`Bounds::doubts`] says what must be looked up.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;

use serde_json::Value;

use crate::functions::{self, Function, function};
use crate::scope::{Doubt, UNBOUNDED};

/// Parts of a statement that are understood: a row of the result depends on them in one row only.
/// Any other node makes the scope unknown.
const EXPRESSIONS: &[&str] = &[
    "AArrayExpr",
    "AConst",
    "AExpr",
    "AIndices",
    "AIndirection",
    "AStar",
    "Alias",
    "BitString",
    "BoolExpr",
    "Boolean",
    "BooleanTest",
    "CaseExpr",
    "CaseWhen",
    "CoalesceExpr",
    "CollateClause",
    "ColumnDef",
    "ColumnRef",
    "CommonTableExpr",
    "CurrentOfExpr",
    "DefElem",
    "Float",
    "FuncCall",
    "GroupingFunc",
    "GroupingSet",
    "IndexElem",
    "Integer",
    "JoinExpr",
    "List",
    "LockingClause",
    "MinMaxExpr",
    "MultiAssignRef",
    "NamedArgExpr",
    "NullTest",
    "ParamRef",
    "RangeFunction",
    "RangeSubselect",
    "RangeTableFunc",
    "RangeTableFuncCol",
    "RangeTableSample",
    "RangeVar",
    "ResTarget",
    "RowExpr",
    "SetToDefault",
    "SortBy",
    "SqlvalueFunction",
    "String",
    "SubLink",
    "TypeCast",
    "TypeName",
    "WindowDef",
    "XmlExpr",
    "XmlSerialize",
];

/// The deepest nesting that is followed. PostgreSQL's own parser stops earlier on most texts.
const MAX_DEPTH: usize = 400;
/// The most tables, FROM items of one query, WITH queries and doubts of a statement. Beyond them the scope
/// is unknown: their products would take more memory and time than an answer is worth.
const MAX_TABLES: usize = 300;
const MAX_ITEMS: usize = 300;
const MAX_NAMES: usize = 300;
const MAX_DOUBTS: usize = 50;

/// Stands between a schema and a table in [`Doubt::tables`]; no name has it.
pub const IN_SCHEMA: char = '\0';

type Rows = BTreeMap<String, u64>;

/// What was found about a statement.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about a statement")]
pub(crate) struct Bounds {
    /// By table: how many of its rows one row of the result can hold.
    pub(crate) tables: Rows,
    pub(crate) is_unknown: bool,
    pub(crate) calls_unknown: bool,
    /// A call in it keeps values where a later statement can read them.
    pub(crate) keeps_arguments: bool,
    /// A constant's value was looked at: another text of the same shape may have other bounds.
    pub(crate) reads_constants: bool,
    pub(crate) doubts: Vec<Doubt>,
    /// Columns of the changed row from which the statement fills others.
    pub(crate) copied: BTreeSet<String>,
}

/// A query's result.
#[derive(Clone, Debug, Default)]
struct Rowset {
    /// How many rows it has at most.
    count: u64,
    /// Whether `count` follows from the value of a constant.
    by_constant: bool,
    /// How many rows of each table one of them can hold.
    holds: Rows,
    /// The names of its columns in order, as far as they are known; `None` if not even their number is.
    columns: Columns,
    /// An aggregate in it belongs to a query around it.
    escapes: bool,
}

type Columns = Option<Vec<Option<String>>>;

/// A FROM item's name.
struct Item {
    name: String,
    table: Option<String>,
    columns: Columns,
}

/// What the expressions of one query level need.
#[derive(Default)]
struct Level {
    items: Vec<Item>,
    /// Subqueries in expressions, for one row.
    holds: Rows,
    /// An aggregate, a window or an unknown function combines the rows of FROM.
    aggregates: bool,
    /// An aggregate belongs to a query around this one.
    escapes: bool,
    /// A function in the target list may give so many rows for each row.
    factor: u64,
    /// Whether `factor` follows from the value of a constant.
    by_constant: bool,
}

/// WITH queries that a name can stand for, the innermost last.
#[derive(Clone, Default)]
struct Names<'a>(Vec<(&'a str, Rc<Rowset>)>);

struct Reader {
    bounds: Bounds,
    /// An aggregate in doubt counts for the queries around it, too.
    widest: bool,
    depth: usize,
    /// How many queries stand around what is read.
    queries: usize,
}

/// Reads a statement of `kind`. With `widest`, aggregates in doubt are taken to belong to all queries
/// around them.
pub(crate) fn of(kind: &str, fields: &Value, widest: bool) -> Bounds {
    let mut reader = Reader { bounds: Bounds::default(), widest, depth: 0, queries: 0 };
    let rowset = reader.statement(kind, fields, &Names::default());
    reader.bounds.is_unknown |= rowset.holds.len() > MAX_TABLES;
    reader.bounds.tables = rowset.holds;
    // A table that is read holds at least one row of an answer.
    for rows in reader.bounds.tables.values_mut() {
        *rows = (*rows).max(1);
    }
    reader.bounds
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> Option<&str> {
    value["node"]["String"]["sval"].as_str()
}

fn filled<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value[key].as_str().filter(|s| !s.is_empty())
}

fn add(to: &mut Rows, from: &Rows, factor: u64) {
    for (table, rows) in from {
        let most = to.entry(table.clone()).or_default();
        *most = most.saturating_add(rows.saturating_mul(factor));
    }
}

fn widen(to: &mut Rows, from: &Rows) {
    for (table, rows) in from {
        let most = to.entry(table.clone()).or_default();
        *most = (*most).max(*rows);
    }
}

/// The one node of a wrapper: its kind and its fields.
fn node(value: &Value) -> Option<(&str, &Value)> {
    let (kind, fields) = value["node"].as_object()?.iter().next()?;
    Some((kind, fields))
}

impl Reader {
    fn statement<'a>(&mut self, kind: &str, fields: &'a Value, names: &Names<'a>) -> Rowset {
        match kind {
            "SelectStmt" => self.select(fields, names),
            "InsertStmt" | "UpdateStmt" | "DeleteStmt" => self.change(fields, names),
            "CopyStmt" => {
                // What goes to a file, or to a program, can come back by another way.
                self.bounds.is_unknown |= filled(fields, "filename").is_some() && fields["is_from"] != true;
                match node(&fields["query"]) {
                    Some((kind, inner)) => self.statement(kind, inner, names),
                    None => match filled(&fields["relation"], "relname") {
                        Some(table) => table_rows(table),
                        None => self.strange(),
                    },
                }
            }
            // The arguments of EXECUTE.
            "ExecuteStmt" => {
                let mut level = Level { factor: 1, ..Level::default() };
                self.expression(fields, &mut level, names);
                Rowset { count: 1, holds: level.holds, ..Rowset::default() }
            }
            _ => self.strange(),
        }
    }

    fn strange(&mut self) -> Rowset {
        self.bounds.is_unknown = true;
        Rowset { count: UNBOUNDED, ..Rowset::default() }
    }

    /// INSERT, UPDATE, DELETE with RETURNING.
    fn change<'a>(&mut self, fields: &'a Value, names: &Names<'a>) -> Rowset {
        let mut names = names.clone();
        let mut level = Level { factor: 1, ..Level::default() };
        level.escapes |= self.with(&fields["with_clause"], &mut names);
        let mut holds = Rows::new();
        if let Some(table) = filled(&fields["relation"], "relname") {
            add(&mut holds, &table_rows(table).holds, 1);
            level.items.push(item(&fields["relation"], Some(table)));
        }
        // Rows that are copied from other tables: who reads the copy later reads those.
        let mut copies = false;
        for list in ["from_clause", "using_clause"] {
            for item in items(&fields[list]) {
                let rows = self.read_item(item, &mut level, &names);
                copies |= list == "from_clause" && !rows.holds.is_empty();
                add(&mut holds, &rows.holds, 1);
                level.escapes |= rows.escapes;
            }
        }
        if let Some((kind, source)) = node(&fields["select_stmt"]) {
            let rows = self.statement(kind, source, &names);
            copies |= !rows.holds.is_empty();
            add(&mut holds, &rows.holds, 1);
        }
        let assigned = ["target_list", "on_conflict_clause"];
        let rows: Vec<String> = level.items.iter().map(|item| item.name.clone()).collect();
        for list in assigned {
            copied(&fields[list], &rows, &mut self.bounds.copied);
            let before = std::mem::take(&mut level.holds);
            self.expression(&fields[list], &mut level, &names);
            copies |= !level.holds.is_empty();
            add(&mut level.holds, &before, 1);
        }
        self.bounds.is_unknown |= copies;
        let read = ["relation", "with_clause", "from_clause", "using_clause", "select_stmt"];
        let read: Vec<&str> = read.into_iter().chain(assigned).collect();
        self.rest(fields, &read, &mut level, &names);
        let mut all = holds;
        if level.aggregates {
            for rows in all.values_mut() {
                *rows = UNBOUNDED;
            }
        }
        add(&mut all, &level.holds, 1);
        Rowset { count: UNBOUNDED, holds: all, escapes: level.escapes, ..Rowset::default() }
    }

    /// Walks all fields of a statement but those that were read already. A field that a newer
    /// PostgreSQL adds is among them.
    fn rest<'a>(&mut self, fields: &'a Value, read: &[&str], level: &mut Level, names: &Names<'a>) {
        for (key, inner) in fields.as_object().into_iter().flatten() {
            if !read.contains(&key.as_str()) {
                self.expression(inner, level, names);
            }
        }
    }

    /// Reads WITH queries and adds their names. Returns whether an aggregate in one of them belongs to
    /// a query around.
    fn with<'a>(&mut self, clause: &'a Value, names: &mut Names<'a>) -> bool {
        let queries: Vec<&'a Value> =
            items(&clause["ctes"]).iter().map(|c| &c["node"]["CommonTableExpr"]).collect();
        if names.0.len() + queries.len() > MAX_NAMES {
            self.bounds.is_unknown = true;
            return false;
        }
        if clause["recursive"] == true && is_recursive(&queries) {
            return self.with_recursive(&queries, names);
        }
        let mut escapes = false;
        for query in queries {
            let name = query["ctename"].as_str().unwrap_or_default();
            let Some((kind, fields)) = node(&query["ctequery"]) else { continue };
            let mut rows = self.statement(kind, fields, names);
            rows.columns = rename(rows.columns.take(), names_of(&query["aliascolnames"]));
            escapes |= rows.escapes;
            names.0.push((name, Rc::new(rows)));
        }
        escapes
    }

    /// WITH RECURSIVE of which a query uses itself, or one after it: what any of them reads, a row of each
    /// can hold without a bound.
    fn with_recursive<'a>(&mut self, queries: &[&'a Value], names: &mut Names<'a>) -> bool {
        let name = |query: &&'a Value| query["ctename"].as_str().unwrap_or_default();
        let mut inner = names.clone();
        let unread = Rc::new(Rowset { count: UNBOUNDED, ..Rowset::default() });
        inner.0.extend(queries.iter().map(|query| (name(query), Rc::clone(&unread))));
        let mut all = Rowset { count: UNBOUNDED, ..Rowset::default() };
        for query in queries {
            let Some((kind, fields)) = node(&query["ctequery"]) else { continue };
            let rows = self.statement(kind, fields, &inner);
            all.escapes |= rows.escapes;
            all.holds.extend(rows.holds.into_keys().map(|table| (table, UNBOUNDED)));
        }
        let (escapes, all) = (all.escapes, Rc::new(all));
        names.0.extend(queries.iter().map(|query| (name(query), Rc::clone(&all))));
        escapes
    }

    fn select<'a>(&mut self, select: &'a Value, names: &Names<'a>) -> Rowset {
        self.depth += 1;
        self.queries += 1;
        let rows = if self.depth > MAX_DEPTH { self.strange() } else { self.select_within(select, names) };
        self.queries -= 1;
        self.depth -= 1;
        if rows.holds.len() > MAX_TABLES {
            return self.strange();
        }
        rows
    }

    fn select_within<'a>(&mut self, select: &'a Value, names: &Names<'a>) -> Rowset {
        // Who reads the new table reads a copy.
        self.bounds.is_unknown |= select["into_clause"].is_object();
        let mut names = names.clone();
        let mut level = Level { factor: 1, ..Level::default() };
        level.escapes |= self.with(&select["with_clause"], &mut names);
        let (left, right) = (&select["larg"], &select["rarg"]);
        let mut rows = if left.is_object() || right.is_object() {
            self.queries -= 1; // they stand beside each other, not in this one
            let left = self.select(left, &names);
            let right = self.select(right, &names);
            self.queries += 1;
            let mut rows = left;
            rows.count = rows.count.saturating_add(right.count);
            rows.by_constant |= right.by_constant;
            // A row of UNION comes from one side. One of INTERSECT or EXCEPT says something of both.
            let union = pg_query::protobuf::SetOperation::SetopUnion as i64;
            match select["op"].as_i64() {
                Some(op) if op == union => widen(&mut rows.holds, &right.holds),
                _ => add(&mut rows.holds, &right.holds, 1),
            }
            rows.escapes |= right.escapes;
            self.rest(select, STRUCTURE, &mut level, &names);
            rows
        } else if !items(&select["values_lists"]).is_empty() {
            let lists = items(&select["values_lists"]);
            self.expression(&select["values_lists"], &mut level, &names);
            self.rest(select, STRUCTURE, &mut level, &names);
            let width = lists.first().map_or(0, |list| items(&list["node"]["List"]["items"]).len());
            let columns = (1..=width).map(|n| Some(format!("column{n}"))).collect();
            Rowset { count: lists.len() as u64, columns: Some(columns), ..Rowset::default() }
        } else {
            self.plain_select(select, &mut level, &names)
        };
        if level.aggregates {
            for most in rows.holds.values_mut() {
                *most = UNBOUNDED;
            }
        }
        add(&mut rows.holds, &level.holds, if level.aggregates { UNBOUNDED } else { 1 });
        rows.escapes |= level.escapes;
        if let Some(limit) = limit(select) {
            rows.count = rows.count.min(limit);
            rows.by_constant = true;
        }
        rows
    }

    /// A SELECT without set operations. The level's own subqueries are added by the caller.
    fn plain_select<'a>(&mut self, select: &'a Value, level: &mut Level, names: &Names<'a>) -> Rowset {
        let mut from = Rowset { count: 1, ..Rowset::default() };
        for item in items(&select["from_clause"]) {
            let rows = self.read_item(item, level, names);
            if level.items.len() > MAX_ITEMS {
                return self.strange();
            }
            from.count = from.count.saturating_mul(rows.count);
            from.by_constant |= rows.by_constant;
            add(&mut from.holds, &rows.holds, 1);
            level.escapes |= rows.escapes;
        }
        let columns = output_names(select);
        self.rest(select, STRUCTURE, level, names);
        let (mut count, mut holds) = (from.count, from.holds);
        if std::mem::take(&mut level.aggregates) {
            // Without a row in FROM there is still one group. A function in GROUP BY can multiply rows.
            let combined = from.count.saturating_mul(level.factor).max(1);
            add(&mut holds, &std::mem::take(&mut level.holds), 1);
            for most in holds.values_mut() {
                *most = most.saturating_mul(combined);
            }
            self.bounds.reads_constants |= from.by_constant | level.by_constant;
        }
        // So there is with HAVING, and with GROUPING SETS there are as many groups as sets.
        count = if has_grouping_sets(&select["group_clause"]) { UNBOUNDED } else { count.max(1) };
        count = count.saturating_mul(level.factor);
        let by_constant = from.by_constant | level.by_constant;
        Rowset { count, by_constant, holds, columns, escapes: level.escapes }
    }

    fn read_item<'a>(&mut self, item_: &'a Value, level: &mut Level, names: &Names<'a>) -> Rowset {
        let Some((kind, fields)) = node(item_) else { return self.strange() };
        match kind {
            "RangeVar" => self.range_var(fields, level, names),
            "RangeSubselect" => {
                let Some((kind, query)) = node(&fields["subquery"]) else { return self.strange() };
                let mut rows = self.statement(kind, query, names);
                rows.columns = rename(rows.columns.take(), names_of(&fields["alias"]["colnames"]));
                level.items.push(Item { columns: rows.columns.clone(), ..item(fields, None) });
                rows
            }
            "JoinExpr" => {
                let before = level.items.len();
                let left = self.read_item(&fields["larg"], level, names);
                let right = self.read_item(&fields["rarg"], level, names);
                // ON sees the two sides of its join, and no item before them.
                let earlier: Vec<Item> = level.items.drain(..before).collect();
                self.expression(&fields["quals"], level, names);
                level.items.splice(0..0, earlier);
                if let Some(name) = filled(&fields["alias"], "aliasname") {
                    // The join's name hides the names in it.
                    for item in &mut level.items[before..] {
                        *item = Item { name: String::new(), table: None, columns: None };
                    }
                    level.items.push(Item { name: name.to_owned(), table: None, columns: None });
                }
                let both = left.count.saturating_mul(right.count);
                let count = both.saturating_add(left.count).saturating_add(right.count);
                let is_inner =
                    fields["jointype"].as_i64() == Some(pg_query::protobuf::JoinType::JoinInner as i64);
                let mut holds = left.holds;
                add(&mut holds, &right.holds, 1);
                Rowset {
                    count: if is_inner { both } else { count },
                    by_constant: left.by_constant | right.by_constant,
                    holds,
                    columns: None,
                    escapes: left.escapes | right.escapes,
                }
            }
            "RangeTableSample" => {
                let mut own = Level { factor: 1, ..Level::default() };
                self.rest(fields, &["relation"], &mut own, names);
                let mut rows = self.read_item(&fields["relation"], level, names);
                add(&mut rows.holds, &own.holds, 1);
                rows.escapes |= own.escapes;
                rows
            }
            "RangeFunction" => self.range_function(fields, level, names),
            "RangeTableFunc" => {
                let mut own = Level { factor: 1, ..Level::default() };
                self.expression(fields, &mut own, names);
                level.items.push(item(fields, None));
                let (holds, escapes) = (own.holds, own.escapes);
                Rowset { count: UNBOUNDED, holds, escapes, ..Rowset::default() }
            }
            _ => self.strange(),
        }
    }

    fn range_var<'a>(&mut self, fields: &'a Value, level: &mut Level, names: &Names<'a>) -> Rowset {
        let Some(name) = filled(fields, "relname") else { return self.strange() };
        let is_qualified = filled(fields, "schemaname").is_some();
        let known = names.0.iter().rev().find(|(n, _)| !is_qualified && *n == name);
        if let Some((_, rows)) = known {
            let mut rows = Rowset::clone(rows);
            rows.columns = rename(rows.columns.take(), names_of(&fields["alias"]["colnames"]));
            level.items.push(Item { columns: rows.columns.clone(), ..item(fields, None) });
            return rows;
        }
        let mut own = item(fields, Some(name));
        // Another table of this name can have other columns.
        if let (Some(table), Some(schema)) = (&mut own.table, filled(fields, "schemaname")) {
            *table = format!("{schema}{IN_SCHEMA}{table}");
        }
        level.items.push(own);
        table_rows(name)
    }

    fn range_function<'a>(&mut self, fields: &'a Value, level: &mut Level, names: &Names<'a>) -> Rowset {
        let mut rows = Rowset { count: 1, ..Rowset::default() };
        for function_ in items(&fields["functions"]) {
            let mut own = Level { factor: 1, ..Level::default() };
            // A list of the call and its column definitions.
            let call = items(&function_["node"]["List"]["items"]).first();
            self.expression(function_, &mut own, names);
            let (count, by_constant) = match call.and_then(node) {
                Some(("FuncCall", call)) if is_scalar(call) => (1, false),
                Some(("FuncCall", call)) => series(call),
                Some(("SqlvalueFunction" | "CoalesceExpr" | "MinMaxExpr", _)) => (1, false),
                _ => (UNBOUNDED, false),
            };
            // ROWS FROM puts functions side by side.
            rows.count = rows.count.max(count);
            rows.by_constant |= by_constant;
            add(&mut rows.holds, &own.holds, 1);
            rows.escapes |= own.escapes;
        }
        level.items.push(item(fields, None));
        rows
    }

    /// Walks expressions: subqueries, functions, and whatever else stands below.
    fn expression<'a>(&mut self, value: &'a Value, level: &mut Level, names: &Names<'a>) {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.bounds.is_unknown = true;
        } else {
            self.expression_within(value, level, names);
        }
        self.depth -= 1;
    }

    fn expression_within<'a>(&mut self, value: &'a Value, level: &mut Level, names: &Names<'a>) {
        match value {
            Value::Array(list) => list.iter().for_each(|item| self.expression(item, level, names)),
            Value::Object(map) => {
                for (key, inner) in map {
                    match (key.as_str(), inner) {
                        ("node", Value::Object(wrapped)) if !wrapped.contains_key("node") => {
                            for (kind, fields) in wrapped {
                                self.visit(kind, fields, level, names);
                            }
                        }
                        ("with_clause", Value::Object(_)) => self.bounds.is_unknown = true,
                        _ => self.expression(inner, level, names),
                    }
                }
            }
            _ => {}
        }
    }

    fn visit<'a>(&mut self, kind: &str, fields: &'a Value, level: &mut Level, names: &Names<'a>) {
        match kind {
            "SubLink" => {
                self.expression(&fields["testexpr"], level, names);
                let Some((kind, query)) = node(&fields["subselect"]) else {
                    self.bounds.is_unknown = true;
                    return;
                };
                let rows = self.statement(kind, query, names);
                let array = pg_query::protobuf::SubLinkType::ArraySublink as i64;
                let is_array = fields["sub_link_type"].as_i64() == Some(array);
                self.bounds.reads_constants |= is_array && rows.by_constant;
                add(&mut level.holds, &rows.holds, if is_array { rows.count } else { 1 });
                level.aggregates |= rows.escapes;
                level.escapes |= rows.escapes;
            }
            "FuncCall" => {
                self.call(fields, level);
                self.expression(fields, level, names);
            }
            // `u.json_agg` and `(u).json_agg` call the function where there is no such column.
            "ColumnRef" => {
                let parts: Vec<Option<&str>> = items(&fields["fields"]).iter().map(text).collect();
                match parts.as_slice() {
                    [Some(qualifier), Some(name)] => self.dotted(name, Some(*qualifier), level),
                    // A table of a schema can be one of a query around.
                    [_, .., Some(name)] => self.dotted(name, None, level),
                    _ => {}
                }
            }
            "AIndirection" => {
                for name in items(&fields["indirection"]).iter().filter_map(text) {
                    self.dotted(name, None, level);
                }
                self.expression(fields, level, names);
            }
            _ if EXPRESSIONS.contains(&kind) => self.expression(fields, level, names),
            _ => {
                self.bounds.is_unknown = true;
                self.expression(fields, level, names);
            }
        }
    }

    /// A name behind a dot: a column, or a function of one argument. It is surely a column where
    /// `qualifier` is the name of a FROM item of this query that has such a column.
    fn dotted(&mut self, name: &str, qualifier: Option<&str>, level: &mut Level) {
        let kind = function(&name.to_ascii_lowercase());
        if matches!(kind, Function::Scalar | Function::Unknown) {
            return;
        }
        let of = |item: &&Item| qualifier.is_some_and(|qualifier| item.name == qualifier);
        let is_known = level.items.iter().filter(of).any(|item| has_column(item, name));
        if is_known {
            return;
        }
        let tables: Vec<String> = level.items.iter().filter(of).filter_map(|i| i.table.clone()).collect();
        if self.widest || tables.is_empty() {
            self.bounds.is_unknown |= kind == Function::RunsSql;
            (level.aggregates, level.escapes, level.factor) = (true, true, UNBOUNDED);
        }
        if !tables.is_empty() {
            self.doubt(Doubt { columns: vec![name.to_owned()], tables: tables.into() });
        }
    }

    fn doubt(&mut self, doubt: Doubt) {
        if self.bounds.doubts.contains(&doubt) {
            return;
        }
        if self.bounds.doubts.len() >= MAX_DOUBTS {
            self.bounds.is_unknown = true;
            return;
        }
        self.bounds.doubts.push(doubt);
    }

    fn call(&mut self, call: &Value, level: &mut Level) {
        let kind = functions::of_call(call);
        self.bounds.calls_unknown |= kind == Function::Unknown;
        self.bounds.is_unknown |= kind == Function::RunsSql;
        self.bounds.keeps_arguments |= functions::keeps_arguments(call);
        if !call["over"].is_null() {
            level.aggregates = true; // a window is of the query that it stands in
            return;
        }
        match kind {
            Function::Scalar => {}
            // Some of them give several rows.
            Function::Catalogue => level.factor = UNBOUNDED,
            Function::SetReturning => {
                let (count, by_constant) = series(call);
                level.factor = level.factor.saturating_mul(count.max(1));
                level.by_constant |= by_constant;
            }
            Function::Aggregate | Function::Unknown | Function::RunsSql => {
                level.aggregates = true;
                if kind != Function::Aggregate {
                    level.factor = UNBOUNDED;
                }
                // Around the outermost query there is none that it could belong to.
                match if self.queries > 1 { owner(call, level) } else { Owner::Own } {
                    Owner::Own => {}
                    Owner::Outer => level.escapes = true,
                    Owner::InDoubt(doubt) => {
                        level.escapes |= self.widest;
                        self.doubt(doubt);
                    }
                }
            }
        }
    }
}

/// The fields of a SELECT that are read by themselves.
const STRUCTURE: &[&str] = &["with_clause", "from_clause", "larg", "rarg", "values_lists", "into_clause"];

fn is_scalar(call: &Value) -> bool {
    functions::of_call(call) == Function::Scalar
}

/// How many rows a function gives, and whether that follows from the value of a constant.
fn series(call: &Value) -> (u64, bool) {
    let name = items(&call["funcname"]).last().and_then(text).unwrap_or_default();
    let is_own = functions::of_call(call) == Function::SetReturning;
    match (name, items(&call["args"])) {
        _ if !is_own => (UNBOUNDED, false),
        ("generate_series", [from, to]) => steps(from, to, Some(1)),
        ("generate_series", [from, to, step]) => steps(from, to, integer(step)),
        ("unnest", [array]) if array["node"]["AArrayExpr"].is_object() => {
            let elements = items(&array["node"]["AArrayExpr"]["elements"]);
            let is_flat = elements.iter().all(|e| node(e).is_some_and(|(kind, _)| kind == "AConst"));
            (if is_flat { elements.len() as u64 } else { UNBOUNDED }, false)
        }
        _ => (UNBOUNDED, false),
    }
}

fn steps(from: &Value, to: &Value, step: Option<i64>) -> (u64, bool) {
    let count = match (integer(from), integer(to), step) {
        (Some(from), Some(to), Some(step)) if step != 0 => {
            let count = (i128::from(to) - i128::from(from)) / i128::from(step) + 1;
            u64::try_from(count.max(0)).unwrap_or(UNBOUNDED)
        }
        _ => UNBOUNDED,
    };
    (count, true)
}

/// An integer constant, with its sign.
fn integer(value: &Value) -> Option<i64> {
    match node(value)? {
        ("AConst", constant) => {
            // Zero is left out of the serialised form.
            let constant = &constant["val"]["Ival"];
            constant.is_object().then(|| constant["ival"].as_i64().unwrap_or(0))
        }
        ("AExpr", expression) => {
            let is_minus = matches!(items(&expression["name"]), [one] if text(one) == Some("-"));
            let is_unary = expression["lexpr"].is_null() && is_minus;
            is_unary.then(|| integer(&expression["rexpr"]))?.and_then(i64::checked_neg)
        }
        _ => None,
    }
}

/// LIMIT or FETCH FIRST with a constant. WITH TIES has no bound.
fn limit(select: &Value) -> Option<u64> {
    let count = &select["limit_count"];
    let with_ties = pg_query::protobuf::LimitOption::WithTies as i64;
    if count.is_null() || select["limit_option"].as_i64() == Some(with_ties) {
        return None;
    }
    integer(count).and_then(|n| u64::try_from(n).ok())
}

/// Which query an aggregate belongs to.
enum Owner {
    Own,
    Outer,
    InDoubt(Doubt),
}

fn owner(call: &Value, level: &Level) -> Owner {
    let mut refs = Vec::new();
    let mut has_subquery = false;
    for key in ["args", "agg_order", "agg_filter"] {
        column_refs(&call[key], &mut refs, &mut has_subquery);
    }
    if refs.is_empty() && !has_subquery {
        return Owner::Own;
    }
    let (mut columns, mut is_foreign) = (Vec::new(), false);
    for parts in &refs {
        match parts.as_slice() {
            [qualifier, _] => {
                if level.items.iter().any(|item| item.name == **qualifier) {
                    return Owner::Own;
                }
                is_foreign = true;
            }
            // A name without a column: PostgreSQL looks for columns in all queries around before it
            // takes the name of a FROM item for a whole row.
            [column] => {
                if level.items.iter().any(|item| has_column(item, column)) {
                    return Owner::Own;
                }
                columns.push((*column).to_owned());
            }
            // With a schema it is the table itself, wherever that stands.
            _ => is_foreign = true,
        }
    }
    let tables: Vec<String> = level.items.iter().filter_map(|item| item.table.clone()).collect();
    if columns.is_empty() || tables.is_empty() || has_subquery {
        return if is_foreign || !columns.is_empty() || has_subquery { Owner::Outer } else { Owner::Own };
    }
    Owner::InDoubt(Doubt { columns, tables: tables.into() })
}

/// The column references below a node, as their parts; `*` stands for a star.
fn column_refs<'a>(value: &'a Value, refs: &mut Vec<Vec<&'a str>>, has_subquery: &mut bool) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| column_refs(item, refs, has_subquery)),
        Value::Object(map) => {
            for (key, inner) in map {
                match key.as_str() {
                    "ColumnRef" => {
                        refs.push(items(&inner["fields"]).iter().map(|f| text(f).unwrap_or("*")).collect());
                    }
                    "SelectStmt" => *has_subquery = true,
                    _ => column_refs(inner, refs, has_subquery),
                }
            }
        }
        _ => {}
    }
}

/// The columns of a changed row that stand anywhere in expressions, also in queries inside them: `*` for what
/// names the whole row. `rows` are the names of the rows that are changed or joined.
fn copied(value: &Value, rows: &[String], found: &mut BTreeSet<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| copied(item, rows, found)),
        Value::Object(map) => {
            for (key, inner) in map {
                if key != "ColumnRef" {
                    copied(inner, rows, found);
                    continue;
                }
                let parts: Vec<&str> =
                    items(&inner["fields"]).iter().map(|f| text(f).unwrap_or("*")).collect();
                match parts.as_slice() {
                    // What the client sends (`excluded`) is not read from the table.
                    [] | ["excluded", ..] => {}
                    [.., last] => {
                        let is_row = rows.iter().any(|row| row == last);
                        found.insert(if is_row { "*".to_owned() } else { (*last).to_owned() });
                    }
                }
            }
        }
        _ => {}
    }
}

fn table_rows(table: &str) -> Rowset {
    Rowset { count: UNBOUNDED, holds: Rows::from([(table.to_owned(), 1)]), ..Rowset::default() }
}

fn item(fields: &Value, table: Option<&str>) -> Item {
    let alias = filled(&fields["alias"], "aliasname");
    let renamed = names_of(&fields["alias"]["colnames"]);
    Item {
        name: alias.or(table).or(filled(fields, "relname")).unwrap_or_default().to_owned(),
        table: table.filter(|_| renamed.is_empty()).map(str::to_owned),
        columns: rename(None, renamed),
    }
}

/// Whether a FROM item surely has a column.
fn has_column(item: &Item, column: &str) -> bool {
    item.columns.as_ref().is_some_and(|columns| columns.iter().flatten().any(|c| c == column))
}

fn names_of(list: &Value) -> Vec<String> {
    items(list).iter().filter_map(text).map(str::to_owned).collect()
}

/// New names for the first columns.
fn rename(columns: Columns, renamed: Vec<String>) -> Columns {
    if renamed.is_empty() {
        return columns;
    }
    let rest: Vec<Option<String>> =
        columns.map(|columns| columns.into_iter().skip(renamed.len()).collect()).unwrap_or_default();
    Some(renamed.into_iter().map(Some).chain(rest).collect())
}

/// The names of a SELECT's columns. What PostgreSQL names after a function or a type is not known here,
/// and behind a star not even how many there are.
fn output_names(select: &Value) -> Columns {
    let mut found = Vec::new();
    for target in items(&select["target_list"]) {
        let target = &target["node"]["ResTarget"];
        let name = filled(target, "name").map(str::to_owned);
        match node(&target["val"]) {
            Some(("ColumnRef", column)) => {
                let last = items(&column["fields"]).last().and_then(text)?;
                found.push(name.or_else(|| Some(last.to_owned())));
            }
            Some(("AIndirection", value)) => {
                let last = items(&value["indirection"]).last()?;
                if node(last).is_some_and(|(kind, _)| kind == "AStar") {
                    return None;
                }
                found.push(name);
            }
            _ => found.push(name),
        }
    }
    Some(found)
}

/// Whether GROUP BY has GROUPING SETS, CUBE or ROLLUP.
fn has_grouping_sets(clause: &Value) -> bool {
    items(clause).iter().any(|item| node(item).is_some_and(|(kind, _)| kind == "GroupingSet"))
}

/// Whether a query of WITH RECURSIVE uses itself or one after it.
fn is_recursive(queries: &[&Value]) -> bool {
    let name = |query: &&Value| query["ctename"].as_str().unwrap_or_default().to_owned();
    let mut later: HashSet<String> = queries.iter().map(name).collect();
    queries.iter().any(|query| {
        let is_used = mentions(&query["ctequery"], &later);
        later.remove(&name(query));
        is_used
    })
}

/// Whether one of these names stands for a table anywhere in a query.
fn mentions(value: &Value, names: &HashSet<String>) -> bool {
    match value {
        Value::Array(list) => list.iter().any(|item| mentions(item, names)),
        Value::Object(map) => {
            map.get("relname").and_then(Value::as_str).is_some_and(|name| names.contains(name))
                || map.values().any(|inner| mentions(inner, names))
        }
        _ => false,
    }
}
