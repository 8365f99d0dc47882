//! A Llama-like model as transformers' `LlamaForCausalLM` runs it.
//!
//! # Source
//! transformers 5.23, `models/llama/modeling_llama.py`; the recordings `scenarios/lora_*`.

mod layer;
mod mask;
mod projection;
mod sites;

use self::{
    layer::{Context, Layer, RmsNorm, Sides},
    projection::brought,
};
pub use self::{
    projection::Kind,
    sites::{Site, Sites},
};
use crate::workload::{
    Label, WorkloadError,
    parameter::{choice, in_range},
    torch::{DType, Tensor, Torch},
};

choice! {
    /// How attention knows what a token sees.
    pub enum Mask {
        /// The kernel is told that it is causal.
        Causal = "causal",
        /// A tensor says so, as where several sequences are packed into one.
        Packed = "packed",
    }
}

/// The sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Layers.
    pub layers: u64,
    /// Width of the hidden states.
    pub width: u64,
    /// Width inside the gated network.
    pub intermediate: u64,
    /// Heads of queries.
    pub heads: u64,
    /// Heads of keys and values.
    pub kv_heads: u64,
    /// Tokens in the vocabulary.
    pub vocab: u64,
}

impl Config {
    /// Checks that there can be such a model.
    ///
    /// # Errors
    /// When a size is out of range, or heads do not divide.
    pub fn check(&self) -> Result<(), WorkloadError> {
        in_range("layers", self.layers, 1..=1000)?;
        in_range("width", self.width, 8..=1 << 20)?;
        in_range("intermediate", self.intermediate, 1..=1 << 24)?;
        in_range("heads", self.heads, 1..=4096)?;
        in_range("vocab", self.vocab, 1..=1 << 32)?;
        if !self.width.is_multiple_of(self.heads) {
            let message = format!("{} heads do not divide a width of {}", self.heads, self.width);
            return Err(WorkloadError::parameter("heads", message));
        }
        let head = self.width / self.heads;
        if !head.is_multiple_of(8) || head > 128 {
            let message = format!(
                "a width of {} in {} heads makes heads of {head}: choose a multiple of 8 up to 128",
                self.width, self.heads
            );
            return Err(WorkloadError::parameter("heads", message));
        }
        in_range("kv_heads", self.kv_heads, 1..=self.heads)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            let message = format!("{} do not divide {} heads", self.kv_heads, self.heads);
            return Err(WorkloadError::parameter("kv_heads", message));
        }
        Ok(())
    }

    /// Numbers in the weights of a layer.
    fn layer_numbers(&self) -> u64 {
        let Self { width, intermediate, heads, kv_heads, .. } = *self;
        let kv = (width / heads.max(1)).saturating_mul(kv_heads);
        let columns = width
            .saturating_add(kv)
            .saturating_mul(2)
            .saturating_add(intermediate.saturating_mul(3))
            .saturating_add(2);
        columns.saturating_mul(width)
    }

    fn sides(&self) -> Sides {
        let Self { width, intermediate, heads, kv_heads, .. } = *self;
        Sides { width, intermediate, heads, kv_heads }
    }
}

/// A model on its devices.
#[derive(Clone, Debug)]
pub struct Llama {
    sides: Sides,
    embed: Tensor,
    layers: Vec<(usize, Layer)>,
    norm: RmsNorm,
    _frequencies: [Tensor; 2],
    head: Tensor,
    sites: Sites,
    checkpoint: bool,
    grad_inputs: bool,
}

impl Llama {
    /// A model made on the device, with weights of this type.
    pub fn new(t: &Torch, config: &Config, dtype: DType, kind: Kind) -> Self {
        let site = Site { device: 0, kind };
        let sites = Sites::all(config, site);
        Self::made(t, config, dtype, sites, mask::frequencies)
    }

    /// A model whose parts arrive where these sites say.
    pub fn placed(t: &Torch, config: &Config, dtype: DType, sites: Sites) -> Self {
        Self::made(t, config, dtype, sites, |t, head| {
            [(); 2].map(|()| t.empty_as(&[head / 2], DType::F32, Label::Parameter))
        })
    }

    fn made(
        t: &Torch,
        config: &Config,
        dtype: DType,
        sites: Sites,
        frequencies: impl Fn(&Torch, u64) -> [Tensor; 2],
    ) -> Self {
        let sides = config.sides();
        let table = [config.vocab, config.width];
        let tensor = |site: Site, shape: &[u64]| {
            t.on_device(site.device, || site.kind.tensor(t, shape, dtype))
        };
        let embed = tensor(sites.embed, &table);
        let layer = |site: &Site| {
            let make = || Layer::new(t, sides, dtype, site.kind);
            (site.device, t.on_device(site.device, make))
        };
        let layers = sites.layers.iter().map(layer).collect();
        let norm = t
            .on_device(sites.norm.device, || RmsNorm::new(t, config.width, dtype, sites.norm.kind));
        let frequencies = t.on_device(sites.rotary, || frequencies(t, sides.head()));
        let head = tensor(sites.head, &table);
        let (checkpoint, grad_inputs) = (false, false);
        let _frequencies = frequencies;
        Self { sides, embed, layers, norm, _frequencies, head, sites, checkpoint, grad_inputs }
    }

