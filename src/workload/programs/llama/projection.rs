//! [`Projection`]: a linear layer without bias, perhaps of four bits, perhaps with an adapter.

use crate::workload::{
    Label,
    torch::{DType, Int4Weight, Tensor, Torch},
};

/// A linear layer without bias.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    weight: Weight,
    inputs: u64,
    outputs: u64,
    adapter: Option<Adapter>,
}

/// How the weight is kept.
#[derive(Clone, Debug)]
enum Weight {
    Dense(Tensor),
    Int4(Box<Int4Weight>),
}

/// LoRA: two narrow matrices beside a weight.
#[derive(Clone, Debug)]
struct Adapter {
    down: Tensor,
    up: Tensor,
}

/// How weights are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They are trained.
    Trained,
    /// They stay as they are.
    Frozen,
    /// They stay as they are, and take four bits each.
    FrozenInt4,
    /// They are on the host, and come to the device each time that they are used.
    Host,
}

impl Kind {
    /// A tensor of weights that is no matrix of a product.
    pub(super) fn tensor(self, t: &Torch, shape: &[u64], dtype: DType) -> Tensor {
        match self {
            Self::Trained => t.parameter(shape, dtype),
            Self::Host => t.host(shape, dtype),
            Self::Frozen | Self::FrozenInt4 => t.empty_as(shape, dtype, Label::Parameter),
        }
    }
}

/// A weight where it is used. One from the host is given back after its use; accelerate empties the
/// cache each time that it brings one.
///
/// # Source
/// accelerate 1.15, `hooks.py`: `AlignDevicesHook.pre_forward`, and `utils/modeling.py`:
/// `set_module_tensor_to_device`; `scenarios/accelerate__cpu_offload`, entries 119 to 149.
pub(super) fn brought(t: &Torch, weight: &Tensor) -> Tensor {
    if weight.device().is_some() {
        return weight.clone();
    }
    let here = t.empty_as(weight.shape(), weight.dtype(), Label::Parameter);
    t.empty_cache();
    here
}

impl Projection {
    pub(super) fn new(t: &Torch, inputs: u64, outputs: u64, dtype: DType, kind: Kind) -> Self {
        let weight = match kind {
            Kind::FrozenInt4 => Weight::Int4(Box::new(t.int4_weight(outputs, inputs, dtype))),
            _ => Weight::Dense(kind.tensor(t, &[outputs, inputs], dtype)),
        };
        Self { weight, inputs, outputs, adapter: None }
    }

    /// `projection(x)`.
    pub(super) fn forward(&self, t: &Torch, x: &Tensor) -> Tensor {
        let Some(adapter) = &self.adapter else { return self.base(t, x) };
        let mut result = self.base(t, x);
        let dtype = result.dtype();
        // peft copies the result of a weight of four bits, and casts before it adds.
        let is_int4 = matches!(self.weight, Weight::Int4(_));
        if is_int4 {
            result = t.copy(&result);
        }
        let x = t.to(x, adapter.down.dtype());
        let mut delta = {
            let high = {
                let low = t.linear(&x, &adapter.down, None);
                t.linear(&low, &adapter.up, None)
            };
            t.scale(&high)
        };
        if is_int4 {
            delta = t.to(&delta, dtype);
        }
        let sum = t.add(&result, &delta);
        drop(delta);
        drop(result);
        let out = t.to(&sum, dtype);
        drop(sum);
        out
    }

    fn base(&self, t: &Torch, x: &Tensor) -> Tensor {
        match &self.weight {
            Weight::Dense(weight) => t.linear(x, &brought(t, weight), None),
            Weight::Int4(weight) => t.linear_int4(x, weight),
        }
    }

    /// Adds an adapter of this rank, in the type of the weight; that of a weight of four bits is in
    /// float32.
    pub(super) fn adapt(&mut self, t: &Torch, rank: u64) {
        let dtype = match &self.weight {
            Weight::Dense(weight) => weight.dtype(),
            Weight::Int4(_) => DType::F32,
        };
        let down = t.parameter(&[rank, self.inputs], dtype);
        self.adapter = Some(Adapter { down, up: t.parameter(&[self.outputs, rank], dtype) });
    }

    /// Makes the adapter float32, as peft does before training.
    pub(super) fn widen_adapter(&mut self, t: &Torch) {
        if let Some(adapter) = &mut self.adapter {
            for side in [&mut adapter.down, &mut adapter.up] {
                if side.dtype() != DType::F32 {
                    *side = t.parameter(side.shape(), DType::F32);
                }
            }
        }
    }

    /// What is trained of it.
    pub(super) fn trained(&self) -> Vec<Tensor> {
        let weight = match &self.weight {
            Weight::Dense(weight) if weight.requires_grad() => Some(weight),
            _ => None,
        };
        let adapter = self.adapter.iter().flat_map(|a| [&a.down, &a.up]);
        weight.into_iter().chain(adapter).cloned().collect()
    }
}
