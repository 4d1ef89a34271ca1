//! The loops of `ringlog-disk` on a real disk, made short.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringlog_benches::disk::commit::{self, Commit};
use ringlog_benches::disk::read::{self, Read, ReadMode};
use ringlog_benches::disk::report::{Row, table};
use ringlog_benches::disk::twice::{self, Twice};
use ringlog_benches::disk::{BenchError, Scratch};

const MIB: u64 = 1 << 20;

fn scratch() -> (Scratch, Arc<AtomicBool>) {
    let stop = Arc::new(AtomicBool::new(false));
    // Not the system's folder for temporary files: that may lie in memory, without O_DIRECT.
    let folder = env!("CARGO_TARGET_TMPDIR").as_ref();
    let scratch = Scratch::new(folder, Arc::clone(&stop)).expect("a scratch folder");
    (scratch, stop)
}

fn files(scratch: &Scratch) -> usize {
    let entries = std::fs::read_dir(scratch.path());
    entries.expect("the scratch folder").count()
}

#[test]
fn commits_go_round_in_their_file() {
    let (scratch, _) = scratch();
    commit::prepare(&scratch, MIB, true).unwrap();
    let setting = Commit {
        size: 65_536,
        in_flight: 3,
        file_bytes: MIB,
        duration: Duration::from_millis(100),
        rate: None,
        read_block: None,
    };
    let figures = commit::run(&scratch, &setting).unwrap();
    assert!(table(&[Row::new("commit", serde_json::Map::new(), &[figures])]).contains("commit"));
    assert_eq!(
        std::fs::metadata(scratch.path().join("journal"))
            .unwrap()
            .len(),
        MIB
    );
    for odd in [
        Commit {
            size: 5000,
            ..setting
        },
        Commit {
            read_block: Some(5000),
            ..setting
        },
    ] {
        assert!(matches!(
            commit::run(&scratch, &odd),
            Err(BenchError::Settings(_))
        ));
    }
    let paced = Commit {
        rate: Some(100.0),
        read_block: Some(4096),
        duration: Duration::from_millis(500),
        ..setting
    };
    let figures = commit::run(&scratch, &paced).unwrap();
    let row = Row::new("commit", serde_json::Map::new(), &[figures]);
    assert!(
        (10.0..=105.0).contains(&row.operations_per_s.median),
        "{row:?}"
    );
    assert!(row.beside_mb_per_s.unwrap().median > 0.0);
}

#[test]
fn every_byte_is_written_twice_and_nothing_stays() {
    let (scratch, _) = scratch();
    let setting = Twice {
        frame: 256 << 10,
        in_flight: 2,
        partitions: 5,
        journal_bytes: 4 * MIB,
        round_bytes: 2 * MIB,
        total_bytes: 17 * MIB,
    };
    twice::prepare(&scratch, &setting).unwrap();
    twice::run(&scratch, &setting).unwrap();
    assert_eq!(files(&scratch), 1, "the journal alone is left");
    let long = Twice {
        round_bytes: 3 * MIB,
        ..setting
    };
    assert!(matches!(
        twice::run(&scratch, &long),
        Err(BenchError::Settings(_))
    ));
}

#[test]
fn every_way_of_reading_reads_all() {
    let (scratch, _) = scratch();
    read::prepare(&scratch, 3 * MIB).unwrap();
    for mode in [ReadMode::Direct, ReadMode::Cold, ReadMode::Hot] {
        // A depth of 4 reads past the end at last: that must not count as an error or as bytes.
        let setting = Read {
            mode,
            block: 2 << 20,
            depth: 4,
            file_bytes: 3 * MIB,
        };
        read::run(&scratch, &setting).unwrap();
    }
}

#[test]
fn an_interrupt_ends_every_loop_and_clears_up() {
    let (scratch, stop) = scratch();
    let setting = Twice {
        frame: 256 << 10,
        in_flight: 2,
        partitions: 3,
        journal_bytes: 4 * MIB,
        round_bytes: 2 * MIB,
        total_bytes: 1 << 40,
    };
    // A terabyte needs more space than there may be: prepare for less.
    twice::prepare(
        &scratch,
        &Twice {
            total_bytes: MIB,
            ..setting
        },
    )
    .unwrap();
    let path = scratch.path().to_owned();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            stop.store(true, Ordering::Relaxed);
        });
        assert!(matches!(
            twice::run(&scratch, &setting),
            Err(BenchError::Interrupted)
        ));
    });
    drop(scratch);
    assert!(!path.exists());
}
