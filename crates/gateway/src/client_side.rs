//! From the client to the store. Frames go on as they came; before one that runs a statement, its intent is handed to the
//! ledger. What is refused is replaced by something that the store itself answers with an error, in its turn: so answers
//! stay in order and a refusal aborts a transaction as any error does; the other side puts our text in its place.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ringfence_ledger::{Entry, Kind};
use ringfence_statement::allow_list::MAX_LENGTH;
use ringfence_statement::analysis::Analysis;
use ringfence_statement::names::{Effect, Keeps};
use ringfence_statement::settings::{Encoding, Settings};
use ringfence_statement::shape::FUNCTION_CALL;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::connection::cannot_connect;
use crate::flow::{Again, Awaited, Confirmed, Counted, Described, Flow, InFlight, size_of};
use crate::frame::{self, Body, Buffer, HEADER, MAX_FRAME, put};
use crate::long_texts::LONG;
use crate::metering::Watch;
use crate::others::Runs;
use crate::quota::{Charge, Moment};
use crate::records::{IntentRecord, StandsFor, parameters};
use crate::refusal::{Refusal, code, unrecorded};
use crate::relay::names::{self, Found, Name, Portal, PreparedStatement};
use crate::relay::recorded_texts::{RecordedTexts, Told};
use crate::relay::resolve::{self, Resolver, Running};
use crate::relay::statement::{MAX_RECORDED, SHARED, SharedStatement, Statement};
use crate::session::{End, Mode, Session};
use crate::stand_in;

/// The largest frame of a governed person: their statements are short, their parameters shorter.
const MAX_GOVERNED_FRAME: usize = 1 << 20;
/// The most prepared statements and portals of a session.
const MAX_NAMES: usize = 10_000;
/// The longest text of a person in the country that is parsed and not only scanned, where it may be a bulk INSERT.
const MOST_PARSED: usize = 1 << 20;
/// The most bytes that wait for the Execute of what is counted before it runs, beside the Bind.
const MOST_UNSENT: usize = 1 << 20;
/// Objects below this number are PostgreSQL's own (FirstNormalObjectId, transam.h).
const FIRST_OWN_FUNCTION: u32 = 16_384;
/// The most bytes of texts that one intent has; the ledger holds 4 MiB in an entry, JSON escapes included.
const MAX_NEW_TEXTS: usize = 2 * MAX_RECORDED;
/// The longest text that is compared with the next one, in bytes.
const MAX_REMEMBERED: usize = 4096;

#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about what comes next")]
struct Side<'a, W> {
    session: &'a Session,
    store: &'a mut W,
    /// What goes to the store before what is in the buffer.
    out: Vec<u8>,
    /// How many bytes at the buffer's front go to the store as they are.
    passing: usize,
    /// After an error or a refusal in a batch the store skips to Sync; so do we.
    skipping: bool,
    /// The client sends nothing more than what is in the buffer.
    is_over: bool,
    /// The statement that was run last may wait for COPY data.
    may_copy_in: bool,
    /// Portals of a governed session whose Binds are not sent, and which nothing has run.
    unsent_binds: Vec<Unsent>,
    /// What is to be sent waits for the Execute that the client sends next.
    holds: bool,
    /// How many bytes before it need not wait: statements that are announced run as soon as they come.
    before_hold: usize,
    /// How many of `unsent_binds` are among them.
    unsent_before_hold: usize,
    /// The most bytes that wait.
    most_held: usize,
    /// Why the session is over, where that is no fault of its client.
    refused: Option<Refusal>,
    /// So long the client is not read, as its principal has filled the ledger faster than is allowed.
    pause: Option<Duration>,
}

/// A portal whose Bind is not sent.
struct Unsent {
    /// `None` if something else has the name now: nothing can run it any more.
    portal: Option<Name>,
    statement: Arc<Statement>,
    parameters: Arc<[Box<str>]>,
}

