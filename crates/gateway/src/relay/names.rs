//! What the names of a session stand for: prepared statements, and portals, which cursors are, too.
//!
//! Messages (Parse, Bind, Close) and SQL (PREPARE, DECLARE, DEALLOCATE, CLOSE, DISCARD, ROLLBACK TO …)
//! change one map. A change counts at once for what the client sends after it: the store skips that if
//! the change fails. It counts for good when the store has confirmed it; what the store skipped after
//! an error is taken back. So at any time a name is *known*, *absent*, or *unsure* because something
//! ran that may have changed it unseen. Pure.
//!
//! Names are compared by their first 63 bytes, as PostgreSQL does (NAMEDATALEN).

use std::sync::Arc;

use ringfence_statement::names::Effect;
use ringfence_statement::scope::QueryScope;

use crate::relay::by_name::ByName;
use crate::relay::statement::{SharedStatement, Statement};

/// PostgreSQL compares so many bytes of a name.
const NAME_BYTES: usize = 63;

/// For so many changes memory is kept between batches.
const KEPT_CHANGES: usize = 16;

/// A name as it is compared.
pub type Name = Box<str>;

/// A name as PostgreSQL compares it.
pub fn name(text: &str) -> Name {
    match text.as_bytes().get(..NAME_BYTES) {
        Some(front) if text.len() > NAME_BYTES => match std::str::from_utf8(front) {
            Ok(front) => front.into(),
            // Cut within a character: no name in SQL is equal to it.
            Err(_) => format!("\0{}", hex::encode(front)).into(),
        },
        _ => text.into(),
    }
}

/// A name in bytes that cannot be decoded. It is equal to itself only.
pub fn undecoded(bytes: &[u8]) -> Name {
    format!("\0{}", hex::encode(bytes)).into()
}

/// What a prepared statement is.
#[derive(Clone, Debug)]
pub struct PreparedStatement {
    /// The text that it stands for; that of `PREPARE … AS …` where it was made in SQL.
    pub statement: Arc<Statement>,
    /// What running it shows.
    pub scope: Arc<QueryScope>,
    /// It was made in SQL.
    pub in_sql: bool,
    /// Nothing has run since that may have changed it unseen.
    pub is_sure: bool,
}

impl PreparedStatement {
    /// How the store knows it, where a message made it and connections change. One that SQL made has its
    /// own name there, also if the PREPARE itself came by messages.
    pub fn shared(&self) -> Option<&SharedStatement> {
        self.statement.shared.as_ref().filter(|_| !self.in_sql)
    }
}

/// What a portal is.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about a portal")]
pub struct Portal {
    /// The text that it runs; that of `DECLARE … FOR …` where it was made in SQL.
    pub statement: Arc<Statement>,
    /// What its rows show.
    pub scope: Arc<QueryScope>,
    /// Its parameters as the ledger keeps them.
    pub parameters: Arc<[Box<str>]>,
    /// The number of its intent in the session, once it has run.
    pub number: Option<u64>,
    /// Its query is a part of the statement's text, by DECLARE or PREPARE: running the portal runs that
    /// query, and not the text.
    pub in_sql: bool,
    /// Nothing has run since that may have changed it unseen.
    pub is_sure: bool,
    /// Its query has begun, and `scope` is what it shows.
    has_begun: bool,
    /// It outlives its transaction once that is committed.
    hold: bool,
    /// Its transaction is committed.
    is_held: bool,
    /// Portals are numbered in the order of their making.
    made: u64,
}

impl Portal {
    /// Whether its query has begun, and was admitted then.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// A portal that the gateway did not see.
    pub fn unseen(statement: Arc<Statement>) -> Self {
        Self {
            scope: Arc::clone(&statement.analysis.scope),
            statement,
            parameters: Arc::from([]),
            number: None,
            in_sql: true,
            is_sure: false,
            has_begun: true,
            hold: false,
            is_held: false,
            made: 0,
        }
    }
}

