//! A file's bytes to a TCP connection, by every path there is, hot and cold, in slices of any size.

mod link;
mod path;

pub use link::{Medium, NARROW_BYTES, SendBuffer, reach};
pub use path::Path;

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use link::Link;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

use super::counts::Counts;
use super::{Figures, Random, make_cold, make_hot};
use crate::disk::measure::Stopwatch;
use crate::disk::{BenchError, Scratch};

/// Name of the file in the scratch folder, and of the one that stays in the page cache.
const FILE: &str = "slices";
const HOT_FILE: &str = "slices-hot";
/// Most slices that a file is cut into.
const SLICES_MAX: u64 = 16_384;
/// Hot slices lie within the first so many bytes.
const HOT_BYTES: u64 = 256 << 20;
/// Share of the time that goes by before counting begins, when slices are hot.
const WARM_SHARE: f64 = 0.2;
const PAGE: u64 = 4096;

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// What the bytes travel over.
    pub medium: Medium,
    /// Whether the file is in the page cache, or none of it is.
    pub hot: bool,
    /// Bytes of one slice, sent as a whole.
    pub slice: u64,
    /// Bytes that one system call moves at most.
    pub chunk: u64,
    /// Bytes of the file before the first slice, whole pages.
    #[serde(default)]
    pub from: u64,
    /// How.
    pub path: Path,
    /// What the sending socket holds.
    #[serde(default)]
    pub buffer: SendBuffer,
}

/// The file that all settings share.
#[derive(Debug)]
pub struct Slices<'a> {
    scratch: &'a Scratch,
    bytes: u64,
    /// Memory to send from, made when it is first asked for.
    memory: OnceLock<Arc<File>>,
    /// Whether hot slices lie in a file of their own, and whether it is there.
    hot_apart: bool,
    hot_made: OnceLock<()>,
}

