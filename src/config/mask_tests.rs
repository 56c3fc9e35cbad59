//! Tests of `mask`.

use super::*;

#[test]
fn quotes_what_is_known_and_cuts_the_rest() {
    for (text, shown) in [
        ("hourly", "hourly"),
        ("sometimes", "sometimes"),
        ("max_intervall", "max_intervall"),
        ("Requests_Per_Minut", "Requests_Per_Minut"),
        ("nightly-2", "nightly-2"),
        ("2 parsecs", "2 parsecs"),
        ("1h 30m 15s", "1h 30m 15s"),
        ("2026-11-01T09:00:00Z", "2026-11-01T09:00:00Z"),
        ("0.0.0.0:9464", "0.0.0.0:9464"),
        ("whsec_MDEyMzQ1Njc4", "whsec_M…"),
        ("hunter2hunter2", "hunter2…"),
        ("supersecretvalue", "superse…"),
        ("sk-live-9f8a7b6c5d", "sk-live…"),
        ("!!!!!!!!", "!!!!!!!…"),
        ("a1-b2-c3-d4", "a1-b2-c…"),
        ("3c90c3cc-0d44-4b50-8888-8dd25736052a", "3c90c3c…"),
        ("a\u{202e}b\nc", "a b c"),
    ] {
        assert_eq!(quoted(text), shown, "{text}");
    }
    assert_eq!(quoted_id("3c90c3cc-0d44-4b50-8888-8dd25736052a"), "3c90c3cc-0d44-4b50-8888-8dd25736052a");
}

#[test]
fn strikes_a_value_out_of_a_message() {
    assert_eq!(strike("`Hunter2hunter2` is no time", "hunter2hunter2"), "`…` is no time");
    assert_eq!(strike("`ab cd efghi jk` is no time", "ab\u{0}cd\nefghi\tjk"), "`…` is no time");
    assert_eq!(strike("`soon` is no time", "soon"), "`soon` is no time");
}

#[test]
fn shows_what_exists_of_a_path_and_known_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("Kq8-zX91_vv");
    std::fs::write(&file, "").unwrap();
    assert_eq!(path(&file), file.to_str().unwrap());
    assert_eq!(path(Path::new("/nowhere/webhook-secret")), "/nowhere/webhook-secret");
    assert_eq!(path(Path::new("/etc/runwatch/webhok-secret")), "/etc/runwatch/webhok-secret");
    assert_eq!(path(Path::new("whsec_MDEyMzQ1Njc4OWFi")), "whsec_…");
    assert_eq!(path(Path::new("/Ab3xYz/9QwEr5T/x")), "/Ab3xYz…");
}

#[test]
fn shows_of_a_line_what_cannot_be_secret() {
    for (text, shown) in [
        ("batch = \"sometimes\"", "batch = \"sometimes\""),
        ("  timeout = \"5 parsecs\" # hunter2", "  timeout = \"5 parsecs\"**********"),
        ("multiplier = 12345678.5", "multiplier = 12345678.5"),
        ("retry_delays = [ \"5s\", 7 ]", "retry_delays = [ \"5s\", 7 ]"),
        ("poll.max_interval='1m'", "poll.max_interval='1m'"),
        ("[[notify.webhook]] # hunter2", "[[notify.webhook]]**********"),
        ("batch = \"hunter2hunter2\"", "batch = \"hunter2*******\""),
        ("secret = \"whsec_hunter2=\"", "secret = ****************"),
        ("secret: \"whsec_hunter2=\"", "secret******************"),
        ("  \"whsec_hunter2hunter2=\",", "  ************************"),
        ("headers = { A = \"x\" }", "headers = ***********"),
        ("timeout = \"\"\"5", "timeout = ****"),
        ("timeout = \"a\\u0041\"", "timeout = *********"),
        ("[\"hunter2hunter2\"]", "******************"),
        ("max_intervall=", "max_intervall="),
        ("nightly_jobs = 1", "nightly_jobs = *"),
        ("abcdefg=", "abcdef*="),
        ("_aa_0-a=A-=-00A_", "_aa_0-*=********"),
        ("whsec_hunter2hunter2= 1", "whsec_**************= *"),
        ("ключ = 1", "********"),
        // Text directly before a bare value may be part of the same secret.
        ("allow_http =-AAa0A0-++-Aaa_", "allow_http =-AAa0A*********"),
        ("allow_http = -AAa0A0-++-Aaa_", "allow_http = -AAa0A0********"),
        ("id=ABCDEFGHIJK", "id=ABCD*******"),
        ("timeout=ABCDEFGHIJK", "timeout=***********"),
        ("timeout=12", "timeout=12"),
        ("notify = [AB,CDEFGHI]", "notify = [AB,CDE****]"),
    ] {
        assert_eq!(line(text), shown, "{text}");
        assert_eq!(line(text).chars().count(), text.chars().count());
    }
}