/// So many bytes of the client's next messages are read while the store is awaited. So a client that is gone is
/// noticed.
const READ_AHEAD: usize = 64 * 1024;
/// A Terminate message.
const GOODBYE: &[u8] = b"X\0\0\0\x04";
/// So many answers may be to come before the client is read again.
const MOST_UNANSWERED: usize = 2048;

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
    let mut side = Side {
        session,
        store,
        out: Vec::new(),
        passing: 0,
        skipping: false,
        is_over: false,
        may_copy_in: false,
        unsent_binds: Vec::new(),
        holds: false,
        before_hold: 0,
        unsent_before_hold: 0,
        most_held: 0,
        refused: None,
        pause: None,
    };
    match side.run(client, buffer).await {
        Ok(end) => end,
        Err(error) => match side.refused.take() {
            Some(refusal) => End::Refused(refusal, true),
            None => failed(&error),
        },
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
            self.settle_held(buffer);
            let rest = &buffer.data()[self.passing..];
            let head = frame::head(rest, max).map_err(invalid)?;
            let Some(head) = head.filter(|h| h.tag == b'd' || rest.len() >= h.total) else {
                // What is counted before it runs is sent with what runs it.
                if !self.holds || self.is_over {
                    self.flush(buffer).await?;
                } else {
                    self.send_before_hold().await?;
                }
                if self.is_over {
                    return Ok(End::Client);
                }
                let session = self.session;
                tokio::select! {
                    read = fill(session, client, buffer) => if read? == 0 {
                        return Ok(End::Client);
                    },
                    () = session.answered.notified(), if session.flow().held_syncs > 0 => {}
                }
                continue;
            };
            if matches!(head.tag, b'd' | b'c' | b'f') && self.passing == 0 && self.session.flow().is_idle() {
                // The store ignores COPY data that no COPY waits for, as after one that has failed.
                buffer.skip(head.total);
                continue;
            }
            if matches!(head.tag, b'd' | b'c' | b'f') {
                self.session.flow().held_syncs = 0;
            }
            if head.tag == b'd' {
                self.copy_data(head.total, client, buffer).await?;
                continue;
            }
            if head.tag == b'X' {
                // What was sent before runs, and its answer leaves.
                while self.batch_answered(client, buffer).await? == Turn::Batch && self.session.flow().leaving
                {
                    self.answered(client, buffer).await?;
                }
                return Ok(End::Client);
            }
            if matches!(head.tag, b'c' | b'f') {
                self.session.flow().copy_ends();
            } else if self.batch_answered(client, buffer).await? == Turn::CopyData {
                self.out_of_turn(head.tag, buffer);
                buffer.consume(head.total);
                continue;
            } else if self.is_skipped(head.tag, client, buffer).await? {
                self.settle(buffer, &[]);
                buffer.consume(head.total);
                continue;
            }
            let whole = &buffer.data()[self.passing..][..head.total];
            let passage = match self.frame(head.tag, whole).await {
                // The store tells best what is wrong with a message that runs nothing.
                Err(e)
                    if self.session.mode == Mode::Counted && e.kind() == std::io::ErrorKind::InvalidData =>
                {
                    if matches!(head.tag, b'Q' | b'F') {
                        self.session.flow().begin(InFlight::unrecorded_query());
                    }
                    Passage::Forward
                }
                passage => passage?,
            };
            if head.tag == b'B' && !self.unsent_binds.is_empty() && !self.skipping {
                self.settle(buffer, &[]);
                self.hold(head.total);
            }
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
            if let Some(pause) = self.pause.take() {
                self.flush(buffer).await?;
                tokio::time::sleep(pause).await;
            }
            let is_much = !self.holds && self.session.flow().unanswered() >= MOST_UNANSWERED;
            if is_much || std::mem::take(&mut self.may_copy_in) {
                self.catch_up(client, buffer).await?;
            } else {
                let most = if self.holds { self.most_held } else { 32 * 1024 };
                if self.out.len() + self.passing > most {
                    self.flush(buffer).await?;
                }
            }
        }
    }

    /// Waits until the store has answered what was sent of a batch. What it does with the next message depends
    /// on that: it reads it as COPY data, skips it, or runs it.
    async fn catch_up<R: AsyncRead + Unpin>(
        &mut self,
        client: &mut R,
        buffer: &mut Buffer,
    ) -> std::io::Result<()> {
        self.settle(buffer, &stand_in::flush());
        self.flush(buffer).await?;
        let is_known =
            |flow: &Flow| flow.copying || flow.is_answered() || flow.is_skipping() || flow.unready > 0;
        self.wait_for(client, buffer, |flow| is_known(flow).then_some(())).await
    }

    /// Waits until the conversation is in a state. It notices when the client closes its connection.
    async fn wait_for<T, R: AsyncRead + Unpin>(
        &mut self,
        client: &mut R,
        buffer: &mut Buffer,
        state: impl Fn(&Flow) -> Option<T>,
    ) -> std::io::Result<T> {
        loop {
            if let Some(state) = state(&self.session.flow()) {
                return Ok(state);
            }
            self.answered(client, buffer).await?;
        }
    }

    /// Whether the store skips a message, because something in the batch before it has failed. A Query or a
    /// FunctionCall that comes without a Sync before it waits for the answers of the batch.
    async fn is_skipped<R: AsyncRead + Unpin>(
        &mut self,
        tag: u8,
        client: &mut R,
        buffer: &mut Buffer,
    ) -> std::io::Result<bool> {
        if tag == b'S' {
            return Ok(false);
        }
        if matches!(tag, b'Q' | b'F') && !self.skipping && self.session.flow().unsynced {
            // Its answer says that nothing before it has failed.
            {
                let mut flow = self.session.flow();
                flow.names.own();
                flow.send(Confirmed::Ours, None);
            }
            self.settle(buffer, &stand_in::close_nothing());
            self.catch_up(client, buffer).await?;
        }
        self.skipping |= self.session.flow().is_skipping();
        Ok(self.skipping)
    }

    /// A message that is none of COPY's came while the store waits for COPY data.
    fn out_of_turn(&mut self, tag: u8, buffer: &mut Buffer) {
        let instead = if matches!(tag, b'S' | b'H') { Vec::new() } else { stand_in::out_of_turn(tag) };
        self.settle(buffer, &instead);
        match tag {
            b'S' => self.session.flow().held_syncs += 1,
            // Ignored.
            b'H' => {}
            _ => {
                let mut flow = self.session.flow();
                flow.copy_ends();
                self.skipping |= flow.is_in_batch();
                flow.held_syncs = 0;
            }
        }
    }

    /// Sends Syncs that were held once the COPY before them has failed.
    fn settle_held(&mut self, buffer: &mut Buffer) {
        let held = {
            let mut flow = self.session.flow();
            if flow.copying {
                return;
            }
            std::mem::take(&mut flow.held_syncs)
        };
        for _ in 0..held {
            self.skipping = false;
            self.settle(buffer, &stand_in::sync());
            self.session.flow().sync();
        }
    }

    /// Waits until the store has answered something, or the client has sent something or is gone.
    async fn answered<R: AsyncRead + Unpin>(
        &mut self,
        client: &mut R,
        buffer: &mut Buffer,
    ) -> std::io::Result<()> {
        let session = self.session;
        if self.is_over || buffer.data().len() >= READ_AHEAD {
            session.answered.notified().await;
            return Ok(());
        }
        tokio::select! {
            biased;
            () = session.answered.notified() => {}
            read = fill(session, client, buffer) => match read? {
                // A client may close the connection right after Terminate: what came before is run.
                0 if buffer.data().ends_with(GOODBYE) => self.is_over = true,
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            },
        }
        Ok(())
    }

    /// Puts what passes, and something of our own after it, before the rest of the buffer.
    fn settle(&mut self, buffer: &mut Buffer, own: &[u8]) {
        self.out.extend_from_slice(&buffer.data()[..self.passing]);
        buffer.consume(self.passing);
        self.passing = 0;
        self.out.extend_from_slice(own);
    }

    /// Sends what passes to the store. `ends_within_frame` says that the rest of the last frame is to come.
    /// Until then the connection must not be given to another session: the store would read that session's
    /// messages as the rest of the frame.
    async fn send(&mut self, buffer: &mut Buffer, ends_within_frame: bool) -> std::io::Result<()> {
        self.holds = false;
        (self.before_hold, self.unsent_before_hold) = (0, 0);
        for Unsent { statement, parameters, .. } in std::mem::take(&mut self.unsent_binds) {
            self.announce_plan(&statement, &parameters).await?;
        }
        if self.out.is_empty() && self.passing == 0 {
            return Ok(());
        }
        self.session.flow().sends();
        if self.out.is_empty() {
            self.store.write_all(&buffer.data()[..self.passing]).await?;
            buffer.consume(self.passing);
            self.passing = 0;
        } else {
            self.settle(buffer, &[]);
            self.store.write_all(&self.out).await?;
            self.out = Vec::new();
        }
        self.store.flush().await?;
        let may_release = {
            let mut flow = self.session.flow();
            flow.within_frame = ends_within_frame;
            flow.is_idle()
        };
        if may_release {
            self.session.whole.notify_one();
        }
        Ok(())
    }

    /// A Bind waits for its Execute from here on: `bytes` is its frame's length.
    fn hold(&mut self, bytes: usize) {
        if !self.holds {
            self.holds = true;
            self.before_hold = self.out.len();
            self.unsent_before_hold = self.unsent_binds.len() - 1;
            self.most_held = self.out.len() + bytes + MOST_UNSENT;
        }
    }

    /// Sends what came before the Bind that waits.
    async fn send_before_hold(&mut self) -> std::io::Result<()> {
        let count = std::mem::take(&mut self.before_hold);
        if count == 0 {
            return Ok(());
        }
        let planned = std::mem::take(&mut self.unsent_before_hold);
        for Unsent { statement, parameters, .. } in self.unsent_binds.drain(..planned).collect::<Vec<_>>() {
            self.announce_plan(&statement, &parameters).await?;
        }
        self.session.flow().sends();
        self.store.write_all(&self.out[..count]).await?;
        self.store.flush().await?;
        self.out.drain(..count);
        self.session.flow().within_frame = false;
        Ok(())
    }

    /// A Bind is about to be sent without an Execute. Planning can call functions, and an error of one says what it
    /// has found: that is on record, too. (Outside a face such a Bind is on record when it comes.)
    async fn announce_plan(
        &mut self,
        statement: &Arc<Statement>,
        parameters: &Arc<[Box<str>]>,
    ) -> std::io::Result<()> {
        let is_shown = self.session.is_face() && plans_calls(&statement.analysis);
        if !is_shown {
            return Ok(());
        }
        match self.admit(statement, Running::default(), parameters, None).await {
            Ok(planned) => {
                self.session.conclude(planned, None);
                Ok(())
            }
            Err(refusal) => {
                let message = refusal.message.clone();
                self.refused = Some(refusal);
                Err(std::io::Error::other(message))
            }
        }
    }

    async fn flush(&mut self, buffer: &mut Buffer) -> std::io::Result<()> {
        self.send(buffer, false).await
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
            if self.passing > 32 * 1024 || left > 0 {
                self.send(buffer, left > 0).await?;
            }
            if left == 0 {
                return Ok(());
            }
            if fill(self.session, client, buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits until the store has answered the batch before, or wants COPY data.
    async fn batch_answered<R: AsyncRead + Unpin>(
        &mut self,
        client: &mut R,
        buffer: &mut Buffer,
    ) -> std::io::Result<Turn> {
        let turn = |flow: &Flow| match flow {
            Flow { copying: true, .. } => Some(Turn::CopyData),
            Flow { unready: 0, .. } => Some(Turn::Batch),
            _ => None,
        };
        if let Some(turn) = turn(&self.session.flow()) {
            return Ok(turn);
        }
        self.flush(buffer).await?;
        self.wait_for(client, buffer, turn).await
    }

    async fn frame(&mut self, tag: u8, whole: &[u8]) -> std::io::Result<Passage> {
        let body = &whole[HEADER..];
        let is_too_much = {
            let mut flow = self.session.flow();
            flow.unsynced |= !matches!(tag, b'S' | b'c' | b'f');
            if tag != b'E' {
                flow.just_described = None;
            }
            matches!(tag, b'P' | b'B' | b'C' | b'E' | b'D') && flow.kept > self.most_kept()
        };
        if is_too_much {
            let refusal = Refusal::new(code::LIMIT_EXCEEDED, "too many messages without a Sync")
                .hint("Send a Sync more often: until then the gateway keeps what was sent.");
            return Ok(self.refuse_in_batch(&refusal, None));
        }
        match tag {
            b'Q' => self.query(Body(body)).await,
            b'P' => self.parse(body).await,
            b'B' => self.bind(body).await,
            b'E' => self.execute(body).await,
            b'C' => self.close(body),
            b'S' => {
                self.holds = false;
                self.skipping = false;
                self.session.flow().sync();
                Ok(Passage::Forward)
            }
            b'D' => self.describe(body),
            b'H' | b'c' | b'f' => {
                self.holds = false;
                Ok(Passage::Forward)
            }
            b'F' => self.function_call(body).await,
            other => Err(invalid(format!("invalid frontend message type {other}"))),
        }
    }

    /// How many bytes of one batch are kept: parameters are kept of what is recorded one by one.
    fn most_kept(&self) -> usize {
        if self.session.is_governed() { 64 << 20 } else { 1 << 30 }
    }

    /// Why a statement that changes names is refused where there are too many.
    fn too_many_names(&self, statement: &Statement) -> Option<Refusal> {
        let adds =
            |e: &Effect| matches!(e, Effect::Prepare(_) | Effect::Declare { .. } | Effect::Savepoint(_));
        let adds = statement.analysis.parts.iter().filter_map(|part| part.effect.as_ref()).any(adds);
        (adds && self.session.flow().names.len() > MAX_NAMES).then(|| {
            Refusal::new(code::LIMIT_EXCEEDED, "too many prepared statements, cursors and savepoints")
                .hint("End the transaction, or DEALLOCATE ALL in a new session.")
        })
    }

    /// Reads the text of a statement. `Err(None)` if the message is malformed.
    async fn read(&mut self, body: &mut Body<'_>) -> Result<Arc<Statement>, Option<Refusal>> {
        let end = body.0.iter().position(|&b| b == 0).ok_or(None)?;
        let (bytes, rest) = body.0.split_at(end);
        body.0 = &rest[1..];
        let session = self.session;
        if session.is_face() && std::str::from_utf8(bytes).is_err() {
            return Err(Some(Refusal::new(code::SYNTAX_ERROR, "the statement is not valid UTF-8")));
        }
        let settings = session.settings();
        // Drivers that parse a text each time send it again and again.
        let is_as_sent = bytes.is_ascii() || settings.encoding == Encoding::Utf8;
        let remembers = is_as_sent && !session.changes_connections() && bytes.len() <= MAX_REMEMBERED;
        let known = |last: &Arc<Statement>| last.text.as_bytes() == bytes && last.settings == settings;
        if remembers && let Some(last) = session.flow().last.as_ref().filter(|last| known(last)) {
            return Ok(Arc::clone(last));
        }
        let Some(text) = settings.decode(bytes) else {
            let analysis = Arc::new(Analysis::not_understood(settings));
            return Ok(Arc::new(Statement::of(&String::from_utf8_lossy(bytes), analysis, settings)));
        };
        let statements = &session.shared.statements;
        let analysis = if session.is_face() && bytes.len() > MAX_LENGTH {
            Arc::new(Analysis::too_long(settings))
        } else {
            let is_parsed = session.is_governed() || session.is_logged() && text.len() <= MOST_PARSED;
            if text.len() <= LONG {
                session.flow().recent.of(statements, &text, settings, is_parsed)
            } else {
                let known = session.flow().recent.find(&text, settings);
                match known {
                    Some(known) => known,
                    None => Box::pin(self.read_apart(&text, settings, is_parsed)).await,
                }
            }
        };
        let mut statement = Statement::of(&text, analysis, settings);
        statement.deallocates_shared =
            session.changes_connections() && self.deallocates_shared(&statement.analysis);
        let statement = Arc::new(statement);
        if remembers {
            session.flow().last = Some(Arc::clone(&statement));
        }
        Ok(statement)
    }

    async fn read_apart(&mut self, text: &str, settings: Settings, is_parsed: bool) -> Arc<Analysis> {
        let Session { shared, principal, .. } = self.session;
        let analysing =
            shared.long_texts.analyse(&principal.name, &shared.statements, text, settings, is_parsed);
        let found = analysing.await;
        self.session.flow().recent.keep(&found);
        found
    }

    /// Whether a text is one `DEALLOCATE` of a statement that has a shared name in the store.
    fn deallocates_shared(&self, analysis: &Analysis) -> bool {
        let [part] = analysis.parts.as_slice() else { return false };
        let Some(Effect::Deallocate(Some(name))) = &part.effect else { return false };
        self.session.flow().names.is_shared(&names::name(name))
    }

    /// A name in a message: as it came, and as it is compared. The last is false for bytes that SQL might
    /// write in another way.
    fn name<'b>(&self, body: &mut Body<'b>) -> Option<(&'b [u8], Name, bool)> {
        let end = body.0.iter().position(|&b| b == 0)?;
        let (bytes, rest) = body.0.split_at(end);
        body.0 = &rest[1..];
        // ASCII reads the same under all settings.
        let settings = if bytes.is_ascii() { Settings::default() } else { self.session.settings() };
        Some(match settings.decode(bytes) {
            Some(text) => (bytes, names::name(&text), true),
            None => (bytes, names::undecoded(bytes), false),
        })
    }

    async fn query(&mut self, mut body: Body<'_>) -> std::io::Result<Passage> {
        let statement = match self.read(&mut body).await {
            Ok(statement) if body.0.is_empty() => statement,
            Err(Some(refusal)) => return Ok(self.refuse_query(&refusal, None)),
            _ => return Err(invalid("a malformed Query message")),
        };
        if let Some(refused) = self.not_allowed(&statement).or_else(|| self.too_many_names(&statement)) {
            return Ok(self.refuse_query(&refused, Some(&statement)));
        }
        let mut begun = Vec::new();
        let running = self.resolver(|resolver| resolver.query(&statement));
        let admitted = match running {
            Ok(mut running) => {
                if self.session.is_face() {
                    self.session.explain(&statement.analysis);
                }
                begun = std::mem::take(&mut running.begun);
                self.note_more(&running);
                self.admit(&statement, running, &Arc::from([]), None).await
            }
            Err(refusal) => Err(refusal),
        };
        let mut flow = self.session.flow();
        match admitted {
            Ok(mut in_flight) => {
                in_flight.is_simple = true;
                note_ends(&mut in_flight, &statement.analysis);
                in_flight.deallocates_shared = statement.deallocates_shared;
                in_flight.changes_names = flow.names.query(Some(&statement), begun);
                flow.sets(&statement.analysis);
                flow.begin(in_flight);
                Ok(if statement.deallocates_shared {
                    Passage::Replace(stand_in::query(stand_in::DEALLOCATE))
                } else {
                    Passage::Forward
                })
            }
            Err(refusal) => {
                flow.names.take_back();
                drop(flow);
                Ok(self.refuse_query(&refusal, Some(&statement)))
            }
        }
    }

    fn resolver<T>(&self, resolve: impl FnOnce(&mut Resolver<'_>) -> T) -> T {
        let (is_governed, is_pooled) = (self.session.is_governed(), self.session.changes_connections());
        let names = &mut self.session.flow().names;
        resolve(&mut Resolver { names, is_governed, is_pooled })
    }

    /// What runs may leave more behind than the texts say that are looked at.
    fn note_more(&self, running: &Running) {
        if !running.does_more {
            return;
        }
        self.session.note_pins(true);
        let mut flow = self.session.flow();
        flow.names.be_unsure();
        // Once more when it has ended: what it changed may be confirmed by then.
        flow.changes_unseen = true;
        flow.settings_unsure = true;
    }

    /// Why the allow-list refuses a governed person's statement, if it does.
    fn not_allowed(&self, statement: &Statement) -> Option<Refusal> {
        let refused = statement.analysis.verdict.refused.as_ref().filter(|_| self.session.is_face())?;
        Some(Refusal::not_allowed(refused))
    }

    /// Charges and announces what runs; what comes back is ready to be sent.
    async fn admit(
        &mut self,
        statement: &Arc<Statement>,
        running: Running,
        parameters: &Arc<[Box<str>]>,
        number: Option<u64>,
    ) -> Result<InFlight, Refusal> {
        let session = self.session;
        let traced = session.shared.config.traces.as_ref().and_then(|traces| traces.begin(&statement.text));
        session.note_pins(
            statement.analysis.is_sticky || running.meant.iter().any(|(_, meant)| meant.analysis.is_sticky),
        );
        if session.changes_connections() && statement.analysis.discards_names() {
            session.flow().discard();
        }
        // A name that the store did not have may have come with code behind it.
        session.look_for_names(&running.runs).await?;
        let runs = look_at_code(session, statement, &running).await?;
        if let Some(workload) = &session.workload {
            let analysis = Arc::clone(&statement.analysis);
            let stands_for = running.counted().filter(|_| analysis.is_understood);
            let counted = Counted { analysis, stands_for };
            // What was bound was counted then, if the store may have run it then.
            if number.is_none() {
                session.shared.counting.began(workload, &counted);
            }
            return Ok(InFlight { traced, counted: Some(counted), ..InFlight::default() });
        }
        let mut charges = Vec::new();
        if !session.quota.is_empty() {
            let moment = self.moment(statement, &running);
            charges = session.quota.admit(&running.runs, &|t, c| session.has_column(t, c), &moment).await?;
        }
        let watch = session.watch(&running.runs, runs != Runs::Own);
        if watch.as_ref().is_some_and(Watch::has_unbounded) {
            let moment = self.moment(statement, &running);
            let only_defines = runs == Runs::Own && !session.is_face();
            let refusal = running.runs.iter().find_map(|run| {
                if run.goes_on && runs == Runs::Own || only_defines && run_only_defines(statement, run) {
                    return None;
                }
                let (scope, moment) = (&run.scope, moment(run.part));
                // What is not known is counted again, so it may come later.
                let is_bad = scope.aggregates() && !scope.is_unknown || moment == Moment::Earlier;
                moment.refusal("a table").filter(|_| is_bad && (scope.aggregates() || runs != Runs::Own))
            });
            if let Some(refusal) = refusal {
                session.quota.take_back(&charges);
                return Err(refusal);
            }
        }
        let unbounded = watch.as_ref().map(Watch::unbounded).filter(|watch| !watch.is_empty());
        let is_counted_again = unbounded.is_some() || charges.iter().any(Charge::has_unbounded);
        let again = is_counted_again.then(|| again_in(session, statement, &running, runs));
        let at_end = runs != Runs::Own;
        let asks = match &watch {
            Some(watch) => {
                let times = 1 + again.map_or(0, u64::count_ones) as usize * if at_end { 2 } else { 1 };
                // What is on record at its Bind is asked for again when it runs.
                Box::pin(session.questions(watch, if running.is_planned { 2 * times } else { times })).await
            }
            None => Ok(Vec::new()),
        };
        let asks = match asks {
            Ok(asks) => asks,
            Err(refusal) => {
                session.quota.take_back(&charges);
                return Err(refusal);
            }
        };
        let number = match number {
            Some(number) => number, // a portal that goes on
            None => match self.announce(statement, &running, parameters, &asks, runs != Runs::Own) {
                Ok(number) => number,
                Err(refusal) => {
                    session.quota.take_back(&charges);
                    return Err(refusal);
                }
            },
        };
        if at_end && session.metering.is_some() {
            session.flow().unseen = Some(number);
        }
        let watch_again = unbounded.unwrap_or_default();
        let again = again.map(|parts| Again { watch: watch_again, parts, last: None, at_end });
        // Who is counted here is on record before the answer, also if the statement is refused then.
        let watch = match watch {
            Some(mut watch) if watch.has_unbounded() => {
                let counted = Box::pin(session.count_all_patiently(&mut watch, Some(number))).await;
                if let Err(refusal) = counted {
                    session.quota.take_back(&charges);
                    let failed = Some(refusal.code.to_owned());
                    session.conclude(InFlight { number: Some(number), failed, ..InFlight::default() }, None);
                    return Err(refusal);
                }
                Some(watch)
            }
            watch => watch,
        };
        let watch = watch.filter(|watch| !watch.is_empty()).map(Box::new);
        let is_checked = session.is_governed();
        let meant = running.meant.into_iter().filter(|_| is_checked).map(|(_, meant)| meant).collect();
        Ok(InFlight {
            number: Some(number),
            charges,
            text: is_checked.then(|| Arc::clone(statement)),
            meant,
            parameters: is_checked.then(|| Arc::clone(parameters)),
            watch,
            again: again.map(Box::new),
            traced,
            ..InFlight::default()
        })
    }

    /// Which state of the rows a part of what is sent next sees.
    fn moment(
        &self,
        statement: &Arc<Statement>,
        running: &Running,
    ) -> impl Fn(usize) -> Moment + Sync + use<W> {
        let flow = self.session.flow();
        let is_slow = |of: &Arc<Statement>| of.analysis.parts.iter().any(|part| !part.is_quick);
        let waits =
            flow.awaited.iter().any(|a| matches!(a, Awaited::Statement(_))) && flow.quotable().any(is_slow);
        let is_earlier = running.is_from_before
            || flow.may_see_before()
            || statement.analysis.keeps_snapshot != Keeps::Nothing;
        let statement = Arc::clone(statement);
        move |part| {
            let mut before = statement.analysis.parts.iter().take(part);
            if is_earlier {
                Moment::Earlier
            } else if waits || before.any(|part| !part.is_quick) {
                Moment::Later
            } else {
                Moment::Now
            }
        }
    }

    /// Hands the intent to the ledger. The answer will not pass before it is durable.
    fn announce(
        &mut self,
        statement: &Statement,
        running: &Running,
        parameters: &[Box<str>],
        asks: &[String],
        runs_others: bool,
    ) -> Result<u64, Refusal> {
        let session = self.session;
        session.shared.ledger.healthy().map_err(|e| unrecorded(&e))?;
        if session.crossing.is_some() {
            session
                .shared
                .border
                .is_open_to(&session.shared, &session.store.jurisdiction)
                .map_err(|cut| cut.refusal())?;
        }
        let segment = session.shared.ledger.segment();
        let mut flow = session.flow();
        let n = flow.number();
        // The same text reads differently under other settings: the record then has the text each time.
        let settings = resolve::read_under(statement);
        // So does one whose end is not recorded: another one can begin in the same way.
        let is_told =
            settings.is_some() || statement.is_cut || running.is_query && RecordedTexts::is_short(statement);
        let told = (!is_told).then(|| flow.recorded.tell(statement, n, segment));
        let (text, sql) = match told {
            Some(Told::There(of)) => (Some(of), None),
            Some(Told::Here(of)) => (Some(of), Some(&*statement.text)),
            None => (None, Some(&*statement.text)),
        };
        let mut new_texts = sql.map_or(0, str::len);
        let mut stands_for = Vec::new();
        for (name, meant) in &running.meant {
            let settings = resolve::read_under(meant);
            let told = match &settings {
                None if !meant.is_cut => flow.recorded.tell(meant, n, segment),
                _ => Told::Here(RecordedTexts::here(meant, n)),
            };
            let (of, sql) = match told {
                Told::Here(of) => (of, Some(&*meant.text)),
                Told::There(of) => (of, None),
            };
            new_texts += sql.map_or(0, str::len);
            stands_for.push(StandsFor { name, statement: sql, of, settings });
        }
        if new_texts > MAX_NEW_TEXTS {
            flow.recorded = RecordedTexts::default();
            return Err(Refusal::new(
                code::LIMIT_EXCEEDED,
                "this statement runs too many long texts by name",
            )
            .hint("Run them one by one."));
        }
        let record = IntentRecord {
            session: &session.id,
            n,
            principal: &session.principal.name,
            store: &session.store.name,
            statement: sql,
            text,
            stands_for,
            not_understood: running.not_understood
                || !statement.analysis.is_understood
                || statement.is_cut
                || running.meant.iter().any(|(_, meant)| meant.is_cut),
            asks: asks.iter().map(|text| hex::encode(Sha256::digest(text.as_bytes()))).collect(),
            reaches_more: runs_others || session.reads_views(&running.runs),
            settings,
            parameters,
        };
        let entry = Entry::new(Kind::Intent, &session.store.jurisdiction, &record);
        let pause = session.allowance.pay(entry.record.len());
        let ticket = session.shared.ledger.append_batched(entry.crossing(session.crossing.as_ref()));
        flow.tickets.push_back(ticket);
        drop(flow);
        self.pauses(pause);
        Ok(n)
    }

    fn pauses(&mut self, pause: Option<Duration>) {
        self.pause = self.pause.max(pause);
    }

    /// Puts something in a refused statement's place that the store answers with an error in its turn.
    fn refused_text(&mut self, refusal: &Refusal) -> String {
        let mut flow = self.session.flow();
        let n = flow.number();
        flow.refusals.push((n, refusal.clone()));
        format!("{}{n}", stand_in::REFUSED)
    }

    fn refuse_query(&mut self, refusal: &Refusal, statement: Option<&Statement>) -> Passage {
        self.pauses(self.session.refused(&refusal.message, statement));
        let text = self.refused_text(refusal);
        let mut flow = self.session.flow();
        flow.names.query(None, Vec::new());
        flow.begin(InFlight::unrecorded_query());
        drop(flow);
        Passage::Replace(stand_in::query(&text))
    }

    fn refuse_in_batch(&mut self, refusal: &Refusal, statement: Option<&Statement>) -> Passage {
        self.pauses(self.session.refused(&refusal.message, statement));
        self.fail_in_batch(refusal)
    }

    /// Makes the store answer with an error here, which the other side replaces by `refusal`.
    fn fail_in_batch(&mut self, refusal: &Refusal) -> Passage {
        let text = self.refused_text(refusal);
        self.skipping = true;
        self.holds = false;
        Passage::Replace(stand_in::parse(&text))
    }

    async fn parse(&mut self, body: &[u8]) -> std::io::Result<Passage> {
        let mut body = Body(body);
        let (sent, name, is_decoded) =
            self.name(&mut body).ok_or_else(|| invalid("a malformed Parse message"))?;
        let definition = body.0;
        let mut statement = match self.read(&mut body).await {
            Ok(statement) => statement,
            Err(Some(refusal)) => return Ok(self.refuse_in_batch(&refusal, None)),
            Err(None) => return Err(invalid("a malformed Parse message")),
        };
        if self.session.flow().names.len() > MAX_NAMES {
            let refusal = Refusal::new(code::LIMIT_EXCEEDED, "too many prepared statements in this session");
            return Ok(self.refuse_in_batch(&refusal.hint("Close those that are no longer needed."), None));
        }
        if let Some(refused) = self.not_allowed(&statement) {
            return Ok(self.refuse_in_batch(&refused, Some(&statement)));
        }
        if self.session.is_face() {
            self.session.explain(&statement.analysis);
        }
        let types = declared_types(&body);
        if types.own || types.any && statement.analysis.symbols.casts_parameters {
            let mut own = Arc::unwrap_or_clone(statement);
            own.has_own_types = types.own;
            if own.analysis.symbols.casts_parameters && !own.analysis.symbols.casts {
                let mut analysis = Analysis::clone(&own.analysis);
                analysis.symbols.casts = true;
                own.analysis = Arc::new(analysis);
            }
            statement = Arc::new(own);
        }
        // A constant of a type is read when the text is parsed, by code of others if the type has some.
        if let Err(error) = self.session.look_at_code().await {
            return Ok(self.refuse_in_batch(&cannot_connect(&error), None));
        }
        let may_read = self.session.may_run_at_parse(&statement.analysis);
        if may_read && self.session.workload.is_some() {
            // It is counted when it runs.
            let running = Running::planned(&statement.analysis.scope);
            if let Err(refusal) = look_at_code(self.session, &statement, &running).await {
                return Ok(self.refuse_in_batch(&refusal, Some(&statement)));
            }
        } else if may_read {
            let running = Running::planned(&statement.analysis.scope);
            match self.admit(&statement, running, &Arc::from([]), None).await {
                Ok(parsed) => self.session.conclude(parsed, None),
                Err(refusal) => return Ok(self.refuse_in_batch(&refusal, Some(&statement))),
            }
        }
        if !self.session.changes_connections() {
            let mut flow = self.session.flow();
            flow.names.parse(name, statement, is_decoded);
            flow.send(Confirmed::Pass, None);
            if may_read {
                flow.sent_may_read();
            }
            return Ok(Passage::Forward);
        }
        let own;
        let definition = if statement.deallocates_shared {
            own = [stand_in::DEALLOCATE.as_bytes(), b"\0", body.0].concat();
            &own
        } else {
            definition
        };
        // Where connections change: a named statement gets a shared name; a connection that has it need
        // not see it.
        let shared_names = &self.session.shared.shared_names;
        let named = !sent.is_empty();
        let found = self.session.flow().names.statement(&name);
        if named && matches!(found, Found::Known(_) | Found::Unsure(Some(_))) {
            let message = format!("prepared statement \"{}\" already exists", shown(sent));
            return Ok(self.fail_in_batch(&Refusal::new(code::DUPLICATE_STATEMENT, message)));
        }
        let settings = if statement.depends_on_settings() { statement.settings } else { Settings::default() };
        let times: Arc<str> = if named { self.session.times().into() } else { Arc::from("") };
        // Something that ran unseen may have put another statement in the place of a shared one.
        let is_shared = statement.analysis.is_understood && !self.session.flow().names.are_unsure();
        let is_shared = is_shared && !self.session.flow().settings_unsure;
        let number = if named && is_shared {
            shared_names.number(definition, settings, &times)
        } else {
            shared_names.fresh()
        };
        let is_own = !(named && is_shared);
        let prepared = SharedStatement { number, named, is_own, times, definition: definition.into() };
        let parse = (named || statement.deallocates_shared).then(|| stand_in::prepare(&prepared));
        let mut flow = self.session.flow();
        // In a transaction that has failed the store refuses it, whether it has it or not.
        // It takes what ends the transaction.
        let is_failed = flow.transaction == b'E' && !flow.ends_transaction;
        let is_refused = is_failed && !ends_transaction(&statement.analysis);
        let known = named && flow.is_on_connection(&prepared) && !is_refused;
        let mut statement = Arc::unwrap_or_clone(statement);
        statement.shared = Some(prepared);
        flow.names.parse(name, Arc::new(statement), is_decoded);
        if known {
            flow.send(Confirmed::AsParse, None);
            return Ok(Passage::Replace(stand_in::close_nothing()));
        }
        flow.send(Confirmed::Pass, Some((named, number)));
        if may_read {
            flow.sent_may_read();
        }
        Ok(parse.map_or(Passage::Forward, Passage::Replace))
    }

    /// What a statement's name stands for. `Err` where a governed client may not use it.
    fn prepared(&mut self, sent: &[u8], name: &str) -> Result<PreparedStatement, Passage> {
        let is_governed = self.session.is_governed();
        // Shared names are the gateway's: under them the store has what others prepared.
        if self.session.changes_connections() && name.starts_with(SHARED) {
            return Err(self.fail_in_batch(&no_such_statement(sent)));
        }
        let found = self.session.flow().names.statement(name);
        match found {
            Found::Known(prepared) => Ok(prepared),
            Found::Unsure(Some(prepared)) if !is_governed => Ok(prepared),
            Found::Unsure(_) if is_governed => {
                let refusal = resolve::unsure(&shown(sent));
                Err(self.refuse_in_batch(&refusal, None))
            }
            Found::Absent
                if is_governed || self.session.changes_connections() && !self.session.flow().pinned =>
            {
                Err(self.fail_in_batch(&no_such_statement(sent)))
            }
            Found::Unsure(_) | Found::Absent => {
                let text =
                    format!("-- runs what was prepared as {:?}, which the gateway did not see", shown(sent));
                let analysis = Arc::new(Analysis::not_understood(self.session.settings()));
                let scope = Arc::clone(&analysis.scope);
                let statement = Arc::new(Statement::of(&text, analysis, self.session.settings()));
                Ok(PreparedStatement { statement, scope, in_sql: true, is_sure: false })
            }
        }
    }

    /// The name of a statement in the store where connections change; before it, the Parse for a
    /// connection that has not seen it.
    fn on_connection(
        &mut self,
        sent: &[u8],
        prepared: &PreparedStatement,
    ) -> Result<(Vec<u8>, Vec<u8>), Passage> {
        let Some(shared) = prepared.shared() else {
            return Ok((sent.to_owned(), Vec::new())); // made in SQL
        };
        let mut before = Vec::new();
        let settings = self.session.settings();
        // Dates in the text are read when the store prepares it: under other parameters it is another statement.
        let of_now;
        let shared = if shared.named && !shared.is_own && !self.session.has_times(&shared.times) {
            let names = &self.session.shared.shared_names;
            let read_as =
                if prepared.statement.depends_on_settings() { settings } else { Settings::default() };
            let times: Arc<str> = self.session.times().into();
            let number = names.number(&shared.definition, read_as, &times);
            of_now = SharedStatement { number, times, ..shared.clone() };
            &of_now
        } else {
            shared
        };
        let mut flow = self.session.flow();
        if !flow.is_on_connection(shared) {
            let statement = &prepared.statement;
            // What is counted may have been prepared before a batch that could change settings.
            let is_certain = self.session.is_logged() || settings != Settings::UNSURE;
            if statement.settings != settings && is_certain && statement.depends_on_settings() {
                drop(flow);
                let refusal = Refusal::new(
                    code::FEATURE_NOT_SUPPORTED,
                    "a statement that was prepared under other settings cannot be prepared again",
                )
                .detail("Its text reads differently under standard_conforming_strings or client_encoding as they are now.")
                .hint("Prepare it again under the settings that it is run under.");
                return Err(self.refuse_in_batch(&refusal, Some(statement)));
            }
            before = stand_in::prepare(shared);
            flow.names.own();
            flow.send(Confirmed::Ours, Some((shared.named, shared.number)));
        }
        Ok((shared.name().into_bytes(), before))
    }

    async fn bind(&mut self, body: &[u8]) -> std::io::Result<Passage> {
        let mut body = Body(body);
        let malformed = || invalid("a malformed Bind message");
        let (portal_sent, portal, portal_is_decoded) = self.name(&mut body).ok_or_else(malformed)?;
        let (sent, name, _) = self.name(&mut body).ok_or_else(malformed)?;
        let parameters = if self.session.is_logged() { parameters(body) } else { Some(Vec::new()) };
        let parameters = parameters.ok_or_else(malformed)?;
        if self.session.flow().names.len() > MAX_NAMES {
            let refusal = Refusal::new(code::LIMIT_EXCEEDED, "too many portals in this session");
            return Ok(self.refuse_in_batch(&refusal.hint("Close those that are no longer needed."), None));
        }
        let prepared = match self.prepared(sent, &name) {
            Ok(prepared) => prepared,
            Err(failed) => return Ok(failed),
        };
        let mut passage = Passage::Forward;
        if self.session.changes_connections() {
            let (own, mut out) = match self.on_connection(sent, &prepared) {
                Ok(known) => known,
                Err(failed) => return Ok(failed),
            };
            if own == sent {
                passage = if out.is_empty() { Passage::Forward } else { Passage::Precede(out) };
            } else {
                put(&mut out, b'B', |out| {
                    put_bytes(out, portal_sent);
                    put_bytes(out, &own);
                    out.extend_from_slice(body.0);
                });
                passage = Passage::Replace(out);
            }
        }
        // Planning at Bind evaluates functions that are marked IMMUTABLE or STABLE, whatever they do: such a
        // statement runs from here on.
        if let Err(error) = self.session.look_at_code().await {
            return Ok(self.refuse_in_batch(&cannot_connect(&error), None));
        }
        let analysis = &prepared.statement.analysis;
        let may = self.session.may(analysis);
        let may_read = prepared.scope.calls_unknown
            || prepared.scope.is_unknown
            || may.runs != Runs::Own
            || prepared.statement.has_own_types && may.reads_types;
        // EXECUTE and FETCH run nothing before they run.
        let may_read = may_read && !analysis.uses_names();
        let parameters: Arc<[Box<str>]> = parameters.into();
        let mut number = None;
        let is_face = self.session.is_face();
        if may_read && !is_face {
            let statement = Arc::clone(&prepared.statement);
            let running = Running::planned(&prepared.scope);
            match self.admit(&statement, running, &parameters, None).await {
                // 0 for what is counted: it has no intent, and is not counted again.
                Ok(admitted) => number = Some(admitted.number.unwrap_or_default()),
                Err(refusal) => return Ok(self.refuse_in_batch(&refusal, Some(&statement))),
            }
        }
        if self.session.is_governed() {
            let (statement, parameters) = (Arc::clone(&prepared.statement), Arc::clone(&parameters));
            self.forget_unsent(&portal);
            self.unsent_binds.push(Unsent { portal: Some(portal.clone()), statement, parameters });
        }
        let mut flow = self.session.flow();
        // A portal of that name is gone. Of what is counted no parameter is kept.
        if self.session.is_logged() {
            if let Found::Known(before) | Found::Unsure(Some(before)) = flow.names.portal(&portal) {
                flow.forget_kept(size_of(&before.parameters));
            }
            flow.kept += size_of(&parameters);
        }
        flow.names.bind(portal, &prepared, parameters, portal_is_decoded, number);
        flow.send(Confirmed::Pass, None);
        // A face has PostgreSQL's own functions only, and those that read tables are refused. But planning can call
        // them, and they can say something by an error.
        let may_say = if is_face { plans_calls(analysis) } else { may_read };
        if may_say {
            flow.sent_may_read();
        }
        Ok(passage)
    }

    fn describe(&mut self, body: &[u8]) -> std::io::Result<Passage> {
        if self.session.metering.is_some() {
            let portal = body.split_first().filter(|(kind, _)| **kind == b'P');
            let portal = portal.and_then(|(_, rest)| self.name(&mut Body(rest))).map(|(_, name, _)| name);
            let mut flow = self.session.flow();
            flow.describes(Described::Theirs);
            flow.just_described = portal;
        }
        let Some((b'S', rest)) = body.split_first().filter(|_| self.session.changes_connections()) else {
            return Ok(Passage::Forward);
        };
        let named = self.name(&mut Body(rest));
        let (sent, name, _) = named.ok_or_else(|| invalid("a malformed Describe message"))?;
        let prepared = match self.prepared(sent, &name) {
            Ok(prepared) => prepared,
            Err(failed) => return Ok(failed),
        };
        let (own, mut out) = match self.on_connection(sent, &prepared) {
            Ok(known) => known,
            Err(failed) => return Ok(failed),
        };
        put(&mut out, b'D', |out| {
            out.push(b'S');
            put_bytes(out, &own);
        });
        Ok(Passage::Replace(out))
    }

    /// The name of a portal has a new meaning, or none: the store only plans what was bound to it.
    fn forget_unsent(&mut self, portal: &str) {
        for unsent in &mut self.unsent_binds {
            if unsent.portal.as_deref() == Some(portal) {
                unsent.portal = None;
            }
        }
    }

    fn close(&mut self, body: &[u8]) -> std::io::Result<Passage> {
        let (kind, rest) = body.split_first().ok_or_else(|| invalid("an empty Close message"))?;
        let named = self.name(&mut Body(rest));
        let (sent, name, _) = named.ok_or_else(|| invalid("a Close message without a name"))?;
        let is_portal = *kind == b'P';
        if is_portal {
            self.forget_unsent(&name);
        }
        let mut flow = self.session.flow();
        if is_portal
            && self.session.is_logged()
            && let Found::Known(before) = flow.names.portal(&name)
        {
            flow.forget_kept(size_of(&before.parameters));
        }
        let is_reserved = self.session.changes_connections() && name.starts_with(SHARED);
        let is_shared = !is_portal && !sent.is_empty() && (is_reserved || flow.names.is_shared(&name));
        flow.names.close(is_portal, name);
        flow.send(Confirmed::Pass, None);
        // What a name stands for may be others', too: the connection keeps it.
        Ok(if is_shared { Passage::Replace(stand_in::close_nothing()) } else { Passage::Forward })
    }

    async fn execute(&mut self, body: &[u8]) -> std::io::Result<Passage> {
        let named = self.name(&mut Body(body));
        let (sent, name, _) = named.ok_or_else(|| invalid("a malformed Execute message"))?;
        let portal = match self.portal(sent, &name) {
            Ok(portal) => portal,
            Err(failed) => return Ok(failed),
        };
        let statement = Arc::clone(&portal.statement);
        // What stands in its place was chosen when it was parsed, by what its name stood for then.
        if self.session.changes_connections()
            && self.deallocates_shared(&statement.analysis) != statement.deallocates_shared
        {
            let refusal = resolve::unsure(&statement.text);
            return Ok(self.refuse_in_batch(&refusal, Some(&statement)));
        }
        if let Some(refusal) = self.too_many_names(&statement) {
            return Ok(self.refuse_in_batch(&refusal, Some(&statement)));
        }
        let mut begun = Vec::new();
        let mut may_copy_in = statement.analysis.may_copy_in();
        let admitted = match self.resolver(|resolver| resolver.portal(&name, &portal)) {
            Ok(mut running) => {
                may_copy_in |= running.meant.iter().any(|(_, meant)| meant.analysis.may_copy_in());
                begun = std::mem::take(&mut running.begun);
                // Only what is counted before it runs depends on it: the store sees the rows as they are when it
                // gets the Bind.
                self.holds = false;
                let is_it = |unsent: &Unsent| unsent.portal.as_deref() == Some(&*name);
                let unsent = self.unsent_binds.iter().rposition(is_it);
                running.is_from_before |= self.session.is_governed() && unsent.is_none();
                self.note_more(&running);
                // A portal that goes on has its intent, unless something may have put another in its place.
                let number = portal.number.filter(|_| portal.is_sure && running.meant.is_empty());
                let admitted = self.admit(&statement, running, &portal.parameters, number).await;
                if let Some(place) = unsent.filter(|_| admitted.is_ok()) {
                    self.unsent_binds.remove(place);
                    self.unsent_before_hold -= usize::from(place < self.unsent_before_hold);
                }
                admitted
            }
            Err(refusal) => Err(refusal),
        };
        let mut in_flight = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(self.refuse_in_batch(&refusal, Some(&statement))),
        };
        in_flight.deallocates_shared = statement.deallocates_shared;
        note_ends(&mut in_flight, &statement.analysis);
        self.may_copy_in = may_copy_in;
        let mut flow = self.session.flow();
        for begun in begun.iter_mut().filter(|begun| begun.name == name) {
            begun.number = in_flight.number;
        }
        in_flight.changes_names = flow.names.execute((!portal.in_sql).then_some(&statement), begun);
        flow.sets(&statement.analysis);
        let wants_description = in_flight.watch.as_ref().is_some_and(|w| w.wants_description());
        flow.begin(in_flight);
        let is_described = flow.just_described.take().is_some_and(|n| *n == *name);
        if !wants_description {
            return Ok(Passage::Forward);
        }
        // libpq describes each portal right before it runs it; others may have described it long ago, or
        // never.
        if let Some(last) = flow.described.back_mut().filter(|_| is_described) {
            *last = Described::Next;
            return Ok(Passage::Forward);
        }
        flow.describes(Described::Ours);
        Ok(Passage::Precede(stand_in::describe(sent)))
    }

    /// What a portal is. `Err` where a governed client may not run it.
    fn portal(&mut self, sent: &[u8], name: &str) -> Result<Portal, Passage> {
        let is_governed = self.session.is_governed();
        let found = self.session.flow().names.portal(name);
        match found {
            Found::Known(portal) => Ok(portal),
            Found::Unsure(Some(portal)) if !is_governed => Ok(portal),
            Found::Unsure(_) if is_governed => {
                let refusal = resolve::unsure(&shown(sent));
                Err(self.refuse_in_batch(&refusal, None))
            }
            Found::Absent if is_governed => {
                let message = format!("portal \"{}\" does not exist", shown(sent));
                Err(self.fail_in_batch(&Refusal::new(code::NO_SUCH_CURSOR, message)))
            }
            Found::Unsure(_) | Found::Absent => {
                let text = format!(
                    "-- goes on with what was declared as {:?}, which the gateway did not see",
                    shown(sent)
                );
                let analysis = Arc::new(Analysis::not_understood(self.session.settings()));
                Ok(Portal::unseen(Arc::new(Statement::of(&text, analysis, self.session.settings()))))
            }
        }
    }

    async fn function_call(&mut self, body: &[u8]) -> std::io::Result<Passage> {
        let session = self.session;
        let number = Body(body).i32().ok_or_else(|| invalid("a malformed FunctionCall message"))?;
        if session.is_governed() {
            let refusal = Refusal::new(
                code::INSUFFICIENT_PRIVILEGE,
                "function-call messages are not allowed through a face or across the border",
            )
            .hint("Use SELECT.");
            return Ok(self.refuse_query(&refusal, None));
        }
        let number = number.cast_unsigned();
        let name = session.function_name(number).await;
        let analysis = Arc::new(Analysis::function_call(&name));
        let text = format!("{FUNCTION_CALL}{name}");
        let statement = Arc::new(Statement::of(&text, analysis, session.settings()));
        let running = Running::unseen(&statement);
        match self.admit(&statement, running, &Arc::from([]), None).await {
            Ok(in_flight) => {
                let mut flow = session.flow();
                if number >= FIRST_OWN_FUNCTION {
                    flow.names.be_unsure();
                    flow.changes_unseen = true;
                }
                flow.begin(InFlight { is_simple: true, ..in_flight });
                Ok(Passage::Forward)
            }
            Err(refusal) => Ok(self.refuse_query(&refusal, None)),
        }
    }
}

