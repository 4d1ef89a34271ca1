//! From a line to a record.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::Value;

/// Names and values of headers.
pub(crate) type Headers<'a> = Vec<(Cow<'a, str>, Option<Cow<'a, [u8]>>)>;

/// A record that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewRecord<'a> {
    pub(crate) key: Option<Cow<'a, [u8]>>,
    pub(crate) value: Option<Cow<'a, [u8]>>,
    pub(crate) headers: Headers<'a>,
    /// Milliseconds since 1970.
    pub(crate) timestamp_ms: i64,
    pub(crate) partition: Option<i32>,
}

/// NAME=VALUE of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeaderArg {
    name: String,
    value: String,
}

impl FromStr for HeaderArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("NAME=VALUE is wanted")?;
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// What parts key and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Separator(Vec<u8>);

impl FromStr for Separator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("it must have at least one letter".into()),
            "\\t" => Ok(Self(b"\t".to_vec())),
            text => Ok(Self(text.as_bytes().to_vec())),
        }
    }
}

/// Makes records of lines.
#[derive(Debug)]
pub(crate) struct Parser {
    kind: Kind,
    headers: Vec<(String, Vec<u8>)>,
}

#[derive(Debug)]
enum Kind {
    Lines {
        separator: Option<Separator>,
        key: Option<Vec<u8>>,
        null: Option<Vec<u8>>,
    },
    Json,
}

impl Parser {
    /// A line is a value, or key, separator and value.
    pub(crate) fn lines(
        separator: Option<Separator>,
        key: Option<&str>,
        headers: &[HeaderArg],
        null: Option<&str>,
    ) -> Self {
        Self {
            kind: Kind::Lines {
                separator,
                key: key.map(|key| key.as_bytes().to_vec()),
                null: null.map(|null| null.as_bytes().to_vec()),
            },
            headers: owned(headers),
        }
    }

    /// A line is a JSON object.
    pub(crate) fn json(headers: &[HeaderArg]) -> Self {
        Self {
            kind: Kind::Json,
            headers: owned(headers),
        }
    }

    /// The record of a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse<'a>(&'a self, line: &'a [u8]) -> Result<NewRecord<'a>, String> {
        let mut record = match &self.kind {
            Kind::Json => parse_json(line)?,
            Kind::Lines {
                separator,
                key,
                null,
            } => {
                let (key, value) = match separator {
                    None => (key.as_deref(), line),
                    Some(separator) => split(line, &separator.0)?,
                };
                let is_null = null.as_deref() == Some(value);
                NewRecord {
                    key: key.map(Cow::Borrowed),
                    value: (!is_null).then_some(Cow::Borrowed(value)),
                    headers: Vec::new(),
                    timestamp_ms: now_ms(),
                    partition: None,
                }
            }
        };
        let more = self.headers.iter().map(|(name, value)| {
            (
                Cow::Borrowed(name.as_str()),
                Some(Cow::Borrowed(value.as_slice())),
            )
        });
        record.headers.extend(more);
        Ok(record)
    }
}

fn owned(headers: &[HeaderArg]) -> Vec<(String, Vec<u8>)> {
    let pair = |header: &HeaderArg| (header.name.clone(), header.value.clone().into_bytes());
    headers.iter().map(pair).collect()
}

fn split<'a>(line: &'a [u8], separator: &[u8]) -> Result<(Option<&'a [u8]>, &'a [u8]), String> {
    match memchr::memmem::find(line, separator) {
        Some(at) => Ok((Some(&line[..at]), &line[at + separator.len()..])),
        None => Err(format!(
            "no {:?} parts key and value; leave --key-separator out for records without keys",
            String::from_utf8_lossy(separator)
        )),
    }
}

/// A line of JSON; what `ringlog consume --json` adds besides is passed over.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    key: Value,
    key_base64: Option<String>,
    #[serde(default)]
    value: Value,
    value_base64: Option<String>,
    #[serde(default)]
    headers: Value,
    timestamp_ms: Option<i64>,
    partition: Option<i32>,
}

