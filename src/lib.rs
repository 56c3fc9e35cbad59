//! runwatch, the library behind the binary: watches DataFramer runs to their end, and says so.
//!
//! The road the data takes, one module a stage:
//!
//! ```text
//! config ─▶ watch list ─▶ poll::scheduler ─▶ api ─▶ run::observe ─▶ store ══▶ notify::delivery ─▶ notifiers
//! (what)                  (when)             (ask)  (what changed)  (state + outbox,   (send, retry,
//!                                                                    ONE transaction)   record)
//! ```
//!
//! The double arrow is the only bridge between the half that watches and the half that notifies: a row in the outbox.
//!
//! Who may import whom (a test keeps it true):
//!
//! - [`run`] imports nothing of ours.
//! - [`blocking`], [`clock`], [`http`], [`secret`], [`small_file`] and [`span`] import nothing but `run`; `http` imports
//!   `blocking`, `secret` and `small_file` too.
//! - [`api`] and [`store`] import `run`. They do not know each other.
//! - [`notify`] imports `run` and `store`: it lives off the outbox.
//! - [`poll`] imports `api`, `run` and `store`.
//! - [`config`] imports `run`, from `notify` the settings that stand beside each notifier, and from `poll` its settings.
//! - `sim`, the simulator, imports `run` and the small modules above: it knows nothing of the half that watches.
//! - [`words`] imports `poll` and `run`: what happens, in words.
//! - [`control`] imports `run` and `store`, and the small modules above: what goes over the daemon's socket, and both of its sides.
//! - [`doctor`] imports the configuration and what it points to: `api`, `app`, `config`, `control` and `notify`.
//! - [`app`] joins the two halves, [`daemon`] puts them on a durable store and serves the socket, and [`cli`] is the edge:
//!   nothing imports it.
pub mod api;
pub mod app;
pub mod blocking;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod doctor;
pub mod http;
pub mod notify;
pub mod poll;
pub mod run;
pub mod secret;
#[cfg(feature = "simulator")]
pub mod sim;
pub mod small_file;
pub mod span;
pub mod store;
pub mod words;

/// A boxed future, for traits that are used behind a pointer.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