/// In which parts of a text there is something that is counted again, by a bit for each.
fn again_in(session: &Session, statement: &Statement, running: &Running, runs: Runs) -> u64 {
    let only_defines = runs == Runs::Own && !session.is_face();
    // What goes on was counted when it began; code of others looks at the rows as they are now.
    let goes_on = |run: &resolve::Run| run.goes_on && runs == Runs::Own;
    let counts = |run: &&resolve::Run| !(goes_on(run) || only_defines && run_only_defines(statement, run));
    let parts = running.runs.iter().filter(counts).map(|run| run.part.min(63));
    parts.fold(0, |bits, part| bits | 1 << part)
}

/// Whether what runs is a definition that calls nothing.
fn run_only_defines(statement: &Statement, run: &resolve::Run) -> bool {
    statement.analysis.parts.get(run.part).is_some_and(|part| part.only_defines)
}

/// Whether planning a statement can call functions.
fn plans_calls(analysis: &Analysis) -> bool {
    analysis.symbols.runs_functions() && !analysis.uses_names()
}

/// Whether a part of a text ends a transaction, or goes back in it.
fn may_end_transaction(analysis: &Analysis) -> bool {
    let ends = |e: &Effect| matches!(e, Effect::Commit | Effect::Rollback | Effect::RollbackTo(_));
    analysis.parts.iter().filter_map(|part| part.effect.as_ref()).any(ends)
}

