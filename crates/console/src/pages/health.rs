//! How the gateway is, for whoever runs it: what is closed and why, stores, pools, witnesses. Nobody's name and nobody's data.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use maud::{Markup, html};
use ringfence_gateway::pool::StorePools;

use super::words::{bytes, number};
use super::{At, Page, Person, Told, page};
use crate::Desk;

/// How long a store may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a store is.
struct StoreHealth {
    name: String,
    answers: Result<Duration, String>,
    pools: StorePools,
}

async fn stores(desk: &Desk) -> Vec<StoreHealth> {
    let pools = desk.gateway.pool.by_store();
    let mut names: Vec<&String> = desk.gateway.stores.keys().collect();
    names.sort();
    let ask = |name: &String| {
        let (name, behind) = (name.clone(), desk.gateway.stores.get(name));
        let pools = pools.get(&name).copied().unwrap_or_default();
        async move {
            let answers = match tokio::time::timeout(PATIENCE, behind?.steward.ping()).await {
                Ok(Ok(took)) => Ok(took),
                Ok(Err(problem)) => Err(problem.to_string()),
                Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
            };
            Some(StoreHealth { name, answers, pools })
        }
    };
    // All at once: the slowest says how long it takes.
    futures_util::future::join_all(names.into_iter().map(ask)).await.into_iter().flatten().collect()
}

/// `GET /health`
pub(crate) async fn show(State(desk): At, person: Person) -> Result<Page, Told> {
    if !person.is_operator {
        return Err(Told::new(
            StatusCode::FORBIDDEN,
            "How the gateway is, is for those who run it or a store behind it.",
        ));
    }
    let stores = stores(&desk).await;
    let late = |_| format!("no answer in {} s", PATIENCE.as_secs());
    let control = tokio::time::timeout(PATIENCE, desk.gateway.control.ping()).await.map_err(late);
    let control = control.and_then(|answer| answer.map_err(|e| e.to_string())).err();
    let ledger = desk.gateway.ledger.healthy().err().map(|e| e.to_string());
    let (counted, problem) = desk.traffic.progress();
    let body = html! {
        h1 { "Health" }
        section aria-labelledby="closed" {
            h2 id="closed" { "What is open, and what is closed and why" }
            table { tbody {
                (line("Ledger", ledger.as_deref(), &format!("written; {} entries", number(desk.gateway.ledger.size())), "statements that must be on record are refused until it can be written"))
                (line("Control database", control.as_deref(), "answers", "nothing can be asked for or approved; grants in force go on"))
                tr { th scope="row" { "Border" } td { (super::border::state(&desk)) } }
                (line("Figures of the border", problem.as_deref(), &format!("{} entries counted for the pages", number(counted)), "the border's page stays behind"))
            } }
        }
        section aria-labelledby="stores" {
            h2 id="stores" { "Stores" }
            div.scroll tabindex="0" role="region" aria-label="Stores and their pools" { table {
                thead { tr { th scope="col" { "Store" } th scope="col" { "Answers" } th.n scope="col" { "In use" } th.n scope="col" { "Waiting" } th.n scope="col" { "Idle" } th.n scope="col" { "Longest wait" } th.n scope="col" { "Statements" } th.n scope="col" { "Sent" } } }
                tbody { @for store in &stores {
                    @let traffic = desk.gateway.stores.get(&store.name).map(|b| *b.traffic.lock().unwrap_or_else(std::sync::PoisonError::into_inner)).unwrap_or_default();
                    tr {
                        th scope="row" { (store.name) }
                        td { @match &store.answers { Ok(took) => { "in " (took.as_micros() / 1000) "." (took.as_micros() % 1000 / 100) " ms" } Err(problem) => span.warn { (problem) } } }
                        td.n { (store.pools.taken) } td.n { (store.pools.queued) } td.n { (store.pools.idle) } td.n { (store.pools.longest.as_millis()) " ms" }
                        td.n { (number(traffic.statements)) } td.n { (bytes(traffic.sent)) }
                    }
                } }
            } }
        }
        (super::ledger::witnesses(&desk))
        section aria-labelledby="sessions" {
            h2 id="sessions" { "Sessions" }
            p { (number(desk.gateway.grants.sessions() as u64)) " now, of " (number(desk.gateway.config.max_clients as u64)) " clients at most." }
            p.soft { "Version " (env!("CARGO_PKG_VERSION")) ", rules " code { (desk.gateway.policy().digest().get(..16).unwrap_or_default()) } }
        }
    };
    Ok(page("Health", Some(&person), &body))
}

fn line(what: &str, problem: Option<&str>, good: &str, meanwhile: &str) -> Markup {
    html! {
        tr {
            th scope="row" { (what) }
            td { @match problem {
                None => p { span.state data-state="granted" { "good" } " " (good) },
                Some(problem) => p.warn { span.state data-state="denied" { "trouble" } " " (problem) ": " (meanwhile) },
            } }
        }
    }
}
