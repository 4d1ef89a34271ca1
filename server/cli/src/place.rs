//! A place in a log, as people give it.

use std::collections::BTreeMap;
use std::str::FromStr;

use jiff::Timestamp;

use crate::client::{At, Client, Isolation, Topic};
use crate::failure::{Failure, Outcome};
use crate::when;

/// Where to begin or to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the first record.
    Beginning,
    /// Behind the last record.
    End,
    /// At an offset, the same in every partition.
    Offset(i64),
    /// At the first record of this time or later, as [`when::parse_ms`] reads it.
    Time(String),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" | "start" | "earliest" => return Ok(Self::Beginning),
            "end" | "latest" => return Ok(Self::End),
            _ => {}
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let offset = text.parse();
            return offset
                .map(Self::Offset)
                .map_err(|_| format!("{text} is no offset"));
        }
        when::parse_ms(text, Timestamp::UNIX_EPOCH)
            .map(|_| Self::Time(text.to_owned()))
            .map_err(|_| {
                "beginning, end, an offset, a time such as 2026-01-31T12:00:00Z, or a span before now such as -1h is wanted"
                    .into()
            })
    }
}

impl Place {
    /// Offset of the first record to read in each partition.
    pub(crate) fn starts(
        &self,
        client: &mut Client,
        topic: &Topic,
        partitions: &[i32],
        isolation: Isolation,
        now: Timestamp,
    ) -> Outcome<BTreeMap<i32, i64>> {
        let bounds = client.bounds(topic, partitions, isolation)?;
        if let Self::Offset(wanted) = self {
            let outside = bounds
                .iter()
                .find(|(_, (start, end))| !(*start..=*end).contains(wanted));
            if let Some((partition, (start, end))) = outside {
                return Err(Failure::new(format!(
                    "offset {wanted} is not in {}/{partition}, which has {start} to {end}",
                    topic.name
                ))
                .remedy("give another --from, or --partition for those that have it"));
            }
        }
        self.in_bounds(client, topic, &bounds, isolation, now)
    }

    /// Offset behind the last record to read in each partition.
    pub(crate) fn ends(
        &self,
        client: &mut Client,
        topic: &Topic,
        partitions: &[i32],
        isolation: Isolation,
        now: Timestamp,
    ) -> Outcome<BTreeMap<i32, i64>> {
        let bounds = client.bounds(topic, partitions, isolation)?;
        self.in_bounds(client, topic, &bounds, isolation, now)
    }

    fn in_bounds(
        &self,
        client: &mut Client,
        topic: &Topic,
        bounds: &BTreeMap<i32, (i64, i64)>,
        isolation: Isolation,
        now: Timestamp,
    ) -> Outcome<BTreeMap<i32, i64>> {
        let from_bounds = |choose: fn(i64, i64) -> i64| {
            let pick =
                |(&partition, &(start, end)): (&i32, &(i64, i64))| (partition, choose(start, end));
            bounds.iter().map(pick).collect()
        };
        Ok(match self {
            Self::Beginning => from_bounds(|start, _| start),
            Self::End => from_bounds(|_, end| end),
            Self::Offset(offset) => {
                let clamp = |(&partition, &(start, end)): (&i32, &(i64, i64))| {
                    (partition, (*offset).clamp(start, end.max(start)))
                };
                bounds.iter().map(clamp).collect()
            }
            Self::Time(text) => {
                let ms = when::parse_ms(text, now).map_err(Failure::unusable)?;
                let partitions: Vec<i32> = bounds.keys().copied().collect();
                let found = client.offsets(topic, &partitions, At::Time(ms), isolation)?;
                let or_end = |(&partition, &(_, end)): (&i32, &(i64, i64))| {
                    (
                        partition,
                        found.get(&partition).copied().flatten().unwrap_or(end),
                    )
                };
                bounds.iter().map(or_end).collect()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        assert_eq!("beginning".parse(), Ok(Place::Beginning));
        assert_eq!("latest".parse(), Ok(Place::End));
        assert_eq!("42".parse(), Ok(Place::Offset(42)));
        for time in ["-1h", "2026-01-31T12:00:00Z", "@1764000000"] {
            assert_eq!(time.parse(), Ok(Place::Time(time.into())));
        }
        for bad in ["", "-1", "middle", "99999999999999999999"] {
            assert!(bad.parse::<Place>().is_err(), "{bad:?}");
        }
    }
}
