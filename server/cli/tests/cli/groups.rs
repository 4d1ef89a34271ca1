//! Groups: their members, how far behind they are, and where they go on.

use std::time::Duration;

use bytes::BytesMut;
use kafka_wire::consumer_protocol_assignment::TopicPartition;
use kafka_wire::join_group_request::JoinGroupRequestProtocol;
use kafka_wire::sync_group_request::SyncGroupRequestAssignment;
use kafka_wire::{
    ConsumerProtocolAssignment, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
    encode_consumer_protocol_assignment,
};
use kafka_wire_core::ApiVersion;
use ringlog_load::protocol::ControlClient;
use serde_json::Value;

use crate::run::{fails, fed_well, json, well};
use crate::server::{Server, new_dir};

/// A consumer's part in a group: it joins, and is assigned partitions of a topic.
struct Consumer {
    client: ControlClient,
    group: String,
    member: String,
}

impl Consumer {
    fn join(server: &Server, group: &str, topic: &str, partitions: &[i32]) -> Self {
        let address = format!("127.0.0.1:{}", server.port());
        let mut client = ControlClient::connect(&address, Duration::from_secs(20)).unwrap();
        let mut protocol = JoinGroupRequestProtocol::default();
        protocol.name = "range".into();
        let mut join = JoinGroupRequest::default();
        join.group_id = group.into();
        join.session_timeout_ms = 30_000;
        join.rebalance_timeout_ms = 30_000;
        join.protocol_type = "consumer".into();
        join.protocols = vec![protocol];
        // The last version that takes a new member without asking it to come again.
        let joined = client.call(&join, 3).unwrap();
        assert_eq!(joined.error_code, 0);
        let member = joined.member_id.as_str().to_owned();

        let mut part = TopicPartition::default();
        part.topic = topic.into();
        part.partitions = partitions.to_vec();
        let mut assignment = ConsumerProtocolAssignment::default();
        assignment.assigned_partitions = vec![part];
        let mut bytes = BytesMut::new();
        encode_consumer_protocol_assignment(&mut bytes, &assignment, ApiVersion::new(1)).unwrap();
        let mut mine = SyncGroupRequestAssignment::default();
        mine.member_id = member.as_str().into();
        mine.assignment = bytes.freeze();
        let mut sync = SyncGroupRequest::default();
        sync.group_id = group.into();
        sync.generation_id = joined.generation_id;
        sync.member_id = member.as_str().into();
        sync.assignments = vec![mine];
        assert_eq!(client.call(&sync, 3).unwrap().error_code, 0);
        Self {
            client,
            group: group.into(),
            member,
        }
    }

    fn leave(mut self) {
        let mut leave = LeaveGroupRequest::default();
        leave.group_id = self.group.as_str().into();
        leave.member_id = self.member.as_str().into();
        assert_eq!(self.client.call(&leave, 2).unwrap().error_code, 0);
    }
}

fn lags(server: &Server, group: &str) -> Vec<(Value, Value, Value)> {
    let lines = json(&mut server.ringlog(&["group", "lag", group, "--json"]));
    let one = |line: &Value| {
        (
            line["partition"].clone(),
            line["committed"].clone(),
            line["lag"].clone(),
        )
    };
    lines.as_array().unwrap().iter().map(one).collect()
}

fn line(
    partition: i32,
    committed: impl Into<Value>,
    lag: impl Into<Value>,
) -> (Value, Value, Value) {
    (partition.into(), committed.into(), lag.into())
}

