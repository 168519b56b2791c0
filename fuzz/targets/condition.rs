//! `--where`: what is accepted is spelled the same when parsed again, and stands in a statement without changing it.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use ringfence_grants::Condition;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let known = BTreeSet::from(["id", "country", "email"]);
    if let Ok(condition) = Condition::parse(text, &known) {
        let again = Condition::parse(&condition.text, &known).expect("its own spelling is accepted");
        assert_eq!(again, condition);
        assert!(condition.reads.iter().all(|c| known.contains(c.as_str())));
    }
});
