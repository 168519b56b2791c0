//! A value that is sent as text to its type's input function. A cast of a text (`$1::text::t`)
//! would look for a cast function first, and the owner of a type can make one: it would run with
//! the steward's rights.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// The text of a value of any type.
#[derive(Debug)]
pub(crate) struct Spelled<'a>(pub(crate) &'a str);

impl ToSql for Spelled<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}
