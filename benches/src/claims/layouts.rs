//! Where appends to many partitions go: a file each, one journal for all, or a journal first and files behind it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringlog_engine::buf::{AlignedBuf, BLOCK};
use rustix::fs::syncfs;
use serde::{Deserialize, Serialize};

use super::{Figures, io_bytes};
use crate::disk::files::{noise, noisy_buffers};
use crate::disk::measure::{Latencies, Stopwatch};
use crate::disk::{BenchError, Fill, Scratch};
use crate::uring::Ring;

/// Name of the journal in the scratch folder, and the start of the partitions' names.
const JOURNAL: &str = "layout-journal";
const PARTITION: &str = "layout-partition-";
/// Length of the journal, bytes.
const JOURNAL_BYTES: u64 = 128 << 20;
/// Appends of one round: what a group commit covers.
const APPENDS: u64 = 64;
/// Payload between two destages, and how many stretches may wait: together less than the journal.
const STRETCH_BYTES: u64 = 32 << 20;
/// Share of the time that goes by before counting begins.
const WARM_SHARE: f64 = 0.2;

/// Where appends go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// A growing file for each partition, through the page cache; if durable, an `fdatasync` of each file written in a
    /// round, all at once.
    FilePerPartition,
    /// One zero-filled journal with O_DIRECT; if durable, one `fdatasync` a round.
    Journal,
    /// The same, and behind it whole blocks to a file for each partition, with a `syncfs` for each stretch.
    JournalAndDestage,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutPoint {
    /// Bytes of one append.
    pub append: u64,
    /// Whether a round ends when it is on the device.
    pub durable: bool,
    /// Partitions, taken in turn.
    pub partitions: u64,
    /// Where appends go.
    pub layout: Layout,
}

/// Makes the journal that settings share.
///
/// # Errors
/// [`BenchError`].
pub fn prepare(scratch: &Scratch) -> Result<(), BenchError> {
    scratch.needs(JOURNAL_BYTES)?;
    let journal = scratch.open(JOURNAL, true)?;
    scratch.fill(&journal, JOURNAL_BYTES, Fill::Zeros)
}

/// Measures one setting once, for about `window`, one round after the other, and removes the partitions' files.
///
/// # Errors
/// [`BenchError`].
pub fn measure(
    scratch: &Scratch,
    point: &LayoutPoint,
    window: Duration,
) -> Result<Figures, BenchError> {
    let valid = point.partitions > 0 && point.append > 0 && point.append * APPENDS <= 4 << 20;
    if !valid {
        return Err(BenchError::Settings(format!("{point:?}")));
    }
    let outcome = rounds(scratch, point, window);
    for index in 0..point.partitions {
        scratch.remove(&format!("{PARTITION}{index}"))?;
    }
    outcome
}

fn rounds(scratch: &Scratch, point: &LayoutPoint, window: Duration) -> Result<Figures, BenchError> {
    let mut target: Box<dyn Target> = match point.layout {
        Layout::FilePerPartition => Box::new(Files::open(scratch, point)?),
        Layout::Journal => Box::new(Journal::open(scratch, point, None)?),
        Layout::JournalAndDestage => {
            let destage = Destage::start(scratch, point)?;
            Box::new(Journal::open(scratch, point, Some(destage))?)
        }
    };
    let warm_until = Instant::now() + window.mul_f64(WARM_SHARE);
    while Instant::now() < warm_until {
        scratch.check()?;
        target.round()?;
    }
    // What the warm-up left behind must be neither on the clock nor among the bytes written.
    target.settle()?;
    let written = io_bytes().1;
    let (watch, mut latencies) = (Stopwatch::start(), Latencies::default());
    let ends = Instant::now() + window.mul_f64(1.0 - WARM_SHARE);
    let mut count = 0u64;
    while Instant::now() < ends {
        scratch.check()?;
        let begun = Instant::now();
        target.round()?;
        latencies.record(begun.elapsed());
        count += 1;
    }
    // What is dirty, and what waits for its files, is on the clock.
    target.settle()?;
    let wall_s = watch.wall_s();
    let payload = (count * APPENDS * point.append) as f64;
    Ok(Figures::from([
        ("rounds_per_s".into(), count as f64 / wall_s),
        ("appends_per_s".into(), (count * APPENDS) as f64 / wall_s),
        ("mb_per_s".into(), payload / 1e6 / wall_s),
        ("p50_us".into(), latencies.us(50.0)),
        ("p99_us".into(), latencies.us(99.0)),
        ("cpu_s_per_gb".into(), watch.cpu_s() * 1e9 / payload),
        (
            "written_per_byte".into(),
            (io_bytes().1 - written) as f64 / payload,
        ),
    ]))
}

trait Target {
    /// Makes one round of appends, durable if asked.
    fn round(&mut self) -> Result<(), BenchError>;

    /// Brings everything to the device and returns when it is there.
    fn settle(&mut self) -> Result<(), BenchError>;
}

