//! Many jobs on all cores, their results in order.
//!
//! ```text
//!  jobs 0, 1, 2, … ──► workers (a thread each, with its own memory) ──► window ──► results 0, 1, 2, …
//!                                                                      at most `WINDOW` a thread
//! ```
//! Jobs are numbers: what a number means is for the caller to work out, so that a million of them
//! take no memory. A result waits in the window until those before it are taken; a worker that is too
//! far ahead waits too. So what comes out does not depend on the number of threads, and memory does
//! not depend on the number of jobs.

use std::{
    any::Any,
    collections::VecDeque,
    num::NonZeroUsize,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// Results that may wait for those before them, for each thread.
const WINDOW: usize = 16;

/// A job that panicked: a bug, of which the other jobs know nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this job failed by a bug in fragsim, please report it: {message}")]
pub struct JobPanic {
    /// What the panic said.
    pub message: String,
}

/// How a run over jobs ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every result was taken.
    Done,
    /// Whoever took the results stopped it.
    Stopped,
}

/// As many threads as there are cores for this process.
pub fn all_cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// What the threads share.
struct Shared<R> {
    /// The next job that nobody works on.
    next: usize,
    /// Results taken so far; the front of `window` is the result of this job.
    taken: usize,
    /// Results that wait, `None` where a job is still worked on.
    window: VecDeque<Option<Result<R, JobPanic>>>,
    is_stopped: bool,
}

struct Board<R> {
    shared: Mutex<Shared<R>>,
    /// The result that is to be taken next is there.
    ready: Condvar,
    /// There is room in the window, or nothing more to do.
    room: Condvar,
}

