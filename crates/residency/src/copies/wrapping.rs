//! Unpacks what dumps and backups are wrapped in, to the very end: files may be several compressed streams one behind the other (as
//! `zstd` appends, as parallel packers write), and a reader that stops after the first would not see what is in the rest.

use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// A compression that can be undone here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The LZ4 frame format, version 1.6.
    Lz4,
    /// The .xz file format, version 1.2.
    Xz,
}

/// How much memory an xz stream may ask for, in KiB: `xz -9` needs 65 MiB.
const XZ_MEMORY: u32 = 512 * 1024;

impl Wrapping {
    /// What the first bytes say.
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // Skippable frames, which both formats know; whose it is, the first frame that is none says.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The end that its files have.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::Lz4 => ".lz4",
            Self::Xz => ".xz",
        }
    }

    /// What is in it.
    pub fn unwrap<'a>(self, packed: impl BufRead + 'a) -> Box<dyn BufRead + 'a> {
        match self {
            Self::Gzip => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(packed))),
            Self::Zstd => Box::new(BufReader::new(Zstd { packed, decoder: FrameDecoder::new() })),
            Self::Lz4 => Box::new(BufReader::new(Lz4(lz4_flex::frame::FrameDecoder::new(packed)))),
            Self::Xz => {
                Box::new(BufReader::new(lzma_rust2::XzReader::new_mem_limit(packed, true, XZ_MEMORY)))
            }
        }
    }
}

/// Frame after frame.
struct Zstd<R> {
    packed: R,
    decoder: FrameDecoder,
}

impl<R: BufRead> Zstd<R> {
    /// Goes into the next frame; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        loop {
            if self.packed.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.packed) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.packed.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(damaged(&e)),
            }
        }
    }
}

fn damaged(problem: &FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_string())
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(out);
            }
            if self.decoder.is_finished() {
                if !self.next()? {
                    return Ok(0);
                }
                continue;
            }
            let strategy = BlockDecodingStrategy::UptoBytes(out.len());
            self.decoder.decode_blocks(&mut self.packed, strategy).map_err(|e| damaged(&e))?;
        }
    }
}

/// Frame after frame.
struct Lz4<R: BufRead>(lz4_flex::frame::FrameDecoder<R>);

impl<R: BufRead> Read for Lz4<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(out)? {
                0 if !out.is_empty() && !self.0.get_mut().fill_buf()?.is_empty() => {}
                n => return Ok(n),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    fn unpacked(wrapping: Wrapping, packed: &[u8]) -> io::Result<String> {
        assert_eq!(Wrapping::of(packed), Some(wrapping));
        let mut out = String::new();
        wrapping.unwrap(packed).read_to_string(&mut out).map(|_| out)
    }

    #[test]
    fn what_is_behind_the_first_stream_is_seen() {
        let gzip = |text: &str| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut out, text.as_bytes()).unwrap();
            out.finish().unwrap()
        };
        let zstd = |text: &str| {
            ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest)
        };
        let lz4 = |text: &str| {
            let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
            io::Write::write_all(&mut out, text.as_bytes()).unwrap();
            out.finish().unwrap()
        };
        for (wrapping, one, two) in [
            (Wrapping::Gzip, gzip("one "), gzip("two")),
            (Wrapping::Zstd, zstd("one "), zstd("two")),
            (Wrapping::Lz4, lz4("one "), lz4("two")),
            (Wrapping::Xz, hex::decode(XZ_ONE).unwrap(), hex::decode(XZ_TWO).unwrap()),
        ] {
            let both = [one.clone(), two.clone()].concat();
            assert_eq!(unpacked(wrapping, &both).unwrap(), "one two", "{wrapping:?}");
            // In the middle of a block it is an error, and what is no stream at all is one, too. (An LZ4 file that is cut between two blocks
            // is taken for whole: what is there of it has been seen.)
            assert!(unpacked(wrapping, &both[..one.len() - 6]).is_err(), "{wrapping:?}");
            assert!(unpacked(wrapping, &[&both[..], b"something else"].concat()).is_err(), "{wrapping:?}");
        }
        let skipped = [&[0x55, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd("one ")].concat();
        assert_eq!(unpacked(Wrapping::Zstd, &skipped).unwrap(), "one ");
    }

    /// `printf 'one ' | xz`
    const XZ_ONE: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a30100036f6e6520005a8c83a33135ef7e00011c046f2c9cc11fb6f37d010000000004595a";
    /// `printf two | xz`
    const XZ_TWO: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a301000274776f00005dd379297528520300011b030b2fb9101fb6f37d010000000004595a";
}
