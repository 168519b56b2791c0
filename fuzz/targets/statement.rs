//! Statements of governed persons. What is let through must be made of reading alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_gateway::statement::judge;
use ringfence_statement::reach;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let reach = reach::of(text);
    assert!(!reach.is_plain || !reach.folds, "{text}");
    let verdict = judge(text);
    if verdict.refused.is_none() {
        let upper = text.to_ascii_uppercase();
        for word in ["INSERT ", "UPDATE ", "DELETE ", "TRUNCATE ", "CREATE ", "ALTER ", "GRANT "] {
            assert!(!upper.trim_start().starts_with(word), "{text}");
        }
    }
});
