//! Who lives in the demo, and the files that say so.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ringfence_grants::approval;

use crate::command::{Failure, write_secret};

const PASSWORD: &str = "demo";
const SECURITY: &str = "employer = \"clips-us\"\nteams = [\"us-security\"]";
/// Who has a key, and what the registry says of them.
const SIGNERS: [(&str, &str); 4] = [
    ("us-approver-1", SECURITY),
    ("us-approver-2", SECURITY),
    ("us-approver-3", SECURITY),
    ("us-regulator", "teams = [\"us-regulators\"]"),
];

const CATALOGUE: &str = include_str!("catalogue.toml");

const REGISTRY: &str = r#"# Who connects, for whom they work, where they are. `ringfence demo` wrote this file.
approvals = 2

[jurisdictions.us]
countries = ["US"]
regulators = ["us-regulators"]

# The ownership graph. clips-technology is organised in a country of concern (28 CFR 202.601), so covered; clips-holding has
# too little of it; clips-singapore works for the holding.
[[companies]]
name = "clips-technology"
law = "CN"

[[companies]]
name = "clips-holding"
law = "KY"
owners = [{ owner = "clips-technology", percent = 20.0 }, { owner = "clips-us", percent = 30.0 }]

[[companies]]
name = "clips-singapore"
law = "SG"
owners = [{ owner = "clips-holding", percent = 100.0 }]

[[companies]]
name = "clips-us"
law = "US"

"#;

/// The ready message: who can connect, and what to try.
pub(super) fn invitation(dir: &Path, port: u16) -> String {
    let config = dir.join("ringfence.toml");
    let config = config.display();
    let keys = dir.join("keys");
    let keys = keys.display();
    // As it was called: what is printed can be pasted.
    let program =
        std::env::args().next().filter(|p| p.contains('/')).unwrap_or_else(|| "ringfence".to_owned());
    let psql = |user: &str, database: &str| {
        format!("psql \"host=127.0.0.1 port={port} user={user} dbname={database}\"")
    };
    format!(
        r#"
  Who (password {PASSWORD})     from   sees of us
  us-engineer          US     everything; every statement is in the ledger
  feed-service         US     everything; a workload, counted by shape and minute
  singapore-analyst    SG     protected columns masked, no messages
  beijing-engineer     CN     public columns only: employed by a covered entity
  us-approver-1, -2, -3  US   sign requests; masked like anybody without full access
  auditor              US     the ledger, no data
  us-regulator         US     nothing; closes the border: {program} suspend us --as us-regulator --key {keys}/us-regulator --reason WHY

  export PGPASSWORD={PASSWORD} RINGFENCE_CONFIG={config}
  {singapore} -c "select id, email, phone, full_name from users where id = 4711"
  {engineer} -c "select id, email, phone, full_name from users where id = 4711"
  {beijing} -c "select email from users limit 1"

  Ask, sign, look:
  {program} request --as singapore-analyst --store us --columns users.email,users.phone --where "country = 'US' and id = 4711" --purpose "ticket 981: refund" --for 2h --max-rows 100
  {program} approve ID --as us-approver-1 --key {keys}/us-approver-1
  {program} approve ID --as us-approver-2 --key {keys}/us-approver-2
  {singapore} -c "select id, email, phone from users"
  {program} revoke ID --as us-approver-3

  Verify:
  {program} ledger verify
  {program} ledger show --grep singapore-analyst

  The legacy store, for in-country operators: {legacy}
  Ctrl-C stops everything.
"#,
        singapore = psql("singapore-analyst", "us"),
        engineer = psql("us-engineer", "us"),
        beijing = psql("beijing-engineer", "us"),
        legacy = psql("us-engineer", "legacy"),
    )
}

/// Writes registry, catalogue, keys and the TLS certificate, where they are not there yet.
pub(super) fn write_files(dir: &Path, verifier: &dyn Fn(&str) -> String) -> Result<(), Failure> {
    let keys = dir.join("keys");
    std::fs::create_dir_all(&keys)?;
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    if !dir.join("registry.toml").exists() {
        let mut registry = REGISTRY.to_owned();
        let mut person = |lines: &str| {
            let _ = writeln!(registry, "[[people]]\n{lines}\npassword = \"{}\"\n", verifier(PASSWORD));
        };
        person(
            "name = \"us-engineer\"\nlocation = \"US\"\ndomestic = true\nemployer = \"clips-us\"\nteams = [\"us-data\"]",
        );
        for (name, about) in SIGNERS {
            let (private, public) =
                approval::generate_key(name).map_err(|e| Failure::setup(e.to_string()))?;
            let file = keys.join(name);
            let _ = std::fs::remove_file(&file);
            write_secret(&file, private.trim_end())?;
            std::fs::write(keys.join(format!("{name}.pub")), format!("{public}\n"))?;
            person(&format!(
                "name = \"{name}\"\nlocation = \"US\"\ndomestic = true\n{about}\nkey = \"{public}\""
            ));
        }
        person(
            "name = \"singapore-analyst\"\nlocation = \"SG\"\nemployer = \"clips-singapore\"\nteams = [\"growth\"]",
        );
        person(
            "name = \"beijing-engineer\"\nlocation = \"CN\"\nemployer = \"clips-technology\"\nteams = [\"recommendation\"]",
        );
        person("name = \"auditor\"\nlocation = \"US\"\ndomestic = true\nteams = [\"audit\"]");
        person(
            "name = \"feed-service\"\nkind = \"workload\"\nlocation = \"US\"\ndomestic = true\nemployer = \"clips-us\"\nteams = [\"us-data\"]",
        );
        std::fs::write(dir.join("registry.toml"), registry)?;
    }
    if !dir.join("catalogue.toml").exists() {
        std::fs::write(dir.join("catalogue.toml"), CATALOGUE)?;
    }
    if !keys.join("tls.key").exists() {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).map_err(|e| Failure::setup(e.to_string()))?;
        write_secret(&keys.join("tls.key"), made.signing_key.serialize_pem().trim_end())?;
        std::fs::write(keys.join("tls.crt"), made.cert.pem())?;
    }
    Ok(())
}

