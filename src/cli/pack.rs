//! `fragsim pack`.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::{
    Answer,
    args::PackArgs,
    load::{self, Input},
    output::Output,
    progress,
};
use crate::{base::Bytes, source::packed, trace::Trace};

/// The ending of packed files. They are recognised by what they begin with, not by this.
const ENDING: &str = "packed";

pub(super) fn run(args: &PackArgs, output: &mut Output) -> anyhow::Result<Answer> {
    let target = target(args)?;
    refuse_to_overwrite(args, &target)?;
    let (bytes, traces) = progress::during("packing", || pack(&args.file))?;
    refuse_to_overwrite(args, &target)?;
    write(&target, &bytes).with_context(|| format!("{}: cannot be written", target.display()))?;
    let ops: usize = traces.iter().map(|trace| trace.ops().len()).sum();
    output.line(&format!(
        "{}: {} of {}, {ops} operations",
        target.display(),
        Bytes(bytes.len() as u64),
        args.file.display()
    ))?;
    Ok(Answer::Yes)
}

fn pack(file: &Path) -> anyhow::Result<(Vec<u8>, Vec<Trace>)> {
    let name = || file.display().to_string();
    let (overview, traces) = match load::open(file)? {
        Input::Snapshot(snapshot) => {
            let overview = snapshot.overview();
            (overview, load::traces_of(snapshot).with_context(name)?.0)
        }
        Input::Packed(packed) => (packed.overview, packed.traces),
        Input::Case(_) | Input::Trace(_) => bail!(
            "{}: this is no snapshot; only a recording of torch.cuda.memory._dump_snapshot() is packed",
            file.display()
        ),
    };
    let bytes = packed::to_bytes(&overview, &traces).with_context(name)?;
    Ok((bytes, traces))
}

/// Where it goes: what was given, or beside the input.
fn target(args: &PackArgs) -> anyhow::Result<PathBuf> {
    if let Some(output) = &args.output {
        return Ok(output.clone());
    }
    if args.file.as_os_str() == "-" {
        bail!("standard input has no name to be changed: name the file to write with --output");
    }
    let compressed = args.file.extension().is_some_and(|ending| ending == "gz" || ending == "zst");
    let plain = if compressed { args.file.with_extension("") } else { args.file.clone() };
    Ok(plain.with_extension(ENDING))
}

fn refuse_to_overwrite(args: &PackArgs, target: &Path) -> anyhow::Result<()> {
    let real = |path: &Path| fs::canonicalize(path).ok();
    if real(target).is_some_and(|target| Some(target) == real(&args.file)) {
        bail!("{}: this is the recording itself; name another file", target.display());
    }
    if args.force || !target.exists() {
        return Ok(());
    }
    bail!("{}: is there already; write over it with --force", target.display());
}

/// Writes a new file beside the place and moves it there, so that nobody ever sees half of one.
fn write(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = target.with_file_name(name);
    let written = File::create_new(&new)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, target));
    if written.is_err() {
        // What was begun is of no use; the first error is the one to tell.
        let _ = fs::remove_file(&new);
    }
    written
}
