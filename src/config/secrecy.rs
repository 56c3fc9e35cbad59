//! Tests that messages never show eight characters of a secret, wherever it is in a configuration.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// Keys of every section, and some unknown ones.
const KEYS: [&str; 50] = [
    "allow_http",
    "announce_past",
    "api_key",
    "api_key_file",
    "apikey",
    "base_url",
    "batch",
    "ca_file",
    "command",
    "connect_timeout",
    "created_after",
    "created_by_email",
    "dataset_name",
    "deadline",
    "email",
    "events",
    "format",
    "gather",
    "grace",
    "headers",
    "id",
    "interval",
    "keep",
    "level",
    "listen",
    "listen_names",
    "max_in_flight",
    "multiplier",
    "name",
    "notify",
    "password",
    "poll",
    "requests_per_minute",
    "remind_every",
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
    "token",
    "unsigned",
    "url",
    "url_file",
    "watch_dir",
    "webhook",
];

/// Headers of tables; `@` stands for the secret.
const TABLES: [&str; 30] = [
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
    "[[notify.desktop]]",
    "[[notify.@]]",
    "[[notify.pager]]",
    "[notify.webhook.@]",
    "[[notify.webhook]]\n[notify.webhook.secret]",
    "[api.\"@\"]",
    "[discover.@]",
    "[ notify . '@' ]",
    "[[notify.webhook]",
    "[notify.webhook",
    "[[run]]\n[[run.@]]",
    "notify:\n  webhook:\n    - url: @",
];

/// Forms of a setting. `K` stands for its key, `@` for the secret, `&` for the secret with escapes.
const LAYOUTS: [&str; 105] = [
    "K = \"@\"",
    "K = '@'",
    "K = @",
    "K: \"@\"",
    "K: @",
    "K @",
    "K =@",
    "K==@",
    "K=[@,@]",
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
    "K = [\"curl -H @\"]",
    // Inline tables and dotted keys, in the right place and elsewhere.
    "notify.webhook = [{ url = \"@\", secret = \"@\", K = \"@\" }]",
    "notify = { webhook = [{ K = '@' }] }",
    "notify.webhook.K = \"@\"",
    "K.\"@\".x = 1",
    "K . K = \"@\"",
    "\"K\".'@' = 1",
    "K = { K = { @ = '@' } }",
    "K = { url = \"https://x/@\", secrets = [\"@\"] }",
    "K = [[\"@\"], ['@']]",
    "K = [{ a = ['@'] }, \"@\"]",
    "K = [{ url = \"@\",\n secret = \"@\" }]",
    // As in YAML, JSON, shell and other formats.
    "- K: \"@\"",
    "- @",
    "K:\n  - @\n  - \"@\"",
    "K: |\n  @",
    "{ \"K\": \"@\" }",
    "\"K\": \"@\",",
    "; K = @",
    "// K = \"@\"",
    "K := \"@\"",
    "K = \"@\";",
    "set K @",
    "<K>@</K>",
    // The same key twice.
    "K = \"@\"\nK = \"@\"",
    "K = 1\nK.@ = 2",
    "@ = 1\n@ = 2",
    // Every other type of value, broken.
    "K = 2026-11-01T@",
    "K = 0x@",
    "K = 1.@",
    "K = -@",
    "K = 1e@",
    "K = true@",
    "K = inf@",
    // Values that begin or end like valid ones.
    "K = \"30s@\"",
    "K = \"@ 30s\"",
    "K = \"auto@\"",
    "K = [\"5s\", \"@\"]",
    "K = \"info,@=debug\"",
    "K = \"127.0.0.1:@\"",
    "K = \"2026-11-01 @\"",
    "K = \"a\" + \"@\"",
    "K = \"\\q@\"",
    "K = \"@\\\"@\"",
    "K = \"\"\"@",
    "K = '''\n@=",
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
    (prop::collection::vec(table, 1..4), 0..8).prop_map(|(tables, odd)| {
        let text = tables.concat();
        match odd {
            0 | 1 => text.replace('\n', "\r\n"),
            2 => format!("\u{feff}{text}"),
            3 => text.replace('\n', "\0\n"),
            _ => text,
        }
    })
}

