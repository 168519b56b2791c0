//! All windows together: who has reached how many people of which category, what thresholds say to that, and whether one more
//! may be reached.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ringfence_policy::{Limit, Measure, Recipients, Threshold, Unit};
use ringfence_verifier::record::Leaf;
use serde::Serialize;

use crate::record::{Form, Group, Reached};
use crate::subject::Id;
use crate::window::{Count, Day, Window, day};

/// Up to how many people a category without a threshold is counted exactly.
const WITHOUT_THRESHOLD: u64 = 100_000;

/// Whose reading is counted.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The person or workload.
    pub person: &'a str,
    /// The company that they work for.
    pub employer: Option<&'a str>,
    /// Whose law protects the data.
    pub jurisdiction: &'a str,
    /// Whether they are a covered person.
    pub is_covered: bool,
}

/// A recipient of data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "name")]
pub enum Recipient {
    /// A person or a workload.
    Person(String),
    /// A company, by all who work for it.
    Employer(String),
}

impl Recipient {
    /// Its name.
    pub fn name(&self) -> &str {
        let (Self::Person(name) | Self::Employer(name)) = self;
        name
    }
}

/// Something that is counted: a threshold's categories, or one category that no threshold counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    name: String,
    threshold: Option<usize>,
}

/// What is counted of one table for one statement: the meaning of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// Indices of what is counted, in each form; what is seen in clear is in both.
    counted: Vec<(usize, Form)>,
}

type Key = (u32, u32, u32, Form);

/// See the module's text.
pub struct Tally {
    thresholds: Vec<Threshold>,
    limits: Vec<Limit>,
    /// Whether windows forget what thresholds do not need.
    is_bounded: bool,
    today: Day,
    counted: Vec<Counted>,
    recipients: Vec<Recipient>,
    recipient_numbers: HashMap<Recipient, u32>,
    jurisdictions: Vec<String>,
    windows: HashMap<Key, Window>,
    /// When a limit was reached: recipient, jurisdiction, what is counted or (for what is combined) which law, limit.
    since: HashMap<(u32, u32, String, usize), u64>,
    /// Entries whose people could not be counted, because their records were erased.
    pub erased: u64,
}

/// A limit that one more person would exceed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exceeded {
    /// Who has reached so many.
    pub recipient: Recipient,
    /// Of which category, or which categories together.
    pub category: String,
    /// How many, at most.
    pub reached: u64,
    /// The threshold.
    pub more_than: u64,
    /// Where it stands.
    pub section: String,
    /// The limit's share of it.
    pub at: f64,
    /// What happens.
    pub then: Measure,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
}

/// One line of the meter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Who.
    pub recipient: Recipient,
    /// Whose data.
    pub jurisdiction: String,
    /// Of which category, or `combined`.
    pub category: String,
    /// Persons or devices.
    pub unit: Unit,
    /// Told apart and seen in clear.
    pub clear: u64,
    /// Besides them, at most.
    pub clear_unknown: u64,
    /// Told apart and seen in any form.
    pub any: u64,
    /// Besides them, at most.
    pub any_unknown: u64,
    /// Whether those told apart are more than `any`.
    pub is_more: bool,
    /// The threshold, if there is one.
    pub more_than: Option<u64>,
    /// Where it stands.
    pub section: Option<String>,
}

impl Line {
    /// As many as there may be, in any form.
    pub fn at_most(&self) -> u64 {
        self.any.saturating_add(self.any_unknown)
    }

    /// Whether the threshold is exceeded, as far as anybody can tell.
    pub fn is_exceeded(&self) -> bool {
        self.more_than.is_some_and(|most| self.at_most() > most)
    }
}

