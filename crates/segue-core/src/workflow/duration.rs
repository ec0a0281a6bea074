//! Durations as people write them: `90s`, `5m`, `1h30m`, `250ms`.

use super::suggest::quote;

/// Longest duration that is accepted: a year.
pub(super) const MAX_DURATION_MS: u64 = 365 * 24 * 60 * 60 * 1_000;

/// Units with their length in milliseconds, in the order in which they may follow each other.
const UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// What people write instead of the short unit.
const LONG_UNITS: &[(&str, &str)] = &[
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("hr", "h"),
    ("hrs", "h"),
    ("hour", "h"),
    ("hours", "h"),
    ("day", "d"),
    ("days", "d"),
    ("millis", "ms"),
    ("milliseconds", "ms"),
];

/// Reads a duration such as `90s`, `5m`, `1h30m`, `1.5h`, `250ms` or `90` (seconds), in milliseconds.
///
/// # Errors
/// A sentence that says what is wrong, and often what to write instead, when the text is not a
/// duration, is zero or is longer than a year.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let shown = quote(text);
    let usage = "write for example `90s`, `5m`, `1h30m`, `250ms`, or a number of seconds";
    if text.is_empty() {
        return Err(format!("a duration is missing; {usage}"));
    }
    let mut rest = text;
    let mut total = 0.0_f64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let Ok(number) = rest[..digits].parse::<f64>() else {
            return Err(format!("{shown} is not a duration; {usage}"));
        };
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = &rest[..letters];
        rest = rest[letters..].trim_start();
        if unit.is_empty() && next_unit == 0 && rest.is_empty() {
            return checked(number * 1_000.0, &shown);
        }
        let Some(at) = UNITS.iter().position(|(name, _)| *name == unit) else {
            let long = LONG_UNITS.iter().find(|(long, _)| long.eq_ignore_ascii_case(unit));
            return Err(match long {
                Some((_, short)) => {
                    format!(
                        "{shown} is not a duration; did you mean `{}`?",
                        text.replace(unit, short)
                    )
                }
                None => format!("{shown} is not a duration; {usage}"),
            });
        };
        if at < next_unit {
            return Err(format!("in {shown} a larger unit follows a smaller one; {usage}"));
        }
        next_unit = at + 1;
        total += number * UNITS[at].1 as f64;
    }
    checked(total, &shown)
}

/// Seconds, as a number in the file gives them, in milliseconds.
pub(super) fn seconds_to_ms(seconds: f64, written: &str) -> Result<u64, String> {
    checked(seconds * 1_000.0, &quote(written))
}

fn checked(ms: f64, shown: &str) -> Result<u64, String> {
    if !ms.is_finite() || ms < 0.0 {
        return Err(format!("{shown} is not a duration"));
    }
    if ms < 1.0 {
        return Err(format!("{shown} is too short: a duration is at least one millisecond"));
    }
    if ms > MAX_DURATION_MS as f64 {
        return Err(format!("{shown} is too long: a duration is at most a year"));
    }
    Ok(ms.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let cases = [
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m 5s", 5_405_000),
            ("250ms", 250),
            ("1.5h", 5_400_000),
            ("2d", 172_800_000),
            ("90", 90_000),
            ("0.5", 500),
            ("1m250ms", 60_250),
        ];
        for (text, ms) in cases {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        let cases = [
            ("", "missing"),
            ("fast", "is not a duration"),
            ("5 min", "is not a duration"),
            ("5min", "did you mean `5m`?"),
            ("2hours", "did you mean `2h`?"),
            ("30m1h", "a larger unit follows"),
            ("5m5m", "a larger unit follows"),
            ("0s", "too short"),
            ("-5s", "is not a duration"),
            ("1h30", "is not a duration"),
            ("1e9s", "is not a duration"),
            ("1..5s", "is not a duration"),
            ("9999999999999999999999h", "too long"),
            ("400d", "too long"),
            ("5µs", "is not a duration"),
        ];
        for (text, part) in cases {
            let error = parse_duration_ms(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(seconds_to_ms(f64::NAN, "x").is_err());
        assert!(seconds_to_ms(-1.0, "-1").is_err());
        assert_eq!(seconds_to_ms(1.25, "1.25"), Ok(1_250));
    }
}
