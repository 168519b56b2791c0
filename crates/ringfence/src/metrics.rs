//! `[metrics]`: how the gateway is, for Prometheus (OpenMetrics 1.0). Numbers by store and witness; no person, no statement, no address of
//! anybody is in a label.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, Weak};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use ringfence_gateway::server::Shared;
use ringfence_ledger::witnessing;

type Labels = Vec<(&'static str, String)>;

/// The gateway as numbers. Weakly: whoever looks does not keep it alive.
struct Numbers(Weak<Shared>);

impl std::fmt::Debug for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Numbers")
    }
}

/// One metric with all its label sets.
fn write(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<Unit>),
    kind: MetricType,
    values: &[(Labels, f64)],
) -> std::fmt::Result {
    if values.is_empty() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
    let put = |value: f64, place: MetricEncoder<'_>| match kind {
        MetricType::Counter => ConstCounter::new(value).encode(place),
        _ => ConstGauge::new(value).encode(place),
    };
    match values {
        [(labels, value)] if labels.is_empty() => return put(*value, metric),
        _ => {}
    }
    for (labels, value) in values {
        put(*value, metric.encode_family(labels)?)?;
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has doubles only")]
fn float(n: u64) -> f64 {
    n as f64
}

fn truth(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(shared) = self.0.upgrade() else { return Ok(()) };
        let (gauge, counter) = (MetricType::Gauge, MetricType::Counter);
        let mut one = |what: (&str, &str, Option<Unit>), kind, values: &[(Labels, f64)]| {
            write(&mut encoder, what, kind, values)
        };
        let plain = |value: f64| vec![(Labels::new(), value)];
        let build = vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)];
        one(("ringfence_build_info", "The version that runs", None), gauge, &build)?;
        let live = shared.grants.list();
        let crossing = live.iter().filter(|live| live.who.is_cross_border).count();
        let sessions = [("true", crossing), ("false", live.len() - crossing)]
            .map(|(crosses, n)| (vec![("crosses_border", crosses.to_owned())], float(n as u64)));
        one(("ringfence_sessions", "Sessions at stores", None), gauge, &sessions)?;
        let clients = shared.clients.load(std::sync::atomic::Ordering::Relaxed);
        one(("ringfence_clients", "Connections of clients", None), gauge, &plain(float(clients as u64)))?;
        one(
            ("ringfence_clients_max", "The most that are let in", None),
            gauge,
            &plain(float(shared.config.max_clients as u64)),
        )?;
        one(
            ("ringfence_grants", "Grants in force", None),
            gauge,
            &plain(float(shared.grants.in_force() as u64)),
        )?;
        let mut names: Vec<&String> = shared.stores.keys().collect();
        names.sort();
        let traffic: Vec<_> = names
            .iter()
            .filter_map(|name| {
                let traffic =
                    *shared.stores.get(*name)?.traffic.lock().unwrap_or_else(PoisonError::into_inner);
                Some((vec![("store", (*name).clone())], traffic))
            })
            .collect();
        let of = |pick: fn(&ringfence_gateway::flow::Traffic) -> u64| -> Vec<(Labels, f64)> {
            traffic.iter().map(|(labels, traffic)| (labels.clone(), float(pick(traffic)))).collect()
        };
        one(("ringfence_statements", "Statements that ended", None), counter, &of(|t| t.statements))?;
        one(("ringfence_transactions", "Transactions that ended", None), counter, &of(|t| t.transactions))?;
        one(("ringfence_received", "From clients", Some(Unit::Bytes)), counter, &of(|t| t.received))?;
        one(("ringfence_sent", "To clients", Some(Unit::Bytes)), counter, &of(|t| t.sent))?;
        let pools = shared.pool.by_store();
        let connections: Vec<_> = pools
            .iter()
            .flat_map(|(store, pool)| {
                [("active", pool.taken), ("idle", pool.idle)].map(|(state, n)| {
                    (vec![("store", store.clone()), ("state", state.to_owned())], float(n as u64))
                })
            })
            .collect();
        one(("ringfence_pool_connections", "Connections to stores", None), gauge, &connections)?;
        let waiting: Vec<_> = pools
            .iter()
            .map(|(store, pool)| (vec![("store", store.clone())], float(pool.queued as u64)))
            .collect();
        one(("ringfence_pool_waiting", "Clients that wait for one", None), gauge, &waiting)?;
        let longest: Vec<_> = pools
            .iter()
            .map(|(store, pool)| (vec![("store", store.clone())], pool.longest.as_secs_f64()))
            .collect();
        one(
            ("ringfence_pool_longest_wait", "How long the first of them has waited", Some(Unit::Seconds)),
            gauge,
            &longest,
        )?;
        one(
            ("ringfence_ledger_entries", "Entries of the log", None),
            counter,
            &plain(float(shared.ledger.size())),
        )?;
        one(
            (
                "ringfence_ledger_writable",
                "Whether the log can be written; where not, governed statements are refused",
                None,
            ),
            gauge,
            &plain(truth(shared.ledger.healthy().is_ok())),
        )?;
        one(
            ("ringfence_border_open", "Whether data may cross the border now", None),
            gauge,
            &plain(truth(shared.border.is_open(&shared).is_ok())),
        )?;
        let policy = shared.policy();
        let orders = shared.suspensions.in_force();
        let is_suspended = |jurisdiction: &str| orders.iter().any(|o| o.jurisdiction == jurisdiction);
        let suspended: Vec<_> = policy
            .registry()
            .jurisdictions
            .keys()
            .map(|j| (vec![("jurisdiction", j.clone())], truth(is_suspended(j))))
            .collect();
        one(
            ("ringfence_suspended", "Whether a regulator has suspended access across the border", None),
            gauge,
            &suspended,
        )?;
        let age = match shared.ledger.witnessed() {
            witnessing::State::Confirmed(age) | witnessing::State::Overdue(Some(age)) => {
                plain(age.as_secs_f64())
            }
            witnessing::State::Overdue(None) => plain(f64::INFINITY),
            witnessing::State::NotAsked => Vec::new(),
        };
        one(
            (
                "ringfence_witnessed_age",
                "How long ago a quorum of witnesses confirmed the log",
                Some(Unit::Seconds),
            ),
            gauge,
            &age,
        )?;
        let witnesses = shared.ledger.witnesses();
        let each: Vec<_> = witnesses
            .iter()
            .map(|w| {
                (
                    vec![("witness", w.name.clone())],
                    w.last.map_or(f64::INFINITY, |at| at.elapsed().as_secs_f64()),
                )
            })
            .collect();
        one(
            ("ringfence_witness_age", "How long ago a witness confirmed the log", Some(Unit::Seconds)),
            gauge,
            &each,
        )
    }
}

async fn scrape(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
                .into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Answers scrapes until the program ends.
pub(crate) async fn serve(address: SocketAddr, shared: &Arc<Shared>) -> std::io::Result<()> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Numbers(Arc::downgrade(shared))));
    let listener = tokio::net::TcpListener::bind(address).await?;
    let app = axum::Router::new().route("/metrics", get(scrape)).with_state(Arc::new(registry));
    tokio::spawn(async move {
        if let Err(problem) = axum::serve(listener, app).await {
            tracing::error!(%problem, "metrics are not served any more");
        }
    });
    Ok(())
}
