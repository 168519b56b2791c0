//! PostgreSQL clusters of the demo's own: made, started, stopped, and cleaned up after a crash. PostgreSQL refuses to run
//! as root; as root, its programs run as another user then.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use crate::command::Failure;

/// A socket's path may have this many bytes on Linux (`sun_path`).
const MAX_SOCKET_PATH: usize = 107;
const SOCKET: &str = ".s.PGSQL.5432";
/// Marks a folder as a cluster that the demo made and may remove.
const BEGUN: &str = "ringfence-demo-begun";
/// Marks it as filled.
const FILLED: &str = "ringfence-demo-filled";

/// Another user.
#[derive(Clone, Debug)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
}

/// Where clusters are and who runs them.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// PostgreSQL's server programs.
    bin: PathBuf,
    /// Where the clusters are asked for.
    dir: PathBuf,
    /// Where they really are: elsewhere if the other user cannot get to `dir`.
    real: PathBuf,
    /// Who runs them, if not we.
    user: Option<User>,
    /// Who we are, by name.
    me: String,
}

/// A running cluster.
pub(crate) struct Cluster {
    host: Host,
    /// Its name and folder.
    pub(crate) name: &'static str,
    data: PathBuf,
    child: Child,
}

impl Host {
    /// Finds PostgreSQL and who is to run it.
    pub(crate) fn find(dir: &Path) -> Result<Self, Failure> {
        let bin = server_programs()?;
        let uid = fs::metadata("/proc/self")?.uid();
        let me = name_of(uid).unwrap_or_else(|| uid.to_string());
        let user = if uid == 0 { Some(other_user()?) } else { None };
        let mut host = Self { bin, dir: dir.to_owned(), real: dir.to_owned(), user, me };
        if !host.can_reach(dir) {
            use std::hash::{DefaultHasher, Hash as _, Hasher as _};
            let mut hash = DefaultHasher::new();
            dir.hash(&mut hash);
            host.real = PathBuf::from(format!("/var/tmp/ringfence-demo-{:016x}", hash.finish()));
            fs::create_dir_all(&host.real)?;
            if fs::metadata(&host.real)?.uid() != uid {
                let problem = format!("{} belongs to somebody else", host.real.display());
                return Err(Failure::setup(problem)
                    .hint("choose a --dir that the user postgres can get to, as in /var/tmp"));
            }
            fs::set_permissions(&host.real, fs::Permissions::from_mode(0o755))?;
        }
        Ok(host)
    }

    /// Whether the user who runs PostgreSQL can get into `dir`.
    fn can_reach(&self, dir: &Path) -> bool {
        self.user.is_none()
            || self.command("test").arg("-x").arg(dir).status().is_ok_and(|status| status.success())
    }

    /// A program that runs as PostgreSQL's user.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env_remove("PGDATA").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        if let Some(user) = &self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    fn server(&self, program: &str) -> Command {
        let mut command = self.command(self.bin.join(program));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(mut command: Command, doing: &str) -> Result<(), Failure> {
        let output = command.output().map_err(|e| Failure::setup(format!("cannot {doing}: {e}")))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(Failure::setup(format!("cannot {doing}: {}", text.trim())))
    }

    fn give(&self, path: &Path) -> Result<(), Failure> {
        if let Some(user) = &self.user {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))?;
        }
        Ok(())
    }
}

fn server_programs() -> Result<PathBuf, Failure> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let bin = entry.path().join("bin");
        let version = entry.file_name().to_str().and_then(|n| n.parse().ok());
        if let Some(version) =
            version.filter(|_| bin.join("postgres").exists() && bin.join("initdb").exists())
        {
            found.push((version, bin));
        }
    }
    let on_path =
        std::env::var_os("PATH").into_iter().flat_map(|p| std::env::split_paths(&p).collect::<Vec<_>>());
    found.sort();
    found
        .pop()
        .filter(|(version, _)| *version >= 15)
        .map(|(_, bin)| bin)
        .or_else(|| on_path.into_iter().find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists()))
        .ok_or_else(|| {
            Failure::setup("PostgreSQL's server programs (15 or later) are not on this machine").hint(
                "on Debian and Ubuntu: apt-get install postgresql; elsewhere install PostgreSQL and put initdb and \
                 postgres on the PATH",
            )
        })
}

fn passwd() -> Vec<User> {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let mut numbers = fields.skip(1);
            Some(User { name, uid: numbers.next()?.parse().ok()?, gid: numbers.next()?.parse().ok()? })
        })
        .collect()
}

fn name_of(uid: u32) -> Option<String> {
    passwd().into_iter().find(|u| u.uid == uid).map(|u| u.name)
}

