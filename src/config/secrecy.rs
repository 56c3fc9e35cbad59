//! Tests: wherever somebody puts a secret in a configuration, no eight characters of it are ever shown.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// Keys of every section, and some that are none.
const KEYS: [&str; 44] = [
    "allow_http",
    "announce_past",
    "api_key",
    "api_key_file",
    "apikey",
    "base_url",
    "batch",
    "ca_file",
    "command",
    "created_after",
    "created_by_email",
    "deadline",
    "email",
    "events",
    "format",
    "grace",
    "headers",
    "id",
    "interval",
    "keep",
    "level",
    "listen",
    "max_in_flight",
    "multiplier",
    "name",
    "notify",
    "password",
    "poll",
    "requests_per_minute",
    "retry_delays",
    "run",
    "secert",
    "secret",
    "secret_file",
    "secrets",
    "socket_mode",
    "spec_name",
    "state_dir",
    "timeout",
    "unsigned",
    "url",
    "url_file",
    "watch_dir",
    "webhook",
];

/// Heads of tables; `@` stands for the secret.
const TABLES: [&str; 18] = [
    "",
    "[api]",
    "[api.headers]",
    "[poll]",
    "[alerts]",
    "[delivery]",
    "[daemon]",
    "[log]",
    "[discover]",
    "[[run]]",
    "[notify]",
    "[[notify.webhook]]",
    "[[notify.command]]",
    "[[notify.log]]",
    "[notify.webhook]",
    "[@]",
    "[[@]]",
    "[notify.\"@\"]",
];

/// Ways of writing a setting; `K` stands for its key, `@` for the secret, `&` for the secret in escapes.
const LAYOUTS: [&str; 56] = [
    "K = \"@\"",
    "K = '@'",
    "K = @",
    "K: \"@\"",
    "K: @",
    "K @",
    "K = \"@\" # @",
    "K = 1 # @",
    "# @",
    "#K = \"@\"",
    "K = [\"@\"]",
    "K = [\"@\", \"@\"]",
    "K = [\n  \"@\",\n]",
    "K = [\n  \"@=\",\n  '@==', # @\n]",
    "K = [\n@=,\n]",
    "K = \"\"\"@\"\"\"",
    "K = \"\"\"\n@=\nx = @\n\"\"\"",
    "K = '''\n@\n[@]\n'''",
    "K = \"\"\"\\\n  @\"\"\"",
    "K = { a = \"@\" }",
    "K = { \"@\" = 1 }",
    "K = { @ = \"x\" }",
    "K = [{ K = \"@\" }]",
    "K.K = \"@\"",
    "K.@ = 1",
    "\"K\" = \"@\"",
    "\"@\" = \"K\"",
    "@ = \"K\"",
    "@.K = 1",
    "@",
    "\"@\",",
    "@ =",
    "= @",
    "K = ",
    "K = \"&\"",
    "\"&\" = 1",
    "K = [\"&\"",
    "K = \"@",
    "K = '@\nK = 1",
    "K = [\"@\"\nK = 1",
    "K = { a = \"@\"",
    "K == \"@\"",
    "export K=\"@\"",
    "K=\"@\" \"@\"",
    "K = 1@",
    "K = @@",
    "K = \"https://hooks.example.com/@?k=@\"",
    "K = \"https://@@hooks.example.com/\"",
    "K = \"http://@/x\"",
    "K = \"@://x\"",
    "K = \"/@/x\"",
    "K = \"/tmp/@\"",
    "K = \"~/@\"",
    "K = \"Authorization: Bearer @\"",
    "K = \"x @ y\"",
    "K = [\"sh\", \"-c\", \"curl -H @\"]",
];

fn escaped(secret: &str) -> String {
    let escapes: Vec<String> = secret.chars().map(|c| format!("\\u{:04X}", u32::from(c))).collect();
    escapes.concat()
}

fn document() -> impl Strategy<Value = String> {
    let setting =
        (0..LAYOUTS.len(), 0..KEYS.len()).prop_map(|(layout, key)| LAYOUTS[layout].replace('K', KEYS[key]));
    let table = (0..TABLES.len(), prop::collection::vec(setting, 0..4))
        .prop_map(|(table, settings)| format!("{}\n{}\n", TABLES[table], settings.join("\n")));
    (prop::collection::vec(table, 1..4), any::<bool>()).prop_map(|(tables, dos)| {
        let text = tables.concat();
        if dos { text.replace('\n', "\r\n") } else { text }
    })
}

/// What secrets look like: a mix of letters and digits, or many letters.
fn secret() -> impl Strategy<Value = String> {
    let mixed = "[A-Za-z0-9+/_=-]{16,48}".prop_filter("mixed", |text| {
        text.contains(|c: char| c.is_ascii_digit()) && text.contains(|c: char| c.is_ascii_uppercase())
    });
    prop_oneof![mixed, "whsec_[A-Za-z0-9+/]{42}[0-9A-Z]=", "[a-z]{16,40}", "[0-9a-f]{32}"]
}

