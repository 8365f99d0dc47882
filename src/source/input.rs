//! Opens what a user names: a file or standard input, plain, gzip or zstd.
//!
//! Compression is recognised by its first bytes, never by the file's name, so that a renamed or
//! piped file works too. What the bytes *mean* is not known here; [`sniff`] only tells the families
//! apart so that the right reader is asked.

use std::{
    fs::{File, Metadata},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel, sync_channel},
};

use flate2::bufread::MultiGzDecoder;

use super::packed;

/// Size of every read buffer.
const BUFFER: usize = 256 << 10;
/// Bytes that are looked at to tell what an input is.
const HEAD: u64 = 4 << 10;

/// Files of so many bytes are read in a thread of their own.
const WORTH_A_THREAD: u64 = 4 << 20;

/// Why an input cannot be opened or read on.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// There is no such file.
    #[error("{}: no such file; check the path, or write - to read standard input", .0.display())]
    Missing(PathBuf),
    /// The path is a folder.
    #[error("{}: is a folder; name a file inside it", .0.display())]
    Directory(PathBuf),
    /// The file may not be read.
    #[error("{}: may not be read; check its permissions", .0.display())]
    Permission(PathBuf),
    /// There is not one byte.
    #[error("{}: is empty; was the program stopped before it wrote the file?", .0.display())]
    Empty(PathBuf),
    /// Another failure of the operating system.
    #[error("{}: cannot be opened: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A compressed stream that ends or breaks; travels inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The compressed bytes stop before the stream's own end.
    #[error("the {format} stream ends early at byte {at}: the file was cut; copy it again")]
    Cut {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// Compressed bytes there were.
        at: u64,
    },
    /// The compressed bytes contradict themselves.
    #[error("the {format} stream is damaged near byte {at} ({what}); copy the file again")]
    Damaged {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// Compressed bytes read so far.
        at: u64,
        /// What the decompressor says.
        what: String,
    },
}

/// Opens `path`, or standard input for `-`, and unpacks gzip (of any number of members) and zstd.
///
/// A compressed stream that turns out cut or damaged later gives an [`io::Error`] that holds an
/// [`UnpackError`].
///
/// # Errors
/// When the file is missing, a folder, unreadable or empty.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn BufRead + Send>, InputError> {
    let path = path.as_ref();
    if path.as_os_str() == "-" {
        return unpack(io::stdin(), Path::new("standard input"));
    }
    let file = File::open(path).map_err(|source| failure(path, source))?;
    let data = file.metadata();
    if data.as_ref().is_ok_and(Metadata::is_dir) {
        return Err(InputError::Directory(path.to_owned()));
    }
    let is_large = data.is_ok_and(|data| data.is_file() && data.len() >= WORTH_A_THREAD);
    unpack_from(file, path, is_large)
}

fn failure(path: &Path, source: io::Error) -> InputError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => InputError::Missing(path),
        io::ErrorKind::PermissionDenied => InputError::Permission(path),
        io::ErrorKind::IsADirectory => InputError::Directory(path),
        _ => InputError::Io { path, source },
    }
}

/// Looks at the first bytes of `raw` and puts the right decompressor before it. `path` is for
/// messages only.
///
/// # Errors
/// When nothing can be read or there is nothing.
pub fn unpack(
    raw: impl Read + Send + 'static,
    path: &Path,
) -> Result<Box<dyn BufRead + Send>, InputError> {
    unpack_from(raw, path, false)
}

fn unpack_from(
    mut raw: impl Read + Send + 'static,
    path: &Path,
    is_large: bool,
) -> Result<Box<dyn BufRead + Send>, InputError> {
    let head = head(&mut raw).map_err(|source| failure(path, source))?;
    if head.is_empty() {
        return Err(InputError::Empty(path.to_owned()));
    }
    let gzip = head.starts_with(&[0x1f, 0x8b]);
    let zstd = head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let whole = BufReader::with_capacity(BUFFER, io::Cursor::new(head).chain(raw));
    if gzip {
        let unpacker = MultiGzDecoder::new(Counting { inner: whole, at: 0 });
        let named = Named { unpacker, format: "gzip", at: |gz| gz.get_ref().at };
        return ahead(named, path);
    }
    if zstd {
        let unpacker = zstd::stream::read::Decoder::with_buffer(Counting { inner: whole, at: 0 })
            .map_err(|source| failure(path, source))?;
        let named = Named { unpacker, format: "zstd", at: |zst| zst.get_ref().at };
        return ahead(named, path);
    }
    if is_large {
        return ahead(whole, path);
    }
    Ok(Box::new(whole))
}

