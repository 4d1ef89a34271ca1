"""Groups of the consumer protocol (KIP-848) with clients of others: librdkafka's members come, go, are killed and live through a
restart, and change the group's protocol one by one; Kafka's tools describe what there is."""

import re
import time

import kafka
from paths import CLIENTS
from process import Failure, run, start, stop

CONSUMER_GROUP_HEARTBEAT, CONSUMER_GROUP_DESCRIBE = 68, 69


def consumer_group_checks(context):
    """Members of librdkafka while the group changes, and a Java member as Kafka's tools see it."""
    needs = (CONSUMER_GROUP_HEARTBEAT, CONSUMER_GROUP_DESCRIBE)
    yield "consumer-group/hand-over", lambda log: _hand_over(context, log), needs
    for strategy in ("range", "roundrobin"):
        yield f"consumer-group/roll/{strategy}", lambda log, by=strategy: _hand_over(context, log, "--roll", by), needs
    yield "consumer-group/describe", lambda log: _describe(context, log), needs


def _hand_over(context, log, *how):
    confluent = context.client("confluent")
    prefix, group = context.topic("hand-over"), context.topic("hand-over-group")
    for letter in "ab":
        confluent.create_topic(context.at, log, f"{prefix}-{letter}", 6, {})
    program, _ = confluent.command()
    process = start(
        [program, CLIENTS / "python" / "hand_over.py", "--bootstrap", context.at, "--group", group, *how, prefix], log
    )
    deadline, restarted = time.monotonic() + 90, False
    while process.poll() is None:
        if time.monotonic() > deadline:
            stop(process)
            raise Failure(f"not done in time (log: {log})")
        if not restarted and b"restart the broker" in log.read_bytes():
            context.broker.kill()
            context.broker.restart()
            restarted = True
        time.sleep(0.05)
    if process.returncode != 0:
        raise Failure(log.read_text(errors="replace").splitlines()[-1])


def _describe(context, log):
    """A Java member subscribes to one topic of two; then it goes."""
    confluent = context.client("confluent")
    topic, group = context.topic("described"), context.topic("described-group")
    confluent.create_topic(context.at, log, topic, 4, {})
    lines = context.folder() / "lines"
    lines.write_text("".join(f"record {number}\n" for number in range(500)))
    confluent.produce(context.at, log, {topic: lines}, "none")
    member = start(
        kafka.command(
            "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", context.at, "--topic", topic,
            "--from-beginning", "--group", group, "--command-property", "group.protocol=consumer",
            "--command-property", "group.remote.assignor=range", "--command-property", "auto.commit.interval.ms=200",
        ),
        log,
    )
    tell = lambda *what: _tell(context, log, group, *what)  # noqa: E731
    try:
        deadline = time.monotonic() + 30
        while not re.search(rf"{group} .* range +Stable +1 +1 +1\b", tell("--state", "--verbose")):
            if time.monotonic() > deadline:
                raise Failure("the group does not become stable as it should")
        members = tell("--members", "--verbose")
        if not re.search(rf"{group} .* {topic}:0,1,2,3 +1 +{topic}:0,1,2,3\b", members):
            raise Failure("the member and its partitions are not described")
        rows = re.findall(rf"{group} +{topic} +\d+ +(\d+) +(\d+) +(\d+) ", tell("--offsets"))
        if len(rows) != 4 or sum(int(committed) for committed, _, _ in rows) != 500 or any(lag != "0" for *_, lag in rows):
            raise Failure(f"offsets and lag are described as {rows}")
    finally:
        stop(member)
    listed = _groups(context, log, "--list", "--state", "--type")
    if not re.search(rf"{group} +Consumer +(Empty|Stable)", listed):
        raise Failure("the group is not listed with its type")
    _groups(context, log, "--delete", "--group", group)


def _groups(context, log, *arguments):
    tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    return run(kafka.command(tool, "--bootstrap-server", context.at, *arguments), log).decode()


def _tell(context, log, group, *what):
    return _groups(context, log, "--describe", "--group", group, *what)
