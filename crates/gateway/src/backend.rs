//! A connection to a store, logged in as a face's role.

use std::collections::HashSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use ringfence_face::{Login, Target};
use ringfence_statement::carried;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::Host;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client, server};

use crate::cancel::Running;
use crate::frame::{Body, Buffer, HEADER, MAX_FRAME, put, put_str, put_untagged};
use crate::refusal::field;
use crate::{sockets, worker};

/// The longest message of a login.
const MAX_LOGIN_MESSAGE: usize = 64 * 1024;

/// Something to speak over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Moves to the runtime of this thread, where it can be moved; elsewhere its wakings cross threads.
    fn rehome(self: Box<Self>) -> std::io::Result<Box<dyn Stream>>;
}

impl Stream for TcpStream {
    fn rehome(self: Box<Self>) -> std::io::Result<Box<dyn Stream>> {
        Ok(Box::new(Self::from_std(self.into_std()?)?))
    }
}

impl Stream for UnixStream {
    fn rehome(self: Box<Self>) -> std::io::Result<Box<dyn Stream>> {
        Ok(Box::new(Self::from_std(self.into_std()?)?))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for client::TlsStream<S> {
    fn rehome(self: Box<Self>) -> std::io::Result<Box<dyn Stream>> {
        Ok(self)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for server::TlsStream<S> {
    fn rehome(self: Box<Self>) -> std::io::Result<Box<dyn Stream>> {
        Ok(self)
    }
}

/// The place of a stream that is elsewhere.
pub type Nowhere = tokio::io::Join<tokio::io::Empty, tokio::io::Sink>;

impl Stream for Nowhere {
    fn rehome(self: Box<Self>) -> std::io::Result<Box<dyn Stream>> {
        Ok(self)
    }
}

/// Takes a stream and leaves nothing in its place, without allocating.
pub fn take_stream(stream: &mut Box<dyn Stream>) -> Box<dyn Stream> {
    std::mem::replace(stream, Box::new(tokio::io::join(tokio::io::empty(), tokio::io::sink())))
}

/// Where a store listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// A host and a port, and whom to trust there; without it there is no TLS.
    Tcp(String, u16, Option<Arc<ClientConfig>>),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The network failed.
    #[error("the store cannot be reached: {0}")]
    Io(#[from] std::io::Error),
    /// The store said no.
    #[error("the store refused the login: {message} ({code})")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// PostgreSQL's message.
        message: String,
    },
    /// It cannot be had now, or its login cannot be made.
    #[error("{0}")]
    Unready(String),
    /// The store spoke something else.
    #[error("the store broke the protocol while logging in: {0}")]
    Protocol(&'static str),
}

/// Parameters as a store reports them, by name.
pub type Parameters = Vec<(String, String)>;

/// The parameters with one changed.
pub fn with_parameter(parameters: &Parameters, name: &str, value: &str) -> Arc<Parameters> {
    let mut changed = parameters.clone();
    match changed.iter_mut().find(|(n, _)| n == name) {
        Some((_, old)) => value.clone_into(old),
        None => changed.push((name.to_owned(), value.to_owned())),
    }
    Arc::new(changed)
}

/// A logged-in connection.
pub struct Backend {
    /// The connection.
    pub stream: Box<dyn Stream>,
    /// What has arrived on it.
    pub buffer: Buffer,
    /// Parameters as the store reports them.
    pub parameters: Arc<Parameters>,
    /// For cancel requests.
    pub running: Arc<Running>,
    /// The worker whose runtime it belongs to.
    pub home: usize,
    /// The parameters right after the login: what a new session starts with.
    pub initial: Arc<Parameters>,
    /// The shared statements that it has prepared (transaction pooling).
    pub prepared: HashSet<u64>,
    born: Instant,
    used: Instant,
}

/// How long a connection may be unused before it is asked whether it still answers.
const CHECK_AFTER: Duration = Duration::from_secs(30);
/// So long a store may take for a statement of our own, or for a cancel request.
const OWN: Duration = Duration::from_secs(5);

impl Address {
    /// The first address of a connection's configuration.
    pub fn of(target: &Target) -> Option<Self> {
        let port = target.config.get_ports().first().copied().unwrap_or(5432);
        match target.config.get_hosts().first()? {
            Host::Tcp(host) => Some(Self::Tcp(host.clone(), port, target.tls.clone())),
            Host::Unix(dir) => Some(Self::Unix(dir.join(format!(".s.PGSQL.{port}")))),
        }
    }

    /// Connects. Where TLS is configured, a server that does not offer it is refused.
    pub async fn dial(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(host, port, tls) => {
                let mut stream = sockets::with_room(TcpStream::connect((host.as_str(), *port)).await?)?;
                stream.set_nodelay(true)?;
                sockets::notice_loss(&stream);
                let Some(tls) = tls else { return Ok(Box::new(stream)) };
                let name = ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
                stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?; // SSLRequest
                if stream.read_u8().await? != b'S' {
                    return Err(std::io::Error::other("it does not offer TLS"));
                }
                Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?)
            }
            Self::Unix(path) => Box::new(sockets::with_room(UnixStream::connect(path).await?)?),
        })
    }

    /// Sends a cancel request and waits until the store has taken it, for a moment.
    pub async fn cancel(&self, process: i32, secret: &[u8]) -> std::io::Result<()> {
        tokio::time::timeout(OWN, self.send_cancel(process, secret)).await?
    }

    async fn send_cancel(&self, process: i32, secret: &[u8]) -> std::io::Result<()> {
        let mut stream = self.dial().await?;
        let mut out = Vec::with_capacity(16);
        put_untagged(&mut out, |out| {
            out.extend_from_slice(&80_877_102_i32.to_be_bytes());
            out.extend_from_slice(&process.to_be_bytes());
            out.extend_from_slice(secret);
        });
        stream.write_all(&out).await?;
        stream.read_to_end(&mut Vec::new()).await?;
        Ok(())
    }
}

impl Backend {
    /// Connects and logs in.
    pub async fn connect(
        address: &Address,
        database: &str,
        login: &Login,
        parameters: &[(String, String)],
    ) -> Result<Self, BackendError> {
        let mut stream = address.dial().await?;
        let mut out = Vec::with_capacity(256);
        put_untagged(&mut out, |out| {
            out.extend_from_slice(&(3_i32 << 16).to_be_bytes());
            let own = [("user", login.role.as_str()), ("database", database)];
            let given = parameters.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            for (name, value) in own.into_iter().chain(given) {
                put_str(out, name);
                put_str(out, value);
            }
            out.push(0);
        });
        stream.write_all(&out).await?;
        let mut backend = Self {
            stream,
            buffer: Buffer::default(),
            parameters: Arc::default(),
            running: Arc::new(Running { address: address.clone(), process: 0, secret: Vec::new() }),
            initial: Arc::default(),
            home: worker::current(),
            prepared: HashSet::new(),
            born: Instant::now(),
            used: Instant::now(),
        };
        backend.log_in(&login.password).await?;
        backend.initial = Arc::clone(&backend.parameters);
        Ok(backend)
    }

