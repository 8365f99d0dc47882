//! [`Bytes`]: a number of bytes. Reads sizes as people write them, prints them as PyTorch does.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Sub, SubAssign},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A number of bytes.
///
/// Addition and subtraction check for overflow in every profile of this package.
///
/// # Examples
/// ```
/// use fragsim::base::Bytes;
/// assert_eq!("1.5GiB".parse::<Bytes>()?, Bytes(1_610_612_736));
/// assert_eq!("20m".parse::<Bytes>()?, Bytes::mib(20));
/// assert_eq!(Bytes::mib(20).to_string(), "20.00 MiB");
/// # Ok::<(), fragsim::base::ParseBytesError>(())
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest number; stands for "unlimited" in PyTorch's options.
    pub const MAX: Self = Self(u64::MAX);

    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The next multiple of `step` at or above; `step` must not be zero. Where that does not fit 64
    /// bits, the largest multiple that does: more than any device has, all the same.
    #[inline]
    pub const fn round_up(self, step: Self) -> Self {
        match self.0.div_ceil(step.0).checked_mul(step.0) {
            Some(rounded) => Self(rounded),
            None => Self(u64::MAX / step.0 * step.0),
        }
    }

    /// `self - other`, or zero.
    #[inline]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self + other`, if it fits 64 bits.
    #[inline]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// `self / whole` as a fraction; 0 when `whole` is 0.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people; 53 bits are plenty")]
    pub fn ratio(self, whole: Self) -> f64 {
        if whole.0 == 0 { 0.0 } else { self.0 as f64 / whole.0 as f64 }
    }

    /// `floor(self * factor)`, as PyTorch computes limits: a double product, cut to an integer.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "PyTorch's own arithmetic: static_cast<size_t>(double * size_t)"
    )]
    pub fn scale(self, factor: f64) -> Self {
        Self((factor * self.0 as f64) as u64)
    }
}

impl Add for Bytes {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Bytes {
    type Output = Self;
    #[inline]
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl AddAssign for Bytes {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl SubAssign for Bytes {
    #[inline]
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

/// PyTorch's `format_size`: binary units, two decimals, a boundary belongs to the smaller unit
/// (1 MiB is `1024.00 KiB`).
///
/// # Source
/// `c10/cuda/CUDACachingAllocator.cpp`, `format_size`, unchanged from 2.1 to 2.15.
#[expect(clippy::cast_precision_loss, reason = "PyTorch divides doubles too")]
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        let text = if n <= 1 << 10 {
            format!("{n} bytes")
        } else if n <= 1 << 20 {
            format!("{:.2} KiB", n as f64 / 1024.0)
        } else if n <= 1 << 30 {
            format!("{:.2} MiB", n as f64 / 1_048_576.0)
        } else {
            format!("{:.2} GiB", n as f64 / 1_073_741_824.0)
        };
        f.pad(&text)
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not a size: {why}; write bytes or a number with a unit, such as 512, 20MiB or 1.5GiB"
)]
pub struct ParseBytesError {
    text: String,
    why: &'static str,
}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    /// Reads `512`, `20MiB`, `1.5 GiB`, `80G`, `64kb`. Units are binary whether written `G`, `GB` or
    /// `GiB`, as in PyTorch's messages; letters of either case.
    fn from_str(text: &str) -> Result<Self, ParseBytesError> {
        let fail = |why| ParseBytesError { text: text.to_owned(), why };
        let trimmed = text.trim();
        if trimmed.starts_with('-') {
            return Err(fail("a size cannot be negative"));
        }
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
        let (number, unit) = trimmed.split_at(digits.unwrap_or(trimmed.len()));
        let number = number.replace('_', "");
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" | "byte" | "bytes" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(fail("unknown unit")),
        };
        if number.is_empty() {
            return Err(fail("no number"));
        }
        let (whole, part) = number.split_once('.').unwrap_or((&number, ""));
        let whole: u64 = if whole.is_empty() && !part.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| fail("not a number of at most 64 bits"))?
        };
        let whole = whole.checked_mul(1 << shift).ok_or_else(|| fail("more than 64 bits"))?;
        if part.is_empty() {
            return if number.ends_with('.') {
                Err(fail("ends in a point"))
            } else {
                Ok(Self(whole))
            };
        }
        if part.len() > 15 {
            return Err(fail("too many decimals"));
        }
        let scale = 10u128.pow(part.len().try_into().unwrap_or(15));
        let part: u128 = part.parse().map_err(|_| fail("not a number"))?;
        let part = (part << shift) / scale;
        let part = u64::try_from(part).map_err(|_| fail("more than 64 bits"))?;
        whole.checked_add(part).map(Self).ok_or_else(|| fail("more than 64 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<Bytes>().map(|b| b.0).map_err(|e| e.why);
        assert_eq!(read("512"), Ok(512));
        assert_eq!(read("20MiB"), Ok(20 << 20));
        assert_eq!(read(" 1.5 gib "), Ok(3 << 29));
        assert_eq!(read("80G"), Ok(80 << 30));
        assert_eq!(read("0.5k"), Ok(512));
        assert_eq!(read(".5k"), Ok(512));
        assert_eq!(read("1_000"), Ok(1000));
        assert_eq!(read("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(read("18446744073709551616"), Err("not a number of at most 64 bits"));
        assert_eq!(read("17000000T"), Err("more than 64 bits"));
        assert_eq!(read("-1"), Err("a size cannot be negative"));
        assert_eq!(read("GiB"), Err("no number"));
        assert_eq!(read("1.2.3"), Err("not a number"));
        assert_eq!(read("5."), Err("ends in a point"));
        assert_eq!(read("12 parsecs"), Err("unknown unit"));
    }

    #[test]
    fn what_cannot_be_rounded_up_stays_beyond_every_device() {
        assert_eq!(Bytes(513).round_up(Bytes(512)), Bytes(1024));
        assert_eq!(Bytes::MAX.round_up(Bytes::mib(2)), Bytes(u64::MAX - (2 << 20) + 1));
    }

    #[test]
    fn a_boundary_belongs_to_the_smaller_unit() {
        assert_eq!(Bytes(1024).to_string(), "1024 bytes");
        assert_eq!(Bytes::mib(1).to_string(), "1024.00 KiB");
        assert_eq!(Bytes::gib(1).to_string(), "1024.00 MiB");
        assert_eq!(Bytes(Bytes::gib(1).0 + 1).to_string(), "1.00 GiB");
    }
}
