//! Finds the configuration file. A file that cannot be accessed does not count as missing.

use std::io;
use std::path::{Path, PathBuf};

use super::Environment;

/// The system-wide configuration.
const SYSTEM: &str = "/etc/runwatch/config.toml";

/// The result of the search.
#[derive(Debug)]
pub enum Located {
    /// The user named it.
    Named(PathBuf),
    /// Found at a default place.
    Found(PathBuf),
    /// There is none; these places were checked.
    Nowhere(Vec<PathBuf>),
    /// It is unknown whether there is a file at this place.
    Hidden(PathBuf, io::Error),
}

impl Located {
    /// The chosen path.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Named(path) | Self::Found(path) | Self::Hidden(path, _) => Some(path),
            Self::Nowhere(_) => None,
        }
    }
}

/// The file to read.
///
/// In order: `--config`, `$RUNWATCH_CONFIG`, `$XDG_CONFIG_HOME/runwatch/config.toml` (`~/.config` by default),
/// `/etc/runwatch/config.toml`. The search stops at the first place that has anything, or that cannot be accessed.
pub fn locate(flag: Option<&Path>, env: Environment<'_>) -> Located {
    locate_with(flag, env, Path::new(SYSTEM))
}

fn locate_with(flag: Option<&Path>, env: Environment<'_>, system: &Path) -> Located {
    let set = |name: &str| env(name).filter(|text| !text.is_empty());
    if let Some(path) = flag.map(Path::to_owned).or_else(|| set("RUNWATCH_CONFIG").map(PathBuf::from)) {
        return Located::Named(path);
    }
    let absolute = |text: String| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    let config_home = env("XDG_CONFIG_HOME")
        .and_then(absolute)
        .or_else(|| env("HOME").and_then(absolute).map(|home| home.join(".config")));
    let own = config_home.map(|dir| dir.join("runwatch/config.toml"));
    let places: Vec<PathBuf> = own.into_iter().chain([system.to_owned()]).collect();
    for path in &places {
        // A broken link counts too, because it was meant to be a configuration.
        match path.symlink_metadata() {
            Ok(_) => return Located::Found(path.clone()),
            Err(_) if path.ancestors().any(is_link_to_nothing) => return Located::Found(path.clone()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Located::Hidden(path.clone(), error),
        }
    }
    Located::Nowhere(places)
}

fn is_link_to_nothing(path: &Path) -> bool {
    path.is_symlink() && path.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_where_the_readme_says() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".config/runwatch/config.toml");
        let system = home.path().join("system.toml");
        let home_text = home.path().to_str().unwrap().to_owned();
        let env = |set: &'static [(&'static str, &'static str)]| {
            let home = home_text.clone();
            move |name: &str| match set.iter().find(|(key, _)| *key == name) {
                Some((_, value)) => Some((*value).to_owned()),
                None if name == "HOME" => Some(home.clone()),
                None => None,
            }
        };
        let locate =
            |flag: Option<&str>, set| format!("{:?}", locate_with(flag.map(Path::new), &env(set), &system));
        let found = |path: &Path| format!("{:?}", Located::Found(path.to_owned()));
        let named = |path: &str| format!("{:?}", Located::Named(path.into()));
        assert_eq!(locate(None, &[]), format!("{:?}", Located::Nowhere(vec![file.clone(), system.clone()])));
        std::fs::write(&system, "").unwrap();
        assert_eq!(locate(None, &[]), found(&system));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(locate(None, &[]), found(&file));
        assert_eq!(locate(Some("x"), &[("RUNWATCH_CONFIG", "y")]), named("x"));
        assert_eq!(locate(None, &[("RUNWATCH_CONFIG", "y")]), named("y"));
        // A relative XDG_CONFIG_HOME is invalid by its specification and is ignored.
        assert_eq!(locate(None, &[("XDG_CONFIG_HOME", "rel")]), found(&file));
        // Something other than a file, or a broken link, stops the search too.
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/nowhere", &file).unwrap();
        assert_eq!(locate(None, &[]), found(&file));
        // A broken link to the directory counts too, because its file system may not be mounted yet.
        std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/nowhere", file.parent().unwrap()).unwrap();
        assert_eq!(locate(None, &[]), found(&file));
        // A place that cannot be accessed is not an empty one. (A loop stops root too.)
        std::fs::remove_dir_all(home.path().join(".config")).unwrap();
        std::os::unix::fs::symlink(".config", home.path().join(".config")).unwrap();
        assert!(locate(None, &[]).starts_with("Hidden"), "{}", locate(None, &[]));
    }
}
