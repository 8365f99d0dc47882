//! [`Label`]: what a tensor is for.

use std::fmt;

/// What a tensor is for, by which plots and reports colour and sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// Weights, and the small tensors that belong to a model.
    Parameter,
    /// Gradients of weights, from when they are kept.
    Gradient,
    /// What the optimizer remembers of each weight.
    OptimizerState,
    /// What forward keeps for backward.
    Activation,
    /// Everything that is gone soon.
    Temporary,
    /// Keys and values of earlier tokens.
    KvCache,
    /// Token ids, images, labels.
    Input,
    /// Scratch memory of libraries.
    Workspace,
}

impl Label {
    /// Every label.
    pub const ALL: [Self; 8] = [
        Self::Parameter,
        Self::Gradient,
        Self::OptimizerState,
        Self::Activation,
        Self::Temporary,
        Self::KvCache,
        Self::Input,
        Self::Workspace,
    ];

    /// Its name in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parameter => "parameter",
            Self::Gradient => "gradient",
            Self::OptimizerState => "optimizer_state",
            Self::Activation => "activation",
            Self::Temporary => "temporary",
            Self::KvCache => "kv_cache",
            Self::Input => "input",
            Self::Workspace => "workspace",
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
