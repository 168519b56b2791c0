//! The first packets: TLS and GSS requests, cancel requests, and who wants what (protocol manual, "Start-up").

use crate::frame::{Body, put, put_str};

/// PostgreSQL's bound on a startup packet (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_PACKET: usize = 10_000;

const CANCEL: i32 = 80_877_102;
const TLS: i32 = 80_877_103;
const GSS: i32 = 80_877_104;

/// The most parameters of a first packet, and of names of protocol extensions. Clients send a
/// dozen.
const MAX_PARAMETERS: usize = 100;

/// PostgreSQL cuts the names in a first packet to so many bytes (`NAMEDATALEN` - 1, ProcessStartupPacket).
const MAX_NAME: usize = 63;

/// The beginning of a name, in whole characters.
fn beginning(name: &str) -> &str {
    let ends = name.char_indices().map(|(at, c)| at + c.len_utf8());
    &name[..ends.take_while(|end| *end <= MAX_NAME).last().unwrap_or(0)]
}

fn cut(name: &mut String) {
    name.truncate(beginning(name).len());
}

/// A first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Asks for TLS.
    Tls,
    /// Asks for GSS encryption.
    Gss,
    /// Asks to cancel a statement.
    Cancel(CancelKey),
    /// Wants to log in.
    Startup(Startup),
}

/// What identifies a session for a cancel request. Protocol 3.0 has four bytes of secret, 3.2 up to 256; we give four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// The process, as the client was told.
    pub process: i32,
    /// The secret.
    pub secret: [u8; 4],
}

/// Who wants what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// The minor version of protocol 3 that is asked for.
    pub minor: u16,
    /// The principal.
    pub user: String,
    /// The store; the user's name if absent.
    pub database: String,
    /// Everything else, in order.
    pub parameters: Vec<(String, String)>,
    /// Names of protocol extensions that we do not know.
    pub unknown_extensions: Vec<String>,
}

/// What is wrong with a first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Not a packet of any kind we know.
    #[error("the first packet is malformed")]
    Malformed,
    /// More than [`MAX_PARAMETERS`].
    #[error("the first packet has too many parameters")]
    TooMany,
    /// A version other than 3.
    #[error("protocol version {0}.{1} is not supported; this server speaks 3.0")]
    Version(u16, u16),
    /// No user name.
    #[error("no user name in the first packet")]
    NoUser,
}

/// Parses a first packet, without its length.
pub fn parse(packet: &[u8]) -> Result<Packet, PacketError> {
    let mut body = Body(packet);
    let code = body.i32().ok_or(PacketError::Malformed)?;
    match code {
        TLS if body.0.is_empty() => return Ok(Packet::Tls),
        GSS if body.0.is_empty() => return Ok(Packet::Gss),
        CANCEL => {
            let process = body.i32().ok_or(PacketError::Malformed)?;
            let secret = body.0.try_into().map_err(|_| PacketError::Malformed)?;
            return Ok(Packet::Cancel(CancelKey { process, secret }));
        }
        _ => {}
    }
    let version = code.cast_unsigned();
    #[allow(clippy::cast_possible_truncation, reason = "the halves of 32 bits")]
    let (major, minor) = ((version >> 16) as u16, version as u16);
    if major != 3 {
        return Err(PacketError::Version(major, minor));
    }
    let mut startup = Startup { minor, ..Startup::default() };
    loop {
        let name = body.string().ok_or(PacketError::Malformed)?;
        if name.is_empty() {
            break;
        }
        let value = body.string().ok_or(PacketError::Malformed)?;
        if startup.parameters.len() + startup.unknown_extensions.len() >= MAX_PARAMETERS {
            return Err(PacketError::TooMany);
        }
        match name {
            "user" => value.clone_into(&mut startup.user),
            "database" => value.clone_into(&mut startup.database),
            _ if name.starts_with("_pq_.") => startup.unknown_extensions.push(name.to_owned()),
            _ => startup.parameters.push((name.to_owned(), value.to_owned())),
        }
    }
    if !body.0.is_empty() {
        return Err(PacketError::Malformed);
    }
    if startup.user.is_empty() {
        return Err(PacketError::NoUser);
    }
    cut(&mut startup.user);
    cut(&mut startup.database);
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    Ok(Packet::Startup(startup))
}

