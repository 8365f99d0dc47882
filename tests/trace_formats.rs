//! Both formats of traces: what they read, what they refuse and how they say so, and that a trace
//! comes back from them as it was.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use fragsim::{
    base::{Addr, AllocId, Bytes, DeviceIndex, Id, PoolId, StreamHandle, StreamId},
    source::{json, packed},
    trace::{
        BlockLayout, BlockState, Control, EventMode, Layout, Op, SegmentLayout, Stream, Trace,
        TraceBuilder, script,
    },
};
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// Everything that a format must keep.
#[track_caller]
fn assert_same(left: &Trace, right: &Trace) {
    assert_eq!(left.device(), right.device());
    assert_eq!(left.streams(), right.streams());
    assert_eq!(left.pools(), right.pools());
    assert_eq!(left.alloc_count(), right.alloc_count());
    assert_eq!(left.start(), right.start());
    assert_eq!(left.start_ids(), right.start_ids());
    assert_eq!(left.ops(), right.ops());
    assert_eq!(left.controls(), right.controls());
    for id in (0..left.alloc_count()).map(AllocId) {
        assert_eq!(left.labels().get(id), right.labels().get(id));
    }
}

fn to_json(trace: &Trace) -> String {
    let mut bytes = Vec::new();
    json::write(trace, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
fn assert_round_trips(trace: &Trace) {
    let text = script::print(trace).to_string();
    let from_script = script::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_same(&from_script, trace);
    assert_eq!(script::print(&from_script).to_string(), text);

    let lines = to_json(&from_script);
    let from_json = json::read(lines.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{lines}"));
    assert_same(&from_json, trace);
    assert_eq!(to_json(&from_json), lines);

    let bytes = packed::program_to_bytes(std::slice::from_ref(trace)).unwrap();
    let from_packed = packed::from_bytes(&bytes).unwrap();
    assert!(from_packed.is_program());
    assert_same(&from_packed.traces[0], trace);
}

fn parse(text: &str) -> Trace {
    script::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// What `print` makes of a text.
fn canonical(text: &str) -> String {
    script::print(&parse(text)).to_string()
}

#[track_caller]
fn refuses(text: &str, message: &str) {
    assert_eq!(script::parse(text).unwrap_err().to_string(), message, "{text:?}");
}

/// After a header.
#[track_caller]
fn json_refuses(ops: &str, message: &str) {
    let file = format!("{{\"format\":\"fragsim-trace\",\"version\":1}}\n{ops}");
    assert_eq!(json::read(file.as_bytes()).unwrap_err().to_string(), message);
}

// ---------------------------------------------------------------------------------------------
// The line format.

#[test]
fn statements_are_separated_by_lines_or_semicolons_and_comments_are_skipped() {
    let lines = "a = alloc 3MiB\nfree a\nempty_cache\n";
    assert_eq!(canonical("a = alloc 3MiB; free a; empty_cache"), lines);
    assert_eq!(
        canonical("\u{feff}# why\r\n;; a=alloc 3 MiB;free a # b\r\n\r\n empty_cache;"),
        lines
    );
    assert_eq!(canonical(""), "");
}

#[test]
fn every_operation_is_kept() {
    let text = "\
device 1
stream 1 handle 0x7f00aabbccd0 id 35
pool (3,0)
pool (0,1)
start 0x7f0000000000 large | a 3MiB(3145000) label kv_cache | . 17MiB | ~ b 2MiB
start 0x7f0010000000 small expandable stream 1 pool (0,1) | c 512 | .  2096640(100)
d = alloc 1536MiB stream 1
e = alloc 512 pool (0,1)
f = alloc 0 stream 2 pool (0,1) label activation
g = alloc 1MiB label \"of two words; é\"
free a
free d pending
completed d
completed b
record_stream e 2
empty_cache
empty_cache (0,1)
set_fraction 0.5
settings expandable_segments:True,roundup_power2_divisions:[256:1,>:2]
settings \"\"
settings \" a;b#c\\n\\\"\\\\\"
pool_create (0,1)
pool_begin (0,1)
pool_begin (0,1) stream 2
pool_end (0,1)
pool_release (0,1)
use_on_oom (0,1) on
use_on_oom (0,1) off
no_split (0,1)
capture_begin 1
capture_end 1
events ready
events manual
events polls 3
complete 1
complete all
external 2GiB
total 80GiB
reset_peak
reset_accumulated
snapshot
";
    assert_eq!(canonical(text), text.replace(".  20", ". 20"));
    assert_round_trips(&parse(text));
}

#[test]
fn every_operation_means_what_it_says() {
    let trace = parse(
        "start 0x1000 small stream 1 | a 512(100) | ~ b 1KiB | . 512(7)
         c = alloc 1.5GiB pool 4 stream 3; record_stream c 1; free c pending; completed c
         completed b; free a; empty_cache 4; settings x:1 # y",
    );
    let start = &trace.start().segments[0];
    assert_eq!((start.addr, start.stream.0), (Addr(0x1000), 0x1_0000_0100));
    let requested: Vec<u64> = start.blocks.iter().map(|block| block.requested.0).collect();
    assert_eq!(requested, [100, 1024, 7]);
    assert_eq!(trace.start_ids(), [AllocId(0), AllocId(1)]);
    let streams: Vec<Stream> = (0..4).map(|n| Stream::numbered(StreamId(n))).collect();
    assert_eq!(trace.streams().as_slice(), streams);
    assert_eq!(trace.pools().as_slice(), [PoolId(0, 4)]);

    let Op::Alloc(alloc) = trace.ops()[0] else { panic!("an alloc") };
    assert_eq!((alloc.id, alloc.size.0, alloc.stream), (AllocId(2), 3 << 29, StreamId(3)));
    assert_eq!(alloc.pool.map(Id::index), Some(0));
    assert_eq!(trace.ops()[1], Op::RecordStream(AllocId(2), StreamId(1)));
    assert_eq!(trace.ops()[4], Op::FreeCompleted(AllocId(1)));
    let controls = [Control::EmptyPool(PoolId(0, 4)), Control::Settings("x:1".to_owned())];
    assert_eq!(trace.controls().as_slice(), controls);
}

#[test]
fn an_allocation_has_one_label() {
    let trace = parse("a = alloc 1 label parameter; b = alloc 2; c = alloc 3 label parameter");
    assert_eq!(trace.labels().names(), ["parameter"]);
    let labels = [0, 1, 2].map(|n| trace.labels().get(AllocId(n)));
    assert_eq!(labels, [Some("parameter"), None, Some("parameter")]);
    refuses(
        "a = alloc 1 label",
        "line 1, column 18: the line ends where a label such as parameter should stand",
    );
    let many: String = (0..256).map(|n| format!("a{n} = alloc 1 label l{n}\n")).collect();
    refuses(&many, "line 256, column 16: a trace holds at most 255 labels");
    assert!(!to_json(&parse("a = alloc 1")).contains("label"));
}

#[test]
fn a_name_may_be_used_again_after_its_free() {
    assert_eq!(
        canonical("x = alloc 1; free x; x = alloc 2; free x"),
        "a = alloc 1\nfree a\nb = alloc 2\nfree b\n"
    );
    refuses(
        "x = alloc 1\nx = alloc 2",
        "line 2, column 1: 'x' is live since line 1; free it first, or take another name",
    );
}

#[test]
fn names_go_on_after_z() {
    let text: String = (0..54).map(|i| format!("n{i} = alloc 1\n")).collect();
    let names: Vec<String> =
        canonical(&text).lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!((&*names[25], &*names[26], &*names[53]), ("z", "a1", "b2"));
}

#[test]
fn a_misspelt_statement_gets_a_suggestion() {
    refuses(
        "emty_cache",
        "line 1, column 1: unknown statement 'emty_cache'; did you mean 'empty_cache'?",
    );
    refuses(
        "\n  a = alloc 1; recordstream a 2",
        "line 2, column 16: unknown statement 'recordstream'; did you mean 'record_stream'?",
    );
    refuses(
        "xyz 1",
        "line 1, column 1: unknown statement 'xyz'; write one such as 'a = alloc 3MiB', 'free a' or 'empty_cache'",
    );
    refuses("alloc 3MiB", "line 1, column 1: an allocation needs a name, as in 'a = alloc 3MiB'");
}

#[test]
fn what_is_not_live_cannot_be_used() {
    refuses("free x", "line 1, column 6: 'x' is not live: it was never allocated");
    refuses(
        "x = alloc 1\nfree x\nfree x",
        "line 3, column 6: 'x' is not live: it was freed in line 2",
    );
    refuses(
        "start 0 large | ~ p 1MiB\nrecord_stream p 1",
        "line 2, column 15: 'p' is not live: it was freed before the start, see line 1",
    );
    refuses(
        "x = alloc 1; completed x",
        "line 1, column 24: 'x' is not pending: it is live since line 1; free it first",
    );
    refuses(
        "x = alloc 1; free x pending; completed x\ncompleted x",
        "line 2, column 11: 'x' is not pending: its free was completed in line 1",
    );
}

#[test]
fn what_stands_in_the_wrong_place_is_named() {
    refuses("a = aloc 1", "line 1, column 5: 'aloc' stands where 'alloc' should stand");
    refuses(
        "a = alloc",
        "line 1, column 10: the line ends where a size such as 512, 20MiB or 1.5GiB should stand",
    );
    refuses(
        "a = alloc 3parsecs",
        "line 1, column 11: '3parsecs' is not a size: unknown unit; write bytes or a number with a unit, such as 512, 20MiB or 1.5GiB",
    );
    refuses(
        "a = alloc 5000000TiB",
        "line 1, column 11: '5000000TiB' is too much for one request; the largest is 2^62 - 1",
    );
    refuses(
        "é = alloc 1",
        "line 1, column 1: 'é' stands where a name (a letter, then letters, digits, '_' or '.') should stand",
    );
    refuses(
        "free é é",
        "line 1, column 6: 'é' stands where a name (a letter, then letters, digits, '_' or '.') should stand",
    );
    refuses(
        "empty_cache (0,1) now",
        "line 1, column 19: 'now' stands where the end of the statement (a new line or ';') should stand",
    );
    refuses(
        "pool_create (0 1)",
        "line 1, column 16: '1' stands where the ',' of a pool such as (0,1) should stand",
    );
    refuses(
        "pool_create 0",
        "line 1, column 13: (0,0) is the default pool; name a private one, such as (0,1)",
    );
    refuses("use_on_oom 1 yes", "line 1, column 14: 'yes' stands where 'on' or 'off' should stand");
    refuses(
        "set_fraction inf",
        "line 1, column 14: 'inf' stands where a fraction such as 0.5 should stand",
    );
    refuses("settings \"x", "line 1, column 10: the quoted text has no end; add a '\"'");
    refuses("a = alloc 1 stream 1 stream 2", "line 1, column 22: the stream is given twice");
}

#[test]
fn the_header_stands_before_the_operations() {
    refuses(
        "snapshot; device 1",
        "line 1, column 11: 'device' must stand before the first operation",
    );
    refuses("device 256", "line 1, column 8: 256 is too large for a device number from 0 to 255");
    refuses(
        "stream 0 handle 0x5",
        "line 1, column 8: stream 0 is the default stream: it needs no declaration",
    );
    refuses(
        "stream 1 handle 0x100000500; a = alloc 1 stream 2",
        "line 1, column 49: streams 1 and 2 would both have handle 0x100000500; declare one of them with another handle",
    );
    refuses(
        "a = alloc 1 stream 65535",
        "line 1, column 20: stream numbers from 1024 on must be declared, in order, from stream 1",
    );
}

#[test]
fn a_start_layout_must_be_possible() {
    refuses("start 0x1000 large", "line 1, column 7: the segment at 0x1000 has no blocks");
    refuses(
        "start 0x1000 large | . 0",
        "line 1, column 7: the segment at 0x1000 has a block of 0 bytes",
    );
    refuses(
        "start 0xffffffffffff0000 large | . 1MiB",
        "line 1, column 7: the segment at 0xffffffffffff0000 ends beyond 64 bits",
    );
    refuses(
        "start 0x1000 large | . 1MiB\nstart 0x2000 large | . 1MiB",
        "line 2, column 7: the segment at 0x2000 must lie behind the one before it, which is 0x1000+1048576",
    );
    refuses(
        "start 0x1000 huge | . 1MiB",
        "line 1, column 14: 'huge' stands where 'large' or 'small' should stand",
    );
    refuses(
        "start 0x1000 large | a 1MiB | ~ a 1MiB",
        "line 1, column 33: 'a' is live since line 1; free it first, or take another name",
    );
}

#[test]
fn more_streams_than_a_script_may_leave_undeclared_are_declared() {
    let mut builder = TraceBuilder::new(DeviceIndex(0));
    for n in 1..1500 {
        builder.stream(Stream::numbered(StreamId(n))).unwrap();
    }
    assert_round_trips(&builder.build());
}

// ---------------------------------------------------------------------------------------------
// JSON lines.

#[test]
fn the_json_form_of_each_operation_is_fixed() {
    let script = "stream 1 handle 0x10 id 35
start 0x7f0000000000 large expandable | a 3MiB(3145000) | . 1MiB | ~ b 2MiB
c = alloc 3MiB; d = alloc 512 stream 1 pool (0,1); free c; free a pending; completed a
record_stream d 1; empty_cache; empty_cache (0,1); set_fraction 0.5; settings \"a\\nb\"
pool_create 1; pool_begin 1; pool_begin 1 stream 1; pool_end 1; pool_release 1; use_on_oom 1 on
no_split 1; capture_begin 1; capture_end 1; events ready; events polls 3; complete 1; complete all
external 1KiB; total 2KiB; reset_peak; reset_accumulated; snapshot";
    expect_test::expect![[r#"
        {"format":"fragsim-trace","version":1,"device":0,"streams":[[0,0],[16,35]],"pools":[[0,1]],"start":[{"addr":139637976727552,"kind":"large","expandable":true,"blocks":[{"state":"active_allocated","id":0,"size":3145728,"requested":3145000},{"state":"inactive","size":1048576},{"state":"active_pending_free","id":1,"size":2097152}]}]}
        {"op":"alloc","id":2,"size":3145728}
        {"op":"alloc","id":3,"size":512,"stream":1,"pool":[0,1]}
        {"op":"free","id":2}
        {"op":"free","id":0,"pending":true}
        {"op":"completed","id":0}
        {"op":"record_stream","id":3,"stream":1}
        {"op":"empty_cache"}
        {"op":"empty_cache","pool":[0,1]}
        {"op":"set_fraction","fraction":0.5}
        {"op":"settings","text":"a\nb"}
        {"op":"pool_create","pool":[0,1]}
        {"op":"pool_begin","pool":[0,1]}
        {"op":"pool_begin","pool":[0,1],"stream":1}
        {"op":"pool_end","pool":[0,1]}
        {"op":"pool_release","pool":[0,1]}
        {"op":"use_on_oom","pool":[0,1],"on":true}
        {"op":"no_split","pool":[0,1]}
        {"op":"capture_begin","stream":1}
        {"op":"capture_end","stream":1}
        {"op":"events","mode":"ready"}
        {"op":"events","mode":{"polls":3}}
        {"op":"complete","stream":1}
        {"op":"complete"}
        {"op":"external","size":1024}
        {"op":"total","size":2048}
        {"op":"reset_peak"}
        {"op":"reset_accumulated"}
        {"op":"snapshot"}
    "#]]
    .assert_eq(&to_json(&parse(script)));
}

#[test]
fn ids_of_a_json_file_are_any_numbers() {
    let file = r#"{"format":"fragsim-trace","version":1}
{"op":"alloc","id":140037976727552,"size":1}

{"op":"free","id":140037976727552}
{"op":"alloc","id":140037976727552,"size":2}"#;
    let trace = json::read(file.as_bytes()).unwrap();
    assert_same(&trace, &parse("a = alloc 1; free a; b = alloc 2"));
}

#[test]
fn json_errors_name_the_line_and_the_key() {
    json_refuses(r#"{"op":"alloc","id":0}"#, "line 2: missing field `size`");
    json_refuses(
        "\n{\"op\":\"free\",\"id\":0,\"sise\":1}",
        "line 3: unknown field `sise`, expected `id` or `pending`",
    );
    json_refuses(r#"{"op":"snapshot","x":1}"#, "line 2: unknown field `x`, expected `pool`");
    json_refuses(r#"{"op":"free","id":7}"#, "line 2: '7' is not live: it was never allocated");
    json_refuses(
        r#"{"op":"alloc","id":7,"size":1,"stream":1}"#,
        "line 2: stream 1 is not one of the 1 in 'streams' of the header; add it there",
    );
    json_refuses(
        r#"{"op":"pool_create","pool":[0,0]}"#,
        "line 2: pool [0,0] is the default pool; name a private one, such as [0,1]",
    );
    json_refuses("{", "line 2: column 1: EOF while parsing an object");
}

#[test]
fn a_json_header_is_checked() {
    let read = |file: &str| json::read(file.as_bytes()).unwrap_err().to_string();
    let not_a_trace = "line 1: not a trace: the first line must be a header such as {\"format\":\"fragsim-trace\",\"version\":1}";
    assert_eq!(read(""), not_a_trace);
    assert_eq!(read(r#"{"format":"other","version":1}"#), not_a_trace);
    assert_eq!(
        read(r#"{"format":"fragsim-trace","version":2,"new":true}"#),
        "line 1: version 2 of the format; this program reads version 1"
    );
    let header = |keys: &str| read(&format!(r#"{{"format":"fragsim-trace","version":1,{keys}}}"#));
    assert_eq!(
        header(r#""devices":1"#),
        "line 1: column 47: unknown field `devices`, expected one of `format`, `version`, `device`, `streams`, `pools`, `start`"
    );
    assert_eq!(
        header(r#""streams":[]"#),
        "line 1: the first of 'streams' must be the default stream, [0,0]"
    );
    assert_eq!(
        header(r#""streams":[[0,0],[5,1],[5,2]]"#),
        "line 1: two of 'streams' have handle 5"
    );
    let block = |block: &str| {
        header(&format!(r#""start":[{{"addr":0,"kind":"large","blocks":[{block}]}}]"#))
    };
    assert_eq!(
        block(r#"{"state":"active_allocated","size":1}"#),
        "line 1: a block of state 'active_allocated' needs an 'id'"
    );
    assert_eq!(
        block(r#"{"state":"inactive","size":1,"id":3}"#),
        "line 1: an inactive block has no 'id'; it has 3"
    );
    assert_eq!(block(""), "line 1: the segment at 0x0 has no blocks");
}

// ---------------------------------------------------------------------------------------------
// Round trips of made-up traces.

fn size(rng: &mut impl Rng) -> Bytes {
    match rng.random_range(0..4) {
        0 => Bytes(rng.random_range(0..2048)),
        1 => Bytes(rng.random_range(0..64) << rng.random_range(0..36)),
        2 => Bytes(rng.random_range(0..1 << 62)),
        _ => Bytes(rng.random_range(0..1 << 31)),
    }
}

fn pool_id(rng: &mut impl Rng) -> PoolId {
    *[PoolId(0, 1), PoolId(1, 0), PoolId(0, 7), PoolId(u64::MAX, 3)].choose(rng).unwrap()
}

fn start(rng: &mut impl Rng, streams: &[StreamHandle]) -> Layout {
    let mut next = rng.random_range(0..1 << 47);
    let mut segments = Vec::new();
    for _ in 0..rng.random_range(0..4) {
        let mut blocks = Vec::new();
        for _ in 0..rng.random_range(1..5) {
            let states =
                [BlockState::ActiveAllocated, BlockState::ActivePendingFree, BlockState::Inactive];
            let size = Bytes(rng.random_range(1..1 << 30));
            let requested =
                *[Bytes::ZERO, size, Bytes(rng.random_range(0..1 << 30))].choose(rng).unwrap();
            blocks.push(BlockLayout { size, requested, state: *states.choose(rng).unwrap() });
        }
        let segment = SegmentLayout {
            addr: Addr(next),
            stream: *streams.choose(rng).unwrap(),
            pool: if rng.random() { PoolId::DEFAULT } else { pool_id(rng) },
            is_small: rng.random(),
            is_expandable: rng.random(),
            blocks,
        };
        next = segment.span().end().0 + rng.random_range(0..2) * 4096;
        segments.push(segment);
    }
    Layout { segments }
}

fn control(rng: &mut impl Rng, stream: StreamId) -> Control {
    let pool = pool_id(rng);
    let texts = ["", "a:1,b:[x,y]", " lead", "a;b#c", "\"q\" \\ \n\r\t\u{b}", "ü", "x\\n"];
    match rng.random_range(0..19) {
        0 => Control::EmptyPool(if rng.random() { pool } else { PoolId::DEFAULT }),
        // Few digits: serde_json reads more of them only to within one unit in the last place.
        1 => Control::SetFraction(f64::from(rng.random_range(-9_999_i32..99_999)) / 1e4),
        2 => Control::Settings((*texts.choose(rng).unwrap()).to_owned()),
        3 => Control::PoolCreate(pool),
        4 => Control::PoolBegin(pool, rng.random::<bool>().then_some(stream)),
        5 => Control::PoolEnd(pool),
        6 => Control::PoolRelease(pool),
        7 => Control::PoolUseOnOom(pool, rng.random()),
        8 => Control::PoolNoSplit(pool),
        9 => Control::CaptureBegin(stream),
        10 => Control::CaptureEnd(stream),
        11 => Control::Events(EventMode::Ready),
        12 => Control::Events(EventMode::Manual),
        13 => Control::Events(EventMode::Polls(rng.random())),
        14 => Control::Complete(rng.random::<bool>().then_some(stream)),
        15 => Control::External(size(rng)),
        16 => Control::Total(Bytes(rng.random())),
        17 => [Control::ResetPeak, Control::ResetAccumulated].choose(rng).unwrap().clone(),
        _ => Control::Snapshot(rng.random::<bool>().then_some(pool)),
    }
}

fn made_up(seed: u64, ops: usize) -> Trace {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut builder = TraceBuilder::new(DeviceIndex(rng.random_range(0..3)));
    let (mut handles, mut ids) = (vec![StreamHandle(0)], vec![StreamId(0)]);
    for n in 1..rng.random_range(1..5) {
        let mut stream = Stream::numbered(StreamId(n));
        if rng.random_range(0..3) == 0 {
            stream =
                Stream { handle: StreamHandle(rng.random_range(1..1 << 48)), id: rng.random() };
        }
        ids.push(builder.stream(stream).unwrap());
        handles.push(stream.handle);
    }
    if rng.random() {
        builder.pool(PoolId(9, 9)).unwrap();
    }
    let layout = start(rng, &handles);
    let states: Vec<BlockState> =
        layout.segments.iter().flat_map(|s| &s.blocks).map(|b| b.state).collect();
    let active = states.into_iter().filter(|state| *state != BlockState::Inactive);
    let (mut live, mut freed) = (Vec::new(), Vec::new());
    for (id, state) in builder.start(layout).unwrap().iter().zip(active) {
        if state == BlockState::ActiveAllocated { live.push(*id) } else { freed.push(*id) }
    }
    for _ in 0..ops {
        let stream = *ids.choose(rng).unwrap();
        match rng.random_range(0..12) {
            0..4 => {
                let pool = if rng.random() { PoolId::DEFAULT } else { pool_id(rng) };
                let pool = builder.pool(pool).unwrap();
                let id = builder.alloc(size(rng), stream, pool).unwrap();
                if rng.random_bool(0.5) {
                    builder.label(id, ["parameter", "a b", ""].choose(rng).unwrap()).unwrap();
                }
                live.push(id);
            }
            4..7 if !live.is_empty() => {
                let id = live.swap_remove(rng.random_range(0..live.len()));
                builder.free(id, rng.random()).unwrap();
                freed.push(id);
            }
            7 if !freed.is_empty() => {
                let id = freed.swap_remove(rng.random_range(0..freed.len()));
                builder.push(Op::FreeCompleted(id)).unwrap();
            }
            8 if !live.is_empty() => {
                builder.record_stream(*live.choose(rng).unwrap(), stream).unwrap();
            }
            9 => builder.push(Op::EmptyCache).unwrap(),
            _ => builder.control(control(rng, stream)).unwrap(),
        }
    }
    builder.build()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn traces_come_back_as_they_were(seed: u64, ops in 0_usize..200) {
        assert_round_trips(&made_up(seed, ops));
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = script::parse(&text);
        let _ = json::read(text.as_bytes());
    }

    #[test]
    fn nearly_a_script_is_read_or_refused(words in prop::collection::vec(word(), 0..40)) {
        let text = words.join(" ");
        match script::parse(&text) {
            Ok(trace) => assert_round_trips(&trace),
            Err(error) => {
                let line = text.split('\n').nth(error.line - 1).unwrap();
                prop_assert!(error.column <= line.chars().count() + 1);
            }
        }
    }

    #[test]
    fn nearly_a_json_file_is_read_or_refused(seed: u64, at: prop::sample::Index, with: u8) {
        let mut bytes = to_json(&made_up(seed, 20)).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(trace) = json::read(&bytes[..]) {
            let text = script::print(&trace).to_string();
            assert_same(&script::parse(&text).unwrap(), &trace);
        }
    }
}

/// What scripts are made of.
fn word() -> impl Strategy<Value = String> {
    let known = "a b = alloc 3MiB 512 ; \n # free pending completed record_stream empty_cache ( 0 , 1 ) \
        set_fraction 0.5 -1e300 settings \" \\ pool_create pool_begin stream 2 1023 1024 pool_end pool_release use_on_oom \
        on off no_split capture_begin capture_end events ready manual polls complete all external total \
        reset_peak reset_accumulated snapshot device handle id start 0x10 large small expandable pool | . ~ \
        18446744073709551615 é";
    let known: Vec<String> = known.split(' ').map(str::to_owned).collect();
    prop_oneof![
        4 => prop::sample::select(known),
        3 => prop::sample::select(vec![
            "a = alloc 1MiB;".to_owned(),
            "free a;".to_owned(),
            "start 0x1000 large | a 1MiB | . 512;".to_owned(),
            "pool_begin (0,1) stream 2;".to_owned(),
            "settings a:b;".to_owned(),
        ]),
        1 => any::<String>(),
    ]
}

// ---------------------------------------------------------------------------------------------
// The examples that the package ships.

#[test]
fn shipped_examples_say_what_they_show_and_are_read() {
    let mut count = 0;
    for entry in std::fs::read_dir("traces").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "fragsim") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{} begins with what it shows", path.display());
        assert_round_trips(
            &script::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        );
        count += 1;
    }
    assert!(count > 0);
}

/// Every example in `traces/README.md` is read, and every statement in its tables.
#[test]
fn examples_in_the_description_are_read() {
    let readme = include_str!("../traces/README.md");
    let mut blocks = 0;
    for (language, check) in [("fragsim", true), ("jsonl", false)] {
        for block in readme.split(&format!("```{language}\n")).skip(1) {
            let block = block.split("```").next().unwrap();
            let trace = if check {
                script::parse(block).map_err(|e| e.to_string())
            } else {
                json::read(block.as_bytes()).map_err(|e| e.to_string())
            };
            assert_round_trips(&trace.unwrap_or_else(|e| panic!("{e}\n{block}")));
            blocks += 1;
        }
    }
    assert_eq!(blocks, 3);
    let rows = |title: &str| {
        let section = readme.split(title).nth(1).unwrap().split("\n##").next().unwrap();
        let section =
            section.split("\n\n").find(|part| part.trim_start().starts_with('|')).unwrap();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let rows = rows.map(|row| row.split('`').nth(1).unwrap());
        rows.filter(|row| !row.contains('…')).collect::<Vec<_>>()
    };
    let blocks = rows("The blocks tile the segment").join(" | ");
    let text = format!(
        "{}\nstart 0x7f0000000000 large | {blocks}\n{}",
        rows("### Header\n").join("\n"),
        rows("### Operations\n").join("\n")
    );
    assert_eq!(parse(&text).ops().len(), 31, "{text}");
}
