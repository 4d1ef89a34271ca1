//! The header of a request, versions 1 and 2 (KIP-482). The client id keeps its classic encoding in both.

use super::reader::{Malformed, Reader};
use super::versions::Api;

/// What precedes a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// The API's number.
    pub api_key: i16,
    /// Version of the request and its response.
    pub api_version: i16,
    /// Comes back with the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<&'a str>,
}

/// The first eight bytes, which every version shares.
#[derive(Debug, Clone, Copy)]
pub struct Prefix {
    /// The API's number.
    pub api_key: i16,
    /// Version asked for.
    pub api_version: i16,
    /// Comes back with the response.
    pub correlation_id: i32,
}

impl Prefix {
    /// Reads the start of a frame (without its length).
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    pub fn read(frame: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(frame, false);
        Ok(Self {
            api_key: reader.i16("api key")?,
            api_version: reader.i16("api version")?,
            correlation_id: reader.i32("correlation id")?,
        })
    }
}

/// Splits a frame (without its length) into header and body; the version was found to be supported.
///
/// # Errors
/// [`Malformed`].
pub fn split<'a>(frame: &'a [u8], api: &Api) -> Result<(RequestHeader<'a>, &'a [u8]), Malformed> {
    let prefix = Prefix::read(frame)?;
    let mut reader = Reader::new(&frame[8..], false);
    let client_id = match reader.nullable_string("client id") {
        // A name is for people: Kafka puts a replacement where it is not UTF-8.
        Err(Malformed::Text(_)) => Some("\u{fffd}"),
        read => read?,
    };
    let mut reader = Reader::new(reader.rest(), api.is_flexible(prefix.api_version));
    reader.tags()?;
    let header = RequestHeader {
        api_key: prefix.api_key,
        api_version: prefix.api_version,
        correlation_id: prefix.correlation_id,
        client_id,
    };
    Ok((header, reader.rest()))
}
