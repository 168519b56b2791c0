//! Statements of governed persons: what is let through is made of reading alone, and what is decided with
//! the cache is what is decided without it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_statement::analysis::{Analysis, Cache};
use ringfence_statement::settings::{Encoding, Settings, Strings};

static CACHE: LazyLock<Cache> = LazyLock::new(Cache::default);

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    if text.contains('\0') {
        return;
    }
    let strings = [Strings::Standard, Strings::Escaping, Strings::Unsure][usize::from(first % 3)];
    let settings = Settings { strings, encoding: Encoding::Utf8 };
    let found = Analysis::of(text, settings);
    let cached = CACHE.of(text, settings);
    assert_eq!(found.verdict, cached.verdict, "{text}");
    assert_eq!(found.scope, cached.scope, "{text}");
    assert_eq!(found.shape, cached.shape, "{text}");
    let flags = |a: &Analysis| (a.is_sticky, a.changes_settings, a.is_understood);
    assert_eq!(flags(&found), flags(&cached), "{text}");
    assert!(!found.scope.is_plain || !found.scope.aggregates(), "{text}");
    if found.verdict.refused.is_none() {
        let upper = text.to_ascii_uppercase();
        for word in ["INSERT ", "UPDATE ", "DELETE ", "TRUNCATE ", "CREATE ", "ALTER ", "GRANT "] {
            assert!(!upper.trim_start().starts_with(word), "{text}");
        }
    }
});