impl<'a> Slices<'a> {
    /// Makes the file.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn prepare(scratch: &'a Scratch, bytes: u64) -> Result<Self, BenchError> {
        scratch.make(FILE, bytes)?;
        Ok(Self {
            scratch,
            bytes,
            memory: OnceLock::new(),
            hot_apart: false,
            hot_made: OnceLock::new(),
        })
    }

    /// Hot slices lie in a file of their own, of [`Slices::hot_bytes`], which is read into memory once and stays: a file that is
    /// made cold in between comes back in pieces of other sizes each time, and takes its time for it.
    #[must_use]
    pub fn with_a_hot_file(mut self) -> Self {
        self.hot_apart = true;
        self
    }

    /// Bytes of the file for hot slices beside one of `bytes`.
    #[must_use]
    pub fn hot_bytes(bytes: u64) -> u64 {
        bytes.min(HOT_BYTES)
    }

    /// The file of a setting and its length.
    fn place(&self, serving: &Serving) -> (&'static str, u64) {
        let hot_bytes = Self::hot_bytes(self.bytes);
        let apart = self.hot_apart && serving.hot && serving.slice <= hot_bytes;
        match apart && serving.from == 0 {
            true => (HOT_FILE, hot_bytes),
            false => (FILE, self.bytes),
        }
    }

    /// Bytes that the slices of a path lie in.
    fn span(&self, serving: &Serving) -> u64 {
        match serving.path.from_memory() {
            true => self.bytes.min(HOT_BYTES),
            false => self.place(serving).1,
        }
    }

    /// A setting's file; the one for hot slices is made when it is first asked for.
    fn open(&self, serving: &Serving, direct: bool) -> Result<Arc<File>, BenchError> {
        let (name, bytes) = self.place(serving);
        if name == HOT_FILE && self.hot_made.get().is_none() {
            self.scratch.make(name, bytes)?;
            self.hot_made.get_or_init(|| ());
        }
        self.scratch.open(name, direct)
    }

    /// Memory with a file's name, filled with the file's first bytes.
    fn memory(&self, serving: &Serving) -> io::Result<Arc<File>> {
        if let Some(memory) = self.memory.get() {
            return Ok(Arc::clone(memory));
        }
        let flags = MemfdFlags::CLOEXEC;
        let mut memory = File::from(memfd_create("ringlog-claims", flags)?);
        let file = self.scratch.open(FILE, false).map_err(io::Error::other)?;
        io::copy(&mut (&*file).take(self.span(serving)), &mut memory)?;
        Ok(Arc::clone(self.memory.get_or_init(|| Arc::new(memory))))
    }

    /// Measures a setting once: slices in random order, hot ones for `window`, cold ones each once at most. The sending
    /// thread runs on `sender`, the reading one on `reader`; an empty list leaves a thread where it is.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn measure(
        &self,
        serving: &Serving,
        window: Duration,
        seed: u64,
        sender: &[usize],
        reader: &[usize],
    ) -> Result<Figures, BenchError> {
        let bytes = self.span(serving);
        let whole_pages = serving.from.is_multiple_of(PAGE) && serving.from < bytes;
        if !whole_pages
            || serving.slice == 0
            || serving.slice > bytes - serving.from
            || serving.chunk < PAGE
        {
            return Err(BenchError::Settings(format!(
                "slices of {} bytes in calls of {} from a file of {bytes}",
                serving.slice, serving.chunk
            )));
        }
        let (file, resident) = match serving.path.from_memory() {
            true => {
                let memory = self.memory(serving);
                (memory.map_err(BenchError::operation("memory"))?, 1.0)
            }
            false => {
                let file = self.open(serving, false)?;
                let resident = match serving.hot {
                    true => make_hot(&file)?,
                    false => make_cold(&file)?,
                };
                (file, resident)
            }
        };
        // A thread of its own: a network namespace is a thread's, and so are the kernel's counts.
        let outcome = std::thread::scope(|scope| {
            let sending = scope.spawn(|| self.send(serving, file, window, seed, sender, reader));
            sending.join()
        });
        let mut figures = outcome
            .map_err(|_| BenchError::Settings("the sending thread broke off".into()))?
            .map_err(BenchError::operation("sending"))?;
        self.scratch.check()?;
        figures.insert("resident_share_before".into(), resident);
        Ok(figures)
    }

    fn send(
        &self,
        serving: &Serving,
        file: Arc<File>,
        window: Duration,
        seed: u64,
        sender: &[usize],
        reader: &[usize],
    ) -> io::Result<Figures> {
        pin(sender)?;
        let direct = self.open(serving, true).map_err(io::Error::other)?;
        let link = Link::open(serving.medium, serving.buffer, reader)?;
        let chunk = serving.chunk.min(serving.slice.next_multiple_of(PAGE)) as usize;
        let mut way = path::open(serving.path, &file, &direct, chunk)?;
        let after = self.span(serving) - serving.from;
        let span = match serving.hot {
            true => after.min(HOT_BYTES.max(serving.slice)),
            false => after,
        };
        let places = (span / serving.slice.next_multiple_of(PAGE)).clamp(1, SLICES_MAX);
        let spacing = (span / places) / PAGE * PAGE;
        let order = Random(seed).order(places as u32);
        let (stream, len) = (link.stream()?, serving.slice as usize);
        let mut sent = 0u64;
        let mut next = order.iter().cycle();
        let mut one = |sent: &mut u64| -> io::Result<u64> {
            let place = u64::from(*next.next().unwrap_or(&0));
            let calls = way.send(stream, serving.from + place * spacing, len)?;
            *sent += serving.slice;
            Ok(calls)
        };
        if serving.hot {
            let warm_until = Instant::now() + window.mul_f64(WARM_SHARE);
            while Instant::now() < warm_until {
                one(&mut sent)?;
            }
            link.wait_for(sent)?;
        }
        let before = (sent, link.reader_cpu_s());
        let mut counts = Counts::start();
        let watch = Stopwatch::start();
        let ends = Instant::now() + window.mul_f64(1.0 - WARM_SHARE);
        let (mut calls, mut transfers) = (0u64, 0u64);
        while transfers == 0 || Instant::now() < ends && (serving.hot || transfers < places) {
            calls += one(&mut sent)?;
            transfers += 1;
        }
        way.settle()?;
        let counted = counts.read();
        link.wait_for(sent)?;
        let wall_s = watch.wall_s();
        let cpu_s = (watch.cpu_s() - (link.reader_cpu_s() - before.1)).max(0.0);
        let bytes = (sent - before.0) as f64;
        let by_kernel = counted.calls.is_some();
        // A clock is read without a system call; what the kernel counted beyond the loop's own are those of measuring.
        let calls = counted.calls.unwrap_or(calls) as f64;
        let per_gb = 1e9 / bytes;
        Ok(Figures::from([
            ("mb_per_s".into(), bytes / 1e6 / wall_s),
            ("transfers_per_s".into(), transfers as f64 / wall_s),
            ("cpu_s_per_gb".into(), cpu_s * per_gb),
            ("system_calls_per_gb".into(), calls * per_gb),
            ("system_calls_per_transfer".into(), calls / transfers as f64),
            (
                "context_switches_per_gb".into(),
                counted.switches as f64 * per_gb,
            ),
            ("page_faults_per_gb".into(), counted.faults as f64 * per_gb),
            ("counted_by_kernel".into(), f64::from(u8::from(by_kernel))),
        ]))
    }
}

