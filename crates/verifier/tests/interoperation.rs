//! What others made, as our verifier sees it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

use ringfence_verifier::checkpoint::open_witnessed;
use ringfence_verifier::keys;
use ringfence_verifier::quorum::Quorum;
use signed_note::{Note, VerifierList};

/// The example of C2SP signed-note, "Verifier keys".
#[test]
fn the_specifications_own_note_verifies() {
    let vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let note = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let verifier = keys::verifiers(vkey).unwrap().pop().unwrap();
    let known = VerifierList::new(vec![Box::new(verifier)]);
    let (verified, _) = Note::from_bytes(note.as_bytes()).unwrap().verify(&known).unwrap();
    assert_eq!(verified.len(), 1);
    assert_eq!(keys::origin(vkey), Some("example.com/foo"));
}

/// A checkpoint of a log of ours that another implementation has cosigned (Cloudflare's `azul`, `tlog_cosignature` as of
/// July 2026), by Ed25519 and by ML-DSA-44, with keys from the seeds 9 9 9… and 8 8 8…
#[test]
fn cosignatures_of_another_implementation_verify() {
    let note = include_bytes!("vectors/cosigned.note");
    let vkey = include_str!("vectors/log.vkey");
    let quorum = Quorum::parse(include_str!("vectors/cosigned.policy")).unwrap();
    let witnessed = open_witnessed(note, vkey, &quorum).unwrap();
    assert!(witnessed.has_quorum);
    let who: Vec<(&str, u64)> = witnessed.cosigned.iter().map(|c| (c.witness.as_str(), c.time)).collect();
    assert_eq!(who, [("azul.example/ed", 1_800_000_000), ("azul.example/ml", 1_800_000_000)]);
    // Any other text is not what was cosigned.
    let text = String::from_utf8(note.to_vec()).unwrap();
    let changed = text.replacen("\n5\n", "\n6\n", 1);
    assert_ne!(changed, text);
    open_witnessed(changed.as_bytes(), vkey, &quorum).unwrap_err();
    let one = text.lines().filter(|l| !l.contains("azul.example/ml")).collect::<Vec<_>>().join("\n") + "\n";
    assert!(!open_witnessed(one.as_bytes(), vkey, &quorum).unwrap().has_quorum);
}