/// The first bytes; fewer than [`HEAD`] only at the end.
fn head(raw: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    raw.take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}

/// Reads in a thread of its own, a few blocks ahead.
fn ahead(
    unpacker: impl Read + Send + 'static,
    path: &Path,
) -> Result<Box<dyn BufRead + Send>, InputError> {
    match Ahead::new(unpacker) {
        Ok(ahead) => Ok(Box::new(ahead)),
        Err(source) => Err(failure(path, source)),
    }
}

/// Blocks that another thread reads.
struct Ahead {
    blocks: Receiver<io::Result<Vec<u8>>>,
    /// Takes back what was used up: memory that was touched before is faster.
    spare: Sender<Vec<u8>>,
    block: Vec<u8>,
    at: usize,
}

/// Blocks of [`BUFFER`] bytes that wait at most.
const BLOCKS: usize = 4;

impl Ahead {
    fn new(mut reader: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, blocks) = sync_channel(BLOCKS);
        let (spare, used) = channel::<Vec<u8>>();
        // It ends with the reader, after an error, or when nobody takes blocks any more.
        std::thread::Builder::new().name("read ahead".into()).spawn(move || {
            loop {
                let mut block = used.try_recv().unwrap_or_default();
                block.resize(BUFFER, 0);
                let outcome = fill(&mut reader, &mut block);
                let is_over = outcome.is_err() || block.is_empty();
                if !block.is_empty() && sender.send(Ok(block)).is_err() {
                    return;
                }
                if let Err(error) = outcome {
                    let _ = sender.send(Err(error));
                }
                if is_over {
                    return;
                }
            }
        })?;
        Ok(Self { blocks, spare, block: Vec::new(), at: 0 })
    }
}

/// Reads until the block is full or nothing more comes; the block is what was read.
fn fill(reader: &mut impl Read, block: &mut Vec<u8>) -> io::Result<()> {
    let mut end = 0;
    let outcome = loop {
        match reader.read(&mut block[end..]) {
            Ok(0) => break Ok(()),
            Ok(count) => end = (end + count).min(block.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    block.truncate(end);
    outcome
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.block.len()
            && let Ok(block) = self.blocks.recv()
        {
            // Nobody takes it when all has been read.
            let _ = self.spare.send(std::mem::replace(&mut self.block, block?));
            self.at = 0;
        }
        Ok(&self.block[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.block.len());
    }
}

/// Counts the bytes taken from a reader.
#[derive(Debug)]
struct Counting<R> {
    inner: R,
    at: u64,
}

impl<R: BufRead> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }
    fn consume(&mut self, count: usize) {
        self.at += count as u64;
        self.inner.consume(count);
    }
}

/// A decompressor whose errors say what to do.
struct Named<D> {
    unpacker: D,
    format: &'static str,
    at: fn(&D) -> u64,
}

impl<D: Read> Read for Named<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.unpacker.read(buffer).map_err(|error| {
            let (format, at, kind) = (self.format, (self.at)(&self.unpacker), error.kind());
            match kind {
                io::ErrorKind::Interrupted => error,
                io::ErrorKind::UnexpectedEof => {
                    io::Error::new(kind, UnpackError::Cut { format, at })
                }
                _ => {
                    let what = error.to_string();
                    io::Error::new(kind, UnpackError::Damaged { format, at, what })
                }
            }
        })
    }
}

/// The family of an input, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Python pickle.
    Pickle,
    /// A packed recording.
    Packed,
    /// JSON text.
    Json,
    /// A web page, such as an export of PyTorch's memory viewer.
    Html,
    /// A zip archive, such as `torch.save` writes.
    Zip,
    /// Anything else: a script.
    Text,
}

/// Tells the family of what `reader` will give, without taking anything from it.
///
/// # Errors
/// When the reader cannot be read.
pub fn sniff(reader: &mut (impl BufRead + ?Sized)) -> io::Result<Kind> {
    reader.fill_buf().map(kind)
}

