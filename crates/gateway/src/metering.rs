//! What a metered session's results show of whom: for each statement, which tables' people its rows are about, by which column
//! of the result one can tell, and what must be on record before they leave.
//!
//! Metered are the sessions whose access crosses the border. Where a row carries the key of the person whom it is about, that
//! person is counted; where it cannot be known, as many as there can be at most.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ringfence_face::{Named, Names, Relations};
use ringfence_ledger::{Counters, Entry, Kind, Ticket};
use ringfence_meter::record::MAX_IDS;
use ringfence_meter::subject::Id;
use ringfence_meter::tally::{Meaning, Reader, Seen};
use ringfence_meter::{Exceeded, Group, Reached, SubjectKey, Who};
use ringfence_policy::{Catalogue, Column, Kind as Mask, Measure, Table, Unit, Visibility};
use ringfence_statement::scope::{Mention, QueryScope, UNBOUNDED};

use crate::connection::cannot_connect;
use crate::flow::InFlight;
use crate::meter::{Everybody, LOOKED_AT};
use crate::quota::{Patience, code_of, refused_with};
use crate::refusal::{Refusal, code};
use crate::relay::resolve::Run;
use crate::rows::{Reading, Value, description, is_short, value};
use crate::server::Shared;
use crate::session::Session;

/// The category of what nobody classified.
const UNCLASSIFIED: &str = "unclassified";
/// A row that is longer than this before its key comes is counted without it.
pub const MAX_BEFORE_KEY: usize = 64 * 1024;

/// How many queries a session remembers, each with the people that it shows.
const REMEMBERED: usize = 8;

/// What a session needs to be metered.
pub struct Metering {
    reader: Reader,
    /// When its newest grant was asked for.
    asked: Option<u64>,
    /// The people that the session's last queries show.
    known: Mutex<VecDeque<Known>>,
    /// What it has been warned of, and what it is yet to hear.
    warned: Mutex<(BTreeSet<String>, Vec<Refusal>)>,
}

impl Metering {
    /// For a session of `who`.
    pub fn new(shared: &Shared, who: Who<'_>, asked: Option<u64>) -> Self {
        let reader = shared.meter.reader(who);
        Self { reader, asked, known: Mutex::default(), warned: Mutex::default() }
    }
}

/// In which form a key is shown: the same person has another hash by a mask's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyForm {
    Clear,
    Token,
}

/// A column that tells whom a row is about.
#[derive(Debug)]
struct Carrier {
    table: String,
    column: String,
    form: KeyForm,
    key: SubjectKey,
}

/// Where in a row the key is.
#[derive(Clone, Copy, Debug)]
struct Place {
    position: usize,
    reading: Reading,
    /// Which carrier it is.
    carrier: usize,
}

/// The people of one table that a query shows: what stays the same each time it runs.
#[derive(Debug)]
struct Subjects {
    /// The table and what of it is shown, without people.
    group: Group,
    meaning: Meaning,
    /// How many rows of the table a row of the result may show; [`UNBOUNDED`] if that cannot be told.
    max_rows: u64,
    carriers: Vec<Carrier>,
}

/// The people that a query of this session shows.
struct Known {
    scope: Arc<QueryScope>,
    goes_on: bool,
    runs_others: bool,
    /// What names of relations stood for.
    names: Arc<Names>,
    subjects: Vec<Arc<Subjects>>,
}

/// People of one table, for one statement.
#[derive(Debug)]
struct Watched {
    of: Arc<Subjects>,
    /// The people whose keys were seen, and who are not on record yet.
    ids: Vec<Id>,
    /// How many more there are at most.
    rows: u64,
    place: Option<Place>,
    /// Something here must be on record before it leaves.
    is_new: bool,
}

impl Watched {
    fn of(subjects: &Arc<Subjects>) -> Self {
        Self { of: Arc::clone(subjects), ids: Vec::new(), rows: 0, place: None, is_new: false }
    }

    /// Takes the people, for a record.
    fn take(&mut self) -> Option<Group> {
        let (mut ids, rows) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.rows));
        if ids.is_empty() && rows == 0 {
            return None;
        }
        ids.sort_unstable();
        ids.dedup();
        Some(Group { ids, rows, ..self.of.group.clone() })
    }
}