/// What is about to be seen of some people.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// One, who can be told apart.
    One(Id),
    /// So many rows.
    Rows(u64),
    /// These, who can be told apart.
    Each(&'a [Id]),
    /// All people of a table.
    All(&'a str, u64),
}

impl Tally {
    /// One that decides about limits, in bounded memory.
    pub fn bounded(thresholds: &[Threshold], limits: &[Limit]) -> Self {
        Self::new(thresholds, limits, true)
    }

    /// One that counts exactly however many there are.
    pub fn exact(thresholds: &[Threshold]) -> Self {
        Self::new(thresholds, &[], false)
    }

    fn new(thresholds: &[Threshold], limits: &[Limit], is_bounded: bool) -> Self {
        let counted =
            thresholds.iter().enumerate().map(|(i, t)| Counted { name: t.name.clone(), threshold: Some(i) });
        Self {
            counted: counted.collect(),
            thresholds: thresholds.to_vec(),
            limits: limits.to_vec(),
            is_bounded,
            today: 0,
            recipients: Vec::new(),
            recipient_numbers: HashMap::new(),
            jurisdictions: Vec::new(),
            windows: HashMap::new(),
            since: HashMap::new(),
            erased: 0,
        }
    }

    /// What counts of `group`'s categories for its unit.
    pub fn meaning(&mut self, group: &Group) -> Meaning {
        let mut counted = BTreeSet::new();
        for (category, form) in group.categories() {
            let by: Vec<usize> = (0..self.thresholds.len())
                .filter(|i| self.thresholds[*i].categories.contains(category))
                .collect();
            let forms: &[Form] = if form == Form::Clear { &[Form::Clear, Form::Any] } else { &[Form::Any] };
            let here: Vec<usize> = if by.is_empty() {
                if group.unit == Unit::Person { vec![self.without_threshold(category)] } else { Vec::new() }
            } else {
                by.into_iter().filter(|i| self.thresholds[*i].unit == group.unit).collect()
            };
            counted.extend(here.into_iter().flat_map(|i| forms.iter().map(move |form| (i, *form))));
        }
        Meaning { counted: counted.into_iter().collect() }
    }

    /// In which units a category is counted.
    pub fn units(&self, category: &str) -> BTreeSet<Unit> {
        let of = |t: &&Threshold| t.categories.contains(category);
        let units: BTreeSet<Unit> = self.thresholds.iter().filter(of).map(|t| t.unit).collect();
        if units.is_empty() { [Unit::Person].into() } else { units }
    }

    fn without_threshold(&mut self, category: &str) -> usize {
        let known = self.counted.iter().position(|c| c.threshold.is_none() && c.name == category);
        known.unwrap_or_else(|| {
            self.counted.push(Counted { name: category.to_owned(), threshold: None });
            self.counted.len() - 1
        })
    }

    fn recipient(&mut self, recipient: Recipient) -> u32 {
        if let Some(number) = self.recipient_numbers.get(&recipient) {
            return *number;
        }
        let number = u32::try_from(self.recipients.len()).unwrap_or(u32::MAX);
        self.recipients.push(recipient.clone());
        self.recipient_numbers.insert(recipient, number);
        number
    }

    fn jurisdiction(&mut self, name: &str) -> u32 {
        let at = self.jurisdictions.iter().position(|j| j == name).unwrap_or_else(|| {
            self.jurisdictions.push(name.to_owned());
            self.jurisdictions.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// The person and the company behind a name.
    pub fn reader(&mut self, who: Who<'_>) -> Reader {
        let person = self.recipient(Recipient::Person(who.person.to_owned()));
        let employer = who.employer.map(|e| self.recipient(Recipient::Employer(e.to_owned())));
        Reader {
            recipients: std::iter::once(person).chain(employer).collect(),
            jurisdiction: self.jurisdiction(who.jurisdiction),
            is_covered: who.is_covered,
        }
    }

    fn window(&mut self, key: Key) -> &mut Window {
        let threshold = self.counted[key.2 as usize].threshold;
        let exact = match threshold {
            _ if !self.is_bounded => 0,
            Some(i) => self.thresholds[i].more_than.saturating_add(1),
            None => WITHOUT_THRESHOLD,
        };
        let window = self.windows.entry(key).or_insert_with(|| Window::new(exact));
        window.advance(self.today);
        window
    }

    /// Time goes on; it does not go back.
    pub fn advance(&mut self, now_ms: u64) {
        self.today = self.today.max(day(now_ms));
    }

    /// Whether all this is counted for today already: then it need not be put on record again.
    pub fn is_known(&mut self, reader: &Reader, meaning: &Meaning, seen: Seen<'_>) -> bool {
        let today = self.today;
        reader.keys(meaning).all(|key| match seen {
            Seen::One(id) => self.window(key).has(id, today),
            Seen::Each(ids) => ids.iter().all(|id| self.window(key).has(*id, today)),
            Seen::Rows(rows) => rows == 0,
            Seen::All(table, people) => self.window(key).has_all(table, people, today),
        })
    }

    /// Other limits from here on.
    pub fn replace_limits(&mut self, limits: &[Limit]) {
        if self.limits != limits {
            self.limits = limits.to_vec();
            self.since.clear();
        }
    }

    /// What it counts by.
    pub fn thresholds(&self) -> &[Threshold] {
        &self.thresholds
    }

    /// Counts what is seen, on the day of `at_ms`.
    pub fn see(&mut self, reader: &Reader, meaning: &Meaning, seen: Seen<'_>, at_ms: u64) {
        self.advance(at_ms);
        let on = day(at_ms);
        for key in reader.keys(meaning) {
            let window = self.window(key);
            match seen {
                Seen::One(id) => window.see(id, on),
                Seen::Each(ids) => ids.iter().for_each(|id| window.see(*id, on)),
                Seen::Rows(rows) => window.see_rows(rows, on),
                Seen::All(table, people) => window.see_all(table, people, on),
            }
            if key.3 == Form::Any {
                self.note_limits(key, at_ms);
            }
        }
    }

    /// How many would be reached with what is about to be seen; `None` if no more than are.
    fn with(&mut self, key: Key, seen: Seen<'_>) -> Option<u64> {
        let window = self.window(key);
        let count = window.count().at_most();
        let more = match seen {
            Seen::One(id) => u64::from(!window.knows(id)),
            Seen::Each(ids) => ids.iter().filter(|id| !window.knows(**id)).count() as u64,
            Seen::Rows(rows) => rows,
            Seen::All(table, people) => people.saturating_sub(window.all_of(table)),
        };
        (more > 0).then(|| count.saturating_add(more))
    }

    /// The limits that would be exceeded if this were seen now, the strictest first.
    pub fn exceeded(
        &mut self,
        reader: &Reader,
        meaning: &Meaning,
        seen: Seen<'_>,
        now_ms: u64,
    ) -> Vec<Exceeded> {
        self.advance(now_ms);
        if self.limits.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        for key in reader.keys(meaning).filter(|key| key.3 == Form::Any) {
            let Some(reached) = self.with(key, seen) else { continue };
            let alone = self.counted[key.2 as usize].threshold.map(|i| {
                let threshold = &self.thresholds[i];
                (threshold.name.clone(), reached, threshold.more_than, threshold.section.clone())
            });
            for (name, reached, more_than, section) in alone.into_iter().chain(self.combined(key, reached)) {
                for (i, limit) in self.limits.iter().enumerate() {
                    let is_for = limit.recipients == Recipients::All || reader.is_covered;
                    if is_for && reached > limit.allows(more_than) {
                        let since = self.since.get(&(key.0, key.1, name.clone(), i)).copied();
                        found.push(Exceeded {
                            recipient: self.recipients[key.0 as usize].clone(),
                            category: name.clone(),
                            reached,
                            more_than,
                            section: section.clone(),
                            at: limit.at,
                            then: limit.then,
                            since: since.unwrap_or(now_ms),
                        });
                    }
                }
            }
        }
        found.sort_by(|a, b| b.then.cmp(&a.then).then(b.at.total_cmp(&a.at)));
        found
    }

    /// 28 CFR 202.205(g): where a recipient has several categories, each of them counts by the lowest of their thresholds.
    /// `reached` is how many of `key`'s own there will be.
    fn combined(&mut self, key: Key, reached: u64) -> Vec<(String, u64, u64, String)> {
        let Some(own) = self.counted[key.2 as usize].threshold else { return Vec::new() };
        if !self.thresholds[own].combines {
            return Vec::new();
        }
        let law = self.thresholds[own].law.clone();
        let mut present = vec![(own, reached)];
        for i in 0..self.thresholds.len() {
            if i == own || !self.thresholds[i].combines || self.thresholds[i].law != law {
                continue;
            }
            let other = (key.0, key.1, u32::try_from(i).unwrap_or(u32::MAX), Form::Any);
            if self.windows.contains_key(&other) {
                let count = self.window(other).count().at_most();
                if count > 0 {
                    present.push((i, count));
                }
            }
        }
        let most = present.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let lowest = present.iter().min_by_key(|(i, _)| self.thresholds[*i].more_than).map(|(i, _)| *i);
        match lowest {
            Some(lowest) if present.len() > 1 => {
                let threshold = &self.thresholds[lowest];
                let section = format!("{law}(g), by {}", threshold.name);
                vec![(combined_name(&law), most, threshold.more_than, section)]
            }
            _ => Vec::new(),
        }
    }

    /// Notes since when limits are reached: a grant that was asked for before is no answer to them.
    fn note_limits(&mut self, key: Key, now_ms: u64) {
        if self.limits.is_empty() {
            return;
        }
        let reached = self.window(key).count().at_most();
        let alone = self.counted[key.2 as usize].threshold.map(|i| {
            let threshold = &self.thresholds[i];
            (threshold.name.clone(), reached, threshold.more_than, String::new())
        });
        // The categories that are there already are no fewer with this one; see whether they are several.
        for (name, reached, more_than, _) in alone.into_iter().chain(self.combined(key, reached)) {
            for (i, limit) in self.limits.iter().enumerate() {
                let place = (key.0, key.1, name.clone(), i);
                if reached >= limit.allows(more_than) {
                    self.since.entry(place).or_insert(now_ms);
                } else {
                    self.since.remove(&place);
                }
            }
        }
    }

    /// Counts what an entry of the ledger says was reached; `None` is one whose record was erased.
    pub fn replay(&mut self, found: Option<(&Leaf, Reached<'_>)>) {
        let Some((leaf, record)) = found else {
            self.erased += 1;
            return;
        };
        let at_ms = leaf.time;
        let who = Who {
            person: &record.principal,
            employer: record.employer.as_deref(),
            jurisdiction: &leaf.jurisdiction,
            is_covered: leaf.covered,
        };
        let reader = self.reader(who);
        for group in &record.reached {
            let meaning = self.meaning(group);
            for id in &group.ids {
                self.see(&reader, &meaning, Seen::One(*id), at_ms);
            }
            self.see(&reader, &meaning, Seen::Rows(group.rows), at_ms);
            if group.all > 0 {
                let table = table_name(&record.store, &group.table);
                let set = if group.set.is_empty() { &table } else { &group.set };
                self.see(&reader, &meaning, Seen::All(set, group.all), at_ms);
            }
        }
    }

    /// The meter as of `now_ms`: a line for each recipient, jurisdiction and category of which somebody was reached, and one for
    /// what they are together.
    pub fn lines(&mut self, now_ms: u64) -> Vec<Line> {
        self.advance(now_ms);
        let keys: BTreeSet<(u32, u32, u32)> =
            self.windows.keys().filter(|k| k.3 == Form::Any).map(|k| (k.0, k.1, k.2)).collect();
        let mut lines = Vec::new();
        let mut together: BTreeMap<(u32, u32, String), Vec<Part>> = BTreeMap::new();
        for (recipient, jurisdiction, counted) in keys {
            let any = self.window((recipient, jurisdiction, counted, Form::Any)).count();
            let clear = (recipient, jurisdiction, counted, Form::Clear);
            let clear =
                if self.windows.contains_key(&clear) { self.window(clear).count() } else { Count::default() };
            if any.at_most() == 0 {
                continue;
            }
            let threshold = self.counted[counted as usize].threshold.map(|i| (i, &self.thresholds[i]));
            if let Some((i, threshold)) = threshold.filter(|(_, t)| t.combines) {
                let of_law = (recipient, jurisdiction, threshold.law.clone());
                together.entry(of_law).or_default().push((i, clear, any));
            }
            lines.push(Line {
                recipient: self.recipients[recipient as usize].clone(),
                jurisdiction: self.jurisdictions[jurisdiction as usize].clone(),
                category: self.counted[counted as usize].name.clone(),
                unit: threshold.map_or(Unit::Person, |(_, t)| t.unit),
                clear: clear.known,
                clear_unknown: clear.unknown,
                any: any.known,
                any_unknown: any.unknown,
                is_more: any.is_more,
                more_than: threshold.map(|(_, t)| t.more_than),
                section: threshold.map(|(_, t)| t.section.clone()),
            });
        }
        for ((recipient, jurisdiction, law), present) in together {
            let lowest = present.iter().map(|(i, ..)| *i).min_by_key(|i| self.thresholds[*i].more_than);
            let most = present.iter().max_by_key(|(_, _, any)| any.at_most());
            let (Some(lowest), Some((i, clear, any))) = (lowest, most) else { continue };
            if present.len() < 2 {
                continue;
            }
            lines.push(Line {
                recipient: self.recipients[recipient as usize].clone(),
                jurisdiction: self.jurisdictions[jurisdiction as usize].clone(),
                category: combined_name(&law),
                unit: self.thresholds[*i].unit,
                clear: clear.known,
                clear_unknown: clear.unknown,
                any: any.known,
                any_unknown: any.unknown,
                is_more: any.is_more,
                more_than: Some(self.thresholds[lowest].more_than),
                section: Some(format!("{law}(g), by {}", self.thresholds[lowest].name)),
            });
        }
        lines.sort_by(|a, b| {
            (&a.recipient, &a.jurisdiction, &a.category).cmp(&(&b.recipient, &b.jurisdiction, &b.category))
        });
        lines
    }
}

/// A threshold that is part of a combination, with its counts in clear and in any form.
type Part = (usize, Count, Count);

fn combined_name(law: &str) -> String {
    format!("combined ({law})")
}

/// A table among those of all stores.
pub fn table_name(store: &str, table: &str) -> String {
    format!("{store}/{table}")
}

/// A person and their company, as the tally knows them.
#[derive(Clone, Debug)]
pub struct Reader {
    recipients: Vec<u32>,
    jurisdiction: u32,
    is_covered: bool,
}

impl Reader {
    fn keys<'a>(&'a self, meaning: &'a Meaning) -> impl Iterator<Item = Key> + 'a {
        self.recipients.iter().flat_map(move |recipient| {
            meaning.counted.iter().map(move |(counted, form)| {
                (*recipient, self.jurisdiction, u32::try_from(*counted).unwrap_or(u32::MAX), *form)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use ringfence_policy::thresholds::built_in;

    use super::*;

    const ANN: Who<'static> =
        Who { person: "ann", employer: Some("acme"), jurisdiction: "us", is_covered: false };
    const BOB: Who<'static> = Who { person: "bob", ..ANN };
    const DAY_MS: u64 = 86_400_000;

    fn group(unit: Unit, masked: &str) -> Group {
        Group { table: "users".into(), unit, masked: vec![masked.to_owned()], ..Group::default() }
    }

    fn limit(at: f64, then: Measure) -> Limit {
        Limit { at, then, recipients: Recipients::All }
    }

    #[test]
    fn a_colleague_fills_the_employers_measure() {
        let mut tally = Tally::bounded(&built_in(), &[limit(1.0, Measure::Refuse)]);
        let (ann, bob) = (tally.reader(ANN), tally.reader(BOB));
        let meaning = tally.meaning(&group(Unit::Device, "geolocation"));
        for id in 0..1000 {
            let reader = if id % 2 == 0 { &ann } else { &bob };
            assert_eq!(tally.exceeded(reader, &meaning, Seen::One(id), DAY_MS), []);
            tally.see(reader, &meaning, Seen::One(id), DAY_MS);
        }
        assert_eq!(tally.exceeded(&ann, &meaning, Seen::One(7), DAY_MS), [], "known to the employer already");
        let exceeded = tally.exceeded(&ann, &meaning, Seen::One(5000), DAY_MS);
        assert_eq!(exceeded.len(), 1);
        assert_eq!((exceeded[0].reached, exceeded[0].more_than), (1001, 1000));
        assert_eq!(exceeded[0].recipient, Recipient::Employer("acme".into()));
        // A year and some days later nobody remembers.
        let later = DAY_MS * u64::from(crate::window::DAYS + 3);
        assert_eq!(tally.exceeded(&ann, &meaning, Seen::One(5000), later), []);
    }

    #[test]
    fn together_they_take_the_lowest_threshold() {
        let mut tally = Tally::bounded(&built_in(), &[limit(1.0, Measure::Refuse)]);
        let ann = tally.reader(ANN);
        let contact = tally.meaning(&group(Unit::Person, "contact"));
        let place = tally.meaning(&group(Unit::Device, "geolocation"));
        for id in 0..2000 {
            tally.see(&ann, &contact, Seen::One(id), DAY_MS);
        }
        assert_eq!(tally.exceeded(&ann, &contact, Seen::One(9999), DAY_MS), []);
        let exceeded = tally.exceeded(&ann, &place, Seen::One(1), DAY_MS);
        assert!(!exceeded.is_empty() && exceeded.iter().all(|e| e.category.starts_with("combined")));
        assert_eq!((exceeded[0].reached, exceeded[0].more_than), (2000, 1000));
        tally.see(&ann, &place, Seen::One(1), DAY_MS);
        assert!(tally.lines(DAY_MS).iter().any(|l| l.category.starts_with("combined") && l.is_exceeded()));
    }

    #[test]
    fn what_no_threshold_counts_is_counted_all_the_same_and_units_are_kept_apart() {
        let mut tally = Tally::exact(&built_in());
        assert_eq!(tally.meaning(&group(Unit::Person, "geolocation")), Meaning::default());
        assert_eq!(tally.meaning(&group(Unit::Device, "behaviour")), Meaning::default());
        let (ann, meaning) = (tally.reader(ANN), tally.meaning(&group(Unit::Person, "behaviour")));
        tally.see(&ann, &meaning, Seen::Rows(3), DAY_MS);
        let lines = tally.lines(DAY_MS);
        assert_eq!(lines.len(), 2, "ann and acme");
        assert_eq!((lines[0].any, lines[0].any_unknown, lines[0].more_than), (0, 3, None));
    }

    #[test]
    fn the_time_since_when_a_limit_is_reached_is_that_of_the_last_one_allowed() {
        let mut tally = Tally::bounded(&built_in(), &[limit(0.002, Measure::Approve)]);
        let (ann, meaning) = (tally.reader(ANN), tally.meaning(&group(Unit::Device, "geolocation")));
        tally.see(&ann, &meaning, Seen::One(1), DAY_MS + 1);
        tally.see(&ann, &meaning, Seen::One(2), DAY_MS + 2);
        let exceeded = tally.exceeded(&ann, &meaning, Seen::One(3), DAY_MS + 3);
        assert_eq!(exceeded.iter().map(|e| e.since).collect::<Vec<_>>(), [DAY_MS + 2; 2]);
    }

    proptest! {
        /// Beside a count that keeps everything and does everything anew each time.
        #[test]
        fn a_tally_equals_a_brute_force_count(
            steps in prop::collection::vec((0_usize..2, 0_usize..4, 0_u64..40, 0_u64..60), 1..300),
        ) {
            let categories = [("contact", Unit::Person), ("financial", Unit::Person),
                              ("geolocation", Unit::Device), ("behaviour", Unit::Person)];
            let names = ["covered-personal-identifiers", "personal-financial", "precise-geolocation", "behaviour"];
            let mut tally = Tally::exact(&built_in());
            let mut replayed = Tally::exact(&built_in());
            let mut all = Vec::new();
            let mut now = 500 * DAY_MS;
            for (who, what, id, days) in steps {
                now += days.saturating_sub(40) * DAY_MS;
                let who = [ANN, BOB][who];
                let reader = tally.reader(who);
                let mut group = group(categories[what].1, categories[what].0);
                let meaning = tally.meaning(&group);
                tally.see(&reader, &meaning, Seen::One(id), now);
                group.ids = vec![id];
                let record = Reached {
                    session: "s".into(), n: 1, principal: who.person.into(),
                    employer: who.employer.map(Into::into), store: "us".into(), reached: vec![group],
                };
                let leaf = Leaf {
                    v: 1, kind: ringfence_verifier::Kind::Reached, time: now, jurisdiction: who.jurisdiction.into(),
                    counters: ringfence_verifier::Counters::default(), from: None, covered: false,
                    commitment: String::new(),
                };
                replayed.replay(Some((&leaf, record)));
                all.push((who.person, what, id, now));
            }
            let lines = tally.lines(now);
            prop_assert_eq!(&lines, &replayed.lines(now));
            let mut expected: BTreeMap<(Recipient, &str), BTreeSet<u64>> = BTreeMap::new();
            for (person, what, id, at) in all {
                if day(at) + crate::window::DAYS >= day(now) {
                    for r in [Recipient::Person(person.into()), Recipient::Employer("acme".into())] {
                        expected.entry((r, names[what])).or_default().insert(id);
                    }
                }
            }
            let found: BTreeMap<(Recipient, &str), u64> = lines.iter()
                .filter(|l| !l.category.starts_with("combined"))
                .map(|l| ((l.recipient.clone(), l.category.as_str()), l.any)).collect();
            let expected: BTreeMap<_, _> = expected.into_iter().map(|(k, ids)| (k, ids.len() as u64)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
