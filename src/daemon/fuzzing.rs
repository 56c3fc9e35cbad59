//! Entries for fuzzing (`fuzz/`): requests on the socket.

use super::routes;
use crate::control::{AddRequest, ResendRequest, RetryRequest};

/// Reads `data` as the parts of each request: a body, a path segment and a query.
pub fn request(data: &[u8]) {
    let _ = routes::read::<AddRequest>(data);
    let _ = routes::read::<RetryRequest>(data);
    let _ = routes::read::<ResendRequest>(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = routes::run_id(text);
        let _ = routes::listed(text);
    }
}
