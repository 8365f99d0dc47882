//! [`Packed`]: a weight of few bits with a scale for every few values, unpacked by plain operators for
//! each product.

use super::{DType, Tensor, Torch};
use crate::workload::Label;

/// Values that share a scale.
pub const BLOCK: u64 = 64;

/// A weight of 8 or 4 bits a value, and float16 scales.
#[derive(Clone, Debug)]
pub struct Packed {
    shape: [u64; 2],
    bits: u64,
    values: Tensor,
    scales: Tensor,
}

impl Packed {
    /// Memory for the values and scales of a weight `[outputs, inputs]`.
    pub fn empty(t: &Torch, shape: [u64; 2], bits: u64) -> Self {
        let numbers = shape[0].saturating_mul(shape[1]);
        let bytes = numbers / 8 * bits;
        let values = t.empty_as(&[bytes], DType::U8, Label::Parameter);
        let scales = t.empty_as(&[numbers / BLOCK], DType::F16, Label::Parameter);
        Self { shape, bits, values, scales }
    }

    /// Packs a weight on its device: the largest of every few values is the scale, the others are
    /// divided by it, rounded, and put together.
    ///
    /// # Source
    /// `scenarios/quantised__int8`, entries 380 to 402; `scenarios/quantised__int4`, 380 to 408.
    pub fn of(t: &Torch, weight: &Tensor, bits: u64) -> Self {
        let packed = Self::empty(t, [weight.dim(0), weight.dim(1)], bits);
        let scales = {
            let sizes = t.empty_like(weight);
            let scales = t.empty(packed.scales.shape(), weight.dtype());
            drop(sizes);
            scales
        };
        let step = |x: Tensor| {
            let next = t.empty_like(&x);
            drop(x);
            next
        };
        let bytes = {
            let divided = t.empty_like(weight);
            let shifted = step(step(divided)); // to its range, and above zero
            let bytes = t.empty_of(weight, DType::U8);
            drop(shifted);
            bytes
        };
        if bits == 4 {
            let half = || t.empty(packed.values.shape(), DType::U8);
            let high = half();
            let both = half();
            drop(high);
            drop(both);
        }
        drop(scales);
        drop(bytes);
        packed
    }

    /// The weight in `dtype`, and what of the packed one was taken apart for it, which lives as long.
    ///
    /// # Source
    /// `scenarios/quantised__int4`, entries 3108 to 3131.
    fn unpack(&self, t: &Torch, dtype: DType) -> (Tensor, Tensor) {
        let values = if self.bits == 8 {
            self.values.clone()
        } else {
            let low = t.empty_like(&self.values);
            let high = t.empty_like(&self.values);
            let both = t.empty(&[self.values.numel(), 2], DType::U8);
            drop(high);
            drop(low);
            both
        };
        let centred = {
            let wide = t.empty(&self.shape, dtype);
            let centred = t.empty_like(&wide);
            drop(wide);
            centred
        };
        let scales = t.to(&self.scales, dtype);
        let weight = t.empty_like(&centred);
        drop(centred);
        drop(scales);
        (weight, values)
    }

    /// `F.linear(x, unpacked, bias)`.
    pub fn forward(&self, t: &Torch, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let (weight, values) = self.unpack(t, x.dtype());
        let out = t.linear(x, &weight, bias);
        drop(values);
        drop(weight);
        out
    }
}
