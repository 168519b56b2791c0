//! `SHOW …` at the console, for operators, with the words that pooler users know (PgBouncer's admin console). A person sees
//! the stores at which their teams work, approve or audit.

use std::sync::PoisonError;

use ringfence_meter::tally::Recipient;
use ringfence_policy::{Principal, Store};

use crate::backend::Address;
use crate::frame::{put, put_str};
use crate::refusal::{Refusal, code};
use crate::route::RouteState;
use crate::server::Shared;

const KNOWN: &str = "SHOW POOLS, SHOW STATS, SHOW CLIENTS, SHOW DATABASES, SHOW METER, SHOW ROUTES, SHOW WITNESSES, SHOW VERSION, SHOW HELP";

/// The answer to a command.
pub struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Writes it as the result of a query.
    pub fn write(&self, out: &mut Vec<u8>) {
        let count = |n: usize| u16::try_from(n).unwrap_or(0).to_be_bytes();
        put(out, b'T', |out| {
            out.extend_from_slice(&count(self.columns.len()));
            for column in self.columns {
                put_str(out, column);
                out.extend_from_slice(&[0; 6]); // no table
                out.extend_from_slice(&25_u32.to_be_bytes()); // text
                out.extend_from_slice(&(-1_i16).to_be_bytes());
                out.extend_from_slice(&(-1_i32).to_be_bytes());
                out.extend_from_slice(&0_u16.to_be_bytes());
            }
        });
        for row in &self.rows {
            put(out, b'D', |out| {
                out.extend_from_slice(&count(row.len()));
                for value in row {
                    out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(0).to_be_bytes());
                    out.extend_from_slice(value.as_bytes());
                }
            });
        }
        put(out, b'C', |out| put_str(out, "SHOW"));
    }
}

/// Whether a person has to do with a store.
pub(crate) fn may_see(person: &Principal, store: &Store) -> bool {
    [&store.full_access, &store.approvers, &store.auditors]
        .iter()
        .any(|teams| !person.teams.is_disjoint(teams))
}

