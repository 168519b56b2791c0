//! A session's connection to its store: taken from the pool or dialled, given back, or ended with the session.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ringfence_face::Login;
use ringfence_policy::Policy;

use crate::admission::Admission;
use crate::backend::{Backend, BackendError};
use crate::cancel::{Running, Target};
use crate::pool::{Exhausted, Key, NOTICED, Slot};
use crate::refusal::{Refusal, code};
use crate::server::{Behind, Shared};
use crate::session::{End, Session};

/// How long a login at the store may take.
const LOGIN: Duration = Duration::from_secs(10);
/// Between attempts to reach a store.
const RETRY: Duration = Duration::from_millis(200);
/// The most shared statements that a connection keeps prepared.
const MAX_PREPARED: usize = 500;

/// A connection, and the right to it.
pub struct Connection {
    /// The connection.
    pub backend: Backend,
    slot: Slot,
    lifetime: Duration,
}

/// The store cannot be had.
pub fn cannot_connect(e: &impl std::fmt::Display) -> Refusal {
    Refusal::new(code::CANNOT_CONNECT, e.to_string())
        .hint("The gateway is up, the store is not, or does not accept it; tell its operator.")
}

/// A connection for the key: one that waited, or a new one, when it is this session's turn.
pub async fn take(
    shared: &Shared,
    policy: &Policy,
    admission: &Admission,
    key: &Arc<Key>,
) -> Result<Connection, Refusal> {
    let behind =
        shared.stores.get(&key.store).ok_or_else(|| cannot_connect(&"the store is not configured"))?;
    let taken = shared.pool.take(key, &behind.pool).await;
    let (slot, waited) = taken.map_err(|Exhausted| {
        let seconds = behind.pool.wait.as_secs();
        Refusal::new(
            code::QUERY_WAIT,
            format!("no connection to store {} was free within {seconds} s (pool_wait)", key.store),
        )
        .hint("Try again later, or have pool_size raised for the store.")
    })?;
    let made = |backend| Connection { backend, slot, lifetime: behind.pool.lifetime };
    if let Some(backend) = waited
        && let Some(backend) = backend.wake().await
    {
        return Ok(made(backend));
    }
    let backend = Box::pin(dial(shared, behind, policy, admission, key)).await?;
    shared.pool.remember_greeting(key, &backend.initial);
    Ok(made(backend))
}

/// Dials until it succeeds or the time for it is over.
async fn dial(
    shared: &Shared,
    behind: &Behind,
    policy: &Policy,
    admission: &Admission,
    key: &Key,
) -> Result<Backend, Refusal> {
    let until = Instant::now() + behind.pool.store_wait;
    let (mut room, mut logins) = (5, 2);
    loop {
        let login = admission.login(&behind.steward, policy).await;
        let failed = match login {
            Ok(login) => match dial_once(behind, &login, key).await {
                Ok(backend) => return Ok(backend),
                Err(failed) => failed,
            },
            Err(e) => BackendError::Unready(e.to_string()),
        };
        match &failed {
            // Connections that wait make room: of the same role with other start parameters, or of others.
            BackendError::Refused { code, .. }
                if code == "53300" && room > 0 && shared.pool.make_room(key) =>
            {
                room -= 1;
                tokio::time::sleep(NOTICED).await;
            }
            // The role was dropped with its face, or by hand: it is made anew, once.
            BackendError::Refused { code, .. } if code.starts_with("28") && logins > 1 => {
                logins -= 1;
                admission.forget_login();
            }
            BackendError::Io(_) | BackendError::Unready(_) if Instant::now() < until => {
                tokio::time::sleep(RETRY).await;
            }
            BackendError::Refused { code, .. } if code == "57P03" && Instant::now() < until => {
                tokio::time::sleep(RETRY).await; // it is starting up
            }
            // The store's own words may be those of a trigger of others.
            BackendError::Refused { code: sqlstate, .. } => {
                tracing::warn!(%sqlstate, store = %key.store, role = %key.role, "the store refused a connection");
                let known =
                    if sqlstate == "53300" { code::TOO_MANY_CONNECTIONS } else { code::CANNOT_CONNECT };
                let text = format!("the store refused the connection (SQLSTATE {sqlstate})");
                return Err(Refusal::new(known, text)
                    .hint("The store's own log has the reason; tell the store's operator."));
            }
            other => return Err(cannot_connect(other)),
        }
    }
}

async fn dial_once(behind: &Behind, login: &Login, key: &Key) -> Result<Backend, BackendError> {
    let connecting = Backend::connect(&behind.address, &behind.database, login, &key.parameters);
    match tokio::time::timeout(LOGIN, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(BackendError::Unready("the store did not answer within 10 s".to_owned())),
    }
}

impl Connection {
    /// What a cancel request needs.
    pub fn running(&self) -> Arc<Running> {
        Arc::clone(&self.backend.running)
    }

    /// Brings the connection to where the session's last one was.
    pub async fn adopt(&mut self, session: &Session) -> Result<(), Refusal> {
        self.backend.adopt(&session.parameters()).await.map_err(|e| cannot_connect(&e))?;
        *session.parameters.lock().unwrap_or_else(PoisonError::into_inner) =
            Arc::clone(&self.backend.parameters);
        let mut flow = session.flow();
        flow.on_connection = std::mem::take(&mut self.backend.prepared);
        flow.unnamed = None;
        Ok(())
    }

    /// Gives the connection back between two transactions.
    pub async fn give_back(mut self, session: &Session) {
        self.backend.parameters = session.parameters();
        let (discarded, must_reset) = {
            let mut flow = session.flow();
            self.backend.prepared = std::mem::take(&mut flow.on_connection);
            (std::mem::take(&mut flow.discarded), std::mem::take(&mut flow.must_reset))
        };
        if must_reset {
            // What code of others may have left there must not reach the next session.
            if self.backend.reset(false, !session.is_face()).await.is_err() {
                return; // it is closed, and the slot is free
            }
            session.flow().names.be_sure();
        }
        if discarded && !session.is_face() && self.backend.reset_role().await.is_err() {
            return;
        }
        if self.backend.prepared.len() > MAX_PREPARED && self.backend.forget_prepared().await.is_err() {
            return; // it is closed, and the slot is free
        }
        self.keep();
    }

    /// Puts the connection where the next session finds it, unless it is too old.
    pub fn keep(mut self) {
        if self.backend.age() < self.lifetime {
            self.backend.touch();
            self.slot.give_back(self.backend);
        }
    }

    /// Ends the session's hold on the connection: an idle one is reset for the next session, any other one closed.
    pub async fn end(mut self, session: &Session, target: &Target, end: &End) {
        let (is_idle, transaction) = {
            let flow = session.flow();
            (flow.unready == 0 && flow.awaited.is_empty() && !flow.within_frame, flow.transaction)
        };
        if !is_idle
            || !self.backend.buffer.data().is_empty()
            || matches!(end, End::Store { .. } | End::Cut(..))
        {
            // A statement may still be running for nobody: stop it, then drop the connection. After a cut the role may have
            // nobody left who comes back to it.
            target.cancel().await;
            target.detach().await;
            return;
        }
        target.detach().await;
        self.backend.parameters = session.parameters();
        if self.backend.reset(transaction != b'I', !session.is_face()).await.is_ok() {
            self.keep();
        }
    }
}
