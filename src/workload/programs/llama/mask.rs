//! The causal mask as a tensor, and the tables of the rotary embedding.

use crate::workload::torch::{DType, Tensor, Torch};

/// The mask `[batch, 1, tokens, tokens]` that transformers makes where several sequences are packed
/// into one: each token sees those before it in its own sequence.
///
/// # Source
/// transformers 5.23, `masking_utils.py`: `create_causal_mask`; `scenarios/lora_b1__full`, entries 355
/// to 435.
pub(super) fn packed_mask(t: &Torch, batch: u64, tokens: u64) -> Tensor {
    let sequences = sequence_of_each_token(t, batch, tokens);
    let ids = |shape: &[u64]| t.empty(shape, DType::I64);
    let (batch_ids, head_ids) = (ids(&[batch]), ids(&[1]));
    let shifted = || {
        let range = ids(&[tokens]);
        let places = ids(&[tokens]);
        drop(range);
        places
    };
    let (q, kv) = (shifted(), shifted());
    let compared = || {
        let (of_q, of_kv) = (taken(t, batch, tokens), taken(t, batch, tokens));
        let result = t.empty(&[batch, 1, tokens, tokens], DType::Bool);
        drop(of_q);
        drop(of_kv);
        result
    };
    let mut mask = t.empty(&[], DType::Bool);
    for _ in 0..2 {
        let part = compared();
        let both = t.empty(&[batch, 1, tokens, tokens], DType::Bool);
        drop(part);
        mask = both;
    }
    drop(batch_ids);
    drop(head_ids);
    drop(q);
    drop(kv);
    drop(sequences);
    mask
}

/// `ids[batch, places]`: indices that are repeated are copied for it.
fn taken(t: &Torch, batch: u64, tokens: u64) -> Tensor {
    let index = || t.empty(&[batch, tokens], DType::I64);
    let copies: Vec<_> = (0..batch.min(2)).map(|_| index()).collect();
    let result = index();
    copies.into_iter().for_each(drop);
    result
}

fn sequence_of_each_token(t: &Torch, batch: u64, tokens: u64) -> Tensor {
    let ids = |columns: u64| t.empty(&[batch, columns], DType::I64);
    let first = ids(1);
    let steps = {
        let longer = ids(tokens + 1);
        let steps = ids(tokens);
        drop(longer);
        steps
    };
    let sequences = {
        let is_new = t.empty(&[batch, tokens], DType::Bool);
        let sequences = t.running_sum(&is_new);
        drop(is_new);
        sequences
    };
    let last = t.empty(&[batch], DType::Bool);
    let all = t.empty(&[], DType::Bool);
    drop(last);
    drop(all);
    drop(first);
    drop(steps);
    sequences
}

/// `position_ids`: a range, moved by the tokens before it.
pub(super) fn places(t: &Torch, tokens: u64) -> Tensor {
    let range = t.empty(&[tokens], DType::I64);
    let places = t.empty(&[tokens], DType::I64);
    drop(range);
    places
}

/// Cosines and sines `[1, 1, tokens, head]` for the rotary embedding, in `dtype`.
///
/// # Source
/// transformers 5.23, `modeling_llama.py`: `LlamaRotaryEmbedding.forward`.
pub(super) fn rotary_tables(t: &Torch, tokens: u64, head: u64, dtype: DType) -> [Tensor; 2] {
    let frequencies = {
        let places = t.empty(&[tokens], DType::F32);
        let frequencies = t.empty(&[tokens, head / 2], DType::F32);
        drop(places);
        frequencies
    };
    let shape = [1, 1, tokens, head];
    let doubled = t.empty(&shape, DType::F32);
    let scaled = || {
        let table = t.empty(&shape, DType::F32);
        let scaled = t.empty(&shape, DType::F32);
        drop(table);
        scaled
    };
    let (cos, sin) = (scaled(), scaled());
    let tables = [t.to(&cos, dtype), t.to(&sin, dtype)];
    drop(frequencies);
    drop(doubled);
    drop(cos);
    drop(sin);
    tables
}

/// The frequencies of the rotary embedding `[head / 2]`, and their copy: made twice, as the weights are
/// initialised after they are made.
pub(super) fn frequencies(t: &Torch, head: u64) -> [Tensor; 2] {
    let numbers = |n| t.empty(&[n], DType::F32);
    let half = head / 2;
    let compute = || {
        let exponents = {
            let range = numbers(half);
            let exponents = numbers(half);
            drop(range);
            exponents
        };
        let powers = numbers(half);
        drop(t.empty(&[], DType::I64)); // the base
        drop(exponents);
        let inverse = numbers(half);
        let frequencies = numbers(half);
        drop(inverse);
        drop(powers);
        frequencies
    };
    let frequencies = compute();
    let original = numbers(half);
    drop(compute());
    [frequencies, original]
}