impl Startup {
    /// NegotiateProtocolVersion, if the client asked for more than we speak (3.0).
    pub fn negotiate(&self, out: &mut Vec<u8>) {
        if self.minor == 0 && self.unknown_extensions.is_empty() {
            return;
        }
        put(out, b'v', |out| {
            out.extend_from_slice(&(3_i32 << 16).to_be_bytes());
            let count = i32::try_from(self.unknown_extensions.len()).unwrap_or(i32::MAX);
            out.extend_from_slice(&count.to_be_bytes());
            for name in &self.unknown_extensions {
                put_str(out, name);
            }
        });
    }

    /// What the client calls itself.
    pub fn application(&self) -> &str {
        beginning(self.parameter("application_name").unwrap_or_default())
    }

    /// A parameter by name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: i32, rest: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], rest].concat()
    }

    #[test]
    fn the_kinds_are_told_apart() {
        assert_eq!(parse(&packet(TLS, b"")), Ok(Packet::Tls));
        assert_eq!(parse(&packet(TLS, b"x")), Err(PacketError::Version(1234, 5679)));
        let key = CancelKey { process: 7, secret: *b"abcd" };
        assert_eq!(parse(&packet(CANCEL, b"\0\0\0\x07abcd")), Ok(Packet::Cancel(key)));
        assert_eq!(parse(&packet(CANCEL, b"\0\0\0\x07abcde")), Err(PacketError::Malformed));
        assert_eq!(parse(&packet(2 << 16, b"")), Err(PacketError::Version(2, 0)));
    }

    #[test]
    fn a_startup_packet_must_end_where_it_says() {
        let good = packet(3 << 16, b"user\0ann\0database\0us\0application_name\0psql\0\0");
        let Ok(Packet::Startup(startup)) = parse(&good) else { panic!() };
        assert_eq!((startup.user.as_str(), startup.database.as_str()), ("ann", "us"));
        assert_eq!(startup.parameter("application_name"), Some("psql"));
        assert_eq!(parse(&good[..good.len() - 1]), Err(PacketError::Malformed));
        assert_eq!(parse(&packet(3 << 16, b"database\0us\0\0")), Err(PacketError::NoUser));
        let many = [b"user\0ann\0".to_vec(), b"a\0\0".repeat(MAX_PARAMETERS + 1), vec![0]].concat();
        assert_eq!(parse(&packet(3 << 16, &many)), Err(PacketError::TooMany));
        assert_eq!(parse(&packet(3 << 16, b"user\0\xff\0\0")), Err(PacketError::Malformed));
    }

    #[test]
    fn names_are_cut_as_postgresql_cuts_them() {
        let long = "é".repeat(40);
        let body = format!("user\0x{long}\0database\0{long}\0application_name\0{long}\0\0");
        let Ok(Packet::Startup(startup)) = parse(&packet(3 << 16, body.as_bytes())) else { panic!() };
        assert_eq!(startup.user.len(), 63);
        assert_eq!(startup.database.len(), 62, "whole characters only");
        assert_eq!(startup.application().len(), 62);
    }

    #[test]
    fn a_newer_client_is_told_what_we_speak() {
        let newer = packet((3 << 16) | 2, b"user\0ann\0_pq_.x\0y\0\0");
        let Ok(Packet::Startup(startup)) = parse(&newer) else { panic!() };
        let mut out = Vec::new();
        startup.negotiate(&mut out);
        assert_eq!(out, b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.x\0");
    }
}
