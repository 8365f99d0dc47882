//! Lifts segments and their blocks, and checks that blocks tile segments.

use super::{
    fault::short,
    heap::Value,
    keys::Key,
    lift::{FormatError, Lift, Place, View},
    raw::{Block, BlockState, Segment, SegmentType},
    rows::{self, Problem},
    text::StackId,
};
use crate::base::{Addr, Bytes, Id, PoolId, Span};

const SEGMENT: &[Key] = &[
    Key::Device,
    Key::Address,
    Key::TotalSize,
    Key::AllocatedSize,
    Key::ActiveSize,
    Key::RequestedSize,
    Key::Stream,
    Key::SegmentType,
    Key::SegmentPoolId,
    Key::IsExpandable,
    Key::Frames,
    Key::CppFrames,
    Key::ForwardFrames,
    Key::Blocks,
];

const BLOCK: &[Key] = &[
    Key::Address,
    Key::Size,
    Key::RequestedSize,
    Key::State,
    Key::Frames,
    Key::CppFrames,
    Key::ForwardFrames,
    Key::History,
    Key::UserMetadata,
    Key::CompileContext,
];

const HISTORY: &[Key] = &[Key::Addr, Key::RealSize, Key::Frames, Key::CppFrames];

impl Lift {
    pub(super) fn segments(
        &mut self,
        place: &Place<'_>,
        value: Value,
    ) -> Result<Vec<Segment>, FormatError> {
        let items = self.take_list(place, value)?;
        let mut segments = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            segments.push(self.segment(&Place::Index(place, index), item)?);
        }
        apart(place, &segments)?;
        Ok(segments)
    }

    fn segment(&mut self, place: &Place<'_>, value: Value) -> Result<Segment, FormatError> {
        self.once(place, value)?;
        let view = self.view(place, value, "segment", "a segment", SEGMENT)?;
        self.seen.segment = self.seen.segment.union(view.seen);
        let device =
            self.device(&Place::Key(place, Key::Device), self.need(place, &view, Key::Device)?)?;
        let start = self.need(place, &view, Key::Address)?;
        let start_place = Place::Key(place, Key::Address);
        let address = match rows::addr(start) {
            Ok(address) => address,
            Err(problem) => return self.problem(&start_place, problem),
        };
        let total_size = self.size(place, &view, Key::TotalSize)?;
        let stream = match view.get(Key::Stream).map(rows::stream).transpose() {
            Ok(stream) => stream.unwrap_or_default(),
            Err(problem) => return self.problem(&Place::Key(place, Key::Stream), problem),
        };
        let segment_type = self.segment_type(place, &view)?;
        let pool_id = self.segment_pool(place, &view)?;
        let is_expandable = match view.get(Key::IsExpandable) {
            Some(flag) => Some(self.boolean(&Place::Key(place, Key::IsExpandable), flag)?),
            None => None,
        };
        let stack = self.stack(place, &view)?;
        let blocks = self.need(place, &view, Key::Blocks)?;
        let span = Span::new(address, total_size);
        let blocks = self.blocks(&Place::Key(place, Key::Blocks), blocks, span)?;
        Ok(Segment {
            device,
            address,
            total_size,
            allocated_size: self.optional_size(place, &view, Key::AllocatedSize)?,
            active_size: self.optional_size(place, &view, Key::ActiveSize)?,
            requested_size: self.optional_size(place, &view, Key::RequestedSize)?,
            stream,
            segment_type,
            pool_id,
            is_expandable,
            stack,
            blocks,
        })
    }

    fn segment_type(&self, place: &Place<'_>, view: &View) -> Result<SegmentType, FormatError> {
        let value = self.need(place, view, Key::SegmentType)?;
        let place = Place::Key(place, Key::SegmentType);
        let Value::Text(id) = value else {
            return self.problem(&place, Problem::Kind("text", value));
        };
        match self.heap.strings.get(id) {
            "small" => Ok(SegmentType::Small),
            "large" => Ok(SegmentType::Large),
            other => place.fail(format!("is '{}'; expected 'small' or 'large'", short(other))),
        }
    }

    fn segment_pool(
        &mut self,
        place: &Place<'_>,
        view: &View,
    ) -> Result<Option<PoolId>, FormatError> {
        let Some(value) = view.get(Key::SegmentPoolId) else { return Ok(None) };
        match self.heap.pool_of(value) {
            Ok(Some(pool)) => Ok(Some(self.heap.pools[pool.index()])),
            _ => self.problem(
                &Place::Key(place, Key::SegmentPoolId),
                Problem::Kind("a pair of numbers", value),
            ),
        }
    }

    /// The stack of a segment or block: none where its list of frames is empty.
    fn stack(&mut self, place: &Place<'_>, view: &View) -> Result<Option<StackId>, FormatError> {
        let Some(value) = view.get(Key::Frames) else { return Ok(None) };
        match self.heap.context(value) {
            Ok(Some(context)) => {
                let stack = self.heap.contexts[context.index()];
                Ok(Some(stack).filter(|&stack| !self.heap.stacks.get(stack).is_empty()))
            }
            _ => self
                .problem(&Place::Key(place, Key::Frames), Problem::Kind("a list of frames", value)),
        }
    }

    fn blocks(
        &mut self,
        place: &Place<'_>,
        value: Value,
        segment: Span,
    ) -> Result<Vec<Block>, FormatError> {
        let items = self.take_list(place, value)?;
        let mut blocks = Vec::with_capacity(items.len());
        let mut next = segment.start;
        for (index, item) in items.into_iter().enumerate() {
            let place = Place::Index(place, index);
            let block = self.block(&place, item, next)?;
            if block.address < next {
                let over = next - block.address;
                return place.fail(format!(
                    "the block at {} overlaps the one before it by {} bytes",
                    block.address, over.0
                ));
            }
            if block.address > next {
                let gap = block.address - next;
                return place.fail(format!(
                    "the block at {} leaves a gap of {} bytes; blocks tile their segment",
                    block.address, gap.0
                ));
            }
            next = match block.address.0.checked_add(block.size.0) {
                Some(next) if next < 1 << 63 => Addr(next),
                _ => return place.fail("the block ends beyond every address"),
            };
            blocks.push(block);
        }
        let sum = next - segment.start;
        if sum != segment.size {
            return place.fail(format!(
                "the blocks of the segment at {} add up to {} bytes, but its total_size is {}; \
                 this is no state of an allocator: the file was made up by a tool, or edited",
                segment.start, sum.0, segment.size.0
            ));
        }
        Ok(blocks)
    }

    fn block(&mut self, place: &Place<'_>, value: Value, next: Addr) -> Result<Block, FormatError> {
        let view = self.view(place, value, "block", "a block", BLOCK)?;
        self.seen.block = self.seen.block.union(view.seen);
        let address = match view.get(Key::Address).map(rows::addr).transpose() {
            Ok(address) => address.unwrap_or(next),
            Err(problem) => return self.problem(&Place::Key(place, Key::Address), problem),
        };
        let size = self.size(place, &view, Key::Size)?;
        if size == Bytes::ZERO {
            return Place::Key(place, Key::Size).fail("is 0; a block holds at least one byte");
        }
        let state = self.state(place, &view)?;
        let mut requested_size = self.optional_size(place, &view, Key::RequestedSize)?;
        let mut stack = self.stack(place, &view)?;
        if let Some(history) = view.get(Key::History) {
            let place = Place::Key(place, Key::History);
            let Some(items) = self.heap.items(history) else {
                return self.problem(&place, Problem::Kind("a list", history));
            };
            // Newest first: the rest is about earlier users of the block.
            if let Some(&newest) = items.first() {
                let place = Place::Index(&place, 0);
                let view = self.view(&place, newest, "history", "a history entry", HISTORY)?;
                let real = self.optional_size(&place, &view, Key::RealSize)?;
                requested_size = requested_size.or(real);
                stack = self.stack(&place, &view)?;
            }
        }
        Ok(Block { address, size, requested_size, state, stack })
    }

    fn state(&self, place: &Place<'_>, view: &View) -> Result<BlockState, FormatError> {
        let value = self.need(place, view, Key::State)?;
        let place = Place::Key(place, Key::State);
        let Value::Text(id) = value else {
            return self.problem(&place, Problem::Kind("text", value));
        };
        match self.heap.strings.get(id) {
            "active_allocated" => Ok(BlockState::ActiveAllocated),
            "active_pending_free" | "active_awaiting_free" => Ok(BlockState::ActivePendingFree),
            "inactive" => Ok(BlockState::Inactive),
            other => place.fail(format!(
                "is '{}'; expected active_allocated, active_pending_free or inactive",
                short(other)
            )),
        }
    }
}

/// No two segments of a device share an address.
fn apart(place: &Place<'_>, segments: &[Segment]) -> Result<(), FormatError> {
    let mut order: Vec<usize> = (0..segments.len()).collect();
    order.sort_by_key(|&index| (segments[index].device, segments[index].address));
    for pair in order.windows(2) {
        let (a, b) = (&segments[pair[0]], &segments[pair[1]]);
        let (left, right) =
            (Span::new(a.address, a.total_size), Span::new(b.address, b.total_size));
        if a.device == b.device && left.overlaps(right) {
            return Place::Index(place, pair[1]).fail(format!(
                "the segment at {} overlaps the one at {} (cuda:{})",
                b.address, a.address, a.device
            ));
        }
    }
    Ok(())
}
