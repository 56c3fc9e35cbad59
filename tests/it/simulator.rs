//! The simulator: its answers match the API's, its faults are real, and the demo works.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use runwatch::api::{ApiClient, ApiSettings, PollErrorKind, RunSource as _};
use runwatch::run::{DoubtKind, RunId, RunStatus};
use runwatch::secret::Secret;
use runwatch::sim::{Faults, RetryAfter, SimRun, Simulator, SimulatorSettings};
use rustix::process::Signal;

use crate::support::bin::runwatch;
use crate::support::body::fixture;

async fn simulate(runs: &[&str]) -> Simulator {
    let runs = runs.iter().map(|text| text.parse::<SimRun>().unwrap()).collect();
    Simulator::start(SimulatorSettings { runs, ..SimulatorSettings::default() }).await.unwrap()
}

fn client(simulator: &Simulator, key: &'static str) -> ApiClient {
    let settings = ApiSettings {
        base_url: simulator.url().parse().unwrap(),
        read_key: std::sync::Arc::new(move || Ok(Secret::new(key))),
        headers: Vec::new(),
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(20),
    };
    ApiClient::new(&settings).unwrap()
}

fn id(text: &str) -> RunId {
    text.parse().unwrap()
}

#[tokio::test]
async fn its_bodies_have_the_fields_of_the_api() {
    let simulator = simulate(&["id=r,duration=0s,samples=3"]).await;
    let body = client(&simulator, "k").poll(&id("r")).await.unwrap().body;
    let fields = |json: &[u8], under: &str| -> Vec<String> {
        let value: serde_json::Value = serde_json::from_slice(json).unwrap();
        let object = if under.is_empty() { &value } else { &value[under] };
        let mut fields: Vec<String> = object.as_object().unwrap().keys().cloned().collect();
        fields.sort();
        fields
    };
    let real = fixture("run_succeeded.json");
    assert_eq!(fields(&body, ""), fields(&real, ""));
    assert_eq!(fields(&body, "runtime_params"), fields(&real, "runtime_params"));
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["generated_files"].as_array().unwrap().len(), 3);
    // The list leaves two of them out.
    let real: serde_json::Value = serde_json::from_slice(&fixture("runs_list.json")).unwrap();
    let list = reqwest::Client::builder().build().unwrap();
    let url = format!("{}/api/dataframer/runs/", simulator.url());
    let list = list.get(url).bearer_auth("k").send().await.unwrap().bytes().await.unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value[0].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(&list), keys(&real));
}

