//! [`Events`]: what a recording shows, in 24 bytes an event.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::{Action, Event};
use crate::base::{Addr, Bytes, PoolId, StreamHandle};

/// Many [`Event`]s in order. A recording has millions but only a few places (a stream and a pool), so
/// each event names its place by number.
#[derive(Clone, Debug, Default)]
pub struct Events {
    rows: Vec<Row>,
    places: Vec<(StreamHandle, PoolId)>,
    numbers: FxHashMap<(StreamHandle, PoolId), Place>,
}

/// Where events happen: a stream and a pool of one [`Events`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

#[derive(Clone, Copy, Debug)]
struct Row {
    addr: Addr,
    size: Bytes,
    place: Place,
    action: Action,
}

const _: () = assert!(size_of::<Row>() == 24);

impl Events {
    /// None yet, with room for so many.
    pub fn with_capacity(events: usize) -> Self {
        Self { rows: Vec::with_capacity(events), ..Self::default() }
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The event at `at`.
    #[inline]
    pub fn get(&self, at: usize) -> Option<Event> {
        self.rows.get(at).map(|row| self.event(row))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Event> + ExactSizeIterator {
        self.rows.iter().map(|row| self.event(row))
    }

    /// Those at these positions, in order; what lies beyond the end is left out.
    #[inline]
    pub fn range(
        &self,
        range: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = Event> + ExactSizeIterator {
        let end = range.end.min(self.rows.len());
        let rows = self.rows.get(range.start.min(end)..end).unwrap_or_default();
        rows.iter().map(|row| self.event(row))
    }

    #[inline]
    fn event(&self, row: &Row) -> Event {
        let place = self.places.get(row.place.0 as usize).copied();
        let (stream, pool) = place.unwrap_or_default();
        Event { action: row.action, addr: row.addr, size: row.size, stream, pool }
    }

    /// The number of a place, new or old.
    pub fn place(&mut self, stream: StreamHandle, pool: PoolId) -> Place {
        // There are no more places than events, and a trace holds fewer than 2^32 of these.
        let next = Place(u32::try_from(self.places.len()).unwrap_or(u32::MAX));
        let number = *self.numbers.entry((stream, pool)).or_insert(next);
        if number == next {
            self.places.push((stream, pool));
        }
        number
    }

    /// Appends an event.
    pub fn push(&mut self, event: Event) {
        let Event { action, addr, size, stream, pool } = event;
        // Most have the place of the one before.
        let known = self.rows.last().map(|row| row.place);
        let same = known.filter(|place| self.places[place.0 as usize] == (stream, pool));
        let place = same.unwrap_or_else(|| self.place(stream, pool));
        self.push_at(place, action, addr, size);
    }

    /// Appends an event at a place of these events, see [`Events::place`].
    #[inline]
    pub fn push_at(&mut self, place: Place, action: Action, addr: Addr, size: Bytes) {
        self.rows.push(Row { addr, size, place, action });
    }

    /// The event at `at`, if there is one, was of another pool.
    pub fn set_pool(&mut self, at: usize, pool: PoolId) {
        if let Some(event) = self.get(at) {
            self.set(at, Event { pool, ..event });
        }
    }

    /// Another event stands at `at`, if there is one.
    pub fn set(&mut self, at: usize, event: Event) {
        let Event { action, addr, size, stream, pool } = event;
        let place = self.place(stream, pool);
        if let Some(row) = self.rows.get_mut(at) {
            *row = Row { addr, size, place, action };
        }
    }
}

/// Equal are the events; how places are numbered does not count.
impl PartialEq for Events {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Events {}

impl Extend<Event> for Events {
    fn extend<I: IntoIterator<Item = Event>>(&mut self, events: I) {
        events.into_iter().for_each(|event| self.push(event));
    }
}

impl FromIterator<Event> for Events {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        let mut all = Self::default();
        all.extend(events);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(addr: u64, stream: u64) -> Event {
        Event {
            action: Action::Alloc,
            addr: Addr(addr),
            size: Bytes(1),
            stream: StreamHandle(stream),
            pool: PoolId::DEFAULT,
        }
    }

    #[test]
    fn events_come_out_as_they_went_in() {
        let all = [event(1, 7), event(2, 0), event(3, 7)];
        let events: Events = all.into_iter().collect();
        assert_eq!(events.iter().collect::<Vec<_>>(), all);
        assert_eq!(events.range(1..9).collect::<Vec<_>>(), all[1..]);
        assert_eq!(events.range(7..9).len(), 0);
        assert_eq!(events.get(2), Some(all[2]));
        assert_eq!(events.places.len(), 2);
    }

    #[test]
    fn the_order_in_which_places_were_named_does_not_count() {
        let mut other: Events = [event(1, 0)].into_iter().collect();
        other.set(0, event(1, 7));
        assert_eq!(other, [event(1, 7)].into_iter().collect());
        assert_ne!(other, [event(1, 0)].into_iter().collect());
    }
}
