//! [`Timeline`]: one replay watched all along, for pictures.

use crate::{
    base::OpIndex,
    models::pytorch::{PyTorch, PyTorchConfig},
    observe::{FragmentationSeries, Lives, MemorySeries},
    sim::{Allocator, Device, DeviceConfig, OnOom, replay_op},
    trace::Op,
};

use super::whatif::{Program, Replayed, Terms, whatif};

/// How much of a replay is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Buckets of each series.
    pub buckets: usize,
    /// Whether the lives of all blocks and segments are kept.
    pub lives: bool,
}

/// A replay over time.
#[derive(Debug)]
pub struct Timeline {
    /// What it came to.
    pub replayed: Replayed,
    /// Requested, allocated, active and reserved.
    pub memory: MemorySeries,
    /// What is free, and how much of it lies outside the largest free block.
    pub fragmentation: FragmentationSeries,
    /// Blocks and segments; empty if they were not to be kept.
    pub lives: Lives,
}

/// Replays a program and watches it.
///
/// # Complexity
/// Two replays: the figures are those of [`whatif`] itself.
pub fn timeline(program: &Program, terms: &Terms, detail: Detail) -> Timeline {
    let replayed = whatif(program, terms);
    let memory = MemorySeries::new(detail.buckets);
    let fragmentation = FragmentationSeries::new(detail.buckets);
    let (memory, fragmentation, lives) = if detail.lives {
        let lives = Lives::new(program.trace.start_ids().to_vec());
        watch(program, terms, replayed.outcome.ops, (memory, (fragmentation, lives)))
    } else {
        watch(program, terms, replayed.outcome.ops, (memory, (fragmentation, ())))
    };
    Timeline { replayed, memory, fragmentation, lives }
}

/// Whether the lives are watched, too.
trait Watched: crate::sim::Observer {
    fn at(&mut self, time: u32, op: &Op);
    fn into_lives(self) -> Lives;
}

impl Watched for () {
    fn at(&mut self, _time: u32, _op: &Op) {}
    fn into_lives(self) -> Lives {
        Lives::default()
    }
}

impl Watched for Lives {
    fn at(&mut self, time: u32, op: &Op) {
        self.now = time;
        self.id = match op {
            Op::Alloc(alloc) => Some(alloc.id),
            _ => None,
        };
    }

    fn into_lives(self) -> Lives {
        self
    }
}

type Watchers<L> = (MemorySeries, (FragmentationSeries, L));

/// The first `ops` operations.
fn watch<L: Watched>(
    program: &Program,
    terms: &Terms,
    ops: u32,
    mut watchers: Watchers<L>,
) -> (MemorySeries, FragmentationSeries, Lives) {
    let trace = &program.trace;
    let config = PyTorchConfig {
        release: terms.release,
        conf: terms.conf.clone(),
        caching: terms.caching,
        events: terms.events,
    };
    let device = Device::new(DeviceConfig {
        context: terms.context,
        external: terms.external,
        addresses: terms.addresses,
        ..DeviceConfig::new(trace.device(), terms.capacity)
    });
    let mut model = PyTorch::new(config, device, trace.streams(), trace.pools());
    model.start(trace, &mut watchers);
    let mut asked = 0;
    for op in trace.ops().iter().take(ops as usize) {
        watchers.0.begin(OpIndex(asked));
        watchers.1.0.at = OpIndex(asked);
        watchers.1.1.at(asked.saturating_add(1), op);
        let failure = replay_op(trace, op, &mut model, &mut watchers);
        asked += u32::from(!matches!(op, Op::FreeCompleted(_)));
        if failure.is_some() && terms.on_oom == OnOom::Stop {
            break;
        }
    }
    let (memory, (fragmentation, lives)) = watchers;
    (memory, fragmentation, lives.into_lives())
}
