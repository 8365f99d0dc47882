//! [`Layout`]: segments and their blocks at one moment, as a snapshot shows them.

use std::fmt;

use crate::base::{Addr, Bytes, PoolId, Span, StreamHandle};

/// The state of a block, by the names that snapshots use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockState {
    /// Handed out.
    ActiveAllocated,
    /// Freed by the program, still waiting for another stream.
    ActivePendingFree,
    /// In the free list.
    Inactive,
}

impl BlockState {
    /// The word in snapshots.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ActiveAllocated => "active_allocated",
            Self::ActivePendingFree => "active_pending_free",
            Self::Inactive => "inactive",
        }
    }
}

/// One block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    /// Size of the block.
    pub size: Bytes,
    /// What the program asked; of a free block, what its last owner asked (0 if it had none).
    pub requested: Bytes,
    /// State.
    pub state: BlockState,
}

/// One segment, or one mapped range of an expandable segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentLayout {
    /// First address.
    pub addr: Addr,
    /// The stream it serves.
    pub stream: StreamHandle,
    /// The pool it belongs to.
    pub pool: PoolId,
    /// Whether it holds blocks of at most 1 MiB.
    pub is_small: bool,
    /// Whether it is a range of an expandable segment.
    pub is_expandable: bool,
    /// Its blocks, in the order of their addresses; they tile it.
    pub blocks: Vec<BlockLayout>,
}

impl SegmentLayout {
    /// Size: the sum of its blocks.
    pub fn size(&self) -> Bytes {
        self.blocks.iter().map(|b| b.size).sum()
    }

    /// The addresses it covers.
    pub fn span(&self) -> Span {
        Span::new(self.addr, self.size())
    }

    /// Blocks with their addresses.
    pub fn blocks_at(&self) -> impl Iterator<Item = (Addr, &BlockLayout)> {
        self.blocks.iter().scan(self.addr, |next, block| {
            let addr = *next;
            *next = addr + block.size;
            Some((addr, block))
        })
    }
}

/// All segments of one device, in the order of their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The segments.
    pub segments: Vec<SegmentLayout>,
}

impl Layout {
    /// Bytes of all segments.
    pub fn reserved(&self) -> Bytes {
        self.segments.iter().map(SegmentLayout::size).sum()
    }

    /// Bytes of all blocks in that state.
    pub fn bytes_in(&self, state: BlockState) -> Bytes {
        let blocks = self.segments.iter().flat_map(|s| &s.blocks);
        blocks.filter(|b| b.state == state).map(|b| b.size).sum()
    }

    /// The segment that holds `addr`.
    pub fn segment_at(&self, addr: Addr) -> Option<&SegmentLayout> {
        let after = self.segments.partition_point(|s| s.addr <= addr);
        let segment = &self.segments[after.checked_sub(1)?];
        segment.span().contains(addr).then_some(segment)
    }
}

/// One line a segment: `0x7f… 20.00 MiB large | 3.00 MiB | . 17.00 MiB`; a point marks free blocks,
/// a tilde pending ones.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            let kind = if segment.is_small { "small" } else { "large" };
            write!(f, "{} {} {kind}", segment.addr, segment.size())?;
            if segment.is_expandable {
                f.write_str(" expandable")?;
            }
            if segment.pool.is_private() {
                write!(f, " pool {}", segment.pool)?;
            }
            if segment.stream.0 != 0 {
                write!(f, " stream {}", segment.stream)?;
            }
            for block in &segment.blocks {
                let mark = match block.state {
                    BlockState::ActiveAllocated => "",
                    BlockState::ActivePendingFree => "~ ",
                    BlockState::Inactive => ". ",
                };
                write!(f, " | {mark}{}", block.size)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
