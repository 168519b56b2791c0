//! Traces, for those who look for where the time went: a span for each statement of a sample (OpenTelemetry, semantic conventions for
//! databases), under the client's own span where its SQL names one in a comment (sqlcommenter, W3C Trace Context). A span says what kind
//! of statement it was, how long it took and how it ended: never its text, a value, or who ran it. Those are the ledger's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};

/// Shares are counted in millionths.
const WHOLE: u64 = 1_000_000;
/// Methods as spans name them; all others are `_OTHER`.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// What begins a traceparent in a comment; sqlcommenter writes values in quotes, percent-encoded, which this one has nothing to be.
const TRACEPARENT: &str = "traceparent='";

/// Where spans go, and of how many statements.
pub struct Traces {
    tracer: BoxedTracer,
    /// Of a million.
    share: u64,
    seen: AtomicU64,
    last: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traces").field("share", &self.share).finish_non_exhaustive()
    }
}

/// A statement that is traced.
#[derive(Debug)]
pub struct Begun {
    at: SystemTime,
    parent: Option<SpanContext>,
    operation: Option<&'static str>,
}

/// A statement that is over, while its answer has not passed.
#[derive(Debug)]
pub struct Over {
    /// How it began.
    pub begun: Box<Begun>,
    /// Its number in the session.
    pub number: Option<u64>,
    /// Rows let through.
    pub rows: u64,
    /// The SQLSTATE it failed with.
    pub failed: Option<String>,
    /// Whether it was cut.
    pub is_cut: bool,
}

impl Traces {
    /// `share`: of how many statements that no client traces itself, from 0 to 1; `last` delivers what is left at the end.
    pub fn new(tracer: BoxedTracer, share: f64, last: Box<dyn Fn() + Send + Sync>) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "between 0 and a million"
        )]
        let share = (share.clamp(0.0, 1.0) * WHOLE as f64) as u64;
        Self { tracer, share, seen: AtomicU64::new(0), last }
    }

    /// Delivers what is left. May take as long as a collector may.
    pub fn close(&self) {
        (self.last)();
    }

    /// Every so many, evenly.
    fn is_chosen(&self) -> bool {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) % WHOLE;
        seen * self.share / WHOLE != (seen + 1) * self.share / WHOLE
    }

    /// A statement begins. `None` where it is not traced: the client has decided that, or chance.
    pub fn begin(&self, text: &str) -> Option<Box<Begun>> {
        let parent = parent(text);
        let is_traced = parent.as_ref().map_or_else(|| self.is_chosen(), SpanContext::is_sampled);
        is_traced.then(|| Box::new(Begun { at: SystemTime::now(), parent, operation: operation(text) }))
    }

    /// Its answer has passed, or never will. `session` is its name in the ledger: whoever may read that finds the rest there; `durable` is
    /// when the ledger had what was promised to it before.
    pub fn end(&self, over: Over, store: &str, session: &str, durable: Option<SystemTime>) {
        let Over { begun, number, rows, failed, is_cut } = over;
        let name =
            begun.operation.map_or_else(|| store.to_owned(), |operation| format!("{operation} {store}"));
        let number_of = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut attributes = vec![
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.namespace", store.to_owned()),
            KeyValue::new("db.response.returned_rows", number_of(rows)),
            KeyValue::new("ringfence.session", session.to_owned()),
        ];
        attributes.extend(begun.operation.map(|operation| KeyValue::new("db.operation.name", operation)));
        attributes.extend(number.map(|n| KeyValue::new("ringfence.statement", number_of(n))));
        let error = failed.clone().or_else(|| is_cut.then(|| "cut".to_owned()));
        attributes.extend(failed.map(|code| KeyValue::new("db.response.status_code", code)));
        attributes.extend(error.clone().map(|error| KeyValue::new("error.type", error)));
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_start_time(begun.at)
            .with_attributes(attributes);
        let parent = begun.parent.map_or_else(Context::new, |of| Context::new().with_remote_span_context(of));
        let mut span = self.tracer.build_with_context(builder, &parent);
        if let Some(at) = durable {
            span.add_event_with_timestamp("ringfence.ledger.durable", at, Vec::new());
        }
        if error.is_some() {
            span.set_status(Status::Error { description: "".into() });
        }
        span.end();
    }

    /// A request to the console that was answered: by the page's pattern, which has nobody's name in it.
    pub fn page(&self, method: &str, route: &str, parent: Option<&str>, at: SystemTime, status: u16) {
        let parent = parent.and_then(context);
        if !parent.as_ref().map_or_else(|| self.is_chosen(), SpanContext::is_sampled) {
            return;
        }
        // A method may be any word: one that is not known is a stranger's text.
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("_OTHER");
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ];
        if status >= 500 {
            attributes.push(KeyValue::new("error.type", status.to_string()));
        }
        let builder = SpanBuilder::from_name(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_start_time(at)
            .with_attributes(attributes);
        let parent = parent.map_or_else(Context::new, |of| Context::new().with_remote_span_context(of));
        let mut span = self.tracer.build_with_context(builder, &parent);
        if status >= 500 {
            span.set_status(Status::Error { description: "".into() });
        }
        span.end();
    }
}

