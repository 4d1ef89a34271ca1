//! From a command's options to the run that it asks for.

use super::*;

/// A run that the command line asks for.
#[derive(Debug)]
pub struct Request {
    /// What to run.
    pub options: RunOptions,
    /// Whether to print JSON.
    pub json: bool,
    /// Whether errors leave the exit status alone.
    pub tolerate_errors: bool,
}

impl Command {
    /// The run this command asks for, or `None` for one that is no run; the error is a usage message.
    ///
    /// # Errors
    /// If options contradict each other.
    pub fn request(&self) -> Result<Option<Request>, String> {
        let request = match self {
            Self::Produce(command) => command.request()?,
            Self::Consume(command) => command.request()?,
            Self::E2e(command) => command.request()?,
            Self::Mixed(command) => command.request()?,
            Self::Commits(_)
            | Self::CheckCommits(_)
            | Self::Sweep(_)
            | Self::Check(_)
            | Self::Claims(_)
            | Self::Store(_)
            | Self::NullSink(_) => {
                return Ok(None);
            }
        };
        Ok(Some(request))
    }
}

impl Common {
    pub(super) fn request(
        &self,
        command: &str,
        produce: Option<(ProduceOptions, &Produce)>,
        consume: Option<ConsumeOptions>,
    ) -> Request {
        let arguments = produce.as_ref().map(|(_, arguments)| *arguments);
        let ack_log = arguments.and_then(|arguments| arguments.ack_log.clone());
        let idle_connections = arguments.map_or(0, |arguments| arguments.idle_connections);
        Request {
            options: RunOptions {
                command: command.to_owned(),
                topic: TopicSpec {
                    bootstrap: self.brokers.bootstrap.clone(),
                    topic: self.topic.clone(),
                    topics: self.topics,
                    partitions: self.partitions,
                    replication_factor: self.replication_factor,
                    configs: self.topic_config.clone(),
                },
                produce: produce.map(|(options, _)| options),
                consume,
                warmup: Duration::from_secs_f64(self.warmup),
                duration: Duration::from_secs_f64(self.duration),
                server_pids: self.server_pid.clone(),
                cpus: self.cpus.clone().map(|list| list.0).unwrap_or_default(),
                ack_log,
                hist_out: self.hist_out.clone(),
                run_id: self.run_id,
                progress: !self.json,
                delete_topics: self.delete_topics,
                idle_connections,
            },
            json: self.json,
            tolerate_errors: self.tolerate_errors,
        }
    }
}

impl Produce {
    pub(super) fn options(
        &self,
        stamped: bool,
        default_batch: BatchSize,
    ) -> Result<ProduceOptions, String> {
        let stamped = stamped || self.ack_log.is_some();
        if stamped && self.file.is_empty() && self.record_size < STAMP_LEN {
            return Err(format!(
                "checked records need a --record-size of at least {STAMP_LEN}"
            ));
        }
        if self.connections == 0 || self.in_flight == 0 || self.threads == 0 {
            return Err("--connections, --in-flight and --threads are at least 1".into());
        }
        if self.transactional && !matches!(self.acks, AcksName::All) {
            return Err("transactions need --acks all".into());
        }
        if (self.idempotent || self.transactional) && self.in_flight > 5 {
            return Err("an idempotent producer has at most 5 requests in flight".into());
        }
        if self.ack_log.is_some() && matches!(self.acks, AcksName::None) {
            return Err("--ack-log needs acks: --acks 1 or all".into());
        }
        if self
            .rate
            .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
        {
            return Err("--rate is above 0".into());
        }
        let batch = match (self.batch_bytes, self.batch_records) {
            (Some(bytes), _) => BatchSize::Bytes(bytes),
            (None, Some(records)) => BatchSize::Records(records),
            (None, None) => default_batch,
        };
        let batch = match (batch, self.transactional) {
            // A batch never goes beyond its transaction; one of a size in bytes holds as many records as that has room for.
            (BatchSize::Records(records), true) if records as u64 > self.transaction_records => {
                return Err("a batch has more records than --transaction-records".into());
            }
            (BatchSize::Bytes(bytes), true) if self.file.is_empty() => {
                let fit = bytes / (self.record_size + RECORD_OVERHEAD);
                BatchSize::Records(fit.clamp(1, self.transaction_records as usize))
            }
            (batch, _) => batch,
        };
        Ok(ProduceOptions {
            connections: self.connections,
            in_flight: self.in_flight,
            acks: match self.acks {
                AcksName::None => Acks::None,
                AcksName::Leader => Acks::Leader,
                AcksName::All => Acks::All,
            },
            timeout_ms: self.ack_timeout_ms,
            rate: self.rate,
            partitions_per_request: self.partitions_per_request.max(1),
            idempotent: self.idempotent || self.transactional,
            transactions: self.transactional.then(|| TransactionOptions {
                records: self.transaction_records,
                id: self.transactional_id.clone(),
                timeout_ms: self.transaction_timeout_ms,
                generation: match self.transaction_generation {
                    GenerationName::Auto => None,
                    GenerationName::First => Some(Generation::First),
                    GenerationName::Second => Some(Generation::Second),
                },
            }),
            codec: self.compression.compression(),
            payload: PayloadSpec {
                record_size: self.record_size,
                files: self.file.clone(),
                compressibility: self.compressibility,
                seed: self.seed,
                keys: self.keys,
                batch,
                stamped,
            },
            threads: self.threads,
            spin_us: self.spin_us,
        })
    }
}

