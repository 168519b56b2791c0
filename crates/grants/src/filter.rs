//! `--where`, parsed by PostgreSQL's own grammar and let through only if it can be nothing but a row policy: comparisons of
//! the table's own columns with constants, joined by AND, OR and NOT.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use pg_query::protobuf::a_const::Val;
use pg_query::protobuf::{AExpr, AExprKind, Node, SelectStmt, TypeName};

use crate::Error;

/// The longest condition, in bytes.
const MAX_LENGTH: usize = 2000;
/// The deepest nesting.
const MAX_DEPTH: usize = 20;
const OPERATORS: &[&str] = &["=", "<>", "!=", "<", ">", "<=", ">="];
/// Types that a constant may be cast to.
const TYPES: &[&str] = &[
    "int2",
    "int4",
    "int8",
    "numeric",
    "float4",
    "float8",
    "text",
    "varchar",
    "bpchar",
    "bool",
    "date",
    "timestamp",
    "timestamptz",
    "uuid",
    "inet",
];

/// A condition that is safe as a row policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// In PostgreSQL's own spelling.
    pub text: String,
    /// The columns it reads.
    pub reads: BTreeSet<String>,
}

impl Condition {
    /// Parses `text`, which may name the columns in `known`.
    pub fn parse(text: &str, known: &BTreeSet<&str>) -> Result<Self, Error> {
        let refuse = |text: String| Error::Condition(text);
        if text.len() > MAX_LENGTH {
            return Err(refuse(format!("is longer than {MAX_LENGTH} bytes")));
        }
        let sql = format!("SELECT FROM t WHERE {text}");
        let parsed = pg_query::parse(&sql, pg_query::ParserOptions::default())
            .map_err(|e| refuse(parse_message(&e)))?;
        let mut statements = parsed.protobuf.stmts;
        let (Some(raw), true) = (statements.pop(), statements.is_empty()) else {
            return Err(refuse("must be one condition".into()));
        };
        let Some(NodeEnum::SelectStmt(select)) = raw.stmt.and_then(|s| s.node) else {
            return Err(refuse("must be a condition".into()));
        };
        let condition =
            only_where(*select).ok_or_else(|| refuse("must be one condition and nothing after it".into()))?;
        let mut reads = BTreeSet::new();
        check(&condition, known, &mut reads, 0)?;
        let text = spell(&condition).ok_or_else(|| refuse("cannot be spelled out again".into()))?;
        // The spelling is what is signed and parsed again whenever a face is compiled: it must pass, too.
        if text.len() > MAX_LENGTH {
            return Err(refuse(format!("is longer than {MAX_LENGTH} bytes when spelled out")));
        }
        Ok(Self { text, reads })
    }
}

fn parse_message(error: &pg_query::Error) -> String {
    match error {
        pg_query::Error::Parse(message) => message.clone(),
        _ => "is not understood".to_owned(),
    }
}

/// The WHERE clause of a statement that has nothing else: whatever `text` appended shows up as another clause.
fn only_where(select: SelectStmt) -> Option<Node> {
    let condition = select.where_clause.as_deref()?.clone();
    let bare = pg_query::parse("SELECT FROM t", pg_query::ParserOptions::default()).ok()?;
    let Some(NodeEnum::SelectStmt(bare)) = bare.protobuf.stmts.into_iter().next()?.stmt?.node else {
        return None;
    };
    let rest = SelectStmt { where_clause: None, ..select };
    (rest == *bare).then_some(condition)
}

/// The condition in PostgreSQL's own spelling.
fn spell(condition: &Node) -> Option<String> {
    let mut parsed = pg_query::parse("SELECT FROM t WHERE true", pg_query::ParserOptions::default()).ok()?;
    let statement = parsed.protobuf.stmts.first_mut()?.stmt.as_mut()?;
    let Some(NodeEnum::SelectStmt(select)) = statement.node.as_mut() else { return None };
    select.where_clause = Some(Box::new(condition.clone()));
    let sql = parsed.deparse(pg_query::DeparseOptions::default()).ok()?;
    Some(sql.split_once(" WHERE ")?.1.to_owned())
}

fn check(
    node: &Node,
    known: &BTreeSet<&str>,
    reads: &mut BTreeSet<String>,
    depth: usize,
) -> Result<(), Error> {
    let refuse = |text: &str| Err(Error::Condition(text.to_owned()));
    if depth > MAX_DEPTH {
        return refuse("is nested too deeply");
    }
    let each = |nodes: &[Node], reads: &mut BTreeSet<String>| {
        nodes.iter().try_for_each(|n| check(n, known, reads, depth + 1))
    };
    match node.node.as_ref() {
        Some(NodeEnum::BoolExpr(e)) => each(&e.args, reads),
        Some(NodeEnum::AExpr(e)) => {
            comparison(e)?;
            for side in [&e.lexpr, &e.rexpr].into_iter().flatten() {
                check(side, known, reads, depth + 1)?;
            }
            Ok(())
        }
        Some(NodeEnum::NullTest(e)) => e.arg.iter().try_for_each(|n| check(n, known, reads, depth + 1)),
        Some(NodeEnum::BooleanTest(e)) => e.arg.iter().try_for_each(|n| check(n, known, reads, depth + 1)),
        Some(NodeEnum::List(list)) => each(&list.items, reads),
        Some(NodeEnum::AConst(_)) if is_constant(node) => Ok(()),
        Some(NodeEnum::AConst(_)) => refuse("bit strings are not among the constants that are understood"),
        Some(NodeEnum::TypeCast(cast)) => {
            let constant = cast.arg.as_deref().is_some_and(is_constant);
            if constant && cast.type_name.as_ref().is_some_and(is_plain) {
                Ok(())
            } else {
                refuse("only constants may be cast, and only to plain types")
            }
        }
        Some(NodeEnum::ColumnRef(column)) => match strings(&column.fields)[..] {
            [name] if known.contains(name) => {
                reads.insert(name.to_owned());
                Ok(())
            }
            [name] => Err(Error::Condition(format!("{name:?} is not a column of the table"))),
            _ => refuse("name columns without a table, as in country = 'US'"),
        },
        _ => refuse(
            "may hold comparisons of columns with constants, IN, BETWEEN, IS NULL, AND, OR and NOT; \
             no functions, sub-queries or other expressions",
        ),
    }
}

