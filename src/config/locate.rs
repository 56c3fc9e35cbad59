//! Which configuration file is meant, and whether there is one: a file that cannot be seen is not a file that is not there.

use std::io;
use std::path::{Path, PathBuf};

use super::Environment;

/// Where the machine's configuration is.
const SYSTEM: &str = "/etc/runwatch/config.toml";

/// What became of looking for the file.
#[derive(Debug)]
pub enum Located {
    /// Somebody named it.
    Named(PathBuf),
    /// It is where a configuration is looked for.
    Found(PathBuf),
    /// There is none; these are the places.
    Nowhere(Vec<PathBuf>),
    /// Whether there is one at this place cannot be told.
    Hidden(PathBuf, io::Error),
}

impl Located {
    /// The place that was decided on.
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
/// `/etc/runwatch/config.toml`. Looking stops at the first place that has anything, or that cannot be looked at.
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
        // A link to nothing was meant to be a configuration, too.
        match path.symlink_metadata() {
            Ok(_) => return Located::Found(path.clone()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Located::Hidden(path.clone(), error),
        }
    }
    Located::Nowhere(places)
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
        // A relative XDG_CONFIG_HOME is invalid by its specification and does not count.
        assert_eq!(locate(None, &[("XDG_CONFIG_HOME", "rel")]), found(&file));
        // What is no file, or leads nowhere, is still in the way of the next place.
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/nowhere", &file).unwrap();
        assert_eq!(locate(None, &[]), found(&file));
        // A place that cannot be looked at is not an empty one. (A loop stops root, too.)
        std::fs::remove_dir_all(home.path().join(".config")).unwrap();
        std::os::unix::fs::symlink(".config", home.path().join(".config")).unwrap();
        assert!(locate(None, &[]).starts_with("Hidden"), "{}", locate(None, &[]));
    }
}
