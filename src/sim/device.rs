//! [`Device`]: the memory under the allocator. Capacity, who else holds some of it, the addresses
//! that the driver gives, and its refusals.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::{
    base::{Addr, Bytes, DeviceIndex, Span},
    trace::ProcessUse,
};

/// How the driver chooses addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AddressPolicy {
    /// Rising, never used again.
    #[default]
    Rising,
    /// Falling, never used again.
    Falling,
    /// The lowest hole that fits, else rising.
    FirstFit,
    /// Anywhere, from a seed.
    Random {
        /// The seed; the same one gives the same addresses.
        seed: u64,
    },
}

/// A device before anything was allocated on it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceConfig {
    /// Its ordinal.
    pub index: DeviceIndex,
    /// Capacity.
    pub total: Bytes,
    /// What this process's context takes.
    pub context: Bytes,
    /// What other processes hold.
    pub external: Bytes,
    /// `cudaMalloc` is charged in multiples of this; addresses are multiples of it too.
    pub granularity: Bytes,
    /// How addresses are chosen.
    pub addresses: AddressPolicy,
    /// First address for `cudaMalloc`.
    pub base: Addr,
    /// First address for `cuMemAddressReserve`.
    pub reserve_base: Addr,
}

impl DeviceConfig {
    /// Distance between the address ranges of two devices.
    const STRIDE: Bytes = Bytes(1 << 44);
    const GRANULARITY: Bytes = Bytes::mib(2);

    /// An empty device of this capacity.
    pub fn new(index: DeviceIndex, total: Bytes) -> Self {
        let offset = Bytes(Self::STRIDE.0 * u64::from(index.0));
        Self {
            index,
            total,
            context: Bytes::ZERO,
            external: Bytes::ZERO,
            granularity: Self::GRANULARITY,
            addresses: AddressPolicy::Rising,
            base: Addr(0x6000_0000_0000) + offset,
            reserve_base: Addr(0x3000_0000_0000) + offset,
        }
    }
}

/// Hands out address ranges.
#[derive(Clone, Debug)]
struct AddressSpace {
    policy: AddressPolicy,
    granularity: Bytes,
    base: Addr,
    /// What rising and falling addresses stay within.
    region: Span,
    /// Where they go on when the region is used up, again and again.
    spare: Span,
    /// Next rising address.
    next: Addr,
    /// Lowest falling address.
    top: Addr,
    /// Free ranges below `next` (first fit).
    holes: BTreeMap<Addr, Bytes>,
    /// Disjoint ranges that are kept clear of: what was there at the start, and what is in use
    /// (random).
    taken: BTreeMap<Addr, Bytes>,
    random: u64,
}

impl AddressSpace {
    /// Where random addresses are looked for in vain so often, they rise.
    const MAX_TRIES: u32 = 1000;

    fn new(config: &DeviceConfig, base: Addr, region: Span, spare: Span, seed_factor: u64) -> Self {
        let seed = match config.addresses {
            AddressPolicy::Random { seed } => seed,
            _ => 0,
        };
        let half = Bytes(DeviceConfig::STRIDE.0 / 2);
        Self {
            policy: config.addresses,
            granularity: config.granularity,
            base,
            region,
            spare,
            next: base,
            top: base + half,
            holes: BTreeMap::new(),
            taken: BTreeMap::new(),
            // Zero is the one state that xorshift does not leave.
            random: seed
                .wrapping_mul(seed_factor)
                .wrapping_add(u64::from(config.index.0))
                .wrapping_add(1)
                .max(1),
        }
    }

    fn take(&mut self, size: Bytes) -> Addr {
        let size = size.round_up(self.granularity);
        match self.policy {
            AddressPolicy::Rising => self.rising(size),
            AddressPolicy::Falling => self.falling(size),
            AddressPolicy::FirstFit => {
                let hole = self.holes.iter().find(|(_, hole)| **hole >= size);
                let Some((&addr, &hole)) = hole else { return self.rising(size) };
                self.holes.remove(&addr);
                if hole > size {
                    self.holes.insert(addr + size, hole - size);
                }
                addr
            }
            AddressPolicy::Random { .. } => {
                let addr = self.anywhere(size).unwrap_or_else(|| self.rising(size));
                self.taken.insert(addr, size);
                addr
            }
        }
    }

