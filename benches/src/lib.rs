//! Benchmarks of the storage path without a server: the raw device that the server's numbers are held against; and the
//! report that `scripts/run` prints; and profiles by thread.

pub mod claims;
pub mod disk;
pub mod profile;
pub mod run_report;
pub mod uring;
