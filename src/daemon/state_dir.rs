//! The state directory itself: made for its owner only, and refused where others could tamper with what is in it.
//!
//! Refused are a directory of another user, one that everybody may write to, and a link that another user made. A link of
//! root's is fine: systemd makes one for a service with `DynamicUser=`.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

/// Makes the directory if it is not there, and looks whether it can be trusted. The error says what to do.
pub(super) fn prepare(dir: &Path) -> Result<(), String> {
    // Others have no business with what is in there.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| explained(dir, &error))?;
    let own = rustix::process::geteuid().as_raw();
    let is_trusted = |owner: u32| owner == own || owner == 0;
    let link = std::fs::symlink_metadata(dir).map_err(|error| error.to_string())?;
    if link.is_symlink() && !is_trusted(link.uid()) {
        return Err(format!(
            "it is a symbolic link of another user's (uid {}); remove it, or use another state directory",
            link.uid()
        ));
    }
    let target = std::fs::metadata(dir).map_err(|error| error.to_string())?;
    if !is_trusted(target.uid()) {
        return Err(format!(
            "it belongs to another user (uid {}; this process has {own}); run as that user, or use another state directory",
            target.uid()
        ));
    }
    if target.mode() & 0o002 != 0 {
        return Err(format!(
            "everybody may write to it (mode {:04o}); chmod o-w it, or use a directory below it",
            target.mode() & 0o7777
        ));
    }
    Ok(())
}

/// What stands in the way of a directory, where that is not clear from the error.
fn explained(dir: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AlreadyExists if dir.is_symlink() => {
            "it is a symbolic link to nothing; make the directory it names, or remove it".to_owned()
        }
        io::ErrorKind::AlreadyExists => "it is a file, not a directory".to_owned(),
        _ => error.to_string(),
    }
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
                if let Err(why) = prepared {
                    assert!(why.contains("everybody may write to it"), "{why}");
                }
            }
        }
        assert!(prepare(&file).unwrap_err().contains("a file"));
        symlink(dir.path().join("nothing"), dir.path().join("dangling")).unwrap();
        assert!(prepare(&dir.path().join("dangling")).unwrap_err().contains("a symbolic link to nothing"));
    }
}
