//! The rules. Explicit words come first, then what makes other figures meaningless, then who could
//! have given the bytes: of those that could, the one with the most.

use super::{Account, Cause, Certainty, Diagnosis, Reason};
use crate::{
    base::{ByteRange, Bytes},
    trace::{Backend, MessageLayout, OomMessage},
};

/// A context with its libraries holds up to about so much; more than that belongs to somebody else.
const CONTEXT: Bytes = Bytes(3 << 29);
/// Free memory beyond the request by less than this share of the device may be out of reach: the
/// driver gives whole pages of 2 MiB and keeps some for itself.
const LAST_SHARE: i128 = 100;
/// A cache is never without holes: with less than this share of the reserved memory to spare, the
/// device is full, even if all free bytes together would reach the request.
const HOLES_SHARE: i128 = 50;
/// Others are the cause, rather than one circumstance, from this share of the device on: listed by
/// the driver, or only inferred.
const LISTED_SHARE: i128 = 10;
const INFERRED_SHARE: i128 = 4;
/// What Intel's drivers give in one block by default.
const XPU_BLOCK: Bytes = Bytes::gib(4);

/// Cause, reason and certainty.
type Ruling = (Cause, Reason, Certainty);

pub(super) fn verdict(message: &OomMessage, account: Account) -> Diagnosis {
    let (cause, reason, certainty) = words(message)
        .or_else(|| foreign(message))
        .or_else(|| senseless(&account))
        .or_else(|| special(message, &account))
        .or_else(|| limit(message, &account))
        .or_else(|| refused(message, &account))
        .or_else(|| levers(message, &account))
        .unwrap_or_else(|| unknown(message, &account));
    let ruled_out = ruled_out(message, &account, cause);
    let mut contributing = contributing(message, &account, cause);
    contributing.retain(|one| !ruled_out.contains(one));
    let candidates = match cause {
        Cause::Open => candidates(message, &account, reason, &ruled_out),
        _ => Vec::new(),
    };
    Diagnosis {
        cause,
        reason,
        certainty,
        account,
        contributing,
        ruled_out,
        candidates,
        remedies: Vec::new(),
        record: Vec::new(),
    }
}

/// What the message says in words.
fn words(message: &OomMessage) -> Option<Ruling> {
    let certain = Certainty::Certain;
    match message.layout {
        MessageLayout::Beyond => Some((Cause::Full, Reason::LargerThanDevice, certain)),
        MessageLayout::Rejected => Some((Cause::FractionLimit, Reason::Rejected, certain)),
        MessageLayout::BlockLimit => Some((Cause::OtherLimit, Reason::BlockLimitNamed, certain)),
        _ if message.hints.exceeds_reserve => Some((Cause::OtherLimit, Reason::Reserve, certain)),
        _ if message.hints.custom_allocator => {
            Some((Cause::OtherLimit, Reason::CustomAllocator, certain))
        }
        _ => None,
    }
}

fn foreign(message: &OomMessage) -> Option<Ruling> {
    let is_foreign = matches!(message.layout, MessageLayout::Tensor | MessageLayout::Xla);
    is_foreign.then_some((Cause::Open, Reason::Foreign, Certainty::Open))
}

/// Figures that cannot be those of one device.
fn senseless(account: &Account) -> Option<Ruling> {
    use super::Contradiction::{AllocatedBeyondReserved, FreeBeyondTotal, PoolsBeyondAllocated};
    if let (Some(total), Some(held)) = (account.total, account.reserved.or(account.allocated)) {
        let is_beyond = held.surely_above(total)
            || account.allocated.is_some_and(|allocated| allocated.surely_above(total));
        if is_beyond {
            return Some((Cause::HostSpill, Reason::BeyondDevice, Certainty::Certain));
        }
    }
    let breaks = [AllocatedBeyondReserved, FreeBeyondTotal, PoolsBeyondAllocated];
    if breaks.iter().any(|one| account.contradictions.contains(one)) {
        return Some((Cause::Open, Reason::Contradicts, Certainty::Open));
    }
    let (requested, total) = (account.requested?, account.total?);
    if requested.surely_above(total) {
        return Some((Cause::Full, Reason::LargerThanDevice, Certainty::Certain));
    }
    let held = account.reserved? + account.free?;
    if held.surely_above(total) {
        return Some((Cause::HostSpill, Reason::BeyondDeviceWithFree, Certainty::Likely));
    }
    None
}

