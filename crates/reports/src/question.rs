//! Questions to the index: who reached what, when, from where, and why.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use ringfence_statement::column_refs;
pub use ringfence_verifier::question::{Question, Reach, Who};
use serde::Serialize;

use crate::Error;
use crate::columns::{first_at_least, read};
use crate::index::{AGAIN, CHARGES, NONE, SESSIONS, STATEMENTS, SUBJECTS, State, read_state};

/// A statement that answers.
#[derive(Clone, Debug, Serialize)]
pub struct Hit {
    /// When it began, in milliseconds since 1970.
    pub began: u64,
    /// When it ended; absent while it runs.
    pub ended: Option<u64>,
    /// Its intent's entry.
    pub intent: u64,
    /// Its outcome's entry; absent if it has none, as after a crash.
    pub outcome: Option<u64>,
    /// The entry that opened its session.
    pub session: u64,
    /// Rows that were let through.
    pub rows: u64,
    /// Bytes that were.
    pub bytes: u64,
    /// Rows charged to each grant with a limit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub charged: BTreeMap<String, u64>,
    /// The columns that it reaches.
    pub columns: String,
    /// Whether these are further rows of a statement that was told before, as of a portal that is fetched in pieces.
    pub again: bool,
    /// Which of [`Answer::people`] it is by.
    pub by: usize,
    /// Which log it is in, by place in [`Answer::logs`].
    pub log: usize,
}

/// A log that was asked.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// Its name.
    pub origin: String,
    /// Where it is.
    pub dir: PathBuf,
    /// Entries that the index has.
    pub entries: u64,
    /// Statements that it has.
    pub statements: u64,
    /// Entries whose records were erased: what they were, nobody can say any more.
    pub erased: u64,
}

/// The answer.
#[derive(Debug, Default, Serialize)]
pub struct Answer {
    /// Who reached what, by person and capacity.
    pub people: Vec<(Who, Reach)>,
    /// The logs that were asked.
    pub logs: Vec<Asked>,
    /// Statements that would answer but for the person asked about: whom they showed could not be told, so it may have been
    /// them.
    pub unknown: u64,
    /// The statements, if they were wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hits: Vec<Hit>,
}

/// An index that was opened to be asked.
struct Index {
    dir: PathBuf,
    state: State,
    /// The columns of sessions.
    sessions: Vec<Vec<u64>>,
}

/// What grants are for, by their names. One gateway's grants are in force at all of them.
type Purposes = BTreeMap<String, String>;

impl Index {
    fn open(dir: &Path) -> Result<Self, Error> {
        let state = read_state(dir).ok_or_else(|| Error::corrupt(dir, "there is no index here"))?;
        let columns = SESSIONS.iter().map(|(name, width)| read(&dir.join(name), *width, 0, state.sessions));
        let sessions = columns.collect::<Result<_, _>>()?;
        Ok(Self { dir: dir.to_owned(), state, sessions })
    }

    fn session(&self, column: usize, session: usize) -> u64 {
        self.sessions.get(column).and_then(|c| c.get(session)).copied().unwrap_or(NONE)
    }

    fn word(&self, number: u64) -> &str {
        usize::try_from(number).ok().and_then(|n| self.state.words.get(n)).map_or("", String::as_str)
    }

    fn who(&self, session: usize, purposes: &Purposes) -> Who {
        let word = |column| self.word(self.session(column, session)).to_owned();
        let grants: Vec<String> = word(9).split_whitespace().map(str::to_owned).collect();
        Who {
            person: word(2),
            location: word(3),
            employer: word(4),
            covered: word(5),
            store: word(6),
            jurisdiction: word(7),
            purposes: grants.iter().filter_map(|id| purposes.get(id).cloned()).collect(),
            grants,
        }
    }
}

