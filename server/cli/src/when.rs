//! Moments as people write them, and as milliseconds since 1970, which is how Kafka's protocol has them.

use jiff::Timestamp;

/// Reads an RFC 3339 time (`2026-01-31T12:00:00Z`), seconds or milliseconds since 1970 behind an `@`, `now`, or a span
/// before now (`-90m`, `-1h30m`, `-2d`).
pub(crate) fn parse_ms(text: &str, now: Timestamp) -> Result<i64, String> {
    if text == "now" {
        return Ok(now.as_millisecond());
    }
    if let Some(number) = text.strip_prefix('@') {
        let number: i64 = number
            .parse()
            .map_err(|_| format!("{text:?}: seconds or milliseconds since 1970 are wanted"))?;
        // Until the year 5138 seconds have fewer than twelve digits.
        return Ok(match number.unsigned_abs() < 100_000_000_000 {
            true => number.saturating_mul(1000),
            false => number,
        });
    }
    if let Some(span) = text.strip_prefix('-') {
        let before = span_ms(span).ok_or_else(|| {
            format!("{text:?} is no span of time; write for instance -30s, -90m, -1h30m or -2d")
        })?;
        return Ok(now.as_millisecond().saturating_sub(before));
    }
    let moment: Timestamp = text.parse().map_err(|_| {
        format!("{text:?} is no time; write for instance 2026-01-31T12:00:00Z or -1h")
    })?;
    Ok(moment.as_millisecond())
}

/// Milliseconds of `1d2h3m4s5ms`, the largest unit first.
fn span_ms(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    let mut last = i64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "w" => 7 * 86_400_000,
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" | "min" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        if unit >= last {
            return None;
        }
        last = unit;
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[letters..];
    }
    (last < i64::MAX).then_some(total)
}

/// A moment in RFC 3339, with milliseconds; as it came if it is before 1970 (none) or beyond the year 9999.
pub(crate) fn rfc3339(ms: i64) -> String {
    let moment = Timestamp::from_millisecond(ms).ok();
    match moment.filter(|_| ms >= 0) {
        Some(moment) => format!("{moment:.3}"),
        None => ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<i64, String> {
        parse_ms(text, Timestamp::from_millisecond(10_000_000_000).unwrap())
    }

    #[test]
    fn times_absolute_and_relative() {
        assert_eq!(at("now"), Ok(10_000_000_000));
        assert_eq!(at("-1h"), Ok(10_000_000_000 - 3_600_000));
        assert_eq!(at("-1d2h3m4s5ms"), Ok(10_000_000_000 - 93_784_005));
        assert_eq!(at("1970-01-02T00:00:00Z"), Ok(86_400_000));
        assert_eq!(at("1970-01-01T02:00:00.5+01:00"), Ok(3_600_500));
        assert_eq!(at("@86400"), Ok(86_400_000));
        assert_eq!(at("@1764000000123"), Ok(1_764_000_000_123));
        for bad in [
            "",
            "-",
            "-5",
            "-h",
            "-1m1h",
            "-1x",
            "yesterday",
            "@",
            "-99999999999999999w",
        ] {
            assert!(at(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn moments_are_written_as_they_are_read() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(-1), "-1");
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
        assert_eq!(at(&rfc3339(1_764_000_000_123)), Ok(1_764_000_000_123));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text: String, ms: i64) {
            let _ = at(&text);
            let _ = at(&format!("-{text}"));
            let _ = rfc3339(ms);
        }
    }
}
