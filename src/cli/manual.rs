//! What the help and the man pages say besides the command line itself: environment variables, files and examples.

/// What a command talks to, which decides the variables and files that its help lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uses {
    /// The API.
    Api,
    /// The daemon's socket.
    Daemon,
    /// The configuration only.
    Configuration,
    /// Nothing outside.
    Nothing,
}

/// A row of a table: a name and its meaning.
pub(super) type Row<'t> = (&'t str, &'t str);

/// Variables of every command that reads the configuration.
const CONFIGURATION: [Row<'static>; 5] = [
    ("RUNWATCH_CONFIG", "Configuration file"),
    ("RUNWATCH_LOG", "Log level, as --log-level"),
    ("RUNWATCH_LOG_FORMAT", "Log format, as --log-format"),
    ("NO_COLOR", "Never print colors"),
    ("CLICOLOR_FORCE", "Always print colors"),
];

/// Variables of commands that send requests to the API.
const API: [Row<'static>; 10] = [
    ("DATAFRAMER_API_KEY", "API key"),
    ("DATAFRAMER_BASE_URL", "Base URL of the API"),
    ("DATAFRAMER_EMAIL", "Whose runs --mine means"),
    ("DATAFRAMER_CUSTOM_HEADERS", "More headers for every request, as lines `Name: value`"),
    ("HTTPS_PROXY", "Proxy for https URLs"),
    ("HTTP_PROXY", "Proxy for http URLs"),
    ("ALL_PROXY", "Proxy for both"),
    ("NO_PROXY", "Hosts to reach without a proxy"),
    ("SSL_CERT_FILE", "Certificate authorities in place of the system's"),
    ("SSL_CERT_DIR", "Directory of such files"),
];

/// Variables of commands that ask the daemon.
const DAEMON: [Row<'static>; 1] = [("RUNWATCH_SOCKET", "Control socket of the daemon")];

/// The files of runwatch.
pub(super) const FILES: [Row<'static>; 6] = [
    ("~/.config/runwatch/config.toml", "Configuration (or below $XDG_CONFIG_HOME)"),
    ("/etc/runwatch/config.toml", "Configuration, if there is none above"),
    ("~/.local/state/runwatch/runwatch.db", "State of the daemon (service: below /var/lib)"),
    ("$XDG_RUNTIME_DIR/runwatch/runwatch.sock", "Control socket (service: below /run)"),
    ("/etc/runwatch/api-key", "API key of the service"),
    ("~/.cache/runwatch/", "Runs that shell completions offer"),
];

impl Uses {
    /// What a command uses, by its name and those before it, such as `config check`.
    pub(super) fn of(command: &str) -> Self {
        match command.split(' ').next().unwrap_or_default() {
            "add" | "remove" | "list" | "show" | "deliveries" | "reload" | "state" => Self::Daemon,
            "daemon" if command == "daemon status" => Self::Daemon,
            "config" => Self::Configuration,
            "simulate" | "completions" | "man" | "help" | "demo" => Self::Nothing,
            _ => Self::Api,
        }
    }

    /// The variables that apply.
    pub(super) fn variables(self) -> Vec<Row<'static>> {
        match self {
            Self::Api | Self::Configuration => [&API[..], &CONFIGURATION].concat(),
            Self::Daemon => [&DAEMON[..], &CONFIGURATION].concat(),
            Self::Nothing => Vec::new(),
        }
    }
}

/// Every variable, for the page of `runwatch` itself.
pub(super) fn all_variables() -> Vec<Row<'static>> {
    [&API[..], &DAEMON, &CONFIGURATION].concat()
}

/// Adds the variables and files to the end of the help of every command.
pub(super) fn described(command: clap::Command) -> clap::Command {
    let command = command.mut_subcommands(|subcommand| below(subcommand, ""));
    let head = "Exit codes: runwatch help exit-codes\nTry it without an account: runwatch demo";
    let text = format!("{}\n\n{}\n\n{head}", table("Environment", &all_variables()), table("Files", &FILES));
    command.after_help(text)
}

