//! [`Account`]: what follows from the figures of a message by adding and subtracting.

use crate::{
    base::{ByteRange, Bytes},
    trace::{Backend, MessageLayout, OomMessage},
};

/// Figures that contradict each other: the message was retyped, or not all of it is of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// More is allocated than reserved.
    AllocatedBeyondReserved,
    /// More is free than the device has.
    FreeBeyondTotal,
    /// The private pools hold more than is allocated, of which they are a part.
    PoolsBeyondAllocated,
    /// PyTorch reserves more than its whole process holds.
    ReservedBeyondProcess,
    /// The processes hold more than what is not free.
    ProcessesBeyondUsed,
}

/// What follows from the figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The segment that was asked of the device.
    pub requested: Option<ByteRange>,
    /// The block that the program needed: rounding to segments hides it.
    pub needed: Option<ByteRange>,
    /// In use by tensors, without free blocks of private pools.
    pub allocated: Option<ByteRange>,
    /// Held by the allocator.
    pub reserved: Option<ByteRange>,
    /// Reserved but unallocated, outside private pools: the holes.
    pub unallocated: Option<ByteRange>,
    /// Free blocks of private pools.
    pub private_pools: Option<ByteRange>,
    /// Free memory of the device.
    pub free: Option<ByteRange>,
    /// Capacity of the device.
    pub total: Option<ByteRange>,
    /// On the device, but neither free nor PyTorch's: the context, libraries, other processes.
    pub outside: Option<ByteRange>,
    /// Of this process, but not PyTorch's: the context and libraries.
    pub context: Option<ByteRange>,
    /// Held by other processes, where this one's share is known.
    pub others: Option<ByteRange>,
    /// Whether the message lists the other processes itself.
    pub others_are_listed: bool,
    /// Holes and free memory together.
    pub all_free: Option<ByteRange>,
    /// What the request lacks even if every hole is given back; negative if it lacks nothing.
    pub shortfall: Option<ByteRange>,
    /// What does not add up.
    pub contradictions: Vec<Contradiction>,
}

/// Sizes of segments: `kSmallBuffer`, `kLargeBuffer` and `kRoundLarge` of the allocator.
const SMALL_BUFFER: Bytes = Bytes::mib(2);
const LARGE_BUFFER: Bytes = Bytes::mib(20);

impl Account {
    /// Adds up what `message` says.
    pub fn new(message: &OomMessage) -> Self {
        let figures = &message.figures;
        let mut account = Self {
            requested: figures.requested,
            needed: figures.requested.map(|size| needed(message, size)),
            free: figures.free,
            total: figures.total,
            private_pools: figures.private_pools,
            unallocated: figures.unallocated,
            reserved: figures.reserved,
            ..Self::default()
        };
        if let Some(tensor) = &message.tensor {
            account.requested = tensor_bytes(&tensor.sizes, tensor.element.as_deref());
            account.needed = account.requested;
        }
        let pools = figures.private_pools.unwrap_or(ByteRange::ZERO);
        // Printed, free blocks of private pools are part of what is allocated.
        account.allocated = figures.allocated.map(|printed| (printed - pools).at_least_zero());
        if let (Some(allocated), Some(reserved), None) =
            (figures.allocated, figures.reserved, figures.unallocated)
        {
            account.unallocated = Some((reserved - allocated).at_least_zero());
        }
        if let (Some(allocated), Some(holes), None) =
            (figures.allocated, figures.unallocated, figures.reserved)
        {
            account.reserved = Some(allocated + holes);
        }
        account.devices(message);
        if let (Some(requested), Some(free), Some(holes)) =
            (account.requested, account.free, account.unallocated)
        {
            account.all_free = Some(free + holes);
            account.shortfall = Some(requested - (free + holes));
        }
        account.contradictions(message);
        account
    }

