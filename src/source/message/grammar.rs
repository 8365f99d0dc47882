//! The wordings of out-of-memory messages, without their white space: how each begins, which figures
//! may follow, and what the words around them give away.

use std::sync::LazyLock;

use regex::Regex;

use super::clean::Compact;
use crate::{
    base::ByteRange,
    trace::{Backend, MessageFigures, MessageHints, MessageLayout, OomMessage, TensorShape},
};

/// A message in a compact text, from `start` to `end`.
#[derive(Debug)]
pub(super) struct Parsed {
    pub start: usize,
    pub end: usize,
    pub message: OomMessage,
}

/// Bytes without meaning that may stand between two figures: words that were elided or retyped.
const GAP: usize = 28;
/// Bytes in which the next figure must be found whole.
const REACH: usize = 200;

const DEVICES: &str = "CUDA|HIP|XPU|NPU|MUSA|MLU|GCU|HPU|DCU";
const SIZE: &str = r"\d+(?:\.\d+)?(?:bytes?|[KMGTkmgt]i?[Bb]|B)";

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant that every test of this module compiles")
}

/// How messages begin.
static HEAD: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        &[
            &format!(r"(?P<beyond>(?:{DEVICES})?outofmemory\.?Triedtoallocatemorethan1EBmemory)"),
            &format!(r"(?P<native>(?:{DEVICES})outofmemory[.!:,]*Triedtoallocate)\d"),
            &format!(r"(?P<rejected>(?:{DEVICES})?outofmemory\.?Allocationwaspreemptivelyrejected)"),
            r"(?P<block>platformcanNOTallocatememoryblockwithsizelargerthan)\d+GB[!.]?(?:Triedtoallocate)?",
            r"(?P<mps>MPSbackendoutofmemory)",
            r"(?P<async>Allocationondevice\d+wouldexceedallowedmemory)",
            r"(?P<thc>cudaruntimeerror\(2\):outofmemory|THCudaCheckFAILfile=[^=]{1,400}line=\d+error=2:outofmemory)",
            r"(?P<tensor>OOMwhenallocatingtensorwithshape:?\[)",
            r"(?P<xla>RESOURCE_EXHAUSTED:(?:Outofmemory(?:whiletryingtoallocate|allocating)|Failedtoallocaterequestfor))\d",
            &format!(r"(?P<beheaded>Triedtoallocate){SIZE}[.(]+(?:GPU|NPU|XPU)\d"),
        ]
        .join("|"),
    )
});

/// What a match in [`FIELDS`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Requested,
    Device,
    Total,
    Free,
    Allocated,
    Active,
    Reserved,
    Cached,
    Unallocated,
    PrivatePools,
    Allowed,
    ThisProcess,
    Process,
    OtherAllocations,
    BlockLimit,
    HintOldSplit,
    HintSplit,
    HintExpandable,
    HintDocs,
    IsExpandable,
    ExceedsReserve,
    CustomAllocator,
    EmptyCache,
}

impl Field {
    /// Whether it is a figure of the list in parentheses, where only punctuation stands between
    /// figures. After the list, or in a line that only comes next, it would be somebody else's.
    fn is_listed(self) -> bool {
        matches!(
            self,
            Self::Total
                | Self::Free
                | Self::Allocated
                | Self::Active
                | Self::Reserved
                | Self::Cached
        )
    }

    /// Whether it may stand behind these words.
    fn may_follow(self, between: &str) -> bool {
        let has_words = between.contains(|c: char| c.is_alphanumeric());
        !self.is_listed() || !(has_words || between.contains(')'))
    }
}

