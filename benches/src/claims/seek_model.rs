//! What a disk with a moving head would show: a model, never a measurement.

use serde::Serialize;

/// A disk, or several as one, described by what its maker prints.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SeekModel {
    /// What it stands for.
    pub name: &'static str,
    /// Average seek, milliseconds.
    pub seek_ms: f64,
    /// Rotations a minute.
    pub rotations_per_minute: f64,
    /// Bytes a second that pass under the heads of one disk, in MB.
    pub transfer_mb_per_s: f64,
    /// Disks that carry data of a long transfer at once.
    pub data_disks: f64,
    /// Rotations that a small write waits for beyond the half one of any access: one where parity is read first.
    pub extra_rotations: f64,
}

/// One disk of 7,200 rotations a minute.
pub const SINGLE: SeekModel = SeekModel {
    name: "one disk, 7,200 rotations a minute",
    seek_ms: 8.5,
    rotations_per_minute: 7200.0,
    transfer_mb_per_s: 150.0,
    data_disks: 1.0,
    extra_rotations: 0.0,
};

/// Six such disks as RAID-5: the kind of array from which the documents' figures come. A small write reads data and
/// parity, waits one rotation, and writes both.
pub const RAID5: SeekModel = SeekModel {
    name: "six such disks as RAID-5",
    data_disks: 5.0,
    extra_rotations: 1.0,
    ..SINGLE
};

impl SeekModel {
    /// MB/s of one long transfer.
    #[must_use]
    pub fn sequential_mb_per_s(&self) -> f64 {
        self.transfer_mb_per_s * self.data_disks
    }

    /// MB/s of writes of `block` bytes at random places, one at a time.
    #[must_use]
    pub fn random_mb_per_s(&self, block: u64) -> f64 {
        let rotation_ms = 60_000.0 / self.rotations_per_minute;
        let wait_ms = self.seek_ms + rotation_ms * (0.5 + self.extra_rotations);
        let megabytes = block as f64 / 1e6;
        megabytes / (wait_ms / 1e3 + megabytes / self.sequential_mb_per_s())
    }

    /// How many times faster the long transfer is.
    #[must_use]
    pub fn ratio(&self, block: u64) -> f64 {
        self.sequential_mb_per_s() / self.random_mb_per_s(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_array_comes_near_the_documents_figures_and_large_blocks_do_not() {
        assert!((600.0..900.0).contains(&RAID5.sequential_mb_per_s()));
        let small = RAID5.random_mb_per_s(4096);
        assert!((0.1..0.3).contains(&small), "{small}");
        assert!(RAID5.ratio(4096) > 3000.0 && SINGLE.ratio(1 << 20) < 10.0);
    }
}
