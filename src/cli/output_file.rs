//! Opens a file that somebody named for a result. Opening never hangs.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;

/// Opens a file and empties it, or makes a new one.
pub(super) fn create(path: &Path) -> io::Result<File> {
    opened(path, OFlags::TRUNC)
}

/// Opens a file to append to it, or makes a new one.
pub(super) fn append_to(path: &Path) -> io::Result<File> {
    opened(path, OFlags::APPEND)
}

/// A pipe is fine where somebody reads it, as in `--junit >(tee runs.xml)`. A normal open would wait for a reader.
fn opened(path: &Path, how: OFlags) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | how;
    let mode = Mode::from_raw_mode(0o666);
    let file = open(path, flags, mode).map_err(|errno| match errno {
        Errno::NXIO => io::Error::new(ErrorKind::NotFound, "it is a pipe that nobody reads, or a socket"),
        Errno::ISDIR => io::Error::new(ErrorKind::IsADirectory, "it is a directory"),
        errno => errno.into(),
    })?;
    // A reader may be slower than what is written.
    fcntl_setfl(&file, how & OFlags::APPEND)?;
    Ok(File::from(file))
}
