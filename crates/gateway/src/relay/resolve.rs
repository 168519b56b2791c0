//! What a statement runs: its own queries, and what the names in it stand for. Pure.

use std::sync::Arc;

use ringfence_statement::analysis::{Analysis, Part};
use ringfence_statement::names::Effect;
use ringfence_statement::scope::QueryScope;
use ringfence_statement::settings::{Encoding, Settings, Strings};

use crate::records::ReadUnder;
use crate::refusal::{Refusal, code};
use crate::relay::names::{self, Begun, Found, Name, Names, Portal};
use crate::relay::statement::{SHARED, Statement};

/// How deep names stand for names: a portal of a FETCH of a portal of an EXECUTE.
const MAX_DEPTH: usize = 8;

/// Something that runs: what its rows can show.
#[derive(Debug)]
pub struct Run {
    /// The scope of the query.
    pub scope: Arc<QueryScope>,
    /// It goes on with a query that has begun and was admitted then, as FETCH does.
    pub goes_on: bool,
    /// The statement of the text that runs it.
    pub part: usize,
}

/// What a statement runs.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about what runs")]
pub struct Running {
    /// Each query that runs.
    pub runs: Vec<Run>,
    /// The names in it, and the statements that they stand for.
    pub meant: Vec<(Box<str>, Arc<Statement>)>,
    /// Something in it is not known for certain.
    pub not_understood: bool,
    /// It came as a Query.
    pub is_query: bool,
    /// It does more to the session than its text says: to names, settings, or the connection.
    pub does_more: bool,
    /// Rows may come as they were before this: what runs was bound or begun with an earlier batch.
    pub is_from_before: bool,
    /// It is planned now, and may run later.
    pub is_planned: bool,
    /// The portals whose queries begin with it.
    pub begun: Vec<Begun>,
    /// The part that is looked at.
    part: usize,
}

impl Running {
    /// Something that the gateway cannot look into. It is recorded as a Query is.
    pub fn unseen(statement: &Statement) -> Self {
        let mut running = Self { is_query: true, ..Self::default() };
        running.run(&statement.analysis.scope, false);
        running.not_understood = true;
        running
    }

    /// What a workload's statement stands for, as far as counts show it: one shape. Several names, and a
    /// name that is not known for certain, count as something that is not understood.
    pub fn counted(&self) -> Option<Arc<Analysis>> {
        match self.meant.as_slice() {
            [] if !self.not_understood => None,
            [(_, statement)] if !self.not_understood => Some(Arc::clone(&statement.analysis)),
            _ => Some(Arc::new(Analysis::not_understood(Settings::default()))),
        }
    }

    /// What all of it shows.
    pub fn merged(&self) -> Arc<QueryScope> {
        match self.runs.as_slice() {
            [one] => Arc::clone(&one.scope),
            runs => {
                let mut all = QueryScope::empty();
                for run in runs {
                    all.merge(&run.scope);
                }
                Arc::new(all)
            }
        }
    }

    /// What the store may run of a statement when it plans it.
    pub fn planned(scope: &Arc<QueryScope>) -> Self {
        let mut running = Self { is_planned: true, ..Self::default() };
        running.run(scope, false);
        running
    }

    fn run(&mut self, scope: &Arc<QueryScope>, goes_on: bool) {
        self.runs.push(Run { scope: Arc::clone(scope), goes_on, part: self.part });
    }
}

/// A refusal of a name whose meaning is not certain.
pub fn unsure(name: &str) -> Refusal {
    Refusal::new(
        code::NOT_IN_PREREQUISITE_STATE,
        format!("what \"{name}\" stands for is not certain, so it is not run"),
    )
    .detail("Something ran in this session that may have changed the name without the gateway seeing it.")
    .hint("Prepare or declare it again, under a new name; or send DISCARD ALL.")
}

