"""Kafka Connect, distributed: a file goes through a topic to another file, while broker and worker end and begin again."""

import json
import time
import urllib.error
import urllib.request

import install
import kafka
from checks import END_TXN, eventually
from process import Failure, free_ports, start, stop

LIMIT_S = 60
INTERNAL = ("config", "offset", "status")


def connect_checks(context):
    """The file connectors of Kafka Connect, with the worker's state in its compacted topics."""
    yield "connect/file-to-file", lambda log: _file_to_file(context, log), (END_TXN,)


class Worker:
    """A Connect worker of a group of its own, asked over its HTTP port."""

    def __init__(self, context, log, folder):
        self.log, self.port = log, free_ports()
        self.name = context.topic("connect")
        self.internal = {word: f"{self.name}-{word}" for word in INTERNAL}
        self.config = folder / "worker.properties"
        settings = {
            "bootstrap.servers": context.at,
            "group.id": self.name,
            "listeners": f"http://127.0.0.1:{self.port}",
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            "exactly.once.source.support": "enabled",
            "offset.flush.interval.ms": "1000",
            "scheduled.rebalance.max.delay.ms": "0",
            **{f"{word}.storage.topic": topic for word, topic in self.internal.items()},
            **{f"{word}.storage.replication.factor": "1" for word in INTERNAL},
        }
        self.config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self.process = None

    def start(self):
        """Starts it and waits until it answers."""
        self.process = start(
            kafka.command(
                "org.apache.kafka.connect.cli.ConnectDistributed", self.config, classes=install.java_classes(),
            ),
            self.log,
        )
        if not eventually(self._ready, LIMIT_S):
            raise Failure(f"Connect does not answer within {LIMIT_S} s (log: {self.log})")

    def stop(self):
        """Stops it in order."""
        if self.process is not None:
            stop(self.process, grace_s=20)

    def _ready(self):
        if self.process.poll() is not None:
            raise Failure(f"Connect ended with {self.process.returncode} (log: {self.log})")
        return self.ask("GET", "/connectors") is not None

    def ask(self, method, path, body=None):
        """What it answers, from JSON; None while it cannot."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method, headers={"Content-Type": "application/json"},
            data=json.dumps(body).encode() if body else None,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except (OSError, urllib.error.URLError, ValueError):
            return None

    def configure(self, connector, settings):
        """Creates a connector and waits until its task runs."""
        if not eventually(lambda: self.ask("PUT", f"/connectors/{connector}/config", settings), LIMIT_S):
            raise Failure(f"Connect does not take the connector {connector}")
        if not eventually(lambda: self.runs(connector), LIMIT_S):
            raise Failure(f"{connector} does not run: {self.ask('GET', f'/connectors/{connector}/status')}")

    def runs(self, connector):
        """Whether the connector and its task run."""
        status = self.ask("GET", f"/connectors/{connector}/status")
        parts = status and [status["connector"], *status["tasks"]]
        return bool(parts) and len(parts) == 2 and all(part["state"] == "RUNNING" for part in parts)


def _file_to_file(context, log):
    folder = context.folder()
    source, sink, topic = folder / "source", folder / "sink", context.topic("connect-lines")
    confluent = context.client("confluent")
    confluent.create_topic(context.at, log, topic, 1, {})
    pieces = [_ascii(path) for path in list(context.files.plain.values())[:4]]
    source.touch()
    worker = Worker(context, log, folder)
    connectors = {
        "source": {
            "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector", "tasks.max": "1",
            "file": str(source), "topic": topic, "exactly.once.support": "required",
        },
        "sink": {
            "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector", "tasks.max": "1",
            "file": str(sink), "topics": topic, "consumer.override.isolation.level": "read_committed",
        },
    }
    try:
        worker.start()
        for name, settings in connectors.items():
            worker.configure(name, settings)
        for piece, trouble in zip(pieces, (_nothing, _broker_ends, _worker_ends, _nothing)):
            before = sink.stat().st_size if sink.exists() else 0
            with open(source, "ab") as file:
                file.write(piece)
            if not eventually(lambda: sink.exists() and sink.stat().st_size > before, LIMIT_S):
                raise Failure(f"nothing comes to the sink: {worker.ask('GET', '/connectors/sink/status')}")
            trouble(context, worker)
        eventually(lambda: sink.stat().st_size >= source.stat().st_size, LIMIT_S)
        _position(worker, source)
    finally:
        worker.stop()
    _compare(source, sink)
    out = context.folder()
    confluent.consume(context.at, log, {topic: source.read_bytes().count(b"\n")}, out, committed=True)
    context.files.compare({topic: source}, out, log)
    for name in worker.internal.values():
        config = confluent.describe_topic(context.at, log, name)["config"]
        if config.get("cleanup.policy") != "compact":
            raise Failure(f"{name} is not compacted: {config}")


def _ascii(path):
    """The file's lines without those that have other characters: the source counts characters, and goes on at as many bytes."""
    return b"".join(line for line in path.read_bytes().splitlines(keepends=True) if line.isascii())


def _nothing(_context, _worker):
    pass


def _broker_ends(context, _worker):
    context.broker.kill()
    context.broker.restart()


def _worker_ends(_context, worker):
    """The next worker knows connectors and positions from the topics alone."""
    worker.stop()
    worker.start()
    for name in ("source", "sink"):
        if not eventually(lambda name=name: worker.runs(name), LIMIT_S):
            raise Failure(f"{name} does not run after the worker began again")


def _position(worker, source):
    """What the worker knows of the source's progress is the file's end."""
    def position():
        found = (worker.ask("GET", "/connectors/source/offsets") or {}).get("offsets") or [{"offset": {}}]
        return found[0]["offset"].get("position") == source.stat().st_size

    if not eventually(position, 20):
        raise Failure(f"the source's position is not the file's end: {worker.ask('GET', '/connectors/source/offsets')}")


def _compare(source, sink):
    """The sink writes at least once: it may go back, and then writes again what it wrote, but leaves nothing out."""
    want, got = (path.read_bytes().split(b"\n")[:-1] for path in (source, sink))
    if want == got:
        return
    at = {}
    for number, line in enumerate(want):
        at.setdefault(line, []).append(number)
    reached, high = {-1}, -1
    for number, line in enumerate(got):
        # Where it can be now: after where it was, or anywhere before if it went back.
        reached = {place for place in at.get(line, ()) if place - 1 in reached} or {
            place for place in at.get(line, ()) if place <= high
        }
        if not reached:
            raise Failure(f"line {number} of the sink does not follow: {line[:80]!r}")
        high = max(high, max(reached))
    if high != len(want) - 1:
        raise Failure(f"{high + 1} lines of {len(want)} arrived")
