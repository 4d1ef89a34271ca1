//! The task that takes the turns of one shard.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use glommio::timer::Timer;

use crate::id::Now;
use crate::ring::{RingError, Shutdown, mono_ns, now};
use crate::shard::{CloseReason, ConnId, Driven, Mailbox};

use super::accept::{Accepted, Acceptor};
use super::state::State;
use super::{ExecutorWaker, conn, disk};

/// How long the end waits for the kernel to give everything back.
const DRAIN: Duration = Duration::from_secs(10);
/// How often the end looks whether it has.
const DRAIN_STEP: Duration = Duration::from_millis(1);
/// Pause between two log lines about refused connections, nanoseconds.
const LOG_PAUSE_NS: u64 = 1_000_000_000;

/// A shard and everything it is driven by.
pub(super) struct Turns<D: Driven> {
    pub(super) state: Rc<State<D>>,
    pub(super) mailbox: Mailbox<D::Mail>,
    pub(super) acceptor: Acceptor,
    pub(super) waker: Arc<ExecutorWaker>,
    pub(super) shutdown: Shutdown,
    pub(super) max_connections: usize,
    pub(super) flush_ns: u64,
    pub(super) progress: Progress<D::Mail>,
}

/// What changes from turn to turn.
pub(super) struct Progress<M> {
    mail: VecDeque<M>,
    accepted: VecDeque<Accepted>,
    /// Connections accepted so far: their names.
    names: u64,
    logged_ns: u64,
    /// The shard was told of the shutdown.
    told: bool,
    /// When a finished shard's connections are closed even if they have not taken everything.
    give_up_ns: Option<u64>,
}

impl<M> Default for Progress<M> {
    fn default() -> Self {
        Self {
            mail: VecDeque::new(),
            accepted: VecDeque::new(),
            names: 0,
            logged_ns: 0,
            told: false,
            give_up_ns: None,
        }
    }
}

