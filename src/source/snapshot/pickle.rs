//! A pickle machine for plain data: opcodes in, a heap of small values out.
//!
//! It reads protocols 0 to 5 once, front to back, in a window of 512 KiB. It builds dicts, lists,
//! tuples, text and numbers, and refuses every opcode that would name, make or call an object:
//! a snapshot needs none, and reading one must never run code. No input makes it panic, loop, or
//! reserve memory for a length that is only claimed.

use std::{borrow::Cow, io::Read};

pub use super::fault::{PickleError, PickleFault};
use super::{
    fault::{DEPTH, PickleFault as Fault, short},
    heap::{Heap, Value},
    memo::Memo,
    shape::Shape,
    window::Window,
};

/// Reads one pickle; with `drain` also the bytes after it, of which those that are not NUL are
/// counted in the third value.
///
/// # Complexity
/// O(bytes).
pub(super) fn unpickle(reader: impl Read, drain: bool) -> Result<(Heap, Value, u64), PickleError> {
    let mut machine = Machine {
        input: Window::new(reader),
        heap: Heap::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Memo::default(),
        shape: Shape::default(),
    };
    let root = machine.run()?;
    let Machine { mut input, heap, .. } = machine;
    let rest = if drain {
        input.drain().map_err(|fault| PickleError { at: input.at(), fault })?
    } else {
        0
    };
    Ok((heap, root, rest))
}

struct Machine<R> {
    input: Window<R>,
    heap: Heap,
    stack: Vec<Value>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: Memo,
    shape: Shape,
}

/// Bytes that a trace entry seldom exceeds.
const ENTRY: usize = 2 << 10;

