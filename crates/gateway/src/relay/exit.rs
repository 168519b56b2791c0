//! The one way out: every byte to a client passes here, and waits for the intents behind it.
//!
//! The promise: when [`Exit::pass`] writes, all that was announced to the ledger before is durable, and
//! who is new in the rows is on record, and the session was not cut and its grants have not expired. It does not
//! matter what kind of message the bytes are: errors and notices can carry values as rows do.

use std::time::{Duration, SystemTime};

use ringfence_ledger::Ticket;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::grants::Cut;
use crate::refusal::{Refusal, code, unrecorded};
use crate::relay::cuts::{Deadline, cut_now, hard_cut, over};

/// How long a write that is under way may go on after a cut.
const GRACE: Duration = Duration::from_millis(200);
/// How long the last words of a session wait for the ledger and for the client.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What stands behind the bytes of a session's answers.
pub trait Source {
    /// Puts on record the people in the rows that are about to pass, and says how many tickets must be
    /// durable before the next byte.
    fn tickets(&self) -> usize;
    /// Takes the first of them.
    fn take_ticket(&self) -> Option<Ticket>;
    /// Takes the gateway's own notices, to be shown before the next frame.
    fn take_notices(&self) -> Vec<u8>;
    /// So many bytes went to the client.
    fn sent(&self, bytes: usize);
    /// Whether the client may have the beginning of a frame and not its end.
    fn within_frame(&self, is_within: bool);
    /// An answer has passed; the ledger had its intent at `durable`.
    fn passed(&self, durable: SystemTime);
}

/// Why nothing more passes.
#[derive(Debug)]
pub enum Shut {
    /// The client does not take it.
    Client,
    /// The session was cut while the client took bytes.
    Cut(Cut),
    /// The session was over before.
    Over(Cut),
    /// The ledger cannot be written.
    Unrecorded(Refusal),
}

/// The way to one client.
pub struct Exit<'a, S, W> {
    source: &'a S,
    client: &'a mut W,
    cut: watch::Receiver<Option<Cut>>,
    deadline: Option<&'a Deadline>,
    /// Whether the client has had the beginning of a frame and not its end.
    within_frame: bool,
}

impl<'a, S: Source, W: AsyncWrite + Unpin> Exit<'a, S, W> {
    /// The way to `client`, which stands between two frames.
    pub fn new(
        source: &'a S,
        client: &'a mut W,
        cut: watch::Receiver<Option<Cut>>,
        deadline: Option<&'a Deadline>,
    ) -> Self {
        Self { source, client, cut, deadline, within_frame: false }
    }

    /// Whether the client has had the beginning of a frame and not its end.
    pub fn is_within_frame(&self) -> bool {
        self.within_frame
    }

    /// Writes bytes of an answer. `ends_within_frame` says that the rest of their last frame is to come.
    pub async fn pass(&mut self, bytes: &[u8], ends_within_frame: bool) -> Result<(), Shut> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.source.tickets() > 0 {
            let mut cut = self.cut.clone();
            tokio::select! {
                biased;
                done = durable(self.source) => done.map_err(Shut::Unrecorded)?,
                cut = over(&mut cut, self.deadline) => return Err(Shut::Over(cut)),
            }
        }
        // What was judged before can have waited long: for a count, for the ledger. A receiver that has not looked
        // knows without a lock that there is nothing new.
        let may_be_over = self.deadline.is_some() || self.cut.has_changed().unwrap_or(true);
        if may_be_over && let Some(cut) = cut_now(&self.cut, self.deadline) {
            return Err(Shut::Over(cut));
        }
        let durable = SystemTime::now();
        if !self.within_frame {
            let notices = self.source.take_notices();
            self.write(&notices).await?;
        }
        self.source.within_frame(true);
        self.write(bytes).await?;
        self.within_frame = ends_within_frame;
        self.source.within_frame(ends_within_frame);
        self.source.passed(durable);
        Ok(())
    }

    /// After a cut the client has a moment to take what is under way.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Shut> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.source.sent(bytes.len());
        let client = &mut *self.client;
        let cut = &self.cut;
        tokio::select! {
            biased;
            written = async {
                client.write_all(bytes).await?;
                client.flush().await
            } => written.map_err(|_| Shut::Client),
            cut = async {
                // A clone: `pass` must see a cut that comes while the client takes bytes.
                let cut = hard_cut(&mut cut.clone()).await;
                tokio::time::sleep(GRACE).await;
                cut
            } => Err(Shut::Cut(cut)),
        }
    }
}

/// Waits until all that was announced up to now is durable.
async fn durable<S: Source>(source: &S) -> Result<(), Refusal> {
    for _ in 0..source.tickets() {
        let Some(ticket) = source.take_ticket() else { break };
        ticket.durable().await.map_err(|e| unrecorded(&e))?;
    }
    Ok(())
}

/// The last words to a client: the reason why its session is over. They wait for the ledger like any
/// other byte; if that cannot be written, the client hears this instead.
pub async fn last_words<S: Source, W: AsyncWrite + Unpin>(source: &S, client: &mut W, refusal: Refusal) {
    let refusal = match tokio::time::timeout(LAST_WORDS, durable(source)).await {
        Ok(Ok(())) => refusal,
        Ok(Err(unrecorded)) => unrecorded,
        Err(_) => Refusal::new(code::ADMIN_SHUTDOWN, "this session is over")
            .hint("The ledger has not confirmed its last statements yet."),
    };
    let fatal = refusal.fatal();
    let saying = async {
        client.write_all(&fatal).await?;
        client.flush().await
    };
    if !matches!(tokio::time::timeout(LAST_WORDS, saying).await, Ok(Ok(()))) {
        tracing::debug!("a client did not take the reason of its session's end");
    }
}