/// What is known of a name.
#[derive(Clone, Debug)]
pub enum Found<T> {
    /// It stands for this.
    Known(T),
    /// It stood for this, and may stand for something else now.
    Unsure(Option<T>),
    /// It stands for nothing.
    Absent,
}

#[derive(Clone, Debug, Default)]
struct State {
    statements: ByName<PreparedStatement>,
    portals: ByName<Portal>,
    /// Savepoints by name, with the number that the next portal had then.
    savepoints: Vec<(Box<str>, u64)>,
    made: u64,
    /// A name that is not in the maps may stand for something all the same.
    absent_is_unsure: bool,
}

/// A portal whose query begins to run: its name, its intent's number if it has one of its own, and what it
/// shows.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The part of the text that runs it.
    pub part: usize,
    /// The portal.
    pub name: Name,
    /// The number of its intent in the session.
    pub number: Option<u64>,
    /// What its rows show.
    pub scope: Arc<QueryScope>,
}

/// A change that was sent to the store.
#[derive(Debug)]
enum Change {
    Parse(Name, PreparedStatement),
    Bind(Name, Portal),
    CloseStatement(Name),
    ClosePortal(Name),
    /// A message that changes no name and has a confirmation of its own.
    Nothing,
    /// A statement ran: what its first so many parts do to names counts, and the portals that they began.
    Ran {
        statement: Option<Arc<Statement>>,
        begun: Vec<Begun>,
        parts: usize,
    },
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Names {
    /// As of what the store has confirmed.
    confirmed: State,
    /// As of what was sent.
    sent: State,
    /// What was sent and not confirmed, in order.
    changes: Vec<Change>,
    /// How many of them are confirmed.
    count: usize,
    /// A Query was sent that takes the place of the unnamed portal, unless it fails before it makes its own.
    takes_unnamed: bool,
}

impl Names {
    /// What a prepared statement's name stands for, for what is sent next.
    pub fn statement(&self, name: &str) -> Found<PreparedStatement> {
        found(&self.sent, self.sent.statements.get(name), |p| p.is_sure)
    }

    /// Whether a prepared statement's name stands, or may stand, for one with a shared name in the store.
    pub fn is_shared(&self, name: &str) -> bool {
        matches!(
            self.statement(name),
            Found::Known(p) | Found::Unsure(Some(p)) if p.shared().is_some()
        )
    }

    /// What a portal's name stands for, for what is sent next.
    pub fn portal(&self, name: &str) -> Found<Portal> {
        found(&self.sent, self.sent.portals.get(name), |p| p.is_sure)
    }

    /// A portal begins to run by a part of a Query that is about to be sent.
    pub fn begin(&mut self, begun: &Begun) {
        self.sent.begin(begun);
    }

    /// A Parse was sent. `is_decoded` is false for a name that SQL might write in another way.
    pub fn parse(&mut self, name: Name, statement: Arc<Statement>, is_decoded: bool) {
        let scope = Arc::clone(&statement.analysis.scope);
        let prepared = PreparedStatement { statement, scope, in_sql: false, is_sure: is_decoded };
        self.change(Change::Parse(name, prepared));
    }

    /// A Bind was sent. `number` is that of its intent, where it has one already.
    pub fn bind(
        &mut self,
        name: Name,
        of: &PreparedStatement,
        parameters: Arc<[Box<str>]>,
        is_decoded: bool,
        number: Option<u64>,
    ) {
        let portal = Portal {
            statement: Arc::clone(&of.statement),
            scope: Arc::clone(&of.scope),
            parameters,
            number,
            in_sql: of.in_sql,
            is_sure: of.is_sure && is_decoded,
            has_begun: false,
            hold: false,
            is_held: false,
            made: 0,
        };
        self.change(Change::Bind(name, portal));
    }

