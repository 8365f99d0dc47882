//! What the parameters of these programs can be.

use crate::workload::{parameter::choice, torch::DType};

choice! {
    /// Mixed precision.
    pub enum Precision {
        /// Everything in the type of the weights.
        Never = "none",
        /// Products in bfloat16.
        Bf16 = "bf16",
        /// Products in float16.
        Fp16 = "fp16",
    }
}

impl Precision {
    /// The type that autocast casts to.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::Never => None,
            Self::Bf16 => Some(DType::BF16),
            Self::Fp16 => Some(DType::F16),
        }
    }
}

choice! {
    /// Which optimizer.
    pub enum OptimizerKind {
        /// Gradient descent.
        Sgd = "sgd",
        /// Gradient descent with momentum.
        Momentum = "momentum",
        /// Adam or AdamW, all weights at once, as is the default.
        Adam = "adam",
        /// The same, one weight after the other.
        AdamSingle = "adam_single",
        /// The same in one kernel.
        AdamFused = "adam_fused",
        /// States of a byte, unpacked for a step.
        Adam8 = "adam8",
        /// States of a byte, in one kernel.
        Adam8Fused = "adam8_fused",
        /// A number a row and column.
        Adafactor = "adafactor",
    }
}

choice! {
    /// When the optimizer's states are made.
    pub enum StateBirth {
        /// In the first step, as PyTorch does.
        FirstStep = "first_step",
        /// Before the first forward.
        Before = "before",
    }
}

choice! {
    /// Whether training goes on from a checkpoint.
    pub enum Resume {
        /// It begins.
        Never = "no",
        /// The file is loaded onto the device, beside the model.
        Device = "device",
        /// The file is loaded into host memory.
        Host = "host",
    }
}

choice! {
    /// When gradients are cleared.
    pub enum ZeroGrad {
        /// Before forward.
        BeforeForward = "before_forward",
        /// Between forward and backward.
        BeforeBackward = "before_backward",
        /// After the optimizer's step.
        AfterStep = "after_step",
        /// Filled with zeros instead, before forward.
        Zeros = "zeros",
        /// Never.
        Never = "never",
    }
}

choice! {
    /// How long the loss is kept.
    pub enum LossLife {
        /// Until the next one: `loss` is a variable of the loop.
        Variable = "variable",
        /// Until the end of its step: `del loss`.
        Deleted = "deleted",
        /// Until the end of backward: it has no name.
        Temporary = "temporary",
    }
}

choice! {
    /// How losses are added up.
    pub enum SumLoss {
        /// As numbers, or not at all.
        Item = "item",
        /// `total += loss`.
        Tensor = "tensor",
        /// `total += loss.detach()`.
        Detach = "detach",
    }
}

choice! {
    /// What is checkpointed.
    pub enum Checkpoint {
        /// Nothing.
        Never = "none",
        /// Each block.
        Block = "block",
        /// Pieces of equal length, all but the last (`checkpoint_sequential`).
        Segments = "segments",
        /// Pieces of nearly the same length, all of them.
        Even = "even",
    }
}

choice! {
    /// When `torch.cuda.empty_cache()` is called.
    pub enum EmptyCache {
        /// Never.
        Never = "never",
        /// After each step.
        Step = "step",
        /// Between backward and the optimizer's step.
        Backward = "backward",
        /// After the first step.
        FirstStep = "first_step",
        /// After each evaluation.
        Evaluation = "evaluation",
    }
}

choice! {
    /// What lives in host memory.
    pub enum Offload {
        /// Nothing.
        Never = "none",
        /// The optimizer: gradients go to the host after backward, weights come back.
        Optimizer = "optimizer",
        /// The same, each gradient as soon as it is made (ZeRO-Offload).
        Gradients = "gradients",
    }
}

choice! {
    /// Whether a graph is recorded.
    pub enum Mode {
        /// It is.
        Grad = "grad",
        /// `torch.no_grad()`.
        NoGrad = "no_grad",
        /// `torch.inference_mode()`.
        InferenceMode = "inference_mode",
    }
}

choice! {
    /// What becomes of a result.
    pub enum Outputs {
        /// It stays until the next one: `out` is a variable of the loop.
        Variable = "variable",
        /// It goes at the end of its step: `del out`.
        Deleted = "deleted",
        /// It has no name.
        Temporary = "temporary",
        /// All are kept in a list.
        List = "list",
        /// All are kept in a list without their graphs.
        ListDetached = "list_detached",
        /// All are kept in host memory, with their graphs if there are any.
        ListHost = "list_host",
        /// All are kept in host memory without their graphs.
        ListDetachedHost = "list_detached_host",
    }
}
