//! What is recorded of a real directory is read back, and replayed with what a loss of power may leave.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;
use crate::buf::{AlignedBuf, BLOCK};
use crate::disk::{Disk, OpKind, OpenMode};
use crate::ring::RealDisk;
use crate::sim::Replay;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn block(byte: u8) -> AlignedBuf {
    let mut block = AlignedBuf::zeroed(BLOCK);
    block.fill(byte);
    block
}

/// Writes two blocks of `a/file`: one is synced with all names, the other is not. Then makes a name that nothing syncs.
fn record(data: &Path, path: &Path) {
    let recorder = Recorder::create(path).unwrap();
    let mut disk = RecordedDisk::new(RealDisk::new(data).unwrap(), Some(recorder));
    disk.create_dir("a").unwrap();
    disk.sync_dir("").unwrap();
    let file = disk.open("a/file", OpenMode::WriteDirect).unwrap();
    disk.write_at(file, 0, &block(1)).unwrap();
    disk.sync(file).unwrap();
    disk.sync_dir("a").unwrap();
    disk.write_at(file, BLOCK as u64, &block(2)).unwrap();
    disk.close(file);
    let late = disk.open("a/late", OpenMode::WriteDirect).unwrap();
    disk.close(late);
}

fn replay(path: &Path, events: usize) -> Replay {
    let mut replay = Replay::new();
    for event in Records::open(path).unwrap().take(events) {
        replay.apply(event.unwrap()).unwrap();
    }
    replay
}

#[test]
fn only_what_was_synced_survives_every_loss_of_power() {
    let (data, place) = (folder(), folder());
    let path = place.path().join("record");
    record(data.path(), &path);
    let replay = replay(&path, usize::MAX);
    let (mut sizes, mut late) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..200 {
        let image = folder();
        replay.lose_power(seed).write_to(image.path()).unwrap();
        let bytes = fs::read(image.path().join("a/file")).unwrap();
        assert!(
            bytes[..BLOCK].iter().all(|&byte| byte == 1),
            "a synced block is gone"
        );
        sizes.insert(bytes.len());
        late.insert(image.path().join("a/late").exists());
    }
    assert_eq!(sizes, BTreeSet::from([BLOCK, 2 * BLOCK]));
    assert_eq!(late, BTreeSet::from([false, true]));
}

#[test]
fn an_earlier_moment_has_less() {
    let (data, place) = (folder(), folder());
    let path = place.path().join("record");
    record(data.path(), &path);
    let nothing = folder();
    replay(&path, 0)
        .lose_power(1)
        .write_to(nothing.path())
        .unwrap();
    assert_eq!(fs::read_dir(nothing.path()).unwrap().count(), 0);
    // The directory's sync was handed over and had not ended.
    let before: BTreeSet<bool> = (0..100)
        .map(|seed| {
            let image = folder();
            replay(&path, 3)
                .lose_power(seed)
                .write_to(image.path())
                .unwrap();
            image.path().join("a").exists()
        })
        .collect();
    assert_eq!(before, BTreeSet::from([false, true]));
}

#[test]
fn events_come_back_as_they_were() {
    let (data, place) = (folder(), folder());
    let path = place.path().join("record");
    record(data.path(), &path);
    let events: Vec<Event> = Records::open(&path).unwrap().map(Result::unwrap).collect();
    assert!(events.is_sorted_by_key(|event| event.time_ns));
    assert!(events.iter().all(|event| event.shard == RECOVERY));
    let written: Vec<(u64, u8)> = events
        .iter()
        .filter_map(|event| match &event.what {
            What::Begin(op) => match &op.kind {
                OpKind::Write { offset, data, .. } => Some((*offset, data[0])),
                _ => None,
            },
            What::End { .. } => None,
        })
        .collect();
    assert_eq!(written, [(0, 1), (BLOCK as u64, 2)]);

    // A killed process may leave half an event.
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(Records::open(&path).unwrap().count(), events.len() - 1);
    // Anything else is said.
    let mut wrong = bytes.clone();
    wrong[MAGIC.len() + 38] = 99;
    fs::write(&path, &wrong).unwrap();
    let first = Records::open(&path).unwrap().next().unwrap();
    assert!(matches!(first, Err(RecordError::Damaged(1))), "{first:?}");
    fs::write(&path, b"").unwrap();
    assert!(matches!(Records::open(&path), Err(RecordError::Header)));
}
