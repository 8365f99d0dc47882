//! Frees that wait for other streams: CUDA events, captures, and what recordings say of them.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::PyTorch;
use crate::{
    base::{AllocId, BlockId, Id, PoolId, StreamId},
    sim::{AllocError, FlatHash, FlatKey, Observer, StreamClock, StreamEvent},
    trace::EventMode,
};

/// A stream as a key of PyTorch's hash tables: the bits of `c10::Stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamKey {
    pub stream: StreamId,
    bits: u64,
}

impl FlatKey for StreamKey {
    /// `c10::Stream::hash`: device type, device index, stream id.
    fn hash(self) -> u64 {
        self.bits
    }
}

type StreamSet = FlatHash<StreamKey, ()>;

/// What is known of the use of blocks on other streams.
#[derive(Clone, Debug)]
pub(super) struct Events {
    pub clock: StreamClock,
    /// `cuda_events`: a queue for each stream that something waits for.
    queues: FlatHash<StreamKey, VecDeque<(StreamEvent, BlockId)>>,
    /// `stream_uses` of the blocks that have any.
    uses: FxHashMap<BlockId, StreamSet>,
    /// `block_to_cudagraph_stream_uses`: those that were noted inside a capture.
    capture_uses: FxHashMap<BlockId, StreamSet>,
    /// `needs_events_deferred_until_no_capture`, `deferred_blocks`: freed under the guard.
    deferred: Vec<BlockId>,
}

impl Events {
    /// A block is no more: what was noted of it goes with it.
    #[inline]
    pub(super) fn forget_uses(&mut self, block: BlockId) {
        if !self.capture_uses.is_empty() {
            self.capture_uses.remove(&block);
        }
    }

    pub(super) fn new(streams: usize, mode: EventMode) -> Self {
        Self {
            clock: StreamClock::new(streams, mode),
            queues: FlatHash::default(),
            uses: FxHashMap::default(),
            capture_uses: FxHashMap::default(),
            deferred: Vec::new(),
        }
    }

    /// Whether no free waits for a stream or the end of a capture.
    pub(super) fn none_waits(&self) -> bool {
        self.deferred.is_empty() && self.queues.is_empty()
    }
}

/// Pending frees of a recording: it tells when they completed, not what they waited for.
#[derive(Clone, Debug, Default)]
pub(super) struct RecordedFrees {
    /// In the order of the frees.
    pending: Vec<(AllocId, BlockId)>,
    /// Completed according to the recording, in its order; seen at the next `malloc`.
    done: Vec<AllocId>,
    /// The order in which the recording's frees complete: that of a synchronisation.
    rank: FxHashMap<AllocId, usize>,
}

impl RecordedFrees {
    /// The recording's pending frees complete in this order.
    pub(super) fn expect(&mut self, order: &[AllocId]) {
        self.rank = order.iter().copied().zip(0..).collect();
    }

    /// Whether nothing is left to be seen by the next `malloc`.
    pub(super) fn none_done(&self) -> bool {
        self.done.is_empty()
    }

    pub(super) fn add(&mut self, id: AllocId, block: BlockId) {
        self.pending.push((id, block));
    }

    pub(super) fn complete(&mut self, id: AllocId) {
        if self.pending.iter().any(|(pending, _)| *pending == id) {
            self.done.push(id);
        }
    }

    fn take(&mut self, id: AllocId) -> Option<BlockId> {
        let at = self.pending.iter().position(|(pending, _)| *pending == id)?;
        Some(self.pending.remove(at).1)
    }
}

impl PyTorch {
    fn key_of(&self, stream: StreamId) -> StreamKey {
        let device = u64::from(self.device.config().index.0);
        let bits = 1 << 56 | device << 48 | self.streams[stream].id & 0xFFFF_FFFF_FFFF;
        StreamKey { stream, bits }
    }

    /// `recordStream`: no effect on the block's own stream.
    pub(super) fn record_stream_op(&mut self, id: AllocId, stream: StreamId) {
        let Some(block) = self.live.get(id).copied().flatten() else { return };
        if self.streams[stream].handle == self.place(block).stream {
            return;
        }
        let key = self.key_of(stream);
        self.blocks[block].set_used_elsewhere(true);
        self.events.uses.entry(block).or_default().insert(key, ());
        if self.rules.drops_uses_in_captures && self.private.any_begun() {
            self.events.capture_uses.entry(block).or_default().insert(key, ());
        }
    }

    /// The block is freed while a capture is under way: its events are recorded later.
    pub(super) fn defer(&mut self, block: BlockId) {
        self.events.deferred.push(block);
    }

    /// `insert_events`: one event on each stream that the block was used on.
    pub(super) fn insert_events(&mut self, block: BlockId) {
        let uses = self.events.uses.remove(&block).unwrap_or_default();
        self.blocks[block].set_used_elsewhere(false);
        for key in uses.keys() {
            let event = self.events.clock.record(key.stream);
            self.blocks.add_event(block);
            self.events.queues.insert(key, VecDeque::new());
            if let Some(queue) = self.events.queues.get_mut(key) {
                queue.push_back((event, block));
            }
        }
    }

