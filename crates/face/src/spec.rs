//! A face before it is SQL: what each view shows and which rows. Pure.

use std::collections::BTreeSet;

use hmac::{Hmac, Mac as _};
use ringfence_policy::decision::ColumnOutcome;
use ringfence_policy::{Catalogue, Outcome, Visibility};
use serde::Serialize;
use sha2::Sha256;

use crate::Error;
use crate::condition::Piece;
use crate::mask;
use crate::schema::StoreSchema;
use crate::sql::ident;

/// The rows of a table that a grant opens. The expression was parsed and found safe where the request was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Filter {
    /// The grant.
    pub grant: String,
    /// The table.
    pub table: String,
    /// A condition over the table's columns; `None` opens all rows.
    pub condition: Option<Vec<Piece>>,
    /// The columns that the condition reads.
    pub reads: BTreeSet<String>,
}

/// One view of a face.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct View {
    /// The schema of the base table.
    pub schema: String,
    /// The base table, and the view's name.
    pub table: String,
    /// Column names and their expressions, in the table's order.
    pub columns: Vec<(String, Shown)>,
    /// The base columns that the owner must be able to read.
    pub reads: BTreeSet<String>,
    /// Which rows; `None` is all.
    pub rows: Option<Rows>,
    /// The table has row-level security of its own: no other role sees a row without a policy.
    pub has_policies: bool,
}

impl View {
    /// The conditions of which one must hold for a row, where not all rows are shown.
    pub fn conditions(&self) -> Option<&[Vec<Piece>]> {
        match &self.rows {
            Some(Rows::AnyOf(conditions)) => Some(conditions),
            Some(Rows::All) | None => None,
        }
    }
}

/// What a view shows in a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Shown {
    /// The same in each row: an expression.
    Always(String),
    /// One expression in some rows, and another one in all others.
    In {
        /// Which rows.
        rows: Rows,
        /// What is shown there.
        then: String,
        /// What is shown elsewhere.
        otherwise: String,
    },
}

/// Rows that one of several conditions chooses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Rows {
    /// All of them.
    All,
    /// Those of any of the conditions.
    AnyOf(Vec<Vec<Piece>>),
}

/// Everything that a face is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaceSpec {
    /// The version of this compiler: a change of it makes new faces.
    version: u32,
    /// By table name.
    pub views: Vec<View>,
}

impl FaceSpec {
    /// Compiles `outcome` for a store that has `schema`. What the catalogue or the outcome does not name is not in it.
    pub fn build(
        outcome: &Outcome,
        catalogue: &Catalogue,
        schema: &StoreSchema,
        filters: &[Filter],
    ) -> Result<Self, Error> {
        let mut views = Vec::new();
        for (name, columns) in &outcome.tables {
            let classified = &catalogue.tables[name];
            let key = (classified.schema.clone(), name.clone());
            let table = schema.get(&key).ok_or_else(|| Error::NotInStore(name.clone()))?;
            let of_table: Vec<&Filter> = filters.iter().filter(|f| f.table == *name).collect();
            let opened: BTreeSet<&str> =
                columns.values().flat_map(|c| &c.granted_by).map(String::as_str).collect();
            // A grant that policy let open nothing here opens no rows either.
            let grants: Vec<&Filter> =
                of_table.into_iter().filter(|f| opened.contains(f.grant.as_str())).collect();
            let mut shown = Vec::new();
            let mut reads = BTreeSet::new();
            for (column, sql_type) in &table.columns {
                let Some(seen) = columns.get(column) else { continue };
                let masked = match (seen.base, classified.columns[column].protected()) {
                    (Visibility::Masked, Some(how)) => Some(mask::expression(name, column, how, sql_type)?),
                    _ => None,
                };
                if let Some(expression) = column_expression(column, seen, masked, &grants) {
                    shown.push((column.clone(), expression));
                    reads.insert(column.clone());
                }
            }
            if let Some(missing) = columns.keys().find(|c| !table.columns.iter().any(|(n, _)| n == *c)) {
                return Err(Error::NotInStore(format!("{name}.{missing}")));
            }
            if shown.is_empty() {
                continue;
            }
            reads.extend(grants.iter().flat_map(|g| g.reads.iter().cloned()));
            let rows = (!grants.is_empty()).then(|| any_of(&grants));
            let schema = table.schema.clone();
            let has_policies = table.has_policies;
            views.push(View { schema, table: name.clone(), columns: shown, reads, rows, has_policies });
        }
        Ok(Self { version: 3, views })
    }

    /// The conditions in it, with the views that have them.
    pub fn conditions(&self) -> Vec<(&View, &Vec<Piece>)> {
        let mut found = Vec::new();
        for view in &self.views {
            let of_column = |shown| match shown {
                &(_, Shown::In { ref rows, .. }) => Some(rows),
                (_, Shown::Always(_)) => None,
            };
            for rows in view.rows.iter().chain(view.columns.iter().filter_map(of_column)) {
                if let Rows::AnyOf(conditions) = rows {
                    found.extend(conditions.iter().map(|condition| (view, condition)));
                }
            }
        }
        found
    }

    /// The same face with no constant of a condition, for the register of faces.
    #[must_use]
    pub fn without_constants(&self) -> Self {
        let mut bare = self.clone();
        let hide = |rows: &mut Rows| {
            let Rows::AnyOf(conditions) = rows else { return };
            for piece in conditions.iter_mut().flatten() {
                if let Piece::Constant { value, .. } = piece {
                    value.clear();
                }
            }
        };
        for view in &mut bare.views {
            view.rows.iter_mut().for_each(hide);
            for (_, shown) in &mut view.columns {
                if let Shown::In { rows, .. } = shown {
                    hide(rows);
                }
            }
        }
        bare
    }

