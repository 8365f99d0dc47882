//! ControlNets: `ControlNetModel`.

use super::{
    attention::How,
    down::{Condition, Down, DownResult, UnetConfig},
    image::Image,
    layers::{Builder, Conv, Model},
    unet::{Control, Middle},
};
use crate::workload::torch::{Cudnn, DType, Tensor, Torch, Window, drop_list};

/// Channels of the convolutions that bring the guiding image to the size of a latent.
const HINT: [u64; 4] = [16, 32, 96, 256];

/// A copy of a UNet's way down, which looks at a guiding image, too.
#[derive(Debug)]
pub struct ControlNet {
    down: Down,
    hint: Vec<Conv>,
    /// One for each image that the UNet's way up gets.
    outs: Vec<Conv>,
    middle: Option<(Conv, Middle)>,
}

impl ControlNet {
    /// The ControlNet of a UNet of these sizes, and its weights.
    pub fn new(config: UnetConfig, how: How, cudnn: Cudnn) -> (Self, Model) {
        let mut b = Builder::new(DType::F16, cudnn);
        let first = config.first();
        let mut hint = Vec::new();
        let down = Down::new(&mut b, config, how, |b| {
            hint.push(b.conv(3, HINT[0], Window::same(3)));
            for pair in HINT.windows(2) {
                hint.push(b.conv(pair[0], pair[0], Window::same(3)));
                hint.push(b.conv(pair[0], pair[1], Window { stride: 2, ..Window::same(3) }));
            }
            hint.push(b.conv(HINT[HINT.len() - 1], first, Window::same(3)));
        });
        let mut out = |channels: u64| b.conv(channels, channels, Window::same(1));
        let kept = Down::kept_channels(&config);
        let outs = kept.iter().map(|channels| out(*channels)).collect();
        let last = kept.last().map(|channels| out(*channels));
        let middle = last.zip(Middle::new(&mut b, &config, how));
        (Self { down, hint, outs, middle }, b.finish())
    }

    /// `controlnet(x, time, text, image)`.
    ///
    /// # Source
    /// diffusers 0.42, `models/controlnets/controlnet.py`.
    pub fn forward(
        &self,
        t: &Torch,
        x: &Tensor,
        condition: &Condition,
        image: &Tensor,
    ) -> Option<Control> {
        let hint = || {
            let mut h = Image::in_order(image.clone());
            for (i, conv) in self.hint.iter().enumerate() {
                h = conv.forward(t, &h);
                if i + 1 < self.hint.len() {
                    h = h.silu(t);
                }
            }
            Some(h)
        };
        let DownResult { mut h, kept, time, emb, told } = self.down.forward(t, x, condition, hint);
        let (last, middle) = self.middle.as_ref()?;
        h = middle.forward(t, &h, &emb, &condition.text);
        let projected: Vec<_> =
            self.outs.iter().zip(&kept).map(|(conv, image)| conv.forward(t, image)).collect();
        drop_list(kept);
        let unscaled = last.forward(t, &h);
        let residuals = projected.iter().map(|image| image.scale(t)).collect();
        drop_list(projected);
        let middle = unscaled.scale(t);
        drop((time, emb, told, h));
        Some(Control { residuals, middle })
    }

    /// Several guide at once (`MultiControlNetModel`): what they add is summed.
    pub fn all(
        nets: &[Self],
        t: &Torch,
        x: &Tensor,
        condition: &Condition,
        image: &Tensor,
    ) -> Option<Control> {
        let mut sum: Option<Control> = None;
        for net in nets {
            let next = net.forward(t, x, condition, image)?;
            sum = Some(match sum {
                None => next,
                Some(before) => Control {
                    residuals: before
                        .residuals
                        .iter()
                        .zip(&next.residuals)
                        .map(|(a, b)| a.add(t, b))
                        .collect(),
                    middle: before.middle.add(t, &next.middle),
                },
            });
        }
        sum
    }
}
