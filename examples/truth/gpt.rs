//! Which parameters of `train` and `infer` a recorded program of a GPT had.

use serde_json::{Map, Value};

type Values = Vec<(String, String)>;

/// The program of the catalogue and its values, for the function and the arguments of a recording.
pub(crate) fn map(
    program: &str,
    params: &Map<String, Value>,
    meta: &Value,
) -> Option<(&'static str, Values)> {
    let of = Recorded { params, meta };
    let mut values = of.sizes();
    let name = match program {
        "infer_gpt" | "outputs_list" => "infer",
        _ => "train",
    };
    let own: Vec<(&str, String)> = match program {
        "infer_gpt" => of.infer(),
        "outputs_list" => of.outputs_list(),
        "attention" => return Some(of.attention(values)),
        "loss_sum" => of.loss_sum(),
        "zero_grad" => of.zero_grad(),
        "train_gpt" => of.train(),
        "precision_gpt" => of.precision(),
        "checkpointing" => of.checkpointing(),
        "optimizer" => of.optimizer(),
        "offload_optimizer" => of.offload(),
        "two_devices" => of.two_devices(),
        "varlen" => of.varlen(),
        "fixed_train" => of.fixed(),
        "eval_between" => of.evaluation(),
        "optimizer_birth" => of.birth(),
        _ => return None,
    };
    values.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Some((name, values))
}

struct Recorded<'a> {
    params: &'a Map<String, Value>,
    meta: &'a Value,
}

