//! [`ByteRange`]: a number of bytes that was printed with few digits, so is known only within bounds.

use std::{
    fmt,
    ops::{Add, Sub},
};

use super::Bytes;

/// A number of bytes between two bounds, both included. Differences may be negative.
///
/// A message prints two decimals of a binary unit, so `1.70 GiB` stands for anything within half a
/// hundredth of a GiB on either side. Sums and differences of ranges hold every value that sums and
/// differences of the true figures can have.
///
/// # Examples
/// ```
/// use fragsim::base::{ByteRange, Bytes};
/// let size = ByteRange::printed("1.70", 30).ok_or("a number")?;
/// assert!(size.holds(Bytes(1_825_361_101)) && !size.holds(Bytes::gib(2)));
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    low: i128,
    high: i128,
}

impl ByteRange {
    /// Exactly nothing.
    pub const ZERO: Self = Self { low: 0, high: 0 };

    /// A number that is known to the byte.
    pub fn exact(bytes: Bytes) -> Self {
        Self { low: bytes.0.into(), high: bytes.0.into() }
    }

    /// Everything from `low` to `high`; the other way round if they are.
    pub fn between(low: Bytes, high: Bytes) -> Self {
        Self { low: low.min(high).0.into(), high: low.max(high).0.into() }
    }

    /// What a number stands for that was printed as `digits` in units of `2^shift` bytes, rounded to
    /// the decimals that it has. A whole number of bytes is exact. `None` if it is no plain decimal
    /// number, or beyond 2^80 bytes.
    pub fn printed(digits: &str, shift: u32) -> Option<Self> {
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if part.len() > 9 || whole.len() > 15 || shift > 50 {
            return None;
        }
        let number: i128 = format!("{whole}{part}").parse().ok().filter(|number| *number >= 0)?;
        let scale = 10_i128.pow(u32::try_from(part.len()).ok()?);
        let unit = 1_i128 << shift;
        // Half a step of the last digit; 2 * scale steps make a unit.
        let slack = if shift == 0 && part.is_empty() { 0 } else { unit.div_euclid(2 * scale) + 1 };
        let value = number * unit / scale;
        let high = value + slack;
        (high < 1 << 80).then_some(Self { low: (value - slack).max(0), high })
    }

    /// The least that it can be.
    pub fn low(self) -> i128 {
        self.low
    }

    /// The most that it can be.
    pub fn high(self) -> i128 {
        self.high
    }

    /// The middle: what was printed.
    pub fn middle(self) -> i128 {
        self.low.midpoint(self.high)
    }

    /// The same range without what is below zero.
    #[must_use]
    pub fn at_least_zero(self) -> Self {
        Self { low: self.low.max(0), high: self.high.max(0) }
    }

    /// Whether `bytes` is inside.
    pub fn holds(self, bytes: Bytes) -> bool {
        (self.low..=self.high).contains(&bytes.0.into())
    }

    /// Whether it is at least `other`, whatever the two are within their bounds.
    pub fn surely_at_least(self, other: Self) -> bool {
        self.low >= other.high
    }

    /// Whether it is more than `other`, whatever the two are within their bounds.
    pub fn surely_above(self, other: Self) -> bool {
        self.low > other.high
    }

    /// Whether it is at least `other` if both are what was printed.
    pub fn likely_at_least(self, other: Self) -> bool {
        self.middle() >= other.middle()
    }

    /// The middle as a share of the middle of `whole`; 0 where `whole` is nothing.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people; 53 bits are plenty")]
    pub fn ratio(self, whole: Self) -> f64 {
        if whole.middle() <= 0 { 0.0 } else { self.middle() as f64 / whole.middle() as f64 }
    }
}

impl Add for ByteRange {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { low: self.low + other.low, high: self.high + other.high }
    }
}

impl Sub for ByteRange {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { low: self.low - other.high, high: self.high - other.low }
    }
}

/// The middle, as PyTorch prints sizes, with a sign if it is negative.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = Bytes(u64::try_from(self.middle().unsigned_abs()).unwrap_or(u64::MAX));
        let sign = if self.middle() < 0 { "-" } else { "" };
        f.pad(&format!("{sign}{size}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is printed, what it stood for is inside.
    #[test]
    fn a_printed_size_holds_what_was_printed() {
        for bytes in (0..64).map(|shift| (1_u64 << shift).wrapping_mul(0x9e37_79b9) >> 9) {
            let text = Bytes(bytes).to_string();
            let (digits, unit) = text.split_once(' ').unwrap();
            let shift = match unit {
                "bytes" => 0,
                "KiB" => 10,
                "MiB" => 20,
                _ => 30,
            };
            let range = ByteRange::printed(digits, shift).unwrap();
            assert!(range.holds(Bytes(bytes)), "{bytes} {range:?}");
        }
    }

    #[test]
    fn differences_carry_the_doubt_of_both() {
        let gib = |text| ByteRange::printed(text, 30).unwrap();
        let rest = gib("22.00") - gib("21.58");
        assert!(rest.holds(Bytes(450_971_566)) && rest.holds(Bytes(440_234_147)));
        assert!(!rest.surely_at_least(gib("0.42")) && rest.likely_at_least(gib("0.41")));
        assert!(gib("0.50").surely_above(gib("0.48")) && !gib("0.50").surely_above(gib("0.49")));
        assert_eq!((gib("1.00") - gib("3.00")).to_string(), "-2.00 GiB");
        assert_eq!(
            ByteRange::printed("130674.91", 30).map(|size| size.ratio(gib("2.00")) > 6e4),
            Some(true)
        );
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", ".", "1.2.3", "-1", "x", "99999999999999999", "1.0000000000"] {
            assert_eq!(ByteRange::printed(text, 30), None, "{text}");
        }
    }
}