/// Asks the indexes in `dirs`. With `whom` (hashes of a data subject), only statements that showed one of them. With `each`, the
/// answer has every statement.
pub fn ask(dirs: &[PathBuf], question: &Question, whom: Option<&[u64]>, each: bool) -> Result<Answer, Error> {
    let mut answer = Answer::default();
    let mut people: BTreeMap<Who, (usize, Reach)> = BTreeMap::new();
    let indexes = dirs.iter().map(|dir| Index::open(dir)).collect::<Result<Vec<_>, _>>()?;
    let requests = indexes.iter().flat_map(|index| &index.state.requests);
    let purposes: Purposes = requests.map(|(id, asked)| (id.clone(), asked.purpose.clone())).collect();
    for (log, index) in indexes.iter().enumerate() {
        let (origin, dir) = (index.state.origin.clone(), index.state.dir.clone());
        let (entries, statements) = (index.state.entries, index.state.statements);
        let erased = index.state.erased;
        answer.logs.push(Asked { origin, dir, entries, statements, erased });
        let teller = Teller {
            index,
            log,
            each,
            purposes: &purposes,
            people: &mut people,
            hits: &mut answer.hits,
            known: BTreeMap::new(),
        };
        answer.unknown += scan(index, question, whom, teller)?;
    }
    // Numbers were given in the order of finding; people are told in the order of their names.
    let mut places = vec![0; people.len()];
    for (place, (number, _)) in people.values().enumerate() {
        places[*number] = place;
    }
    for hit in &mut answer.hits {
        hit.by = places[hit.by];
    }
    answer.people = people.into_iter().map(|(who, (_, reach))| (who, reach)).collect();
    Ok(answer)
}

/// The intents of statements that showed one of these people, and of those of which nobody can say whom they showed.
fn showing(index: &Index, whom: &[u64]) -> Result<(HashSet<u64>, HashSet<u64>), Error> {
    let column = |n: usize| {
        let (name, width) = SUBJECTS[n];
        read(&index.dir.join(name), width, 0, index.state.subjects)
    };
    let (ids, intents) = (column(0)?, column(1)?);
    let of = |is_it: &dyn Fn(u64) -> bool| {
        ids.iter().zip(&intents).filter(|(id, _)| is_it(**id)).map(|(_, intent)| *intent).collect()
    };
    Ok((of(&|id| whom.contains(&id)), of(&|id| id == NONE)))
}

/// Rows charged to grants, by the outcome's entry.
fn charges(index: &Index) -> Result<HashMap<u64, BTreeMap<String, u64>>, Error> {
    let column = |n: usize| {
        let (name, width) = CHARGES[n];
        read(&index.dir.join(name), width, 0, index.state.charges)
    };
    let (outcomes, grants, rows) = (column(0)?, column(1)?, column(2)?);
    let mut found: HashMap<u64, BTreeMap<String, u64>> = HashMap::new();
    for ((outcome, grant), rows) in outcomes.iter().zip(&grants).zip(&rows) {
        let charged = found.entry(*outcome).or_default();
        *charged.entry(index.word(*grant).to_owned()).or_default() += rows;
    }
    Ok(found)
}

/// Tells what answers; returns how many statements might, of which nobody can say whom they showed.
fn scan(
    index: &Index,
    question: &Question,
    whom: Option<&[u64]>,
    mut tell: Teller<'_>,
) -> Result<u64, Error> {
    let log = tell.log;
    let showing = whom.map(|whom| showing(index, whom)).transpose()?;
    let mut unknown = 0;
    let mut shows = |intent: u64| {
        let Some((known, untold)) = &showing else { return true };
        unknown += u64::from(!known.contains(&intent) && untold.contains(&intent));
        known.contains(&intent)
    };
    let chosen = choose_sessions(index, question, tell.purposes);
    let reaches = choose_columns(index, question);
    let (since, until) = (question.since.unwrap_or(0), question.until.unwrap_or(u64::MAX));
    let ended = index.dir.join(STATEMENTS[0].0);
    let rows = index.state.statements;
    let from = first_at_least(&ended, rows, since)?;
    // A statement that began before `until` ended at most the longest duration later.
    let to = first_at_least(&ended, rows, until.saturating_add(index.state.longest).saturating_add(1))?;
    let column = |n: usize| {
        let (name, width) = STATEMENTS[n];
        read(&index.dir.join(name), width, from, to.max(from))
    };
    let (began, sessions, sets) = (column(1)?, column(2)?, column(3)?);
    let mut found = Vec::new();
    for (row, ((began, session), set)) in began.iter().zip(&sessions).zip(&sets).enumerate() {
        let is_chosen = |of: &[bool], n: u64| usize::try_from(n).is_ok_and(|n| of.get(n) == Some(&true));
        if *began < until && is_chosen(&chosen, *session) && is_chosen(&reaches, *set & !u64::from(AGAIN)) {
            found.push(row);
        }
    }
    if !found.is_empty() {
        let (ended, intents, outcomes) = (column(0)?, column(4)?, column(5)?);
        let (rows, bytes) = (column(6)?, column(7)?);
        let charges = charges(index)?;
        for row in found {
            if !shows(intents[row]) {
                continue;
            }
            tell.tell(
                sessions[row],
                sets[row],
                Hit {
                    began: began[row],
                    ended: Some(ended[row]),
                    intent: intents[row],
                    outcome: Some(outcomes[row]).filter(|o| *o != NONE),
                    session: 0,
                    rows: rows[row],
                    bytes: bytes[row],
                    charged: charges.get(&outcomes[row]).cloned().unwrap_or_default(),
                    columns: String::new(),
                    again: false,
                    by: 0,
                    log,
                },
            );
        }
    }
    for (session, _, open) in &index.state.open {
        let is_chosen =
            chosen.get(*session as usize) == Some(&true) && reaches.get(open.columns as usize) == Some(&true);
        if is_chosen && open.began < until && index.state.newest >= since && shows(open.intent) {
            tell.tell(
                u64::from(*session),
                u64::from(open.columns),
                Hit {
                    began: open.began,
                    ended: None,
                    intent: open.intent,
                    outcome: None,
                    session: 0,
                    rows: 0,
                    bytes: 0,
                    charged: BTreeMap::new(),
                    columns: String::new(),
                    again: false,
                    by: 0,
                    log,
                },
            );
        }
    }
    Ok(unknown)
}

