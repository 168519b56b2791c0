//! Facts beside the rows: two stores that are equal but for hidden values give a face the same
//! answers, for each relation of the catalogue and each function that it calls.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::harness::client::{Answer, run};
use crate::harness::database::Database;
use crate::harness::support::Demo;
use crate::harness::support::wire::Wire;

const STORE: &str = "us-trusted";
const RESTRICTED: [&str; 2] = ["beijing-engineer", "singapore-analyst"];

/// What a store's owner may have made over hidden values before: what the planner keeps about them,
/// and what is read with an index.
const OBJECTS: &str = "create index facts_email on users (email);
    create index facts_lower on users (lower(email));
    create index facts_hash on users using hash (phone);
    create index facts_some on users (phone) where birth_date > '1980-01-01';
    create statistics facts_both (ndistinct, dependencies, mcv) on email, phone from users;
    create statistics facts_of (mcv) on (lower(email)), (left(phone, 4)) from users;
    create materialized view facts_emails as select id, email from users where id < 50;
    create view facts_view with (security_barrier) as select email from users;
    alter table users alter column email set statistics 1000;
    create function facts_longest(text) returns int language sql stable as
      'select length(max(email)) from users where email < $1'";

/// Statements of others, with hidden values of the same length: $V is a letter.
const STATEMENTS: &[&str] = &[
    "update users set email = repeat('$V', 12) || '@example.com', phone = '+1' || repeat('$D', 10),
       full_name = '$V$V$V$V', birth_date = '19$D$D-01-01' where id = 4711",
    "update messages set body = repeat('$V', 40) where id = (select min(id) from messages)",
    "update payments set card_last4 = '$D$D$D$D', amount_cents = $D$D$D where id = (select min(id) from payments)",
    "update devices set ip = '203.0.113.$D', last_lat = $D.5 where id = (select min(id) from devices)",
    "refresh materialized view facts_emails",
    "vacuum analyze users",
    "analyze",
    "set enable_seqscan = off",
    "select count(*) from users where email = repeat('$V', 12) || '@example.com'",
    "select count(*) from users where email > '$V'",
    "select count(*) from users where lower(email) < '$V'",
    "select count(*) from users where phone = '+1' || repeat('$D', 10)",
    "reset enable_seqscan",
    "select facts_longest('$V')",
    "prepare facts_text as select '$V'::text",
    "set work_mem = '64kB'",
    "select count(*) from (select email, phone from users order by email, phone offset 1) s",
    "set application_name = '$V'",
    "listen \"facts_$V\"",
    "create temporary table facts_kept as select email from users",
    "analyze facts_kept",
    "select pg_advisory_lock(7)",
    "begin",
    "declare facts_open cursor for select * from users where email = repeat('$V', 12) || '@example.com'",
    "fetch facts_open",
    "select id from users where email >= '$V' order by email limit 3 for update",
    "savepoint facts_point",
    "select count(*) from users where email >= '$V'",
];

/// What differs without any difference in a hidden value, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("clock_timestamp()", "the time"),
    ("timeofday()", "the time"),
    ("statement_timestamp()", "the time"),
    ("transaction_timestamp()", "the time"),
    ("now()", "the time"),
    ("random()", "chance"),
    ("gen_random_uuid()", "chance"),
    ("pg_postmaster_start_time()", "when the server was started"),
    ("pg_conf_load_time()", "when the server was started"),
    ("pg_backend_pid()", "the number of the session's own process"),
    ("database_to_xml(boolean,boolean,text)", "shows the face's own rows: a mask differs with its value"),
    (
        "database_to_xml_and_xmlschema(boolean,boolean,text)",
        "shows the face's own rows: a mask differs with its value",
    ),
];

/// One of two equal stores.
struct Twin {
    /// The folder with its socket.
    dir: PathBuf,
    /// The session of others, still open.
    others: Database,
}

impl Twin {
    /// Where hidden values are made of `letter`.
    fn new(dir: &Path, letter: char) -> Self {
        let others = Database::connect(dir, "us");
        let digit = char::from(b'1' + (letter as u8 - b'a'));
        for statement in STATEMENTS {
            let statement = statement.replace("$V", &letter.to_string()).replace("$D", &digit.to_string());
            assert!(others.attempt(&statement).is_some(), "{statement}");
        }
        Self { dir: dir.to_owned(), others }
    }

    fn ask(&self, sql: &str) -> String {
        Database::connect(&self.dir, "us").value(sql)
    }

    fn face(&self, login: &str) -> Wire {
        let socket = self.dir.join(".s.PGSQL.5432");
        let mut wire = Wire::connect_socket(&socket, login, "us", "wall").expect("the role can log in");
        run(&mut wire, "set statement_timeout = '180s'");
        wire
    }
}

