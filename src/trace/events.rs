//! [`Events`]: what a recording or a replay shows, in 16 bytes an event.
//!
//! There are millions, and memory that is touched for the first time is what keeping them costs.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::{Action, Event};
use crate::base::{Addr, Bytes, PoolId, StreamHandle};

/// Many [`Event`]s in order. There are only a few places (a stream and a pool), so each event names
/// its place by number.
#[derive(Clone, Debug, Default)]
pub struct Events {
    rows: Vec<Row>,
    /// Events that no [`Row`] has room for, by the number in its size.
    wide: Vec<Event>,
    places: Vec<(StreamHandle, PoolId)>,
    numbers: FxHashMap<(StreamHandle, PoolId), Place>,
    /// The place that was asked for last.
    latest: Option<((StreamHandle, PoolId), Place)>,
}

/// Where events happen: a stream and a pool of one [`Events`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

/// An event: its address, the number of its place, and its action in one word.
#[derive(Clone, Copy, Debug)]
struct Row {
    head: u64,
    size: u64,
}

const ACTION_BITS: u32 = 4;
const PLACE_BITS: u32 = 12;
/// What addresses of a process fit into.
const ADDR_BITS: u32 = 64 - PLACE_BITS - ACTION_BITS;
/// The bits of the action.
const ACTION: u64 = (1 << ACTION_BITS) - 1;
/// In place of an action: the event is among the wide ones.
const WIDE: u64 = ACTION;

const _: () = assert!(size_of::<Row>() == 16 && Action::ALL.len() < 1 << ACTION_BITS);

impl Row {
    /// `None` if there is no room.
    #[inline]
    fn new(place: Place, action: Action, addr: Addr, size: Bytes) -> Option<Self> {
        let place = u64::from(place.0);
        let has_room = addr.0 >> ADDR_BITS == 0 && place >> PLACE_BITS == 0;
        let head = addr.0 << (64 - ADDR_BITS) | place << ACTION_BITS | u64::from(action as u8);
        has_room.then_some(Self { head, size: size.0 })
    }

    /// What was put in; `None` for a wide one.
    #[inline]
    fn parts(self) -> Option<(Place, Action, Addr, Bytes)> {
        let low = u16::try_from(self.head & 0xffff).unwrap_or_default();
        let action = *Action::ALL.get(usize::from(low & 15))?;
        let place = Place(u32::from(low >> ACTION_BITS));
        Some((place, action, Addr(self.head >> (64 - ADDR_BITS)), Bytes(self.size)))
    }
}

impl Events {
    /// None yet, with room for so many.
    pub fn with_capacity(events: usize) -> Self {
        Self { rows: Vec::with_capacity(events), ..Self::default() }
    }

    /// No events any more; the memory is kept.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.wide.clear();
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
        let Some((place, action, addr, size)) = row.parts() else {
            let wide = usize::try_from(row.size).ok().and_then(|at| self.wide.get(at));
            return *wide.expect("each row that says so has its wide event");
        };
        let place = self.places.get(place.0 as usize).copied();
        let (stream, pool) = place.unwrap_or_default();
        Event { action, addr, size, stream, pool }
    }

    #[inline]
    fn row(&mut self, place: Place, action: Action, addr: Addr, size: Bytes) -> Row {
        Row::new(place, action, addr, size)
            .unwrap_or_else(|| self.wide_row(place, action, addr, size))
    }

    #[cold]
    fn wide_row(&mut self, place: Place, action: Action, addr: Addr, size: Bytes) -> Row {
        let (stream, pool) = self.places.get(place.0 as usize).copied().unwrap_or_default();
        self.wide.push(Event { action, addr, size, stream, pool });
        Row { head: WIDE, size: self.wide.len() as u64 - 1 }
    }

    /// The number of a place, new or old.
    #[inline]
    pub fn place(&mut self, stream: StreamHandle, pool: PoolId) -> Place {
        if let Some((known, number)) = self.latest
            && known == (stream, pool)
        {
            return number;
        }
        self.find_place(stream, pool)
    }

    #[cold]
    fn find_place(&mut self, stream: StreamHandle, pool: PoolId) -> Place {
        // There are no more places than events, and a trace holds fewer than 2^32 of these.
        let next = Place(u32::try_from(self.places.len()).unwrap_or(u32::MAX));
        let number = *self.numbers.entry((stream, pool)).or_insert(next);
        if number == next {
            self.places.push((stream, pool));
        }
        self.latest = Some(((stream, pool), number));
        number
    }

    /// Appends an event.
    #[inline]
    pub fn push(&mut self, event: Event) {
        let Event { action, addr, size, stream, pool } = event;
        let place = self.place(stream, pool);
        self.push_at(place, action, addr, size);
    }

    /// Appends an event at a place of these events, see [`Events::place`].
    #[inline]
    pub fn push_at(&mut self, place: Place, action: Action, addr: Addr, size: Bytes) {
        let row = self.row(place, action, addr, size);
        self.rows.push(row);
    }

    /// Appends what the event at `at` was, but for its action.
    ///
    /// # Panics
    /// When there is no event at `at`.
    #[inline]
    pub fn push_like(&mut self, at: usize, action: Action) {
        let row = self.rows[at];
        if row.head & ACTION == WIDE {
            return self.push(Event { action, ..self.event(&row) });
        }
        self.rows.push(Row { head: row.head & !ACTION | u64::from(action as u8), ..row });
    }

    /// The position of the last event of an action; faster than a look at all of them.
    pub fn last_of(&self, action: Action) -> Option<usize> {
        let is_it = |row: &Row| match row.head & ACTION {
            WIDE => self.event(row).action == action,
            number => number == u64::from(action as u8),
        };
        self.rows.iter().rposition(is_it)
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
        if at < self.rows.len() {
            self.rows[at] = self.row(place, action, addr, size);
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
    fn what_no_row_has_room_for_comes_out_too() {
        let far = Event { addr: Addr(u64::MAX), size: Bytes(u64::MAX), ..event(0, 1) };
        let mut events: Events = (0..5000).map(|stream| event(1 << 47, stream)).collect();
        events.push(far);
        assert_eq!(events.iter().position(|event| event == far), Some(5000));
        assert!(events.iter().take(5000).eq((0..5000).map(|stream| event(1 << 47, stream))));
        events.set(0, far);
        events.set_pool(5000, PoolId(0, 9));
        assert_eq!(events.get(0), Some(far));
        assert_eq!(events.get(5000), Some(Event { pool: PoolId(0, 9), ..far }));
        assert!(!events.wide.is_empty());
    }

    #[test]
    fn an_event_like_another_differs_in_its_action() {
        let far = Event { addr: Addr(u64::MAX), ..event(0, 1) };
        let mut events: Events = [event(1, 7), far].into_iter().collect();
        assert_eq!(events.last_of(Action::Oom), None);
        events.push_like(0, Action::FreeRequested);
        events.push_like(1, Action::Oom);
        assert_eq!(events.get(2), Some(Event { action: Action::FreeRequested, ..event(1, 7) }));
        assert_eq!(events.get(3), Some(Event { action: Action::Oom, ..far }));
        assert_eq!(events.last_of(Action::FreeRequested), Some(2));
        assert_eq!(events.last_of(Action::Oom), Some(3));
    }

    #[test]
    fn the_order_in_which_places_were_named_does_not_count() {
        let mut other: Events = [event(1, 0)].into_iter().collect();
        other.set(0, event(1, 7));
        assert_eq!(other, [event(1, 7)].into_iter().collect());
        assert_ne!(other, [event(1, 0)].into_iter().collect());
    }
}
