//! The steward: the gateway's own connections to a store, which compile faces and drop them.
//!
//! Its role is no superuser (`ringfence install` makes it): it may create roles and, as a member of the tables' owner,
//! grant on them. No client ever speaks through it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use deadpool_postgres::{ClientWrapper, Hook, HookError, Object, Pool, PoolError};
use hmac::{Hmac, Mac};
use postgres_protocol::password::scram_sha_256;
use ringfence_policy::{Catalogue, Outcome};
use ringfence_statement::asked;
use sha2::Sha256;
use tokio_postgres::types::{Kind as TypeKind, Type};
use tokio_postgres::{Client, Transaction};

use crate::Error;
use crate::condition::{self, Constants, Piece};
use crate::connection::Target;
use crate::ddl::{self, Limits};
use crate::drift::{self, Drift};
use crate::others::{self, Others};
use crate::row_security;
use crate::schema;
use crate::spec::{FaceSpec, Filter, Rows, View};
use crate::spelled::Spelled;
use crate::sql::ident;

/// How to log in to a store for one principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The store's role.
    pub role: String,
    /// Its password, derived from the gateway's secret.
    pub password: String,
    /// The face, or `full`.
    pub face: String,
}

/// What [`Login::face`] says of full access.
pub const FULL: &str = "full";

/// A column of a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its number (`pg_attribute.attnum`).
    pub number: i16,
    /// Its type (`pg_type.oid`).
    pub of_type: u32,
}

/// A table or a view of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its schema.
    pub schema: String,
    /// Its name, which is its table's.
    pub table: String,
    /// Its columns.
    pub columns: Vec<Attribute>,
}

/// Relations by their `pg_class.oid`.
pub type Relations = HashMap<u32, Relation>;

/// What a relation's name stands for in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// PostgreSQL's own relations and sequences, which have nothing of any user.
    System,
    /// A table that holds rows of its own, and its schema.
    Table(String),
    /// A table that holds rows of others, too, or shows them: a partition, a child, or a parent. These are the
    /// others, up and down.
    Child(Vec<String>),
    /// A view or a foreign table, which can show rows of any table; also where a table has the same name, and
    /// where several tables have it.
    View,
}

/// What the names of a store's relations stand for, in whatever schema.
pub type Names = HashMap<String, Named>;

/// PostgreSQL's own relations that show values of users' rows, or texts of statements.
const SHOW_VALUES: &[&str] = &[
    "pg_cursors",
    "pg_largeobject",
    "pg_prepared_statements",
    "pg_stat_activity",
    "pg_statistic",
    "pg_statistic_ext_data",
    "pg_stats",
    "pg_stats_ext",
    "pg_stats_ext_exprs",
];

/// The people in a table's rows.
#[derive(Clone, Debug)]
pub struct People {
    /// Equal as long as they are the same.
    pub state: String,
    /// Who.
    pub who: Found,
}

/// See [`People`].
#[derive(Clone, Debug)]
pub enum Found {
    /// The same as before.
    AsBefore,
    /// These: by the text of their key, and rows without a key by a hash.
    These {
        /// The keys.
        keys: Vec<String>,
        /// Hashes of rows.
        rows: Vec<String>,
    },
    /// More than were looked for: at least so many rows.
    Many(u64),
}

/// The most connections for what only looks at the catalogue.
const LOOKING: usize = 3;
/// The most connections for what changes something.
const COMPILING: usize = 2;
/// So long a face is tried that needs a lock on a table which others use.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first pause between two tries, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(800));

/// See the module's text.
pub struct Steward {
    target: Target,
    /// For looks at the catalogue, which must not wait for a face that is compiled.
    looking: Pool,
    compiling: Pool,
    secret: Vec<u8>,
    database: String,
    full_role: Option<String>,
    limits: Limits,
}

impl Steward {
    /// A steward that connects to `target` when first needed. `secret` makes the passwords of the login roles;
    /// `full_role` is the store's role for principals with full access.
    pub fn new(target: Target, secret: &[u8], full_role: Option<String>, limits: Limits) -> Self {
        let database = target.config.get_dbname().unwrap_or_default().to_owned();
        Self {
            looking: target.pool(LOOKING, Hook::async_fn(|client, _| Box::pin(set_up(client)))),
            compiling: target.pool(COMPILING, Hook::async_fn(|client, _| Box::pin(set_up(client)))),
            target,
            secret: secret.to_vec(),
            database,
            full_role,
            limits,
        }
    }

