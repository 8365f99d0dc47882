//! Many programs under many settings on many devices: the rows of a sweep, and conditions on them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::base::Bytes;

use super::{figures::Figures, price::Prices};

/// One replay of a sweep, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SweepRow {
    /// The file as given.
    pub file: String,
    /// The device of the trace.
    pub device: Option<u8>,
    /// The release whose rules were applied.
    pub torch: String,
    /// The settings, as a string that can be pasted.
    pub conf: String,
    /// Capacity in bytes; none where none was given or known: nothing is refused then.
    pub capacity_bytes: Option<u64>,
    /// Whether everything was served.
    pub survives: Option<bool>,
    /// The operation that was not, counted from 0.
    pub died_at_op: Option<u64>,
    /// What it asked, in bytes.
    pub died_requested_bytes: Option<u64>,
    /// Operations done.
    pub ops: Option<u64>,
    /// Most bytes handed out.
    pub allocated_bytes_peak: Option<u64>,
    /// Most bytes reserved.
    pub reserved_bytes_peak: Option<u64>,
    /// Reserved beyond allocated, at the peaks.
    pub waste_bytes: Option<u64>,
    /// That, in percent of what was reserved.
    pub waste_percent: Option<f64>,
    /// Times that everything was given back and the device asked again.
    pub retries: Option<u64>,
    /// `cudaMalloc`, refused ones included.
    pub cuda_malloc: Option<u64>,
    /// `cudaFree`.
    pub cuda_free: Option<u64>,
    /// Ranges mapped, refused ones included.
    pub map: Option<u64>,
    /// Ranges unmapped.
    pub unmap: Option<u64>,
    /// Times that all pending events were waited for.
    pub synchronizations: Option<u64>,
    /// About what the calls take, in microseconds.
    pub price_us: Option<f64>,
    /// Why there is no replay.
    pub error: Option<String>,
}

impl SweepRow {
    /// The row, with what a replay came to.
    pub fn with(self, figures: &Figures, prices: &Prices) -> Self {
        let death = figures.death.as_ref();
        let (waste, reserved) = (figures.waste(), figures.reserved.reserved);
        Self {
            survives: Some(figures.survives()),
            died_at_op: death.map(|death| death.op),
            died_requested_bytes: death.and_then(|death| Some(death.requested?.0)),
            ops: Some(figures.ops),
            allocated_bytes_peak: Some(figures.allocated.allocated.0),
            reserved_bytes_peak: Some(reserved.0),
            waste_bytes: Some(waste.0),
            waste_percent: Some((1000.0 * waste.ratio(reserved)).round() / 10.0),
            retries: Some(figures.retries),
            cuda_malloc: Some(figures.calls.malloc),
            cuda_free: Some(figures.calls.free),
            map: Some(figures.calls.map),
            unmap: Some(figures.calls.unmap),
            synchronizations: Some(figures.synchronizations),
            price_us: Some(prices.of(figures)),
            ..self
        }
    }
}

/// A figure that conditions speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    Allocated,
    Reserved,
    Waste,
    WastePercent,
    Retries,
    CudaMalloc,
    CudaFree,
    Price,
}

/// Each figure, the names that it has, and whether it is in bytes.
const METRICS: [(Metric, &[&str], bool); 8] = [
    (Metric::Reserved, &["peak_reserved", "reserved_bytes_peak"], true),
    (Metric::Allocated, &["peak_allocated", "allocated_bytes_peak"], true),
    (Metric::Waste, &["waste", "waste_bytes"], true),
    (Metric::WastePercent, &["waste_percent"], false),
    (Metric::Retries, &["retries"], false),
    (Metric::CudaMalloc, &["cuda_malloc"], false),
    (Metric::CudaFree, &["cuda_free"], false),
    (Metric::Price, &["price_us"], false),
];

impl Metric {
    fn of(self, row: &SweepRow) -> Option<f64> {
        let count = match self {
            Self::Allocated => row.allocated_bytes_peak,
            Self::Reserved => row.reserved_bytes_peak,
            Self::Waste => row.waste_bytes,
            Self::Retries => row.retries,
            Self::CudaMalloc => row.cuda_malloc,
            Self::CudaFree => row.cuda_free,
            Self::WastePercent => return row.waste_percent,
            Self::Price => return row.price_us,
        };
        count.map(number)
    }
}

