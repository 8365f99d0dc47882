//! Which requests run in a step, and with how many tokens.
//!
//! After vLLM's: running requests go on first; then prompts are taken up, in the order of their
//! arrival and in parts where the step is full; a request for which no block is left is sent back and
//! computed again.

use std::collections::VecDeque;

use super::{Cache, Own, Serve};
use crate::workload::programs::draws::Draws;

/// What somebody asks.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// When it comes, in thousandths of a step.
    at: u64,
    prompt: u64,
    new: u64,
    /// The prefix that it has in common with others.
    pub(super) prefix: Option<usize>,
}

/// A request that runs.
pub(super) struct Running {
    pub(super) request: Request,
    /// Its keys and values, where they are its own.
    pub(super) own: Own,
    /// Tokens whose keys and values are there after this step.
    pub(super) computed: u64,
    /// Tokens that it has in all: its prompt, and what was made.
    length: u64,
    left: u64,
    blocks: u64,
    /// Whether the first of its blocks are those of a prefix that was there before.
    shares: bool,
}

/// One step.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) tokens: u64,
    /// Requests that make new tokens.
    pub(super) decoding: u64,
    /// Requests whose prompt is computed, or a part of it.
    pub(super) prompts: u64,
}

/// The queue and what runs.
pub(super) struct Scheduler {
    block: u64,
    batch: u64,
    batch_tokens: u64,
    draft: u64,
    accepted: u64,
    prefix: u64,
    is_paged: bool,
    queue: VecDeque<Request>,
    running: Vec<Running>,
    free: u64,
    /// Prefixes whose blocks are there.
    kept: Vec<bool>,
    /// Whether the last step sent a request back: then none is taken up.
    is_full: bool,
    now: u64,
    draws: Draws,
}

impl Scheduler {
    pub(super) fn new(is: &Serve, blocks: u64) -> Self {
        let mut draws = Draws::new(is.seed);
        let mut at = 0_u64;
        let mut request = |i: u64| {
            // A day is four times as busy in its middle as at its ends.
            let from_noon = (2 * i).abs_diff(is.requests) * 100 / is.requests;
            let busy = if is.day { 100 + 3 * from_noon } else { 100 };
            at = at.saturating_add(draws.waiting(is.interval) * busy / 100);
            let shared = is.prefix > 0 && draws.percent(is.shared);
            let prefix = draws.uniform(0, is.prefixes - 1);
            let prefix = usize::try_from(prefix).ok().filter(|_| shared);
            let own = draws.log_uniform(is.prompt_min, is.prompt_max);
            let prompt = own + if shared { is.prefix } else { 0 };
            // No longer than what the pool is checked for.
            Request { at, prompt, new: draws.waiting(is.new).min(20 * is.new), prefix }
        };
        let queue = (0..is.requests).map(&mut request).collect();
        let prefixes = usize::try_from(is.prefixes).unwrap_or(0);
        Self {
            block: is.block,
            batch: is.batch,
            batch_tokens: is.batch_tokens,
            draft: is.draft,
            accepted: is.accepted,
            prefix: is.prefix,
            is_paged: is.cache == Cache::Paged,
            queue,
            running: Vec::new(),
            free: blocks,
            kept: vec![false; prefixes],
            is_full: false,
            now: 0,
            draws,
        }
    }

    pub(super) fn running_mut(&mut self) -> impl Iterator<Item = &mut Running> {
        self.running.iter_mut()
    }

    /// The next step; `None` when all is done. While nothing runs, time goes on to the next request.
    pub(super) fn next(&mut self) -> Option<Step> {
        if self.running.is_empty() {
            self.now = self.now.max(self.queue.front()?.at);
        }
        let mut step = Step::default();
        self.is_full = false;
        self.go_on(&mut step);
        if !self.is_full {
            self.take_up(&mut step);
        }
        self.now = self.now.saturating_add(1000);
        Some(step)
    }

    /// What runs goes on; who came last gives way where blocks are missing.
    fn go_on(&mut self, step: &mut Step) {
        let mut i = 0;
        while i < self.running.len() {
            let is_prompt = self.running[i].computed < self.running[i].length;
            let wanted = if is_prompt {
                self.running[i].length - self.running[i].computed
            } else {
                1 + self.draft
            };
            let tokens = wanted.min(self.batch_tokens - step.tokens);
            if tokens == 0 {
                break;
            }
            if !self.give_blocks(i, tokens) {
                let last = self.running.len() - 1;
                self.send_back(last);
                continue;
            }
            if is_prompt {
                self.running[i].computed += tokens;
                step.prompts += 1;
            } else {
                let made = self.made();
                let running = &mut self.running[i];
                let made = made.min(running.left);
                running.computed += made;
                running.length += made;
                running.left -= made;
                step.decoding += 1;
            }
            step.tokens += tokens;
            i += 1;
        }
    }

