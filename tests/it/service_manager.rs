//! A daemon under a service manager or a journal that does not read its socket: it keeps working and loses no important
//! message.

use std::os::unix::net::UnixDatagram;

use crate::support::body::run;
use crate::support::daemon::{Home, stop};
use crate::support::stub::{Stub, answer};

/// Fills the queue of a datagram socket, as a reader that has stopped does.
fn fill(path: &std::path::Path) -> usize {
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    (0..1_000_000).take_while(|_| sender.send_to(b"filler", path).is_ok()).count()
}

#[test]
fn a_manager_that_does_not_read_stops_neither_the_daemon_nor_its_end() {
    let api = Stub::with([run().status("FAILED").ok()]);
    let receiver = Stub::with([answer(204, &[], "")]);
    let home = Home::new(&api);
    let webhook = format!("[[notify.webhook]]\nurl = \"{}\"\nunsigned = true\n", receiver.url());
    home.configure(&format!("{webhook}[[run]]\nid = \"a\"\n"));
    assert!(fill(&home.path("notify")) > 0);
    let daemon = home.start_unheard(&[]);
    let told: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!(told["type"], "run.failed");
    assert_eq!(home.run(&["reload"]).code, Some(0));
    let log = stop(daemon);
    assert!(log.contains("the service manager does not read its socket"), "{log}");
}

#[test]
fn a_manager_that_reads_again_gets_what_it_missed() {
    let api = Stub::with([]);
    let home = Home::new(&api);
    fill(&home.path("notify"));
    let daemon = home.start_unheard(&[]);
    assert_eq!(home.run(&["reload"]).code, Some(0));
    home.wait_for("READY=1");
    home.wait_for("RELOADING=1");
    home.wait_for("READY=1");
    fill(&home.path("notify"));
    stop(daemon);
}
