//! The files that a wait leaves for other programs: `--junit` and `--summary`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::exit::Exit;
use super::verdict::Judged;
use super::{junit, out, summary};

/// The files, opened before the wait: a path that cannot be written is refused before hours have been waited.
pub(super) struct Files {
    junit: Option<(PathBuf, File)>,
    summary: Option<(PathBuf, File)>,
}

impl Files {
    /// Opens and empties them, so that an older result is not taken for that of a wait that was killed.
    pub(super) fn open(junit: Option<&Path>, summary: Option<&Path>) -> Result<Self, Exit> {
        Ok(Self { junit: junit.map(create).transpose()?, summary: summary.map(create).transpose()? })
    }

    /// Writes them.
    pub(super) fn write(&mut self, judged: &[Judged], exit: Exit) -> Result<(), Exit> {
        let junit = write(&mut self.junit, || junit::document(judged, exit));
        write(&mut self.summary, || summary::summary(judged, usize::MAX)).and(junit)
    }
}

fn create(path: &Path) -> Result<(PathBuf, File), Exit> {
    let file = create_at_once(path).map_err(|error| {
        out::error(format_args!("cannot write {}: {error}", path.display()));
        Exit::Usage
    })?;
    Ok((path.to_owned(), file))
}

/// Opens a file for writing without waiting for the reader of a pipe.
fn create_at_once(path: &Path) -> io::Result<File> {
    const UNREAD: i32 = Errno::NXIO.raw_os_error();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(UNREAD) => io::Error::new(error.kind(), "it is a pipe that nobody reads, or a socket"),
        _ if path.is_dir() => io::Error::new(error.kind(), "it is a directory"),
        _ => error,
    })?;
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags.difference(OFlags::NONBLOCK))?;
    Ok(file)
}

fn write(file: &mut Option<(PathBuf, File)>, text: impl FnOnce() -> String) -> Result<(), Exit> {
    let Some((path, file)) = file else { return Ok(()) };
    file.write_all(text().as_bytes()).and_then(|()| file.flush()).map_err(|error| {
        out::error(format_args!("cannot write {}: {error}", path.display()));
        Exit::Internal
    })
}