    /// New tokens of a step: one, and the proposed ones up to the first that is refused.
    fn made(&mut self) -> u64 {
        let mut made = 1;
        while made <= self.draft && self.draws.percent(self.accepted) {
            made += 1;
        }
        made
    }

    fn take_up(&mut self, step: &mut Step) {
        while (self.running.len() as u64) < self.batch
            && step.tokens < self.batch_tokens
            && let Some(request) = self.queue.pop_front()
        {
            if request.at > self.now {
                self.queue.push_front(request);
                return;
            }
            let shares = request.prefix.is_some_and(|i| self.kept[i]);
            // The blocks of a known prefix are shared; where requests have tensors, it is copied.
            let shared = if shares { self.blocks_of_a_prefix() } else { 0 };
            let computed = match (shares, self.is_paged) {
                (false, _) => 0,
                (true, true) => shared * self.block,
                (true, false) => self.prefix,
            };
            let tokens = (request.prompt - computed).min(self.batch_tokens - step.tokens);
            let (length, left) = (request.prompt, request.new);
            let own = Own::default();
            let blocks = shared;
            let running = Running { request, own, computed, length, left, blocks, shares };
            self.running.push(running);
            let last = self.running.len() - 1;
            if !self.give_blocks(last, tokens) {
                self.send_back(last);
                return;
            }
            self.running[last].computed += tokens;
            step.tokens += tokens;
            step.prompts += 1;
        }
    }

    /// Blocks for so many more tokens of a request, from prefixes that nobody asks for if need be.
    fn give_blocks(&mut self, i: usize, tokens: u64) -> bool {
        let running = &self.running[i];
        let needed =
            (running.computed + tokens).div_ceil(self.block).saturating_sub(running.blocks);
        let of_a_prefix = self.blocks_of_a_prefix();
        while self.free < needed
            && let Some(unused) = (0..self.kept.len()).find(|p| {
                self.kept[*p] && !self.running.iter().any(|r| r.request.prefix == Some(*p))
            })
        {
            self.kept[unused] = false;
            self.free += of_a_prefix;
        }
        if self.free < needed {
            return false;
        }
        self.free -= needed;
        self.running[i].blocks += needed;
        true
    }

    /// A request loses its blocks and is computed again later, with what it has made as its prompt.
    fn send_back(&mut self, i: usize) {
        self.is_full = true;
        let running = self.running.remove(i);
        self.take_back(&running);
        let mut request = running.request;
        request.prompt = running.length;
        request.new = running.left;
        self.queue.push_front(request);
    }

    /// Blocks of a request that leaves; those of a prefix stay, unless another one keeps it already.
    fn take_back(&mut self, running: &Running) {
        let mut stay = 0;
        if let Some(i) = running.request.prefix {
            let is_first = running.computed >= self.prefix && !self.kept[i];
            self.kept[i] |= is_first;
            stay = if running.shares || is_first { self.blocks_of_a_prefix() } else { 0 };
        }
        self.free += running.blocks - stay.min(running.blocks);
    }

    /// Whole blocks of a prefix that are shared; none where requests have tensors of their own.
    fn blocks_of_a_prefix(&self) -> u64 {
        if self.is_paged { self.prefix / self.block } else { 0 }
    }

    /// Requests that have all their tokens leave.
    pub(super) fn finish(&mut self) {
        let (done, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(|r| r.left == 0);
        self.running = left;
        for running in done {
            self.take_back(&running);
            super::drop_list(running.own.layers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_served_and_every_block_comes_back() {
        let is = Serve { requests: 200, new: 50, interval: 200, draft: 2, ..Serve::default() };
        let blocks = 600;
        let mut scheduler = Scheduler::new(&is, blocks);
        let (mut steps, mut most) = (0, 0);
        while let Some(step) = scheduler.next() {
            assert!(step.tokens <= is.batch_tokens);
            most = most.max(blocks - scheduler.free);
            scheduler.finish();
            steps += 1;
            assert!(steps < 1_000_000, "it goes on for ever");
        }
        let kept = scheduler.kept.iter().filter(|kept| **kept).count() as u64;
        assert_eq!(scheduler.free + kept * (is.prefix / is.block), blocks);
        assert!(most > blocks / 2, "{most}");
    }
}
