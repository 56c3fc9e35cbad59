//! Reads secrets from a systemd credential, a file, or the environment; never from the command line.
//!
//! Owns the checks of a secret's text, with messages that never show any of it.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{Environment, mask};
use crate::secret::Secret;
use crate::small_file;

/// The credential's name in `LoadCredential=`.
const CREDENTIAL: &str = "dataframer-api-key";

/// The variable that the official SDK reads.
const VARIABLE: &str = "DATAFRAMER_API_KEY";

/// Maximum length of the key in bytes, so that it fits into a header.
const LONGEST: usize = 4096;

/// The source of the API key.
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
            Self::File(path) => read_file(path, Kind::Key),
            Self::Environment(Some(key)) => check(key.expose(), Kind::Key)
                .map_err(|wrong| format!("{VARIABLE} {wrong}; expected your DataFramer API key alone")),
            Self::Environment(None) => {
                Err(format!("there is no API key: set {VARIABLE}, or api_key_file in the configuration"))
            }
        }
    }
}

/// The purpose of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The API key.
    Key,
    /// A webhook's URL.
    Url,
    /// A webhook's signing secret.
    Signing,
}

impl Kind {
    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Key => "API key",
            Self::Url => "webhook URL",
            Self::Signing => "webhook secret",
        }
    }
}

