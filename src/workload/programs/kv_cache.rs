//! Keys and values of earlier tokens, held in four ways while requests come and go.

use std::collections::VecDeque;

use super::{Preset, Workload, cuda_graphs::check_heads, draws::Draws};
use crate::workload::{
    Label, WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{DType, Tensor, Torch, drop_list},
};

choice! {
    /// How the cache is held.
    pub enum Cache {
        /// A tensor for each request and layer, grown by `torch.cat`.
        Cat = "cat",
        /// Room for the longest request, allocated when a request starts.
        MaxLen = "max_len",
        /// Room for the longest request in every slot, allocated once.
        Static = "static",
        /// One pool of blocks for all requests, as large as the most blocks in use at a time.
        Paged = "paged",
    }
}

parameters! {
    /// Continuous batching of requests by attention layers in float16, in inference.
    pub struct KvCache {
        /// How the cache is held.
        kind: Cache = Cache::Cat;
        /// Number of requests.
        requests: u64 = 64;
        /// Most requests at a time.
        slots: u64 = 16;
        /// Layers.
        layers: u64 = 2;
        /// Width of the model, in numbers.
        width: u64 = 4096;
        /// Attention heads; they divide the width.
        heads: u64 = 32;
        /// Shortest prompt, in tokens.
        prompt_min: u64 = 32;
        /// Longest prompt, in tokens.
        prompt_max: u64 = 1024;
        /// Fewest new tokens of a request.
        new_min: u64 = 8;
        /// Most new tokens of a request.
        new_max: u64 = 48;
        /// Room for a request, in tokens, where it is allocated ahead.
        room: u64 = 2048;
        /// Tokens in a block of the paged cache.
        block: u64 = 16;
        /// Draws the requests.
        seed: u64 = 0;
        /// Lengths of the prompts, in place of drawn ones.
        prompts: Vec<u64> = Vec::new();
        /// New tokens of each request, in place of drawn ones.
        new: Vec<u64> = Vec::new();
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "cat", values: &[] },
    Preset { name: "static", values: &[("kind", "static")] },
    Preset { name: "paged", values: &[("kind", "paged")] },
];

/// New tokens of all requests together: each is a forward of its own.
const MOST_NEW: u64 = 1_000_000;

/// A request that is served.
struct Request {
    len: u64,
    left: u64,
    slot: u64,
    /// How many it has, where they are paged.
    blocks: u64,
    kv: Vec<Option<Tensor>>,
    x: Option<Tensor>,
}

impl Request {
    /// Its tensors go in the order in which its dictionary holds them.
    fn drop(self) {
        drop_list(self.kv);
        drop(self.x);
    }
}

/// What all requests share.
struct Device {
    qkv: Vec<Tensor>,
    /// The pool, or the slots' room, of each layer.
    shared: Vec<Tensor>,
}

impl KvCache {
    fn drawn(&self) -> Vec<(u64, u64)> {
        if !self.prompts.is_empty() {
            return self.prompts.iter().copied().zip(self.new.iter().copied()).collect();
        }
        let mut draws = Draws::new(self.seed);
        let mut request = |_| {
            let prompt = draws.uniform(self.prompt_min, self.prompt_max);
            (prompt, draws.uniform(self.new_min, self.new_max))
        };
        (0..self.requests).map(&mut request).collect()
    }

    /// The most blocks in use at a time, from the schedule alone.
    fn most_blocks(&self, requests: &[(u64, u64)]) -> u64 {
        let mut queue = requests.iter().copied();
        let mut live: Vec<(u64, u64)> = Vec::new();
        let mut most = 0;
        loop {
            let free = self.slots.saturating_sub(live.len() as u64);
            live.extend(queue.by_ref().take(usize::try_from(free).unwrap_or(usize::MAX)));
            if live.is_empty() {
                return most;
            }
            live.iter_mut().for_each(|(len, left)| (*len, *left) = (*len + 1, *left - 1));
            most = most.max(live.iter().map(|(len, _)| len.div_ceil(self.block)).sum());
            live.retain(|(_, left)| *left > 0);
        }
    }

