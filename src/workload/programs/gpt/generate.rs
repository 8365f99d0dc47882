//! Generation: keys and values of each layer are kept, and grow by a copy for each token.

use super::{Block, Gpt};
use crate::workload::{
    Label,
    torch::{DType, Tensor, Torch, drop_list},
};

/// Keys and values `[batch, heads, tokens, head]` of a layer.
type Cache = [Tensor; 2];

impl Gpt {
    /// `new` tokens after token ids `[batch, tokens]`, the likeliest each time; no graph is recorded.
    /// The head sees the last token only.
    ///
    /// # Source
    /// `scenarios/rlhf__never`, entries 173 to 1060.
    pub fn generate(&self, t: &Torch, prompt: &Tensor, new: u64) -> Tensor {
        t.no_grad(|| {
            let batch = prompt.dim(0);
            let mut caches: Vec<Option<Cache>> = self.blocks.iter().map(|_| None).collect();
            let mut x = self.embed(t, prompt);
            let (mut ids, mut next) = (prompt.clone(), None);
            for i in 0..new {
                for (block, cache) in self.blocks.iter().zip(&mut caches) {
                    let (out, grown) = block.cached(t, &x, cache.as_ref());
                    x = out;
                    drop(cache.replace(grown.map(|x| x.labelled(Label::KvCache))));
                }
                let logits = {
                    let normed = {
                        let mut last = t.slice(&x, &[batch, 1, x.dim(2)]);
                        if x.dim(1) > 1 && batch > 1 {
                            last = t.copy(&last);
                        }
                        self.norm.forward(t, &last)
                    };
                    t.linear(&normed, self.head.as_ref().unwrap_or(&self.tok), None)
                };
                let token = t.argmax(&logits).shaped(&[batch, 1]);
                drop(logits);
                drop(next.replace(token.clone()));
                let tokens = prompt.dim(1).saturating_add(i).saturating_add(1);
                ids = t.cat(&[&ids, &token], &[batch, tokens]);
                x = self.embed(t, &token);
                if t.check().is_err() {
                    break;
                }
            }
            drop_list(caches);
            ids
        })
    }

    /// The next token after token ids `[batch, tokens]` whose keys and values go into a pool made
    /// before: nothing of them stays here.
    pub fn paged(&self, t: &Torch, ids: &Tensor) -> Tensor {
        let mut x = self.embed(t, ids);
        for block in self.blocks.iter() {
            x = block.cached(t, &x, None).0;
        }
        let logits = {
            let last = t.slice(&x, &[x.dim(0), 1, x.dim(2)]);
            let normed = self.norm.forward(t, &last);
            t.linear(&normed, self.head.as_ref().unwrap_or(&self.tok), None)
        };
        t.argmax(&logits).shaped(&[ids.dim(0), 1])
    }
}

impl Block {
    /// One step of generation: the result, and the keys and values so far with those of `x`.
    fn cached(&self, t: &Torch, x: &Tensor, cache: Option<&Cache>) -> (Tensor, Cache) {
        let (b, n, d) = (x.dim(0), x.dim(1), x.dim(2));
        let head = d.checked_div(self.shape.heads).unwrap_or(0);
        let sides = [b, self.shape.heads, n, head];
        let qkv = {
            let normed = self.norms[0].forward(t, x);
            self.qkv.forward(t, &normed)
        };
        let q = qkv.shaped(&sides);
        let grown = t.labelled(Label::KvCache, || match cache {
            // Views: the first cache is the whole of queries, keys and values.
            None => [qkv.shaped(&sides), qkv.shaped(&sides)],
            Some(old) => old.each_ref().map(|old| {
                let tokens = old.dim(2).saturating_add(n);
                t.cat(&[old, &qkv.shaped(&sides)], &[b, self.shape.heads, tokens, head])
            }),
        });
        drop(qkv);
        let [k, v] = &grown;
        let a = match q.dtype() {
            DType::F32 => t.efficient_attention(&q, k, v),
            _ => t.flash_attention(&q, k, v),
        };
        let sum = {
            let y = self.proj.forward(t, &t.view(&a, &[b, n, d]));
            t.add(x, &y)
        };
        let y = {
            let wide = {
                let normed = self.norms[1].forward(t, &sum);
                self.fc.forward(t, &normed)
            };
            let active = t.activation(&wide);
            drop(wide);
            self.out.forward(t, &active)
        };
        let out = t.add(&sum, &y);
        drop(y);
        drop(sum);
        drop(q);
        drop(a);
        (out, grown)
    }
}
