//! [`Memory`]: what the tensors of a program ask of the allocator of each device.

use super::{clock::Clock, tensor::DType};
use crate::{
    base::{AllocId, Bytes, DeviceIndex, Id, StreamId},
    trace::{Control, Stream, Trace, TraceBuilder},
    workload::{Label, WorkloadError},
};

/// Operations that a program may have: far more than any that somebody looks at.
const MAX_OPS: u64 = 50_000_000;

/// One allocation on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) device: usize,
    pub(super) id: AllocId,
}

/// The operations of every device so far. The first thing that goes wrong is kept, and nothing is
/// added after it: operators need not look.
#[derive(Debug)]
pub(super) struct Memory {
    devices: Vec<DeviceMemory>,
    ops: u64,
    failed: Option<WorkloadError>,
}

#[derive(Debug)]
struct DeviceMemory {
    builder: TraceBuilder,
    labels: Vec<Label>,
    /// Number of streams made.
    streams: u16,
    clock: Clock,
}

impl Memory {
    pub(super) fn new(devices: u8) -> Self {
        let device = |i| DeviceMemory {
            builder: TraceBuilder::new(DeviceIndex(i)),
            labels: Vec::new(),
            streams: 1,
            clock: Clock::default(),
        };
        let devices = (0..devices).map(device).collect();
        Self { devices, ops: 0, failed: None }
    }

    pub(super) fn failure(&self) -> Option<&WorkloadError> {
        self.failed.as_ref()
    }

    pub(super) fn fail(&mut self, error: WorkloadError) {
        self.failed.get_or_insert(error);
    }

    fn count_op(&mut self) -> bool {
        self.ops += 1;
        if self.ops > MAX_OPS {
            self.fail(WorkloadError::TooLong { limit: MAX_OPS });
        }
        self.failed.is_none()
    }

    /// `cudaMalloc` as tensors know it; `None` after a failure.
    pub(super) fn alloc(
        &mut self,
        device: usize,
        stream: StreamId,
        shape: &[u64],
        dtype: DType,
        label: Label,
    ) -> Option<Place> {
        if !self.count_op() {
            return None;
        }
        let size = shape.iter().try_fold(dtype.bytes(), |n, side| n.checked_mul(*side));
        let size = size.filter(|size| *size < 1 << 62);
        let Some(size) = size else {
            let label = label.name();
            let shape = format!("{shape:?} {}", dtype.name());
            self.fail(WorkloadError::TooLarge { label, shape });
            return None;
        };
        if size == 0 {
            return None; // PyTorch's allocator is not asked for nothing
        }
        let memory = self.devices.get_mut(device)?;
        match memory.builder.alloc(Bytes(size), stream, None) {
            Ok(id) => {
                memory.labels.push(label);
                Some(Place { device, id })
            }
            Err(error) => {
                self.fail(error.into());
                None
            }
        }
    }

    pub(super) fn free(&mut self, place: Place) {
        if !self.count_op() {
            return;
        }
        let memory = &mut self.devices[place.device];
        let pending = memory.clock.free(place.id);
        if let Err(error) = memory.builder.free(place.id, pending) {
            self.fail(error.into());
        }
    }

    /// The clock of a device, if there is such a device.
    pub(super) fn clock(&mut self, device: usize) -> Option<&mut Clock> {
        self.devices.get_mut(device).map(|memory| &mut memory.clock)
    }

    pub(super) fn run_late(&mut self) {
        self.devices.iter_mut().for_each(|memory| memory.clock.late = true);
    }

    pub(super) fn record_stream(&mut self, place: Place, stream: StreamId) {
        if !self.count_op() {
            return;
        }
        let memory = &mut self.devices[place.device];
        if memory.clock.late {
            memory.clock.use_on(place.id, stream);
        } else if let Err(error) = memory.builder.record_stream(place.id, stream) {
            self.fail(error.into());
        }
    }

    pub(super) fn control(&mut self, device: usize, control: Control) {
        if self.count_op()
            && let Err(error) = self.devices[device].builder.control(control)
        {
            self.fail(error.into());
        }
    }

    pub(super) fn push(&mut self, device: usize, op: crate::trace::Op) {
        if self.count_op()
            && let Err(error) = self.devices[device].builder.push(op)
        {
            self.fail(error.into());
        }
    }

    pub(super) fn new_stream(&mut self, device: usize) -> StreamId {
        let Some(memory) = self.devices.get_mut(device) else { return StreamId(0) };
        let stream = Stream::numbered(StreamId(memory.streams));
        memory.streams = memory.streams.saturating_add(1);
        match memory.builder.stream(stream) {
            Ok(id) => id,
            Err(error) => {
                self.fail(error.into());
                StreamId(0)
            }
        }
    }

    pub(super) fn label(&self, place: Place) -> Label {
        let memory = self.devices.get(place.device);
        memory.and_then(|m| m.labels.get(place.id.index()).copied()).unwrap_or(Label::Temporary)
    }

    pub(super) fn set_label(&mut self, place: Place, label: Label) {
        let memory = self.devices.get_mut(place.device);
        if let Some(known) = memory.and_then(|m| m.labels.get_mut(place.id.index())) {
            *known = label;
        }
    }

    pub(super) fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Number of operations of a device so far.
    pub(super) fn ops_of(&self, device: usize) -> usize {
        self.devices.get(device).map_or(0, |memory| memory.builder.ops().len())
    }

    /// The traces, with labels, and an empty memory in their place.
    pub(super) fn take(&mut self) -> Result<Vec<Trace>, WorkloadError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let devices = std::mem::take(&mut self.devices);
        // What is dropped after this is no part of the program.
        self.fail(WorkloadError::TooLong { limit: 0 });
        let mut traces = Vec::with_capacity(devices.len());
        for mut memory in devices {
            for (i, label) in memory.labels.iter().enumerate() {
                memory.builder.label(AllocId::from_index(i), label.name())?;
            }
            traces.push(memory.builder.build());
        }
        Ok(traces)
    }
}
