//! Rousing the executor from other threads.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use crate::shard::Wake;

/// Wakes the task that takes a shard's turns. The task says when it is about to sleep; only then does a wake reach
/// the executor, and only the first of several.
///
/// Protocol: a sender makes its message visible, then calls [`Wake::wake`]. The task calls `prepare_sleep`, looks
/// for messages once more, sleeps only if there is none, and calls `awake` afterwards. Both sides have a full fence
/// between their store and their load, so at least one sees the other.
#[derive(Debug, Default)]
pub struct ExecutorWaker {
    sleeping: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl ExecutorWaker {
    /// A waker of a task that is awake.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Says that `task` is about to sleep: it must look for messages once more before it does.
    pub(super) fn prepare_sleep(&self, task: &Waker) {
        let mut known = self.task();
        if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
            *known = Some(task.clone());
        }
        drop(known);
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the task is awake.
    pub(super) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Lets go of the task: called on its thread, before its executor ends.
    pub(super) fn forget(&self) {
        self.awake();
        *self.task() = None;
    }

    fn task(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for ExecutorWaker {
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed)
            && self.sleeping.swap(false, Ordering::Relaxed)
            && let Some(task) = &*self.task()
        {
            task.wake_by_ref();
        }
    }
}
