//! Helpers that read like sentences: the built binary, a scripted API, a world of runs, bodies of runs, and what a machine may
//! lack.

pub mod bin;
pub mod body;
pub mod daemon;
pub mod faulty_store;
pub mod need;
pub mod scripted;
pub mod skips;
pub mod stub;
pub mod tls;
pub mod tmux;
pub mod until;
pub mod world;
