//! A world of runs on loopback, and a receiver of webhooks: runs that move as they are asked about, and moments at which
//! both sides of the wire are in step, for whoever wants to do something just then.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::body::{RunBody, run};
use super::stub::{Asked, read_request};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A moment at which both sides are in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The daemon says that it is ready.
    Ready,
    /// The API has been asked and has not answered.
    Asked,
    /// The last byte of its answer was sent.
    Answered,
    /// An event has come and was not answered.
    Told,
    /// The last byte of the receiver's thanks was sent.
    Taken,
}

/// How a run goes on: a word an answer, the last one for ever.
#[derive(Debug, Clone)]
pub struct Course {
    words: Vec<&'static str>,
    /// Answers so far.
    pub answers: usize,
    /// More that is said of it.
    fields: Vec<(&'static str, Value)>,
}

impl Course {
    /// Through these words.
    pub fn through(words: &[&'static str]) -> Self {
        Self { words: words.to_vec(), answers: 0, fields: Vec::new() }
    }

    /// With this field.
    pub fn with(mut self, field: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((field, value.into()));
        self
    }

    /// How it ends.
    pub fn end(&self) -> &'static str {
        self.words[self.words.len() - 1]
    }

    /// Whether anybody was told that it has ended.
    pub fn has_ended(&self) -> bool {
        self.answers >= self.words.len()
    }

    /// What the next answer says.
    fn body(&self, id: &str) -> RunBody {
        let word = self.words[self.answers.min(self.words.len() - 1)];
        let body = run().set("id", id.into()).status(word);
        self.fields.iter().fold(body, |body, (field, value)| body.set(field, value.clone()))
    }

    /// In the list it goes on, too, once it was asked about; its end has to be asked for.
    fn listed(&mut self, id: &str) -> RunBody {
        let body = self.body(id);
        if self.answers > 0 && self.answers + 1 < self.words.len() {
            self.answers += 1;
        }
        body
    }

    fn next(&mut self, id: &str) -> RunBody {
        let body = self.body(id);
        self.answers += 1;
        body
    }
}

/// An event that came.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub id: String,
    pub kind: String,
    pub run: String,
    pub body: Vec<u8>,
    /// Whether it was answered with thanks.
    pub taken: bool,
    /// Whether the API had given the end of the run by then.
    pub had_ended: bool,
}

/// How requests are met: one in so many, 0 for none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Temper {
    /// The API answers with 500.
    pub api_fails: usize,
    /// It has no list.
    pub list_missing: bool,
    /// The receiver answers with 500.
    pub receiver_fails: usize,
    /// The receiver closes without an answer.
    pub receiver_hangs_up: usize,
}

type Hook = Box<dyn Fn(Point) + Send + Sync>;

/// The API and the receiver.
pub struct World {
    address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    sides: Mutex<Sides>,
    left: Condvar,
    hook: Hook,
}

#[derive(Default)]
struct Sides {
    courses: BTreeMap<String, Course>,
    receipts: Vec<Receipt>,
    temper: Temper,
    /// Counts requests, so that the temper is the same each time.
    count: usize,
    connections: usize,
}