    /// Who holds the device besides PyTorch's allocator.
    fn devices(&mut self, message: &OomMessage) {
        let figures = &message.figures;
        let (Some(total), Some(free)) = (self.total, self.free) else { return };
        let used = total - free;
        if let Some(reserved) = self.reserved {
            self.outside = Some((used - reserved).at_least_zero());
        }
        let listed = |besides: Option<usize>| {
            let others = figures.processes.iter().enumerate();
            let others = others.filter(|(index, _)| Some(*index) != besides);
            others.fold(ByteRange::ZERO, |sum, (_, (_, size))| sum + *size)
        };
        if let Some(this) = figures.this_process {
            self.context = self.reserved.map(|reserved| (this - reserved).at_least_zero());
            self.others_are_listed = !figures.processes.is_empty();
            // The list has compute processes only; what is used in all has everything.
            self.others = Some((used - this).at_least_zero());
            return;
        }
        // In a container the driver gives other numbers for processes, so this one may be among the
        // listed: then it is one that holds at least what PyTorch reserves.
        let Some(reserved) = self.reserved else { return };
        let own: Vec<usize> = (0..figures.processes.len())
            .filter(|index| !reserved.surely_above(figures.processes[*index].1))
            .collect();
        if let [own] = own[..] {
            self.context = Some((figures.processes[own].1 - reserved).at_least_zero());
            self.others = Some(listed(Some(own)));
            self.others_are_listed = figures.processes.len() > 1;
        } else if own.is_empty() && !figures.processes.is_empty() {
            self.others = Some(listed(None));
            self.others_are_listed = true;
        }
    }

    fn contradictions(&mut self, message: &OomMessage) {
        use Contradiction::{
            AllocatedBeyondReserved, FreeBeyondTotal, PoolsBeyondAllocated, ProcessesBeyondUsed,
            ReservedBeyondProcess,
        };
        let figures = &message.figures;
        let mut note = |what, more: Option<ByteRange>, less: Option<ByteRange>| {
            if more.zip(less).is_some_and(|(more, less)| more.surely_above(less)) {
                self.contradictions.push(what);
            }
        };
        note(AllocatedBeyondReserved, figures.allocated, figures.reserved);
        note(FreeBeyondTotal, figures.free, figures.total);
        note(PoolsBeyondAllocated, figures.private_pools, figures.allocated);
        note(ReservedBeyondProcess, self.reserved, figures.this_process);
        let processes = figures.processes.iter().map(|(_, size)| *size).chain(figures.this_process);
        let held = processes.reduce(|sum, size| sum + size);
        let used = figures.total.zip(figures.free).map(|(total, free)| total - free);
        note(ProcessesBeyondUsed, held, used);
    }
}

/// What the program can have asked for when the allocator tried a segment of this size.
fn needed(message: &OomMessage, segment: ByteRange) -> ByteRange {
    let is_native = matches!(message.layout, MessageLayout::Reserved | MessageLayout::Capacity);
    if !is_native || message.backend == Backend::Mps || segment.low() < 1 << 20 {
        return segment;
    }
    let least = if segment.holds(SMALL_BUFFER) && segment.high() < 3 << 20 {
        // All requests up to 1 MiB share segments of 2 MiB.
        Bytes(512)
    } else if segment.holds(LARGE_BUFFER) && segment.high() < 21 << 20 {
        // Requests from 1 to 10 MiB share segments of 20 MiB.
        Bytes((1 << 20) + 512)
    } else {
        // Others have their own, in steps of 2 MiB.
        Bytes(u64::try_from(segment.low()).unwrap_or(0)).saturating_sub(SMALL_BUFFER)
    };
    let most = Bytes(u64::try_from(segment.high()).unwrap_or(u64::MAX));
    ByteRange::between(least, most)
}

/// The bytes of a tensor; without a type, of elements of one to sixteen bytes.
fn tensor_bytes(sizes: &[u64], element: Option<&str>) -> Option<ByteRange> {
    let count = sizes.iter().try_fold(1_u64, |product, size| product.checked_mul(*size))?;
    let bytes = |width: u64| count.checked_mul(width).map(Bytes);
    let width = match element {
        None => return Some(ByteRange::between(bytes(1)?, bytes(16)?)),
        Some("float" | "float32" | "int32" | "uint32" | "qint32" | "quint32") => 4,
        Some("double" | "float64" | "int64" | "uint64" | "complex64") => 8,
        Some("complex128" | "string") => 16,
        Some("half" | "float16" | "bfloat16" | "int16" | "uint16" | "qint16" | "quint16") => 2,
        Some("bool" | "int8" | "uint8" | "qint8" | "quint8") => 1,
        Some(name) if name.starts_with("float8") => 1,
        // Elements that are no plain numbers, or share bytes.
        Some(_) => return None,
    };
    Some(ByteRange::exact(bytes(width)?))
}
