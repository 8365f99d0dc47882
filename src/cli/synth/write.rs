//! Writes traces in the form that the name of the file says.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::Form;
use crate::{
    cli::file::write_file,
    source::{json, packed},
    trace::{Trace, script},
};

/// What stands behind the ending of the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Where a trace goes, and how.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    form: Form,
    compression: Compression,
}

impl Target {
    /// What the name says; `to` wins over its ending.
    pub(super) fn of(path: &Path, to: Option<Form>) -> anyhow::Result<Self> {
        let ending = |path: &Path| path.extension().map(|e| e.to_string_lossy().into_owned());
        let (compression, plain) = match ending(path).as_deref() {
            Some("gz") => (Compression::Gzip, path.with_extension("")),
            Some("zst") => (Compression::Zstd, path.with_extension("")),
            _ => (Compression::None, path.to_owned()),
        };
        let form = match (to, ending(&plain).as_deref()) {
            (Some(form), _) => form,
            (None, Some("fragsim")) => Form::Fragsim,
            (None, Some("jsonl" | "json")) => Form::Jsonl,
            (None, Some("packed")) => Form::Packed,
            (None, _) if path == Path::new("-") => Form::Fragsim,
            (None, _) => bail!(
                "{}: the name says no form: end it in .fragsim, .jsonl or .packed (and .gz or .zst), or give --to",
                path.display()
            ),
        };
        if form == Form::Packed && path == Path::new("-") {
            bail!("a packed trace is no text for standard output: name a file");
        }
        Ok(Self { path: path.to_owned(), form, compression })
    }

    /// Writes them; returns the files and their sizes in bytes. A packed file holds all devices; of
    /// the other forms each device has a file.
    pub(super) fn write(&self, traces: &[Trace]) -> anyhow::Result<Vec<(PathBuf, u64)>> {
        if self.form == Form::Packed {
            return Ok(vec![self.write_one(&self.path, traces)?]);
        }
        if let [trace] = traces {
            return Ok(vec![self.write_one(&self.path, std::slice::from_ref(trace))?]);
        }
        if self.path == Path::new("-") {
            bail!(
                "the program uses {} devices, and standard output holds one: choose it with --device",
                traces.len()
            );
        }
        let one = |trace: &Trace| {
            self.write_one(&self.numbered(trace.device().0), std::slice::from_ref(trace))
        };
        traces.iter().map(one).collect()
    }

    /// `x.fragsim.gz` for device 1 is `x.1.fragsim.gz`.
    fn numbered(&self, device: u8) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let endings = [".gz", ".zst"].iter().find_map(|ending| name.strip_suffix(ending));
        let plain = endings.unwrap_or(&name);
        let (stem, form) = plain.rsplit_once('.').unwrap_or((plain, ""));
        let rest = &name[stem.len()..];
        let _ = form;
        self.path.with_file_name(format!("{stem}.{device}{rest}"))
    }

    fn write_one(&self, path: &Path, traces: &[Trace]) -> anyhow::Result<(PathBuf, u64)> {
        let packed = match self.form {
            Form::Packed => Some(packed::program_to_bytes(traces)?),
            _ => None,
        };
        let mut bytes = 0;
        write_file(path, |file| {
            let mut counted = Counted { file, bytes: 0 };
            let body = |out: &mut dyn Write| match (&packed, traces) {
                (Some(packed), _) => out.write_all(packed),
                (None, [trace, ..]) if self.form == Form::Jsonl => json::write(trace, out),
                (None, [trace, ..]) => write!(out, "{}", script::print(trace)),
                (None, []) => Ok(()),
            };
            match self.compression {
                Compression::None => body(&mut counted)?,
                Compression::Gzip => {
                    // No name and no time: the same trace is the same file.
                    let level = flate2::Compression::default();
                    let mut out = flate2::write::GzEncoder::new(&mut counted, level);
                    body(&mut out)?;
                    out.finish()?;
                }
                Compression::Zstd => {
                    let mut out = zstd::Encoder::new(&mut counted, 3)?;
                    body(&mut out)?;
                    out.finish()?;
                }
            }
            bytes = counted.bytes;
            Ok(())
        })
        .with_context(|| path.display().to_string())?;
        Ok((path.to_owned(), bytes))
    }
}

struct Counted<'a> {
    file: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_the_form() {
        let target = |name: &str| Target::of(Path::new(name), None).unwrap();
        let forms = ["a.fragsim", "a.jsonl.zst", "a.b.packed", "-"].map(|name| target(name).form);
        assert_eq!(forms, [Form::Fragsim, Form::Jsonl, Form::Packed, Form::Fragsim]);
        assert_eq!(target("a.fragsim.gz").compression, Compression::Gzip);
        let numbered = |name: &str| target(name).numbered(1).display().to_string();
        assert_eq!(numbered("to/a.fragsim.gz"), "to/a.1.fragsim.gz");
        assert_eq!(numbered("a.b.jsonl"), "a.b.1.jsonl");
        assert!(Target::of(Path::new("trace.pickle"), None).is_err());
        let given = Target::of(Path::new("trace"), Some(Form::Jsonl)).unwrap();
        assert_eq!(given.numbered(0), Path::new("trace.0"));
    }
}