    async fn next(&mut self) -> Result<(u8, Vec<u8>), BackendError> {
        let head = self.buffer.frame(&mut self.stream, MAX_LOGIN_MESSAGE).await?;
        let head = head.ok_or(BackendError::Protocol("the connection was closed"))?;
        let body = self.buffer.data()[HEADER..head.total].to_vec();
        self.buffer.consume(head.total);
        if head.tag == b'E' {
            let text = |code| String::from_utf8_lossy(field(&body, code).unwrap_or_default()).into_owned();
            return Err(BackendError::Refused { code: text(b'C'), message: text(b'M') });
        }
        Ok((head.tag, body))
    }

    async fn log_in(&mut self, password: &str) -> Result<(), BackendError> {
        let mut scram: Option<ScramSha256> = None;
        loop {
            let (tag, message) = self.next().await?;
            let mut body = Body(&message);
            let malformed = || BackendError::Protocol("malformed message");
            match tag {
                b'R' => match body.i32().ok_or_else(malformed)? {
                    0 => {}
                    10 => {
                        let client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                        let mut out = Vec::new();
                        put(&mut out, b'p', |out| {
                            put_str(out, "SCRAM-SHA-256");
                            let first = client.message();
                            out.extend_from_slice(&i32::try_from(first.len()).unwrap_or(0).to_be_bytes());
                            out.extend_from_slice(first);
                        });
                        self.stream.write_all(&out).await?;
                        scram = Some(client);
                    }
                    11 => {
                        let client = scram.as_mut().ok_or_else(malformed)?;
                        client.update(body.0)?;
                        let mut out = Vec::new();
                        put(&mut out, b'p', |out| out.extend_from_slice(client.message()));
                        self.stream.write_all(&out).await?;
                    }
                    12 => scram.as_mut().ok_or_else(malformed)?.finish(body.0)?,
                    _ => {
                        return Err(BackendError::Protocol(
                            "it asks for a password in another way than SCRAM-SHA-256",
                        ));
                    }
                },
                b'S' => {
                    let (Some(name), Some(value)) = (body.string(), body.string()) else {
                        return Err(malformed());
                    };
                    Arc::make_mut(&mut self.parameters).push((name.to_owned(), value.to_owned()));
                }
                b'K' => {
                    let process = body.i32().ok_or_else(malformed)?;
                    let address = self.running.address.clone();
                    self.running = Arc::new(Running { address, process, secret: body.0.to_vec() });
                }
                b'Z' => return Ok(()),
                b'N' => {}
                _ => return Err(BackendError::Protocol("an unexpected message")),
            }
        }
    }

