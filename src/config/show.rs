//! The settings in effect, one by one, and where each came from: for `runwatch config show`.
//!
//! Owns the order of precedence for people, and which values are hidden. Reads the same documents as the rest of this
//! module: `config.example.toml` has the defaults, the user's file overrides them, then come the environment and flags.
//! The file must have been accepted before, so this reports no problems.

use std::ops::Range;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, EXAMPLE, Environment, KeySource, Overrides};

/// What a secret is shown as.
pub const HIDDEN: &str = "hidden";

/// The sections that always apply, in the order of the example.
const SECTIONS: [&str; 7] = ["", "api", "poll", "alerts", "delivery", "daemon", "log"];

/// Defaults in tables that may be missing or repeated, which the example has only as comments.
const DEFAULTS: [(&str, &str, &str); 7] = [
    ("discover", "interval", "1m"),
    ("notify.webhook", "name", "webhook"),
    ("notify.desktop", "name", "desktop"),
    ("notify.desktop", "gather", "2s"),
    ("notify.log", "name", "log"),
    ("notify.command", "name", "command"),
    ("notify.command", "timeout", "30s"),
];

/// Where the value of a setting came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// This line of the file, from 1.
    File(usize),
    /// This environment variable.
    Variable(&'static str),
    /// This flag.
    Flag(&'static str),
}

/// A setting in effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Its table, such as `poll`, `run` or `notify.webhook`; empty for the top of the file.
    pub table: String,
    /// The number of its table from 0, where the table can be repeated.
    pub index: Option<usize>,
    /// Its key.
    pub key: String,
    /// Its value, with secrets hidden; null if it has none.
    pub value: Value,
    /// Where the value came from.
    pub origin: Origin,
}

impl Setting {
    /// Its whole name, such as `poll.grace` or `notify.webhook[0].url`.
    pub fn name(&self) -> String {
        let index = self.index.map(|index| format!("[{index}]")).unwrap_or_default();
        let table = if self.table.is_empty() { String::new() } else { format!("{}{index}.", self.table) };
        format!("{table}{}", self.key)
    }
}

/// The settings in effect of a configuration that was read from this text, environment and flags.
pub fn settings(config: &Config, text: &str, env: Environment<'_>, overrides: &Overrides) -> Vec<Setting> {
    let (file, _) = DeTable::parse_recoverable(text);
    let (example, _) = DeTable::parse_recoverable(EXAMPLE);
    let (file, example) = (file.get_ref(), example.get_ref());
    let mut settings = Vec::new();
    for name in SECTIONS {
        let section = |document| if name.is_empty() { Some(document) } else { table(document, name) };
        let mut found = Table::new(name, None, text, section(file));
        found.defaults(section(example));
        if name == "api" {
            overridden_api(&mut found, config, env, overrides);
        }
        if name == "log" {
            let set = |name: &str| env(name).filter(|text| !text.trim().is_empty());
            found.set_by("level", "RUNWATCH_LOG", set("RUNWATCH_LOG"));
            found.set_by("format", "RUNWATCH_LOG_FORMAT", set("RUNWATCH_LOG_FORMAT"));
            found.set("level", Origin::Flag("--log-level"), overrides.log_level.clone().map(Value::from));
            let format = overrides.log_format.map(|_| Value::from(config.log.format.as_str()));
            found.set("format", Origin::Flag("--log-format"), format);
        }
        settings.extend(found.settings);
    }
    for (number, run) in tables(file, "run").into_iter().enumerate() {
        settings.extend(Table::new("run", Some(number), text, Some(run)).settings);
    }
    if let Some(discover) = table(file, "discover") {
        settings.extend(Table::new("discover", None, text, Some(discover)).settings);
    }
    let notify = table(file, "notify");
    for kind in ["webhook", "desktop", "log", "command"] {
        for (number, channel) in
            notify.map(|notify| tables(notify, kind)).unwrap_or_default().into_iter().enumerate()
        {
            let name = format!("notify.{kind}");
            settings.extend(Table::new(&name, Some(number), text, Some(channel)).settings);
        }
    }
    settings
}

