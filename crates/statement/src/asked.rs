//! What a gateway asks a store for itself: who writes these texts and who recognises them in the store's own
//! log use the same ones.

/// Lists the functions that are neither PostgreSQL's own (numbers below FirstNormalObjectId, transam.h) nor of
/// an extension and a superuser. A name that begins with `pg_` stands for one of PostgreSQL's own, so such a
/// function is listed whoever owns it; a superuser's changes no session. One argument is enough for `x.f`, whatever type it has.
pub const THEIRS: &str = "SELECT p.oid, p.proname::text AS name,
       CASE WHEN e.is_trusted THEN 'sql' WHEN p.proconfig::text ~* 'conforming' THEN 'unreadable'
            ELSE l.lanname::text END AS language,
       CASE WHEN e.is_trusted THEN '' ELSE coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) END AS source,
       p.pronargs >= 1 AND (p.pronargs - p.pronargdefaults <= 1 OR p.provariadic <> 0) AS takes_one,
       p.pronamespace = 'pg_catalog'::regnamespace AS is_in_catalogue
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang,
       LATERAL (SELECT EXISTS (
         SELECT FROM pg_depend d JOIN pg_roles o ON o.oid = p.proowner
           WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' AND o.rolsuper)
         AS is_trusted) e
  WHERE p.oid >= 16384 AND p.pronamespace <> coalesce(to_regnamespace('ringfence'), 0)
    AND (starts_with(p.proname::text, 'pg_') OR NOT e.is_trusted)";

/// Lists what runs functions of others (their numbers are `$1`), or PostgreSQL's that run a text as SQL (`$2` has
/// patterns of their names): kind, name, the function's number, 0 where none is known. It follows `pg_depend`
/// from each function to what uses it, and from there to what that is a part of. `writes` is what runs when
/// rows are changed, and not when they are read.
pub const BEHIND: &str = "WITH RECURSIVE
     cols AS MATERIALIZED (
       SELECT DISTINCT a.atttypid AS type, c.reltype AS of_row
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         WHERE a.atttypid >= 16384 AND a.attnum > 0 AND c.reltype <> 0),
     runs_text AS (SELECT oid FROM pg_proc WHERE proname LIKE ANY($2::text[])),
     called AS (SELECT ':funcid (' || string_agg(oid::text, '|') || ') ' AS pattern FROM runs_text),
     trees(classid, objid, writes, tree) AS (
       SELECT 'pg_rewrite'::regclass::oid, oid, false, ev_action::text || coalesce(ev_qual::text, '')
         FROM pg_rewrite WHERE oid >= 16384
       UNION ALL SELECT 'pg_attrdef'::regclass, oid, false, adbin::text FROM pg_attrdef
       UNION ALL SELECT 'pg_constraint'::regclass, oid, false, conbin::text FROM pg_constraint
         WHERE conbin IS NOT NULL
       UNION ALL SELECT 'pg_policy'::regclass, oid, false,
           coalesce(polqual::text, '') || coalesce(polwithcheck::text, '') FROM pg_policy
       UNION ALL SELECT 'pg_trigger'::regclass, oid, false, tgqual::text FROM pg_trigger WHERE tgqual IS NOT NULL
       UNION ALL SELECT 'pg_class'::regclass, indexrelid, false,
           coalesce(indexprs::text, '') || coalesce(indpred::text, '') FROM pg_index
         WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
       UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, false, stxexprs::text FROM pg_statistic_ext
         WHERE stxexprs IS NOT NULL
       UNION ALL SELECT 'pg_class'::regclass, partrelid, false, partexprs::text FROM pg_partitioned_table
         WHERE partexprs IS NOT NULL
       UNION ALL SELECT 'pg_type'::regclass, oid, false, typdefaultbin::text FROM pg_type
         WHERE typdefaultbin IS NOT NULL),
     runs(classid, objid, writes, function) AS (
     SELECT 'pg_proc'::regclass::oid, oid, false, oid FROM unnest($1::oid[]) AS theirs(oid)
     UNION SELECT t.classid, t.objid, t.writes, 0::oid FROM trees t, called c WHERE t.tree ~ c.pattern
     UNION SELECT 'pg_operator'::regclass, oid, false, 0::oid FROM pg_operator
       WHERE oid >= 16384 AND oprcode::oid IN (SELECT oid FROM runs_text)
     UNION SELECT 'pg_cast'::regclass, oid, false, 0::oid FROM pg_cast
       WHERE oid >= 16384 AND castfunc IN (SELECT oid FROM runs_text)
     UNION SELECT 'pg_class'::regclass, ev_class, true, 0::oid FROM pg_rewrite WHERE ev_type <> '1' AND oid >= 16384
     -- A change of this view sets parameters.
     UNION SELECT 'pg_class'::regclass, 'pg_catalog.pg_settings'::regclass::oid, true, 0::oid
     UNION SELECT x.classid, x.objid, x.writes, r.function FROM runs r, LATERAL (
       -- What depends on it. What has a row or a column of a table runs nothing of that by itself.
       SELECT d.classid, d.objid, r.writes FROM pg_depend d
         WHERE d.refclassid = r.classid AND d.refobjid = r.objid AND d.deptype <> 'e'
           AND CASE r.classid
               WHEN 'pg_class'::regclass
               THEN d.classid = 'pg_rewrite'::regclass OR d.classid = 'pg_policy'::regclass AND NOT r.writes
               WHEN 'pg_type'::regclass
               THEN d.classid NOT IN ('pg_operator'::regclass, 'pg_cast'::regclass, 'pg_opclass'::regclass)
               ELSE true END
       -- What it is a part of.
       UNION ALL SELECT 'pg_class'::regclass, c.ev_class, r.writes OR c.ev_type <> '1' FROM pg_rewrite c
         WHERE r.classid = 'pg_rewrite'::regclass AND c.oid = r.objid
       UNION ALL SELECT 'pg_class'::regclass, c.adrelid, true FROM pg_attrdef c
         WHERE r.classid = 'pg_attrdef'::regclass AND c.oid = r.objid
       UNION ALL SELECT 'pg_class'::regclass, c.tgrelid, true FROM pg_trigger c
         WHERE r.classid = 'pg_trigger'::regclass AND c.oid = r.objid
       UNION ALL SELECT 'pg_class'::regclass, c.polrelid, r.writes FROM pg_policy c
         WHERE r.classid = 'pg_policy'::regclass AND c.oid = r.objid
       UNION ALL SELECT 'pg_class'::regclass, c.stxrelid, r.writes FROM pg_statistic_ext c
         WHERE r.classid = 'pg_statistic_ext'::regclass AND c.oid = r.objid
       UNION ALL SELECT CASE conrelid WHEN 0 THEN 'pg_type'::regclass ELSE 'pg_class'::regclass END,
           CASE conrelid WHEN 0 THEN contypid ELSE conrelid END, r.writes OR c.contype = 't' FROM pg_constraint c
         WHERE r.classid = 'pg_constraint'::regclass AND c.oid = r.objid
       UNION ALL SELECT 'pg_class'::regclass, c.indrelid, r.writes FROM pg_index c
         WHERE r.classid = 'pg_class'::regclass AND c.indexrelid = r.objid
       -- A value of the type is compared or hashed by the class, without a word of that.
       UNION ALL SELECT 'pg_opclass'::regclass, c.oid, r.writes FROM pg_opclass c, pg_amproc p
         WHERE r.classid = 'pg_amproc'::regclass AND p.oid = r.objid AND c.opcfamily = p.amprocfamily
       UNION ALL SELECT 'pg_opclass'::regclass, c.oid, r.writes FROM pg_opclass c, pg_amop p
         WHERE r.classid = 'pg_amop'::regclass AND p.oid = r.objid AND c.opcfamily = p.amopfamily
       UNION ALL SELECT 'pg_type'::regclass, c.opcintype, r.writes FROM pg_opclass c
         WHERE r.classid = 'pg_opclass'::regclass AND c.oid = r.objid AND c.opcintype >= 16384
       UNION ALL SELECT 'pg_type'::regclass, c.casttarget, r.writes FROM pg_cast c
         WHERE r.classid = 'pg_cast'::regclass AND c.oid = r.objid AND c.casttarget >= 16384
       -- Whose rows are its rows, or whose changes change it.
       UNION ALL SELECT 'pg_class'::regclass, c.inhparent, r.writes FROM pg_inherits c
         WHERE r.classid = 'pg_class'::regclass AND c.inhrelid = r.objid
       UNION ALL SELECT 'pg_class'::regclass, c.confrelid, true FROM pg_constraint c
         WHERE r.classid = 'pg_class'::regclass AND c.contype = 'f' AND c.conrelid = r.objid
       -- Rows that have a column of the type.
       UNION ALL SELECT 'pg_type'::regclass, c.of_row, r.writes FROM cols c
         WHERE r.classid = 'pg_type'::regclass AND c.type = r.objid
       -- The planner takes one for the other.
       UNION ALL SELECT 'pg_operator'::regclass, c.oid, r.writes FROM pg_operator c
         WHERE r.classid = 'pg_operator'::regclass AND r.objid IN (c.oprnegate, c.oprcom)) x)
SELECT 'operator' AS kind, o.oprname::text AS name, r.function
  FROM runs r JOIN pg_operator o ON r.classid = 'pg_operator'::regclass AND o.oid = r.objid
UNION SELECT 'type', t.typname::text, r.function
  FROM runs r JOIN pg_type t ON r.classid = 'pg_type'::regclass AND t.oid = r.objid
-- A value becomes json by its cast, without a word of that.
UNION SELECT CASE WHEN c.castcontext = 'e' AND t.oid <> 'json'::regtype THEN 'explicit' ELSE 'cast' END,
    t.typname::text, r.function
  FROM runs r JOIN pg_cast c ON r.classid = 'pg_cast'::regclass AND c.oid = r.objid
  JOIN pg_type t ON t.oid = c.casttarget
-- Values of PostgreSQL's own types are compared everywhere.
UNION SELECT 'cast', t.typname::text, r.function
  FROM runs r JOIN pg_opclass c ON r.classid = 'pg_opclass'::regclass AND c.oid = r.objid
  JOIN pg_type t ON t.oid = c.opcintype WHERE c.opcdefault AND c.opcintype < 16384
UNION SELECT CASE WHEN r.writes THEN 'written' ELSE 'read' END, c.relname::text, r.function
  FROM runs r JOIN pg_class c ON r.classid = 'pg_class'::regclass AND c.oid = r.objid
UNION SELECT 'call', p.proname::text, r.function
  FROM runs r JOIN pg_proc p ON r.classid = 'pg_proc'::regclass AND p.oid = r.objid WHERE p.oid <> r.function
UNION SELECT 'event', e.evtname::text, r.function
  FROM runs r JOIN pg_event_trigger e ON r.classid = 'pg_event_trigger'::regclass AND e.oid = r.objid";

/// A number that changes when something does that the other two list.
pub const STATE: &str = "SELECT sum(hashtextextended(x, 0))::text || ' ' || count(*) FROM (
       SELECT 'f' || oid || xmin || ctid FROM pg_proc WHERE oid >= 16384
       UNION ALL SELECT 'o' || oid || xmin || ctid FROM pg_operator WHERE oid >= 16384
       UNION ALL SELECT 'c' || oid || xmin || ctid FROM pg_cast WHERE oid >= 16384
       UNION ALL SELECT 'b' || oid || xmin || ctid FROM pg_opclass WHERE oid >= 16384
       UNION ALL SELECT 'b' || oid || xmin || ctid FROM pg_amproc WHERE oid >= 16384
       UNION ALL SELECT 'b' || oid || xmin || ctid FROM pg_amop WHERE oid >= 16384
       UNION ALL SELECT 't' || oid || xmin FROM pg_trigger
       UNION ALL SELECT 'r' || oid || xmin || ctid FROM pg_rewrite WHERE oid >= 16384
       UNION ALL SELECT 'd' || oid || xmin FROM pg_attrdef
       UNION ALL SELECT 'k' || oid || xmin FROM pg_constraint WHERE contype IN ('c', 'f') OR contypid <> 0
       UNION ALL SELECT 'x' || indexrelid || xmin FROM pg_index WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
       UNION ALL SELECT 'y' || oid || xmin || ctid FROM pg_type t WHERE oid >= 16384 AND (typtype IN ('d', 'r', 'm')
         OR typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
       UNION ALL SELECT 's' || oid || xmin || ctid FROM pg_statistic_ext
       UNION ALL SELECT 'e' || oid || xmin || ctid FROM pg_event_trigger
       UNION ALL SELECT 'm' || d.objid || '/' || d.refobjid FROM pg_depend d
         WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e' AND d.objid >= 16384
       UNION ALL SELECT 'u' || oid || rolsuper FROM pg_roles WHERE oid >= 16384 AND NOT starts_with(rolname::text, 'rf_')
       UNION ALL SELECT 'a' || attrelid || '/' || attnum || '/' || atttypid FROM pg_attribute
         WHERE atttypid >= 16384 AND attnum > 0
       UNION ALL SELECT 'p' || oid || xmin || ctid FROM pg_policy
       UNION ALL SELECT 'i' || inhrelid || '/' || inhparent FROM pg_inherits
       UNION ALL SELECT 'n' || c.oid || relname || relnamespace || relkind::text FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid >= 16384 AND relkind IN ('r', 'p', 'f', 'v', 'm')
           AND NOT starts_with(nspname::text, 'pg_temp_') AND nspname NOT IN (SELECT 'rf_' || digest FROM ringfence.faces)) s(x)";

/// Lists what the names of relations stand for. `$1` has PostgreSQL's own relations that show values of others.
pub const NAMES: &str = "SELECT c.relname::text,
        bool_or(c.is_view) OR count(*) FILTER (WHERE NOT c.is_system) > 1,
        max(c.others), bool_and(c.is_system), min(c.schema) FILTER (WHERE NOT c.is_system)
 FROM (SELECT c.relname, n.nspname::text AS schema,
              NOT s.is_system AND c.relkind NOT IN ('r', 'p', 'S') AS is_view,
              CASE WHEN EXISTS (SELECT FROM pg_inherits i
                                WHERE i.inhrelid = c.oid OR i.inhparent = c.oid)
              THEN ARRAY(
                WITH RECURSIVE up AS (
                  SELECT inhparent AS oid FROM pg_inherits WHERE inhrelid = c.oid
                  UNION SELECT i.inhparent FROM pg_inherits i JOIN up ON i.inhrelid = up.oid),
                down AS (
                  SELECT inhrelid AS oid FROM pg_inherits WHERE inhparent = c.oid
                  UNION SELECT i.inhrelid FROM pg_inherits i JOIN down ON i.inhparent = down.oid)
                SELECT o.relname::text FROM pg_class o
                  WHERE o.oid IN (SELECT oid FROM up UNION SELECT oid FROM down)) END AS others,
              s.is_system
       FROM pg_class c
       JOIN pg_namespace n ON n.oid = c.relnamespace,
       LATERAL (SELECT n.nspname IN ('pg_catalog', 'information_schema')
                AND c.relname <> ALL ($1) OR c.relkind = 'S' AS is_system) s
       WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
         AND n.nspname NOT IN (SELECT 'rf_' || digest FROM ringfence.faces)) c
 GROUP BY c.relname";

/// What is asked of the catalogue by these texts as they are.
pub const OF_CATALOGUE: &[&str] = &[THEIRS, BEHIND, STATE, NAMES];

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
