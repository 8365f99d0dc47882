//! Programs that a user describes in a file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use fragsim::{
    trace::{Op, script},
    workload::{
        Parameters as _, Workload as _,
        own::{Own, OwnFile},
        synthesize,
    },
};

fn own(text: &str) -> Result<Own, String> {
    let file: OwnFile = toml::from_str(text).map_err(|error| error.to_string())?;
    Own::new(file).map_err(|error| error.to_string())
}

fn trace(text: &str) -> String {
    let own = own(text).unwrap_or_else(|error| panic!("{error}"));
    own.check().unwrap();
    script::print(&synthesize(&own).unwrap().traces[0]).to_string()
}

const SMALL: &str = "
[sizes]
n = 2
side = '4*KiB'
[tensor.weight]
shape = ['side', 'n']
label = 'parameter'
[tensor.kept]
bytes = 'side'
label = 'activation'
count = 'n'
";

#[test]
fn tensors_are_made_and_freed_as_the_phases_say() {
    let phases = "[[phase]]\nname = 'load'\nrun = ['make weight']\n
        [[phase]]\nname = 'step'\nrepeat = 'n - 1'\nrun = ['make kept', 'free kept', 'make kept', 'free oldest kept']";
    let expected = "\
a = alloc 32KiB label parameter
b = alloc 4KiB label activation
c = alloc 4KiB label activation
free c
free b
d = alloc 4KiB label activation
e = alloc 4KiB label activation
free d
free e
free a
";
    assert_eq!(trace(&format!("{SMALL}{phases}")), expected);
}

#[test]
fn a_line_with_commas_goes_one_by_one() {
    let phases = "[tensor.grad]\nbytes = 100\ncount = 2\nlabel = 'gradient'\n
        [[phase]]\nname = 'step'\nrun = ['make kept', 'make grad, free kept', 'free grad', 'empty_cache']";
    let expected = "\
a = alloc 4KiB label activation
b = alloc 4KiB label activation
c = alloc 100 label gradient
free b
d = alloc 100 label gradient
free a
free d
free c
empty_cache
";
    assert_eq!(trace(&format!("{SMALL}{phases}")), expected);
}

#[test]
fn sizes_are_parameters() {
    let mut own = own(&format!("{SMALL}[[phase]]\nname = 'p'\nrun = ['make kept']")).unwrap();
    own.set("n", "3").unwrap();
    assert_eq!(synthesize(&own).unwrap().traces[0].alloc_count(), 3);
    let error = own.set("m", "3").unwrap_err().to_string();
    assert_eq!(error, "m: there is no such size in [sizes]; did you mean 'n'?");
}

#[track_caller]
fn refuses(text: &str, message: &str) {
    let error = match own(text) {
        Err(error) => error,
        Ok(own) => own.check().and_then(|()| synthesize(&own).map(drop)).unwrap_err().to_string(),
    };
    assert!(error.contains(message), "{error}");
}

#[test]
fn what_cannot_be_is_said_with_its_place() {
    let phase = |run: &str| format!("{SMALL}[[phase]]\nname = 'step'\nrun = ['{run}']");
    refuses(
        &phase("make wieght"),
        "phase 'step', run: 'make wieght': no tensor 'wieght'; did you mean 'weight'?",
    );
    refuses(
        &phase("make weight, free weight, free weight"),
        "phase 'step', run: 'free weight': none of them is live",
    );
    refuses(&phase("grow weight"), "write 'make NAME', 'free NAME'");
    refuses(&phase(""), "an empty line");
    refuses(SMALL, "phase: nothing happens");
    refuses(&SMALL.replace("'4*KiB'", "'4*m'"), "sizes.side: '4*m': 'm' is not in [sizes]");
    refuses(
        &SMALL.replace("'parameter'", "'weights'"),
        "tensor.weight.label: 'weights' is none of",
    );
    refuses(&SMALL.replace("[tensor.kept]", "[tensor.kept]\ncolour = 1"), "unknown field `colour`");
    refuses(
        &phase("make kept").replace("n = 2", "n = '1000*1000*1000'"),
        "makes more than 50000000 allocations",
    );
    refuses(&phase("make kept").replace("4*KiB", "GiB*GiB*4"), "larger than 2^62 bytes");
}

#[test]
fn the_example_runs_and_its_frozen_weights_have_no_gradients() {
    let text = include_str!("../examples/program.toml");
    let own = own(text).unwrap_or_else(|error| panic!("{error}"));
    let ran = synthesize(&own).unwrap();
    assert_eq!(ran.marks.len(), 5);
    let trace = &ran.traces[0];
    let sum = |label: &str| -> u64 {
        trace
            .ops()
            .iter()
            .map(|op| match op {
                Op::Alloc(alloc) if trace.labels().get(alloc.id) == Some(label) => alloc.size.0,
                _ => 0,
            })
            .sum()
    };
    assert_eq!(sum("parameter"), 24 * 2048 * (12 * 2048 * 2 + 64 * 4));
    assert_eq!(sum("gradient"), 4 * 24 * 64 * 2048 * 4);
}
