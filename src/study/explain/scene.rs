//! [`Scene`]: the moment that is to be explained, and the allocator just before and after it.

use crate::{
    base::{AllocId, Bytes, Id, OpIndex, StreamId},
    models::pytorch::PyTorch,
    observe::{FragmentationSeries, Peak},
    sim::{AllocError, Allocator, Device, Observer, replay_op},
    study::whatif::{Program, Terms},
    trace::{AllocOp, FreeOp, Op, PoolIndex},
};

/// What is to be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The n-th request that fails, counted from 1.
    Failure(u32),
    /// A request that the program does not make, before one of its operations.
    Request {
        /// The operation, counted as [`Program::asked`] counts.
        before: u64,
        /// Bytes.
        size: Bytes,
        /// The stream.
        stream: StreamId,
        /// The private pool, if one is to serve it.
        pool: Option<PoolIndex>,
    },
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It failed when it was recorded.
    Recorded,
    /// It is an operation of the program.
    Program,
    /// It is made up.
    Asked,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SceneError {
    /// There are not that many operations.
    #[error("there is no operation {at}: the program has {ops}, counted from 0")]
    NoOperation {
        /// What was asked for.
        at: u64,
        /// How many there are.
        ops: u64,
    },
    /// No such private pool.
    #[error("there is no private pool {pool}: the trace names {count}, counted from 0")]
    NoPool {
        /// What was asked for.
        pool: usize,
        /// How many there are.
        count: usize,
    },
    /// No such stream.
    #[error("there is no stream {stream}: the trace names {count}, counted from 0")]
    NoStream {
        /// What was asked for.
        stream: u16,
        /// How many there are.
        count: usize,
    },
}

/// A request at its moment.
#[derive(Debug)]
pub struct Scene {
    /// The operation that it is, or before which it is made, counted as [`Program::asked`] counts.
    pub op: u64,
    /// The operation in the trace before which the allocator is looked at.
    pub index: OpIndex,
    /// What is asked.
    pub request: AllocOp,
    /// Where it comes from.
    pub origin: Origin,
    /// Its position in [`Program::failed`], if it was recorded as failed.
    pub failed: Option<usize>,
    /// The allocator before the request.
    pub before: PyTorch,
    /// The allocator after it.
    pub after: PyTorch,
    /// Why it fails; `None` if it is served.
    pub error: Option<AllocError>,
    /// Fragmentation up to here.
    pub series: FragmentationSeries,
    /// The worst moments up to here.
    pub peak: Peak,
}

/// Stretches of [`Scene::series`].
const STRETCHES: usize = 512;

/// A place in a program: before a request that failed in the recording, or before an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    Failed(usize),
    Op(usize),
}

enum Stop {
    AtFailure(u32),
    Before(Spot),
}

/// Whether the program asks this, and the outside does not tell it.
fn is_asked(op: &Op) -> bool {
    !matches!(op, Op::FreeCompleted(_))
}

impl Scene {
    /// The moment; `None` if fewer requests fail.
    ///
    /// # Errors
    /// When the question names what is not there.
    ///
    /// # Complexity
    /// Two replays.
    pub fn of(
        program: &Program,
        terms: &Terms,
        question: &Question,
    ) -> Result<Option<Self>, SceneError> {
        let spot = match question {
            Question::Failure(nth) => {
                let (_, stopped) = walk(program, terms, &Stop::AtFailure(*nth), &mut ((), ()));
                match stopped {
                    Some(stopped) => stopped,
                    None => return Ok(None),
                }
            }
            Question::Request { before, stream, pool, .. } => {
                let pools = program.trace.pools().len();
                if let Some(pool) = pool.filter(|pool| pool.index() >= pools) {
                    return Err(SceneError::NoPool { pool: pool.index(), count: pools });
                }
                let count = program.trace.streams().len();
                if stream.index() >= count {
                    return Err(SceneError::NoStream { stream: stream.0, count });
                }
                spot_of(program, *before)?
            }
        };
        let mut watch = (FragmentationSeries::new(STRETCHES), Peak::default());
        let (before, _) = walk(program, terms, &Stop::Before(spot), &mut watch);
        let fresh = AllocId(program.trace.alloc_count());
        let (index, origin, failed) = match (spot, question) {
            (Spot::Failed(at), _) => (program.failed[at].0, Origin::Recorded, Some(at)),
            (Spot::Op(at), Question::Failure(_)) => {
                (OpIndex::from_index(at), Origin::Program, None)
            }
            (Spot::Op(at), _) => (OpIndex::from_index(at), Origin::Asked, None),
        };
        let request = match *question {
            Question::Request { size, stream, pool, .. } => {
                AllocOp { id: fresh, stream, pool, size }
            }
            Question::Failure(_) => match (failed, program.trace.ops().get(index.index())) {
                (Some(at), _) => AllocOp { id: fresh, ..program.failed[at].1 },
                (None, Some(Op::Alloc(request))) => *request,
                (None, _) => return Ok(None),
            },
        };
        let ops = &program.trace.ops()[..index.index()];
        let op = ops.iter().filter(|op| is_asked(op)).count() as u64;
        let mut after = before.clone();
        watch.at(op);
        let error = after.malloc(&request, &mut (&mut watch.0, &mut watch.1)).err();
        let (series, peak) = watch;
        Ok(Some(Self { op, index, request, origin, failed, before, after, error, series, peak }))
    }

