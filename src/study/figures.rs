//! [`Figures`]: what a search needs to know of a replay, and no more; [`Replayer`]: how to get many.
//!
//! [`super::whatif`] keeps all statistics, the moments and the final layout of one replay. A search
//! over thousands of settings asks only: does it survive, what does it take, what does it cost.

use crate::{
    base::{Bytes, PoolId},
    models::pytorch::PyTorch,
    observe::{Moment, Peak},
    sim::{AllocError, Allocator, CapacityLevels, Device, DeviceCalls, Observer, OnOom},
    trace::Stream,
};

use super::whatif::{Course, Program, Terms, Watch, drive};

/// The first request that was not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The operation, counted as [`Program::asked`] counts; a request that failed in the recording
    /// too stands before it.
    pub op: u64,
    /// What was asked; `None` for an operation other than a request.
    pub requested: Option<Bytes>,
    /// Why it failed.
    pub error: AllocError,
    /// Whether it failed when it was recorded, and so was no part of the program: the replay went on.
    pub failed_before: bool,
}

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The first request that was not served; `None` if all were, those that failed in the recording
    /// included.
    pub death: Option<Death>,
    /// Operations done, the failing one included.
    pub ops: u64,
    /// When most was handed out.
    pub allocated: Moment,
    /// When most was reserved.
    pub reserved: Moment,
    /// Times that everything was given back and the device asked again.
    pub retries: u64,
    /// Times that all pending events were waited for.
    pub synchronizations: u64,
    /// Calls of the driver.
    pub calls: DeviceCalls,
    /// Between which capacities the replay is the same, as far as the device decides.
    pub levels: CapacityLevels,
    /// See [`PyTorch::is_damaged`].
    pub is_damaged: bool,
}

impl Figures {
    /// Whether everything was served.
    pub fn survives(&self) -> bool {
        self.death.is_none()
    }

    /// Most bytes reserved beyond the most that were handed out: the price of caching and
    /// fragmentation, at the peaks.
    pub fn waste(&self) -> Bytes {
        self.reserved.reserved.saturating_sub(self.allocated.allocated)
    }
}

/// Counts what happens seldom.
#[derive(Clone, Copy, Debug, Default)]
struct Seldom {
    retries: u64,
    synchronizations: u64,
}

impl Observer for Seldom {
    fn alloc_retry(&mut self) {
        self.retries += 1;
    }

    fn sync_all_streams(&mut self) {
        self.synchronizations += 1;
    }
}

impl Watch for Seldom {}

/// Replays one program after another and keeps its memory between them.
#[derive(Debug, Default)]
pub struct Replayer {
    /// The model of the last replay, and the streams and pools that it knows.
    model: Option<PyTorch>,
    streams: Vec<Stream>,
    pools: Vec<PoolId>,
    replays: u64,
}

impl Replayer {
    /// One that has not replayed anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replays so far.
    pub fn replays(&self) -> u64 {
        self.replays
    }

    /// A model as new under these terms. The one place where models of searches come from.
    fn model(&mut self, program: &Program, terms: &Terms) -> &mut PyTorch {
        let (config, trace) = (terms.config(), &program.trace);
        let device = terms.device(trace.device());
        let knows =
            trace.streams().iter().eq(&self.streams) && trace.pools().iter().eq(&self.pools);
        match self.model.take().filter(|_| knows) {
            Some(mut model) => {
                model.restart(config, device);
                self.model.insert(model)
            }
            None => {
                self.streams = trace.streams().iter().copied().collect();
                self.pools = trace.pools().iter().copied().collect();
                let device = Device::new(device);
                let model = PyTorch::new(config, device, trace.streams(), trace.pools());
                self.model.insert(model)
            }
        }
    }

