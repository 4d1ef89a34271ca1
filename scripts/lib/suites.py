"""Larger programs: a consumer group under stress, franz-go's own test suite, and what only a cluster of shards shows."""

import re
import time

import install
import wire
from bad_input import World
from batches import batch
from paths import CLIENTS
from process import Failure, LeftOut, run, start, stop

ADD_PARTITIONS_TO_TXN, END_TXN, CONSUMER_GROUP_HEARTBEAT, SHARE_FETCH = 24, 26, 68, 78
NOT_LEADER_OR_FOLLOWER = 6


def group_heavy_checks(context):
    """Members of a group join, leave and vanish while records come in (compat.d/go/groupheavy)."""
    for balancer in ("cooperative", "range"):
        yield f"group-heavy/{balancer}", _group_heavy(context, balancer)


def _group_heavy(context, balancer):
    def check(log):
        context.client("franz-go")
        program = install.go() / "groupheavy"
        topic = context.topic(f"group-heavy-{balancer}")
        run([program, "--bootstrap", context.at, "--topic", topic, "--balancer", balancer], log)

    return check


# franz-go's tests of newer features, apart from the rest: transactions, and share and KIP-848 groups.
NEWER = "TestTxnEtl|TestGroupETL|Share|848"


def kgo_suite_checks(context):
    """franz-go's own tests against the broker. Only when named: some need APIs that ringlog does not have yet."""
    yield "kgo-suite/consume-produce", _kgo_suite(context, "-test.skip", NEWER)
    yield "kgo-suite/group-etl", _kgo_suite(context, "-test.run", "^TestGroupETL$")
    yield "kgo-suite/txn-etl", _kgo_suite(context, "-test.run", "^TestTxnEtl$"), (ADD_PARTITIONS_TO_TXN, END_TXN)
    yield "kgo-suite/kip-848", _kgo_suite(context, "-test.run", "848"), (CONSUMER_GROUP_HEARTBEAT,)
    yield "kgo-suite/share", _kgo_suite(context, "-test.run", "Share"), (SHARE_FETCH,)


def _kgo_suite(context, *choice):
    def check(log):
        program, source = install.kgo_suite()
        environment = {
            "KGO_SEEDS": context.at, "KGO_TEST_RF": "1", "KGO_TEST_RECORDS": "10000", "KGO_LOG_LEVEL": "none",
        }
        try:
            output = run([program, "-test.v", *choice], log, timeout_s=600, env=environment, cwd=source)
        except Failure as failure:
            failed = re.findall(r"^\s*--- FAIL: (\S+)", log.read_text(errors="replace"), re.MULTILINE)
            raise Failure(f"{', '.join(failed) or failure}") from failure
        if b"--- PASS" not in output:
            raise Failure("no test ran")

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
