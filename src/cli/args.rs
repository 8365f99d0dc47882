//! What is typed.

use std::path::PathBuf;

use clap::{Args, ColorChoice, Parser, Subcommand, ValueEnum};

use crate::{
    base::{Bytes, Release},
    study::cards,
};

/// An exact model of PyTorch's CUDA caching allocator.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    long_about = "An exact model of PyTorch's CUDA caching allocator. It re-decides every decision of a recorded \
                  run, address by address, and replays the run under other settings, another capacity or another \
                  release of PyTorch (2.1 to 2.15).",
    after_help = "Record a run:\n  \
                  torch.cuda.memory._record_memory_history()\n  \
                  ...\n  \
                  torch.cuda.memory._dump_snapshot(\"run.pickle\")\n\n\
                  Then:\n  \
                  fragsim inspect run.pickle\n  \
                  fragsim explain train.log\n  \
                  fragsim explain run.pickle\n  \
                  fragsim verify run.pickle\n  \
                  fragsim replay run.pickle --capacity 24GiB --conf expandable_segments:True\n\n\
                  Without a recording:\n  \
                  fragsim lesson\n\n\
                  Exit status: 0 all well, 1 it differs or runs out of memory, 2 unusable input."
)]
pub(super) struct Cli {
    /// When to use colours
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    pub color: ColorChoice,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Verify(VerifyArgs),
    Replay(ReplayArgs),
    Inspect(InspectArgs),
    Explain(ExplainArgs),
    Pack(PackArgs),
    Compare(super::compare::CompareArgs),
    Fit(super::fit::FitArgs),
    Tune(super::tune::TuneArgs),
    Sweep(super::sweep::SweepArgs),
    Plot(super::pictures::plot::PlotArgs),
    Report(super::pictures::report::ReportArgs),
    Series(super::pictures::series::SeriesArgs),
    Lesson(super::lesson::LessonArgs),
    Synth(super::synth::SynthArgs),
    Estimate(super::synth::estimate::EstimateArgs),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// Comma-separated values with a line of names.
    Csv,
}

