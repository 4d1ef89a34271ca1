//! What the simulated disk keeps, loses and refuses: the tests of the test bench itself.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use ringlog_engine::buf::{AlignedBuf, BLOCK};
use ringlog_engine::disk::{
    Completion, Disk, DiskError, FileId, Lane, Op, OpId, OpKind, OpenMode, Returned, WriteData,
};
use ringlog_engine::sim::{DiskConfig, Faults, Rng, SimDisk};

/// A core that asks one thing at a time.
struct Caller {
    disk: SimDisk,
    next_op: u64,
    now_ns: u64,
}

impl Caller {
    fn new(seed: u64) -> Self {
        Self {
            disk: SimDisk::new(Rng::new(seed), DiskConfig::default()),
            next_op: 0,
            now_ns: 0,
        }
    }

    fn submit(&mut self, kind: OpKind) {
        self.next_op += 1;
        let op = Op {
            id: OpId(self.next_op),
            lane: Lane::Background,
            kind,
        };
        self.disk.submit(0, self.now_ns, op);
    }

    /// Carries out everything in flight.
    fn drain(&mut self) -> Vec<Completion> {
        let mut done = Vec::new();
        while let Some(due) = self.disk.next_due_ns() {
            self.now_ns = due;
            done.extend(self.disk.complete(due).map(|(_, completion)| completion));
        }
        done
    }

    fn call(&mut self, kind: OpKind) -> Completion {
        self.submit(kind);
        self.drain().pop().unwrap()
    }

    fn ok(&mut self, kind: OpKind) {
        self.call(kind).result.unwrap();
    }

    /// A file with one durable block.
    fn file_of(&mut self, byte: u8) {
        self.ok(create(1, "f"));
        self.ok(write(1, 0, byte, true));
        self.ok(sync_root());
    }
}

fn open(file: u64, path: &str, mode: OpenMode) -> OpKind {
    OpKind::Open {
        file: FileId(file),
        path: path.into(),
        mode,
    }
}

fn create(file: u64, path: &str) -> OpKind {
    open(file, path, OpenMode::WriteDirect)
}

fn block(byte: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(BLOCK);
    buf.fill(byte);
    buf
}

fn write(file: u64, index: u64, byte: u8, sync: bool) -> OpKind {
    OpKind::Write {
        file: FileId(file),
        offset: index * BLOCK as u64,
        data: WriteData::Owned(block(byte)),
        sync,
    }
}

fn sync(file: u64) -> OpKind {
    OpKind::Sync { file: FileId(file) }
}

fn sync_root() -> OpKind {
    OpKind::SyncDir { path: "".into() }
}

/// What a loss of power at the end of `script` leaves at `path`, over many seeds.
fn outcomes(path: &str, script: impl Fn(&mut Caller)) -> BTreeSet<Option<Vec<u8>>> {
    let outcome = |seed| {
        let mut caller = Caller::new(seed);
        script(&mut caller);
        caller.disk.lose_power();
        caller.disk.contents(path)
    };
    (0..400).map(outcome).collect()
}

fn uniform(byte: u8) -> Option<Vec<u8>> {
    Some(vec![byte; BLOCK])
}

#[test]
fn a_synced_overwrite_survives_and_an_unsynced_one_may_be_old_new_torn_or_garbage() {
    let seen = outcomes("f", |c| {
        c.file_of(b'a');
        c.ok(write(1, 0, b'b', false));
        c.ok(write(1, 0, b'c', false));
    });
    for expected in [uniform(b'a'), uniform(b'b'), uniform(b'c')] {
        assert!(seen.contains(&expected));
    }
    let seen: Vec<Vec<u8>> = seen.into_iter().flatten().collect();
    let is_mix = |bytes: &Vec<u8>| {
        bytes.iter().all(|b| b"abc".contains(b)) && bytes.iter().any(|&b| b != bytes[0])
    };
    assert!(seen.iter().any(is_mix), "sectors of old and new");
    assert!(seen.iter().any(|bytes| bytes.contains(&0x80)), "garbage");

    let synced = outcomes("f", |c| {
        c.file_of(b'a');
        c.ok(write(1, 0, b'b', true));
    });
    assert_eq!(synced, BTreeSet::from([uniform(b'b')]));
}

