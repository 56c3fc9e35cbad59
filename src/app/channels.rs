//! Creates a notification channel from its configuration.
//!
//! Owns the limits of each kind (concurrency, timeout), and the fingerprint of a channel's configuration. Used by the
//! daemon at start and reload, and by commands.

use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, Digest, SHA256};

use crate::config::{ChannelKind, Config, ConfiguredChannel};
use crate::http::SetupError;
use crate::notify::{
    Channel, CommandNotifier, CommandSettings, Desktop, Log, Notifier, RetrySchedule, Webhook,
    WebhookSettings,
};
use crate::run::EventKind;
use crate::secret::KnownSecrets;
use crate::small_file;
use crate::store::{ChannelName, Route, Routes};

/// Maximum number of deliveries in flight, by kind: machines accept several, people read one at a time.
const WEBHOOK_CONCURRENCY: usize = 8;
const COMMAND_CONCURRENCY: usize = 4;

/// Grace on top of a notifier's own timeout before its attempt is aborted.
const ATTEMPT_MARGIN: Duration = Duration::from_secs(2);

/// Creates a channel. Sends nothing.
pub fn channel(configured: &ConfiguredChannel, config: &Config) -> Result<Channel, SetupError> {
    let retry_delays = &config.retry_delays;
    config.known.learn(|redactor| configured.kind.know(redactor));
    let (kind, notifier, concurrency, timeout): (_, Arc<dyn Notifier>, _, _) = match &configured.kind {
        ChannelKind::Webhook { url, secrets, ca_file } => {
            let settings =
                WebhookSettings { url: url.0.clone(), secrets: secrets.clone(), ca_file: ca_file.clone() };
            (
                "webhook",
                Arc::new(Webhook::new(settings)?),
                WEBHOOK_CONCURRENCY,
                crate::notify::webhook::TIMEOUT,
            )
        }
        ChannelKind::Unusable(why) => {
            return Err(SetupError::Channel { name: configured.name.to_string(), why: why.clone() });
        }
        ChannelKind::Desktop { .. } => {
            ("desktop", Arc::new(Desktop::default()), 1, crate::notify::desktop::TIMEOUT)
        }
        ChannelKind::Log => ("log", Arc::new(Log), 1, crate::notify::log::TIMEOUT),
        ChannelKind::Command(settings) => (
            "command",
            Arc::new(CommandNotifier::new(settings.clone())),
            COMMAND_CONCURRENCY,
            settings.timeout,
        ),
    };
    Ok(Channel {
        name: configured.name.clone(),
        kind,
        notifier,
        concurrency,
        timeout: timeout + ATTEMPT_MARGIN,
        schedule: Arc::new(RetrySchedule::after(retry_delays)),
        gather: match configured.kind {
            ChannelKind::Desktop { gather } => gather,
            _ => Duration::ZERO,
        },
        fingerprint: fingerprint(&configured.kind)?,
        formerly: vec![former_fingerprint(&configured.kind, retry_delays)],
        known: config.known.clone(),
    })
}

