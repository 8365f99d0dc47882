//! Verdicts from messages alone: every wording, every disguise, and no verdict where there is no message.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use fragsim::{
    base::{Bytes, DeviceIndex, RELEASES, Release},
    source::message::{FoundMessage, find, scan},
    study::message::{Cause, Certainty, Reason, diagnose},
    trace::{Oom, OomHint, OomMessage, ProcessUse},
};
use proptest::prelude::*;

/// The one message of a text.
fn only(text: &str) -> OomMessage {
    let mut found = find(text);
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    found.remove(0).message
}

fn verdict(text: &str) -> (Cause, Reason, Certainty) {
    let diagnosis = diagnose(&only(text));
    (diagnosis.cause, diagnosis.reason, diagnosis.certainty)
}

/// Own messages of each wording, with the verdict.
const MESSAGES: [(&str, Cause); 26] = [
    (
        "RuntimeError: CUDA out of memory. Tried to allocate 900.00 MiB (GPU 0; 15.00 GiB total capacity; 9.00 GiB already allocated; 300.00 MiB free; 4.00 GiB cached)",
        Cause::Fragmentation,
    ),
    (
        "RuntimeError: CUDA out of memory. Tried to allocate 900.00 MiB (GPU 0; 15.00 GiB total capacity; 9.00 GiB already allocated; 300.00 MiB free; 13.50 GiB reserved in total by PyTorch)",
        Cause::Fragmentation,
    ),
    (
        "RuntimeError: CUDA out of memory. Tried to allocate 900.00 MiB (GPU 3; 15.00 GiB total capacity; 13.40 GiB already allocated; 300.00 MiB free; 13.50 GiB reserved in total by PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb to avoid fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF",
        Cause::Full,
    ),
    (
        "RuntimeError: CUDA out of memory. Tried to allocate 1.50 GiB (GPU 0; 23.00 GiB total capacity; 11.00 GiB already allocated; 11.00 GiB free; 11.45 GiB allowed; 11.20 GiB reserved in total by PyTorch)",
        Cause::FractionLimit,
    ),
    (
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacty of 31.00 GiB of which 1.00 GiB is free. Including non-PyTorch memory, this process has 29.90 GiB memory in use. Of the allocated memory 22.00 GiB is allocated by PyTorch, and 7.00 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting max_split_size_mb to avoid fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF",
        Cause::Fragmentation,
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 39.00 GiB of which 500.00 MiB is free. Process 4001 has 30.00 GiB memory in use. Including non-PyTorch memory, this process has 8.50 GiB memory in use. Of the allocated memory 7.50 GiB is allocated by PyTorch, and 200.00 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)",
        Cause::OtherProcesses,
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 39.00 GiB of which 500.00 MiB is free. Process 77 has 38.50 GiB memory in use. Of the allocated memory 37.50 GiB is allocated by PyTorch, and 200.00 MiB is reserved by PyTorch but unallocated.",
        Cause::Full,
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity of 79.00 GiB of which 38.00 GiB is free. Including non-PyTorch memory, this process has 41.00 GiB memory in use. 39.50 GiB allowed; Of the allocated memory 39.00 GiB is allocated by PyTorch, and 100.00 MiB is reserved by PyTorch but unallocated.",
        Cause::FractionLimit,
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.00 GiB of which 600.00 MiB is free. Including non-PyTorch memory, this process has 78.40 GiB memory in use. Of the allocated memory 77.00 GiB is allocated by PyTorch, with 30.00 GiB allocated in private pools (e.g., CUDA Graphs), and 100.00 MiB is reserved by PyTorch but unallocated.",
        Cause::PrivatePools,
    ),
    (
        "CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity of 12.00 GiB of which 0 bytes is free. Of the allocated memory 19.00 GiB is allocated by PyTorch, and 300.00 MiB is reserved by PyTorch but unallocated.",
        Cause::HostSpill,
    ),
    (
        "CUDA out of memory. Tried to allocate 5000.00 GiB. GPU 0 has a total capacity of 12.00 GiB of which 4.00 GiB is free. Of the allocated memory 6.00 GiB is allocated by PyTorch, and 300.00 MiB is reserved by PyTorch but unallocated.",
        Cause::Full,
    ),
    (
        "CUDA out of memory. Tried to allocate 128.00 MiB. GPU 0 has a total capacity of 48.00 GiB of which 30.00 GiB is free. Of the allocated memory 6.00 GiB is allocated by PyTorch, and 90.00 MiB is reserved by PyTorch but unallocated.",
        Cause::Open,
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 40.00 GiB. GPU 0 has a total capacity of 79.00 GiB of which 30.00 GiB is free. Of the allocated memory 40.00 GiB is allocated by PyTorch, and 7.00 GiB is reserved by PyTorch but unallocated. This allocation exceeds the expandable-segment reserve of 20.00 GiB for this stream, and a single allocation cannot span expandable segments.",
        Cause::OtherLimit,
    ),
    (
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 63.00 GiB of which 1.00 GiB is free. Of the allocated memory 55.00 GiB is allocated by PyTorch, and 6.00 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_HIP_ALLOC_CONF=expandable_segments:True to avoid fragmentation.",
        Cause::Fragmentation,
    ),
    (
        "torch.OutOfMemoryError: XPU out of memory. Tried to allocate 6.00 GiB. GPU 0 has a total capacity of 15.00 GiB of which 14.50 GiB is free. Of the allocated memory 100.00 MiB is allocated by PyTorch, and 20.00 MiB is reserved by PyTorch but unallocated. Please use `empty_cache` to release all unoccupied cached memory.",
        Cause::OtherLimit,
    ),
    (
        "RuntimeError: Current platform can NOT allocate memory block with size larger than 4GB! Tried to allocate 9.00 GiB (GPU  0; 15.00 GiB total capacity; 1.00 GiB already allocated; 2.00 GiB reserved in total by PyTorch)",
        Cause::OtherLimit,
    ),
    (
        "RuntimeError: NPU out of memory. Tried to allocate 512.00 MiB (NPU 2; 60.00 GiB total capacity; 50.00 GiB already allocated; 50.00 GiB current active; 100.00 MiB free; 57.00 GiB reserved in total by PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb to avoid fragmentation.",
        Cause::Fragmentation,
    ),
    (
        "RuntimeError: MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB). Tried to allocate 500.00 MB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for memory allocations (may cause system failure).",
        Cause::FractionLimit,
    ),
    (
        "torch.OutOfMemoryError: Allocation on device 2 would exceed allowed memory. (out of memory)\nCurrently allocated     : 22.50 GiB\nRequested               : 1.00 GiB\nDevice limit            : 23.00 GiB\nFree (according to CUDA): 20.00 MiB\nPyTorch limit (set by user-supplied memory fraction)\n                        : 17179869184.00 GiB",
        Cause::Full,
    ),
    (
        "torch.OutOfMemoryError: Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated     : 10.00 GiB\nRequested               : 1.00 GiB\nDevice limit            : 23.00 GiB\nFree (according to CUDA): 12.00 GiB\nPyTorch limit (set by user-supplied memory fraction)\n                        : 10.50 GiB",
        Cause::FractionLimit,
    ),
    ("RuntimeError: CUDA out of memory. Tried to allocate more than 1EB memory.", Cause::Full),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Allocation was preemptively rejected because it would exceed per_process_memory_fraction limit. Requested size: 2.00 GiB",
        Cause::FractionLimit,
    ),
    (
        "RuntimeError: cuda runtime error (2) : out of memory at /build/aten/src/THC/generic/THCStorage.cu:58",
        Cause::Open,
    ),
    ("RuntimeError: CUDA error: out of memory", Cause::Open),
    (
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating tensor with shape[64,1024,32,32] and type float on /job:localhost/replica:0/task:0/device:GPU:1 by allocator GPU_1_bfc [Op:Conv2D]",
        Cause::Open,
    ),
    (
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4294967296 bytes.",
        Cause::Open,
    ),
];

