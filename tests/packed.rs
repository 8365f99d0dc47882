//! Packed recordings: what was packed comes back whole, and nothing else is taken for one.

#![expect(clippy::unwrap_used, reason = "a test's panic is its report; helpers are tests too")]
#![expect(clippy::print_stdout, reason = "says which data is absent")]

mod common;

use std::{path::Path, sync::LazyLock};

use expect_test::{Expect, expect};
use fragsim::{
    base::{Bytes, Release},
    models::pytorch::conf::AllocConf,
    source::{
        packed::{self, Packed},
        snapshot,
    },
    study::{
        verify::{VerifyOptions, resolved, verify_trace},
        whatif::{Program, Start, Terms, whatif},
    },
    trace::Trace,
};
use proptest::prelude::*;

fn pack(path: &Path) -> Option<(snapshot::Overview, Vec<Trace>, Vec<u8>)> {
    let snapshot = snapshot::load(path).unwrap();
    let traces = snapshot.histories().ok()?;
    let overview = snapshot.overview();
    let bytes = packed::to_bytes(&overview, &traces).unwrap();
    Some((overview, traces, bytes))
}

/// All parts of a trace; a trace has no equality of its own.
fn assert_same(name: &str, a: &Trace, b: &Trace) {
    assert_eq!(a.device(), b.device(), "{name}");
    assert!(a.ops() == b.ops(), "{name}: operations");
    assert_eq!(a.controls(), b.controls(), "{name}");
    assert_eq!((a.streams(), a.pools()), (b.streams(), b.pools()), "{name}");
    assert_eq!(a.alloc_count(), b.alloc_count(), "{name}");
    assert_eq!((a.start(), a.start_ids()), (b.start(), b.start_ids()), "{name}");
    let (a, b) = (a.recorded().unwrap(), b.recorded().unwrap());
    assert!(a.events == b.events && a.first_event == b.first_event, "{name}: events");
    assert_eq!((&a.end, &a.settings, &a.notes), (&b.end, &b.settings, &b.notes), "{name}");
    assert_eq!((a.releases, a.events_name_pools), (b.releases, b.events_name_pools), "{name}");
    assert_eq!((&a.guessed_sizes, &a.completions), (&b.guessed_sizes, &b.completions), "{name}");
    assert_eq!((&a.chains, &a.maybe_empty), (&b.chains, &b.maybe_empty), "{name}");
    assert_eq!(a.vanished, b.vanished, "{name}");
}

#[test]
fn every_recording_comes_back_whole() {
    let mut files = common::files(&common::package("traces/recorded"), ".pickle.gz");
    assert!(files.len() > 5);
    files.extend(common::shared_only("recorded", ".pickle.gz"));
    let mut packed_files = 0;
    for path in files {
        let name = path.display().to_string();
        let Some((overview, traces, bytes)) = pack(&path) else { continue };
        let Packed { overview: unpacked, traces: again } = packed::from_bytes(&bytes).unwrap();
        assert_eq!(overview, unpacked, "{name}");
        assert_eq!(traces.len(), again.len(), "{name}");
        traces.iter().zip(&again).for_each(|(a, b)| assert_same(&name, a, b));
        packed_files += 1;
    }
    assert!(packed_files > 5, "only {packed_files} recordings have a history");
}

static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = common::package("traces/recorded/streams_pending.pickle.gz");
    pack(&path).unwrap().2
});

static EXPANDABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = common::package("traces/recorded/frag_expandable.pickle.gz");
    pack(&path).unwrap().2
});

/// The same file with its body as it is, which is what the decoder sees.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    let body = zstd::bulk::decompress(&bytes[28..], usize::try_from(length).unwrap()).unwrap();
    let mut stored = bytes[..28].to_vec();
    stored[12..16].copy_from_slice(&0u32.to_le_bytes());
    stored.extend(body);
    signed(stored)
}

/// The file with the checksum that it should have.
fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[..24]);
    crc.update(&bytes[28..]);
    bytes[24..28].copy_from_slice(&crc.sum().to_le_bytes());
    bytes
}

#[expect(clippy::needless_pass_by_value, reason = "reads as a table of cases")]
fn refuses(bytes: &[u8], expected: Expect) {
    expected.assert_eq(&packed::from_bytes(bytes).unwrap_err().to_string());
}

#[test]
fn other_files_and_other_versions_are_refused() {
    refuses(
        b"\x80\x04}.",
        expect!["byte 0: not a packed recording; fragsim pack makes one from a snapshot"],
    );
    let mut newer = SMALL.clone();
    newer[8] = 9;
    refuses(
        &newer,
        expect![
            "byte 8: a packed recording of version 9; this fragsim reads version 1: pack the snapshot again"
        ],
    );
    refuses(
        &SMALL[..20],
        expect![
            "byte 20: the packed recording ends early: the file was cut; copy it again, or pack the snapshot again"
        ],
    );
    let mut form = SMALL.clone();
    form[12] = 7;
    refuses(
        &signed(form),
        expect![
            "byte 28: the packed recording is damaged (form 7 of the body is not known); copy it again, or pack the snapshot again"
        ],
    );
}

/// A claimed length is held against the file before anything is reserved for it.
#[test]
fn a_length_beyond_the_file_is_refused() {
    let mut long = SMALL.clone();
    long[16..24].copy_from_slice(&(1u64 << 40).to_le_bytes());
    refuses(
        &signed(long),
        expect![
            "byte 28: the packed recording is damaged (its length cannot be); copy it again, or pack the snapshot again"
        ],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_changed_file_is_refused(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = SMALL.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(packed::from_bytes(&bytes).is_err());
    }

    #[test]
    fn a_cut_file_is_refused(at in any::<prop::sample::Index>()) {
        let bytes = &SMALL[..at.index(SMALL.len())];
        prop_assert!(packed::from_bytes(bytes).is_err());
    }

    /// With a checksum that fits: whatever the body says, it is taken or refused, without a panic.
    #[test]
    fn a_body_made_up_is_taken_or_refused(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..6),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = stored(&SMALL);
        for (at, bit) in flips {
            let at = 28 + at.index(bytes.len() - 28);
            bytes[at] ^= 1u8 << bit;
        }
        if let Some(keep) = keep {
            bytes.truncate(28 + keep.index(bytes.len() - 28));
        }
        let _ = packed::from_bytes(&signed(bytes));
    }
}

/// What is asked of a recording.
fn ask(trace: Trace) {
    let options = VerifyOptions::default();
    let _ = verify_trace(&trace, &options);
    let (trace, _) = resolved(trace, &options);
    for start in [Start::AsRecorded, Start::Reallocate] {
        let Ok(program) = Program::of(&trace, start) else { continue };
        let conf = AllocConf::new(Release::NEWEST);
        let _ = whatif(&program, &Terms::new(Release::NEWEST, conf, Bytes(1 << 44)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// What is taken can be asked anything, without a panic.
    #[test]
    fn a_recording_made_up_can_be_verified_and_replayed(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4),
        is_expandable in any::<bool>(),
    ) {
        let mut bytes = stored(if is_expandable { &EXPANDABLE } else { &SMALL });
        for (at, bit) in flips {
            let at = 28 + at.index(bytes.len() - 28);
            bytes[at] ^= 1u8 << bit;
        }
        if let Ok(packed) = packed::from_bytes(&signed(bytes)) {
            packed.traces.into_iter().for_each(ask);
        }
    }
}
