//! HTTP/2 over TLS, where one connection carries every request: a dead connection is not used for ever. The next
//! attempt succeeds, whatever happened to the last one.

use std::sync::Arc;
use std::time::Duration;

use runwatch::api::{Answer, ApiClient, ApiSettings, PollError, PollErrorKind, RunSource as _};
use runwatch::notify::webhook::{Webhook, WebhookSettings};
use runwatch::notify::{Notice, Notifier as _};
use runwatch::run::{Event, RunStatus};
use runwatch::secret::Secret;

use crate::support::body::run;
use crate::support::tls::{Act, Http2};

fn body() -> String {
    String::from_utf8(run().bytes()).unwrap()
}

fn client(server: &Http2) -> Arc<ApiClient> {
    let settings = ApiSettings {
        base_url: server.url().parse().unwrap(),
        read_key: Arc::new(|| Ok(Secret::new("hunter2"))),
        headers: Vec::new(),
        ca_file: Some(server.ca_file.clone()),
        connect_timeout: Duration::from_secs(60),
        request_timeout: Duration::from_secs(60),
    };
    Arc::new(ApiClient::new(&settings).unwrap())
}

/// A server whose first connection does this from its second request on.
fn from_the_second_request(act: fn() -> Act) -> Http2 {
    Http2::start(move |connection, request| match (connection, request) {
        (1, 2..) => act(),
        _ => Act::Answer(body()),
    })
}

/// A server that breaks off its first answer in the middle.
fn with_half_an_answer(body: String) -> Http2 {
    Http2::start(move |connection, _| match connection {
        1 => Act::HalfAnAnswer(body.clone()),
        _ => Act::Answer(body.clone()),
    })
}

async fn poll(client: &ApiClient) -> Result<Answer, PollError> {
    client.poll(&"r1".parse().unwrap()).await
}

#[track_caller]
fn is_read(answer: &Result<Answer, PollError>) {
    assert!(matches!(answer, Ok(answer) if answer.run.status == RunStatus::Processing), "{answer:?}");
}

/// Lets a request run until the server has it, and then lets `wait` pass at once.
async fn let_pass<T: Send + 'static>(
    server: &Http2,
    requests: usize,
    wait: Duration,
    request: impl Future<Output = T> + Send + 'static,
) -> T {
    let request = tokio::spawn(request);
    while server.connections().len() < requests {
        tokio::task::yield_now().await;
    }
    let_time_pass(wait).await;
    request.await.unwrap()
}

/// Moves the clock on, and lets whoever waited for it do what there is to do.
async fn let_time_pass(wait: Duration) {
    tokio::time::pause();
    tokio::time::advance(wait).await;
    tokio::time::resume();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_share_a_connection_while_it_is_good() {
    let server = Http2::start(|_, _| Act::Answer(body()));
    let client = client(&server);
    for _ in 0..3 {
        is_read(&poll(&client).await);
    }
    assert_eq!(server.connections(), [1, 1, 1]);
}

#[tokio::test]
async fn a_connection_that_no_longer_answers_is_left_after_one_time_out() {
    let server = from_the_second_request(|| Act::Freeze);
    let client = client(&server);
    is_read(&poll(&client).await);
    let asks = Arc::clone(&client);
    let lost = let_pass(&server, 2, Duration::from_secs(61), async move { poll(&asks).await }).await;
    let lost = lost.unwrap_err();
    assert_eq!(lost.kind, PollErrorKind::Transient);
    is_read(&poll(&client).await);
    assert_eq!(server.connections(), [1, 1, 2]);
}

#[tokio::test]
async fn a_connection_that_no_longer_answers_pings_is_closed_under_a_request() {
    let server = from_the_second_request(|| Act::Freeze);
    let client = client(&server);
    is_read(&poll(&client).await);
    let asks = Arc::clone(&client);
    let request = tokio::spawn(async move { poll(&asks).await });
    while server.connections().len() < 2 {
        tokio::task::yield_now().await;
    }
    // A ping is sent, and not answered in time.
    let_time_pass(Duration::from_secs(16)).await;
    let_time_pass(Duration::from_secs(11)).await;
    let lost = request.await.unwrap().unwrap_err();
    assert!(lost.message.contains("no longer answers"), "{lost}");
    is_read(&poll(&client).await);
    assert_eq!(server.connections(), [1, 1, 2]);
}

#[tokio::test]
async fn a_connection_that_dies_while_idle_is_not_used_again() {
    let server = from_the_second_request(|| Act::Freeze);
    let client = client(&server);
    is_read(&poll(&client).await);
    // The server freezes only once it is asked something: a request that nobody waits for.
    let asks = Arc::clone(&client);
    let request = tokio::spawn(async move { poll(&asks).await });
    while server.connections().len() < 2 {
        tokio::task::yield_now().await;
    }
    request.abort();
    for wait in [16, 11] {
        let_time_pass(Duration::from_secs(wait)).await;
    }
    is_read(&poll(&client).await);
    assert_eq!(server.connections(), [1, 1, 2]);
}

#[tokio::test]
async fn what_a_server_does_to_a_connection_costs_one_attempt_at_most() {
    type Script = fn(usize, usize) -> Act;
    let cases: [(&str, Script); 4] = [
        ("GOAWAY after an answer", |connection, _| match connection {
            1 => Act::AnswerAndGoAway(body()),
            _ => Act::Answer(body()),
        }),
        ("GOAWAY instead of an answer", |connection, request| match (connection, request) {
            (1, 2..) => Act::GoAway,
            _ => Act::Answer(body()),
        }),
        // Whatever is asked on this connection again is reset again.
        ("RST_STREAM", |connection, request| match (connection, request) {
            (1, 2..) => Act::Reset,
            _ => Act::Answer(body()),
        }),
        ("RST_STREAM at once", |connection, _| match connection {
            1 => Act::Reset,
            _ => Act::Answer(body()),
        }),
    ];
    for (name, script) in cases {
        let server = Http2::start(script);
        let client = client(&server);
        let mut failed = 0;
        for _ in 0..4 {
            match poll(&client).await {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind, PollErrorKind::Transient, "{name}: {error}");
                    failed += 1;
                }
            }
        }
        assert!(
            failed <= 1,
            "{name}: {failed} attempts failed, on the connections {:?}",
            server.connections()
        );
        assert_eq!(server.connections().last(), Some(&2), "{name}");
    }
}