#[test]
fn every_wording_has_its_verdict() {
    for (text, cause) in MESSAGES {
        assert_eq!(verdict(text).0, cause, "{text}");
    }
}

#[test]
fn figures_are_read_to_their_last_digit() {
    let message = only(MESSAGES[8].0);
    let size = |range: Option<fragsim::base::ByteRange>| range.unwrap().to_string();
    let figures = &message.figures;
    assert_eq!(message.device, Some(0));
    assert_eq!(size(figures.requested), "2.00 GiB");
    assert_eq!(size(figures.total), "79.00 GiB");
    assert_eq!(size(figures.free), "600.00 MiB");
    assert_eq!(size(figures.this_process), "78.40 GiB");
    assert_eq!(size(figures.allocated), "77.00 GiB");
    assert_eq!(size(figures.private_pools), "30.00 GiB");
    assert_eq!(size(figures.unallocated), "100.00 MiB");
    assert_eq!(figures.processes, []);
    let tensor = only(MESSAGES[24].0);
    assert_eq!(tensor.device, Some(1));
    assert_eq!(size(diagnose(&tensor).account.requested), "256.00 MiB");
    assert_eq!(size(only(MESSAGES[25].0).figures.requested), "4.00 GiB");
    let listed = only(MESSAGES[5].0);
    assert_eq!(listed.figures.processes.len(), 1);
    assert_eq!(listed.figures.processes[0].0, 4001);
}

