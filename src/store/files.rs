//! The database's files: their names, making them for their owner only, and refusing files that are not ours.
//!
//! Files are opened without following a link, without waiting for the other end of a pipe, and with the right
//! permissions from the start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Flags of open(2): do not follow links, and do not wait for the other end of a pipe.
pub(super) const NO_SURPRISE: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();

/// Suffixes of a database's other files. The log comes first, because it may have data that the main file lacks.
pub(super) const PARTS: [&str; 3] = ["-wal", "-journal", "-shm"];

/// The path of a database's other file.
pub(super) fn part(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The path of a file with its directory's links resolved, because SQLite must not follow links.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (dir.canonicalize(), path.file_name()) {
        (Ok(dir), Some(name)) => dir.join(name),
        _ => path.to_owned(),
    }
}

/// Opens a file of ours for reading and writing, or makes it. Refuses links, other users' files, and anything but a
/// file.
pub(super) fn open_or_make(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    let file = options.custom_flags(NO_SURPRISE).open(path).map_err(|error| explained(path, error))?;
    check_kind(&file.metadata()?)?;
    Ok(file)
}

/// Makes a new file.
pub(super) fn make(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Checks a file that SQLite would open itself, by the rules of [`open_or_make`], if it exists.
pub(super) fn check(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) => check_kind(&metadata).map_err(|error| named(path, &error)),
    }
}

fn check_kind(metadata: &std::fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        None
    } else if kind.is_symlink() {
        Some("it is a symbolic link, which is not followed; put the file itself there")
    } else if kind.is_dir() {
        Some("it is a directory, not a file")
    } else if kind.is_fifo() {
        Some("it is a named pipe, not a file")
    } else if kind.is_socket() {
        Some("it is a socket, not a file")
    } else {
        Some("it is a device, not a file")
    };
    if let Some(what) = what {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let (owner, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != own && owner != 0 {
        let why = format!("it belongs to another user (uid {owner}; this process has {own})");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(())
}

/// Explains an error by what is at the path, if that is the reason.
fn explained(path: &Path, error: io::Error) -> io::Error {
    match std::fs::symlink_metadata(path).map(|metadata| check_kind(&metadata)) {
        Ok(Err(why)) => why,
        _ => error,
    }
}

/// The error with the path, which the operating system does not name.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("victim"), "theirs").unwrap();
        std::os::unix::fs::symlink(path("victim"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("nothing"), path("dangling")).unwrap();
        std::fs::create_dir(path("dir")).unwrap();
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for (name, why) in [
            ("link", "symbolic link"),
            ("dangling", "symbolic link"),
            ("dir", "a directory"),
            ("pipe", "a named pipe"),
            ("socket", "a socket"),
        ] {
            let error = open_or_make(&path(name)).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
            let error = check(&path(name)).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(name), "{name}: {error}");
        }
        assert!(open_or_make(Path::new("/dev/null")).unwrap_err().to_string().contains("a device"));
        assert_eq!(std::fs::read_to_string(path("victim")).unwrap(), "theirs");
        assert!(!path("nothing").exists());
        assert!(check(&path("absent")).is_ok());
    }

    #[test]
    fn a_file_that_is_made_is_for_its_owner_only_and_one_that_is_there_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        drop(open_or_make(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "there").unwrap();
        drop(open_or_make(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "there");
        assert_eq!(make(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
