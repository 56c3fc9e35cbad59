//! Tests of whole configurations: the example, precedence, and all kinds of mistakes, reported together.

use std::path::Path;

use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

fn read(text: &str) -> Result<Loaded, Report> {
    parse(Some((Path::new("config.toml"), text)), &no_env, &Overrides::default())
}

/// The errors in a configuration, as shown to people.
#[track_caller]
fn errors(text: &str) -> String {
    read(text).expect_err("this must be refused").render(Severity::Error, false)
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    let shown = errors(text);
    for part in parts {
        assert!(shown.contains(part), "`{part}` is missing in:\n{shown}");
    }
}

/// The example with every setting uncommented. (Prose begins with a capital letter or has no `=`.)
fn example_with_everything() -> String {
    let is_setting = |line: &str| {
        line.starts_with("[[")
            || line == "[discover]"
            || line.split_once(" = ").is_some_and(|(key, _)| !key.is_empty() && !key.contains(' '))
    };
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_setting(rest) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_the_defaults() {
    let (example, defaults) = (read(EXAMPLE).unwrap(), read("").unwrap());
    assert_eq!(format!("{:?}", example.config), format!("{:?}", defaults.config));
    assert!(example.report.problems.is_empty());
}

#[test]
fn the_example_has_every_key_there_is() {
    // Files that the example names need not exist here, and some settings exclude each other.
    let text = example_with_everything()
        .lines()
        .filter(|line| {
            let files = ["url_file", "secret_file", "ca_file", "api_key_file"];
            !files.iter().any(|key| line.starts_with(&format!("{key} =")))
        })
        .collect::<Vec<_>>()
        .join("\n");
    let loaded = read(&text).map_err(|report| report.render(Severity::Error, false)).unwrap();
    assert_eq!((loaded.config.runs.len(), loaded.config.channels.len()), (1, 4));
    assert!(loaded.config.discover.is_some_and(|discover| discover.announce_past.is_some()));
    // An unknown key in each section gives an error that lists the known ones.
    for header in [
        "",
        "[api]",
        "[poll]",
        "[alerts]",
        "[delivery]",
        "[daemon]",
        "[log]",
        "[[run]]",
        "[discover]",
        "[notify]",
        "[[notify.webhook]]",
        "[[notify.desktop]]",
        "[[notify.log]]",
        "[[notify.command]]",
    ] {
        let shown = errors(&format!("{header}\nqqqqqq = 1\n"));
        let keys = shown
            .split(" are: ")
            .nth(1)
            .and_then(|rest| rest.lines().next())
            .unwrap_or_else(|| panic!("{shown}"));
        for key in keys.split(", ") {
            let there = EXAMPLE.lines().any(|line| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} ="))
                    || line.starts_with(&format!("[{key}"))
                    || line.starts_with(&format!("[[{key}"))
                    || line.contains(&format!("[[notify.{key}]]"))
            });
            assert!(there, "config.example.toml does not mention `{key}` of {header}");
        }
    }
}

#[test]
fn file_then_environment_then_flags() {
    let file = "[api]\nbase_url = \"https://file.example\"\n[log]\nlevel = \"error\"\nformat = \"text\"\n";
    let env = |name: &str| match name {
        "DATAFRAMER_BASE_URL" => Some("https://env.example/api/dataframer/".to_owned()),
        "RUNWATCH_LOG" => Some("debug".to_owned()),
        _ => None,
    };
    let source = Some((Path::new("c.toml"), file));
    let config = parse(source, &env, &Overrides::default()).unwrap().config;
    assert_eq!(config.api.base_url.as_str(), "https://env.example/");
    assert_eq!((config.log.level.as_deref(), config.log.format), (Some("debug"), LogFormat::Text));
    let flags = Overrides {
        base_url: Some("http://localhost:1".into()),
        log_level: Some("trace".into()),
        ..Overrides::default()
    };
    let config = parse(source, &env, &flags).unwrap().config;
    assert_eq!(config.api.base_url.as_str(), "http://localhost:1/");
    assert_eq!(config.log.level.as_deref(), Some("trace"));
}

