//! What a program will take, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use super::{
    replay::LabelDocument,
    table::{Align, Table},
};
use crate::{base::Bytes, study::estimate::Budget};

/// The budget of a program.
#[derive(Debug, Serialize)]
pub struct EstimateDocument {
    /// The workload.
    pub workload: String,
    /// Its parameters that differ from the defaults.
    pub parameters: std::collections::BTreeMap<String, String>,
    /// The release whose rules were applied.
    pub torch: String,
    /// The settings, as a string that can be pasted.
    pub conf: String,
    /// One for each device that it uses.
    pub devices: Vec<DeviceBudget>,
}

/// What it takes of one device, in bytes.
#[derive(Debug, Serialize)]
pub struct DeviceBudget {
    /// The device.
    pub device: usize,
    /// What is live when most is handed out, as asked.
    pub labels: Vec<LabelDocument>,
    /// How much larger the blocks are.
    pub rounding_bytes: u64,
    /// Most bytes handed out.
    pub allocated_bytes_peak: u64,
    /// The operation.
    pub peak_op: u32,
    /// Reserved beyond that.
    pub cached_bytes: u64,
    /// Most bytes reserved.
    pub reserved_bytes_peak: u64,
    /// The convention for the CUDA context.
    pub context_bytes: u64,
    /// What a device must have for all of it.
    pub total_bytes: u64,
    /// Names of the cards that have as much, smallest first.
    pub cards: Vec<&'static str>,
    /// Why it fails without a limit, if it does.
    pub message: Option<String>,
}

/// A line of the budget in a table of values.
#[derive(Debug, Serialize)]
pub struct FlatBudgetRow {
    device: usize,
    item: String,
    bytes: u64,
    peak_bytes: Option<u64>,
}

impl DeviceBudget {
    /// The budget of one device.
    pub fn new(device: usize, budget: Budget) -> Self {
        Self {
            device,
            rounding_bytes: budget.rounding.0,
            allocated_bytes_peak: budget.allocated.0,
            peak_op: budget.at.0,
            cached_bytes: budget.cached().0,
            reserved_bytes_peak: budget.reserved.0,
            context_bytes: budget.context.0,
            total_bytes: budget.total().0,
            cards: budget.cards().map(|card| card.name).collect(),
            message: budget.failure.as_ref().map(ToString::to_string),
            labels: budget.labels.into_iter().map(Into::into).collect(),
        }
    }

    /// The lines: what adds up to allocated, reserved, total.
    pub fn rows(&self) -> Vec<FlatBudgetRow> {
        let row = |item: &str, bytes, peak_bytes| FlatBudgetRow {
            device: self.device,
            item: item.to_owned(),
            bytes,
            peak_bytes,
        };
        let labels = self.labels.iter().map(|label| {
            row(&label.label, label.requested_bytes, Some(label.requested_bytes_peak))
        });
        labels
            .chain([
                row("rounding", self.rounding_bytes, None),
                row("allocated", self.allocated_bytes_peak, None),
                row("cached", self.cached_bytes, None),
                row("reserved", self.reserved_bytes_peak, None),
                row("context", self.context_bytes, None),
                row("total", self.total_bytes, None),
            ])
            .collect()
    }
}

/// What a line is, for people.
fn about(item: &str) -> &str {
    match item {
        "parameter" => "weights: parameters times their bytes, and casts that are kept",
        "gradient" => "gradients that are there at that moment",
        "optimizer_state" => "what the optimizer remembers of each weight",
        "activation" => "what forward keeps for backward",
        "temporary" => "gone soon",
        "kv_cache" => "keys and values of earlier tokens",
        "input" => "token ids, images, labels",
        "workspace" => "scratch memory of libraries",
        "rounding" => "blocks are multiples of 512 bytes, or left whole",
        "allocated" => "the most that is handed out",
        "cached" => "reserved beyond that, by replay",
        "reserved" => "what PyTorch takes of the device",
        "context" => "CUDA's own, by convention: see --cuda-context",
        "total" => "a device that has as much is enough",
        _ => "",
    }
}

/// What a person reads.
pub fn text(document: &EstimateDocument) -> String {
    let mut out = String::new();
    let given: Vec<String> =
        document.parameters.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let given = if given.is_empty() { "its defaults".to_owned() } else { given.join(", ") };
    let conf = if document.conf.is_empty() { "default settings" } else { document.conf.as_str() };
    let _ = writeln!(out, "{}: {given}; PyTorch {}, {conf}", document.workload, document.torch);
    for device in &document.devices {
        let _ = writeln!(
            out,
            "\ncuda:{}, when most is handed out (operation {})\n",
            device.device, device.peak_op
        );
        let mut table = Table::new(&[
            ("", Align::Left),
            ("then", Align::Right),
            ("most of it", Align::Right),
            ("", Align::Left),
        ]);
        for row in device.rows() {
            let is_sum = matches!(row.item.as_str(), "allocated" | "reserved" | "total");
            let cells = [
                row.item.replace('_', " "),
                Bytes(row.bytes).to_string(),
                row.peak_bytes.map_or_else(String::new, |peak| Bytes(peak).to_string()),
            ];
            let mut cells = cells.map(|cell| (cell, is_sum)).to_vec();
            cells.push((about(&row.item).to_owned(), false));
            table.row(cells);
        }
        out.push_str(&table.text());
        out.push('\n');
        if let Some(message) = &device.message {
            let _ = writeln!(out, "  it fails without a limit, too: {}", message.trim_end());
        }
        let _ = match device.cards.as_slice() {
            [] => writeln!(out, "  none of the cards of `fragsim fit --gpus` has as much"),
            cards => writeln!(out, "  fits on {}", cards.join(", ")),
        };
    }
    out.push_str(
        "\n  A smaller device may do: the allocator gives its cache back before it fails; `fragsim synth` and `fragsim fit` find out.\n",
    );
    out
}
