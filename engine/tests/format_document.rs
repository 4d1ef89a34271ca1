//! FORMAT.md and the code must tell the same layout.

use ringlog_engine::id::{FrameSeq, PartitionKey, TopicId};
use ringlog_engine::journal::{EntryHeader, FileHeader, FrameHeader, Incarnation};
use ringlog_engine::store::CheckpointHeader;
use zerocopy::IntoBytes;

const DOCUMENT: &str = include_str!("../../FORMAT.md");

/// Length of the layout table that follows `heading`: its rows must be contiguous.
fn documented_len(heading: &str) -> usize {
    let start = DOCUMENT
        .find(heading)
        .unwrap_or_else(|| panic!("no '{heading}' in FORMAT.md"));
    let rows = DOCUMENT[start..]
        .lines()
        .skip_while(|line| !line.starts_with("| at"))
        .skip(2);
    let mut next = 0;
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (Ok(at), Ok(bytes)) = (cells[1].parse::<usize>(), cells[2].parse::<usize>()) else {
            panic!("'{row}' has no numbers");
        };
        assert_eq!(at, next, "gap before '{row}'");
        next += bytes;
    }
    next
}

#[test]
fn tables_are_as_long_as_the_headers() {
    assert_eq!(
        documented_len("File header, 52 bytes"),
        size_of::<FileHeader>()
    );
    assert_eq!(documented_len("Header, 64 bytes"), size_of::<FrameHeader>());
    assert_eq!(documented_len("Entry: 28 bytes"), size_of::<EntryHeader>());
    assert_eq!(
        documented_len("Header, 76 bytes"),
        size_of::<CheckpointHeader>()
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn bytes_lie_where_the_tables_say() {
    let incarnation = Incarnation::new(0x0102_0304, 0x0506_0708);
    let file = FileHeader::new([0xaa; 16], 0x11, incarnation, FrameSeq(0x55));
    let expected = concat!(
        "524c4a48",
        "0200",
        "0000",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "11000000",
        "00000000",
        "0807060504030201",
        "5500000000000000"
    );
    assert_eq!(&hex(file.as_bytes())[..96], expected);

    let frame = FrameHeader::new(
        incarnation,
        FrameSeq(9),
        FrameSeq(8),
        0x77,
        0xddcc_bbaa,
        1,
        b"123456789",
    );
    let bytes = hex(frame.as_bytes());
    assert_eq!(&bytes[..8], "524c4a46");
    let expected = concat!(
        "0807060504030201",
        "0900000000000000",
        "0800000000000000",
        "09000000",
        "01000000",
        "2639f4cb",
        "aabbccdd",
        "7700000000000000",
        "0000000000000000"
    );
    assert_eq!(&bytes[16..], expected);

    let key = PartitionKey {
        topic: TopicId([7; 16]),
        partition: 3,
    };
    let expected = concat!(
        "01",
        "01",
        "0000",
        "05000000",
        "07070707070707070707070707070707",
        "03000000"
    );
    assert_eq!(hex(EntryHeader::batch(key, 5, true).as_bytes()), expected);

    let checkpoint = CheckpointHeader::new([0xbb; 16], 2, 3, 4, 5).with(6, FrameSeq(7), true);
    let expected = concat!(
        "524c4350",
        "0300",
        "0100",
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "02000000",
        "03000000",
        "04000000",
        "05000000",
        "0600000000000000",
        "0700000000000000"
    );
    assert_eq!(&hex(checkpoint.as_bytes())[..112], expected);
}
