//! The two checksums the engine uses, each in one place.
//!
//! Kafka's record batches carry CRC-32C (Castagnoli); our own formats (journal frames, checkpoints) carry
//! CRC-32/IEEE.

/// CRC-32C (Castagnoli, as in iSCSI) of `data`: the checksum of a Kafka record batch.
///
/// `crc-fast` rather than `crc32c`: with AVX-512 it is quicker at every length, twice from a few KiB on.
#[must_use]
pub fn crc32c(data: &[u8]) -> u32 {
    // The crate returns u64 for every width; a 32-bit polynomial's value fits by construction.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data) as u32
}

/// CRC-32/IEEE of `data`: the checksum of the engine's own formats.
#[must_use]
pub fn crc32(data: &[u8]) -> u32 {
    crc32fast::hash(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
