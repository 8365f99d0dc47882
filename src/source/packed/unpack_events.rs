//! The events of a packed trace.

use std::num::NonZeroU32;

use super::{
    PackedFault as Fault, columns,
    decode::{ADDR_LIMIT, SIZE_LIMIT, check, next},
    encode::{EXPECTED_FREE, expected_alloc},
    kind,
};
use crate::{
    base::{Addr, Bytes, PoolId, StreamHandle},
    trace::{Action, Event, Events},
};

/// The streams (handle and id) and pools that operations name by number.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) streams: &'a [(u64, u64)],
    pub(super) pools: &'a [(u64, u64)],
}

impl Places<'_> {
    fn stream(self, index: u16) -> Result<StreamHandle, Fault> {
        let stream = self.streams.get(usize::from(index));
        stream.map(|stream| StreamHandle(stream.0)).ok_or(Fault::Contents("a stream"))
    }

    fn pool(self, number: u16) -> Result<PoolId, Fault> {
        let Some(at) = usize::from(number).checked_sub(1) else { return Ok(PoolId::DEFAULT) };
        let pool = self.pools.get(at).ok_or(Fault::Contents("a pool"))?;
        Ok(PoolId(pool.0, pool.1))
    }
}

/// The position of an event. Four bytes, and `Option<EventIndex>` too.
#[derive(Clone, Copy)]
struct EventIndex(NonZeroU32);

impl EventIndex {
    fn of(index: usize) -> Option<Self> {
        u32::try_from(index + 1).ok().and_then(NonZeroU32::new).map(Self)
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// All events, and the position of the first one of each operation, and one position more. Before the
/// first operation there were `at_start` allocations.
pub(super) fn unpack_events(
    at_start: usize,
    ops: &columns::Ops,
    written: &columns::Events,
    places: Places<'_>,
) -> Result<(Events, Vec<u32>), Fault> {
    let count = ops.kinds.len();
    let mut events = Events::with_capacity(count + count / 2);
    let mut first_event = Vec::with_capacity(count + 1);
    // Where the event of each allocation so far is, if it is the expected one.
    let mut made: Vec<Option<EventIndex>> = vec![None; at_start];
    let (mut sizes, mut streams) = (ops.sizes.iter(), ops.streams.iter());
    let (mut pools, mut addrs) = (ops.pools.iter(), ops.addrs.iter());
    let (mut ages, mut counts) = (ops.ages.iter(), ops.counts.iter());
    let mut rows = 0..;
    for &kind in &ops.kinds {
        first_event.push(number(events.len())?);
        match kind {
            kind::ALLOC_PLAIN | kind::ALLOC => {
                let (size, stream) = (Bytes(next(&mut sizes)?), next(&mut streams)?);
                let pool = next(&mut pools)?;
                made.push(EventIndex::of(events.len()).filter(|_| kind == kind::ALLOC_PLAIN));
                if kind == kind::ALLOC_PLAIN {
                    let (addr, stream) = (Addr(next(&mut addrs)?), places.stream(stream)?);
                    let event = expected_alloc(addr, size, stream, places.pool(pool)?);
                    events.push(checked(event)?);
                }
            }
            kind::FREE_PLAIN | kind::FREE | kind::FREE_PENDING | kind::FREE_COMPLETED => {
                let age = next(&mut ages)?;
                if kind == kind::FREE_PLAIN {
                    let at = made.len().checked_sub(age as usize);
                    let event = at.and_then(|at| made.get(at).copied().flatten());
                    let event = event.ok_or(Fault::Contents("the events of a free"))?;
                    for action in EXPECTED_FREE {
                        events.push_like(event.index(), action);
                    }
                }
            }
            kind::RECORD_STREAM => {
                next(&mut ages)?;
                next(&mut streams)?;
            }
            _ => {}
        }
        if kind != kind::ALLOC_PLAIN && kind != kind::FREE_PLAIN {
            for at in rows.by_ref().take(next(&mut counts)? as usize) {
                events.push(checked(event(written, at)?)?);
            }
        }
    }
    first_event.push(number(events.len())?);
    Ok((events, first_event))
}

fn number(events: usize) -> Result<u32, Fault> {
    u32::try_from(events).map_err(|_| Fault::Contents("the number of events"))
}

#[inline]
fn checked(event: Event) -> Result<Event, Fault> {
    check(event.addr.0 < ADDR_LIMIT && event.size.0 < SIZE_LIMIT, "an event")?;
    Ok(event)
}

fn event(events: &columns::Events, at: usize) -> Result<Event, Fault> {
    let missing = Fault::Contents("the length of a column");
    let row = || {
        let action = Action::ALL.get(usize::from(*events.actions.get(at)?)).copied()?;
        let pool = events.pools.get(at)?;
        Some(Event {
            action,
            addr: Addr(*events.addrs.get(at)?),
            size: Bytes(*events.sizes.get(at)?),
            stream: StreamHandle(*events.streams.get(at)?),
            pool: PoolId(pool.0, pool.1),
        })
    };
    row().ok_or(missing)
}
