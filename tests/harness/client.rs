//! A client whose messages are written by hand and whose answers are read whole.

use std::collections::BTreeMap;

use super::support::wire::{Gone, Wire, frame};

/// What came back until ReadyForQuery.
#[derive(Debug, Default)]
pub struct Answer {
    /// The values of each row; COPY data is a row of one value.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// The fields of each error.
    pub errors: Vec<BTreeMap<char, String>>,
    /// The fields of each notice.
    pub notices: Vec<BTreeMap<char, String>>,
    /// The messages' tags in order.
    pub tags: String,
    /// All bytes.
    pub bytes: Vec<u8>,
    /// The connection ended before ReadyForQuery.
    pub is_gone: bool,
}

impl Answer {
    /// The SQLSTATE of the first error.
    pub fn sqlstate(&self) -> Option<&str> {
        self.errors.first()?.get(&'C').map(String::as_str)
    }

    /// The first error in words.
    pub fn error(&self) -> String {
        let field = |name| self.errors.first().and_then(|e| e.get(&name)).cloned().unwrap_or_default();
        format!("{} / {} / {}", field('M'), field('D'), field('H'))
    }
}

fn fields(body: &[u8]) -> BTreeMap<char, String> {
    body.split(|b| *b == 0)
        .filter_map(|field| {
            let (name, text) = field.split_first()?;
            Some((char::from(*name), String::from_utf8_lossy(text).into_owned()))
        })
        .collect()
}

fn row(body: &[u8]) -> Vec<Option<Vec<u8>>> {
    let count = u16::from_be_bytes([body[0], body[1]]);
    let mut at = 2;
    (0..count)
        .map(|_| {
            let length = i32::from_be_bytes(body[at..at + 4].try_into().unwrap());
            at += 4;
            let length = usize::try_from(length).ok()?;
            at += length;
            Some(body[at - length..at].to_vec())
        })
        .collect()
}

fn text(parts: &[&str]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.bytes().chain([0])).collect()
}

pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &text(&[sql]))
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame(b'P', &[text(&[name, sql]).as_slice(), &[0, 0]].concat())
}

/// A Bind with parameters in text.
pub fn bind(portal: &str, statement: &str, parameters: &[&str]) -> Vec<u8> {
    let mut body = text(&[portal, statement]);
    body.extend([0, 0]);
    body.extend(u16::try_from(parameters.len()).unwrap().to_be_bytes());
    for parameter in parameters {
        body.extend(i32::try_from(parameter.len()).unwrap().to_be_bytes());
        body.extend(parameter.bytes());
    }
    body.extend([0, 0]);
    frame(b'B', &body)
}

pub fn describe(portal: &str) -> Vec<u8> {
    frame(b'D', &text(&[&format!("P{portal}")]))
}

pub fn execute(portal: &str, most: i32) -> Vec<u8> {
    frame(b'E', &[text(&[portal]).as_slice(), &most.to_be_bytes()].concat())
}

pub fn close(kind: char, name: &str) -> Vec<u8> {
    frame(b'C', &text(&[&format!("{kind}{name}")]))
}

pub fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

/// A function-call message without arguments.
pub fn call(function: i32) -> Vec<u8> {
    frame(b'F', &[function.to_be_bytes().as_slice(), &[0, 0, 0, 0, 0, 0]].concat())
}

/// Sends messages and reads to ReadyForQuery.
pub fn send(wire: &mut Wire, messages: &[Vec<u8>]) -> Answer {
    let before = wire.received.len();
    let sent = wire.send(&messages.concat());
    let mut answer = Answer::default();
    loop {
        let Ok((tag, body)) = sent.as_ref().map_err(|_| Gone).and_then(|()| wire.next()) else {
            answer.is_gone = true;
            break;
        };
        answer.tags.push(char::from(tag));
        match tag {
            b'D' => answer.rows.push(row(&body)),
            b'd' => answer.rows.push(vec![Some(body)]),
            b'E' => answer.errors.push(fields(&body)),
            b'N' => answer.notices.push(fields(&body)),
            b'Z' => break,
            _ => {}
        }
    }
    answer.bytes = wire.received[before..].to_vec();
    answer
}

/// A statement in the simple protocol.
pub fn run(wire: &mut Wire, sql: &str) -> Answer {
    send(wire, &[query(sql)])
}

/// Ends the session and waits until the gateway has closed it.
pub fn end(mut wire: Wire) {
    let _ = wire.send(&frame(b'X', b""));
    while wire.next().is_ok() {}
}
