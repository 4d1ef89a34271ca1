"""The systems that scripts/peers measures, and what they have in common."""

import json
import re
import subprocess
import time

import install
import kafka
from bench_sides import Kafka, Load, Ringlog
from broker import build
from peer_tool import rate
from process import Failure, run

BATCHED = ("--batch-bytes", 65536, "--connections", 4, "--in-flight", 5)
SINGLE = ("--batch-records", 1, "--connections", 64)
PARTITIONS = 16
# Load under which acks are compared, and under which a broker is killed after so many seconds.
BY_ACKS = ("--batch-records", 1, "--connections", 16, "--in-flight", 4)
KILLED = ("--batch-records", 4, "--connections", 8, "--in-flight", 4, "--rate", 10000)
KILL_AFTER_S = 2.0
DURABLE, VOLATILE = "fsync before each ack", "no fsync before an ack"


class Case:
    """One way to drive a system: what is measured over and over, in turns with the others."""

    def __init__(self, shape, durable, settings, tool, body):
        self.shape, self.durable, self.settings, self.tool, self.body = shape, durable, settings, tool, body


class System:
    """A system with its brokers. `cases()` says how it is driven; each body takes record bytes and a Run and returns messages
    a second."""

    name = ""
    # For people whose host lacks it.
    how_to_install = ""

    def __init__(self, run):
        self.run = run

    def install(self):
        """Gets what it needs; LeftOut with the reason otherwise. Sets `version`."""

    def start(self):
        """Starts its brokers, empty."""

    def cases(self):
        """Its cases."""

    def warm_up(self, cases):
        """The cases that its brokers are warmed up with before the first window, in order."""
        return cases

    def pids(self):
        """Its brokers' processes."""

    def stop(self):
        """Stops all that was started."""


