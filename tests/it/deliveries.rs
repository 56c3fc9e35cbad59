//! `deliveries` and `notify test` on the built binary: mistyped arguments are errors, and receivers' answers are shown.

use crate::support::bin::runwatch;
use crate::support::body::run;
use crate::support::daemon::{Home, stop};
use crate::support::stub::{Stub, answer};
use crate::support::until::found;

/// A receiver's explanation, as a framework writes it.
fn explained() -> crate::support::stub::Answer {
    answer(
        400,
        &[("Content-Type", "application/json")],
        "{\"error\":\"no such\\u001b[2J field\"}\n::error::x",
    )
}

#[test]
fn what_is_mistyped_is_an_error_in_every_verb() {
    let api = Stub::then_forever([], run().ok());
    let receiver = Stub::with([]);
    let home = Home::new(&api);
    home.configure(&format!(
        "[[notify.webhook]]\nname = \"ops\"\nurl = \"{}\"\nunsigned = true\n",
        receiver.url()
    ));
    let daemon = home.start();
    for (args, code) in [
        (&["deliveries", "list", "--channel", "opps"][..], 2),
        (&["deliveries", "retry", "--channel", "opps"], 2),
        (&["deliveries", "resend", "--since", "1h", "--channel", "opps"], 2),
        (&["deliveries", "resend", "--since", "1h", "--channel", "ops,opps"], 2),
        (&["deliveries", "resend", "--since", "1h", "--channel", ""], 2),
        (&["notify", "test", "opps"], 2),
        (&["notify", "test", "ops", "opps"], 2),
        (&["watch", "a", "--notify", "opps"], 2),
        (&["wait", "a", "--notify", "opps"], 2),
        (&["add", "a", "--notify", "opps"], 2),
    ] {
        let output = home.run(args);
        assert_eq!(output.code, Some(code), "{args:?}: {output:?}");
        assert!(
            output.stderr.contains("there is no channel `") && output.stderr.contains("ops"),
            "{args:?}: {output:?}"
        );
        assert_eq!(output.stdout, "", "{args:?}");
    }
    for (args, code, said) in [
        (&["deliveries", "show", "99"][..], 5, "there is no delivery 99"),
        (&["deliveries", "retry", "99"], 5, "there is no delivery 99"),
        (&["deliveries", "show", "x"], 2, "invalid value 'x'"),
        (&["deliveries", "show", "99999999999999999999"], 2, "invalid value"),
        (&["deliveries", "retry", "7x"], 2, "invalid value '7x'"),
        // Nothing selected is not everything.
        (&["deliveries", "retry"], 2, "required"),
        (&["deliveries", "retry", "--all", "--channel", "ops"], 2, "`all` means every"),
        (&["deliveries", "list", "--limit", "0"], 2, "invalid value '0'"),
    ] {
        let output = home.run(args);
        assert_eq!(output.code, Some(code), "{args:?}: {output:?}");
        assert!(output.stderr.contains(said), "{args:?}: {output:?}");
    }
    let none = home.run(&["deliveries", "retry", "--all"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), "0 deliveries are due now\n"), "{none:?}");
    stop(daemon);
}

#[test]
fn what_a_receiver_says_is_shown() {
    let receiver = Stub::with([explained()]);
    let config =
        format!("[[notify.webhook]]\nname = \"ops\"\nurl = \"{}\"\nunsigned = true\n", receiver.url());
    let output = runwatch(&["notify", "test"]).config(&config).run();
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stdout.contains("FAILED") && output.stdout.contains("400"), "{output:?}");
    assert!(
        output.stdout.contains("answer: {\"error\":\"no such\\u001b[2J field\"} ::error::x\n"),
        "{output:?}"
    );

    let api = Stub::with([run().status("FAILED").ok()]);
    let receiver = Stub::then_forever([], explained());
    let home = Home::new(&api);
    home.configure(&format!(
        "[[notify.webhook]]\nname = \"ops\"\nurl = \"{}\"\nunsigned = true\n[[run]]\nid = \"a\"\n",
        receiver.url()
    ));
    let daemon = home.start();
    receiver.next();
    home.wait_for("1 finished");
    // The attempt is recorded a moment after it was made.
    let shown = found("an answer", || {
        let shown = home.run(&["deliveries", "show", "1"]);
        if shown.stdout.contains("no such") { Ok(shown) } else { Err(shown.stdout) }
    });
    assert!(shown.stdout.contains("\nanswer    {\"error\":\"no such"), "{shown:?}");
    assert!(shown.stdout.lines().all(|line| !line.starts_with("::")), "{shown:?}");
    stop(daemon);
}

#[test]
fn debug_has_a_line_per_request_for_commands_too() {
    for flag in [&["-v"][..], &["--log-level", "debug"]] {
        let stub = Stub::with([run().ok(), run().status("SUCCEEDED").ok()]);
        let output = runwatch(&[&["watch", "a"], flag].concat()).api(&stub).quick("").run();
        assert_eq!(output.code, Some(0), "{output:?}");
        let lines: Vec<&str> =
            output.stderr.lines().filter(|line| line.contains("DEBUG asked for a: ")).collect();
        assert_eq!(lines.len(), 2, "{output:?}");
        assert!(!output.stderr.contains("idle connection"), "the library's own lines: {output:?}");
    }
}
