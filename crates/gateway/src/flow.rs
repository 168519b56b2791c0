//! What the two sides of a session share: which statements are under way, what they are, and what must be durable before
//! more is let through. Pure but for the lock around it, which is never held across an await.
//!
//! Batches. Between two Syncs the store answers in order, and after an error it skips. So what a name
//! stands for counts for good only when the answers are in ([`crate::relay::names`]). The client's side
//! does not begin a batch before the last one is answered. Without that, a skipped Parse would let one
//! statement run under another's text in the ledger.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use ringfence_ledger::Ticket;
use ringfence_statement::analysis::{Analysis, Recent};
use ringfence_statement::names::Keeps;

use crate::metering::Watch;
use crate::quota::Charges;
use crate::refusal::Refusal;
use crate::relay::names::{Names, PreparedStatement};
use crate::relay::recorded_texts::RecordedTexts;
use crate::relay::statement::{SharedStatement, Statement};
use crate::traces::{Begun, Over};

/// About how many bytes a message takes until it is answered.
const A_MESSAGE: usize = 160;

/// About how many bytes a parameter takes beside its own.
const A_PARAMETER: usize = 16;

/// About how many bytes parameters take.
pub fn size_of(parameters: &[Box<str>]) -> usize {
    parameters.iter().map(|parameter| parameter.len() + A_PARAMETER).sum()
}

/// A text and its parameters.
type Quoted = (Arc<Statement>, Arc<[Box<str>]>);

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

/// A message whose confirmation (ParseComplete, BindComplete, CloseComplete) is awaited.
#[derive(Debug)]
struct Sent {
    confirmed: Confirmed,
    /// The shared statement that the connection has from then on.
    prepares: Option<(bool, u64)>,
    /// Its place in the order of what was sent.
    place: u64,
    /// The store may run functions of others for it.
    may_read: bool,
}

/// A workload's statement: what it is, and what it runs by name.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The statement.
    pub analysis: Arc<Analysis>,
    /// What it stands for, where it is an EXECUTE or a FETCH.
    pub stands_for: Option<Arc<Analysis>>,
}

/// A statement under way.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about a statement")]
pub struct InFlight {
    /// Its number in the session; `None` where it is not logged one by one.
    pub number: Option<u64>,
    /// Whether it ends with ReadyForQuery (simple protocol) or by itself (Execute).
    pub is_simple: bool,
    /// Which shape it counts for.
    pub counted: Option<Counted>,
    /// What it costs of grants' row limits.
    pub charges: Charges,
    /// The text that an error may quote; [`Flow::begin`] takes it.
    pub text: Option<Arc<Statement>>,
    /// Those of what it stands for, likewise.
    pub meant: Vec<Arc<Statement>>,
    /// The parameters that an error may quote; likewise.
    pub parameters: Option<Arc<[Box<str>]>>,
    /// Rows let through.
    pub rows: u64,
    /// Bytes of rows let through.
    pub bytes: u64,
    /// The SQLSTATE it failed with.
    pub failed: Option<String>,
    /// The store skipped it after an error.
    pub is_skipped: bool,
    /// How many texts it has added to those that an error may quote; [`Flow::begin`] sets it.
    pub texts: u16,
    /// Its parts that have ended.
    pub parts_ended: usize,
    /// Which of its parts are ROLLBACK TO, by a bit for each: their tags are those of ROLLBACK.
    pub to_savepoints: u64,
    /// Its end confirms a change of names; see [`Names::execute`].
    pub changes_names: bool,
    /// See [`Statement::deallocates_shared`].
    pub deallocates_shared: bool,
    /// Whose data its rows show, where that is counted.
    pub watch: Option<Box<Watch>>,
    /// What is counted again when its answer comes.
    pub again: Option<Box<Again>>,
    /// A part of it is a COMMIT.
    pub commits: bool,
    /// A part of it ends a transaction, or goes back in it.
    pub ends: bool,
    /// Where it is in a trace.
    pub traced: Option<Box<Begun>>,
    /// Its place in the order of what was sent; [`Flow::begin`] sets it.
    pub place: u64,
}

