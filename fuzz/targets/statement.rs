//! Statements of governed persons: what is let through is made of reading alone, and what is decided with
//! the cache, or with what a session remembers, is what is decided without it. The last byte says which
//! settings the text is read under, where it is below 3.
#![no_main]

use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use ringfence_statement::analysis::{Analysis, Cache, Recent};
use ringfence_statement::settings::{Encoding, Settings, Strings};
use ringfence_statement::shape;

static CACHE: LazyLock<Cache> = LazyLock::new(Cache::default);
static RECENT: LazyLock<Mutex<Recent>> = LazyLock::new(Mutex::default);

fuzz_target!(|data: &[u8]| {
    let (setting, text) = match data.split_last() {
        Some((last, rest)) if *last < 3 => (usize::from(*last), rest),
        _ => (0, data),
    };
    let Ok(text) = std::str::from_utf8(text) else { return };
    if text.contains('\0') {
        return;
    }
    let strings = [Strings::Standard, Strings::Escaping, Strings::Unsure][setting];
    let settings = Settings { strings, encoding: Encoding::Utf8 };
    let found = Analysis::of(text, settings);
    // Other constants come first, so that a session's own memory finds some texts.
    let mut recent = RECENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let other: String = text.chars().map(|c| if c.is_ascii_digit() { '7' } else { c }).collect();
    recent.of(&CACHE, &other, settings, true);
    // So does the text whose constants are the placeholders of keys: it is the key of the others.
    let key = shape::with_key(text, str::to_owned);
    CACHE.of(&key, settings);
    for cached in [CACHE.of(text, settings), recent.of(&CACHE, text, settings, true)] {
        assert_eq!(found.verdict, cached.verdict, "{text}");
        assert_eq!(found.scope, cached.scope, "{text}");
        assert_eq!(found.shape, cached.shape, "{text}");
        assert_eq!(found.symbols, cached.symbols, "{text}");
        let flags =
            |a: &Analysis| (a.is_sticky, a.changes_settings, a.is_understood, a.defines_code, a.runs_sql);
        assert_eq!(flags(&found), flags(&cached), "{text}");
        let parts =
            |a: &Analysis| a.parts.iter().map(|p| (p.effect.clone(), p.scope.clone())).collect::<Vec<_>>();
        assert_eq!(parts(&found), parts(&cached), "{text}");
    }
    assert!(!found.scope.is_plain || !found.scope.aggregates(), "{text}");
    if found.verdict.refused.is_none() {
        let upper = text.to_ascii_uppercase();
        for word in ["INSERT ", "UPDATE ", "DELETE ", "TRUNCATE ", "CREATE ", "ALTER ", "GRANT "] {
            assert!(!upper.trim_start().starts_with(word), "{text}");
        }
    }
});
