//! Reading one shard's journal of the last run: which frames count, and whether anything acknowledged is damaged.

use std::collections::BTreeMap;

use crate::buf::{AlignedBuf, BLOCK};
use crate::disk::{Disk, OpenMode};
use crate::id::{FrameSeq, PartitionKey};
use crate::journal::{FileHeader, FrameFault, FrameHeader, Incarnation, entries, scan_block};
use crate::store::{journal_dir, journal_file_parse};

use super::{RecoveryError, RecoveryOptions, RunInfo, at};

/// A journal file in memory.
struct File {
    name: String,
    bytes: AlignedBuf,
}

#[derive(Clone, Copy)]
struct Found {
    file: usize,
    at: usize,
    header: FrameHeader,
}

/// A batch that only the journal holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replayed {
    file: usize,
    at: usize,
    len: usize,
    pub(super) roll: bool,
}

/// The frames of one shard that count.
pub(super) struct ShardJournal {
    files: Vec<File>,
    frames: Vec<Found>,
    /// Generation of the newest checkpoint that an intact frame says was durable.
    checkpoint: u64,
}

impl ShardJournal {
    /// Reads the journal files of `shard` and decides which frames behind `cut` count: the contiguous ones. A
    /// frame that is missing although a later one vouches that it was durable is damage.
    ///
    /// # Errors
    /// [`RecoveryError::Damaged`] names the file and byte; or the disk failed.
    pub(super) fn read(
        disk: &mut dyn Disk,
        shard: u32,
        run: RunInfo,
        cut: FrameSeq,
        options: &RecoveryOptions,
    ) -> Result<Self, RecoveryError> {
        let files = read_files(disk, shard)?;
        let mut good: BTreeMap<u64, Found> = BTreeMap::new();
        let mut vouched = FrameSeq(0);
        let mut bad = Vec::new();
        let mut checkpoint = 0;
        for (number, file) in files.iter().enumerate() {
            let Some(header) = FileHeader::read(&file.bytes) else {
                refuse_headless(number, file, run, cut)?;
                continue;
            };
            let ours = header.dir_id() == run.dir_id
                && header.shard() == shard
                && header.incarnation().run() == run.run;
            if !ours && !options.mutations.accept_reused_frames {
                continue;
            }
            // Files are used again once a checkpoint covers them: one that is older than that is not the newest.
            vouched = vouched.max(header.released());
            let incarnation =
                (!options.mutations.accept_reused_frames).then(|| header.incarnation());
            scan_file(number, file, incarnation, &mut |found| match found {
                Ok(found) => {
                    vouched = vouched.max(found.header.durable_seq());
                    if found.header.incarnation().run() == run.run {
                        checkpoint = checkpoint.max(found.header.checkpoint());
                    }
                    good.insert(found.header.seq().0, found);
                }
                Err((at, header)) => bad.push((number, at, header)),
            });
        }
        let mut frames = Vec::new();
        let mut next = cut.0 + 1;
        while let Some(&found) = good.get(&next) {
            frames.push(found);
            next += 1;
        }
        if vouched.0 >= next {
            return Err(damaged(shard, next, vouched, &files, &bad));
        }
        for pair in frames.windows(2) {
            if pair[1].header.previous_crc() != pair[0].header.crc() {
                let seq = pair[1].header.seq().0;
                let name = &files[pair[1].file].name;
                return Err(RecoveryError::Damaged(format!(
                    "{name}: journal frame {seq} does not continue the frame before it; restore the file from a backup"
                )));
            }
        }
        Ok(Self {
            files,
            frames,
            checkpoint,
        })
    }

    /// Generation of the newest checkpoint of the shard that something durable says was durable; 0 for none.
    pub(super) fn checkpoint(&self) -> u64 {
        self.checkpoint
    }