// ---- disguises -----------------------------------------------------------------------------------

fn wrapped(text: &str, width: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    let lines: Vec<String> = chars.chunks(width).map(|line| line.iter().collect()).collect();
    lines.join("\n")
}

fn wrapped_at_words(text: &str, width: usize, prefix: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().unwrap();
        if !last.is_empty() && last.len() + word.len() > width {
            lines.push(word.to_owned());
        } else {
            last.push_str(if last.is_empty() { "" } else { " " });
            last.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{prefix}{line}\n")).collect()
}

fn prefixed(text: &str, prefix: &str) -> String {
    text.lines().map(|line| format!("{prefix}{line}\n")).collect()
}

fn disguises(text: &str) -> Vec<(&'static str, String)> {
    let json = serde_json::to_string(text).unwrap();
    let html = text.replace('&', "&amp;").replace('>', "&gt;").replace('"', "&quot;");
    let coloured: Vec<String> =
        text.split(' ').map(|word| format!("\u{1b}[1;31m{word}\u{1b}[0m")).collect();
    vec![
        ("quoted", prefixed(text, "> ")),
        ("quoted twice", prefixed(text, "> > ")),
        ("rank", prefixed(text, "[rank3]: ")),
        ("time", prefixed(text, "2026-02-03 04:05:06,789 ERROR [worker-1] ")),
        ("docker", prefixed(text, "trainer-1  | ")),
        ("srun", prefixed(text, "12: ")),
        ("json", format!("{{\"log\":{json},\"stream\":\"stderr\"}}")),
        ("json in json", serde_json::to_string(&json).unwrap()),
        ("html", format!("<pre><code>{}</code></pre>", html.replace('\n', "<br/>"))),
        ("coloured", coloured.join(" ")),
        ("dos", text.replace('\n', "\r\n")),
        ("many blanks", text.replace(' ', "   ")),
        ("no-break", text.replace(' ', "\u{a0}")),
    ]
}

#[test]
fn a_message_is_the_same_in_every_disguise() {
    for (text, _) in MESSAGES {
        let plain = only(text);
        for (name, disguised) in disguises(text) {
            // Errors without figures count only where an exception is printed.
            if text.ends_with("CUDA error: out of memory")
                && ["json in json", "html", "many blanks", "no-break"].contains(&name)
            {
                continue;
            }
            assert_eq!(only(&disguised).figures, plain.figures, "{name}: {disguised}");
            assert_eq!(only(&disguised).tensor, plain.tensor, "{name}: {disguised}");
        }
    }
}

#[test]
fn a_message_is_the_same_however_it_is_wrapped() {
    for (text, _) in MESSAGES.iter().filter(|(text, _)| !text.contains("CUDA error")) {
        let plain = only(text);
        for width in (34..200).step_by(7) {
            let folded = wrapped(text, width);
            assert_eq!(only(&folded).figures, plain.figures, "{width}: {folded}");
            for prefix in ["", "> ", "[rank0]: ", "2026-02-03T04:05:06Z "] {
                let folded = wrapped_at_words(text, width, prefix);
                assert_eq!(only(&folded).figures, plain.figures, "{width}: {folded}");
                assert_eq!(only(&folded).tensor, plain.tensor, "{width}: {folded}");
            }
        }
    }
}

/// A cut message never gets a verdict that the whole one contradicts, and never wrong figures.
#[test]
fn a_cut_message_says_less_but_nothing_else() {
    for (text, cause) in MESSAGES {
        let whole = only(text).figures;
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            for found in find(&text[..end]) {
                let cut = found.message.figures.clone();
                let same = |a: Option<_>, b: Option<_>| a.is_none() || a == b;
                assert!(same(cut.total, whole.total), "{}", &text[..end]);
                assert!(same(cut.free, whole.free), "{}", &text[..end]);
                assert!(same(cut.allocated, whole.allocated), "{}", &text[..end]);
                assert!(same(cut.unallocated, whole.unallocated), "{}", &text[..end]);
                let diagnosis = diagnose(&found.message);
                if diagnosis.certainty == Certainty::Certain
                    && ![Cause::OtherLimit, Cause::FractionLimit, Cause::PrivatePools]
                        .contains(&cause)
                {
                    assert_eq!(diagnosis.cause, cause, "{}", &text[..end]);
                }
            }
        }
    }
}

