//! Compressing and decompressing the record body of a batch, as Kafka's Java library frames each codec.
//!
//! gzip is RFC 1952; snappy is the block format inside the framing of xerial's snappy-java; lz4 is the LZ4 frame
//! format with independent blocks (the only kind Java's reader takes); zstd is RFC 8878.

use std::io::{self, Read, Write};

use thiserror::Error;

use super::Compression;

/// First bytes of a xerial snappy stream: magic, then version 1 and lowest compatible version 1.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_MAGIC_LEN: usize = 8;
/// Block size of snappy-java's output stream, in bytes of uncompressed data.
const XERIAL_BLOCK_LEN: usize = 32 * 1024;

/// Why a record body could not be compressed or decompressed.
#[derive(Debug, Error)]
pub enum CodecError {
    /// The output would be larger than the caller allows.
    #[error("record body is larger than {max_len} bytes once decompressed")]
    TooLarge {
        /// The caller's limit in bytes.
        max_len: usize,
    },
    /// The bytes are not what the codec writes.
    #[error("{codec:?}: {source}")]
    Malformed {
        /// The codec of the batch's attributes.
        codec: Compression,
        /// As the codec's library reports it.
        source: io::Error,
    },
}

/// Appends `input`, compressed, to `out`. `level` counts as the codec defines it, `None` is the codec's default;
/// snappy and lz4 have none and ignore it.
///
/// # Errors
/// [`CodecError::Malformed`] if the codec's library refuses, for instance a level it does not know.
pub fn compress(
    codec: Compression,
    level: Option<i32>,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let result = match codec {
        Compression::None => out.write_all(input),
        Compression::Gzip => {
            let level = level.map_or_else(flate2::Compression::default, |level| {
                flate2::Compression::new(level.clamp(0, 9) as u32)
            });
            let mut encoder = flate2::write::GzEncoder::new(out, level);
            encoder
                .write_all(input)
                .and_then(|()| encoder.finish())
                .map(drop)
        }
        Compression::Snappy => compress_xerial(input, out),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
            encoder
                .write_all(input)
                .and_then(|()| Ok(encoder.finish()?))
                .map(drop)
        }
        Compression::Zstd => {
            zstd::stream::copy_encode(input, out, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL))
        }
    };
    result.map_err(|source| CodecError::Malformed { codec, source })
}

/// Appends `input`, decompressed, to `out`, and at most `max_len` bytes of it; memory in use follows the bytes
/// produced, not what a header announces.
///
/// # Errors
/// [`CodecError::TooLarge`] past the limit, [`CodecError::Malformed`] otherwise; `out` may then hold a part.
pub fn decompress(
    codec: Compression,
    input: &[u8],
    max_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    match codec {
        Compression::None if input.len() > max_len => Err(CodecError::TooLarge { max_len }),
        Compression::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        Compression::Gzip => read_bounded(
            codec,
            flate2::bufread::MultiGzDecoder::new(input),
            max_len,
            out,
        ),
        Compression::Snappy => decompress_snappy(input, max_len, out),
        Compression::Lz4 => read_bounded(
            codec,
            lz4_flex::frame::FrameDecoder::new(input),
            max_len,
            out,
        ),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(input)
                .map_err(|source| CodecError::Malformed { codec, source })?;
            read_bounded(codec, decoder, max_len, out)
        }
    }
}

fn read_bounded(
    codec: Compression,
    decoder: impl Read,
    max_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    // One byte past the limit tells "exactly full" from "too large".
    let read = decoder
        .take((max_len as u64).saturating_add(1))
        .read_to_end(out)
        .map_err(|source| CodecError::Malformed { codec, source })?;
    if read > max_len {
        return Err(CodecError::TooLarge { max_len });
    }
    Ok(())
}

fn compress_xerial(input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(XERIAL_BLOCK_LEN) {
        let at = out.len();
        let room = snap::raw::max_compress_len(block.len());
        out.resize(at + 4 + room, 0);
        let length = encoder.compress(block, &mut out[at + 4..])?;
        out[at..at + 4].copy_from_slice(&(length as u32).to_be_bytes());
        out.truncate(at + 4 + length);
    }
    Ok(())
}

fn decompress_snappy(input: &[u8], max_len: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let malformed = |what: &str| CodecError::Malformed {
        codec: Compression::Snappy,
        source: io::Error::new(io::ErrorKind::InvalidData, what),
    };
    if !input.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_LEN]) {
        return decompress_snappy_block(input, max_len, out);
    }
    let start = out.len();
    let mut rest = input;
    while !rest.is_empty() {
        // Streams may follow one another, each with a header of its own.
        if rest.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_LEN]) {
            rest = rest
                .get(XERIAL_HEADER.len()..)
                .ok_or_else(|| malformed("header is cut short"))?;
            continue;
        }
        let (length, tail) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| malformed("block length is cut short"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, tail) = tail
            .split_at_checked(length)
            .ok_or_else(|| malformed("block is cut short"))?;
        let room = max_len - (out.len() - start);
        decompress_snappy_block(block, room, out).map_err(|error| match error {
            CodecError::TooLarge { .. } => CodecError::TooLarge { max_len },
            error @ CodecError::Malformed { .. } => error,
        })?;
        rest = tail;
    }
    Ok(())
}

