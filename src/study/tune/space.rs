//! What a user can set, as a grid of points.

use crate::{
    base::{Bytes, Release},
    models::pytorch::{
        conf::AllocConf,
        rounding::{MIN_LARGE_ALLOC, SMALL_SIZE, get_allocation_size},
    },
    study::whatif::Program,
    trace::Op,
};

/// The keys that decide what an allocator of device memory does, in the order of a point.
pub const AXES: [&str; 6] = [
    "expandable_segments",
    "max_split_size_mb",
    "roundup_power2_divisions",
    "large_segment_size_mb",
    "garbage_collection_threshold",
    "max_non_split_rounding_mb",
];

/// One value for a key, or for two that belong together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// `expandable_segments`.
    Expandable(bool),
    /// `max_split_size_mb`; `None` is without limit.
    MaxSplit(Option<u64>),
    /// `roundup_power2_divisions`: the value of each interval.
    Divisions([u64; 16]),
    /// `large_segment_size_mb`.
    LargeSegment(u64),
    /// `garbage_collection_threshold` and the memory fraction that it needs to have an effect.
    Collect {
        /// The threshold.
        threshold: f64,
        /// `per_process_memory_fraction`.
        fraction: f64,
    },
    /// `max_non_split_rounding_mb`; `None` is as large as a large segment.
    NonSplit(Option<u64>),
}

impl Choice {
    /// Puts it into settings.
    pub fn set(self, conf: &mut AllocConf) {
        match self {
            Self::Expandable(on) => conf.expandable_segments = on,
            Self::MaxSplit(size) => conf.max_split_size = size.map_or(Bytes::MAX, Bytes::mib),
            Self::Divisions(table) => conf.roundup_power2_divisions = table,
            Self::LargeSegment(size) => conf.large_segment_size = Bytes::mib(size),
            Self::Collect { threshold, fraction } => {
                conf.garbage_collection_threshold = threshold;
                conf.per_process_memory_fraction = fraction;
            }
            Self::NonSplit(size) => {
                conf.max_non_split_rounding_size = size.map_or(conf.large_segment_size, Bytes::mib);
            }
        }
    }

    /// The value that settings have now.
    fn of(axis: usize, conf: &AllocConf) -> Self {
        match axis {
            0 => Self::Expandable(conf.expandable_segments),
            1 => Self::MaxSplit(
                (conf.max_split_size != Bytes::MAX).then_some(conf.max_split_size.0 >> 20),
            ),
            2 => Self::Divisions(conf.roundup_power2_divisions),
            3 => Self::LargeSegment(conf.large_segment_size.0 >> 20),
            4 => Self::Collect {
                threshold: conf.garbage_collection_threshold,
                fraction: conf.per_process_memory_fraction,
            },
            _ => Self::NonSplit(
                (conf.max_non_split_rounding_size != conf.large_segment_size)
                    .then_some(conf.max_non_split_rounding_size.0 >> 20),
            ),
        }
    }
}

/// A place in the grid: which choice of each axis.
pub type Point = [u8; AXES.len()];

/// All values that are tried.
#[derive(Clone, Debug)]
pub struct Space {
    /// The choices of each axis of [`AXES`]; the first is that of the settings one starts from.
    pub axes: [Vec<Choice>; AXES.len()],
    /// The settings that one starts from; keys that are no axis keep their values.
    pub base: AllocConf,
    /// Whose settings these are.
    pub release: Release,
}

