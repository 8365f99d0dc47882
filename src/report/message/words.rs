//! The sentences of a verdict. Each is true of the allocator's rules, not folklore.

use crate::{
    base::{ByteRange, Bytes},
    study::message::{Account, Cause, Certainty, Contradiction, Diagnosis, Reason, Remedy, Step},
    trace::{Backend, MessageLayout, OomMessage},
};

fn or_some(size: Option<ByteRange>) -> String {
    size.map_or_else(|| "some memory".into(), |size| size.to_string())
}

/// The verdict in a sentence.
pub(super) fn headline(message: &OomMessage, diagnosis: &Diagnosis) -> String {
    let account = &diagnosis.account;
    let asked = or_some(account.requested);
    let holes = or_some(account.unallocated);
    let free = or_some(account.free);
    let total = or_some(account.total);
    match diagnosis.reason {
        Reason::CacheHadIt => format!(
            "{holes} of the reserved memory was unallocated, more than the {asked} asked, but in no piece that could serve it"
        ),
        Reason::TogetherHadIt => format!(
            "{free} free and {holes} unallocated would have held the {asked} asked, had the holes been given back"
        ),
        Reason::LargerThanDevice if message.layout == MessageLayout::Beyond => {
            "more than 1 EiB was asked: no device has that, so a size went wrong".into()
        }
        Reason::LargerThanDevice => {
            format!("{asked} was asked of a device of {total}: no setting makes that fit")
        }
        Reason::NotEnough if message.layout == MessageLayout::MallocAsync => format!(
            "{} is in use by tensors; with the {asked} asked, and a context, that is more than {total}",
            or_some(account.allocated)
        ),
        Reason::NotEnough => match account.all_free {
            Some(all) => {
                format!("{asked} was asked and all free memory together is {all}, holes included")
            }
            None => format!(
                "{} is in use, and {asked} more is beyond {total}",
                or_some(account.allocated)
            ),
        },
        Reason::BarelyEnough => format!(
            "{asked} was asked and all free memory together is {}; no allocator packs so tightly",
            or_some(account.all_free)
        ),
        Reason::HeldByOthers => {
            let held = match account.others {
                Some(others) => format!("{others} of the device"),
                None => format!("most of {} outside PyTorch", or_some(account.outside)),
            };
            format!("others hold {held}; without them the {asked} asked would fit")
        }
        Reason::LimitNamed if message.layout == MessageLayout::Mps => format!(
            "allocated, other allocations and the {asked} asked exceed the {} that MPS may use (its high watermark)",
            or_some(message.figures.allowed)
        ),
        Reason::LimitNamed => {
            let held = account.reserved.or(account.allocated);
            format!(
                "{} held and the {asked} asked exceed the {} that this process may use",
                or_some(held),
                or_some(message.figures.allowed)
            )
        }
        Reason::LimitImplied(fraction) => format!(
            "the device had {free} free, but reserved and asked just exceed {fraction:.2} of it: a memory fraction, which this release does not print"
        ),
        Reason::Rejected => format!(
            "the {asked} asked exceeds per_process_memory_fraction: the device was not even asked"
        ),
        Reason::BlockLimitNamed => format!(
            "the platform gives no block of more than {}, and {asked} was asked",
            or_some(message.figures.block_limit)
        ),
        Reason::BlockLimitUsual => format!(
            "{asked} in one block: Intel's drivers give 4 GiB at most by default, however much is free"
        ),
        Reason::Reserve => format!(
            "{asked} is more than the address range that expandable_segments_reserve leaves a segment ({})",
            or_some(message.figures.block_limit)
        ),
        Reason::CustomAllocator => {
            "the custom allocator behind the memory pool returned nothing".into()
        }
        Reason::HeldByPools => format!(
            "{} is free inside private pools, as CUDA graphs have, where only their own work may use it",
            or_some(account.private_pools)
        ),
        Reason::BeyondDevice => format!(
            "{} is allocated on a device of {total}: the driver already lends memory of the host",
            or_some(account.allocated)
        ),
        Reason::BeyondDeviceWithFree => format!(
            "reserved and free together are more than the {total} of the device: some of it lies in memory of the host"
        ),
        Reason::DeviceHadIt => format!(
            "the device had {free} free and refused {asked}: no memory was short, something else said no"
        ),
        Reason::PoolUnseen => {
            let gap =
                account.total.zip(account.allocated).map(|(total, allocated)| total - allocated);
            format!(
                "{} is neither in use by tensors nor free; cudaMallocAsync's own pool or other processes hold it, and its message does not say which",
                or_some(gap)
            )
        }
        Reason::Contradicts => {
            "the figures cannot all be true of one device at one moment; was the message retyped?"
                .into()
        }
        Reason::Incomplete => "the message lacks figures that decide".into(),
        Reason::NoFigures => match message.layout {
            MessageLayout::DriverError => format!(
                "a call to {} itself failed, not the caching allocator: no figures",
                message.backend.name()
            ),
            _ => "the message has no figures".into(),
        },
        Reason::Foreign => {
            let size = match (&message.tensor, account.requested) {
                (Some(tensor), Some(size)) if tensor.element.is_none() => {
                    format!("a tensor of {} elements", Count(size.low()))
                }
                (_, size) => or_some(size),
            };
            format!(
                "{} could not get {size}; its message does not say what was free",
                message.backend.name()
            )
        }
    }
}

