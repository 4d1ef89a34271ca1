//! Requests that wait for writes.

use kafka_wire::{
    DeleteGroupsResponse, OffsetCommitResponse, OffsetDeleteResponse, TxnOffsetCommitResponse,
};

use super::super::Token;
use super::super::coordinator::Response;
use super::super::error::GroupError;
use super::{Effect, Writes};

/// A request that is answered when its writes are durable.
#[derive(Debug)]
pub(super) struct Waiter {
    token: Token,
    writes_left: usize,
    answer: Answer,
}

/// The answer if all goes well.
#[derive(Debug)]
pub(in crate::groups) enum Answer {
    Commit(OffsetCommitResponse),
    Delete(DeleteGroupsResponse),
    OffsetDelete(OffsetDeleteResponse),
    TxnCommit(TxnOffsetCommitResponse),
}

impl Answer {
    /// Puts `error` where a part was to succeed.
    fn fail(&mut self, part: usize, error: GroupError) {
        let set = |code: &mut i16| {
            if *code == 0 {
                *code = error.code();
            }
        };
        match self {
            Self::Commit(response) => {
                let topics = response.topics.iter_mut();
                let partitions = topics.flat_map(|topic| &mut topic.partitions);
                partitions.for_each(|partition| set(&mut partition.error_code));
            }
            Self::TxnCommit(response) => {
                let topics = response.topics.iter_mut();
                let partitions = topics.flat_map(|topic| &mut topic.partitions);
                partitions.for_each(|partition| set(&mut partition.error_code));
            }
            Self::Delete(response) => {
                if let Some(result) = response.results.get_mut(part) {
                    set(&mut result.error_code);
                }
            }
            Self::OffsetDelete(response) => set(&mut response.error_code),
        }
    }

    fn into_response(self) -> Response {
        match self {
            Self::Commit(response) => Response::Commit(response),
            Self::Delete(response) => Response::Delete(response),
            Self::OffsetDelete(response) => Response::OffsetDelete(response),
            Self::TxnCommit(response) => Response::TxnCommit(response),
        }
    }
}

impl Writes {
    /// A request that is answered with `answer` once the writes that are given `Effect::Answer` with the number
    /// returned have ended; [`Writes::seal`] follows them.
    pub(in crate::groups) fn wait(&mut self, token: Token, answer: Answer) -> u64 {
        self.serial += 1;
        let waiter = Waiter {
            token,
            // Its maker's own share, given up by `seal`.
            writes_left: 1,
            answer,
        };
        self.waiters.insert(self.serial, waiter);
        self.serial
    }

    /// All writes of a waiter have been queued. Its response if nothing has to be waited for.
    pub(in crate::groups) fn seal(&mut self, waiter: u64) -> Option<(Token, Response)> {
        self.write_ended(waiter, 0, Ok(()))
    }

    pub(super) fn write_ended(
        &mut self,
        id: u64,
        part: usize,
        result: Result<(), GroupError>,
    ) -> Option<(Token, Response)> {
        let waiter = self.waiters.get_mut(&id)?;
        if let Err(error) = result {
            waiter.answer.fail(part, error);
        }
        waiter.writes_left -= 1;
        if waiter.writes_left > 0 {
            return None;
        }
        let waiter = self.waiters.remove(&id)?;
        Some((waiter.token, waiter.answer.into_response()))
    }

    /// The effect of one of a waiter's writes.
    pub(super) fn part(&mut self, waiter: Option<(u64, usize)>) -> Effect {
        match waiter {
            Some((id, part)) => {
                if let Some(waiter) = self.waiters.get_mut(&id) {
                    waiter.writes_left += 1;
                }
                Effect::Answer(id, part)
            }
            None => Effect::None,
        }
    }
}
