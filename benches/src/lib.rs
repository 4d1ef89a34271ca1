//! Storage benchmarks without a server.
