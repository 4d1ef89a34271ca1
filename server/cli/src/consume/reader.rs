//! Reading partitions to their ends, or on and on: who fetches what, and what becomes of partitions that move.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::Printer;
use super::fetcher::{News, Task, spawn};
use super::records::{Chunk, read};
use crate::client::{Client, Isolation, Topic};
use crate::failure::{Failure, Outcome};
use crate::output::note;

/// Chunks that wait to be printed.
const CHUNKS_MAX: usize = 4;
/// Pause before a broker that is gone is tried again.
const PAUSE: Duration = Duration::from_millis(300);
/// Longest without any broker for a partition, unless reading goes on for ever.
const GONE_MAX: Duration = Duration::from_secs(30);

/// Reads partitions of a topic.
pub(crate) struct Reader {
    client: Client,
    topic: Topic,
    isolation: Isolation,
    /// Partitions that are not done, each with the next offset to print and where reading ends.
    open: BTreeMap<i32, (i64, Option<i64>)>,
    /// Of these, those that nobody fetches.
    lost: Vec<i32>,
    news: Receiver<News>,
    tell: SyncSender<News>,
    scratch: Vec<u8>,
}

impl Reader {
    /// Will read from `starts` to `ends`, or for ever.
    pub(crate) fn new(
        client: Client,
        topic: Topic,
        isolation: Isolation,
        starts: BTreeMap<i32, i64>,
        ends: Option<BTreeMap<i32, i64>>,
    ) -> Self {
        let (tell, news) = sync_channel(CHUNKS_MAX);
        let end = |partition| ends.as_ref().and_then(|ends| ends.get(&partition).copied());
        let open: BTreeMap<_, _> = starts
            .into_iter()
            .map(|(partition, start)| (partition, (start, end(partition))))
            .filter(|(_, (start, end))| end.is_none_or(|end| *start < end))
            .collect();
        Self {
            client,
            topic,
            isolation,
            lost: open.keys().copied().collect(),
            open,
            news,
            tell,
            scratch: Vec::new(),
        }
    }

    /// Prints every record.
    pub(crate) fn read(mut self, follow: bool, printer: &mut Printer) -> Outcome {
        self.assign()?;
        let mut gone_since: Option<Instant> = None;
        while !self.open.is_empty() {
            if !self.lost.is_empty() {
                let since = *gone_since.get_or_insert_with(Instant::now);
                std::thread::sleep(PAUSE);
                match self.find_leaders() {
                    Ok(()) => {}
                    Err(failure) if !follow && since.elapsed() > GONE_MAX => return Err(failure),
                    Err(_) => {}
                }
            }
            let wait = if self.lost.is_empty() {
                Duration::from_secs(3600)
            } else {
                PAUSE
            };
            let news = match self.news.recv_timeout(wait) {
                Ok(news) => news,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            match news {
                News::Chunk(chunk) => {
                    gone_since = None;
                    if !self.print(&chunk, printer)? {
                        return Ok(());
                    }
                }
                News::Idle => {
                    if self.lost.is_empty() {
                        gone_since = None;
                    }
                    printer.flush()?;
                }
                News::Done(partition) => drop(self.open.remove(&partition)),
                News::Lost { partitions, why } => {
                    if gone_since.is_none() {
                        note(&format!("{why}; looking for it again"));
                    }
                    gone_since.get_or_insert_with(Instant::now);
                    printer.flush()?;
                    self.lost.extend(partitions);
                }
                News::Failed(failure) => {
                    printer.flush()?;
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// Prints what is wanted of a chunk; false when that was enough.
    fn print(&mut self, chunk: &Chunk, printer: &mut Printer) -> Outcome<bool> {
        let Some((position, end)) = self.open.get_mut(&chunk.partition) else {
            return Ok(true);
        };
        let last = end.unwrap_or(i64::MAX);
        let (next, enough) = read(
            chunk,
            *position,
            self.isolation,
            &mut self.scratch,
            |fetched| match fetched.offset < last {
                true => printer.record(fetched),
                false => Ok::<_, Failure>(true),
            },
        )?;
        *position = next;
        if last < i64::MAX && next >= last {
            self.open.remove(&chunk.partition);
        }
        Ok(!enough)
    }

    /// Asks who leads the lost partitions now, and assigns them.
    fn find_leaders(&mut self) -> Outcome {
        self.topic = self.client.topic(&self.topic.name)?;
        self.assign()
    }

    /// Gives lost partitions to fetchers, one for each leader.
    fn assign(&mut self) -> Outcome {
        let mut by_leader: BTreeMap<i32, Vec<Task>> = BTreeMap::new();
        for &partition in &self.lost {
            if let Some(&(position, end)) = self.open.get(&partition) {
                let leader = self.topic.leader(partition);
                by_leader.entry(leader).or_default().push(Task {
                    partition,
                    position,
                    end,
                });
            }
        }
        self.lost
            .retain(|partition| self.open.contains_key(partition));
        for (leader, tasks) in by_leader {
            let connection = self.client.connection(leader)?;
            self.lost
                .retain(|lost| !tasks.iter().any(|task| task.partition == *lost));
            spawn(
                connection,
                &self.topic.name,
                self.isolation,
                tasks,
                self.tell.clone(),
            );
        }
        Ok(())
    }
}
