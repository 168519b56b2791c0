//! What a metered session's results show of whom: for each statement, which tables' people its rows are about, by which column
//! of the result one can tell, and what must be on record before they leave.
//!
//! Metered are the sessions whose access crosses the border. Where a row carries the key of the person whom it is about, that
//! person is counted; where it cannot be known, as many as there can be at most.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use ringfence_face::Relations;
use ringfence_ledger::{Counters, Entry, Kind, Ticket};
use ringfence_meter::record::MAX_IDS;
use ringfence_meter::tally::{Meaning, Reader, Seen, table_name};
use ringfence_meter::{Exceeded, Group, Reached, SubjectKey, Who};
use ringfence_policy::{Catalogue, Column, Kind as Mask, Measure, Table, Unit, Visibility};
use ringfence_statement::reach::{Mention, Reach};

use crate::connection::cannot_connect;
use crate::flow::InFlight;
use crate::refusal::{Refusal, code};
use crate::rows::{Reading, Value, description, is_short, value};
use crate::server::Shared;
use crate::session::Session;

/// The category of what nobody classified.
const UNCLASSIFIED: &str = "unclassified";
/// A row that is longer than this before its key comes is counted without it.
pub const MAX_BEFORE_KEY: usize = 64 * 1024;

/// What a session needs to be metered.
pub struct Metering {
    reader: Reader,
    /// When its newest grant was asked for.
    asked: Option<u64>,
    /// What it has declared or prepared, for what goes on with it.
    declared: Mutex<Option<Reach>>,
    /// What it has been warned of, and what it is yet to hear.
    warned: Mutex<(BTreeSet<String>, Vec<Refusal>)>,
}

impl Metering {
    /// For a session of `who`.
    pub fn new(shared: &Shared, who: Who<'_>, asked: Option<u64>) -> Self {
        Self { reader: shared.meter.reader(who), asked, declared: Mutex::default(), warned: Mutex::default() }
    }
}

/// In which form a key is shown: the same person has another hash by a mask's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyForm {
    Clear,
    Token,
}

/// A column that tells whom a row is about.
#[derive(Clone, Debug)]
struct Carrier {
    table: String,
    column: String,
    form: KeyForm,
}

/// Where in a row the key is.
#[derive(Debug)]
struct Place {
    position: usize,
    reading: Reading,
    key: SubjectKey,
}

/// People of one table, for one statement.
#[derive(Debug)]
struct Watched {
    group: Group,
    meaning: Meaning,
    /// How many of them a row may show.
    times: u64,
    kind: String,
    carriers: Vec<Carrier>,
    place: Option<Place>,
    /// Something in `group` must be on record before it leaves.
    is_new: bool,
}

