//! Parameters of workloads: named, documented, read from text, shown by `--help`.

use crate::workload::{WorkloadError, torch::DType};

/// What a workload says about one of its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name: `--NAME` on the command line, `NAME =` in a file.
    pub name: &'static str,
    /// What it is, with its unit.
    pub about: &'static str,
    /// What may be given: `number`, `true or false`, or the choices.
    pub kind: String,
    /// The value that it has when nothing is said.
    pub default: String,
}

/// Something that a parameter can be.
pub trait Value: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// When the text is no such value: says what would be.
    fn parse(text: &str) -> Result<Self, String>;

    /// As [`Value::parse`] reads it.
    fn show(&self) -> String;

    /// What may be given.
    fn kind() -> String;
}

impl Value for u64 {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.replace('_', "");
        digits.parse().map_err(|_| format!("'{text}' is not a whole number from 0"))
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn kind() -> String {
        "number".into()
    }
}

impl Value for f64 {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|n: &Self| n.is_finite());
        number.ok_or_else(|| format!("'{text}' is not a number"))
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn kind() -> String {
        "fraction".into()
    }
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("'{text}' is neither true nor false"))
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn kind() -> String {
        "true or false".into()
    }
}

impl Value for Vec<u64> {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_start_matches('[').trim_end_matches(']');
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(u64::parse).collect()
    }

    fn show(&self) -> String {
        self.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
    }

    fn kind() -> String {
        "numbers".into()
    }
}

impl Value for DType {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "fp32" | "float32" => Ok(Self::F32),
            "fp16" | "float16" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::BF16),
            _ => Err(format!("'{text}' is none of fp32, fp16, bf16")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::F16 => "fp16",
            Self::BF16 => "bf16",
            _ => "fp32",
        }
        .into()
    }

    fn kind() -> String {
        "fp32, fp16 or bf16".into()
    }
}

/// Parameters of one workload, with their values.
pub trait Parameters {
    /// All of them, in the order in which help shows them.
    fn parameters(&self) -> Vec<Parameter>;

    /// Gives one of them a value.
    ///
    /// # Errors
    /// When there is none of this name, or the text is no value of it.
    fn set(&mut self, name: &str, value: &str) -> Result<(), WorkloadError>;

    /// Their values now, as [`Parameters::set`] takes them.
    fn values(&self) -> Vec<(&'static str, String)>;
}

/// An error for a number outside its range.
///
/// # Errors
/// When it is.
pub fn in_range(
    name: &str,
    value: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<(), WorkloadError> {
    let (low, high) = (range.start(), range.end());
    let message = || format!("{value} is out of range: {low} to {high}");
    range.contains(&value).then_some(()).ok_or_else(|| WorkloadError::parameter(name, message()))
}

/// A struct of parameters: documentation, name, type and default of each in one place.
macro_rules! parameters {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[doc = $about:literal])+ $field:ident: $kind:ty = $default:expr;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[doc = $about])+ pub $field: $kind,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::workload::Parameters for $name {
            fn parameters(&self) -> Vec<$crate::workload::Parameter> {
                use $crate::workload::Value;
                let default = Self::default();
                vec![$($crate::workload::Parameter {
                    name: stringify!($field),
                    about: concat!($($about),+).trim(),
                    kind: <$kind>::kind(),
                    default: default.$field.show(),
                },)*]
            }

            fn set(&mut self, name: &str, value: &str) -> Result<(), $crate::workload::WorkloadError> {
                use $crate::workload::{Value, WorkloadError};
                match name.replace('-', "_").as_str() {
                    $(stringify!($field) => {
                        self.$field = <$kind>::parse(value)
                            .map_err(|message| WorkloadError::parameter(name, message))?;
                    })*
                    _ => {
                        let known = [$(stringify!($field)),*].join(", ");
                        let message = format!("there is no such parameter; there are {known}");
                        return Err(WorkloadError::parameter(name, message));
                    }
                }
                Ok(())
            }

            fn values(&self) -> Vec<(&'static str, String)> {
                use $crate::workload::Value;
                vec![$((stringify!($field), self.$field.show()),)*]
            }
        }
    };
}

/// A parameter that is one of some words.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[doc = $about:literal])+ $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $about])+ $variant,)* }

        impl $crate::workload::Value for $name {
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(format!("'{text}' is none of {}", [$($word),*].join(", "))),
                }
            }

            fn show(&self) -> String {
                match self { $(Self::$variant => $word,)* }.into()
            }

            fn kind() -> String {
                [$($word),*].join(", ")
            }
        }
    };
}

pub(crate) use {choice, parameters};
