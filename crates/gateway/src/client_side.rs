//! From the client to the store. Frames go on as they came; before one that runs a statement, its intent is handed to the
//! ledger. What is refused is replaced by something that the store itself answers with an error, in its turn: so answers
//! stay in order and a refusal aborts a transaction as any error does; the other side puts our text in its place.

use std::sync::Arc;

use ringfence_ledger::{Entry, Kind};
use ringfence_statement::reach::Reach;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::flow::{Described, Flow, InFlight, Portal, Prepared, Statement};
use crate::frame::{self, Body, Buffer, HEADER, MAX_FRAME, put, put_str};
use crate::pin::deallocated;
use crate::records::{IntentRecord, parameters};
use crate::refusal::{Refusal, code};
use crate::session::{End, Mode, Session};
use crate::stand_in;
use crate::statement::Verdict;

/// The largest frame of a governed person: their statements are short, their parameters shorter.
const MAX_GOVERNED_FRAME: usize = 1 << 20;
/// The most prepared statements and portals of a session.
const MAX_NAMES: usize = 10_000;
/// The longest statement text in a record; the digest of a longer one would say less than its beginning.
const MAX_RECORDED: usize = 256 * 1024;

struct Side<'a, W> {
    session: &'a Session,
    store: &'a mut W,
    /// What goes to the store before what is in the buffer.
    out: Vec<u8>,
    /// How many bytes at the buffer's front go to the store as they are.
    passing: usize,
    /// After a refusal in a batch the store skips to Sync; so do we.
    skipping: bool,
}

/// What the store waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The next batch.
    Batch,
    /// COPY data.
    CopyData,
}

/// What becomes of a frame.
enum Passage {
    /// It goes on as it is.
    Forward,
    /// This goes on in its place.
    Replace(Vec<u8>),
    /// This goes on before it.
    Precede(Vec<u8>),
}

/// Runs until the client leaves or breaks the protocol.
pub async fn run<R, W>(session: &Session, client: &mut R, buffer: &mut Buffer, store: &mut W) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut side = Side { session, store, out: Vec::new(), passing: 0, skipping: false };
    match side.run(client, buffer).await {
        Ok(end) => end,
        Err(error) => failed(&error),
    }
}

/// How a session ends whose client cannot be read.
pub fn failed(error: &std::io::Error) -> End {
    if error.kind() == std::io::ErrorKind::InvalidData {
        let refusal = Refusal::new(code::PROTOCOL_VIOLATION, error.to_string());
        return End::Refused(
            refusal.hint("The client does not speak PostgreSQL's protocol 3 correctly."),
            true,
        );
    }
    End::Client
}

fn invalid(what: impl std::fmt::Display) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_string())
}

/// The largest frame that a session's client may send.
pub fn max_frame(session: &Session) -> usize {
    if session.is_face() { MAX_GOVERNED_FRAME } else { MAX_FRAME }
}

