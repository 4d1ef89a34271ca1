//! One shard: the core, the application that speaks a protocol over it, and what flows between them and a
//! driver. Free of I/O: a driver feeds completions in and carries the queued operations out.

mod app;
mod driven;
mod mail;
mod net;

pub use app::{App, CloseReason, Cx, Shard};
pub(crate) use driven::Driven;
pub use mail::{MailSender, Mailbox, Wake};
pub use net::{ConnId, Net, NetCommand, SendData};
