//! Assignors: from members and their subscriptions to who is to have which partition. Pure functions, the same for the same
//! input.

mod range;
mod uniform;

use ringlog_engine::id::TopicId;

use super::super::StrBytes;
use super::member::Partitions;

/// `group.consumer.assignors` of its own accord: the first is that of groups whose members have no wish.
pub(in crate::groups) const DEFAULT_ASSIGNORS: &[Assignor] = &[Assignor::Uniform, Assignor::Range];

/// Assignors, under Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    /// As many partitions for each member, and as few moves as that takes.
    Uniform,
    /// Neighbouring partitions of each topic for each member, the same ones in topics of the same size.
    Range,
}

impl Assignor {
    /// The assignor called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "uniform" => Some(Self::Uniform),
            "range" => Some(Self::Range),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// What each member is to have, in the order of the members.
    pub(super) fn assign(self, input: &Input<'_>) -> Vec<Partitions> {
        match self {
            Self::Uniform => uniform::assign(input),
            Self::Range => range::assign(input),
        }
    }
}

/// A topic that somebody subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) id: TopicId,
    pub(super) partitions: i32,
}

/// A member as an assignor sees it.
#[derive(Debug)]
pub(super) struct Subscriber<'a> {
    pub(super) id: &'a StrBytes,
    pub(super) instance_id: Option<&'a StrBytes>,
    /// Places of its topics in [`Input::topics`], ascending.
    pub(super) topics: Vec<usize>,
    /// What it was to have until now.
    pub(super) target: Option<&'a Partitions>,
}

/// All there is to assign, and to whom.
#[derive(Debug)]
pub(super) struct Input<'a> {
    /// By id.
    pub(super) topics: Vec<Topic>,
    pub(super) members: Vec<Subscriber<'a>>,
}

#[cfg(test)]
mod tests;