    /// A short name for exactly this face. Each role of the database can read it. It is keyed, so that a role
    /// cannot test a guess of a condition's constant against it.
    pub fn digest(&self, secret: &[u8]) -> String {
        let text = serde_json::to_string(self).expect("plain data with string keys");
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        mac.update(b"ringfence/face/v2\n");
        mac.update(text.as_bytes());
        hex::encode(&mac.finalize().into_bytes()[..8])
    }
}

fn any_of(grants: &[&Filter]) -> Rows {
    let conditions: Option<Vec<_>> = grants.iter().map(|grant| grant.condition.clone()).collect();
    conditions.map_or(Rows::All, Rows::AnyOf)
}

/// What a view shows in a column; `None` if it is absent. `grants` are those that open rows of the table: only their rows
/// are in the view at all.
fn column_expression(
    column: &str,
    seen: &ColumnOutcome,
    masked: Option<String>,
    grants: &[&Filter],
) -> Option<Shown> {
    let plain = ident(column);
    if seen.base == Visibility::Clear {
        return Some(Shown::Always(plain));
    }
    let opening: Vec<&Filter> =
        grants.iter().copied().filter(|g| seen.granted_by.contains(&g.grant)).collect();
    if opening.is_empty() {
        return masked.map(Shown::Always);
    }
    if opening.len() == grants.len() {
        return Some(Shown::Always(plain));
    }
    let otherwise = masked.unwrap_or_else(|| "NULL".to_owned());
    Some(Shown::In { rows: any_of(&opening), then: plain, otherwise })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::schema::{SqlType, StoreTable};

    fn world() -> (Catalogue, StoreSchema) {
        let catalogue = Catalogue::parse(
            r#"[tables.users.columns]
               id = "public"
               email = { protected = "contact", kind = "email" }
               phone = { protected = "contact", kind = "phone" }"#,
        )
        .unwrap();
        let text = || SqlType { base: "text".into(), printed: "text".into() };
        let columns = ["id", "email", "phone", "added_later"].map(|c| (c.to_owned(), text())).into();
        let table = StoreTable { schema: "public".into(), has_policies: false, columns };
        (catalogue, StoreSchema::from([(("public".into(), "users".into()), table)]))
    }

    fn outcome(email: (Visibility, &[&str]), phone: (Visibility, &[&str])) -> Outcome {
        let seen = |(base, by): (Visibility, &[&str])| ColumnOutcome {
            base,
            granted_by: by.iter().map(|s| (*s).to_owned()).collect(),
        };
        let columns = [("id", (Visibility::Clear, &[][..])), ("email", email), ("phone", phone)]
            .map(|(c, v)| (c.to_owned(), seen(v)));
        Outcome { tables: BTreeMap::from([("users".to_owned(), columns.into())]) }
    }

    fn filter(grant: &str, condition: &str) -> Filter {
        let reads = BTreeSet::from(["id".to_owned()]);
        let condition = vec![Piece::Sql(condition.into())];
        Filter { grant: grant.into(), table: "users".into(), condition: Some(condition), reads }
    }

    #[test]
    fn what_nobody_classified_is_in_no_view() {
        let (catalogue, schema) = world();
        let masked = outcome((Visibility::Masked, &[]), (Visibility::Absent, &[]));
        let spec = FaceSpec::build(&masked, &catalogue, &schema, &[]).unwrap();
        let names: Vec<_> = spec.views[0].columns.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["id", "email"]);
        assert_eq!(spec.views[0].rows, None);
        assert!(matches!(&spec.views[0].columns[1].1, Shown::Always(e) if e.contains("masked.invalid")));
    }

    #[test]
    fn two_grants_each_open_their_own_rows_and_columns() {
        let (catalogue, schema) = world();
        let outcome = outcome((Visibility::Masked, &["a", "b"]), (Visibility::Absent, &["b"]));
        let filters = [filter("a", "id = 1"), filter("b", "id = 2")];
        let spec = FaceSpec::build(&outcome, &catalogue, &schema, &filters).unwrap();
        let view = &spec.views[0];
        let rows =
            |ids: &[u8]| Rows::AnyOf(ids.iter().map(|id| vec![Piece::Sql(format!("id = {id}"))]).collect());
        assert_eq!(view.rows, Some(rows(&[1, 2])));
        assert_eq!(view.columns[1].1, Shown::Always("\"email\"".to_owned()));
        let (then, otherwise) = ("\"phone\"".to_owned(), "NULL".to_owned());
        assert_eq!(view.columns[2].1, Shown::In { rows: rows(&[2]), then, otherwise });
        // The name of a face says nothing to those who do not have the secret.
        assert_eq!(spec.digest(b"a"), spec.digest(b"a"));
        assert_ne!(spec.digest(b"a"), spec.digest(b"b"));
    }

    #[test]
    fn a_grant_that_policy_voids_opens_no_rows() {
        let (catalogue, schema) = world();
        let outcome = outcome((Visibility::Absent, &[]), (Visibility::Absent, &[]));
        let spec = FaceSpec::build(&outcome, &catalogue, &schema, &[filter("a", "id = 1")]).unwrap();
        assert_eq!(spec.views[0].rows, None);
        assert_eq!(spec.views[0].columns.len(), 1);
    }
}