/// The settings that a text was read under, if they matter for it.
pub fn read_under(statement: &Statement) -> Option<ReadUnder> {
    let (settings, text) = (statement.settings, &statement.text);
    let strings = match settings.strings {
        Strings::Standard => "on",
        Strings::Escaping => "off",
        Strings::Unsure => "unsure",
    };
    let encoding = match settings.encoding {
        Encoding::Utf8 => "UTF8",
        Encoding::Latin1 => "LATIN1",
        Encoding::Other => "other",
    };
    let matters = text.contains('\\') && strings != "on" || !text.is_ascii() && encoding != "UTF8";
    matters.then_some(ReadUnder { standard_conforming_strings: strings, client_encoding: encoding })
}

/// Looks up what names stand for.
pub struct Resolver<'a> {
    /// The session's names.
    pub names: &'a mut Names,
    /// What is not certain is refused: through a face, and across the border.
    pub is_governed: bool,
    /// Connections change between transactions, and prepared statements have shared names there.
    pub is_pooled: bool,
}

impl Resolver<'_> {
    /// What a Query runs. What its parts do to names counts for the parts after them.
    pub fn query(&mut self, statement: &Arc<Statement>) -> Result<Running, Refusal> {
        let mut running = Running { is_query: true, ..Running::default() };
        for (n, part) in statement.analysis.parts.iter().enumerate() {
            running.part = n;
            self.part(part, &mut running, 0)?;
            self.names.run_part(statement, n);
        }
        Ok(running)
    }

    /// What an Execute of a portal runs.
    pub fn portal(&mut self, name: &str, portal: &Portal) -> Result<Running, Refusal> {
        let mut running = self.portals(portal)?;
        if !portal.has_begun() {
            let begun = Begun { part: 0, name: name.into(), number: None, scope: running.merged() };
            running.begun.push(begun);
        }
        Ok(running)
    }

    fn portals(&mut self, portal: &Portal) -> Result<Running, Refusal> {
        let mut running = Running { not_understood: !portal.is_sure, ..Running::default() };
        if portal.has_begun() {
            running.run(&portal.scope, true);
            return Ok(running);
        }
        if portal.in_sql {
            running.run(&portal.scope, false);
            return Ok(running);
        }
        for part in &portal.statement.analysis.parts {
            self.part(part, &mut running, 0)?;
        }
        if !portal.is_sure {
            running.run(&Arc::new(QueryScope::unknown()), false);
        }
        Ok(running)
    }

    /// What one statement of a text runs.
    fn part(&mut self, part: &Part, running: &mut Running, depth: usize) -> Result<(), Refusal> {
        if depth > MAX_DEPTH {
            return Err(Refusal::new(code::LIMIT_EXCEEDED, "names stand for names too deeply"));
        }
        match &part.effect {
            Some(Effect::Prepare(name)) => self.may_prepare(name)?,
            Some(Effect::Execute(name)) => {
                running.run(&part.scope, false);
                self.prepared_by(name, running, depth)?;
            }
            Some(Effect::Fetch { name, .. }) => self.fetched(name, running, depth)?,
            // It runs the rest of cursors WITH HOLD: their errors and notices come now.
            Some(Effect::Commit) => {
                running.run(&part.scope, false);
                for (name, portal) in self.names.held_by_commit() {
                    running.not_understood |= !portal.is_sure;
                    running.run(&portal.scope, true);
                    running.meant.push((name, portal.statement));
                }
            }
            Some(Effect::Declare { name, .. } | Effect::Deallocate(Some(name))) => {
                self.must_be_theirs(name)?;
                running.run(&part.scope, false);
            }
            _ => running.run(&part.scope, false),
        }
        Ok(())
    }

    /// Shared names are the gateway's.
    fn must_be_theirs(&self, name: &str) -> Result<(), Refusal> {
        if self.is_pooled && name.starts_with(SHARED) {
            let message = format!("the name \"{name}\" is reserved: names that begin with {SHARED} are");
            return Err(Refusal::new(code::RESERVED_NAME, message).hint("Take another name."));
        }
        Ok(())
    }

    fn may_prepare(&self, name: &str) -> Result<(), Refusal> {
        self.must_be_theirs(name)?;
        // The store has a Parse of this name under a shared one, and would not find the conflict.
        if self.names.is_shared(&names::name(name)) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Refusal::new(code::DUPLICATE_STATEMENT, message));
        }
        Ok(())
    }

    /// What a name stands for, if that is known. A governed session is refused what is not sure; for
    /// another one the record says that the statement was not understood.
    fn found<T>(
        &self,
        found: Found<T>,
        name: &str,
        absent: impl FnOnce() -> Refusal,
        running: &mut Running,
    ) -> Result<Option<T>, Refusal> {
        let unsure_of = match found {
            Found::Known(known) => return Ok(Some(known)),
            Found::Unsure(_) if self.is_governed => return Err(unsure(name)),
            Found::Absent if self.is_governed => return Err(absent()),
            Found::Unsure(unsure_of) => unsure_of,
            Found::Absent => None,
        };
        running.not_understood = true;
        running.run(&Arc::new(QueryScope::unknown()), false);
        Ok(unsure_of)
    }

    fn prepared_by(&mut self, name: &str, running: &mut Running, depth: usize) -> Result<(), Refusal> {
        self.must_be_theirs(name)?;
        let found = self.names.statement(&names::name(name));
        let absent = || {
            let message = format!("prepared statement \"{name}\" does not exist");
            Refusal::new(code::NO_SUCH_STATEMENT, message)
        };
        let Some(prepared) = self.found(found, name, absent, running)? else { return Ok(()) };
        // The store knows it by another name: what it has under this one is something else.
        if self.is_pooled && prepared.shared().is_some() {
            return Err(absent()
                .detail(
                    "A Parse message prepared it. In transaction pooling SQL does not reach such statements.",
                )
                .hint("Run it by a Bind message, or prepare it by PREPARE."));
        }
        running.meant.push((name.into(), Arc::clone(&prepared.statement)));
        if prepared.in_sql {
            running.run(&prepared.scope, false);
            return Ok(());
        }
        // A message can prepare what PREPARE cannot: a PREPARE, a SET, a CLOSE. What that does counts as
        // that of a text which the gateway did not see.
        let analysis = &prepared.statement.analysis;
        if analysis.changes_names() || analysis.changes_settings {
            if self.is_governed {
                let message = format!("what \"{name}\" stands for is not run by EXECUTE");
                return Err(Refusal::new(code::FEATURE_NOT_SUPPORTED, message)
                    .detail("It changes names or settings of the session.")
                    .hint("Run it by a Bind message, or send it as a text."));
            }
            running.not_understood = true;
            running.does_more = true;
        }
        let statement = Arc::clone(&prepared.statement);
        statement.analysis.parts.iter().try_for_each(|part| self.part(part, running, depth + 1))
    }

    fn fetched(&mut self, name: &str, running: &mut Running, depth: usize) -> Result<(), Refusal> {
        let name_ = names::name(name);
        let found = self.names.portal(&name_);
        let absent = || {
            let message = format!("cursor \"{name}\" does not exist");
            Refusal::new(code::NO_SUCH_CURSOR, message)
        };
        let Some(portal) = self.found(found, name, absent, running)? else { return Ok(()) };
        running.meant.push((name.into(), Arc::clone(&portal.statement)));
        if portal.has_begun() {
            running.run(&portal.scope, true);
            return Ok(());
        }
        running.is_from_before = true;
        let first = running.runs.len();
        if portal.in_sql {
            running.run(&portal.scope, false);
        } else {
            let statement = Arc::clone(&portal.statement);
            for part in &statement.analysis.parts {
                self.part(part, running, depth + 1)?;
            }
        }
        let mut scope = QueryScope::empty();
        for run in &running.runs[first..] {
            scope.merge(&run.scope);
        }
        let name: Name = name_;
        let begun = Begun { part: running.part, name, number: None, scope: Arc::new(scope) };
        // The next part of a Query goes on with it; an Execute tells `Names` when it is sent.
        if running.is_query {
            self.names.begin(&begun);
        }
        running.begun.push(begun);
        Ok(())
    }
}