#[tokio::test]
async fn a_request_that_was_misdirected_is_sent_again_on_another_connection() {
    let server = from_the_second_request(|| Act::Misdirected);
    let client = client(&server);
    is_read(&poll(&client).await);
    assert_eq!(poll(&client).await.unwrap_err().kind, PollErrorKind::Transient);
    is_read(&poll(&client).await);
    assert_eq!(server.connections(), [1, 1, 2]);
}

#[tokio::test]
async fn a_connection_that_is_closed_is_said_to_be_in_plain_words() {
    let server = from_the_second_request(|| Act::Close);
    let client = client(&server);
    is_read(&poll(&client).await);
    let lost = poll(&client).await.unwrap_err().message;
    assert_eq!(lost, "the connection broke: the other side closed it");
    is_read(&poll(&client).await);
}

#[tokio::test]
async fn a_server_that_falls_silent_in_the_middle_of_a_body_costs_one_attempt() {
    let server = with_half_an_answer(body());
    let client = client(&server);
    let asks = Arc::clone(&client);
    let lost = let_pass(&server, 1, Duration::from_secs(61), async move { poll(&asks).await }).await;
    assert!(lost.unwrap_err().message.starts_with("no answer within"));
    is_read(&poll(&client).await);
    assert_eq!(server.connections(), [1, 2]);
    // A list, too.
    let count = |listed: Result<runwatch::api::Listing, PollError>| listed.map(|listing| listing.runs.len());
    let server = with_half_an_answer(format!("[{}]", run().in_list()));
    let client = self::client(&server);
    let asks = Arc::clone(&client);
    let wait = Duration::from_secs(61);
    let lost = let_pass(&server, 1, wait, async move { count(asks.list_runs(|_| true).await) }).await;
    assert!(lost.is_err());
    assert_eq!(count(client.list_runs(|_| true).await), Ok(1));
}

#[tokio::test]
async fn a_webhook_leaves_a_dead_connection_too() {
    let server = from_the_second_request(|| Act::Freeze);
    let settings = WebhookSettings {
        url: format!("{}/hook", server.url()).parse().unwrap(),
        secrets: Vec::new(),
        ca_file: Some(server.ca_file.clone()),
    };
    let webhook = Arc::new(Webhook::new(settings).unwrap());
    let event = Event::test(jiff::Timestamp::now());
    let json = serde_json::to_string(&event.payload).unwrap().into();
    let notice = Arc::new(Notice { event_id: event.id, payload: event.payload, json, attempt: 1 });
    webhook.send(&notice).await.unwrap();
    let (sends, same) = (Arc::clone(&webhook), Arc::clone(&notice));
    let lost = let_pass(&server, 2, Duration::from_secs(21), async move { sends.send(&same).await }).await;
    assert!(lost.unwrap_err().message.contains("did not answer in time"));
    webhook.send(&notice).await.unwrap();
    assert_eq!(server.connections(), [1, 1, 2]);
}
