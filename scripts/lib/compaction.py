"""Compacted topics: two other clients read, and Kafka's tools find in the files, the newest record of each key."""

import itertools
import json
import re
import shutil
import time

import install
import kafka
from paths import CLIENTS
from process import Failure, run

KEYS, DELETED_EVERY = 700, 10
PARTITIONS = 2
RETENTION_S = 5
# A pass a quarter of a minute is the cleaner's default.
LIMIT_S = 90
SETTINGS = {
    "cleanup.policy": "compact", "segment.bytes": str(1 << 20), "segment.ms": "1000",
    "delete.retention.ms": str(RETENTION_S * 1000),
}
# A pass is due when a part of the log is new, or when something is old; each alone must be enough.
DUE = {
    "ratio": {"min.cleanable.dirty.ratio": "0.01"},
    "lag": {"min.cleanable.dirty.ratio": "1.0", "max.compaction.lag.ms": "2000"},
}
COMPLAINTS = rb"(?i)isvalid: false|corrupt|mismatch|out of order|not sane|exception|found \d+ bytes"


def compaction_checks(context):
    """Keyed records and tombstones go into compacted topics, one for each thing that makes a pass due."""
    yield "compaction/last-values", lambda log: _last_values(context, log)


class Topic:
    """A compacted topic: what was written, and what must be left of it."""

    def __init__(self, context, log, due):
        self.context, self.log = context, log
        self.name = context.topic(f"compacted-{due}")
        # By key: (partition, offset, value).
        self.last = {}
        context.client("confluent").create_topic(context.at, log, self.name, PARTITIONS, {**SETTINGS, **DUE[due]})

    def write(self, records):
        """Writes (key, value) pairs, and remembers where each key's newest one is."""
        feed = self.context.folder() / "feed"
        feed.write_text("".join(json.dumps({"key": key, "value": value}) + "\n" for key, value in records))
        places = run([*_records(self.context), "write", self.name], self.log, stdin=feed).decode().splitlines()
        if len(places) != len(records):
            raise Failure(f"{len(places)} records of {len(records)} written")
        for (key, value), place in zip(records, places):
            partition, offset = map(int, place.split())
            self.last[key] = (partition, offset, value)

    def close(self, word):
        """Closes the segments: each partition gets a record when its newest one is older than segment.ms."""
        time.sleep(1.5)
        self.write([(f"{word}-{number}", "end") for number in range(8 * PARTITIONS)])

    def kept(self, tombstones):
        """What must be left, in the order of reading."""
        return sorted(
            (partition, offset, key, value)
            for key, (partition, offset, value) in self.last.items()
            if tombstones or value is not None
        )


def _records(context):
    return [install.python("python"), CLIENTS / "python" / "records.py", "--bootstrap", context.at]


def _last_values(context, log):
    topics = [Topic(context, log, due) for due in DUE]
    values = [
        line.decode("latin-1") for path in context.files.exact.values() for line in path.read_bytes().splitlines()
    ]
    keys = (f"key-{number % KEYS}" for number in itertools.count())
    deleted = [(f"key-{number}", None) for number in range(0, KEYS, DELETED_EVERY)]
    for topic in topics:
        topic.write([*zip(keys, values), *deleted])
        topic.close("first")
    _wait(context, log, topics, tombstones=True)
    time.sleep(RETENTION_S)
    for topic in topics:
        # A pass needs something new.
        topic.write([(f"key-{number}", "again") for number in range(1, KEYS, DELETED_EVERY)])
        topic.close("second")
    _wait(context, log, topics, tombstones=False)
    for topic in topics:
        _java_reads(context, log, topic)
        _files(context, log, topic)