    async fn looking(&self) -> Result<Object, Error> {
        self.looking.get().await.map_err(no_connection)
    }

    async fn compiling(&self) -> Result<Object, Error> {
        self.compiling.get().await.map_err(no_connection)
    }

    fn password(&self, role: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(b"ringfence/store-login/v1\n");
        mac.update(role.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    /// Where the rows behind a route went, if they left this store, and the number of that decision. What left it is fenced off here.
    pub async fn home(&self, route: &str) -> Result<Option<(String, i64)>, Error> {
        let client = self.looking().await?;
        let doing = "tell where rows are at home";
        let known = client
            .query_one("SELECT to_regclass('ringfence_move.home') IS NOT NULL", &[])
            .await
            .map_err(Error::refused(doing))?;
        if !known.get::<_, bool>(0) {
            return Ok(None);
        }
        let sql = "SELECT store, epoch FROM ringfence_move.home WHERE route = $1 ORDER BY epoch DESC LIMIT 1";
        let row = client.query_opt(sql, &[&route]).await.map_err(Error::refused(doing))?;
        Ok(row.map(|row| (row.get(0), row.get(1))))
    }

    /// Makes sure that the face for `outcome` exists, and the login of `principal` at it.
    pub async fn compile(
        &self,
        principal: &str,
        outcome: &Outcome,
        catalogue: &Catalogue,
        filters: &[Filter],
    ) -> Result<Login, Error> {
        let client = self.looking().await?;
        let has = schema::read(&client).await?;
        let spec = FaceSpec::build(outcome, catalogue, &has, filters)?;
        let digest = spec.digest(&self.secret);
        let role = ddl::login_name(&digest, principal);
        // The update keeps the face from being dropped meanwhile, by any gateway: see `prune`.
        let used = client
            .execute("UPDATE ringfence.faces SET last_used = now() WHERE digest = $1", &[&digest])
            .await
            .map_err(Error::refused("note that a face is used"))?;
        let is_there = used == 1 && role_exists(&**client, &role).await?;
        drop(client);
        let login =
            Login { role, password: self.password(&ddl::login_name(&digest, principal)), face: digest };
        if is_there {
            return Ok(login);
        }
        let until = Instant::now() + PATIENCE;
        let (mut pause, longest) = PAUSES;
        loop {
            let mut client = self.compiling().await?;
            let made = self.make(&mut client, principal, &spec, &login).await;
            drop(client);
            match made {
                // Those who use the tables come first: nobody waits while we do.
                Err(Error::Busy { .. }) if Instant::now() < until => tokio::time::sleep(pause).await,
                Err(Error::Busy { .. }) => return Err(Error::InUse(self.in_use(&spec).await)),
                made => return made.map(|()| login),
            }
            pause = longest.min(pause * 2);
        }
    }

    /// Makes a face, if it is not there, and a login.
    async fn make(
        &self,
        client: &mut ClientWrapper,
        principal: &str,
        spec: &FaceSpec,
        login: &Login,
    ) -> Result<(), Error> {
        let digest = &login.face;
        let tx = client.build_transaction().start().await.map_err(Error::refused("begin"))?;
        let is_locked = |view: &&View| view.conditions().is_some() || view.has_policies;
        row_security::begin(&tx, spec.views.iter().filter(is_locked).count()).await?;
        let fresh = tx
            .query_opt("SELECT 1 FROM ringfence.faces WHERE digest = $1", &[digest])
            .await
            .map_err(Error::refused("read the faces"))?
            .is_none();
        let policies = if fresh { create(&tx, spec, digest).await? } else { Vec::new() };
        if !role_exists(&*tx, &login.role).await? {
            let verifier = scram_sha_256(login.password.as_bytes());
            self.may_connect(&*tx).await?;
            let sql = ddl::create_login(digest, principal, &verifier, self.limits);
            run(&tx, "create a login", &sql).await?;
        }
        // Last, as these lock the tables.
        run(&tx, "make a face's policies", &policies).await?;
        for view in spec.views.iter().filter(|view| view.conditions().is_some()) {
            row_security::enable(&tx, view).await?;
        }
        tx.commit().await.map_err(Error::refused("commit a face"))?;
        tracing::info!(face = %digest, views = spec.views.len(), fresh, "compiled a face");
        Ok(())
    }

    /// The tables of a face that cannot be locked, and which of the store's roles use them for how long; for people.
    async fn in_use(&self, spec: &FaceSpec) -> String {
        let is_filtered = |view: &&View| view.conditions().is_some();
        let tables = spec.views.iter().filter(is_filtered).map(|view| view.table.as_str());
        let tables: Vec<&str> = tables.collect();
        let sql = "SELECT DISTINCT a.usename::text, extract(epoch FROM now() - a.xact_start)::int8
            FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.granted AND c.relname = ANY($1) AND a.xact_start IS NOT NULL AND l.pid <> pg_backend_pid()
            ORDER BY 2 DESC LIMIT 3";
        if let Ok(client) = self.looking().await
            && let Ok(rows) = client.query(sql, &[&tables]).await
        {
            for row in &rows {
                let (role, seconds): (Option<String>, Option<i64>) = (row.get(0), row.get(1));
                tracing::warn!(?tables, role, seconds, "a transaction keeps a face from being made");
            }
        }
        tables.join(", ")
    }

    /// Makes sure that the login of a principal with full access exists.
    pub async fn full(&self, principal: &str) -> Result<Login, Error> {
        let role = ddl::full_login_name(principal);
        let Some(full_role) = &self.full_role else {
            let problem = "no full_access_role is configured for this store".to_owned();
            return Err(Error::Refused { doing: "give full access", problem });
        };
        let mut client = self.compiling().await?;
        let password = self.password(&role);
        self.may_connect(&**client).await?;
        if role_exists(&**client, &role).await? {
            return Ok(Login { role, password, face: FULL.to_owned() });
        }
        let limits = Limits { connections: self.limits.connections.max(100), ..self.limits };
        let tx = client.build_transaction().start().await.map_err(Error::refused("begin"))?;
        row_security::begin(&tx, 0).await?;
        if !role_exists(&*tx, &role).await? {
            let verifier = scram_sha_256(password.as_bytes());
            let sql = ddl::create_full_login(principal, full_role, &verifier, limits);
            run(&tx, "create a login", &sql).await?;
        }
        tx.commit().await.map_err(Error::refused("commit a login"))?;
        Ok(Login { role, password, face: FULL.to_owned() })
    }

    /// Makes sure that the group of our logins may connect.
    async fn may_connect(&self, client: &impl tokio_postgres::GenericClient) -> Result<(), Error> {
        let may = "SELECT has_database_privilege($1, current_database(), 'CONNECT')";
        let row =
            client.query_one(may, &[&ddl::FACES]).await.map_err(Error::refused("say who may connect"))?;
        if row.get(0) {
            return Ok(());
        }
        let sql = format!("GRANT CONNECT ON DATABASE {} TO {}", ident(&self.database), ddl::FACES);
        client.batch_execute(&sql).await.map_err(Error::refused("let our logins connect"))
    }

    /// Where the store and `catalogue` have come apart, as it is now.
    pub async fn drift(&self, catalogue: &Catalogue) -> Result<Drift, Error> {
        let client = self.looking().await?;
        Ok(drift::between(schema::read(&client).await?, catalogue))
    }

    /// How long the store takes to answer.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let began = Instant::now();
        let client = self.looking().await?;
        client.batch_execute("").await.map_err(Error::refused("answer"))?;
        Ok(began.elapsed())
    }

    /// Asks the store whether `condition` makes sense for a table, without looking at a row. The error is PostgreSQL's.
    pub async fn try_condition(&self, schema: &str, table: &str, condition: &[Piece]) -> Result<(), Error> {
        let client = self.looking().await?;
        let types = types_of_strings(&**client, (schema, table), condition).await?;
        let strings = condition.iter().filter_map(|piece| match piece {
            Piece::Constant { value, number: None } => Some(value),
            _ => None,
        });
        for (of, value) in types.iter().zip(strings) {
            let sql = format!("SELECT ($1::{of}) IS NULL");
            client
                .query(&sql, &[&Spelled(value)])
                .await
                .map_err(Error::refused("understand the condition"))?;
        }
        Ok(())
    }

    /// How many rows of `table` the face of `login` shows now, counted up to `limit` by that login itself.
    pub async fn rows_shown(&self, login: &Login, table: &str, limit: u64) -> Result<u64, Error> {
        let table = format!("{}.{}", ident(&ddl::schema_name(&login.face)), ident(table));
        let client = self.as_login(login).await?;
        count(&client, &format!("SELECT 1 FROM {table} LIMIT {limit}")).await
    }

    /// The people in the rows of a table, as the face of `login` (or full access) shows it: the distinct values of
    /// `key`, and for rows without one a hash of the row. At most `limit` rows are looked at. The login itself reads:
    /// policies, views and functions of the tables' owner never run with the steward's rights.
    ///
    /// `known` is what was found before: the store sends the values only if they are others now.
    pub async fn people(
        &self,
        login: &Login,
        place: (&str, &str),
        key: Option<&str>,
        limit: u64,
        known: Option<&str>,
    ) -> Result<People, Error> {
        let place = placed(login, place, key);
        let asked = place.asked(limit);
        let client = self.as_login(login).await?;
        let doing = "count what a statement reaches";
        let of_store = |sql: String| {
            let client = &client;
            async move {
                let messages = client.simple_query(&sql).await.map_err(Error::refused(doing))?;
                let rows = messages.into_iter().filter_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                Ok::<_, Error>(rows.collect::<Vec<_>>())
            }
        };
        // Two sums of hashes: a change of rows keeps both only by chance.
        let found = of_store(asked.state()).await?;
        let word = |n: usize| found.first().and_then(|row| row.get(n)).unwrap_or_default();
        let rows: u64 = word(0)
            .parse()
            .map_err(|_| Error::Refused { doing, problem: "the store's answer is no number".to_owned() })?;
        let state = format!("{rows} {} {}", word(1), word(2));
        if rows >= limit {
            return Ok(People { state, who: Found::Many(rows) });
        }
        if known == Some(&*state) {
            return Ok(People { state, who: Found::AsBefore });
        }
        let text = |row: &tokio_postgres::SimpleQueryRow| row.get(0).unwrap_or_default().to_owned();
        let keys = of_store(asked.keys()).await?.iter().map(text).collect();
        let rows = of_store(asked.rows()).await?.iter().map(text).collect();
        Ok(People { state, who: Found::These { keys, rows } })
    }

    /// A connection that is the login's own, for one count.
    async fn as_login(&self, login: &Login) -> Result<Client, Error> {
        let mut target = self.target.clone();
        target.config.user(&login.role).password(&login.password).dbname(&self.database);
        // The session that is counted for may hold the lock that the count would wait for.
        // A role can change its own settings: they do not count here.
        let own = "-c lock_timeout=5s -c statement_timeout=60s -c search_path=pg_catalog \
            -c default_transaction_isolation=read\\ committed -c row_security=on";
        let role = self.full_role.as_ref().filter(|_| login.face == FULL);
        let role = role.map(|role| role.replace('\\', "\\\\").replace(' ', "\\ "));
        let options = role.map_or_else(|| own.to_owned(), |role| format!("{own} -c role={role}"));
        target.config.options(&options);
        target.connect("a count").await.map_err(Error::refused("give a connection for a count"))
    }

    /// A function's name and arguments by its number (`pg_proc.oid`).
    pub async fn function_name(&self, number: u32) -> Result<Option<String>, Error> {
        let client = self.looking().await?;
        let sql = "SELECT oid::regprocedure::text FROM pg_proc WHERE oid = $1";
        let row = client.query_opt(sql, &[&number]).await.map_err(Error::refused("name a function"))?;
        Ok(row.map(|row| row.get(0)))
    }

    /// The tables that results of `face` (or `full`) come from, by the numbers that RowDescription has for them.
    pub async fn relations(&self, face: &str) -> Result<Relations, Error> {
        let client = self.looking().await?;
        let rows = client
            .query(
                "SELECT c.oid, n.nspname::text, c.relname::text, a.attname::text, a.attnum, a.atttypid
                 FROM pg_class c
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                 WHERE CASE WHEN $1 = '' THEN c.relkind IN ('r', 'p', 'f', 'm') AND n.nspname NOT LIKE 'pg\\_%'
                                          AND n.nspname NOT LIKE 'rf\\_%' AND n.nspname <> 'ringfence'
                            ELSE n.nspname = $1 END",
                &[&if face == FULL { String::new() } else { ddl::schema_name(face) }],
            )
            .await
            .map_err(Error::refused("list what a face is made of"))?;
        let mut relations = Relations::new();
        for row in rows {
            let relation = relations.entry(row.get(0)).or_insert_with(|| Relation {
                schema: row.get(1),
                table: row.get(2),
                columns: Vec::new(),
            });
            relation.columns.push(Attribute { name: row.get(3), number: row.get(4), of_type: row.get(5) });
        }
        Ok(relations)
    }

    /// What of the store runs code that is not PostgreSQL's own, and what names stand for; `None` if that is as it
    /// was at `state`.
    pub async fn others(&self, state: Option<&str>) -> Result<Option<(String, Others, Names)>, Error> {
        let client = self.looking().await?;
        // What changes while it is read is read once more.
        let now = others::state(&client).await?;
        if state == Some(&*now) {
            return Ok(None);
        }
        Ok(Some((now, others::read(&client).await?, names(&client).await?)))
    }

    /// Drops the faces that no gateway has used for `idle` and that have no session; with the last filtered one of a table
    /// its row-level security goes too. Returns how many were dropped.
    pub async fn prune(&self, idle: Duration) -> Result<usize, Error> {
        let mut client = self.compiling().await?;
        let seconds = idle.as_secs_f64();
        let rows = client
            .query(
                "SELECT digest FROM ringfence.faces f WHERE last_used < now() - make_interval(secs => $1)
                 AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.usename LIKE 'rf\\_' || f.digest || '\\_%')",
                &[&seconds],
            )
            .await
            .map_err(Error::refused("read the faces"))?;
        let (mut dropped, mut failed) = (0, None);
        for row in &rows {
            let digest: &str = row.get(0);
            match drop_face(&mut client, digest, seconds).await {
                Ok(is_dropped) => dropped += usize::from(is_dropped),
                // Somebody uses its table: later.
                Err(Error::Busy { .. }) => {}
                // The others are dropped all the same.
                Err(error) => {
                    tracing::warn!(face = digest, %error, "an unused face cannot be dropped");
                    failed = Some(error);
                }
            }
        }
        match row_security::calm(&mut client).await {
            Ok(()) | Err(Error::Busy { .. }) => {}
            Err(error) => return Err(error),
        }
        failed.map_or(Ok(dropped), Err)
    }
}

