//! Other commands on the built binary: `config check`, `help`, `man`, `completions`.

use crate::support::bin::runwatch;
use crate::support::body::run;
use crate::support::stub::Stub;

#[test]
fn config_check_shows_every_problem_and_where() {
    let text = "[poll]\nmax_intervall = \"1m\"\njitter = 7\n[[notify.log]]\n[[notify.log]]\n";
    let output = runwatch(&["config", "check"]).config(text).run();
    assert_eq!(output.code, Some(78), "{output:?}");
    for part in [
        "config.toml:2:1",
        "did you mean `max_interval`?",
        "config.toml:3:10",
        "config.toml:5",
        "config.toml: 3 errors",
    ] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    assert_eq!(output.stdout, "");
}

#[test]
fn config_check_needs_no_network_and_no_key() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.toml");
    let output = runwatch(&["config", "check", example]).without("DATAFRAMER_API_KEY").run();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.ends_with("config.example.toml: OK, 1 warning\n"), "{output:?}");
    assert!(output.stderr.contains("warning: there is no API key"), "{output:?}");
    let output = runwatch(&["config", "check"]).run();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(0), "no configuration file, defaults only: OK\n")
    );
}

#[test]
fn config_check_looks_at_what_the_configuration_points_to() {
    let output = runwatch(&["config", "check"])
        .config("[api]\napi_key_file = \"/nowhere/key\"\nca_file = \"/nowhere/ca\"\n")
        .run();
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stderr.contains("/nowhere/key") && output.stderr.contains("/nowhere/ca"), "{output:?}");
    for file in ["/nowhere/config.toml", "/"] {
        let output = runwatch(&["config", "check", file]).run();
        assert_eq!(output.code, Some(78), "{output:?}");
        assert!(output.stderr.contains(&format!("cannot read the configuration file {file}")), "{output:?}");
    }
}

#[test]
fn every_command_has_help_and_a_man_page() {
    let dir = tempfile::tempdir().unwrap();
    let output = runwatch(&["man", dir.path().to_str().unwrap()]).run();
    assert_eq!(output.code, Some(0), "{output:?}");
    for command in [
        "watch",
        "wait",
        "status",
        "daemon",
        "daemon status",
        "config check",
        "config init",
        "config path",
        "config show",
        "notify list",
        "notify test",
        "simulate",
        "demo",
    ] {
        let words: Vec<&str> = ["help"].into_iter().chain(command.split(' ')).collect();
        let help = runwatch(&words).run();
        assert!(help.code == Some(0) && help.stdout.contains("Usage:"), "{command}: {help:?}");
        let page = dir.path().join(format!("runwatch-{}.1", command.replace(' ', "-")));
        let page =
            std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(page.contains(".SH \"EXIT STATUS\"") && page.contains(".SH \"SEE ALSO\""), "{command}");
        assert!(page.contains("\\fBrunwatch\\fR(1)"), "{command}");
        let title = page.lines().find(|line| line.starts_with(".TH ")).unwrap();
        assert!(title.contains(" 1 20"), "{command} has no date: {title}");
    }
}

