//! The server driven through its protocol alone: bytes in, bytes out, over the simulated disk.
#![allow(unreachable_pub)]

mod administration;
mod bad_input;
mod compression;
mod consumer_groups;
mod delete_records;
mod fetch;
mod fetch_bounds;
mod list_offsets;
mod produce;
mod repeated;
mod sessions;
mod topics;
mod transactions;
mod util;
mod world;
