//! The entries of a history as events.

use super::{
    raw::{Action, Entry, Snapshot},
    start::StartLive,
};
use crate::trace::{Event, Events, Place};

/// What the real allocator did, by its entries alone: where they do not name a pool, that of the
/// default pool. Annotations are no events; a free that lost its first half gets it back.
pub(super) fn events(snapshot: &Snapshot, entries: &[Entry]) -> Events {
    let has_tail = StartLive::has_tail(entries);
    let mut events = Events::with_capacity(entries.len() + usize::from(has_tail));
    let mut places: Vec<Option<Place>> = vec![None; snapshot.sites.len()];
    if has_tail && let Some(tail) = entries.first() {
        events.push(Event { action: Action::FreeRequested, ..event(snapshot, tail) });
    }
    for entry in entries.iter().filter(|entry| entry.action != Action::Annotate) {
        match places.get_mut(crate::base::Id::index(entry.site)) {
            Some(Some(place)) => events.push_at(*place, entry.action, entry.addr, entry.size),
            Some(unknown) => {
                let Event { action, addr, size, stream, pool } = event(snapshot, entry);
                let place = *unknown.insert(events.place(stream, pool));
                events.push_at(place, action, addr, size);
            }
            None => events.push(event(snapshot, entry)),
        }
    }
    events
}

fn event(snapshot: &Snapshot, entry: &Entry) -> Event {
    Event {
        action: entry.action,
        addr: entry.addr,
        size: entry.size,
        stream: snapshot.site(entry).stream,
        pool: snapshot.pool(entry).unwrap_or_default(),
    }
}
