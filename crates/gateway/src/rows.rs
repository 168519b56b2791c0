//! Rows as PostgreSQL sends them: what a RowDescription says of their fields, and a field of a DataRow, of which a part may be there.

use std::borrow::Cow;

use crate::frame::Body;

/// How a value of a result is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As it is.
    AsItIs,
    /// A binary integer of so many bytes, as its decimal text.
    Integer,
    /// A binary UUID, as its text.
    Uuid,
}

impl Reading {
    /// The value's text: one value has one text, in whatever form it came.
    pub fn text(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        let integer = |number: i64| Cow::Owned(number.to_string().into_bytes());
        match (self, bytes) {
            (Self::Integer, bytes) if [2, 4, 8].contains(&bytes.len()) => {
                // Big-endian, with the sign of its first byte.
                let sign = if bytes[0] < 128 { 0 } else { -1 };
                integer(bytes.iter().fold(sign, |number: i64, byte| (number << 8) | i64::from(*byte)))
            }
            (Self::Uuid, bytes) if bytes.len() == 16 => {
                let hex = hex::encode(bytes);
                let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
                Cow::Owned(parts.join("-").into_bytes())
            }
            _ => Cow::Borrowed(bytes),
        }
    }
}

/// Whether a type has four bytes or fewer: too few for a token to tell people apart.
pub fn is_short(of_type: u32) -> bool {
    [INT4, INT2].contains(&of_type)
}

/// `pg_type.oid` of the types whose binary form is read.
const INT2: u32 = 21;
const INT4: u32 = 23;
const INT8: u32 = 20;
const UUID: u32 = 2950;

/// A field of a RowDescription.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// The table's or view's `pg_class.oid`; 0 if the value comes from none.
    pub relation: u32,
    /// The column's `pg_attribute.attnum`.
    pub attribute: i16,
    /// The type's `pg_type.oid`.
    pub of_type: u32,
    /// Whether its values are in binary.
    pub is_binary: bool,
}

impl Field {
    /// How its values are read.
    pub fn reading(&self) -> Reading {
        match self.of_type {
            INT2 | INT4 | INT8 if self.is_binary => Reading::Integer,
            UUID if self.is_binary => Reading::Uuid,
            _ => Reading::AsItIs,
        }
    }
}

/// Reads a RowDescription (protocol manual, "Message Formats").
pub fn description(body: &[u8]) -> Option<Vec<Field>> {
    let mut body = Body(body);
    let count = body.u16()?;
    (0..count)
        .map(|_| {
            let end = body.0.iter().position(|b| *b == 0)?;
            body.take(end + 1)?;
            let relation = body.i32()?.cast_unsigned();
            let attribute = body.u16()?.cast_signed();
            let of_type = body.i32()?.cast_unsigned();
            body.take(6)?;
            let is_binary = body.u16()? != 0;
            Some(Field { relation, attribute, of_type, is_binary })
        })
        .collect()
}

/// A value of a row.
pub enum Value<'a> {
    /// It is here.
    There(&'a [u8]),
    /// There is none.
    Null,
    /// It is not all here.
    Cut,
}

/// The value at `position` of a DataRow's body, of which a part may be there.
pub fn value(row: &[u8], position: usize) -> Value<'_> {
    let mut body = Body(row);
    if body.u16().is_none_or(|count| usize::from(count) <= position) {
        return if row.len() < 2 { Value::Cut } else { Value::Null };
    }
    for at in 0..=position {
        let Some(length) = body.i32() else { return Value::Cut };
        let Ok(length) = usize::try_from(length) else {
            if at == position {
                return Value::Null;
            }
            continue;
        };
        let Some(bytes) = body.take(length) else { return Value::Cut };
        if at == position {
            return Value::There(bytes);
        }
    }
    Value::Cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_whole_rows_and_not_in_torn_ones() {
        let row = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\x01c";
        assert!(matches!(value(row, 0), Value::There(b"ab")));
        assert!(matches!(value(row, 1), Value::Null));
        assert!(matches!(value(row, 2), Value::There(b"c")));
        assert!(matches!(value(row, 3), Value::Null), "there is no such field");
        for end in 0..row.len() {
            assert!(matches!(value(&row[..end], 2), Value::Cut), "{end}");
        }
    }

    #[test]
    fn a_key_is_one_in_text_and_in_binary() {
        assert_eq!(&*Reading::AsItIs.text(b"4711"), b"4711");
        assert_eq!(&*Reading::Integer.text(&4711_i64.to_be_bytes()), b"4711");
        assert_eq!(&*Reading::Integer.text(&4711_i32.to_be_bytes()), b"4711");
        assert_eq!(&*Reading::Integer.text(&4711_i16.to_be_bytes()), b"4711");
        assert_eq!(&*Reading::Integer.text(&(-3_i64).to_be_bytes()), b"-3");
        let uuid: Vec<u8> = (0..16).collect();
        assert_eq!(&*Reading::Uuid.text(&uuid), b"00010203-0405-0607-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn a_description_is_read_whole_or_not_at_all() {
        let mut body = vec![0, 1];
        body.extend(b"id\0");
        body.extend(77_u32.to_be_bytes());
        body.extend(2_u16.to_be_bytes());
        body.extend(INT8.to_be_bytes());
        body.extend([0; 6]);
        body.extend(1_u16.to_be_bytes());
        let field = Field { relation: 77, attribute: 2, of_type: INT8, is_binary: true };
        assert_eq!(field.reading(), Reading::Integer);
        assert_eq!(description(&body), Some(vec![field]));
        for end in 0..body.len() {
            assert_eq!(description(&body[..end]), None, "{end}");
        }
    }
}
