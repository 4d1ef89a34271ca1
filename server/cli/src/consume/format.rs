//! How a record is written: by a format of the user's, or as JSON.

use std::borrow::Cow;
use std::io::{self, Write};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use super::records::Fetched;
use crate::when;

/// A format string, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Plain(Vec<u8>),
    Value,
    ValueBytes,
    Key,
    KeyBytes,
    Headers,
    Offset,
    Partition,
    Topic,
    Milliseconds,
    Time,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            let piece = match letter {
                '%' => match letters.next() {
                    Some('s') => Piece::Value,
                    Some('S') => Piece::ValueBytes,
                    Some('k') => Piece::Key,
                    Some('K') => Piece::KeyBytes,
                    Some('h') => Piece::Headers,
                    Some('o') => Piece::Offset,
                    Some('p') => Piece::Partition,
                    Some('t') => Piece::Topic,
                    Some('T') => Piece::Milliseconds,
                    Some('d') => Piece::Time,
                    Some('%') => {
                        plain.push(b'%');
                        continue;
                    }
                    other => {
                        let other = other.map(String::from).unwrap_or_default();
                        return Err(format!(
                            "%{other} means nothing; %s, %S, %k, %K, %h, %o, %p, %t, %T, %d and %% do"
                        ));
                    }
                },
                '\\' => {
                    plain.push(escaped(letters.next())?);
                    continue;
                }
                letter => {
                    plain.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            if !plain.is_empty() {
                pieces.push(Piece::Plain(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Plain(plain));
        }
        Ok(Self(pieces))
    }
}

/// What stands behind a backslash.
fn escaped(letter: Option<char>) -> Result<u8, String> {
    Ok(match letter {
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('r') => b'\r',
        Some('0') => 0,
        Some('\\') => b'\\',
        other => {
            let other = other.map(String::from).unwrap_or_default();
            return Err(format!(
                "\\{other} means nothing; \\n, \\t, \\r, \\0 and \\\\ do"
            ));
        }
    })
}

/// How records are shown.
#[derive(Debug)]
pub(crate) enum Shown {
    /// By a format.
    Text {
        /// The record.
        format: Format,
        /// What follows it.
        end: Format,
        /// What stands for a key or value that is absent.
        null: Vec<u8>,
    },
    /// As a line of JSON.
    Json,
}

impl Shown {
    /// Writes a record of `topic`.
    pub(crate) fn write(
        &self,
        out: &mut impl Write,
        topic: &str,
        fetched: &Fetched<'_>,
    ) -> io::Result<()> {
        match self {
            Self::Text { format, end, null } => {
                format.write(out, topic, fetched, null)?;
                end.write(out, topic, fetched, null)
            }
            Self::Json => {
                serde_json::to_writer(&mut *out, &as_json(topic, fetched))?;
                out.write_all(b"\n")
            }
        }
    }
}

impl Format {
    fn write(
        &self,
        out: &mut impl Write,
        topic: &str,
        fetched: &Fetched<'_>,
        null: &[u8],
    ) -> io::Result<()> {
        let record = &fetched.record;
        let len = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
        for piece in &self.0 {
            match piece {
                Piece::Plain(text) => out.write_all(text)?,
                Piece::Value => out.write_all(record.value.unwrap_or(null))?,
                Piece::ValueBytes => write!(out, "{}", len(record.value))?,
                Piece::Key => out.write_all(record.key.unwrap_or(null))?,
                Piece::KeyBytes => write!(out, "{}", len(record.key))?,
                Piece::Headers => {
                    for (at, header) in record.headers.clone().enumerate() {
                        if at > 0 {
                            out.write_all(b",")?;
                        }
                        out.write_all(header.key)?;
                        out.write_all(b"=")?;
                        out.write_all(header.value.unwrap_or(null))?;
                    }
                }
                Piece::Offset => write!(out, "{}", fetched.offset)?,
                Piece::Partition => write!(out, "{}", fetched.partition)?,
                Piece::Topic => out.write_all(topic.as_bytes())?,
                Piece::Milliseconds => write!(out, "{}", fetched.timestamp_ms)?,
                Piece::Time => out.write_all(when::rfc3339(fetched.timestamp_ms).as_bytes())?,
            }
        }
        Ok(())
    }
}

/// A record as JSON. Bytes that are no text are under another name.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<HeaderLine<'a>>,
}

#[derive(Serialize)]
struct HeaderLine<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

fn as_json<'a>(topic: &'a str, fetched: &Fetched<'a>) -> Line<'a> {
    let record = &fetched.record;
    let (key, key_base64) = text_or_base64(record.key);
    let (value, value_base64) = text_or_base64(record.value);
    let headers = record.headers.clone().map(|header| {
        let (value, value_base64) = text_or_base64(header.value);
        HeaderLine {
            name: String::from_utf8_lossy(header.key),
            value,
            value_base64,
        }
    });
    Line {
        topic,
        partition: fetched.partition,
        offset: fetched.offset,
        timestamp_ms: fetched.timestamp_ms,
        time: when::rfc3339(fetched.timestamp_ms),
        key,
        key_base64,
        value,
        value_base64,
        headers: headers.collect(),
    }
}

/// Text or its absence for one field, or base64 for the other.
fn text_or_base64(bytes: Option<&[u8]>) -> (Option<Option<&str>>, Option<String>) {
    match bytes.map(std::str::from_utf8) {
        None => (Some(None), None),
        Some(Ok(text)) => (Some(Some(text)), None),
        Some(Err(_)) => (None, bytes.map(|bytes| BASE64.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringlog_engine::batch::{BatchBuilder, HEADER_LEN, NewRecord, Records};
    use serde_json::Value;

    fn shown(shown: &Shown, key: Option<&[u8]>, value: Option<&[u8]>) -> String {
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord {
            timestamp_ms: 0,
            key,
            value,
            headers: &[("a", Some(b"1")), ("b", None)],
        });
        let batch = builder.build().unwrap();
        let record = Records::new(&batch[HEADER_LEN..], 1)
            .next()
            .unwrap()
            .unwrap();
        let fetched = Fetched {
            partition: 2,
            offset: 5,
            timestamp_ms: 1_764_000_000_123,
            record,
        };
        let mut out = Vec::new();
        shown.write(&mut out, "logs", &fetched).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn text(format: &str) -> Shown {
        Shown::Text {
            format: format.parse().unwrap(),
            end: "\\n".parse().unwrap(),
            null: b"~".to_vec(),
        }
    }

    #[test]
    fn each_letter_of_a_format() {
        let all = text("%t/%p@%o %T %d [%k:%K] %s|%S {%h} %%\\t.");
        assert_eq!(
            shown(&all, Some(b"k"), Some(b"value")),
            "logs/2@5 1764000000123 2025-11-24T16:00:00.123Z [k:1] value|5 {a=1,b=~} %\t.\n"
        );
        assert_eq!(shown(&text("%k=%s,%S"), None, None), "~=~,-1\n");
        for bad in ["%x", "%", "\\x", "\\"] {
            assert!(bad.parse::<Format>().is_err(), "{bad}");
        }
    }

    #[test]
    fn json_keeps_bytes_that_are_no_text() {
        let line = shown(&Shown::Json, Some(b"\xff\xfe"), None);
        let json: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["key_base64"], "//4=");
        assert_eq!(json["value"], Value::Null);
        assert_eq!(json["headers"][0]["value"], "1");
        assert_eq!(json["headers"][1]["value"], Value::Null);
        assert_eq!(
            (&json["offset"], &json["partition"]),
            (&5.into(), &2.into())
        );
    }
}
