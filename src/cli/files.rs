//! The result files of a wait: `--junit` and `--summary`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::exit::Exit;
use super::verdict::Judged;
use super::{junit, out, output_file, summary};

/// The files. They are opened before the wait, so that a path that cannot be written is refused at once.
pub(super) struct Files {
    junit: Option<(PathBuf, File)>,
    summary: Option<(PathBuf, File)>,
}

impl Files {
    /// Opens and empties them, so that after a kill an older result is not mistaken for this one.
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
    let file = output_file::create(path).map_err(|error| {
        out::error(format_args!("cannot write {}: {error}", path.display()));
        Exit::Usage
    })?;
    Ok((path.to_owned(), file))
}

fn write(file: &mut Option<(PathBuf, File)>, text: impl FnOnce() -> String) -> Result<(), Exit> {
    let Some((path, file)) = file else { return Ok(()) };
    file.write_all(text().as_bytes()).and_then(|()| file.flush()).map_err(|error| {
        out::error(format_args!("cannot write {}: {error}", path.display()));
        Exit::Internal
    })
}
