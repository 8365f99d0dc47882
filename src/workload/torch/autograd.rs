//! The graph that operators record, and backward through it.
//!
//! Mirrors `torch/csrc/autograd/engine.cpp` (2.11) in what shows in memory: which node runs next
//! (the one recorded last, gradients of weights before all), when a gradient is added in place, when
//! a weight steals it, and in which order a node lets go of things: its incoming gradients, then what
//! it had saved.

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    fmt,
    rc::Rc,
};

use super::{
    StreamRef, Torch,
    checkpoint::Saved,
    tensor::{Storage, Tensor},
};
use crate::workload::Label;

/// Gradients of a node's outputs, or for its inputs; `None` where there is none.
pub(super) type Grads = Vec<Option<Tensor>>;

type Apply = Box<dyn FnOnce(&Torch, Grads, &[bool]) -> Grads>;

/// Where a tensor comes from.
#[derive(Clone, Debug)]
pub(super) enum History {
    /// Nothing was recorded.
    None,
    /// It collects a gradient.
    Leaf(Rc<Leaf>),
    /// It is this output of a node.
    Output(Rc<Node>, usize),
}

/// Where gradients of a weight arrive (`AccumulateGrad`).
#[derive(Debug, Default)]
pub(super) struct Leaf {
    pub(super) grad: RefCell<Option<Tensor>>,
    /// Whether a hook takes the gradient to the host as soon as it is there.
    pub(super) leaves: Cell<bool>,
    /// The memory of the weight itself, which the graph keeps.
    pub(super) _variable: Option<Rc<Storage>>,
}

/// An operator that was recorded.
pub(super) struct Node {
    sequence: u64,
    stream: StreamRef,
    outputs: usize,
    edges: RefCell<Vec<History>>,
    apply: RefCell<Option<Apply>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Drop for Node {
    /// Without recursion, however long the chain: what was saved goes node by node.
    fn drop(&mut self) {
        let mut later = std::mem::take(self.edges.get_mut());
        drop(self.apply.get_mut().take());
        while let Some(edge) = later.pop() {
            if let History::Output(node, _) = edge
                && let Some(mut node) = Rc::into_inner(node)
            {
                drop(node.apply.get_mut().take());
                later.append(node.edges.get_mut());
            }
        }
    }
}

/// An operator that is being recorded, or not: see [`Torch::tape`].
#[must_use]
pub struct Tape<'a> {
    torch: &'a Torch,
    on: bool,
    edges: Vec<History>,
}

impl fmt::Debug for Tape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape").field("on", &self.on).finish_non_exhaustive()
    }
}

impl Tape<'_> {
    /// Whether the graph is recorded.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether input `i` wants a gradient.
    pub fn wants(&self, i: usize) -> bool {
        self.on && !matches!(self.edges.get(i), None | Some(History::None))
    }

    /// Keeps a tensor for backward. Inputs are saved before the operator runs, outputs after.
    pub fn save(&self, tensor: &Tensor) -> Saved {
        if self.on { self.torch.save(tensor) } else { Saved::Nothing }
    }

    /// As [`Tape::save`], if `wanted`.
    pub fn save_if(&self, wanted: bool, tensor: &Tensor) -> Saved {
        if wanted { self.save(tensor) } else { Saved::Nothing }
    }

    /// The result of an operator with one output. Backward gets its gradient and which inputs want
    /// one, and gives one gradient for each input.
    pub fn finish(
        self,
        out: Tensor,
        backward: impl FnOnce(&Torch, Tensor, &[bool]) -> Grads + 'static,
    ) -> Tensor {
        let mut outs = self.finish_all(vec![out], move |torch, mut grads, wants| {
            match grads.pop().flatten() {
                Some(grad) => backward(torch, grad, wants),
                None => Vec::new(),
            }
        });
        outs.swap_remove(0)
    }

    /// The results of an operator with several outputs.
    pub fn finish_all(
        self,
        outs: Vec<Tensor>,
        backward: impl FnOnce(&Torch, Grads, &[bool]) -> Grads + 'static,
    ) -> Vec<Tensor> {
        if !self.on {
            return outs;
        }
        let state = &self.torch.0;
        let sequence = state.sequence.get();
        state.sequence.set(sequence + 1);
        let node = Rc::new(Node {
            sequence,
            stream: self.torch.current_stream(),
            outputs: outs.len(),
            edges: RefCell::new(self.edges),
            apply: RefCell::new(Some(Box::new(backward))),
        });
        let output = |(i, out): (usize, Tensor)| Tensor {
            history: History::Output(Rc::clone(&node), i),
            ..out
        };
        outs.into_iter().enumerate().map(output).collect()
    }
}

