//! `runwatch state backup`: copies the daemon's state into a file, whether a daemon runs or not.
//!
//! A running daemon has the state locked, so it sends a copy. Otherwise the files are copied and stay unchanged. The backup is
//! readable for this user only, and replaces a file only with `--force`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::exit::Exit;
use super::flags::Global;
use super::out::Out;
use super::setup::{environment, path_variable};
use super::socket::{Failure, candidates, end};
use crate::control::{Client, ClientError};
use crate::store::{StoreErrorKind, copy_unused, is_copy};
use crate::{config, daemon};

/// `runwatch state …`.
#[derive(Debug, Subcommand)]
pub enum StateVerb {
    /// Copy the daemon's state into a file, also while it runs
    Backup(BackupArgs),
}

/// `runwatch state backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to make
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Replace the file if it is an older backup
    #[arg(long)]
    force: bool,

    /// State directory of a daemon that does not run
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Makes the copy, and prints its size.
pub(super) async fn run(out: &Out, global: &Global, args: &BackupArgs) -> Exit {
    let mut file = match Target::make(&args.file, args.force) {
        Ok(file) => file,
        Err(error) => return refused(out, &args.file, &error),
    };
    end(out, backup(out, global, args, &mut file).await)
}

async fn backup(out: &Out, global: &Global, args: &BackupArgs, to: &mut Target) -> Result<Exit, Failure> {
    if let Some(dir) = &args.state_dir {
        return Ok(copy(out, dir, args, to));
    }
    // The configuration says only where the state is.
    let loaded = config::load(global.config(), &environment, &global.overrides(None)).ok();
    let state_dir = loaded.and_then(|loaded| loaded.config.state_dir);
    let client = match Client::connect(&candidates(state_dir.as_deref())).await {
        Ok(client) => client,
        Err(error @ ClientError::NoDaemon(_)) => {
            let dir = daemon::directory(state_dir.as_deref(), &path_variable);
            return match dir.filter(|dir| daemon::database(dir).exists()) {
                Some(dir) => Ok(copy(out, &dir, args, to)),
                None => Err(error.into()),
            };
        }
        Err(error) => return Err(error.into()),
    };
    match client.backup(&mut to.file).await {
        // What says that it is a daemon is not believed: a backup is looked at when it is too late to make another.
        Ok(_) if !is_copy(&to.path) => Err(client.no_state().into()),
        Ok(_) => Ok(finish(out, args, to)),
        Err(ClientError::Write(error)) => Ok(refused(out, &args.file, &error)),
        Err(error) => Err(error.into()),
    }
}

/// The state of a daemon that does not run.
fn copy(out: &Out, dir: &Path, args: &BackupArgs, to: &mut Target) -> Exit {
    let database = daemon::database(dir);
    match copy_unused(&database, &to.path) {
        Ok(()) => finish(out, args, to),
        Err(error) => {
            let hint = match error.kind {
                StoreErrorKind::Busy => {
                    "; a daemon has it, and its socket is not where this command looks: set RUNWATCH_SOCKET"
                }
                _ => "",
            };
            out.error(format_args!("cannot back up {}: {error}{hint}", database.display()));
            Exit::Internal
        }
    }
}

fn finish(out: &Out, args: &BackupArgs, to: &mut Target) -> Exit {
    match to.finish(&args.file) {
        Ok(length) => {
            out.say(&format!("{} has the state ({length} bytes)", args.file.display()));
            out.finish();
            Exit::Succeeded
        }
        Err(error) => refused(out, &args.file, &error),
    }
}

fn refused(out: &Out, file: &Path, error: &io::Error) -> Exit {
    if error.kind() == io::ErrorKind::AlreadyExists {
        out.error(format_args!(
            "{} already exists; use another name, or --force to replace an older backup",
            file.display()
        ));
        return Exit::Usage;
    }
    out.error(format_args!("cannot write {}: {error}", file.display()));
    Exit::Internal
}

/// The file while it is written, under a temporary name. It is renamed when it is complete.
struct Target {
    path: PathBuf,
    file: File,
    replaces: bool,
    is_finished: bool,
}

impl Target {
    fn make(place: &Path, replaces: bool) -> io::Result<Self> {
        if !replaces && place.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if replaces {
            may_replace(place)?;
        }
        let mut path = place.to_owned();
        path.as_mut_os_string().push(format!(".part-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file, replaces, is_finished: false })
    }

    /// Syncs the file and renames it; returns its length.
    fn finish(&mut self, place: &Path) -> io::Result<u64> {
        self.file.sync_all()?;
        if self.replaces {
            std::fs::rename(&self.path, place)?;
        } else {
            rename_new(&self.path, place)?;
        }
        self.is_finished = true;
        Ok(self.file.metadata()?.len())
    }
}

/// Only another backup is replaced: not somebody's file, and none of the files of a daemon's state.
fn may_replace(place: &Path) -> io::Result<()> {
    let metadata = match place.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let refuse = |why: &str| {
        let message = format!("{why}, which --force does not replace; use another name");
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    };
    if !metadata.is_file() {
        return refuse("it is not a regular file");
    }
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let is_state = name.starts_with("runwatch.") && place.with_file_name("runwatch.lock").exists();
    if is_state {
        return refuse("it is part of a daemon's state");
    }
    // Nothing is lost with an empty file.
    if metadata.len() == 0 || is_copy(place) { Ok(()) } else { refuse("it is not a backup of a state") }
}

/// Renames a file; fails if the new name exists.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot do that.
        Err(Errno::INVAL | Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.is_finished {
            // Nobody is to take a part of a copy for one.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
