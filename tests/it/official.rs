//! Official parsers: the API's Python SDK reads the simulator, and the Standard Webhooks library verifies our webhooks.

use std::io::Write as _;
use std::process::{Command, Stdio};

use runwatch::sim::{Simulator, SimulatorSettings};

use crate::support::bin::runwatch;
use crate::support::body::run;
use crate::support::need;
use crate::support::stub::{Stub, answer};

/// Runs a Python program; `None` where there is no Python with the packages of `.ci/requirements.txt`.
fn python(program: &str, input: &str) -> Option<String> {
    let python = need::variable("RUNWATCH_TEST_PYTHON")?;
    let mut command = Command::new(python);
    command.arg("-c").arg(program).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_official_sdk_reads_the_simulator() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runs = [
        "id=5eed0000-0000-4000-8000-000000000001,duration=0s,samples=3,failed=1",
        "id=5eed0000-0000-4000-8000-000000000002,queue=60s",
    ];
    let runs = runs.map(|run| run.parse().unwrap()).to_vec();
    let simulator = runtime
        .block_on(Simulator::start(SimulatorSettings { runs, ..SimulatorSettings::default() }))
        .unwrap();
    let program = r#"
import sys
from dataframer import Dataframer
client = Dataframer(base_url=sys.stdin.read(), api_key="k", _strict_response_validation=True)
run = client.dataframer.runs.retrieve("5eed0000-0000-4000-8000-000000000001")
print(run.status, run.samples_completed, run.samples_failed, run.runtime_params.number_of_samples)
print(run.completed_at >= run.created_at, len(run.generated_files), run.generated_files[0].file_type)
runs = client.dataframer.runs.list()
print([(r.id[-1], r.status) for r in runs])
try:
    client.dataframer.runs.retrieve("nope")
except Exception as error:
    print(type(error).__name__, error.status_code)
"#;
    let Some(said) = python(program, &simulator.url()) else { return };
    assert_eq!(
        said,
        "SUCCEEDED 2 1 3\nTrue 2 text/plain\n[('2', 'PENDING'), ('1', 'SUCCEEDED')]\nNotFoundError 404\n"
    );
}

#[test]
fn the_official_library_verifies_a_webhook() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let (api, receiver) = (Stub::with([run().status("SUCCEEDED").ok()]), Stub::with([answer(204, &[], "")]));
    let config = format!("[[notify.webhook]]\nurl = \"{}\"\nsecret = \"{secret}\"\n", receiver.url());
    runwatch(&["watch", "r"]).api(&api).quick(&config).run();
    let asked = receiver.next();
    let headers: serde_json::Map<_, _> =
        asked.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let input = serde_json::json!({
        "secret": secret, "headers": headers, "body": String::from_utf8(asked.body).unwrap(),
    });
    let program = r#"
import json, sys
from standardwebhooks import Webhook
given = json.load(sys.stdin)
event = Webhook(given["secret"]).verify(given["body"], given["headers"])
print(event["type"], event["data"]["status"])
"#;
    let Some(said) = python(program, &input.to_string()) else { return };
    assert_eq!(said, "run.succeeded SUCCEEDED\n");
}