/// The family of an input that starts with `first`.
pub fn kind(first: &[u8]) -> Kind {
    match first {
        // A file that was cut in its first bytes, too.
        [0x89, ..] if packed::MAGIC.starts_with(&first[..first.len().min(packed::MAGIC.len())]) => {
            return Kind::Packed;
        }
        [0x80, protocol, ..] if *protocol <= 5 => return Kind::Pickle,
        [b'P', b'K', 3 | 5, 4 | 6, ..] => return Kind::Zip,
        // Protocols 0 and 1 have no header: an empty dict or list and its number in the memo, or
        // its contents. No word of a script starts so.
        [b'}' | b']', b'q' | b'(' | b'r' | b'.', ..] => return Kind::Pickle,
        [b'(', b'd' | b'l', b'p' | b'.', ..] => return Kind::Pickle,
        _ => {}
    }
    let text = first.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(first).trim_ascii_start();
    match text {
        [b'{' | b'[', ..] => Kind::Json,
        [b'<', b'!' | b'h' | b'H', ..] => Kind::Html,
        _ => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(data).unwrap();
        packer.finish().unwrap()
    }

    fn read(packed: Vec<u8>) -> Result<Vec<u8>, String> {
        let mut reader =
            unpack(io::Cursor::new(packed), Path::new("x")).map_err(|e| e.to_string())?;
        let mut out = Vec::new();
        reader.read_to_end(&mut out).map_err(|e| e.to_string())?;
        Ok(out)
    }

    #[test]
    fn plain_gzip_and_zstd_read_the_same() {
        assert_eq!(read(b"abc".to_vec()).unwrap(), b"abc");
        assert_eq!(read(gzip(b"alloc")).unwrap(), b"alloc");
        assert_eq!(read([gzip(b"al"), gzip(b"loc")].concat()).unwrap(), b"alloc");
        assert_eq!(read(zstd::encode_all(&b"alloc"[..], 1).unwrap()).unwrap(), b"alloc");
    }

    #[test]
    fn a_cut_stream_is_told_from_a_damaged_one() {
        let data: Vec<u8> = (0u32..5000).flat_map(|n| (n * n).to_le_bytes()).collect();
        let mut packed = gzip(&data);
        packed.truncate(packed.len() / 2);
        let half = packed.len();
        let cut =
            format!("the gzip stream ends early at byte {half}: the file was cut; copy it again");
        assert_eq!(read(packed).unwrap_err(), cut);

        let mut packed = zstd::encode_all(&data[..], 1).unwrap();
        packed.truncate(packed.len() / 2);
        assert!(read(packed).unwrap_err().starts_with("the zstd stream ends early"));

        let mut packed = gzip(&data);
        let checksum = packed.len() - 8;
        packed[checksum] ^= 1;
        assert!(read(packed).unwrap_err().starts_with("the gzip stream is damaged"));
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let say = |path: PathBuf| {
            let name = path.display().to_string();
            open(path).err().map(|e| e.to_string().replace(&name, "X")).unwrap()
        };
        assert_eq!(
            say(folder.path().join("none")),
            "X: no such file; check the path, or write - to read standard input"
        );
        assert_eq!(say(folder.path().to_owned()), "X: is a folder; name a file inside it");
        let empty = folder.path().join("empty");
        File::create(&empty).unwrap();
        assert_eq!(say(empty), "X: is empty; was the program stopped before it wrote the file?");
    }

    #[test]
    fn the_first_look_at_a_plain_or_packed_input_sees_its_first_line() {
        let text = b"{\"format\":\"fragsim-trace\",\"version\":1}\n".repeat(3);
        for packed in [text.clone(), gzip(&text), zstd::encode_all(&text[..], 1).unwrap()] {
            let mut reader = unpack(io::Cursor::new(packed), Path::new("x")).unwrap();
            assert_eq!(reader.fill_buf().unwrap(), text);
        }
    }

    #[test]
    fn families_are_told_by_the_first_bytes() {
        assert_eq!(kind(&[0x80, 4, 0x95]), Kind::Pickle);
        assert_eq!(kind(b"}q\x00(X"), Kind::Pickle);
        assert_eq!(kind(b"(dp0\nVsegments"), Kind::Pickle);
        assert_eq!(kind(b"\n  {\"segments\": []}"), Kind::Json);
        assert_eq!(kind(b"\xef\xbb\xbf[1]"), Kind::Json);
        assert_eq!(kind(b"<!DOCTYPE html>"), Kind::Html);
        assert_eq!(kind(b"\x89fragsim\x01"), Kind::Packed);
        assert_eq!(kind(b"\x89fra"), Kind::Packed);
        assert_eq!(kind(b"\x89PNG"), Kind::Text);
        assert_eq!(kind(b"PK\x03\x04"), Kind::Zip);
        assert_eq!(kind(b"a = alloc 20MiB"), Kind::Text);
        assert_eq!(kind(b""), Kind::Text);
    }
}
