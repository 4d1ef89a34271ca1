//! `commits` and `check-commits`: offsets of many groups.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Brokers, CpuList, cpu_list, seconds};
use crate::commits::{CommitsOptions, GROUPS_MAX, Membership, PARTITIONS_MAX};

const ABOUT_COMMITS: &str = "\
Groups commit at a steady rate that does not depend on the answers (open loop): the groups take turns, evenly spread over
--interval, and a commit's latency counts from when it was due. Each group's commits go to its coordinator. Offsets rise with
every commit, in later runs, too: what is read back tells which commit it is.

Examples:
  5,000 groups that commit every second, with the server's share of a core:
    ringlog-load commits -b 127.0.0.1:9092 --server-pid $(pidof ringlog-server)
  The same with a member in each group, which joins first and sends heartbeats:
    ringlog-load commits -b 127.0.0.1:9092 --membership classic
  Is every acknowledged commit there after kill -9, and how soon are all groups served again?
    ringlog-load commits -b 127.0.0.1:9092 --book book --until-broken --duration 600 &
    kill -9 $(pidof ringlog-server); wait
    ringlog-server --data DIR --port 9092 & ringlog-load check-commits --book book

A broker takes the requests of a connection one at a time or a few, so with too few connections the commits of many groups wait
for each other: that is then what the latency shows. Members join 16 at a time over up to 32 connections; a broker whose
group.initial.rebalance.delay.ms is not 0 lets each of them wait.";

/// Who commits, by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum MembershipName {
    /// Nobody is in the group: as tools and engines that keep their assignment themselves
    None,
    /// One member a group: JoinGroup, SyncGroup, heartbeats beside the commits
    Classic,
}

/// `commits`
#[derive(Debug, Args)]
#[command(after_help = ABOUT_COMMITS)]
pub struct CommitsCommand {
    #[command(flatten)]
    brokers: Brokers,
    /// Topic whose offsets are committed; created if absent
    #[arg(short, long, default_value = "commits")]
    topic: String,
    /// Partitions of the topic, all of them in every commit
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=i64::from(PARTITIONS_MAX)))]
    partitions: i32,
    /// Number of groups
    #[arg(short, long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=GROUPS_MAX as u64))]
    groups: u64,
    /// Start of the groups' names; a number follows
    #[arg(long, default_value = "commits", value_name = "PREFIX")]
    group_prefix: String,
    /// Time between two commits of a group, in seconds
    #[arg(short, long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    interval: f64,
    /// Who commits
    #[arg(long, value_enum, default_value = "none")]
    membership: MembershipName,
    /// Time between two heartbeats of a member, in seconds
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS", value_parser = seconds)]
    heartbeat: f64,
    /// How long the coordinator waits for a member's heartbeat, in milliseconds
    #[arg(long, default_value_t = 45_000, value_parser = clap::value_parser!(i32).range(1..))]
    session_timeout_ms: i32,
    /// Connections over all coordinators, by their share of the groups; each coordinator gets at least one
    #[arg(short, long, default_value_t = 256)]
    connections: usize,
    /// Requests without an answer on a connection; beyond it what is due waits
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Load before the window that counts, in seconds
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", value_parser = seconds)]
    warmup: f64,
    /// The window that counts, in seconds
    #[arg(short, long, default_value_t = 10.0, value_name = "SECONDS", value_parser = seconds)]
    duration: f64,
    /// Write what each group has committed to this file, for `check-commits`
    #[arg(long, value_name = "FILE")]
    book: Option<PathBuf>,
    /// End as soon as a connection breaks, because the broker was killed: no error then
    #[arg(long)]
    until_broken: bool,
    /// A server on this host (repeatable): adds its share of a core, bytes and context switches in the window
    #[arg(long, value_name = "PID")]
    server_pid: Vec<u32>,
    /// Cores for the load, e.g. 1 or 0,2-3
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    cpus: Option<CpuList>,
    /// Exit with 0 in spite of errors (they are counted all the same)
    #[arg(long)]
    pub tolerate_errors: bool,
    /// Print one JSON object instead of the table (its fields: loadgen/REPORT.md)
    #[arg(long)]
    pub json: bool,
}