#[test]
fn a_name_is_durable_after_the_sync_of_its_directory_and_not_before() {
    let unsynced = outcomes("f", |c| {
        c.ok(create(1, "f"));
        c.ok(write(1, 0, b'a', true));
    });
    assert_eq!(unsynced, BTreeSet::from([None, uniform(b'a')]));

    // The directory was synced, the file was not: any part of it.
    let part = outcomes("f", |c| {
        c.ok(create(1, "f"));
        c.ok(write(1, 0, b'a', false));
        c.ok(sync_root());
    });
    assert!(!part.contains(&None));
    assert!(part.contains(&Some(Vec::new())) && part.contains(&uniform(b'a')));
    assert!(part.contains(&uniform(0)), "the size without the data");

    let all = outcomes("d/f", |c| {
        c.ok(OpKind::CreateDir { path: "d".into() });
        c.ok(create(1, "d/f"));
        c.ok(write(1, 0, b'a', false));
        c.ok(OpKind::SyncFs);
    });
    assert_eq!(all, BTreeSet::from([uniform(b'a')]));

    // A synced name in a directory whose own name is not.
    let parentless = outcomes("d/f", |c| {
        c.ok(OpKind::CreateDir { path: "d".into() });
        c.ok(create(1, "d/f"));
        c.ok(write(1, 0, b'a', true));
        c.ok(OpKind::SyncDir { path: "d".into() });
    });
    assert_eq!(parentless, BTreeSet::from([None, uniform(b'a')]));
}

#[test]
fn an_unsynced_removal_or_truncation_may_be_undone() {
    let unlink = || OpKind::Unlink { path: "f".into() };
    let seen = outcomes("f", |c| {
        c.file_of(b'a');
        c.ok(unlink());
    });
    assert_eq!(seen, BTreeSet::from([None, uniform(b'a')]));

    let gone = outcomes("f", |c| {
        c.file_of(b'a');
        c.ok(unlink());
        c.ok(sync_root());
    });
    assert_eq!(gone, BTreeSet::from([None]));

    let cut = outcomes("f", |c| {
        c.file_of(b'a');
        c.ok(OpKind::Truncate {
            file: FileId(1),
            len: 10,
        });
    });
    let lengths: BTreeSet<usize> = cut.iter().flatten().map(Vec::len).collect();
    assert_eq!(lengths, BTreeSet::from([10, BLOCK]));
    let head_kept = |bytes: &Vec<u8>| bytes[..10] == [b'a'; 10];
    assert!(
        cut.iter().flatten().all(head_kept),
        "what stays is not torn"
    );
}

#[test]
fn a_sync_covers_only_what_was_complete_when_it_was_submitted() {
    let seen = outcomes("f", |c| {
        c.ok(create(1, "f"));
        c.ok(sync_root());
        c.submit(write(1, 0, b'a', false));
        c.submit(sync(1));
        c.drain();
    });
    assert!(seen.len() > 1, "the sync may run before the write");
}

#[test]
fn after_a_failed_sync_the_data_reads_well_and_a_later_sync_does_not_save_it() {
    let seen = outcomes("f", |c| {
        c.file_of(b'a');
        c.ok(write(1, 0, b'b', false));
        c.disk.faults.sync_ppm = 1_000_000;
        assert_eq!(c.call(sync(1)).result, Err(DiskError::IO));
        c.disk.faults = Faults::default();
        c.ok(sync(1));
        c.ok(OpKind::SyncFs);
        assert_eq!(c.disk.contents("f"), uniform(b'b'));
    });
    assert!(seen.contains(&uniform(b'a')) && seen.contains(&uniform(b'b')));
}

#[test]
fn a_killed_process_loses_nothing_the_system_accepted() {
    for seed in 0..100 {
        let mut c = Caller::new(seed);
        c.ok(create(1, "f"));
        c.ok(write(1, 0, b'a', false));
        c.submit(write(1, 1, b'b', true));
        c.disk.kill();
        let bytes = c.disk.contents("f").unwrap();
        assert_eq!(bytes[..BLOCK], [b'a'; BLOCK]);
        assert!(bytes.len() == BLOCK || bytes[BLOCK..] == [b'b'; BLOCK]);
    }
}

#[test]
fn a_zeroed_file_is_durable_when_complete_and_any_part_of_it_before() {
    let zeroed = || OpKind::CreateZeroed {
        file: FileId(1),
        path: "j".into(),
        len: 2 * BLOCK as u64,
    };
    let done = outcomes("j", |c| c.ok(zeroed()));
    assert_eq!(done, BTreeSet::from([Some(vec![0; 2 * BLOCK])]));
    let begun = outcomes("j", |c| c.submit(zeroed()));
    assert!(begun.contains(&None) && begun.contains(&Some(Vec::new())));
    assert!(begun.contains(&uniform(0)) && begun.contains(&Some(vec![0; 2 * BLOCK])));
}

