//! The desktop channel on a real desktop without a screen: Xvfb, a session bus and the notification daemon dunst.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::bin::{Runwatch, runwatch};
use crate::support::body::run;
use crate::support::need;
use crate::support::stub::Stub;
use crate::support::until::until;
use crate::support::world::{Course, Point, Temper, World};

const ID: &str = "5eed0000-0000-4000-8000-000000000101";

/// Processes that end with the test.
struct Session {
    children: Vec<Child>,
    home: tempfile::TempDir,
    bus: String,
    display: String,
}

impl Drop for Session {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Session {
    /// A session bus and nothing on it. `None` where the programs are not there.
    fn bus() -> Option<Self> {
        need::program("dbus-daemon")?;
        let home = tempfile::tempdir().unwrap();
        let mut dbus = Command::new("dbus-daemon");
        dbus.args(["--session", "--nofork", "--print-address", "--address"]);
        dbus.arg(format!("unix:path={}/bus", home.path().display()));
        let mut child = dbus.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut bus = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut bus).unwrap();
        Some(Self { children: vec![child], home, bus: bus.trim().to_owned(), display: String::new() })
    }

    /// A session bus with dunst on it.
    fn desktop() -> Option<Self> {
        for program in ["Xvfb", "dunst", "dunstctl"] {
            need::program(program)?;
        }
        let mut desktop = Self::bus()?;
        // Xvfb writes the display it took to the file descriptor it is told of: its standard output.
        let mut xvfb = Command::new("Xvfb");
        xvfb.args(["-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"]);
        let mut xvfb = xvfb.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut display = String::new();
        BufReader::new(xvfb.stdout.take().unwrap()).read_line(&mut display).unwrap();
        desktop.display = format!(":{}", display.trim());
        desktop.children.push(xvfb);
        let config = desktop.home.path().join("dunstrc");
        // dunst's history does not have the urgency: it is put into the message.
        let urgencies = ["low", "normal", "critical"]
            .map(|urgency| format!("[urgency_{urgency}]\nformat = \"{urgency} %s\"\n"))
            .concat();
        let text = format!("[global]\nmarkup = full\nhistory_length = 100\n{urgencies}");
        std::fs::write(&config, text).unwrap();
        let dunst = desktop.command("dunst").arg("-conf").arg(config).stderr(Stdio::null()).spawn().unwrap();
        desktop.children.push(dunst);
        until("dunst", || desktop.dunstctl(&["count"]).contains("Waiting"));
        Some(desktop)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.bus).env("DISPLAY", &self.display);
        command
    }

    fn dunstctl(&self, args: &[&str]) -> String {
        String::from_utf8(self.command("dunstctl").args(args).output().unwrap().stdout).unwrap()
    }

    /// What has been shown: title, body and urgency of each notification, the newest first.
    fn shown(&self) -> Vec<(String, String, String)> {
        self.dunstctl(&["close-all"]);
        let history: serde_json::Value = serde_json::from_str(&self.dunstctl(&["history"])).unwrap();
        let field = |entry: &serde_json::Value, name: &str| {
            entry[name]["data"].as_str().unwrap_or_default().to_owned()
        };
        let entries = history["data"][0].as_array().unwrap();
        let urgency = |entry| field(entry, "message").split(' ').next().unwrap_or_default().to_owned();
        entries.iter().map(|entry| (field(entry, "summary"), field(entry, "body"), urgency(entry))).collect()
    }

    fn runwatch(&self, args: &[&str]) -> Runwatch {
        runwatch(args).env("DBUS_SESSION_BUS_ADDRESS", &self.bus)
    }
}

#[test]
fn watch_shows_the_end_of_a_run_without_being_told_to() {
    let Some(desktop) = Session::desktop() else { return };
    let stub = Stub::with([run().ok(), run().status("FAILED").set("spec_name", "a <b>&c</b>".into()).ok()]);
    let config = format!("[[run]]\nid = \"{ID}\"\nname = \"nightly <i>&\"\n");
    let output = desktop.runwatch(&["watch", ID]).api(&stub).quick(&config).run();
    assert_eq!((output.code, output.stderr.as_str()), (Some(1), ""), "{output:?}");
    let shown = desktop.shown();
    assert_eq!(shown.len(), 1, "{shown:?}");
    let (title, body, urgency) = &shown[0];
    assert_eq!((title.as_str(), urgency.as_str()), ("Run nightly <i>& failed", "critical"));
    // Markup in the names is shown, not obeyed.
    assert_eq!(
        body.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"),
        "87 of 200 samples, 2 failed · a <b>&c</b>"
    );
}

#[test]
fn runs_that_end_together_are_one_notification() {
    let Some(desktop) = Session::desktop() else { return };
    let ends = ["FAILED", "SUCCEEDED", "SUCCEEDED"].map(|status| run().status(status).ok());
    let stub = Stub::with(ends);
    let config = "max_in_flight = 1\n[[notify.desktop]]\n";
    let output = desktop.runwatch(&["watch", "a", "b", "c"]).api(&stub).quick(config).run();
    assert_eq!(output.code, Some(1), "{output:?}");
    let shown = desktop.shown();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0].0, "3 runs have ended: 1 failed, 2 succeeded");
    assert!(shown[0].1.contains("Run a failed") && shown[0].1.contains("Run c succeeded"), "{shown:?}");
}

#[test]
fn the_end_of_a_run_replaces_the_warning_about_it() {
    let Some(desktop) = Session::desktop() else { return };
    let (bus, asked) = (desktop.bus.clone(), AtomicUsize::new(0));
    let world = World::start(move |point| {
        // The run ends when the warning is on the screen.
        if point == Point::Asked && asked.fetch_add(1, Ordering::SeqCst) == 1 {
            until("the warning", || {
                let mut dunstctl = Command::new("dunstctl");
                dunstctl.args(["count", "displayed"]).env("DBUS_SESSION_BUS_ADDRESS", &bus);
                dunstctl.output().unwrap().stdout == b"1\n"
            });
        }
    });
    let course = Course::through(&["PROCESSING", "FAILED"]).with("created_at", "2020-01-01T00:00:00Z");
    world.begin([(ID.to_owned(), course)].into(), Temper::default());
    let config = "batch = \"never\"\n[alerts]\noverdue_after = \"1h\"\n[[notify.desktop]]\n";
    let output = desktop.runwatch(&["watch", ID]).base_url(&world.url()).quick(config).run();
    assert_eq!(output.code, Some(1), "{output:?}");
    let titles: Vec<String> = desktop.shown().into_iter().map(|(title, ..)| title).collect();
    assert_eq!(titles, [format!("Run {ID} failed")]);
}

#[test]
fn notify_test_reaches_the_desktop() {
    let Some(desktop) = Session::desktop() else { return };
    let output = desktop.runwatch(&["notify", "test"]).config("[[notify.desktop]]\nname = \"me\"\n").run();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(desktop.shown()[0].0, "runwatch test");
}

#[test]
fn a_notification_service_that_never_answers_holds_nothing_up() {
    let Some(bus) = Session::bus() else { return };
    // Owns the name and says nothing, as a hung one does.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _silent = runtime.block_on(async {
        let builder = zbus::connection::Builder::address(bus.bus.as_str());
        builder.name("org.freedesktop.Notifications").build().await.unwrap()
    });
    let began = Instant::now();
    let output = bus.runwatch(&["notify", "test"]).config("[[notify.desktop]]\n").run();
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stdout.contains("does not answer"), "{output:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
}
