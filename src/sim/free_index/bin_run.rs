//! [`BinRun`]: the [`Run`] of one bin, with keys as short as the bin allows.

use super::{FreeKey, bins::only_size, run::Run};
use crate::base::{Addr, BlockId, Bytes};

/// The blocks of a bin where there are many.
#[derive(Clone, Debug)]
pub(super) enum BinRun {
    /// All of one size and of no creation order: the address decides.
    ByAddr(Bytes, Run<Addr>),
    /// Of several sizes, or with an order.
    ByKey(Run<FreeKey>),
}

/// `$body` with the run and the key in it, or `$else` where the key cannot be in the run.
macro_rules! with_key {
    ($self:expr, $key:expr, |$run:ident, $in_run:ident| $body:expr, $else:expr) => {
        match $self {
            Self::ByAddr(size, $run) => {
                if $key.size == *size && $key.order == 0 {
                    let $in_run = $key.addr;
                    $body
                } else {
                    $else
                }
            }
            Self::ByKey($run) => {
                let $in_run = $key;
                $body
            }
        }
    };
}

impl BinRun {
    /// Of no blocks, in this bin.
    pub(super) fn new(bin: usize) -> Self {
        match only_size(bin) {
            Some(size) => Self::ByAddr(size, Run::default()),
            None => Self::ByKey(Run::default()),
        }
    }

    /// Adds a block that is not there; returns whether it is the first one now.
    #[inline]
    pub(super) fn insert(&mut self, key: FreeKey, id: BlockId) -> bool {
        with_key!(self, key, |run, place| run.insert(place, id), {
            self.spell_keys_out();
            self.insert(key, id)
        })
    }

    /// From now on with whole keys.
    #[cold]
    fn spell_keys_out(&mut self) {
        if let Self::ByAddr(size, run) = self {
            let mut spelt = Run::default();
            for (addr, id) in run.iter() {
                spelt.insert(FreeKey { size: *size, order: 0, addr }, id);
            }
            *self = Self::ByKey(spelt);
        }
    }

    /// Takes a block out; returns whether it was there.
    #[inline]
    pub(super) fn remove(&mut self, key: FreeKey) -> bool {
        with_key!(self, key, |run, place| run.remove(place), false)
    }

    /// Has what an insertion or a removal of `key` reads brought into the caches.
    #[inline]
    pub(super) fn prefetch(&self, key: FreeKey) {
        with_key!(self, key, |run, place| run.prefetch(place), ());
    }

    /// Takes the first block out.
    #[inline]
    pub(super) fn remove_first(&mut self) {
        match self {
            Self::ByAddr(_, run) => run.remove_first(),
            Self::ByKey(run) => run.remove_first(),
        }
    }

    /// The first block.
    #[inline]
    pub(super) fn first(&self) -> Option<BlockId> {
        match self {
            Self::ByAddr(_, run) => run.first(),
            Self::ByKey(run) => run.first(),
        }
    }

    /// The last block.
    pub(super) fn last(&self) -> Option<BlockId> {
        match self {
            Self::ByAddr(_, run) => run.last(),
            Self::ByKey(run) => run.last(),
        }
    }

    /// The first block of at least this size.
    pub(super) fn first_of_size(&self, size: Bytes) -> Option<BlockId> {
        match self {
            Self::ByAddr(only, run) => run.first().filter(|_| *only >= size),
            Self::ByKey(run) => run.first_where(|key| key.size >= size),
        }
    }

    /// The block that follows `key`, which is there.
    pub(super) fn after(&self, key: FreeKey) -> Option<BlockId> {
        with_key!(self, key, |run, place| run.after(place), None)
    }

    /// The block before `key`, which is there.
    pub(super) fn before(&self, key: FreeKey) -> Option<BlockId> {
        with_key!(self, key, |run, place| run.before(place), None)
    }

    /// All blocks, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = BlockId> {
        let (short, whole) = match self {
            Self::ByAddr(_, run) => (Some(run), None),
            Self::ByKey(run) => (None, Some(run)),
        };
        let short = short.into_iter().flat_map(Run::iter).map(|(_, id)| id);
        short.chain(whole.into_iter().flat_map(Run::iter).map(|(_, id)| id))
    }
}
