//! The kernel's events of one directory (inotify).

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::{Errno, Result};

/// Events of the directory that a path leads to.
pub(super) struct Events {
    inotify: OwnedFd,
    /// The watch of the directory that the path led to last.
    watch: i32,
}

/// What events brought.
#[derive(Default)]
pub(super) struct Batch {
    /// Entries that came, but for directories.
    pub(super) names: Vec<OsString>,
    /// Only a listing can tell what else came.
    pub(super) must_list: bool,
}

impl Events {
    /// Begins with the directory that the path leads to now.
    pub(super) fn of(dir: &Path) -> Result<Self> {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let watch = add(&inotify, dir)?;
        Ok(Self { inotify, watch })
    }

    /// Goes on with the directory that the path leads to now; whether it is another than before.
    pub(super) fn follow(&mut self, dir: &Path) -> Result<bool> {
        // The same directory has the same watch.
        let watch = add(&self.inotify, dir)?;
        let is_another = watch != self.watch;
        if is_another {
            // Its directory is gone, perhaps, and the watch with it.
            let _ = remove_watch(&self.inotify, self.watch);
        }
        self.watch = watch;
        Ok(is_another)
    }

    /// Waits until there are events, this long at most, and reads them.
    pub(super) fn wait(&self, bound: Duration) -> Result<Batch> {
        // Its seconds are few.
        let bound = Timespec::try_from(bound).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // Broken off by a signal is as good as over.
        let _ = poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&bound));
        // Since it was moved away, events are of a directory that the path does not lead to, as far as is known.
        let (mut batch, mut moved) = (Batch::default(), false);
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => batch.must_list = true,
                Ok(event) if event.wd() != self.watch => {}
                Ok(event) if event.events().contains(ReadFlags::MOVE_SELF) => moved = true,
                Ok(_) if moved => {}
                Ok(event) if event.events().contains(ReadFlags::ISDIR) => {}
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    batch.names.extend(name);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        batch.must_list |= moved;
        Ok(batch)
    }

    /// Loses what has come, as a file system without events would.
    #[cfg(test)]
    pub(super) fn lose(&self) {
        rustix::io::read(&self.inotify, &mut [0; 4096]).unwrap();
    }
}

fn add(inotify: &OwnedFd, dir: &Path) -> Result<i32> {
    let what = WatchFlags::CREATE | WatchFlags::MOVED_TO;
    // Its own end and its renaming wake the thread, which then looks where the path leads.
    let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
    add_watch(inotify, dir, what | itself)
}