/// A table as a login reads it, in quoted names.
struct Placed {
    schema: String,
    table: String,
    key: Option<String>,
}

impl Placed {
    fn asked(&self, limit: u64) -> asked::People<'_> {
        asked::People { schema: &self.schema, table: &self.table, key: self.key.as_deref(), limit }
    }
}

fn placed(login: &Login, (schema, table): (&str, &str), key: Option<&str>) -> Placed {
    let schema = if login.face == FULL { schema.to_owned() } else { ddl::schema_name(&login.face) };
    Placed { schema: ident(&schema), table: ident(table), key: key.map(ident) }
}

/// The texts by which [`Steward::people`] reads the people in a table, as a login. They give back keys, so they are
/// on record with the statement that they are asked for.
pub fn questions(login: &Login, place: (&str, &str), key: Option<&str>, limit: u64) -> [String; 2] {
    let place = placed(login, place, key);
    let asked = place.asked(limit);
    [asked.keys(), asked.rows()]
}

/// What the names of the store's relations stand for.
async fn names(client: &Client) -> Result<Names, Error> {
    let rows = client
        .query(asked::NAMES, &[&SHOW_VALUES])
        .await
        .map_err(Error::refused("list what the names of relations stand for"))?;
    let named = |row: &tokio_postgres::Row| {
        let name: String = row.get(0);
        let shows_values = SHOW_VALUES.contains(&name.as_str());
        let others: Option<Vec<String>> = row.get(2);
        let schema: Option<String> = row.get(4);
        let named = match (row.get(1), others, row.get(3)) {
            (true, ..) => Named::View,
            _ if shows_values => Named::View,
            (_, Some(others), _) => Named::Child(others),
            (.., true) => Named::System,
            _ => Named::Table(schema.unwrap_or_default()),
        };
        (name, named)
    };
    Ok(rows.iter().map(named).collect())
}

