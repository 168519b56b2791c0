//! The web console, as people use it: a real provider, a real browser, authenticators that sign.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::Hmac;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use sha2::Sha256;
use support::{Demo, Served, text};

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

/// A demo, a provider and a console, and people in front of browsers.
struct Scene {
    demo: Demo,
    gateway: Option<Served>,
    provider: Option<Node>,
    people: People,
    console: String,
    issuer: String,
    origin: String,
    told: Mutex<Receiver<(String, String)>>,
}

/// What the provider shows to deactivate people.
const SCIM: &str = "a-token-of-the-provider-for-scim-requests";

/// What signs the webhooks' messages.
const HOOK: &str = "a-secret-between-the-console-and-its-receiver";

/// A receiver of webhooks, which fails the first time: head and body of each message.
fn receiver() -> (u16, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
            let length = head
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            std::io::Read::read_exact(&mut reader, &mut body).unwrap();
            let answer = if n == 0 { "500 Not Now" } else { "204 No Content" };
            let _ = write!(
                reader.get_mut(),
                "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            if tell.send((head, String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    (port, told)
}

fn with_console(config: &str, console: &str) -> String {
    let tls = config.replace("[gateway.tls]\n", "[gateway.tls]\nclient_ca = \"keys/login-ca.crt\"\n");
    format!("{tls}{console}")
}

/// Who signs the certificates that a login gives.
fn authority(keys: &Path) {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Ringfence logins");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    std::fs::write(keys.join("login-ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(keys.join("login-ca.key"), key.serialize_pem()).unwrap();
}

const ANALYST: &str = "singapore-analyst";
const APPROVERS: [&str; 2] = ["us-approver-1", "us-approver-2"];
const REGULATOR: &str = "us-regulator";

impl Scene {
    fn start() -> Self {
        let demo = Demo::start("console");
        let (port, provider_port) = (free_port(), free_port());
        let origin = format!("http://localhost:{port}");
        let secret = demo.dir.join("keys/console.secret");
        std::fs::write(&secret, "a-secret-of-the-console-for-the-provider").unwrap();
        let published = demo.dir.join("published");
        std::fs::create_dir(&published).unwrap();
        std::fs::write(
            published.join("2026-q3.html"),
            "<!doctype html><title>Q3</title><h1>Third quarter</h1>",
        )
        .unwrap();
        let provider = provider(&origin, provider_port, &secret);
        std::fs::write(demo.dir.join("keys/scim.token"), SCIM).unwrap();
        authority(&demo.dir.join("keys"));
        let (hook, told) = receiver();
        std::fs::write(demo.dir.join("keys/hook.url"), format!("http://127.0.0.1:{hook}/hook")).unwrap();
        std::fs::write(demo.dir.join("keys/hook.secret"), HOOK).unwrap();
        let issuer = format!("http://localhost:{provider_port}");
        let console = format!(
            "\n[console]\nlisten = \"127.0.0.1:{port}\"\norigin = \"{origin}\"\npublished = \"published\"\noperators = [\"growth\"]\nscim_token = \"keys/scim.token\"\n\n[console.provider]\nissuer = \"http://localhost:{provider_port}\"\nclient_id = \"ringfence\"\nclient_secret = \"keys/console.secret\"\ncli_client_id = \"ringfence-cli\"\n\n[console.login]\nca_certificate = \"keys/login-ca.crt\"\nca_key = \"keys/login-ca.key\"\nhost = \"localhost\"\nroot = \"keys/tls.crt\"\n\n[[console.webhooks]]\nurl = \"keys/hook.url\"\nsecret = \"keys/hook.secret\"\n"
        );
        let gateway = demo.serve_with("console", "", |config| with_console(&config, &console));
        let people = People::new(&origin);
        Self {
            demo,
            gateway: Some(gateway),
            provider: Some(provider),
            people,
            console,
            issuer,
            origin,
            told: Mutex::new(told),
        }
    }

    fn gateway(&self) -> &Served {
        self.gateway.as_ref().unwrap()
    }

    fn raw(&self, path: &str) -> Value {
        self.people.act("raw", json!({ "path": path }))
    }

    /// As the analyst, with psql.
    fn psql(&self, sql: &str) -> (String, String) {
        let output = Command::new("psql")
            .arg(format!("host=127.0.0.1 port={} user={ANALYST} dbname=us", self.gateway().port))
            .args(["-X", "-A", "-t", "-c", sql])
            .env("PGPASSWORD", "demo")
            .output()
            .unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (said(&output.stdout), said(&output.stderr))
    }

    fn email(&self) -> String {
        self.psql("select email from users where id = 2").0
    }

    /// The analyst asks on the command line.
    fn ask(&self, purpose: &str, length: &str) -> String {
        let asked = self.demo.ringfence_with(
            "console",
            &[
                "request",
                "--json",
                "--as",
                ANALYST,
                "--store",
                "us",
                "--columns",
                "users.email,users.phone",
                "--where",
                "id < 100",
                "--purpose",
                purpose,
                "--for",
                length,
                "--max-rows",
                "1000",
            ],
        );
        let asked: Value =
            serde_json::from_slice(&asked.stdout).unwrap_or_else(|_| panic!("{}", text(&asked)));
        asked["id"].as_str().unwrap().to_owned()
    }

    fn approve(&self, path: &str) {
        for who in APPROVERS {
            let done = self.people.act("approve", json!({ "as": who, "path": path }));
            assert_eq!(done["approved"], true, "{who}: {done}");
        }
    }
}

fn provider(origin: &str, port: u16, secret: &Path) -> Node {
    let mut provider = node(&[
        "tests/drivers/provider.js",
        &port.to_string(),
        &secret.display().to_string(),
        &format!("{origin}/callback"),
    ]);
    BufReader::new(provider.0.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    provider
}

#[test]
fn people_ask_decide_and_are_cut_off() {
    let mut scene = Scene::start();
    nobody_is_let_in_without_the_providers_word(&scene);
    approvers_enrol(&scene);
    a_request_is_decided_by_passkeys(&scene);
    an_approver_gives_less_than_was_asked_for(&scene);
    somebody_asks_in_the_browser_where_psql_sent_them(&scene);
    pages_and_receivers_follow_what_happens(&scene);
    a_regulator_closes_the_border(&scene);
    the_rooms_show_what_there_is(&scene);
    what_everybody_may_see_needs_no_login(&scene);
    programs_show_tokens(&scene);
    the_api_is_what_it_says(&scene);
    a_login_is_a_certificate_until_the_provider_says_otherwise(&scene);
    approvers_let_approvers_in(&scene);
    everybody_can_use_the_pages(&scene);
    strangers_and_failures_are_told(&mut scene);
}

fn reload(scene: &Scene) {
    let gateway = scene.gateway().child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &gateway]).status().unwrap().success());
}

fn nobody_is_let_in_without_the_providers_word(scene: &Scene) {
    let people = &scene.people;
    // Nobody is let in without the provider's word, and the word is for one login, in one browser.
    let raw = |path: &str| scene.raw(path);
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
}

