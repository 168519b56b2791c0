//! The header that a balancer sends before a client's first byte: the client's address, in version 2
//! of the PROXY protocol (haproxy.org, proxy-protocol.txt, section 2.2). It is read from balancers that
//! the configuration names, and they must send it.

use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Signature, version and command, family, and the length of the rest.
const FRONT: usize = 16;
/// The longest rest, in bytes: addresses, and what balancers add.
const MOST: usize = 4096;

/// Reads a header, and no byte behind it. `None` where the balancer speaks for itself, as for a
/// look at our health: then its own address counts (section 2.2, LOCAL).
pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Option<SocketAddr>> {
    let mut header = vec![0; FRONT];
    stream.read_exact(&mut header).await?;
    let length = usize::from(u16::from_be_bytes([header[FRONT - 2], header[FRONT - 1]]));
    if !header.starts_with(ppp::v2::PROTOCOL_PREFIX) || length > MOST {
        return Err(malformed());
    }
    header.resize(FRONT + length, 0);
    stream.read_exact(&mut header[FRONT..]).await?;
    let header = Header::try_from(header.as_slice()).map_err(|_| malformed())?;
    match (header.command, header.addresses) {
        (Command::Local, _) => Ok(None),
        (Command::Proxy, Addresses::IPv4(four)) => {
            Ok(Some(SocketAddr::from((four.source_address, four.source_port))))
        }
        (Command::Proxy, Addresses::IPv6(six)) => {
            Ok(Some(SocketAddr::from((six.source_address, six.source_port))))
        }
        // These do not say which client it is.
        (Command::Proxy, Addresses::Unspecified | Addresses::Unix(_)) => Err(malformed()),
    }
}

fn malformed() -> std::io::Error {
    let problem = "a balancer of gateway.proxies does not send version 2 of the PROXY protocol";
    std::io::Error::new(std::io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    async fn read_all(bytes: &[u8]) -> std::io::Result<(Option<SocketAddr>, usize)> {
        let mut rest = bytes;
        read(&mut rest).await.map(|found| (found, rest.len()))
    }

    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[0x20 | command, family], &length, body].concat()
    }

    #[tokio::test]
    async fn addresses_are_read_and_nothing_behind_them() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0x15, 0x38];
        let whole = [header(1, 0x11, &four), b"rest".to_vec()].concat();
        assert_eq!(read_all(&whole).await.unwrap(), (Some("192.0.2.7:4660".parse().unwrap()), 4));
        let mut six = [0; 36];
        six[..2].copy_from_slice(&[0x20, 0x01]);
        six[33] = 9;
        let extended = [&six[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        let found = read_all(&header(1, 0x21, &extended)).await.unwrap();
        assert_eq!(found, (Some("[2001::]:9".parse().unwrap()), 0));
        assert_eq!(read_all(&header(0, 0, &[])).await.unwrap(), (None, 0));
        assert_eq!(read_all(&header(0, 0x11, &four)).await.unwrap(), (None, 0));
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [
            header(1, 0, &[]),
            header(1, 0x11, &[1, 2, 3]),
            header(3, 0x11, &[0; 12]),
            header(1, 0x11, &[0; 5000]),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 5432\r\n".to_vec(),
            [&8_u32.to_be_bytes()[..], &80_877_103_u32.to_be_bytes(), &[0; 40]].concat(),
            SIGNATURE.to_vec(),
        ] {
            assert!(read_all(&bytes).await.is_err(), "{bytes:?}");
        }
    }
}
