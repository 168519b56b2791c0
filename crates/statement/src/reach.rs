//! Whose data a result shows: which tables stand behind its rows, how often, by which columns, and whether each row can be told
//! to be about one row of a table. Careful rather than clever: what is not understood may show anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::{shape, touched};

/// Functions whose result depends on one row only. Any other might be an aggregate.
const SCALAR_FUNCTIONS: &[&str] = &[
    "lower",
    "upper",
    "initcap",
    "length",
    "char_length",
    "substr",
    "substring",
    "left",
    "right",
    "trim",
    "btrim",
    "ltrim",
    "rtrim",
    "replace",
    "split_part",
    "concat",
    "concat_ws",
    "to_char",
    "date_trunc",
    "date_part",
    "extract",
    "abs",
    "round",
    "floor",
    "ceil",
    "now",
    "host",
    "position",
    "strpos",
    "md5",
    "format",
    "age",
    "timezone",
];

/// Whether a function's result depends on one row only.
pub fn is_scalar(function: &str) -> bool {
    SCALAR_FUNCTIONS.contains(&function)
}

/// What a statement names of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mention {
    /// How often the table stands in the text: a row of the result shows at most so many of its rows.
    pub times: u64,
    /// Its columns, by name.
    pub columns: BTreeSet<String>,
    /// All its columns are named, as by `*`.
    pub whole: bool,
}

impl Mention {
    /// Whether a column is named.
    pub fn names(&self, column: &str) -> bool {
        self.whole || self.columns.contains(column)
    }

    /// Adds what another statement names of it.
    fn merge(&mut self, other: &Self) {
        self.times = self.times.max(other.times);
        self.columns.extend(other.columns.iter().cloned());
        self.whole |= other.whole;
    }
}

/// Two columns of two tables that are equal in each row of a result in which neither is NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equal {
    /// A table and its column.
    pub left: (String, String),
    /// The other.
    pub right: (String, String),
}

/// What a text's result can show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about a text")]
pub struct Reach {
    /// By table name, without its schema.
    pub tables: BTreeMap<String, Mention>,
    /// It may show anything.
    pub is_unknown: bool,
    /// It is one SELECT each of whose rows shows one row of each mention; so a table's key in a row says whom the row is about,
    /// where the table is mentioned once.
    pub is_plain: bool,
    /// A row of the result can hold values of many rows.
    pub folds: bool,
    /// It goes on with what was declared or prepared before (FETCH, EXECUTE).
    pub is_opaque: bool,
    /// It declares or prepares what others go on with.
    pub defines: bool,
    /// Columns that are equal, as in `JOIN … ON d.user_id = u.id`.
    pub equal: Vec<Equal>,
}

impl Reach {
    /// That of something that nobody can read.
    pub fn unknown() -> Self {
        Self { is_unknown: true, folds: true, ..Self::default() }
    }

    /// Both: what may come of one as of the other.
    pub fn merge(&mut self, other: &Self) {
        for (table, mention) in &other.tables {
            self.tables.entry(table.clone()).or_default().merge(mention);
        }
        self.is_unknown |= other.is_unknown;
        self.is_plain &= other.is_plain;
        self.folds |= other.folds;
        self.equal.retain(|pair| other.equal.contains(pair));
    }
}

/// What texts reach, read once a shape ([`shape`]).
pub struct Cache {
    known: Mutex<HashMap<Box<str>, Arc<Reach>>>,
    most: usize,
}

impl Cache {
    /// Remembers `most` shapes.
    pub fn new(most: usize) -> Self {
        Self { known: Mutex::default(), most }
    }

    /// As [`of`].
    pub fn of(&self, text: &str) -> Arc<Reach> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        shape::with_key(text, |key| {
            if let Some(reach) = known().get(key) {
                return Arc::clone(reach);
            }
            let found = Arc::new(of(text));
            if key.len() <= shape::MAX_LENGTH {
                let mut known = known();
                if known.len() >= self.most {
                    known.clear(); // rare, cheap, and no worse than starting
                }
                known.insert(key.into(), Arc::clone(&found));
            }
            found
        })
    }
}

