//! The exit codes: one table for the help and the man pages. Tests compare the README with it.

use std::process::ExitCode;

/// The exit code of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// 0
    Succeeded,
    /// 1
    Failed,
    /// 2
    Usage,
    /// 3
    Canceled,
    /// 4
    KeyRefused,
    /// 5
    NotFound,
    /// 6
    BelowThreshold,
    /// 7
    Unknown,
    /// 8
    StillRunning,
    /// 69
    NoDaemon,
    /// 70
    Internal,
    /// 78
    Config,
    /// 124
    TimedOut,
    /// 126
    CannotRun,
    /// 127
    NoCommand,
    /// 129
    HungUp,
    /// 130
    Interrupted,
    /// 143
    Terminated,
    /// The exit code of the command after `--`, whatever it means by it. Not part of the contract.
    Command(u8),
}

impl Exit {
    /// Every documented exit code, in order.
    pub const ALL: [Self; 18] = [
        Self::Succeeded,
        Self::Failed,
        Self::Usage,
        Self::Canceled,
        Self::KeyRefused,
        Self::NotFound,
        Self::BelowThreshold,
        Self::Unknown,
        Self::StillRunning,
        Self::NoDaemon,
        Self::Internal,
        Self::Config,
        Self::TimedOut,
        Self::CannotRun,
        Self::NoCommand,
        Self::HungUp,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The order in which verdicts of several runs decide, worst first.
    const WORST_FIRST: [Self; 11] = [
        Self::Internal,
        Self::Config,
        Self::KeyRefused,
        Self::NotFound,
        Self::Failed,
        Self::Canceled,
        Self::BelowThreshold,
        Self::Unknown,
        Self::TimedOut,
        Self::StillRunning,
        Self::Succeeded,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Canceled => 3,
            Self::KeyRefused => 4,
            Self::NotFound => 5,
            Self::BelowThreshold => 6,
            Self::Unknown => 7,
            Self::StillRunning => 8,
            Self::NoDaemon => 69,
            Self::Internal => 70,
            Self::Config => 78,
            Self::TimedOut => 124,
            Self::CannotRun => 126,
            Self::NoCommand => 127,
            Self::HungUp => 129,
            Self::Interrupted => 130,
            Self::Terminated => 143,
            Self::Command(code) => code,
        }
    }

    /// What it means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Succeeded => "every run SUCCEEDED and met its thresholds",
            Self::Failed => "a run FAILED",
            Self::Usage => "wrong usage",
            Self::Canceled => "a run was CANCELED, and none FAILED",
            Self::KeyRefused => "the API refused the key (401 or 403), also after it was read again",
            Self::NotFound => "a run does not exist, or no longer does",
            Self::BelowThreshold => "a run SUCCEEDED, but below a threshold",
            Self::Unknown => {
                "the outcome is unknown: an unknown status lasted, or the API gave no usable answer"
            }
            Self::StillRunning => "still running (status --exit-code)",
            Self::NoDaemon => "no daemon answers on the socket",
            Self::Internal => "internal error",
            Self::Config => "bad configuration",
            Self::TimedOut => "the deadline passed",
            Self::CannotRun => "the command after -- cannot be executed",
            Self::NoCommand => "the command after -- was not found",
            Self::HungUp => "SIGHUP, or the terminal or connection was closed",
            Self::Interrupted => "SIGINT (Ctrl-C)",
            Self::Terminated => "SIGTERM",
            Self::Command(_) => "the exit code of the command after --",
        }
    }

    /// The word for it in JSON and in GitHub's outputs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Canceled => "canceled",
            Self::KeyRefused => "key_refused",
            Self::NotFound => "not_found",
            Self::BelowThreshold => "below_threshold",
            Self::Unknown => "unknown",
            Self::StillRunning => "running",
            Self::NoDaemon => "no_daemon",
            Self::Internal => "internal_error",
            Self::Config => "bad_configuration",
            Self::TimedOut => "timed_out",
            Self::CannotRun => "cannot_run",
            Self::NoCommand => "no_command",
            Self::HungUp => "hung_up",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
            Self::Command(_) => "command",
        }
    }

    /// The worst of several; `Succeeded` for none.
    pub fn worst(exits: impl IntoIterator<Item = Self>) -> Self {
        exits.into_iter().min_by_key(|exit| exit.rank()).unwrap_or(Self::Succeeded)
    }

    /// Its position in the order: smaller is worse.
    pub(super) fn rank(self) -> usize {
        Self::WORST_FIRST.iter().position(|other| *other == self).unwrap_or(0)
    }

    /// The table for `help exit-codes`.
    pub fn table() -> String {
        let row = |exit: &Self| format!("{:>5}  {}\n", exit.code(), exit.meaning());
        let rows: String = Self::ALL.iter().map(row).collect();
        let order: Vec<String> = Self::WORST_FIRST.iter().map(|exit| exit.code().to_string()).collect();
        format!(
            "{rows}\nIf the verdict is 0, the exit code of the command after -- decides.\nWith several runs the worst decides, in this order: {}.\n",
            order.join(", ")
        )
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_decides_in_the_order_of_the_contract() {
        let order = [70, 78, 4, 5, 1, 3, 6, 7, 124, 8, 0];
        let exits: Vec<Exit> =
            order.iter().map(|code| *Exit::ALL.iter().find(|exit| exit.code() == *code).unwrap()).collect();
        for pair in exits.windows(2) {
            assert_eq!(Exit::worst([pair[1], pair[0], pair[1]]), pair[0]);
        }
        assert_eq!(Exit::worst([]), Exit::Succeeded);
    }
}
