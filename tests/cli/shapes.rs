//! The keys of the documents of searches and explanations, and the same as tables.

use expect_test::{Expect, expect};

use crate::{
    documents::shape,
    support::{Files, run},
};

const STRANDED: &str = "traces/stranded.fragsim";
const FRAG: &str = "traces/recorded/frag.pickle.gz";
const MESSAGE: &str = "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 1; 24.00 GiB total capacity; 21.58 GiB already allocated; 1.45 GiB free; 22.00 GiB reserved in total by PyTorch)";

fn check(args: &[&str], want: &Expect) {
    let ran = run(&[args, &["--format", "json"]].concat());
    assert_ne!(ran.status, 2, "{}", ran.err);
    want.assert_eq(&(shape(&serde_json::from_str(&ran.out).unwrap()) + "\n"));
}

fn head(args: &[&str], want: &Expect) {
    let ran = run(&[args, &["--format", "csv"]].concat());
    assert_ne!(ran.status, 2, "{}", ran.err);
    let names = ran.out.lines().next().unwrap();
    let names: Vec<&str> = names.split(',').filter(|name| !name.starts_with("stats.")).collect();
    want.assert_eq(&(names.join("\n") + "\n"));
}

#[test]
fn explain_of_a_message() {
    check(&["explain", "--message", MESSAGE], &expect![]);
    head(&["explain", "--message", MESSAGE], &expect![]);
}

#[test]
fn explain_of_a_recording() {
    check(&["explain", FRAG], &expect![]);
    head(&["explain", FRAG], &expect![]);
}

#[test]
fn explain_where_nothing_fails() {
    check(&["explain", "traces/growing_batch.fragsim"], &expect![]);
}

#[test]
fn compare() {
    check(&["compare", STRANDED, "--conf", ""], &expect![]);
}

#[test]
fn fit() {
    check(&["fit", STRANDED], &expect![]);
}

#[test]
fn tune() {
    check(&["tune", FRAG, "--perturbations", "1"], &expect![]);
}

#[test]
fn series() {
    check(&["series", STRANDED, "--rows", "2"], &expect![]);
}

#[test]
fn replay_verify_and_inspect_as_tables() {
    head(&["replay", STRANDED], &expect![]);
    head(&["verify", FRAG], &expect![]);
    head(&["inspect", FRAG], &expect![]);
}

#[test]
fn a_table_has_a_row_for_each_file_and_message() {
    let ran = run(&["verify", FRAG, "absent.pickle", "--format", "csv"]);
    assert_eq!(ran.status, 2);
    let mut rows = csv::Reader::from_reader(ran.out.as_bytes());
    let error = rows.headers().unwrap().iter().position(|name| name == "error").unwrap();
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(|row| &row[0]).collect::<Vec<_>>(), [FRAG, "absent.pickle"]);
    assert_eq!(&rows[0][error], "");
    assert!(rows[1][error].starts_with("no such file"));

    let files = Files::new();
    let log = files
        .file("train.log", format!("{MESSAGE}\n{}\n", MESSAGE.replace("2.00", "3.00")).as_bytes());
    let ran = run(&["explain", &log, "--format", "csv"]);
    let mut rows = csv::Reader::from_reader(ran.out.as_bytes());
    assert_eq!(rows.records().map(Result::unwrap).count(), 2);
}

#[test]
fn a_packed_recording_says_that_it_holds_no_stacks() {
    let files = Files::new();
    let packed = files.at("frag.packed");
    assert_eq!(run(&["pack", FRAG, "-o", &packed]).status, 0);
    let said = |file: &str| run(&["explain", file, "--no-remedies"]).out;
    assert!(said(&packed).contains("note: a packed recording holds no stacks"));
    assert!(!said(FRAG).contains("holds no stacks"));
}

#[test]
fn a_request_of_a_private_pool_is_explained() {
    let ask = |pool: &str| {
        let at = ["--at", "5", "--request", "3MiB", "--format", "json", "--pool", pool];
        run(&[&["explain", "traces/graph_pool.fragsim"][..], &at].concat())
    };
    let ran = ask("(0,1)");
    assert_eq!(ran.status, 0, "{}", ran.err);
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["verdict"], "served");
    let none = ask("7.1");
    assert_eq!(none.status, 2);
    assert!(none.err.contains("--pool (7,1): no such private pool; those of the trace: (0,1)"));
    assert!(ask("0,0").err.contains("leave --pool out"));
}

#[test]
fn refused_combinations_of_a_grid_are_left_out() {
    let grid = "max_split_size_mb:{21,64},large_segment_size_mb:{20,32}";
    let ran = run(&["sweep", STRANDED, "--conf-grid", grid]);
    assert_eq!(ran.out.lines().count(), 4, "{}", ran.out);
    assert!(
        ran.err.contains("1 of 4 settings of the grid are refused and left out"),
        "{}",
        ran.err
    );
    let ran = run(&["sweep", STRANDED, "--conf-grid", "max_split_size_mb:{1,2}"]);
    assert_eq!(ran.status, 2);
}
