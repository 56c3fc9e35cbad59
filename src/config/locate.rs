//! Which configuration file is meant.

use std::path::{Path, PathBuf};

use super::Environment;

/// The file to read, and whether somebody asked for it by name (then it must be there).
///
/// In order: `--config`, `$RUNWATCH_CONFIG`, `$XDG_CONFIG_HOME/runwatch/config.toml` (`~/.config` by default),
/// `/etc/runwatch/config.toml`. `None` if there is none: the defaults are a configuration too.
pub fn locate(flag: Option<&Path>, env: Environment<'_>) -> Option<(PathBuf, bool)> {
    let set = |name: &str| env(name).filter(|text| !text.is_empty());
    let named = flag.map(Path::to_owned).or_else(|| set("RUNWATCH_CONFIG").map(PathBuf::from));
    if let Some(path) = named {
        return Some((path, true));
    }
    let absolute = |text: String| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    let config_home = env("XDG_CONFIG_HOME")
        .and_then(absolute)
        .or_else(|| env("HOME").and_then(absolute).map(|home| home.join(".config")));
    let candidates =
        [config_home.map(|dir| dir.join("runwatch/config.toml")), Some("/etc/runwatch/config.toml".into())];
    candidates.into_iter().flatten().find(|path| path.is_file()).map(|path| (path, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_where_the_readme_says() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".config/runwatch/config.toml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        let home_text = home.path().to_str().unwrap().to_owned();
        let env = |set: &'static [(&'static str, &'static str)]| {
            let home = home_text.clone();
            move |name: &str| match set.iter().find(|(key, _)| *key == name) {
                Some((_, value)) => Some((*value).to_owned()),
                None if name == "HOME" => Some(home.clone()),
                None => None,
            }
        };
        assert_eq!(locate(None, &env(&[])), Some((file.clone(), false)));
        assert_eq!(locate(Some(Path::new("x")), &env(&[("RUNWATCH_CONFIG", "y")])), Some(("x".into(), true)));
        assert_eq!(locate(None, &env(&[("RUNWATCH_CONFIG", "y")])), Some(("y".into(), true)));
        // A relative XDG_CONFIG_HOME is invalid by its specification and does not count.
        assert_eq!(locate(None, &env(&[("XDG_CONFIG_HOME", "rel")])), Some((file, false)));
    }
}
