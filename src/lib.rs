//! The runwatch library, used by the binary: watches DataFramer runs until they end, and notifies.
//!
//! The path of the data, one module per stage:
//!
//! ```text
//! config ─▶ watch list ─▶ poll::scheduler ─▶ api ─▶ run::observe ─▶ store ══▶ notify::delivery ─▶ notifiers
//! (what)                  (when)             (ask)  (what changed)  (state + outbox,   (send, retry,
//!                                                                    ONE transaction)   record)
//! ```
//!
//! The double arrow is the only link between polling and notifying: a row in the outbox.
//!
//! Allowed imports (checked by a test):
//!
//! - [`run`] imports no other module.
//! - [`blocking`], [`clock`], [`http`], [`secret`], [`small_file`] and [`span`] import only `run`; `http` also imports
//!   `blocking`, `secret` and `small_file`.
//! - [`api`] and [`store`] import `run`, but not each other.
//! - [`notify`] imports `run` and `store`, because it reads the outbox.
//! - [`poll`] imports `api`, `run` and `store`.
//! - [`config`] imports `run`, the settings of each notifier from `notify`, and the settings of `poll`.
//! - `sim`, the simulator, imports `run` and the small modules above. It knows nothing about polling.
//! - [`words`] imports `poll` and `run`: it words updates for people.
//! - [`control`] imports `run`, `store` and the small modules above: the messages on the daemon's socket, and both of
//!   its sides.
//! - [`doctor`] imports the configuration and what it refers to: `api`, `app`, `config`, `control` and `notify`.
//! - [`app`] joins polling and notifying, [`daemon`] runs them on a durable store and serves the socket, and [`cli`] is
//!   the edge: nothing imports it.
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

/// A boxed future, for traits that are used as trait objects.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