/// Sets up one of the steward's connections. What it writes can be made again: it need not wait for the disk. Its looks
/// at the catalogue are long texts that run once: to compile them takes longer than they do.
async fn set_up(client: &mut ClientWrapper) -> Result<(), HookError> {
    client.batch_execute("SET synchronous_commit = off; SET jit = off").await.map_err(HookError::Backend)?;
    let installed = client.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = 'ringfence'", &[]).await;
    let installed = installed.map_err(HookError::Backend)?;
    installed.map(drop).ok_or_else(|| HookError::message("ringfence is not installed"))
}

fn no_connection(error: PoolError) -> Error {
    match error {
        PoolError::PostCreateHook(HookError::Message(_)) => Error::NotInstalled,
        PoolError::PostCreateHook(HookError::Backend(e)) => Error::refused("set up a session")(e),
        PoolError::Backend(e) => Error::Unreachable(crate::because(&e)),
        PoolError::Timeout(_) => {
            Error::Busy { doing: "give the steward a connection", sqlstate: "53300".to_owned() }
        }
        other => Error::Unreachable(other.to_string()),
    }
}

/// Makes a face and registers it; its policies come back, to be made last. Constants reach the store as parameters, and
/// its table of them alone.
async fn create(tx: &Transaction<'_>, spec: &FaceSpec, digest: &str) -> Result<Vec<String>, Error> {
    let mut types = HashMap::new();
    for (view, condition) in spec.conditions() {
        let of_strings = types_of_strings(tx, (&view.schema, &view.table), condition).await?;
        types.insert((&view.table, condition), of_strings);
    }
    let mut constants = Constants::default();
    let mut sql_of = |view: &View, rows: &Rows| {
        let Rows::AnyOf(conditions) = rows else { return "true".to_owned() };
        let one = |condition: &Vec<Piece>| {
            let of_strings = types.get(&(&view.table, condition)).map(Vec::as_slice).unwrap_or_default();
            format!("({})", condition::bind(condition, of_strings, digest, &mut constants))
        };
        conditions.iter().map(one).collect::<Vec<_>>().join(" OR ")
    };
    let views = ddl::create_views(spec, digest, &mut sql_of);
    let policies = ddl::create_policies(spec, digest, &mut sql_of);
    run(tx, "make a face's owner", &ddl::create_owner(digest)).await?;
    if !constants.is_empty() {
        let owner = ident(&ddl::owner_name(digest));
        run(tx, "make the table of a face's constants", &constants.create(digest, &owner)).await?;
        for (sql, value) in constants.insert(digest) {
            tx.execute(&sql, &[&Spelled(value)])
                .await
                .map_err(Error::refused("keep a condition's constant"))?;
        }
    }
    run(tx, "compile a face", &views).await?;
    let text = serde_json::to_string(&spec.without_constants()).expect("plain data with string keys");
    tx.execute("INSERT INTO ringfence.faces (digest, spec) VALUES ($1, $2)", &[&digest, &text])
        .await
        .map_err(Error::refused("register a face"))?;
    Ok(policies)
}

