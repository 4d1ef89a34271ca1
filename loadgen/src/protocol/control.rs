//! A blocking client for everything that is not Produce or Fetch: set-up, metadata, offsets.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_wire::{
    ApiVersionsRequest, KafkaRequest, OutboundFrameLimits, RequestResponsePair, ResponseHeader,
    encode_request, response_header_version_for,
};
use kafka_wire_core::{
    ApiVersion, DecodeError, DecodeLimits, Decoder, EncodeError, KafkaDecode, StrBytes,
};
use thiserror::Error;

use super::CLIENT_ID;

/// Largest response accepted: metadata of 100,000 partitions is about 4 MiB.
const RESPONSE_LEN_MAX: usize = 64 << 20;
/// The newest ApiVersions known here; from 3 on the answer names features.
const FEATURES_VERSION: i16 = 4;
const REQUEST_LIMITS: OutboundFrameLimits = OutboundFrameLimits::new(128 << 20);

/// Why a control request failed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The broker cannot be reached or closed the connection.
    #[error("{address}: {source}")]
    Io {
        /// `HOST:PORT`.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The broker does not speak a version of the API that this client speaks.
    #[error("{address} does not speak {api} in a version known here (it offers {offered})")]
    Version {
        /// `HOST:PORT`.
        address: String,
        /// Kafka's name of the request.
        api: &'static str,
        /// What it offers.
        offered: String,
    },
    /// The response is not what the protocol says.
    #[error("{address} answered {api} with bytes that do not decode: {source}")]
    Decode {
        /// `HOST:PORT`.
        address: String,
        /// Kafka's name of the request.
        api: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// The request cannot be put on the wire.
    #[error("{api} cannot be encoded: {source}")]
    Encode {
        /// Kafka's name of the request.
        api: &'static str,
        /// What is wrong.
        source: EncodeError,
    },
    /// The broker answered with an error code.
    #[error("{what}: {name}{message}")]
    Refused {
        /// What was asked.
        what: String,
        /// Kafka's code of the error.
        code: i16,
        /// Kafka's name of the error.
        name: String,
        /// `: ` and the broker's words, or nothing.
        message: String,
    },
}

impl ControlError {
    /// A broker's refusal of `what`, by its error code.
    #[must_use]
    pub fn refused(what: impl Into<String>, code: i16, message: Option<&str>) -> Self {
        Self::Refused {
            what: what.into(),
            code,
            name: super::error_code::name(code),
            message: message.map(|text| format!(": {text}")).unwrap_or_default(),
        }
    }
}

/// A request under way: what its answer needs to be read. Answers come in the order of the requests.
#[derive(Debug)]
pub struct Sent<R> {
    correlation: i32,
    version: i16,
    request: PhantomData<R>,
}

/// A connection that sends requests and waits for their answers: [`ControlClient::call`] for one at a time,
/// [`ControlClient::send`] and [`ControlClient::receive`] for several in flight.
#[derive(Debug)]
pub struct ControlClient {
    address: String,
    client_id: &'static str,
    stream: TcpStream,
    correlation: i32,
    /// API key to the lowest and highest version the broker offers.
    versions: BTreeMap<i16, (i16, i16)>,
}

impl ControlClient {
    /// Connects to `HOST:PORT` and asks which versions the broker speaks. `timeout` bounds the connection and every
    /// later wait.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn connect(address: &str, timeout: Duration) -> Result<Self, ControlError> {
        Self::connect_as(CLIENT_ID, address, timeout)
    }

    /// The same under a name of the caller's, which the broker's logs and listings show.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn connect_as(
        client_id: &'static str,
        address: &str,
        timeout: Duration,
    ) -> Result<Self, ControlError> {
        let io = |source| ControlError::Io {
            address: address.to_owned(),
            source,
        };
        let stream = connect(address, timeout).map_err(io)?;
        stream.set_read_timeout(Some(timeout)).map_err(io)?;
        stream.set_write_timeout(Some(timeout)).map_err(io)?;
        let mut client = Self {
            address: address.to_owned(),
            client_id,
            stream,
            correlation: 0,
            versions: BTreeMap::from([(ApiVersionsRequest::API_KEY.value(), (0, 0))]),
        };
        let answer = client.call(&ApiVersionsRequest::default(), 0)?;
        if answer.error_code != 0 {
            return Err(ControlError::refused(
                "ApiVersions",
                answer.error_code,
                None,
            ));
        }
        client.versions = answer
            .api_keys
            .iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)))
            .collect();
        Ok(client)
    }

    /// Whether the broker speaks `version` of the API.
    #[must_use]
    pub fn speaks(&self, api_key: i16, version: i16) -> bool {
        self.versions
            .get(&api_key)
            .is_some_and(|&(low, high)| (low..=high).contains(&version))
    }

    /// Sends a request in the highest version both sides speak, at most `version_max`, and waits for the answer.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn call<R>(&mut self, request: &R, version_max: i16) -> Result<R::Response, ControlError>
    where
        R: RequestResponsePair,
    {
        let sent = self.send(request, version_max)?;
        self.receive(&sent)
    }

    /// The same in just this version.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn call_at<R>(&mut self, request: &R, version: i16) -> Result<R::Response, ControlError>
    where
        R: RequestResponsePair,
    {
        if !self.speaks(R::API_KEY.value(), version) {
            return Err(self.not_spoken::<R>());
        }
        self.call(request, version)
    }

    /// Sends a request in the highest version both sides speak, at most `version_max`. Its answer is to be received
    /// after those of the requests before it, unless there is none (Produce with acks 0).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn send<R>(&mut self, request: &R, version_max: i16) -> Result<Sent<R>, ControlError>
    where
        R: RequestResponsePair,
    {
        let offered = self.versions.get(&R::API_KEY.value());
        let version = offered
            .map(|&(low, high)| (low, high.min(version_max)))
            .filter(|&(low, version)| low <= version && R::supports(ApiVersion::new(version)))
            .map(|(_, version)| ApiVersion::new(version))
            .ok_or_else(|| self.not_spoken::<R>())?;
        self.correlation = self.correlation.wrapping_add(1);
        let frame = encode_as(self.client_id, self.correlation, request, version.value()).map_err(
            |source| ControlError::Encode {
                api: R::NAME,
                source,
            },
        )?;
        self.stream.write_all(&frame).map_err(|e| self.io(e))?;
        Ok(Sent {
            correlation: self.correlation,
            version: version.value(),
            request: PhantomData,
        })
    }

    /// Waits for the answer to a request, the oldest that has none yet.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn receive<R>(&mut self, sent: &Sent<R>) -> Result<R::Response, ControlError>
    where
        R: RequestResponsePair,
    {
        let body = self.next_body(sent.correlation).map_err(|e| self.io(e))?;
        decode::<R>(body, sent.version).map_err(|source| ControlError::Decode {
            address: self.address.clone(),
            api: R::NAME,
            source,
        })
    }

    /// The level at which the broker's cluster runs a feature, 0 for one that it does not know.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn feature(&mut self, name: &str) -> Result<i16, ControlError> {
        let mut request = ApiVersionsRequest::default();
        request.client_software_name = StrBytes::from(CLIENT_ID);
        request.client_software_version = StrBytes::from(env!("CARGO_PKG_VERSION"));
        let answer = self.call(&request, FEATURES_VERSION)?;
        if answer.error_code != 0 {
            let code = answer.error_code;
            return Err(ControlError::refused("ApiVersions", code, None));
        }
        let mut features = answer.finalized_features.iter();
        Ok(features
            .find(|feature| feature.name.as_str() == name)
            .map_or(0, |feature| feature.max_version_level))
    }

    fn not_spoken<R: RequestResponsePair>(&self) -> ControlError {
        let offered = self.versions.get(&R::API_KEY.value());
        ControlError::Version {
            address: self.address.clone(),
            api: R::NAME,
            offered: offered
                .map_or_else(|| "none".into(), |(low, high)| format!("{low} to {high}")),
        }
    }

    /// Gives the connection away: nothing is under way on it.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn io(&self, source: io::Error) -> ControlError {
        ControlError::Io {
            address: self.address.clone(),
            source,
        }
    }

    fn next_body(&mut self, correlation: i32) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > RESPONSE_LEN_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "response length out of bounds",
            ));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if body.get(..4) != Some(&correlation.to_be_bytes()[..]) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "answer to another request",
            ));
        }
        Ok(body.into())
    }
}