/// Back-ends with rules of their own.
fn special(message: &OomMessage, account: &Account) -> Option<Ruling> {
    match message.layout {
        MessageLayout::Mps => {
            let figures = &message.figures;
            let (requested, allowed) = (figures.requested?, figures.allowed?);
            let held = figures.allocated? + figures.other_allocations.unwrap_or(ByteRange::ZERO);
            let is_over = (held + requested).surely_above(allowed);
            let certainty = if is_over { Certainty::Certain } else { Certainty::Likely };
            Some((Cause::FractionLimit, Reason::LimitNamed, certainty))
        }
        MessageLayout::MallocAsync => {
            let figures = &message.figures;
            let (requested, allocated) = (figures.requested?, figures.allocated?);
            let needs = allocated + requested;
            // Without a limit the figure is 2^64 bytes.
            if let Some(allowed) = figures.allowed.filter(|limit| needs.surely_above(*limit)) {
                let room = figures.total.is_none_or(|total| total.surely_above(allowed));
                if room {
                    return Some((Cause::FractionLimit, Reason::LimitNamed, Certainty::Certain));
                }
            }
            let (total, free) = (account.total?, account.free?);
            if free.surely_at_least(requested) {
                return None;
            }
            if needs.surely_above(total) {
                return Some((Cause::Full, Reason::NotEnough, Certainty::Certain));
            }
            let gap = total - allocated - free;
            if gap.middle() <= CONTEXT.0.into() {
                return Some((Cause::Full, Reason::NotEnough, Certainty::Likely));
            }
            Some((Cause::Open, Reason::PoolUnseen, Certainty::Open))
        }
        _ => None,
    }
}

/// Whether reserved and request exceed the limit that is named. Where the device had no room either,
/// raising the limit would not have helped, so the limit is not the cause.
fn limit(message: &OomMessage, account: &Account) -> Option<Ruling> {
    let (requested, allowed) = (account.requested?, message.figures.allowed?);
    let wants = account.reserved? + requested;
    if account.free.is_some_and(|free| requested.surely_above(free)) {
        return None;
    }
    if wants.surely_above(allowed) {
        return Some((Cause::FractionLimit, Reason::LimitNamed, Certainty::Certain));
    }
    wants.likely_at_least(allowed).then_some((
        Cause::FractionLimit,
        Reason::LimitNamed,
        Certainty::Likely,
    ))
}

/// The device had the bytes and more, and they were refused: neither holes nor fullness did that.
fn refused(message: &OomMessage, account: &Account) -> Option<Ruling> {
    let requested = account.requested?;
    let is_large = message.backend == Backend::Xpu && requested.low() > XPU_BLOCK.0.into();
    let Some(free) = account.free else {
        let held = account.reserved.unwrap_or(ByteRange::ZERO) + requested;
        let fits = account.total.is_some_and(|total| total.surely_at_least(held));
        let usual = (Cause::OtherLimit, Reason::BlockLimitUsual, Certainty::Likely);
        return (is_large && fits).then_some(usual);
    };
    if !had_plenty(account, free, requested) {
        return None;
    }
    if is_large {
        return Some((Cause::OtherLimit, Reason::BlockLimitUsual, Certainty::Likely));
    }
    if let Some((fraction, chance)) = implied_fraction(message, account)
        && chance < 0.1
    {
        let reason = Reason::LimitImplied(fraction);
        return Some((Cause::FractionLimit, reason, Certainty::Likely));
    }
    Some((Cause::Open, Reason::DeviceHadIt, Certainty::Open))
}

fn had_plenty(account: &Account, free: ByteRange, requested: ByteRange) -> bool {
    let spare = account.total.map_or(Bytes::mib(64).0.into(), |total| total.middle() / LAST_SHARE);
    free.surely_at_least(requested) && (free - requested).middle() >= spare
}

/// Whether a release that words it so may have a limit in force and not print it.
fn hides_limits(message: &OomMessage) -> bool {
    message.layout == MessageLayout::Capacity
        && message.figures.allowed.is_none()
        && message.torch.is_some_and(|[oldest, _]| oldest <= (2, 4))
}

/// The round share of the device that would have refused just this, and how likely a share drawn
/// blindly would have one as round. Shares are set in steps of a twentieth.
fn implied_fraction(message: &OomMessage, account: &Account) -> Option<(f64, f64)> {
    if !hides_limits(message) {
        return None;
    }
    let (reserved, requested, total) = (account.reserved?, account.requested?, account.total?);
    // The limit is at least what was reserved and less than what was wanted.
    let from = reserved.ratio(total);
    let to = (reserved + requested).ratio(total);
    let step = 0.05;
    let round = (from / step).ceil() * step;
    let is_inside = reserved.low() > 0 && round < to && round < 1.0;
    is_inside.then_some((round, ((to - from) / step).min(1.0)))
}

