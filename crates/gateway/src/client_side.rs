//! From the client to the store. Frames go on as they came; before one that runs a statement, its intent is handed to the
//! ledger. What is refused is replaced by something that the store itself answers with an error, in its turn: so answers
//! stay in order and a refusal aborts a transaction as any error does; the other side puts our text in its place.

use std::sync::Arc;

use ringfence_ledger::{Entry, Kind};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::flow::{InFlight, Portal, Statement};
use crate::frame::{self, Body, Buffer, HEADER, MAX_FRAME, put, put_str};
use crate::records::IntentRecord;
use crate::refusal::{Refusal, code};
use crate::session::{End, Mode, Session};
use crate::statement::Verdict;

/// The largest frame of a governed person: their statements are short, their parameters shorter.
const MAX_GOVERNED_FRAME: usize = 1 << 20;
/// The most prepared statements and portals of a session.
const MAX_NAMES: usize = 10_000;
/// The longest statement text in a record; the digest of a longer one would say less than its beginning.
const MAX_RECORDED: usize = 256 * 1024;
/// The most bytes of parameters in a record.
const MAX_PARAMETERS: usize = 16 * 1024;

/// What stands in a refused statement's place; the number comes after it.
pub const REFUSED: &str = "ringfence_refused_";

struct Side<'a, W> {
    session: &'a Session,
    store: &'a mut W,
    out: Vec<u8>,
    /// After a refusal in a batch the store skips to Sync; so do we.
    skipping: bool,
}

/// Runs until the client leaves or breaks the protocol.
pub async fn run<R, W>(session: &Session, client: &mut R, buffer: &mut Buffer, store: &mut W) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut side = Side { session, store, out: Vec::with_capacity(4096), skipping: false };
    match side.run(client, buffer).await {
        Ok(end) => end,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            let refusal = Refusal::new(code::PROTOCOL_VIOLATION, error.to_string());
            End::Refused(refusal.hint("The client does not speak PostgreSQL's protocol 3 correctly."), true)
        }
        Err(_) => End::Client,
    }
}

fn invalid(what: impl std::fmt::Display) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_string())
}

