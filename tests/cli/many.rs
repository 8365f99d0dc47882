//! The verbs that replay often: what they print, their exit statuses, and what bad input is answered
//! with.

use std::fs;

use expect_test::{Expect, expect};
use serde_json::Value;

use crate::support::{Files, pickle, run, snapshot};

const STRANDED: &str = "traces/stranded.fragsim";
const GROWING: &str = "traces/growing_batch.fragsim";
const FRAG: &str = "traces/recorded/frag.pickle.gz";

/// Standard error of a command line that cannot be used.
fn check_refused(args: &[&str], message: Expect) {
    let ran = run(args);
    assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{}", ran.err);
    // Only what is wrong; clap adds how the verb is used.
    message.assert_eq(ran.err.lines().next().unwrap_or_default());
}

fn csv(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

// ---- compare -------------------------------------------------------------------------------------

#[test]
fn compare_puts_settings_side_by_side() {
    let ran = run(&[
        "compare",
        STRANDED,
        "--conf",
        "",
        "--conf",
        "expandable_segments:True",
        "--capacity",
        "60MiB",
        "--price",
        "cudaMalloc=100",
    ]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    expect![[r#"
        traces/stranded.fragsim on cuda:0, PyTorch 2.15, capacity 60.00 MiB, 11 operations

                                    survives  allocated   reserved              waste  retries  driver calls   about
          (default settings)        yes       36.00 MiB  56.00 MiB             35.7 %        0  3 malloc      300 us
          expandable_segments:True  yes       36.00 MiB  60.00 MiB  +4.00 MiB  40.0 %        0  3 map         945 us  +645 us
    "#]]
    .assert_eq(&ran.out);
}

#[test]
fn the_exit_status_of_compare_is_0_all_survive_1_some_die() {
    let status = |capacity: &str| {
        run(&["compare", STRANDED, "--common", "--conf", "", "--capacity", capacity]).status
    };
    assert_eq!([status("1GiB"), status("40MiB")], [0, 1]);
}

#[test]
fn the_forms_of_compare_say_the_same() {
    let args = ["compare", STRANDED, "--common", "--capacity", "40MiB", "--format"];
    let with = |format: &str| run(&[&args[..], &[format]].concat());
    let document = with("json").json();
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows[0]["survives"], false);
    assert_eq!(rows[0]["died_at_op"], 10);
    assert_eq!(rows[0]["best_in"], "");
    let lines = csv(&with("csv").out);
    assert_eq!(lines.len(), rows.len() + 1);
    for (line, row) in lines[1..].iter().zip(rows) {
        for (name, cell) in lines[0].iter().zip(line) {
            let value = match &row[name] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(*cell, value, "{name}");
        }
    }
}

#[test]
fn compare_refuses_what_it_cannot_use() {
    check_refused(
        &["compare", STRANDED, "--conf", "max_split_mb:3"],
        expect![
            "fragsim: --conf max_split_mb:3: Unrecognized key 'max_split_mb' in CUDA allocator config."
        ],
    );
    check_refused(
        &["compare", STRANDED, "--capacity", "0"],
        expect![
            "error: invalid value '0' for '--capacity <SIZE>': a device has some memory: give its capacity, such as 24GiB"
        ],
    );
    check_refused(
        &["compare", STRANDED, "--capacity", "RTX 9999"],
        expect![
            "error: invalid value 'RTX 9999' for '--capacity <SIZE>': there is no card 'RTX 9999'; give a size such as 24GiB, or: RTX 2080 Ti, T4, V100 16GB, A10, L4, RTX 4090, RTX 3090, RTX 5090, V100 32GB, A100 40GB, L40S, A100 80GB, H100 80GB, H200, B200"
        ],
    );
    check_refused(
        &["compare", STRANDED, "--price", "cudaMallok=3"],
        expect![
            "fragsim: --price cudaMallok=3: no call 'cudaMallok' has a price; there are cudaMalloc, cudaFree, map, unmap, synchronize"
        ],
    );
    check_refused(
        &["compare", STRANDED, "--threads", "0"],
        expect![
            "error: invalid value '0' for '--threads <N>': number would be zero for non-zero type"
        ],
    );
    let files = Files::new();
    let prices = files.file("prices.json", b"[1, 2]");
    let ran = run(&["compare", STRANDED, "--prices", &prices]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("prices.json: no prices: "), "{}", ran.err);
}

// ---- fit -----------------------------------------------------------------------------------------

#[test]
fn fit_says_from_where_on_a_run_survives() {
    let ran = run(&["fit", STRANDED, "--conf", "", "--conf", "expandable_segments:True"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    expect![[r#"
        traces/stranded.fragsim on cuda:0, PyTorch 2.15, 11 operations, without the CUDA context (add it with --context)

                                    survives from  cannot below  takes unhindered  smallest card
          (default settings)            56.00 MiB     36.00 MiB         56.00 MiB  RTX 2080 Ti
          expandable_segments:True      60.00 MiB     36.00 MiB         60.00 MiB  RTX 2080 Ti

          (default settings): every capacity is accounted for, by 11 replays
          expandable_segments:True: below the smallest, one capacity in 2.00 MiB was tried, by 17 replays
    "#]]
    .assert_eq(&ran.out);
}

#[test]
fn fit_counts_the_context_and_names_the_cards() {
    let document = run(&["fit", STRANDED, "--context", "12GiB", "--format", "json"]).json();
    let row = &document["rows"][0];
    assert_eq!(row["smallest_bytes"], (12_u64 << 30) + (56 << 20));
    assert_eq!(row["cards"][0], "T4");
    assert_eq!(row["step_bytes"], 1);
}

#[test]
fn fit_lists_the_cards_and_takes_nothing_else_then() {
    let ran = run(&["fit", "--gpus", "--format", "csv"]);
    assert_eq!(ran.status, 0);
    assert!(ran.out.starts_with("name,total_bytes\nRTX 2080 Ti,11554717696\n"), "{}", ran.out);
    check_refused(&["fit"], expect!["error: the following required arguments were not provided:"]);
    check_refused(
        &["fit", "--gpus", STRANDED],
        expect!["error: the argument '--gpus' cannot be used with '[TRACE]'"],
    );
}

#[test]
fn a_program_that_fits_nowhere_has_exit_status_1() {
    let files = Files::new();
    let path =
        files.file("huge.fragsim", b"# Asks for more than there is.\na = alloc 2000000TiB\n");
    let ran = run(&["fit", &path]);
    assert_eq!(ran.status, 1);
    assert!(ran.out.contains("nowhere"), "{}", ran.out);
}

// ---- tune ----------------------------------------------------------------------------------------

#[test]
fn tune_prints_a_line_that_can_be_pasted() {
    let ran = run(&["tune", FRAG, "--capacity", "2GiB", "--threads", "2"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let line = ran.out.lines().find(|line| line.starts_with("PYTORCH_CUDA_ALLOC_CONF="));
    assert_eq!(line, Some("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"), "{}", ran.out);
    assert!(ran.out.contains("checked on the second half: survives"), "{}", ran.out);
    assert!(ran.out.contains("checked on 8 runs with sizes up to 10 %"), "{}", ran.out);
}

#[test]
fn tune_says_when_nothing_is_to_be_done_and_when_nothing_helps() {
    let roomy = run(&["tune", STRANDED, "--capacity", "1GiB", "--objective", "survive"]);
    assert_eq!(roomy.status, 0);
    assert!(roomy.out.contains("nothing to change: it survives as it is"), "{}", roomy.out);
    let tight = run(&["tune", STRANDED, "--capacity", "30MiB"]);
    assert_eq!(tight.status, 1);
    assert!(
        tight.out.contains(
            "nothing helps: under none of the settings does it survive with capacity 30.00 MiB"
        ),
        "{}",
        tight.out
    );
    assert!(tight.out.contains("less memory or a larger device is what is left"), "{}", tight.out);
}

#[test]
fn the_document_of_tune_names_the_line_and_the_checks() {
    let args = ["tune", FRAG, "--capacity", "2GiB", "--perturbations", "3", "--rank", FRAG];
    let document = run(&[&args[..], &["--format", "json"]].concat()).json();
    assert_eq!(document["verdict"], "found");
    assert_eq!(document["line"], "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True");
    assert_eq!(document["checks"].as_array().unwrap().len(), 5);
    assert_eq!(document["checks"][1]["on"], "rank 1");
    assert_eq!(document["start"]["survives"], false);
    let lines = csv(&run(&[&args[..], &["--format", "csv"]].concat()).out);
    assert_eq!([&lines[1][0], &lines[2][0]], ["start", "best"]);
    assert_eq!(lines[2][1], "expandable_segments:True");
}

// ---- sweep ---------------------------------------------------------------------------------------

/// A sweep of two traces under four settings at three capacities.
const SWEEP: [&str; 7] = [
    "sweep",
    STRANDED,
    GROWING,
    "--conf-grid",
    "{,expandable_segments:True},{,max_split_size_mb:64}",
    "--capacity-grid",
    "40MiB..80MiB/20MiB",
];

fn sweep(more: &[&str]) -> crate::support::Ran {
    run(&[&SWEEP[..], more].concat())
}

#[test]
fn a_sweep_has_a_row_for_every_trace_setting_and_capacity() {
    let ran = sweep(&[]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let lines = csv(&ran.out);
    assert_eq!(lines.len(), 1 + 2 * 4 * 3);
    assert_eq!(lines[1][..6], [STRANDED, "0", "2.15", "", "41943040", "false"]);
    assert!(ran.err.starts_with("fragsim: 24 rows: "), "{}", ran.err);
}

#[test]
fn a_sweep_writes_the_same_bytes_on_any_number_of_threads() {
    let one = sweep(&["--threads", "1"]).out;
    for threads in ["2", "3", "8"] {
        assert_eq!(sweep(&["--threads", threads]).out, one, "{threads} threads");
    }
}

#[test]
fn every_form_of_a_sweep_says_the_same() {
    let files = Files::new();
    let (table, lines) = (files.at("rows.csv"), files.at("rows.jsonl"));
    assert_eq!(sweep(&["-o", &table]).status, 0);
    assert_eq!(sweep(&["-o", &lines]).status, 0);
    assert_eq!(fs::read_to_string(&table).unwrap(), sweep(&[]).out);
    assert_eq!(fs::read_to_string(&lines).unwrap(), sweep(&["--format", "json"]).out);
    #[cfg(feature = "parquet")]
    {
        let packed = files.at("rows.parquet");
        assert_eq!(sweep(&["-o", &packed]).status, 0);
        assert!(fs::read(&packed).unwrap().starts_with(b"PAR1"));
    }
    let left: Vec<_> =
        fs::read_dir(files.at("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(
        left.iter().all(|name| name.to_str().unwrap().starts_with("rows.")
            && !name.to_str().unwrap().ends_with(".journal")),
        "{left:?}"
    );
}

#[test]
fn one_broken_trace_stops_no_other() {
    let files = Files::new();
    let broken = files.file("broken.pickle", &pickle(&snapshot())[..300]);
    let ran = run(&["sweep", &broken, STRANDED, &files.at("absent"), "--conf", ""]);
    assert_eq!(ran.status, 2);
    let lines = csv(&ran.out);
    assert_eq!(lines.len(), 4);
    assert!(lines[1][20].contains("the pickle ends early"), "{:?}", lines[1]);
    assert_eq!(lines[2][5], "false");
    assert!(ran.err.contains("0 survive, 1 die, 2 could not be replayed"), "{}", ran.err);
}

#[test]
fn a_condition_that_holds_makes_the_exit_status_1() {
    let ran = sweep(&["--fail-if", "peak_reserved > 50MiB"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("fragsim: peak_reserved > 50MiB: traces/"), "{}", ran.err);
    assert_eq!(sweep(&["--fail-if", "peak_reserved > 5GiB"]).status, 0);
    assert_eq!(sweep(&["--fail-if", "dies"]).status, 1);
}

/// A journal that was cut in the middle of a line is gone on with, to the same file.
#[test]
fn an_interrupted_sweep_goes_on() {
    let files = Files::new();
    let whole = files.at("whole.jsonl");
    assert_eq!(sweep(&["-o", &whole]).status, 0);
    let whole = fs::read_to_string(&whole).unwrap();
    // What is left of a sweep to a full device: the journal, and no file.
    let out = files.at("rows.csv");
    let absent = files.at("rows.csv.tmp");
    fs::create_dir(&absent).unwrap();
    let ran = sweep(&["-o", &out]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("the same command goes on"), "{}", ran.err);
    assert!(!fs::exists(&out).unwrap());
    fs::remove_dir(&absent).unwrap();
    let journal = fs::read_to_string(files.at("rows.csv.journal")).unwrap();
    let rows: Vec<&str> = journal.lines().skip(1).collect();
    assert_eq!(rows.join("\n") + "\n", whole);
    let cut: String = journal.lines().take(8).collect::<Vec<_>>().join("\n") + "\n{\"file\":\"tra";
    fs::write(files.at("rows.csv.journal"), cut).unwrap();
    let ran = sweep(&["-o", &out]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.err.contains("7 of 24 replays are in the journal"), "{}", ran.err);
    assert_eq!(fs::read_to_string(&out).unwrap(), sweep(&[]).out);
    assert!(!fs::exists(files.at("rows.csv.journal")).unwrap());
}

#[test]
fn the_journal_of_another_sweep_is_not_touched() {
    let files = Files::new();
    let out = files.at("rows.csv");
    let journal = files.file("rows.csv.journal", b"{\"fragsim sweep\":\"of old\"}\n");
    let ran = sweep(&["-o", &out]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("the journal of another sweep"), "{}", ran.err);
    assert_eq!(fs::read(&journal).unwrap(), b"{\"fragsim sweep\":\"of old\"}\n");
}

#[test]
fn a_large_sweep_is_estimated_first() {
    let ran = run(&["sweep", STRANDED, "--capacity-grid", "1MiB..200GiB/1MiB", "--conf", ""]);
    assert_eq!((ran.status, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("204800 replays would take about"), "{}", ran.err);
    assert!(ran.err.contains("give --yes to go on"), "{}", ran.err);
}

#[test]
fn sweep_refuses_what_it_cannot_use() {
    check_refused(
        &["sweep", STRANDED, "--fail-if", "reserved > 3GiB"],
        expect![
            "error: invalid value 'reserved > 3GiB' for '--fail-if <CONDITION>': 'reserved > 3GiB' is no condition: there is no figure 'reserved'; write for example 'peak_reserved > 70GiB', 'retries > 0' or 'dies'; the figures are peak_reserved, peak_allocated, waste, waste_percent, retries, cuda_malloc, cuda_free, price_us"
        ],
    );
    check_refused(
        &["sweep", STRANDED, "--capacity-grid", "8GiB..4GiB/1GiB"],
        expect![
            "error: invalid value '8GiB..4GiB/1GiB' for '--capacity-grid <GRID>': '8GiB..4GiB/1GiB': 4.00 GiB is below 8.00 GiB; write the smaller one first"
        ],
    );
    check_refused(
        &["sweep", STRANDED, "--capacity-grid", ""],
        expect![
            "error: invalid value '' for '--capacity-grid <GRID>': '' is not a size: no number; write bytes or a number with a unit, such as 512, 20MiB or 1.5GiB"
        ],
    );
    check_refused(
        &["sweep", STRANDED, "--conf-grid", "max_split_size_mb:{64"],
        expect!["fragsim: --conf-grid 'max_split_size_mb:{64': a '{' without a '}' behind it"],
    );
    check_refused(
        &["sweep", STRANDED, "--format", "parquet"],
        expect!["fragsim: Parquet needs a file: give --output FILE"],
    );
    check_refused(
        &["sweep", STRANDED, "-o", "rows"],
        expect![
            "fragsim: rows: the name does not say the form; end it in .csv, .jsonl or .parquet, or give --format"
        ],
    );
    check_refused(
        &["sweep", STRANDED, "-o", "absent/rows.csv"],
        expect![
            "fragsim: absent/rows.csv.journal: cannot be written: No such file or directory (os error 2)"
        ],
    );
}