/// The types that the strings of a condition take in a table. Only parses: nothing is evaluated.
async fn types_of_strings(
    client: &impl tokio_postgres::GenericClient,
    (schema, table): (&str, &str),
    condition: &[Piece],
) -> Result<Vec<String>, Error> {
    let (schema, table) = (ident(schema), ident(table));
    let sql = format!("SELECT 1 FROM {schema}.{table} WHERE {} LIMIT 0", condition::probe(condition));
    let prepared = client.prepare(&sql).await.map_err(Error::refused("understand a condition"))?;
    let name = |of: &Type| {
        let name = format!("{}.{}", ident(of.schema()), ident(of.name()));
        if has_plain_input(of) {
            return Ok(name);
        }
        let problem = format!("its type {name} may run code of its owner when it reads a constant");
        Err(Error::Refused { doing: "take the condition", problem })
    };
    prepared.params().iter().map(name).collect()
}

/// Whether to read a value of the type runs nothing but PostgreSQL's own code, or an extension's. A
/// domain has conditions, which its owner writes, and a composite type can have a domain in it.
fn has_plain_input(of: &Type) -> bool {
    match of.kind() {
        TypeKind::Simple | TypeKind::Enum(_) => true,
        TypeKind::Array(inner) | TypeKind::Range(inner) | TypeKind::Multirange(inner) => {
            has_plain_input(inner)
        }
        _ => false,
    }
}

