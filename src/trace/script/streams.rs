//! [`Streams`]: what the stream numbers of a script mean.

use rustc_hash::FxHashMap;

use crate::{
    base::{StreamHandle, StreamId},
    trace::Stream,
};

/// Numbers below need no declaration. Each declaration raises the limit by one, so that a short
/// text cannot ask for a long table.
pub(super) const UNDECLARED: usize = 1024;

/// The streams of a script: a table without gaps, filled with [`Stream::numbered`] where nothing is
/// declared.
#[derive(Debug)]
pub(super) struct Streams {
    rows: Vec<Stream>,
    declared: FxHashMap<u16, Stream>,
    by_handle: FxHashMap<StreamHandle, u16>,
    last_declared: u16,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            rows: vec![Stream::DEFAULT],
            declared: FxHashMap::default(),
            by_handle: [(Stream::DEFAULT.handle, 0)].into_iter().collect(),
            last_declared: 0,
        }
    }

    pub(super) fn rows(&self) -> &[Stream] {
        &self.rows
    }

    /// Gives stream `n` a handle and an id.
    pub(super) fn declare(&mut self, n: u16, stream: Stream) -> Result<(), String> {
        if n == 0 {
            return Err("stream 0 is the default stream: it needs no declaration".to_owned());
        }
        if self.declared.contains_key(&n) {
            return Err(format!("stream {n} is declared already"));
        }
        if usize::from(n) < self.rows.len() {
            return Err(format!("stream {n} is in use already; declare it further up"));
        }
        self.claim(n, stream.handle)?;
        self.declared.insert(n, stream);
        self.last_declared = self.last_declared.max(n);
        self.check_number(n)
    }

    /// Stream `n`, which comes into use with all below it.
    pub(super) fn id(&mut self, n: u16) -> Result<StreamId, String> {
        if usize::from(n) >= self.rows.len() {
            self.check_number(n)?;
            while self.rows.len() <= usize::from(n) {
                self.append()?;
            }
        }
        Ok(StreamId(n))
    }

    /// All that are declared come into use.
    pub(super) fn use_declared(&mut self) -> Result<(), String> {
        self.id(self.last_declared).map(drop)
    }

    fn append(&mut self) -> Result<(), String> {
        let id = StreamId::from_index(self.rows.len());
        let stream = match self.declared.get(&id.0) {
            Some(stream) => *stream,
            None => {
                let stream = Stream::numbered(id);
                self.claim(id.0, stream.handle)?;
                stream
            }
        };
        self.rows.push(stream);
        Ok(())
    }

    fn claim(&mut self, n: u16, handle: StreamHandle) -> Result<(), String> {
        match self.by_handle.insert(handle, n) {
            None => Ok(()),
            Some(other) => Err(format!(
                "streams {other} and {n} would both have handle {handle}; declare one of them with another handle"
            )),
        }
    }

    fn check_number(&self, n: u16) -> Result<(), String> {
        if usize::from(n) < UNDECLARED + self.declared.len() {
            return Ok(());
        }
        Err(format!(
            "stream numbers from {UNDECLARED} on must be declared, in order, from stream 1"
        ))
    }
}