#[test]
fn a_group_is_reset_read_and_deleted() {
    let data = new_dir();
    let server = Server::start(data.path());
    well(&mut server.ringlog(&["topic", "create", "orders", "-p", "2"]));
    // Ten records a minute apart in partition 0, none in 1.
    let lines: String = (0..10)
        .map(|n| {
            format!(
                "{{\"value\":\"{n}\",\"timestamp_ms\":{}}}\n",
                1_764_000_000_000i64 + n * 60_000
            )
        })
        .collect();
    fed_well(
        &mut server.ringlog(&["produce", "orders", "--input", "json", "-p", "0"]),
        lines.as_bytes(),
    );
    assert_eq!(
        well(&mut server.ringlog(&["group", "list"])),
        "there are no groups\n"
    );
    assert_eq!(
        well(&mut server.ringlog(&["group", "lag"])),
        "no group has committed anything\n"
    );

    let reset = |arguments: &[&str]| {
        let arguments: Vec<_> = ["group", "reset", "billing", "--json"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        json(&mut server.ringlog(&arguments))
    };
    // Nothing happens unless it is told to.
    let planned = reset(&["--topic", "orders", "--to", "beginning"]);
    assert_eq!(planned["executed"], false);
    assert_eq!(planned["partitions"].as_array().unwrap().len(), 2);
    assert_eq!(
        well(&mut server.ringlog(&["group", "list"])),
        "there are no groups\n"
    );
    let text = well(&mut server.ringlog(&[
        "group", "reset", "billing", "--topic", "orders", "--to", "end",
    ]));
    assert!(
        text.contains("would be") && text.contains("nothing was changed"),
        "{text}"
    );

    reset(&["--topic", "orders", "--to", "beginning", "--execute"]);
    assert_eq!(lags(&server, "billing"), [line(0, 0, 10), line(1, 0, 0)]);
    reset(&["--topic", "orders:0", "--to", "7", "--execute"]);
    assert_eq!(lags(&server, "billing"), [line(0, 7, 3), line(1, 0, 0)]);
    reset(&["--all-topics", "--shift-by", "-2", "--execute"]);
    assert_eq!(lags(&server, "billing"), [line(0, 5, 5), line(1, 0, 0)]);
    reset(&["--all-topics", "--shift-by", "1000", "--execute"]);
    assert_eq!(lags(&server, "billing")[0], line(0, 10, 0));
    reset(&[
        "--topic",
        "orders:0",
        "--to",
        "2025-11-24T16:03:30Z",
        "--execute",
    ]);
    assert_eq!(lags(&server, "billing")[0], line(0, 4, 6));
    reset(&["--topic", "orders", "--to", "end", "--execute"]);
    assert_eq!(lags(&server, "billing"), [line(0, 10, 0), line(1, 0, 0)]);
    fed_well(
        &mut server.ringlog(&["produce", "orders", "-p", "1"]),
        b"a\nb\n",
    );
    assert_eq!(lags(&server, "billing")[1], line(1, 0, 2));
    let text = well(&mut server.ringlog(&["group", "lag"]));
    assert!(
        text.contains("billing") && text.ends_with("lag of all: 2\n"),
        "{text}"
    );

    let listed = json(&mut server.ringlog(&["group", "list", "--json"]));
    assert_eq!(
        (&listed[0]["group"], &listed[0]["state"]),
        (&"billing".into(), &"Empty".into())
    );
    let (_, told) = fails(&mut server.ringlog(&["group", "describe", "biling"]));
    assert_eq!(
        told,
        "there is no group \"biling\"; did you mean \"billing\"?"
    );
    assert_eq!(
        well(&mut server.ringlog(&["group", "delete", "billing"])),
        "deleted billing\n"
    );
    let (status, told) = fails(&mut server.ringlog(&["group", "lag", "billing"]));
    assert!(
        status == 1 && told.starts_with("there is no group"),
        "{told}"
    );
    let (_, told) =
        fails(&mut server.ringlog(&["group", "reset", "billing", "--all-topics", "--to", "end"]));
    assert!(told.contains("committed nothing"), "{told}");
}

#[test]
fn a_group_with_members_shows_them_and_is_left_alone() {
    let data = new_dir();
    let server = Server::start(data.path());
    well(&mut server.ringlog(&["topic", "create", "orders", "-p", "3"]));
    fed_well(
        &mut server.ringlog(&["produce", "orders", "-p", "2"]),
        b"a\nb\n",
    );
    well(&mut server.ringlog(&[
        "group",
        "reset",
        "g",
        "-t",
        "orders:2",
        "--to",
        "1",
        "--execute",
    ]));
    let consumer = Consumer::join(&server, "g", "orders", &[1, 2]);

    let group = json(&mut server.ringlog(&["group", "describe", "g", "--json"]));
    assert_eq!(
        (&group["state"], &group["assignor"]),
        (&"Stable".into(), &"range".into())
    );
    assert_eq!(group["members"][0]["member"], consumer.member);
    assert_eq!(
        group["members"][0]["assigned"],
        serde_json::json!({ "orders": [1, 2] })
    );
    let text = well(&mut server.ringlog(&["group", "describe", "g"]));
    assert!(
        text.contains("1 member") && text.contains("orders: 1, 2"),
        "{text}"
    );
    assert_eq!(
        lags(&server, "g"),
        [line(1, Value::Null, Value::Null), line(2, 1, 1)]
    );

    // Looking is allowed, changing is not.
    let reset = ["group", "reset", "g", "-t", "orders", "--to", "end"];
    well(&mut server.ringlog(&reset));
    let (status, told) = fails(&mut server.ringlog(&[&reset[..], &["--execute"]].concat()));
    assert!(
        status == 1 && told.contains("has 1 member") && told.contains("stop them first"),
        "{told}"
    );
    let (_, told) = fails(&mut server.ringlog(&["group", "delete", "g"]));
    assert!(
        told.contains("NON_EMPTY_GROUP") && told.contains("stop its members first"),
        "{told}"
    );
    consumer.leave();
    well(&mut server.ringlog(&[&reset[..], &["--execute"]].concat()));
    assert_eq!(lags(&server, "g")[2], line(2, 2, 0));
    well(&mut server.ringlog(&["topic", "delete", "orders"]));
    let text = well(&mut server.ringlog(&["group", "lag", "g"]));
    assert!(
        text.contains("topic is gone") || text.contains("no group has committed"),
        "{text}"
    );
}

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = well(&mut crate::server::ringlog(&["completions", shell]));
        for command in ["topic", "produce", "consume", "group", "verify", "dump"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    let help = well(&mut crate::server::ringlog(&["group", "reset", "--help"]));
    assert!(
        help.contains("--execute") && help.contains("Examples:"),
        "{help}"
    );
}
