//! [`Own`]: a program that a user describes: tensors with sizes and labels, and phases in which they
//! are made and freed.
//!
//! ```toml
//! [sizes]
//! layers = 24
//! width = 2048
//! tokens = "8*512"
//!
//! [tensor.weight]
//! shape = ["4*width", "width"]
//! dtype = "bf16"
//! label = "parameter"
//! count = "layers"
//!
//! [tensor.kept]
//! shape = ["tokens", "4*width"]
//! dtype = "bf16"
//! label = "activation"
//! count = "layers"
//!
//! [[phase]]
//! name = "load"
//! run = ["make weight"]
//!
//! [[phase]]
//! name = "step"
//! repeat = 3
//! run = ["make kept", "free kept"]
//! ```
//! `make NAME` makes all of them, `free NAME` frees all that are live, the newest first, `free oldest
//! NAME` the oldest first. With commas, a line goes through them one by one: `make grad, free kept`
//! makes one and frees one, as often as the first of them has tensors.

mod file;
mod size;

pub use file::{OwnFile, PhaseFile, Size, TensorFile};

use super::{
    Label, Parameter, Parameters, Workload, WorkloadError,
    torch::{DType, StreamRef, Tensor, Torch},
};
use crate::base::near;

/// Numbers of devices, and of streams beside the default one, that a file may name.
const MOST_DEVICES: u8 = 16;
const MOST_STREAMS: u8 = 16;
/// Operations of a program before it is refused without being run.
const MOST_OPS: u64 = 50_000_000;

/// A program of one's own.
#[derive(Clone, Debug)]
pub struct Own {
    file: OwnFile,
}

/// A kind of tensor, with all numbers.
#[derive(Clone, Debug)]
struct Kind {
    name: String,
    shape: Vec<u64>,
    dtype: DType,
    label: Label,
    count: u64,
    device: u8,
    stream: u8,
}

/// One thing that a line does; `usize` is a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Make(usize),
    Free(usize),
    FreeOldest(usize),
    EmptyCache,
}

/// A phase, with all numbers.
#[derive(Clone, Debug)]
struct Phase {
    name: String,
    repeat: u64,
    lines: Vec<Vec<Action>>,
}

