//! Files with anything in them: shown or told in bounded memory, never a panic.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use proptest::prelude::*;
use tempfile::TempDir;

use crate::server::{Server, new_dir};

/// Address space that a look at any file must do with, KiB: the program itself takes half of it.
const MEMORY_KIB: u32 = 500_000;

/// Runs `ringlog` with little memory.
fn tight(arguments: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            &format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\""),
            env!("CARGO_BIN_EXE_ringlog"),
        ])
        .args(arguments);
    command.output().unwrap()
}

fn survives(arguments: &[&str]) -> Output {
    let output = tight(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = output.status.code();
    assert!(
        matches!(status, Some(0..=2)),
        "{arguments:?}: {:?}: {text}",
        output.status
    );
    assert!(!text.contains("panicked"), "{text}");
    output
}

fn dump(path: &Path) {
    survives(&["dump", "--json", "--records", path.to_str().unwrap()]);
}

#[test]
fn lengths_that_lie_ask_for_no_memory() {
    let dir = new_dir();
    let path = |name: &str| dir.path().join(name);
    // A batch of 2 GiB, and a body that says it has 2^31 records.
    let mut batch = vec![0u8; 100];
    batch[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    batch[16] = 2;
    batch[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    fs::write(path("0.log"), &batch).unwrap();
    dump(&path("0.log"));
    batch[8..12].copy_from_slice(&88i32.to_be_bytes());
    fs::write(path("0.log"), &batch).unwrap();
    dump(&path("0.log"));
    // A file with a hole of a terabyte that a checkpoint claims as its body; nothing of it is in memory at a time.
    let mut header = [0u8; 76];
    header[..4].copy_from_slice(b"RLCP");
    header[4..6].copy_from_slice(&2u16.to_le_bytes());
    header[56..64].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    header[64..68].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = crc32fast::hash(&header[..72]);
    header[72..].copy_from_slice(&crc.to_le_bytes());
    fs::write(path("checkpoint-0"), header).unwrap();
    dump(&path("checkpoint-0"));
    // The same with a body that has the right checksum, and a record that says it has 4 GiB.
    let body = u32::MAX.to_le_bytes();
    header[56..64].copy_from_slice(&4u64.to_le_bytes());
    header[68..72].copy_from_slice(&crc32fast::hash(&body).to_le_bytes());
    let crc = crc32fast::hash(&header[..72]);
    header[72..].copy_from_slice(&crc.to_le_bytes());
    let mut file = header.to_vec();
    file.resize(4096, 0);
    file.extend_from_slice(&body);
    fs::write(path("checkpoint-0"), file).unwrap();
    let output = survives(&["dump", path("checkpoint-0").to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("a record that cannot be read"));
    // A frame whose payload is 4 GiB.
    let mut frame = [0u8; 64];
    frame[..4].copy_from_slice(b"RLJF");
    frame[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = crc32fast::hash(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    let mut file = vec![0u8; 8192];
    file[4096..4160].copy_from_slice(&frame);
    fs::create_dir(path("journal")).unwrap();
    fs::write(path("journal/0-8192"), file).unwrap();
    let output = survives(&["dump", path("journal").to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("THE FILE ENDS BEFORE IT DOES"));
}

/// A small directory that a server left; damaged anew for each case.
fn template() -> TempDir {
    let data = new_dir();
    let server = Server::start(data.path());
    crate::run::well(&mut server.ringlog(&["topic", "create", "t"]));
    crate::run::fed_well(
        &mut server.ringlog(&["produce", "t"]),
        "line\n".repeat(5000).as_bytes(),
    );
    server.stop();
    // Sparse: what was never used is not copied.
    for file in crate::verify::files(data.path(), "") {
        if file.ends_with("reserve") {
            fs::remove_file(file).unwrap();
        }
    }
    data
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn files_of_garbage_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..9000), magic in 0..5usize) {
        let dir = new_dir();
        let magic: &[u8] = [&b""[..], b"RLJH", b"RLJF", b"RLCP", b"redb"][magic];
        let mut bytes = bytes;
        for (place, byte) in bytes.iter_mut().zip(magic) {
            *place = *byte;
        }
        for name in ["0.log", "0.index", "0.timeindex", "checkpoint-0", "0-8192", "any"] {
            fs::write(dir.path().join(name), &bytes).unwrap();
        }
        dump(dir.path());
        for kind in ["segment", "index", "timeindex", "journal", "checkpoint"] {
            survives(&["dump", "--kind", kind, dir.path().join("any").to_str().unwrap()]);
        }
        fs::create_dir_all(dir.path().join("shard-0/journal")).unwrap();
        fs::create_dir_all(dir.path().join("topics/t-0.00000000000000000000000000000001")).unwrap();
        for name in ["catalog", "checkpoint-1", "shard-0/checkpoint-0", "shard-0/journal/0-8192"] {
            fs::write(dir.path().join(name), &bytes).unwrap();
        }
        survives(&["verify", "--json", dir.path().to_str().unwrap()]);
    }
}

#[test]
fn directories_with_damage_anywhere_are_survived() {
    let data = template();
    let path = data.path().to_str().unwrap().to_owned();
    let files: Vec<_> = crate::verify::files(data.path(), "")
        .into_iter()
        .filter(|file| !file.ends_with("LOCK") && fs::metadata(file).unwrap().len() > 0)
        .collect();
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for round in 0..40 {
        let file = &files[round % files.len()];
        let whole = fs::read(file).unwrap();
        let mut bytes = whole.clone();
        for _ in 0..1 + next(8) {
            // Where files have their headers, mostly.
            let at = next((bytes.len() as u64).min(20_000)) as usize;
            bytes[at] ^= 1 << next(8);
        }
        fs::write(file, &bytes).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_ringlog"))
            .args(["verify", "--json", &path])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "{}: {text}",
            file.display()
        );
        assert!(!text.contains("panicked"), "{}: {text}", file.display());
        fs::write(file, &whole).unwrap();
    }
    survives(&["dump", &path]);
}