/// A value without a position in the server's write-ahead log. PostgreSQL 15.20 keeps with each
/// column the position at which the column was made, and background work moves that, too.
fn without_position(value: &str) -> String {
    let Some((before, rest)) = value.split_once("{pg_attver=") else { return value.to_owned() };
    format!("{before}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// An answer in words: rows in an order that depends on nothing else, or the error.
fn told(answer: &Answer) -> String {
    assert!(!answer.is_gone && answer.sqlstate() != Some("57014"), "{answer:?}");
    let value = |value: &Option<Vec<u8>>| match value {
        None => "(null)".to_owned(),
        Some(value) => without_position(&String::from_utf8_lossy(value)),
    };
    let mut rows: Vec<String> =
        answer.rows.iter().map(|row| row.iter().map(value).collect::<Vec<_>>().join("|")).collect();
    rows.sort_unstable();
    let mut all = rows.join("\n");
    for fields in answer.errors.iter().chain(&answer.notices) {
        write!(all, "{fields:?}").expect("a text takes it");
    }
    all
}

/// The rows of what a face asks.
fn list(wire: &mut Wire, sql: &str) -> Vec<Vec<String>> {
    let answer = run(wire, sql);
    assert!(answer.errors.is_empty(), "{sql}: {}", answer.error());
    let value = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap_or_default()).unwrap();
    answer.rows.into_iter().map(|row| row.into_iter().map(value).collect()).collect()
}

/// Each relation of the catalogue that a face may read, with the columns that it may read.
const RELATIONS: &str = "select c.oid::regclass::text,
      (select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute a
       where attrelid = c.oid and attnum > 0 and has_column_privilege(c.oid, attnum, 'select'))
    from pg_class c where relkind in ('r', 'v', 'm', 'p', 'f', 'S', 't') and relnamespace in
      ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)
      and has_schema_privilege(relnamespace, 'usage') and has_any_column_privilege(c.oid, 'select') order by 1";

/// Each function that takes nothing but what stands for an object, and may be called.
const FUNCTIONS: &str = "select p.oid::regprocedure::text,
      array_to_string(array(select format_type(t, null) from unnest(proargtypes) with ordinality a(t, n)
        order by n), ',')
    from pg_proc p join pg_namespace n on n.oid = pronamespace
    where prokind in ('f', 'w') and has_function_privilege(p.oid, 'execute') and has_schema_privilege(n.oid, 'usage')
      and pronargs <= 4 and proargtypes::oid[] <@ array['oid'::regtype, 'regclass'::regtype,
        'name'::regtype, 'text'::regtype, 'int4'::regtype, 'int8'::regtype, 'int2'::regtype, 'bool'::regtype,
        '\"char\"'::regtype, 'regproc'::regtype, 'cstring'::regtype]::oid[]
      and proname !~ '^pg_sleep' order by 1";

/// What stands for the base objects, by type.
fn objects(wire: &mut Wire) -> BTreeMap<String, Vec<String>> {
    let named = "select c.oid::text, quote_literal(n.nspname || '.' || relname), quote_literal(relname)
        from pg_class c join pg_namespace n on n.oid = relnamespace
        where relname in ('users', 'payments', 'messages', 'facts_email', 'facts_lower', 'facts_emails', 'users_pkey')
          and n.nspname = 'public' order by 1";
    let mut of = BTreeMap::<String, Vec<String>>::new();
    for row in list(wire, named) {
        let [number, place, name] = row.try_into().unwrap();
        let mut add = |of_type: &str, text: String| of.entry(of_type.to_owned()).or_default().push(text);
        add("oid", format!("{number}::oid"));
        add("regclass", format!("{number}::regclass"));
        add("text", format!("{place}::text"));
        add("text", format!("{name}::text"));
        add("name", format!("{name}::name"));
    }
    assert!(of["oid"].len() >= 6, "{of:?}");
    let others = "select oid::text from pg_statistic_ext union all
        select oid::text from pg_proc where proname = 'facts_longest' union all
        select oid::text from pg_database where datname = 'us' union all
        select oid::text from pg_namespace where nspname = 'public' union all
        select oid::text from pg_roles where rolname in ('postgres', 'ringfence') union all
        select oid::text from pg_attrdef union all select oid::text from pg_rewrite
          where ev_class in (select oid from pg_class where relname like 'facts%') union all
        select oid::text from pg_constraint where conrelid in (select oid from pg_class where relname = 'users')";
    let others = list(wire, others).concat();
    of.get_mut("oid").unwrap().extend(others.into_iter().map(|number| format!("{number}::oid")));
    for (of_type, values) in [
        ("name", &["'us'::name", "'email'::name", "'public'::name", "'postgres'::name"][..]),
        ("text", &["'email'::text", "'us'::text", "'select'::text", "'application_name'::text"]),
        ("integer", &["0", "1", "2", "4711"]),
        ("bigint", &["1::int8", "4711::int8"]),
        ("smallint", &["1::int2", "3::int2"]),
        ("boolean", &["true"]),
        ("\"char\"", &["'r'::\"char\""]),
        ("regproc", &["'facts_longest'::regproc"]),
        ("cstring", &["'users'::cstring"]),
    ] {
        of.entry(of_type.to_owned()).or_default().extend(values.iter().map(|&value| value.to_owned()));
    }
    of
}

