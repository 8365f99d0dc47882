//! `fragsim synth` and `fragsim estimate`.

use std::fs;

use crate::support::{Files, run, run_with};

const SMALL: [&str; 8] = ["--layers", "1", "--width", "64", "--heads", "2", "--vocab", "500"];

fn synth(more: &[&str]) -> Vec<&'static str> {
    let args: Vec<String> =
        ["synth", "train"].iter().chain(&SMALL).chain(more).map(|arg| (*arg).to_owned()).collect();
    args.into_iter().map(|arg| &*arg.leak()).collect()
}

#[test]
fn every_form_is_the_same_trace() {
    let files = Files::new();
    let plain = files.at("a.fragsim");
    let ran = run(&synth(&["-o", &plain]));
    assert_eq!((ran.status, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert!(ran.err.contains("peak reserved"), "{}", ran.err);
    let replay = |file: &str| {
        let ran = run(&["replay", file, "--format", "json"]);
        assert_eq!(ran.status, 0, "{}", ran.err);
        ran.out.replace(file, "FILE")
    };
    let expected = replay(&plain);
    assert!(expected.contains("\"label\":\"parameter\""));
    for form in ["fragsim.gz", "fragsim.zst", "jsonl", "jsonl.gz", "packed", "packed.zst"] {
        let file = files.at(&format!("b.{form}"));
        let ran = run(&synth(&["-o", &file, "--quiet"]));
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{form}");
        assert_eq!(replay(&file), expected, "{form}");
        let again = files.at(&format!("c.{form}"));
        run(&synth(&["-o", &again, "-q"]));
        assert!(fs::read(&file).unwrap() == fs::read(&again).unwrap(), "{form}");
    }
    let piped = run(&synth(&["-o", "-", "-q"]));
    assert_eq!(piped.out, fs::read_to_string(&plain).unwrap());
    let verdict = run_with(&["replay", "-"], piped.out.as_bytes());
    assert!(verdict.out.contains("of the peak allocated"), "{}", verdict.out);
}

#[test]
fn labels_reach_series_and_pictures() {
    let files = Files::new();
    let (trace, svg) = (files.at("a.fragsim"), files.at("a.svg"));
    run(&synth(&["-o", &trace, "-q"]));
    let series = run(&["series", &trace, "--rows", "4"]);
    let head = series.out.lines().next().unwrap();
    assert!(head.contains(",num_ooms,label.parameter,label.gradient,"), "{head}");
    for kind in ["memory", "segments"] {
        run(&["plot", &trace, "--kind", kind, "-o", &svg]);
        assert!(fs::read_to_string(&svg).unwrap().contains("optimizer_state"), "{kind}");
    }
    let explained = run(&["explain", &trace, "--capacity", "40MiB"]);
    assert!(explained.out.contains("label "), "{}", explained.out);
    let unlabelled = run(&["series", "traces/stranded.fragsim", "--rows", "4"]);
    assert!(!unlabelled.out.contains("label"), "{}", unlabelled.out);
}

#[test]
fn what_cannot_be_names_the_parameter() {
    for (args, message) in [
        (
            vec!["synth", "trian", "--layers", "2"],
            "workload: there is no 'trian'; did you mean 'train'?",
        ),
        (
            vec!["synth", "train", "-p", "layer=2", "-o", "-"],
            "layer: there is no such parameter; did you mean 'layers'?",
        ),
        (
            vec!["synth", "train", "--layer", "2", "-o", "-"],
            "a similar argument exists: '--layers'",
        ),
        (
            vec!["synth", "train", "--layers", "many", "-o", "-"],
            "layers: 'many' is not a whole number",
        ),
        (vec!["synth", "train", "--layers", "-3", "-o", "-"], "layers: '-3' is not a whole number"),
        (vec!["synth", "train", "--heads", "7", "-o", "-"], "train: heads: 7 heads do not divide"),
        (vec!["synth", "train", "--preset", "gpt9", "-o", "-"], "preset: there is no 'gpt9'"),
        (vec!["synth", "train", "-o", "trace.pickle"], "the name says no form"),
        (vec!["synth", "train", "-o", "-", "--to", "packed"], "name a file"),
        (
            vec!["synth", "train", "-o", "-", "--device", "4"],
            "--device 4: the program uses 1 devices",
        ),
        (vec!["synth", "-o", "-"], "name a workload"),
        (vec!["synth", "train"], "--output"),
        (vec!["estimate"], "name a workload"),
        (vec!["estimate", "train", "--config", "/nowhere/x.toml"], "/nowhere/x.toml"),
    ] {
        let ran = run(&args);
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(ran.err.contains(message), "{args:?}: {}", ran.err);
    }
}

#[test]
fn a_file_gives_values_and_the_command_line_wins() {
    let files = Files::new();
    let text = "workload = 'train'\nlayers = 1\nwidth = 64\nheads = 2\nvocab = 500\n";
    let file = files.file("t.toml", text.as_bytes());
    let of = |args: &[&str]| {
        let ran = run(args);
        assert_eq!(ran.status, 0, "{}", ran.err);
        ran.out
    };
    let plain = of(&synth(&["-o", "-", "-q"]));
    assert_eq!(of(&["synth", "--config", &file, "-o", "-", "-q"]), plain);
    let other = of(&["synth", "train", "--config", &file, "--layers", "2", "-o", "-", "-q"]);
    assert_eq!(other, of(&synth(&["-p", "layers=2", "-o", "-", "-q"])));
    assert_ne!(other, plain);
}

#[test]
fn a_program_of_two_devices_has_two_files() {
    let files = Files::new();
    let text = "[tensor]\na = { bytes = 100 }\nb = { bytes = '2*MiB', device = 1, stream = 1 }\n
        [[phase]]\nname = 'p'\nrun = ['make a', 'make b', 'free b']\n";
    let file = files.file("two.toml", text.as_bytes());
    let out = files.at("two.fragsim");
    let ran = run(&["synth", "--config", &file, "-o", &out]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let second = fs::read_to_string(files.at("two.1.fragsim")).unwrap();
    assert_eq!(second, "device 1\na = alloc 2MiB stream 1 label temporary\nfree a\n");
    let packed = files.at("two.packed");
    run(&["synth", "--config", &file, "-o", &packed]);
    let ran = run(&["replay", &packed, "--device", "1"]);
    assert!(ran.out.contains("on cuda:1"), "{}{}", ran.out, ran.err);
    let ran = run(&["synth", "--config", &file, "-o", "-"]);
    assert!(ran.err.contains("choose it with --device"), "{}", ran.err);
    let inspected = run(&["inspect", &packed, "--format", "json"]).json();
    assert_eq!(inspected["devices"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_budget_adds_up() {
    let mut args = synth(&["--format", "json"]);
    args[0] = "estimate";
    let document = run(&args).json();
    let device = &document["devices"][0];
    let number = |key: &str| device[key].as_u64().unwrap();
    let labels = device["labels"].as_array().unwrap();
    let live: u64 = labels.iter().map(|label| label["requested_bytes"].as_u64().unwrap()).sum();
    assert_eq!(live + number("rounding_bytes"), number("allocated_bytes_peak"));
    assert_eq!(
        number("allocated_bytes_peak") + number("cached_bytes"),
        number("reserved_bytes_peak")
    );
    assert_eq!(number("reserved_bytes_peak") + number("context_bytes"), number("total_bytes"));
    assert_eq!(document["parameters"]["layers"], "1");
    args.extend(["--cuda-context", "100TiB"]);
    assert_eq!(run(&args).status, 1);
}

#[test]
fn the_list_and_the_help_show_every_parameter() {
    let list = run(&["synth", "--list", "--format", "json"]).json();
    for workload in list["workloads"].as_array().unwrap() {
        let name = workload["workload"].as_str().unwrap();
        let help = run(&["synth", name, "--help"]);
        assert_eq!(help.status, 0);
        for parameter in workload["parameters"].as_array().unwrap() {
            let long = parameter["name"].as_str().unwrap().replace('_', "-");
            let flag = format!("--{long} <");
            let by_name = format!("-p {}=", parameter["name"].as_str().unwrap());
            assert!(help.out.contains(&flag) || help.out.contains(&by_name), "{name} {long}");
        }
        assert!(run(&["synth", "--list"]).out.contains(name));
    }
    assert!(run(&["synth", "--list", "--format", "csv"]).out.starts_with("workload,parameter,"));
}
