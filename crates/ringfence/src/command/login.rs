//! `ringfence login`: the identity that people have becomes a short-lived client certificate and a service for psql.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use rcgen::{CertificateParams, KeyPair};
use ringfence_console::api::login::Place;
use ringfence_console::identity::agent;
use ringfence_console::native::{Native, Tokens};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Failure, print_json};

/// `ringfence login`.
#[derive(Args)]
pub(crate) struct LoginArgs {
    /// The web console, as in https://console.example.
    #[arg(long, env = "RINGFENCE_CONSOLE")]
    console: String,
    /// Log in by another device: the terminal says where, and a code to type there.
    #[arg(long)]
    device: bool,
    /// Only renew without asking anybody; fail if that is not possible.
    #[arg(long, conflicts_with = "device")]
    quiet: bool,
    /// Where certificates, keys and the refresh token go. Default: ~/.ringfence
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// The service file. Default: PGSERVICEFILE or ~/.pg_service.conf
    #[arg(long, value_name = "FILE")]
    service_file: Option<PathBuf>,
    /// PEM certificates to trust for the console and the provider. Default: the system's.
    #[arg(long, value_name = "FILE")]
    tls_root: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where systems keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// The longest answer of a console, in bytes.
const LONGEST: u64 = 1 << 20;

fn home() -> Result<PathBuf, Failure> {
    std::env::var_os("HOME")
        .map(PathBuf::from)
        .ok_or_else(|| Failure::setup("HOME is not set: name --dir and --service-file"))
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::setup(format!("cannot write {}: {e}", path.display()));
    let part = path.with_extension(format!("part{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}

/// What is kept of a login: where, and what renews it.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    console: String,
    issuer: String,
    client_id: String,
    refresh: Option<String>,
}

impl Kept {
    /// A console that names another provider than before may be another console: nobody logs in there without having looked.
    fn must_fit(&self, console: &str, place: &Place, file: &Path) -> Result<(), Failure> {
        if self.console != console || (self.issuer == place.issuer && self.client_id == place.client_id) {
            return Ok(());
        }
        let problem = format!(
            "{console} names another identity provider than before: {} ({}), it was {} ({})",
            place.issuer, place.client_id, self.issuer, self.client_id
        );
        Err(Failure::refused(problem).hint(format!(
            "If whoever runs it says that this is right, remove {} and log in.",
            file.display()
        )))
    }
}

/// Whether what is said to a console can be read by nobody between: by HTTPS, or on this machine.
fn is_safe(console: &str) -> bool {
    let Ok(url) = console.parse::<ureq::http::Uri>() else { return false };
    let is_local = ["localhost", "127.0.0.1", "[::1]"].contains(&url.host().unwrap_or_default());
    url.scheme_str() == Some("https") || url.scheme_str() == Some("http") && is_local
}

/// Whether a text can stand in a service file as one value, and as a section's name.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c.is_whitespace() || "[]".contains(c))
}

/// What a console says goes into a file that psql believes.
fn must_be_plain(place: &Place) -> Result<(), Failure> {
    if place.stores.iter().chain([&place.host]).all(|text| is_plain(text)) {
        return Ok(());
    }
    Err(Failure::refused("the console names a host or a store that a service file cannot have"))
}

/// `ringfence login`.
pub(crate) fn run(args: &LoginArgs) -> Result<(), Failure> {
    let console = args.console.trim_end_matches('/');
    let roots = match &args.tls_root {
        Some(path) => Some(
            std::fs::read(path)
                .map_err(|e| Failure::setup(format!("cannot read {}: {e}", path.display())))?,
        ),
        None => SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok()),
    };
    if !is_safe(console) {
        return Err(Failure::setup("the console is on another machine, so its address must be https:"));
    }
    let agent = agent(roots.as_deref()).map_err(Failure::setup)?;
    let place: Place = serde_json::from_value(call(&agent, console, "login", None, None)?)
        .map_err(|e| Failure::setup(format!("{console} does not answer as a Ringfence console: {e}")))?;
    must_be_plain(&place)?;
    let dir = args.dir.clone().map_or_else(|| home().map(|home| home.join(".ringfence")), Ok)?;
    std::fs::create_dir_all(&dir)
        .map_err(|e| Failure::setup(format!("cannot make {}: {e}", dir.display())))?;
    let kept = dir.join("login.json");
    let before =
        std::fs::read_to_string(&kept).ok().and_then(|text| serde_json::from_str::<Kept>(&text).ok());
    if let Some(before) = &before {
        before.must_fit(console, &place, &kept)?;
    }
    let native = Native::new(&place.issuer, &place.client_id, agent.clone())
        .map_err(|e| Failure::setup(e.to_string()))?;
    let refresh = before.filter(|before| before.console == console).and_then(|before| before.refresh);
    let tokens = log_in(args, &native, refresh.as_deref())?;
    let keep = Kept {
        console: console.to_owned(),
        issuer: place.issuer.clone(),
        client_id: place.client_id.clone(),
        refresh: tokens.refresh.clone(),
    };
    write_private(&kept, &serde_json::to_string_pretty(&keep).unwrap_or_default())?;
    // A new key each time: it never leaves this machine, and lasts no longer than its certificate.
    let failed = |e: rcgen::Error| Failure::setup(format!("cannot make a key: {e}"));
    let key = KeyPair::generate().map_err(failed)?;
    let request =
        CertificateParams::default().serialize_request(&key).and_then(|r| r.pem()).map_err(failed)?;
    let given =
        call(&agent, console, "certificates", Some(&tokens.id_token), Some(&json!({ "request": request })))?;
    let text = |key: &str| given[key].as_str().unwrap_or_default().to_owned();
    let (name, expires) = (text("name"), text("expires"));
    if name.is_empty() || !is_plain(&name) {
        return Err(Failure::refused("the console has given a name that is none"));
    }
    let files = [("postgresql.crt", text("certificate")), ("postgresql.key", key.serialize_pem())];
    for (file, contents) in files {
        write_private(&dir.join(file), &contents)?;
    }
    let root = match &place.root {
        Some(root) => {
            write_private(&dir.join("root.crt"), root)?;
            dir.join("root.crt").display().to_string()
        }
        None => "system".to_owned(),
    };
    let services = args.service_file.clone().or_else(|| std::env::var_os("PGSERVICEFILE").map(PathBuf::from));
    let services = services.map_or_else(|| home().map(|home| home.join(".pg_service.conf")), Ok)?;
    let before = std::fs::read_to_string(&services).unwrap_or_default();
    write_private(&services, &with_services(&before, &place, &name, &dir, &root))?;
    if args.json {
        print_json(
            &json!({ "name": name, "expires": expires, "services": place.stores, "service_file": services, "dir": dir }),
        );
    } else {
        println!("You are {name} until {expires}.");
        println!(
            "Services for psql: {}. Try: psql service={}",
            place.stores.join(", "),
            place.stores.first().map_or("", String::as_str)
        );
    }
    Ok(())
}

/// By a browser, here or elsewhere; quietly, by the refresh token of the last time.
fn log_in(args: &LoginArgs, native: &Native, refresh: Option<&str>) -> Result<Tokens, Failure> {
    let told = |e: ringfence_console::native::Problem| Failure::refused(e.to_string());
    if args.quiet {
        let nothing = || Failure::refused("there is nothing to renew").hint("Log in once without --quiet.");
        return native.again(refresh.ok_or_else(nothing)?).map_err(told);
    }
    let say = |text: String| eprintln!("{text}");
    if args.device {
        native
            .by_device(|place, code| {
                say(format!("Open {place} in any browser, and type or compare the code {code}"));
            })
            .map_err(told)
    } else {
        native
            .by_browser(|url| {
                say(format!("Log in in your browser. If none opens, go to:\n{url}"));
                let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
                // Where there is no browser, the address on the terminal will do.
                let _ = Command::new(opener)
                    .arg(url)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn();
            })
            .map_err(told)
    }
}

/// Calls the console's API.
fn call(
    agent: &ureq::Agent,
    console: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Result<Value, Failure> {
    let url = format!("{console}/api/v1/{path}");
    let unreachable = |e: ureq::Error| Failure::setup(format!("cannot reach {console}: {e}"));
    let sent = match body {
        None => agent.get(&url).config().http_status_as_error(false).build().call(),
        Some(body) => {
            let request = agent.post(&url).header("Content-Type", "application/json");
            let request = match token {
                Some(token) => request.header("Authorization", format!("Bearer {token}")),
                None => request,
            };
            request.config().http_status_as_error(false).build().send(body.to_string())
        }
    };
    let mut answer = sent.map_err(unreachable)?;
    let text = answer.body_mut().with_config().limit(LONGEST).read_to_string().map_err(unreachable)?;
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    if answer.status().is_success() {
        return Ok(value);
    }
    let detail = value["detail"].as_str().unwrap_or("the console does not say why");
    Err(Failure::refused(format!("{detail} ({})", answer.status())))
}

const BEGIN: &str = "# ringfence login: from here";
const END: &str = "# ringfence login: to here";

/// A service file with our services in the place of those of the last login; everything else stays as it is.
fn with_services(before: &str, place: &Place, name: &str, dir: &Path, root: &str) -> String {
    let mut out = match (before.find(BEGIN), before.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{}", &before[..begin], before[end + END.len()..].trim_start_matches('\n'))
        }
        _ => before.to_owned(),
    };
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    out.push_str(BEGIN);
    out.push('\n');
    for store in &place.stores {
        let mode = "verify-full";
        let (host, port, dir) = (&place.host, place.port, dir.display());
        let _ = write!(
            out,
            "[{store}]\nhost={host}\nport={port}\ndbname={store}\nuser={name}\nsslmode={mode}\nsslrootcert={root}\nsslcert={dir}/postgresql.crt\nsslkey={dir}/postgresql.key\n"
        );
    }
    out.push_str(END);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_who_it_was_and_speaks_in_the_open_only_here() {
        for safe in
            ["https://console.example", "http://localhost:8080", "http://127.0.0.1:1", "http://[::1]:80"]
        {
            assert!(is_safe(safe), "{safe}");
        }
        for open in [
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://console.example",
            "ftp://localhost",
            "localhost",
            "",
        ] {
            assert!(!is_safe(open), "{open}");
        }
        let place = |issuer: &str, store: &str| Place {
            issuer: issuer.to_owned(),
            client_id: "cli".to_owned(),
            host: "db.example".to_owned(),
            port: 1,
            root: None,
            stores: vec![store.to_owned()],
        };
        let kept = Kept {
            console: "https://c".to_owned(),
            issuer: "https://i".to_owned(),
            client_id: "cli".to_owned(),
            refresh: None,
        };
        let fits = |console: &str, issuer: &str| {
            kept.must_fit(console, &place(issuer, "us"), Path::new("f")).is_ok()
        };
        assert!(
            fits("https://c", "https://i")
                && fits("https://other", "https://x")
                && !fits("https://c", "https://x")
        );
        assert!(must_be_plain(&place("https://i", "us-1")).is_ok());
        assert!(must_be_plain(&place("https://i", "us]\nhost=evil\n[x")).is_err());
    }

    #[test]
    fn a_service_file_keeps_what_is_not_ours() {
        let place = Place {
            issuer: String::new(),
            client_id: String::new(),
            host: "db.example".to_owned(),
            port: 6432,
            root: None,
            stores: vec!["us".to_owned(), "legacy".to_owned()],
        };
        let dir = Path::new("/home/ann/.ringfence");
        let once = with_services("[mine]\nhost=h", &place, "ann", dir, "system");
        assert!(
            once.starts_with("[mine]\nhost=h\n# ringfence")
                && once.contains("[us]\nhost=db.example\nport=6432\ndbname=us\nuser=ann\n")
        );
        let later = format!("{once}[after]\nhost=x\n");
        let twice = with_services(&later, &place, "bob", dir, "system");
        assert_eq!(twice.matches("[us]").count(), 1);
        assert!(
            twice.contains("user=bob")
                && !twice.contains("user=ann")
                && twice.contains("[after]\nhost=x\n")
                && twice.contains("[mine]")
        );
    }
}
