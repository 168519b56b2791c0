//! From the store to the client: byte for byte, in the pieces in which it came, once the intents behind it
//! are durable ([`crate::relay::exit`]).
//!
//! Only the fronts of frames are looked at. Rows are counted, not decoded. Replaced are: the errors that
//! stand for our own refusals; texts that could show a governed or metered client a value past its limits
//! ([`crate::relay::error_fields`]); and errors about a missing column or right, which get a hint how to
//! ask.

use std::collections::HashSet;
use std::sync::PoisonError;

use ringfence_statement::words;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::flow::{Confirmed, Described, Flow, InFlight};
use crate::frame::{self, Body, Buffer, HEADER, Head, MAX_FRAME, put};
use crate::grants::Cut;
use crate::metering::{Row, Watch};
use crate::quota::Charges;
use crate::refusal::{Refusal, code, field, with_hint};
use crate::relay::cuts::{Deadline, expiry, next_cut, over};
use crate::relay::error_fields::{self, Judged};
use crate::relay::exit::{Exit, Shut};
use crate::relay::statement::SHARED;
use crate::session::{End, Session};
use crate::stand_in::{self, REFUSED};

/// The most values of reported parameters that a session remembers its client has had.
const MOST_SHOWN: usize = 1000;
/// Errors that the way to ask may help with: no such column, no such table, no right, no such function.
const EXPLAINED: &[&[u8]] = &[b"42703", b"42P01", b"42501", b"42883"];

