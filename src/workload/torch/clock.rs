//! How far the work of each stream has come, for a device that runs behind its host.

use std::collections::HashMap;

use super::{StreamRef, Torch};
use crate::{
    base::{AllocId, StreamId},
    trace::Op,
};

/// A point in the work of a stream (`torch.cuda.Event`).
#[derive(Clone, Copy, Debug)]
pub struct EventRef {
    stream: StreamRef,
    at: u64,
}

/// The streams of a device that does nothing until the host waits for it. Memory that another stream
/// uses, too, stays pending after its free, as the real allocator would find it.
///
/// A trace that leaves this to the replay could only say that all work of a stream is done; a host
/// that waits for one event leaves the work behind it undone.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Whether the device runs behind; otherwise everything is done at once.
    pub(super) late: bool,
    submitted: HashMap<StreamId, u64>,
    /// Other streams that use an allocation.
    uses: HashMap<AllocId, Vec<StreamId>>,
    /// Freed, with the events that must be done before: in the order of the frees.
    pending: Vec<(AllocId, Vec<(StreamId, u64)>)>,
}

impl Clock {
    /// Notes that `stream` uses an allocation of another stream.
    pub(super) fn use_on(&mut self, id: AllocId, stream: StreamId) {
        let streams = self.uses.entry(id).or_default();
        if !streams.contains(&stream) {
            streams.push(stream);
        }
    }

    fn submit(&mut self, stream: StreamId) -> u64 {
        let count = self.submitted.entry(stream).or_default();
        *count += 1;
        *count
    }

    /// A free: whether the memory has to wait.
    pub(super) fn free(&mut self, id: AllocId) -> bool {
        let Some(streams) = self.uses.remove(&id) else { return false };
        let events = streams.into_iter().map(|stream| (stream, self.submit(stream))).collect();
        self.pending.push((id, events));
        true
    }

    /// The work of a stream, or of all, is done up to a point: what need not wait any longer.
    fn complete(&mut self, stream: Option<StreamId>, at: u64) -> Vec<AllocId> {
        let is_done =
            |event: &(StreamId, u64)| stream.is_none_or(|s| s == event.0) && event.1 <= at;
        let mut done = Vec::new();
        self.pending.retain_mut(|(id, events)| {
            events.retain(|event| !is_done(event));
            if events.is_empty() {
                done.push(*id);
            }
            !events.is_empty()
        });
        done
    }
}

impl Torch {
    /// From now on the devices do nothing until the host waits for them.
    pub fn run_late(&self) {
        self.0.memory.borrow_mut().run_late();
    }

    /// `stream.record_event()`.
    pub fn record_event(&self, stream: StreamRef) -> EventRef {
        let mut memory = self.0.memory.borrow_mut();
        let at = memory.clock(stream.device).map_or(0, |clock| clock.submit(stream.stream));
        EventRef { stream, at }
    }

    /// `event.synchronize()`: the host waits for the work before the event.
    pub fn synchronize_event(&self, event: EventRef) {
        self.complete(event.stream.device, Some(event.stream.stream), event.at);
    }

    /// `torch.cuda.synchronize()`: the host waits for the current device.
    pub fn synchronize(&self) {
        self.complete(self.0.device.get(), None, u64::MAX);
    }

    fn complete(&self, device: usize, stream: Option<StreamId>, at: u64) {
        let mut memory = self.0.memory.borrow_mut();
        let done = memory.clock(device).map(|clock| clock.complete(stream, at));
        for id in done.unwrap_or_default() {
            memory.push(device, Op::FreeCompleted(id));
        }
    }
}