/// Reads a text, which may hold several statements.
pub fn of(text: &str) -> Reach {
    let parsed = pg_query::parse(text, pg_query::ParserOptions::default()).ok();
    let tree = parsed.and_then(|p| serde_json::to_value(&p.protobuf).ok());
    let Some(tree) = tree else { return Reach::unknown() };
    let statements = tree["stmts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut reach = Reach { is_plain: true, ..Reach::default() };
    let showing = statements.iter().filter(|statement| reach.statement(&statement["stmt"]["node"])).count();
    reach.is_plain &= showing <= 1;
    let common = reach.common_names(&tree);
    count_tables(&tree, &common, &mut reach.tables);
    for name in touched::named(&tree) {
        match name.split_once('.') {
            // `FETCH` and `EXECUTE` name what was defined before: see below.
            Some(("*", _)) | None => reach.is_unknown = true,
            Some((table, "*")) => {
                reach.tables.entry(table.to_owned()).or_default().whole = true;
            }
            Some((table, column)) => {
                reach.tables.entry(table.to_owned()).or_default().columns.insert(column.to_owned());
            }
        }
    }
    for name in &common {
        reach.tables.remove(name);
    }
    if reach.is_opaque {
        reach.is_unknown = showing > 1;
        reach.is_plain = false;
    }
    reach
}

impl Reach {
    /// Reads a statement; false if it shows no rows, as `BEGIN`.
    fn statement(&mut self, node: &Value) -> bool {
        let Some((kind, fields)) = node.as_object().and_then(|o| o.iter().next()) else { return false };
        match kind.as_str() {
            "SelectStmt" => self.select(fields),
            "CopyStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" => {
                self.is_plain = false;
                self.folds |= folds(fields);
            }
            "DeclareCursorStmt" | "PrepareStmt" => {
                self.defines = true;
                return self.statement(&fields["query"]["node"]);
            }
            "FetchStmt" | "ExecuteStmt" => self.is_opaque = true,
            // They show no row of any table.
            "ClosePortalStmt" | "DeallocateStmt" | "DiscardStmt" | "VariableShowStmt" | "TransactionStmt"
            | "VariableSetStmt" => return false,
            _ => {
                self.is_plain = false;
                self.is_unknown = true;
                self.folds = true;
            }
        }
        true
    }

    fn select(&mut self, select: &Value) {
        self.folds |= folds(select);
        // Where parts of a query are used by name or one after another, a row may be about somebody else than its key says.
        self.is_plain &= !self.folds && !has_parts(select);
        let mut names = BTreeMap::new();
        for item in select["from_clause"].as_array().into_iter().flatten() {
            self.joined(&item["node"], &mut names);
        }
        self.conjuncts(&select["where_clause"]["node"], &names);
    }

    /// Reads a FROM item: the names that it gives to tables, and the columns that it joins on.
    fn joined(&mut self, node: &Value, names: &mut BTreeMap<String, String>) {
        if let Some(table) = node["RangeVar"]["relname"].as_str() {
            let alias = node["RangeVar"]["alias"]["aliasname"].as_str().filter(|a| !a.is_empty());
            names.insert(alias.unwrap_or(table).to_owned(), table.to_owned());
        } else if node["JoinExpr"].is_object() {
            let join = &node["JoinExpr"];
            let before: BTreeSet<String> = names.keys().cloned().collect();
            self.joined(&join["larg"]["node"], names);
            let left: BTreeSet<String> = names.keys().filter(|n| !before.contains(*n)).cloned().collect();
            self.joined(&join["rarg"]["node"], names);
            let right: Vec<&String> =
                names.keys().filter(|n| !before.contains(*n) && !left.contains(*n)).collect();
            // USING (column) between two tables.
            let using = join["using_clause"].as_array().map(Vec::as_slice).unwrap_or_default();
            if let ([right], 1) = (right.as_slice(), left.len()) {
                for column in using.iter().filter_map(|c| c["node"]["String"]["sval"].as_str()) {
                    let left = left.iter().next().and_then(|name| names.get(name));
                    if let Some((left, right)) = left.zip(names.get(*right)) {
                        let pair = |table: &String| (table.clone(), column.to_owned());
                        self.equal.push(Equal { left: pair(left), right: pair(right) });
                    }
                }
            }
            let names = names.clone();
            self.conjuncts(&join["quals"]["node"], &names);
        }
    }

    /// Finds `a.x = b.y` in what must hold.
    fn conjuncts(&mut self, node: &Value, names: &BTreeMap<String, String>) {
        let bool_and = pg_query::protobuf::BoolExprType::AndExpr as i64;
        if node["BoolExpr"]["boolop"].as_i64() == Some(bool_and) {
            for part in node["BoolExpr"]["args"].as_array().into_iter().flatten() {
                self.conjuncts(&part["node"], names);
            }
            return;
        }
        let expression = &node["AExpr"];
        let plain = pg_query::protobuf::AExprKind::AexprOp as i64;
        let operator = expression["name"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_equal = matches!(operator, [one] if one["node"]["String"]["sval"] == "=");
        if expression["kind"].as_i64() != Some(plain) || !is_equal {
            return;
        }
        let side = |side: &str| {
            let fields = expression[side]["node"]["ColumnRef"]["fields"].as_array()?;
            let name = |i: usize| fields.get(i)?["node"]["String"]["sval"].as_str();
            match fields.len() {
                2 => Some((names.get(name(0)?)?.clone(), name(1)?.to_owned())),
                _ => None,
            }
        };
        if let (Some(left), Some(right)) = (side("lexpr"), side("rexpr")) {
            self.equal.push(Equal { left, right });
        }
    }

    /// The names of WITH queries: they stand for tables that are counted where they are defined.
    fn common_names(&self, tree: &Value) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        if !self.is_plain {
            collect(tree, &mut |key, inner| {
                if key == "CommonTableExpr" {
                    found.extend(inner["ctename"].as_str().map(str::to_owned));
                }
            });
        }
        // A table of the same name may be meant elsewhere in the text: then it stays.
        let mut qualified = BTreeSet::new();
        collect(tree, &mut |key, inner| {
            if key == "RangeVar" && inner["schemaname"].as_str().is_some_and(|s| !s.is_empty()) {
                qualified.extend(inner["relname"].as_str().map(str::to_owned));
            }
        });
        found.retain(|name| !qualified.contains(name));
        found
    }
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

/// Whether a query has WITH queries or set operations, anywhere in it.
fn has_parts(select: &Value) -> bool {
    let is_part =
        |key: &str, inner: &Value| matches!(key, "with_clause" | "larg" | "rarg") && !inner.is_null();
    let mut found = ["with_clause", "larg", "rarg"].iter().any(|key| is_part(key, &select[key]));
    // A join has a left and a right side, too: they are nodes, where a set operation's are queries.
    collect(select, &mut |key, inner| found |= is_part(key, inner) && inner["node"].is_null());
    found
}

/// Whether a row of a query's result can hold values of several rows.
fn folds(query: &Value) -> bool {
    let array = pg_query::protobuf::SubLinkType::ArraySublink as i64;
    let mut found = false;
    collect(query, &mut |key, inner| match key {
        "FuncCall" => {
            let name = inner["funcname"].as_array().and_then(|parts| parts.last());
            let name = name.and_then(|part| part["node"]["String"]["sval"].as_str()).unwrap_or_default();
            found |= !inner["over"].is_null() || !is_scalar(&name.to_ascii_lowercase());
        }
        "SubLink" => found |= inner["sub_link_type"].as_i64() == Some(array),
        "with_clause" => found |= inner["recursive"] == true,
        _ => {}
    });
    found
}

fn count_tables(tree: &Value, common: &BTreeSet<String>, tables: &mut BTreeMap<String, Mention>) {
    // A WITH query that is used twice shows its tables twice, and one of such queries as often as both together.
    let mut uses: BTreeMap<&str, u64> = BTreeMap::new();
    collect(tree, &mut |key, inner| {
        let name = inner["relname"].as_str().filter(|n| !n.is_empty());
        if let ("RangeVar" | "relation", Some(name)) = (key, name) {
            if let Some(name) = common.get(name) {
                *uses.entry(name).or_default() += 1;
            } else {
                tables.entry(name.to_owned()).or_default().times += 1;
            }
        }
    });
    let factor = uses.values().fold(1, |all: u64, uses| all.saturating_mul(*uses));
    for mention in tables.values_mut() {
        mention.times = mention.times.saturating_mul(factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let reach = of(text);
        let mut words: Vec<String> = reach
            .tables
            .iter()
            .map(|(table, m)| {
                let columns =
                    if m.whole { "*".to_owned() } else { Vec::from_iter(m.columns.clone()).join(",") };
                format!("{table}×{}({columns})", m.times)
            })
            .collect();
        let equal =
            reach.equal.iter().map(|e| format!("{}.{}={}.{}", e.left.0, e.left.1, e.right.0, e.right.1));
        words.extend(equal);
        let flags = [
            ("unknown", reach.is_unknown),
            ("plain", reach.is_plain),
            ("folds", reach.folds),
            ("opaque", reach.is_opaque),
            ("defines", reach.defines),
        ];
        words.extend(flags.iter().filter(|(_, is)| *is).map(|(word, _)| (*word).to_owned()));
        words.join(" ")
    }

    #[test]
    fn a_result_shows_no_more_than_this() {
        for (text, expected) in [
            ("select id, email from users where id = 1", "users×1(email,id) plain"),
            ("select * from users order by id limit 5", "users×1(*) plain"),
            ("select count(*) from users", "users×1() folds"),
            ("select country, count(*) from users group by country", "users×1(country) folds"),
            ("select string_agg(email, ',') from users", "users×1(email) folds"),
            ("select email, row_number() over () from users", "users×1(email) folds"),
            ("select array(select email from users)", "users×1(email) folds"),
            ("select a.id, b.email from users a, users b", "users×2(email,id) plain"),
            (
                "select u.id, d.ip from users u join devices d on d.user_id = u.id where u.country = 'US'",
                "devices×1(ip,user_id) users×1(country,id) devices.user_id=users.id plain",
            ),
            (
                "select u.id from users u, payments p where p.user_id = u.id and p.paid_at > now()",
                "payments×1(paid_at,user_id) users×1(id) payments.user_id=users.id plain",
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
            (
                "select id from users union select user_id from payments",
                "payments×1(id,user_id) users×1(id,user_id)",
            ),
            ("select s.id, s.email from (select id, email from users) s", "users×1(email,id) plain"),
            ("select s.id from (select id, email from users union all select 1, 'x') s", "users×1(email,id)"),
            ("select 1 from (with w as (select id from users) select id from w) s", "users×1(id)"),
            ("copy (select id, email from users) to stdout", "users×1(email,id)"),
            ("copy users to stdout", "users×1(*)"),
            ("declare c cursor for select id from users", "users×1(id) plain defines"),
            ("prepare p as select max(email) from users", "users×1(email) folds defines"),
            ("fetch 10 from c", "opaque"),
            ("execute p", "opaque"),
            ("fetch 10 from c; select 1", "unknown opaque"),
            ("select 1; select email from users", "users×1(email)"),
            ("do $$ begin end $$", "unknown folds"),
            ("not sql", "unknown folds"),
            ("begin", "plain"),
            ("begin; declare c cursor for select id from users", "users×1(id) plain defines"),
            ("fetch 10 from c; commit", "opaque"),
            ("update users set email = 'x' where id = 3 returning phone", "users×1(id,phone)"),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }

    #[test]
    fn what_was_defined_adds_up() {
        let mut reach = of("declare a cursor for select id, email from users");
        reach.merge(&of("declare b cursor for select x.body from messages x, messages y"));
        assert!(
            reach.is_plain && reach.tables["messages"].times == 2 && reach.tables["users"].names("email")
        );
        reach.merge(&of("declare c cursor for select count(email) from users"));
        assert!(!reach.is_plain && reach.folds);
    }
}