fn approvers_enrol(scene: &Scene) {
    let people = &scene.people;
    // Two approvers enrol; the registry takes them up.
    let registry = scene.demo.dir.join("registry-console.toml");
    for who in APPROVERS.into_iter().chain([REGULATOR]) {
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
    let cookies = people.act("cookies", json!({ "as": APPROVERS[0] }));
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
    reload(scene);
    wait("the passkeys are not in force", || {
        people.shown(APPROVERS[1], "/passkey").contains("The registry knows 2 of yours")
    });
}

fn a_request_is_decided_by_passkeys(scene: &Scene) {
    let people = &scene.people;
    // Somebody abroad asks, as psql users do.
    assert!(scene.email().ends_with("@masked.invalid"), "{}", scene.email());
    let id = scene.ask("refund 4711", "1h");
    let path = format!("/requests/{id}");
    let inbox = people.shown(APPROVERS[0], "/");
    assert!(inbox.contains("refund 4711") && inbox.contains(ANALYST), "{inbox}");
    let told = people.shown(APPROVERS[0], &path);
    for wanted in [
        "singapore-analyst asks for email, phone of users",
        "in SG",
        "id < 100",
        "masked",
        "clear, in the rows above",
    ] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }

    // A stolen cookie looks, and does not approve; nor does a page of another site, nor a device that did not ask who is there.
    let approve = format!("{path}/approve");
    let assertion = json!({ "authenticatorData": "AAAA", "clientDataJSON": "e30", "signature": "AAAA" });
    let stolen = people
        .act("steal", json!({ "as": APPROVERS[0], "path": approve, "body": { "assertion": assertion } }));
    assert_eq!(stolen["status"], 403, "{stolen}");
    for more in [json!({ "token": false }), json!({ "from": "https://evil.example" })] {
        let mut attack = json!({ "as": APPROVERS[0], "path": approve, "body": { "assertion": assertion } });
        attack.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = people.act("steal", attack);
        assert!(answer["status"] == 403 || answer["status"] == 422, "{answer}");
    }
    let unsure = people.act("approve", json!({ "as": APPROVERS[0], "path": path, "verified": false }));
    assert!(unsure["approved"] == false, "{unsure}");
    // The one who asked, and somebody abroad, are not even asked.
    people.act("login", json!({ "as": ANALYST }));
    assert_eq!(people.act("approve", json!({ "as": ANALYST, "path": path }))["offered"], false);

    let undecided = people.act("axe", json!({ "as": APPROVERS[1], "path": path }));
    assert_eq!(undecided["violations"], json!([]));
    assert!(undecided["without_script"].as_str().unwrap().contains("ringfence approve"), "{undecided}");
    // Two approve.
    for who in APPROVERS {
        let done = people.act("approve", json!({ "as": who, "path": path }));
        assert_eq!(done["approved"], true, "{who}: {done}");
    }
    assert!(people.shown(APPROVERS[0], &path).contains("granted"));
    assert!(
        scene.email().ends_with("@example.com") || !scene.email().contains("masked"),
        "{}",
        scene.email()
    );

    // An assertion is for one request: sent again, for another one, it is worth nothing.
    let another = scene.ask("another matter", "1h");
    let sent = people.act("sent", json!({ "as": APPROVERS[0] }));
    let last = sent["bodies"].as_array().unwrap().last().unwrap()["assertion"].clone();
    let replay = people.act("steal", json!({ "as": APPROVERS[0], "path": format!("/requests/{another}/approve"), "body": { "assertion": last } }));
    assert!(
        replay["status"] == 403 && replay["text"].as_str().unwrap().contains("not over this request"),
        "{replay}"
    );
    // Turned down, with a reason that the requester reads.
    let denied = people.act("form", json!({ "as": APPROVERS[1], "path": format!("/requests/{another}"), "action": "deny", "reason": "no ticket" }));
    assert_eq!(denied["status"], Value::Null, "{denied}");
    assert!(denied["text"].as_str().unwrap().contains("denied"), "{denied}");
    let told = people.shown(ANALYST, &format!("/requests/{another}"));
    assert!(told.contains("denied") && told.contains("no ticket"), "{told}");

    // Taken back: the session that depends on it is cut.
    let mut session = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={} user={ANALYST} dbname=us", scene.gateway().port))
        .args(["-X", "-c", "select pg_sleep(0.1), email from users, generate_series(1, 500) where id = 2"])
        .env("PGPASSWORD", "demo")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(800));
    people.act("form", json!({ "as": APPROVERS[0], "path": path, "action": "revoke", "reason": "done" }));
    let mut cut = String::new();
    std::io::Read::read_to_string(&mut session.stderr.take().unwrap(), &mut cut).unwrap();
    session.wait().unwrap();
    assert!(cut.contains("was revoked by us-approver-1"), "{cut}");
    assert!(scene.email().ends_with("@masked.invalid"));
}