    fn anywhere(&mut self, size: Bytes) -> Option<Addr> {
        (0..Self::MAX_TRIES).find_map(|_| {
            // xorshift64
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let slots = DeviceConfig::STRIDE.0 / 2 / self.granularity.0;
            let addr = self.base + Bytes(self.random % slots * self.granularity.0);
            self.taken_in(Span::new(addr, size)).is_none().then_some(addr)
        })
    }

    fn rising(&mut self, size: Bytes) -> Addr {
        loop {
            let addr = self.next;
            if size > self.region.end() - addr {
                self.leave_region(size);
                continue;
            }
            self.next = addr + size;
            match self.taken_in(Span::new(addr, size)) {
                None => return addr,
                Some(taken) => self.next = self.rounded_up(taken.end()),
            }
        }
    }

    fn falling(&mut self, size: Bytes) -> Addr {
        loop {
            if self.top < self.region.start || size > self.top - self.region.start {
                self.leave_region(size);
                continue;
            }
            let addr = Addr(self.top.0 - size.0);
            self.top = addr;
            match self.taken_in(Span::new(addr, size)) {
                None => return addr,
                Some(taken) => {
                    self.top = Addr(taken.start.0 / self.granularity.0 * self.granularity.0);
                }
            }
        }
    }

    /// Goes on in the spare region, from its beginning. By the time that is used up, too, what lay
    /// there was given back.
    fn leave_region(&mut self, size: Bytes) {
        assert!(size <= self.spare.size, "no device is as large as the address space");
        self.region = self.spare;
        (self.next, self.top) = (self.spare.start, self.spare.end());
    }

    fn rounded_up(&self, addr: Addr) -> Addr {
        Addr(Bytes(addr.0).round_up(self.granularity).0)
    }

    /// The highest range to keep clear of that overlaps `span`.
    fn taken_in(&self, span: Span) -> Option<Span> {
        let below = self.taken.range(..span.end()).next_back();
        let below = below.map(|(start, size)| Span::new(*start, *size));
        below.filter(|taken| taken.overlaps(span))
    }

    /// Keeps clear of `span`.
    fn adopt(&mut self, span: Span) {
        let mut all = span;
        while let Some(known) = self.taken_in(all) {
            self.taken.remove(&known.start);
            let end = all.end().max(known.end());
            all.start = all.start.min(known.start);
            all.size = end - all.start;
        }
        self.taken.insert(all.start, all.size);
    }

    fn give(&mut self, addr: Addr, size: Bytes) {
        let size = size.round_up(self.granularity);
        match self.policy {
            AddressPolicy::Rising | AddressPolicy::Falling => {}
            AddressPolicy::Random { .. } => {
                self.taken.remove(&addr);
            }
            AddressPolicy::FirstFit => {
                let mut hole = Span::new(addr, size);
                if let Some(above) = self.holes.remove(&hole.end()) {
                    hole.size += above;
                }
                if let Some((&start, &below)) = self.holes.range(..addr).next_back()
                    && start + below == addr
                {
                    hole = Span::new(start, below + hole.size);
                }
                self.holes.insert(hole.start, hole.size);
            }
        }
    }
}

/// How often the driver was called, by kind; failed calls count too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DeviceCalls {
    /// `cudaMalloc`.
    pub malloc: u64,
    /// `cudaMalloc` that found no memory.
    pub malloc_failed: u64,
    /// `cudaFree`.
    pub free: u64,
    /// Ranges mapped (`cuMemCreate`, `cuMemMap`, `cuMemSetAccess` for each of its chunks).
    pub map: u64,
    /// Ranges that could not be mapped.
    pub map_failed: u64,
    /// Ranges unmapped.
    pub unmap: u64,
    /// `cuMemAddressReserve`. A recording does not hold it: its address is unknown until something
    /// is mapped there, see [`Device::is_unknown`].
    pub reserve: u64,
}

/// Between which capacities a device gives the same answers: from `granted` up to, but not at,
/// `refused`. Injected refusals and changes of the capacity at run time apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapacityLevels {
    /// The least capacity that grants what was granted.
    pub granted: Bytes,
    /// The least capacity that grants something that was refused; [`Bytes::MAX`] if nothing was.
    pub refused: Bytes,
}

impl Default for CapacityLevels {
    fn default() -> Self {
        Self { granted: Bytes::ZERO, refused: Bytes::MAX }
    }
}

impl CapacityLevels {
    /// Where both give the same answers.
    pub fn and(self, other: Self) -> Self {
        Self { granted: self.granted.max(other.granted), refused: self.refused.min(other.refused) }
    }
}