/// What the environment and flags set in `[api]`, and the source of the key.
fn overridden_api(found: &mut Table<'_>, config: &Config, env: Environment<'_>, overrides: &Overrides) {
    let set = |name: &str| env(name).filter(|text| !text.trim().is_empty());
    found.set_by("base_url", "DATAFRAMER_BASE_URL", set("DATAFRAMER_BASE_URL"));
    found.set("base_url", Origin::Flag("--base-url"), overrides.base_url.clone().map(Value::from));
    // As it is used: without the path that every request adds.
    let url = config.api.base_url.as_str().trim_end_matches('/');
    if let Some(setting) = found.find("base_url") {
        setting.value = url.into();
    }
    found.set_by("email", "DATAFRAMER_EMAIL", set("DATAFRAMER_EMAIL"));
    found.set("allow_http", Origin::Flag("--allow-http"), overrides.allow_http.then_some(Value::Bool(true)));
    let lines = env("DATAFRAMER_CUSTOM_HEADERS").unwrap_or_default();
    for (name, _) in lines.lines().filter_map(|line| line.split_once(':')) {
        let key = format!("headers.{}", name.trim());
        found.set(&key, Origin::Variable("DATAFRAMER_CUSTOM_HEADERS"), Some(HIDDEN.into()));
    }
    match &config.api.key {
        KeySource::File(path) => {
            let path = Value::from(path.to_string_lossy());
            if overrides.api_key_file.is_some() {
                found.set("api_key_file", Origin::Flag("--api-key-file"), Some(path));
            } else if !found.find("api_key_file").is_some_and(|setting| same_file(&setting.value, &path)) {
                found.set("api_key_file", Origin::Variable("CREDENTIALS_DIRECTORY"), Some(path));
            }
        }
        KeySource::Environment(key) => {
            let (origin, value) = match key {
                Some(_) => (Origin::Variable("DATAFRAMER_API_KEY"), HIDDEN.into()),
                None => (Origin::Default, Value::Null),
            };
            found.set("api_key", origin, Some(value));
        }
    }
}

/// Whether a path in the file, which may begin with `~/`, is this one.
fn same_file(written: &Value, path: &Value) -> bool {
    let (Some(written), Some(path)) = (written.as_str(), path.as_str()) else { return false };
    written == path || written.strip_prefix('~').is_some_and(|rest| path.ends_with(rest))
}

/// One table, as its settings come together.
struct Table<'t> {
    name: &'t str,
    index: Option<usize>,
    settings: Vec<Setting>,
}

impl<'t> Table<'t> {
    /// What the file sets, in the order of the file.
    fn new(name: &'t str, index: Option<usize>, text: &str, file: Option<&DeTable<'_>>) -> Self {
        let mut found = Self { name, index, settings: Vec::new() };
        let mut entries: Vec<_> = file.into_iter().flat_map(|table| table.iter()).collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let key_name = key.get_ref().as_ref();
            // At the top, tables are sections of their own.
            let is_section = name.is_empty() && !matches!(value.get_ref(), DeValue::String(_));
            if !is_section {
                let line = line_of(text, key.span());
                found.add(key_name, value.get_ref(), Origin::File(line));
            }
        }
        for (table, key, value) in DEFAULTS {
            if table == name && found.find(key).is_none() {
                found.push(key, value.into(), Origin::Default);
            }
        }
        found
    }

    /// Adds what the file does not set, in the order of the example.
    fn defaults(&mut self, example: Option<&DeTable<'_>>) {
        let mut entries: Vec<_> = example.into_iter().flat_map(|table| table.iter()).collect();
        entries.retain(|(_, value)| !(self.name.is_empty() && matches!(value.get_ref(), DeValue::Table(_))));
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut own = std::mem::take(&mut self.settings);
        for (key, value) in entries {
            let key = key.get_ref().as_ref();
            let prefix = format!("{key}.");
            let is_set = |setting: &Setting| setting.key == key || setting.key.starts_with(&prefix);
            let set: Vec<Setting> = own.extract_if(.., |setting| is_set(setting)).collect();
            if set.is_empty() {
                self.add(key, value.get_ref(), Origin::Default);
            }
            self.settings.extend(set);
        }
        self.settings.append(&mut own);
    }

    /// Adds a value; a table within a table key by key.
    fn add(&mut self, key: &str, value: &DeValue<'_>, origin: Origin) {
        let DeValue::Table(table) = value else {
            return self.push(key, shown(self.name, key, &json(value)), origin);
        };
        for name in table.keys() {
            // The only such table has the headers, whose values may be keys.
            self.push(&format!("{key}.{}", name.get_ref()), HIDDEN.into(), origin);
        }
    }

    fn push(&mut self, key: &str, value: Value, origin: Origin) {
        let (table, index, key) = (self.name.to_owned(), self.index, key.to_owned());
        self.settings.push(Setting { table, index, key, value, origin });
    }

    fn find(&mut self, key: &str) -> Option<&mut Setting> {
        self.settings.iter_mut().find(|setting| setting.key == key)
    }

    /// Overrides a setting.
    fn set(&mut self, key: &str, origin: Origin, value: Option<Value>) {
        let Some(value) = value else { return };
        match self.find(key) {
            Some(setting) => (setting.value, setting.origin) = (value, origin),
            None => self.push(key, value, origin),
        }
    }

    fn set_by(&mut self, key: &str, variable: &'static str, value: Option<String>) {
        self.set(key, Origin::Variable(variable), value.map(Value::from));
    }
}