#[expect(clippy::cast_precision_loss, reason = "no figure of a device is above 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    More,
    AtLeast,
    Less,
    AtMost,
    Equal,
    Unequal,
}

/// The signs; two letters before one.
const SIGNS: [(&str, Compare); 6] = [
    (">=", Compare::AtLeast),
    ("<=", Compare::AtMost),
    ("==", Compare::Equal),
    ("!=", Compare::Unequal),
    (">", Compare::More),
    ("<", Compare::Less),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Test {
    Dies,
    Figure(Metric, Compare, f64),
}

/// A condition on a row, such as `peak_reserved > 70GiB` or `dies`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    test: Test,
}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no condition: {why}; write for example 'peak_reserved > 70GiB', 'retries > 0' or 'dies'; the figures are {}", names().join(", "))]
pub struct ConditionError {
    text: String,
    why: String,
}

fn names() -> Vec<&'static str> {
    METRICS.iter().map(|(_, names, _)| names[0]).collect()
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let fail = |why: String| ConditionError { text: text.to_owned(), why };
        if text.trim() == "dies" {
            return Ok(Self { text: text.trim().to_owned(), test: Test::Dies });
        }
        let sign =
            SIGNS.iter().filter_map(|(sign, compare)| Some((text.find(sign)?, sign, compare)));
        // The first in the text; of two at one place, the longer.
        let Some((at, sign, compare)) = sign.min_by_key(|(at, sign, _)| (*at, 2 - sign.len()))
        else {
            return Err(fail("it compares nothing".into()));
        };
        let (name, value) = (text[..at].trim(), text[at + sign.len()..].trim());
        let metric = METRICS.iter().find(|(_, names, _)| names.contains(&name));
        let Some((metric, _, is_bytes)) = metric else {
            return Err(fail(format!("there is no figure '{name}'")));
        };
        let value = if *is_bytes {
            let bytes: Bytes = value.parse().map_err(|error| fail(format!("{error}")))?;
            number(bytes.0)
        } else {
            let plain = value.trim_end_matches('%').trim();
            let value: f64 = plain.parse().map_err(|_| fail(format!("'{value}' is no number")))?;
            if !value.is_finite() {
                return Err(fail(format!("'{plain}' is no number")));
            }
            value
        };
        let test = Test::Figure(*metric, *compare, value);
        Ok(Self { text: text.trim().to_owned(), test })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Condition {
    /// Whether it holds for a row; it does not for one without a replay.
    pub fn holds(&self, row: &SweepRow) -> bool {
        match self.test {
            Test::Dies => row.survives == Some(false),
            Test::Figure(metric, compare, value) => {
                metric.of(row).is_some_and(|figure| match compare {
                    Compare::More => figure > value,
                    Compare::AtLeast => figure >= value,
                    Compare::Less => figure < value,
                    Compare::AtMost => figure <= value,
                    Compare::Equal => figure.total_cmp(&value).is_eq(),
                    Compare::Unequal => figure.total_cmp(&value).is_ne(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(condition: &str) -> bool {
        let row = SweepRow {
            reserved_bytes_peak: Some(3 << 30),
            waste_percent: Some(12.5),
            retries: Some(2),
            survives: Some(false),
            ..SweepRow::default()
        };
        condition.parse::<Condition>().unwrap().holds(&row)
    }

    #[test]
    fn figures_are_compared_with_sizes_and_numbers() {
        assert!(holds("peak_reserved > 2.9GiB") && !holds("peak_reserved>3GiB"));
        assert!(holds("reserved_bytes_peak >= 3221225472") && holds("retries == 2"));
        assert!(holds("waste_percent<=12.5%") && !holds("retries != 2") && holds("retries < 3"));
        assert!(
            holds("dies") && !holds("price_us > 0"),
            "a figure that is not there holds for nothing"
        );
    }

    #[test]
    fn what_is_no_condition_says_why() {
        let why = |text: &str| text.parse::<Condition>().unwrap_err().to_string();
        assert!(why("peak_reserved").contains("it compares nothing"));
        assert!(why("reserved > 3").contains("there is no figure 'reserved'"));
        assert!(why("retries > many").contains("'many' is no number"));
        assert!(why("peak_reserved > 3 parsecs").contains("unknown unit"));
        assert!(why("retries > nan").contains("no number"));
    }
}
