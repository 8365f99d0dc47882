//! From a name and values to traces: [`find`], [`set`], [`synthesize`].

use super::{
    Workload, WorkloadError, catalogue,
    programs::Entry,
    torch::{Mark, Torch},
};
use crate::{base::near, trace::Trace};

/// What a program did.
#[derive(Clone, Debug)]
pub struct Synthesized {
    /// What each device was asked, in order of the devices.
    pub traces: Vec<Trace>,
    /// Ends of steps and phases.
    pub marks: Vec<Mark>,
}

/// The program of this name.
///
/// # Errors
/// When there is none: says which one is meant, or how to see them all.
pub fn find(name: &str) -> Result<&'static Entry, WorkloadError> {
    catalogue().iter().find(|entry| entry.name == name).ok_or_else(|| {
        let cure = match near(name, catalogue().iter().map(|entry| entry.name)) {
            Some(known) => format!("did you mean '{known}'?"),
            None => "fragsim synth --list shows all".into(),
        };
        WorkloadError::parameter("workload", format!("there is no '{}'; {cure}", shown(name)))
    })
}

impl Entry {
    /// The program with the values of a preset.
    ///
    /// # Errors
    /// When there is no preset of this name.
    pub fn preset(&self, name: &str) -> Result<Box<dyn Workload>, WorkloadError> {
        let preset = self.presets.iter().find(|preset| preset.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.presets.iter().map(|preset| preset.name).collect();
            let cure = match (near(name, known.iter().copied()), known.as_slice()) {
                (Some(known), _) => format!("did you mean '{known}'?"),
                (None, []) => format!("{} has none", self.name),
                (None, known) => format!("there are {}", known.join(", ")),
            };
            WorkloadError::parameter("preset", format!("there is no '{}'; {cure}", shown(name)))
        })?;
        let mut program = (self.make)();
        for (name, value) in preset.values {
            program.set(name, value)?;
        }
        Ok(program)
    }
}

/// Gives a parameter a value, as [`super::Parameters::set`]; `-` and `_` are the same in its name.
///
/// # Errors
/// When there is none of this name: says which one is meant. When the text is no value of it: says
/// what would be.
pub fn set(program: &mut dyn Workload, name: &str, value: &str) -> Result<(), WorkloadError> {
    let plain = name.replace('-', "_");
    let known: Vec<&str> = program.parameters().iter().map(|known| known.name).collect();
    if !known.contains(&plain.as_str()) {
        let cure = match near(&plain, known.iter().copied()) {
            Some(known) => format!("did you mean '{known}'?"),
            None => format!("there are {}", known.join(", ")),
        };
        let message = format!("there is no such parameter; {cure}");
        return Err(WorkloadError::parameter(shown(name), message));
    }
    program.set(&plain, value)
}

/// Text from outside, as much of it as an error should hold.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Checks and runs a program.
///
/// # Errors
/// When its parameters are out of range or do not go together, or it is too large or too long.
pub fn synthesize(program: &dyn Workload) -> Result<Synthesized, WorkloadError> {
    program.check()?;
    let torch = Torch::new(program.devices());
    let ran = program.run(&torch);
    // Also after an error: the caches of the process hold tensors, which hold the process.
    let traces = torch.finish();
    ran?;
    Ok(Synthesized { traces: traces?, marks: torch.marks() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T>(result: Result<T, WorkloadError>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_misspelt_name_finds_the_right_one() {
        assert_eq!(message(find("trian")), "workload: there is no 'trian'; did you mean 'train'?");
        let mut train = (find("train").unwrap().make)();
        let error = message(set(train.as_mut(), "layer", "3"));
        assert_eq!(error, "layer: there is no such parameter; did you mean 'layers'?");
        let error = message(find("train").unwrap().preset("gpt2-smal"));
        assert_eq!(error, "preset: there is no 'gpt2-smal'; did you mean 'gpt2-small'?");
    }

    #[test]
    fn a_program_is_the_same_each_time() {
        let mut train = (find("train").unwrap().make)();
        for (name, value) in [("layers", "1"), ("width", "64"), ("heads", "2"), ("vocab", "100")] {
            set(train.as_mut(), name, value).unwrap();
        }
        let [a, b] = [0, 1].map(|_| synthesize(train.as_ref()).unwrap());
        assert_eq!(a.marks, b.marks);
        assert_eq!(a.marks.len(), 3);
        let text = |s: &Synthesized| crate::trace::script::print(&s.traces[0]).to_string();
        assert_eq!(text(&a), text(&b));
    }
}
