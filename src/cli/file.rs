//! Files that are either written whole or not at all.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::{Context, bail};

/// Writes a file beside its place and moves it there when it is whole; `-` is standard output.
/// Nobody ever sees half of one.
pub(super) fn write_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    if path == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        let written = write(&mut out).and_then(|()| out.flush());
        return written.context("standard output cannot be written");
    }
    let name = || format!("{}: cannot be written", path.display());
    if path.is_dir() {
        bail!("{}: this is a folder; name a file", path.display());
    }
    // A device or a pipe is written to; a link is followed.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real.metadata().is_ok_and(|file| !file.is_file()) {
        let mut out = BufWriter::new(File::create(&real).with_context(name)?);
        return write(&mut out).and_then(|()| out.flush()).with_context(name);
    }
    let folder = real.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // Asked first, so that the message does not name a file that the user never named.
    folder.metadata().with_context(name)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".fragsim-");
    // As any new file: readable for those whom the user's mask lets read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut new = builder.tempfile_in(folder).with_context(name)?;
    let mut out = BufWriter::with_capacity(1 << 16, new.as_file_mut());
    write(&mut out).and_then(|()| out.flush()).with_context(name)?;
    drop(out);
    new.as_file().sync_all().with_context(name)?;
    new.persist(&real).map_err(|error| error.error).with_context(name)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        let fails = |out: &mut dyn Write| {
            out.write_all(b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        };
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let error = write_file(&path, fails).unwrap_err();
        assert!(format!("{error:#}").contains("page.html: cannot be written: "), "{error:#}");
        assert_eq!(names(), 0);
        write_file(&path, |out| out.write_all(b"whole")).unwrap();
        write_file(&path, fails).unwrap_err();
        assert_eq!((std::fs::read(&path).unwrap(), names()), (b"whole".to_vec(), 1));
    }
}
