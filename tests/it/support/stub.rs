//! A scripted API on loopback: it gives the answers of its script in order, and fails the test if one was not asked for.
//!
//! Written on plain sockets, so that it can misbehave in ways no HTTP library would let it.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What one request is answered with.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These bytes, then the connection closes.
    Bytes(Vec<u8>),
    /// A connection reset.
    Reset,
    /// Nothing, for as long as the client waits.
    Silence,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET /path HTTP/1.1`
    pub line: String,
    /// In lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// As it came.
    pub body: Vec<u8>,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A whole answer.
pub fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())
        .into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    Answer::Bytes(bytes)
}

/// 200 with JSON.
pub fn json(body: impl AsRef<[u8]>) -> Answer {
    answer(200, &[("Content-Type", "application/json")], body)
}

/// An error with a body as Django REST framework makes them.
pub fn error(status: u16) -> Answer {
    answer(status, &[("Content-Type", "application/json")], r#"{"detail":"as scripted"}"#)
}

/// A page of a proxy.
pub fn page(status: u16) -> Answer {
    answer(status, &[("Content-Type", "text/html")], "<html><title>oops</title></html>")
}

/// The scripted API.
pub struct Stub {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    asked: Receiver<Asked>,
}

#[derive(Default)]
struct Script {
    answers: std::collections::VecDeque<Answer>,
    forever: Option<Answer>,
    unasked_for: usize,
}

impl Stub {
    /// Answers in this order; one request more is an error of the test.
    pub fn with(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::start(answers, None)
    }

    /// Answers in this order, and then with `forever`.
    pub fn then_forever(answers: impl IntoIterator<Item = Answer>, forever: Answer) -> Self {
        Self::start(answers, Some(forever))
    }

    fn start(answers: impl IntoIterator<Item = Answer>, forever: Option<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Script { answers: answers.into_iter().collect(), forever, unasked_for: 0 };
        let script = Arc::new(Mutex::new(script));
        let (sender, asked) = channel();
        let shared = Arc::clone(&script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, sender) = (Arc::clone(&shared), sender.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &script, &sender));
            }
        });
        Self { address, script, asked }
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for the next request.
    pub fn next(&self) -> Asked {
        self.asked.recv_timeout(Duration::from_secs(20)).expect("a request")
    }

    /// The requests that have come and not been taken.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.try_iter().collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let script = self.script.lock().unwrap();
        assert_eq!(script.answers.len(), 0, "answers of the script that nobody asked for");
        assert_eq!(script.unasked_for, 0, "requests that the script has no answer for");
    }
}

/// Reads a request; nothing if the client is done.
pub fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length =
        headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { line: line.trim_end().to_owned(), headers, body })
}

fn serve(mut stream: TcpStream, script: &Mutex<Script>, asked: &Sender<Asked>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let request = read_request(&mut reader)?;
    let answer = {
        let mut script = script.lock().unwrap();
        let next = script.answers.pop_front().or_else(|| script.forever.clone());
        if next.is_none() {
            script.unasked_for += 1;
        }
        next
    };
    asked.send(request).ok();
    match answer? {
        Answer::Bytes(bytes) => {
            stream.write_all(&bytes).ok()?;
            stream.shutdown(std::net::Shutdown::Write).ok()?;
            // Closing with something unread would be a reset.
            drop(std::io::copy(&mut reader, &mut std::io::sink()));
        }
        Answer::Reset => rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).ok()?,
        Answer::Silence => drop(std::io::copy(&mut reader, &mut std::io::sink())),
    }
    Some(())
}