// ---- what is no message --------------------------------------------------------------------------

/// Lines that speak of memory, errors and limits, as logs and documents do.
const TALK: [&str; 40] = [
    "MemoryError: Unable to allocate {n}.00 GiB for an array with shape ({n}, 40000) and data type float64",
    "numpy.core._exceptions._ArrayMemoryError: Unable to allocate {n}.0 GiB",
    "[{n}.482913] Out of memory: Killed process {n} (python) total-vm:{n}kB, anon-rss:{n}kB",
    "[{n}.100000] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task=python,pid={n},uid=0",
    "kernel: Memory cgroup out of memory: Killed process {n} (java) total-vm:{n}kB",
    "slurmstepd: error: Detected {n} oom_kill event in StepId={n}.batch. Some of the step tasks have been OOM Killed.",
    "java.lang.OutOfMemoryError: Java heap space at line {n}",
    "Exception in thread \"main\" java.lang.OutOfMemoryError: GC overhead limit exceeded",
    "    except torch.cuda.OutOfMemoryError:",
    "except torch.OutOfMemoryError as e:  # retry {n}",
    "from torch.cuda import OutOfMemoryError",
    "    raise torch.cuda.OutOfMemoryError(msg)",
    "if \"CUDA out of memory\" in str(error): batch //= {n}",
    "if 'out of memory' in str(e): print('| WARNING: ran out of memory, retrying batch {n}')",
    "If you get \"CUDA out of memory\", try a batch size below {n}.",
    "Tip {n}: CUDA error: out of memory usually means that another process holds the GPU.",
    "Our docs on OOM: see chapter {n}, \"when allocation fails\".",
    "GPU 0: {n}.00 GiB total, {n}.50 GiB free",
    "torch.cuda.memory_allocated() = {n} bytes, {n}.00 GiB reserved",
    "Max memory allocated: {n}.31 GiB; max memory reserved: {n}.99 GiB",
    "| Allocated memory      |   {n} KiB |   {n} KiB |   {n} GiB |   {n} GiB |",
    "step {n}: loss 2.31, mem 17.3 GiB, cuda OOMs: 0",
    "num_ooms: 0, num_alloc_retries: {n}",
    "MySQL: Out of memory (Needed {n} bytes)",
    "fatal: Out of memory, malloc failed (tried to allocate {n} bytes)",
    "std::bad_alloc: out_of_memory: CUDA error at: /opt/rmm/cuda_memory_resource.hpp",
    "virtual memory exhausted: Cannot allocate memory",
    "Redis: Can't save in background: fork: Cannot allocate memory",
    "OOM score of process {n} adjusted to -500",
    "node-exporter: node_vmstat_oom_kill {n}",
    "WARNING: Ignoring PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
    "set PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:{n} to avoid fragmentation.",
    "The kernel reserved {n} MiB in total by default",
    "def test_oom_message(): assert re.search('Tried to allocate', text)",
    "Tried to allocate port {n} but it is in use",
    "We tried to allocate {n} nodes (GPU 0; A100 partition)",
    "E RESOURCE_EXHAUSTED: quota exceeded for project {n}",
    "grpc: status RESOURCE_EXHAUSTED: received message larger than max ({n} vs 4194304)",
    "The CUDA out of memory error is raised by the caching allocator; see FAQ {n}.",
    "Fix #{n}: handle out of memory in the data loader",
];