#[tokio::test]
async fn it_refuses_as_the_api_does() {
    let simulator = simulate(&["id=r"]).await;
    let client = client(&simulator, "k");
    let kind = async |text: &str| {
        client.poll(&id(text)).await.map(|answer| answer.run.status).map_err(|error| error.kind)
    };
    assert_eq!(kind("nope").await, Err(PollErrorKind::Doubt(DoubtKind::Missing)));
    assert_eq!(kind("r").await, Ok(RunStatus::Processing));
    simulator.rotate_key("other");
    assert_eq!(kind("r").await, Err(PollErrorKind::Doubt(DoubtKind::KeyRefused)));
    simulator.rotate_key("k");
    assert!(simulator.delete(&id("r")));
    assert_eq!(kind("r").await, Err(PollErrorKind::Doubt(DoubtKind::Missing)));
    // Without the last slash Django redirects, and elsewhere it has no page.
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let status = async |path: &str| {
        http.get(format!("{}{path}", simulator.url()))
            .bearer_auth("k")
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(status("/api/dataframer/runs").await, 301);
    assert_eq!(status("/api/dataframer/runs/r").await, 301);
    assert_eq!(status("/elsewhere").await, 404);
}

#[tokio::test]
async fn its_faults_are_seen_as_what_they_are() {
    let simulator = simulate(&["id=r"]).await;
    let client = client(&simulator, "k");
    for (fault, said) in [
        ("reset", "the connection broke"),
        ("truncate", "the connection broke"),
        ("html", "web page"),
        ("500", "500 Internal Server Error: Internal server error"),
        ("502", "502 Bad Gateway"),
        ("429", "429 Too Many Requests: Request was throttled."),
    ] {
        simulator.set_faults(Faults { faults: vec![fault.parse().unwrap()], ..Faults::default() });
        let error = client.poll(&id("r")).await.unwrap_err();
        assert!(error.message.contains(said), "{fault}: {error}");
    }
    for retry_after in [RetryAfter::Seconds(40), RetryAfter::Date(40)] {
        let faults = vec!["429".parse().unwrap()];
        simulator.set_faults(Faults { faults, retry_after: Some(retry_after), ..Faults::default() });
        let wait = client.poll(&id("r")).await.unwrap_err().retry_after.unwrap();
        assert!((39..=40).contains(&wait.as_secs()), "{retry_after:?}: {wait:?}");
    }
}

#[tokio::test]
async fn a_run_can_be_canceled_over_http() {
    let simulator = simulate(&["id=r", "id=done,duration=0s"]).await;
    // The first of our own clients sets TLS up for all.
    let ours = client(&simulator, "k");
    let http = reqwest::Client::builder().build().unwrap();
    let cancel = async |run: &str| {
        let url = format!("{}/api/dataframer/runs/{run}/cancel/", simulator.url());
        http.post(url).bearer_auth("k").send().await.unwrap().status().as_u16()
    };
    assert_eq!(
        (cancel("r").await, cancel("r").await, cancel("done").await, cancel("x").await),
        (200, 400, 400, 404)
    );
    assert_eq!(ours.poll(&id("r")).await.unwrap().run.status, RunStatus::Canceled);
}

#[test]
fn a_bad_day_is_survived_on_the_built_binary() {
    let args = ["simulate", "--listen", "127.0.0.1:0", "--run", "id=r,duration=60s", "--speed", "60"];
    let faults =
        ["--fault", "reset=20%", "--fault", "truncate=20%", "--fault", "503=20%", "--fault", "html=20%"];
    let mut simulator = runwatch(&[&args[..], &faults].concat()).spawn();
    let mut line = String::new();
    BufReader::new(simulator.take_stdout()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("simulating the DataFramer API at ").unwrap();
    let output = runwatch(&["wait", "r"]).base_url(url).quick("").run();
    assert_eq!(output.code, Some(0), "{output:?}");
    simulator.signal(Signal::TERM);
    assert_eq!(simulator.wait().code, Some(0));
}

#[test]
fn the_demo_shows_three_ends_and_verifies_three_webhooks() {
    let output = runwatch(&["demo", "--length", "2s"]).run();
    assert_eq!(output.code, Some(0), "{output:?}");
    for part in [
        "tickets SUCCEEDED 119/120, 1 failed",
        "warning: tickets SUCCEEDED with 1 of 120 samples failed",
        "invoices FAILED",
        "clinic-notes CANCELED",
        "webhook run.succeeded, verified, evt_",
        "webhook run.failed, verified, evt_",
        "webhook run.canceled, verified, evt_",
        "3 webhooks received and verified",
        "would have exited with 1",
    ] {
        assert!(output.stdout.contains(part), "{part}: {output:?}");
    }
    assert_eq!(output.stderr, "");
}

#[test]
fn wrong_descriptions_are_refused_in_words() {
    for (args, said) in [
        (["--run", "id=r,end=paused"], "`paused` is not an end"),
        (["--run", "samples=3"], "there is no id"),
        (["--fault", "boom"], "`boom` is not a fault"),
        (["--retry-after", "-5s"], "negative"),
        (["--speed", "0"], "from 0.001"),
        (["--listen", "0.0.0.0:0"], "this machine only"),
        (["--run=a", "--run=a"], "two --run have the id a"),
    ] {
        let output = runwatch(&[&["simulate"], &args[..]].concat()).run();
        assert!(output.code == Some(2) && output.stderr.contains(said), "{args:?}: {output:?}");
    }
}
