//! What `ringlog dump` shows of the files of a server.

use serde_json::Value;

use crate::run::{fails, well};
use crate::server::{new_dir, ringlog};
use crate::verify::{files, filled};

fn dump(path: &std::path::Path, more: &[&str]) -> Vec<Value> {
    let arguments: Vec<_> = ["dump", "--json", path.to_str().unwrap()]
        .iter()
        .chain(more)
        .copied()
        .collect();
    let text = well(&mut ringlog(&arguments));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of<'a>(items: &'a [Value], kind: &str) -> Vec<&'a Value> {
    items.iter().filter(|item| item["kind"] == kind).collect()
}

#[test]
fn every_kind_of_file_is_shown() {
    let data = new_dir();
    filled(data.path(), false);
    let items = dump(data.path(), &[]);
    for kind in [
        "batch",
        "offset entry",
        "time entry",
        "journal file",
        "frame",
        "entry",
        "checkpoint",
        "partition",
        "catalog",
    ] {
        assert!(!of(&items, kind).is_empty(), "{kind}");
    }
    assert!(
        of(&items, "batch")
            .iter()
            .all(|batch| batch["intact"] == true)
    );

    let log = &files(data.path(), "00000000000000000000.log")[0];
    let items = dump(log, &["--records"]);
    let (batches, records) = (of(&items, "batch"), of(&items, "record"));
    assert_eq!(batches[0]["first_offset"], 0);
    assert_eq!(records[7]["offset"], 7);
    assert_eq!(records[7]["value"], "7 xxxxxxx");
    let counted: i64 = batches
        .iter()
        .map(|batch| batch["records"].as_i64().unwrap())
        .sum();
    assert_eq!(records.len() as i64, counted);

    // Entries of the journal follow each other without a gap.
    let items = dump(&data.path().join("shard-0/journal"), &[]);
    let mut next = 0;
    for entry in of(&items, "entry")
        .iter()
        .filter(|e| e["partition"] == 0 && e["records"].as_i64() > Some(2))
    {
        let first = entry["first_offset"].as_i64().unwrap();
        assert!(next == 0 || first == next, "{entry}");
        next = first + entry["records"].as_i64().unwrap();
    }
    assert_eq!(next, 60_000);
    let text = well(&mut ringlog(&["dump", log.to_str().unwrap(), "--records"]));
    assert!(text.contains("batch 0.."), "{text}");
    assert!(text.contains("7 xxxxxxx"), "{text}");
}

#[test]
fn other_files_are_refused_and_may_be_taken_for_what_they_are() {
    let data = new_dir();
    let path = data.path().join("strange");
    std::fs::write(&path, "hello").unwrap();
    let (status, line) = fails(&mut ringlog(&["dump", path.to_str().unwrap()]));
    assert!(status == 2 && line.contains("--kind"), "{line}");
    let items = dump(&path, &["--kind", "segment"]);
    assert_eq!(items[0]["kind"], "unreadable");
    assert_eq!(items[0]["bytes"], 5);
    let (status, _) = fails(&mut ringlog(&["dump", "/nowhere/at/all"]));
    assert_eq!(status, 2);
}
