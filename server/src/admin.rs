//! The admin plane: a small HTTP server on a thread of its own. It reads what shards publish and never asks them
//! anything.

use std::convert::Infallible;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::counters::{self, Board};

/// Values that go up and down; all others count from the start of the process.
const GAUGES: [&str; 2] = ["backlog_bytes", "connections"];
/// The text format of OpenMetrics, which Prometheus reads.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain";
/// Connections at a time; further ones wait.
const CONNECTIONS_MAX: usize = 64;
/// How long one may take for its request and the response.
const CONNECTION_MAX: Duration = Duration::from_secs(5);
/// How long nothing is accepted after that failed: for want of descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An HTTP server that is bound and answers once [`Admin::start`] was called.
pub struct Admin {
    listener: TcpListener,
    runtime: Runtime,
    pages: Arc<Pages>,
}

/// What it shows.
struct Pages {
    board: Board,
    started: Instant,
}

impl Admin {
    /// Listens on `address`.
    ///
    /// # Errors
    /// What the system says about it.
    pub fn bind(address: SocketAddr, board: Board, started: Instant) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            runtime: Builder::new_current_thread().enable_all().build()?,
            pages: Arc::new(Pages { board, started }),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Answers on a thread of its own, as long as the process lives.
    ///
    /// # Errors
    /// The thread cannot be started, or does not get its listener.
    pub fn start(self) -> std::io::Result<()> {
        let listener = {
            let _inside = self.runtime.enter();
            tokio::net::TcpListener::from_std(self.listener)?
        };
        let (runtime, pages) = (self.runtime, self.pages);
        std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || runtime.block_on(accept(listener, pages)))?;
        Ok(())
    }
}

async fn accept(listener: tokio::net::TcpListener, pages: Arc<Pages>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, Arc::clone(&pages), place));
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One request and its response. Bodies are not read: what asks for anything here has none.
async fn converse(stream: TcpStream, pages: Arc<Pages>, _place: OwnedSemaphorePermit) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = pages.answer(request.method(), request.uri().path());
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    // The client may be gone, or too slow.
    let _ = timeout(CONNECTION_MAX, connection).await;
}

impl Pages {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, kind, body) = match path {
            _ if !matches!(*method, Method::GET | Method::HEAD) => (
                StatusCode::METHOD_NOT_ALLOWED,
                PLAIN,
                "GET only\n".to_owned(),
            ),
            "/metrics" => match self.metrics() {
                Ok(text) => (StatusCode::OK, OPEN_METRICS, text),
                Err(error) => {
                    let status = StatusCode::INTERNAL_SERVER_ERROR;
                    (status, PLAIN, format!("{error}\n"))
                }
            },
            "/status" => (
                StatusCode::OK,
                "application/json",
                format!("{}\n", self.status()),
            ),
            "/health" if self.board.shards().is_empty() => (
                StatusCode::SERVICE_UNAVAILABLE,
                PLAIN,
                "starting\n".to_owned(),
            ),
            "/health" => (StatusCode::OK, PLAIN, "ok\n".to_owned()),
            _ => {
                let pages = "there are /metrics, /status and /health\n";
                (StatusCode::NOT_FOUND, PLAIN, pages.to_owned())
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }

    fn status(&self) -> Value {
        let mut status = counters::snapshot(self.board.shards());
        status["version"] = env!("CARGO_PKG_VERSION").into();
        status["uptime_s"] = self.started.elapsed().as_secs().into();
        status["ready"] = (!self.board.shards().is_empty()).into();
        status
    }

    fn metrics(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Metrics(counters::snapshot(self.board.shards()))));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// A snapshot of the counters, as metrics with a label for the shard.
#[derive(Debug)]
struct Metrics(Value);

impl Metrics {
    fn shards(&self) -> &[Value] {
        self.0["shards"].as_array().map_or(&[], Vec::as_slice)
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let cpu = ConstCounter::new(self.0["cpu_s"].as_f64().unwrap_or_default());
        let help = "CPU time of the process, seconds";
        let metric =
            encoder.encode_descriptor("ringlog_cpu_seconds", help, None, MetricType::Counter)?;
        cpu.encode(metric)?;
        let names = self.shards().first().and_then(Value::as_object);
        for name in names.into_iter().flat_map(|fields| fields.keys()) {
            if name == "shard" {
                continue;
            }
            let gauge = GAUGES.contains(&name.as_str());
            let (kind, since) = if gauge {
                (MetricType::Gauge, "now")
            } else {
                (MetricType::Counter, "since the start")
            };
            let full = format!("ringlog_{name}");
            let help = format!("{} {since}, by shard", name.replace('_', " "));
            let mut metric = encoder.encode_descriptor(&full, &help, None, kind)?;
            for (shard, fields) in self.shards().iter().enumerate() {
                let labels = [("shard", shard.to_string())];
                let encoder = metric.encode_family(&labels)?;
                let value = fields[name].as_u64().unwrap_or_default();
                if gauge {
                    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)?;
                } else {
                    ConstCounter::new(value).encode(encoder)?;
                }
            }
        }
        Ok(())
    }
}
