//! One person's own request: their rows in every store.

use ringfence_face::sql::ident;
use ringfence_policy::Catalogue;
use serde::{Deserialize, Serialize};

use super::online::Writer;
use super::rows::{self, Erased, Step};
use crate::copies::probe;
use crate::database::{Database, Error};
use crate::migrate::shape::{self, Shape};
use crate::scope::{How, Table};

/// Somebody, as the catalogue tells people apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The table of the people.
    pub table: String,
    /// Their key there.
    pub key: String,
}

/// What a store has of somebody.
#[derive(Clone, Debug, Default)]
pub struct Has {
    /// Rows about them, by table.
    pub rows: Vec<(String, i64)>,
    /// Rows about somebody else that name them, by table and column.
    pub named: Vec<(String, String, i64)>,
    /// Values by which they are told from others.
    pub values: Vec<String>,
}

/// A table about people of this kind.
struct About<'a> {
    table: Table,
    shape: Shape,
    subject: &'a str,
    parties: &'a [String],
}

impl About<'_> {
    /// Whether a column has this person's key, `$1`; by the column's own type, so that an index is used.
    fn is(&self, column: &str) -> String {
        let sql_type = self.shape.columns.iter().find(|c| c.name == column).map_or("text", |c| &c.sql_type);
        format!("t.{} = CAST($1::text AS {sql_type})", ident(column))
    }
}

/// The tables, those of the people themselves last: others may refer to them.
async fn tables<'a>(
    database: &Database,
    catalogue: &'a Catalogue,
    of: &Subject,
) -> Result<Vec<About<'a>>, Error> {
    let people = catalogue.tables.get(&of.table).filter(|t| t.subject.is_some());
    let people = people.ok_or_else(|| {
        Error::Blocked(vec![format!("{} is no table of the catalogue with a data subject", of.table)])
    })?;
    let mut found = Vec::new();
    for (name, classified) in catalogue.tables.iter().filter(|(_, t)| t.subjects == people.subjects) {
        let Some(subject) = &classified.subject else { continue };
        let table = Table { schema: classified.schema.clone(), name: name.clone(), how: How::Everything };
        let Some(shape) = shape::read(database, &table).await? else { continue };
        found.push((*name == of.table, About { table, shape, subject, parties: &classified.parties }));
    }
    found.sort_by_key(|(are_people, _)| *are_people);
    Ok(found.into_iter().map(|(_, about)| about).collect())
}

/// Looks what there is of somebody.
pub async fn look(database: &Database, catalogue: &Catalogue, of: &Subject) -> Result<Has, Error> {
    let mut has = Has::default();
    for about in tables(database, catalogue, of).await? {
        let (t, shown) = (about.table.quoted(), about.table.shown());
        let sql = format!("SELECT count(*) FROM {t} t WHERE {}", about.is(about.subject));
        let rows: i64 = database.row("count their rows", &sql, &[&of.key]).await?.get(0);
        if rows > 0 {
            has.rows.push((shown.clone(), rows));
        }
        for party in about.parties {
            let sql = format!(
                "SELECT count(*) FROM {t} t WHERE {} AND NOT {}",
                about.is(party),
                about.is(about.subject)
            );
            let named: i64 = database.row("count rows that name them", &sql, &[&of.key]).await?.get(0);
            if named > 0 {
                has.named.push((shown.clone(), party.clone(), named));
            }
        }
        let Some(classified) = catalogue.tables.get(&about.table.name) else { continue };
        for column in probe::telling_columns(classified) {
            let sql = format!(
                "SELECT DISTINCT t.{c}::text FROM {t} t WHERE {is} AND length(t.{c}::text) BETWEEN {shortest} AND {longest} LIMIT 1000",
                c = ident(column),
                is = about.is(about.subject),
                shortest = probe::SHORTEST,
                longest = probe::LONGEST,
            );
            let rows = database.rows("read what to look for", &sql, &[&of.key]).await?;
            has.values.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
    }
    has.values.sort();
    has.values.dedup();
    Ok(has)
}

/// Deletes them, in one transaction. Returns how many rows of each table.
pub async fn delete(
    database: &Database,
    catalogue: &Catalogue,
    of: &Subject,
) -> Result<Vec<(String, u64)>, Error> {
    let mut deleted = Vec::new();
    database.run("begin", "BEGIN").await?;
    for about in tables(database, catalogue, of).await? {
        let sql = format!("DELETE FROM {} t WHERE {}", about.table.quoted(), about.is(about.subject));
        match database.execute("delete their rows", &sql, &[&of.key]).await {
            Ok(0) => {}
            Ok(rows) => deleted.push((about.table.shown(), rows)),
            Err(e) => {
                let _ = database.run("roll back", "ROLLBACK").await;
                return Err(e);
            }
        }
    }
    database.run("commit", "COMMIT").await?;
    Ok(deleted)
}

/// Cleans what deleted rows leave: free room of the tables, materialised views, statistics. `rewrite` has the tables written anew:
/// without it the bytes stay in free room until others are written over them. Returns how many were written anew.
pub async fn clean(
    database: &Database,
    catalogue: &Catalogue,
    of: &Subject,
    rewrite: Option<&Writer<'_>>,
    told: &mut (dyn FnMut(Step<'_>) + Send),
) -> Result<u64, Error> {
    let mut erased = Erased::default();
    let names: Vec<String> =
        tables(database, catalogue, of).await?.iter().map(|about| about.table.quoted()).collect();
    rows::views(&names, database, told, &mut erased).await?;
    for name in &names {
        told(Step::Begun(&format!("cleaning {name}")));
        if let Some(writer) = rewrite {
            writer.write(database, name).await?;
            erased.rewritten += 1;
        } else {
            database.run("clean a table", &format!("VACUUM (ANALYZE) {name}")).await?;
        }
    }
    for catalogue in ["pg_statistic", "pg_statistic_ext_data"] {
        database.run("write a catalogue anew", &format!("VACUUM FULL pg_catalog.{catalogue}")).await?;
        erased.rewritten += 1;
    }
    Ok(erased.rewritten)
}