/// Partitions of a round: so many, each with the same number of appends.
fn dirty(point: &LayoutPoint) -> u64 {
    point.partitions.min(APPENDS)
}

struct Files {
    files: Vec<Arc<File>>,
    /// Length of each.
    ends: Vec<u64>,
    next: usize,
    ring: Ring,
    buffers: Vec<AlignedBuf>,
    durable: bool,
}

impl Files {
    fn open(scratch: &Scratch, point: &LayoutPoint) -> Result<Self, BenchError> {
        let files = partitions(scratch, point, false)?;
        let dirty = dirty(point) as usize;
        let bytes = (APPENDS / dirty as u64 * point.append) as usize;
        Ok(Self {
            ends: vec![0; files.len()],
            files,
            next: 0,
            ring: Ring::new(dirty).map_err(BenchError::Ring)?,
            buffers: noisy_buffers(dirty, bytes, 0),
            durable: point.durable,
        })
    }
}

impl Target for Files {
    fn round(&mut self) -> Result<(), BenchError> {
        while let Some(buffer) = self.buffers.pop() {
            let at = self.next % self.files.len();
            self.next += 1;
            let len = buffer.len() as u64;
            self.ring
                .write(&self.files[at], self.ends[at], buffer, self.durable, 0);
            self.ends[at] += len;
        }
        while self.ring.in_flight() > 0 {
            self.ring.wait().map_err(BenchError::Ring)?;
            while let Some(done) = self.ring.next_done() {
                done.result.map_err(BenchError::operation("an append"))?;
                self.buffers.push(done.buf);
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), BenchError> {
        sync(&self.files)
    }
}

struct Journal {
    file: Arc<File>,
    ring: Ring,
    frame: Option<AlignedBuf>,
    at: u64,
    durable: bool,
    payload: u64,
    since_stretch: u64,
    destage: Option<Destage>,
}

impl Journal {
    fn open(
        scratch: &Scratch,
        point: &LayoutPoint,
        destage: Option<Destage>,
    ) -> Result<Self, BenchError> {
        let payload = APPENDS * point.append;
        let mut frame = AlignedBuf::zeroed((payload as usize).next_multiple_of(BLOCK));
        noise(&mut frame, 1);
        Ok(Self {
            file: scratch.open(JOURNAL, true)?,
            ring: Ring::new(1).map_err(BenchError::Ring)?,
            frame: Some(frame),
            at: 0,
            durable: point.durable,
            payload,
            since_stretch: 0,
            destage,
        })
    }
}

impl Target for Journal {
    fn round(&mut self) -> Result<(), BenchError> {
        let Some(frame) = self.frame.take() else {
            return Err(BenchError::Settings("a round after a failed one".into()));
        };
        let len = frame.len() as u64;
        if self.at + len > JOURNAL_BYTES {
            self.at = 0;
        }
        self.ring.write(&self.file, self.at, frame, self.durable, 0);
        self.at += len;
        self.ring.wait().map_err(BenchError::Ring)?;
        if let Some(done) = self.ring.next_done() {
            done.result.map_err(BenchError::operation("a commit"))?;
            self.frame = Some(done.buf);
        }
        self.since_stretch += self.payload;
        if self.since_stretch >= STRETCH_BYTES
            && let Some(destage) = &mut self.destage
        {
            // Waits when two stretches are under way: the journal would otherwise be overwritten before its files are
            // written.
            destage.hand_over(self.since_stretch)?;
            self.since_stretch = 0;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), BenchError> {
        if let Some(destage) = &mut self.destage {
            destage.hand_over(self.since_stretch)?;
            destage.wait()?;
            self.since_stretch = 0;
        }
        self.file
            .sync_data()
            .map_err(BenchError::operation("fdatasync"))
    }
}

/// A thread that writes stretches of payload to the partitions' files. It ends when this is dropped, or when it fails.
struct Destage {
    to: SyncSender<Task>,
    thread: Option<JoinHandle<Result<(), BenchError>>>,
}

enum Task {
    /// So many bytes of payload.
    Write(u64),
    /// Says when all before it is on the device.
    Answer(SyncSender<()>),
}

impl Destage {
    fn start(scratch: &Scratch, point: &LayoutPoint) -> Result<Self, BenchError> {
        let files = partitions(scratch, point, true)?;
        let (to, from) = sync_channel(1);
        let thread = std::thread::spawn(move || destage(&files, &from));
        Ok(Self {
            to,
            thread: Some(thread),
        })
    }

    fn hand_over(&mut self, bytes: u64) -> Result<(), BenchError> {
        self.ask(Task::Write(bytes))
    }

    /// Returns when all that was handed over is on the device.
    fn wait(&mut self) -> Result<(), BenchError> {
        let (to, from) = sync_channel(1);
        self.ask(Task::Answer(to))?;
        from.recv().or_else(|_| self.broken())
    }

    fn ask(&mut self, task: Task) -> Result<(), BenchError> {
        self.to.send(task).or_else(|_| self.broken())
    }

    /// Why the thread has ended.
    fn broken(&mut self) -> Result<(), BenchError> {
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            return Err(error);
        }
        Err(BenchError::operation("destaging")(
            io::ErrorKind::BrokenPipe.into(),
        ))
    }
}

/// Whole blocks to each partition, the same for all; what is left over waits for the next stretch.
fn destage(files: &[Arc<File>], from: &Receiver<Task>) -> Result<(), BenchError> {
    const DEPTH: usize = 16;
    const PIECE_MAX: u64 = 1 << 20;
    let mut ring = Ring::new(DEPTH).map_err(BenchError::Ring)?;
    let mut buffers = noisy_buffers(DEPTH, PIECE_MAX as usize, 0);
    let (mut pending, mut end) = (0u64, 0u64);
    while let Ok(task) = from.recv() {
        let bytes = match task {
            Task::Write(bytes) => bytes,
            Task::Answer(to) => {
                // Nobody waits any more when the rounds have failed.
                let _ = to.send(());
                continue;
            }
        };
        pending += bytes;
        let each = pending / files.len() as u64 / BLOCK as u64 * BLOCK as u64;
        if each == 0 {
            continue;
        }
        pending -= each * files.len() as u64;
        for file in files {
            let mut done = 0;
            while done < each {
                if buffers.is_empty() {
                    ring.wait().map_err(BenchError::Ring)?;
                    take_back(&mut ring, &mut buffers)?;
                    continue;
                }
                let Some(mut buffer) = buffers.pop() else {
                    continue;
                };
                let piece = PIECE_MAX.min(each - done);
                buffer.set_len(piece as usize);
                ring.write(file, end + done, buffer, false, 0);
                done += piece;
            }
        }
        while ring.in_flight() > 0 {
            ring.wait().map_err(BenchError::Ring)?;
            take_back(&mut ring, &mut buffers)?;
        }
        end += each;
        sync(files)?;
    }
    Ok(())
}

fn take_back(ring: &mut Ring, buffers: &mut Vec<AlignedBuf>) -> Result<(), BenchError> {
    while let Some(done) = ring.next_done() {
        done.result.map_err(BenchError::operation("destaging"))?;
        buffers.push(done.buf);
    }
    Ok(())
}

fn partitions(
    scratch: &Scratch,
    point: &LayoutPoint,
    direct: bool,
) -> Result<Vec<Arc<File>>, BenchError> {
    let files =
        (0..point.partitions).map(|index| scratch.open(&format!("{PARTITION}{index}"), direct));
    files.collect()
}

/// Brings all dirty data of the files' file system to the device.
fn sync(files: &[Arc<File>]) -> Result<(), BenchError> {
    match files.first() {
        Some(file) => {
            syncfs(&**file).map_err(|error| BenchError::operation("syncfs")(error.into()))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn what_waits_for_its_files_is_there_once_the_layout_has_settled() {
        let stop = Arc::new(AtomicBool::new(false));
        let scratch = Scratch::new(env!("CARGO_MANIFEST_DIR").as_ref(), stop).unwrap();
        prepare(&scratch).unwrap();
        let point = LayoutPoint {
            append: 256,
            durable: true,
            partitions: 1,
            layout: Layout::JournalAndDestage,
        };
        let target = Journal::open(
            &scratch,
            &point,
            Some(Destage::start(&scratch, &point).unwrap()),
        );
        let mut target = target.unwrap();
        // Less than a stretch: nothing is written to the files by itself.
        let rounds = 64;
        for _ in 0..rounds {
            target.round().unwrap();
        }
        let stored = || std::fs::metadata(scratch.path().join(format!("{PARTITION}0"))).unwrap();
        assert_eq!(stored().len(), 0);
        target.settle().unwrap();
        assert_eq!(stored().len(), rounds * APPENDS * point.append);
        target.settle().unwrap();
        assert_eq!(stored().len(), rounds * APPENDS * point.append);
    }

    #[test]
    fn every_layout_takes_appends_and_clears_up() {
        let stop = Arc::new(AtomicBool::new(false));
        let scratch = Scratch::new(env!("CARGO_MANIFEST_DIR").as_ref(), stop).unwrap();
        prepare(&scratch).unwrap();
        for layout in [
            Layout::FilePerPartition,
            Layout::Journal,
            Layout::JournalAndDestage,
        ] {
            for (partitions, durable, append) in
                [(1, true, 256), (100, false, 256), (7, true, 16_384)]
            {
                let point = LayoutPoint {
                    append,
                    durable,
                    partitions,
                    layout,
                };
                let figures = measure(&scratch, &point, Duration::from_millis(20)).unwrap();
                assert!(figures["appends_per_s"] > 0.0, "{point:?}");
            }
        }
        assert_eq!(
            std::fs::read_dir(scratch.path()).unwrap().count(),
            1,
            "the journal alone is left"
        );
    }
}
