"""The checks that every client goes through: lines, groups, idempotent writes, offsets by time, topics."""

import itertools
import time

from clients import ALL_CODECS
from process import Failure, LeftOut


# The API's number: what a broker with transactions offers.
END_TXN = 26


class Context:
    """What a check works with: the broker, the lines, a folder of its own, the clients that could be installed, and of
    those checks that can do more or less, how many records they move and how many minutes they take."""

    def __init__(self, broker, files, work, clients, records=0, minutes=0):
        self.broker, self.files, self.work, self.clients = broker, files, work, clients
        self.records, self.minutes = records, minutes
        self._number = itertools.count()

    @property
    def at(self):
        """HOST:PORT of the first broker."""
        return self.broker.bootstrap

    def folder(self):
        """A new folder."""
        path = self.work / "out" / str(next(self._number))
        path.mkdir(parents=True)
        return path

    def topic(self, name):
        """A topic name that no other check uses."""
        return f"{name}-{next(self._number)}"

    def client(self, name):
        """A client by name; LeftOut when it could not be installed."""
        for client in self.clients:
            if client.name == name:
                return client
        raise LeftOut(f"needs {name}, which is left out")

    def readers(self, codec, other_than):
        """The clients that can read a codec, without one of them, quick ones only."""
        found = [
            client for client in self.clients
            if client.name != other_than and codec in client.reads and not client.slow
        ]
        if not found:
            raise LeftOut(f"no other client to read {codec}")
        return found


def share(files, codec):
    """The part of the files that a slow client takes with one codec: together the codecs cover all."""
    names, turn = list(files), ALL_CODECS.index(codec)
    return {name: files[name] for index, name in enumerate(names) if index % len(ALL_CODECS) == turn % len(names)}


def read_back(context, log, reader, written):
    """Reads topics with a client and compares: `written` maps a topic to the file that its partition 0 must hold."""
    folder = context.folder()
    counts = {topic: path.read_bytes().count(b"\n") for topic, path in written.items()}
    reader.consume(context.at, log, counts, folder)
    context.files.compare(written, folder, log)


def lines_checks(context):
    """Every client writes every file with every codec it has, into topics that the write creates, and another client
    reads each back."""
    turn = itertools.count()
    for codec in ALL_CODECS:
        for writer in (client for client in context.clients if codec in client.writes):
            candidates = context.readers(codec, writer.name)
            reader = candidates[next(turn) % len(candidates)]
            yield f"lines/{writer.name}-to-{reader.name}/{codec}", _lines(context, writer, reader, codec)
        for reader in (client for client in context.clients if client.slow):
            yield f"lines/confluent-to-{reader.name}/{codec}", _lines(context, None, reader, codec)


def _lines(context, writer, reader, codec):
    def check(log):
        source = writer or context.client("confluent")
        files = context.files.exact if source.keeps_carriage_return and reader.keeps_carriage_return else context.files.plain
        if source.slow or reader.slow:
            files = share(files, codec)
        prefix = context.topic(f"lines-{source.name}-{codec}")
        written = {f"{prefix}.{name}": path for name, path in files.items()}
        source.produce(context.at, log, written, codec)
        read_back(context, log, reader, written)

    return check


def idempotent_checks(context):
    """Each client writes the same file twice, each time as a new idempotent producer."""
    for client in context.clients:
        yield f"idempotent/{client.name}", _idempotent(context, client)


def _idempotent(context, client):
    def check(log):
        topic = context.topic("idempotent")
        path = next(iter(context.files.plain.values()))
        for _ in range(2):
            client.produce(context.at, log, {topic: path}, "zstd", idempotent=True)
        twice = context.folder() / "twice"
        twice.write_bytes(path.read_bytes() * 2)
        read_back(context, log, context.readers("zstd", client.name)[0], {topic: twice})

    return check


def transaction_checks(context):
    """Each client writes files in transactions, every other one aborted, and reads back what is committed."""
    for client in (client for client in context.clients if client.transactional):
        yield f"transactions/{client.name}", _transactions(context, client), (END_TXN,)


