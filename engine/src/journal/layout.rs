//! Fixed headers of the journal, little-endian, as they lie on disk.

use zerocopy::byteorder::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32;
use crate::id::{FrameSeq, PartitionKey, TopicId};

/// Which use of a journal file something belongs to: the run of the process in the upper half, the count of
/// uses within the run in the lower. Later uses are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The `uses`-th use of any file in `run`.
    #[must_use]
    pub fn new(run: u32, uses: u32) -> Self {
        Self((u64::from(run) << 32) | u64::from(uses))
    }

    /// The run it belongs to.
    #[must_use]
    pub fn run(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

const FILE_MAGIC: u32 = u32::from_le_bytes(*b"RLJH");
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"RLJF");
/// Version of the journal's layout; FORMAT.md describes this one.
pub(super) const JOURNAL_VERSION: u16 = 2;

/// Start of a journal file's first block; the rest of the block is zero.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FileHeader {
    magic: U32,
    version: U16,
    reserved: U16,
    dir_id: [u8; 16],
    shard: U32,
    reserved2: U32,
    incarnation: U64,
    /// Every frame of the run up to this one was in segments and a checkpoint when this use began.
    released_seq: U64,
    crc: U32,
}

const _: () = assert!(size_of::<FileHeader>() == 52);

impl FileHeader {
    /// A header for a new use of a file.
    #[must_use]
    pub fn new(dir_id: [u8; 16], shard: u32, incarnation: Incarnation, released: FrameSeq) -> Self {
        let mut header = Self {
            magic: FILE_MAGIC.into(),
            version: JOURNAL_VERSION.into(),
            reserved: 0.into(),
            dir_id,
            shard: shard.into(),
            reserved2: 0.into(),
            incarnation: incarnation.0.into(),
            released_seq: released.0.into(),
            crc: 0.into(),
        };
        header.crc = header.compute_crc().into();
        header
    }

    /// The header at the start of `block`, if it is one of this version and intact.
    #[must_use]
    pub fn read(block: &[u8]) -> Option<Self> {
        let (header, _) = Self::read_from_prefix(block).ok()?;
        (header.magic.get() == FILE_MAGIC
            && header.version.get() == JOURNAL_VERSION
            && header.crc.get() == header.compute_crc())
        .then_some(header)
    }

    fn compute_crc(&self) -> u32 {
        let bytes = self.as_bytes();
        crc32(&bytes[..bytes.len() - 4])
    }

    /// The data directory the file belongs to.
    #[must_use]
    pub fn dir_id(&self) -> [u8; 16] {
        self.dir_id
    }

    /// The shard that wrote it.
    #[must_use]
    pub fn shard(&self) -> u32 {
        self.shard.get()
    }

    /// Which use of the file this is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.get())
    }

    /// The newest frame of the run that a checkpoint covered when this use began.
    #[must_use]
    pub fn released(&self) -> FrameSeq {
        FrameSeq(self.released_seq.get())
    }
}

/// Start of a frame; the payload follows, then zeros to the next block boundary.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FrameHeader {
    magic: U32,
    /// CRC-32 of the rest of this header.
    header_crc: U32,
    incarnation: U64,
    seq: U64,
    /// Every frame up to this one was durable when this one was sealed.
    durable_seq: U64,
    payload_len: U32,
    entry_count: U32,
    /// CRC-32 of the payload.
    payload_crc: U32,
    /// `header_crc` of the frame before, 0 for a run's first.
    previous_crc: U32,
    /// Generation of the shard's newest checkpoint that was durable when this one was sealed; 0 before the first.
    checkpoint: U64,
    reserved: [u8; 8],
}

const _: () = assert!(size_of::<FrameHeader>() == 64);

impl FrameHeader {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// A header for `payload`.
    #[must_use]
    pub fn new(
        incarnation: Incarnation,
        seq: FrameSeq,
        durable: FrameSeq,
        checkpoint: u64,
        previous_crc: u32,
        entry_count: u32,
        payload: &[u8],
    ) -> Self {
        let mut header = Self {
            magic: FRAME_MAGIC.into(),
            header_crc: 0.into(),
            incarnation: incarnation.0.into(),
            seq: seq.0.into(),
            durable_seq: durable.0.into(),
            payload_len: (payload.len() as u32).into(),
            entry_count: entry_count.into(),
            payload_crc: crc32(payload).into(),
            previous_crc: previous_crc.into(),
            checkpoint: checkpoint.into(),
            reserved: [0; 8],
        };
        header.header_crc = header.compute_crc().into();
        header
    }

