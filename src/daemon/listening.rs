//! Where the daemon listens: its socket, and the metrics port if configured.
//!
//! Keeps the socket reachable. If its file is removed or replaced, commands could not find the daemon, so the socket is
//! made again. A thread of its own checks the file, because a hanging file system must not block anything. Called by
//! the daemon's loop.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::DaemonError;
use super::busy::{may_pass, patiently};
use super::handle::Handle;
use super::routes;
use crate::config;
use crate::control::{Opened, Server, any_ended, serve_opened, serve_tcp, serve_unix};
use crate::http::Hosts;

/// The result of a check: `None` if the socket is in place, else the new socket.
type Found = io::Result<Option<Opened>>;

/// The daemon's servers.
pub(super) struct Listening {
    path: PathBuf,
    mode: u32,
    handle: Arc<Handle>,
    socket: Server,
    port: Option<Server>,
    /// The previous server, for clients that are still connected to it.
    before: Option<Server>,
    looking: Option<oneshot::Receiver<Found>>,
}

impl Listening {
    /// Opens the socket and the port. `None` if the daemon is asked to stop meanwhile.
    pub(super) async fn open(
        path: &Path,
        config: &config::Daemon,
        handle: &Arc<Handle>,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, DaemonError> {
        let refuse = |place: &dyn std::fmt::Display, error: &io::Error, advice: &str| {
            let message = format!("cannot listen on {place}: {error}{advice}");
            if may_pass(error) { DaemonError::Busy(message) } else { DaemonError::Config(message) }
        };
        let mode = if config.socket_for_group { 0o660 } else { 0o600 };
        let listen = async || {
            let serve = Arc::new(routes::Socket(Arc::clone(handle)));
            serve_unix(path, mode, serve).map_err(|error| refuse(&path.display(), &error, ""))
        };
        let Some(socket) = patiently(stop, listen).await? else { return Ok(None) };
        info!(socket = %path.display(), "listening");
        let mut port = None;
        if let Some(address) = config.listen {
            let listen = async || {
                let hosts = Hosts::new(config.listen_names.iter().cloned());
                let serve = Arc::new(routes::Port(Arc::clone(handle), hosts));
                let advice = "; release it, or choose another `listen` in [daemon]";
                serve_tcp(address, serve).await.map_err(|error| refuse(&address, &error, advice))
            };
            let Some((server, address)) = patiently(stop, listen).await? else { return Ok(None) };
            info!("serving metrics on http://{address}/metrics");
            port = Some(server);
        }
        let (path, handle) = (path.to_owned(), Arc::clone(handle));
        Ok(Some(Self { path, mode, handle, socket, port, before: None, looking: None }))
    }

    /// Starts a check that the socket is in place, unless one is running.
    pub(super) fn check(&mut self) {
        let (Some(place), None) = (self.socket.place(), &self.looking) else { return };
        let (reply, found) = oneshot::channel();
        let mode = self.mode;
        let check = move || {
            // The receiver is gone if the daemon has ended.
            let _ = reply.send(place.restore(mode));
        };
        match std::thread::Builder::new().name("socket".to_owned()).spawn(check) {
            Ok(_) => self.looking = Some(found),
            Err(error) => warn!("cannot check whether the socket still exists: {error}"),
        }
    }

    /// Waits for the result of a check. `None` if a server ended. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Found> {
        let Self { socket, port, looking, .. } = self;
        let checked = async {
            match looking.as_mut() {
                Some(looking) => looking.await.unwrap_or(Ok(None)),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = any_ended([socket].into_iter().chain(port)) => None,
            found = checked => {
                self.looking = None;
                Some(found)
            }
        }
    }

    /// Serves on the new socket and logs it. Returns whether anything changed.
    pub(super) fn take(&mut self, found: Found) -> bool {
        let was_in_trouble = self.handle.is_in_trouble("socket");
        let path = self.path.display();
        let serve = Arc::new(routes::Socket(Arc::clone(&self.handle)));
        match found.and_then(|opened| opened.map(|opened| serve_opened(opened, serve)).transpose()) {
            Ok(None) if !was_in_trouble => return false,
            Ok(None) => info!("the socket {path} is in its place again"),
            Ok(Some(server)) => {
                warn!("the socket {path} was removed or replaced; it is made again");
                drop(self.before.replace(std::mem::replace(&mut self.socket, server)));
            }
            Err(error) => {
                let trouble = format!("the socket {path} is gone and cannot be made again: {error}");
                if !was_in_trouble {
                    error!("{trouble}; still trying");
                }
                self.handle.set_trouble("socket", Some(trouble));
                return !was_in_trouble;
            }
        }
        self.handle.set_trouble("socket", None);
        true
    }
}
