//! The daemon's socket in the file system: creates it, and removes nothing else.
//!
//! The socket is made in a directory that nobody else can enter, and then renamed into place. So others can never
//! connect while its permissions are not set. An existing file is replaced only if it is a socket of this user that
//! nobody listens on.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Maximum length of a socket's path, in bytes.
const LONGEST: usize = 107;

/// Maximum number of names tried for the directory.
const NAMES: usize = 16;

/// The location of a socket that runwatch made.
#[derive(Debug, Clone)]
pub struct Place {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Place {
    /// Whether the socket is still there.
    pub(super) fn is_taken(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Makes the socket again if it is not there any more. Blocks.
    pub fn restore(&self, mode: u32) -> io::Result<Option<Opened>> {
        if self.is_taken() { Ok(None) } else { listen(&self.path, mode).map(Some) }
    }

    /// Removes the socket, unless something else has replaced it.
    pub(super) fn clear(&self) {
        if self.is_taken() {
            // It may be gone already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket in place that is not served yet.
#[derive(Debug)]
pub struct Opened {
    pub(super) listener: UnixListener,
    pub(super) place: Place,
}

/// Listens at a path with these permissions. Makes missing directories, for this user only.
pub(super) fn listen(path: &Path, mode: u32) -> io::Result<Opened> {
    let length = path.as_os_str().as_bytes().len();
    if length > LONGEST {
        return Err(invalid(format!("the path has {length} bytes, and a socket's may have {LONGEST}")));
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let is_stale = check(path)?;
    let private = Private::new(dir)?;
    let new = private.path.join("s");
    let listener = bind(&private, &new)?;
    std::fs::set_permissions(&new, Permissions::from_mode(mode))?;
    let file = identity(&new)?;
    if is_stale {
        std::fs::remove_file(path)?;
    }
    match renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE) {
        // The file system does not support a rename that never replaces a file.
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(&new, path)?,
        renamed => renamed?,
    }
    Ok(Opened { listener, place: Place { path: path.to_owned(), file } })
}

/// Whether there is a socket that nobody listens on; an error for anything else.
fn check(path: &Path) -> io::Result<bool> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        let what = if metadata.is_dir() {
            "a directory"
        } else if metadata.is_symlink() {
            "a symbolic link"
        } else {
            "a file"
        };
        return Err(invalid(format!(
            "there is {what} already, which is not replaced; remove it, or set RUNWATCH_SOCKET to another path"
        )));
    }
    let (owner, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != own && own != 0 {
        return Err(invalid(format!("the socket there belongs to another user (uid {owner})")));
    }
    if is_listened_on(path)? {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon listens there"));
    }
    Ok(true)
}

/// Whether anyone listens, even without accepting. A blocking connection would wait for them.
fn is_listened_on(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => Ok(true),
        // A socket of another type has no such listener.
        Err(Errno::CONNREFUSED | Errno::NOENT | Errno::PROTOTYPE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A directory that nobody else can enter; removed when dropped.
struct Private {
    path: PathBuf,
}

impl Private {
    fn new(dir: &Path) -> io::Result<Self> {
        for _ in 0..NAMES {
            // The name need not be secret.
            let path = dir.join(format!(".rw{:06x}", fastrand::u32(..1 << 24)));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // Also removes a socket that was not moved into place.
        let _ = std::fs::remove_file(self.path.join("s"));
        let _ = std::fs::remove_dir(&self.path);
    }
}

fn bind(private: &Private, new: &Path) -> io::Result<UnixListener> {
    if new.as_os_str().as_bytes().len() <= LONGEST {
        return UnixListener::bind(new);
    }
    // The path in the private directory is longer than the final one. This gives a shorter one.
    let dir = File::open(&private.path)?;
    UnixListener::bind(format!("/proc/self/fd/{}/s", dir.as_raw_fd()))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_socket_is_made_with_its_mode_and_taken_away_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/sock");
        for mode in [0o600, 0o660] {
            let Opened { listener: _listener, place } = listen(&path, mode).unwrap();
            assert_eq!(path.symlink_metadata().unwrap().mode() & 0o777, mode);
            assert_eq!(dir.path().join("a").metadata().unwrap().mode() & 0o777, 0o700);
            assert_eq!(names(path.parent().unwrap()), ["sock"]);
            assert!(UnixStream::connect(&path).is_ok() && place.is_taken());
            place.clear();
            assert!(!path.exists() && !place.is_taken());
        }
    }

    #[test]
    fn a_socket_that_has_gone_is_restored_and_no_other_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/sock");
        let Opened { listener: _first, place } = listen(&path, 0o600).unwrap();
        assert!(place.restore(0o600).unwrap().is_none());
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        let again = place.restore(0o660).unwrap().unwrap();
        assert_eq!(path.symlink_metadata().unwrap().mode() & 0o777, 0o660);
        assert!(UnixStream::connect(&path).is_ok() && again.place.is_taken() && !place.is_taken());
        // It belongs to another daemon, or is a file.
        std::fs::remove_file(&path).unwrap();
        let theirs = listen(&path, 0o600).unwrap();
        assert_eq!(again.place.restore(0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(theirs.place.is_taken());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        assert!(again.place.restore(0o600).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "theirs").unwrap();
        std::fs::create_dir(path("dir")).unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        for (name, what) in [("file", "a file"), ("dir", "a directory"), ("link", "a symbolic link")] {
            let error = listen(&path(name), 0o600).unwrap_err().to_string();
            assert!(error.contains(&format!("there is {what} already")), "{name}: {error}");
        }
        assert_eq!(std::fs::read_to_string(path("link")).unwrap(), "theirs");
        let Opened { listener, place: old } = listen(&path("sock"), 0o600).unwrap();
        let error = listen(&path("sock"), 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // A listener with a full queue counts too.
        let fill = |path: &Path| {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None);
            let socket = socket.unwrap();
            connect(&socket, &SocketAddrUnix::new(path).unwrap()).map(|()| socket)
        };
        let mut waiting = Vec::new();
        while let Ok(socket) = fill(&path("sock")) {
            waiting.push(socket);
            assert!(waiting.len() < 100_000);
        }
        assert_eq!(listen(&path("sock"), 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let Opened { listener: _new, place } = listen(&path("sock"), 0o600).unwrap();
        old.clear();
        assert!(place.is_taken(), "it is another's by now");
        let mut left = names(dir.path());
        left.sort();
        assert_eq!(left, ["dir", "file", "link", "sock"]);
    }

    #[test]
    fn a_path_is_as_long_as_an_address_has_room_for() {
        let dir = tempfile::tempdir().unwrap();
        let length = |path: &Path| path.as_os_str().len();
        let deep = dir.path().join("d".repeat(LONGEST - length(dir.path()) - 3));
        let path = deep.join("s");
        assert_eq!(length(&path), LONGEST);
        let Opened { listener: _listener, place } = listen(&path, 0o600).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        place.clear();
        let error = listen(&deep.join("so"), 0o600).unwrap_err().to_string();
        assert!(error.contains("108 bytes"), "{error}");
    }
}