/// Who could have given the bytes, and how much.
struct Lever {
    cause: Cause,
    reason: Reason,
    certainty: Certainty,
    room: i128,
}

fn levers(message: &OomMessage, account: &Account) -> Option<Ruling> {
    let requested = account.requested?;
    let (free, holes) = (account.free?, account.unallocated?);
    // Holes of a spilled, foreign or opaque pool mean something else.
    if !matches!(
        message.layout,
        MessageLayout::Cached | MessageLayout::Reserved | MessageLayout::Capacity
    ) {
        return None;
    }
    let mut levers = Vec::new();
    levers.extend(stranded(account, requested, free, holes));
    levers.extend(pooled(account, requested, free, holes));
    levers.extend(others(account, requested, free, holes));
    if let Some(lever) = levers.into_iter().max_by_key(|lever| lever.room) {
        return Some((lever.cause, lever.reason, lever.certainty));
    }
    let together = free + holes;
    let needed = account.needed.unwrap_or(requested);
    if together.likely_at_least(requested) {
        return Some((Cause::Full, Reason::BarelyEnough, Certainty::Likely));
    }
    // Whatever the block was within its segment, it fitted into no hole and no segment into the rest.
    let is_sure = requested.surely_above(together) && needed.surely_above(holes);
    let certainty = if is_sure { Certainty::Certain } else { Certainty::Likely };
    Some((Cause::Full, Reason::NotEnough, certainty))
}

fn stranded(
    account: &Account,
    requested: ByteRange,
    free: ByteRange,
    holes: ByteRange,
) -> Option<Lever> {
    let lever = |reason, certainty| {
        let room = holes.middle();
        Some(Lever { cause: Cause::Fragmentation, reason, certainty, room })
    };
    if holes.surely_at_least(requested) {
        return lever(Reason::CacheHadIt, Certainty::Certain);
    }
    if holes.likely_at_least(requested) {
        return lever(Reason::CacheHadIt, Certainty::Likely);
    }
    let spare = free + holes - requested;
    let reserved = account.reserved.map_or(0, ByteRange::middle);
    let has_room = free.likely_at_least(ByteRange::ZERO) && spare.middle() > reserved / HOLES_SHARE;
    // Where the device had it without the holes, they are not what was missing.
    let is_missing = !free.likely_at_least(requested);
    if has_room && is_missing { lever(Reason::TogetherHadIt, Certainty::Likely) } else { None }
}

fn pooled(
    account: &Account,
    requested: ByteRange,
    free: ByteRange,
    holes: ByteRange,
) -> Option<Lever> {
    let pools = account.private_pools?;
    let is_enough = pools.likely_at_least(requested) || {
        let spare = free + holes + pools - requested;
        spare.middle() > account.reserved.map_or(0, ByteRange::middle) / HOLES_SHARE
    };
    let room = pools.middle();
    let certainty = Certainty::Likely;
    is_enough.then_some(Lever {
        cause: Cause::PrivatePools,
        reason: Reason::HeldByPools,
        certainty,
        room,
    })
}

fn others(
    account: &Account,
    requested: ByteRange,
    free: ByteRange,
    holes: ByteRange,
) -> Option<Lever> {
    let held = others_held(account)?;
    let serves = (free + holes + held).likely_at_least(requested);
    let certainty = if account.others_are_listed { Certainty::Certain } else { Certainty::Likely };
    (serves && is_much(account, held)).then_some(Lever {
        cause: Cause::OtherProcesses,
        reason: Reason::HeldByOthers,
        certainty,
        room: held.middle(),
    })
}

/// What others hold; where this process's own share is unknown, less what a context takes.
fn others_held(account: &Account) -> Option<ByteRange> {
    let context = ByteRange::exact(CONTEXT);
    let inferred = || account.outside.map(|outside| outside - context);
    account.others.or_else(inferred).filter(|held| held.middle() > 0)
}

fn is_much(account: &Account, held: ByteRange) -> bool {
    let share = if account.others_are_listed { LISTED_SHARE } else { INFERRED_SHARE };
    account.total.is_some_and(|total| held.middle() >= total.middle() / share)
}

