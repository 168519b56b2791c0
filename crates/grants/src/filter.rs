//! `--where`, parsed by PostgreSQL's own grammar and let through only if it can be nothing but a row policy: comparisons of
//! the table's own columns with constants, joined by AND, OR and NOT.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use pg_query::protobuf::a_const::Val;
use pg_query::protobuf::{AExpr, AExprKind, Node, ParamRef, SelectStmt, Token, TypeName};
use ringfence_face::{Number, Piece};

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
    /// The text with its constants apart: NULL, true and false say nothing and stay in it.
    pub pieces: Vec<Piece>,
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
        let pieces =
            apart(condition).ok_or_else(|| refuse("cannot be told apart from its constants".into()))?;
        Ok(Self { text, reads, pieces })
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

/// A condition with its constants apart.
fn apart(mut condition: Node) -> Option<Vec<Piece>> {
    let mut constants = Vec::new();
    take_constants(&mut condition, &mut constants);
    let text = spell(&condition)?;
    let mut pieces = Vec::new();
    let mut at = 0;
    for token in pg_query::scan(&text).ok()?.tokens {
        if token.token() != Token::Param {
            continue;
        }
        let (start, end) = (usize::try_from(token.start).ok()?, usize::try_from(token.end).ok()?);
        let number: usize = text.get(start..end)?.strip_prefix('$')?.parse().ok()?;
        pieces.push(Piece::Sql(text.get(at..start)?.to_owned()));
        pieces.push(constants.get(number.checked_sub(1)?)?.clone());
        at = end;
    }
    pieces.push(Piece::Sql(text.get(at..)?.to_owned()));
    let kept = pieces.iter().filter(|piece| matches!(piece, Piece::Constant { .. })).count();
    (kept == constants.len()).then_some(pieces)
}

/// Puts a parameter in the place of each constant. Looks where [`check`] looks.
fn take_constants(node: &mut Node, constants: &mut Vec<Piece>) {
    if let Some(NodeEnum::AConst(constant)) = &node.node {
        let (value, number) = match &constant.val {
            Some(Val::Sval(text)) => (text.sval.clone(), None),
            Some(Val::Ival(number)) => (number.ival.to_string(), Some(Number::Int4)),
            Some(Val::Fval(number)) => {
                let is_integer = number.fval.parse::<i64>().is_ok();
                (number.fval.clone(), Some(if is_integer { Number::Int8 } else { Number::Numeric }))
            }
            _ => return,
        };
        constants.push(Piece::Constant { value, number });
        let number = i32::try_from(constants.len()).unwrap_or(i32::MAX);
        node.node = Some(NodeEnum::ParamRef(ParamRef { number, location: -1 }));
        return;
    }
    match &mut node.node {
        Some(NodeEnum::BoolExpr(e)) => e.args.iter_mut().for_each(|n| take_constants(n, constants)),
        Some(NodeEnum::AExpr(e)) => {
            for side in [&mut e.lexpr, &mut e.rexpr].into_iter().flatten() {
                take_constants(side, constants);
            }
        }
        Some(NodeEnum::NullTest(e)) => e.arg.iter_mut().for_each(|n| take_constants(n, constants)),
        Some(NodeEnum::BooleanTest(e)) => e.arg.iter_mut().for_each(|n| take_constants(n, constants)),
        Some(NodeEnum::List(list)) => list.items.iter_mut().for_each(|n| take_constants(n, constants)),
        Some(NodeEnum::TypeCast(e)) => e.arg.iter_mut().for_each(|n| take_constants(n, constants)),
        _ => {}
    }
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
    use ringfence_face::sql::literal;

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
            "id = 99999999999 OR id > 1.5 OR id < 1e400",
            "country = 'it''s $1' AND email = E'a\\\\b' AND email IS NOT NULL",
            "(country = 'x') IS TRUE OR country = 'y' IS NOT FALSE",
            "country NOT IN ('DE', 'FR') AND created_at NOT BETWEEN '2026-01-01' AND '2026-02-01'",
        ] {
            let once = parse(good).unwrap_or_else(|e| panic!("{good}: {e}"));
            assert_eq!(parse(&once.text).unwrap(), once, "the spelling is stable");
            // Its pieces are the text, and no constant is left in what is SQL.
            let put_back = |piece: &Piece| match piece {
                Piece::Sql(sql) => sql.clone(),
                Piece::Constant { value, number: None } => literal(value),
                Piece::Constant { value, number: Some(_) } => value.clone(),
            };
            let whole: String = once.pieces.iter().map(put_back).collect();
            assert_eq!(parse(&whole).unwrap(), once, "{good}: {whole}");
            let bare = |piece: &Piece| match piece {
                Piece::Sql(sql) => sql.clone(),
                Piece::Constant { .. } => "?".to_owned(),
            };
            let bare: String = once.pieces.iter().map(bare).collect();
            let plain = bare.replace("bpchar(2)", "bpchar");
            assert!(!plain.contains('\'') && !plain.bytes().any(|b| b.is_ascii_digit()), "{good}: {bare}");
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
