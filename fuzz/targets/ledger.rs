//! Everything that the verifier reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_verifier::{checkpoint, proof, segment, tiles};

const VKEY: &str = "example.com/log+3ae5e2d8+AbEBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";

fuzz_target!(|data: &[u8]| {
    if let Some((entry, taken)) = segment::decode(data) {
        let mut out = Vec::new();
        segment::encode(&entry.leaf, &entry.salt, &entry.record, &mut out).unwrap();
        assert_eq!(out, data[..taken]);
    }
    if let Some(entries) = tiles::split_bundle(data) {
        assert_eq!(entries.iter().map(|e| e.len() + 2).sum::<usize>(), data.len());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Some((shelf, n, width)) = tiles::parse_path(text) {
            assert_eq!(tiles::path(shelf, n, width), text);
        }
    }
    assert!(checkpoint::open_head(data, VKEY).is_err());
    assert!(proof::check(data, VKEY, None).is_err());
});