impl<R: Read> Machine<R> {
    fn run(&mut self) -> Result<Value, PickleError> {
        loop {
            let at = self.input.at();
            match self.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(root),
                Err(Fault::Cut) if at == 0 && self.input.at() == 0 => {
                    return Err(PickleError { at, fault: Fault::Empty });
                }
                Err(fault @ (Fault::Cut | Fault::Io(_))) => {
                    return Err(PickleError { at: self.input.at(), fault });
                }
                Err(Fault::Opcode(byte)) if at == 0 => {
                    return Err(PickleError { at, fault: Fault::NotPickle(byte) });
                }
                Err(fault) => return Err(PickleError { at, fault }),
            }
        }
    }

    /// One opcode; the value at STOP. The opcodes of a trace stand first.
    #[inline(always)]
    fn step(&mut self) -> Result<Option<Value>, Fault> {
        let opcode = self.input.byte()?;
        match opcode {
            b'h' => {
                let index = self.input.byte()?;
                self.get(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.input.array()?);
                self.get(index)?;
            }
            0x94 => {
                let top = self.top()?;
                self.memo.push(top);
            }
            0x8a => {
                let length = self.input.byte()?;
                self.long(length.into())?;
            }
            b'K' => {
                let n = self.input.byte()?;
                self.stack.push(Value::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.input.array()?);
                self.stack.push(Value::Int(n.into()));
            }
            b'J' => {
                let n = i32::from_le_bytes(self.input.array()?);
                self.stack.push(Value::Int(n.into()));
            }
            b'(' => {
                if self.marks.len() == DEPTH {
                    return Err(Fault::Depth);
                }
                self.marks.push(self.stack.len());
            }
            b'}' => {
                let ahead = self.input.ahead(ENTRY);
                match self.shape.entry(ahead, &mut self.heap, &mut self.memo) {
                    Some((row, length)) => {
                        self.input.advance(length);
                        self.stack.push(Value::Row(row));
                    }
                    None => {
                        let dict = self.heap.dict()?;
                        self.stack.push(dict);
                    }
                }
            }
            b'u' => {
                let (target, mark) = self.marked_target()?;
                self.heap.set(target, &self.stack[mark..])?;
                self.stack.truncate(mark);
            }
            0x8c => {
                let length = self.input.byte()?;
                self.text(length.into())?;
            }
            b']' => {
                let list = self.heap.list()?;
                self.stack.push(list);
            }
            b'e' => {
                let (target, mark) = self.marked_target()?;
                self.heap.append(target, &self.stack[mark..])?;
                self.stack.truncate(mark);
            }
            b'.' => return self.pop().map(Some),
            _ => self.rare(opcode)?,
        }
        Ok(None)
    }

    /// The opcodes that a trace does not consist of.
    #[cold]
    #[inline(never)]
    fn rare(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            0x80 => match self.input.byte()? {
                0..=5 => {}
                protocol => return Err(Fault::Protocol(protocol)),
            },
            0x95 => self.input.skip(8)?,
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'G' => {
                let x = f64::from_be_bytes(self.input.array()?);
                self.stack.push(Value::Float(x));
            }
            0x8b => {
                let length = u32::from_le_bytes(self.input.array()?);
                self.long(length.into())?;
            }
            b'I' | b'L' | b'F' | b'V' | b'S' => self.written(opcode)?,
            b'X' | b'T' => {
                let length = u32::from_le_bytes(self.input.array()?);
                if opcode == b'T' && i32::try_from(length).is_err() {
                    return Err(Fault::Length(length.cast_signed()));
                }
                self.text(length.into())?;
            }
            b'U' => {
                let length = self.input.byte()?;
                self.text(length.into())?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.input.array()?);
                self.text(length)?;
            }
            b'C' => {
                let length = self.input.byte()?.into();
                self.opaque(length)?;
            }
            b'B' => {
                let length = u32::from_le_bytes(self.input.array()?).into();
                self.opaque(length)?;
            }
            0x8e | 0x96 => {
                let length = u64::from_le_bytes(self.input.array()?);
                self.opaque(length)?;
            }
            b's' | b'a' | b't' | b'l' | b'd' | b')' | 0x85..=0x87 | 0x8f..=0x91 => {
                self.container(opcode)?;
            }
            b'0' => {
                // As Python does: with nothing above the mark, POP takes the mark.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => {
                let mark = self.mark()?;
                self.stack.truncate(mark);
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'q' => {
                let index = self.input.byte()?;
                self.put(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.input.array()?);
                self.put(index)?;
            }
            b'p' => {
                let index = self.number()?;
                self.put(index)?;
            }
            b'g' => {
                let index = self.number()?;
                self.get(index)?;
            }
            _ => return Err(self.refuse(opcode)),
        }
        Ok(())
    }

    fn container(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                let target = self.top()?;
                self.heap.set(target, &[key, value])
            }
            b'a' => {
                let item = self.pop()?;
                let target = self.top()?;
                self.heap.append(target, &[item])
            }
            b')' => self.tuple(self.stack.len()),
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let floor = self.marks.last().copied().unwrap_or(0);
                let start = self.stack.len().checked_sub(count).filter(|&start| start >= floor);
                self.tuple(start.ok_or(Fault::Underflow)?)
            }
            b't' => {
                let mark = self.mark()?;
                self.tuple(mark)
            }
            b'l' => {
                let mark = self.mark()?;
                let list = self.heap.list()?;
                self.heap.append(list, &self.stack[mark..])?;
                self.replace(mark, list)
            }
            b'd' => {
                let mark = self.mark()?;
                let dict = self.heap.dict()?;
                self.heap.set(dict, &self.stack[mark..])?;
                self.replace(mark, dict)
            }
            // Sets: no snapshot holds one, so what is in them is dropped.
            0x90 => {
                let (_, mark) = self.marked_target()?;
                self.stack.truncate(mark);
                Ok(())
            }
            0x91 => {
                let mark = self.mark()?;
                self.replace(mark, Value::Other)
            }
            _ => {
                self.stack.push(Value::Other);
                Ok(())
            }
        }
    }

    fn tuple(&mut self, start: usize) -> Result<(), Fault> {
        let tuple = self.heap.tuple(&self.stack[start..])?;
        self.replace(start, tuple)
    }

    fn replace(&mut self, start: usize, value: Value) -> Result<(), Fault> {
        self.stack.truncate(start);
        self.stack.push(value);
        Ok(())
    }

    /// The top of the stack, above the innermost mark.
    #[inline]
    fn top(&self) -> Result<Value, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&top) if self.stack.len() > floor => Ok(top),
            _ => Err(Fault::Underflow),
        }
    }

    #[inline]
    fn pop(&mut self) -> Result<Value, Fault> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    #[inline]
    fn mark(&mut self) -> Result<usize, Fault> {
        match self.marks.pop() {
            Some(mark) => Ok(mark),
            None => Err(Fault::NoMark),
        }
    }

    /// Closes a mark: the value below it and the place where the values above it start.
    #[inline]
    fn marked_target(&mut self) -> Result<(Value, usize), Fault> {
        let mark = self.mark()?;
        let floor = self.marks.last().copied().unwrap_or(0);
        match mark.checked_sub(1) {
            Some(target) if target >= floor => Ok((self.stack[target], mark)),
            _ => Err(Fault::Underflow),
        }
    }

    #[inline]
    fn get(&mut self, index: u32) -> Result<(), Fault> {
        // Not `ok_or`: that would build and drop an error thirty million times.
        let Some(value) = self.memo.get(index) else { return Err(Fault::Memo(index.into())) };
        self.stack.push(value);
        Ok(())
    }

    fn put(&mut self, index: u32) -> Result<(), Fault> {
        let top = self.top()?;
        self.memo.put(index, top);
        Ok(())
    }

    /// A two's complement number of `length` bytes.
    fn long(&mut self, length: u64) -> Result<(), Fault> {
        let value = match length {
            0..=8 => {
                let bytes = self.input.bytes(length)?;
                let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                let mut wide = [if negative { 0xff } else { 0 }; 8];
                wide[..bytes.len()].copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(wide))
            }
            // 2^63 to 2^64 - 1, which Python writes with a sign byte.
            9 => {
                let wide = self.input.array()?;
                match self.input.byte()? {
                    0 => Value::Big(u64::from_le_bytes(wide)),
                    _ => return Err(Fault::Wide(length)),
                }
            }
            _ => return Err(Fault::Wide(length)),
        };
        self.stack.push(value);
        Ok(())
    }

    /// A text of `length` bytes. Python may write lone surrogates; they read as U+FFFD.
    fn text(&mut self, length: u64) -> Result<(), Fault> {
        let bytes = self.input.bytes(length)?;
        let value = match std::str::from_utf8(bytes) {
            Ok(text) => self.heap.text(text)?,
            Err(_) => self.heap.text(&String::from_utf8_lossy(bytes))?,
        };
        self.stack.push(value);
        Ok(())
    }

    fn opaque(&mut self, length: u64) -> Result<(), Fault> {
        self.input.skip(length)?;
        self.stack.push(Value::Other);
        Ok(())
    }

    /// A memo number in decimal.
    fn number(&mut self) -> Result<u32, Fault> {
        let line = self.input.line()?;
        let text = String::from_utf8_lossy(line);
        text.trim().parse().map_err(|_| Fault::Number(short(&text)))
    }

    /// The values that protocol 0 writes as text.
    fn written(&mut self, opcode: u8) -> Result<(), Fault> {
        let line = self.input.line()?;
        let text = String::from_utf8_lossy(line);
        let wrong = || Fault::Number(short(&text));
        let value = match opcode {
            b'I' if text == "00" => Value::Bool(false),
            b'I' if text == "01" => Value::Bool(true),
            b'I' | b'L' => {
                let digits = text.trim().trim_end_matches('L');
                match (digits.parse(), digits.parse()) {
                    (Ok(n), _) => Value::Int(n),
                    (_, Ok(n)) => Value::Big(n),
                    _ => return Err(wrong()),
                }
            }
            b'F' => Value::Float(text.trim().parse().map_err(|_| wrong())?),
            b'V' => self.heap.text(&unescape(line))?,
            _ => {
                let inner = text.trim();
                let quote = inner.chars().next().filter(|c| matches!(c, '\'' | '"'));
                let inner = quote
                    .and_then(|quote| inner.strip_prefix(quote)?.strip_suffix(quote))
                    .ok_or_else(wrong)?;
                self.heap.text(inner)?
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// Why an opcode is not carried out.
    fn refuse(&mut self, opcode: u8) -> Fault {
        let name = match opcode {
            b'c' => "GLOBAL",
            0x93 => "STACK_GLOBAL",
            b'R' => "REDUCE",
            b'b' => "BUILD",
            b'i' => "INST",
            b'o' => "OBJ",
            0x81 => "NEWOBJ",
            0x92 => "NEWOBJ_EX",
            0x82 => "EXT1",
            0x83 => "EXT2",
            0x84 => "EXT4",
            b'P' => "PERSID",
            b'Q' => "BINPERSID",
            0x97 => "NEXT_BUFFER",
            0x98 => "READONLY_BUFFER",
            _ => return Fault::Opcode(opcode),
        };
        match self.class(opcode) {
            Ok(class) => Fault::Code { opcode: name, what: class },
            Err(fault) => fault,
        }
    }

    /// The class that an opcode names, as ` (module.name)`.
    fn class(&mut self, opcode: u8) -> Result<String, Fault> {
        let (module, name) = match opcode {
            b'c' | b'i' => {
                let module = short(&String::from_utf8_lossy(self.input.line()?));
                (module, short(&String::from_utf8_lossy(self.input.line()?)))
            }
            0x93 => match self.stack[..] {
                [.., Value::Text(module), Value::Text(name)] => {
                    let strings = &self.heap.strings;
                    (short(strings.get(module)), short(strings.get(name)))
                }
                _ => return Ok(String::new()),
            },
            _ => return Ok(String::new()),
        };
        Ok(format!(" ({module}.{name})"))
    }
}

/// Python's `raw-unicode-escape`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
fn unescape(line: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(line)
        && text.is_ascii()
        && !text.contains('\\')
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut rest = line;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let digits = match (first, tail) {
            (b'\\', [b'u', ..]) => 4,
            (b'\\', [b'U', ..]) => 8,
            _ => 0,
        };
        let code = (digits > 0)
            .then(|| tail.get(1..=digits))
            .flatten()
            .and_then(|hex| u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match code {
            Some(code) => {
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                rest = &tail[digits + 1..];
            }
            None => out.push(char::from(*first)),
        }
    }
    Cow::Owned(out)
}
