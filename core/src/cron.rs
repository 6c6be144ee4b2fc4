//! Cron expressions of five fields in UTC, and when they are due.
//!
//! `minute hour day-of-month month day-of-week`, each a list of `*`, `n`, `a-b`, and any of these with `/step`; months and
//! weekdays also by their English names of three letters; Sunday is 0 or 7. `@hourly`, `@daily`, `@weekly`, `@monthly` and
//! `@yearly` stand for what their names say. When day of month and day of week are both limited, one of them has to fit,
//! as in every cron.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::str::FromStr;

/// Days that are searched: the 29th of February comes at least once in eight years.
const DAYS: u32 = 366 * 8;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// An expression that was read. Each field is a set of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Only one of day of month and day of week has to fit, since both are limited.
    either_day: bool,
}

/// An expression that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It has not five fields.
    #[error("expected five fields or @hourly, @daily, @weekly, @monthly, @yearly, not {0:?}")]
    Form(String),
    /// A field is wrong.
    #[error("{field}: {text:?} is not {low}-{high}, *, a list or range of these, or one of them with /step")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it says.
        text: String,
        /// The lowest number of the field.
        low: u32,
        /// The highest.
        high: u32,
    },
    /// No day fits, such as the 30th of February.
    #[error("no day fits {0:?}")]
    Never(String),
}

struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

impl Field {
    fn number(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let number = match named {
            Some(index) => u32::try_from(index).ok()? + self.low,
            None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (self.low..=self.high).contains(&number).then_some(number)
    }

    fn part(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
            None => (text, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.low, self.high),
            Some((from, to)) => (self.number(from)?, self.number(to)?),
            // `5/15` is from 5 to the end.
            None => (
                self.number(range)?,
                if step.is_some() { self.high } else { self.number(range)? },
            ),
        };
        let step = usize::try_from(step.unwrap_or(1)).ok()?;
        (from <= to).then(|| (from..=to).step_by(step).fold(0u64, |set, n| set | (1u64 << n)))
    }

    fn parse(&self, text: &str) -> Result<u64, CronError> {
        let parts: Option<Vec<u64>> = text.split(',').map(|part| self.part(part)).collect();
        let wrong = || CronError::Field {
            field: self.name,
            text: text.to_owned(),
            low: self.low,
            high: self.high,
        };
        Ok(parts.ok_or_else(wrong)?.into_iter().fold(0, |all, part| all | part))
    }
}

const fn field(name: &'static str, low: u32, high: u32, names: &'static [&'static str]) -> Field {
    Field { name, low, high, names }
}

const MINUTE: Field = field("minute", 0, 59, &[]);
const HOUR: Field = field("hour", 0, 23, &[]);
const DAY: Field = field("day of month", 1, 31, &[]);
const MONTH: Field = field("month", 1, 12, &MONTHS);
const WEEKDAY: Field = field("day of week", 0, 7, &WEEKDAYS);

impl FromStr for Schedule {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let expression = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" => "0 0 1 1 *",
            other => other,
        };
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(CronError::Form(text.to_owned()));
        };
        let weekdays = WEEKDAY.parse(weekday)?;
        let schedule = Self {
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY.parse(day)?,
            months: MONTH.parse(month)?,
            // Sunday has two numbers.
            weekdays: (weekdays | (weekdays >> 7)) & 0x7f,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        // Whether there is such a day does not depend on where the search begins.
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(CronError::Never(text.to_owned())),
        }
    }
}

fn has(set: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|n| n < 64 && (set >> n) & 1 == 1)
}

