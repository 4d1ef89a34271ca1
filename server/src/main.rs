//! The `ringlog-server` binary: see [`ringlog_server::start`].

use clap::Parser;
use ringlog_server::start::{Args, run};

fn main() {
    let args = Args::parse();
    if let Err(error) = run(&args) {
        eprintln!("ringlog: {error}");
        std::process::exit(error.status());
    }
}