/// What is watched of one statement.
#[derive(Debug, Default)]
pub struct Watch {
    watched: Vec<Watched>,
    /// It names a relation that the store does not have, so no row of it may pass.
    is_absent: bool,
    /// What names of relations stood for.
    names: Arc<Names>,
}

/// What becomes of a row.
pub enum Row {
    /// It may pass.
    Pass,
    /// More of it must be there first.
    More,
}

impl Watch {
    /// Whether a RowDescription could tell whom rows are about.
    pub fn wants_description(&self) -> bool {
        self.watched.iter().any(|watched| !watched.of.carriers.is_empty())
    }

    /// Whether nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty() && !self.is_absent
    }

    /// The people of tables of which a row may show all, to be counted again.
    #[must_use]
    pub fn unbounded(&self) -> Self {
        let all = self.watched.iter().filter(|watched| watched.of.max_rows == UNBOUNDED);
        let watched = all.map(|watched| Watched::of(&watched.of)).collect();
        Self { watched, is_absent: false, names: Arc::clone(&self.names) }
    }

    /// Whether a row may show all people of some table.
    pub fn has_unbounded(&self) -> bool {
        self.watched.iter().any(|watched| watched.of.max_rows == UNBOUNDED)
    }

    /// Counts rows that show no person's key. A limit does not hold them back.
    pub fn count_unknown(&mut self, session: &Session, metering: &Metering) {
        for watched in &mut self.watched {
            let seen = Seen::Rows(watched.of.max_rows);
            if let Ok(is_new) = metering.count(session, &watched.of.meaning, seen) {
                watched.is_new |= is_new;
                watched.rows = watched.rows.saturating_add(watched.of.max_rows);
            }
        }
    }

    /// Counts rows that MOVE has passed over. They show no key.
    pub fn count_moved(
        &mut self,
        count: u64,
        session: &Session,
        metering: &Metering,
    ) -> Result<(), Box<Refusal>> {
        self.must_be_known()?;
        for watched in &mut self.watched {
            let rows = watched.of.max_rows.saturating_mul(count);
            watched.is_new |= metering.count(session, &watched.of.meaning, Seen::Rows(rows))?;
            watched.rows = watched.rows.saturating_add(rows);
        }
        Ok(())
    }

    fn must_be_known(&self) -> Result<(), Box<Refusal>> {
        if !self.is_absent {
            return Ok(());
        }
        let message = "the answer is of a relation that the store did not have when the statement was sent";
        Err(Box::new(
            Refusal::new(code::NOT_IN_PREREQUISITE_STATE, message)
                .detail("Whose data it shows cannot be counted, so it is held back and the session is over.")
                .hint("Connect again. Across the border, read tables and views that are committed."),
        ))
    }

    /// A RowDescription came: finds the keys in it.
    pub fn describe(&mut self, body: &[u8], relations: &Relations, session: &Session) {
        let fields = description(body).unwrap_or_default();
        for watched in &mut self.watched {
            let carriers = watched.of.carriers.iter().enumerate();
            watched.place = carriers.into_iter().find_map(|(number, carrier)| {
                fields.iter().enumerate().find_map(|(position, field)| {
                    let relation = relations.get(&field.relation)?;
                    let attribute = relation.columns.iter().find(|a| a.number == field.attribute)?;
                    let is_it = relation.table == carrier.table && attribute.name == carrier.column;
                    // Four bytes of a token are too few to tell people apart.
                    let is_short = carrier.form == KeyForm::Token && is_short(field.of_type);
                    (is_it && !is_short && session.is_of_catalogue(&relation.schema, &relation.table))
                        .then(|| Place { position, reading: field.reading(), carrier: number })
                })
            });
        }
    }

    /// A row is about to pass; `row` is what is there of its body.
    pub fn row(
        &mut self,
        row: &[u8],
        is_whole: bool,
        session: &Session,
        metering: &Metering,
    ) -> Result<Row, Box<Refusal>> {
        self.must_be_known()?;
        for watched in &self.watched {
            let Some(place) = &watched.place else { continue };
            if matches!(value(row, place.position), Value::Cut) && !is_whole && row.len() < MAX_BEFORE_KEY {
                return Ok(Row::More);
            }
        }
        for watched in &mut self.watched {
            let id = watched.place.as_ref().and_then(|place| match value(row, place.position) {
                Value::There(bytes) => {
                    Some(watched.of.carriers[place.carrier].key.id(&place.reading.text(bytes)))
                }
                Value::Null | Value::Cut => None,
            });
            let seen = id.map_or(Seen::Rows(watched.of.max_rows), Seen::One);
            watched.is_new |= metering.count(session, &watched.of.meaning, seen)?;
            match id {
                Some(id) if watched.ids.last() == Some(&id) => {}
                Some(id) => watched.ids.push(id),
                None => watched.rows = watched.rows.saturating_add(watched.of.max_rows),
            }
            watched.is_new |= watched.ids.len() >= MAX_IDS;
        }
        Ok(Row::Pass)
    }

    /// What must be on record now.
    fn take_new(&mut self) -> Vec<Group> {
        let new = |watched: &mut Watched| std::mem::take(&mut watched.is_new).then(|| watched.take());
        self.watched.iter_mut().filter_map(new).flatten().collect()
    }

    /// What is not on record yet.
    pub fn take_rest(&mut self) -> Vec<Group> {
        self.watched.iter_mut().filter_map(Watched::take).collect()
    }
}

