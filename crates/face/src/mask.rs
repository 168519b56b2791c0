//! Masks: SQL expressions over a column, one per kind and type.
//!
//! A keyed token is HMAC-SHA-256 (RFC 2104) of the value's text, from the core function `sha256` alone: the key table
//! holds the inner and the outer padded key. The key is in no view text and in no function source, both of which every
//! role can read; only the face's owner can read the table, and the sub-select runs once a query.
//! No mask can raise an error that depends on the value: an error text would be an oracle.

use ringfence_policy::Kind;
use ringfence_policy::catalogue::Protected;

use crate::Error;
use crate::schema::SqlType;
use crate::sql::ident;

/// Where the mask key is.
pub const KEY_TABLE: &str = "ringfence.mask_key";

/// The expression that shows `column` through the mask its kind asks for.
pub fn expression(table: &str, column: &str, how: &Protected, sql_type: &SqlType) -> Result<String, Error> {
    let col = ident(column);
    let base = sql_type.base.as_str();
    let found = match (how.kind, base) {
        (Kind::Email, "text" | "varchar" | "citext") => {
            Some(format!("{} || '@masked.invalid'", token(&col, 8)))
        }
        (Kind::Name, "text" | "varchar") => Some(format!("'Person ' || {}", token(&col, 4))),
        (Kind::Phone, "text" | "varchar" | "bpchar") => Some("'(masked)'::text".to_owned()),
        (Kind::Text, "text" | "varchar" | "bpchar" | "citext" | "json" | "jsonb" | "xml") => {
            Some("'(masked)'::text".to_owned())
        }
        (Kind::Date, "date") => Some(format!("make_date(extract(year FROM {col})::int, 1, 1)")),
        (Kind::Date, "timestamp") => Some(format!("date_trunc('year', {col})")),
        // With the zone named: by the session's own zone one could move the year's edge and so find the day.
        (Kind::Date, "timestamptz") => Some(format!("date_trunc('year', {col}, 'UTC')")),
        (Kind::Identifier, _) => identifier(&col, base),
        (Kind::Number, _) => number(&col, base, how.bucket.unwrap_or(100.0)),
        _ => None,
    };
    found.ok_or_else(|| Error::NoMask {
        table: table.to_owned(),
        column: column.to_owned(),
        sql_type: sql_type.printed.clone(),
        kind: how.kind.word(),
    })
}

/// The kinds that have a mask for a type.
pub fn kinds(sql_type: &SqlType) -> Vec<Kind> {
    let fits = |kind: &Kind| {
        let how = Protected { category: String::new(), kind: *kind, bucket: None };
        expression("", "", &how, sql_type).is_ok()
    };
    Kind::ALL.into_iter().filter(fits).collect()
}

/// What a masked value looks like, for people: made up, and of nobody.
pub fn example(how: &Protected) -> String {
    match how.kind {
        Kind::Email => "3f9a61c2d07be485@masked.invalid".to_owned(),
        Kind::Name => "Person 3f9a61c2".to_owned(),
        Kind::Phone | Kind::Text => "(masked)".to_owned(),
        Kind::Date => "1990-01-01, the first day of its year".to_owned(),
        Kind::Identifier => "3f9a61c2d07be485fa2c, the same for the same value".to_owned(),
        Kind::Number => format!("rounded to {}", how.bucket.unwrap_or(100.0)),
    }
}

/// HMAC-SHA-256 of the column's text, as bytea; NULL stays NULL.
fn hmac(col: &str) -> String {
    format!(
        "sha256((SELECT k.outer_pad FROM {KEY_TABLE} k) || \
         sha256((SELECT k.inner_pad FROM {KEY_TABLE} k) || convert_to({col}::text, 'UTF8')))"
    )
}

/// The first bytes of the token, in hex.
fn token(col: &str, bytes: u8) -> String {
    format!("encode(substr({}, 1, {bytes}), 'hex')", hmac(col))
}

fn identifier(col: &str, base: &str) -> Option<String> {
    Some(match base {
        "text" | "varchar" | "citext" | "bpchar" => token(col, 12),
        "uuid" => format!("{}::uuid", token(col, 16)),
        "int8" => format!("('x' || {})::bit(64)::bigint", token(col, 8)),
        "int4" => format!("('x' || {})::bit(32)::int", token(col, 4)),
        "bytea" => format!("substr({}, 1, 16)", hmac(col)),
        // A unique local address (RFC 4193): fd and 120 bits of the token.
        "inet" => {
            format!("rtrim(regexp_replace('fd' || {}, '(.{{4}})', '\\1:', 'g'), ':')::inet", token(col, 15))
        }
        _ => return None,
    })
}

fn number(col: &str, base: &str, width: f64) -> Option<String> {
    Some(match base {
        // Division that truncates towards zero cannot overflow.
        "int2" | "int4" | "int8" if width.fract() == 0.0 && width < 30_000.0 => {
            format!("({col} / {width:.0}) * {width:.0}")
        }
        "float4" | "float8" => format!("(floor({col} / {width}) * {width})::{base}"),
        "numeric" => format!("trunc({col} / {width}) * {width}"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(kind: Kind, base: &str) -> Result<String, Error> {
        let how = Protected { category: "contact".into(), kind, bucket: None };
        expression("users", "c", &how, &SqlType { base: base.into(), printed: base.into() })
    }

    #[test]
    fn a_kind_without_a_mask_for_the_type_is_refused_and_never_shown() {
        assert!(matches!(show(Kind::Email, "uuid"), Err(Error::NoMask { .. })));
        assert!(matches!(show(Kind::Number, "point"), Err(Error::NoMask { .. })));
        assert!(show(Kind::Identifier, "uuid").unwrap().ends_with("::uuid"));
    }
}
