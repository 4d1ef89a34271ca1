//! Sound directories are found sound, and every damage is found and named.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run::{fails, fed_well, well};
use crate::server::{Server, new_dir, ringlog};

/// Batches of many records of different lengths, for segments of a megabyte.
fn input() -> Vec<u8> {
    let line = |n: u32| format!("{n} {}\n", "x".repeat((n % 300) as usize));
    (0..30_000).map(line).collect::<String>().into_bytes()
}

/// A directory with sealed segments, an open one, and frames in the journal; stopped cleanly or killed.
pub(crate) fn filled(data: &Path, clean: bool) {
    let server = Server::start(data);
    well(&mut server.ringlog(&["topic", "create", "logs", "-c", "segment.bytes=1048576"]));
    well(&mut server.ringlog(&["topic", "create", "small", "-p", "3"]));
    fed_well(
        &mut server.ringlog(&["produce", "logs", "--batch-bytes", "20000"]),
        &input(),
    );
    fed_well(
        &mut server.ringlog(&["produce", "small", "-z", "lz4"]),
        b"one\ntwo\n",
    );
    if clean {
        return server.stop();
    }
    // What came first is in segments as soon as nothing else comes.
    let deadline = Instant::now() + Duration::from_secs(30);
    while files(data, ".index").len() < 3 || !data.join("shard-0/checkpoint-0").exists() {
        assert!(Instant::now() < deadline, "no segment is sealed");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Once more, and no time to store it anywhere but in the journal.
    fed_well(
        &mut server.ringlog(&["produce", "logs", "--batch-bytes", "20000"]),
        &input(),
    );
    server.kill();
}

/// What `ringlog verify --json` says, and its status.
fn verify(data: &Path) -> (i32, Value) {
    let output = ringlog(&["verify", "--json", data.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let status = output.status.code().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {errors}"));
    (status, json)
}

/// Files named by faults, or by notes and faults.
fn named(json: &Value, kinds: &[&str]) -> Vec<String> {
    let findings = kinds.iter().flat_map(|kind| json[kind].as_array().unwrap());
    findings
        .map(|finding| finding["file"].as_str().unwrap().to_owned())
        .collect()
}

/// Files below a directory whose path ends with this.
pub(crate) fn files(data: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![data.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.to_str().unwrap().ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Flips a bit, looks, and flips it back.
fn flipped(data: &Path, file: &Path, at: u64, bit: u8) -> (i32, Value) {
    let open = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    open.read_exact_at(&mut byte, at).unwrap();
    open.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
    let found = verify(data);
    open.write_all_at(&byte, at).unwrap();
    found
}

/// A flipped bit must be a fault that names the file.
fn found(data: &Path, file: &Path, at: u64, bit: u8) {
    let (status, json) = flipped(data, file, at, bit);
    let name = file.strip_prefix(data).unwrap().to_str().unwrap();
    assert!(
        status == 1 && named(&json, &["faults"]).iter().any(|file| name == file),
        "{name}, byte {at}, bit {bit}: {json:#}"
    );
}

#[test]
fn sound_directories_are_found_sound() {
    for clean in [true, false] {
        let data = new_dir();
        filled(data.path(), clean);
        let (status, json) = verify(data.path());
        assert_eq!((status, &json["clean"]), (0, &true.into()), "{json:#}");
        assert_eq!(named(&json, &["faults"]), [""; 0]);
        assert!(
            json["checked"]["segments"].as_u64().unwrap() >= 5,
            "{json:#}"
        );
        assert!(
            json["checked"]["index_entries"].as_u64().unwrap() >= 100,
            "{json:#}"
        );
        assert!(
            json["start"]
                .as_str()
                .unwrap()
                .starts_with("a start would serve")
        );
        // The next start does what was said, and what it leaves is sound.
        let server = Server::start(data.path());
        let lines = well(&mut server.ringlog(&["consume", "logs"]));
        assert_eq!(lines.lines().count(), if clean { 30_000 } else { 60_000 });
        server.stop();
        let text = well(&mut ringlog(&["verify", data.path().to_str().unwrap()]));
        assert!(text.contains("nothing is wrong"), "{text}");
    }
    // A new one, too.
    let data = new_dir();
    Server::start(data.path()).kill();
    assert_eq!(verify(data.path()).0, 0);
}

#[test]
fn a_directory_in_use_or_of_something_else_is_refused() {
    let data = new_dir();
    let path = data.path().to_str().unwrap().to_owned();
    let (status, line) = fails(&mut ringlog(&["verify", &path]));
    assert_eq!(status, 2);
    assert!(line.contains("no data directory of ringlog"), "{line}");
    // Kafka's.
    fs::write(data.path().join("meta.properties"), "version=1\n").unwrap();
    fs::create_dir(data.path().join("logs-0")).unwrap();
    assert_eq!(fails(&mut ringlog(&["verify", &path])).0, 2);
    let (status, line) = fails(&mut ringlog(&["verify", "/nowhere/at/all"]));
    assert!(status == 2 && line.contains("No such file"), "{line}");
    let data = new_dir();
    let server = Server::start(data.path());
    let (status, line) = fails(&mut ringlog(&["verify", data.path().to_str().unwrap()]));
    assert!(
        status == 2 && line.contains("in use by a running server"),
        "{line}"
    );
    server.stop();
    // A checkpoint of the version before, as its header would be.
    let slot = data.path().join("checkpoint-1");
    let mut bytes = fs::read(&slot).unwrap();
    bytes[4..6].copy_from_slice(&1u16.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..72]);
    bytes[72..76].copy_from_slice(&crc.to_le_bytes());
    fs::write(&slot, bytes).unwrap();
    let (status, json) = verify(data.path());
    assert_eq!(status, 1);
    assert!(
        json["faults"][0]["what"]
            .as_str()
            .unwrap()
            .contains("has version 1 of the format"),
        "{json:#}"
    );
    assert!(
        json["start"]
            .as_str()
            .unwrap()
            .contains("a start would refuse"),
        "{json:#}"
    );
}

#[test]
fn every_flipped_bit_of_a_segment_is_found() {
    let data = new_dir();
    let data = data.path();
    filled(data, true);
    let logs: Vec<_> = files(data, ".log")
        .into_iter()
        .filter(|p| p.to_str().unwrap().contains("/logs-0."))
        .collect();
    assert!(logs.len() >= 4);
    let (first, last) = (&logs[0], &logs[logs.len() - 1]);
    let second_batch = {
        let bytes = fs::read(first).unwrap();
        12 + u64::from(u32::from_be_bytes(bytes[8..12].try_into().unwrap()))
    };
    // Every field of a header, whether the checksum covers it or not, and the records.
    for byte in (0..61).step_by(3).chain([100, 2000]) {
        found(data, first, second_batch + byte, (byte % 8) as u8);
    }
    for at in [0, 7, 15, 70, 4095] {
        found(data, last, at, 1);
    }
}

#[test]
fn every_flipped_bit_of_an_index_is_found() {
    let data = new_dir();
    let data = data.path();
    filled(data, true);
    for end in [".index", ".timeindex"] {
        let file = &files(data, end)[0];
        let len = fs::metadata(file).unwrap().len();
        assert!(len > 100, "{}", file.display());
        for at in (0..16).chain([len / 2, len - 1]) {
            found(data, file, at, (at % 8) as u8);
        }
    }
}

#[test]
fn damage_to_what_a_start_reads_is_found() {
    let data = new_dir();
    let data = data.path();
    filled(data, false);
    let (_, sound) = verify(data);
    let frames = sound["checked"]["journal_frames"].as_u64().unwrap();
    assert!(frames > 10, "{sound:#}");
    // The merged checkpoint of the run.
    let merged = data.join("checkpoint-1");
    for at in [0, 5, 20, 50, 75] {
        let (status, json) = flipped(data, &merged, at, 3);
        assert_eq!(
            (status, named(&json, &["faults"])),
            (1, vec!["checkpoint-1".into()]),
            "{at}"
        );
    }
    // The shard's checkpoints: a fault if a frame tells of a newer one than can be read, else worth a note.
    let slots = [
        data.join("shard-0/checkpoint-0"),
        data.join("shard-0/checkpoint-1"),
    ];
    for slot in slots.iter().filter(|slot| slot.exists()) {
        for at in [1, 30, 74, 5000] {
            let (_, json) = flipped(data, slot, at, 0);
            let name = slot.strip_prefix(data).unwrap().to_str().unwrap();
            let files = named(&json, &["faults", "notes"]);
            assert!(
                files.iter().any(|file| file == name),
                "{name}, byte {at}: {json:#}"
            );
        }
    }
    // The first frame that counts, and its file's header.
    let lines = well(&mut ringlog(&[
        "dump",
        "--json",
        data.join("shard-0/journal").to_str().unwrap(),
    ]));
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let newest = lines
        .iter()
        .filter(|l| l["kind"] == "frame")
        .map(|l| l["seq"].as_u64().unwrap())
        .max()
        .unwrap();
    let counts =
        |l: &&Value| l["seq"].as_u64() > Some(newest - frames) && l["entries"].as_u64() > Some(0);
    let mut of_frames = lines.iter().filter(|l| l["kind"] == "frame");
    let frame = of_frames.find(counts).unwrap();
    let file = Path::new(frame["file"].as_str().unwrap());
    let at = frame["at"].as_u64().unwrap();
    for byte in [0, 4, 9, 17, 30, 33, 40, 45, 50, 64, 70, 300] {
        found(data, file, at + byte, 5);
    }
    for byte in [0, 4, 9, 33, 48] {
        found(data, file, byte, 2);
    }
    // The catalog, wherever a topic's name lies in it. Pages that are no longer used may hold it, too.
    let catalog = data.join("catalog");
    let bytes = fs::read(&catalog).unwrap();
    let places: Vec<_> = (0..bytes.len() - 5)
        .filter(|&at| &bytes[at..at + 5] == b"small")
        .collect();
    let found = places.iter().filter(|&&at| {
        let (_, json) = flipped(data, &catalog, at as u64, 1);
        named(&json, &["faults"]).contains(&"catalog".into())
    });
    assert!(found.count() > 0);
    assert_eq!(verify(data), (0, sound), "everything was put back");
}

#[test]
fn cut_files_are_found() {
    let data = new_dir();
    let data = data.path();
    filled(data, true);
    let (logs, indexes) = (files(data, ".log"), files(data, ".index"));
    let logs: Vec<_> = logs
        .iter()
        .filter(|p| p.to_str().unwrap().contains("/logs-0."))
        .collect();
    let times = files(data, ".timeindex");
    let some = [
        logs[0].clone(),
        logs[logs.len() - 1].clone(),
        indexes[0].clone(),
        times[0].clone(),
        data.join("checkpoint-1"),
        data.join("catalog"),
    ];
    for file in some {
        let bytes = fs::read(&file).unwrap();
        let name = file.strip_prefix(data).unwrap().to_str().unwrap();
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            // A checkpoint with nothing behind its header block is whole; an empty slot was never written.
            if name == "checkpoint-1" && len >= 4096 {
                continue;
            }
            fs::write(&file, &bytes[..len]).unwrap();
            let (status, json) = verify(data);
            assert_eq!(status, 1, "{name}, {len} bytes: {json:#}");
            let files = named(&json, &["faults"]);
            let is_named =
                files.iter().any(|file| file == name) || (name == "checkpoint-1" && len == 0);
            // The index of an entry less is an index: its file is whole.
            assert!(
                is_named || files.is_empty(),
                "{name}, {len} bytes: {json:#}"
            );
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(verify(data).0, 1, "without {name}");
        fs::write(&file, &bytes).unwrap();
    }
    assert_eq!(verify(data).0, 0, "everything was put back");
}

#[test]
fn nothing_is_changed() {
    let data = new_dir();
    filled(data.path(), false);
    let all = || -> Vec<(PathBuf, Vec<u8>)> {
        files(data.path(), "")
            .into_iter()
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    };
    let before = all();
    assert_eq!(verify(data.path()).0, 0);
    well(&mut ringlog(&["dump", data.path().to_str().unwrap()]));
    assert!(before == all());
    // Directories of deleted topics and strange files are told, and are no fault.
    fs::write(data.path().join("stranger"), "").unwrap();
    fs::create_dir(
        data.path()
            .join("topics/gone-0.00000000000000000000000000000000"),
    )
    .unwrap();
    let (status, json) = verify(data.path());
    assert_eq!((status, named(&json, &["notes"]).len()), (0, 2), "{json:#}");
    let mut command: Command = ringlog(&["verify", data.path().to_str().unwrap()]);
    let text = well(&mut command);
    assert!(
        text.contains("note stranger: is nothing that ringlog makes"),
        "{text}"
    );
}