impl Own {
    /// The program of a file.
    ///
    /// # Errors
    /// When something in it is not known or not possible: names the place.
    pub fn new(file: OwnFile) -> Result<Self, WorkloadError> {
        let own = Self { file };
        own.resolve()?;
        Ok(own)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    fn names(&self) -> Result<size::Names, WorkloadError> {
        let mut names = size::Names::new();
        // A size may be made of sizes, in any order: each round finds some.
        let mut left: Vec<(&String, &Size)> = self.file.sizes.iter().collect();
        while !left.is_empty() {
            let before = left.len();
            let mut error = None;
            left.retain(|(name, value)| match number(value, &names) {
                Ok(value) => {
                    names.insert((*name).clone(), value);
                    false
                }
                Err(message) => {
                    error.get_or_insert(WorkloadError::parameter(format!("sizes.{name}"), message));
                    true
                }
            });
            if left.len() == before
                && let Some(error) = error
            {
                return Err(error);
            }
        }
        Ok(names)
    }

    fn resolve(&self) -> Result<(Vec<Kind>, Vec<Phase>), WorkloadError> {
        let names = self.names()?;
        let kinds: Vec<Kind> = self
            .file
            .tensor
            .iter()
            .map(|(name, tensor)| {
                kind(name, tensor, &names).map_err(|(key, message)| {
                    WorkloadError::parameter(format!("tensor.{name}.{key}"), message)
                })
            })
            .collect::<Result<_, _>>()?;
        let mut phases = Vec::new();
        for phase in &self.file.phase {
            let wrong = |key: &str, message| {
                WorkloadError::parameter(format!("phase '{}', {key}", phase.name), message)
            };
            let repeat = phase.repeat.as_ref().map_or(Ok(1), |size| number(size, &names));
            let lines = phase.run.iter().map(|line| actions(line, &kinds));
            phases.push(Phase {
                name: phase.name.clone(),
                repeat: repeat.map_err(|message| wrong("repeat", message))?,
                lines: lines.collect::<Result<_, _>>().map_err(|message| wrong("run", message))?,
            });
        }
        if phases.is_empty() {
            let message = "nothing happens: add a [[phase]] with run = [\"make NAME\"]";
            return Err(WorkloadError::parameter("phase", message));
        }
        Ok((kinds, phases))
    }
}

fn number(size: &Size, names: &size::Names) -> Result<u64, String> {
    match size {
        Size::Number(number) => Ok(*number),
        Size::Text(text) => size::eval(text, names),
    }
}

/// # Errors
/// The key and what is wrong with it.
fn kind(
    name: &str,
    tensor: &TensorFile,
    names: &size::Names,
) -> Result<Kind, (&'static str, String)> {
    let (shape, dtype) = match &tensor.bytes {
        Some(_) if !tensor.shape.is_empty() || tensor.dtype.is_some() => {
            return Err(("bytes", "give either bytes, or shape and dtype".into()));
        }
        Some(bytes) => (vec![number(bytes, names).map_err(|e| ("bytes", e))?], DType::U8),
        None if tensor.shape.is_empty() => {
            return Err(("shape", "give a shape such as [\"tokens\", \"width\"], or bytes".into()));
        }
        None => {
            let sides = tensor.shape.iter().map(|side| number(side, names));
            let shape: Vec<u64> = sides.collect::<Result<_, _>>().map_err(|e| ("shape", e))?;
            (shape, dtype(tensor.dtype.as_deref().unwrap_or("fp32")).map_err(|e| ("dtype", e))?)
        }
    };
    let label = tensor.label.as_deref().map_or(Ok(Label::Temporary), label);
    let below = |key, value: u8, limit: u8| match value < limit {
        true => Ok(value),
        false => Err((key, format!("{value} is out of range: 0 to {}", limit - 1))),
    };
    Ok(Kind {
        name: name.to_owned(),
        shape,
        dtype,
        label: label.map_err(|e| ("label", e))?,
        count: tensor
            .count
            .as_ref()
            .map_or(Ok(1), |count| number(count, names))
            .map_err(|e| ("count", e))?,
        device: below("device", tensor.device, MOST_DEVICES)?,
        stream: below("stream", tensor.stream, MOST_STREAMS)?,
    })
}

fn dtype(name: &str) -> Result<DType, String> {
    Ok(match name {
        "fp32" | "float32" => DType::F32,
        "fp16" | "float16" => DType::F16,
        "bf16" | "bfloat16" => DType::BF16,
        "int64" => DType::I64,
        "int32" => DType::I32,
        "int8" | "uint8" => DType::U8,
        "bool" => DType::Bool,
        _ => return Err(format!("'{name}' is none of fp32, fp16, bf16, int64, int32, int8, bool")),
    })
}

fn label(name: &str) -> Result<Label, String> {
    let found = Label::ALL.into_iter().find(|label| label.name() == name);
    found.ok_or_else(|| format!("'{name}' is none of {}", Label::ALL.map(Label::name).join(", ")))
}

/// The actions of a line.
fn actions(line: &str, kinds: &[Kind]) -> Result<Vec<Action>, String> {
    let parts = line.split(',').map(str::trim).filter(|part| !part.is_empty());
    let actions: Vec<Action> = parts.map(|part| action(part, kinds)).collect::<Result<_, _>>()?;
    if actions.is_empty() {
        return Err("an empty line; write one such as \"make NAME\" or \"free NAME\"".into());
    }
    Ok(actions)
}

fn action(text: &str, kinds: &[Kind]) -> Result<Action, String> {
    let tensor = |name: &str| {
        kinds.iter().position(|kind| kind.name == name).ok_or_else(|| {
            match near(name, kinds.iter().map(|kind| kind.name.as_str())) {
                Some(known) => format!("'{text}': no tensor '{name}'; did you mean '{known}'?"),
                None => format!("'{text}': no tensor '{name}'; describe it in [tensor.{name}]"),
            }
        })
    };
    let words: Vec<&str> = text.split_whitespace().take(4).collect();
    match words.as_slice() {
        ["make", name] => Ok(Action::Make(tensor(name)?)),
        ["free", name] => Ok(Action::Free(tensor(name)?)),
        ["free", "oldest", name] => Ok(Action::FreeOldest(tensor(name)?)),
        ["empty_cache"] => Ok(Action::EmptyCache),
        _ => Err(format!(
            "'{text}': write 'make NAME', 'free NAME', 'free oldest NAME' or 'empty_cache'"
        )),
    }
}

impl Parameters for Own {
    /// None that documents itself: its sizes are the user's.
    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }

