//! The string formats that kube-apiserver checks; every other `format` is documentation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::{Engine, engine::general_purpose::STANDARD};

/// A format with a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    DateTime,
    Date,
    Duration,
    Byte,
    /// With the required version digit, if any.
    Uuid(Option<u8>),
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Uri,
    Email,
    Hostname,
    HexColor,
    ObjectId,
    ShortName,
    LongName,
}

impl Format {
    /// The checked format of this name; dashes do not matter, as in kube-apiserver.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let plain: String = name.chars().filter(|c| *c != '-').collect();
        Some(match plain.as_str() {
            "datetime" => Self::DateTime,
            "date" => Self::Date,
            "duration" => Self::Duration,
            "byte" => Self::Byte,
            "uuid" => Self::Uuid(None),
            "uuid3" => Self::Uuid(Some(b'3')),
            "uuid4" => Self::Uuid(Some(b'4')),
            "uuid5" => Self::Uuid(Some(b'5')),
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "cidr" => Self::Cidr,
            "mac" => Self::Mac,
            "uri" => Self::Uri,
            "email" => Self::Email,
            "hostname" => Self::Hostname,
            "hexcolor" => Self::HexColor,
            "bsonobjectid" => Self::ObjectId,
            "k8sshortname" => Self::ShortName,
            "k8slongname" => Self::LongName,
            _ => return None,
        })
    }

    /// Whether the text has this format.
    pub(super) fn accepts(self, text: &str) -> bool {
        match self {
            Self::DateTime => is_date_time(text),
            Self::Date => is_date(text),
            Self::Duration => is_duration(text),
            Self::Byte => STANDARD.decode(text).is_ok(),
            Self::Uuid(version) => is_uuid(text, version),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => is_cidr(text),
            Self::Mac => is_mac(text),
            Self::Uri => is_uri(text),
            Self::Email => is_email(text),
            Self::Hostname => is_hostname(text),
            Self::HexColor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                matches!(digits.len(), 3 | 6) && all_hex(digits)
            }
            Self::ObjectId => text.len() == 24 && all_hex(text),
            Self::ShortName => is_dns_label(text),
            Self::LongName => is_dns_subdomain(text),
        }
    }
}

/// A lower-case DNS label of RFC 1123: 1 to 63 letters, digits and inner dashes.
pub(crate) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_part(text)
}

/// Dot-separated lower-case labels, 253 characters at most.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_part)
}

fn is_dns_part(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

fn all_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A number of exactly `width` digits.
fn digits(text: &str, width: usize) -> Option<u32> {
    (text.len() == width && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else {
        return false;
    };
    digits(year, 4).is_some()
        && digits(month, 2).is_some()
        && digits(day, 2).is_some()
        && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else {
        return false;
    };
    if !is_date(date) {
        return false;
    }
    let Some((clock, rest)) = time.split_at_checked(8) else {
        return false;
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = parts.as_slice() else {
        return false;
    };
    let below = |part: &str, limit: u32| digits(part, 2).is_some_and(|n| n < limit);
    if !(below(hour, 24) && below(minute, 60) && below(second, 60)) {
        return false;
    }
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
        None => rest,
    };
    match zone.strip_prefix(['+', '-']) {
        Some(offset) => offset
            .split_once(':')
            .is_some_and(|(hours, minutes)| digits(hours, 2).is_some() && digits(minutes, 2).is_some()),
        None => matches!(zone, "Z" | "z"),
    }
}

/// Durations as Go writes them (`1h30m`, `-1.5s`) and in words (`3 days`).
fn is_duration(text: &str) -> bool {
    is_go_duration(text) || is_duration_in_words(text)
}

fn is_go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &rest[..rest.len() - unit.len()];
        if number.parse::<f64>().is_err() {
            return false;
        }
        // Longer units first: `m` is also the beginning of `ms`.
        let Some(after) = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"]
            .iter()
            .find_map(|name| unit.strip_prefix(name))
        else {
            return false;
        };
        rest = after;
    }
    true
}

fn is_duration_in_words(text: &str) -> bool {
    let text = text.trim();
    let word = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let unit = word.trim_start();
    word.len() < text.len()
        && matches!(
            unit.strip_suffix('s').unwrap_or(unit),
            "n" | "nano"
                | "nanosecond"
                | "u"
                | "micro"
                | "microsecond"
                | "m"
                | "milli"
                | "millisecond"
                | ""
                | "sec"
                | "second"
                | "min"
                | "minute"
                | "h"
                | "hr"
                | "hour"
                | "d"
                | "day"
                | "w"
                | "wk"
                | "week"
        )
        && !unit.is_empty()
}

fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let plain: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    // Dashes may be left out, but may stand only at the four usual places.
    let mut position = 0;
    for part in text.split('-') {
        position += part.len();
        if position != 32 && part.len() != text.len() && !matches!(position, 8 | 12 | 16 | 20) {
            return false;
        }
    }
    plain.len() == 32
        && plain.iter().all(u8::is_ascii_hexdigit)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
        && version.is_none_or(|digit| plain.get(12) == Some(&digit))
        && (!matches!(version, Some(b'4' | b'5'))
            || plain
                .get(16)
                .is_some_and(|b| matches!(b.to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b')))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let limit = if address.is_ipv4() { 32 } else { 128 };
    !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= limit)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len()) && parts.iter().all(|part| part.len() == width && all_hex(part))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

/// An absolute URI or an absolute path, as HTTP request lines have them.
fn is_uri(text: &str) -> bool {
    if text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let mut letters = scheme.bytes();
    letters.next().is_some_and(|b| b.is_ascii_alphabetic())
        && letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        && !rest.is_empty()
}

fn is_email(text: &str) -> bool {
    // `Name <address>` is an address too, as for Go's mail.ParseAddress.
    let address = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(start), Some(inner)) => &inner[start + 1..],
        (None, None) => text,
        _ => return false,
    };
    let Some((local, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && !part.contains("..")
            && part
                .chars()
                .all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c))
    };
    plain(local) && plain(domain)
}

fn is_hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 255
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.len() <= 63
                && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
                && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Format;

    #[test]
    fn formats_accept_and_refuse() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "date-time",
                &[
                    "2026-07-24T10:11:12Z",
                    "2026-07-24T10:11:12.123456+02:00",
                    "2026-07-24t10:11:12z",
                ],
                &[
                    "",
                    "2026-07-24",
                    "2026-13-24T10:11:12Z",
                    "2026-07-24T24:00:00Z",
                    "2026-07-24T10:11:12",
                    "2026-07-24T10:11:12.Z",
                    "2026-02-30T10:11:12Z",
                ],
            ),
            (
                "date",
                &["2026-07-24"],
                &["2026-7-24", "2026-02-30", "20260724", "+026-07-24"],
            ),
            (
                "duration",
                &["1h30m", "300ms", "-1.5h", "0", "3 days", "22 ns"],
                &["", "1", "h", "1x", "1h x"],
            ),
            ("byte", &["", "aGFsbG8=", "YQ=="], &["a", "hallo!", "YQ"]),
            (
                "uuid",
                &[
                    "0F1E2D3C-4b5a-6978-8796-a5b4c3d2e1f0",
                    "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
                ],
                &[
                    "",
                    "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f",
                    "0-f1e2d3c4b5a69788796a5b4c3d2e1f0",
                    "-0f1e2d3c4b5a69788796a5b4c3d2e1f0",
                ],
            ),
            (
                "uuid4",
                &["0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0"],
                &[
                    "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
                    "0f1e2d3c-4b5a-4978-c796-a5b4c3d2e1f0",
                ],
            ),
            ("ipv4", &["10.0.0.1"], &["10.0.0", "::1", "10.0.0.256"]),
            ("ipv6", &["::1", "fe80::1"], &["10.0.0.1", "fe80::g"]),
            (
                "cidr",
                &["10.0.0.0/8", "fd00::/64"],
                &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "x/8"],
            ),
            (
                "mac",
                &["01:23:45:67:89:ab", "01-23-45-67-89-ab", "0123.4567.89ab"],
                &["01:23:45:67:89", "0123456789ab"],
            ),
            (
                "uri",
                &["https://example.com/x?y", "/path", "urn:a:b"],
                &["example.com", "", "http://a b"],
            ),
            (
                "email",
                &["a@example.com", "A B <a@example.com>"],
                &["a", "@b", "a@", "a@b..c", "<a@b"],
            ),
            ("hostname", &["a.example.com", "A-1"], &["", "-a", "a_b", "a..b"]),
            ("hexcolor", &["#fff", "a0b1c2"], &["#ffff", "#ggg"]),
            ("k8s-short-name", &["kg-1"], &["Kg", "a.b", "-a", ""]),
            ("k8s-long-name", &["a.b-c"], &["a..b", "A"]),
        ];
        for (name, good, bad) in cases {
            let format = Format::parse(name).unwrap();
            for text in *good {
                assert!(format.accepts(text), "{name} must accept {text:?}");
            }
            for text in *bad {
                assert!(!format.accepts(text), "{name} must refuse {text:?}");
            }
        }
    }

    #[test]
    fn unknown_formats_are_not_checked() {
        for name in ["", "int-or-string", "double", "quantity", "password"] {
            assert_eq!(Format::parse(name), None, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            for name in ["datetime", "date", "duration", "byte", "uuid", "uuid5", "cidr", "mac", "uri", "email", "hostname", "hexcolor"] {
                let _ = Format::parse(name).unwrap().accepts(&text);
            }
        }
    }
}