impl Metering {
    /// Writes the warnings that the person has not heard yet.
    pub fn warn(&self, out: &mut Vec<u8>) {
        for warning in self.warned.lock().unwrap_or_else(PoisonError::into_inner).1.drain(..) {
            warning.notice(out);
        }
    }

    /// Counts, and warns. True if it must be on record before it is shown.
    fn count(&self, session: &Session, meaning: &Meaning, seen: Seen<'_>) -> Result<bool, Box<Refusal>> {
        let counted = session.shared.meter.count(&self.reader, meaning, seen, self.asked);
        let counted = counted.map_err(|exceeded| Box::new(refusal(session, &exceeded)))?;
        for exceeded in counted.warnings {
            let what = format!("{} {:?} {}", exceeded.category, exceeded.recipient, exceeded.at);
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            if warned.0.insert(what) {
                tracing::warn!(
                    person = %session.principal.name, category = %exceeded.category, reached = exceeded.reached,
                    threshold = exceeded.more_than, "a share of a threshold is reached"
                );
                warned.1.push(warning(&exceeded));
            }
        }
        Ok(counted.is_new)
    }
}

fn told(exceeded: &Exceeded) -> String {
    format!(
        "With this, {} would have reached {} of {} in the last twelve months; the threshold is {} ({}).",
        exceeded.recipient.name(),
        exceeded.reached,
        exceeded.category,
        exceeded.more_than,
        exceeded.section
    )
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1000.0).round() / 10.0)
}

/// How much of a threshold is reached.
fn reached_share(exceeded: &Exceeded) -> String {
    if exceeded.more_than == 0 {
        return "more than 100 %".to_owned();
    }
    #[allow(clippy::cast_precision_loss, reason = "people, not atoms")]
    let share = exceeded.reached as f64 / exceeded.more_than as f64;
    percent(share)
}

fn warning(exceeded: &Exceeded) -> Refusal {
    let message =
        format!("{} of the threshold for {} is reached", reached_share(exceeded), exceeded.category);
    Refusal::new("00000", message).detail(told(exceeded))
}

fn refusal(session: &Session, exceeded: &Exceeded) -> Refusal {
    let share = percent(exceeded.at);
    let refusal = Refusal::new(
        code::LIMIT_EXCEEDED,
        format!("the meter's limit for {} is reached ({share} of the threshold)", exceeded.category),
    )
    .detail(told(exceeded));
    if exceeded.then == Measure::Approve {
        refusal.hint(format!(
            "Further people need a further approval: ask for a grant now, with `ringfence request --as {} --store {} …`.",
            session.principal.name, session.store.name
        ))
    } else {
        refusal.hint("The people who were reached already can still be read. Limits are in the registry, and the in-country security team's.")
    }
}

