"""One face for all clients: produce the lines of files, read topics back, groups, offsets by time, topics."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import install
import kafka
from paths import CLIENTS
from process import Failure, run

ALL_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class Client:
    """A client program that follows the contract of compat.d/README.md."""

    keeps_carriage_return = True
    # Whether a run takes so long for each topic that it reads and writes only a share of the files.
    slow = False
    admin = True
    # Whether it has transactions: `transact`, and `consume` of what is committed.
    transactional = True

    def __init__(self, name, prepare, writes=ALL_CODECS, reads=ALL_CODECS):
        self.name, self._prepare, self.writes, self.reads = name, prepare, writes, reads

    def command(self):
        """How the program is started; installs it first. LeftOut when that cannot be."""
        return self._prepare()

    def _run(self, bootstrap, log, *arguments):
        return run([*self.command(), "--bootstrap", bootstrap, *arguments], log)

    def produce(self, bootstrap, log, files, codec, idempotent=False):
        """Writes each line of each file as a record of its topic: `files` maps topic to path."""
        options = ["--codec", codec] + (["--idempotent"] if idempotent else [])
        self._run(bootstrap, log, "produce", *options, *(f"{topic}={path}" for topic, path in files.items()))

    def transact(self, bootstrap, log, files, transactional_id):
        """Writes files in transactions. Each piece is written twice, the first time in a transaction that is aborted, with
        lines that are not the file's."""
        self._run(bootstrap, log, "transact", "--id", transactional_id, *(f"{t}={path}" for t, path in files.items()))

    def consume(self, bootstrap, log, counts, folder, group=None, committed=False):
        """Reads so many records of each topic; what each partition gave is in folder/<topic>-<partition>, a line a
        record. With a group it goes on from the group's commit, and commits what it read."""
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--group", group] if group else []
        options += ["--committed"] if committed else []
        self._run(bootstrap, log, "consume", *options, "--count", sum(counts.values()), folder, *counts)

    def offsets_at(self, bootstrap, log, topic, time_ms):
        """The first offset at or after a time by partition; -1 asks for the end, -2 for the start."""
        found = json.loads(self._run(bootstrap, log, "offsets", "--time", str(time_ms), topic))
        return {int(partition): offset for partition, offset in found.items()}

    def create_topic(self, bootstrap, log, topic, partitions, config):
        """Creates a topic; `config` maps names to values."""
        options = [word for key, value in config.items() for word in ("--config", f"{key}={value}")]
        self._run(bootstrap, log, "create", "--partitions", str(partitions), *options, topic)

    def describe_topic(self, bootstrap, log, topic):
        """{"partitions": n, "config": {...}}, or None when there is no such topic."""
        return json.loads(self._run(bootstrap, log, "describe", topic))

    def delete_topic(self, bootstrap, log, topic):
        """Deletes a topic."""
        self._run(bootstrap, log, "delete", topic)


def side_by_side(log, commands):
    """Runs commands that mostly wait at the same time. Returns their outputs in order."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda command: run(command, log), commands))


class Kcat(Client):
    """kcat, the distribution's package: librdkafka 2.0, the oldest client that must work."""

    admin = False
    transactional = False

    def __init__(self):
        super().__init__("kcat", lambda: [install.apt("kcat", "kcat")])

    def produce(self, bootstrap, log, files, codec, idempotent=False):
        side_by_side(log, (
            [*self.command(), "-b", bootstrap, "-P", "-t", topic, "-z", codec, "-X", "acks=all",
             "-X", f"enable.idempotence={str(idempotent).lower()}", "-l", path]
            for topic, path in files.items()
        ))

    def consume(self, bootstrap, log, counts, folder, group=None):
        folder.mkdir(parents=True, exist_ok=True)
        frame = ["-q", "-f", "%t-%p %S\\n%s\\n"]
        count = sum(counts.values())
        if group:
            output = run(
                [*self.command(), "-b", bootstrap, *frame, "-c", count, "-X", "auto.offset.reset=earliest",
                 "-G", group, *counts], log,
            )
        else:
            output = b"".join(side_by_side(log, (
                [*self.command(), "-b", bootstrap, *frame, "-C", "-t", topic, "-o", "beginning", "-e"]
                for topic in counts
            )))
        found = 0
        while output:
            head, output = output.split(b"\n", 1)
            name, size = head.decode().rsplit(" ", 1)
            with open(folder / name, "ab") as file:
                file.write(output[: int(size)] + b"\n")
            output = output[int(size) + 1 :]
            found += 1
        if found != count:
            raise Failure(f"kcat read {found} records of {count}")

    def offsets_at(self, bootstrap, log, topic, time_ms):
        output = run([*self.command(), "-b", bootstrap, "-Q", "-t", f"{topic}:0:{time_ms}"], log).decode()
        return {int(partition): int(offset) for partition, offset in re.findall(r"\[(\d+)\] offset (-?\d+)", output)}


