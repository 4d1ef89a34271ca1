//! The admin plane: a small HTTP server on a thread of its own. It reads what shards publish and never asks them
//! anything.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tiny_http::{Header, Method, Request, Response, Server};

use crate::counters::{self, Board};

/// Values that go up and down; all others count from the start of the process.
const GAUGES: [&str; 2] = ["backlog_bytes", "connections"];
/// The text format of OpenMetrics, which Prometheus reads.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An HTTP server that is bound and answers once [`Admin::start`] was called.
pub struct Admin {
    http: Server,
    board: Board,
    started: Instant,
}

impl Admin {
    /// Listens on `address`.
    ///
    /// # Errors
    /// What the system says about it.
    pub fn bind(
        address: SocketAddr,
        board: Board,
        started: Instant,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self {
            http: Server::http(address)?,
            board,
            started,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.http.server_addr().to_ip()
    }

    /// Answers on a thread of its own, as long as the process lives.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(self) -> std::io::Result<()> {
        std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || {
                for request in self.http.incoming_requests() {
                    self.answer(request);
                }
            })?;
        Ok(())
    }

    fn answer(&self, request: Request) {
        let path = request.url().split('?').next().unwrap_or_default();
        let (status, kind, body) = if !matches!(request.method(), Method::Get | Method::Head) {
            (405, "text/plain", "GET only\n".to_owned())
        } else {
            match path {
                "/metrics" => match self.metrics() {
                    Ok(text) => (200, OPEN_METRICS, text),
                    Err(error) => (500, "text/plain", format!("{error}\n")),
                },
                "/status" => (200, "application/json", format!("{}\n", self.status())),
                "/health" if self.board.shards().is_empty() => {
                    (503, "text/plain", "starting\n".to_owned())
                }
                "/health" => (200, "text/plain", "ok\n".to_owned()),
                _ => (
                    404,
                    "text/plain",
                    "there are /metrics, /status and /health\n".to_owned(),
                ),
            }
        };
        let mut response = Response::from_string(body).with_status_code(status);
        if let Ok(header) = Header::from_bytes("Content-Type", kind) {
            response = response.with_header(header);
        }
        // The client may be gone.
        let _ = request.respond(response);
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