impl Session {
    /// What a statement shows of whom; `None` where nothing is counted.
    /// `runs_others` says that it may run code that reads anything.
    pub fn watch(&self, runs: &[Run], runs_others: bool) -> Option<Watch> {
        let metering = self.metering.as_ref()?;
        let names = self.names();
        let mut watched: Vec<Watched> = Vec::new();
        match runs {
            [one] => {
                let mut known = metering.known.lock().unwrap_or_else(PoisonError::into_inner);
                let is_it = |k: &&Known| {
                    Arc::ptr_eq(&k.scope, &one.scope)
                        && k.goes_on == one.goes_on
                        && k.runs_others == runs_others
                        && Arc::ptr_eq(&k.names, &names)
                };
                if let Some(found) = known.iter().find(is_it) {
                    watched.extend(found.subjects.iter().map(Watched::of));
                } else {
                    let subjects = self.subjects(&one.scope, one.goes_on, runs_others, &names);
                    watched.extend(subjects.iter().map(Watched::of));
                    if known.len() >= REMEMBERED {
                        known.pop_front();
                    }
                    let (scope, goes_on) = (Arc::clone(&one.scope), one.goes_on);
                    let names = Arc::clone(&names);
                    known.push_back(Known { scope, goes_on, runs_others, names, subjects });
                }
            }
            _ if runs_others => {
                watched
                    .extend(self.subjects(&QueryScope::empty(), false, true, &names).iter().map(Watched::of));
            }
            runs => {
                // What goes on was counted where it has no bound; what begins is counted now.
                for goes_on in [false, true] {
                    let mut scope = QueryScope::empty();
                    let theirs = runs.iter().filter(|run| run.goes_on == goes_on);
                    theirs.for_each(|run| scope.merge(&run.scope));
                    scope.is_plain &= runs.iter().filter(|run| run.scope.has_rows).count() <= 1;
                    watched
                        .extend(self.subjects(&scope, goes_on, runs_others, &names).iter().map(Watched::of));
                }
            }
        }
        let is_absent = runs.iter().any(|run| self.is_absent(&names, run));
        (!watched.is_empty() || is_absent).then_some(Watch { watched, is_absent, names })
    }

    /// The people that a query shows. In one session they depend on the query and on `names` only.
    fn subjects(
        &self,
        scope: &QueryScope,
        goes_on: bool,
        runs_others: bool,
        names: &Names,
    ) -> Vec<Arc<Subjects>> {
        let mut subjects = Vec::new();
        let Some((_, catalogue)) = self.policy.store(&self.store.name) else { return subjects };
        let whole = Mention { max_rows: UNBOUNDED, all_columns: true, ..Mention::default() };
        // Outside a face, a function that is not known may read any table, and so may a view.
        let names = (!self.is_face()).then_some(names);
        let named = |table: &str| names.as_ref().map(|names| names.get(table));
        // A name that the store does not have is for the store to refuse; `is_absent` holds back its rows.
        let is_strange = |table: &String| match named(table) {
            None | Some(None | Some(Named::Table(_) | Named::System)) => false,
            Some(Some(Named::Child(_))) => !catalogue.tables.contains_key(table),
            Some(Some(Named::View)) => true,
        };
        // A copy in the same row is read later by the name of another column.
        let is_protected = |table: &String| {
            let class = |column: &str| catalogue.column(table, column).and_then(Column::protected);
            scope.copied.iter().any(|column| column == "*" || class(column).is_some())
        };
        let is_strange = names.is_some()
            && (runs_others
                || scope.calls_unknown
                || scope.tables.keys().any(|t| is_strange(t) || is_protected(t)));
        let is_unknown = scope.is_unknown || is_strange;
        let mentions: Vec<(&String, &Mention)> = if is_unknown {
            catalogue.tables.keys().map(|table| (table, &whole)).collect()
        } else {
            let is_system = |table: &str| named(table) == Some(Some(&Named::System));
            scope.tables.iter().filter(|(table, _)| !is_system(table)).collect()
        };
        for (table, mention) in mentions {
            let forms = self.forms(catalogue, table, mention);
            if forms.is_empty() {
                continue;
            }
            let max_rows = if is_unknown {
                UNBOUNDED
            } else {
                scope.max_rows(table, &|table, column| self.has_column(table, column))
            };
            let is_uncounted = match named(table) {
                // A temporary table: no other session can count its rows, and what went into it was
                // counted then.
                Some(Some(Named::Table(schema))) => schema.starts_with("pg_temp_"),
                // It is not there: the store refuses it, and `is_absent` holds its rows back.
                Some(None) => !catalogue.tables.contains_key(table),
                _ => false,
            };
            // What goes on was counted when it began; code of others looks at the rows as they are now.
            if max_rows == UNBOUNDED && (goes_on && !runs_others || is_uncounted) {
                continue;
            }
            // Who it was is on record also where only devices are counted.
            let mut units: BTreeSet<Unit> = forms.keys().flat_map(|c| self.shared.meter.units(c)).collect();
            units.insert(Unit::Person);
            for unit in units {
                let group = group(table, unit, &forms);
                let meaning = self.shared.meter.meaning(&group);
                let carriers = self.carriers(catalogue, scope, &group);
                subjects.push(Arc::new(Subjects { group, meaning, max_rows: max_rows.max(1), carriers }));
            }
        }
        subjects
    }