/// The size of a tensor whose type is not known, in TensorFlow's usual type of four bytes.
pub(super) fn as_float(account: &Account) -> Option<ByteRange> {
    // Of elements of one byte, it is as large as it has elements.
    let count = u64::try_from(account.requested?.low()).ok()?;
    count.checked_mul(4).map(|bytes| ByteRange::exact(Bytes(bytes)))
}

/// A number with commas.
struct Count(i128);

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// How sure, and what was ruled out.
pub(super) fn certainty(diagnosis: &Diagnosis) -> String {
    let names =
        |causes: &[Cause]| causes.iter().map(|cause| cause.name()).collect::<Vec<_>>().join(", ");
    let mut text = match (diagnosis.certainty, diagnosis.reason) {
        (Certainty::Certain, Reason::CacheHadIt | Reason::NotEnough) => {
            "certain: it holds for all sizes that print so".into()
        }
        (Certainty::Certain, _) => "certain".to_owned(),
        (Certainty::Likely, Reason::HeldByOthers) => {
            "likely: beyond what a context takes (up to about 1.5 GiB), it must be others'".into()
        }
        (Certainty::Likely, Reason::LimitImplied(_)) => {
            "likely: a round share fits by chance less than once in ten".into()
        }
        (Certainty::Likely, Reason::HeldByPools) => {
            "likely: the message does not say in how many pieces it is free there".into()
        }
        (Certainty::Likely, Reason::TogetherHadIt | Reason::BarelyEnough) => {
            "likely: an allocator always keeps some holes, about 2 % of what it reserves".into()
        }
        (Certainty::Likely, _) => {
            "likely: by the figures as printed; their rounding leaves a doubt".into()
        }
        (Certainty::Open, _) if diagnosis.candidates.is_empty() => "open".into(),
        (Certainty::Open, _) => format!("open: can be {}", names(&diagnosis.candidates)),
    };
    if !diagnosis.ruled_out.is_empty() {
        text.push_str(&format!("; ruled out: {}", names(&diagnosis.ruled_out)));
    }
    text
}

/// What the program needed behind a segment.
pub(super) fn needed(message: &OomMessage, account: &Account) -> String {
    if let Some(tensor) = &message.tensor {
        return match tensor.element.as_deref() {
            Some(element) => format!("a tensor of {element}"),
            None => String::new(),
        };
    }
    let (Some(asked), Some(needed)) = (account.requested, account.needed) else {
        return String::new();
    };
    match needed.low() {
        512 => "a segment; the program asked for 1 MiB or less".into(),
        low if low == (1 << 20) + 512 => {
            "a segment; the program may have asked for 1 MiB only".into()
        }
        low if low < asked.low() => "a segment, in steps of 2 MiB".into(),
        _ => String::new(),
    }
}

