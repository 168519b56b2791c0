//! What the two sides of a session share: which statements are under way, what they are, and what must be durable before
//! more is let through. Pure but for the lock around it, which is never held across an await.
//!
//! Batches. Between two Syncs the store answers in order, and after an error it skips. So what a name stands for is known
//! only when the answers are in: operations of a batch are kept apart and count once the store confirmed them. The client's
//! side does not begin a batch before the last one is answered. Without that, a skipped Parse would let one statement run
//! under another's text in the ledger.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ringfence_ledger::Ticket;

use crate::quota::Charge;
use crate::refusal::Refusal;
use crate::statement::Verdict;

/// A statement text and what was found about it.
#[derive(Debug)]
pub struct Statement {
    /// The SQL.
    pub text: Box<str>,
    /// The verdict, where the session is governed by a face.
    pub verdict: Option<Arc<Verdict>>,
}

/// A portal: a statement with its parameters.
#[derive(Clone, Debug)]
pub struct Portal {
    /// What it runs; `None` if it was made in SQL.
    pub statement: Option<Arc<Statement>>,
    /// Its parameters as the ledger keeps them.
    pub parameters: Arc<[Box<str>]>,
    /// The statement's number in the session, once it has run.
    pub number: Option<u64>,
}

/// An operation whose confirmation is awaited.
#[derive(Debug)]
enum Operation {
    Parse(Box<str>, Arc<Statement>),
    Bind(Box<str>, Portal),
    CloseStatement(Box<str>),
    ClosePortal(Box<str>),
}

/// A statement under way.
#[derive(Debug)]
pub struct InFlight {
    /// Its number in the session; `None` where it is not logged one by one.
    pub number: Option<u64>,
    /// Whether it ends with ReadyForQuery (simple protocol) or by itself (Execute).
    pub simple: bool,
    /// Which shape it counts for.
    pub shape: Option<u64>,
    /// What each row costs of a grant's limit.
    pub charge: Charge,
    /// Rows let through.
    pub rows: u64,
    /// Bytes of rows let through.
    pub bytes: u64,
    /// The SQLSTATE it failed with.
    pub failed: Option<String>,
}

impl InFlight {
    /// A statement that has begun.
    pub fn new(number: Option<u64>, simple: bool, shape: Option<u64>, charge: Charge) -> Self {
        Self { number, simple, shape, charge, rows: 0, bytes: 0, failed: None }
    }
}

/// In the order of the answers.
#[derive(Debug)]
pub enum Awaited {
    /// A statement.
    Statement(InFlight),
    /// A ReadyForQuery.
    Ready,
}

/// See the module's text.
#[derive(Default)]
pub struct Flow {
    /// Intents that are not known to be durable.
    pub tickets: VecDeque<Ticket>,
    /// Answers that are to come.
    pub awaited: VecDeque<Awaited>,
    /// ReadyForQuery messages that are to come.
    pub unready: usize,
    /// Refusals by number, to take the place of the error that the store makes for them.
    pub refusals: Vec<(u64, Refusal)>,
    /// Notices to show before the next answer.
    pub notices: Vec<u8>,
    /// A hint for an error about a missing column or right.
    pub hint: Option<String>,
    /// `I`, `T` or `E` as the store last said.
    pub transaction: u8,
    statements: HashMap<Box<str>, Arc<Statement>>,
    portals: HashMap<Box<str>, Portal>,
    batch: Vec<Operation>,
    confirmed: usize,
    next_number: u64,
}

impl Flow {
    /// A session that has just logged in.
    pub fn new() -> Self {
        Self { transaction: b'I', ..Self::default() }
    }

    /// The number of the session's next statement or refusal.
    pub fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// What `name` will stand for when the store gets to it, if all goes well until then.
    pub fn statement(&self, name: &str) -> Option<Arc<Statement>> {
        for operation in self.batch.iter().rev() {
            match operation {
                Operation::Parse(n, statement) if **n == *name => return Some(Arc::clone(statement)),
                Operation::CloseStatement(n) if **n == *name => return None,
                _ => {}
            }
        }
        self.statements.get(name).cloned()
    }

    /// The same for a portal.
    pub fn portal(&mut self, name: &str) -> Option<&mut Portal> {
        for operation in self.batch.iter_mut().rev() {
            match operation {
                Operation::Bind(n, portal) if **n == *name => return Some(portal),
                Operation::ClosePortal(n) if **n == *name => return None,
                _ => {}
            }
        }
        self.portals.get_mut(name)
    }

    /// A Parse was sent.
    pub fn parse(&mut self, name: &str, statement: Arc<Statement>) {
        self.batch.push(Operation::Parse(name.into(), statement));
    }