    /// A Close was sent.
    pub fn close(&mut self, is_portal: bool, name: Name) {
        self.change(if is_portal { Change::ClosePortal(name) } else { Change::CloseStatement(name) });
    }

    /// A message of our own was sent that the store confirms.
    pub fn own(&mut self) {
        self.change(Change::Nothing);
    }

    /// An Execute was sent: of a text that changes names (`statement`), or of a portal that begins, or
    /// both. Returns whether its end is waited for, with [`Self::confirm`].
    pub fn execute(&mut self, statement: Option<&Arc<Statement>>, begun: Vec<Begun>) -> bool {
        let statement = statement.filter(|s| s.analysis.changes_names()).cloned();
        let changes = statement.is_some() || !begun.is_empty();
        if changes {
            let parts = statement.as_ref().map_or(1, |s| s.analysis.parts.len());
            self.change(Change::Ran { statement, begun, parts });
        }
        changes
    }

    /// A part of a Query is about to be sent.
    pub fn run_part(&mut self, statement: &Arc<Statement>, part: usize) {
        let Some(effect) = statement.analysis.parts.get(part).and_then(|p| p.effect.as_ref()) else { return };
        apply(&mut self.sent, effect, statement, part, false);
    }

    /// A Query was sent: it destroys the unnamed statement and portal (protocol manual, "Extended
    /// Query"), and its parts count as far as they have run. Returns whether they are waited for, with
    /// [`Self::ran`].
    pub fn query(&mut self, statement: Option<&Arc<Statement>>, begun: Vec<Begun>) -> bool {
        let has_parts = statement.is_none_or(|s| !s.analysis.parts.is_empty());
        for state in [&mut self.sent, &mut self.confirmed] {
            state.statements.remove("");
        }
        // It ends when another one is made: an empty text makes none, nor does one that fails before it runs.
        if has_parts {
            self.sent.portals.remove("");
            self.takes_unnamed = true;
        }
        let statement = statement.filter(|s| s.analysis.changes_names()).cloned();
        let changes = statement.is_some() || !begun.is_empty();
        if changes {
            self.changes.push(Change::Ran { statement, begun, parts: 0 });
        }
        changes
    }

    /// Something is sent that may change names without the gateway seeing it.
    pub fn be_unsure(&mut self) {
        self.sent.be_unsure();
        self.confirmed.be_unsure();
    }

    /// All that SQL may have prepared unseen is gone from the store: a message's names stand for what they did.
    pub fn be_sure(&mut self) {
        for state in [&mut self.sent, &mut self.confirmed] {
            state.statements.values_mut().for_each(|p| p.is_sure |= p.shared().is_some());
            state.absent_is_unsure = false;
        }
    }

    /// Whether something ran that may have changed names unseen, and no DISCARD ALL since.
    pub fn are_unsure(&self) -> bool {
        self.sent.absent_is_unsure
    }

    /// Whether a portal was bound with an earlier batch.
    pub fn is_from_before(&self, name: &str) -> bool {
        let made = |state: &State| state.portals.get(name).map(|portal| portal.made);
        made(&self.confirmed).is_some_and(|before| made(&self.sent) == Some(before))
    }

    /// What was decided about what is sent next does not hold: it is not sent.
    pub fn take_back(&mut self) {
        self.sent = self.confirmed.clone();
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            self.sent.apply(change, false);
        }
        self.changes = changes;
    }

    /// ParseComplete, BindComplete or CloseComplete came, or the end of a statement that [`Self::execute`]
    /// said is waited for.
    pub fn confirm(&mut self) {
        self.count += 1;
    }

    /// So many parts of a Query have run.
    pub fn ran(&mut self, count: usize) {
        if let Some(Change::Ran { parts, .. }) = self.changes.last_mut() {
            *parts = count;
            self.count = self.changes.len();
        }
    }