    /// Whether a query names a relation that the store does not have, as far as is known: a temporary view
    /// of the transaction under way can be one.
    fn is_absent(&self, names: &Names, run: &Run) -> bool {
        !self.is_face() && run.scope.tables.keys().any(|table| !names.contains_key(table))
    }

    /// What names of relations stand for in the store.
    fn names(&self) -> Arc<Names> {
        self.code().map(|known| Arc::clone(&known.names)).unwrap_or_default()
    }

    /// Whether a query reads a relation that can show classified rows of tables which it does not name: a view, or
    /// a partition, a parent or a child of such a table.
    pub fn reads_views(&self, runs: &[Run]) -> bool {
        if self.is_face() {
            return false;
        }
        let names = self.names();
        let catalogue = self.policy.store(&self.store.name).map(|(_, catalogue)| catalogue);
        let is_classified = |table: &String| catalogue.is_none_or(|c| c.tables.contains_key(table));
        let shows_others = |table: &String| match names.get(table) {
            Some(Named::View) => true,
            Some(Named::Child(others)) => others.iter().any(|other| other != table && is_classified(other)),
            Some(Named::System | Named::Table(_)) | None => false,
        };
        runs.iter().any(|run| run.scope.tables.keys().any(shows_others))
    }

    /// Looks again for the names of relations that a query has and the store did not have.
    pub async fn look_for_names(&self, runs: &[Run]) -> Result<(), Refusal> {
        if self.metering.is_none() || self.is_face() {
            return Ok(());
        }
        let names = self.names();
        if !runs.iter().any(|run| self.is_absent(&names, run)) {
            return Ok(());
        }
        let Some(behind) = self.shared.stores.get(&self.store.name) else { return Ok(()) };
        let now = std::time::Instant::now();
        Box::pin(behind.others.look(&behind.steward, now, true)).await.map_err(|e| cannot_connect(&e))
    }

    /// The categories that a mention shows, and whether in clear.
    fn forms(&self, catalogue: &Catalogue, table: &str, mention: &Mention) -> BTreeMap<String, bool> {
        let mut forms = BTreeMap::new();
        let mut add = |category: &str, clear: bool| {
            *forms.entry(category.to_owned()).or_insert(false) |= clear;
        };
        let classified = catalogue.tables.get(table);
        let is_known = |column: &str| classified.is_some_and(|t| t.columns.contains_key(column));
        // `u.f` is `f(u)` where the table has no column f: it shows the whole row.
        let takes_row = mention.dotted.iter().any(|name| !is_known(name) && !is_of_system(name));
        for (column, class) in classified.iter().flat_map(|t| &t.columns) {
            let Column::Protected(protected) = class else { continue };
            if !takes_row && !mention.names(column) {
                continue;
            }
            match self.shows(table, column) {
                Visibility::Clear => add(&protected.category, true),
                Visibility::Masked => add(&protected.category, false),
                Visibility::Absent => {}
            }
        }
        // The base tables show what nobody classified, too.
        let is_strange = |column: &String| !is_known(column);
        if !self.is_face()
            && (mention.columns.iter().any(is_strange) || mention.all_columns && classified.is_none())
        {
            add(UNCLASSIFIED, true);
        }
        forms
    }