/// Nothing above held: which figures are missing?
fn unknown(message: &OomMessage, account: &Account) -> Ruling {
    if let (Some(requested), Some(total), Some(held)) =
        (account.requested, account.total, account.reserved.or(account.allocated))
        && (held + requested).surely_above(total)
        && account.unallocated.is_none()
    {
        return (Cause::Full, Reason::NotEnough, Certainty::Certain);
    }
    let has_none = account.requested.is_none() && account.total.is_none();
    let reason = match message.layout {
        MessageLayout::Thc | MessageLayout::DriverError => Reason::NoFigures,
        _ if has_none => Reason::NoFigures,
        _ => Reason::Incomplete,
    };
    (Cause::Open, reason, Certainty::Open)
}

fn ruled_out(message: &OomMessage, account: &Account, cause: Cause) -> Vec<Cause> {
    let mut out = Vec::new();
    let Some(requested) = account.requested else { return out };
    let all = [account.free, account.unallocated];
    if let [Some(free), Some(holes)] = all {
        let needed = account.needed.unwrap_or(requested);
        if requested.surely_above(free + holes) && needed.surely_above(holes) {
            out.push(Cause::Fragmentation);
        }
    }
    if account.free.is_some_and(|free| had_plenty(account, free, requested)) {
        out.extend([Cause::Full, Cause::OtherProcesses]);
        let needed = account.needed.unwrap_or(requested);
        if account.unallocated.is_some_and(|holes| needed.surely_above(holes)) {
            out.push(Cause::Fragmentation);
        }
    }
    let prints_limits = account.reserved.is_some()
        && message.figures.allowed.is_none()
        && !hides_limits(message)
        && message.torch.is_some();
    let fits_limit = message
        .figures
        .allowed
        .zip(account.reserved)
        .is_some_and(|(allowed, reserved)| allowed.surely_at_least(reserved + requested));
    if prints_limits && message.layout != MessageLayout::MallocAsync || fits_limit {
        out.push(Cause::FractionLimit);
    }
    if account.private_pools.is_none()
        && message.torch.is_some_and(|[oldest, _]| oldest >= (2, 4))
        && account.unallocated.is_some()
    {
        out.push(Cause::PrivatePools);
    }
    out.retain(|one| *one != cause);
    out.sort_unstable();
    out.dedup();
    out
}

/// Other circumstances that cost bytes, the largest first.
fn contributing(message: &OomMessage, account: &Account, cause: Cause) -> Vec<Cause> {
    let Some(requested) = account.requested else { return Vec::new() };
    let mut found: Vec<(i128, Cause)> = Vec::new();
    let is_native = matches!(
        message.layout,
        MessageLayout::Cached | MessageLayout::Reserved | MessageLayout::Capacity
    );
    if let Some(holes) = account.unallocated
        && is_native
        && holes.likely_at_least(requested)
    {
        found.push((holes.middle(), Cause::Fragmentation));
    }
    if let Some(pools) = account.private_pools
        && pools.likely_at_least(requested)
    {
        found.push((pools.middle(), Cause::PrivatePools));
    }
    // Below a tenth of the device, what others hold is no circumstance worth a word.
    let is_word = |held: ByteRange| {
        account.total.is_some_and(|total| held.middle() >= total.middle() / LISTED_SHARE)
    };
    if let Some(held) = others_held(account)
        && is_native
        && held.likely_at_least(requested)
        && is_word(held)
        && cause != Cause::HostSpill
    {
        found.push((held.middle(), Cause::OtherProcesses));
    }
    if let (Some(allowed), Some(reserved)) = (message.figures.allowed, account.reserved)
        && (reserved + requested).likely_at_least(allowed)
    {
        found.push((0, Cause::FractionLimit));
    }
    found.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    found.into_iter().map(|(_, one)| one).filter(|one| *one != cause).collect()
}

/// What an open verdict leaves.
fn candidates(
    message: &OomMessage,
    account: &Account,
    reason: Reason,
    ruled_out: &[Cause],
) -> Vec<Cause> {
    let all = match reason {
        Reason::DeviceHadIt => vec![Cause::FractionLimit, Cause::OtherLimit],
        Reason::PoolUnseen => vec![Cause::OtherProcesses, Cause::Fragmentation],
        _ if message.layout == MessageLayout::DriverError => {
            vec![Cause::Full, Cause::OtherProcesses]
        }
        _ if account
            .free
            .zip(account.requested)
            .is_some_and(|(free, asked)| asked.surely_above(free)) =>
        {
            vec![Cause::Full, Cause::Fragmentation, Cause::OtherProcesses]
        }
        _ => vec![Cause::Full, Cause::Fragmentation, Cause::OtherProcesses, Cause::FractionLimit],
    };
    all.into_iter().filter(|cause| !ruled_out.contains(cause)).collect()
}