    /// ReadyForQuery came. `failure` is the SQLSTATE of an error before it, `rolled_back` says that a
    /// transaction was rolled back, and `in_transaction` that one is open.
    pub fn ready(&mut self, failure: Option<&str>, rolled_back: bool, in_transaction: bool) {
        let count = std::mem::take(&mut self.count);
        let mut changes = std::mem::take(&mut self.changes);
        if std::mem::take(&mut self.takes_unnamed) {
            match self.confirmed.portals.get_mut("") {
                Some(unnamed) if failure.is_some() => {
                    unnamed.is_sure = false;
                    let unnamed = unnamed.clone();
                    self.sent.portals.insert("".into(), unnamed);
                }
                _ => self.confirmed.portals.remove(""),
            }
        }
        let is_whole = changes.is_empty() || count == changes.len() && failure.is_none() && !rolled_back;
        // What failed may have changed names before it did: a prepared statement outlives the error of a
        // block that made it. The store skipped everything after it.
        let mut is_unsure = false;
        let mut commit_failed = None;
        for (n, change) in changes.drain(..).enumerate() {
            if let Change::Ran { statement: Some(statement), parts, .. } = &change {
                let failed = if n < count { *parts } else { 0 };
                let part = statement.analysis.parts.get(failed).filter(|_| n <= count && failure.is_some());
                let is_syntax = statement.analysis.is_syntax_error() && failure == Some("42601");
                is_unsure |= part.is_some_and(|p| p.effect == Some(Effect::Unsure)) && !is_syntax;
                // The last statement of a text may have had its effect: the commit after it can fail, and
                // prepared statements do not go back.
                let is_last = failed + 1 == statement.analysis.parts.len();
                // These say that the statement itself was refused.
                let is_refused = matches!(failure, Some("25001" | "25P02" | "26000" | "42P05"));
                let part = part.filter(|_| is_last && !is_refused);
                if let Some(effect) = part.and_then(|p| p.effect.as_ref()) {
                    commit_failed = Some((effect.clone(), Arc::clone(statement), failed));
                }
            }
            if n < count {
                self.confirmed.apply_own(change, rolled_back);
            }
        }
        // The next batch uses its memory again, unless that is much.
        changes.shrink_to(KEPT_CHANGES);
        self.changes = changes;
        if is_unsure {
            self.confirmed.be_unsure();
        }
        let is_doubtful = commit_failed.is_some();
        if let Some((effect, statement, part)) = commit_failed {
            self.confirmed.may_have(&effect, &statement, part);
        }
        if !in_transaction {
            self.confirmed.end_transaction(failure.is_some() || rolled_back);
            self.sent.end_transaction(failure.is_some() || rolled_back);
        }
        if !is_whole || is_unsure || is_doubtful {
            self.sent = self.confirmed.clone();
        }
    }

    /// How many names are kept.
    pub fn len(&self) -> usize {
        self.sent.statements.count() + self.sent.portals.count() + self.sent.savepoints.len()
    }

    /// Whether no name is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The prepared statements that have a name, as of what was sent.
    pub fn statements(&self) -> impl Iterator<Item = (&str, &PreparedStatement)> {
        self.sent.statements.named()
    }

    /// The cursors WITH HOLD whose queries COMMIT runs to their end, as of what was sent.
    pub fn held_by_commit(&self) -> Vec<(Name, Portal)> {
        let is_new = |portal: &&Portal| portal.hold && !portal.is_held;
        let named = self.sent.portals.named().filter(|(_, portal)| is_new(portal));
        named.map(|(name, portal)| (name.into(), portal.clone())).collect()
    }

    fn change(&mut self, change: Change) {
        self.sent.apply(&change, false);
        self.changes.push(change);
    }
}

fn found<T: Clone>(state: &State, entry: Option<&T>, is_sure: impl Fn(&T) -> bool) -> Found<T> {
    match entry {
        Some(entry) if is_sure(entry) => Found::Known(entry.clone()),
        Some(entry) => Found::Unsure(Some(entry.clone())),
        None if state.absent_is_unsure => Found::Unsure(None),
        None => Found::Absent,
    }
}