/// Re-decide a recorded run and compare every decision with what PyTorch did
///
/// Only outside facts are taken from the recording: what was asked and freed, when, on which stream
/// and pool; the addresses that the driver gave; when it refused; when empty_cache ran and pending
/// frees completed. Everything else the model decides, and every decision is compared.
///
/// Takes snapshots of torch.cuda.memory._snapshot() (pickle, .gz, .zst) and golden cases (.jsonl).
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim verify run.pickle\n  \
    fragsim verify ranks/*.pickle.gz --format json\n  \
    zstd -dc run.pickle.zst | fragsim verify -\n\n\
    Exit status: 0 all exact, 1 some differ, 2 unreadable input.")]
pub(super) struct VerifyArgs {
    /// Recordings; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The release of PyTorch that made them; otherwise the one whose rules fit is found
    #[arg(long, value_name = "RELEASE")]
    pub torch: Option<Release>,
    /// The settings (PYTORCH_CUDA_ALLOC_CONF); otherwise those that the recording reports
    #[arg(long, value_name = "STRING")]
    pub conf: Option<String>,
    /// Capacity of the device, such as 80GiB; needed where a memory fraction or garbage collection
    /// was in force
    #[arg(long, value_name = "SIZE", value_parser = capacity, allow_hyphen_values = true)]
    pub capacity: Option<Bytes>,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Only the files that are not exact, and the count
    #[arg(long, short)]
    pub quiet: bool,
}

/// Which device of the trace, under whose rules, and what else has memory there.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct DeviceArgs {
    /// Release of PyTorch, 2.1 to 2.15; otherwise the one that can have made the recording
    #[arg(long, value_name = "RELEASE")]
    pub torch: Option<Release>,
    /// Which device of the trace; otherwise the first that has operations
    #[arg(long, value_name = "N")]
    pub device: Option<u8>,
    /// Memory that the CUDA context takes
    #[arg(long, value_name = "SIZE", default_value = "0", allow_hyphen_values = true)]
    pub context: Bytes,
    /// Memory that other processes hold
    #[arg(long, value_name = "SIZE", default_value = "0", allow_hyphen_values = true)]
    pub external: Bytes,
}

/// The capacity of the device.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct CapacityArgs {
    /// Capacity of the device, such as 24GiB, or a card of `fragsim fit --gpus`; otherwise what the
    /// recording shows, or no limit
    #[arg(long, value_name = "SIZE", value_parser = capacity, allow_hyphen_values = true)]
    pub capacity: Option<Bytes>,
}

/// The terms of one replay, but for the settings.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct TermsArgs {
    #[command(flatten)]
    pub of: CapacityArgs,
    #[command(flatten)]
    pub on: DeviceArgs,
    /// How the driver chooses addresses: rising, falling, first-fit, random:SEED
    #[arg(long, value_name = "POLICY", default_value = "rising", value_parser = addresses)]
    pub addresses: crate::sim::AddressPolicy,
}

/// Replay a run under other settings, another capacity or another release
///
/// Prints peaks, the worst fragmentation, retries and device calls; and if it dies, PyTorch's own
/// message and where. Requests that failed in the recording are asked again at their place, to say
/// whether they would be served, but do not become part of the replay.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim replay run.pickle --capacity 24GiB\n  \
    fragsim replay run.pickle --capacity 24GiB --conf expandable_segments:True\n  \
    fragsim replay run.pickle --torch 2.6 --format json\n  \
    fragsim replay steps.fragsim --summary --at 120\n  \
    fragsim replay run.pickle --events - | head\n\n\
    Sizes: 512, 20MiB, 1.5GiB, 80G (binary units).\n\
    Exit status: 0 all was served, 1 something failed, 2 unusable input.")]
pub(super) struct ReplayArgs {
    /// A snapshot, a golden case, or a trace in fragsim's own formats; `-` is standard input
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,
    /// Settings as in PYTORCH_CUDA_ALLOC_CONF; otherwise those of the recording
    #[arg(long, value_name = "STRING")]
    pub conf: Option<String>,
    #[command(flatten)]
    pub terms: TermsArgs,
    /// What to do when a request fails
    #[arg(long, value_name = "WHAT", value_enum, default_value = "stop")]
    pub on_oom: OnOomArg,
    /// As under PYTORCH_NO_CUDA_MEMORY_CACHING=1
    #[arg(long)]
    pub no_caching: bool,
    /// Print the table of torch.cuda.memory_summary() (with --format json: under the key "summary")
    #[arg(long)]
    pub summary: bool,
    /// Stop before this operation of the trace, counted from 0
    #[arg(long, value_name = "OPERATION")]
    pub at: Option<u32>,
    /// Write every event as a JSON line; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Replay this often and report the time of each (with --format json: under the key "timing")
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub repeat: Option<u32>,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Say what is in a recording
///
/// The releases that can have written it, devices, settings, streams, pools, live and cached bytes,
/// how much of the history is there, and what is odd about it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim inspect run.pickle\n  \
    fragsim inspect run.pickle.zst --format json\n\n\
    Exit status: 0 done, 2 unreadable input or a history that contradicts itself.")]
pub(super) struct InspectArgs {
    /// A snapshot, a golden case, or a trace in fragsim's own formats; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Say why a program ran out of memory, from its message alone or from a recording
///
/// Of a log: reads the messages of PyTorch 1.0 to 2.15 (CUDA, HIP, XPU, NPU, MPS, cudaMallocAsync, older
/// ones), TensorFlow and XLA, wherever they stand: in a log of any size, wrapped, quoted, cut or escaped.
/// Says whether it was fragmentation, truly full, other processes, a fraction limit, private pools or
/// spill-over into host memory, with the arithmetic, and how sure that is; or what to record.
///
/// Of a snapshot or trace: replays it to the request that fails (or that --at and --request name), and
/// says what is free and why it does not serve, the smallest set of live blocks whose freeing would have
/// let the request fit, who pins the most free memory, and what each remedy would have done. All of that
/// is replayed; nothing is advice.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim explain train.log\n  \
    fragsim explain --message 'CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...'\n  \
    python train.py 2>&1 | tee train.log | fragsim explain -\n  \
    fragsim explain run.pickle\n  \
    fragsim explain run.pickle --capacity 24GiB --conf expandable_segments:True\n  \
    fragsim explain run.pickle --at 31046 --request 2GiB --format json\n\n\
    Exit status: of a log 0 a message was found, 2 none was; of a recording 0 nothing fails, 1 a request\n\
    fails and was explained; 2 unusable input.")]
pub(super) struct ExplainArgs {
    /// A log or any text with a message in it, a snapshot, or a trace (plain, .gz, .zst); `-` is standard
    /// input
    #[arg(value_name = "FILE", required_unless_present = "message", conflicts_with = "message")]
    pub file: Option<PathBuf>,
    /// The message itself, or a file that has it; `-` is standard input
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true,
          conflicts_with_all = ["at", "conf", "capacity", "torch", "device", "failure"])]
    pub message: Option<String>,
    #[command(flatten)]
    pub trace: super::explain::TraceArgs,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Keep what verify, replay and inspect need of a snapshot in a small file that opens at once
///
/// The traces of the snapshot, ready to be replayed. Every other verb opens the packed file like the
/// snapshot and says the same of it. It holds no Python stacks: keep the snapshot.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim pack run.pickle                  writes run.packed\n  \
    fragsim pack run.pickle.gz -o run.packed --force\n  \
    fragsim replay run.packed --capacity 24GiB\n\n\
    Exit status: 0 done, 2 unreadable input or the file cannot be written.")]
pub(super) struct PackArgs {
    /// A snapshot; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The file to write; otherwise FILE with the ending .packed
    #[arg(long, short, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OnOomArg {
    /// As the program would.
    Stop,
    /// Leave the request out and go on.
    Skip,
}

/// A size, or the name of a card.
pub(super) fn capacity(text: &str) -> Result<Bytes, String> {
    if let Some(card) = cards::find(text) {
        return Ok(card.total);
    }
    if text.trim_start().starts_with(|c: char| c.is_ascii_alphabetic()) {
        let similar = cards::beginning(text);
        let listed = if similar.is_empty() { cards::CARDS.as_slice() } else { &similar };
        let names: Vec<&str> = listed.iter().map(|card| card.name).collect();
        let known = names.join(", ");
        return Err(format!("there is no card '{text}'; give a size such as 24GiB, or: {known}"));
    }
    let capacity: Bytes = text.parse().map_err(|error| format!("{error}"))?;
    if capacity == Bytes::ZERO {
        return Err("a device has some memory: give its capacity, such as 24GiB".into());
    }
    if capacity > Bytes(1 << 60) {
        return Err("no device has more than 1 EiB".into());
    }
    Ok(capacity)
}

pub(super) fn addresses(text: &str) -> Result<crate::sim::AddressPolicy, String> {
    use crate::sim::AddressPolicy::{Falling, FirstFit, Random, Rising};
    match text {
        "rising" => Ok(Rising),
        "falling" => Ok(Falling),
        "first-fit" => Ok(FirstFit),
        other => match other.strip_prefix("random:").map(str::parse) {
            Some(Ok(seed)) => Ok(Random { seed }),
            _ => Err("write rising, falling, first-fit or random:SEED".into()),
        },
    }
}
