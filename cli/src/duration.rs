//! Durations as people type and read them: `500ms`, `30s`, `1h30m`.

use std::time::Duration;

/// Reads `500ms`, `30s`, `5m`, `2h`, `1h30m`; a bare number means seconds.
///
/// # Errors
/// The text has another form, is zero or too large; the message says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time like 500ms, 30s, 5m or 1h30m");
    if let Ok(seconds) = text.parse::<u32>() {
        return if seconds == 0 {
            Err(wrong())
        } else {
            Ok(Duration::from_secs(u64::from(seconds)))
        };
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let unit_length = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, tail) = tail.split_at(unit_length);
        let number = u64::from(number.parse::<u32>().map_err(|_| wrong())?);
        total += match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3600),
            _ => return Err(wrong()),
        };
        rest = tail;
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

/// A duration for people: `340 ms`, `1.2 s`, `3 min 20 s`, `5 h 2 min`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=59 => format!("{:.1} s", duration.as_secs_f64()),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn forms_that_people_type() {
        let millis = |text| parse_duration(text).unwrap().as_millis();
        assert_eq!(millis("500ms"), 500);
        assert_eq!(millis("30"), 30_000);
        assert_eq!(millis("5m"), 300_000);
        assert_eq!(millis("1h30m"), 5_400_000);
        assert_eq!(millis("1m5s250ms"), 65_250);
    }

    #[test]
    fn a_wrong_time_is_named_with_the_form_that_is_expected() {
        for wrong in ["", "0", "0s", "5 m", "m", "5d", "-5s", "1.5s", "99999999999s", "5sm"] {
            assert!(
                parse_duration(wrong).unwrap_err().contains(&format!("`{wrong}`")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn durations_are_short_to_read() {
        let shown = |millis| human(Duration::from_millis(millis));
        assert_eq!(shown(340), "340 ms");
        assert_eq!(shown(1240), "1.2 s");
        assert_eq!(shown(200_000), "3 min 20 s");
        assert_eq!(shown(18_120_000), "5 h 2 min");
    }
}