    /// A Bind was sent.
    pub fn bind(&mut self, name: &str, portal: Portal) {
        self.batch.push(Operation::Bind(name.into(), portal));
    }

    /// A Close was sent.
    pub fn close(&mut self, is_portal: bool, name: &str) {
        let name = name.into();
        self.batch.push(if is_portal {
            Operation::ClosePortal(name)
        } else {
            Operation::CloseStatement(name)
        });
    }

    /// A statement was sent.
    pub fn begin(&mut self, statement: InFlight) {
        let simple = statement.simple;
        self.awaited.push_back(Awaited::Statement(statement));
        if simple {
            self.sync();
        }
    }

    /// Something was sent that ends with ReadyForQuery.
    pub fn sync(&mut self) {
        self.awaited.push_back(Awaited::Ready);
        self.unready += 1;
    }

    /// ParseComplete, BindComplete or CloseComplete came.
    pub fn confirm(&mut self) {
        self.confirmed += 1;
    }

    /// The statement whose rows come now.
    pub fn current(&mut self) -> Option<&mut InFlight> {
        match self.awaited.front_mut() {
            Some(Awaited::Statement(statement)) => Some(statement),
            _ => None,
        }
    }

    /// CommandComplete, EmptyQueryResponse or PortalSuspended came: the statement that is over, if this ends it.
    pub fn complete(&mut self) -> Option<InFlight> {
        if self.current()?.simple {
            return None;
        }
        match self.awaited.pop_front() {
            Some(Awaited::Statement(statement)) => Some(statement),
            _ => None,
        }
    }

    /// An error came.
    pub fn fail(&mut self, sqlstate: &str) {
        if let Some(current) = self.current() {
            current.failed = Some(sqlstate.to_owned());
        }
    }

    /// ReadyForQuery came: the statements that are over with it. Those of the batch that have not answered were skipped.
    pub fn ready(&mut self, transaction: u8) -> Vec<InFlight> {
        self.transaction = transaction;
        self.unready = self.unready.saturating_sub(1);
        let mut over = Vec::new();
        while let Some(awaited) = self.awaited.pop_front() {
            match awaited {
                Awaited::Statement(statement) => over.push(statement),
                Awaited::Ready => break,
            }
        }
        let confirmed = std::mem::take(&mut self.confirmed);
        for operation in self.batch.drain(..).take(confirmed) {
            match operation {
                Operation::Parse(name, statement) => drop(self.statements.insert(name, statement)),
                Operation::Bind(name, portal) => drop(self.portals.insert(name, portal)),
                Operation::CloseStatement(name) => drop(self.statements.remove(&name)),
                Operation::ClosePortal(name) => drop(self.portals.remove(&name)),
            }
        }
        if transaction == b'I' {
            self.portals.clear(); // portals end with their transaction
        }
        self.refusals.clear();
        over
    }

    /// How many names are kept; bounded by the client's side.
    pub fn names(&self) -> usize {
        self.statements.len() + self.portals.len() + self.batch.len()
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.unready == 0 && self.awaited.is_empty() && self.transaction == b'I'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str) -> Arc<Statement> {
        Arc::new(Statement { text: text.into(), verdict: None })
    }

    fn execute(flow: &mut Flow) {
        flow.begin(InFlight::new(Some(1), false, None, Charge::default()));
    }

    #[test]
    fn a_parse_that_the_store_skipped_does_not_count() {
        let mut flow = Flow::new();
        flow.parse("", statement("SELECT secret"));
        flow.sync();
        flow.confirm();
        flow.ready(b'I');
        // An error, then a Parse that the store skips.
        execute(&mut flow);
        flow.parse("", statement("SELECT 1"));
        flow.sync();
        flow.fail("42601");
        flow.ready(b'I');
        assert_eq!(&*flow.statement("").unwrap().text, "SELECT secret");
    }

    #[test]
    fn statements_of_a_batch_end_in_order_and_skipped_ones_with_it() {
        let mut flow = Flow::new();
        for _ in 0..3 {
            execute(&mut flow);
        }
        flow.sync();
        assert!(flow.complete().is_some());
        flow.fail("22012");
        let over = flow.ready(b'I');
        assert_eq!(over.len(), 2);
        assert_eq!(over[0].failed.as_deref(), Some("22012"));
        assert!(flow.is_idle());
    }

    #[test]
    fn a_simple_query_ends_with_ready_for_query_only() {
        let mut flow = Flow::new();
        flow.begin(InFlight::new(Some(1), true, None, Charge::default()));
        assert!(flow.complete().is_none());
        assert!(flow.complete().is_none());
        assert_eq!(flow.ready(b'T').len(), 1);
        assert!(!flow.is_idle(), "in a transaction");
    }
}
