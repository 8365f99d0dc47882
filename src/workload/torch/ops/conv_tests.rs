//! What convolutions ask for.

use crate::{
    trace::Op,
    workload::torch::{Cudnn, DType, Tensor, Torch, Window},
};

/// The sizes that are asked, in bytes.
fn asked(f: impl FnOnce(&Torch)) -> Vec<u64> {
    let t = Torch::new(1);
    f(&t);
    let traces = t.finish().unwrap();
    let ops = traces[0].ops().iter();
    ops.filter_map(|op| if let Op::Alloc(alloc) = op { Some(alloc.size.0) } else { None }).collect()
}

fn convolve(t: &Torch, dtype: DType, bfloat16: bool) -> Tensor {
    let x = t.empty(&[2, 3, 8, 8], dtype);
    let weight = t.parameter(&[5, 3, 3, 3], dtype);
    let window = Window { stride: 2, ..Window::same(3) };
    t.conv2d(&x, &weight, None, window, Cudnn { workspace: 1000, bfloat16 })
}

#[test]
fn cudnn_takes_scratch_memory_forward_and_for_each_gradient() {
    let sizes = asked(|t| {
        let y = convolve(t, DType::F32, true);
        assert_eq!(y.shape(), [2, 5, 4, 4]);
        t.backward_with(&y, &y.detach());
    });
    // Input, weight, result with scratch, gradient of the weight with scratch: the input wants none.
    assert_eq!(sizes, [1536, 540, 640, 1000, 540, 1000]);
}

#[test]
fn bfloat16_that_cudnn_does_not_convolve_is_unfolded_image_by_image() {
    let sizes = asked(|t| drop(convolve(t, DType::BF16, false)));
    // One image unfolded: 3 * 3 * 3 numbers for each of 4 * 4 places; then cuBLAS's workspace.
    assert_eq!(sizes, [768, 270, 320, 864, 32 << 20]);
}
