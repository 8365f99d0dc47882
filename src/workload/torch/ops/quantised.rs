//! Weights of four bits, as bitsandbytes keeps them: unpacked for each product, forward and backward.

use std::rc::Rc;

use crate::workload::{
    Label,
    torch::{DType, Tensor, Torch},
};

/// Values that share a scale.
const BLOCK: u64 = 64;
/// Scales that share a scale of their own.
const BLOCK_OF_SCALES: u64 = 256;

/// A weight of four bits a value, with scales of eight bits that have scales themselves.
#[derive(Clone, Debug)]
pub struct Int4Weight {
    shape: [u64; 2],
    dtype: DType,
    packed: Tensor,
    /// Scales, the table of values, scales of the scales, their offset and their table.
    scales: [Tensor; 5],
}

impl Torch {
    /// A weight `[outputs, inputs]` that arrives in `dtype` and is quantised on the device.
    ///
    /// # Source
    /// bitsandbytes 0.49, `functional.py`: `quantize_4bit` with `compress_statistics`.
    pub fn int4_weight(&self, outputs: u64, inputs: u64, dtype: DType) -> Int4Weight {
        self.labelled(Label::Parameter, || {
            let whole = self.empty(&[outputs, inputs], dtype);
            let values = whole.numel();
            let blocks = values.div_ceil(BLOCK);
            let packed = self.empty(&[values.div_ceil(2)], DType::U8);
            let largest = self.empty(&[blocks], DType::F32);
            let table = self.empty(&[16], DType::F32);
            let offset = self.empty(&[], DType::F32);
            let centred = self.empty(&[blocks], DType::F32);
            drop(largest);
            let scales = self.empty(&[blocks], DType::U8);
            let of_scales = self.empty(&[blocks.div_ceil(BLOCK_OF_SCALES)], DType::F32);
            let second_table = self.empty(&[256], DType::F32);
            drop(centred);
            drop(whole);
            let scales = [scales, table, of_scales, offset, second_table];
            Int4Weight { shape: [outputs, inputs], dtype, packed, scales }
        })
    }

    fn unpacked(&self, weight: &Int4Weight) -> Tensor {
        let scales = self.empty(weight.scales[0].shape(), DType::F32);
        let whole = self.empty(&weight.shape, weight.dtype);
        drop(scales);
        whole
    }

    /// `F.linear(x, unpacked(weight))`: keeps nothing but the packed weight, which is unpacked again
    /// for the gradient of `x`.
    ///
    /// # Source
    /// bitsandbytes 0.49, `autograd/_functions.py`: `MatMul4Bit`.
    pub fn linear_int4(&self, x: &Tensor, weight: &Int4Weight) -> Tensor {
        let tape = self.tape(&[x]);
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = weight.shape[0];
        }
        let whole = self.unpacked(weight);
        let out = self.empty(&shape, x.dtype());
        self.cublas_workspace();
        drop(whole);
        let (weight, of_x) = (weight.clone(), Rc::clone(&x.shape));
        tape.finish(out, move |t, grad, _| {
            let whole = t.unpacked(&weight);
            let dx = t.empty(&of_x, grad.dtype());
            drop(whole);
            vec![Some(dx)]
        })
    }
}

impl Int4Weight {
    /// Its tensors.
    pub fn tensors(&self) -> Vec<Tensor> {
        std::iter::once(&self.packed).chain(&self.scales).cloned().collect()
    }
}
