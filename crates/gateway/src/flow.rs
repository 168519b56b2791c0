//! What the two sides of a session share: which statements are under way, what they are, and what must be durable before
//! more is let through. Pure but for the lock around it, which is never held across an await.
//!
//! Batches. Between two Syncs the store answers in order, and after an error it skips. So what a name stands for is known
//! only when the answers are in: operations of a batch are kept apart and count once the store confirmed them. The client's
//! side does not begin a batch before the last one is answered. Without that, a skipped Parse would let one statement run
//! under another's text in the ledger.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use ringfence_ledger::Ticket;
use ringfence_statement::reach::Reach;

use crate::metering::Watch;
use crate::quota::Charge;
use crate::refusal::Refusal;
use crate::statement::Verdict;
use crate::traces::{Begun, Over};

/// A statement text and what was found about it.
#[derive(Debug)]
pub struct Statement {
    /// The SQL.
    pub text: Box<str>,
    /// The verdict, where the session is governed by a face.
    pub verdict: Option<Arc<Verdict>>,
    /// What its result can show, where the session is metered.
    pub reach: Option<Arc<Reach>>,
    /// How to prepare it again, where connections change between transactions.
    pub prepared: Option<Prepared>,
    /// The prepared statement that it forgets, where that one has a shared name in the store.
    pub deallocates: Option<Box<str>>,
}

/// What shared names begin with.
pub const SHARED: &str = "ringfence_";

/// A prepared statement that any connection can have.
#[derive(Debug)]
pub struct Prepared {
    /// Its number, which makes its name in the store; see [`crate::pin::SharedNames`].
    pub number: u64,
    /// Whether the client named it. The unnamed one stays unnamed in the store.
    pub named: bool,
    /// Text and parameter types, as in the Parse message after the name.
    pub definition: Box<[u8]>,
}

impl Prepared {
    /// Its name in the store.
    pub fn name(&self) -> String {
        if self.named { format!("{SHARED}{}", self.number) } else { String::new() }
    }
}

/// What becomes of a ParseComplete, BindComplete or CloseComplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// It goes on to the client.
    Pass,
    /// It answers a Parse of our own.
    Ours,
    /// It answers a Close in the place of a Parse of what the connection has prepared already.
    AsParse,
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
    /// A Parse that the connection need not see.
    Known(Box<str>, Arc<Statement>),
    /// A Parse of our own, for a connection that has not seen the statement.
    Again(Arc<Statement>),
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
    /// The client's prepared statement that is gone once it succeeds; see [`Statement::deallocates`].
    pub deallocates: Option<Box<str>>,
    /// Whose data its rows show, where that is counted.
    pub watch: Option<Box<Watch>>,
    /// Where it is in a trace.
    pub traced: Option<Box<Begun>>,
}

impl InFlight {
    /// A statement that has begun.
    pub fn new(number: Option<u64>, simple: bool, shape: Option<u64>, charge: Charge) -> Self {
        Self {
            number,
            simple,
            shape,
            charge,
            rows: 0,
            bytes: 0,
            failed: None,
            deallocates: None,
            watch: None,
            traced: None,
        }
    }
}

/// Whose a Describe was, and so what becomes of the RowDescription that answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Described {
    /// The client's: it goes on.
    Theirs,
    /// The client's, of the portal that is run next: it goes on, and says what its rows are.
    Next,
    /// Ours: it says what the rows of the portal that is run next are, and stays here.
    Ours,
}

/// In the order of the answers.
#[derive(Debug)]
pub enum Awaited {
    /// A statement.
    Statement(InFlight),
    /// A ReadyForQuery.
    Ready,
    /// Nothing: here the client ended its COPY data. A Sync before that is one that the store ignores.
    CopyEnd,
}

/// What `SHOW STATS` adds up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Transactions that ended.
    pub transactions: u64,
    /// Statements that ended.
    pub statements: u64,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
}

impl Traffic {
    /// Adds more of it.
    pub fn add(&mut self, more: Self) {
        self.transactions += more.transactions;
        self.statements += more.statements;
        self.received += more.received;
        self.sent += more.sent;
    }
}