#[test]
fn a_full_disk_refuses_new_blocks_and_takes_overwrites() {
    let mut c = Caller::new(1);
    c.disk.faults.capacity_bytes = Some(2 * BLOCK as u64);
    c.ok(create(1, "f"));
    c.ok(write(1, 0, b'a', true));
    let allocate = |len| OpKind::Allocate {
        file: FileId(1),
        offset: 0,
        len,
    };
    assert_eq!(c.call(allocate(12288)).result, Err(DiskError::NO_SPACE));
    c.ok(allocate(8192));
    assert_eq!(
        c.call(write(1, 2, b'c', false)).result,
        Err(DiskError::NO_SPACE)
    );
    c.ok(write(1, 0, b'b', false));
    c.ok(write(1, 1, b'b', false));
    assert_eq!(c.disk.contents("f").unwrap().len(), 2 * BLOCK);
    c.ok(OpKind::Unlink { path: "f".into() });
    c.ok(create(2, "g"));
    c.ok(write(2, 0, b'c', false));
    c.ok(write(2, 1, b'c', false));
}

#[test]
fn reads_return_what_was_written_up_to_the_end() {
    let mut c = Caller::new(3);
    c.ok(create(1, "f"));
    c.ok(write(1, 0, b'a', false));
    c.ok(OpKind::Truncate {
        file: FileId(1),
        len: 100,
    });
    c.ok(open(2, "f", OpenMode::ReadDirect));
    let read = OpKind::Read {
        file: FileId(2),
        offset: 0,
        len: 2 * BLOCK,
        buf: AlignedBuf::with_capacity(2 * BLOCK),
    };
    let Returned::Buf(buf) = c.call(read).returned else {
        panic!("a read gives its buffer back");
    };
    assert_eq!(&buf[..], &[b'a'; 100]);
    let missing = open(3, "nothing", OpenMode::ReadBuffered);
    assert_eq!(c.call(missing).result, Err(DiskError::NOT_FOUND));
}

#[test]
fn a_crash_inside_blocking_calls_ends_every_later_one() {
    let mut disk = SimDisk::new(Rng::new(1), DiskConfig::default());
    let mut blocking = disk.blocking(Some(3));
    let file = blocking.open("f", OpenMode::WriteDirect).unwrap();
    blocking.write_at(file, 0, &block(b'a')).unwrap();
    blocking.sync(file).unwrap();
    assert!(!blocking.crashed());
    assert_eq!(blocking.sync_dir(""), Err(DiskError::IO));
    assert!(blocking.crashed());
    assert_eq!(blocking.list(""), Err(DiskError::IO));
    disk.lose_power();
    let after = disk.contents("f");
    assert!(after.is_none() || after == uniform(b'a'));
}

#[test]
#[should_panic(expected = "disk rule: segment block 0 written twice")]
fn a_segment_block_is_written_once() {
    let mut c = Caller::new(1);
    c.ok(create(1, "0.log"));
    c.ok(write(1, 0, b'a', false));
    c.ok(write(1, 0, b'b', false));
}

#[test]
#[should_panic(expected = "overlaps")]
fn a_block_is_not_read_while_it_is_written() {
    let mut c = Caller::new(1);
    c.file_of(b'a');
    c.ok(open(2, "f", OpenMode::ReadBuffered));
    c.submit(write(1, 0, b'b', false));
    c.submit(OpKind::Read {
        file: FileId(2),
        offset: 4000,
        len: 1,
        buf: AlignedBuf::with_capacity(1),
    });
}

#[test]
#[should_panic(expected = "disk rule: operation id used twice")]
fn operation_ids_are_not_reused() {
    let mut c = Caller::new(1);
    c.ok(create(1, "f"));
    c.next_op = 0;
    c.ok(sync(1));
}

#[test]
#[should_panic(expected = "is in flight")]
fn a_file_in_use_is_not_closed() {
    let mut c = Caller::new(1);
    c.ok(create(1, "f"));
    c.submit(write(1, 0, b'a', false));
    c.submit(OpKind::Close { file: FileId(1) });
}

#[test]
#[should_panic(expected = "is not open")]
fn a_closed_file_is_not_written() {
    let mut c = Caller::new(1);
    c.ok(create(1, "f"));
    c.ok(OpKind::Close { file: FileId(1) });
    c.ok(write(1, 0, b'a', false));
}

#[test]
fn a_name_of_more_than_255_bytes_is_refused() {
    let too_long = DiskError(36);
    let mut c = Caller::new(1);
    for (len, expected) in [(255, Ok(())), (256, Err(too_long))] {
        let path: Box<str> = "d".repeat(len).into();
        let made = c.call(OpKind::CreateDir { path: path.clone() }).result;
        assert_eq!(made, expected);
        let file = format!("{path}/f");
        assert_eq!(c.call(create(len as u64, &file)).result, expected);
        let mut blocking = c.disk.blocking(None);
        assert_eq!(blocking.create_dir(&path), expected);
    }
}
