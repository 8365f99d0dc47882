//! The lessons that ship. A new one is two files in `traces/lessons` and a row here.

use super::{Lesson, LessonError};

/// A lesson that ships.
#[derive(Clone, Copy, Debug)]
pub struct ShelfEntry {
    /// Its name.
    pub name: &'static str,
    text: &'static str,
    traces: &'static [(&'static str, &'static str)],
}

impl ShelfEntry {
    /// Reads it.
    ///
    /// # Errors
    /// Never, as a test reads them all.
    pub fn read(&self) -> Result<Lesson, LessonError> {
        Lesson::read(self.name, self.text, &|name| {
            let found = self.traces.iter().find(|(trace, _)| *trace == name);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| {
                format!("src/lesson/shelf.rs names no trace '{name}' in the row of this lesson")
            })
        })
    }
}

macro_rules! shelf {
    ($($name:literal: $($trace:literal)+;)+) => {
        [$(ShelfEntry {
            name: $name,
            text: include_str!(concat!("../../traces/lessons/", $name, ".md")),
            traces: &[$(($trace, include_str!(concat!("../../traces/lessons/", $trace, ".fragsim")))),+],
        }),+]
    };
}

/// All of them, in their order. Behind each name stand its traces.
pub const SHELF: [ShelfEntry; 32] = shelf![
    "two_layers": "two_layers";
    "empty_cache": "empty_cache";
    "fraction": "fraction" "fraction.limited";
    "no_block": "no_block" "no_block.pinned";
    "pins": "pins" "pins.first";
    "rounding": "rounding";
    "streams": "streams";
    "order": "order" "order.longest";
    "max_split": "max_split" "max_split.hurts";
    "roundup": "roundup";
    "gc": "gc" "gc.nofraction";
    "expandable": "expandable" "expandable.grows";
    "graphs": "graphs" "graphs.large_first" "graphs.separate";
    "no_grad": "no_grad" "no_grad.off";
    "loss_sum": "loss_sum" "loss_sum.train";
    "outputs_list": "outputs_list" "outputs_list.cpu" "outputs_list.detach";
    "zero_grad": "zero_grad" "zero_grad.none";
    "batch_size": "batch_size" "batch_size.b16" "batch_size.b8";
    "accumulation": "accumulation" "batch_size" "batch_size.b8";
    "precision": "precision" "precision.autocast" "precision.bf16";
    "checkpointing": "checkpointing" "checkpointing.layer" "checkpointing.sqrt";
    "eight_bit": "eight_bit" "eight_bit.quarter" "eight_bit.full_activations" "eight_bit.activations";
    "lora": "lora" "lora.adapters";
    "offload": "offload" "offload.host" "offload.sequential";
    "split_devices": "split_devices" "split_devices.first" "split_devices.second";
    "flash": "flash" "flash.fused";
    "slicing": "slicing" "slicing.sliced" "slicing.fused" "slicing.training";
    "kv_cache": "kv_cache" "kv_cache.paged" "kv_cache.reserved";
    "oom_message": "oom_message" "oom_message.fragmented";
    "optimizer_birth": "optimizer_birth";
    "rlhf": "rlhf" "rlhf.empty";
    "server_day": "server_day" "server_day.paged";
];

/// A lesson by its name or its number, from 1; its place on the shelf.
///
/// # Errors
/// With the nearest name.
pub fn find(name: &str) -> Result<usize, String> {
    if let Some(at) = SHELF.iter().position(|entry| entry.name == name) {
        return Ok(at);
    }
    if let Ok(number) = name.parse::<usize>() {
        return match number.checked_sub(1) {
            Some(at) if at < SHELF.len() => Ok(at),
            _ => {
                Err(format!("there is no lesson {number}; they are numbered 1 to {}", SHELF.len()))
            }
        };
    }
    let shown: String = name.chars().take(64).collect();
    let words: Vec<&str> = shown.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let is_near = |entry: &&ShelfEntry| {
        words.iter().any(|word| word.len() >= 3 && entry.name.contains(word))
            || entry.name.split('_').any(|word| word.len() >= 4 && shown.contains(word))
    };
    match SHELF.iter().find(is_near) {
        Some(near) => Err(format!("there is no lesson '{shown}'; did you mean '{}'?", near.name)),
        None => Err(format!("there is no lesson '{shown}'; 'fragsim lesson --list' shows all")),
    }
}