    /// The header at the start of `block`, if its own checksum holds. Says nothing about the payload.
    #[must_use]
    pub fn read(block: &[u8]) -> Option<Self> {
        let (header, _) = Self::read_from_prefix(block).ok()?;
        (header.magic.get() == FRAME_MAGIC && header.header_crc.get() == header.compute_crc())
            .then_some(header)
    }

    fn compute_crc(&self) -> u32 {
        crc32(&self.as_bytes()[8..])
    }

    /// Which use of the file the frame belongs to.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.get())
    }

    /// The frame's number.
    #[must_use]
    pub fn seq(&self) -> FrameSeq {
        FrameSeq(self.seq.get())
    }

    /// The newest frame known durable when this one was sealed.
    #[must_use]
    pub fn durable_seq(&self) -> FrameSeq {
        FrameSeq(self.durable_seq.get())
    }

    /// Generation of the shard's newest checkpoint known durable when this one was sealed; 0 for none.
    #[must_use]
    pub fn checkpoint(&self) -> u64 {
        self.checkpoint.get()
    }

    /// Bytes of payload.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload_len.get() as usize
    }

    /// Entries in the payload; a marker has none.
    #[must_use]
    pub fn entry_count(&self) -> u32 {
        self.entry_count.get()
    }

    /// Whether `payload` is what was written.
    #[must_use]
    pub fn matches(&self, payload: &[u8]) -> bool {
        self.payload_crc.get() == crc32(payload)
    }

    /// CRC-32 of the payload, for those who read it piece by piece.
    #[must_use]
    pub fn payload_crc(&self) -> u32 {
        self.payload_crc.get()
    }

    /// The frame's own checksum, which the next frame repeats.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.header_crc.get()
    }

    /// Checksum of the frame before.
    #[must_use]
    pub fn previous_crc(&self) -> u32 {
        self.previous_crc.get()
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A record batch of a partition.
    Batch = 1,
}

/// Flag of a batch entry: it starts a new segment.
pub const ENTRY_ROLL: u8 = 1;

/// Start of an entry; its bytes follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EntryHeader {
    kind: u8,
    flags: u8,
    reserved: U16,
    len: U32,
    topic: [u8; 16],
    partition: I32,
}

const _: () = assert!(size_of::<EntryHeader>() == 28);

/// Bytes that an entry of `batch_len` bytes takes in a frame.
#[must_use]
pub const fn entry_len(batch_len: usize) -> usize {
    size_of::<EntryHeader>() + batch_len
}

impl EntryHeader {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// The header of a batch of `len` bytes for `key`.
    #[must_use]
    pub fn batch(key: PartitionKey, len: u32, roll: bool) -> Self {
        Self {
            kind: EntryKind::Batch as u8,
            flags: if roll { ENTRY_ROLL } else { 0 },
            reserved: 0.into(),
            len: len.into(),
            topic: key.topic.0,
            partition: key.partition.into(),
        }
    }

    /// The kind, if this version knows it.
    #[must_use]
    pub fn kind(&self) -> Option<EntryKind> {
        (self.kind == EntryKind::Batch as u8).then_some(EntryKind::Batch)
    }

    /// The partition.
    #[must_use]
    pub fn key(&self) -> PartitionKey {
        PartitionKey {
            topic: TopicId(self.topic),
            partition: self.partition.get(),
        }
    }

    /// Whether the batch starts a new segment.
    #[must_use]
    pub fn is_roll(&self) -> bool {
        self.flags & ENTRY_ROLL != 0
    }

    /// Bytes that follow.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.len.get() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_and_notice_each_flipped_bit() {
        let file = FileHeader::new([9; 16], 3, Incarnation::new(7, 8), FrameSeq(4));
        let read = FileHeader::read(file.as_bytes()).unwrap();
        assert_eq!((read.shard(), read.incarnation().run()), (3, 7));
        let frame = FrameHeader::new(
            Incarnation::new(7, 8),
            FrameSeq(5),
            FrameSeq(4),
            3,
            99,
            1,
            b"payload",
        );
        assert!(
            FrameHeader::read(frame.as_bytes())
                .unwrap()
                .matches(b"payload")
        );
        for bit in 0..size_of::<FrameHeader>() * 8 {
            let mut bytes = frame.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::read(&bytes).is_none(), "bit {bit}");
        }
        for bit in 0..size_of::<FileHeader>() * 8 {
            let mut bytes = file.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::read(&bytes).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn the_same_payload_in_another_incarnation_is_another_frame() {
        let make = |uses| {
            FrameHeader::new(
                Incarnation::new(1, uses),
                FrameSeq(5),
                FrameSeq(4),
                0,
                0,
                1,
                b"same",
            )
        };
        assert_ne!(make(1).crc(), make(2).crc());
    }
}
