//! What a server holds.

use super::*;
use crate::workload::Parameters;

fn small() -> Serve {
    Serve {
        requests: 30,
        layers: 2,
        width: 512,
        heads: 8,
        kv_heads: 2,
        hidden: 1024,
        vocab: 1000,
        memory: 1,
        batch: 16,
        batch_tokens: 512,
        prompt_max: 300,
        new: 20,
        prefix: 64,
        ..Serve::default()
    }
}

fn peak(is: &Serve) -> u64 {
    is.check().unwrap();
    peak_of(|t| is.run(t).unwrap()).unwrap()
}

#[test]
fn a_paged_pool_takes_what_may_be_used_and_no_more() {
    for utilisation in [50, 90] {
        let is = Serve { utilisation, ..small() };
        let may = (1 << 30) / 100 * utilisation;
        let block = is.token_bytes() * is.block;
        let peak = peak(&is);
        assert!(peak <= may && peak > may - may / 50 - block, "{peak} of {may}");
    }
}

#[test]
fn tensors_of_each_request_take_less_where_few_come() {
    let grown = Serve { cache: Cache::Grown, block: 64, draft: 3, ..small() };
    assert!(peak(&grown) < peak(&small()) / 2);
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_the_figures() {
    let mut is = small();
    is.set("layers", "1000").unwrap();
    is.set("width", "4096").unwrap();
    is.set("heads", "32").unwrap();
    let error = is.check().unwrap_err();
    assert!(error.to_string().starts_with("memory: weights and the largest step take"), "{error}");
}

#[test]
fn fewer_bits_make_smaller_weights() {
    let peak_of_weights = |bits| {
        let is = Serve { bits, ..small() };
        peak_of(|t| drop(Model::new(t, &is))).unwrap()
    };
    assert!(peak_of_weights(8) < peak_of_weights(16) * 3 / 4);
    assert!(peak_of_weights(4) < peak_of_weights(8) * 3 / 4);
}
