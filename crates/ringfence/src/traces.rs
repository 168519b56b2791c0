//! `[traces]` of `ringfence.toml`: spans to a collector by OTLP over HTTP.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use ringfence_gateway::traces::Traces;
use serde::Deserialize;

use crate::config::Reader;

/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TracesFile {
    /// Where the collector takes them: `http://127.0.0.1:4318/v1/traces`.
    endpoint: String,
    /// Of how many statements and pages that nobody traces already, from 0 to 1.
    #[serde(default = "share")]
    share: f64,
    /// PEM certificates to trust there, for https.
    tls_root: Option<PathBuf>,
}

fn share() -> f64 {
    0.01
}

/// Where spans go, read.
pub(crate) struct Collector {
    endpoint: String,
    share: f64,
    agent: ureq::Agent,
}

impl TracesFile {
    /// Reads the files that it names.
    pub(crate) fn read(self, reader: &mut Reader<'_>) -> Option<Collector> {
        let roots = self.tls_root.as_ref().map(|p| reader.text(p).into_bytes()).unwrap_or_default();
        if !(0.0..=1.0).contains(&self.share) {
            reader.problems.push("traces.share: is a share, from 0 to 1".to_owned());
        }
        let is_secure = self.endpoint.starts_with("https:");
        if !is_secure && !self.endpoint.starts_with("http:") {
            reader.problems.push("traces.endpoint: is no URL of http or https".to_owned());
        }
        let agent = ringfence_ledger::objects::agent(PATIENCE, &roots, is_secure);
        let agent = reader.keep("traces", agent)?;
        Some(Collector { endpoint: self.endpoint, share: self.share, agent })
    }
}

impl Collector {
    /// Begins to send. Spans are sent together, by a thread of their own; what a collector does not take is lost, and nobody waits for it.
    pub(crate) fn open(self) -> Result<Arc<Traces>, String> {
        let (share, client) = (self.share, Http { agent: self.agent, is_away: AtomicBool::new(false) });
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(self.endpoint)
            .with_timeout(PATIENCE)
            .with_http_client(client)
            .build()
            .map_err(|e| e.to_string())?;
        let resource = Resource::builder_empty()
            .with_attribute(KeyValue::new("service.name", "ringfence"))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .with_sampler(Sampler::AlwaysOn)
            .build();
        let tracer = BoxedTracer::new(Box::new(provider.tracer("ringfence")));
        let last = move || {
            if let Err(problem) = provider.shutdown() {
                tracing::warn!(%problem, "the last spans were not delivered");
            }
        };
        Ok(Arc::new(Traces::new(tracer, share, Box::new(last))))
    }
}

#[derive(Debug)]
struct Http {
    agent: ureq::Agent,
    is_away: AtomicBool,
}

impl Http {
    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = answer.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}

#[async_trait::async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Blocking, in the thread that sends spans and does nothing else.
        let answer = self.send(request);
        let is_away = !answer.as_ref().is_ok_and(|answer| answer.status().is_success());
        if self.is_away.swap(is_away, Ordering::Relaxed) != is_away {
            if is_away {
                tracing::warn!("the collector takes no spans: they are lost until it does");
            } else {
                tracing::info!("the collector takes spans again");
            }
        }
        answer
    }
}
