//! The checksum of a batch whose header alone has changed.

/// What appending a fixed number of bytes does to a CRC-32C: a linear map, kept as one table for each byte of the
/// checksum. `crc(a ‖ b) = shift(crc(a)) ^ crc(b)` for a `b` of that length.
#[derive(Debug)]
pub(super) struct CrcShift {
    tables: Box<[[u32; 256]; 4]>,
}

impl CrcShift {
    /// For appending `length` bytes.
    pub(super) fn new(length: usize) -> Self {
        let mut tables = Box::new([[0u32; 256]; 4]);
        for (table_index, table) in tables.iter_mut().enumerate() {
            for bit in 0..8 {
                let basis = 1u64 << (8 * table_index + bit);
                let image = crc_fast::checksum_combine(
                    crc_fast::CrcAlgorithm::Crc32Iscsi,
                    basis,
                    0,
                    length as u64,
                ) as u32;
                for (value, entry) in table.iter_mut().enumerate() {
                    if value >> bit & 1 == 1 {
                        *entry ^= image;
                    }
                }
            }
        }
        Self { tables }
    }

    /// What comes of this checksum.
    pub(super) fn apply(&self, crc: u32) -> u32 {
        crc.to_le_bytes()
            .iter()
            .zip(self.tables.iter())
            .fold(0, |sum, (&byte, table)| sum ^ table[byte as usize])
    }
}