fn table<'d>(document: &'d DeTable<'d>, key: &str) -> Option<&'d DeTable<'d>> {
    document.get(key).and_then(|value| value.get_ref().as_table())
}

fn tables<'d>(document: &'d DeTable<'d>, key: &str) -> Vec<&'d DeTable<'d>> {
    let array = document.get(key).and_then(|value| value.get_ref().as_array());
    array.into_iter().flat_map(|array| array.iter()).filter_map(|value| value.get_ref().as_table()).collect()
}

fn line_of(text: &str, span: Range<usize>) -> usize {
    text.get(..span.start).unwrap_or(text).matches('\n').count() + 1
}

/// A value as it may be shown.
fn shown(table: &str, key: &str, value: &Value) -> Value {
    match (table, key, value) {
        (_, "secret", _) => HIDDEN.into(),
        (_, "secrets", Value::Array(secrets)) => secrets.iter().map(|_| Value::from(HIDDEN)).collect(),
        ("notify.webhook", "url", Value::String(url)) => {
            let origin = reqwest::Url::parse(url.trim()).map(|url| url.origin().ascii_serialization());
            origin.map_or(HIDDEN.into(), |origin| format!("{origin}/{HIDDEN}").into())
        }
        // Arguments may be tokens, and so may words in a program that is a whole command line.
        ("notify.command", "command", Value::Array(words)) => {
            let program = words.first().and_then(Value::as_str).unwrap_or_default();
            let program = program.split(char::is_whitespace).next().unwrap_or_default();
            [Value::from(program)].into_iter().chain(words.iter().skip(1).map(|_| HIDDEN.into())).collect()
        }
        (_, _, value) => value.clone(),
    }
}

/// A TOML value as JSON.
fn json(value: &DeValue<'_>) -> Value {
    let items = |item: &Spanned<DeValue<'_>>| json(item.get_ref());
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(array) => array.iter().map(items).collect(),
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<_>, &Spanned<_>)| (to_string(key), items(value));
            Value::Object(table.iter().map(entry).collect::<Map<_, _>>())
        }
    }
}