/// What a statement can show that has no bound: it was counted before the statement was sent, and is counted
/// again when an answer comes.
#[derive(Debug)]
pub struct Again {
    /// Whose data.
    pub watch: Watch,
    /// The parts of the text for which that is to be done, by a bit for each; the last bit is for all from there on.
    pub parts: u64,
    /// The part for which it was done last.
    pub last: Option<usize>,
    /// It is done once more at a part's end: a function of others may look at the rows at any time.
    pub at_end: bool,
}

impl InFlight {
    /// A Query of which nothing is recorded: it is refused, or the store refuses it.
    pub fn unrecorded_query() -> Self {
        Self { is_simple: true, ..Self::default() }
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
    /// The statement that the hint is about.
    pub explained: Option<Arc<Analysis>>,
    /// `I`, `T` or `E` as the store last said.
    pub transaction: u8,
    /// The store waits for COPY data.
    pub copying: bool,
    /// Syncs that wait until the COPY before them has failed, or is known to run: then the store ignores them.
    pub held_syncs: usize,
    /// How often the client ended COPY data, since the last statement, before the store waited for it.
    early_copy_ends: usize,
    /// A batch is answered, but its answer has not left yet.
    pub leaving: bool,
    /// Something was sent since the last Sync or Query.
    pub unsynced: bool,
    /// The store has, or may have, the beginning of a frame and not its end.
    pub within_frame: bool,
    /// The same of the client.
    pub answer_is_cut: bool,
    /// About how many bytes are kept of the messages that were sent since the last ReadyForQuery.
    pub kept: usize,
    /// Something is left in the connection that the session may rely on (transaction pooling).
    pub pinned: bool,
    /// The place of the last message that was sent before the last statement that pins.
    pinned_after: u64,
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
    /// What names stand for.
    pub names: Names,
    /// What the texts that came last say.
    pub recent: Recent,
    /// The statement that came last, where it may be used again as it is.
    pub last: Option<Arc<Statement>>,
    /// Which texts are on record.
    pub recorded: RecordedTexts,
    /// Something was sent since the last ReadyForQuery that may change how texts are read.
    pub settings_unsure: bool,
    /// Code was defined in the transaction under way.
    pub defines: bool,
    /// Something was sent since the last ReadyForQuery that may have ended the transaction.
    pub ends_transaction: bool,
    /// Code of others ran in the transaction under way: some of it may wait for the end.
    pub ran_others: bool,
    /// Code of others was sent that may look at rows until its transaction ends, or its batch: the number of the
    /// statement that runs it. Who is there then is counted once more.
    pub unseen: Option<u64>,
    /// Code ran in the transaction under way that may have defined other code.
    pub defines_unseen: bool,
    /// When code that the session has defined was committed last, or may have been.
    pub defined_at: Option<Instant>,
    /// Something was committed since the last ReadyForQuery that may have defined code.
    pub may_have_defined: bool,
    /// All prepared statements of the connection go with something that was sent since the last ReadyForQuery.
    discarding: bool,
    /// Code ran in the transaction under way that may change names, also when it ends.
    pub changes_unseen: bool,
    /// Something ran that may have left anything in the connection (transaction pooling).
    pub must_reset: bool,
    /// A transaction of the session may see the rows as they were before, at some time.
    pub keeps_snapshot: bool,
    /// The same of the transaction under way, and of those that are chained to it.
    transaction_keeps_snapshot: bool,
    /// The same as the session began.
    pub begins_with_snapshot: bool,
    /// The place of the last statement that may set such a level.
    level_set_at: u64,
    /// Something ran that may have made it so for transactions that begin later: the level of one that has taken
    /// its snapshot stays (PostgreSQL manual, SET TRANSACTION).
    pub level_unsure: bool,
    /// Something was sent since the last ReadyForQuery: it may have begun the transaction. Parse and Bind do, too.
    pub has_run: bool,
    /// A transaction was rolled back since the last ReadyForQuery.
    rolled_back: bool,
    /// The SQLSTATE of the error since the last ReadyForQuery.
    failure: Option<String>,
    /// It came when a statement ran, and not before.
    failed_in_execution: bool,
    /// The texts and parameters that were sent and are not answered, of a governed or metered session: what the
    /// store says before it may repeat them.
    texts: VecDeque<Arc<Statement>>,
    /// See `texts`.
    parameters: VecDeque<Arc<[Box<str>]>>,
    /// Those of statements that are over and may have set a parameter: the store says so at the end of the batch.
    setting: Vec<Quoted>,
    sent: VecDeque<Sent>,
    /// Shared statements that were sent to the connection and not confirmed.
    sending: HashSet<u64>,
    sending_unnamed: Option<u64>,
    next_place: u64,
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

    fn place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    /// Bytes are about to be sent to the store; until the last of them is, it may have a part of a frame.
    pub fn sends(&mut self) {
        self.within_frame = true;
        self.has_run = true;
    }

    /// A Describe was sent whose answer is looked at.
    pub fn describes(&mut self, described: Described) {
        self.kept += A_MESSAGE;
        self.described.push_back(described);
    }

    /// It was answered.
    pub fn is_described(&mut self) -> Option<Described> {
        let described = self.described.pop_front();
        self.forget_kept(A_MESSAGE * usize::from(described.is_some()));
        described
    }

    /// So many bytes are kept no longer.
    pub fn forget_kept(&mut self, bytes: usize) {
        self.kept = self.kept.saturating_sub(bytes);
    }

    /// A message was sent that the store confirms. `prepares` is the shared statement that the
    /// connection has from then on: whether it is named, and its number.
    pub fn send(&mut self, confirmed: Confirmed, prepares: Option<(bool, u64)>) {
        match prepares {
            Some((true, number)) => drop(self.sending.insert(number)),
            Some((false, number)) => self.sending_unnamed = Some(number),
            None => {}
        }
        self.kept += A_MESSAGE;
        let place = self.place();
        self.sent.push_back(Sent { confirmed, prepares, place, may_read: false });
    }

    /// For the message that was sent last the store may run functions that read rows.
    pub fn sent_may_read(&mut self) {
        if let Some(sent) = self.sent.back_mut() {
            sent.may_read = true;
        }
    }

    /// Whether the connection has prepared a statement, or will have when it gets to what was sent.
    pub fn is_on_connection(&self, prepared: &SharedStatement) -> bool {
        let number = prepared.number;
        if prepared.named {
            self.on_connection.contains(&number) && !self.discarding || self.sending.contains(&number)
        } else {
            self.sending_unnamed.or(self.unnamed) == Some(number)
        }
    }

    /// The client's name for a shared statement.
    pub fn own_name(&self, number: u64) -> Option<&str> {
        let is_it =
            |p: &PreparedStatement| p.shared().is_some_and(|shared| shared.named && shared.number == number);
        self.names.statements().find(|(_, p)| is_it(p)).map(|(name, _)| name)
    }

    /// DEALLOCATE ALL or DISCARD ALL is about to be sent: what is prepared after it is prepared again.
    pub fn discard(&mut self) {
        self.discarding = true;
        self.sending.clear();
    }

    /// A statement that is about to be sent leaves something in the connection.
    pub fn pin(&mut self) {
        self.pinned = true;
        self.pinned_after = self.next_place;
    }

    /// Something is about to be sent that may set a level unseen.
    pub fn level_is_unsure(&mut self) {
        self.level_unsure = true;
        self.level_set_at = self.next_place + 1;
    }

    /// The session has given its connection back: its settings are as they were when it began.
    pub fn settings_are_reset(&mut self) {
        self.keeps_snapshot = self.begins_with_snapshot;
        self.level_unsure = false;
    }

    /// DISCARD ALL has ended: so they are, but for what was sent after it.
    pub fn settings_are_discarded(&mut self) {
        let place = self.current().map_or(0, |current| current.place);
        if self.level_set_at < place {
            self.settings_are_reset();
        }
    }

    /// DEALLOCATE ALL, or DISCARD ALL (`everything`), has ended: all prepared statements are gone from the
    /// connection. What was sent after it can have left something there already.
    pub fn discarded(&mut self, everything: bool) {
        self.on_connection.clear();
        self.unnamed = None;
        if everything {
            self.discarded = true;
            let place = self.current().map_or(0, |current| current.place);
            self.pinned &= self.pinned_after >= place;
        }
    }

    /// A statement is about to be sent that may change settings.
    pub fn sets(&mut self, analysis: &Analysis) {
        self.settings_unsure |= analysis.changes_settings;
        self.keeps_snapshot |= analysis.keeps_snapshot == Keeps::Session;
        self.transaction_keeps_snapshot |= analysis.keeps_snapshot == Keeps::Transaction;
        if analysis.may_set_level {
            self.level_is_unsure();
        }
        if analysis.keeps_snapshot == Keeps::Session {
            self.level_set_at = self.next_place + 1;
        }
    }

    /// A statement was sent.
    pub fn begin(&mut self, mut statement: InFlight) {
        let is_simple = statement.is_simple;
        self.early_copy_ends = 0;
        self.ends_transaction |= statement.ends;
        self.has_run = true;
        let quotes = statement.text.iter().chain(&statement.meant).map(|text| text.text.len());
        self.kept += A_MESSAGE + quotes.sum::<usize>() + statement.parameters.as_deref().map_or(0, size_of);
        let texts = self.texts.len();
        statement.place = self.place();
        self.texts.extend(statement.text.take());
        self.texts.extend(std::mem::take(&mut statement.meant));
        self.parameters.extend(statement.parameters.take());
        statement.texts = u16::try_from(self.texts.len() - texts).unwrap_or(u16::MAX);
        self.awaited.push_back(Awaited::Statement(statement));
        if is_simple {
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
        self.names.confirm();
        let Some(sent) = self.sent.pop_front() else { return Confirmed::Pass };
        self.forget_kept(A_MESSAGE);
        match sent.prepares {
            Some((true, number)) => drop(self.on_connection.insert(number)),
            Some((false, number)) => self.unnamed = Some(number),
            None => {}
        }
        sent.confirmed
    }

    /// Whether an error that comes now answers a Parse, a Bind or a Close for which no row was read.
    pub fn is_before_rows(&mut self) -> bool {
        self.is_before_execution() && !self.sent.front().is_some_and(|sent| sent.may_read)
    }

    /// Whether an error that comes now answers a Parse, a Bind or a Close.
    pub fn is_before_execution(&mut self) -> bool {
        let confirmation = self.sent.front().map(|sent| sent.place);
        let statement = self.current().map(|current| current.place);
        match (confirmation, statement) {
            (Some(confirmation), Some(statement)) => confirmation < statement,
            (confirmation, None) => confirmation.is_some(),
            (None, Some(_)) => false,
        }
    }

    /// The statement whose rows come now.
    pub fn current(&mut self) -> Option<&mut InFlight> {
        match self.awaited.front_mut() {
            Some(Awaited::Statement(statement)) => Some(statement),
            _ => None,
        }
    }

    /// CommandComplete (with its tag), EmptyQueryResponse or PortalSuspended came: the statement that is
    /// over, if this ends it.
    pub fn complete(&mut self, tag: &[u8]) -> Option<InFlight> {
        let is_rollback = tag.starts_with(b"ROLLBACK\0");
        let is_to_savepoint = |current: &mut InFlight| {
            u32::try_from(current.parts_ended).is_ok_and(|n| n < 64 && current.to_savepoints >> n & 1 == 1)
        };
        self.rolled_back |= is_rollback && !self.current().is_some_and(is_to_savepoint);
        let current = self.current()?;
        current.parts_ended += 1;
        if current.is_simple {
            return None;
        }
        match self.awaited.pop_front() {
            Some(Awaited::Statement(statement)) => {
                if statement.changes_names {
                    self.names.confirm();
                }
                self.traffic.statements += 1;
                self.forget_texts(usize::from(statement.texts));
                Some(statement)
            }
            _ => None,
        }
    }

    /// A statement is over that has added so many texts: what comes later in the batch answers others.
    fn forget_texts(&mut self, count: usize) {
        let count = count.min(self.texts.len());
        let parameters = (count > 0).then(|| self.parameters.pop_front()).flatten().unwrap_or_default();
        let bytes = self.texts.iter().take(count).map(|text| text.text.len()).sum::<usize>();
        let mut setting = self.texts.drain(..count).filter(|text| text.analysis.changes_settings);
        if let Some(first) = setting.next() {
            self.setting.push((first, parameters));
            self.setting.extend(setting.map(|text| (text, Arc::from([]))));
        } else {
            drop(setting);
            self.forget_kept(A_MESSAGE + bytes + size_of(&parameters));
        }
    }

    /// Whether the statement under way is a `DEALLOCATE` of a shared one.
    pub fn deallocates_shared(&mut self) -> bool {
        self.current().is_some_and(|current| current.deallocates_shared)
    }

    /// CopyInResponse came.
    pub fn copy_begins(&mut self) {
        self.copying = self.early_copy_ends == 0;
        self.early_copy_ends = self.early_copy_ends.saturating_sub(1);
    }

    /// CopyDone or CopyFail was sent.
    pub fn copy_ends(&mut self) {
        self.early_copy_ends += usize::from(!self.copying);
        self.copying = false;
    }

    /// Whether the statement under way is one of a batch, and not a Query.
    pub fn is_in_batch(&mut self) -> bool {
        self.current().is_none_or(|current| !current.is_simple)
    }

    /// The store skips what comes up to the next Sync: something in the batch has failed.
    pub fn is_skipping(&self) -> bool {
        self.unready == 0 && self.failure.is_some()
    }

    /// Whether all of the batch that was sent is answered, as far as it was said with a Flush.
    pub fn is_answered(&self) -> bool {
        self.awaited.is_empty() && self.sent.is_empty()
    }

    /// How many answers are to come.
    pub fn unanswered(&self) -> usize {
        self.awaited.len() + self.sent.len() + self.described.len()
    }

    /// An error came.
    pub fn fail(&mut self, sqlstate: &str) {
        self.copying = false;
        self.failure = Some(sqlstate.to_owned());
        self.failed_in_execution = !self.is_before_execution();
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
        self.early_copy_ends = 0;
        self.copying = false;
        self.leaving = true;
        self.traffic.transactions += u64::from(transaction == b'I');
        self.traffic.statements += over.len() as u64;
        if let Some(query) = over.last().filter(|s| s.is_simple && s.changes_names) {
            self.names.ran(query.parts_ended);
        }
        let rolled_back = std::mem::take(&mut self.rolled_back);
        let failure = self.failure.take();
        if failure.is_some() {
            let ran = usize::from(std::mem::take(&mut self.failed_in_execution));
            over.iter_mut().skip(ran).for_each(|statement| statement.is_skipped = true);
        }
        self.names.ready(failure.as_deref(), rolled_back, transaction != b'I');
        // A deferred trigger runs with the COMMIT.
        if self.changes_unseen {
            self.names.be_unsure();
            self.changes_unseen = transaction != b'I';
        }
        self.texts.clear();
        self.parameters.clear();
        self.setting.clear();
        self.kept = 0;
        self.has_run = false;
        self.transaction_keeps_snapshot &= transaction != b'I';
        if std::mem::take(&mut self.ends_transaction) || transaction == b'I' {
            self.keeps_snapshot |= std::mem::take(&mut self.level_unsure);
        }
        self.sent.clear();
        self.sending.clear();
        self.sending_unnamed = None;
        self.discarding = false;
        self.settings_unsure = false;
        if transaction == b'I' {
            self.may_have_defined |= self.defines | std::mem::take(&mut self.defines_unseen);
        }
        self.ran_others &= transaction != b'I';
        if transaction == b'I' && std::mem::take(&mut self.defines) {
            self.defined_at = Some(Instant::now());
        }
        self.refusals.clear();
        self.described.clear(); // of those that were skipped
        over
    }

    /// The texts that the store may quote in what it says next.
    pub fn quotable(&self) -> impl Iterator<Item = &Arc<Statement>> {
        self.setting.iter().map(|(text, _)| text).chain(&self.texts)
    }

    /// The parameters of them.
    pub fn quotable_parameters(&self) -> Vec<Arc<[Box<str>]>> {
        self.setting.iter().map(|(_, parameters)| parameters).chain(&self.parameters).cloned().collect()
    }

    /// Whether the next statement may see the rows as they were before: its transaction has begun, and may keep what
    /// it has seen first.
    pub fn may_see_before(&self) -> bool {
        // What set a level unseen holds for the transaction after its own.
        let keeps = self.keeps_snapshot
            || self.transaction_keeps_snapshot
            || self.level_unsure && self.ends_transaction;
        keeps && (self.transaction != b'I' || self.has_run)
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.unready == 0
            && self.awaited.is_empty()
            && self.transaction == b'I'
            && self.held_syncs == 0
            && !self.unsynced
            && !self.within_frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execute(flow: &mut Flow) {
        flow.begin(InFlight { number: Some(1), ..InFlight::default() });
    }

    #[test]
    fn an_error_answers_what_was_sent_first() {
        let mut flow = Flow::new();
        flow.send(Confirmed::Pass, None);
        execute(&mut flow);
        assert!(flow.is_before_rows());
        flow.confirm();
        assert!(!flow.is_before_rows());
        flow.send(Confirmed::Pass, None);
        assert!(!flow.is_before_rows());
        assert!(flow.complete(b"SELECT 1\0").is_some());
        assert!(flow.is_before_rows());
    }

    #[test]
    fn statements_of_a_batch_end_in_order_and_skipped_ones_with_it() {
        let mut flow = Flow::new();
        for _ in 0..3 {
            execute(&mut flow);
        }
        flow.sync();
        assert!(flow.complete(b"").is_some());
        flow.fail("22012");
        let over = flow.ready(b'I');
        assert_eq!(over.len(), 2);
        assert_eq!(over[0].failed.as_deref(), Some("22012"));
        assert!(flow.is_idle());
    }

    #[test]
    fn each_end_of_copy_data_ends_one_copy() {
        let mut flow = Flow::new();
        flow.begin(InFlight { number: Some(1), is_simple: true, ..InFlight::default() });
        // The data and its end were sent before the store has asked for them.
        flow.copy_ends();
        flow.copy_begins();
        assert!(!flow.copying);
        // A second COPY of the same text waits for data of its own.
        flow.copy_begins();
        assert!(flow.copying);
        flow.copy_ends();
        assert!(!flow.copying);
        flow.ready(b'I');
        // An end that no COPY waits for is none for the next one.
        flow.copy_ends();
        flow.begin(InFlight { number: Some(2), is_simple: true, ..InFlight::default() });
        flow.copy_begins();
        assert!(flow.copying);
    }

    #[test]
    fn a_simple_query_ends_with_ready_for_query_only() {
        let mut flow = Flow::new();
        flow.begin(InFlight { number: Some(1), is_simple: true, ..InFlight::default() });
        assert!(flow.complete(b"").is_none());
        assert!(flow.complete(b"").is_none());
        assert_eq!(flow.ready(b'T').len(), 1);
        assert!(!flow.is_idle(), "in a transaction");
    }
}
