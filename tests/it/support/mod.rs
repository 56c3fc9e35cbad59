//! Helpers that read like sentences: the built binary, a scripted API, bodies of runs, and what a machine may lack.

pub mod bin;
pub mod body;
pub mod need;
pub mod stub;