#[test]
fn reads_custom_headers_as_the_sdk_does() {
    let env = |name: &str| {
        (name == "DATAFRAMER_CUSTOM_HEADERS")
            .then(|| "X-Team : data \nnonsense\nX-Url:http://a:1\n".to_owned())
    };
    let text = "[api]\nheaders = { X-Team = \"file\" }";
    let config = parse(Some((Path::new("c"), text)), &env, &Overrides::default()).unwrap().config;
    let headers: Vec<_> =
        config.api.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("X-Team", "file"), ("X-Team", "data"), ("X-Url", "http://a:1")]);
}

#[test]
fn every_problem_is_shown_at_once_and_where_it_is() {
    let text = "[poll]\nmax_intervall = \"1m\"\ninitial_interval = \"0s\"\n[api]\nbase_url = 7\n[[run]]\nname = \"x\"\n";
    let shown = errors(text);
    for part in [
        "config.toml:2:1",
        "unknown key `max_intervall` in [poll]",
        "did you mean `max_interval`?",
        "config.toml:3:20",
        "`0s` is no time at all",
        "config.toml:5:12",
        "`base_url` must be a string in quotes",
        "config.toml:6:1",
        "this [[run]] has no `id`",
    ] {
        assert!(shown.contains(part), "`{part}` is missing in:\n{shown}");
    }
    assert_eq!(shown.matches("error").count(), 4, "{shown}");
}

#[test]
fn broken_toml_says_where() {
    assert_says("[poll\nmax_interval = \"1m\"", &["config.toml:1"]);
    assert_says("[poll]\nmax_interval = \"1m", &["config.toml:2"]);
    assert_says("a = 1\na = 2\n", &["config.toml:2:1", "duplicate key"]);
    // A line that does not parse is reported once, together with other problems.
    let shown = errors("[poll]\nmax_interval = = 1\nplenty = 1\n");
    assert!(shown.contains("config.toml:2") && shown.contains("unknown key `plenty`"), "{shown}");
}

#[test]
fn durations_that_are_none() {
    for (value, said) in [
        ("\"0s\"", "no time at all"),
        ("\"-5m\"", "negative"),
        ("\"99999999999999999999h\"", "too long"),
        ("\"30\"", "has no unit"),
        ("\"soon\"", "not a length of time"),
        ("30", "must be a length of time in quotes"),
    ] {
        assert_says(&format!("[poll]\nmax_interval = {value}\n"), &[said, "config.toml:2:16"]);
    }
    assert_says("[poll]\ninitial_interval = \"2m\"\n", &["`initial_interval` is longer than `max_interval`"]);
    assert!(read("[poll]\ngrace = \"0s\"\n").is_ok(), "no grace at all can be wanted");
}

#[test]
fn numbers_out_of_range() {
    for line in [
        "requests_per_minute = 0",
        "requests_per_minute = -1",
        "requests_per_minute = 99999999999999999999",
        "max_in_flight = 0",
        "multiplier = 0.5",
        "multiplier = nan",
        "multiplier = inf",
        "jitter = 1.5",
        "jitter = -0.1",
    ] {
        assert_says(&format!("[poll]\n{line}\n"), &["out of range", "expected a"]);
    }
    assert!(read("[poll]\nmultiplier = 2\nrequests_per_minute = 0x10\n").is_ok());
}

#[test]
fn urls_and_ids() {
    assert_says(
        "[api]\nbase_url = \"htps://df-api.dataframer.ai\"\n",
        &["`htps` is not known", "config.toml:2:12"],
    );
    assert_says("[api]\nbase_url = \"http://df.example\"\n", &["not encrypted", "allow_http"]);
    assert!(read("[api]\nbase_url = \"http://df.example\"\nallow_http = true\n").is_ok());
    let url = read("[[run]]\nid = \"https://df-api.dataframer.ai/api/dataframer/runs/abc/\"\n").unwrap();
    assert_eq!(url.config.runs[0].id.as_str(), "abc");
    assert_says("[[run]]\nid = \"'abc'\"\n", &["pasted with quotes", "config.toml:2:6"]);
    assert_says(
        "[[run]]\nid = \"abc\"\n[[run]]\nid = \"abc\"\n",
        &["the run abc is listed twice", "config.toml:4:6"],
    );
}

