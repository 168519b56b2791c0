//! What a gateway asks a store for itself: who writes these texts and who recognises them in the store's own
//! log use the same ones.

/// Lists the functions that are neither PostgreSQL's own (numbers below FirstNormalObjectId, transam.h) nor of
/// an extension and a superuser.
pub const THEIRS: &str = "SELECT p.oid, p.proname::text AS name, l.lanname::text AS language,
       coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS source,
       p.pronargs - p.pronargdefaults <= 1 AND p.pronargs >= 1
         AND EXISTS (SELECT FROM pg_type t WHERE t.oid = p.proargtypes[0] AND t.typtype IN ('c', 'p', 'd'))
         AS takes_row
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
  WHERE p.oid >= 16384 AND p.pronamespace <> coalesce(to_regnamespace('ringfence'), 0)
    AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_roles o ON o.oid = p.proowner
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' AND o.rolsuper)";

/// Lists what runs functions of others (their numbers are `$1`): kind, name, the function's number, 0 where none
/// is known.
pub const BEHIND: &str = "WITH theirs AS (SELECT unnest($1::oid[]) AS oid),
     needs AS (SELECT d.classid, d.objid, coalesce(o.oprcode::oid, d.refobjid) AS function
               FROM pg_depend d
               LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
               WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
                 AND coalesce(o.oprcode::oid, d.refobjid) IN (SELECT oid FROM theirs)),
     domains AS (
       WITH RECURSIVE d AS (
         SELECT c.contypid AS oid, n.function FROM pg_constraint c
           JOIN needs n ON n.classid = 'pg_constraint'::regclass AND n.objid = c.oid WHERE c.contypid <> 0
         UNION SELECT x.oid, d.function FROM d, LATERAL
           (SELECT t.oid FROM pg_type t WHERE t.typbasetype = d.oid OR t.typelem = d.oid
            UNION ALL SELECT c.reltype FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
              WHERE a.atttypid = d.oid AND a.attnum > 0 AND c.reltype <> 0
            UNION ALL SELECT r.rngtypid FROM pg_range r WHERE r.rngsubtype = d.oid) x)
       SELECT oid, function FROM d),
     active AS (
       SELECT t.tgrelid AS relation, t.tgfoid AS function FROM pg_trigger t
         WHERE NOT t.tgisinternal AND t.tgfoid IN (SELECT oid FROM theirs)
       UNION SELECT r.ev_class, 0 FROM pg_rewrite r WHERE r.ev_type <> '1' AND r.oid >= 16384
       UNION SELECT a.adrelid, n.function FROM pg_attrdef a
         JOIN needs n ON n.classid = 'pg_attrdef'::regclass AND n.objid = a.oid
       UNION SELECT c.conrelid, n.function FROM pg_constraint c
         JOIN needs n ON n.classid = 'pg_constraint'::regclass AND n.objid = c.oid WHERE c.conrelid <> 0
       UNION SELECT p.polrelid, n.function FROM pg_policy p
         JOIN needs n ON n.classid = 'pg_policy'::regclass AND n.objid = p.oid
       UNION SELECT r.ev_class, n.function FROM pg_rewrite r
         JOIN needs n ON n.classid = 'pg_rewrite'::regclass AND n.objid = r.oid
       UNION SELECT coalesce(i.indrelid, n.objid), n.function FROM needs n
         LEFT JOIN pg_index i ON i.indexrelid = n.objid WHERE n.classid = 'pg_class'::regclass
       UNION SELECT a.attrelid, d.function FROM pg_attribute a JOIN domains d ON d.oid = a.atttypid)
SELECT 'operator' AS kind, o.oprname::text AS name, o.oprcode::oid AS function FROM pg_operator o
  WHERE o.oprcode::oid IN (SELECT oid FROM theirs)
UNION SELECT 'domain', t.typname::text, d.function FROM domains d JOIN pg_type t ON t.oid = d.oid
UNION SELECT CASE c.castcontext WHEN 'e' THEN 'explicit' ELSE 'cast' END, t.typname::text, c.castfunc
  FROM pg_cast c JOIN pg_type t ON t.oid = c.casttarget WHERE c.castfunc IN (SELECT oid FROM theirs)
UNION SELECT 'relation', c.relname::text, u.function FROM (
    WITH RECURSIVE up AS (
      SELECT relation AS oid, function FROM active
      UNION SELECT x.oid, up.function FROM up, LATERAL
        (SELECT i.inhparent AS oid FROM pg_inherits i WHERE i.inhrelid = up.oid
         UNION ALL SELECT f.confrelid FROM pg_constraint f WHERE f.contype = 'f' AND f.conrelid = up.oid
         UNION ALL SELECT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
           WHERE d.classid = 'pg_rewrite'::regclass
             AND d.refclassid = 'pg_class'::regclass AND d.refobjid = up.oid) x)
    SELECT oid, function FROM up) u
  JOIN pg_class c ON c.oid = u.oid";

