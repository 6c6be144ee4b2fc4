//! JSON numbers as Go sees them: integers are 64-bit, everything else is a double.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::node::Type;

/// Whether the number is written as an integer that fits 64 bits.
pub(super) fn is_int(number: &Number) -> bool {
    number.is_i64()
}

/// Whether the number has no fraction; `1.0` counts.
pub(super) fn is_integral(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || as_f64(number).fract() == 0.0
}

fn as_f64(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

/// Orders two numbers; integers exactly.
pub(crate) fn compare(a: &Number, b: &Number) -> Ordering {
    match (as_i128(a), as_i128(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => as_f64(a).total_cmp(&as_f64(b)),
    }
}

fn as_i128(number: &Number) -> Option<i128> {
    number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from))
}

/// Whether `value` is a whole multiple of `step`; a step that is not positive divides nothing.
pub(super) fn is_multiple(value: &Number, step: &Number) -> bool {
    match (as_i128(value), as_i128(step)) {
        (Some(value), Some(step)) => step > 0 && value % step == 0,
        _ => {
            let (value, step) = (as_f64(value), as_f64(step));
            if step <= 0.0 {
                return false;
            }
            let quotient = if step < 1.0 { (1.0 / step) * value } else { value / step };
            // Steps like 0.1 have no exact double; allow for the rounding of one operation.
            (quotient - quotient.round()).abs() <= f64::EPSILON * quotient.abs().max(1.0)
        }
    }
}

/// Whether the number is in the range of its format; unknown formats have none.
pub(super) fn fits(number: &Number, kind: Type, format: &str) -> bool {
    match (kind, format) {
        (Type::Integer, "int32") => whole(number).is_some_and(|n| i32::try_from(n).is_ok()),
        (Type::Integer, "int64") => whole(number).is_some_and(|n| i64::try_from(n).is_ok()),
        (Type::Number, "float") => as_f64(number).abs() <= f64::from(f32::MAX),
        _ => true,
    }
}

/// The integer value of a number without fraction.
fn whole(number: &Number) -> Option<i128> {
    as_i128(number).or_else(|| {
        let double = as_f64(number);
        // Doubles beyond this are outside every integer format; the conversion is exact below it.
        (double.fract() == 0.0 && double.abs() < 1e19).then_some(double as i128)
    })
}

/// Whether two values are equal, taking `1` and `1.0` for the same.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b) == Ordering::Equal,
        _ => a == b,
    }
}

/// The number as Go's `%v` prints it.
pub(crate) fn show(number: &Number) -> String {
    if number.is_i64() || number.is_u64() {
        return number.to_string();
    }
    let double = as_f64(number);
    if double == 0.0 {
        return if double.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{double:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Go switches to the scientific form much earlier than Rust does.
    if (-4..6).contains(&exponent) {
        return double.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
