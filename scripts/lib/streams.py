"""Kafka Streams: a word count with a state store and a repartition topic, while it and the broker are killed."""

import json
import shutil
import time
from collections import Counter

import install
import kafka
import wire
from checks import END_TXN
from paths import CLIENTS
from process import Failure, run, start, stop

LIMIT_S = 90
# Of each file; the counts are to be there within half a minute.
LINES_MAX = 1000


def streams_checks(context):
    """For each guarantee that Streams has, the words of a few files are counted (compat.d/java/WordCount.java)."""
    for guarantee in ("at_least_once", "exactly_once_v2"):
        yield f"streams/word-count/{guarantee}", _word_count(context, guarantee), (END_TXN,)


class Application:
    """The word count as a process, which can be killed and started again."""

    def __init__(self, context, log, guarantee):
        self.context, self.log = context, log
        self.name = context.topic(f"words-{guarantee}".replace("_", "-"))
        self.source, self.target = (context.topic(f"words-{word}") for word in ("source", "target"))
        self.folder = context.folder() / "store"
        self.command = kafka.command(
            "WordCount", context.at, self.name, guarantee, self.source, self.target, self.folder,
            classes=install.java_classes(),
        )
        self.process = None

    def start(self):
        """Starts it."""
        self.process = start(self.command, self.log)

    def kill(self):
        """Ends it without warning."""
        stop(self.process, grace_s=0)

    def counted(self):
        """How many records the target has, markers of transactions among them."""
        try:
            return sum(wire.Cluster(self.context.broker.port).ends(self.target).values())
        except (OSError, ValueError):
            return 0

    def wait_past(self, records):
        """Waits until the target has more records than that."""
        deadline = time.monotonic() + LIMIT_S
        while self.counted() <= records:
            if self.process.poll() is not None:
                raise Failure(f"the word count ended with {self.process.returncode} (log: {self.log})")
            if time.monotonic() > deadline:
                raise Failure(f"{self.counted()} records in {self.target} after {LIMIT_S} s, should be more than {records}")
            time.sleep(0.02)


def _word_count(context, guarantee):
    def check(log):
        writer = context.client("confluent")
        application = Application(context, log, guarantee)
        for topic in (application.source, application.target):
            writer.create_topic(context.at, log, topic, 2, {})
        pieces = _pieces(context)
        truth = Counter(word for piece in pieces for word in piece.read_bytes().split())
        application.start()
        try:
            for piece, trouble in zip(pieces, (_kill_application, _kill_broker, _kill_application_and_store)):
                before = application.counted()
                writer.produce(context.at, log, {application.source: piece}, "lz4")
                application.wait_past(before)
                trouble(application)
            writer.produce(context.at, log, {application.source: pieces[-1]}, "lz4")
            records = _read_all(context, log, application, truth)
        finally:
            code = stop(application.process, grace_s=20)
        if code not in (0, 143):
            raise Failure(f"the word count ended with {code} when asked to stop")
        _compare(truth, records, application.target, exact=guarantee != "at_least_once")
        _compare_changelog(context, log, application, records)

    return check


def _pieces(context):
    """Four files to count, the beginnings of four of the input's."""
    folder, found = context.folder(), []
    for path in list(context.files.exact.values())[:4]:
        piece = folder / path.name
        piece.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:LINES_MAX]))
        found.append(piece)
    return found


def _kill_application(application):
    application.kill()
    application.start()


def _kill_application_and_store(application):
    """The store is lost, too: what was counted must come from the changelog topic."""
    application.kill()
    shutil.rmtree(application.folder)
    application.start()


def _kill_broker(application):
    application.context.broker.kill()
    application.context.broker.restart()


def _read(context, log, *topics):
    """Every committed record of the topics, in the order of each partition's offsets."""
    reader = [install.python("python"), CLIENTS / "python" / "records.py", "--bootstrap", context.at]
    output = run([*reader, "read", "--committed", *topics], log)
    return [json.loads(line) for line in output.splitlines()]


def _read_all(context, log, application, truth):
    """Reads the target until there is a count for every word that was written."""
    deadline = time.monotonic() + LIMIT_S
    application.wait_past(sum(truth.values()) - 1)
    while True:
        records = _read(context, log, application.target)
        last = {record["key"]: int(record["value"]) for record in records}
        if sum(last.values()) >= sum(truth.values()):
            return records
        if time.monotonic() > deadline:
            raise Failure(f"{sum(last.values())} words counted of {sum(truth.values())}")
        time.sleep(0.5)


def _compare(truth, records, topic, exact):
    """Exactly once means that each word's counts are 1, 2, 3 and so on; at least once, that no count is too small."""
    counts = {}
    for record in records:
        counts.setdefault(record["key"].encode("latin-1"), []).append(int(record["value"]))
    if counts.keys() != truth.keys():
        raise Failure(f"{topic}: {len(counts)} different words, should be {len(truth)}")
    for word, found in counts.items():
        if exact and found != list(range(1, truth[word] + 1)):
            raise Failure(f"{topic}: {word!r} came {truth[word]} times, its {len(found)} counts are {found[:5]} … {found[-1]}")
        if found[-1] < truth[word]:
            raise Failure(f"{topic}: {word!r} was counted {found[-1]} times, it came {truth[word]} times")


def _compare_changelog(context, log, application, records):
    """The store's changelog is a compacted topic, and its last values are the counts."""
    changelog = f"{application.name}-counts-changelog"
    topic = context.client("confluent").describe_topic(context.at, log, changelog)
    if topic is None or topic["config"].get("cleanup.policy") != "compact":
        raise Failure(f"{changelog} is not a compacted topic: {topic}")
    last = {record["key"]: int(record["value"]) for record in records}
    kept = {
        record["key"]: int.from_bytes(record["value"].encode("latin-1")[-8:], "big")
        for record in _read(context, log, changelog)
    }
    if kept != last:
        wrong = [word for word in last.keys() | kept.keys() if last.get(word) != kept.get(word)]
        raise Failure(f"{changelog}: {len(wrong)} words have another count, {wrong[:3]}")