impl Recorded<'_> {
    fn text(&self, name: &str) -> String {
        match self.params.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        }
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == value
    }

    /// Parameters that mean the same in every program.
    fn sizes(&self) -> Values {
        let names = [
            ("layers", "layers"),
            ("d", "width"),
            ("h", "heads"),
            ("vocab", "vocab"),
            ("batch", "batch"),
            ("seq", "seq"),
            ("steps", "steps"),
            ("autocast", "autocast"),
        ];
        let known = names.iter().filter(|(name, _)| self.params.contains_key(*name));
        let value = |name: &str| match self.text(name) {
            empty if empty.is_empty() => "none".to_owned(),
            value => value,
        };
        known.map(|(name, ours)| ((*ours).to_owned(), value(name))).collect()
    }

    fn infer(&self) -> Vec<(&'static str, String)> {
        let outputs = if self.is("del_out", "true") { "deleted" } else { "variable" };
        vec![
            ("mode", self.text("mode")),
            ("weights", "fp32".into()),
            ("spare_head", "false".into()),
            ("outputs", outputs.into()),
        ]
    }

    fn outputs_list(&self) -> Vec<(&'static str, String)> {
        let outputs = match self.text("how").as_str() {
            "keep" => "list",
            "detach" => "list_detached",
            "cpu" => "list_host",
            _ => "list_detached_host",
        };
        vec![
            ("mode", self.text("mode")),
            ("weights", "fp32".into()),
            ("outputs", outputs.into()),
            ("next_token", "false".into()),
        ]
    }

    fn attention(&self, mut values: Values) -> (&'static str, Values) {
        let how = self.text("how");
        let (how, slice) = how.split_once(':').unwrap_or((&how, "4"));
        let mut add = |name: &str, value: &str| values.push((name.into(), value.into()));
        add("attention", how);
        add("slice", slice);
        add("vocab", "32000");
        add("weights", "bf16");
        add("autocast", "none");
        if self.is("train", "true") {
            add("zero_grad", "before_forward");
            add("loss", "temporary");
            ("train", values)
        } else {
            add("outputs", "temporary");
            ("infer", values)
        }
    }

    fn loss_sum(&self) -> Vec<(&'static str, String)> {
        vec![
            ("sum_loss", self.text("how")),
            ("backward", self.text("backward")),
            ("autocast", "none".into()),
        ]
    }

    fn zero_grad(&self) -> Vec<(&'static str, String)> {
        let when = match self.text("how").as_str() {
            "zeros_first" => "zeros",
            "none_first" => "before_forward",
            "none_before_backward" => "before_backward",
            _ => "never",
        };
        vec![("zero_grad", when.into())]
    }

    fn train(&self) -> Vec<(&'static str, String)> {
        let accumulate = self.params.get("accum").map_or("1".into(), Value::to_string);
        vec![("zero_grad", "before_forward".into()), ("accumulate", accumulate)]
    }

    fn precision(&self) -> Vec<(&'static str, String)> {
        let (weights, autocast) = match self.text("kind").as_str() {
            "amp_bf16" => ("fp32", "bf16"),
            "fp16_scaler" => ("fp32", "fp16"),
            "pure_bf16" => ("bf16", "none"),
            _ => ("fp32", "none"),
        };
        vec![
            ("weights", weights.into()),
            ("autocast", autocast.into()),
            ("scaler", self.is("kind", "fp16_scaler").to_string()),
        ]
    }

    fn checkpointing(&self) -> Vec<(&'static str, String)> {
        let kind = match self.text("kind").as_str() {
            "block" => "block",
            "sqrt" => "segments",
            "sqrt_even" => "even",
            _ => "none",
        };
        vec![
            ("checkpoint", kind.into()),
            ("zero_grad", "before_forward".into()),
            ("phases", "true".into()),
        ]
    }

    fn optimizer(&self) -> Vec<(&'static str, String)> {
        let kind = match self.text("kind").as_str() {
            "sgd_momentum" => "momentum".to_owned(),
            "adam_foreach" => "adam".to_owned(),
            "adam8_temps" => "adam8".to_owned(),
            kind => kind.to_owned(),
        };
        vec![
            ("optimizer", kind),
            ("zero_grad", "before_forward".into()),
            ("loss", "temporary".into()),
            ("phases", "true".into()),
        ]
    }

    fn offload(&self) -> Vec<(&'static str, String)> {
        let offload = if self.is("kind", "cpu") { "optimizer" } else { "none" };
        vec![
            ("offload", offload.into()),
            ("loss", "temporary".into()),
            ("zero_grad", "after_step".into()),
        ]
    }

    fn two_devices(&self) -> Vec<(&'static str, String)> {
        let split = self.is("kind", "split");
        let mut values = vec![("tied", "false".to_owned()), ("keep_logits", "true".into())];
        if split {
            values.push(("devices", "2".into()));
            values.push(("context", "2048".into()));
        }
        values
    }

    fn varlen(&self) -> Vec<(&'static str, String)> {
        let list = self.meta.get("lengths").map_or(String::new(), Value::to_string);
        vec![
            ("lengths", "list".into()),
            ("length_list", list),
            ("loss", "deleted".into()),
            ("empty_cache", self.empty()),
        ]
    }

    fn empty(&self) -> String {
        match self.text("empty") {
            never if never.is_empty() => "never".into(),
            when => when,
        }
    }

    fn fixed(&self) -> Vec<(&'static str, String)> {
        let fraction = self.params.get("fraction").map_or("0".into(), Value::to_string);
        vec![("loss", "deleted".into()), ("empty_cache", self.empty()), ("fraction", fraction)]
    }

    fn evaluation(&self) -> Vec<(&'static str, String)> {
        let number = |name: &str| self.params.get(name).and_then(Value::as_u64).unwrap_or(0);
        let kind = self.text("kind");
        let same = kind == "same";
        let batches = if kind == "none" { 0 } else { 2 };
        let size = |same_as: &str, own: &str| self.text(if same { same_as } else { own });
        vec![
            ("steps", (2 * number("rounds")).to_string()),
            ("evaluate_every", "2".into()),
            ("evaluate_batches", batches.to_string()),
            ("evaluate_batch", size("batch", "eval_batch")),
            ("evaluate_seq", size("seq", "eval_seq")),
            ("evaluate_grad", (kind == "big_grad").to_string()),
            ("empty_cache", if kind == "big_empty" { "evaluation" } else { "never" }.into()),
        ]
    }

    fn birth(&self) -> Vec<(&'static str, String)> {
        let before = self.is("kind", "before");
        let empty = if self.is("kind", "empty_after") { "first_step" } else { "never" };
        vec![
            ("states", if before { "before" } else { "first_step" }.into()),
            ("empty_cache", empty.into()),
            ("loss", "deleted".into()),
        ]
    }
}