/// What an approver would not give goes, and what is left is signed like any request.
fn an_approver_gives_less_than_was_asked_for(scene: &Scene) {
    let people = &scene.people;
    let id = scene.ask("a smaller matter", "2h");
    let path = format!("/requests/{id}");
    let fields =
        json!({ "column0": "id", "operator0": "=", "value0": "2", "seconds": "900", "max_rows": "50" });
    let narrowed = people.act(
        "submit",
        json!({ "as": APPROVERS[0], "path": path, "action": "narrow", "open": "Give less", "fields": fields, "uncheck": ["users.phone"] }),
    );
    let told = narrowed["text"].as_str().unwrap();
    for wanted in [
        "asks for email of users",
        "id < 100",
        "id = '2'",
        "15 min",
        "at most 50",
        &format!("{id}, by us-approver-1"),
    ] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    let before = people.shown(ANALYST, &path);
    let new = narrowed["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert!(before.contains("denied") && before.contains(&format!("narrowed to {new}")), "{before}");
    scene.approve(&format!("/requests/{new}"));
    assert!(!scene.email().contains("masked"), "{}", scene.email());
    let others =
        scene.psql("select count(*) from users where id in (3, 4, 5) and email not like '%@masked.invalid'");
    assert_eq!(others.0, "0", "rows that the approver took out: {others:?}");
    let phone = scene.psql("select phone from users where id = 2").0;
    assert_eq!(phone, "(masked)", "a column that the approver took out");
    // More than was asked for, or the same, is no narrowing; nor may the one who asked, or a request that is decided, be narrowed.
    let other = scene.ask("yet another", "1h");
    let narrow = |who: &str, id: &str, more: &[&str]| {
        text(&scene.demo.ringfence_with("console", &[&["narrow", id, "--as", who], more].concat()))
    };
    for (more, problem) in [
        (&["--for", "2h"][..], "at most as long"),
        (&["--max-rows", "2000"], "at most as many rows"),
        (&["--columns", "users.birthdate"], "columns that were asked for"),
        (&[], "what was asked for"),
        (&["--where", "id = 1) or (true"], "syntax error"),
        (&["--where", "password = 1"], "password"),
    ] {
        let said = narrow(APPROVERS[0], &other, more);
        assert!(said.contains(problem), "{more:?}: {said}");
    }
    assert!(narrow(ANALYST, &other, &["--max-rows", "1"]).contains("cannot approve"));
    assert!(narrow(APPROVERS[0], &new, &["--max-rows", "1"]).contains("granted, so it cannot be narrowed"));
    let said = narrow(APPROVERS[1], &other, &["--max-rows", "1"]);
    assert!(said.contains(&format!("takes the place of {other}")), "{said}");
    // A grant ends by the clock.
    people.act("form", json!({ "as": APPROVERS[0], "path": format!("/requests/{new}"), "action": "revoke", "reason": "done" }));
    let short = scene.ask("for a moment", "5s");
    scene.approve(&format!("/requests/{short}"));
    let path = format!("/requests/{short}");
    wait("the grant does not end", || people.shown(APPROVERS[0], &path).contains("expired"));
    assert!(scene.email().ends_with("@masked.invalid"));
}

/// psql says where to ask; the form there knows what was wanted, and makes the condition.
fn somebody_asks_in_the_browser_where_psql_sent_them(scene: &Scene) {
    let people = &scene.people;
    let (_, notice) = scene.psql("select email, phone from users where id = 2");
    let link = notice.split_whitespace().find(|word| word.contains("/ask/us/users/")).expect(&notice);
    let path = &link[link.find("/ask/").unwrap()..];
    assert_eq!(path, "/ask/us/users/email,phone");
    let form = people.act("open", json!({ "as": ANALYST, "path": path }));
    assert_eq!(form["checked"], json!(["users.email", "users.phone"]), "{form}");
    let fields = json!({ "purpose": "asked in the browser", "column0": "id", "operator0": "=", "value0": "2' OR '1' = '1", "max_rows": "5" });
    let odd = people
        .act("submit", json!({ "as": ANALYST, "path": path, "action": "/ask/us/users", "fields": fields }));
    assert!(odd["text"].as_str().unwrap().contains("invalid input syntax"), "a value stays a value: {odd}");
    let fields = json!({ "purpose": "asked in the browser", "column0": "id", "operator0": "=", "value0": "2", "max_rows": "5", "seconds": "1800" });
    let asked = people
        .act("submit", json!({ "as": ANALYST, "path": path, "action": "/ask/us/users", "fields": fields }));
    let told = asked["text"].as_str().unwrap();
    for wanted in
        ["pending", "asked in the browser", "id = '2'", "30 min", "at most 5", "Requests like this one"]
    {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    assert!(people.shown(APPROVERS[0], "/").contains("asked in the browser"));
    let nothing = people.act("submit", json!({ "as": ANALYST, "path": "/ask/us/users", "action": "/ask/us/users", "fields": { "purpose": "x" } }));
    assert!(nothing["text"].as_str().unwrap().contains("name the columns"), "{nothing}");
    assert_eq!(people.act("open", json!({ "as": ANALYST, "path": "/ask/us/nothing" }))["status"], 404);
}

/// Nobody reloads: the inbox shows what comes, and a receiver of webhooks hears of it, twice if it did not listen the first time.
fn pages_and_receivers_follow_what_happens(scene: &Scene) {
    let people = &scene.people;
    people.shown(APPROVERS[1], "/");
    let id = scene.ask("seen without a reload", "1h");
    people.act("sees", json!({ "as": APPROVERS[1], "wanted": "seen without a reload" }));
    // What somebody is writing is not taken from under them.
    people.shown(APPROVERS[1], &format!("/requests/{id}"));
    people.act("type", json!({ "as": APPROVERS[1], "selector": "#reason", "value": "half a sent" }));
    people.act(
        "form",
        json!({ "as": APPROVERS[0], "path": format!("/requests/{id}"), "action": "deny", "reason": "no" }),
    );
    people.act("sees", json!({ "as": APPROVERS[1], "wanted": "Something has changed meanwhile" }));
    assert_eq!(
        people.act("value", json!({ "as": APPROVERS[1], "selector": "#reason" }))["value"],
        "half a sent"
    );
    // A page that has followed still works: its buttons do what they did.
    people.shown(APPROVERS[1], "/");
    let another = scene.ask("after a page has followed", "1h");
    people.act("sees", json!({ "as": APPROVERS[1], "wanted": "after a page has followed" }));

    let told = scene.told.lock().unwrap();
    let mut heard = Vec::new();
    let wanted = [format!("{id}-pending"), format!("{id}-denied"), format!("{another}-pending")];
    while !wanted.iter().all(|id| {
        heard.iter().any(|(head, _): &(String, String)| head.contains(&format!("webhook-id: {id}")))
    }) {
        heard.push(told.recv_timeout(Duration::from_secs(15)).unwrap_or_else(|_| panic!("{heard:?}")));
    }
    let first = &heard[0].0;
    let again = first.lines().find(|l| l.starts_with("webhook-id: ")).unwrap();
    assert!(
        heard[1..].iter().any(|(head, _)| head.contains(again)),
        "what was refused comes again: {heard:?}"
    );
    for (head, body) in &heard {
        let value = |name: &str| {
            head.lines().find_map(|l| l.strip_prefix(&format!("{name}: "))).unwrap().trim().to_owned()
        };
        let mut mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(HOOK.as_bytes()).unwrap();
        let signed = format!("{}.{}.{body}", value("webhook-id"), value("webhook-timestamp"));
        hmac::Mac::update(&mut mac, signed.as_bytes());
        let made = STANDARD.encode(hmac::Mac::finalize(mac).into_bytes());
        assert_eq!(value("webhook-signature"), format!("v1,{made}"));
        for secret in ["without a reload", "id < 100", "id = "] {
            assert!(!body.contains(secret), "{secret} leaves by a webhook: {body}");
        }
        assert!(body.contains("asks for email") && body.contains("/requests/R-"), "{body}");
    }
}

/// By a passkey she suspends what crosses, at once; by her SSH key she lifts it.
fn a_regulator_closes_the_border(scene: &Scene) {
    let people = &scene.people;
    let mut session = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={} user={ANALYST} dbname=us", scene.gateway().port))
        .args(["-X", "-c", "select pg_sleep(60)"])
        .env("PGPASSWORD", "demo")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait("the session is not seen", || people.shown(APPROVERS[0], "/border").contains("psql"));
    assert!(!people.shown(APPROVERS[0], "/border").contains("Suspend all access"), "for regulators only");
    let order = people.act(
        "submit",
        json!({ "as": REGULATOR, "path": "/border", "action": "/border/us/order", "open": "Suspend all access", "fields": { "reason": "an inquiry" } }),
    );
    let path = order["url"].as_str().unwrap().trim_start_matches(&scene.origin).to_owned();
    assert!(
        path.starts_with("/orders/S-") && order["text"].as_str().unwrap().contains("an inquiry"),
        "{order}"
    );
    // Written is not signed; nobody else signs it, or sees it.
    assert_eq!(scene.psql("select 1").0, "1");
    assert_eq!(people.act("open", json!({ "as": APPROVERS[0], "path": path }))["status"], 403);
    assert_eq!(people.act("axe", json!({ "as": REGULATOR, "path": path }))["violations"], json!([]));
    let signed = people.act("approve", json!({ "as": REGULATOR, "path": path }));
    assert_eq!(signed["approved"], true, "{signed}");
    let mut cut = String::new();
    std::io::Read::read_to_string(&mut session.stderr.take().unwrap(), &mut cut).unwrap();
    session.wait().unwrap();
    assert!(cut.contains("is suspended by us-regulator: an inquiry"), "{cut}");
    assert!(scene.psql("select 1").1.contains("is suspended by us-regulator"));
    let inside = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={} user=us-engineer dbname=us", scene.gateway().port))
        .args(["-X", "-A", "-t", "-c", "select count(*) from users where id = 2"])
        .env("PGPASSWORD", "demo")
        .output()
        .unwrap();
    assert_eq!(text(&inside).trim(), "1", "inside the country all goes on");
    assert!(people.shown(APPROVERS[0], "/border").contains("us-regulator has ordered it"));
    let public = scene.raw("/transparency")["text"].as_str().unwrap().to_owned();
    assert!(
        public.contains("By order of a regulator")
            && !public.contains("us-regulator")
            && !public.contains("inquiry"),
        "{public}"
    );
    // Who approves does not lift it; nor does what was signed once lift, or suspend, again.
    let switch = |how: &str, who: &str| {
        let key = scene.demo.dir.join(format!("keys/{who}")).display().to_string();
        text(
            &scene
                .demo
                .ringfence_with("console", &[how, "us", "--as", who, "--key", &key, "--reason", "over"]),
        )
    };
    assert!(switch("resume", APPROVERS[0]).contains("is no regulator of us"));
    assert!(switch("suspend", REGULATOR).contains("is suspended already"));
    let sent = people.act("sent", json!({ "as": REGULATOR }));
    let last = sent["bodies"].as_array().unwrap().last().unwrap()["assertion"].clone();
    let again = people.act(
        "steal",
        json!({ "as": REGULATOR, "path": format!("{path}/approve"), "body": { "assertion": last } }),
    );
    assert!(
        again["status"] == 409 && again["text"].as_str().unwrap().contains("waits for a signature"),
        "{again}"
    );
    assert!(scene.psql("select 1").1.contains("is suspended"));
    assert!(switch("resume", REGULATOR).contains("may cross the border again"));
    assert_eq!(scene.psql("select 1").0, "1");
    assert!(!scene.raw("/transparency")["text"].as_str().unwrap().contains("By order"));
    assert!(switch("resume", REGULATOR).contains("is not suspended"));
}

/// 200 people at the console while pgbench goes through the gateway: the figures are told, errors are none. Not in CI:
/// `cargo test --release --test console -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, which wants a release build"]
fn two_hundred_people_at_once() {
    let scene = Scene::start();
    scene.people.act("login", json!({ "as": APPROVERS[0] }));
    let id = scene.ask("to be looked at", "1h");
    for n in 0..50 {
        scene.ask(&format!("another one, number {n}"), "1h");
    }
    // Half of them approve, half are abroad.
    let registry = scene.demo.dir.join("registry-console.toml");
    let mut text_of = std::fs::read_to_string(&registry).unwrap();
    let mut users = Vec::new();
    for n in 0..200 {
        let (team, location, employer, more) = if n % 2 == 0 {
            ("us-security", "US", "clips-us", format!("/requests/{id}"))
        } else {
            ("growth", "SG", "clips-singapore", "/ask/us/users/email".to_owned())
        };
        let person = [
            format!("\n[[people]]\nname = \"person-{n}\"\nlocation = \"{location}\""),
            format!("employer = \"{employer}\"\nteams = [\"growth\", \"{team}\"]\n"),
        ];
        text_of.push_str(&person.join("\n"));
        let paths = ["/", "/border", "/ledger", "/health", &more, "/console.js"];
        users.push(json!({ "name": format!("person-{n}"), "paths": paths }));
    }
    std::fs::write(&registry, text_of).unwrap();
    reload(&scene);
    std::thread::sleep(Duration::from_secs(1));
    let script = scene.demo.dir.join("point.sql");
    std::fs::write(&script, "\\set id random(1, 1000)\nselect full_name from users where id = :id;\n")
        .unwrap();
    let measure = |with_console: bool| {
        let pgbench = Command::new("pgbench")
            .args([
                "-n",
                "-M",
                "prepared",
                "-c",
                "4",
                "-j",
                "1",
                "-T",
                "20",
                "-f",
                &script.display().to_string(),
            ])
            .args(["-h", "127.0.0.1", "-p", &scene.gateway().port.to_string(), "-U", "us-engineer", "us"])
            .env("PGPASSWORD", "demo")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let seen = if with_console {
            scene.people.act("load", json!({ "users": users, "seconds": 18 }))
        } else {
            Value::Null
        };
        let said = pgbench.wait_with_output().unwrap();
        assert!(said.status.success(), "{}", text(&said));
        let tps = text(&said).lines().find(|l| l.starts_with("tps")).unwrap_or_default().to_owned();
        eprintln!("console: {seen}; pgbench: {tps}");
        seen
    };
    // Everybody is in before it is measured.
    scene.people.act("load", json!({ "users": users, "seconds": 0 }));
    measure(false);
    assert_eq!(measure(true)["wrong"], 0);
    measure(false);
}

/// Border, ledger, catalogue, people, copies, health: for those whom they are for.
fn the_rooms_show_what_there_is(scene: &Scene) {
    let people = &scene.people;
    let mut session = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={} user={ANALYST} dbname=us", scene.gateway().port))
        .args(["-X", "-c", "select id from users limit 7", "-c", "select pg_sleep(60)"])
        .env("PGPASSWORD", "demo")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait("the session is not seen", || people.shown(APPROVERS[0], "/border").contains("psql"));
    wait("the log is not counted", || people.shown(APPROVERS[0], "/border").contains("statements"));
    let border = people.shown(APPROVERS[0], "/border");
    for wanted in ["open", "Data of us", "SG", ANALYST, "R-"] {
        assert!(border.contains(wanted) || wanted == "R-", "{wanted}: {border}");
    }
    // Somebody abroad sees neither sessions nor a button; an approver cuts, with a reason.
    assert!(!people.shown(ANALYST, "/border").contains("Cut"));
    people.act("submit", json!({ "as": APPROVERS[0], "path": "/border", "action": "/border/cut", "fields": { "reason": "not agreed" } }));
    let mut cut = String::new();
    std::io::Read::read_to_string(&mut session.stderr.take().unwrap(), &mut cut).unwrap();
    session.wait().unwrap();
    assert!(cut.contains("was cut by us-approver-1: not agreed"), "{cut}");
    let way = people.shown(APPROVERS[0], "/border/us/SG");
    assert!(way.contains("select email from users where id = 2"), "{way}");
    assert!(
        !people.shown(ANALYST, "/border/us/SG").contains("select email"),
        "records are sealed for others"
    );

    // Down to the single entry and its proof, which the verifier takes.
    let entry: u64 = people.act("open", json!({ "as": APPROVERS[0], "path": "/border/us/SG" }))["entries"][0]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(people.shown(APPROVERS[0], &format!("/ledger/{entry}")).contains("\"statement\""));
    let sealed = people.shown(ANALYST, &format!("/ledger/{entry}"));
    assert!(sealed.contains("sealed for you") && !sealed.contains("\"statement\""), "{sealed}");
    for (who, path, works) in
        [(ANALYST, "proof", true), (ANALYST, "disclosed", false), (APPROVERS[0], "disclosed", true)]
    {
        let got = people.act("fetch", json!({ "as": who, "path": format!("/ledger/{entry}/{path}") }));
        assert_eq!(got["status"] == 200, works, "{who} {path}: {got}");
        if works {
            let file = scene.demo.dir.join("entry.tlog-proof");
            std::fs::write(&file, got["text"].as_str().unwrap()).unwrap();
            let vkey = scene.demo.dir.join("keys-console/ledger.vkey");
            let checked =
                Command::new(support::verifier()).arg(&file).arg("--vkey").arg(&vkey).output().unwrap();
            assert!(checked.status.success(), "{}", text(&checked));
            assert_eq!(text(&checked).contains("select "), path == "disclosed", "{}", text(&checked));
        }
    }
    assert!(people.shown(APPROVERS[0], "/ledger").contains("session-closed"));
    assert_eq!(people.act("open", json!({ "as": APPROVERS[0], "path": "/ledger/99999999" }))["status"], 404);
    // Who reads is on record, too, and reading that again says nothing new.
    let read = || -> Vec<String> {
        let shown = scene.demo.ringfence_with("console", &["ledger", "show", "--from", "0", "--json"]);
        let shown = text(&shown);
        let entries = shown.split("\"kind\": ").filter(|entry| entry.starts_with("\"records-read\""));
        entries.map(str::to_owned).collect()
    };
    let before = read();
    let by = |who: &str| before.iter().any(|one| one.contains(&format!("\"by\": \"{who}\"")));
    assert!(by(APPROVERS[0]) && !by(ANALYST), "{before:?}");
    people.shown(APPROVERS[0], &format!("/ledger/{entry}"));
    assert_eq!(read().len(), before.len());

    // The answer with all its proofs, as a file for a stranger: by those who may read it, and on record.
    let evidence = |who: &str, complete: bool| {
        let mut fields = json!({ "jurisdiction": "us", "from": "SG", "since": "2026-01-01" });
        if complete {
            fields["complete"] = json!("yes");
        }
        let ask = json!({ "as": who, "path": "/ledger", "action": "/ledger/evidence", "fields": fields });
        people.act("download", ask)
    };
    assert_eq!(evidence(ANALYST, false)["status"], 403);
    assert!(!people.shown(ANALYST, "/ledger").contains("Evidence for somebody else"));
    let got = evidence(APPROVERS[0], true);
    assert_eq!(got["status"], 200, "{got}");
    let file = STANDARD.decode(got["file"].as_str().unwrap()).unwrap();
    std::fs::write(scene.demo.dir.join("evidence.tar"), file).unwrap();
    let unpack = ["-x", "-f", "evidence.tar"];
    assert!(Command::new("tar").args(unpack).current_dir(&scene.demo.dir).status().unwrap().success());
    let checked = Command::new(support::verifier()).arg(scene.demo.dir.join("evidence")).output().unwrap();
    assert!(checked.status.success() && text(&checked).contains(ANALYST), "{}", text(&checked));
    assert!(!scene.demo.dir.join("ledger-console.console-evidence").exists(), "nothing is left behind");
    assert!(read().iter().any(|one| one.contains("as evidence")));

    // A column that somebody adds shows as unclassified at once.
    assert!(
        people.shown(APPROVERS[0], "/catalogue/us").contains("every column of the store is in the catalogue")
    );
    scene.demo.superuser("us-trusted", "us", "alter table users add column nickname text");
    let drift = people.shown(APPROVERS[0], "/catalogue/us");
    assert!(drift.contains("nickname") && !drift.contains("every column"), "{drift}");
    // What it may be is proposed; what somebody chooses becomes lines for the catalogue, and changes nothing.
    let choose = |holds: &str| {
        let fields = json!({ "holds:public.users.nickname": holds, "kind:public.users.nickname": "name" });
        let form = json!({ "as": APPROVERS[0], "path": "/catalogue/us", "action": "/catalogue/us/lines", "fields": fields });
        people.act("submit", form)["text"].as_str().unwrap().to_owned()
    };
    let lines = choose("contact");
    let line = "# under [tables.users.columns]\nnickname = { protected = \"contact\", kind = \"name\" }";
    assert!(lines.contains(line), "{lines}");
    assert!(choose("").contains("every column was left unclassified"));
    assert!(people.shown(APPROVERS[0], "/catalogue/us").contains("nickname"));
    scene.demo.superuser("us-trusted", "us", "alter table users drop column nickname");
    let registry = people.shown(APPROVERS[0], "/people");
    assert!(registry.contains("28 CFR 202.211(a)"), "{registry}");
    assert!(people.shown(APPROVERS[0], &format!("/people/{ANALYST}")).contains("a face: masked"));
    assert_eq!(people.act("open", json!({ "as": ANALYST, "path": "/people" }))["status"], 403);
    assert!(people.shown(APPROVERS[0], "/copies").contains("None is registered"));
    // Whoever runs the gateway sees how it is, and nobody.
    let running = people.shown(ANALYST, "/health");
    assert!(running.contains("Control database") && !running.contains("us-approver"), "{running}");
    let health = people.shown(APPROVERS[0], "/health");
    assert!(health.contains("Control database") && !health.contains("trouble"), "{health}");
}

/// The public half of the log, reports, and nothing else.
fn what_everybody_may_see_needs_no_login(scene: &Scene) {
    let page = scene.raw("/transparency");
    assert!(page["status"] == 200 && page["text"].as_str().unwrap().contains("2026-q3.html"), "{page}");
    assert!(scene.raw("/log/checkpoint")["text"].as_str().unwrap().contains("\u{2014} "), "a signed note");
    let width = std::fs::read_dir(scene.demo.dir.join("ledger-console/tile/entries/000.p")).unwrap();
    let width = width.flatten().next().unwrap().file_name().into_string().unwrap();
    assert_eq!(scene.raw(&format!("/log/tile/entries/000.p/{width}"))["status"], 200);
    let report = scene.raw("/reports/2026-q3.html");
    assert!(
        report["status"] == 200
            && report["headers"]["content-security-policy"].as_str().unwrap().contains("sandbox"),
        "{report}"
    );
    let secret = "keys/console.secret";
    for path in [
        "/log/private/00000000000000000000.seg",
        "/log/..%2fkeys%2fconsole.secret",
        "/log/tile/../../keys",
        "/reports/..%2fkeys%2fconsole.secret",
        "/reports/.hidden.html",
        "/reports/%2fetc%2fpasswd",
        "/verify",
    ] {
        assert_eq!(scene.raw(path)["status"], 404, "{path} {secret}");
    }
    for path in
        ["/border", "/ledger", "/ledger/1/proof", "/people", "/health", "/copies", "/catalogue", "/ask"]
    {
        assert_eq!(scene.raw(path)["status"], 303, "{path} needs a login");
    }
}

/// The API: who may call it, and what another client's token, an old one, or none is worth.
fn programs_show_tokens(scene: &Scene) {
    let people = &scene.people;
    let token = |who: &str, client: &str| {
        let got = people.act("token", json!({ "as": who, "issuer": scene.issuer, "client": client }));
        got["token"].as_str().unwrap_or_else(|| panic!("{got}")).to_owned()
    };
    let call = |method: &str, path: &str, token: &str, body: Value| {
        let mut headers = json!({ "content-type": "application/json" });
        if !token.is_empty() {
            headers["authorization"] = format!("Bearer {token}").into();
        }
        let body = if body.is_null() { Value::Null } else { body.to_string().into() };
        let path = format!("/api/v1/{path}");
        people.act("send", json!({ "path": path, "method": method, "headers": headers, "body": body }))
    };
    let (analyst, approver) = (token(ANALYST, "ringfence-cli"), token(APPROVERS[0], "ringfence-cli"));
    let me = call("GET", "me", &analyst, Value::Null);
    assert!(me["status"] == 200 && me["text"].as_str().unwrap().contains("\"location\":\"SG\""), "{me}");
    let mut forged = analyst.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    for (what, wrong) in [
        ("another audience", token(ANALYST, "another-cli")),
        ("a changed token", String::from_utf8(forged).unwrap()),
        ("no token", "junk".to_owned()),
        ("nothing", String::new()),
    ] {
        for path in ["me", "requests", "sessions", "ledger", "border", "ledger/1/proof"] {
            let answer = call("GET", path, &wrong, Value::Null);
            assert_eq!(answer["status"], 401, "{what} {path}: {answer}");
        }
    }
    // A token that does not say when its person logged in could not be ended by a sign-out: whoever renews it has a newer one.
    let timeless = people.act(
        "token",
        json!({ "as": ANALYST, "issuer": scene.issuer, "client": "ringfence-cli", "timeless": true }),
    );
    let answer = call("GET", "me", timeless["token"].as_str().unwrap(), Value::Null);
    assert!(answer["status"] == 401 && answer["text"].as_str().unwrap().contains("auth_time"), "{answer}");
    // Another account that has taken an approver's name is not the approver, until somebody else says so, on record.
    assert_eq!(call("GET", "me", &approver, Value::Null)["status"], 200);
    let other = token(&format!("{}~2", APPROVERS[0]), "ringfence-cli");
    let answer = call("GET", "me", &other, Value::Null);
    assert!(
        answer["status"] == 403 && answer["text"].as_str().unwrap().contains("somebody else by this name"),
        "{answer}"
    );
    let unbind =
        |who: &str| {
            text(&scene.demo.ringfence_with(
                "console",
                &["unbind", APPROVERS[0], "--as", who, "--reason", "a new account"],
            ))
        };
    assert!(unbind(ANALYST).contains("only who approves"), "{}", unbind(ANALYST));
    assert!(unbind(APPROVERS[0]).contains("for themselves"));
    assert_eq!(call("GET", "me", &other, Value::Null)["status"], 403);
    assert!(unbind(APPROVERS[1]).contains("next is them"));
    assert_eq!(call("GET", "me", &other, Value::Null)["status"], 200);
    assert_eq!(
        call("GET", "me", &approver, Value::Null)["status"],
        403,
        "and the account before is nobody now"
    );
    assert!(unbind(APPROVERS[1]).contains("next is them"));
    assert_eq!(call("GET", "me", &approver, Value::Null)["status"], 200);
    // What cannot be written in canonical JSON is no number of rows: it could be read by nobody afterwards.
    let odd = call(
        "POST",
        "requests",
        &analyst,
        json!({ "store": "us", "columns": ["users.phone"], "purpose": "x", "seconds": 600, "max_rows": u64::MAX }),
    );
    assert!(odd["status"] == 409 && odd["text"].as_str().unwrap().contains("max-rows"), "{odd}");
    assert_eq!(call("GET", "requests", &approver, Value::Null)["status"], 200);
    let stranger = call("GET", "me", &token("somebody-else", "ringfence-cli"), Value::Null);
    assert_eq!(stranger["status"], 403, "{stranger}");
    let asked = call(
        "POST",
        "requests",
        &analyst,
        json!({ "store": "us", "columns": ["users.phone"], "where": "id = 7", "purpose": "by the API", "seconds": 600, "max_rows": 2 }),
    );
    assert_eq!(asked["status"], 201, "{asked}");
    let asked: Value = serde_json::from_str(asked["text"].as_str().unwrap()).unwrap();
    let path = format!("requests/{}", asked["id"].as_str().unwrap());
    assert_eq!(call("POST", &format!("{path}/deny"), &analyst, json!({ "reason": "x" }))["status"], 403);
    assert_eq!(call("POST", &format!("{path}/deny"), &approver, json!({ "reason": "" }))["status"], 400);
    assert_eq!(
        call("POST", &format!("{path}/approve"), &approver, json!({ "signature": "x" }))["status"],
        403
    );
    let denied = call("POST", &format!("{path}/deny"), &approver, json!({ "reason": "no ticket" }));
    assert!(denied["status"] == 200 && denied["text"].as_str().unwrap().contains("denied"), "{denied}");
    assert_eq!(call("POST", &format!("{path}/deny"), &approver, json!({ "reason": "again" }))["status"], 409);
    // A browser's session reads, and changes nothing without a token: no other site's page can have one.
    let reads = people.act("fetch", json!({ "as": ANALYST, "path": "/api/v1/me" }));
    assert_eq!(reads["status"], 200, "{reads}");
    let writes = people.act("steal", json!({ "as": APPROVERS[0], "path": format!("/api/v1/{path}/deny"), "token": false, "body": { "reason": "x" } }));
    assert_eq!(writes["status"], 401, "{writes}");
    // What it is told to be.
    let described: Value =
        serde_json::from_str(scene.raw("/api/v1/openapi.json")["text"].as_str().unwrap()).unwrap();
    for path in ["/api/v1/requests/{id}/narrow", "/api/v1/certificates", "/api/v1/ledger/{index}/proof"] {
        assert!(described["paths"][path].is_object(), "{path}");
    }
}

/// Schemathesis calls every path with what the description allows, and with what it does not.
fn the_api_is_what_it_says(scene: &Scene) {
    let got = scene
        .people
        .act("token", json!({ "as": APPROVERS[1], "issuer": scene.issuer, "client": "ringfence-cli" }));
    let output = Command::new(root().join("target/drivers/python/bin/schemathesis"))
        .current_dir(&scene.demo.dir)
        .args(["--no-color", "run", &format!("{}/api/v1/openapi.json", scene.origin)])
        .args(["--header", &format!("Authorization: Bearer {}", got["token"].as_str().unwrap())])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth"])
        .args(["--max-examples", "20", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--warnings", "off"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// `ringfence login`: psql works by the identity that people have, until the provider signs them out, or deactivates them.
fn a_login_is_a_certificate_until_the_provider_says_otherwise(scene: &Scene) {
    let people = &scene.people;
    let dir = scene.demo.dir.join("home");
    std::fs::create_dir_all(&dir).unwrap();
    let services = dir.join("pg_service.conf");
    std::fs::write(&services, "[mine]\nhost=elsewhere\n").unwrap();
    let login = |more: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        program
            .args(["login", "--console", &scene.origin, "--dir"])
            .arg(&dir)
            .arg("--service-file")
            .arg(&services)
            .args(more);
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        program
    };
    let with_browser = |more: &[&str]| {
        let mut program = login(more).spawn().unwrap();
        let mut told = BufReader::new(program.stderr.take().unwrap()).lines();
        let mut heard = Vec::new();
        let mut url = None;
        for line in told.by_ref().map_while(Result::ok) {
            url = line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned);
            heard.push(line);
            if url.is_some() {
                break;
            }
        }
        let url = url.unwrap_or_else(|| panic!("{heard:?}"));
        let shown = people.act("visit", json!({ "as": ANALYST, "url": url }));
        let said: Vec<String> = told.map_while(Result::ok).collect();
        let output = program.wait_with_output().unwrap();
        assert!(output.status.success(), "{said:?} {shown}");
        text(&output)
    };
    let psql = |sql: &str| {
        let mut psql = Command::new("psql");
        psql.arg("service=us")
            .args(["-X", "-A", "-t", "-w", "-c", sql])
            .env("PGSERVICEFILE", &services)
            .env_remove("PGPASSWORD");
        psql.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        psql
    };
    let none = text(&login(&["--quiet"]).output().unwrap());
    assert!(none.contains("there is nothing to renew"), "{none}");
    assert!(with_browser(&[]).contains("You are singapore-analyst until"));
    assert!(std::fs::read_to_string(&services).unwrap().starts_with("[mine]\nhost=elsewhere\n"));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(dir.join("postgresql.key")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(text(&psql("select count(*) from users where id = 2").output().unwrap()).trim(), "1");
    // Renewed without asking, by a new key.
    let key = std::fs::read(dir.join("postgresql.key")).unwrap();
    let renewed = login(&["--quiet"]).output().unwrap();
    assert!(renewed.status.success(), "{}", text(&renewed));
    assert_ne!(std::fs::read(dir.join("postgresql.key")).unwrap(), key);
    assert_eq!(text(&psql("select count(*) from users where id = 2").output().unwrap()).trim(), "1");
    // By another device.
    assert!(with_browser(&["--device"]).contains("You are singapore-analyst until"));
    assert_eq!(text(&psql("select count(*) from users where id = 2").output().unwrap()).trim(), "1");

    // The provider signs them out: sessions are cut, the certificate counts no more, nor does what is renewed of it.
    let mut running = psql("select pg_sleep(100)").spawn().unwrap();
    let by_password = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={} user={ANALYST} dbname=us", scene.gateway().port))
        .args(["-X", "-c", "select pg_sleep(2)"])
        .env("PGPASSWORD", "demo")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait("the session is not seen", || people.shown(APPROVERS[0], "/border").matches("psql").count() == 2);
    for forged in
        ["logout_token=junk".to_owned(), "x=y".to_owned(), format!("logout_token={}", "a".repeat(70_000))]
    {
        let headers = json!({ "content-type": "application/x-www-form-urlencoded" });
        let answer =
            people.act("send", json!({ "path": "/backchannel-logout", "headers": headers, "body": forged }));
        assert!(answer["status"].as_u64().unwrap() / 100 == 4, "{answer}");
    }
    let id_token =
        people.act("token", json!({ "as": APPROVERS[0], "issuer": scene.issuer, "client": "ringfence-cli" }));
    let disguised = format!("logout_token={}", id_token["token"].as_str().unwrap());
    let headers = json!({ "content-type": "application/x-www-form-urlencoded" });
    let answer =
        people.act("send", json!({ "path": "/backchannel-logout", "headers": headers, "body": disguised }));
    assert_eq!(answer["status"], 400, "an ID token is no logout token: {answer}");
    // One who shows a good token, and holds the rest of the request back until after the sign-out, gets no certificate for it.
    let token =
        people.act("token", json!({ "as": ANALYST, "issuer": scene.issuer, "client": "ringfence-cli" }));
    let request = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let body = json!({ "request": request.pem().unwrap() }).to_string();
    let (address, length) = (scene.origin.trim_start_matches("http://").to_owned(), body.len());
    let token = token["token"].as_str().unwrap().to_owned();
    let certificate = || {
        let mut held = TcpStream::connect(&address).unwrap();
        let head = format!(
            "POST /api/v1/certificates HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n",
        );
        held.write_all(head.as_bytes()).unwrap();
        held
    };
    let finish = |mut held: TcpStream| {
        held.write_all(body.as_bytes())?;
        std::io::read_to_string(&mut held)
    };
    let given = finish(certificate()).unwrap();
    assert!(given.starts_with("HTTP/1.1 201"), "{given}");
    // A request has ten seconds to come whole, and a browser on a busy machine may need more to sign out.
    let (is_out, held) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_out.load(Ordering::Relaxed) {
                held.lock().unwrap().push(certificate());
                std::thread::sleep(Duration::from_secs(2));
            }
        });
        people.act("signout", json!({ "as": ANALYST, "issuer": scene.issuer }));
        is_out.store(true, Ordering::Relaxed);
    });
    // One that came too late has its answer, or its connection is closed.
    let answers = held.into_inner().unwrap().into_iter().filter_map(|held| finish(held).ok());
    let in_time: Vec<String> = answers.filter(|answer| !answer.starts_with("HTTP/1.1 408")).collect();
    assert!(!in_time.is_empty(), "all came too late");
    for given in in_time {
        assert!(given.starts_with("HTTP/1.1 401") && given.contains("signed out"), "{given}");
    }
    let mut cut = String::new();
    std::io::Read::read_to_string(&mut running.stderr.take().unwrap(), &mut cut).unwrap();
    running.wait().unwrap();
    assert!(cut.contains("signed out at your identity provider"), "{cut}");
    assert!(text(&psql("select 1").output().unwrap()).contains("signed out at your identity provider"));
    let renewed = login(&["--quiet"]).output().unwrap();
    assert!(!renewed.status.success(), "{}", text(&renewed));
    assert!(
        by_password.wait_with_output().unwrap().status.success(),
        "a password is not the provider's to end by a sign-out"
    );
    let session = people.act("fetch", json!({ "as": ANALYST, "path": "/api/v1/me" }));
    assert_eq!(session["status"], 401, "the session of the browser is over, too: {session}");
    assert!(with_browser(&[]).contains("You are singapore-analyst until"), "and in again");
    assert_eq!(text(&psql("select count(*) from users where id = 2").output().unwrap()).trim(), "1");

    // Deactivated: nothing counts, whoever asks by whatever means.
    let scim = |method: &str, token: &str, body: Value| {
        let headers =
            json!({ "authorization": format!("Bearer {token}"), "content-type": "application/json" });
        let body = if body.is_null() { Value::Null } else { body.to_string().into() };
        people.act("send", json!({ "path": format!("/scim/v2/Users/{ANALYST}"), "method": method, "headers": headers, "body": body }))
    };
    let patch = |active: bool| json!({ "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [{ "op": "replace", "path": "active", "value": active }] });
    assert_eq!(scim("PATCH", "another-token-of-somebody-else-entirely", patch(false))["status"], 401);
    let mut running = psql("select pg_sleep(100)").spawn().unwrap();
    wait("the session is not seen", || people.shown(APPROVERS[0], "/border").contains("psql"));
    let done = scim("PATCH", SCIM, patch(false));
    assert!(done["status"] == 200 && done["text"].as_str().unwrap().contains("\"active\":false"), "{done}");
    let mut cut = String::new();
    std::io::Read::read_to_string(&mut running.stderr.take().unwrap(), &mut cut).unwrap();
    running.wait().unwrap();
    assert!(cut.contains("has deactivated you"), "{cut}");
    assert!(scene.psql("select 1").1.contains("has deactivated you"), "by password");
    assert!(text(&psql("select 1").output().unwrap()).contains("has deactivated you"), "by certificate");
    assert_eq!(scim("PATCH", SCIM, patch(true))["status"], 200);
    assert_eq!(scene.psql("select 1").0, "1");
    people.act("login", json!({ "as": ANALYST }));
}

/// A third approver gets a passkey: two others sign that with theirs, or with an SSH key; the registry takes it then, and not before.
fn approvers_let_approvers_in(scene: &Scene) {
    const NEW: &str = "us-approver-3";
    let people = &scene.people;
    let registry = scene.demo.dir.join("registry-console.toml");
    let before = std::fs::read_to_string(&registry).unwrap();
    let asking = format!("enrolment = \"signed\"\n{before}");
    std::fs::write(&registry, &asking).unwrap();
    reload(scene);
    people.act("login", json!({ "as": NEW }));
    wait("the rules do not ask", || people.shown(NEW, "/passkey").contains("Other approvers sign"));
    // Whoever is no approver has no key to let in, and does not see what waits.
    assert!(!people.shown(ANALYST, "/passkey").contains("Other approvers sign"));
    let line = people.act("enrol", json!({ "as": NEW }))["line"].as_str().unwrap().trim().to_owned();
    // The form is there, with the line in it.
    let asked = people.act("press", json!({ "as": NEW, "action": "/enrolments" }));
    let path = asked["url"].as_str().unwrap().trim_start_matches(&scene.origin).to_owned();
    let id = path.trim_start_matches("/enrolments/").to_owned();
    assert!(id.starts_with("E-") && asked["text"].as_str().unwrap().contains("nobody yet"), "{asked}");
    assert!(people.shown(APPROVERS[0], "/").contains(&format!("A key of {NEW}")));
    assert_eq!(people.act("open", json!({ "as": ANALYST, "path": path }))["status"], 403);
    assert!(!people.act("open", json!({ "as": NEW, "path": path }))["approvable"].as_bool().unwrap());
    // Not by who it is for, not with an assertion for something else.
    let sent = people.act("sent", json!({ "as": APPROVERS[0] }));
    let old = sent["bodies"].as_array().unwrap().last().unwrap()["assertion"].clone();
    let replayed = people.act(
        "steal",
        json!({ "as": APPROVERS[0], "path": format!("{path}/approve"), "body": { "assertion": old } }),
    );
    assert_eq!(replayed["status"], 403, "{replayed}");
    assert_eq!(
        people.act(
            "steal",
            json!({ "as": NEW, "path": format!("{path}/approve"), "body": { "assertion": old } })
        )["status"],
        403
    );
    assert!(
        people.act("approve", json!({ "as": APPROVERS[0], "path": path }))["approved"].as_bool().unwrap()
    );
    assert!(people.shown(APPROVERS[1], &path).contains("us-approver-1, of 2 that are needed"));
    let looked = people.act("axe", json!({ "as": APPROVERS[1], "path": path }));
    assert_eq!(looked["violations"], json!([]));
    let key = scene.demo.dir.join("keys").join(APPROVERS[1]).display().to_string();
    let signing = ["enrol", "sign", &id, "--as", APPROVERS[1], "--key", &key];
    let told = scene.demo.ringfence_with("console", &signing);
    let told = (told.status.success(), text(&told));
    // Not before they have said which key they mean.
    let fingerprint = told.1.split([' ', ',']).find(|word| word.starts_with("SHA256:")).unwrap();
    assert!(!told.0 && people.shown(APPROVERS[0], &path).contains(fingerprint), "{}", told.1);
    let another =
        scene.demo.ringfence_with("console", &[&signing[..], &["--fingerprint", "SHA256:x"]].concat());
    assert!(text(&another).contains("of another key"), "{}", text(&another));
    let signed =
        scene.demo.ringfence_with("console", &[&signing[..], &["--fingerprint", fingerprint]].concat());
    assert!(text(&signed).contains("Signed: "), "{}", text(&signed));
    let shown = scene.demo.ringfence_with("console", &["enrol", "list", "--as", NEW, "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let lines = shown[0]["registry"].as_str().unwrap();
    assert_eq!(shown[0]["state"], "signed", "{shown}");
    assert!(people.shown(APPROVERS[0], &path).contains("[[enrolments]]"));
    // The registry with the key and without the lines is refused; with them it is in force.
    let at = asking.find(&format!("name = \"{NEW}\"")).unwrap();
    let start = at + asking[at..].find("key = \"").unwrap() + "key = \"".len();
    let end = start + asking[start..].find('"').unwrap();
    let with_key = format!("{}\\n{line}{}", &asking[..end], &asking[end..]);
    std::fs::write(&registry, &with_key).unwrap();
    reload(scene);
    std::thread::sleep(Duration::from_secs(1));
    assert!(people.shown(NEW, "/passkey").contains("The registry knows 1 of yours"));
    let whole = format!("{with_key}\n{lines}");
    std::fs::write(&registry, &whole).unwrap();
    // Where the next gateway takes its copy from: it would not start with rules that ask for less.
    std::fs::write(scene.demo.dir.join("registry.toml"), &whole).unwrap();
    reload(scene);
    wait("the key is not in force", || {
        people.shown(NEW, "/passkey").contains("The registry knows 2 of yours")
    });
    assert!(people.shown(APPROVERS[0], &path).contains("in force"));
    let wanted = scene.ask("by the third one's passkey", "1h");
    let request = format!("/requests/{wanted}");
    assert!(people.act("approve", json!({ "as": NEW, "path": request }))["approved"].as_bool().unwrap());
    wait("it is not on record", || {
        let ledger = people.shown(APPROVERS[0], "/ledger");
        ledger.contains("approved") && ledger.contains("enrolment-signed")
    });
}

fn everybody_can_use_the_pages(scene: &Scene) {
    let people = &scene.people;
    let id = scene.ask("for the pictures", "1h");
    let request = format!("/requests/{id}");
    let mut session = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={} user={ANALYST} dbname=us", scene.gateway().port))
        .args(["-X", "-c", "select pg_sleep(600)"])
        .env("PGPASSWORD", "demo")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait("the session is not seen", || people.shown(APPROVERS[0], "/border").contains("psql"));
    // With something in each of them.
    scene.demo.superuser("us-trusted", "us", "alter table users add column nickname text");
    for (location, place, owner) in
        [("US", "the vault in Virginia", "platform"), ("SG", "a partner's server", "analytics")]
    {
        let copy = ["--jurisdiction", "us", "--location", location, "--place", place, "--owner", owner];
        let added = scene
            .demo
            .ringfence_with("console", &[&["copies", "add", "--as", APPROVERS[0]], &copy[..]].concat());
        assert!(added.status.success(), "{}", text(&added));
    }
    // A move, as far as whoever runs it has said.
    let mover = |what: &str| {
        let done = scene.demo.ringfence_with("console", &["migrate", what, "--as", "us-engineer"]);
        assert!(done.status.success(), "{}", text(&done));
    };
    mover("start");
    let copied = people.shown(APPROVERS[0], "/copies");
    assert!(copied.contains("copied"), "{copied}");
    let progress = |stage: &str| {
        let picture = json!({ "stage": stage, "rows": 1_200_000, "of": 5_000_000, "bytes": 340_000_000, "tables": [3, 8], "lag": 4096 });
        let command = json!({ "do": "progress", "route": "clips", "progress": picture });
        move |who: &str| {
            Command::new("psql")
                .arg(format!("host=127.0.0.1 port={} user={who} dbname=ringfence", scene.gateway().port))
                .args(["-X", "-c", &command.to_string()])
                .env("PGPASSWORD", "demo")
                .output()
                .unwrap()
        }
    };
    assert!(text(&progress("moved by nobody")(ANALYST)).contains("may not move"));
    assert!(progress("copying")("us-engineer").status.success());
    let copying = people.shown(APPROVERS[0], "/copies");
    assert!(copying.contains("copying") && copying.contains("3 of 8 tables complete"), "{copying}");
    assert!(!copying.contains("nobody"), "{copying}");
    let mut violations = Vec::new();
    for (who, page) in [
        (APPROVERS[0], "/"),
        (APPROVERS[0], "/passkey"),
        (APPROVERS[0], request.as_str()),
        (APPROVERS[0], "/border"),
        (APPROVERS[0], "/border/us/SG"),
        (APPROVERS[0], "/ledger"),
        (APPROVERS[0], "/ledger/3"),
        (APPROVERS[0], "/catalogue"),
        (APPROVERS[0], "/catalogue/us"),
        (APPROVERS[0], "/people"),
        (APPROVERS[0], "/people/singapore-analyst"),
        (APPROVERS[0], "/copies"),
        (APPROVERS[0], "/health"),
        (APPROVERS[0], "/transparency"),
        (REGULATOR, "/border"),
        (ANALYST, "/"),
        (ANALYST, "/ask"),
        (ANALYST, "/ask/us/users/email"),
    ] {
        let looked = people.act("axe", json!({ "as": who, "path": page }));
        violations.extend(looked["violations"].as_array().unwrap().clone());
        assert!(looked["bytes"].as_u64().unwrap() < 100_000, "{page}: {} bytes", looked["bytes"]);
        assert!(looked["without_script"].as_str().unwrap().len() > 50, "{looked}");
    }
    let copies = people.shown(APPROVERS[0], "/copies");
    assert!(copies.contains("a partner's server"), "{copies}");
    mover("abort");
    scene.demo.superuser("us-trusted", "us", "alter table users drop column nickname");
    session.kill().unwrap();
    session.wait().unwrap();
    assert!(violations.is_empty(), "{violations:?}");
}

fn strangers_and_failures_are_told(scene: &mut Scene) {
    // An approver who moves abroad approves nothing: not in the page, and not past it.
    let registry = scene.demo.dir.join("registry-console.toml");
    let before = std::fs::read_to_string(&registry).unwrap();
    let at = before.find("name = \"us-approver-2\"").unwrap();
    let place = at + before[at..].find("location = \"US\"").unwrap();
    std::fs::write(
        &registry,
        format!("{}location = \"SG\"{}", &before[..place], &before[place + "location = \"US\"".len()..]),
    )
    .unwrap();
    let id = scene.ask("from abroad", "1h");
    let path = format!("/requests/{id}");
    assert_eq!(scene.people.act("open", json!({ "as": APPROVERS[1], "path": path }))["approvable"], true);
    reload(scene);
    wait("the new rules are not in force", || {
        scene.people.act("open", json!({ "as": APPROVERS[1], "path": path }))["approvable"] == false
    });
    // Nor does somebody abroad read what is in the log's private half, team or not.
    let sealed = scene.people.shown(APPROVERS[1], "/ledger");
    assert!(sealed.contains("sealed") && !sealed.contains("from abroad"), "{sealed}");
    assert!(!scene.people.shown(APPROVERS[1], "/").contains("from abroad"));
    let client = json!({ "type": "webauthn.get", "challenge": "AAAA", "origin": scene.origin }).to_string();
    let assertion = json!({ "authenticatorData": "AAAA", "clientDataJSON": URL_SAFE_NO_PAD.encode(client), "signature": "AAAA" });
    let past = scene.people.act(
        "steal",
        json!({ "as": APPROVERS[1], "path": format!("{path}/approve"), "body": { "assertion": assertion } }),
    );
    assert!(
        past["status"] == 403
            && past["text"].as_str().unwrap().contains("in SG, outside the jurisdiction us"),
        "{past}"
    );
    // Whoever is not in the registry is not let in, whatever the provider says.
    let stranger = scene.people.act("login", json!({ "as": "somebody-else" }));
    assert!(stranger["text"].as_str().unwrap().contains("not in the registry"), "{stranger}");
    // No script failed, and none was kept out by the policy.
    let errors = scene.people.act("errors", json!({}))["errors"].clone();
    let unexpected: Vec<&Value> = errors
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| !e.as_str().unwrap().starts_with("Failed to load resource: the server responded with"))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    // Whoever asks too much is told to wait, and those who are logged in do not wait with them.
    let headers = json!({ "content-type": "application/x-www-form-urlencoded" });
    let junk = json!({ "path": "/backchannel-logout", "headers": headers, "body": "logout_token=junk" });
    let answers: Vec<u64> =
        (0..400).map(|_| scene.people.act("send", junk.clone())["status"].as_u64().unwrap()).collect();
    assert!(answers.contains(&400) && answers.contains(&429), "{answers:?}");
    assert!(scene.people.shown(APPROVERS[0], "/").contains("Inbox"));
    // The provider is away: a clear page.
    drop(scene.provider.take());
    drop(scene.gateway.take());
    let console = scene.console.clone();
    scene.gateway = Some(scene.demo.serve_with("console", "", |config| with_console(&config, &console)));
    let away = scene.raw("/login");
    assert!(away["status"] == 503 && away["text"].as_str().unwrap().contains("cannot be reached"), "{away}");

    // And a stranger, with the log alone, checks both passkeys' signatures.
    std::thread::sleep(Duration::from_secs(2));
    drop(scene.gateway.take());
    let checked = scene.demo.ringfence_with("console", &["ledger", "verify"]);
    assert!(
        checked.status.success()
            && text(&checked).contains("7 approvals are signed")
            && text(&checked).contains("2 signatures of approvers let new keys in")
            && text(&checked).contains("2 orders are signed by regulators"),
        "{}",
        text(&checked)
    );
}
