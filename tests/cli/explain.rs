//! `explain` of messages and logs, as a user runs it.

use expect_test::expect;

use crate::support::{Files, gzip, pickle, run, run_with, snapshot};

const FULL: &str = "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 1; 24.00 GiB total capacity; 21.58 GiB already allocated; 1.45 GiB free; 22.00 GiB reserved in total by PyTorch)";
const HOLES: &str = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 600.00 MiB. GPU 0 has a total capacity of 15.00 GiB of which 200.00 MiB is free. Including non-PyTorch memory, this process has 14.80 GiB memory in use. Of the allocated memory 12.00 GiB is allocated by PyTorch, and 2.00 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)";

#[test]
fn a_verdict_in_full() {
    let ran = run(&["explain", "--message", HOLES]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    expect![[r#"
        FRAGMENTATION: 2.00 GiB of the reserved memory was unallocated, more than the 600.00 MiB asked, but in no piece that could serve it
          certain: it holds for all sizes that print so; ruled out: fraction limit, private pools
          CUDA, device 0, worded as PyTorch 2.5 or later, line 1

          asked                  600.00 MiB  a segment, in steps of 2 MiB
          capacity                15.00 GiB
          free on the device     200.00 MiB
          reserved                14.00 GiB  allocated and unallocated together
          allocated               12.00 GiB
          unallocated              2.00 GiB  reserved, in holes between live blocks
          free in all              2.20 GiB  free + unallocated
          to spare                 1.61 GiB  free in all - asked, to within 5.13 MiB
          outside PyTorch        824.00 MiB  capacity - free - reserved: context, libraries, other processes
            of this process      819.20 MiB  CUDA context, libraries, NCCL

        what to do
          - set, before the program starts (Linux; where it is not supported it is ignored with a warning):
                export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
          - without max_split_size_mb beside it: free blocks at or above the split size would serve no smaller request
          - this can win back 2.00 GiB at most: all that was unallocated
          - empty_cache() is no cure: all that it can give back had been given back before this message

        to know more next time
          - record the run; the snapshot shows which blocks stand in the way:
                torch.cuda.memory._record_memory_history()             # at the start
                torch.cuda.memory._dump_snapshot("oom.pickle")         # where the error is caught
    "#]].assert_eq(&ran.out);
}

#[test]
fn a_message_comes_as_text_as_a_file_or_on_standard_input() {
    let files = Files::new();
    let plain = files.file("train.log", FULL.as_bytes());
    let packed = files.file("train.log.gz", &gzip(FULL.as_bytes()));
    let said = run(&["explain", "--message", FULL]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.out.starts_with("TRULY FULL: "), "{}", said.out);
    for args in [
        vec!["explain", plain.as_str()],
        vec!["explain", packed.as_str()],
        vec!["explain", "--message", plain.as_str()],
    ] {
        assert_eq!(run(&args).out, said.out, "{args:?}");
    }
    for args in [["explain", "-"].as_slice(), &["explain", "--message", "-"]] {
        assert_eq!(run_with(args, FULL.as_bytes()).out, said.out, "{args:?}");
    }
}

#[test]
fn equal_messages_are_counted_and_the_last_is_first() {
    let log = format!("[rank0]: {FULL}\n[rank3]: {FULL}\nretrying\n[rank0]: {HOLES}\n");
    let ran = run_with(&["explain", "-"], log.as_bytes());
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.out.starts_with("FRAGMENTATION: "), "{}", ran.out);
    let others = ran.out.split("other messages, latest first\n").nth(1).unwrap();
    let other = "  truly full (certain): CUDA, device 1, worded as PyTorch 1.5 to 2.0, said 2 times, last on line 2, ranks 0, 3, asked 2.00 GiB\n";
    assert_eq!(others, other);
    let json = run_with(&["explain", "-", "--format", "json"], log.as_bytes()).json();
    assert_eq!(json["found"], 3);
    assert_eq!(json["bytes"], log.len());
    assert_eq!(json["messages"][0]["verdict"], "fragmentation");
    assert_eq!(json["messages"][0]["line"], 4);
    assert_eq!(json["messages"][1]["count"], 2);
    assert_eq!(json["messages"][1]["ranks"], serde_json::json!([0, 3]));
    let requested = &json["messages"][1]["figures"]["requested_bytes"];
    assert!(requested[0].as_u64() < Some(2 << 30) && requested[1].as_u64() > Some(2 << 30));
}

#[test]
fn what_has_no_message_is_refused() {
    let files = Files::new();
    let log = files.file("calm.log", b"step 1\nstep 2\n");
    let pickled = files.file("run.pickle", &pickle(&snapshot()));
    let check = |args: &[&str], message: expect_test::Expect| {
        let ran = run(args);
        assert_eq!((ran.status, ran.out.as_str()), (2, ""));
        message.assert_eq(files.without_folder(&ran.err).trim_end());
    };
    check(
        &["explain", &log],
        expect![
            "fragsim: calm.log: no out-of-memory message of a GPU found; was standard error written to the log (2>&1)?"
        ],
    );
    check(
        &["explain", "--message", "it does not work"],
        expect![[
            r#"fragsim: the message: no out-of-memory message of a GPU found; give the text from "CUDA out of memory. Tried to allocate" on, or an existing file"#
        ]],
    );
    check(
        &["explain", "--message", &pickled],
        expect![
            "fragsim: run.pickle: this is no text; --message is for messages and logs; give a recording without it"
        ],
    );
    check(
        &["explain", &files.at("none.log")],
        expect![
            "fragsim: none.log: no such file; check the path, or write - to read standard input"
        ],
    );
}
