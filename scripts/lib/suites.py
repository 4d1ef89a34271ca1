"""Larger programs: a consumer group under stress, a copier under kills, and what only a cluster of shards shows."""

import time

import install
import wire
from bad_input import World
from batches import batch
from consumer_groups import CONSUMER_GROUP_HEARTBEAT
from paths import CLIENTS
from process import Failure, LeftOut, run, start, stop

END_TXN = 26
NOT_LEADER_OR_FOLLOWER = 6


def group_heavy_checks(context):
    """Members of a group join, leave and vanish while records come in (compat.d/go/groupheavy)."""
    for balancer in ("cooperative", "range"):
        yield f"group-heavy/{balancer}", _group_heavy(context, balancer)
    yield "group-heavy/consumer", _group_heavy(context, "consumer"), (CONSUMER_GROUP_HEARTBEAT,)


def _group_heavy(context, balancer):
    def check(log):
        context.client("franz-go")
        program = install.go() / "groupheavy"
        topic = context.topic(f"group-heavy-{balancer}")
        run([program, "--bootstrap", context.at, "--topic", topic, "--balancer", balancer], log)

    return check


def exactly_once_checks(context):
    """A topic is copied exactly once while broker and copier are killed again and again."""
    yield "exactly-once/kill-9", lambda log: _exactly_once(context, log), (END_TXN,)


def _exactly_once(context, log, kills=6, count=3000):
    confluent = context.client("confluent")
    source, target, name = (context.topic(f"once-{word}") for word in ("source", "target", "id"))
    folder = context.folder()
    lines = folder / "lines"
    lines.write_text("".join(f"record {number:06}\n" for number in range(count)))
    for topic in (source, target):
        confluent.create_topic(context.at, log, topic, 4, {})
    confluent.produce(context.at, log, {source: lines}, "none")
    program, _ = confluent.command()
    copier = [
        program, CLIENTS / "python" / "copier.py", "--bootstrap", context.at, "--id", name, "--count", count,
        "--pause", "0.06", "--deadline", "8", source, target,
    ]
    deadline = time.monotonic() + 150
    process, killed = start(copier, log), 0
    while process.poll() != 0:
        if time.monotonic() > deadline:
            stop(process)
            raise Failure(f"not everything is copied, after {killed} kills")
        if process.poll() is not None:
            process = start(copier, log)
        # Times that nobody chose, the same in each run.
        time.sleep(0.7 + (killed * 37 % 11) / 10)
        if killed < kills and process.poll() is None:
            context.broker.kill()
            context.broker.restart()
            killed += 1
            if killed % 2 == 0:
                stop(process, grace_s=0)
    if killed == 0:
        raise Failure("it was done before anything was killed")
    out = folder / "copied"
    confluent.consume(context.at, log, {target: count}, out, committed=True)
    copied = sorted(line for path in out.iterdir() for line in path.read_bytes().splitlines(keepends=True))
    if b"".join(copied) != lines.read_bytes():
        raise Failure(f"{len(set(copied))} different records of {count} in {len(copied)}")


def shard_checks(context):
    """A shard that does not lead a partition says so."""
    yield "shards/not-leader", lambda log: _not_leader(context, log)


def _not_leader(context, log):
    world = World(context.broker.port)
    nodes = world.cluster.nodes()
    if len(nodes) < 2:
        raise LeftOut(f"{context.broker.what} has one node")
    topic = world.new_topic()
    leader = world.leader(topic)
    if world.produce(topic, batch()) != {"error": 0, "base_offset": 0}:
        raise Failure("the leader does not take a record")
    for port in nodes.values():
        if port != leader:
            outcome = world.produce(topic, batch(), port=port)
            if outcome != {"error": NOT_LEADER_OR_FOLLOWER, "base_offset": -1}:
                raise Failure(f"the node on port {port}, which does not lead {topic}, answers {outcome}")
    if len({wire.Cluster(port).leader(topic) for port in nodes.values()}) != 1:
        raise Failure(f"the nodes do not agree on who leads {topic}")
