//! One member of a group.

use bytes::Bytes;

use super::record::MemberValue;
use super::timers::Alarm;
use super::{StrBytes, Token};

/// A JoinGroup request that waits for the join phase to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JoinWait {
    pub(super) token: Token,
    pub(super) version: i16,
}

/// A protocol a member supports, and its metadata under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) name: StrBytes,
    pub(super) metadata: Bytes,
}

/// One member. Everything it holds is a copy: a slice of a request would keep the whole request in memory.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: StrBytes,
    pub(super) instance_id: Option<StrBytes>,
    pub(super) client_id: StrBytes,
    pub(super) client_host: StrBytes,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// Has not seen a join phase end yet, so it does not know that it should send heartbeats.
    pub(super) is_new: bool,
    pub(super) session: Alarm,
    pub(super) join: Option<JoinWait>,
    pub(super) sync: Option<Token>,
}

impl Member {
    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + 2 * self.id.len()
            + self.instance_id.as_ref().map_or(0, |id| 2 * id.len())
            + self.client_id.len()
            + self.client_host.len()
            + protocols_bytes(&self.protocols)
            + self.assignment.len()
    }

    /// Metadata under `protocol`; empty for a protocol it does not support.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|supported| supported.name.as_str() == protocol)
            .map_or_else(Bytes::new, |supported| supported.metadata.clone())
    }

    /// As stored, with the metadata under `protocol`.
    pub(super) fn value(&self, protocol: &str, assignment: Bytes) -> MemberValue {
        MemberValue {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: self.metadata(protocol),
            assignment,
        }
    }

    /// A member read back, under the protocol its group had chosen.
    pub(super) fn from_value(value: MemberValue, protocol: &StrBytes) -> Self {
        let rebalance_timeout_ms = match value.rebalance_timeout_ms {
            -1 => value.session_timeout_ms,
            stored => stored,
        };
        Self {
            id: value.member_id,
            instance_id: value.instance_id,
            client_id: value.client_id,
            client_host: value.client_host,
            rebalance_timeout_ms,
            session_timeout_ms: value.session_timeout_ms,
            protocols: vec![Protocol {
                name: protocol.clone(),
                metadata: value.subscription,
            }],
            assignment: value.assignment,
            is_new: false,
            session: Alarm::default(),
            join: None,
            sync: None,
        }
    }

    /// Whether a session that ran out is no reason to remove it: its request waits here, so it cannot send
    /// heartbeats.
    pub(super) fn is_excused(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }
}

/// Memory protocols take, in bytes.
pub(super) fn protocols_bytes(protocols: &[Protocol]) -> usize {
    protocols
        .iter()
        .map(|protocol| size_of::<Protocol>() + protocol.name.len() + protocol.metadata.len())
        .sum()
}