/// Whether a text is one statement that ends a transaction, or goes back in it.
fn ends_transaction(analysis: &Analysis) -> bool {
    analysis.parts.len() == 1 && may_end_transaction(analysis)
}

/// Notes which parts of a text end a transaction, or go back in it.
fn note_ends(in_flight: &mut InFlight, analysis: &Analysis) {
    in_flight.ends = may_end_transaction(analysis);
    for (n, part) in analysis.parts.iter().enumerate() {
        match part.effect {
            Some(Effect::Commit) => in_flight.commits = true,
            Some(Effect::RollbackTo(_)) if n < 64 => in_flight.to_savepoints |= 1 << n,
            _ => {}
        }
    }
}

/// Which code of others a statement may run, and what follows from that for its session.
async fn look_at_code(session: &Session, statement: &Statement, running: &Running) -> Result<Runs, Refusal> {
    if session.is_face() {
        return Ok(Runs::Own);
    }
    session.look_at_code().await.map_err(|e| cannot_connect(&e))?;
    let by_name = running.meant.iter().map(|(_, meant)| &meant.analysis);
    let all = std::iter::once(&statement.analysis).chain(by_name);
    let mut runs = Runs::Own;
    let (mut flow_defines, mut defines_unseen, mut must_reset) = (false, false, false);
    for analysis in all {
        let may = session.may(analysis);
        runs = runs.max(may.runs);
        // What a workload does in blocks of PL/pgSQL, or in words that are not read, defines nothing as a rule.
        let is_seen = session.is_logged() || analysis.parts.iter().all(|p| p.effect != Some(Effect::Unsure));
        flow_defines |= analysis.defines_code && is_seen;
        // Code can make code, too.
        defines_unseen |= session.is_logged() && may.defines_unseen;
        must_reset |= analysis.runs_sql;
    }
    let mut flow = session.flow();
    // Triggers that wait run with COMMIT, and so does the rest of a cursor.
    let runs_late = |e: &Effect| *e == Effect::Commit;
    let is_late = statement.analysis.parts.iter().any(|part| part.effect.as_ref().is_some_and(runs_late))
        || statement.analysis.sets_constraints;
    if is_late && flow.ran_others {
        runs = runs.max(Runs::Reads);
    }
    flow.ran_others |= runs != Runs::Own;
    flow.defines |= flow_defines;
    flow.defines_unseen |= defines_unseen;
    flow.must_reset |= must_reset;
    if runs == Runs::Changes {
        flow.must_reset = true;
        flow.settings_unsure = true;
        flow.level_is_unsure();
        // What is counted goes by the texts that were sent: its names stay.
        if session.is_logged() {
            flow.names.be_unsure();
            flow.changes_unseen = true;
        }
    }
    Ok(runs)
}