/// What is watched of one statement.
#[derive(Debug)]
pub struct Watch(Vec<Watched>);

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
        self.0.iter().any(|watched| !watched.carriers.is_empty())
    }

    /// A RowDescription came: finds the keys in it.
    pub fn describe(&mut self, body: &[u8], relations: &Relations, session: &Session) {
        let fields = description(body).unwrap_or_default();
        for watched in &mut self.0 {
            watched.place = watched.carriers.iter().find_map(|carrier| {
                fields.iter().enumerate().find_map(|(position, field)| {
                    let relation = relations.get(&field.relation)?;
                    let attribute = relation.columns.iter().find(|a| a.number == field.attribute)?;
                    let is_it = relation.table == carrier.table && attribute.name == carrier.column;
                    // Four bytes of a token are too few to tell people apart.
                    let is_short = carrier.form == KeyForm::Token && is_short(field.of_type);
                    (is_it && !is_short && session.is_of_catalogue(&relation.schema, &relation.table)).then(
                        || {
                            let is_token = carrier.form == KeyForm::Token;
                            Place {
                                position,
                                reading: field.reading(),
                                key: session.shared.meter.key(&watched.kind, is_token),
                            }
                        },
                    )
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
        for watched in &self.0 {
            let Some(place) = &watched.place else { continue };
            if matches!(value(row, place.position), Value::Cut) && !is_whole && row.len() < MAX_BEFORE_KEY {
                return Ok(Row::More);
            }
        }
        for watched in &mut self.0 {
            let id = watched.place.as_ref().and_then(|place| match value(row, place.position) {
                Value::There(bytes) => Some(place.key.id(&place.reading.text(bytes))),
                Value::Null | Value::Cut => None,
            });
            let seen = id.map_or(Seen::Rows(watched.times), Seen::One);
            watched.is_new |= metering.count(session, &watched.meaning, seen)?;
            match id {
                Some(id) if watched.group.ids.last() == Some(&id) => {}
                Some(id) => watched.group.ids.push(id),
                None => watched.group.rows += watched.times,
            }
            watched.is_new |= watched.group.ids.len() >= MAX_IDS;
        }
        Ok(Row::Pass)
    }

    /// What must be on record now.
    fn take_new(&mut self) -> Vec<Group> {
        let new = self.0.iter_mut().filter_map(|w| {
            let is_new = std::mem::take(&mut w.is_new);
            is_new.then(|| take(&mut w.group))
        });
        new.filter(|group| group.at_most() > 0).collect()
    }

    /// What is not on record yet.
    pub fn take_rest(&mut self) -> Vec<Group> {
        self.0.iter_mut().map(|w| take(&mut w.group)).filter(|group| group.at_most() > 0).collect()
    }
}

/// The people of a group; its template stays.
fn take(group: &mut Group) -> Group {
    let template = Group { ids: Vec::new(), rows: 0, all: 0, ..group.clone() };
    let mut taken = std::mem::replace(group, template);
    taken.ids.sort_unstable();
    taken.ids.dedup();
    taken
}

impl Metering {
    /// Writes the warnings that the person has not heard yet.
    pub fn warn(&self, out: &mut Vec<u8>) {
        for warning in self.warned.lock().unwrap_or_else(PoisonError::into_inner).1.drain(..) {
            warning.notice(out);
        }
    }

    /// What a statement can show: that of what was declared or prepared before, where it goes on with that; and what it declares is
    /// kept for others.
    fn with_declared<'a>(&self, reach: &'a Reach) -> Cow<'a, Reach> {
        if !reach.is_opaque && !reach.defines {
            return Cow::Borrowed(reach);
        }
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        if reach.is_opaque {
            let mut all = declared.clone().unwrap_or_else(Reach::unknown);
            // What folds was counted when it was declared.
            all.folds = declared.is_none();
            all.merge(&Reach { is_plain: true, equal: all.equal.clone(), ..reach.clone() });
            return Cow::Owned(all);
        }
        match declared.as_mut() {
            Some(all) => all.merge(reach),
            None => *declared = Some(reach.clone()),
        }
        Cow::Borrowed(reach)
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

fn warning(exceeded: &Exceeded) -> Refusal {
    let message = format!("{} of the threshold for {} is reached", percent(exceeded.at), exceeded.category);
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
    pub fn watch(&self, reach: &Reach) -> Option<Watch> {
        let metering = self.metering.as_ref()?;
        let reach = metering.with_declared(reach);
        let (_, catalogue) = self.policy.store(&self.store.name)?;
        let whole = Mention { times: 1, whole: true, ..Mention::default() };
        let mentions: Vec<(&String, &Mention)> = if reach.is_unknown {
            catalogue.tables.keys().map(|table| (table, &whole)).collect()
        } else {
            let is_own = |table: &str| self.is_face() || !table.starts_with("pg_");
            reach.tables.iter().filter(|(table, _)| is_own(table)).collect()
        };
        let mut watched = Vec::new();
        for (table, mention) in mentions {
            let forms = self.forms(catalogue, table, mention);
            if forms.is_empty() {
                continue;
            }
            // Who it was is on record also where only devices are counted.
            let mut units: BTreeSet<Unit> = forms.keys().flat_map(|c| self.shared.meter.units(c)).collect();
            units.insert(Unit::Person);
            for unit in units {
                let group = group(table, unit, &forms);
                let meaning = self.shared.meter.meaning(&group);
                watched.push(self.watched(catalogue, &reach, group, meaning, mention.times));
            }
        }
        (!watched.is_empty()).then_some(Watch(watched))
    }

    /// The categories that a mention shows, and whether in clear.
    fn forms(&self, catalogue: &Catalogue, table: &str, mention: &Mention) -> BTreeMap<String, bool> {
        let mut forms = BTreeMap::new();
        let mut add = |category: &str, clear: bool| {
            *forms.entry(category.to_owned()).or_insert(false) |= clear;
        };
        let classified = catalogue.tables.get(table);
        for (column, class) in classified.iter().flat_map(|t| &t.columns) {
            let Column::Protected(protected) = class else { continue };
            if !mention.names(column) {
                continue;
            }
            match self.shows(table, column) {
                Visibility::Clear => add(&protected.category, true),
                Visibility::Masked => add(&protected.category, false),
                Visibility::Absent => {}
            }
        }
        // The base tables show what nobody classified, too.
        let is_strange = |column: &String| classified.is_none_or(|t| !t.columns.contains_key(column));
        if !self.is_face()
            && (mention.columns.iter().any(is_strange) || mention.whole && classified.is_none())
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

    fn watched(
        &self,
        catalogue: &Catalogue,
        reach: &Reach,
        group: Group,
        meaning: Meaning,
        times: u64,
    ) -> Watched {
        let (kind, key) = key_of(catalogue.tables.get(&group.table), group.unit);
        let mut carriers = Vec::new();
        let is_alone = |table: &str| reach.tables.get(table).is_some_and(|m| m.times == 1);
        if let Some(key) = key.filter(|_| reach.is_plain && is_alone(&group.table)) {
            let own = (group.table.clone(), key.to_owned());
            let equal = reach.equal.iter().filter_map(|pair| match pair {
                _ if pair.left == own => Some(pair.right.clone()),
                _ if pair.right == own => Some(pair.left.clone()),
                _ => None,
            });
            for (table, column) in std::iter::once(own.clone()).chain(equal) {
                if let Some(form) = self.key_form(catalogue, &table, &column).filter(|_| is_alone(&table)) {
                    carriers.push(Carrier { table, column, form });
                }
            }
        }
        Watched { group, meaning, times: times.max(1), kind, carriers, place: None, is_new: false }
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

    /// Counts what a folding statement can use, before it runs, and returns what must be on record for it.
    pub async fn fold_people(&self, watch: &mut Watch) -> Result<Vec<Group>, Refusal> {
        let (Some(metering), Some(behind)) = (&self.metering, self.shared.stores.get(&self.store.name))
        else {
            return Ok(Vec::new());
        };
        let Some((_, catalogue)) = self.policy.store(&self.store.name) else { return Ok(Vec::new()) };
        let login = self.admission.login(&behind.steward, &self.policy).await;
        let login = login.map_err(|e| cannot_connect(&e))?;
        let mut groups = Vec::new();
        for watched in &mut watch.0 {
            let classified = catalogue.tables.get(&watched.group.table);
            let (_, key) = key_of(classified, watched.group.unit);
            let key = key.filter(|key| self.shows(&watched.group.table, key) != Visibility::Absent);
            let schema = classified.map_or("public", |t| t.schema.as_str());
            let place = (schema, watched.group.table.as_str());
            let people =
                self.shared.meter.people(&behind.steward, (&self.store.name, &login.face), place, key).await;
            let people = people.map_err(|e| cannot_connect(&e))?;
            let table = table_name(&self.store.name, &watched.group.table);
            let is_new = metering.count(self, &watched.meaning, Seen::All(&table, people)).map_err(|refusal| {
                let why = "This statement can fold many rows into one, so it counts as reaching all people of the table.";
                let detail = format!("{} {why}", refusal.detail.clone().unwrap_or_default());
                refusal.detail(detail)
            })?;
            if is_new && people > 0 {
                groups.push(Group { all: people, ..watched.group.clone() });
            }
        }
        watch.0.clear();
        Ok(groups)
    }

    /// Puts on record whom the statement under way has reached and who must be there before the rows leave.
    pub fn record_new(&self, statement: &mut InFlight) -> Option<Ticket> {
        let new = statement.watch.as_mut()?.take_new();
        self.record_groups(statement.number?, new)
    }

    /// Hands people to the ledger; no row may pass before they are durable.
    pub fn record_groups(&self, n: u64, reached: Vec<Group>) -> Option<Ticket> {
        if reached.is_empty() {
            return None;
        }
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
        Some(self.shared.ledger.append_batched(entry.crossing(self.crossing.as_ref())))
    }
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
