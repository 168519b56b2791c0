//! Frames of PostgreSQL's protocol 3: one byte of type, four of length (which counts itself), a body.
//!
//! Pure: buffers in, frames out. A length is checked against a bound before anything is reserved for it.

use std::cell::RefCell;
use std::pin::Pin;

use tokio::io::{AsyncRead, ReadBuf};

/// Type and length of a frame.
pub const HEADER: usize = 5;
/// PostgreSQL's own bound on a message (`PQ_LARGE_MESSAGE_LIMIT`).
pub const MAX_FRAME: usize = 0x3fff_ffff;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is below 4 or above the bound.
    #[error("a message of type {tag:?} has the impossible length {length}")]
    Length {
        /// The type.
        tag: char,
        /// The length it claims.
        length: u32,
    },
}

/// The front of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The type.
    pub tag: u8,
    /// All of its bytes, type and length included.
    pub total: usize,
}

/// Reads the front of a frame; `None` if `bytes` is too short to tell.
pub fn head(bytes: &[u8], max: usize) -> Result<Option<Head>, FrameError> {
    let (Some(&tag), Some(length)) = (bytes.first(), bytes.get(1..HEADER)) else { return Ok(None) };
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
    if length < 4 || length as usize > max {
        return Err(FrameError::Length { tag: char::from(tag), length });
    }
    Ok(Some(Head { tag, total: length as usize + 1 }))
}

/// Bytes that arrived and are not dealt with yet. Has memory only while it has bytes: it borrows from its thread's spares
/// when something can be read and gives back when all is consumed, so a connection that waits costs next to nothing.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// How many of the bytes that come next are dropped.
    to_skip: usize,
}

/// What a spare holds: one read of a result that streams.
const SPARE: usize = 32 * 1024;
/// How many spares a thread keeps.
const SPARES: usize = 64;

thread_local! {
    static SPARE_BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn borrow_spare() -> Vec<u8> {
    SPARE_BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SPARE])
}

fn give_back(bytes: Vec<u8>) {
    if bytes.len() == SPARE {
        // A thread that ends has no spares any more; then the memory is simply freed.
        let _ = SPARE_BUFFERS.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() < SPARES {
                spares.push(bytes);
            }
        });
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.bytes));
    }
}

impl Buffer {
    /// What is there.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Drops the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            give_back(std::mem::take(&mut self.bytes));
        }
    }

    /// Drops the first `count` bytes, those that are still to come, too.
    pub fn skip(&mut self, count: usize) {
        let have = count.min(self.data().len());
        self.consume(have);
        self.to_skip += count - have;
    }

    /// Makes room so that `total` bytes fit from the start of the data. Not for what a length claims: memory follows what has
    /// come.
    fn reserve(&mut self, total: usize) {
        if self.bytes.is_empty() {
            self.bytes = borrow_spare();
        }
        if self.bytes.len() - self.start >= total {
            return;
        }
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.bytes.len() < total {
            let mut larger = vec![0; total.next_power_of_two()];
            larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
            give_back(std::mem::replace(&mut self.bytes, larger));
        }
    }

    /// Reads what is there to read; 0 means the end. Cancel-safe.
    pub async fn fill(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        std::future::poll_fn(|context| {
            if self.end == self.bytes.len() {
                let have = self.end - self.start;
                self.reserve((have * 2).max(SPARE));
            }
            let mut into = ReadBuf::new(&mut self.bytes[self.end..]);
            let polled = Pin::new(&mut *reader).poll_read(context, &mut into);
            let count = into.filled().len();
            self.end += count;
            if self.to_skip > 0 {
                let skipped = self.to_skip.min(self.end - self.start);
                self.to_skip -= skipped;
                self.consume(skipped);
            }
            if self.start == self.end {
                self.consume(0); // nothing came: the memory goes back
            }
            polled.map_ok(|()| count)
        })
        .await
    }

    /// Reads until a whole frame is there and returns it; `None` at the end of the stream between frames.
    pub async fn frame(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        max: usize,
    ) -> std::io::Result<Option<Head>> {
        loop {
            let head = head(self.data(), max).map_err(std::io::Error::other)?;
            if let Some(head) = head.filter(|head| self.data().len() >= head.total) {
                return Ok(Some(head));
            }
            if self.fill(reader).await? == 0 {
                return if self.data().is_empty() {
                    Ok(None)
                } else {
                    Err(std::io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }
}

/// Reads the parts of a body. Every step is bounded by what is there.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a>(pub &'a [u8]);

impl<'a> Body<'a> {
    /// A NUL-terminated string.
    pub fn string(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|&b| b == 0)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        std::str::from_utf8(text).ok()
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        let (two, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*two))
    }

    /// Four bytes.
    pub fn i32(&mut self) -> Option<i32> {
        let (four, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*four))
    }

    /// `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        if count > self.0.len() {
            return None;
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(taken)
    }
}

