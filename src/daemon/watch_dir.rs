//! A directory in which a file whose name is a run id has that run watched, for scripts without the binary.
//!
//! The files stay where they are: whoever made one may remove it. What is in it does not matter.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use tokio::io::unix::AsyncFd;
use tracing::warn;

use crate::run::RunId;

/// Waits for files.
pub(super) struct WatchDir {
    dir: PathBuf,
    inotify: AsyncFd<OwnedFd>,
}

impl WatchDir {
    /// Watches a directory, which is made if it is not there.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        add_watch(&inotify, dir, WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
        #[expect(
            deprecated,
            reason = "what replaces it is `unsafe`; this descriptor is owned and never replaced"
        )]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Self { dir: dir.to_owned(), inotify })
    }

    /// The runs whose files are there now.
    pub(super) fn scan(&self) -> io::Result<Vec<RunId>> {
        let mut runs = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                runs.extend(run_of(&entry.file_name()));
            }
        }
        Ok(runs)
    }

    /// Waits for files; gives their runs.
    pub(super) async fn next(&mut self) -> io::Result<Vec<RunId>> {
        loop {
            let mut guard = self.inotify.readable().await?;
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(self.inotify.get_ref(), &mut buffer);
            let mut runs = Vec::new();
            let mut missed = false;
            loop {
                match reader.next() {
                    Ok(event) => {
                        let flags = event.events();
                        if flags.contains(ReadFlags::IGNORED) {
                            return Err(io::Error::new(io::ErrorKind::NotFound, "the directory is gone"));
                        }
                        missed |= flags.contains(ReadFlags::QUEUE_OVERFLOW);
                        if flags.contains(ReadFlags::ISDIR) {
                            continue;
                        }
                        let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                        runs.extend(name.and_then(run_of));
                    }
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            guard.clear_ready();
            drop(guard);
            if missed {
                return self.scan();
            }
            if !runs.is_empty() {
                return Ok(runs);
            }
        }
    }
}

/// The run that a file is about. Hidden and unfinished files (`.x`, `x~`, `x.tmp`, `x.part`) are about none.
fn run_of(name: &OsStr) -> Option<RunId> {
    let text = name.to_str()?;
    if text.starts_with('.') || [".tmp", ".part", "~"].iter().any(|end| text.ends_with(end)) {
        return None;
    }
    text.parse().inspect_err(|error| warn!("a file in the watched directory is passed over: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_that_were_there_and_files_that_come() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool");
        let mut watch = WatchDir::new(&spool).unwrap();
        for name in ["a", ".hidden", "b.tmp", "two words"] {
            std::fs::write(spool.join(name), "").unwrap();
        }
        std::fs::create_dir(spool.join("directory")).unwrap();
        let ids = |runs: Vec<RunId>| runs.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(ids(watch.scan().unwrap()), ["a"]);
        assert_eq!(ids(watch.next().await.unwrap()), ["a"]);
        std::fs::rename(spool.join("b.tmp"), spool.join("b")).unwrap();
        assert_eq!(ids(watch.next().await.unwrap()), ["b"]);
        std::fs::remove_dir_all(&spool).unwrap();
        assert!(watch.next().await.is_err(), "nothing more will come");
    }
}