/// See the module's text.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about the conversation")]
pub struct Flow {
    /// Intents that are not known to be durable.
    pub tickets: VecDeque<Ticket>,
    /// Spans of statements that are over, whose answers have not passed.
    pub spans: Vec<Over>,
    /// Answers that are to come.
    pub awaited: VecDeque<Awaited>,
    /// Describes of a metered session whose answers are to come.
    pub described: VecDeque<Described>,
    /// The portal that the client described with its last message.
    pub just_described: Option<Box<str>>,
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
    /// The store waits for COPY data.
    pub copying: bool,
    /// A batch is answered, but its answer has not left yet.
    pub leaving: bool,
    /// Something was sent since the last Sync or Query.
    pub unsynced: bool,
    /// Something is left in the connection that the session may rely on (transaction pooling).
    pub pinned: bool,
    /// The client ran DISCARD ALL, which leaves a full-access login in its own role (transaction pooling).
    pub discarded: bool,
    /// The shared statements that the connection has prepared (transaction pooling).
    pub on_connection: HashSet<u64>,
    /// The process behind the connection, and what the client takes for it (transaction pooling).
    pub process: (i32, i32),
    /// What the connection's unnamed statement is (transaction pooling).
    pub unnamed: Option<u64>,
    /// Transactions that ended, and bytes in each direction, since somebody last took them.
    pub traffic: Traffic,
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
                Operation::Parse(n, statement) | Operation::Known(n, statement) if **n == *name => {
                    return Some(Arc::clone(statement));
                }
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

    /// Whether the connection has prepared a statement, or will have when it gets to what was sent.
    pub fn is_on_connection(&self, prepared: &Prepared) -> bool {
        let number = prepared.number;
        let mut sent = self.batch.iter().rev().filter_map(|operation| match operation {
            Operation::Parse(_, s) | Operation::Again(s) => {
                s.prepared.as_ref().filter(|p| p.named == prepared.named).map(|p| p.number)
            }
            _ => None,
        });
        if prepared.named {
            self.on_connection.contains(&number) || sent.any(|n| n == number)
        } else {
            sent.next().or(self.unnamed) == Some(number)
        }
    }

    /// A Close was sent in the place of a Parse of what the connection has.
    pub fn parse_known(&mut self, name: &str, statement: Arc<Statement>) {
        self.batch.push(Operation::Known(name.into(), statement));
    }

    /// A Parse of our own was sent.
    pub fn parse_again(&mut self, statement: Arc<Statement>) {
        self.batch.push(Operation::Again(statement));
    }

    /// The client's name for a shared statement.
    pub fn own_name(&self, number: u64) -> Option<&str> {
        let is_it = |s: &Statement| s.prepared.as_ref().is_some_and(|p| p.named && p.number == number);
        let in_batch = self.batch.iter().find_map(|operation| match operation {
            Operation::Parse(name, s) | Operation::Known(name, s) if is_it(s) => Some(&**name),
            _ => None,
        });
        in_batch.or_else(|| self.statements.iter().find(|(_, s)| is_it(s)).map(|(name, _)| &**name))
    }

    /// Whether a name stands for a shared statement, confirmed by the store.
    pub fn is_shared(&self, name: &str) -> bool {
        self.statements.get(name).is_some_and(|s| s.prepared.is_some())
    }

    /// If the statement under way was a `DEALLOCATE` of a shared one, that is gone for the client.
    pub fn deallocated(&mut self) -> bool {
        let Some(name) = self.current().and_then(|current| current.deallocates.take()) else { return false };
        self.statements.remove(&name);
        true
    }