/// Keeps the calling thread on `cpus`.
fn pin(cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn every_path_sends_every_byte() {
        let stop = Arc::new(AtomicBool::new(false));
        let scratch = Scratch::new(env!("CARGO_MANIFEST_DIR").as_ref(), stop).unwrap();
        let slices = Slices::prepare(&scratch, 4 << 20).unwrap();
        for path in [
            Path::ReadSend,
            Path::InspectSend,
            Path::MmapSend,
            Path::MappedSend,
            Path::Sendfile,
            Path::Splice,
            Path::DirectSend,
            Path::SendZc,
            Path::MemorySend,
            Path::MemorySendfile,
        ] {
            // Less than a page, an odd number of bytes in several calls, and the whole file.
            for (slice, hot) in [(1000, true), (300_001, false), (4 << 20, true)] {
                let serving = Serving {
                    medium: Medium::Loopback,
                    hot,
                    slice,
                    chunk: 65_536,
                    from: 0,
                    path,
                    buffer: if hot {
                        SendBuffer::Grown
                    } else {
                        SendBuffer::Narrow
                    },
                };
                // Returns only when the other end has read as many bytes as were meant to be sent.
                let figures = slices
                    .measure(&serving, Duration::from_millis(5), 1, &[], &[])
                    .unwrap_or_else(|error| panic!("{serving:?}: {error}"));
                assert!(figures["mb_per_s"] > 0.0 && figures["system_calls_per_gb"] > 0.0);
            }
        }
    }

    #[test]
    fn hot_slices_stay_where_they_are_while_the_file_is_made_cold() {
        let stop = Arc::new(AtomicBool::new(false));
        let scratch = Scratch::new(env!("CARGO_MANIFEST_DIR").as_ref(), stop).unwrap();
        let slices = Slices::prepare(&scratch, 4 << 20)
            .unwrap()
            .with_a_hot_file();
        let serving = |hot, from| Serving {
            medium: Medium::Loopback,
            hot,
            slice: 1 << 20,
            chunk: 65_536,
            from,
            path: Path::ReadSend,
            buffer: SendBuffer::Grown,
        };
        let resident = |hot, from| {
            let figures =
                slices.measure(&serving(hot, from), Duration::from_millis(5), 1, &[], &[]);
            figures.unwrap()["resident_share_before"]
        };
        assert!(resident(true, 0) > 0.99 && resident(false, 0) < 0.02);
        let hot = scratch.open(HOT_FILE, false).unwrap();
        let whole = super::super::mapping::Mapping::of(&hot).unwrap();
        assert_eq!(whole.resident_share().unwrap(), 1.0);
        // What is not at the file's beginning is another place of the one file.
        assert_eq!(slices.place(&serving(true, 1 << 20)).0, FILE);
        assert_eq!(slices.place(&serving(true, 0)).0, HOT_FILE);
    }

    #[test]
    fn a_pair_of_namespaces_carries_bytes_or_says_what_is_missing_and_leaves_nothing() {
        let stop = Arc::new(AtomicBool::new(false));
        let scratch = Scratch::new(env!("CARGO_MANIFEST_DIR").as_ref(), stop).unwrap();
        let slices = Slices::prepare(&scratch, 1 << 20).unwrap();
        let serving = Serving {
            medium: Medium::Veth,
            hot: true,
            slice: 65_536,
            chunk: 65_536,
            from: 0,
            path: Path::Sendfile,
            buffer: SendBuffer::Grown,
        };
        let devices = || std::fs::read_dir("/sys/class/net").unwrap().count();
        let before = devices();
        match slices.measure(&serving, Duration::from_millis(20), 1, &[], &[]) {
            Ok(figures) => assert!(figures["mb_per_s"] > 0.0),
            Err(error) => {
                let said = error.to_string();
                assert!(
                    said.contains("not permitted") || said.contains("ip"),
                    "{said}"
                );
            }
        }
        assert_eq!(devices(), before);
    }

    #[test]
    fn sendfile_makes_half_the_calls_of_read_and_send() {
        let stop = Arc::new(AtomicBool::new(false));
        let scratch = Scratch::new(env!("CARGO_MANIFEST_DIR").as_ref(), stop).unwrap();
        let slices = Slices::prepare(&scratch, 4 << 20).unwrap();
        let calls = |path| {
            let serving = Serving {
                medium: Medium::Loopback,
                hot: true,
                slice: 16_384,
                chunk: 16_384,
                from: 0,
                path,
                buffer: SendBuffer::Grown,
            };
            let figures = slices
                .measure(&serving, Duration::from_millis(30), 1, &[], &[])
                .unwrap();
            figures["system_calls_per_transfer"]
        };
        let (read, sendfile) = (calls(Path::ReadSend), calls(Path::Sendfile));
        assert!(
            (0.4..0.65).contains(&(sendfile / read)),
            "{sendfile} {read}"
        );
    }
}