def _wait(context, log, topics, tombstones):
    """Until there is nothing in the topics but each key's newest record, at its offset. Before, that is there, too."""
    deadline = time.monotonic() + LIMIT_S
    left = list(topics)
    while left:
        found = {topic.name: [] for topic in left}
        output = run([*_records(context), "read", *found], log)
        for record in map(json.loads, output.splitlines()):
            found[record["topic"]].append((record["partition"], record["offset"], record["key"], record["value"]))
        for topic in list(left):
            records = sorted(found[topic.name])
            missing = set(topic.kept(tombstones)) - set(records)
            if missing:
                raise Failure(f"{topic.name}: {len(missing)} newest records are gone, one is {min(missing)}")
            if records == topic.kept(tombstones):
                left.remove(topic)
        if left and time.monotonic() > deadline:
            counts = {topic.name: (len(found[topic.name]), len(topic.kept(tombstones))) for topic in left}
            raise Failure(f"after {LIMIT_S} s there are more records than keys: {counts}")


def _java_reads(context, log, topic):
    """Kafka's own consumer sees the same records at the same offsets."""
    wanted = topic.kept(tombstones=False)
    shown = [word for what in ("key", "offset", "partition") for word in ("--formatter-property", f"print.{what}=true")]
    output = run(
        kafka.command(
            "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", context.at, "--topic", topic.name,
            "--from-beginning", "--timeout-ms", "30000", "--max-messages", len(wanted), *shown,
        ),
        log,
    )
    rows = (line.split(b"\t", 3) for line in output.split(b"\n")[:-1])
    found = sorted(
        (int(partition.split(b":")[1]), int(offset.split(b":")[1]), key.decode(), value.decode("latin-1"))
        for partition, offset, key, value in rows
    )
    if found != wanted:
        others = len(set(found) - set(wanted))
        raise Failure(f"{topic.name}: ConsoleConsumer reads {len(found)} records, {others} of them others")


def _files(context, log, topic):
    """Kafka opens every closed segment with its indexes, under the names that Kafka would give them."""
    folder, found = context.folder(), []
    for partition, source in context.broker.segments(topic.name).items():
        closed = _closed(source)
        if context.broker.name == "ringlog" and not any(path.name.count(".") > 1 for path in closed):
            raise Failure(f"{source} holds no compacted segment: {[path.name for path in closed]}")
        target = folder / str(partition)
        target.mkdir()
        for path in closed:
            for kind in ("log", "index", "timeindex"):
                shutil.copy(path.with_suffix(f".{kind}"), target / f"{path.name.split('.')[0]}.{kind}")
        logs = sorted(target.glob("*.log"))
        output = _dump(log, logs, "--print-data-log", "--deep-iteration")
        rows = re.findall(rb"^\| offset: (\d+) .*? key: (\S+)(?: payload: (.*))?$", output, re.MULTILINE)
        found += [(partition, int(offset), key.decode(), value.decode("latin-1")) for offset, key, value in rows]
        for kind in ("index", "timeindex"):
            _dump(log, [path.with_suffix(f".{kind}") for path in logs])
    ends = {key for key in topic.last if key.startswith("second-")}
    wanted = [record for record in topic.kept(tombstones=False) if record[2] not in ends]
    found = [record for record in found if record[2] not in ends]
    if sorted(found) != wanted:
        raise Failure(f"{topic.name}: DumpLogSegments finds {len(found)} records, should be {len(wanted)}")


def _closed(folder):
    """The closed segments: those that compaction has given a revision, each one's newest, and of Kafka all but the last."""
    newest = {}
    for path in folder.glob("*.log"):
        base, *revision = path.name.split(".")[:-1]
        number = int(revision[0]) if revision else 0
        if int(base) not in newest or number > newest[int(base)][0]:
            newest[int(base)] = number, path
    last = max(newest, default=0)
    return [path for base, (number, path) in sorted(newest.items()) if number > 0 or base < last]


def _dump(log, files, *options):
    # What does not fit is printed as an error, and the tool ends well.
    output = run(
        kafka.command("org.apache.kafka.tools.DumpLogSegments", *options, "--files", ",".join(map(str, files))), log,
        with_errors=True,
    )
    for line in output.splitlines():
        if not line.startswith(b"|") and re.search(COMPLAINTS, line):
            raise Failure(f"DumpLogSegments: {line.decode(errors='replace')}")
    return output
