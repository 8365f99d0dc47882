//! What can be wrong with a pickle, and how it is said.

use std::io;

/// Most marks that may be open at once; a snapshot needs eight.
pub(super) const DEPTH: usize = 512;

/// What is wrong at one byte of a pickle.
#[derive(Debug, thiserror::Error)]
#[error("byte {at}: {fault}")]
pub struct PickleError {
    /// Offset in the (unpacked) bytes.
    pub at: u64,
    /// What is wrong.
    pub fault: PickleFault,
}

/// What can be wrong with a pickle.
#[derive(Debug, thiserror::Error)]
pub enum PickleFault {
    /// There is no byte at all.
    #[error("the input is empty; was the program stopped before it wrote the file?")]
    Empty,
    /// The first byte starts no pickle.
    #[error(
        "not a pickle (it starts with {0:#04x}); name a file written by torch.cuda.memory._dump_snapshot"
    )]
    NotPickle(u8),
    /// The bytes end inside the pickle.
    #[error("the pickle ends early: the file was cut; copy or record it again")]
    Cut,
    /// The bytes cannot be read.
    #[error("cannot read on: {0}")]
    Io(io::Error),
    /// A protocol that does not exist.
    #[error("pickle protocol {0} is not known; protocols 0 to 5 are read")]
    Protocol(u8),
    /// An opcode that names, makes or calls an object.
    #[error("opcode {opcode}{what} would run code; a memory snapshot holds plain data only")]
    Code {
        /// Opcode.
        opcode: &'static str,
        /// The class, where the opcode names it.
        what: String,
    },
    /// A byte that is no opcode.
    #[error("{0:#04x} is no pickle opcode: the file is damaged or not a pickle")]
    Opcode(u8),
    /// A text that claims too much.
    #[error("a text of {length} bytes: at most {limit} are read")]
    TooLong {
        /// Bytes claimed.
        length: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A whole number beyond 64 bits.
    #[error("a whole number of {0} bytes does not fit 64 bits")]
    Wide(u64),
    /// A written number that is none.
    #[error("'{0}' is not a number")]
    Number(String),
    /// A negative length.
    #[error("a length of {0}")]
    Length(i32),
    /// Too many open marks.
    #[error("more than {DEPTH} containers inside each other; a snapshot has eight")]
    Depth,
    /// An opcode needs a value where there is none.
    #[error("the opcode needs a value, but none is there: the file is damaged")]
    Underflow,
    /// An opcode needs a mark where there is none.
    #[error("the opcode needs a mark, but none is open: the file is damaged")]
    NoMark,
    /// A memo number that was never given.
    #[error("memo number {0} was never given: the file is damaged")]
    Memo(u64),
    /// An opcode meant for another type.
    #[error("the opcode changes a {0}, but another value is there: the file is damaged")]
    NotA(&'static str),
    /// A key without a value.
    #[error("a dict key has no value: the file is damaged")]
    Odd,
    /// A change after use.
    #[error("a list or dict grows after another value took it; no snapshot does that")]
    Late,
    /// More than 2^32 objects.
    #[error("more than four thousand million values: too large to read")]
    Full,
}

/// At most 80 characters of a text, for a message.
pub(super) fn short(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        out.push_str("...");
    }
    out
}