impl CommitsCommand {
    /// What to do; the error is a usage message.
    ///
    /// # Errors
    /// If options contradict each other.
    pub fn options(&self) -> Result<CommitsOptions, String> {
        if self.connections == 0 || self.in_flight == 0 {
            return Err("--connections and --in-flight are at least 1".into());
        }
        for (name, value) in [("interval", self.interval), ("heartbeat", self.heartbeat)] {
            if value <= 0.0 {
                return Err(format!("--{name} is above 0"));
            }
        }
        if self.duration <= 0.0 {
            return Err("--duration is above 0".into());
        }
        let classic = matches!(self.membership, MembershipName::Classic);
        if classic && self.heartbeat * 1e3 >= f64::from(self.session_timeout_ms) {
            return Err("--heartbeat is shorter than --session-timeout-ms".into());
        }
        if self.group_prefix.chars().any(char::is_control) {
            return Err("--group-prefix has no line breaks and the like".into());
        }
        Ok(CommitsOptions {
            bootstrap: self.brokers.bootstrap.clone(),
            topic: self.topic.clone(),
            partitions: self.partitions,
            groups: self.groups as usize,
            group_prefix: self.group_prefix.clone(),
            interval: Duration::from_secs_f64(self.interval),
            membership: match self.membership {
                MembershipName::None => Membership::None,
                MembershipName::Classic => Membership::Classic,
            },
            heartbeat: Duration::from_secs_f64(self.heartbeat),
            session_timeout_ms: self.session_timeout_ms,
            connections: self.connections,
            in_flight: self.in_flight,
            warmup: Duration::from_secs_f64(self.warmup),
            duration: Duration::from_secs_f64(self.duration),
            until_broken: self.until_broken,
            server_pids: self.server_pid.clone(),
            cpus: self.cpus.clone().map(|list| list.0).unwrap_or_default(),
            book: self.book.clone(),
        })
    }
}

const ABOUT_CHECK: &str = "\
The time counts from the start of this command: start it together with the broker, or when the broker says that it is ready. A
broker that is not there yet, or that still reads its groups, is asked again every 2 ms until --patience is over.

Exit status: 0 every group has the offset acknowledged last, or that of a commit that was under way; 1 not so; 2 the check
could not be made.";

/// `check-commits`
#[derive(Debug, Args)]
#[command(after_help = ABOUT_CHECK)]
pub struct CheckCommitsCommand {
    /// The file that `commits --book` wrote
    #[arg(long, value_name = "FILE")]
    pub book: PathBuf,
    /// Broker to ask instead of the one in the file (repeatable or comma-separated)
    #[arg(short, long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub bootstrap: Vec<String>,
    /// Longest time until all groups are answered for, in seconds
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS", value_parser = seconds)]
    pub patience: f64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn options(line: &str) -> Result<CommitsOptions, String> {
        let words = std::iter::once("ringlog-load").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        match &cli.command {
            Command::Commits(command) => command.options(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_reach_the_run() {
        let usual = options("commits").unwrap();
        assert_eq!(
            (usual.groups, usual.interval),
            (5000, Duration::from_secs(1))
        );
        assert_eq!(usual.membership, Membership::None);
        let other = options(
            "commits -b a:1,b:2 -g 3 -p 7 -i 0.5 --membership classic --group-prefix g --cpus 1 --book f --until-broken",
        )
        .unwrap();
        assert_eq!(other.bootstrap, ["a:1", "b:2"]);
        assert_eq!(other.names(), ["g-0", "g-1", "g-2"]);
        assert_eq!((other.partitions, other.cpus.as_slice()), (7, &[1][..]));
        assert!(other.has_members() && other.until_broken && other.book.is_some());
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "commits --groups 0",
            "commits --partitions 0",
            "commits --partitions 10001",
            "commits --connections 0",
            "commits --in-flight 0",
            "commits --interval 0",
            "commits --duration 0",
            "commits --heartbeat 0",
            "commits --membership classic --heartbeat 6 --session-timeout-ms 6000",
            "commits --membership uniform",
        ] {
            assert!(options(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_example_is_a_command_line() {
        let lines = ABOUT_COMMITS.lines().flat_map(|line| line.split('&'));
        let lines = lines.filter_map(|line| line.trim().strip_prefix("ringlog-load "));
        let mut count = 0;
        for line in lines {
            let line = line.replace("$(pidof ringlog-server)", "1");
            let words = std::iter::once("ringlog-load").chain(line.split_whitespace());
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            count += 1;
        }
        assert_eq!(count, 4);
    }
}