fn other_user() -> Result<User, Failure> {
    let users = passwd();
    let found = ["postgres", "nobody"].iter().find_map(|name| users.iter().find(|u| u.name == *name));
    found.cloned().ok_or_else(|| {
        Failure::setup("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
            .hint("run the demo as a normal user")
    })
}

impl Cluster {
    /// Makes the cluster if it is new, ends what a crash left running, and starts it. One that was not filled to the end, or
    /// whose keys are gone (`keep` is false), is made anew.
    pub(crate) fn start(host: &Host, name: &'static str, keep: bool) -> Result<Self, Failure> {
        let shown = host.dir.join(name);
        let data = host.real.join(name);
        let longest = data.join(SOCKET).as_os_str().len().max(shown.join(SOCKET).as_os_str().len());
        if longest > MAX_SOCKET_PATH {
            return Err(Failure::setup(format!("{} is too long a path for a socket", shown.display()))
                .hint("choose a shorter --dir"));
        }
        if data != shown && !shown.exists() {
            let _ = fs::remove_file(&shown);
            symlink(&data, &shown)?;
        }
        Self::end_leftover(host, &data)?;
        if data.join(BEGUN).exists() && !(keep && data.join(FILLED).exists()) {
            fs::remove_dir_all(&data)?;
        }
        if !data.join("PG_VERSION").exists() {
            Self::make(host, &data)?;
        }
        let mut command = host.command(host.bin.join("postgres"));
        let log = fs::File::create(host.dir.join(format!("{name}.out")))?;
        // A process group of its own: Ctrl-C reaches us, and we stop the clusters in order.
        let child =
            command.arg("-D").arg(&data).stdout(log.try_clone()?).stderr(log).process_group(0).spawn();
        let child = child.map_err(|e| Failure::setup(format!("cannot start PostgreSQL: {e}")))?;
        Ok(Self { host: host.clone(), name, data, child })
    }

    fn make(host: &Host, data: &Path) -> Result<(), Failure> {
        fs::create_dir_all(data)?;
        fs::set_permissions(data, fs::Permissions::from_mode(0o700))?;
        host.give(data)?;
        let mut initdb = host.server("initdb");
        initdb.arg("-D").arg(data).args([
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--auth=peer",
            "--no-sync",
        ]);
        Host::run(initdb, "make a cluster")?;
        let socket_dir = data.display().to_string().replace('\'', "''");
        let settings = format!(
            "\n# ringfence demo\nlisten_addresses = ''\nport = 5432\nunix_socket_directories = '{socket_dir}'\n\
             unix_socket_permissions = 0700\nmax_connections = 300\nshared_buffers = 128MB\nmax_wal_size = 2GB\nwal_level = logical\n\
             logging_collector = on\nlog_destination = 'csvlog'\nlog_directory = 'log'\nlog_filename = 'postgresql.log'\n\
             log_connections = on\nlog_disconnections = on\nlog_statement = 'all'\nlog_timezone = 'UTC'\n\
             timezone = 'UTC'\npassword_encryption = 'scram-sha-256'\n"
        );
        append(&data.join("postgresql.conf"), &settings)?;
        fs::write(
            data.join("pg_hba.conf"),
            "# The host's own superuser by its operating-system user; everybody else by SCRAM.\n\
             local all postgres peer map=host\nlocal replication postgres peer map=host\nlocal all all scram-sha-256\n",
        )?;
        let mut map = format!("host {} postgres\n", host.me);
        if let Some(user) = &host.user {
            let _ = writeln!(map, "host {} postgres", user.name);
        }
        append(&data.join("pg_ident.conf"), &map)?;
        fs::write(data.join(BEGUN), "")?;
        Ok(())
    }

    /// After a kill -9 of the demo its clusters run on: they are stopped here.
    fn end_leftover(host: &Host, data: &Path) -> Result<(), Failure> {
        if !data.join("postmaster.pid").exists() {
            return Ok(());
        }
        let running = host.server("pg_ctl").arg("status").arg("-D").arg(data).status()?.success();
        if running {
            eprintln!("stopping a cluster that an earlier demo left running: {}", data.display());
            let mut stop = host.server("pg_ctl");
            stop.args(["stop", "-w", "-m", "fast", "-D"]).arg(data);
            return Host::run(stop, "stop a leftover cluster");
        }
        Ok(())
    }

    /// Waits until it takes connections.
    pub(crate) async fn wait_ready(&self) -> Result<(), Failure> {
        let config = self.superuser("postgres");
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match config.connect(NoTls).await {
                Ok((client, connection)) => {
                    drop(client);
                    let _ = connection.await;
                    return Ok(());
                }
                Err(e) if Instant::now() > until => {
                    let log = self.host.dir.join(format!("{}.out", self.name));
                    return Err(Failure::setup(format!("{} does not start: {e}", self.name))
                        .hint(format!("its first words are in {}", log.display())));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The folder of its socket.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.data.clone()
    }

    /// A connection as the host's own superuser.
    pub(crate) fn superuser(&self, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.data).user("postgres").dbname(database);
        config
    }

    /// Whether the data were loaded to the end.
    pub(crate) fn is_filled(&self) -> bool {
        self.data.join(FILLED).exists()
    }

    /// Notes that the data are loaded.
    pub(crate) fn mark_filled(&self) -> Result<(), Failure> {
        fs::write(self.data.join(FILLED), "")?;
        Ok(())
    }

    /// Stops it: fast, then at once.
    fn stop(&mut self) {
        for mode in ["fast", "immediate"] {
            let mut stop = self.host.server("pg_ctl");
            stop.args(["stop", "-w", "-t", "20", "-m", mode, "-D"]).arg(&self.data);
            if Host::run(stop, "stop a cluster").is_ok() {
                break;
            }
        }
        let _ = self.child.wait();
    }
}

/// No process outlives the demo, whatever ended it.
impl Drop for Cluster {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

fn append(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    fs::OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())?;
    Ok(())
}
