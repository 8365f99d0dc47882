//! The snapshot reader: every bad input gets a clear error, every real file loads.

#![expect(clippy::unwrap_used, reason = "a test's panic is its report; helpers are tests too")]
#![expect(clippy::print_stdout, reason = "says which data is absent and which seed was used")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use expect_test::{Expect, expect};
use fragsim::{
    base::{Addr, Bytes, DeviceIndex, PoolId, Release, StreamHandle},
    source::snapshot::{self, Action, BlockState, Format, SegmentType, Snapshot, Stage},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

// ---- a small pickle writer ---------------------------------------------------------------------

/// A Python value, written as Python's protocol 4 would without its memo.
#[derive(Clone)]
enum Py {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'static str),
    List(Vec<Py>),
    Tuple(Vec<Py>),
    Dict(Vec<(&'static str, Py)>),
    /// Opcodes as they are.
    Raw(Vec<u8>),
}
use Py::{Bool, Dict, Float, Int, List, None as PyNone, Raw, Str, Tuple};

fn write(out: &mut Vec<u8>, value: &Py) {
    match value {
        PyNone => out.push(b'N'),
        Bool(flag) => out.push(if *flag { 0x88 } else { 0x89 }),
        Int(n) if (0..256).contains(n) => out.extend([b'K', u8::try_from(*n).unwrap()]),
        Int(n) if (0..65536).contains(n) => {
            out.push(b'M');
            out.extend(u16::try_from(*n).unwrap().to_le_bytes());
        }
        Int(n) if i32::try_from(*n).is_ok() => {
            out.push(b'J');
            out.extend(i32::try_from(*n).unwrap().to_le_bytes());
        }
        Int(n) => {
            let bytes = n.to_le_bytes();
            let length = if i64::try_from(*n).is_ok() { 8 } else { 9 };
            out.extend([0x8a, length]);
            out.extend(&bytes[..usize::from(length)]);
        }
        Float(x) => {
            out.push(b'G');
            out.extend(x.to_be_bytes());
        }
        Str(text) => {
            out.extend([0x8c, u8::try_from(text.len()).unwrap()]);
            out.extend(text.as_bytes());
        }
        List(items) => {
            out.extend(b"](");
            items.iter().for_each(|item| write(out, item));
            out.push(b'e');
        }
        Tuple(items) => {
            out.push(b'(');
            items.iter().for_each(|item| write(out, item));
            out.push(b't');
        }
        Dict(pairs) => {
            out.extend(b"}(");
            for (key, value) in pairs {
                write(out, &Str(key));
                write(out, value);
            }
            out.push(b'u');
        }
        Raw(bytes) => out.extend(bytes),
    }
}

fn pickle(value: &Py) -> Vec<u8> {
    let mut out = vec![0x80, 4];
    write(&mut out, value);
    out.push(b'.');
    out
}

/// Replaces, adds or (with `None`) removes a key of a dict.
fn with(value: &Py, key: &'static str, to: impl Into<Option<Py>>) -> Py {
    let Dict(pairs) = value else { panic!("not a dict") };
    let mut pairs: Vec<_> = pairs.iter().filter(|(k, _)| *k != key).cloned().collect();
    if let Some(to) = to.into() {
        pairs.push((key, to));
    }
    Dict(pairs)
}

// ---- pieces of snapshots -----------------------------------------------------------------------

fn frames() -> Py {
    List(vec![Dict(vec![
        ("name", Str("forward")),
        ("filename", Str("model.py")),
        ("line", Int(7)),
    ])])
}

fn entry(action: &'static str, addr: i128, size: i128) -> Py {
    Dict(vec![
        ("action", Str(action)),
        ("addr", Int(addr)),
        ("size", Int(size)),
        ("stream", Int(0)),
        ("time_us", Int(1_700_000_000_000_000)),
        ("frames", frames()),
    ])
}

fn block(address: i128, size: i128, state: &'static str) -> Py {
    Dict(vec![
        ("address", Int(address)),
        ("size", Int(size)),
        ("requested_size", Int(size - 12)),
        ("state", Str(state)),
        ("frames", frames()),
    ])
}

const BASE: i128 = 0x7f00_0000_0000;
const MIB: i128 = 1 << 20;

fn segment(address: i128, blocks: Vec<Py>) -> Py {
    Dict(vec![
        ("device", Int(0)),
        ("address", Int(address)),
        ("total_size", Int(2 * MIB)),
        ("allocated_size", Int(MIB)),
        ("active_size", Int(MIB)),
        ("requested_size", Int(MIB - 12)),
        ("stream", Int(0)),
        ("segment_type", Str("small")),
        ("segment_pool_id", Tuple(vec![Int(0), Int(0)])),
        ("is_expandable", Bool(false)),
        ("frames", List(vec![])),
        ("blocks", List(blocks)),
    ])
}

fn two_blocks() -> Vec<Py> {
    vec![block(BASE, MIB, "active_allocated"), block(BASE + MIB, MIB, "inactive")]
}

fn snapshot_of(segments: Vec<Py>, trace: Vec<Py>) -> Py {
    Dict(vec![("segments", List(segments)), ("device_traces", List(vec![List(trace)]))])
}

fn small() -> Py {
    let trace = vec![
        entry("segment_alloc", BASE, 2 * MIB),
        entry("alloc", BASE, MIB - 12),
        Dict(vec![
            ("action", Str("oom")),
            ("device_free", Int(77)),
            ("size", Int(512)),
            ("stream", Int(u64::MAX.into())),
        ]),
    ];
    snapshot_of(vec![segment(BASE, two_blocks())], trace)
}

fn read(bytes: &[u8]) -> Result<Snapshot, String> {
    snapshot::read(bytes).map_err(|error| error.to_string())
}

fn read_py(value: &Py) -> Result<Snapshot, String> {
    read(&pickle(value))
}

#[expect(clippy::needless_pass_by_value, reason = "reads as a table of cases")]
fn refuses(bytes: impl AsRef<[u8]>, expected: Expect) {
    expected.assert_eq(&read(bytes.as_ref()).expect_err("must be refused"));
}

// ---- what is read ------------------------------------------------------------------------------

#[test]
fn a_small_snapshot_is_read_whole() {
    let snapshot = read_py(&small()).unwrap();
    assert_eq!(snapshot.format, Format::Current);
    assert_eq!((snapshot.devices(), snapshot.entries()), (1, 3));
    let segment = &snapshot.segments[0];
    assert_eq!(segment.device, DeviceIndex(0));
    assert_eq!((segment.address, segment.total_size), (Addr(0x7f00_0000_0000), Bytes::mib(2)));
    assert_eq!(segment.segment_type, SegmentType::Small);
    assert_eq!(segment.pool_id, Some(PoolId::DEFAULT));
    assert_eq!((segment.is_expandable, segment.stack), (Some(false), None));
    assert_eq!(segment.blocks[0].requested_size, Some(Bytes((1 << 20) - 12)));
    assert_eq!(segment.blocks[1].state, BlockState::Inactive);

    let [_, alloc, oom] = snapshot.traces[0][..] else { panic!("three entries") };
    assert_eq!((alloc.action, alloc.addr), (Action::Alloc, segment.address));
    assert_eq!(alloc.time_us.map(i64::from), Some(1_700_000_000_000_000));
    assert_eq!(alloc.device_free(), None);
    assert_eq!(oom.device_free(), Some(Bytes(77)));
    assert_eq!(snapshot.site(&oom).stream, StreamHandle(u64::MAX));
    assert_eq!((snapshot.stack_of(&oom), oom.context, oom.time_us), (None, None, None));
    let frames: Vec<_> = snapshot.stack(snapshot.stack_of(&alloc).unwrap()).collect();
    assert_eq!(snapshot.text(frames[0].filename.unwrap()), "model.py");
    assert_eq!(frames[0].line, 7);
    assert!(snapshot.warnings.is_empty(), "{:?}", snapshot.warnings);
}

#[test]
fn equal_stacks_are_one_stack_but_each_list_is_its_own_context() {
    let snapshot = read_py(&small()).unwrap();
    let [first, second, _] = snapshot.traces[0][..] else { panic!("three entries") };
    assert_eq!(snapshot.stack_of(&first), snapshot.stack_of(&second));
    assert_ne!(first.context, second.context);

    // Memo 0 is one list of frames that both entries name.
    let mut shared = vec![0x94];
    let mut list = Vec::new();
    write(&mut list, &frames());
    list.append(&mut shared);
    let one = with(&entry("alloc", BASE, 8), "frames", Raw(list));
    let two = with(&entry("free_requested", BASE, 8), "frames", Raw(b"h\x00".to_vec()));
    let snapshot = read_py(&snapshot_of(vec![], vec![one, two])).unwrap();
    let [first, second] = snapshot.traces[0][..] else { panic!("two entries") };
    assert_eq!(first.context, second.context);
    assert!(first.context.is_some());
}

#[test]
fn the_format_of_1_13_is_a_bare_list_with_histories() {
    let history = |real| {
        List(vec![
            Dict(vec![("addr", Int(BASE)), ("real_size", Int(real)), ("frames", frames())]),
            Dict(vec![("addr", Int(BASE)), ("real_size", Int(1)), ("frames", frames())]),
        ])
    };
    let block = |state, real: Option<i128>| {
        let mut pairs = vec![("size", Int(MIB)), ("state", Str(state))];
        pairs.extend(real.map(|real| ("history", history(real))));
        Dict(pairs)
    };
    let old = Dict(vec![
        ("device", Int(1)),
        ("address", Int(BASE)),
        ("total_size", Int(3 * MIB)),
        ("allocated_size", Int(MIB)),
        ("active_size", Int(2 * MIB)),
        ("stream", Int(0)),
        ("segment_type", Str("large")),
        (
            "blocks",
            List(vec![
                block("active_allocated", Some(1000)),
                block("active_awaiting_free", Some(2000)),
                block("inactive", None),
            ]),
        ),
    ]);
    let snapshot = read_py(&List(vec![old.clone()])).unwrap();
    assert_eq!(snapshot.format, Format::List);
    assert_eq!(snapshot.devices(), 2);
    let blocks = &snapshot.segments[0].blocks;
    assert_eq!(blocks[0].requested_size, Some(Bytes(1000)));
    assert!(blocks[0].stack.is_some());
    assert_eq!(blocks[1].state, BlockState::ActivePendingFree);
    assert_eq!(blocks[1].address, Addr(0x7f00_0010_0000));
    assert_eq!(blocks[2].requested_size, None);

    let snapshot = read_py(&Dict(vec![("segments", List(vec![old]))])).unwrap();
    assert_eq!(snapshot.format, Format::History);
    assert_eq!(snapshot.release_range(), (Release::OLDEST, Release::OLDEST));
}

fn settings() -> Py {
    const BOUNDARIES: [&str; 16] = [
        "1", "2", "4", "8", "16", "32", "64", "128", "256", "512", "1024", "2048", "4096", "8192",
        "16384", "32768",
    ];
    Dict(vec![
        ("PYTORCH_CUDA_ALLOC_CONF", Str("max_split_size_mb:64")),
        ("max_split_size", Int(64 * MIB)),
        ("garbage_collection_threshold", Float(0.75)),
        ("expandable_segments", Bool(true)),
        ("pinned_num_register_threads", Int(1)),
        ("release_lock_on_cudamalloc", Bool(false)),
        ("pinned_use_cuda_host_register", Bool(false)),
        (
            "roundup_power2_divisions",
            Dict((0..).zip(BOUNDARIES).map(|(n, boundary)| (boundary, Int(n))).collect()),
        ),
    ])
}

#[test]
fn settings_and_annotations_are_read() {
    let annotation = Dict(vec![
        ("name", Str("Optimizer.step#SGD.step")),
        ("stage", Str("START")),
        ("device", Int(0)),
        ("time_us", Int(5)),
    ]);
    let value = with(&small(), "allocator_settings", settings());
    let value = with(&value, "external_annotations", List(vec![annotation]));
    let snapshot = read_py(&value).unwrap();
    let settings = snapshot.settings.as_ref().unwrap();
    assert_eq!(settings.conf.as_deref(), Some("max_split_size_mb:64"));
    assert_eq!(settings.max_split_size, Some(64 << 20));
    assert_eq!(settings.garbage_collection_threshold, Some(0.75));
    assert_eq!(settings.expandable_segments, Some(true));
    assert_eq!(
        settings.roundup_power2_divisions,
        Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    );
    assert_eq!(settings.max_round_threshold, None);
    assert_eq!(snapshot.annotations[0].stage, Some(Stage::Start));
    assert_eq!(snapshot.text(snapshot.annotations[0].name.unwrap()), "Optimizer.step#SGD.step");
}

#[test]
fn the_release_is_guessed_from_the_keys() {
    let range = |value: &Py| {
        let (oldest, newest) = read_py(value).unwrap().release_range();
        format!("{oldest} to {newest}")
    };
    let idle = snapshot_of(vec![segment(BASE, two_blocks())], vec![]);
    assert_eq!(range(&idle), "2.1 to 2.2");
    assert_eq!(range(&small()), "2.2 to 2.2");
    let with_settings = with(&small(), "allocator_settings", settings());
    assert_eq!(range(&with_settings), "2.3 to 2.4");
    let annotated = with(&with_settings, "external_annotations", List(vec![]));
    assert_eq!(range(&annotated), "2.5 to 2.7");
    let reuse = with(&settings(), "graph_capture_record_stream_reuse", Bool(false));
    let idle = with(&annotated, "allocator_settings", reuse.clone());
    let idle = with(&idle, "device_traces", List(vec![List(vec![])]));
    assert_eq!(range(&idle), "2.9 to 2.12");
    let modern = with(&entry("alloc", BASE, 8), "compile_context", Str("N/A"));
    let of = |entry: &Py| with(&idle, "device_traces", List(vec![List(vec![entry.clone()])]));
    assert_eq!(range(&of(&modern)), "2.9 to 2.9");
    let modern = with(&modern, "user_metadata", Str(""));
    assert_eq!(range(&of(&modern)), "2.10 to 2.11");
    let modern = with(&modern, "pool_id", Tuple(vec![Int(0), Int(3)]));
    assert_eq!(range(&of(&modern)), "2.12 to 2.12");
    let snapshot = read_py(&of(&modern)).unwrap();
    assert_eq!(snapshot.pool(&snapshot.traces[0][0]), Some(PoolId(0, 3)));
    let host = with(&of(&modern), "host_segments", List(vec![]));
    let newest = with(&reuse, "max_round_threshold", Int(-1));
    assert_eq!(range(&with(&host, "allocator_settings", newest)), "2.14 to 2.15");
}

#[test]
fn unknown_keys_are_named_once_and_otherwise_ignored() {
    let odd = |value: &Py| with(value, "novelty", List(vec![Dict(vec![("deep", PyNone)])]));
    let blocks: Vec<Py> = two_blocks().iter().map(odd).collect();
    let trace = vec![odd(&entry("alloc", BASE, 8)), odd(&entry("alloc", BASE, 8))];
    let snapshot = read_py(&odd(&snapshot_of(vec![odd(&segment(BASE, blocks))], trace))).unwrap();
    expect![[r"
        unknown key 'novelty' of a snapshot is ignored
        unknown key 'novelty' of a segment is ignored
        unknown key 'novelty' of a block is ignored
        unknown key 'novelty' of a trace entry is ignored"]]
    .assert_eq(&snapshot.warnings.join("\n"));
}

#[test]
fn a_trace_in_several_batches_and_on_several_devices_keeps_its_order() {
    // APPENDS come in batches of 1,000; the first batch is there before the second is read.
    let mut list = b"]".to_vec();
    for batch in 0..3 {
        list.push(b'(');
        for n in 0..1000 {
            write(&mut list, &entry("alloc", BASE + batch * 1000 + n, 8));
        }
        list.push(b'e');
    }
    let traces = List(vec![Raw(list), List(vec![]), List(vec![entry("snapshot", 0, 5)])]);
    let value = Dict(vec![("segments", List(vec![])), ("device_traces", traces)]);
    let snapshot = read_py(&value).unwrap();
    assert_eq!(snapshot.traces.iter().map(Vec::len).collect::<Vec<_>>(), [3000, 0, 1]);
    assert!(
        snapshot.traces[0].iter().zip(0x7f00_0000_0000..).all(|(e, addr)| e.addr == Addr(addr))
    );
    assert_eq!(snapshot.traces[2][0].action, Action::Snapshot);
}

// ---- opcodes -----------------------------------------------------------------------------------

/// What the opcodes in the place of a settings value read as.
fn as_conf(opcodes: &[u8]) -> Result<String, String> {
    let value = Dict(vec![
        ("segments", List(vec![])),
        ("allocator_settings", Dict(vec![("PYTORCH_CUDA_ALLOC_CONF", Raw(opcodes.to_vec()))])),
    ]);
    read_py(&value).map(|s| s.settings.unwrap().conf.unwrap_or_default())
}

fn as_split(opcodes: &[u8]) -> Result<i64, String> {
    let value = Dict(vec![
        ("segments", List(vec![])),
        ("allocator_settings", Dict(vec![("max_split_size", Raw(opcodes.to_vec()))])),
    ]);
    read_py(&value).map(|s| s.settings.unwrap().max_split_size.unwrap())
}

#[test]
fn whole_numbers_of_every_opcode() {
    for (opcodes, expected) in [
        (&b"K\xff"[..], 255),
        (b"M\xff\xff", 65535),
        (b"J\xff\xff\xff\xff", -1),
        (b"\x8a\x00", 0),
        (b"\x8a\x02\xff\x00", 255),
        (b"\x8a\x01\x80", -128),
        (b"\x8a\x06\x00\x00\x00\x00\x00\x7f", 0x7f00_0000_0000),
        (b"\x8b\x02\x00\x00\x00\x00\x80", -32768),
        // 2^64 - 1 in nine bytes is how some releases write -1.
        (b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00", -1),
        (b"I-12\n", -12),
        (b"L34L\n", 34),
    ] {
        assert_eq!(as_split(opcodes), Ok(expected), "{opcodes:x?}");
    }
}

#[test]
fn texts_of_every_opcode() {
    for opcodes in [
        &b"\x8c\x02ab"[..],
        b"X\x02\x00\x00\x00ab",
        b"\x8d\x02\x00\x00\x00\x00\x00\x00\x00ab",
        b"U\x02ab",
        b"T\x02\x00\x00\x00ab",
        b"Vab\n",
        b"V\\u0061\\U00000062\n",
        b"S'ab'\n",
        b"\x8c\x02ab20",
        b"\x8c\x02ab\x940h\x00",
        b"\x8c\x02abq\x070h\x07",
        b"\x8c\x02abr\x07\x00\x00\x000j\x07\x00\x00\x00",
        b"\x8c\x02abp7\n0g7\n",
        b"\x8c\x02abr\xff\xff\xff\xff0j\xff\xff\xff\xff",
        b"(K\x01K\x021\x8c\x02ab",
        b"\x95\x04\x00\x00\x00\x00\x00\x00\x00\x8c\x02ab",
    ] {
        assert_eq!(as_conf(opcodes).as_deref(), Ok("ab"), "{opcodes:x?}");
    }
    // A lone surrogate and Latin-1 by protocol 0.
    assert_eq!(as_conf(b"\x8c\x03\xed\xb2\x80").as_deref(), Ok("\u{fffd}\u{fffd}\u{fffd}"));
    assert_eq!(as_conf(b"V\xe9\n").as_deref(), Ok("é"));
}

#[test]
fn plain_data_that_no_snapshot_needs_is_passed_over() {
    for opcodes in [
        &b"N"[..],
        b"C\x02ab",
        b"B\x02\x00\x00\x00ab",
        b"\x8e\x02\x00\x00\x00\x00\x00\x00\x00ab",
        b"\x96\x02\x00\x00\x00\x00\x00\x00\x00ab",
        b"\x8f(K\x01K\x02\x90",
        b"(K\x01\x91",
        b"G\x40\x00\x00\x00\x00\x00\x00\x00",
        b"F2.5\n",
        b"I01\n",
        b")",
        b"K\x01\x85",
        b"K\x01K\x02\x86",
        b"K\x01K\x02K\x03\x87",
        b"(K\x01K\x02K\x03K\x04t",
        b"(lK\x01a",
        b"(dK\x01K\x02s",
        b"(K\x01K\x02d",
    ] {
        let value = with(&small(), "novelty", Raw(opcodes.to_vec()));
        assert_eq!(read_py(&value).map(|s| s.entries()), Ok(3), "{opcodes:x?}");
    }
}

#[test]
fn protocol_0_builds_dicts_key_by_key() {
    let frame = "(lp9\n(dp8\nVname\nVf\nsVfilename\nVm.py\nsVline\nI3\nsa";
    let text = format!(
        "(dp0\nVdevice_traces\n(lp1\n(lp2\n(dp3\nVsize\nL512L\nsVaddr\nI4096\nsVstream\nI0\ns\
         Vframes\n{frame}sVaction\nValloc\nsaasVsegments\n(lp4\ns."
    );
    let snapshot = read(text.as_bytes()).unwrap();
    let entry = snapshot.traces[0][0];
    assert_eq!((entry.action, entry.addr, entry.size), (Action::Alloc, Addr(4096), Bytes(512)));
    assert_eq!(snapshot.stack(snapshot.stack_of(&entry).unwrap()).next().unwrap().line, 3);
}

#[test]
fn the_cpp_writer_memoizes_after_filling() {
    let mut bytes = b"\x80\x02}q\x00(".to_vec();
    write(&mut bytes, &Str("segments"));
    bytes.extend(b"]q\x01");
    write(&mut bytes, &Str("device_traces"));
    bytes.extend(b"](](");
    for frames in [&b"](}(X\x04\x00\x00\x00nameq\x02X\x01\x00\x00\x00fX\x08\x00\x00\x00filenameX\x01\x00\x00\x00muq\x03eq\x04"[..], b"h\x04"] {
        write(&mut bytes, &with(&entry("alloc", BASE, 8), "frames", Raw(frames.to_vec())));
        bytes.extend(b"q\x05");
    }
    bytes.extend(b"eeu.");
    let snapshot = read(&bytes).unwrap();
    assert_eq!(snapshot.traces[0][0].context, snapshot.traces[0][1].context);
    assert!(snapshot.traces[0][0].context.is_some());
}

// ---- what is refused ---------------------------------------------------------------------------

#[test]
fn what_is_no_pickle_is_told() {
    refuses(
        b"",
        expect!["byte 0: the input is empty; was the program stopped before it wrote the file?"],
    );
    refuses(
        b"{\"segments\": []}",
        expect![
            "byte 0: not a pickle (it starts with 0x7b); name a file written by torch.cuda.memory._dump_snapshot"
        ],
    );
    refuses(
        b"\x80\x09",
        expect!["byte 0: pickle protocol 9 is not known; protocols 0 to 5 are read"],
    );
    refuses(
        b"\x80\x04\xff",
        expect!["byte 2: 0xff is no pickle opcode: the file is damaged or not a pickle"],
    );
    refuses(
        b"\x80\x04K\x05.",
        expect!["the snapshot: is a whole number; expected a dict with 'segments'"],
    );
    refuses(pickle(&Dict(vec![])), expect!["the snapshot: has no key 'segments'"]);
    refuses(
        b"\x80\x04.",
        expect!["byte 2: the opcode needs a value, but none is there: the file is damaged"],
    );
}

#[test]
fn a_cut_file_is_an_error_at_every_length() {
    let mut packed = pickle(&with(&small(), "allocator_settings", settings()));
    assert!(read(&packed).is_ok());
    while packed.pop().is_some() {
        let error = read(&packed).expect_err("a prefix is no snapshot");
        let expected = if packed.is_empty() { "is empty" } else { "the file was cut" };
        assert!(error.contains(expected), "{}: {error}", packed.len());
        assert!(error.starts_with(&format!("byte {}: ", packed.len())), "{error}");
    }
}

#[test]
fn opcodes_that_would_run_code_are_refused_with_their_name() {
    refuses(
        b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.",
        expect![
            "byte 2: opcode GLOBAL (os.system) would run code; a memory snapshot holds plain data only"
        ],
    );
    refuses(
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        expect![
            "byte 14: opcode STACK_GLOBAL (os.system) would run code; a memory snapshot holds plain data only"
        ],
    );
    refuses(
        b"\x80\x04K\x01)R.",
        expect!["byte 5: opcode REDUCE would run code; a memory snapshot holds plain data only"],
    );
    refuses(
        b"(ios\nsystem\n.",
        expect![
            "byte 1: opcode INST (os.system) would run code; a memory snapshot holds plain data only"
        ],
    );
    for opcode in b"bo\x81\x92\x82\x83\x84PQ\x97\x98" {
        let error = read(&[0x80, 4, *opcode]).unwrap_err();
        assert!(error.starts_with("byte 2: opcode ") && error.contains("run code"), "{error}");
    }
}

#[test]
fn claims_are_not_believed() {
    // A list of a thousand million items is one byte that never comes.
    refuses(
        b"\x80\x04](K\x01",
        expect!["byte 6: the pickle ends early: the file was cut; copy or record it again"],
    );
    refuses(
        b"\x80\x04X\xff\xff\xff\x7fab",
        expect!["byte 2: a text of 2147483647 bytes: at most 16777216 are read"],
    );
    refuses(
        b"\x80\x04X\xff\xff\xff\x00ab",
        expect!["byte 9: the pickle ends early: the file was cut; copy or record it again"],
    );
    refuses(
        b"\x80\x04\x8b\x00\x00\x00\x80",
        expect!["byte 2: a whole number of 2147483648 bytes does not fit 64 bits"],
    );
    refuses(
        b"\x80\x04\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xff.",
        expect!["byte 2: a whole number of 9 bytes does not fit 64 bits"],
    );
    refuses(
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xffab",
        expect!["byte 13: the pickle ends early: the file was cut; copy or record it again"],
    );
    refuses(b"\x80\x04T\xff\xff\xff\xff", expect!["byte 2: a length of -1"]);
    refuses(
        b"\x80\x04h\x05.",
        expect!["byte 2: memo number 5 was never given: the file is damaged"],
    );
}

#[test]
fn depth_is_bounded_where_it_costs() {
    let mut nested = b"\x80\x04".to_vec();
    nested.extend(b"](".repeat(1000));
    nested.extend(b"e".repeat(1000));
    nested.push(b'.');
    refuses(
        &nested,
        expect!["byte 1027: more than 512 containers inside each other; a snapshot has eight"],
    );
    // Without marks depth costs nothing here, and the contents are refused.
    let mut nested = b"\x80\x04".to_vec();
    nested.extend(b"]".repeat(1000));
    nested.extend(b"a".repeat(999));
    nested.push(b'.');
    refuses(&nested, expect!["[0]: is a list; expected a segment"]);
}

#[test]
fn cycles_and_bombs_end() {
    // A list that holds itself.
    refuses(b"\x80\x04]\x94h\x00a.", expect!["[0]: is a list; expected a segment"]);
    // A segment whose blocks are the list of segments.
    let cycle = with(&segment(BASE, vec![]), "blocks", Raw(b"h\x00".to_vec()));
    let mut bytes = b"\x80\x04]\x94".to_vec();
    write(&mut bytes, &cycle);
    bytes.extend(b"a.");
    refuses(&bytes, expect!["[0].blocks: is a list that stands elsewhere in the snapshot too"]);
    // An entry whose frames hold the entry.
    let mut bytes = b"\x80\x04}(".to_vec();
    write(&mut bytes, &Str("segments"));
    write(&mut bytes, &List(vec![]));
    write(&mut bytes, &Str("device_traces"));
    bytes.extend(b"](](}\x94(");
    for (key, value) in [("action", Str("alloc")), ("frames", Raw(b"](h\x00e".to_vec()))] {
        write(&mut bytes, &Str(key));
        write(&mut bytes, &value);
    }
    bytes.extend(b"ueeu.");
    refuses(&bytes, expect!["device_traces[0][0].frames: is a list; expected a list of frames"]);
    // A list of two of a list of two of ..: 2^30 items if it were expanded.
    let mut bomb = vec![b']', 0x94];
    for level in 0..30 {
        bomb.extend([b']', 0x94, b'(', b'h', level, b'h', level, b'e']);
    }
    let mut wrapped = b"(".to_vec();
    wrapped.extend(bomb);
    wrapped.push(b't');
    let value = with(&small(), "novelty", Raw(wrapped));
    assert_eq!(read_py(&value).map(|s| s.entries()), Ok(3));
}

#[test]
fn sharing_does_not_multiply() {
    let mut shared = Vec::new();
    write(&mut shared, &segment(BASE, two_blocks()));
    shared.push(0x94);
    let twice = snapshot_of(vec![Raw(shared), Raw(b"h\x00".to_vec())], vec![]);
    refuses(
        pickle(&twice),
        expect!["segments[1]: is an object that stands elsewhere in the snapshot too"],
    );
    let mut shared = Vec::new();
    write(&mut shared, &List(vec![entry("alloc", BASE, 8)]));
    shared.push(0x94);
    let traces = List(vec![Raw(shared), Raw(b"h\x00".to_vec())]);
    let twice = with(&small(), "device_traces", traces);
    refuses(
        pickle(&twice),
        expect!["device_traces[1]: is a list that stands elsewhere in the snapshot too"],
    );
}

#[test]
fn wrong_entries_are_named_by_their_place() {
    let good = entry("alloc", BASE, 8);
    let trace = |bad: Py| pickle(&snapshot_of(vec![], vec![good.clone(), bad]));
    refuses(
        trace(with(&good, "size", Int(-5))),
        expect!["device_traces[0][1].size: is -5; it cannot be negative"],
    );
    refuses(
        trace(with(&good, "size", Int(1 << 60))),
        expect!["device_traces[0][1].size: is 1152921504606846976; sizes are below 2^60"],
    );
    refuses(
        trace(with(&good, "addr", Str("0x10"))),
        expect!["device_traces[0][1].addr: is text; expected a whole number"],
    );
    refuses(
        trace(with(&good, "action", Str("free"))),
        expect!["device_traces[0][1].action: 'free' is no action that an allocator records"],
    );
    refuses(
        trace(with(&good, "stream", None)),
        expect!["device_traces[0][1]: has no key 'stream'"],
    );
    refuses(
        trace(with(&good, "action", None)),
        expect!["device_traces[0][1]: has no key 'action'"],
    );
    refuses(
        trace(with(&good, "action", Str("oom"))),
        expect!["device_traces[0][1]: has no key 'device_free'"],
    );
    refuses(
        trace(with(&good, "frames", List(vec![Int(3)]))),
        expect!["device_traces[0][1].frames: is a list; expected a list of frames"],
    );
    refuses(
        trace(with(&good, "pool_id", Int(3))),
        expect!["device_traces[0][1].pool_id: is a whole number; expected a pair of numbers"],
    );
    refuses(
        trace(Int(3)),
        expect!["device_traces[0][1]: is a whole number; expected a trace entry"],
    );
    refuses(
        pickle(&with(&small(), "device_traces", Int(1))),
        expect!["device_traces: is a whole number; expected a list"],
    );
}

#[test]
fn wrong_segments_are_named_by_their_place() {
    let of = |segment: Py| pickle(&snapshot_of(vec![segment], vec![]));
    let good = segment(BASE, two_blocks());
    refuses(
        of(with(&good, "total_size", Int(-1))),
        expect!["segments[0].total_size: is -1; it cannot be negative"],
    );
    refuses(of(with(&good, "blocks", None)), expect!["segments[0]: has no key 'blocks'"]);
    refuses(
        of(with(&good, "segment_type", Str("huge"))),
        expect!["segments[0].segment_type: is 'huge'; expected 'small' or 'large'"],
    );
    refuses(
        of(with(&good, "device", Int(256))),
        expect!["segments[0].device: is 256; devices are 0 to 255"],
    );
    refuses(
        of(with(&good, "is_expandable", Str("yes"))),
        expect!["segments[0].is_expandable: is text; expected a bool"],
    );
    refuses(of(entry("alloc", 1, 2)), expect!["segments[0]: is a trace entry; expected a segment"]);
    refuses(
        of(with(&good, "total_size", Int(3 * MIB))),
        expect![
            "segments[0].blocks: the blocks of the segment at 0x7f0000000000 add up to 2097152 bytes, but its total_size is 3145728; this is no state of an allocator: the file was made up by a tool, or edited"
        ],
    );
    let overlap = vec![block(BASE, MIB, "inactive"), block(BASE + 512, MIB, "inactive")];
    refuses(
        of(segment(BASE, overlap)),
        expect![
            "segments[0].blocks[1]: the block at 0x7f0000000200 overlaps the one before it by 1048064 bytes"
        ],
    );
    let gap = vec![block(BASE, 512, "inactive"), block(BASE + MIB, MIB, "inactive")];
    refuses(
        of(segment(BASE, gap)),
        expect![
            "segments[0].blocks[1]: the block at 0x7f0000100000 leaves a gap of 1048064 bytes; blocks tile their segment"
        ],
    );
    let empty = vec![with(&block(BASE, MIB, "inactive"), "size", Int(0))];
    refuses(
        of(segment(BASE, empty)),
        expect!["segments[0].blocks[0].size: is 0; a block holds at least one byte"],
    );
    let state = vec![with(&block(BASE, MIB, "inactive"), "state", Str("asleep"))];
    refuses(
        of(segment(BASE, state)),
        expect![
            "segments[0].blocks[0].state: is 'asleep'; expected active_allocated, active_pending_free or inactive"
        ],
    );
    let neighbours = vec![
        good.clone(),
        segment(
            BASE + MIB,
            vec![block(BASE + MIB, MIB, "inactive"), block(BASE + 2 * MIB, MIB, "inactive")],
        ),
    ];
    refuses(
        pickle(&snapshot_of(neighbours, vec![])),
        expect![
            "segments[1]: the segment at 0x7f0000100000 overlaps the one at 0x7f0000000000 (cuda:0)"
        ],
    );
}

#[test]
fn flipped_bytes_never_panic() {
    const SEED: u64 = 20_240_607;
    println!("seed {SEED}");
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let good = pickle(&with(&small(), "allocator_settings", settings()));
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        accepted += usize::from(read(&bytes).is_ok());
    }
    // Most flips hit names and numbers that nothing checks, or break the file.
    assert!(accepted > 0);
    for _ in 0..20_000 {
        let length = random.random_range(0..200);
        let noise: Vec<u8> = (0..length).map(|_| random.random()).collect();
        let _ = read(&noise);
        // Opcodes only: deeper than noise.
        let opcodes = b"(]}ue.asthjKMX\x94\x8c\x8a\x85\x86\x87)0125NGqrpgldILFVS\x90\x91\x8f";
        let noise: Vec<u8> =
            noise.iter().map(|b| opcodes[usize::from(*b) % opcodes.len()]).collect();
        let _ = read(&noise);
    }
}

// ---- real files --------------------------------------------------------------------------------

fn shared_data() -> Option<PathBuf> {
    let shared = std::env::var_os("FRAGSIM_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let data = shared.join("data");
    if data.is_dir() {
        return Some(data);
    }
    println!("{} is absent: real files are not read", data.display());
    None
}

fn pickles(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".pickle.gz"))
        .collect();
    files.sort();
    files
}

/// Counts of entries by action, as the `.json` beside a recording has them.
fn actions(snapshot: &Snapshot) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for entry in snapshot.traces.iter().flatten() {
        *counts.entry(entry.action.name()).or_default() += 1;
    }
    counts
}

#[test]
fn recordings_load_and_hold_the_entries_that_were_counted() {
    let Some(data) = shared_data() else { return };
    let folders = ["recorded", "recorded/t215", "matrix", "matrix/t211", "matrix/t215"];
    let (mut files, mut compared) = (0, 0);
    for path in folders.iter().flat_map(|folder| pickles(&data.join(folder))) {
        let snapshot = snapshot::load(&path).unwrap_or_else(|error| panic!("{error}"));
        files += 1;
        assert!(snapshot.warnings.is_empty(), "{}: {:?}", path.display(), snapshot.warnings);
        let is_215 = path.to_string_lossy().contains("t215");
        let newest = snapshot.release_range();
        let range = format!("{} to {}", newest.0, newest.1);
        assert_eq!(
            range,
            if is_215 { "2.14 to 2.15" } else { "2.10 to 2.11" },
            "{}",
            path.display()
        );
        // `graphs` was taken halfway; the counts are of `graphs_end`, at the end of the program.
        let name = path.to_string_lossy().replace(".pickle.gz", "");
        let halfway = name.ends_with("/graphs");
        let beside = format!("{}.json", name.trim_end_matches("_end"));
        let Ok(text) = fs::read_to_string(beside) else { continue };
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let Some(expected) = json["actions"].as_object() else { continue };
        let mut expected: BTreeMap<&str, u64> =
            expected.iter().map(|(k, v)| (k.as_str(), v.as_u64().unwrap())).collect();
        // The counts were taken after the snapshot, which does not hold its own mark.
        let found = actions(&snapshot);
        if expected.get("snapshot") == Some(&(found.get("snapshot").unwrap_or(&0) + 1)) {
            match found.get("snapshot") {
                Some(&marks) => expected.insert("snapshot", marks),
                None => expected.remove("snapshot"),
            };
        }
        if halfway {
            let is_part = |(action, count): (&&str, &u64)| expected.get(action) >= Some(count);
            assert!(found.iter().all(is_part), "{found:?} is not part of {expected:?}");
            continue;
        }
        assert_eq!(found, expected, "{}", path.display());
        compared += 1;
    }
    println!("{files} recordings, {compared} compared");
    assert!(compared > 10);
}

#[test]
fn scenarios_load() {
    let Some(data) = shared_data() else { return };
    for path in pickles(&data.join("scenarios")) {
        let snapshot = snapshot::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert!(snapshot.warnings.is_empty(), "{}: {:?}", path.display(), snapshot.warnings);
    }
}

#[test]
fn public_snapshots_load_except_the_invented_one() {
    let Some(data) = shared_data() else { return };
    let text = fs::read_to_string(data.join("public/CATALOG.json")).unwrap();
    let catalog: serde_json::Value = serde_json::from_str(&text).unwrap();
    for record in catalog.as_array().unwrap() {
        let file = record["file"].as_str().unwrap();
        let path = data.join("public").join(format!("{file}.gz"));
        let loaded = snapshot::load(&path);
        if file.starts_with("facebookresearch__mosaic__") {
            // Random numbers in the shape of a snapshot: blocks of 1 KiB in a segment of 50 MiB.
            let error = loaded.unwrap_err().to_string();
            assert!(error.contains("segments[0].blocks: the blocks of the segment at"), "{error}");
            continue;
        }
        let snapshot = loaded.unwrap_or_else(|error| panic!("{error}"));
        let (oldest, newest) = snapshot.release_range();
        println!("{file}: {oldest} to {newest}, {:?}", snapshot.warnings);
        assert!(oldest <= newest);
        assert_eq!(Some(snapshot.segments.len() as u64), record["segments"].as_u64(), "{file}");
        let expected: BTreeMap<&str, u64> = record["actions"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_u64().unwrap()))
            .collect();
        assert_eq!(actions(&snapshot), expected, "{file}");
    }
}

#[test]
fn a_cut_recording_says_so() {
    let Some(data) = shared_data() else { return };
    let whole = fs::read(data.join("recorded/mlp.pickle.gz")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.pickle.gz");
    fs::write(&path, &whole[..3000]).unwrap();
    let error = snapshot::load(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("the gzip stream ends early at byte 3000: the file was cut; copy it again"),
        "{error}"
    );
}

#[test]
fn every_context_of_a_recording_is_one_list_of_the_file() {
    let Some(data) = shared_data() else { return };
    let snapshot = snapshot::load(data.join("recorded/mlp.pickle.gz")).unwrap();
    for entry in snapshot.traces.iter().flatten() {
        assert_eq!(entry.context.is_some(), snapshot.stack_of(entry).is_some());
    }
}