class Java(Client):
    """Kafka's own tools: console producer and consumer, TopicCommand, GetOffsetShell. The producer's line reader drops a
    carriage return at a line's end."""

    keeps_carriage_return = False
    slow = True
    transactional = False

    def __init__(self):
        super().__init__("java", lambda: [install.java()])

    def produce(self, bootstrap, log, files, codec, idempotent=True):
        for topic, path in files.items():
            run(
                kafka.command(
                    "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", bootstrap, "--topic", topic,
                    "--compression-codec", codec, "--command-property", "acks=all",
                    "--command-property", f"enable.idempotence={str(idempotent).lower()}",
                ),
                log, stdin=path,
            )

    def consume(self, bootstrap, log, counts, folder, group=None):
        folder.mkdir(parents=True, exist_ok=True)
        # The formatter prints no topic, so one run reads one topic.
        for topic, count in counts.items():
            output = run(
                kafka.command(
                    "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", bootstrap,
                    "--topic", topic, "--from-beginning", "--timeout-ms", "30000", "--max-messages", count,
                    "--formatter-property", "print.partition=true", *(["--group", group] if group else []),
                ),
                log,
            )
            lines = output.split(b"\n")[:-1]
            for line in lines:
                partition, value = line.split(b"\t", 1)
                with open(folder / f"{topic}-{partition.decode().split(':')[1]}", "ab") as file:
                    file.write(value + b"\n")
            if len(lines) != count:
                raise Failure(f"ConsoleConsumer read {len(lines)} records of {count}")

    def offsets_at(self, bootstrap, log, topic, time_ms):
        output = run(
            kafka.command(
                "org.apache.kafka.tools.GetOffsetShell", "--bootstrap-server", bootstrap, "--topic", topic,
                "--time", str(time_ms),
            ),
            log,
        ).decode()
        # A partition without a record that late is printed without an offset.
        rows = (line.split(":") for line in output.splitlines())
        return {int(partition): int(offset or -1) for _, partition, offset in rows}

    def _topics(self, bootstrap, log, *arguments):
        tool = "org.apache.kafka.tools.TopicCommand"
        return run(kafka.command(tool, "--bootstrap-server", bootstrap, *arguments), log).decode()

    def create_topic(self, bootstrap, log, topic, partitions, config):
        options = [word for key, value in config.items() for word in ("--config", f"{key}={value}")]
        self._topics(bootstrap, log, "--create", "--topic", topic, "--partitions", str(partitions), *options)

    def describe_topic(self, bootstrap, log, topic):
        if topic not in self._topics(bootstrap, log, "--list").split():
            return None
        line = self._topics(bootstrap, log, "--describe", "--topic", topic).splitlines()[0]
        configs = line.split("Configs:")[1].strip()
        return {
            "partitions": int(re.search(r"PartitionCount: (\d+)", line).group(1)),
            "config": dict(pair.split("=", 1) for pair in configs.split(",") if pair),
        }

    def delete_topic(self, bootstrap, log, topic):
        self._topics(bootstrap, log, "--delete", "--topic", topic)


def python_program(name, transactional=True):
    """A Python client by its module's name in compat.d/python."""
    module = f"client_{name.replace('-', '_')}.py"
    client = Client(name, lambda: [install.python("python"), CLIENTS / "python" / module])
    client.transactional = transactional
    return client


def node_program():
    """The kafkajs client. It cannot write LZ4 that Kafka takes: its codec has dependent blocks."""

    def prepare():
        binary, folder = install.node()
        return ["env", "KAFKAJS_NO_PARTITIONER_WARNING=1", binary, folder / "client.js"]

    return Client("kafkajs", prepare, writes=("none", "gzip", "snappy", "zstd"))


def go_program(name, binary):
    """A Go client by its folder in compat.d/go."""
    return Client(name, lambda: [install.go() / binary])


def everyone():
    """All clients that write and read lines."""
    return [
        Kcat(), python_program("confluent"), python_program("kafka-python", transactional=False), python_program("aiokafka"),
        go_program("franz-go", "franz"), go_program("sarama", "sarama"), node_program(), Java(),
    ]
