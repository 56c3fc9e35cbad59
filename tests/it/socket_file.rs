//! The socket's file is removed or replaced while the daemon runs: the daemon detects, logs and restores it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use crate::support::daemon::{Home, ask, stop};
use crate::support::stub::Stub;
use crate::support::until::until;

#[test]
fn a_socket_that_was_replaced_is_said_and_restored_when_its_place_is_free() {
    let api = Stub::with([]);
    let home = Home::new(&api);
    home.configure("[daemon]\nsocket_mode = \"0660\"\n");
    let daemon = home.start();
    std::fs::remove_file(home.socket()).unwrap();
    std::fs::write(home.socket(), "somebody's").unwrap();
    let status = home.wait_for("is gone and cannot be made again");
    assert!(status.contains("there is a file already"), "{status}");
    assert_eq!(std::fs::read_to_string(home.socket()).unwrap(), "somebody's");
    std::fs::remove_file(home.socket()).unwrap();
    until("the socket again", || UnixStream::connect(home.socket()).is_ok());
    assert_eq!(home.socket().metadata().unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(home.run(&["list"]).code, Some(0));
    // It is said before it listens; the trouble is over a moment after.
    home.wait_for("0 deliveries pending");
    assert_eq!(ask(&home.socket(), "GET /readyz"), (200, "ok\n".to_owned()));
    let log = stop(daemon);
    assert!(log.contains("was removed or replaced; it is made again"), "{log}");
    assert!(!home.socket().exists(), "the restored one goes with the daemon, too");
}
