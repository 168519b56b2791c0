//! Both messages of a client that logs in: nobody gets in without the password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_gateway::scram::{self, Binding, Verifier};

fuzz_target!(|data: &[u8]| {
    let at = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let (first, last) = data.split_at(at);
    let _ = std::str::from_utf8(data).ok().and_then(Verifier::parse);
    let binding = if first.starts_with(b"p") { Binding::Required(b"certificate") } else { Binding::Impossible };
    if let Ok((state, _)) = scram::challenge(Verifier::mock(b"secret", "ann"), binding, first) {
        assert!(state.finish(last.get(1..).unwrap_or_default()).is_err());
    }
});