/// What a recording says the driver did: see [`SegmentAddresses::Recorded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedCall {
    /// `cudaMalloc` gave this span.
    Malloc(Span),
    /// `cudaFree` of this address.
    Free(Addr),
    /// This span was mapped.
    Map(Span),
    /// This span was unmapped.
    Unmap(Span),
}

/// Where the addresses and the refusals come from.
#[derive(Clone, Debug)]
pub enum SegmentAddresses {
    /// From the device's capacity and its [`AddressPolicy`].
    Modelled,
    /// From a recording: the driver does next what it did then, or it refuses.
    Recorded {
        /// What it did during the present operation.
        calls: Vec<RecordedCall>,
        /// How many of them were asked for so far.
        done: usize,
    },
}

/// A device.
#[derive(Clone, Debug)]
pub struct Device {
    config: DeviceConfig,
    used: Bytes,
    total: Bytes,
    external: Bytes,
    segments: AddressSpace,
    reserves: AddressSpace,
    /// Charged bytes of each `cudaMalloc`.
    charged: FxHashMap<Addr, Bytes>,
    source: SegmentAddresses,
    calls: DeviceCalls,
    /// Allocations to refuse, counted from the next one: for tests of the failure ladder.
    refuse: Vec<u64>,
    attempts: u64,
    unknown_reserves: u64,
    levels: CapacityLevels,
}

impl Device {
    /// No single range is larger.
    pub const ADDRESS_SPACE: Bytes = Bytes(1 << 60);
    /// Above every address that a device has.
    const UNKNOWN: Addr = Addr(1 << 62);

    /// An empty device.
    pub fn new(config: DeviceConfig) -> Self {
        let (segments, reserves) = Self::address_spaces(&config);
        Self {
            used: Bytes::ZERO,
            total: config.total,
            external: config.external,
            segments,
            reserves,
            charged: FxHashMap::default(),
            source: SegmentAddresses::Modelled,
            calls: DeviceCalls::default(),
            refuse: Vec::new(),
            attempts: 0,
            unknown_reserves: 0,
            levels: CapacityLevels::default(),
            config,
        }
    }

    /// Those of `cudaMalloc` and `cuMemAddressReserve`. They never meet: the higher one rises and the
    /// lower one falls without bound, and they turn to regions of their own before they reach each
    /// other.
    fn address_spaces(config: &DeviceConfig) -> (AddressSpace, AddressSpace) {
        const SEGMENTS_SPARE: u64 = 1 << 60;
        const RESERVES_SPARE: u64 = 1 << 61;
        let between = |from: u64, to: u64| Span::new(Addr(from), Bytes(to - from));
        let (base, reserve_base) = (config.base.0, config.reserve_base.0);
        let half = DeviceConfig::STRIDE.0 / 2;
        let (segments, reserves) = if reserve_base < base {
            (between(reserve_base + half, SEGMENTS_SPARE), between(config.granularity.0, base))
        } else {
            let all = |base: u64| between(config.granularity.0.min(base), SEGMENTS_SPARE);
            (all(base), all(reserve_base))
        };
        let spare = between(SEGMENTS_SPARE, RESERVES_SPARE);
        let reserves_spare = between(RESERVES_SPARE, Self::UNKNOWN.0);
        (
            AddressSpace::new(config, config.base, segments, spare, 0x9E37_79B9_7F4A_7C15),
            AddressSpace::new(
                config,
                config.reserve_base,
                reserves,
                reserves_spare,
                0xD1B5_4A32_D192_ED03,
            ),
        )
    }

    /// As new.
    pub fn reset(&mut self) {
        *self = Self::new(self.config.clone());
    }

    /// What it was made from.
    pub fn config(&self) -> &DeviceConfig {
        &self.config
    }

    /// Refuses the n-th attempts to get memory from now on (0 is the next): fault injection.
    pub fn refuse(&mut self, attempts: &[u64]) {
        self.refuse = attempts.iter().map(|n| n + self.attempts).collect();
    }

    /// From now on does what a recording says it did.
    pub fn follow(&mut self, source: SegmentAddresses) {
        self.source = source;
    }

    /// What the recording says of the present operation, where one is followed.
    pub fn source_mut(&mut self) -> &mut SegmentAddresses {
        &mut self.source
    }

    /// How often the driver was called.
    pub fn calls(&self) -> DeviceCalls {
        self.calls
    }