    /// How a column is shown.
    fn shows(&self, table: &str, column: &str) -> Visibility {
        let Some(outcome) = &self.admission.outcome else { return Visibility::Clear };
        match outcome.tables.get(table).and_then(|columns| columns.get(column)) {
            Some(seen) if !seen.granted_by.is_empty() => Visibility::Clear,
            Some(seen) => seen.base,
            None => Visibility::Absent,
        }
    }

    /// How a column shows a key, if people can be told apart by what it shows.
    fn key_form(&self, catalogue: &Catalogue, table: &str, column: &str) -> Option<KeyForm> {
        let mask = catalogue.column(table, column)?.protected().map(|p| p.kind);
        match (self.shows(table, column), mask) {
            (Visibility::Clear, _) => Some(KeyForm::Clear),
            (Visibility::Masked, Some(Mask::Identifier | Mask::Email)) => Some(KeyForm::Token),
            _ => None,
        }
    }

    /// The columns by which a query's rows tell whom of a group they are about.
    fn carriers(&self, catalogue: &Catalogue, scope: &QueryScope, group: &Group) -> Vec<Carrier> {
        let (kind, key) = key_of(catalogue.tables.get(&group.table), group.unit);
        let mut carriers = Vec::new();
        let is_alone = |table: &str| scope.tables.get(table).is_some_and(|m| m.max_rows == 1);
        if let Some(key) = key.filter(|_| scope.is_plain && is_alone(&group.table)) {
            let own = (group.table.clone(), key.to_owned());
            let equal = scope.equal.iter().filter_map(|pair| match pair {
                _ if pair.left == own => Some(pair.right.clone()),
                _ if pair.right == own => Some(pair.left.clone()),
                _ => None,
            });
            for (table, column) in std::iter::once(own.clone()).chain(equal) {
                if let Some(form) = self.key_form(catalogue, &table, &column).filter(|_| is_alone(&table)) {
                    let key = self.shared.meter.key(&kind, form == KeyForm::Token);
                    carriers.push(Carrier { table, column, form, key });
                }
            }
        }
        carriers
    }

    /// Whether a table of the store is the one that the catalogue means.
    fn is_of_catalogue(&self, schema: &str, table: &str) -> bool {
        self.is_face()
            || self
                .policy
                .store(&self.store.name)
                .and_then(|(_, catalogue)| catalogue.tables.get(table))
                .is_some_and(|classified| classified.schema == schema)
    }

    /// Counts all people of the tables of which a row may show all, before statement `number` runs, and puts those that
    /// it counted on record, also where a limit then refuses the statement. What cannot be counted just now is counted
    /// again for a while.
    pub async fn count_all_patiently(&self, watch: &mut Watch, number: Option<u64>) -> Result<(), Refusal> {
        let patience = Patience::begin();
        loop {
            let counted = self.count_each(watch, number).await;
            if !patience.again(refused_with(&counted)).await {
                return counted;
            }
        }
    }

    /// Counts all people once more where code of others may have looked at them after they were counted last: when its
    /// transaction has ended, or its batch, or its session.
    pub async fn count_unseen(&self) -> Result<(), Refusal> {
        let Some(number) = self.flow().unseen else { return Ok(()) };
        if let Some(mut watch) = self.watch(&[], true) {
            self.count_all_patiently(&mut watch, Some(number)).await?;
        }
        self.flow().unseen = None;
        Ok(())
    }

