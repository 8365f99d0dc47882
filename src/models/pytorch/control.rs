//! Management calls: settings, the memory fraction, pools, captures, the clock.

use super::{AllocParams, PyTorch, conf::When};
use crate::{
    base::Bytes,
    sim::{AllocError, Observer},
    trace::{BlockState, Control},
};

impl PyTorch {
    pub(super) fn control_op<O: Observer>(
        &mut self,
        control: &Control,
        observer: &mut O,
    ) -> Result<(), AllocError> {
        match control {
            Control::EmptyPool(pool) => self.release_cached_blocks(*pool, observer)?,
            Control::SetFraction(fraction) => self.set_memory_fraction(*fraction)?,
            Control::Settings(text) => self.set_allocator_settings(text)?,
            Control::PoolCreate(pool) => {
                self.create_or_incref_pool(*pool, observer)?;
            }
            Control::PoolBegin(pool, stream) => {
                self.begin_allocate_to_pool(*pool, *stream, observer)?;
            }
            Control::PoolEnd(pool) => self.end_allocate_to_pool(*pool)?,
            Control::PoolRelease(pool) => self.release_pool(*pool)?,
            Control::PoolUseOnOom(pool, on) => self.set_use_on_oom(*pool, *on),
            Control::PoolNoSplit(pool) => self.set_no_split(*pool),
            Control::CaptureBegin(stream) => self.mark_capture(*stream, true),
            Control::CaptureEnd(stream) => self.mark_capture(*stream, false),
            Control::Events(mode) => self.events.clock.set_mode(*mode),
            Control::Complete(Some(stream)) => self.events.clock.complete(*stream),
            Control::Complete(None) => self.events.clock.complete_all(),
            Control::External(bytes) => self.device.set_external(*bytes),
            Control::Total(bytes) => self.device.set_total(*bytes),
            Control::ResetPeak => observer.reset_peak(),
            Control::ResetAccumulated => observer.reset_accumulated(),
            Control::Snapshot(pool) => {
                let layout = self.layout_of(*pool);
                let active = layout.bytes_in(BlockState::ActiveAllocated)
                    + layout.bytes_in(BlockState::ActivePendingFree);
                observer.snapshot(pool.unwrap_or_default(), active);
            }
        }
        Ok(())
    }

    /// `set_per_process_memory_fraction`.
    fn set_memory_fraction(&mut self, fraction: f64) -> Result<(), AllocError> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(AllocError::Failed(self.fraction_error(fraction)));
        }
        let is_no_limit = fraction >= 1.0 && self.rules.full_fraction_is_no_limit;
        self.allowed_maximum = (!is_no_limit).then(|| self.device.total().scale(fraction));
        Ok(())
    }

    fn fraction_error(&self, fraction: f64) -> String {
        if self.rules.fraction_asserts {
            format!(
                "0 <= fraction && fraction <= 1 INTERNAL ASSERT FAILED invalid fraction:{fraction}. Please set within (0, 1)."
            )
        } else {
            format!("invalid fraction:{fraction}. Please set within [0, 1].")
        }
    }

    /// `get_per_process_memory_fraction`.
    pub fn memory_fraction(&self) -> f64 {
        self.allowed_maximum.map_or(1.0, |allowed| allowed.ratio(self.device.total()))
    }

    /// The limit that [`Control::SetFraction`] made, if there is one.
    pub fn allowed_maximum(&self) -> Option<Bytes> {
        self.allowed_maximum
    }

    /// The fraction given in the settings counts from the start.
    pub(super) fn apply_startup_fraction(&mut self) {
        let fraction = self.conf.per_process_memory_fraction;
        if fraction < 1.0 {
            self.allowed_maximum = Some(self.device.total().scale(fraction));
        }
    }

    /// `_set_allocator_settings`. What was read before an error is in force.
    fn set_allocator_settings(&mut self, text: &str) -> Result<(), AllocError> {
        let parsed = self.conf.parse(self.rules.release, text, When::Runtime);
        parsed.map(drop).map_err(|error| AllocError::Failed(error.text))
    }

    /// The reserve that the settings give to expandable segments (2.15).
    pub(super) fn configured_reserve(&self) -> Option<Bytes> {
        self.conf.expandable_segments_reserve.map(|reserve| reserve.bytes(self.device.total()))
    }

    /// The configured reserve, where the request does not fit into it but would into the device.
    pub(super) fn exceeded_reserve(&self, params: &AllocParams) -> Option<Bytes> {
        let fits_device = params.size <= self.device.total();
        self.configured_reserve().filter(|reserve| params.size > *reserve && fits_device)
    }
}
