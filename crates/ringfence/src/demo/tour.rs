//! `ringfence demo --check`: walks the tour of the README with real `psql` and this program's own commands, tells for each
//! step what was expected and what was seen.

mod moving;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::command::Failure;
use crate::config;

/// The condition of the tour's grant.
const ONE_USER: &str = "country = 'US' and id = 4711";

struct Tour {
    dir: PathBuf,
    port: u16,
    program: PathBuf,
    steps: u32,
    failed: u32,
}

/// What a step must show.
enum Expect<'a> {
    /// Success, and the output has this text.
    Shows(&'a str),
    /// Success, and the output has not this text.
    Hides(&'a str),
    /// Failure, and the output has this text.
    Fails(&'a str),
}

/// Walks the tour; `Err` if a step saw something else than it expected.
pub(super) async fn walk(dir: &Path) -> Result<(), Failure> {
    let dir = dir.to_owned();
    let walked = tokio::task::spawn_blocking(move || Tour::new(dir)?.walk()).await;
    walked.map_err(|e| Failure::refused(format!("the tour stopped: {e}")))?
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

impl Tour {
    fn new(dir: PathBuf) -> Result<Self, Failure> {
        let port = config::places(&dir.join("ringfence.toml"))?.listen.port();
        let program = std::env::current_exe()?;
        Ok(Self { dir, port, program, steps: 0, failed: 0 })
    }

    fn psql(&self, user: &str, database: &str, sql: &str) -> Command {
        let mut command = Command::new("psql");
        command
            .arg(format!("host=127.0.0.1 port={} user={user} dbname={database}", self.port))
            .args(["-X", "-v", "ON_ERROR_STOP=1", "-A", "-t", "-c", sql])
            .env("PGPASSWORD", "demo")
            .stdin(Stdio::null());
        command
    }

    fn ringfence(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("PGPASSWORD", "demo")
            .env("RINGFENCE_CONFIG", self.dir.join("ringfence.toml"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a step, tells about it, and returns what it printed.
    fn step(&mut self, story: &str, mut command: Command, expected: &[Expect<'_>]) -> String {
        let output = match command.output() {
            Ok(output) => output,
            Err(e) => {
                self.tell(story, false, "the program to run", &e.to_string());
                return String::new();
            }
        };
        let seen = text(&output);
        let mut wanted = Vec::new();
        let mut good = true;
        for expect in expected {
            let (ok, words) = match expect {
                Expect::Shows(t) => (output.status.success() && seen.contains(t), format!("shows {t:?}")),
                Expect::Hides(t) => (output.status.success() && !seen.contains(t), format!("hides {t:?}")),
                Expect::Fails(t) => {
                    (!output.status.success() && seen.contains(t), format!("fails with {t:?}"))
                }
            };
            good &= ok;
            wanted.push(words);
        }
        self.tell(story, good, &wanted.join(", "), seen.trim());
        seen
    }

    fn tell(&mut self, story: &str, good: bool, expected: &str, seen: &str) {
        self.steps += 1;
        self.failed += u32::from(!good);
        println!("{:>2}. {story}", self.steps);
        println!("    expected: {expected}");
        let mut lines = seen.lines();
        println!("    saw:      {}", lines.next().unwrap_or("(nothing)"));
        for line in lines.take(8) {
            println!("              {line}");
        }
        println!("    {}", if good { "ok" } else { "NOT OK" });
    }

    fn walk(mut self) -> Result<(), Failure> {
        self.what_is_masked();
        let Some(id) = self.ask_and_sign() else { return self.end() };
        self.what_the_grant_shows(&id);
        self.revoke_in_the_middle(&id);
        self.on_record(&id);
        self.move_rows();
        self.end()
    }

    fn end(self) -> Result<(), Failure> {
        println!("{} steps, {} not as expected", self.steps, self.failed);
        if self.failed == 0 { Ok(()) } else { Err(Failure::refused("the tour is not as it should be")) }
    }

    fn what_is_masked(&mut self) {
        let of_4711 = "select id, email, phone, full_name from users where id = 4711";
        let sees = self.psql("us-engineer", "us", of_4711);
        let clear = self.step(
            "An engineer in the U.S. sees a user as stored",
            sees,
            &[Expect::Shows("4711|"), Expect::Hides("masked")],
        );
        let email = clear.split('|').nth(1).unwrap_or("?").to_owned();
        let sees = self.psql("singapore-analyst", "us", of_4711);
        self.step(
            "An analyst in Singapore sees the same row masked, and how to ask",
            sees,
            &[
                Expect::Shows("@masked.invalid"),
                Expect::Hides(&email),
                Expect::Shows("ringfence request --as singapore-analyst"),
            ],
        );
        let joins = "select count(*) from users a join users b using (email) where a.id = 4711";
        let sees = self.psql("singapore-analyst", "us", joins);
        self.step("Masked identifiers still join", sees, &[Expect::Shows("1")]);
        let sees = self.psql("singapore-analyst", "us", "select * from messages limit 1");
        self.step("Direct messages are absent for the analyst", sees, &[Expect::Fails("does not exist")]);
        let sees = self.psql("beijing-engineer", "us", "select email from users limit 1");
        self.step(
            "An engineer of a covered entity does not even have the column, and hears why",
            sees,
            &[Expect::Fails("covered person (28 CFR 202.211)")],
        );
        let sees =
            self.psql("beijing-engineer", "us", "select handle from profiles order by user_id limit 1");
        self.step("What users published is there for everybody", sees, &[Expect::Hides("ERROR")]);
        let sees = self.psql("singapore-analyst", "legacy", "select 1");
        self.step(
            "The legacy store is for in-country operators",
            sees,
            &[Expect::Fails("in-country operators only")],
        );
        let sees = self.psql("us-engineer", "legacy", "select count(*) > 0 from users where country = 'US'");
        self.step("Such an operator reaches it", sees, &[Expect::Shows("t")]);
        let sees = self.psql("auditor", "us", "select 1");
        self.step("An auditor reaches no data", sees, &[Expect::Fails("auditor")]);
        let sees = self.psql("singapore-analyst", "us", "update users set email = 'x'");
        self.step("Nobody writes through a face", sees, &[Expect::Fails("not allowed through a face")]);
        let sees = self.psql("feed-service", "us", "select count(*) from watch_history");
        self.step(
            "The feed service reads everything; it is counted, not logged one by one",
            sees,
            &[Expect::Hides("ERROR")],
        );
    }

    fn ask_and_sign(&mut self) -> Option<String> {
        let request = self.ringfence(&[
            "request",
            "--as",
            "singapore-analyst",
            "--store",
            "us",
            "--columns",
            "users.email,users.phone",
            "--where",
            ONE_USER,
            "--purpose",
            "ticket 981: refund",
            "--for",
            "2h",
            "--max-rows",
            "100",
            "--json",
        ]);
        let asked = self.step(
            "The analyst asks for one user's e-mail and phone",
            request,
            &[Expect::Shows("pending")],
        );
        let id = serde_json::from_str::<serde_json::Value>(&asked).ok()?["id"].as_str()?.to_owned();
        let key = |n: u32| self.dir.join(format!("keys/us-approver-{n}")).display().to_string();
        let (one, two) = (key(1), key(2));
        let approve = |who: &str, key: &str| self.ringfence(&["approve", &id, "--as", who, "--key", key]);
        let (by_beijing, first, again) = (
            approve("beijing-engineer", &one),
            approve("us-approver-1", &one),
            approve("us-approver-1", &two),
        );
        let second = approve("us-approver-2", &two);
        self.step("A covered person cannot approve", by_beijing, &[Expect::Fails("not yours to read")]);
        self.step(
            "A key that is not the approver's does not count",
            again,
            &[Expect::Fails("not by their key")],
        );
        self.step(
            "The first approver signs; one signature is not enough",
            first,
            &[Expect::Shows("1 of 2 approvals")],
        );
        let sees = self.psql("singapore-analyst", "us", "select email from users where id = 4711");
        self.step("So nothing changes yet", sees, &[Expect::Shows("@masked.invalid")]);
        self.step("The second approver signs", second, &[Expect::Shows("is granted until")]);
        Some(id)
    }

    fn what_the_grant_shows(&mut self, id: &str) {
        let engineer = self
            .psql("us-engineer", "us", "select id, email, phone, 'Person' from users where id = 4711")
            .output();
        let stored = engineer.map(|o| text(&o)).unwrap_or_default();
        let clear = stored.trim().trim_end_matches("Person").to_owned();
        let sees =
            self.psql("singapore-analyst", "us", "select id, email, phone, full_name from users order by id");
        let seen = self.step(
            "Now the analyst sees that one row, e-mail and phone in clear, the name still masked",
            sees,
            &[Expect::Shows(&format!("{clear}Person ")), Expect::Hides("@masked.invalid")],
        );
        let rows = seen.lines().filter(|l| l.contains('|')).count();
        self.tell("And no other row of the table", rows == 1, "1 row", &format!("{rows} rows"));
        let grants = self.ringfence(&["grants", "--as", "us-approver-3"]);
        self.step("The security team sees the grant and what was used of it", grants, &[Expect::Shows(id)]);
    }

    fn revoke_in_the_middle(&mut self, id: &str) {
        // A statement that would run for long, row after row.
        let long = "select u.id, u.email, g from users u, generate_series(1, 100000000) g where pg_sleep(0.01) is not null";
        let mut running = match self
            .psql("singapore-analyst", "us", long)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        {
            Ok(running) => running,
            Err(e) => {
                return self.tell(
                    "A long statement runs under the grant",
                    false,
                    "psql to start",
                    &e.to_string(),
                );
            }
        };
        std::thread::sleep(Duration::from_millis(500));
        let still = running.try_wait().ok().flatten().is_none();
        self.tell(
            "A long statement runs under the grant",
            still,
            "still running",
            if still { "still running" } else { "ended" },
        );
        let revoke =
            self.ringfence(&["revoke", id, "--as", "us-approver-3", "--reason", "the refund is done"]);
        self.step("An approver revokes the grant", revoke, &[Expect::Shows("1 sessions were cut")]);
        let returned = Instant::now();
        let mut error = String::new();
        if let Some(stderr) = running.stderr.as_mut() {
            let _ = stderr.read_to_string(&mut error);
        }
        let took = returned.elapsed();
        let _ = running.wait();
        let cut = error.contains("was revoked by us-approver-3");
        let seen = format!("{} ms after revoke returned: {}", took.as_millis(), error.trim());
        self.tell("The running statement is cut", cut, "the error names the revocation", &seen);
        let sees = self.psql("singapore-analyst", "us", "select email from users where id = 4711");
        self.step("And the analyst sees masks again", sees, &[Expect::Shows("@masked.invalid")]);
    }

    fn on_record(&mut self, id: &str) {
        // The checkpoint follows the last entry within a second, and the witnesses soon after.
        std::thread::sleep(Duration::from_millis(2500));
        let verify = self.ringfence(&["ledger", "verify"]);
        self.step(
            "Anyone verifies the log from its files and the public key",
            verify,
            &[Expect::Shows("The log verifies"), Expect::Shows("Witnesses confirm the first")],
        );
        let who = self.ringfence(&["audit", "who-accessed", "--jurisdiction", "us", "--from", "SG"]);
        self.step(
            "Who in Singapore reached U.S. data, and why?",
            who,
            &[Expect::Shows("singapore-analyst (SG, clips-singapore) at us"), Expect::Shows("refund")],
        );
        let out = self.dir.join(format!("answer-{}", std::process::id())).display().to_string();
        let bundle = self.ringfence(&["audit", "bundle", "--from", "SG", "--complete", "--out", &out]);
        self.step(
            "The answer goes to a stranger, with proof that nothing was kept back",
            bundle,
            &[Expect::Shows("entries with their records")],
        );
        let meter = self.ringfence(&["meter", "--recipient", "singapore-analyst"]);
        self.step(
            "How many people has the analyst reached in twelve months, masked or not?",
            meter,
            &[Expect::Shows("covered-personal-identifiers"), Expect::Shows("of 100,000")],
        );
        let reports = self.dir.join("reports").display().to_string();
        let report = self.ringfence(&["report", "transparency", "--out", &reports]);
        self.step(
            "What the public may know of all this, for print",
            report,
            &[Expect::Shows("transparency.pdf")],
        );
        let show = self.ringfence(&["ledger", "show", "--grep", id]);
        self.step(
            "The request, both approvals, the grant and the revocation are on record",
            show,
            &[
                Expect::Shows("requested"),
                Expect::Shows("by us-approver-1"),
                Expect::Shows("by us-approver-2"),
                Expect::Shows("revoked"),
            ],
        );
        let show =
            self.ringfence(&["ledger", "show", "--grep", "full_name from users order by id", "--json"]);
        let shown =
            self.step("So is the statement that read the clear values", show, &[Expect::Shows("\"intent\"")]);
        let parsed = serde_json::from_str::<serde_json::Value>(&shown).ok();
        let last = parsed.as_ref().and_then(|v| v.as_array()?.last()?.get("index")?.as_u64());
        let Some(index) = last else { return };
        let disclosed = self.ringfence(&["ledger", "disclose", &index.to_string()]).output();
        let file = self.dir.join("disclosed.tlog-proof");
        let written = disclosed.is_ok_and(|o| o.status.success() && std::fs::write(&file, o.stdout).is_ok());
        self.tell(
            "That entry is disclosed to somebody who may see it",
            written,
            "a proof file",
            &file.display().to_string(),
        );
        let check = self.ringfence(&["ledger", "verify", "--proof", &file.display().to_string()]);
        self.step(
            "Who checks it offline",
            check,
            &[Expect::Shows("The proof holds"), Expect::Shows("singapore-analyst")],
        );
    }
}
