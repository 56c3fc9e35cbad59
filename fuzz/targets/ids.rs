//! Run ids, as people, files and the API write them, and the hosts in URLs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runwatch::http::{host_name, is_loopback};
use runwatch::run::{RunId, text::printable};

fuzz_target!(|text: &str| {
    match text.parse::<RunId>() {
        Ok(id) => {
            assert_eq!(printable(id.as_str(), 1000), id.as_str());
            assert_eq!(id.as_str().parse().as_ref(), Ok(&id));
        }
        Err(error) => {
            let shown = error.to_string();
            assert_eq!(printable(&shown, usize::MAX), shown);
        }
    }
    if let Ok(url) = url::Url::parse(text) {
        let _ = is_loopback(&url);
    }
    let _ = host_name(text);
});
