//! Reads a whole small file that the user named: a configuration, a key, a bundle of certificates.
//!
//! Reading never hangs and never fills the memory: a pipe, a device or a directory instead of a file is an error at
//! once. Used wherever such a file is read. (A file system can still hang, so call this off the runtime.)

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

/// Maximum size of a configuration or a bundle of certificates, in bytes.
pub const LARGE: u64 = 16 * 1024 * 1024;

/// Maximum size of a key, secret or URL, in bytes.
pub const SMALL: u64 = 64 * 1024;

/// The bytes of a regular file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Checked before opening, because opening a device can have side effects.
    check(&std::fs::metadata(path)?)?;
    // A pipe may have replaced the file; a normal open would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(open(path, flags, Mode::empty())?);
    check(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// The text of a regular file of at most `limit` bytes.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Checks a file that a library will read: if it exists, it must be a regular file.
pub fn check_if_there(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        metadata => check(&metadata?),
    }
}

fn check(metadata: &std::fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let (error, what) = if kind.is_dir() {
        (ErrorKind::IsADirectory, "a directory")
    } else if kind.is_fifo() {
        (ErrorKind::InvalidInput, "a pipe")
    } else if kind.is_socket() {
        (ErrorKind::InvalidInput, "a socket")
    } else {
        (ErrorKind::InvalidInput, "a device")
    };
    Err(io::Error::new(error, format!("it is {what}, not a regular file")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, mknodat};

    #[test]
    fn reads_regular_files_only_and_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        drop(std::os::unix::net::UnixListener::bind(path("socket")).unwrap());
        assert_eq!(read_text(&path("file"), 4).unwrap(), "text");
        assert_eq!(read_text(&path("link"), 4).unwrap(), "text");
        for (path, limit, said) in [
            (path("file"), 3, "it is larger than 3 bytes"),
            (path("pipe"), 9, "it is a pipe, not a regular file"),
            (path("socket"), 9, "it is a socket, not a regular file"),
            (dir.path().to_owned(), 9, "it is a directory, not a regular file"),
            ("/dev/null".into(), 9, "it is a device, not a regular file"),
            (path("nothing"), 9, "No such file"),
        ] {
            let error = read(&path, limit).unwrap_err().to_string();
            assert!(error.contains(said), "{}: {error}", path.display());
            let checked = check_if_there(&path).map_err(|error| error.to_string());
            let is_fine = path.ends_with("file") || path.ends_with("nothing");
            assert_eq!(checked, if is_fine { Ok(()) } else { Err(error) });
        }
        std::fs::write(path("bytes"), [0xff, 0xfe]).unwrap();
        assert_eq!(read_text(&path("bytes"), 9).unwrap_err().to_string(), "it is not UTF-8 text");
    }
}