impl<R> Board<R> {
    fn lock(&self) -> MutexGuard<'_, Shared<R>> {
        // Nothing that can panic runs under the lock.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.lock().is_stopped = true;
        self.room.notify_all();
    }

    /// The next job, as soon as its result has a place to wait.
    fn claim(&self, jobs: usize, window: usize) -> Option<usize> {
        let mut shared = self.lock();
        loop {
            if shared.is_stopped || shared.next >= jobs {
                return None;
            }
            if shared.next < shared.taken + window {
                let job = shared.next;
                shared.next += 1;
                shared.window.push_back(None);
                return Some(job);
            }
            shared = self.room.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn put(&self, job: usize, result: Result<R, JobPanic>) {
        let mut shared = self.lock();
        let place = job - shared.taken;
        shared.window[place] = Some(result);
        if place == 0 {
            self.ready.notify_one();
        }
    }

    /// The result of the next job, when it is there.
    fn take(&self) -> Result<R, JobPanic> {
        let mut shared = self.lock();
        loop {
            if let Some(Some(_)) = shared.window.front()
                && let Some(Some(result)) = shared.window.pop_front()
            {
                shared.taken += 1;
                self.room.notify_all();
                return result;
            }
            shared = self.ready.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Ends the workers however the taker ends.
struct StopAtEnd<'a, R>(&'a Board<R>);

impl<R> Drop for StopAtEnd<'_, R> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Does `jobs` jobs on `threads` threads and hands their results to `each` in order.
///
/// `worker` makes what a thread works with, once a thread, and again after a job that panicked;
/// `work` does a job with it. `each` runs on the calling thread and may break off: jobs under way are
/// finished then, and their results dropped.
///
/// # Complexity
/// Memory for one worker a thread and a bounded number of results; none that grows with `jobs`.
pub fn for_each<W, R: Send>(
    jobs: usize,
    threads: NonZeroUsize,
    worker: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, usize) -> R + Sync,
    mut each: impl FnMut(usize, Result<R, JobPanic>) -> ControlFlow<()>,
) -> Ended {
    let threads = threads.get().min(jobs);
    let window = threads * WINDOW;
    let shared = Shared { next: 0, taken: 0, window: VecDeque::new(), is_stopped: false };
    let board = Board { shared: Mutex::new(shared), ready: Condvar::new(), room: Condvar::new() };
    thread::scope(|scope| {
        let stop = StopAtEnd(&board);
        for _ in 0..threads {
            scope.spawn(|| {
                let mut state = None;
                while let Some(job) = board.claim(jobs, window) {
                    let done = catch_unwind(AssertUnwindSafe(|| {
                        work(state.get_or_insert_with(&worker), job)
                    }));
                    if done.is_err() {
                        // It may have been left half changed.
                        state = None;
                    }
                    board.put(job, done.map_err(|panic| JobPanic { message: message(&*panic) }));
                }
            });
        }
        for job in 0..jobs {
            if each(job, board.take()).is_break() {
                return Ended::Stopped;
            }
        }
        drop(stop);
        Ended::Done
    })
}

/// All results of [`for_each`] at once, where there are few.
pub fn collect<W, R: Send>(
    jobs: usize,
    threads: NonZeroUsize,
    worker: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, usize) -> R + Sync,
) -> Vec<Result<R, JobPanic>> {
    let mut results = Vec::with_capacity(jobs);
    for_each(jobs, threads, worker, work, |_, result| {
        results.push(result);
        ControlFlow::Continue(())
    });
    results
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn threads(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).unwrap()
    }

    #[test]
    fn results_come_in_order_whatever_the_number_of_threads() {
        for count in [1, 2, 3, 8, 300] {
            // Every seventh job takes longer.
            let work = |_: &mut (), job: usize| {
                if job.is_multiple_of(7) {
                    thread::yield_now();
                }
                job * job
            };
            let results = collect(200, threads(count), || (), work);
            let want: Vec<_> = (0..200).map(|job| Ok(job * job)).collect();
            assert_eq!(results, want, "{count} threads");
        }
        assert_eq!(collect(0, threads(3), || (), |(), job| job), []);
    }

    #[test]
    fn a_worker_is_made_once_a_thread_and_again_after_a_panic() {
        let made = AtomicUsize::new(0);
        let worker = || made.fetch_add(1, Ordering::Relaxed);
        collect(100, threads(2), worker, |_, job| job);
        assert!(made.load(Ordering::Relaxed) <= 2);
        made.store(0, Ordering::Relaxed);
        let results = collect(5, threads(1), worker, |worker, job| {
            assert_ne!(job, 2, "job two is broken");
            *worker
        });
        assert_eq!([&results[1], &results[3]], [&Ok(0), &Ok(1)]);
    }

    #[test]
    fn a_job_that_panics_is_reported_and_the_others_are_done() {
        let results = collect(
            20,
            threads(3),
            || (),
            |(), job| {
                assert_ne!(job, 11, "job eleven is broken");
                job
            },
        );
        let failed = results[11].as_ref().unwrap_err();
        assert!(failed.message.contains("job eleven is broken"), "{}", failed.message);
        let others = results.iter().enumerate().filter(|(job, _)| *job != 11);
        assert!(others.into_iter().all(|(job, result)| *result == Ok(job)));
    }

    #[test]
    fn whoever_takes_the_results_can_stop() {
        let done = AtomicUsize::new(0);
        let work = |(): &mut (), job| {
            done.fetch_add(1, Ordering::Relaxed);
            job
        };
        let each =
            |job, _| if job == 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let ended = for_each(1_000_000, threads(2), || (), work, each);
        assert_eq!(ended, Ended::Stopped);
        assert!(done.load(Ordering::Relaxed) <= 10 + 2 * WINDOW + 2);
    }

    #[test]
    fn no_more_results_wait_than_the_window_holds() {
        let (done, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |(): &mut (), _| done.fetch_add(1, Ordering::Relaxed);
        let each = |job, _| {
            // As slow a taker as there can be: the workers run as far ahead as they may.
            thread::sleep(std::time::Duration::from_micros(50));
            most.fetch_max(done.load(Ordering::Relaxed) - job, Ordering::Relaxed);
            ControlFlow::Continue(())
        };
        for_each(500, threads(2), || (), work, each);
        assert!(most.load(Ordering::Relaxed) <= 2 * WINDOW + 1);
    }
}
