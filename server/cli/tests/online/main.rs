//! `ringlog` against a running server.

#![allow(clippy::unwrap_used)]

mod produce_consume;
mod run;
mod server;
mod topics;
