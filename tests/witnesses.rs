//! Witnesses: real processes that cosign, stop, lie or hang, and what crosses the border meanwhile.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::wire::{Way, Wire};
use support::{Demo, PROGRAM, Served, text};

/// A witness in a process of its own.
struct Witness {
    child: Child,
    url: String,
    vkey: String,
    dir: PathBuf,
}

impl Witness {
    fn start(demo: &Demo, name: &str, log: &Path, more: &[&str]) -> Self {
        let dir = demo.dir.join(name);
        let shown = dir.display().to_string();
        let made = demo.ringfence(
            &[&["witness", "keys", "--dir", &shown, "--name", &format!("test.example/{name}")], more]
                .concat(),
        );
        assert!(made.status.success(), "{}", text(&made));
        let mut child = Command::new(PROGRAM)
            .args(["witness", "serve", "--listen", "127.0.0.1:0", "--dir"])
            .arg(dir.join("state"))
            .arg("--key")
            .arg(dir.join("witness.key"))
            .arg("--log")
            .arg(log)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("RF_TEST_LOG").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        let vkey = std::fs::read_to_string(dir.join("witness.vkey")).unwrap().trim().to_owned();
        Self { child, url, vkey, dir }
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap().success()
        );
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Something that listens where a witness should, and answers each request with the same bytes, or never.
fn impostor(answer: &'static [u8], endless: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
                let _ = stream.read(&mut vec![0; 65536]);
                let _ = stream.write_all(answer);
                while endless && stream.write_all(&[b'x'; 4096]).is_ok() {}
                if answer.is_empty() {
                    std::thread::sleep(Duration::from_secs(60));
                }
            });
        }
    });
    url
}

/// A gateway of its own whose checkpoints these witnesses cosign, with a confirmation at most two seconds old.
fn serve(demo: &Demo, name: &str, policy: &str) -> Served {
    std::fs::write(demo.dir.join(format!("{name}.policy")), policy).unwrap();
    demo.serve_with(name, "", |text| {
        let lines = format!("[ledger]\nwitness_tls_root = \"keys/tls.crt\"\nwitnesses = \"{name}.policy\"\nwitness_max_age = 2\npublish_ms = 100");
        text.replace("[ledger]", &lines)
    })
}