    fn head(&self) -> u64 {
        self.width / self.heads
    }

    fn cache(&self, t: &Torch, shape: &[u64]) -> Tensor {
        t.empty_as(shape, DType::F16, Label::KvCache)
    }

    fn device(&self, t: &Torch, requests: &[(u64, u64)]) -> Device {
        let (h, e) = (self.heads, self.head());
        let weight = || t.empty_as(&[3 * self.width, self.width], DType::F16, Label::Parameter);
        let qkv = (0..self.layers).map(|_| weight()).collect();
        let blocks = if self.kind == Cache::Paged { self.most_blocks(requests) } else { 0 };
        let shape = match self.kind {
            Cache::Paged => Some(vec![2, blocks, self.block, h, e]),
            Cache::Static => Some(vec![self.slots, 2, h, self.room, e]),
            Cache::Cat | Cache::MaxLen => None,
        };
        let shared = |_| shape.as_ref().map(|shape| self.cache(t, shape));
        let shared = (0..self.layers).filter_map(shared).collect();
        Device { qkv, shared }
    }

    /// New tokens of a request through every layer.
    fn feed(&self, t: &Torch, device: &Device, r: &mut Request, x: Tensor) -> Tensor {
        let (h, e, n) = (self.heads, self.head(), x.dim(0));
        r.len += n;
        // What a paged kernel reads: the tables, not a copy of the blocks.
        let tables = (self.kind == Cache::Paged).then(|| {
            r.blocks = r.len.div_ceil(self.block);
            let places = t.input(&[n], DType::I64);
            (places, t.input(&[r.blocks], DType::I32))
        });
        let mut x = x;
        let mut qkv = None;
        let mut new = None;
        for (i, weight) in device.qkv.iter().enumerate() {
            let packed = t.linear(&x, weight, None);
            let heads = |n: u64| packed.shaped(&[1, h, n, e]);
            let (q, fresh) = (heads(n), heads(n));
            let kv = if self.kind == Cache::Cat {
                drop(qkv.replace(packed));
                let made = self.cache(t, &[2, h, n, e]);
                drop(new.replace(made.clone()));
                let kv = match &r.kv[i] {
                    None => made,
                    Some(old) => self.cache(t, &[2, h, old.dim(2) + n, e]),
                };
                r.kv[i] = Some(kv.clone());
                kv.shaped(&[1, h, kv.dim(2), e])
            } else {
                drop(qkv.replace(packed));
                match (self.kind, device.shared.get(i), &r.kv[i]) {
                    (Cache::Static, Some(kv), _) | (Cache::MaxLen, _, Some(kv)) => {
                        kv.shaped(&[1, h, r.len, e])
                    }
                    _ => fresh,
                }
            };
            let out = t.flash_attention(&q, &kv, &kv);
            x = out.shaped(&[n, self.width]);
        }
        drop(tables);
        drop((qkv, new));
        x
    }

    fn start(&self, t: &Torch, device: &Device, slot: u64, ask: (u64, u64)) -> Request {
        let layers = usize::try_from(self.layers).unwrap_or(0);
        let room = || self.cache(t, &[2, self.heads, self.room, self.head()]);
        let kv = (0..layers).map(|_| (self.kind == Cache::MaxLen).then(room)).collect();
        let mut r = Request { len: 0, left: ask.1, slot, blocks: 0, kv, x: None };
        let out = {
            let x = t.input(&[ask.0, self.width], DType::F16);
            self.feed(t, device, &mut r, x)
        };
        r.x = Some(t.copy(&out.shaped(&[1, self.width])));
        r
    }
}