    /// Frames that count.
    pub(super) fn frame_count(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Every batch in order.
    ///
    /// # Errors
    /// [`RecoveryError::Format`] when an intact frame cannot be read: another version wrote it.
    pub(super) fn batches(
        &self,
        mut each: impl FnMut(PartitionKey, Replayed, &[u8]) -> Result<(), RecoveryError>,
    ) -> Result<(), RecoveryError> {
        for found in &self.frames {
            let start = found.at + FrameHeader::LEN;
            let file = &self.files[found.file];
            let payload = &file.bytes[start..start + found.header.payload_len()];
            for entry in entries(payload) {
                let entry = entry.map_err(|error| {
                    RecoveryError::Format(format!(
                        "{}: frame {} at byte {}: {error}; another version wrote it",
                        file.name,
                        found.header.seq().0,
                        found.at
                    ))
                })?;
                let replayed = Replayed {
                    file: found.file,
                    at: start + entry.at,
                    len: entry.len,
                    roll: entry.roll,
                };
                each(
                    entry.key,
                    replayed,
                    &payload[entry.at..entry.at + entry.len],
                )?;
            }
        }
        Ok(())
    }

    /// The bytes of a batch.
    pub(super) fn bytes(&self, batch: Replayed) -> &[u8] {
        &self.files[batch.file].bytes[batch.at..batch.at + batch.len]
    }
}

fn read_files(disk: &mut dyn Disk, shard: u32) -> Result<Vec<File>, RecoveryError> {
    let dir = journal_dir(shard);
    let mut files = Vec::new();
    let names = match disk.list(&dir) {
        Ok(names) => names,
        Err(crate::disk::DiskError::NOT_FOUND) => return Ok(files),
        Err(error) => return Err(at(&dir)(error)),
    };
    for (name, _) in names {
        if journal_file_parse(&name).is_none() {
            continue;
        }
        let path = format!("{dir}/{name}");
        let file = disk.open(&path, OpenMode::ReadDirect).map_err(at(&path))?;
        // A file that was being created may have any size; what is there is what counts.
        let size = disk.size(file).map_err(at(&path))? as usize;
        if size > BLOCK {
            let mut bytes = AlignedBuf::zeroed(size.next_multiple_of(BLOCK));
            let read = disk.read_at(file, 0, &mut bytes).map_err(at(&path))?;
            bytes.set_len(read);
            files.push(File { name: path, bytes });
        }
        disk.close(file);
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// A file whose header cannot be read is being created or prepared for its next use, and holds no frame that counts.
/// If it does, the header is damaged.
fn refuse_headless(
    number: usize,
    file: &File,
    run: RunInfo,
    cut: FrameSeq,
) -> Result<(), RecoveryError> {
    let mut lost = None;
    scan_file(number, file, None, &mut |found| {
        let header = match found {
            Ok(found) => found.header,
            Err((_, header)) => header,
        };
        if header.incarnation().run() == run.run && header.seq() > cut {
            lost = lost.or(Some(header.seq()));
        }
    });
    match lost {
        None => Ok(()),
        Some(seq) => Err(RecoveryError::Damaged(format!(
            "{}: the file's header is damaged, and it holds journal frame {}; nothing was changed: restore the file \
             from a backup, or move the data directory aside to start empty",
            file.name, seq.0
        ))),
    }
}

/// Looks at every block of a file that may start a frame; goes on past bad ones.
fn scan_file(
    number: usize,
    file: &File,
    incarnation: Option<Incarnation>,
    each: &mut dyn FnMut(Result<Found, (usize, FrameHeader)>),
) {
    let mut position = BLOCK;
    while position + FrameHeader::LEN <= file.bytes.len() {
        match scan_block(&file.bytes[position..], incarnation) {
            Ok(frame) => {
                each(Ok(Found {
                    file: number,
                    at: position,
                    header: frame.header,
                }));
                position += frame.disk_len;
            }
            Err(FrameFault::Payload(header)) => {
                each(Err((position, header)));
                position += BLOCK;
            }
            Err(FrameFault::NoHeader | FrameFault::TooLong) => position += BLOCK,
        }
    }
}

fn damaged(
    shard: u32,
    missing: u64,
    vouched: FrameSeq,
    files: &[File],
    bad: &[(usize, usize, FrameHeader)],
) -> RecoveryError {
    let place = bad.iter().find(|(_, _, header)| header.seq().0 == missing);
    let place = place.map_or_else(
        || format!("shard {shard}: no intact journal frame {missing}"),
        |&(file, at, _)| {
            format!(
                "{}: journal frame {missing} at byte {at} is damaged",
                files[file].name
            )
        },
    );
    RecoveryError::Damaged(format!(
        "{place}, although everything up to frame {} had been acknowledged; nothing was changed: restore the file \
         from a backup, or move the data directory aside to start empty",
        vouched.0
    ))
}