impl State {
    /// As [`Self::apply`], for a change that nobody needs any more.
    fn apply_own(&mut self, change: Change, rolled_back: bool) {
        match change {
            Change::Parse(name, prepared) => self.statements.insert(name, prepared),
            Change::Bind(name, portal) => self.bind(name, portal),
            change => self.apply(&change, rolled_back),
        }
    }

    fn apply(&mut self, change: &Change, rolled_back: bool) {
        match change {
            Change::Parse(name, prepared) => self.statements.insert(name.clone(), prepared.clone()),
            Change::Bind(name, portal) => self.bind(name.clone(), portal.clone()),
            Change::CloseStatement(name) => self.statements.remove(name),
            Change::ClosePortal(name) => self.portals.remove(name),
            Change::Nothing => {}
            Change::Ran { statement, begun, parts } => {
                let all = statement.as_ref().map_or(&[][..], |s| &s.analysis.parts);
                if statement.is_some() && *parts > all.len() {
                    self.be_unsure(); // more ended than the text has
                }
                for part in 0..*parts {
                    for begun in begun.iter().filter(|begun| begun.part == part) {
                        self.begin(begun);
                    }
                    let effect = all.get(part).and_then(|part| part.effect.as_ref());
                    if let (Some(effect), Some(statement)) = (effect, statement) {
                        apply(self, effect, statement, part, rolled_back);
                    }
                }
            }
        }
    }

    fn bind(&mut self, name: Name, portal: Portal) {
        self.made += 1;
        self.portals.insert(name, Portal { made: self.made, ..portal });
    }

    fn begin(&mut self, begun: &Begun) {
        let Some(portal) = self.portals.get_mut(&begun.name) else { return };
        portal.number = portal.number.or(begun.number);
        if !portal.has_begun {
            portal.has_begun = true;
            portal.scope = Arc::clone(&begun.scope);
        }
    }

    /// An effect on prepared statements may have come, or not.
    fn may_have(&mut self, effect: &Effect, statement: &Arc<Statement>, part: usize) {
        match effect {
            Effect::Prepare(n) => {
                let known = self.statements.get(&name(n)).cloned();
                let prepared = known.unwrap_or_else(|| PreparedStatement {
                    statement: Arc::clone(statement),
                    scope: Arc::clone(&statement.analysis.parts[part].scope),
                    in_sql: true,
                    is_sure: false,
                });
                self.statements.insert(name(n), PreparedStatement { is_sure: false, ..prepared });
            }
            Effect::Deallocate(Some(n)) => {
                if let Some(prepared) = self.statements.get_mut(&name(n)) {
                    prepared.is_sure = false;
                }
            }
            Effect::Deallocate(None) | Effect::DiscardAll => {
                self.statements.values_mut().for_each(|p| p.is_sure = false);
            }
            _ => {}
        }
    }

    /// DEALLOCATE ALL: the unnamed statement stays.
    fn deallocate_all(&mut self) {
        let unnamed = self.statements.get("").cloned();
        self.statements.clear();
        if let Some(unnamed) = unnamed {
            self.statements.insert("".into(), unnamed);
        }
    }

    fn be_unsure(&mut self) {
        self.statements.values_mut().for_each(|p| p.is_sure = false);
        self.portals.values_mut().for_each(|p| p.is_sure = false);
        self.absent_is_unsure = true;
    }

    /// Portals end with their transaction; what WITH HOLD keeps outlives one that is committed.
    fn end_transaction(&mut self, rolled_back: bool) {
        self.portals.retain(|portal| portal.is_held || portal.hold && !rolled_back);
        self.portals.values_mut().for_each(|portal| portal.is_held = true);
        self.savepoints.clear();
    }
}