    /// Replays a program. Says the same as [`super::whatif::whatif`], but less of it; events are not
    /// kept, whatever the terms say.
    ///
    /// # Complexity
    /// As there.
    pub fn figures(&mut self, program: &Program, terms: &Terms) -> Figures {
        self.replays += 1;
        let model = self.model(program, terms);
        let mut watch = (Peak::default(), Seldom::default());
        let course = drive(program, terms, model, &mut watch);
        let (peak, seldom) = watch;
        Figures {
            ops: course.asked,
            allocated: peak.allocated,
            reserved: peak.reserved,
            retries: seldom.retries,
            synchronizations: seldom.synchronizations,
            calls: model.device().calls(),
            levels: model.device().levels().and(course.levels_of_asked_again),
            is_damaged: model.is_damaged(),
            death: death(course, terms.on_oom),
        }
    }
}

/// The first of the requests that failed, of the program or asked again.
fn death(course: Course, on_oom: OnOom) -> Option<Death> {
    debug_assert!(on_oom == OnOom::Skip || course.outcome.failures <= 1);
    let again = course.asked_again.into_iter().find_map(|again| {
        let error = again.error?;
        let (op, requested) = (u64::from(again.op.0), Some(again.asked.size));
        Some(Death { op, requested, error, failed_before: true })
    });
    let own = course.outcome.first_failure.map(|failure| Death {
        op: course.first_failure_asked.unwrap_or_default(),
        requested: failure.asked.map(|asked| asked.size),
        error: failure.error,
        failed_before: false,
    });
    match (again, own) {
        (Some(again), Some(own)) => Some(if again.op <= own.op { again } else { own }),
        (again, own) => again.or(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::Release,
        models::pytorch::conf::AllocConf,
        study::whatif::{Start, whatif},
        trace::script,
    };

    const STRANDED: &str = "a = alloc 6MiB; b = alloc 6MiB; c = alloc 6MiB; \
                            d = alloc 6MiB; e = alloc 6MiB; f = alloc 6MiB; \
                            free a; free c; free d; free f; g = alloc 16MiB";

    fn terms(conf: &str, capacity: Bytes) -> Terms {
        let (conf, _) = AllocConf::from_string(Release::NEWEST, conf).unwrap();
        Terms::new(Release::NEWEST, conf, capacity)
    }

    #[test]
    fn the_figures_are_those_of_the_full_replay() {
        let program = Program::of(&script::parse(STRANDED).unwrap(), Start::AsRecorded).unwrap();
        let mut replayer = Replayer::new();
        for conf in ["", "expandable_segments:True", "max_split_size_mb:21"] {
            for capacity in [40, 50, 1024] {
                let terms = terms(conf, Bytes::mib(capacity));
                let (full, lean) = (whatif(&program, &terms), replayer.figures(&program, &terms));
                assert_eq!(lean.survives(), full.outcome.completed);
                assert_eq!(lean.death.as_ref().map(|d| d.op), full.first_failure_asked);
                assert_eq!(
                    [lean.allocated, lean.reserved],
                    [full.peak.allocated, full.peak.reserved]
                );
                assert_eq!(i64::try_from(lean.retries), Ok(full.stats.num_alloc_retries));
                assert_eq!((lean.calls, lean.ops), (full.calls, full.asked));
            }
        }
        assert_eq!(replayer.replays(), 9);
    }

    /// 56 MiB serve everything; below, the last request is refused, and 40 MiB is what the others
    /// take.
    #[test]
    fn between_its_levels_a_replay_is_the_same() {
        let program = Program::of(&script::parse(STRANDED).unwrap(), Start::AsRecorded).unwrap();
        let mut replayer = Replayer::new();
        let mut levels = |mib| replayer.figures(&program, &terms("", Bytes::mib(mib))).levels;
        let roomy = CapacityLevels { granted: Bytes::mib(56), refused: Bytes::MAX };
        let tight = CapacityLevels { granted: Bytes::mib(40), refused: Bytes::mib(56) };
        assert_eq!([levels(56), levels(2000)], [roomy; 2]);
        assert_eq!([levels(40), levels(55)], [tight; 2]);
    }
}
