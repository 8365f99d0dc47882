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
    check(
        &["explain", "--message", MESSAGE],
        &expect![[r#"
        .bytes: whole
        .file: text
        .found: whole
        .messages[].advice: list of 2
        .messages[].backend: text
        .messages[].candidates: list of 0
        .messages[].certainty: text
        .messages[].contradictions: list of 0
        .messages[].contributing: list of 0
        .messages[].count: whole
        .messages[].device: whole
        .messages[].figures.allocated_bytes: list of 2
        .messages[].figures.allowed_bytes: null
        .messages[].figures.context_bytes: null
        .messages[].figures.free_bytes: list of 2
        .messages[].figures.others_bytes: null
        .messages[].figures.outside_bytes: list of 2
        .messages[].figures.private_pools_bytes: null
        .messages[].figures.requested_bytes: list of 2
        .messages[].figures.reserved_bytes: list of 2
        .messages[].figures.shortfall_bytes: list of 2
        .messages[].figures.total_bytes: list of 2
        .messages[].figures.unallocated_bytes: list of 2
        .messages[].layout: text
        .messages[].line: whole
        .messages[].ranks: list of 0
        .messages[].reason: text
        .messages[].record: list of 0
        .messages[].ruled_out: list of 2
        .messages[].text: text
        .messages[].torch: list of 2
        .messages[].verdict: text
        .messages[].words: text
    "#]],
    );
    head(
        &["explain", "--message", MESSAGE],
        &expect![[r#"
        file
        bytes
        found
        verdict
        reason
        certainty
        words
        contributing
        ruled_out
        candidates
        backend
        layout
        torch
        device
        line
        count
        ranks
        figures.requested_bytes
        figures.total_bytes
        figures.allowed_bytes
        figures.free_bytes
        figures.reserved_bytes
        figures.allocated_bytes
        figures.private_pools_bytes
        figures.unallocated_bytes
        figures.shortfall_bytes
        figures.outside_bytes
        figures.context_bytes
        figures.others_bytes
        contradictions
        advice
        record
        text
    "#]],
    );
}

#[test]
fn explain_of_a_recording() {
    check(
        &["explain", FRAG],
        &expect![[r#"
        .blocking.fewest_blocks.at_least: whole
        .blocking.fewest_blocks.blocks[].addr: whole
        .blocking.fewest_blocks.blocks[].age: whole
        .blocking.fewest_blocks.blocks[].frames: list of 3
        .blocking.fewest_blocks.blocks[].made_by: whole
        .blocking.fewest_blocks.blocks[].requested_bytes: whole
        .blocking.fewest_blocks.blocks[].segment: list of 2
        .blocking.fewest_blocks.blocks[].size: whole
        .blocking.fewest_blocks.blocks[].stream: whole
        .blocking.fewest_blocks.bytes: whole
        .blocking.fewest_blocks.is_minimal: bool
        .blocking.fewest_blocks.objective: text
        .blocking.fewest_blocks.route: text
        .blocking.least_bytes.at_least: whole
        .blocking.least_bytes.blocks[].addr: whole
        .blocking.least_bytes.blocks[].age: whole
        .blocking.least_bytes.blocks[].frames: list of 8
        .blocking.least_bytes.blocks[].made_by: whole
        .blocking.least_bytes.blocks[].requested_bytes: whole
        .blocking.least_bytes.blocks[].segment: list of 2
        .blocking.least_bytes.blocks[].size: whole
        .blocking.least_bytes.blocks[].stream: whole
        .blocking.least_bytes.bytes: whole
        .blocking.least_bytes.is_minimal: bool
        .blocking.least_bytes.objective: text
        .blocking.least_bytes.route: text
        .capacity: whole
        .conf: text
        .cure: text
        .device: whole
        .file: text
        .fragmentation.allocated: whole
        .fragmentation.external: real
        .fragmentation.free: whole
        .fragmentation.free_blocks: whole
        .fragmentation.inactive_split: whole
        .fragmentation.largest_free: whole
        .fragmentation.partial_granules: whole
        .fragmentation.pending: whole
        .fragmentation.reserved: whole
        .fragmentation.reserved_to_active: real
        .fragmentation.reserved_to_allocated: real
        .fragmentation.rounding: whole
        .fragmentation.slack: whole
        .fragmentation.unusable_free_index: real
        .frames: list of 8
        .free[].blocks: whole
        .free[].bytes: whole
        .free[].is_small: bool
        .free[].largest: whole
        .free[].pool: list of 2
        .free[].stream: whole
        .free[].why: text
        .largest_hole: list of 2
        .message: text
        .notes: list of 2
        .op: whole
        .origin: text
        .pins[].addr: whole
        .pins[].free: whole
        .pins[].held: whole
        .pins[].holders: whole
        .pins[].largest_holders[].addr: whole
        .pins[].largest_holders[].age: whole
        .pins[].largest_holders[].frames: list of 3
        .pins[].largest_holders[].made_by: whole
        .pins[].largest_holders[].requested_bytes: whole
        .pins[].largest_holders[].segment: list of 2
        .pins[].largest_holders[].size: whole
        .pins[].largest_holders[].stream: whole
        .pins[].size: whole
        .remedies[].completes: bool
        .remedies[].fails_at: null
        .remedies[].kind: text
        .remedies[].peak_allocated: whole
        .remedies[].peak_reserved: whole
        .remedies[].served: bool
        .remedies[].value: text
        .requested_bytes: whole
        .stream: whole
        .sums.allocated: whole
        .sums.available: whole
        .sums.capacity: whole
        .sums.context: whole
        .sums.external: whole
        .sums.limit: null
        .sums.missing: whole
        .sums.pending: whole
        .sums.reserved: whole
        .sums.room: whole
        .sums.rounded: whole
        .sums.segment: whole
        .timeline[].allocated[].allocated: whole
        .timeline[].allocated[].free: whole
        .timeline[].allocated[].largest_free: whole
        .timeline[].allocated[].op: whole
        .timeline[].allocated[].reserved: whole
        .timeline[].first.allocated: whole
        .timeline[].first.free: whole
        .timeline[].first.largest_free: whole
        .timeline[].first.op: whole
        .timeline[].first.reserved: whole
        .timeline[].free[].allocated: whole
        .timeline[].free[].free: whole
        .timeline[].free[].largest_free: whole
        .timeline[].free[].op: whole
        .timeline[].free[].reserved: whole
        .timeline[].last.allocated: whole
        .timeline[].last.free: whole
        .timeline[].last.largest_free: whole
        .timeline[].last.op: whole
        .timeline[].last.reserved: whole
        .timeline[].reserved[].allocated: whole
        .timeline[].reserved[].free: whole
        .timeline[].reserved[].largest_free: whole
        .timeline[].reserved[].op: whole
        .timeline[].reserved[].reserved: whole
        .timeline[].scattered[].allocated: whole
        .timeline[].scattered[].free: whole
        .timeline[].scattered[].largest_free: whole
        .timeline[].scattered[].op: whole
        .timeline[].scattered[].reserved: whole
        .torch: text
        .verdict: text
        .worst.allocated: whole
        .worst.free: whole
        .worst.largest_free: whole
        .worst.op: whole
        .worst.reserved: whole
    "#]],
    );
    head(
        &["explain", FRAG],
        &expect![[r#"
        file
        device
        torch
        conf
        capacity
        op
        origin
        requested_bytes
        stream
        frames
        message
        verdict
        sums.capacity
        sums.context
        sums.external
        sums.limit
        sums.available
        sums.allocated
        sums.pending
        sums.reserved
        sums.rounded
        sums.segment
        sums.room
        sums.missing
        largest_hole
        fragmentation.reserved
        fragmentation.allocated
        fragmentation.pending
        fragmentation.free
        fragmentation.free_blocks
        fragmentation.largest_free
        fragmentation.inactive_split
        fragmentation.rounding
        fragmentation.slack
        fragmentation.partial_granules
        fragmentation.external
        fragmentation.reserved_to_allocated
        fragmentation.reserved_to_active
        fragmentation.unusable_free_index
        blocking.least_bytes.objective
        blocking.least_bytes.route
        blocking.least_bytes.bytes
        blocking.least_bytes.is_minimal
        blocking.least_bytes.at_least
        blocking.fewest_blocks.objective
        blocking.fewest_blocks.route
        blocking.fewest_blocks.bytes
        blocking.fewest_blocks.is_minimal
        blocking.fewest_blocks.at_least
        cure
        worst.op
        worst.reserved
        worst.allocated
        worst.free
        worst.largest_free
        notes
    "#]],
    );
}

#[test]
fn explain_where_nothing_fails() {
    check(
        &["explain", "traces/growing_batch.fragsim"],
        &expect![[r#"
        .capacity: null
        .conf: text
        .file: text
        .notes: list of 0
        .verdict: text
    "#]],
    );
}

#[test]
fn compare() {
    check(
        &["compare", STRANDED, "--conf", ""],
        &expect![[r#"
        .capacity: whole
        .device: whole
        .file: text
        .notes: list of 0
        .ops_total: whole
        .rows[].allocated_bytes_peak: whole
        .rows[].best_in: text
        .rows[].conf: text
        .rows[].cuda_free: whole
        .rows[].cuda_malloc: whole
        .rows[].died_at_op: whole
        .rows[].died_requested_bytes: whole
        .rows[].map: whole
        .rows[].message: text
        .rows[].ops: whole
        .rows[].price_us: real
        .rows[].reserved_bytes_peak: whole
        .rows[].retries: whole
        .rows[].survives: bool
        .rows[].unmap: whole
        .rows[].waste_bytes: whole
        .rows[].waste_percent: real
        .torch: text
    "#]],
    );
}

#[test]
fn fit() {
    check(
        &["fit", STRANDED],
        &expect![[r#"
        .context_bytes: whole
        .device: whole
        .file: text
        .notes: list of 0
        .ops_total: whole
        .rows[].cards: list of 15
        .rows[].conf: text
        .rows[].floor_bytes: whole
        .rows[].islands: list of 0
        .rows[].message: null
        .rows[].replays: whole
        .rows[].smallest_bytes: whole
        .rows[].step_bytes: whole
        .rows[].unlimited_reserved_bytes: whole
        .torch: text
    "#]],
    );
}

#[test]
fn tune() {
    check(
        &["tune", FRAG, "--perturbations", "1"],
        &expect![[r#"
        .best.allocated_bytes_peak: whole
        .best.best_in: text
        .best.conf: text
        .best.cuda_free: whole
        .best.cuda_malloc: whole
        .best.died_at_op: null
        .best.died_requested_bytes: null
        .best.map: whole
        .best.message: null
        .best.ops: whole
        .best.price_us: real
        .best.reserved_bytes_peak: whole
        .best.retries: whole
        .best.survives: bool
        .best.unmap: whole
        .best.waste_bytes: whole
        .best.waste_percent: real
        .capacity: whole
        .check_replays: whole
        .checks[].on: text
        .checks[].reserved_bytes_peak: whole
        .checks[].start_reserved_bytes_peak: whole
        .checks[].start_survives: bool
        .checks[].survives: bool
        .device: whole
        .empty_cache: null
        .file: text
        .front: list of 0
        .furthest: null
        .grid: whole
        .line: text
        .needed: null
        .notes: list of 1
        .objective: text
        .ops_total: whole
        .ranks: list of 0
        .replays: whole
        .start.allocated_bytes_peak: whole
        .start.best_in: text
        .start.conf: text
        .start.cuda_free: whole
        .start.cuda_malloc: whole
        .start.died_at_op: whole
        .start.died_requested_bytes: whole
        .start.map: whole
        .start.message: text
        .start.ops: whole
        .start.price_us: real
        .start.reserved_bytes_peak: whole
        .start.retries: whole
        .start.survives: bool
        .start.unmap: whole
        .start.waste_bytes: whole
        .start.waste_percent: real
        .torch: text
        .verdict: text
    "#]],
    );
}

#[test]
fn series() {
    check(
        &["series", STRANDED, "--rows", "2"],
        &expect![[r#"
        .capacity: null
        .conf: text
        .device: whole
        .file: text
        .series[].active_bytes.all.current: whole
        .series[].active_bytes.all.max: whole
        .series[].active_bytes.all.min: whole
        .series[].allocated_bytes.all.current: whole
        .series[].allocated_bytes.all.max: whole
        .series[].allocated_bytes.all.min: whole
        .series[].allocation.all.current: whole
        .series[].allocation.all.max: whole
        .series[].allocation.all.min: whole
        .series[].first_op: whole
        .series[].last_op: whole
        .series[].num_alloc_retries: whole
        .series[].num_ooms: whole
        .series[].requested_bytes.all.current: whole
        .series[].requested_bytes.all.max: whole
        .series[].requested_bytes.all.min: whole
        .series[].reserved_bytes.all.current: whole
        .series[].reserved_bytes.all.max: whole
        .series[].reserved_bytes.all.min: whole
        .series[].segment.all.current: whole
        .series[].segment.all.max: whole
        .series[].segment.all.min: whole
        .torch: text
    "#]],
    );
}

#[test]
fn replay_verify_and_inspect_as_tables() {
    head(
        &["replay", STRANDED],
        &expect![[r#"
        file
        device
        torch
        conf
        capacity
        completed
        ops
        ops_total
        events
        oom.op
        oom.message
        oom.requested_bytes
        oom.segment_bytes
        oom.allocated_bytes
        oom.reserved_bytes
        oom.device_free_bytes
        oom.is_oom
        failures
        recorded_failures
        worst.allocated.op
        worst.allocated.allocated_bytes
        worst.allocated.reserved_bytes
        worst.reserved.op
        worst.reserved.allocated_bytes
        worst.reserved.reserved_bytes
        worst.stranded.op
        worst.stranded.allocated_bytes
        worst.stranded.reserved_bytes
        device_calls.malloc
        device_calls.malloc_failed
        device_calls.free
        device_calls.map
        device_calls.map_failed
        device_calls.unmap
        device_calls.reserve
        notes
    "#]],
    );
    head(
        &["verify", FRAG],
        &expect![[r#"
        file
        exact
        torch
        ops
        addresses
        segment_allocs
        segment_frees
        segment_maps
        segment_unmaps
        pending_frees
        ooms
        layout
        inferred
        notes
        first_difference
    "#]],
    );
    head(
        &["inspect", FRAG],
        &expect![[r#"
        file
        kind
        torch
        conf
        stacks
        warnings
        device
        segments
        reserved_bytes
        allocated_bytes
        pending_bytes
        cached_bytes
        live_blocks
        largest_free_bytes
        expandable
        streams
        private_pools
        history.entries.alloc
        history.entries.free_completed
        history.entries.free_requested
        history.entries.oom
        history.entries.segment_alloc
        history.entries.segment_free
        history.operations
        history.from_the_start
        history.segments_before
        history.blocks_before
        history.duration_us
        history.error
    "#]],
    );
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
