//! [`StreamClock`]: how far the streams of a device have come, and which are being captured.
//!
//! Streams do no work here; the clock only answers whether an event is done: at once, when the
//! program says so, or after a number of questions.

use crate::{
    base::{StreamId, Table},
    trace::EventMode,
};

#[derive(Clone, Copy, Debug, Default)]
struct StreamState {
    submitted: u64,
    done: u64,
    capturing: bool,
}

/// A recorded CUDA event.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    stream: StreamId,
    at: u64,
    polls: u32,
}

/// The streams of one device.
#[derive(Clone, Debug)]
pub struct StreamClock {
    mode: EventMode,
    streams: Table<StreamId, StreamState>,
}

impl StreamClock {
    /// `streams` idle streams.
    pub fn new(streams: usize, mode: EventMode) -> Self {
        Self { mode, streams: Table::from_rows(vec![StreamState::default(); streams]) }
    }

    /// From now on events get done in this way.
    pub fn set_mode(&mut self, mode: EventMode) {
        self.mode = mode;
    }

    /// `cudaEventRecord`.
    pub fn record(&mut self, stream: StreamId) -> Event {
        let state = &mut self.streams[stream];
        state.submitted += 1;
        Event { stream, at: state.submitted, polls: 0 }
    }

    /// `cudaEventQuery`: whether the event is done.
    pub fn query(&mut self, event: &mut Event) -> bool {
        let state = &mut self.streams[event.stream];
        match self.mode {
            EventMode::Ready => return true,
            EventMode::Manual => {}
            EventMode::Polls(needed) => {
                if state.done < event.at {
                    event.polls += 1;
                    if event.polls >= needed {
                        state.done = event.at;
                    }
                }
            }
        }
        state.done >= event.at
    }

    /// `cudaEventSynchronize`.
    pub fn synchronize(&mut self, event: Event) {
        let state = &mut self.streams[event.stream];
        state.done = state.done.max(event.at);
    }

    /// Everything submitted to the stream is done.
    pub fn complete(&mut self, stream: StreamId) {
        let state = &mut self.streams[stream];
        state.done = state.submitted;
    }

    /// Everything submitted to any stream is done.
    pub fn complete_all(&mut self) {
        for state in self.streams.iter_mut() {
            state.done = state.submitted;
        }
    }

    /// The stream is (not) being captured from now on.
    pub fn capture(&mut self, stream: StreamId, on: bool) {
        self.streams[stream].capturing = on;
    }

    /// Whether the stream is being captured.
    pub fn is_capturing(&self, stream: StreamId) -> bool {
        self.streams[stream].capturing
    }

    /// Whether any stream is being captured.
    pub fn captures_any(&self) -> bool {
        self.streams.iter().any(|s| s.capturing)
    }
}