    /// Brings the session back to how it was after the login, so that the next client of the same role finds nothing of
    /// the last one.
    pub async fn reset(&mut self, in_transaction: bool, is_full: bool) -> Result<(), BackendError> {
        let mut queries = vec!["DISCARD ALL"];
        if in_transaction {
            queries.insert(0, "ROLLBACK");
        }
        if is_full {
            queries.push("RESET ROLE"); // DISCARD ALL leaves the login in its own role
        }
        self.prepared.clear();
        self.run(&queries).await
    }

    /// Takes a connection that waited into use on this thread. `None` if it is gone, or said something unasked.
    pub async fn wake(mut self) -> Option<Self> {
        let said = std::future::poll_fn(|context| {
            let mut byte = [0];
            let mut into = ReadBuf::new(&mut byte);
            Poll::Ready(Pin::new(&mut self.stream).poll_read(context, &mut into).is_ready())
        });
        if said.await {
            return None;
        }
        let here = worker::current();
        if self.home != here {
            self.stream = self.stream.rehome().ok()?;
            self.home = here;
        }
        if self.used.elapsed() > CHECK_AFTER {
            let alive = tokio::time::timeout(Duration::from_secs(2), self.run(&[""])).await;
            alive.ok()?.ok()?;
        }
        Some(self)
    }

    /// Notes that it was used, just now.
    pub fn touch(&mut self) {
        self.used = Instant::now();
    }

    /// How long it has lived.
    pub fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Brings reported parameters to what the next client has set. Values go as literals.
    pub async fn adopt(&mut self, wanted: &Arc<Parameters>) -> Result<(), BackendError> {
        if Arc::ptr_eq(wanted, &self.parameters) {
            return Ok(());
        }
        let mut statement = String::new();
        for (name, value) in wanted.iter().filter(|(name, _)| carried::SETTINGS.contains(&name.as_str())) {
            if !self.parameters.iter().any(|(n, v)| n == name && v == value) {
                carried::write_set(&mut statement, name, value);
            }
        }
        if !statement.is_empty() {
            self.run(&[&statement]).await?;
        }
        Ok(())
    }

    /// Goes back to the role that a full-access login has when it connects.
    pub async fn reset_role(&mut self) -> Result<(), BackendError> {
        self.run(&["RESET ROLE"]).await
    }

    /// Forgets the statements that were prepared for others.
    pub async fn forget_prepared(&mut self) -> Result<(), BackendError> {
        self.prepared.clear();
        self.run(&["DEALLOCATE ALL"]).await
    }

    /// Runs statements of the gateway and drops their results. An error of one is an error of all, and so is a store
    /// that does not answer in time.
    async fn run(&mut self, queries: &[&str]) -> Result<(), BackendError> {
        let late = |_| BackendError::Protocol("it did not answer a statement of our own in time");
        tokio::time::timeout(OWN, self.run_all(queries)).await.map_err(late)?
    }

    async fn run_all(&mut self, queries: &[&str]) -> Result<(), BackendError> {
        let mut out = Vec::new();
        for query in queries {
            put(&mut out, b'Q', |out| put_str(out, query));
        }
        self.stream.write_all(&out).await?;
        for _ in queries {
            loop {
                let head = self.buffer.frame(&mut self.stream, MAX_FRAME).await?;
                let head = head.ok_or(BackendError::Protocol("the connection was closed"))?;
                let failed = head.tag == b'E';
                if head.tag == b'S' {
                    let mut body = Body(&self.buffer.data()[HEADER..head.total]);
                    if let (Some(name), Some(value)) = (body.string(), body.string()) {
                        self.parameters = with_parameter(&self.parameters, name, value);
                    }
                }
                self.buffer.consume(head.total);
                if failed {
                    return Err(BackendError::Protocol("it refused a statement of our own"));
                }
                if head.tag == b'Z' {
                    break;
                }
            }
        }
        Ok(())
    }
}
