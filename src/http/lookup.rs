//! Resolves host names, each on its own thread. Hyper's resolver panics if the machine is short of threads, and that
//! ends more than the one request.

use std::net::ToSocketAddrs as _;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::blocking;

/// Uses the system's resolver.
pub(super) struct Lookup;

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port comes from the URL and is set later.
            let look_up = move || (name.as_str(), 0).to_socket_addrs();
            let found = blocking::run("lookup", look_up).await??;
            Ok(Box::new(found) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finds_this_machine_and_says_why_not() {
        let look_up = async |name: &str| Lookup.resolve(name.parse().unwrap()).await;
        let found: Vec<_> = look_up("localhost").await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|found| found.ip().is_loopback()), "{found:?}");
        let Err(error) = look_up("no.such.host.invalid").await else { panic!("found") };
        assert!(!error.to_string().is_empty());
    }
}
