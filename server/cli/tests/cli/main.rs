//! `ringlog` against a running server, and against the files that one has left.

#![allow(clippy::unwrap_used)]

mod dump;
mod garbage;
mod groups;
mod produce_consume;
mod run;
mod server;
mod topics;
mod verify;
