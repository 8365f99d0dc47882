//! Which models are on the device.

use super::layers::Model;
use crate::workload::{
    parameter::choice,
    torch::{DType, Torch},
};

choice! {
    /// What waits on the host.
    pub enum Offload {
        /// Nothing.
        None = "none",
        /// Each model but the one at work (`enable_model_cpu_offload`, `--medvram`).
        Model = "model",
        /// Each layer but the one at work (`enable_sequential_cpu_offload`, `--lowvram`).
        Sequential = "sequential",
    }
}

/// The models of a pipeline, in the order in which they work.
#[derive(Debug)]
pub struct Stage {
    models: Vec<Model>,
    offload: Offload,
    /// The model at work, where the others wait on the host.
    here: Option<usize>,
    /// Those that came beside it.
    beside: Vec<usize>,
}

impl Stage {
    /// Brings the models to where they begin.
    pub fn new(t: &Torch, offload: Offload, models: Vec<Model>) -> Self {
        for model in &models {
            match offload {
                Offload::None => model.load(t),
                Offload::Model => {}
                Offload::Sequential => model.offload_layers(t),
            }
        }
        Self { models, offload, here: None, beside: Vec::new() }
    }

    /// Model `i` is about to work.
    ///
    /// # Source
    /// accelerate 1.15, `hooks.py`, `CpuOffload.pre_forward`.
    pub fn enter(&mut self, t: &Torch, i: usize) {
        if self.offload != Offload::Model || self.here == Some(i) {
            return;
        }
        if let Some(model) = self.here.and_then(|i| self.models.get(i)) {
            model.unload();
            t.empty_cache();
        }
        if let Some(model) = self.models.get(i) {
            model.load(t);
        }
        self.here = Some(i);
    }

    /// Model `i` is about to work beside the one at work, which stays: one that no order names.
    ///
    /// # Source
    /// diffusers 0.42, `pipelines/pipeline_utils.py`, `enable_model_cpu_offload`.
    pub fn enter_beside(&mut self, t: &Torch, i: usize) {
        if self.offload != Offload::Model || self.beside.contains(&i) {
            return;
        }
        if let Some(model) = self.models.get(i) {
            model.load(t);
        }
        self.beside.push(i);
    }

    /// The model at work and those beside it go to the host, if there are such.
    ///
    /// # Source
    /// diffusers 0.42, `pipelines/controlnet/pipeline_controlnet.py`, before it decodes.
    pub fn clear(&mut self, t: &Torch) {
        if !self.beside.is_empty() {
            let beside = std::mem::take(&mut self.beside);
            for i in self.here.take().into_iter().chain(beside) {
                if let Some(model) = self.models.get(i) {
                    model.unload();
                }
            }
            t.empty_cache();
        }
    }

    /// `model.to(dtype)` of model `i`.
    pub fn convert(&self, t: &Torch, i: usize, dtype: DType) {
        if let Some(model) = self.models.get(i) {
            model.convert(t, dtype);
        }
    }

    /// The last model at work goes to the host (`maybe_free_model_hooks`).
    pub fn rest(&mut self) {
        if let Some(model) = self.here.take().and_then(|i| self.models.get(i)) {
            model.unload();
        }
    }

    /// The models are gone.
    pub fn leave(&self) {
        self.models.iter().for_each(Model::leave);
    }
}
