//! Drift: where a store and its catalogue have come apart, as it is now.

use std::collections::BTreeMap;

use ringfence_policy::catalogue::{Catalogue, Column, Kind};

use crate::draft::classify;
use crate::mask;
use crate::schema::StoreSchema;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drift {
    /// What the store has and nobody classified, so that it is in no face.
    pub unclassified: Vec<Unclassified>,
    /// What is classified and the store does not have: columns by table.
    pub gone: BTreeMap<String, Vec<String>>,
}

/// A table with columns that nobody has classified.
#[derive(Clone, Debug, PartialEq)]
pub struct Unclassified {
    /// The schema it lies in.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Whether there is a table of this name in another schema, in the catalogue or beside it, so that there is no room for this one.
    pub is_shadowed: bool,
    /// Those columns.
    pub columns: Vec<Proposal>,
}

/// What a column may be.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Its name.
    pub column: String,
    /// Its type, as PostgreSQL prints it.
    pub sql_type: String,
    /// What its name and type suggest; no value was looked at.
    pub guess: Option<Column>,
    /// The masks that there are for its type.
    pub kinds: Vec<Kind>,
}

/// Compares a store with its catalogue.
pub(crate) fn between(found: StoreSchema, catalogue: &Catalogue) -> Drift {
    let mut drift = Drift::default();
    for (name, table) in &catalogue.tables {
        let has = found.get(&(table.schema.clone(), name.clone()));
        let has = |column: &str| has.is_some_and(|t| t.columns.iter().any(|(c, _)| c == column));
        let old: Vec<String> = table.columns.keys().filter(|c| !has(c)).cloned().collect();
        if !old.is_empty() {
            drift.gone.insert(name.clone(), old);
        }
    }
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (_, table) in found.keys() {
        *names.entry(table.clone()).or_default() += 1;
    }
    for ((schema, table), stored) in found {
        let known = catalogue.tables.get(&table);
        let is_shadowed = known.map_or(names[&table] > 1, |t| t.schema != schema);
        let is_new =
            |column: &str| is_shadowed || known.is_none_or(|known| !known.columns.contains_key(column));
        let new = stored.columns.into_iter().filter(|(column, _)| is_new(column));
        let columns: Vec<Proposal> = new
            .map(|(column, sql_type)| Proposal {
                guess: classify(&table, &column, &sql_type, &[]),
                kinds: mask::kinds(&sql_type),
                sql_type: sql_type.printed,
                column,
            })
            .collect();
        if !columns.is_empty() {
            drift.unclassified.push(Unclassified { schema, table, is_shadowed, columns });
        }
    }
    drift
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;
    use crate::schema::{SqlType, StoreTable};

    #[test]
    fn drift_shows_both_ways_with_what_it_may_be() {
        let catalogue =
            Catalogue::parse("[tables.users.columns]\nid = \"public\"\nold = \"public\"\n").unwrap();
        let of = |base: &str| SqlType { base: base.into(), printed: base.into() };
        let stored = |schema: &str, columns: &[(&str, &str)]| StoreTable {
            has_policies: false,
            schema: schema.to_owned(),
            columns: columns.iter().map(|(name, base)| ((*name).to_owned(), of(base))).collect(),
        };
        let at = |schema: &str, table: &str| (schema.to_owned(), table.to_owned());
        let found = StoreSchema::from([
            (at("public", "users"), stored("public", &[("id", "int8"), ("phone", "text"), ("bio", "text")])),
            (at("audit", "users"), stored("audit", &[("id", "int8")])),
            (at("audit", "visits"), stored("audit", &[("id", "int8")])),
            (at("public", "visits"), stored("public", &[("id", "int8")])),
        ]);
        let drift = between(found, &catalogue);
        assert_eq!(drift.gone, BTreeMap::from([("users".to_owned(), vec!["old".to_owned()])]));
        let [shadowed, one, users, other] = drift.unclassified.as_slice() else { panic!("{drift:?}") };
        assert!(
            one.is_shadowed && other.is_shadowed && !users.is_shadowed,
            "neither of two new ones is the one"
        );
        assert!(shadowed.is_shadowed && shadowed.schema == "audit" && shadowed.columns[0].column == "id");
        let proposed: Vec<_> = users.columns.iter().map(|c| (c.column.as_str(), c.guess.is_some())).collect();
        assert_eq!(proposed, [("phone", true), ("bio", false)]);
        assert!(users.columns[0].kinds.contains(&Kind::Phone));
        assert!(!users.columns[0].kinds.contains(&Kind::Date), "a text has no first day of its year");
        assert_eq!(between(StoreSchema::new(), &catalogue).gone["users"], ["id", "old"]);
    }
}
