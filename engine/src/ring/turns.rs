//! The loop of one shard.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use io_uring::cqueue;

use crate::disk::Completion;
use crate::id::Now;
use crate::record::Recorder;
use crate::shard::{Driven, Mailbox};

use super::background::{Background, Report};
use super::clock::mono_ns;
use super::lanes::Lanes;
use super::net::{Net, Scene};
use super::table::FileTable;
use super::uring::{Done, Kind, Ring, Token, Wait};
use super::waker::poll_entry;
use super::{RingConfig, RingError, RingStats, ShardWaker, Shutdown, now};
use super::{driver::ShardInputs, lanes};

/// How long the end waits for the kernel to give everything back, nanoseconds.
const DRAIN_NS: u64 = 10_000_000_000;

/// A shard and everything it is driven by.
pub(super) struct Turns<'a, 'r, D: Driven> {
    ring: Ring<'r>,
    shard: D,
    net: Net,
    lanes: Lanes,
    files: FileTable,
    background: Background,
    waker: &'a ShardWaker,
    shutdown: &'a Shutdown,
    stats: &'a RingStats,
    flush_ns: u64,
    wake_armed: bool,
    /// The shard was told of the shutdown.
    told: bool,
    /// When a finished shard's connections are closed even if they have not taken everything.
    give_up_ns: Option<u64>,
    /// The shard is over: it hears of nothing but its connections.
    over: bool,
    done: Vec<Done>,
    mail: VecDeque<D::Mail>,
    reports: VecDeque<Report>,
    number: u32,
    recorder: Option<Arc<Recorder>>,
}

impl<'a, 'r, D: Driven> Turns<'a, 'r, D> {
    pub(super) fn new(
        config: &RingConfig,
        inputs: &'a ShardInputs<D::Mail>,
        ring: Ring<'r>,
        shard: D,
        (net, lanes, files, background): (Net, lanes::Lanes, FileTable, Background),
    ) -> Self {
        Self {
            ring,
            shard,
            net,
            lanes,
            files,
            background,
            waker: &inputs.waker,
            shutdown: &inputs.shutdown,
            stats: &inputs.stats,
            flush_ns: config.flush_ms.saturating_mul(1_000_000),
            wake_armed: false,
            told: false,
            give_up_ns: None,
            over: false,
            done: Vec::new(),
            mail: VecDeque::new(),
            reports: VecDeque::new(),
            number: config.shard,
            recorder: config.recorder.clone(),
        }
    }

    /// Takes turns until the shard is finished and its connections have what was queued for them.
    pub(super) fn run(&mut self, mailbox: &Mailbox<D::Mail>) -> Result<(), RingError> {
        self.carry_out(now())?;
        loop {
            self.wait(mailbox)?;
            let now = now();
            self.feed(now)?;
            self.shard.turn(now);
            self.stats.turns.add(1);
            if let Some(fatal) = self.shard.fatal() {
                // Before any command: what this turn would have sent may be a lie.
                return Err(fatal.into());
            }
            self.carry_out(now)?;
            if self.is_finished(now) {
                return Ok(());
            }
            self.stats
                .busy_ns
                .add(mono_ns().saturating_sub(now.mono_ns));
        }
    }

    fn is_finished(&mut self, now: Now) -> bool {
        if !self.shard.is_finished() {
            return false;
        }
        let give_up = now.mono_ns.saturating_add(self.flush_ns);
        let give_up = *self.give_up_ns.get_or_insert(give_up);
        let idle = self.lanes.in_flight() == 0 && self.background.outstanding() == 0;
        idle && (self.net.is_flushed() || give_up <= now.mono_ns)
    }

    // --- waiting ---