/// A request as it goes onto the wire, its length included.
pub(crate) fn encode<R>(
    correlation: i32,
    request: &R,
    version: i16,
) -> Result<BytesMut, EncodeError>
where
    R: RequestResponsePair,
{
    encode_as(CLIENT_ID, correlation, request, version)
}

fn encode_as<R>(
    client_id: &str,
    correlation: i32,
    request: &R,
    version: i16,
) -> Result<BytesMut, EncodeError>
where
    R: RequestResponsePair,
{
    let mut frame = BytesMut::new();
    let (client_id, version) = (Some(StrBytes::from(client_id)), ApiVersion::new(version));
    encode_request(
        &mut frame,
        correlation,
        client_id,
        request,
        version,
        REQUEST_LIMITS,
    )?;
    Ok(frame)
}

/// The response in a frame, its length left out.
pub(crate) fn decode<R>(frame: Bytes, version: i16) -> Result<R::Response, DecodeError>
where
    R: RequestResponsePair,
{
    let version = ApiVersion::new(version);
    // A version whose request was encoded has a header.
    let header_version = response_header_version_for::<R>(version).unwrap_or_default();
    let mut decoder = Decoder::new(frame, DecodeLimits::default())?;
    ResponseHeader::decode(&mut decoder, ApiVersion::new(header_version))?;
    let response = R::Response::decode(&mut decoder, version)?;
    decoder.finish()?;
    Ok(response)
}

/// Connects to the first address of `HOST:PORT` that answers; without delay for small packets.
pub(crate) fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for socket_address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&socket_address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
