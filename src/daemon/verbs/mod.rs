//! The daemon's commands: one file per verb, with the same name as the command's file in `cli`.
//!
//! Each file adds its verb to `Handle`, which owns what they share. The socket (`routes`), files in the watched
//! directory (`spool`) and discovery call them.

mod add;
mod backup;
mod deliveries;
mod doctor;
mod list;
mod reload;
mod remove;
mod show;
mod status;
