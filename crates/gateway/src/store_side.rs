//! From the store to the client: byte for byte, in the pieces in which it came, once the intents behind it are durable.
//!
//! Only the fronts of frames are looked at. Rows are counted, not decoded. Replaced are: the errors that stand for our own
//! refusals, and errors about a missing column or right, which get a hint how to ask.

use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::client_side::unrecorded;
use crate::flow::{Confirmed, Described, Flow, SHARED};
use crate::frame::{self, Buffer, HEADER, Head, MAX_FRAME};
use crate::grants::Cut;
use crate::metering::Row;
use crate::refusal::{Refusal, code, field, with_hint};
use crate::session::{Deadline, End, Session};
use crate::stand_in::{self, REFUSED};

/// How long a write that is under way may go on after a cut.
const GRACE: Duration = Duration::from_millis(200);
/// Errors that the way to ask may help with: no such column, no such table, no right, no such function.
const EXPLAINED: &[&[u8]] = &[b"42703", b"42P01", b"42501", b"42883"];

struct Side<'a, W> {
    session: &'a Session,
    client: &'a mut W,
    cut: &'a mut watch::Receiver<Option<Cut>>,
    /// Bytes of the current frame that are still to come and need no look.
    passing: usize,
    /// Whether the client has had the beginning of a frame and not its end.
    within_frame: bool,
    told_fatal: bool,
}

/// What to do with a frame that is there as a whole.
enum Passage {
    Forward,
    Replace(Vec<u8>),
}

/// Runs until the store closes, a cut comes, or a limit is reached.
pub async fn run<R, W>(
    session: &Session,
    store: &mut R,
    buffer: &mut Buffer,
    client: &mut W,
    cut: &mut watch::Receiver<Option<Cut>>,
    deadline: Option<&Deadline>,
) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut side = Side { session, client, cut, passing: 0, within_frame: false, told_fatal: false };
    loop {
        if let Err(end) = side.drain(buffer).await {
            return end;
        }
        let between = !side.within_frame;
        tokio::select! {
            biased;
            cut = next_cut(side.cut) => match cut {
                // A session in the middle of something may finish it first.
                Cut::Drain if !session.flow().is_idle() => {}
                cut => return End::Cut(cut, between),
            },
            cut = expiry(deadline) => return End::Cut(cut, between),
            read = buffer.fill(store) => match read {
                Ok(0) | Err(_) => return End::Store { told: side.told_fatal },
                Ok(_) => {}
            },
        }
    }
}

/// Waits for the end of the first grant to end; for ever where there is none.
pub async fn expiry(deadline: Option<&Deadline>) -> Cut {
    match deadline {
        Some((deadline, id)) => {
            tokio::time::sleep_until(*deadline).await;
            Cut::GrantEnded { id: id.clone(), how: "has expired".to_owned() }
        }
        None => std::future::pending().await,
    }
}

/// The next cut; one that was seen already (a drain that a busy session ignored) does not come again.
pub async fn next_cut(cut: &mut watch::Receiver<Option<Cut>>) -> Cut {
    loop {
        if cut.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if let Some(cut) = cut.borrow_and_update().clone() {
            return cut;
        }
    }
}

