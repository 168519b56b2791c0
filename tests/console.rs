//! The web console, as people use it: a real provider, a real browser, authenticators that sign.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Demo, text};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program of node's that ends with the test.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn node(arguments: &[&str]) -> Node {
    let child = Command::new("node")
        .current_dir(root())
        .args(arguments)
        .env("NODE_PATH", root().join("target/drivers/node/node_modules"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    Node(child.unwrap())
}

/// People in front of browsers.
struct People {
    node: RefCell<Node>,
    answers: RefCell<BufReader<ChildStdout>>,
}

impl People {
    fn new(origin: &str) -> Self {
        let mut node = node(&["tests/drivers/console_test.js", origin]);
        let mut answers = BufReader::new(node.0.stdout.take().unwrap());
        answers.read_line(&mut String::new()).unwrap();
        Self { node: RefCell::new(node), answers: RefCell::new(answers) }
    }

    fn try_do(&self, what: &str, more: Value) -> Value {
        let mut command = more;
        command["do"] = what.into();
        let mut node = self.node.borrow_mut();
        writeln!(node.0.stdin.as_mut().unwrap(), "{command}").unwrap();
        let mut line = String::new();
        self.answers.borrow_mut().read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{what}: {line}"))
    }

    fn act(&self, what: &str, more: Value) -> Value {
        let answer = self.try_do(what, more);
        assert!(answer["failed"].is_null(), "{what}: {answer}");
        answer
    }

    fn shown(&self, who: &str, path: &str) -> String {
        self.act("open", json!({ "as": who, "path": path }))["text"].as_str().unwrap().to_owned()
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..200 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}");
}

#[test]
fn people_ask_decide_and_are_cut_off() {
    let demo = Demo::start("console");
    let (port, provider_port) = (free_port(), free_port());
    let origin = format!("http://localhost:{port}");
    let secret = demo.dir.join("keys/console.secret");
    std::fs::write(&secret, "a-secret-of-the-console-for-the-provider").unwrap();
    let mut provider = node(&[
        "tests/drivers/provider.js",
        &provider_port.to_string(),
        &secret.display().to_string(),
        &format!("{origin}/callback"),
    ]);
    BufReader::new(provider.0.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let console = format!(
        "\n[console]\nlisten = \"127.0.0.1:{port}\"\norigin = \"{origin}\"\n\n[console.provider]\nissuer = \"http://localhost:{provider_port}\"\nclient_id = \"ringfence\"\nclient_secret = \"keys/console.secret\"\n"
    );
    let gateway = demo.serve_with("console", "", |config| format!("{config}{console}"));
    let people = People::new(&origin);

    // Nobody is let in without the provider's word, and the word is for one login, in one browser.
    let raw = |path: &str| people.act("raw", json!({ "path": path }));
    assert_eq!(raw("/")["status"], 303);
    assert_eq!(raw("/requests/R-22222222")["status"], 303);
    assert_eq!(raw("/callback?code=x&state=y")["status"], 403);
    assert_eq!(raw("/nothing")["status"], 404);
    let head = &raw("/nothing")["headers"];
    assert!(head["content-security-policy"].as_str().unwrap().starts_with("default-src 'none'"), "{head}");
    let come_back = people.act("raw", json!({ "path": "/login?next=//evil.example" }));
    assert!(come_back["headers"]["location"].as_str().unwrap().contains("code_challenge_method=S256"));
    let cookie = come_back["headers"]["set-cookie"].as_str().unwrap().split(';').next().unwrap().to_owned();
    let forged = people
        .act("raw", json!({ "path": "/callback?code=x&state=forged", "headers": { "cookie": cookie } }));
    assert!(
        forged["status"] == 403 && forged["text"].as_str().unwrap().contains("belongs to another login"),
        "{forged}"
    );

    // Two approvers enrol; the registry takes them up.
    let approvers = ["us-approver-1", "us-approver-2"];
    let registry = demo.dir.join("registry-console.toml");
    for who in approvers {
        let inside = people.act("login", json!({ "as": who }));
        assert!(inside["text"].as_str().unwrap().contains("Waits for you"), "{inside}");
        let line = people.act("enrol", json!({ "as": who }))["line"].as_str().unwrap().to_owned();
        assert!(line.starts_with("sk-ecdsa-sha2-nistp256@openssh.com "), "{line}");
        let before = std::fs::read_to_string(&registry).unwrap();
        let at = before.find(&format!("name = \"{who}\"")).unwrap();
        let key = at + before[at..].find("key = \"").unwrap() + "key = \"".len();
        let end = key + before[key..].find('"').unwrap();
        let after = format!("{}{}\\n{}{}", &before[..key], &before[key..end], line.trim(), &before[end..]);
        std::fs::write(&registry, after).unwrap();
    }
    let cookies = people.act("cookies", json!({ "as": approvers[0] }));
    let cookie = &cookies["cookies"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["name"] == "__Host-ringfence")
        .unwrap()
        .clone();
    assert!(
        cookie["httpOnly"] == true && cookie["secure"] == true && cookie["sameSite"] == "Lax",
        "{cookie}"
    );
    assert!(Command::new("kill").args(["-HUP", &gateway.child.id().to_string()]).status().unwrap().success());
    wait("the passkeys are not in force", || {
        people.shown(approvers[1], "/passkey").contains("The registry knows 2 of yours")
    });

    // Somebody abroad asks, as psql users do.
    let analyst = "singapore-analyst";
    let ask = |purpose: &str| -> String {
        let asked = demo.ringfence_with(
            "console",
            &[
                "request",
                "--json",
                "--as",
                analyst,
                "--store",
                "us",
                "--columns",
                "users.email",
                "--where",
                "id = 2",
                "--purpose",
                purpose,
                "--for",
                "1h",
                "--max-rows",
                "1000",
            ],
        );
        let asked: Value =
            serde_json::from_slice(&asked.stdout).unwrap_or_else(|_| panic!("{}", text(&asked)));
        asked["id"].as_str().unwrap().to_owned()
    };
    let email = || {
        let output = Command::new("psql")
            .arg(format!("host=127.0.0.1 port={} user={analyst} dbname=us", gateway.port))
            .args(["-X", "-A", "-t", "-c", "select email from users where id = 2"])
            .env("PGPASSWORD", "demo")
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert!(email().ends_with("@masked.invalid"), "{}", email());
    let id = ask("refund 4711");
    let path = format!("/requests/{id}");
    let inbox = people.shown(approvers[0], "/");
    assert!(inbox.contains("refund 4711") && inbox.contains(analyst), "{inbox}");
    let told = people.shown(approvers[0], &path);
    for wanted in
        ["singapore-analyst asks for email of users", "in SG", "id = 2", "masked", "clear, in the rows above"]
    {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }

    // A stolen cookie looks, and does not approve; nor does a page of another site, nor a device that did not ask who is there.
    let approve = format!("{path}/approve");
    let assertion = json!({ "authenticatorData": "AAAA", "clientDataJSON": "e30", "signature": "AAAA" });
    let stolen = people
        .act("steal", json!({ "as": approvers[0], "path": approve, "body": { "assertion": assertion } }));
    assert_eq!(stolen["status"], 403, "{stolen}");
    for more in [json!({ "token": false }), json!({ "from": "https://evil.example" })] {
        let mut attack = json!({ "as": approvers[0], "path": approve, "body": { "assertion": assertion } });
        attack.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = people.act("steal", attack);
        assert!(answer["status"] == 403 || answer["status"] == 422, "{answer}");
    }
    let unsure = people.act("approve", json!({ "as": approvers[0], "path": path, "verified": false }));
    assert!(unsure["approved"] == false, "{unsure}");
    // The one who asked, and somebody abroad, are not even asked.
    people.act("login", json!({ "as": analyst }));
    assert_eq!(people.act("approve", json!({ "as": analyst, "path": path }))["offered"], false);

    let undecided = people.act("axe", json!({ "as": approvers[1], "path": path }));
    assert_eq!(undecided["violations"], json!([]));
    assert!(undecided["without_script"].as_str().unwrap().contains("ringfence approve"), "{undecided}");
    // Two approve.
    for who in approvers {
        let done = people.act("approve", json!({ "as": who, "path": path }));
        assert_eq!(done["approved"], true, "{who}: {done}");
    }
    assert!(people.shown(approvers[0], &path).contains("granted"));
    assert!(email().ends_with("@example.com") || !email().contains("masked"), "{}", email());

    // An assertion is for one request: sent again, for another one, it is worth nothing.
    let another = ask("another matter");
    let sent = people.act("sent", json!({ "as": approvers[0] }));
    let last = sent["bodies"].as_array().unwrap().last().unwrap()["assertion"].clone();
    let replay = people.act("steal", json!({ "as": approvers[0], "path": format!("/requests/{another}/approve"), "body": { "assertion": last } }));
    assert!(
        replay["status"] == 403 && replay["text"].as_str().unwrap().contains("not over this request"),
        "{replay}"
    );
    // Turned down, with a reason that the requester reads.
    let denied = people.act("form", json!({ "as": approvers[1], "path": format!("/requests/{another}"), "action": "deny", "reason": "no ticket" }));
    assert_eq!(denied["status"], Value::Null, "{denied}");
    assert!(denied["text"].as_str().unwrap().contains("denied"), "{denied}");
    let told = people.shown(analyst, &format!("/requests/{another}"));
    assert!(told.contains("denied") && told.contains("no ticket"), "{told}");

    // Taken back: the session that depends on it is cut.
    let mut session = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={} user={analyst} dbname=us", gateway.port))
        .args(["-X", "-c", "select pg_sleep(0.1), email from users, generate_series(1, 500) where id = 2"])
        .env("PGPASSWORD", "demo")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(800));
    people.act("form", json!({ "as": approvers[0], "path": path, "action": "revoke", "reason": "done" }));
    let mut cut = String::new();
    std::io::Read::read_to_string(&mut session.stderr.take().unwrap(), &mut cut).unwrap();
    session.wait().unwrap();
    assert!(cut.contains("was revoked by us-approver-1"), "{cut}");
    assert!(email().ends_with("@masked.invalid"));

    // Everybody can use it: no violation of WCAG, light on the line, readable without a script.
    for (who, page) in
        [(approvers[0], "/"), (approvers[0], "/passkey"), (approvers[0], path.as_str()), (analyst, "/")]
    {
        let looked = people.act("axe", json!({ "as": who, "path": page }));
        assert_eq!(looked["violations"], json!([]), "{page}");
        assert!(looked["bytes"].as_u64().unwrap() < 100_000, "{page}: {} bytes", looked["bytes"]);
        assert!(looked["without_script"].as_str().unwrap().len() > 50, "{looked}");
    }
    // Whoever is not in the registry is not let in, whatever the provider says.
    let stranger = people.act("login", json!({ "as": "somebody-else" }));
    assert!(stranger["text"].as_str().unwrap().contains("not in the registry"), "{stranger}");
    // No script failed, and none was kept out by the policy.
    let errors = people.act("errors", json!({}))["errors"].clone();
    let unexpected: Vec<&Value> =
        errors.as_array().unwrap().iter().filter(|e| !e.as_str().unwrap().contains("403")).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    // The provider is away: a clear page.
    drop(provider);
    drop(gateway);
    let gateway = demo.serve_with("console", "", |config| format!("{config}{console}"));
    let away = raw("/login");
    assert!(away["status"] == 503 && away["text"].as_str().unwrap().contains("cannot be reached"), "{away}");

    // And a stranger, with the log alone, checks both passkeys' signatures.
    std::thread::sleep(Duration::from_secs(2));
    drop(gateway);
    let checked = demo.ringfence_with("console", &["ledger", "verify"]);
    assert!(
        checked.status.success() && text(&checked).contains("2 approvals are signed"),
        "{}",
        text(&checked)
    );
}
