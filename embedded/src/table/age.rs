//! Durations as kubectl shows them: `45s`, `5m30s`, `3h`, `2d4h`, `1y20d`.

use jiff::Timestamp;

/// The time from `text` (RFC 3339) until `now`; `<invalid>` for what is no time or lies ahead.
pub(super) fn since(text: &str, now: Timestamp) -> String {
    match text.parse::<Timestamp>() {
        Ok(then) => human(now.as_second() - then.as_second()),
        Err(_) => "<invalid>".to_owned(),
    }
}

/// Two units at most, and the finer one only while it matters.
fn human(seconds: i64) -> String {
    /// A count of the coarse unit, and of the finer one unless that is zero.
    fn two(coarse: i64, unit: char, fine: i64, fine_unit: char) -> String {
        if fine == 0 {
            format!("{coarse}{unit}")
        } else {
            format!("{coarse}{unit}{fine}{fine_unit}")
        }
    }
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        // Clocks of two machines may differ a little.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, 'd', hours % 24, 'h'),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{human, since};

    #[test]
    fn durations_read_like_those_of_kubectl() {
        let (minute, hour, day) = (60, 3600, 86_400);
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (9 * minute + 59, "9m59s"),
            (10 * minute + 59, "10m"),
            (179 * minute, "179m"),
            (3 * hour, "3h"),
            (7 * hour + 5 * minute, "7h5m"),
            (8 * hour + 59 * minute, "8h"),
            (47 * hour, "47h"),
            (2 * day, "2d"),
            (7 * day + 23 * hour, "7d23h"),
            (8 * day + 23 * hour, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (731 * day, "2y1d"),
            (2919 * day, "7y364d"),
            (2921 * day, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human(seconds), text, "{seconds} s");
        }
    }

    #[test]
    fn times_that_cannot_be_read_are_marked() {
        let now = "2026-07-24T10:00:00Z".parse().unwrap();
        assert_eq!(since("2026-07-24T09:55:00Z", now), "5m");
        assert_eq!(since("2026-07-24T12:59:59.5+03:00", now), "1s");
        assert_eq!(since("yesterday", now), "<invalid>");
        assert_eq!(since("2027-01-01T00:00:00Z", now), "<invalid>");
    }
}