class KafkaProtocol(System):
    """What ringlog and Kafka share: two brokers, one that syncs and one that does not, driven by ringlog-load."""

    def install(self):
        self.load = Load(build("ringlog-load"), self.run.load_cores, self.run.folder / "load.log")
        self.topics = 0

    def pids(self):
        return [side.pid for side in self.sides.values()]

    def load_cases(self, settings):
        """ringlog-load, in batches and one record at a time."""
        cases = []
        for shape, flags in (("batches of 64 KiB", BATCHED), ("one at a time on 64 connections", SINGLE)):
            for durable in (True, False):
                words = " ".join(map(str, ("-p", PARTITIONS, *flags)))
                cases.append(Case(shape, durable, settings(durable), f"ringlog-load produce {words} --acks all", self._body(durable, flags)))
        return cases

    def _body(self, durable, flags):
        def body(size, seconds):
            self.topics += 1
            result = self.load.run(
                self.sides[durable], "produce", "--topic", f"t{self.topics}", "--partitions", PARTITIONS, *flags, "--record-size", size,
                "--warmup", self.run.warmup, "--duration", seconds, "--delete-topics",
            )
            return result["produce"]["records_per_s"]

        return body

    def acks_cases(self, settings):
        """Every acks by flush policy, and what a kill -9 loses of what was acknowledged."""
        cases = []
        for durable in (True, False):
            for acks in ("0", "1", "all"):
                tool = f"ringlog-load produce -p {PARTITIONS} {' '.join(map(str, BY_ACKS))} --acks {acks}"
                cases.append(Case(f"acks={acks}", durable, settings(durable), tool, self._body(durable, (*BY_ACKS, "--acks", acks))))
        for durable in (True, False):
            for acks in ("1", "all"):
                tool = f"ringlog-load produce -p 4 {' '.join(map(str, KILLED))} --acks {acks} --ack-log, then check"
                cases.append(Case(f"acks={acks}, kill -9", durable, settings(durable), tool, self._kill(durable, acks)))
        return cases

    def _kill(self, durable, acks):
        def body(size, _seconds):
            self.topics += 1
            side, log = self.sides[durable], self.run.folder / "acks"
            began = self.load.begin(
                side, "produce", "--topic", f"kill{self.topics}", "--partitions", 4, *KILLED, "--record-size", size, "--acks", acks,
                "--warmup", 0, "--duration", KILL_AFTER_S + 1, "--ack-log", log,
            )
            time.sleep(KILL_AFTER_S)
            side.kill()
            output, _ = began.communicate(timeout=120)
            # A run that had errors says so with its status; they are what a kill brings.
            rate = json.loads(output)["produce"]["records_per_s"] if output else 0
            side.restart()
            checked = self._check(side, log)
            log.unlink()
            if not checked["acked"] or rate <= 0:
                raise Failure("nothing was acknowledged before the kill")
            return {"messages_per_s": rate, "acked": checked["acked"], "lost_per_million": checked["acked_lost"] * 1e6 / checked["acked"]}

        return body

    def _check(self, side, log):
        """What the broker has of what was acknowledged."""
        command = [self.load.binary, "check", "--ack-log", log, "--bootstrap", side.bootstrap, "--json"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
        if not done.stdout:
            raise Failure(f"the check could not be made: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def stop(self):
        for side in getattr(self, "sides", {}).values():
            side.stop()


class RinglogSystem(KafkaProtocol):
    """ringlog-server of this checkout."""

    name = "ringlog"
    how_to_install = "part of this project: cargo build --release"

    def install(self):
        super().install()
        self.binary = build("ringlog-server")
        self.version = self.run.version

    def start(self):
        self.sides = {}
        for durable, mode in ((True, "fsync"), (False, "write")):
            side = Ringlog(f"ringlog-{mode}", self.binary, self.run.folder, self.run.server_cores)
            self.sides[durable] = side
            side.start("--durability", mode)

    def warm_up(self, cases):
        return []

    def cases(self):
        return self.load_cases(self._settings)

    def by_acks(self):
        """The cases of --acks."""
        return self.acks_cases(self._settings)

    def _settings(self, durable):
        return " ".join(map(str, self.sides[durable].options))


class KafkaSystem(KafkaProtocol):
    """Apache Kafka, with its own tool too."""

    name = "Apache Kafka"
    how_to_install = "Java 17 and Maven (Debian: apt install default-jre-headless maven); Kafka itself comes from Maven Central"
    LINE = re.compile(r"records sent, ([\d.]+) records/sec")

    def install(self):
        install.java()
        install.kafka_jars()
        super().install()
        self.version = kafka.version()

    def start(self):
        self.sides = {}
        for durable in (True, False):
            side = Kafka(f"kafka-{'fsync' if durable else 'plain'}", self.run.folder, self.run.server_cores, fsync=durable)
            self.sides[durable] = side
            side.start()

    def _settings(self, durable):
        return f"{'log.flush.interval.messages=1, ' if durable else ''}heap {self.sides[durable].heap}, one KRaft node"

    def by_acks(self):
        """The cases of --acks."""
        return self.acks_cases(self._settings)

    def cases(self):
        settings = self._settings
        tool = "kafka-producer-perf-test acks=all batch.size=65536 linger.ms=5 compression.type=none"
        own = [Case("its own tool: batches of 64 KiB", durable, settings(durable), tool, self._own(durable)) for durable in (True, False)]
        return [*self.load_cases(settings), *own]

    def warm_up(self, cases):
        # By a client without a JVM of its own, which would have to warm up as well.
        quick = [case for case in cases if case.tool.startswith("ringlog-load") and "kill" not in case.shape]
        return [case for case in quick if case.shape == "acks=all"] or quick

    def _own(self, durable):
        def body(size, seconds):
            self.topics += 1
            topic, bootstrap = f"t{self.topics}", self.sides[durable].bootstrap
            # It has the partitions of the others.
            self._create(bootstrap, topic)
            command = kafka.command(
                "org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", "2000000000", "--record-size", str(size),
                "--throughput", "-1", "--producer-props", f"bootstrap.servers={bootstrap}", "acks=all", "batch.size=65536", "linger.ms=5",
                jvm=("-Xmx512m", "-Xms512m"),
            )
            # One line in five seconds: the first holds the start.
            found = rate(command, self.run.folder / "kafka-tool.log", self.run.load_cores, self.LINE, 0, max(5, seconds), 5, until_steady=True)
            self._delete(bootstrap, topic)
            return found

        return body

    def _topic(self, bootstrap, *words):
        run(kafka.command("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", bootstrap, *words),
            self.run.folder / "kafka-tool.log", timeout_s=60)

    def _create(self, bootstrap, topic):
        self._topic(bootstrap, "--create", "--topic", topic, "--partitions", str(PARTITIONS))

    def _delete(self, bootstrap, topic):
        self._topic(bootstrap, "--delete", "--topic", topic)
