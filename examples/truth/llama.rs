//! Which workload is which real program: Llama-like models, quantised weights, experts, RLHF.

#[path = "mersenne.rs"]
mod mersenne;

use serde_json::{Map, Value};

type Values = Vec<(String, String)>;

/// The program of the catalogue and its values, for the function and the arguments of a recording.
pub fn map(
    program: &str,
    params: &Map<String, Value>,
    _meta: &Value,
) -> Option<(&'static str, Values)> {
    let of = Recorded(params);
    match program {
        "lora" => of.lora(),
        "quantised" => of.quantised(),
        "accel" => of.accelerate(),
        "moe" => of.experts(),
        "train_generate" => of.train_generate(),
        _ => None,
    }
}

struct Recorded<'a>(&'a Map<String, Value>);

impl Recorded<'_> {
    fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::String(text) => Some(text.clone()),
            value => Some(value.to_string()),
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    /// Those of these arguments that there are, by our names.
    fn values(&self, names: &[(&str, &str)]) -> Values {
        let value = |(name, ours): &(&str, &str)| Some(((*ours).to_owned(), self.text(name)?));
        names.iter().filter_map(value).collect()
    }

    fn lora(&self) -> Option<(&'static str, Values)> {
        let kind = self.text("kind")?;
        let names = [("batch", "batch"), ("seq", "seq"), ("steps", "steps")];
        let mut values = self.values(&names);
        // The recorded positions are all zero: each token is a sequence of its own.
        values.push(("mask".into(), "packed".into()));
        values.push(("checkpoint".into(), kind.ends_with("ckpt").to_string()));
        if kind.starts_with("full") {
            return Some(("llama-train", values));
        }
        values.extend(self.values(&[("rank", "rank")]));
        let targets = if kind.contains("qv") { "qv" } else { "all" };
        values.push(("targets".into(), targets.into()));
        Some(("lora", values))
    }

    fn quantised(&self) -> Option<(&'static str, Values)> {
        let names = [
            ("kind", "weights"),
            ("load", "load"),
            ("layers", "layers"),
            ("d", "width"),
            ("h", "heads"),
            ("batch", "batch"),
            ("seq", "seq"),
            ("steps", "steps"),
        ];
        Some(("quantised", self.values(&names)))
    }

    fn accelerate(&self) -> Option<(&'static str, Values)> {
        let names = [("batch", "batch"), ("seq", "seq"), ("steps", "steps")];
        let mut values = self.values(&names);
        values.push(("mask".into(), "packed".into()));
        let (placement, limits) = match self.text("kind")?.as_str() {
            "none" => ("resident", None),
            "cpu_offload" => ("host", None),
            "dispatch_cpu" => ("dispatch", Some("1200")),
            "dispatch_2gpu" => ("dispatch", Some("1200,1200")),
            _ => return None,
        };
        values.push(("placement".into(), placement.into()));
        values.extend(limits.map(|limits| ("limits".into(), limits.into())));
        Some(("offload-infer", values))
    }

    fn experts(&self) -> Option<(&'static str, Values)> {
        let names = [
            ("kind", "routing"),
            ("layers", "layers"),
            ("d", "width"),
            ("experts", "experts"),
            ("batch", "batch"),
            ("seq", "seq"),
            ("steps", "steps"),
        ];
        let mut values = self.values(&names);
        values.push(("heads".into(), (self.number("d")? / 64).to_string()));
        if self.text("kind")? == "random" {
            values.push(("counts".into(), self.counts()?));
        }
        Some(("moe", values))
    }

    /// What the recorded program drew on the host.
    fn counts(&self) -> Option<String> {
        let seed = u32::try_from(self.number("seed")?).ok()?;
        let mut random = mersenne::Random::new(seed);
        let tokens = self.number("batch")? * self.number("seq")?;
        let total = 2 * tokens;
        let exact = f64::from(u32::try_from(total).ok()?);
        let mut all = Vec::new();
        for _ in 0..self.number("steps")? * self.number("layers")? {
            let shares: Vec<f64> =
                (0..self.number("experts")?).map(|_| random.gamma(0.8)).collect();
            let sum: f64 = shares.iter().sum();
            let whole = |share: &f64| format!("{:.0}", (exact * share / sum).floor()).parse().ok();
            let mut counts = shares.iter().map(whole).collect::<Option<Vec<u64>>>()?;
            let given: u64 = counts.iter().sum();
            *counts.first_mut()? += total - given;
            all.extend(counts.into_iter().map(|count| count.min(tokens).to_string()));
        }
        Some(all.join(","))
    }

    fn train_generate(&self) -> Option<(&'static str, Values)> {
        let names = [
            ("empty", "empty"),
            ("layers", "layers"),
            ("d", "width"),
            ("h", "heads"),
            ("rounds", "rounds"),
            ("batch", "batch"),
            ("seq", "seq"),
            ("gen_batch", "gen_batch"),
            ("prompt", "prompt"),
            ("new", "new"),
        ];
        Some(("rlhf", self.values(&names)))
    }
}

#[cfg(test)]
mod tests {
    use super::mersenne::Random;

    /// `random.Random(5).random()` and `.gammavariate(0.8, 1)` after it, printed by Python 3.11.
    #[test]
    fn numbers_are_those_of_python() {
        let mut random = Random::new(5);
        let drawn = [random.random(), random.gamma(0.8)];
        assert_eq!(
            drawn.map(f64::to_bits),
            [0.622_901_694_889_701_9, 2.373_989_769_950_324_3_f64].map(f64::to_bits)
        );
    }
}
