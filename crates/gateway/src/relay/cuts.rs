//! What ends a session from outside: a cut, or the end of its first grant.

use tokio::sync::watch;

use crate::grants::Cut;

/// When the first of a session's grants ends, and which.
pub type Deadline = (tokio::time::Instant, String);

/// Waits for the end of the first grant to end; for ever where there is none.
pub async fn expiry(deadline: Option<&Deadline>) -> Cut {
    match deadline {
        Some((deadline, id)) => {
            tokio::time::sleep_until(*deadline).await;
            Cut::GrantEnded { id: id.clone(), how: "has expired".to_owned() }
        }
        None => std::future::pending().await,
    }
}

/// The next cut; one that was seen already (a drain that a busy session ignored) does not come again.
pub async fn next_cut(cut: &mut watch::Receiver<Option<Cut>>) -> Cut {
    loop {
        if cut.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if let Some(cut) = cut.borrow_and_update().clone() {
            return cut;
        }
    }
}
