//! [`Reserve`]: how much address range an expandable segment takes.

use std::fmt;

use crate::base::Bytes;

use super::numbers::whole_decimal;

/// A value of `expandable_segments_reserve` (2.15).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reserve {
    /// A share of the device's memory; above 0, may exceed 1.
    Fraction(f64),
    /// An absolute size in GiB; above 0.
    Gib(f64),
}

impl Reserve {
    /// The size on a device of `total` bytes: cut to whole bytes, 2^64 - 1 at most. The allocator
    /// takes the smaller of this and its usual 9/8 of the device.
    ///
    /// # Source
    /// `c10/cuda/CUDAAllocatorConfig.h`, `ExpandableSegmentReserveSpec::resolveBytes`, 2.15.
    pub fn bytes(self, total: Bytes) -> Bytes {
        match self {
            Self::Fraction(share) => total.scale(share),
            Self::Gib(count) => Bytes::gib(1).scale(count),
        }
    }

    /// Reads `0.5`, `40G`, `1.5g`: decimal, finite, above 0, nothing after it. `None` makes PyTorch
    /// warn and go on without the value.
    pub(super) fn read(token: &str) -> Option<Self> {
        let (number, absolute) = match token.strip_suffix(['G', 'g']) {
            Some(number) => (number, true),
            None => (token, false),
        };
        let value = whole_decimal(number).filter(|value| value.is_finite() && *value > 0.0)?;
        Some(if absolute { Self::Gib(value) } else { Self::Fraction(value) })
    }
}

impl fmt::Display for Reserve {
    /// As it is written in the settings; reads back to the same number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fraction(share) => write!(f, "{share:?}"),
            Self::Gib(count) => write!(f, "{count:?}G"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_a_plain_decimal_number() {
        for (text, want) in [
            ("0.5", Some(Reserve::Fraction(0.5))),
            ("2", Some(Reserve::Fraction(2.0))),
            ("5.e-1", Some(Reserve::Fraction(0.5))),
            ("1e-310", Some(Reserve::Fraction(1e-310))),
            ("40g", Some(Reserve::Gib(40.0))),
            ("+2G", Some(Reserve::Gib(2.0))),
            ("0", None),
            ("-1", None),
            ("0.5x", None),
            ("5GG", None),
            ("0x10G", None),
            ("1e", None),
            ("nan", None),
            ("infG", None),
            ("1e400", None),
            ("G", None),
        ] {
            assert_eq!(Reserve::read(text), want, "{text}");
        }
    }

    #[test]
    fn sizes_saturate() {
        assert_eq!(Reserve::Fraction(0.5).bytes(Bytes(150_754_820_096)), Bytes(75_377_410_048));
        assert_eq!(Reserve::Gib(1e20).bytes(Bytes::ZERO), Bytes::MAX);
    }
}