impl<W: AsyncWrite + Unpin> Side<'_, W> {
    /// Deals with all that is in the buffer.
    async fn drain(&mut self, buffer: &mut Buffer) -> Result<(), End> {
        let mut at = self.passing.min(buffer.data().len());
        self.passing -= at;
        let (mut draining, mut ready) = (false, false);
        loop {
            let rest = &buffer.data()[at..];
            let head = frame::head(rest, MAX_FRAME).map_err(|_| {
                End::Refused(Refusal::new(code::CONNECTION_FAILURE, "the store broke the protocol"), false)
            })?;
            let Some(head) = head else { break };
            let whole = rest.len() >= head.total;
            if matches!(head.tag, b'D' | b'd') {
                let there = &rest[HEADER.min(rest.len())..rest.len().min(head.total)];
                match self.row(head.total, there, whole).await {
                    Ok(Row::Pass) => {}
                    Ok(Row::More) => break,
                    Err(end) => {
                        self.forward(buffer, at).await?;
                        return Err(end);
                    }
                }
            } else if matches!(
                head.tag,
                b'E' | b'N' | b'Z' | b'C' | b'S' | b'I' | b's' | b'1' | b'2' | b'3' | b'G' | b'A'
            ) || self.session.metering.is_some() && matches!(head.tag, b'T' | b'n')
            {
                if !whole {
                    break;
                }
                if let Passage::Replace(instead) = self.answer(head, &rest[HEADER..head.total]) {
                    self.forward(buffer, at).await?;
                    self.write(&instead).await?;
                    buffer.consume(head.total);
                    at = 0;
                    continue;
                }
                ready |= head.tag == b'Z';
                draining |= head.tag == b'Z' && *self.cut.borrow() == Some(Cut::Drain);
            }
            if whole {
                at += head.total;
            } else {
                self.passing = head.total - rest.len();
                at += rest.len();
                break;
            }
        }
        self.forward(buffer, at).await?;
        if ready {
            self.session.flow().leaving = false;
            self.session.answered.notify_one();
        }
        if draining && self.session.flow().is_idle() {
            return Err(End::Cut(Cut::Drain, true));
        }
        if ready && self.session.may_release() && buffer.data().is_empty() {
            return Err(End::Released);
        }
        Ok(())
    }

    /// A row is about to pass.
    async fn row(&mut self, bytes: usize, there: &[u8], is_whole: bool) -> Result<Row, End> {
        let charge = {
            let mut flow = self.session.flow();
            let Some(current) = flow.current() else { return Ok(Row::Pass) };
            if let (Some(watch), Some(metering)) = (&mut current.watch, &self.session.metering) {
                match watch.row(there, is_whole, self.session, metering) {
                    Ok(Row::Pass) => {}
                    Ok(Row::More) => return Ok(Row::More),
                    Err(refusal) => return Err(End::Refused(*refusal, true)),
                }
            }
            current.rows += 1;
            current.bytes += bytes as u64;
            if current.charge.is_empty() {
                return Ok(Row::Pass);
            }
            current.charge.clone()
        };
        for (grant, cost) in charge {
            if !self.session.quota.take(grant, cost).await {
                if let Some(current) = self.session.flow().current() {
                    current.rows -= 1;
                    current.bytes -= bytes as u64;
                }
                let limited = self.session.quota.grant(grant);
                let (id, max) = (&limited.id, limited.max);
                let refusal = Refusal::new(
                    code::LIMIT_EXCEEDED,
                    format!("the row limit of grant {id} is used up ({max} rows)"),
                )
                .detail("The rest of the result was held back and the session is over.")
                .hint("Ask for a new grant with `ringfence request … --max-rows N`.");
                return Err(End::Refused(refusal, true));
            }
        }
        Ok(Row::Pass)
    }

    /// What rows are, of a statement or a portal. One that we asked for stays here.
    fn description(&self, is_rows: bool, body: &[u8]) -> Passage {
        let session = self.session;
        let relations = session.admission.relations();
        let mut flow = session.flow();
        let described = flow.described.pop_front();
        let is_next = !matches!(described, Some(Described::Theirs));
        if let Some(watch) = flow.current().and_then(|current| current.watch.as_mut()).filter(|_| is_next) {
            watch.describe(if is_rows { body } else { &[] }, &relations, session);
        }
        if described == Some(Described::Ours) { Passage::Replace(Vec::new()) } else { Passage::Forward }
    }

    /// An answer's end or an error.
    fn answer(&mut self, head: Head, body: &[u8]) -> Passage {
        let session = self.session;
        match head.tag {
            b'1' | b'2' | b'3' => match session.flow().confirm() {
                Confirmed::Pass => {}
                Confirmed::Ours => return Passage::Replace(Vec::new()),
                Confirmed::AsParse => return Passage::Replace(vec![b'1', 0, 0, 0, 4]),
            },
            b'S' => session.reported(body),
            b'C' | b'I' | b's' => {
                if session.changes_connections() && matches!(body, b"DISCARD ALL\0" | b"DEALLOCATE ALL\0") {
                    let mut flow = session.flow();
                    flow.deallocate_all();
                    flow.discarded |= body == b"DISCARD ALL\0";
                    flow.pinned &= !flow.discarded;
                }
                let is_deallocate = head.tag == b'C' && session.flow().deallocated();
                let over = session.flow().complete();
                if let Some(statement) = over {
                    session.conclude(statement, None);
                }
                if is_deallocate {
                    return Passage::Replace(stand_in::deallocated());
                }
            }
            b'G' => {
                session.flow().copy_begins();
                session.answered.notify_one();
            }
            b'Z' => {
                let (over, traffic) = {
                    let mut flow = session.flow();
                    (flow.ready(body.first().copied().unwrap_or(b'I')), std::mem::take(&mut flow.traffic))
                };
                session.shared.count(&session.store.name, traffic);
                for statement in over {
                    session.conclude(statement, None);
                }
                session.answered.notify_one();
                if !session.quota.is_empty() {
                    let quota = std::sync::Arc::clone(&session.quota);
                    tokio::spawn(async move { quota.give_back().await });
                }
            }
            b'T' | b'n' => return self.description(head.tag == b'T', body),
            b'A' => return self.notification(body),
            b'E' => return self.error(body),
            _ => {}
        }
        Passage::Forward
    }

    /// A session's own notification comes from the process that it takes for its own.
    fn notification(&self, body: &[u8]) -> Passage {
        let (real, told) = self.session.flow().process;
        match body.split_first_chunk::<4>() {
            Some((from, rest)) if real != told && i32::from_be_bytes(*from) == real => {
                let mut instead = Vec::with_capacity(body.len() + HEADER);
                frame::put(&mut instead, b'A', |out| {
                    out.extend_from_slice(&told.to_be_bytes());
                    out.extend_from_slice(rest);
                });
                Passage::Replace(instead)
            }
            _ => Passage::Forward,
        }
    }

    fn error(&mut self, body: &[u8]) -> Passage {
        let session = self.session;
        let sqlstate = field(body, b'C').unwrap_or_default();
        self.told_fatal |= matches!(field(body, b'V'), Some(b"FATAL" | b"PANIC"));
        let mut flow = session.flow();
        if let Some(refusal) = ours(body, &flow.refusals) {
            let mut instead = Vec::with_capacity(256);
            refusal.error(&mut instead);
            let code = refusal.code;
            flow.fail(code);
            return Passage::Replace(instead);
        }
        flow.fail(&String::from_utf8_lossy(sqlstate));
        if EXPLAINED.contains(&sqlstate)
            && let Some(instead) = flow.hint.as_deref().and_then(|hint| with_hint(body, hint))
        {
            return Passage::Replace(instead);
        }
        if session.changes_connections()
            && let Some(instead) = with_own_name(body, &flow)
        {
            return Passage::Replace(instead);
        }
        Passage::Forward
    }

    /// Lets the first `count` bytes of the buffer through.
    async fn forward(&mut self, buffer: &mut Buffer, count: usize) -> Result<(), End> {
        if count == 0 {
            return Ok(());
        }
        if self.session.metering.is_some() {
            let mut flow = self.session.flow();
            let ticket = flow.current().and_then(|current| self.session.record_new(current));
            flow.tickets.extend(ticket);
        }
        self.intents_durable().await?;
        let durable = self.session.shared.config.traces.is_some().then(SystemTime::now);
        if !self.within_frame {
            let mut notices = std::mem::take(&mut self.session.flow().notices);
            if let Some(metering) = &self.session.metering {
                metering.warn(&mut notices);
            }
            if !notices.is_empty() {
                self.write(&notices).await?;
            }
        }
        self.write(&buffer.data()[..count]).await?;
        self.within_frame = self.passing > 0;
        buffer.consume(count);
        if durable.is_some() {
            self.session.end_spans(durable);
        }
        Ok(())
    }

    /// Waits until everything that was announced is in the ledger.
    async fn intents_durable(&mut self) -> Result<(), End> {
        loop {
            let ticket = self.session.flow().tickets.pop_front();
            let Some(ticket) = ticket else { return Ok(()) };
            if let Err(e) = ticket.durable().await {
                return Err(End::Refused(unrecorded(&e), !self.within_frame));
            }
        }
    }

    /// Writes to the client; after a cut it has a moment to take what is under way.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.session.flow().traffic.sent += bytes.len() as u64;
        self.session.passed.sent(bytes.len() as u64);
        let client = &mut *self.client;
        let mut cut = self.cut.clone();
        tokio::select! {
            biased;
            written = async {
                client.write_all(bytes).await?;
                client.flush().await
            } => written.map_err(|_| End::Client),
            cut = async {
                let cut = loop {
                    match next_cut(&mut cut).await {
                        Cut::Drain => {}
                        other => break other,
                    }
                };
                tokio::time::sleep(GRACE).await;
                cut
            } => Err(End::Cut(cut, false)),
        }
    }
}

