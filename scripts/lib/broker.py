"""The broker under test: ringlog built from this checkout, or Apache Kafka, with which the checks themselves are proved."""

import json
import os
import shutil
import time
from pathlib import Path

import kafka
from paths import CACHE, ROOT
from process import Failure, LeftOut, free_ports, last_line, run, start, stop

# Members of consumer groups are given up after seconds, not most of a minute.
SETTINGS = {"group.consumer.session.timeout.ms": "6000", "group.consumer.heartbeat.interval.ms": "1000"}

KAFKA_SETTINGS = {
    **SETTINGS, "group.consumer.min.session.timeout.ms": "6000", "group.consumer.min.heartbeat.interval.ms": "1000",
}


class KafkaBroker:
    """Apache Kafka from the peers, empty."""

    name = "kafka"

    def __init__(self, folder, shards, settings=None):
        # A name of its own: several runs may share a cache.
        self.peer = kafka.Peer(f"{folder.parent.name}-{folder.name}")
        self.log, self.settings = self.peer.log, {**KAFKA_SETTINGS, **(settings or {})}

    def start(self):
        """Starts it on a free port."""
        state = self.peer.start(extra=self.settings)
        self.port, self.data = state["port"], Path(state["data"])
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.what = f"Apache Kafka {state['version']}"

    def kill(self):
        """Ends it without warning."""
        self.peer.kill()

    def restart(self):
        """Starts it again on the port and data it had."""
        self.peer.start(self.port, self.data, extra=self.settings)

    def segments(self, topic):
        """The folders of a topic's partitions, by partition."""
        return {int(path.name.rsplit("-", 1)[1]): path for path in self.data.glob(f"{topic}-*")}

    def pids(self):
        """Its processes."""
        return [self.peer.running()["pid"]]

    def alive(self):
        """Whether it still runs."""
        return self.peer.running() is not None

    def stop(self):
        """Stops it and removes its data."""
        self.peer.stop()
        shutil.rmtree(self.peer.folder)


class RinglogBroker:
    """`ringlog-server`, release build, empty data folder."""

    name = "ringlog"

    def __init__(self, folder, shards, settings=None):
        self.folder, self.shards, self.settings = folder, shards, {**SETTINGS, **(settings or {})}
        self.log = folder / "server.log"
        self.data = folder / "data"
        self.process = None

    @staticmethod
    def in_tree():
        """Whether this checkout holds the server yet."""
        return "ringlog-server" in binaries()

    def start(self):
        """Builds the server, starts it on free ports and waits for its ready line."""
        self.binary = build("ringlog-server")
        self.port = free_ports(self.shards)
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.what = f"ringlog-server with {self.shards} shards"
        self.restart()

    def launch(self):
        """Starts the server on the ports and data folder it has, and does not wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = [word for key, value in self.settings.items() for word in ("--set", f"{key}={value}")]
        place = ["--data", self.data, "--port", self.port, "--advertise", "127.0.0.1", "--shards", self.shards]
        self.process = start([self.binary, *place, *settings], self.log)

    def kill(self):
        """Ends it without warning."""
        self.process.kill()
        self.process.wait()

    def restart(self, limit_s=30):
        """Starts the server and waits for its ready line."""
        before = self.log.stat().st_size if self.log.exists() else 0
        self.launch()
        try:
            self._wait_until_ready(before, limit_s)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, before, limit_s):
        """Waits for the ready line behind the log's first `before` bytes."""
        deadline = time.monotonic() + limit_s
        while True:
            with open(self.log, "rb") as file:
                file.seek(before)
                if any(line.startswith(b"ringlog ready") for line in file):
                    return
            if self.process.poll() is not None:
                raise Failure(f"ringlog-server ended with {self.process.returncode}: {last_line(self.log)}")
            if time.monotonic() > deadline:
                raise Failure(f"ringlog-server was not ready within {limit_s} s (log: {self.log})")
            time.sleep(0.01)

    def segments(self, topic):
        """The folders of a topic's partitions, by partition: <topic>-<partition>.<topic id>."""
        found = {}
        for path in (self.data / "topics").glob(f"{topic}-*.*"):
            partition = path.name[len(topic) + 1 :].split(".")[0]
            if partition.isdigit():
                found[int(partition)] = path
        return found

    def pids(self):
        """Its processes."""
        return [self.process.pid]

    def alive(self):
        """Whether it still runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """Stops it; a server that does not stop in order within the grace time is a failure."""
        if self.process is not None:
            alive, code = self.alive(), stop(self.process, grace_s=20)
            if alive and code != 0:
                raise Failure(f"ringlog-server ended with {code} when asked to stop (log: {self.log})")


def cargo():
    """Path of cargo."""
    path = shutil.which("cargo", path=os.environ["PATH"] + f":{Path.home()}/.cargo/bin")
    if not path:
        raise LeftOut("cargo is not there; install Rust with rustup")
    return path


def binaries():
    """The names of the binaries that this workspace builds."""
    output = run([cargo(), "metadata", "--no-deps", "--format-version", "1"], CACHE / "log" / "build.log", cwd=ROOT)
    return {
        target["name"]
        for package in json.loads(output)["packages"]
        for target in package["targets"]
        if "bin" in target["kind"]
    }


def build(binary):
    """Builds one of the workspace's binaries for release. Returns its path."""
    log = CACHE / "log" / "build.log"
    output = run(
        [cargo(), "build", "--release", "--locked", "--bin", binary, "--message-format", "json"],
        log, timeout_s=1500, cwd=ROOT,
    )
    for line in output.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == binary:
            return message["executable"]
    raise Failure(f"cargo built no {binary} (log: {log})")