#[test]
fn variables_and_files_are_listed_where_they_apply() {
    let reference = include_str!("../../docs/reference.md");
    let (_, table) = reference.split_once("## Environment variables").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `") && !line.contains("systemd"));
    let documented: Vec<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .filter(|name| !name.starts_with("GITHUB"))
        .collect();
    assert!(documented.len() > 12, "{documented:?}");
    let man = runwatch(&["man"]).env("SOURCE_DATE_EPOCH", "1790000000").run().stdout;
    assert!(man.contains(" 2026-09-21 "), "the date of the source: {man}");
    let help = runwatch(&["--help"]).run().stdout;
    for name in documented {
        assert!(help.contains(&format!("  {name} ")) && man.contains(&format!("\\fB{name}\\fR")), "{name}");
    }
    for part in ["config.toml", "runwatch.db", "runwatch.sock"] {
        assert!(help.contains(part) && man.contains(part), "{part}");
    }
    for section in ["ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO"] {
        assert!(man.contains(&format!(".SH \"{section}\"")), "{section}");
    }
    for (args, has, has_not) in [
        (&["wait", "--help"][..], "DATAFRAMER_API_KEY ", "RUNWATCH_SOCKET "),
        (&["add", "-h"], "RUNWATCH_SOCKET ", "DATAFRAMER_API_KEY "),
        (&["help", "config", "check"], "RUNWATCH_CONFIG ", "RUNWATCH_SOCKET "),
        (&["man", "--help"], "Usage", "RUNWATCH_"),
    ] {
        let help = runwatch(args).run().stdout;
        assert!(help.contains(has) && !help.contains(has_not), "{args:?}: {help}");
    }
}

#[test]
fn version_and_help_are_no_failure() {
    for args in [&["--version"][..], &["--help"], &["help"], &["wait", "--help"]] {
        let output = runwatch(args).run();
        assert!(
            output.code == Some(0) && !output.stdout.is_empty() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
}

#[test]
fn colours_are_printed_where_the_flag_says() {
    for (args, coloured) in [
        (&["--color", "always", "--help"][..], true),
        (&["--help", "--color=always"], true),
        (&["--help", "--color", "never"], false),
        (&["--help"], false),
        (&["wait", "--nope", "--color=always"], true),
        (&["wait", "--nope", "--color=always", "--color=never"], false),
    ] {
        for variable in ["NO_COLOR", "X"] {
            let output = runwatch(args).env(variable, "1").run();
            let shown = output.stdout.clone() + &output.stderr;
            assert_eq!(shown.contains('\x1b'), coloured, "{args:?} {variable}: {output:?}");
        }
    }
    let output = runwatch(&["status", "r", "--color", "sometimes"]).run();
    assert!(output.code == Some(2) && output.stderr.contains("always"), "{output:?}");
}

#[test]
fn short_flags_do_what_they_do_elsewhere() {
    let ended = || Stub::with([run().ok(), run().status("SUCCEEDED").ok()]);
    // A warning is no progress.
    let warning = "warning: r SUCCEEDED with 2 of 200 samples failed\n";
    let output = runwatch(&["wait", "r", "-o", "json", "-q"]).api(&ended()).quick("").run();
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), warning), "{output:?}");
    assert_eq!(output.json()["verdict"], "succeeded");
    let output = runwatch(&["watch", "r", "--quiet"]).api(&ended()).quick("").run();
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), warning), "{output:?}");
    assert!(output.stdout.lines().count() == 1 && output.stdout.contains("SUCCEEDED"), "{output:?}");
    let logged = |flag: &str| runwatch(&["wait", "r", flag]).api(&ended()).quick("").run().stderr;
    assert!(logged("-v").contains("DEBUG") && !logged("-v").contains("TRACE"), "{}", logged("-v"));
    assert!(logged("-vv").contains("TRACE"), "{}", logged("-vv"));
    let output = runwatch(&["wait", "r", "--interval", "10ms", "--eagerness", "low"]).run();
    assert!(output.code == Some(2) && output.stderr.contains("--eagerness"), "{output:?}");
    let output = runwatch(&["wait", "r", "--eagerness", "very"]).run();
    assert!(output.code == Some(2) && output.stderr.contains("normal"), "{output:?}");
}

#[test]
fn config_init_makes_a_file_that_is_valid_and_leaves_one_that_exists_alone() {
    let home = tempfile::tempdir().unwrap();
    let at_home = |args: &[&str]| runwatch(args).env("HOME", home.path()).run();
    let file = home.path().join(".config/runwatch/config.toml");
    let nowhere = at_home(&["config", "path"]);
    assert!(nowhere.code == Some(78) && nowhere.stderr.contains("runwatch config init"), "{nowhere:?}");
    let made = at_home(&["config", "init", "--notify", "webhook,desktop,log,command"]);
    assert!(made.code == Some(0) && made.stdout.contains("config check"), "{made:?}");
    // What was written for the user to change is named by its line.
    for (key, what) in [("url", "example.com"), ("command", "program")] {
        let said = made.stdout.lines().find(|line| line.starts_with(&format!("change `{key}` in line ")));
        let said = said.unwrap_or_else(|| panic!("{key}: {made:?}"));
        let line: usize = said.split(' ').nth(4).unwrap().parse().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.lines().nth(line - 1).unwrap().starts_with(&format!("{key} = ")), "{said}");
        assert!(said.contains(what), "{said}");
    }
    assert_eq!(at_home(&["config", "path"]).stdout, format!("{}\n", file.display()));
    let rights = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(rights & 0o777, 0o600);
    let listed = at_home(&["notify", "list", "-o", "json"]).json();
    let kinds: Vec<&str> = listed["channels"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|channel| channel["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["webhook", "desktop", "log", "command"], "{listed}");
    let text = std::fs::read_to_string(&file).unwrap();
    let again = at_home(&["config", "init"]);
    assert!(again.code == Some(78) && again.stderr.contains("exists"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    // Each has a secret of its own, and none is the example's.
    let printed = at_home(&["config", "init", "-", "--notify", "webhook"]).stdout;
    let secret =
        |text: &str| text.lines().find(|line| line.starts_with("secret = ")).map(str::to_owned).unwrap();
    assert_ne!(secret(&printed), secret(&text));
    assert!(!text.contains(&secret(&printed)) && !secret(&text).contains("MDEyMzQ1"));
    for (kinds, end) in [("desktop", "OK"), ("webhook", "OK, 1 warning"), ("log", "OK")] {
        let checked = home.path().join(format!("{kinds}.toml"));
        let path = checked.to_str().unwrap();
        assert_eq!(at_home(&["config", "init", path, "--notify", kinds]).code, Some(0));
        let output = at_home(&["config", "check", path]);
        assert!(
            output.code == Some(0) && output.stdout.ends_with(&format!(": {end}\n")),
            "{kinds}: {output:?}"
        );
    }
}

#[test]
fn a_receiver_with_a_name_for_examples_is_warned_of() {
    let check = |host: &str| {
        let config = format!("[[notify.webhook]]\nurl = \"https://{host}/x\"\nunsigned = true\n");
        runwatch(&["config", "check"]).config(&config).run()
    };
    for (host, domain) in [
        ("example.com", "example.com"),
        ("hooks.example.org", "example.org"),
        ("receiver.example", "example"),
    ] {
        let output = check(host);
        assert!(output.code == Some(0) && output.stdout.ends_with("OK, 1 warning\n"), "{output:?}");
        assert!(output.stderr.contains(&format!("nobody receives what is sent to {domain}:")), "{output:?}");
        assert!(!output.stderr.contains("/x"), "a URL is a credential: {output:?}");
    }
    for host in ["myexample.com", "example.com.acme.io"] {
        assert!(check(host).stdout.ends_with(": OK\n"), "{host}");
    }
}

#[test]
fn config_show_has_every_setting_and_its_origin() {
    let config = "[poll]\ngrace = \"2m\"\n[[notify.webhook]]\nurl = \"https://h/SECRET\"\n\
                  secret = \"whsec_U0VDUkVUU0VDUkVUU0VDUkVUU0VDUkVU\"\n";
    let show = |format: &str| {
        let args = ["config", "show", "--output", format, "--log-level", "debug"];
        runwatch(&args).config(config).env("DATAFRAMER_BASE_URL", "https://env").run()
    };
    let text = show("text");
    assert_eq!(text.code, Some(0), "{text:?}");
    for (line, origin) in [
        ("grace = \"2m\"", "config.toml:2"),
        ("jitter = 0.1", "default"),
        ("base_url = \"https://env\"", "environment variable DATAFRAMER_BASE_URL"),
        ("api_key = \"hidden\"", "environment variable DATAFRAMER_API_KEY"),
        ("level = \"debug\"", "flag --log-level"),
        ("url = \"https://h/hidden\"", "config.toml:4"),
        ("secret = \"hidden\"", "config.toml:5"),
    ] {
        let shown = text.stdout.lines().any(|shown| shown.starts_with(line) && shown.ends_with(origin));
        assert!(shown, "{line} {origin}: {}", text.stdout);
    }
    let json = show("json");
    assert!(!text.stdout.contains("SECRET") && !json.stdout.contains("SECRET"), "{text:?} {json:?}");
    assert!(!text.stdout.contains("test-key") && !json.stdout.contains("test-key"), "{text:?} {json:?}");
    let json = json.json();
    assert_eq!(json["version"], 1);
    let of = |name: &str| {
        json["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == name).unwrap().clone()
    };
    assert_eq!((&of("poll.grace")["value"], &of("poll.grace")["from"]["line"]), (&"2m".into(), &2.into()));
    assert_eq!(of("api.base_url")["from"]["name"], "DATAFRAMER_BASE_URL");
    let broken = runwatch(&["config", "show"]).config("[poll]\ngrace = 1\n").run();
    assert!(broken.code == Some(78) && broken.stderr.contains("config.toml:2"), "{broken:?}");
}

#[test]
fn notify_list_shows_channels_and_no_secrets() {
    let config = "[[notify.webhook]]\nname = \"hook\"\nurl = \"https://example.com/SECRETPATH\"\n\
                  unsigned = true\nevents = [\"run.failed\"]\n[[notify.log]]\n[[notify.command]]\n\
                  command = [\"/bin/true\", \"SECRETPATH\"]\n";
    for format in ["text", "json"] {
        let output = runwatch(&["notify", "list", "-o", format]).config(config).run();
        assert_eq!(output.code, Some(0), "{output:?}");
        for part in ["hook", "https://example.com", "run.failed", "log", "/bin/true"] {
            assert!(output.stdout.contains(part), "{part}: {output:?}");
        }
        assert!(!output.stdout.contains("SECRET"), "{output:?}");
    }
    let none = runwatch(&["notify", "list"]).run();
    assert!(none.code == Some(0) && none.stdout.starts_with("no channels"), "{none:?}");
}

#[test]
fn doctor_has_its_findings_as_json() {
    let stub = Stub::then_forever([], run().ok());
    let output = runwatch(&["doctor", "--output", "json"]).api(&stub).quick("").run();
    let findings = output.json()["findings"].as_array().unwrap().clone();
    assert!(
        findings.iter().any(|finding| finding["what"] == "API" && finding["state"].is_string()),
        "{output:?}"
    );
}
