"""Requests that are well formed and ask for what is not there or not allowed. Each case returns error codes and offsets."""

import wire
from batches import batch
from wire import array, i8, i16, i32, i64, octets, string


def fetch(offset=0, partition=0, leader_epoch=-1, session=(0, -1), max_bytes=1 << 20, topic=None):
    """A case that fetches once (version 11) from a topic with two records."""

    def case(world):
        name = topic or world.new_topic()
        port = world.port if topic else world.leader(name)
        if not topic:
            world.produce(name, batch())
        asked = i32(partition) + i32(leader_epoch) + i64(offset) + i64(-1) + i32(max_bytes)
        body = (
            i32(-1) + i32(0) + i32(1) + i32(max_bytes) + i8(0) + i32(session[0]) + i32(session[1])
            + array(string(name) + array(asked)) + array() + string("")
        )
        reader = wire.ask(port, wire.FETCH, 11, body)
        if reader is None:
            return "closed"
        reader.i32()
        error, _ = reader.i16(), reader.i32()

        def one():
            found = {"error": (reader.i32(), reader.i16())[1], "high_watermark": reader.i64()}
            reader.i64(), reader.i64(), reader.array(lambda: (reader.i64(), reader.i64())), reader.i32()
            return {**found, "bytes": len(reader.octets() or b"")}

        partitions = reader.array(lambda: (reader.string(), reader.array(one))[1])
        return {"error": error, "partitions": [found for group in partitions for found in group]}

    return case


def list_offsets(time_ms=-1, partition=0, leader_epoch=-1, topic=None):
    """A case that asks for one offset by time (version 4) of a topic with two records."""

    def case(world):
        name = topic or world.new_topic()
        port = world.port if topic else world.leader(name)
        if not topic:
            world.produce(name, batch(time_ms=1_000_000))
        asked = string(name) + array(i32(partition) + i32(leader_epoch) + i64(time_ms))
        reader = wire.ask(port, wire.LIST_OFFSETS, 4, i32(-1) + i8(0) + array(asked))
        if reader is None:
            return "closed"
        reader.i32()

        def one():
            error, _, offset, _ = (reader.i32(), reader.i16())[1], reader.i64(), reader.i64(), reader.i32()
            return {"error": error, "offset": offset}

        return reader.array(lambda: (reader.string(), reader.array(one))[1])[0][0]

    return case


def epoch_end(leader_epoch, current=-1):
    """A case that asks where a leader epoch ended (OffsetForLeaderEpoch version 2)."""

    def case(world):
        name = world.new_topic()
        world.produce(name, batch())
        asked = string(name) + array(i32(0) + i32(current) + i32(leader_epoch))
        reader = wire.ask(world.leader(name), wire.OFFSET_FOR_LEADER_EPOCH, 2, array(asked))
        if reader is None:
            return "closed"
        reader.i32()

        def one():
            error, _, epoch, offset = reader.i16(), reader.i32(), reader.i32(), reader.i64()
            return {"error": error, "epoch": epoch, "end_offset": offset}

        return reader.array(lambda: (reader.string(), reader.array(one))[1])[0][0]

    return case


def group(api, version, body, group_id="no-such-group"):
    """A case that sends one group request to the group's coordinator; its answer starts with throttle time and error."""

    def case(world):
        reader = wire.ask(world.coordinator(group_id), api, version, string(group_id) + body)
        return "closed" if reader is None else {"error": (reader.i32(), reader.i16())[1]}

    return case


PROTOCOLS = array(string("range") + octets(b""))


def join(session_ms=10_000, group_id="no-such-group", member="", protocols=PROTOCOLS):
    """A case of JoinGroup version 2."""
    body = i32(session_ms) + i32(10_000) + string(member) + string("consumer") + protocols
    return group(wire.JOIN_GROUP, 2, body, group_id)


def commit(generation, member, metadata="", partition=0, topic=None):
    """A case of OffsetCommit version 5."""

    def case(world):
        name = topic or world.new_topic()
        body = string("simple-group") + i32(generation) + string(member) + array(
            string(name) + array(i32(partition) + i64(5) + string(metadata))
        )
        reader = wire.ask(world.coordinator("simple-group"), wire.OFFSET_COMMIT, 5, body)
        if reader is None:
            return "closed"
        reader.i32()
        one = lambda: {"error": (reader.i32(), reader.i16())[1]}
        return reader.array(lambda: (reader.string(), reader.array(one))[1])[0][0]

    return case


def committed_of_nobody(world):
    """OffsetFetch version 3 for a group that never was."""
    name = world.new_topic()
    body = string("never-was") + array(string(name) + array(i32(0)))
    reader = wire.ask(world.coordinator("never-was"), wire.OFFSET_FETCH, 3, body)
    if reader is None:
        return "closed"
    reader.i32()

    def one():
        _, offset, metadata, error = reader.i32(), reader.i64(), reader.string(), reader.i16()
        return {"error": error, "offset": offset, "metadata": metadata}

    found = reader.array(lambda: (reader.string(), reader.array(one))[1])[0][0]
    return {**found, "group_error": reader.i16()}


def create(name="new-%d", partitions=1, replicas=1, configs=(), assignments=()):
    """A case of CreateTopics version 3; %d in the name makes it a new one."""

    def case(world):
        topic = name % world.number() if "%d" in name else name
        body = array(
            string(topic) + i32(partitions) + i16(replicas)
            + array(*(i32(index) + array(*map(i32, nodes)) for index, nodes in assignments))
            + array(*(string(key) + string(value) for key, value in configs))
        )
        reader = wire.ask(world.controller(), wire.CREATE_TOPICS, 3, body + i32(5000) + i8(0))
        if reader is None:
            return "closed"
        reader.i32()
        return {"error": reader.array(lambda: (reader.string(), reader.i16(), reader.string())[1])[0]}

    return case