impl Torch {
    /// Begins an operator on these inputs.
    pub fn tape(&self, inputs: &[&Tensor]) -> Tape<'_> {
        let on = self.0.grad_enabled.get()
            && self.check().is_ok()
            && inputs.iter().any(|t| t.requires_grad());
        let edges =
            if on { inputs.iter().map(|t| t.history.clone()).collect() } else { Vec::new() };
        Tape { torch: self, on, edges }
    }

    /// Runs backward from a scalar.
    pub fn backward(&self, root: &Tensor) {
        let grad = self.on_device(root.device().unwrap_or(0), || self.empty_like(root));
        self.backward_with(root, &grad);
    }

    /// Runs backward from a tensor with this gradient, which the caller keeps.
    pub fn backward_with(&self, root: &Tensor, grad: &Tensor) {
        let History::Output(node, output) = &root.history else { return };
        self.no_grad(|| {
            let mut engine = Engine::over(node);
            let mut inputs = vec![None; node.outputs];
            inputs[*output] = Some(grad.clone());
            engine.ready.push(Task { target: Target::Node(Rc::clone(node)), inputs });
            while let Some(task) = engine.ready.pop() {
                self.run(&mut engine, task);
            }
        });
    }

    fn run(&self, engine: &mut Engine, task: Task) {
        let node = match task.target {
            Target::Leaf(leaf) => {
                if let Some(grad) = task.inputs.into_iter().next().flatten() {
                    self.accumulate_leaf(&leaf, grad);
                }
                return;
            }
            Target::Node(node) => node,
        };
        let Some(apply) = node.apply.borrow_mut().take() else { return };
        let wants: Vec<bool> =
            node.edges.borrow().iter().map(|e| !matches!(e, History::None)).collect();
        let outputs = self.on_stream(node.stream, || apply(self, task.inputs, &wants));
        self.let_go_of_made_again();
        // What was saved goes after the incoming gradients, first saved first.
        let unpacked = self.0.unpacked.take();
        unpacked.into_iter().for_each(drop);
        self.let_go_of_pieces();

        let mut outputs = outputs.into_iter();
        for edge in node.edges.borrow().iter() {
            let output = outputs.next().flatten();
            match edge {
                History::None => {}
                History::Leaf(leaf) => {
                    engine.arrive(self, Target::Leaf(Rc::clone(leaf)), 0, 1, output);
                }
                History::Output(next, i) => {
                    engine.arrive(self, Target::Node(Rc::clone(next)), *i, next.outputs, output);
                }
            }
        }
    }

    /// `AccumulateGrad`: a weight without gradient steals one that nobody else holds.
    fn accumulate_leaf(&self, leaf: &Leaf, grad: Tensor) {
        let known = leaf.grad.borrow().is_some();
        if known {
            drop(grad); // added in place
            return;
        }
        let grad = if grad.is_only_reference() { grad } else { self.empty_like(&grad) };
        if leaf.leaves.get() {
            return;
        }
        *leaf.grad.borrow_mut() = Some(grad.labelled(Label::Gradient));
    }

    /// `InputBuffer::accumulate`: in the memory of the first, if that is not seen by others.
    fn accumulate(&self, old: Tensor, new: Tensor) -> Tensor {
        if old.takes_sums() {
            return old;
        }
        let sum = self.empty_like(&old);
        drop(old);
        drop(new);
        sum
    }
}

#[derive(Clone, Debug)]
enum Target {
    Node(Rc<Node>),
    Leaf(Rc<Leaf>),
}

impl Target {
    fn key(&self) -> usize {
        match self {
            Self::Node(node) => Rc::as_ptr(node) as usize,
            Self::Leaf(leaf) => Rc::as_ptr(leaf) as usize,
        }
    }

    fn sequence(&self) -> u64 {
        match self {
            Self::Node(node) => node.sequence,
            Self::Leaf(_) => u64::MAX,
        }
    }
}

struct Task {
    target: Target,
    inputs: Grads,
}

impl PartialEq for Task {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Task {}

impl PartialOrd for Task {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Task {
    fn cmp(&self, other: &Self) -> Ordering {
        self.target.sequence().cmp(&other.target.sequence())
    }
}

/// One backward: which nodes still wait, and for how many gradients.
struct Engine {
    dependencies: HashMap<usize, usize>,
    waiting: HashMap<usize, Grads>,
    ready: BinaryHeap<Task>,
}

impl Engine {
    fn over(root: &Rc<Node>) -> Self {
        let mut dependencies: HashMap<usize, usize> = HashMap::new();
        let mut stack = vec![Rc::clone(root)];
        while let Some(node) = stack.pop() {
            for edge in node.edges.borrow().iter() {
                let target = match edge {
                    History::None => continue,
                    History::Leaf(leaf) => Target::Leaf(Rc::clone(leaf)),
                    History::Output(next, _) => Target::Node(Rc::clone(next)),
                };
                let seen = dependencies.entry(target.key()).or_insert(0);
                *seen += 1;
                if let (1, Target::Node(next)) = (*seen, target) {
                    stack.push(next);
                }
            }
        }
        Self { dependencies, waiting: HashMap::new(), ready: BinaryHeap::new() }
    }

    fn arrive(
        &mut self,
        torch: &Torch,
        target: Target,
        at: usize,
        slots: usize,
        grad: Option<Tensor>,
    ) {
        let key = target.key();
        let left = self.dependencies.entry(key).or_insert(1);
        *left = left.saturating_sub(1);
        let is_ready = *left == 0;
        let inputs = self.waiting.entry(key).or_insert_with(|| vec![None; slots]);
        if let Some(grad) = grad {
            inputs[at] = Some(match inputs[at].take() {
                Some(old) => torch.accumulate(old, grad),
                None => grad,
            });
        }
        if is_ready && let Some(inputs) = self.waiting.remove(&key) {
            self.ready.push(Task { target, inputs });
        }
    }
}
