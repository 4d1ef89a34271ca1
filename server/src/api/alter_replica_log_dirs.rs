//! AlterReplicaLogDirs (KIP-113): there is one directory, and everything lies in it already.

use kafka_wire::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_wire::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_wire::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};

use super::{Request, local, text};
use crate::app::Server;
use crate::message;
use crate::wire::{Malformed, error};

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: AlterReplicaLogDirsRequest = request.decode()?;
    let results = body.dirs.iter().flat_map(|dir| {
        let topics = dir.topics.iter();
        topics.map(|topic| moved(server, dir, topic))
    });
    let response = message!(AlterReplicaLogDirsResponse {
        results: results.collect(),
    });
    server.conns.reply(request.token, &response);
    Ok(())
}

fn moved(
    server: &Server,
    dir: &AlterReplicaLogDir,
    topic: &AlterReplicaLogDirTopic,
) -> AlterReplicaLogDirTopicResult {
    let one = |&index: &i32| {
        let checked = if *dir.path == *server.env.config.data_dir {
            local(&server.env, &server.catalog, &topic.name, index).map(drop)
        } else {
            Err(error::LOG_DIR_NOT_FOUND)
        };
        message!(AlterReplicaLogDirPartitionResult {
            partition_index: index,
            error_code: checked.err().unwrap_or(error::NONE),
        })
    };
    message!(AlterReplicaLogDirTopicResult {
        topic_name: text(&topic.name),
        partitions: topic.partitions.iter().map(one).collect(),
    })
}