    /// Submits what is queued, and sleeps unless there is something to do.
    fn wait(&mut self, mailbox: &Mailbox<D::Mail>) -> Result<(), RingError> {
        self.arm_wake().map_err(RingError::Enter)?;
        let mut wait = self.patience();
        if wait != Wait::No {
            self.waker.prepare_sleep();
            self.collect(mailbox)?;
            if self.has_input() {
                wait = Wait::No;
            }
        }
        self.ring.enter(wait).map_err(RingError::Enter)?;
        self.waker.awake();
        self.stats.enters.set(self.ring.enters());
        self.collect(mailbox)
    }

    /// How long nothing needs to be done.
    fn patience(&self) -> Wait {
        if self.has_input() {
            return Wait::No;
        }
        let deadlines = [
            self.shard.deadline_ns(),
            self.net.deadline_ns(),
            self.give_up_ns,
        ];
        match deadlines.into_iter().flatten().min() {
            None => Wait::Forever,
            Some(0) => Wait::No,
            Some(deadline) => match deadline.saturating_sub(mono_ns()) {
                0 => Wait::No,
                left if self.gathers() => Wait::Gather(left),
                left => Wait::For(left),
            },
        }
    }

    /// Whether whatever arrives may wait for what is due next. What the disk gives back may not: somebody waits for it.
    fn gathers(&self) -> bool {
        self.shard.gathers() && self.lanes.in_flight() == 0
    }

    /// Whether something waits that did not come through the ring.
    fn has_input(&self) -> bool {
        !self.mail.is_empty()
            || !self.reports.is_empty()
            || self.net.has_ended()
            || self.net.has_listed()
            || !self.net.outcomes.is_empty()
            || self.lanes.has_ready()
            || (!self.told && self.shutdown.is_requested())
    }

    /// Takes what other threads have sent.
    fn collect(&mut self, mailbox: &Mailbox<D::Mail>) -> Result<(), RingError> {
        self.mail.extend(std::iter::from_fn(|| mailbox.poll()));
        self.collect_from_helpers()
    }

    fn collect_from_helpers(&mut self) -> Result<(), RingError> {
        while let Some(report) = self.background.next_report()? {
            self.reports.push_back(report);
        }
        let outcomes = std::iter::from_fn(|| self.net.senders.next_outcome());
        self.net.outcomes.extend(outcomes);
        Ok(())
    }