    /// `insert_events_deferred_until_no_capture`. Uses noted inside the capture are dropped: the
    /// capture's end has waited for them.
    fn insert_deferred_events<O: Observer>(&mut self, observer: &mut O) {
        for block in std::mem::take(&mut self.events.deferred) {
            if let Some(captured) = self.events.capture_uses.remove(&block) {
                let uses = self.events.uses.remove(&block).unwrap_or_default();
                let mut kept = StreamSet::default();
                for key in uses.keys().filter(|key| !captured.contains(*key)) {
                    kept.insert(key, ());
                }
                self.events.uses.insert(block, kept);
            }
            self.insert_events(block);
            if self.blocks[block].is_free() {
                self.free_block(block, observer);
            }
        }
    }

    /// Frees what other streams are done with: first in, first out on each stream.
    ///
    /// # Source
    /// `DeviceCachingAllocator::process_events`.
    #[inline]
    pub(super) fn process_events<O: Observer>(&mut self, observer: &mut O) {
        if !self.recorded.none_done() {
            for id in std::mem::take(&mut self.recorded.done) {
                if let Some(block) = self.recorded.take(id) {
                    self.finish_recorded(block, observer);
                }
            }
        }
        if !self.events.deferred.is_empty() {
            self.insert_deferred_events(observer);
        }
        if !self.events.queues.is_empty() {
            self.poll_queues(observer);
        }
    }

    /// Gives back what is known to be done, as the next request would.
    pub fn poll(&mut self) {
        self.process_events(&mut ());
    }

    fn finish_recorded<O: Observer>(&mut self, block: BlockId, observer: &mut O) {
        self.blocks[block].set_used_elsewhere(false);
        self.free_block(block, observer);
    }

    #[cold]
    fn poll_queues<O: Observer>(&mut self, observer: &mut O) {
        let mut slot = 0;
        while let Some((at, key)) = self.events.queues.key_from(slot) {
            while let Some(queue) = self.events.queues.get_mut(key)
                && let Some((event, block)) = queue.front_mut()
                && self.events.clock.query(event)
            {
                let block = *block;
                queue.pop_front();
                self.finish_event(block, observer);
            }
            slot = self.drop_if_empty(at, key);
        }
    }

    fn finish_event<O: Observer>(&mut self, block: BlockId, observer: &mut O) {
        if self.blocks.finish_event(block) {
            self.free_block(block, observer);
        }
    }

    /// The slot to go on from: an erased entry pulls its successor into its place.
    fn drop_if_empty(&mut self, at: usize, key: StreamKey) -> usize {
        if self.events.queues.get_mut(key).is_some_and(|queue| queue.is_empty()) {
            self.events.queues.remove(key);
            return at;
        }
        at + 1
    }

    /// Waits for all pending events, or for those of one private pool.
    ///
    /// # Source
    /// `DeviceCachingAllocator::synchronize_and_free_events`.
    pub(super) fn synchronize_and_free_events<O: Observer>(
        &mut self,
        pool: Option<PoolId>,
        observer: &mut O,
    ) {
        observer.sync_all_streams();
        let mut pending = std::mem::take(&mut self.recorded.pending);
        let rank = &self.recorded.rank;
        pending.sort_by_key(|(id, _)| rank.get(id).copied().unwrap_or(usize::MAX));
        for (id, block) in pending {
            if pool.is_none_or(|pool| self.pool_of(block) == pool) {
                self.finish_recorded(block, observer);
            } else {
                self.recorded.add(id, block);
            }
        }
        // What is done in other pools is still to be seen by the next request.
        let RecordedFrees { pending, done, .. } = &mut self.recorded;
        done.retain(|id| pending.iter().any(|(left, _)| left == id));
        self.insert_deferred_events(observer);
        let mut slot = 0;
        while let Some((at, key)) = self.events.queues.key_from(slot) {
            let waiting = self.events.queues.get_mut(key).map(std::mem::take).unwrap_or_default();
            for (event, block) in waiting {
                if pool.is_some_and(|pool| self.pool_of(block) != pool) {
                    if let Some(queue) = self.events.queues.get_mut(key) {
                        queue.push_back((event, block));
                    }
                    continue;
                }
                self.events.clock.synchronize(event);
                self.finish_event(block, observer);
            }
            slot = self.drop_if_empty(at, key);
        }
    }

    fn pool_of(&self, block: BlockId) -> PoolId {
        self.place(block).pool
    }

    /// `graph_capture_record_stream_reuse`: frees deferred by a capture whose work is ordered before
    /// the present end of the graph may be used again within it. Without the graph itself none can
    /// be shown to be, so nothing is freed here; recordings say what was.
    ///
    /// # Errors
    /// In 2.9 a request on a stream that is not being captured fails an assertion.
    pub(super) fn free_safe_blocks_in_capture(&self, stream: StreamId) -> Result<(), AllocError> {
        if self.rules.reuse_needs_capture && !self.events.clock.is_capturing(stream) {
            return Err(AllocError::Failed(
                "status == cudaStreamCaptureStatusActive INTERNAL ASSERT FAILED Invalid stream capture status".into(),
            ));
        }
        Ok(())
    }

    /// The device was made to wait for a stream.
    pub(super) fn stream_synchronized(&mut self, stream: StreamId) {
        self.events.clock.complete(stream);
    }

    /// The live block of an allocation.
    pub(super) fn live_block(&self, id: AllocId) -> Option<BlockId> {
        if id.index() < self.live.len() { self.live[id] } else { None }
    }
}
