//! Spans, as a collector gets them: under the client's own, with what a statement was and how long, and with nothing of what it said.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use support::{Demo, text};

/// What a collector got: whole messages, as OTLP has them (HTTP, protobuf).
type Got = Arc<Mutex<Vec<Vec<u8>>>>;

/// Takes what comes to `/v1/traces`.
fn collector() -> (u16, Got) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let got = Got::default();
    let into = Arc::clone(&got);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let into = Arc::clone(&into);
            std::thread::spawn(move || while take(&stream, &into).is_some() {});
        }
    });
    (port, got)
}

/// One request of a connection.
fn take(mut stream: &TcpStream, into: &Got) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
    assert!(head.starts_with("post /v1/traces ") && head.contains("application/x-protobuf"), "{head}");
    let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    into.lock().unwrap().push(body);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}

fn spans(got: &Got) -> Vec<Span> {
    let got = got.lock().unwrap();
    let read = got.iter().map(|body| ExportTraceServiceRequest::decode(body.as_slice()).unwrap());
    read.flat_map(|r| r.resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
}

fn attribute(span: &Span, key: &str) -> String {
    let value = span.attributes.iter().find(|a| a.key == key).and_then(|a| a.value.clone()?.value);
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_statement_is_a_span_that_says_nothing_of_what_it_said() {
    let demo = Demo::start("traces");
    let (port, got) = collector();
    let console = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
    std::fs::write(demo.dir.join("keys/console.secret"), "a secret").unwrap();
    let served = demo.serve_with("traces", "", |config| {
        format!(
            "{config}\n[traces]\nendpoint = \"http://127.0.0.1:{port}/v1/traces\"\nshare = 0.0\n\n[console]\nlisten = \"127.0.0.1:{console}\"\norigin = \"http://localhost:{console}\"\n[console.provider]\nissuer = \"http://localhost:9\"\nclient_id = \"x\"\nclient_secret = \"keys/console.secret\"\n"
        )
    });
    let psql = |user: &str, sql: &str| {
        Command::new("psql")
            .arg(format!("host=127.0.0.1 port={} user={user} dbname=us", served.port))
            .args(["-X", "-A", "-t", "-c", sql])
            .env("PGPASSWORD", "demo")
            .output()
            .expect("psql runs")
    };
    let unsampled = PARENT.replace("-01", "-00");
    let read = "select email, 'canary-7351' from users limit 3";
    for (user, sql) in [
        ("singapore-analyst", read.to_owned()),
        ("singapore-analyst", format!("{read} /*traceparent='{unsampled}'*/")),
        ("singapore-analyst", format!("{read} /*traceparent='{PARENT}'*/")),
        ("us-engineer", format!("select 1 / 0 as canary /*traceparent='{PARENT}'*/")),
    ] {
        psql(user, &sql);
    }
    assert!(text(&psql("singapore-analyst", "select 'still here'")).contains("still here"));
    // The console's answers, by the pattern of their path.
    let mut page = TcpStream::connect(("127.0.0.1", console)).unwrap();
    let ask = format!(
        "GET /reports/canary.html HTTP/1.1\r\nhost: localhost:{console}\r\ntraceparent: {PARENT}\r\nconnection: close\r\n\r\n"
    );
    page.write_all(ask.as_bytes()).unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");

    // What is left is delivered at the end.
    assert!(Command::new("kill").args(["-TERM", &served.child.id().to_string()]).status().unwrap().success());
    for _ in 0..200 {
        if spans(&got).len() >= 3 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let found = spans(&got);
    assert_eq!(found.len(), 3, "{found:#?}");
    for span in &found {
        assert_eq!(hex(&span.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736", "{span:?}");
        assert_eq!(hex(&span.parent_span_id), "00f067aa0ba902b7", "{span:?}");
        assert!(span.end_time_unix_nano > span.start_time_unix_nano, "{span:?}");
    }
    let named = |name: &str| found.iter().filter(|s| s.name == name).collect::<Vec<_>>();
    let selects = named("SELECT us");
    let [good, bad] = selects.as_slice() else { panic!("{found:#?}") };
    assert_eq!(attribute(good, "db.system.name"), "postgresql");
    assert_eq!(attribute(good, "db.response.returned_rows"), "3");
    assert_eq!(good.events[0].name, "ringfence.ledger.durable");
    let at = good.events[0].time_unix_nano;
    assert!(good.start_time_unix_nano <= at && at <= good.end_time_unix_nano, "{good:?}");
    assert_eq!(attribute(bad, "db.response.status_code"), "22012");
    let pages = named("GET /reports/{name}");
    assert_eq!(attribute(pages[0], "http.response.status_code"), "404");
    // Nothing of anybody, nor of what was said.
    for body in got.lock().unwrap().iter() {
        for word in ["canary", "email", "users", "singapore", "engineer", "127.0.0.1"] {
            assert!(!body.windows(word.len()).any(|w| w == word.as_bytes()), "{word} is in a span");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
