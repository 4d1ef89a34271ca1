//! DescribeLogDirs: how large the logs of this shard are.

use hashbrown::{HashMap, HashSet};
use kafka_wire::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_wire::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use ringlog_engine::shard::Cx;

use super::{Request, text};
use crate::app::Server;
use crate::message;
use crate::wire::Malformed;

pub(crate) fn handle(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let body: DescribeLogDirsRequest = request.decode()?;
    let version = request.header.api_version;
    // Null asks for every topic.
    let asked: Option<HashMap<&str, HashSet<i32>>> = body.topics.as_ref().map(|topics| {
        let one = |t: &'_ kafka_wire::describe_log_dirs_request::DescribableLogDirTopic| {
            t.partitions.iter().copied().collect::<HashSet<i32>>()
        };
        topics.iter().map(|t| (&*t.topic, one(t))).collect()
    });
    let mut topics = Vec::new();
    for topic in server.catalog.topics() {
        let wanted = match &asked {
            None => None,
            Some(asked) => match asked.get(&*topic.name) {
                Some(partitions) => Some(partitions),
                None => continue,
            },
        };
        let mut partitions = Vec::new();
        for key in topic.keys(0) {
            let asked = wanted.is_none_or(|w| w.contains(&key.partition));
            if let (true, Some(part)) = (asked, cx.core.lookup(key)) {
                partitions.push(message!(DescribeLogDirsPartition {
                    partition_index: key.partition,
                    partition_size: cx.core.log_bytes(part) as i64,
                }));
            }
        }
        if !partitions.is_empty() {
            topics.push(message!(DescribeLogDirsTopic {
                name: text(&topic.name),
                partitions: partitions,
            }));
        }
    }
    let result = message!(DescribeLogDirsResult {
        log_dir: text(&server.env.config.data_dir),
        topics: topics,
    });
    let mut response = message!(DescribeLogDirsResponse {});
    // Sizes of the volume are unknown here: -1 is the schema's word for it.
    debug_assert!(version < 4 || result.total_bytes == -1);
    response.results = vec![result];
    server.conns.reply(request.token, &response);
    Ok(())
}
