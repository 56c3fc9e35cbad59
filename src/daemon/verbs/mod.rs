//! What the daemon can be asked to do: one file per verb, named as the command's file in `cli`.
//!
//! Each adds its verb to `Handle`, which owns what they share. Called by the socket (`routes`), by files in the watched
//! directory (`spool`) and by discovery.

mod add;
mod backup;
mod deliveries;
mod doctor;
mod list;
mod reload;
mod remove;
mod show;
mod status;
