//! Programs of a GPT, in small.

use super::{Infer, PRESETS, Train};
use crate::{
    trace::{Op, Trace},
    workload::{Workload, WorkloadError, torch::Torch},
};

fn with<W: Workload + Default>(values: &[(&str, &str)]) -> W {
    let mut program = W::default();
    for (name, value) in values {
        program.set(name, value).unwrap();
    }
    program
}

fn small(values: &[(&str, &str)]) -> Train {
    let sizes = [("layers", "4"), ("width", "64"), ("heads", "4"), ("vocab", "99"), ("seq", "64")];
    with(&[&sizes[..], values].concat())
}

fn traces(program: &dyn Workload) -> Vec<Trace> {
    program.check().unwrap();
    let t = Torch::new(program.devices());
    program.run(&t).unwrap();
    t.finish().unwrap()
}

/// The most bytes that are live at a time, of tensors with this label or of all.
fn peak(trace: &Trace, label: Option<&str>) -> u64 {
    let (mut live, mut most) = (0, 0);
    let mut sizes = Vec::new();
    for op in trace.ops() {
        match op {
            Op::Alloc(alloc) => {
                let counts = label.is_none_or(|label| trace.labels().get(alloc.id) == Some(label));
                sizes.push(if counts { alloc.size.0 } else { 0 });
                live += sizes.last().unwrap();
            }
            Op::Free(free) => live -= sizes[free.id.0 as usize],
            _ => {}
        }
        most = most.max(live);
    }
    most
}

fn refusal(program: &dyn Workload) -> String {
    match program.check() {
        Err(WorkloadError::Parameter { parameter, .. }) => parameter,
        other => panic!("{other:?}"),
    }
}

#[test]
fn presets_run() {
    for preset in PRESETS {
        let train: Train = with(preset.values);
        let infer: Infer = with(preset.values);
        for program in [&train as &dyn Workload, &infer] {
            assert!(traces(program)[0].ops().len() > 1000, "{}", preset.name);
        }
    }
}

#[test]
fn what_cannot_be_is_refused_by_its_name() {
    let train = |name: &str, value: &str| refusal(&small(&[(name, value)]));
    for (name, value) in [
        ("heads", "7"),
        ("layers", "0"),
        ("seq", "1"),
        ("dropout", "1.5"),
        ("fraction", "-1"),
        ("segments", "5"),
        ("warm_up", "0"),
        ("batch", "4611686018427387904"),
    ] {
        assert_eq!(train(name, value), name);
    }
    assert_eq!(train("weights", "bf16"), "autocast");
    assert_eq!(train("lengths", "list"), "length_list");
    assert_eq!(train("devices", "2"), "tied");
    assert_eq!(refusal(&small(&[("devices", "9"), ("tied", "false")])), "devices");
    assert_eq!(refusal(&small(&[("attention", "sliced"), ("batch", "1000000")])), "slice");
    assert_eq!(
        refusal(&with::<Infer>(&[("weights", "fp32"), ("attention", "flash")])),
        "attention"
    );
}

#[test]
fn states_are_twice_the_weights_and_a_byte_where_they_are_quantised() {
    let of = |kind| {
        let values = [("optimizer", kind), ("width", "512"), ("vocab", "4096")];
        let trace = &traces(&small(&values))[0];
        let parameters = peak(trace, Some("parameter")) - 4096 * 512 * 4; // less the spare head
        (peak(trace, Some("optimizer_state")), parameters)
    };
    let (adam, weights) = of("adam");
    assert_eq!(adam, 2 * weights);
    assert_eq!(of("sgd").0, 0);
    assert_eq!(of("momentum").0, weights);
    let (adam8, _) = of("adam8");
    assert!((weights / 2..weights * 52 / 100).contains(&adam8), "{adam8} of {weights}");
}

#[test]
fn checkpointing_keeps_less_and_offloading_keeps_no_gradients() {
    let most = |values: &[(&str, &str)], label| peak(&traces(&small(values))[0], label);
    let activations = |kind| most(&[("checkpoint", kind)], Some("activation"));
    assert!(activations("block") < activations("none"));
    let gradients = |kind| most(&[("offload", kind)], Some("gradient"));
    assert_eq!(gradients("optimizer"), gradients("none"));
    assert_eq!(gradients("gradients"), 0);
    assert_eq!(most(&[("offload", "gradients")], Some("optimizer_state")), 0);
}

#[test]
fn every_device_of_a_split_model_has_its_part() {
    let traces = traces(&small(&[("devices", "3"), ("tied", "false"), ("layers", "7")]));
    let blocks = |trace: &Trace| {
        let qkv = |op: &&Op| matches!(op, Op::Alloc(a) if a.size.0 == 3 * 64 * 64 * 4);
        let parameter =
            |op: &&Op| matches!(op, Op::Alloc(a) if trace.labels().get(a.id) == Some("parameter"));
        trace.ops().iter().filter(qkv).filter(parameter).count()
    };
    assert_eq!(traces.iter().map(blocks).collect::<Vec<_>>(), [2, 2, 3]);
}

#[test]
fn lengths_follow_from_the_seed() {
    let tokens = |values: &[(&str, &str)]| {
        with::<Train>(&[&[("steps", "40"), ("seed", "7")], values].concat()).tokens()
    };
    let random = tokens(&[("lengths", "random")]);
    assert_eq!(random, tokens(&[("lengths", "random")]));
    assert_ne!(random, tokens(&[("lengths", "random"), ("seed", "8")]));
    assert!(random.iter().all(|n| (32..=512).contains(n)));
    let mut sorted = random.clone();
    sorted.sort_unstable();
    assert_eq!(tokens(&[("lengths", "ascending")]), sorted);
    assert!(tokens(&[("lengths", "padded")]).iter().all(|n| n.is_multiple_of(128)));
    let bucketed = tokens(&[("lengths", "bucketed"), ("bucket", "10")]);
    assert!(bucketed.chunks(10).all(|b| b.is_sorted_by(|a, b| a >= b)));
    assert_eq!(tokens(&[("lengths", "list"), ("length_list", "5,6,7")])[..4], [5, 6, 7, 5]);
}

#[test]
fn a_program_is_the_same_every_time() {
    let program = small(&[("lengths", "random"), ("seq", "300"), ("evaluate_every", "2")]);
    let once = || traces(&program)[0].ops().to_vec();
    assert_eq!(once(), once());
}

#[test]
fn a_checkpoint_on_the_device_lies_beside_the_model() {
    let most = |resume| {
        let values = [("resume", resume), ("spare_head", "false")];
        peak(&traces(&small(&values))[0], Some("parameter"))
    };
    assert_eq!(most("host"), most("no"));
    assert_eq!(most("device"), 2 * most("no"));
}
