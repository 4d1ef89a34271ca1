//! Bytes that a layout writes, in a process of their own: the kernel counts them for a whole process.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ringlog_benches::claims::layouts::{self, Layout, LayoutPoint};
use ringlog_benches::disk::Scratch;

#[test]
fn a_journal_with_files_behind_it_writes_a_byte_twice() {
    let stop = Arc::new(AtomicBool::new(false));
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR").as_ref(), stop).unwrap();
    layouts::prepare(&scratch).unwrap();
    // One round is four blocks, so nothing is padded; a second of them is less than a stretch on most disks, and then the
    // files are written at the end alone.
    let point = LayoutPoint {
        append: 256,
        durable: true,
        partitions: 1,
        layout: Layout::JournalAndDestage,
    };
    let figures = layouts::measure(&scratch, &point, Duration::from_millis(400)).unwrap();
    let written = figures["written_per_byte"];
    assert!((1.97..2.1).contains(&written), "{written}");
}
