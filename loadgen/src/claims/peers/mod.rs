//! Figures of other brokers on the same host, measured by `scripts/peers measure` and read from its peers.json: they are put
//! beside this server's in the claims that speak of those brokers. benches/METHOD.md describes the file.

mod file;
mod judge;

pub use file::{Peers, load};
pub use judge::apply;