/// Writes a frame of type `tag`.
pub fn put(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    put_untagged(out, body);
}

/// Writes a frame without a type, as at startup.
pub fn put_untagged(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - at).expect("frames that we make are small");
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a NUL-terminated string; NULs inside are dropped.
pub fn put_str(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|&b| b != 0));
    out.push(0);
}

/// A ParameterStatus.
pub fn put_parameter(out: &mut Vec<u8>, name: &str, value: &str) {
    put(out, b'S', |out| {
        put_str(out, name);
        put_str(out, value);
    });
}

/// A ReadyForQuery with the transaction's state.
pub fn put_ready(out: &mut Vec<u8>, transaction: u8) {
    put(out, b'Z', |out| out.push(transaction));
}

/// The fields of an error or notice (protocol manual, "Error and Notice Message Fields").
pub fn fields(body: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (&code, after) = rest.split_first()?;
        if code == 0 {
            return None;
        }
        let end = after.iter().position(|&b| b == 0)?;
        rest = &after[end + 1..];
        Some((code, &after[..end]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_not_believed_before_it_is_checked() {
        assert_eq!(head(b"Q\0\0\0", 100), Ok(None));
        assert_eq!(head(b"Q\0\0\0\x04", 100), Ok(Some(Head { tag: b'Q', total: 5 })));
        assert!(head(b"Q\0\0\0\x03", 100).is_err());
        assert!(head(b"Q\xff\xff\xff\xff", MAX_FRAME).is_err());
        assert!(head(b"Q\0\0\0\x65", 100).is_err());
    }

    #[test]
    fn fields_end_where_the_message_ends() {
        let body = b"SERROR\0C42601\0Mno\0\0";
        let found: Vec<_> = fields(body).collect();
        assert_eq!(found, [(b'S', &b"ERROR"[..]), (b'C', b"42601"), (b'M', b"no")]);
        assert_eq!(fields(b"Sunterminated").count(), 0);
    }

    #[tokio::test]
    async fn frames_come_whole_however_they_are_cut() {
        let mut bytes = Vec::new();
        for n in 0..50u8 {
            put(&mut bytes, b'D', |b| b.extend(std::iter::repeat_n(n, usize::from(n) * 700)));
        }
        let mut reader = tokio_test_chunks(bytes.clone());
        let mut buffer = Buffer::default();
        let mut seen = Vec::new();
        while let Some(head) = buffer.frame(&mut reader, MAX_FRAME).await.unwrap() {
            seen.extend_from_slice(&buffer.data()[..head.total]);
            buffer.consume(head.total);
        }
        assert_eq!(seen, bytes);
    }

    fn tokio_test_chunks(bytes: Vec<u8>) -> impl AsyncRead + Unpin {
        let (reader, mut writer) = tokio::io::duplex(97);
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            writer.write_all(&bytes).await.unwrap();
        });
        reader
    }
}