#[test]
fn a_thousand_unrelated_lines_give_no_alarm() {
    let lines: Vec<String> =
        (0..1000).map(|n| TALK[n % TALK.len()].replace("{n}", &(n * 7 + 1).to_string())).collect();
    let found = find(&lines.join("\n"));
    assert!(found.is_empty(), "{found:#?}");
    for line in &lines {
        assert!(find(line).is_empty(), "{line}");
    }
}

#[test]
fn memory_of_the_host_is_named_and_refused() {
    let text = "a\nRuntimeError: [enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 800 bytes.\n";
    let mut found = Vec::new();
    let scanned = scan(&mut text.as_bytes(), &mut |one| found.push(one), &mut |_| {}).unwrap();
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(scanned.host_line, Some(2));
}

// ---- logs ----------------------------------------------------------------------------------------

fn all(log: &[u8]) -> Vec<FoundMessage> {
    let mut found = Vec::new();
    // A reader of small pieces, as pipes are.
    let mut reader = std::io::BufReader::with_capacity(4093, log);
    let scanned = scan(&mut reader, &mut |one| found.push(one), &mut |_| {}).unwrap();
    assert_eq!(scanned.bytes, log.len() as u64);
    found
}

/// Wherever the pieces of a long log end, each message is found once, whole, on its line.
#[test]
fn no_message_of_a_long_log_is_lost_or_doubled() {
    let mut log = String::new();
    let mut expected = Vec::new();
    let mut line = 1;
    for turn in 0..1300_usize {
        for _ in 0..(turn * 37 % 61) {
            log.push_str(&TALK[(turn + line) % TALK.len()].replace("{n}", "7"));
            log.push('\n');
            line += 1;
        }
        let (text, _) = MESSAGES[turn % MESSAGES.len()];
        expected.push((line as u64, only(text)));
        let text = format!("[rank{turn}]: {text}\n");
        line += text.lines().count();
        log.push_str(&text);
    }
    assert!(log.len() > 1 << 21, "{}", log.len());
    let found = all(log.as_bytes());
    let found: Vec<_> = found.into_iter().map(|one| (one.line, one.message, one.rank)).collect();
    assert_eq!(found.len(), expected.len());
    for (turn, (line, message, rank)) in found.into_iter().enumerate() {
        assert_eq!((line, &message.figures), (expected[turn].0, &expected[turn].1.figures));
        assert_eq!(rank, u32::try_from(turn).ok());
    }
}

/// As `python train.py > train.log` leaves it in Windows PowerShell.
#[test]
fn a_log_in_utf_16_reads_like_one_in_utf_8() {
    let lines = MESSAGES.map(|(text, _)| format!("│ größer │ {text}\r\n"));
    let log = lines.concat();
    let plain = all(log.as_bytes());
    assert!(plain.len() >= MESSAGES.len(), "{}", plain.len());
    let told = |found: &[FoundMessage]| -> Vec<_> {
        found.iter().map(|one| (one.line, one.message.clone(), one.text.clone())).collect()
    };
    for of in [u16::to_le_bytes, u16::to_be_bytes] {
        for mark in ["", "\u{feff}"] {
            let wide: Vec<u8> = format!("{mark}{log}").encode_utf16().flat_map(of).collect();
            let mut found = Vec::new();
            scan(&mut wide.as_slice(), &mut |one| found.push(one), &mut |_| {}).unwrap();
            assert_eq!(told(&found), told(&plain));
        }
    }
    // `>>` behind a log that another program began.
    let mut both = b"epoch 1\nepoch 2\n".to_vec();
    both.extend(MESSAGES[0].0.encode_utf16().flat_map(u16::to_le_bytes));
    let found = all(&both);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].line, &found[0].message), (3, &only(MESSAGES[0].0)));
}

#[test]
fn one_line_without_end_is_read_in_bounded_pieces() {
    let text = MESSAGES[5].0;
    let mut log = vec![b'x'; 3 << 20];
    log.extend(text.bytes());
    log.extend(vec![b'y'; 3 << 20]);
    assert_eq!(all(&log).len(), 1);
}

