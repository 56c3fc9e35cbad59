//! Where secrets are kept: a systemd credential, a file, or the environment. Never the command line.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Environment;
use crate::secret::Secret;

/// The credential's name in `LoadCredential=`.
const CREDENTIAL: &str = "dataframer-api-key";

/// The variable that the official SDK reads.
const VARIABLE: &str = "DATAFRAMER_API_KEY";

/// Where the API key is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file: `api_key_file`, or `$CREDENTIALS_DIRECTORY/dataframer-api-key`.
    File(PathBuf),
    /// `DATAFRAMER_API_KEY`, as it was when the program started.
    Environment(Option<Secret>),
}

impl KeySource {
    /// The first of: the credential, the file, the environment.
    pub(super) fn find(file: Option<PathBuf>, env: Environment<'_>) -> Self {
        let credential = env("CREDENTIALS_DIRECTORY").map(|dir| Path::new(&dir).join(CREDENTIAL));
        match credential.filter(|path| path.exists()).or(file) {
            Some(path) => Self::File(path),
            None => Self::Environment(env(VARIABLE).map(Secret::new)),
        }
    }

    /// Reads the key. The error says what is wrong and what to do; it never contains the key.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::File(path) => read_file(path, "API key"),
            Self::Environment(Some(key)) => whole(key.expose())
                .map_err(|what| format!("{VARIABLE} {what}; set it to your DataFramer API key")),
            Self::Environment(None) => {
                Err(format!("there is no API key: set {VARIABLE}, or api_key_file in the configuration"))
            }
        }
    }
}

/// Reads a secret from a file: one line, white space around it does not count.
pub(super) fn read_file(path: &Path, what: &str) -> Result<Secret, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the {what} from {shown}: {error}"))?;
    whole(&text).map_err(|wrong| format!("the {what} file {shown} {wrong}; expected the secret on one line"))
}

/// What is to be read for a file that the configuration names: under systemd the credential of that name, if there is one.
/// So one configuration serves the service, which may not read the file, and whoever may.
pub(super) fn credential_or(path: &Path, env: Environment<'_>) -> PathBuf {
    let credential = |dir: String| Some(Path::new(&dir).join(path.file_name()?));
    let credential = env("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty()).and_then(credential);
    credential.filter(|path| path.exists()).unwrap_or_else(|| path.to_owned())
}

/// Others than the owner and the group can read it.
pub(super) fn is_world_readable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

fn whole(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        Err("is empty")
    } else if text.chars().any(char::is_control) {
        Err("has more than one line or control characters in it")
    } else {
        Ok(Secret::new(text))
    }
}