impl<W: AsyncWrite + Unpin> Side<'_, W> {
    async fn run<R: AsyncRead + Unpin>(
        &mut self,
        client: &mut R,
        buffer: &mut Buffer,
    ) -> std::io::Result<End> {
        let max = if self.session.is_face() { MAX_GOVERNED_FRAME } else { MAX_FRAME };
        loop {
            let Some(head) = frame::head(buffer.data(), max).map_err(invalid)? else {
                self.flush().await?;
                if buffer.fill(client).await? == 0 {
                    return Ok(End::Client);
                }
                continue;
            };
            if head.tag == b'd' {
                self.copy_data(head.total, client, buffer).await?;
                continue;
            }
            if buffer.data().len() < head.total {
                self.flush().await?;
                buffer.reserve(head.total);
                if buffer.fill(client).await? == 0 {
                    return Ok(End::Client);
                }
                continue;
            }
            if head.tag == b'X' {
                self.flush().await?;
                return Ok(End::Client);
            }
            if !matches!(head.tag, b'c' | b'f') {
                self.batch_answered().await?;
            }
            let whole = &buffer.data()[..head.total];
            self.frame(head.tag, whole).await?;
            buffer.consume(head.total);
            if self.out.len() > 32 * 1024 {
                self.flush().await?;
            }
        }
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        if !self.out.is_empty() {
            self.store.write_all(&self.out).await?;
            self.out.clear();
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
            let have = left.min(buffer.data().len());
            self.out.extend_from_slice(&buffer.data()[..have]);
            buffer.consume(have);
            left -= have;
            if self.out.len() > 32 * 1024 {
                self.flush().await?;
            }
            if left == 0 {
                return Ok(());
            }
            self.flush().await?;
            if buffer.fill(client).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits until the store has answered the batch before.
    async fn batch_answered(&mut self) -> std::io::Result<()> {
        if self.session.flow().unready == 0 {
            return Ok(());
        }
        self.flush().await?;
        loop {
            let answered = self.session.answered.notified();
            if self.session.flow().unready == 0 {
                return Ok(());
            }
            answered.await;
        }
    }

    async fn frame(&mut self, tag: u8, whole: &[u8]) -> std::io::Result<()> {
        let body = &whole[HEADER..];
        if self.skipping && tag != b'S' && tag != b'Q' {
            return Ok(());
        }
        match tag {
            b'Q' => self.query(whole, Body(body)).await,
            b'P' => self.parse(whole, body),
            b'B' => self.bind(whole, body),
            b'E' => self.execute(whole, body).await,
            b'C' => {
                let (kind, rest) = body.split_first().ok_or_else(|| invalid("an empty Close message"))?;
                let name = Body(rest).string().ok_or_else(|| invalid("a Close message without a name"))?;
                self.session.flow().close(*kind == b'P', name);
                self.pass(whole)
            }
            b'S' => {
                self.skipping = false;
                self.session.flow().sync();
                self.pass(whole)
            }
            b'D' | b'H' | b'c' | b'f' => self.pass(whole),
            b'F' => self.function_call(whole),
            other => Err(invalid(format!("an unknown message of type {:?}", char::from(other)))),
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "handlers that can fail end with it")]
    fn pass(&mut self, whole: &[u8]) -> std::io::Result<()> {
        self.out.extend_from_slice(whole);
        Ok(())
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
        Statement { text: text.into(), verdict }
    }

    async fn query(&mut self, whole: &[u8], mut body: Body<'_>) -> std::io::Result<()> {
        self.skipping = false;
        let text = match self.text(&mut body) {
            Ok(text) if body.0.is_empty() => text,
            Err(Some(refusal)) => return self.refuse_query(&refusal, None),
            _ => return Err(invalid("a malformed Query message")),
        };
        let statement = Arc::new(self.read(&text));
        match self.admit(&statement, true, &[], None).await {
            Ok(in_flight) => {
                self.session.flow().begin(in_flight);
                self.pass(whole)
            }
            Err(refusal) => self.refuse_query(&refusal, Some(&statement.text)),
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
        if let Mode::Counted = session.mode {
            let shape = session.shared.counting.shape(&statement.text);
            return Ok(InFlight::new(None, simple, Some(shape), Vec::new()));
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
        let number = match number {
            Some(number) => number, // a portal that goes on
            None => self.announce(&statement.text, parameters)?,
        };
        Ok(InFlight::new(Some(number), simple, None, charge))
    }

    /// Hands the intent to the ledger. The answer will not pass before it is durable.
    fn announce(&mut self, text: &str, parameters: &[Box<str>]) -> Result<u64, Refusal> {
        let session = self.session;
        session.shared.ledger.healthy().map_err(|e| unrecorded(&e))?;
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
        let ticket =
            session.shared.ledger.append(Entry::new(Kind::Intent, &session.store.jurisdiction, &record));
        flow.tickets.push_back(ticket);
        Ok(n)
    }

    /// Puts something in a refused statement's place that the store answers with an error in its turn.
    fn stand_in(&mut self, refusal: &Refusal, text: Option<&str>) -> String {
        self.session.refused(&refusal.message, text.map(|t| truncate(t, MAX_RECORDED)));
        let mut flow = self.session.flow();
        let n = flow.number();
        flow.refusals.push((n, refusal.clone()));
        format!("{REFUSED}{n}")
    }

    #[allow(clippy::unnecessary_wraps, reason = "handlers that can fail end with it")]
    fn refuse_query(&mut self, refusal: &Refusal, text: Option<&str>) -> std::io::Result<()> {
        let stand_in = self.stand_in(refusal, text);
        self.session.flow().begin(InFlight::new(None, true, None, Vec::new()));
        put(&mut self.out, b'Q', |out| put_str(out, &stand_in));
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps, reason = "handlers that can fail end with it")]
    fn refuse_in_batch(&mut self, refusal: &Refusal, text: Option<&str>) -> std::io::Result<()> {
        let stand_in = self.stand_in(refusal, text);
        self.skipping = true;
        put(&mut self.out, b'P', |out| {
            put_str(out, "");
            put_str(out, &stand_in);
            out.extend_from_slice(&[0, 0]);
        });
        Ok(())
    }

    fn parse(&mut self, whole: &[u8], body: &[u8]) -> std::io::Result<()> {
        let mut body = Body(body);
        let name = body.string().ok_or_else(|| invalid("a malformed Parse message"))?;
        let text = match self.text(&mut body) {
            Ok(text) => text,
            Err(Some(refusal)) => return self.refuse_in_batch(&refusal, None),
            Err(None) => return Err(invalid("a malformed Parse message")),
        };
        if self.session.flow().names() > MAX_NAMES {
            let refusal = Refusal::new(code::LIMIT_EXCEEDED, "too many prepared statements in this session");
            return self.refuse_in_batch(&refusal.hint("Close those that are no longer needed."), None);
        }
        let statement = self.read(&text);
        if let Some(refused) = statement.verdict.as_ref().and_then(|v| v.refused.as_ref()) {
            let refused = refused.clone();
            return self.refuse_in_batch(&refused, Some(&text));
        }
        if let Some(verdict) = &statement.verdict {
            self.session.explain(verdict);
        }
        self.session.flow().parse(name, Arc::new(statement));
        self.pass(whole)
    }

    fn bind(&mut self, whole: &[u8], body: &[u8]) -> std::io::Result<()> {
        let mut body = Body(body);
        let (Some(portal), Some(name)) = (body.string(), body.string()) else {
            return Err(invalid("a malformed Bind message"));
        };
        let parameters = if self.session.is_logged() { parameters(body) } else { Some(Vec::new()) };
        let parameters = parameters.ok_or_else(|| invalid("a malformed Bind message"))?;
        let mut flow = self.session.flow();
        let statement = flow.statement(name);
        flow.bind(portal, Portal { statement, parameters: parameters.into(), number: None });
        drop(flow);
        self.pass(whole)
    }

    async fn execute(&mut self, whole: &[u8], body: &[u8]) -> std::io::Result<()> {
        let name = Body(body).string().ok_or_else(|| invalid("a malformed Execute message"))?;
        let found = self.session.flow().portal(name).cloned();
        let number = found.as_ref().and_then(|p| p.number);
        let (statement, parameters) = match found {
            Some(Portal { statement: Some(statement), parameters, .. }) => (statement, parameters),
            _ => (Arc::new(self.made_in_sql(name)), Vec::new().into()),
        };
        match self.admit(&statement, false, &parameters, number).await {
            Ok(in_flight) => {
                let mut flow = self.session.flow();
                if let Some(portal) = flow.portal(name) {
                    portal.number = in_flight.number;
                }
                flow.begin(in_flight);
                drop(flow);
                self.pass(whole)
            }
            Err(refusal) => self.refuse_in_batch(&refusal, Some(&statement.text)),
        }
    }

    /// A cursor or a prepared statement that was made in SQL: its text is on record from then.
    fn made_in_sql(&self, name: &str) -> Statement {
        let text = format!("-- goes on with what was declared or prepared in SQL as {name:?}").into();
        let verdict =
            self.session.is_face().then(|| Arc::new(Verdict { opaque: true, ..Verdict::default() }));
        Statement { text, verdict }
    }

    fn function_call(&mut self, whole: &[u8]) -> std::io::Result<()> {
        if self.session.is_face() {
            let refusal = Refusal::new(
                code::INSUFFICIENT_PRIVILEGE,
                "function-call messages are not allowed through a face",
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
        self.pass(whole)
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

/// The parameters of a Bind message, after its names, as a record keeps them.
fn parameters(mut body: Body<'_>) -> Option<Vec<Box<str>>> {
    let formats: Option<Vec<u16>> = (0..body.u16()?).map(|_| body.u16()).collect();
    let formats = formats?;
    let count = body.u16()?;
    let mut kept = Vec::new();
    let mut budget = MAX_PARAMETERS;
    for i in 0..usize::from(count) {
        let length = body.i32()?;
        if length < 0 {
            kept.push("NULL".into());
            continue;
        }
        let value = body.take(usize::try_from(length).ok()?)?;
        let is_binary = match formats[..] {
            [] => false,
            [one] => one != 0,
            ref each => each.get(i).is_some_and(|f| *f != 0),
        };
        let shown = &value[..value.len().min(budget)];
        budget -= shown.len();
        let mut text = match std::str::from_utf8(shown) {
            Ok(text) if !is_binary => text.to_owned(),
            _ => format!("\\x{}", hex::encode(shown)),
        };
        if shown.len() < value.len() {
            text.push('…');
        }
        kept.push(text.into());
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_kept_as_text_or_hex_and_bounded() {
        let mut body = vec![0, 2, 0, 0, 0, 1, 0, 3];
        body.extend(b"\0\0\0\x02ab\0\0\0\x01\xff\xff\xff\xff\xff");
        assert_eq!(
            parameters(Body(&body)).unwrap(),
            ["ab".into(), "\\xff".into(), "NULL".into()] as [Box<str>; 3]
        );
        assert_eq!(parameters(Body(&body[..body.len() - 1])), None);
        let long = [&b"\0\0\0\x01\0\x01\0\0"[..], &vec![b'x'; 65536]].concat();
        let kept = parameters(Body(&long)).unwrap();
        assert_eq!(kept[0].chars().count(), MAX_PARAMETERS + 1);
    }
}
