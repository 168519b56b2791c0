//! What strangers hand over as evidence: policies, manifests, keys, cosigned checkpoints, server logs.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ringfence_reports::reconcile::ServerLog;
use ringfence_verifier::approvals::verify_signature;
use ringfence_verifier::checkpoint::{open_witnessed, origin_of};
use ringfence_verifier::cosignature::{Cosigner, CosignerKey};
use ringfence_verifier::manifest::{Manifest, rfc3339, seconds};
use ringfence_verifier::quorum::Quorum;

const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

/// An approver's passkey.
const PASSKEY: &str = "sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfUAAAAJbG9jYWxob3N0 a";

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let quorum = Quorum::parse(&text);
    let none = Quorum::parse("quorum none").expect("a policy");
    let _ = open_witnessed(bytes, VKEY, quorum.as_ref().unwrap_or(&none));
    let _ = origin_of(bytes);
    let _ = verify_signature("{}", &text, PASSKEY);
    let _ = Manifest::open(bytes, VKEY);
    let _ = Cosigner::parse(&text);
    let _ = CosignerKey::parse(&text);
    if let Some(at) = seconds(&text) {
        assert_eq!(seconds(&rfc3339(at)), Some(at));
    }
    if let Ok(mut log) = ServerLog::read(Path::new("log"), Box::new(std::io::Cursor::new(bytes.to_vec())), bytes.len() as u64) {
        while let Ok(Some(_)) = log.next_line() {}
    }
});
