//! Results on their way to a file: a journal that can be gone on with, and a file that appears whole.
//!
//! Rows go into `FILE.journal` as they come, one JSON line each after a line that says of which sweep
//! they are. When all are there, the file is written under another name and renamed, and the journal
//! is removed. Whatever interrupts a sweep, the file is as it was, and the same command goes on.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::study::sweep::SweepRow;

/// A journal that is open.
pub(super) struct Journal {
    path: PathBuf,
    writer: BufWriter<File>,
    /// Rows that were there already.
    pub(super) done: usize,
}

/// `FILE` with more behind it.
fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

impl Journal {
    /// Opens the journal of a file: a new one, or one of the same sweep to go on with.
    pub(super) fn open(file: &Path, sweep: &str) -> anyhow::Result<Self> {
        let path = beside(file, ".journal");
        let name = || format!("{}: cannot be written", path.display());
        let mut open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(name)?;
        let (mut done, mut whole) = (0, 0);
        let mut reader = BufReader::new(&mut open);
        let mut line = Vec::new();
        let mut is_first = true;
        loop {
            line.clear();
            let read =
                reader.by_ref().take(1 << 24).read_until(b'\n', &mut line).with_context(name)?;
            // A line that was cut off is written again.
            if read == 0 || !line.ends_with(b"\n") {
                break;
            }
            if is_first {
                if line.trim_ascii_end() != sweep.as_bytes() {
                    bail!(
                        "{}: the journal of another sweep, or of files that have changed since; remove it, or give another --output",
                        path.display()
                    );
                }
                is_first = false;
            } else if serde_json::from_slice::<SweepRow>(&line).is_ok() {
                done += 1;
            } else {
                break;
            }
            whole += read as u64;
        }
        open.set_len(whole).with_context(name)?;
        open.seek(SeekFrom::End(0)).with_context(name)?;
        let mut writer = BufWriter::new(open);
        if is_first {
            writer
                .write_all(sweep.as_bytes())
                .and_then(|()| writer.write_all(b"\n"))
                .with_context(name)?;
            writer.flush().with_context(name)?;
        }
        Ok(Self { path, writer, done })
    }

    pub(super) fn add(&mut self, row: &SweepRow) -> anyhow::Result<()> {
        let name = || {
            format!(
                "{}: cannot be written; the same command goes on from here",
                self.path.display()
            )
        };
        serde_json::to_writer(&mut self.writer, row)
            .map_err(std::io::Error::from)
            .with_context(name)?;
        self.writer.write_all(b"\n").with_context(name)
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        let name = || {
            format!(
                "{}: cannot be written; the same command goes on from here",
                self.path.display()
            )
        };
        self.writer.flush().with_context(name)
    }

    /// The rows that are there, in order.
    pub(super) fn rows(&self) -> anyhow::Result<impl Iterator<Item = anyhow::Result<SweepRow>>> {
        let name = self.path.display().to_string();
        let file = File::open(&self.path).with_context(|| name.clone())?;
        let lines = BufReader::new(file).lines().skip(1);
        Ok(lines.map(move |line| {
            let line = line.with_context(|| name.clone())?;
            serde_json::from_str(&line).with_context(|| name.clone())
        }))
    }

    /// Makes the file of all rows, and removes the journal.
    pub(super) fn finish(
        mut self,
        file: &Path,
        write: impl FnOnce(
            &mut dyn Iterator<Item = anyhow::Result<SweepRow>>,
            File,
        ) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.flush()?;
        let temporary = beside(file, ".tmp");
        let made = File::create(&temporary)
            .with_context(|| format!("{}: cannot be written", temporary.display()))
            .and_then(|open| write(&mut self.rows()?, open))
            .and_then(|()| {
                fs::rename(&temporary, file)
                    .with_context(|| format!("{}: cannot be written", file.display()))
            });
        if let Err(error) = made {
            let _ = fs::remove_file(&temporary);
            return Err(error.context("the rows are safe in the journal; the same command goes on"));
        }
        fs::remove_file(&self.path)
            .with_context(|| format!("{}: cannot be removed", self.path.display()))
    }
}