    /// Each layer keeps its input alone, and runs again in backward
    /// (`gradient_checkpointing_enable`). Behind frozen embeddings it needs inputs with gradients
    /// (`enable_input_require_grads`).
    pub fn enable_checkpointing(&mut self) {
        self.checkpoint = true;
        self.grad_inputs = !self.embed.requires_grad();
    }

    /// Adds adapters of this rank beside the projections chosen by their number (`q`, `k`, `v`, `o`,
    /// `gate`, `up`, `down`), as `peft.get_peft_model` does.
    pub fn adapt(&mut self, t: &Torch, rank: u64, is_target: impl Fn(usize) -> bool) {
        for (_, layer) in &mut self.layers {
            layer.adapt(t, rank, &is_target);
        }
        for (_, layer) in &mut self.layers {
            layer.widen_adapters(t);
        }
    }

    /// The last hidden states of token ids `[batch, tokens]`.
    fn hidden(&self, t: &Torch, ids: &Tensor, mask: Mask) -> Tensor {
        let (batch, tokens) = (ids.dim(0), ids.dim(1));
        let mut embedded = {
            let table = brought(t, &self.embed);
            t.embedding(ids, &table)
        };
        if self.grad_inputs && t.is_grad_enabled() {
            embedded = embedded.requires_grad_();
        }
        let places = mask::places(t, tokens);
        let mask = (mask == Mask::Packed).then(|| mask::packed_mask(t, batch, tokens));
        let mut hidden = embedded.clone();
        let [cos, sin] = t.on_device(self.sites.rotary, || {
            let (x, at) =
                (self.sites.rotary_input(t, &embedded), self.sites.rotary_input(t, &places));
            let tables = mask::rotary_tables(t, tokens, self.sides.head(), embedded.dtype());
            drop(x);
            drop(at);
            tables
        });
        let context = Context { mask, cos, sin, places };
        for (device, layer) in &self.layers {
            let device = *device;
            hidden = if self.checkpoint {
                let (layer, context) = (layer.clone(), context.clone());
                t.checkpoint(&[hidden.clone()], move |t, inputs| {
                    layer.forward(t, &inputs[0], &context)
                })
            } else {
                let here = t.to_device(&hidden, device);
                let context = context.on(t, device);
                let out = t.on_device(device, || layer.forward(t, &here, &context));
                drop(here);
                drop(context);
                out
            };
        }
        hidden = {
            let device = self.sites.norm.device;
            let here = t.to_device(&hidden, device);
            t.on_device(device, || self.norm.forward(t, &here))
        };
        let Context { mask, cos, sin, places } = context;
        drop(places);
        drop(embedded);
        drop(mask);
        drop(sin);
        drop(cos);
        hidden
    }

    /// Logits of token ids `[batch, tokens]` on the device of these, with the hidden states that they
    /// come from.
    pub fn logits(&self, t: &Torch, ids: &Tensor, mask: Mask) -> (Tensor, Tensor) {
        let hidden = self.hidden(t, ids, mask);
        let device = self.sites.head.device;
        let logits = {
            let here = t.to_device(&hidden, device);
            t.on_device(device, || t.linear(&here, &brought(t, &self.head), None))
        };
        (logits, hidden)
    }

    /// The loss of predicting each next token: `model(input_ids=ids, labels=ids).loss`.
    pub fn loss(&self, t: &Torch, ids: &Tensor, mask: Mask) -> Tensor {
        let (logits, hidden) = self.logits(t, ids, mask);
        let loss = {
            let (batch, tokens, vocab) = (logits.dim(0), logits.dim(1), logits.dim(2));
            let rows = batch.saturating_mul(tokens);
            let wide = t.to(&logits, DType::F32);
            let padded = t.input(&[batch, tokens.saturating_add(1)], DType::I64);
            let labels =
                if batch == 1 { padded.shaped(&[rows]) } else { t.input(&[rows], DType::I64) };
            let wide = t.view(&wide, &[rows, vocab]);
            let loss = t.cross_entropy(&wide, &labels);
            drop(wide);
            drop(padded);
            drop(labels);
            loss
        };
        drop(hidden);
        drop(logits);
        loss
    }

    /// What is trained, in PyTorch's order.
    pub fn trained(&self) -> Vec<Tensor> {
        let leaf = |x: &Tensor| x.requires_grad().then(|| x.clone());
        let layers = self.layers.iter().flat_map(|(_, layer)| layer.trained());
        let ends = self.norm.trained().into_iter().chain(leaf(&self.head));
        leaf(&self.embed).into_iter().chain(layers).chain(ends).collect()
    }
}