#[track_caller]
fn assert_hides(secret: &str, shown: &str) {
    // The parser of URLs writes some of them in lower case.
    let (secret, lower) = (secret.to_lowercase(), shown.to_lowercase());
    for window in secret.as_bytes().windows(8) {
        let window = std::str::from_utf8(window).unwrap();
        assert!(!lower.contains(window), "`{window}` of {secret} is in:\n{shown}");
    }
}

fn everything_shown(parsed: &Result<Loaded, Report>) -> String {
    let (Ok(Loaded { report, .. }) | Err(report)) = parsed;
    let texts = report.problems.iter().map(|problem| format!("{} {:?}\n", problem.title, problem.help));
    format!(
        "{}\n{}\n{}\n{}\n{report:?}",
        report.render(Severity::Error, false),
        report.render(Severity::Warning, true),
        report.render_usable(false),
        texts.collect::<String>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_layout_of_a_file_shows_a_secret(document in document(), secret in secret()) {
        let text = document.replace('&', &escaped(&secret)).replace('@', &secret);
        let dir = tempfile::tempdir().unwrap();
        // A file that everybody can read gets a word about its secrets, too.
        let path = dir.path().join("config.toml");
        std::fs::write(&path, &text).unwrap();
        let parsed = parse(Some((&path, &text)), &|_| None, &Overrides::default());
        assert_hides(&secret, &everything_shown(&parsed));
    }

    #[test]
    fn no_variable_and_no_flag_shows_a_secret(secret in secret(), shape in 0..6_usize) {
        let shapes = ["@", "\"@\"", "https://@", "https://x:@@proxy", "Bearer @", "@: @\n@"];
        let value = shapes[shape].replace('@', &secret);
        let env = |name: &str| (name != "HOME" && name != "PATH").then(|| value.clone());
        let overrides = Overrides {
            base_url: Some(value.clone()),
            api_key_file: Some(PathBuf::from(&value)),
            ..Overrides::default()
        };
        for overrides in [Overrides::default(), overrides] {
            let parsed = parse(Some((Path::new("c"), "")), &env, &overrides);
            let key = parsed.as_ref().ok().and_then(|loaded| loaded.config.api.key.read().err());
            assert_hides(&secret, &format!("{}\n{key:?}", everything_shown(&parsed)));
        }
    }
}

#[test]
fn what_leaked_once_does_not_any_more() {
    let secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
    for text in [
        "[[notify.webhook]]\nurl = \"https://h\"\nsecrets = [\n  \"whsec_@=\",\n  7,\n]\n",
        "[[notify.webhook]]\nsecret: \"whsec_@=\"\n",
        "[api]\napi_key_file = \"@\"\nca_file = \"@\"\n",
        "[[notify.webhook]]\nsecret_file = \"whsec_@\"\nurl_file = \"https://h/@\"\n",
        "[[notify.log]]\nname = \"@\"\n[[notify.log]]\nname = \"@\"\n[[run]]\nid = \"a\"\nnotify = [\"x@\"]\n",
        "\"@\" = 1\n[api]\n@ = 1\n",
        "[poll]\nmax_interval = \"@\"\nbatch = \"@\"\n[log]\nlevel = \"@\"\n[daemon]\nlisten = \"@\"\n",
        "[discover]\nspec_name = \"[@\"\ncreated_after = \"@\"\n[[run]]\nid = \"'@'\"\n",
    ] {
        let text = text.replace('@', secret);
        let shown = everything_shown(&parse(Some((Path::new("c"), &text)), &|_| None, &Overrides::default()));
        assert_hides(secret, &shown);
        assert!(shown.contains("error"), "{text}");
    }
}

#[test]
fn what_cannot_be_secret_is_shown() {
    let text = "[poll]\nbatch = \"sometimes\"\nmax_interval = \"5 parsecs\"\nrequests_per_minute = 100000000\n\
                [daemon]\nlisten = \"0.0.0.0:9464\"\n[[notify.log]]\nevents = [\"run.faild\"]\nname = \"on-call\"\n\
                [[run]]\nid = \"3c90c3cc-0d44-4b50-8888-8dd25736052a\"\nnotify = [\"on-cal\"]\n\
                [[run]]\nid = \"3c90c3cc-0d44-4b50-8888-8dd25736052a\"\n[[notify.command]]\ncommand = []\ntimeout = \"soon\"\n";
    let shown = everything_shown(&parse(Some((Path::new("c"), text)), &|_| None, &Overrides::default()));
    for part in [
        "invalid value `sometimes` for `batch`",
        "batch = \"sometimes\"",
        "max_interval = \"5 parsecs\"",
        "requests_per_minute = 100000000",
        "listen = \"0.0.0.0:9464\"",
        "events = [\"run.faild\"]",
        "did you mean `on-call`?",
        "the run 3c90c3cc-0d44-4b50-8888-8dd25736052a is there twice",
        "timeout = \"soon\"",
    ] {
        assert!(shown.contains(part), "`{part}` is missing in:\n{shown}");
    }
}