async fn count(client: &Client, query: &str) -> Result<u64, Error> {
    let sql = format!("SELECT count(*) FROM ({query}) AS r");
    let rows = client.simple_query(&sql).await.map_err(Error::refused("count what a statement reaches"))?;
    let row = rows.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let found = row.and_then(|text| text.parse().ok());
    found.ok_or_else(|| Error::Refused {
        doing: "count what a statement reaches",
        problem: "the store's answer is no number".to_owned(),
    })
}

async fn run(tx: &Transaction<'_>, doing: &'static str, sql: &[String]) -> Result<(), Error> {
    tx.batch_execute(&sql.join(";\n")).await.map_err(Error::refused(doing))
}

async fn role_exists(client: &impl tokio_postgres::GenericClient, role: &str) -> Result<bool, Error> {
    let found = client.query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role]).await;
    Ok(found.map_err(Error::refused("look for a role"))?.is_some())
}

/// Drops a face if it is still unused; who takes it into use at the same moment waits for the row,
/// and makes it again.
async fn drop_face(client: &mut ClientWrapper, digest: &str, idle_seconds: f64) -> Result<bool, Error> {
    let (owner, group) = (ddl::owner_name(digest), ddl::group_name(digest));
    let pattern = format!("rf_{digest}_%");
    let rows = client
        .query(
            "SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1 AND rolname NOT IN ($2, $3)",
            &[&pattern, &owner, &group],
        )
        .await
        .map_err(Error::refused("list a face's logins"))?;
    let logins: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    let tx = client.build_transaction().start().await.map_err(Error::refused("begin"))?;
    row_security::begin(&tx, 1).await?;
    let unused = tx
        .execute(
            "DELETE FROM ringfence.faces WHERE digest = $1 AND last_used < now() - make_interval(secs => $2)",
            &[&digest, &idle_seconds],
        )
        .await
        .map_err(Error::refused("unregister a face"))?;
    if unused == 0 {
        return Ok(false);
    }
    for login in &logins {
        run(&tx, "take over a login", &[format!("GRANT {} TO CURRENT_USER", ident(login))]).await?;
    }
    tx.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY($1)", &[&logins])
        .await
        .map_err(Error::refused("end a face's sessions"))?;
    for login in &logins {
        run(&tx, "drop a login", &ddl::drop_login(login)).await?;
    }
    // DROP OWNED takes rights back as the one who owns the object: those that were given as the steward stay.
    let schemas = tx
        .query(
            "SELECT DISTINCT n.nspname::text FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) g
             JOIN pg_roles r ON r.oid = g.grantee JOIN pg_roles s ON s.oid = g.grantor
             WHERE r.rolname = $1 AND s.rolname = current_user",
            &[&owner],
        )
        .await
        .map_err(Error::refused("list a face's rights"))?;
    let schemas: Vec<String> = schemas.iter().map(|row| row.get(0)).collect();
    run(&tx, "drop a face", &ddl::drop_face(digest, &schemas)).await?;
    tx.commit().await.map_err(Error::refused("commit"))?;
    tracing::info!(face = %digest, "dropped a face");
    Ok(true)
}
