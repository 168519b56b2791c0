//! A client that speaks the protocol by hand and keeps every byte that it received.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A logged-in connection.
pub struct Wire {
    stream: Box<dyn Stream>,
    /// Everything that came after the login.
    pub received: Vec<u8>,
    /// What a cancel request must carry: process and secret.
    pub key: Vec<u8>,
    at: usize,
}

/// How a statement is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Simple,
    ExtendedText,
    ExtendedBinary,
}

/// The connection is gone.
#[derive(Debug)]
pub struct Gone;

pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend(body);
    out
}

impl Wire {
    /// Logs in with the demo's password.
    pub fn connect(port: u16, user: &str, database: &str) -> Result<Self, String> {
        Self::connect_with(port, user, database, &[])
    }

    pub fn connect_with(
        port: u16,
        user: &str,
        database: &str,
        more: &[(&str, &str)],
    ) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::log_in(Box::new(stream), user, database, "demo", more)
    }

    /// Over a connection that is there.
    pub fn over(stream: Box<dyn Stream>, user: &str, database: &str, password: &str) -> Result<Self, String> {
        Self::log_in(stream, user, database, password, &[])
    }

    /// Straight to a store, past any gateway.
    pub fn connect_socket(socket: &Path, user: &str, database: &str, password: &str) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self::log_in(Box::new(stream), user, database, password, &[])
    }

    fn log_in(
        stream: Box<dyn Stream>,
        user: &str,
        database: &str,
        password: &str,
        more: &[(&str, &str)],
    ) -> Result<Self, String> {
        let mut wire = Self { stream, received: Vec::new(), key: Vec::new(), at: 0 };
        let mut body = (3_i32 << 16).to_be_bytes().to_vec();
        for (name, value) in [("user", user), ("database", database)].iter().chain(more) {
            body.extend(name.as_bytes());
            body.push(0);
            body.extend(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        let mut packet = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
        packet.extend(body);
        wire.stream.write_all(&packet).map_err(|e| e.to_string())?;
        let mut scram = None;
        loop {
            let (tag, body) = wire.next().map_err(|_| "closed while logging in".to_owned())?;
            match (tag, body.get(..4)) {
                (b'R', Some([0, 0, 0, 10])) => {
                    let client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                    let mut first = b"SCRAM-SHA-256\0".to_vec();
                    first.extend(u32::try_from(client.message().len()).unwrap().to_be_bytes());
                    first.extend(client.message());
                    wire.send(&frame(b'p', &first)).map_err(|_| "closed")?;
                    scram = Some(client);
                }
                (b'R', Some([0, 0, 0, 11])) => {
                    let client = scram.as_mut().unwrap();
                    client.update(&body[4..]).map_err(|e| e.to_string())?;
                    let last = frame(b'p', client.message());
                    wire.send(&last).map_err(|_| "closed")?;
                }
                (b'K', _) => wire.key = body,
                (b'Z', _) => break,
                (b'E', _) => return Err(String::from_utf8_lossy(&body).into_owned()),
                _ => {}
            }
        }
        wire.forget();
        Ok(wire)
    }

    /// Keeps no more what has been read.
    pub fn forget(&mut self) {
        self.received.drain(..self.at);
        self.at = 0;
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.stream.write_all(bytes).map_err(|_| Gone)
    }

    /// The next frame; all bytes stay in `received`.
    pub fn next(&mut self) -> Result<(u8, Vec<u8>), Gone> {
        loop {
            let rest = &self.received[self.at..];
            if rest.len() >= 5 {
                let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
                if rest.len() > length {
                    let (tag, body) = (rest[0], rest[5..=length].to_vec());
                    self.at += length + 1;
                    return Ok((tag, body));
                }
            }
            let mut chunk = [0; 16 * 1024];
            let count = self.stream.read(&mut chunk).map_err(|_| Gone)?;
            if count == 0 {
                return Err(Gone);
            }
            self.received.extend_from_slice(&chunk[..count]);
        }
    }

    /// Sends a statement and reads to ReadyForQuery.
    pub fn run(&mut self, sql: &str, way: Way) -> Result<(), Gone> {
        let text = [sql.as_bytes(), b"\0"].concat();
        let message = match way {
            Way::Simple => frame(b'Q', &text),
            Way::ExtendedText | Way::ExtendedBinary => {
                let format = u8::from(way == Way::ExtendedBinary);
                [
                    frame(b'P', &[b"\0", text.as_slice(), b"\0\0"].concat()),
                    frame(b'B', &[0, 0, 0, 0, 0, 0, 0, 1, 0, format]),
                    frame(b'D', b"P\0"),
                    frame(b'E', b"\0\0\0\0\0"),
                    frame(b'S', b""),
                ]
                .concat()
            }
        };
        self.send(&message)?;
        self.until_ready()
    }

    /// Reads to ReadyForQuery; a COPY that waits for data is given up.
    pub fn until_ready(&mut self) -> Result<(), Gone> {
        loop {
            match self.next()?.0 {
                b'Z' => return Ok(()),
                b'G' => self.send(&frame(b'f', b"no\0"))?,
                _ => {}
            }
        }
    }
}
