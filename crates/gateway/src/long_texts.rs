//! Long texts are analysed on threads of their own: a worker's thread has the sessions of many
//! people, and to parse a long text takes as long as thousands of their statements. One person has
//! one such thread at a time, and all people together leave one core to the workers. The parse tree
//! of a dense text has some KiB for each byte, so the texts that are analysed at once are together
//! no longer than the longest one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ringfence_statement::allow_list;
use ringfence_statement::analysis::{Analysis, Cache};
use ringfence_statement::settings::Settings;
use tokio::sync::Semaphore;

/// A longer text is analysed apart, in bytes.
pub const LONG: usize = 2048;

/// So many KiB are analysed at once: one text of the greatest length.
const LENGTH: usize = allow_list::MAX_LENGTH / 1024;

/// See the module's text.
pub struct LongTexts {
    all: Arc<Semaphore>,
    /// Of texts that are analysed now, in KiB.
    length: Arc<Semaphore>,
    by_principal: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Default for LongTexts {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            all: Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))),
            length: Arc::new(Semaphore::new(LENGTH)),
            by_principal: Mutex::default(),
        }
    }
}

impl LongTexts {
    /// Analyses a text for a principal, when it is their turn. `needs_scope` is as in
    /// [`ringfence_statement::analysis::Recent::of`].
    pub async fn analyse(
        &self,
        principal: &str,
        cache: &Arc<Cache>,
        text: &str,
        settings: Settings,
        needs_scope: bool,
    ) -> Arc<Analysis> {
        let own = self.of_principal(principal);
        // The work goes on when its session is over, and so do its places.
        let places = async {
            let own = Arc::clone(&own).acquire_owned().await.ok()?;
            // What is longer is not parsed at all.
            let kibibytes = u32::try_from(text.len().div_ceil(1024).min(LENGTH)).ok()?;
            let length = Arc::clone(&self.length).acquire_many_owned(kibibytes).await.ok()?;
            Some((own, length, Arc::clone(&self.all).acquire_owned().await.ok()?))
        };
        let places = places.await;
        let (cache, text) = (Arc::clone(cache), text.to_owned());
        let analysed = tokio::task::spawn_blocking(move || {
            let found =
                if needs_scope { cache.of(&text, settings) } else { cache.without_scope(&text, settings) };
            drop(places);
            found
        });
        let found = analysed.await.unwrap_or_else(|_| Arc::new(Analysis::not_understood(settings)));
        drop(own);
        self.forget(principal);
        found
    }

    fn of_principal(&self, principal: &str) -> Arc<Semaphore> {
        let mut known = self.by_principal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(principal) {
            return Arc::clone(own);
        }
        let own = Arc::new(Semaphore::new(1));
        known.insert(principal.to_owned(), Arc::clone(&own));
        own
    }

    /// Nobody waits for it any more.
    fn forget(&self, principal: &str) {
        let mut known = self.by_principal.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(principal).is_some_and(|own| Arc::strong_count(own) == 1) {
            known.remove(principal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_principal_has_a_turn_and_nothing_is_left_behind() {
        let texts = LongTexts { all: Arc::new(Semaphore::new(1)), ..LongTexts::default() };
        let cache = Arc::new(Cache::default());
        let settings = Settings::default();
        let long = format!("select {}", vec!["1"; 20_000].join(","));
        let one = texts.analyse("a", &cache, &long, settings, true);
        let other = texts.analyse("a", &cache, "select email from users", settings, true);
        let third = texts.analyse("b", &cache, "no sql", settings, true);
        let (one, other, third) = tokio::join!(one, other, third);
        assert!(one.is_understood && other.scope.tables.contains_key("users") && !third.is_understood);
        assert!(texts.by_principal.lock().unwrap().is_empty());
        assert_eq!((texts.all.available_permits(), texts.length.available_permits()), (1, LENGTH));
    }
}