impl Schedule {
    fn fits_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month())
            && if self.either_day {
                day || weekday
            } else {
                day && weekday
            }
    }

    /// The times of a day, the earliest first.
    fn times(&self, date: Date) -> impl DoubleEndedIterator<Item = Timestamp> {
        let (hours, minutes) = (self.hours, self.minutes);
        let hours = (0..24i8).filter(move |h| has(hours, *h));
        let times = hours.flat_map(move |h| (0..60i8).filter(move |m| has(minutes, *m)).map(move |m| (h, m)));
        times.filter_map(move |(hour, minute)| {
            let at = date.at(hour, minute, 0, 0).to_zoned(TimeZone::UTC);
            at.ok().map(|at| at.timestamp())
        })
    }

    /// The first time after `moment`.
    pub fn next(&self, moment: Timestamp) -> Option<Timestamp> {
        let mut date = moment.to_zoned(TimeZone::UTC).date();
        for _ in 0..DAYS {
            if self.fits_day(date)
                && let Some(found) = self.times(date).find(|time| *time > moment)
            {
                return Some(found);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The last time that is not after `moment`.
    pub fn last(&self, moment: Timestamp) -> Option<Timestamp> {
        let mut date = moment.to_zoned(TimeZone::UTC).date();
        for _ in 0..DAYS {
            if self.fits_day(date)
                && let Some(found) = self.times(date).rev().find(|time| *time <= moment)
            {
                return Some(found);
            }
            date = date.yesterday().ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use jiff::SignedDuration;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap()
    }

    #[test]
    fn known_expressions_are_due_when_they_say() {
        let from = at("2026-11-22T00:30:20Z"); // a Sunday
        for (text, next) in [
            ("0 2 * * *", "2026-11-22T02:00:00Z"),
            ("*/15 * * * *", "2026-11-22T00:45:00Z"),
            ("5/20 0 * * *", "2026-11-22T00:45:00Z"),
            ("30 0 * * *", "2026-11-23T00:30:00Z"),
            ("0 0 * * 7", "2026-11-29T00:00:00Z"),
            ("0 9 * * mon-fri", "2026-11-23T09:00:00Z"),
            ("0 0 1 JAN,mar *", "2027-01-01T00:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            // The 25th or a Tuesday, whichever is sooner.
            ("0 0 25 * tue", "2026-11-24T00:00:00Z"),
            ("@hourly", "2026-11-22T01:00:00Z"),
            ("@daily", "2026-11-23T00:00:00Z"),
            ("@weekly", "2026-11-29T00:00:00Z"),
            ("@monthly", "2026-12-01T00:00:00Z"),
            ("@yearly", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(schedule(text).next(from), Some(at(next)), "{text}");
        }
        let last = schedule("0 2 * * *").last(from);
        assert_eq!(last, Some(at("2026-11-21T02:00:00Z")));
        assert_eq!(
            schedule("30 0 * * *").last(at("2026-11-22T00:30:00Z")),
            Some(at("2026-11-22T00:30:00Z"))
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for wrong in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "a * * * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "1,,2 * * * *",
            "-1 * * * *",
            "+1 * * * *",
            "@never",
            "0 0 30 2 *",
            "1- * * * *",
        ] {
            assert!(wrong.parse::<Schedule>().is_err(), "{wrong:?}");
        }
    }

    fn any_field(low: u32, high: u32) -> impl Strategy<Value = String> {
        prop_oneof![
            3 => Just("*".to_owned()),
            2 => (low..=high).prop_map(|n| n.to_string()),
            1 => (1u32..40).prop_map(|step| format!("*/{step}")),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a},{b}")),
        ]
    }

    proptest! {
        #[test]
        fn times_are_in_order_and_none_is_left_out(
            minute in any_field(0, 59), hour in any_field(0, 23), day in any_field(1, 28), weekday in any_field(0, 7),
            second in 1_700_000_000i64..2_000_000_000,
        ) {
            let schedule = schedule(&format!("{minute} {hour} {day} * {weekday}"));
            let moment = Timestamp::from_second(second).unwrap();
            let next = schedule.next(moment).unwrap();
            let last = schedule.last(moment).unwrap();
            prop_assert!(last <= moment && moment < next);
            prop_assert_eq!(schedule.last(next), Some(next));
            prop_assert_eq!(schedule.next(last), Some(next), "nothing is between the two");
            let before = next.checked_sub(SignedDuration::from_secs(1)).unwrap();
            prop_assert_eq!((schedule.last(before), schedule.next(before)), (Some(last), Some(next)));
            prop_assert_eq!(next.as_second() % 60, 0);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[ -~]{0,24}") {
            let _ = text.parse::<Schedule>();
        }
    }
}
