//! An API whose runs all end when they are asked about, so many a second, and the receiver that is told: both take the time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// When what happened to a run.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Its end was answered.
    pub ended: Instant,
    /// Its end was told.
    pub told: Option<Instant>,
}

/// The API and the receiver.
pub struct Paced {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    every: Duration,
    next: Instant,
    times: HashMap<String, Times>,
}

impl Paced {
    /// Begins to serve. Answers are this far apart.
    pub async fn start(every: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared { every, next: Instant::now(), times: HashMap::new() };
        let shared = Arc::new(Mutex::new(shared));
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happened so far.
    pub fn times(&self) -> Vec<Times> {
        self.shared.lock().unwrap().times.values().copied().collect()
    }
}

async fn serve(stream: TcpStream, shared: Arc<Mutex<Shared>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_until(b'\n', &mut head).await.ok().filter(|read| *read > 0)?;
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await.ok()?;
        let now = Instant::now();
        if head.starts_with("post") {
            let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let run = event["data"]["run_id"].as_str().unwrap();
            shared.lock().unwrap().times.get_mut(run).unwrap().told.get_or_insert(now);
            stream.write_all(b"HTTP/1.1 204 X\r\n\r\n").await.ok()?;
            continue;
        }
        let id = head.lines().next()?.split('/').rev().nth(2)?.to_owned();
        let turn = {
            let mut shared = shared.lock().unwrap();
            shared.next = (shared.next + shared.every).max(now);
            shared.next
        };
        sleep_until(turn).await;
        let body = format!(
            r#"{{"id":"{id}","status":"SUCCEEDED","samples_completed":20,"samples_failed":0,"created_at":"2026-11-20T09:00:00Z","completed_at":"2026-11-20T10:00:00Z","runtime_params":{{"number_of_samples":20}}}}"#
        );
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        shared.lock().unwrap().times.insert(id, Times { ended: Instant::now(), told: None });
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}
