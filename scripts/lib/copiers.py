"""Programs that copy a topic exactly once, each as a process that is killed and started again."""

import hashlib
import json
import subprocess
import threading
import time

import install
import kafka
from paths import CLIENTS
from process import LeftOut, run, start, stop

# Sizes of a transaction, picked anew for each round.
SIZES = (5, 20, 50)
# Kafka's copier asks for its position before it aborts what its last life left open: that must time out soon.
KAFKA_TRANSACTION_MS = 1000


class Life:
    """One life of a copier: its process, and how often it said that it ends a transaction."""

    def __init__(self, command, log):
        self.command, self.log = command, log
        self.process = start(command, log, stdout=subprocess.PIPE)
        self.ends, self._over, self.heard_at = 0, False, time.monotonic()
        self._changed = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self):
        with open(self.log, "ab") as sink:
            for line in self.process.stdout:
                with self._changed:
                    self.ends, self.heard_at = self.ends + 1, time.monotonic()
                    self._changed.notify_all()
                sink.write(line)
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def wait_for(self, ends, limit_s):
        """Waits until it has said so often that it ends a transaction. False when it is over before, or the limit passes."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self.ends >= ends, limit_s)
            return not self._over and self.ends >= ends

    def over(self):
        """Its exit code, None while it lives."""
        return self.process.poll()

    def kill(self):
        """Ends it without warning."""
        self.process.kill()
        stop(self.process)
        self._listener.join()

    def pause(self):
        """Stops it where it is, as a host does that is moved or out of memory."""
        self.process.send_signal(subprocess.signal.SIGSTOP)

    def resume(self):
        """Lets it go on."""
        self.process.send_signal(subprocess.signal.SIGCONT)


class Copier:
    """One kind of copier, with topics, a group and a transactional id of its own."""

    # Transactions that a life ends within a moment or two: kills aim at one of them.
    aim = 25

    def __init__(self, name, partitions, at, log):
        self.name, self.at, self.log = name, at, log
        self.source, self.target, self.id = (f"once-{name}-{word}" for word in ("source", "target", "id"))
        # Records of each partition of the source, and so of the target when all is copied.
        self.ends = [0] * partitions

    @staticmethod
    def tool():
        """The program that writes sources and judges targets."""
        return install.go() / "exactlyonce"

    def prepare(self):
        """Installs what it needs; LeftOut when that cannot be."""
        self.tool()

    def feed(self, records, partitions):
        """Writes so many more records into each of these partitions."""
        for partition in partitions:
            self.ends[partition] += records
        run([self.tool(), "--bootstrap", self.at, "feed", "--ends", self._ends(), self.source], self.log)

    def _ends(self):
        return ",".join(map(str, self.ends))

    def choose(self, _dice):
        """The partitions of a round."""
        return range(len(self.ends))

    def commands(self, size, partitions):
        """The programs that copy these partitions, each ending with 0 when all of them are copied."""
        raise NotImplementedError

    def check(self):
        """Has the target judged: {"records": …, "commits": …, "aborts": …, "aborted_records": …}."""
        command = [self.tool(), "--bootstrap", self.at, "check", "--group", self.id, "--ends", self._ends(), self.source, self.target]
        return json.loads(run(command, self.log))

    def expected(self):
        """What each partition of the target must hold, a line a record."""
        return {
            f"{self.target}-{partition}": "".join(f"{value_of(partition, number)}\n" for number in range(end)).encode()
            for partition, end in enumerate(self.ends) if end
        }


def value_of(partition, number):
    """What the tool writes into a record."""
    key = f"{partition}-{number}"
    return f"{key} {hashlib.sha256(key.encode()).hexdigest()}"


class FranzGo(Copier):
    """franz-go's session for groups and transactions: a static member of a group, whose generation goes with the offsets."""

    def commands(self, size, partitions):
        return [[
            self.tool(), "--bootstrap", self.at, "copy", "--id", self.id, "--ends", self._ends(), "--records", size,
            self.source, self.target,
        ]]


class Confluent(Copier):
    """librdkafka with partitions that nobody assigns to it: only its transactional id keeps others away."""

    def prepare(self):
        super().prepare()
        install.python("python")

    def commands(self, size, partitions):
        return [[
            install.python("python"), CLIENTS / "python" / "copier.py", "--bootstrap", self.at, "--id", self.id,
            "--count", sum(self.ends), "--batch", size, "--deadline", "60", self.source, self.target,
        ]]


class KafkaCopier(Copier):
    """Kafka's TransactionalMessageCopier, which copies one partition and aborts a third of its transactions: two of them
    side by side."""

    aim = 15
    at_once = 2

    def prepare(self):
        super().prepare()
        install.java()
        install.kafka_jars()

    def choose(self, dice):
        return sorted(dice.sample(range(len(self.ends)), min(self.at_once, len(self.ends))))

    def commands(self, size, partitions):
        return [
            kafka.command(
                "org.apache.kafka.tools.TransactionalMessageCopier", "--broker-list", self.at, "--input-topic", self.source,
                "--input-partition", partition, "--output-topic", self.target, "--consumer-group", self.id,
                "--transactional-id", f"{self.id}-{partition}", "--transaction-size", size,
                "--transaction-timeout", KAFKA_TRANSACTION_MS, "--enable-random-aborts", "--use-group-metadata",
            )
            for partition in partitions
        ]


KINDS = {"franz-go": FranzGo, "confluent": Confluent, "kafka": KafkaCopier}


def installed(names, partitions, at, log):
    """The copiers of these names that are there or could be installed, and why the others are not."""
    found, left_out = [], {}
    for name in names:
        copier = KINDS[name](name, partitions, at, log)
        try:
            copier.prepare()
            found.append(copier)
        except LeftOut as reason:
            left_out[name] = str(reason)
    return found, left_out
