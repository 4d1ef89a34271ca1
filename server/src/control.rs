//! The control thread: carries out changes of the catalog one after the other, off the data path. A change is
//! committed, sent to every shard, and answered when all of them have taken it over, so that a client told of a
//! new topic can use it on any shard at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use ringlog_engine::shard::MailSender;

use crate::app::Mail;
use crate::catalog::store::{Store, StoreError};
use crate::catalog::{Catalog, Plan};
use crate::wire::error;

pub use crate::catalog::action::{Action, Outcome, Refusal};

/// A message to the control thread.
#[derive(Debug)]
pub enum Command {
    /// Carry out an action.
    Submit {
        /// Who asks.
        shard: u32,
        /// Comes back with the outcome.
        op: u64,
        /// What to do.
        action: Action,
    },
    /// A shard has taken over a version of the catalog.
    Applied {
        /// The version.
        version: u64,
    },
    /// Mail from one shard to another.
    Post {
        /// The shard it is for.
        to: u32,
        /// What it says.
        mail: Mail,
    },
    /// The process ends.
    Stop,
}

/// The end of an action, known to every shard.
#[derive(Debug)]
pub struct Done {
    /// As submitted.
    pub op: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// A shard's line to the control thread.
#[derive(Debug, Clone)]
pub struct Controller {
    shard: u32,
    sender: Sender<Command>,
}

impl Controller {
    /// The line of `shard`.
    #[must_use]
    pub fn new(shard: u32, sender: Sender<Command>) -> Self {
        Self { shard, sender }
    }

    /// Asks for `action`; the outcome comes as [`Mail::Done`].
    pub(crate) fn submit(&self, op: u64, action: Action) {
        let shard = self.shard;
        self.send(Command::Submit { shard, op, action });
    }

    /// This shard has taken over `version`.
    pub(crate) fn applied(&self, version: u64) {
        self.send(Command::Applied { version });
    }

    /// Passes mail on to another shard.
    pub(crate) fn post(&self, to: u32, mail: Mail) {
        self.send(Command::Post { to, mail });
    }

    fn send(&self, command: Command) {
        if self.sender.send(command).is_err() {
            tracing::debug!("the control thread has ended");
        }
    }
}

/// An outcome on its way to the shard that asked.
struct Answer {
    shard: u32,
    done: Done,
}

/// A version that shards are taking over.
struct Spreading {
    version: u64,
    missing: usize,
    answer: Answer,
}

/// The catalog's master copy and those who follow it. Pure but for the store.
pub struct Control<S> {
    catalog: Catalog,
    store: S,
    spreading: VecDeque<Spreading>,
    shards: usize,
}

/// Where committed changes go.
pub trait Commit {
    /// Makes the plan's changes durable, all or none.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    fn commit(&mut self, plan: &Plan) -> Result<(), StoreError>;
}

impl Commit for Store {
    fn commit(&mut self, plan: &Plan) -> Result<(), StoreError> {
        Store::commit(self, plan)
    }
}

impl<S: Commit> Control<S> {
    /// A master copy for `shards` shards.
    pub fn new(catalog: Catalog, store: S, shards: usize) -> Self {
        Self {
            catalog,
            store,
            spreading: VecDeque::new(),
            shards,
        }
    }

    /// Handles one command; `send` delivers mail to a shard. Returns false when it is time to end.
    pub fn handle(&mut self, command: Command, send: &mut dyn FnMut(usize, Mail)) -> bool {
        match command {
            Command::Submit { shard, op, action } => self.carry_out(shard, op, &action, send),
            Command::Applied { version } => {
                for spread in &mut self.spreading {
                    if spread.version == version {
                        spread.missing -= 1;
                    }
                }
                while self.spreading.front().is_some_and(|s| s.missing == 0) {
                    if let Some(spread) = self.spreading.pop_front() {
                        let Answer { shard, done } = spread.answer;
                        send(shard as usize, Mail::Done(done));
                    }
                }
            }
            Command::Post { to, mail } => send(to as usize, mail),
            Command::Stop => return false,
        }
        true
    }

    fn carry_out(
        &mut self,
        shard: u32,
        op: u64,
        action: &Action,
        send: &mut dyn FnMut(usize, Mail),
    ) {
        let mut plan = self.catalog.plan(action);
        if plan.update.is_some()
            && let Err(error) = self.store.commit(&plan)
        {
            tracing::error!(%error, "the catalog cannot be changed");
            plan.update = None;
            plan.outcome.fail_all(&Refusal::new(
                error::KAFKA_STORAGE_ERROR,
                "the catalog cannot be written",
            ));
        }
        let answer = Answer {
            shard,
            done: Done {
                op,
                outcome: plan.outcome,
            },
        };
        let Some(update) = plan.update else {
            // Behind changes under way, so that "exists already" is true on every shard.
            if let Some(last) = self.spreading.back() {
                let (version, missing) = (last.version, last.missing);
                self.spreading.push_back(Spreading {
                    version,
                    missing,
                    answer,
                });
            } else {
                send(shard as usize, Mail::Done(answer.done));
            }
            return;
        };
        self.catalog.adopt(&update);
        self.spreading.push_back(Spreading {
            version: update.version,
            missing: self.shards,
            answer,
        });
        let update = Arc::new(update);
        for to in 0..self.shards {
            send(to, Mail::Catalog(update.clone()));
        }
    }
}

/// Runs the control thread until [`Command::Stop`].
pub fn run<S: Commit>(
    mut control: Control<S>,
    commands: &Receiver<Command>,
    shards: &[MailSender<Mail>],
) {
    while let Ok(command) = commands.recv() {
        let more = control.handle(command, &mut |shard, mail| {
            if let Some(shard) = shards.get(shard) {
                shard.send(mail);
            }
        });
        if !more {
            return;
        }
    }
}