    /// Where the rows of a group are, and the column that tells people apart there. Where a face shows no key by
    /// which people are told apart, each row is somebody.
    fn placed<'a>(
        &self,
        catalogue: &'a Catalogue,
        names: &'a Names,
        group: &'a Group,
    ) -> ((&'a str, &'a str), Option<&'a str>, Option<KeyForm>) {
        let classified = catalogue.tables.get(&group.table);
        let (_, key) = key_of(classified, group.unit);
        let form = key.and_then(|key| self.key_form(catalogue, &group.table, key));
        let schema = match (classified, names.get(&group.table)) {
            (Some(table), _) => table.schema.as_str(),
            (None, Some(Named::Table(schema))) => schema.as_str(),
            (None, _) => "public",
        };
        ((schema, &group.table), key.filter(|_| form.is_some()), form)
    }

    /// The texts by which the gateway asks whom a statement reaches, as many times as it may ask.
    pub async fn questions(&self, watch: &Watch, times: usize) -> Result<Vec<String>, Refusal> {
        let unbounded = || watch.watched.iter().filter(|watched| watched.of.max_rows == UNBOUNDED);
        let (Some(behind), Some((_, catalogue))) =
            (self.shared.stores.get(&self.store.name), self.policy.store(&self.store.name))
        else {
            return Ok(Vec::new());
        };
        if unbounded().next().is_none() {
            return Ok(Vec::new());
        }
        let login = self.admission.login(&behind.steward, &self.policy).await;
        let login = login.map_err(|e| cannot_connect(&e))?;
        let mut texts = Vec::new();
        for Watched { of, .. } in unbounded() {
            let (place, key, _) = self.placed(catalogue, &watch.names, &of.group);
            texts.extend(ringfence_face::questions(&login, place, key, LOOKED_AT));
        }
        let once = texts.len();
        for _ in 1..times {
            texts.extend_from_within(..once);
        }
        Ok(texts)
    }

    async fn count_each(&self, watch: &mut Watch, number: Option<u64>) -> Result<(), Refusal> {
        let (Some(metering), Some(behind)) = (&self.metering, self.shared.stores.get(&self.store.name))
        else {
            return Ok(());
        };
        let Some((_, catalogue)) = self.policy.store(&self.store.name) else { return Ok(()) };
        let login = self.admission.login(&behind.steward, &self.policy).await;
        let login = login.map_err(|e| cannot_connect(&e))?;
        let names = Arc::clone(&watch.names);
        // What is counted is not counted again with the rest.
        let next = |watch: &Watch| watch.watched.iter().position(|watched| watched.of.max_rows == UNBOUNDED);
        while let Some(at) = next(watch) {
            let of = Arc::clone(&watch.watched[at].of);
            let (place, key, form) = self.placed(catalogue, &names, &of.group);
            let kind = key_of(catalogue.tables.get(place.1), of.group.unit).0;
            let keys = self.shared.meter.key(&kind, form == Some(KeyForm::Token));
            let rows = self.shared.meter.key(&format!("rows of {}", place.1), false);
            let by = (self.store.name.as_str(), &login);
            let look = || self.shared.meter.everybody(&behind.steward, by, place, key, (&keys, &rows));
            let everybody = self.shared.pool.with_room(&self.store.name, look).await;
            let everybody = everybody.map_err(|error| {
                tracing::warn!(%error, store = %self.store.name, "cannot count the people that a statement reaches");
                Refusal::new(code_of(&error), "the store did not count the people that this statement reaches")
                    .detail(
                        "The statement can show many people in one row, so all of them count before it runs.",
                    )
                    .hint("Try again, or select plain rows.")
            })?;
            let because = |refusal: Box<Refusal>| {
                let why = "This statement can fold many rows into one, so it counts as reaching all people of the table.";
                let detail = format!("{} {why}", refusal.detail.clone().unwrap_or_default());
                refusal.detail(detail)
            };
            // Nothing is awaited between the count and the record: who is counted is on record, whatever ends the session.
            let (groups, counted) = match everybody {
                Everybody::These(ids) => {
                    let new = self.shared.meter.new_of(&metering.reader, &of.meaning, &ids);
                    let counted = metering.count(self, &of.meaning, Seen::Each(&new));
                    let some = new.chunks(MAX_IDS / 2).filter(|_| counted.is_ok());
                    let groups = some.map(|ids| Group { ids: ids.to_vec(), ..of.group.clone() });
                    (groups.collect(), counted.map(drop))
                }
                Everybody::Many(set, people) => {
                    let counted = metering.count(self, &of.meaning, Seen::All(&set, people));
                    let is_new = matches!(counted, Ok(true));
                    let groups = is_new.then(|| Group { all: people, set, ..of.group.clone() });
                    (groups.into_iter().collect::<Vec<_>>(), counted.map(drop))
                }
            };
            if let Some(number) = number.filter(|_| !groups.is_empty()) {
                let tickets = self.record_groups(number, groups);
                self.flow().tickets.extend(tickets);
            }
            counted.map_err(because)?;
            watch.watched.remove(at);
        }
        Ok(())
    }

    /// Puts on record whom the statement under way has reached and who must be there before the rows leave.
    pub fn record_new(&self, statement: &mut InFlight) -> Vec<Ticket> {
        let new = statement.watch.as_mut().map(|watch| watch.take_new()).unwrap_or_default();
        statement.number.map(|n| self.record_groups(n, new)).unwrap_or_default()
    }

    /// Hands people to the ledger; no row may pass before they are durable.
    pub fn record_groups(&self, n: u64, reached: Vec<Group>) -> Vec<Ticket> {
        let entries = entries_of(reached).into_iter().map(|reached| self.reached(n, reached));
        entries.map(|entry| self.shared.ledger.append_batched(entry)).collect()
    }

    /// The people whom a statement showed again, for its outcome. Those who are too many for one entry are
    /// in entries before it.
    pub fn rest(&self, n: u64, watch: &mut Watch) -> Vec<Group> {
        let mut entries = entries_of(watch.take_rest());
        let last = entries.pop().unwrap_or_default();
        for reached in entries {
            // They are counted in public already.
            self.shared.ledger.record(self.reached(n, reached).counting(Counters::default()));
        }
        last
    }

    fn reached(&self, n: u64, reached: Vec<Group>) -> Entry {
        let subjects = reached.iter().map(Group::at_most).fold(0, u64::saturating_add);
        let record = Reached {
            session: self.id.as_str().into(),
            n,
            principal: self.principal.name.as_str().into(),
            employer: self.principal.employer.as_deref().map(Into::into),
            store: self.store.name.as_str().into(),
            reached,
        };
        let counters = Counters { subjects, ..Counters::default() };
        let entry = Entry::new(Kind::Reached, &self.store.jurisdiction, &record).counting(counters);
        entry.crossing(self.crossing.as_ref())
    }
}

