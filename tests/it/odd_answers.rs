//! Answers from a proxy or a lagging replica: none of them ends a watch of the built binary.

use crate::support::bin::{Output, runwatch};
use crate::support::body::run;
use crate::support::stub::{Answer, Stub, answer, error, page};

const ID: &str = "5eed0000-0000-4000-8000-000000000101";

fn going() -> Answer {
    run().ok()
}

fn wait(answers: Vec<Answer>, args: &[&str]) -> Output {
    let stub = Stub::with([answers, vec![run().status("SUCCEEDED").ok()]].concat());
    runwatch(&[&["wait", ID], args].concat()).api(&stub).quick("").run()
}

#[test]
fn a_web_page_ends_nothing_whatever_its_status() {
    for status in [400, 401, 403, 404, 405, 410, 451] {
        let output = wait(vec![going(), page(status), page(status), page(status)], &["--grace", "0s"]);
        assert_eq!(output.code, Some(0), "{status}: {output:?}");
        // Nor for a run that was never seen.
        let output = wait(vec![page(status), page(status), page(status)], &["--grace", "0s"]);
        assert_eq!(output.code, Some(0), "{status}: {output:?}");
    }
    // Called something else, it is one still.
    let unnamed = || answer(403, &[("Content-Type", "text/plain")], "<!DOCTYPE html><title>no</title>");
    let output = wait(vec![going(), unnamed(), unnamed(), unnamed()], &[]);
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn a_refusal_that_is_not_the_apis_own_ends_nothing_soon() {
    for (status, body) in [(401, ""), (403, "denied"), (403, r#"{"message":"blocked","ray":"7"}"#), (404, "")]
    {
        let odd = || answer(status, &[("Content-Type", "application/json")], body);
        let output = wait(vec![going(), odd(), odd(), odd(), odd()], &["--grace", "0s"]);
        assert_eq!(output.code, Some(0), "{status} {body}: {output:?}");
    }
}

#[test]
fn a_run_that_a_replica_does_not_have_yet_is_not_gone() {
    for status in [404, 410] {
        let output = wait(vec![going(), error(status), error(status), error(status)], &["--grace", "0s"]);
        assert_eq!(output.code, Some(0), "{status}: {output:?}");
    }
}

#[test]
fn one_look_believes_only_the_api_itself() {
    let text = |status, body| answer(status, &[("Content-Type", "text/plain")], body);
    for (answer, code) in [
        (page(403), 7),
        (error(403), 4),
        (text(401, "denied"), 7),
        (page(404), 7),
        (text(404, "404 page not found"), 7),
        (text(404, ""), 7),
        (error(404), 5),
    ] {
        let stub = Stub::then_forever([], answer);
        let output = runwatch(&["status", ID, "--exit-code"]).api(&stub).run();
        assert_eq!(output.code, Some(code), "{output:?}");
    }
}