fn apply(state: &mut State, effect: &Effect, statement: &Arc<Statement>, part: usize, rolled_back: bool) {
    let scope = || Arc::clone(&statement.analysis.parts[part].scope);
    match effect {
        Effect::Prepare(n) => {
            let (statement, scope) = (Arc::clone(statement), scope());
            state
                .statements
                .insert(name(n), PreparedStatement { statement, scope, in_sql: true, is_sure: true });
        }
        Effect::Deallocate(Some(n)) => state.statements.remove(&name(n)),
        Effect::Deallocate(None) => state.deallocate_all(),
        Effect::Declare { name: n, hold } => {
            state.made += 1;
            let portal = Portal {
                statement: Arc::clone(statement),
                scope: scope(),
                parameters: Arc::from([]),
                number: None,
                in_sql: true,
                is_sure: true,
                has_begun: true,
                hold: *hold,
                is_held: false,
                made: state.made,
            };
            state.portals.insert(name(n), portal);
        }
        Effect::Close(Some(n)) => state.portals.remove(&name(n)),
        Effect::Close(None) => state.portals.clear(),
        Effect::DiscardAll => {
            state.deallocate_all();
            state.portals.clear();
            state.absent_is_unsure = false;
        }
        Effect::Savepoint(n) => state.savepoints.push((n.as_str().into(), state.made)),
        Effect::Release(n) => {
            if let Some(at) = state.savepoints.iter().rposition(|(name, _)| **name == **n) {
                state.savepoints.truncate(at);
            }
        }
        Effect::RollbackTo(n) => match state.savepoints.iter().rposition(|(name, _)| **name == **n) {
            Some(at) => {
                let made = state.savepoints[at].1;
                state.savepoints.truncate(at + 1);
                state.portals.retain(|portal| portal.made <= made);
            }
            None => state.portals.values_mut().for_each(|portal| portal.is_sure = false),
        },
        Effect::Commit => state.end_transaction(rolled_back),
        Effect::Rollback => state.end_transaction(true),
        Effect::Unsure => state.be_unsure(),
        Effect::Execute(_) | Effect::Fetch { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use ringfence_statement::analysis::Analysis;
    use ringfence_statement::settings::Settings;

    use super::*;

    fn statement(text: &str) -> Arc<Statement> {
        Arc::new(Statement::of(text, Arc::new(Analysis::of(text, Settings::default())), Settings::default()))
    }

    fn text_of(found: &Found<PreparedStatement>) -> String {
        match found {
            Found::Known(p) => p.statement.text.to_string(),
            Found::Unsure(_) => "unsure".to_owned(),
            Found::Absent => "absent".to_owned(),
        }
    }

    fn portal_text(found: &Found<Portal>) -> String {
        match found {
            Found::Known(p) => p.statement.text.to_string(),
            Found::Unsure(_) => "unsure".to_owned(),
            Found::Absent => "absent".to_owned(),
        }
    }

    fn query(names: &mut Names, text: &str, ran: usize, in_transaction: bool) {
        let statement = statement(text);
        for part in 0..statement.analysis.parts.len() {
            names.run_part(&statement, part);
        }
        names.query(Some(&statement), Vec::new());
        names.ran(ran);
        let failure = (ran < statement.analysis.parts.len()).then_some("22012");
        names.ready(failure, false, in_transaction);
    }

    fn parse(names: &mut Names, name_: &str, text: &str) {
        names.parse(name(name_), statement(text), true);
    }

    fn bind(names: &mut Names, portal: &str, of: &str) {
        let Found::Known(prepared) = names.statement(of) else { panic!("{of}") };
        names.bind(name(portal), &prepared, Arc::from([]), true, None);
    }

    #[test]
    fn messages_and_sql_change_one_map() {
        let mut names = Names::default();
        parse(&mut names, "x", "select 1, $1");
        names.confirm();
        names.ready(None, false, false);
        query(&mut names, "deallocate x", 1, false);
        assert_eq!(text_of(&names.statement("x")), "absent");
        query(&mut names, "prepare x(text) as select email from users", 1, false);
        assert_eq!(text_of(&names.statement("x")), "prepare x(text) as select email from users");
        // In a transaction: a portal is closed in SQL, and a cursor takes its name.
        parse(&mut names, "one", "select 1");
        names.confirm();
        names.ready(None, false, false);
        query(&mut names, "begin", 1, true);
        bind(&mut names, "p", "one");
        names.confirm();
        names.ready(None, false, true);
        assert_eq!(portal_text(&names.portal("p")), "select 1");
        query(&mut names, "close p; declare p cursor for select email from users", 2, true);
        assert_eq!(portal_text(&names.portal("p")), "close p; declare p cursor for select email from users");
        query(&mut names, "commit", 1, false);
        assert_eq!(portal_text(&names.portal("p")), "absent");
    }

    #[test]
    fn what_the_store_skipped_is_taken_back() {
        let mut names = Names::default();
        for name in ["", "x"] {
            parse(&mut names, name, "select secret");
            names.confirm();
        }
        names.ready(None, false, false);
        // An error, then a Parse and a DEALLOCATE that the store skips.
        parse(&mut names, "x", "select 1");
        assert_eq!(text_of(&names.statement("x")), "select 1");
        names.execute(Some(&statement("deallocate all")), Vec::new());
        assert_eq!(text_of(&names.statement("x")), "absent");
        // DEALLOCATE ALL leaves the unnamed statement.
        assert_eq!(text_of(&names.statement("")), "select secret");
        names.ready(Some("22012"), false, false);
        assert_eq!(text_of(&names.statement("x")), "select secret");
        // The second part of a Query fails.
        query(&mut names, "prepare a as select 1; prepare a as select 2; deallocate a", 1, false);
        assert_eq!(
            text_of(&names.statement("a")),
            "prepare a as select 1; prepare a as select 2; deallocate a"
        );
        query(&mut names, "deallocate a; select 1/0", 1, false);
        assert_eq!(text_of(&names.statement("a")), "absent");
    }

    /// PREPARE and DEALLOCATE do not go back when the commit after them fails.
    #[test]
    fn the_last_statement_of_a_text_may_have_had_its_effect() {
        let mut names = Names::default();
        query(&mut names, "prepare x as select 1", 1, false);
        query(&mut names, "declare h cursor with hold for select 1 / 0; deallocate x", 1, false);
        assert_eq!(text_of(&names.statement("x")), "unsure");
        query(&mut names, "prepare x as select 2", 1, false);
        assert_eq!(text_of(&names.statement("x")), "prepare x as select 2");
        query(&mut names, "declare h cursor with hold for select 1 / 0; prepare y as select 3", 1, false);
        assert_eq!(text_of(&names.statement("y")), "unsure");
        assert_eq!(text_of(&names.statement("x")), "prepare x as select 2");
        query(&mut names, "select 1; deallocate all", 1, false);
        assert_eq!(text_of(&names.statement("x")), "unsure");
    }

    #[test]
    fn an_empty_text_leaves_the_unnamed_portal() {
        let mut names = Names::default();
        parse(&mut names, "s", "select 1");
        names.confirm();
        names.ready(None, false, true);
        bind(&mut names, "", "s");
        names.confirm();
        names.ready(None, false, true);
        assert!(names.is_from_before(""));
        query(&mut names, "", 0, true);
        assert_eq!(portal_text(&names.portal("")), "select 1");
        bind(&mut names, "", "s");
        assert!(!names.is_from_before(""));
        query(&mut names, "select 2", 1, true);
        assert_eq!(portal_text(&names.portal("")), "absent");
    }

    #[test]
    fn cursors_end_with_what_they_belong_to() {
        let mut names = Names::default();
        query(&mut names, "begin; declare a cursor for select 1; savepoint s", 3, true);
        query(&mut names, "declare b cursor for select 2", 1, true);
        query(&mut names, "rollback to s", 1, true);
        assert_eq!(portal_text(&names.portal("b")), "absent");
        assert!(matches!(names.portal("a"), Found::Known(_)));
        query(&mut names, "rollback to unseen", 1, true);
        assert!(matches!(names.portal("a"), Found::Unsure(_)));
        query(&mut names, "rollback", 1, false);
        query(&mut names, "begin; declare h cursor with hold for select 1", 2, true);
        query(&mut names, "commit", 1, false);
        assert!(matches!(names.portal("h"), Found::Known(_)));
        query(&mut names, "begin; declare i cursor with hold for select 1", 2, true);
        query(&mut names, "rollback", 1, false);
        assert!(matches!(names.portal("i"), Found::Absent) && matches!(names.portal("h"), Found::Known(_)));
        query(&mut names, "discard all", 1, false);
        assert_eq!(portal_text(&names.portal("h")), "absent");
    }

    #[test]
    fn what_may_change_names_unseen_leaves_them_unsure() {
        let mut names = Names::default();
        parse(&mut names, "x", "select 1");
        names.confirm();
        names.ready(None, false, false);
        query(&mut names, "do $$ begin execute 'deallocate x'; raise 'x'; end $$", 0, false);
        assert_eq!(text_of(&names.statement("x")), "unsure");
        assert_eq!(text_of(&names.statement("y")), "unsure");
        parse(&mut names, "x", "select 2");
        names.confirm();
        names.ready(None, false, false);
        assert_eq!(text_of(&names.statement("x")), "select 2");
    }

    #[test]
    fn long_names_are_one_where_postgresql_takes_them_for_one() {
        let long = "n".repeat(80);
        assert_eq!(name(&long), name(&long[..63]));
        assert_eq!(name("short"), "short".into());
        assert_ne!(name(&"é".repeat(40)), name(&"é".repeat(31)));
    }

    fn begins(name_: &str) -> Begun {
        Begun { part: 0, name: name(name_), number: Some(7), scope: Arc::new(QueryScope::empty()) }
    }

    #[test]
    fn a_portal_has_begun_once_the_store_says_so() {
        let mut names = Names::default();
        parse(&mut names, "", "select 1");
        bind(&mut names, "p", "");
        assert!(names.execute(None, vec![begins("p")]));
        assert!(matches!(names.portal("p"), Found::Known(p) if p.number == Some(7)));
        names.confirm();
        names.confirm();
        // The store skipped the Execute: an error came.
        names.ready(Some("22012"), false, true);
        assert!(matches!(names.portal("p"), Found::Known(p) if !p.has_begun() && p.number.is_none()));
        assert!(names.execute(None, vec![begins("p")]));
        names.confirm();
        names.ready(None, false, true);
        assert!(matches!(names.portal("p"), Found::Known(p) if p.has_begun() && p.number == Some(7)));
        // What was decided about a refused Query does not count.
        bind(&mut names, "q", "");
        names.confirm();
        names.ready(None, false, true);
        names.begin(&begins("q"));
        names.take_back();
        assert!(matches!(names.portal("q"), Found::Known(p) if !p.has_begun()));
    }

    #[test]
    fn a_failed_block_leaves_what_came_with_it_unsure() {
        let mut names = Names::default();
        let text = "prepare x as select 1; do $$ begin execute 'deallocate x'; raise 'a'; end $$";
        query(&mut names, text, 1, false);
        assert_eq!(text_of(&names.statement("x")), "unsure");
        // A text that is no SQL changes nothing.
        query(&mut names, "discard all", 1, false);
        parse(&mut names, "y", "select 1");
        names.confirm();
        names.ready(None, false, false);
        let wrong = statement("selec 1");
        names.run_part(&wrong, 0);
        names.query(Some(&wrong), Vec::new());
        names.ran(0);
        names.ready(Some("42601"), false, false);
        assert_eq!(text_of(&names.statement("y")), "select 1");
    }
}