/// What may follow. `#` stands for a size; a plain number or a name is in the group `n`.
const FIELDS: [(Field, &str); 34] = [
    (Field::Requested, "Triedtoallocate#"),
    (Field::Requested, "Requested(?:size)?:#"),
    (Field::Requested, "(?:whiletryingtoallocate|memoryallocating|allocaterequestfor)#"),
    (Field::Device, r"(?:GPU|NPU|XPU)(?P<n>\d+)(?:;|hasa)"),
    (
        Field::Device,
        r"ondevice(?:ordinal)?(?P<n>\d+)(?:wouldexceedallowedmemory\.?(?:\(outofmemory\))?)?",
    ),
    (Field::Total, "#totalcapaci?ty"),
    (Field::Total, "(?:GPU.{0,4}hasa)?totalcapaci?tyof#"),
    (Field::Total, "Devicelimit:#"),
    (Field::Free, "(?:ofwhich)?#isfree"),
    (Field::Free, "#free"),
    (Field::Free, r"Free\(accordingtoCUDA\):#"),
    (Field::Allocated, "#alreadyallocated"),
    (Field::Allocated, "(?:Oftheallocatedmemory)?#isallocatedbyPyTorch"),
    (Field::Allocated, r"\(?(?:MPS|Currently)allocated:#"),
    (Field::Active, "#currentactive"),
    (Field::Reserved, "#reservedintotal(?:byPyTorch)?"),
    (Field::Cached, "#cached"),
    (Field::Unallocated, "#isreservedbyPyTorchbutunallocated"),
    (Field::PrivatePools, r"with#allocatedinprivatepools(?:\(e\.g\.,?CUDAGraphs\))?"),
    (Field::Allowed, "#allowed"),
    (Field::Allowed, "maxallowed:#"),
    (Field::Allowed, r"PyTorchlimit\(setbyuser-suppliedmemoryfraction\):#"),
    (Field::ThisProcess, "(?:Includingnon-PyTorchmemory,)?thisprocesshas#memoryinuse"),
    (Field::Process, r"Process(?P<n>\d+)has#memoryinuse"),
    (Field::OtherAllocations, "otherallocations:#"),
    (Field::BlockLimit, "withsizelargerthan#"),
    (Field::HintOldSplit, "Ifreservedmemoryis>{0,2}allocatedmemorytrysettingmax_split_size_mb"),
    (Field::HintSplit, "Ifreservedbutunallocatedmemoryislargetrysettingmax_split_size_mb"),
    (
        Field::HintExpandable,
        "Ifreservedbutunallocatedmemoryislargetrysetting(?P<n>PYTORCH_[A-Z_]{0,12}ALLOC_CONF)=expandable_segments:True(?:toavoidfragmentation)?",
    ),
    (Field::HintDocs, r"SeedocumentationforMemoryManagement\(?https://docs\.pytorch\.org"),
    (Field::IsExpandable, "expandable_segmentsisenabled"),
    (Field::ExceedsReserve, "Thisallocationexceedstheexpandable-segmentreserveof#"),
    (Field::CustomAllocator, "ThecustomallocatorbackingthisMemPoolreturned"),
    (Field::EmptyCache, "Pleaseuse[`'\"]?empty_cache"),
];

static FIELD_PATTERNS: LazyLock<Vec<(Field, Regex)>> = LazyLock::new(|| {
    let size = r"(?P<size>\d+(?:\.\d+)?)(?P<unit>bytes?|[KMGT]i?B|B)";
    let whole = |text: &str| pattern(&format!("(?i){}", text.replace('#', size)));
    FIELDS.iter().map(|(field, text)| (*field, whole(text))).collect()
});

static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?P<sizes>\d+(?:,\d+){0,30}|)\](?:andtype(?P<type>float8_e\dm\d\w{0,2}|bfloat16|float16|float32|float64|float|double|half|q?u?int(?:64|32|16|8|4|2)|complex(?:64|128)|bool|string|resource|variant))?(?:on(?P<device>/[\w:/]{0,100}?device:GPU:\d+))?",
    )
});

/// The number of a size and the power of two of its unit. All of them count in steps of 1,024,
/// however they spell them.
fn size(number: &str, unit: &str) -> Option<ByteRange> {
    let shift = match unit.as_bytes().first()?.to_ascii_lowercase() {
        b'k' => 10,
        b'm' => 20,
        b'g' => 30,
        b't' => 40,
        _ => 0,
    };
    ByteRange::printed(number, shift)
}

/// All messages of a compact text, in order.
pub(super) fn messages(compact: &Compact) -> Vec<Parsed> {
    let heads: Vec<_> = HEAD.captures_iter(&compact.text).collect();
    let mut parsed = Vec::new();
    for (index, head) in heads.iter().enumerate() {
        let Some(whole) = head.get(0) else { continue };
        let next = heads.get(index + 1).and_then(|next| next.get(0)).map(|next| next.start());
        let limit = next.unwrap_or(compact.text.len());
        let name =
            ["beyond", "native", "rejected", "block", "mps", "async", "thc", "tensor", "xla"]
                .into_iter()
                .find(|name| head.name(name).is_some())
                .unwrap_or("beheaded");
        parsed.extend(message(compact, name, whole.start(), whole.end(), limit));
    }
    parsed
}