    /// Whether the request is served where these allocations were freed just before: asked of the
    /// model itself. Not counted is what the real allocator serves only by damaging its own state
    /// ([`PyTorch::is_damaged`]).
    pub fn is_served_without(&self, freed: &[AllocId]) -> bool {
        let mut model = self.before.clone();
        for id in freed {
            model.free(&FreeOp { id: *id, pending: false }, &mut ());
        }
        let is_served = matches!(model.malloc(&self.request, &mut ()), Ok(Some(_)));
        is_served && model.is_damaged() == self.before.is_damaged()
    }
}

fn spot_of(program: &Program, before: u64) -> Result<Spot, SceneError> {
    let mut asked = 0;
    for (i, op) in program.trace.ops().iter().enumerate() {
        if is_asked(op) {
            if asked == before {
                return Ok(Spot::Op(i));
            }
            asked += 1;
        }
    }
    if asked == before {
        return Ok(Spot::Op(program.trace.ops().len()));
    }
    Err(SceneError::NoOperation { at: before, ops: asked })
}

/// A watcher that is told which operation is being done.
trait Watch: Observer {
    fn at(&mut self, op: u64);
}

impl Watch for ((), ()) {
    fn at(&mut self, _op: u64) {}
}

impl Watch for (FragmentationSeries, Peak) {
    fn at(&mut self, op: u64) {
        let op = OpIndex(u32::try_from(op).unwrap_or(u32::MAX));
        (self.0.at, self.1.at) = (op, op);
    }
}

/// Replays up to a place. What failed in the recording is asked at its place; where it fails again,
/// what the allocator gave back before it failed stays given back.
fn walk<W: Watch>(
    program: &Program,
    terms: &Terms,
    stop: &Stop,
    watch: &mut W,
) -> (PyTorch, Option<Spot>) {
    let trace = &program.trace;
    let device = Device::new(terms.device(trace.device()));
    let mut model = PyTorch::new(terms.config(), device, trace.streams(), trace.pools());
    model.start(trace, watch);
    let (mut asked, mut failures) = (0, 0);
    let mut failed = program.failed.iter().enumerate().peekable();
    for i in 0..=trace.ops().len() {
        while let Some((k, (_, request))) = failed.next_if(|(_, (op, _))| op.index() <= i) {
            if matches!(stop, Stop::Before(spot) if *spot == Spot::Failed(k)) {
                return (model, Some(Spot::Failed(k)));
            }
            let mut copy = model.clone();
            let request = AllocOp { id: AllocId(trace.alloc_count()), ..*request };
            if copy.malloc(&request, &mut ()).is_err() {
                failures += 1;
                if matches!(stop, Stop::AtFailure(nth) if *nth == failures) {
                    return (copy, Some(Spot::Failed(k)));
                }
                watch.at(asked);
                let _ = model.malloc(&request, watch);
            }
        }
        if matches!(stop, Stop::Before(spot) if *spot == Spot::Op(i)) {
            return (model, Some(Spot::Op(i)));
        }
        let Some(op) = trace.ops().get(i) else { break };
        watch.at(asked);
        asked += u64::from(is_asked(op));
        let failure = replay_op(trace, op, &mut model, watch);
        if failure.is_some_and(|failure| failure.asked.is_some()) {
            failures += 1;
            if matches!(stop, Stop::AtFailure(nth) if *nth == failures) {
                return (model, Some(Spot::Op(i)));
            }
        }
    }
    (model, None)
}