/// Writes `ringfence.toml`.
pub(super) fn write_config(
    dir: &Path,
    port: u16,
    sockets: impl Iterator<Item = (&'static str, PathBuf)>,
) -> Result<(), Failure> {
    let sockets: std::collections::HashMap<_, _> = sockets.collect();
    let socket = |name: &str| sockets.get(name).map(|p| p.display().to_string()).unwrap_or_default();
    let store = |name: &str, site: &str, kind: &str, location: &str| {
        format!(
            r#"
[[stores]]
name = "{name}"
jurisdiction = "us"
location = "{location}"
kind = "{kind}"
url = "host='{socket}' user=ringfence dbname={name}"
password_file = "keys/{site}.steward"
catalogue = "catalogue.toml"
full_access_role = "clips_app"
full_access = ["us-data"]
approvers = ["us-security"]
auditors = ["audit"]
allowed_roles = ["ringfence_move", "ringfence_flow"]
"#,
            socket = socket(site)
        )
    };
    let text = format!(
        r#"# Written by `ringfence demo` at each start.
[gateway]
listen = ["127.0.0.1:{port}"]
secret = "keys/gateway.secret"
drain = 2

[gateway.tls]
certificate = "keys/tls.crt"
key = "keys/tls.key"

[control]
url = "host='{control}' user=ringfence_control dbname=control"
password_file = "keys/control.password"

[ledger]
dir = "ledger"
key = "keys/ledger.key"
vkey = "keys/ledger.vkey"
witnesses = "witnesses.policy"

[policy]
registry = "registry.toml"
{us}{legacy}{home}
# Where to look for copies of U.S. users' data: `ringfence copies scan`.
[copies]
jurisdiction = "us"
folders = [
    {{ path = "backups/virginia", location = "US", owner = "platform" }},
    {{ path = "backups/singapore", location = "SG", owner = "platform" }},
]

[[copies.clusters]]
store = "legacy"
url = "host='{here}' user=postgres dbname=legacy"
data_dir = "sg-legacy"

[[copies.clusters]]
store = "us"
url = "host='{there}' user=postgres dbname=us"
data_dir = "us-trusted"

# Backups with a key each: the keys are here, wrapped for whoever holds keys/backup.identity.
[backups]
keys = "keys/copies"
recipients = "keys/backup.recipients"

# What everybody may see of U.S. users goes on to the rest of the world, once the U.S. security team has signed it.
[[flows]]
name = "world"
from = "home"
to = "world"
location = "SG"
contract = "interoperability of the global feed, contract 17"
tables = ["users", "profiles", "videos", "follows"]

[flows.source]
url = "host='{there}' user=postgres dbname=home"
replication = "host='{there}' port=5432 user=ringfence_flow dbname=home"
replication_password_file = "keys/flow.password"

[flows.target]
url = "host='{world}' user=postgres dbname=world"
replication = "host='{world}' port=5432 user=ringfence_flow dbname=world"
replication_password_file = "keys/flow.password"

# The platform's workloads ask for `clips`, which leads to where the U.S. users' rows are at home.
[[routes]]
name = "clips"
store = "legacy"
movers = ["us-data"]

[[moves]]
name = "us_home"
jurisdiction = "us"
from = "legacy"
to = "home"
route = "clips"

[moves.source]
url = "host='{here}' user=postgres dbname=legacy"
replication = "host='{here}' port=5432 user=ringfence_move dbname=legacy"
replication_password_file = "keys/move.password"

[moves.target]
url = "host='{there}' user=postgres dbname=home"
replication = "host='{there}' port=5432 user=ringfence_move dbname=home"
replication_password_file = "keys/move.password"
"#,
        world = format!("{}", socket("sg-legacy")),
        control = socket("control"),
        us = store("us", "us-trusted", "trusted", "US"),
        legacy = store("legacy", "sg-legacy", "legacy", "SG"),
        home = store("home", "us-trusted", "trusted", "US"),
        here = socket("sg-legacy"),
        there = socket("us-trusted"),
    );
    for site in ["virginia", "singapore"] {
        std::fs::create_dir_all(dir.join("backups").join(site))?;
    }
    std::fs::write(dir.join("ringfence.toml"), text)?;
    Ok(())
}
