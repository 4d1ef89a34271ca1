//! A disk that fills up, and has space again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_server::wire::error;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tempfile::TempDir;

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

/// A small file system of its own, for those who may mount one.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn new(bytes: u64) -> Option<Self> {
        let dir = new_dir();
        let image = dir.path().join("image");
        File::create(&image)
            .expect("creates")
            .set_len(bytes)
            .expect("sparse");
        std::fs::create_dir(dir.path().join("mount")).expect("creates");
        let disk = Self { dir };
        let run = |command: &mut Command| command.output().is_ok_and(|o| o.status.success());
        let ready = run(Command::new("mkfs.ext4").arg("-q").arg(&image))
            && run(Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(disk.path()));
        ready.then_some(disk)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Not mounted, if it never was.
        drop(Command::new("umount").arg("-l").arg(self.path()).output());
    }
}

/// Takes every block that is left.
fn fill_up(path: &Path) {
    let file = File::create(path).expect("creates");
    let mut at = 0;
    for step in [64 << 20, 1 << 20, 4096] {
        while fallocate(&file, FallocateFlags::empty(), at, step).is_ok() {
            at += step;
        }
    }
}

/// Bytes of all partitions' segments.
fn segment_bytes(data: &Path) -> u64 {
    let list = |dir: &Path| {
        std::fs::read_dir(dir)
            .expect("lists")
            .map(|e| e.expect("an entry"))
    };
    let partitions = list(&data.join("topics"));
    let files = partitions.flat_map(|partition| list(&partition.path()));
    let logs = files.filter(|file| file.path().extension().is_some_and(|e| e == "log"));
    logs.map(|log| log.metadata().expect("a file").len()).sum()
}

/// Fills a disk until producing is refused; then reads, makes space, and produces again.
fn fill(least: &str) {
    let Some(disk) = SmallDisk::new(544 << 20) else {
        eprintln!("left out: no file system can be mounted here");
        return;
    };
    let ballast = disk.path().join("ballast");
    let file = File::create(&ballast).expect("creates");
    fallocate(&file, FallocateFlags::empty(), 0, 220 << 20).expect("there is room");
    drop(file);
    let data = disk.path().join("data");
    let least = format!("ringlog.disk.free.min.bytes={least}");
    let others = disk.path().join("others");
    let mut server = Server::start(command(&data).args(["--set", &least]));
    let mut client = server.connect();
    create(&mut client, "t");
    let value = "v".repeat(500 << 10);
    let (mut acked, mut code) = (0, 0);
    while code == 0 {
        assert!(acked < 2000, "the disk is never full");
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord {
            timestamp_ms: now_ms(),
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        });
        let batch = Bytes::from(builder.build().expect("a batch"));
        code = try_produce(&mut client, "t", batch).0;
        acked += usize::from(code == 0);
        if acked == 20 && least == "ringlog.disk.free.min.bytes=0" {
            fill_up(&others);
        }
    }
    assert_eq!(code, error::KAFKA_STORAGE_ERROR);
    let read = consume(&mut client, "t", acked);
    assert!(read.iter().all(|r| *r == value), "reads go on");
    if others.exists() {
        // Nothing that was accepted is kept from its segment, and a start finds the room it needs.
        drop(client);
        assert_eq!(server.stop(), 0);
        let stored = segment_bytes(&data);
        // The last part of a block is in the checkpoint.
        assert!(
            stored + 4096 >= (acked * value.len()) as u64,
            "{stored} bytes"
        );
        server = Server::start(command(&data).args(["--set", &least]));
        client = server.connect();
        let read = consume(&mut client, "t", acked);
        assert!(read.iter().all(|r| *r == value), "reads go on");
        std::fs::remove_file(&others).expect("removes");
    }
    std::fs::remove_file(&ballast).expect("removes");
    until(&mut client, error::NONE);
    drop(client);
    assert_eq!(server.stop(), 0);
    // All of it is there after a restart as well.
    let server = Server::start(command(&data).args(["--set", &least]));
    let read = consume(&mut server.connect(), "t", acked);
    assert!(read[..acked].iter().all(|r| *r == value));
}

#[test]
fn a_full_disk_refuses_records_and_loses_none() {
    fill("0");
}

#[test]
fn a_nearly_full_disk_refuses_records_and_loses_none() {
    fill("67108864");
}
