//! Synthetic churn: a number of live blocks, of which one after the other is freed and replaced.
//!
//! The same programs, size for size, that the rig for the real allocator asks of it: one generator, one
//! seed, and the same order of draws.

use fragsim::{
    base::{AllocId, Bytes, DeviceIndex, StreamId},
    trace::{Trace, TraceBuilder},
};

/// The generator of the rig: xorshift with 64 bits of state.
pub(crate) struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(88_172_645_463_325_252)
    }
}

impl Random {
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A position below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        let at = self.draw() % (count as u64);
        usize::try_from(at).expect("it is below a usize")
    }

    /// A size between two powers of two, by its logarithm alike.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "53 bits are exact in a float, and a size is cut to whole bytes"
    )]
    fn size(&mut self, low: f64, high: f64) -> u64 {
        let unit = (self.draw() >> 11) as f64 / (1u64 << 53) as f64;
        (low + unit * (high - low)).exp2() as u64
    }
}

/// From which sizes requests are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// 512 B to 1 MiB.
    Small,
    /// 1 to 64 MiB.
    Large,
    /// Three of four up to 256 KiB, the others up to 64 MiB.
    Mixed,
}

impl Sizes {
    pub(crate) const ALL: [(&str, Self); 3] =
        [("small", Self::Small), ("large", Self::Large), ("mixed", Self::Mixed)];

    pub(crate) fn draw(self, random: &mut Random) -> u64 {
        match self {
            Self::Small => random.size(9., 20.),
            Self::Large => random.size(20., 26.),
            Self::Mixed => {
                let size = random.size(9., 26.);
                if random.draw() & 3 == 0 { size } else { 512 + random.draw() % (1 << 18) }
            }
        }
    }
}

/// A program whose timed part is at its end.
#[derive(Clone, Debug)]
pub(crate) struct Churn {
    pub(crate) trace: Trace,
    /// The first operation of the timed part.
    pub(crate) from: usize,
}

impl Churn {
    pub(crate) fn timed(&self) -> std::ops::Range<usize> {
        self.from..self.trace.ops().len()
    }
}

/// Numbers of live blocks that the rig goes through.
const RIG_LIVE: [usize; 3] = [1, 1000, 100_000];

/// Pairs of a free and a request among `live` blocks, after as many blocks were asked for and twice as
/// many (at most 200,000) were replaced. Like the rig, half as many pairs at 100,000 live blocks.
pub(crate) fn pairs(sizes: Sizes, live: usize, pairs: usize) -> Churn {
    assert!(pairs <= 1_000_000, "the rig would shorten some of its runs");
    let mut random = Random::default();
    // The rig goes through its settings, each thrice, with one generator.
    if RIG_LIVE.contains(&live) {
        let all = Sizes::ALL.into_iter().flat_map(|(_, sizes)| RIG_LIVE.map(|live| (sizes, live)));
        for (before, live) in all.take_while(|setting| *setting != (sizes, live)) {
            for _ in 0..3 {
                draw(&mut random, before, live, timed_pairs(live, pairs), |_, _| ());
            }
        }
    }
    let mut builder = TraceBuilder::new(DeviceIndex(0));
    let mut blocks: Vec<Option<AllocId>> = vec![None; live];
    let timed = timed_pairs(live, pairs);
    draw(&mut random, sizes, live, timed, |at, size| replace(&mut builder, &mut blocks[at], size));
    let trace = builder.build();
    let from = trace.ops().len() - 2 * timed;
    Churn { trace, from }
}

fn timed_pairs(live: usize, pairs: usize) -> usize {
    if live == 100_000 { pairs / 2 } else { pairs }
}

fn draw(
    random: &mut Random,
    sizes: Sizes,
    live: usize,
    pairs: usize,
    mut place: impl FnMut(usize, u64),
) {
    const DRAWN: usize = 1 << 16;
    let drawn: Vec<u64> = (0..DRAWN).map(|_| sizes.draw(random)).collect();
    for at in 0..live {
        place(at, drawn[random.below(DRAWN)]);
    }
    for _ in 0..(2 * live).min(200_000) {
        let at = random.below(live);
        place(at, drawn[random.below(DRAWN)]);
    }
    for pair in 0..pairs {
        let at = if live == 1 { 0 } else { random.below(live) };
        place(at, drawn[pair % DRAWN]);
    }
}

/// Frees a block, if there is one, and asks for another.
fn replace(builder: &mut TraceBuilder, block: &mut Option<AllocId>, size: u64) {
    if let Some(old) = *block {
        builder.free(old, false).expect("it is live");
    }
    let new = builder.alloc(Bytes(size), StreamId(0), None).expect("the size is legal");
    *block = Some(new);
}

/// Rounds of frees and of requests apart from each other: half of `live` blocks are freed, then as many
/// are asked for. The ranges of both, in turn.
pub(crate) fn rounds(live: usize, rounds: usize) -> (Trace, Vec<[std::ops::Range<usize>; 2]>) {
    let mut random = Random::default();
    let mut builder = TraceBuilder::new(DeviceIndex(0));
    let mut blocks: Vec<Option<AllocId>> = vec![None; live];
    for _ in 0..3 * live {
        let at = random.below(live);
        let size = Sizes::Small.draw(&mut random);
        replace(&mut builder, &mut blocks[at], size);
    }
    let mut ranges = Vec::new();
    for _ in 0..rounds {
        let begin = builder.ops().len();
        for _ in 0..live / 2 {
            if let Some(old) = blocks[random.below(live)].take() {
                builder.free(old, false).expect("it is live");
            }
        }
        let middle = builder.ops().len();
        for block in blocks.iter_mut().filter(|block| block.is_none()) {
            replace(&mut builder, block, Sizes::Small.draw(&mut random));
        }
        ranges.push([begin..middle, middle..builder.ops().len()]);
    }
    (builder.build(), ranges)
}
