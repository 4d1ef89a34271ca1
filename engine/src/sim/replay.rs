//! What a loss of power would have left of a real data directory: a record of real operations, replayed on the simulated
//! disk, which treats as volatile whatever no sync has covered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk::{DiskConfig, Flight, SimDisk};
use super::rng::Rng;
use crate::buf::BLOCK;
use crate::disk::{DiskError, EntryKind, OpId};
use crate::record::{Event, What};

/// A data directory as of the events so far.
#[derive(Debug)]
pub struct Replay {
    disk: SimDisk,
    /// Where an operation in flight is found.
    tickets: BTreeMap<(u32, OpId), u64>,
    next: u64,
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}

impl Replay {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            disk: SimDisk::new(Rng::new(0), DiskConfig::default()),
            tickets: BTreeMap::new(),
            next: 0,
        }
    }

    /// Takes the next event. What was handed over and has not ended may or may not have been carried out.
    ///
    /// # Errors
    /// The operation that has ended cannot be repeated here: then the record is not of one process from an empty directory.
    pub fn apply(&mut self, event: Event) -> Result<(), DiskError> {
        match event.what {
            What::Begin(op) => {
                self.next += 1;
                self.tickets.insert((event.shard, op.id), self.next);
                let flight = Flight::new(event.shard, op, self.disk.tree.stamp());
                self.disk.flights.insert((0, self.next), flight);
                Ok(())
            }
            What::End { id, is_ok } => {
                let ticket = self.tickets.remove(&(event.shard, id));
                let flight = ticket.and_then(|ticket| self.disk.flights.remove(&(0, ticket)));
                let flight = flight.ok_or(DiskError::NOT_FOUND)?;
                if is_ok {
                    return self.disk.carry_out(flight).result;
                }
                self.disk.interrupt(&flight);
                Ok(())
            }
        }
    }

    /// The directory after a loss of power at this moment; a seed decides what becomes of all that is volatile.
    #[must_use]
    pub fn lose_power(&self, seed: u64) -> Image {
        let mut disk = SimDisk::new(Rng::new(seed), DiskConfig::default());
        disk.tree = self.disk.tree.clone();
        disk.handles.clone_from(&self.disk.handles);
        for flight in self.disk.flights.values() {
            disk.interrupt(flight);
        }
        disk.handles.clear();
        disk.tree.forget_unreachable(&BTreeSet::new());
        disk.tree.lose_power(&mut disk.rng);
        Image { disk }
    }
}

/// A directory without a future.
#[derive(Debug)]
pub struct Image {
    disk: SimDisk,
}

impl Image {
    /// Writes it to `folder`, which exists; blocks of zeros become holes.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        self.write_dir("", folder)
    }

    fn write_dir(&self, path: &str, folder: &Path) -> io::Result<()> {
        let entries = self.disk.tree.list(path).map_err(os_error)?;
        for (name, kind) in entries {
            let inner = match path {
                "" => name.clone(),
                _ => format!("{path}/{name}"),
            };
            let place = folder.join(&name);
            match kind {
                EntryKind::Dir => {
                    fs::create_dir_all(&place)?;
                    self.write_dir(&inner, &place)?;
                }
                EntryKind::File => self.write_file(&inner, &place)?,
            }
        }
        Ok(())
    }

    fn write_file(&self, path: &str, place: &Path) -> io::Result<()> {
        let node = self.disk.tree.resolve_file(path).map_err(os_error)?;
        let node = self.disk.tree.file(node);
        let file = File::create(place)?;
        file.set_len(node.size())?;
        let mut block = [0; BLOCK];
        for at in (0..node.size()).step_by(BLOCK) {
            let len = node.read(at, &mut block);
            if block[..len].iter().any(|&byte| byte != 0) {
                file.write_all_at(&block[..len], at)?;
            }
        }
        Ok(())
    }
}

fn os_error(error: DiskError) -> io::Error {
    io::Error::from_raw_os_error(error.0)
}
