//! Watches the free space of the data directory's disk, so that producing stops before anything fails for want of it.

use std::path::PathBuf;
use std::time::Duration;

use ringlog_engine::shard::MailSender;
use rustix::fs::statvfs;

use crate::app::Mail;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is watched, and who is told.
pub(super) struct Space {
    /// The data directory.
    pub(super) data: PathBuf,
    /// Free bytes that are to be left.
    pub(super) free_bytes_min: u64,
    /// The shards.
    pub(super) shards: Vec<MailSender<Mail>>,
}

impl Space {
    /// Looks as long as the shards are there. They hear of changes only.
    pub(super) fn watch(self) {
        let mut short = false;
        loop {
            match self.free_bytes() {
                Ok(free_bytes) => {
                    let now_short = free_bytes < self.free_bytes_min;
                    if now_short != short && !self.tell(now_short, free_bytes) {
                        return;
                    }
                    short = now_short;
                }
                Err(error) => tracing::warn!(%error, "the free space of the disk is unknown"),
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn free_bytes(&self) -> rustix::io::Result<u64> {
        let stat = statvfs(&self.data)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// False when the shards are gone.
    fn tell(&self, short: bool, free_bytes: u64) -> bool {
        let least = self.free_bytes_min;
        if short {
            tracing::error!(
                free_bytes,
                "the disk is nearly full: producing is refused until {least} bytes are free \
                 (ringlog.disk.free.min.bytes); delete topics or other files"
            );
        } else {
            tracing::warn!(free_bytes, "the disk has space again: producing goes on");
        }
        self.shards
            .iter()
            .all(|shard| shard.send(Mail::SpaceShort(short)))
    }
}