/// Answers `SHOW …`; `None` if `command` is something else.
pub fn answer(shared: &Shared, person: &Principal, command: &str) -> Option<Result<Table, Refusal>> {
    let mut words = command.trim_end_matches(';').split_ascii_whitespace();
    if !words.next()?.eq_ignore_ascii_case("show") {
        return None;
    }
    let what = words.next().unwrap_or("help").to_ascii_lowercase();
    let policy = shared.policy();
    let seen = |name: &str| policy.store(name).is_some_and(|(store, _)| may_see(person, store));
    let mut names: Vec<&String> = shared.stores.keys().filter(|name| seen(name)).collect();
    names.sort();
    let stores = names.into_iter().filter_map(|name| Some((name, shared.stores.get(name)?)));
    let table = match what.as_str() {
        "routes" => {
            let mut routes: Vec<_> =
                shared.routes.values().map(|route| (&route.name, route.state())).collect();
            routes.retain(|(_, state)| state.store.as_deref().is_none_or(seen));
            routes.sort_by_key(|(name, _)| (*name).clone());
            let row = |(name, state): (&String, RouteState)| {
                let held = if state.is_held { "held" } else { "open" };
                vec![name.clone(), state.store.unwrap_or_default(), held.to_owned(), state.inside.to_string()]
            };
            Table {
                columns: &["route", "store", "state", "in_transaction"],
                rows: routes.into_iter().map(row).collect(),
            }
        }
        "pools" => {
            let row = |group: crate::pool::GroupState| {
                let mode = shared.stores.get(&group.key.store).map(|behind| behind.pool.mode.name());
                vec![
                    group.key.store.clone(),
                    group.key.role.clone(),
                    group.taken.to_string(),
                    group.queued.to_string(),
                    group.idle.to_string(),
                    group.longest.as_secs().to_string(),
                    group.longest.subsec_micros().to_string(),
                    mode.unwrap_or_default().to_owned(),
                ]
            };
            Table {
                columns: &[
                    "database",
                    "user",
                    "sv_active",
                    "cl_waiting",
                    "sv_idle",
                    "maxwait",
                    "maxwait_us",
                    "pool_mode",
                ],
                rows: shared
                    .pool
                    .state()
                    .into_iter()
                    .filter(|group| seen(&group.key.store))
                    .map(row)
                    .collect(),
            }
        }
        "stats" => Table {
            columns: &["database", "total_xact_count", "total_query_count", "total_received", "total_sent"],
            rows: stores
                .map(|(name, behind)| {
                    let traffic = *behind.traffic.lock().unwrap_or_else(PoisonError::into_inner);
                    let numbers = [traffic.transactions, traffic.statements, traffic.received, traffic.sent];
                    std::iter::once(name.clone()).chain(numbers.map(|n| n.to_string())).collect()
                })
                .collect(),
        },
        "clients" => Table {
            columns: &["user", "database", "addr", "application_name", "access", "grants"],
            rows: shared
                .grants
                .list()
                .into_iter()
                .map(|live| live.who)
                .filter(|session| seen(&session.store))
                .map(|session| {
                    let access = if session.is_face { "face" } else { "full" };
                    vec![
                        session.principal,
                        session.store,
                        session.address,
                        session.application,
                        access.to_owned(),
                        session.grants.join(","),
                    ]
                })
                .collect(),
        },
        "databases" => Table {
            columns: &["name", "host", "port", "database", "pool_size", "pool_mode"],
            rows: stores
                .map(|(name, behind)| {
                    let (host, port) = match &behind.address {
                        Address::Tcp(host, port, _) => (host.clone(), port.to_string()),
                        Address::Unix(path) => (path.display().to_string(), String::new()),
                    };
                    let (size, mode) = (behind.pool.size.to_string(), behind.pool.mode.name().to_owned());
                    vec![name.clone(), host, port, behind.database.clone(), size, mode]
                })
                .collect(),
        },
        "meter" => {
            let of_seen = |jurisdiction: &str| {
                policy.stores().any(|(s, _)| s.jurisdiction == jurisdiction && seen(&s.name))
            };
            let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
            Table {
                columns: &[
                    "recipient",
                    "kind",
                    "jurisdiction",
                    "category",
                    "clear",
                    "any_form",
                    "at_most_more",
                    "threshold",
                ],
                rows: shared
                    .meter
                    .lines()
                    .into_iter()
                    .filter(|line| of_seen(&line.jurisdiction))
                    .map(|line| {
                        let (kind, name) = match line.recipient {
                            Recipient::Person(name) => ("person", name),
                            Recipient::Employer(name) => ("employer", name),
                        };
                        let numbers = [line.clear, line.any, line.any_unknown].map(|n| n.to_string());
                        [name, kind.to_owned(), line.jurisdiction, line.category]
                            .into_iter()
                            .chain(numbers)
                            .chain([number(line.more_than)])
                            .collect()
                    })
                    .collect(),
            }
        }
        "witnesses" => Table {
            columns: &["name", "url", "entries", "seconds_ago", "problem"],
            rows: shared
                .ledger
                .witnesses()
                .into_iter()
                .map(|witness| {
                    let ago = witness.last.map_or_else(String::new, |at| at.elapsed().as_secs().to_string());
                    let problem = witness.problem.unwrap_or_default();
                    vec![witness.name, witness.url, witness.size.to_string(), ago, problem]
                })
                .collect(),
        },
        "version" => Table {
            columns: &["version"],
            rows: vec![vec![format!("Ringfence {}", env!("CARGO_PKG_VERSION"))]],
        },
        "help" => Table {
            columns: &["command"],
            rows: KNOWN.split(", ").map(|command| vec![command.to_owned()]).collect(),
        },
        _ => {
            let refusal =
                Refusal::new(code::SYNTAX_ERROR, format!("there is no SHOW {}", what.to_uppercase()));
            return Some(Err(refusal.hint(format!("Known are: {KNOWN}"))));
        }
    };
    Some(Ok(table))
}