/// The fingerprint of a channel's configuration: a digest, so that it contains no secret. It covers the effective
/// configuration, including the contents of files, but no names in the code. It is stored in the state, so upgrades
/// must not change it.
pub fn fingerprint(kind: &ChannelKind) -> Result<Arc<str>, SetupError> {
    let mut digest = Context::new(&SHA256);
    // The length makes ("ab", "c") differ from ("a", "bc").
    let mut add = |part: &[u8]| {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    match kind {
        ChannelKind::Webhook { url, secrets, ca_file } => {
            add(b"webhook");
            add(url.0.as_str().as_bytes());
            for secret in secrets {
                add(mark_of(secret).as_bytes());
            }
            if let Some(path) = ca_file {
                add(b"ca");
                let contents = small_file::read(path, small_file::LARGE);
                add(&contents
                    .map_err(|error| SetupError::CaFile { path: path.clone(), reason: error.to_string() })?);
            }
        }
        ChannelKind::Desktop { gather } => {
            add(b"desktop");
            add(&gather.as_millis().to_be_bytes());
        }
        ChannelKind::Log => add(b"log"),
        ChannelKind::Command(CommandSettings { program, arguments, timeout }) => {
            add(b"command");
            add(program.as_bytes());
            for argument in arguments {
                add(argument.as_bytes());
            }
            add(&timeout.as_millis().to_be_bytes());
        }
        ChannelKind::Unusable(_) => add(b"unusable"),
    }
    Ok(format!("2:{}", short(&digest.finish())).into())
}

/// The fingerprint that versions before schema 4 gave to the same configuration, byte for byte, so that channels
/// disabled by them stay disabled.
fn former_fingerprint(kind: &ChannelKind, retry_delays: &[Duration]) -> String {
    let shown = match kind {
        ChannelKind::Webhook { url, secrets, ca_file } => format!(
            "Webhook {{ url: {}/[REDACTED], secrets: [{}], ca_file: {ca_file:?} }}",
            url.0.origin().ascii_serialization(),
            vec!["[REDACTED]"; secrets.len()].join(", ")
        ),
        ChannelKind::Desktop { gather } => format!("Desktop {{ gather: {gather:?} }}"),
        ChannelKind::Log => "Log".to_owned(),
        ChannelKind::Command(CommandSettings { program, arguments, timeout }) => format!(
            "Command(CommandSettings {{ program: {program:?}, arguments: {arguments:?}, timeout: {timeout:?} }})"
        ),
        ChannelKind::Unusable(why) => format!("Unusable({why:?})"),
    };
    let mut digest = Context::new(&SHA256);
    digest.update(format!("{shown} {retry_delays:?}").as_bytes());
    if let ChannelKind::Webhook { url, secrets, .. } = kind {
        digest.update(url.0.as_str().as_bytes());
        for secret in secrets {
            digest.update(mark_of(secret).as_bytes());
        }
    }
    short(&digest.finish())
}

/// Represents a signing secret by a signature made with it.
fn mark_of(secret: &crate::notify::SigningSecret) -> String {
    secret.sign("fingerprint", 0, b"")
}

/// The first half of a digest, in hexadecimal.
fn short(digest: &Digest) -> String {
    let hex = |half: &[u8]| half.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    let digest = digest.as_ref();
    format!("{:016x}{:016x}", hex(&digest[..8]), hex(&digest[8..16]))
}

/// The desktop channel for a user who configured none: one attempt only. `taken` are the names already in use.
pub fn default_desktop(taken: &[ConfiguredChannel]) -> Channel {
    let free = |name: &&&str| taken.iter().all(|channel| *channel.name != ***name);
    let name = ["desktop", "default-desktop", "runwatch-default-desktop"].iter().find(free);
    Channel {
        name: name.copied().unwrap_or("runwatch").into(),
        kind: "desktop",
        notifier: Arc::new(Desktop::default()),
        concurrency: 1,
        timeout: crate::notify::desktop::TIMEOUT + ATTEMPT_MARGIN,
        schedule: Arc::new(RetrySchedule::once()),
        gather: Duration::ZERO,
        fingerprint: "".into(),
        formerly: Vec::new(),
        known: KnownSecrets::default(),
    }
}

/// The routes to these channels, and to `more` of any names and events.
pub fn routes<'c>(
    channels: impl IntoIterator<Item = &'c ConfiguredChannel>,
    more: impl IntoIterator<Item = (ChannelName, Option<Vec<EventKind>>)>,
) -> Routes {
    let configured = channels.into_iter().map(|channel| (channel.name.clone(), channel.events.clone()));
    Routes::new(configured.chain(more).map(|(channel, events)| Route { channel, events }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretUrl;
    use crate::notify::SigningSecret;

    fn webhook(url: &str, secrets: &[&str], ca_file: Option<&std::path::Path>) -> ChannelKind {
        ChannelKind::Webhook {
            url: SecretUrl(url.parse().unwrap()),
            secrets: secrets.iter().map(|secret| SigningSecret::parse(secret).unwrap()).collect(),
            ca_file: ca_file.map(Into::into),
        }
    }

    fn command(program: &str, arguments: &[&str], seconds: u64) -> ChannelKind {
        ChannelKind::Command(CommandSettings {
            program: program.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            timeout: Duration::from_secs(seconds),
        })
    }

    const ONE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const TWO: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn a_fingerprint_is_the_same_for_ever() {
        // If these values changed, an upgrade would make every channel look changed.
        for (kind, expected) in [
            (ChannelKind::Log, "2:0ac0da0ca9b81c2940663d38a1030e10"),
            (webhook("https://h.example/x", &[ONE], None), "2:d8cca040e119581b658eaceb305f1048"),
            (command("say", &["a b"], 30), "2:c711a7d953528ca3e049eab19fbb6ccc"),
        ] {
            assert_eq!(&*fingerprint(&kind).unwrap(), expected, "{kind:?}");
        }
    }

    #[test]
    fn the_fingerprints_of_older_versions_are_known() {
        // From a state that such a version wrote (tests/fixtures/state/v3.db).
        let gone = webhook("http://127.0.0.1:8499/gone", &[], None);
        let known = "b53091473204773427fc1b589574b5fb";
        assert_eq!(former_fingerprint(&gone, &RetrySchedule::suggested()), known);
        let all = [
            gone,
            webhook("https://h.example/x", &[ONE, TWO], Some("/etc/ca.pem".as_ref())),
            ChannelKind::Desktop { gather: Duration::from_millis(1500) },
            ChannelKind::Log,
        ];
        let delays = [Duration::from_secs(1), Duration::from_millis(2500)];
        // Those versions included the arguments of a command.
        let say = command("say", &["a \"b\"", ""], 30);
        assert_eq!(former_fingerprint(&say, &delays), "29a21ee43d6feed27285a6aeff11da5e");
        for kind in &all {
            let mut digest = Context::new(&SHA256);
            digest.update(format!("{kind:?} {delays:?}").as_bytes());
            if let ChannelKind::Webhook { url, secrets, .. } = kind {
                digest.update(url.0.as_str().as_bytes());
                for secret in secrets {
                    digest.update(mark_of(secret).as_bytes());
                }
            }
            assert_eq!(former_fingerprint(kind, &delays), short(&digest.finish()), "{kind:?}");
        }
    }

    #[test]
    fn every_difference_is_seen_and_what_files_contain_counts() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, "one").unwrap();
        let with_ca = webhook("https://h.example/x", &[ONE], Some(&ca));
        let first = fingerprint(&with_ca).unwrap();
        std::fs::write(&ca, "another").unwrap();
        let second = fingerprint(&with_ca).unwrap();
        let others = [
            webhook("https://h.example/x", &[ONE], None),
            webhook("https://h.example/y", &[ONE], None),
            webhook("https://h.example/x", &[TWO], None),
            webhook("https://h.example/x", &[ONE, TWO], None),
            webhook("https://h.example/x", &[], None),
            ChannelKind::Log,
            ChannelKind::Desktop { gather: Duration::ZERO },
            ChannelKind::Desktop { gather: Duration::from_secs(1) },
            command("say", &["ab", "c"], 30),
            command("say", &["a", "bc"], 30),
            command("say", &["ab", "c"], 31),
        ];
        let mut all: Vec<_> = others.iter().map(|kind| fingerprint(kind).unwrap()).collect();
        all.extend([first, second]);
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        std::fs::remove_file(&ca).unwrap();
        assert!(fingerprint(&with_ca).is_err());
    }
}
