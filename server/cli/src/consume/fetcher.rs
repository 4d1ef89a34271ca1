//! One leader's records: a thread that asks it for some partitions, again and again.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::thread;

use kafka_wire::FetchRequest;
use kafka_wire::fetch_request::{FetchPartition, FetchTopic};
use kafka_wire::fetch_response::PartitionData;
use kafka_wire_core::StrBytes;
use ringlog_load::protocol::{ControlClient, ControlError, error_code};

use super::records::{Chunk, next_offset};
use crate::client::Isolation;
use crate::failure::Failure;

/// Version of Fetch: the last that names topics by their names.
const FETCH: i16 = 12;
/// Longest a broker waits for records to come, milliseconds.
const WAIT_MS: i32 = 500;
/// Bytes wanted in an answer, unless its first batch is larger.
const ANSWER_BYTES: i32 = 16 << 20;
/// Bytes wanted of a partition in an answer, unless its first batch is larger.
const PARTITION_BYTES: i32 = 1 << 20;
/// Kafka's error for an offset that a partition does not have.
const OUT_OF_RANGE: i16 = 1;

/// A partition to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub(crate) partition: i32,
    /// The next offset wanted.
    pub(crate) position: i64,
    /// Where reading ends.
    pub(crate) end: Option<i64>,
}

impl Task {
    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.position >= end)
    }
}

/// What a fetcher tells.
#[derive(Debug)]
pub(crate) enum News {
    /// Records came.
    Chunk(Chunk),
    /// There is nothing more for now.
    Idle,
    /// The partition has come to where reading ends.
    Done(i32),
    /// These partitions are to be asked of another broker, or later.
    Lost {
        /// Their numbers.
        partitions: Vec<i32>,
        /// What happened.
        why: Failure,
    },
    /// There is no sense in going on.
    Failed(Failure),
}

/// Reads `tasks` on a thread of its own, until all are done or nobody listens to the news.
pub(crate) fn spawn(
    connection: ControlClient,
    topic: &str,
    isolation: Isolation,
    tasks: Vec<Task>,
    news: SyncSender<News>,
) {
    let fetcher = Fetcher {
        connection,
        topic: topic.to_owned(),
        isolation,
        tasks: tasks.into(),
        news,
        empty_answers: 0,
    };
    thread::spawn(move || fetcher.run());
}

struct Fetcher {
    connection: ControlClient,
    topic: String,
    isolation: Isolation,
    /// In the order in which they are asked for: who had nothing yet is first.
    tasks: VecDeque<Task>,
    news: SyncSender<News>,
    /// Answers without any records in a row.
    empty_answers: u32,
}

/// Nobody listens any more.
struct Deaf;

impl Fetcher {
    fn run(mut self) {
        // Without a listener there is nothing left to do.
        let _ = self.read();
    }

    fn tell(&self, news: News) -> Result<(), Deaf> {
        self.news.send(news).map_err(|_| Deaf)
    }

    fn read(&mut self) -> Result<(), Deaf> {
        loop {
            self.drop_done()?;
            if self.tasks.is_empty() {
                return Ok(());
            }
            let answer = match self.connection.call(&self.request(), FETCH) {
                Ok(answer) if answer.error_code == 0 => answer,
                Ok(answer) => {
                    let why = ControlError::refused("fetching", answer.error_code, None);
                    return self.lose_all(why);
                }
                Err(why) => return self.lose_all(why),
            };
            let mut empty = true;
            for partition in answer
                .responses
                .into_iter()
                .flat_map(|topic| topic.partitions)
            {
                empty &= partition
                    .records
                    .as_ref()
                    .is_none_or(|bytes| bytes.is_empty());
                self.partition(partition)?;
            }
            self.empty_answers = if empty { self.empty_answers + 1 } else { 0 };
            if empty {
                self.tell(News::Idle)?;
            }
        }
    }

