//! Flux's denoiser: `FluxTransformer2DModel`.

use super::{
    embed::{Embed, sinusoids},
    layers::{Builder, LayerNorm, Linear, Model, RmsNorm},
};
use crate::workload::torch::{Cudnn, DType, Tensor, Torch};

/// Blocks with weights of their own for text and image.
const DOUBLE: u64 = 19;
/// Blocks over text and image as one sequence.
const SINGLE: u64 = 38;
const HEADS: u64 = 24;
const HEAD: u64 = 128;
const WIDTH: u64 = HEADS * HEAD;
/// Width of the text's tokens.
pub const TEXT: u64 = 4096;
/// Width of the pooled text.
pub const POOLED: u64 = 768;
/// Numbers of a place of the latent: four pixels of sixteen channels.
pub const PLACE: u64 = 64;
/// Sines and cosines of a number.
const WAVES: u64 = 256;
/// Numbers of a head that turn with each coordinate.
const AXES: [u64; 3] = [16, 56, 56];

/// A norm whose scale and shift come from the embedding of the time.
#[derive(Clone, Debug)]
struct Modulation {
    linear: Linear,
}

impl Modulation {
    /// With so many vectors.
    fn new(b: &mut Builder, vectors: u64) -> Self {
        Self { linear: b.linear(WIDTH, vectors * WIDTH, true) }
    }

    /// `norm(x) * (1 + scale) + shift`, and the vectors.
    fn forward(&self, t: &Torch, x: &Tensor, emb: &Tensor) -> (Tensor, Tensor) {
        let vectors = {
            let active = t.activation(emb);
            self.linear.forward(t, &active)
        };
        let normed = LayerNorm::plain(t, x);
        (modulate(t, normed), vectors)
    }
}

/// `x * (1 + scale) + shift`.
fn modulate(t: &Torch, x: Tensor) -> Tensor {
    let product = {
        let scale = t.empty(&[x.dim(0), 1, WIDTH], x.dtype());
        let product = t.mul(&x, &scale);
        drop(x);
        product
    };
    t.scale(&product)
}

/// The projections of one sequence.
#[derive(Clone, Debug)]
struct Projections {
    norm_q: RmsNorm,
    norm_k: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Option<Linear>,
}

impl Projections {
    fn new(b: &mut Builder, out: bool) -> Self {
        Self {
            norm_q: b.rms_norm(HEAD),
            norm_k: b.rms_norm(HEAD),
            q: b.linear(WIDTH, WIDTH, true),
            k: b.linear(WIDTH, WIDTH, true),
            v: b.linear(WIDTH, WIDTH, true),
            out: out.then(|| b.linear(WIDTH, WIDTH, true)),
        }
    }

    /// The queries, keys and values, by head.
    fn project(&self, t: &Torch, x: &Tensor) -> [Tensor; 3] {
        let by_head = |x: &Tensor| x.shaped(&[x.dim(0), x.dim(1), HEADS, HEAD]);
        [&self.q, &self.k, &self.v].map(|layer| by_head(&layer.forward(t, x)))
    }

    fn norm(&self, t: &Torch, [q, k, v]: [Tensor; 3]) -> [Tensor; 3] {
        let normed_q = self.norm_q.forward(t, &q);
        drop(q);
        let normed_k = self.norm_k.forward(t, &k);
        [normed_q, normed_k, v]
    }
}

/// `apply_rotary_emb`: in float32, back in the type of `x`.
fn rotate(t: &Torch, x: Tensor) -> Tensor {
    let rotated = {
        let half = t.empty(&[x.dim(0), x.dim(1), HEADS, HEAD / 2], x.dtype());
        let rotated = t.empty_like(&x);
        drop(half);
        rotated
    };
    let wide = |x: &Tensor| {
        let wide = t.to(x, DType::F32);
        t.scale(&wide)
    };
    let sum = {
        let (a, b) = (wide(&x), wide(&rotated));
        t.add(&a, &b)
    };
    let out = t.to(&sum, x.dtype());
    drop((sum, rotated, x));
    out
}

fn attend(t: &Torch, [q, k, v]: &[Tensor; 3]) -> Tensor {
    let by_head = |x: &Tensor| x.shaped(&[x.dim(0), HEADS, x.dim(1), HEAD]);
    let out = t.flash_attention(&by_head(q), &by_head(k), &by_head(v));
    out.shaped(&[q.dim(0), q.dim(1), WIDTH])
}

