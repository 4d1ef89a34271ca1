//! WriteTxnMarkers: an administrator ends a transaction that hangs in single partitions.

use kafka_wire::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_wire::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use ringlog_engine::batch::Marker;

use super::marks::{Back, Mark};
use super::{Request, Server};
use crate::conn::Token;
use crate::message;
use crate::txn::PartitionCode;
use crate::wire::{Malformed, error};

/// A request and how much of it is done.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    table: hashbrown::HashMap<Token, Pending>,
}

#[derive(Debug)]
struct Pending {
    /// For each marker: producer, and topics with partitions and error codes.
    markers: Vec<(i64, Vec<PartitionCode>)>,
    left: usize,
}

/// Where results of markers belong: the request, which of its markers, and which of that one's partitions.
#[derive(Debug)]
pub(super) struct Answering {
    token: Token,
    marker: usize,
    places: Vec<usize>,
}

pub(super) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: WriteTxnMarkersRequest = request.decode()?;
    let mut pending = Pending {
        markers: Vec::with_capacity(body.markers.len()),
        left: 0,
    };
    let mut marks = Vec::new();
    for (at, wanted) in body.markers.iter().enumerate() {
        let (mut partitions, mut keys, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for topic in &wanted.topics {
            for &index in &topic.partition_indexes {
                let found = crate::api::local(&server.env, &server.catalog, &topic.name, index);
                if let Ok(key) = found {
                    places.push(partitions.len());
                    keys.push(key);
                }
                let code = found.err().unwrap_or(error::NONE);
                partitions.push((topic.name.clone(), index, code));
            }
        }
        pending.markers.push((wanted.producer_id, partitions));
        if keys.is_empty() {
            continue;
        }
        pending.left += 1;
        let answering = Answering {
            token: request.token,
            marker: at,
            places,
        };
        let marker = Marker {
            committed: wanted.transaction_result,
            coordinator_epoch: wanted.coordinator_epoch,
        };
        let producer = (wanted.producer_id, wanted.producer_epoch);
        marks.push(Mark::new(Back::Request(answering), producer, marker, keys));
    }
    if pending.left == 0 {
        server.conns.reply(request.token, &response(pending));
        return Ok(());
    }
    server.txn.requests.table.insert(request.token, pending);
    for mark in marks {
        server.txn.marks.push(mark);
    }
    Ok(())
}

/// Markers of a request are durable, or were refused.
pub(super) fn written(server: &mut Server, answering: &Answering, codes: &[i16]) {
    let token = answering.token;
    let Some(pending) = server.txn.requests.table.get_mut(&token) else {
        return;
    };
    if let Some((_, partitions)) = pending.markers.get_mut(answering.marker) {
        for (place, code) in answering.places.iter().zip(codes) {
            if let Some(partition) = partitions.get_mut(*place) {
                partition.2 = *code;
            }
        }
    }
    pending.left -= 1;
    if pending.left == 0
        && let Some(pending) = server.txn.requests.table.remove(&token)
    {
        server.conns.reply(token, &response(pending));
    }
}

fn response(pending: Pending) -> WriteTxnMarkersResponse {
    let result = |&(_, index, code): &PartitionCode| {
        message!(WritableTxnMarkerPartitionResult {
            partition_index: index,
            error_code: code,
        })
    };
    let topic = |partitions: &[PartitionCode]| {
        message!(WritableTxnMarkerTopicResult {
            name: partitions[0].0.clone(),
            partitions: partitions.iter().map(result).collect(),
        })
    };
    let marker = |(producer_id, partitions): (i64, Vec<PartitionCode>)| {
        let topics = partitions.chunk_by(|a, b| a.0 == b.0);
        message!(WritableTxnMarkerResult {
            producer_id: producer_id,
            topics: topics.map(topic).collect(),
        })
    };
    message!(WriteTxnMarkersResponse {
        markers: pending.markers.into_iter().map(marker).collect(),
    })
}