#[test]
fn channels() {
    let good = "secret = \"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"";
    let webhook = |lines: &str| format!("[[notify.webhook]]\n{lines}\n");
    assert!(read(&webhook(&format!("url = \"https://h/x\"\n{good}"))).is_ok());
    assert!(read(&webhook("url = \"https://h/x\"\nunsigned = true")).is_ok());
    assert_says(&webhook("url = \"https://h/x\""), &["no `secret`", "unsigned = true", "config.toml:1"]);
    assert_says(
        &webhook(&format!("url = \"https://h/x\"\nunsigned = true\n{good}")),
        &["unsigned and has a secret"],
    );
    assert_says(&webhook(good), &["has no `url`"]);
    assert_says(&webhook(&format!("url = \"http://h/x\"\n{good}")), &["not encrypted"]);
    assert_says(
        &webhook(&format!("url = \"https://h/x\"\nurl_file = \"/x\"\n{good}")),
        &["both `url` and `url_file`"],
    );
    assert_says(
        "[[notify.desktop]]\n[[notify.desktop]]\n",
        &["two channels with the name `desktop`", "config.toml:2"],
    );
    assert_says(
        "[[notify.log]]\nname = \"a\"\n[[notify.desktop]]\nname = \"a\"\n",
        &["two channels with the name `a`"],
    );
    assert_says(
        "[[notify.log]]\nevents = [\"run.faild\"]\n",
        &["no event `run.faild`", "did you mean `run.failed`?"],
    );
    assert_says("[[notify.command]]\n", &["no `command`"]);
    assert_says("[[notify.command]]\ncommand = []\n", &["`command` is empty"]);
    assert_says(
        "[[notify.command]]\ncommand = \"rm -rf\"\n",
        &["`command` must be a list of strings", "found: string"],
    );
    assert_says("[notify.webhook]\nurl = \"https://h\"\n", &["write [[notify.webhook]]"]);
    assert_says("[[notify.pager]]\n", &["unknown key `pager`", "webhook, desktop, log, command"]);
    assert_says(
        "[[notify.log]]\n[[run]]\nid = \"a\"\nnotify = [\"logg\"]\n",
        &["no channel `logg`", "did you mean `log`?"],
    );
}

