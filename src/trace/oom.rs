//! [`Oom`]: the figures of PyTorch's out-of-memory message. Its `Display` is the message.

use std::fmt;

use crate::base::{Bytes, DeviceIndex, Release};

/// What the device's process list says of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessUse {
    /// This process, all of its device memory.
    This(Bytes),
    /// Another process.
    Other(u32, Bytes),
}

/// What the end of the message advises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OomHint {
    /// The release's usual advice.
    Usual,
    /// `expandable_segments` is on.
    Expandable,
    /// `expandable_segments` is on and the request exceeds the configured reserve (2.15).
    BeyondReserve(Bytes),
}

/// A failed `malloc`.
///
/// # Source
/// `c10/cuda/CUDACachingAllocator.cpp`, `DeviceCachingAllocator::malloc`; the texts of 2.1 to 2.15
/// as the real allocators printed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oom {
    /// Whose wording.
    pub release: Release,
    /// The device.
    pub device: DeviceIndex,
    /// The segment size that was tried.
    pub requested: Bytes,
    /// Capacity of the device.
    pub total: Bytes,
    /// Free memory of the device.
    pub free: Bytes,
    /// The device's processes; empty where the driver does not tell.
    pub processes: Vec<ProcessUse>,
    /// The limit of `set_per_process_memory_fraction`, if there is one.
    pub allowed: Option<Bytes>,
    /// Bytes handed out (`allocated_bytes.all.current`).
    pub allocated: Bytes,
    /// Free bytes inside private pools, which this message calls allocated (2.4 and later).
    pub private_pools: Bytes,
    /// Bytes of all segments (`reserved_bytes.all.current`).
    pub reserved: Bytes,
    /// The advice at the end.
    pub hint: OomHint,
}

const NOTES: &str = "https://pytorch.org/docs/stable/notes/cuda.html#environment-variables";
const NEWER_NOTES: &str = "https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf";

impl Oom {
    fn hint(&self) -> String {
        let usual = |variable: &str, notes: &str| {
            format!(
                " If reserved but unallocated memory is large try setting {variable}=expandable_segments:True to avoid fragmentation.  See documentation for Memory Management  ({notes})"
            )
        };
        match (self.release.minor(), &self.hint) {
            (1, _) => " If reserved but unallocated memory is large try setting max_split_size_mb to avoid fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF".into(),
            (2..=9, _) => usual("PYTORCH_CUDA_ALLOC_CONF", NOTES),
            (10, _) => usual("PYTORCH_ALLOC_CONF", NOTES),
            (14, OomHint::Expandable | OomHint::BeyondReserve(_)) => String::new(),
            (15, OomHint::Expandable) => " expandable_segments is enabled. If instead the process is running out of virtual address space (VSZ), expandable segments may be over-reserving VA (each segment reserves ~9/8 of device memory, times the number of streams); reduce it via PYTORCH_CUDA_ALLOC_CONF expandable_segments_reserve / expandable_segments_reserve_by_class.".into(),
            (15, OomHint::BeyondReserve(size)) => format!(
                " This allocation exceeds the expandable-segment reserve of {size} for this stream, and a single allocation cannot span expandable segments. Raise PYTORCH_CUDA_ALLOC_CONF expandable_segments_reserve or expandable_segments_reserve_by_class (or unset it) so that a segment is at least {}.",
                self.requested
            ),
            _ => usual("PYTORCH_CUDA_ALLOC_CONF", NEWER_NOTES),
        }
    }
}

impl fmt::Display for Oom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minor = self.release.minor();
        write!(f, "CUDA out of memory. Tried to allocate {}. GPU ", self.requested)?;
        if minor == 3 {
            // 2.3 prints the index as a character; for device 0 that is the end of a C string.
            if self.device.0 == 0 {
                return Ok(());
            }
            write!(f, "{}", char::from(self.device.0))?;
        } else {
            write!(f, "{}", self.device)?;
        }
        let capacity = if minor == 1 { "capacty" } else { "capacity" };
        write!(f, " has a total {capacity} of {} of which {} is free. ", self.total, self.free)?;
        for process in &self.processes {
            match process {
                ProcessUse::This(size) => write!(
                    f,
                    "Including non-PyTorch memory, this process has {size} memory in use. "
                )?,
                ProcessUse::Other(pid, size) => {
                    write!(f, "Process {pid} has {size} memory in use. ")?;
                }
            }
        }
        if let Some(allowed) = self.allowed.filter(|_| minor >= 5) {
            write!(f, "{allowed} allowed; ")?;
        }
        let private = if minor >= 4 { self.private_pools } else { Bytes::ZERO };
        write!(
            f,
            "Of the allocated memory {} is allocated by PyTorch, ",
            self.allocated + private
        )?;
        if private > Bytes::ZERO {
            write!(f, "with {private} allocated in private pools (e.g., CUDA Graphs), ")?;
        }
        let unallocated = self.reserved.saturating_sub(self.allocated + private);
        write!(f, "and {unallocated} is reserved by PyTorch but unallocated.{}", self.hint())
    }
}