/// A number that changes when something does that the other two list.
pub const STATE: &str = "SELECT sum(hashtextextended(x, 0))::text || ' ' || count(*) FROM (
       SELECT 'f' || oid || xmin || ctid FROM pg_proc WHERE oid >= 16384
       UNION ALL SELECT 'o' || oid || xmin || ctid FROM pg_operator WHERE oid >= 16384
       UNION ALL SELECT 'c' || oid || xmin || ctid FROM pg_cast WHERE oid >= 16384
       UNION ALL SELECT 't' || oid || xmin FROM pg_trigger WHERE NOT tgisinternal
       UNION ALL SELECT 'r' || oid || xmin || ctid FROM pg_rewrite WHERE oid >= 16384
       UNION ALL SELECT 'd' || oid || xmin FROM pg_attrdef
       UNION ALL SELECT 'k' || oid || xmin FROM pg_constraint WHERE contype IN ('c', 'f') OR contypid <> 0
       UNION ALL SELECT 'x' || indexrelid || xmin FROM pg_index WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
       UNION ALL SELECT 'a' || attrelid || '/' || attnum || '/' || atttypid FROM pg_attribute
         WHERE atttypid >= 16384 AND attnum > 0
       UNION ALL SELECT 'p' || oid || xmin || ctid FROM pg_policy
       UNION ALL SELECT 'i' || inhrelid || '/' || inhparent FROM pg_inherits
       UNION ALL SELECT 'n' || c.oid || relname || relnamespace || relkind::text FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid >= 16384 AND relkind IN ('r', 'p', 'f', 'v', 'm')
           AND nspname NOT LIKE 'pg\\_temp\\_%' AND nspname NOT IN (SELECT 'rf_' || digest FROM ringfence.faces)) s(x)";

/// What is asked of the catalogue by these texts as they are.
pub const OF_CATALOGUE: &[&str] = &[THEIRS, BEHIND, STATE];

/// Questions about the people that a table is about. Each part is a quoted name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct People<'a> {
    /// The schema.
    pub schema: &'a str,
    /// The table.
    pub table: &'a str,
    /// The column that tells people apart.
    pub key: Option<&'a str>,
    /// The most rows that are looked at.
    pub limit: u64,
}

impl People<'_> {
    fn key(&self) -> String {
        self.key.map_or_else(|| "NULL::text".to_owned(), |key| format!("t.{key}"))
    }

    /// How many rows there are, and two sums of hashes of whom they are about.
    pub fn state(&self) -> String {
        let (key, Self { schema, table, limit, .. }) = (self.key(), self);
        format!(
            "SELECT count(*), sum(hashtextextended(coalesce(k::text, r), 0)), \
             sum(hashtextextended(coalesce(k::text, r), 1)) FROM \
             (SELECT k, CASE WHEN k IS NULL THEN 'row ' || hashtextextended(row::text, 0) END AS r \
              FROM (SELECT {key} AS k, t AS row FROM {schema}.{table} AS t LIMIT {limit}) AS rows) AS people"
        )
    }

    /// Their keys. A statement's intent has the digest of this text, and of the next.
    pub fn keys(&self) -> String {
        let (key, Self { schema, table, limit, .. }) = (self.key(), self);
        format!("SELECT DISTINCT {key} FROM {schema}.{table} AS t WHERE {key} IS NOT NULL LIMIT {limit}")
    }

    /// Hashes of the rows that have no key.
    pub fn rows(&self) -> String {
        let (key, Self { schema, table, limit, .. }) = (self.key(), self);
        format!(
            "SELECT DISTINCT hashtextextended(t::text, 0) FROM {schema}.{table} AS t WHERE {key} IS NULL LIMIT {limit}"
        )
    }
}

/// Whether a text is [`People::state`], which gives back numbers only.
pub fn counts_people(text: &str) -> bool {
    // The key may have any letters in it: each place where the table can stand is tried.
    text.match_indices(" FROM \"").any(|(at, from)| {
        let read = || -> Option<bool> {
            let (schema, rest) = name(&text[at + from.len() - 1..])?;
            let (table, rest) = name(rest.strip_prefix('.')?)?;
            let digits = rest.strip_prefix(" AS t LIMIT ")?;
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            let limit = digits[..end].parse().ok()?;
            let keys = text.match_indices("t.\"").filter_map(|(at, _)| name(&text[at + 2..]));
            let keys = keys.map(|(key, _)| Some(key)).chain([None]);
            Some(keys.into_iter().any(|key| text == People { schema, table, key, limit }.state()))
        };
        read().unwrap_or(false)
    })
}

/// The quoted name that a text begins with, and what stands behind it.
pub fn name(text: &str) -> Option<(&str, &str)> {
    let mut rest = text.strip_prefix('"')?;
    loop {
        let end = rest.find('"')?;
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => rest = more,
            None => return Some((&text[..text.len() - rest.len()], rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_people_is_recognised_and_nothing_else() {
        for key in [None, Some("\"id\""), Some("\"i\"\"d FROM \"")] {
            let people = People { schema: "\"rf_1\"", table: "\"us ers\"", key, limit: 200 };
            let text = people.state();
            assert!(counts_people(&text), "{text}");
            for other in [
                people.keys(),
                people.rows(),
                format!("{text}; select 1"),
                text.replacen("SELECT ", "SELECT email, ", 1),
                text.replace(" LIMIT 200", " WHERE email < 'm' LIMIT 200"),
                text.replace("hashtextextended", "max"),
                text.replace("count(*)", "max(email)"),
            ] {
                assert!(!counts_people(&other), "{other}");
            }
        }
    }
}