/// Reads a secret from a file: one line; surrounding white space is ignored.
pub(super) fn read_file(path: &Path, kind: Kind) -> Result<Secret, String> {
    let (what, shown) = (kind.name(), mask::path(path));
    let bytes = small_file::read(path, small_file::SMALL)
        .map_err(|error| format!("cannot read the {what} from {shown}: {error}"))?;
    let wrong = |wrong: &str| {
        format!("the {what} file {shown} {wrong}; expected nothing but the {what}, on one line")
    };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.contains(&0) {
        return Err(wrong("is UTF-16 or binary, not plain text: write it again as UTF-8"));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text"))?;
    check(&text, kind).map_err(|what| wrong(&what))
}

/// The file to read for one that the configuration names: under systemd, the credential of that name if it exists. So
/// one configuration works for the service, which cannot read the file, and for users who can.
pub(super) fn credential_or(path: &Path, env: Environment<'_>) -> PathBuf {
    let credential = |dir: String| Some(Path::new(&dir).join(path.file_name()?));
    let credential = env("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty()).and_then(credential);
    credential.filter(|path| path.exists()).unwrap_or_else(|| path.to_owned())
}

/// Whether this user is not allowed to read a file.
pub(super) fn is_denied(path: &Path) -> bool {
    small_file::read(path, small_file::SMALL)
        .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether users outside the owner and the group can read it.
pub(super) fn is_world_readable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// The secret, or what is wrong with the text, as in "the file … is empty". Most mistakes come from copying.
fn check(text: &str, kind: Kind) -> Result<Secret, String> {
    if text.starts_with('\u{feff}') {
        return Err("begins with a byte order mark: write it again as UTF-8 without one".to_owned());
    }
    let text = text.trim();
    let lines = text.lines().count();
    let says = |what: &str| Err(what.to_owned());
    if text.is_empty() {
        return says("is empty");
    }
    if text.contains("-----BEGIN") {
        return says("is a PEM file, such as a private key or a certificate");
    }
    if kind == Kind::Key && is_unexpanded(text) {
        return says("is the name of a variable or a command: nothing put its value in its place");
    }
    if text.starts_with(['{', '[']) || text.ends_with(['}', ']']) {
        return Err(format!("is JSON or has brackets around it, not the {} alone", kind.name()));
    }
    if let Some(name) = variable(text) {
        return Err(format!("begins with `{name}`: leave that out"));
    }
    if lines > 1 {
        return Err(format!("has more than one line: {lines} lines, with line breaks between them"));
    }
    if text.starts_with(QUOTES) || text.ends_with(QUOTES) {
        return says("has quotes around it: leave them out");
    }
    if let Some(scheme) = scheme(text).filter(|_| kind == Kind::Key) {
        return Err(format!("begins with `{scheme}`: leave that out, it is added to each request"));
    }
    if text.starts_with('<') || text.ends_with('>') {
        return says("has angle brackets around it: leave them out");
    }
    if let Some(command) = ["export ", "set ", "setenv "].into_iter().find(|with| text.starts_with(with)) {
        return Err(format!(
            "begins with `{command}`, as a line of a shell script: leave out all but the value"
        ));
    }
    if text.chars().any(char::is_control) {
        return says("has control characters in it");
    }
    if kind != Kind::Url && text.contains(' ') {
        return Err(format!("has spaces in it: {} words", text.split_whitespace().count()));
    }
    if kind != Kind::Url
        && let Some((at, _)) = text.chars().enumerate().find(|(_, c)| !c.is_ascii())
    {
        return Err(format!("has a character that is not ASCII in it (number {})", at + 1));
    }
    if text.len() > LONGEST {
        return Err(format!("is {} bytes long, more than {LONGEST}", text.len()));
    }
    if kind == Kind::Key && text.contains("://") {
        return says("is a URL");
    }
    Ok(Secret::new(text))
}

const QUOTES: [char; 9] = ['"', '\'', '`', '“', '”', '‘', '’', '«', '»'];

/// Whether the text is `$NAME`, `${NAME}`, `$(command)` or `%NAME%`, which no shell has read.
fn is_unexpanded(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    if let Some(name) = text.strip_prefix('%').and_then(|rest| rest.strip_suffix('%')) {
        return is_name(name);
    }
    let Some(rest) = text.strip_prefix('$') else { return false };
    is_name(rest)
        || (rest.starts_with('{') && rest.ends_with('}'))
        || (rest.starts_with('(') && rest.ends_with(')'))
}

/// `NAME=`, `export NAME=` or `name:` before a secret, as in a file of variables. Shows nothing of the secret.
fn variable(text: &str) -> Option<String> {
    let rest = text.strip_prefix("export ").map_or(text, str::trim_start);
    let (name, after) = rest.split_once(['=', ':'])?;
    let name = name.trim_end();
    let bare = name.trim_matches(QUOTES).to_ascii_uppercase().replace('-', "_");
    // Only certain names, so that no part of the secret is taken for one.
    let known =
        ["DATAFRAMER_API_KEY", "API_KEY", "APIKEY", "API_KEY_FILE", "KEY", "TOKEN", "API_TOKEN", "SECRET"];
    let known = known.contains(&bare.as_str())
        || ["WEBHOOK_SECRET", "WEBHOOK_URL", "SECRETS", "URL", "HOOK_URL", "DATAFRAMER_KEY", "DF_API_KEY"]
            .contains(&bare.as_str())
        || ["_KEY", "_TOKEN", "_SECRET", "_URL"].iter().any(|end| {
            bare.ends_with(end)
                && bare.len() <= 40
                && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        });
    if known && !after.trim().is_empty() && !after.starts_with("//") {
        let mark = &rest[rest.find(['=', ':'])?..][..1];
        let name = if mask::is_harmless(name) { name } else { "NAME" };
        return Some(format!("{name}{mark}"));
    }
    None
}

/// The scheme of an `Authorization` header before the key, or the header's own name.
fn scheme(text: &str) -> Option<&'static str> {
    let begins = |with: &str| text.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    ["Authorization:", "Bearer ", "Basic ", "Token ", "Bearer:"].into_iter().find(|with| begins(with))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_with_a_key_and_never_shows_it() {
        for (text, said) in [
            ("", "is empty"),
            (" \n\t", "is empty"),
            ("\u{feff}Kq8zX91vvT", "a byte order mark"),
            ("\"Kq8zX91vvT\"", "quotes around it"),
            ("'Kq8zX91vvT'", "quotes around it"),
            ("“Kq8zX91vvT”", "quotes around it"),
            ("Kq8zX91vvT\"", "quotes around it"),
            ("Bearer Kq8zX91vvT", "begins with `Bearer `"),
            ("bearer Kq8zX91vvT", "begins with `Bearer `"),
            ("Authorization: Bearer Kq8zX91vvT", "begins with `Authorization:`"),
            ("DATAFRAMER_API_KEY=Kq8zX91vvT", "begins with `DATAFRAMER_API_KEY=`"),
            ("export DATAFRAMER_API_KEY=\"Kq8zX91vvT\"", "begins with `DATAFRAMER_API_KEY=`"),
            ("api_key: Kq8zX91vvT", "begins with `api_key:`"),
            ("MY_OTHER_SERVICE_KEY=Kq8zX91vvT", "begins with `"),
            ("export X=Kq8zX91vvT", "begins with `export `"),
            ("set X Kq8zX91vvT", "begins with `set `"),
            ("Kq8zX91vvT Kq8zX91vvT", "has spaces in it: 2 words"),
            ("<Kq8zX91vvT>", "angle brackets around it"),
            ("{\"api_key\": \"Kq8zX91vvT\"}", "is JSON"),
            ("{\n  \"api_key\": \"Kq8zX91vvT\"\n}", "is JSON"),
            ("[Kq8zX91vvT]", "brackets around it"),
            ("$DATAFRAMER_API_KEY", "the name of a variable"),
            ("${DATAFRAMER_API_KEY}", "the name of a variable"),
            ("$(cat Kq8zX91vvT)", "a command"),
            ("%DATAFRAMER_API_KEY%", "the name of a variable"),
            ("Kq8zX\n91vvT\n", "more than one line: 2 lines"),
            ("Kq8zX\r\n91vvT", "more than one line"),
            ("Kq8zX\r91vvT", "control characters"),
            ("Kq8zX\u{0}91vvT", "control characters"),
            ("Kq8zX\u{a0}91vvT", "not ASCII in it (number 6)"),
            ("Kq8zX\u{200b}91vvT", "not ASCII in it (number 6)"),
            ("Kq8zX91vvTé", "not ASCII"),
            ("https://df-api.dataframer.ai/Kq8zX91vvT", "is a URL"),
            ("-----BEGIN PRIVATE KEY-----\nKq8zX91vvT\n", "is a PEM file"),
            (&"Kq8zX91vvT".repeat(500), "5000 bytes long"),
        ] {
            let error = check(text, Kind::Key).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
            assert!(!error.contains("Kq8") && !error.contains("vvT"), "{text:?}: {error}");
            let variable = KeySource::Environment(Some(Secret::new(text))).read().unwrap_err();
            assert!(variable.contains(said) && variable.contains(VARIABLE), "{variable}");
        }
        for key in
            ["Kq8zX91vvT", " Kq8zX91vvT\r\n", "sk-live_9f/8+a==", "ABCDEFGH=", "a:b", "x=y", "$Kq8", "a$B"]
        {
            assert_eq!(check(key, Kind::Key).unwrap().expose(), key.trim(), "{key}");
        }
        let url = "https://hooks.example.com/services?key=a&b=é";
        assert_eq!(check(url, Kind::Url).unwrap().expose(), url);
        assert!(check("WEBHOOK_URL=https://hooks.example.com/x", Kind::Url).is_err());
    }

    #[test]
    fn says_what_a_file_is_that_is_no_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let utf16: Vec<u8> = "\u{feff}Kq8zX91vvT".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, said) in [(&utf16[..], "UTF-16"), (b"Kq8zX91\xff", "not UTF-8"), (b"a\0b", "binary")] {
            std::fs::write(&path, bytes).unwrap();
            let error = read_file(&path, Kind::Key).unwrap_err();
            assert!(error.contains(said) && error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