/// TLS in front of a witness, with the demo's certificate; ends with the child's standard input.
fn https(demo: &Demo, url: &str) -> (Child, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/support/tls_front.py");
    let mut child = Command::new("python3")
        .arg(script)
        .arg(url.rsplit(':').next().unwrap())
        .args([demo.dir.join("keys/tls.crt"), demo.dir.join("keys/tls.key")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
    (child, format!("https://localhost:{}", port.trim()))
}

/// The key of a gateway that does not run yet.
fn log_key(demo: &Demo, name: &str) -> PathBuf {
    let keys = demo.dir.join(format!("keys-{name}"));
    let shown = keys.display().to_string();
    let made =
        demo.ringfence(&["keys", "--dir", &shown, "--origin", &format!("ringfence-demo.example/{name}")]);
    assert!(made.status.success(), "{}", text(&made));
    keys.join("ledger.vkey")
}

fn connects(port: u16, user: &str) -> Result<Wire, String> {
    Wire::connect(port, user, "us")
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn policy(witnesses: &[(&str, &str, &str)], quorum: &str) -> String {
    let lines: Vec<String> =
        witnesses.iter().map(|(name, vkey, url)| format!("witness {name} {vkey} {url}")).collect();
    format!("{}\n{quorum}\n", lines.join("\n"))
}

#[test]
fn nothing_crosses_the_border_unwitnessed() {
    let demo = Demo::start("witnesses");
    the_demo_is_witnessed(&demo);
    a_border_closes_and_opens(&demo);
    hostile_witnesses_do_no_harm(&demo);
    a_split_view_is_found(&demo);
}

fn the_demo_is_witnessed(demo: &Demo) {
    let said = demo.psql("singapore-analyst", "us", "select 1");
    assert!(said.status.success(), "{}", text(&said));
    let file = demo.dir.join("proof");
    wait("an entry is proven with cosignatures", || {
        let proof = demo.ringfence(&["ledger", "disclose", "0"]);
        std::fs::write(&file, &proof.stdout).unwrap();
        let said = demo.ringfence(&["ledger", "verify", "--proof", &file.display().to_string()]);
        said.status.success() && text(&said).contains("ringfence-demo.example/witness-")
    });
    assert!(demo.verify().unwrap().contains("Witnesses confirm the first"));
    // The other half of the protocol: anybody may ask a witness what it has seen.
    let policy = std::fs::read_to_string(demo.dir.join("witnesses.policy")).unwrap();
    let url =
        policy.lines().find(|l| l.starts_with("witness ")).unwrap().rsplit(' ').next().unwrap().to_owned();
    let output = Command::new("python3")
        .args(["-c", "import sys,hashlib,urllib.request as u\nh=hashlib.sha256(b'ringfence-demo.example/us').hexdigest()\nprint(u.urlopen(sys.argv[1]+'/'+h+'/checkpoint').read().decode())", &url])
        .output()
        .unwrap();
    assert!(text(&output).starts_with("ringfence-demo.example/us\n"), "{}", text(&output));
}

fn a_border_closes_and_opens(demo: &Demo) {
    let log = log_key(demo, "bordered");
    let one = Witness::start(demo, "one", &log, &[]);
    let two = Witness::start(demo, "two", &log, &["--ed25519"]);
    let mut front = https(demo, &two.url);
    let over_tls = front.1.clone();
    let both = policy(
        &[("one", &one.vkey, &one.url), ("two", &two.vkey, &over_tls)],
        "group both all one two\nquorum both",
    );
    let mut gateway = serve(demo, "bordered", &both);
    wait("the border is open", || connects(gateway.port, "singapore-analyst").is_ok());
    let mut reader = connects(gateway.port, "singapore-analyst").unwrap();
    let mut engineer = connects(gateway.port, "us-engineer").unwrap();
    reader.run("select 1", Way::Simple).map_err(|_| ()).unwrap();

    one.signal("-STOP");
    wait("the reader is cut", || reader.run("select 1", Way::Simple).is_err());
    let refused = connects(gateway.port, "beijing-engineer").map(drop).unwrap_err();
    assert!(refused.contains("Cross-border access is closed"), "{refused}");
    engineer.run("select 1", Way::Simple).map_err(|_| ()).expect("access inside the country goes on");
    connects(gateway.port, "feed-service").unwrap();
    wait("the operator sees who does not answer", || {
        let shown = show_witnesses(gateway.port);
        shown.contains("|it does not answer in time") && shown.lines().count() == 2
    });

    one.signal("-CONT");
    wait("the border is open again", || connects(gateway.port, "singapore-analyst").is_ok());
    wait("both are on record", || {
        let log = text(&demo.ringfence_with("bordered", &["ledger", "show", "--from", "0"]));
        log.contains("border-closed") && log.contains("border-opened")
    });
    gateway.kill();
    let verified = demo.ringfence_with("bordered", &["ledger", "verify"]);
    assert!(verified.status.success(), "{}", text(&verified));
    assert!(text(&verified).contains("test.example/one") && text(&verified).contains("test.example/two"));
    drop(front.0.stdin.take());
    let _ = front.0.wait();
    // A part of the quorum is not enough, and a stranger's policy is not satisfied by it.
    let strange = demo.dir.join("strange.policy");
    std::fs::write(&strange, policy(&[("demo", &demo_witness(demo), "")], "quorum demo")).unwrap();
    let verified =
        demo.ringfence_with("bordered", &["ledger", "verify", "--trust", &strange.display().to_string()]);
    assert!(text(&verified).contains("its cosignatures are not enough"), "{}", text(&verified));
}

fn show_witnesses(port: u16) -> String {
    let output = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={port} user=us-engineer dbname=ringfence"))
        .args(["-X", "-A", "-t", "-q", "-c", "SHOW WITNESSES"])
        .env("PGPASSWORD", "demo")
        .output()
        .unwrap();
    text(&output).trim().to_owned()
}

fn demo_witness(demo: &Demo) -> String {
    std::fs::read_to_string(demo.dir.join("keys/witness-1.vkey")).unwrap().trim().to_owned()
}

fn hostile_witnesses_do_no_harm(demo: &Demo) {
    let log = log_key(demo, "hostile");
    let good = Witness::start(demo, "good", &log, &[]);
    let spare = Witness::start(demo, "spare", &log, &["--ed25519"]);
    drop(TcpStream::connect(spare.url.trim_start_matches("http://")).unwrap());
    let silent = impostor(b"", false);
    let endless = impostor(b"HTTP/1.1 200 OK\r\n\r\n", true);
    let garbage = impostor(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nlies!\n", false);
    let huge = impostor(
        b"HTTP/1.1 409 Conflict\r\ncontent-type: text/x.tlog.size\r\ncontent-length: 21\r\n\r\n18446744073709551615\n",
        false,
    );
    let away =
        impostor(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", false);
    let keys: Vec<String> = (0..5)
        .map(|n| {
            let dir = demo.dir.join(format!("hostile-{n}"));
            let shown = dir.display().to_string();
            let made = demo.ringfence(&[
                "witness",
                "keys",
                "--dir",
                &shown,
                "--name",
                &format!("test.example/h{n}"),
            ]);
            assert!(made.status.success(), "{}", text(&made));
            std::fs::read_to_string(dir.join("witness.vkey")).unwrap().trim().to_owned()
        })
        .collect();
    let hostile = [
        ("silent", keys[0].as_str(), silent.as_str()),
        ("endless", &keys[1], &endless),
        ("garbage", &keys[2], &garbage),
        ("huge", &keys[3], &huge),
        ("away", &keys[4], &away),
    ];
    // One that is honest suffices, whatever the others do.
    let all = [&[("good", good.vkey.as_str(), good.url.as_str())], hostile.as_slice()].concat();
    let any = policy(&all, "group any any good silent endless garbage huge away\nquorum any");
    let mut gateway = serve(demo, "hostile", &any);
    wait("the border is open", || connects(gateway.port, "singapore-analyst").is_ok());
    let mut reader = connects(gateway.port, "singapore-analyst").unwrap();
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        reader.run("select 1", Way::Simple).map_err(|_| ()).expect("the border stays open");
        std::thread::sleep(Duration::from_millis(200));
    }
    let shown = show_witnesses(gateway.port);
    for problem in
        ["does not answer in time", "too long", "no cosignature", "the log was set back", "status 302"]
    {
        assert!(shown.contains(problem), "{problem}: {shown}");
    }
    gateway.kill();
    // Without an honest one nothing crosses, and what is inside the country goes on.
    let none = policy(&hostile, "group any any silent endless garbage huge away\nquorum any");
    let gateway = serve(demo, "hostile", &none);
    std::thread::sleep(Duration::from_secs(3));
    connects(gateway.port, "singapore-analyst").map(drop).unwrap_err();
    connects(gateway.port, "us-engineer").unwrap();
}

/// The operator shows two auditors two histories, both signed by the log's own key.
fn a_split_view_is_found(demo: &Demo) {
    let log = log_key(demo, "split");
    let one = Witness::start(demo, "watcher", &log, &[]);
    let policy = policy(&[("one", &one.vkey, &one.url)], "quorum one");
    let mut gateway = serve(demo, "split", &policy);
    wait("the border is open", || connects(gateway.port, "singapore-analyst").is_ok());
    let honest = demo.dir.join("ledger-split");
    wait("the log is confirmed", || {
        text(&demo.ringfence_with("split", &["ledger", "verify"])).contains("Witnesses confirm")
    });
    gateway.kill();
    // The other view: begun anew with the same key, without what was read.
    let hidden = demo.dir.join("ledger-honest");
    std::fs::rename(&honest, &hidden).unwrap();
    let mut gateway = serve(demo, "split", &policy);
    std::thread::sleep(Duration::from_secs(3));
    let refused = connects(gateway.port, "singapore-analyst").map(drop).unwrap_err();
    assert!(refused.contains("Cross-border access is closed"), "{refused}");
    for _ in 0..20 {
        connects(gateway.port, "us-engineer").unwrap();
    }
    wait("the witness has the evidence", || {
        std::fs::read_dir(one.dir.join("state/evidence")).is_ok_and(|files| files.count() > 0)
    });
    gateway.kill();
    let first = demo.ringfence_with(
        "split",
        &[
            "ledger",
            "verify",
            "--trust",
            &demo.dir.join("split.policy").display().to_string(),
            "--dir",
            &hidden.display().to_string(),
        ],
    );
    assert!(first.status.success(), "{}", text(&first));
    let second = demo.ringfence_with("split", &["ledger", "verify"]);
    assert!(text(&second).contains("no checkpoint has the cosignatures"), "{}", text(&second));
    // With the cosignatures of the true history put beside it, the false one is named.
    std::fs::copy(hidden.join("witnessed"), honest.join("witnessed")).unwrap();
    let second = demo.ringfence_with("split", &["ledger", "verify"]);
    assert!(text(&second).contains("witnesses have confirmed"), "{}", text(&second));
}