/// All calls of a function with these objects: with many arguments, only the first few of each
/// type.
fn calls(function: &str, types: &str, of: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let name = function.split('(').next().unwrap();
    let types: Vec<&str> = types.split(',').filter(|t| !t.is_empty()).collect();
    let most = [usize::MAX, usize::MAX, 9, 4, 2][types.len()];
    let mut lists = vec![Vec::<&str>::new()];
    for of_type in types {
        let values = &of[of_type];
        // Of many, some from each end: objects of other kinds stand there.
        let some = values
            .iter()
            .take(most.div_ceil(2))
            .chain(values.iter().skip(most.div_ceil(2)).rev().take(most / 2));
        let some: Vec<&str> = some.map(String::as_str).collect();
        lists = lists
            .into_iter()
            .flat_map(|list| some.iter().map(move |value| [list.as_slice(), &[*value]].concat()))
            .collect();
    }
    lists.into_iter().map(|list| format!("select * from {name}({})", list.join(", "))).collect()
}

/// All that a face can read, by what it asks.
fn read(twin: &Twin, login: &str) -> BTreeMap<String, String> {
    let mut wire = twin.face(login);
    let mut all = BTreeMap::new();
    for row in list(&mut wire, RELATIONS) {
        let [relation, columns] = row.try_into().unwrap();
        let sql = format!("select {columns} from {relation}");
        all.insert(relation, told(&run(&mut wire, &sql)));
    }
    assert!(all.len() > 100, "{} relations", all.len());
    let of = objects(&mut wire);
    let mut functions = 0;
    for row in list(&mut wire, FUNCTIONS) {
        let [function, types] = row.try_into().unwrap();
        functions += 1;
        let mut answers = String::new();
        for call in calls(&function, &types, &of) {
            writeln!(answers, "{call}: {}", told(&run(&mut wire, &call))).expect("a text takes it");
            wire.forget();
        }
        all.insert(function, answers);
    }
    assert!(functions > 500, "{functions} functions");
    all
}

/// What differs, by name, each with the first lines that do.
fn differences(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let differ = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
    let lines = |of: &BTreeMap<String, String>, name: &str| -> Vec<String> {
        of.get(name).map_or_else(Vec::new, |text| text.lines().map(str::to_owned).collect())
    };
    differ
        .map(|name| {
            let (a, b) = (lines(one, name), lines(other, name));
            let first = a.iter().zip(&b).find(|(a, b)| a != b);
            (name.clone(), format!("{first:?}, {} and {} lines", a.len(), b.len()))
        })
        .collect()
}

#[test]
fn hidden_values_change_nothing_that_a_face_can_read() {
    let demo = Demo::start("facts");
    demo.superuser(STORE, "us", OBJECTS);
    demo.grant("singapore-analyst", "users.email", "id < 30", &[]);
    for who in RESTRICTED {
        let mut wire = Wire::connect(demo.port, who, "us").unwrap();
        assert!(run(&mut wire, "select count(*) from users").errors.is_empty());
    }
    let logins = demo.face_logins(STORE);
    assert!(logins.len() >= 2, "{logins:?}");
    for login in &logins {
        demo.superuser(STORE, "us", &format!("alter role {login} password 'wall'"));
    }
    demo.copies(STORE, &["twin-a", "twin-b"]);
    let twins =
        [("twin-a", 'a'), ("twin-b", 'b')].map(|(dir, letter)| Twin::new(&demo.dir.join(dir), letter));
    let mut found = BTreeMap::new();
    for login in &logins {
        let [one, other] = std::thread::scope(|scope| {
            let reading = [0, 1].map(|n| {
                let twin = &twins[n];
                scope.spawn(move || read(twin, login))
            });
            reading.map(|one| one.join().unwrap())
        });
        found.extend(differences(&one, &other));
    }
    for (exception, reason) in EXCEPTIONS {
        assert!(found.remove(*exception).is_some(), "{exception} does not differ: {reason}");
    }
    assert!(found.is_empty(), "{found:#?}");

    // The test sees a difference where there is one.
    for twin in &twins {
        twin.ask(&format!("grant select on pg_statistic to {}", logins[0]));
        assert!(twin.others.attempt("commit").is_some());
    }
    let seen = differences(&read(&twins[0], &logins[0]), &read(&twins[1], &logins[0]));
    assert!(seen.contains_key("pg_statistic"), "{seen:?}");
}
