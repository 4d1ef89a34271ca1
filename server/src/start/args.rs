//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use ringlog_engine::core::ColdReads;
use ringlog_engine::ring::PreflightOptions;
use ringlog_engine::store::journal_dir;

use super::StartError;
use crate::config::{Config, parse_properties};

const SIGNALS: &str = "\
SIGTERM and SIGINT end the server in order, a second one at once. SIGUSR1 writes one line of counters to standard error.";

/// A log-ingest broker on io_uring that speaks Kafka's protocol; acknowledged means fsynced.
#[derive(Debug, Clone, Parser)]
#[command(name = "ringlog-server", version, after_help = SIGNALS, args_override_self = true)]
pub struct Args {
    /// Data directory; created when absent.
    #[arg(long)]
    pub data: PathBuf,
    /// Port of the first shard; shard i listens on the port i above it. 0 lets the system choose.
    #[arg(long, default_value_t = 9092)]
    pub port: u16,
    /// Host name or address that clients are told.
    #[arg(long, default_value = "127.0.0.1")]
    pub advertise: String,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub listen: IpAddr,
    /// Address for administrators, as HOST:PORT: /metrics for Prometheus, /status as JSON, /health [default: none].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// Shards, each a broker with a thread, a ring, a journal and a port of its own [default: one per core].
    #[arg(long)]
    pub shards: Option<u32>,
    /// What carries a shard's I/O.
    #[arg(long, value_enum, default_value_t = DriverChoice::Ring)]
    pub driver: DriverChoice,
    /// When a batch counts as stored: after fdatasync, or (for comparison) after the write.
    #[arg(long, value_enum, default_value_t = DurabilityChoice::Fsync)]
    pub durability: DurabilityChoice,
    /// How segments are read for consumers.
    #[arg(long, value_enum, default_value_t = ReadPath::Auto)]
    pub read_path: ReadPath,
    /// Journal of each shard, in bytes.
    #[arg(long, default_value_t = 512 << 20)]
    pub journal_bytes: u64,
    /// Memory of each shard for log data, in bytes, at least its journal [default: the journal and 64 MiB].
    #[arg(long)]
    pub memory_bytes: Option<u64>,
    /// Settings in the syntax of Kafka's server.properties.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// One setting as NAME=VALUE; wins over the file's.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Use file systems that lose data with the machine or are slow at overwriting.
    #[arg(long)]
    pub any_file_system: bool,
    /// Check settings, host and directory, and end.
    #[arg(long)]
    pub check: bool,
}

/// Drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DriverChoice {
    /// Our own loop on io_uring.
    Ring,
    /// A glommio executor.
    Glommio,
}

impl DriverChoice {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Glommio => "glommio",
        }
    }
}

/// Durabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityChoice {
    /// Acknowledge after fdatasync.
    Fsync,
    /// Acknowledge after the write: survives the process, not power loss; log.flush.interval.ms bounds what that takes back.
    Write,
}

/// Read paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadPath {
    /// O_DIRECT reads; what is read again while no commits come, by sendfile through the page cache (glommio: O_DIRECT).
    Auto,
    /// O_DIRECT reads on the ring.
    Direct,
    /// Reads through the page cache on the ring.
    Pread,
    /// sendfile from the page cache; on helper threads what is not in it.
    Sendfile,
    /// splice on the ring.
    Splice,
    /// Mapped files and send, on the same threads as sendfile.
    Mmap,
}

impl Args {
    /// The settings: defaults, then the file's, then those of the command line.
    pub(super) fn config(&self) -> Result<Config, StartError> {
        let mut config = Config::default();
        config.advertise = self.advertise.clone();
        config.port = self.port;
        config.data_dir = self.data.display().to_string();
        config.spans = self.cold_reads() != ColdReads::Direct && self.read_path != ReadPath::Pread;
        if let Some(path) = &self.config {
            let place = path.display();
            let text = std::fs::read_to_string(path)
                .map_err(|e| StartError::settings(format!("{place}: {e}; give a readable file")))?;
            let settings = parse_properties(&text)
                .map_err(|e| StartError::settings(format!("{place}: {e}")))?;
            for (line, name, value) in settings {
                config
                    .set(&name, &value)
                    .map_err(|e| StartError::settings(format!("{place}, line {line}: {e}")))?;
            }
        }
        for setting in &self.set {
            let (name, value) = setting.split_once('=').ok_or_else(|| {
                StartError::settings(format!("--set {setting:?}: NAME=VALUE is wanted"))
            })?;
            config
                .set(name.trim(), value.trim())
                .map_err(|e| StartError::settings(format!("--set: {e}")))?;
        }
        Ok(config)
    }