struct Side<'a, W> {
    session: &'a Session,
    exit: Exit<'a, Session, W>,
    cut: &'a mut watch::Receiver<Option<Cut>>,
    deadline: Option<&'a Deadline>,
    /// Bytes of the current frame that are still to come and need no look.
    passing: usize,
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
    let exit = Exit::new(session, client, cut.clone(), deadline);
    let mut side = Side { session, exit, cut, deadline, passing: 0, told_fatal: false };
    loop {
        if let Err(end) = side.drain(buffer).await {
            return end;
        }
        let between = !side.exit.is_within_frame();
        tokio::select! {
            biased;
            cut = next_cut(side.cut) => match cut {
                // A session in the middle of something may finish it first.
                Cut::Drain if !session.flow().is_idle() => {}
                cut => return End::Cut(cut, between),
            },
            cut = expiry(deadline) => return End::Cut(cut, between),
            // After COPY data that came later than its answer.
            () = session.whole.notified() => {
                let is_free = session.flow().is_idle() && buffer.data().is_empty() && between;
                if is_free && *side.cut.borrow() == Some(Cut::Drain) {
                    return End::Cut(Cut::Drain, true);
                }
                if is_free && session.may_release() {
                    return End::Released;
                }
            }
            read = buffer.fill(store) => match read {
                Ok(0) | Err(_) => return End::Store { told: side.told_fatal },
                Ok(_) => {}
            },
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
                if let Err(end) = self.count_again(false).await {
                    self.forward(buffer, at).await?;
                    return Err(end);
                }
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
                // A notice can come before the store has begun, and is no answer.
                let is_of_answer = matches!(head.tag, b'C' | b's' | b'I')
                    || head.tag == b'E' && !self.session.flow().is_before_rows();
                if is_of_answer && let Err(end) = self.count_again(true).await {
                    self.forward(buffer, at).await?;
                    return Err(end);
                }
                match head.tag {
                    // What it answers was not asked: nobody can say any more whose the answers are.
                    b'Z' if self.session.flow().unready == 0 => {
                        self.forward(buffer, at).await?;
                        return Err(End::Refused(out_of_step(), true));
                    }
                    b'Z' if self.session.flow().unseen.is_some() => {
                        let session = self.session;
                        let counted = self.unless_cut(Box::pin(session.count_unseen())).await;
                        let counted = counted.and_then(|done| done.map_err(|e| End::Refused(e, true)));
                        if let Err(end) = counted {
                            self.forward(buffer, at).await?;
                            return Err(end);
                        }
                    }
                    b'E' => {
                        if let Err(end) = self.charge_error().await {
                            self.forward(buffer, at).await?;
                            return Err(end);
                        }
                    }
                    b'C' => {
                        let ended = self.ended(&rest[HEADER..head.total]).await;
                        if let Err(end) = ended {
                            self.forward(buffer, at).await?;
                            return Err(end);
                        }
                    }
                    _ => {}
                }
                if let Passage::Replace(instead) = self.answer(head, &rest[HEADER..head.total]) {
                    self.forward(buffer, at).await?;
                    self.pass(&instead, false).await?;
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
        let is_answered = {
            let mut flow = self.session.flow();
            flow.leaving &= !ready;
            ready || flow.unready == 0 && (flow.is_answered() || flow.is_skipping())
        };
        if is_answered {
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

    /// Does something that may take its time, unless the session is over from outside before.
    async fn unless_cut<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        let between = !self.exit.is_within_frame();
        let mut cut = self.cut.clone();
        tokio::select! {
            biased;
            cut = over(&mut cut, self.deadline) => Err(End::Cut(cut, between)),
            done = work => Ok(done),
        }
    }

    /// The first answer of a part of a statement came, or its end: what of it has no bound is counted again, as the
    /// store shows it now. At its end that is done once more where functions of others may have looked at the rows
    /// again meanwhile.
    async fn count_again(&mut self, is_end: bool) -> Result<(), End> {
        match self.what_to_count_again(is_end) {
            // Boxed: it is seldom, and large.
            Some(what) => Box::pin(self.count_these_again(what)).await,
            None => Ok(()),
        }
    }

    fn what_to_count_again(&self, is_end: bool) -> Option<(Option<u64>, Charges, Watch)> {
        let session = self.session;
        if session.quota.is_empty() && session.metering.is_none() {
            return None;
        }
        let mut flow = session.flow();
        let current = flow.current()?;
        let part = current.parts_ended;
        let again = current.again.as_mut()?;
        let is_of_part = again.parts >> part.min(63) & 1 == 1;
        if !is_of_part || again.last.replace(part) == Some(part) && !(is_end && again.at_end) {
            return None;
        }
        let watch = again.watch.unbounded();
        Some((current.number, current.charges.clone(), watch))
    }

    async fn count_these_again(
        &mut self,
        (number, mut charges, mut watch): (Option<u64>, Charges, Watch),
    ) -> Result<(), End> {
        let session = self.session;
        let mut counted = Ok(());
        for charge in &mut charges {
            counted = self.unless_cut(session.quota.count_again(charge)).await?;
            if counted.is_err() {
                break;
            }
        }
        if let Some(current) = session.flow().current() {
            current.charges = charges;
        }
        if let Err(refusal) = counted {
            return Err(End::Refused(refusal, true));
        }
        let mut counted = Ok(());
        if !watch.is_empty() {
            counted = self.unless_cut(session.count_all_patiently(&mut watch, number)).await?;
        }
        counted.map_err(|refusal| End::Refused(refusal, true))
    }

    /// A row is about to pass.
    async fn row(&mut self, bytes: usize, there: &[u8], is_whole: bool) -> Result<Row, End> {
        let (mut charges, part) = {
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
            if current.charges.is_empty() {
                return Ok(Row::Pass);
            }
            // A copy: if the client leaves while rows are leased, the outcome still says what was charged.
            (current.charges.clone(), current.parts_ended)
        };
        let charged = self.charge(&mut charges, part, 1).await;
        let mut flow = self.session.flow();
        if let Some(current) = flow.current() {
            current.charges = charges;
            if charged.is_err() {
                current.rows -= 1;
                current.bytes -= bytes as u64;
            }
        }
        charged.map(|()| Row::Pass)
    }

    /// Charges rows of the result of statement `part`.
    async fn charge(&mut self, charges: &mut Charges, part: usize, rows: u64) -> Result<(), End> {
        let session = self.session;
        let mut charged = Ok(());
        for charge in charges {
            charged = match self.unless_cut(session.quota.rows(charge, part, rows)).await {
                Ok(done) => charged.and(done.map_err(|refusal| End::Refused(refusal, true))),
                Err(cut) => Err(cut),
            };
        }
        charged
    }

    /// An error of a statement that reads under a row limit can depend on rows, as a row of its result
    /// does.
    async fn charge_error(&mut self) -> Result<(), End> {
        let session = self.session;
        let (mut charges, part) = {
            let mut flow = self.session.flow();
            if flow.is_before_rows() {
                return Ok(());
            }
            let of = |current: &mut InFlight| (current.charges.clone(), current.parts_ended);
            flow.current().map(of).unwrap_or_default()
        };
        let mut charged = Ok(());
        for charge in &mut charges {
            charged = charged.and(self.unless_cut(session.quota.error(charge, part)).await);
        }
        if let Some(current) = self.session.flow().current() {
            current.charges = charges;
        }
        charged
    }

    /// A statement of a text has ended. MOVE gives no row, and its tag says over how many it has passed:
    /// that costs as much as the rows.
    async fn ended(&mut self, tag: &[u8]) -> Result<(), End> {
        let session = self.session;
        if session.quota.is_empty() && session.metering.is_none() {
            return Ok(());
        }
        let moved = moved(tag);
        let (mut charges, part) = {
            let mut flow = session.flow();
            let Some(current) = flow.current() else { return Ok(()) };
            let part = current.parts_ended;
            if let (Some(watch), Some(metering), 1..) = (&mut current.watch, &session.metering, moved) {
                watch
                    .count_moved(moved, session, metering)
                    .map_err(|refusal| End::Refused(*refusal, true))?;
            }
            if current.charges.is_empty() {
                return Ok(());
            }
            if moved == 0 {
                current.charges.iter_mut().for_each(|charge| charge.ended(part, tag));
                return Ok(());
            }
            (current.charges.clone(), part)
        };
        let charged = self.charge(&mut charges, part, moved).await;
        if let Some(current) = session.flow().current() {
            current.charges = charges;
        }
        charged
    }

    /// What rows are, of a statement or a portal. One that we asked for stays here.
    fn description(&self, is_rows: bool, body: &[u8]) -> Passage {
        let session = self.session;
        let relations = session.admission.relations();
        let mut flow = session.flow();
        let described = flow.is_described();
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
            b'S' => {
                session.reported(body);
                return self.parameter(body);
            }
            b'N' => return self.notice(body),
            b'C' | b'I' | b's' => {
                if head.tag == b'C' && body == b"DISCARD ALL\0" {
                    session.flow().settings_are_discarded();
                }
                if session.changes_connections() && matches!(body, b"DISCARD ALL\0" | b"DEALLOCATE ALL\0") {
                    session.flow().discarded(body == b"DISCARD ALL\0");
                }
                let is_deallocate = head.tag == b'C' && session.flow().deallocates_shared();
                let over = session.flow().complete(body);
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
                let (over, traffic, may_have_defined) = {
                    let mut flow = session.flow();
                    let over = flow.ready(body.first().copied().unwrap_or(b'I'));
                    let may_have_defined = std::mem::take(&mut flow.may_have_defined);
                    (over, std::mem::take(&mut flow.traffic), may_have_defined)
                };
                if let (true, Some((store, _))) = (may_have_defined, &session.code) {
                    store.defined();
                }
                session.shared.count(&session.store.name, traffic);
                for mut statement in over {
                    if statement.is_skipped {
                        session.quota.take_back(&statement.charges);
                        statement.charges.clear();
                    }
                    session.conclude(statement, None);
                }
                session.answered.notify_one();
                if !session.quota.is_empty() {
                    tokio::spawn(session.quota.give_back());
                }
            }
            b'T' | b'n' => return self.description(head.tag == b'T', body),
            b'A' => return self.notification(body),
            b'E' => return self.error(body),
            _ => {}
        }
        Passage::Forward
    }

    /// A session's own notification comes from the process that it takes for its own. What a governed or
    /// metered client is sent has no payload: a payload is free text, and no statement stands behind it.
    fn notification(&self, body: &[u8]) -> Passage {
        let (real, told) = self.session.flow().process;
        let Some((from, rest)) = body.split_first_chunk::<4>() else { return Passage::Forward };
        let from = i32::from_be_bytes(*from);
        let is_own = real != told && from == real;
        let is_governed = self.session.is_governed();
        if !is_own && !is_governed {
            return Passage::Forward;
        }
        let mut instead = Vec::with_capacity(body.len() + HEADER);
        put(&mut instead, b'A', |out| {
            out.extend_from_slice(&if is_own { told } else { from }.to_be_bytes());
            let channel = rest.iter().position(|b| *b == 0).map_or(rest, |end| &rest[..=end]);
            out.extend_from_slice(if is_governed { channel } else { rest });
            if is_governed {
                out.push(0);
            }
        });
        Passage::Replace(instead)
    }

    /// A parameter that a governed or metered client's statement has set passes if its value stands in
    /// the client's own text.
    fn parameter(&self, body: &[u8]) -> Passage {
        if !self.session.is_governed() {
            return Passage::Forward;
        }
        let mut rest = Body(body);
        let (Some(name), Some(value)) = (rest.string(), rest.string()) else { return Passage::Forward };
        let shown = &mut *self.session.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let known = (name.to_owned(), value.to_owned());
        let is_old = shown.contains(&known) || self.session.began_with(name).as_deref() == Some(value);
        if is_old || error_fields::parameter_passes(name, value, &self.words()) {
            // A client that sets many values waits no longer for one that it had before.
            if shown.len() >= MOST_SHOWN {
                shown.clear();
            }
            shown.insert(known);
            Passage::Forward
        } else {
            Passage::Replace(Vec::new())
        }
    }

    fn notice(&self, body: &[u8]) -> Passage {
        if !self.session.is_governed() {
            return Passage::Forward;
        }
        let is_before_rows = {
            let mut flow = self.session.flow();
            let is_before_rows = flow.is_before_rows();
            // That a notice comes can depend on a row, whatever it says; and no row costs for it.
            if !is_before_rows && flow.quotable().any(|statement| statement.analysis.may_read()) {
                return Passage::Replace(Vec::new());
            }
            is_before_rows
        };
        match self.judge(b'N', body, is_before_rows) {
            Judged::Whole => Passage::Forward,
            Judged::Sentence(instead) | Judged::Reduced(instead) => Passage::Replace(instead),
        }
    }

    fn judge(&self, tag: u8, body: &[u8], is_before_rows: bool) -> Judged {
        // An error at the end of a batch or a transaction belongs to no statement that could count it: it repeats
        // no constant.
        let (is_counted, texts) = {
            let mut flow = self.session.flow();
            // So may one of a cursor WITH HOLD that a commit runs which nobody wrote.
            let has_held = !flow.names.held_by_commit().is_empty();
            let is_of = flow.current().is_some_and(|current| !has_held || current.commits);
            (is_before_rows || tag != b'E' || is_of, flow.quotable().cloned().collect::<Vec<_>>())
        };
        let words = if is_counted { self.words() } else { HashSet::new() };
        let texts: Vec<&str> = texts.iter().map(|statement| &*statement.text).collect();
        error_fields::judge(tag, body, is_before_rows, &texts, &words)
    }

    /// The names and constants that the client knows: those of its statement, and what its face shows.
    fn words(&self) -> HashSet<String> {
        let session = self.session;
        let mut words = session.names_shown();
        let (texts, parameters) = {
            let flow = session.flow();
            (flow.quotable().cloned().collect::<Vec<_>>(), flow.quotable_parameters())
        };
        for statement in &texts {
            words::collect(&statement.text, statement.settings, &mut words);
        }
        for parameter in parameters.iter().flat_map(|all| all.iter()) {
            words.insert(parameter.to_string());
        }
        words
    }

    fn error(&mut self, body: &[u8]) -> Passage {
        let session = self.session;
        let sqlstate = field(body, b'C').unwrap_or_default();
        self.told_fatal |= matches!(field(body, b'V'), Some(b"FATAL" | b"PANIC"));
        let mut flow = session.flow();
        // What is prepared in the connection is not what the gateway takes it for, or not of use any more.
        flow.must_reset |= session.changes_connections() && matches!(sqlstate, b"0A000" | b"26000");
        if let Some(refusal) = ours(body, &flow.refusals) {
            let mut instead = Vec::with_capacity(256);
            refusal.error(&mut instead);
            let code = refusal.code;
            flow.fail(code);
            return Passage::Replace(instead);
        }
        let is_before_rows = flow.is_before_rows()
            // Parameters are read before anything is planned.
            || session.is_face()
                && flow.is_before_execution()
                && (field(body, b'W').is_some_and(error_fields::is_of_parameter)
                    || field(body, b'R') == Some(b"exec_bind_message"));
        flow.fail(&String::from_utf8_lossy(sqlstate));
        if session.is_governed() {
            drop(flow);
            let judged = self.judge(b'E', body, is_before_rows);
            if matches!(judged, Judged::Sentence(_)) {
                self.count_error();
            }
            flow = session.flow();
            if let Judged::Sentence(instead) | Judged::Reduced(instead) = judged {
                let hint = flow.hint.as_deref().filter(|_| EXPLAINED.contains(&sqlstate));
                let hinted = hint.and_then(|hint| with_hint(&instead[HEADER..], hint));
                return Passage::Replace(hinted.unwrap_or(instead));
            }
        }
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

    /// An error that repeats a constant of the client's own text says that a value equals it: it counts as
    /// a row does that shows no person's key. A limit of the meter does not hold it back: the constant is the
    /// client's.
    fn count_error(&self) {
        let mut flow = self.session.flow();
        let Some(current) = flow.current() else { return };
        if let (Some(watch), Some(metering)) = (&mut current.watch, &self.session.metering) {
            watch.count_unknown(self.session, metering);
        }
    }

    /// Lets the first `count` bytes of the buffer through.
    async fn forward(&mut self, buffer: &mut Buffer, count: usize) -> Result<(), End> {
        if count > 0 {
            self.pass(&buffer.data()[..count], self.passing > 0).await?;
            buffer.consume(count);
        }
        Ok(())
    }

    async fn pass(&mut self, bytes: &[u8], ends_within_frame: bool) -> Result<(), End> {
        let between = !self.exit.is_within_frame();
        self.exit.pass(bytes, ends_within_frame).await.map_err(|shut| match shut {
            Shut::Client => End::Client,
            Shut::Cut(cut) => End::Cut(cut, false),
            Shut::Over(cut) => End::Cut(cut, between),
            Shut::Unrecorded(refusal) => End::Refused(refusal, between),
        })
    }
}

fn out_of_step() -> Refusal {
    Refusal::new(
        code::CONNECTION_FAILURE,
        "the store and the gateway are out of step, so this session is over",
    )
    .hint("Connect again. If it comes again, report what was sent.")
}

/// How many rows a MOVE has passed over, by its tag; 0 for any other tag.
fn moved(tag: &[u8]) -> u64 {
    let count = tag.strip_prefix(b"MOVE ").and_then(|rest| rest.strip_suffix(b"\0"));
    count.and_then(|count| std::str::from_utf8(count).ok()?.parse().ok()).unwrap_or(0)
}

/// An error whose text has the shared name of a statement, with the client's own.
fn with_own_name(body: &[u8], flow: &Flow) -> Option<Vec<u8>> {
    let message = std::str::from_utf8(field(body, b'M')?).ok()?;
    let quoted = message.split('"').find(|part| part.starts_with(SHARED))?;
    let own = flow.own_name(quoted[SHARED.len()..].parse().ok()?)?;
    let own = message.replacen(quoted, own, 1);
    let mut out = Vec::with_capacity(body.len() + own.len());
    put(&mut out, b'E', |out| {
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