pub(super) fn contributing(diagnosis: &Diagnosis) -> Vec<String> {
    let account = &diagnosis.account;
    let sentence = |cause: &Cause| match cause {
        Cause::Fragmentation => Some(format!(
            "fragmentation: {} unallocated, more than was asked",
            or_some(account.unallocated)
        )),
        Cause::OtherProcesses => Some(match account.others {
            Some(others) => format!("other processes: {others}"),
            None => format!(
                "others: {} is outside PyTorch, more than a context takes",
                or_some(account.outside)
            ),
        }),
        Cause::PrivatePools => {
            Some(format!("private pools: {} free in them", or_some(account.private_pools)))
        }
        Cause::FractionLimit => {
            Some("a memory fraction: reserved and asked exceed what is allowed".into())
        }
        Cause::Full | Cause::OtherLimit | Cause::HostSpill | Cause::Open => None,
    };
    diagnosis.contributing.iter().filter_map(sentence).collect()
}

pub(super) fn contradictions(account: &Account) -> Vec<String> {
    let sentence = |one: &Contradiction| match one {
        Contradiction::AllocatedBeyondReserved => "more is allocated than reserved",
        Contradiction::FreeBeyondTotal => "more is free than the device has",
        Contradiction::PoolsBeyondAllocated => {
            "the private pools hold more than is allocated, of which they are part"
        }
        Contradiction::ReservedBeyondProcess => {
            "PyTorch reserves more than the driver counts for its process (some of it in memory of the host?)"
        }
        Contradiction::ProcessesBeyondUsed => "the processes hold more than what is not free",
    };
    account.contradictions.iter().map(|one| sentence(one).to_owned()).collect()
}

pub(super) fn remedies(message: &OomMessage, diagnosis: &Diagnosis) -> Vec<String> {
    diagnosis.remedies.iter().map(|one| remedy(message, diagnosis, one)).collect()
}

fn remedy(message: &OomMessage, diagnosis: &Diagnosis, one: &Remedy) -> String {
    match one {
        Remedy::SetExpandable { variable } => format!(
            "set, before the program starts (Linux; where it is not supported it is ignored with a warning):\nexport {variable}=expandable_segments:True"
        ),
        Remedy::ExpandableIsOn => "expandable segments are on already: the usual advice to turn them on is no cure here".into(),
        Remedy::NotBothSettings => "without max_split_size_mb beside it: free blocks at or above the split size would serve no smaller request".into(),
        Remedy::SetMaxSplit { variable, mib } => format!(
            "keep large blocks whole, {}; the size is a first try, a message cannot tell the best:\nexport {variable}=max_split_size_mb:{mib}",
            if message.hints.advises_max_split { "as the message advises" } else { "if the release knows the setting (its messages then name it)" }
        ),
        Remedy::UpgradeForSettings => "expandable segments, which leave far fewer holes, need PyTorch 2.1 or later".into(),
        Remedy::GainAtMost(holes) => format!("this can win back {holes} at most: all that was unallocated"),
        Remedy::NotEmptyCache => "empty_cache() is no cure: all that it can give back had been given back before this message".into(),
        Remedy::LessMemory { shortfall } => {
            let least = shortfall.map_or_else(String::new, |size| format!(", by {size} at the very least"));
            let settings = match message.backend {
                Backend::Mps => "",
                _ => "; no allocator setting helps",
            };
            format!("use less memory{least} (smaller batch or model, checkpointing, lower precision), or a larger device{settings}")
        }
        Remedy::CheckSize { times } if *times >= 4.0 => format!(
            "look for a size that went wrong: the request is {times:.0} times the device"
        ),
        Remedy::CheckSize { .. } => "look for a size that went wrong, such as a negative number or a product of shapes".into(),
        Remedy::StopOthers { listed } if listed.is_empty() => {
            format!("see who else is on the device, and stop it or use another device:\n{}", list_command(message))
        }
        Remedy::StopOthers { listed } => {
            let ids: Vec<String> = listed.iter().take(16).map(ToString::to_string).collect();
            format!("see what process {} is, and stop it or use another device", ids.join(", "))
        }
        Remedy::RaiseFraction { least: Some(least) } if *least < 1.0 => format!(
            "{LIMIT}; this request needs {:.4} of the device or more",
            (least * 1e4).ceil() / 1e4
        ),
        Remedy::RaiseFraction { .. } => format!("{LIMIT}: raise it"),
        Remedy::LimitCountsReserved => "the limit counts reserved memory, holes and all, not only what is allocated".into(),
        Remedy::LiftWatermark => "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 lifts the limit, but then the Mac may swap or fail".into(),
        Remedy::ShareGraphPools => "free CUDA graphs that are done with, capture fewer, or give captures one pool (pool=); empty_cache() does not touch pools that are in use".into(),
        Remedy::LeaveHostMemory => "expect it to be slow before it fails: memory of the host is reached over the bus (on Windows the driver's setting is \"CUDA - Sysmem Fallback Policy\")".into(),
        Remedy::SmallerBlocks => "ask for it in smaller pieces: split the tensor or the batch; free memory does not matter here".into(),
        Remedy::RaiseReserve => "raise or unset expandable_segments_reserve (and expandable_segments_reserve_by_class) in PYTORCH_CUDA_ALLOC_CONF".into(),
        Remedy::AskCustomAllocator => "look into that allocator: PyTorch's caching allocator only passed the request on".into(),
        Remedy::FindRefusal => {
            let is_out = diagnosis.ruled_out.contains(&Cause::FractionLimit);
            let fraction = if is_out { "" } else { "a memory fraction, " };
            format!("less memory is no cure; look for what refused it: {fraction}a limit of the container or the driver, a fault of the driver")
        }
        Remedy::LookAtDevice => "see what is on the device; often another process has it all, or this one has used it up:\n"
            .to_owned() + list_command(message),
    }
}