/// The client's span, from a comment at the statement's end.
fn parent(text: &str) -> Option<SpanContext> {
    let comment = text.trim_end().trim_end_matches(';').trim_end().strip_suffix("*/")?;
    let (_, comment) = comment.rsplit_once("/*")?;
    let (_, value) = comment.split_once(TRACEPARENT)?;
    context(value.split_once('\'')?.0)
}

/// A traceparent of version 00 (W3C Trace Context, section 3.2): anything else is none.
fn context(traceparent: &str) -> Option<SpanContext> {
    let is_hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [(version, 2), (trace, 32), (span, 16), (flags, 2)];
    if version != "00" || parts.next().is_some() || !lengths.iter().all(|(p, n)| p.len() == *n && is_hex(p)) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

/// What a statement does, by its first word.
fn operation(text: &str) -> Option<&'static str> {
    const KNOWN: [&str; 24] = [
        "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE", "COPY", "FETCH",
        "DECLARE", "BEGIN", "START", "COMMIT", "ROLLBACK", "END", "SET", "SHOW", "CALL", "DO", "EXECUTE",
        "EXPLAIN", "PREPARE", "ANALYZE",
    ];
    let word = text.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next()?;
    KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn a_clients_span_is_taken_from_a_comment_at_the_end() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let of = |text: &str| parent(text).map(|c| (c.trace_id().to_string(), c.is_sampled()));
        let found = Some(("4bf92f3577b34da6a3ce929d0e0e4736".to_owned(), true));
        assert_eq!(of(&format!("select 1 /*a='b',traceparent='{good}'*/")), found);
        assert_eq!(of(&format!("select 1 /* traceparent='{good}' */ ; ")), found);
        let unsampled = good.replace("-01", "-00");
        assert!(!of(&format!("select 1 /*traceparent='{unsampled}'*/")).unwrap().1);
        for none in [
            "select 1".to_owned(),
            format!("select 'traceparent=''{good}'"),
            format!("/*traceparent='{good}'*/ select 1"),
            format!("select 1 /*traceparent='{}'*/", good.replace("00-4", "01-4")),
            format!("select 1 /*traceparent='{}'*/", good.replace("4bf92f", "4BF92F")),
            format!("select 1 /*traceparent='{good}-x'*/"),
            "select 1 /*traceparent='00-00000000000000000000000000000000-00f067aa0ba902b7-01'*/".to_owned(),
            "*/".to_owned(),
            "/*traceparent='*/".to_owned(),
        ] {
            assert_eq!(of(&none), None, "{none}");
        }
    }

    #[test]
    fn a_sample_is_even_and_as_large_as_was_asked_for() {
        let tracer = || BoxedTracer::new(Box::new(opentelemetry::trace::noop::NoopTracer::new()));
        for (share, wanted) in [(0.0, 0), (1.0, 1000), (0.01, 10), (0.5, 500)] {
            let traces = Traces::new(tracer(), share, Box::new(|| {}));
            assert_eq!((0..1000).filter(|_| traces.is_chosen()).count(), wanted, "{share}");
        }
    }

    #[test]
    fn the_operation_is_a_word_that_is_known() {
        assert_eq!(operation("  select email from users"), Some("SELECT"));
        assert_eq!(operation("WITH x AS (select 1) select * from x"), Some("WITH"));
        assert_eq!(operation("secret_word"), None);
        assert_eq!(operation(""), None);
    }
}
