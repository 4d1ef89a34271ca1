//! OffsetForLeaderEpoch: where an epoch's records end, so that a consumer notices a truncated log.

use kafka_wire::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_wire::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_wire::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use ringlog_engine::shard::Cx;

use super::{Request, check_epoch, local, text};
use crate::app::Server;
use crate::message;
use crate::wire::{Malformed, error};

pub(crate) fn handle(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let body: OffsetForLeaderEpochRequest = request.decode()?;
    let mut topics = Vec::new();
    for topic in body.topics {
        let one = |p: &OffsetForLeaderPartition| {
            let found = local(&server.env, &server.catalog, &topic.topic, p.partition)
                .and_then(|key| cx.core.lookup(key).ok_or(error::UNKNOWN_TOPIC_OR_PARTITION))
                .and_then(|part| check_epoch(&server.env, p.current_leader_epoch).map(|()| part));
            match found {
                Ok(part) => {
                    let (epoch, end) = cx.core.epoch_end(part, p.leader_epoch).unwrap_or((-1, -1));
                    message!(EpochEndOffset {
                        partition: p.partition,
                        leader_epoch: epoch,
                        end_offset: end,
                    })
                }
                Err(code) => message!(EpochEndOffset {
                    partition: p.partition,
                    error_code: code,
                    leader_epoch: -1,
                    end_offset: -1,
                }),
            }
        };
        topics.push(message!(OffsetForLeaderTopicResult {
            topic: text(&topic.topic),
            partitions: topic.partitions.iter().map(one).collect(),
        }));
    }
    let response = message!(OffsetForLeaderEpochResponse { topics: topics });
    server.conns.reply(request.token, &response);
    Ok(())
}
