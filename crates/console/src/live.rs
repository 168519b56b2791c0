//! Pages that follow what happens: one event each time that requests, grants or moves have changed (server-sent events, HTML Standard 9.2). The
//! event says that, and nothing else: what a person may see of it, the page asks for.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt as _};

use crate::pages::{At, Person, Told};

/// `GET /events`
pub(crate) async fn events(
    State(desk): At,
    person: Person,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Told> {
    let place = desk.limits.follower(&person.principal.name)?;
    let changes = desk.gateway.grants.changes();
    // What changed while the page was on its way is not lost: the first event says how long ago something did, in milliseconds.
    let age = changes.borrow().elapsed().as_millis();
    let first = Event::default().event("last").data(age.to_string());
    let events = stream::unfold((changes, place), |(mut changes, place)| async move {
        changes.changed().await.ok()?;
        // What happens in one moment is one event.
        tokio::time::sleep(Duration::from_millis(100)).await;
        changes.borrow_and_update();
        Some((Ok(Event::default().event("change").data("now")), (changes, place)))
    });
    let events = stream::once(async { Ok(first) }).chain(events);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(20))))
}
