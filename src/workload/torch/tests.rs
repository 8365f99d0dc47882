//! What tensors ask of the allocator, in small.

use super::{DType, Torch, nn::Linear};
use crate::{
    trace::Op,
    workload::{Label, WorkloadError},
};

fn sizes(t: &Torch) -> Vec<i64> {
    let traces = t.finish().unwrap();
    let mut sizes = Vec::new();
    let op = |op: &Op| match op {
        Op::Alloc(alloc) => {
            let size = i64::try_from(alloc.size.0).unwrap();
            sizes.push(size);
            Some(size)
        }
        Op::Free(free) => Some(-sizes[free.id.0 as usize]),
        _ => None,
    };
    traces[0].ops().iter().filter_map(op).collect()
}

#[test]
fn a_tensor_is_freed_with_its_last_reference() {
    let t = Torch::new(1);
    let a = t.empty(&[4], DType::F32);
    let view = t.view(&a, &[2, 2]);
    drop(a);
    let b = t.empty(&[8], DType::BF16);
    drop((view, b));
    assert_eq!(sizes(&t), [16, 16, -16, -16]);
}

#[test]
fn without_a_graph_nothing_is_kept() {
    let run = |grad: bool| {
        let t = Torch::new(1);
        let layer = Linear::new(&t, 2, 3, false, DType::F32);
        let forward = || {
            let h = layer.forward(&t, &t.empty(&[5, 2], DType::F32));
            t.activation(&h)
        };
        let out = if grad { forward() } else { t.no_grad(forward) };
        t.mark("forward");
        let at = t.marks()[0].ops[0];
        drop(out);
        sizes(&t)[..at].iter().filter(|size| size.abs() == 60).map(|s| s.signum()).sum::<i64>()
    };
    assert_eq!((run(true), run(false)), (2, 1));
}

#[test]
fn backward_leaves_gradients_and_adds_in_place() {
    let t = Torch::new(1);
    let layer = Linear::new(&t, 2, 3, true, DType::F32);
    for _ in 0..2 {
        let x = t.empty(&[5, 2], DType::F32);
        let loss = t.sum(&layer.forward(&t, &x));
        t.backward(&loss);
    }
    let grad = layer.weight.grad().unwrap();
    assert_eq!(grad.nbytes(), 24);
    let place = grad.storage.place.unwrap();
    assert_eq!(t.label_of(place), Label::Gradient);
}

#[test]
fn a_checkpoint_keeps_its_input_alone_and_gives_the_same_gradients() {
    let live_after_forward = |checkpointed: bool| {
        let t = Torch::new(1);
        let layers: Vec<_> = (0..4).map(|_| Linear::new(&t, 64, 64, false, DType::F32)).collect();
        let weights = layers.clone();
        let forward = move |t: &Torch, inputs: &[super::Tensor]| {
            let mut x = inputs[0].clone();
            for layer in &layers {
                x = t.activation(&layer.forward(t, &x));
            }
            x
        };
        let x = t.empty(&[512, 64], DType::F32);
        let out = if checkpointed { t.checkpoint(&[x], forward) } else { forward(&t, &[x]) };
        t.mark("forward");
        t.backward(&t.sum(&out));
        assert!(weights.iter().all(|w| w.weight.grad().is_some()));
        let at = t.marks()[0].ops[0];
        drop((out, weights));
        sizes(&t)[..at]
            .iter()
            .filter(|size| size.abs() == 512 * 64 * 4)
            .map(|s| s.signum())
            .sum::<i64>()
    };
    assert_eq!(live_after_forward(true), 2);
    assert_eq!(live_after_forward(false), 9);
}

#[test]
fn a_long_graph_is_dropped_without_recursion() {
    let t = Torch::new(1);
    let mut x = t.parameter(&[1], DType::F32);
    for _ in 0..200_000 {
        x = t.scale(&x);
    }
    drop(x);
    assert!(t.finish().is_ok());
}

#[test]
fn a_tensor_beyond_all_devices_is_an_error_that_names_it() {
    let t = Torch::new(1);
    drop(t.parameter(&[1 << 40, 1 << 40], DType::F32));
    let error = t.check().unwrap_err();
    assert!(matches!(&error, WorkloadError::TooLarge { label: "parameter", .. }), "{error}");
    assert!(t.finish().is_err());
}