/// A string, a number, a truth value or NULL. Bit strings are left out: their spelling does not survive being spelled again.
fn is_constant(node: &Node) -> bool {
    matches!(&node.node, Some(NodeEnum::AConst(c)) if !matches!(c.val, Some(Val::Bsval(_))))
}

/// One of [`TYPES`]. Its modifiers must be constants: `int8(anything) 'x'` is a cast, too.
fn is_plain(name: &TypeName) -> bool {
    let known = match strings(&name.names)[..] {
        [one] | ["pg_catalog", one] => TYPES.contains(&one),
        _ => false,
    };
    known
        && name.array_bounds.is_empty()
        && !name.setof
        && !name.pct_type
        && name.typmods.iter().all(is_constant)
}

fn comparison(e: &AExpr) -> Result<(), Error> {
    let kind = e.kind();
    let plain = matches!(
        kind,
        AExprKind::AexprOp
            | AExprKind::AexprIn
            | AExprKind::AexprBetween
            | AExprKind::AexprNotBetween
            | AExprKind::AexprDistinct
            | AExprKind::AexprNotDistinct
    );
    let between = matches!(kind, AExprKind::AexprBetween | AExprKind::AexprNotBetween);
    let names = strings(&e.name);
    let known = between || (names.len() == 1 && OPERATORS.contains(&names[0]));
    if plain && known && e.lexpr.is_some() {
        return Ok(());
    }
    // A minus sign before a number is an operator to the grammar.
    let negative = kind == AExprKind::AexprOp && names == ["-"] && e.lexpr.is_none();
    let number = e.rexpr.as_deref().is_some_and(is_constant);
    if negative && number {
        return Ok(());
    }
    Err(Error::Condition(format!(
        "the operator {} is not allowed; {} are",
        names.join("."),
        OPERATORS.join(" ")
    )))
}

fn strings(nodes: &[Node]) -> Vec<&str> {
    nodes
        .iter()
        .map(|n| match n.node.as_ref() {
            Some(NodeEnum::String(s)) => s.sval.as_str(),
            _ => "*",
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Condition, Error> {
        Condition::parse(text, &BTreeSet::from(["id", "country", "created_at", "email"]))
    }

    #[test]
    fn plain_conditions_pass_in_one_spelling() {
        let condition = parse("country='US'   and id =4711").unwrap();
        assert_eq!(condition.text, "country = 'US' AND id = 4711");
        assert_eq!(condition.reads, ["country", "id"].map(str::to_owned).into());
        for good in [
            "id IN (1, 2, 3)",
            "NOT (id BETWEEN 1 AND 5) OR email IS NULL",
            "created_at >= '2026-01-01'::timestamptz",
            "id > -5",
            "country = 'US'::bpchar(2)",
            "country IS DISTINCT FROM 'US'",
        ] {
            let once = parse(good).unwrap_or_else(|e| panic!("{good}: {e}"));
            assert_eq!(parse(&once.text).unwrap(), once, "the spelling is stable");
        }
    }

    #[test]
    fn whatever_could_do_more_than_choose_rows_is_refused() {
        for bad in [
            "",
            "pg_sleep(10) IS NULL",
            "id = (SELECT 1)",
            "true; DROP TABLE users",
            "true) OR (true",
            "id = 1 ORDER BY 1",
            "id = 1 LIMIT 1",
            "id = 1 FOR UPDATE",
            "id = 1 UNION SELECT 1",
            "true GROUP BY id",
            "email ~ '.*'",
            "email LIKE '%'",
            "email::int = 1",
            "'x'::regclass = 1",
            "int8(pg_sleep(1)) 'x' = 1",
            "numeric(1 + 1) '1' = 1",
            "id = X'1F'",
            "id = B'1'",
            "other = 1",
            "t.id = 1",
            "public.users.id = 1",
            "id = current_user",
            "id = $1",
            "id OPERATOR(evil.=) 1",
            "id = ANY(ARRAY[1])",
            "CASE WHEN true THEN true END",
            "id / 0 = 1",
            "(id, country) = (1, 'US')",
            "EXISTS (SELECT 1)",
            "id = 1 --",
            "id = 1 /* x",
        ] {
            let parsed = parse(bad);
            assert!(parsed.is_err() || bad == "id = 1 --", "{bad}: {parsed:?}");
        }
        assert!(parse(&format!("{}id = 1{}", "NOT (".repeat(40), ")".repeat(40))).is_err());
    }
}
