//! A window over the bytes of a pickle: knows the offset, never reserves what is only claimed.

use std::io::Read;

use super::fault::PickleFault as Fault;

/// Bytes fetched at once.
const SIZE: usize = 512 << 10;
/// Longest text or line that is kept.
pub(super) const TEXT_LIMIT: u64 = 16 << 20;

pub(super) struct Window<R> {
    reader: R,
    buffer: Box<[u8]>,
    pos: usize,
    end: usize,
    /// Offset in the file of `buffer[0]`.
    base: u64,
    /// Text that straddles two fetches.
    scratch: Vec<u8>,
    /// The reader has said that there is no more, or failed.
    is_over: bool,
    failure: Option<std::io::Error>,
}

impl<R: Read> Window<R> {
    pub(super) fn new(reader: R) -> Self {
        let buffer = vec![0; SIZE].into_boxed_slice();
        Self {
            reader,
            buffer,
            pos: 0,
            end: 0,
            base: 0,
            scratch: Vec::new(),
            is_over: false,
            failure: None,
        }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.base + self.pos as u64
    }

    /// Fetches more; false at the end of the file. Call only when the window is used up.
    fn fetch(&mut self) -> Result<bool, Fault> {
        self.base += self.end as u64;
        (self.pos, self.end) = (0, 0);
        if let Some(error) = self.failure.take() {
            return Err(Fault::Io(error));
        }
        loop {
            match self.reader.read(&mut self.buffer) {
                Ok(count) => {
                    self.end = count.min(SIZE);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Io(error)),
            }
        }
    }

    /// The bytes that are there. At least `wanted`, if the file and the window have so many; an
    /// error of the file shows when the byte is read that it stands for.
    #[inline]
    pub(super) fn ahead(&mut self, wanted: usize) -> &[u8] {
        if self.end - self.pos < wanted {
            self.top_up(wanted);
        }
        &self.buffer[self.pos..self.end]
    }

    #[cold]
    fn top_up(&mut self, wanted: usize) {
        if self.is_over {
            return;
        }
        self.buffer.copy_within(self.pos..self.end, 0);
        self.base += self.pos as u64;
        (self.pos, self.end) = (0, self.end - self.pos);
        while self.end < wanted.min(SIZE) {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.is_over = true;
                    return;
                }
                Ok(count) => self.end = (self.end + count).min(SIZE),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    (self.is_over, self.failure) = (true, Some(error));
                    return;
                }
            }
        }
    }

    /// Passes over bytes that [`Window::ahead`] showed.
    #[inline]
    pub(super) fn advance(&mut self, count: usize) {
        self.pos = (self.pos + count).min(self.end);
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        if self.pos == self.end && !self.fetch()? {
            return Err(Fault::Cut);
        }
        let byte = self.buffer[self.pos];
        self.pos += 1;
        Ok(byte)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        if self.end - self.pos >= N {
            out.copy_from_slice(&self.buffer[self.pos..self.pos + N]);
            self.pos += N;
        } else {
            for byte in &mut out {
                *byte = self.byte()?;
            }
        }
        Ok(out)
    }

    /// The next `length` bytes; they are copied only where they straddle two fetches.
    pub(super) fn bytes(&mut self, length: u64) -> Result<&[u8], Fault> {
        let Some(length) = usize::try_from(length).ok().filter(|&n| n as u64 <= TEXT_LIMIT) else {
            return Err(Fault::TooLong { length, limit: TEXT_LIMIT });
        };
        if self.end - self.pos >= length {
            let start = self.pos;
            self.pos += length;
            return Ok(&self.buffer[start..self.pos]);
        }
        self.scratch.clear();
        while self.scratch.len() < length {
            if self.pos == self.end && !self.fetch()? {
                return Err(Fault::Cut);
            }
            let part = (length - self.scratch.len()).min(self.end - self.pos);
            self.scratch.extend_from_slice(&self.buffer[self.pos..self.pos + part]);
            self.pos += part;
        }
        Ok(&self.scratch)
    }

    /// Passes over `length` bytes.
    pub(super) fn skip(&mut self, mut length: u64) -> Result<(), Fault> {
        while length > 0 {
            if self.pos == self.end && !self.fetch()? {
                return Err(Fault::Cut);
            }
            let here = self.end - self.pos;
            let part = usize::try_from(length).map_or(here, |length| length.min(here));
            self.pos += part;
            length -= part as u64;
        }
        Ok(())
    }

    /// The bytes up to the next line feed, which is passed over.
    pub(super) fn line(&mut self) -> Result<&[u8], Fault> {
        self.scratch.clear();
        loop {
            match self.byte()? {
                b'\n' => return Ok(&self.scratch),
                byte => self.scratch.push(byte),
            }
            if self.scratch.len() as u64 > TEXT_LIMIT {
                let length = self.scratch.len() as u64;
                return Err(Fault::TooLong { length, limit: TEXT_LIMIT });
            }
        }
    }

    /// Reads to the end; the number of bytes that are not NUL.
    pub(super) fn drain(&mut self) -> Result<u64, Fault> {
        let mut rest = 0;
        loop {
            let here = &self.buffer[self.pos..self.end];
            rest += here.iter().filter(|&&byte| byte != 0).count() as u64;
            self.pos = self.end;
            if !self.fetch()? {
                return Ok(rest);
            }
        }
    }
}
