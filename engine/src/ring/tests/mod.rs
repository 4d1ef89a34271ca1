//! Tests of the driver with a script in the shard's place, on real sockets and a real directory.

mod calls;
mod disk;
mod harness;
mod network;
mod spans;