    fn arm_wake(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.wake_armed, true) {
            let entry = poll_entry(self.waker, Token::new(Kind::Wake, 0));
            // SAFETY: names no memory; the waker outlives the ring's use.
            unsafe { self.ring.push(&entry) }?;
        }
        Ok(())
    }

    // --- what happened ---

    /// Hands the shard everything that happened.
    fn feed(&mut self, now: Now) -> Result<(), RingError> {
        self.feed_from_kernel(now).map_err(RingError::Enter)?;
        while let Some(report) = self.reports.pop_front() {
            if let Some((file, fd)) = report.opened {
                self.files.opened(file, fd);
            }
            self.completed(now, report.completion);
        }
        while let Some(completion) = self.lanes.next_ready() {
            self.completed(now, completion);
        }
        while let Some(mail) = self.mail.pop_front() {
            self.shard.mail(now, mail);
        }
        while let Some((id, reason)) = self.net.next_ended() {
            self.shard.closed(now, id, reason);
        }
        if !self.told && self.shutdown.is_requested() {
            self.told = true;
            self.net
                .stop_accepting(&mut self.ring)
                .map_err(RingError::Enter)?;
            self.shard.shutdown(now);
        }
        Ok(())
    }

    fn feed_from_kernel(&mut self, now: Now) -> io::Result<()> {
        let mut done = std::mem::take(&mut self.done);
        self.ring.reap(&mut done);
        self.stats.completions.add(done.len() as u64);
        for entry in done.drain(..) {
            self.dispatch(now, entry)?;
        }
        self.done = done;
        while let Some(outcome) = self.net.outcomes.pop_front() {
            let (net, mut scene) = self.scene(now);
            net.on_outcome(&mut scene, &outcome)?;
        }
        Ok(())
    }

    fn dispatch(&mut self, now: Now, done: Done) -> io::Result<()> {
        let (net, mut scene) = self.scene(now);
        match done.token.kind {
            Kind::Ignore => {}
            Kind::Wake => {
                self.wake_armed = cqueue::more(done.flags);
                self.stats.wakes.add(1);
            }
            Kind::Accept => net.on_accept(&mut scene, done)?,
            Kind::Recv => net.on_recv(&mut scene, done)?,
            Kind::Send => net.on_sent(&mut scene, done)?,
            Kind::Writable => net.on_writable(&mut scene, done)?,
            Kind::SpliceIn => net.on_spliced_in(&mut scene, done)?,
            Kind::SpliceOut => net.on_spliced_out(&mut scene, done)?,
            Kind::Closed => net.on_closed(scene.stats, done.token.index),
            Kind::Disk | Kind::LinkedSync => {
                let ended = self.lanes.finish(
                    &mut self.ring,
                    &self.files,
                    done,
                    self.stats,
                    now.mono_ns,
                )?;
                if let Some(completion) = ended {
                    self.completed(now, completion);
                }
            }
        }
        Ok(())
    }

    fn completed(&mut self, now: Now, completion: Completion) {
        if let Some(recorder) = &self.recorder {
            recorder.end(self.number, &completion);
        }
        if !self.over {
            self.shard.completed(now, completion);
        }
    }

    fn scene(&mut self, now: Now) -> (&mut Net, Scene<'_, 'r, D>) {
        let scene = Scene {
            ring: &mut self.ring,
            shard: &mut self.shard,
            stats: self.stats,
            now,
        };
        (&mut self.net, scene)
    }

    // --- what is asked for ---

    /// Carries out what the shard asks for: its operations first, then its commands, and then whatever its
    /// connections are ready for.
    fn carry_out(&mut self, now: Now) -> Result<(), RingError> {
        while let Some(op) = self.shard.next_op() {
            if let Some(recorder) = &self.recorder {
                recorder.begin(self.number, &op);
            }
            if Lanes::takes(&op) {
                self.lanes
                    .start(&mut self.ring, &mut self.files, op, now.mono_ns)
                    .map_err(RingError::Enter)?;
                continue;
            }
            if let crate::disk::OpKind::Close { file } = op.kind {
                self.files.close(&self.ring, file);
            }
            self.background.order(op)?;
        }
        self.background.flush();
        while let Some(command) = self.shard.next_command() {
            self.net
                .command(&mut self.ring, command)
                .map_err(RingError::Enter)?;
        }
        self.attend(now)
    }

    fn attend(&mut self, now: Now) -> Result<(), RingError> {
        self.net
            .attend(
                &mut self.ring,
                &self.files,
                now.mono_ns,
                self.lanes.is_committing(),
            )
            .map_err(RingError::Enter)
    }

    // --- the end ---

    /// Ends all connections and waits until the kernel and the helpers have given everything back; whether they
    /// did.
    pub(super) fn drain(&mut self) -> bool {
        self.over = true;
        let give_up = mono_ns().saturating_add(DRAIN_NS);
        match self.drain_until(give_up) {
            Ok(drained) => drained,
            Err(error) => {
                tracing::error!("ending a shard: {error}");
                false
            }
        }
    }

    fn drain_until(&mut self, give_up_ns: u64) -> Result<bool, RingError> {
        self.net
            .stop_accepting(&mut self.ring)
            .and_then(|()| self.net.end_all(&mut self.ring))
            .map_err(RingError::Enter)?;
        loop {
            let now = now();
            self.attend(now)?;
            let idle = self.lanes.in_flight() == 0 && self.background.outstanding() == 0;
            if idle && self.net.is_quiet() {
                return Ok(true);
            }
            if now.mono_ns >= give_up_ns {
                return Ok(false);
            }
            // Helpers are looked at often enough this way, without the protocol of sleeping.
            self.ring
                .enter(Wait::For(1_000_000))
                .map_err(RingError::Enter)?;
            self.collect_from_helpers()?;
            self.feed(now)?;
        }
    }
}