    fn lose_all(&mut self, why: ControlError) -> Result<(), Deaf> {
        let partitions = self.tasks.drain(..).map(|task| task.partition).collect();
        let lost = matches!(&why, ControlError::Io { .. })
            || matches!(&why, ControlError::Refused { code, .. } if error_code::passes(*code));
        self.tell(match lost {
            true => News::Lost {
                partitions,
                why: why.into(),
            },
            false => News::Failed(why.into()),
        })
    }

    fn drop_done(&mut self) -> Result<(), Deaf> {
        let (done, left): (Vec<_>, Vec<_>) = self.tasks.drain(..).partition(Task::is_done);
        self.tasks = left.into();
        done.into_iter()
            .try_for_each(|task| self.tell(News::Done(task.partition)))
    }

    fn partition(&mut self, data: PartitionData) -> Result<(), Deaf> {
        let Some(at) = self
            .tasks
            .iter()
            .position(|task| task.partition == data.partition_index)
        else {
            return Ok(());
        };
        let Some(mut task) = self.tasks.remove(at) else {
            return Ok(());
        };
        if data.error_code != 0 {
            return self.refused(task, &data);
        }
        let bytes = data.records.unwrap_or_default();
        match next_offset(&bytes) {
            Some(next) if next > task.position => {
                task.position = next;
                let aborted = data.aborted_transactions.unwrap_or_default();
                let aborted = aborted
                    .iter()
                    .map(|t| (t.first_offset, t.producer_id))
                    .collect();
                self.tasks.push_back(task);
                self.tell(News::Chunk(Chunk {
                    partition: task.partition,
                    bytes,
                    aborted,
                }))
            }
            _ if !bytes.is_empty() => self.tell(News::Failed(Failure::new(format!(
                "{}/{}: what the broker sent for offset {} is no record batch",
                self.topic, task.partition, task.position
            )))),
            _ => {
                // Compaction may have left nothing up to the end: a broker that twice had nothing for anybody, although
                // all is there to be read, has nothing more before it.
                let readable = match self.isolation {
                    Isolation::ReadCommitted => data.last_stable_offset,
                    Isolation::ReadUncommitted => data.high_watermark,
                };
                if self.empty_answers > 0 && task.end.is_some_and(|end| end <= readable) {
                    return self.tell(News::Done(task.partition));
                }
                self.tasks.push_front(task);
                Ok(())
            }
        }
    }

    fn refused(&self, task: Task, data: &PartitionData) -> Result<(), Deaf> {
        let place = format!("{}/{}", self.topic, task.partition);
        let failure = || Failure::from(ControlError::refused(&place, data.error_code, None));
        self.tell(match data.error_code {
            OUT_OF_RANGE => News::Failed(
                Failure::new(format!(
                    "{place} no longer has offset {}: it begins at {}",
                    task.position, data.log_start_offset
                ))
                .remedy("records are being deleted (retention.ms, retention.bytes): read on with --from"),
            ),
            code if error_code::passes(code) => News::Lost {
                partitions: vec![task.partition],
                why: failure(),
            },
            _ => News::Failed(failure()),
        })
    }

    fn request(&self) -> FetchRequest {
        let mut topic = FetchTopic::default();
        topic.topic = StrBytes::from(self.topic.as_str());
        topic.partitions = self
            .tasks
            .iter()
            .map(|task| {
                let mut partition = FetchPartition::default();
                partition.partition = task.partition;
                partition.current_leader_epoch = -1;
                partition.fetch_offset = task.position;
                partition.last_fetched_epoch = -1;
                partition.log_start_offset = -1;
                partition.partition_max_bytes = PARTITION_BYTES;
                partition
            })
            .collect();
        let mut request = FetchRequest::default();
        request.replica_id = -1;
        request.max_wait_ms = WAIT_MS;
        request.min_bytes = 1;
        request.max_bytes = ANSWER_BYTES;
        request.isolation_level = self.isolation.code();
        request.session_id = 0;
        request.session_epoch = -1;
        request.topics = vec![topic];
        request
    }
}