/// Typical secrets: a mix of letters and digits, or many letters.
fn secret() -> impl Strategy<Value = String> {
    let mixed = "[A-Za-z0-9+/_=-]{16,48}".prop_filter("mixed", |text| {
        text.contains(|c: char| c.is_ascii_digit()) && text.contains(|c: char| c.is_ascii_uppercase())
    });
    let grouped = "[a-z][0-9][a-z0-9]{2}(-[a-z][0-9][a-z0-9]{2}){3,5}";
    prop_oneof![mixed, grouped, "whsec_[A-Za-z0-9+/]{42}[0-9A-Z]=", "[a-z]{16,40}", "[0-9a-f]{32}"]
}

#[track_caller]
fn assert_hides(secret: &str, shown: &str) {
    // The URL parser converts some of them to lower case.
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
    fn no_layout_of_a_file_shows_a_secret(
        document in document(), secret in secret(), invalid in prop::option::weighted(0.05, any::<prop::sample::Index>()),
    ) {
        let mut bytes = document.replace('&', &escaped(&secret)).replace('@', &secret).into_bytes();
        if let Some(at) = invalid {
            bytes.insert(at.index(bytes.len()), 0xff);
        }
        let dir = tempfile::tempdir().unwrap();
        // A file that everyone can read also gets a warning about its secrets.
        let path = dir.path().join("config.toml");
        std::fs::write(&path, bytes).unwrap();
        let parsed = read(Located::Named(path), &|_| None, &Overrides::default());
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
fn a_sign_before_a_bare_value_counts_as_part_of_a_secret() {
    for (text, secret) in [
        ("\nallow_http @\n", "=-AAa0A0-++-Aaa_"),
        ("[[run]]\n@\n", "id=ABCDEFGHIJKL0"),
        ("[api]\nrequest_timeout=@", "AAa0A0-++-Aaa_="),
    ] {
        let text = text.replace('@', secret);
        let parsed = parse(Some((Path::new("c"), &text)), &|_| None, &Overrides::default());
        assert_hides(secret, &everything_shown(&parsed));
    }
}

/// A valid configuration with a secret in every possible place.
const SECRETS_IN_PLACE: &str = "[api]\nheaders = { X-Token = \"@\" }\n\
    [[notify.webhook]]\nname = \"a\"\nurl = \"https://hooks.example.com/@?k=@\"\nsecret = \"whsec_@\"\n\
    [[notify.webhook]]\nname = \"b\"\nurl = '''https://hooks.example.com/@'''\nsecrets = [\n  \"whsec_@\",\n  'whsec_@',\n]\n\
    [[notify.command]]\ncommand = [\"sh\", \"-c\", \"curl -H 'Authorization: Bearer @'\", '@']\n\
    [[notify.command]]\nname = \"c\"\ncommand = [\"/bin/curl -H @\"]\n\
    [[notify.log]]\nname = \"d\"\n";

#[test]
fn debug_shows_no_secret() {
    let secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let text = SECRETS_IN_PLACE.replace('@', secret);
    let env = |name: &str| match name {
        "DATAFRAMER_API_KEY" => Some(secret.to_owned()),
        "DATAFRAMER_CUSTOM_HEADERS" => Some(format!("X-Other: {secret}")),
        _ => None,
    };
    let overrides = Overrides { base_url: Some(format!("https://me:{secret}@h")), ..Overrides::default() };
    let loaded = parse(Some((Path::new("c"), &text)), &env, &Overrides::default()).unwrap();
    assert_eq!(loaded.config.channels.len(), 5);
    let shown = format!("{loaded:?}\n{loaded:#?}\n{overrides:?}\n{}", everything_shown(&Ok(loaded.clone())));
    assert_hides(secret, &shown);
    for part in ["CommandSettings", "\"sh\"", "30s", "hooks.example.com", "X-Token"] {
        assert!(shown.contains(part), "`{part}` is missing in:\n{shown}");
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
fn a_warning_about_a_host_shows_no_secret_in_its_name() {
    let secret = "be0301e5df4388a4c5eb7bdda78877aa";
    let text =
        format!("[[notify.webhook]]\nurl = \"https://{secret}.hooks.example.com/\"\nunsigned = true\n");
    let shown = everything_shown(&parse(Some((Path::new("c"), &text)), &|_| None, &Overrides::default()));
    assert_hides(secret, &shown);
    assert!(shown.contains("nobody receives what is sent to example.com"), "{shown}");
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
        "the run 3c90c3cc-0d44-4b50-8888-8dd25736052a is listed twice",
        "timeout = \"soon\"",
    ] {
        assert!(shown.contains(part), "`{part}` is missing in:\n{shown}");
    }
}