#[test]
fn a_secret_that_is_none_is_refused_and_never_shown() {
    for (secret, said) in
        [("hunter2", "whsec_"), ("whsec_hunter2hunter2!", "not base64"), ("whsec_aHVudGVyMg==", "7 bytes")]
    {
        let text =
            format!("[[notify.webhook]]\nurl = \"https://h/hunter2\"\nsecret = \"{secret}\" # hunter2\n");
        let shown = errors(&text);
        assert!(shown.contains(said) && shown.contains("config.toml:3:10"), "{shown}");
        assert!(!shown.contains("hunter") && !shown.contains("aHVudGVy"), "{shown}");
    }
    // Nor if the key is in the file, or a secret has the wrong type.
    for text in [
        "[api]\napi_key = \"hunter2\"\n",
        "[api]\nheaders = \"hunter2\"\n",
        "[api]\nheaders = { a = \"hunter2\" }\nx = 1\n",
        "api_key = \"hunter2\n",
    ] {
        let shown = errors(text);
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[test]
fn a_channel_that_no_run_uses_is_warned_of() {
    let text = "[[notify.log]]\n[[notify.desktop]]\n[[run]]\nid = \"a\"\nnotify = [\"log\"]\n";
    let loaded = read(text).unwrap();
    let shown = loaded.report.render(Severity::Warning, false);
    assert!(
        shown.contains("no run uses the channel `desktop`") && shown.contains("config.toml:2"),
        "{shown}"
    );
    assert_eq!(loaded.report.count(Severity::Warning), 1);
    assert!(read(&format!("{text}[[run]]\nid = \"b\"\n")).unwrap().report.problems.is_empty());
}

#[test]
fn keys_in_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let text = format!("[api]\napi_key_file = \"{}\"\n", path.display());
    let refused = |said: &str| {
        let shown = read(&text).unwrap_err().render(Severity::Error, false);
        assert!(shown.contains(said) && shown.contains("config.toml:2:16"), "{shown}");
    };
    refused("cannot read the API key from");
    std::fs::write(&path, " \n").unwrap();
    refused("is empty");
    std::fs::write(&path, "one\ntwo\n").unwrap();
    refused("has more than one line: 2 lines");
    std::fs::write(&path, "hunter2\n").unwrap();
    assert_eq!(read(&text).unwrap().config.api.key.read().unwrap().expose(), "hunter2");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let shown = read(&text).unwrap().report.render(Severity::Warning, false);
    assert!(shown.contains("everybody on this machine can read") && shown.contains("chmod 600"), "{shown}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(read(&text).unwrap().report.problems.is_empty());
}

#[test]
fn a_credential_wins_over_the_file_and_the_file_over_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let (credentials, file) = (dir.path().join("credentials"), dir.path().join("key"));
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(&file, "from-the-file").unwrap();
    let text = format!("[api]\napi_key_file = \"{}\"\n", file.display());
    let env = |name: &str| match name {
        "CREDENTIALS_DIRECTORY" => Some(credentials.to_str().unwrap().to_owned()),
        "DATAFRAMER_API_KEY" => Some("from-the-environment".to_owned()),
        _ => None,
    };
    let key = |text: &str| {
        let loaded = parse(Some((Path::new("c"), text)), &env, &Overrides::default()).unwrap();
        loaded.config.api.key.read().unwrap().expose().to_owned()
    };
    assert_eq!(key(""), "from-the-environment");
    assert_eq!(key(&text), "from-the-file");
    std::fs::write(credentials.join("dataframer-api-key"), "from-the-credential").unwrap();
    assert_eq!(key(&text), "from-the-credential");
}

#[test]
fn no_key_at_all_says_where_to_put_one() {
    let error = read("").unwrap().config.api.key.read().unwrap_err();
    assert!(error.contains("DATAFRAMER_API_KEY") && error.contains("api_key_file"), "{error}");
}

#[test]
fn what_cannot_work_is_found_at_once() {
    let text = "[api]\nca_file = \"/nowhere/ca\"\nheaders = { \"a b\" = \"hunter2\", ok = \"x\\ny\" }\n[[run]]\nid = \"a\"\n\
                name = \" \"\n[[notify.webhook]]\nurl = \"https://https://hooks.example.com\"\nunsigned = true\n";
    let shown = errors(text);
    for part in [
        "config.toml:2:11",
        "`a b` is not a header name",
        "the value of `ok` cannot be sent",
        "`name` is empty",
        "config.toml:6:8",
        "there are two URLs in one; expected a URL such as https://hooks.example.com",
    ] {
        assert!(shown.contains(part), "`{part}` is missing in:\n{shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_secret_in_a_file_that_everybody_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let text = "[[notify.webhook]]\nurl = \"https://hooks.acme.io\"\nsecret = \"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\n";
    std::fs::write(&path, text).unwrap();
    let warnings = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let loaded = parse(Some((&path, text)), &|_| None, &Overrides::default()).unwrap();
        loaded.report.render(Severity::Warning, false)
    };
    let shown = warnings(0o644);
    assert!(
        shown.contains("everybody on this machine can read this secret") && shown.contains(":3:10"),
        "{shown}"
    );
    assert!(!shown.contains("MDEyMzQ1"), "{shown}");
    assert_eq!(warnings(0o600), "");
}

#[test]
fn a_secret_file_gives_way_to_the_credential_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[notify.webhook]]\nurl = \"https://hooks.example.com\"\nsecret_file = \"/nowhere/webhook-secret\"\n";
    let env = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| dir.path().to_str().unwrap().to_owned());
    let loaded = || parse(Some((Path::new("c"), text)), &env, &Overrides::default()).unwrap();
    // Only the channel without its file is unusable.
    let without = loaded();
    assert!(matches!(without.config.channels[0].kind, ChannelKind::Unusable(_)), "{without:?}");
    let shown = without.report.render(Severity::Error, false);
    assert!(shown.contains("cannot read the webhook secret from /nowhere/webhook-secret"), "{shown}");
    assert_eq!(without.report.count(Severity::Error), 1, "{shown}");
    std::fs::write(dir.path().join("webhook-secret"), "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n")
        .unwrap();
    assert!(matches!(loaded().config.channels[0].kind, ChannelKind::Webhook { .. }));
}