fn to_string(key: &Spanned<toml::de::DeString<'_>>) -> String {
    key.get_ref().clone().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn shown_with(
        text: &str,
        variables: &[(&str, &str)],
        overrides: &Overrides,
    ) -> Vec<(String, Value, Origin)> {
        let env = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let path = std::path::Path::new("config.toml");
        let loaded = parse(Some((path, text)), &env, overrides).unwrap_or_else(|report| panic!("{report:?}"));
        let settings = settings(&loaded.config, text, &env, overrides);
        settings.into_iter().map(|setting| (setting.name(), setting.value, setting.origin)).collect()
    }

    fn of(settings: &[(String, Value, Origin)], name: &str) -> (Value, Origin) {
        let found: Vec<_> = settings.iter().filter(|(known, ..)| known == name).collect();
        assert_eq!(found.len(), 1, "{name}: {settings:?}");
        (found[0].1.clone(), found[0].2)
    }

    #[test]
    fn what_nobody_set_has_the_default_that_applies() {
        // The defaults that are written here must be those of the code: they change nothing when they are set.
        let tables = "[discover]\n[[notify.webhook]]\nurl = \"https://h/\"\nunsigned = true\n[[notify.desktop]]\n\
                      [[notify.log]]\n[[notify.command]]\ncommand = [\"true\"]\n";
        let mut text = String::new();
        for line in tables.lines() {
            text.push_str(line);
            text.push('\n');
            for (table, key, value) in DEFAULTS {
                let head = line.trim_matches(['[', ']']);
                if head == table {
                    text = format!("{text}{key} = \"{value}\"\n");
                }
            }
        }
        let config = |text: &str| {
            let loaded = parse(Some((std::path::Path::new("c"), text)), &|_| None, &Overrides::default());
            let Config { discover, channels, .. } =
                loaded.unwrap_or_else(|report| panic!("{report:?}")).config;
            format!("{discover:?} {channels:?}")
        };
        assert_eq!(config(tables), config(&text));
        let settings = shown_with(tables, &[], &Overrides::default());
        assert_eq!(of(&settings, "poll.grace"), ("1m".into(), Origin::Default));
        assert_eq!(of(&settings, "notify.desktop[0].gather"), ("2s".into(), Origin::Default));
    }

    #[test]
    fn flags_override_the_environment_and_that_the_file() {
        let text =
            "[api]\nbase_url = \"https://file\"\nemail = \"a@file\"\n[poll]\ngrace = \"2m\"\njitter = 0.5\n";
        let variables = [("DATAFRAMER_BASE_URL", "https://env/api/dataframer/"), ("RUNWATCH_LOG", "debug")];
        let settings = shown_with(text, &variables, &Overrides::default());
        assert_eq!(
            of(&settings, "api.base_url"),
            ("https://env".into(), Origin::Variable("DATAFRAMER_BASE_URL"))
        );
        assert_eq!(of(&settings, "api.email"), ("a@file".into(), Origin::File(3)));
        assert_eq!(of(&settings, "poll.grace"), ("2m".into(), Origin::File(5)));
        assert_eq!(of(&settings, "poll.jitter"), (0.5.into(), Origin::File(6)));
        assert_eq!(of(&settings, "log.level"), ("debug".into(), Origin::Variable("RUNWATCH_LOG")));
        let flags = Overrides {
            base_url: Some("http://flag".into()),
            allow_http: true,
            log_level: Some("trace".into()),
            ..Overrides::default()
        };
        let settings = shown_with(text, &variables, &flags);
        assert_eq!(of(&settings, "api.base_url"), ("http://flag".into(), Origin::Flag("--base-url")));
        assert_eq!(of(&settings, "api.allow_http"), (true.into(), Origin::Flag("--allow-http")));
        assert_eq!(of(&settings, "log.level"), ("trace".into(), Origin::Flag("--log-level")));
    }

    #[test]
    fn secrets_are_hidden_and_their_places_are_shown() {
        let text = "[api]\nheaders = { X-Token = \"marker\" }\n[[notify.webhook]]\nurl = \"https://h/marker\"\n\
                    secret = \"whsec_bWFya2VybWFya2VybWFya2VybWFya2VybWFya2Vy\"\n[[notify.command]]\n\
                    command = [\"true\", \"marker\"]\n";
        let variables = [("DATAFRAMER_API_KEY", "marker"), ("DATAFRAMER_CUSTOM_HEADERS", "X-Two: marker")];
        let settings = shown_with(text, &variables, &Overrides::default());
        let all = format!("{settings:?}");
        assert!(!all.contains("marker") && !all.contains("bWFya2Vy"), "{all}");
        assert_eq!(of(&settings, "api.api_key"), ("hidden".into(), Origin::Variable("DATAFRAMER_API_KEY")));
        assert_eq!(of(&settings, "api.headers.X-Token"), ("hidden".into(), Origin::File(2)));
        let variable = Origin::Variable("DATAFRAMER_CUSTOM_HEADERS");
        assert_eq!(of(&settings, "api.headers.X-Two"), ("hidden".into(), variable));
        assert_eq!(of(&settings, "notify.webhook[0].url"), ("https://h/hidden".into(), Origin::File(4)));
        assert_eq!(of(&settings, "notify.command[0].command").0, serde_json::json!(["true", "hidden"]));
    }
}