// ---- the model's own messages --------------------------------------------------------------------

fn oom(release: Release, mib: [u64; 6]) -> Oom {
    let [requested, total, free, allocated, pools, holes] = mib.map(Bytes::mib);
    Oom {
        release,
        device: DeviceIndex(1),
        requested,
        total,
        free,
        processes: vec![ProcessUse::Other(42, total), ProcessUse::This(allocated)],
        allowed: Some(total),
        allocated,
        private_pools: pools,
        reserved: allocated + pools + holes,
        hint: OomHint::Usual,
    }
}

proptest! {
    /// What the model prints is read back, within rounding, for every release.
    #[test]
    fn the_models_own_message_is_read_back(
        release in prop::sample::select(RELEASES.to_vec()),
        mib in prop::array::uniform6(1_u64..2_000_000),
    ) {
        let oom = oom(release, mib);
        let text = oom.to_string();
        let message = only(&text);
        let figures = &message.figures;
        let holds = |range: Option<fragsim::base::ByteRange>, bytes| range.is_some_and(|r| r.holds(bytes));
        prop_assert!(holds(figures.requested, oom.requested), "{}", text);
        prop_assert!(holds(figures.total, oom.total), "{}", text);
        prop_assert!(holds(figures.free, oom.free), "{}", text);
        let pools = if release.at_least(4) { oom.private_pools } else { Bytes::ZERO };
        prop_assert!(holds(figures.allocated, oom.allocated + pools), "{}", text);
        prop_assert!(holds(figures.unallocated, oom.reserved - oom.allocated - pools), "{}", text);
        prop_assert_eq!(figures.private_pools.is_some(), release.at_least(4));
        prop_assert_eq!(figures.allowed.is_some(), release.at_least(5));
        prop_assert!(holds(figures.this_process, oom.allocated), "{}", text);
        prop_assert_eq!(figures.processes.len(), 1);
        let [oldest, newest] = message.torch.unwrap();
        let own = (2, release.minor());
        prop_assert!(oldest <= own && own <= newest, "{:?} {}", message.torch, text);
    }

    /// No text makes it panic.
    #[test]
    fn torn_and_mixed_messages_are_survived(
        which in prop::collection::vec((0..MESSAGES.len(), 0_usize..900, 0_usize..900), 1..6),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = Vec::new();
        for (index, from, to) in which {
            let text = MESSAGES[index].0.as_bytes();
            let (from, to) = (from.min(to).min(text.len()), from.max(to).min(text.len()));
            bytes.extend(&text[from..to]);
            bytes.extend(&noise);
        }
        for found in all(&bytes) {
            diagnose(&found.message);
        }
    }
}

// ---- real messages -------------------------------------------------------------------------------

/// The verdicts of the collected real messages, in their order: f fragmentation, t truly full,
/// o other processes, l fraction limit, L other limit, p private pools, h host spill-over,
/// d not decidable, - no message of a GPU.
const REAL: &str = "\
    LLtLttddof\
    dttftdhtlf\
    llllftfttf\
    ttffffhfdf\
    hffdddtdhp\
    dff--ddddd\
    fdodfttdd";

fn letter(cause: Cause) -> char {
    match cause {
        Cause::Fragmentation => 'f',
        Cause::Full => 't',
        Cause::OtherProcesses => 'o',
        Cause::FractionLimit => 'l',
        Cause::OtherLimit => 'L',
        Cause::PrivatePools => 'p',
        Cause::HostSpill => 'h',
        Cause::Open => 'd',
    }
}

#[test]
fn real_messages_have_their_verdicts() {
    let Some(folder) = common::shared("") else { return };
    let path = folder.join("oom_messages.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut verdicts = String::new();
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let found = find(value["text"].as_str().unwrap());
        assert!(found.len() <= 1, "{line}");
        verdicts.push(found.first().map_or('-', |one| letter(diagnose(&one.message).cause)));
    }
    assert_eq!(verdicts, REAL);
    // The whole file is a log, too: of JSON.
    let asked = REAL.chars().filter(|letter| *letter != '-').count();
    assert_eq!(find(&text).len(), asked);
}
