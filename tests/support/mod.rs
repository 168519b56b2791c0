//! The harness: a demo of the test's own, with real PostgreSQL, in a folder of its own, gone when the test is.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test is a crate of its own and uses a part of this"
)]

pub mod wire;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ringfence");

/// The program under test, or the one that `RF_TEST_PROGRAM` names: an older one, to see a test fail on it.
pub fn program() -> &'static str {
    static OTHER: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    OTHER.get_or_init(|| std::env::var("RF_TEST_PROGRAM").ok()).as_deref().unwrap_or(PROGRAM)
}

/// A running demo.
pub struct Demo {
    pub dir: PathBuf,
    pub port: u16,
    child: Child,
    /// Clusters that are not the demo's own processes any more: they are stopped here.
    crashed: Mutex<BTreeSet<PathBuf>>,
}

/// Where a program's log goes.
fn told() -> Stdio {
    if std::env::var_os("RF_TEST_LOG").is_some() { Stdio::inherit() } else { Stdio::null() }
}

fn spawn(dir: &Path) -> Child {
    Command::new(program())
        .args(["demo", "--port", "0", "--users", "5000", "--until-stdin-ends", "--dir"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(told())
        .spawn()
        .expect("the program starts")
}

impl Demo {
    /// Starts a demo with few users. `name` keeps tests apart.
    pub fn start(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("rf-{name}-{}", std::process::id()));
        let mut demo = Self { port: 0, child: spawn(&dir), dir, crashed: Mutex::default() };
        demo.wait_ready();
        demo
    }

    /// Starts again in the same folder, after [`Self::kill`] or [`Self::stop`].
    pub fn restart(&mut self) {
        self.child = spawn(&self.dir);
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        let mut lines = BufReader::new(self.child.stdout.take().expect("piped")).lines();
        let ready = lines.any(|line| line.is_ok_and(|l| l.contains("ringfence demo is ready")));
        assert!(ready, "the demo did not get ready; run with RF_TEST_LOG=1 to see why");
        std::thread::spawn(move || lines.for_each(drop));
        self.port = self.read_port();
    }

    fn read_port(&self) -> u16 {
        let text = std::fs::read_to_string(self.dir.join("ringfence.toml")).expect("the demo wrote it");
        let at = text.find("127.0.0.1:").expect("a listen address") + "127.0.0.1:".len();
        text[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a port")
    }

    /// The program's process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Kills the program as a crash would; the clusters run on, as after any crash.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ended");
    }

    /// Stops in order and waits.
    pub fn stop(&mut self) {
        drop(self.child.stdin.take());
        let until = Instant::now() + Duration::from_secs(30);
        while self.child.try_wait().expect("ours").is_none() {
            assert!(Instant::now() < until, "the demo does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `psql` as somebody, one statement or several.
    pub fn psql(&self, user: &str, database: &str, sql: &str) -> Output {
        Command::new("psql")
            .arg(self.dsn(user, database))
            .args(["-X", "-v", "ON_ERROR_STOP=1", "-A", "-t", "-c", sql])
            .env("PGPASSWORD", "demo")
            .stdin(Stdio::null())
            .output()
            .expect("psql runs")
    }

    pub fn dsn(&self, user: &str, database: &str) -> String {
        format!("host=127.0.0.1 port={} user={user} dbname={database}", self.port)
    }

    /// The program's own command line.
    pub fn ringfence(&self, arguments: &[&str]) -> Output {
        self.ringfence_with("ringfence", arguments)
    }

    /// The same for a gateway beside the demo's own.
    pub fn ringfence_with(&self, name: &str, arguments: &[&str]) -> Output {
        Command::new(program())
            .args(arguments)
            .env("PGPASSWORD", "demo")
            .env("RINGFENCE_CONFIG", self.dir.join(format!("{name}.toml")))
            .stdin(Stdio::null())
            .output()
            .expect("the program runs")
    }

    /// As the host's own superuser, past the gateway.
    pub fn attempt(&self, cluster: &str, database: &str, sql: &str) -> Output {
        self.superusers_psql(cluster, database, sql).output().expect("psql runs")
    }

    /// The same as a process that is still to run.
    pub fn superusers_psql(&self, cluster: &str, database: &str, sql: &str) -> Command {
        let mut command = Command::new("psql");
        command
            .arg(format!("host={} user=postgres dbname={database}", self.dir.join(cluster).display()))
            .args(["-X", "-v", "ON_ERROR_STOP=1", "-A", "-t", "-q", "-c", sql])
            .stdin(Stdio::null());
        command
    }

    /// The same where it has to succeed; returns what it prints.
    pub fn superuser(&self, cluster: &str, database: &str, sql: &str) -> String {
        let output = self.attempt(cluster, database, sql);
        assert!(output.status.success(), "{sql}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Stops a cluster and starts it again, as whoever owns it.
    pub fn restart_store(&self, cluster: &str) {
        self.restart_store_under(cluster, "true");
    }

    /// The same after a line of shell, as one that sets a limit.
    pub fn restart_store_under(&self, cluster: &str, line: &str) {
        let script = "eval \"$1\" && $run \"$pg_ctl\" restart -D \"$0\" -m fast -w -l \"$0/restart.log\"";
        let data = self.as_owner(cluster, script, line);
        self.is_ours(data);
    }

    /// Runs a script for a cluster, and returns the cluster's folder. The script has that folder in
    /// `$0`, `argument` in `$1`, `pg_ctl` in `$pg_ctl`, and in `$run` what runs a program as the
    /// folder's owner: PostgreSQL refuses root.
    fn as_owner(&self, cluster: &str, script: &str, argument: &str) -> PathBuf {
        let data = self.dir.join(cluster).canonicalize().expect("the cluster is there");
        let before = "pg_ctl=$(ls -d /usr/lib/postgresql/*/bin/pg_ctl 2>/dev/null | sort -V | tail -1)
            pg_ctl=${pg_ctl:-pg_ctl}; owner=$(stat -c %U \"$0\")
            run=; [ \"$(id -un)\" = \"$owner\" ] || run=\"runuser -u $owner --\"; cd /";
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{before}\n{script}")).arg(&data).arg(argument);
        // Servers write to their own logs: a pipe would stay open.
        let output = command.stdin(Stdio::null()).output().expect("sh runs");
        assert!(output.status.success(), "{script}: {}", text(&output));
        data
    }

    /// A server that the demo did not start is stopped with the demo.
    fn is_ours(&self, data: PathBuf) {
        self.crashed.lock().expect("no test panicked with it").insert(data);
    }

    /// A shell line in the demo's folder, with the legacy store as PostgreSQL's programs' own database, as its superuser.
    pub fn shell(&self, line: &str) {
        let socket = self.dir.join("sg-legacy").canonicalize().expect("the cluster is there");
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(&self.dir)
            .env("PGHOST", socket)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "legacy")
            .stdin(Stdio::null())
            .output()
            .expect("sh runs");
        assert!(output.status.success(), "{line}: {}", text(&output));
    }

    /// A streaming standby of the legacy store, in the folder `name` beside it.
    pub fn standby(&self, name: &str) {
        let script = "to=$(dirname \"$0\")/$1; mkdir -m 700 \"$to\"; chown $owner \"$to\" 2>/dev/null
            $run pg_basebackup -h \"$0\" -U postgres -D \"$to\" -R -C -S standby -X stream -c fast || exit 1
            rm -rf \"$to/log\" \"$to\"/.s.PGSQL.*
            $run \"$pg_ctl\" start -D \"$to\" -w -o \"-k $to\" -l \"$to/start.log\"";
        let data = self.as_owner("sg-legacy", script, name);
        self.is_ours(data.with_file_name(name));
    }

    /// Copies of a cluster as it lies on the disk, in folders beside it. All run afterwards, the
    /// copies without autovacuum.
    pub fn copies(&self, cluster: &str, names: &[&str]) {
        let script = "$run \"$pg_ctl\" stop -D \"$0\" -m fast -w || exit 1
            for name in $1; do
                to=$(dirname \"$0\")/$name; cp -a \"$0\" \"$to\"; rm -rf \"$to/log\"
                options=\"-k $to -c autovacuum=off\"
                $run \"$pg_ctl\" start -D \"$to\" -w -o \"$options\" -l \"$to/start.log\" || exit 1
            done
            $run \"$pg_ctl\" start -D \"$0\" -w -l \"$0/restart.log\"";
        let data = self.as_owner(cluster, script, &names.join(" "));
        for name in names {
            self.is_ours(data.with_file_name(name));
        }
        self.is_ours(data);
    }

    /// Kills a cluster as a crash would, and starts it again.
    pub fn crash_store(&self, cluster: &str) {
        let script =
            "pid=$(head -1 \"$0/postmaster.pid\"); pids=$(pgrep -P $pid); kill -9 $pid $pids 2>/dev/null
            for one in $pid $pids; do for try in $(seq 100); do
                [ -d /proc/$one ] && ! grep -q '^State:.Z' /proc/$one/status || break; sleep 0.05
            done; done
            rm -f \"$0/postmaster.pid\" \"$0/.s.PGSQL.5432\" \"$0/.s.PGSQL.5432.lock\"
            $run \"$pg_ctl\" start -D \"$0\" -w -l \"$0/restart.log\"";
        let data = self.as_owner(cluster, script, "");
        self.is_ours(data);
    }

    /// The logins of the faces that a store has.
    pub fn face_logins(&self, cluster: &str) -> Vec<String> {
        let sql = "select rolname from pg_roles where rolname ~ '^rf_[0-9a-f]+_[0-9a-f]+$' and rolcanlogin order by 1";
        self.superuser(cluster, "us", sql).lines().map(str::to_owned).collect()
    }

    /// Asks as the analyst, signs as two approvers, returns the grant's name.
    pub fn grant(&self, requester: &str, columns: &str, condition: &str, more: &[&str]) -> String {
        self.grant_at("ringfence", requester, columns, condition, more)
    }

    /// The same at a gateway beside the demo's own.
    pub fn grant_at(
        &self,
        gateway: &str,
        requester: &str,
        columns: &str,
        condition: &str,
        more: &[&str],
    ) -> String {
        let mut arguments = vec![
            "request",
            "--json",
            "--as",
            requester,
            "--store",
            "us",
            "--columns",
            columns,
            "--purpose",
            "a test",
        ];
        if !condition.is_empty() {
            arguments.extend(["--where", condition]);
        }
        if !more.contains(&"--for") {
            arguments.extend(["--for", "1h"]);
        }
        arguments.extend(more);
        let asked = self.ringfence_with(gateway, &arguments);
        assert!(asked.status.success(), "{}", text(&asked));
        let asked = String::from_utf8_lossy(&asked.stdout).into_owned();
        let id =
            asked.split("\"id\": \"").nth(1).and_then(|r| r.split('"').next()).expect("an id").to_owned();
        for approver in ["us-approver-1", "us-approver-2"] {
            let key = self.dir.join("keys").join(approver).display().to_string();
            let signed = self.ringfence_with(gateway, &["approve", &id, "--as", approver, "--key", &key]);
            assert!(signed.status.success(), "{}", text(&signed));
        }
        id
    }

    /// A gateway beside the demo's own: same stores, own port, own log `ledger-NAME`, own registry `registry-NAME.toml`, with
    /// its configuration in `NAME.toml`. `shell` runs before it in the same process.
    pub fn serve(&self, name: &str, shell: &str) -> Served {
        self.serve_with(name, shell, |text| text)
    }

    /// The same with a changed configuration. It is up when it answers at the legacy store, which nothing changes.
    pub fn serve_with(&self, name: &str, shell: &str, change: impl FnOnce(String) -> String) -> Served {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let config = self.dir.join(format!("{name}.toml"));
        let text = std::fs::read_to_string(self.dir.join("ringfence.toml")).expect("the demo wrote it");
        let text = text
            .replace(&format!("127.0.0.1:{}", self.port), &format!("127.0.0.1:{port}"))
            .replace("dir = \"ledger\"", &format!("dir = \"ledger-{name}\""))
            .replace("keys/ledger.", &format!("keys-{name}/ledger."))
            .replace("witnesses = \"witnesses.policy\"\n", "")
            .replace("registry = \"registry.toml\"", &format!("registry = \"registry-{name}.toml\""));
        let keys = self.dir.join(format!("keys-{name}"));
        if !keys.exists() {
            let keys = keys.display().to_string();
            let made = self.ringfence(&[
                "keys",
                "--dir",
                &keys,
                "--origin",
                &format!("ringfence-demo.example/{name}"),
            ]);
            assert!(made.status.success(), "{}", self::text(&made));
        }
        std::fs::write(&config, change(text)).expect("the folder is ours");
        let registry = self.dir.join(format!("registry-{name}.toml"));
        std::fs::copy(self.dir.join("registry.toml"), registry).expect("the folder is ours");
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{ENDS_WITH_US} {shell} exec \"$0\" serve --config \"$1\" 3<&-"))
            .arg(program())
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(told())
            .spawn()
            .expect("the program starts");
        let served = Served { child, port };
        let until = Instant::now() + Duration::from_secs(20);
        while wire::Wire::connect(port, "us-engineer", "legacy").is_err() {
            assert!(Instant::now() < until, "the gateway does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        served
    }

    /// A gateway whose policies give people abroad full access: each of `people` is a copy of the analyst.
    pub fn serve_full_access(&self, name: &str, people: &[String]) -> Served {
        const ANALYST: &str = "singapore-analyst";
        let path = self.dir.join("registry.toml");
        let original = std::fs::read_to_string(&path).expect("the demo wrote it");
        let block = original.split("[[people]]").find(|b| b.contains(ANALYST)).expect("the analyst is there");
        let copies: Vec<String> =
            people.iter().map(|who| format!("\n[[people]]{}", block.replace(ANALYST, who))).collect();
        std::fs::write(&path, format!("{original}{}", copies.concat())).expect("the folder is ours");
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/default.cedar");
        let own = std::fs::read_to_string(own).expect("the policies are there");
        let permit = "permit (principal is Ringfence::Person, action == Ringfence::Action::\"full_access\", resource)\n\
                      when { principal.location == \"SG\" };";
        let policies = self.dir.join(format!("{name}.cedar"));
        std::fs::write(&policies, format!("{own}\n@id(\"abroad\")\n{permit}\n")).expect("the folder is ours");
        let served = self.serve_with(name, "", |text| {
            text.replace("[policy]\n", &format!("[policy]\npolicies = \"{name}.cedar\"\n"))
        });
        std::fs::write(&path, original).expect("the folder is ours");
        served
    }

    /// Verifies the log; the text says what is wrong.
    pub fn verify(&self) -> Result<String, String> {
        let output = self.ringfence(&["ledger", "verify"]);
        if output.status.success() { Ok(text(&output)) } else { Err(text(&output)) }
    }
}

/// For the shell that becomes a gateway: whatever becomes of the process of the tests, the gateway ends
/// with it. A pipe from the tests ends then.
const ENDS_WITH_US: &str =
    "exec 3<&0 </dev/null; (read -r _ <&3; grep -qs serve /proc/$$/cmdline && kill -9 $$) &";

/// A gateway without a demo.
pub struct Served {
    pub child: Child,
    pub port: u16,
}

impl Served {
    /// As a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let until = Instant::now() + Duration::from_secs(20);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        for data in self.crashed.get_mut().map(std::mem::take).unwrap_or_default() {
            let script = "pid=$(head -1 \"$0/postmaster.pid\") && kill -QUIT $pid; while kill -0 $pid 2>/dev/null; do sleep 0.05; done";
            let _ = Command::new("sh").arg("-c").arg(script).arg(&data).status();
        }
        if std::env::var_os("RF_TEST_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Everything a program printed.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The verifier that strangers use, beside the program under test.
pub fn verifier() -> PathBuf {
    static BUILD: std::sync::Once = std::sync::Once::new();
    let path = Path::new(PROGRAM).with_file_name("ringfence-verify");
    BUILD.call_once(|| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let built =
            Command::new(cargo).args(["build", "--locked", "-q", "-p", "ringfence-verifier"]).status();
        assert!(built.expect("cargo runs").success());
    });
    path
}
