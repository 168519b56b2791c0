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
            expired(id)
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

/// The next cut that does not wait for what is under way.
pub async fn hard_cut(cut: &mut watch::Receiver<Option<Cut>>) -> Cut {
    loop {
        match next_cut(cut).await {
            Cut::Drain => {}
            other => return other,
        }
    }
}

/// Waits until the session is over from outside.
pub async fn over(cut: &mut watch::Receiver<Option<Cut>>, deadline: Option<&Deadline>) -> Cut {
    // One that was seen already does not come again.
    if let Some(cut) = cut_now(cut, deadline) {
        return cut;
    }
    tokio::select! {
        biased;
        cut = hard_cut(cut) => cut,
        end = expiry(deadline) => end,
    }
}

/// Why the session is over from outside, if it is.
pub fn cut_now(cut: &watch::Receiver<Option<Cut>>, deadline: Option<&Deadline>) -> Option<Cut> {
    if let Some(cut) = cut.borrow().as_ref().filter(|cut| **cut != Cut::Drain) {
        return Some(cut.clone());
    }
    let (deadline, id) = deadline?;
    (*deadline <= tokio::time::Instant::now()).then(|| expired(id))
}

fn expired(id: &str) -> Cut {
    Cut::GrantEnded { id: id.to_owned(), how: "has expired".to_owned() }
}
