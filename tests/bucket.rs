//! A copy of the log in an S3-compatible store: it follows, it catches up after the store was away, and what is fetched from it verifies.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

#[path = "support/s3.rs"]
mod s3;
#[path = "support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use s3::serve;
use support::{Demo, text};

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How many entries a checkpoint is of.
fn size(checkpoint: &Path) -> u64 {
    let note = std::fs::read_to_string(checkpoint).unwrap_or_default();
    note.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or(0)
}

fn fetch(demo: &Demo, name: &str) -> PathBuf {
    let out = demo.dir.join(name);
    let fetched = demo.ringfence_with("bucket", &["ledger", "fetch", "--out", &out.display().to_string()]);
    assert!(fetched.status.success(), "{}", text(&fetched));
    out
}

fn verify(demo: &Demo, log: &Path) -> (bool, String) {
    let verifier = Path::new(env!("CARGO_BIN_EXE_ringfence"));
    let checked = Command::new(verifier)
        .args(["ledger", "verify", "--dir"])
        .arg(log)
        .arg("--vkey")
        .arg(demo.dir.join("keys-bucket/ledger.vkey"))
        .output()
        .unwrap();
    (checked.status.success(), text(&checked))
}

#[test]
fn a_bucket_has_the_log_and_catches_up() {
    let demo = Demo::start("bucket");
    let root = demo.dir.join("s3");
    let bucket = root.join("logs/us");
    std::fs::create_dir_all(root.join("logs")).unwrap();
    std::fs::write(demo.dir.join("s3.keys"), "access\nsecret\n").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = serve(&root, port);
    let configured = |text: String| {
        let lines = format!(
            "[ledger.bucket]\nendpoint = \"http://127.0.0.1:{port}\"\nname = \"logs\"\nprefix = \"us\"\nkeys = \"s3.keys\"\nprivate = true\n\n[policy]"
        );
        text.replace("[policy]", &lines)
    };
    let served = demo.serve_with("bucket", "", configured);
    let own = demo.dir.join("ledger-bucket/checkpoint");
    let read = |count: usize| {
        let mut wire = support::wire::Wire::connect(served.port, "us-engineer", "us").unwrap();
        for id in 0..count {
            wire.run(&format!("select email from users where id = {id}"), support::wire::Way::Simple)
                .unwrap();
        }
    };
    read(400);
    let is_level = || size(&own) > 600 && size(&bucket.join("checkpoint")) == size(&own);
    wait("the copy does not follow", is_level);
    let first = fetch(&demo, "fetched-1");
    let (holds, said) = verify(&demo, &first);
    assert!(holds, "{said}");
    assert!(!bucket.join("private").exists(), "the segment is being written");

    // Away: the log goes on. Back: what is missing follows.
    drop(server);
    read(300);
    wait("the log waits for a bucket", || size(&own) > 1200);
    let before = size(&bucket.join("checkpoint"));
    let _server = serve(&root, port);
    wait("the copy does not catch up", is_level);
    assert!(size(&bucket.join("checkpoint")) > before + 500);
    let second = fetch(&demo, "fetched-2");
    let (holds, said) = verify(&demo, &second);
    assert!(holds && size(&second.join("checkpoint")) > before, "{said}");

    // A tile that was changed there is found by whoever fetches it.
    let tile = bucket.join("tile/entries/001");
    let mut bytes = std::fs::read(&tile).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&tile, bytes).unwrap();
    let (holds, said) = verify(&demo, &fetch(&demo, "fetched-3"));
    assert!(!holds && said.contains("is not what the entries hash to"), "{said}");

    // A successor goes on where the bucket is; somebody else's log is not written over.
    drop(served);
    let other = demo.serve_with("other", "", configured);
    std::thread::sleep(Duration::from_secs(3));
    let kept = std::fs::read_to_string(bucket.join("checkpoint")).unwrap();
    assert!(kept.starts_with("ringfence-demo.example/bucket\n"), "{kept}");
    drop(other);
}
