//! [`Prices`]: about how long the driver's calls take, to compare settings by more than memory.
//!
//! A caching allocator exists to call the driver seldom. What a call takes differs by a factor of ten
//! between cards, drivers and sizes, so a price is an order of magnitude that ranks settings, not a
//! forecast; whoever has measured better figures gives them. Not in it: that `cudaFree` and unmapping
//! make the host wait for kernels under way, which costs whatever is under way.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::Figures;

/// Microseconds a call.
///
/// # Source
/// One profile of a PyTorch program on an NVIDIA card, `pytorch/torchdynamo#107` (nvprof): `cudaMalloc`
/// 315 µs on average over 20 calls, `cudaDeviceSynchronize` 33 µs over 400. No such figures were found
/// for the others: `cudaFree` is taken as dear as `cudaMalloc`, since it waits for the device too; a
/// range that is mapped (create, map, set access, for each of its chunks) or unmapped likewise. An
/// address reservation is taken as free: there is one a stream and pool.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Prices {
    /// `cudaMalloc`, refused ones included.
    #[serde(rename = "cudaMalloc")]
    pub cuda_malloc: f64,
    /// `cudaFree`.
    #[serde(rename = "cudaFree")]
    pub cuda_free: f64,
    /// A range mapped into an expandable segment, refused ones included.
    pub map: f64,
    /// A range unmapped.
    pub unmap: f64,
    /// All pending events waited for.
    pub synchronize: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self { cuda_malloc: 315.0, cuda_free: 315.0, map: 315.0, unmap: 315.0, synchronize: 33.0 }
    }
}

/// Why prices cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// Not a name and a number.
    #[error("'{0}' is not a price: write CALL=MICROSECONDS, such as cudaMalloc=120")]
    Form(String),
    /// A call that has no price.
    #[error("no call '{name}' has a price; there are {}", Prices::NAMES.join(", "))]
    Name {
        /// What was written.
        name: String,
    },
    /// A number that is no time.
    #[error("the price of {name} is {value}: give microseconds, 0 or more")]
    Value {
        /// The call.
        name: &'static str,
        /// What was written.
        value: String,
    },
    /// A document that holds no prices.
    #[error("no prices: {0}; write for example {{\"cudaMalloc\": 120, \"map\": 40}}")]
    Document(String),
}

impl Prices {
    /// The calls that have a price.
    pub const NAMES: [&'static str; 5] = ["cudaMalloc", "cudaFree", "map", "unmap", "synchronize"];

    fn fields(&mut self) -> [(&'static str, &mut f64); 5] {
        let [malloc, free, map, unmap, synchronize] = Self::NAMES;
        [
            (malloc, &mut self.cuda_malloc),
            (free, &mut self.cuda_free),
            (map, &mut self.map),
            (unmap, &mut self.unmap),
            (synchronize, &mut self.synchronize),
        ]
    }

    /// Prices from a JSON object; what it does not name keeps its default.
    ///
    /// # Errors
    /// When it is no such object, or a price is no time.
    pub fn from_json(text: &str) -> Result<Self, PriceError> {
        let no_prices = |error: serde_json::Error| PriceError::Document(error.to_string());
        // A map first: a list would do for the fields of a struct, too.
        let pairs: BTreeMap<String, f64> = serde_json::from_str(text).map_err(no_prices)?;
        let mut prices = Self::default();
        for (name, value) in pairs {
            prices.put(&name, value)?;
        }
        Ok(prices)
    }

    /// Sets one price, written `cudaMalloc=120`.
    ///
    /// # Errors
    /// When it is not written so, or names no call.
    pub fn set(&mut self, text: &str) -> Result<(), PriceError> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| PriceError::Form(text.to_owned()))?;
        let value: f64 = value.trim().parse().map_err(|_| PriceError::Form(text.to_owned()))?;
        self.put(name.trim(), value)
    }

    fn put(&mut self, name: &str, value: f64) -> Result<(), PriceError> {
        let field = self.fields().into_iter().find(|(known, _)| *known == name);
        let Some((name, field)) = field else {
            return Err(PriceError::Name { name: name.to_owned() });
        };
        if !(value.is_finite() && value >= 0.0) {
            return Err(PriceError::Value { name, value: value.to_string() });
        }
        *field = value;
        Ok(())
    }

    /// Microseconds that the driver's calls of a replay take.
    pub fn of(&self, figures: &Figures) -> f64 {
        let calls = figures.calls;
        [
            (calls.malloc, self.cuda_malloc),
            (calls.free, self.cuda_free),
            (calls.map, self.map),
            (calls.unmap, self.unmap),
            (figures.synchronizations, self.synchronize),
        ]
        .into_iter()
        .map(|(count, price)| number(count) * price)
        .sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a price for people; 53 bits are plenty")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_read_from_json_and_from_the_command_line() {
        let mut prices = Prices::from_json(r#"{"cudaMalloc": 100, "unmap": 7.5}"#).unwrap();
        assert_eq!((prices.cuda_malloc, prices.unmap), (100.0, 7.5));
        assert_eq!(prices.map, Prices::default().map);
        prices.set("synchronize=0").unwrap();
        assert_eq!(prices.synchronize, 0.0);
    }

    #[test]
    fn what_is_no_price_is_refused() {
        let mut prices = Prices::default();
        let said = |result: Result<(), PriceError>| result.unwrap_err().to_string();
        assert!(said(prices.set("cudamalloc=3")).contains("there are cudaMalloc, cudaFree"));
        assert!(said(prices.set("map=-1")).contains("the price of map is -1"));
        assert!(said(prices.set("map=NaN")).contains("the price of map is NaN"));
        assert!(said(prices.set("map")).contains("CALL=MICROSECONDS"));
        assert!(Prices::from_json(r#"{"cudaMallok": 1}"#).is_err());
        assert!(Prices::from_json("[]").is_err());
    }
}
