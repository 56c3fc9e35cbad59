//! Run ids as input: every form of a UUID is the same run, and invisible characters are refused.

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

#[test]
fn a_list_of_runs_is_read_from_a_file_or_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("runs.txt");
    std::fs::write(&file, "# of tonight\n\nr1\nr2 # the second\n").unwrap();
    let from_file = format!("@{}", file.display());
    for args in [&["status", &from_file][..], &["status", "-"], &["status", "r1,r2"]] {
        let ended = |id: &str| run().set("id", id.into()).status("SUCCEEDED").ok();
        let stub = Stub::with([ended("r1"), ended("r2")]);
        let output = runwatch(args)
            .api(&stub)
            .quick("max_in_flight = 1\n")
            .stdin(std::fs::File::open(&file).unwrap())
            .run();
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        let asked: Vec<String> = output.stdout.lines().map(|line| line[..2].to_owned()).collect();
        assert_eq!(asked, ["r1", "r2"], "{args:?}: {output:?}");
    }
}

#[test]
fn what_can_be_no_id_is_refused_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("@{}", dir.path().join(name).display());
    std::fs::write(dir.path().join("empty"), "# nothing\n").unwrap();
    std::fs::write(dir.path().join("wrong"), "r1\n--any\n").unwrap();
    std::fs::write(dir.path().join("large"), vec![b'#'; (1 << 20) + 1]).unwrap();
    std::fs::write(dir.path().join("many"), "r\n".repeat(10_001)).unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    for (argument, said) in [
        (path("nothing"), "No such file"),
        (path("empty"), "no run ids in the file"),
        (path("wrong"), "line 2: `--any` is not a run id"),
        (path("large"), "larger than 1048576 bytes"),
        (path("many"), "10001 run ids; at most 10000"),
        (path("fifo"), "a pipe, not a regular file"),
        (path("."), "a directory, not a regular file"),
        ("-".to_owned(), "no run ids in standard input"),
        ("it's".to_owned(), "quotes"),
        ("--anny".to_owned(), "--any"),
    ] {
        for verb in ["watch", "wait"] {
            // There is no API: asking would take until the deadline.
            let output = runwatch(&[verb, &argument]).run();
            assert_eq!(output.code, Some(2), "{verb} {argument}: {output:?}");
            assert!(output.stderr.contains(said), "{verb} {argument}: {output:?}");
            assert!(!output.stderr.contains("-- --"), "{verb} {argument}: {output:?}");
        }
    }
}