impl Space {
    /// The values worth trying for a program: those that its sizes tell apart.
    pub fn of(program: &Program, base: &AllocConf, release: Release) -> Self {
        let largest = largest_request(program);
        let large_mib = largest.0.div_ceil(1 << 20);
        let sizes = [21, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192];
        let max_splits = sizes.into_iter().filter(|size| *size <= large_mib).map(Some);
        let mut divisions: Vec<[u64; 16]> = [2, 4, 8, 16, 32].map(|n| [n; 16]).to_vec();
        // Only from a size on, and only up to one: 2 MiB, 16 MiB, 128 MiB.
        for from in [1, 4, 7] {
            for n in [4, 8] {
                let at_least = |k: usize| if k >= from { n } else { 0 };
                divisions.push(std::array::from_fn(at_least));
                divisions.push(std::array::from_fn(|k| n - at_least(k)));
            }
        }
        let fraction = if release.at_least(10) { 0.99 } else { 1.0 };
        let collects = [0.6, 0.8, 0.9].map(|threshold| Choice::Collect { threshold, fraction });
        let axes = [
            vec![Choice::Expandable(false), Choice::Expandable(true)],
            [None].into_iter().chain(max_splits).map(Choice::MaxSplit).collect(),
            [[0; 16]].into_iter().chain(divisions).map(Choice::Divisions).collect(),
            [20, 32, 64, 128, 256].map(Choice::LargeSegment).to_vec(),
            [Choice::Collect { threshold: 0.0, fraction: 1.0 }]
                .into_iter()
                .chain(collects)
                .collect(),
            [None, Some(64), Some(256), Some(1024)].map(Choice::NonSplit).to_vec(),
        ];
        Self::with_axes(axes, base, release)
    }

    /// A grid of these values and those of `base`. Values that the release refuses are left out.
    pub fn with_axes(
        mut axes: [Vec<Choice>; AXES.len()],
        base: &AllocConf,
        release: Release,
    ) -> Self {
        for (axis, choices) in axes.iter_mut().enumerate() {
            let here = Choice::of(axis, base);
            choices.retain(|choice| {
                *choice != here && {
                    let mut conf = AllocConf::new(release);
                    choice.set(&mut conf);
                    conf.to_conf_string(release).is_ok()
                }
            });
            choices.insert(0, here);
        }
        Self { axes, base: base.clone(), release }
    }

    /// The point of the settings that one starts from.
    pub const START: Point = [0; AXES.len()];

    /// Points of the grid.
    pub fn len(&self) -> u64 {
        self.axes.iter().map(|choices| choices.len() as u64).product()
    }

    /// Points that the release takes as settings.
    ///
    /// # Complexity
    /// O(n) in the points of the grid.
    pub fn valid(&self) -> u64 {
        self.points().filter(|point| self.conf(*point).is_some()).count() as u64
    }

    /// Whether there is nothing to choose.
    pub fn is_empty(&self) -> bool {
        self.len() <= 1
    }

    /// All points, the last axis first.
    pub fn points(&self) -> impl Iterator<Item = Point> {
        (0..self.len()).map(|number| {
            let mut rest = number;
            let mut point = Self::START;
            for (axis, choices) in self.axes.iter().enumerate().rev() {
                let count = choices.len() as u64;
                point[axis] = u8::try_from(rest % count).unwrap_or(u8::MAX);
                rest /= count;
            }
            point
        })
    }

    /// The settings of a point; `None` if the release has no string for them.
    pub fn conf(&self, point: Point) -> Option<AllocConf> {
        let mut conf = self.base.clone();
        for (axis, choice) in point.into_iter().enumerate() {
            self.axes[axis].get(usize::from(choice))?.set(&mut conf);
        }
        self.checked(conf)
    }

    /// `conf`, if the release has a string for it.
    pub fn checked(&self, mut conf: AllocConf) -> Option<AllocConf> {
        conf.last_settings = conf.to_conf_string(self.release).ok()?;
        Some(conf)
    }
}

/// The largest request of a program, those that failed included, as the segment that it would need.
fn largest_request(program: &Program) -> Bytes {
    sizes(program).max().unwrap_or_default()
}

/// All sizes that are asked.
pub(super) fn sizes(program: &Program) -> impl Iterator<Item = Bytes> {
    let asked = program.trace.ops().iter().filter_map(|op| match op {
        Op::Alloc(alloc) => Some(alloc.size),
        _ => None,
    });
    asked.chain(program.failed.iter().map(|(_, request)| request.size))
}

/// The largest block that can come to be with fixed segments, where requests are rounded to these
/// sizes at most.
pub(super) fn largest_block(rounded: &[Bytes], large_segment: Bytes, start: Bytes) -> Bytes {
    let segments = rounded.iter().map(|size| get_allocation_size(*size, large_segment));
    segments.max().unwrap_or_default().max(start)
}

/// Whether a segment of the large segment size is ever made.
pub(super) fn needs_large_segments(rounded: &[Bytes]) -> bool {
    rounded.iter().any(|size| *size > SMALL_SIZE && *size < MIN_LARGE_ALLOC)
}
