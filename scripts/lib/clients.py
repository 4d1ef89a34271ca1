"""One face for all clients: produce the lines of files, read topics back, groups, offsets by time, topics."""

import json

import install
import kafka
from process import Failure, LeftOut, run

ALL_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class Client:
    """A client program that follows the contract of compat.d/README.md."""

    keeps_carriage_return = True
    groups = offsets = admin = idempotent = True
    writes = ALL_CODECS
    reads = ALL_CODECS

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

    def consume(self, bootstrap, log, topics, count, folder, group=None):
        """Reads `count` records of the topics; what each partition gave is in folder/<topic>-<partition>, a line a
        record. With a group it goes on from the group's commit, and commits what it read."""
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--group", group] if group else []
        self._run(bootstrap, log, "consume", *options, "--count", str(count), str(folder), *topics)

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


class Kcat(Client):
    """kcat, the distribution's package: librdkafka 2.0, the oldest client that must work."""

    offsets = False
    admin = False

    def __init__(self):
        super().__init__("kcat", lambda: [install.apt("kcat", "kcat")])

    def produce(self, bootstrap, log, files, codec, idempotent=False):
        for topic, path in files.items():
            run(
                [*self.command(), "-b", bootstrap, "-P", "-t", topic, "-z", codec, "-X", "acks=all",
                 "-X", f"enable.idempotence={str(idempotent).lower()}", "-l", path], log,
            )

    def consume(self, bootstrap, log, topics, count, folder, group=None):
        folder.mkdir(parents=True, exist_ok=True)
        frame = ["-q", "-f", "%t-%p %S\\n%s\\n"]
        if group:
            output = run(
                [*self.command(), "-b", bootstrap, *frame, "-c", str(count), "-X", "auto.offset.reset=earliest",
                 "-G", group, *topics], log,
            )
        else:
            output = b"".join(
                run([*self.command(), "-b", bootstrap, *frame, "-C", "-t", topic, "-o", "beginning", "-e"], log)
                for topic in topics
            )
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


class JavaConsole(Client):
    """Kafka's own console producer and consumer. The producer's line reader drops a carriage return at a line's end."""

    keeps_carriage_return = False
    offsets = admin = False

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

    def consume(self, bootstrap, log, topics, count, folder, group=None):
        folder.mkdir(parents=True, exist_ok=True)
        # The formatter prints no topic, so one run reads one topic.
        for topic in topics:
            output = run(
                kafka.command(
                    "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", bootstrap,
                    "--topic", topic, "--from-beginning", "--timeout-ms", "5000",
                    "--formatter-property", "print.partition=true",
                    *(["--group", group] if group else []), *(["--max-messages", str(count)] if len(topics) == 1 else []),
                ),
                log,
            )
            lines = output.split(b"\n")[:-1]
            for line in lines:
                partition, value = line.split(b"\t", 1)
                with open(folder / f"{topic}-{partition.decode().split(':')[1]}", "ab") as file:
                    file.write(value + b"\n")
            count -= len(lines)
        if count:
            raise Failure(f"ConsoleConsumer read {-count:+} records other than it should")