def _transactions(context, client):
    def check(log):
        prefix = context.topic(f"transactions-{client.name}")
        source = context.files.exact if client.keeps_carriage_return else context.files.plain
        written = {f"{prefix}.{name}": path for name, path in list(source.items())[:2]}
        for topic in written:
            context.client("confluent").create_topic(context.at, log, topic, 1, {})
        client.transact(context.at, log, written, context.topic(f"id-{client.name}"))
        counts = {topic: path.read_bytes().count(b"\n") for topic, path in written.items()}
        for reader in {client.name: client, "confluent": context.client("confluent")}.values():
            folder = context.folder()
            reader.consume(context.at, log, counts, folder, committed=True)
            context.files.compare(written, folder, log)

    return check


def time_checks(context):
    """Offsets by time: start, end, the first record after a moment between two writes, and past the last record."""
    for client in context.clients:
        yield f"times/{client.name}", _times(context, client)


def _times(context, client):
    def check(log):
        topic = context.topic("times")
        name, path = next(iter(context.files.plain.items()))
        count = context.files.count[name]
        writer = context.client("confluent")
        writer.produce(context.at, log, {topic: path}, "lz4")
        time.sleep(0.05)
        between_ms = int(time.time() * 1000)
        time.sleep(0.05)
        writer.produce(context.at, log, {topic: path}, "lz4")
        an_hour_on_ms = between_ms + 3_600_000
        # Nothing is that late: the protocol says offset -1, and some clients put the end in its place.
        expected = {-2: (0,), -1: (2 * count,), between_ms: (count,), an_hour_on_ms: (-1, 2 * count)}
        for time_ms, allowed in expected.items():
            found = client.offsets_at(context.at, log, topic, time_ms).get(0, -1)
            if found not in allowed:
                raise Failure(f"offset at {time_ms} ms is {found}, should be {allowed[0]} (end {2 * count})")

    return check


def admin_checks(context):
    """Create with partitions and a setting, describe, refuse the same name again, delete."""
    for client in context.clients:
        if client.admin:
            yield f"admin/{client.name}", _admin(context, client)


def _admin(context, client):
    def check(log):
        topic = context.topic("admin")
        client.create_topic(context.at, log, topic, 3, {"retention.ms": "86400001"})
        seen = eventually(lambda: client.describe_topic(context.at, log, topic))
        if not seen:
            raise Failure(f"{topic} was created, but is not described")
        if seen["partitions"] != 3 or seen["config"].get("retention.ms") != "86400001":
            raise Failure(f"{topic} has {seen['partitions']} partitions, retention.ms {seen['config'].get('retention.ms')}")
        try:
            client.create_topic(context.at, log, topic, 3, {})
        except Failure:
            pass
        else:
            raise Failure(f"{topic} could be created twice")
        client.delete_topic(context.at, log, topic)
        if not eventually(lambda: client.describe_topic(context.at, log, topic) is None):
            raise Failure(f"{topic} was deleted, but is still described")

    return check


def eventually(condition, limit_s=10):
    """Tries until a condition is true; metadata takes a moment. Returns its last value."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.2)


def group_checks(context):
    """A group reads a part and commits; the same group goes on from there in a new process; nothing twice, nothing lost."""
    for client in context.clients:
        yield f"group/{client.name}", _group(context, client)


def _group(context, client):
    def check(log):
        topic, group = context.topic("group"), context.topic(f"group-{client.name}")
        creator = next(other for other in context.clients if other.admin)
        creator.create_topic(context.at, log, topic, 1 if client.slow else 4, {})
        if not eventually(lambda: creator.describe_topic(context.at, log, topic)):
            raise Failure(f"{topic} was created, but is not described")
        paths = list(context.files.plain.items())[:2]
        total = sum(context.files.count[name] for name, _ in paths)
        # A writer each, so that several partitions get records.
        for writer, (_, path) in zip((context.client("confluent"), context.client("franz-go")), paths):
            writer.produce(context.at, log, {topic: path}, "lz4")
        whole, parts = context.folder(), context.folder()
        context.readers("lz4", client.name)[0].consume(context.at, log, {topic: total}, whole)
        first = total // 3
        client.consume(context.at, log, {topic: first}, parts, group)
        client.consume(context.at, log, {topic: total - first}, parts, group)
        for path in sorted(whole.iterdir()):
            read = parts / path.name
            if not read.exists() or read.read_bytes() != path.read_bytes():
                raise Failure(f"{path.name}: the group's two halves are not the whole")

    return check