fn below(command: clap::Command, before: &str) -> clap::Command {
    let path = format!("{before} {}", command.get_name()).trim().to_owned();
    let variables = Uses::of(&path).variables();
    let command = command.mut_subcommands(|subcommand| below(subcommand, &path));
    if variables.is_empty() || command.has_subcommands() {
        return command;
    }
    command.after_help(format!("{}\n\nFiles: runwatch help", table("Environment", &variables)))
}

fn table(title: &str, rows: &[Row<'_>]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, meaning): &Row<'_>| format!("\n  {name:width$}  {meaning}");
    format!("{title}:{}", rows.iter().map(line).collect::<String>())
}

/// Examples of a command: command lines and what they do.
pub(super) fn examples(command: &str) -> &'static [Row<'static>] {
    match command {
        "" => &[
            ("runwatch demo", "Try it without an account."),
            ("runwatch watch --latest", "Watch the newest run of the account."),
            ("runwatch wait RUN --timeout 3h --max-failed 2%", "Wait in CI; the exit code is the verdict."),
            ("runwatch config init --notify desktop", "Create a configuration for the daemon."),
        ],
        "watch" => &[
            ("runwatch watch RUN", "Watch a run, by its id or URL."),
            (
                "runwatch watch --spec 'nightly-*' --any",
                "Watch the active runs of some specs until one finishes.",
            ),
            ("runwatch watch RUN -- make report", "Run a command when the run has succeeded."),
        ],
        "wait" => &[
            ("runwatch wait RUN --timeout 3h", "Wait for a run for at most three hours."),
            (
                "runwatch wait @runs.txt --min-completed 95% --junit report.xml",
                "Wait for the runs in a file, with a threshold and a report.",
            ),
            (
                "runwatch wait RUN --always -- sh -c 'echo \"$RUNWATCH_TITLE\"'",
                "Run a command whatever the verdict.",
            ),
        ],
        "status" => &[
            ("runwatch status RUN", "Show a run once."),
            (
                "runwatch status --latest --exit-code --output json",
                "Show the newest run as JSON, with its state as exit code.",
            ),
        ],
        "runs" => &[
            ("runwatch runs", "List the active runs."),
            ("runwatch runs --status FAILED --since 24h", "List the runs that failed in the last 24 hours."),
        ],
        "daemon" => {
            &[("runwatch daemon --config config.toml", "Watch the runs of a configuration and notify.")]
        }
        "daemon status" => &[("runwatch daemon status", "Show whether a daemon answers.")],
        "add" => {
            &[("runwatch add RUN --name nightly --deadline 3h", "Watch a run in the daemon under a name.")]
        }
        "remove" => &[("runwatch remove RUN", "Stop watching a run. The run itself continues.")],
        "list" => &[("runwatch list --all", "List the runs of the daemon, with finished ones.")],
        "show" => &[("runwatch show RUN", "Show a run and its deliveries.")],
        "deliveries list" => {
            &[("runwatch deliveries list --state dead", "List the deliveries that were given up.")]
        }
        "deliveries retry" => {
            &[("runwatch deliveries retry --channel ops", "Try the dead deliveries of a channel again.")]
        }
        "state backup" => {
            &[("runwatch state backup runwatch-backup.db", "Back up the state of a running daemon.")]
        }
        "doctor" => &[("runwatch doctor", "Check the key, the API, the channels and the daemon.")],
        "config check" => &[("runwatch config check config.toml", "Show every mistake in a file.")],
        "config init" => &[
            ("runwatch config init --notify desktop,webhook", "Create a configuration with two channels."),
            ("runwatch config init -", "Print one."),
        ],
        "config show" => &[("runwatch config show", "Show every setting and where it came from.")],
        "notify test" => &[("runwatch notify test ops", "Send a test event to a channel.")],
        "simulate" => &[
            (
                "runwatch simulate --run id=good,duration=20s --run id=bad,end=failed",
                "Serve two runs, of which one fails.",
            ),
            ("runwatch simulate --run r --fault 503=10%", "Answer one request in ten with 503."),
        ],
        "completions" => &[("source <(runwatch completions bash)", "Load the completions into bash.")],
        _ => &[],
    }
}