impl Consume {
    pub(super) fn options(
        &self,
        connections: usize,
        threads: usize,
        from: FromName,
    ) -> ConsumeOptions {
        ConsumeOptions {
            connections: connections.max(1),
            threads: threads.max(1),
            from: match from {
                FromName::Earliest => From::Earliest,
                FromName::Latest => From::Latest,
            },
            until: Until::Time,
            max_wait_ms: self.max_wait_ms,
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            partition_max_bytes: self.partition_max_bytes,
            read_committed: self.read_committed,
            check_crc: self.check_crc,
            verify: false,
            end_to_end: false,
            run_id: None,
        }
    }
}

/// About what a record takes besides its value.
const RECORD_OVERHEAD: usize = 10;
const BATCH_DEFAULT: BatchSize = BatchSize::Bytes(16_384);

impl ProduceCommand {
    pub(super) fn request(&self) -> Result<Request, String> {
        let options = self.produce.options(self.verify, BATCH_DEFAULT)?;
        Ok(self
            .common
            .request("produce", Some((options, &self.produce)), None))
    }
}

impl ConsumeCommand {
    pub(super) fn request(&self) -> Result<Request, String> {
        let mut options = self
            .consume
            .options(self.connections, self.threads, self.from);
        options.verify = self.verify;
        options.end_to_end = self.latency;
        options.run_id = self.common.run_id;
        options.until = match self.until {
            UntilName::Time => Until::Time,
            UntilName::End => Until::End,
            UntilName::Repeat if self.verify => {
                return Err("--until repeat reads every record again: not with --verify".into());
            }
            UntilName::Repeat => Until::Repeat,
        };
        let mut request = self.common.request("consume", None, Some(options));
        if matches!(self.until, UntilName::End) {
            request.options.warmup = Duration::ZERO;
        }
        Ok(request)
    }
}

impl EndToEndCommand {
    pub(super) fn request(&self) -> Result<Request, String> {
        let mut produce = self.produce.options(true, BatchSize::Records(1))?;
        produce.rate = Some(produce.rate.unwrap_or(1000.0));
        let mut consume = self.consume.options(
            self.produce.connections,
            self.produce.threads,
            FromName::Latest,
        );
        consume.end_to_end = true;
        consume.verify = true;
        consume.read_committed |= self.produce.transactional;
        consume.until = Until::CaughtUp;
        Ok(self
            .common
            .request("e2e", Some((produce, &self.produce)), Some(consume)))
    }
}

impl MixedCommand {
    pub(super) fn request(&self) -> Result<Request, String> {
        let produce = self.produce.options(self.verify, BATCH_DEFAULT)?;
        let mut consume = self
            .consume
            .options(self.consumers, self.consumer_threads, self.from);
        consume.verify = self.verify;
        consume.end_to_end = produce.payload.stamped;
        consume.read_committed |= self.produce.transactional;
        consume.until = if self.verify {
            Until::CaughtUp
        } else {
            Until::Time
        };
        Ok(self
            .common
            .request("mixed", Some((produce, &self.produce)), Some(consume)))
    }
}