def create_twice_in_one(world):
    """The same name twice in one request."""
    one = string("twice") + i32(1) + i16(1) + array() + array()
    reader = wire.ask(world.controller(), wire.CREATE_TOPICS, 3, array(one, one) + i32(5000) + i8(0))
    if reader is None:
        return "closed"
    reader.i32()
    return {"errors": reader.array(lambda: (reader.string(), reader.i16(), reader.string())[1])}


def create_existing(world):
    """A name that is taken."""
    return create(world.new_topic())(world)


def delete_unknown(world):
    """DeleteTopics version 3 of a topic that is not there."""
    reader = wire.ask(world.controller(), wire.DELETE_TOPICS, 3, array(string("never-created")) + i32(5000))
    if reader is None:
        return "closed"
    reader.i32()
    return {"error": reader.array(lambda: (reader.string(), reader.i16())[1])[0]}


def describe_configs(kind, name):
    """A case of DescribeConfigs version 1."""

    def case(world):
        body = array(i8(kind) + string(name) + i32(-1)) + i8(0)
        reader = wire.ask(world.port, wire.DESCRIBE_CONFIGS, 1, body)
        return "closed" if reader is None else {"error": (reader.i32(), reader.i32(), reader.i16())[2]}

    return case


def metadata(name, create_it):
    """A case of Metadata version 4 for one topic."""

    def case(world):
        reader = wire.ask(world.port, wire.METADATA, 4, array(string(name)) + i8(create_it))
        if reader is None:
            return "closed"
        reader.i32()
        reader.array(lambda: (reader.i32(), reader.string(), reader.i32(), reader.string()))
        reader.string(), reader.i32()
        return {"error": (reader.i32(), reader.i16())[1]}

    return case


CASES = {
    "fetch-good": fetch(),
    "fetch-at-end": fetch(offset=2),
    "fetch-past-end": fetch(offset=3),
    "fetch-offset-negative": fetch(offset=-1),
    "fetch-max-bytes-1": fetch(max_bytes=1),
    "fetch-max-bytes-negative": fetch(max_bytes=-1),
    "fetch-partition-unknown": fetch(partition=9),
    "fetch-topic-unknown": fetch(topic="never-created"),
    "fetch-leader-epoch-ahead": fetch(leader_epoch=1000),
    "fetch-leader-epoch-0": fetch(leader_epoch=0),
    "fetch-session-unknown": fetch(session=(12345, 5)),
    "fetch-session-epoch-without-id": fetch(session=(0, 5)),
    "list-offsets-end": list_offsets(),
    "list-offsets-time-before-all": list_offsets(time_ms=5),
    "list-offsets-time-after-all": list_offsets(time_ms=5_000_000),
    "list-offsets-time-unknown-special": list_offsets(time_ms=-77),
    "list-offsets-max-timestamp-in-old-version": list_offsets(time_ms=-3),
    "list-offsets-partition-unknown": list_offsets(partition=9),
    "list-offsets-topic-unknown": list_offsets(topic="never-created"),
    "list-offsets-leader-epoch-ahead": list_offsets(leader_epoch=1000),
    "epoch-end-current": epoch_end(0),
    "epoch-end-ahead": epoch_end(1000),
    "epoch-end-fenced": epoch_end(0, current=1000),
    "metadata-unknown-without-creation": metadata("never-created", 0),
    "metadata-illegal-name": metadata("a b/c", 1),
    "metadata-name-of-300": metadata("n" * 300, 1),
    "metadata-dot-dot": metadata("..", 1),
    "join-group-id-empty": join(group_id=""),
    "join-session-1ms": join(session_ms=1),
    "join-session-1day": join(session_ms=86_400_000),
    "join-member-unknown": join(member="nobody"),
    "join-without-protocols": join(protocols=array()),
    "heartbeat-unknown": group(wire.HEARTBEAT, 1, i32(1) + string("nobody")),
    "leave-unknown": group(wire.LEAVE_GROUP, 1, string("nobody")),
    "sync-unknown": group(wire.SYNC_GROUP, 1, i32(1) + string("nobody") + array()),
    "commit-simple": commit(-1, ""),
    "commit-member-unknown": commit(3, "nobody"),
    "commit-topic-unknown": commit(-1, "", topic="never-created"),
    "commit-partition-unknown": commit(-1, "", partition=9),
    "commit-metadata-4096": commit(-1, "", metadata="m" * 4096),
    "commit-metadata-4097": commit(-1, "", metadata="m" * 4097),
    "committed-of-nobody": committed_of_nobody,
    "create-good": create(),
    "create-defaults": create(partitions=-1, replicas=-1),
    "create-existing": create_existing,
    "create-twice-in-one": create_twice_in_one,
    "create-name-illegal": create("a b/c"),
    "create-name-empty": create(""),
    "create-name-dot": create("."),
    "create-name-of-250": create("n" * 250),
    "create-partitions-0": create(partitions=0),
    "create-replicas-3": create(replicas=3),
    "create-config-unknown": create(configs=[("no.such.config", "1")]),
    "create-config-bad-value": create(configs=[("retention.ms", "soon")]),
    "create-config-out-of-range": create(configs=[("segment.bytes", "1")]),
    "create-config-null": create(configs=[("retention.ms", None)]),
    "create-assignment-and-partitions": create(partitions=2, assignments=[(0, [1])]),
    "create-assignment-unknown-node": create(partitions=-1, replicas=-1, assignments=[(0, [77])]),
    "delete-unknown": delete_unknown,
    "describe-configs-topic-unknown": describe_configs(2, "never-created"),
    "describe-configs-kind-unknown": describe_configs(99, "x"),
}