impl Workload for KvCache {
    fn check(&self) -> Result<(), WorkloadError> {
        in_range("layers", self.layers, 1..=1000)?;
        check_heads(self.width, self.heads)?;
        in_range("slots", self.slots, 1..=10_000)?;
        in_range("block", self.block, 1..=1 << 20)?;
        in_range("room", self.room, 1..=1 << 30)?;
        let refuse = |name, message| Err(WorkloadError::parameter(name, message));
        if self.prompts.len() != self.new.len() {
            let (prompts, new) = (self.prompts.len(), self.new.len());
            return refuse(
                "new",
                format!("{new} numbers for {prompts} prompts: give one for each"),
            );
        }
        in_range("requests", self.requests, 1..=1_000_000)?;
        in_range("prompt_max", self.prompt_max, 1..=1 << 24)?;
        in_range("prompt_min", self.prompt_min, 1..=self.prompt_max)?;
        in_range("new_max", self.new_max, 1..=1 << 24)?;
        in_range("new_min", self.new_min, 1..=self.new_max)?;
        self.prompts.iter().try_for_each(|n| in_range("prompts", *n, 1..=1 << 24))?;
        self.new.iter().try_for_each(|n| in_range("new", *n, 1..=1 << 24))?;
        let drawn = self.drawn();
        let made: u64 = drawn.iter().map(|(_, new)| new).sum();
        if made > MOST_NEW {
            let message = format!(
                "the requests ask for {made} new tokens in all, more than {MOST_NEW}: fewer requests, or \
                 shorter ones"
            );
            return refuse("new_max", message);
        }
        let longest = drawn.iter().map(|(prompt, new)| prompt + new).max().unwrap_or(0);
        let fixed = matches!(self.kind, Cache::MaxLen | Cache::Static);
        if fixed && longest > self.room {
            return refuse("room", format!("a request needs {longest} tokens: at least so many"));
        }
        Ok(())
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        t.no_grad(|| {
            let requests = self.drawn();
            let device = self.device(t, &requests);
            let mut queue: VecDeque<_> = requests.into();
            let mut live: Vec<Request> = Vec::new();
            while !queue.is_empty() || !live.is_empty() {
                while (live.len() as u64) < self.slots
                    && let Some(ask) = queue.pop_front()
                {
                    let taken = |slot: &u64| live.iter().any(|r| r.slot == *slot);
                    let slot = (0..self.slots).find(|slot| !taken(slot)).unwrap_or(0);
                    live.push(self.start(t, &device, slot, ask));
                }
                for r in &mut live {
                    let Some(x) = r.x.clone() else { continue };
                    r.x = Some(self.feed(t, &device, r, x));
                    r.left -= 1;
                }
                let (done, left): (Vec<_>, Vec<_>) = live.into_iter().partition(|r| r.left == 0);
                live = left;
                for request in done {
                    request.drop();
                }
                t.mark("step");
                t.check()?;
            }
            let Device { qkv, shared } = device;
            // A Python function lets go of what it shares with its caller by name: pool, qkv, table.
            let last = if self.kind == Cache::Paged { [shared, qkv] } else { [qkv, shared] };
            last.into_iter().for_each(drop_list);
            t.check()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_does_not_fit_its_room_is_refused() {
        let is = KvCache { kind: Cache::Static, room: 40, ..KvCache::default() };
        assert!(is.check().unwrap_err().to_string().starts_with("room: a request needs"));
        let is = KvCache { prompts: vec![1, 2], new: vec![1], ..KvCache::default() };
        assert!(is.check().unwrap_err().to_string().starts_with("new: 1 numbers for 2 prompts"));
    }

    #[test]
    fn the_pool_is_as_large_as_the_most_blocks_in_use() {
        let is = KvCache { slots: 2, block: 16, ..KvCache::default() };
        // 15 + 1 and 16 + 1 tokens, then a third one in the first one's place.
        assert_eq!(is.most_blocks(&[(15, 1), (16, 3), (33, 1)]), 3 + 2);
    }
}
