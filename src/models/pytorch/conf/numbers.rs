//! The numbers of C++: `std::stoi`, `std::stoul`, `std::stoull`, `std::stod` on one token.
//!
//! All of them skip leading white space, take the longest number there is and ignore the rest, so
//! `128mb` is 128. What they throw holds nothing but the name of the function.

use super::tokens::is_c_space;

/// Sign and digits at the start of `text`: whether negative, and the magnitude if 64 bits hold it.
fn integer(text: &str) -> Option<(bool, Option<u64>)> {
    let text = text.trim_start_matches(is_c_space);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    // Digits alone, so the only failure of `parse` is a number that is too large.
    (end > 0).then(|| (negative, digits[..end].parse().ok()))
}

/// `std::stoi`, then converted to `size_t`: a negative number becomes a huge one.
pub(super) fn stoi(text: &str) -> Option<u64> {
    let (negative, magnitude) = integer(text)?;
    let magnitude = i64::try_from(magnitude?).ok()?;
    let value = i32::try_from(if negative { -magnitude } else { magnitude }).ok()?;
    Some(i64::from(value).cast_unsigned())
}

/// `std::stoul` and `std::stoull`, the same where `long` has 64 bits: a minus sign wraps around.
pub(super) fn stoull(text: &str) -> Option<u64> {
    let (negative, magnitude) = integer(text)?;
    magnitude.map(|n| if negative { n.wrapping_neg() } else { n })
}

/// `std::stod`: decimal or hexadecimal, `inf` and `nan`; refuses what overflows or underflows.
pub(super) fn stod(text: &str) -> Option<f64> {
    let text = text.trim_start_matches(is_c_space);
    let (negative, body) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = if starts_with_any_case(body, "nan") {
        f64::NAN
    } else if starts_with_any_case(body, "inf") {
        f64::INFINITY
    } else {
        let (value, zero) = hexadecimal(body).or_else(|| decimal(body))?;
        let in_range = value.is_finite() && value >= f64::MIN_POSITIVE;
        (in_range || zero).then_some(value)?
    };
    Some(if negative { -value } else { value })
}

/// A number made of nothing but decimal digits, point and exponent, the whole text of it.
pub(super) fn whole_decimal(text: &str) -> Option<f64> {
    let (negative, body) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if decimal_length(body)? != body.len() {
        return None;
    }
    let (value, _) = decimal(body)?;
    Some(if negative { -value } else { value })
}

fn starts_with_any_case(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Length of the longest decimal number at the start of `text`.
fn decimal_length(text: &str) -> Option<usize> {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(0);
    let mut end = whole;
    let mut part = 0;
    if text[end..].starts_with('.') {
        part = digits(end + 1);
        end += 1 + part;
    }
    if whole + part == 0 {
        return None;
    }
    if text[end..].starts_with(['e', 'E']) {
        let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    Some(end)
}

/// The decimal number at the start of `text`, and whether all its digits are 0.
fn decimal(text: &str) -> Option<(f64, bool)> {
    let number = &text[..decimal_length(text)?];
    let mantissa = number.split(['e', 'E']).next().unwrap_or(number);
    let zero = mantissa.bytes().all(|b| matches!(b, b'0' | b'.'));
    Some((number.parse().ok()?, zero))
}

/// The hexadecimal number at the start of `text`, such as `0x1.8p-1`, and whether it is 0.
#[expect(clippy::cast_precision_loss, reason = "rounds to nearest once, as strtod does")]
fn hexadecimal(text: &str) -> Option<(f64, bool)> {
    let body = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let (mut mantissa, mut exponent) = (0_u64, 0_i64);
    let (mut any, mut after_point) = (false, false);
    let mut rest = body.char_indices();
    let mut tail = "";
    for (at, c) in rest.by_ref() {
        match c.to_digit(16) {
            Some(digit) => {
                any = true;
                if mantissa >> 59 == 0 {
                    mantissa = mantissa << 4 | u64::from(digit);
                    exponent -= if after_point { 4 } else { 0 };
                } else {
                    // Beyond 60 bits a digit only matters for ties: it sticks to the lowest bit.
                    mantissa |= u64::from(digit != 0);
                    exponent += if after_point { 0 } else { 4 };
                }
            }
            None if c == '.' && !after_point => after_point = true,
            None => {
                tail = &body[at..];
                break;
            }
        }
    }
    if !any {
        return None;
    }
    if let Some((negative, magnitude)) = tail.strip_prefix(['p', 'P']).and_then(exponent_of) {
        exponent += if negative { -magnitude } else { magnitude };
    }
    let zero = mantissa == 0;
    let value = if zero { 0.0 } else { scale_by_two(mantissa as f64, exponent) };
    Some((value, zero))
}

/// Sign and digits of an exponent, cut to a magnitude that is beyond every double.
fn exponent_of(text: &str) -> Option<(bool, i64)> {
    if text.starts_with(is_c_space) {
        return None;
    }
    let (negative, magnitude) = integer(text)?;
    let magnitude = magnitude.unwrap_or(u64::MAX).min(1 << 40);
    Some((negative, i64::try_from(magnitude).unwrap_or(1 << 40)))
}

/// `value * 2^exponent`: infinite or 0 where a double cannot hold it.
fn scale_by_two(value: f64, exponent: i64) -> f64 {
    let mut value = value;
    let mut left = exponent.clamp(-3000, 3000);
    while left != 0 {
        let step = left.clamp(-500, 500);
        value *= 2_f64.powi(i32::try_from(step).unwrap_or(0));
        left -= step;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stoi_takes_the_number_and_leaves_the_rest() {
        for (text, want) in [
            ("128mb", Some(128)),
            ("128.7", Some(128)),
            ("0x64", Some(0)),
            (" \t+7", Some(7)),
            ("-1", Some(u64::MAX)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", None),
            ("-2147483649", None),
            ("99999999999999999999", None),
            ("abc", None),
            ("", None),
            ("--5", None),
        ] {
            assert_eq!(stoi(text), want, "{text}");
        }
    }

    #[test]
    fn stoull_wraps_negative_numbers() {
        assert_eq!(stoull("-18446744073709551596"), Some(20));
        assert_eq!(stoull("18446744073709551615"), Some(u64::MAX));
        assert_eq!(stoull("18446744073709551616"), None);
        assert_eq!(stoull("+-5"), None);
    }

    #[test]
    fn stod_reads_what_strtod_reads() {
        for (text, want) in [
            ("0.8", Some(0.8)),
            (".5", Some(0.5)),
            ("5.e-1zz", Some(0.5)),
            ("+.5e", Some(0.5)),
            ("0x1p-1", Some(0.5)),
            ("0x.8", Some(0.5)),
            ("0x", Some(0.0)),
            ("0xp1", Some(0.0)),
            ("1e400", None),
            ("1e-400", None),
            ("1e-310", None),
            ("0x1p-1100", None),
            ("0e-999", Some(0.0)),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("x", None),
            (".", None),
        ] {
            assert_eq!(stod(text), want, "{text}");
        }
        assert!(stod("NaN(1)").is_some_and(f64::is_nan));
    }
}