    /// Other processes now hold this much.
    pub fn set_external(&mut self, external: Bytes) {
        self.external = external;
    }

    /// The capacity is now this.
    pub fn set_total(&mut self, total: Bytes) {
        self.total = total;
    }

    /// Capacity.
    pub fn total(&self) -> Bytes {
        self.total
    }

    /// Free bytes: what `cudaMemGetInfo` says.
    pub fn free_bytes(&self) -> Bytes {
        self.total.saturating_sub(self.used + self.config.context + self.external)
    }

    /// What the driver tells of the processes on the device.
    pub fn processes(&self) -> Vec<ProcessUse> {
        let mut all = vec![ProcessUse::This(self.config.context + self.used)];
        if self.external > Bytes::ZERO {
            all.push(ProcessUse::Other(4242, self.external));
        }
        all
    }

    fn charge(&mut self, size: Bytes) -> bool {
        let attempt = self.attempts;
        self.attempts += 1;
        let held = self.used + self.config.context + self.external;
        let needed = held.checked_add(size).unwrap_or(Bytes::MAX);
        if size > self.free_bytes().min(Self::ADDRESS_SPACE) || self.refuse.contains(&attempt) {
            self.levels.refused = self.levels.refused.min(needed);
            return false;
        }
        self.levels.granted = self.levels.granted.max(needed);
        self.used += size;
        true
    }

    /// Between which capacities every attempt so far would have had the same answer.
    pub fn levels(&self) -> CapacityLevels {
        self.levels
    }

    /// The next recorded call, if it is one that `wanted` accepts; `None` too where no recording is
    /// followed.
    fn recorded<T>(&mut self, wanted: impl Fn(RecordedCall) -> Option<T>) -> Option<T> {
        let SegmentAddresses::Recorded { calls, done } = &mut self.source else { return None };
        let found = calls.get(*done).copied().and_then(wanted)?;
        *done += 1;
        Some(found)
    }

    fn is_modelled(&self) -> bool {
        matches!(self.source, SegmentAddresses::Modelled)
    }

    /// `cudaMalloc`: the address, or `None` where there is no memory.
    pub fn malloc(&mut self, size: Bytes) -> Option<Addr> {
        self.calls.malloc += 1;
        let addr = if self.is_modelled() {
            let charged = size.round_up(self.config.granularity);
            if self.charge(charged) {
                let addr = self.segments.take(charged);
                self.charged.insert(addr, charged);
                Some(addr)
            } else {
                None
            }
        } else {
            self.recorded(|call| match call {
                RecordedCall::Malloc(span) if span.size == size => Some(span.start),
                _ => None,
            })
        };
        self.calls.malloc_failed += u64::from(addr.is_none());
        addr
    }

    /// `cudaFree`: whether this is an address that [`Device::malloc`] gave.
    pub fn free(&mut self, addr: Addr) -> bool {
        self.calls.free += 1;
        if !self.is_modelled() {
            self.recorded(|call| (call == RecordedCall::Free(addr)).then_some(()));
            return true;
        }
        let Some(charged) = self.charged.remove(&addr) else { return false };
        self.used -= charged;
        self.segments.give(addr, charged);
        true
    }

    /// Marks memory as held that was there before the first operation.
    pub fn adopt(&mut self, span: Span, is_mapped_range: bool) {
        self.used += span.size.round_up(self.config.granularity);
        if !is_mapped_range {
            self.charged.insert(span.start, span.size.round_up(self.config.granularity));
            self.keep_clear_of(span);
        }
    }

    /// Address space that was there before the first operation is not given again.
    pub fn keep_clear_of(&mut self, span: Span) {
        let size = span.size.round_up(self.config.granularity);
        let size = size.min(Bytes(Self::UNKNOWN.0).saturating_sub(Bytes(span.start.0)));
        if size > Bytes::ZERO {
            self.segments.adopt(Span::new(span.start, size));
            self.reserves.adopt(Span::new(span.start, size));
        }
    }

    /// `cuMemAddressReserve`.
    pub fn reserve(&mut self, size: Bytes) -> Addr {
        self.calls.reserve += 1;
        if self.is_modelled() {
            return self.reserves.take(size);
        }
        self.unknown_reserves += 1;
        Addr(Self::UNKNOWN.0 + (self.unknown_reserves << 48))
    }

    /// Whether an address stands for a reservation that a recording has not shown yet.
    pub fn is_unknown(addr: Addr) -> bool {
        addr >= Self::UNKNOWN
    }

