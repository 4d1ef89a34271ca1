//! Kafka's wire protocol. The hot requests (Produce, Fetch, ApiVersions) are read and written by hand over shared bytes;
//! everything else goes through the `kafka-wire` crate, whose decoders are bounded, behind [`decode`] and
//! [`encode`].

pub mod error;
pub mod fetch;
pub mod header;
pub mod produce;
pub mod reader;
pub mod versions;
pub mod writer;

use bytes::{Bytes, BytesMut};
use kafka_wire::{KafkaMessage, KafkaResponse};
use kafka_wire_core::{ApiVersion, DecodeLimits, Decoder, EncodeError, Uuid};
use ringlog_engine::id::TopicId;

pub use kafka_wire_core::StrBytes;
pub use reader::{Malformed, Reader};
pub use writer::Writer;

/// Elements of one array in a request outside the hot path. Each takes a byte of the frame or more and up to a few
/// hundred in memory.
const ARRAY_ELEMENTS_MAX: usize = 200_000;

/// Builds a message of `kafka-wire`, whose types may grow fields: those not named keep the schema's defaults.
#[macro_export]
macro_rules! message {
    ($type:ty { $($field:ident : $value:expr),* $(,)? }) => {{
        #[allow(unused_mut)]
        let mut message = <$type as ::core::default::Default>::default();
        $(message.$field = $value;)*
        message
    }};
}

/// Decodes the body of a request. Bytes behind its last field are ignored, as Kafka does: librdkafka 2.16 sends three
/// when it asks for all topics.
///
/// # Errors
/// [`Malformed`] when it does not follow the schema of `version`.
pub fn decode<M: KafkaMessage>(body: &[u8], version: i16) -> Result<M, Malformed> {
    let mut limits = DecodeLimits::default();
    limits.max_frame_bytes = body.len();
    limits.max_array_elements = body.len().min(ARRAY_ELEMENTS_MAX);
    limits.max_tagged_fields = 64;
    Decoder::new(Bytes::copy_from_slice(body), limits)
        .and_then(|mut decoder| M::decode(&mut decoder, ApiVersion::new(version)))
        .map_err(|e| Malformed::Decoder(e.to_string()))
}

/// Appends a whole response: length, header, body.
///
/// # Errors
/// [`EncodeError`] when `message` cannot be said in `version`; `out` is as before then.
pub fn encode<M: KafkaResponse>(
    out: &mut BytesMut,
    correlation_id: i32,
    message: &M,
    version: i16,
) -> Result<usize, EncodeError> {
    let start = out.len();
    let flexible = M::is_flexible(ApiVersion::new(version));
    start_response(out, correlation_id, flexible && M::API_KEY.value() != 18);
    if let Err(error) = message.encode_into(out, ApiVersion::new(version)) {
        out.truncate(start);
        return Err(error);
    }
    Ok(end_response(out, start))
}

/// Appends the length, still to be set, and the header of a response: version 1 (with tagged fields) if `flexible`,
/// else 0. ApiVersions always has version 0.
pub fn start_response(out: &mut BytesMut, correlation_id: i32, flexible: bool) {
    let mut writer = Writer::new(out, flexible);
    writer.i32(0);
    writer.i32(correlation_id);
    writer.tags();
}

/// Sets the length of the response that starts at `start`; returns the bytes it takes, length included.
pub fn end_response(out: &mut BytesMut, start: usize) -> usize {
    let len = out.len() - start;
    out[start..start + 4].copy_from_slice(&(len as i32 - 4).to_be_bytes());
    len
}

/// A topic's id as the protocol's type.
#[must_use]
pub fn uuid(id: TopicId) -> Uuid {
    Uuid::from_bytes(id.0)
}

/// A topic's id from the protocol's type.
#[must_use]
pub fn topic_id(uuid: Uuid) -> TopicId {
    TopicId(uuid.to_bytes())
}