/// The network after the attention of one sequence.
#[derive(Clone, Debug)]
struct Network(Linear, Linear);

impl Network {
    fn new(b: &mut Builder) -> Self {
        Self(b.linear(WIDTH, 4 * WIDTH, true), b.linear(4 * WIDTH, WIDTH, true))
    }

    fn forward(&self, t: &Torch, x: &Tensor) -> Tensor {
        let mut h = self.0.forward(t, x);
        h = t.activation(&h);
        self.1.forward(t, &h)
    }
}

/// `FluxTransformerBlock`: image and text attend to both, each through weights of its own.
#[derive(Clone, Debug)]
struct DoubleBlock {
    modulations: [Modulation; 2],
    image: Projections,
    text: Projections,
    networks: [Network; 2],
}

impl DoubleBlock {
    fn new(b: &mut Builder) -> Self {
        Self {
            modulations: [Modulation::new(b, 6), Modulation::new(b, 6)],
            image: Projections::new(b, true),
            text: Projections::new(b, true),
            networks: [Network::new(b), Network::new(b)],
        }
    }

    fn forward(&self, t: &Torch, image: &Tensor, text: &Tensor, emb: &Tensor) -> [Tensor; 2] {
        let (normed, vectors) = self.modulations[0].forward(t, image, emb);
        let (normed_text, text_vectors) = self.modulations[1].forward(t, text, emb);
        let [attended, text_attended] = self.attend(t, &normed, &normed_text);
        let [network, text_network] = &self.networks;
        let image = after(t, image, normed, attended, network);
        let text = after(t, text, normed_text, text_attended, text_network);
        drop((vectors, text_vectors));
        [image, text]
    }

    fn attend(&self, t: &Torch, image: &Tensor, text: &Tensor) -> [Tensor; 2] {
        let of_image = self.image.project(t, image);
        let of_text = self.text.project(t, text);
        let of_image = self.image.norm(t, of_image);
        let of_text = self.text.norm(t, of_text);
        let joined = [image.dim(0), image.dim(1) + text.dim(1), HEADS, HEAD];
        let mut parts = of_text.iter().zip(of_image);
        let mut join = || {
            parts.next().map(|(text, image)| {
                let both = t.cat(&[text, &image], &joined);
                drop(image);
                both
            })
        };
        let (Some(q), Some(k), Some(v)) = (join(), join(), join()) else {
            return [image.clone(), text.clone()];
        };
        let turned = [rotate(t, q), rotate(t, k), v];
        let out = attend(t, &turned);
        // The parts of several sequences do not lie in order.
        let part = |like: &Tensor| {
            let part = out.shaped(like.shape());
            if part.dim(0) > 1 { t.copy(&part) } else { part }
        };
        let project = |layer: &Option<Linear>, like: &Tensor| match layer {
            Some(layer) => layer.forward(t, &part(like)),
            None => part(like),
        };
        let result = [project(&self.image.out, image), project(&self.text.out, text)];
        drop((turned, of_text, out));
        result
    }
}

/// What follows the attention of one sequence: both residuals, and the network between them.
fn after(
    t: &Torch,
    x: &Tensor,
    mut normed: Tensor,
    mut attended: Tensor,
    network: &Network,
) -> Tensor {
    attended = t.scale(&attended);
    let mut h = t.add(x, &attended);
    normed = {
        let plain = LayerNorm::plain(t, &h);
        drop(normed);
        modulate(t, plain)
    };
    let mut out = network.forward(t, &normed);
    out = t.scale(&out);
    h = t.add(&h, &out);
    drop((normed, attended, out));
    h
}

/// `FluxSingleTransformerBlock`: attention beside the network.
#[derive(Clone, Debug)]
struct SingleBlock {
    modulation: Modulation,
    network: Linear,
    out: Linear,
    projections: Projections,
}

impl SingleBlock {
    fn new(b: &mut Builder) -> Self {
        Self {
            modulation: Modulation::new(b, 3),
            network: b.linear(WIDTH, 4 * WIDTH, true),
            out: b.linear(5 * WIDTH, WIDTH, true),
            projections: Projections::new(b, false),
        }
    }