fn parse_json(line: &[u8]) -> Result<NewRecord<'static>, String> {
    let line: Line = serde_json::from_slice(line).map_err(|e| format!("no record in JSON: {e}"))?;
    Ok(NewRecord {
        key: field("key", line.key, line.key_base64)?,
        value: field("value", line.value, line.value_base64)?,
        headers: headers(line.headers)?,
        timestamp_ms: line.timestamp_ms.unwrap_or_else(now_ms),
        partition: line.partition,
    })
}

/// Text as it is, null as nothing, everything else as the JSON it is.
fn field(
    name: &str,
    value: Value,
    base64: Option<String>,
) -> Result<Option<Cow<'static, [u8]>>, String> {
    if let Some(base64) = base64 {
        let bytes = BASE64
            .decode(base64)
            .map_err(|e| format!("{name}_base64: {e}"))?;
        return Ok(Some(bytes.into()));
    }
    Ok(match value {
        Value::Null => None,
        Value::String(text) => Some(text.into_bytes().into()),
        other => Some(other.to_string().into_bytes().into()),
    })
}

fn headers(headers: Value) -> Result<Headers<'static>, String> {
    let wrong =
        || "headers: a list of objects with name and value, or one object, is wanted".to_owned();
    match headers {
        Value::Null => Ok(Vec::new()),
        Value::Object(pairs) => pairs
            .into_iter()
            .map(|(name, value)| Ok((name.into(), field("header", value, None)?)))
            .collect(),
        Value::Array(list) => list
            .into_iter()
            .map(|header| {
                let Value::Object(mut header) = header else {
                    return Err(wrong());
                };
                let Some(Value::String(name)) = header.remove("name") else {
                    return Err(wrong());
                };
                let base64 = match header.remove("value_base64") {
                    Some(Value::String(text)) => Some(text),
                    None => None,
                    Some(_) => return Err(wrong()),
                };
                let value = header.remove("value").unwrap_or_default();
                Ok((name.into(), field("header", value, base64)?))
            })
            .collect(),
        _ => Err(wrong()),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_keys() {
        let header: HeaderArg = "host=a=b".parse().unwrap();
        let parser = Parser::lines(Some("::".parse().unwrap()), None, &[header], Some("NULL"));
        let record = parser.parse(b"k::v::w").unwrap();
        assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
        assert_eq!(record.value.as_deref(), Some(&b"v::w"[..]));
        assert_eq!(record.headers[0].0, "host");
        assert_eq!(record.headers[0].1.as_deref(), Some(&b"a=b"[..]));
        assert_eq!(parser.parse(b"k::NULL").unwrap().value, None);
        assert!(parser.parse(b"no key").unwrap_err().contains("\"::\""));
        let parser = Parser::lines(None, Some("all"), &[], None);
        let record = parser.parse(b"").unwrap();
        assert_eq!(record.key.as_deref(), Some(&b"all"[..]));
        assert_eq!(record.value.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn json_with_bytes_tombstones_and_headers() {
        let parser = Parser::json(&[]);
        let line = br#"{"topic":"t","offset":3,"key_base64":"//4=","value":null,"timestamp_ms":5,"partition":2,
            "headers":[{"name":"a","value":"1"},{"name":"b","value":null},{"name":"c","value_base64":"AA=="}]}"#;
        let record = parser.parse(line).unwrap();
        assert_eq!(record.key.as_deref(), Some(&[0xff, 0xfe][..]));
        assert_eq!(
            (record.value, record.timestamp_ms, record.partition),
            (None, 5, Some(2))
        );
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(n, v)| (&**n, v.as_deref()))
            .collect();
        assert_eq!(
            headers,
            [("a", Some(&b"1"[..])), ("b", None), ("c", Some(&[0][..]))]
        );
        let record = parser
            .parse(br#"{"value":{"n":1},"headers":{"a":"1"}}"#)
            .unwrap();
        assert_eq!(record.value.as_deref(), Some(&br#"{"n":1}"#[..]));
        assert_eq!(record.headers.len(), 1);
        for bad in [
            "",
            "7",
            "{\"headers\":3}",
            "{\"headers\":[{}]}",
            "{\"key_base64\":\"?\"}",
        ] {
            assert!(parser.parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
