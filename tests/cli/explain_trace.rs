//! `fragsim explain`: what it prints, its exit statuses, and what bad input is answered with.

use expect_test::expect;

use crate::support::{run, run_with};

const STRANDED: &str = "traces/stranded.fragsim";
const FRAG: &str = "traces/recorded/frag.pickle.gz";

#[test]
fn the_verdict_comes_first_and_each_line_has_its_reason() {
    let ran = run(&["explain", STRANDED]);
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
    expect![[r#"
        traces/stranded.fragsim on cuda:0, PyTorch 2.15, capacity 40.00 MiB, default settings

        OUT OF MEMORY at operation 11: 16.00 MiB asked
        FRAGMENTATION: 28.00 MiB are free, in pieces that do not serve 16.00 MiB.
        What helps: less memory, or a larger device; no setting does

          there are               40.00 MiB
          handed out              12.00 MiB
          asked                   16.00 MiB  together 28.00 MiB: 12.00 MiB to spare, were it all in one piece
          free in segments        28.00 MiB  the largest piece for it 8.00 MiB at 0x600000c00000
          free on the device        0 bytes  a segment of 16.00 MiB needs 16.00 MiB more

        Free in segments, and why it does not serve
            28.00 MiB  large: too small (4 blocks, the largest 8.00 MiB)
          external fragmentation 0.71, too small for this request 1.00; rounding 0 bytes, unsplit 0 bytes

        1 block of 6.00 MiB in its way
          (freed, they and their free neighbours are one piece that is large enough; replayed: served; no smaller set does)
             6.00 MiB from operation 2, 9 operations old, in a segment of 20.00 MiB

        Who pins the most free memory
            14.00 MiB free in a segment of 20.00 MiB, held by 1 block of 6.00 MiB
                      6.00 MiB from operation 2, 9 operations old
            14.00 MiB free in a segment of 20.00 MiB, held by 1 block of 6.00 MiB
                      6.00 MiB from operation 5, 6 operations old

        What would have happened, replayed
          yes 1 block in its way freed before       served, and the whole program completes; peak reserved 40.00 MiB
          no  expandable_segments:True              not served: operation 11 fails; peak reserved 40.00 MiB
          no  max_split_size_mb:32                  not served: operation 11 fails; peak reserved 40.00 MiB
          no  max_split_size_mb:64                  not served: operation 11 fails; peak reserved 40.00 MiB
          no  max_split_size_mb:128                 not served: operation 11 fails; peak reserved 40.00 MiB
          no  max_split_size_mb:256                 not served: operation 11 fails; peak reserved 40.00 MiB
          no  max_split_size_mb:512                 not served: operation 11 fails; peak reserved 40.00 MiB
          no  roundup_power2_divisions:2            not served: operation 11 fails; peak reserved 40.00 MiB
          no  roundup_power2_divisions:4            not served: operation 11 fails; peak reserved 40.00 MiB
          no  roundup_power2_divisions:8            not served: operation 11 fails; peak reserved 40.00 MiB
          no  garbage_collection_threshold:0.8      not served: operation 11 fails; peak reserved 40.00 MiB
          no  empty_cache() just before             not served
          no  1 block in a pool apart (MemPool)     not served: operation 5 fails; peak reserved 40.00 MiB

          note: none of the 10 settings that were replayed serves the request
          note: empty_cache() just before it changes nothing: the allocator gave back all it could before it failed
          note: the trace sets the capacity itself: no larger card was tried
    "#]].assert_eq(&ran.out);
}

#[test]
fn a_recording_is_explained_with_stacks_and_a_line_to_paste() {
    let ran = run(&["explain", FRAG]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    let head: Vec<&str> = ran.out.lines().take(24).collect();
    expect![[r#"
        traces/recorded/frag.pickle.gz on cuda:0, PyTorch 2.11, capacity 2.00 GiB, default settings

        OUT OF MEMORY before operation 8096, as in the recording: 159.51 MiB asked
                        record.py:68 forward
                        record.py:172 frag
                        record.py:283 <module>
        FRAGMENTATION: 1.03 GiB are free, in pieces that do not serve 159.51 MiB.
        What helps: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
                    (served, and the whole program completes; peak reserved 1.18 GiB)

          there are                2.00 GiB
          handed out             989.35 MiB
          asked                  159.51 MiB  together 1.12 GiB: 899.14 MiB to spare, were it all in one piece
          free in segments      1010.65 MiB  the largest piece for it 89.00 MiB at 0x600148100000
          free on the device      48.00 MiB  a segment of 160.00 MiB needs 112.00 MiB more

        Free in segments, and why it does not serve
          1007.81 MiB  large: too small (38 blocks, the largest 89.00 MiB)
             2.84 MiB  small: for requests of at most 1 MiB only (2 blocks, the largest 1.84 MiB)
          external fragmentation 0.91, too small for this request 1.00; rounding 0 bytes, unsplit 7.08 MiB

        38 blocks of 12.16 MiB in its way, in the fewest bytes
          (freed, memory goes back to the device, which has enough then; replayed: served; no smaller set does)
            12.00 MiB in 4 blocks from one place, 5886 to 7497 operations old"#]].assert_eq(&head.join("\n"));
}

#[test]
fn the_exit_status_of_explain_is_0_where_nothing_fails() {
    let roomy = run(&["explain", FRAG, "--capacity", "8GiB"]);
    assert_eq!(roomy.status, 0);
    expect![[r#"
        traces/recorded/frag.pickle.gz: nothing to explain: all 8204 operations are served (capacity 8.00 GiB)
          give another --capacity, or ask: --at OPERATION --request SIZE
    "#]].assert_eq(&roomy.out);
    let served = run(&["explain", FRAG, "--at", "100", "--request", "1MiB"]);
    assert_eq!(served.status, 0);
    assert!(served.out.contains("SERVED if 1024.00 KiB were asked before operation 100"));
    assert_eq!(run(&["explain", FRAG, "--at", "100", "--request", "3GiB"]).status, 1);
    let second = run(&["explain", FRAG, "--failure", "2"]);
    assert_eq!(second.status, 0);
    assert!(second.out.contains("fewer than 2 requests fail"), "{}", second.out);
}

#[test]
fn the_document_has_the_keys_that_the_readme_names() {
    let document = run(&["explain", FRAG, "--format", "json"]).json();
    let object = document.as_object().unwrap();
    let readme = std::fs::read_to_string("README.md").unwrap();
    let row = readme.lines().find(|line| line.starts_with("| `explain` of a recording |")).unwrap();
    for key in object.keys() {
        assert!(row.contains(&format!("`{key}`")), "README does not name {key}");
    }
    assert_eq!(document["verdict"], "fragmentation");
    assert_eq!(document["cure"], "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True");
    let set = &document["blocking"]["fewest_blocks"];
    assert_eq!((&set["is_minimal"], &set["at_least"]), (&true.into(), &1.into()));
    assert!(set["blocks"][0]["frames"][0].as_str().unwrap().contains(".py:"));
    let roomy = run(&["explain", FRAG, "--capacity", "8GiB", "--format", "json"]).json();
    assert_eq!((&roomy["verdict"], &roomy["capacity"]), (&"served".into(), &(8_u64 << 30).into()));
}

#[test]
fn what_is_not_there_is_named() {
    let error = |args: &[&str]| {
        let ran = run(&[&["explain", FRAG], args].concat());
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{args:?}");
        ran.err
    };
    expect![[r#"
        fragsim: traces/recorded/frag.pickle.gz: there is no operation 99999999: the program has 8204, counted from 0
    "#]].assert_eq(&error(&["--at", "99999999", "--request", "1GiB"]));
    expect![[r#"
        fragsim: traces/recorded/frag.pickle.gz: there is no stream 9: the trace names 1, counted from 0
    "#]].assert_eq(&error(&["--at", "5", "--request", "1GiB", "--stream", "9"]));
    expect![[r#"
        fragsim: --request 0: a request of no bytes takes nothing; give a size such as 2GiB
    "#]]
    .assert_eq(&error(&["--at", "5", "--request", "0"]));
    assert!(error(&["--at", "5"]).contains("--request"));
    assert!(error(&["--request", "5"]).contains("--at"));
    assert!(error(&["--failure", "0"]).contains("--failure"));
    assert!(error(&["--capacity", "0"]).contains("capacity"));
}

#[test]
fn a_trace_is_told_from_a_log() {
    let pickle = std::fs::read(FRAG).unwrap();
    let piped = run_with(&["explain", "-", "--no-remedies"], &pickle);
    assert!(piped.out.contains("\nFRAGMENTATION: 1.03 GiB are free"), "{}{}", piped.out, piped.err);
    let text = std::fs::read(STRANDED).unwrap();
    // Without its name a text is a log, unless something is asked of it that only a trace can answer.
    assert_eq!(run_with(&["explain", "-"], &text).status, 2);
    let asked = run_with(&["explain", "-", "--at", "3", "--request", "64MiB"], &text);
    assert_eq!(asked.status, 1, "{}", asked.err);
    assert!(asked.out.contains("TRULY FULL: 64.00 MiB asked are more than all the 40.00 MiB"));
    let both = run(&["explain", "--message", "out of memory", "--capacity", "1GiB"]);
    assert_eq!(both.status, 2);
    assert!(both.err.contains("--capacity"), "{}", both.err);
}