impl<D: Driven + 'static> Turns<D> {
    /// Takes turns until the shard is finished and its connections have what was queued for them.
    pub(super) async fn run(&mut self) -> Result<(), RingError> {
        self.carry_out();
        loop {
            self.wait().await;
            let now = now();
            self.feed(now);
            self.state.shard.borrow_mut().turn(now);
            self.state.stats.turns.add(1);
            let fatal = self.state.shard.borrow().fatal();
            if let Some(fatal) = fatal {
                // Before any command: what this turn would have sent may be a lie.
                return Err(fatal.into());
            }
            self.carry_out();
            if self.is_finished(now) {
                return Ok(());
            }
            let busy_ns = mono_ns().saturating_sub(now.mono_ns);
            self.state.stats.busy_ns.add(busy_ns);
        }
    }

    fn is_finished(&mut self, now: Now) -> bool {
        if !self.state.shard.borrow().is_finished() {
            return false;
        }
        let give_up = now.mono_ns.saturating_add(self.flush_ns);
        let give_up = *self.progress.give_up_ns.get_or_insert(give_up);
        let conns = self.state.conns.borrow();
        let flushed = conns.values().all(|conn| conn.is_flushed());
        self.state.in_flight.get() == 0 && (flushed || give_up <= now.mono_ns)
    }

    // --- waiting ---

    /// Sleeps until there is something to do.
    async fn wait(&mut self) {
        let mut timer = match self.patience() {
            Some(Duration::ZERO) => {
                // At once, but not before what is ready to run.
                glommio::executor().yield_now().await;
                self.collect();
                return;
            }
            Some(left) if self.gathers() => {
                glommio::timer::sleep(left).await;
                self.collect();
                return;
            }
            Some(left) => Some(Timer::new(left)),
            None => None,
        };
        poll_fn(|cx| self.poll_input(cx, timer.as_mut())).await;
        self.waker.awake();
    }

    /// How long nothing needs to be done; `None` is for ever.
    fn patience(&self) -> Option<Duration> {
        let deadline = self.state.shard.borrow().deadline_ns();
        let deadlines = [deadline, self.progress.give_up_ns];
        let deadline = deadlines.into_iter().flatten().min()?;
        Some(Duration::from_nanos(deadline.saturating_sub(mono_ns())))
    }

    /// Whether whatever arrives may wait for what is due next. What the disk gives back may not: somebody waits for it.
    fn gathers(&self) -> bool {
        self.state.shard.borrow().gathers() && self.state.in_flight.get() == 0
    }

    fn poll_input(&mut self, cx: &mut Context<'_>, timer: Option<&mut Timer>) -> Poll<()> {
        self.waker.awake();
        if self.state.is_due(cx.waker()) {
            self.collect();
            return Poll::Ready(());
        }
        self.waker.prepare_sleep(cx.waker());
        self.collect();
        if self.has_input() {
            return Poll::Ready(());
        }
        match timer {
            Some(timer) => Pin::new(timer).poll(cx).map(drop),
            None => Poll::Pending,
        }
    }

    /// Takes what other threads have sent.
    fn collect(&mut self) {
        let mail = std::iter::from_fn(|| self.mailbox.poll());
        self.progress.mail.extend(mail);
        let accepted = std::iter::from_fn(|| self.acceptor.next());
        self.progress.accepted.extend(accepted);
    }

    /// Whether something came from another thread.
    fn has_input(&self) -> bool {
        !self.progress.mail.is_empty()
            || !self.progress.accepted.is_empty()
            || (!self.progress.told && self.shutdown.is_requested())
    }

    // --- what happened ---

    /// Hands the shard what came from other threads; what happened on this one it knows already.
    fn feed(&mut self, now: Now) {
        while let Some(accepted) = self.progress.accepted.pop_front() {
            self.accepted(now, accepted);
        }
        while let Some(mail) = self.progress.mail.pop_front() {
            self.state.shard.borrow_mut().mail(now, mail);
        }
        if !self.progress.told && self.shutdown.is_requested() {
            self.progress.told = true;
            self.acceptor.stop();
            self.state.shard.borrow_mut().shutdown(now);
        }
    }

    fn accepted(&mut self, now: Now, (stream, peer): Accepted) {
        let stats = &self.state.stats;
        let open = self.state.conns.borrow().len();
        if open >= self.max_connections || self.progress.told {
            stats.refused.add(1);
            if now.mono_ns.saturating_sub(self.progress.logged_ns) >= LOG_PAUSE_NS {
                self.progress.logged_ns = now.mono_ns;
                let limit = self.max_connections;
                tracing::warn!("connection refused: max_connections is {limit}");
            }
            return;
        }
        self.progress.names += 1;
        let id = ConnId(self.progress.names);
        stats.accepted.add(1);
        stats.connections.set(open as u64 + 1);
        conn::serve(&self.state, id, stream);
        self.state.shard.borrow_mut().accepted(now, id, peer);
    }

    // --- what is asked for ---

    /// Carries out what the shard asks for: its operations first, then its commands.
    fn carry_out(&self) {
        loop {
            let next = self.state.shard.borrow_mut().next_op();
            match next {
                Some(op) => disk::start(&self.state, op),
                None => break,
            }
        }
        self.state.carry_out_commands();
    }

    // --- the end ---

    /// Ends all connections and waits until the kernel and the blocking threads have given everything back; whether
    /// they did.
    pub(super) async fn drain(&mut self) -> bool {
        self.state.over.set(true);
        self.acceptor.stop();
        self.waker.forget();
        let conns: Vec<_> = self.state.conns.borrow().values().cloned().collect();
        for conn in conns {
            conn.end(CloseReason::Local);
        }
        let give_up = Instant::now() + DRAIN;
        while self.state.in_flight.get() > 0 || !self.state.conns.borrow().is_empty() {
            if Instant::now() >= give_up {
                return false;
            }
            glommio::timer::sleep(DRAIN_STEP).await;
        }
        true
    }
}