fn decompress_snappy_block(
    block: &[u8],
    max_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let malformed = |error: snap::Error| CodecError::Malformed {
        codec: Compression::Snappy,
        source: error.into(),
    };
    let length = snap::raw::decompress_len(block).map_err(malformed)?;
    if length > max_len {
        return Err(CodecError::TooLarge { max_len });
    }
    // A copy element of 3 bytes makes at most 64: a length far beyond that is a lie, not worth the allocation.
    if length > block.len().saturating_mul(64) {
        return Err(malformed(snap::Error::Header));
    }
    let at = out.len();
    out.resize(at + length, 0);
    match snap::raw::Decoder::new().decompress(block, &mut out[at..]) {
        Ok(_) => Ok(()),
        Err(error) => {
            out.truncate(at);
            Err(malformed(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn codec() -> impl Strategy<Value = Compression> {
        prop::sample::select(&Compression::ALL[..])
    }

    #[test]
    fn what_java_writes_for_snappy() {
        // snappy-java's SnappyOutputStream: header, block length 3, block "a" (length 1, literal of 1).
        let mut stream = XERIAL_HEADER.to_vec();
        stream.extend_from_slice(&[0, 0, 0, 3, 1, 0, b'a']);
        let mut out = Vec::new();
        decompress(Compression::Snappy, &stream, 10, &mut out).unwrap();
        assert_eq!(out, b"a");
        let mut ours = Vec::new();
        compress(Compression::Snappy, None, b"a", &mut ours).unwrap();
        assert_eq!(ours, stream);
        // Two streams in a row, and the raw block librdkafka reads and some clients write.
        let twice = [stream.clone(), stream].concat();
        out.clear();
        decompress(Compression::Snappy, &twice, 10, &mut out).unwrap();
        assert_eq!(out, b"aa");
        out.clear();
        decompress(Compression::Snappy, &[1, 0, b'a'], 10, &mut out).unwrap();
        assert_eq!(out, b"a");
    }

    #[test]
    fn lz4_blocks_are_independent() {
        let mut out = Vec::new();
        compress(Compression::Lz4, None, &[7; 300_000], &mut out).unwrap();
        assert_eq!(out[..4], [0x04, 0x22, 0x4d, 0x18]);
        assert_eq!(out[4] & 0x20, 0x20, "Java reads independent blocks only");
    }

    #[test]
    fn output_is_limited_to_the_byte() {
        let input = vec![b'x'; 1 << 20];
        for codec in Compression::ALL {
            let mut packed = Vec::new();
            compress(codec, None, &input, &mut packed).unwrap();
            let mut out = Vec::new();
            decompress(codec, &packed, input.len(), &mut out).unwrap();
            assert_eq!(out, input, "{codec:?}");
            for max_len in [0, 100, input.len() - 1] {
                let mut out = Vec::new();
                let error = decompress(codec, &packed, max_len, &mut out).unwrap_err();
                assert!(matches!(error, CodecError::TooLarge { max_len: m } if m == max_len));
                assert!(
                    out.len() <= max_len + 1,
                    "{codec:?} wrote {} bytes",
                    out.len()
                );
            }
        }
    }

    #[test]
    fn a_snappy_length_that_lies_allocates_nothing() {
        let block = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, b'a'];
        let mut out = Vec::new();
        let error = decompress(Compression::Snappy, &block, usize::MAX, &mut out).unwrap_err();
        assert!(matches!(error, CodecError::Malformed { .. }));
        assert_eq!(out.capacity(), 0);
    }

    proptest! {
        #[test]
        fn round_trip(codec in codec(), input in prop::collection::vec(0u8..8, 0..100_000)) {
            let mut packed = b"before".to_vec();
            compress(codec, None, &input, &mut packed).unwrap();
            let mut out = b"kept".to_vec();
            decompress(codec, &packed[6..], input.len(), &mut out).unwrap();
            prop_assert_eq!(&out[..4], b"kept");
            prop_assert_eq!(&out[4..], &input[..]);
        }

        #[test]
        fn random_and_mutated_bytes_never_panic(
            codec in codec(),
            input in prop::collection::vec(any::<u8>(), 0..2000),
            at: prop::sample::Index,
            byte: u8,
        ) {
            let mut out = Vec::new();
            let _ = decompress(codec, &input, 10_000, &mut out);
            prop_assert!(out.len() <= 10_001);
            let mut packed = Vec::new();
            compress(codec, None, &input, &mut packed).unwrap();
            if !packed.is_empty() {
                let at = at.index(packed.len());
                packed[at] = byte;
            }
            out.clear();
            let _ = decompress(codec, &packed, 10_000, &mut out);
            prop_assert!(out.len() <= 10_001);
        }
    }
}
