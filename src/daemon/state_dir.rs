//! The state directory itself: made for its owner only, and rejected if others could tamper with it.
//!
//! Rejects a directory of another user, one that everybody may write to or rename, and a symbolic link of another user. A link of
//! root's is fine: systemd makes one for a service with `DynamicUser=`.

use std::fmt;
use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

/// Why a directory cannot be used.
#[derive(Debug)]
pub(super) enum Unfit {
    /// A person has to fix it; the text says how.
    Refused(String),
    /// The file system fails, perhaps temporarily.
    Failed(io::Error),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => f.write_str(why),
            Self::Failed(error) => write!(f, "{error}"),
        }
    }
}

/// Makes the directory if it is missing, and checks that it can be trusted.
pub(super) fn prepare(dir: &Path) -> Result<(), Unfit> {
    if let Some(why) = untrusted_above(dir) {
        return Err(Unfit::Refused(why));
    }
    // Other users must not read its content.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| explained(dir, error))?;
    let link = std::fs::symlink_metadata(dir).map_err(Unfit::Failed)?;
    let target = std::fs::metadata(dir).map_err(Unfit::Failed)?;
    distrusted(&link, &target).map_or(Ok(()), |why| Err(Unfit::Refused(why)))
}

/// Why the directory, or the link to it, cannot be trusted, and what to do.
fn distrusted(link: &Metadata, target: &Metadata) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    let is_trusted = |owner: u32| owner == own || owner == 0;
    if link.is_symlink() && !is_trusted(link.uid()) {
        return Some(format!(
            "it is a symbolic link of another user's (uid {}); remove it, or use another state directory",
            link.uid()
        ));
    }
    if !is_trusted(target.uid()) {
        return Some(format!(
            "it belongs to another user (uid {}; this process has {own}); run as that user, or use another state directory",
            target.uid()
        ));
    }
    let mode = target.mode() & 0o7777;
    (mode & 0o002 != 0).then(|| {
        format!("everybody may write to it (mode {mode:04o}); chmod o-w it, or use a directory below it")
    })
}

/// Why a directory above, or above a link to it, cannot be trusted: everybody may rename what is in it. In one with the
/// sticky bit, such as /tmp, only the owner may.
fn untrusted_above(dir: &Path) -> Option<String> {
    let named = std::path::absolute(dir).ok()?;
    let target = named.ancestors().find_map(|above| above.canonicalize().ok());
    let above_target = target.as_deref().into_iter().flat_map(|target| {
        // What exists of it may be a directory above already.
        target.ancestors().skip(usize::from(dir.exists()))
    });
    named.ancestors().skip(1).chain(above_target).find_map(|above| {
        let mode = std::fs::metadata(above).ok()?.mode() & 0o7777;
        (mode & 0o1002 == 0o002).then(|| {
            format!(
                "everybody may write to {} (mode {mode:04o}) and could replace what is below it; chmod o-w it, or use \
                 another state directory",
                above.display()
            )
        })
    })
}

/// Explains an error whose text does not say what is wrong with a directory.
fn explained(dir: &Path, error: io::Error) -> Unfit {
    use io::ErrorKind as Kind;
    Unfit::Refused(match error.kind() {
        Kind::AlreadyExists if dir.is_symlink() => {
            "it is a symbolic link to nothing; make the directory it names, or remove it".to_owned()
        }
        Kind::AlreadyExists => "it is a file, not a directory".to_owned(),
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::NotADirectory | Kind::InvalidFilename => {
            error.to_string()
        }
        _ => return Unfit::Failed(error),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_directory_that_is_made_is_its_owners_only() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        prepare(&state).unwrap();
        for made in [dir.path().join("a"), state] {
            assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_directory_that_everybody_could_rename_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (above, link) = (dir.path().join("above"), dir.path().join("link"));
        let state = above.join("deep/state");
        std::fs::create_dir_all(&state).unwrap();
        symlink(&state, &link).unwrap();
        for (mode, refused) in [(0o777, true), (0o757, true), (0o1777, false), (0o775, false)] {
            std::fs::set_permissions(&above, Permissions::from_mode(mode)).unwrap();
            for path in [&state, &link, &above.join("new")] {
                let prepared = prepare(path);
                assert_eq!(prepared.is_err(), refused, "{mode:o}: {prepared:?}");
            }
        }
    }

    #[test]
    fn what_others_could_tamper_with_is_refused_and_links_of_our_own_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (state, link, file) =
            (dir.path().join("state"), dir.path().join("link"), dir.path().join("file"));
        std::fs::create_dir(&state).unwrap();
        symlink(&state, &link).unwrap();
        std::fs::write(&file, "").unwrap();
        for (mode, refused) in
            [(0o700, false), (0o755, false), (0o2770, false), (0o777, true), (0o1777, true)]
        {
            std::fs::set_permissions(&state, Permissions::from_mode(mode)).unwrap();
            for path in [&state, &link] {
                let prepared = prepare(path);
                assert_eq!(prepared.is_err(), refused, "{mode:o}: {prepared:?}");
                if let Err(why) = prepared.map_err(|why| why.to_string()) {
                    assert!(why.contains("everybody may write to it"), "{why}");
                }
            }
        }
        assert!(prepare(&file).unwrap_err().to_string().contains("a file"));
        symlink(dir.path().join("nothing"), dir.path().join("dangling")).unwrap();
        let dangling = prepare(&dir.path().join("dangling")).unwrap_err().to_string();
        assert!(dangling.contains("a symbolic link to nothing"), "{dangling}");
    }
}