    /// Gives one of `[sizes]` another value.
    fn set(&mut self, name: &str, value: &str) -> Result<(), WorkloadError> {
        let known = self.file.sizes.keys().map(String::as_str);
        if !self.file.sizes.contains_key(name) {
            let cure =
                near(name, known).map_or(String::new(), |n| format!("; did you mean '{n}'?"));
            let message = format!("there is no such size in [sizes]{cure}");
            return Err(WorkloadError::parameter(name, message));
        }
        let size = value.parse().map_or_else(|_| Size::Text(value.to_owned()), Size::Number);
        self.file.sizes.insert(name.to_owned(), size);
        self.resolve().map(drop)
    }

    fn values(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

impl Workload for Own {
    fn devices(&self) -> u8 {
        let last = self.file.tensor.values().map(|tensor| tensor.device).max().unwrap_or(0);
        last.min(MOST_DEVICES - 1) + 1
    }

    fn check(&self) -> Result<(), WorkloadError> {
        let (kinds, phases) = self.resolve()?;
        let ops = |line: &Vec<Action>| {
            let each = |action: &Action| match action {
                Action::Make(kind) | Action::Free(kind) | Action::FreeOldest(kind) => {
                    kinds[*kind].count.max(1)
                }
                Action::EmptyCache => 1,
            };
            let times = line.first().map_or(1, each);
            match line.as_slice() {
                [_] => times,
                many => times.saturating_mul(many.len() as u64),
            }
        };
        let of_phase = |phase: &Phase| {
            let once = phase.lines.iter().map(ops).fold(1, u64::saturating_add);
            once.saturating_mul(phase.repeat)
        };
        let total = phases.iter().map(of_phase).fold(0, u64::saturating_add);
        if total > MOST_OPS {
            return Err(WorkloadError::TooLong { limit: MOST_OPS });
        }
        Ok(())
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let (kinds, phases) = self.resolve()?;
        let mut live = Live::new(t, &kinds);
        for phase in &phases {
            for _ in 0..phase.repeat {
                for line in &phase.lines {
                    live.line(line).map_err(|message| {
                        WorkloadError::parameter(format!("phase '{}', run", phase.name), message)
                    })?;
                }
                t.mark(&phase.name);
                t.check()?;
            }
        }
        Ok(())
    }
}

/// The tensors that are live, of each kind the oldest first.
struct Live<'a> {
    t: &'a Torch,
    kinds: &'a [Kind],
    tensors: Vec<std::collections::VecDeque<Tensor>>,
    /// Of each device, the streams beside the default one.
    streams: Vec<Vec<StreamRef>>,
}

impl<'a> Live<'a> {
    fn new(t: &'a Torch, kinds: &'a [Kind]) -> Self {
        let devices = usize::from(kinds.iter().map(|kind| kind.device).max().unwrap_or(0)) + 1;
        let of_device = |device: usize| {
            let here = kinds.iter().filter(|kind| usize::from(kind.device) == device);
            let last = here.map(|kind| kind.stream).max().unwrap_or(0);
            t.on_device(device, || {
                (0..=last)
                    .map(|n| match n {
                        0 => t.current_stream(),
                        _ => t.new_stream(),
                    })
                    .collect()
            })
        };
        Self {
            t,
            kinds,
            tensors: kinds.iter().map(|_| Default::default()).collect(),
            streams: (0..devices).map(of_device).collect(),
        }
    }

    fn line(&mut self, line: &[Action]) -> Result<(), String> {
        let times = |live: &Self, action: &Action| match action {
            Action::Make(kind) => live.kinds[*kind].count,
            Action::Free(kind) | Action::FreeOldest(kind) => live.tensors[*kind].len() as u64,
            Action::EmptyCache => 1,
        };
        let Some(first) = line.first() else { return Ok(()) };
        for _ in 0..times(self, first) {
            for action in line {
                self.one(*action)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Make(kind) => {
                let Kind { shape, dtype, label, device, stream, .. } = &self.kinds[kind];
                let stream = self.streams[usize::from(*device)][usize::from(*stream)];
                let tensor = self.t.on_stream(stream, || self.t.empty_as(shape, *dtype, *label));
                self.tensors[kind].push_back(tensor);
            }
            Action::Free(kind) | Action::FreeOldest(kind) => {
                let tensors = &mut self.tensors[kind];
                let freed = match action {
                    Action::Free(_) => tensors.pop_back(),
                    _ => tensors.pop_front(),
                };
                if freed.is_none() {
                    let name = &self.kinds[kind].name;
                    return Err(format!("'free {name}': none of them is live then"));
                }
            }
            Action::EmptyCache => self.t.empty_cache(),
        }
        Ok(())
    }
}