fn message(
    compact: &Compact,
    head: &str,
    start: usize,
    head_end: usize,
    limit: usize,
) -> Option<Parsed> {
    let text = &compact.text[..limit];
    let mut message = OomMessage {
        backend: backend(head, &text[start..head_end]),
        layout: match head {
            "beyond" => MessageLayout::Beyond,
            "rejected" => MessageLayout::Rejected,
            "block" => MessageLayout::BlockLimit,
            "mps" => MessageLayout::Mps,
            "async" => MessageLayout::MallocAsync,
            "thc" => MessageLayout::Thc,
            "tensor" => MessageLayout::Tensor,
            "xla" => MessageLayout::Xla,
            _ => MessageLayout::Cut,
        },
        torch: None,
        device: None,
        figures: MessageFigures::default(),
        hints: MessageHints::default(),
        tensor: None,
    };
    let end = match head {
        "thc" | "beyond" => head_end,
        "tensor" => tensor(text, head_end, &mut message)?,
        _ => follow(compact, text, start, &mut message),
    };
    if head == "mps" && message.figures.allowed.is_none() && message.figures.requested.is_none() {
        return None;
    }
    settle_layout(head, &mut message);
    let before = &text[boundary(text, start.saturating_sub(40))..start];
    message.torch = releases(&message, before, &text[start..end]);
    Some(Parsed { start, end: end.max(head_end), message })
}

/// The last place at or before `at` where a character begins, or the end.
fn boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn backend(head: &str, words: &str) -> Backend {
    match head {
        "mps" => Backend::Mps,
        "tensor" => Backend::TensorFlow,
        "xla" => Backend::Xla,
        "block" => Backend::Xpu,
        _ => match words.get(..3) {
            Some("HIP") => Backend::Hip,
            Some("XPU") => Backend::Xpu,
            Some("NPU") => Backend::Npu,
            Some("CUD" | "Tri" | "out" | "cud" | "THC" | "All") => Backend::Cuda,
            _ => Backend::Other,
        },
    }
}

/// Reads figures as long as another one is near; the end of the last.
fn follow(compact: &Compact, text: &str, start: usize, message: &mut OomMessage) -> usize {
    let mut at = start;
    // The head may be long; every figure after it must be near.
    let mut gap = 120;
    loop {
        let reach = boundary(text, at + gap.max(REACH));
        let near = &text[at..reach];
        let found = FIELD_PATTERNS
            .iter()
            .filter_map(|(field, pattern)| {
                let found = pattern.captures(near)?;
                let whole = found.get(0)?;
                let is_near = whole.start() <= gap
                    && (at == start || field.may_follow(&near[..whole.start()]));
                is_near.then_some((whole.start(), *field, found))
            })
            .min_by_key(|(start, ..)| *start);
        let Some((_, field, found)) = found else { break };
        let number = found.name("size").zip(found.name("unit"));
        let bytes = number.and_then(|(number, unit)| size(number.as_str(), unit.as_str()));
        let name = found.name("n").map(|name| name.as_str());
        take(field, bytes, name, message);
        at += found.get(0).map_or(1, |whole| whole.end());
        gap = GAP;
    }
    cut_reserved(compact, text, at, message)
}

fn take(field: Field, bytes: Option<ByteRange>, name: Option<&str>, message: &mut OomMessage) {
    let figures = &mut message.figures;
    let hints = &mut message.hints;
    // The first of each counts: a figure that comes again belongs to something else.
    let set = |slot: &mut Option<ByteRange>| *slot = slot.or(bytes);
    match field {
        Field::Requested => set(&mut figures.requested),
        Field::Device => message.device = message.device.or(name.and_then(|n| n.parse().ok())),
        Field::Total => set(&mut figures.total),
        Field::Free => set(&mut figures.free),
        Field::Allocated => set(&mut figures.allocated),
        Field::Active => set(&mut figures.active),
        Field::Reserved => set(&mut figures.reserved),
        Field::Cached => {
            message.layout = MessageLayout::Cached;
            set(&mut figures.unallocated);
        }
        Field::Unallocated => set(&mut figures.unallocated),
        Field::PrivatePools => set(&mut figures.private_pools),
        Field::Allowed => set(&mut figures.allowed),
        Field::ThisProcess => set(&mut figures.this_process),
        Field::Process => {
            let id = name.and_then(|n| n.parse().ok());
            // A device has few processes; a text may list any number.
            figures.processes.extend(id.zip(bytes).filter(|_| figures.processes.len() < 256));
        }
        Field::OtherAllocations => set(&mut figures.other_allocations),
        Field::BlockLimit => set(&mut figures.block_limit),
        Field::HintOldSplit | Field::HintSplit => hints.advises_max_split = true,
        Field::HintExpandable => {
            hints.advises_expandable = true;
            hints.variable = name.map(str::to_ascii_uppercase);
        }
        Field::HintDocs => {}
        Field::IsExpandable => hints.is_expandable = true,
        Field::ExceedsReserve => {
            hints.exceeds_reserve = true;
            hints.is_expandable = true;
            set(&mut figures.block_limit);
        }
        Field::CustomAllocator => hints.custom_allocator = true,
        Field::EmptyCache => hints.advises_empty_cache = true,
    }
}

