//! A request and its answer, without connections or HTTP details.
//!
//! `serve` reads requests and sends answers; the daemon implements [`Serve`].

use std::fs::File;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Serialize;

use super::Health;
use super::payload::Payload;
use crate::BoxFuture;
use crate::http::Hosts;

/// Default maximum size of a request body, in bytes. A hundred thousand runs are smaller.
const LARGEST_REQUEST: usize = 64 << 20;

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: Payload,
}

impl Answer {
    /// 200 and a JSON value.
    pub fn json(value: &impl Serialize) -> Self {
        Self::with(StatusCode::OK, value)
    }

    /// An error with a message.
    pub fn error(status: u16, error: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::with(status, &Health { error: error.into() })
    }

    /// Text of the given type.
    pub fn text(status: u16, content_type: &'static str, text: String) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, content_type, body: Payload::Bytes(text.into()) }
    }

    /// 200 and a file, from its start.
    pub fn file(content_type: &'static str, file: File) -> Self {
        match Payload::file(file) {
            Ok(body) => Self { status: StatusCode::OK, content_type, body },
            Err(error) => Self::error(503, format!("the file cannot be sent: {error}")),
        }
    }

    fn with(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(text) => {
                Self { status, content_type: "application/json", body: Payload::Bytes((text + "\n").into()) }
            }
            Err(error) => Self::text(500, "text/plain", error.to_string()),
        }
    }
}

/// Answers requests.
pub trait Serve: Send + Sync + 'static {
    /// Maximum size of a request body, in bytes.
    fn largest_request(&self) -> usize {
        LARGEST_REQUEST
    }

    /// The accepted hosts; `None` accepts any.
    fn hosts(&self) -> Option<&Hosts> {
        None
    }

    /// Answers one request.
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Answer>;
}

/// A request.
#[derive(Debug)]
pub struct Asked {
    /// `GET`, …
    pub method: Method,
    /// The path as sent, still encoded.
    pub path: String,
    /// The query as sent, still encoded; empty if there is none.
    pub query: String,
    /// The whole body.
    pub body: Bytes,
}