/// Who sets limits.
const LIMIT: &str = "the limit was set by set_per_process_memory_fraction() (from 2.10 on also by per_process_memory_fraction in the settings)";

fn list_command(message: &OomMessage) -> &'static str {
    match message.backend {
        Backend::Hip => "rocm-smi --showpids",
        Backend::Npu => "npu-smi info",
        Backend::Xpu => "xpu-smi ps",
        Backend::Mps => "top -o mem",
        _ => "nvidia-smi",
    }
}

pub(super) fn steps(message: &OomMessage, diagnosis: &Diagnosis) -> Vec<String> {
    diagnosis.record.iter().map(|one| step(message, *one)).collect()
}

/// The two lines that record.
const RECORD: [&str; 2] = [
    "torch.cuda.memory._record_memory_history()             # at the start",
    "torch.cuda.memory._dump_snapshot(\"oom.pickle\")         # where the error is caught",
];
const ASK_LIMIT: [&str; 2] = [
    "print(torch.cuda.mem_get_info())                       # free and total, in bytes",
    "print(torch.cuda.get_per_process_memory_fraction())    # 1.0: no limit",
];
const ASK_SHARE: [&str; 2] = [
    "free, total = torch.cuda.mem_get_info()",
    "print(torch.cuda.memory_reserved() / total)            # just below a round share: a fraction",
];
const ASK_POOL: [&str; 2] = [
    "print(torch.cuda.mem_get_info())                       # free and total, in bytes",
    "print(torch.cuda.memory_reserved())                    # what the pool holds",
];

/// The lines of Python of a step.
fn python(step: Step) -> &'static [&'static str] {
    match step {
        Step::Snapshot => &RECORD,
        Step::AskLimit => &ASK_LIMIT,
        Step::AskShare => &ASK_SHARE,
        Step::AskPool => &ASK_POOL,
        Step::WholeMessage | Step::ListProcesses | Step::Upgrade => &[],
    }
}

fn step(message: &OomMessage, step: Step) -> String {
    let words = match step {
        Step::Snapshot => "record the run; the snapshot shows which blocks stand in the way:",
        Step::WholeMessage => {
            "keep the whole message: its figures after \"Tried to allocate\" decide"
        }
        Step::AskLimit => "ask for the limit where the error is caught:",
        Step::AskShare => "ask for the reserved share where the error is caught:",
        Step::AskPool => "ask for the pool where the error is caught:",
        Step::ListProcesses => {
            return format!(
                "list the processes at the moment of failure:\n{}",
                list_command(message)
            );
        }
        Step::Upgrade => {
            "releases before 1.13 cannot record a history; a later one shows which blocks stand in the way"
        }
    };
    let lines = python(step).join("\n");
    format!("{words}\n{lines}").trim_end().to_owned()
}