/// A text that was cut inside its last figure, `25.10`: reserved comes after free, is no less than
/// allocated and no more than the device has. If one unit alone makes it so, that is it.
fn cut_reserved(compact: &Compact, text: &str, at: usize, message: &mut OomMessage) -> usize {
    static REST: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"^;(?P<n>\d+\.\d\d)(?:[KMG]i?)?(?:\.{2,}|…)?"));
    let figures = &mut message.figures;
    let (Some(total), Some(allocated), Some(_), None) =
        (figures.total, figures.allocated, figures.free, figures.reserved)
    else {
        return at;
    };
    let Some(found) = REST.captures(&text[at..]) else { return at };
    let end = at + found.get(0).map_or(0, |whole| whole.end());
    if !compact.is_line_end(end) {
        return at;
    }
    let possible = |shift: &u32| {
        let size = ByteRange::printed(&found["n"], *shift)?;
        (!allocated.surely_above(size) && !size.surely_above(total)).then_some(size)
    };
    let mut sizes = [10, 20, 30].iter().filter_map(possible);
    if let (Some(size), None) = (sizes.next(), sizes.next()) {
        figures.reserved = Some(size);
        return end;
    }
    at
}

/// Reads TensorFlow's shape; the end of the message.
fn tensor(text: &str, at: usize, message: &mut OomMessage) -> Option<usize> {
    let rest = &text[at..];
    let found = SHAPE.captures(rest)?;
    let sizes = found["sizes"].split(',').filter(|size| !size.is_empty());
    let sizes: Option<Vec<u64>> = sizes.map(|size| size.parse().ok()).collect();
    let element = found.name("type").map(|name| name.as_str().to_owned());
    message.tensor = Some(TensorShape { sizes: sizes?, element });
    message.device = found.name("device").and_then(|device| {
        device.as_str().rsplit(':').next().and_then(|ordinal| ordinal.parse().ok())
    });
    Some(at + found.get(0).map_or(0, |whole| whole.end()))
}

/// Which wording it was, now that its figures are known.
fn settle_layout(head: &str, message: &mut OomMessage) {
    if !matches!(head, "native" | "beheaded") || message.layout == MessageLayout::Cached {
        return;
    }
    let figures = &message.figures;
    let is_new = figures.unallocated.is_some()
        || figures.this_process.is_some()
        || !figures.processes.is_empty();
    message.layout = match () {
        () if is_new || (figures.total.is_some() && figures.allocated.is_none()) => {
            MessageLayout::Capacity
        }
        () if figures.total.is_some() || figures.reserved.is_some() => MessageLayout::Reserved,
        () => MessageLayout::Cut,
    };
}

/// The releases of PyTorch that word it so.
fn releases(message: &OomMessage, before: &str, text: &str) -> Option<[(u8, u8); 2]> {
    if !matches!(message.backend, Backend::Cuda | Backend::Hip) {
        return None;
    }
    let (mut oldest, mut newest) = match message.layout {
        MessageLayout::Cached => ((1, 0), (1, 4)),
        MessageLayout::Reserved => ((1, 5), (2, 0)),
        MessageLayout::Capacity if text.contains("capacty") => ((2, 1), (2, 1)),
        MessageLayout::Capacity if message.hints.advises_max_split => ((2, 1), (2, 1)),
        MessageLayout::Capacity => ((2, 2), (2, 15)),
        MessageLayout::Rejected => ((2, 12), (2, 15)),
        MessageLayout::MallocAsync => ((2, 0), (2, 15)),
        MessageLayout::Thc => ((0, 1), (1, 0)),
        _ => return None,
    };
    let mut at_least = |release: (u8, u8)| oldest = oldest.max(release);
    let class = before.trim_end_matches(':');
    if class.ends_with("torch.OutOfMemoryError") {
        at_least((2, 5));
    } else if class.ends_with("torch.cuda.OutOfMemoryError") {
        at_least((1, 13));
        newest = newest.min((2, 4));
    }
    if message.figures.private_pools.is_some() {
        at_least((2, 4));
    }
    if message.layout == MessageLayout::Capacity {
        if message.figures.allowed.is_some() {
            at_least((2, 5));
        }
        if message.hints.is_expandable {
            at_least((2, 15));
        }
        if message.hints.advises_expandable {
            if text.contains("docs.pytorch.org") {
                at_least((2, 11));
            } else if message.hints.variable.as_deref() == Some("PYTORCH_ALLOC_CONF") {
                at_least((2, 10));
                newest = newest.min((2, 10));
            } else if text.contains("pytorch.org") {
                newest = newest.min((2, 9));
            }
        }
    }
    (oldest <= newest).then_some([oldest, newest])
}