/// An error whose text has the shared name of a statement, with the client's own.
fn with_own_name(body: &[u8], flow: &Flow) -> Option<Vec<u8>> {
    let message = std::str::from_utf8(field(body, b'M')?).ok()?;
    let quoted = message.split('"').find(|part| part.starts_with(SHARED))?;
    let own = flow.own_name(quoted[SHARED.len()..].parse().ok()?)?;
    let own = message.replacen(quoted, own, 1);
    let mut out = Vec::with_capacity(body.len() + own.len());
    frame::put(&mut out, b'E', |out| {
        for (code, text) in frame::fields(body) {
            out.push(code);
            out.extend_from_slice(if code == b'M' { own.as_bytes() } else { text });
            out.push(0);
        }
        out.push(0);
    });
    Some(out)
}

/// The refusal that an error of the store stands for.
fn ours<'a>(body: &[u8], refusals: &'a [(u64, Refusal)]) -> Option<&'a Refusal> {
    if refusals.is_empty() || field(body, b'C') != Some(code::SYNTAX_ERROR.as_bytes()) {
        return None;
    }
    let message = std::str::from_utf8(field(body, b'M')?).ok()?;
    let (_, rest) = message.split_once(REFUSED)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let number: u64 = digits.parse().ok()?;
    refusals.iter().find(|(n, _)| *n == number).map(|(_, refusal)| refusal)
}
