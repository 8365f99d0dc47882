//! Images `[batch, channels, height, width]`, and the order in which their numbers lie.

use crate::workload::torch::{Tensor, Torch};

/// The order of the numbers of an image in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `contiguous_format`.
    InOrder,
    /// `channels_last`.
    ChannelsLast,
    /// Neither. A single image that came from tokens: PyTorch does not see that its channels are last.
    Other,
}

/// An image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its numbers.
    pub data: Tensor,
    /// How they lie.
    pub layout: Layout,
}

impl Image {
    /// An image whose numbers lie in the usual order.
    pub fn in_order(data: Tensor) -> Self {
        Self { data, layout: Layout::InOrder }
    }

    /// Tokens `[batch, places, channels]` seen as an image.
    pub fn of_tokens(tokens: &Tensor, like: &Image) -> Self {
        let data = tokens.shaped(like.data.shape());
        let layout = if data.dim(0) == 1 { Layout::Other } else { Layout::ChannelsLast };
        Self { data, layout }
    }

    /// The image seen as tokens `[batch, places, channels]`, which do not lie in order.
    pub fn tokens(&self) -> Tensor {
        let data = &self.data;
        let places = data.dim(2).saturating_mul(data.dim(3));
        data.shaped(&[data.dim(0), places, data.dim(1)])
    }

    /// `x + y`: lies as `x` does.
    pub fn add(&self, t: &Torch, y: &Self) -> Self {
        Self { data: t.add(&self.data, &y.data), layout: self.layout }
    }

    /// `x / number`.
    pub fn scale(&self, t: &Torch) -> Self {
        Self { data: t.scale(&self.data), layout: self.layout }
    }

    /// `silu(x)`.
    pub fn silu(&self, t: &Torch) -> Self {
        Self { data: t.activation(&self.data), layout: self.layout }
    }

    /// `F.interpolate(x, mode="nearest")` to twice the sides, or to those that are given.
    ///
    /// # Source
    /// `aten/src/ATen/native/cuda/UpSampleNearest2d.cu`, 2.11; diffusers 0.42,
    /// `models/upsampling.py`.
    pub fn upsample(&self, t: &Torch, sides: Option<[u64; 2]>) -> Self {
        let data = &self.data;
        let sides = sides.unwrap_or([data.dim(2), data.dim(3)].map(|side| side.saturating_mul(2)));
        // The kernel for channels last does not serve large batches and results.
        let many = data.dim(0) >= 64 || data.numel() > MOST_NUMBERS / 2;
        let (input, layout) = match self.layout {
            Layout::ChannelsLast if many => (t.copy(data), Layout::InOrder),
            layout => (data.clone(), layout),
        };
        let data = t.upsample2d(&input, sides);
        if layout == Layout::Other {
            drop(t.copy(&input));
            return Self::in_order(data);
        }
        Self { data, layout }
    }
}

/// Numbers that 32 bits count.
const MOST_NUMBERS: u64 = 1 << 31;