struct Teller<'a> {
    index: &'a Index,
    log: usize,
    each: bool,
    purposes: &'a Purposes,
    people: &'a mut BTreeMap<Who, (usize, Reach)>,
    hits: &'a mut Vec<Hit>,
    /// Who a session is, by number.
    known: BTreeMap<u64, Who>,
}

impl Teller<'_> {
    fn tell(&mut self, session: u64, set: u64, mut hit: Hit) {
        let place = usize::try_from(session).unwrap_or(usize::MAX);
        let who = self.known.entry(session).or_insert_with(|| self.index.who(place, self.purposes));
        if !self.people.contains_key(who) {
            let number = self.people.len();
            self.people.insert(who.clone(), (number, Reach { first: u64::MAX, ..Reach::default() }));
        }
        let Some((number, reach)) = self.people.get_mut(who) else { return };
        hit.again = set & u64::from(AGAIN) != 0;
        let set = set & !u64::from(AGAIN);
        reach.statements += u64::from(!hit.again);
        reach.rows += hit.rows;
        reach.bytes += hit.bytes;
        reach.charge(&hit.charged);
        reach.first = reach.first.min(hit.began);
        reach.last = reach.last.max(hit.began);
        let columns = self.index.word(set);
        for column in columns.split_whitespace() {
            if !reach.columns.contains(column) {
                reach.columns.insert(column.to_owned());
            }
        }
        if self.each {
            hit.session = self.index.session(1, place);
            columns.clone_into(&mut hit.columns);
            hit.by = *number;
            hit.log = self.log;
            self.hits.push(hit);
        }
    }
}

/// Which sessions the question is about.
fn choose_sessions(index: &Index, question: &Question, purposes: &Purposes) -> Vec<bool> {
    let wanted =
        |want: &Option<String>| want.as_ref().map(|w| index.state.words.iter().position(|word| word == w));
    // A word that the log never heard chooses nothing.
    let equals = [
        (2, wanted(&question.person)),
        (3, wanted(&question.from)),
        (4, wanted(&question.employer)),
        (6, wanted(&question.store)),
        (7, wanted(&question.jurisdiction)),
    ];
    let purpose = question.purpose.as_ref().map(|p| p.to_lowercase());
    let for_purpose: Option<BTreeSet<usize>> = purpose.map(|purpose| {
        let about = |id: &str| purposes.get(id).is_some_and(|p| p.to_lowercase().contains(&purpose));
        let sets = index.state.words.iter().enumerate();
        sets.filter(|(_, word)| word.split_whitespace().any(about)).map(|(n, _)| n).collect()
    });
    let sessions = usize::try_from(index.state.sessions).unwrap_or(0);
    (0..sessions)
        .map(|session| {
            let number = |column| usize::try_from(index.session(column, session)).unwrap_or(usize::MAX);
            equals.iter().all(|(column, want)| want.is_none_or(|want| want == Some(number(*column))))
                && (!question.covered || !index.word(index.session(5, session)).is_empty())
                && for_purpose.as_ref().is_none_or(|sets| sets.contains(&number(9)))
        })
        .collect()
}

/// Which sets of columns the question is about.
fn choose_columns(index: &Index, question: &Question) -> Vec<bool> {
    let words = index.state.words.iter();
    match &question.column {
        None => vec![true; words.len()],
        Some(column) => words.map(|set| column_refs::may_reach(set.split_whitespace(), column)).collect(),
    }
}