#[test]
fn alerts_delivery_and_daemon() {
    let text = "[alerts]\nstalled_after = \"1h\"\nunreachable_after = \"0s\"\n[delivery]\nretry_delays = [\"1s\", \"2s\"]\n\
                [daemon]\nkeep = \"7d\"\nlisten = \"[::1]:9464\"\nsocket_mode = \"0660\"\n[[run]]\nid = \"a\"\ndeadline = \"3h\"\n\
                [[notify.desktop]]\ngather = \"0s\"\n";
    let config = read(text).unwrap().config;
    let (alerts, second) = (config.alerts, Duration::from_secs(1));
    assert_eq!((alerts.stalled_after, alerts.overdue_after), (Some(3600 * second), None));
    assert_eq!((alerts.unreachable_after, alerts.remind_every), (None, 6 * 3600 * second));
    assert_eq!(config.retry_delays, [second, 2 * second]);
    assert_eq!((config.daemon.keep, config.daemon.socket_for_group), (7 * 24 * 3600 * second, true));
    assert_eq!(config.daemon.listen, "[::1]:9464".parse().ok());
    assert_eq!(config.runs[0].deadline, Some(3 * 3600 * second));
    let shown = errors(
        "[alerts]\nstalled_after = \"0s\"\n[delivery]\nretry_delays = [\"5\"]\n[daemon]\nlisten = \"0.0.0.0:1\"\nsocket_mode = \"0666\"\n",
    );
    for part in [
        "`stalled_after`",
        "`retry_delays`",
        "`0.0.0.0:1` is not an address of this machine",
        "invalid value `0666` for `socket_mode`",
        "expected \"0600\" or \"0660\"",
    ] {
        assert!(shown.contains(part), "`{part}` is missing in:\n{shown}");
    }
}

#[test]
fn names_that_the_port_answers_to() {
    let loaded =
        read("[daemon]\nlisten = \"127.0.0.1:1\"\nlisten_names = [\"Host.Example.\", \"a_b-c\"]\n").unwrap();
    assert_eq!(loaded.config.daemon.listen_names, ["host.example", "a_b-c"]);
    assert!(loaded.report.problems.is_empty());
    let alone = read("[daemon]\nlisten_names = [\"host\"]\n").unwrap();
    assert!(alone.report.render(Severity::Warning, false).contains("no effect without `listen`"));
    for name in ["", "*", "*.example", "http://host", "host:9464", "a..b", "user@host", "höst", "two words"]
    {
        let report =
            read(&format!("[daemon]\nlisten = \"127.0.0.1:1\"\nlisten_names = [\"{name}\"]\n")).unwrap_err();
        let shown = report.render(Severity::Error, false);
        assert!(
            shown.contains("in `listen_names`") && shown.contains("expected a host name"),
            "{name}: {shown}"
        );
    }
    assert!(read("[daemon]\nlisten_names = \"host\"\n").is_err());
}

#[test]
fn one_mistake_is_one_error() {
    let one = |text: &str, said: &str| {
        let report = read(text).expect_err(text);
        let shown = report.render(Severity::Error, false);
        assert!(shown.contains(said), "`{said}` is missing in:\n{shown}");
        assert_eq!(report.count(Severity::Error), 1, "{shown}");
        assert_eq!(report.count(Severity::Warning), 0, "{}", report.render(Severity::Warning, false));
    };
    // With an invalid base URL, the other keys of its table are still known.
    one(
        "[api]\nbase_url = \"htps://x\"\nconnect_timeout = \"5s\"\nrequest_timeout = \"5s\"\nheaders = {}\nemail = \"a@b\"\n",
        "`htps` is not known",
    );
    // A channel with a mistake still counts as existing.
    let run = "[[run]]\nid = \"a\"\nnotify = [\"hook\"]\n";
    for channel in [
        "[[notify.webhook]]\nname = \"hook\"\nurl = \"ftp://h\"\nunsigned = true\n",
        "[[notify.webhook]]\nname = \"hook\"\nunsigned = true\n",
        "[[notify.command]]\nname = \"hook\"\n",
        "[[notify.command]]\nname = \"hook\"\ncommand = [7]\n",
        "[notify.webhook]\nname = \"hook\"\n",
        "[[notify.wehbook]]\nname = \"hook\"\n",
    ] {
        one(&format!("{channel}{run}"), "");
    }
    // A run with a mistake still uses its channel.
    one("[[notify.log]]\n[[run]]\nid = \"a b\"\nnotify = [\"log\"]\n", "white space");
}