    /// All prepared statements are gone (DEALLOCATE ALL, DISCARD ALL).
    pub fn deallocate_all(&mut self) {
        self.statements.clear();
        self.on_connection.clear();
        self.unnamed = None;
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
            // A Query destroys the unnamed statement (protocol manual, "Extended Query").
            self.statements.remove("");
            self.unnamed = None;
            self.sync();
        }
    }

    /// Something was sent that ends with ReadyForQuery.
    pub fn sync(&mut self) {
        self.awaited.push_back(Awaited::Ready);
        self.unready += 1;
        self.unsynced = false;
    }

    /// ParseComplete, BindComplete or CloseComplete came.
    pub fn confirm(&mut self) -> Confirmed {
        self.confirmed += 1;
        match self.batch.get(self.confirmed - 1) {
            Some(Operation::Again(_)) => Confirmed::Ours,
            Some(Operation::Known(..)) => Confirmed::AsParse,
            _ => Confirmed::Pass,
        }
    }

    /// The statement whose rows come now.
    pub fn current(&mut self) -> Option<&mut InFlight> {
        while let Some(Awaited::CopyEnd) = self.awaited.front() {
            self.awaited.pop_front();
        }
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
            Some(Awaited::Statement(statement)) => {
                self.traffic.statements += 1;
                Some(statement)
            }
            _ => None,
        }
    }

    /// CopyInResponse came. From here to the end of the data the store ignores Sync (protocol manual, "COPY Operations"):
    /// libpq sends one right after Execute, and another one after the data.
    pub fn copy_begins(&mut self) {
        if self.current().is_none_or(|current| current.simple) {
            self.copying = !self.awaited.iter().any(|a| matches!(a, Awaited::CopyEnd));
            return;
        }
        self.copying = true;
        let mut at = 1;
        while let Some(awaited) = self.awaited.get(at) {
            match awaited {
                Awaited::Ready => {
                    self.awaited.remove(at);
                    self.unready = self.unready.saturating_sub(1);
                }
                Awaited::CopyEnd => {
                    self.copying = false;
                    break;
                }
                Awaited::Statement(_) => at += 1,
            }
        }
        self.unsynced = !self.awaited.iter().any(|a| matches!(a, Awaited::Ready));
    }

    /// CopyDone or CopyFail was sent.
    pub fn copy_ends(&mut self) {
        self.copying = false;
        if !self.awaited.is_empty() {
            self.awaited.push_back(Awaited::CopyEnd);
        }
    }

    /// An error came.
    pub fn fail(&mut self, sqlstate: &str) {
        self.copying = false;
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
                Awaited::CopyEnd => {}
            }
        }
        self.copying = false;
        self.leaving = true;
        self.traffic.transactions += u64::from(transaction == b'I');
        self.traffic.statements += over.len() as u64;
        let confirmed = std::mem::take(&mut self.confirmed);
        for operation in self.batch.drain(..).take(confirmed) {
            match operation {
                Operation::Parse(name, statement) => {
                    note_prepared(&mut self.on_connection, &mut self.unnamed, &statement);
                    self.statements.insert(name, statement);
                }
                Operation::Again(statement) => {
                    note_prepared(&mut self.on_connection, &mut self.unnamed, &statement);
                }
                Operation::Known(name, statement) => drop(self.statements.insert(name, statement)),
                Operation::Bind(name, portal) => drop(self.portals.insert(name, portal)),
                Operation::CloseStatement(name) => drop(self.statements.remove(&name)),
                Operation::ClosePortal(name) => drop(self.portals.remove(&name)),
            }
        }
        if transaction == b'I' {
            self.portals.clear(); // portals end with their transaction
        }
        self.refusals.clear();
        self.described.clear(); // of those that were skipped
        over
    }

    /// How many names are kept; bounded by the client's side.
    pub fn names(&self) -> usize {
        self.statements.len() + self.portals.len() + self.batch.len()
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.unready == 0 && self.awaited.is_empty() && self.transaction == b'I' && !self.unsynced
    }
}

fn note_prepared(on_connection: &mut HashSet<u64>, unnamed: &mut Option<u64>, statement: &Statement) {
    match &statement.prepared {
        Some(p) if p.named => drop(on_connection.insert(p.number)),
        Some(p) => *unnamed = Some(p.number),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str) -> Arc<Statement> {
        Arc::new(Statement {
            text: text.into(),
            verdict: None,
            reach: None,
            prepared: None,
            deallocates: None,
        })
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
    fn a_sync_before_the_end_of_copy_data_is_one_that_the_store_ignores() {
        let mut flow = Flow::new();
        execute(&mut flow);
        flow.sync();
        flow.copy_begins();
        assert!(flow.copying && flow.unready == 0, "the first Sync is ignored");
        flow.copy_ends();
        flow.sync();
        assert!(flow.complete().is_some());
        flow.ready(b'I');
        assert!(flow.is_idle());
        // All at once: the answer comes when the client has sent everything.
        execute(&mut flow);
        flow.sync();
        flow.copy_ends();
        flow.sync();
        flow.copy_begins();
        assert!(!flow.copying && flow.unready == 1);
        assert!(flow.complete().is_some());
        flow.ready(b'I');
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
