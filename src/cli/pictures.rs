//! Pictures for tests: what a person sees, kept as plain files in `tests/pictures`.

use std::path::Path;

/// Compares with the picture of this name. With `WRITE_PICTURES` in the environment, writes it instead: look at the
/// difference before you commit it.
#[track_caller]
pub(super) fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures").join(name);
    if std::env::var_os("WRITE_PICTURES").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(kept == text, "{name} is\n{kept}\nbut this was drawn:\n{text}");
}