impl World {
    /// Begins to serve, and calls `hook` at each point.
    pub fn start(hook: impl Fn(Point) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner { sides: Mutex::default(), left: Condvar::new(), hook: Box::new(hook) });
        let shared = Arc::clone(&inner);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                shared.sides.lock().unwrap().connections += 1;
                let inner = Arc::clone(&shared);
                std::thread::spawn(move || {
                    inner.serve(&stream.unwrap());
                    inner.sides.lock().unwrap().connections -= 1;
                    inner.left.notify_all();
                });
            }
        });
        Self { address, inner }
    }

    /// The base URL of the API, and the URL of the receiver.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Other runs, and nothing received yet.
    pub fn begin(&self, courses: BTreeMap<String, Course>, temper: Temper) {
        let mut sides = self.inner.sides.lock().unwrap();
        (sides.courses, sides.receipts, sides.temper) = (courses, Vec::new(), temper);
    }

    /// Another temper.
    pub fn set_temper(&self, temper: Temper) {
        self.inner.sides.lock().unwrap().temper = temper;
    }

    /// Another course of a run.
    pub fn set_course(&self, run: &str, course: Course) {
        self.inner.sides.lock().unwrap().courses.insert(run.to_owned(), course);
    }

    /// The runs as they are.
    pub fn courses(&self) -> BTreeMap<String, Course> {
        self.inner.sides.lock().unwrap().courses.clone()
    }

    /// What came so far.
    pub fn receipts(&self) -> Vec<Receipt> {
        self.inner.sides.lock().unwrap().receipts.clone()
    }

    /// Waits until whatever processes that have ended sent has been dealt with.
    pub fn wait_until_quiet(&self) {
        // Connections are accepted in order: whoever came before this one is counted when it is closed.
        let mut last = TcpStream::connect(self.address).unwrap();
        last.set_read_timeout(Some(PATIENCE)).unwrap();
        last.shutdown(Shutdown::Write).unwrap();
        std::io::copy(&mut last, &mut std::io::sink()).unwrap();
        let sides = self.inner.sides.lock().unwrap();
        let waited = self.inner.left.wait_timeout_while(sides, PATIENCE, |sides| sides.connections > 0);
        let is_quiet = waited.unwrap().0.connections == 0;
        assert!(is_quiet, "somebody is still connected");
    }
}

impl Inner {
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let asked = read_request(&mut reader)?;
            if asked.line.starts_with("POST") {
                self.told(stream, &asked)?;
            } else {
                self.asked(stream, asked.line.split('/').rev().nth(2)?)?;
            }
        }
    }

    fn asked(&self, mut stream: &TcpStream, run_id: &str) -> Option<()> {
        (self.hook)(Point::Asked);
        let bytes = {
            let mut sides = self.sides.lock().unwrap();
            let fails = one_in(sides.temper.api_fails, &mut sides.count);
            let answer = if run_id == "runs" && sides.temper.list_missing {
                None
            } else if run_id == "runs" {
                let all = sides.courses.iter_mut().map(|(id, course)| course.listed(id).in_list());
                Some(all.collect::<Value>().to_string().into_bytes())
            } else {
                sides.courses.get_mut(run_id).filter(|_| !fails).map(|course| course.next(run_id).bytes())
            };
            match answer.filter(|_| !fails) {
                Some(body) => http(200, &body),
                None if fails => http(500, b"{\"detail\":\"as scripted\"}"),
                None => http(404, b"{\"detail\":\"Not found.\"}"),
            }
        };
        stream.write_all(&bytes).ok()?;
        (self.hook)(Point::Answered);
        Some(())
    }

    fn told(&self, mut stream: &TcpStream, asked: &Asked) -> Option<()> {
        (self.hook)(Point::Told);
        let event: Value = serde_json::from_slice(&asked.body).unwrap();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let run = word(&event["data"]["run_id"]);
        let answer = {
            let mut sides = self.sides.lock().unwrap();
            let temper = sides.temper;
            let hangs_up = one_in(temper.receiver_hangs_up, &mut sides.count);
            let fails = one_in(temper.receiver_fails, &mut sides.count);
            let had_ended = sides.courses.get(&run).is_some_and(Course::has_ended);
            sides.receipts.push(Receipt {
                id: asked.header("webhook-id").unwrap().to_owned(),
                kind: word(&event["type"]),
                run,
                body: asked.body.clone(),
                taken: !hangs_up && !fails,
                had_ended,
            });
            if hangs_up { None } else { Some(if fails { 500 } else { 204 }) }
        };
        stream.write_all(&http(answer?, b"")).ok()?;
        if answer == Some(204) {
            (self.hook)(Point::Taken);
        }
        Some(())
    }
}

/// Every so manieth time.
fn one_in(many: usize, count: &mut usize) -> bool {
    *count += 1;
    many > 0 && count.is_multiple_of(many)
}

fn http(status: u16, body: &[u8]) -> Vec<u8> {
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{length}\r\n");
    [head.as_bytes(), body].concat()
}