impl<W: AsyncWrite + Unpin> Side<'_, W> {
    async fn run<R: AsyncRead + Unpin>(
        &mut self,
        client: &mut R,
        buffer: &mut Buffer,
    ) -> std::io::Result<End> {
        let max = max_frame(self.session);
        loop {
            let rest = &buffer.data()[self.passing..];
            let head = frame::head(rest, max).map_err(invalid)?;
            let Some(head) = head.filter(|h| h.tag == b'd' || rest.len() >= h.total) else {
                self.flush(buffer).await?;
                let count = buffer.fill(client).await?;
                if count == 0 {
                    return Ok(End::Client);
                }
                self.session.flow().traffic.received += count as u64;
                continue;
            };
            if head.tag == b'd' {
                self.copy_data(head.total, client, buffer).await?;
                continue;
            }
            if head.tag == b'X' {
                // What was sent before runs, and its answer leaves.
                while self.batch_answered(buffer).await? == Turn::Batch && self.session.flow().leaving {
                    self.session.answered.notified().await;
                }
                return Ok(End::Client);
            }
            if matches!(head.tag, b'c' | b'f') {
                self.session.flow().copy_ends();
            } else if self.batch_answered(buffer).await? == Turn::CopyData {
                let instead = stand_in::out_of_turn(head.tag);
                self.settle(buffer, &instead);
                buffer.consume(head.total);
                continue;
            }
            let whole = &buffer.data()[self.passing..][..head.total];
            let passage = match self.frame(head.tag, whole).await {
                // The store tells best what is wrong with a message that runs nothing.
                Err(e)
                    if self.session.mode == Mode::Counted && e.kind() == std::io::ErrorKind::InvalidData =>
                {
                    if head.tag == b'Q' {
                        self.session.flow().begin(InFlight::new(None, true, None, Vec::new()));
                    }
                    Passage::Forward
                }
                passage => passage?,
            };
            match passage {
                Passage::Forward => self.passing += head.total,
                Passage::Replace(instead) => {
                    self.settle(buffer, &instead);
                    buffer.consume(head.total);
                }
                Passage::Precede(before) => {
                    self.settle(buffer, &before);
                    self.passing = head.total;
                }
            }
            if self.out.len() + self.passing > 32 * 1024 {
                self.flush(buffer).await?;
            }
        }
    }

    /// Puts what passes, and something of our own after it, before the rest of the buffer.
    fn settle(&mut self, buffer: &mut Buffer, own: &[u8]) {
        self.out.extend_from_slice(&buffer.data()[..self.passing]);
        buffer.consume(self.passing);
        self.passing = 0;
        self.out.extend_from_slice(own);
    }

    async fn flush(&mut self, buffer: &mut Buffer) -> std::io::Result<()> {
        if !self.out.is_empty() {
            self.settle(buffer, &[]);
            self.store.write_all(&self.out).await?;
            self.out = Vec::new();
        } else if self.passing > 0 {
            self.store.write_all(&buffer.data()[..self.passing]).await?;
            buffer.consume(self.passing);
            self.passing = 0;
        } else {
            return Ok(());
        }
        self.store.flush().await
    }

    /// COPY data goes on as it comes, however long its frame is.
    async fn copy_data<R: AsyncRead + Unpin>(
        &mut self,
        mut left: usize,
        client: &mut R,
        buffer: &mut Buffer,
    ) -> std::io::Result<()> {
        loop {
            let have = left.min(buffer.data().len() - self.passing);
            self.passing += have;
            left -= have;
            if self.passing > 32 * 1024 {
                self.flush(buffer).await?;
            }
            if left == 0 {
                return Ok(());
            }
            self.flush(buffer).await?;
            let count = buffer.fill(client).await?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.session.flow().traffic.received += count as u64;
        }
    }

    /// Waits until the store has answered the batch before, or wants COPY data.
    async fn batch_answered(&mut self, buffer: &mut Buffer) -> std::io::Result<Turn> {
        let turn = |flow: &Flow| match flow {
            Flow { copying: true, .. } => Some(Turn::CopyData),
            Flow { unready: 0, .. } => Some(Turn::Batch),
            _ => None,
        };
        if let Some(turn) = turn(&self.session.flow()) {
            return Ok(turn);
        }
        self.flush(buffer).await?;
        loop {
            let answered = self.session.answered.notified();
            if let Some(turn) = turn(&self.session.flow()) {
                return Ok(turn);
            }
            answered.await;
        }
    }

    async fn frame(&mut self, tag: u8, whole: &[u8]) -> std::io::Result<Passage> {
        let body = &whole[HEADER..];
        if self.skipping && tag != b'S' && tag != b'Q' {
            return Ok(Passage::Replace(Vec::new()));
        }
        if !matches!(tag, b'Q' | b'S' | b'c' | b'f') {
            self.session.flow().unsynced = true;
        }
        if tag != b'E' && self.session.metering.is_some() {
            self.session.flow().just_described = None;
        }
        match tag {
            b'Q' => self.query(Body(body)).await,
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'E' => self.execute(body).await,
            b'C' => self.close(body),
            b'S' => {
                self.skipping = false;
                self.session.flow().sync();
                Ok(Passage::Forward)
            }
            b'D' => self.describe(body),
            b'H' | b'c' | b'f' => Ok(Passage::Forward),
            b'F' => Ok(self.function_call()),
            other => Err(invalid(format!("invalid frontend message type {other}"))),
        }
    }

    /// The text of a statement: UTF-8 for governed persons, whatever the client's encoding is for others.
    fn text<'b>(&self, body: &mut Body<'b>) -> Result<std::borrow::Cow<'b, str>, Option<Refusal>> {
        let end = body.0.iter().position(|&b| b == 0).ok_or(None)?;
        let (text, rest) = body.0.split_at(end);
        body.0 = &rest[1..];
        if self.session.is_face() && std::str::from_utf8(text).is_err() {
            return Err(Some(Refusal::new(code::SYNTAX_ERROR, "the statement is not valid UTF-8")));
        }
        Ok(String::from_utf8_lossy(text))
    }

    fn read(&self, text: &str) -> Statement {
        let verdict = self.session.is_face().then(|| self.session.shared.statements.judge(text));
        let deallocates = self.session.changes_connections().then(|| deallocated(text)).flatten();
        let deallocates = deallocates.filter(|name| self.session.flow().is_shared(name)).map(Into::into);
        let reach = self.session.metering.as_ref().map(|_| self.session.shared.meter.reach(text));
        Statement { text: text.into(), verdict, reach, prepared: None, deallocates }
    }

    async fn query(&mut self, mut body: Body<'_>) -> std::io::Result<Passage> {
        self.skipping = false;
        let text = match self.text(&mut body) {
            Ok(text) if body.0.is_empty() => text,
            Err(Some(refusal)) => return Ok(self.refuse_query(&refusal, None)),
            _ => return Err(invalid("a malformed Query message")),
        };
        let statement = Arc::new(self.read(&text));
        match self.admit(&statement, true, &[], None).await {
            Ok(mut in_flight) => {
                let mut flow = self.session.flow();
                in_flight.deallocates.clone_from(&statement.deallocates);
                flow.begin(in_flight);
                Ok(match statement.deallocates {
                    Some(_) => Passage::Replace(stand_in::query(stand_in::DEALLOCATE)),
                    None => Passage::Forward,
                })
            }
            Err(refusal) => Ok(self.refuse_query(&refusal, Some(&statement.text))),
        }
    }

    /// Judges, charges and announces a statement; what comes back is ready to run.
    async fn admit(
        &mut self,
        statement: &Statement,
        simple: bool,
        parameters: &[Box<str>],
        number: Option<u64>,
    ) -> Result<InFlight, Refusal> {
        let session = self.session;
        let traced = session.shared.config.traces.as_ref().and_then(|traces| traces.begin(&statement.text));
        session.note_pins(&statement.text);
        if let Mode::Counted = session.mode {
            let (principal, store) = (&session.principal.name, &session.store);
            let counting = &session.shared.counting;
            let shape = counting.began(principal, &store.name, &store.jurisdiction, &statement.text);
            return Ok(InFlight { traced, ..InFlight::new(None, simple, Some(shape), Vec::new()) });
        }
        if let Some(verdict) = &statement.verdict {
            if let Some(refused) = &verdict.refused {
                return Err(refused.clone());
            }
            if simple {
                session.explain(verdict);
            }
            if !session.quota.is_empty() {
                session.quota.fold(verdict).await?;
            }
        }
        let charge = session.quota.charge(statement.verdict.as_deref());
        let reach = statement.reach.as_deref();
        let mut watch = reach.and_then(|reach| Some((session.watch(reach)?, reach)));
        let mut folded = Vec::new();
        if let Some((watch, _)) = watch.as_mut().filter(|(_, reach)| reach.folds) {
            folded = session.fold_people(watch).await?;
        }
        let number = match number {
            Some(number) => number, // a portal that goes on
            None => self.announce(&statement.text, parameters)?,
        };
        let ticket = session.record_groups(number, folded);
        session.flow().tickets.extend(ticket);
        let mut in_flight = InFlight::new(Some(number), simple, None, charge);
        in_flight.watch = watch.map(|(watch, _)| Box::new(watch));
        in_flight.traced = traced;
        Ok(in_flight)
    }

    /// Hands the intent to the ledger. The answer will not pass before it is durable.
    fn announce(&mut self, text: &str, parameters: &[Box<str>]) -> Result<u64, Refusal> {
        let session = self.session;
        session.shared.ledger.healthy().map_err(|e| unrecorded(&e))?;
        if session.crossing.is_some() {
            session
                .shared
                .border
                .is_open_to(&session.shared, &session.store.jurisdiction)
                .map_err(|cut| cut.refusal())?;
        }
        let mut flow = session.flow();
        let n = flow.number();
        let statement = truncate(text, MAX_RECORDED);
        let record = IntentRecord {
            session: &session.id,
            n,
            principal: &session.principal.name,
            store: &session.store.name,
            statement,
            parameters,
        };
        let entry = Entry::new(Kind::Intent, &session.store.jurisdiction, &record);
        let ticket = session.shared.ledger.append_batched(entry.crossing(session.crossing.as_ref()));
        flow.tickets.push_back(ticket);
        Ok(n)
    }

    /// Puts something in a refused statement's place that the store answers with an error in its turn.
    fn refused_text(&mut self, refusal: &Refusal) -> String {
        let mut flow = self.session.flow();
        let n = flow.number();
        flow.refusals.push((n, refusal.clone()));
        format!("{}{n}", stand_in::REFUSED)
    }

    fn refuse_query(&mut self, refusal: &Refusal, statement: Option<&str>) -> Passage {
        self.session.refused(&refusal.message, statement.map(|t| truncate(t, MAX_RECORDED)));
        let text = self.refused_text(refusal);
        self.session.flow().begin(InFlight::new(None, true, None, Vec::new()));
        Passage::Replace(stand_in::query(&text))
    }

    fn refuse_in_batch(&mut self, refusal: &Refusal, text: Option<&str>) -> Passage {
        self.session.refused(&refusal.message, text.map(|t| truncate(t, MAX_RECORDED)));
        self.fail_in_batch(refusal)
    }

    /// Makes the store answer with an error here, which the other side replaces by `refusal`.
    fn fail_in_batch(&mut self, refusal: &Refusal) -> Passage {
        let text = self.refused_text(refusal);
        self.skipping = true;
        Passage::Replace(stand_in::parse(&text))
    }

    fn parse(&mut self, body: &[u8]) -> std::io::Result<Passage> {
        let mut body = Body(body);
        let name = body.string().ok_or_else(|| invalid("a malformed Parse message"))?;
        let definition = body.0;
        let text = match self.text(&mut body) {
            Ok(text) => text,
            Err(Some(refusal)) => return Ok(self.refuse_in_batch(&refusal, None)),
            Err(None) => return Err(invalid("a malformed Parse message")),
        };
        if self.session.flow().names() > MAX_NAMES {
            let refusal = Refusal::new(code::LIMIT_EXCEEDED, "too many prepared statements in this session");
            return Ok(self.refuse_in_batch(&refusal.hint("Close those that are no longer needed."), None));
        }
        let statement = self.read(&text);
        if let Some(refused) = statement.verdict.as_ref().and_then(|v| v.refused.as_ref()) {
            let refused = refused.clone();
            return Ok(self.refuse_in_batch(&refused, Some(&text)));
        }
        if let Some(verdict) = &statement.verdict {
            self.session.explain(verdict);
        }
        if self.session.changes_connections() {
            if statement.deallocates.is_some() {
                let definition = [stand_in::DEALLOCATE.as_bytes(), b"\0", body.0].concat();
                return Ok(self.parse_shared(name, statement, &definition));
            }
            return Ok(self.parse_shared(name, statement, definition));
        }
        self.session.flow().parse(name, Arc::new(statement));
        Ok(Passage::Forward)
    }

    /// Parse where connections change: a named statement gets a shared name; a connection that has it need not see it.
    fn parse_shared(&mut self, name: &str, mut statement: Statement, definition: &[u8]) -> Passage {
        let names = &self.session.shared.shared_names;
        let named = !name.is_empty();
        if named && self.session.flow().statement(name).is_some() {
            let message = format!("prepared statement \"{name}\" already exists");
            return self.fail_in_batch(&Refusal::new(code::DUPLICATE_STATEMENT, message));
        }
        let number = if named { names.number(definition) } else { names.fresh() };
        let prepared = Prepared { number, named, definition: definition.into() };
        let parse = (named || statement.deallocates.is_some()).then(|| stand_in::prepare(&prepared));
        let mut flow = self.session.flow();
        let known = named && flow.is_on_connection(&prepared);
        statement.prepared = Some(prepared);
        if known {
            flow.parse_known(name, Arc::new(statement));
            return Passage::Replace(stand_in::close_nothing());
        }
        flow.parse(name, Arc::new(statement));
        parse.map_or(Passage::Forward, Passage::Replace)
    }

    /// Finds what a client's name stands for where connections change; before, the Parse for a connection that has not seen
    /// it. `Err` if there is no such statement.
    fn on_connection(&mut self, name: &str) -> Result<(String, Vec<u8>), Passage> {
        let mut flow = self.session.flow();
        let statement = flow.statement(name);
        let Some((statement, prepared)) = statement.as_ref().and_then(|s| Some((s, s.prepared.as_ref()?)))
        else {
            if flow.pinned {
                return Ok((name.to_owned(), Vec::new())); // made in SQL
            }
            drop(flow);
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!("prepared statement \"{name}\" does not exist")
            };
            return Err(self.fail_in_batch(&Refusal::new(code::NO_SUCH_STATEMENT, message)));
        };
        let mut before = Vec::new();
        if !flow.is_on_connection(prepared) {
            before = stand_in::prepare(prepared);
            flow.parse_again(Arc::clone(statement));
        }
        Ok((prepared.name(), before))
    }

    fn bind(&mut self, body: &[u8]) -> std::io::Result<Passage> {
        let mut body = Body(body);
        let (Some(portal), Some(name)) = (body.string(), body.string()) else {
            return Err(invalid("a malformed Bind message"));
        };
        let parameters = if self.session.is_logged() { parameters(body) } else { Some(Vec::new()) };
        let parameters = parameters.ok_or_else(|| invalid("a malformed Bind message"))?;
        let mut passage = Passage::Forward;
        if self.session.changes_connections() {
            let (own, mut out) = match self.on_connection(name) {
                Ok(found) => found,
                Err(failed) => return Ok(failed),
            };
            if own == name {
                passage = if out.is_empty() { Passage::Forward } else { Passage::Precede(out) };
            } else {
                put(&mut out, b'B', |out| {
                    put_str(out, portal);
                    put_str(out, &own);
                    out.extend_from_slice(body.0);
                });
                passage = Passage::Replace(out);
            }
        }
        let mut flow = self.session.flow();
        let statement = flow.statement(name);
        flow.bind(portal, Portal { statement, parameters: parameters.into(), number: None });
        Ok(passage)
    }

    fn describe(&mut self, body: &[u8]) -> std::io::Result<Passage> {
        if self.session.metering.is_some() {
            let portal = body.split_first().filter(|(kind, _)| **kind == b'P');
            let portal = portal.and_then(|(_, rest)| Body(rest).string());
            let mut flow = self.session.flow();
            flow.described.push_back(Described::Theirs);
            flow.just_described = portal.map(Into::into);
        }
        let Some((b'S', rest)) = body.split_first().filter(|_| self.session.changes_connections()) else {
            return Ok(Passage::Forward);
        };
        let name = Body(rest).string().ok_or_else(|| invalid("a malformed Describe message"))?;
        let (own, mut out) = match self.on_connection(name) {
            Ok(found) => found,
            Err(failed) => return Ok(failed),
        };
        put(&mut out, b'D', |out| {
            out.push(b'S');
            put_str(out, &own);
        });
        Ok(Passage::Replace(out))
    }

    fn close(&mut self, body: &[u8]) -> std::io::Result<Passage> {
        let (kind, rest) = body.split_first().ok_or_else(|| invalid("an empty Close message"))?;
        let name = Body(rest).string().ok_or_else(|| invalid("a Close message without a name"))?;
        let mut flow = self.session.flow();
        let shared = *kind == b'S' && flow.statement(name).is_some_and(|s| s.prepared.is_some());
        flow.close(*kind == b'P', name);
        // What a name stands for may be others', too: the connection keeps it.
        Ok(if shared && !name.is_empty() {
            Passage::Replace(stand_in::close_nothing())
        } else {
            Passage::Forward
        })
    }

    async fn execute(&mut self, body: &[u8]) -> std::io::Result<Passage> {
        let name = Body(body).string().ok_or_else(|| invalid("a malformed Execute message"))?;
        let found = self.session.flow().portal(name).cloned();
        let number = found.as_ref().and_then(|p| p.number);
        let (statement, parameters) = match found {
            Some(Portal { statement: Some(statement), parameters, .. }) => (statement, parameters),
            _ => (Arc::new(self.made_in_sql(name)), Vec::new().into()),
        };
        match self.admit(&statement, false, &parameters, number).await {
            Ok(mut in_flight) => {
                in_flight.deallocates.clone_from(&statement.deallocates);
                let mut flow = self.session.flow();
                if let Some(portal) = flow.portal(name) {
                    portal.number = in_flight.number;
                }
                let wants_description = in_flight.watch.as_ref().is_some_and(|w| w.wants_description());
                flow.begin(in_flight);
                let is_described = flow.just_described.take().is_some_and(|n| *n == *name);
                if !wants_description {
                    return Ok(Passage::Forward);
                }
                // libpq describes each portal right before it runs it; others may have described it long ago, or never.
                if let Some(last) = flow.described.back_mut().filter(|_| is_described) {
                    *last = Described::Next;
                    return Ok(Passage::Forward);
                }
                flow.described.push_back(Described::Ours);
                Ok(Passage::Precede(stand_in::describe(name)))
            }
            Err(refusal) => Ok(self.refuse_in_batch(&refusal, Some(&statement.text))),
        }
    }

    /// A cursor or a prepared statement that was made in SQL: its text is on record from then.
    fn made_in_sql(&self, name: &str) -> Statement {
        let text = format!("-- goes on with what was declared or prepared in SQL as {name:?}").into();
        let verdict =
            self.session.is_face().then(|| Arc::new(Verdict { opaque: true, ..Verdict::default() }));
        let reach = Reach { is_opaque: true, ..Reach::default() };
        let reach = self.session.metering.as_ref().map(|_| Arc::new(reach));
        Statement { text, verdict, reach, prepared: None, deallocates: None }
    }

    fn function_call(&mut self) -> Passage {
        if self.session.is_face() || self.session.metering.is_some() {
            let refusal = Refusal::new(
                code::INSUFFICIENT_PRIVILEGE,
                "function-call messages are not allowed through a face or across the border",
            )
            .hint("Use SELECT.");
            return self.refuse_query(&refusal, None);
        }
        let number = if self.session.is_logged() {
            match self.announce("-- a function-call message", &[]) {
                Ok(number) => Some(number),
                Err(refusal) => return self.refuse_query(&refusal, None),
            }
        } else {
            None
        };
        self.session.flow().begin(InFlight::new(number, true, None, Vec::new()));
        Passage::Forward
    }
}

/// What a client hears while the ledger cannot be written.
pub fn unrecorded(e: &ringfence_ledger::Unavailable) -> Refusal {
    Refusal::new(code::IO_ERROR, "the statement is refused because the ledger cannot be written")
        .detail(e.to_string())
        .hint("Nothing may run unrecorded. Service resumes by itself once the ledger can be written; tell its operator.")
}

fn truncate(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    &text[..end]
}