    /// What a recording says is mapped next, if anything is.
    pub fn next_recorded_map(&self) -> Option<Span> {
        match &self.source {
            SegmentAddresses::Recorded { calls, done } => match calls.get(*done) {
                Some(RecordedCall::Map(span)) => Some(*span),
                _ => None,
            },
            SegmentAddresses::Modelled => None,
        }
    }

    /// `cuMemAddressFree`.
    pub fn release_reserve(&mut self, span: Span) {
        if self.is_modelled() {
            self.reserves.give(span.start, span.size);
        }
    }

    /// Puts memory under a range: all of it, or `false` and none.
    pub fn map(&mut self, span: Span) -> bool {
        self.calls.map += 1;
        let mapped = if self.is_modelled() {
            self.charge(span.size)
        } else {
            self.recorded(|call| (call == RecordedCall::Map(span)).then_some(())).is_some()
        };
        self.calls.map_failed += u64::from(!mapped);
        mapped
    }

    /// Takes the memory under a range away.
    pub fn unmap(&mut self, span: Span) {
        self.calls.unmap += 1;
        if self.is_modelled() {
            self.used -= span.size;
        }
        self.recorded(|call| (call == RecordedCall::Unmap(span)).then_some(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(addresses: AddressPolicy) -> Device {
        Device::new(DeviceConfig { addresses, ..DeviceConfig::new(DeviceIndex(0), Bytes::mib(10)) })
    }

    #[test]
    fn memory_is_charged_in_granules_and_refused_beyond_the_capacity() {
        let mut device = device(AddressPolicy::Rising);
        let a = device.malloc(Bytes::mib(3)).unwrap();
        assert_eq!(device.free_bytes(), Bytes::mib(6));
        assert_eq!(device.malloc(Bytes::mib(7)), None);
        device.free(a);
        assert_eq!(device.free_bytes(), Bytes::mib(10));
        device.set_external(Bytes::mib(9));
        assert_eq!(device.malloc(Bytes::mib(2)), None);
    }

    #[test]
    fn first_fit_takes_the_lowest_hole_and_joins_neighbours() {
        let mut device = device(AddressPolicy::FirstFit);
        let [a, b, c] = [2, 2, 2].map(|n| device.malloc(Bytes::mib(n)).unwrap());
        device.free(b);
        device.free(a);
        assert_eq!(device.malloc(Bytes::mib(4)), Some(a));
        device.free(c);
        assert_eq!(device.malloc(Bytes::mib(2)), Some(c));
    }

    #[test]
    fn injected_refusals_hit_the_named_attempts() {
        let mut device = device(AddressPolicy::Falling);
        device.refuse(&[1]);
        let got = [(); 3].map(|()| device.malloc(Bytes::mib(2)).is_some());
        assert_eq!(got, [true, false, true]);
    }

    #[test]
    fn address_space_that_is_used_up_goes_on_elsewhere() {
        let policies = [AddressPolicy::Rising, AddressPolicy::Falling];
        for policy in policies.into_iter().chain([AddressPolicy::Random { seed: 1 }]) {
            let mut device = device(policy);
            let size = Bytes::gib(90);
            let mut spans: Vec<Span> =
                (0..2000).map(|_| Span::new(device.reserve(size), size)).collect();
            spans.push(Span::new(device.malloc(Bytes::mib(2)).unwrap(), Bytes::mib(2)));
            spans.sort_by_key(|span| span.start);
            assert!(spans.windows(2).all(|pair| pair[0].end() <= pair[1].start), "{policy:?}");
        }
    }

    #[test]
    fn what_was_there_at_the_start_is_kept_clear_of() {
        let first = DeviceConfig::new(DeviceIndex(0), Bytes::ZERO).base;
        let there = Span::new(first, Bytes::mib(4));
        let mut device = device(AddressPolicy::Rising);
        device.adopt(there, false);
        assert_eq!(device.malloc(Bytes::mib(2)), Some(there.end()));
    }

    #[test]
    fn every_seed_gives_different_addresses() {
        // The third one's product with the factor of `cudaMalloc`'s addresses is -1.
        for seed in [0, 1, 0x0E21_7C1E_66C8_8CC3, u64::MAX] {
            let mut device = device(AddressPolicy::Random { seed });
            assert_ne!(device.malloc(Bytes::mib(2)), device.malloc(Bytes::mib(2)));
        }
    }
}
