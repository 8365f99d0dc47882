//! [`OomMessage`]: what an out-of-memory message says, as read from a text. Figures are ranges, as
//! the text has two decimals only. ([`Oom`](super::Oom) is the other direction: exact figures that
//! print such a text.)

use crate::base::ByteRange;

/// Who printed the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// PyTorch on NVIDIA.
    Cuda,
    /// PyTorch on AMD.
    Hip,
    /// PyTorch on Intel.
    Xpu,
    /// PyTorch on Ascend.
    Npu,
    /// PyTorch on Apple's Metal.
    Mps,
    /// PyTorch on another device that follows the same wording.
    Other,
    /// TensorFlow.
    TensorFlow,
    /// XLA, as JAX uses it.
    Xla,
}

impl Backend {
    /// Its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "CUDA",
            Self::Hip => "HIP",
            Self::Xpu => "XPU",
            Self::Npu => "NPU",
            Self::Mps => "MPS",
            Self::Other => "another device",
            Self::TensorFlow => "TensorFlow",
            Self::Xla => "XLA",
        }
    }
}

/// Which wording the message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `(GPU 0; … total capacity; … already allocated; … free; … cached)`: PyTorch 1.0 to 1.4.
    /// *Cached* is reserved less allocated.
    Cached,
    /// `(GPU 0; … reserved in total by PyTorch)`: 1.5 to 2.0, and NPU.
    Reserved,
    /// `GPU 0 has a total capacity of … of which … is free`: 2.1 and later.
    Capacity,
    /// `MPS backend out of memory (MPS allocated: …, max allowed: …)`.
    Mps,
    /// `Allocation on device 0 would exceed allowed memory`: the cudaMallocAsync back-end.
    MallocAsync,
    /// `Current platform can NOT allocate memory block with size larger than 4GB!`.
    BlockLimit,
    /// `Tried to allocate more than 1EB memory`.
    Beyond,
    /// `preemptively rejected because it would exceed per_process_memory_fraction limit`: 2.12 on.
    Rejected,
    /// `Tried to allocate …`, and the rest is not there.
    Cut,
    /// `cuda runtime error (2) : out of memory at …THCStorage.cu`: before 1.0.
    Thc,
    /// `CUDA error: out of memory`: a call to the driver, not the allocator's own message.
    DriverError,
    /// `OOM when allocating tensor with shape[…]`: TensorFlow.
    Tensor,
    /// `RESOURCE_EXHAUSTED: Out of memory while trying to allocate … bytes`: XLA.
    Xla,
}

impl Layout {
    /// A short name that is stable in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Reserved => "reserved",
            Self::Capacity => "capacity",
            Self::Mps => "mps",
            Self::MallocAsync => "cudaMallocAsync",
            Self::BlockLimit => "block limit",
            Self::Beyond => "beyond 1 EiB",
            Self::Rejected => "rejected",
            Self::Cut => "cut",
            Self::Thc => "thc",
            Self::DriverError => "driver error",
            Self::Tensor => "tensorflow",
            Self::Xla => "xla",
        }
    }
}

/// The figures that the message names; what it does not name is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MessageFigures {
    /// "Tried to allocate": in PyTorch the size of the segment, not of the tensor.
    pub requested: Option<ByteRange>,
    /// Capacity of the device.
    pub total: Option<ByteRange>,
    /// Free memory of the device.
    pub free: Option<ByteRange>,
    /// Allocated, as printed: from 2.4 on this holds the free bytes of private pools, too.
    pub allocated: Option<ByteRange>,
    /// Active (NPU only).
    pub active: Option<ByteRange>,
    /// Reserved in total.
    pub reserved: Option<ByteRange>,
    /// Reserved but unallocated, private pools left out.
    pub unallocated: Option<ByteRange>,
    /// "Allocated in private pools": free blocks there.
    pub private_pools: Option<ByteRange>,
    /// The limit of a memory fraction; of MPS, its high watermark.
    pub allowed: Option<ByteRange>,
    /// All memory of this process on the device.
    pub this_process: Option<ByteRange>,
    /// Other listed processes. In a container this process may be one of them.
    pub processes: Vec<(u64, ByteRange)>,
    /// Memory of this process that Metal gave to others than MPS's allocator.
    pub other_allocations: Option<ByteRange>,
    /// The size that the platform refuses one block to exceed, or the expandable reserve that the
    /// request exceeds.
    pub block_limit: Option<ByteRange>,
}

/// What the words around the figures give away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MessageHints {
    /// The variable that the hint names.
    pub variable: Option<String>,
    /// It advises `max_split_size_mb`.
    pub advises_max_split: bool,
    /// It advises `expandable_segments:True`.
    pub advises_expandable: bool,
    /// It says that `expandable_segments` is on.
    pub is_expandable: bool,
    /// It says that the request exceeds the expandable reserve (2.15).
    pub exceeds_reserve: bool,
    /// It says that a custom allocator returned nothing.
    pub custom_allocator: bool,
    /// It advises `empty_cache`.
    pub advises_empty_cache: bool,
}

/// The tensor that TensorFlow could not allocate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorShape {
    /// Its sizes.
    pub sizes: Vec<u64>,
    /// Its element type, if the message says it.
    pub element: Option<String>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OomMessage {
    /// Who printed it.
    pub backend: Backend,
    /// Which wording.
    pub layout: Layout,
    /// The oldest and newest release of PyTorch that word it so, as (major, minor).
    pub torch: Option<[(u8, u8); 2]>,
    /// The device's ordinal.
    pub device: Option<u32>,
    /// The figures.
    pub figures: MessageFigures,
    /// The words.
    pub hints: MessageHints,
    /// TensorFlow's tensor.
    pub tensor: Option<TensorShape>,
}
