//! Drafts a catalogue from a live database: by the columns' names, their types, and a sample of values. What it is not sure
//! of it leaves unclassified, and so in no face; a human reads a draft before it counts.

use std::collections::BTreeMap;

use ringfence_policy::catalogue::Belongs;
use ringfence_policy::catalogue::{Catalogue, Class, Column, Kind, Protected, Table};
use tokio_postgres::Client;

use crate::Error;
use crate::schema::{self, SqlType};
use crate::sql::ident;

/// Types whose values say little by themselves.
const PLAIN_TYPES: &[&str] = &["int2", "int4", "int8", "bool", "timestamptz", "timestamp", "date"];
/// How many values of a column are looked at.
const SAMPLE: u32 = 200;

/// A proposal.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What seems clear.
    pub catalogue: Catalogue,
    /// Columns that a human must classify.
    pub unsure: Vec<String>,
}

/// Reads the schema and samples text columns.
pub async fn draft(client: &Client) -> Result<Draft, Error> {
    let (mut catalogue, mut unsure) = (Catalogue::default(), Vec::new());
    for ((namespace, name), stored) in schema::read(client).await? {
        let mut columns = BTreeMap::new();
        for (column, sql_type) in &stored.columns {
            let samples =
                if is_text(sql_type) { sample(client, &namespace, &name, column).await? } else { Vec::new() };
            match classify(&name, column, sql_type, &samples) {
                Some(class) => drop(columns.insert(column.clone(), class)),
                None => unsure.push(format!("{name}.{column}")),
            }
        }
        catalogue.tables.insert(name.clone(), table(&namespace, &name, columns));
    }
    Ok(Draft { catalogue, unsure })
}

/// A table of classified columns, with what their names give away about whom its rows are about.
pub fn table(schema: &str, name: &str, columns: BTreeMap<String, Column>) -> Table {
    let one_of = |names: &[&str]| names.iter().find(|c| columns.contains_key(**c)).map(|c| (*c).to_owned());
    let subject = one_of(&["user_id", "sender_id", "author_id", "customer_id", "account_id", "id"]);
    let residence = one_of(&["country", "country_code"]).filter(|_| subject.as_deref() == Some("id"));
    let party = one_of(&["recipient_id"]).filter(|_| subject.is_some());
    let category = if is_messages(name) { "direct-messages" } else { "" };
    Table {
        schema: schema.to_owned(),
        subjects: "persons".to_owned(),
        device: one_of(&["device_id", "device_uuid"]),
        residence,
        parties: party.into_iter().collect(),
        belongs: Belongs::default(),
        category: category.to_owned(),
        subject,
        columns,
    }
}

async fn sample(client: &Client, schema: &str, table: &str, column: &str) -> Result<Vec<String>, Error> {
    let (schema, table, column) = (ident(schema), ident(table), ident(column));
    let sql =
        format!("SELECT {column}::text FROM {schema}.{table} WHERE {column} IS NOT NULL LIMIT {SAMPLE}");
    let rows = client.query(&sql, &[]).await.map_err(Error::refused("give a sample"))?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

fn is_text(sql_type: &SqlType) -> bool {
    matches!(sql_type.base.as_str(), "text" | "varchar" | "bpchar" | "citext")
}

fn is_messages(table: &str) -> bool {
    ["message", "chat", "direct"].iter().any(|w| table.contains(w))
}

/// Pure: what a column probably is; `None` for texts that nothing gives away.
pub(crate) fn classify(table: &str, column: &str, sql_type: &SqlType, samples: &[String]) -> Option<Column> {
    let name = column.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| name.contains(w));
    let is = |test: fn(&str) -> bool| {
        !samples.is_empty() && samples.iter().filter(|s| test(s)).count() * 2 > samples.len()
    };
    let guess = |category: &str, kind| Some((category.to_owned(), kind));
    let text = is_text(sql_type);
    let found = if text && (has(&["email", "e_mail", "mail_address"]) || is(looks_like_email)) {
        guess("contact", Kind::Email)
    } else if text && (has(&["phone", "mobile", "msisdn"]) || is(looks_like_phone)) {
        guess("contact", Kind::Phone)
    } else if text && has(&["full_name", "first_name", "last_name", "surname", "legal_name"]) {
        guess("contact", Kind::Name)
    } else if has(&["birth", "dob"]) {
        guess("demographic", Kind::Date)
    } else if text && has(&["address", "street", "postcode", "zip"]) {
        guess("contact", Kind::Text)
    } else if sql_type.base == "inet"
        || has(&["device_id", "imei", "idfa", "gaid", "mac_addr", "cookie", "ip_addr"])
        || name == "ip"
    {
        guess("network-identifier", Kind::Identifier)
    } else if has(&["latitude", "longitude", "_lat", "_lon", "_lng"])
        || ["lat", "lon", "lng"].contains(&name.as_str())
    {
        guess("geolocation", Kind::Number)
    } else if has(&["card", "iban", "account_no", "last4"]) {
        guess("financial", Kind::Text)
    } else if has(&["amount", "price", "salary", "balance"]) {
        guess("financial", Kind::Number)
    } else if has(&["ssn", "passport", "national_id", "tax_id"]) {
        guess("government-identifier", Kind::Identifier)
    } else if text
        && (has(&["password", "secret", "token"])
            || (is_messages(table) && has(&["body", "text", "content"])))
    {
        guess("communication", Kind::Text)
    } else {
        None
    };
    match found {
        Some((category, kind)) => Some(Column::Protected(Protected { category, kind, bucket: None })),
        None if text || !PLAIN_TYPES.contains(&sql_type.base.as_str()) => None,
        None => Some(Column::Word(Class::Public)),
    }
}

fn looks_like_email(value: &str) -> bool {
    value
        .split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && host.contains('.') && !value.contains(' '))
}

fn looks_like_phone(value: &str) -> bool {
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    (8..=15).contains(&digits)
        && value.starts_with('+')
        && value.bytes().all(|b| b.is_ascii_digit() || b"+ ()-.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_what_names_hide() {
        let text = SqlType { base: "text".into(), printed: "text".into() };
        let samples = ["ann@example.com".to_owned(), "bob@example.org".to_owned()];
        let kind = |c: Option<Column>| c.and_then(|c| c.protected().map(|p| p.kind));
        assert_eq!(kind(classify("users", "field_7", &text, &samples)), Some(Kind::Email));
        assert_eq!(kind(classify("users", "field_7", &text, &["+1 415 555 0123".into()])), Some(Kind::Phone));
        assert_eq!(kind(classify("messages", "body", &text, &[])), Some(Kind::Text));
        assert_eq!(classify("videos", "title", &text, &["Cats".into()]), None, "a human must look");
    }
}