/// What a Parse message says about its parameters' types.
struct DeclaredTypes {
    /// It names one.
    any: bool,
    /// It names one that is not PostgreSQL's own.
    own: bool,
}

/// `body` stands behind the text.
fn declared_types(body: &Body<'_>) -> DeclaredTypes {
    let mut declared = DeclaredTypes { any: false, own: false };
    let Some((count, types)) = body.0.split_first_chunk::<2>() else { return declared };
    let mut types = Body(types);
    for _ in 0..u16::from_be_bytes(*count) {
        let Some(oid) = types.i32() else { break };
        declared.any |= oid != 0;
        declared.own |= oid.cast_unsigned() >= FIRST_OWN_FUNCTION;
    }
    declared
}

/// Reads what the client has sent; 0 means the end.
async fn fill<R: AsyncRead + Unpin>(
    session: &Session,
    client: &mut R,
    buffer: &mut Buffer,
) -> std::io::Result<usize> {
    let count = buffer.fill(client).await?;
    session.flow().traffic.received += count as u64;
    Ok(count)
}

/// A name in a message, for an error text.
fn shown(name: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(name)
}

fn no_such_statement(name: &[u8]) -> Refusal {
    let message = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{}\" does not exist", shown(name))
    };
    Refusal::new(code::NO_SUCH_STATEMENT, message)
}

fn put_bytes(out: &mut Vec<u8>, name: &[u8]) {
    out.extend_from_slice(name);
    out.push(0);
}