    /// What enters the page cache when segments are read.
    pub(super) fn cold_reads(&self) -> ColdReads {
        match (self.read_path, self.driver) {
            (ReadPath::Auto, DriverChoice::Ring) => ColdReads::DirectOnce,
            (ReadPath::Auto | ReadPath::Direct, _) => ColdReads::Direct,
            _ => ColdReads::Cached,
        }
    }

    /// How many shards.
    pub(super) fn shards(&self) -> Result<u32, StartError> {
        let shards = self
            .shards
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u32));
        let ports_left = u32::from(u16::MAX - self.port) + 1;
        if shards == 0 || shards > 256 || (self.port > 0 && shards > ports_left) {
            return Err(StartError::settings(format!(
                "--shards {shards}: 1 to 256 are possible, and a port from --port on for each"
            )));
        }
        Ok(shards)
    }

    /// What the host must have. Connections that were asked for must fit; of the default's number, as many as may be open.
    pub(super) fn host_needs(&self, shards: u32, config: &Config) -> PreflightOptions {
        PreflightOptions {
            descriptors_min: match config.is_set("max.connections") {
                true => descriptors_wanted(shards, config),
                false => PreflightOptions::default().descriptors_min,
            },
            any_file_system: self.any_file_system,
            // Journals are written in full before they are used, and as much is held for their way to segments. Once they
            // are there, a full disk is no reason not to start: what is stored can be read, and records be deleted.
            free_bytes_min: if has_journals(&self.data) {
                0
            } else {
                (2 * self.journal_bytes + (64 << 20)).saturating_mul(u64::from(shards))
            },
        }
    }

    pub(super) fn not_built(&self) -> StartError {
        StartError::settings(format!(
            "--driver {} is not in this build (cargo feature glommio); use --driver ring",
            self.driver.name()
        ))
    }

    /// Refuses by name what this build cannot do.
    pub(super) fn refuse_what_is_missing(&self, config: &Config) -> Result<(), StartError> {
        if self.driver == DriverChoice::Glommio {
            if !cfg!(feature = "glommio") {
                return Err(self.not_built());
            }
            if matches!(
                self.read_path,
                ReadPath::Sendfile | ReadPath::Splice | ReadPath::Mmap
            ) {
                return Err(StartError::settings(
                    "--driver glommio has neither sendfile, splice nor mmap; use --read-path auto, direct or pread"
                        .into(),
                ));
            }
            if !config.text("ringlog.disk.record").is_empty() {
                return Err(StartError::settings(
                    "--driver glommio records no disk operations; leave ringlog.disk.record out"
                        .into(),
                ));
            }
            if config.text("ringlog.commit.sync") != "fdatasync" {
                return Err(StartError::settings(
                    "--driver glommio has no write with RWF_DSYNC; set ringlog.commit.sync=fdatasync"
                        .into(),
                ));
            }
        }
        Ok(())
    }
}

/// Open files of all shards with as many connections as they serve.
pub(super) fn descriptors_wanted(shards: u32, config: &Config) -> u64 {
    let connections = (config.connections_max as u64).saturating_mul(u64::from(shards));
    connections.saturating_add(PreflightOptions::default().descriptors_min)
}

/// Whether an earlier run has made journals in this data directory.
fn has_journals(data: &Path) -> bool {
    std::fs::read_dir(data.join(journal_dir(0))).is_ok_and(|mut files| files.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_journals_is_asked_for_only_before_they_are_made() {
        let data = tempfile::tempdir().expect("a folder");
        let path = data.path().to_str().expect("a path in UTF-8");
        let args = Args::parse_from([
            "ringlog-server",
            "--data",
            path,
            "--journal-bytes",
            "67108864",
        ]);
        let config = Config::default();
        assert_eq!(args.host_needs(2, &config).free_bytes_min, 2 * (192 << 20));
        let journals = data.path().join(journal_dir(0));
        std::fs::create_dir_all(&journals).expect("a folder");
        assert_eq!(args.host_needs(2, &config).free_bytes_min, 2 * (192 << 20));
        std::fs::write(journals.join("0-67108864"), b"").expect("a file");
        assert_eq!(args.host_needs(2, &config).free_bytes_min, 0);
    }

    #[test]
    fn connections_that_were_asked_for_must_fit_into_the_limit_of_open_files() {
        let args = Args::parse_from(["ringlog-server", "--data", "nowhere"]);
        let mut config = Config::default();
        assert_eq!(args.host_needs(2, &config).descriptors_min, 512);
        config.set("max.connections", "12000").expect("a number");
        assert_eq!(args.host_needs(2, &config).descriptors_min, 24_512);
    }
}
