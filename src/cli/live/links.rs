//! Which terminals show hyperlinks (OSC 8). Others may print the sequence as text, so only those count that are known to.

use std::sync::Arc;

use crate::run::RunId;

/// The URL to link a run to, where the terminal shows links.
pub(crate) fn url_of<'a>(url: impl Fn(&RunId) -> String + 'a) -> impl Fn(&RunId) -> Option<Arc<str>> + 'a {
    let shown = are_shown(|name| std::env::var(name).ok());
    move |id| shown.then(|| url(id).into())
}

fn are_shown(variable: impl Fn(&str) -> Option<String>) -> bool {
    let term = variable("TERM").unwrap_or_default();
    // These draw the screen themselves, and may leave links out, whatever the terminal around them says.
    if variable("TMUX").is_some() || variable("STY").is_some() || term.is_empty() || term == "dumb" {
        return false;
    }
    let program = variable("TERM_PROGRAM").unwrap_or_default();
    // Links came with VTE 0.50; 0.50.0 crashed on them.
    let vte = variable("VTE_VERSION").and_then(|version| version.parse::<u32>().ok()).unwrap_or(0);
    matches!(program.as_str(), "iTerm.app" | "WezTerm" | "vscode" | "ghostty" | "Hyper" | "rio")
        || matches!(term.as_str(), "xterm-kitty" | "xterm-ghostty" | "wezterm" | "foot" | "alacritty")
        || vte > 5000
        || variable("WT_SESSION").is_some()
        || variable("KONSOLE_VERSION").and_then(|version| version.parse::<u32>().ok()) >= Some(201_200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_for_terminals_that_are_known_to_show_them() {
        let shown = |variables: &[(&str, &str)]| {
            are_shown(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
        };
        let xterm = ("TERM", "xterm-256color");
        assert!(shown(&[("TERM", "xterm-kitty")]));
        assert!(shown(&[xterm, ("VTE_VERSION", "7200")]));
        assert!(shown(&[xterm, ("TERM_PROGRAM", "iTerm.app")]));
        assert!(!shown(&[xterm]));
        assert!(!shown(&[]));
        assert!(!shown(&[xterm, ("VTE_VERSION", "5000")]));
        assert!(!shown(&[("TERM", "tmux-256color"), ("TMUX", "/tmp/x"), ("VTE_VERSION", "7200")]));
        assert!(!shown(&[xterm, ("STY", "1.pts"), ("TERM_PROGRAM", "WezTerm")]));
        assert!(!shown(&[("TERM", "dumb"), ("WT_SESSION", "1")]));
    }
}
