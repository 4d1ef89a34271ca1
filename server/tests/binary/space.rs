//! A disk that fills up, and has space again.

use std::fs::File;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_server::wire::error;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::process::{Client, Server, command, new_dir};
use super::{consume, create, now_ms, produce, try_produce};

/// More than others on the disk take or free meanwhile.
const MARGIN: u64 = 2 << 30;

/// Produces until the answer has this error code.
fn until(client: &mut Client, code: i16) {
    let started = Instant::now();
    loop {
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord {
            timestamp_ms: now_ms(),
            value: Some(b"more"),
            ..NewRecord::default()
        });
        let batch = Bytes::from(builder.build().expect("a batch"));
        let (found, _) = try_produce(client, "t", batch);
        if found == code {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "still {found}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn producing_stops_before_the_disk_is_full_and_goes_on_by_itself() {
    let dir = new_dir();
    let disk = statvfs(dir.path()).expect("a disk");
    let free = disk.f_bavail * disk.f_frsize;
    if free < 3 * MARGIN {
        eprintln!("left out: the disk has only {free} bytes free");
        return;
    }
    let least = format!("ringlog.disk.free.min.bytes={}", free - MARGIN);
    let data = dir.path().join("data");
    let server = Server::start(command(&data).args(["--set", &least]));
    let mut client = server.connect();
    create(&mut client, "t");
    assert_eq!(produce(&mut client, "t", "first"), 0);
    let ballast = dir.path().join("ballast");
    let file = File::create(&ballast).expect("creates");
    if let Err(error) = fallocate(&file, FallocateFlags::empty(), 0, 2 * MARGIN) {
        eprintln!("left out: {error}");
        return;
    }
    until(&mut client, error::KAFKA_STORAGE_ERROR);
    assert_eq!(consume(&mut client, "t", 1)[0], "first", "reads go on");
    drop(file);
    std::fs::remove_file(&ballast).expect("removes");
    until(&mut client, error::NONE);
    assert_eq!(server.stop(), 0);
}
