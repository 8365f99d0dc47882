//! The operations of a packed trace.

use super::{
    PackedFault as Fault, columns,
    decode::{check, next},
    kind,
};
use crate::{
    base::{AllocId, Bytes, Id, PoolId, StreamId},
    trace::{Control, Op, PoolIndex, TraceBuilder},
};

/// What became of an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Live,
    Pending,
    Gone,
}

/// Gives all operations to a builder that knows the streams, the pools and the start. `states` are those
/// of the allocations of the start. Returns how many allocations there are with those, too.
pub(super) fn unpack_ops(
    mut builder: TraceBuilder,
    mut states: Vec<State>,
    ops: &columns::Ops,
    controls: Vec<columns::Control>,
    pools: &[PoolIndex],
    streams: usize,
) -> Result<(TraceBuilder, usize), Fault> {
    let mut controls = controls.into_iter();
    let (mut sizes, mut streams_of) = (ops.sizes.iter(), ops.streams.iter());
    let (mut pools_of, mut ages) = (ops.pools.iter(), ops.ages.iter());
    let mut stream = || {
        let stream = next(&mut streams_of)?;
        check(usize::from(stream) < streams, "a stream")?;
        Ok::<_, Fault>(StreamId(stream))
    };
    builder.reserve(ops.kinds.len());
    for &kind in &ops.kinds {
        match kind {
            kind::ALLOC_PLAIN | kind::ALLOC => {
                let (size, stream) = (Bytes(next(&mut sizes)?), stream()?);
                let pool = match usize::from(next(&mut pools_of)?).checked_sub(1) {
                    Some(at) => Some(*pools.get(at).ok_or(Fault::Contents("a pool"))?),
                    None => None,
                };
                let id = builder.alloc(size, stream, pool)?;
                check(id.index() == states.len(), "the number of an allocation")?;
                states.push(State::Live);
            }
            kind::FREE_PLAIN | kind::FREE | kind::FREE_PENDING => {
                let id = named(&states, next(&mut ages)?, State::Live)?;
                let is_pending = kind == kind::FREE_PENDING;
                builder.free(id, is_pending)?;
                states[id.index()] = if is_pending { State::Pending } else { State::Gone };
            }
            kind::FREE_COMPLETED => {
                let id = named(&states, next(&mut ages)?, State::Pending)?;
                states[id.index()] = State::Gone;
                builder.push(Op::FreeCompleted(id))?;
            }
            kind::RECORD_STREAM => {
                let id = named(&states, next(&mut ages)?, State::Live)?;
                builder.record_stream(id, stream()?)?;
            }
            kind::EMPTY_CACHE => builder.push(Op::EmptyCache)?,
            kind::CONTROL => {
                let control = controls.next().ok_or(Fault::Contents("a control"))?;
                builder.control(match control {
                    columns::Control::Snapshot => Control::Snapshot(None),
                    columns::Control::EmptyPool(a, b) => Control::EmptyPool(PoolId(a, b)),
                    columns::Control::PoolRelease(a, b) => Control::PoolRelease(PoolId(a, b)),
                })?;
            }
            _ => return Err(Fault::Contents("the kind of an operation")),
        }
    }
    Ok((builder, states.len()))
}

/// The allocation of that age, which is in that state.
#[inline]
fn named(states: &[State], age: u32, state: State) -> Result<AllocId, Fault> {
    let index = states.len().checked_sub(age as usize).filter(|i| states.get(*i) == Some(&state));
    index.map(AllocId::from_index).ok_or(Fault::Contents("the name of an allocation"))
}
