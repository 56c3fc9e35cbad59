//! Run ids at the doors: one run for every way of writing a UUID, and nothing that is not seen.

use crate::support::bin::runwatch;
use crate::support::body::run;
use crate::support::stub::Stub;

const ID: &str = "5eed0000-0000-4000-8000-00000000000a";

#[test]
fn a_uuid_is_one_run_at_every_door() {
    let upper = ID.to_uppercase();
    let stub = Stub::with([run().set("id", upper.clone().into()).status("SUCCEEDED").ok()]);
    let config = format!("[[run]]\nid = \"{{{upper}}}\"\nname = \"nightly\"\n");
    let urn = format!("urn:uuid:{upper}");
    let output = runwatch(&["wait", &upper, ID, &urn, &ID.replace('-', ""), "--output", "json"])
        .api(&stub)
        .config(&config)
        .run();
    assert_eq!(output.code, Some(0), "{output:?}");
    let runs = &output.json()["runs"];
    assert_eq!((runs.as_array().unwrap().len(), &runs[0]["id"]), (1, &ID.into()), "{runs}");
    let asked: Vec<String> = stub.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(asked, [format!("GET /api/dataframer/runs/{ID}/ HTTP/1.1")]);
}

#[test]
fn two_ways_of_writing_one_id_in_the_configuration_are_one_run_twice() {
    let config = format!("[[run]]\nid = \"{ID}\"\n[[run]]\nid = \"{}\"\n", ID.to_uppercase());
    let output = runwatch(&["config", "check"]).config(&config).run();
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stderr.contains("twice") || output.stdout.contains("twice"), "{output:?}");
}

#[test]
fn an_id_with_something_invisible_in_it_is_refused_and_not_repeated_raw() {
    for hidden in ['\u{202e}', '\u{200b}', '\u{61c}', '\u{feff}', '\u{e0041}'] {
        let output = runwatch(&["status", &format!("r{hidden}1")]).run();
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains("the run id") && !output.stderr.contains(hidden), "{output:?}");
        let output = runwatch(&["config", "check"]).config(&format!("[[run]]\nid = \"r{hidden}1\"\n")).run();
        let shown = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.code, Some(78), "{output:?}");
        assert!(shown.contains("invisible character") && !shown.contains(hidden), "{output:?}");
    }
}
