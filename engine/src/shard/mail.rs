//! Messages to a shard from other threads: other shards and the control plane.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Makes a shard's sleeping driver look at its mailbox. The ring driver's writes an eventfd; the simulator's does
/// nothing.
pub trait Wake: Send + Sync {
    /// Wakes the shard; cheap when it is awake.
    fn wake(&self);
}

/// Sends messages to one shard.
pub struct MailSender<M> {
    sender: Sender<M>,
    wake: Arc<dyn Wake>,
}

impl<M> Clone for MailSender<M> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            wake: self.wake.clone(),
        }
    }
}

impl<M> MailSender<M> {
    /// Delivers `message` and wakes the shard; false when the shard is gone.
    pub fn send(&self, message: M) -> bool {
        let sent = self.sender.send(message).is_ok();
        self.wake.wake();
        sent
    }
}

/// A shard's end, polled by its driver once a turn.
pub struct Mailbox<M> {
    receiver: Receiver<M>,
}

impl<M> Mailbox<M> {
    /// A mailbox and its sender; `wake` rouses the driver that polls it.
    #[must_use]
    pub fn new(wake: Arc<dyn Wake>) -> (MailSender<M>, Self) {
        let (sender, receiver) = channel();
        (MailSender { sender, wake }, Self { receiver })
    }

    /// The next message, without waiting.
    pub fn poll(&self) -> Option<M> {
        self.receiver.try_recv().ok()
    }
}
