//! [`beside`]: two things at a time.

/// So many things to look at are worth a thread.
const WORTH_A_THREAD: usize = 1 << 15;

/// Does two things, the first in a thread of its own if `count`, of what either looks at, is worth it.
pub(super) fn beside<A: Send, B>(
    count: usize,
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> (A, B) {
    if count < WORTH_A_THREAD {
        return (first(), second());
    }
    std::thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        (first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), second)
    })
}
