"""Apache Kafka as a peer: its broker as one KRaft node, and the tools it ships."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import install
from paths import CACHE, CLIENTS
from process import Failure, free_ports, run, start, wait_for_port

# A fixed cluster id: a data folder formatted once can be started again.
CLUSTER_ID = "cmluZ2xvZy1wZWVycy0wMQ"
QUICK_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx256m")


def version():
    """The version of Kafka that compat.d/kafka/pom.xml names."""
    return install.pom_version("kafka")


def command(name, *arguments, jvm=QUICK_JVM, log_level="warn", classes=None):
    """The command line of one of Kafka's classes; `classes` is the class path, if it is not that of broker and tools."""
    return [
        install.java(), *jvm, f"-Dkafka.log.level={log_level}",
        f"-Dlog4j2.configurationFile={CLIENTS / 'kafka' / 'log4j2.properties'}",
        "-cp", classes or f"{install.kafka_jars()}/*", name, *arguments,
    ]


def properties(port, controller_port, data, fsync, extra):
    """The broker's configuration: one node, everything replicated once."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "log.dirs": str(data),
        "auto.create.topics.enable": "true",
        "num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
    }
    if fsync:
        settings["log.flush.interval.messages"] = "1"
    settings.update(extra)
    return "".join(f"{key}={value}\n" for key, value in settings.items())


class Peer:
    """One broker by name, with its state under the cache, so that `stop` and `status` work from another shell."""

    def __init__(self, name="kafka"):
        self.folder = CACHE / "peers" / name
        self.state = self.folder / "state.json"
        self.log = self.folder / "server.log"

    def start(self, port=None, data=None, fsync=False, heap="512m", extra=None):
        """Starts the broker and waits until it listens. Returns its state: pid, port, data, fsync.
        Without `data` it starts empty, in a folder of its own."""
        if self.running():
            raise Failure(f"{self.folder.name} already runs on port {self.running()['port']}; stop it first")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        if data is None:
            data = self.folder / "data"
            shutil.rmtree(data, ignore_errors=True)
        data = Path(data).resolve()
        data.mkdir(parents=True, exist_ok=True)
        port = port or free_ports(2)
        config = self.folder / "server.properties"
        config.write_text(properties(port, free_ports(), data, fsync, extra or {}))
        run(
            command("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", config, "--ignore-formatted"), self.log
        )
        jvm = (f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-Djava.awt.headless=true")
        process = start(command("kafka.Kafka", config, jvm=jvm, log_level="info"), self.log)
        try:
            wait_for_port(port, process, self.log, limit_s=60)
        except BaseException:
            process.kill()
            raise
        state = {"pid": process.pid, "port": port, "data": str(data), "fsync": fsync, "version": version()}
        self.state.write_text(json.dumps(state))
        return state

    def running(self):
        """The state of the running broker, or None."""
        try:
            state = json.loads(self.state.read_text())
            line = Path(f"/proc/{state['pid']}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # A process id may have been given to something else since.
        return state if b"kafka.Kafka" in line else None

    def stop(self, grace_s=20):
        """Stops the broker: in order first, by force past `grace_s`. True if one was running."""
        state = self.running()
        if not state:
            return False
        os.kill(state["pid"], signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self.running():
            if time.monotonic() > deadline:
                os.kill(state["pid"], signal.SIGKILL)
                deadline += 5
            self._reap(state["pid"])
            time.sleep(0.1)
        self.state.unlink(missing_ok=True)
        return True

    def remove(self):
        """Removes its data, configuration and log; it must have been stopped."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self):
        """Ends the broker without warning."""
        state = self.running()
        os.kill(state["pid"], signal.SIGKILL)
        while self.running():
            self._reap(state["pid"])
            time.sleep(0.01)

    @staticmethod
    def _reap(pid):
        """Collects the broker if it is a child of this process, or it would look alive for ever."""
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