#[test]
fn mistakes_beside_a_bad_base_url_are_found() {
    let shown = errors("[api]\nbase_url = \"htps://x\"\nconnect_timeout = \"soon\"\nplenty = 1\n");
    for part in ["`htps` is not known", "`connect_timeout`", "unknown key `plenty`"] {
        assert!(shown.contains(part), "`{part}` is missing in:\n{shown}");
    }
}

#[test]
fn what_is_overridden_is_checked_too() {
    let env = |name: &str| (name == "DATAFRAMER_BASE_URL").then(|| "https://env.example".to_owned());
    let text = "[api]\nbase_url = \"htps://x\"\n";
    let overrides = Overrides { base_url: Some("https://flag.example".into()), ..Overrides::default() };
    for overrides in [Overrides::default(), overrides] {
        let report = parse(Some((Path::new("c"), text)), &env, &overrides).unwrap_err();
        let shown = report.render(Severity::Error, false);
        assert!(shown.contains("c:2:12"), "{shown}");
    }
}

#[test]
fn http_is_allowed_where_the_url_is_given() {
    let http = || Some("http://df.example".to_owned());
    let flag = Overrides { base_url: http(), ..Overrides::default() };
    let env = |name: &str| (name == "DATAFRAMER_BASE_URL").then(|| "http://df.example".to_owned());
    for report in
        [parse(None, &no_env, &flag).unwrap_err(), parse(None, &env, &Overrides::default()).unwrap_err()]
    {
        let shown = report.render(Severity::Error, false);
        assert!(shown.contains("--allow-http") && !shown.contains("allow_http ="), "{shown}");
    }
    assert_says("[api]\nbase_url = \"http://df.example\"\n", &["allow_http = true in [api]"]);
}

#[test]
fn what_never_takes_effect_fails_the_check_and_stops_nothing() {
    for (text, said) in [
        ("[[notify.command]]\ncommand = [\"/nowhere/program\"]\n", "there is no program /nowhere/program"),
        ("[[notify.command]]\ncommand = [\"no-such-tool\"]\n", "`no-such-tool` in PATH"),
        ("[[notify.command]]\ncommand = [\"/etc/passwd\"]\n", "may not be executed"),
        ("[[notify.command]]\ncommand = [\"~/nowhere/x\"]\n", "no shell replaces the ~"),
        ("[delivery]\nretry_delays = []\n", "`retry_delays` is empty"),
        ("[[notify.log]]\nevents = []\n", "`events` is empty"),
        ("[discover]\ncreated_by_email = \"@example.com\"\n", "never matches"),
        ("[discover]\nspec_name = \"[z-a]\"\n", "never matches"),
        ("[api]\nemail = \"ana\"\n", "`email` is not an e-mail address"),
    ] {
        let report = read(text).map_err(|report| report.render(Severity::Error, false)).unwrap().report;
        assert_eq!(report.count(Severity::Error), 1, "{text}");
        assert!(report.render(Severity::Error, false).contains(said), "{text}: {report:?}");
        assert!(report.render_usable(false).contains(said), "{text}");
    }
    assert!(read("[[notify.command]]\ncommand = [\"sh\"]\n").unwrap().report.problems.is_empty());
}

#[test]
fn what_can_be_used_but_was_hardly_meant_is_an_error_for_the_check_only() {
    for (text, said) in [
        ("state_dir = \"state\"\n", "`state_dir` is relative"),
        ("[[run]]\nid = \"a\"\nname = \"a\\u202eb\"\n", "`name` has control characters or invisible"),
        ("[[run]]\nid = \"a\"\nname = \"a\\u200bb\"\n", "`name` has control characters or invisible"),
    ] {
        let report = read(text).unwrap().report;
        assert!(report.render(Severity::Error, false).contains(said), "{text}: {report:?}");
    }
    assert_says("[[run]]\nid = \"a\"\nname = \"a\\u0007b\"\n", &["`name` has control characters"]);
}

#[test]
fn a_log_level_is_whole() {
    for text in
        ["info", "DEBUG", "off", "info,runwatch::api=debug", "runwatch::api", "hyper_util=warn", "a=3"]
    {
        assert!(is_level(text), "{text}");
    }
    for text in
        ["", "info,", ",", "runwatch=", "info,debug", "3", "a:::b", "run watch=debug", "::=debug", "=info"]
    {
        assert!(!is_level(text), "{text}");
    }
}
