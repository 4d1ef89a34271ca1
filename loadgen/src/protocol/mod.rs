//! The part of Kafka's protocol a load generator speaks: Produce and Fetch by hand for speed, the rest through the
//! generated messages of `kafka-wire`.

pub mod control;
pub mod cursor;
pub mod error_code;
pub mod fetch;
pub mod produce;

pub use control::{ControlClient, ControlError};
pub use cursor::{Cursor, Malformed};

/// API keys used here.
pub mod api {
    /// Produce.
    pub const PRODUCE: i16 = 0;
    /// Fetch.
    pub const FETCH: i16 = 1;
    /// FindCoordinator.
    pub const FIND_COORDINATOR: i16 = 10;
    /// EndTxn.
    pub const END_TXN: i16 = 26;
}

/// Client id in every request header.
pub const CLIENT_ID: &str = "ringlog-load";

/// Appends a string with a 16-bit length. Callers pass topic names and client ids, which are far below 32 KiB.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as i16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends the frame's length (0 for now) and a request header of version 1: not flexible, no tags.
pub(crate) fn put_request_header(out: &mut Vec<u8>, api_key: i16, version: i16, correlation: i32) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&api_key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&correlation.to_be_bytes());
    put_string(out, CLIENT_ID);
}