/// Shares groups out to entries: one entry holds no more than about twice [`MAX_IDS`] people.
fn entries_of(groups: Vec<Group>) -> Vec<Vec<Group>> {
    let mut entries: Vec<Vec<Group>> = Vec::new();
    let mut ids = 0;
    for group in groups {
        if ids == 0 || ids + group.ids.len() > MAX_IDS {
            entries.push(Vec::new());
            ids = 0;
        }
        ids += group.ids.len().max(1);
        if let Some(entry) = entries.last_mut() {
            entry.push(group);
        }
    }
    entries
}

/// Whether each table has a column of this name (PostgreSQL manual, section 5.6).
fn is_of_system(column: &str) -> bool {
    ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"].contains(&column)
}

fn group(table: &str, unit: Unit, forms: &BTreeMap<String, bool>) -> Group {
    let of = |wanted: bool| forms.iter().filter(|(_, c)| **c == wanted).map(|(c, _)| c.clone()).collect();
    Group { table: table.to_owned(), unit, clear: of(true), masked: of(false), ..Group::default() }
}

/// What kind of keys a table has for a unit, and in which column.
fn key_of(classified: Option<&Table>, unit: Unit) -> (String, Option<&str>) {
    let Some(table) = classified else { return ("unclassified".to_owned(), None) };
    match unit {
        Unit::Person => (table.subjects.clone(), table.subject.as_deref()),
        Unit::Device => (format!("devices of {}", table.subjects), table.device.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_people_are_shared_out_to_several_entries() {
        let group = |ids: usize| Group { ids: vec![1; ids], ..Group::default() };
        let sizes = |groups: &[usize]| -> Vec<usize> {
            entries_of(groups.iter().map(|ids| group(*ids)).collect()).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&[]), Vec::<usize>::new());
        assert_eq!(sizes(&[0, 1, 2]), [3]);
        assert_eq!(sizes(&[MAX_IDS; 7]), [1; 7]);
        assert_eq!(sizes(&[MAX_IDS / 2, MAX_IDS / 2 - 1, 3, 4]), [2, 2]);
    }
}