    fn forward(&self, t: &Torch, image: &Tensor, text: &Tensor, emb: &Tensor) -> [Tensor; 2] {
        let all = image.dim(1) + text.dim(1);
        let residual = t.cat(&[text, image], &[image.dim(0), all, WIDTH]);
        let (normed, vectors) = self.modulation.forward(t, &residual, emb);
        let network = {
            let wide = self.network.forward(t, &normed);
            t.activation(&wide)
        };
        let attended = {
            let [q, k, v] = self.projections.norm(t, self.projections.project(t, &normed));
            attend(t, &[rotate(t, q), rotate(t, k), v])
        };
        let mut h = t.cat(&[&attended, &network], &[image.dim(0), all, 5 * WIDTH]);
        h = {
            let out = self.out.forward(t, &h);
            t.scale(&out)
        };
        h = t.add(&residual, &h);
        drop((residual, normed, vectors, network, attended));
        [h.shaped(image.shape()), h.shaped(text.shape())]
    }
}

/// `FluxTransformer2DModel`, with the guidance as an input.
#[derive(Debug)]
pub struct Flux {
    time: Embed,
    guidance: Embed,
    pooled: Embed,
    text: Linear,
    image: Linear,
    double: Vec<DoubleBlock>,
    single: Vec<SingleBlock>,
    norm: Linear,
    out: Linear,
}

impl Flux {
    /// The denoiser, and its weights.
    pub fn new(cudnn: Cudnn) -> (Self, Model) {
        let mut b = Builder::new(DType::BF16, cudnn);
        let flux = Self {
            time: Embed::new(&mut b, WAVES, WIDTH),
            guidance: Embed::new(&mut b, WAVES, WIDTH),
            pooled: Embed::new(&mut b, POOLED, WIDTH),
            text: b.linear(TEXT, WIDTH, true),
            image: b.linear(PLACE, WIDTH, true),
            double: (0..DOUBLE).map(|_| DoubleBlock::new(&mut b)).collect(),
            single: (0..SINGLE).map(|_| SingleBlock::new(&mut b)).collect(),
            norm: b.linear(WIDTH, 2 * WIDTH, true),
            out: b.linear(WIDTH, PLACE, true),
        };
        (flux, b.finish())
    }

    /// `transformer(latents, text, pooled)`.
    ///
    /// # Source
    /// diffusers 0.42, `models/transformers/transformer_flux.py`.
    pub fn forward(&self, t: &Torch, latents: &Tensor, text: &Tensor, pooled: &Tensor) -> Tensor {
        let mut image = self.image.forward(t, latents);
        let emb = self.embed(t, latents.dim(0), pooled);
        let mut text = self.text.forward(t, text);
        let places = rotary(t, text.dim(1) + image.dim(1));
        for block in &self.double {
            [image, text] = block.forward(t, &image, &text, &emb);
        }
        for block in &self.single {
            [image, text] = block.forward(t, &image, &text, &emb);
        }
        drop(text);
        let vectors = {
            let active = t.activation(&emb);
            self.norm.forward(t, &active)
        };
        let normed = modulate(t, LayerNorm::plain(t, &image));
        drop(vectors);
        drop(image);
        let out = self.out.forward(t, &normed);
        drop((normed, emb, places));
        out
    }

    /// Of time, guidance and pooled text.
    fn embed(&self, t: &Torch, batch: u64, pooled: &Tensor) -> Tensor {
        let number = |layers: &Embed| {
            let waves = sinusoids(t, batch, WAVES, pooled.dtype());
            layers.forward(t, &waves)
        };
        let (time, guidance) = (number(&self.time), number(&self.guidance));
        let sum = t.add(&time, &guidance);
        let pooled = self.pooled.forward(t, pooled);
        let emb = t.add(&sum, &pooled);
        drop((time, guidance, sum, pooled));
        emb
    }
}

/// Cosines and sines of the places, in float32; made in float64, axis by axis.
fn rotary(t: &Torch, places: u64) -> [Tensor; 2] {
    let mut axes = [Vec::new(), Vec::new()];
    for width in AXES {
        // As wide as float64 is.
        let angles = t.empty(&[places, width / 2], DType::I64);
        for axis in &mut axes {
            let waves = t.empty_like(&angles);
            let twice = t.empty(&[places, width], DType::I64);
            drop(waves);
            axis.push(t.empty_of(&twice, DType::F32));
        }
    }
    axes.map(|axis| t.cat(&axis.iter().collect::<Vec<_>>(), &[places, HEAD]))
}
