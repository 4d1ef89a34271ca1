//! The raw loops behind `ringlog-load claims`: each measures one thing the documents claim, with real files, real
//! sockets and no server. A loop returns named figures; what they mean is judged elsewhere.

pub mod counts;
pub mod grid;
pub mod harm;
pub mod layouts;
pub mod mapping;
mod namespace;
pub mod nic;
pub mod pair;
pub mod queue_read;
mod ring_net;
pub mod seek_model;
pub mod stores;
pub mod transfer;

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use crate::disk::BenchError;
use crate::disk::files::drop_pages;
use mapping::Mapping;

/// Figures of one repetition by name; units are part of the names.
pub type Figures = BTreeMap<String, f64>;

/// Largest share of a file's pages that may still be in memory when it counts as cold.
const COLD_SHARE_MAX: f64 = 0.01;
/// How often pages are dropped before it is given up, and the time in between.
const COLD_TRIES: u32 = 200;
const COLD_PAUSE: Duration = Duration::from_millis(25);
/// How often a file is read before it is given up that it stays in memory.
const HOT_TRIES: u32 = 3;

/// Writes a file's dirty pages back, drops all of them, and looks whether they are gone. Returns the share still in memory.
///
/// # Errors
/// [`BenchError`]; [`BenchError::Settings`] when the pages stayed.
pub fn make_cold(file: &File) -> Result<f64, BenchError> {
    file.sync_data()
        .map_err(BenchError::file("writing pages back"))?;
    let mut share = 1.0;
    for _ in 0..COLD_TRIES {
        drop_pages(file)?;
        share = Mapping::of(file)?.resident_share()?;
        if share <= COLD_SHARE_MAX {
            return Ok(share);
        }
        // A socket or a ring that was just closed, or a write that has just ended, may still hold pages for a while.
        std::thread::sleep(COLD_PAUSE);
    }
    Err(BenchError::Settings(format!(
        "{:.0} % of the file's pages stayed in memory: it cannot be made cold here",
        share * 100.0
    )))
}

/// Reads a file into the page cache and looks whether it is there. Returns the share in memory.
///
/// # Errors
/// [`BenchError`]; [`BenchError::Settings`] when the file does not stay.
pub fn make_hot(file: &File) -> Result<f64, BenchError> {
    use std::os::unix::fs::FileExt;
    let mut share = Mapping::of(file)?.resident_share()?;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..HOT_TRIES {
        if share == 1.0 {
            return Ok(share);
        }
        let mut at = 0;
        loop {
            let read = file
                .read_at(&mut piece, at)
                .map_err(BenchError::file("reading a file into memory"))?;
            if read == 0 {
                break;
            }
            at += read as u64;
        }
        share = Mapping::of(file)?.resident_share()?;
        if share >= 1.0 - COLD_SHARE_MAX {
            return Ok(share);
        }
        // Memory may be short for a moment.
    }
    Err(BenchError::Settings(format!(
        "only {:.1} % of the file's pages stay in memory: it cannot be made hot here",
        share * 100.0
    )))
}

/// Bytes that this process made the storage read and write so far; 0 where the kernel does not count.
fn io_bytes() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
    };
    (number("read_bytes:"), number("write_bytes:"))
}

/// Reads that all disks of the host have completed so far.
fn device_reads() -> u64 {
    let text = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let name = fields.nth(2)?;
            // Partitions and layers above would count twice.
            let whole = std::path::Path::new("/sys/block")
                .join(name)
                .join("device")
                .exists();
            let reads = fields.next()?.parse::<u64>().ok()?;
            whole.then_some(reads)
        })
        .sum()
}

/// A sequence of pseudo-random numbers from a seed (splitmix64): the same in every run.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// The numbers below `count` in random order.
    #[must_use]
    pub fn order(&mut self, count: u32) -> Vec<u32> {
        let mut places: Vec<u32> = (0..count).collect();
        for last in (1..places.len()).rev() {
            places.swap(last, self.below(last as u64 + 1) as usize);
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn pages_are_dropped_and_brought_back() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("file");
        File::create(&path)
            .unwrap()
            .write_all(&vec![7; 4 << 20])
            .unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        assert!(make_cold(&file).unwrap() < 0.01);
        assert!(make_hot(&file).unwrap() > 0.99);
        assert_eq!(Mapping::of(&file).unwrap().resident_share().unwrap(), 1.0);
    }

    #[test]
    fn an_order_holds_every_place_once() {
        let order = Random(7).order(1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_ne!(order, sorted);
        assert!(sorted.iter().copied().eq(0..1000));
        assert_eq!(order, Random(7).order(1000));
    }
}
